/* test_dataset - what JSON lines become: the ids of the template's rendering, texts as they are, errors that name file and line; and that the text inside
 * the binary holds every kind of text wherever windows are cut from it. */
#include "tests/test.h"
#include "tests/tiny.h"
#include "tools/dataset.h"
#include "tools/prompt.h"
#include "tools/vocab.h"
#include <string.h>

static const char *model(bool bare)
{
    struct tiny_options o = { .arch = "llama", .n_ctx = 8192, .seed = 5, .no_template = bare };
    const char *path = test_tmp(bare ? "dataset_bare.gguf" : "dataset_tiny.gguf");
    struct err e = { 0 };
    CHECK_MSG(tiny_model(path, &o, &e) == OK, "%s", e.text);
    return path;
}

static bool open_vocab(struct vocab *v, bool bare)
{
    struct cli c = { .model = model(bare) };
    struct err e = { 0 };
    if (vocab_open(v, &c, &e) == OK) return true;
    test_fail(__FILE__, __LINE__, "%s", e.text);
    return false;
}

static const char *write_text(const char *name, const char *text)
{
    const char *path = test_tmp(name);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    return path;
}

static status read_all(struct dataset *d, const struct vocab *v, const char *path, struct err *e)
{
    return dataset_read(d, path, v->tok, v->chat_template, NULL, e);
}

/* Does b stand at offset `at` of a? */
static bool holds(const struct dataset *d, int64_t at, const int32_t *ids, int64_t n)
{
    return at + n <= d->n_ids && !memcmp(d->ids + at, ids, (size_t)n * sizeof *ids);
}

TEST(dataset_conversations_have_the_ids_of_the_template)
{
    struct vocab v;
    struct dataset d;
    struct prompt p;
    struct err e = { 0 };
    if (!open_vocab(&v, false)) return;
    static const char rows[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi <|im_end|>\"}, {\"role\": \"assistant\", \"content\": \"yes\"}]}\n"
                               "\n  \n"
                               "{\"other\": 1, \"prompt\": \"hi <|im_end|>\", \"completion\": \"yes\"}";
    const char *path = write_text("rows.jsonl", rows);
    CHECK_MSG(read_all(&d, &v, path, &e) == OK, "%s", e.text);
    CHECK(prompt_open(&p, v.tok, v.chat_template, NULL, "tiny", &e) == OK);
    CHECK(chat_add(p.chat, "user", "hi <|im_end|>", 13, &e) == OK && chat_add(p.chat, "assistant", "yes", 3, &e) == OK);
    CHECK_MSG(prompt_encode(&p, false, &e) == OK, "%s", e.text);
    int64_t skip = tokenizer_adds_bos(v.tok) && p.ids[0] == tokenizer_bos(v.tok);
    CHECK(d.n_rows == 2 && d.n_chats == 2 && d.n_plain == 0);
    CHECK(d.n_ids == 2 * p.n_ids - skip && holds(&d, 0, p.ids, p.n_ids) && holds(&d, p.n_ids, p.ids + skip, p.n_ids - skip));
    prompt_close(&p);
    dataset_close(&d);
    vocab_close(&v);
}

TEST(dataset_texts_are_texts)
{
    struct vocab v;
    struct dataset rows, text;
    struct err e = { 0 };
    if (!open_vocab(&v, false)) return;
    CHECK(read_all(&rows, &v, write_text("t.txt", "{\"text\": \"one <|im_end|>\"}\r\n{\"text\": \"\"}\n"), &e) == OK);
    CHECK(read_all(&text, &v, write_text("u.txt", "one <|im_end|>\n\n\n"), &e) == OK); /* one newline at the end is dropped */
    CHECK(rows.n_rows == 2 && rows.n_chats == 0 && text.n_rows == 0);
    CHECK(text.n_ids > 4 && rows.n_ids > text.n_ids && holds(&rows, 0, text.ids, text.n_ids));
    dataset_close(&rows);
    dataset_close(&text);
    CHECK(read_all(&text, &v, write_text("v.txt", "\xef\xbb\xbf{\"text\": \"a\"}\n"), &e) == OK && text.n_rows == 1);
    dataset_close(&text);
    CHECK(read_all(&text, &v, write_text("v.txt", "{ not a row }\n"), &e) == OK && text.n_rows == 0);
    dataset_close(&text);
    vocab_close(&v);
}

TEST(dataset_without_a_template_reads_turns_as_text)
{
    struct vocab v;
    struct dataset d, text;
    struct err e = { 0 };
    if (!open_vocab(&v, true)) return;
    CHECK(read_all(&d, &v, write_text("p.jsonl", "{\"prompt\": \"hi\", \"completion\": \"yes\"}"), &e) == OK);
    CHECK(d.n_plain == 1 && d.n_chats == 0);
    CHECK(read_all(&text, &v, write_text("q.txt", "hi\n\n\n"), &e) == OK && holds(&d, 0, text.ids, text.n_ids));
    dataset_close(&d);
    dataset_close(&text);
    CHECK(read_all(&d, &v, dataset_default, &e) == OK && d.n_plain > 20);
    dataset_close(&d);
    vocab_close(&v);
}

TEST(dataset_errors_name_file_and_line)
{
    static const struct { const char *text, *what; } rows[] = {
        { "{\"text\": \"a\"}\n\n{\"texd\": 1}", ":3: expected an object with \"messages\"" },
        { "{\"text\": \"a\"}\n{\"text\": 1}", ":2: text: expected a string" },
        { "{\"text\": \"a\"}\n{\"text\": \"b\",}", ":2: column 14: " },
        { "{\"text\": \"a\"}\n[1]", ":2: expected an object" },
        { "{\"text\": \"a\"}\n{\"text\": \"b\"} x", ":2: column 15" },
        { "{\"messages\": []}", ":1: no messages" },
        { "{\"messages\": [{\"role\": \"user\"}, {\"content\": \"x\"}]}", ":1: messages[1]: expected an object with a string 'role'" },
        { "{\"prompt\": \"a\"}", ":1: completion: expected a string" },
        { "{\"text\": \"\xff\"}", ":1: column 11" },
    };
    struct vocab v;
    if (!open_vocab(&v, false)) return;
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct dataset d;
        struct err e = { 0 };
        CHECK_MSG(read_all(&d, &v, write_text("bad.jsonl", rows[i].text), &e) == ERR_FORMAT, "row %d", i);
        CHECK_HAS(e.text, "bad.jsonl");
        CHECK_HAS(e.text, rows[i].what);
        CHECK(!d.ids);
    }
    struct dataset d;
    struct err e = { 0 };
    CHECK(read_all(&d, &v, write_text("none.jsonl", "\n"), &e) == ERR_FORMAT && read_all(&d, &v, "no/such", NULL) == ERR_FILE);
    vocab_close(&v);
}

TEST(dataset_survives_every_failing_allocation)
{
    struct vocab v;
    if (!open_vocab(&v, false)) return;
    const char *path = write_text("dataset_oom.jsonl", "{\"text\": \"a\"}\n{\"prompt\": \"hi\", \"completion\": \"yes\"}");
    status st = ERR_MEMORY;
    for (int64_t n = 1; st != OK && n < 2000; n++) {
        struct dataset d;
        struct err e = { 0 };
        mem_fail_at(n, false);
        st = read_all(&d, &v, path, &e);
        mem_fail_at(0, false);
        CHECK_MSG(st == OK || (st == ERR_MEMORY && *e.text), "allocation %lld: status %d %s", (long long)n, (int)st, e.text);
        dataset_close(&d);
        if (st != OK && st != ERR_MEMORY) break;
    }
    CHECK(st == OK);
    vocab_close(&v);
}

/* A sixteenth of the text is less than what two windows of 1024 tokens take: so even the smallest held-out part sees every kind. */
TEST(default_text_holds_every_kind_in_every_stretch)
{
    enum { KINDS = 4, PARTS = 16 };
    static const char *const kinds[KINDS] = { "\"kind\": \"prose\"", "\"kind\": \"code\"", "\"kind\": \"language\"", "\"kind\": \"chat\"" };
    struct str s = dataset_text_default();
    int64_t bytes[KINDS] = { 0 }, part[PARTS][KINDS] = { 0 };
    CHECK(s.n > 250000 && s.n < 600000 && s.p[s.n - 1] == '\n' && s.p[s.n] == 0);
    for (size_t at = 0; at < s.n;) {
        size_t n = (size_t)((const char *)memchr(s.p + at, '\n', s.n - at) - (s.p + at));
        for (int k = 0; k < KINDS; k++) {
            if (strncmp(s.p + at + 1, kinds[k], strlen(kinds[k]))) continue;
            bytes[k] += (int64_t)n;
            part[at * PARTS / s.n][k] += (int64_t)n;
        }
        at += n + 1;
    }
    CHECK(bytes[0] + bytes[1] + bytes[2] + bytes[3] > (int64_t)s.n * 99 / 100);
    for (int k = 0; k < KINDS; k++) {
        CHECK_MSG(bytes[k] > (int64_t)s.n / 12, "%s: %lld bytes", kinds[k], (long long)bytes[k]);
        for (int i = 0; i < PARTS; i++)
            CHECK_MSG(part[i][k] * PARTS > bytes[k] / 2, "%s: %lld of %lld bytes in part %d", kinds[k], (long long)part[i][k], (long long)bytes[k], i);
    }
}

SUITE(dataset, T(dataset_conversations_have_the_ids_of_the_template), T(dataset_texts_are_texts), T(dataset_without_a_template_reads_turns_as_text),
      T(dataset_errors_name_file_and_line), T(dataset_survives_every_failing_allocation), T(default_text_holds_every_kind_in_every_stretch));

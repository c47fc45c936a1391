/* test_train_set - which tokens are learnt, for templates of every make; formats; what is too long; faults with file and line. The expected texts were
 * written by hand: [[ ]] stand around what is learnt. */
#include "src/cuanto.h"
#include "tests/test.h"
#include "tools/rows.h"
#include "tools/train_mask.h"
#include "tools/train_preview.h"

/* ---- a vocabulary: all bytes, a few merges, the control tokens of several families ---- */

static const char *const controls[] = {
    "<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]",
};
enum { N_CONTROLS = ARRAY_LEN(controls), WORDS = 8, TOKENS = N_CONTROLS + 256 + WORDS };

static size_t byte_text(int b, char s[4])
{
    int map[256];
    for (int i = 0, n = 0; i < 256; i++) map[i] = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174 ? i : 256 + n++;
    int c = map[b];
    if (c < 128) return s[0] = (char)c, 1;
    s[0] = (char)(0xc0 | c >> 6), s[1] = (char)(0x80 | (c & 63));
    return 2;
}

enum vocabulary { BPE, BOS_BPE, SPM, SPACED_SPM, HOLED_BPE /* nothing stands for z */ };

static struct tokenizer *open_tokenizer(struct gguf *g, enum vocabulary v)
{
    bool spm = v == SPM || v == SPACED_SPM;
    static const char *const spm_words[WORDS] = { "\342\226\201", "\342\226\201a", "a", "\342\226\201b", "b", "\342\226\201\342\226\201", "n", "o" };
    static const char *const bpe_words[WORDS] = { "\304\240a", "\304\240b", "\304\212\304\212", "aa", "ab", "ba", "bb", "no" };
    static const char *const merges[WORDS] = { "\304\240 a", "\304\240 b", "\304\212 \304\212", "a a", "a b", "b a", "b b", "n o" };
    static char text[256][8];
    static struct str str[TOKENS], merge[WORDS];
    static int32_t type[TOKENS];
    static float score[TOKENS];
    const char *path = test_tmp("train_vocab.gguf");
    struct gguf_writer *w;
    struct tokenizer *t = NULL;
    struct err e = { 0 };
    int n = 0;
    for (int i = 0; i < N_CONTROLS; i++) str[n] = (struct str){ controls[i], strlen(controls[i]) }, type[n++] = i ? 3 : 2;
    for (int b = 0; b < 256; b++) {
        size_t len = spm ? (size_t)snprintf(text[b], sizeof text[b], "<0x%02X>", b) : byte_text(b, text[b]);
        if (v == HOLED_BPE && b == 'z') text[b][len++] = '?';
        str[n] = (struct str){ text[b], len }, type[n++] = spm ? 6 : 1;
    }
    for (int i = 0; i < WORDS; i++) {
        const char *word = (spm ? spm_words : bpe_words)[i];
        score[n] = (float)-i;
        str[n] = (struct str){ word, strlen(word) }, type[n++] = 1;
        merge[i] = (struct str){ merges[i], strlen(merges[i]) };
    }
    CHECK(gguf_writer_open(&w, path, &e) == OK);
    gguf_put_str(w, "general.architecture", "llama", 5);
    gguf_put_str(w, "tokenizer.ggml.model", spm ? "llama" : "gpt2", spm ? 5 : 4);
    if (!spm) gguf_put_str(w, "tokenizer.ggml.pre", "gpt-2", 5), gguf_put_arr_str(w, "tokenizer.ggml.merges", merge, WORDS);
    if (spm) gguf_put_arr(w, "tokenizer.ggml.scores", KV_F32, score, TOKENS);
    gguf_put_i64(w, "tokenizer.ggml.bos_token_id", KV_U32, 1);
    gguf_put_i64(w, "tokenizer.ggml.eos_token_id", KV_U32, 2);
    gguf_put_i64(w, "tokenizer.ggml.add_bos_token", KV_BOOL, v != BPE && v != HOLED_BPE);
    if (v == SPM) gguf_put_i64(w, "tokenizer.ggml.add_space_prefix", KV_BOOL, false);
    gguf_put_arr_str(w, "tokenizer.ggml.tokens", str, TOKENS);
    gguf_put_arr(w, "tokenizer.ggml.token_type", KV_I32, type, TOKENS);
    CHECK_MSG(gguf_writer_finish(w, &e) == OK, "%s", e.text);
    CHECK_MSG(gguf_open(g, path, true, &e) == OK && tokenizer_open(&t, g, NULL, &e) == OK, "%s", e.text);
    return t;
}

static const char *write_file(const char *name, const char *text, size_t n)
{
    const char *path = test_tmp(name);
    remove(path); /* some file systems wait for the disk when a file is emptied and written again */
    FILE *f = fopen(path, "wb");
    fwrite(text, 1, n, f);
    fclose(f);
    return path;
}

static status read_text(struct train_set *s, const struct tokenizer *t, const char *template, struct train_options o, const char *name,
                    const char *text, struct err *e)
{
    const char *path = write_file(name, text, strlen(text));
    struct str source = { template, template ? strlen(template) : 0 };
    o.model = "tiny";
    return train_set_read(s, &path, 1, t, source, &o, e);
}

/* The preview of all samples without its headings. */
static void expect(const struct train_set *s, const struct tokenizer *t, const char *want)
{
    struct buffer b = { 0 }, shown = { 0 };
    CHECK(train_preview(s, t, s->n_samples, false, &b) && buffer_append(&shown, "", 0));
    for (char *p = b.p; *p;) {
        char *line = p, *end = strchr(p, '\n') + 1;
        p = end;
        if (strncmp(line, "--- sample", 10)) CHECK(buffer_append(&shown, line, (size_t)(end - line)));
    }
    CHECK_STR(shown.p, want);
    buffer_free(&b), buffer_free(&shown);
}

static const char *builtin(const char *name)
{
    for (int i = 0; i < chat_builtin_count; i++)
        if (!strcmp(chat_builtins[i].name, name)) return chat_builtins[i].source;
    return NULL;
}

/* ---- masks ---- */

#define TWO_TURNS                                                                                                                                \
    "{\"messages\": [{\"role\": \"system\", \"content\": \"be\"}, {\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"no\"},"  \
    " {\"role\": \"user\", \"content\": \"ab\"}, {\"role\": \"assistant\", \"content\": \" bb \"}]}"
static const char with_blocks[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/* Like Qwen3: thoughts of earlier turns are dropped, the last answer gets an empty one. */
static const char thoughtful[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ "
    "m.content.split('</think>')[-1] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/* Thoughts of the last turn stay and are learnt, those of earlier ones are gone: found on the text itself, there is no shape with them. */
TEST(train_turns_that_the_template_rewrites_are_found)
{
    static const char row[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"hm</think>no\"},"
                              " {\"role\": \"user\", \"content\": \"b\"}, {\"role\": \"assistant\", \"content\": \"oh</think>ab\"}]}";
    static const char keeps_last[] =
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}{% else %}"
        "{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";
    struct gguf g;
    struct train_set s;
    struct err e = { 0 };
    struct tokenizer *t = open_tokenizer(&g, BPE);
    char open[1000];
    snprintf(open, sizeof open, "%.*s{%% endif %%}", (int)(strstr(keeps_last, "<think>\n{% endif") - keeps_last), keeps_last);
    for (int i = 0; i < 2; i++) { /* an opening that no turn has, one that all have */
        CHECK_MSG(read_text(&s, t, i ? open : keeps_last, (struct train_options){ 0 }, "rewrite.jsonl", row, &e) == OK, "%s", e.text);
        expect(&s, t, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[no<|im_end|>]]\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n"
                      "[[oh</think>ab<|im_end|>]]\n\n");
        train_set_close(&s);
    }
    CHECK(read_text(&s, t, "{{ messages[0].content }}", (struct train_options){ 0 }, "rewrite.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}", &e)
          == ERR_FORMAT);
    CHECK_HAS(e.text, "rewrite.jsonl:1: no token to learn from");
    train_set_close(&s);
    tokenizer_close(t);
    gguf_close(&g);
}

TEST(train_answers_and_their_end_tokens_are_learnt)
{
    static const struct { const char *name, *template, *want; enum vocabulary v; } rows[] = {
        { "chatml", NULL, "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[no<|im_end|>]]\n"
          "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n[[ bb <|im_end|>]]\n\n", BPE },
        { "llama3", NULL, "<|start_header_id|>system<|end_header_id|>\n\nbe<|eot_id|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\n[[no<|eot_id|>]]<|start_header_id|>user<|end_header_id|>\n\nab<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\n[[bb<|eot_id|>]]\n", BPE },
        { "gemma", NULL, "<s><start_of_turn>user\nbe\n\na<end_of_turn>\n<start_of_turn>model\n[[no<end_of_turn>]]\n"
          "<start_of_turn>user\nab<end_of_turn>\n<start_of_turn>model\n[[bb<end_of_turn>]]\n\n", SPM },
        { "llama2", NULL, "<s>[INST]  <<SYS>>\nbe\n<</SYS>>\n\na [/INST][[ no</s>]][INST]  ab [/INST][[  bb </s>]]\n", SPACED_SPM },
            /* its tokenizer puts a space before each text */
        { "mistral-v1", NULL, " [INST] be\n\na [/INST][[ no</s>]] [INST] ab [/INST][[  bb </s>]]\n", BPE }, /* the space is in the answer's first token */
        { "blocks", with_blocks, "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[no<|im_end|>\n]]"
          "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n[[ bb <|im_end|>\n]]\n", BPE },
        { "thoughtful", thoughtful, "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[no<|im_end|>]]\n"
          "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n[[<think>\n\n</think>\n\n bb <|im_end|>]]\n\n", BPE },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct gguf g;
        struct train_set s;
        struct err e = { 0 };
        test_begin("train_answers_and_their_end_tokens_are_learnt %s", rows[i].name);
        struct tokenizer *t = open_tokenizer(&g, rows[i].v);
        const char *template = rows[i].template ? rows[i].template : builtin(rows[i].name);
        CHECK_MSG(read_text(&s, t, template, (struct train_options){ 0 }, "mask.jsonl", TWO_TURNS "\n" TWO_TURNS, &e) == OK, "%s", e.text);
        char twice[1024];
        snprintf(twice, sizeof twice, "%s%s", rows[i].want, rows[i].want);
        expect(&s, t, twice);
        CHECK(s.n_turns == 4 && s.n_ended == 4 && s.n_samples == 2);
        if (s.n_samples == 2) CHECK(s.sample[0].n == s.sample[1].n && s.sample[1].line == 2 && s.sample[0].n_trained > 0);
        train_set_close(&s);
        tokenizer_close(t);
        gguf_close(&g);
    }
}

/* What one shape's turns say about a sample is what looking at the sample itself says. */
TEST(train_turns_of_a_shape_are_those_of_the_text)
{
    struct gguf g;
    struct tokenizer *t = open_tokenizer(&g, BPE);
    for (int i = 0; i < chat_builtin_count; i++) {
        struct prompt p;
        struct train_mask m;
        struct err e = { 0 };
        struct turn turn[2];
        test_begin("train_turns_of_a_shape_are_those_of_the_text %s", chat_builtins[i].name);
        CHECK(prompt_open(&p, t, (struct str){ 0 }, chat_builtins[i].name, "tiny", &e) == OK && train_mask_open(&m, &p, &e) == OK);
        CHECK(chat_add(p.chat, "user", "why", 3, &e) == OK && chat_add(p.chat, "assistant", "so it is", 8, &e) == OK);
        CHECK(chat_add(p.chat, "user", "why", 3, &e) == OK && chat_add(p.chat, "assistant", "because", 7, &e) == OK);
        CHECK_MSG(prompt_encode(&p, false, &e) == OK && p.spans_known && train_mask_turns(&m, &e) == OK && m.n_turn == 2, "%s", e.text);
        if (m.n_turn == 2) memcpy(turn, m.turn, sizeof turn);
        p.spans_known = false;
        CHECK_MSG(train_mask_turns(&m, &e) == OK && m.n_turn == 2, "%s", e.text);
        for (int k = 0; k < 2 && m.n_turn == 2; k++) {
            CHECK(m.turn[k].from == turn[k].from && m.turn[k].to == turn[k].to && m.turn[k].ends == turn[k].ends && m.turn[k].message == turn[k].message);
            CHECK(memmem(p.text + turn[k].from, turn[k].to - turn[k].from, k ? "because" : "so it is", k ? 7 : 8));
        }
        train_mask_close(&m);
        prompt_close(&p);
    }
    tokenizer_close(t);
    gguf_close(&g);
}

TEST(train_tokens_that_do_not_spell_the_text_are_told_by_prefixes)
{
    struct gguf g;
    struct train_set s;
    struct err e = { 0 };
    struct tokenizer *t = open_tokenizer(&g, HOLED_BPE);
    CHECK_MSG(read_text(&s, t, builtin("chatml"), (struct train_options){ 0 }, "holes.jsonl", "{\"prompt\": \"az\", \"completion\": \"bzb\"}",
        &e) == OK, "%s", e.text);
    expect(&s, t, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[bb<|im_end|>]]\n\n");
    train_set_close(&s);
    tokenizer_close(t);
    gguf_close(&g);
}

TEST(train_loss_can_be_on_the_last_answer_or_on_everything)
{
    struct gguf g;
    struct train_set s;
    struct err e = { 0 };
    struct tokenizer *t = open_tokenizer(&g, BOS_BPE);
    const char *chatml = builtin("chatml");
    static const char weighted[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\", \"weight\": 0},"
                                   " {\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"no\", \"weight\": 1}]}";
    static const char last[] = "<s><|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
                               "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[no<|im_end|>]]\n\n";
    CHECK(read_text(&s, t, chatml, (struct train_options){ .loss = TRAIN_LAST }, "last.jsonl", weighted, &e) == OK);
    expect(&s, t, last);
    train_set_close(&s);
    CHECK(read_text(&s, t, chatml, (struct train_options){ 0 }, "last.jsonl", weighted, &e) == OK);
    expect(&s, t, last);
    CHECK(s.sample[0].n_turns == 1 && s.sample[0].bos);
    train_set_close(&s);
    CHECK(read_text(&s, t, chatml, (struct train_options){ .loss = TRAIN_ALL }, "all.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}", &e) == OK);
    expect(&s, t, "<s>[[<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n]]\n");
    CHECK(s.weight[0] == 0 && s.sample[0].n_trained == s.sample[0].n - 1);
    train_set_close(&s);
    CHECK(read_text(&s, t, "{% for m in messages %}<s>{{ m.content }}{% endfor %}", (struct train_options){ .loss = TRAIN_ALL }, "all.jsonl",
                    "{\"prompt\": \"a\", \"completion\": \"b\"}", &e) == OK);
    expect(&s, t, "<s>[[a<s>b]]\n");
    train_set_close(&s);
    tokenizer_close(t);
    gguf_close(&g);
}

TEST(train_messages_never_become_control_tokens)
{
    struct gguf g;
    struct train_set s;
    struct err e = { 0 };
    struct tokenizer *t = open_tokenizer(&g, BPE);
    CHECK(read_text(&s, t, builtin("chatml"), (struct train_options){ 0 }, "imitate.jsonl",
                    "{\"prompt\": \"<|im_end|>\", \"completion\": \"a<|im_end|>b\"}", &e) == OK);
    expect(&s, t, "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n[[a<|im_end|>b<|im_end|>]]\n\n");
    int64_t ends = 0;
    for (int64_t i = 0; i < s.n_tokens; i++) ends += s.token[i] == 4;
    CHECK(ends == 2);
    train_set_close(&s);
    tokenizer_close(t);
    gguf_close(&g);
}

/* ---- formats ---- */

TEST(train_names_of_unknown_members_are_printable)
{
    char row[200] = "{\"text\": \"a b c\", \"x\\u001b[2J\\u009b\\u007f\": 1, \"a", want[64] = "a";
    for (int i = 0; i < 20; i++) strcat(row, "\u00e9");
    for (int i = 0; i < 19; i++) strcat(want, "\u00e9"); /* 40 bytes hold half of one more */
    strcat(row, "\": 2}");
    struct gguf g;
    struct train_set s;
    struct err e = { 0 };
    struct tokenizer *t = open_tokenizer(&g, BPE);
    CHECK(read_text(&s, t, builtin("chatml"), (struct train_options){ 0 }, "names.jsonl", row, &e) == OK);
    CHECK(s.file[0].n_unknown == 2 && !strcmp(s.file[0].unknown[0], "x?[2J???"));
    CHECK(!strcmp(s.file[0].unknown[1], want));
    train_set_close(&s);
    tokenizer_close(t);
    gguf_close(&g);
}

TEST(train_formats_become_conversations)
{
    static const struct { const char *name, *row, *want; } rows[] = {
        { "sharegpt", "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": \"b\"}], \"id\": 1}",
            "user:a assistant:[[b</s>]] \n" },
        { "prompt", "{\"prompt\": \"a\", \"completion\": \"b\"}", "user:a assistant:[[b</s>]] \n" },
        { "prompt", "{\"prompt\": [{\"role\": \"assistant\", \"content\": \"a\"}], \"completion\": [{\"role\": \"assistant\", \"content\": \"b\"}]}",
          "assistant:a</s> assistant:[[b</s>]] \n" },
        { "messages", "{\"messages\": [{\"role\": \"user\", \"content\": \"a</s>\"}, {\"role\": \"assistant\", \"content\": \"b\"}], \"tools\": [1, \"t\"]}",
          "[1, \"t\"]user:a</s> assistant:[[b</s>]] \n" },
        { "alpaca", "{\"instruction\": \"a\", \"input\": \"ab\", \"output\": \"b\"}", "user:a\n\nab assistant:[[b</s>]] \n" },
        { "alpaca", "{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\"}", "user:a assistant:[[b</s>]] \n" },
        { "preference", "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"no\"}", "user:a assistant:[[b</s>]] \nuser:a assistant:[[no</s>]] \n" },
        { "preference", "{\"chosen\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}],"
          " \"rejected\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"no\"}]}",
          "user:a assistant:[[b</s>]] \nuser:a assistant:[[no</s>]] \n" },
        { "text", "{\"text\": \"a b</s>\"}", "a[[ b</s></s>]]\n" },
    };
    static const char template[] = "{% if tools %}{{ tools|tojson }}{% endif %}{% for m in messages %}{{ m.role + ':' + m.content }}{% if m.role == "
                        "'assistant' %}</s>{% endif %} {% endfor %}"
                                   "{% if add_generation_prompt %}assistant:{% endif %}";
    struct gguf g;
    struct tokenizer *t = open_tokenizer(&g, BPE);
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct train_set s;
        struct err e = { 0 };
        char list[600];
        test_begin("train_formats_become_conversations %d %s", i, rows[i].name);
        for (int form = 0; form < 2; form++) { /* JSON lines, one list */
            snprintf(list, sizeof list, form ? "[\n%s]\n" : "%s", rows[i].row);
            CHECK_MSG(read_text(&s, t, template, (struct train_options){ 0 }, "format.json", list, &e) == OK, "%s", e.text);
            expect(&s, t, rows[i].want);
            CHECK(s.n_files == 1 && !strcmp(train_format_names[s.file[0].format], rows[i].name) && s.sample[0].line == 1 + form);
            CHECK(s.n_pairs == !strcmp(rows[i].name, "preference") && s.n_ended == s.n_samples);
            CHECK(s.file[0].n_unknown == !strcmp(rows[i].name, "sharegpt"));
            train_set_close(&s);
        }
    }
    tokenizer_close(t);
    gguf_close(&g);
}

/* Each member is looked at once: conversations of agents have tens of thousands of messages with members of their own. */
TEST(train_unknown_members_are_found_in_one_walk)
{
    enum { N = 40000 };
    static const char item[] = "{\"role\": \"user\", \"id\": 1, \"at\": 2},";
    struct buffer b = { 0 };
    struct arena a;
    struct err e = { 0 };
    struct json *row;
    char name[64];
    int64_t n = 0;
    bool ok = buffer_put(&b, "{\"x\": 0, \"messages\": [");
    for (int i = 0; ok && i < N; i++) ok = buffer_append(&b, item, sizeof item - 1);
    ok = ok && buffer_put(&b, "1], \"y\": 0}");
    arena_init(&a, 0);
    CHECK(ok && json_parse(&row, b.p, b.n, &a, "", &e) == OK);
    struct train_unknown u = train_format_unknown(TRAIN_MESSAGES, row);
    for (; train_unknown_next(&u, name); n++) CHECK(!strcmp(name, n == 0 ? "x" : n == 1 ? "y" : n % 2 ? "messages[].at" : "messages[].id"));
    CHECK_MSG(n == 2 * N + 2, "%lld members", (long long)n);
    arena_free(&a);
    buffer_free(&b);
}

TEST(train_without_a_template_joins_prompt_and_completion)
{
    struct gguf g;
    struct train_set s;
    struct err e = { 0 };
    struct tokenizer *t = open_tokenizer(&g, SPACED_SPM);
    CHECK(read_text(&s, t, NULL, (struct train_options){ 0 }, "join.jsonl", "{\"prompt\": \"a\", \"completion\": \" b\"}", &e) == OK);
    expect(&s, t, "<s> a[[ b</s>]]\n");
    CHECK(s.n_turns == 1 && s.n_ended == 1);
    train_set_close(&s);
    CHECK(read_text(&s, t, NULL, (struct train_options){ 0 }, "join.jsonl", TWO_TURNS, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "tiny has no chat template");
    train_set_close(&s);
    tokenizer_close(t);
    gguf_close(&g);
}

/* ---- too long ---- */

TEST(train_long_samples_follow_the_policy)
{
    static const char text[] = "{\"prompt\": \"a\", \"completion\": \"nnnnnnnnnnnnnnnnnnnnnnnnnn\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    struct gguf g;
    struct train_set s;
    struct err e = { 0 };
    struct tokenizer *t = open_tokenizer(&g, BPE);
    const char *chatml = builtin("chatml");
    CHECK(read_text(&s, t, chatml, (struct train_options){ .n_ctx = 30 }, "long.jsonl", text, &e) == OK);
    CHECK(s.n_samples == 1 && s.n_dropped == 1 && s.sample[0].line == 2 && s.n_longest > 30);
    train_set_close(&s);
    CHECK(read_text(&s, t, chatml, (struct train_options){ .n_ctx = 30, .too_long = TRAIN_CUT }, "long.jsonl", text, &e) == OK);
    CHECK(s.n_samples == 2 && s.n_cut == 1 && s.sample[0].n == 30 && s.sample[0].n_full > 30 && s.n_ended == 1 && s.n_turns == 2);
    train_set_close(&s);
    CHECK(read_text(&s, t, chatml, (struct train_options){ .n_ctx = 10, .too_long = TRAIN_CUT }, "long.jsonl", text, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "nothing to learn from");
    train_set_close(&s);
    e = (struct err){ 0 };
    CHECK(read_text(&s, t, chatml, (struct train_options){ .n_ctx = 30, .too_long = TRAIN_REFUSE }, "long.jsonl", text, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "long.jsonl:1: ");
    CHECK_HAS(e.text, "longer than the context of 30");
    train_set_close(&s);
    /* answers that differ behind the cut only teach nothing */
    static const char pairs[] = "{\"prompt\": \"a\", \"chosen\": \"nnnnnnnnnnnnnnnnnnnnnnnnnna\", \"rejected\": \"nnnnnnnnnnnnnnnnnnnnnnnnnnb\"}\n"
                                "{\"prompt\": \"a\", \"chosen\": \"a\", \"rejected\": \"b\"}\n";
    CHECK(read_text(&s, t, chatml, (struct train_options){ .n_ctx = 30, .too_long = TRAIN_CUT }, "long.jsonl", pairs, &e) == OK);
    CHECK(s.n_pairs == 1 && s.n_samples == 2 && s.n_dropped == 1 && s.pair[0].chosen == 0 && s.sample[0].first == 0 && s.sample[0].line == 2);
    train_set_close(&s);
    tokenizer_close(t);
    gguf_close(&g);
}

/* Every token of a document is learnt once: windows begin with BOS, or with the token before. */
TEST(train_documents_are_split_into_windows)
{
    for (int bos = 0; bos < 2; bos++) {
        struct gguf g;
        struct train_set s;
        struct err e = { 0 };
        struct tokenizer *t = open_tokenizer(&g, bos ? BOS_BPE : BPE);
        CHECK(read_text(&s, t, NULL, (struct train_options){ .n_ctx = 4 }, "doc.txt", "n n n n n n\n", &e) == OK);
        expect(&s, t, bos ? "<s>[[n n]]\n<s>[[ n ]]\n<s>[[n n]]\n<s>[[ n</s>]]\n" : "n[[ n ]]\n [[n n]]\nn[[ n ]]\n [[n</s>]]\n");
        CHECK(s.n_split == 1 && s.file[0].format == TRAIN_PLAIN && s.n_trained == (bos ? 12 : 11));
        train_set_close(&s);
        tokenizer_close(t);
        gguf_close(&g);
    }
}

/* ---- faults ---- */

TEST(train_faults_name_file_and_line)
{
    static const struct { const char *text, *what; } rows[] = {
        { "{\"text\": \"a\"}\n\n{\"texd\": 1}", "bad.jsonl:3: expected an object with \"messages\"" },
        { "{\"text\": \"a\"}\n{\"text\": \"b\",}", "bad.jsonl:2: column 14: " },
        { "{\"text\": \"a\"}\n{\"prompt\": \"b\", \"completion\": \"c\"}", ":2: a row of format prompt in a file of format text (told by line 1)" },
        { "{\"text\": 1}", ":1: text: expected a string" },
        { "{\"text\": \"\xff\"}", ":1: column 11: invalid UTF-8" },
        { "{\"messages\": []}", ":1: messages: no messages" },
        { "{\"messages\": 1}", ":1: messages: expected a list of messages" },
        { "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", ":1: messages: no turn of the assistant" },
        { "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \" \"}]}",
            ":1: messages[1]: the assistant's turn is empty" },
        { "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": null}]}",
            ":1: messages[1]: the assistant's turn is empty" },
        { "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"weight\": 2}]}", ":1: messages[0].weight: expected 0 or 1" },
        { "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"weight\": 0}]}", ":1: no token to learn from" },
        { "{\"messages\": [{\"content\": \"x\"}]}", ":1: messages[0]: expected an object with a string 'role'" },
        { "{\"messages\": [{\"role\": \"system\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"x\"}]}",
            ":1: the template refuses it: no system" },
        { "{\"conversations\": [{\"from\": \"dog\", \"value\": \"x\"}]}", ":1: conversations[0].from: \"dog\" is not one of" },
        { "{\"prompt\": \"a\", \"completion\": \"\"}", ":1: completion: the assistant's turn is empty" },
        { "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}], \"tools\": \"x\"}", ":1: tools: expected a list" },
        { "{\"instruction\": \"a\", \"output\": 2}", ":1: output: expected a string" },
        { "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"\"}", ":1: rejected: the assistant's turn is empty" },
        { "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}", ":1: chosen and rejected are the same: there is nothing to prefer" },
        { "{\"prompt\": [], \"chosen\": [{\"role\": \"assistant\", \"content\": \"b\"}], \"rejected\": [{\"role\": \"assistant\", \"content\": "
          "\"b\"}]}", ":1: chosen and rejected are the same: there" },
        { "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\\n\"}", ":1: chosen and rejected are the same tokens" },
        { "[{\"text\": \"a\"},\n{\"text\":\n 1x}]", ":3: column 3: expected ',' or '}'" },
        { "[{\"text\": \"a\"} {\"text\": \"b\"}]", ":1: column 15: expected the end, found '{'" },
        { "[{\"text\": \"a\"},\n]", ":2: expected an object as member of the list" },
        { "{\"texd\": 1}\n{\"text\": \"a\"}\n{\"text\": 2}\n{\"text\": 3}", ", and 2 more bad rows" },
        { "\n\n", ": no rows" },
    };
    static const char picky[] = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m.content|trim }}</s>{% "
                        "endfor %}";
    struct gguf g;
    struct tokenizer *t = open_tokenizer(&g, BPE);
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct train_set s;
        struct err e = { 0 };
        status st = read_text(&s, t, picky, (struct train_options){ 0 }, "bad.jsonl", rows[i].text, &e);
        CHECK_MSG(st == ERR_FORMAT, "row %d: %d %s", i, (int)st, e.text);
        CHECK_HAS(e.text, rows[i].what);
        train_set_close(&s);
    }
    tokenizer_close(t);
    gguf_close(&g);
}

TEST(train_bad_rows_can_be_left_out)
{
    struct gguf g;
    struct train_set s;
    struct err e = { 0 };
    struct buffer b = { 0 };
    struct train_options o = { .skip_bad = true };
    struct tokenizer *t = open_tokenizer(&g, BPE);
    CHECK(read_text(&s, t, builtin("chatml"), o, "skip.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\", \"k\": 1}\nx\n{\"prompt\": \"a\"}\n", &e) == OK);
    CHECK(s.n_samples == 1 && s.n_bad == 2 && s.file[0].n_rows == 3 && s.fault[1].line == 3);
    CHECK(train_set_summary(&s, &o, &b) && train_faults_print(&s, &b));
    CHECK_HAS(b.p, "3 rows of format prompt, 1 sample\n");
    CHECK_HAS(b.p, "2 bad rows left out");
    CHECK_HAS(b.p, "not used: k\n");
    CHECK_HAS(b.p, "skip.jsonl:2: column 1: ");
    buffer_free(&b);
    train_set_close(&s);
    const char *path = write_file("bytes.txt", "a\nb\xff\n", 5);
    o.skip_bad = false;
    CHECK(train_set_read(&s, &path, 1, t, (struct str){ 0 }, &o, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "bytes.txt:2: invalid UTF-8");
    train_set_close(&s);
    tokenizer_close(t);
    gguf_close(&g);
}

/* A few bytes of good rows become others: refused with a text, or read into samples that a trainer can take. */
TEST(train_set_survives_mutations)
{
    static const char *const seeds[] = {
        TWO_TURNS, "[{\"prompt\": \"a\\u00e9\", \"completion\": \"b\"},\n {\"prompt\": \"a\", \"completion\": \"c\", \"x\": [1, {}]}]",
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": \"b</s>\"}]}\n{\"conversations\": []}",
        ("{\"chosen\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\", \"weight\": 1}],"
         " \"rejected\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"no\"}]}"),
        "{\"instruction\": \"a\", \"input\": null, \"output\": \"b\"}\n{\"text\": \"<s>a\"}",
        "{\"text\": \"<|im_start|> a b\"}\n{\"text\": \"\\ud83d\\ude00\"}",
        "plain \xc3\xa9 text\n",
    };
    static const char spice[] = "{}[]\",:\\0\xff\n <>|a\x01\x02\x03";
    struct gguf g;
    struct tokenizer *t = open_tokenizer(&g, BOS_BPE);
    uint64_t rnd = 11;
    int64_t n_ok = 0, n_bad = 0;
    for (int i = 0; i < 4000; i++) {
        char text[1024];
        const char *seed = seeds[i % ARRAY_LEN(seeds)];
        size_t n = strlen(seed);
        memcpy(text, seed, n + 1);
        for (int64_t k = (int64_t)(test_rand(&rnd) % 4); k > 0; k--) {
            size_t at = test_rand(&rnd) % n, from = test_rand(&rnd) % n, len = test_rand(&rnd) % 12;
            if (test_rand(&rnd) % 2) text[at] = spice[test_rand(&rnd) % (sizeof spice - 1)];
            else if (at + len < n && from + len < n) memmove(text + at, text + from, len);
        }
        const char *path = write_file("mutant", text, n);
        struct train_options o = { .n_ctx = i % 3 ? 0 : 20, .too_long = (enum train_long)(i / 3 % 3), .loss = (enum train_loss)(i / 9 % 3), .skip_bad = i % 2 };
        const char *template = i % 4 == 0 ? with_blocks : i % 4 == 1 ? thoughtful : i % 4 == 2 ? builtin("llama2") : builtin("chatml");
        struct train_set s;
        struct err e = { 0 };
        status st = train_set_read(&s, &path, 1, t, (struct str){ template, strlen(template) }, &o, &e);
        CHECK_MSG(st == OK || (st == ERR_FORMAT && *e.text), "mutant %d: %d %s", i, (int)st, e.text);
        n_ok += st == OK, n_bad += st != OK;
        int64_t next = 0;
        for (int64_t k = 0; st == OK && k < s.n_samples; k++) {
            const struct train_sample *x = &s.sample[k];
            int64_t trained = 0;
            CHECK(x->first == next && x->n > 0 && x->n_full >= x->n && (!o.n_ctx || x->n <= o.n_ctx) && s.weight[x->first] == 0);
            next += x->n;
            for (int64_t j = x->first; j < next; j++) {
                CHECK(s.token[j] >= 0 && s.token[j] < tokenizer_size(t) && (s.weight[j] == 0 || s.weight[j] == 1));
                trained += s.weight[j] > 0;
            }
            CHECK(trained == x->n_trained && trained > 0 && x->n_ended <= x->n_turns);
        }
        CHECK(st != OK || next == s.n_tokens);
        struct buffer b = { 0 };
        CHECK(train_set_summary(&s, &o, &b) && train_faults_print(&s, &b) && (st != OK || train_preview(&s, t, 2, i % 2, &b)));
        buffer_free(&b);
        train_set_close(&s);
    }
    CHECK(n_ok > 800 && n_bad > 800);
    tokenizer_close(t);
    gguf_close(&g);
}

TEST(train_set_survives_every_failing_allocation)
{
    struct gguf g;
    struct tokenizer *t = open_tokenizer(&g, BPE);
    struct str source = { with_blocks, strlen(with_blocks) };
    static const char text[] = TWO_TURNS "\n" TWO_TURNS;
    const char *path = write_file("train_oom.jsonl", text, sizeof text - 1);
    struct train_options o = { 0 };
    status st = ERR_MEMORY;
    for (int64_t n = 1; st != OK && n < 5000; n++) {
        struct train_set s;
        struct err e = { 0 };
        mem_fail_at(n, false);
        st = train_set_read(&s, &path, 1, t, source, &o, &e);
        mem_fail_at(0, false);
        CHECK_MSG(st == OK || (st == ERR_MEMORY && *e.text), "allocation %lld: status %d %s", (long long)n, (int)st, e.text);
        if (st == OK) CHECK(s.n_ended == 4);
        train_set_close(&s);
        if (st != OK && st != ERR_MEMORY) break;
    }
    CHECK(st == OK);
    tokenizer_close(t);
    gguf_close(&g);
}

SUITE(train_set, T(train_answers_and_their_end_tokens_are_learnt),
      T(train_turns_that_the_template_rewrites_are_found), T(train_turns_of_a_shape_are_those_of_the_text),
      T(train_loss_can_be_on_the_last_answer_or_on_everything), T(train_messages_never_become_control_tokens),
      T(train_tokens_that_do_not_spell_the_text_are_told_by_prefixes), T(train_formats_become_conversations),
      T(train_names_of_unknown_members_are_printable), T(train_unknown_members_are_found_in_one_walk),
      T(train_without_a_template_joins_prompt_and_completion), T(train_long_samples_follow_the_policy), T(train_documents_are_split_into_windows),
      T(train_faults_name_file_and_line), T(train_bad_rows_can_be_left_out), T(train_set_survives_mutations),
      T(train_set_survives_every_failing_allocation));

/* test_chat - built-in templates against llama.cpp's (tests/golden/chat_builtins.txt), and the conversation to and from JSON. */
#include "src/chat.h"
#include "tests/test.h"

enum { NOW = 1700000000 };

static struct chat *open_chat(const char *source)
{
    struct chat *c;
    struct err e = { 0 };
    status st = chat_open(&c, source, strlen(source), "test", "<s>", "<|endoftext|>", &e);
    CHECK_MSG(st == OK, "%s", e.text);
    return c;
}

static const struct chat_builtin *builtin(const char *name)
{
    for (int i = 0; i < chat_builtin_count; i++)
        if (!strcmp(chat_builtins[i].name, name)) return &chat_builtins[i];
    return NULL;
}

static status load(struct chat *c, const char *text, size_t n, struct err *e)
{
    struct arena a;
    struct json *j;
    arena_init(&a, 0);
    status st = json_parse(&j, text, n, &a, "messages", e);
    if (st == OK) st = chat_from_json(c, j, e);
    arena_free(&a);
    return st;
}

static void expect(const struct chat *c, bool generate, const char *want, size_t n_want)
{
    struct err e = { 0 };
    char *out;
    size_t n;
    status st = chat_render(c, generate, NULL, NOW, &out, &n, &e);
    CHECK_MSG(st == OK && n == n_want && !memcmp(out, want, n), "got \"%s\" (%s), expected \"%.*s\"", out ? out : "", e.text, (int)n_want,
              want);
    mem_free(out);
}

TEST(chat_builtins_print_what_llama_cpp_prints)
{
    FILE *f = fopen("tests/golden/chat_builtins.txt", "rb");
    CHECK(f);
    if (!f) return;
    static char file[1 << 16];
    size_t size = fread(file, 1, sizeof file - 1, f);
    fclose(f);
    const char *vars = NULL;
    size_t n_vars = 0;
    int results = 0;
    for (char *p = file; p < file + size;) {
        char a[64], b[64];
        size_t n = 0;
        char *body = strchr(p, '\n') + 1;
        if (sscanf(p, "vars %63s %zu", a, &n) == 2) {
            vars = body;
            n_vars = n;
        } else if (sscanf(p, "output %63s %63s %zu", a, b, &n) == 3) {
            test_begin("chat_%s_%s", a, b);
            const struct chat_builtin *row = builtin(a);
            CHECK_MSG(row, "no built-in '%s'", a);
            struct err e = { 0 };
            struct chat *c = row ? open_chat(row->source) : NULL;
            if (c) CHECK_MSG(load(c, vars, n_vars, &e) == OK, "%s", e.text);
            bool generate = n_vars > 5 && !memcmp(vars + n_vars - 5, "true}", 5);
            if (c) expect(c, generate, body, n);
            chat_close(c);
            results++;
        } else {
            CHECK_MSG(false, "bad record");
            break;
        }
        p = body + n + 1;
    }
    CHECK(results >= 80);
}

TEST(chat_alpaca_follows_its_paper)
{
    struct chat *c = open_chat(builtin("alpaca")->source);
    struct err e = { 0 };
    CHECK(chat_add(c, "system", "S", 1, &e) == OK);
    CHECK(chat_add(c, "user", "U", 1, &e) == OK);
    expect(c, true, "S\n\n### Instruction:\nU\n\n### Response:\n", 37);
    chat_close(c);
}

TEST(chat_every_builtin_takes_empty_and_null_content)
{
    static const char list[] =
        "[{\"role\": \"user\", \"content\": null}, {\"role\": \"assistant\"}, {\"role\": \"tool\", \"content\": \"t\"}]";
    for (int i = 0; i < chat_builtin_count; i++) {
        struct chat *c = open_chat(chat_builtins[i].source);
        struct err e = { 0 };
        char *out;
        size_t n;
        for (int k = 0; k < 2; k++) {
            status st = chat_render(c, true, NULL, NOW, &out, &n, &e);
            CHECK_MSG(st == OK, "%s: %s", chat_builtins[i].name, e.text);
            mem_free(out);
            CHECK(load(c, list, strlen(list), &e) == OK);
        }
        chat_close(c);
    }
}

TEST(chat_reads_parts_null_and_wrapped_lists)
{
    struct chat *c = open_chat("{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}");
    struct err e = { 0 };
    static const char text[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": \"é\"}]},"
        "{\"role\": \"any thing\", \"content\": null}, {\"role\": \"x\", \"content\": []}, {\"role\": \"\", \"content\": \"p\\u0000q\"}]}";
    CHECK(load(c, text, strlen(text), &e) == OK);
    CHECK(chat_count(c) == 4);
    CHECK_STR(chat_at(c, 0).text, "a\né");
    CHECK(chat_at(c, 1).n == 0 && chat_at(c, 1).text[0] == 0);
    CHECK_STR(chat_at(c, 1).role, "any thing");
    CHECK(chat_at(c, 3).n == 3 && !memcmp(chat_at(c, 3).text, "p\0q", 4));
    static const char want[] = "[user:a\né][any thing:None][x:][:p\0q]";
    expect(c, false, want, sizeof want - 1);
    chat_close(c);
}

TEST(chat_keeps_other_members_of_messages)
{
    struct chat *c = open_chat("{% for m in messages %}{{ m | tojson }}{% endfor %}");
    struct err e = { 0 };
    static const char text[] = "[{\"name\": \"n\", \"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": "
                               "\"f\", \"arguments\": {\"x\": [1, 2.5, true]}}}]}]";
    static const char want[] = "{\"role\": \"assistant\", \"content\": null, \"name\": \"n\", \"tool_calls\": [{\"function\": {\"name\": "
                               "\"f\", \"arguments\": {\"x\": [1, 2.5, true]}}}]}";
    CHECK(load(c, text, strlen(text), &e) == OK);
    expect(c, false, want, strlen(want));
    char *json;
    size_t n;
    CHECK(chat_to_json(c, &json, &n, &e) == OK);
    chat_truncate(c, 0);
    CHECK(chat_count(c) == 0);
    CHECK(load(c, json, n, &e) == OK); /* its own output */
    expect(c, false, want, strlen(want));
    mem_free(json);
    chat_close(c);
}

TEST(chat_passes_tokens_and_extra_variables)
{
    struct chat *c = open_chat("{{ bos_token }}|{{ eos_token }}|{{ add_generation_prompt }}|{{ tools | tojson }}|{{ enable_thinking }}");
    struct err e = { 0 };
    struct arena a;
    struct json *extra;
    char *out;
    size_t n;
    arena_init(&a, 0);
    static const char text[] = "{\"tools\": [{\"a\": 1}], \"enable_thinking\": false}", bad[] = "{\"messages\": []}";
    CHECK(json_parse(&extra, text, strlen(text), &a, "extra", &e) == OK);
    CHECK(chat_render(c, true, extra, NOW, &out, &n, &e) == OK);
    CHECK_STR(out, "<s>|<|endoftext|>|True|[{\"a\": 1}]|False");
    mem_free(out);
    CHECK(json_parse(&extra, bad, strlen(bad), &a, "extra", &e) == OK);
    CHECK(chat_render(c, true, extra, NOW, &out, &n, &e) == ERR_USAGE);
    CHECK_STR(e.text, "chat: template variable 'messages' is set by the chat itself");
    arena_free(&a);
    chat_close(c);
}

TEST(chat_renders_four_megabytes)
{
    enum { N = 200, SIZE = 20000 };
    static char text[SIZE];
    memset(text, 'x', sizeof text);
    for (int i = 0; i < chat_builtin_count; i++) {
        struct chat *c = open_chat(chat_builtins[i].source);
        struct err e = { 0 };
        char *out;
        size_t n;
        for (int k = 0; k < N; k++) CHECK(chat_add(c, k & 1 ? "assistant" : "user", text, sizeof text, &e) == OK);
        status st = chat_render(c, true, NULL, NOW, &out, &n, &e);
        CHECK_MSG(st == OK && n > (size_t)N * SIZE, "%s: %s", chat_builtins[i].name, e.text);
        mem_free(out);
        chat_close(c);
    }
}

TEST(chat_stays_unchanged_when_json_is_wrong)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        { "{\"a\": 1}", "messages: expected a list" },
        { "[{\"role\": \"user\", \"content\": \"x\"}, {\"content\": \"x\"}]", "messages[1]: expected an object with a string 'role'" },
        { "[\"x\"]", "messages[0]: expected an object" },
        { "[{\"role\": \"user\", \"content\": 5}]", "messages[0].content: expected a string, null or a list" },
        { "[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]",
          "messages[0].content[0]: type 'image_url' is not supported, only text" },
        { "[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]", "messages[0].content[0]: expected {" },
        { "[{\"role\": \"a\\u0000b\", \"content\": \"x\"}]", "messages[0].role: holds a NUL character" },
    };
    struct chat *c = open_chat(builtin("chatml")->source);
    struct err e = { 0 };
    CHECK(chat_add(c, "user", "kept", 4, &e) == OK);
    for (int i = 0; i < ARRAY_LEN(cases); i++) {
        e = (struct err){ 0 };
        CHECK_MSG(load(c, cases[i].text, strlen(cases[i].text), &e) == ERR_USAGE, "%s", cases[i].text);
        CHECK_HAS(e.text, cases[i].want);
        CHECK(chat_count(c) == 1 && !strcmp(chat_at(c, 0).text, "kept"));
    }
    chat_close(c);
}

TEST(chat_reports_a_template_it_cannot_use)
{
    struct chat *c;
    struct err e = { 0 };
    static const char source[] = "{% for m in messages %}\n{{ m | frobnicate }}{% endfor %}";
    CHECK(chat_open(&c, source, strlen(source), "tokenizer.chat_template", "", "", &e) == ERR_FORMAT);
    CHECK(c == NULL);
    CHECK_STR(e.text, "tokenizer.chat_template line 2: unknown filter 'frobnicate'");
}

/* Everything a chat can do, once; OK or the first failure. */
static status use_chat(struct err *e)
{
    static const char text[] = "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}], \"x\": {\"y\": [1, \"z\"]}}, "
                               "{\"role\": \"b\", \"content\": null}]";
    struct chat *c = NULL;
    char *out = NULL;
    size_t n;
    status st = chat_open(&c, builtin("chatml")->source, strlen(builtin("chatml")->source), "chatml", "", "", e);
    if (st == OK) st = load(c, text, strlen(text), e);
    if (st == OK) st = chat_add(c, "user", "more", 4, e);
    if (st == OK) st = chat_render(c, true, NULL, NOW, &out, &n, e);
    mem_free(out);
    out = NULL;
    if (st == OK) st = chat_to_json(c, &out, &n, e);
    mem_free(out);
    chat_close(c);
    return st;
}

TEST(chat_survives_failure_of_any_allocation)
{
    int failed = 0;
    for (int64_t k = 1; k < 1000; k++) {
        struct err e = { 0 };
        mem_fail_at(k, false);
        status st = use_chat(&e);
        mem_fail_at(0, false);
        if (st == OK) break;
        CHECK_MSG(st == ERR_MEMORY, "allocation %lld: status %d, %s", (long long)k, st, e.text);
        failed++;
    }
    CHECK(failed >= 10);
}

SUITE(chat, T(chat_builtins_print_what_llama_cpp_prints), T(chat_alpaca_follows_its_paper),
      T(chat_every_builtin_takes_empty_and_null_content), T(chat_reads_parts_null_and_wrapped_lists),
      T(chat_keeps_other_members_of_messages), T(chat_passes_tokens_and_extra_variables), T(chat_stays_unchanged_when_json_is_wrong),
      T(chat_renders_four_megabytes),
      T(chat_reports_a_template_it_cannot_use), T(chat_survives_failure_of_any_allocation));

/* test_template - the template engine against what Jinja2 printed (tests/golden/template_*.txt); error texts, limits, hostile input. */
#include "src/template.h"
#include "tests/test.h"
#include <pthread.h>
#include <time.h>

enum { NOW = 1700000000, TEXTS_MAX = 400 };

struct bytes {
    char *p;
    size_t n;
};

static struct bytes read_file(const char *path)
{
    struct bytes b = { 0 };
    FILE *f = fopen(path, "rb");
    if (!f) return b;
    fseek(f, 0, SEEK_END);
    b.n = (size_t)ftell(f);
    rewind(f);
    b.p = calloc(1, b.n + 1);
    if (fread(b.p, 1, b.n, f) != b.n) b.n = 0;
    fclose(f);
    return b;
}

/* Parses and renders; vars as JSON text. *out NULL unless OK; freed by the caller. */
static status run(const char *src, size_t n, const char *vars, size_t n_vars, char **out, size_t *n_out, struct err *e)
{
    struct arena a;
    struct json *j = NULL;
    struct template *t = NULL;
    *out = NULL;
    arena_init(&a, 0);
    status st = json_parse(&j, vars, n_vars, &a, "vars", e);
    if (st == OK) st = template_parse(&t, src, n, "chat", e);
    if (st == OK) st = template_render(t, j, NOW, out, n_out, e);
    template_close(t);
    arena_free(&a);
    return st;
}

/* The error of a template that must fail with `code`. */
static const char *error_of(const char *src, const char *vars, status code)
{
    static struct err e;
    char *out;
    size_t n;
    e = (struct err){ 0 };
    status st = run(src, strlen(src), vars, strlen(vars), &out, &n, &e);
    CHECK_MSG(st == code, "%s: status %d, expected %d (%s)", src, st, code, e.text);
    mem_free(out);
    return e.text;
}

static void expect(const char *src, const char *vars, const char *want)
{
    struct err e = { 0 };
    char *out;
    size_t n;
    status st = run(src, strlen(src), vars, strlen(vars), &out, &n, &e);
    CHECK_MSG(st == OK && n == strlen(want) && !memcmp(out, want, n), "%s: \"%s\" (%s), expected \"%s\"", src, out ? out : "", e.text,
              want);
    mem_free(out);
}

/* ---- goldens ---- */

struct named {
    char name[64];
    const char *p;
    size_t n;
};
struct golden {
    struct bytes file;
    struct named templates[TEXTS_MAX], vars[32];
    int n_templates, n_vars, n_results;
};

static const struct named *named_find(const struct named *list, int n, const char *name)
{
    for (int i = n - 1; i >= 0; i--)
        if (!strcmp(list[i].name, name)) return &list[i];
    return NULL;
}

static void check_result(const struct golden *g, const char *t_name, const char *v_name, const char *want, size_t n_want)
{
    const struct named *t = named_find(g->templates, g->n_templates, t_name), *v = named_find(g->vars, g->n_vars, v_name);
    struct err e = { 0 };
    char *out;
    size_t n = 0;
    test_begin("template_%s_%s", t_name, v_name);
    CHECK_MSG(t && v, "record names an unknown template or vars");
    if (!t || !v) return;
    status st = run(t->p, t->n, v->p, v->n, &out, &n, &e);
    if (!want) CHECK_MSG(st != OK && e.text[0], "Jinja2 fails, this gives \"%s\"", out ? out : "");
    else
        CHECK_MSG(st == OK && n == n_want && !memcmp(out, want, n), "got \"%s\" (%s), Jinja2 \"%.*s\"", out ? out : "", e.text, (int)n_want,
                  want);
    mem_free(out);
}

static void add_named(struct named *list, int *n, int cap, const char *name, const char *p, size_t len)
{
    CHECK(*n < cap);
    if (*n == cap) return;
    snprintf(list[*n].name, sizeof list[*n].name, "%s", name);
    list[*n].p = p;
    list[(*n)++].n = len;
}

/* Walks the records (see template_cases.py); each result is a claim of its own. */
static int check_golden(const char *path)
{
    struct golden *g = calloc(1, sizeof *g);
    g->file = read_file(path);
    CHECK_MSG(g->file.n > 0, "cannot read %s", path);
    for (char *p = g->file.p, *end = p + g->file.n; p && p < end;) {
        char word[16], a[64], b[64];
        size_t n = 0;
        char *line = p, *body = strchr(p, '\n') + 1;
        if (sscanf(line, "error %63s %63s", a, b) == 2) {
            check_result(g, a, b, NULL, 0);
            g->n_results++;
            p = body;
            continue;
        }
        if (sscanf(line, "output %63s %63s %zu", a, b, &n) == 3) {
            check_result(g, a, b, body, n);
            g->n_results++;
        } else if (sscanf(line, "%15s %63s %zu", word, a, &n) == 3) {
            bool is_vars = !strcmp(word, "vars");
            add_named(is_vars ? g->vars : g->templates, is_vars ? &g->n_vars : &g->n_templates, is_vars ? 32 : TEXTS_MAX, a, body, n);
        } else {
            CHECK_MSG(false, "bad record in %s", path);
            break;
        }
        p = body + n + 1;
    }
    int results = g->n_results;
    free(g->file.p);
    free(g);
    return results;
}

TEST(template_prints_what_jinja2_prints) { CHECK(check_golden("tests/golden/template_cases.txt") >= 150); }
TEST(template_renders_model_templates_as_jinja2) { CHECK(check_golden("tests/golden/template_chats.txt") >= 100); }

/* ---- error texts ---- */

TEST(template_names_unknown_constructs_when_parsed)
{
    CHECK_STR(error_of("a\n\n{{ x | frobnicate }}", "{}", ERR_FORMAT), "chat line 3: unknown filter 'frobnicate'");
    CHECK_STR(error_of("{% if x is frobnicate %}", "{}", ERR_FORMAT), "chat line 1: unknown test 'frobnicate'");
    CHECK_STR(error_of("\n{% if false %}{{ frobnicate(1) }}{% endif %}", "{}", ERR_FORMAT), "chat line 2: unknown function 'frobnicate'");
    CHECK_STR(error_of("{% include 'x' %}", "{}", ERR_FORMAT), "chat line 1: unsupported statement 'include'");
    CHECK_HAS(error_of("{% frobnicate %}", "{}", ERR_FORMAT), "chat line 1: unknown or misplaced statement 'frobnicate'");
    CHECK_HAS(error_of("{% for x in y recursive %}{% endfor %}", "{}", ERR_FORMAT), "unsupported: for ... 'recursive'");
    CHECK_HAS(error_of("{{ x | map('frobnicate') }}", "{}", ERR_FORMAT), "unknown filter 'frobnicate'");
    CHECK_HAS(error_of("{{ x | selectattr('a', 'frobnicate') }}", "{}", ERR_FORMAT), "unknown test 'frobnicate'");
    CHECK_HAS(error_of("{{ f(*x) }}", "{}", ERR_FORMAT), "argument unpacking is not supported");
}

TEST(template_names_open_block_and_line)
{
    CHECK_HAS(error_of("x\n{% if a %}\n{% for b in c %}\n{% endif %}", "{}", ERR_FORMAT),
              "chat line 4: unknown or misplaced statement 'endif' inside the 'for' of line 3");
    CHECK_HAS(error_of("\n{% if a %}\n", "{}", ERR_FORMAT), "end of template '' inside the 'if' of line 2");
    CHECK_STR(error_of("{{ 1 + }}", "{}", ERR_FORMAT), "chat line 1: expected an expression, found '}}'");
    CHECK_STR(error_of("{{ (1] }}", "{}", ERR_FORMAT), "chat line 1: unexpected ']', expected ')'");
}

TEST(template_allows_unknown_function_behind_is_defined)
{
    expect("{% if later is defined %}{{ later(1) }}{% else %}no{% endif %}", "{}", "no");
    CHECK_STR(error_of("{% if later is defined or true %}{{ later(1) }}{% endif %}", "{}", ERR_RUNTIME),
              "chat line 1: 'later' is undefined");
}

TEST(template_names_variable_and_line_when_rendering)
{
    CHECK_STR(error_of("\n\n{{ missing.x }}", "{}", ERR_RUNTIME), "chat line 3: 'missing' is undefined");
    CHECK_STR(error_of("{{ m.a.b }}", "{\"m\":{}}", ERR_RUNTIME), "chat line 1: 'dict' has no member 'a'");
    CHECK_STR(error_of("{{ 'a' + none }}", "{}", ERR_RUNTIME), "chat line 1: unsupported operands of +: 'str' and 'NoneType'");
    CHECK_STR(error_of("{{ 'abc'.zfill(3) }}", "{}", ERR_RUNTIME), "chat line 1: 'str' has no member 'zfill'");
    CHECK_STR(error_of("\n{{ 'abc' | replace('a') }}", "{}", ERR_RUNTIME), "chat line 2: 'replace' needs 2 arguments");
    CHECK_STR(error_of("{{ 1 // 0 }}", "{}", ERR_RUNTIME), "chat line 1: division by zero");
    CHECK_STR(error_of("{{ raise_exception('no ' + 'system') }}", "{}", ERR_USAGE), "no system");
}

/* ---- beyond the sandbox of Hugging Face ---- */

TEST(template_changes_lists_and_dicts)
{
    expect("{% set l = [1] %}{% set _ = l.append(2) %}{% set _ = l.extend(l) %}{{ l }}{{ l.pop() }}{{ l.pop(0) }}{{ l }}", "{}",
           "[1, 2, 1, 2]21[2, 1]");
    expect("{% set l = [1] %}{% set _ = l.insert(0, 'a') %}{{ l }}", "{}", "['a', 1]");
    expect("{% set d = {'a': 1} %}{% set _ = d.update({'b': 2}) %}{{ d.pop('a') }}{{ d }}{{ d.pop('x', 0) }}", "{}", "1{'b': 2}0");
}

TEST(template_refuses_integer_overflow)
{
    CHECK_HAS(error_of("{{ 9223372036854775807 + 1 }}", "{}", ERR_RUNTIME), "64 bits");
    CHECK_HAS(error_of("{{ n - 2 }}", "{\"n\":-9223372036854775807}", ERR_RUNTIME), "64 bits");
    CHECK_HAS(error_of("{{ (n - 1) // -1 }}", "{\"n\":-9223372036854775807}", ERR_RUNTIME), "64 bits");
    CHECK_HAS(error_of("{{ 10 ** 19 }}", "{}", ERR_RUNTIME), "64 bits");
    CHECK_HAS(error_of("{{ 9223372036854775808 }}", "{}", ERR_FORMAT), "64 bits");
    CHECK_HAS(error_of("{{ '9223372036854775808' | int }}", "{}", ERR_RUNTIME), "64 bits");
    CHECK_HAS(error_of("{{ 1e30 | int }}", "{}", ERR_RUNTIME), "64 bits");
    expect("{{ '-9223372036854775808' | int }} {{ (n - 1) % -1 }}", "{\"n\":-9223372036854775807}", "-9223372036854775808 0");
}

TEST(template_keeps_nul_and_broken_utf8)
{
    struct err e = { 0 };
    char *out;
    size_t n;
    static const char src[] = "a\0b{{ 'x\0y' }}\xff{{ ('\xc3' ~ s) | length }}{{ s[::-1] }}";
    static const char vars[] = "{\"s\": \"p\\u0000q\"}";
    CHECK(run(src, sizeof src - 1, vars, sizeof vars - 1, &out, &n, &e) == OK);
    static const char want[] = "a\0bx\0y\xff"
                               "4q\0p";
    CHECK(out && n == sizeof want - 1 && !memcmp(out, want, n + 1));
    mem_free(out);
}

/* ---- limits ---- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

TEST(template_stops_endless_work)
{
    static const struct {
        const char *src, *want;
    } cases[] = {
        { "{% set l = [1] %}{% for x in l %}{% set _ = l.append(x) %}{% endfor %}", "limit of " },
        { "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "steps passed" },
        { "{{ range(1000000000) }}", "range of 1000000000 numbers, limit 100000" },
        { "{{ range(-9223372036854775807, 9223372036854775807) }}", "numbers, limit 100000" },
        { "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "macro calls are nested deeper than 128" },
        { "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "bytes of memory passed" },
        { "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "bytes of output passed" },
        { "{% set ns = namespace(s='bb') %}{% for i in range(99) %}{% set ns.s = ns.s | replace('b', ns.s) %}{% endfor %}", "passed" },
        { "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "passed" },
        { "{{ 'x' * 9223372036854775807 }}", "bytes of memory passed" },
        { "{{ [0] * 100000000 }}", "bytes of memory passed" },
        { "{% set l = [] %}{% set _ = l.append(l) %}{{ l }}", "nested deeper" },
        { "{% set l = [] %}{% set _ = l.append(l) %}{{ l | tojson }}", "nested deeper" },
        { "{% set l = [] %}{% set m = [l] %}{% set _ = l.append(m) %}{{ l == m }}", "nested deeper" },
        { "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}", "nested deeper" },
        { "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ s[i] }}{% endfor %}", "steps passed" },
        { "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% if 'b' in s %}{% endif %}{% endfor %}", "steps passed" },
        { "{% set s = 'é' * 500000 %}{% for i in range(100000) %}{{ s[i:] | upper }}{% endfor %}", "steps passed" },
        { "{% set s = 'é' * 500000 %}{% for i in range(100000) %}{{ s.split() | length }}{{ s.title() | length }}{% endfor %}",
          "steps passed" },
        { "{% set s = 'é' * 500000 %}{% for i in range(100000) %}{% if s.rfind('ée') %}{% endif %}{% endfor %}", "steps passed" },
        { "{% set s = 'é' * 500000 %}{% for i in range(100000) %}{% if s | tojson == s | e %}{% endif %}{% endfor %}", "passed" },
        { "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ s.strip('b') | length }}{% endfor %}", "steps passed" },
        { "{% set d = {} %}{% for i in range(100000) %}{% set _ = d.update({i: i}) %}{% endfor %}", "passed" },
        { "{{ range(100000) | map('string') | unique | list | length }}", "steps passed" },
        { "{% set w = 'a' * 500000 ~ 'b' %}{{ ('a' * 1000000).rfind(w) }}{{ ('a' * 1000000).rsplit(w) }}", "steps passed" },
        { "{{ ('é' * 1000000).strip('è' * 1000000 ~ 'é') }}", "steps passed" },
        { "{{ '%9999999999d' % 1 }}", "format width" },
        { "{{ '{:9999999999}'.format(1) }}", "format width" },
        { "{{ 'a' | center(999999999) }}", "passed" },
        { "{{ 'a' | indent(999999999) }}", "bytes of memory passed" },
        { "{{ range(100000) | batch(1) | list | batch(1) | list | tojson(indent=32) | length }}", "" },
    };
    for (int i = 0; i < ARRAY_LEN(cases); i++) {
        struct err e = { 0 };
        char *out;
        size_t n;
        double start = seconds();
        status st = run(cases[i].src, strlen(cases[i].src), "{}", 2, &out, &n, &e);
        double took = seconds() - start;
        if (cases[i].want[0]) {
            CHECK_MSG(st == ERR_RUNTIME && strstr(e.text, cases[i].want) && strstr(e.text, "chat line 1"), "%s: status %d, %s",
                      cases[i].src, st, e.text);
        }
        CHECK_MSG(took < 5, "%s took %.1f s", cases[i].src, took); /* 0.1 s wanted; sanitizers and emulators are slow */
        mem_free(out);
    }
}

/* n copies of open, middle, n copies of close */
static struct bytes nest(const char *open, const char *middle, const char *close, int n)
{
    struct bytes b = { malloc((strlen(open) + strlen(close)) * (size_t)n + strlen(middle) + 1), 0 };
    for (int i = 0; i < n; i++) b.n += (size_t)sprintf(b.p + b.n, "%s", open);
    b.n += (size_t)sprintf(b.p + b.n, "%s", middle);
    for (int i = 0; i < n; i++) b.n += (size_t)sprintf(b.p + b.n, "%s", close);
    return b;
}

static const struct {
    const char *head, *open, *middle, *close, *tail;
} nests[] = {
    { "{{ ", "(", "1", ")", " }}" },
    { "{{ ", "[", "1", "]", " }}" },
    { "{{ ", "{1:", "1", "}", " }}" },
    { "{{ ", "not ", "1", "", " }}" },
    { "{{ ", "- ", "1", "", " }}" },
    { "{{ ", "1 if 0 else ", "1", "", " }}" },
    { "{{ x", "[x", "[1]", "]", " }}" },
    { "{{ ", "dict(a=", "1", ")", " }}" },
    { "{{ 1 ", "+ (1 ", "", ")", " }}" },
    { "", "{% if 1 %}", "x", "{% endif %}", "" },
    { "", "{% for x in [1] %}", "x", "{% endfor %}", "" },
    { "", "{% macro m() %}", "x", "{% endmacro %}", "" },
    { "{% for ", "(", "a", ")", " in [] %}{% endfor %}" },
};

TEST(template_survives_deep_nesting)
{
    for (int i = 0; i < ARRAY_LEN(nests); i++) {
        struct bytes b = nest(nests[i].open, nests[i].middle, nests[i].close, 20000);
        char *src = malloc(b.n + 100);
        int n = sprintf(src, "%s%s%s", nests[i].head, b.p, nests[i].tail);
        struct err e = { 0 };
        char *out;
        size_t n_out;
        status st = run(src, (size_t)n, "{}", 2, &out, &n_out, &e);
        CHECK_MSG(st == ERR_FORMAT && strstr(e.text, "nested deeper than 128"), "%s: status %d, %s", nests[i].open, st, e.text);
        mem_free(out);
        free(src);
        free(b.p);
    }
}

TEST(template_survives_long_chains)
{
    static const char *const chains[] = { " + 1", " ~ 1", " and 1", " == 1", ".a", "[0]", "|string", "()", " if 1" };
    for (int i = 0; i < ARRAY_LEN(chains); i++) {
        struct bytes b = nest(chains[i], "", "", 50000);
        char *src = malloc(b.n + 100);
        int n = sprintf(src, "{{ 1%s }}", b.p);
        struct err e = { 0 };
        char *out;
        size_t n_out;
        status st = run(src, (size_t)n, "{}", 2, &out, &n_out, &e);
        CHECK_MSG(st == OK || e.text[0], "%s: status %d", chains[i], st); /* no crash; most fail on the depth of evaluation */
        mem_free(out);
        free(src);
        free(b.p);
    }
    struct bytes elif = nest("{% elif 0 %}x", "{% endif %}", "", 20000);
    char *src = malloc(elif.n + 100);
    sprintf(src, "{%% if 0 %%}%s", elif.p);
    expect(src, "{}", "");
    free(src);
    free(elif.p);
}

TEST(template_refuses_huge_source)
{
    struct bytes b = { malloc(10 << 20), 10 << 20 };
    memset(b.p, 'x', b.n);
    struct err e = { 0 };
    char *out;
    size_t n;
    double start = seconds();
    CHECK(run(b.p, b.n, "{}", 2, &out, &n, &e) == ERR_FORMAT);
    CHECK(seconds() - start < 1);
    CHECK_HAS(e.text, "template is 10485760 bytes, limit 1048576");
    free(b.p);
}

/* ---- memory, threads and mutation ---- */

static const char rich[] =
    "{%- macro show(v, pre='- ') -%}{% for k, x in v|dictsort if x %}{{ pre ~ k }}={{ x|tojson(indent=1, sort_keys=true) }}{% endfor %}{%- "
    "endmacro -%}\n"
    "{% set ns = namespace(n=0, text='') %}{% for m in messages[::-1] if m.role is string -%}\n"
    "  {% set ns.n = ns.n + loop.index * 2 ** 2 // 3 %}{% set ns.text = ns.text + m['content'].split(' ', 1)[0] + loop.cycle('a', 'b') %}\n"
    "  {{- '%s:%5.2f' % (m.role|upper, ns.n / 7) }}{{ '{:>8}|{!r}'.format(m.content[1:4], m.role) }}{% if loop.last %}{% break %}{% endif "
    "%}\n"
    "{% else %}none{% endfor %}{% set block | trim %} {{ ns.text|replace('a', 'é')|title }} {% endset %}{{ block[::-1] }}{# note #}\n"
    "{% filter upper %}{% call(x) wrap(3) %}<{{ x }}>{% endcall %}{% endfilter %}{{ show({'b': [1, {'z': none}], 'a': 1.5}) }}\n"
    "{% macro wrap(n) %}{% for i in range(n) %}{{ caller(i) }}{% endfor %}{% endmacro %}{% raw %}{{ raw }}{% endraw %}\n"
    "{{ messages|map(attribute='role')|unique|join(', ') }}{{ messages|groupby('role')|length }}{{ "
    "messages|selectattr('role','eq','user')|list|sum(attribute='n', start=1) }}"
    "{{ ('[1, {\"a\": 2}]'|from_json)[1].a is odd }}{% with a = 1, b = 2 %}{{ [a, b]|sort(reverse=true)|batch(1)|list }}{% endwith %}";
static const char rich_vars[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"hello big world\", \"n\": 1}, {\"role\": \"assistant\", \"content\": "
    "\"Grüße an alle\", \"n\": 2}, {\"role\": \"user\", \"content\": \"x\", \"n\": 3}]}";

TEST(template_survives_failure_of_any_allocation)
{
    struct err e = { 0 };
    char *out;
    size_t n;
    /* wrap is defined behind its call: put it first */
    char src[4096];
    snprintf(src, sizeof src, "{%% macro wrap(n) %%}{%% for i in range(n) %%}{{ caller(i) }}{%% endfor %%}{%% endmacro %%}%s", rich);
    status st = run(src, strlen(src), rich_vars, strlen(rich_vars), &out, &n, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    mem_free(out);
    int64_t failed = 0;
    for (int64_t k = 1; k < 10000; k++) {
        e = (struct err){ 0 };
        mem_fail_at(k, false);
        st = run(src, strlen(src), rich_vars, strlen(rich_vars), &out, &n, &e);
        mem_fail_at(0, false);
        mem_free(out);
        if (st == OK) break;
        CHECK_MSG(st == ERR_MEMORY, "allocation %lld: status %d, %s", (long long)k, st, e.text);
        failed++;
    }
    CHECK(failed >= 4);
}

struct shared {
    const struct template *t;
    const struct json *vars;
    const char *want;
    int differ;
};

static void *render_often(void *arg)
{
    struct shared *s = arg;
    for (int i = 0; i < 50; i++) {
        char *out;
        size_t n;
        if (template_render(s->t, s->vars, NOW, &out, &n, NULL) != OK || strcmp(out, s->want)) s->differ++;
        mem_free(out);
    }
    return NULL;
}

TEST(template_renders_from_several_threads)
{
    static const char src[] =
        "{% macro m(x) %}<{{ x }}>{% endmacro %}{% for x in messages if x.n > 1 %}{{ m(x|tojson) }}{{ loop.length }}{% endfor %}";
    struct arena a;
    struct json *vars;
    struct template *t;
    char *want;
    size_t n;
    arena_init(&a, 0);
    CHECK(json_parse(&vars, rich_vars, strlen(rich_vars), &a, "vars", NULL) == OK);
    CHECK(template_parse(&t, src, strlen(src), "chat", NULL) == OK);
    CHECK(template_render(t, vars, NOW, &want, &n, NULL) == OK);
    struct shared s[3];
    pthread_t id[3];
    for (int i = 0; i < 3; i++) {
        s[i] = (struct shared){ t, vars, want, 0 };
        CHECK(pthread_create(&id[i], NULL, render_often, &s[i]) == 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(id[i], NULL);
        CHECK(s[i].differ == 0);
    }
    mem_free(want);
    template_close(t);
    arena_free(&a);
}

/* A copy of the template with a few bytes changed, dropped, doubled or replaced by pieces of syntax. */
static size_t mutate(const char *src, size_t n, char *out, size_t cap, uint64_t *seed)
{
    static const char *const pieces[] = {
        "{%",           "%}",         "{{",         "}}",    "-",    "|",  "(", ")",       "[",    "]",     "'",
        "\"",           "{#",         "#}",         " if ",  " in ", ".",  ":", "~",       "**",   "loop.", "not ",
        "{% endfor %}", "{% else %}", "9999999999", "\\u12", "\xff", "\n", "%", "|tojson", " is ", ","
    };
    size_t w = 0;
    for (size_t i = 0; i < n && w + 16 < cap; i++) {
        uint64_t r = test_rand(seed);
        if (r % 97) out[w++] = src[i];
        else if (r >> 8 & 1) w += (size_t)sprintf(out + w, "%s", pieces[(r >> 16) % (unsigned)ARRAY_LEN(pieces)]);
        else if (r >> 9 & 1) out[w++] = (char)(r >> 16);
        else if (r >> 10 & 1 && i > 40) i -= r >> 16 & 31;
    }
    return w;
}

TEST(template_survives_mutation)
{
    struct bytes file = read_file("tests/golden/template_chats.txt");
    uint64_t seed = 7;
    int ok = 0, bad = 0;
    const char *seeds[64] = { rich }; /* and the model templates */
    size_t sizes[64] = { sizeof rich - 1 };
    int n_seeds = 1;
    for (char *p = file.p; p && (p = strstr(p, "\ntemplate ")) && n_seeds < 64;) {
        char name[64];
        if (sscanf(p, "\ntemplate %63s %zu", name, &sizes[n_seeds]) != 2) break;
        p = strchr(p + 1, '\n') + 1;
        seeds[n_seeds++] = p;
    }
    CHECK(n_seeds > 10);
    for (int i = 0; i < 3000; i++) {
        char buf[16384], *out;
        size_t n, pick = test_rand(&seed) % (unsigned)n_seeds, n_src = mutate(seeds[pick], sizes[pick], buf, sizeof buf, &seed);
        struct err e = { 0 };
        status st = run(buf, n_src, rich_vars, strlen(rich_vars), &out, &n, &e);
        CHECK_MSG((st == OK) == (out != NULL) && (st == OK || e.text[0]), "status %d without a text", st);
        mem_free(out);
        st == OK ? ok++ : bad++;
    }
    CHECK(ok > 50 && bad > 500); /* both outcomes were seen */
    free(file.p);
}

SUITE(template, T(template_prints_what_jinja2_prints), T(template_renders_model_templates_as_jinja2),
      T(template_names_unknown_constructs_when_parsed), T(template_names_open_block_and_line),
      T(template_allows_unknown_function_behind_is_defined), T(template_names_variable_and_line_when_rendering),
      T(template_changes_lists_and_dicts), T(template_refuses_integer_overflow), T(template_keeps_nul_and_broken_utf8),
      T(template_stops_endless_work), T(template_survives_deep_nesting), T(template_survives_long_chains), T(template_refuses_huge_source),
      T(template_survives_failure_of_any_allocation), T(template_survives_mutation),
      T(template_renders_from_several_threads));

/* sampling - see sampling.h. */
#include "tools/sampling.h"
#include "ggml-like/file.h"
#include "ggml-like/kernels/kernels.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* "ID=BIAS"; llama.cpp's "ID+BIAS" and "ID-BIAS" too */
static status parse_bias(const char *text, int64_t n_vocab, struct logit_bias *out, struct err *e)
{
    char *end;
    long long id = strtoll(text, &end, 10);
    if (end == text || !*end || !strchr("=+-", *end)) return err_set(e, ERR_USAGE, "--logit-bias: '%s' is not ID=BIAS", text);
    if (id < 0 || id >= n_vocab) return err_set(e, ERR_USAGE, "--logit-bias: token %lld is out of range 0..%lld", id, (long long)n_vocab - 1);
    const char *number = end + (*end == '=');
    double bias = strtod(number, &end);
    if (end == number || *end || isnan(bias)) return err_set(e, ERR_USAGE, "--logit-bias: '%s' is not a number", number);
    *out = (struct logit_bias){ (int32_t)id, (float)bias };
    return OK;
}

/* \n \r \t \\ as in C; other backslashes stand for themselves. out holds strlen(text) + 1 bytes. */
static void unescape(const char *text, char *out)
{
    static const char from[] = "nrt\\", to[] = "\n\r\t\\";
    for (; *text; text++) {
        const char *at = text[0] == '\\' && text[1] ? strchr(from, text[1]) : NULL;
        *out++ = at ? to[at - from] : *text;
        text += at != NULL;
    }
    *out = 0;
}

static status open_breakers(struct sampling *s, const struct sampling *old, const struct tokenizer *t, struct err *e)
{
    static const char *const usual[] = { "\n", ":", "\"", "*" };
    char text[ARRAY_LEN(s->breaker)][DRY_TEXT_MAX + 1];
    const char *list[ARRAY_LEN(s->breaker)];
    int n = s->n_breaker;
    if (old->breakers && n == old->n_breaker && !memcmp(s->breaker, old->breaker, sizeof s->breaker)) return s->breakers = old->breakers, OK;
    if (n == 1 && !strcmp(s->breaker[0], "none")) return dry_breakers_open(&s->breakers, t, NULL, 0, e);
    for (int i = 0; i < n; i++) {
        if (strlen(s->breaker[i]) > DRY_TEXT_MAX)
            return err_set(e, ERR_USAGE, "--dry-sequence-breaker: '%.50s...' has %zu bytes, at most %d are allowed", s->breaker[i], strlen(s->breaker[i]),
                           DRY_TEXT_MAX);
        unescape(s->breaker[i], text[i]);
        list[i] = text[i];
    }
    return n > 0 ? dry_breakers_open(&s->breakers, t, list, n, e) : dry_breakers_open(&s->breakers, t, usual, ARRAY_LEN(usual), e);
}

/* ---- grammar ---- */

enum { SCHEMA_MAX = 1 << 20 };

static status schema_to_grammar(struct grammar **out, const char *text, size_t n, const char *name, struct err *e)
{
    struct arena a;
    struct json *schema;
    char *gbnf = NULL;
    arena_init(&a, 0);
    status st = json_parse(&schema, text, n, &a, name, e);
    if (st == ERR_FORMAT) e->code = st = ERR_USAGE; /* as for JSON that is no schema */
    if (st == OK) st = json_schema_to_gbnf(&gbnf, schema, name, e);
    if (st == OK) st = grammar_parse(out, gbnf, strlen(gbnf), name, NULL, e);
    mem_free(gbnf);
    arena_free(&a);
    return st;
}

/* Which of the five options is given; two are an error. */
static status pick_source(const struct sampling *s, int *which, struct err *e)
{
    static const char *const names[] = { "--grammar", "--grammar-file", "--json-schema", "--json-schema-file", "--json-mode" };
    *which = -1;
    for (int i = 0; i < ARRAY_LEN(names); i++) {
        if (i < 4 ? !s->source[i] || !*s->source[i] : !s->json_mode) continue;
        if (*which >= 0) return err_set(e, ERR_USAGE, "%s and %s exclude each other", names[*which], names[i]);
        *which = i;
    }
    return OK;
}

static status compile_grammar(struct sampling *s, int which, const struct tokenizer *t, struct err *e)
{
    static const char any[] = "{}";
    const char *given = which < 4 ? s->source[which] : any, *name = which == 0 ? "--grammar" : which == 2 ? "--json-schema" : given;
    char *text = NULL;
    size_t n = strlen(given);
    if (which == 1 || which == 3) TRY(file_text(given, which == 1 ? GRAMMAR_TEXT_MAX : SCHEMA_MAX, &text, &n, e));
    if (text) given = text;
    status st = which < 2 ? grammar_parse(&s->grammar, given, n, name, t, e) : schema_to_grammar(&s->grammar, given, n, name, e);
    mem_free(text);
    struct file_facts file;
    bool named = st == ERR_USAGE && (which == 0 || which == 2) && file_stat(given, &file);
    if (named) *e = (struct err){ 0 }; /* what follows says it better */
    if (named)
        return err_set(e, ERR_USAGE, "%s: '%.80s' is the name of a file: %s-file %.80s", name, given, name, given);
    return st;
}

static status open_grammar(struct sampling *s, const struct sampling *old, const struct runtime *rt, struct err *e)
{
    int which;
    struct model_info info;
    const struct tokenizer *t = model_tokenizer(rt->model);
    TRY(pick_source(s, &which, e));
    if (which < 0) return OK;
    model_info(rt->model, &info);
    s->trie = old->trie;
    if (old->grammar && !memcmp(s->source, old->source, sizeof s->source) && s->json_mode == old->json_mode) s->grammar = old->grammar;
    else TRY(compile_grammar(s, which, t, e));
    if (!s->trie) TRY(token_trie_open(&s->trie, t, info.n_vocab, e));
    return matcher_open(&s->matcher, s->grammar, s->trie, e);
}

/* ---- all of it ---- */

static status open_sampler(struct sampling *s, const struct cli *c, const struct runtime *rt, uint64_t seed, struct err *e)
{
    struct model_info info;
    struct logit_bias bias[ARRAY_LEN(c->logit_bias)];
    struct sampler_options o = c->sampling;
    model_info(rt->model, &info);
    for (int i = 0; i < c->n_logit_bias; i++) TRY(parse_bias(c->logit_bias[i], info.n_vocab, &bias[i], e));
    o.bias = bias, o.n_bias = c->n_logit_bias;
    o.breakers = s->breakers;
    o.matcher = s->matcher;
    o.seed = seed;
    if (o.dry_last < 0) o.dry_last = session_n_ctx(rt->session);
    return sampler_open(&s->sampler, &o, info.n_vocab, engine_kernels(rt->engine), e);
}

/* What both have stays with one of them: the new one when it is complete. */
static void keep_shared(struct sampling *s, struct sampling *old, bool complete)
{
    struct sampling *without = complete ? old : s;
    if (s->breakers == old->breakers) without->breakers = NULL;
    if (s->grammar == old->grammar) without->grammar = NULL;
    if (s->trie == old->trie) without->trie = NULL;
}

status sampling_open(struct sampling *s, struct sampling *old, const struct cli *c, const struct runtime *rt, uint64_t seed, struct err *e)
{
    *s = (struct sampling){ .n_breaker = c->n_dry_breaker, .source = { c->grammar, c->grammar_file, c->json_schema, c->json_schema_file },
                            .json_mode = c->json_mode };
    memcpy(s->breaker, c->dry_breaker, (size_t)c->n_dry_breaker * sizeof *s->breaker);
    status st = open_grammar(s, old, rt, e);
    if (st == OK && c->sampling.dry_multiplier > 0) st = open_breakers(s, old, model_tokenizer(rt->model), e);
    if (st == OK) st = open_sampler(s, c, rt, seed, e);
    if (st == OK) st = stop_open(&s->filter, c->stop, c->n_stop, e);
    keep_shared(s, old, st == OK);
    if (st != OK) sampling_close(s);
    return st;
}

void sampling_close(struct sampling *s)
{
    sampler_close(s->sampler);
    if (s->filter.buf) stop_close(&s->filter);
    dry_breakers_close(s->breakers);
    matcher_close(s->matcher);
    grammar_close(s->grammar);
    token_trie_close(s->trie);
    *s = (struct sampling){ 0 };
}

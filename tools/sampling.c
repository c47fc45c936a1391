/* sampling - see sampling.h. */
#include "tools/sampling.h"
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

static status open_sampler(struct sampling *s, const struct cli *c, const struct runtime *rt, uint64_t seed, struct err *e)
{
    struct model_info info;
    struct logit_bias bias[ARRAY_LEN(c->logit_bias)];
    struct sampler_options o = c->sampling;
    model_info(rt->model, &info);
    for (int i = 0; i < c->n_logit_bias; i++) TRY(parse_bias(c->logit_bias[i], info.n_vocab, &bias[i], e));
    o.bias = bias, o.n_bias = c->n_logit_bias;
    o.breakers = s->breakers;
    o.seed = seed;
    if (o.dry_last < 0) o.dry_last = session_n_ctx(rt->session);
    return sampler_open(&s->sampler, &o, info.n_vocab, engine_kernels(rt->engine), e);
}

status sampling_open(struct sampling *s, struct sampling *old, const struct cli *c, const struct runtime *rt, uint64_t seed, struct err *e)
{
    *s = (struct sampling){ .n_breaker = c->n_dry_breaker };
    memcpy(s->breaker, c->dry_breaker, (size_t)c->n_dry_breaker * sizeof *s->breaker);
    status st = OK;
    if (c->sampling.dry_multiplier > 0) st = open_breakers(s, old, model_tokenizer(rt->model), e);
    if (st == OK) st = open_sampler(s, c, rt, seed, e);
    if (st == OK) st = stop_open(&s->filter, c->stop, c->n_stop, e);
    bool same = s->breakers && s->breakers == old->breakers;
    if (same && st == OK) old->breakers = NULL;
    if (same && st != OK) s->breakers = NULL;
    if (st != OK) sampling_close(s);
    return st;
}

void sampling_close(struct sampling *s)
{
    sampler_close(s->sampler);
    if (s->filter.buf) stop_close(&s->filter);
    dry_breakers_close(s->breakers);
    *s = (struct sampling){ 0 };
}

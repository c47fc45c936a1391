/* sampler, logprobs, stop filter: against a slow double-precision model of the chain written here. */
#include "tests/test.h"
#include <float.h>
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "src/dry.h"
#include "src/grammar.h"
#include "src/model.h"
#include "src/sampler.h"
#include "src/tokenizer.h"
#include "tests/tiny.h"

static const struct kernels *plain_kernels(void)
{
    static struct kernels k;
    if (!k.name) kernels_init(&k, 0);
    return &k;
}

static struct sampler_options options_off(void)
{
    struct sampler_options o;
    sampler_defaults(&o);
    o.temperature = 1, o.top_k = 0, o.top_p = 1, o.min_p = 0, o.seed = 42;
    return o;
}

static struct sampler *must_open(struct sampler_options o, int64_t n_vocab)
{
    struct err e = { 0 };
    struct sampler *s = NULL;
    CHECK_MSG(sampler_open(&s, &o, n_vocab, plain_kernels(), &e) == OK, "%s", e.text);
    return s;
}

static int32_t sample_once(struct sampler *s, const float *logits, int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x);
    memcpy(x, logits, (size_t)n * sizeof *x);
    int32_t id = -1;
    struct err e = { 0 };
    CHECK_MSG(sampler_sample(s, x, &id, &e) == OK, "%s", e.text);
    free(x);
    return id;
}

/* ---- the model ---- */

struct entry { double logit; int32_t id; };

static int by_logit(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

static double entropy_terms(const struct entry *c, int64_t m, double *p)
{
    double z = 0, h = 0;
    for (int64_t i = 0; i < m; i++) z += p[i] = exp(c[i].logit - c[0].logit);
    for (int64_t i = 0; i < m; i++) h -= (p[i] /= z) > 0 ? p[i] * log(p[i]) : 0;
    return h;
}

/* Every cut by its definition, on candidates sorted downward; each returns how many are left, at the front. p: scratch. */
static int64_t model_sigma(const struct sampler_options *o, struct entry *c, int64_t m)
{
    double mean = 0, var = 0;
    for (int64_t i = 0; i < m; i++) mean += c[i].logit / (double)m;
    for (int64_t i = 0; i < m; i++) var += (c[i].logit - mean) * (c[i].logit - mean) / (double)m;
    while (c[m - 1].logit < c[0].logit - (double)o->top_n_sigma * sqrt(var)) m--;
    return m;
}

static int64_t model_typical(const struct sampler_options *o, struct entry *c, int64_t m, double *p)
{
    double h = entropy_terms(c, m, p), sum = 0;
    struct entry *by = malloc((size_t)m * sizeof *by);
    for (int64_t i = 0; i < m; i++) by[i] = (struct entry){ -fabs(-log(p[i]) - h), (int32_t)i };
    qsort(by, (size_t)m, sizeof *by, by_logit);
    int64_t n = 0;
    while (n < m && !((sum += p[by[n++].id]) > (double)o->typical_p)) {}
    for (int64_t i = 0; i < n; i++) by[i] = c[by[i].id];
    memcpy(c, by, (size_t)n * sizeof *c);
    qsort(c, (size_t)n, sizeof *c, by_logit);
    free(by);
    return n;
}

static int64_t model_top_p(const struct sampler_options *o, struct entry *c, int64_t m, double *p)
{
    double sum = 0;
    entropy_terms(c, m, p);
    for (int64_t i = 0; i < m; i++)
        if ((sum += p[i]) >= (double)o->top_p) return i + 1;
    return m;
}

static int64_t model_xtc(const struct sampler_options *o, struct entry *c, int64_t m, double *p)
{
    int64_t gone = 0;
    entropy_terms(c, m, p);
    while (gone < m && p[gone] >= (double)o->xtc_threshold) gone++;
    gone = max_i64(gone - 1, 0);
    memmove(c, c + gone, (size_t)(m - gone) * sizeof *c);
    return m - gone;
}

static int64_t model_cut(const struct sampler_options *o, struct entry *c, int64_t m, double *p, double *t)
{
    if (o->top_n_sigma > 0) m = model_sigma(o, c, m);
    if (o->top_k > 0) m = min_i64(m, o->top_k);
    if (o->typical_p < 1) m = model_typical(o, c, m, p);
    if (o->top_p < 1) m = model_top_p(o, c, m, p);
    if (o->min_p > 0)
        while (m > 1 && c[m - 1].logit < c[0].logit + log((double)o->min_p)) m--;
    if (o->xtc_probability >= 1) m = model_xtc(o, c, m, p);
    *t = o->temperature;
    if (o->dynatemp_range > 0 && m > 1) {
        double lo = fmax(0, *t - (double)o->dynatemp_range), hi = *t + (double)o->dynatemp_range;
        *t = lo + (hi - lo) * pow(entropy_terms(c, m, p) / log((double)m), (double)o->dynatemp_exponent);
    }
    return m;
}

/* Longest ending of the last dry_last tokens, behind the newest single-token breaker, that stands earlier and is followed by id. */
static double model_dry(const struct sampler_options *o, const int32_t *history, int64_t n_history, int32_t id)
{
    int64_t n = min_i64(n_history, o->dry_last), limit = n, longest = -1, first;
    const int32_t *h = history + n_history - n;
    for (int64_t i = 0; i < n && limit == n; i++)
        if (o->breakers && dry_breakers_of(o->breakers, h[n - 1 - i], &first)) limit = i;
    for (int64_t end = 0; end + 1 < n; end++) {
        int64_t len = 0;
        if (h[end + 1] != id) continue;
        while (len < limit && len <= end && h[end - len] == h[n - 1 - len]) len++;
        longest = max_i64(longest, len);
    }
    if (n <= o->dry_allowed_length || longest < o->dry_allowed_length || (o->breakers && dry_breakers_of(o->breakers, id, &first))) return 0;
    return (double)o->dry_multiplier * pow((double)o->dry_base, (double)(longest - o->dry_allowed_length));
}

/* p[id] = exact probability that id is drawn. history [n_history], oldest first. Returns the number of survivors. XTC with probability 0 or 1 only. */
static int64_t model_chain(const struct sampler_options *o, const float *logits, int64_t n, const int32_t *history, int64_t n_history,
                           double *p)
{
    struct entry *c = malloc((size_t)n * sizeof *c);
    int64_t from = o->repeat_last < 0 ? 0 : max_i64(0, n_history - o->repeat_last);
    for (int64_t i = 0; i < n; i++) {
        int64_t count = 0;
        for (int64_t j = from; j < n_history; j++) count += history[j] == i;
        double x = logits[i];
        for (int64_t j = 0; j < o->n_bias; j++)
            if (o->bias[j].id == i) x += o->bias[j].bias;
        if (count) {
            x = x > 0 ? x / o->repeat_penalty : x * o->repeat_penalty;
            x -= (double)count * o->frequency_penalty + o->presence_penalty;
        }
        if (o->dry_multiplier > 0) x -= model_dry(o, history, n_history, (int32_t)i);
        c[i] = (struct entry){ isnan(x) ? -INFINITY : x, (int32_t)i };
    }
    qsort(c, (size_t)n, sizeof *c, by_logit);
    int64_t m = n;
    double z = 0, t;
    while (m > 1 && c[m - 1].logit == -INFINITY) m--;
    m = model_cut(o, c, m, p, &t);
    if (t <= 0) m = 1, t = 1;
    for (int64_t i = 0; i < n; i++) p[i] = 0;
    for (int64_t i = 0; i < m; i++) z += exp((c[i].logit - c[0].logit) / t);
    for (int64_t i = 0; i < m; i++) p[c[i].id] = exp((c[i].logit - c[0].logit) / t) / z;
    free(c);
    return m;
}

/* sampler_distribution against the model: the same set, probabilities within 1e-5. */
static void check_exactly(const char *name, struct sampler_options o, const float *logits, int64_t n, const int32_t *history, int64_t n_history)
{
    double *want = malloc((size_t)n * sizeof *want);
    float *x = malloc((size_t)n * sizeof *x), *probs = malloc((size_t)n * sizeof *probs);
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    int64_t m = model_chain(&o, logits, n, history, n_history, want), got = 0;
    struct sampler *s = must_open(o, n);
    struct err e = { 0 };
    for (int64_t i = 0; i < n_history; i++) sampler_accept(s, history[i]);
    memcpy(x, logits, (size_t)n * sizeof *x);
    CHECK_MSG(sampler_distribution(s, x, ids, probs, &got, &e) == OK, "%s: %s", name, e.text);
    CHECK_MSG(got == m, "%s: %lld candidates, not %lld", name, (long long)got, (long long)m);
    for (int64_t i = 0; i < got; i++) {
        double p = want[ids[i]];
        CHECK_MSG(fabs((double)probs[i] - p) < 1e-5 * (0.01 + p), "%s: token %d has %.8g, not %.8g", name, ids[i], (double)probs[i], p);
        if (i > 0) CHECK(probs[i] <= probs[i - 1]);
    }
    sampler_close(s);
    free(want), free(x), free(probs), free(ids);
}

/* Draws n_draws times and compares counts with the model: nothing outside the candidate set, chi-square within 5 sigma over bins of at
 * least 5 expected draws. */
static void check_distribution(const char *name, struct sampler_options o, const float *logits, int64_t n, const int32_t *history,
                               int64_t n_history, int64_t n_draws, bool all_drawn)
{
    double *p = calloc((size_t)n, sizeof *p);
    int64_t *hits = calloc((size_t)n, sizeof *hits), m = model_chain(&o, logits, n, history, n_history, p), seen = 0;
    struct sampler *s = must_open(o, n);
    for (int64_t i = 0; i < n_history; i++) sampler_accept(s, history[i]);
    for (int64_t i = 0; i < n_draws; i++) hits[sample_once(s, logits, n)]++;
    double chi = 0, rest_p = 0, rest_hits = 0;
    int bins = 0;
    for (int64_t i = 0; i < n; i++) {
        seen += hits[i] > 0;
        if (hits[i] > 0) CHECK_MSG(p[i] > 0, "%s: drew %lld, not a candidate", name, (long long)i);
        double want = p[i] * (double)n_draws, d = (double)hits[i] - want;
        if (want >= 5) chi += d * d / want, bins++;
        else rest_p += want, rest_hits += (double)hits[i];
    }
    if (rest_p >= 5) chi += (rest_hits - rest_p) * (rest_hits - rest_p) / rest_p, bins++;
    if (bins > 1) CHECK_MSG(chi < bins - 1 + 5 * sqrt(2.0 * (bins - 1)), "%s: chi-square %.1f over %d bins", name, chi, bins);
    if (all_drawn) CHECK_MSG(seen == m, "%s: drew %lld ids of %lld candidates", name, (long long)seen, (long long)m);
    sampler_close(s);
    free(p);
    free(hits);
}

static void fill_normal(float *x, int64_t n, float scale, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) x[i] = scale * test_randn(&seed);
}

static const struct chain_row {
    const char *name;
    float temperature;
    int64_t top_k;
    float top_p, min_p, repeat, presence, frequency;
    int64_t last;
    float sigma, typical, xtc, range, exponent, dry;
} chain_rows[] = {
    { "plain", 1, 0, 1, 0, 1, 0, 0, 64 },
    { "hot", 1.7f, 0, 1, 0, 1, 0, 0, 64 },
    { "cold", 0.3f, 0, 1, 0, 1, 0, 0, 64 },
    { "top_k 1", 1, 1, 1, 0, 1, 0, 0, 64 },
    { "top_k 7", 1, 7, 1, 0, 1, 0, 0, 64 },
    { "top_k past the vocabulary", 1, 1 << 30, 1, 0, 1, 0, 0, 64 },
    { "top_k negative", 1, -1, 1, 0, 1, 0, 0, 64 },
    { "top_p 0", 1, 0, 0, 0, 1, 0, 0, 64 },
    { "top_p 0.5", 1, 0, 0.5f, 0, 1, 0, 0, 64 },
    { "top_p 0.999", 1, 0, 0.999f, 0, 1, 0, 0, 64 },
    { "min_p 0.1", 1, 0, 1, 0.1f, 1, 0, 0, 64 },
    { "min_p 1", 1, 0, 1, 1, 1, 0, 0, 64 },
    { "top_p then min_p", 1, 0, 0.9f, 0.02f, 1, 0, 0, 64 },
    { "defaults", 0.8f, 40, 0.95f, 0.05f, 1, 0, 0, 64 },
    { "all at once", 1.3f, 30, 0.9f, 0.01f, 1.3f, 0.4f, 0.2f, 64 },
    { "penalties", 1, 0, 1, 0, 1.5f, 0.7f, 0.3f, 8 },
    { "negative penalties", 1, 0, 1, 0, 0.8f, -0.7f, -0.3f, 8 },
    { "whole history", 1, 20, 1, 0, 1.2f, 0, 0.5f, -1 },
    { "no history", 1, 0, 1, 0, 1.5f, 0.7f, 0.3f, 0 },
    { "top_n_sigma 1", 1, 0, 1, 0, 1, 0, 0, 64, .sigma = 1 },
    { "top_n_sigma 2 top_k top_p", 1.4f, 20, 0.9f, 0, 1, 0, 0, 64, .sigma = 2 },
    { "typical 0.5", 1, 0, 1, 0, 1, 0, 0, 64, .typical = 0.5f },
    { "typical 0.99", 1, 0, 1, 0, 1, 0, 0, 64, .typical = 0.99f },
    { "typical of top_k", 1, 12, 1, 0, 1, 0, 0, 64, .typical = 0.4f },
    { "typical after top_n_sigma, then top_p and min_p", 1, 0, 0.9f, 0.03f, 1, 0, 0, 64, .sigma = 3, .typical = 0.8f },
    { "xtc 0.1", 1, 0, 1, 0, 1, 0, 0, 64, .xtc = 0.1f },
    { "xtc 0.02 of top_k", 1, 30, 1, 0, 1, 0, 0, 64, .xtc = 0.02f },
    { "xtc after min_p", 0.7f, 0, 1, 0.05f, 1, 0, 0, 64, .xtc = 0.05f },
    { "xtc greedy", 0, 0, 1, 0, 1, 0, 0, 64, .xtc = 0.05f },
    { "dynatemp", 1, 0, 1, 0, 1, 0, 0, 64, .range = 0.5f, .exponent = 1 },
    { "dynatemp of top_k, to 0", 0.5f, 10, 1, 0, 1, 0, 0, 64, .range = 0.9f, .exponent = 1.7f },
    { "dynatemp after top_n_sigma", 0, 0, 1, 0, 1, 0, 0, 64, .sigma = 1.5f, .range = 2, .exponent = 0.5f },
    { "dry", 1, 0, 1, 0, 1, 0, 0, 64, .dry = 0.8f },
    { "all of it", 1.1f, 50, 0.97f, 0.01f, 1.1f, 0.1f, 0.1f, 16, 3, 0.95f, 0.08f, 0.4f, 1.2f, 0.5f },
};

static struct sampler_options chain_options(const struct chain_row *r)
{
    struct sampler_options o = options_off();
    o.temperature = r->temperature, o.top_k = r->top_k, o.top_p = r->top_p, o.min_p = r->min_p, o.repeat_penalty = r->repeat;
    o.presence_penalty = r->presence, o.frequency_penalty = r->frequency, o.repeat_last = r->last;
    if (r->sigma > 0) o.top_n_sigma = r->sigma;
    if (r->typical > 0) o.typical_p = r->typical;
    if (r->xtc > 0) o.xtc_probability = 1, o.xtc_threshold = r->xtc;
    if (r->range > 0) o.dynatemp_range = r->range, o.dynatemp_exponent = r->exponent;
    o.dry_multiplier = r->dry;
    return o;
}

TEST(sampler_draws_the_exact_distribution_of_every_chain)
{
    static const int64_t sizes[] = { 3, 128, 1000 };
    float logits[1000];
    int32_t history[40];
    for (int size = 0; size < ARRAY_LEN(sizes); size++) {
        int64_t n = sizes[size];
        uint64_t rng = 5;
        fill_normal(logits, n, 2.5f, 7 + (uint64_t)n);
        for (int i = 0; i < ARRAY_LEN(history); i++) history[i] = (int32_t)(test_rand(&rng) % (uint64_t)min_i64(n, 20));
        for (int i = 0; i < ARRAY_LEN(chain_rows); i++) {
            test_begin("sampler_draws_the_exact_distribution %s, %d tokens", chain_rows[i].name, (int)n);
            check_exactly(chain_rows[i].name, chain_options(&chain_rows[i]), logits, n, history, ARRAY_LEN(history));
            check_distribution(chain_rows[i].name, chain_options(&chain_rows[i]), logits, n, history, ARRAY_LEN(history),
                               n < 1000 ? 10000 : 3000, false);
        }
    }
}

/* At a huge temperature the survivors are equally likely, so that many draws show the whole candidate set. */
TEST(sampler_keeps_the_candidate_set_of_every_chain)
{
    float logits[3000];
    int32_t history[30];
    for (int round = 0; round < 3; round++) {
        uint64_t rng = 9 + (uint64_t)round;
        fill_normal(logits, ARRAY_LEN(logits), 3, 100 + (uint64_t)round);
        if (round == 1) /* ties: logits in steps of 1/2 */
            for (int i = 0; i < ARRAY_LEN(logits); i++) logits[i] = floorf(logits[i] * 2) / 2;
        for (int i = 0; i < ARRAY_LEN(history); i++) history[i] = (int32_t)(test_rand(&rng) % 3000);
        for (int i = 0; i < ARRAY_LEN(chain_rows); i++) {
            struct sampler_options o = chain_options(&chain_rows[i]);
            o.temperature = 1e6f, o.dynatemp_range = 0;
            double *p = calloc(ARRAY_LEN(logits), sizeof *p);
            int64_t m = model_chain(&o, logits, ARRAY_LEN(logits), history, ARRAY_LEN(history), p);
            free(p);
            if (m > 300) continue;
            test_begin("sampler_keeps_the_candidate_set %s, round %d", chain_rows[i].name, round);
            check_distribution(chain_rows[i].name, o, logits, ARRAY_LEN(logits), history, ARRAY_LEN(history), 12 * m + 200, true);
        }
    }
}

TEST(sampler_agrees_with_the_model_on_large_vocabularies)
{
    static const struct { const char *name; int64_t top_k; float top_p, min_p, spread; } rows[] = {
        { "top_k 40", 40, 1, 0, 2 },       { "top_k of more than one per chunk", 3000, 1, 0, 2 },
        { "top_p narrow", 0, 0.5f, 0, 6 }, { "top_p wide", 0, 0.9f, 0, 1 },
        { "top_p flat", 0, 0.7f, 0, 0 },   { "min_p wide", 0, 1, 0.01f, 2 },
        { "top_k flat", 500, 1, 0, 0 },
    };
    enum { N = 50003 };
    float *logits = malloc(N * sizeof *logits);
    fill_normal(logits, N, 2.5f, 78);
    for (int i = 0; i < ARRAY_LEN(chain_rows); i++) check_exactly(chain_rows[i].name, chain_options(&chain_rows[i]), logits, N, NULL, 0);
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        fill_normal(logits, N, rows[i].spread, 77);
        struct sampler_options o = options_off();
        o.top_k = rows[i].top_k, o.top_p = rows[i].top_p, o.min_p = rows[i].min_p;
        test_begin("sampler_agrees_with_the_model_on_large_vocabularies %s", rows[i].name);
        check_distribution(rows[i].name, o, logits, N, NULL, 0, 100, false);
    }
    free(logits);
}

/* ---- order of the chain, by hand ---- */

/* Survivors at huge temperature as a bit mask of ids < 32. */
static unsigned survivors(struct sampler_options o, const float *logits, int64_t n, int32_t accepted)
{
    unsigned mask = 0;
    o.temperature = 1e6f;
    struct sampler *s = must_open(o, n);
    if (accepted >= 0) sampler_accept(s, accepted);
    for (int i = 0; i < 400; i++) mask |= 1u << sample_once(s, logits, n);
    sampler_close(s);
    return mask;
}

TEST(sampler_penalises_before_top_k)
{
    const float logits[] = { 4, 3, 2, 1 };
    struct sampler_options o = options_off();
    o.top_k = 2;
    CHECK(survivors(o, logits, 4, -1) == 0x3);
    o.presence_penalty = 2.5f;
    CHECK(survivors(o, logits, 4, 0) == 0x6);
}

TEST(sampler_measures_top_p_on_top_k_survivors_without_temperature)
{
    /* p = 0.4 0.3 0.2 0.1; after top_k 2: 0.571 0.429 */
    const float logits[] = { logf(4), logf(3), logf(2), logf(1) };
    struct sampler_options o = options_off();
    o.top_p = 0.55f;
    CHECK(survivors(o, logits, 4, -1) == 0x3);
    o.top_k = 2;
    CHECK(survivors(o, logits, 4, -1) == 0x1);
}

TEST(sampler_top_p_includes_the_crossing_token)
{
    const float logits[] = { 0, 0, 0, 0 };
    struct sampler_options o = options_off();
    o.top_p = 0.5f;
    CHECK(survivors(o, logits, 4, -1) == 0x3);
    o.top_p = 0.51f;
    CHECK(survivors(o, logits, 4, -1) == 0x7);
}

TEST(sampler_min_p_keeps_logits_from_max_plus_ln_p)
{
    const float logits[] = { 2, 2 + logf(0.5f), 2 + logf(0.499f), -5 };
    struct sampler_options o = options_off();
    o.min_p = 0.5f;
    CHECK(survivors(o, logits, 4, -1) == 0x3);
}

TEST(sampler_repetition_divides_positive_and_multiplies_other_logits)
{
    const struct { float logit; bool beats_other; float other; } rows[] = {
        { 3, true, 1.49f }, { 3, false, 1.51f }, { -1, true, -2.01f }, { -1, false, -1.99f },
    };
    struct sampler_options o = options_off();
    o.temperature = 0, o.repeat_penalty = 2;
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        const float logits[] = { rows[i].logit, rows[i].other };
        struct sampler *s = must_open(o, 2);
        sampler_accept(s, 0);
        CHECK((sample_once(s, logits, 2) == 0) == rows[i].beats_other);
        sampler_close(s);
    }
}

TEST(sampler_frequency_counts_and_presence_does_not)
{
    const float logits[] = { 1, 0.45f, 0 };
    struct sampler_options o = options_off();
    o.temperature = 0, o.frequency_penalty = 0.2f;
    struct sampler *s = must_open(o, 3);
    sampler_accept(s, 0), sampler_accept(s, 0);
    CHECK(sample_once(s, logits, 3) == 0); /* 1 - 0.4 */
    sampler_accept(s, 0);
    CHECK(sample_once(s, logits, 3) == 1); /* 1 - 0.6 */
    sampler_close(s);
    o.frequency_penalty = 0, o.presence_penalty = 0.5f;
    s = must_open(o, 3);
    for (int i = 0; i < 9; i++) sampler_accept(s, 0);
    CHECK(sample_once(s, logits, 3) == 0);
    sampler_close(s);
}

TEST(sampler_forgets_tokens_older_than_repeat_last)
{
    const float logits[] = { 1, 0.5f, 0 };
    struct sampler_options o = options_off();
    o.temperature = 0, o.presence_penalty = 10, o.repeat_last = 2;
    struct sampler *s = must_open(o, 3);
    sampler_accept(s, 0), sampler_accept(s, 1);
    CHECK(sample_once(s, logits, 3) == 2);
    sampler_accept(s, 2);
    CHECK(sample_once(s, logits, 3) == 0);
    sampler_reset(s);
    CHECK(sample_once(s, logits, 3) == 0);
    sampler_close(s);
}

/* A long random history through the ring gives the same counts as the model's window. */
TEST(sampler_history_ring_stays_exact)
{
    enum { N = 12, STEPS = 300 };
    float logits[N];
    int32_t history[STEPS];
    uint64_t rng = 3;
    fill_normal(logits, N, 1, 4);
    struct sampler_options o = options_off();
    o.temperature = 0, o.frequency_penalty = 0.37f, o.presence_penalty = 0.11f, o.repeat_last = 9;
    struct sampler *s = must_open(o, N);
    for (int i = 0; i < STEPS; i++) {
        history[i] = (int32_t)(test_rand(&rng) % N);
        sampler_accept(s, history[i]);
        double p[N];
        model_chain(&o, logits, N, history, i + 1, p);
        CHECK_MSG(p[sample_once(s, logits, N)] == 1, "step %d", i);
    }
    sampler_close(s);
}

/* ---- DRY ---- */

TEST(sampler_dry_penalises_what_prolongs_a_repetition)
{
    const float logits[] = { 0, 0, 0, 0, 0, 0 };
    static const struct { int32_t history[8]; int64_t n; int32_t id; double penalty; } rows[] = {
        { { 1, 2, 3, 4, 1, 2 }, 6, 3, 0.5 },             /* "1 2" again: 3 would prolong it; length 2 = allowed: multiplier * base^0 */
        { { 0, 1, 2, 3, 0, 1, 2 }, 7, 3, 1 },            /* length 3: base^1 */
        { { 1, 2, 3, 4, 5, 2 }, 6, 3, 0 },               /* length 1: allowed */
        { { 4, 4, 4, 4 }, 4, 4, 1 },                     /* overlapping itself */
        { { 3, 2, 1, 0, 3, 2, 1 }, 7, 0, 0 },            /* 0 is a breaker */
        { { 3, 1, 0, 2, 3, 1, 0 }, 7, 2, 0 },            /* nothing reaches behind a breaker */
    };
    struct dry_breaker row = { 0, 0, 0 };
    struct dry_breakers b = { .row = &row, .n = 1 };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct sampler_options o = options_off();
        o.dry_multiplier = 0.5f, o.dry_base = 2, o.breakers = &b;
        if (rows[i].history[0] == 0) o.breakers = NULL;
        struct sampler *s = must_open(o, 6);
        float x[6], probs[6];
        int32_t ids[6];
        int64_t n;
        for (int64_t j = 0; j < rows[i].n; j++) sampler_accept(s, rows[i].history[j]);
        memcpy(x, logits, sizeof x);
        CHECK(sampler_distribution(s, x, ids, probs, &n, NULL) == OK && n == 6);
        CHECK_MSG(x[rows[i].id] == (float)-rows[i].penalty, "row %d: %g", i, (double)x[rows[i].id]);
        sampler_close(s);
    }
}

TEST(sampler_dry_equals_a_search_by_hand_on_random_histories)
{
    enum { N = 4, STEPS = 60 };
    float logits[N] = { 1, 0.5f, -1, 0 };
    struct dry_breaker row = { 3, 0, 0 };
    struct dry_breakers b = { .row = &row, .n = 1 };
    uint64_t rng = 8;
    for (int round = 0; round < 40; round++) {
        int32_t history[STEPS];
        struct sampler_options o = options_off();
        o.dry_multiplier = 0.3f, o.dry_base = 1.2f, o.dry_allowed_length = 1 + round % 3, o.dry_last = 7 + round, o.breakers = round & 1 ? &b : NULL;
        for (int i = 0; i < STEPS; i++) history[i] = (int32_t)(test_rand(&rng) % (uint64_t)(2 + round % 3));
        for (int n = 0; n <= STEPS; n += 5) check_exactly("random history", o, logits, N, history, n);
    }
}

TEST(dry_breakers_with_tails_stop_at_the_longest_match)
{
    /* breaker 1 then 2 (a tail): in "5 1 2 5 ..." nothing before counts */
    struct dry_breaker row[] = { { 1, 1, 0 } };
    int32_t tails[] = { 2 };
    struct dry_breakers b = { .row = row, .n = 1, .tails = tails, .n_tails = 1 };
    static const struct { int32_t history[9]; int64_t n; bool penalised; } rows[] = {
        { { 4, 3, 1, 2, 5, 4, 3, 1, 2 }, 9, false }, { { 4, 3, 1, 0, 5, 4, 3, 1, 0 }, 9, true },
    };
    for (int i = 0; i < 2; i++) {
        struct sampler_options o = options_off();
        o.dry_multiplier = 1, o.breakers = &b;
        struct sampler *s = must_open(o, 6);
        float x[6] = { 0 }, probs[6];
        int32_t ids[6];
        int64_t n;
        for (int64_t j = 0; j < rows[i].n; j++) sampler_accept(s, rows[i].history[j]);
        CHECK(sampler_distribution(s, x, ids, probs, &n, NULL) == OK);
        CHECK((x[5] < 0) == rows[i].penalised);
        sampler_close(s);
    }
}

/* Every token of a vocabulary against the definition: holds the text, or ends with a beginning of it (the tail is the rest, in tokens). */
TEST(dry_breakers_find_whole_and_begun_texts_in_a_vocabulary)
{
    static const char *const texts[] = { "\n", "ab" };
    const char *path = test_tmp("dry.gguf");
    struct model *m = NULL;
    struct dry_breakers *b = NULL;
    struct err e = { 0 };
    CHECK_MSG(tiny_model(path, &(struct tiny_options){ 0 }, &e) == OK && model_open(&m, path, &(struct model_options){ 0 }, &e) == OK, "%s", e.text);
    const struct tokenizer *t = model_tokenizer(m);
    CHECK_MSG(dry_breakers_open(&b, t, texts, 2, &e) == OK, "%s", e.text);
    for (int32_t id = 0; b && id < tokenizer_size(t); id++) {
        char word[64];
        size_t n = tokenizer_decode(t, &id, 1, true, word, sizeof word - 1);
        word[n] = 0;
        int64_t first, rows = dry_breakers_of(b, id, &first), whole = 0, begun = 0;
        for (int64_t i = first; i < first + rows; i++) whole += b->row[i].n_tail == 0, begun += b->row[i].n_tail > 0;
        bool holds = strstr(word, "ab") || strchr(word, '\n'), ends = n > 0 && word[n - 1] == 'a' && !strstr(word, "ab");
        CHECK_MSG(whole == (n > 0 && holds) && begun == ends, "token %d '%s': %d whole, %d begun", id, word, (int)whole, (int)begun);
        if (begun) CHECK(b->row[first + whole].n_tail == 1 && tokenizer_text(t, b->tails[b->row[first + whole].at]).n == 1);
    }
    dry_breakers_close(b);
    for (int n = 1; n < 200; n++) {
        mem_fail_at(n, false);
        status st = dry_breakers_open(&b, t, texts, 2, NULL);
        mem_fail_at(0, false);
        if (st == OK) break;
        CHECK(st == ERR_MEMORY && b == NULL && n < 199);
    }
    dry_breakers_close(b);
    model_close(m);
    const char *long_text = "01234567890123456789012345678901234567890", *empty = "";
    CHECK(dry_breakers_open(&b, NULL, &long_text, 1, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "sequence breaker 1 has 41 bytes");
    CHECK(dry_breakers_open(&b, NULL, &empty, 1, NULL) == ERR_USAGE);
}

/* ---- grammar ---- */

enum { LETTERS = 27 }; /* a..z and an end token */

static struct matcher *open_letters(const char *text, struct grammar **g, struct token_trie **t)
{
    static char bytes[26];
    struct token_text one[LETTERS] = { 0 };
    struct matcher *m = NULL;
    for (int i = 0; i < 26; i++) bytes[i] = (char)('a' + i), one[i] = (struct token_text){ &bytes[i], 1, false };
    one[26].end = true;
    CHECK(grammar_parse(g, text, strlen(text), "g", NULL, NULL) == OK && token_trie_of(t, one, LETTERS, NULL) == OK && matcher_open(&m, *g, *t, NULL) == OK);
    return m;
}

TEST(sampler_with_a_grammar_gives_only_what_fits)
{
    struct grammar *g;
    struct token_trie *t;
    struct matcher *m = open_letters("root ::= (\"ab\" | \"ac\" \"x\"*)+ \"z\"", &g, &t);
    float logits[LETTERS], probs[LETTERS];
    int32_t ids[LETTERS], id = -1;
    for (int kind = 0; kind < 6; kind++) { /* greedy, plain, top-k 1 (what it leaves hardly ever fits), defaults, mirostat 1 and 2 */
        struct sampler_options o = options_off();
        if (kind == 3) sampler_defaults(&o);
        o.temperature = kind ? 1 : 0, o.top_k = kind == 2, o.mirostat = kind > 3 ? kind - 3 : 0, o.matcher = m, o.presence_penalty = 0.5f, o.seed = 9;
        struct sampler *s = must_open(o, LETTERS);
        sampler_reset(s);
        for (int32_t i = 0; i < 26; i++) sampler_remember(s, i); /* a prompt does not move the grammar */
        char last = 0;
        int64_t n, before = mem_count();
        for (int step = 0; step < 60; step++) {
            fill_normal(logits, LETTERS, 3, (uint64_t)(100 * kind + step));
            float copy[LETTERS];
            memcpy(copy, logits, sizeof copy);
            CHECK(sampler_distribution(s, copy, ids, probs, &n, NULL) == OK);
            struct err e = { 0 };
            CHECK_MSG(sampler_sample(s, logits, &id, &e) == OK, "%s", e.text);
            char c = id == 26 ? '$' : (char)('a' + id);
            const char *may = last == 0 ? "a" : last == 'a' ? "bc" : last == 'b' ? "az" : last == 'c' || last == 'x' ? "axz" : last == 'z' ? "$" : "";
            CHECK_MSG(strchr(may, c), "kind %d: '%c' after '%c'", kind, c, last ? last : '^');
            for (int64_t i = 0; i < n; i++) CHECK(strchr(may, ids[i] == 26 ? '$' : 'a' + ids[i]));
            sampler_accept(s, id);
            last = c;
            if (c == '$') break;
        }
        CHECK(mem_count() == before);
        sampler_close(s);
    }
    matcher_close(m), grammar_close(g), token_trie_close(t);
}

TEST(sampler_says_when_no_token_fits_the_grammar)
{
    struct grammar *g;
    struct token_trie *t;
    struct matcher *m = open_letters("root ::= \"a\" \"B\"", &g, &t);
    struct sampler_options o = options_off();
    float logits[LETTERS] = { 0 };
    int32_t id;
    struct err e = { 0 };
    struct sampler *s = NULL;
    o.matcher = m;
    CHECK(sampler_open(&s, &o, LETTERS + 1, plain_kernels(), &e) == ERR_USAGE);
    CHECK_HAS(e.text, "the grammar is for 27 tokens, there are 28 logits");
    s = must_open(o, LETTERS);
    CHECK(sampler_sample(s, logits, &id, NULL) == OK && id == 0);
    sampler_accept(s, id);
    e = (struct err){ 0 };
    CHECK(sampler_sample(s, logits, &id, &e) == ERR_RUNTIME);
    CHECK_HAS(e.text, "no token fits the grammar here");
    sampler_accept(s, 5);
    e = (struct err){ 0 };
    CHECK(sampler_sample(s, logits, &id, &e) == ERR_RUNTIME);
    CHECK_HAS(e.text, "does not fit the grammar any more");
    sampler_close(s), matcher_close(m), grammar_close(g), token_trie_close(t);
}

/* ---- mirostat ---- */

/* Both versions, step by step: distribution and the running mu. */
TEST(sampler_mirostat_follows_its_equations)
{
    enum { N = 400, STEPS = 30 };
    float logits[N], x[N], probs[N];
    int32_t ids[N];
    struct entry c[N];
    double p[N];
    for (int version = 1; version <= 2; version++) {
        struct sampler_options o = options_off();
        o.mirostat = version, o.temperature = 0.9f, o.mirostat_tau = 3, o.mirostat_eta = 0.2f, o.top_k = 1; /* top-k must not matter */
        struct sampler *s = must_open(o, N);
        double mu = 6;
        for (int step = 0; step < STEPS; step++) {
            fill_normal(logits, N, 3, (uint64_t)step + 1);
            for (int i = 0; i < N; i++) c[i] = (struct entry){ (double)logits[i] / (double)o.temperature, i };
            qsort(c, N, sizeof *c, by_logit);
            entropy_terms(c, N, p);
            int64_t m = 0, got;
            if (version == 2) while (m < N && -log2(p[m]) <= mu) m++;
            else {
                double tb = 0, tt = 0;
                for (int i = 0; i < 99; i++) {
                    double t = log((i + 2.0) / (i + 1.0));
                    tb += t * log(p[i] / p[i + 1]), tt += t * t;
                }
                m = (int64_t)pow((tb / tt - 1) * pow(2, mu) / (1 - pow(N, 1 - tb / tt)), tt / tb);
            }
            m = max_i64(m, 1);
            entropy_terms(c, m, p);
            memcpy(x, logits, sizeof x);
            CHECK(sampler_distribution(s, x, ids, probs, &got, NULL) == OK);
            CHECK_MSG(got == m, "mirostat %d step %d: %lld candidates, not %lld", version, step, (long long)got, (long long)m);
            for (int64_t i = 0; i < min_i64(got, m); i++) CHECK(ids[i] == c[i].id && fabs((double)probs[i] - p[i]) < 1e-5);
            int32_t id = sample_once(s, logits, N);
            int64_t at = 0;
            while (at < m && c[at].id != id) at++;
            CHECK(at < m);
            if (at < m) mu -= 0.2 * (-log2(p[at]) - 3);
        }
        sampler_close(s);
    }
}

TEST(sampler_xtc_acts_as_often_as_asked)
{
    const float logits[] = { logf(0.5f), logf(0.3f), logf(0.2f) };
    struct sampler_options o = options_off();
    o.xtc_probability = 0.3f, o.xtc_threshold = 0.25f;
    struct sampler *s = must_open(o, 3);
    int hits = 0;
    for (int i = 0; i < 4000; i++) hits += sample_once(s, logits, 3) == 0;
    CHECK_NEAR(hits / 4000.0, 0.7 * 0.5, 0.04);
    sampler_close(s);
}

/* ---- bias, ties, special values ---- */

TEST(sampler_bias_bans_and_forces)
{
    const float logits[] = { 5, 1, 1 };
    const struct logit_bias ban = { 0, -INFINITY }, force = { 2, 100 };
    struct sampler_options o = options_off();
    o.bias = &ban, o.n_bias = 1;
    CHECK(survivors(o, logits, 3, -1) == 0x6);
    o.bias = &force;
    o.temperature = 0.5f;
    struct sampler *s = must_open(o, 3);
    for (int i = 0; i < 50; i++) CHECK(sample_once(s, logits, 3) == 2);
    sampler_close(s);
}

TEST(sampler_breaks_ties_by_lowest_id)
{
    float logits[500];
    struct sampler_options o = options_off();
    for (int i = 0; i < 500; i++) logits[i] = i % 100 == 99 ? 1 : -1;
    o.temperature = 0;
    struct sampler *s = must_open(o, 500);
    CHECK(sample_once(s, logits, 500) == 99);
    sampler_close(s);
    for (int i = 0; i < 500; i++) logits[i] = i % 2 ? 0.0f : -0.0f; /* equal, whatever the sign */
    o.top_k = 3;
    CHECK(survivors(o, logits, 500, -1) == 0x7);
}

TEST(sampler_ignores_nan_and_minus_infinity)
{
    const float logits[] = { NAN, 1, -INFINITY, 0.5f, NAN };
    static const struct { int64_t top_k; float top_p, min_p; } rows[] = {
        { 0, 1, 0 }, { 3, 1, 0 }, { 0, 0.9999f, 0 }, { 0, 1, 0.01f }, { 40, 1, 0 },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct sampler_options o = options_off();
        o.top_k = rows[i].top_k, o.top_p = rows[i].top_p, o.min_p = rows[i].min_p;
        CHECK_MSG(survivors(o, logits, 5, -1) == 0xA, "row %d", i);
    }
}

TEST(sampler_takes_plus_infinity_at_any_temperature)
{
    const float logits[] = { 3, INFINITY, NAN, INFINITY };
    struct sampler_options o = options_off();
    CHECK(survivors(o, logits, 4, -1) == 0x2);
}

TEST(sampler_refuses_rows_without_a_finite_logit)
{
    const float rows[2][3] = { { NAN, NAN, NAN }, { -INFINITY, NAN, -INFINITY } };
    for (int i = 0; i < 4; i++) {
        struct sampler_options o = options_off();
        o.temperature = i & 1 ? 0 : 1;
        struct sampler *s = must_open(o, 3);
        float x[3];
        memcpy(x, rows[i / 2], sizeof x);
        int32_t id = 77;
        struct err e = { 0 };
        CHECK(sampler_sample(s, x, &id, &e) == ERR_RUNTIME);
        CHECK_HAS(e.text, "no finite logit");
        sampler_close(s);
    }
}

TEST(sampler_survives_extreme_values)
{
    const float logits[] = { FLT_MAX, -FLT_MAX, 0, FLT_MAX };
    static const float temperatures[] = { 1e-45f, 1e-30f, 1, 1e6f };
    for (int i = 0; i < ARRAY_LEN(temperatures); i++)
        for (int k = 0; k < 5; k++) {
            struct sampler_options o = options_off();
            o.temperature = temperatures[i], o.top_k = k, o.top_p = k & 1 ? 0.9f : 1;
            struct sampler *s = must_open(o, 4);
            for (int j = 0; j < 20; j++) {
                int32_t id = sample_once(s, logits, 4);
                CHECK(id == 0 || id == 3);
            }
            sampler_close(s);
        }
}

/* ---- options ---- */

TEST(sampler_open_names_the_bad_option)
{
    const struct logit_bias past = { 10, 1 }, nan_bias = { 0, NAN };
    struct { const char *says; struct sampler_options o; } rows[15];
    for (int i = 0; i < ARRAY_LEN(rows); i++) rows[i].o = options_off();
    rows[0].says = "temperature is nan", rows[0].o.temperature = NAN;
    rows[1].says = "temperature is -1", rows[1].o.temperature = -1;
    rows[2].says = "temperature is inf", rows[2].o.temperature = INFINITY;
    rows[3].says = "top-p is 1.5", rows[3].o.top_p = 1.5f;
    rows[4].says = "top-p is nan", rows[4].o.top_p = NAN;
    rows[5].says = "min-p is 2", rows[5].o.min_p = 2;
    rows[6].says = "repeat-penalty is 0", rows[6].o.repeat_penalty = 0;
    rows[7].says = "repeat-last-n is -2", rows[7].o.repeat_last = -2;
    rows[8].says = "token 10, the vocabulary has 0..9", rows[8].o.bias = &past, rows[8].o.n_bias = 1;
    rows[9].says = "token 0 is not a number", rows[9].o.bias = &nan_bias, rows[9].o.n_bias = 1;
    rows[11].says = "xtc-threshold is -1", rows[11].o.xtc_threshold = -1;
    rows[12].says = "dry-base is 0.5", rows[12].o.dry_base = 0.5f;
    rows[13].says = "mirostat is 3", rows[13].o.mirostat = 3;
    rows[14].says = "typical is nan", rows[14].o.typical_p = NAN;
    rows[10].says = "presence-penalty is nan", rows[10].o.presence_penalty = NAN;
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct err e = { 0 };
        struct sampler *s = NULL;
        CHECK(sampler_open(&s, &rows[i].o, 10, plain_kernels(), &e) == ERR_USAGE);
        CHECK(s == NULL);
        CHECK_HAS(e.text, rows[i].says);
    }
}

TEST(sampler_open_survives_every_failed_allocation)
{
    struct sampler_options o = options_off();
    const struct logit_bias bias = { 1, 1 };
    o.presence_penalty = 1, o.bias = &bias, o.n_bias = 1, o.dry_multiplier = 1, o.typical_p = 0.5f;
    for (int n = 1; n < 100; n++) {
        struct err e = { 0 };
        struct sampler *s = NULL;
        mem_fail_at(n, false);
        status st = sampler_open(&s, &o, 1000, plain_kernels(), &e);
        mem_fail_at(0, false);
        sampler_close(s);
        if (st == OK) {
            CHECK(n > 1);
            return;
        }
        CHECK(st == ERR_MEMORY && s == NULL && e.code == ERR_MEMORY);
    }
    CHECK(!"never opened");
}

TEST(sampler_sample_allocates_nothing)
{
    enum { N = 5000 };
    static float logits[N];
    for (int i = 0; i < ARRAY_LEN(chain_rows); i++) {
        struct sampler *s = must_open(chain_options(&chain_rows[i]), N);
        int64_t before = mem_count();
        for (int j = 0; j < 20; j++) {
            int32_t id = 0;
            fill_normal(logits, N, 0.1f, (uint64_t)j);
            CHECK(sampler_sample(s, logits, &id, NULL) == OK);
            sampler_accept(s, id);
        }
        CHECK(mem_count() == before);
        sampler_close(s);
    }
}

/* ---- random sequence ---- */

/* Philox 4x32-10 of counter 0, key 0 begins 6627e8d5 (Random123, kat_vectors); the draw is its leading bits times the vocabulary size. */
TEST(sampler_draws_come_from_philox)
{
    enum { N = 65536 };
    float *logits = calloc(N, sizeof *logits);
    struct sampler_options o = options_off();
    o.seed = 0;
    struct sampler *s = must_open(o, N);
    CHECK(sample_once(s, logits, N) == 0x6627);
    sampler_close(s);
    free(logits);
}

TEST(sampler_same_seed_gives_the_same_tokens)
{
    enum { N = 777, STEPS = 64 };
    float logits[N];
    int32_t a[STEPS], b[STEPS], c[STEPS];
    fill_normal(logits, N, 1, 1);
    struct sampler_options o = options_off();
    o.seed = 0xdeadbeef12345678u;
    struct sampler *s = must_open(o, N);
    for (int i = 0; i < STEPS; i++) a[i] = sample_once(s, logits, N);
    sampler_reset(s);
    for (int i = 0; i < STEPS; i++) b[i] = sample_once(s, logits, N);
    sampler_close(s);
    o.seed ^= (uint64_t)1 << 63;
    s = must_open(o, N);
    for (int i = 0; i < STEPS; i++) c[i] = sample_once(s, logits, N);
    sampler_close(s);
    CHECK(memcmp(a, b, sizeof a) == 0);
    CHECK(memcmp(a, c, sizeof a) != 0);
}

/* The tokens of a fixed case, recorded once: every machine and instruction set must give these. */
TEST(sampler_tokens_are_the_same_on_every_machine)
{
    static const int32_t want[2][8] = {
        { 2804, 1117, 35, 2873, 2083, 642, 2300, 2083 }, /* defaults at temperature 1.5 */
        { 2918, 1208, 6, 1136, 873, 1007, 2458, 778 },   /* nothing cut off */
    };
    enum { N = 3001 };
    float logits[N];
    uint64_t rng = 11;
    for (int i = 0; i < N; i++) logits[i] = 12 * test_randf(&rng) * test_randf(&rng); /* exact arithmetic: no libm */
    struct kernels best;
    struct cpu_info cpu;
    cpu_detect(&cpu);
    for (int i = 0; i < 4; i++) {
        struct sampler_options o;
        sampler_defaults(&o);
        if (i & 1) o = options_off();
        o.seed = 7, o.temperature = 1.5f;
        struct sampler *s = NULL;
        kernels_init(&best, i & 2 ? cpu.features : 0);
        CHECK(sampler_open(&s, &o, N, &best, NULL) == OK);
        for (int j = 0; j < 8; j++) {
            int32_t id = sample_once(s, logits, N);
            CHECK_MSG(id == want[i & 1][j], "case %d, draw %d: %d is not %d", i, j, id, want[i & 1][j]);
        }
        sampler_close(s);
    }
}

/* ---- logprobs ---- */

TEST(logprobs_top_agrees_with_double_precision)
{
    static const int64_t sizes[] = { 1, 5, 127, 128, 129, 1000, 40000 };
    static const int64_t tops[] = { 0, 1, 5, 64, 1000 };
    for (int a = 0; a < ARRAY_LEN(sizes); a++)
        for (int b = 0; b < ARRAY_LEN(tops); b++) {
            int64_t n = sizes[a], m = tops[b];
            float *x = malloc((size_t)n * sizeof *x), lp = 0, best[1000];
            int32_t ids[1000];
            struct entry *c = malloc((size_t)n * sizeof *c);
            fill_normal(x, n, 4, 21);
            if (b & 1)
                for (int64_t i = 0; i < n; i++) x[i] = floorf(x[i]); /* ties */
            double z = 0;
            for (int64_t i = 0; i < n; i++) c[i] = (struct entry){ x[i], (int32_t)i }, z += exp(x[i]);
            qsort(c, (size_t)n, sizeof *c, by_logit);
            logprobs_top(plain_kernels(), x, n, (int32_t)(n / 2), &lp, m, ids, best);
            CHECK_NEAR(lp, x[n / 2] - log(z), 1e-5);
            for (int64_t i = 0; i < min_i64(m, n); i++) {
                CHECK_MSG(ids[i] == c[i].id, "n %d top %d: place %d holds %d, not %d", (int)n, (int)m, (int)i, ids[i], c[i].id);
                CHECK_NEAR(best[i], c[i].logit - log(z), 1e-5);
            }
            for (int64_t i = n; i < m; i++) CHECK(ids[i] == -1 && best[i] == -INFINITY);
            free(x);
            free(c);
        }
}

TEST(logprobs_top_gives_nan_and_infinity_a_place)
{
    float lp, best[4];
    int32_t ids[4];
    const float with_nan[] = { NAN, 0, 0, -INFINITY };
    logprobs_top(plain_kernels(), with_nan, 4, 2, &lp, 4, ids, best);
    CHECK_NEAR(lp, log(0.5), 1e-6);
    CHECK(ids[0] == 1 && ids[1] == 2 && ids[2] == 0 && ids[3] == 3 && best[2] == -INFINITY && best[3] == -INFINITY);
    const float with_inf[] = { 1, INFINITY, NAN, 2 };
    logprobs_top(plain_kernels(), with_inf, 4, 3, &lp, 2, ids, best);
    CHECK(lp == -INFINITY && ids[0] == 1 && best[0] == 0 && ids[1] == 3 && best[1] == -INFINITY);
    const float none[] = { NAN, -INFINITY };
    logprobs_top(plain_kernels(), none, 2, 0, &lp, 2, ids, best);
    CHECK(lp == -INFINITY && ids[0] == 0 && ids[1] == 1 && best[0] == -INFINITY);
}

/* ---- stop filter ---- */

/* Feeds text in pieces of `step` bytes (0: random 1..5) and collects what is shown. Returns whether a stop was found. */
static bool feed(const char *const *stops, int n_stops, const char *text, size_t n, size_t step, char *shown, size_t *n_shown)
{
    struct stop_filter f;
    CHECK(stop_open(&f, stops, n_stops, NULL) == OK);
    uint64_t rng = n + 31 * step;
    bool hit = false;
    *n_shown = 0;
    const char *out;
    size_t n_out;
    for (size_t i = 0; i < n && !hit;) {
        size_t m = step ? step : 1 + test_rand(&rng) % 5;
        if (m > n - i) m = n - i;
        hit = stop_push(&f, text + i, m, &out, &n_out);
        memcpy(shown + *n_shown, out, n_out);
        *n_shown += n_out;
        i += m;
    }
    stop_flush(&f, &out, &n_out);
    memcpy(shown + *n_shown, out, n_out);
    *n_shown += n_out;
    shown[*n_shown] = 0;
    stop_close(&f);
    return hit;
}

TEST(stop_finds_strings_across_any_pieces)
{
    static const struct { const char *stops[3]; int n_stops; const char *text, *shown; bool hit; } rows[] = {
        { { "END" }, 1, "one two END three", "one two ", true },
        { { "END" }, 1, "one EN two E", "one EN two E", false },
        { { "aab" }, 1, "aaaaab!", "aaa", true },
        { { "abab" }, 1, "xabaabab", "xaba", true },
        { { "</s>", "<|im_end|>" }, 2, "a < b <|im_ <|im_end|> c", "a < b <|im_ ", true },
        { { "long stop", "stop" }, 2, "a long stop", "a ", true },
        { { "b", "abc" }, 2, "zzabc", "zza", true },
        { { "\xE2\x82\xAC" }, 1, "5 \xE2\x82\xAC", "5 ", true },
        { { "\xE2\x82\xAC" }, 1, "5 \xE2\x82\xAD", "5 \xE2\x82\xAD", false },
        { { "x" }, 1, "x", "", true },
        { { 0 }, 0, "plain \xF0\x9F\x98\x80", "plain \xF0\x9F\x98\x80", false },
    };
    char shown[256];
    size_t n;
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 0; step < 20; step++) {
            /* "b" before "abc": with one piece both are there; the earlier place wins, and in single bytes "b" ends it as well */
            bool hit = feed(rows[i].stops, rows[i].n_stops, rows[i].text, strlen(rows[i].text), step, shown, &n);
            if (i == 6 && step != 1) {
                CHECK(hit && (!strcmp(shown, "zz") || !strcmp(shown, "zza")));
                continue;
            }
            CHECK_MSG(hit == rows[i].hit, "row %d step %d", i, (int)step);
            CHECK_STR(shown, rows[i].shown);
        }
}

TEST(stop_shows_whole_characters_only)
{
    static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBBz";
    struct stop_filter f;
    CHECK(stop_open(&f, NULL, 0, NULL) == OK);
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        const char *out;
        size_t n;
        CHECK(!stop_push(&f, text + i, 1, &out, &n));
        bool last_byte = i + 2 == sizeof text || ((uint8_t)text[i + 1] & 0xC0) != 0x80;
        CHECK_MSG((n > 0) == last_byte, "byte %d", (int)i);
    }
    stop_close(&f);
}

/* The number of replacement characters is that of the Unicode standard, table 3-8, and of Python's decode(errors="replace"). */
TEST(stop_replaces_invalid_bytes)
{
    static const struct { const char *text, *shown; } rows[] = {
        { "a\xFFz", "a\xEF\xBF\xBDz" },
        { "\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD" },
        { "\xE2\x82", "\xEF\xBF\xBD" },                           /* cut at the end */
        { "\xE2\x82" "A", "\xEF\xBF\xBD" "A" },
        { "\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD" },               /* overlong */
        { "\xE0\x80\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },
        { "\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" }, /* surrogate */
        { "\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },
        { "\xF0\x9F\x98" "\xF0\x9F\x98\x80", "\xEF\xBF\xBD\xF0\x9F\x98\x80" },
        { "\xF1\x80\x80\xE1\x80\xC2\x62", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\x62" },
    };
    char shown[256];
    size_t n;
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 1; step < 9; step++) {
            CHECK(!feed(NULL, 0, rows[i].text, strlen(rows[i].text), step, shown, &n));
            CHECK_STR(shown, rows[i].shown);
        }
}

static size_t first_stop(const char *const *stops, int n, const char *text)
{
    size_t at = strlen(text);
    for (int i = 0; i < n; i++) {
        const char *p = strstr(text, stops[i]);
        if (p && (size_t)(p - text) < at) at = (size_t)(p - text);
    }
    return at;
}

TEST(stop_agrees_with_a_search_of_the_whole_text)
{
    uint64_t rng = 1;
    for (int round = 0; round < 2000; round++) {
        char text[80], stop[2][8], shown[400];
        size_t len = test_rand(&rng) % (sizeof text - 1), n;
        for (size_t i = 0; i < len; i++) text[i] = "abc"[test_rand(&rng) % 3];
        text[len] = 0;
        for (int i = 0; i < 2; i++) {
            size_t m = 5; /* of one length, so that the first to be complete is the first to begin */
            for (size_t j = 0; j < m; j++) stop[i][j] = "abc"[test_rand(&rng) % 3];
            stop[i][m] = 0;
        }
        const char *stops[2] = { stop[0], stop[1] };
        size_t want = first_stop(stops, 2, text);
        bool hit = feed(stops, 2, text, len, 0, shown, &n);
        CHECK_MSG(hit == (want < len) && n == want && !memcmp(shown, text, want), "text %s stops %s %s: shown %s", text,
                  stop[0], stop[1], shown);
    }
}

TEST(stop_accepts_nul_bytes_and_long_pieces)
{
    enum { N = 100000 };
    char *text = malloc(N), *shown = malloc(3 * N + 1);
    memset(text, 'x', N);
    text[5] = 0;
    memcpy(text + N - 4, "STOP", 4);
    const char *stops[1] = { "STOP" };
    size_t n;
    CHECK(feed(stops, 1, text, N, N, shown, &n));
    CHECK(n == N - 4 && memcmp(shown, text, n) == 0);
    free(text);
    free(shown);
}

TEST(stop_says_nothing_after_a_hit)
{
    const char *stops[1] = { "." }, *out;
    struct stop_filter f;
    size_t n;
    CHECK(stop_open(&f, stops, 1, NULL) == OK);
    CHECK(stop_push(&f, "a.b", 3, &out, &n) && n == 1 && out[0] == 'a');
    CHECK(stop_push(&f, "c", 1, &out, &n) && n == 0);
    stop_flush(&f, &out, &n);
    CHECK(n == 0);
    stop_close(&f);
}

TEST(stop_open_refuses_empty_long_and_many_strings)
{
    char *text = malloc(4098);
    memset(text, 'x', 4097);
    text[4097] = 0;
    const char *empty[1] = { "" }, *longer[1] = { text }, *many[17] = { 0 };
    struct stop_filter f;
    struct err e = { 0 };
    CHECK(stop_open(&f, empty, 1, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "stop string 1 has 0 bytes");
    stop_close(&f);
    CHECK(stop_open(&f, longer, 1, NULL) == ERR_USAGE);
    stop_close(&f);
    CHECK(stop_open(&f, many, 17, NULL) == ERR_USAGE);
    stop_close(&f);
    text[4096] = 0;
    CHECK(stop_open(&f, longer, 1, NULL) == OK);
    stop_close(&f);
    free(text);
}

SUITE(sampler, T(sampler_draws_the_exact_distribution_of_every_chain), T(sampler_keeps_the_candidate_set_of_every_chain),
      T(sampler_agrees_with_the_model_on_large_vocabularies), T(sampler_penalises_before_top_k),
      T(sampler_measures_top_p_on_top_k_survivors_without_temperature), T(sampler_top_p_includes_the_crossing_token),
      T(sampler_min_p_keeps_logits_from_max_plus_ln_p), T(sampler_repetition_divides_positive_and_multiplies_other_logits),
      T(sampler_frequency_counts_and_presence_does_not), T(sampler_forgets_tokens_older_than_repeat_last),
      T(sampler_history_ring_stays_exact), T(sampler_dry_penalises_what_prolongs_a_repetition),
      T(sampler_dry_equals_a_search_by_hand_on_random_histories), T(dry_breakers_with_tails_stop_at_the_longest_match),
      T(dry_breakers_find_whole_and_begun_texts_in_a_vocabulary), T(sampler_with_a_grammar_gives_only_what_fits),
      T(sampler_says_when_no_token_fits_the_grammar),
      T(sampler_mirostat_follows_its_equations), T(sampler_xtc_acts_as_often_as_asked),
      T(sampler_bias_bans_and_forces), T(sampler_breaks_ties_by_lowest_id), T(sampler_ignores_nan_and_minus_infinity),
      T(sampler_takes_plus_infinity_at_any_temperature), T(sampler_refuses_rows_without_a_finite_logit), T(sampler_survives_extreme_values),
      T(sampler_open_names_the_bad_option), T(sampler_open_survives_every_failed_allocation), T(sampler_sample_allocates_nothing),
      T(sampler_draws_come_from_philox), T(sampler_same_seed_gives_the_same_tokens), T(sampler_tokens_are_the_same_on_every_machine),
      T(logprobs_top_agrees_with_double_precision), T(logprobs_top_gives_nan_and_infinity_a_place), T(stop_finds_strings_across_any_pieces),
      T(stop_shows_whole_characters_only), T(stop_replaces_invalid_bytes), T(stop_agrees_with_a_search_of_the_whole_text),
      T(stop_accepts_nul_bytes_and_long_pieces), T(stop_says_nothing_after_a_hit), T(stop_open_refuses_empty_long_and_many_strings));

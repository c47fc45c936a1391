/* sampler - the chain from logits to a token. Knows no tokenizer and no session. Results depend on logits, options and seed only (sampler_rows.c says
 * why). Cost per token at 152k entries with top_k = 40: about one reading of the row. */
#include "src/sampler_int.h"
#include <math.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"
#include "src/grammar.h"

enum {
    CHUNK = SAMPLER_CHUNK,
    REPEAT_LAST_MAX = 1 << 24,
};

void sampler_defaults(struct sampler_options *o)
{
    *o = (struct sampler_options){
        .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1.0f, .repeat_last = 64,
        .top_n_sigma = -1, .typical_p = 1, .xtc_threshold = 0.1f, .dynatemp_exponent = 1,
        .dry_base = 1.75f, .dry_allowed_length = 2, .dry_last = 64, .mirostat_tau = 5, .mirostat_eta = 0.1f,
    };
}

/* ---- options ---- */

static status check_range(const char *name, float v, float lo, float hi, struct err *e)
{
    if (v >= lo && v <= hi) return OK; /* false for NaN */
    return err_set(e, ERR_USAGE, "%s is %g, allowed are %g..%g", name, (double)v, (double)lo, (double)hi);
}

static status check_count(const char *name, int64_t v, int64_t lo, int64_t hi, struct err *e)
{
    if (v >= lo && v <= hi) return OK;
    return err_set(e, ERR_USAGE, "%s is %lld, allowed are %lld..%lld", name, (long long)v, (long long)lo, (long long)hi);
}

static status check_numbers(const struct sampler_options *o, struct err *e)
{
    const struct { const char *name; float v, lo, hi; } rows[] = {
        { "temperature", o->temperature, 0, 1e6f },
        { "top-p", o->top_p, 0, 1 },
        { "min-p", o->min_p, 0, 1 },
        { "top-nsigma", o->top_n_sigma, -1, 1e6f },
        { "typical", o->typical_p, 0, 1 },
        { "xtc-probability", o->xtc_probability, 0, 1 },
        { "xtc-threshold", o->xtc_threshold, 0, 1 },
        { "dynatemp-range", o->dynatemp_range, 0, 1e6f },
        { "dynatemp-exp", o->dynatemp_exponent, 0, 1e3f },
        { "repeat-penalty", o->repeat_penalty, 1e-6f, 1e6f },
        { "presence-penalty", o->presence_penalty, -1e6f, 1e6f },
        { "frequency-penalty", o->frequency_penalty, -1e6f, 1e6f },
        { "dry-multiplier", o->dry_multiplier, 0, 1e6f },
        { "dry-base", o->dry_base, 1, 1e6f },
        { "mirostat-ent", o->mirostat_tau, 0, 1e3f },
        { "mirostat-lr", o->mirostat_eta, 0, 1e3f },
    };
    const struct { const char *name; int64_t v, lo, hi; } counts[] = {
        { "repeat-last-n", o->repeat_last, -1, REPEAT_LAST_MAX },
        { "dry-penalty-last-n", o->dry_last, 0, REPEAT_LAST_MAX },
        { "dry-allowed-length", o->dry_allowed_length, 1, REPEAT_LAST_MAX },
        { "mirostat", o->mirostat, 0, 2 },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) TRY(check_range(rows[i].name, rows[i].v, rows[i].lo, rows[i].hi, e));
    for (int i = 0; i < ARRAY_LEN(counts); i++) TRY(check_count(counts[i].name, counts[i].v, counts[i].lo, counts[i].hi, e));
    return OK;
}

static status check_options(const struct sampler_options *o, int64_t n_vocab, struct err *e)
{
    if (n_vocab < 1 || n_vocab > INT32_MAX)
        return err_set(e, ERR_USAGE, "vocabulary size is %lld, allowed are 1..%d", (long long)n_vocab, INT32_MAX);
    TRY(check_numbers(o, e));
    if (o->matcher && matcher_vocab(o->matcher) != n_vocab)
        return err_set(e, ERR_USAGE, "the grammar is for %lld tokens, there are %lld logits", (long long)matcher_vocab(o->matcher), (long long)n_vocab);
    if (o->n_bias < 0 || o->n_bias > n_vocab)
        return err_set(e, ERR_USAGE, "%lld logit biases, allowed are 0..%lld", (long long)o->n_bias, (long long)n_vocab);
    for (int64_t i = 0; i < o->n_bias; i++) {
        if (o->bias[i].id < 0 || o->bias[i].id >= n_vocab)
            return err_set(e, ERR_USAGE, "logit bias for token %d, the vocabulary has 0..%lld", o->bias[i].id, (long long)n_vocab - 1);
        if (isnan(o->bias[i].bias)) return err_set(e, ERR_USAGE, "logit bias for token %d is not a number", o->bias[i].id);
    }
    return OK;
}

static bool stage_on(const struct stage *table, const struct sampler_options *o, const char *name)
{
    for (; table->name; table++)
        if (!strcmp(table->name, name)) return table->on(o);
    return false;
}

/* Nothing but the best of the adjusted logits can win: cutting the tail does not matter. */
static bool is_greedy(const struct sampler_options *o)
{
    if (o->temperature > 0) return false;
    if (o->mirostat != 0) return true;
    return !stage_on(stages_cut, o, "typical") && !stage_on(stages_cut, o, "xtc") && !stage_on(stages_cut, o, "dynamic temperature");
}

static void choose_stages(struct sampler *s)
{
    const struct stage *cut = s->o.mirostat ? stages_mirostat : stages_cut;
    for (const struct stage *g = stages_adjust; g->name; g++)
        if (g->on(&s->o)) s->adjust[s->n_adjust++] = g->apply;
    for (const struct stage *g = cut; g->name; g++)
        if (g->on(&s->o) && !is_greedy(&s->o)) s->cut[s->n_cut++] = g->apply;
}

/* ---- memory ---- */

static int64_t chunks_of(int64_t n_vocab) { return (n_vocab + CHUNK - 1) / CHUNK; }

static void *take(struct sampler *s, int64_t n, size_t bytes, bool *ok)
{
    void *p = n > 0 ? arena_zalloc(&s->mem, (size_t)n, bytes) : NULL;
    if (n > 0 && !p) *ok = false;
    return p;
}

static bool allocate(struct sampler *s)
{
    const struct sampler_options *o = &s->o;
    int64_t n = s->n_vocab;
    bool ok = true;
    s->bias = take(s, o->n_bias, sizeof *s->bias, &ok);
    if (o->matcher) s->raw = take(s, n, sizeof *s->raw, &ok);
    if (!is_greedy(o)) {
        s->list = take(s, n, sizeof *s->list, &ok);
        s->key = take(s, n, sizeof *s->key, &ok);
        s->spare = take(s, n, sizeof *s->spare, &ok);
        s->weight = take(s, n, sizeof *s->weight, &ok);
        s->peak = take(s, chunks_of(n), sizeof *s->peak, &ok);
        s->mass = take(s, chunks_of(n), sizeof *s->mass, &ok);
        s->digits = take(s, 3, sizeof *s->digits, &ok);
        if (stage_on(stages_cut, o, "typical") || stage_on(stages_cut, o, "dynamic temperature")) s->score = take(s, n, sizeof *s->score, &ok);
    }
    if (stage_on(stages_adjust, o, "penalties")) {
        s->ring = take(s, max_i64(o->repeat_last, 0), sizeof *s->ring, &ok);
        s->count = take(s, n, sizeof *s->count, &ok);
        s->seen = take(s, n, sizeof *s->seen, &ok);
        s->where = take(s, n, sizeof *s->where, &ok);
    }
    if (stage_on(stages_adjust, o, "dry")) {
        s->dry_ring = take(s, o->dry_last, sizeof *s->dry_ring, &ok);
        s->dry_text = take(s, o->dry_last, sizeof *s->dry_text, &ok);
        s->dry_reach = take(s, o->dry_last, sizeof *s->dry_reach, &ok);
        s->dry_touched = take(s, o->dry_last, sizeof *s->dry_touched, &ok);
        s->dry_longest = take(s, n, sizeof *s->dry_longest, &ok);
    }
    return ok;
}

status sampler_open(struct sampler **out, const struct sampler_options *o, int64_t n_vocab, const struct kernels *k, struct err *e)
{
    *out = NULL;
    TRY(check_options(o, n_vocab, e));
    struct sampler *s = mem_calloc(1, sizeof *s);
    if (!s) return err_oom(e, "sampler", sizeof *s);
    s->o = *o;
    s->k = k;
    s->n_vocab = n_vocab;
    s->log_min_p = o->min_p > 0 ? (float)log((double)o->min_p) : -INFINITY;
    s->mu = 2 * o->mirostat_tau;
    choose_stages(s);
    arena_init(&s->mem, 0);
    if (!allocate(s)) {
        size_t had = s->mem.total;
        sampler_close(s);
        return err_oom(e, "sampler buffers", had + (size_t)n_vocab * sizeof(uint64_t));
    }
    if (o->n_bias > 0) memcpy(s->bias, o->bias, (size_t)o->n_bias * sizeof *s->bias);
    s->o.bias = s->bias;
    *out = s;
    return OK;
}

void sampler_close(struct sampler *s)
{
    if (!s) return;
    arena_free(&s->mem);
    mem_free(s);
}

/* ---- history ---- */

static void forget(struct sampler *s, int32_t id)
{
    if (--s->count[id] > 0) return;
    int32_t last = s->seen[--s->n_seen];
    s->seen[s->where[id]] = last;
    s->where[last] = s->where[id];
}

static void count_in(struct sampler *s, int32_t id)
{
    if (s->ring) {
        if (s->ring_n == s->o.repeat_last) forget(s, s->ring[s->ring_at]);
        else s->ring_n++;
        s->ring[s->ring_at] = id;
        s->ring_at = s->ring_at + 1 == s->o.repeat_last ? 0 : s->ring_at + 1;
    }
    if (s->count[id] == INT32_MAX) return;
    if (s->count[id]++ > 0) return;
    s->where[id] = (int32_t)s->n_seen;
    s->seen[s->n_seen++] = id;
}

void sampler_accept(struct sampler *s, int32_t id)
{
    sampler_remember(s, id);
    if (s->o.matcher && matcher_accept(s->o.matcher, id, NULL) != OK) return; /* the next sampler_sample says so */
}

void sampler_remember(struct sampler *s, int32_t id)
{
    if (id < 0 || id >= s->n_vocab) return;
    if (s->count) count_in(s, id);
    if (!s->dry_ring) return;
    s->dry_ring[s->dry_at] = id;
    s->dry_at = s->dry_at + 1 == s->o.dry_last ? 0 : s->dry_at + 1;
    s->dry_n = min_i64(s->dry_n + 1, s->o.dry_last);
}

void sampler_reset(struct sampler *s)
{
    for (int64_t i = 0; i < s->n_seen; i++) s->count[s->seen[i]] = 0;
    s->n_seen = s->ring_n = s->ring_at = 0;
    s->dry_n = s->dry_at = 0;
    if (s->o.matcher) matcher_reset(s->o.matcher);
    s->n_draws = 0;
    s->mu = 2 * s->o.mirostat_tau;
}

/* ---- random numbers: Philox 4x32-10, one block per draw, counter = number of the draw, key = seed ---- */

/* u[0]: for the draw, u[1]: for XTC. */
static void draw_uniform(uint64_t seed, uint64_t at, double u[2])
{
    uint32_t c[4] = { (uint32_t)at, (uint32_t)(at >> 32), 0, 0 }, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t c0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, c2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[0] = c0, c[1] = (uint32_t)b, c[2] = c2, c[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 2; i++) u[i] = (double)(((uint64_t)c[2 * i] << 32 | c[2 * i + 1]) >> 11) * 0x1p-53;
}

/* ---- draw ---- */

static int64_t walk(const float *weight, int64_t n, double r)
{
    int64_t last = 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (weight[i] > 0) last = i;
        sum += (double)weight[i];
        if (sum > r) return i;
    }
    return last; /* r was at the very end and the sums were rounded differently */
}

static int32_t draw_listed(struct sampler *s, const struct row *r, double u, double *p)
{
    double total = weigh(s, s->list, r->n, r->max, r->t);
    int64_t i = walk(s->weight, r->n, u * total);
    *p = (double)s->weight[i] / total;
    return key_id(s->list[i]);
}

/* Nothing is sorted, candidates stay in the order of ids. */
static int32_t draw_open(struct sampler *s, const struct row *row, double u, double *p)
{
    int64_t n_chunks = chunks_of(s->n_vocab), c = 0, last = 0;
    double total = 0;
    for (; c < n_chunks; c++) {
        s->mass[c] = s->k->weights(NULL, row->x + c * CHUNK, min_i64(CHUNK, s->n_vocab - c * CHUNK), row->max, row->t);
        total += s->mass[c];
        if (s->mass[c] > 0) last = c;
    }
    double r = u * total;
    for (c = 0; c < last && r >= s->mass[c]; c++) r -= s->mass[c];
    int64_t n = min_i64(CHUNK, s->n_vocab - c * CHUNK);
    s->k->weights(s->weight, row->x + c * CHUNK, n, row->max, row->t);
    int64_t i = walk(s->weight, n, r);
    *p = (double)s->weight[i] / total;
    return (int32_t)(c * CHUNK + i);
}

/* ---- the chain ---- */

static status no_candidate(const struct sampler *s, struct err *e)
{
    return err_set(e, ERR_RUNTIME, "no finite logit among %lld (NaN or -inf everywhere): the weights may be damaged, try --check",
                   (long long)s->n_vocab);
}

/* Runs all stages. *best: the id that wins without a draw (greedy, +inf, temperature 0), else -1. */
static status run_chain(struct sampler *s, struct row *r, int32_t *best, double u_xtc, struct err *e)
{
    int64_t at = -1;
    for (int i = 0; i < s->n_adjust; i++) s->adjust[i](s, r);
    if (is_greedy(&s->o)) r->max = s->k->max(r->x, s->n_vocab, &at);
    else row_changed(s, r);
    *best = (int32_t)at;
    if (r->max == -INFINITY) return no_candidate(s, e);
    if (at < 0 && r->max == INFINITY) s->k->max(r->x, s->n_vocab, &at);
    *best = (int32_t)at;
    if (at >= 0) return OK;
    r->t = s->o.temperature;
    r->u_xtc = u_xtc;
    for (int i = 0; i < s->n_cut; i++) s->cut[i](s, r);
    if (!r->listed && r->floor > -INFINITY) row_list(s, r, s->n_vocab);
    if (!(r->t > 0)) *best = r->listed ? key_id(s->list[0]) : (s->k->max(r->x, s->n_vocab, &at), (int32_t)at);
    return OK;
}

/* One draw; *p: its probability among what was left. */
static status draw(struct sampler *s, float *logits, int32_t *id, double *p, struct err *e)
{
    struct row r = { .x = logits, .floor = -INFINITY };
    double u[2];
    int32_t best;
    *p = 1;
    draw_uniform(s->o.seed, s->n_draws, u);
    TRY(run_chain(s, &r, &best, u[1], e));
    if (!is_greedy(&s->o)) s->n_draws++;
    if (best >= 0) *id = best;
    else *id = r.listed ? draw_listed(s, &r, u[0], p) : draw_open(s, &r, u[0], p);
    return OK;
}

/* Only what fits the grammar keeps its logit. */
static status forbid(struct sampler *s, float *logits, struct err *e)
{
    const uint64_t *bits;
    float best = -INFINITY;
    TRY(matcher_mask(s->o.matcher, &bits, e));
    for (int64_t i = 0; i < s->n_vocab; i++) {
        if (!(bits[i >> 6] >> (i & 63) & 1)) logits[i] = -INFINITY;
        else if (logits[i] > best) best = logits[i];
    }
    if (best > -INFINITY) return OK;
    return err_set(e, ERR_RUNTIME, "no token fits the grammar here: the vocabulary cannot spell what it asks for, or those tokens are forbidden otherwise");
}

static status draw_fitting(struct sampler *s, float *logits, int32_t *id, double *p, struct err *e)
{
    size_t bytes = (size_t)s->n_vocab * sizeof *logits;
    bool fits;
    memcpy(s->raw, logits, bytes);
    TRY(draw(s, logits, id, p, e));
    TRY(matcher_allows(s->o.matcher, *id, &fits, e));
    if (fits) return OK;
    TRY(forbid(s, s->raw, e));
    memcpy(logits, s->raw, bytes);
    return draw(s, logits, id, p, e);
}

status sampler_sample(struct sampler *s, float *logits, int32_t *id, struct err *e)
{
    double p;
    if (s->o.matcher) TRY(draw_fitting(s, logits, id, &p, e));
    else TRY(draw(s, logits, id, &p, e));
    if (s->o.mirostat) s->mu -= s->o.mirostat_eta * ((float)-log2(p) - s->o.mirostat_tau);
    return OK;
}

status sampler_distribution(struct sampler *s, float *logits, int32_t *ids, float *probs, int64_t *n, struct err *e)
{
    struct row r = { .x = logits, .floor = -INFINITY };
    double u[2];
    int32_t best;
    draw_uniform(s->o.seed, s->n_draws, u);
    if (s->o.matcher) TRY(forbid(s, logits, e));
    TRY(run_chain(s, &r, &best, u[1], e));
    *n = 1, ids[0] = best, probs[0] = 1;
    if (best >= 0) return OK;
    if (!r.listed) row_list(s, &r, s->n_vocab);
    double total = weigh(s, s->list, r.n, r.max, r.t);
    for (int64_t i = 0; i < r.n; i++) ids[i] = key_id(s->list[i]), probs[i] = (float)((double)s->weight[i] / total);
    *n = r.n;
    return OK;
}

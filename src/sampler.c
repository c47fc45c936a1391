/* sampler - the chain from logits to a token, and the best tokens of a row. Knows no tokenizer and no session.
 * Results depend on logits, options and seed only: the one kernel used (max) is exact, exponentials are plain IEEE arithmetic in a fixed
 * order, and ties are broken by id. Cost per token at 152k entries with top_k = 40: about one reading of the row. */
#include "src/sampler.h"
#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>
#include "ggml-like/arena.h"
#include "ggml-like/kernels/kernels.h"

enum {
    CHUNK = 128,             /* logits that share one entry of peak[] */
    BLOCK = 16,              /* exponentials computed side by side; constant, so that compilers vectorise the loop */
    DIGIT = 1 << 11,         /* radix: three digits cover the 32 bits of a logit */
    INSERTION_MAX = 192,     /* below it insertion sort beats clearing the histograms */
    REPEAT_LAST_MAX = 1 << 24,
};

struct sampler {
    struct sampler_options o;
    const struct kernels *k;
    struct arena mem;        /* holds everything below and this struct's arrays */
    int64_t n_vocab;
    float log_min_p;
    uint64_t n_draws;
    struct logit_bias *bias;
    /* Candidates as sort keys: logit in the high word (order-preserving), ~id in the low one, so that a larger key is a better token. */
    uint64_t *key, *spare;   /* [n_vocab] */
    float *weight;           /* [n_vocab] */
    float *peak;             /* [n_chunks] maximum of each chunk */
    double *mass;            /* [n_chunks] sum of exponentials of each chunk */
    uint32_t (*digits)[DIGIT];
    /* History: ring holds the last repeat_last ids; seen lists the distinct ones, where[id] is the place of id in seen. */
    int32_t *ring, *count, *seen, *where;
    int64_t ring_n, ring_at, n_seen;
};

void sampler_defaults(struct sampler_options *o)
{
    *o = (struct sampler_options){
        .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1.0f, .repeat_last = 64,
    };
}

/* ---- options ---- */

static status check_range(const char *name, float v, float lo, float hi, struct err *e)
{
    if (v >= lo && v <= hi) return OK; /* false for NaN */
    return err_set(e, ERR_USAGE, "%s is %g, allowed are %g..%g", name, (double)v, (double)lo, (double)hi);
}

static status check_options(const struct sampler_options *o, int64_t n_vocab, struct err *e)
{
    if (n_vocab < 1 || n_vocab > INT32_MAX)
        return err_set(e, ERR_USAGE, "vocabulary size is %lld, allowed are 1..%d", (long long)n_vocab, INT32_MAX);
    const struct { const char *name; float v, lo, hi; } rows[] = {
        { "temperature", o->temperature, 0, 1e6f },
        { "top-p", o->top_p, 0, 1 },
        { "min-p", o->min_p, 0, 1 },
        { "repeat-penalty", o->repeat_penalty, 1e-6f, 1e6f },
        { "presence-penalty", o->presence_penalty, -1e6f, 1e6f },
        { "frequency-penalty", o->frequency_penalty, -1e6f, 1e6f },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) TRY(check_range(rows[i].name, rows[i].v, rows[i].lo, rows[i].hi, e));
    if (o->repeat_last < -1 || o->repeat_last > REPEAT_LAST_MAX)
        return err_set(e, ERR_USAGE, "repeat-last-n is %lld, allowed are -1..%d", (long long)o->repeat_last, REPEAT_LAST_MAX);
    if (o->n_bias < 0 || o->n_bias > n_vocab)
        return err_set(e, ERR_USAGE, "%lld logit biases, allowed are 0..%lld", (long long)o->n_bias, (long long)n_vocab);
    for (int64_t i = 0; i < o->n_bias; i++) {
        if (o->bias[i].id < 0 || o->bias[i].id >= n_vocab)
            return err_set(e, ERR_USAGE, "logit bias for token %d, the vocabulary has 0..%lld", o->bias[i].id, (long long)n_vocab - 1);
        if (isnan(o->bias[i].bias)) return err_set(e, ERR_USAGE, "logit bias for token %d is not a number", o->bias[i].id);
    }
    return OK;
}

static bool has_penalties(const struct sampler_options *o)
{
    return o->repeat_last != 0 && (o->repeat_penalty != 1.0f || o->presence_penalty != 0.0f || o->frequency_penalty != 0.0f);
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
    if (o->temperature > 0) {
        s->key = take(s, n, sizeof *s->key, &ok);
        s->spare = take(s, n, sizeof *s->spare, &ok);
        s->weight = take(s, n, sizeof *s->weight, &ok);
        s->peak = take(s, chunks_of(n), sizeof *s->peak, &ok);
        s->mass = take(s, chunks_of(n), sizeof *s->mass, &ok);
        s->digits = take(s, 3, sizeof *s->digits, &ok);
    }
    if (has_penalties(o)) {
        s->ring = take(s, max_i64(o->repeat_last, 0), sizeof *s->ring, &ok);
        s->count = take(s, n, sizeof *s->count, &ok);
        s->seen = take(s, n, sizeof *s->seen, &ok);
        s->where = take(s, n, sizeof *s->where, &ok);
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

void sampler_accept(struct sampler *s, int32_t id)
{
    if (!s->count || id < 0 || id >= s->n_vocab) return;
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

void sampler_reset(struct sampler *s)
{
    for (int64_t i = 0; i < s->n_seen; i++) s->count[s->seen[i]] = 0;
    s->n_seen = s->ring_n = s->ring_at = 0;
    s->n_draws = 0;
}

static void adjust_logits(const struct sampler *s, float *logits)
{
    const struct sampler_options *o = &s->o;
    for (int64_t i = 0; i < o->n_bias; i++) logits[s->bias[i].id] += s->bias[i].bias;
    for (int64_t i = 0; i < s->n_seen; i++) {
        float *x = &logits[s->seen[i]];
        *x = *x > 0 ? *x / o->repeat_penalty : *x * o->repeat_penalty;
        *x -= (float)s->count[s->seen[i]] * o->frequency_penalty + o->presence_penalty;
    }
}

/* ---- random numbers: Philox 4x32-10, one block per draw, counter = number of the draw, key = seed ---- */

static double draw_uniform(uint64_t seed, uint64_t at)
{
    uint32_t c[4] = { (uint32_t)at, (uint32_t)(at >> 32), 0, 0 }, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t c0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, c2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[0] = c0, c[1] = (uint32_t)b, c[2] = c2, c[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (double)(((uint64_t)c[0] << 32 | c[1]) >> 11) * 0x1p-53;
}

/* ---- exponentials ---- */

/* y = exp((x - max) / t), 0 where that is below e^-87 or x is NaN. x <= max. Relative error < 2e-7 plus the rounding of the argument:
 * Cody-Waite reduction, Taylor polynomial of degree 6 on |r| <= ln2 / 2. Plain arithmetic, so every machine gets the same bits; without
 * branches and in three loops, because gcc 12 at -O2 vectorises these and not one (258 instead of 934 us for 152k logits). y may be x. */
static void exp_block(float y[BLOCK], const float x[BLOCK], float max, float t)
{
    float a[BLOCK];
    int32_t keep[BLOCK];
    for (int i = 0; i < BLOCK; i++) a[i] = (x[i] - max) / t;
    for (int i = 0; i < BLOCK; i++) keep[i] = a[i] > -87.0f ? -1 : 0;
    for (int i = 0; i < BLOCK; i++) {
        int32_t bits;
        float b, two_n;
        memcpy(&bits, &a[i], sizeof bits);
        bits &= keep[i]; /* 0 instead of what is too small or NaN: its result is masked below */
        memcpy(&b, &bits, sizeof b);
        float n = (b * 1.44269504f + 12582912.0f) - 12582912.0f; /* round to integer: adds and removes 1.5 * 2^23 */
        float r = (b - n * 0.693359375f) + n * 2.12194440e-4f;
        float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.66666667e-1f + r * (4.16666667e-2f + r * (8.33333333e-3f + r * 1.38888889e-3f)))));
        bits = (((int32_t)n + 127) * (1 << 23)) & keep[i];
        memcpy(&two_n, &bits, sizeof two_n);
        y[i] = p * two_n;
    }
}

static double sum_block(const float y[BLOCK])
{
    float h[8];
    for (int i = 0; i < 8; i++) h[i] = y[i] + y[i + 8];
    for (int i = 0; i < 4; i++) h[i] += h[i + 4];
    return ((double)h[0] + h[1]) + ((double)h[2] + h[3]);
}

/* Terms go to y (may be x itself, or NULL); returns their sum. */
static double exp_sum(float *y, const float *x, int64_t n, float max, float t)
{
    double sum = 0;
    float term[BLOCK];
    int64_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        exp_block(y ? y + i : term, x + i, max, t);
        sum += sum_block(y ? y + i : term);
    }
    if (i == n) return sum;
    for (int64_t j = 0; j < BLOCK; j++) term[j] = i + j < n ? x[i + j] : -INFINITY;
    exp_block(term, term, max, t);
    if (y) memcpy(y + i, term, (size_t)(n - i) * sizeof *y);
    return sum + sum_block(term);
}

/* ---- candidates ---- */

static uint64_t key_of(float x, int32_t id)
{
    uint32_t b;
    x += 0.0f; /* -0 ties with +0 */
    memcpy(&b, &x, sizeof b);
    b ^= b >> 31 ? UINT32_MAX : 0x80000000u;
    return (uint64_t)b << 32 | (uint32_t)~id;
}

static float key_logit(uint64_t key)
{
    uint32_t b = (uint32_t)(key >> 32);
    b ^= b >> 31 ? 0x80000000u : UINT32_MAX;
    float x;
    memcpy(&x, &b, sizeof x);
    return x;
}

static int32_t key_id(uint64_t key) { return (int32_t)~(uint32_t)key; }

static void sort_insertion(uint64_t *key, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        uint64_t x = key[i];
        int64_t j = i;
        for (; j > 0 && key[j - 1] < x; j--) key[j] = key[j - 1];
        key[j] = x;
    }
}

/* Sorts s->key[0..n) downward. The keys come in falling order of their low words: a stable radix sort of the high words is enough. */
static void sort_keys(struct sampler *s, int64_t n)
{
    if (n <= INSERTION_MAX) {
        sort_insertion(s->key, n);
        return;
    }
    memset(s->digits, 0, 3 * sizeof *s->digits);
    for (int64_t i = 0; i < n; i++)
        for (int d = 0; d < 3; d++) s->digits[d][s->key[i] >> (32 + 11 * d) & (DIGIT - 1)]++;
    for (int d = 0; d < 3; d++) {
        uint32_t *first = s->digits[d], at = 0;
        for (int b = DIGIT - 1; b >= 0; b--) {
            uint32_t here = first[b];
            first[b] = at;
            at += here;
        }
        for (int64_t i = 0; i < n; i++) s->spare[first[s->key[i] >> (32 + 11 * d) & (DIGIT - 1)]++] = s->key[i];
        uint64_t *t = s->key;
        s->key = s->spare;
        s->spare = t;
    }
}

static void find_peaks(struct sampler *s, const float *logits)
{
    for (int64_t c = 0; c < chunks_of(s->n_vocab); c++)
        s->peak[c] = s->k->max(logits + c * CHUNK, min_i64(CHUNK, s->n_vocab - c * CHUNK), NULL);
}

/* Keys of the best tokens, at most n, none below floor; sorted. Returns how many. The n-th largest peak bounds the n-th largest logit
 * from below (each of n chunks has a logit at least that large), so only about n chunks are looked at again. */
static int64_t select_best(struct sampler *s, const float *logits, int64_t n, float floor)
{
    int64_t n_chunks = chunks_of(s->n_vocab), m = 0;
    floor = floor > -FLT_MAX ? floor : -FLT_MAX; /* leaves -inf out; comparisons leave NaN out */
    if (n < n_chunks) {
        for (int64_t c = 0; c < n_chunks; c++) s->key[c] = key_of(s->peak[c], (int32_t)c);
        sort_keys(s, n_chunks);
        float bound = key_logit(s->key[n - 1]);
        floor = bound > floor ? bound : floor;
    }
    for (int64_t c = 0; c < n_chunks; c++) {
        if (!(s->peak[c] >= floor)) continue;
        int64_t end = min_i64((c + 1) * CHUNK, s->n_vocab);
        for (int64_t i = c * CHUNK; i < end; i++)
            if (logits[i] >= floor) s->key[m++] = key_of(logits[i], (int32_t)i);
    }
    sort_keys(s, m);
    return min_i64(m, n);
}

/* weight[i] = exp((logit - max) / t) of the n candidates; returns the sum. */
static double weigh(struct sampler *s, int64_t n, float max, float t)
{
    for (int64_t i = 0; i < n; i++) s->weight[i] = key_logit(s->key[i]);
    return exp_sum(s->weight, s->weight, n, max, t);
}

/* Length of the smallest prefix of n candidates whose weights reach `need`; n + 1 if they do not. */
static int64_t prefix_reaching(const struct sampler *s, int64_t n, double need)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += s->weight[i];
        if (sum >= need) return i + 1;
    }
    return n + 1;
}

/* top-k, top-p and min-p: leaves the survivors sorted in s->key and returns their number, at least 1. max is the largest logit, finite. */
static int64_t filter(struct sampler *s, const float *logits, float max)
{
    const struct sampler_options *o = &s->o;
    float floor = max + s->log_min_p;
    int64_t n;
    find_peaks(s, logits);
    if (o->top_k > 0 && o->top_k < s->n_vocab) {
        n = select_best(s, logits, o->top_k, -INFINITY);
        if (o->top_p < 1) n = min_i64(n, prefix_reaching(s, n, o->top_p * weigh(s, n, max, 1)));
    } else if (o->top_p < 1) { /* p refers to the whole vocabulary: look at few candidates first, at more while they do not reach it */
        double need = o->top_p * exp_sum(NULL, logits, s->n_vocab, max, 1);
        for (int64_t look = 64;; look = look * 16) {
            n = select_best(s, logits, min_i64(look, s->n_vocab), floor);
            weigh(s, n, max, 1);
            int64_t prefix = prefix_reaching(s, n, need);
            if (prefix > n && n == look) continue;
            n = min_i64(n, prefix);
            break;
        }
    } else {
        n = select_best(s, logits, s->n_vocab, floor);
    }
    while (n > 1 && key_logit(s->key[n - 1]) < floor) n--;
    return n;
}

/* ---- draw ---- */

static int64_t walk(const float *weight, int64_t n, double r)
{
    int64_t last = 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (weight[i] > 0) last = i;
        sum += weight[i];
        if (sum > r) return i;
    }
    return last; /* r was at the very end and the sums were rounded differently */
}

static int32_t draw_candidate(struct sampler *s, int64_t n, float max, double u)
{
    double total = weigh(s, n, max, s->o.temperature);
    return key_id(s->key[walk(s->weight, n, u * total)]);
}

/* Nothing is cut off: no sorting, candidates stay in the order of ids. */
static int32_t draw_any(struct sampler *s, const float *logits, float max, double u)
{
    int64_t n_chunks = chunks_of(s->n_vocab), c = 0, last = 0;
    double total = 0;
    for (; c < n_chunks; c++) {
        s->mass[c] = exp_sum(NULL, logits + c * CHUNK, min_i64(CHUNK, s->n_vocab - c * CHUNK), max, s->o.temperature);
        total += s->mass[c];
        if (s->mass[c] > 0) last = c;
    }
    double r = u * total;
    for (c = 0; c < last && r >= s->mass[c]; c++) r -= s->mass[c];
    int64_t n = min_i64(CHUNK, s->n_vocab - c * CHUNK);
    exp_sum(s->weight, logits + c * CHUNK, n, max, s->o.temperature);
    return (int32_t)(c * CHUNK + walk(s->weight, n, r));
}

status sampler_sample(struct sampler *s, float *logits, int32_t *id, struct err *e)
{
    const struct sampler_options *o = &s->o;
    adjust_logits(s, logits);
    int64_t at = 0;
    float max = s->k->max(logits, s->n_vocab, &at);
    if (max == -INFINITY)
        return err_set(e, ERR_RUNTIME, "no finite logit among %lld (NaN or -inf everywhere): the weights may be damaged, try --check",
                       (long long)s->n_vocab);
    if (max == INFINITY || o->temperature <= 0) {
        *id = (int32_t)at;
        return OK;
    }
    double u = draw_uniform(o->seed, s->n_draws++);
    if ((o->top_k <= 0 || o->top_k >= s->n_vocab) && o->top_p >= 1 && o->min_p <= 0) *id = draw_any(s, logits, max, u);
    else *id = draw_candidate(s, filter(s, logits, max), max, u);
    return OK;
}

/* ---- best tokens of a row ---- */

static bool better(float xa, int32_t a, float xb, int32_t b) { return xa > xb || (xa == xb && a < b); }

/* Puts (x, id) at the root of a heap of n whose root is the worst entry, and lets it sink. */
static void heap_sink(float *logit, int32_t *ids, int64_t n, float x, int32_t id)
{
    int64_t i = 0;
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && better(logit[child], ids[child], logit[child + 1], ids[child + 1])) child++;
        if (!better(x, id, logit[child], ids[child])) break;
        logit[i] = logit[child];
        ids[i] = ids[child];
        i = child;
    }
    logit[i] = x;
    ids[i] = id;
}

/* The caller's arrays are the heap, so that no buffer is needed. NaN counts as -inf. */
static void top_ids_of(const struct kernels *k, const float *logits, int64_t n_vocab, int64_t n, int32_t *ids, float *best)
{
    if (n == 0) return;
    for (int64_t i = 0; i < n; i++) best[i] = -INFINITY, ids[i] = INT32_MAX;
    for (int64_t c = 0; c < n_vocab; c += CHUNK) {
        int64_t end = min_i64(c + CHUNK, n_vocab);
        if (ids[0] != INT32_MAX && !(k->max(logits + c, end - c, NULL) > best[0])) continue; /* an equal logit with a higher id loses */
        for (int64_t i = c; i < end; i++) {
            float x = isnan(logits[i]) ? -INFINITY : logits[i];
            if (better(x, (int32_t)i, best[0], ids[0])) heap_sink(best, ids, n, x, (int32_t)i);
        }
    }
    for (int64_t m = n - 1; m > 0; m--) { /* heap to falling order */
        float x = best[m];
        int32_t id = ids[m];
        best[m] = best[0];
        ids[m] = ids[0];
        heap_sink(best, ids, m, x, id);
    }
}

/* NaN and -inf have no probability; +inf has all of it. */
static float logprob_of(float x, double log_sum)
{
    if (!(x > -INFINITY)) return -INFINITY;
    return x == INFINITY ? 0 : (float)((double)x - log_sum);
}

void logprobs_top(const struct kernels *k, const float *logits, int64_t n_vocab, int32_t id, float *logprob, int64_t n, int32_t *top_ids,
                  float *top_logprobs)
{
    assert(n >= 0 && n <= 1000 && id >= 0 && id < n_vocab);
    float max = k->max(logits, n_vocab, NULL);
    double log_sum;
    if (isfinite(max)) {
        double sum = k->exp_sum(NULL, logits, max, n_vocab);
        if (!isfinite(sum)) sum = exp_sum(NULL, logits, n_vocab, max, 1); /* NaN among them: this one leaves them out */
        log_sum = (double)max + log(sum);
    } else {
        log_sum = max; /* +inf: below, the infinite ones get 0 and the others -inf; -inf: all get -inf */
    }
    int64_t m = min_i64(n, n_vocab);
    top_ids_of(k, logits, n_vocab, m, top_ids, top_logprobs);
    for (int64_t i = 0; i < m; i++) top_logprobs[i] = logprob_of(top_logprobs[i], log_sum);
    for (int64_t i = m; i < n; i++) top_ids[i] = -1, top_logprobs[i] = -INFINITY;
    if (logprob) *logprob = logprob_of(logits[id], log_sum);
}

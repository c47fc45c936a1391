/* sampler_stages - one function per step of the chain, and the tables that put them in order. Definitions: llama.cpp's samplers, which differ from ours
 * in one point only: there a token at -inf stays a candidate of probability 0 and counts in the largest entropy of the dynamic temperature. */
#include <math.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"
#include "src/sampler_int.h"

enum { LOOK_FIRST = 64, LOOK_FACTOR = 16, MIROSTAT_M = 100 };

/* ---- adjusting logits ---- */

static bool bias_on(const struct sampler_options *o) { return o->n_bias > 0; }
static void bias_apply(struct sampler *s, struct row *r)
{
    for (int64_t i = 0; i < s->o.n_bias; i++) r->x[s->bias[i].id] += s->bias[i].bias;
}

static bool penalties_on(const struct sampler_options *o)
{
    return o->mirostat == 0 && o->repeat_last != 0 && (o->repeat_penalty != 1.0f || o->presence_penalty != 0.0f || o->frequency_penalty != 0.0f);
}
static void penalties_apply(struct sampler *s, struct row *r)
{
    const struct sampler_options *o = &s->o;
    for (int64_t i = 0; i < s->n_seen; i++) {
        float *x = &r->x[s->seen[i]];
        *x = *x > 0 ? *x / o->repeat_penalty : *x * o->repeat_penalty;
        *x -= (float)s->count[s->seen[i]] * o->frequency_penalty + o->presence_penalty;
    }
}

static bool dry_on(const struct sampler_options *o) { return o->mirostat == 0 && o->dry_multiplier != 0 && o->dry_last > 0; }

/* How many of the newest tokens stand after the newest breaker: a repetition cannot reach further back. */
static int64_t dry_limit(const struct sampler *s, int64_t n)
{
    const struct dry_breakers *b = s->o.breakers;
    for (int64_t i = 0; b && i < n; i++) {
        int64_t first, longest = -1, rows = dry_breakers_of(b, s->dry_text[n - 1 - i], &first);
        for (int64_t j = first; j < first + rows; j++) {
            const struct dry_breaker *w = &b->row[j];
            if (w->n_tail <= longest || w->n_tail > i) continue;
            if (w->n_tail == 0 || !memcmp(b->tails + w->at, s->dry_text + n - i, (size_t)w->n_tail * sizeof *b->tails)) longest = w->n_tail;
        }
        if (longest >= 0) return i - longest;
    }
    return n;
}

/* reach[i] = length of the longest common ending of text[0..i] and the whole text: the Z function of the reversed text, linear in n. */
static void dry_measure(const int32_t *text, int64_t n, int32_t *reach)
{
    int64_t box = 0, end = 0; /* places counted from the end; [box, end) equals the beginning of the reversed text */
    for (int64_t k = 1; k < n; k++) {
        int64_t z = k < end ? min_i64(reach[n - 1 - (k - box)], end - k) : 0;
        while (k + z < n && text[n - 1 - z] == text[n - 1 - k - z]) z++;
        reach[n - 1 - k] = (int32_t)z;
        if (k + z > end) box = k, end = k + z;
    }
}

static bool dry_is_breaker(const struct sampler *s, int32_t id)
{
    int64_t first, rows = s->o.breakers ? dry_breakers_of(s->o.breakers, id, &first) : 0;
    for (int64_t j = 0; j < rows; j++)
        if (s->o.breakers->row[first + j].n_tail == 0) return true;
    return false;
}

static void dry_apply(struct sampler *s, struct row *r)
{
    const struct sampler_options *o = &s->o;
    int64_t n = s->dry_n, touched = 0, start = s->dry_n < o->dry_last ? 0 : s->dry_at;
    if (n <= o->dry_allowed_length) return;
    for (int64_t i = 0; i < n; i++) s->dry_text[i] = s->dry_ring[(start + i) % o->dry_last];
    int64_t limit = dry_limit(s, n);
    if (limit < o->dry_allowed_length) return;
    dry_measure(s->dry_text, n, s->dry_reach);
    for (int64_t i = 0; i + 1 < n; i++) {
        int32_t id = s->dry_text[i + 1], len = (int32_t)min_i64(s->dry_reach[i], limit) + 1; /* + 1: 0 means untouched */
        if (len - 1 < o->dry_allowed_length) continue;
        if (s->dry_longest[id] == 0) s->dry_touched[touched++] = id;
        if (s->dry_longest[id] < len) s->dry_longest[id] = len;
    }
    int64_t most = o->dry_base > 1.000001f ? (int64_t)(88.7228391f / (float)log((double)o->dry_base)) : 0; /* keeps the power below the largest float */
    for (int64_t i = 0; i < touched; i++) {
        int32_t id = s->dry_touched[i];
        int64_t power = s->dry_longest[id] - 1 - o->dry_allowed_length;
        if (most > 0 && power > most) power = most;
        if (!dry_is_breaker(s, id)) r->x[id] -= (float)((double)o->dry_multiplier * pow((double)o->dry_base, (double)power));
        s->dry_longest[id] = 0;
    }
}

/* ---- cutting ---- */

static bool sigma_on(const struct sampler_options *o) { return o->top_n_sigma > 0; }
static void sigma_apply(struct sampler *s, struct row *r)
{
    double sum[4] = { 0 }, square[4] = { 0 };
    int64_t n = 0;
    for (int64_t i = 0; i < s->n_vocab; i++) {
        if (!(r->x[i] > -INFINITY)) continue;
        double d = (double)r->x[i] - (double)r->max; /* from the maximum: squares of large logits would lose the difference */
        sum[i & 3] += d;
        square[i & 3] += d * d;
        n++;
    }
    double mean = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / (double)n;
    double variance = ((square[0] + square[1]) + (square[2] + square[3])) / (double)n - mean * mean;
    float floor = r->max - s->o.top_n_sigma * (float)sqrt(variance > 0 ? variance : 0);
    if (floor > r->floor) r->floor = floor;
}

static bool top_k_on(const struct sampler_options *o) { return o->top_k > 0; }
static void top_k_apply(struct sampler *s, struct row *r)
{
    if (s->o.top_k < s->n_vocab) row_list(s, r, s->o.top_k);
}

/* |surprise - entropy| of token i is |d[i] - mean d|, d = logit - max, weighted by probability: no logarithm is needed. */
static bool typical_on(const struct sampler_options *o) { return o->typical_p < 1; }

static double mean_of(const float *weight, const float *x, int64_t n, float max, double total)
{
    double sum[4] = { 0 };
    for (int64_t i = 0; i < n; i++)
        if (weight[i] > 0) sum[i & 3] += (double)weight[i] * ((double)x[i] - (double)max);
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) / total;
}

static float mismatch(float x, float max, double mean)
{
    return x > -INFINITY ? -(float)fabs((double)x - (double)max - mean) : -INFINITY;
}

/* Length of the smallest prefix of the n weights that sums to at least need (strict: to more); n + 1 if they do not. */
static int64_t prefix_reaching(const float *weight, int64_t n, double need, bool strict)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)weight[i];
        if (strict ? sum > need : sum >= need) return i + 1;
    }
    return n + 1;
}

static void typical_listed(struct sampler *s, struct row *r)
{
    double total = weigh(s, s->list, r->n, r->max, 1), mean;
    for (int64_t i = 0; i < r->n; i++) s->score[i] = key_logit(s->list[i]);
    mean = mean_of(s->weight, s->score, r->n, r->max, total);
    for (int64_t i = 0; i < r->n; i++) {
        s->score[i] = mismatch(s->score[i], r->max, mean);
        s->key[i] = key_of(s->score[i], (int32_t)i);
    }
    sort_keys(s, r->n);
    double sum = 0;
    int64_t last = 0, n = 0;
    for (; last + 1 < r->n; last++)
        if ((sum += (double)s->weight[key_id(s->key[last])]) > s->o.typical_p * total) break;
    uint64_t worst = s->key[last];
    for (int64_t i = 0; i < r->n; i++)
        if (key_of(s->score[i], (int32_t)i) >= worst) s->list[n++] = s->list[i];
    r->n = n;
    r->max = key_logit(s->list[0]);
}

/* Few candidates are looked at first, more while they do not reach p: nothing is sorted whole unless the row is flat. */
static void typical_open(struct sampler *s, struct row *r)
{
    row_settle(s, r);
    double total = s->k->weights(s->weight, r->x, s->n_vocab, r->max, 1), mean = mean_of(s->weight, r->x, s->n_vocab, r->max, total);
    for (int64_t i = 0; i < s->n_vocab; i++) s->score[i] = mismatch(r->x[i], r->max, mean);
    find_peaks(s, s->score);
    r->peaked = false;
    for (int64_t look = LOOK_FIRST;; look *= LOOK_FACTOR) {
        int64_t n = select_best(s, s->score, min_i64(look, s->n_vocab), -INFINITY);
        for (int64_t i = 0; i < n; i++) s->weight[i] = r->x[key_id(s->key[i])];
        s->k->weights(s->weight, s->weight, n, r->max, 1);
        int64_t prefix = prefix_reaching(s->weight, n, s->o.typical_p * total, true);
        if (prefix > n && n == look) continue;
        uint64_t worst = s->key[min_i64(prefix, n) - 1];
        for (int64_t i = 0; i < s->n_vocab; i++)
            if (key_of(s->score[i], (int32_t)i) < worst) r->x[i] = -INFINITY;
        break;
    }
    row_changed(s, r);
}

static void typical_apply(struct sampler *s, struct row *r)
{
    if (r->listed) typical_listed(s, r);
    else typical_open(s, r);
}

static bool top_p_on(const struct sampler_options *o) { return o->top_p < 1; }
static void top_p_apply(struct sampler *s, struct row *r)
{
    if (r->listed) {
        double total = weigh(s, s->list, r->n, r->max, 1);
        r->n = min_i64(r->n, prefix_reaching(s->weight, r->n, s->o.top_p * total, false));
        return;
    }
    row_settle(s, r);
    double need = s->o.top_p * s->k->weights(NULL, r->x, s->n_vocab, r->max, 1);
    r->floor = r->max + s->log_min_p; /* min-p comes next and removes what is below anyway */
    for (int64_t look = LOOK_FIRST;; look *= LOOK_FACTOR) {
        row_list(s, r, look);
        weigh(s, s->list, r->n, r->max, 1);
        int64_t prefix = prefix_reaching(s->weight, r->n, need, false);
        if (prefix > r->n && r->n == look) continue;
        r->n = min_i64(r->n, prefix);
        break;
    }
}

static bool min_p_on(const struct sampler_options *o) { return o->min_p > 0; }
static void min_p_apply(struct sampler *s, struct row *r)
{
    float floor = r->max + s->log_min_p;
    if (r->listed)
        while (r->n > 1 && key_logit(s->list[r->n - 1]) < floor) r->n--;
    else if (floor > r->floor) r->floor = floor;
}

static bool xtc_on(const struct sampler_options *o) { return o->xtc_probability > 0 && o->xtc_threshold <= 0.5f; }

/* The leading ones of n weights that are at least the threshold, but for the last of them. */
static int64_t xtc_surplus(const struct sampler *s, int64_t n, double total)
{
    int64_t m = 0;
    while (m < n && (float)((double)s->weight[m] / total) >= s->o.xtc_threshold) m++;
    return max_i64(m - 1, 0);
}

static void xtc_apply(struct sampler *s, struct row *r)
{
    if (r->u_xtc > (double)s->o.xtc_probability) return;
    if (r->listed) {
        int64_t gone = xtc_surplus(s, r->n, weigh(s, s->list, r->n, r->max, 1));
        memmove(s->list, s->list + gone, (size_t)(r->n - gone) * sizeof *s->list);
        r->n -= gone;
        r->max = key_logit(s->list[0]);
        return;
    }
    row_settle(s, r);
    double total = s->k->weights(NULL, r->x, s->n_vocab, r->max, 1);
    if (!r->peaked) find_peaks(s, r->x);
    /* 1e-3: more than all roundings; which of them pass is decided by their weights */
    float least = s->o.xtc_threshold > 0 ? r->max + (float)log((double)s->o.xtc_threshold * total) - 1e-3f : -INFINITY;
    int64_t n = select_best(s, r->x, s->n_vocab, least);
    weigh(s, s->key, n, r->max, 1);
    int64_t gone = xtc_surplus(s, n, total);
    for (int64_t i = 0; i < gone; i++) r->x[key_id(s->key[i])] = -INFINITY;
    row_changed(s, r);
}

static bool dynatemp_on(const struct sampler_options *o) { return o->dynatemp_range > 0; }
static void dynatemp_apply(struct sampler *s, struct row *r)
{
    const struct sampler_options *o = &s->o;
    double total, mean;
    int64_t n = r->n;
    if (r->listed) {
        total = weigh(s, s->list, r->n, r->max, 1);
        for (int64_t i = 0; i < n; i++) s->score[i] = key_logit(s->list[i]);
        mean = mean_of(s->weight, s->score, n, r->max, total);
    } else {
        row_settle(s, r);
        total = s->k->weights(s->weight, r->x, s->n_vocab, r->max, 1);
        mean = mean_of(s->weight, r->x, s->n_vocab, r->max, total);
        n = 0;
        for (int64_t i = 0; i < s->n_vocab; i++) n += r->x[i] > -INFINITY;
    }
    if (n <= 1) return;
    double entropy = log(total) - mean, lo = o->temperature > o->dynatemp_range ? o->temperature - o->dynatemp_range : 0;
    double hi = o->temperature + o->dynatemp_range, part = entropy / log((double)n);
    r->t = (float)(lo + (hi - lo) * pow(part > 0 ? part : 0, (double)o->dynatemp_exponent));
}

/* ---- mirostat ---- */

static bool mirostat1_on(const struct sampler_options *o) { return o->mirostat == 1; }
static void mirostat1_apply(struct sampler *s, struct row *r)
{
    double bits = 0, squares = 0;
    row_list(s, r, MIROSTAT_M);
    for (int64_t i = 0; i + 1 < r->n; i++) {
        double t = log((double)(i + 2) / (double)(i + 1));
        bits += t * ((double)key_logit(s->list[i]) - (double)key_logit(s->list[i + 1])) / (double)r->t;
        squares += t * t;
    }
    if (r->n < 2) return;
    double zipf = bits / squares, eps = zipf - 1, size = (double)s->n_vocab;
    double slope = fabs(eps) < 1e-6 ? 1 / log(size) : eps / (1 - pow(size, -eps));
    double k = pow(slope * pow(2, (double)s->mu), 1 / zipf);
    if (!(k < size)) k = isnan(k) ? 1 : size;
    row_list(s, r, max_i64((int64_t)k, 1));
}

/* -log2 p <= mu, that is logit >= max + t * (ln sum - mu * ln 2). At least the best one stays. */
static bool mirostat2_on(const struct sampler_options *o) { return o->mirostat == 2; }
static void mirostat2_apply(struct sampler *s, struct row *r)
{
    double total = s->k->weights(NULL, r->x, s->n_vocab, r->max, r->t);
    double floor = (double)r->max + (double)r->t * (log(total) - (double)s->mu * 0.69314718055994531);
    r->floor = floor < (double)r->max ? (float)floor : r->max;
    row_settle(s, r); /* drawn in the order of ids: with a large mu nearly all stay, and need no sorting */
}

const struct stage stages_adjust[] = {
    { "logit bias", bias_on, bias_apply },
    { "penalties", penalties_on, penalties_apply },
    { "dry", dry_on, dry_apply },
    { NULL },
};
const struct stage stages_cut[] = {
    { "top-n-sigma", sigma_on, sigma_apply },
    { "top-k", top_k_on, top_k_apply },
    { "typical", typical_on, typical_apply },
    { "top-p", top_p_on, top_p_apply },
    { "min-p", min_p_on, min_p_apply },
    { "xtc", xtc_on, xtc_apply },
    { "dynamic temperature", dynatemp_on, dynatemp_apply },
    { NULL },
};
const struct stage stages_mirostat[] = {
    { "mirostat 1", mirostat1_on, mirostat1_apply },
    { "mirostat 2", mirostat2_on, mirostat2_apply },
    { NULL },
};

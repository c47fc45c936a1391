/* stats - see stats.h. Plain vectors of four floats on every CPU: the figures do not depend on the ISA level.
 * Sums run in f32 over 32 elements per lane and in double above that: relative error below 1e-6. Rows whose squares could leave the range
 * of f32 are summed in double from the start. One histogram increment per weight: both bins in one index, folded at the end of a call. */
#include "quant/stats.h"
#include "ggml-like/kernels/kernels.h"
#include "quant/lanes_base.h"

enum { CHUNK = 32 * LANES, PAIRS = STATS_BINS * STATS_BINS };

struct row_sums {
    double x2, y2, e2, wx2, we2;
    float lo, hi, max_err;
};

/* y = what the format gives back; the unpack slots are exact twins of the format's own. */
static void decode(const struct kernels *k, const struct dtype *t, const void *q, float *y, int64_t n)
{
    if (t->group_len == 0) {
        k->to_f32(t, q, y, n);
        return;
    }
    struct codes c;
    void (*unpack)(const void *, struct codes *) = k->unpack[t->gguf_id] ? k->unpack[t->gguf_id] : t->unpack;
    const uint8_t *block = q;
    for (int64_t i = 0; i < n; i += t->block_len, block += t->block_bytes) {
        unpack(block, &c);
        for (int g = 0; g < t->block_len; g += 16) {
            float scale = c.scale[g / t->group_len], min = c.min[g / t->group_len];
            for (int j = 0; j < 16; j++) y[i + g + j] = scale * (float)c.code[g + j] + min;
        }
    }
}

static double lane_sum(vf v)
{
    float f[LANES];
    v_store(f, v);
    double s = 0;
    for (int i = 0; i < LANES; i++) s += f[i];
    return s;
}

/* Up to CHUNK elements, a multiple of LANES. */
LANE_FN void add_chunk(struct row_sums *r, const float *x, const float *y, const float *w, int n, vf *lo, vf *hi, vf *err)
{
    vf x2 = v_set(0), y2 = x2, e2 = x2, wx2 = x2, we2 = x2;
    for (int i = 0; i < n; i += LANES) {
        vf a = v_load(x + i), b = v_load(y + i), e = v_sub(a, b), aa = v_mul(a, a), ee = v_mul(e, e);
        *lo = v_min(a, *lo), *hi = v_max(a, *hi), *err = v_max(v_abs(e), *err);
        x2 = v_add(x2, aa), y2 = v_add(y2, v_mul(b, b)), e2 = v_add(e2, ee);
        if (!w) continue;
        vf u = v_load(w + i);
        wx2 = v_add(wx2, v_mul(u, aa)), we2 = v_add(we2, v_mul(u, ee));
    }
    r->x2 += lane_sum(x2), r->y2 += lane_sum(y2), r->e2 += lane_sum(e2);
    if (w) r->wx2 += lane_sum(wx2), r->we2 += lane_sum(we2);
}

static void add_one(struct row_sums *r, float x, float y, float w)
{
    double a = x, b = y, e = x - y;
    r->x2 += a * a, r->y2 += b * b, r->e2 += e * e;
    r->wx2 += w * (a * a), r->we2 += w * (e * e);
    if (x < r->lo) r->lo = x;
    if (x > r->hi) r->hi = x;
    if (fabs(e) > r->max_err) r->max_err = (float)fabs(e);
}

static void sum_exact(struct row_sums *r, const float *x, const float *y, const float *w, int64_t n)
{
    *r = (struct row_sums){ .lo = x[0], .hi = x[0] };
    for (int64_t i = 0; i < n; i++) add_one(r, x[i], y[i], w ? w[i] : 1.0f);
}

static void sum_fast(struct row_sums *r, const float *x, const float *y, const float *w, int64_t n)
{
    *r = (struct row_sums){ .lo = x[0], .hi = x[0] };
    vf lo = v_set(x[0]), hi = lo, err = v_set(0);
    int64_t whole = n / LANES * LANES;
    if (w)
        for (int64_t i = 0; i < whole; i += CHUNK) add_chunk(r, x + i, y + i, w + i, (int)min_i64(CHUNK, whole - i), &lo, &hi, &err);
    else
        for (int64_t i = 0; i < whole; i += CHUNK) add_chunk(r, x + i, y + i, NULL, (int)min_i64(CHUNK, whole - i), &lo, &hi, &err);
    for (int i = 0; i < LANES; i++) {
        if (lo[i] < r->lo) r->lo = lo[i];
        if (hi[i] > r->hi) r->hi = hi[i];
        if (err[i] > r->max_err) r->max_err = err[i];
    }
    for (int64_t i = whole; i < n; i++) add_one(r, x[i], y[i], w ? w[i] : 1.0f);
}

/* Bins per unit of x: two factors, because the inverse of a denormal is no float. */
struct binning {
    float up, inv;
};

static struct binning binning(double sum, int64_t n)
{
    double rms = sqrt(sum / (double)n), up = rms < 0x1p-100 ? 0x1p100 : 1;
    return (struct binning){ (float)up, rms > 0 ? (float)(STATS_BINS / 8 / (rms * up)) : 0.0f };
}

static inline int32_t bin(float x, struct binning b)
{
    float t = x * b.up * b.inv + STATS_BINS / 2;
    t = t < STATS_BINS - 1 ? t : STATS_BINS - 1;
    return (int32_t)(t > 0 ? t : 0);
}

/* The loop of fixed length becomes vectors. */
static void count_bins(uint32_t *pairs, const float *x, const float *y, int64_t n, struct binning bx, struct binning be)
{
    int32_t at[64];
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        for (int j = 0; j < 64; j++) at[j] = bin(x[i + j], bx) * STATS_BINS + bin(x[i + j] - y[i + j], be);
        for (int j = 0; j < 64; j++) pairs[at[j]]++;
    }
    for (; i < n; i++) pairs[bin(x[i], bx) * STATS_BINS + bin(x[i] - y[i], be)]++;
}

static void fold(struct quant_stats *s, uint32_t *pairs)
{
    for (int i = 0; i < STATS_BINS; i++)
        for (int j = 0; j < STATS_BINS; j++) {
            s->hist[i] += pairs[i * STATS_BINS + j];
            s->err_hist[j] += pairs[i * STATS_BINS + j];
        }
    memset(pairs, 0, PAIRS * sizeof *pairs);
}

static bool in_range(float top) { return top == 0.0f || (top > 0x1p-40f && top < 0x1p50f); }

static void add_row(struct quant_stats *s, const struct row_sums *r, int64_t n, bool weighted)
{
    if (s->n == 0 || r->lo < s->lo) s->lo = r->lo;
    if (s->n == 0 || r->hi > s->hi) s->hi = r->hi;
    s->max_abs = fmaxf(s->max_abs, fmaxf(-r->lo, r->hi));
    s->max_err = fmaxf(s->max_err, r->max_err);
    s->n += n;
    s->x2 += r->x2, s->y2 += r->y2, s->e2 += r->e2;
    s->xy += (r->x2 + r->y2 - r->e2) / 2;
    s->wx2 += weighted ? r->wx2 : r->x2;
    s->we2 += weighted ? r->we2 : r->e2;
}

void stats_rows(struct quant_stats *s, const struct kernels *k, const struct dtype *t, const float *x, const void *q, const float *w,
                int64_t n_rows, int64_t n, float *y)
{
    if (n <= 0) return;
    uint32_t pairs[PAIRS] = { 0 };
    int64_t pending = 0;
    float w_top = 0.0f;
    for (int64_t i = 0; w && i < n; i++) w_top = w[i] > w_top ? w[i] : w_top;
    size_t row_bytes = dtype_row_bytes(t, n);
    for (int64_t row = 0; row < n_rows; row++, x += n) {
        struct row_sums r;
        decode(k, t, (const uint8_t *)q + (size_t)row * row_bytes, y, n);
        sum_fast(&r, x, y, w, n);
        float top = fmaxf(-r.lo, r.hi);
        if (!in_range(top) || !(r.max_err < 0x1p50f) || !in_range(w_top)) sum_exact(&r, x, y, w, n);
        add_row(s, &r, n, w != NULL);
        float limit = 6.0f * (float)sqrt(r.x2 / (double)n);
        for (int64_t i = 0; top > limit && i < n; i++) s->outliers += fabsf(x[i]) > limit;
        struct binning bx = binning(r.x2, n), be = binning(r.e2, n);
        for (int64_t at = 0; at < n; at += 1 << 30) { /* the counters are 32 bits wide */
            int64_t m = min_i64(1 << 30, n - at);
            if ((pending += m) > UINT32_MAX) fold(s, pairs), pending = m;
            count_bins(pairs, x + at, y + at, m, bx, be);
        }
    }
    fold(s, pairs);
}

void stats_join(struct quant_stats *into, const struct quant_stats *s)
{
    if (s->n == 0) return;
    into->lo = into->n == 0 || s->lo < into->lo ? s->lo : into->lo;
    into->hi = into->n == 0 || s->hi > into->hi ? s->hi : into->hi;
    into->max_abs = fmaxf(into->max_abs, s->max_abs);
    into->max_err = fmaxf(into->max_err, s->max_err);
    into->n += s->n, into->outliers += s->outliers;
    into->x2 += s->x2, into->y2 += s->y2, into->xy += s->xy, into->e2 += s->e2;
    into->wx2 += s->wx2, into->we2 += s->we2;
    for (int i = 0; i < STATS_BINS; i++) into->hist[i] += s->hist[i], into->err_hist[i] += s->err_hist[i];
}

double stats_rmse(const struct quant_stats *s) { return s->n ? sqrt(s->e2 / (double)s->n) : 0; }
double stats_relative(const struct quant_stats *s) { return s->x2 > 0 ? sqrt(s->e2 / s->x2) : 0; }
double stats_weighted(const struct quant_stats *s) { return s->wx2 > 0 ? sqrt(s->we2 / s->wx2) : 0; }
double stats_cosine(const struct quant_stats *s)
{
    double n = sqrt(s->x2) * sqrt(s->y2);
    return n > 0 ? s->xy / n : s->x2 == s->y2 ? 1 : 0;
}

/* compat_iq1 - IQ1_S and IQ1_M: vectors of -1, 0, 1 from a codebook, all moved by +1/8 or -1/8. See compat.h.
 * Sorted weights fall into three runs: every pair of boundaries is tried with every shift, by sums over the beginnings of the sorted list. */
#include <float.h>
#include <math.h>
#include "ggml-like/formats/formats.h"
#include "quant/compat.h"

static const float shifted[2][3] = { { -0.875f, 0.125f, 1.125f }, { -1.125f, -0.125f, 0.875f } }; /* [1]: by -1/8 */

struct run {                       /* a group's best division */
    float scale;
    int from, to;                  /* sorted weights before `from` are -1, from `to` on 1 */
    int shift;                     /* IQ1_S: 0, 1. IQ1_M: bit 1 of the first vector, bit 0 of the second */
};
struct sorted { float x[32], w[32]; uint8_t at[32]; };

/* Rising, equal weights in their order. */
static void sort(const float *x, const float *w, int n, struct sorted *s)
{
    for (int i = 0; i < n; i++) {
        int k = i;
        for (; k > 0 && x[i] < s->x[k - 1]; k--) s->x[k] = s->x[k - 1], s->at[k] = s->at[k - 1];
        s->x[k] = x[i], s->at[k] = (uint8_t)i;
    }
    for (int i = 0; i < n; i++) s->w[i] = w[s->at[i]];
}

/* xq^2 / qq is to grow. */
static bool better(float xq, float qq, float *best, float *scale)
{
    if (!(qq > 0.0f && xq * xq > *best * qq)) return false;
    *scale = xq / qq, *best = *scale * xq;
    return true;
}

static bool divide_s(const struct sorted *s, struct run *r)
{
    enum { N = 32 };
    float x[N + 1] = { 0 }, w[N + 1] = { 0 }, best = -FLT_MAX;
    bool found = false;
    for (int i = 0; i < N; i++) {
        x[i + 1] = x[i] + s->w[i] * s->x[i];
        w[i + 1] = w[i] + s->w[i];
    }
    for (int a = 0; a <= N; a++)
        for (int b = a; b <= N; b++)
            for (int shift = 0; shift < 2; shift++) {
                const float *l = shifted[shift];
                float xq = (x[a] - x[0]) * l[0] + (x[b] - x[a]) * l[1] + (x[N] - x[b]) * l[2];
                float qq = (w[a] - w[0]) * l[0] * l[0] + (w[b] - w[a]) * l[1] * l[1] + (w[N] - w[b]) * l[2] * l[2];
                if (!better(xq, qq, &best, &r->scale)) continue;
                r->from = a, r->to = b, r->shift = shift;
                found = true;
            }
    return found;
}

/* Sums of the two vectors apart: each has its own shift. The three runs together: levels are one apart, so a sum is total * top level less what
 * stands before each boundary. */
static bool divide_m(const struct sorted *s, struct run *r)
{
    enum { N = 16 };
    float x[2][N + 1], w[2][N + 1], best = -FLT_MAX;
    bool found = false;
    for (int h = 0; h < 2; h++) {
        x[h][0] = w[h][0] = 0.0f;
        for (int i = 0; i < N; i++) {
            bool mine = s->at[i] / 8 == h;
            x[h][i + 1] = mine ? x[h][i] + s->w[i] * s->x[i] : x[h][i];
            w[h][i + 1] = mine ? w[h][i] + s->w[i] : w[h][i];
        }
    }
    for (int a = 0; a <= N; a++)
        for (int b = a; b <= N; b++) {
            float xq[2][2], qq[2][2]; /* [shift][vector] */
            for (int shift = 0; shift < 2; shift++)
                for (int h = 0; h < 2; h++) {
                    const float *l = shifted[shift];
                    float low = l[0] * l[0] - l[1] * l[1], high = l[1] * l[1] - l[2] * l[2];
                    xq[shift][h] = x[h][N] * l[2] - (x[h][a] + x[h][b]);
                    qq[shift][h] = w[h][N] * l[2] * l[2] + w[h][a] * low + w[h][b] * high;
                }
            for (int k = 0; k < 4; k++) {
                if (!better(xq[k >> 1][0] + xq[k & 1][1], qq[k >> 1][0] + qq[k & 1][1], &best, &r->scale)) continue;
                r->from = a, r->to = b, r->shift = k;
                found = true;
            }
        }
    return found;
}

static int nearest_entry(const struct compat_book *b, const uint16_t *near, const float *x, const float *w, float scale, const float *levels)
{
    float least = FLT_MAX;
    int found = near[1];
    for (int k = 1; k <= near[0]; k++) {
        float sum = 0.0f;
        for (int i = 0; i < 8; i++) {
            float d = scale * levels[compat_level(b, near[k], i)] - x[i];
            sum += w[i] * d * d;
        }
        if (sum < least) least = sum, found = near[k];
    }
    return found;
}

/* Adds one vector at `times` its levels. */
static void vector_sums(const struct compat_book *b, int entry, const float *x, const float *w, const float *levels, float times, float *xq, float *qq)
{
    for (int i = 0; i < 8; i++) {
        float q = levels[compat_level(b, entry, i)] * times;
        *xq += w[i] * q * x[i];
        *qq += w[i] * q * q;
    }
}

struct shape {
    int len;                       /* weights in a group */
    bool halves;                   /* its two vectors have a shift each */
    float none;                    /* a largest magnitude below counts as zero */
    float fudge;                   /* of d */
};

static const float *levels_of(const struct shape *how, int shift, int v) { return shifted[how->halves ? shift >> (1 - v) & 1 : shift]; }

/* Entries, shift and scale of a group; false: zero. */
static bool fit_group(const struct shape *how, const struct compat_book *b, const float *x, const float *w, struct run *r, uint16_t *entry)
{
    struct sorted s;
    float max = fabsf(x[0]), xq = 0.0f, qq = 0.0f;
    uint8_t level[32];
    bool all_on = true;
    for (int i = 1; i < how->len; i++) max = compat_max(max, fabsf(x[i]));
    if (max < how->none) return false;
    sort(x, w, how->len, &s);
    if (!(how->halves ? divide_m : divide_s)(&s, r)) return false;
    for (int i = 0; i < how->len; i++) level[s.at[i]] = (uint8_t)(i < r->from ? 0 : i < r->to ? 1 : 2);
    if (r->scale < 0.0f) {
        for (int i = 0; i < how->len; i++) level[i] = (uint8_t)(2 - level[i]);
        r->scale = -r->scale;
        r->shift ^= how->halves ? 3 : 1;
    }
    for (int v = 0; v < how->len / 8; v++) {
        int point = 0;
        for (int i = 0; i < 8; i++) point |= level[8 * v + i] << 2 * i;
        bool on = b->at[point] >= 0;
        all_on &= on;
        entry[v] = (uint16_t)(on ? b->at[point]
                                 : nearest_entry(b, b->near - b->at[point] - 1, x + 8 * v, w + 8 * v, r->scale, levels_of(how, r->shift, v)));
    }
    if (all_on) return true;
    for (int v = 0; v < how->len / 8; v++) vector_sums(b, entry[v], x + 8 * v, w + 8 * v, levels_of(how, r->shift, v), 1.0f, &xq, &qq);
    if (xq > 0.0f && qq > 0.0f) r->scale = xq / qq;
    return true;
}

static void weights_of(const struct compat_in *in, float mean2, int at, int n, float *w)
{
    if (in->w) compat_weights(in->x + at, in->w + at, mean2, n, w);
    else
        for (int i = 0; i < n; i++) w[i] = in->x[at + i] * in->x[at + i];
}

static void iq1_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *b, struct parts *p)
{
    const struct shape *how = f->how;
    int n = 256 / how->len, vectors = how->len / 8;
    float w[256], mean2 = 2.0f * compat_sum2(in->x, 256) / 256.0f, max = 0.0f, xq = 0.0f, qq = 0.0f;
    struct run r[16] = { { 0 } };
    for (int g = 0; g < n; g++) {
        int at = g * how->len;
        weights_of(in, mean2, at, how->len, w + at);
        if (!fit_group(how, b, in->x + at, w + at, &r[g], p->q + g * vectors)) r[g] = (struct run){ 0 };
        max = compat_max(max, r[g].scale);
    }
    if (!(max > 0.0f)) return;
    float d = max / 15.0f, inverse = 1.0f / d;
    for (int g = 0; g < n; g++) {
        p->sc[g] = (uint8_t)compat_clamp(compat_nearest(0.5f * (inverse * r[g].scale - 1.0f)), 0, 7);
        if (!how->halves) p->sign[g] = (uint8_t)r[g].shift;
        for (int v = 0; how->halves && v < 2; v++) {
            int at = 16 * g + 8 * v;
            p->sign[2 * g + v] = r[g].shift >> (1 - v) & 1;
            vector_sums(b, p->q[2 * g + v], in->x + at, w + at, levels_of(how, r[g].shift, v), (float)(2 * p->sc[g] + 1), &xq, &qq);
        }
    }
    if (how->halves && qq > 0.0f) d = xq / qq;
    p->d = f32_to_f16(d * how->fudge);
}

static const struct shape iq1_s = { 32, false, 1e-12f, 1.125f }, iq1_m = { 16, true, 1e-7f, 1.1125f };
static const struct compat_grid iq1_book = { iq1_grid, 2048, 8, 2, 3, 3 };

const struct compat_format compat_iq1[] = {
    { GGUF_IQ1_S, iq1_block, false, &iq1_s, &iq1_book },
    { GGUF_IQ1_M, iq1_block, false, &iq1_m, &iq1_book },
    { -1, NULL },
};

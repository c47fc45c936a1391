/* compat_scale - the searches for one group's scale that several formats share. Every sum is in the order of the elements, every product from left
 * to right: that order is part of the result. */
#include <math.h>
#include "quant/compat.h"

static const float all_zero = 1e-15f; /* largest magnitudes below count as none */

void compat_weights(const float *x, const float *w, float mean2, int n, float *out)
{
    for (int i = 0; i < n; i++) out[i] = w[i] * sqrtf(mean2 + x[i] * x[i]);
}

float compat_sum2(const float *x, int64_t n)
{
    float sum = 0.0f;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

/* The first element of largest magnitude, with its sign. */
static float largest(const float *x, int n)
{
    float top = 0.0f, value = 0.0f;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > top) top = fabsf(x[i]), value = x[i];
    return value;
}

static void clear(uint8_t *q, int n)
{
    for (int i = 0; i < n; i++) q[i] = 0;
}

/* ---- y = scale * (q - half) ---- */

struct fit { float xq, qq; }; /* sums of w x q and w q^2 */

/* Codes at one inverse scale; q may be NULL. */
static struct fit round_symmetric(int n, int half, float inverse, const float *x, const float *w, uint8_t *q)
{
    struct fit f = { 0.0f, 0.0f };
    for (int i = 0; i < n; i++) {
        int code = compat_clamp(compat_nearest(inverse * x[i]), -half, half - 1);
        float weight = w ? w[i] : x[i] * x[i], c = (float)code;
        if (q) q[i] = (uint8_t)(code + half);
        f.xq += weight * x[i] * c;
        f.qq += weight * c * c;
    }
    return f;
}

float compat_symmetric(int n, int half, const float *x, const float *w, uint8_t *q)
{
    enum { TRIALS = 9 };
    float top = largest(x, n);
    clear(q, n);
    if (fabsf(top) < all_zero) return 0.0f;
    struct fit f = round_symmetric(n, half, (float)-half / top, x, w, q);
    float scale = f.qq != 0.0f ? f.xq / f.qq : 0.0f, best = scale * f.xq;
    for (int k = -TRIALS; k <= TRIALS; k++) {
        if (k == 0) continue;
        float inverse = -((float)half + 0.1f * (float)k) / top;
        f = round_symmetric(n, half, inverse, x, w, NULL);
        if (!(f.qq > 0.0f && f.xq * f.xq > best * f.qq)) continue;
        round_symmetric(n, half, inverse, x, w, q);
        scale = f.xq / f.qq, best = scale * f.xq;
    }
    return scale;
}

float compat_moved(int n, int half, const float *x, uint8_t *q)
{
    enum { ROUNDS = 5 };
    float top = largest(x, n);
    clear(q, n);
    if (fabsf(top) < all_zero) return 0.0f;
    struct fit f = round_symmetric(n, half, (float)-half / top, x, NULL, q);
    for (int round = 0, changed = 1; round < ROUNDS && changed; round++) {
        changed = 0;
        for (int i = 0; i < n; i++) {
            float w = x[i] * x[i], old = (float)(q[i] - half), xq = f.xq - w * x[i] * old;
            if (!(xq > 0.0f)) continue;
            float qq = f.qq - w * old * old;
            int code = compat_clamp(compat_nearest(x[i] * qq / xq), -half, half - 1);
            float c = (float)code;
            if (code + half == q[i]) continue;
            xq += w * x[i] * c;
            qq += w * c * c;
            if (!(qq > 0.0f && xq * xq * f.qq > f.xq * f.xq * qq)) continue;
            q[i] = (uint8_t)(code + half), f.xq = xq, f.qq = qq, changed = 1;
        }
    }
    return f.qq > 0.0f ? f.xq / f.qq : 0.0f;
}

/* ---- y = scale * q + min, min <= 0 ---- */

static float affine_error(const struct compat_trials *t, int n, const float *x, const float *w, const uint8_t *q, float scale, float min)
{
    float error = 0.0f;
    for (int i = 0; i < n; i++) {
        float d = scale * (float)q[i] + min - x[i];
        error += w[i] * (t->absolute ? fabsf(d) : d * d);
    }
    return error;
}

static void round_affine(int n, int top, float inverse, float min, const float *x, uint8_t *q)
{
    for (int i = 0; i < n; i++) q[i] = (uint8_t)compat_clamp(compat_nearest(inverse * (x[i] - min)), 0, top);
}

/* The least squares line through the codes. False: none. */
static bool fit_affine(int n, const float *x, const float *w, const uint8_t *q, float sum_w, float sum_x, float *scale, float *min)
{
    float sum_q = 0.0f, sum_q2 = 0.0f, sum_xq = 0.0f;
    for (int i = 0; i < n; i++) {
        float c = (float)q[i];
        sum_q += w[i] * c;
        sum_q2 += w[i] * c * c;
        sum_xq += w[i] * c * x[i];
    }
    float det = sum_w * sum_q2 - sum_q * sum_q;
    if (!(det > 0.0f)) return false;
    *scale = (sum_w * sum_xq - sum_x * sum_q) / det;
    *min = (sum_q2 * sum_x - sum_q * sum_xq) / det;
    if (*min > 0.0f) *min = 0.0f, *scale = sum_xq / sum_q2;
    return true;
}

float compat_affine(const struct compat_trials *t, int n, int top, const float *x, const float *w, uint8_t *q, float *the_min)
{
    uint8_t tried[32];
    float min = x[0], max = x[0], sum_w = w[0], sum_x = sum_w * x[0];
    for (int i = 1; i < n; i++) {
        if (x[i] < min) min = x[i];
        if (x[i] > max) max = x[i];
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    if (min > 0.0f) min = 0.0f;
    clear(q, n);
    *the_min = -min;
    if (max == min) return 0.0f;
    float inverse = (float)top / (max - min), scale = 1.0f / inverse;
    round_affine(n, top, inverse, min, x, q);
    float best = affine_error(t, n, x, w, q, scale, min);
    for (int k = 0; k <= t->last; k++) {
        float s, m; /* trials begin at the best line's min, which may not be that of the weights any more */
        round_affine(n, top, (t->first + t->step * (float)k + (float)top) / (max - min), min, x, tried);
        if (!fit_affine(n, x, w, tried, sum_w, sum_x, &s, &m)) continue;
        float error = affine_error(t, n, x, w, tried, s, m);
        if (!(error < best)) continue;
        for (int i = 0; i < n; i++) q[i] = tried[i];
        best = error, scale = s, min = m;
    }
    *the_min = -min;
    return scale;
}

/* ---- y = scale * q, x >= 0 ---- */

/* Error at one scale. Bytes: codes pass through q, as they do before the first trial. */
static float positive_error(int n, int top, float inverse, const float *x, const float *w, uint8_t *bytes)
{
    float scale = 1.0f / inverse, error = 0.0f;
    for (int i = 0; i < n; i++) {
        int code = compat_nearest(inverse * x[i]);
        if (bytes) code = bytes[i] = (uint8_t)code;
        else if (code > top) code = top;
        float d = x[i] - scale * (float)code;
        error += w[i] * d * d;
    }
    return error;
}

float compat_positive(int n, int top, const float *x, const float *w, uint8_t *q)
{
    enum { TRIALS = 4, ROUNDS = 5 };
    float max = 0.0f;
    for (int i = 0; i < n; i++) max = compat_max(max, x[i]);
    clear(q, n);
    if (max < all_zero) return 0.0f;
    float inverse = (float)top / max, best = positive_error(n, top, inverse, x, w, q);
    for (int k = -TRIALS; k <= TRIALS; k++) {
        if (k == 0) continue;
        float tried = (0.1f * (float)k + (float)top) / max, error = positive_error(n, top, tried, x, w, NULL);
        if (error < best) best = error, inverse = tried;
    }
    struct fit f = { 0.0f, 0.0f };
    for (int i = 0; i < n; i++) {
        int code = compat_nearest(inverse * x[i]);
        float c = (float)(code = code < top ? code : top);
        q[i] = (uint8_t)code;
        f.xq += w[i] * x[i] * c;
        f.qq += w[i] * c * c;
    }
    for (int round = 0, changed = 1; round < ROUNDS && changed; round++) {
        changed = 0;
        for (int i = 0; i < n; i++) {
            float old = (float)q[i], xq = f.xq - w[i] * x[i] * old, qq = f.qq - w[i] * old * old;
            if (!(xq > 0.0f && qq > 0.0f)) continue;
            int code = compat_nearest(x[i] * qq / xq);
            float c = (float)(code = code < top ? code : top);
            if (code == q[i]) continue;
            xq += w[i] * x[i] * c;
            qq += w[i] * c * c;
            if (!(xq * xq * f.qq > f.xq * f.xq * qq)) continue;
            q[i] = (uint8_t)code, f.xq = xq, f.qq = qq, changed = 1;
        }
    }
    return f.qq > 0.0f ? f.xq / f.qq : 0.0f;
}

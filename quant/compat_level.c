/* compat_level - formats in which each weight is rounded by itself: uneven levels (IQ4), few levels (TQ, Q1_0, Q2_0), four-bit floats. See compat.h. */
#include <math.h>
#include "ggml-like/formats/formats.h"
#include "quant/compat.h"

static float magnitude(const float *x, int n)
{
    float top = 0.0f;
    for (int i = 0; i < n; i++) top = compat_max(top, fabsf(x[i]));
    return top;
}

/* ---- IQ4: 16 uneven levels, rising ---- */

static int nearest_level(float v)
{
    int lo = 0, hi = 15;
    if (v <= (float)iq4_levels[lo]) return lo;
    if (v >= (float)iq4_levels[hi]) return hi;
    while (hi - lo > 1) { /* NaN: 15 */
        int mid = (lo + hi) / 2;
        if (v < (float)iq4_levels[mid]) hi = mid;
        else lo = mid;
    }
    return v - (float)iq4_levels[hi - 1] < (float)iq4_levels[hi] - v ? hi - 1 : hi;
}

/* Sums for the levels that x has at one inverse scale; what least squares and its gain are made of. */
static void level_sums(const float *x, const float *w, float inverse, float *xq, float *qq)
{
    *xq = *qq = 0.0f;
    for (int i = 0; i < 32; i++) {
        float q = (float)iq4_levels[nearest_level(inverse * x[i])];
        *xq += w[i] * q * x[i];
        *qq += w[i] * q * q;
    }
}

static float iq4_scale(const float *x, const float *w)
{
    enum { TRIALS = 7 };
    const float first = (float)iq4_levels[0];
    float top = 0.0f, largest = 0.0f, xq, qq;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > top) top = fabsf(x[i]), largest = x[i];
    if (top < 1e-15f) return 0.0f;
    float d = -largest / first;
    level_sums(x, w, 1.0f / d, &xq, &qq);
    d = qq > 0.0f ? xq / qq : 0.0f;
    float best = d * xq;
    for (int k = -TRIALS; k <= TRIALS; k++) {
        level_sums(x, w, ((float)k + first) / largest, &xq, &qq);
        if (qq > 0.0f && xq * xq > best * qq) d = xq / qq, best = d * xq;
    }
    return d;
}

static void iq4_codes(const float *x, float scale, uint16_t *q)
{
    float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    for (int i = 0; i < 32; i++) q[i] = (uint16_t)nearest_level(inverse * x[i]);
}

static void iq4_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p)
{
    int n = f->id == GGUF_IQ4_XS ? 8 : 1;
    float w[32], scale[8], largest = 0.0f, mean2 = compat_sum2(in->x, 32 * n) * (2.0f / (float)(32 * n));
    for (int g = 0; g < n; g++) {
        const float *x = in->x + 32 * g;
        if (in->w) compat_weights(x, in->w + 32 * g, mean2, 32, w);
        else
            for (int i = 0; i < 32; i++) w[i] = x[i] * x[i];
        scale[g] = iq4_scale(x, w);
        if (fabsf(scale[g]) > fabsf(largest)) largest = scale[g];
    }
    if (n == 1) {
        p->d = f32_to_f16(scale[0]);
        iq4_codes(in->x, scale[0], p->q);
        return;
    }
    float d = -largest / 32.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
    p->d = f32_to_f16(d);
    for (int g = 0; g < n; g++) {
        int code = compat_clamp(compat_nearest(inverse * scale[g]), -32, 31);
        p->sc[g] = (uint8_t)(code + 32);
        iq4_codes(in->x + 32 * g, d * (float)code, p->q + 32 * g); /* by d before it became a half float */
    }
}

/* ---- one scale, plain rounding; ties away from zero ---- */

static void ternary_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p)
{
    float d = magnitude(in->x, 256), inverse = d != 0.0f ? 1.0f / d : 0.0f;
    p->d = f32_to_f16(d);
    for (int i = 0; i < 256; i++) {
        float v = roundf(in->x[i] * inverse);
        p->q[i] = (uint16_t)(v >= -1.0f && v <= 1.0f ? (int)v + 1 : 1); /* others: the inverse is infinite */
    }
}

static void q2_0_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p)
{
    float d = magnitude(in->x, 64), inverse = d > 0.0f ? 1.0f / d : 0.0f;
    p->d = f32_to_f16(d);
    for (int i = 0; i < 64; i++) p->q[i] = (uint16_t)compat_clamp(compat_trunc(roundf(in->x[i] * inverse)), -1, 2) + 1;
}

static void q1_0_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p)
{
    float sum = 0.0f;
    for (int i = 0; i < 128; i++) sum += fabsf(in->x[i]);
    p->d = f32_to_f16(sum / 128.0f);
    for (int i = 0; i < 128; i++) p->q[i] = in->x[i] >= 0.0f;
}

/* ---- e2m1 under a small float ---- */

/* The first of the nearest: both zeros have the level 0. */
static int nearest_e2m1(float x, float scale)
{
    int best = 0;
    float least = fabsf((float)e2m1_levels[0] * scale - x);
    for (int i = 1; i < 16; i++) {
        float d = fabsf((float)e2m1_levels[i] * scale - x);
        if (d < least) least = d, best = i;
    }
    return best;
}

/* The scale of group g, by which the doubled levels are multiplied, is what the format itself makes of its code. */
static void e2m1_codes(const struct dtype *t, struct parts *p, const float *x)
{
    uint8_t block[64];
    struct codes c;
    t->join(p, block);
    t->unpack(block, &c);
    for (int i = 0; i < t->block_len; i++) p->q[i] = (uint16_t)nearest_e2m1(x[i], c.scale[i / t->group_len]);
}

/* floor(log2f(v)), v > 0, for a logarithm that is rounded to the nearest float, as every C library's is here: so close below a power of two it
 * rounds up to the exponent of that power. In units of the 24th bit of v that is up to ln 2 times 2^e, where 2^e .. 2^(e + 1) holds |log2 v|. */
static int floor_log2f(float v)
{
    static const uint8_t close[8] = { 0, 1, 2, 5, 11, 22, 44, 88 };
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    int exponent = (int)(bits >> 23) - 127, next;
    uint32_t mantissa = (bits & 0x7fffff) | 0x800000;
    if (bits < 0x800000) { /* denormal */
        int shift = __builtin_clz(bits) - 8;
        mantissa = bits << shift, exponent = -126 - shift;
    }
    next = exponent + 1;
    uint32_t size = next > 0 ? (uint32_t)next - 1 : (uint32_t)-next; /* floor of |log2 v| */
    if (size > 0 && 0x1000000 - mantissa <= close[31 - __builtin_clz(size)]) return next;
    return exponent;
}

static void mxfp4_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p)
{
    float top = magnitude(in->x, 32);
    p->d = top > 0.0f ? (uint8_t)(floor_log2f(top) - 2 + 127) : 0; /* tiny magnitudes: the exponent wraps */
    e2m1_codes(&dtype_mxfp4, p, in->x);
}

/* f32 to unsigned e4m3, half up; above 448: 448 */
static uint8_t ue4m3(float x)
{
    uint32_t bits;
    if (!(x > 0.0f)) return 0;
    if (x > 448.0f) x = 448.0f;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 23) - 127 + 7, mantissa = (int)((bits >> 20 & 7) + (bits >> 19 & 1));
    if (exponent <= 0) return (uint8_t)compat_clamp((int)(x * 512.0f + 0.5f), 0, 7);
    int code = (exponent << 3) + mantissa; /* a carry goes into the exponent */
    return (uint8_t)(code < 0x78 ? code : 0x7e);
}

static void nvfp4_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p)
{
    for (int g = 0; g < 4; g++) p->sc[g] = ue4m3(magnitude(in->x + 16 * g, 16) / 6.0f);
    e2m1_codes(&dtype_nvfp4, p, in->x);
}

/* Q8_0 takes no notice of importance and is dtype.pack always. */
const struct compat_format compat_uneven[] = {
    { GGUF_IQ4_NL, iq4_block }, { GGUF_IQ4_XS, iq4_block },   { GGUF_TQ1_0, ternary_block }, { GGUF_TQ2_0, ternary_block },
    { GGUF_Q1_0, q1_0_block },  { GGUF_Q2_0, q2_0_block },    { GGUF_MXFP4, mxfp4_block },   { GGUF_NVFP4, nvfp4_block },
    { -1, NULL },
};

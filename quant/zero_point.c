/* zero_point - asymmetric rounding: scale = (hi - lo) / (2^bits - 1), zero = round(-lo / scale), y = scale * (q - zero).
 * 4 bits are written as Q4_1 (w = d q + m) with m = -d * zero exact: a half float has 11 significant bits, so d keeps 11 less those of
 * zero's odd part (7 at worst, a step at most 0.4 % off). 8 bits: no GGUF format has 8-bit codes and an offset. The values are written as
 * F32, exactly: scale keeps 16 significant bits and q - zero has 8. F16 would need a scale of 3 bits, BF16 a power of two: a step up to a
 * quarter too wide, another technique. The file does not shrink; this is for measuring what the technique does. Source: Jacob et al. 2018
 * (integer-arithmetic-only inference), section 2.1. */
#include "ggml-like/formats/formats.h"
#include "quant/techniques.h"
#include <math.h>
#include <string.h>

/* x > 0 with `bits` significant bits, to nearest; at least 2^-24, the smallest half. */
static float keep_bits(float x, int bits)
{
    int e;
    float m = frexpf(x, &e);
    if (e - bits < -24) bits = e + 24;
    return bits < 1 ? 0x1p-24f : ldexpf(nearbyintf(ldexpf(m, bits)), e - bits);
}

static int odd_bits(int z)
{
    int n = 0;
    while (z && z % 2 == 0) z /= 2;
    for (; z; z /= 2) n++;
    return n;
}

struct affine zero_point_fit(float lo, float hi, int bits)
{
    struct affine a = { .q_lo = 0, .q_hi = bits == 8 ? 255 : 15 };
    lo = fminf(lo, 0.0f), hi = fmaxf(hi, 0.0f);
    float steps = (float)a.q_hi, s = hi / steps - lo / steps;
    if (!(s > 0.0f)) return a;
    float z = -lo / s;
    a.zero = (int)nearbyintf(fminf(z, steps));
    if (bits == 8) {
        int e;
        float m = frexpf(fmaxf(s, 0x1p-126f), &e);
        a.scale = ldexpf(nearbyintf(ldexpf(m, 16)), e - 16);
        return a;
    }
    /* 4352 * 15 is the largest product of this kind that a half holds. */
    a.scale = fminf(keep_bits(s, 11 - odd_bits(a.zero)), 4352.0f);
    if (a.scale > s * 1.25f) a.zero = (int)nearbyintf(fminf(-lo / a.scale, steps)); /* weights around the smallest half */
    return a;
}

static const struct dtype *target(const struct quant_spec *s, struct err *e)
{
    if (technique_check(s, "zero-point", e) != OK) return NULL;
    return s->bits == 8 ? &dtype_f32 : &dtype_q4_1;
}

static void write_floats(const struct affine *a, const float *x, int64_t n, void *dst)
{
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i++) {
        float y = affine_value(a, affine_code(a, x[i]));
        memcpy(out + (size_t)i * sizeof y, &y, sizeof y);
    }
}

static void write_blocks(const struct affine *a, const float *x, int64_t n, void *dst)
{
    struct parts p = { .d = f32_to_f16(a->scale), .dmin = f32_to_f16(-a->scale * (float)a->zero) };
    uint8_t *block = dst;
    for (int64_t i = 0; i < n; i += 32, block += dtype_q4_1.block_bytes) {
        for (int j = 0; j < 32; j++) p.q[j] = (uint16_t)affine_code(a, x[i + j]);
        dtype_q4_1.join(&p, block);
    }
}

static void rows(const struct quant_spec *s, const struct quant_kernels *k, float lo, float hi, const float *x, const float *w,
                 int64_t n_rows, int64_t n, void *dst, void *scratch)
{
    bool wide = s->bits == 8;
    technique_spans(s, zero_point_fit, wide ? write_floats : write_blocks, lo, hi, x, n_rows, n, wide ? &dtype_f32 : &dtype_q4_1, dst);
}

const struct quantizer quantizer_zero_point = {
    .name = "zero-point",
    .brief = "asymmetric rounding: scale = (hi - lo) / 255 or / 15, with a zero-point; 8 bits are stored as F32 values",
    .needs_range = true,
    .target = target,
    .rows = rows,
};

/* absmax - symmetric rounding with one scale per tensor, row or group: scale = max |x| / (2^(bits-1) - 1).
 * The textbook's restricted range: codes -127..127 and -7..7, the code -8 is not used, so that +max and -max both are exact up to the
 * rounding of the scale. 8 bits are written as Q8_0, 4 bits as Q4_0: blocks of 32 repeat the scale of their group, which is a half float.
 * Source: Dettmers et al. 2022 (LLM.int8()), section 2. */
#include "ggml-like/formats/formats.h"
#include "quant/techniques.h"
#include <math.h>

struct affine absmax_fit(float lo, float hi, int bits)
{
    struct affine a = { .q_lo = bits == 8 ? -127 : -7, .q_hi = bits == 8 ? 127 : 7 };
    float top = fmaxf(fabsf(lo), fabsf(hi)), d = fminf(top / (float)a.q_hi, 65504.0f);
    uint16_t h = f32_to_f16(d);
    /* Far below the normal halves rounding down would cut the largest weight: take the next half. */
    if (f16_to_f32(h) * ((float)a.q_hi + 0.5f) < top && h < 0x7bff) h++;
    a.scale = top > 0.0f ? f16_to_f32(h) : 0.0f;
    return a;
}

static const struct dtype *target(const struct quant_spec *s, struct err *e)
{
    if (technique_check(s, "absmax", e) != OK) return NULL;
    return s->bits == 8 ? &dtype_q8_0 : &dtype_q4_0;
}

static void write_blocks(const struct affine *a, const float *x, int64_t n, void *dst)
{
    const struct dtype *t = a->q_hi == 127 ? &dtype_q8_0 : &dtype_q4_0;
    int offset = a->q_hi == 127 ? 0 : 8;
    struct parts p = { .d = f32_to_f16(a->scale) };
    uint8_t *block = dst;
    for (int64_t i = 0; i < n; i += 32, block += t->block_bytes) {
        for (int j = 0; j < 32; j++) p.q[j] = (uint8_t)(affine_code(a, x[i + j]) + offset);
        t->join(&p, block);
    }
}

static void rows(const struct quant_spec *s, const struct quant_kernels *k, float lo, float hi, const float *x, const float *w,
                 int64_t n_rows, int64_t n, void *dst, void *scratch)
{
    technique_spans(s, absmax_fit, write_blocks, lo, hi, x, n_rows, n, s->bits == 8 ? &dtype_q8_0 : &dtype_q4_0, dst);
}

const struct quantizer quantizer_absmax = {
    .name = "absmax",
    .brief = "symmetric rounding: scale = max |x| / 127 or / 7",
    .needs_range = true,
    .target = target,
    .rows = rows,
};

/* arch: aarch64  cflags: -march=armv8-a -fno-schedule-insns -Wno-ignored-optimization-argument */
/* isa_neon_rowdot - one file row times one token for the base architecture: codes are widened to int16. And quant_row. */
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/neon_formats.h"
#include <assert.h>

INLINE int32x4_t add16(int32x4_t s, int8x16_t c, const int16_t *y)
{
    int16x8_t low = vmovl_s8(vget_low_s8(c)), high = vmovl_high_s8(c), y0 = vld1q_s16(y), y1 = vld1q_s16(y + 8);
    s = vmlal_high_s16(vmlal_s16(s, vget_low_s16(low), vget_low_s16(y0)), low, y0);
    return vmlal_high_s16(vmlal_s16(s, vget_low_s16(high), vget_low_s16(y1)), high, y1);
}
INLINE int32x4_t dot16(int8x16_t c, const struct act_row *x, int at) { return add16(vdupq_n_s32(0), c, x->y + at); }
INLINE int32x4_t dot32(struct codes32 c, const struct act_row *x, int at) { return add16(dot16(c.low, x, at), c.high, x->y + at + 16); }

#include "ggml-like/kernels/neon_rowdot_tmpl.h"

/* ---- activations ---- */

/* NaN becomes lo */
INLINE int32x4_t round_clamped(float32x4_t v, float limit)
{
    return vcvtnq_s32_f32(vminnmq_f32(vmaxnmq_f32(v, vdupq_n_f32(-limit)), vdupq_n_f32(limit)));
}

static void quant_row(struct act_row *row, const float *x, int64_t k)
{
    assert(k % 32 == 0);
    row->k = k;
    float magnitude = 0.0f;
    for (int64_t b = 0; b < k / 32; b++, x += 32) {
        float32x4_t v[8], top = vdupq_n_f32(0.0f);
        if (b * 32 % ACT_ROW_SPAN == 0) {
            for (int64_t i = 0; i < min_i64(ACT_ROW_SPAN, k - b * 32); i += 4) {
                float32x4_t size = vabsq_f32(vld1q_f32(x + i));
                uint32x4_t finite = vcltq_f32(size, vdupq_n_f32(__builtin_inff()));
                top = vmaxq_f32(top, vreinterpretq_f32_u32(vandq_u32(finite, vreinterpretq_u32_f32(size))));
            }
            magnitude = vmaxvq_f32(top);
        }
        UNROLL
        for (int i = 0; i < 8; i++) v[i] = vld1q_f32(x + 4 * i);
        bool flat = !(magnitude >= ACT_RANGE_MIN);
        float inv = flat ? 0.0f : ACT_ROW_MAX / magnitude, d = row->d[b] = flat ? 0.0f : magnitude / ACT_ROW_MAX;
        UNROLL
        for (int h = 0; h < 2; h++) {
            int16x8_t q[2];
            UNROLL
            for (int i = 0; i < 2; i++) {
                int32x4_t low = round_clamped(vmulq_n_f32(v[4 * h + 2 * i], inv), ACT_ROW_MAX);
                int32x4_t high = round_clamped(vmulq_n_f32(v[4 * h + 2 * i + 1], inv), ACT_ROW_MAX);
                q[i] = vcombine_s16(vmovn_s32(low), vmovn_s32(high));
                vst1q_s16(row->y + 32 * b + 16 * h + 8 * i, q[i]);
                vst1_s8(row->lo + 32 * b + 16 * h + 8 * i, vmovn_s16(q[i]));
                vst1_s8(row->hi + 32 * b + 16 * h + 8 * i, vshrn_n_s16(vaddq_s16(q[i], vdupq_n_s16(128)), 8));
            }
            int32_t sum = vaddvq_s32(vaddq_s32(vpaddlq_s16(q[0]), vpaddlq_s16(q[1])));
            row->sum[2 * b + h] = sum, row->sum16[2 * b + h] = d * (float)sum;
        }
        row->sum32[b] = d * (float)(row->sum[2 * b] + row->sum[2 * b + 1]);
    }
}

/* ---- floats ---- */

/* 4 weights at w */
INLINE float32x4_t load_f32(const uint8_t *w) { return vld1q_f32((const void *)w); }
INLINE float32x4_t load_f16(const uint8_t *w) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(w))); }
INLINE float32x4_t load_bf16(const uint8_t *w) { return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(w)), 16)); }

INLINE float rowdot_float(const uint8_t *w, const float *x, int64_t k, int64_t bytes, float32x4_t (*load)(const uint8_t *), const struct dtype *t)
{
    float32x4_t sum[8];
    UNROLL
    for (int i = 0; i < 8; i++) sum[i] = vdupq_n_f32(0.0f);
    for (; k >= 32; k -= 32, w += 32 * bytes, x += 32) {
        UNROLL
        for (int i = 0; i < 8; i++) sum[i] = vfmaq_f32(sum[i], load(w + 4 * i * bytes), vld1q_f32(x + 4 * i));
    }
    for (; k >= 4; k -= 4, w += 4 * bytes, x += 4) sum[0] = vfmaq_f32(sum[0], load(w), vld1q_f32(x));
    for (int n = 4; n > 0; n /= 2)
        for (int i = 0; i < n; i++) sum[i] = vaddq_f32(sum[i], sum[i + n]);
    float y = vaddvq_f32(sum[0]), rest[4];
    t->to_f32(w, rest, k);
    for (int64_t i = 0; i < k; i++) y += rest[i] * x[i];
    return y;
}

#define FLOAT(name, bytes)                                                                        \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                 \
    {                                                                                             \
        return rowdot_float(w, x->f32, k, bytes, load_##name, &dtype_##name);                     \
    }
FLOAT(f32, 4)
FLOAT(f16, 2)
FLOAT(bf16, 2)

void kernels_init_neon_rowdot(struct kernels *k)
{
    set_rowdot_slots(k);
    k->quant_row = quant_row;
    k->rowdot[GGUF_F32] = rowdot_f32;
    k->rowdot[GGUF_F16] = rowdot_f16;
    k->rowdot[GGUF_BF16] = rowdot_bf16;
}

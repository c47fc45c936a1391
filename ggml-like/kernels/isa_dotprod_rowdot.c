/* arch: aarch64  cflags: -march=armv8.2-a+dotprod -fno-schedule-insns -Wno-ignored-optimization-argument */
/* isa_dotprod_rowdot - row-dots over dot products of signed bytes: 256 times those of the high bytes of the activations, plus the low ones. */
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/neon_formats.h"

INLINE int32x4_t dot16(int8x16_t c, const struct act_row *x, int at)
{
    int32x4_t high = vdotq_s32(vdupq_n_s32(0), c, vld1q_s8(x->hi + at));
    return vdotq_s32(vshlq_n_s32(high, 8), c, vld1q_s8(x->lo + at));
}
INLINE int32x4_t dot32(struct codes32 c, const struct act_row *x, int at)
{
    int32x4_t high = vdotq_s32(vdotq_s32(vdupq_n_s32(0), c.low, vld1q_s8(x->hi + at)), c.high, vld1q_s8(x->hi + at + 16));
    return vdotq_s32(vdotq_s32(vshlq_n_s32(high, 8), c.low, vld1q_s8(x->lo + at)), c.high, vld1q_s8(x->lo + at + 16));
}

#include "ggml-like/kernels/neon_rowdot_tmpl.h"

void kernels_init_dotprod_rowdot(struct kernels *k) { set_rowdot_slots(k); }

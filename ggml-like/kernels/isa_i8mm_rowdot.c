/* arch: aarch64  cflags: -march=armv8.2-a+dotprod+i8mm */
/* isa_i8mm_rowdot - row-dots of the level dotprod with usdot: no code needs to be lifted, and bytes take two products like the others. */
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/neon_formats.h"

#define DOT_BIAS(kind) 0

INLINE int32x4_t dot16(int8x16_t c, const int16_t *y, enum code_kind kind)
{
    uint8x16x2_t v = vld2q_u8((const void *)y);
    int32x4_t high = vdotq_s32(vdupq_n_s32(0), c, vreinterpretq_s8_u8(v.val[1]));
    return vusdotq_s32(vshlq_n_s32(high, 8), v.val[0], c);
}
INLINE int32x4_t dot32(struct codes32 c, const int16_t *y, enum code_kind kind)
{
    uint8x16x2_t v = vld2q_u8((const void *)y), u = vld2q_u8((const void *)(y + 16));
    int32x4_t high = vdotq_s32(vdupq_n_s32(0), c.low, vreinterpretq_s8_u8(v.val[1]));
    high = vshlq_n_s32(vdotq_s32(high, c.high, vreinterpretq_s8_u8(u.val[1])), 8);
    return vusdotq_s32(vusdotq_s32(high, v.val[0], c.low), u.val[0], c.high);
}

#include "ggml-like/kernels/neon_rowdot_tmpl.h"

void kernels_init_i8mm_rowdot(struct kernels *k) { set_rowdot_slots(k); }

/* arch: aarch64  cflags: -march=armv8.2-a+dotprod */
/* isa_dotprod_rowdot - row-dots over dot products of bytes. y = 256 h + l, h signed, l unsigned: ld2 gives a register of each. Codes of
 * 0..127 are signed and unsigned bytes at once and meet both; small codes are lifted into that range; bytes take one product more. */
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/neon_formats.h"

#define DOT_BIAS(kind) ((kind) == CODES_SMALL ? 64 : 0)

struct planes { uint8x16_t low; int8x16_t high; };
INLINE struct planes planes(const int16_t *y)
{
    uint8x16x2_t v = vld2q_u8((const void *)y);
    return (struct planes){ v.val[0], vreinterpretq_s8_u8(v.val[1]) };
}

/* n (1 or 2) times 16 weights: (h << 8) + l; for bytes, with l - 128: ((h << 1) + sum of codes) << 7) + l */
INLINE int32x4_t dot_planes(const int8x16_t *c, const struct planes *p, int n, enum code_kind kind)
{
    int32x4_t s = vdupq_n_s32(0);
    UNROLL
    for (int i = 0; i < n; i++) s = vdotq_s32(s, c[i], p[i].high);
    if (kind != CODES_BYTES) {
        uint32x4_t u = vreinterpretq_u32_s32(vshlq_n_s32(s, 8));
        UNROLL
        for (int i = 0; i < n; i++) u = vdotq_u32(u, vreinterpretq_u8_s8(c[i]), p[i].low);
        return vreinterpretq_s32_u32(u);
    }
    s = vshlq_n_s32(s, 1);
    UNROLL
    for (int i = 0; i < n; i++) s = vdotq_s32(s, c[i], vdupq_n_s8(1));
    s = vshlq_n_s32(s, 7);
    UNROLL
    for (int i = 0; i < n; i++) s = vdotq_s32(s, c[i], vreinterpretq_s8_u8(veorq_u8(p[i].low, all_u8(128))));
    return s;
}

INLINE int32x4_t dot16(int8x16_t c, const int16_t *y, enum code_kind kind)
{
    struct planes p = planes(y);
    return dot_planes(&c, &p, 1, kind);
}
INLINE int32x4_t dot32(struct codes32 c, const int16_t *y, enum code_kind kind)
{
    int8x16_t v[2] = { c.low, c.high };
    struct planes p[2] = { planes(y), planes(y + 16) };
    return dot_planes(v, p, 2, kind);
}

#include "ggml-like/kernels/neon_rowdot_tmpl.h"

void kernels_init_dotprod_rowdot(struct kernels *k) { set_rowdot_slots(k); }

/* arch: aarch64  cflags: -march=armv8-a -fno-schedule-insns -Wno-ignored-optimization-argument */
/* isa_neon_tile - the int8 tile for the base architecture: activations - 128 (never below -127) by codes, chained in int16. Four products
 * of codes up to 6 bits, and the sum of two such chains, stay below 2^15 (8 * 32 * 127 = 32512); of 8-bit codes two products do. */
#include "ggml-like/kernels/neon.h"

#define A_BIAS 128

/* lanes of a chain: four columns of two rows */
struct chain { int16x8_t low, high; };

/* c[r] = 4 * steps columns of rows 4r .. 4r + 3 by one token */
INLINE void chain_dots(struct chain c[2], const int8_t *w, const uint8_t *a, int steps)
{
    UNROLL
    for (int i = 0; i < steps; i++) {
        uint32x4_t four = vld1q_dup_u32((const void *)(a + 4 * NT * i));
        int8x16_t x = vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u32(four), all_u8(128)));
        UNROLL
        for (int r = 0; r < 2; r++) {
            int8x16_t v = vld1q_s8(w + 64 * i + 16 * r);
            c[r].low = i ? vmlal_s8(c[r].low, vget_low_s8(v), vget_low_s8(x)) : vmull_s8(vget_low_s8(v), vget_low_s8(x));
            c[r].high = i ? vmlal_high_s8(c[r].high, v, x) : vmull_high_s8(v, x);
        }
    }
}

INLINE void group_dot(int32x4_t dot[2][NT], const int32x4_t first[2], const int8_t *w, const uint8_t *a, bool wide, int nt)
{
    UNROLL
    for (int t = 0; t < nt; t++, a += 4) {
        struct chain c[2], d[2];
        chain_dots(c, w, a, wide ? 2 : 4);
        if (wide) chain_dots(d, w + 128, a + 8 * NT, 2);
        UNROLL
        for (int r = 0; r < 2; r++)
            if (wide) {
                int32x4_t low = vpadalq_s16(vpaddlq_s16(c[r].low), d[r].low), high = vpadalq_s16(vpaddlq_s16(c[r].high), d[r].high);
                dot[r][t] = vaddq_s32(first[r], vpaddq_s32(low, high));
            } else {
                dot[r][t] = vpadalq_s16(first[r], vpaddq_s16(c[r].low, c[r].high));
            }
    }
}

#include "ggml-like/kernels/neon_tile_tmpl.h"

void kernels_init_neon_tile(struct kernels *k) { k->tile_planes = tile_planes; }

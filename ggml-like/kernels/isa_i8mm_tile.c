/* arch: aarch64  cflags: -march=armv8.2-a+dotprod+i8mm -fno-schedule-insns -Wno-ignored-optimization-argument */
/* isa_i8mm_tile - the int8 tile over sudot by element: signed codes by unsigned activations. */
#include "ggml-like/kernels/neon.h"

#define A_BIAS 0

INLINE int32x4_t dot_lane(int32x4_t s, int8x16_t w, uint8x16_t a, int t) { return WITH_LANE(vsudotq_laneq_s32, s, w, a); }

INLINE void group_dot(int32x4_t dot[2][NT], const int32x4_t first[2], const int8_t *w, const uint8_t *a, bool wide, int nt)
{
    UNROLL
    for (int i = 0; i < 4; i++, w += 64, a += 4 * NT) {
        int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        uint8x16_t x = vld1q_u8(a);
        UNROLL
        for (int t = 0; t < nt; t++) {
            dot[0][t] = dot_lane(i ? dot[0][t] : first[0], w0, x, t);
            dot[1][t] = dot_lane(i ? dot[1][t] : first[1], w1, x, t);
        }
    }
}

#include "ggml-like/kernels/neon_tile_tmpl.h"

void kernels_init_i8mm_tile(struct kernels *k) { k->tile_planes = tile_planes; }

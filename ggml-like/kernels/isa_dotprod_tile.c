/* arch: aarch64  cflags: -march=armv8.2-a+dotprod -fno-schedule-insns -Wno-ignored-optimization-argument */
/* isa_dotprod_tile - the int8 tile over sdot by element: activations - 128 are signed bytes, and the dots begin at 128 times the
 * sums of the codes. */
#include "ggml-like/kernels/neon.h"

#define A_BIAS 128

INLINE int32x4_t dot_lane(int32x4_t s, int8x16_t w, int8x16_t a, int t) { return WITH_LANE(vdotq_laneq_s32, s, w, a); }

INLINE void group_dot(int32x4_t dot[2][NT], const int32x4_t first[2], const int8_t *w, const uint8_t *a, bool wide, int nt)
{
    UNROLL
    for (int i = 0; i < 4; i++, w += 64, a += 4 * NT) {
        int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16), x = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(a), all_u8(128)));
        UNROLL
        for (int t = 0; t < nt; t++) {
            dot[0][t] = dot_lane(i ? dot[0][t] : first[0], w0, x, t);
            dot[1][t] = dot_lane(i ? dot[1][t] : first[1], w1, x, t);
        }
    }
}

#include "ggml-like/kernels/neon_tile_tmpl.h"

void kernels_init_dotprod_tile(struct kernels *k) { k->tile_planes = tile_planes; }

/* neon - what the files of the aarch64 levels share. */
#pragma once
#include "ggml-like/kernels/bytes.h"
#include "ggml-like/kernels/levels.h"
#include <arm_neon.h>

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { NT = 4 }; /* tokens in a tile */

/* Unpacks a chunk of whole blocks, `weights` in all, to the codes from number `at` on and their scales and mins (isa_neon_unpack.c).
 * fn NULL: the format has none. */
struct neon_unpack {
    int weights;
    void (*fn)(const uint8_t *w, int at, struct codes *out);
};
extern const struct neon_unpack neon_unpack[DTYPE_IDS];

/* What tiles that take activations 128 too low begin with: 128 times the sums of the codes, int32 [nk/16][16], in the memory of a panel behind
 * its planes, of which it leaves more than half unused. The float sum of such a correction and what it corrects would lose bits where the
 * activations have an outlier. */
INLINE int32_t *code_sums(const struct panel *p) { return (int32_t *)(void *)(p->min + (p->min - p->csum)); }

INLINE uint8x16_t all_u8(uint8_t v) { return vdupq_n_u8(v); }

/* products with one lane: t is a constant, but not what clang takes for a literal */
#define WITH_LANE(f, ...) (t == 0 ? f(__VA_ARGS__, 0) : t == 1 ? f(__VA_ARGS__, 1) : t == 2 ? f(__VA_ARGS__, 2) : f(__VA_ARGS__, 3))
INLINE float32x4_t mul_lane(float32x4_t a, float32x4_t x, int t) { return WITH_LANE(vmulq_laneq_f32, a, x); }
INLINE float32x4_t fma_lane(float32x4_t s, float32x4_t a, float32x4_t x, int t) { return WITH_LANE(vfmaq_laneq_f32, s, a, x); }

/* x[i] = lane i of all, and the same for four bytes in place of a float */
INLINE void transpose4(float32x4_t x[4])
{
    float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(x[0], x[1])), b = vreinterpretq_f64_f32(vtrn2q_f32(x[0], x[1]));
    float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(x[2], x[3])), d = vreinterpretq_f64_f32(vtrn2q_f32(x[2], x[3]));
    x[0] = vreinterpretq_f32_f64(vzip1q_f64(a, c)), x[1] = vreinterpretq_f32_f64(vzip1q_f64(b, d));
    x[2] = vreinterpretq_f32_f64(vzip2q_f64(a, c)), x[3] = vreinterpretq_f32_f64(vzip2q_f64(b, d));
}
INLINE void transpose4_bytes(uint8x16_t x[4])
{
    float32x4_t f[4];
    UNROLL
    for (int i = 0; i < 4; i++) f[i] = vreinterpretq_f32_u8(x[i]);
    transpose4(f);
    UNROLL
    for (int i = 0; i < 4; i++) x[i] = vreinterpretq_u8_f32(f[i]);
}

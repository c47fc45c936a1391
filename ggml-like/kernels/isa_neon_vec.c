/* arch: aarch64  cflags: -march=armv8-a */
/* isa_neon_vec - the vector and attention slots for the base architecture (ASIMD, ARMv8.0): primitives here, bodies in the templates. */
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/neon.h"
#include <stdint.h>
#include <string.h>

enum { LANES = 4 };
typedef float32x4_t vf;
typedef struct {
    float64x2_t a, b;
} vd2;

static inline vf v_zero(void) { return vdupq_n_f32(0.0f); }
static inline vf v_set(float x) { return vdupq_n_f32(x); }
static inline vf v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vf x) { vst1q_f32(p, x); }

static inline vf v_load_n(const float *p, int n)
{
    vf x = vsetq_lane_f32(p[0], v_zero(), 0);
    if (n > 1) x = vsetq_lane_f32(p[1], x, 1);
    if (n > 2) x = vsetq_lane_f32(p[2], x, 2);
    return x;
}
static inline void v_store_n(float *p, int n, vf x)
{
    p[0] = vgetq_lane_f32(x, 0);
    if (n > 1) p[1] = vgetq_lane_f32(x, 1);
    if (n > 2) p[2] = vgetq_lane_f32(x, 2);
}

static inline vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf v_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
/* not fmin and fmax: those give NaN if either is NaN, these b */
static inline vf v_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf v_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf v_abs(vf x) { return vabsq_f32(x); }
static inline vf v_round(vf x) { return vrndaq_f32(x); }
static inline vf v_keep_ge(vf x, vf y, vf lo) { return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), vcltq_f32(y, lo))); }
static inline vf v_pow2(vf t) { return vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(t), 23)); }
static inline float v_top(vf x) { return vmaxnmvq_f32(x); }

/* lanes 0 + 2 and 1 + 3 of a, then of b */
static inline vf fold_halves(vf a, vf b)
{
    float64x2_t x = vreinterpretq_f64_f32(a), y = vreinterpretq_f64_f32(b);
    return v_add(vreinterpretq_f32_f64(vzip1q_f64(x, y)), vreinterpretq_f32_f64(vzip2q_f64(x, y)));
}
static inline vf v_sums(const vf x[4]) { return vpaddq_f32(fold_halves(x[0], x[1]), fold_halves(x[2], x[3])); }
static inline float v_sum(vf x)
{
    float32x2_t s = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
}

static inline void v_transpose(vf x[4]) { transpose4(x); }

static inline void v_load2(const float *p, vf *even, vf *odd)
{
    float32x4x2_t v = vld2q_f32(p);
    *even = v.val[0];
    *odd = v.val[1];
}
static inline void v_store2(float *p, vf even, vf odd)
{
    float32x4x2_t v = { { even, odd } };
    vst2q_f32(p, v);
}

static inline vf v_set_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_dup_u16(p))); }
static inline vf v_load_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
static inline void v_store_f16(void *p, vf x) { vst1_u8(p, vreinterpret_u8_f16(vcvt_f16_f32(x))); }
static inline vf v_load_bf16(const void *p) { return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16)); }

static inline void v_store_bf16(void *p, vf x)
{
    uint32x4_t u = vreinterpretq_u32_f32(x), top = vshrq_n_u32(u, 16);
    uint32x4_t r = vshrq_n_u32(vaddq_u32(u, vaddq_u32(vandq_u32(top, vdupq_n_u32(1)), vdupq_n_u32(0x7fff))), 16);
    r = vbslq_u32(vceqq_f32(x, x), r, vorrq_u32(top, vdupq_n_u32(0x40)));
    vst1_u8(p, vreinterpret_u8_u16(vmovn_u32(r)));
}

static inline vf v_load_i8(const void *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four)))));
}
static inline void v_store_i8(void *p, vf x)
{
    int16x4_t w = vqmovn_s32(vcvtq_s32_f32(x));
    uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vqmovn_s16(vcombine_s16(w, w))), 0);
    memcpy(p, &four, sizeof four);
}

static inline vd2 vd2_zero(void) { return (vd2){ vdupq_n_f64(0.0), vdupq_n_f64(0.0) }; }
static inline float64x2_t low_pd(vf x) { return vcvt_f64_f32(vget_low_f32(x)); }
static inline vd2 vd2_join(vd2 s, vd2 t) { return (vd2){ vaddq_f64(s.a, t.a), vaddq_f64(s.b, t.b) }; }
static inline vd2 vd2_add(vd2 s, vf x) { return vd2_join(s, (vd2){ low_pd(x), vcvt_high_f64_f32(x) }); }
static inline vd2 vd2_add_sq(vd2 s, vf x)
{
    float64x2_t lo = low_pd(x), hi = vcvt_high_f64_f32(x);
    return (vd2){ vfmaq_f64(s.a, lo, lo), vfmaq_f64(s.b, hi, hi) };
}
static inline double vd2_sum(vd2 s) { return vaddvq_f64(vaddq_f64(s.a, s.b)); }

#undef UNROLL
#include "ggml-like/kernels/vec_tmpl.h"
#include "ggml-like/kernels/attn_tmpl.h"

/* In integers nothing is gained: two multiplications of words widen into four sums each, as many as four floats take. */
static void attn(const struct kernels *k, const struct attn_args *a, void *scratch)
{
    attn_over(k, a, scratch, &(struct attn_side){ scale_query, logits, values_floats });
}

void kernels_init_neon_vec(struct kernels *k)
{
    set_vec_slots(k);
    k->attn = attn;
    k->attn_merge = attn_merge;
}

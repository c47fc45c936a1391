/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512_vec - the vector and attention slots for AVX-512: primitives here, bodies in the templates. */
#include "ggml-like/kernels/levels.h"
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16 };
typedef __m512 vf;
typedef struct {
    __m512d a, b;
} vd2;

static inline vf v_zero(void) { return _mm512_setzero_ps(); }
static inline vf v_set(float x) { return _mm512_set1_ps(x); }
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
static inline void v_store_n(float *p, int n, vf x) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x); }

static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_abs(vf x) { return _mm512_abs_ps(x); }
static inline vf v_keep_ge(vf x, vf y, vf lo) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, lo, _CMP_NLT_UQ), x); }
static inline vf v_pow2(vf t) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), 23)); }

/* the largest float below 0.5 instead of 0.5: then 0.49999997 does not reach 1 by rounding of the sum, and exact halves still do */
static inline vf v_round(vf x)
{
    vf half = _mm512_or_ps(_mm512_and_ps(x, v_set(-0.0f)), v_set(0.49999997f));
    return _mm512_roundscale_ps(v_add(x, half), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
}

static inline __m256 low_half(vf x) { return _mm512_castps512_ps256(x); }
static inline __m256 high_half(vf x) { return _mm512_extractf32x8_ps(x, 1); }

static inline float v_top(vf x)
{
    __m256 h = _mm256_max_ps(low_half(x), high_half(x));
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static inline float v_sum(vf x)
{
    __m256 h = _mm256_add_ps(low_half(x), high_half(x));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* Steps of v_sums; what is left of a and of b alternates in runs of 4, 2, 1 lanes. */
static inline vf fold_8(vf a, vf b) { return v_add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)); }
static inline vf fold_4(vf a, vf b) { return v_add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd)); }
static inline vf fold_2(vf a, vf b) { return v_add(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee)); }
static inline vf fold_1(vf a, vf b) { return v_add(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd)); }

/* fold_4(fold_8(a, b), fold_8(c, d)) holds four lanes each of a, b, c, d: with x[i], x[4 + i], x[8 + i], x[12 + i] lanes end in order */
static inline vf fold_four(const vf *x) { return fold_4(fold_8(x[0], x[4]), fold_8(x[8], x[12])); }
static inline vf v_sums(const vf x[16]) { return fold_1(fold_2(fold_four(x), fold_four(x + 1)), fold_2(fold_four(x + 2), fold_four(x + 3))); }

static inline __attribute__((always_inline)) void v_transpose(vf x[16])
{
    vf t[16], u[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) t[i] = _mm512_unpacklo_ps(x[i], x[i + 1]), t[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* u[i + c]: column c of each 128-bit lane, rows i..i + 3 */
        u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) { /* a 4 x 4 transposition of lanes */
        vf a = _mm512_shuffle_f32x4(u[c], u[c + 4], 0x88), b = _mm512_shuffle_f32x4(u[c + 8], u[c + 12], 0x88);
        vf d = _mm512_shuffle_f32x4(u[c], u[c + 4], 0xdd), e = _mm512_shuffle_f32x4(u[c + 8], u[c + 12], 0xdd);
        x[c] = _mm512_shuffle_f32x4(a, b, 0x88);
        x[c + 4] = _mm512_shuffle_f32x4(d, e, 0x88);
        x[c + 8] = _mm512_shuffle_f32x4(a, b, 0xdd);
        x[c + 12] = _mm512_shuffle_f32x4(d, e, 0xdd);
    }
}

static inline vf pick(vf a, vf b, int first, int step)
{
    __m512i i = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutex2var_ps(a, _mm512_add_epi32(_mm512_mullo_epi32(i, _mm512_set1_epi32(step)), _mm512_set1_epi32(first)), b);
}

static inline void v_load2(const float *p, vf *even, vf *odd)
{
    vf a = v_load(p), b = v_load(p + 16);
    *even = pick(a, b, 0, 2);
    *odd = pick(a, b, 1, 2);
}

static inline void v_store2(float *p, vf even, vf odd)
{
    __m512i lo = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), hi = _mm512_add_epi32(lo, _mm512_set1_epi32(8));
    v_store(p, _mm512_permutex2var_ps(even, lo, odd));
    v_store(p + 16, _mm512_permutex2var_ps(even, hi, odd));
}

static inline __m256i load256(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void store256(void *p, __m256i x) { _mm256_storeu_si256((__m256i *)p, x); }

static inline vf v_set_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return v_set(_cvtsh_ss(h));
}

static inline vf v_load_f16(const void *p) { return _mm512_cvtph_ps(load256(p)); }
static inline void v_store_f16(void *p, vf x) { store256(p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
static inline vf v_load_bf16(const void *p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load256(p)), 16)); }

static inline void v_store_bf16(void *p, vf x)
{
    __m512i u = _mm512_castps_si512(x), top = _mm512_srli_epi32(u, 16);
    __m512i even = _mm512_add_epi32(_mm512_and_si512(top, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, even), 16);
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), top, _mm512_set1_epi32(0x40));
    store256(p, _mm512_cvtepi32_epi16(r));
}

static inline vf v_load_i8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
static inline void v_store_i8(void *p, vf x) { _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(_mm512_cvttps_epi32(x))); }

static inline vd2 vd2_zero(void) { return (vd2){ _mm512_setzero_pd(), _mm512_setzero_pd() }; }
static inline vd2 vd2_join(vd2 s, vd2 t) { return (vd2){ _mm512_add_pd(s.a, t.a), _mm512_add_pd(s.b, t.b) }; }
static inline vd2 vd2_add(vd2 s, vf x) { return vd2_join(s, (vd2){ _mm512_cvtps_pd(low_half(x)), _mm512_cvtps_pd(high_half(x)) }); }
static inline vd2 vd2_add_sq(vd2 s, vf x)
{
    __m512d lo = _mm512_cvtps_pd(low_half(x)), hi = _mm512_cvtps_pd(high_half(x));
    return (vd2){ _mm512_fmadd_pd(lo, lo, s.a), _mm512_fmadd_pd(hi, hi, s.b) };
}
static inline double vd2_sum(vd2 s)
{
    __m512d t = _mm512_add_pd(s.a, s.b);
    __m256d h = _mm256_add_pd(_mm512_castpd512_pd256(t), _mm512_extractf64x4_pd(t, 1));
    __m128d u = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
    return _mm_cvtsd_f64(_mm_add_sd(u, _mm_unpackhi_pd(u, u)));
}

typedef __m512i vi;
static inline vi vi_zero(void) { return _mm512_setzero_si512(); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_load(const int16_t *p) { return _mm512_loadu_si512(p); }
static inline void vi_store(int16_t *p, vi x) { _mm512_storeu_si512(p, x); }
static inline vf vi_to_f32(vi x) { return _mm512_cvtepi32_ps(x); }
static inline vf v_codes(const void *p) { return _mm512_castsi512_ps(_mm512_cvtepi8_epi16(load256(p))); }

static inline vi vi_dot(vi s, vi a, const int16_t *b)
{
    int32_t pair;
    memcpy(&pair, b, sizeof pair);
    return _mm512_dpwssd_epi32(s, a, _mm512_set1_epi32(pair));
}

static inline void vi_pairs(vi t[2], const void *p, const void *q)
{
    __m512i a = _mm512_cvtepi8_epi16(load256(p)), b = _mm512_cvtepi8_epi16(load256(q));
    t[0] = _mm512_unpacklo_epi16(a, b), t[1] = _mm512_unpackhi_epi16(a, b);
}

static inline void vi_in_order(vi s[2])
{
    __m512i lo = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23), hi = _mm512_add_epi32(lo, _mm512_set1_epi32(8));
    vi a = s[0], b = s[1];
    s[0] = _mm512_permutex2var_epi32(a, lo, b), s[1] = _mm512_permutex2var_epi32(a, hi, b);
}

static inline void centre_nibbles(void *to, const void *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    __m256i both = _mm256_set_m128i(_mm_srli_epi16(x, 4), x);
    store256(to, _mm256_sub_epi8(_mm256_and_si256(both, _mm256_set1_epi8(15)), _mm256_set1_epi8(8)));
}

static inline void v_store_words(int16_t *p, vf x) { store256(p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x))); }

#include "ggml-like/kernels/vec_tmpl.h"
#include "ggml-like/kernels/attn_codes_tmpl.h"

void kernels_init_avx512_vec(struct kernels *k)
{
    set_vec_slots(k);
    k->attn = attn_any;
    k->attn_merge = attn_merge;
}

/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_vec - the vector and attention slots for AVX2, FMA and F16C: primitives here, bodies in the templates. */
#include "ggml-like/kernels/levels.h"
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 8 };
typedef __m256 vf;
typedef struct {
    __m256d a, b;
} vd2;

static inline vf v_zero(void) { return _mm256_setzero_ps(); }
static inline vf v_set(float x) { return _mm256_set1_ps(x); }
static inline vf v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vf x) { _mm256_storeu_ps(p, x); }

static inline __m256i first_lanes(int n)
{
    static const int32_t ones[16] = { -1, -1, -1, -1, -1, -1, -1, -1 };
    return _mm256_loadu_si256((const __m256i *)(const void *)(ones + 8 - n));
}
static inline vf v_load_n(const float *p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
static inline void v_store_n(float *p, int n, vf x) { _mm256_maskstore_ps(p, first_lanes(n), x); }

static inline vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf v_abs(vf x) { return _mm256_andnot_ps(v_set(-0.0f), x); }
static inline vf v_keep_ge(vf x, vf y, vf lo) { return _mm256_and_ps(x, _mm256_cmp_ps(y, lo, _CMP_NLT_UQ)); }
static inline vf v_pow2(vf t) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23)); }

/* the largest float below 0.5 instead of 0.5: then 0.49999997 does not reach 1 by rounding of the sum, and exact halves still do */
static inline vf v_round(vf x)
{
    vf half = _mm256_or_ps(_mm256_and_ps(x, v_set(-0.0f)), v_set(0.49999997f));
    return _mm256_round_ps(v_add(x, half), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
}

static inline float v_top(vf x)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static inline float v_sum(vf x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* a + its upper half in the lower lane, b likewise in the upper lane */
static inline vf fold_halves(vf a, vf b) { return v_add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)); }

static inline vf fold_quarters(vf a, vf b)
{
    return v_add(_mm256_shuffle_ps(a, b, _MM_SHUFFLE(1, 0, 1, 0)), _mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 2, 3, 2)));
}

static inline vf v_sums(const vf x[8])
{
    vf a = fold_quarters(fold_halves(x[0], x[4]), fold_halves(x[1], x[5]));
    vf b = fold_quarters(fold_halves(x[2], x[6]), fold_halves(x[3], x[7]));
    return v_add(_mm256_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)), _mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
}

static inline __attribute__((always_inline)) void v_transpose(vf x[8])
{
    vf t[8], u[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) t[i] = _mm256_unpacklo_ps(x[i], x[i + 1]), t[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        x[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        x[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

static inline vf even_odd(vf a, vf b, int odd)
{
    vf x = odd ? _mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)) : _mm256_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0));
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), _MM_SHUFFLE(3, 1, 2, 0)));
}

static inline void v_load2(const float *p, vf *even, vf *odd)
{
    vf a = v_load(p), b = v_load(p + 8);
    *even = even_odd(a, b, 0);
    *odd = even_odd(a, b, 1);
}

static inline void v_store2(float *p, vf even, vf odd)
{
    vf lo = _mm256_unpacklo_ps(even, odd), hi = _mm256_unpackhi_ps(even, odd);
    v_store(p, _mm256_permute2f128_ps(lo, hi, 0x20));
    v_store(p + 8, _mm256_permute2f128_ps(lo, hi, 0x31));
}

static inline __m128i load128(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
static inline void store128(void *p, __m128i x) { _mm_storeu_si128((__m128i *)p, x); }

static inline vf v_set_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return v_set(_cvtsh_ss(h));
}

static inline vf v_load_f16(const void *p) { return _mm256_cvtph_ps(load128(p)); }
static inline void v_store_f16(void *p, vf x) { store128(p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
static inline vf v_load_bf16(const void *p) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16)); }

static inline void v_store_bf16(void *p, vf x)
{
    __m256i u = _mm256_castps_si256(x), top = _mm256_srli_epi32(u, 16);
    __m256i even = _mm256_add_epi32(_mm256_and_si256(top, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, even), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_or_si256(top, _mm256_set1_epi32(0x40)), nan);
    store128(p, _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1)));
}

static inline vf v_load_i8(const void *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))); }

static inline void v_store_i8(void *p, vf x)
{
    __m256i i = _mm256_cvttps_epi32(x);
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(w, w));
}

static inline vd2 vd2_zero(void) { return (vd2){ _mm256_setzero_pd(), _mm256_setzero_pd() }; }
static inline __m256d low_pd(vf x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
static inline __m256d high_pd(vf x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
static inline vd2 vd2_join(vd2 s, vd2 t) { return (vd2){ _mm256_add_pd(s.a, t.a), _mm256_add_pd(s.b, t.b) }; }
static inline vd2 vd2_add(vd2 s, vf x) { return vd2_join(s, (vd2){ low_pd(x), high_pd(x) }); }
static inline vd2 vd2_add_sq(vd2 s, vf x)
{
    __m256d lo = low_pd(x), hi = high_pd(x);
    return (vd2){ _mm256_fmadd_pd(lo, lo, s.a), _mm256_fmadd_pd(hi, hi, s.b) };
}
static inline double vd2_sum(vd2 s)
{
    __m256d t = _mm256_add_pd(s.a, s.b);
    __m128d u = _mm_add_pd(_mm256_castpd256_pd128(t), _mm256_extractf128_pd(t, 1));
    return _mm_cvtsd_f64(_mm_add_sd(u, _mm_unpackhi_pd(u, u)));
}

typedef __m256i vi;
static inline vi vi_zero(void) { return _mm256_setzero_si256(); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_load(const int16_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline void vi_store(int16_t *p, vi x) { _mm256_storeu_si256((__m256i *)(void *)p, x); }
static inline vf vi_to_f32(vi x) { return _mm256_cvtepi32_ps(x); }
static inline vf v_codes(const void *p) { return _mm256_castsi256_ps(_mm256_cvtepi8_epi16(load128(p))); }

static inline vi vi_dot(vi s, vi a, const int16_t *b)
{
    int32_t pair;
    memcpy(&pair, b, sizeof pair);
    return _mm256_add_epi32(s, _mm256_madd_epi16(a, _mm256_set1_epi32(pair)));
}

static inline void vi_pairs(vi t[2], const void *p, const void *q)
{
    __m256i a = _mm256_cvtepi8_epi16(load128(p)), b = _mm256_cvtepi8_epi16(load128(q));
    t[0] = _mm256_unpacklo_epi16(a, b), t[1] = _mm256_unpackhi_epi16(a, b);
}

static inline void vi_in_order(vi s[2])
{
    vi a = s[0], b = s[1];
    s[0] = _mm256_permute2x128_si256(a, b, 0x20), s[1] = _mm256_permute2x128_si256(a, b, 0x31);
}

static inline void centre_nibbles(void *to, const void *p)
{
    __m128i x = load128(p), low = _mm_set1_epi8(15), eight = _mm_set1_epi8(8);
    store128(to, _mm_sub_epi8(_mm_and_si128(x, low), eight));
    store128((char *)to + 16, _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(x, 4), low), eight));
}

static inline void v_store_words(int16_t *p, vf x)
{
    __m256i i = _mm256_cvtps_epi32(x);
    store128(p, _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1)));
}

#include "ggml-like/kernels/vec_tmpl.h"
#include "ggml-like/kernels/attn_codes_tmpl.h"

void kernels_init_avx2_vec(struct kernels *k)
{
    set_vec_slots(k);
    k->attn = attn_any;
    k->attn_merge = attn_merge;
}

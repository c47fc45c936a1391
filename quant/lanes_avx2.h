/* lanes_avx2 - the primitives of lanes.h for AVX2. */
#pragma once
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

enum { LANES = 8 };
typedef __m256 vf;
typedef __m256i vi;
typedef __m256i vm; /* 0 or -1 */
#define LANE_PRIM static inline __attribute__((always_inline, unused))
#define PF(x) _mm256_castsi256_ps(x)
#define PI(x) _mm256_castps_si256(x)

LANE_PRIM vf v_set(float x) { return _mm256_set1_ps(x); }
LANE_PRIM vi vi_set(int32_t x) { return _mm256_set1_epi32(x); }
LANE_PRIM vf v_load(const float *p) { return _mm256_loadu_ps(p); }
LANE_PRIM vi vi_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
LANE_PRIM void v_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
LANE_PRIM void vi_store(int32_t *p, vi x) { _mm256_storeu_si256((__m256i *)(void *)p, x); }
LANE_PRIM vi v_bits(vf x) { return PI(x); }
LANE_PRIM vf v_from_bits(vi x) { return PF(x); }
LANE_PRIM vf v_from_i(vi x) { return _mm256_cvtepi32_ps(x); }
LANE_PRIM vi v_trunc(vf x) { return _mm256_cvttps_epi32(x); }
LANE_PRIM vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
LANE_PRIM vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
LANE_PRIM vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
LANE_PRIM vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
LANE_PRIM vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
LANE_PRIM vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
LANE_PRIM vf v_sqrt(vf x) { return _mm256_sqrt_ps(x); }
LANE_PRIM vf v_abs(vf x) { return _mm256_andnot_ps(v_set(-0.0f), x); }
LANE_PRIM vf v_neg(vf x) { return _mm256_xor_ps(v_set(-0.0f), x); }
LANE_PRIM vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
LANE_PRIM vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
LANE_PRIM vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
LANE_PRIM vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
LANE_PRIM vi vi_mul(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
LANE_PRIM vi vi_min(vi a, vi b) { return _mm256_min_epi32(a, b); }
LANE_PRIM vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
LANE_PRIM vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
LANE_PRIM vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
LANE_PRIM vi vi_xor(vi a, vi b) { return _mm256_xor_si256(a, b); }
LANE_PRIM vi vi_shl(vi x, int n) { return _mm256_slli_epi32(x, n); }
LANE_PRIM vi vi_shr(vi x, int n) { return _mm256_srli_epi32(x, n); }
LANE_PRIM vm v_lt(vf a, vf b) { return PI(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
LANE_PRIM vm v_le(vf a, vf b) { return PI(_mm256_cmp_ps(a, b, _CMP_LE_OQ)); }
LANE_PRIM vm v_eq(vf a, vf b) { return PI(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }
LANE_PRIM vm vi_lt(vi a, vi b) { return _mm256_cmpgt_epi32(b, a); }
LANE_PRIM vm vi_eq(vi a, vi b) { return _mm256_cmpeq_epi32(a, b); }
LANE_PRIM vm vm_and(vm a, vm b) { return _mm256_and_si256(a, b); }
LANE_PRIM vm vm_or(vm a, vm b) { return _mm256_or_si256(a, b); }
LANE_PRIM vm vm_not(vm a) { return _mm256_xor_si256(a, _mm256_set1_epi32(-1)); }
LANE_PRIM bool vm_any(vm m) { return !_mm256_testz_si256(m, m); }
LANE_PRIM vf v_sel(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, PF(m)); }
LANE_PRIM vi vi_sel(vm m, vi a, vi b) { return PI(_mm256_blendv_ps(PF(b), PF(a), PF(m))); }
LANE_PRIM vf v_gather(const float *t, vi i) { return _mm256_i32gather_ps(t, i, 4); }
LANE_PRIM vi v_gather_i8(const int8_t *t, vi i)
{
    int32_t at[8];
    vi_store(at, i);
    return _mm256_setr_epi32(t[at[0]], t[at[1]], t[at[2]], t[at[3]], t[at[4]], t[at[5]], t[at[6]], t[at[7]]);
}
LANE_PRIM vf v_add_where(vm m, vf sum, vf x) { return _mm256_add_ps(sum, _mm256_and_ps(PF(m), x)); }
LANE_PRIM vf v_table16(const float *t, vi i)
{
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(v_load(t), i), _mm256_permutevar8x32_ps(v_load(t + 8), i), PF(vi_shl(i, 28)));
}
LANE_PRIM void vi_store_16(void *p, vi x)
{
    const __m256i low = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    _mm_storeu_si128(p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_shuffle_epi8(x, low), 0x08)));
}
/* 8 rows of 4 columns. Half q of at[k] comes from row k + 4q, so that transpositions inside the halves finish it. */
LANE_PRIM void v_transpose_halves(vf *out, const vf at[4])
{
    vf a = _mm256_unpacklo_ps(at[0], at[1]), b = _mm256_unpackhi_ps(at[0], at[1]);
    vf c = _mm256_unpacklo_ps(at[2], at[3]), d = _mm256_unpackhi_ps(at[2], at[3]);
    out[0] = _mm256_shuffle_ps(a, c, 0x44), out[1] = _mm256_shuffle_ps(a, c, 0xee);
    out[2] = _mm256_shuffle_ps(b, d, 0x44), out[3] = _mm256_shuffle_ps(b, d, 0xee);
}
LANE_PRIM void v_transpose_load(vf *out, const float *p, int64_t stride, int n, int lanes)
{
    const __m128 zero = _mm_setzero_ps();
    for (int i = 0; i < n; i += 4) {
        const float *from = p + i;
        vf at[4];
        if (lanes < LANES) {
            for (int k = 0; k < 4; k++) {
                __m128 low = k < lanes ? _mm_loadu_ps(from + k * stride) : zero, high = k + 4 < lanes ? _mm_loadu_ps(from + (k + 4) * stride) : zero;
                at[k] = _mm256_set_m128(high, low);
            }
        } else {
            for (int k = 0; k < 4; k++) at[k] = _mm256_set_m128(_mm_loadu_ps(from + (k + 4) * stride), _mm_loadu_ps(from + k * stride));
        }
        v_transpose_halves(out + i, at);
    }
}
#include "quant/lanes.h"

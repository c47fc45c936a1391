/* lanes_avx512 - the primitives of lanes.h for AVX-512 (F, DQ). */
#pragma once
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

enum { LANES = 16 };
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;
#define LANE_PRIM static inline __attribute__((always_inline, unused))

LANE_PRIM vf v_set(float x) { return _mm512_set1_ps(x); }
LANE_PRIM vi vi_set(int32_t x) { return _mm512_set1_epi32(x); }
LANE_PRIM vf v_load(const float *p) { return _mm512_loadu_ps(p); }
LANE_PRIM vi vi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
LANE_PRIM void v_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
LANE_PRIM void vi_store(int32_t *p, vi x) { _mm512_storeu_si512(p, x); }
LANE_PRIM vi v_bits(vf x) { return _mm512_castps_si512(x); }
LANE_PRIM vf v_from_bits(vi x) { return _mm512_castsi512_ps(x); }
LANE_PRIM vf v_from_i(vi x) { return _mm512_cvtepi32_ps(x); }
LANE_PRIM vi v_trunc(vf x) { return _mm512_cvttps_epi32(x); }
LANE_PRIM vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
LANE_PRIM vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
LANE_PRIM vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
LANE_PRIM vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
LANE_PRIM vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
LANE_PRIM vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
LANE_PRIM vf v_sqrt(vf x) { return _mm512_sqrt_ps(x); }
LANE_PRIM vf v_abs(vf x) { return _mm512_abs_ps(x); }
LANE_PRIM vf v_neg(vf x) { return _mm512_xor_ps(_mm512_set1_ps(-0.0f), x); }
LANE_PRIM vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
LANE_PRIM vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
LANE_PRIM vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
LANE_PRIM vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
LANE_PRIM vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
LANE_PRIM vi vi_min(vi a, vi b) { return _mm512_min_epi32(a, b); }
LANE_PRIM vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
LANE_PRIM vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
LANE_PRIM vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
LANE_PRIM vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
LANE_PRIM vi vi_shl(vi x, int n) { return _mm512_sll_epi32(x, _mm_cvtsi32_si128(n)); }
LANE_PRIM vi vi_shr(vi x, int n) { return _mm512_srl_epi32(x, _mm_cvtsi32_si128(n)); }
LANE_PRIM vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
LANE_PRIM vm v_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
LANE_PRIM vm v_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
LANE_PRIM vm vi_lt(vi a, vi b) { return _mm512_cmpgt_epi32_mask(b, a); }
LANE_PRIM vm vi_eq(vi a, vi b) { return _mm512_cmpeq_epi32_mask(a, b); }
LANE_PRIM vm vm_and(vm a, vm b) { return (vm)(a & b); }
LANE_PRIM vm vm_or(vm a, vm b) { return (vm)(a | b); }
LANE_PRIM vm vm_not(vm a) { return (vm)~a; }
LANE_PRIM bool vm_any(vm m) { return m != 0; }
LANE_PRIM vf v_sel(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
LANE_PRIM vi vi_sel(vm m, vi a, vi b) { return _mm512_mask_blend_epi32(m, b, a); }
LANE_PRIM vf v_gather(const float *t, vi i) { return _mm512_i32gather_ps(i, t, 4); }
LANE_PRIM vi v_gather_i8(const int8_t *t, vi i)
{
    int32_t at[16];
    vi_store(at, i);
    for (int l = 0; l < 16; l++) at[l] = t[at[l]];
    return vi_load(at);
}
LANE_PRIM vf v_add_where(vm m, vf sum, vf x) { return _mm512_mask_add_ps(sum, m, sum, x); }
LANE_PRIM vf v_table16(const float *t, vi i) { return _mm512_permutexvar_ps(i, v_load(t)); }
LANE_PRIM void vi_store_16(void *p, vi x) { _mm256_storeu_si256(p, _mm512_cvtepi32_epi16(x)); }
/* 16 rows of 4 columns. 128-bit part q of at[k] comes from row k + 4q, so that four in-part transpositions finish it. */
LANE_PRIM void v_transpose_parts(vf *out, const vf at[4])
{
    vf a = _mm512_unpacklo_ps(at[0], at[1]), b = _mm512_unpackhi_ps(at[0], at[1]);
    vf c = _mm512_unpacklo_ps(at[2], at[3]), d = _mm512_unpackhi_ps(at[2], at[3]);
    out[0] = _mm512_shuffle_ps(a, c, 0x44), out[1] = _mm512_shuffle_ps(a, c, 0xee);
    out[2] = _mm512_shuffle_ps(b, d, 0x44), out[3] = _mm512_shuffle_ps(b, d, 0xee);
}
LANE_PRIM vf v_four_rows(const float *p, int64_t stride, int lanes)
{
    const __m128 zero = _mm_setzero_ps();
    vf x = _mm512_castps128_ps512(lanes > 0 ? _mm_loadu_ps(p) : zero);
    x = _mm512_insertf32x4(x, lanes > 4 ? _mm_loadu_ps(p + 4 * stride) : zero, 1);
    x = _mm512_insertf32x4(x, lanes > 8 ? _mm_loadu_ps(p + 8 * stride) : zero, 2);
    return _mm512_insertf32x4(x, lanes > 12 ? _mm_loadu_ps(p + 12 * stride) : zero, 3);
}
/* Whole cache lines of four rows at a time where there are: rows that lie a multiple of 4 KiB apart share the ways of one set. */
LANE_PRIM void v_transpose_load(vf *out, const float *p, int64_t stride, int n, int lanes)
{
    if (lanes < LANES || n % 16) {
        for (int i = 0; i < n; i += 4) {
            vf at[4];
            for (int k = 0; k < 4; k++) at[k] = v_four_rows(p + k * stride + i, stride, lanes - k);
            v_transpose_parts(out + i, at);
        }
        return;
    }
    for (int i = 0; i < n; i += 16) {
        vf at[4][4];
        for (int k = 0; k < 4; k++)
            for (int c = 0; c < 4; c++) at[c][k] = v_four_rows(p + k * stride + i + 4 * c, stride, 16);
        for (int c = 0; c < 4; c++) v_transpose_parts(out + i + 4 * c, at[c]);
    }
}
#include "quant/lanes.h"

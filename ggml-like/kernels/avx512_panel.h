/* avx512_panel - what panels of 16 rows in a register are made with: for panel_tmpl.h, on the levels of AVX-512. */
#pragma once
#include "ggml-like/kernels/avx512_blocks.h"
#include "ggml-like/kernels/levels.h"

enum { CHUNK = 256, LANES = 16 };
typedef __m512i V;
typedef __m512 F;

INLINE V v_set8(int c) { return _mm512_set1_epi8((char)c); }
INLINE V v_set32(int c) { return _mm512_set1_epi32(c); }
INLINE V v_and(V a, V b) { return _mm512_and_si512(a, b); }
INLINE V v_or(V a, V b) { return _mm512_or_si512(a, b); }
INLINE V v_or_and(V a, V b, V mask) { return _mm512_ternarylogic_epi32(a, b, mask, 0xf8); } /* a | (b & mask) */
INLINE V v_sub8(V a, V b) { return _mm512_sub_epi8(a, b); }
INLINE V v_sub32(V a, V b) { return _mm512_sub_epi32(a, b); }
INLINE V v_srl16(V v, int n) { return _mm512_srli_epi16(v, (unsigned)n); }
INLINE V v_sll16(V v, int n) { return _mm512_slli_epi16(v, (unsigned)n); }
INLINE V v_srl32(V v, int n) { return _mm512_srli_epi32(v, (unsigned)n); }
INLINE V v_sll32(V v, int n) { return _mm512_slli_epi32(v, (unsigned)n); }
INLINE V v_if_equal(V a, V b, V then, V other) { return _mm512_mask_blend_epi32(_mm512_cmpeq_epi32_mask(a, b), other, then); }
INLINE V v_if_greater(V a, V b, V then, V other) { return _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), other, then); }
INLINE V v_table(const int8_t levels[16]) { return _mm512_broadcast_i32x4(load128(levels)); }
INLINE V v_lookup(V table, V v) { return _mm512_shuffle_epi8(table, v); }
INLINE V v_low32(V a, V b) { return _mm512_unpacklo_epi32(a, b); }
INLINE V v_high32(V a, V b) { return _mm512_unpackhi_epi32(a, b); }
INLINE V v_low64(V a, V b) { return _mm512_unpacklo_epi64(a, b); }
INLINE V v_high64(V a, V b) { return _mm512_unpackhi_epi64(a, b); }
INLINE F f_set(float c) { return _mm512_set1_ps(c); }
INLINE F f_bits(V v) { return _mm512_castsi512_ps(v); }
INLINE F f_int(V v) { return _mm512_cvtepi32_ps(v); }
INLINE F f_halves(const uint16_t *p) { return _mm512_cvtph_ps(load256(p)); }
INLINE F f_mul(F a, F b) { return _mm512_mul_ps(a, b); }
INLINE F f_sub(F a, F b) { return _mm512_sub_ps(a, b); }
INLINE F f_fmadd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
INLINE F f_fmsub(F a, F b, F c) { return _mm512_fmsub_ps(a, b, c); }

INLINE F halves_low(V v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }
INLINE F halves_high(V v) { return halves_low(_mm512_srli_epi32(v, 16)); }
INLINE F byte_to_ps(V v, int i) { return f_int(v_and(v_srl32(v, 8 * i), v_set32(0xff))); }
INLINE F sbyte_to_ps(V v, int i) { return f_int(_mm512_srai_epi32(v_sll32(v, 24 - 8 * i), 24)); }

/* 16 bytes of every row: lane l of q[i] = those of row 4l + i. The inserts take their bytes from memory and need no shuffle port. */
INLINE void gather16(struct rows r, size_t at, V q[4])
{
UNROLL
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *w = r.w + i * r.stride + at;
        q[i] = _mm512_castsi128_si512(load128(w));
        q[i] = _mm512_inserti32x4(q[i], load128(w + 4 * r.stride), 1);
        q[i] = _mm512_inserti32x4(q[i], load128(w + 8 * r.stride), 2);
        q[i] = _mm512_inserti32x4(q[i], load128(w + 12 * r.stride), 3);
    }
}

/* -16 in byte i of lane `bits` where bit i of `bits` is clear */
#define CLEAR(b) (((b) & 1 ? 0 : 0xf0u) | ((b) & 2 ? 0 : 0xf000u) | ((b) & 4 ? 0 : 0xf00000u) | ((b) & 8 ? 0 : 0xf0000000u))
static const uint32_t clear_of[16] = { CLEAR(0), CLEAR(1), CLEAR(2), CLEAR(3), CLEAR(4), CLEAR(5), CLEAR(6), CLEAR(7), CLEAR(8), CLEAR(9),
                                       CLEAR(10), CLEAR(11), CLEAR(12), CLEAR(13), CLEAR(14), CLEAR(15) };
INLINE V clear_bits(V v, int n) { return _mm512_permutexvar_epi32(v_srl32(v, n), load512(clear_of)); }

INLINE void put_ps(float *p, int group, F v) { _mm512_storeu_ps(p + group * PANEL_ROWS, v); }

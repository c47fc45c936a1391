/* avx2_blocks - registers full of codes and scales from the bytes of the formats, shared by the unpackers and the row-dots of the AVX2
 * level. Layouts: formats/legacy.c and formats/kquants.c. Nothing here reads outside the blocks it is given. */
#pragma once
#include "ggml-like/base.h"
#include "ggml-like/formats/formats.h"
#include "ggml-like/kernels/bytes.h"
#include <immintrin.h>
#include <string.h>


/* Unpacks n blocks of a format, together at most 256 weights, to codes, scales and mins (isa_avx2_unpack.c); NULL: only block by block. */
typedef void avx2_unpack_fn(const uint8_t *w, int n, struct codes *out);
extern avx2_unpack_fn *const avx2_unpack[DTYPE_IDS];

INLINE __m128i load128(const void *p) { return _mm_loadu_si128(p); }
INLINE __m256i load256(const void *p) { return _mm256_loadu_si256(p); }
INLINE __m256i load_twice(const void *p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(p)); }
INLINE float half_to_float(uint16_t h) { return _cvtsh_ss(h); }

INLINE __m256 negated(__m256 v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }

/* sum of the lanes, in a fixed order */
INLINE float sum_ps(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* ---- codes, 32 at a time, one byte each ---- */

/* q4_0 and its kin: low nibbles of 16 bytes, then high nibbles */
INLINE __m256i nibbles32(const uint8_t qs[16])
{
    __m256i shift = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
    return _mm256_and_si256(_mm256_srlv_epi32(load_twice(qs), shift), _mm256_set1_epi8(15));
}

#define EIGHT(n) n, n, n, n, n, n, n, n

/* byte i = 0xFF where its bit of `bits` is clear; byte_of[i] = which byte of `bits` holds it, at bit i % 8 */
INLINE __m256i clear_bits32(uint32_t bits, __m256i byte_of)
{
    __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201u);
    __m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), byte_of);
    return _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), _mm256_setzero_si256());
}

INLINE __m256i clear_bits_natural(uint32_t qh) { return clear_bits32(qh, _mm256_setr_epi8(EIGHT(0), EIGHT(1), EIGHT(2), EIGHT(3))); }

/* q5_0: nibble + 16 * bit - 16 */
INLINE __m256i codes_q5_0(const uint8_t qs[16], uint32_t qh)
{
    return _mm256_or_si256(nibbles32(qs), _mm256_and_si256(clear_bits_natural(qh), _mm256_set1_epi8(-16)));
}

/* q5_1: nibble + 16 * bit */
INLINE __m256i codes_q5_1(const uint8_t qs[16], uint32_t qh)
{
    return _mm256_or_si256(nibbles32(qs), _mm256_andnot_si256(clear_bits_natural(qh), _mm256_set1_epi8(16)));
}

/* ---- the same in split order: columns 0-7, 16-23 | 8-15, 24-31, which unpacking with zeros turns into words 0-15 and 16-31 ---- */

INLINE __m256i split_order(__m256i v) { return _mm256_permute4x64_epi64(v, 0xd8); }

/* ---- elementwise on bytes, so in whatever order the bytes are ---- */

/* bits n..n+1 (or the nibble) of every byte. n is a constant */
INLINE __m256i two_bits(__m256i v, int n) { return _mm256_and_si256(_mm256_srli_epi16(v, n), _mm256_set1_epi8(3)); }
INLINE __m256i nibble(__m256i v, int n) { return _mm256_and_si256(_mm256_srli_epi16(v, n), _mm256_set1_epi8(15)); }

/* bit n of every byte moved to bit `to` */
INLINE __m256i move_bit(__m256i v, int n, int to)
{
    __m256i moved = n < to ? _mm256_slli_epi16(v, to - n) : _mm256_srli_epi16(v, n - to);
    return _mm256_and_si256(moved, _mm256_set1_epi8((char)(1 << to)));
}

/* q5_k, group g (0..7): nibble + 16 * bit g; qs = the 32 bytes that hold it */
INLINE __m256i codes_q5_k(__m256i qs, __m256i qh, int g) { return _mm256_or_si256(nibble(qs, g % 2 * 4), move_bit(qh, g, 4)); }

/* q6_k, quarter k (0..3) of a half: 0..63. ql = the 32 bytes that hold its low nibbles, qh = the 32 bytes of the half */
INLINE __m256i codes_q6_k(__m256i ql, __m256i qh, int k)
{
    __m256i high = k < 2 ? _mm256_slli_epi16(qh, 4 - 2 * k) : _mm256_srli_epi16(qh, 2 * k - 4);
    return _mm256_or_si256(nibble(ql, k / 2 * 4), _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
}

/* q3_k, group of 32 number g (0..7): 0..7, four above the code */
INLINE __m256i codes_q3_k(__m256i qs, __m256i hmask, int g) { return _mm256_or_si256(two_bits(qs, g % 4 * 2), move_bit(hmask, g, 2)); }

/* ---- scales, 8 at a time ---- */

/* The first 2 (4) bytes of 8 (4) blocks. A 16-byte load at p + i * (stride - 2) has the head of block i as its word i, so blends collect
 * the heads: one instruction a block, no inserts. All loads stay inside the blocks. */
INLINE __m128i heads_u16(const uint8_t *p, size_t stride)
{
    stride -= 2;
    __m128i v = load128(p);
    v = _mm_blend_epi16(v, load128(p + stride), 1 << 1);
    v = _mm_blend_epi16(v, load128(p + 2 * stride), 1 << 2);
    v = _mm_blend_epi16(v, load128(p + 3 * stride), 1 << 3);
    v = _mm_blend_epi16(v, load128(p + 4 * stride), 1 << 4);
    v = _mm_blend_epi16(v, load128(p + 5 * stride), 1 << 5);
    v = _mm_blend_epi16(v, load128(p + 6 * stride), 1 << 6);
    return _mm_blend_epi16(v, load128(p + 7 * stride), 1 << 7);
}

INLINE __m128i heads_u32(const uint8_t *p, size_t stride)
{
    stride -= 4;
    __m128i v = load128(p);
    v = _mm_blend_epi32(v, load128(p + stride), 1 << 1);
    v = _mm_blend_epi32(v, load128(p + 2 * stride), 1 << 2);
    return _mm_blend_epi32(v, load128(p + 3 * stride), 1 << 3);
}

/* d of 8 blocks that begin with d */
INLINE __m256 scales8(const uint8_t *p, size_t stride) { return _mm256_cvtph_ps(heads_u16(p, stride)); }

/* d and m of 8 blocks that begin with d, m */
INLINE __m256 scales8_min(const uint8_t *p, size_t stride, __m256 *min)
{
    __m128i split = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m128i a = _mm_shuffle_epi8(heads_u32(p, stride), split), b = _mm_shuffle_epi8(heads_u32(p + 4 * stride, stride), split);
    *min = _mm256_cvtph_ps(_mm_unpackhi_epi64(a, b));
    return _mm256_cvtph_ps(_mm_unpacklo_epi64(a, b));
}

INLINE __m256 bytes_to_ps(__m128i v) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)); }
INLINE __m256 sbytes_to_ps(__m128i v) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)); }

/* q4_k, q5_k: 8 scales and 8 mins, a byte each */
struct k4_scales { uint64_t scale, min; };
INLINE struct k4_scales k4_scales(const uint8_t s[12])
{
    uint32_t a = load_u32(s), b = load_u32(s + 4), c = load_u32(s + 8);
    return (struct k4_scales){ (a & 0x3f3f3f3f) | (uint64_t)((c & 0x0f0f0f0f) | (a >> 2 & 0x30303030)) << 32,
                               (b & 0x3f3f3f3f) | (uint64_t)((c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)) << 32 };
}

/* scales and mins (positive: to be subtracted) as floats, the products of dtype->unpack bit for bit */
INLINE __m256 scales_q4_k(const uint8_t s[12], const uint8_t d_dmin[4], __m256 *min)
{
    __m128 d = _mm_cvtph_ps(_mm_cvtsi32_si128((int)load_u32(d_dmin)));
    struct k4_scales v = k4_scales(s);
    *min = _mm256_mul_ps(_mm256_broadcastss_ps(_mm_movehdup_ps(d)), bytes_to_ps(_mm_cvtsi64_si128((int64_t)v.min)));
    return _mm256_mul_ps(_mm256_broadcastss_ps(d), bytes_to_ps(_mm_cvtsi64_si128((int64_t)v.scale)));
}

/* q3_k: 16 scales as signed bytes */
INLINE __m128i scales_q3_k(const uint8_t s[12])
{
    uint32_t a = load_u32(s), b = load_u32(s + 4), c = load_u32(s + 8), low = 0x0f0f0f0f, high = 0x30303030;
    __m128i v = _mm_setr_epi32((int)((a & low) | (c << 4 & high)), (int)((b & low) | (c << 2 & high)), (int)((a >> 4 & low) | (c & high)),
                               (int)((b >> 4 & low) | (c >> 2 & high)));
    return _mm_sub_epi8(v, _mm_set1_epi8(32));
}

/* 16 signed bytes times d */
struct scales16 { __m256 low, high; };
INLINE struct scales16 scales16(__m128i s, float d)
{
    __m256 v = _mm256_set1_ps(d);
    return (struct scales16){ _mm256_mul_ps(v, sbytes_to_ps(s)), _mm256_mul_ps(v, sbytes_to_ps(_mm_unpackhi_epi64(s, s))) };
}

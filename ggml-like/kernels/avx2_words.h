/* avx2_words - codes and scales of the formats with codebooks, uneven levels and trits in registers, for unpackers and row-dots.
 * Layouts: formats/iquants.c, mx.c and ternary.c. Nothing here reads outside the blocks it is given.
 *
 * A codebook superblock is taken apart once (open_<format>): the indices of its vectors and its signs go to memory as the loads that follow
 * want them. Then codes come 16 at a time as int16, the vectors loaded in that form from a table: two loads and one or two other instructions
 * a vector, where bytes would have to be collected element by element and widened. */
#pragma once
#include "ggml-like/kernels/avx2_blocks.h"

struct book {
    _Alignas(32) uint8_t bits[32];   /* signs of elements 8v .. 8v + 7 */
    _Alignas(32) uint16_t at[64];    /* of vector v: its index, or its byte offset in a table of 16-byte vectors */
    _Alignas(32) uint32_t sign[16];  /* 16 elements in the odd bits, the even elements in the low half; bits 0 and 16 are set. The word of
                                        elements 16i .. is sign[sign_slot(i)] */
    _Alignas(32) float scale[16];    /* 8 when the group is 32 */
    _Alignas(32) float shift[8];     /* iq1_s: what is added to all elements of a group */
};

/* Ends the opening: what was stored is read from memory, where a load costs less than the shuffles that gcc would take elements out of
 * registers with (7 to 10 % of a row-dot). */
INLINE void opened(struct book *o) { __asm__ volatile("" : "+m"(*o)); }

INLINE void put_at(struct book *o, int v, __m256i at) { _mm256_store_si256((__m256i *)(o->at + v), at); }
INLINE void put_scale8(struct book *o, int g, __m256 v) { _mm256_store_ps(o->scale + g, v); }
INLINE __m256i bytes_to_words(const void *p) { return _mm256_cvtepu8_epi16(load128(p)); }

/* ---- signs ---- */

INLINE int sign_slot(int i) { return (i & 3) + (i & 4) * 2 + (i & 8) / 2; }

INLINE void put_bits(struct book *o, __m256i signs) { _mm256_store_si256((__m256i *)o->bits, signs); }

/* The eighth sign of each byte from the seven that are stored: the number of set bits is even. */
INLINE __m256i signs_of_7_bits(__m256i v)
{
    const char e = 0, o = -128;
    __m256i parity = _mm256_broadcastsi128_si256(_mm_setr_epi8(e, o, o, e, o, e, e, o, o, e, e, o, e, o, o, e));
    __m256i folded = _mm256_and_si256(_mm256_xor_si256(v, _mm256_srli_epi16(v, 4)), _mm256_set1_epi8(15));
    return _mm256_or_si256(v, _mm256_shuffle_epi8(parity, folded));
}

/* four 7-bit fields in the low 28 bits of each dword to four bytes, with their eighth signs */
INLINE __m256i signs_of_28_bits(__m256i v)
{
    v = _mm256_or_si256(_mm256_and_si256(v, _mm256_set1_epi32(0x3fff)), _mm256_and_si256(_mm256_slli_epi32(v, 2), _mm256_set1_epi32(0x3fff0000)));
    v = _mm256_or_si256(_mm256_and_si256(v, _mm256_set1_epi16(0x7f)), _mm256_and_si256(_mm256_slli_epi16(v, 1), _mm256_set1_epi16(0x7f00)));
    return signs_of_7_bits(v);
}

/* o->sign from o->bits */
INLINE void spread_bits(struct book *o)
{
    __m256i signs = _mm256_load_si256((const __m256i *)o->bits), odd = _mm256_set1_epi16(-0x5556), one = _mm256_set1_epi16(1);
    __m256i even_signs = _mm256_or_si256(_mm256_and_si256(_mm256_add_epi16(signs, signs), odd), one);
    __m256i odd_signs = _mm256_or_si256(_mm256_and_si256(signs, odd), one);
    _mm256_store_si256((__m256i *)o->sign, _mm256_unpacklo_epi16(even_signs, odd_signs));
    _mm256_store_si256((__m256i *)(o->sign + 8), _mm256_unpackhi_epi16(even_signs, odd_signs));
}

/* Elements 16i .. 16i + 15 with their signs. The shift moves the sign of each element to the top of its word and the bit that is always set below
 * it, so that no word is 0, which would make the element 0. Signs come 64 at a time, as loads are what bounds row-dots. */
INLINE __m256i signed16(const struct book *o, int i, __m256i words)
{
    __m256i four = load_twice(o->sign + sign_slot(i / 4 * 4)), up = _mm256_setr_epi32(14, 12, 10, 8, 6, 4, 2, 0);
    __m256i one = i % 4 == 0   ? _mm256_shuffle_epi32(four, 0x00)
                  : i % 4 == 1 ? _mm256_shuffle_epi32(four, 0x55)
                  : i % 4 == 2 ? _mm256_shuffle_epi32(four, 0xaa)
                               : _mm256_shuffle_epi32(four, 0xff);
    return _mm256_sign_epi16(words, _mm256_sllv_epi32(one, up));
}

/* ---- vectors ---- Two or four indices come with one load and are taken apart in general registers, whose ports have time: 8 to 14 % of a
 * row-dot of iq2 and iq3. */

INLINE __m256i all_u64(const void *p) { return _mm256_set1_epi64x((int64_t)load_u64(p)); }

/* two vectors of 8 at byte offsets at[0], at[1] */
INLINE __m256i two_vectors(const int16_t (*table)[8], const uint16_t *at)
{
    const char *t = (const char *)table;
    uint32_t two = load_u32(at);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load128(t + (uint16_t)two)), load128(t + (two >> 16)), 1);
}

/* four vectors of 4. A broadcast from memory and a blend need no shuffle port, of which some CPUs have one. */
INLINE __m256i four_vectors(const int16_t (*table)[4], const uint16_t *at)
{
    uint64_t four = load_u64(at);
    __m256i low = _mm256_blend_epi32(all_u64(table[(uint16_t)four]), all_u64(table[(uint16_t)(four >> 16)]), 0x0c);
    __m256i high = _mm256_blend_epi32(all_u64(table[(uint16_t)(four >> 32)]), all_u64(table[four >> 48]), 0xc0);
    return _mm256_blend_epi32(low, high, 0xf0);
}

/* two vectors of 8 bytes, widened */
INLINE __m256i two_byte_vectors(const int8_t (*table)[8], const uint16_t *at)
{
    uint32_t two = load_u32(at);
    __m128i low = _mm_cvtsi64_si128((int64_t)load_u64(table[(uint16_t)two]));
    return _mm256_cvtepi8_epi16(_mm_insert_epi64(low, (int64_t)load_u64(table[two >> 16]), 1));
}

/* ---- scales ---- */

INLINE __m256 scaled8(__m256i sc, uint16_t d, float add, float factor)
{
    __m256 v = _mm256_mul_ps(_mm256_set1_ps(half_to_float(d)), _mm256_add_ps(_mm256_set1_ps(add), _mm256_cvtepi32_ps(sc)));
    return factor == 1.0f ? v : _mm256_mul_ps(v, _mm256_set1_ps(factor));
}

/* eight nibbles, lowest first */
INLINE __m256i eight_nibbles(uint32_t v)
{
    __m256i n = _mm256_srlv_epi32(_mm256_set1_epi32((int)v), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    return _mm256_and_si256(n, _mm256_set1_epi32(15));
}

/* 16 scales of 4 bits */
INLINE void put_scales_of_nibbles(struct book *o, const uint8_t scales[8], uint16_t d)
{
    put_scale8(o, 0, scaled8(eight_nibbles(load_u32(scales)), d, 0.5f, 0.25f));
    put_scale8(o, 8, scaled8(eight_nibbles(load_u32(scales + 4)), d, 0.5f, 0.25f));
}

/* ---- superblocks with a codebook ---- */

INLINE void open_iq2_xxs(const void *block, struct book *o)
{
    const struct block_iq2_xxs *b = block;
    __m256 low = _mm256_castsi256_ps(load256(b->group)), high = _mm256_castsi256_ps(load256(b->group + 4));
    __m256i qs = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(low, high, 0x88)), 0xd8);
    __m256i signs = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(low, high, 0xdd)), 0xd8);
    put_at(o, 0, _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm256_castsi256_si128(qs)), 4));
    put_at(o, 16, _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm256_extracti128_si256(qs, 1)), 4));
    put_bits(o, signs_of_28_bits(signs));
    put_scale8(o, 0, scaled8(_mm256_srli_epi32(signs, 28), b->d, 0.5f, 0.25f));
}
INLINE __m256i codes_iq2_xxs(const struct book *o, int i) { return signed16(o, i, two_vectors(iq2_xxs_vectors, o->at + 2 * i)); }

INLINE void open_iq2_xs(const void *block, struct book *o)
{
    const struct block_iq2_xs *b = block;
    __m256i q0 = load256(b->qs), q1 = load256(b->qs + 16), index = _mm256_set1_epi16(511 << 4);
    put_at(o, 0, _mm256_and_si256(_mm256_slli_epi16(q0, 4), index));
    put_at(o, 16, _mm256_and_si256(_mm256_slli_epi16(q1, 4), index));
    __m256i seven = _mm256_packus_epi16(_mm256_srli_epi16(q0, 9), _mm256_srli_epi16(q1, 9));
    put_bits(o, signs_of_7_bits(_mm256_permute4x64_epi64(seven, 0xd8)));
    put_scales_of_nibbles(o, b->scales, b->d);
}
INLINE __m256i codes_iq2_xs(const struct book *o, int i) { return signed16(o, i, two_vectors(iq2_xs_vectors, o->at + 2 * i)); }

/* words 4j .. 4j + 3 = byte j of v */
INLINE __m256i four_times(uint32_t v)
{
    const char z = -128;
    __m256i at = _mm256_setr_epi8(0, z, 0, z, 0, z, 0, z, 1, z, 1, z, 1, z, 1, z, 2, z, 2, z, 2, z, 2, z, 3, z, 3, z, 3, z, 3, z);
    return _mm256_shuffle_epi8(_mm256_set1_epi32((int)v), at);
}

INLINE void open_iq2_s(const void *block, struct book *o)
{
    const struct block_iq2_s *b = block;
    __m256i up = _mm256_set1_epi64x(0x0040010004001000), index = _mm256_set1_epi16(3 << 12);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m256i high = _mm256_and_si256(_mm256_mullo_epi16(four_times(load_u32(b->qh + 4 * h)), up), index);
        put_at(o, 16 * h, _mm256_or_si256(_mm256_slli_epi16(bytes_to_words(b->qs + 16 * h), 4), high));
    }
    put_bits(o, load256(b->signs));
    put_scales_of_nibbles(o, b->scales, b->d);
}
INLINE __m256i codes_iq2_s(const struct book *o, int i) { return signed16(o, i, two_vectors(iq2_s_vectors, o->at + 2 * i)); }

INLINE void open_iq3_xxs(const void *block, struct book *o)
{
    const struct block_iq3_xxs *b = block;
    __m256i signs = load256(b->signs);
#pragma GCC unroll 4
    for (int v = 0; v < 64; v += 16) put_at(o, v, bytes_to_words(b->qs + v));
    put_bits(o, signs_of_28_bits(signs));
    put_scale8(o, 0, scaled8(_mm256_srli_epi32(signs, 28), b->d, 0.5f, 0.5f));
}
INLINE __m256i codes_iq3_xxs(const struct book *o, int i) { return signed16(o, i, four_vectors(iq3_xxs_vectors, o->at + 4 * i)); }

INLINE void open_iq3_s(const void *block, struct book *o)
{
    const struct block_iq3_s *b = block;
    const char z = -128;
    __m256i eight = _mm256_setr_epi8(0, z, 0, z, 0, z, 0, z, 0, z, 0, z, 0, z, 0, z, 1, z, 1, z, 1, z, 1, z, 1, z, 1, z, 1, z, 1, z);
    __m256i up = _mm256_broadcastsi128_si256(_mm_setr_epi16(256, 128, 64, 32, 16, 8, 4, 2));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        uint16_t bits;
        memcpy(&bits, b->qh + 2 * i, sizeof bits);
        __m256i high = _mm256_mullo_epi16(_mm256_shuffle_epi8(_mm256_set1_epi16((short)bits), eight), up);
        put_at(o, 16 * i, _mm256_or_si256(bytes_to_words(b->qs + 16 * i), _mm256_and_si256(high, _mm256_set1_epi16(256))));
    }
    put_bits(o, load256(b->signs));
    put_scale8(o, 0, scaled8(eight_nibbles(load_u32(b->scales)), b->d, 0.5f, 2.0f));
}
INLINE __m256i codes_iq3_s(const struct book *o, int i) { return signed16(o, i, four_vectors(iq3_s_vectors, o->at + 4 * i)); }

/* ---- iq1 ---- */

INLINE void open_iq1_s(const void *block, struct book *o)
{
    const struct block_iq1_s *b = block;
    __m256i up = _mm256_set1_epi64x(0x0001000800400200);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        uint64_t four;
        memcpy(&four, b->qh + 4 * h, sizeof four);
        __m256i at = _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7);
        __m256i high = _mm256_mullo_epi16(_mm256_shuffle_epi8(_mm256_set1_epi64x((long long)four), at), up);
        high = _mm256_srli_epi16(_mm256_and_si256(high, _mm256_set1_epi16(7 << 9)), 1);
        put_at(o, 16 * h, _mm256_or_si256(bytes_to_words(b->qs + 16 * h), high));
    }
    __m256i qh = _mm256_cvtepu16_epi32(load128(b->qh));
    __m256 scale = scaled8(_mm256_and_si256(_mm256_srli_epi32(qh, 12), _mm256_set1_epi32(7)), b->d, 0.5f, 0.25f);
    put_scale8(o, 0, scale);
    _mm256_store_ps(o->shift, _mm256_xor_ps(scale, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(qh, 15), 31))));
}
/* without the shift of +-1 */
INLINE __m256i codes_iq1_s(const struct book *o, int i) { return two_byte_vectors(iq1_vectors, o->at + 2 * i); }

/* sign[i]: the shifts of vectors 2i and 2i + 1 as words. No bits. */
INLINE void open_iq1_m(const void *block, struct book *o)
{
    const struct block_iq1_m *b = block;
    const char z = -128;
    __m256i twice = _mm256_setr_epi8(0, z, 0, z, 1, z, 1, z, 2, z, 2, z, 3, z, 3, z, 4, z, 4, z, 5, z, 5, z, 6, z, 6, z, 7, z, 7, z);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        uint64_t nibbles;
        memcpy(&nibbles, b->qh + 8 * h, sizeof nibbles);
        __m256i high = _mm256_mullo_epi16(_mm256_shuffle_epi8(_mm256_set1_epi64x((long long)nibbles), twice), _mm256_set1_epi32(0x00100100));
        put_at(o, 16 * h, _mm256_or_si256(bytes_to_words(b->qs + 16 * h), _mm256_and_si256(high, _mm256_set1_epi16(7 << 8))));
        __m256i minus = _mm256_and_si256(_mm256_srli_epi16(high, 10), _mm256_set1_epi16(2));
        _mm256_store_si256((__m256i *)(o->sign + 8 * h), _mm256_sub_epi16(_mm256_set1_epi16(1), minus));
    }
    uint64_t s;
    memcpy(&s, b->scales, sizeof s);
    uint16_t d = (uint16_t)((s >> 12 & 0x000f) | (s >> 24 & 0x00f0) | (s >> 36 & 0x0f00) | (s >> 48 & 0xf000));
    __m256i four = _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7);
    __m256i sc = _mm256_mullo_epi16(_mm256_shuffle_epi8(_mm256_set1_epi64x((long long)s), four), _mm256_set1_epi64x(0x0010008004002000));
    sc = _mm256_srli_epi16(sc, 13);
    put_scale8(o, 0, scaled8(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(sc)), d, 0.5f, 0.25f));
    put_scale8(o, 8, scaled8(_mm256_cvtepu16_epi32(_mm256_extracti128_si256(sc, 1)), d, 0.5f, 0.25f));
}
INLINE __m256i codes_iq1_m(const struct book *o, int i)
{
    __m256i spread = _mm256_setr_epi64x(0x0100010001000100, 0x0100010001000100, 0x0302030203020302, 0x0302030203020302);
    __m256i shift = _mm256_shuffle_epi8(_mm256_set1_epi32((int)o->sign[i]), spread);
    return _mm256_add_epi16(two_byte_vectors(iq1_vectors, o->at + 2 * i), shift);
}

/* ---- 16 levels ---- */

/* word i = the levels of the low and the high nibble of byte i, in its low and high byte */
INLINE __m256i level_pairs(const uint8_t qs[16], __m256i levels)
{
    __m256i v = bytes_to_words(qs);
    return _mm256_shuffle_epi8(levels, _mm256_and_si256(_mm256_or_si256(v, _mm256_slli_epi16(v, 4)), _mm256_set1_epi8(15)));
}

INLINE __m256 scales_iq4_xs(const struct block_iq4_xs *b)
{
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(b->scales_h), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4);
    return scaled8(_mm256_or_si256(eight_nibbles(load_u32(b->scales_l)), high), b->d, -32.0f, 1.0f);
}

/* 2^(e - 128) of eight dwords */
INLINE __m256 exponents_to_halves(__m256i e)
{
    __m256i one = _mm256_set1_epi32(1), denormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(denormal, normal, _mm256_cmpgt_epi32(e, one)));
}

/* of 8 mxfp4 blocks */
INLINE __m256 scales8_mxfp4(const uint8_t *w)
{
    __m128i head = heads_u16(w, sizeof(struct block_mxfp4));
    return exponents_to_halves(_mm256_cvtepu16_epi32(_mm_and_si128(head, _mm_set1_epi16(255))));
}
INLINE float scale_mxfp4(const uint8_t *w) { return _mm256_cvtss_f32(exponents_to_halves(_mm256_set1_epi32(w[0]))); }

/* the four scales of an nvfp4 block: as half floats they are 2^8 too small, and codes are twice the value */
INLINE __m128 scales_nvfp4(const uint8_t d[4])
{
    __m128i v = _mm_cvtepu8_epi16(_mm_cvtsi32_si128((int)load_u32(d))), nan = _mm_set1_epi16(0x7f);
    __m128i half = _mm_slli_epi16(_mm_and_si128(v, nan), 7);
    return _mm_mul_ps(_mm_cvtph_ps(_mm_andnot_si128(_mm_cmpeq_epi16(v, nan), half)), _mm_set1_ps(128.0f));
}

/* ---- trits ---- */

/* digit n of the bytes that stand in the high halves of words: 0..2. power = 3^n */
INLINE __m256i digits(__m256i v, __m256i power) { return _mm256_mulhi_epu16(_mm256_mullo_epi16(v, power), _mm256_set1_epi16(3)); }
INLINE __m256i to_high_bytes(const uint8_t qs[16]) { return _mm256_slli_epi16(bytes_to_words(qs), 8); }

struct trits { __m256i v[3], last; };
INLINE struct trits open_tq1_0(const struct block_tq1_0 *b)
{
    const char z = -128;
    __m256i four = _mm256_broadcastsi128_si256(_mm_setr_epi8(z, 0, z, 1, z, 2, z, 3, z, 0, z, 1, z, 2, z, 3));
    return (struct trits){ { to_high_bytes(b->qs), to_high_bytes(b->qs + 16), to_high_bytes(b->qs + 32) },
                           _mm256_shuffle_epi8(_mm256_set1_epi32((int)load_u32(b->qh)), four) };
}
/* codes 16i .. 16i + 15 plus 1; i is a constant */
INLINE __m256i codes_tq1_0(const struct trits *t, int i)
{
    static const short power[5] = { 1, 3, 9, 27, 81 };
    if (i == 15) return digits(t->last, _mm256_setr_epi16(1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27));
    return i < 10 ? digits(t->v[i % 2], _mm256_set1_epi16(power[i / 2])) : digits(t->v[2], _mm256_set1_epi16(power[i - 10]));
}

/* ---- bits ---- */

/* q2_0: codes plus 1 of the 16 weights in 4 bytes, times 64 */
INLINE __m256i codes_q2_0(uint32_t v)
{
    __m256i one = _mm256_and_si256(four_times(v), _mm256_set1_epi64x(0x00c00030000c0003));
    return _mm256_mullo_epi16(one, _mm256_set1_epi64x(0x0001000400100040));
}

/* word i = -1 where bit i of the 16 that stand at byte `at` of every dword is set */
INLINE __m256i set_bits16(__m256i v, char at)
{
    __m256i one_byte = _mm256_setr_epi64x(0, 0, 0x0101010101010101, 0x0101010101010101);
    __m256i bit = _mm256_setr_epi16(0x0101, 0x0202, 0x0404, 0x0808, 0x1010, 0x2020, 0x4040, -0x7f80, 0x0101, 0x0202, 0x0404, 0x0808, 0x1010,
                                    0x2020, 0x4040, -0x7f80);
    v = _mm256_shuffle_epi8(v, _mm256_add_epi8(one_byte, _mm256_set1_epi8(at)));
    return _mm256_cmpeq_epi16(_mm256_and_si256(v, bit), bit);
}

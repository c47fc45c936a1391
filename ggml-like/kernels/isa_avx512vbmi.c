/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi */
/* isa_avx512vbmi - codebooks looked up in registers: AVX-512 with VBMI (Ice Lake, Zen 4 and later).
 *
 * Loading a vector of a codebook for every index costs a load, an insert and general instructions, which bounds the AVX2 row-dots. Here the
 * codebook stays compressed, a level number of 2 or 3 bits an element, cut into two tables of bytes: vpermi2b looks 64 indices up at once in 128
 * entries, a multishift cuts the numbers out of the entries, a byte permutation makes levels of them. Signs are masks.
 *
 * Codes come in registers of 64, each in the order A0 B0 A1 B1 A2 B2 A3 B3: eights of group of 32 number 2j and of group 2j + 1 in turn, so
 * that interleaving with zeros, cheaper than widening, leaves one group in each register of words. The order costs nothing: the permutation
 * that collects the indices makes it. A superblock of iq2 has 32 indices, so two superblocks are opened together. */
#include "ggml-like/kernels/avx512_legacy.h"

/* In that order, qword q of register j holds this one of the superblock's 32 eights: */
#define EIGHTH(q, j) (8 * (j) + 4 * ((q) % 2) + (q) / 2)
#define EACH_QWORD(X, ...) X(0, __VA_ARGS__), X(1, __VA_ARGS__), X(2, __VA_ARGS__), X(3, __VA_ARGS__), X(4, __VA_ARGS__), X(5, __VA_ARGS__), \
                           X(6, __VA_ARGS__), X(7, __VA_ARGS__)

/* Two superblocks. */
struct book {
    __m512i code[8];                                           /* magnitudes */
    struct signs { _Alignas(64) uint64_t mask[8]; } *negative; /* bit i: element i of code[j] */
    __m512 scale[2];                                           /* of 16 groups of 16; or of 8 groups of 32, in the lower half */
};

INLINE __m512i all_u64(const void *p) { return _mm512_set1_epi64((int64_t)load_u64(p)); }
/* One load: the bytes lie across cache lines. */
INLINE __m512i load_once(const void *p)
{
    __m512i v = load512(p);
    ONCE(v);
    return v;
}
INLINE __m512i low_half(__m256i v) { return _mm512_castsi256_si512(v); }
INLINE __m512i halves(__m256i low, __m256i high) { return _mm512_inserti64x4(low_half(low), high, 1); }

/* ---- signs ---- */

#define SIGN_2(n, odd) (n) | ((odd) ? 128 : 0), ((n) + 1) | ((odd) ? 0 : 128)
#define SIGN_4(n, odd) SIGN_2(n, odd), SIGN_2((n) + 2, !(odd))
#define SIGN_8(n, odd) SIGN_4(n, odd), SIGN_4((n) + 4, !(odd))
#define SIGN_16(n, odd) SIGN_8(n, odd), SIGN_8((n) + 8, !(odd))
#define SIGN_32(n, odd) SIGN_16(n, odd), SIGN_16((n) + 16, !(odd))
#define SIGN_64(n, odd) SIGN_32(n, odd), SIGN_32((n) + 32, !(odd))
static const _Alignas(64) uint8_t even_signs[128] = { SIGN_64(0, 0), SIGN_64(64, 1) };

/* The bytes are the signs of the eights in order. Stored, because masks come from memory without a shuffle. */
INLINE void put_signs(struct book *o, __m512i signs)
{
    _mm512_store_si512(o->negative->mask, signs);
    __asm__ volatile("" : "+m"(*o->negative));
}

/* The same from seven signs each (bit 7 of the bytes is ignored): the number of set bits is even. */
INLINE void put_signs_of_7(struct book *o, __m512i seven)
{
    put_signs(o, _mm512_permutex2var_epi8(load512(even_signs), seven, load512(even_signs + 64)));
}

/* ---- scales ---- */

INLINE __m512 scaled(__m512i sc, uint16_t d, float add, float factor)
{
    return _mm512_mul_ps(_mm512_add_ps(_mm512_cvtepi32_ps(sc), _mm512_set1_ps(add)), _mm512_set1_ps(half_to_float(d) * factor));
}

/* 16 nibbles of 8 bytes */
INLINE __m512i nibbles16(const uint8_t *p)
{
    __m512i at = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60);
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(at, all_u64(p)), _mm512_set1_epi32(15));
}

/* ---- looking up ---- */

/* 64 indices: the low bytes, and as masks the bits 8 and 9 of those that have them */
struct indices { __m512i low; __mmask64 eighth, ninth; };

/* table: 256, 512 or 1024 entries */
INLINE __m512i look_up(const uint8_t *table, int entries, struct indices at)
{
    __m512i v[8];
    __mmask64 seventh = _mm512_movepi8_mask(at.low);
UNROLL
    for (int i = 0; i < entries / 128; i++) v[i] = _mm512_permutex2var_epi8(load512(table + 128 * i), at.low, load512(table + 128 * i + 64));
UNROLL
    for (int i = 0; i < entries / 256; i++) v[i] = _mm512_mask_blend_epi8(seventh, v[2 * i], v[2 * i + 1]);
UNROLL
    for (int i = 0; i < entries / 512; i++) v[i] = _mm512_mask_blend_epi8(at.eighth, v[2 * i], v[2 * i + 1]);
    return entries == 1024 ? _mm512_mask_blend_epi8(at.ninth, v[0], v[1]) : v[0];
}

/* ---- iq2: an entry is a word of eight level numbers of 2 bits ---- */

/* Once the two bytes of an entry stand side by side, byte 16l + 8i + k of the indices is word 8l + k of superblock i. Word 4q + j of a superblock
 * becomes the eight q of its register j: one multishift a register cuts it apart. */
#define EACH_LANE(X) X(0), X(2), X(4), X(6)
#define WORD_OF(F, q, i) F(EIGHTH(q, 0), i), F(EIGHTH(q, 1), i), F(EIGHTH(q, 2), i), F(EIGHTH(q, 3), i)
#define LANE_OF(F, q) WORD_OF(F, q, 0), WORD_OF(F, (q) + 1, 0), WORD_OF(F, q, 1), WORD_OF(F, (q) + 1, 1)
#define TWO_BITS(q, j) 16 * (j), 16 * (j) + 2, 16 * (j) + 4, 16 * (j) + 6, 16 * (j) + 8, 16 * (j) + 10, 16 * (j) + 12, 16 * (j) + 14
static const _Alignas(64) uint8_t cut_two[4][64] = {
    { EACH_QWORD(TWO_BITS, 0) }, { EACH_QWORD(TWO_BITS, 1) }, { EACH_QWORD(TWO_BITS, 2) }, { EACH_QWORD(TWO_BITS, 3) },
};

INLINE void put_codes_iq2(struct book *o, const uint8_t *low, const uint8_t *high, int entries, struct indices at)
{
    __m512i levels = _mm512_set1_epi32((int)load_u32(iq2_levels)); /* by the two low bits of whatever stands above them */
    __m512i first = look_up(low, entries, at), second = look_up(high, entries, at);
    __m512i words[2] = { _mm512_unpacklo_epi8(first, second), _mm512_unpackhi_epi8(first, second) };
UNROLL
    for (int j = 0; j < 8; j++)
        o->code[j] = _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(load512(cut_two[j % 4]), words[j / 4]), levels);
}

/* Bytes of block.group[] of the first superblock, then of the second: qs[i] of group g is 8g + i, its signs start at 8g + 4. */
#define INDEX_XXS(v, i) 64 * (i) + (v) / 4 * 8 + (v) % 4
#define LANE_XXS(q) LANE_OF(INDEX_XXS, q)
#define SIGNS_XXS(j) 16 * (j), 16 * (j) + 8, 16 * (j) + 1, 16 * (j) + 9, 16 * (j) + 2, 16 * (j) + 10, 16 * (j) + 3, 16 * (j) + 11
static const _Alignas(64) uint8_t at_iq2_xxs[64] = { EACH_LANE(LANE_XXS) };
static const _Alignas(64) uint8_t signs_iq2_xxs[64] = {
    SIGNS_XXS(0), SIGNS_XXS(1), SIGNS_XXS(2), SIGNS_XXS(3), SIGNS_XXS(4), SIGNS_XXS(5), SIGNS_XXS(6), SIGNS_XXS(7),
};

INLINE void open_iq2_xxs(const void *first, const void *second, struct book *o)
{
    const struct block_iq2_xxs *b[2] = { first, second };
    __m512i raw[2] = { load_once(b[0]->group), load_once(b[1]->group) }, seven[2];
UNROLL
    for (int i = 0; i < 2; i++) {
        seven[i] = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x352e2720), raw[i]);
        o->scale[i] = scaled(low_half(_mm512_cvtepi64_epi32(_mm512_srli_epi64(raw[i], 60))), b[i]->d, 0.5f, 0.25f);
    }
    put_signs_of_7(o, _mm512_permutex2var_epi8(seven[0], load512(signs_iq2_xxs), seven[1]));
    struct indices at = { .low = _mm512_permutex2var_epi8(raw[0], load512(at_iq2_xxs), raw[1]) };
    put_codes_iq2(o, iq2_xxs_bytes[0], iq2_xxs_bytes[1], 256, at);
}

#define LOW_XS(v, i) 64 * (i) + 2 * (v)
#define HIGH_XS(v, i) 64 * (i) + 2 * (v) + 1
#define LANE_LOW_XS(q) LANE_OF(LOW_XS, q)
#define LANE_HIGH_XS(q) LANE_OF(HIGH_XS, q)
#define SIGNS_XS(q, j) 64 * ((j) / 4) + 2 * EIGHTH(q, (j) % 4)
static const _Alignas(64) uint8_t at_iq2_xs[2][64] = { { EACH_LANE(LANE_LOW_XS) }, { EACH_LANE(LANE_HIGH_XS) } };
static const _Alignas(64) uint8_t signs_iq2_xs[64] = {
    EACH_QWORD(SIGNS_XS, 0), EACH_QWORD(SIGNS_XS, 1), EACH_QWORD(SIGNS_XS, 2), EACH_QWORD(SIGNS_XS, 3),
    EACH_QWORD(SIGNS_XS, 4), EACH_QWORD(SIGNS_XS, 5), EACH_QWORD(SIGNS_XS, 6), EACH_QWORD(SIGNS_XS, 7),
};

INLINE void open_iq2_xs(const void *first, const void *second, struct book *o)
{
    const struct block_iq2_xs *b[2] = { first, second };
    __m512i raw[2] = { load_once(b[0]->qs), load_once(b[1]->qs) };
    put_signs_of_7(o, _mm512_permutex2var_epi8(_mm512_srli_epi16(raw[0], 9), load512(signs_iq2_xs), _mm512_srli_epi16(raw[1], 9)));
    __m512i high = _mm512_permutex2var_epi8(raw[0], load512(at_iq2_xs[1]), raw[1]);
    struct indices at = { .low = _mm512_permutex2var_epi8(raw[0], load512(at_iq2_xs[0]), raw[1]),
                          .eighth = _mm512_test_epi8_mask(high, _mm512_set1_epi8(1)) };
    put_codes_iq2(o, iq2_xs_bytes[0], iq2_xs_bytes[1], 512, at);
UNROLL
    for (int i = 0; i < 2; i++) o->scale[i] = scaled(nibbles16(b[i]->scales), b[i]->d, 0.5f, 0.25f);
}

/* qs and signs of the first superblock, then of the second; bits of qh, whose qwords stand in turn */
#define LOW_S(v, i) 64 * (i) + (v)
#define HIGH_S(v, i) 2 * (v)
#define LANE_LOW_S(q) LANE_OF(LOW_S, q)
#define LANE_HIGH_S(q) LANE_OF(HIGH_S, q)
#define SIGNS_S(q, j) 64 * ((j) / 4) + 32 + EIGHTH(q, (j) % 4)
static const _Alignas(64) uint8_t at_iq2_s[2][64] = { { EACH_LANE(LANE_LOW_S) }, { EACH_LANE(LANE_HIGH_S) } };
static const _Alignas(64) uint8_t signs_iq2_s[64] = {
    EACH_QWORD(SIGNS_S, 0), EACH_QWORD(SIGNS_S, 1), EACH_QWORD(SIGNS_S, 2), EACH_QWORD(SIGNS_S, 3),
    EACH_QWORD(SIGNS_S, 4), EACH_QWORD(SIGNS_S, 5), EACH_QWORD(SIGNS_S, 6), EACH_QWORD(SIGNS_S, 7),
};

INLINE void open_iq2_s(const void *first, const void *second, struct book *o)
{
    const struct block_iq2_s *b[2] = { first, second };
    __m512i raw[2] = { load_once(b[0]->qs), load_once(b[1]->qs) };
    put_signs(o, _mm512_permutex2var_epi8(raw[0], load512(signs_iq2_s), raw[1]));
    __m512i high = _mm512_multishift_epi64_epi8(load512(at_iq2_s[1]), _mm512_unpacklo_epi64(all_u64(b[0]->qh), all_u64(b[1]->qh)));
    struct indices at = { .low = _mm512_permutex2var_epi8(raw[0], load512(at_iq2_s[0]), raw[1]),
                          .eighth = _mm512_test_epi8_mask(high, _mm512_set1_epi8(1)),
                          .ninth = _mm512_test_epi8_mask(high, _mm512_set1_epi8(2)) };
    put_codes_iq2(o, iq2_s_bytes[0], iq2_s_bytes[1], 1024, at);
UNROLL
    for (int i = 0; i < 2; i++) o->scale[i] = scaled(nibbles16(b[i]->scales), b[i]->d, 0.5f, 0.25f);
}

/* ---- iq3: an entry is two bytes of two level numbers of 3 bits ---- */

/* Byte 16l + 8i + 4h + 2k + e of the indices is vector e of the eight that becomes qword 2l + h of register 2i + k, once the two bytes of an
 * entry stand side by side and multishifts have cut two of the four words of a qword. */
#define PAIR_IQ3(l, i, h, k) 2 * EIGHTH(2 * (l) + (h), 2 * (i) + (k)), 2 * EIGHTH(2 * (l) + (h), 2 * (i) + (k)) + 1
#define HALF_IQ3(l, i) PAIR_IQ3(l, i, 0, 0), PAIR_IQ3(l, i, 0, 1), PAIR_IQ3(l, i, 1, 0), PAIR_IQ3(l, i, 1, 1)
#define THREE_BITS(q, from) (from), (from) + 3, (from) + 8, (from) + 11, (from) + 16, (from) + 19, (from) + 24, (from) + 27
static const _Alignas(64) uint8_t at_iq3[64] = {
    HALF_IQ3(0, 0), HALF_IQ3(0, 1), HALF_IQ3(1, 0), HALF_IQ3(1, 1), HALF_IQ3(2, 0), HALF_IQ3(2, 1), HALF_IQ3(3, 0), HALF_IQ3(3, 1),
};
static const _Alignas(64) uint8_t cut_three[2][64] = { { EACH_QWORD(THREE_BITS, 0) }, { EACH_QWORD(THREE_BITS, 32) } };

INLINE void put_codes_iq3(__m512i code[4], const uint8_t *low, const uint8_t *high, int entries, struct indices at, const int8_t levels[8])
{
    __m512i table = all_u64(levels), first = look_up(low, entries, at), second = look_up(high, entries, at);
    __m512i words[2] = { _mm512_unpacklo_epi8(first, second), _mm512_unpackhi_epi8(first, second) };
UNROLL
    for (int j = 0; j < 4; j++)
        code[j] = _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(load512(cut_three[j % 2]), words[j / 2]), table);
}

INLINE void open_iq3_xxs(const void *first, const void *second, struct book *o)
{
    const struct block_iq3_xxs *b[2] = { first, second };
    __m512i signs = halves(load256(b[0]->signs), load256(b[1]->signs)), sc = _mm512_srli_epi32(signs, 28);
    put_signs_of_7(o, _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x35152e0e27072000), signs));
UNROLL
    for (int i = 0; i < 2; i++) {
        struct indices at = { .low = _mm512_permutexvar_epi8(load512(at_iq3), load512(b[i]->qs)) };
        put_codes_iq3(o->code + 4 * i, iq3_xxs_pairs[0], iq3_xxs_pairs[1], 256, at, iq3_xxs_levels);
        o->scale[i] = scaled(low_half(i ? _mm512_extracti64x4_epi64(sc, 1) : _mm512_castsi512_si256(sc)), b[i]->d, 0.5f, 0.5f);
    }
}

INLINE void open_iq3_s(const void *first, const void *second, struct book *o)
{
    const struct block_iq3_s *b[2] = { first, second };
    __m512i signs = halves(load256(b[0]->signs), load256(b[1]->signs));
    put_signs(o, _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x3818301028082000), signs));
UNROLL
    for (int i = 0; i < 2; i++) {
        __m512i all = load512(at_iq3), high = _mm512_multishift_epi64_epi8(all, all_u64(b[i]->qh));
        struct indices at = { .low = _mm512_permutexvar_epi8(all, load512(b[i]->qs)), .eighth = _mm512_test_epi8_mask(high, _mm512_set1_epi8(1)) };
        put_codes_iq3(o->code + 4 * i, iq3_s_pairs[0], iq3_s_pairs[1], 512, at, iq3_s_levels);
        __m512i sc = low_half(_mm256_srlv_epi32(_mm256_set1_epi32((int)load_u32(b[i]->scales)), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)));
        o->scale[i] = scaled(_mm512_and_si512(sc, _mm512_set1_epi32(15)), b[i]->d, 0.5f, 2.0f);
    }
}

/* ---- row-dots ---- */

INLINE __m512i signed_codes(const struct book *o, int j)
{
    return _mm512_mask_sub_epi8(o->code[j], o->negative->mask[j], _mm512_setzero_si512(), o->code[j]);
}

/* Two superblocks ready to be multiplied. */
struct opened {
    __m512i code[8];    /* with signs */
    __m512 scale[2][2]; /* groups of 16: of those that are the lower half of a register of words, twice, then of the others, twice; 4 registers each */
};

/* s: where 8 scales of groups of 32 are parked */
INLINE void open_scaled(struct opened *v, const uint8_t *w, size_t next, const float *d, const float *d_next, float s[2][16], bool group16,
                        void (*open)(const void *, const void *, struct book *))
{
    struct signs negative;
    struct book o = { .negative = &negative };
    open(w, w + next, &o);
UNROLL
    for (int j = 0; j < 8; j++) v->code[j] = signed_codes(&o, j);
UNROLL
    for (int i = 0; i < 2; i++) {
        const float *dx = i ? d_next : d;
        if (group16) {
            __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6, 1, 3, 5, 7, 1, 3, 5, 7);
            __m512 scale = _mm512_mul_ps(o.scale[i], twice(dx));
            v->scale[i][0] = _mm512_permutexvar_ps(at, scale);
            v->scale[i][1] = _mm512_permutexvar_ps(_mm512_or_si512(at, _mm512_set1_epi32(8)), scale);
        } else {
            park(s[i], _mm512_castps256_ps512(_mm256_mul_ps(_mm512_castps512_ps256(o.scale[i]), _mm256_loadu_ps(dx))));
        }
    }
}

INLINE __m512 scale_of_16(const __m512 scale[2], int g)
{
    __m512i four = _mm512_castps_si512(scale[g / 4]);
    return _mm512_castsi512_ps(g % 4 == 0   ? _mm512_shuffle_epi32(four, 0x00)
                               : g % 4 == 1 ? _mm512_shuffle_epi32(four, 0x55)
                               : g % 4 == 2 ? _mm512_shuffle_epi32(four, 0xaa)
                                            : _mm512_shuffle_epi32(four, 0xff));
}

/* One superblock. The words are 256 times the codes, so the sums of the products reach 62 * 256 * 32767 * 2 < 2^30. */
INLINE void multiply(__m512 acc[4], const __m512i code[4], const __m512 scale[2], const float s[16], const int16_t *y, bool group16)
{
    __m512i zero = _mm512_setzero_si512();
UNROLL
    for (int g = 0; g < 8; g++) {
        __m512i words = g % 2 ? _mm512_unpackhi_epi8(zero, code[g / 2]) : _mm512_unpacklo_epi8(zero, code[g / 2]);
        __m512 dot = _mm512_cvtepi32_ps(_mm512_madd_epi16(words, load_y(y + 32 * g)));
        acc[g % 4] = _mm512_fmadd_ps(dot, group16 ? scale_of_16(scale, g) : _mm512_set1_ps(s[g]), acc[g % 4]);
    }
}

/* Two superblocks are opened while the two before them are multiplied: the chain from bytes to codes is longer than the schedulers reach. The
 * last of an odd number is opened twice and multiplied once. */
INLINE float rowdot_book(const uint8_t *w, const struct act_row *x, int64_t k, size_t bytes, bool group16,
                         void (*open)(const void *, const void *, struct book *))
{
    __m512 acc[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
    _Alignas(64) float s[2][2][16];
    struct opened now, then;
    int64_t n = k / CHUNK, i = 0;
    const float *d = x->d;
    const int16_t *y = x->y;
    if (n == 0) return 0.0f;
    open_scaled(&now, w, n > 1 ? bytes : 0, d, n > 1 ? d + 8 : d, s[0], group16, open);
    for (;; i += 2, y += 2 * CHUNK) {
        prefetch(w, bytes), prefetch(w + bytes, bytes);
        w += 2 * bytes, d += 16;
        if (i + 2 >= n) break;
        bool two = i + 3 < n;
        open_scaled(&then, w, two ? bytes : 0, d, two ? d + 8 : d, s[1 - i / 2 % 2], group16, open);
        multiply(acc, now.code, now.scale[0], s[i / 2 % 2][0], y, group16);
        multiply(acc, now.code + 4, now.scale[1], s[i / 2 % 2][1], y + CHUNK, group16);
        now = then;
    }
    multiply(acc, now.code, now.scale[0], s[i / 2 % 2][0], y, group16);
    if (i + 1 < n) multiply(acc, now.code + 4, now.scale[1], s[i / 2 % 2][1], y + CHUNK, group16);
    __m512 sum = _mm512_add_ps(_mm512_add_ps(acc[0], acc[1]), _mm512_add_ps(acc[2], acc[3]));
    return sum_ps(fold(sum)) * (1.0f / 256);
}

/* ---- unpacking ---- */

INLINE void unpack_book(const void *block, struct codes *out, bool group16, void (*open)(const void *, const void *, struct book *))
{
    __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    struct signs negative;
    struct book o = { .negative = &negative };
    open(block, block, &o);
UNROLL
    for (int j = 0; j < 4; j++) _mm512_store_si512(out->code + 64 * j, _mm512_permutexvar_epi64(in_order, signed_codes(&o, j)));
    _mm512_store_ps(out->scale, group16 ? o.scale[0] : _mm512_maskz_mov_ps(0xff, o.scale[0]));
    _mm512_store_ps(out->min, _mm512_setzero_ps());
}

#define BOOK(name, group16)                                                                                                     \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                               \
    {                                                                                                                           \
        return rowdot_book(w, x, k, sizeof(struct block_##name), group16, open_##name);                                         \
    }                                                                                                                           \
    static void unpack_##name(const void *block, struct codes *out) { unpack_book(block, out, group16, open_##name); }
BOOK(iq2_xxs, false) BOOK(iq2_xs, true) BOOK(iq2_s, true) BOOK(iq3_xxs, false) BOOK(iq3_s, false)

/* ---- fifth bits ---- */

/* Where the eight bits begin whose highest is the fifth bit of code i of a block: its 32 bits stand twice in every qword. */
#define FIFTH_AT(i) ((i) + 57) % 64
#define FIFTHS(q, half) FIFTH_AT(16 * (half) + 8 * ((q) % 2)), FIFTH_AT(16 * (half) + 8 * ((q) % 2) + 1), FIFTH_AT(16 * (half) + 8 * ((q) % 2) + 2), \
                        FIFTH_AT(16 * (half) + 8 * ((q) % 2) + 3), FIFTH_AT(16 * (half) + 8 * ((q) % 2) + 4), FIFTH_AT(16 * (half) + 8 * ((q) % 2) + 5), \
                        FIFTH_AT(16 * (half) + 8 * ((q) % 2) + 6), FIFTH_AT(16 * (half) + 8 * ((q) % 2) + 7)
static const _Alignas(64) uint8_t at_fifth[2][64] = { { EACH_QWORD(FIFTHS, 0) }, { EACH_QWORD(FIFTHS, 1) } };

/* Mask registers cost 6 more cycles for 256 weights. */
INLINE void fifth_by_shift(const struct chunk *c, int q, int words, int fifth, __m512i half[2])
{
    __m512i v = pick_words(c, RUNS, q, words, fifth + 2), bits = pick_words(c, DOUBLES, q, words, fifth);
    __m512i mask = _mm512_set1_epi8(0x78), top = _mm512_set1_epi8(-128);
    half[0] = _mm512_and_si512(_mm512_slli_epi16(v, 3), mask), half[1] = _mm512_and_si512(_mm512_srli_epi16(v, 1), mask);
UNROLL
    for (int h = 0; h < 2; h++)
        half[h] = _mm512_ternarylogic_epi32(half[h], _mm512_multishift_epi64_epi8(load512(at_fifth[h]), bits), top, 0xf8); /* a | (b & c) */
}
INLINE void halves_q5_0(const struct chunk *c, int q, __m512i heads, __m512i half[2])
{
    fifth_by_shift(c, q, sizeof(struct block_q5_0) / 2, 1, half);
}
INLINE void halves_q5_1(const struct chunk *c, int q, __m512i heads, __m512i half[2])
{
    fifth_by_shift(c, q, sizeof(struct block_q5_1) / 2, 2, half);
}
ROWDOT_LEGACY(q5_0, .factor = 0x1p-3f, .bias = -16.0f)
ROWDOT_LEGACY(q5_1, .factor = 0x1p-3f, .has_min = true)

void kernels_init_avx512vbmi(struct kernels *k)
{
#define SLOTS(id, name) k->rowdot[id] = rowdot_##name, k->unpack[id] = unpack_##name;
    SLOTS(GGUF_IQ2_XXS, iq2_xxs) SLOTS(GGUF_IQ2_XS, iq2_xs) SLOTS(GGUF_IQ2_S, iq2_s) SLOTS(GGUF_IQ3_XXS, iq3_xxs) SLOTS(GGUF_IQ3_S, iq3_s)
    ROWDOT_SLOTS(k, GGUF_Q5_0, q5_0), ROWDOT_SLOTS(k, GGUF_Q5_1, q5_1);
}

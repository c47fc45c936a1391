/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi */
/* isa_avx512vbmi - codebooks looked up in registers: AVX-512 with VBMI (Ice Lake, Zen 4 and later).
 *
 * Loading a vector of a codebook for every index costs a load, an insert and general instructions, which bounds the AVX2 row-dots. Here the
 * codebook stays compressed, a level number of 2 or 3 bits an element, and so small that registers hold it: vpermi2w or vpermi2b look 32 or 64
 * indices up at once, a multishift cuts the numbers out of the entries, a byte permutation makes levels of them. Signs are masks.
 *
 * Codes come in four registers of 64, each in the order A0 B0 A1 B1 A2 B2 A3 B3: eights of group of 32 number 2j and of group 2j + 1 in turn,
 * so that interleaving with zeros, cheaper than widening, leaves one group in each register of words. The order costs nothing: the
 * permutation that collects the indices makes it. */
#include "ggml-like/kernels/avx512_rowdot.h"

/* In that order, qword q of register j holds this one of the superblock's 32 eights: */
#define EIGHTH(q, j) (8 * (j) + 4 * ((q) % 2) + (q) / 2)
#define EACH_QWORD(X, ...) X(0, __VA_ARGS__), X(1, __VA_ARGS__), X(2, __VA_ARGS__), X(3, __VA_ARGS__), X(4, __VA_ARGS__), X(5, __VA_ARGS__), \
                           X(6, __VA_ARGS__), X(7, __VA_ARGS__)

struct book {
    __m512i code[4];                  /* magnitudes */
    struct signs { _Alignas(32) uint64_t mask[4]; } *negative; /* bit i: element i of code[j] */
    __m512 scale;                     /* of 16 groups of 16; or of 8 groups of 32, in the lower half */
};

INLINE __m512i all_u64(const void *p) { return _mm512_set1_epi64((int64_t)load_u64(p)); }
/* One load: the bytes lie across cache lines. */
INLINE __m512i load_once(const void *p)
{
    __m512i v = load512(p);
#ifdef __AVX512F__ /* not in the emulation of tests/simde.sh */
    __asm__("" : "+v"(v));
#endif
    return v;
}
INLINE __m512i low_half(__m256i v) { return _mm512_castsi256_si512(v); }

/* ---- signs ---- */

#define SIGN_2(n, odd) (n) | ((odd) ? 128 : 0), ((n) + 1) | ((odd) ? 0 : 128)
#define SIGN_4(n, odd) SIGN_2(n, odd), SIGN_2((n) + 2, !(odd))
#define SIGN_8(n, odd) SIGN_4(n, odd), SIGN_4((n) + 4, !(odd))
#define SIGN_16(n, odd) SIGN_8(n, odd), SIGN_8((n) + 8, !(odd))
#define SIGN_32(n, odd) SIGN_16(n, odd), SIGN_16((n) + 16, !(odd))
#define SIGN_64(n, odd) SIGN_32(n, odd), SIGN_32((n) + 32, !(odd))
static const _Alignas(64) uint8_t even_signs[128] = { SIGN_64(0, 0), SIGN_64(64, 1) };

/* The first 32 bytes are the signs of the eights in order. Stored, because masks come from memory without a shuffle. */
INLINE void put_signs(struct book *o, __m512i signs)
{
    _mm256_store_si256((__m256i *)o->negative->mask, _mm512_castsi512_si256(signs));
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

/* ---- iq2: an entry is a word, eight level numbers of 2 bits ---- */

/* word 4q + j of the looked up words is the vector of eight q of register j: one multishift a register cuts it apart */
#define TWO_BITS(q, j) 16 * (j), 16 * (j) + 2, 16 * (j) + 4, 16 * (j) + 6, 16 * (j) + 8, 16 * (j) + 10, 16 * (j) + 12, 16 * (j) + 14
static const _Alignas(64) uint8_t cut_two[4][64] = {
    { EACH_QWORD(TWO_BITS, 0) }, { EACH_QWORD(TWO_BITS, 1) }, { EACH_QWORD(TWO_BITS, 2) }, { EACH_QWORD(TWO_BITS, 3) },
};

/* entries of 2 KiB or less, 32 words; n tables of 32 entries are chosen by the bits of the index from 32 on */
INLINE __m512i look_up_words(const uint16_t *grid, int n, __m512i index)
{
    __m512i v[16];
UNROLL
    for (int i = 0; i < n / 2; i++) v[i] = _mm512_permutex2var_epi16(load512(grid + 64 * i), index, load512(grid + 64 * i + 32));
UNROLL
    for (int bit = 64; n > 2; bit *= 2, n /= 2) {
        __mmask32 high = _mm512_test_epi16_mask(index, _mm512_set1_epi16((short)bit));
UNROLL
        for (int i = 0; i < n / 4; i++) v[i] = _mm512_mask_blend_epi16(high, v[2 * i], v[2 * i + 1]);
    }
    return v[0];
}

INLINE void put_codes_iq2(struct book *o, __m512i words)
{
    __m512i levels = _mm512_set1_epi32((int)load_u32(iq2_levels)); /* by the two low bits of whatever stands above them */
UNROLL
    for (int j = 0; j < 4; j++) o->code[j] = _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(load512(cut_two[j]), words), levels);
}

/* bytes of block.group[]: qs[i] of group g is 8g + i, signs from 8g + 4 on */
#define INDEX_XXS(q, j) EIGHTH(q, j) / 4 * 8 + EIGHTH(q, j) % 4
#define INDICES_XXS(q, unused) INDEX_XXS(q, 0), 0, INDEX_XXS(q, 1), 0, INDEX_XXS(q, 2), 0, INDEX_XXS(q, 3), 0
#define SIGNS_XXS(j) 16 * (j), 16 * (j) + 8, 16 * (j) + 1, 16 * (j) + 9, 16 * (j) + 2, 16 * (j) + 10, 16 * (j) + 3, 16 * (j) + 11
static const _Alignas(64) uint8_t at_iq2_xxs[2][64] = { { EACH_QWORD(INDICES_XXS, ) }, { SIGNS_XXS(0), SIGNS_XXS(1), SIGNS_XXS(2), SIGNS_XXS(3) } };

INLINE void open_iq2_xxs(const void *block, struct book *o)
{
    const struct block_iq2_xxs *b = block;
    __m512i raw = load_once(b->group), seven = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x352e2720), raw);
    put_signs_of_7(o, _mm512_permutexvar_epi8(load512(at_iq2_xxs[1]), seven));
    put_codes_iq2(o, look_up_words(iq2_xxs_grid, 8, _mm512_permutexvar_epi8(load512(at_iq2_xxs[0]), raw)));
    o->scale = scaled(low_half(_mm512_cvtepi64_epi32(_mm512_srli_epi64(raw, 60))), b->d, 0.5f, 0.25f);
}

#define INDICES_XS(q, unused) EIGHTH(q, 0), EIGHTH(q, 1), EIGHTH(q, 2), EIGHTH(q, 3)
#define SIGNS_XS(q, j) 2 * EIGHTH(q, j)
static const _Alignas(64) uint16_t at_iq2_xs[32] = { EACH_QWORD(INDICES_XS, ) };
static const _Alignas(64) uint8_t signs_iq2_xs[64] = { EACH_QWORD(SIGNS_XS, 0), EACH_QWORD(SIGNS_XS, 1), EACH_QWORD(SIGNS_XS, 2), EACH_QWORD(SIGNS_XS, 3) };

INLINE void open_iq2_xs(const void *block, struct book *o)
{
    const struct block_iq2_xs *b = block;
    __m512i raw = load_once(b->qs);
    put_signs_of_7(o, _mm512_permutexvar_epi8(load512(signs_iq2_xs), _mm512_srli_epi16(raw, 9)));
    put_codes_iq2(o, look_up_words(iq2_xs_grid, 16, _mm512_permutexvar_epi16(load512(at_iq2_xs), raw)));
    o->scale = scaled(nibbles16(b->scales), b->d, 0.5f, 0.25f);
}

/* Index words: the low bytes are permuted, the high bytes cut out of qh, of which two bits are meant and the rest is ignored. */
#define INDICES_S(q, unused) EIGHTH(q, 0), 2 * EIGHTH(q, 0), EIGHTH(q, 1), 2 * EIGHTH(q, 1), EIGHTH(q, 2), 2 * EIGHTH(q, 2), EIGHTH(q, 3), 2 * EIGHTH(q, 3)
#define SIGNS_S(q, j) 32 + EIGHTH(q, j)
static const _Alignas(64) uint8_t at_iq2_s[64] = { EACH_QWORD(INDICES_S, ) };
static const _Alignas(64) uint8_t signs_iq2_s[64] = { EACH_QWORD(SIGNS_S, 0), EACH_QWORD(SIGNS_S, 1), EACH_QWORD(SIGNS_S, 2), EACH_QWORD(SIGNS_S, 3) };

INLINE void open_iq2_s(const void *block, struct book *o)
{
    const struct block_iq2_s *b = block;
    __m512i raw = load_once(b->qs), at = load512(at_iq2_s), high = _mm512_multishift_epi64_epi8(at, all_u64(b->qh));
    put_signs(o, _mm512_permutexvar_epi8(load512(signs_iq2_s), raw));
    put_codes_iq2(o, look_up_words(iq2_s_grid, 32, _mm512_mask_permutexvar_epi8(high, 0x5555555555555555, at, raw)));
    o->scale = scaled(nibbles16(b->scales), b->d, 0.5f, 0.25f);
}

/* ---- iq3: an entry is two bytes from two tables, each two level numbers of 3 bits ---- */

/* n registers of 64 entries, chosen by the bits of the index from 64 on, the last of which comes as a mask */
INLINE __m512i look_up_bytes(const uint8_t *table, int n, __m512i index, __mmask64 seventh, __mmask64 eighth)
{
    __m512i v[4];
UNROLL
    for (int i = 0; i < n / 2; i++) v[i] = _mm512_permutex2var_epi8(load512(table + 128 * i), index, load512(table + 128 * i + 64));
UNROLL
    for (int i = 0; i < n / 4; i++) v[i] = _mm512_mask_blend_epi8(seventh, v[2 * i], v[2 * i + 1]);
    return n == 8 ? _mm512_mask_blend_epi8(eighth, v[0], v[1]) : v[0];
}

/* Byte 16l + 8i + 4h + 2k + e of the indices is vector e of the eight that becomes qword 2l + h of register 2i + k, once the two bytes of an
 * entry stand side by side and multishifts have cut two of the four words of a qword. */
#define PAIR_IQ3(l, i, h, k) 2 * EIGHTH(2 * (l) + (h), 2 * (i) + (k)), 2 * EIGHTH(2 * (l) + (h), 2 * (i) + (k)) + 1
#define HALF_IQ3(l, i) PAIR_IQ3(l, i, 0, 0), PAIR_IQ3(l, i, 0, 1), PAIR_IQ3(l, i, 1, 0), PAIR_IQ3(l, i, 1, 1)
#define THREE_BITS(q, from) (from), (from) + 3, (from) + 8, (from) + 11, (from) + 16, (from) + 19, (from) + 24, (from) + 27
static const _Alignas(64) uint8_t at_iq3[64] = {
    HALF_IQ3(0, 0), HALF_IQ3(0, 1), HALF_IQ3(1, 0), HALF_IQ3(1, 1), HALF_IQ3(2, 0), HALF_IQ3(2, 1), HALF_IQ3(3, 0), HALF_IQ3(3, 1),
};
static const _Alignas(64) uint8_t cut_three[2][64] = { { EACH_QWORD(THREE_BITS, 0) }, { EACH_QWORD(THREE_BITS, 32) } };

INLINE void put_codes_iq3(struct book *o, __m512i low, __m512i high, const int8_t levels[8])
{
    __m512i table = all_u64(levels), both[2] = { _mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high) };
UNROLL
    for (int j = 0; j < 4; j++)
        o->code[j] = _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(load512(cut_three[j % 2]), both[j / 2]), table);
}

INLINE void open_iq3_xxs(const void *block, struct book *o)
{
    const struct block_iq3_xxs *b = block;
    __m512i index = _mm512_permutexvar_epi8(load512(at_iq3), load512(b->qs)), signs = low_half(load256(b->signs));
    __mmask64 high = _mm512_movepi8_mask(index);
    put_signs_of_7(o, _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x35152e0e27072000), signs));
    put_codes_iq3(o, look_up_bytes(iq3_xxs_pairs[0], 4, index, high, 0), look_up_bytes(iq3_xxs_pairs[1], 4, index, high, 0), iq3_xxs_levels);
    o->scale = scaled(_mm512_srli_epi32(signs, 28), b->d, 0.5f, 0.5f);
}

INLINE void open_iq3_s(const void *block, struct book *o)
{
    const struct block_iq3_s *b = block;
    __m512i at = load512(at_iq3), index = _mm512_permutexvar_epi8(at, load512(b->qs));
    __mmask64 eighth = _mm512_test_epi8_mask(_mm512_multishift_epi64_epi8(at, all_u64(b->qh)), _mm512_set1_epi8(1));
    __mmask64 seventh = _mm512_movepi8_mask(index);
    put_signs(o, _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x3818301028082000), low_half(load256(b->signs))));
    put_codes_iq3(o, look_up_bytes(iq3_s_pairs[0], 8, index, seventh, eighth), look_up_bytes(iq3_s_pairs[1], 8, index, seventh, eighth), iq3_s_levels);
    __m512i sc = _mm512_srlv_epi32(_mm512_set1_epi32((int)load_u32(b->scales)), _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0));
    o->scale = scaled(_mm512_and_si512(sc, _mm512_set1_epi32(15)), b->d, 0.5f, 2.0f);
}

/* ---- row-dots ---- */

INLINE __m512i signed_codes(const struct book *o, int j)
{
    return _mm512_mask_sub_epi8(o->code[j], o->negative->mask[j], _mm512_setzero_si512(), o->code[j]);
}

/* A superblock ready to be multiplied. */
struct opened {
    __m512i code[4];  /* with signs */
    __m512 scale[2];  /* groups of 16: of those that are the lower half of a register of words, twice, then of the others, twice; 4 registers each */
};

/* s: where 8 scales of groups of 32 are parked */
INLINE struct opened open_scaled(const uint8_t *w, const float *d, float s[16], bool group16, void (*open)(const void *, struct book *))
{
    struct signs negative;
    struct book o = { .negative = &negative };
    struct opened v = { 0 };
    open(w, &o);
UNROLL
    for (int j = 0; j < 4; j++) v.code[j] = signed_codes(&o, j);
    if (group16) {
        __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6, 1, 3, 5, 7, 1, 3, 5, 7);
        __m512 scale = _mm512_mul_ps(o.scale, twice(d));
        v.scale[0] = _mm512_permutexvar_ps(at, scale);
        v.scale[1] = _mm512_permutexvar_ps(_mm512_or_si512(at, _mm512_set1_epi32(8)), scale);
    } else {
        park(s, _mm512_castps256_ps512(_mm256_mul_ps(_mm512_castps512_ps256(o.scale), _mm256_loadu_ps(d))));
    }
    return v;
}

INLINE __m512 scale_of_16(const struct opened *v, int g)
{
    __m512i four = _mm512_castps_si512(v->scale[g / 4]);
    return _mm512_castsi512_ps(g % 4 == 0   ? _mm512_shuffle_epi32(four, 0x00)
                               : g % 4 == 1 ? _mm512_shuffle_epi32(four, 0x55)
                               : g % 4 == 2 ? _mm512_shuffle_epi32(four, 0xaa)
                                            : _mm512_shuffle_epi32(four, 0xff));
}

INLINE void multiply(__m512 acc[4], const struct opened *v, const float s[16], const int16_t *y, bool group16)
{
    __m512i zero = _mm512_setzero_si512();
UNROLL
    for (int g = 0; g < 8; g++) {
        __m512i words = g % 2 ? _mm512_unpackhi_epi8(zero, v->code[g / 2]) : _mm512_unpacklo_epi8(zero, v->code[g / 2]);
        __m512 dot = _mm512_cvtepi32_ps(_mm512_madd_epi16(words, load_y(y + 32 * g)));
        acc[g % 4] = _mm512_fmadd_ps(dot, group16 ? scale_of_16(v, g) : _mm512_set1_ps(s[g]), acc[g % 4]);
    }
}

/* A superblock is opened while the one before it is multiplied: the chain from its bytes to its codes is longer than the schedulers reach. The
 * words are 256 times the codes, so the sums of the products reach 62 * 256 * 32767 * 2 < 2^30. */
INLINE float rowdot_book(const uint8_t *w, const struct act_row *x, int64_t k, size_t bytes, bool group16, void (*open)(const void *, struct book *))
{
    __m512 acc[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
    _Alignas(64) float s[2][16];
    int64_t n = k / CHUNK;
    if (n == 0) return 0.0f;
    struct opened now = open_scaled(w, x->d, s[0], group16, open);
    for (int64_t i = 0;; i++, w += bytes) {
        prefetch(w, bytes);
        if (i + 1 == n) break;
        struct opened then = open_scaled(w + bytes, x->d + 8 * (i + 1), s[(i + 1) % 2], group16, open);
        multiply(acc, &now, s[i % 2], x->y + CHUNK * i, group16);
        now = then;
    }
    multiply(acc, &now, s[(n - 1) % 2], x->y + CHUNK * (n - 1), group16);
    __m512 sum = _mm512_add_ps(_mm512_add_ps(acc[0], acc[1]), _mm512_add_ps(acc[2], acc[3]));
    return sum_ps(fold(sum)) * (1.0f / 256);
}

/* ---- unpacking ---- */

INLINE void unpack_book(const void *block, struct codes *out, bool group16, void (*open)(const void *, struct book *))
{
    __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    struct signs negative;
    struct book o = { .negative = &negative };
    open(block, &o);
UNROLL
    for (int j = 0; j < 4; j++) _mm512_store_si512(out->code + 64 * j, _mm512_permutexvar_epi64(in_order, signed_codes(&o, j)));
    _mm512_store_ps(out->scale, group16 ? o.scale : _mm512_maskz_mov_ps(0xff, o.scale));
    _mm512_store_ps(out->min, _mm512_setzero_ps());
}

#define BOOK(name, group16)                                                                                                     \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                               \
    {                                                                                                                           \
        return rowdot_book(w, x, k, sizeof(struct block_##name), group16, open_##name);                                         \
    }                                                                                                                           \
    static void unpack_##name(const void *block, struct codes *out) { unpack_book(block, out, group16, open_##name); }
BOOK(iq2_xxs, false) BOOK(iq2_xs, true) BOOK(iq2_s, true) BOOK(iq3_xxs, false) BOOK(iq3_s, false)

void kernels_init_avx512vbmi(struct kernels *k)
{
#define SLOTS(id, name) k->rowdot[id] = rowdot_##name, k->unpack[id] = unpack_##name;
    SLOTS(GGUF_IQ2_XXS, iq2_xxs) SLOTS(GGUF_IQ2_XS, iq2_xs) SLOTS(GGUF_IQ2_S, iq2_s) SLOTS(GGUF_IQ3_XXS, iq3_xxs) SLOTS(GGUF_IQ3_S, iq3_s)
}

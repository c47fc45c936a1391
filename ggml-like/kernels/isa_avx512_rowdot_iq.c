/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512_rowdot_iq - row-dots for AVX-512 of the formats with uneven levels, trits and bits. The walk is that of isa_avx512_rowdot.c.
 * Codebooks and q2_0 keep their AVX2 row-dots: what they do is load and collect short vectors, and 512-bit registers, filled in four
 * or eight steps, with two ports in place of three, were 12 % faster (iq3_xxs, busy core) to 17 % slower (iq2_xxs, free core) on Sapphire
 * Rapids. 256-bit registers with VNNI lost 20 % to the 512-bit ones in the formats with levels. */
#include "ggml-like/kernels/avx2_words.h"
#include "ggml-like/kernels/avx512_legacy.h"

INLINE float total(const struct sums *s) { return sums_total(s, 1.0f, 1.0f); }

/* 32 codes with one scale */
INLINE void accumulate32(struct sums *sums, int g, __m512i words, const int16_t *y, const float *s)
{
    accumulate(sums, g, words, y + 32 * g, _mm512_set1_ps(s[g]));
}

/* ---- 16 levels ---- Two groups are one register of bytes, which VNNI multiplies by both bytes of the activations; for that levels are made
 * positive, and what was added goes through the sums of the activations. Widened to words: 25 cycles for 256 weights of iq4_xs instead of 21. */

typedef __m512i level_table;
INLINE level_table table_of(const int8_t levels[16], int bias)
{
    return _mm512_add_epi8(_mm512_broadcast_i32x4(load128(levels)), _mm512_set1_epi8((char)bias));
}

struct level_scales { __m512i four; }; /* of the even groups, twice, then of the odd groups, twice */
INLINE struct level_scales scales_of(struct sums *sums, __m256 scale, const float *dx, const float *sum32)
{
    __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6, 1, 3, 5, 7, 1, 3, 5, 7);
    __m256 offset = _mm256_fmadd_ps(scale, _mm256_loadu_ps(sum32), _mm512_castps512_ps256(sums->offset));
    sums->offset = _mm512_maskz_mov_ps(0xff, _mm512_castps256_ps512(offset));
    scale = _mm256_mul_ps(scale, _mm256_loadu_ps(dx));
    return (struct level_scales){ _mm512_castps_si512(_mm512_permutexvar_ps(at, _mm512_castps256_ps512(scale))) };
}

typedef __m512i level_pair; /* 16 bytes of the first group twice, then of the second */
INLINE level_pair pair_of(const uint8_t *a, const uint8_t *b)
{
    __m512i first = _mm512_castsi128_si512(load128(a)), second = _mm512_castsi128_si512(load128(b ? b : a));
    return _mm512_permutex2var_epi64(first, _mm512_setr_epi64(0, 1, 0, 1, 8, 9, 8, 9), second);
}
INLINE void four_pairs(level_pair p[4], const uint8_t *qs)
{
UNROLL
    for (int i = 0; i < 2; i++) {
        __m512i v = load512(qs + 64 * i);
        ONCE(v);
        p[2 * i] = _mm512_shuffle_i64x2(v, v, 0x50), p[2 * i + 1] = _mm512_shuffle_i64x2(v, v, 0xfa);
    }
}

/* Nibbles at the bottom of bytes, in the order of their columns. i: which of the four scales of a lane */
INLINE void add_nibbles(struct sums *sums, int i, __m512i v, level_table table, const struct act_row *x, int64_t at, __m512i four)
{
    v = _mm512_shuffle_epi8(table, _mm512_and_si512(v, _mm512_set1_epi8(15)));
    __m512i dot = _mm512_slli_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), v, load512(x->hi + at)), 8);
    __m512 sum = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(dot, v, load512(x->lo + at)));
    __m512 scale = _mm512_castsi512_ps(i == 0   ? _mm512_shuffle_epi32(four, 0x00)
                                       : i == 1 ? _mm512_shuffle_epi32(four, 0x55)
                                       : i == 2 ? _mm512_shuffle_epi32(four, 0xaa)
                                                : _mm512_shuffle_epi32(four, 0xff));
    if (i % 2) sums->odd = _mm512_fmadd_ps(sum, scale, sums->odd);
    else sums->even = _mm512_fmadd_ps(sum, scale, sums->even);
}

INLINE void add_levels(struct sums *sums, int i, level_pair p, level_table table, const struct act_row *x, int64_t at, const struct level_scales *s)
{
    add_nibbles(sums, i, _mm512_srlv_epi64(p, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4)), table, x, at, s->four);
}

INLINE float level_total(const struct sums *s, int bias)
{
    float offset = sum_ps(fold(s->offset));
    return sum_ps(fold(_mm512_add_ps(s->even, s->odd))) - (float)bias * offset;
}
#include "ggml-like/kernels/rowdot_levels_tmpl.h"
LEVELS(mxfp4, .levels = e2m1_levels, .bias = 12)

/* as q4_0, with levels in place of codes: 22 cycles for 256 weights by the walk above */
INLINE void halves_iq4_nl(const struct chunk *c, int q, __m512i heads, __m512i half[2])
{
    __m512i v = nibbles_of_4(c, q, sizeof(struct block_iq4_nl) / 2, 1), low = _mm512_set1_epi8(15);
    level_table table = table_of(iq4_levels, 128);
    half[0] = _mm512_shuffle_epi8(table, _mm512_and_si512(v, low));
    half[1] = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(v, 4), low));
}
ROWDOT_LEGACY(iq4_nl, .factor = 1.0f, .bias = -128.0f)

/* n blocks of 64, up to 4: four groups of 16, of which each is a lane */
INLINE void add_nvfp4(struct sums *sums, const struct block_nvfp4 *b, int n, __m128i d, __m512 dx, __m512 sum16, level_table table,
                      const struct act_row *x, int64_t at)
{
    __m256i v = _mm256_cvtepu8_epi16(d), nan = _mm256_set1_epi16(0x7f), half = _mm256_slli_epi16(_mm256_and_si256(v, nan), 7);
    /* as half floats the scales are 2^8 too small, and codes are twice the value */
    __m512 scale = _mm512_mul_ps(_mm512_cvtph_ps(_mm256_andnot_si256(_mm256_cmpeq_epi16(v, nan), half)), _mm512_set1_ps(128.0f));
    sums->offset = _mm512_fmadd_ps(scale, sum16, sums->offset);
    __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), low = _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4);
    __m512i four = _mm512_castps_si512(_mm512_permutexvar_ps(lanes, _mm512_mul_ps(scale, dx)));
UNROLL
    for (int i = 0; i < 4; i++) {
        if (i >= n) break;
        __m512i eights = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), _mm512_castsi256_si512(load256(b[i].qs)));
        add_nibbles(sums, i, _mm512_srlv_epi64(eights, low), table, x, at + 64 * i, four);
    }
}

static float rowdot_nvfp4(const void *w, const struct act_row *x, int64_t k)
{
    enum { BIAS = 12 };
    struct sums sums = sums_zero();
    const struct block_nvfp4 *b = w;
    level_table table = table_of(e2m1_levels, BIAS);
    int64_t at = 0;
    for (; at + CHUNK <= k; at += CHUNK, b += 4) {
        prefetch((const uint8_t *)b, 4 * sizeof *b);
        __m128i d = heads_u32((const uint8_t *)b, sizeof *b);
        add_nvfp4(&sums, b, 4, d, twice(x->d + at / 32), _mm512_loadu_ps(x->sum16 + at / 16), table, x, at);
    }
    if (at < k) {
        _Alignas(64) float dx[16] = { 0 }, sum16[16] = { 0 };
        _Alignas(16) uint8_t d[16] = { 0 };
        int n = (int)(k - at) / 64;
        for (int i = 0; i < 4 * n; i++) d[i] = b[i / 4].d[i % 4], dx[i] = x->d[at / 32 + i / 2], sum16[i] = x->sum16[at / 16 + i];
        add_nvfp4(&sums, b, n, load128(d), _mm512_load_ps(dx), _mm512_load_ps(sum16), table, x, at);
    }
    return level_total(&sums, BIAS);
}

/* ---- trits, bits: one scale a block, the constant -1 of all codes through the sums of the activations ---- */

/* takes in -scale * sum over 8 groups of 32; returns scale times the activation scales */
INLINE __m256 minus_one(struct sums *sums, uint16_t scale, const float *dx, const int32_t *sum)
{
    __m256 v = _mm256_mul_ps(_mm256_set1_ps(half_to_float(scale)), _mm256_loadu_ps(dx));
    __m512 each_twice = _mm512_permutexvar_ps(load512(first_twice), _mm512_castps256_ps512(v));
    sums->offset = _mm512_fnmadd_ps(each_twice, sums16(sum), sums->offset);
    return v;
}

INLINE __m512i two_halves(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }

/* digits of bytes in the high halves of words: 0..2 */
INLINE __m512i digits32(__m512i v, __m512i power) { return _mm512_mulhi_epu16(_mm512_mullo_epi16(v, power), _mm512_set1_epi16(3)); }

static float rowdot_tq1_0(const void *w, const struct act_row *x, int64_t k)
{
    static const short power[5] = { 1, 3, 9, 27, 81 };
    struct sums sums = sums_zero();
    const struct block_tq1_0 *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        _Alignas(64) float s[16];
        prefetch((const uint8_t *)b, sizeof *b);
        park(s, _mm512_castps256_ps512(minus_one(&sums, b->d, x->d + 8 * i, x->sum + 16 * i)));
        struct trits t = open_tq1_0(b);
        __m512i first = two_halves(t.v[0], t.v[1]), second = two_halves(t.v[2], t.v[2]), last = two_halves(t.v[2], t.last);
UNROLL
        for (int g = 0; g < 5; g++) accumulate32(&sums, g, digits32(first, _mm512_set1_epi16(power[g])), y, s);
        accumulate32(&sums, 5, digits32(second, two_halves(_mm256_set1_epi16(1), _mm256_set1_epi16(3))), y, s);
        accumulate32(&sums, 6, digits32(second, two_halves(_mm256_set1_epi16(9), _mm256_set1_epi16(27))), y, s);
        __m256i tail = _mm256_setr_epi16(1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27);
        accumulate32(&sums, 7, digits32(last, two_halves(_mm256_set1_epi16(81), tail)), y, s);
    }
    return total(&sums);
}

/* Codes stay where they are in their bytes, 4^n times too large: their scales make up for it, which is exact. */
static float rowdot_tq2_0(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_tq2_0 *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    __m256 quarter = _mm256_setr_ps(1.0f, 0x1p-2f, 0x1p-4f, 0x1p-6f, 1.0f, 0x1p-2f, 0x1p-4f, 0x1p-6f);
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        _Alignas(64) float s[16];
        prefetch((const uint8_t *)b, sizeof *b);
        park(s, _mm512_castps256_ps512(_mm256_mul_ps(minus_one(&sums, b->d, x->d + 8 * i, x->sum + 16 * i), quarter)));
UNROLL
        for (int g = 0; g < 8; g++) {
            __m512i v = _mm512_cvtepu8_epi16(load256(b->qs + g / 4 * 32));
            accumulate32(&sums, g, _mm512_and_si512(v, _mm512_set1_epi16((short)(3 << g % 4 * 2))), y, s);
        }
    }
    return total(&sums);
}

/* bit set: code 1, clear: -1. The masked difference makes their negatives out of 1. */
static float rowdot_q1_0(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_q1_0 *b = w, *end = b + k / 128;
    const int16_t *y = x->y;
    const float *d = x->d;
    __m512i one = _mm512_set1_epi16(1);
    for (; b < end; b++, y += 128, d += 4) {
        float scale = -half_to_float(b->d);
        prefetch((const uint8_t *)b, 1);
UNROLL
        for (int g = 0; g < 4; g++) {
            __m512i words = _mm512_mask_sub_epi16(one, load_u32(b->qs + 4 * g), _mm512_setzero_si512(), one);
            accumulate(&sums, g, words, y + 32 * g, _mm512_set1_ps(scale * d[g]));
        }
    }
    return total(&sums);
}

void kernels_init_avx512_rowdot_iq(struct kernels *k)
{
    ROWDOT_SLOTS(k, GGUF_IQ4_NL, iq4_nl);
    k->rowdot[GGUF_IQ4_XS] = rowdot_iq4_xs;
    k->rowdot[GGUF_MXFP4] = rowdot_mxfp4;
    k->rowdot[GGUF_NVFP4] = rowdot_nvfp4;
    k->rowdot[GGUF_TQ1_0] = rowdot_tq1_0;
    k->rowdot[GGUF_TQ2_0] = rowdot_tq2_0;
    k->rowdot[GGUF_Q1_0] = rowdot_q1_0;
}

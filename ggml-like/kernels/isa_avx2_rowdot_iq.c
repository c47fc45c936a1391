/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_rowdot_iq - row-dots for AVX2 of the formats with codebooks, uneven levels, trits and bits. The walk is that of
 * isa_avx2_rowdot.c; avx2_words.h makes the codes. */
#include "ggml-like/kernels/avx2_rowdot.h"
#include "ggml-like/kernels/avx2_words.h"

INLINE struct sums sums_zero(void)
{
    return (struct sums){ _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), 0.0f };
}

INLINE __m256i dot16(__m256i words, const int16_t *y) { return _mm256_madd_epi16(words, load_y(y)); }

/* parks 8 scales times the activation scales */
INLINE __m256 park8(float s[8], __m256 scale, const float *dx)
{
    __m256 v = _mm256_mul_ps(scale, _mm256_loadu_ps(dx));
    _mm256_store_ps(s, v);
    return v;
}

/* ---- codebooks ---- A superblock is opened while the one before it is multiplied: opening is a long chain of dependent instructions, and
 * with the loads that wait for it fills the scheduler (iq2 18 % faster than in one step; iq3, with twice the loads, the same). */

/* What the loop needs to know about a format; all constants after inlining. */
struct book_format {
    size_t bytes;
    bool group16, has_signs; /* scales of 16 weights, not of 32; codes that are magnitudes and signs */
    bool has_shift;          /* o.shift is in force */
    void (*open)(const void *block, struct book *o);
    __m256i (*codes)(const struct book *o, int i);
};

INLINE void open_parked(struct book *o, float s[16], const uint8_t *w, const float *dx, const struct book_format *f)
{
    f->open(w, o);
    if (f->has_signs) spread_bits(o);
    if (f->group16) park16(s, (struct scales16){ _mm256_load_ps(o->scale), _mm256_load_ps(o->scale + 8) }, dx);
    else park8(s, _mm256_load_ps(o->scale), dx);
    opened(o);
}

INLINE float rowdot_book(const uint8_t *w, const struct act_row *x, int64_t k, const struct book_format f)
{
    struct sums sums = sums_zero();
    const int16_t *y = x->y;
    struct book o[2];
    _Alignas(32) float parked[2][16];
    if (k > 0) open_parked(&o[0], parked[0], w, x->d, &f);
    for (int64_t i = 0; i < k / CHUNK; i++, w += f.bytes, y += CHUNK) {
        prefetch(w, f.bytes);
        if (i + 1 < k / CHUNK) open_parked(&o[(i + 1) % 2], parked[(i + 1) % 2], w + f.bytes, x->d + 8 * i + 8, &f);
        const struct book *now = &o[i % 2];
        const float *s = parked[i % 2];
        if (f.has_shift) {
            __m256 shift = _mm256_mul_ps(_mm256_load_ps(now->shift), _mm256_loadu_ps(x->d + 8 * i));
            sums.offset = _mm256_fmadd_ps(shift, sums32(x->sum + 16 * i), sums.offset);
        }
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m256i a = dot16(f.codes(now, 2 * g), y + 32 * g), b = dot16(f.codes(now, 2 * g + 1), y + 32 * g + 16);
            if (f.group16) {
                accumulate(&sums, 0, a, _mm256_broadcast_ss(s + 2 * g));
                accumulate(&sums, 1, b, _mm256_broadcast_ss(s + 2 * g + 1));
            } else {
                accumulate(&sums, g, _mm256_add_epi32(a, b), _mm256_broadcast_ss(s + g));
            }
        }
    }
    return sums_total(&sums);
}

#define BOOK(name, ...)                                                                                                              \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                                    \
    {                                                                                                                                \
        return rowdot_book(w, x, k, (struct book_format){ .bytes = sizeof(struct block_##name), .open = open_##name,                 \
                                                          .codes = codes_##name, __VA_ARGS__ });                                     \
    }
BOOK(iq1_s, .has_shift = true)
BOOK(iq1_m, .group16 = true)
BOOK(iq2_xxs, .has_signs = true)
BOOK(iq2_xs, .has_signs = true, .group16 = true)
BOOK(iq2_s, .has_signs = true, .group16 = true)
BOOK(iq3_xxs, .has_signs = true)
BOOK(iq3_s, .has_signs = true)

/* ---- 16 levels ---- */

/* 32 weights: level in the low byte of word i = weight i, in the high byte = weight i + 16 */
INLINE __m256i dot_levels(const uint8_t qs[16], __m256i levels, const int16_t *y)
{
    __m256i pairs = level_pairs(qs, levels);
    return _mm256_add_epi32(dot16(_mm256_maddubs_epi16(_mm256_set1_epi16(1), pairs), y), dot16(_mm256_srai_epi16(pairs, 8), y + 16));
}

typedef __m256i level_table;
struct level_scales { _Alignas(32) float s[8]; };
INLINE level_table table_of(const int8_t levels[16], int bias) { return load_twice(levels); }
INLINE struct level_scales scales_of(struct sums *sums, __m256 scale, const float *dx, const float *sum32)
{
    struct level_scales s;
    park8(s.s, scale, dx);
    return s;
}
typedef struct { const uint8_t *a, *b; } level_pair;
INLINE level_pair pair_of(const uint8_t *a, const uint8_t *b) { return (level_pair){ a, b }; }
INLINE void four_pairs(level_pair p[4], const uint8_t *qs)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) p[i] = pair_of(qs + 32 * i, qs + 32 * i + 16);
}
INLINE void add_levels(struct sums *sums, int i, level_pair p, level_table table, const struct act_row *x, int64_t at, const struct level_scales *s)
{
    accumulate(sums, 0, dot_levels(p.a, table, x->y + at), _mm256_broadcast_ss(s->s + 2 * i));
    if (p.b) accumulate(sums, 1, dot_levels(p.b, table, x->y + at + 32), _mm256_broadcast_ss(s->s + 2 * i + 1));
}
INLINE float level_total(const struct sums *s, int bias) { return sums_total(s); }
#include "ggml-like/kernels/rowdot_levels_tmpl.h"
LEVELS(iq4_nl, .levels = iq4_levels, .bias = 127)
LEVELS(mxfp4, .levels = e2m1_levels, .bias = 12)

/* Levels come in split order: the nibbles of 8 bytes are 16 weights. In the high bytes of words they are 256 times too large. */
static float rowdot_nvfp4(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_nvfp4 *b = w, *end = b + k / 64;
    const int16_t *y = x->y;
    const float *d = x->d;
    __m256i levels = load_twice(e2m1_levels), zero = _mm256_setzero_si256();
    for (; b < end; b++, y += 64, d += 2) {
        _Alignas(16) float s[4];
        prefetch((const uint8_t *)b, 64); /* blocks of 36 bytes: some lines twice */
        __m128 dx = _mm_setr_ps(d[0], d[0], d[1], d[1]);
        _mm_store_ps(s, _mm_mul_ps(_mm_mul_ps(scales_nvfp4(b->d), _mm_set1_ps(1.0f / 256)), dx));
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i codes = _mm256_shuffle_epi8(levels, nibbles32(b->qs + 16 * h));
            accumulate(&sums, 0, dot16(_mm256_unpacklo_epi8(zero, codes), y + 32 * h), _mm256_broadcast_ss(s + 2 * h));
            accumulate(&sums, 1, dot16(_mm256_unpackhi_epi8(zero, codes), y + 32 * h + 16), _mm256_broadcast_ss(s + 2 * h + 1));
        }
    }
    return sums_total(&sums);
}

/* ---- trits, bits: one scale a block, the constant -1 of all codes through the sums of the activations ---- */

/* takes in -scale * sum over 8 groups of 32; returns scale times the activation scales */
INLINE __m256 minus_one(struct sums *sums, uint16_t scale, const float *dx, const int32_t *sum)
{
    __m256 v = _mm256_mul_ps(_mm256_set1_ps(half_to_float(scale)), _mm256_loadu_ps(dx));
    sums->offset = _mm256_fnmadd_ps(v, sums32(sum), sums->offset);
    return v;
}

static float rowdot_tq1_0(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_tq1_0 *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        _Alignas(32) float s[8];
        prefetch((const uint8_t *)b, sizeof *b);
        _mm256_store_ps(s, minus_one(&sums, b->d, x->d + 8 * i, x->sum + 16 * i));
        struct trits t = open_tq1_0(b);
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m256i a = dot16(codes_tq1_0(&t, 2 * g), y + 32 * g), c = dot16(codes_tq1_0(&t, 2 * g + 1), y + 32 * g + 16);
            accumulate(&sums, g, _mm256_add_epi32(a, c), _mm256_broadcast_ss(s + g));
        }
    }
    return sums_total(&sums);
}

/* Codes stay where they are in their bytes, 4^n times too large: their scales make up for it, which is exact. */
static float rowdot_tq2_0(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_tq2_0 *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    __m256 quarter = _mm256_setr_ps(1.0f, 0x1p-2f, 0x1p-4f, 0x1p-6f, 1.0f, 0x1p-2f, 0x1p-4f, 0x1p-6f);
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        _Alignas(32) float s[8];
        prefetch((const uint8_t *)b, sizeof *b);
        _mm256_store_ps(s, _mm256_mul_ps(minus_one(&sums, b->d, x->d + 8 * i, x->sum + 16 * i), quarter));
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i v0 = bytes_to_words(b->qs + 32 * h), v1 = bytes_to_words(b->qs + 32 * h + 16);
#pragma GCC unroll 4
            for (int n = 0; n < 4; n++) {
                __m256i mask = _mm256_set1_epi16((short)(3 << 2 * n));
                const int16_t *at = y + 128 * h + 32 * n;
                __m256i dot = _mm256_add_epi32(dot16(_mm256_and_si256(v0, mask), at), dot16(_mm256_and_si256(v1, mask), at + 16));
                accumulate(&sums, n, dot, _mm256_broadcast_ss(s + 4 * h + n));
            }
        }
    }
    return sums_total(&sums);
}

static float rowdot_q2_0(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    __m128 offset = _mm_setzero_ps();
    const struct block_q2_0 *b = w, *end = b + k / 64;
    const int16_t *y = x->y;
    const float *d = x->d;
    const int32_t *sum = x->sum;
    for (; b < end; b++, y += 64, d += 2, sum += 4) {
        prefetch((const uint8_t *)b, 1); /* blocks of 18 bytes: lines up to four times */
        __m128 dx = _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)d)), s = _mm_mul_ps(_mm_set1_ps(half_to_float(b->d)), dx);
        __m128i pairs = load128(sum);
        offset = _mm_fnmadd_ps(s, _mm_cvtepi32_ps(_mm_hadd_epi32(pairs, pairs)), offset); /* lanes 2 and 3: 0 times something */
        s = _mm_mul_ps(s, _mm_set1_ps(0x1p-6f));
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i low = dot16(codes_q2_0(load_u32(b->qs + 8 * h)), y + 32 * h);
            __m256i high = dot16(codes_q2_0(load_u32(b->qs + 8 * h + 4)), y + 32 * h + 16);
            accumulate(&sums, h, _mm256_add_epi32(low, high), _mm256_broadcastss_ps(h ? _mm_movehdup_ps(s) : s));
        }
    }
    sums.offset = _mm256_zextps128_ps256(offset);
    return sums_total(&sums);
}

/* code = 2 bit - 1, and the words are -bit */
static float rowdot_q1_0(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    __m128 offset = _mm_setzero_ps();
    const struct block_q1_0 *b = w, *end = b + k / 128;
    const int16_t *y = x->y;
    const float *d = x->d;
    const int32_t *sum = x->sum;
    for (; b < end; b++, y += 128, d += 4, sum += 8) {
        _Alignas(16) float s[4];
        prefetch((const uint8_t *)b, 1);
        __m128 scale = _mm_mul_ps(_mm_set1_ps(half_to_float(b->d)), _mm_loadu_ps(d));
        offset = _mm_fnmadd_ps(scale, _mm_cvtepi32_ps(_mm_hadd_epi32(load128(sum), load128(sum + 4))), offset);
        _mm_store_ps(s, _mm_mul_ps(scale, _mm_set1_ps(-2.0f)));
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) {
            __m256i bits = _mm256_set1_epi32((int)load_u32(b->qs + 4 * g));
            __m256i low = dot16(set_bits16(bits, 0), y + 32 * g), high = dot16(set_bits16(bits, 2), y + 32 * g + 16);
            accumulate(&sums, g, _mm256_add_epi32(low, high), _mm256_broadcast_ss(s + g));
        }
    }
    sums.offset = _mm256_zextps128_ps256(offset);
    return sums_total(&sums);
}

void kernels_init_avx2_rowdot_iq(struct kernels *k)
{
    k->rowdot[GGUF_IQ1_S] = rowdot_iq1_s;
    k->rowdot[GGUF_IQ1_M] = rowdot_iq1_m;
    k->rowdot[GGUF_IQ2_XXS] = rowdot_iq2_xxs;
    k->rowdot[GGUF_IQ2_XS] = rowdot_iq2_xs;
    k->rowdot[GGUF_IQ2_S] = rowdot_iq2_s;
    k->rowdot[GGUF_IQ3_XXS] = rowdot_iq3_xxs;
    k->rowdot[GGUF_IQ3_S] = rowdot_iq3_s;
    k->rowdot[GGUF_IQ4_NL] = rowdot_iq4_nl;
    k->rowdot[GGUF_IQ4_XS] = rowdot_iq4_xs;
    k->rowdot[GGUF_MXFP4] = rowdot_mxfp4;
    k->rowdot[GGUF_NVFP4] = rowdot_nvfp4;
    k->rowdot[GGUF_TQ1_0] = rowdot_tq1_0;
    k->rowdot[GGUF_TQ2_0] = rowdot_tq2_0;
    k->rowdot[GGUF_Q1_0] = rowdot_q1_0;
    k->rowdot[GGUF_Q2_0] = rowdot_q2_0;
}

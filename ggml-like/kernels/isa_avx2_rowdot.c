/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_rowdot - one file row times one token (decode) for AVX2. A row is walked in chunks of 256 weights: 8 blocks of 32, or one
 * superblock. A constant added to all codes, and the mins, cost one FMA a chunk through the sums of the activations. The number of instructions
 * counts, about three of which take a cycle on Zen 5: activations are multiplied as words where codes become words for little (q4_k, q8_0), as
 * two bytes elsewhere. One row at a time: two rows gain nothing in cache, and interleaved they lose up to half the DRAM bandwidth. */
#include "ggml-like/kernels/avx2_rowdot.h"

/* ---- blocks of 32 weights and fewer than 8 bits ---- 8 of them side by side: lane b of a register is 4 bytes of block b, and the activations come
 * in that order (act_eight). The sums of a block stay in its lane, so that there is one conversion and one FMA for 256 weights: q5_0 takes 36
 * cycles, by words and a conversion for each block it took 43. */

struct heads { __m256 d, m; }; /* of 8 blocks: value = d * code + m; m before the factor that all have in common */

/* What the loop needs to know about a format; all constants after inlining. */
struct rowdot_legacy {
    size_t bytes, qs;  /* of a block; where its nibbles are */
    size_t fifth;      /* where its 32 fifth bits are: the second dword ends behind them; 0: none */
    float bias;        /* value = d * (code + bias) */
    bool has_min;      /* value = d * code + m */
};

INLINE __m256i two128(const uint8_t *a, const uint8_t *b)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load128(a)), load128(b), 1);
}

/* t[r] = dword r of the 16 bytes at `offset` of each block */
INLINE void side_by_side(__m256i t[4], const uint8_t *const at[8], size_t offset)
{
    __m256i v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) v[i] = two128(at[i] + offset, at[i + 4] + offset);
    __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
    t[0] = _mm256_unpacklo_epi64(a, c), t[1] = _mm256_unpackhi_epi64(a, c);
    t[2] = _mm256_unpacklo_epi64(b, d), t[3] = _mm256_unpackhi_epi64(b, d);
}

/* The heads of 8 blocks in a row. first: dwords 0 and 1 of the blocks, where there are fifth bits */
INLINE struct heads legacy_heads(const uint8_t *w, const __m256i *first, const struct rowdot_legacy *f)
{
    struct heads h;
    if (f->fifth) {
        __m256i split = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
        __m256i words = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(first[0], split), 0xd8); /* words 0 of all blocks, then words 1 */
        h.d = h.m = _mm256_cvtph_ps(_mm256_castsi256_si128(words));
        if (f->has_min) h.m = _mm256_cvtph_ps(_mm256_extracti128_si256(words, 1));
    } else if (f->has_min) {
        h.d = scales8_min(w, f->bytes, &h.m);
    } else {
        h.d = h.m = scales8(w, f->bytes);
    }
    return h;
}

/* 16 where the fifth bit of a code of register r (columns 4r .. 4r + 3) is set; first: dwords 0 and 1 of the blocks, up: those shifted by 4 */
INLINE __m256i fifth_bits(const __m256i first[2], const __m256i up[2], int r, size_t fifth)
{
    int at = (int)fifth + r / 2;
    __m256i each = _mm256_add_epi32(_mm256_set1_epi32(at % 4 * 0x01010101), _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c)));
    __m256i v = _mm256_shuffle_epi8(r % 2 ? first[at / 4] : up[at / 4], each);
    return _mm256_min_epu8(_mm256_and_si256(v, _mm256_set1_epi32((int)0x80402010)), _mm256_set1_epi8(16));
}

struct chain { __m256i hi, lo; }; /* int16 sums: 8 registers of codes to 15 or 4 of codes to 31 fit */

INLINE void add_to_chain(struct chain *c, bool begin, __m256i codes, const struct act_eight *y, int r)
{
    __m256i hi = _mm256_maddubs_epi16(codes, load256(y->hi[r])), lo = _mm256_maddubs_epi16(codes, load256(y->lo[r]));
    c->hi = begin ? hi : _mm256_add_epi16(c->hi, hi);
    c->lo = begin ? lo : _mm256_add_epi16(c->lo, lo);
}
INLINE __m256i chain_total(const struct chain *c)
{
    return _mm256_add_epi32(_mm256_madd_epi16(c->hi, _mm256_set1_epi16(256)), _mm256_madd_epi16(c->lo, _mm256_set1_epi16(1)));
}

/* codes times activations of 8 blocks, a lane each */
INLINE __m256 legacy_dots(const uint8_t *const at[8], const __m256i first[2], const struct act_eight *y, const struct rowdot_legacy *f)
{
    __m256i t[4], up[2], low = _mm256_set1_epi8(15);
    struct chain c[2];
    side_by_side(t, at, f->qs);
    if (f->fifth) up[0] = _mm256_slli_epi16(first[0], 4), up[1] = _mm256_slli_epi16(first[1], 4);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        struct chain *to = &c[f->fifth ? r / 2 : 0];
        __m256i a = _mm256_and_si256(t[r], low), b = _mm256_and_si256(_mm256_srli_epi16(t[r], 4), low);
        if (f->fifth) a = _mm256_or_si256(a, fifth_bits(first, up, r, f->fifth)), b = _mm256_or_si256(b, fifth_bits(first, up, r + 4, f->fifth));
        add_to_chain(to, r == 0 || (f->fifth && r == 2), a, y, r);
        add_to_chain(to, false, b, y, r + 4);
    }
    return _mm256_cvtepi32_ps(f->fifth ? _mm256_add_epi32(chain_total(&c[0]), chain_total(&c[1])) : chain_total(&c[0]));
}

INLINE void first_dwords(__m256i first[2], const uint8_t *const at[8], const struct rowdot_legacy *f)
{
    __m256i t[4];
    if (!f->fifth) return;
    side_by_side(t, at, 0);
    first[0] = t[0], first[1] = t[1];
}

/* One block, by itself: what is left after the last eight. */
INLINE __m256i legacy_dot(const uint8_t *b, const int8_t *hi, const int8_t *lo, const struct rowdot_legacy *f)
{
    __m256i codes = f->fifth ? codes_q5_1(b + f->qs, load_u32(b + f->fifth)) : nibbles32(b + f->qs);
    struct chain c = { _mm256_maddubs_epi16(codes, load256(hi)), _mm256_maddubs_epi16(codes, load256(lo)) };
    return chain_total(&c);
}

INLINE void legacy_tail(struct sums *sums, const uint8_t *w, const struct act_row *x, int64_t column, int64_t k, const struct rowdot_legacy *f)
{
    for (; column < k; column += 32, w += f->bytes) {
        uint16_t h[2] = { 0, 0 };
        memcpy(h, w, f->has_min ? 4 : 2);
        float d = half_to_float(h[0]), m = f->has_min ? half_to_float(h[1]) : f->bias * d;
        accumulate(sums, (int)(column / 32), legacy_dot(w, x->hi + column, x->lo + column, f), _mm256_set1_ps(d * x->d[column / 32]));
        sums->tail += m * x->sum32[column / 32];
    }
}

INLINE float rowdot_legacy(const uint8_t *w, const struct act_row *x, int64_t k, const struct rowdot_legacy f)
{
    struct sums sums = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), 0.0f };
    int64_t column = 0;
    for (; column + CHUNK <= k; column += CHUNK, w += 8 * f.bytes) {
        const uint8_t *at[8];
        __m256i first[2];
        prefetch(w, 8 * f.bytes);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) at[i] = w + (size_t)i * f.bytes;
        first_dwords(first, at, &f);
        struct heads h = legacy_heads(w, first, &f);
        __m256 dots = legacy_dots(at, first, x->eight + column / CHUNK, &f);
        sums.even = _mm256_fmadd_ps(dots, _mm256_mul_ps(h.d, _mm256_loadu_ps(x->d + column / 32)), sums.even);
        sums.offset = _mm256_fmadd_ps(h.m, _mm256_loadu_ps(x->sum32 + column / 32), sums.offset);
    }
    legacy_tail(&sums, w, x, column, k, &f);
    return sums_total_offset(&sums, f.has_min ? 1.0f : f.bias);
}

#define ROWDOT_LEGACY(name, ...)                                                                                                            \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                                    \
    {                                                                                                                                \
        return rowdot_legacy(w, x, k, (struct rowdot_legacy){ .bytes = sizeof(struct block_##name), .qs = offsetof(struct block_##name, qs), \
                                                       __VA_ARGS__ });                                                               \
    }
ROWDOT_LEGACY(q4_0, .bias = -8.0f)
ROWDOT_LEGACY(q4_1, .has_min = true)
ROWDOT_LEGACY(q5_0, .fifth = offsetof(struct block_q5_0, qh), .bias = -16.0f)
ROWDOT_LEGACY(q5_1, .fifth = offsetof(struct block_q5_1, qh), .has_min = true)

/* ---- 8 bits ---- */

INLINE __m256i dot_q8(const int8_t qs[32], const int16_t *y)
{
    __m256i a = _mm256_madd_epi16(_mm256_cvtepi8_epi16(load128(qs)), load_y(y));
    return _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_cvtepi8_epi16(load128(qs + 16)), load_y(y + 16)));
}

/* Loads bound it: the scales are permuted, which takes 25 cycles for 256 weights; to store them and load each took 31. */
static float rowdot_q8_0(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), 0.0f };
    const struct block_q8_0 *b = w;
    const int16_t *y = x->y;
    const float *d = x->d;
    for (; k >= CHUNK; k -= CHUNK, b += 8, y += CHUNK, d += 8) {
        prefetch((const uint8_t *)b, 8 * sizeof *b);
        __m256 s = _mm256_mul_ps(scales8((const uint8_t *)b, sizeof *b), _mm256_loadu_ps(d));
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) accumulate(&sums, i, dot_q8(b[i].qs, y + 32 * i), _mm256_permutevar8x32_ps(s, _mm256_set1_epi32(i)));
    }
    for (; k > 0; k -= 32, b++, y += 32, d++)
        accumulate(&sums, (int)(k / 32), dot_q8(b->qs, y), _mm256_set1_ps(half_to_float(b->d) * d[0]));
    return sums_total(&sums);
}

/* ---- superblocks with groups of 32 ---- */

/* parks the 8 scales times the activation scales in s and takes in the mins */
INLINE void park_q4_k(struct sums *sums, float s[8], const uint8_t scales[12], const void *d_dmin, const float *dx, const float *sum)
{
    __m256 min, scale = scales_q4_k(scales, d_dmin, &min);
    _mm256_store_ps(s, _mm256_mul_ps(scale, _mm256_loadu_ps(dx)));
    sums->offset = _mm256_fnmadd_ps(min, _mm256_loadu_ps(sum), sums->offset);
}

static float rowdot_q4_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), 0.0f };
    const struct block_q4_k *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        _Alignas(32) float s[8];
        park_q4_k(&sums, s, b->scales, b, x->d + 8 * i, x->sum32 + 8 * i);
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) { /* 64 columns: 0-31 in the low nibbles, 32-63 in the high ones */
            __m256i v0 = _mm256_cvtepu8_epi16(load128(b->qs + 32 * c)), v1 = _mm256_cvtepu8_epi16(load128(b->qs + 32 * c + 16));
            const int16_t *at = y + 64 * c;
            __m256i low = _mm256_set1_epi16(15);
            __m256i a = _mm256_add_epi32(_mm256_madd_epi16(_mm256_and_si256(v0, low), load_y(at)),
                                         _mm256_madd_epi16(_mm256_and_si256(v1, low), load_y(at + 16)));
            __m256i e = _mm256_add_epi32(_mm256_madd_epi16(_mm256_srli_epi16(v0, 4), load_y(at + 32)),
                                         _mm256_madd_epi16(_mm256_srli_epi16(v1, 4), load_y(at + 48)));
            accumulate(&sums, 0, a, _mm256_broadcast_ss(s + 2 * c));
            accumulate(&sums, 1, e, _mm256_broadcast_ss(s + 2 * c + 1));
        }
    }
    return sums_total(&sums);
}

/* ---- superblocks by bytes ---- Unsigned codes times both bytes of the activations, and those sums, int16 and less than 2^14, times the integer
 * scales of the groups: floats come in once a superblock, whose activations have one scale. 8 instructions for 32 weights where groups of 16
 * took 8 for sums, conversions and scales alone after 6 for the codes; it is their number that counts, about three of them take a cycle. */

struct ints { __m256i hi, lo; };
struct bytes { const int8_t *hi, *lo; }; /* of the activations */

INLINE struct ints ints_zero(void) { return (struct ints){ _mm256_setzero_si256(), _mm256_setzero_si256() }; }

/* group g of 32; scale: words */
INLINE void add_group(struct ints *sum, __m256i codes, struct bytes y, int g, __m256i scale)
{
    __m256i hi = _mm256_maddubs_epi16(codes, load256(y.hi + 32 * g)), lo = _mm256_maddubs_epi16(codes, load256(y.lo + 32 * g));
    sum->hi = _mm256_add_epi32(sum->hi, _mm256_madd_epi16(hi, scale));
    sum->lo = _mm256_add_epi32(sum->lo, _mm256_madd_epi16(lo, scale));
}
INLINE __m256 ints_ps(const struct ints *v)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(v->hi), _mm256_set1_ps(256.0f), _mm256_cvtepi32_ps(v->lo));
}

/* word i of each lane, everywhere in the lane */
INLINE __m256i word_of_lanes(__m256i v, int i) { return _mm256_shuffle_epi8(v, _mm256_set1_epi16((short)(2 * i + (2 * i + 1) * 256))); }

/* d times the sum; d = that of the superblock */
INLINE void add_superblock(struct sums *sums, const struct ints *v, __m256 d, const float *dx)
{
    sums->even = _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_broadcast_ss(dx)), ints_ps(v), sums->even);
}

static float rowdot_q5_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), 0.0f };
    const struct block_q5_k *b = w, *end = b + k / CHUNK;
    struct bytes y = { x->hi, x->lo };
    for (int64_t i = 0; b < end; b++, i++, y.hi += CHUNK, y.lo += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        struct k4_scales v = k4_scales(b->scales);
        __m128 d = _mm_cvtph_ps(_mm_cvtsi32_si128((int)load_u32(b)));
        __m256i scale = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128((int64_t)v.scale))), qh = load256(b->qh);
        __m256 min = _mm256_mul_ps(bytes_to_ps(_mm_cvtsi64_si128((int64_t)v.min)), _mm256_loadu_ps(x->sum32 + 8 * i));
        sums.offset = _mm256_fnmadd_ps(_mm256_broadcastss_ps(_mm_movehdup_ps(d)), min, sums.offset);
        struct ints sum = ints_zero();
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) add_group(&sum, codes_q5_k(load256(b->qs + g / 2 * 32), qh, g), y, g, word_of_lanes(scale, g));
        add_superblock(&sums, &sum, _mm256_broadcastss_ps(d), x->d + 8 * i);
    }
    return sums_total(&sums);
}

/* ---- the same with groups of 16 ---- */

/* 16 signed bytes to words: the even ones in the lower lane, the odd ones in the upper one */
INLINE __m256i even_odd_words(__m128i v)
{
    return _mm256_cvtepi8_epi16(_mm_shuffle_epi8(v, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)));
}

/* takes in d times the sum of 16 signed bytes times the scaled sums of their groups */
INLINE void offsets16(struct sums *sums, __m128i v, __m256 d, const float *sum)
{
    __m256 high = _mm256_mul_ps(sbytes_to_ps(_mm_unpackhi_epi64(v, v)), _mm256_loadu_ps(sum + 8));
    sums->offset = _mm256_fmadd_ps(d, _mm256_fmadd_ps(sbytes_to_ps(v), _mm256_loadu_ps(sum), high), sums->offset);
}

static float rowdot_q6_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), 0.0f };
    const struct block_q6_k *b = w, *end = b + k / CHUNK;
    struct bytes y = { x->hi, x->lo };
    for (int64_t i = 0; b < end; b++, i++, y.hi += CHUNK, y.lo += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        __m128i bytes = load128(b->scales);
        __m256i scale = even_odd_words(bytes);
        __m256 d = _mm256_set1_ps(half_to_float(b->d));
        struct ints sum = ints_zero();
        offsets16(&sums, bytes, d, x->sum16 + 16 * i);
#pragma GCC unroll 2
        for (int h = 0; h < 8; h += 4) {
            __m256i ql0 = load256(b->ql + 16 * h), ql1 = load256(b->ql + 16 * h + 32), qh = load256(b->qh + 8 * h);
            add_group(&sum, codes_q6_k(ql0, qh, 0), y, h, word_of_lanes(scale, h));
            add_group(&sum, codes_q6_k(ql1, qh, 1), y, h + 1, word_of_lanes(scale, h + 1));
            add_group(&sum, codes_q6_k(ql0, qh, 2), y, h + 2, word_of_lanes(scale, h + 2));
            add_group(&sum, codes_q6_k(ql1, qh, 3), y, h + 3, word_of_lanes(scale, h + 3));
        }
        add_superblock(&sums, &sum, d, x->d + 8 * i);
    }
    return sums_total_offset(&sums, -32.0f);
}

static float rowdot_q3_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), 0.0f };
    const struct block_q3_k *b = w, *end = b + k / CHUNK;
    struct bytes y = { x->hi, x->lo };
    for (int64_t i = 0; b < end; b++, i++, y.hi += CHUNK, y.lo += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        __m128i bytes = scales_q3_k(b->scales);
        __m256i scale = even_odd_words(bytes), hmask = load256(b->hmask);
        __m256 d = _mm256_set1_ps(half_to_float(b->d));
        struct ints sum = ints_zero();
        offsets16(&sums, bytes, d, x->sum16 + 16 * i);
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) add_group(&sum, codes_q3_k(load256(b->qs + g / 4 * 32), hmask, g), y, g, word_of_lanes(scale, g));
        add_superblock(&sums, &sum, d, x->d + 8 * i);
    }
    return sums_total_offset(&sums, -4.0f);
}

static float rowdot_q2_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), 0.0f };
    const struct block_q2_k *b = w, *end = b + k / CHUNK;
    struct bytes y = { x->hi, x->lo };
    __m128i mask = _mm_set1_epi8(15);
    for (int64_t i = 0; b < end; b++, i++, y.hi += CHUNK, y.lo += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        __m128i q = load128(b->scales);
        __m256i scale = even_odd_words(_mm_and_si128(q, mask));
        struct ints sum = ints_zero();
        offsets16(&sums, _mm_and_si128(_mm_srli_epi16(q, 4), mask), _mm256_set1_ps(half_to_float(b->dmin)), x->sum16 + 16 * i);
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) add_group(&sum, two_bits(load256(b->qs + g / 4 * 32), g % 4 * 2), y, g, word_of_lanes(scale, g));
        add_superblock(&sums, &sum, _mm256_set1_ps(half_to_float(b->d)), x->d + 8 * i);
    }
    return sums_total_offset(&sums, -1.0f);
}

static float rowdot_q8_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), 0.0f };
    const struct block_q8_k *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        for (int g = 0; g < 8; g++) accumulate(&sums, g, dot_q8(b->qs + 32 * g, y + 32 * g), _mm256_set1_ps(b->d * x->d[8 * i + g]));
    }
    return sums_total(&sums);
}

/* ---- floats ---- */

/* 8 weights at w */
INLINE __m256 load_f32(const uint8_t *w) { return _mm256_loadu_ps((const float *)(const void *)w); }
INLINE __m256 load_f16(const uint8_t *w) { return _mm256_cvtph_ps(load128(w)); }
INLINE __m256 load_bf16(const uint8_t *w) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(w)), 16)); }

INLINE float rowdot_float(const uint8_t *w, const float *x, int64_t k, int64_t bytes, __m256 (*load)(const uint8_t *),
                          const struct dtype *t)
{
    __m256 sum[4] = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (; k >= 32; k -= 32, w += 32 * bytes, x += 32) {
        prefetch(w, (size_t)(32 * bytes));
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sum[i] = _mm256_fmadd_ps(load(w + 8 * i * bytes), _mm256_loadu_ps(x + 8 * i), sum[i]);
    }
    for (; k >= 8; k -= 8, w += 8 * bytes, x += 8) sum[0] = _mm256_fmadd_ps(load(w), _mm256_loadu_ps(x), sum[0]);
    float y = sum_ps(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]))), rest[8];
    t->to_f32(w, rest, k);
    for (int64_t i = 0; i < k; i++) y += rest[i] * x[i];
    return y;
}

static float rowdot_f32(const void *w, const struct act_row *x, int64_t k)
{
    return rowdot_float(w, x->f32, k, 4, load_f32, &dtype_f32);
}
static float rowdot_f16(const void *w, const struct act_row *x, int64_t k)
{
    return rowdot_float(w, x->f32, k, 2, load_f16, &dtype_f16);
}
static float rowdot_bf16(const void *w, const struct act_row *x, int64_t k)
{
    return rowdot_float(w, x->f32, k, 2, load_bf16, &dtype_bf16);
}

void kernels_init_avx2_rowdot(struct kernels *k)
{
    k->rowdot[GGUF_Q4_0] = rowdot_q4_0;
    k->rowdot[GGUF_Q4_1] = rowdot_q4_1;
    k->rowdot[GGUF_Q5_0] = rowdot_q5_0;
    k->rowdot[GGUF_Q5_1] = rowdot_q5_1;
    k->rowdot[GGUF_Q8_0] = rowdot_q8_0;
    k->rowdot[GGUF_Q2_K] = rowdot_q2_k;
    k->rowdot[GGUF_Q3_K] = rowdot_q3_k;
    k->rowdot[GGUF_Q4_K] = rowdot_q4_k;
    k->rowdot[GGUF_Q5_K] = rowdot_q5_k;
    k->rowdot[GGUF_Q6_K] = rowdot_q6_k;
    k->rowdot[GGUF_Q8_K] = rowdot_q8_k;
    k->rowdot[GGUF_F32] = rowdot_f32;
    k->rowdot[GGUF_F16] = rowdot_f16;
    k->rowdot[GGUF_BF16] = rowdot_bf16;
}

/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_rowdot - one file row times one token (decode) for AVX2. A row is walked in chunks of 256 weights: 8 blocks of 32, or one
 * superblock. Per chunk the scales come together into one register, are multiplied by the activation scales and parked in s[]; then each
 * group of 32 (or 16) is one int32 register, converted and multiplied by its s. A constant added to all codes, and the mins, cost one FMA a
 * chunk through the sums of the activations. One row at a time: two interleaved rows lose up to half the DRAM bandwidth. */
#include "ggml-like/kernels/avx2_rowdot.h"

/* ---- integer dots of 32 weights; natural order ---- */

/* words of two nibbles: low = y[0..15], high = y[16..31] */
INLINE __m256i dot_nibbles(__m256i words, const int16_t *low, const int16_t *high)
{
    __m256i a = _mm256_madd_epi16(_mm256_and_si256(words, _mm256_set1_epi16(15)), load_y(low));
    return _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_srli_epi16(words, 4), load_y(high)));
}

/* the words of 32 unsigned bytes in split order */
INLINE __m256i low_words(__m256i codes) { return _mm256_unpacklo_epi8(codes, _mm256_setzero_si256()); }
INLINE __m256i high_words(__m256i codes) { return _mm256_unpackhi_epi8(codes, _mm256_setzero_si256()); }

INLINE __m256i dot_split(__m256i codes, const int16_t *y)
{
    return _mm256_add_epi32(_mm256_madd_epi16(low_words(codes), load_y(y)), _mm256_madd_epi16(high_words(codes), load_y(y + 16)));
}

INLINE __m256i dot_q4(const uint8_t qs[16], const int16_t *y) { return dot_nibbles(_mm256_cvtepu8_epi16(load128(qs)), y, y + 16); }

INLINE __m256i dot_q8(const int8_t qs[32], const int16_t *y)
{
    __m256i a = _mm256_madd_epi16(_mm256_cvtepi8_epi16(load128(qs)), load_y(y));
    return _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_cvtepi8_epi16(load128(qs + 16)), load_y(y + 16)));
}

/* ---- formats with blocks of 32 ---- */

struct head { float d, m; }; /* one block: value = d * code + m */
struct heads { __m256 d, m; }; /* of 8 blocks; m before the factor that all have in common */

/* What the loop needs to know about a format; all constants after inlining. */
struct legacy {
    size_t block_bytes;
    float bias;    /* value = d * (code' + bias), code' being what dot multiplies */
    bool has_min, bound_by_loads; /* scales are permuted, not loaded: q8_0 25 cycles for 256 weights, not 31 */
    __m256i (*dot)(const uint8_t *block, const int16_t *y);
};

INLINE struct head legacy_head(const uint8_t *block, const struct legacy *f)
{
    uint16_t h[2] = { 0, 0 };
    memcpy(h, block, f->has_min ? 4 : 2);
    return (struct head){ half_to_float(h[0]), f->has_min ? half_to_float(h[1]) : f->bias * half_to_float(h[0]) };
}

INLINE struct heads legacy_heads(const uint8_t *w, const struct legacy *f)
{
    struct heads h;
    if (f->has_min) {
        h.d = scales8_min(w, f->block_bytes, &h.m);
    } else {
        h.d = h.m = scales8(w, f->block_bytes);
    }
    return h;
}

INLINE float rowdot_legacy(const uint8_t *w, const struct act_row *x, int64_t k, const struct legacy f)
{
    struct sums sums = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), 0.0f };
    const int16_t *y = x->y;
    const float *d = x->d, *sum = x->sum32;
    bool offsets = f.has_min || f.bias != 0.0f;
    for (; k >= CHUNK; k -= CHUNK, w += 8 * f.block_bytes, y += CHUNK, d += 8, sum += 8) {
        prefetch(w, 8 * f.block_bytes);
        struct heads h = legacy_heads(w, &f);
        __m256 s = _mm256_mul_ps(h.d, _mm256_loadu_ps(d));
        if (offsets) sums.offset = _mm256_fmadd_ps(h.m, _mm256_loadu_ps(sum), sums.offset);
        _Alignas(32) float parked[8];
        if (!f.bound_by_loads) _mm256_store_ps(parked, s);
#pragma GCC unroll 8
        for (int b = 0; b < 8; b++) {
            __m256 scale = f.bound_by_loads ? _mm256_permutevar8x32_ps(s, _mm256_set1_epi32(b)) : _mm256_broadcast_ss(parked + b);
            accumulate(&sums, b, f.dot(w + (size_t)b * f.block_bytes, y + 32 * b), scale);
        }
    }
    for (; k > 0; k -= 32, w += f.block_bytes, y += 32, d++, sum++) {
        struct head h = legacy_head(w, &f);
        accumulate(&sums, (int)(k / 32), f.dot(w, y), _mm256_set1_ps(h.d * d[0]));
        if (offsets) sums.tail += h.m * sum[0];
    }
    return sums_total_offset(&sums, f.has_min ? 1.0f : f.bias);
}

/* codes as the file has them (0..15, 0..31); -128..127 for q8_0 */
INLINE __m256i dot_q4_0(const uint8_t *b, const int16_t *y) { return dot_q4(((const struct block_q4_0 *)b)->qs, y); }
INLINE __m256i dot_q4_1(const uint8_t *b, const int16_t *y) { return dot_q4(((const struct block_q4_1 *)b)->qs, y); }
INLINE __m256i dot_q8_0(const uint8_t *b, const int16_t *y) { return dot_q8(((const struct block_q8_0 *)b)->qs, y); }
INLINE __m256i dot_q5_0(const uint8_t *b, const int16_t *y)
{
    const struct block_q5_0 *q = (const void *)b;
    return dot_split(codes_q5_split(q->qs, q->qh), y);
}
INLINE __m256i dot_q5_1(const uint8_t *b, const int16_t *y)
{
    const struct block_q5_1 *q = (const void *)b;
    return dot_split(codes_q5_split(q->qs, q->qh), y);
}

#define LEGACY(name, bytes_, bias_, has_min_, loads_)                                                                      \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                          \
    {                                                                                                                      \
        struct legacy f = { .block_bytes = bytes_, .bias = bias_, .has_min = has_min_, .bound_by_loads = loads_, .dot = dot_##name }; \
        return rowdot_legacy(w, x, k, f);                                                                                  \
    }
LEGACY(q4_0, 18, -8.0f, false, false)
LEGACY(q4_1, 20, 0.0f, true, false)
LEGACY(q5_0, 22, -16.0f, false, false)
LEGACY(q5_1, 24, 0.0f, true, false)
LEGACY(q8_0, 34, 0.0f, false, true)

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

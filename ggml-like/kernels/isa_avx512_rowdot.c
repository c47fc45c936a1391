/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512_rowdot - one file row times one token (decode) for AVX-512. A row is walked in chunks of 256 weights: 8 blocks of 32, or one
 * superblock. 64 codes, in the order of their columns, are one register of unsigned bytes, which VNNI multiplies by both bytes of the
 * activations; constants and mins go through the sums of the activations. What counts is the number of instructions (8 for 64 weights of
 * q4_0) and of loads (one that crosses a cache line counts twice): widening codes to int16 took 24 cycles for 256 weights of q4_0, this
 * takes 14. */
#include "ggml-like/kernels/avx512_legacy.h"

struct dots {
    __m512 even, odd;           /* two chains: the FMA latency of one would bound the loop */
    __m512 offset16; /* constants and mins of groups of 16, before their common factor */
    __m256 offset8;  /* of groups of 32 */
};
struct bytes { const int8_t *hi, *lo; }; /* of the activations */

INLINE struct dots dots_zero(void)
{
    return (struct dots){ _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm256_setzero_ps() };
}

/* even, odd: weights of the lanes of these sums; offsets and their factor */
INLINE float dots_total(const struct dots *s, __m512 even, __m512 odd, __m256 offset, float factor)
{
    __m256 v = fold(_mm512_fmadd_ps(s->even, even, _mm512_mul_ps(s->odd, odd)));
    return sum_ps(_mm256_fmadd_ps(offset, _mm256_set1_ps(factor), v));
}
INLINE __m512 ones(void) { return _mm512_set1_ps(1.0f); }

/* Constants by lanes of 128 bits. Spelled out: of inserts and blends gcc makes instructions, not constants. */
INLINE __m512i lanes4(int a, int b, int c, int d) { return _mm512_set_epi32(d, d, d, d, c, c, c, c, b, b, b, b, a, a, a, a); }
INLINE __m512 lanes4_ps(float a, float b, float c, float d) { return _mm512_set_ps(d, d, d, d, c, c, c, c, b, b, b, b, a, a, a, a); }
INLINE __m512i bytes4(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
    const uint32_t each = 0x01010101;
    return lanes4((int)(a * each), (int)(b * each), (int)(c * each), (int)(d * each));
}
INLINE __m512i half_half(uint8_t low, uint8_t high) { return bytes4(low, low, high, high); }

INLINE __m512 dot64(__m512i codes, struct bytes y, int at)
{
    __m512i v = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, load512(y.hi + at));
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_slli_epi32(v, 8), codes, load512(y.lo + at)));
}

INLINE void add64(struct dots *s, int i, __m512i codes, struct bytes y, __m512 scale)
{
    if (i % 2) s->odd = _mm512_fmadd_ps(dot64(codes, y, 64 * i), scale, s->odd);
    else s->even = _mm512_fmadd_ps(dot64(codes, y, 64 * i), scale, s->even);
}

/* scales 2i and 2i + 1, 8 lanes each; or 4i .. 4i + 3, 4 lanes each */
INLINE __m512 two_scales(__m256 s, int i)
{
    return _mm512_permutexvar_ps(lanes4(2 * i, 2 * i, 2 * i + 1, 2 * i + 1), _mm512_castps256_ps512(s));
}
INLINE __m512 four_scales(__m512 s, int i)
{
    return _mm512_permutexvar_ps(lanes4(4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3), s);
}

/* ---- formats with blocks of 32 (avx512_legacy.h) ---- */

/* Codes stand at the top of their bytes: that takes one shift for both halves. */
INLINE void halves_q4_0(const struct chunk *c, int q, __m512i heads, __m512i half[2])
{
    __m512i v = nibbles_of_4(c, q, sizeof(struct block_q4_0) / 2, 1), mask = _mm512_set1_epi8((char)0xf0);
    half[0] = _mm512_and_si512(_mm512_slli_epi16(v, 4), mask), half[1] = _mm512_and_si512(v, mask);
}
INLINE void halves_q4_1(const struct chunk *c, int q, __m512i heads, __m512i half[2])
{
    __m512i v = nibbles_of_4(c, q, sizeof(struct block_q4_1) / 2, 2), mask = _mm512_set1_epi8((char)0xf0);
    half[0] = _mm512_and_si512(_mm512_slli_epi16(v, 4), mask), half[1] = _mm512_and_si512(v, mask);
}

/* The fifth bits of the first halves, then of the second halves, are the upper half of the heads. They go through memory: from there a mask register
 * is one load. */
INLINE void with_fifth(__m512i nibbles, int q, __m512i heads, __m512i half[2])
{
    _Alignas(32) uint64_t bits[4];
    _mm256_store_si256((__m256i *)bits, _mm512_extracti64x4_epi64(heads, 1));
    __asm__ volatile("" : "+m"(*(uint64_t(*)[4])bits));
    __m512i mask = _mm512_set1_epi8(0x78), top = _mm512_set1_epi8(-128);
    half[0] = _mm512_and_si512(_mm512_slli_epi16(nibbles, 3), mask), half[1] = _mm512_and_si512(_mm512_srli_epi16(nibbles, 1), mask);
UNROLL
    for (int h = 0; h < 2; h++) half[h] = _mm512_mask_add_epi8(half[h], bits[2 * q + h], half[h], top);
}
INLINE void halves_q5_0(const struct chunk *c, int q, __m512i heads, __m512i half[2])
{
    with_fifth(nibbles_of_4(c, q, sizeof(struct block_q5_0) / 2, 3), q, heads, half);
}
INLINE void halves_q5_1(const struct chunk *c, int q, __m512i heads, __m512i half[2])
{
    with_fifth(nibbles_of_4(c, q, sizeof(struct block_q5_1) / 2, 4), q, heads, half);
}

INLINE void halves_q8_0(const struct chunk *c, int q, __m512i heads, __m512i half[2])
{
UNROLL
    for (int h = 0; h < 2; h++)
        half[h] = _mm512_xor_si512(pick_words(c, RUNS, q, sizeof(struct block_q8_0) / 2, 1 + 8 * h), _mm512_set1_epi8(-128));
}

ROWDOT_LEGACY(q4_0, .factor = 0x1p-4f, .bias = -8.0f)
ROWDOT_LEGACY(q4_1, .factor = 0x1p-4f, .has_min = true)
ROWDOT_LEGACY(q5_0, .factor = 0x1p-3f, .bias = -16.0f, .fifth = 1)
ROWDOT_LEGACY(q5_1, .factor = 0x1p-3f, .fifth = 2, .has_min = true)
ROWDOT_LEGACY(q8_0, .factor = 1.0f, .bias = -128.0f)

/* ---- superblocks with groups of 32 ---- */

/* half float number i of the four bytes at p, in all lanes */
INLINE __m512 half_at(const void *p, int i)
{
    __m512 v = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128((int)load_u32(p))));
    return i == 0 ? _mm512_broadcastss_ps(_mm512_castps512_ps128(v)) : _mm512_permutexvar_ps(_mm512_set1_epi32(i), v);
}

/* (low & mask) | (high & high_mask) */
INLINE __m512i joined(__m512i low, __m512i mask, __m512i high, __m512i high_mask)
{
    return _mm512_ternarylogic_epi32(_mm512_and_si512(high, high_mask), low, mask, 0xf8);
}
INLINE __m128i joined128(__m128i low, __m128i mask, __m128i high, __m128i high_mask)
{
    return _mm_ternarylogic_epi32(_mm_and_si128(high, high_mask), low, mask, 0xf8);
}

/* d, dmin and 12 bytes of scales at p: the 8 scales times the activation scales; takes in the mins */
INLINE __m256 scales_and_mins(struct dots *sums, const void *p, const float *dx, const float *sum)
{
    __m128i q = load128(p); /* d and dmin, a, b, c: scales 0-3 and 4-7 are a & 63 and c & 15 | a >> 6 << 4, mins b & 63 and c >> 4 | b >> 6 << 4 */
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(q, 0xed), _mm_setr_epi32(0, 0, 0, 4)), high = _mm_srli_epi32(_mm_shuffle_epi32(q, 0xa5), 2);
    __m128i both = joined128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f), high, _mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
    __m512 d = _mm512_castps128_ps512(_mm_cvtph_ps(q));
    d = _mm512_permutexvar_ps(lanes4(0, 0, 1, 1), d);
    __m512 v = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(both))); /* 8 scales, 8 mins */
    sums->offset8 = _mm256_fmadd_ps(upper(v), _mm256_loadu_ps(sum), sums->offset8);
    return _mm256_mul_ps(_mm512_castps512_ps256(v), _mm256_loadu_ps(dx));
}

INLINE __m512i both_halves(const void *p) { return _mm512_broadcast_i64x4(load256(p)); }

/* Columns 0-31 in the low nibbles of 32 bytes, 32-63 in the high ones; these stay 16 times too large. */
INLINE float dot_q4_k(const void *w, const struct act_row *x, int64_t k)
{
    struct dots sums = dots_zero();
    const struct block_q4_k *b = w;
    struct bytes y = { x->hi, x->lo };
    for (int64_t i = 0; i < k / CHUNK; i++, b++, y.hi += CHUNK, y.lo += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        __m256 s = scales_and_mins(&sums, b, x->d + 8 * i, x->sum32 + 8 * i);
UNROLL
        for (int c = 0; c < 4; c++)
            add64(&sums, c, _mm512_and_si512(both_halves(b->qs + 32 * c), half_half(0x0f, 0xf0)), y, two_scales(s, c));
    }
    __m512 lanes = lanes4_ps(1.0f, 1.0f, 0.0625f, 0.0625f);
    return dots_total(&sums, lanes, lanes, sums.offset8, -1.0f);
}
ROWDOTS(q4_k)

/* dwords of the lower half shifted left by `low` bits (right where negative), of the upper half by `high` */
INLINE __m512i shifted(__m512i v, int low, int high)
{
    return low <= 0 && high <= 0 ? _mm512_srlv_epi32(v, lanes4(-low, -low, -high, -high)) : _mm512_sllv_epi32(v, lanes4(low, low, high, high));
}
INLINE float dot_q5_k(const void *w, const struct act_row *x, int64_t k)
{
    struct dots sums = dots_zero();
    const struct block_q5_k *b = w;
    struct bytes y = { x->hi, x->lo };
    __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(16);
    for (int64_t i = 0; i < k / CHUNK; i++, b++, y.hi += CHUNK, y.lo += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        __m256 s = scales_and_mins(&sums, b, x->d + 8 * i, x->sum32 + 8 * i);
        __m512i qh = both_halves(b->qh);
#define CODES(c, left, left1) joined(shifted(both_halves(b->qs + 32 * (c)), 0, -4), low, shifted(qh, left, left1), high)
        add64(&sums, 0, CODES(0, 4, 3), y, two_scales(s, 0));
        add64(&sums, 1, CODES(1, 2, 1), y, two_scales(s, 1));
        add64(&sums, 2, CODES(2, 0, -1), y, two_scales(s, 2));
        add64(&sums, 3, CODES(3, -2, -3), y, two_scales(s, 3));
#undef CODES
    }
    return dots_total(&sums, ones(), ones(), sums.offset8, -1.0f);
}
ROWDOTS(q5_k)

/* ---- superblocks with groups of 16 ---- */

/* 16 scales, given as bytes extended to ints, times d */
INLINE __m512 times_d(__m512i scale, __m512 d) { return _mm512_mul_ps(d, _mm512_cvtepi32_ps(scale)); }

INLINE float dot_q6_k(const void *w, const struct act_row *x, int64_t k)
{
    struct dots sums = dots_zero();
    const struct block_q6_k *b = w;
    struct bytes y = { x->hi, x->lo };
    __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(0x30);
    for (int64_t i = 0; i < k / CHUNK; i++, b++, y.hi += CHUNK, y.lo += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        __m512 v = times_d(_mm512_cvtepi8_epi32(load128(b->scales)), half_at(b->scales + 14, 1)), s = _mm512_mul_ps(v, twice(x->d + 8 * i));
        sums.offset16 = _mm512_fmadd_ps(v, _mm512_loadu_ps(x->sum16 + 16 * i), sums.offset16);
UNROLL
        for (int h = 0; h < 2; h++) { /* 128 columns: 64 in the low nibbles, 64 in the high ones */
            __m512i ql = load512(b->ql + 64 * h), qh = both_halves(b->qh + 32 * h);
            add64(&sums, 2 * h, joined(ql, low, shifted(qh, 4, 2), high), y, four_scales(s, 2 * h));
            add64(&sums, 2 * h + 1, joined(_mm512_srli_epi16(ql, 4), low, shifted(qh, 0, -2), high), y, four_scales(s, 2 * h + 1));
        }
    }
    return dots_total(&sums, ones(), ones(), fold(sums.offset16), -32.0f);
}
ROWDOTS(q6_k)

/* of the dwords a, b, c of scales: a, b, a >> 4, b >> 4 in the low four bits, c << 4, c << 2, c, c >> 2 in the high two; 32 too large */
INLINE __m128i q3_k_scales(const struct block_q3_k *b)
{
    __m128i q = load128(b->scales - 2); /* to the end of the block */
    __m128i low = _mm_shuffle_epi8(q, _mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9));
    __m128i high = _mm_shuffle_epi8(q, _mm_set1_epi32(0x0d0c0b0a));
    low = _mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 4, 4)), high = _mm_rolv_epi32(high, _mm_setr_epi32(4, 2, 0, 30));
    return _mm_sub_epi8(joined128(low, _mm_set1_epi8(0x0f), high, _mm_set1_epi8(0x30)), _mm_set1_epi8(32));
}

/* Two bits at 0 and 2 of the bytes: the upper half stays four times too large. */
INLINE float dot_q3_k(const void *w, const struct act_row *x, int64_t k)
{
    struct dots sums = dots_zero();
    const struct block_q3_k *b = w;
    struct bytes y = { x->hi, x->lo };
    __m512i two = half_half(3, 12), third = half_half(4, 16);
    for (int64_t i = 0; i < k / CHUNK; i++, b++, y.hi += CHUNK, y.lo += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        __m512 v = times_d(_mm512_cvtepi8_epi32(q3_k_scales(b)), half_at(b->scales + 10, 1)), s = _mm512_mul_ps(v, twice(x->d + 8 * i));
        sums.offset16 = _mm512_fmadd_ps(v, _mm512_loadu_ps(x->sum16 + 16 * i), sums.offset16);
        __m512i q0 = both_halves(b->qs), q1 = both_halves(b->qs + 32), m = both_halves(b->hmask);
        add64(&sums, 0, joined(q0, two, shifted(m, 2, 3), third), y, four_scales(s, 0));
        add64(&sums, 1, joined(_mm512_srli_epi16(q0, 4), two, shifted(m, 0, 1), third), y, four_scales(s, 1));
        add64(&sums, 2, joined(q1, two, _mm512_srli_epi16(shifted(m, 0, 1), 2), third), y, four_scales(s, 2));
        add64(&sums, 3, joined(_mm512_srli_epi16(q1, 4), two, shifted(m, -4, -3), third), y, four_scales(s, 3));
    }
    __m512 lanes = lanes4_ps(1.0f, 1.0f, 0.25f, 0.25f);
    return dots_total(&sums, lanes, lanes, fold(sums.offset16), -4.0f);
}
ROWDOTS(q3_k)

/* All codes stay where they are in their bytes. */
INLINE float dot_q2_k(const void *w, const struct act_row *x, int64_t k)
{
    struct dots sums = dots_zero();
    const struct block_q2_k *b = w;
    struct bytes y = { x->hi, x->lo };
    for (int64_t i = 0; i < k / CHUNK; i++, b++, y.hi += CHUNK, y.lo += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        __m512i both = _mm512_cvtepu8_epi32(load128(b->scales));
        __m512 s = _mm512_mul_ps(times_d(_mm512_and_si512(both, _mm512_set1_epi32(15)), half_at(&b->d, 0)), twice(x->d + 8 * i));
        sums.offset16 = _mm512_fmadd_ps(times_d(_mm512_srli_epi32(both, 4), half_at(&b->d, 1)), _mm512_loadu_ps(x->sum16 + 16 * i), sums.offset16);
UNROLL
        for (int h = 0; h < 2; h++) {
            __m512i q = both_halves(b->qs + 32 * h);
            add64(&sums, 2 * h, _mm512_and_si512(q, half_half(0x03, 0x0c)), y, four_scales(s, 2 * h));
            add64(&sums, 2 * h + 1, _mm512_and_si512(q, half_half(0x30, 0xc0)), y, four_scales(s, 2 * h + 1));
        }
    }
    return dots_total(&sums, lanes4_ps(1.0f, 1.0f, 0x1p-2f, 0x1p-2f), lanes4_ps(0x1p-4f, 0x1p-4f, 0x1p-6f, 0x1p-6f), fold(sums.offset16), -1.0f);
}
ROWDOTS(q2_k)

/* By words: with codes made unsigned, a d near the smallest float would round the two sums that have to cancel differently. */
INLINE float dot_q8_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_q8_k *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
UNROLL
        for (int g = 0; g < 8; g++)
            accumulate(&sums, g, _mm512_cvtepi8_epi16(load256(b->qs + 32 * g)), y + 32 * g, _mm512_set1_ps(b->d * x->d[8 * i + g]));
    }
    return sums_total(&sums, 1.0f, 0.0f);
}
ROWDOTS(q8_k)

/* ---- floats ---- */

/* 16 weights at w */
INLINE __m512 load_f32(const uint8_t *w) { return _mm512_loadu_ps((const float *)(const void *)w); }
INLINE __m512 load_f16(const uint8_t *w) { return _mm512_cvtph_ps(load256(w)); }
INLINE __m512 load_bf16(const uint8_t *w) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load256(w)), 16)); }

INLINE float rowdot_float(const uint8_t *w, const float *x, int64_t k, int64_t bytes, __m512 (*load)(const uint8_t *),
                          const struct dtype *t)
{
    __m512 sum[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
    for (; k >= 64; k -= 64, w += 64 * bytes, x += 64) {
        prefetch(w, (size_t)(64 * bytes));
UNROLL
        for (int i = 0; i < 4; i++) sum[i] = _mm512_fmadd_ps(load(w + 16 * i * bytes), _mm512_loadu_ps(x + 16 * i), sum[i]);
    }
    for (; k >= 16; k -= 16, w += 16 * bytes, x += 16) sum[0] = _mm512_fmadd_ps(load(w), _mm512_loadu_ps(x), sum[0]);
    float y = sum_ps(fold(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])))), rest[16];
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

void kernels_init_avx512_rowdot(struct kernels *k)
{
    ROWDOT_SLOTS(k, GGUF_Q4_0, q4_0);
    ROWDOT_SLOTS(k, GGUF_Q4_1, q4_1);
    ROWDOT_SLOTS(k, GGUF_Q5_0, q5_0);
    ROWDOT_SLOTS(k, GGUF_Q5_1, q5_1);
    ROWDOT_SLOTS(k, GGUF_Q8_0, q8_0);
    ROWDOT_SLOTS(k, GGUF_Q2_K, q2_k);
    ROWDOT_SLOTS(k, GGUF_Q3_K, q3_k);
    ROWDOT_SLOTS(k, GGUF_Q4_K, q4_k);
    ROWDOT_SLOTS(k, GGUF_Q5_K, q5_k);
    ROWDOT_SLOTS(k, GGUF_Q6_K, q6_k);
    ROWDOT_SLOTS(k, GGUF_Q8_K, q8_k);
    k->rowdot[GGUF_F32] = rowdot_f32;
    k->rowdot[GGUF_F16] = rowdot_f16;
    k->rowdot[GGUF_BF16] = rowdot_bf16;
}

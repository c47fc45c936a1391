/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512_rowdot - one file row times one token (decode) for AVX-512. The walk is that of isa_avx2_rowdot.c: chunks of 256 weights whose
 * scales are multiplied by the activation scales in one register and parked in s[], one register of 32 codes as words per madd, constants
 * and mins through the sums of the activations. 512-bit instructions have two ports, so what counts is their number: 5 per block of q4_0. */
#include "ggml-like/kernels/avx512_rowdot.h"

/* ---- formats with blocks of 32 ---- */

/* What the loop needs to know about a format; all constants after inlining. */
struct legacy {
    size_t block_bytes;
    float bias; /* value = d * (code' + bias), code' being what words() gives; with has_min, d * code' + m */
    float high; /* the last 16 words are 1 / high times too large */
    bool has_min;
    __m512i (*words)(const uint8_t *block);
    __m256i (*heads)(const uint8_t *w); /* of 8 blocks d and m, or d twice */
};

/* Where in the row and its activations. */
struct place { const uint8_t *w; const int16_t *y; const float *d; const int32_t *sum; };

INLINE void advance(struct place *at, const struct legacy *f, int64_t blocks)
{
    at->w += blocks * (int64_t)f->block_bytes, at->y += 32 * blocks, at->d += blocks, at->sum += 2 * blocks;
}

/* Parks the scales of 8 blocks and takes in their offsets; those of blocks outside the mask (two bits each) become 0. */
INLINE void legacy_scales(struct sums *sums, float s[16], struct place at, const struct legacy *f, __mmask16 mask)
{
    __m512 head = _mm512_maskz_mul_ps(mask, _mm512_cvtph_ps(f->heads(at.w)), twice(at.d));
    park(s, head);
    if (f->has_min) head = _mm512_movehdup_ps(head);
    if (f->has_min || f->bias != 0.0f) sums->offset = _mm512_fmadd_ps(head, sums16(at.sum), sums->offset);
}

/* One block, for rows of less than a chunk. */
INLINE void legacy_block(struct sums *sums, struct place at, const struct legacy *f)
{
    uint16_t h[2];
    memcpy(h, at.w, sizeof h);
    float scale = half_to_float(h[0]) * at.d[0], offset = f->has_min ? half_to_float(h[1]) * at.d[0] : scale;
    accumulate(sums, 0, f->words(at.w), at.y, _mm512_set1_ps(scale));
    if (f->has_min || f->bias != 0.0f) sums->tail += offset * (float)(at.sum[0] + at.sum[1]);
}

INLINE float rowdot_legacy(const uint8_t *w, const struct act_row *x, int64_t k, const struct legacy f)
{
    struct sums sums = sums_zero();
    struct place at = { w, x->y, x->d, x->sum };
    int64_t blocks = k / 32;
    _Alignas(64) float s[16];
    for (; blocks >= 8; blocks -= 8, advance(&at, &f, 8)) {
        prefetch(at.w, 8 * f.block_bytes);
        legacy_scales(&sums, s, at, &f, 0xffff);
UNROLL
        for (int b = 0; b < 8; b++) accumulate(&sums, b, f.words(at.w + (size_t)b * f.block_bytes), at.y + 32 * b, _mm512_set1_ps(s[2 * b]));
    }
    if (blocks > 0 && k >= CHUNK) { /* the last chunk again; its first blocks are done */
        int done = 8 - (int)blocks;
        advance(&at, &f, -done);
        legacy_scales(&sums, s, at, &f, (__mmask16)(0xffff << 2 * done));
        for (int b = done; b < 8; b++) accumulate(&sums, 0, f.words(at.w + (size_t)b * f.block_bytes), at.y + 32 * b, _mm512_set1_ps(s[2 * b]));
    } else {
        for (; blocks > 0; blocks--, advance(&at, &f, 1)) legacy_block(&sums, at, &f);
    }
    return sums_total(&sums, f.high, f.has_min ? 1.0f : f.bias);
}

/* The first dwords of 8 blocks: a 32-byte load at w + i * (stride - 4) has the head of block i as its dword i. */
INLINE __m256i heads_blended(const uint8_t *w, size_t stride)
{
    stride -= 4;
    __m256i v = load256(w);
    v = _mm256_blend_epi32(v, load256(w + stride), 1 << 1);
    v = _mm256_blend_epi32(v, load256(w + 2 * stride), 1 << 2);
    v = _mm256_blend_epi32(v, load256(w + 3 * stride), 1 << 3);
    v = _mm256_blend_epi32(v, load256(w + 4 * stride), 1 << 4);
    v = _mm256_blend_epi32(v, load256(w + 5 * stride), 1 << 5);
    v = _mm256_blend_epi32(v, load256(w + 6 * stride), 1 << 6);
    return _mm256_blend_epi32(v, load256(w + 7 * stride), 1 << 7);
}

INLINE __m256i low_words_twice(__m256i v)
{
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13)));
}

/* 4 blocks are 72 bytes; heads at words 0, 9, 18, 27 */
INLINE __m256i heads_q4_0(const uint8_t *w)
{
    __m512i at = _mm512_castsi256_si512(_mm256_setr_epi16(TWICE(0, 9, 18, 27, 32, 41, 50, 59)));
    return _mm512_castsi512_si256(_mm512_permutex2var_epi16(load512(w), at, load512(w + 72)));
}

/* 4 blocks are 80 bytes; heads at dwords 0, 5, 10, 15 */
INLINE __m256i heads_q4_1(const uint8_t *w)
{
    __m512i at = _mm512_castsi256_si512(_mm256_setr_epi32(0, 5, 10, 15, 16, 21, 26, 31));
    return _mm512_castsi512_si256(_mm512_permutex2var_epi32(load512(w), at, load512(w + 80)));
}

INLINE __m256i heads_q5_0(const uint8_t *w) { return low_words_twice(heads_blended(w, sizeof(struct block_q5_0))); }
INLINE __m256i heads_q5_1(const uint8_t *w) { return heads_blended(w, sizeof(struct block_q5_1)); }
INLINE __m256i heads_q8_0(const uint8_t *w) { return heads_blended(w, sizeof(struct block_q8_0)); } /* the second word is not used */

/* 32 nibbles as words: 16 low ones, then 16 high ones 16 times too large, which saves a shift */
#define EACH16(x) (x), (x), (x), (x), (x), (x), (x), (x)
INLINE __m512i halves16(short low, short high)
{
    return _mm512_inserti64x4(_mm512_set1_epi16(low), _mm256_set1_epi16(high), 1);
}
INLINE __m512i nibble_words(const uint8_t qs[16])
{
    const int none = -128;
#define WORDS(i) (char)(i), none, (char)((i) + 1), none, (char)((i) + 2), none, (char)((i) + 3), none, (char)((i) + 4), none, \
                 (char)((i) + 5), none, (char)((i) + 6), none, (char)((i) + 7), none
    __m512i at = _mm512_broadcast_i64x4(_mm256_setr_epi8(WORDS(0), WORDS(8)));
#undef WORDS
    return _mm512_and_si512(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(load128(qs)), at), halves16(0x0f, 0xf0));
}
INLINE __m512i five_bit_words(const uint8_t qs[16], uint32_t qh)
{
    __m512i v = nibble_words(qs);
    return _mm512_mask_add_epi16(v, qh, v, halves16(16, 256));
}

INLINE __m512i words_q4_0(const uint8_t *b) { return nibble_words(((const struct block_q4_0 *)b)->qs); }
INLINE __m512i words_q4_1(const uint8_t *b) { return nibble_words(((const struct block_q4_1 *)b)->qs); }
INLINE __m512i words_q5_0(const uint8_t *b) { return five_bit_words(((const struct block_q5_0 *)b)->qs, load_u32(b + 2)); }
INLINE __m512i words_q5_1(const uint8_t *b) { return five_bit_words(((const struct block_q5_1 *)b)->qs, load_u32(b + 4)); }
INLINE __m512i words_q8_0(const uint8_t *b) { return _mm512_cvtepi8_epi16(load256(((const struct block_q8_0 *)b)->qs)); }

#define LEGACY(name, bytes_, bias_, has_min_, high_)                                                                                       \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                                          \
    {                                                                                                                                      \
        return rowdot_legacy(w, x, k, (struct legacy){ .block_bytes = bytes_, .bias = bias_, .high = high_, .has_min = has_min_,          \
                                                       .words = words_##name, .heads = heads_##name });                                    \
    }
LEGACY(q4_0, 18, -8.0f, false, 0.0625f)
LEGACY(q4_1, 20, 0.0f, true, 0.0625f)
LEGACY(q5_0, 22, -16.0f, false, 0.0625f)
LEGACY(q5_1, 24, 0.0f, true, 0.0625f)
LEGACY(q8_0, 34, 0.0f, false, 1.0f)

/* ---- superblocks with groups of 32 ---- */

/* parks the 8 scales times the activation scales in s[0..7] and takes in the mins */
INLINE void park_q4_k(struct sums *sums, float s[16], const uint8_t scales[12], const void *d_dmin, const float *dx, const int32_t *sum)
{
    uint32_t a = load_u32(scales), b = load_u32(scales + 4), c = load_u32(scales + 8);
    uint64_t scale = (a & 0x3f3f3f3f) | (uint64_t)((c & 0x0f0f0f0f) | (a >> 2 & 0x30303030)) << 32;
    uint64_t low = (b & 0x3f3f3f3f) | (uint64_t)((c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)) << 32;
    __m128i both = _mm_insert_epi64(_mm_cvtsi64_si128((int64_t)scale), (int64_t)low, 1);
    __m512 d = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128((int)load_u32(d_dmin))));
    d = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), d);
    d = _mm512_mul_ps(d, _mm512_broadcast_f32x8(_mm256_loadu_ps(dx)));
    __m512 v = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(both))); /* 8 scales, 8 mins */
    park(s, v);
    sums->offset = _mm512_fmadd_ps(_mm512_permutexvar_ps(load512(last_twice), v), sums16(sum), sums->offset);
}

static float rowdot_q4_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_q4_k *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        _Alignas(64) float s[16];
        park_q4_k(&sums, s, b->scales, b, x->d + 8 * i, x->sum + 16 * i);
UNROLL
        for (int c = 0; c < 4; c++) { /* 64 columns: 0-31 in the low nibbles, 32-63 in the high ones */
            __m512i v = _mm512_cvtepu8_epi16(load256(b->qs + 32 * c));
            accumulate(&sums, 0, _mm512_and_si512(v, _mm512_set1_epi16(15)), y + 64 * c, _mm512_set1_ps(s[2 * c]));
            accumulate(&sums, 1, _mm512_srli_epi16(v, 4), y + 64 * c + 32, _mm512_set1_ps(s[2 * c + 1]));
        }
    }
    return sums_total(&sums, 1.0f, -1.0f);
}

/* low | 16 * bit n of every word of v */
INLINE __m512i or_bit(__m512i low, __m512i v, int n)
{
    __m512i moved = n < 4 ? _mm512_slli_epi16(v, 4 - n) : _mm512_srli_epi16(v, n - 4);
    return _mm512_ternarylogic_epi32(low, moved, _mm512_set1_epi16(16), 0xf8); /* low | (moved & 16) */
}

static float rowdot_q5_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_q5_k *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        _Alignas(64) float s[16];
        park_q4_k(&sums, s, b->scales, b, x->d + 8 * i, x->sum + 16 * i);
        __m512i qh = _mm512_cvtepu8_epi16(load256(b->qh));
UNROLL
        for (int c = 0; c < 4; c++) {
            __m512i v = _mm512_cvtepu8_epi16(load256(b->qs + 32 * c));
            __m512i low = or_bit(_mm512_and_si512(v, _mm512_set1_epi16(15)), qh, 2 * c), high = or_bit(_mm512_srli_epi16(v, 4), qh, 2 * c + 1);
            accumulate(&sums, 0, low, y + 64 * c, _mm512_set1_ps(s[2 * c]));
            accumulate(&sums, 1, high, y + 64 * c + 32, _mm512_set1_ps(s[2 * c + 1]));
        }
    }
    return sums_total(&sums, 1.0f, -1.0f);
}

/* ---- superblocks with groups of 16 ---- 64 codes are one register of bytes, in the order that unpacking with zeros turns into the words
 * 0-31 and 32-63 */

INLINE __m512i split_order512(__m512i v) { return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), v); }

/* the 32 bytes at p twice in that order: even quadwords for columns 0-31, odd ones for 32-63 */
INLINE __m512i split_twice(const void *p)
{
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), _mm512_castsi256_si512(load256(p)));
}
INLINE __m512i shift_right(__m512i v, int even, int odd)
{
    return _mm512_srlv_epi64(v, _mm512_setr_epi64(even, odd, even, odd, even, odd, even, odd));
}
INLINE __m512i shift_left(__m512i v, int even, int odd)
{
    return _mm512_sllv_epi64(v, _mm512_setr_epi64(even, odd, even, odd, even, odd, even, odd));
}

/* two groups: s[0] for the first 16 columns, s[1] for the others */
INLINE __m512 two_scales(const float *s) { return _mm512_mask_broadcastss_ps(_mm512_set1_ps(s[0]), 0xff00, _mm_load_ss(s + 1)); }

/* 64 codes in split order, their four parked scales */
INLINE void accumulate64(struct sums *sums, __m512i codes, const int16_t *y, const float *s)
{
    __m512i zero = _mm512_setzero_si512();
    accumulate(sums, 0, _mm512_unpacklo_epi8(codes, zero), y, two_scales(s));
    accumulate(sums, 1, _mm512_unpackhi_epi8(codes, zero), y + 32, two_scales(s + 2));
}

/* parks 16 scales, given as bytes extended to ints, times d and the activation scales */
INLINE __m512 park16(float s[16], __m512i scale, float d, __m512 dx)
{
    __m512 v = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(d), _mm512_cvtepi32_ps(scale)), dx);
    park(s, v);
    return v;
}

static float rowdot_q6_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_q6_k *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(0x30);
    for (int64_t i = 0; b < end; b++, i++) {
        prefetch((const uint8_t *)b, sizeof *b);
        _Alignas(64) float s[16];
        __m512 v = park16(s, _mm512_cvtepi8_epi32(load128(b->scales)), half_to_float(b->d), twice(x->d + 8 * i));
        sums.offset = _mm512_fmadd_ps(v, sums16(x->sum + 16 * i), sums.offset);
UNROLL
        for (int h = 0; h < 2; h++, y += 128) {
            __m512i ql = split_order512(load512(b->ql + 64 * h)), qh = split_twice(b->qh + 32 * h);
            __m512i high0 = _mm512_and_si512(shift_left(qh, 4, 2), high), high1 = _mm512_and_si512(shift_right(qh, 0, 2), high);
            /* (ql & low) | high */
            accumulate64(&sums, _mm512_ternarylogic_epi32(ql, low, high0, 0xea), y, s + 8 * h);
            accumulate64(&sums, _mm512_ternarylogic_epi32(_mm512_srli_epi16(ql, 4), low, high1, 0xea), y + 64, s + 8 * h + 4);
        }
    }
    return sums_total(&sums, 1.0f, -32.0f);
}

static float rowdot_q3_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_q3_k *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    __m512i three = _mm512_set1_epi8(3), four = _mm512_set1_epi8(4);
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        _Alignas(64) float s[16];
        __m512 v = park16(s, _mm512_cvtepi8_epi32(scales_q3_k(b->scales)), half_to_float(b->d), twice(x->d + 8 * i));
        sums.offset = _mm512_fmadd_ps(v, sums16(x->sum + 16 * i), sums.offset);
        __m512i q0 = split_twice(b->qs), q1 = split_twice(b->qs + 32), m = split_twice(b->hmask);
        /* low | (mask & four) */
#define CODES(q, right, mask) _mm512_ternarylogic_epi32(_mm512_and_si512(shift_right(q, right, (right) + 2), three), mask, four, 0xf8)
        accumulate64(&sums, CODES(q0, 0, shift_left(m, 2, 1)), y, s);
        accumulate64(&sums, CODES(q0, 4, shift_right(m, 0, 1)), y + 64, s + 4);
        accumulate64(&sums, CODES(q1, 0, shift_right(m, 2, 3)), y + 128, s + 8);
        accumulate64(&sums, CODES(q1, 4, shift_right(m, 4, 5)), y + 192, s + 12);
#undef CODES
    }
    return sums_total(&sums, 1.0f, -4.0f);
}

static float rowdot_q2_k(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_q2_k *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    __m512i three = _mm512_set1_epi8(3);
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        prefetch((const uint8_t *)b, sizeof *b);
        _Alignas(64) float s[16];
        __m512i both = _mm512_cvtepu8_epi32(load128(b->scales));
        __m512 dx = twice(x->d + 8 * i), dmin = _mm512_mul_ps(_mm512_set1_ps(half_to_float(b->dmin)), dx);
        park16(s, _mm512_and_si512(both, _mm512_set1_epi32(15)), half_to_float(b->d), dx);
        __m512 m = _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4)));
        sums.offset = _mm512_fmadd_ps(m, sums16(x->sum + 16 * i), sums.offset);
UNROLL
        for (int h = 0; h < 2; h++) {
            __m512i q = split_twice(b->qs + 32 * h);
            accumulate64(&sums, _mm512_and_si512(shift_right(q, 0, 2), three), y + 128 * h, s + 8 * h);
            accumulate64(&sums, _mm512_and_si512(shift_right(q, 4, 6), three), y + 128 * h + 64, s + 8 * h + 4);
        }
    }
    return sums_total(&sums, 1.0f, -1.0f);
}

static float rowdot_q8_k(const void *w, const struct act_row *x, int64_t k)
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

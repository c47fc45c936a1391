/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_unpack - the unpack slots for AVX2, and the same for up to 256 weights at once, of which panels are built. */
#include "ggml-like/kernels/avx2_words.h"
#include "ggml-like/kernels/levels.h"

enum { CHUNK = 256 };

/* ---- unpack: n blocks (together at most 256 weights) to codes, scales and mins, equal to dtype->unpack bit for bit ---- */

INLINE void put(struct codes *out, int at, __m256i v) { _mm256_store_si256((__m256i *)(out->code + at), v); }

INLINE void put_scales(const uint8_t *w, int n, size_t stride, struct codes *out)
{
    if (n == 8) {
        _mm256_store_ps(out->scale, scales8(w, stride));
    } else {
        for (int b = 0; b < n; b++) {
            uint16_t d;
            memcpy(&d, w + (size_t)b * stride, sizeof d);
            out->scale[b] = half_to_float(d);
        }
    }
    for (int b = 0; b < n; b++) out->min[b] = 0.0f;
}

INLINE void put_scales_min(const uint8_t *w, int n, size_t stride, struct codes *out)
{
    if (n == 8) {
        __m256 min;
        _mm256_store_ps(out->scale, scales8_min(w, stride, &min));
        _mm256_store_ps(out->min, min);
        return;
    }
    for (int b = 0; b < n; b++) {
        uint16_t head[2];
        memcpy(head, w + (size_t)b * stride, sizeof head);
        out->scale[b] = half_to_float(head[0]), out->min[b] = half_to_float(head[1]);
    }
}

static void chunk_q4_0(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q4_0 *b = (const void *)w;
    for (int i = 0; i < n; i++) put(out, 32 * i, _mm256_sub_epi8(nibbles32(b[i].qs), _mm256_set1_epi8(8)));
    put_scales(w, n, sizeof *b, out);
}

static void chunk_q4_1(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q4_1 *b = (const void *)w;
    for (int i = 0; i < n; i++) put(out, 32 * i, nibbles32(b[i].qs));
    put_scales_min(w, n, sizeof *b, out);
}

static void chunk_q5_0(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q5_0 *b = (const void *)w;
    for (int i = 0; i < n; i++) put(out, 32 * i, codes_q5_0(b[i].qs, b[i].qh));
    put_scales(w, n, sizeof *b, out);
}

static void chunk_q5_1(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q5_1 *b = (const void *)w;
    for (int i = 0; i < n; i++) put(out, 32 * i, codes_q5_1(b[i].qs, b[i].qh));
    put_scales_min(w, n, sizeof *b, out);
}

static void chunk_q8_0(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q8_0 *b = (const void *)w;
    for (int i = 0; i < n; i++) put(out, 32 * i, load256(b[i].qs));
    put_scales(w, n, sizeof *b, out);
}

static void chunk_q2_k(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q2_k *b = (const void *)w;
    for (int h = 0; h < 2; h++) {
        __m256i qs = load256(b->qs + 32 * h);
        put(out, 128 * h, two_bits(qs, 0));
        put(out, 128 * h + 32, two_bits(qs, 2));
        put(out, 128 * h + 64, two_bits(qs, 4));
        put(out, 128 * h + 96, two_bits(qs, 6));
    }
    __m128i s = load128(b->scales), mask = _mm_set1_epi8(15);
    struct scales16 scale = scales16(_mm_and_si128(s, mask), half_to_float(b->d));
    struct scales16 min = scales16(_mm_and_si128(_mm_srli_epi16(s, 4), mask), half_to_float(b->dmin));
    _mm256_store_ps(out->scale, scale.low);
    _mm256_store_ps(out->scale + 8, scale.high);
    _mm256_store_ps(out->min, negated(min.low));
    _mm256_store_ps(out->min + 8, negated(min.high));
}

/* 16 scales without mins: d times signed bytes */
INLINE void put_scales16(struct codes *out, float d, __m128i s)
{
    struct scales16 scale = scales16(s, d);
    _mm256_store_ps(out->scale, scale.low);
    _mm256_store_ps(out->scale + 8, scale.high);
    _mm256_store_ps(out->min, _mm256_setzero_ps());
    _mm256_store_ps(out->min + 8, _mm256_setzero_ps());
}

static void chunk_q3_k(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q3_k *b = (const void *)w;
    __m256i hmask = load256(b->hmask), four = _mm256_set1_epi8(4);
#define GROUP(g) put(out, 32 * (g), _mm256_sub_epi8(codes_q3_k(load256(b->qs + (g) / 4 * 32), hmask, g), four))
    GROUP(0), GROUP(1), GROUP(2), GROUP(3), GROUP(4), GROUP(5), GROUP(6), GROUP(7);
#undef GROUP
    put_scales16(out, half_to_float(b->d), scales_q3_k(b->scales));
}

static void chunk_q4_k(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q4_k *b = (const void *)w;
    for (int c = 0; c < 4; c++) {
        __m256i qs = load256(b->qs + 32 * c);
        put(out, 64 * c, nibble(qs, 0));
        put(out, 64 * c + 32, nibble(qs, 4));
    }
    __m256 min;
    _mm256_store_ps(out->scale, scales_q4_k(b->scales, w, &min));
    _mm256_store_ps(out->min, negated(min));
}

static void chunk_q5_k(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q5_k *b = (const void *)w;
    __m256i qh = load256(b->qh);
#define GROUP(g) put(out, 32 * (g), codes_q5_k(load256(b->qs + (g) / 2 * 32), qh, g))
    GROUP(0), GROUP(1), GROUP(2), GROUP(3), GROUP(4), GROUP(5), GROUP(6), GROUP(7);
#undef GROUP
    __m256 min;
    _mm256_store_ps(out->scale, scales_q4_k(b->scales, w, &min));
    _mm256_store_ps(out->min, negated(min));
}

static void chunk_q6_k(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q6_k *b = (const void *)w;
    __m256i bias = _mm256_set1_epi8(32);
    for (int h = 0; h < 2; h++) {
        __m256i ql[2] = { load256(b->ql + 64 * h), load256(b->ql + 64 * h + 32) }, qh = load256(b->qh + 32 * h);
        put(out, 128 * h, _mm256_sub_epi8(codes_q6_k(ql[0], qh, 0), bias));
        put(out, 128 * h + 32, _mm256_sub_epi8(codes_q6_k(ql[1], qh, 1), bias));
        put(out, 128 * h + 64, _mm256_sub_epi8(codes_q6_k(ql[0], qh, 2), bias));
        put(out, 128 * h + 96, _mm256_sub_epi8(codes_q6_k(ql[1], qh, 3), bias));
    }
    put_scales16(out, half_to_float(b->d), load128(b->scales));
}

static void chunk_q8_k(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q8_k *b = (const void *)w;
    for (int i = 0; i < CHUNK; i += 32) put(out, i, load256(b->qs + i));
    _mm256_store_ps(out->scale, _mm256_set1_ps(b->d));
    _mm256_store_ps(out->min, _mm256_setzero_ps());
}

/* ---- codebooks ---- */

/* codes of two registers of 16 words */
INLINE void put_words(struct codes *out, int at, __m256i low, __m256i high)
{
    put(out, at, _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8));
}

/* one superblock */
INLINE void chunk_book(const void *block, struct codes *out, void (*open)(const void *, struct book *), bool has_signs,
                       __m256i (*codes)(const struct book *, int))
{
    struct book o;
    open(block, &o);
    if (has_signs) spread_bits(&o);
    opened(&o);
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) put_words(out, 32 * g, codes(&o, 2 * g), codes(&o, 2 * g + 1));
    memcpy(out->scale, o.scale, sizeof out->scale);
    memset(out->min, 0, sizeof out->min);
}

#define BOOK(name, has_signs) \
    static void chunk_##name(const uint8_t *w, int n, struct codes *out) { chunk_book(w, out, open_##name, has_signs, codes_##name); }
BOOK(iq2_xxs, true) BOOK(iq2_xs, true) BOOK(iq2_s, true) BOOK(iq3_xxs, true) BOOK(iq3_s, true) BOOK(iq1_m, false)

static void chunk_iq1_s(const uint8_t *w, int n, struct codes *out)
{
    const struct block_iq1_s *b = (const void *)w;
    struct book o;
    open_iq1_s(b, &o);
    opened(&o);
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        __m256i one = _mm256_set1_epi16(b->qh[g] >> 15 ? -1 : 1);
        put_words(out, 32 * g, _mm256_add_epi16(codes_iq1_s(&o, 2 * g), one), _mm256_add_epi16(codes_iq1_s(&o, 2 * g + 1), one));
    }
    memcpy(out->scale, o.scale, 8 * sizeof(float));
    _mm256_store_ps(out->min, _mm256_setzero_ps());
}

/* ---- 16 levels ---- */

INLINE __m256i levels32(const uint8_t qs[16], const int8_t levels[16]) { return _mm256_shuffle_epi8(load_twice(levels), nibbles32(qs)); }

static void chunk_iq4_nl(const uint8_t *w, int n, struct codes *out)
{
    const struct block_iq4_nl *b = (const void *)w;
    for (int i = 0; i < n; i++) put(out, 32 * i, levels32(b[i].qs, iq4_levels));
    put_scales(w, n, sizeof *b, out);
}

static void chunk_iq4_xs(const uint8_t *w, int n, struct codes *out)
{
    const struct block_iq4_xs *b = (const void *)w;
    for (int g = 0; g < 8; g++) put(out, 32 * g, levels32(b->qs + 16 * g, iq4_levels));
    _mm256_store_ps(out->scale, scales_iq4_xs(b));
    _mm256_store_ps(out->min, _mm256_setzero_ps());
}

static void chunk_mxfp4(const uint8_t *w, int n, struct codes *out)
{
    const struct block_mxfp4 *b = (const void *)w;
    for (int i = 0; i < n; i++) {
        put(out, 32 * i, levels32(b[i].qs, e2m1_levels));
        out->min[i] = 0.0f;
        if (n < 8) out->scale[i] = scale_mxfp4(&b[i].e);
    }
    if (n == 8) _mm256_store_ps(out->scale, scales8_mxfp4(w));
}

static void chunk_nvfp4(const uint8_t *w, int n, struct codes *out)
{
    const struct block_nvfp4 *b = (const void *)w;
    for (int i = 0; i < n; i++) { /* levels32 gives split order: its own inverse */
        put(out, 64 * i, split_order(levels32(b[i].qs, e2m1_levels)));
        put(out, 64 * i + 32, split_order(levels32(b[i].qs + 16, e2m1_levels)));
        _mm_store_ps(out->scale + 4 * i, scales_nvfp4(b[i].d));
        _mm_store_ps(out->min + 4 * i, _mm_setzero_ps());
    }
}

/* ---- one scale a block, one or two bits or a trit a weight ---- */

/* the scale d of `groups` groups from group `at` on */
INLINE void put_scale(struct codes *out, int at, int groups, uint16_t d)
{
    for (int g = at; g < at + groups; g++) out->scale[g] = half_to_float(d), out->min[g] = 0.0f;
}

static void chunk_tq1_0(const uint8_t *w, int n, struct codes *out)
{
    const struct block_tq1_0 *b = (const void *)w;
    struct trits t = open_tq1_0(b);
    __m256i one = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++)
        put_words(out, 32 * g, _mm256_sub_epi16(codes_tq1_0(&t, 2 * g), one), _mm256_sub_epi16(codes_tq1_0(&t, 2 * g + 1), one));
    put_scale(out, 0, 8, b->d);
}

static void chunk_tq2_0(const uint8_t *w, int n, struct codes *out)
{
    const struct block_tq2_0 *b = (const void *)w;
    __m256i one = _mm256_set1_epi8(1);
    for (int h = 0; h < 2; h++) {
        __m256i qs = load256(b->qs + 32 * h);
        put(out, 128 * h, _mm256_sub_epi8(two_bits(qs, 0), one));
        put(out, 128 * h + 32, _mm256_sub_epi8(two_bits(qs, 2), one));
        put(out, 128 * h + 64, _mm256_sub_epi8(two_bits(qs, 4), one));
        put(out, 128 * h + 96, _mm256_sub_epi8(two_bits(qs, 6), one));
    }
    put_scale(out, 0, 8, b->d);
}

static void chunk_q1_0(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q1_0 *b = (const void *)w;
    for (int i = 0; i < n; i++) {
        for (int g = 0; g < 4; g++) put(out, 128 * i + 32 * g, _mm256_or_si256(clear_bits_natural(load_u32(b[i].qs + 4 * g)), _mm256_set1_epi8(1)));
        put_scale(out, 4 * i, 4, b[i].d);
    }
}

static void chunk_q2_0(const uint8_t *w, int n, struct codes *out)
{
    const struct block_q2_0 *b = (const void *)w;
    __m256i one = _mm256_set1_epi16(1);
    for (int i = 0; i < n; i++) {
        for (int h = 0; h < 2; h++) {
            __m256i low = _mm256_srli_epi16(codes_q2_0(load_u32(b[i].qs + 8 * h)), 6);
            __m256i high = _mm256_srli_epi16(codes_q2_0(load_u32(b[i].qs + 8 * h + 4)), 6);
            put_words(out, 64 * i + 32 * h, _mm256_sub_epi16(low, one), _mm256_sub_epi16(high, one));
        }
        put_scale(out, 2 * i, 2, b[i].d);
    }
}

/* X(enum name, function) */
#define UNPACKERS(X)                                                                                                                  \
    X(GGUF_Q4_0, q4_0) X(GGUF_Q4_1, q4_1) X(GGUF_Q5_0, q5_0) X(GGUF_Q5_1, q5_1) X(GGUF_Q8_0, q8_0) X(GGUF_Q2_K, q2_k)                  \
    X(GGUF_Q3_K, q3_k) X(GGUF_Q4_K, q4_k) X(GGUF_Q5_K, q5_k) X(GGUF_Q6_K, q6_k) X(GGUF_Q8_K, q8_k)                  \
    X(GGUF_IQ1_S, iq1_s) X(GGUF_IQ1_M, iq1_m) X(GGUF_IQ2_XXS, iq2_xxs) X(GGUF_IQ2_XS, iq2_xs) X(GGUF_IQ2_S, iq2_s)                     \
    X(GGUF_IQ3_XXS, iq3_xxs) X(GGUF_IQ3_S, iq3_s) X(GGUF_IQ4_NL, iq4_nl) X(GGUF_IQ4_XS, iq4_xs) X(GGUF_MXFP4, mxfp4)                   \
    X(GGUF_NVFP4, nvfp4) X(GGUF_TQ1_0, tq1_0) X(GGUF_TQ2_0, tq2_0) X(GGUF_Q1_0, q1_0) X(GGUF_Q2_0, q2_0)
#define CHUNK_ROW(id, name) [id] = chunk_##name,
avx2_unpack_fn *const avx2_unpack[DTYPE_IDS] = { UNPACKERS(CHUNK_ROW) };

/* Through a pointer that no compiler sees through: gcc 12.2 -O2 compiles chunk_nvfp4 and chunk_q2_0 rightly, but takes them for functions without effect
 * (-fipa-pure-const and -fipa-modref each; with both off, or with clang 14, it does not) and drops a direct call. */
static void one_block(avx2_unpack_fn *chunk, const void *block, struct codes *out)
{
    avx2_unpack_fn *volatile f = chunk;
    f(block, 1, out);
}
#define ONE_BLOCK(id, name) \
    static void unpack_##name(const void *block, struct codes *out) { one_block(chunk_##name, block, out); }
UNPACKERS(ONE_BLOCK)

void kernels_init_avx2_unpack(struct kernels *k)
{
#define UNPACK_SLOT(id, name) k->unpack[id] = unpack_##name, k->unpack_run[id] = chunk_##name;
    UNPACKERS(UNPACK_SLOT)
}

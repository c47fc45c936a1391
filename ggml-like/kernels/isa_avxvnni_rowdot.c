/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavxvnni */
/* isa_avxvnni_rowdot - one file row times one token (decode) for AVX-VNNI: the walk of isa_avx2_rowdot.c, with codes as unsigned bytes in the order of
 * their columns, which vpdpbusd multiplies by both bytes of the activations: 32 codes are two products where words take two and their widening.
 * Codes stay where they are in their bytes as long as they are at most 255; the scales make up for that. Formats that are not here keep AVX2. */
#include "ggml-like/kernels/avx2_prefetch.h"
#include "ggml-like/kernels/avx2_words.h"
#include "ggml-like/kernels/levels.h"

#define UNROLL _Pragma("GCC unroll 8")
#define FOUR(n) n, n, n, n

/* Four chains: a chunk is 8 FMAs, and two chains of four times 4 cycles would bound it. */
struct sums {
    __m256 chain[4];
    __m256 offset; /* constants and mins, before their common factor */
    float tail;    /* the same of single blocks */
};

INLINE struct sums sums_zero(void)
{
    __m256 zero = _mm256_setzero_ps();
    return (struct sums){ { zero, zero, zero, zero }, zero, 0.0f };
}
/* lanes: what multiplies those of the chains */
INLINE float dots_total(const struct sums *s, __m256 lanes, float factor)
{
    __m256 v = _mm256_mul_ps(lanes, _mm256_add_ps(_mm256_add_ps(s->chain[0], s->chain[2]), _mm256_add_ps(s->chain[1], s->chain[3])));
    return sum_ps(_mm256_fmadd_ps(s->offset, _mm256_set1_ps(factor), v)) + factor * s->tail;
}
INLINE __m256 ones(void) { return _mm256_set1_ps(1.0f); }

/* 8 scales of 32 columns, or 16 of 16, from which a shuffle makes those of 32 columns where there are loads enough (q4_0: 24 cycles for 256 weights,
 * 27 with loads); or parked in memory where there are shuffles enough (iq4_xs: 27, 30 with shuffles) */
struct scales { __m256 first, last; const float *parked; };

INLINE struct scales park(__m256 s, float at[8])
{
    _mm256_store_ps(at, s);
    return (struct scales){ .parked = at };
}
INLINE struct scales scales32(__m256 s) { return (struct scales){ _mm256_permute2f128_ps(s, s, 0x00), _mm256_permute2f128_ps(s, s, 0x11), NULL }; }
INLINE struct scales scales_of_16(struct scales16 s)
{
    __m256i at = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    return (struct scales){ _mm256_permutevar8x32_ps(s.low, at), _mm256_permutevar8x32_ps(s.high, at), NULL };
}
INLINE __m256 scale_at(struct scales s, int g)
{
    if (s.parked) return _mm256_broadcast_ss(s.parked + g);
    __m256 v = g < 4 ? s.first : s.last;
    return g % 4 == 0   ? _mm256_permute_ps(v, 0x00)
           : g % 4 == 1 ? _mm256_permute_ps(v, 0x55)
           : g % 4 == 2 ? _mm256_permute_ps(v, 0xaa)
                        : _mm256_permute_ps(v, 0xff);
}

/* 32 codes times the activations from column `at` on */
INLINE __m256i dot32(__m256i codes, const struct act_row *x, int64_t at)
{
    __m256i v = _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), codes, load256(x->hi + at));
    return _mm256_dpbusd_avx_epi32(_mm256_slli_epi32(v, 8), codes, load256(x->lo + at));
}

/* group g of a chunk that begins at column `at` */
INLINE void add32(struct sums *s, int g, __m256i codes, const struct act_row *x, int64_t at, struct scales scale)
{
    s->chain[g % 4] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot32(codes, x, at + 32 * g)), scale_at(scale, g), s->chain[g % 4]);
}

/* ---- formats with blocks of 32 ---- */

/* What the loop needs to know about a format; all constants after inlining. */
struct rowdot_legacy {
    size_t bytes;       /* of a block */
    float bias;         /* value = d * (code + bias); with has_min, d * code + m */
    bool has_min;
    bool parks;         /* its scales */
    bool high_in_place; /* columns 16-31 of a block are 16 times too large, which saves a shift */
    __m256i (*codes)(const uint8_t *block);
};

INLINE float rowdot_legacy(const uint8_t *w, const struct act_row *x, int64_t k, const struct rowdot_legacy f)
{
    struct sums sums = sums_zero();
    int64_t at = 0;
    for (; at + CHUNK <= k; at += CHUNK, w += 8 * f.bytes) {
        prefetch(w, 8 * f.bytes);
        __m256 m, d = f.has_min ? scales8_min(w, f.bytes, &m) : scales8(w, f.bytes);
        _Alignas(32) float parked[8];
        sums.offset = _mm256_fmadd_ps(f.has_min ? m : d, _mm256_loadu_ps(x->sum32 + at / 32), sums.offset);
        d = _mm256_mul_ps(d, _mm256_loadu_ps(x->d + at / 32));
        struct scales s = f.parks ? park(d, parked) : scales32(d);
UNROLL
        for (int b = 0; b < 8; b++) add32(&sums, b, f.codes(w + (size_t)b * f.bytes), x, at, s);
    }
    for (; at < k; at += 32, w += f.bytes) {
        uint16_t head[2];
        memcpy(head, w, sizeof head);
        float d = half_to_float(head[0]);
        add32(&sums, 0, f.codes(w), x, at, scales32(_mm256_set1_ps(d * x->d[at / 32])));
        sums.tail += (f.has_min ? half_to_float(head[1]) : d) * x->sum32[at / 32];
    }
    __m256 high = _mm256_setr_ps(FOUR(1.0f), FOUR(0.0625f));
    return dots_total(&sums, f.high_in_place ? high : ones(), f.has_min ? 1.0f : f.bias);
}

INLINE __m256i in_place(const uint8_t qs[16])
{
    return _mm256_and_si256(load_twice(qs), _mm256_setr_epi32(FOUR(0x0f0f0f0f), FOUR(-0x0f0f0f10)));
}
INLINE __m256i codes_of_q4_0(const uint8_t *b) { return in_place(((const struct block_q4_0 *)b)->qs); }
INLINE __m256i codes_of_q4_1(const uint8_t *b) { return in_place(((const struct block_q4_1 *)b)->qs); }
INLINE __m256i codes_of_q5_0(const uint8_t *b)
{
    const struct block_q5_0 *q = (const void *)b;
    return codes_q5_1(q->qs, q->qh);
}
INLINE __m256i codes_of_q5_1(const uint8_t *b)
{
    const struct block_q5_1 *q = (const void *)b;
    return codes_q5_1(q->qs, q->qh);
}
INLINE __m256i codes_of_q8_0(const uint8_t *b) { return _mm256_xor_si256(load256(((const struct block_q8_0 *)b)->qs), _mm256_set1_epi8(-128)); }

#define ROWDOT_LEGACY(name, ...)                                                                                                                \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                                        \
    {                                                                                                                                    \
        return rowdot_legacy(w, x, k, (struct rowdot_legacy){ .bytes = sizeof(struct block_##name), .codes = codes_of_##name, __VA_ARGS__ });   \
    }
ROWDOT_LEGACY(q4_0, .bias = -8.0f, .high_in_place = true)
ROWDOT_LEGACY(q4_1, .has_min = true, .high_in_place = true)
ROWDOT_LEGACY(q5_0, .bias = -16.0f, .parks = true)
ROWDOT_LEGACY(q5_1, .has_min = true, .parks = true)
ROWDOT_LEGACY(q8_0, .bias = -128.0f)

/* ---- superblocks ---- */

/* What the loop needs to know about a superblock. */
struct super {
    size_t bytes;
    float bias;  /* of the offsets: factor of the sums of the activations that scales() leaves in them */
    bool group16;
    /* scales of 16 groups of 16, or of 8 of 32 in `low`, and what multiplies the sums of their activations */
    void (*scales)(const uint8_t *b, struct scales16 *scale, struct scales16 *offset);
    void (*codes)(const uint8_t *b, __m256i codes[8]);
};

INLINE float rowdot_super(const uint8_t *w, const struct act_row *x, int64_t k, const struct super f)
{
    struct sums sums = sums_zero();
    for (int64_t at = 0; at < k; at += CHUNK, w += f.bytes) {
        prefetch(w, f.bytes);
        struct scales16 scale, offset;
        __m256 dx = _mm256_loadu_ps(x->d + at / 32);
        __m256i codes[8];
        struct scales s;
        _Alignas(32) float parked[8];
        f.scales(w, &scale, &offset);
        if (f.group16) {
            sums.offset = _mm256_fmadd_ps(offset.low, _mm256_loadu_ps(x->sum16 + at / 16), sums.offset);
            sums.offset = _mm256_fmadd_ps(offset.high, _mm256_loadu_ps(x->sum16 + at / 16 + 8), sums.offset);
            scale.low = _mm256_mul_ps(scale.low, _mm256_permutevar8x32_ps(dx, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)));
            scale.high = _mm256_mul_ps(scale.high, _mm256_permutevar8x32_ps(dx, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)));
            s = scales_of_16(scale);
        } else {
            sums.offset = _mm256_fmadd_ps(offset.low, _mm256_loadu_ps(x->sum32 + at / 32), sums.offset);
            s = park(_mm256_mul_ps(scale.low, dx), parked);
        }
        f.codes(w, codes);
UNROLL
        for (int g = 0; g < 8; g++) add32(&sums, g, codes[g], x, at, s);
    }
    return dots_total(&sums, ones(), f.bias);
}

INLINE void scales_of_q5_k(const uint8_t *w, struct scales16 *scale, struct scales16 *offset)
{
    const struct block_q5_k *b = (const void *)w; /* q4_k begins alike */
    scale->low = scales_q4_k(b->scales, w, &offset->low);
}
INLINE void codes_of_q5_k(const uint8_t *w, __m256i codes[8])
{
    const struct block_q5_k *b = (const void *)w;
    __m256i qh = load256(b->qh);
UNROLL
    for (int g = 0; g < 8; g++) codes[g] = codes_q5_k(load256(b->qs + g / 2 * 32), qh, g);
}

/* High nibbles stay 16 times too large. */
INLINE void scales_of_q4_k(const uint8_t *w, struct scales16 *scale, struct scales16 *offset)
{
    scales_of_q5_k(w, scale, offset);
    scale->low = _mm256_mul_ps(scale->low, _mm256_setr_ps(1.0f, 0.0625f, 1.0f, 0.0625f, 1.0f, 0.0625f, 1.0f, 0.0625f));
}
INLINE void codes_of_q4_k(const uint8_t *w, __m256i codes[8])
{
    const struct block_q4_k *b = (const void *)w;
UNROLL
    for (int g = 0; g < 8; g++) codes[g] = _mm256_and_si256(load256(b->qs + g / 2 * 32), _mm256_set1_epi8(g % 2 ? -16 : 15));
}

INLINE void scales_of_q6_k(const uint8_t *w, struct scales16 *scale, struct scales16 *offset)
{
    const struct block_q6_k *b = (const void *)w;
    *scale = *offset = scales16(load128(b->scales), half_to_float(b->d));
}
INLINE void codes_of_q6_k(const uint8_t *w, __m256i codes[8])
{
    const struct block_q6_k *b = (const void *)w;
UNROLL
    for (int g = 0; g < 8; g++) codes[g] = codes_q6_k(load256(b->ql + g / 4 * 64 + g % 2 * 32), load256(b->qh + g / 4 * 32), g % 4);
}

INLINE void scales_of_q3_k(const uint8_t *w, struct scales16 *scale, struct scales16 *offset)
{
    const struct block_q3_k *b = (const void *)w;
    *scale = *offset = scales16(scales_q3_k(b->scales), half_to_float(b->d));
}
INLINE void codes_of_q3_k(const uint8_t *w, __m256i codes[8])
{
    const struct block_q3_k *b = (const void *)w;
    __m256i hmask = load256(b->hmask);
UNROLL
    for (int g = 0; g < 8; g++) codes[g] = codes_q3_k(load256(b->qs + g / 4 * 32), hmask, g);
}

/* Codes stay 4^n times too large. */
INLINE void scales_of_q2_k(const uint8_t *w, struct scales16 *scale, struct scales16 *offset)
{
    const struct block_q2_k *b = (const void *)w;
    __m128i q = load128(b->scales), mask = _mm_set1_epi8(15);
    __m256 place = _mm256_setr_ps(1.0f, 1.0f, 0x1p-2f, 0x1p-2f, 0x1p-4f, 0x1p-4f, 0x1p-6f, 0x1p-6f);
    *scale = scales16(_mm_and_si128(q, mask), half_to_float(b->d));
    scale->low = _mm256_mul_ps(scale->low, place), scale->high = _mm256_mul_ps(scale->high, place);
    *offset = scales16(_mm_and_si128(_mm_srli_epi16(q, 4), mask), half_to_float(b->dmin));
}
INLINE void codes_of_q2_k(const uint8_t *w, __m256i codes[8])
{
    const struct block_q2_k *b = (const void *)w;
UNROLL
    for (int g = 0; g < 8; g++) codes[g] = _mm256_and_si256(load256(b->qs + g / 4 * 32), _mm256_set1_epi8((char)(3 << g % 4 * 2)));
}

#define SUPER(name, bias_, group16_)                                                                                                     \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                                        \
    {                                                                                                                                    \
        return rowdot_super(w, x, k, (struct super){ sizeof(struct block_##name), bias_, group16_, scales_of_##name, codes_of_##name }); \
    }
SUPER(q2_k, -1.0f, true)
SUPER(q3_k, -4.0f, true)
SUPER(q4_k, -1.0f, false)
SUPER(q5_k, -1.0f, false)
SUPER(q6_k, -32.0f, true)

/* ---- 16 levels ---- made positive; what was added goes through the sums of the activations */

typedef __m256i level_table;
struct level_scales { _Alignas(32) float s[8]; };
INLINE level_table table_of(const int8_t levels[16], int bias) { return _mm256_add_epi8(load_twice(levels), _mm256_set1_epi8((char)bias)); }
INLINE struct level_scales scales_of(struct sums *s, __m256 scale, const float *dx, const float *sum32)
{
    s->offset = _mm256_fmadd_ps(scale, _mm256_loadu_ps(sum32), s->offset);
    struct level_scales parked;
    _mm256_store_ps(parked.s, _mm256_mul_ps(scale, _mm256_loadu_ps(dx)));
    return parked;
}
typedef struct { const uint8_t *a, *b; } level_pair;
INLINE level_pair pair_of(const uint8_t *a, const uint8_t *b) { return (level_pair){ a, b }; }
INLINE void four_pairs(level_pair p[4], const uint8_t *qs)
{
UNROLL
    for (int i = 0; i < 4; i++) p[i] = pair_of(qs + 32 * i, qs + 32 * i + 16);
}
/* at: the column of group 2i */
INLINE void add_levels(struct sums *s, int i, level_pair p, level_table table, const struct act_row *x, int64_t at, const struct level_scales *scale)
{
    struct scales all = { .parked = scale->s };
    at -= 64 * i;
    add32(s, 2 * i, _mm256_shuffle_epi8(table, nibbles32(p.a)), x, at, all);
    if (p.b) add32(s, 2 * i + 1, _mm256_shuffle_epi8(table, nibbles32(p.b)), x, at, all);
}
INLINE float level_total(const struct sums *s, int bias) { return dots_total(s, ones(), (float)-bias); }
#include "ggml-like/kernels/rowdot_levels_tmpl.h"
LEVELS(iq4_nl, .levels = iq4_levels, .bias = 127)
LEVELS(mxfp4, .levels = e2m1_levels, .bias = 12)

void kernels_init_avxvnni_rowdot(struct kernels *k)
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
    k->rowdot[GGUF_IQ4_NL] = rowdot_iq4_nl;
    k->rowdot[GGUF_IQ4_XS] = rowdot_iq4_xs;
    k->rowdot[GGUF_MXFP4] = rowdot_mxfp4;
}

/* avx512_legacy - row-dots of the formats with blocks of 32 weights and half float scales, for AVX-512 with and without VBMI. A row is walked in
 * chunks of 8 blocks. Of four blocks at a time the first halves make a register of unsigned bytes, the second halves another; VNNI multiplies
 * both by both bytes of the activations, which wait in that order (act_row.quad), and adds them up: each dword of the result belongs to one
 * block. Two blocks in a register, each twice, took twice the conversions, shifts and scale shuffles: those have two ports, and loads have two. Cycles
 * for 256 weights in cache, before and now: q4_0 13.5, 12.0; q5_0 22.0, 19.1, with VBMI 15.6; q8_0 17.1, 14.6. */
#pragma once
#include "ggml-like/kernels/avx512_rowdot.h"

/* Of 8 blocks every byte is loaded once: then words are permuted from two registers to where they are used. A register begins where the one before
 * it ends, but the last one ends with the blocks. */
struct chunk { __m512i z[5]; };

/* What the loop needs to know about a format; all constants after inlining. With c for what halves() gives, value = d * (c * factor + bias), or with
 * mins d * c * factor + m. factor is a power of two. */
struct rowdot_legacy {
    int words;     /* of a block; the first is its scale, with has_min the second is m */
    int fifth;     /* word where 32 fifth bits begin; 0: the heads do without */
    bool has_min;
    float factor, bias;
    void (*halves)(const struct chunk *c, int q, __m512i heads, __m512i half[2]); /* of blocks 4q .. 4q + 3 */
};

INLINE int registers(int words) { return (8 * words + 31) / 32; }
INLINE int first_word(int r, int words) { return r < registers(words) - 1 ? 32 * r : 8 * words - 32; }

INLINE struct chunk load_chunk(const uint8_t *w, int words)
{
    struct chunk c = { { _mm512_setzero_si512() } };
UNROLL
    for (int r = 0; r < registers(words); r++) {
        c.z[r] = load512(w + 2 * first_word(r, words));
        ONCE(c.z[r]);
    }
    return c;
}

/* The first n < 8 blocks of a chunk, zeros for the others; n <= 4: only what halves() reads of the first four. */
INLINE struct chunk load_blocks(const uint8_t *w, int words, int n)
{
    struct chunk c = { { _mm512_setzero_si512() } };
UNROLL
    for (int r = 0; r < registers(words); r++) {
        if (n <= 4 && first_word(r, words) >= 4 * words) break;
        int left = n * words - first_word(r, words);
        c.z[r] = _mm512_maskz_loadu_epi16((__mmask32)(left <= 0 ? 0 : left >= 32 ? UINT32_MAX : (1u << left) - 1), w + 2 * first_word(r, words));
    }
    return c;
}

typedef short words32 __attribute__((vector_size(64)));
#define WORDS8(i, f, ...) f(i, __VA_ARGS__), f((i) + 1, __VA_ARGS__), f((i) + 2, __VA_ARGS__), f((i) + 3, __VA_ARGS__), \
                          f((i) + 4, __VA_ARGS__), f((i) + 5, __VA_ARGS__), f((i) + 6, __VA_ARGS__), f((i) + 7, __VA_ARGS__)
#define WORDS32(...) (__m512i)(words32){ WORDS8(0, __VA_ARGS__), WORDS8(8, __VA_ARGS__), WORDS8(16, __VA_ARGS__), WORDS8(24, __VA_ARGS__) }

/* Which word of its chunk element i is. RUNS: 8 words of each of blocks 4q .. 4q + 3 from word a on; DOUBLES: a and a + 1 of each four times.
 * HEADS: words 0 of the 8 blocks, words 1, then words a of the first four, a + 1, and the same of the last four. */
enum pick { RUNS, DOUBLES, HEADS };
INLINE int picked(int i, enum pick what, int q, int words, int a)
{
    if (what == RUNS) return (4 * q + i / 8) * words + a + i % 8;
    if (what == DOUBLES) return (4 * q + i / 8) * words + a + i % 2;
    return i < 16 ? i % 8 * words + i / 8 : (i / 8 % 2 * 4 + i % 4) * words + a + i / 4 % 2;
}
/* Where word w is in registers r and r + 1, in _mm512_permutex2var_epi16's count; 64 and more: in r + 2 */
INLINE int word_at(int w, int r, int words)
{
    if (w - first_word(r, words) < 32) return w - first_word(r, words);
    return w - first_word(r + 1, words) < 32 ? 32 + w - first_word(r + 1, words) : 64 + w - first_word(r + 2, words);
}
INLINE short in_two(int i, enum pick what, int r, int q, int words, int a)
{
    int at = word_at(picked(i, what, q, words, a), r, words);
    return (short)(at < 64 ? at : 0);
}
INLINE short in_third(int i, enum pick what, int r, int q, int words, int a)
{
    int at = word_at(picked(i, what, q, words, a), r, words);
    return (short)(at < 64 ? i : at - 32);
}

INLINE __m512i pick_words(const struct chunk *c, enum pick what, int q, int words, int a)
{
    int r = 0;
    while (r + 2 < registers(words) && 4 * q * words + a >= first_word(r + 1, words)) r++;
    __m512i v = _mm512_permutex2var_epi16(c->z[r], WORDS32(in_two, what, r, q, words, a), c->z[r + 1]);
    int last = (4 * q + 3) * words + a + (what == RUNS ? 7 : 1);
    return word_at(last, r, words) < 64 ? v : _mm512_permutex2var_epi16(v, WORDS32(in_third, what, r, q, words, a), c->z[r + 2]);
}
INLINE __m512i pick_heads(const struct chunk *c, const struct rowdot_legacy *f)
{
    if (f->words == 17) { /* five registers, two heads in each but the last; registers 2 and 3 begin 4 words before a block */
        __m512i at = _mm512_castsi128_si512(_mm_setr_epi16(0, 17, 34, 51, 0, 0, 0, 0));
        __m512i after = _mm512_castsi128_si512(_mm_setr_epi16(4, 21, 38, 55, 0, 0, 0, 0));
        __m512i a = _mm512_permutex2var_epi16(c->z[0], at, c->z[1]);
        return _mm512_unpacklo_epi64(a, _mm512_permutex2var_epi16(c->z[2], after, c->z[3]));
    }
    __m512i v = _mm512_permutex2var_epi16(c->z[0], WORDS32(in_two, HEADS, 0, 0, f->words, f->fifth), c->z[1]);
    if (7 * f->words + f->has_min < 64) return v;
    return _mm512_permutex2var_epi16(v, WORDS32(in_third, HEADS, 0, 0, f->words, f->fifth), c->z[2]);
}

struct legacy_sums {
    __m512 v[2];   /* two chains: the FMA latency of one would bound the loop */
    __m256 offset; /* constants and mins of blocks, before their common factor */
};

/* Quads 0 .. quads - 1 of 8 blocks, of which those in the mask count. */
INLINE void add_chunk(struct legacy_sums *s, const struct chunk *c, const struct act_quad *y, const float *d, const float *sum, __mmask8 blocks,
                      int quads, const struct rowdot_legacy *f)
{
    __m512i heads = pick_heads(c, f), zero = _mm512_setzero_si512();
    __m256 scale = _mm256_cvtph_ps(_mm512_castsi512_si128(heads)), m = scale;
    if (f->has_min) m = _mm256_cvtph_ps(_mm256_extracti128_si256(_mm512_castsi512_si256(heads), 1));
    s->offset = _mm256_fmadd_ps(m, _mm256_maskz_loadu_ps(blocks, sum), s->offset);
    scale = _mm256_mul_ps(scale, _mm256_maskz_loadu_ps(blocks, d));
UNROLL
    for (int q = 0; q < quads; q++) {
        __m512i half[2], dot;
        f->halves(c, q, heads, half);
        dot = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, half[0], load512(y[q].hi[0])), half[1], load512(y[q].hi[1]));
        dot = _mm512_slli_epi32(dot, 8);
        dot = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(dot, half[0], load512(y[q].lo[0])), half[1], load512(y[q].lo[1]));
        __m512i lanes = _mm512_set_epi32(4 * q + 3, 4 * q + 3, 4 * q + 3, 4 * q + 3, 4 * q + 2, 4 * q + 2, 4 * q + 2, 4 * q + 2, 4 * q + 1,
                                         4 * q + 1, 4 * q + 1, 4 * q + 1, 4 * q, 4 * q, 4 * q, 4 * q);
        __m512 each = _mm512_permutexvar_ps(lanes, _mm512_castps256_ps512(scale));
        s->v[q] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), each, s->v[q]);
    }
}

INLINE float dot_legacy(const uint8_t *w, const struct act_row *x, int64_t k, const struct rowdot_legacy f)
{
    struct legacy_sums s = { { _mm512_setzero_ps(), _mm512_setzero_ps() }, _mm256_setzero_ps() };
    const struct act_quad *y = x->quad;
    const float *d = x->d, *sum = x->sum32;
    int blocks = (int)(k / 32 % 8);
    const uint8_t *end = w + k / CHUNK * 16 * f.words;
    for (; w < end; w += 16 * f.words, y += 2, d += 8, sum += 8) {
        prefetch(w, 16 * (size_t)f.words);
        struct chunk c = load_chunk(w, f.words);
        add_chunk(&s, &c, y, d, sum, 0xff, 2, &f);
    }
    if (blocks > 4) {
        prefetch(w, 16 * (size_t)f.words);
        struct chunk c = load_blocks(w, f.words, blocks);
        add_chunk(&s, &c, y, d, sum, (__mmask8)((1 << blocks) - 1), 2, &f);
    } else if (blocks > 0) {
        prefetch(w, 8 * (size_t)f.words);
        struct chunk c = load_blocks(w, f.words, blocks);
        add_chunk(&s, &c, y, d, sum, (__mmask8)((1 << blocks) - 1), 1, &f);
    }
    __m256 v = fold(_mm512_add_ps(s.v[0], s.v[1])), bias = _mm256_set1_ps(f.has_min ? 1.0f : f.bias);
    return sum_ps(_mm256_fmadd_ps(s.offset, bias, _mm256_mul_ps(v, _mm256_set1_ps(f.factor))));
}

/* 16 bytes of nibbles from word `from` of each of four blocks */
INLINE __m512i nibbles_of_4(const struct chunk *c, int q, int words, int from) { return pick_words(c, RUNS, q, words, from); }

#define ROWDOT_LEGACY(name, ...)                                                                                                               \
    INLINE float dot_##name(const uint8_t *w, const struct act_row *x, int64_t k)                                                       \
    {                                                                                                                                   \
        return dot_legacy(w, x, k, (struct rowdot_legacy){ .words = sizeof(struct block_##name) / 2, .halves = halves_##name, __VA_ARGS__ });  \
    }                                                                                                                                   \
    ROWDOTS(name)

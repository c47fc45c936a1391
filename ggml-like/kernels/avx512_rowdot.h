/* avx512_rowdot - what the row-dots of the AVX-512 level share: prefetch, float sums, scales of a chunk of 256 weights. */
#pragma once
#include "ggml-like/kernels/avx512_blocks.h"
#include "ggml-like/kernels/levels.h"

enum { CHUNK = 256, AHEAD = 8192 }; /* one thread from memory, GB/s, 1, 2, 4, 8, 12 KiB ahead: q6_k 26, 28, 32, 34, 34; q8_0 27, 30, 32, 34, 34 */

/* Each cache line about once: a chunk of n bytes asks for the n bytes that lie AHEAD. */
INLINE void prefetch(const uint8_t *w, size_t bytes)
{
UNROLL
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)w + AHEAD + i, _MM_HINT_T0);
}

struct sums {
    __m512 even, odd; /* two chains: the FMA latency of one would bound the loop */
    __m512 offset;    /* constants and mins, before their common factor */
    float tail;       /* the same of single blocks */
};

INLINE struct sums sums_zero(void) { return (struct sums){ _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), 0.0f }; }
INLINE __m256 upper(__m512 v) { return _mm512_extractf32x8_ps(v, 1); }
INLINE __m256 fold(__m512 v) { return _mm256_add_ps(_mm512_castps512_ps256(v), upper(v)); }

/* high: weight of lanes 8-15 of the sums; offset: factor of the offsets */
INLINE float sums_total(const struct sums *s, float high, float offset)
{
    __m512 v = _mm512_add_ps(s->even, s->odd);
    __m256 total = _mm256_fmadd_ps(upper(v), _mm256_set1_ps(high), _mm512_castps512_ps256(v));
    return sum_ps(_mm256_fmadd_ps(fold(s->offset), _mm256_set1_ps(offset), total)) + offset * s->tail;
}

/* Parks the scales of a chunk. The barrier keeps them in memory: from there a broadcast is part of the FMA, from a register it is a shuffle. */
INLINE void park(float s[16], __m512 v)
{
    _mm512_store_ps(s, v);
    __asm__ volatile("" : "+m"(*(float(*)[16])s));
}

INLINE __m512i load_y(const int16_t *y) { return _mm512_loadu_si512(y); }

INLINE void accumulate(struct sums *s, int b, __m512i words, const int16_t *y, __m512 scale)
{
    __m512 v = _mm512_cvtepi32_ps(_mm512_madd_epi16(words, load_y(y)));
    if (b % 2) s->odd = _mm512_fmadd_ps(v, scale, s->odd);
    else s->even = _mm512_fmadd_ps(v, scale, s->even);
}

#define TWICE(a, b, c, d, e, f, g, h) a, a, b, b, c, c, d, d, e, e, f, f, g, g, h, h
static const int32_t first_twice[16] = { TWICE(0, 1, 2, 3, 4, 5, 6, 7) }, last_twice[16] = { TWICE(8, 9, 10, 11, 12, 13, 14, 15) };

/* the activation scales of 8 blocks, each twice */
INLINE __m512 twice(const float *d) { return _mm512_permutexvar_ps(load512(first_twice), _mm512_castps256_ps512(_mm256_loadu_ps(d))); }

/* sums of y over 16 groups of 16 */
INLINE __m512 sums16(const int32_t *sum) { return _mm512_cvtepi32_ps(load512(sum)); }

/* rowdots_<name> and rowdot_<name> from the inlined dot_<name>. Loading some ten constants and vzeroupper take as long as half a chunk. */
#define ROWDOTS(name)                                                                                                             \
    static void rowdots_##name(float *y, const void *w, size_t stride, int64_t n, const struct act_row *x, int64_t k)             \
    {                                                                                                                             \
        for (int64_t i = 0; i < n; i++) y[i] = dot_##name((const uint8_t *)w + (size_t)i * stride, x, k);                         \
    }                                                                                                                             \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                                 \
    {                                                                                                                             \
        float y;                                                                                                                  \
        rowdots_##name(&y, w, 0, 1, x, k);                                                                                        \
        return y;                                                                                                                 \
    }
#define ROWDOT_SLOTS(k, id, name) ((k)->rowdot[id] = rowdot_##name, (k)->rowdots[id] = rowdots_##name)

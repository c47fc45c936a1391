/* avx2_rowdot - what the row-dots of the AVX2 level share: float sums, scales and offsets of a chunk of 256 weights. */
#pragma once
#include "ggml-like/kernels/avx2_prefetch.h"
#include "ggml-like/kernels/levels.h"

struct sums {
    __m256 even, odd; /* two chains: the FMA latency of one would bound the loop */
    __m256 offset;    /* constants and mins */
    float tail;       /* offsets of the blocks after the last whole chunk */
};

INLINE float sums_total(const struct sums *s) { return sum_ps(_mm256_add_ps(_mm256_add_ps(s->even, s->odd), s->offset)) + s->tail; }
/* the same, of offsets before their common factor */
INLINE float sums_total_offset(const struct sums *s, float factor)
{
    return sum_ps(_mm256_fmadd_ps(s->offset, _mm256_set1_ps(factor), _mm256_add_ps(s->even, s->odd))) + s->tail;
}

INLINE __m256i load_y(const int16_t *y) { return _mm256_loadu_si256((const __m256i *)y); }

INLINE void accumulate(struct sums *s, int b, __m256i dot, __m256 scale)
{
    __m256 v = _mm256_cvtepi32_ps(dot);
    if (b % 2) s->odd = _mm256_fmadd_ps(v, scale, s->odd);
    else s->even = _mm256_fmadd_ps(v, scale, s->even);
}

/* sums of y over 8 blocks of 32 */
INLINE __m256 sums32(const int32_t *sum)
{
    __m256i s = _mm256_hadd_epi32(load256(sum), load256(sum + 8));
    return _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(s, 0xd8));
}

/* parks 16 scales times the activation scales of their 32 columns */
INLINE void park16(float s[16], struct scales16 scale, const float *dx)
{
    __m256 x = _mm256_loadu_ps(dx);
    _mm256_store_ps(s, _mm256_mul_ps(scale.low, _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))));
    _mm256_store_ps(s + 8, _mm256_mul_ps(scale.high, _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))));
}

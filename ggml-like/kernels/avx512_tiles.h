/* avx512_tiles - what the files share whose loops multiply 16 rows by 1..12 tokens. */
#pragma once
#include "ggml-like/kernels/avx512_blocks.h"
#include "ggml-like/kernels/levels.h"
#include <assert.h>

enum { SIDE = 12 }; /* tokens at once */

/* X(..., number of tokens) */
#define EACH_NT(X, ...)                                                                                             \
    X(__VA_ARGS__, 1) X(__VA_ARGS__, 2) X(__VA_ARGS__, 3) X(__VA_ARGS__, 4) X(__VA_ARGS__, 5) X(__VA_ARGS__, 6)     \
    X(__VA_ARGS__, 7) X(__VA_ARGS__, 8) X(__VA_ARGS__, 9) X(__VA_ARGS__, 10) X(__VA_ARGS__, 11) X(__VA_ARGS__, 12)

/* Pairs of panels: half of the tokens at once, so that all sums have a register. */
enum { PAIR_SIDE = SIDE / 2 };
#define EACH_PAIR_NT(X, ...) X(__VA_ARGS__, 1) X(__VA_ARGS__, 2) X(__VA_ARGS__, 3) X(__VA_ARGS__, 4) X(__VA_ARGS__, 5) X(__VA_ARGS__, 6)

INLINE __m512 load_ps(const float *p) { return _mm512_loadu_ps(p); }

INLINE void tile_store(const __m512 *acc, float *y, int64_t y_stride, bool add, int n)
{
UNROLL
    for (int t = 0; t < n; t++, y += y_stride) _mm512_storeu_ps(y, add ? _mm512_add_ps(load_ps(y), acc[t]) : acc[t]);
}

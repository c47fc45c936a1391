/* avx2_prefetch - how the row-dots of AVX2 and AVX-VNNI walk a row: in chunks, asking ahead. */
#pragma once
#include "ggml-like/kernels/avx2_blocks.h"

enum { CHUNK = 256, AHEAD = 4096 }; /* bytes between the reader and its prefetch: none 6.0, 1 KiB 8.4, 2 KiB 9.5, 4-6 KiB 9.9 GB/s (q4_0) */

/* Each cache line about once: a chunk of n bytes asks for the n bytes that lie AHEAD. */
INLINE void prefetch(const uint8_t *w, size_t bytes)
{
#pragma GCC unroll 8
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)w + AHEAD + i, _MM_HINT_T0);
}

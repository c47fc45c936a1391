/* avx512_blocks - what the files of the AVX-512 level share. */
#pragma once
#include "ggml-like/kernels/avx2_blocks.h"

enum { AVX512_TILE_TOKENS = 12 };

/* Before a loop that must not remain one: clang ignores GCC's pragma on the longer ones. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* A loaded register: without this gcc repeats the load at every use. */
#ifdef __AVX512F__
#define ONCE(v) __asm__("" : "+v"(v))
#else
#define ONCE(v) ((void)(v))
#endif

INLINE __m512i load512(const void *p) { return _mm512_loadu_si512(p); }

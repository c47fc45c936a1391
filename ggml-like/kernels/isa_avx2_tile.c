/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_tile - the tiles of AVX2: avx2_tile_tmpl.h with madd and add. */
#define DOT_ADD(sum, x, y) _mm256_add_epi32(sum, _mm256_madd_epi16(x, y))
#include "ggml-like/kernels/avx2_tile_tmpl.h"

void kernels_init_avx2_tile(struct kernels *k) { init_tiles(k); }

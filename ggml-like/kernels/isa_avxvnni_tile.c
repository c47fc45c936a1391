/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavxvnni */
/* isa_avxvnni_tile - the tiles of AVX-VNNI: avx2_tile_tmpl.h with vpdpbusd and vpdpwssd. */
#define VNNI_TILES
#define DOT_ADD(sum, x, y) _mm256_dpwssd_avx_epi32(sum, x, y)
#define DOT4(sum, x, y) _mm256_dpbusd_avx_epi32(sum, x, y)
#include "ggml-like/kernels/avx2_tile_tmpl.h"

void kernels_init_avxvnni_tile(struct kernels *k) { init_tiles(k); }

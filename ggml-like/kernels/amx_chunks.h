/* amx_chunks - the layout that the files of the AMX level share. A chunk is 32 columns, the depth of a product of two tile registers:
 *   weights  u16 [k/32][16 pairs][16 rows][2]     activations  u16 [k/32][32 tokens][32]
 * ACT_15 has two parts of that, behind each other: BF16, and BF16 of what its rounding left. Panels likewise. */
#pragma once
#include "ggml-like/kernels/avx512_blocks.h"
#include "ggml-like/kernels/levels.h"
#include <assert.h>

enum { NT = 32, CHUNK_COLUMNS = TILE_COLUMNS, CHUNK_ROWS = CHUNK_COLUMNS * PANEL_ROWS, CHUNK_TOKENS = CHUNK_COLUMNS * NT /* values */ };

/* BF16, nearest even, of 16 floats and of 16 more. Denormals become zeros. */
INLINE __m512i rounded(__m512 high, __m512 low) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

/* Column k0, a multiple of 32, of a tile. */
static inline uint16_t *act_chunks_at(const struct act_panel *x, int64_t tile, int64_t k0)
{
    return (uint16_t *)(void *)(x->data + (size_t)tile * x->tile_bytes) + k0 * NT;
}

/* From the first part of a tile of ACT_15 to the second; from that of a panel of nk columns. */
static inline int64_t act_part(const struct act_panel *x) { return (int64_t)(x->tile_bytes / 2 / sizeof(uint16_t)); }
static inline int64_t panel_part(int64_t nk) { return nk * PANEL_ROWS; }

/* levels - what the files of this folder share and nobody else sees: the parts of each ISA level, and addressing inside act_panel. */
#pragma once
#include "ggml-like/kernels/kernels.h"

/* kernels_init_<level> calls these; every part fills its own slots. */
void kernels_init_ref_matmul(struct kernels *k);
void kernels_init_ref_vec(struct kernels *k);
void kernels_init_avx2_matmul(struct kernels *k);
void kernels_init_avx2_rowdot(struct kernels *k);
void kernels_init_avx2_rowdot_iq(struct kernels *k);
void kernels_init_avx2_unpack(struct kernels *k);
void kernels_init_avx2_vec(struct kernels *k);
void kernels_init_avx512_act(struct kernels *k);
void kernels_init_avx512_panel(struct kernels *k);
void kernels_init_avx512_rowdot(struct kernels *k);
void kernels_init_avx512_rowdot_iq(struct kernels *k);
void kernels_init_avx512_tile(struct kernels *k);
void kernels_init_neon_matmul(struct kernels *k);
void kernels_init_neon_rowdot(struct kernels *k);
void kernels_init_neon_tile(struct kernels *k);
void kernels_init_neon_unpack(struct kernels *k);
void kernels_init_neon_vec(struct kernels *k);
void kernels_init_dotprod_rowdot(struct kernels *k);
void kernels_init_dotprod_tile(struct kernels *k);
void kernels_init_i8mm_tile(struct kernels *k);
void kernels_init_avx512_vec(struct kernels *k);

/* The arrays of one tile from column k0 on (k0 % 32 == 0), nt = tile_tokens:
 *   a [..][nt][4] per 4 columns     d, o, sum [..][nt] per 16 */
struct act_tile {
    uint8_t *a;
    float *d, *o, *sum;
};

static inline struct act_tile act_tile_at(const struct act_panel *x, int64_t nt, int64_t tile, int64_t k0)
{
    int64_t at = (tile * x->k + k0) * nt; /* of the column k0, token 0, counted in elements */
    return (struct act_tile){ .a = x->a + at, .d = x->d + at / 16, .o = x->o + at / 16, .sum = x->sum + at / 16 };
}

/* panel_shape - what panel_build says about the panel before it fills it. */
static inline void panel_shape(struct panel *p, const struct dtype *t, int64_t nk)
{
    p->nk = nk;
    p->group = t->group_len;
    p->code_max = t->code_max;
    p->has_min = t->has_min || t->code_bias != 0;
}

/* Smallest range (tile) or magnitude (row) of a block that is still quantized: below it the reciprocal of the scale would not be finite.
 * Such a block becomes a constant; the error is below 1e-33. */
#define ACT_RANGE_MIN 0x1p-110f

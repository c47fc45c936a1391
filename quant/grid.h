/* grid - the values that one format can hold, as a solver walks through them. Derived from the dtype's own join, split and unpack by asking them,
 * so no codebook, range or scale rule stands here a second time. Knows ggml-like/dtype only.
 *
 * Every quantized format is  w = scale * code + min,  evaluated in f32 in that order (struct codes), where
 *   code   vec_len == 1: one of `n` entries per element, entry[q]
 *          vec_len 4, 8: vectors of elements share an index q into `n` entries of vec_len codes; eight elements share one byte of signs (GRID_FREE,
 *          GRID_EVEN: the number of minus signs is even), or shift_len elements share a shift of all codes up or down (GRID_SHIFT)
 *   scale  d * unit[sc]: d the block's half float, sc the group's stored code. unit has one value where no code is stored (one group per block).
 *          no_half: the format has no half float, d counts as 1; MXFP4 keeps its code in parts.d (code_in_d)
 *   min    dmin * min_unit[m], likewise; n_min == 0: the format has no minima
 * All products d * unit[sc] are exact in f32 (11 + 8 bits), so this is what unpack gives, bit for bit. */
#pragma once
#include "ggml-like/dtype.h"

enum grid_sign { GRID_NONE, GRID_FREE, GRID_EVEN, GRID_SHIFT };
enum { GRID_ENTRIES_MAX = 2048, GRID_UNIT = 8 }; /* elements that share a byte of signs */

struct grid {
    const struct dtype *type;
    int vec_len, n;
    enum grid_sign sign;
    int shift_len;               /* GRID_SHIFT: elements per shift, 32 or 8 */
    bool even;                   /* scalar: level[i] = level[0] + i * step */
    int step;
    bool no_half, code_in_d;
    int n_scale, n_min;          /* legal scale and min codes are 0 .. n - 1 (no code stored: 1); n_min 0: no minima */
    float unit[256], min_unit[64];
    int8_t level[256];           /* scalar: the codes in rising order without repetitions, n_levels of them */
    uint8_t level_q[256];        /* and the q that stands for each */
    int n_levels;
    int8_t entry[GRID_ENTRIES_MAX * 8]; /* [n][vec_len]; GRID_SHIFT: shifted up */
    int8_t entry_down[GRID_ENTRIES_MAX * 8]; /* GRID_SHIFT only: shifted down */
};

/* grid_make - ERR_USAGE for formats that are no grid of weights: floats, and Q8_1, Q8_K (activations only). Any thread. */
status grid_make(struct grid *g, const struct dtype *t, struct err *e) MUST_USE;

/* grid_scale, grid_min - of a group with these codes in a block with these half floats. */
static inline float grid_scale(const struct grid *g, uint16_t d, int sc)
{
    return g->no_half ? g->unit[g->code_in_d ? d : sc] : f16_to_f32(d) * g->unit[sc];
}
static inline float grid_min(const struct grid *g, uint16_t dmin, int m) { return g->n_min ? f16_to_f32(dmin) * g->min_unit[m] : 0.0f; }

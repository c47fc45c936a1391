/* search_iq_tmpl - the searches of the IQ, ternary, one- and two-bit and 4-bit float formats, over the primitives of lanes.h. Included once per
 * level, after a lanes_*.h and V_LEVEL(name). This part: what all of them share. Then the families: a codebook, or levels for each weight.
 * Sees rows and formats only; bytes are laid out by dtype->join. */
#include <math.h>
#include <stddef.h>
#include "ggml-like/formats/formats.h"
#include "quant/quantizer.h"

#define FLOOR_W 0x1p-30f /* added to weights relative to the block's largest: where w is zero, elements still round to the nearest */

LANE_FN float max_abs(const float *x, int n)
{
    vf m = v_set(0);
    for (int i = 0; i < n; i += LANES) m = v_max(m, v_abs(v_load(x + i)));
    float f[LANES], r = 0;
    v_store(f, m);
    for (int i = 0; i < LANES; i++) r = f[i] > r ? f[i] : r;
    return r;
}

#include "quant/search_book_tmpl.h"
#include "quant/search_level_tmpl.h"

static void iq_rows(struct quant_kernels *k)
{
    book_rows(k);
    level_rows(k);
}

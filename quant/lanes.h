/* lanes - what the search templates are written in: LANES independent problems (groups, blocks or vectors of weights) side by side, one in
 * each lane of a vector. Include one of lanes_base.h, lanes_avx2.h, lanes_avx512.h, which define LANES and the primitives below, then templates.
 *
 * Same bytes on every level: every primitive acts on each lane alone and is exact IEEE arithmetic, multiplication and addition are fused where it is
 * said and nowhere else (-ffp-contract=off), and there is no sum across lanes, so a problem's result depends neither on LANES nor on its neighbours.
 * What cannot be said in lanes (super-scales of a block, half-float rounding, packing) is plain scalar C. Threads run with denormals on.
 *
 *   vf  LANES floats     vi  LANES int32     vm  LANES truths
 *   vf v_set(float) v_load(p) v_add v_sub v_mul v_div v_sqrt v_abs v_neg; v_min(a, b) v_max(a, b): b if either is NaN;   void v_store(p, x)
 *      v_fma(a, b, c): a b + c, v_fnma(a, b, c): c - a b, rounded once
 *   vi vi_set(int32) vi_load(p) vi_add vi_sub vi_mul vi_and vi_or vi_xor vi_min vi_max vi_shl(x, n) vi_shr(x, n) (logical);  void vi_store(p, x)
 *   vm v_lt v_le v_eq (float; false for NaN)  vi_lt vi_eq   vm_and vm_or vm_not   bool vm_any(m)
 *   vf v_sel(m, a, b)  vi vi_sel(m, a, b): a where m, else b
 *   vi v_bits(vf) vf v_from_bits(vi): reinterpret      vf v_from_i(vi)     vi v_trunc(vf) |x| < 2^31
 *   vi v_gather_i8(const int8_t *table, vi index), vf v_gather(const float *table, vi index): slow, keep out of inner loops
 *   vf v_table16(const float table[16], vi index): by the low four bits of the index
 *   void vi_store_16(p, x): the low 16 bits of each lane
 *   void v_transpose_load(vf *out, const float *p, int64_t stride, int n, int lanes): out[i] lane l = p[l * stride + i], 0 <= i < n;
 *        lanes >= `lanes` hold 0. n a multiple of 4.
 * All loads and stores are unaligned. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANE_FN static inline __attribute__((always_inline, unused))

/* v_nearest - to the nearest integer, ties to even, as a float and as an int; |x| <= 2^22. Adding 1.5 * 2^23 leaves the integer in the mantissa. */
#define V_MAGIC 12582912.0f
LANE_FN vf v_nearest(vf x) { return v_sub(v_add(x, v_set(V_MAGIC)), v_set(V_MAGIC)); }
LANE_FN vi v_nearest_i(vf x) { return vi_sub(v_bits(v_add(x, v_set(V_MAGIC))), vi_set(0x4b400000)); }
LANE_FN vf v_clamp(vf x, float lo, float hi) { return v_min(v_set(hi), v_max(v_set(lo), x)); } /* NaN stays NaN */

/* v_f16 - bits of the nearest half float, ties to even, as f32_to_f16 for every float. Below 2^-14 halves are multiples of 2^-24, the last place
 * of 0.5 .. 1. */
LANE_FN vi v_f16(vf x)
{
    vi a = vi_and(v_bits(x), vi_set(0x7fffffff)), odd = vi_and(vi_shr(a, 13), vi_set(1));
    vi normal = vi_shr(vi_add(vi_add(a, vi_set(0xfff - (112 << 23))), odd), 13);
    vi tiny = vi_sub(v_bits(v_add(v_from_bits(a), v_set(0.5f))), vi_set(0x3f000000));
    vi big = vi_sel(vi_lt(vi_set(0x7f800000), a), vi_or(vi_set(0x7e00), vi_and(vi_shr(a, 13), vi_set(0x3ff))), vi_set(0x7c00));
    vi r = vi_sel(vi_lt(a, vi_set(0x38800000)), tiny, vi_sel(vi_lt(a, vi_set(0x47800000)), normal, big));
    return vi_or(r, vi_and(vi_shr(v_bits(x), 16), vi_set(0x8000)));
}
/* v_bf16 - as f32_to_bf16 */
LANE_FN vi v_bf16(vf x)
{
    vi u = v_bits(x), high = vi_shr(u, 16), low = vi_and(u, vi_set(0xffff)), odd = vi_and(high, vi_set(1));
    vm nan = vi_lt(vi_set(0x7f800000), vi_and(u, vi_set(0x7fffffff)));
    return vi_sel(nan, vi_or(high, vi_set(0x40)), vi_add(high, vi_shr(vi_add(vi_add(low, vi_set(0x7fff)), odd), 16)));
}

/* lanes_base - the primitives of lanes.h in the compiler's own vectors: SSE2 or NEON, and the truth for the other levels. */
#pragma once
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 4 };
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef vi vm; /* 0 or -1 */
#define LANE_PRIM static inline __attribute__((always_inline, unused))

LANE_PRIM vf v_set(float x) { return (vf){ x, x, x, x }; }
LANE_PRIM vi vi_set(int32_t x) { return (vi){ x, x, x, x }; }
LANE_PRIM vf v_load(const float *p)
{
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
LANE_PRIM vi vi_load(const int32_t *p)
{
    vi x;
    memcpy(&x, p, sizeof x);
    return x;
}
LANE_PRIM void v_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
LANE_PRIM void vi_store(int32_t *p, vi x) { memcpy(p, &x, sizeof x); }
LANE_PRIM vi v_bits(vf x) { return (vi)x; }
LANE_PRIM vf v_from_bits(vi x) { return (vf)x; }
LANE_PRIM vf v_from_i(vi x) { return __builtin_convertvector(x, vf); }
LANE_PRIM vi v_trunc(vf x) { return __builtin_convertvector(x, vi); }
LANE_PRIM vf v_add(vf a, vf b) { return a + b; }
LANE_PRIM vf v_sub(vf a, vf b) { return a - b; }
LANE_PRIM vf v_mul(vf a, vf b) { return a * b; }
LANE_PRIM vf v_div(vf a, vf b) { return a / b; }
LANE_PRIM vf v_fma(vf a, vf b, vf c)
{
    for (int i = 0; i < LANES; i++) c[i] = fmaf(a[i], b[i], c[i]);
    return c;
}
LANE_PRIM vf v_fnma(vf a, vf b, vf c) { return v_fma(-a, b, c); }
LANE_PRIM vf v_abs(vf x) { return (vf)((vi)x & 0x7fffffff); }
LANE_PRIM vf v_neg(vf x) { return (vf)((vi)x ^ (int32_t)0x80000000); }
LANE_PRIM vf v_sqrt(vf x)
{
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
}
LANE_PRIM vi vi_add(vi a, vi b) { return a + b; }
LANE_PRIM vi vi_sub(vi a, vi b) { return a - b; }
LANE_PRIM vi vi_mul(vi a, vi b) { return a * b; }
LANE_PRIM vi vi_and(vi a, vi b) { return a & b; }
LANE_PRIM vi vi_or(vi a, vi b) { return a | b; }
LANE_PRIM vi vi_xor(vi a, vi b) { return a ^ b; }
LANE_PRIM vi vi_shl(vi x, int n) { return x << n; }
LANE_PRIM vi vi_shr(vi x, int n)
{
    typedef uint32_t vu __attribute__((vector_size(16)));
    return (vi)((vu)x >> (uint32_t)n);
}
LANE_PRIM vm v_lt(vf a, vf b) { return a < b; }
LANE_PRIM vm v_le(vf a, vf b) { return a <= b; }
LANE_PRIM vm v_eq(vf a, vf b) { return a == b; }
LANE_PRIM vm vi_lt(vi a, vi b) { return a < b; }
LANE_PRIM vm vi_eq(vi a, vi b) { return a == b; }
LANE_PRIM vm vm_and(vm a, vm b) { return a & b; }
LANE_PRIM vm vm_or(vm a, vm b) { return a | b; }
LANE_PRIM vm vm_not(vm a) { return ~a; }
LANE_PRIM bool vm_any(vm m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
LANE_PRIM vi vi_sel(vm m, vi a, vi b) { return (m & a) | (~m & b); }
LANE_PRIM vf v_sel(vm m, vf a, vf b) { return (vf)vi_sel(m, (vi)a, (vi)b); }
LANE_PRIM vf v_min(vf a, vf b) { return v_sel(a < b, a, b); }
LANE_PRIM vf v_max(vf a, vf b) { return v_sel(a > b, a, b); }
LANE_PRIM vi vi_min(vi a, vi b) { return vi_sel(a < b, a, b); }
LANE_PRIM vi vi_max(vi a, vi b) { return vi_sel(a > b, a, b); }
LANE_PRIM vf v_gather(const float *t, vi i) { return (vf){ t[i[0]], t[i[1]], t[i[2]], t[i[3]] }; }
LANE_PRIM vi v_gather_i8(const int8_t *t, vi i) { return (vi){ t[i[0]], t[i[1]], t[i[2]], t[i[3]] }; }
LANE_PRIM vf v_add_where(vm m, vf sum, vf x) { return sum + (vf)(m & (vi)x); }
LANE_PRIM vf v_table16(const float *t, vi i) { return (vf){ t[i[0] & 15], t[i[1] & 15], t[i[2] & 15], t[i[3] & 15] }; }
LANE_PRIM void vi_store_16(void *p, vi x)
{
    uint16_t h[4] = { (uint16_t)x[0], (uint16_t)x[1], (uint16_t)x[2], (uint16_t)x[3] };
    memcpy(p, h, sizeof h);
}
LANE_PRIM void v_transpose_load(vf *out, const float *p, int64_t stride, int n, int lanes)
{
    for (int i = 0; i < n; i++)
        for (int l = 0; l < LANES; l++) out[i][l] = l < lanes ? p[l * stride + i] : 0.0f;
}
#include "quant/lanes.h"

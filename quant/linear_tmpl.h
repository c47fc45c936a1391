/* linear_tmpl - the two loops of dense linear algebra that H and its factor need, in lanes: each element is one sum in a fixed order. */
#pragma once
#include "quant/quantizer.h"

/* Rows of the result at once: with 16 columns as many vectors as accumulators fit the registers. 32 on AVX-512, 16 elsewhere. */
enum { PRODUCT_ROWS = LANES == 16 ? 16 : LANES == 8 ? 4 : 2, PRODUCT_VECS = 16 / LANES };

static void product_16(float *c, int64_t stride, const float *a, const float *b, int64_t depth, bool sub)
{
    for (int i0 = 0; i0 < 16; i0 += PRODUCT_ROWS) {
        vf acc[PRODUCT_VECS][PRODUCT_ROWS];
#define EACH(v, n) _Pragma("GCC unroll 16") for (int v = 0; v < n; v++) /* whole, or the sums live in memory */
        EACH(v, PRODUCT_VECS)
            EACH(i, PRODUCT_ROWS) acc[v][i] = v_set(0.0f);
        for (int64_t k = 0; k < depth; k++)
            EACH(v, PRODUCT_VECS) {
                vf y = v_load(b + k * 16 + v * LANES);
                EACH(i, PRODUCT_ROWS) acc[v][i] = v_fma(v_set(a[k * 16 + i0 + i]), y, acc[v][i]);
            }
        EACH(v, PRODUCT_VECS)
            EACH(i, PRODUCT_ROWS) {
                float *to = c + (i0 + i) * stride + v * LANES;
                vf was = v_load(to);
                v_store(to, sub ? v_sub(was, acc[v][i]) : v_add(was, acc[v][i]));
            }
#undef EACH
    }
}

static void eliminate_16(float *p, const float *tri, const float *scale, int64_t depth)
{
    for (int64_t k = depth - 1; k >= 0; k--)
        for (int v = 0; v < PRODUCT_VECS; v++) {
            vf x = v_mul(v_load(p + k * 16 + v * LANES), v_set(scale[k]));
            v_store(p + k * 16 + v * LANES, x);
            for (int64_t i = 0; i < k; i++) {
                float *to = p + i * 16 + v * LANES;
                v_store(to, v_fnma(v_set(tri[k * depth + i]), x, v_load(to)));
            }
        }
}

static void linear_rows(struct quant_kernels *k) { k->product = product_16, k->eliminate = eliminate_16; }

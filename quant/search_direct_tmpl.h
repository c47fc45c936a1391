/* search_direct_tmpl - F32, F16, BF16: conversion. Q8_0: a choice among a few scales. */
#include <string.h>

static void rows_f32(const struct quant_kernels *k, const float *x, const float *w, int64_t n_rows, int64_t n, void *dst, void *scratch)
{
    memcpy(dst, x, (size_t)(n_rows * n) * sizeof *x);
}

static void rows_f16(const struct quant_kernels *k, const float *x, const float *w, int64_t n_rows, int64_t n, void *dst, void *scratch)
{
    uint16_t *h = dst;
    int64_t i = 0;
    for (; i + LANES <= n_rows * n; i += LANES) vi_store_16(h + i, v_f16(v_load(x + i)));
    for (; i < n_rows * n; i++) h[i] = f32_to_f16(x[i]);
}

static void rows_bf16(const struct quant_kernels *k, const float *x, const float *w, int64_t n_rows, int64_t n, void *dst, void *scratch)
{
    uint16_t *h = dst;
    int64_t i = 0;
    for (; i + LANES <= n_rows * n; i += LANES) vi_store_16(h + i, v_bf16(v_load(x + i)));
    for (; i < n_rows * n; i++) h[i] = f32_to_bf16(x[i]);
}

/* What the largest magnitude becomes. -128 stays unused, as in files of llama.cpp: kernels may negate codes. Steps of one code shuffle all roundings:
 * the best of these has about 0.75 of the error of the first under uneven importance, the best of the first three 0.88 under equal weights (Gaussian
 * and heavier tails). */
static const float q8_trials[] = { 127, 126, 125, 124, 122 };
enum { Q8_PLAIN_TRIALS = 3 };

LANE_FN vf q8_code(vf x, vf inv) { return v_nearest(v_clamp(v_mul(x, inv), -127.0f, 127.0f)); }

/* sum of w (x - y)^2 in steps of the scale; `inside`: no code would be cut */
LANE_FN vf q8_error(const vf *x, const float *w, vf inv, bool inside)
{
    vf sum = v_set(0.0f);
    for (int i = 0; i < 32; i++) {
        vf u = v_mul(x[i], inv), e = v_sub(u, inside ? v_nearest(u) : q8_code(x[i], inv));
        sum = v_add(sum, v_mul(v_set(w[i]), v_mul(e, e)));
    }
    return sum;
}

LANE_FN vf q8_fit(const vf *x, const float *w, int n_trials)
{
    vf hi = x[0], lo = x[0], zero = v_set(0.0f);
    for (int i = 1; i < 32; i++) hi = v_max(hi, x[i]), lo = v_min(lo, x[i]);
    vf largest = v_sel(v_lt(v_neg(lo), hi), hi, lo), best = zero, least = v_set(3e38f);
    for (int t = 0; t < n_trials; t++) {
        /* by the stored scale, not the exact one: half a step less error for large codes; tiny scales are off by much more */
        vf d = v_half(v_mul(largest, v_set(1.0f / q8_trials[t]))), inv = v_inverse(d);
        vf a = v_mul(hi, inv), b = v_mul(lo, inv);
        bool cut = vm_any(vm_or(v_lt(v_set(127.49f), v_max(a, b)), v_lt(v_min(a, b), v_set(-127.49f))));
        vf sum = v_mul(cut ? q8_error(x, w, inv, false) : q8_error(x, w, inv, true), v_mul(d, d));
        vm better = vm_and(v_lt(sum, least), vm_not(v_eq(d, zero)));
        least = v_sel(better, sum, least), best = v_sel(better, d, best);
    }
    return best;
}

LANE_FN void q8_block(vf *x, const float *w, vf top, int lanes, uint8_t *dst, size_t row_bytes, int n_trials)
{
    tame(x, 32, top);
    vf d = q8_fit(x, w, n_trials), inv = v_inverse(d);
    put_halves(dst, row_bytes, d, lanes);
    for (int i = 0; i < 8; i++) {
        vi word = vi_set(0);
        for (int j = 0; j < 4; j++) word = vi_or(word, vi_shl(vi_and(v_trunc(q8_code(x[4 * i + j], inv)), vi_set(255)), 8 * j));
        put_words(dst + offsetof(struct block_q8_0, qs) + 4 * i, row_bytes, word, lanes);
    }
}

static void block_q8_0(vf *x, const float *w, vf top, vf *more, int lanes, uint8_t *dst, size_t row_bytes)
{
    q8_block(x, w, top, lanes, dst, row_bytes, ARRAY_LEN(q8_trials));
}
static void block_q8_0_plain(vf *x, const float *w, vf top, vf *more, int lanes, uint8_t *dst, size_t row_bytes)
{
    q8_block(x, w, top, lanes, dst, row_bytes, Q8_PLAIN_TRIALS);
}
LEVEL(rows_q8_0, GGUF_Q8_0, w ? block_q8_0 : block_q8_0_plain)

static void direct_rows(struct quant_kernels *k)
{
    k->rows[GGUF_F32] = rows_f32, k->rows[GGUF_F16] = rows_f16, k->rows[GGUF_BF16] = rows_bf16, k->rows[GGUF_Q8_0] = rows_q8_0;
}

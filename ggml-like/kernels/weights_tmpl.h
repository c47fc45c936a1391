/* weights_tmpl - the slot `weights`: plain IEEE arithmetic, each operation rounded by itself, in an order that is part of the contract. Each level
 * compiles this very text for its vectors, so all of them, and all machines, get the same bits: a seed means the same tokens everywhere.
 * Vectors of the compiler, not of the machine: 152k logits take 50 us with AVX2 and 200 with SSE2; loops over arrays took 80 and 200. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __clang__
#define UNROLL_WEIGHTS _Pragma("clang loop unroll(full)")
#else
#define UNROLL_WEIGHTS _Pragma("GCC unroll 8")
#endif

enum { WEIGHTS_VECTORS = 4, WEIGHTS_BLOCK = 8 * WEIGHTS_VECTORS };
typedef float weights_f8 __attribute__((vector_size(32)));
typedef float weights_any8 __attribute__((vector_size(32), aligned(4), may_alias)); /* in memory */
typedef float weights_any4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t weights_i8 __attribute__((vector_size(32)));
typedef double weights_d4 __attribute__((vector_size(32)));

/* e = exp((x - max) / t), 0 where that is below e^-87 or x is NaN. Relative error < 3e-7 plus the rounding of the argument: Cody-Waite reduction, Taylor
 * polynomial of degree 6 on |r| <= ln2 / 2. Step by step for all vectors: one after the other waits for its own results (75 us for the 152k). */
static inline __attribute__((always_inline)) void weights_exp(weights_f8 e[WEIGHTS_VECTORS], const float *x, float max, float t, bool divide)
{
    static const float c[] = { 8.33333333e-3f, 4.16666667e-2f, 1.66666667e-1f, 0.5f, 1.0f, 1.0f };
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding and removing it rounds to an integer */
    weights_f8 a[WEIGHTS_VECTORS], n[WEIGHTS_VECTORS];
    weights_i8 keep[WEIGHTS_VECTORS];
#define EACH UNROLL_WEIGHTS for (int i = 0; i < WEIGHTS_VECTORS; i++)
    EACH a[i] = *(const weights_any8 *)(const void *)(x + 8 * i) - max;
    if (divide) EACH a[i] /= t;
    EACH keep[i] = a[i] > -87.0f;
    EACH a[i] = (weights_f8)((weights_i8)a[i] & keep[i]); /* 0 instead of what is too small or NaN: its result is masked below */
    EACH n[i] = (a[i] * 1.44269504f + magic) - magic;
    EACH a[i] = (a[i] - n[i] * 0.693359375f) + n[i] * 2.12194440e-4f;
    EACH keep[i] &= (__builtin_convertvector(n[i], weights_i8) + 127) * (1 << 23); /* 2^n */
    EACH e[i] = c[0] + a[i] * 1.38888889e-3f;
    UNROLL_WEIGHTS for (int k = 1; k < 6; k++) EACH e[i] = c[k] + a[i] * e[i];
    EACH e[i] *= (weights_f8)keep[i];
#undef EACH
}

/* Adds a block of terms to the four sums: lane i takes the terms i, i + 4, i + 8 and so on. */
static inline __attribute__((always_inline)) void weights_block(weights_d4 *sum, float *y, const float *x, float max, float t, bool divide)
{
    weights_f8 e[WEIGHTS_VECTORS];
    weights_exp(e, x, max, t, divide);
    UNROLL_WEIGHTS for (int i = 0; i < WEIGHTS_VECTORS && y; i++) *(weights_any8 *)(void *)(y + 8 * i) = e[i];
    weights_f8 all = (e[0] + e[1]) + (e[2] + e[3]);
    const float *half = (const float *)&all;
    *sum += __builtin_convertvector(*(const weights_any4 *)(const void *)half + *(const weights_any4 *)(const void *)(half + 4), weights_d4);
}

static inline __attribute__((always_inline)) double weights_of(float *y, const float *x, int64_t n, float max, float t, bool divide)
{
    weights_d4 sum = { 0 };
    int64_t i = 0;
    for (; i + WEIGHTS_BLOCK <= n; i += WEIGHTS_BLOCK) weights_block(&sum, y ? y + i : NULL, x + i, max, t, divide);
    if (i < n) {
        float term[WEIGHTS_BLOCK];
        for (int64_t j = 0; j < WEIGHTS_BLOCK; j++) term[j] = i + j < n ? x[i + j] : -INFINITY;
        weights_block(&sum, term, term, max, t, divide);
        if (y) memcpy(y + i, term, (size_t)(n - i) * sizeof *y);
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static double weights(float *y, const float *x, int64_t n, float max, float t)
{
    return t == 1.0f ? weights_of(y, x, n, max, t, false) : weights_of(y, x, n, max, t, true);
}

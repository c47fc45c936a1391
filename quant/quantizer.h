/* quantizer - maps rows of f32 to rows of a format. Sees no model, no tensor name, no file. Knows ggml-like and lanes only.
 *
 * The objective of every search: minimise  sum_j w[j] * (x[j] - y[j])^2  over the row, y = what the format's unpack gives back, w = importance
 * of the column (mean of the squared input that meets it). That sum is the diagonal of the layer's output error.
 * Without importance each family uses the weights it documents. Zero rows, all-zero w and w zero inside a group are legal: they fall back to equal
 * weights. x is finite (the caller checked); magnitudes may be anything a float holds: results are always finite in every field.
 *
 * Same bytes for every level, number of threads and split of rows over calls: see lanes.h. */
#pragma once
#include "ggml-like/arena.h"
#include "ggml-like/dtype.h"

struct quant_kernels;
struct solver; /* solve.h */
enum { QUANT_SCRATCH = 2 << 20 }; /* bytes, 64-byte aligned: one per thread, for any format */

/* x [n_rows][n] -> dst, n_rows rows of dtype_row_bytes(n); n a multiple of the block length; w [n] or NULL. Cannot fail. */
typedef void (*quant_rows_fn)(const struct quant_kernels *k, const float *x, const float *w, int64_t n_rows, int64_t n, void *dst, void *scratch);

/* c [16] rows of 16, `stride` apart: += (sub: -=) the sum over k < depth, in order and from zero, fused, of a[k][i] * b[k][j]; a, b [depth][16] */
typedef void (*quant_product_fn)(float *c, int64_t stride, const float *a, const float *b, int64_t depth, bool sub);
/* rows p [depth][16] of the system that `tri` [depth][depth] factors from its end: for k = depth - 1 .. 0  p[k] *= scale[k], p[i] -= tri[k][i] p[k],
 * i < k, fused */
typedef void (*quant_eliminate_fn)(float *p, const float *tri, const float *scale, int64_t depth);

/* One search per format, by GGUF id. NULL: the format cannot be made (Q8_1, Q8_K: activations only). Float formats: conversion. */
struct quant_kernels {
    const char *name; /* "base", "avx2", "avx512" */
    quant_rows_fn rows[DTYPE_IDS];
    quant_product_fn product;
    quant_eliminate_fn eliminate;
    /* what solve_rows and solve_error do */
    void (*solve)(const struct solver *s, const struct quant_kernels *k, const float *x, int64_t n_rows, void *dst, double *loss, void *scratch);
    double (*solve_error)(const struct solver *s, const float *h, const float *x, const void *rows, int64_t n_rows, void *scratch);
};
/* quant_kernels_init - the plain level, then each level that `features` (enum cpu_feature bits, cpu.h) allows overwrites its slots: AVX2 wants FMA too. */
void quant_kernels_init(struct quant_kernels *k, uint64_t features);

/* Levels: each fills all slots it can. One file per level = a lanes_*.h and the templates. */
void quant_init_base(struct quant_kernels *k);
void quant_init_avx2(struct quant_kernels *k);
void quant_init_avx512(struct quant_kernels *k);

/* ---- methods, one row each in quantizer.c ---- */
enum granularity { PER_TENSOR, PER_ROW, PER_GROUP };
struct quant_spec {
    const struct quantizer *method;
    const struct dtype *type;  /* what `search` makes; the others derive theirs from bits */
    int bits;                  /* 4 or 8, absmax and zero-point */
    enum granularity granularity;
    int64_t group;             /* PER_GROUP: a multiple of 32 */
    const void *prepared;      /* what the method's prepare made */
};
struct quantizer {
    const char *name;          /* "search", "compat", "absmax", "zero-point" */
    const char *brief;         /* one line, for help */
    bool takes_type;           /* makes the format that a recipe asks for; the others choose theirs */
    bool may_overflow;         /* scales may come out infinite: the caller looks, and refuses them */
    bool needs_range;          /* lo and hi of the whole tensor are known before the first row */
    /* the format that holds this method's result exactly; NULL with e set when there is none for these options */
    const struct dtype *(*target)(const struct quant_spec *s, struct err *e);
    /* tables that all threads read, for the formats that will be made; lives as long as mem. NULL: needs none. ERR_MEMORY */
    status (*prepare)(const bool made[DTYPE_IDS], struct arena *mem, const void **out, struct err *e);
    void (*rows)(const struct quant_spec *s, const struct quant_kernels *k, float lo, float hi, const float *x, const float *w, int64_t n_rows,
                 int64_t n, void *dst, void *scratch);
};
extern const struct quantizer *const quantizers[]; /* NULL-terminated; the first is what is used unless another is asked for */
extern const struct quantizer quantizer_gptq, quantizer_awq; /* quantizer.c */
extern const struct quantizer quantizer_compat;    /* compat.h */
const struct quantizer *quantizer_by_name(const char *name);

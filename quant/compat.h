/* compat - llama-quantize's bytes: what the anchor of every comparison writes, reproduced so that a gain is measured against the right thing.
 *
 * The facts (order of trials, strict comparisons, order of operations in f32, fudge factors, lists of neighbours) are those of ggml-quants.c at
 * llama.cpp 0c1e570, as its release builds write them: plain x86-64, where nothing is fused. ggml-base, which holds the quantizers, is compiled
 * for that whatever -march the rest of llama.cpp gets; tests/oracle/compat.py compares. Not reproduced, because there is nothing to reproduce:
 *   - inputs on which the reference aborts or reads past its arrays (all distances NaN or infinite): some legal code is chosen;
 *   - IQ1 sorts with qsort, where equal weights come out as the C library likes: stable here, as in glibc;
 *   - the sign of a NaN scale: files with one are refused here and there.
 * Reads a block of weights, fills struct parts; dtype.join makes bytes. Internal to quant/. */
#pragma once
#include <string.h>
#include "ggml-like/arena.h"
#include "quant/quantizer.h"

/* One block. w: importance of its columns, or NULL. */
struct compat_in {
    const float *x, *w;
    float mean2;                   /* mean of x^2 over the whole row: the 32-weight formats with importance */
};

/* A codebook, and which of its entries are near a point of level numbers. Points are numbers of vec_len digits, `bits` bits each, as in formats.h.
 * Built once per plan, read by all threads. */
struct compat_grid {
    const uint16_t *entry;         /* [n] */
    int n, vec_len, bits, levels;
    int shells;                    /* so many different distances count as near */
};
struct compat_book {
    const struct compat_grid *grid;
    int32_t *at;                   /* [1 << vec_len * bits]: entry, or -1 - place in near; points with digits beyond the levels: not set */
    uint16_t *near;                /* at a place: how many, then the entries, nearest first (ties: lowest entry) */
};
int compat_level(const struct compat_book *b, int entry, int i); /* level number of element i */

struct compat_format;
typedef void (*compat_block_fn)(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p);
/* One format. plain_pack: without importance the bytes are those of dtype.pack. */
struct compat_format {
    int id;
    compat_block_fn block;
    bool plain_pack;
    const void *how;               /* the family's own table row */
    const struct compat_grid *grid; /* or NULL */
};
const struct compat_format *compat_format_of(int id); /* NULL: conversion, or not made */
extern const struct compat_format compat_even[], compat_uneven[], compat_codebook[], compat_iq1[]; /* end with block NULL */

/* compat_book_make - ERR_MEMORY. */
status compat_book_make(struct compat_book *b, const struct compat_grid *g, struct arena *mem, struct err *e) MUST_USE;

/* ---- arithmetic as the reference has it ---- */

/* nearest integer by the addition of 1.5 * 2^23; beyond 2^22 the low bits of what comes out, for NaN and infinity 0 and -2^22 */
static inline int compat_nearest(float v)
{
    float moved = v + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &moved, sizeof bits);
    return (bits & 0x007fffff) - 0x00400000;
}
/* float to int as x86-64 converts: -2^31 where it does not fit */
static inline int compat_trunc(float v) { return v >= -0x1p31f && v < 0x1p31f ? (int)v : INT32_MIN; }
static inline int compat_clamp(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }
static inline float compat_max(float a, float b) { return a > b ? a : b; } /* b if either is NaN */

/* ---- searches for a scale (compat_scale.c); all return it and leave codes in q ---- */

/* w of element i: importance times root of (mean2 + x^2) */
void compat_weights(const float *x, const float *w, float mean2, int n, float *out);
float compat_sum2(const float *x, int64_t n); /* of x^2, in order */
/* y = scale * (q - half), q in 0..2 half - 1; w NULL: x^2. Zero rows: q = 0. */
float compat_symmetric(int n, int half, const float *x, const float *w, uint8_t *q);
/* the same grid without weights: one rounding, then single codes moved while that helps */
float compat_moved(int n, int half, const float *x, uint8_t *q);
/* y = scale * q - *min, q in 0..top. Trials: (top + first + step k) / (max - min), k = 0..last */
struct compat_trials { float first, step; int last; bool absolute; /* errors, not their squares */ };
float compat_affine(const struct compat_trials *t, int n, int top, const float *x, const float *w, uint8_t *q, float *min);
/* y = scale * q, q in 0..top for x >= 0. Negative x and what comes of it wrap as bytes. */
float compat_positive(int n, int top, const float *x, const float *w, uint8_t *q);

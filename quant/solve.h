/* solve - rows of a matrix onto a format's grid so that tr(E H E^T) is small, E = W - what the file decodes to, H a metric of hessian.h. Rows do not
 * know of each other. Knows quant/ and ggml-like/ only.
 *
 * Stages, each starting from the one before:
 *   SEARCH    the search of quantizer.h with diag(H) as importance: scales, and codes that are best one by one. What the others start from
 *   FEEDBACK  codes again, position after position, each aiming at its weight plus what the errors so far ask of it (metric.m): GPTQ (Frantar et al.
 *             2022) in the form of LDLQ (Chee et al. 2023); formats with codebooks in vectors of eight under the metric of those eight that is left
 *             when everything later is free (block LDLQ, QuIP#, Tseng et al. 2024). Rows that it does not improve keep their codes
 *   CODES     coordinate descent: group after group, every code to the value that is best with all others fixed, with the gradient of the whole
 *             row kept current (as CDQuant, Nair & Suggala 2024)
 *   SCALES    instead of CODES: before each sweep least squares under H for the half floats of each block; in it, neighbouring scale and min codes of the
 *             group are tried too (or of its half floats, where they are its own), codes chosen anew under each
 * No stage ends with a larger error than the one before. */
#pragma once
#include <math.h>
#include "quant/grid.h"
#include "quant/hessian.h"

enum solve_stage { SOLVE_SEARCH, SOLVE_FEEDBACK, SOLVE_CODES, SOLVE_SCALES, SOLVE_STAGES };
/* Sweeps of CODES or SCALES; four leave 1 to 2 % of the error, twelve take another half. Feedback again from the scales they end with, and a second
 * descent from there: 1 % for twice the time, left out. */
enum { SOLVE_SWEEPS = 8 };
/* Of its arithmetic, and hessian.h's: another gives other bytes, so a run does not resume what one of another revision began. */
enum { SOLVE_REVISION = 2 };
enum { SOLVE_ROWS = 64 /* that read H together */, SOLVE_FIXED = 1 << 20 };

/* The codebook of a grid cut in halves: entries with the same upper half are a run. Sums over an entry are a sum for each half and a product of both. */
enum { SOLVE_HALVES = 256 };
struct solve_book {
    int half, n_lo, n_hi;             /* elements of a half; distinct halves */
    float lo[SOLVE_HALVES][4], hi[SOLVE_HALVES][4];
    int16_t start[SOLVE_HALVES + 1];  /* entries of run h: start[h] .. start[h + 1] - 1 */
    int16_t q[GRID_ENTRIES_MAX];      /* of entry i in order of runs */
    uint8_t lo_of[GRID_ENTRIES_MAX];
    float level[GRID_ENTRIES_MAX * 8]; /* [q][vec_len] */
};

struct solver {
    struct grid grid;
    struct solve_book book;
    uint8_t q_of[256];                /* scalar: q of code + 128 */
    float table[16], between[16];     /* uneven levels in rising order; [i]: the middle of i and i + 1, infinite past the last */
    const struct metric *metric;
    const float *importance;          /* [n] of the search's columns; NULL: metric->d, what is left of the diagonal when later columns follow:
                                       * 1 to 2 % less error at the end than the diagonal itself */
    enum solve_stage stage;           /* the last to do */
    int sweeps;                       /* SOLVE_SWEEPS; fewer when nothing moves any more */
};

/* solver_init - for one format and one matrix. metric and importance stay the caller's. ERR_USAGE for formats that are no grid, or whose rows
 * do not end with a block. */
status solver_init(struct solver *s, const struct dtype *t, const struct metric *m, const float *importance, struct err *e) MUST_USE;
/* solve_scratch - bytes for solve_rows, 64-byte aligned, one per thread. */
size_t solve_scratch(const struct solver *s);
/* solve_rows - x [n_rows][n] finite -> dst, rows of dtype_row_bytes. loss (or NULL) [n_rows][SOLVE_STAGES]: e H' e^T after each stage, in units of
 * the metric (x^2 times H). Any thread; same bytes for every level and split of rows. Cannot fail. */
void solve_rows(const struct solver *s, const struct quant_kernels *k, const float *x, int64_t n_rows, void *dst, double (*loss)[SOLVE_STAGES], void *scratch);
/* solve_error - sum over rows of e h e^T, h [n][n] symmetric: what a solution is worth on other tokens. Scratch as above. */
double solve_error(const struct solver *s, const struct quant_kernels *k, const float *h, const float *x, const void *rows, int64_t n_rows, void *scratch);
/* solve_sound - all of x are numbers, as solve_rows wants them. */
static inline bool solve_sound(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return isfinite(sum);
}

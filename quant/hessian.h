/* hessian - H = sum over tokens of x x^T, x the inputs [n] that meet a weight matrix, and what a solver needs of it. A matrix W with the error
 * E = W - What changes the layer's outputs over those tokens by tr(E H E^T), summed squares: the metric of GPTQ (Frantar et al. 2022), LDLQ (QuIP,
 * Chee et al. 2023) and QuIP# (Tseng et al. 2024). Knows ggml-like/ and the lanes only.
 *
 * All sums are f32 in an order that depends on n and the number of rows only: the same bits for every number of threads, SIMD level and split of rows
 * over calls. Nothing is fused. */
#pragma once
#include "ggml-like/arena.h"
#include "ggml-like/pool.h"
#include "quant/quantizer.h"

enum { HESSIAN_ROWS = 256 }; /* tokens multiplied at once; each such product is added to H as a whole */

struct hessian {
    int64_t n;
    int64_t count;     /* rows added */
    float *h;          /* [n][n]; the lower triangle until hessian_finish, then symmetric */
    float *rows;       /* [n / 16][HESSIAN_ROWS][16] waiting: panels of 16 columns */
    int64_t n_waiting;
    struct arena mem;
};
/* hessian_open - zero. n a multiple of 16 (ERR_USAGE). Memory: n^2 + 256 n floats. */
status hessian_open(struct hessian *h, int64_t n, struct err *e) MUST_USE;
void hessian_close(struct hessian *h); /* accepts a zeroed struct */
/* hessian_add - rows x [n_rows], `stride` floats apart, each times weight[row] (NULL: 1). Called by every thread of `p` with its ith of nth and the same
 * arguments, inside pool_run, or by one thread with p NULL, 0 of 1. */
void hessian_add(struct hessian *h, const struct quant_kernels *k, const float *x, int64_t stride, const float *weight, int64_t n_rows, struct pool *p,
                 int ith, int nth);
/* hessian_finish - multiplies what waits and mirrors; h is then complete. Threads as above. Adding on afterwards is allowed. */
void hessian_finish(struct hessian *h, const struct quant_kernels *k, struct pool *p, int ith, int nth);
void hessian_diagonal(const struct hessian *h, float *out); /* [n] per token: the importance of the columns */

/* ---- metric: H made safe, in the order in which a solver visits the columns, and its factor ----
 *
 * Conditioning: columns that no token drove (H[j][j] == 0) get the mean of the diagonal and no coupling; then
 *   H' = unit ((1 - shrink) H + shrink diag(H)) + damping I,     unit = 1 / mean of the diagonal
 * Shrinkage holds coupling back where there are few tokens for n columns; damping bounds the condition.
 *
 * Order: groups of `group` columns, the one with the largest sum of the diagonal first; inside a group columns stay as they are (vectors of eight
 * and their signs must), so a group is a run of positions. column(p) = at[p / group] * group + p % group.
 *
 * Factor: H' = M D M^T in that order, M upper triangular with ones on the diagonal; stored as m[k][j] = M[j][k], j < k: the row of k holds
 * what the errors at earlier positions ask of position k. So with errors e,  e H' e^T = sum_k d[k] (e_k + sum_{j<k} e_j m[k][j])^2: the best that can still be
 * done for position k is to be near w_k + sum_{j<k} e_j m[k][j]. That is GPTQ's update without an inverse (QuIP, theorem 6). */
struct metric_options {
    float damping, shrink;
    int group;           /* 16 or 32: the format's group_len */
    bool keep_order;     /* columns as they stand in the file */
};
struct metric {
    int64_t n;
    int group;
    int32_t *at;         /* [n / group] natural group of each run */
    float *h;            /* [n][n] H', in order */
    float *m;            /* M: metric_panel(k / 16)[j][k % 16] = m[k][j] for j < k, else 0 */
    float *d, *inv;      /* [n] of the factor; 1 / h[p][p] */
    float unit;
    float damping;       /* what was used: raised tenfold, at most METRIC_TRIES times, while the factor fails */
    struct arena mem;
};
enum { METRIC_TRIES = 6, METRIC_PANEL = 16 };
/* metric_panel - the factor's rows for positions 16 i .. 16 i + 15: [16 i + 16][16] floats */
static inline float *metric_panel(const struct metric *m, int64_t i) { return m->m + i * (i + 1) / 2 * METRIC_PANEL * METRIC_PANEL; }
/* metric_open - h [n][n] symmetric, finite. Runs p (NULL: this thread alone). Memory: 1.5 n^2 floats. ERR_RUNTIME when no damping helps (H is not a
 * sum of squares). */
status metric_open(struct metric *m, const float *h, int64_t n, const struct metric_options *o, const struct quant_kernels *k, struct pool *p,
                   struct err *e) MUST_USE;
void metric_close(struct metric *m); /* accepts a zeroed struct */

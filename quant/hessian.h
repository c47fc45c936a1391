/* hessian - H = sum over tokens of x x^T, x the inputs [n] that meet a weight matrix, and what a solver needs of it. A matrix W with the error
 * E = W - What changes the layer's outputs over those tokens by tr(E H E^T), summed squares: the metric of GPTQ (Frantar et al. 2022), LDLQ (QuIP,
 * Chee et al. 2023) and QuIP# (Tseng et al. 2024). Knows ggml-like/ and the lanes only.
 *
 * All sums are f32 in an order that depends on n and the number of rows only: the same bits for every number of threads, SIMD level and split of rows
 * over calls. */
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

/* ---- cross: a sum of u x^T, x the inputs [n] as for H, u [m] what is missing beside them, what comes before being quantized already.
 * u = f - x, f the inputs in the model as it was: W f is best had from x by the matrix W + W C H^-1. u what is missing in the sum that W's product is
 * added to: W + C H^-1 makes up for it as well as W can. Solving for that instead of W (metric_aim) takes back part of the errors made before (GPTAQ, Li et
 * al. 2025; Qronos, Zhang et al. 2025) ---- */
struct cross {
    int64_t m, n;
    float *c;                /* panels of 16 columns: [n / 16][m][16] */
    float *left, *right;     /* [m / 16], [n / 16] of [HESSIAN_ROWS][16] waiting: u, x */
    int64_t n_waiting;
    struct arena mem;
};
/* as for a Hessian, m and n multiples of 16; memory: m n + 256 (m + n) floats. cross_add: rows of u are those of f minus those of g;
 * weight as for hessian_add. */
status cross_open(struct cross *c, int64_t m, int64_t n, struct err *e) MUST_USE;
void cross_close(struct cross *c);
void cross_add(struct cross *c, const struct quant_kernels *k, const float *f, int64_t f_stride, const float *g, int64_t g_stride, const float *x,
               int64_t x_stride, const float *weight, int64_t n_rows, struct pool *p, int ith, int nth);
void cross_finish(struct cross *c, const struct quant_kernels *k, struct pool *p, int ith, int nth);

/* ---- metric: H made safe, and its factor in the order in which a solver visits the columns: as they stand. Visiting those with the largest diagonal first
 * (GPTQ's act-order, here by whole groups) changed held-out errors after the polish by -0.6 to +1.3 %, so there is no order to carry about ----
 *
 * Conditioning: columns that no token drove (H[j][j] == 0) get the mean of the diagonal and no coupling; then
 *   H' = unit ((1 - shrink) H + shrink diag(H)) + damping I,     unit = 1 / mean of the diagonal
 * Shrinkage holds coupling back where there are few tokens for n columns; damping bounds the condition.
 *
 * Factor: H' = M D M^T, M upper triangular with ones on the diagonal; stored as m[k][j] = M[j][k], j < k: the row of k holds
 * what the errors at earlier columns ask of column k. So with errors e,  e H' e^T = sum_k d[k] (e_k + sum_{j<k} e_j m[k][j])^2: the best that can still be
 * done for column k is to be near w_k + sum_{j<k} e_j m[k][j]. That is GPTQ's update without an inverse (QuIP, theorem 6). */
struct metric_options {
    float damping;       /* METRIC_DAMPING */
    float shrink;        /* metric_shrink */
};
struct metric {
    int64_t n;
    float *h;            /* H' in panels of 16 columns: metric_at */
    float *m;            /* M: metric_panel(k / 16)[j][k % 16] = m[k][j] for j < k, else 0 */
    float *d, *inv;      /* [n] of the factor; 1 / h[p][p] */
    float unit;
    float damping;       /* what was used: raised tenfold, at most METRIC_TRIES times, while the factor fails */
    struct arena mem;
};
enum { METRIC_TRIES = 6, METRIC_PANEL = 16 };
/* Held-out errors of a 1.5B model's matrices do not tell 0.01 from 0.1, once there is shrinkage. Its best is flat around this: n = 1536 columns on 12,000
 * tokens like 0.1 to 0.3, n = 8960 like 0.3 to 0.6, and without any the latter gain nothing (0.93 of the search's error instead of 0.55). */
#define METRIC_DAMPING 0.03f
static inline float metric_shrink(int64_t n, int64_t tokens) { return 1.5f * (float)n / (1.5f * (float)n + (float)tokens); }
/* metric_panel - the factor's rows for positions 16 i .. 16 i + 15: [16 i + 16][16] floats */
static inline float *metric_panel(const struct metric *m, int64_t i) { return m->m + i * (i + 1) / 2 * METRIC_PANEL * METRIC_PANEL; }
/* metric_at - H'[i][j]; behind it those of i and the next columns of the panel */
static inline float *metric_at(const struct metric *m, int64_t i, int64_t j) { return m->h + (j / METRIC_PANEL * m->n + i) * METRIC_PANEL + j % METRIC_PANEL; }
/* metric_open - h [n][n] symmetric, finite. Runs p (NULL: this thread alone). Memory: 1.5 n^2 floats. ERR_RUNTIME when no damping helps (H is not a
 * sum of squares). */
status metric_open(struct metric *m, const float *h, int64_t n, const struct metric_options *o, const struct quant_kernels *k, struct pool *p,
                   struct err *e) MUST_USE;
void metric_close(struct metric *m); /* accepts a zeroed struct */
/* metric_aim - rows row, row + step, .. of W, x [n_rows][n], become those of W + strength (W C + D) H'^-1, or as far that way as METRIC_AIM_REACH allows;
 * C [n][n], D [all rows][n], either may be NULL, over the same tokens as H. Any thread; scratch METRIC_AIM(n) bytes, 64-byte aligned. */
enum { METRIC_AIM_ROWS = 64 };
/* Full strength overshoots: each layer then makes up for noise of the ones before. SmolLM2-135M, Q4_0, 16k tokens, KL on unseen prose / code: none 0.148 /
 * 0.112, 1.0 0.090 / 0.074, 0.5 0.082 / 0.066; with windows of 512 tokens 0.5 0.075 / 0.066, 0.3 0.075 / 0.067. */
#define METRIC_AIM_STRENGTH 0.5f
/* No row moves farther than this part of its own length. Steps are 0.02 to 0.3 long but where one token in 512 is a thousand times as large as the others
 * (the first of a window, in a few channels behind layer 2 of Qwen2.5-Coder 1.5B): up to 8.5 there, which the few large tokens gain from and all others
 * lose by. Layers 1 and 2 as IQ2_XS, 4k tokens, KL on unseen code: without aim 0.0144, with it 6.64, held to 0.25 0.0136. */
#define METRIC_AIM_REACH 0.25f
#define METRIC_AIM(n) ((size_t)(n) * (2 * METRIC_AIM_ROWS + METRIC_PANEL) * sizeof(float))
void metric_aim(const struct metric *m, const struct cross *c, const struct cross *d, float strength, const struct quant_kernels *k, float *x, int64_t row,
                int64_t step, int64_t n_rows, void *scratch);

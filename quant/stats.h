/* stats - what quantization did to a tensor: sums for errors, histograms. Chunks are summed one by one and joined in order, so the figures are
 * the same for every number of threads. */
#pragma once
#include "ggml-like/dtype.h"

struct kernels;
enum { STATS_BINS = 64 };
struct quant_stats {
    int64_t n;              /* elements looked at (a sample when less than the tensor's) */
    double x2, y2, xy, e2;  /* sums of squares of the original, the result, their product, the squared error */
    double wx2, we2;        /* the same with importance (equal to x2, e2 without) */
    float max_abs, max_err; /* largest |x|, |x - y| */
    float lo, hi;           /* range of x */
    int64_t outliers;       /* |x| > 6 * rms of its row */
    int64_t hist[STATS_BINS]; /* of x / (rms of its row), -4..4, ends included */
    int64_t err_hist[STATS_BINS]; /* of (x - y) / (rms of the row's error), -4..4 */
};
/* stats_rows - adds n_rows rows: x [n_rows][n] originals, q their bytes in format t, w [n] or NULL, y [n] scratch. */
void stats_rows(struct quant_stats *s, const struct kernels *k, const struct dtype *t, const float *x, const void *q, const float *w, int64_t n_rows,
                int64_t n, float *y);
void stats_join(struct quant_stats *into, const struct quant_stats *s);
double stats_rmse(const struct quant_stats *s);
double stats_relative(const struct quant_stats *s);   /* sqrt(e2 / x2), 0 for an all-zero tensor */
double stats_weighted(const struct quant_stats *s);   /* sqrt(we2 / wx2) */
double stats_cosine(const struct quant_stats *s);

/* twin - the model as it was, run beside a calibration whose weights are being replaced: the same windows, states of its own. What a matrix should have
 * been given is seen next to what it gets. */
#pragma once
#include "tools/calibrate.h"

#define TWIN_EPS 1e-6f /* beside a mean square, as in the norms of models: rows of zeros weigh something finite */
enum { TWIN_BYTES = 64 << 20 }; /* inputs of one matrix kept at a time; one window's at least */

struct twin {
    const struct calibration *k;
    struct layers *layers;
    float *x;             /* [k->n_rows][n_embd] hidden states of where k stands */
    int64_t n_embd;
    size_t x_bytes;
    struct twin_room { float *p; size_t bytes; } f, g, y, w; /* inputs of the windows at hand in both models; outputs of k's; weights of rows */
    int64_t first, n_cols; /* row of f[0]; columns */
    bool stepped;         /* x is past the layer already */
};
/* twin_open - for a calibration that is open. twin_start, twin_step - as calibration_start, calibration_step, called beside them and before. */
status twin_open(struct twin *t, const struct calibration *k, const struct cli *c, struct err *e) MUST_USE;
void twin_close(struct twin *t); /* accepts a zeroed struct */
status twin_start(struct twin *t, struct err *e) MUST_USE;
status twin_step(struct twin *t, struct err *e) MUST_USE;

/* Rows of some windows, whole ones. */
struct twin_rows {
    int64_t first, n;         /* rows of the calibration */
    const float *f, *x;       /* [n][n_cols] inputs in the model as it was, and now */
    const float *sum_f, *sum; /* [n][n_embd] what the matrix's product is added to, and it with the weights that k has now (LAYERS_SUM_OUT), or without
                               * (LAYERS_SUM_IN); NULL for LAYERS_SUM_NONE */
    const float *weight;      /* [n] 1 / (mean square of the row of sum_f + TWIN_EPS): an error in that sum counts by the sum's own size, as the norm behind
                               * it will see it; of the first row of a window so many times that as it has rows, all of which attend to it, but no more than
                               * another row has in the mean. NULL without sum_f */
};
typedef void (*twin_fn)(void *ctx, const struct twin_rows *r, int ith, int nth);
/* twin_show - the inputs of one weight of n_cols columns of the part that k stands before: fn on the threads of k's pool. LAYERS_SUM_OUT: for the last
 * weight of the layer that is shown; x steps along. */
status twin_show(struct twin *t, const char *name, int64_t n_cols, enum layers_sum sum, twin_fn fn, void *ctx, struct err *e) MUST_USE;

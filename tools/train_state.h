/* train_state - a training run on disk: what it is, where it stands, its numbers, its history. A run goes on from it as if it had never stopped: the order of
 * the samples and the draws of dropout follow from the seed and the step. Written beside (.part) and renamed; every byte is covered by a checksum. */
#pragma once
#include "ggml-like/base.h"

struct train_point {
    int64_t step, tokens, rows; /* tokens: trained ones of the step; rows: all that went through the model */
    double loss, valid;        /* mean -ln p of its trained tokens (dpo: of its pairs); of the validation set, NaN: not measured at this step */
    double rate, norm;         /* learning rate; of the gradient, before clipping */
    double margin, accuracy;   /* dpo: mean of the rewards' difference, share of pairs above 0 */
    double seconds;            /* of the step: the only number that is not the same in each run */
};

struct train_state {
    const char *job;           /* lines "name: value": a run goes on only where all of them are the same */
    int64_t n;                 /* trained numbers */
    float *w, *m, *v;          /* [n] and the optimizer's moments; not owned */
    int64_t step;              /* steps done */
    double best;               /* lowest validation loss so far, infinite before the first */
    int64_t best_step;
    struct train_point *row;     /* [n_rows] owned */
    int64_t n_rows, most_rows;
};
status train_state_add(struct train_state *s, const struct train_point *r, struct err *e) MUST_USE;
status train_state_save(const struct train_state *s, const char *path, struct err *e) MUST_USE;
/* train_state_load - into s, whose job, n, w, m and v are set. ERR_USAGE names the first line of the job that differs, with both values; ERR_FORMAT for a
 * damaged file. After a failure w, m and v hold anything. */
status train_state_load(struct train_state *s, const char *path, struct err *e) MUST_USE;
void train_state_close(struct train_state *s);
/* train_average - the moving average behind `loss`, the loss of step i (from 0) of a run of `steps`: over a tenth of the run, 20 steps at most. A longer one
 * would still hold the first losses when a short run ends. */
double train_average(double old, double loss, int64_t i, int64_t steps);

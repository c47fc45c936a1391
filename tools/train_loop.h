/* train_loop - the steps of a training run: which samples, at which rate, validation, checkpoints, history. Everything that decides a number follows from the
 * options, the data and the step, so that a run that goes on from a checkpoint writes what one without a break writes. */
#pragma once
#include "tools/cli.h"
#include "tools/train_set.h"
#include "tools/train_state.h"

/* Samples of a set, or pairs: those that are in the list. */
struct train_items {
    const struct train_set *set;
    const int64_t *item;                   /* [n] */
    int64_t n;
};

struct train_loop {
    /* set by the caller */
    struct trainer *t;
    struct train_items train, valid;
    bool dpo;                              /* items are pairs */
    float beta;                            /* of dpo */
    int64_t batch_size, n_batch;           /* items of a step; rows of a pass */
    struct schedule schedule;              /* with the number of steps */
    struct adamw adam;
    float clip;                            /* of the norm of the gradient; 0: none */
    uint64_t seed;
    int64_t eval_every, save_every, keep;  /* steps; 0: only at the end. keep: adapters of the last saves by steps that stay beside OUT */
    double save_seconds;
    const char *out, *state_path;
    /* write the adapter, or the model, as it is now */
    status (*write)(void *ctx, const struct train_loop *l, const char *path, struct err *e);
    void (*tell)(void *ctx, const struct train_loop *l, const struct train_point *r); /* after each step */
    void (*warn)(void *ctx, const char *text); /* a save failed (a full disk): the run goes on, and the next save may be luckier */
    const char *moments_path;              /* keeps the optimizer's numbers in this file, which is removed at the end; NULL: in memory */
    void *ctx;
    /* the run */
    struct train_state state;
    double smooth;                         /* moving average of the loss, see train_average */
    int64_t epoch;                         /* whose order is in `order` */
    int64_t *order;                        /* [train.n] */
    void *moments;                         /* float [2][n] */
    size_t moments_bytes;
    double *reference, *reference_valid;   /* dpo: [samples of the set] nll of the model without adapter, NaN: not known yet */
    double saved_at;                       /* seconds */
    bool spoiled;                          /* an update made weights that are not finite: the state on the disk is better */
};

/* train_loop_open - buffers; the state at step 0, or with `resume` the one in state_path (a missing file begins at 0).
 * train_loop_run - until the last step or an interruption (ERR_INTERRUPTED), with the state saved in both cases. ERR_RUNTIME for a loss or gradient that is not
 * finite: the last good state is saved, step and samples named; for weights that are not finite: the state that was saved last stays. */
status train_loop_open(struct train_loop *l, const char *job, bool resume, struct err *e) MUST_USE;
status train_loop_run(struct train_loop *l, struct err *e) MUST_USE;
void train_loop_close(struct train_loop *l);
/* train_loop_valid - mean loss of the validation set now, into r->valid. */
status train_loop_valid(struct train_loop *l, struct train_point *r, struct err *e) MUST_USE;
/* train_loop_aside - OUT.gguf -> OUT.step-120.gguf, or OUT.best.gguf for step -1. */
void train_loop_aside(const char *out, int64_t step, char *path, size_t cap);

/* calibrate - a text becomes windows of tokens that a model is run over layer by layer: for the importance of columns, and for solvers. Every eighth
 * window, one at least, is held out: what a solver gains must be seen there, too. */
#pragma once
#include "quant/importance.h"
#include "src/cuanto.h"
#include "tools/cli.h"

enum { CALIBRATION_CTX = 512 /* half of 1024: more places for the same tokens; 8 to 10 % less KL */, CALIBRATION_TOKENS = 65536 };
enum { HELD_OUT = 8, SAMPLE_WINDOWS = 16 };
enum { STEP_WINDOWS = 16 /* between two looks at signals: a second or two of the largest layers */ };

struct calibration {
    struct model *model;
    struct layers *layers;
    int64_t n_windows, n_ctx, n_rows; /* windows of n_ctx tokens; rows: tokens of all */
    float *x;                         /* [n_rows][n_embd] hidden states of where the model stands */
    size_t x_bytes;
    int32_t *tokens;                  /* [n_rows] */
    int il;                           /* the part whose input x is; LAYERS_EMBED: nothing yet */
    uint64_t hash;                    /* of the tokens */
    int64_t n_lines, n_chats, n_plain; /* of JSON lines: rows; conversations by the template; without one */
    const char *text;                 /* base name of the file, or dataset_default */
};
/* calibration_open - opens the model at `path`, reads c->calibration (dataset.h), takes windows spread evenly over it: c->calibration_tokens at most (0:
 * CALIBRATION_TOKENS). Nothing is computed yet. ERR_USAGE for a text of less than two windows; errors of datasets, models and layers. */
status calibration_open(struct calibration *k, const struct cli *c, const char *path, struct err *e) MUST_USE;
void calibration_close(struct calibration *k); /* the numbers stay; accepts a zeroed struct, or one that is closed */
int64_t calibration_n_held_out(const struct calibration *k); /* windows */
static inline bool calibration_held_out(const struct calibration *k, int64_t window)
{
    int64_t period = k->n_windows < HELD_OUT ? k->n_windows : HELD_OUT; /* one at least */
    return window % period == period - 1;
}

/* calibration_start - x becomes what the layers begin with. calibration_step - x becomes the input of the next part. calibration_show - the inputs of the
 * weights `name` of the part that x stands before are shown. All: ERR_INTERRUPTED when a signal came. */
status calibration_start(struct calibration *k, struct err *e) MUST_USE;
status calibration_step(struct calibration *k, struct err *e) MUST_USE;
status calibration_show(struct calibration *k, const char *const *name, int n, observe_fn fn, void *ctx, struct err *e) MUST_USE;
/* calibration_outline - the entries that calibration_importance will make, all columns alike: for a plan before anything is computed. im is empty.
 * calibration_importance - into these entries: sums of squares for all matrices and the head, from the windows that are not held out. sample: from every
 * second to eighth window, SAMPLE_WINDOWS at least: enough where a solver sums up its own. */
status calibration_outline(const struct calibration *k, bool sample, struct importance *im, struct err *e) MUST_USE;
status calibration_importance(struct calibration *k, const struct cli *c, bool sample, struct importance *im, struct err *e) MUST_USE;
int64_t calibration_importance_windows(const struct calibration *k, bool sample); /* that it runs through the model */

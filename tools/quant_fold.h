/* quant_fold - AWQ-style scaling of columns (Lin et al. 2023): for every group of src/fold.h the factors with which its matrices lose least in the formats of a
 * plan. Columns that large inputs meet grow, what makes these inputs shrinks; the model stays the same, and so does the file's form. Joins src/ and quant/. */
#pragma once
#include "quant/quant.h"
#include "src/cuanto.h"
#include "tools/cli.h"

enum { QUANT_FOLD_COARSE = 64 }; /* columns of a block: formats with longer ones are left as they are unless --fold or awq asks */

struct quant_fold {
    struct fold *fold;
    struct quant_scale *scale;     /* [n] for quant_plan_set_scales */
    int *il;                       /* [n] the part of the model that has it */
    const struct tensor **w;       /* [n] as they are in the model's file */
    float **copy;                  /* [n] of the part that was entered, scaled */
    int n;
    int n_groups, n_folded;        /* with quantized matrices; of them scaled */
    double gain;                   /* geometric mean over groups of the error left, 1: none */
    double seconds;
};
/* quant_fold_open - plan: types, and importance, which is im; its sums are then those of the scaled columns (and its hash theirs). m stays open for
 * quant_fold_enter. Deterministic: the same for every number of threads and level. ERR_MEMORY. */
status quant_fold_open(struct quant_fold *q, const struct cli *c, const struct model *m, struct quant_plan *plan, struct importance *im,
                       struct err *e) MUST_USE;
/* quant_fold_enter - part il of l, which runs that model, has scaled weights (F32) from now on; those replaced afterwards are to be of scaled ones, too.
 * quant_fold_leave - it has its own again. All entered at a time are of one part. */
status quant_fold_enter(struct quant_fold *q, struct layers *l, int il, struct err *e) MUST_USE;
void quant_fold_leave(struct quant_fold *q, struct layers *l, int il);
void quant_fold_close(struct quant_fold *q); /* accepts a zeroed struct */

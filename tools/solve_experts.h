/* solve_experts - stacks of experts under Hessians of their own. An expert sees few tokens: its Hessian is drawn toward that of the whole layer, the more the
 * fewer they are. Held-out windows are left out, but nothing is tried on them: rows that do not get better keep what the search found. */
#pragma once
#include "quant/quant.h"
#include "quant/solve.h"
#include "tools/calibrate.h"

enum { SOLVE_EXPERTS_MB = 2048 }; /* all Hessians of one input at most: wider or larger stacks are searched */

struct solve_experts {
    const struct calibration *k;
    const struct quant_kernels *qk;
    struct pool *pool;
    int64_t n, n_mat;         /* columns, experts */
    struct hessian *h;        /* [n_mat] */
    float *layer;             /* [n][n] the sum of all */
    int64_t count;            /* rows in it */
};
/* solve_experts_takes - the item is a stack that can be solved. */
bool solve_experts_takes(const struct quant_item *it);
/* solve_experts_open - the inputs of the stack `name` of the part that k stands before. solve_experts_run - bytes [bytes_to] of a stack that reads them. */
status solve_experts_open(struct solve_experts *x, struct calibration *k, const struct quant_kernels *qk, const char *name, int64_t n, int64_t n_mat,
                          struct err *e) MUST_USE;
void solve_experts_close(struct solve_experts *x); /* accepts a zeroed struct */
status solve_experts_run(struct solve_experts *x, struct quant_plan *p, int64_t item, const struct tensor *src, uint8_t *bytes,
                         struct err *e) MUST_USE;

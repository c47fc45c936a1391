/* quant_solve - a plan's matrices solved layer by layer (GPTQ-style): the calibration's states pass through what is quantized already, each group of
 * weights that reads one input gets that input's Hessian, quant/solve.h makes the bytes. Joins src/ and quant/, which do not know each other. */
#pragma once
#include "quant/quant.h"
#include "quant/solve.h"
#include "tools/calibrate.h"
#include "tools/quant_fold.h"

enum { QUANT_SOLVE_SAMPLE = 256 }; /* rows of each matrix that are searched and solved first: which is better on held-out windows? */
/* quant_solve_takes - the solver makes this tensor: its format can be solved for, and it is multiplied by, not only looked up. */
bool quant_solve_takes(const struct quant_item *it);

struct quant_solve {
    const struct cli *c;
    struct calibration *k;
    struct quant_plan *plan;
    struct quant_fold *fold;  /* whose factors the plan has; NULL: none */
    float correct;            /* matrices are solved for what they gave in the model as it was, from the inputs they get now: strength of metric_aim, 0: not */
    struct twin *twin;        /* while it runs, with `correct` */
    struct bar bar;
    int64_t n_done;           /* tensors, those of an earlier run too */
    double seconds;
};
/* quant_solve_run - for quant_run.solve, ctx a struct quant_solve. Tensors that an earlier run put are taken over. */
status quant_solve_run(void *ctx, struct quant_output *out, struct err *e) MUST_USE;

/* quant_allocate - `quantize` with a budget in place of a type: bits per weight, bytes of the file, memory to run it, or a KL divergence. Each tensor gets
 * the format that the whole needs: errors and their price from quant_sense.h, the choice from quant/allocate.h, exact bytes from the plan. */
#pragma once
#include "quant/quant.h"
#include "tools/calibrate.h"

struct quant_allocation {
    int *chosen;                 /* [tensors of the input] what quant_options.chosen points to */
    char recipe[48], label[32], measurement[80]; /* "4.25 bits per weight"; of the default name, "4.25bpw"; provenance */
    double predicted, measured;  /* KL; measured NaN: not yet */
    int64_t n_free, n_tokens;    /* tensors whose format was free; tokens that prices were measured on, 0: prices of other models */
    bool found, tried;           /* prices came from a file; measured is of the choice as the search makes it, before a file was written */
    double passes;               /* of the calibration text that measuring will take; 0: nothing to measure, or done */
    size_t bytes;                /* memory for measuring and for looking at the result, beside the calibration */
    double codebooks;            /* share of the weights in formats that decode slowly */
    char path[4096];             /* of the measurement, "" : none */
    bool temporary;              /* it goes when the file is complete */
    int32_t *held;               /* [n_windows][n_ctx] held-out text, NULL: none */
    int64_t n_windows, n_ctx;
};
/* allocates - a budget is given. allocation_begin - what can be said before any work: the budget as numbers and words; ERR_USAGE for two budgets, bad
 * sizes, options that do not go with it. */
bool allocates(const struct cli *c);
status allocation_begin(struct quant_allocation *a, const struct cli *c, const struct quant_options *o, struct err *e) MUST_USE;
/* allocation_make - o->chosen, recipe, measurement are set, for a plan of `in`. ERR_USAGE when the budget cannot be met, with what can. */
struct allocation_job {
    const struct cli *c;
    const char *in, *out;        /* beside out the measurement of an unfinished run is kept */
    struct quant_options *o;
    struct calibration *k;       /* a text that the model reads, or NULL */
    const struct quant_run *run; /* names are checked as it will */
    bool look;                   /* for a plan only, nothing is measured */
    status (*calibrate)(void *ctx, struct err *e); /* called before errors are weighted: o->importance is then there */
    void *ctx;
};
status allocation_make(struct quant_allocation *a, const struct allocation_job *j, struct err *e) MUST_USE;
/* allocation_check - after the run: a->measured, KL of `out` from `in` on the held-out text; nothing without one. */
status allocation_check(struct quant_allocation *a, const struct cli *c, const char *in, const char *out, struct err *e) MUST_USE;
/* allocation_print - for the plan. pass: seconds of one pass of the calibration text; not known: not above 0 */
void allocation_print(const struct quant_allocation *a, double pass, bool (*put)(const char *fmt, ...));
void allocation_close(struct quant_allocation *a); /* accepts a zeroed one */

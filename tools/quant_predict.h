/* quant_predict - what calibrating and solving will cost, before either: one window through two layers, the Hessians of what they show, and a few rows of
 * each kind of matrix on a piece of them, timed here and now and multiplied up. Takes a second or two, some more for large models. */
#pragma once
#include "quant/quant.h"
#include "tools/calibrate.h"

struct quant_cost {
    double calibrate, solve;   /* seconds; < 0: not known */
    size_t bytes;              /* memory besides the model, which is mapped, and besides what the quantization itself takes */
    size_t mapped;             /* of the model's files */
};
/* quant_predict - solves: by --method gptq; else the importance alone. corrects: as quant_solve.correct is not 0. k as calibration_open left
 * it (its states are overwritten). isa as in quant_options. Errors of models and memory. */
status quant_predict(struct calibration *k, struct quant_plan *p, bool solves, bool corrects, const char *isa, struct quant_cost *out, struct err *e) MUST_USE;

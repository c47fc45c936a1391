/* recorded - a model's equations recorded once as a whole, for no run, and which operands lie in the file: what reads transforms off the equations
 * (fold.c, rotate.c) instead of knowing architectures. For src/ only. */
#pragma once
#include "ggml-like/kernels/kernels.h"
#include "src/model_int.h"

/* An op's operand that lies in the file: elements or, of a matrix, rows first .. first + n of w. */
struct use {
    int32_t op;
    int src;
    const struct tensor *w;
    int64_t first, n;
};

struct recorded {
    const struct model *m;
    struct kernels k;
    struct plan p;
    struct arena mem;
    val stream;               /* what the first layer reads */
    int32_t *end;             /* [n_layer + 1] ops of the embedding, of the layers; behind them: of the head */
    int32_t *maker;           /* [n_val] the op that writes it, -1 */
    struct use *use;
    int n_uses;
};
/* recorded_open - of a model that stays open; on failure there is still something to close. */
status recorded_open(struct recorded *r, const struct model *m, struct err *e) MUST_USE;
void recorded_close(struct recorded *r);
const struct use *recorded_use(const struct recorded *r, int32_t op, int src); /* NULL: does not lie in the file */
/* recorded_input - what a product with a matrix multiplies, VAL_NONE for other ops. recorded_form - does the op only bring such an input into another form? */
val recorded_input(const struct op *op);
bool recorded_form(const struct op *op);

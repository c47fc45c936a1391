/* ops_dropout - elements left out at random. Which ones follows from three numbers, the pass's draw, the op's, and the element's place, so that passes
 * that are run again, backward passes and runs that go on from a checkpoint leave out the same. */
#include "ggml-like/grad.h"
#include "ggml-like/ops_int.h"

val op_dropout(struct plan *p, val x, float rate, uint32_t draw)
{
    val y = op_like(p, x);
    struct op *op = plan_op(p, OP_DROPOUT, y, x, VAL_NONE, VAL_NONE);
    op->arg.dropout.rate = rate;
    op->arg.dropout.draw = draw;
    return y;
}

void op_run_dropout(const struct op_run *r, const struct op *op)
{
    const float *x = op_data(r, op->src[0]), keep = 1 - op->arg.dropout.rate;
    float *y = op_data(r, op->dst);
    int64_t begin, n;
    if (!op_flat(r, op, &begin, &n)) return;
    if (r->x->batch->draw == 0) {
        if (x != y) memcpy(y + begin, x + begin, (size_t)n * sizeof *y);
        return;
    }
    uint64_t seed = mix64(r->x->batch->draw ^ mix64(op->arg.dropout.draw + 1u));
    uint32_t limit = (uint32_t)((double)keep * 4294967295.0);
    for (int64_t i = begin; i < begin + n; i++) {
        bool stays = (uint32_t)(mix64_nth(seed, (uint64_t)i) >> 32) < limit;
        y[i] = stays ? x[i] / keep : 0.0f;
    }
}

void op_back_dropout(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], op_dropout(grad_plan(g), dy, op->arg.dropout.rate, op->arg.dropout.draw));
}

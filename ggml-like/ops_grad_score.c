/* ops_grad_score - the gradient of scores: dx = sum over the vocabulary of weight (softmax - onehot) W, a part of the vocabulary at a time. Of each the logits
 * are computed once more, with the bits of the score, and leave as tiles of coefficients; a matmul_t adds what they make of the matrix. So there is never
 * a row of logits, nor a partial sum for each thread. */
#include "ggml-like/ops_grad.h"

/* Of 262k words 16 parts, of 49k 6: as many pairs of ops, and 4 to 8 MiB of coefficients */
enum { PART_MIN = 8192, PARTS = 16 };

static int64_t part_of(int64_t n_vocab)
{
    int64_t n = (n_vocab + PARTS - 1) / PARTS;
    return max_i64(PART_MIN, (n + SCORE_CHUNK - 1) / SCORE_CHUNK * SCORE_CHUNK);
}

/* Rows first .. first + n of what the matrix's gradient is added to. */
static val rows_from(struct plan *p, val to, int64_t first, int64_t n)
{
    struct tensor t = *op_shape(p, to);
    t.data = (uint8_t *)t.data + (size_t)first * t.nb[1];
    t.ne[1] = n;
    return plan_weight(p, &t);
}

val op_score_grad(struct plan *p, const struct op *score, val to)
{
    const struct op s = *score; /* recording moves it */
    const struct tensor *w = op_shape(p, s.src[0]), *x = op_shape(p, s.src[2]);
    enum act_form form = op_grad_form(p);
    int64_t rows = x->ne[1], n_vocab = s.arg.score.n_vocab, step = part_of(n_vocab);
    val sums = VAL_NONE, q = op_quantized(p, s.src[2], op_act_form(p, w->type));
    for (int32_t i = 0; i < p->n_op && sums == VAL_NONE; i++)
        if (p->op[i].kind == OP_SCORE_SUM && p->op[i].src[0] == s.dst) sums = p->op[i].dst;
    assert(sums != VAL_NONE);
    val dx = plan_temp(p, op_shape(p, s.src[0])->ne[0], rows);
    val g = to == VAL_NONE ? plan_temp_bytes(p, act_panel_bytes(p->k, min_i64(step, n_vocab), plan_room(p, rows), form)) : VAL_NONE;
    for (int64_t first = 0; first < n_vocab; first += step) {
        int64_t n = min_i64(step, n_vocab - first);
        val rows_g = to == VAL_NONE ? VAL_NONE : plan_temp(p, n, rows); /* the matrix's own gradient reads them as they are */
        struct op *op = plan_op(p, OP_SCORE_GRAD, to == VAL_NONE ? g : rows_g, s.src[0], q, s.src[2]);
        op->arg.score = s.arg.score;
        op->arg.score.first = first, op->arg.score.n = n, op->arg.score.floats = to != VAL_NONE;
        op->src[3] = sums;
        p->val[sums].last = p->n_op - 1;
        if (to != VAL_NONE) op_outer(p, rows_g, s.src[2], rows_from(p, to, first, n));
        op = plan_op(p, OP_MATMUL_T, dx, s.src[0], to == VAL_NONE ? g : op_packed(p, rows_g, form), VAL_NONE);
        op->arg.part.first = first, op->arg.part.n = n, op->arg.part.add = first > 0;
    }
    return dx;
}

/* n logits of a row to the coefficients of their matrix rows. target: of them, or outside; bend: room for a row. */
static void coefficients(const struct kernels *k, float *y, int64_t n, double lse, int64_t target, float weight, const struct op *op, float *bend)
{
    float scale = op->arg.score.scale, cap = op->arg.score.cap;
    if (weight == 0) {
        memset(y, 0, (size_t)n * sizeof *y);
        return;
    }
    if (cap > 0) { /* (y / cap)^2: the slope of the cap is 1 less that */
        k->scale(bend, y, 1 / cap, n);
        k->mul(bend, bend, bend, n);
    }
    k->exp_sum(y, y, (float)lse, n);
    if (target >= 0 && target < n) y[target] -= 1;
    k->scale(y, y, weight * (scale != 0 ? scale : 1), n);
    if (cap <= 0) return;
    k->mul(bend, bend, y, n);
    k->axpy(y, bend, -1, n);
}

void op_run_score_grad(const struct op_run *r, const struct op *op)
{
    const struct batch *b = r->x->batch;
    int64_t rows = op_shape(r->x->plan, op->src[2])->ne[1], first = op->arg.score.first, n = op->arg.score.n, nt = r->k->tile_tokens;
    const double *lse = (const double *)op_data(r, op->src[3]) + rows;
    float *buf = (float *)(void *)((uint8_t *)r->scratch + plan_panel_bytes()), *bend = buf + SCORE_ROWS * SCORE_CHUNK;
    struct act_panel g = op_acts(r, op->dst, n, rows, op_grad_form(r->x->plan)); /* unless they stay floats */
    for (int64_t c, end; op_take(r, (n + SCORE_CHUNK - 1) / SCORE_CHUNK, 1, &c, &end);) {
        int64_t at = c * SCORE_CHUNK, m = min_i64(SCORE_CHUNK, n - at);
        struct act_panel part = g; /* columns at .. at + m of every tile */
        part.k = m;
        part.data += (size_t)(at * nt) * op_form_bytes(g.form);
        op_logits(r, op, first + at, m, buf);
        for (int64_t t = 0; t < rows; t++)
            coefficients(r->k, buf + t * SCORE_CHUNK, m, lse[t], b->target[t] - first - at, b->weight[t], op, bend);
        for (int64_t t = 0; op->arg.score.floats && t < rows; t++)
            memcpy((float *)op_data(r, op->dst) + t * n + at, buf + t * SCORE_CHUNK, (size_t)m * sizeof *buf);
        for (int64_t t = 0; !op->arg.score.floats && t < rows; t += nt) {
            const float *x[TILE_TOKENS_MAX];
            int tokens = (int)min_i64(nt, rows - t);
            for (int i = 0; i < tokens; i++) x[i] = buf + (t + i) * SCORE_CHUNK;
            op_fill_tile(r, &part, t / nt, x, tokens);
        }
    }
}

/* ops_grad_score - the gradient of scores: dx = sum over the vocabulary of weight (softmax - onehot) W. The coefficients are what the score kept (25 MiB of
 * 256 rows and 49k words: a third of the time of the head), each row times a factor, a piece at a time; or, a part of the vocabulary at a time, the logits
 * are computed once more, with the bits of the score, and a matmul_t adds what they make of the matrix. Then the rows of the targets are taken off. */
#include "ggml-like/ops_grad.h"
#include <math.h>

/* Of 262k words 16 parts, of 49k 6: as many pairs of ops, and 4 to 8 MiB of coefficients */
enum { PART_MIN = 8192, PARTS = 16, PIECE = 2 * SCORE_CHUNK /* of what was kept */ };

static int64_t part_of(int64_t n_vocab)
{
    int64_t n = (n_vocab + PARTS - 1) / PARTS;
    return max_i64(PART_MIN, (n + PIECE - 1) / PIECE * PIECE); /* sums of pieces either way */
}

/* Rows first .. first + n of what the matrix's gradient is added to. */
static val rows_from(struct plan *p, val to, int64_t first, int64_t n)
{
    struct tensor t = *op_shape(p, to);
    t.data = (uint8_t *)t.data + (size_t)first * t.nb[1];
    t.ne[1] = n;
    return plan_weight(p, &t);
}

static void record(struct plan *p, const struct op *s, val g, val q, val sums, int64_t first, int64_t n)
{
    struct op *op = plan_op(p, OP_SCORE_GRAD, g, s->src[0], q, s->src[2]);
    op->arg = s->arg;
    op->arg.score.first = first, op->arg.score.n = n;
    op->src[3] = sums, op->src[4] = s->dst;
    p->val[sums].last = p->val[s->dst].last = p->n_op - 1;
}

/* A part of the vocabulary after the other: coefficients, and what they make of the matrix; floats: and of its gradient. */
static void record_parts(struct plan *p, const struct op *s, val dx, val sums, val to)
{
    enum act_form form = op_grad_form(p);
    int64_t rows = op_shape(p, dx)->ne[1], n_vocab = s->arg.score.n_vocab, step = part_of(n_vocab);
    val q = op_quantized(p, s->src[2], op_act_form(p, op_shape(p, s->src[0])->type)), g = VAL_NONE;
    if (to == VAL_NONE) g = plan_temp_bytes(p, act_panel_bytes(p->k, min_i64(step, n_vocab), plan_room(p, rows), form));
    for (int64_t first = 0; first < n_vocab; first += step) {
        int64_t n = min_i64(step, n_vocab - first);
        val own = to == VAL_NONE ? g : plan_temp(p, n, rows); /* the matrix's own gradient reads them as they are */
        record(p, s, own, q, sums, first, n);
        if (to != VAL_NONE) op_outer(p, own, s->src[2], rows_from(p, to, first, n));
        struct op *op = plan_op(p, OP_MATMUL_T, dx, s->src[0], to == VAL_NONE ? g : op_packed(p, own, form), VAL_NONE);
        op->arg.part.first = first, op->arg.part.n = n, op->arg.part.add = first > 0;
    }
}

val op_score_grad(struct plan *p, const struct op *score, val to)
{
    struct op s = *score, *writer = NULL;
    int64_t rows = op_shape(p, s.src[2])->ne[1];
    bool pairs = op_grad_form(p) == ACT_BF16 && to == VAL_NONE;
    val sums = VAL_NONE;
    for (int32_t i = 0; i < p->n_op; i++) {
        if (p->op[i].kind == OP_SCORE && p->op[i].dst == s.dst) writer = &p->op[i];
        if (p->op[i].kind == OP_SCORE_SUM && p->op[i].src[0] == s.dst) sums = p->op[i].dst;
    }
    assert(writer && sums != VAL_NONE);
    if (pairs && act_panel_bytes(p->k, s.arg.score.n_vocab, plan_room(p, rows), ACT_BF16) <= p->score_room) op_score_keep(p, writer);
    s.arg.score.keep = writer->arg.score.keep, s.arg.score.floats = to != VAL_NONE;
    val dx = plan_temp(p, op_shape(p, s.src[0])->ne[0], rows);
    if (s.arg.score.keep) record(p, &s, dx, VAL_NONE, sums, 0, s.arg.score.n_vocab);
    else record_parts(p, &s, dx, sums, to);
    if (to == VAL_NONE) plan_op(p, OP_SCORE_TARGETS, dx, s.src[0], s.dst, VAL_NONE)->arg = s.arg;
    return dx;
}

static float factor_of(const struct op *op, float weight) { return weight * (op->arg.score.scale != 0 ? op->arg.score.scale : 1); }

/* n logits of a row to the coefficients of their matrix rows; a target outside of them has its part added later. */
static void coefficients(const struct kernels *k, const struct op *op, float *y, int64_t n, double lse, int64_t target, float weight)
{
    float cap = op->arg.score.cap, bend[SCORE_CHUNK];
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
    k->scale(y, y, factor_of(op, weight), n);
    if (cap <= 0) return;
    k->mul(bend, bend, y, n);
    k->axpy(y, bend, -1, n);
}

/* m columns of the tiles of g from `at` on: the terms exp(y - max) in those of x from `from` on, chunk `c` of the vocabulary, each row times its factor.
 * Rows t0 .. t1, of whole tiles; g begins with t0. */
static void scale_terms(const struct op_run *r, const struct op *op, const struct act_panel *x, int64_t from, const struct act_panel *g, int64_t at, int64_t m,
                        int64_t c, int64_t t0, int64_t t1)
{
    const struct batch *b = r->x->batch;
    int64_t rows = op_shape(r->x->plan, op->src[2])->ne[1], nt = r->k->tile_tokens;
    const double *lse = (const double *)op_data(r, op->src[3]) + rows;
    const struct score_part *part = (const struct score_part *)op_data(r, op->src[4]) + c * rows;
    for (int64_t t = t0; t < t1; t += nt) {
        float f[TILE_TOKENS_MAX] = { 0 };
        for (int64_t i = 0; i < nt && t + i < t1; i++)
            if (b->weight[t + i] != 0) f[i] = factor_of(op, b->weight[t + i]) * (float)exp((double)part[t + i].max - lse[t + i]);
        const uint16_t *terms = (const uint16_t *)(const void *)(x->data + (size_t)(t / nt) * x->tile_bytes) + from * nt;
        uint16_t *to = (uint16_t *)(void *)(g->data + (size_t)((t - t0) / nt) * g->tile_bytes) + at * nt;
        r->k->scale_tile_bf16(r->k, to, terms, f, m);
    }
}

/* Of what was kept, a piece at a time: it stays in the cache while it is multiplied. */
static void multiply_kept(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[0]);
    int64_t rows = op_shape(r->x->plan, op->src[2])->ne[1], n_vocab = op->arg.score.n_vocab, nt = r->k->tile_tokens, k = w->ne[0];
    struct act_panel kept = op_score_kept(r, op->src[4], n_vocab, rows), g = { .form = ACT_BF16, .data = (uint8_t *)r->scratch + op_transposed_bytes() };
    struct t_cut c = op_t_cut(r, w, rows);
    float *y = op_data(r, op->dst);
    g.tile_bytes = (size_t)(PIECE * nt) * sizeof(uint16_t) + 64;
    for (int64_t item, end; op_take(r, c.blocks * c.splits, 1, &item, &end);) {
        int64_t col = item / c.splits * c.width, t0 = item % c.splits * c.tiles * nt, t1 = min_i64(t0 + c.tiles * nt, rows);
        for (int64_t first = 0; first < n_vocab && t0 < t1; first += PIECE) {
            g.k = min_i64(PIECE, n_vocab - first);
            for (int64_t at = 0; at < g.k; at += SCORE_CHUNK)
                scale_terms(r, op, &kept, first + at, &g, at, min_i64(SCORE_CHUNK, g.k - at), (first + at) / SCORE_CHUNK, t0, t1);
            const uint8_t *data = (const uint8_t *)w->data + (size_t)first * w->nb[1];
            op_transposed(r, w, data, g.k, &g, 0, t1 - t0, col, min_i64(c.width, k - col), y + t0 * k, k, first > 0);
        }
    }
}

void op_run_score_grad(const struct op_run *r, const struct op *op)
{
    int64_t rows = op_shape(r->x->plan, op->src[2])->ne[1], first = op->arg.score.first, n = op->arg.score.n;
    const double *lse = (const double *)op_data(r, op->src[3]) + rows;
    float *buf = (float *)(void *)((uint8_t *)r->scratch + plan_panel_bytes());
    if (op->arg.score.keep) {
        multiply_kept(r, op);
        return;
    }
    bool floats = op->arg.score.floats;
    struct act_panel g = op_acts(r, op->dst, n, rows, op_grad_form(r->x->plan)); /* unless they stay floats */
    for (int64_t c, end; op_take(r, (n + SCORE_CHUNK - 1) / SCORE_CHUNK, 1, &c, &end);) {
        int64_t at = c * SCORE_CHUNK, m = min_i64(SCORE_CHUNK, n - at);
        op_logits(r, op, first + at, m, buf);
        for (int64_t t = 0; t < rows; t++) {
            float *y = buf + t * SCORE_CHUNK;
            int64_t target = floats ? r->x->batch->target[t] - first - at : -1;
            if (g.form == ACT_BF16 && !floats) (void)op_score_terms(r->k, y, m, op->arg.score.cap);
            else coefficients(r->k, op, y, m, lse[t], target, r->x->batch->weight[t]);
            if (floats) memcpy((float *)op_data(r, op->dst) + t * n + at, y, (size_t)m * sizeof *y);
        }
        if (floats) continue;
        op_tiles_part(r, &g, at, m, rows, buf);
        if (g.form == ACT_BF16) scale_terms(r, op, &g, at, &g, at, m, (first + at) / SCORE_CHUNK, 0, rows); /* the bits of what would have been kept */
    }
}

size_t op_score_grad_bytes(void)
{
    return op_transposed_bytes() + (SCORE_ROWS + TILE_TOKENS_MAX) * (PIECE * sizeof(uint16_t) + 64);
}

/* dx -= the rows of the targets, as exactly as f32 can. */
void op_run_score_targets(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[0]), *t = op_shape(r->x->plan, op->dst);
    const struct score_part *parts = op_data(r, op->src[1]);
    const struct batch *b = r->x->batch;
    float *dx = op_data(r, op->dst), cap = op->arg.score.cap, row[BLOCK_MAX];
    int64_t begin, end;
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        float u = cap > 0 ? parts[b->target[i] / SCORE_CHUNK * t->ne[1] + i].target / cap : 0, f = -factor_of(op, b->weight[i]) * (1 - u * u);
        const uint8_t *data = (const uint8_t *)w->data + (size_t)b->target[i] * w->nb[1];
        for (int64_t c = 0; c < t->ne[0] && f != 0; c += BLOCK_MAX) {
            int64_t n = min_i64(BLOCK_MAX, t->ne[0] - c);
            kernels_to_f32(r->k, w->type, data + dtype_row_bytes(w->type, c), row, n);
            r->k->axpy(dx + i * t->ne[0] + c, row, f, n);
        }
    }
}

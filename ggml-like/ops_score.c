/* ops_score - how well rows predict given tokens: -ln softmax(w x)[target] without rows of logits. A chunk of the vocabulary is multiplied by all
 * rows into a small buffer of the thread, of which a maximum, a sum and perhaps the target's logit are kept; then the chunks are put together in
 * order, so that neither threads nor the number of rows change a bit. Milakov & Gimelshein 2018.
 * The matrix is unpacked once for SCORE_ROWS rows: blocks of 32 MiB of logits were 32 rows of a 262k vocabulary, a tenth of the time. */
#include "ggml-like/ops_int.h"
#include <math.h>

static int64_t chunks_of(int64_t n_vocab) { return (n_vocab + SCORE_CHUNK - 1) / SCORE_CHUNK; }

val op_score(struct plan *p, val w, val x, int64_t n_vocab, float scale, float cap)
{
    int64_t rows = op_shape(p, x)->ne[1];
    assert(op_shape(p, w)->ne[0] == op_shape(p, x)->ne[0] && n_vocab <= op_shape(p, w)->ne[1] && rows >= 1 && rows <= SCORE_ROWS);
    val q = op_quantized(p, x, op_act_form(p, op_shape(p, w)->type));
    val parts = plan_temp_bytes(p, (size_t)(chunks_of(n_vocab) * plan_room(p, rows)) * sizeof(struct score_part));
    val y = plan_temp_bytes(p, 2 * (size_t)plan_room(p, rows) * sizeof(double));
    struct op *op = plan_op(p, OP_SCORE, parts, w, q, x);
    op->arg.score.n_vocab = n_vocab, op->arg.score.scale = scale, op->arg.score.cap = cap;
    plan_op(p, OP_SCORE_SUM, y, parts, x, VAL_NONE)->arg.score.n_vocab = n_vocab;
    return y;
}

void op_score_keep(struct plan *p, struct op *score)
{
    struct value *parts = &p->val[score->dst];
    score->arg.score.keep = true;
    parts->bytes += act_panel_bytes(p->k, score->arg.score.n_vocab, plan_room(p, op_shape(p, score->src[2])->ne[1]), ACT_BF16);
}

struct act_panel op_score_kept(const struct op_run *r, val parts, int64_t n_vocab, int64_t rows)
{
    const struct plan *p = r->x->plan;
    struct act_panel kept;
    uint8_t *data = op_data(r, parts);
    data += p->val[parts].bytes - act_panel_bytes(p->k, n_vocab, plan_room(p, rows), ACT_BF16);
    act_panel_place(r->k, &kept, data, n_vocab, rows, ACT_BF16);
    return kept;
}

/* A chunk may hold nothing but -inf, whose sum is 0; NaN stays NaN, so that the result shows it. e: where the terms go, or NULL */
static struct score_part part_of(const struct kernels *k, const float *x, int64_t n, float *e)
{
    struct score_part s = { .max = k->max(x, n, NULL) };
    if (s.max > -INFINITY) s.sum = k->exp_sum(e, x, s.max, n);
    else
        for (int64_t i = 0; i < n; i++) {
            float v = isnan(x[i]) ? NAN : 0;
            s.sum += (double)v;
            if (e) e[i] = v;
        }
    return s;
}

struct score_part op_score_terms(const struct kernels *k, float *y, int64_t n, float cap)
{
    float bend[SCORE_CHUNK];
    if (cap > 0) {
        k->scale(bend, y, 1 / cap, n);
        k->mul(bend, bend, bend, n);
    }
    struct score_part s = part_of(k, y, n, y);
    if (cap > 0) {
        k->mul(bend, bend, y, n);
        k->axpy(y, bend, -1, n);
    }
    return s;
}

void op_tiles_part(const struct op_run *r, const struct act_panel *to, int64_t at, int64_t n, int64_t rows, const float *x)
{
    struct act_panel part = *to; /* its columns at .. at + n */
    int nt = r->k->tile_tokens;
    part.k = n;
    part.data += (size_t)(at * nt) * (to->form == ACT_BF16 ? sizeof(uint16_t) : sizeof(float));
    for (int64_t t = 0; t < rows; t += nt) {
        const float *row[TILE_TOKENS_MAX];
        int m = (int)min_i64(nt, rows - t);
        for (int i = 0; i < m; i++) row[i] = x + (t + i) * SCORE_CHUNK;
        op_fill_tile(r, &part, t / nt, row, m);
    }
}

void op_logits(const struct op_run *r, const struct op *op, int64_t first, int64_t n, float *y)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[0]);
    const uint8_t *data = (const uint8_t *)w->data + (size_t)first * w->nb[1];
    int64_t rows = op_shape(r->x->plan, op->src[2])->ne[1];
    float scale = op->arg.score.scale, cap = op->arg.score.cap;
    struct act_panel x = { 0 };
    if (op_by_rows(r->x->plan, rows)) {
        for (int64_t t = 0; t < rows; t++) {
            struct act_row a = op_act_row(r, op->src[1], w, t);
            kernels_dots(r->k, w->type, y + t * SCORE_CHUNK, data, w->nb[1], n, &a, w->ne[0]);
        }
    } else {
        x = op_acts(r, op->src[1], w->ne[0], rows, op_act_form(r->x->plan, w->type));
        int64_t unit = op_panel_rows(r->k, x.form, rows);
        for (int64_t i = 0; i < n; i += unit)
            op_panel_matmul(r, w, data, n, op_rows_soon(w, data, n, i + unit, unit), &x, 0, rows, i, unit, y, SCORE_CHUNK, false);
    }
    for (int64_t t = 0; t < rows; t++, y += SCORE_CHUNK) {
        if (scale != 0) r->k->scale(y, y, scale, n);
        if (cap > 0) r->k->softcap(y, y, cap, n);
    }
}

void op_run_score(const struct op_run *r, const struct op *op)
{
    const int32_t *target = r->x->batch->target;
    int64_t n_vocab = op->arg.score.n_vocab, rows = op_shape(r->x->plan, op->src[2])->ne[1];
    float *buf = (float *)((uint8_t *)r->scratch + plan_panel_bytes());
    struct score_part *parts = op_data(r, op->dst);
    for (int64_t c, end; op_take(r, chunks_of(n_vocab), 1, &c, &end);) {
        int64_t first = c * SCORE_CHUNK, n = min_i64(SCORE_CHUNK, n_vocab - first);
        op_logits(r, op, first, n, buf);
        for (int64_t t = 0; t < rows; t++) {
            float *y = buf + t * SCORE_CHUNK, wanted = target[t] >= first && target[t] < first + n ? y[target[t] - first] : 0;
            parts[c * rows + t] = op->arg.score.keep ? op_score_terms(r->k, y, n, op->arg.score.cap) : part_of(r->k, y, n, NULL);
            parts[c * rows + t].target = wanted;
        }
        if (!op->arg.score.keep) continue;
        struct act_panel kept = op_score_kept(r, op->dst, n_vocab, rows);
        op_tiles_part(r, &kept, first, n, rows, buf);
    }
}

void op_run_score_sum(const struct op_run *r, const struct op *op)
{
    int64_t rows = op_shape(r->x->plan, op->src[1])->ne[1], n = chunks_of(op->arg.score.n_vocab), begin, end;
    const struct score_part *parts = op_data(r, op->src[0]);
    double *y = op_data(r, op->dst);
    pool_range(rows, 1, r->ith, r->nth, &begin, &end);
    for (int64_t t = begin; t < end; t++) {
        float max = -INFINITY;
        double sum = 0;
        for (int64_t c = 0; c < n; c++)
            if (parts[c * rows + t].max > max) max = parts[c * rows + t].max;
        for (int64_t c = 0; c < n; c++) {
            const struct score_part *s = &parts[c * rows + t];
            sum += s->sum * (s->max == max ? 1 : s->max > -INFINITY ? exp((double)s->max - (double)max) : 1);
        }
        y[rows + t] = (double)max + log(sum); /* for the gradient */
        y[t] = y[rows + t] - (double)parts[r->x->batch->target[t] / SCORE_CHUNK * rows + t].target;
    }
}

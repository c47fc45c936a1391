/* ops_grad_moe - gradients of mixtures of experts. Pairs of a row and one of its experts stand sorted by expert, as in the forward pass. */
#include "ggml-like/ops_grad.h"
#include "ggml-like/ops_moe.h"

/* ---- recording ---- */

static val sorted_like(struct plan *p, val route, int64_t n)
{
    val y = plan_temp_rows(p, n, op_shape(p, route)->ne[1], p->val[route].per_row);
    p->val[y].sorted = true;
    return y;
}

val op_moe_spread(struct plan *p, val x, val route, bool plain)
{
    val y = sorted_like(p, route, op_shape(p, x)->ne[0]);
    plan_op(p, OP_MOE_SPREAD, y, x, route, VAL_NONE)->arg.pairs.plain = plain;
    return y;
}

val op_moe_weight_grad(struct plan *p, val dy, val x, val route)
{
    val y = plan_temp(p, p->val[route].per_row, op_shape(p, route)->ne[1]);
    plan_op(p, OP_MOE_WEIGHT_GRAD, y, dy, x, route);
    return y;
}

val op_route_grad(struct plan *p, val dweight, val logits, val route, const struct route_spec *s)
{
    val y = op_like(p, logits);
    plan_op(p, OP_ROUTE_GRAD, y, dweight, logits, route)->arg.route = *s;
    return y;
}

val op_moe_transposed(struct plan *p, val w, val dy, val route)
{
    assert(p->val[dy].sorted && op_shape(p, w)->ne[1] == op_shape(p, dy)->ne[0] && op_shape(p, w)->ne[2] == op_shape(p, route)->ne[0]);
    val q = op_moe_packed(p, dy, route, op_grad_form(p)), y = sorted_like(p, route, op_shape(p, w)->ne[0]);
    plan_op(p, OP_MOE_MATMUL_T, y, w, q, route);
    return y;
}

void op_moe_outer(struct plan *p, val dy, val x, val route, val to)
{
    assert(p->val[dy].sorted && p->val[x].sorted && op_shape(p, to)->ne[0] == op_shape(p, x)->ne[0] && op_shape(p, to)->ne[1] == op_shape(p, dy)->ne[0]);
    plan_op(p, OP_MOE_OUTER, VAL_NONE, dy, x, route)->src[3] = to;
    p->val[to].last = p->n_op - 1;
}

/* ---- rows ---- */

static float pair_weight(const struct route *t, int64_t n_used, int64_t pair)
{
    int64_t i = t->row[pair] * n_used;
    while (t->at[i] != pair) i++;
    return t->weight[i];
}

void op_run_moe_spread(const struct op_run *r, const struct op *op)
{
    struct route route = op_route_of(r, op->src[1]);
    int64_t n = op_shape(r->x->plan, op->dst)->ne[0], begin, end;
    const float *x = op_data(r, op->src[0]);
    float *y = op_data(r, op->dst);
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const float *from = x + route.row[i] * n;
        if (op->arg.pairs.plain) memcpy(y + i * n, from, (size_t)n * sizeof *y);
        else r->k->scale(y + i * n, from, pair_weight(&route, r->x->plan->val[op->src[1]].per_row, i), n);
    }
}

void op_run_moe_weight_grad(const struct op_run *r, const struct op *op)
{
    struct route route = op_route_of(r, op->src[2]);
    int64_t n = op_shape(r->x->plan, op->src[0])->ne[0], n_used = r->x->plan->val[op->src[2]].per_row, begin, end;
    const float *dy = op_data(r, op->src[0]), *x = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    pool_range(route.n_pairs, 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) y[i] = r->k->dot(dy + i / n_used * n, x + route.at[i] * n, n);
}

/* ---- the router ---- */

/* One row, its experts in the order of their choice: d is what comes in by weight, and goes out by score (the logit where scores are logits). */
struct routed {
    int64_t n_used;
    const int32_t *id;
    float *score, *d, *dx;
};

/* Through scale and norm: w = scale s / max(sum s, floor). */
static void weights_to_scores(const struct route_spec *s, const struct routed *c, const float *chosen)
{
    float scale = s->scale > 0 ? s->scale : 1, sum = 0, inner = 0;
    for (int64_t i = 0; i < c->n_used; i++) sum += chosen[i], inner += c->d[i] * chosen[i];
    if (s->func == ROUTE_SOFTMAX_CHOSEN || !s->norm) sum = 1, inner = 0;
    else if (sum <= ROUTE_FLOOR) sum = ROUTE_FLOOR, inner = 0;
    for (int64_t i = 0; i < c->n_used; i++) c->d[i] = scale * (c->d[i] - inner / sum) / sum;
}

/* y = softmax over some logits, of which only y[best] has a gradient d: of logit j it is d y[best] ((j is best) - y[j]). */
static void sparse_mixer(const struct route_spec *s, const struct routed *c, const float *chosen)
{
    for (int64_t i = 0; i < c->n_used; i++) {
        float top = c->score[c->id[i]];
        for (int64_t j = 0; j < s->n_expert; j++) {
            bool before = false;
            for (int64_t k = 0; k < i; k++) before |= c->id[k] == j;
            if (before || !op_near_best(top, c->score[j])) continue;
            c->dx[j] += c->d[i] * chosen[i] * ((j == c->id[i]) - chosen[i] * expf(c->score[j] - top));
        }
    }
}

static void scores_to_logits(const struct route_spec *s, const struct routed *c, const float *chosen)
{
    float inner = 0;
    for (int64_t i = 0; i < c->n_used; i++) inner += c->d[i] * chosen[i];
    if (s->func == ROUTE_SOFTMAX)
        for (int64_t j = 0; j < s->n_expert; j++) c->dx[j] = -inner * c->score[j];
    for (int64_t i = 0; i < c->n_used; i++) {
        float y = chosen[i];
        if (s->func == ROUTE_SIGMOID) c->dx[c->id[i]] += c->d[i] * y * (1 - y);
        else if (s->func == ROUTE_SOFTMAX) c->dx[c->id[i]] += c->d[i] * y;
        else c->dx[c->id[i]] += y * (c->d[i] - inner); /* softmax of the chosen */
    }
}

/* What the choice's weights were before norm and scale. */
static void chosen_scores(const struct route_spec *s, const struct routed *c, float *chosen)
{
    float sum = 0, top = -INFINITY;
    for (int64_t i = 0; i < c->n_used; i++) {
        float y = chosen[i] = c->score[c->id[i]];
        if (y > top) top = y;
    }
    for (int64_t i = 0; s->func == ROUTE_SOFTMAX_CHOSEN && i < c->n_used; i++) sum += chosen[i] = expf(chosen[i] - top);
    for (int64_t i = 0; s->func == ROUTE_SOFTMAX_CHOSEN && i < c->n_used; i++) chosen[i] /= sum;
    for (int64_t i = 0; s->func == ROUTE_SPARSE_MIXER && i < c->n_used; i++) {
        float near = 0, best = c->score[c->id[i]];
        for (int64_t j = 0; j < s->n_expert; j++) {
            bool before = false;
            for (int64_t k = 0; k < i; k++) before |= c->id[k] == j;
            if (!before && op_near_best(best, c->score[j])) near += expf(c->score[j] - best);
        }
        chosen[i] = 1 / near;
    }
}

void op_run_route_grad(const struct op_run *r, const struct op *op)
{
    const struct route_spec *s = &op->arg.route;
    struct route route = op_route_of(r, op->src[2]);
    const float *dw = op_data(r, op->src[0]), *logits = op_data(r, op->src[1]);
    float *out = op_data(r, op->dst), *chosen = (float *)r->scratch + s->n_expert;
    int32_t *id = (int32_t *)(chosen + s->n_used);
    struct routed c = { s->n_used, id, r->scratch, (float *)(id + s->n_used), NULL };
    int64_t begin, end;
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        c.dx = out + i * s->n_expert;
        memset(c.dx, 0, (size_t)s->n_expert * sizeof *c.dx);
        op_route_scores(r->k, s, logits + i * s->n_expert, c.score);
        for (int64_t u = 0; u < s->n_used; u++) id[u] = route.id[route.at[i * s->n_used + u]], c.d[u] = dw[i * s->n_used + u];
        chosen_scores(s, &c, chosen);
        weights_to_scores(s, &c, chosen);
        if (s->func == ROUTE_SPARSE_MIXER) sparse_mixer(s, &c, chosen);
        else scores_to_logits(s, &c, chosen);
    }
}

/* ---- matrices ---- */

void op_run_moe_matmul_t(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[0]);
    struct route route = op_route_of(r, op->src[2]);
    int32_t n_active = *route.n_active;
    if (op_shape(r->x->plan, op->dst)->ne[1] == 0) return;
    struct act_panel x = op_acts(r, op->src[1], w->ne[1], (int64_t)route.tile[n_active] * r->k->tile_tokens, op_grad_form(r->x->plan));
    struct t_cut c = op_t_cut(r, w, 1);
    float *y = op_data(r, op->dst);
    for (int64_t i, end; op_take(r, c.blocks * n_active, 1, &i, &end);) {
        int64_t e = i / c.blocks, col = i % c.blocks * c.width, first = route.start[e];
        op_transposed(r, w, (const uint8_t *)w->data + (size_t)route.expert[e] * w->nb[2], w->ne[1], &x, route.tile[e], route.start[e + 1] - first, col,
                      min_i64(c.width, w->ne[0] - col), y + first * w->ne[0], w->ne[0], false);
    }
}

void op_run_moe_outer(const struct op_run *r, const struct op *op)
{
    struct route route = op_route_of(r, op->src[2]);
    int64_t n = op_shape(r->x->plan, op->src[0])->ne[0], k = op_shape(r->x->plan, op->src[1])->ne[0], items = op_outer_items(r, n, k);
    const float *dy = op_data(r, op->src[0]), *x = op_data(r, op->src[1]);
    float *to = op_data(r, op->src[3]);
    for (int64_t i, end; op_take(r, items * *route.n_active, 1, &i, &end);) {
        int64_t e = i / items, first = route.start[e];
        struct op_outer_args o = { dy + first * n, x + first * k, n, k, route.start[e + 1] - first, n, k, to + route.expert[e] * n * k };
        op_outer_item(r, &o, i % items);
    }
}

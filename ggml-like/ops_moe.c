/* ops_moe - mixtures of experts. A router's choice is sorted by expert once; then each expert's matrix meets its own rows only: as tiles that
 * begin anew with every expert (several rows), or as single rows (one). */
#include "ggml-like/ops_moe.h"
#include <math.h>

/* ---- the choice ---- */

/* What OP_ROUTE writes, in the order of the rows. */
struct choice {
    int32_t *id; /* [rows][n_used] */
    float *weight;
};

static size_t choice_bytes(int64_t pairs) { return (size_t)pairs * (sizeof(int32_t) + sizeof(float)); }

static struct choice choice_at(void *p, int64_t pairs) { return (struct choice){ p, (float *)p + pairs }; }

val op_route(struct plan *p, val logits, val bias, const struct route_spec *s)
{
    int64_t rows = op_shape(p, logits)->ne[1], most = plan_room(p, rows) * s->n_used;
    assert(op_shape(p, logits)->ne[0] == s->n_expert && s->n_used >= 1 && s->n_used <= s->n_expert);
    val c = plan_temp_bytes(p, choice_bytes(most));
    plan_op(p, OP_ROUTE, c, logits, bias, VAL_NONE)->arg.route = *s;
    val y = plan_temp_bytes(p, op_route_bytes(s->n_expert, most));
    struct value *v = &p->val[y];
    v->t.ne[0] = s->n_expert;
    v->t.ne[1] = rows;
    v->per_row = s->n_used;
    struct op *op = plan_op(p, OP_MOE_SORT, y, c, VAL_NONE, VAL_NONE);
    op->arg.moe.n_expert = s->n_expert;
    op->arg.moe.n_used = s->n_used;
    return y;
}

/* The best of x[from, to), NaN elements left out; lowest index on a tie; -1 if none is left. */
static int64_t best_of(const float *x, int64_t from, int64_t to)
{
    int64_t best = -1;
    for (int64_t i = from; i < to; i++)
        if (!isnan(x[i]) && (best < 0 || x[i] > x[best])) best = i;
    return best;
}

static float group_rank(const struct route_spec *s, const float *rank, int64_t from, int64_t to)
{
    int64_t a = best_of(rank, from, to);
    if (a < 0) return -INFINITY;
    float second = -INFINITY;
    for (int64_t i = from; i < to; i++)
        if (i != a && rank[i] > second) second = rank[i];
    return s->best_one || to - from == 1 ? rank[a] : rank[a] + second;
}

/* Experts outside the best groups are out of the choice. */
static void keep_groups(const struct route_spec *s, float *rank, float *group)
{
    int64_t len = s->n_expert / s->n_group;
    for (int64_t g = 0; g < s->n_group; g++) group[g] = group_rank(s, rank, g * len, (g + 1) * len);
    for (int64_t n = 0; n < s->n_group_used; n++) {
        int64_t best = best_of(group, 0, s->n_group);
        if (best >= 0) group[best] = NAN; /* stays */
    }
    for (int64_t g = 0; g < s->n_group; g++)
        for (int64_t i = g * len; !isnan(group[g]) && i < (g + 1) * len; i++) rank[i] = -INFINITY;
}

/* Expert `best` of logits x; rank is NaN for those chosen before. */
static float sparse_mixer_weight(const float *x, const float *rank, int64_t n, int64_t best)
{
    float sum = 0, top = x[best];
    for (int64_t j = 0; j < n; j++)
        if (!isnan(rank[j]) && op_near_best(top, x[j])) sum += expf(x[j] - top);
    return 1 / sum;
}

/* One row: score is probabilities (logits for ROUTE_SOFTMAX_CHOSEN and ROUTE_SPARSE_MIXER), rank what the choice goes by. */
static void choose(const struct route_spec *s, const float *score, float *rank, int32_t *id, float *weight)
{
    float sum = 0, top = -INFINITY;
    for (int i = 0; i < s->n_used; i++) {
        int64_t best = best_of(rank, 0, s->n_expert);
        if (best < 0) best = i; /* a router that gives NaN: any choice, with a weight of NaN */
        id[i] = (int32_t)best;
        weight[i] = s->func == ROUTE_SPARSE_MIXER ? sparse_mixer_weight(score, rank, s->n_expert, best) : score[best];
        rank[best] = NAN;
        if (weight[i] > top) top = weight[i];
    }
    bool soft = s->func == ROUTE_SOFTMAX_CHOSEN;
    for (int i = 0; i < s->n_used; i++) sum += soft ? (weight[i] = expf(weight[i] - top)) : weight[i];
    float scale = s->scale > 0 ? s->scale : 1;
    if (soft) scale /= sum;
    else if (s->norm) scale /= fmaxf(sum, ROUTE_FLOOR); /* llama.cpp's floor, the smallest normal half */
    for (int i = 0; i < s->n_used; i++) weight[i] *= scale;
}

void op_route_scores(const struct kernels *k, const struct route_spec *s, const float *x, float *score)
{
    int64_t n = s->n_expert;
    float sum = 1;
    if (s->func == ROUTE_SOFTMAX) sum = (float)k->exp_sum(score, x, k->max(x, n, NULL), n);
    for (int64_t j = 0; j < n; j++) {
        if (s->func == ROUTE_SOFTMAX) score[j] /= sum;
        else score[j] = s->func == ROUTE_SIGMOID ? 1.0f / (1.0f + expf(-x[j])) : x[j];
    }
}

void op_run_route(const struct op_run *r, const struct op *op)
{
    const struct route_spec *s = &op->arg.route;
    int64_t rows = op_shape(r->x->plan, op->src[0])->ne[1], n = s->n_expert, begin, end;
    const float *logits = op_data(r, op->src[0]), *bias = op->src[1] == VAL_NONE ? NULL : op_data(r, op->src[1]);
    struct choice c = choice_at(op_data(r, op->dst), rows * s->n_used);
    float *score = r->scratch, *rank = score + n, *group = rank + n;
    pool_range(rows, 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        op_route_scores(r->k, s, logits + i * n, score);
        for (int64_t j = 0; j < n; j++) rank[j] = score[j] + (bias ? bias[j] : 0.0f);
        if (s->n_group > 1 && s->n_group_used < s->n_group) keep_groups(s, rank, group);
        choose(s, score, rank, c.id + i * s->n_used, c.weight + i * s->n_used);
    }
}

/* A counting sort by one thread: a pass has some thousand pairs. */
void op_run_moe_sort(const struct op_run *r, const struct op *op)
{
    if (r->ith != 0) return;
    struct route x = op_route_of(r, op->dst);
    struct choice c = choice_at(op_data(r, op->src[0]), x.n_pairs);
    int32_t *next = r->scratch, n_expert = op->arg.moe.n_expert, nt = r->k->tile_tokens;
    memset(next, 0, (size_t)n_expert * sizeof *next);
    for (int64_t i = 0; i < x.n_pairs; i++) next[c.id[i]]++;
    int32_t pairs = 0, tiles = 0, n = 0;
    for (int32_t e = 0; e < n_expert; e++) {
        int32_t count = next[e];
        next[e] = pairs;
        if (!count) continue;
        x.expert[n] = e;
        x.start[n] = pairs;
        x.tile[n++] = tiles;
        pairs += count;
        tiles += (count + nt - 1) / nt;
    }
    *x.n_active = n;
    x.start[n] = pairs;
    x.tile[n] = tiles;
    for (int64_t i = 0; i < x.n_pairs; i++) {
        int32_t at = next[c.id[i]]++;
        x.row[at] = (int32_t)(i / op->arg.moe.n_used);
        x.id[at] = c.id[i];
        x.at[i] = at;
        x.weight[i] = c.weight[i];
    }
}

/* ---- matrices ---- */

/* Tiles begin anew with each expert: at most NT - 1 rows are lost in each. */
static int64_t room_tokens(const struct plan *p, int64_t n_expert, int64_t pairs)
{
    int64_t nt = p->k->tile_tokens;
    return (pairs + nt * min_i64(n_expert, pairs) + nt - 1) / nt * nt;
}

val op_moe_packed(struct plan *p, val x, val route, enum act_form form)
{
    int64_t n_expert = op_shape(p, route)->ne[0], pairs = plan_room(p, op_shape(p, route)->ne[1]) * p->val[route].per_row;
    assert(act_is_float(form));
    val q = plan_temp_bytes(p, act_panel_bytes(p->k, op_shape(p, x)->ne[0], room_tokens(p, n_expert, pairs), form));
    plan_op(p, OP_MOE_QUANT, q, x, route, VAL_NONE)->arg.acts.form = form;
    return q;
}

/* The activations of all pairs. A single row is quantized once when all its experts read the same floats. */
static val routed_quant(struct plan *p, val x, val route, enum act_form form)
{
    const struct tensor *t = op_shape(p, x);
    int64_t k = t->ne[0], n_expert = op_shape(p, route)->ne[0], rows = op_shape(p, route)->ne[1], n_used = p->val[route].per_row;
    bool sorted = p->val[x].sorted;
    bool by_rows = op_by_rows(p, rows);
    if (by_rows && act_is_float(form)) return x;
    if (by_rows) form = ACT_8;
    if (by_rows && !sorted) return op_quantized(p, x, form);
    for (int32_t i = p->n_op - 1; i >= p->split && i > p->n_op - 16; i--)
        if (p->op[i].kind == OP_MOE_QUANT && p->op[i].src[0] == x && p->op[i].src[1] == route && p->op[i].arg.acts.form == (int32_t)form)
            return p->op[i].dst;
    size_t bytes = (size_t)(n_used * plan_room(p, rows)) * act_row_bytes(k);
    if (!by_rows) bytes = act_panel_bytes(p->k, k, room_tokens(p, n_expert, plan_room(p, rows) * n_used), form);
    val q = plan_temp_bytes(p, bytes);
    plan_op(p, OP_MOE_QUANT, q, x, route, VAL_NONE)->arg.acts.form = form;
    return q;
}

static val moe_matmul(struct plan *p, val w, val x, val route)
{
    const struct tensor *t = op_shape(p, w);
    int64_t n = t->ne[1], rows = op_shape(p, route)->ne[1];
    assert(t->ne[0] == op_shape(p, x)->ne[0] && t->ne[2] == op_shape(p, route)->ne[0]);
    assert(op_shape(p, x)->ne[1] == rows * (p->val[x].sorted ? p->val[route].per_row : 1));
    val q = routed_quant(p, x, route, op_act_form(p, t->type));
    val y = plan_temp_rows(p, n, rows, p->val[route].per_row);
    p->val[y].sorted = true;
    plan_op(p, OP_MOE_MATMUL, y, w, q, route)->src[3] = x;
    p->val[x].last = p->n_op - 1;
    return y;
}

val op_moe_matmul(struct plan *p, val w, val x, val route)
{
    val y = moe_matmul(p, w, x, route);
    for (val s = p->val[w].extra; s != VAL_NONE; s = p->val[s].extra) {
        assert(p->val[s].down != VAL_NONE);
        y = op_add(p, y, moe_matmul(p, s, op_scale(p, moe_matmul(p, p->val[s].down, x, route), p->val[s].scale), route));
    }
    return y;
}

void op_run_moe_quant(const struct op_run *r, const struct op *op)
{
    struct route route = op_route_of(r, op->src[1]);
    const struct value *from = &r->x->plan->val[op->src[0]];
    int64_t k = from->t.ne[0], rows = op_shape(r->x->plan, op->src[1])->ne[1];
    const float *x = op_data(r, op->src[0]), *row[TILE_TOKENS_MAX];
    if (op_by_rows(r->x->plan, rows) && !act_is_float((enum act_form)op->arg.acts.form)) {
        for (int64_t j = r->ith; j < route.n_pairs; j += r->nth) {
            struct act_row a;
            act_row_place(&a, (uint8_t *)op_data(r, op->dst) + (size_t)j * act_row_bytes(k), k);
            r->k->quant_row(&a, x + j * k, k);
        }
        return;
    }
    int32_t nt = r->k->tile_tokens, n = *route.n_active, e = 0;
    struct act_panel q = op_acts(r, op->dst, k, (int64_t)route.tile[n] * nt, op->arg.acts.form);
    for (int64_t begin, end; op_take(r, route.tile[n], 2, &begin, &end);)
        for (int64_t i = begin; i < end; i++) {
            while (route.tile[e] > i) e--; /* a part of another thread may lie before our own */
            while (route.tile[e + 1] <= i) e++;
            int32_t first = route.start[e] + (int32_t)(i - route.tile[e]) * nt, m = route.start[e + 1] - first;
            if (m > nt) m = nt;
            for (int32_t j = 0; j < m; j++) row[j] = x + (from->sorted ? first + j : route.row[first + j]) * k;
            op_fill_tile(r, &q, i, row, m);
        }
}

/* One row: its n_used experts, each a matrix times one vector. Chunks as in a plain matmul. */
static void moe_single(const struct op_run *r, const struct op *op, const struct tensor *w, const struct route *route, float *y)
{
    bool f32 = op_is_float(w->type), own = r->x->plan->val[op->src[3]].sorted;
    int64_t n = w->ne[1], chunk = op_row_chunk(r, w);
    int64_t chunks = (n + chunk - 1) / chunk;
    const uint8_t *a = op_data(r, op->src[1]);
    for (int64_t i, end; op_take(r, chunks * route->n_pairs, 1, &i, &end);) {
        int64_t j = i / chunks, from = i % chunks * chunk, to = min_i64(n, from + chunk);
        struct act_row x = { .k = w->ne[0] };
        if (f32) x.f32 = (const float *)(const void *)a + (own ? j : route->row[j]) * w->ne[0];
        else act_row_place(&x, (void *)(uintptr_t)(a + (size_t)(own ? j : route->row[j]) * act_row_bytes(w->ne[0])), w->ne[0]);
        const uint8_t *rows = (const uint8_t *)w->data + (size_t)route->id[j] * w->nb[2] + (size_t)from * w->nb[1];
        kernels_dots(r->k, w->type, y + j * n + from, rows, w->nb[1], to - from, &x, w->ne[0]);
    }
}

void op_run_moe_matmul(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[0]);
    struct route route = op_route_of(r, op->src[2]);
    float *y = op_data(r, op->dst);
    int64_t rows = op_shape(r->x->plan, op->src[2])->ne[1], n = w->ne[1];
    if (rows == 0) return;
    if (op_by_rows(r->x->plan, rows)) {
        moe_single(r, op, w, &route, y);
        return;
    }
    int32_t nt = r->k->tile_tokens, n_active = *route.n_active;
    struct act_panel x = op_acts(r, op->src[1], w->ne[0], (int64_t)route.tile[n_active] * nt, op_act_form(r->x->plan, w->type));
    int64_t unit = op_panel_rows(r->k, x.form, route.n_pairs / n_active), blocks = (n + unit - 1) / unit;
    for (int64_t i, end; op_take(r, blocks * n_active, 1, &i, &end);) {
        int64_t e = i / blocks, first = route.start[e], row = i % blocks * unit;
        const uint8_t *all = w->data, *data = all + (size_t)route.expert[e] * w->nb[2];
        struct op_soon next = op_rows_soon(w, data, n, row + unit, unit);
        if (!next.bytes && e + 1 < n_active) next = op_rows_soon(w, all + (size_t)route.expert[e + 1] * w->nb[2], n, 0, unit);
        op_panel_matmul(r, w, data, n, next, &x, route.tile[e], route.start[e + 1] - first, row, unit, y + first * n, n, false);
    }
}

void op_show_experts(const struct op_run *r, const struct op *op, struct shown *s)
{
    bool sorted = r->x->plan->val[op->src[3]].sorted;
    struct route route = op_route_of(r, op->src[2]);
    const float *x = s->x;
    for (int32_t i = 0; i < *route.n_active; i++) {
        int32_t first = route.start[i];
        s->mat = route.expert[i];
        s->n = route.start[i + 1] - first;
        s->row = route.row + first;
        if (sorted) s->x = x + first * s->k;
        else s->at = s->row;
        r->x->observe(r->x->observe_ctx, s, r->ith, r->nth);
    }
}

/* ---- what stands around them ---- */

val op_moe_bias(struct plan *p, val x, val b, val route)
{
    if (b == VAL_NONE) return x;
    assert(p->val[x].sorted && op_shape(p, b)->ne[0] == op_shape(p, x)->ne[0]);
    val y = op_like(p, x);
    plan_op(p, OP_MOE_BIAS, y, x, b, route);
    return y;
}

val op_moe_scale(struct plan *p, val x, val s, val route)
{
    if (s == VAL_NONE) return x;
    assert(p->val[x].sorted && op_shape(p, s)->ne[0] == op_shape(p, route)->ne[0]);
    val y = op_like(p, x);
    plan_op(p, OP_MOE_SCALE, y, x, s, route);
    return y;
}

static val moe_sum(struct plan *p, val x, val route, bool plain)
{
    assert(p->val[x].sorted);
    val y = plan_temp(p, op_shape(p, x)->ne[0], op_shape(p, route)->ne[1]);
    plan_op(p, OP_MOE_SUM, y, x, route, VAL_NONE)->arg.pairs.plain = plain;
    return y;
}

val op_moe_sum(struct plan *p, val x, val route) { return moe_sum(p, x, route, false); }
val op_moe_gather(struct plan *p, val x, val route) { return moe_sum(p, x, route, true); }

void op_run_moe_bias(const struct op_run *r, const struct op *op)
{
    struct route route = op_route_of(r, op->src[2]);
    int64_t n = op_shape(r->x->plan, op->dst)->ne[0], begin, end;
    const float *x = op_data(r, op->src[0]), *b = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) r->k->add(y + i * n, x + i * n, b + route.id[i] * n, n);
}

void op_run_moe_scale(const struct op_run *r, const struct op *op)
{
    struct route route = op_route_of(r, op->src[2]);
    int64_t n = op_shape(r->x->plan, op->dst)->ne[0], begin, end;
    const float *x = op_data(r, op->src[0]), *s = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) r->k->scale(y + i * n, x + i * n, s[route.id[i]], n);
}

/* Always in the order of the choice: the sum does not depend on where the pairs stand. */
void op_run_moe_sum(const struct op_run *r, const struct op *op)
{
    struct route route = op_route_of(r, op->src[1]);
    int64_t n = op_shape(r->x->plan, op->dst)->ne[0], rows = op_shape(r->x->plan, op->dst)->ne[1], begin, end;
    int64_t n_used = r->x->plan->val[op->src[1]].per_row;
    const float *x = op_data(r, op->src[0]);
    float *y = op_data(r, op->dst);
    /* runs of 64 columns, so that one row is shared too */
    int64_t runs = (n + 63) / 64;
    pool_range(rows * runs, 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i / runs, c = i % runs * 64, m = min_i64(64, n - c);
        for (int64_t u = 0; u < n_used; u++) {
            const float *from = x + route.at[row * n_used + u] * n + c;
            float weight = op->arg.pairs.plain ? 1 : route.weight[row * n_used + u];
            if (u == 0) r->k->scale(y + row * n + c, from, weight, m);
            else r->k->axpy(y + row * n + c, from, weight, m);
        }
    }
}

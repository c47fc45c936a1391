/* ops_attn - rotary positions, the KV cache, and attention over it. Segments of a batch see only their own cache. */
#include "ggml-like/ops_int.h"
#include <math.h>

/* By field: the struct has padding, and -0 is 0. */
static bool same_rope(const struct rope_spec *a, const struct rope_spec *b)
{
    return a->n_rot == b->n_rot && a->base == b->base && a->freq_scale == b->freq_scale && a->mscale == b->mscale && a->yarn_ext == b->yarn_ext &&
           a->yarn_low == b->yarn_low && a->yarn_high == b->yarn_high && a->factor == b->factor;
}

/* from: VAL_NONE, or a table whose angles turn back in this one */
static val rope_table(struct plan *p, const struct rope_spec *spec, val from)
{
    for (int32_t i = 0; i < p->n_op; i++)
        if (p->op[i].kind == OP_ROPE_TABLE && p->op[i].src[0] == from && (from != VAL_NONE || same_rope(&p->op[i].arg.table.spec, spec))) return p->op[i].dst;
    val y = from != VAL_NONE ? op_like(p, from) : plan_temp(p, spec->n_rot, p->n_rows);
    struct op *op = plan_op(p, OP_ROPE_TABLE, y, from, VAL_NONE, VAL_NONE);
    if (from == VAL_NONE) op->arg.table.spec = *spec;
    return y;
}

val op_rope_table(struct plan *p, const struct rope_spec *spec) { return rope_table(p, spec, VAL_NONE); }

val op_rope(struct plan *p, val x, val table, int32_t head_dim, int32_t first, bool neox)
{
    int32_t n_rot = (int32_t)op_shape(p, table)->ne[0];
    assert(op_shape(p, x)->ne[0] % head_dim == 0 && first >= 0 && first + n_rot <= head_dim);
    val y = op_like(p, x);
    struct op *op = plan_op(p, OP_ROPE, y, x, table, VAL_NONE);
    op->arg.rope.head_dim = head_dim;
    op->arg.rope.n_rot = n_rot;
    op->arg.rope.first = first;
    op->arg.rope.neox = neox;
    return y;
}

val op_rope_back(struct plan *p, val dy, val table, int32_t head_dim, int32_t first, bool neox)
{
    return op_rope(p, dy, rope_table(p, NULL, table), head_dim, first, neox);
}

/* Up to SPLIT_ROWS rows may be computed in parts, whose states stand behind the result. */
enum { SPLIT_ROWS = 4 };
static size_t parts_bytes(int32_t n_head, int32_t head_dim_v, int64_t n_rows)
{
    return (size_t)(n_rows > 1 ? SPLIT_ROWS : 1) * (size_t)n_head * ATTN_PARTS * (size_t)attn_part_floats(head_dim_v) * sizeof(float);
}

val op_attention(struct plan *p, const struct attn_spec *s, val q, val k, val v, val sinks)
{
    assert(op_shape(p, q)->ne[0] == (int64_t)s->n_head * s->head_dim && s->n_head % s->n_head_kv == 0);
    assert(k == VAL_NONE || op_shape(p, k)->ne[0] == (int64_t)s->n_head_kv * s->head_dim);
    assert(v == VAL_NONE || op_shape(p, v)->ne[0] == (int64_t)s->n_head_kv * s->head_dim_v);
    if (k != VAL_NONE) plan_op(p, OP_KV_STORE, VAL_NONE, k, v, VAL_NONE)->arg.store.il = s->il;
    val y = plan_temp(p, (int64_t)s->n_head * s->head_dim_v, p->n_rows);
    p->val[y].bytes += parts_bytes(s->n_head, s->head_dim_v, p->n_rows);
    struct op *op = plan_op(p, OP_ATTN, y, q, sinks, VAL_NONE);
    op_attn_arg(op, s);
    return y;
}

static void turn_back(const struct op_run *r, const struct op *op, float *y)
{
    const float *x = op_data(r, op->src[0]);
    int64_t begin, n;
    if (!op_flat(r, op, &begin, &n)) return;
    for (int64_t i = begin; i < begin + n; i++) y[i] = i % 2 ? -x[i] : x[i];
}

/* Angles in double: at position 2^20 a float product would be off by 0.06 rad. Once per pass and rope variant. */
void op_run_rope_table(const struct op_run *r, const struct op *op)
{
    const struct rope_spec *s = &op->arg.table.spec;
    float *y = op_data(r, op->dst);
    int64_t begin, end;
    if (op->src[0] != VAL_NONE) {
        turn_back(r, op, y);
        return;
    }
    pool_range(r->x->batch->n_rows, 1, r->ith, r->nth, &begin, &end);
    for (int32_t i = 0; i < s->n_rot / 2; i++) {
        double extrap = pow(s->base, -2.0 * i / s->n_rot) / (s->factor ? s->factor[i] : 1.0f), w = extrap * s->freq_scale;
        if (s->yarn_ext > 0) {
            double ramp = (i - s->yarn_low) / fmax(0.001, s->yarn_high - s->yarn_low);
            double mix = (1 - fmin(1, fmax(0, ramp))) * s->yarn_ext;
            w = w * (1 - mix) + extrap * mix;
        }
        for (int64_t t = begin; t < end; t++) {
            double a = r->x->batch->pos[t] * w;
            y[t * s->n_rot + 2 * i] = (float)(cos(a) * s->mscale);
            y[t * s->n_rot + 2 * i + 1] = (float)(sin(a) * s->mscale);
        }
    }
}

void op_run_rope(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    const float *x = op_data(r, op->src[0]), *cs = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    int32_t hd = op->arg.rope.head_dim, n_rot = op->arg.rope.n_rot;
    int64_t heads = t->ne[0] / hd, begin, end;
    pool_range(t->ne[1] * heads, 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        if (y != x) memcpy(y + i * hd, x + i * hd, (size_t)hd * sizeof(float));
        r->k->rope(y + i * hd + op->arg.rope.first, cs + i / heads * n_rot, n_rot, op->arg.rope.neox);
    }
}

static const struct batch_segment *segment_of(const struct batch *b, int64_t row)
{
    int s = 0;
    while (row >= b->seg[s].row + b->seg[s].n) s++;
    return &b->seg[s];
}

void op_run_kv_store(const struct op_run *r, const struct op *op)
{
    const struct batch *b = r->x->batch;
    const float *k = op_data(r, op->src[0]), *v = op->src[1] == VAL_NONE ? NULL : op_data(r, op->src[1]);
    int64_t begin, end;
    pool_range(b->n_rows, 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const struct batch_segment *s = segment_of(b, i);
        const struct kv_cache *c = &s->state[op->arg.store.il].kv;
        for (int32_t h = 0; h < c->n_head; h++) {
            size_t at = (size_t)(h * c->n_ctx + b->pos[i]);
            r->k->from_f32(c->k_type, k + (i * c->n_head + h) * c->k_dim, c->k + at * c->k_row, c->k_dim);
            if (v) r->k->from_f32(c->v_type, v + (i * c->n_head + h) * c->v_dim, c->v + at * c->v_row, c->v_dim);
        }
    }
}

/* One unit of attention work: `tokens` rows of one segment from `token`, heads head..head+heads of one KV head. */
struct attn_unit {
    const struct batch_segment *seg;
    int32_t kv_head, head, heads;
    int64_t token, tokens;
};

/* ALiBi: slopes are a geometric series; for n heads that are no power of two, those of the power below, then every other one of the
 * power above. Press et al. 2022, section 3. */
float op_alibi_slope(float max_bias, int32_t n_head, int32_t h)
{
    int32_t n = 1;
    while (2 * n <= n_head) n *= 2;
    return h < n ? powf(2, -max_bias * (float)(h + 1) / (float)n) : powf(2, -max_bias * (float)(2 * (h - n) + 1) / (float)(2 * n));
}

enum { MANY_ROWS = 32 }; /* of a segment: the same for all stacks of them, whoever computes them, whatever else is in the pass */

/* The query rows of a unit and what they see, gathered in the scratch block; `rest` of it is the kernel's. */
struct attn_rows {
    float *q, *out, sink[ATTN_ROWS], slope[ATTN_ROWS];
    int32_t *lo, *hi;
    uint8_t *rest;
};

static struct attn_args attn_gather(const struct op_run *r, const struct op *op, const struct attn_unit *u, struct attn_rows *x)
{
    int32_t hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v, n_head = op->arg.attn.n_head;
    const struct kv_cache *c = &u->seg->state[op->arg.attn.il].kv;
    x->q = r->scratch, x->out = x->q + (int64_t)ATTN_ROWS * hd;
    x->lo = (int32_t *)(x->out + (int64_t)ATTN_ROWS * vd), x->hi = x->lo + ATTN_ROWS;
    x->rest = (uint8_t *)r->scratch + ((((size_t)ATTN_ROWS * (size_t)(hd + vd) * 4 + 2 * ATTN_ROWS * 4) + 63) & ~(size_t)63);
    const float *src = op_data(r, op->src[0]), *sinks = op->src[1] == VAL_NONE ? NULL : op_data(r, op->src[1]);
    for (int64_t t = 0; t < u->tokens; t++) {
        int64_t row = u->seg->row + u->token + t, pos = u->seg->pos + u->token + t, window = op->arg.attn.window;
        memcpy(x->q + t * u->heads * hd, src + (row * n_head + u->head) * hd, (size_t)(u->heads * hd) * sizeof(float));
        for (int32_t h = 0; h < u->heads; h++) {
            x->lo[t * u->heads + h] = (int32_t)(window > 0 ? max_i64(0, pos - window + 1) : 0);
            x->hi[t * u->heads + h] = (int32_t)pos + 1;
            if (sinks) x->sink[t * u->heads + h] = sinks[u->head + h];
            if (op->arg.attn.alibi > 0) x->slope[t * u->heads + h] = op_alibi_slope(op->arg.attn.alibi, n_head, u->head + h);
        }
    }
    size_t base = (size_t)(u->kv_head * c->n_ctx);
    return (struct attn_args){
        .head_dim = hd,
        .head_dim_v = vd,
        .n_q = u->heads * (int32_t)u->tokens,
        .q = x->q,
        .out = x->out,
        .q_stride = hd,
        .out_stride = vd,
        .k_type = c->k_type,
        .v_type = c->v_type,
        .k = c->k + base * c->k_row,
        .v = c->v + base * c->v_row,
        .k_row_bytes = c->k_row,
        .v_row_bytes = c->v_row,
        .lo = x->lo,
        .hi = x->hi,
        .scale = op->arg.attn.scale,
        .cap = op->arg.attn.cap,
        .many = u->seg->n >= MANY_ROWS && !r->x->plan->precise,
        .sink = sinks ? x->sink : NULL,
        .slope = op->arg.attn.alibi > 0 ? x->slope : NULL,
    };
}

static void attn_unit_run(const struct op_run *r, const struct op *op, const struct attn_unit *u)
{
    struct attn_rows x;
    struct attn_args a = attn_gather(r, op, u, &x);
    r->k->attn(r->k, &a, x.rest);
    int64_t vd = a.head_dim_v, n_head = op->arg.attn.n_head;
    float *dst = op_data(r, op->dst);
    for (int64_t t = 0; t < u->tokens; t++) {
        int64_t row = u->seg->row + u->token + t;
        memcpy(dst + (row * n_head + u->head) * vd, x.out + t * u->heads * vd, (size_t)(u->heads * vd) * sizeof(float));
    }
}

/* How the work is cut: units of `heads` heads of a KV group and `tokens` tokens; a group takes `splits` of them */
struct attn_cut {
    int32_t heads, splits;
    int64_t tokens, n; /* units in all */
};

static struct attn_unit unit_at(const struct op_run *r, const struct op *op, const struct attn_cut *c, int64_t i)
{
    int32_t n_kv = op->arg.attn.n_head_kv, group = op->arg.attn.n_head / n_kv;
    const struct batch_segment *s = r->x->batch->seg;
    for (;; s++) {
        int64_t units = (s->n + c->tokens - 1) / c->tokens * n_kv * c->splits;
        if (i < units) break;
        i -= units;
    }
    struct attn_unit u = { .seg = s, .token = i / (n_kv * c->splits) * c->tokens };
    u.tokens = min_i64(c->tokens, s->n - u.token);
    u.kv_head = (int32_t)(i / c->splits % n_kv);
    u.head = u.kv_head * group + (int32_t)(i % c->splits) * c->heads;
    u.heads = (int32_t)min_i64(c->heads, (int64_t)(u.kv_head + 1) * group - u.head);
    return u;
}

static struct attn_cut cut_at(const struct op_run *r, const struct op *op, int32_t heads, int64_t tokens)
{
    const struct batch *b = r->x->batch;
    int32_t n_kv = op->arg.attn.n_head_kv, group = op->arg.attn.n_head / n_kv;
    struct attn_cut c = { .heads = heads, .splits = (group + heads - 1) / heads, .tokens = tokens };
    for (int s = 0; s < b->n_seg; s++) c.n += (b->seg[s].n + tokens - 1) / tokens * n_kv * c.splits;
    return c;
}

/* The first part of the row's keys, and how many parts there are */
static int64_t row_parts(const struct op *op, int64_t pos, int64_t *first)
{
    int64_t keys = attn_part_keys(pos + 1);
    *first = op->arg.attn.window > 0 ? max_i64(0, pos - op->arg.attn.window + 1) / keys : 0;
    return pos / keys - *first + 1;
}

static float *unit_parts(const struct op_run *r, const struct op *op, const struct attn_unit *u, int64_t row)
{
    int32_t n_head = op->arg.attn.n_head, vd = op->arg.attn.head_dim_v;
    const struct value *y = &r->x->plan->val[op->dst];
    uint8_t *parts = (uint8_t *)op_data(r, op->dst) + y->bytes - parts_bytes(n_head, vd, r->x->plan->n_rows);
    return (float *)(void *)parts + (row * n_head + u->head) * ATTN_PARTS * attn_part_floats(vd);
}

/* Few rows over many keys: a unit is one part of one row; then every head is put together from its parts. */
static void attn_by_parts(const struct op_run *r, const struct op *op, const struct attn_cut *c)
{
    const struct batch *b = r->x->batch;
    int64_t floats = attn_part_floats(op->arg.attn.head_dim_v), per_row = c->n / b->n_rows, first, n = 0, before[SPLIT_ROWS + 1] = { 0 };
    for (int64_t row = 0; row < b->n_rows; row++) n = before[row + 1] = n + row_parts(op, b->pos[row], &first) * per_row;
    for (int64_t i, end; op_take(r, n, 1, &i, &end);) {
        int64_t row = 0;
        while (i >= before[row + 1]) row++;
        int64_t parts = row_parts(op, b->pos[row], &first), keys = attn_part_keys(b->pos[row] + 1), part = (i - before[row]) % parts;
        struct attn_unit u = unit_at(r, op, c, row * per_row + (i - before[row]) / parts);
        struct attn_rows x;
        struct attn_args a = attn_gather(r, op, &u, &x);
        a.part = unit_parts(r, op, &u, row) + part * u.heads * floats;
        a.first = (first + part) * keys;
        a.last = a.first + keys;
        r->k->attn(r->k, &a, x.rest);
    }
    pool_barrier(r->x->pool);
    int64_t begin, end;
    pool_range(c->n, 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        struct attn_unit u = unit_at(r, op, c, i);
        struct attn_rows x;
        struct attn_args a = attn_gather(r, op, &u, &x);
        a.part = unit_parts(r, op, &u, i / per_row);
        a.part_step = u.heads * floats;
        a.out = (float *)op_data(r, op->dst) + (i / per_row * op->arg.attn.n_head + u.head) * a.head_dim_v;
        r->k->attn_merge(&a, x.rest);
    }
}

/* Heads of a KV group are stacked with tokens until ATTN_ROWS query rows share each key block. When that leaves less than SPLIT_BELOW units a
 * thread, rows are cut into parts; where there are no parts, groups are cut by heads. A row's result depends neither on its stack nor on who
 * computes its parts, so both may depend on the thread count. */
void op_run_attn(const struct op_run *r, const struct op *op)
{
    enum { SPLIT_BELOW = 4 };
    const struct batch *b = r->x->batch;
    int32_t n_kv = op->arg.attn.n_head_kv, group = op->arg.attn.n_head / n_kv;
    int32_t heads = group < ATTN_ROWS ? group : ATTN_ROWS;
    struct attn_cut c = cut_at(r, op, heads, 1);
    int64_t parts = 0, first;
    for (int64_t row = 0; row < b->n_rows && row < SPLIT_ROWS; row++) parts = max_i64(parts, row_parts(op, b->pos[row], &first));
    if (r->nth > 1 && b->n_rows <= SPLIT_ROWS && parts > 1 && c.n < (int64_t)SPLIT_BELOW * r->nth) {
        attn_by_parts(r, op, &c);
        return;
    }
    while (heads > 1 && b->n_rows * n_kv * ((group + heads - 1) / heads) < r->nth) heads = (heads + 1) / 2;
    c = cut_at(r, op, heads, max_i64(1, ATTN_ROWS / heads));
    for (int64_t i, end; op_take(r, c.n, 1, &i, &end);) {
        struct attn_unit u = unit_at(r, op, &c, i);
        attn_unit_run(r, op, &u);
    }
}

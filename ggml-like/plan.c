/* plan - recording, layout and execution of op lists. See plan.h. */
#include "ggml-like/plan.h"
#include "ggml-like/grad.h"
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/ops.h"
#include <assert.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

static const struct op_def op_table[OP_KINDS] = {
    [OP_EMBED] = { "embed", op_run_embed, false, .back = op_back_embed },
    [OP_ROWS] = { "rows", op_run_rows, false, true, .back = op_back_rows },
    [OP_RMS_NORM] = { "rms_norm", op_run_rms_norm, true, true, .back = op_back_rms_norm },
    [OP_ADD] = { "add", op_run_add, true, true, .back = op_back_add },
    [OP_BIAS] = { "bias", op_run_bias, true, true, .back = op_back_bias },
    [OP_SCALE] = { "scale", op_run_scale, true, true, .back = op_back_scale },
    [OP_SOFTCAP] = { "softcap", op_run_softcap, true, .back = op_back_softcap },
    [OP_SILU_MUL] = { "silu_mul", op_run_silu_mul, true, true, .back = op_back_act },
    [OP_GELU_MUL] = { "gelu_mul", op_run_gelu_mul, true, true, .back = op_back_act },
    [OP_QUANT] = { "quantize", op_run_quant, false, true },
    [OP_MATMUL] = { "matmul", op_run_matmul, false, .back = op_back_matmul },
    [OP_ROPE_TABLE] = { "rope_table", op_run_rope_table, false, true },
    [OP_ROPE] = { "rope", op_run_rope, true, true, .back = op_back_rope },
    [OP_KV_STORE] = { "kv_store", op_run_kv_store, false, true },
    [OP_ATTN] = { "attention", op_run_attn, false, .back = op_back_attn },
    [OP_COLS] = { "columns", op_run_cols, false, true, .back = op_back_cols },
    [OP_SLICE] = { "slice", op_run_slice, false, true, .back = op_back_slice },
    [OP_JOIN] = { "join", op_run_join, false, true, .back = op_back_join },
    [OP_LAYER_NORM] = { "layer_norm", op_run_layer_norm, true, true, .back = op_back_layer_norm },
    [OP_L2_NORM] = { "l2_norm", op_run_l2_norm, true, true, .back = op_back_l2_norm },
    [OP_MUL] = { "mul", op_run_mul, true, true, .back = op_back_mul },
    [OP_MUL_VECTOR] = { "mul_vector", op_run_mul_vector, true, true, .back = op_back_mul_vector },
    [OP_CLAMP] = { "clamp", op_run_clamp, true, true, .back = op_back_clamp },
    [OP_GATE] = { "gate", op_run_gate, true, true, .back = op_back_gate },
    [OP_SCALE_RUNS] = { "scale_runs", op_run_scale_runs, true, true, .back = op_back_scale_runs },
    [OP_ACT] = { "activation", op_run_act, true, true, .back = op_back_act },
    [OP_ADD_POSITION] = { "add_position", op_run_add_position, true, true, .back = op_back_add_position },
    [OP_ROW_FACTOR] = { "row_factor", op_run_row_factor, true, true, .back = op_back_row_factor },
    [OP_ROUTE] = { "route", op_run_route, false },
    [OP_MOE_SORT] = { "moe_sort", op_run_moe_sort, false, .back = op_back_moe_sort },
    [OP_MOE_QUANT] = { "moe_quantize", op_run_moe_quant, false },
    [OP_MOE_MATMUL] = { "moe_matmul", op_run_moe_matmul, false, .back = op_back_moe_matmul },
    [OP_MOE_BIAS] = { "moe_bias", op_run_moe_bias, true, true, .back = op_back_moe_bias },
    [OP_MOE_SCALE] = { "moe_scale", op_run_moe_scale, true, true, .back = op_back_moe_scale },
    [OP_MOE_SUM] = { "moe_sum", op_run_moe_sum, false, true, .back = op_back_moe_sum },
    [OP_CONV] = { "conv", op_run_conv, false, .back = op_back_conv },
    [OP_HEAD_QUANT] = { "head_quantize", op_run_head_quant, false },
    [OP_HEAD_MATMUL] = { "head_matmul", op_run_head_matmul, false, .back = op_back_head_matmul },
    [OP_SCORE] = { "score", op_run_score, false },
    [OP_SCORE_SUM] = { "score_sum", op_run_score_sum, false, .back = op_back_score_sum },
    [OP_DELTA_RULE] = { "delta_rule", op_run_delta_rule, false, .back = op_back_delta_rule },
    [OP_SHOW] = { "show", op_run_show, false },
    [OP_DROPOUT] = { "dropout", op_run_dropout, true, true, .back = op_back_dropout },
    [OP_NORM_GRAD] = { "norm_grad", op_run_norm_grad, true, true },
    [OP_ACT_GRAD] = { "activation_grad", op_run_act_grad, true, true },
    [OP_GATE_GRAD] = { "gate_grad", op_run_gate_grad, false, true },
    [OP_ROWS_GRAD] = { "rows_grad", op_run_rows_grad, false, true },
    [OP_COLS_GRAD] = { "columns_grad", op_run_cols_grad, false, true },
    [OP_SLICE_GRAD] = { "slice_grad", op_run_slice_grad, false, true },
    [OP_SUM_RUNS] = { "sum_runs", op_run_sum_runs, false, true },
    [OP_SUM_ROWS] = { "sum_rows", op_run_sum_rows, false, true, .adds = true },
    [OP_ATTN_PACK] = { "attention_pack", op_run_attn_pack, false },
    [OP_ATTN_WHOLE] = { "attention", op_run_attn_whole, false, .back = op_back_attn_whole },
    [OP_ATTN_GRAD] = { "attention_grad", op_run_attn_grad, false },
    [OP_SCORE_GRAD] = { "score_grad", op_run_score_grad, false },
    [OP_SCORE_TARGETS] = { "score_targets", op_run_score_targets, false },
    [OP_ROUTE_GRAD] = { "route_grad", op_run_route_grad, false },
    [OP_MOE_SPREAD] = { "moe_spread", op_run_moe_spread, false, true },
    [OP_MOE_WEIGHT_GRAD] = { "moe_weight_grad", op_run_moe_weight_grad, false, true },
    [OP_MOE_MATMUL_T] = { "moe_transposed", op_run_moe_matmul_t, false },
    [OP_MOE_OUTER] = { "moe_outer", op_run_moe_outer, false, .adds = true },
    [OP_CONV_GRAD] = { "conv_grad", op_run_conv_grad, false },
    [OP_CONV_OUTER] = { "conv_outer", op_run_conv_outer, false, .adds = true },
    [OP_HEAD_MATMUL_T] = { "head_transposed", op_run_head_matmul_t, false },
    [OP_HEAD_OUTER] = { "head_outer", op_run_head_outer, false, .adds = true },
    [OP_DELTA_GRAD] = { "delta_grad", op_run_delta_grad, false },
    [OP_SCATTER] = { "scatter", op_run_scatter, false, true, .adds = true },
    [OP_MATMUL_T] = { "transposed", op_run_matmul_t, false },
    [OP_OUTER] = { "outer", op_run_outer, false, .adds = true },
};

const struct op_def *op_def(enum op_kind kind) { return &op_table[kind]; }
const char *op_name(enum op_kind kind) { return op_table[kind].name; }

void plan_init(struct plan *p, const struct kernels *k) { *p = (struct plan){ .k = k }; }

void plan_free(struct plan *p)
{
    mem_free(p->op);
    mem_free(p->val);
    *p = (struct plan){ 0 };
}

void plan_reset(struct plan *p, int64_t n_rows, int64_t n_out, int64_t max_rows)
{
    assert(n_rows <= max_rows && n_out <= n_rows);
    p->n_op = p->n_val = 0;
    p->bytes = p->held_bytes = 0;
    p->split = 0;
    p->n_rows = n_rows;
    p->n_out = n_out;
    p->max_rows = max_rows;
}

int64_t plan_room(const struct plan *p, int64_t ne1) { return ne1 > 1 ? p->max_rows : ne1; }

static bool grow(void **items, int32_t *cap, int32_t need, size_t item)
{
    if (need <= *cap) return true;
    int32_t want = *cap ? *cap : 256;
    while (want < need) want *= 2;
    void *q = mem_realloc(*items, (size_t)want * item);
    if (!q) return false;
    *items = q;
    *cap = want;
    return true;
}

status plan_reserve(struct plan *p, int32_t n, struct err *e)
{
    if (!grow((void **)&p->op, &p->cap_op, p->n_op + n, sizeof *p->op) ||
        !grow((void **)&p->val, &p->cap_val, p->n_val + n, sizeof *p->val))
        return err_oom(e, "plan", (size_t)(p->n_op + n) * (sizeof *p->op + sizeof *p->val));
    return OK;
}

static val new_value(struct plan *p, struct value v)
{
    assert(p->n_val < p->cap_val); /* plan_reserve comes first */
    v.last = -1;
    if (!v.per_row) v.per_row = 1;
    _Static_assert(ARRAY_LEN(v.quant) == ACT_FORMS, "one for each form");
    for (int i = 0; i < ARRAY_LEN(v.quant); i++) v.quant[i] = VAL_NONE;
    v.extra = v.index = v.down = VAL_NONE;
    p->val[p->n_val] = v;
    return p->n_val++;
}

val plan_weight(struct plan *p, const struct tensor *t) { return new_value(p, (struct value){ .t = *t }); }

void plan_extra(struct plan *p, val w, const struct tensor *extra, const struct tensor *index)
{
    val x = plan_weight(p, extra), i = plan_weight(p, index);
    p->val[x].index = i;
    p->val[x].extra = p->val[w].extra;
    p->val[w].extra = x;
}

void plan_low_rank(struct plan *p, val w, const struct tensor *up, const struct tensor *down, float scale)
{
    val x = plan_weight(p, up), d = plan_weight(p, down);
    p->val[x].down = d;
    enum act_form form = p->precise ? act_form_precise(p->val[w].t.type) : act_form_fast(p->k, p->val[w].t.type);
    p->val[x].rough = p->val[d].rough = form == ACT_8 || form == ACT_BF16;
    p->val[x].scale = scale;
    p->val[x].extra = p->val[w].extra;
    p->val[w].extra = x;
}

static struct value f32_value(int64_t ne0, int64_t ne1)
{
    struct value v = { 0 };
    tensor_shape(&v.t, dtype_by_id(GGUF_F32), ne0, ne1, 1, 1);
    return v;
}

val plan_temp_rows(struct plan *p, int64_t ne0, int64_t rows, int64_t per_row)
{
    struct value v = f32_value(ne0, rows * per_row);
    v.bytes = ((size_t)(ne0 * plan_room(p, rows) * per_row) * sizeof(float) + 63) & ~(size_t)63;
    v.per_row = per_row;
    v.temp = true;
    return new_value(p, v);
}

val plan_temp(struct plan *p, int64_t ne0, int64_t ne1) { return plan_temp_rows(p, ne0, ne1, 1); }

val plan_temp_bytes(struct plan *p, size_t bytes)
{
    return new_value(p, (struct value){ .bytes = (bytes + 63) & ~(size_t)63, .temp = true });
}

val plan_input(struct plan *p, int64_t ne0, int64_t ne1) { return new_value(p, f32_value(ne0, ne1)); }

void plan_bind(struct plan *p, val v, float *data) { p->val[v].t.data = data; }

void plan_keep(struct plan *p, val v) { p->val[v].keep = true; }

void plan_output(struct plan *p, val v)
{
    p->val[v].keep = true;
    p->val[v].temp = false;
}

struct op *plan_op(struct plan *p, enum op_kind kind, val dst, val a, val b, val c)
{
    assert(p->n_op < p->cap_op);
    struct op *op = &p->op[p->n_op];
    *op = (struct op){ .kind = kind, .dst = dst, .src = { a, b, c } };
    for (int i = 3; i < OP_SRC; i++) op->src[i] = VAL_NONE;
    if (dst != VAL_NONE) p->val[dst].last = p->n_op;
    for (int i = 0; i < OP_SRC; i++)
        if (op->src[i] != VAL_NONE) p->val[op->src[i]].last = p->n_op;
    p->n_op++;
    return op;
}

/* ---- layout ---- */

enum { LIVE_MAX = 512 }; /* a layer and its backward pass: up to 60 */
struct live {
    int32_t n;
    val v[LIVE_MAX];
}; /* temporaries that hold bytes, by rising offset */

static bool live_insert(struct plan *p, struct live *l, val v)
{
    struct value *x = &p->val[v];
    size_t at = 0;
    int32_t i = 0;
    for (; i < l->n; i++) {
        const struct value *y = &p->val[l->v[i]];
        if (y->offset - at >= x->bytes) break; /* first gap that fits */
        at = y->offset + y->bytes;
    }
    if (l->n == LIVE_MAX) return false;
    memmove(&l->v[i + 1], &l->v[i], (size_t)(l->n - i) * sizeof l->v[0]);
    l->v[i] = v;
    l->n++;
    x->offset = at;
    if (at + x->bytes > p->bytes) p->bytes = at + x->bytes;
    return true;
}

static int32_t live_find(const struct live *l, val v)
{
    for (int32_t i = 0; i < l->n; i++)
        if (l->v[i] == v) return i;
    return -1;
}

static void live_expire(struct plan *p, struct live *l, int32_t op)
{
    int32_t n = 0;
    for (int32_t i = 0; i < l->n; i++) {
        const struct value *x = &p->val[l->v[i]];
        if (x->last > op || x->keep) l->v[n++] = l->v[i];
    }
    l->n = n;
}

static bool place(struct plan *p, struct live *l, int32_t i)
{
    struct op *op = &p->op[i];
    if (op->dst == VAL_NONE || !p->val[op->dst].temp || p->val[op->dst].held || live_find(l, op->dst) >= 0) return true;
    struct value *d = &p->val[op->dst];
    val s = op->src[0];
    int32_t at = s == VAL_NONE ? -1 : live_find(l, s);
    if (op_table[op->kind].in_place && at >= 0 && p->val[s].last == i && !p->val[s].keep && p->val[s].bytes == d->bytes) {
        d->offset = p->val[s].offset;
        l->v[at] = op->dst;
        return true;
    }
    return live_insert(p, l, op->dst);
}

static bool overlap(const struct value *a, const struct value *b)
{
    if (a == b) return true;
    return a->temp && b->temp && a->held == b->held && a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

/* Element-wise ops on little data: sharing them out takes longer than doing them (a barrier and the late comer it waits for: 0.2 to 1.5 us), and one
 * thread needs no barrier between two of them. 8192 floats are 1 to 2 us of work; so are 256 of a table of angles, which has no source. */
static bool op_is_solo(const struct plan *p, const struct op *op)
{
    enum { SOLO_MAX = 8192, ANGLE = 32 };
    int64_t n = 0;
    if (!op_table[op->kind].small) return false;
    for (int i = 0; i < OP_SRC; i++)
        if (op->src[i] != VAL_NONE) n = max_i64(n, tensor_elements(&p->val[op->src[i]].t));
    if (op->dst != VAL_NONE) n = max_i64(n, (op->kind == OP_ROPE_TABLE ? ANGLE : 1) * tensor_elements(&p->val[op->dst].t));
    return n <= SOLO_MAX;
}

/* What an op adds to: its last source. */
static val adds_to(const struct op *op)
{
    int i = OP_SRC - 1;
    while (i > 0 && op->src[i] == VAL_NONE) i--;
    return op->src[i];
}

/* Must op b wait for op a of the same barrier-free stretch? Yes if it reads what a writes, or writes bytes that a touches. The KV cache is
 * written by OP_KV_STORE only and read by OP_ATTN only; a recurrent state by the one op of its layer that reads it. */
static bool depends(const struct plan *p, const struct op *a, const struct op *b)
{
    if (a->solo && b->solo) return false;
    if (a->kind == OP_KV_STORE && b->kind == OP_ATTN) return true;
    if (op_table[a->kind].adds && op_table[b->kind].adds && adds_to(a) == adds_to(b)) return true;
    for (int i = 0; i < OP_SRC; i++) {
        if (b->src[i] != VAL_NONE && a->dst != VAL_NONE && (b->src[i] == a->dst || overlap(&p->val[b->src[i]], &p->val[a->dst])))
            return true;
        if (a->src[i] != VAL_NONE && b->dst != VAL_NONE && overlap(&p->val[a->src[i]], &p->val[b->dst])) return true;
    }
    return a->dst != VAL_NONE && b->dst != VAL_NONE && overlap(&p->val[a->dst], &p->val[b->dst]);
}

/* What is read on the other side of the split has bytes of its own, which nothing else uses. */
static void place_held(struct plan *p)
{
    p->held_bytes = 0;
    for (int32_t i = 0; i < p->split; i++) {
        struct value *v = p->op[i].dst == VAL_NONE ? NULL : &p->val[p->op[i].dst];
        if (!v || !v->temp || v->held || v->last < p->split) continue;
        v->held = true;
        v->offset = p->held_bytes;
        p->held_bytes += v->bytes;
    }
}

status plan_finish(struct plan *p, struct err *e)
{
    struct live l = { 0 };
    place_held(p);
    for (int32_t i = 0; i < p->n_op; i++) {
        if (!place(p, &l, i)) return err_set(e, ERR_RUNTIME, "plan: more than %d values alive at op %d", LIVE_MAX, i);
        live_expire(p, &l, i);
    }
    int32_t start = 0;
    for (int32_t i = 0; i < p->n_op; i++) {
        p->op[i].solo = op_is_solo(p, &p->op[i]);
        p->op[i].wait = false;
        for (int32_t j = start; j < i && !p->op[i].wait; j++) p->op[i].wait = depends(p, &p->op[j], &p->op[i]);
        if (p->op[i].wait) start = i;
    }
    return OK;
}

/* ---- pruning ---- */

/* The input that an observer is shown before this op, VAL_NONE for none. A matmul without one is an extra part of another that was shown. */
static val shown_input(const struct plan *p, const struct op *op)
{
    bool stack = op->kind == OP_MOE_MATMUL || (op->kind == OP_SHOW && op->src[3] != VAL_NONE);
    if (!p->observe || !(stack || op->kind == OP_MATMUL || op->kind == OP_HEAD_MATMUL || op->kind == OP_SHOW) || !p->val[op->src[0]].t.name) return VAL_NONE;
    return op->src[stack ? 3 : 2];
}

static void mark(struct plan *p, int32_t i)
{
    const struct op *op = &p->op[i];
    p->op[i].live = true;
    for (int k = 0; k < OP_SRC; k++)
        if (op->src[k] != VAL_NONE) p->val[op->src[k]].live = true;
    for (int32_t j = 0; op->kind == OP_ATTN && j < i; j++) /* reads a cache that these write */
        if (p->op[j].kind == OP_KV_STORE && p->op[j].arg.store.il == op->arg.attn.il) p->op[j].live = true;
}

/* A matmul whose product nobody reads. */
static void only_show(struct op *op)
{
    op->kind = OP_SHOW;
    op->dst = op->src[1] = op->src[4] = op->src[5] = VAL_NONE;
}

void plan_prune(struct plan *p)
{
    for (val v = 0; v < p->n_val; v++) p->val[v].live = p->val[v].keep;
    for (int32_t i = 0; i < p->n_op; i++) p->op[i].live = false;
    for (int32_t i = p->n_op - 1; i >= 0; i--) {
        struct op *op = &p->op[i];
        if ((op->dst != VAL_NONE && p->val[op->dst].live) || op_table[op->kind].adds) op->live = true;
        else if (shown_input(p, op) != VAL_NONE) only_show(op), op->live = true;
        if (op->live) mark(p, i);
    }
    int32_t n = 0, split = p->split;
    for (int32_t i = 0; i < p->n_op; i++) {
        const struct op *op = &p->op[i];
        if (op->live) p->op[n++] = *op;
        else if (i < split) p->split--;
    }
    p->n_op = n;
    for (val v = 0; v < p->n_val; v++)
        for (int i = 0; i < ARRAY_LEN(p->val[v].quant); i++) {
            val *q = &p->val[v].quant[i];
            if (*q != VAL_NONE && !p->val[*q].live) *q = VAL_NONE; /* nobody may ask for it again */
        }
    plan_relink(p);
}

void plan_relink(struct plan *p)
{
    for (val v = 0; v < p->n_val; v++) p->val[v].last = -1;
    for (int32_t i = 0; i < p->n_op; i++) {
        const struct op *op = &p->op[i];
        if (op->dst != VAL_NONE) p->val[op->dst].last = i;
        for (int k = 0; k < OP_SRC; k++)
            if (op->src[k] != VAL_NONE) p->val[op->src[k]].last = i;
    }
}

/* ---- execution ---- */

void *plan_data(const struct plan_exec *x, val v)
{
    const struct value *y = &x->plan->val[v];
    return y->temp ? (y->held ? x->held : x->base) + y->offset : y->t.data;
}

void *op_data(const struct op_run *r, val v) { return plan_data(r->x, v); }

/* This thread's part, once for each op: the four divisions of a range took as long as everything else in a call. */
static void share_open(struct plan_share *s, const struct op_run *r, int64_t n, int64_t chunk)
{
    int64_t first;
    if (atomic_load_explicit(&s->at, memory_order_relaxed) >> 32 == (uint64_t)r->index + 1) return;
    pool_range(n, chunk, r->ith, r->nth, &first, &s->last);
    atomic_store_explicit(&s->at, ((uint64_t)r->index + 1) << 32 | (uint64_t)first, memory_order_relaxed);
}

/* The next items of a part that ends at `last`. Nothing from a thread that has not come to this op or has gone on from it. Without `others` nobody
 * else takes from it, and no locked instruction is needed. */
static bool share_take(struct plan_share *s, int32_t index, int64_t chunk, int64_t last, bool others, int64_t *begin, int64_t *end)
{
    uint64_t at = atomic_load_explicit(&s->at, memory_order_relaxed), next;
    do {
        *begin = (int64_t)(at & UINT32_MAX);
        if (at >> 32 != (uint64_t)index + 1 || *begin >= last) return false;
        *end = *begin + min_i64(chunk, last - *begin);
        next = at + (uint64_t)(*end - *begin);
        if (!others) {
            atomic_store_explicit(&s->at, next, memory_order_relaxed);
            return true;
        }
    } while (!atomic_compare_exchange_weak_explicit(&s->at, &at, next, memory_order_relaxed, memory_order_relaxed));
    return true;
}

bool op_take(const struct op_run *r, int64_t n, int64_t chunk, int64_t *begin, int64_t *end)
{
    struct plan_share *own = &r->x->share[r->ith];
    share_open(own, r, n, chunk);
    if (share_take(own, r->index, chunk, own->last, r->nth > 1, begin, end)) return true;
    for (int i = 1; i < r->nth; i++) {
        int ith = (r->ith + i) % r->nth;
        int64_t first, last;
        pool_range(n, chunk, ith, r->nth, &first, &last);
        if (share_take(&r->x->share[ith], r->index, chunk, last, true, begin, end)) return true;
    }
    return false;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void observe(const struct op_run *r, const struct op *op)
{
    val x = shown_input(r->x->plan, op);
    if (x == VAL_NONE) return;
    const struct tensor *t = &r->x->plan->val[x].t, *w = &r->x->plan->val[op->src[0]].t;
    struct shown s = { .w = w, .n = t->ne[1], .k = w->ne[0], .x = op_data(r, x), .stride = t->ne[0], .first = r->x->first_row, .input = x };
    if (op->src[3] != VAL_NONE) {
        op_show_experts(r, op, &s);
        return;
    }
    for (; s.mat < t->ne[0] / s.k; s.mat++, s.x += s.k) r->x->observe(r->x->observe_ctx, &s, r->ith, r->nth); /* several: heads side by side */
}

void op_run_show(const struct op_run *r, const struct op *op) {} /* the observer was called */

static void run_thread(void *ctx, int ith, int nth)
{
    const struct plan_exec *x = ctx;
    const struct plan *p = x->plan;
    struct op_run r = { .x = x, .k = p->k, .ith = ith, .nth = nth, .scratch = x->thread_base + (size_t)ith * x->thread_bytes };
    bool timed = x->op_ns && ith == 0;
    int64_t t0 = timed ? now_ns() : 0;
    struct op_run alone = r;
    alone.nth = 1;
    int32_t end = x->end_op ? x->end_op : p->n_op;
    for (r.index = x->first_op; r.index < end; r.index++) {
        alone.index = r.index;
        const struct op *op = &p->op[r.index];
        if (op->wait) pool_barrier(x->pool);
        if (x->observe) observe(&r, op);
        if (!op->solo) op_table[op->kind].run(&r, op);
        else if (ith == 0) op_table[op->kind].run(&alone, op);
        if (timed) {
            int64_t t1 = now_ns();
            x->op_ns[op->kind] += t1 - t0;
            t0 = t1;
        }
    }
}

void plan_run(const struct plan_exec *x)
{
    for (int i = 0; i < pool_threads(x->pool); i++) atomic_store_explicit(&x->share[i].at, 0, memory_order_relaxed);
    pool_run_elastic(x->pool, run_thread, (void *)(uintptr_t)x); /* bits do not depend on nth */
}

size_t plan_panel_bytes(void) { return op_panel_matmul_bytes(); }

size_t plan_grad_bytes(int64_t head_dim_max)
{
    size_t a = plan_thread_bytes(head_dim_max), b = op_grad_bytes(head_dim_max);
    return ((a > b ? a : b) + 4095) & ~(size_t)4095;
}

size_t plan_thread_bytes(int64_t head_dim_max)
{
    size_t gather = 2 * (size_t)ATTN_ROWS * (size_t)head_dim_max * sizeof(float) + 2 * ATTN_ROWS * sizeof(int32_t);
    size_t attn = attn_scratch_bytes((int)head_dim_max, (int)head_dim_max) + ((gather + 63) & ~(size_t)63);
    size_t panel = plan_panel_bytes() + (size_t)SCORE_ROWS * SCORE_CHUNK * sizeof(float);
    size_t n = attn > panel ? attn : panel;
    return (n + 4095) & ~(size_t)4095;
}

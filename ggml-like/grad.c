/* grad - walking a recorded pass backwards. See grad.h; what each op does is in grad_ops.c. */
#include "ggml-like/grad.h"
#include <assert.h>
#include <string.h>

enum { BACK_CHUNK = 64 }; /* ops and values that one back function records at most */

struct grad {
    struct plan *p;
    const struct grad_spec *s;
    int32_t n_val;          /* values of the forward pass */
    bool *wanted;           /* [n_val] something wanted lies upstream */
    int32_t *writer;        /* [n_val] op, -1 for none */
    val *of;                /* [n_val] gradient so far */
    bool *own;              /* [n_val] which is a value that nothing else is: products may be added to it in place */
    unsigned taken;         /* sources of this op that were asked about */
    const char *refused;
};

struct plan *grad_plan(const struct grad *g) { return g->p; }
bool grad_wants(const struct grad *g, val v) { return v != VAL_NONE && g->wanted[v]; }
const struct op *grad_writer(const struct grad *g, val v) { return g->writer[v] < 0 ? NULL : &g->p->op[g->writer[v]]; }
void grad_refuse(struct grad *g, const char *why) { g->refused = why; }

void grad_add(struct grad *g, val v, val dv)
{
    if (!grad_wants(g, v)) return;
    g->own[v] = g->of[v] != VAL_NONE;
    g->of[v] = g->own[v] ? op_add(g->p, g->of[v], dv) : dv;
}

void grad_add_transposed(struct grad *g, val v, val w, val dy)
{
    if (!grad_wants(g, v)) return;
    if (g->own[v]) {
        op_matmul_t_add(g->p, w, dy, g->of[v]);
        return;
    }
    bool first = g->of[v] == VAL_NONE;
    grad_add(g, v, op_matmul_t(g->p, w, dy));
    g->own[v] = first || g->own[v];
}

static bool trained(const struct grad *g, val v)
{
    const struct value *w = &g->p->val[v];
    uintptr_t at = (uintptr_t)w->t.data, from = (uintptr_t)g->s->param;
    return !w->temp && at >= from && at < from + (size_t)g->s->n_param * sizeof(float);
}

/* One value for each place, whoever adds to it: `depends` goes by values. */
val grad_to(struct grad *g, const struct op *op, int k)
{
    struct plan *p = g->p;
    g->taken |= 1u << k;
    if (op->src[k] == VAL_NONE || !trained(g, op->src[k])) return VAL_NONE;
    struct tensor t = p->val[op->src[k]].t;
    if (t.type->gguf_id != GGUF_F32) grad_refuse(g, "to weights that are not F32");
    t.data = g->s->grad + ((const float *)t.data - g->s->param);
    t.name = NULL;
    for (val v = g->n_val; v < p->n_val; v++)
        if (!p->val[v].temp && p->val[v].t.data == t.data && !memcmp(p->val[v].t.ne, t.ne, sizeof t.ne)) return v;
    return plan_weight(p, &t);
}

/* ---- what is wanted ---- */

static void mark_wanted(struct grad *g)
{
    for (val v = 0; v < g->n_val; v++) {
        g->wanted[v] = v == g->s->x || trained(g, v);
        g->writer[v] = -1;
        g->of[v] = VAL_NONE;
        g->own[v] = false;
    }
    for (int32_t i = 0; i < g->p->split; i++) {
        const struct op *op = &g->p->op[i];
        if (op->dst == VAL_NONE) continue;
        g->writer[op->dst] = i;
        for (int k = 0; k < OP_SRC; k++) g->wanted[op->dst] |= grad_wants(g, op->src[k]);
    }
}

/* ---- the walk ---- */

static status back(struct grad *g, int32_t i, val dy, struct err *e)
{
    TRY(plan_reserve(g->p, BACK_CHUNK, e));
    const struct op op = g->p->op[i]; /* recording moves them */
    const char *name = op_name(op.kind);
    if (!op_def(op.kind)->back) return err_set(e, ERR_USAGE, "op %s has no backward", name);
    g->taken = 0;
    g->refused = NULL;
    op_def(op.kind)->back(g, &op, dy);
    if (g->refused) return err_set(e, ERR_USAGE, "op %s has no backward %s", name, g->refused);
    for (int k = 0; k < OP_SRC; k++)
        if (op.src[k] != VAL_NONE && trained(g, op.src[k]) && !(g->taken >> k & 1))
            return err_set(e, ERR_USAGE, "op %s has no gradient of its weight %s", name, g->p->val[op.src[k]].t.name ? g->p->val[op.src[k]].t.name : "");
    return OK;
}

static status walk(struct grad *g, struct err *e)
{
    const struct grad_spec *s = g->s;
    struct plan *p = g->p;
    if (s->dy != VAL_NONE) g->of[s->y] = s->dy;
    for (int32_t i = p->split - 1; i >= 0; i--) {
        val y = p->op[i].dst;
        if (y == VAL_NONE || !g->wanted[y] || (g->of[y] == VAL_NONE && (s->dy != VAL_NONE || y != s->y))) continue;
        TRY(back(g, i, g->of[y], e));
    }
    return OK;
}

/* ---- what need not be held ---- */

/* A forward value that cheap ops make of inputs, weights and values that are held anyway is made once more, just before its first reader. */
struct again {
    struct plan *p;
    const int32_t *writer;
    int32_t n_val, split;
    bool *can;   /* [n_val] */
    val *copy;   /* [n_val] VAL_NONE: not yet */
    struct op *op; /* the new list behind the split */
    int32_t n;
};

static bool crosses(const struct again *a, val v) { return a->p->val[v].temp && a->writer[v] >= 0 && a->p->val[v].last >= a->split; }

static void mark_again(struct again *a)
{
    for (val v = 0; v < a->n_val; v++) a->copy[v] = VAL_NONE, a->can[v] = false;
    for (int32_t i = 0; i < a->split; i++) {
        const struct op *op = &a->p->op[i];
        if (op->dst == VAL_NONE || !op_def(op->kind)->small || op_def(op->kind)->adds || op->kind == OP_ROPE_TABLE) continue; /* sines are dear */
        bool can = a->p->val[op->dst].t.type; /* opaque ones may depend on more than their sources */
        for (int k = 0; k < OP_SRC && can; k++) {
            val s = op->src[k];
            can = s == VAL_NONE || !a->p->val[s].temp || a->can[s] || crosses(a, s);
        }
        a->can[op->dst] = can;
    }
}

static val again_of(struct again *a, val v)
{
    if (v == VAL_NONE || v >= a->n_val || a->writer[v] < 0 || !a->can[v]) return v;
    if (a->copy[v] != VAL_NONE) return a->copy[v];
    struct plan *p = a->p;
    struct op op = p->op[a->writer[v]];
    for (int k = 0; k < OP_SRC; k++) op.src[k] = again_of(a, op.src[k]);
    p->val[p->n_val] = p->val[v];
    p->val[p->n_val].keep = false;
    op.dst = a->copy[v] = p->n_val++;
    a->op[a->n++] = op;
    return op.dst;
}

static status make_again(struct plan *p, const struct grad *g, struct err *e)
{
    int32_t after = p->n_op - p->split;
    TRY(plan_reserve(p, p->split, e));
    struct again a = { .p = p, .writer = g->writer, .n_val = g->n_val, .split = p->split };
    a.can = mem_calloc((size_t)a.n_val, sizeof *a.can);
    a.copy = mem_calloc((size_t)a.n_val, sizeof *a.copy);
    a.op = mem_calloc((size_t)p->n_op, sizeof *a.op);
    status st = a.can && a.copy && a.op ? OK : err_oom(e, "plan", (size_t)p->n_op * sizeof *a.op);
    if (st == OK) {
        mark_again(&a);
        for (int32_t i = 0; i < after; i++) {
            struct op op = p->op[p->split + i];
            for (int k = 0; k < OP_SRC; k++) op.src[k] = again_of(&a, op.src[k]);
            a.op[a.n++] = op;
        }
        memcpy(p->op + p->split, a.op, (size_t)a.n * sizeof *a.op);
        p->n_op = p->split + a.n;
        plan_relink(p);
    }
    mem_free(a.can);
    mem_free(a.copy);
    mem_free(a.op);
    return st;
}

/* ---- */

static status record(struct grad *g, struct grad_spec *s, struct err *e)
{
    struct plan *p = g->p;
    mark_wanted(g);
    for (val v = 0; v < p->n_val; v++) /* forms made before the split would be held */
        for (int i = 0; i < ARRAY_LEN(p->val[v].quant); i++) p->val[v].quant[i] = VAL_NONE;
    TRY(walk(g, e));
    TRY(make_again(p, g, e));
    TRY(plan_reserve(p, 1, e));
    s->dx = s->x == VAL_NONE ? VAL_NONE : g->of[s->x];
    if (s->dx != VAL_NONE && !p->val[s->dx].temp) s->dx = op_scale(p, s->dx, 1); /* y = x: dy itself */
    if (s->dx != VAL_NONE) plan_keep(p, s->dx);
    return OK;
}

status plan_backward(struct plan *p, struct grad_spec *s, struct err *e)
{
    assert(p->split == 0 && s->y != VAL_NONE);
    TRY(op_attn_make_whole(p, e));
    struct grad g = { .p = p, .s = s, .n_val = p->n_val };
    p->split = p->n_op;
    g.wanted = mem_calloc((size_t)p->n_val + 1, sizeof *g.wanted);
    g.writer = mem_calloc((size_t)p->n_val + 1, sizeof *g.writer);
    g.of = mem_calloc((size_t)p->n_val + 1, sizeof *g.of);
    g.own = mem_calloc((size_t)p->n_val + 1, sizeof *g.own);
    status st = g.wanted && g.writer && g.of && g.own ? record(&g, s, e) : err_oom(e, "backward pass", (size_t)p->n_val * sizeof *g.of);
    mem_free(g.wanted);
    mem_free(g.writer);
    mem_free(g.of);
    mem_free(g.own);
    return st;
}

/* grad_ops - how each op passes a gradient on: given dy, that of its result, what is recorded for those of its sources and of its trained weights. */
#include "ggml-like/grad.h"
#include "ggml-like/ops_int.h"

/* A trained vector: the sum over the rows of dy, or of dy times x. */
static void vector(struct grad *g, const struct op *op, int k, val dy, val x, int64_t len)
{
    val to = grad_to(g, op, k);
    if (to != VAL_NONE) op_sum_rows(grad_plan(g), dy, x, to, len);
}

/* ---- additions and factors ---- */

void op_back_add(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], dy);
    grad_add(g, op->src[1], dy);
}

void op_back_bias(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], dy);
    vector(g, op, 1, dy, VAL_NONE, 1);
}

void op_back_scale(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], op_scale(grad_plan(g), dy, op->arg.scale.s));
}

void op_back_mul(struct grad *g, const struct op *op, val dy)
{
    for (int i = 0; i < 2; i++)
        if (grad_wants(g, op->src[i])) grad_add(g, op->src[i], op_mul(grad_plan(g), dy, op->src[1 - i]));
}

void op_back_mul_vector(struct grad *g, const struct op *op, val dy)
{
    if (grad_wants(g, op->src[0])) grad_add(g, op->src[0], op_mul_vector(grad_plan(g), dy, op->src[1]));
    vector(g, op, 1, dy, op->src[0], 1);
}

void op_back_scale_runs(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    if (grad_wants(g, op->src[0])) grad_add(g, op->src[0], op_scale_runs(p, dy, op->src[1]));
    vector(g, op, 1, dy, op->src[0], op_shape(p, op->dst)->ne[0] / op_shape(p, op->src[1])->ne[0]);
}

void op_back_gate(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    if (grad_wants(g, op->src[0])) grad_add(g, op->src[0], op_gate(p, dy, op->src[1]));
    if (grad_wants(g, op->src[1])) grad_add(g, op->src[1], op_gate_grad(p, dy, op->src[0], op->src[1]));
}

void op_back_row_factor(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], op_row_factor(grad_plan(g), dy, op->arg.factor.scale, op->arg.factor.floor));
}

void op_back_embed(struct grad *g, const struct op *op, val dy)
{
    val to = grad_to(g, op, 0);
    if (to != VAL_NONE) op_scatter(grad_plan(g), dy, to, false);
}

void op_back_add_position(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], dy);
    val to = grad_to(g, op, 1);
    if (to != VAL_NONE) op_scatter(grad_plan(g), dy, to, true);
}

/* ---- bends ---- */

void op_back_softcap(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], op_act_grad(grad_plan(g), BEND_SOFTCAP, dy, op->src[0], VAL_NONE, op->arg.scale.s, NULL));
}

void op_back_clamp(struct grad *g, const struct op *op, val dy)
{
    const float range[4] = { op->arg.clamp.lo, op->arg.clamp.hi };
    grad_add(g, op->src[0], op_act_grad(grad_plan(g), BEND_CLAMP, dy, op->src[0], VAL_NONE, 0, range));
}

/* OP_ACT, OP_SILU_MUL, OP_GELU_MUL: the other factor's gradient is the same product with dy in its place. */
void op_back_act(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    val gate = op->src[0], up = op->src[1];
    bool plain = op->kind == OP_ACT;
    enum act act = plain ? op->arg.act.act : op->kind == OP_SILU_MUL ? ACT_SILU : ACT_GELU_TANH;
    float limit = plain ? op->arg.act.limit : 0;
    if (grad_wants(g, gate)) grad_add(g, gate, op_act_grad(p, act, dy, gate, up, limit, plain ? op->arg.act.param : NULL));
    if (!grad_wants(g, up)) return;
    if (act == ACT_CLAMPED_SWISH) grad_add(g, up, op_act_grad(p, BEND_CLAMPED_UP, dy, gate, up, limit, NULL));
    else grad_add(g, up, op_act_mul(p, act, gate, dy, limit));
}

/* ---- norms ---- */

/* A trained factor meets the normalised input. */
void op_back_rms_norm(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    val x = op->src[0], w = op->src[1], to = grad_to(g, op, 1);
    float eps = op->arg.norm.eps;
    int64_t dim = op->arg.norm.dim;
    if (grad_wants(g, x)) grad_add(g, x, op_norm_grad(p, NORM_RMS, dy, x, w, eps, dim));
    if (to != VAL_NONE) op_sum_rows(p, dy, op_head_norm(p, x, VAL_NONE, eps, dim), to, 1);
}

void op_back_layer_norm(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    val x = op->src[0], w = op->src[1], to = grad_to(g, op, 1);
    float eps = op->arg.norm.eps;
    int64_t dim = op->arg.norm.dim;
    if (grad_wants(g, x)) grad_add(g, x, op_norm_grad(p, NORM_LAYER, dy, x, w, eps, dim));
    if (to != VAL_NONE) op_sum_rows(p, dy, op_layer_norm(p, x, VAL_NONE, VAL_NONE, eps, dim), to, 1);
    vector(g, op, 2, dy, VAL_NONE, 1);
}

void op_back_l2_norm(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], op_norm_grad(grad_plan(g), NORM_L2, dy, op->src[0], VAL_NONE, op->arg.norm.eps, op->arg.norm.dim));
}

/* ---- rows and columns ---- */

void op_back_rows(struct grad *g, const struct op *op, val dy) { grad_add(g, op->src[0], op_rows_grad(grad_plan(g), dy)); }

void op_back_cols(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    grad_add(g, op->src[0], op_cols_grad(p, dy, op->src[1], op_shape(p, op->src[0])->ne[0]));
}

void op_back_slice(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], op_slice_grad(grad_plan(g), dy, op->arg.slice.width, op->arg.slice.first, op->arg.slice.n));
}

void op_back_join(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    int64_t a = op->arg.join.a, b = op->arg.join.b;
    if (grad_wants(g, op->src[0])) grad_add(g, op->src[0], op_slice(p, dy, a + b, 0, a));
    if (!grad_wants(g, op->src[1])) return;
    val db = op_slice(p, dy, a + b, a, b);
    bool shared = op_shape(p, op->src[1])->ne[0] != op_shape(p, db)->ne[0];
    grad_add(g, op->src[1], shared ? op_sum_runs(p, db, b) : db);
}

/* ---- positions and attention ---- */

void op_back_rope(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], op_rope_back(grad_plan(g), dy, op->src[1], op->arg.rope.head_dim, op->arg.rope.first, op->arg.rope.neox));
}

/* plan_backward has turned those over keys of their own pass into OP_ATTN_WHOLE. */
void op_back_attn(struct grad *g, const struct op *op, val dy) { grad_refuse(g, "over the keys of an earlier layer"); }

/* Values that lie in the keys' rows get their part from there. */
void op_back_attn_whole(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    struct attn_spec s = op_attn_spec(op);
    val q = op->src[0], k = op->src[2], own = op->src[3], d = op_attn_grad(p, &s, q, k, own, op->dst, dy);
    int64_t nq = (int64_t)s.n_head * s.head_dim, nk = (int64_t)s.n_head_kv * s.head_dim, nv = (int64_t)s.n_head_kv * s.head_dim_v, n = nq + nk + nv;
    if (grad_wants(g, q)) grad_add(g, q, op_slice(p, d, n, 0, nq));
    if (grad_wants(g, k)) grad_add(g, k, op_slice(p, d, n, nq, nk));
    if (!grad_wants(g, own == VAL_NONE ? k : own)) return;
    val dv = op_slice(p, d, n, nq + nk, nv);
    if (own != VAL_NONE) grad_add(g, own, dv);
    else grad_add(g, k, s.head_dim == s.head_dim_v ? dv : op_slice_grad(p, dv, s.head_dim, 0, s.head_dim_v));
}

/* ---- matrices ---- */

/* The floats that op_quantized, or op_head_matmul, made v of. */
static val floats_of(const struct grad *g, val v)
{
    const struct op *q = grad_writer(g, v);
    return q && (q->kind == OP_QUANT || q->kind == OP_HEAD_QUANT) ? q->src[0] : v;
}

/* The rows of a matrix that an op used. */
static val rows_of(struct plan *p, val w, int64_t n)
{
    struct tensor t = *op_shape(p, w);
    if (t.ne[1] == n) return w;
    t.ne[1] = n;
    return plan_weight(p, &t);
}

/* Sources w and w + 1: a matrix and what it is multiplied with. */
static void back_product(struct grad *g, const struct op *op, int w, val dy)
{
    struct plan *p = grad_plan(g);
    val x = floats_of(g, op->src[w + 1]), to = grad_to(g, op, w);
    int64_t n = op_shape(p, dy)->ne[0];
    if (grad_wants(g, x)) grad_add_transposed(g, x, rows_of(p, op->src[w], n), dy);
    if (to != VAL_NONE) op_outer(p, dy, x, rows_of(p, to, n));
}

void op_back_matmul(struct grad *g, const struct op *op, val dy)
{
    if (op->src[4] != VAL_NONE) back_product(g, op, 4, dy);
    back_product(g, op, 0, dy);
}

void op_back_head_matmul(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    val x = floats_of(g, op->src[1]), to = grad_to(g, op, 0);
    if (grad_wants(g, x)) grad_add(g, x, op_head_transposed(p, op->src[0], dy));
    if (to != VAL_NONE) op_head_outer(p, dy, x, to);
}

void op_back_conv(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    val to = grad_to(g, op, 1);
    if (grad_wants(g, op->src[0])) grad_add(g, op->src[0], op_conv_grad(p, dy, op->src[1]));
    if (to != VAL_NONE) op_conv_outer(p, dy, op->src[0], to);
    vector(g, op, 2, dy, VAL_NONE, 1);
}

void op_back_delta_rule(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    val d = op_delta_grad(p, op, dy);
    for (int64_t i = 0, first = 0, n = op_shape(p, d)->ne[0]; i < 4; i++) {
        int64_t part = op_shape(p, op->src[i])->ne[0];
        if (grad_wants(g, op->src[i])) grad_add(g, op->src[i], op_slice(p, d, n, first, part));
        first += part;
    }
}

void op_back_score_sum(struct grad *g, const struct op *op, val dy)
{
    struct op score = *grad_writer(g, op->src[0]);
    grad_add(g, op->src[1], op_score_grad(grad_plan(g), &score, grad_to(g, &score, 0)));
}

/* ---- mixtures of experts: the choice is what it was, its weights have a gradient ---- */

void op_back_moe_sum(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    if (grad_wants(g, op->src[0])) grad_add(g, op->src[0], op_moe_spread(p, dy, op->src[1], false));
    if (grad_wants(g, op->src[1])) grad_add(g, op->src[1], op_moe_weight_grad(p, dy, op->src[0], op->src[1]));
}

/* A bias of the choice has no part in the weights. */
void op_back_moe_sort(struct grad *g, const struct op *op, val dy)
{
    struct op route = *grad_writer(g, op->src[0]);
    if (grad_wants(g, route.src[0])) grad_add(g, route.src[0], op_route_grad(grad_plan(g), dy, route.src[0], op->dst, &route.arg.route));
}

void op_back_moe_bias(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], dy);
    val to = grad_to(g, op, 1);
    if (to != VAL_NONE) op_moe_scatter(grad_plan(g), dy, op->src[2], to);
}

void op_back_moe_scale(struct grad *g, const struct op *op, val dy)
{
    grad_add(g, op->src[0], op_moe_scale(grad_plan(g), dy, op->src[1], op->src[2]));
}

void op_back_moe_matmul(struct grad *g, const struct op *op, val dy)
{
    struct plan *p = grad_plan(g);
    val x = op->src[3], route = op->src[2], to = grad_to(g, op, 0);
    bool sorted = p->val[x].sorted;
    if (grad_wants(g, x)) {
        val d = op_moe_transposed(p, op->src[0], dy, route);
        grad_add(g, x, sorted ? d : op_moe_gather(p, d, route));
    }
    if (to != VAL_NONE) op_moe_outer(p, dy, sorted ? x : op_moe_spread(p, x, route, true), route, to);
}

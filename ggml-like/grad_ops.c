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
    const struct op table = *grad_writer(g, op->src[1]);
    grad_add(g, op->src[0], op_rope_back(grad_plan(g), dy, &table.arg.table.spec, op->arg.rope.head_dim, op->arg.rope.first, op->arg.rope.neox));
}

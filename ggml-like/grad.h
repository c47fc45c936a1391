/* grad - backward passes as recorded ops. The equations of a layer are recorded forwards as always; plan_backward then walks them from the end and
 * records, behind them, the ops that carry a gradient from the result to what is wanted. Each kind of op has one function for that, in op_table's `back`.
 * Values from before the split are held (plan.h) where the ops behind it read them, unless they are cheap to compute once more from others. */
#pragma once
#include "ggml-like/ops.h"

struct grad_spec {
    const float *param; /* weights whose data lie in [param, param + n_param) are trained (all of them F32): their gradient is added */
    float *grad;        /* at the same place of grad */
    int64_t n_param;
    val y, dy;          /* the result and its gradient (plan_input, same shape). y = the doubles of op_score: dy VAL_NONE, batch->weight is the gradient */
    val x;              /* value whose gradient is wanted; VAL_NONE: none */
    val dx;             /* out: that gradient, kept; VAL_NONE: y does not depend on x */
};
/* plan_backward - behind all forward ops, before plan_finish. ERR_USAGE names an op that a gradient has to pass and cannot. */
status plan_backward(struct plan *p, struct grad_spec *s, struct err *e) MUST_USE;

/* ---- for back functions: op wrote a value whose gradient is dy ---- */
/* grad_wants - does anything wanted lie upstream of v? grad_add - dv is (a part of) v's gradient; dropped where nothing is wanted.
 * grad_to - source k of op is a trained weight: the value that its gradient is added to, else VAL_NONE. A trained source that is not asked about
 * has no gradient, which is refused. grad_writer - the op that wrote v, NULL for none. grad_refuse - why this op has no backward here. */
bool grad_wants(const struct grad *g, val v);
void grad_add(struct grad *g, val v, val dv);
/* grad_add_transposed - dy w is a part of v's gradient. */
void grad_add_transposed(struct grad *g, val v, val w, val dy);
val grad_to(struct grad *g, const struct op *op, int k);
const struct op *grad_writer(const struct grad *g, val v);
void grad_refuse(struct grad *g, const char *why);
struct plan *grad_plan(const struct grad *g);

void op_back_embed(struct grad *g, const struct op *op, val dy);
void op_back_rows(struct grad *g, const struct op *op, val dy);
void op_back_rms_norm(struct grad *g, const struct op *op, val dy);
void op_back_layer_norm(struct grad *g, const struct op *op, val dy);
void op_back_l2_norm(struct grad *g, const struct op *op, val dy);
void op_back_add(struct grad *g, const struct op *op, val dy);
void op_back_bias(struct grad *g, const struct op *op, val dy);
void op_back_scale(struct grad *g, const struct op *op, val dy);
void op_back_softcap(struct grad *g, const struct op *op, val dy);
void op_back_act(struct grad *g, const struct op *op, val dy);
void op_back_mul(struct grad *g, const struct op *op, val dy);
void op_back_mul_vector(struct grad *g, const struct op *op, val dy);
void op_back_clamp(struct grad *g, const struct op *op, val dy);
void op_back_gate(struct grad *g, const struct op *op, val dy);
void op_back_scale_runs(struct grad *g, const struct op *op, val dy);
void op_back_slice(struct grad *g, const struct op *op, val dy);
void op_back_join(struct grad *g, const struct op *op, val dy);
void op_back_cols(struct grad *g, const struct op *op, val dy);
void op_back_add_position(struct grad *g, const struct op *op, val dy);
void op_back_row_factor(struct grad *g, const struct op *op, val dy);
void op_back_rope(struct grad *g, const struct op *op, val dy);
void op_back_dropout(struct grad *g, const struct op *op, val dy);
void op_back_matmul(struct grad *g, const struct op *op, val dy);
void op_back_attn_whole(struct grad *g, const struct op *op, val dy);
void op_back_attn(struct grad *g, const struct op *op, val dy);
void op_back_score_sum(struct grad *g, const struct op *op, val dy);
void op_back_moe_sort(struct grad *g, const struct op *op, val dy);
void op_back_moe_matmul(struct grad *g, const struct op *op, val dy);
void op_back_moe_bias(struct grad *g, const struct op *op, val dy);
void op_back_moe_scale(struct grad *g, const struct op *op, val dy);
void op_back_moe_sum(struct grad *g, const struct op *op, val dy);
void op_back_conv(struct grad *g, const struct op *op, val dy);
void op_back_head_matmul(struct grad *g, const struct op *op, val dy);
void op_back_delta_rule(struct grad *g, const struct op *op, val dy);

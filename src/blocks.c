/* blocks - attention and feed-forward blocks that most architectures share. A block does what the layer has weights for, so that a row in an
 * architecture's table is enough to add a bias, a norm or experts. */
#include "src/arch.h"
#include "src/model_int.h"

static val clamped(const struct build *b, val x)
{
    float c = b->m->hp.clamp_kqv;
    return c > 0 ? op_clamp(b->p, x, -c, c) : x;
}

val self_attention(const struct build *b, int il, val h)
{
    val q = clamped(b, project(b, il, W_ATTN_Q, W_BIAS_Q, h)), k = VAL_NONE, v = VAL_NONE;
    if (layer_of(b, il)->il_kv == il) {
        k = clamped(b, project(b, il, W_ATTN_K, W_BIAS_K, h));
        v = clamped(b, project(b, il, W_ATTN_V, W_BIAS_V, h));
        k = rope(b, il, head_norm(b, il, k, W_K_NORM));
    }
    q = rope(b, il, head_norm(b, il, q, W_Q_NORM));
    if (b->m->hp.temp_scale != 0) q = op_row_factor(b->p, q, b->m->hp.temp_scale, (float)b->m->hp.temp_floor);
    val a = last_rows(b, il, attention(b, il, q, k, v));
    return project(b, il, W_ATTN_O, W_BIAS_O, norm(b, il, a, W_ATTN_SUB_NORM));
}

val dense(const struct build *b, int il, val h)
{
    const struct arch *arch = b->m->arch;
    const struct tensor *up = model_weight(b->m, il, W_FFN_UP);
    bool gated = model_weight(b->m, il, W_FFN_GATE) || up->ne[1] == 2 * layer_of(b, il)->n_ff;
    val y;
    if (gated) {
        val g = project(b, il, W_FFN_GATE, W_BIAS_GATE, h);
        y = op_act_mul(b->p, arch->act, g, project(b, il, W_FFN_UP, W_BIAS_UP, h), 0);
    } else {
        y = op_act(b->p, arch->act, project(b, il, W_FFN_UP, W_BIAS_UP, h));
    }
    return project(b, il, W_FFN_DOWN, W_BIAS_DOWN, norm(b, il, y, W_FFN_SUB_NORM));
}

/* The dense experts that every row passes, behind a gate of their own where there is one. */
static val shared_experts(const struct build *b, int il, val h)
{
    val g = op_matmul(b->p, weight(b, il, W_GATE_SHARED), h), u = op_matmul(b->p, weight(b, il, W_UP_SHARED), h);
    val y = op_matmul(b->p, weight(b, il, W_DOWN_SHARED), op_act_mul(b->p, b->m->arch->act, g, u, 0));
    val gate = weight(b, il, W_SHARED_ROUTER);
    return gate == VAL_NONE ? y : op_gate(b->p, y, op_matmul(b->p, gate, h));
}

val mixture(const struct build *b, int il, val h, val router_in)
{
    const struct hparams *hp = &b->m->hp;
    struct plan *p = b->p;
    struct route_spec s = {
        .n_expert = (int32_t)hp->n_expert,
        .n_used = (int32_t)hp->n_expert_used,
        .n_group = (int32_t)hp->n_expert_group,
        .n_group_used = (int32_t)hp->n_expert_group_used,
        .func = hp->expert_func ? (enum route_func)hp->expert_func : ROUTE_SOFTMAX,
        .norm = hp->expert_norm != 0,
        .best_one = hp->expert_best_one != 0,
        .scale = hp->expert_scale,
    };
    val logits = op_bias(p, op_matmul(p, weight(b, il, W_ROUTER), router_in), weight(b, il, W_BIAS_ROUTER));
    val route = op_route(p, logits, weight(b, il, W_CHOICE_BIAS), &s);
    val both = weight(b, il, W_GATE_UP_EXPS), g, u;
    if (both == VAL_NONE) {
        g = op_moe_bias(p, op_moe_matmul(p, weight(b, il, W_GATE_EXPS), h, route), weight(b, il, W_BIAS_GATE_EXPS), route);
        u = op_moe_bias(p, op_moe_matmul(p, weight(b, il, W_UP_EXPS), h, route), weight(b, il, W_BIAS_UP_EXPS), route);
    } else {
        val x = op_moe_matmul(p, both, h, route);
        g = op_slice(p, x, 2 * hp->n_ff_expert, 0, hp->n_ff_expert);
        u = op_slice(p, x, 2 * hp->n_ff_expert, hp->n_ff_expert, hp->n_ff_expert);
    }
    val y = op_act_mul(p, b->m->arch->act, g, u, 7.0f /* gpt-oss: swiglu_limit */);
    y = op_moe_bias(p, op_moe_matmul(p, weight(b, il, W_DOWN_EXPS), y, route), weight(b, il, W_BIAS_DOWN_EXPS), route);
    y = op_moe_sum(p, op_moe_scale(p, y, weight(b, il, W_EXPS_SCALE), route), route);
    return model_weight(b->m, il, W_GATE_SHARED) ? op_add(p, y, shared_experts(b, il, h)) : y;
}

val feed_forward(const struct build *b, int il, val h)
{
    return layer_of(b, il)->kind & LAYER_MOE ? mixture(b, il, h, h) : dense(b, il, h);
}

val standard_layer(const struct build *b, int il, val x)
{
    val a = self_attention(b, il, norm(b, il, x, W_ATTN_NORM));
    x = residual(b, last_rows(b, il, x), norm(b, il, a, W_POST_ATTN_NORM));
    val f = feed_forward(b, il, norm(b, il, x, W_FFN_NORM));
    return residual(b, x, norm(b, il, f, W_POST_FFN_NORM));
}

val parallel_layer(const struct build *b, int il, val x)
{
    val h = norm(b, il, x, W_ATTN_NORM), own = model_weight(b->m, il, W_ATTN_NORM_2) ? norm(b, il, x, W_ATTN_NORM_2) : h;
    val a = self_attention(b, il, own);
    x = last_rows(b, il, x);
    val g = model_weight(b->m, il, W_FFN_NORM) ? norm(b, il, x, W_FFN_NORM) : last_rows(b, il, h);
    return residual(b, residual(b, x, a), feed_forward(b, il, g));
}

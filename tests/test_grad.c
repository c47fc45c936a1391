/* test_grad - backward passes: the gradient of every kind of op against central differences of a random linear functional, and the same bits whether a pass
 * is held or computed once more, whatever the number of threads. A kind that has a backward and no example here fails. */
#include "ggml-like/cpu.h"
#include "ggml-like/grad.h"
#include "ggml-like/kernels/kernels.h"
#include "tests/test.h"

enum { ROWS = 5, OUT = 3, COLS = 32, PARAMS = 4096, THREADS = 3, VOCAB = 9, CTX = 8 };

/* One recorded example: inputs and weights lie on odd multiples of 1/16, so that bends at multiples of 1/8 are never within a step. */
struct bench {
    struct kernels k;
    const struct example *ex;
    float x[ROWS * COLS], param[PARAMS], grad[PARAMS], dy[ROWS * COLS * 4], fixed[PARAMS];
    int64_t n_param, n_fixed;
    struct layer_state state[2];
    float cache[2][2][CTX * COLS], past[2][3 * COLS], memory[2][2 * 16 * 16];
    struct batch_segment seg[2];
    struct batch batch;
    /* as recorded last */
    struct plan p;
    struct grad_spec s;
    val y;
    int32_t covered; /* ops of the kind in the forward pass */
};

struct example {
    enum op_kind kind;
    const char *name;
    val (*record)(struct bench *b, struct plan *p, val x);
    int arg;
    double step; /* of differences; 0 = 1/64, whose truncation is below the rounding of floats */
};

static float odd(uint64_t *seed)
{
    float a = ((float)(test_rand(seed) % 10) + 0.5f) / 8;
    return test_rand(seed) % 2 ? a : -a;
}

static struct tensor f32(float *data, int64_t ne0, int64_t ne1)
{
    struct tensor t = { 0 };
    tensor_shape(&t, dtype_by_id(GGUF_F32), ne0, ne1, 1, 1);
    t.data = data;
    return t;
}

/* A trained weight, and one that is not. */
static val trained(struct bench *b, struct plan *p, int64_t ne0, int64_t ne1)
{
    struct tensor t = f32(b->param + b->n_param, ne0, ne1);
    b->n_param += ne0 * ne1;
    CHECK(b->n_param <= PARAMS);
    return plan_weight(p, &t);
}

static val frozen(struct bench *b, struct plan *p, int64_t ne0, int64_t ne1)
{
    struct tensor t = f32(b->fixed + b->n_fixed, ne0, ne1);
    b->n_fixed += ne0 * ne1;
    return plan_weight(p, &t);
}

static val left(struct plan *p, val x) { return op_slice(p, x, COLS, 0, COLS / 2); }
static val right(struct plan *p, val x) { return op_slice(p, x, COLS, COLS / 2, COLS / 2); }

static val ex_embed(struct bench *b, struct plan *p, val x) { return op_mul(p, op_embed(p, trained(b, p, COLS, VOCAB), COLS), x); }
static val ex_rows(struct bench *b, struct plan *p, val x) { return op_rows(p, op_mul_vector(p, x, trained(b, p, COLS, 1))); }
static val ex_rms(struct bench *b, struct plan *p, val x) { return op_rms_norm(p, x, trained(b, p, COLS, 1), 1e-3f); }
static val ex_rms_frozen(struct bench *b, struct plan *p, val x) { return op_rms_norm(p, x, frozen(b, p, COLS, 1), 1e-3f); }
static val ex_heads(struct bench *b, struct plan *p, val x) { return op_head_norm(p, op_scale(p, x, 0.5f), trained(b, p, 8, 1), 1e-3f, 8); }
static val ex_bare(struct bench *b, struct plan *p, val x) { return op_rms_norm(p, x, VAL_NONE, 1e-3f); }
static val ex_add(struct bench *b, struct plan *p, val x) { return op_add(p, op_add(p, x, op_mul_vector(p, x, trained(b, p, COLS, 1))), x); }
static val ex_bias(struct bench *b, struct plan *p, val x) { return op_mul(p, op_bias(p, x, trained(b, p, COLS, 1)), x); }
static val ex_scale(struct bench *b, struct plan *p, val x) { return op_scale(p, x, -1.75f); }
static val ex_softcap(struct bench *b, struct plan *p, val x) { return op_softcap(p, x, 0.9f); }
static val ex_act(struct bench *b, struct plan *p, val x) { return op_act(p, (enum act)b->ex->arg, op_scale(p, x, 2)); }
static val ex_act_mul(struct bench *b, struct plan *p, val x) { return op_act_mul(p, (enum act)b->ex->arg, left(p, x), right(p, x), 0.75f); }
static val ex_swish(struct bench *b, struct plan *p, val x) { return op_act_mul(p, ACT_CLAMPED_SWISH, x, VAL_NONE, 0.75f); }
static val ex_xielu(struct bench *b, struct plan *p, val x) { return op_xielu(p, x, 0.8f, 0.6f, 0.5f, -0.25f); }
static val ex_dropout(struct bench *b, struct plan *p, val x) { return op_mul(p, op_dropout(p, x, 0.4f, 3), x); }
static val ex_cols(struct bench *b, struct plan *p, val x)
{
    static int32_t index[7] = { 30, 2, 2, 9, 0, 31, 17 };
    struct tensor t = { 0 };
    tensor_shape(&t, dtype_by_id(GGUF_I32), 7, 1, 1, 1);
    t.data = index;
    return op_cols(p, op_mul(p, x, x), plan_weight(p, &t));
}
static val ex_slice(struct bench *b, struct plan *p, val x) { return op_slice(p, op_mul(p, x, x), 8, 3, 4); }
static val ex_join(struct bench *b, struct plan *p, val x) { return op_join(p, left(p, x), 4, op_slice(p, x, 8, 1, 3), 3); }
static val ex_join_one(struct bench *b, struct plan *p, val x) { return op_join(p, left(p, x), 4, op_slice(p, x, COLS, 20, 6), 6); }
static val ex_layer_norm(struct bench *b, struct plan *p, val x)
{
    int64_t dim = b->ex->arg, n = dim < 0 ? COLS : dim;
    val w = trained(b, p, n, 1);
    return op_layer_norm(p, x, w, trained(b, p, n, 1), 1e-3f, dim < 0 ? 8 : dim);
}
static val ex_layer_bare(struct bench *b, struct plan *p, val x) { return op_layer_norm(p, x, VAL_NONE, VAL_NONE, 1e-3f, COLS); }
static val ex_l2(struct bench *b, struct plan *p, val x) { return op_l2_norm(p, x, 1e-3f, 8); }
static val ex_mul(struct bench *b, struct plan *p, val x) { return op_mul(p, op_mul(p, x, x), op_scale(p, x, 0.5f)); }
static val ex_clamp(struct bench *b, struct plan *p, val x) { return op_clamp(p, x, -0.5f, 0.75f); }
static val ex_gate(struct bench *b, struct plan *p, val x) { return op_gate(p, x, op_slice(p, x, 8, 5, 1)); }
static val ex_scale_runs(struct bench *b, struct plan *p, val x) { return op_scale_runs(p, x, trained(b, p, 4, 1)); }
static val ex_position(struct bench *b, struct plan *p, val x) { return op_mul(p, op_add_position(p, x, trained(b, p, COLS, 3)), x); }
static val ex_row_factor(struct bench *b, struct plan *p, val x) { return op_row_factor(p, x, 0.3f, 1); }
static val ex_rope(struct bench *b, struct plan *p, val x)
{
    struct rope_spec s = { .n_rot = 6, .base = 100, .freq_scale = 1, .mscale = 1.25f };
    return op_mul(p, op_rope(p, x, op_rope_table(p, &s), 8, 2, b->ex->arg), x);
}

static val ex_matmul(struct bench *b, struct plan *p, val x)
{
    val w = trained(b, p, COLS, 20);
    return b->ex->arg ? op_matmul_rows(p, w, x, b->ex->arg) : op_matmul(p, w, x);
}
static val ex_low_rank(struct bench *b, struct plan *p, val x)
{
    struct tensor w = f32(b->fixed, COLS, 20), up = f32(b->param, 4, 20), down = f32(b->param + 80, COLS, 4);
    val v = plan_weight(p, &w);
    plan_low_rank(p, v, &up, &down, 0.5f);
    b->n_param = 80 + 4 * COLS;
    val y = op_matmul(p, v, x), u = plan_weight(p, &w);
    plan_low_rank(p, u, &up, &down, 0.25f); /* twice to the same place */
    return op_mul(p, y, op_matmul(p, u, x));
}
static val ex_attn(struct bench *b, struct plan *p, val x)
{
    bool whole = b->ex->arg == 3;
    struct attn_spec s = { .n_head = 4, .n_head_kv = 2, .head_dim = 8, .head_dim_v = 8, .scale = 0.4f };
    if (whole) s.n_head = 2, s.n_head_kv = 1, s.head_dim = 16;
    if (b->ex->arg == 1) s.window = 2, s.cap = 1.5f;
    if (b->ex->arg == 2) s.alibi = 2;
    for (int i = 0; whole && i < 2; i++) {
        struct kv_cache *c = &b->state[i].kv;
        c->n_head = 1, c->k_dim = 16, c->k_row = c->v_row = 64, c->v_in_k = true, c->v = c->k;
    }
    val k = op_mul_vector(p, left(p, x), trained(b, p, COLS / 2, 1)), v = whole ? VAL_NONE : op_mul(p, right(p, x), right(p, x));
    if (b->ex->arg == 4) return op_attn_whole(p, &s, x, k, v, frozen(b, p, 4, 1));
    return op_attention(p, &s, x, k, v, b->ex->arg == 2 ? frozen(b, p, 4, 1) : VAL_NONE);
}
static val ex_score(struct bench *b, struct plan *p, val x)
{
    val h = op_mul_vector(p, x, trained(b, p, COLS, 1));
    return op_score(p, frozen(b, p, COLS, VOCAB + 2), h, VOCAB, b->ex->arg ? 0.25f : 0, b->ex->arg ? 2.0f : 0);
}

enum { EXPERTS = 6, EXPERT_FF = 8 };
static struct tensor stack(float *data, int64_t ne0, int64_t ne1)
{
    struct tensor t = { 0 };
    tensor_shape(&t, dtype_by_id(GGUF_F32), ne0, ne1, EXPERTS, 1);
    t.data = data;
    return t;
}
static val trained_stack(struct bench *b, struct plan *p, int64_t ne0, int64_t ne1)
{
    struct tensor t = stack(b->param + b->n_param, ne0, ne1);
    b->n_param += ne0 * ne1 * EXPERTS;
    return plan_weight(p, &t);
}
/* Logits so far apart that no difference changes the choice, or, for the sparse mixer, which of them are near the best. */
static val choice(struct bench *b, struct plan *p, val x, const struct route_spec *s)
{
    static const float apart[EXPERTS] = { 0.4f, 1.5f, -0.2f, 0.1f, 1.0f, -0.7f }, close[EXPERTS] = { 9, 19.75f, 8, 20, 10, 5 };
    bool mixer = s->func == ROUTE_SPARSE_MIXER;
    memcpy(b->fixed, mixer ? close : apart, sizeof apart);
    b->n_fixed = EXPERTS;
    struct tensor bias = f32(b->fixed, EXPERTS, 1);
    val logits = op_bias(p, op_scale(p, op_slice(p, x, COLS, 3, EXPERTS), mixer ? 0.05f : 0.125f), plan_weight(p, &bias));
    return op_route(p, logits, s->func == ROUTE_SIGMOID ? frozen(b, p, EXPERTS, 1) : VAL_NONE, s);
}
static const struct route_spec routers[] = {
    { EXPERTS, 2, 0, 0, ROUTE_SOFTMAX, true, false, 0 },
    { EXPERTS, 3, 0, 0, ROUTE_SOFTMAX, false, false, 1.5f },
    { EXPERTS, 2, 3, 2, ROUTE_SIGMOID, true, false, 2.5f },
    { EXPERTS, 3, 0, 0, ROUTE_SOFTMAX_CHOSEN, false, false, 0 },
    { EXPERTS, 2, 0, 0, ROUTE_SPARSE_MIXER, false, false, 0 },
};
static val ex_route(struct bench *b, struct plan *p, val x) /* x has a part in the weights only */
{
    val route = choice(b, p, x, &routers[b->ex->arg]), h = op_embed(p, frozen(b, p, COLS, VOCAB), COLS);
    struct tensor w = stack(b->fixed + b->n_fixed, COLS, EXPERT_FF);
    return op_moe_sum(p, op_moe_matmul(p, plan_weight(p, &w), h, route), route);
}
static val ex_heads_matmul(struct bench *b, struct plan *p, val x)
{
    struct tensor t = { 0 };
    tensor_shape(&t, dtype_by_id(GGUF_F32), 8, 12, 4, 1);
    t.data = b->param;
    b->n_param = 4 * 8 * 12;
    return op_head_matmul(p, plan_weight(p, &t), x);
}
static val ex_conv(struct bench *b, struct plan *p, val x)
{
    val w = trained(b, p, 3, COLS);
    return op_mul(p, op_conv(p, 0, x, w, trained(b, p, COLS, 1)), x);
}
/* Two heads of keys, four of values. */
static val ex_delta(struct bench *b, struct plan *p, val x)
{
    bool plain = b->ex->arg & 1;
    struct delta_spec s = { 0, 2, 4, 5, 6, b->ex->arg & 2, plain };
    if (b->ex->arg & 4) { /* columns: a whole block and a part of one */
        struct delta_spec wide = { 0, 1, 1, 5, 80, false, plain };
        val v = op_join(p, op_join(p, x, COLS, x, COLS), 2 * COLS, left(p, x), COLS / 2), one = op_slice(p, x, COLS, 7, 1);
        return op_delta_rule(p, &wide, op_slice(p, x, COLS, 0, 5), op_l2_norm(p, op_slice(p, x, COLS, 9, 5), 1e-3f, 5), v, op_scale(p, one, 0.5f), one);
    }
    val q = op_l2_norm(p, op_slice(p, x, COLS, 0, 10), 1e-3f, 5), k = op_l2_norm(p, op_slice(p, x, COLS, 10, 10), 1e-3f, 5);
    val v = op_slice(p, x, 8, 1, 6), g = op_scale(p, op_act(p, ACT_SOFTPLUS, op_slice(p, x, COLS, 20, 4)), -1);
    return op_delta_rule(p, &s, q, k, v, g, op_act(p, ACT_SIGMOID, op_slice(p, x, COLS, 28, 4)));
}
static val ex_experts(struct bench *b, struct plan *p, val x)
{
    val route = choice(b, p, x, &routers[0]);
    val h = op_act(p, ACT_SILU, op_moe_bias(p, op_moe_matmul(p, trained_stack(b, p, COLS, EXPERT_FF), x, route), trained(b, p, EXPERT_FF, EXPERTS), route));
    val y = op_moe_matmul(p, trained_stack(b, p, EXPERT_FF, COLS), h, route);
    return op_moe_sum(p, op_moe_scale(p, y, frozen(b, p, EXPERTS, 1), route), route);
}

static const struct example examples[] = {
    { OP_EMBED, "embed", ex_embed },
    { OP_ROWS, "rows", ex_rows },
    { OP_RMS_NORM, "rms_norm", ex_rms },
    { OP_RMS_NORM, "rms_norm of a frozen weight", ex_rms_frozen },
    { OP_RMS_NORM, "rms_norm of heads", ex_heads },
    { OP_RMS_NORM, "rms_norm without weight", ex_bare },
    { OP_ADD, "add", ex_add },
    { OP_BIAS, "bias", ex_bias },
    { OP_SCALE, "scale", ex_scale },
    { OP_SOFTCAP, "softcap", ex_softcap },
    { OP_ACT, "silu", ex_act, ACT_SILU },
    { OP_ACT, "gelu", ex_act, ACT_GELU_TANH },
    { OP_ACT, "gelu_erf", ex_act, ACT_GELU_ERF },
    { OP_ACT, "relu", ex_act, ACT_RELU },
    { OP_ACT, "relu^2", ex_act, ACT_RELU_SQUARED },
    { OP_ACT, "sigmoid", ex_act, ACT_SIGMOID },
    { OP_ACT, "tanh", ex_act, ACT_TANH },
    { OP_ACT, "softplus", ex_act, ACT_SOFTPLUS },
    { OP_ACT, "clamped swish alone", ex_swish },
    { OP_ACT, "xielu", ex_xielu },
    { OP_ACT, "clamped swish times", ex_act_mul, ACT_CLAMPED_SWISH },
    { OP_ACT, "gelu_erf times", ex_act_mul, ACT_GELU_ERF },
    { OP_ACT, "relu^2 times", ex_act_mul, ACT_RELU_SQUARED },
    { OP_SILU_MUL, "silu_mul", ex_act_mul, ACT_SILU },
    { OP_GELU_MUL, "gelu_mul", ex_act_mul, ACT_GELU_TANH },
    { OP_DROPOUT, "dropout", ex_dropout },
    { OP_COLS, "columns", ex_cols },
    { OP_SLICE, "slice", ex_slice },
    { OP_JOIN, "join", ex_join },
    { OP_JOIN, "join of one run", ex_join_one },
    { OP_LAYER_NORM, "layer_norm", ex_layer_norm, COLS },
    { OP_LAYER_NORM, "layer_norm of heads", ex_layer_norm, 8 },
    { OP_LAYER_NORM, "layer_norm of heads, each its own", ex_layer_norm, -1 },
    { OP_LAYER_NORM, "layer_norm without weights", ex_layer_bare },
    { OP_L2_NORM, "l2_norm", ex_l2 },
    { OP_MUL, "mul", ex_mul },
    { OP_MUL_VECTOR, "mul_vector", ex_rows },
    { OP_CLAMP, "clamp", ex_clamp },
    { OP_GATE, "gate", ex_gate },
    { OP_SCALE_RUNS, "scale_runs", ex_scale_runs },
    { OP_ADD_POSITION, "add_position", ex_position },
    { OP_ROW_FACTOR, "row_factor", ex_row_factor },
    { OP_ROPE, "rope of pairs", ex_rope, 0 },
    { OP_ROPE, "rope of halves", ex_rope, 1 },
    { OP_MATMUL, "matmul", ex_matmul },
    { OP_MATMUL, "matmul of some rows", ex_matmul, 13 },
    { OP_MATMUL, "matmul with a low-rank part", ex_low_rank },
    { OP_ATTN, "attention", ex_attn },
    { OP_ATTN, "attention with window and cap", ex_attn, 1 },
    { OP_ATTN, "attention with slopes and sinks", ex_attn, 2 },
    { OP_ATTN, "attention with values in the keys", ex_attn, 3 },
    { OP_ATTN_WHOLE, "attention without a cache", ex_attn, 4 },
    { OP_SCORE_SUM, "score", ex_score },
    { OP_HEAD_MATMUL, "matmul by heads", ex_heads_matmul },
    { OP_CONV, "conv", ex_conv },
    { OP_DELTA_RULE, "delta rule", ex_delta, 0 },
    { OP_DELTA_RULE, "delta rule, tiled", ex_delta, 2 },
    { OP_DELTA_RULE, "delta rule, two blocks", ex_delta, 4 },
    { OP_DELTA_RULE, "scan of Mamba-2", ex_delta, 1 },
    { OP_MOE_SORT, "a router: softmax", ex_route, 0 },
    { OP_MOE_SORT, "a router: softmax, not normalised", ex_route, 1 },
    { OP_MOE_SORT, "a router: sigmoid, groups", ex_route, 2 },
    { OP_MOE_SORT, "a router: softmax of the chosen", ex_route, 3 },
    { OP_MOE_SORT, "a router: sparse mixer", ex_route, 4, 1.0 / 16 },
    { OP_MOE_MATMUL, "experts", ex_experts },
    { OP_MOE_BIAS, "experts with biases", ex_experts },
    { OP_MOE_SCALE, "experts with factors", ex_experts },
    { OP_MOE_SUM, "experts summed", ex_experts },
    { OP_SCORE_SUM, "score with scale and cap", ex_score, 1 },
};

/* ---- running ---- */

static const int32_t tokens[ROWS] = { 3, 8, 3, 0, 5 }, places[ROWS] = { 0, 1, 2, 0, 1 }, out_rows[OUT] = { 0, 2, 4 }, targets[ROWS] = { 8, 1, 5, 0, 3 };
static const float weights[ROWS] = { 1, 0.5f, 0, -2, 0.25f };

static void bench_open(struct bench *b, const struct example *ex, uint32_t features)
{
    *b = (struct bench){ .ex = ex };
    kernels_init(&b->k, features);
    uint64_t seed = 5;
    for (int i = 0; i < ROWS * COLS; i++) b->x[i] = odd(&seed);
    for (int i = 0; i < PARAMS; i++) b->param[i] = odd(&seed), b->fixed[i] = odd(&seed);
    for (size_t i = 0; i < ARRAY_LEN(b->dy); i++) b->dy[i] = test_randf(&seed);
    const struct dtype *t = dtype_by_id(GGUF_F32);
    for (int i = 0; i < 2; i++) {
        b->state[i].kv = (struct kv_cache){ t, t, CTX, 2, 8, 8, false, 32, 32, (uint8_t *)b->cache[i][0], (uint8_t *)b->cache[i][1] };
        b->state[i].rec = (struct recurrent_state){ 3, COLS, 2 * 16 * 16, b->past[i], b->memory[i] };
        b->seg[i] = (struct batch_segment){ i ? 3 : 0, i ? 2 : 3, 0, &b->state[i] };
    }
    b->batch = (struct batch){ .n_rows = ROWS, .n_out = OUT, .token = tokens, .pos = places, .out = out_rows, .target = targets, .weight = weights,
                               .draw = 7, .seg = b->seg, .n_seg = 2 };
    plan_init(&b->p, &b->k);
}

static void bench_record(struct bench *b, bool backward)
{
    struct err e = { 0 };
    struct plan *p = &b->p;
    plan_reset(p, ROWS, OUT, ROWS);
    p->precise = true;
    CHECK(plan_reserve(p, PLAN_CHUNK, &e) == OK);
    b->n_param = b->n_fixed = 0;
    val x = plan_input(p, COLS, ROWS);
    plan_bind(p, x, b->x);
    b->y = b->ex->record(b, p, x);
    plan_keep(p, b->y);
    b->covered = 0;
    for (int32_t i = 0; i < p->n_op; i++) b->covered += p->op[i].kind == b->ex->kind;
    if (backward) {
        const struct tensor *t = &p->val[b->y].t;
        bool score = !t->type;
        b->s = (struct grad_spec){ .param = b->param, .grad = b->grad, .n_param = b->n_param, .y = b->y, .x = x };
        b->s.dy = score ? VAL_NONE : plan_input(p, t->ne[0], t->ne[1]);
        if (!score) plan_bind(p, b->s.dy, b->dy);
        CHECK_MSG(plan_backward(p, &b->s, &e) == OK, "%s: %s", b->ex->name, e.text);
    }
    CHECK_MSG(plan_finish(p, &e) == OK, "%s", e.text);
}

/* What a run leaves: the functional, the result's and the gradients' bits. */
struct result {
    double loss;
    float y[ROWS * COLS * 4], dx[ROWS * COLS], grad[PARAMS];
};

static void read_value(const struct plan_exec *x, val v, float *to, size_t cap)
{
    const struct value *y = &x->plan->val[v];
    size_t n = y->t.type ? (size_t)tensor_elements(&y->t) * sizeof(float) : (size_t)x->batch->n_rows * sizeof(double);
    CHECK(n <= cap);
    memcpy(to, plan_data(x, v), n <= cap ? n : cap);
}

static double functional(const struct bench *b, const float *y)
{
    const struct tensor *t = &b->p.val[b->y].t;
    double sum = 0;
    if (t->type)
        for (int64_t i = 0; i < tensor_elements(t); i++) sum += (double)y[i] * (double)b->dy[i];
    else
        for (int64_t i = 0; i < ROWS; i++) sum += ((const double *)(const void *)y)[i] * (double)weights[i];
    return sum;
}

/* apart: the scratch block is wiped at the split. */
static void bench_run(struct bench *b, int threads, bool apart, struct result *r)
{
    struct pool *pool = NULL;
    struct plan_share share[THREADS];
    CHECK(pool_open(&pool, threads, NULL) == OK);
    size_t scratch = plan_grad_bytes(64), bytes = (b->p.bytes + 127) & ~(size_t)63, held = (b->p.held_bytes + 127) & ~(size_t)63;
    struct plan_exec x = { .plan = &b->p, .pool = pool, .batch = &b->batch, .base = aligned_alloc(64, bytes), .held = aligned_alloc(64, held),
                           .thread_base = aligned_alloc(64, scratch * (size_t)threads), .thread_bytes = scratch, .share = share };
    memset(x.base, 0xff, bytes);
    memset(x.held, 0xff, held);
    memset(b->grad, 0, sizeof b->grad);
    memset(r, 0, sizeof *r);
    if (apart) {
        x.end_op = b->p.split;
        plan_run(&x);
        read_value(&x, b->y, r->y, sizeof r->y);
        memset(x.base, 0xff, bytes);
        x.first_op = b->p.split;
        x.end_op = 0;
        plan_run(&x);
    } else {
        plan_run(&x);
        read_value(&x, b->y, r->y, sizeof r->y);
    }
    r->loss = functional(b, r->y);
    if (b->p.split && b->s.dx != VAL_NONE) read_value(&x, b->s.dx, r->dx, sizeof r->dx);
    memcpy(r->grad, b->grad, sizeof r->grad);
    free(x.base);
    free(x.held);
    free(x.thread_base);
    pool_close(pool);
}

/* ---- differences ---- */

/* Fourth order. */
static double slope(struct bench *b, float *at)
{
    static struct result r;
    const double h = b->ex->step > 0 ? b->ex->step : 1.0 / 64;
    float was = *at;
    double sum = 0;
    const double step[4] = { h, -h, 2 * h, -2 * h }, factor[4] = { 8, -8, -1, 1 };
    for (int i = 0; i < 4; i++) {
        *at = (float)((double)was + step[i]);
        bench_run(b, 1, false, &r);
        sum += factor[i] * r.loss;
    }
    *at = was;
    return sum / (12 * h);
}

static void compare(struct bench *b, const char *what, float *at, const float *got, int64_t n)
{
    double off = 0, size = 0, worst = 0, top = 0;
    for (int64_t i = 0; i < n; i++) {
        double want = slope(b, at + i), d = fabs(want - (double)got[i]);
        off += d * d, size += want * want;
        if (d > worst) worst = d;
        if (fabs(want) > top) top = fabs(want);
    }
    CHECK_MSG(size > 0, "%s: %s has no gradient", b->ex->name, what);
    CHECK_MSG(sqrt(off) <= 1e-3 * sqrt(size) && worst <= 1e-3 * top, "%s: %s off by %g, worst %g of %g", b->ex->name, what, sqrt(off / size), worst, top);
}

static void check_slopes(const struct example *ex)
{
    static struct bench b;
    static struct result r;
    bench_open(&b, ex, 0);
    bench_record(&b, true);
    CHECK_MSG(b.covered > 0, "%s: records no op %s", ex->name, op_name(ex->kind));
    bench_run(&b, 1, false, &r);
    bench_record(&b, false);
    compare(&b, "x", b.x, r.dx, ROWS * COLS);
    if (b.n_param) compare(&b, "weights", b.param, r.grad, b.n_param);
    plan_free(&b.p);
}

TEST(every_backward_is_the_derivative)
{
    bool seen[OP_KINDS] = { false };
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        test_begin("gradient of %s", examples[i].name);
        seen[examples[i].kind] = true;
        check_slopes(&examples[i]);
    }
    for (int kind = 0; kind < OP_KINDS; kind++)
        if (op_def((enum op_kind)kind)->back) CHECK_MSG(seen[kind], "op %s has a backward and no example", op_name((enum op_kind)kind));
}

TEST(threads_and_split_change_no_bit)
{
    static struct bench b;
    static struct result want, got;
    struct cpu_info cpu;
    cpu_detect(&cpu);
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        bench_open(&b, &examples[i], cpu.features);
        bench_record(&b, true);
        bench_run(&b, 1, false, &want);
        for (int threads = 1; threads <= THREADS; threads++)
            for (int apart = 0; apart < 2; apart++) {
                bench_run(&b, threads, apart, &got);
                CHECK_MSG(!memcmp(&want, &got, sizeof got), "%s: other bits with %d threads%s", b.ex->name, threads, apart ? ", apart" : "");
            }
        plan_free(&b.p);
    }
}

/* ---- what is recorded ---- */

static val ex_twice(struct bench *b, struct plan *p, val x) { return op_mul(p, op_gate_grad(p, x, x, x), x); }
static val ex_twice_aside(struct bench *b, struct plan *p, val x)
{
    val y = op_embed(p, frozen(b, p, COLS, VOCAB), COLS);
    return op_add(p, x, op_gate_grad(p, y, y, y));
}
static val earlier_keys(struct bench *b, struct plan *p, val x)
{
    struct attn_spec s = { .n_head = 4, .n_head_kv = 2, .head_dim = 8, .head_dim_v = 8, .scale = 0.4f };
    return op_attention(p, &s, x, VAL_NONE, VAL_NONE, VAL_NONE);
}
static val trained_sinks(struct bench *b, struct plan *p, val x)
{
    struct attn_spec s = { .n_head = 4, .n_head_kv = 2, .head_dim = 8, .head_dim_v = 8, .scale = 0.4f };
    struct tensor t = f32(b->param, 4, 1);
    t.name = "sinks";
    return op_attention(p, &s, x, left(p, x), right(p, x), plan_weight(p, &t));
}
static val ex_norms(struct bench *b, struct plan *p, val x)
{
    val h = op_rms_norm(p, x, frozen(b, p, COLS, 1), 1e-3f), g = op_mul_vector(p, h, frozen(b, p, COLS, 1));
    op_scale(p, op_softcap(p, x, 3), 2); /* nobody reads it */
    return op_add(p, x, op_silu_mul(p, g, op_mul(p, h, h)));
}

static status record(struct bench *b, val (*fn)(struct bench *b, struct plan *p, val x), bool prune, struct err *e)
{
    struct plan *p = &b->p;
    plan_reset(p, ROWS, ROWS, ROWS);
    CHECK(plan_reserve(p, PLAN_CHUNK, e) == OK);
    val x = plan_input(p, COLS, ROWS);
    b->y = fn(b, p, x);
    plan_keep(p, b->y);
    if (prune) plan_prune(p);
    b->s = (struct grad_spec){ .param = b->param, .grad = b->grad, .n_param = PARAMS, .y = b->y, .dy = plan_input(p, COLS, ROWS), .x = x };
    return plan_backward(p, &b->s, e);
}

TEST(ops_without_backward_are_refused_by_name)
{
    static struct bench b;
    struct err e = { 0 };
    bench_open(&b, &examples[0], 0);
    static const struct {
        val (*fn)(struct bench *b, struct plan *p, val x);
        const char *why;
    } cases[] = {
        { ex_twice, "op gate_grad has no backward" },
        { earlier_keys, "op attention has no backward over the keys of an earlier layer" },
        { trained_sinks, "op attention has no gradient of its weight sinks" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        e = (struct err){ 0 };
        CHECK(record(&b, cases[i].fn, false, &e) == ERR_USAGE);
        CHECK_STR(e.text, cases[i].why);
    }
    CHECK_MSG(record(&b, ex_twice_aside, false, &e) == OK, "nothing wanted lies upstream of the op: %s", e.text);
    plan_free(&b.p);
}

/* All of this pass is cheap: nothing but the input is needed for its gradient. */
TEST(cheap_values_are_made_again_not_held)
{
    static struct bench b;
    struct err e = { 0 };
    bench_open(&b, &examples[0], 0);
    for (int prune = 0; prune < 2; prune++) {
        CHECK(record(&b, ex_norms, prune, &e) == OK && plan_finish(&b.p, &e) == OK);
        CHECK_MSG(b.p.held_bytes == 0, "%zu bytes are held", b.p.held_bytes);
        CHECK(b.p.split == (prune ? 5 : 7));
        int32_t n = b.p.n_op;
        plan_prune(&b.p);
        CHECK_MSG(b.p.n_op == n - (prune ? 0 : 2) && b.p.split == 5, "%d of %d ops, %d of them before the split", b.p.n_op, n, b.p.split);
    }
    plan_free(&b.p);
}

SUITE(grad, T(every_backward_is_the_derivative), T(threads_and_split_change_no_bit), T(ops_without_backward_are_refused_by_name),
      T(cheap_values_are_made_again_not_held));

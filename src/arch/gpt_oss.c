/* gpt-oss - OpenAI's gpt-oss-20b and -120b: biases everywhere, one learned logit per head in the softmax's denominator (sinks), every other layer with
 * a window of 128, YaRN whose ramp begins and ends between dimensions, experts with clamped SwiGLU, weights from a softmax over the chosen.
 * Checkpoints have all experts in one tensor, [in][2 ff] with gate and up alternating, or as MXFP4 blocks, [2 ff][in]. Source: the model card
 * (2025). llama.cpp rounds the ends of the ramp. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

enum { PATTERN = 2 };

static const char *const hf[] = { "GptOssForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HPARAMS_EXPERTS("num_local_experts", "intermediate_size"),
    HPARAM_WINDOW(0),
    { "rope.scaling.yarn_exact", NULL, HP_BOOL, HP(yarn_exact), 0, 1, 1 },
    HPARAMS_END,
};

#define EXPERTS HF_LAYER "mlp.experts."
static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1 },
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    { W_SINKS, "blk.%d.attn_sinks.weight", HF_LAYER "self_attn.sinks", DIM_N_HEAD, DIM_1 },
    { W_FFN_NORM, "blk.%d.post_attention_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1 },
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", HF_LAYER "mlp.router.weight", DIM_EMBD, DIM_EXPERT },
    { W_BIAS_ROUTER, "blk.%d.ffn_gate_inp.bias", HF_LAYER "mlp.router.bias", DIM_EXPERT, DIM_1 },
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", EXPERTS "gate_up_proj", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", EXPERTS "gate_up_proj", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", EXPERTS "down_proj", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT },
    { W_BIAS_GATE_EXPS, "blk.%d.ffn_gate_exps.bias", EXPERTS "gate_up_proj_bias", DIM_FF_EXPERT, DIM_EXPERT, WEIGHT_VECTOR },
    { W_BIAS_UP_EXPS, "blk.%d.ffn_up_exps.bias", EXPERTS "gate_up_proj_bias", DIM_FF_EXPERT, DIM_EXPERT, WEIGHT_VECTOR },
    { W_BIAS_DOWN_EXPS, "blk.%d.ffn_down_exps.bias", EXPERTS "down_proj_bias", DIM_EMBD, DIM_EXPERT, WEIGHT_VECTOR },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    m->hp.expert_func = ROUTE_SOFTMAX_CHOSEN;
    return window_layers(m, PATTERN, e);
}

/* ---- checkpoints ---- */

static status keys(struct import *im, struct err *e)
{
    double limit = import_number(im, "swiglu_limit", 7), alpha = import_number(im, "swiglu_alpha", 1.702);
    if (limit != 7 || alpha != 1.702) return err_set(e, ERR_FORMAT, "config.json: swiglu_limit, swiglu_alpha are %g, %g, expected 7, 1.702", limit, alpha);
    if (import_number(im, "rope_parameters.truncate|rope_scaling.truncate", 1) != 0) import_put_bool(im, "rope.scaling.yarn_exact", false);
    return import_windows(im, PATTERN, e);
}

/* What one stack of experts is made of: [experts][in][n * step], of which every step-th column from `first` on is wanted, as rows. */
struct stack {
    const char *plain;
    int64_t n_expert, in, n, first, step;
};

static status load_plain(struct import *im, const struct stack *s, int il, int64_t expert, float *out, struct err *e)
{
    float *x;
    int64_t width = s->n * s->step, shape[3] = { s->n_expert, s->in, width };
    TRY(import_load_item(im, s->plain, il, expert, shape, 3, &x, e));
    for (int64_t i = 0; i < s->in; i++)
        for (int64_t r = 0; r < s->n; r++) out[r * s->in + i] = x[i * width + s->first + r * s->step];
    mem_free(x);
    return OK;
}

static status load_experts(struct import *im, const struct model *m, int il, bool down, int64_t first, float *out, struct err *e)
{
    const struct hparams *hp = &m->hp;
    const struct stack gate_up = { EXPERTS "gate_up_proj", hp->n_expert, hp->n_embd, hp->n_ff_expert, first, 2 };
    const struct stack back = { EXPERTS "down_proj", hp->n_expert, hp->n_ff_expert, hp->n_embd, 0, 1 };
    const struct stack *s = down ? &back : &gate_up;
    for (int64_t x = 0; x < s->n_expert; x++) TRY(load_plain(im, s, il, x, out + x * s->n * s->in, e));
    return OK;
}

static status load_gate(struct import *im, const struct model *m, int il, float *out, struct err *e) { return load_experts(im, m, il, false, 0, out, e); }
static status load_up(struct import *im, const struct model *m, int il, float *out, struct err *e) { return load_experts(im, m, il, false, 1, out, e); }
static status load_down(struct import *im, const struct model *m, int il, float *out, struct err *e) { return load_experts(im, m, il, true, 0, out, e); }

static status load_bias(struct import *im, const struct model *m, int il, int64_t first, float *out, struct err *e)
{
    float *x;
    int64_t n = m->hp.n_expert * m->hp.n_ff_expert, shape[2] = { m->hp.n_expert, 2 * m->hp.n_ff_expert };
    TRY(import_load(im, EXPERTS "gate_up_proj_bias", il, shape, 2, &x, e));
    for (int64_t i = 0; i < n; i++) out[i] = x[2 * i + first];
    mem_free(x);
    return OK;
}

static status load_gate_bias(struct import *im, const struct model *m, int il, float *out, struct err *e) { return load_bias(im, m, il, 0, out, e); }
static status load_up_bias(struct import *im, const struct model *m, int il, float *out, struct err *e) { return load_bias(im, m, il, 1, out, e); }

/* Of MXFP4 blocks, [experts][2 ff][in] with gate and up alternating. */
static int64_t gate_row(const struct model *m, int il, int64_t i) { return 2 * i; }
static int64_t up_row(const struct model *m, int il, int64_t i) { return 2 * i + 1; }
static int64_t down_row(const struct model *m, int il, int64_t i) { return i; }

static const struct weight_import parts[] = {
    { .id = W_GATE_EXPS, .load = load_gate, .row = gate_row },
    { .id = W_UP_EXPS, .load = load_up, .row = up_row },
    { .id = W_DOWN_EXPS, .load = load_down, .row = down_row },
    { .id = W_BIAS_GATE_EXPS, .load = load_gate_bias },
    { .id = W_BIAS_UP_EXPS, .load = load_up_bias },
    { .id = W_COUNT },
};
static const char *const loaded[] = { "mlp.experts.", NULL };
static const struct arch_import import = { .keys = keys, .weights = parts, .ignore = loaded };

const struct arch arch_gpt_oss = {
    .name = "gpt-oss", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .act = ACT_CLAMPED_SWISH, .setup = setup, .import = &import
};

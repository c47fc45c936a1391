/* phimoe - Phi-3.5-MoE: LayerNorm with biases, biases everywhere, LongRoPE, and in every layer a mixture whose two experts are chosen one
 * after the other (SparseMixer). llama.cpp takes RMS norms and a plain softmax instead. Sources: Abdin et al. 2024; Liu et al. 2024 (GRIN).
 */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "PhiMoEForCausalLM", "PhimoeForCausalLM", NULL };

static const struct hparam_row hparams[] = { HPARAMS_EXPERTS("num_local_experts", NULL), HPARAMS_END };

#define MOE HF_LAYER "block_sparse_moe."
#define MLP HF_LAYER "mlp."

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_BIAS_OUTPUT, "output.bias", "lm_head.bias", DIM_VOCAB, DIM_1, WEIGHT_OPTIONAL },
    ROWS_ROPE_LONG,
    ROWS_LAYER_NORM(W_OUTPUT_NORM, "output_norm", "model.norm", 0),
    ROWS_LAYER_NORM(W_ATTN_NORM, "blk.%d.attn_norm", HF_LAYER "input_layernorm", 0),
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    ROWS_LAYER_NORM(W_FFN_NORM, "blk.%d.ffn_norm", HF_LAYER "post_attention_layernorm", 0),
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", MOE "gate.weight|" MLP "router.weight", DIM_EMBD, DIM_EXPERT, 0 },
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", MOE "experts.%e.w1.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", MOE "experts.%e.w3.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", MOE "experts.%e.w2.weight", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    if (m->hp.n_ff_expert == 0) m->hp.n_ff_expert = m->layer[0].hp.n_ff;
    m->hp.expert_func = ROUTE_SPARSE_MIXER;
    return OK;
}

static status keys(struct import *im, struct err *e)
{
    double jitter = import_number(im, "router_jitter_noise", 0.01);
    if (fabs(jitter - 0.01) > 1e-9) return err_set(e, ERR_FORMAT, "router_jitter_noise is %g: only 0.01 is supported", jitter);
    /* LongRoPE's factor of the angles' cosines is given here, not computed from the lengths. */
    double small = import_number(im, "rope_parameters.short_mscale|rope_scaling.short_mscale", 0);
    double large = import_number(im, "rope_parameters.long_mscale|rope_scaling.long_mscale", small);
    if (small != large) return err_set(e, ERR_FORMAT, "short_mscale is %g and long_mscale %g: only equal ones are supported", small, large);
    if (small > 0) import_put_float(im, "rope.scaling.attn_factor", small);
    return OK;
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_phimoe = {
    .name = "phimoe",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .layer_norm = true,
    .setup = setup,
    .import = &import,
};

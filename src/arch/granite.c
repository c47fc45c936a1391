/* granite - IBM Granite 3 and its mixtures (granitemoe): the Llama block with factors on embeddings, attention logits, both residual branches and
 * (as divisor) the final logits. Mixtures take the softmax over the chosen experts; some have a dense shared expert beside them.
 * Source: Granite 3.0 Language Models (2024). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "GraniteForCausalLM", NULL };
static const char *const hf_moe[] = { "GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM", NULL };

#define HPARAMS_SCALES                                                                                                                     \
    { "attention.scale", "attention_multiplier", HP_FLOAT, HP(attn_scale), 0, 1e9, HP_ABSENT },                                            \
    { "embedding_scale", "embedding_multiplier", HP_FLOAT, HP(embd_scale), 0, 1e9, HP_ABSENT },                                            \
    { "residual_scale", "residual_multiplier", HP_FLOAT, HP(residual_scale), 0, 1e9, HP_ABSENT },                                          \
    { "logit_scale", "logits_scaling", HP_FLOAT, HP(logit_scale), 1e-9, 1e9, NAN }

static const struct hparam_row hparams[] = { HPARAMS_SCALES, HPARAMS_END };

static const struct hparam_row hparams_moe[] = {
    HPARAMS_SCALES,
    { "expert_count", "num_local_experts", HP_INT, HP(n_expert), 1, EXPERT_LIMIT, NAN },
    { "expert_shared_feed_forward_length", "shared_intermediate_size", HP_INT, HP(n_ff_shared), 0, 1 << 22, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROW_ROPE_FREQS,
    ROWS_NORMS,
    ROWS_ATTENTION(WEIGHT_ROPE_PAIRS),
    ROWS_ATTENTION_BIAS(WEIGHT_ROPE_PAIRS, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    ROWS_GATED_FFN,
    ROWS_GATED_FFN_BIAS(WEIGHT_OPTIONAL),
    ROWS_END,
};

/* The checkpoint has gate above up in one matrix for each expert. */
#define MOE HF_LAYER "block_sparse_moe."
static const struct weight_row weights_moe[] = {
    ROWS_EMBEDDING,
    ROW_ROPE_FREQS,
    ROWS_NORMS,
    ROWS_ATTENTION(WEIGHT_ROPE_PAIRS),
    ROWS_ATTENTION_BIAS(WEIGHT_ROPE_PAIRS, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", MOE "router.layer.weight", DIM_EMBD, DIM_EXPERT },
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", MOE "input_linear.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", MOE "input_linear.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", MOE "output_linear.weight", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT },
    { W_GATE_SHARED, "blk.%d.ffn_gate_shexp.weight", HF_LAYER "shared_mlp.input_linear.weight", DIM_EMBD, DIM_FF_SHARED, WEIGHT_OPTIONAL },
    { W_UP_SHARED, "blk.%d.ffn_up_shexp.weight", HF_LAYER "shared_mlp.input_linear.weight", DIM_EMBD, DIM_FF_SHARED, WEIGHT_OPTIONAL },
    { W_DOWN_SHARED, "blk.%d.ffn_down_shexp.weight", HF_LAYER "shared_mlp.output_linear.weight", DIM_FF_SHARED, DIM_EMBD, WEIGHT_OPTIONAL },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    m->hp.logit_scale = 1.0f / m->hp.logit_scale;
    m->hp.n_ff_expert = m->layer[0].hp.n_ff;
    m->hp.expert_norm = 1;
    return OK;
}

static int64_t gate_row(const struct model *m, int il, int64_t i) { return i + i / m->hp.n_ff_expert * m->hp.n_ff_expert; }
static int64_t up_row(const struct model *m, int il, int64_t i) { return gate_row(m, il, i) + m->hp.n_ff_expert; }
static int64_t shared_gate_row(const struct model *m, int il, int64_t i) { return i; }
static int64_t shared_up_row(const struct model *m, int il, int64_t i) { return i + m->hp.n_ff_shared; }

static const struct weight_import parts[] = {
    { .id = W_GATE_EXPS, .row = gate_row },
    { .id = W_UP_EXPS, .row = up_row },
    { .id = W_GATE_SHARED, .row = shared_gate_row },
    { .id = W_UP_SHARED, .row = shared_up_row },
    { .id = W_COUNT },
};
static const struct arch_import import_moe = { .weights = parts };

const struct arch arch_granite = { .name = "granite", .hf = hf, .hparams = hparams, .weights = weights, .setup = setup };
const struct arch arch_granitemoe = {
    .name = "granitemoe", .hf = hf_moe, .hparams = hparams_moe, .weights = weights_moe, .setup = setup, .import = &import_moe
};

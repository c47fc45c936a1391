/* glm4 - GLM-4-0414 9B and 32B, GLM-Z1: the Llama block with norms behind attention and feed-forward block too, rope on adjacent pairs of
 * the first half of each head, biases on Q, K and V; gate and up in one matrix. Source: GLM team 2024. */
#include "src/arch/rows.h"
#include "src/model_int.h"

static const char *const hf[] = { "Glm4ForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    { "nextn_predict_layers", NULL, HP_INT, HP(n_nextn), 0, 1024, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    { W_POST_ATTN_NORM, "blk.%d.post_attention_norm.weight", HF_LAYER "post_self_attn_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_FFN_UP, "blk.%d.ffn_up.weight", HF_LAYER "mlp.gate_up_proj.weight", DIM_EMBD, DIM_FF_TWICE, 0 },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", HF_LAYER "mlp.down_proj.weight", DIM_FF, DIM_EMBD, 0 },
    { W_POST_FFN_NORM, "blk.%d.post_ffw_norm.weight", HF_LAYER "post_mlp_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    ROWS_END,
};

static status setup(struct model *m, struct err *e) { return drop_nextn(m, e); }

const struct arch arch_glm4 = { .name = "glm4", .hf = hf, .hparams = hparams, .weights = weights, .setup = setup };

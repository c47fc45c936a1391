/* seed_oss - Seed-OSS: the Llama block with biases on Q, K and V and wide heads. Source: Seed-OSS model card (ByteDance 2025). */
#include "src/arch/rows.h"

static const char *const hf[] = { "SeedOssForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1 },
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    { W_FFN_NORM, "blk.%d.post_attention_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1 },
    ROWS_GATED_FFN,
    ROWS_END,
};

const struct arch arch_seed_oss = { .name = "seed_oss", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true };

/* nemotron - Nemotron-3, 4, Minitron: LayerNorm whose checkpoint stores w - 1, rope on the first half of each head, a plain block of
 * squared ReLU. Source: Parmar et al. 2024. */
#include "src/arch/rows.h"
#include "src/import.h"

static const char *const hf[] = { "NemotronForCausalLM", NULL };

static const struct hparam_row hparams[] = { HP_LAYER_NORM_EPS, HPARAMS_END };

#define NORM_ROWS(id, gguf, hf)                                                                                                            \
    { id, gguf ".weight", hf ".weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE }, { id##_B, gguf ".bias", hf ".bias", DIM_EMBD, DIM_1, 0 }

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    NORM_ROWS(W_OUTPUT_NORM, "output_norm", "model.norm"),
    NORM_ROWS(W_ATTN_NORM, "blk.%d.attn_norm", HF_LAYER "input_layernorm"),
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    NORM_ROWS(W_FFN_NORM, "blk.%d.ffn_norm", HF_LAYER "post_attention_layernorm"),
    ROWS_PLAIN_FFN(HF_LAYER "mlp.up_proj", HF_LAYER "mlp.down_proj", 0, WEIGHT_OPTIONAL),
    ROWS_END,
};

static status keys(struct import *im, struct err *e)
{
    if (import_config(im, "hidden_act") && !import_is(im, "hidden_act", "relu2"))
        return err_set(e, ERR_FORMAT, "hidden_act: Nemotron is supported with relu2 only");
    return OK;
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_nemotron = {
    .name = "nemotron",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .layer_norm = true,
    .act = ACT_RELU_SQUARED,
    .import = &import,
};

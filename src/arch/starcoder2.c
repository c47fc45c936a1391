/* starcoder2 - StarCoder 2: the Llama order of blocks with LayerNorm, biases everywhere and a plain GELU (tanh form) block. Its sliding
 * window of 4096 has no key in GGUF files (llama.cpp sees everything). Source: Lozhkov et al. 2024. */
#include "src/arch/rows.h"
#include "src/import.h"

static const char *const hf[] = { "Starcoder2ForCausalLM", NULL };

static const struct hparam_row hparams[] = { HP_LAYER_NORM_EPS, HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_LAYER_NORM(W_OUTPUT_NORM, "output_norm", "model.norm", 0),
    ROWS_LAYER_NORM(W_ATTN_NORM, "blk.%d.attn_norm", HF_LAYER "input_layernorm", 0),
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    ROWS_LAYER_NORM(W_FFN_NORM, "blk.%d.ffn_norm", HF_LAYER "post_attention_layernorm", 0),
    ROWS_PLAIN_FFN(HF_LAYER "mlp.c_fc", HF_LAYER "mlp.c_proj", 0, WEIGHT_OPTIONAL),
    ROWS_END,
};

static status keys(struct import *im, struct err *e)
{
    if (import_config(im, "hidden_act") && !import_is(im, "hidden_act", "gelu_pytorch_tanh"))
        return err_set(e, ERR_FORMAT, "hidden_act: StarCoder 2 is supported with gelu_pytorch_tanh only");
    return OK;
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_starcoder2 = {
    .name = "starcoder2",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .layer_norm = true,
    .act = ACT_GELU_TANH,
    .import = &import,
};

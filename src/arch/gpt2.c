/* gpt2 - GPT-2: learned positions, LayerNorm, biases everywhere, GELU (tanh form). Hugging Face keeps its matrices as [in][out]. Source:
 * Radford et al. 2019. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "GPT2LMHeadModel", NULL };

static const struct hparam_row hparams[] = { HP_LAYER_NORM_EPS, HPARAMS_END };

/* The first release has no "transformer." in front. */
#define NAME(x) "transformer." x "|" x
static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", NAME("wte.weight"), DIM_EMBD, DIM_VOCAB, 0 },
    { W_POSITION, "position_embd.weight", NAME("wpe.weight"), DIM_EMBD, DIM_CTX, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    { W_OUTPUT_NORM, "output_norm.weight", NAME("ln_f.weight"), DIM_EMBD, DIM_1, 0 },
    { W_OUTPUT_NORM_B, "output_norm.bias", NAME("ln_f.bias"), DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", NAME("h.%d.ln_1.weight"), DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM_B, "blk.%d.attn_norm.bias", NAME("h.%d.ln_1.bias"), DIM_EMBD, DIM_1, 0 },
    { W_ATTN_QKV, "blk.%d.attn_qkv.weight", NAME("h.%d.attn.c_attn.weight"), DIM_EMBD, DIM_QKV, WEIGHT_TRANSPOSED },
    { W_BIAS_QKV, "blk.%d.attn_qkv.bias", NAME("h.%d.attn.c_attn.bias"), DIM_QKV, DIM_1, 0 },
    { W_ATTN_O, "blk.%d.attn_output.weight", NAME("h.%d.attn.c_proj.weight"), DIM_O, DIM_EMBD, WEIGHT_TRANSPOSED },
    { W_BIAS_O, "blk.%d.attn_output.bias", NAME("h.%d.attn.c_proj.bias"), DIM_EMBD, DIM_1, 0 },
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", NAME("h.%d.ln_2.weight"), DIM_EMBD, DIM_1, 0 },
    { W_FFN_NORM_B, "blk.%d.ffn_norm.bias", NAME("h.%d.ln_2.bias"), DIM_EMBD, DIM_1, 0 },
    { W_FFN_UP, "blk.%d.ffn_up.weight", NAME("h.%d.mlp.c_fc.weight"), DIM_EMBD, DIM_FF, WEIGHT_TRANSPOSED },
    { W_BIAS_UP, "blk.%d.ffn_up.bias", NAME("h.%d.mlp.c_fc.bias"), DIM_FF, DIM_1, 0 },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", NAME("h.%d.mlp.c_proj.weight"), DIM_FF, DIM_EMBD, WEIGHT_TRANSPOSED },
    { W_BIAS_DOWN, "blk.%d.ffn_down.bias", NAME("h.%d.mlp.c_proj.bias"), DIM_EMBD, DIM_1, 0 },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    for (int64_t il = 0; il < m->hp.n_layer; il++) m->layer[il].hp.no_rope = true;
    return OK;
}

static val embed(struct build *b, val x) { return op_add_position(b->p, x, weight(b, -1, W_POSITION)); }

static status keys(struct import *im, struct err *e)
{
    if (!import_is(im, "activation_function", "gelu_new") && import_config(im, "activation_function"))
        return err_set(e, ERR_FORMAT, "activation_function: GPT-2 is supported with gelu_new only");
    if (import_number(im, "scale_attn_by_inverse_layer_idx", 0) != 0)
        return err_set(e, ERR_FORMAT, "scale_attn_by_inverse_layer_idx is true: not supported");
    if (import_number(im, "scale_attn_weights", 1) == 0) return err_set(e, ERR_FORMAT, "scale_attn_weights is false: not supported");
    if (!import_config(im, "n_inner")) import_put_int(im, "feed_forward_length", 4 * import_int(im, "n_embd", 0));
    return OK;
}

static const char *const ignore[] = { ".attn.bias", ".attn.masked_bias", NULL };
static const struct arch_import import = { .keys = keys, .ignore = ignore };

const struct arch arch_gpt2 = { .name = "gpt2",
                                .hf = hf,
                                .hparams = hparams,
                                .weights = weights,
                                .layer_norm = true,
                                .act = ACT_GELU_TANH,
                                .setup = setup,
                                .embed = embed,
                                .import = &import };

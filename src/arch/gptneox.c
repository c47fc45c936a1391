/* gptneox - GPT-NeoX, Pythia, Dolly, StableLM alpha: LayerNorm, biases everywhere, rope on the first dimensions of each head, attention and
 * feed-forward block side by side (or one behind the other). Source: Black et al. 2022. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "GPTNeoXForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HP_LAYER_NORM_EPS,
    { "use_parallel_residual", "use_parallel_residual", HP_BOOL, HP(parallel), 0, 1, NAN },
    HPARAMS_END,
};

#define LAYER "gpt_neox.layers.%d."

static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "gpt_neox.embed_in.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight|embed_out.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    ROWS_LAYER_NORM(W_OUTPUT_NORM, "output_norm", "gpt_neox.final_layer_norm", 0),
    ROWS_LAYER_NORM(W_ATTN_NORM, "blk.%d.attn_norm", LAYER "input_layernorm", 0),
    ROWS_FUSED_ATTENTION(LAYER "attention.query_key_value", LAYER "attention.dense", 0, 0),
    ROWS_LAYER_NORM(W_FFN_NORM, "blk.%d.ffn_norm", LAYER "post_attention_layernorm", 0),
    ROWS_PLAIN_FFN(LAYER "mlp.dense_h_to_4h", LAYER "mlp.dense_4h_to_h", 0, 0),
    ROWS_END,
};

static val layer(const struct build *b, int il, val x) { return (b->m->hp.parallel ? parallel_layer : standard_layer)(b, il, x); }

static status keys(struct import *im, struct err *e)
{
    if (import_config(im, "hidden_act") && !import_is(im, "hidden_act", "gelu"))
        return err_set(e, ERR_FORMAT, "hidden_act: GPT-NeoX is supported with gelu only (the file does not tell them apart)");
    if (import_number(im, "attention_bias", 1) == 0) return err_set(e, ERR_FORMAT, "attention_bias is false: not supported for GPT-NeoX");
    import_put_bool(im, "use_parallel_residual", import_number(im, "use_parallel_residual", 1) != 0);
    int64_t n_embd = import_int(im, "hidden_size", 0), n_head = import_int(im, "num_attention_heads", 1);
    double part = import_number(im, "rope_parameters.partial_rotary_factor|rope_scaling.partial_rotary_factor|rotary_pct", 0.25);
    if (!(part > 0 && part <= 1)) return err_set(e, ERR_FORMAT, "rotary_pct is %g, expected more than 0 to 1", part);
    if (n_head > 0) import_put_int(im, "rope.dimension_count", import_whole((double)(n_embd / n_head) * part));
    import_drop(im, "attention.head_count_kv"); /* as many as heads: qkv_by_head */
    return OK;
}

static const struct weight_import parts[] = {
    { .id = W_ATTN_QKV, .row = qkv_by_head },
    { .id = W_BIAS_QKV, .row = qkv_by_head },
    { .id = W_COUNT },
};
static const char *const ignore[] = { ".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq", NULL };
static const struct arch_import import = { .keys = keys, .weights = parts, .ignore = ignore };

const struct arch arch_gptneox = {
    .name = "gptneox",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .layer_norm = true,
    .act = ACT_GELU_ERF,
    .layer = layer,
    .import = &import,
};

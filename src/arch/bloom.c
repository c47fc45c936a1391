/* bloom - BLOOM: ALiBi in place of positions, a LayerNorm behind the embedding, biases everywhere, GELU (tanh form). Sources: Le Scao et
 * al. 2022; Press et al. 2022 (ALiBi). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "BloomForCausalLM", "BloomModel", NULL };

static const struct hparam_row hparams[] = { HP_LAYER_NORM_EPS, HPARAMS_END };

/* Checkpoints have "transformer." in front or not. */
#define NAME(x) "transformer." x "|" x
#define ROW(id, gguf, x, ne0, ne1)                                                                                                         \
    {                                                                                                                                      \
        id, gguf, NAME(x), ne0, ne1, 0                                                                                                     \
    }

static const struct weight_row weights[] = {
    ROW(W_EMBD, "token_embd.weight", "word_embeddings.weight", DIM_EMBD, DIM_VOCAB),
    ROW(W_EMBD_NORM, "token_embd_norm.weight", "word_embeddings_layernorm.weight", DIM_EMBD, DIM_1),
    ROW(W_EMBD_NORM_B, "token_embd_norm.bias", "word_embeddings_layernorm.bias", DIM_EMBD, DIM_1),
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    ROW(W_OUTPUT_NORM, "output_norm.weight", "ln_f.weight", DIM_EMBD, DIM_1),
    ROW(W_OUTPUT_NORM_B, "output_norm.bias", "ln_f.bias", DIM_EMBD, DIM_1),
    ROW(W_ATTN_NORM, "blk.%d.attn_norm.weight", "h.%d.input_layernorm.weight", DIM_EMBD, DIM_1),
    ROW(W_ATTN_NORM_B, "blk.%d.attn_norm.bias", "h.%d.input_layernorm.bias", DIM_EMBD, DIM_1),
    ROW(W_ATTN_QKV, "blk.%d.attn_qkv.weight", "h.%d.self_attention.query_key_value.weight", DIM_EMBD, DIM_QKV),
    ROW(W_BIAS_QKV, "blk.%d.attn_qkv.bias", "h.%d.self_attention.query_key_value.bias", DIM_QKV, DIM_1),
    ROW(W_ATTN_O, "blk.%d.attn_output.weight", "h.%d.self_attention.dense.weight", DIM_O, DIM_EMBD),
    ROW(W_BIAS_O, "blk.%d.attn_output.bias", "h.%d.self_attention.dense.bias", DIM_EMBD, DIM_1),
    ROW(W_FFN_NORM, "blk.%d.ffn_norm.weight", "h.%d.post_attention_layernorm.weight", DIM_EMBD, DIM_1),
    ROW(W_FFN_NORM_B, "blk.%d.ffn_norm.bias", "h.%d.post_attention_layernorm.bias", DIM_EMBD, DIM_1),
    ROW(W_FFN_UP, "blk.%d.ffn_up.weight", "h.%d.mlp.dense_h_to_4h.weight", DIM_EMBD, DIM_FF),
    ROW(W_BIAS_UP, "blk.%d.ffn_up.bias", "h.%d.mlp.dense_h_to_4h.bias", DIM_FF, DIM_1),
    ROW(W_FFN_DOWN, "blk.%d.ffn_down.weight", "h.%d.mlp.dense_4h_to_h.weight", DIM_FF, DIM_EMBD),
    ROW(W_BIAS_DOWN, "blk.%d.ffn_down.bias", "h.%d.mlp.dense_4h_to_h.bias", DIM_EMBD, DIM_1),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    m->hp.alibi = 8;
    for (int64_t il = 0; il < m->hp.n_layer; il++) m->layer[il].hp.no_rope = true;
    return OK;
}

static val embed(struct build *b, val x) { return norm(b, -1, x, W_EMBD_NORM); }

static status keys(struct import *im, struct err *e)
{
    if (import_number(im, "apply_residual_connection_post_layernorm", 0) != 0)
        return err_set(e, ERR_FORMAT, "apply_residual_connection_post_layernorm is true: not supported");
    int64_t n_embd = import_int(im, "hidden_size|n_embed", 0);
    import_put_int(im, "embedding_length", n_embd);
    import_put_int(im, "context_length",
                   import_int(im, "seq_length", 2048)); /* ALiBi has no limit; BLOOM was trained with 2048 */
    import_put_int(im, "feed_forward_length", 4 * n_embd);
    import_drop(im, "attention.head_count_kv"); /* as many as heads: qkv_by_head */
    return OK;
}

static const struct weight_import parts[] = {
    { .id = W_ATTN_QKV, .row = qkv_by_head },
    { .id = W_BIAS_QKV, .row = qkv_by_head },
    { .id = W_COUNT },
};
static const struct arch_import import = { .keys = keys, .weights = parts };

const struct arch arch_bloom = {
    .name = "bloom",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .layer_norm = true,
    .act = ACT_GELU_TANH,
    .setup = setup,
    .embed = embed,
    .import = &import,
};

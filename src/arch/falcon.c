/* falcon - Falcon 7B, 40B, 180B and 11B: attention and feed-forward block side by side behind one LayerNorm or two, few KV heads, no
 * biases, GELU. Source: Almazrouei et al. 2023. Falcon-RW (ALiBi, blocks one behind the other) has no form in GGUF files. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "FalconForCausalLM", "RWForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HP_LAYER_NORM_EPS,
    { "context_length", "max_position_embeddings", HP_INT, HP(n_ctx_train), 1, 1 << 24, 2048 },
    HPARAMS_END,
};

#define LAYER "transformer.h.%d."

static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "transformer.word_embeddings.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    ROWS_LAYER_NORM(W_OUTPUT_NORM, "output_norm", "transformer.ln_f", 0),
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", LAYER "input_layernorm.weight|" LAYER "ln_mlp.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM_B, "blk.%d.attn_norm.bias", LAYER "input_layernorm.bias|" LAYER "ln_mlp.bias", DIM_EMBD, DIM_1, 0 },
    ROWS_LAYER_NORM_OPTIONAL(W_ATTN_NORM_2, "blk.%d.attn_norm_2", LAYER "ln_attn"),
    { W_ATTN_QKV, "blk.%d.attn_qkv.weight", LAYER "self_attention.query_key_value.weight", DIM_EMBD, DIM_QKV, 0 },
    { W_ATTN_O, "blk.%d.attn_output.weight", LAYER "self_attention.dense.weight", DIM_O, DIM_EMBD, 0 },
    { W_FFN_UP, "blk.%d.ffn_up.weight", LAYER "mlp.dense_h_to_4h.weight", DIM_EMBD, DIM_FF, 0 },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", LAYER "mlp.dense_4h_to_h.weight", DIM_FF, DIM_EMBD, 0 },
    ROWS_END,
};

static status keys(struct import *im, struct err *e)
{
    bool grouped = import_number(im, "new_decoder_architecture", 0) != 0;
    if (import_number(im, "alibi", 0) != 0) return err_set(e, ERR_FORMAT, "alibi is true: not supported for Falcon");
    if (import_number(im, "bias", 0) != 0) return err_set(e, ERR_FORMAT, "bias is true: not supported for Falcon");
    if (!grouped && import_number(im, "parallel_attn", 1) == 0)
        return err_set(e, ERR_FORMAT, "parallel_attn is false: not supported for Falcon");
    if (import_config(im, "activation") && !import_is(im, "activation", "gelu"))
        return err_set(e, ERR_FORMAT, "activation: Falcon is supported with gelu only");
    int64_t n_head = import_int(im, "num_attention_heads|n_head", 0), n_embd = import_int(im, "hidden_size", 0);
    int64_t n_kv = grouped                                    ? import_int(im, "num_kv_heads|n_head_kv", n_head)
                   : import_number(im, "multi_query", 1) != 0 ? 1
                                                              : n_head;
    if (!grouped && n_kv != 1) return err_set(e, ERR_FORMAT, "multi_query is false: not supported for Falcon");
    import_put_int(im, "attention.head_count_kv", n_kv);
    import_put_int(im, "feed_forward_length", import_int(im, "ffn_hidden_size", 4 * n_embd));
    import_put_int(im, "context_length", import_int(im, "max_position_embeddings", 2048));
    import_put_str(im, "tensor_data_layout", "jploski"); /* Q, then K, then V: the mark that other programs look for */
    return OK;
}

/* The checkpoint has each KV head's queries, its key and its value together. */
static int64_t qkv_row(const struct model *m, int il, int64_t i)
{
    const struct layer_params *l = &m->layer[il].hp;
    int64_t d = l->head_dim, group = l->n_head / l->n_head_kv, head = i / d, at = i % d;
    if (head < l->n_head) return (head / group * (group + 2) + head % group) * d + at;
    head -= l->n_head;
    return (head % l->n_head_kv * (group + 2) + group + head / l->n_head_kv) * d + at;
}

static const struct weight_import parts[] = { { .id = W_ATTN_QKV, .row = qkv_row }, { .id = W_COUNT } };
static const struct arch_import import = { .keys = keys, .weights = parts };

const struct arch arch_falcon = {
    .name = "falcon",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .layer_norm = true,
    .act = ACT_GELU_ERF,
    .layer = parallel_layer,
    .import = &import,
};

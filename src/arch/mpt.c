/* mpt - MPT: ALiBi or learned positions, LayerNorm without bias, Q, K and V clamped where the file says so, GELU. Source: MosaicML 2023. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "MptForCausalLM", "MPTForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    { "attention.layer_norm_epsilon", "layer_norm_epsilon", HP_FLOAT, HP(eps), 1e-12, 1, NAN },
    { "attention.max_alibi_bias", "attn_config.alibi_bias_max", HP_FLOAT, HP(alibi), 0, 1e6, 0 },
    { "attention.clamp_kqv", "attn_config.clip_qkv", HP_FLOAT, HP(clamp_kqv), 0, 1e6, 0 },
    { "attention.head_count_kv", "attn_config.kv_n_heads", HP_LAYER_INT, LP(n_head_kv), 1, 1024, HP_ABSENT },
    HPARAMS_END,
};

#define LAYER "transformer.blocks.%d."

static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "transformer.wte.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_POSITION, "position_embd.weight", "transformer.wpe.weight", DIM_EMBD, DIM_CTX, WEIGHT_OPTIONAL },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    ROWS_LAYER_NORM(W_OUTPUT_NORM, "output_norm", "transformer.norm_f", WEIGHT_OPTIONAL),
    ROWS_LAYER_NORM(W_ATTN_NORM, "blk.%d.attn_norm", LAYER "norm_1", WEIGHT_OPTIONAL),
    ROWS_FUSED_ATTENTION(LAYER "attn.Wqkv", LAYER "attn.out_proj", 0, WEIGHT_OPTIONAL),
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", LAYER "attn.q_ln.weight", DIM_Q, DIM_1, WEIGHT_OPTIONAL },
    { W_Q_NORM_B, "blk.%d.attn_q_norm.bias", LAYER "attn.q_ln.bias", DIM_Q, DIM_1, WEIGHT_OPTIONAL },
    { W_K_NORM, "blk.%d.attn_k_norm.weight", LAYER "attn.k_ln.weight", DIM_K, DIM_1, WEIGHT_OPTIONAL },
    { W_K_NORM_B, "blk.%d.attn_k_norm.bias", LAYER "attn.k_ln.bias", DIM_K, DIM_1, WEIGHT_OPTIONAL },
    ROWS_LAYER_NORM(W_FFN_NORM, "blk.%d.ffn_norm", LAYER "norm_2", WEIGHT_OPTIONAL),
    ROWS_PLAIN_FFN(LAYER "ffn.up_proj", LAYER "ffn.down_proj", 0, WEIGHT_OPTIONAL),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    for (int64_t il = 0; il < m->hp.n_layer; il++) m->layer[il].hp.no_rope = true;
    return OK;
}

static val embed(struct build *b, val x)
{
    val table = weight(b, -1, W_POSITION);
    return table == VAL_NONE ? x : op_add_position(b->p, x, table);
}

static status keys(struct import *im, struct err *e)
{
    int64_t n_embd = import_int(im, "d_model", 0), n_head = import_int(im, "n_heads", 0);
    double scale = import_number(im, "attn_config.softmax_scale", 0);
    if (scale != 0 && n_head > 0) import_put_float(im, "attention.scale", scale);
    if (import_number(im, "attn_config.prefix_lm", 0) != 0) return err_set(e, ERR_FORMAT, "attn_config.prefix_lm is true: not supported");
    import_put_float(im, "attention.layer_norm_epsilon", import_number(im, "layer_norm_epsilon", 1e-5));
    import_put_int(im, "feed_forward_length", import_int(im, "expansion_ratio", 4) * n_embd);
    if (import_number(im, "attn_config.alibi", 1) == 0) import_put_float(im, "attention.max_alibi_bias", 0);
    return OK;
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_mpt = {
    .name = "mpt",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .layer_norm = true,
    .act = ACT_GELU_ERF,
    .setup = setup,
    .embed = embed,
    .import = &import,
};

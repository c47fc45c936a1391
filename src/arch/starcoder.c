/* starcoder - StarCoder, SantaCoder: GPT-2's block with one KV head; matrices are stored as [out][in]. Source: Li et al. 2023. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "GPTBigCodeForCausalLM", NULL };

static const struct hparam_row hparams[] = { HP_LAYER_NORM_EPS, HPARAMS_END };

#define LAYER "transformer.h.%d."

static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "transformer.wte.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_POSITION, "position_embd.weight", "transformer.wpe.weight", DIM_EMBD, DIM_CTX, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    ROWS_LAYER_NORM(W_OUTPUT_NORM, "output_norm", "transformer.ln_f", 0),
    ROWS_LAYER_NORM(W_ATTN_NORM, "blk.%d.attn_norm", LAYER "ln_1", 0),
    ROWS_FUSED_ATTENTION(LAYER "attn.c_attn", LAYER "attn.c_proj", 0, 0),
    ROWS_LAYER_NORM(W_FFN_NORM, "blk.%d.ffn_norm", LAYER "ln_2", 0),
    ROWS_PLAIN_FFN(LAYER "mlp.c_fc", LAYER "mlp.c_proj", 0, 0),
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
    if (import_number(im, "multi_query", 1) == 0) return err_set(e, ERR_FORMAT, "multi_query is false: not supported for StarCoder");
    if (import_config(im, "activation_function") && !import_is(im, "activation_function", "gelu_pytorch_tanh") &&
        !import_is(im, "activation_function", "gelu_new"))
        return err_set(e, ERR_FORMAT, "activation_function: StarCoder is supported with gelu_pytorch_tanh and gelu_new only");
    import_put_int(im, "attention.head_count_kv", 1);
    if (!import_config(im, "n_inner")) import_put_int(im, "feed_forward_length", 4 * import_int(im, "n_embd", 0));
    return OK;
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_starcoder = {
    .name = "starcoder",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .layer_norm = true,
    .act = ACT_GELU_TANH,
    .setup = setup,
    .embed = embed,
    .import = &import,
};

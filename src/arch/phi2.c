/* phi2 - Phi-1, Phi-1.5, Phi-2: attention and feed-forward block side by side behind one LayerNorm, biases everywhere (the head too), rope
 * on the first dimensions of each head, GELU (tanh form). Source: Li et al. 2023. Older files have Q, K and V in one matrix. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

enum { THREE = LAYER_OWN, ONE = LAYER_OWN << 1 }; /* matrices for Q, K and V */

static const char *const hf[] = { "PhiForCausalLM", NULL };

static const struct hparam_row hparams[] = { HP_LAYER_NORM_EPS, HPARAMS_END };

#define ROW(id, gguf, x, ne0, ne1, kind)                                                                                                   \
    {                                                                                                                                      \
        id, "blk.%d." gguf, x, ne0, ne1, 0, DIM_1, kind                                                                                    \
    }
#define ATTN HF_LAYER "self_attn."

static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "model.embed_tokens.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_BIAS_OUTPUT, "output.bias", "lm_head.bias", DIM_VOCAB, DIM_1, 0 },
    ROWS_LAYER_NORM(W_OUTPUT_NORM, "output_norm", "model.final_layernorm", 0),
    ROWS_LAYER_NORM(W_ATTN_NORM, "blk.%d.attn_norm", HF_LAYER "input_layernorm", 0),
    ROW(W_ATTN_QKV, "attn_qkv.weight", NULL, DIM_EMBD, DIM_QKV, ONE),
    ROW(W_BIAS_QKV, "attn_qkv.bias", NULL, DIM_QKV, DIM_1, ONE),
    ROW(W_ATTN_Q, "attn_q.weight", ATTN "q_proj.weight", DIM_EMBD, DIM_Q, THREE),
    ROW(W_BIAS_Q, "attn_q.bias", ATTN "q_proj.bias", DIM_Q, DIM_1, THREE),
    ROW(W_ATTN_K, "attn_k.weight", ATTN "k_proj.weight", DIM_EMBD, DIM_K, THREE),
    ROW(W_BIAS_K, "attn_k.bias", ATTN "k_proj.bias", DIM_K, DIM_1, THREE),
    ROW(W_ATTN_V, "attn_v.weight", ATTN "v_proj.weight", DIM_EMBD, DIM_V, THREE),
    ROW(W_BIAS_V, "attn_v.bias", ATTN "v_proj.bias", DIM_V, DIM_1, THREE),
    ROW(W_ATTN_O, "attn_output.weight", ATTN "dense.weight", DIM_O, DIM_EMBD, 0),
    ROW(W_BIAS_O, "attn_output.bias", ATTN "dense.bias", DIM_EMBD, DIM_1, 0),
    ROWS_PLAIN_FFN(HF_LAYER "mlp.fc1", HF_LAYER "mlp.fc2", 0, 0),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    bool one = gguf_tensor(&m->g, "blk.0.attn_qkv.weight") != NULL;
    for (int64_t il = 0; il < m->hp.n_layer; il++) m->layer[il].hp.kind |= one ? ONE : THREE;
    return OK;
}

static status keys(struct import *im, struct err *e)
{
    if (import_number(im, "qk_layernorm", 0) != 0) return err_set(e, ERR_FORMAT, "qk_layernorm is true: not supported for Phi-2");
    if (import_config(im, "hidden_act") && !import_is(im, "hidden_act", "gelu_new"))
        return err_set(e, ERR_FORMAT, "hidden_act: Phi-2 is supported with gelu_new only");
    return OK;
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_phi2 = {
    .name = "phi2",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .layer_norm = true,
    .act = ACT_GELU_TANH,
    .setup = setup,
    .layer = parallel_layer,
    .import = &import,
};

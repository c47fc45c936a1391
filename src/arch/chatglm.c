/* chatglm - GLM-4 9B, ChatGLM 3 and 2: the Llama block with biases on Q, K and V, rope on adjacent pairs of the first half of each head,
 * gate and up in one matrix. Source: GLM team 2024. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

enum { THREE = LAYER_OWN, ONE = LAYER_OWN << 1 }; /* matrices for Q, K and V */

static const char *const hf[] = { "GlmForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

#define ATTN HF_LAYER "self_attn."
#define ROW(id, gguf, x, ne0, ne1, f, kind)                                                                                                \
    {                                                                                                                                      \
        id, "blk.%d." gguf, x, ne0, ne1, f, DIM_1, kind                                                                                    \
    }

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROW(W_ATTN_QKV, "attn_qkv.weight", NULL, DIM_EMBD, DIM_QKV, 0, ONE),
    ROW(W_BIAS_QKV, "attn_qkv.bias", NULL, DIM_QKV, DIM_1, WEIGHT_OPTIONAL, ONE),
    ROW(W_ATTN_Q, "attn_q.weight", ATTN "q_proj.weight", DIM_EMBD, DIM_Q, 0, THREE),
    ROW(W_BIAS_Q, "attn_q.bias", ATTN "q_proj.bias", DIM_Q, DIM_1, WEIGHT_OPTIONAL, THREE),
    ROW(W_ATTN_K, "attn_k.weight", ATTN "k_proj.weight", DIM_EMBD, DIM_K, 0, THREE),
    ROW(W_BIAS_K, "attn_k.bias", ATTN "k_proj.bias", DIM_K, DIM_1, WEIGHT_OPTIONAL, THREE),
    ROW(W_ATTN_V, "attn_v.weight", ATTN "v_proj.weight", DIM_EMBD, DIM_V, 0, THREE),
    ROW(W_BIAS_V, "attn_v.bias", ATTN "v_proj.bias", DIM_V, DIM_1, WEIGHT_OPTIONAL, THREE),
    { W_ATTN_O, "blk.%d.attn_output.weight", ATTN "o_proj.weight", DIM_O, DIM_EMBD, 0 },
    { W_FFN_UP, "blk.%d.ffn_up.weight", HF_LAYER "mlp.gate_up_proj.weight", DIM_EMBD, DIM_FF_TWICE, 0 },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", HF_LAYER "mlp.down_proj.weight", DIM_FF, DIM_EMBD, 0 },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    bool one = gguf_tensor(&m->g, "blk.0.attn_qkv.weight") != NULL;
    for (int64_t il = 0; il < m->hp.n_layer; il++) m->layer[il].hp.kind |= one ? ONE : THREE;
    return OK;
}

const struct arch arch_chatglm = { .name = "chatglm", .hf = hf, .hparams = hparams, .weights = weights, .setup = setup };

/* gemma - Gemma 1: the Llama block with GeGLU, wide heads, embeddings scaled by sqrt(n_embd) and a tied head. Norm weights are stored with their
 * +1 already added. Source: Gemma (Mesnard et al. 2024). */
#include "src/arch/rows.h"
#include "src/model_int.h"

static const char *const hf[] = { "GemmaForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    ROWS_ATTENTION(0),
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    ROWS_GATED_FFN,
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    m->hp.embd_scale = sqrtf((float)m->hp.n_embd);
    return OK;
}

const struct arch arch_gemma = {
    .name = "gemma", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .act = ACT_GELU_TANH, .setup = setup
};

/* gemma2 - Gemma 2: norms before and after both blocks, GeGLU, attention logits and final logits capped by tanh, every other layer (the first,
 * the third...) with a sliding window. Norm weights are stored with their +1 already added. Source: Gemma 2 (Riviere et al. 2024). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

enum { PATTERN = 2, LAYERS_27B = 46 };

static const char *const hf[] = { "Gemma2ForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HPARAM_WINDOW(4096),
    { "attn_logit_softcapping", "attn_logit_softcapping", HP_FLOAT, HP(attn_softcap), 0, 1e6, 50 },
    { "final_logit_softcapping", "final_logit_softcapping", HP_FLOAT, HP(final_softcap), 0, 1e6, 30 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    ROWS_ATTENTION(0),
    { W_POST_ATTN_NORM, "blk.%d.post_attention_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", HF_LAYER "pre_feedforward_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    ROWS_GATED_FFN,
    { W_POST_FFN_NORM, "blk.%d.post_ffw_norm.weight", HF_LAYER "post_feedforward_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    hp->embd_scale = sqrtf((float)hp->n_embd);
    /* The 27B model divides by the root of an even share of the embedding, and files from llama.cpp do not say so. */
    if (hp->n_layer == LAYERS_27B && hp->attn_scale == 0) hp->attn_scale = 1.0f / sqrtf((float)hp->n_embd / (float)m->layer[0].hp.n_head);
    return window_layers(m, PATTERN, e);
}

static status keys(struct import *im, struct err *e)
{
    double q = import_number(im, "query_pre_attn_scalar", 0);
    if (import_config(im, "query_pre_attn_scalar") && !(q > 0))
        return err_set(e, ERR_FORMAT, "config.json: query_pre_attn_scalar is %g, expected a number above 0", q);
    if (q > 0 && q != import_number(im, "head_dim", 256)) import_put_float(im, "attention.scale", 1 / sqrt(q));
    if (!import_config(im, "attn_logit_softcapping")) import_put_float(im, "attn_logit_softcapping", 0);
    if (!import_config(im, "final_logit_softcapping")) import_put_float(im, "final_logit_softcapping", 0);
    return import_windows(im, PATTERN, e);
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_gemma2 = {
    .name = "gemma2", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .act = ACT_GELU_TANH, .setup = setup,
    .import = &import
};

/* gemma3 - Gemma 3 text models. Norms before and after both blocks, RMS norms on every Q and K head, embeddings scaled by sqrt(n_embd),
 * GeGLU; five layers with a sliding window and rope base 10,000, then one that sees everything with the file's base and rope scaling. Norm
 * weights are stored with their +1 already added. Source: Gemma 3 Technical Report (2025). */
#include "src/arch/rows.h"
#include "src/model_int.h"
#include <math.h>

enum { PATTERN = 6 }; /* every 6th layer is global */

static const char *const hf[] = { "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", NULL };

static const struct hparam_row hparams[] = {
    { "attention.sliding_window", "sliding_window", HP_INT, HP(window), 0, 1 << 24, 0 },
    { "rope.freq_base_swa", "rope_local_base_freq", HP_FLOAT, HP(rope_base_swa), 1e-3, 1e12, 10000 },
    { "final_logit_softcapping", "final_logit_softcapping", HP_FLOAT, HP(final_softcap), 0, 1e6, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    ROWS_ATTENTION(0),
    ROWS_HEAD_NORMS(WEIGHT_PLUS_ONE),
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
    /* The 27B model (62 layers) divides by the width of an even share of the embedding instead of the head. */
    if (hp->n_layer == 62 && hp->attn_scale == 0) hp->attn_scale = 1.0f / sqrtf((float)hp->n_embd / (float)m->layer[0].hp.n_head);
    for (int il = 0; il < hp->n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        if (hp->window == 0 || il % PATTERN == PATTERN - 1) continue;
        l->window = hp->window;
        l->rope = (struct rope_spec){ .n_rot = l->rope.n_rot, .base = hp->rope_base_swa, .freq_scale = 1, .mscale = 1 };
    }
    return OK;
}

const struct arch arch_gemma3 = {
    .name = "gemma3", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .act = ACT_GELU_TANH, .setup = setup
};

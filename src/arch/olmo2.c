/* olmo2 - OLMo 2 and OLMo 3: norms behind the blocks instead of before them, RMS norms over all Q heads and over all K heads together. OLMo 3 has a
 * sliding window in three of four layers; its rope scaling counts for the other layers only. Sources: OLMo et al. 2024; Olmo 3 (2025). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

enum { PATTERN = 4 };

static const char *const hf[] = { "Olmo2ForCausalLM", "Olmo3ForCausalLM", NULL };
static const struct hparam_row hparams[] = {
    HPARAM_WINDOW(0),
    { "rope.freq_base_swa", NULL, HP_FLOAT, HP(rope_base_swa), 1e-3, 1e12, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1 },
    ROWS_ATTENTION(0),
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", HF_LAYER "self_attn.q_norm.weight", DIM_Q, DIM_1 },
    { W_K_NORM, "blk.%d.attn_k_norm.weight", HF_LAYER "self_attn.k_norm.weight", DIM_K, DIM_1 },
    { W_POST_ATTN_NORM, "blk.%d.post_attention_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1 },
    ROWS_GATED_FFN,
    { W_POST_FFN_NORM, "blk.%d.post_ffw_norm.weight", HF_LAYER "post_feedforward_layernorm.weight", DIM_EMBD, DIM_1 },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    TRY(window_layers(m, PATTERN, e));
    for (int il = 0; il < hp->n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        float base = hp->rope_base_swa > 0 ? hp->rope_base_swa : hp->rope_base;
        if (!l->window) continue;
        l->rope = (struct rope_spec){ .n_rot = l->rope.n_rot, .base = base, .freq_scale = 1, .mscale = 1 };
        l->no_rope_factors = true;
    }
    return OK;
}

static status keys(struct import *im, struct err *e) { return import_windows(im, PATTERN, e); }
static const struct arch_import import = { .keys = keys };

const struct arch arch_olmo2 = {
    .name = "olmo2", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .import = &import
};

/* exaone4 - EXAONE 4.0: norms behind the blocks instead of before them, RMS norms on every Q and K head. The 32B model has a sliding window in three
 * of four layers and no positions in the fourth; a file without a window (1.2B) has positions everywhere. Source: EXAONE 4.0 (LG AI Research 2025). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

enum { PATTERN = 4 };

static const char *const hf[] = { "Exaone4ForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAM_WINDOW(0), HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROW_ROPE_FREQS,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1 },
    ROWS_ATTENTION(0),
    ROWS_HEAD_NORMS(0),
    { W_POST_ATTN_NORM, "blk.%d.post_attention_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1 },
    ROWS_GATED_FFN,
    { W_POST_FFN_NORM, "blk.%d.post_ffw_norm.weight", HF_LAYER "post_feedforward_layernorm.weight", DIM_EMBD, DIM_1 },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    TRY(window_layers(m, PATTERN, e));
    for (int64_t il = 0; il < m->hp.n_layer && m->hp.window > 0; il++) m->layer[il].hp.no_rope = m->layer[il].hp.window == 0;
    return OK;
}

static status keys(struct import *im, struct err *e) { return import_windows(im, PATTERN, e); }
static const struct arch_import import = { .keys = keys };

const struct arch arch_exaone4 = {
    .name = "exaone4", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .import = &import
};

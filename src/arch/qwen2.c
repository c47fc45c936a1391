/* qwen2 - Qwen2 and Qwen2.5: the Llama block with biases on Q, K, V and rope pairs half a head apart. Source: Yang et al. 2024. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "Qwen2ForCausalLM", NULL };
static const struct hparam_row hparams[] = {
    { "attention.sliding_window", NULL, HP_INT, HP(window), 0, 1 << 24, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, 0),
    ROWS_GATED_FFN,
    ROWS_END,
};

static status setup(struct model *m, struct err *e) { return window_layers(m, 0, e); }
static const struct arch_import import = { .keys = import_qwen_windows };

/* ---- the language part of Qwen2-VL and Qwen2.5-VL; its rope differs for images only ---- */

static const char *const hf_vl[] = { "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration", NULL };

static status keys_vl(struct import *im, struct err *e)
{
    TRY(import_rope_sections(im, e));
    return import_qwen_windows(im, e);
}
static const struct arch_import import_vl = { .keys = keys_vl };

const struct arch arch_qwen2vl = {
    .name = "qwen2vl", .hf = hf_vl, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .import = &import_vl
};
const struct arch arch_qwen2 = {
    .name = "qwen2", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .import = &import
};

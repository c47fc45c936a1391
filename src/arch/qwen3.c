/* qwen3 - Qwen3: the Llama block with RMS norms on every Q and K head; heads need not share the width of the embedding evenly. Source: Yang et
 * al. 2025. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "Qwen3ForCausalLM", NULL };
static const struct hparam_row hparams[] = {
    { "attention.sliding_window", NULL, HP_INT, HP(window), 0, 1 << 24, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    ROWS_HEAD_NORMS(0),
    ROWS_GATED_FFN,
    ROWS_END,
};

static status setup(struct model *m, struct err *e) { return window_layers(m, 0, e); }
static const struct arch_import import = { .keys = import_qwen_windows };

/* ---- the language part of Qwen3-VL; its rope differs for images only, and images reach into the first layers ---- */

static const char *const hf_vl[] = { "Qwen3VLForConditionalGeneration", NULL };

static const struct arch_import import_vl = { .keys = import_rope_sections };

const struct arch arch_qwen3vl = {
    .name = "qwen3vl", .hf = hf_vl, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .import = &import_vl
};
const struct arch arch_qwen3 = {
    .name = "qwen3", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .import = &import
};

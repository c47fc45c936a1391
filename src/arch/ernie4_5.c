/* ernie4_5 - ERNIE 4.5 without experts: the Llama block; its rope turns adjacent pairs in checkpoints too. Source: ERNIE 4.5 (Baidu 2025). */
#include "src/arch/rows.h"

static const char *const hf[] = { "Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    ROWS_GATED_FFN,
    ROWS_END,
};

const struct arch arch_ernie4_5 = { .name = "ernie4_5", .hf = hf, .hparams = hparams, .weights = weights };

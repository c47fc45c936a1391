/* qwen3 - Qwen3: the Llama block with RMS norms on every Q and K head; heads need not share the width of the embedding evenly. Source: Yang et
 * al. 2025. */
#include "src/arch/rows.h"

static const char *const hf[] = { "Qwen3ForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROWS_HEAD_NORMS(0),
    ROWS_GATED_FFN,
    ROWS_END,
};

const struct arch arch_qwen3 = { .name = "qwen3", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true };

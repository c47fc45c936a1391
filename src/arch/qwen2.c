/* qwen2 - Qwen2 and Qwen2.5: the Llama block with biases on Q, K, V and rope pairs half a head apart. Source: Yang et al. 2024. */
#include "src/arch/rows.h"

static const char *const hf[] = { "Qwen2ForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, 0),
    ROWS_GATED_FFN,
    ROWS_END,
};

const struct arch arch_qwen2 = { .name = "qwen2", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true };

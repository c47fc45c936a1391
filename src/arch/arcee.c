/* arcee - Arcee AFM: the Llama block with a feed-forward without gate: down(relu(up(x))^2). Source: AFM-4.5B model card (2025). */
#include "src/arch/rows.h"

static const char *const hf[] = { "ArceeForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROW_ROPE_FREQS,
    ROWS_NORMS,
    ROWS_ATTENTION(WEIGHT_ROPE_PAIRS),
    { W_FFN_UP, "blk.%d.ffn_up.weight", HF_LAYER "mlp.up_proj.weight", DIM_EMBD, DIM_FF },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", HF_LAYER "mlp.down_proj.weight", DIM_FF, DIM_EMBD },
    ROWS_END,
};

const struct arch arch_arcee = { .name = "arcee", .hf = hf, .hparams = hparams, .weights = weights, .act = ACT_RELU_SQUARED };

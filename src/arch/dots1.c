/* dots1 - dots.llm1: multi-head attention with RMS norms on every Q and K head, DeepSeek-V3's mixture of experts behind dense first layers.
 * Source: rednote-hilab 2025. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "Dots1ForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPS_EXPERTS, HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROWS_HEAD_NORMS(0),
    ROWS_GATED_FFN,
    ROWS_EXPERTS(HF_LAYER "mlp.gate.weight", HF_LAYER "mlp.experts.%e."),
    ROW_CHOICE_BIAS(HF_LAYER "mlp.gate.e_score_correction_bias", WEIGHT_OPTIONAL),
    ROWS_SHARED_IF_ANY(HF_LAYER "mlp.shared_experts."),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    if (m->hp.expert_func == 0) m->hp.expert_func = ROUTE_SIGMOID;
    share_experts(m);
    return OK;
}

const struct arch arch_dots1 = {
    .name = "dots1",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .setup = setup,
    .import = &import_sigmoid,
};

/* glm4moe - GLM-4.5, 4.5-Air, 4.6, 4.7: attention with biases on Q, K and V and (not in Air) RMS norms on every Q and K head; rope on the
 * first half of each head; DeepSeek-V3's mixture of experts behind dense first layers. The layer that predicts a further token is not run.
 * Source: GLM team 2025. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "Glm4MoeForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HPS_EXPERTS,
    { "nextn_predict_layers", NULL, HP_INT, HP(n_nextn), 0, 1024, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROWS_HEAD_NORMS(WEIGHT_OPTIONAL),
    { W_FFN_NORM, "blk.%d.post_attention_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    ROWS_GATED_FFN,
    ROWS_EXPERTS(HF_LAYER "mlp.gate.weight", HF_LAYER "mlp.experts.%e."),
    ROW_CHOICE_BIAS(HF_LAYER "mlp.gate.e_score_correction_bias", 0),
    ROWS_SHARED_IF_ANY(HF_LAYER "mlp.shared_experts."),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    TRY(drop_nextn(m, e));
    if (m->hp.expert_func == 0) m->hp.expert_func = ROUTE_SIGMOID;
    share_experts(m);
    return OK;
}

const struct arch arch_glm4moe = {
    .name = "glm4moe",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .setup = setup,
    .import = &import_sigmoid,
};

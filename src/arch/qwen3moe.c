/* qwen3moe - Qwen3 mixtures (30B-A3B, 235B-A22B): Qwen3 attention, experts with normalised weights and no shared one. Source: Yang et al. 2025. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "Qwen3MoeForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HPARAMS_EXPERTS("num_experts|num_local_experts", "moe_intermediate_size"),
    { "expert_weights_norm", "norm_topk_prob", HP_BOOL, HP(expert_norm), 0, 1, 1 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROWS_HEAD_NORMS(0),
    ROWS_EXPERTS(HF_LAYER "mlp.gate.weight", HF_LAYER "mlp.experts.%e."),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    if (!m->hp.n_ff_expert && m->hp.n_expert_used) m->hp.n_ff_expert = m->layer[0].hp.n_ff / m->hp.n_expert_used; /* files of old */
    return OK;
}

static const struct arch_import import = { .keys = import_all_sparse };

const struct arch arch_qwen3moe = {
    .name = "qwen3moe", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .import = &import
};

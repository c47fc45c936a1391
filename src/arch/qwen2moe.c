/* qwen2moe - Qwen1.5-MoE and Qwen2-57B-A14B: Qwen2 attention; experts whose weights are not normalised, beside a shared one behind a gate of its
 * own. Source: Yang et al. 2024 (Qwen2). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "Qwen2MoeForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HPARAMS_EXPERTS("num_experts|num_local_experts", "moe_intermediate_size"),
    { "expert_shared_feed_forward_length", "shared_expert_intermediate_size", HP_INT, HP(n_ff_shared), 1, 1 << 22, HP_ABSENT },
    { "expert_weights_norm", "norm_topk_prob", HP_BOOL, HP(expert_norm), 0, 1, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROWS_EXPERTS(HF_LAYER "mlp.gate.weight", HF_LAYER "mlp.experts.%e."),
    { W_SHARED_ROUTER, "blk.%d.ffn_gate_inp_shexp.weight", HF_LAYER "mlp.shared_expert_gate.weight", DIM_EMBD, DIM_1, 0, DIM_1, LAYER_MOE },
    ROWS_SHARED_EXPERTS(HF_LAYER "mlp.shared_expert.", 0),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    if (!hp->n_ff_expert && hp->n_expert_used) hp->n_ff_expert = m->layer[0].hp.n_ff / hp->n_expert_used; /* files of old */
    if (!hp->n_ff_shared) hp->n_ff_shared = m->layer[0].hp.n_ff;
    return OK;
}

static const struct arch_import import = { .keys = import_all_sparse };

const struct arch arch_qwen2moe = {
    .name = "qwen2moe", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .import = &import
};

/* olmoe - OLMoE: pre-norm blocks, RMS norms over all Q heads and over all K heads together, experts whose weights are not normalised.
 * Source: Muennighoff et al. 2024. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "OlmoeForCausalLM", NULL };
static const struct hparam_row hparams[] = {
    { "expert_count", "num_experts|num_local_experts", HP_INT, HP(n_expert), 1, EXPERT_LIMIT, NAN },
    { "expert_weights_norm", "norm_topk_prob", HP_BOOL, HP(expert_norm), 0, 1, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", HF_LAYER "self_attn.q_norm.weight", DIM_Q, DIM_1 },
    { W_K_NORM, "blk.%d.attn_k_norm.weight", HF_LAYER "self_attn.k_norm.weight", DIM_K, DIM_1 },
    ROWS_EXPERTS(HF_LAYER "mlp.gate.weight", HF_LAYER "mlp.experts.%e."),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    m->hp.n_ff_expert = m->layer[0].hp.n_ff;
    return OK;
}

static status keys(struct import *im, struct err *e)
{
    if (import_number(im, "clip_qkv", 0) > 0) return err_set(e, ERR_FORMAT, "config.json: clip_qkv is not supported for olmoe: it clips behind the norms");
    return OK;
}
static const struct arch_import import = { .keys = keys };

const struct arch arch_olmoe = {
    .name = "olmoe", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .import = &import
};

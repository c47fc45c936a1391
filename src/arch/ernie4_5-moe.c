/* ernie4_5-moe - ERNIE 4.5 with experts: the Llama block with rope on adjacent pairs (as its checkpoints have them) and a mixture of
 * experts, chosen by softmax and bias, beside shared ones. Source: Baidu 2025. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "Ernie4_5_MoeForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    { "expert_count", "moe_num_experts", HP_INT, HP(n_expert), 1, EXPERT_LIMIT, NAN },
    { "expert_used_count", "moe_k", HP_INT, HP(n_expert_used), 1, EXPERT_LIMIT, NAN },
    { "expert_feed_forward_length", "moe_intermediate_size", HP_INT, HP(n_ff_expert), 1, 1 << 22, NAN },
    { "expert_shared_count", "moe_num_shared_experts", HP_INT, HP(n_expert_shared), 0, EXPERT_LIMIT, 0 },
    { "expert_shared_feed_forward_length", NULL, HP_INT, HP(n_ff_shared), 0, 1 << 22, 0 },
    { "interleave_moe_layer_step", "moe_layer_interval", HP_INT, HP(expert_step), 1, 1024, 1 },
    { "leading_dense_block_count", "moe_layer_start_index", HP_INT, HP(n_dense_lead), 0, 1024, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    ROWS_GATED_FFN,
    ROWS_EXPERTS(HF_LAYER "mlp.gate.weight", HF_LAYER "mlp.experts.%e."),
    ROW_CHOICE_BIAS(HF_LAYER "mlp.moe_statics.e_score_correction_bias|" HF_LAYER "mlp.gate.moe_statics.e_score_correction_bias",
                    WEIGHT_OPTIONAL),
    ROWS_SHARED_IF_ANY(HF_LAYER "mlp.shared_experts."),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    for (int64_t il = hp->n_dense_lead; il < hp->n_layer; il++)
        if ((il + 1) % hp->expert_step) m->layer[il].hp.kind = (m->layer[il].hp.kind & ~(unsigned)LAYER_MOE) | LAYER_DENSE;
    hp->expert_norm = 1;
    share_experts(m);
    return OK;
}

static status keys(struct import *im, struct err *e)
{
    if (import_number(im, "use_bias", 0) != 0) return err_set(e, ERR_FORMAT, "use_bias is true: not supported for ERNIE");
    double last = import_number(im, "moe_layer_end_index", -1), n = import_number(im, "num_hidden_layers", 0);
    if (last >= 0 && last < n - 1) return err_set(e, ERR_FORMAT, "moe_layer_end_index is %g of %g layers: not supported", last, n);
    int64_t count = import_int(im, "moe_num_shared_experts", 0), width = import_int(im, "moe_intermediate_size", 0);
    if (count > 0 && count <= EXPERT_LIMIT) import_put_int(im, "expert_shared_feed_forward_length", count * width);
    return OK;
}

static const char *const ignore[] = { "model.mtp_", NULL };
static const struct arch_import import = { .keys = keys, .ignore = ignore };

const struct arch arch_ernie4_5_moe = {
    .name = "ernie4_5-moe",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .setup = setup,
    .import = &import,
};

/* dbrx - DBRX: LayerNorm without biases, Q, K and V in one matrix and clamped, and in every layer a mixture of experts. Source: Databricks
 * 2024. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "DbrxForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    { "attention.layer_norm_epsilon", NULL, HP_FLOAT, HP(eps), 1e-12, 1, 1e-5 },
    { "attention.clamp_kqv", "attn_config.clip_qkv", HP_FLOAT, HP(clamp_kqv), 0, 1e6, 0 },
    { "attention.head_count_kv", "attn_config.kv_n_heads", HP_LAYER_INT, LP(n_head_kv), 1, 1024, HP_ABSENT },
    { "feed_forward_length", "ffn_config.ffn_hidden_size", HP_LAYER_INT, LP(n_ff), 1, 1 << 22, HP_ABSENT },
    { "expert_count", "ffn_config.moe_num_experts", HP_INT, HP(n_expert), 1, EXPERT_LIMIT, NAN },
    { "expert_used_count", "ffn_config.moe_top_k", HP_INT, HP(n_expert_used), 1, EXPERT_LIMIT, NAN },
    HPARAMS_END,
};

#define LAYER "transformer.blocks.%d."
#define ATTN LAYER "norm_attn_norm."
#define MLP LAYER "ffn.experts.mlp."

static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "transformer.wte.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    { W_OUTPUT_NORM, "output_norm.weight", "transformer.norm_f.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", ATTN "norm_1.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_QKV, "blk.%d.attn_qkv.weight", ATTN "attn.Wqkv.weight", DIM_EMBD, DIM_QKV, 0 },
    { W_ATTN_O, "blk.%d.attn_output.weight", ATTN "attn.out_proj.weight", DIM_O, DIM_EMBD, 0 },
    { W_FFN_NORM, "blk.%d.attn_output_norm.weight", ATTN "norm_2.weight", DIM_EMBD, DIM_1, 0 },
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", LAYER "ffn.router.layer.weight", DIM_EMBD, DIM_EXPERT, 0 },
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", MLP "w1", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", MLP "v1", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", MLP "w2", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    m->hp.n_ff_expert = m->layer[0].hp.n_ff;
    m->hp.expert_norm = 1;
    return OK;
}

static status keys(struct import *im, struct err *e)
{
    double norm = import_number(im, "ffn_config.moe_normalize_expert_weights", 0);
    if (norm != 1) return err_set(e, ERR_FORMAT, "ffn_config.moe_normalize_expert_weights is %g: only 1 is supported", norm);
    import_put_float(im, "attention.layer_norm_epsilon", 1e-5);
    double base = import_number(im, "attn_config.rope_theta", 0);
    if (base > 0) import_put_float(im, "rope.freq_base", base);
    return OK;
}

/* The checkpoint keeps the last matrices as [expert][n_ff][n_embd]. */
static status load_down(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    int64_t ff = m->hp.n_ff_expert, n = m->hp.n_embd, n_expert = m->hp.n_expert, shape[] = { n_expert * ff, n };
    float *x;
    TRY(import_load(im, MLP "w2", il, shape, 2, &x, e));
    for (int64_t k = 0; k < n_expert; k++)
        for (int64_t i = 0; i < ff; i++)
            for (int64_t j = 0; j < n; j++) out[(k * n + j) * ff + i] = x[(k * ff + i) * n + j];
    mem_free(x);
    return OK;
}

static const struct weight_import parts[] = { { .id = W_DOWN_EXPS, .load = load_down }, { .id = W_COUNT } };
static const struct arch_import import = { .keys = keys, .weights = parts };

const struct arch arch_dbrx = {
    .name = "dbrx",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .layer_norm = true,
    .setup = setup,
    .import = &import,
};

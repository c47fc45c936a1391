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
    ROW_BIAS_O(WEIGHT_OPTIONAL),
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

/* ---- the language part of Qwen3-VL mixtures: checkpoints have all experts in one tensor ---- */

static const char *const hf_vl[] = { "Qwen3VLMoeForConditionalGeneration", NULL };

#define EXPERTS HF_LAYER "mlp.experts."
static const struct weight_row weights_vl[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROWS_HEAD_NORMS(0),
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", HF_LAYER "mlp.gate.weight", DIM_EMBD, DIM_EXPERT },
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", EXPERTS "gate_up_proj", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", EXPERTS "gate_up_proj", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", EXPERTS "down_proj", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT },
    ROWS_END,
};

/* Rows first .. first + n of each expert's matrix, [width][in]; published files have it the other way round, [in][width]. */
static status load_stack(struct import *im, const struct model *m, const char *name, int il, int64_t width, int64_t in, int64_t first, int64_t n,
                         float *out, struct err *e)
{
    for (int64_t expert = 0; expert < m->hp.n_expert; expert++, out += n * in) {
        float *x;
        int64_t shape[3] = { m->hp.n_expert, -1, -1 };
        TRY(import_load_item(im, name, il, expert, shape, 3, &x, e));
        bool turned = shape[1] == in && shape[2] == width, fits = turned || (shape[1] == width && shape[2] == in);
        for (int64_t r = 0; fits && r < n; r++)
            for (int64_t i = 0; i < in; i++) out[r * in + i] = turned ? x[i * width + first + r] : x[(first + r) * in + i];
        mem_free(x);
        if (!fits)
            return err_set(e, ERR_FORMAT, "%s of layer %d: experts are [%lld, %lld], expected [%lld, %lld] or the reverse", name, il,
                           (long long)shape[1], (long long)shape[2], (long long)in, (long long)width);
    }
    return OK;
}

static status load_gate(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    return load_stack(im, m, EXPERTS "gate_up_proj", il, 2 * m->hp.n_ff_expert, m->hp.n_embd, 0, m->hp.n_ff_expert, out, e);
}

static status load_up(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    return load_stack(im, m, EXPERTS "gate_up_proj", il, 2 * m->hp.n_ff_expert, m->hp.n_embd, m->hp.n_ff_expert, m->hp.n_ff_expert, out, e);
}

static status load_down(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    return load_stack(im, m, EXPERTS "down_proj", il, m->hp.n_embd, m->hp.n_ff_expert, 0, m->hp.n_embd, out, e);
}

static status keys_vl(struct import *im, struct err *e)
{
    TRY(import_rope_sections(im, e));
    return import_all_sparse(im, e);
}

static const struct weight_import parts[] = {
    { .id = W_GATE_EXPS, .load = load_gate },
    { .id = W_UP_EXPS, .load = load_up },
    { .id = W_DOWN_EXPS, .load = load_down },
    { .id = W_COUNT },
};
static const char *const loaded[] = { "mlp.experts.", NULL };
static const struct arch_import import_vl = { .keys = keys_vl, .weights = parts, .ignore = loaded };

const struct arch arch_qwen3vlmoe = {
    .name = "qwen3vlmoe", .hf = hf_vl, .hparams = hparams, .weights = weights_vl, .rope_neox = true, .setup = setup, .import = &import_vl
};
const struct arch arch_qwen3moe = {
    .name = "qwen3moe", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .import = &import
};

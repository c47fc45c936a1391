/* llama - Llama 1-3, Mistral, Mixtral, SmolLM2, Yi, TinyLlama and others that share their equations.
 * Pre-norm RMSNorm, grouped-query attention with adjacent-pair rope, SwiGLU; Mixtral chooses two of its experts and normalises their weights.
 * Llama 3.1+ carries its rope factors in rope_freqs.weight. Sources: Touvron et al. 2023; Jiang et al. 2023 (Mistral 7B), 2024 (Mixtral). The
 * sliding window of Mistral 7B v0.1 is applied when the file has the key: files from cuanto do; llama.cpp neither writes nor reads it. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"
#include <string.h>

static const char *const hf[] = { "LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "LLaMAForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    { "expert_count", "num_local_experts", HP_INT, HP(n_expert), 0, EXPERT_LIMIT, 0 },
    HPARAM_WINDOW(0),
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROW_ROPE_FREQS,
    ROWS_NORMS,
    ROWS_ATTENTION(WEIGHT_ROPE_PAIRS),
    ROWS_ATTENTION_BIAS(WEIGHT_ROPE_PAIRS, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    ROWS_GATED_FFN,
    ROWS_GATED_FFN_BIAS(WEIGHT_OPTIONAL),
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", HF_LAYER "block_sparse_moe.gate.weight|" HF_LAYER "mlp.gate.weight", DIM_EMBD, DIM_EXPERT, 0,
      DIM_1, LAYER_MOE },
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", HF_LAYER "block_sparse_moe.experts.%e.w1.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT,
      LAYER_MOE },
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", HF_LAYER "block_sparse_moe.experts.%e.w3.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT,
      LAYER_MOE },
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", HF_LAYER "block_sparse_moe.experts.%e.w2.weight", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT,
      LAYER_MOE },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    m->hp.n_ff_expert = m->layer[0].hp.n_ff;
    m->hp.expert_norm = 1;
    return window_layers(m, 0, e);
}

/* Of the classes in `hf` only Mistral and Mixtral have windows: transformers' Llama does not look at the number. */
static status keys(struct import *im, struct err *e)
{
    const struct json *list = import_config(im, "architectures"), *name = list && list->kind == JSON_ARR ? list->child : NULL;
    bool windows = name && name->kind == JSON_STR && (!strncmp(name->str, "Mistral", 7) || !strncmp(name->str, "Mixtral", 7));
    if (!windows) import_drop(im, "attention.sliding_window");
    return OK;
}

static const struct arch_import import = { .keys = keys };

/* ---- Ministral 3 and Mistral Small 3.1 (mistral3): queries grow with the logarithm of their position in units of the original context ---- */

static const char *const hf3[] = { "Ministral3ForCausalLM", "Mistral3ForConditionalGeneration", NULL };

static const struct hparam_row hparams3[] = {
    HPARAM_WINDOW(0),
    { "attention.temperature_scale", "rope_parameters.llama_4_scaling_beta|rope_scaling.llama_4_scaling_beta", HP_FLOAT, HP(temp_scale), 0, 1e3, 0 },
    { "rope.scaling.yarn_log_multiplier", NULL, HP_FLOAT, HP(yarn_log_mul), 0, 1e3, 0 },
    HPARAMS_END,
};

static status setup3(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    hp->temp_floor = hp->rope_ctx_orig;
    if (hp->temp_scale != 0 && hp->temp_floor < 1)
        return err_set(e, ERR_FORMAT, "mistral3.attention.temperature_scale is %g but rope.scaling.original_context_length is missing",
                       (double)hp->temp_scale);
    /* Files of llama.cpp: what YaRN multiplies the turned parts by is divided again. */
    for (int64_t il = 0; il < hp->n_layer && hp->yarn_log_mul > 0 && hp->rope_factor > 1; il++)
        m->layer[il].hp.rope.mscale /= 1 + 0.1f * hp->yarn_log_mul * logf(hp->rope_factor);
    return setup(m, e);
}

const struct arch arch_mistral3 = { .name = "mistral3", .hf = hf3, .hparams = hparams3, .weights = weights, .setup = setup3 };
const struct arch arch_llama = { .name = "llama", .hf = hf, .hparams = hparams, .weights = weights, .setup = setup, .import = &import };

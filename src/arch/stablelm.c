/* stablelm - StableLM 3B, 2 1.6B, 2 12B: LayerNorm, SwiGLU, rope on the first dimensions of each head; 12B has a LayerNorm of its own for
 * each head of Q and K and attention and feed-forward block side by side. Source: Bellagente et al. 2024. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"
#include <stdio.h>
#include <string.h>

static const char *const hf[] = { "StableLmForCausalLM", "StableLMEpochForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HP_LAYER_NORM_EPS,
    { "use_parallel_residual", "use_parallel_residual", HP_BOOL, HP(parallel), 0, 1, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_LAYER_NORM(W_OUTPUT_NORM, "output_norm", "model.norm", 0),
    ROWS_LAYER_NORM(W_ATTN_NORM, "blk.%d.attn_norm", HF_LAYER "input_layernorm", 0),
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", HF_LAYER "self_attn.q_layernorm.norms.%e.weight", DIM_HEAD, DIM_N_HEAD,
      WEIGHT_OPTIONAL | WEIGHT_VECTOR },
    { W_K_NORM, "blk.%d.attn_k_norm.weight", HF_LAYER "self_attn.k_layernorm.norms.%e.weight", DIM_HEAD, DIM_N_HEAD_KV,
      WEIGHT_OPTIONAL | WEIGHT_VECTOR },
    ROWS_LAYER_NORM_OPTIONAL(W_FFN_NORM, "blk.%d.ffn_norm", HF_LAYER "post_attention_layernorm"),
    ROWS_GATED_FFN,
    ROWS_END,
};

/* The weights decide, as files made before use_parallel_residual was written need. */
static val layer(const struct build *b, int il, val x)
{
    return (model_weight(b->m, il, W_FFN_NORM) ? standard_layer : parallel_layer)(b, il, x);
}

static status norms(struct import *im, const struct model *m, int il, const char *name, int64_t n, float *out, struct err *e)
{
    int64_t width = m->layer[il].hp.head_dim;
    for (int64_t h = 0; h < n; h++) {
        char full[128];
        float *x = NULL;
        snprintf(full, sizeof full, "%s.norms.%lld.weight", name, (long long)h);
        TRY(import_load(im, full, il, &(int64_t){ width }, 1, &x, e));
        memcpy(out + h * width, x, (size_t)width * sizeof *x);
        mem_free(x);
    }
    return OK;
}

static status q_norms(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    return norms(im, m, il, HF_LAYER "self_attn.q_layernorm", m->layer[il].hp.n_head, out, e);
}

static status k_norms(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    return norms(im, m, il, HF_LAYER "self_attn.k_layernorm", m->layer[il].hp.n_head_kv, out, e);
}

static const struct weight_import parts[] = { { .id = W_Q_NORM, .load = q_norms }, { .id = W_K_NORM, .load = k_norms }, { .id = W_COUNT } };
static const struct arch_import import = { .weights = parts };

const struct arch arch_stablelm = {
    .name = "stablelm",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .layer_norm = true,
    .layer = layer,
    .import = &import,
};

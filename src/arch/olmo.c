/* olmo - OLMo 1: the Llama block with LayerNorm that has neither weight nor bias; Q, K and V are clamped where the file says so. Source:
 * Groeneveld et al. 2024. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "OlmoForCausalLM", "OLMoForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    { "attention.layer_norm_epsilon", "layer_norm_eps", HP_FLOAT, HP(eps), 1e-12, 1, 1e-5 },
    { "attention.clamp_kqv", "clip_qkv", HP_FLOAT, HP(clamp_kqv), 0, 1e6, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_ATTENTION(WEIGHT_ROPE_PAIRS),
    ROWS_GATED_FFN,
    ROWS_END,
};

static val bare_norm(const struct build *b, val x) { return op_layer_norm(b->p, x, VAL_NONE, VAL_NONE, b->m->hp.eps, b->m->hp.n_embd); }

static val layer(const struct build *b, int il, val x)
{
    val a = self_attention(b, il, bare_norm(b, x));
    x = residual(b, last_rows(b, il, x), a);
    x = residual(b, x, feed_forward(b, il, bare_norm(b, x)));
    return il + 1 == b->m->hp.n_layer ? bare_norm(b, x) : x;
}

static status keys(struct import *im, struct err *e)
{
    import_put_float(im, "attention.layer_norm_epsilon", 1e-5); /* OlmoLayerNorm's, not in config.json */
    return OK;
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_olmo = { .name = "olmo", .hf = hf, .hparams = hparams, .weights = weights, .layer = layer, .import = &import };

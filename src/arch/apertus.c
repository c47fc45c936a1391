/* apertus - Apertus (Swiss AI): RMS norms of Q and K heads, feed-forward without gate whose activation xIELU has two learned numbers in each layer
 * (kept as lists under "xielu."). Sources: Apertus (2025); Deriving activation functions using integration (Huang & Schlag 2024). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"
#include <stdio.h>

enum { LAYERS = 1024 };

static const char *const hf[] = { "ApertusForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROW_ROPE_FREQS,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "attention_layernorm.weight", DIM_EMBD, DIM_1 },
    ROWS_ATTENTION(0),
    ROWS_HEAD_NORMS(0),
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", HF_LAYER "feedforward_layernorm.weight", DIM_EMBD, DIM_1 },
    { W_FFN_UP, "blk.%d.ffn_up.weight", HF_LAYER "mlp.up_proj.weight", DIM_EMBD, DIM_FF },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", HF_LAYER "mlp.down_proj.weight", DIM_FF, DIM_EMBD },
    ROWS_END,
};

enum xielu { ALPHA_P, ALPHA_N, BETA, EPS, NUMBERS };
static const char *const names[NUMBERS] = { "alpha_p", "alpha_n", "beta", "eps" };
#define HF_ACT HF_LAYER "mlp.act_fn."
static const char *const sources[NUMBERS] = { HF_ACT "alpha_p", HF_ACT "alpha_n", HF_ACT "beta", HF_ACT "eps" };

static const struct gguf_kv *list_of(const struct model *m, int i)
{
    char key[32];
    snprintf(key, sizeof key, "xielu.%s", names[i]);
    return gguf_find(&m->g, key);
}

static status check(const struct model *m, struct err *e)
{
    for (int i = 0; i < NUMBERS; i++) {
        const struct gguf_kv *kv = list_of(m, i);
        if (!kv || kv->kind != KV_ARR || kv->elem != KV_F32 || (int64_t)kv->n < m->hp.n_layer)
            return err_set(e, ERR_FORMAT, "key xielu.%s is %s, expected a list of %lld floats, one for each layer", names[i],
                           kv ? "something else" : "missing", (long long)m->hp.n_layer);
        for (int64_t il = 0; il < m->hp.n_layer; il++)
            if (!isfinite(gguf_arr_f32(kv, (uint64_t)il))) return err_set(e, ERR_FORMAT, "xielu.%s[%lld] is not finite", names[i], (long long)il);
    }
    return OK;
}

static float softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }

static val layer(const struct build *b, int il, val x)
{
    float v[NUMBERS];
    for (int i = 0; i < NUMBERS; i++) v[i] = gguf_arr_f32(list_of(b->m, i), (uint64_t)il);
    x = op_add(b->p, last_rows(b, il, x), self_attention(b, il, norm(b, il, x, W_ATTN_NORM)));
    val up = project(b, il, W_FFN_UP, W_COUNT, norm(b, il, x, W_FFN_NORM));
    val f = op_xielu(b->p, up, softplus(v[ALPHA_P]), v[BETA] + softplus(v[ALPHA_N]), v[BETA], v[EPS]);
    return op_add(b->p, x, project(b, il, W_FFN_DOWN, W_COUNT, f));
}

/* ---- checkpoints: the numbers are tensors of one element in each layer ---- */

static status keys(struct import *im, struct err *e)
{
    float v[LAYERS];
    int64_t n = import_int(im, "num_hidden_layers", 0);
    if (n < 1 || n > LAYERS) return err_set(e, ERR_FORMAT, "config.json: num_hidden_layers is %lld, expected 1 to %d", (long long)n, LAYERS);
    if (!import_is(im, "hidden_act", "xielu")) return err_set(e, ERR_FORMAT, "config.json: hidden_act is not xielu");
    if (!import_has(im, "model.embed_tokens.weight", -1)) return OK; /* the vocabulary only */
    for (int i = 0; i < NUMBERS; i++) {
        char key[32];
        for (int il = 0; il < n; il++) {
            float *x;
            int64_t shape[1] = { 1 };
            TRY(import_load(im, sources[i], il, shape, i < BETA, &x, e)); /* beta and eps are scalars */
            v[il] = *x;
            mem_free(x);
        }
        snprintf(key, sizeof key, "/xielu.%s", names[i]);
        import_put_floats(im, key, v, n);
    }
    return OK;
}

static const char *const ignored[] = { "mlp.act_fn.", NULL };
static const struct arch_import import = { .keys = keys, .ignore = ignored };

const struct arch arch_apertus = {
    .name = "apertus", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .act = ACT_XIELU, .check = check, .layer = layer, .import = &import
};

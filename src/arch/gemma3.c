/* gemma3 - Gemma 3 text models. Norms before and after both blocks, RMS norms on every Q and K head, embeddings scaled by sqrt(n_embd),
 * GeGLU; five layers with a sliding window and rope base 10,000, then one that sees everything with the file's base and rope scaling. Norm
 * weights are stored with their +1 already added. Source: Gemma 3 Technical Report (2025). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

enum { PATTERN = 6 }; /* every 6th layer is global */

static const char *const hf[] = { "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", NULL };

static const struct hparam_row hparams[] = {
    HPARAM_WINDOW(0),
    { "rope.freq_base_swa", "rope_local_base_freq", HP_FLOAT, HP(rope_base_swa), 1e-3, 1e12, 10000 },
    { "final_logit_softcapping", "final_logit_softcapping", HP_FLOAT, HP(final_softcap), 0, 1e6, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    ROWS_ATTENTION(0),
    ROWS_HEAD_NORMS(WEIGHT_PLUS_ONE),
    { W_POST_ATTN_NORM, "blk.%d.post_attention_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", HF_LAYER "pre_feedforward_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    ROWS_GATED_FFN,
    { W_POST_FFN_NORM, "blk.%d.post_ffw_norm.weight", HF_LAYER "post_feedforward_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    hp->embd_scale = sqrtf((float)hp->n_embd);
    /* The 27B model (62 layers) divides by the width of an even share of the embedding instead of the head. */
    if (hp->n_layer == 62 && hp->attn_scale == 0) hp->attn_scale = 1.0f / sqrtf((float)hp->n_embd / (float)m->layer[0].hp.n_head);
    TRY(window_layers(m, PATTERN, e));
    for (int il = 0; il < hp->n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        if (!l->window) continue;
        l->rope = (struct rope_spec){ .n_rot = l->rope.n_rot, .base = hp->rope_base_swa, .freq_scale = 1, .mscale = 1 };
        l->no_rope_factors = true;
    }
    return OK;
}

/* Published files of 4B, 12B and 27B leave out what equals the defaults of transformers' Gemma3TextConfig. */
static void defaults(struct import *im)
{
    static const struct { const char *key, *name; double v; bool real; } rows[] = {
        { "context_length", "max_position_embeddings", 131072, false },      { "attention.head_count", "num_attention_heads", 8, false },
        { "attention.head_count_kv", "num_key_value_heads", 4, false },      { "attention.key_length", "head_dim", 256, false },
        { "attention.value_length", "head_dim", 256, false },                { "attention.layer_norm_rms_epsilon", "rms_norm_eps", 1e-6, true },
        { "rope.freq_base", "rope_theta|rope_parameters.rope_theta|rope_parameters.full_attention.rope_theta", 1e6, true },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        if (import_config(im, rows[i].name)) continue;
        if (rows[i].real) import_put_float(im, rows[i].key, rows[i].v);
        else import_put_int(im, rows[i].key, (int64_t)rows[i].v);
    }
}

/* config.json names what attention logits are divided by the root of; files name the factor only where it is not the head's. */
static status keys(struct import *im, struct err *e)
{
    double q = import_number(im, "query_pre_attn_scalar", 256);
    if (import_config(im, "query_pre_attn_scalar") && !(q > 0))
        return err_set(e, ERR_FORMAT, "config.json: query_pre_attn_scalar is %g, expected a number above 0", q);
    defaults(im);
    if (q > 0 && q != import_number(im, "head_dim", 256)) import_put_float(im, "attention.scale", 1 / sqrt(q));
    if (import_config(im, "attn_logit_softcapping")) return err_set(e, ERR_FORMAT, "config.json: attn_logit_softcapping is not supported for gemma3");
    return import_windows(im, PATTERN, e);
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_gemma3 = {
    .name = "gemma3", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .act = ACT_GELU_TANH, .setup = setup,
    .import = &import
};

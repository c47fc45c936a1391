/* nemotron_h - NVIDIA Nemotron-H: a layer is one block behind one norm: Mamba-2, attention without positions, or a feed-forward block of two matrices with
 * squared ReLU. Which it is follows from its K/V heads and feed-forward width: both 0 is Mamba-2. Source: Nemotron-H, NVIDIA 2025. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"
#include <string.h>

static const char *const hf[] = { "NemotronHForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HPARAMS_MAMBA2,
    { "attention.layer_norm_epsilon", NULL, HP_FLOAT, HP(eps), 1e-12, 1, HP_ABSENT }, /* llama.cpp reads it where the next is missing */
    { "attention.layer_norm_rms_epsilon", "layer_norm_epsilon", HP_FLOAT, HP(eps), 1e-12, 1, HP_ABSENT },
    { "expert_count", NULL, HP_INT, HP(n_expert), 0, 0, 0 },
    HPARAMS_END,
};

#define MIXER "backbone.layers.%d.mixer."
static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "model.embeddings.weight|backbone.embeddings.weight|model.embed_tokens.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm_f.weight|backbone.norm_f.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", "backbone.layers.%d.norm.weight", DIM_EMBD, DIM_1, 0 },
    ROWS_MAMBA2(MIXER, 0),
    { W_ATTN_Q, "blk.%d.attn_q.weight", MIXER "q_proj.weight", DIM_EMBD, DIM_Q, 0, DIM_1, LAYER_ATTENTION },
    { W_ATTN_K, "blk.%d.attn_k.weight", MIXER "k_proj.weight", DIM_EMBD, DIM_K, 0, DIM_1, LAYER_ATTENTION },
    { W_ATTN_V, "blk.%d.attn_v.weight", MIXER "v_proj.weight", DIM_EMBD, DIM_V, 0, DIM_1, LAYER_ATTENTION },
    { W_ATTN_O, "blk.%d.attn_output.weight", MIXER "o_proj.weight", DIM_O, DIM_EMBD, 0, DIM_1, LAYER_ATTENTION },
    { W_BIAS_O, "blk.%d.attn_output.bias", MIXER "o_proj.bias", DIM_EMBD, DIM_1, WEIGHT_OPTIONAL, DIM_1, LAYER_ATTENTION },
    { W_FFN_UP, "blk.%d.ffn_up.weight", MIXER "up_proj.weight", DIM_EMBD, DIM_FF, 0, DIM_1, LAYER_DENSE },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", MIXER "down_proj.weight", DIM_FF, DIM_EMBD, 0, DIM_1, LAYER_DENSE },
    { W_BIAS_UP, "blk.%d.ffn_up.bias", MIXER "up_proj.bias", DIM_FF, DIM_1, WEIGHT_OPTIONAL, DIM_1, LAYER_DENSE },
    { W_BIAS_DOWN, "blk.%d.ffn_down.bias", MIXER "down_proj.bias", DIM_EMBD, DIM_1, WEIGHT_OPTIONAL, DIM_1, LAYER_DENSE },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    if (!(m->hp.eps > 0)) return err_set(e, ERR_FORMAT, "key nemotron_h.attention.layer_norm_rms_epsilon is missing");
    for (int il = 0; il < m->hp.n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        l->no_rope = true;
        l->kind = l->n_ff > 0 ? LAYER_DENSE : l->n_head_kv > 0 ? LAYER_ATTENTION : 0;
        if (!l->kind) TRY(mamba2_state(m, il, e));
    }
    return OK;
}

static val layer(const struct build *b, int il, val x)
{
    unsigned kind = layer_of(b, il)->kind;
    val h = norm(b, il, x, W_ATTN_NORM);
    val y = kind & LAYER_RECURRENT ? mamba2_mixer(b, il, h) : kind & LAYER_ATTENTION ? self_attention(b, il, h) : dense(b, il, last_rows(b, il, h));
    return op_add(b->p, last_rows(b, il, x), y);
}

/* The kind of layer i: a name in a list, or a letter of a pattern. */
static char layer_kind(const struct json *types, const char *pattern, int64_t i)
{
    static const struct { const char *name; char letter; } names[] = {
        { "linear_attention", 'M' }, { "mamba", 'M' }, { "full_attention", '*' }, { "attention", '*' }, { "mlp", '-' },
    };
    if (pattern) return pattern[i];
    const struct json *t = types->child;
    while (t && i-- > 0) t = t->next;
    for (int j = 0; t && t->kind == JSON_STR && j < ARRAY_LEN(names); j++)
        if (!strcmp(t->str, names[j].name)) return names[j].letter;
    return '?';
}

static status keys(struct import *im, struct err *e)
{
    enum { LAYERS = 1024 };
    int32_t heads[LAYERS], ff[LAYERS];
    const struct json *types = import_config(im, "layers_block_type|layer_types"), *pattern = import_config(im, "hybrid_override_pattern");
    const char *letters = !types && pattern && pattern->kind == JSON_STR ? pattern->str : NULL;
    int64_t n = letters ? pattern->n : types ? types->n : 0;
    if (n < 1 || n > LAYERS) return err_set(e, ERR_FORMAT, "config.json: layers_block_type has %lld items, expected 1 to %d", (long long)n, LAYERS);
    for (int64_t i = 0; i < n; i++) {
        char kind = layer_kind(types, letters, i);
        if (!strchr("M*-", kind)) return err_set(e, ERR_FORMAT, "config.json: layer %lld is neither Mamba, attention nor mlp", (long long)i);
        heads[i] = kind == '*' ? (int32_t)import_int(im, "num_key_value_heads", 0) : 0;
        ff[i] = kind == '-' ? (int32_t)import_int(im, "intermediate_size", 0) : 0;
    }
    if (import_number(im, "mamba_proj_bias", 0) != 0) return err_set(e, ERR_FORMAT, "config.json: mamba_proj_bias is true, these projections have none");
    import_drop(im, "expert_used_count");
    import_put_int(im, "block_count", n);
    import_put_ints(im, "attention.head_count_kv", heads, n);
    import_put_ints(im, "feed_forward_length", ff, n);
    import_put_float(im, "attention.layer_norm_epsilon", import_number(im, "layer_norm_epsilon", 1e-5));
    import_put_int(im, "ssm.inner_size", import_whole(import_number(im, "mamba_num_heads", 0) * import_number(im, "mamba_head_dim", 0)));
    return mamba2_keys(im, e);
}

static const struct weight_import imports[] = { { .id = W_SSM_A, .value = minus_exp }, { .id = W_COUNT } };
static const char *const ignore[] = { "mtp.", NULL };
static const struct arch_import import_own = { .keys = keys, .weights = imports, .ignore = ignore };

const struct arch arch_nemotron_h = { .name = "nemotron_h", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true,
                                      .act = ACT_RELU_SQUARED, .setup = setup, .layer = layer, .import = &import_own };

/* arch - the list of architectures, the keys they share, and the helpers their equations use. */
#include "src/arch.h"
#include "src/model_int.h"
#include <math.h>

extern const struct arch arch_llama, arch_qwen2, arch_gemma3;

const struct arch *const arches[] = { &arch_llama, &arch_qwen2, &arch_gemma3, NULL };

#define HP(f) offsetof(struct hparams, f)
#define LP(f) offsetof(struct layer_params, f)

const struct hparam_row common_hparams[] = {
    { "block_count", "num_hidden_layers", HP_INT, HP(n_layer), 1, 1024, NAN },
    { "context_length", "max_position_embeddings", HP_INT, HP(n_ctx_train), 1, 1 << 24, NAN },
    { "embedding_length", "hidden_size", HP_INT, HP(n_embd), 1, 1 << 20, NAN },
    { "attention.layer_norm_rms_epsilon", "rms_norm_eps", HP_FLOAT, HP(eps), 1e-12, 1, NAN },
    { "attention.head_count", "num_attention_heads", HP_LAYER_INT, LP(n_head), 1, 1024, NAN },
    { "attention.head_count_kv", "num_key_value_heads", HP_LAYER_INT, LP(n_head_kv), 1, 1024, HP_ABSENT },
    { "feed_forward_length", "intermediate_size", HP_LAYER_INT, LP(n_ff), 1, 1 << 22, NAN },
    { "attention.key_length", "head_dim", HP_LAYER_INT, LP(head_dim), 8, 512, HP_ABSENT },
    { "attention.value_length", "head_dim", HP_LAYER_INT, LP(head_dim_v), 8, 512, HP_ABSENT },
    { "rope.dimension_count", NULL, HP_INT, HP(n_rot), 2, 512, HP_ABSENT },
    { "rope.freq_base", "rope_theta", HP_FLOAT, HP(rope_base), 1e-3, 1e12, 10000 },
    { "rope.scaling.factor", NULL, HP_FLOAT, HP(rope_factor), 1e-6, 1e6, 1 },
    { "rope.scaling.attn_factor", NULL, HP_FLOAT, HP(rope_attn_factor), 1e-6, 1e6, 1 },
    { "rope.scaling.original_context_length", NULL, HP_INT, HP(rope_ctx_orig), 1, 1 << 24, HP_ABSENT },
    { "rope.scaling.yarn_beta_fast", NULL, HP_FLOAT, HP(yarn_beta_fast), 1e-3, 1e6, 32 },
    { "rope.scaling.yarn_beta_slow", NULL, HP_FLOAT, HP(yarn_beta_slow), 1e-3, 1e6, 1 },
    { "attention.scale", NULL, HP_FLOAT, HP(attn_scale), 1e-9, 1e9, HP_ABSENT },
    { NULL, NULL, HP_INT, 0, 0, 0, 0 },
};

val weight(const struct build *b, int il, enum weight_id id)
{
    const struct tensor *t = model_weight(b->m, il, id);
    if (!t) return VAL_NONE;
    val w = plan_weight(b->p, t);
    const struct outlier_columns *o = model_outliers(b->m, il, id);
    if (o) plan_extra(b->p, w, &o->weight, &o->index);
    return w;
}

val rope(const struct build *b, int il, val x)
{
    const struct layer_params *l = &b->m->layer[il].hp;
    return op_rope(b->p, x, op_rope_table(b->p, &l->rope), (int32_t)l->head_dim, l->rope.n_rot, b->m->arch->rope_neox);
}

val attention(const struct build *b, int il, val q, val k, val v)
{
    const struct layer_params *l = &b->m->layer[il].hp;
    float scale = b->m->hp.attn_scale;
    struct attn_spec s = {
        .il = il,
        .n_head = (int32_t)l->n_head,
        .n_head_kv = (int32_t)l->n_head_kv,
        .head_dim = (int32_t)l->head_dim,
        .head_dim_v = (int32_t)l->head_dim_v,
        .window = l->window,
        .scale = scale > 0 ? scale : 1.0f / sqrtf((float)l->head_dim),
        .cap = b->m->hp.attn_softcap,
    };
    return op_attention(b->p, &s, q, k, v);
}

val last_rows(const struct build *b, int il, val x)
{
    bool last = il + 1 == b->m->hp.n_layer;
    return last && !b->p->observe ? op_rows(b->p, x) : x; /* an observer sees all rows of every layer */
}

val norm(const struct build *b, val x, val w) { return op_rms_norm(b->p, x, w, b->m->hp.eps); }

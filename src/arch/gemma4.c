/* gemma4 - Gemma 4 text models. As Gemma 3 (norms before and after both blocks, norms on Q and K heads, GeGLU, embeddings times sqrt(n_embd)) but: V
 * is RMS-normed too, without a weight, and equals the unnormed K where the file has no V matrix; attention logits are not scaled; layers with a
 * window and layers without have their own head sizes and numbers of K/V heads; the last n_kv_shared layers read the cache of the last layer before
 * them that has the same kind; layers without a window turn only some pairs of the head (the others' rope_freqs are huge); a second embedding
 * per token and layer is mixed with a projection of the first and added, gated, behind each layer; a layer's result has a scale. With experts, the
 * dense block and the experts read the same residual and their normed results are added; the router sees it normed on its own, and each expert's
 * result has a scale. Norm weights are plain. Source: Gemma 4 model card and Hugging Face transformers (2026). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define DIM_TABLE (DIM_OWN + 0)
#define DIM_EACH (DIM_OWN + 1)
#define DIM_FACTORS (DIM_OWN + 2)

static const char *const hf[] = { "Gemma4ForCausalLM", "Gemma4ForConditionalGeneration", NULL };

static const struct hparam_row hparams[] = {
    { "attention.key_length", NULL, HP_LAYER_INT, LP(head_dim), 8, HEAD_DIM_LIMIT, NAN },
    { "attention.value_length", NULL, HP_LAYER_INT, LP(head_dim_v), 8, HEAD_DIM_LIMIT, NAN },
    { "attention.key_length_swa", "head_dim", HP_INT, HP(head_dim_swa), 8, HEAD_DIM_LIMIT, NAN },
    { "attention.sliding_window", "sliding_window", HP_INT, HP(window), 1, 1 << 24, NAN },
    { "attention.sliding_window_pattern", NULL, HP_LAYER_INT, LP(pattern), 0, 1, NAN },
    { "attention.shared_kv_layers", "num_kv_shared_layers", HP_INT, HP(n_kv_shared), 0, 1024, 0 },
    { "rope.dimension_count_swa", NULL, HP_INT, HP(n_rot_swa), 2, HEAD_DIM_LIMIT, HP_ABSENT },
    { "rope.freq_base_swa", NULL, HP_FLOAT, HP(rope_base_swa), 1e-3, 1e12, 10000 },
    { "embedding_length_per_layer_input", "hidden_size_per_layer_input", HP_INT, HP(embd_per_layer), 0, 1 << 16, 0 },
    { "final_logit_softcapping", "final_logit_softcapping", HP_FLOAT, HP(final_softcap), 0, 1e6, 0 },
    { "expert_count", "num_experts", HP_INT, HP(n_expert), 0, EXPERT_LIMIT, 0 },
    { "expert_used_count", "top_k_experts", HP_INT, HP(n_expert_used), 0, EXPERT_LIMIT, 0 },
    { "expert_feed_forward_length", "moe_intermediate_size", HP_INT, HP(n_ff_expert), 1, 1 << 22, 0 },
    HPARAMS_END,
};

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_ROPE_FREQS, "rope_freqs.weight", NULL, DIM_FACTORS, DIM_1, WEIGHT_OPTIONAL },
    { W_PER_LAYER_EMBD, "per_layer_token_embd.weight", "model.embed_tokens_per_layer.weight", DIM_TABLE, DIM_VOCAB, WEIGHT_OPTIONAL },
    { W_PER_LAYER_MODEL_PROJ, "per_layer_model_proj.weight", "model.per_layer_model_projection.weight", DIM_EMBD, DIM_TABLE, WEIGHT_OPTIONAL },
    { W_PER_LAYER_PROJ_NORM, "per_layer_proj_norm.weight", "model.per_layer_projection_norm.weight", DIM_EACH, DIM_1, WEIGHT_OPTIONAL },
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_Q, "blk.%d.attn_q.weight", HF_LAYER "self_attn.q_proj.weight", DIM_EMBD, DIM_Q, 0 },
    { W_ATTN_K, "blk.%d.attn_k.weight", HF_LAYER "self_attn.k_proj.weight", DIM_EMBD, DIM_K, WEIGHT_OPTIONAL },
    { W_ATTN_V, "blk.%d.attn_v.weight", HF_LAYER "self_attn.v_proj.weight", DIM_EMBD, DIM_V, WEIGHT_OPTIONAL },
    { W_ATTN_O, "blk.%d.attn_output.weight", HF_LAYER "self_attn.o_proj.weight", DIM_O, DIM_EMBD, 0 },
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", HF_LAYER "self_attn.q_norm.weight", DIM_HEAD, DIM_1, 0 },
    { W_K_NORM, "blk.%d.attn_k_norm.weight", HF_LAYER "self_attn.k_norm.weight", DIM_HEAD, DIM_1, WEIGHT_OPTIONAL },
    { W_POST_ATTN_NORM, "blk.%d.post_attention_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", HF_LAYER "pre_feedforward_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    ROWS_GATED_FFN,
    { W_POST_DENSE_NORM, "blk.%d.post_ffw_norm_1.weight", HF_LAYER "post_feedforward_layernorm_1.weight", DIM_EMBD, DIM_1, 0, DIM_1, LAYER_MOE },
    { W_MOE_NORM, "blk.%d.pre_ffw_norm_2.weight", HF_LAYER "pre_feedforward_layernorm_2.weight", DIM_EMBD, DIM_1, 0, DIM_1, LAYER_MOE },
    { W_POST_MOE_NORM, "blk.%d.post_ffw_norm_2.weight", HF_LAYER "post_feedforward_layernorm_2.weight", DIM_EMBD, DIM_1, 0, DIM_1, LAYER_MOE },
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", HF_LAYER "router.proj.weight", DIM_EMBD, DIM_EXPERT, 0, DIM_1, LAYER_MOE },
    { W_ROUTER_SCALE, "blk.%d.ffn_gate_inp.scale", HF_LAYER "router.scale", DIM_EMBD, DIM_1, 0, DIM_1, LAYER_MOE },
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", NULL, DIM_EMBD, DIM_FF_EXPERT, WEIGHT_OPTIONAL, DIM_EXPERT, LAYER_MOE },
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", NULL, DIM_EMBD, DIM_FF_EXPERT, WEIGHT_OPTIONAL, DIM_EXPERT, LAYER_MOE },
    { W_GATE_UP_EXPS, "blk.%d.ffn_gate_up_exps.weight", HF_LAYER "experts.gate_up_proj", DIM_EMBD, DIM_FF_EXPERT_TWICE, WEIGHT_OPTIONAL, DIM_EXPERT,
      LAYER_MOE },
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", HF_LAYER "experts.down_proj", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT, LAYER_MOE },
    { W_EXPS_SCALE, "blk.%d.ffn_down_exps.scale", HF_LAYER "router.per_expert_scale", DIM_EXPERT, DIM_1, WEIGHT_OPTIONAL, DIM_1, LAYER_MOE },
    { W_POST_FFN_NORM, "blk.%d.post_ffw_norm.weight", HF_LAYER "post_feedforward_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_PER_LAYER_GATE, "blk.%d.inp_gate.weight", HF_LAYER "per_layer_input_gate.weight", DIM_EMBD, DIM_EACH, WEIGHT_OPTIONAL },
    { W_PER_LAYER_PROJ, "blk.%d.proj.weight", HF_LAYER "per_layer_projection.weight", DIM_EACH, DIM_EMBD, WEIGHT_OPTIONAL },
    { W_POST_PER_LAYER_NORM, "blk.%d.post_norm.weight", HF_LAYER "post_per_layer_input_norm.weight", DIM_EMBD, DIM_1, WEIGHT_OPTIONAL },
    { W_LAYER_SCALE, "blk.%d.layer_output_scale.weight", HF_LAYER "layer_scalar", DIM_1, DIM_1, WEIGHT_OPTIONAL },
    ROWS_END,
};

/* Of the layers without a window, which alone have factors. */
static int64_t turned_pairs(const struct model *m)
{
    for (int64_t il = 0; il < m->hp.n_layer; il++)
        if (!m->layer[il].hp.window) return m->layer[il].hp.rope.n_rot / 2;
    return 1;
}

static int64_t own_dim(const struct model *m, int il, enum dim d)
{
    if (d == DIM_FACTORS) return turned_pairs(m);
    return m->hp.embd_per_layer * (d == DIM_TABLE ? m->hp.n_layer : 1);
}

static status share_caches(struct model *m, struct err *e)
{
    int64_t first = m->hp.n_layer - m->hp.n_kv_shared, last[2] = { -1, -1 };
    for (int64_t il = 0; il < m->hp.n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        if (il < first) {
            last[l->pattern] = il;
            continue;
        }
        if (last[l->pattern] < 0)
            return err_set(e, ERR_FORMAT, "layer %lld shares keys and values, but none of the %lld layers before the shared ones has a window like it",
                           (long long)il, (long long)max_i64(0, first));
        const struct layer_params *from = &m->layer[last[l->pattern]].hp;
        if (from->n_head_kv != l->n_head_kv || from->head_dim != l->head_dim || from->head_dim_v != l->head_dim_v)
            return err_set(e, ERR_FORMAT, "layer %lld shares the keys of layer %lld: %lld heads of %lld and %lld, expected %lld of %lld and %lld",
                           (long long)il, (long long)last[l->pattern], (long long)l->n_head_kv, (long long)l->head_dim, (long long)l->head_dim_v,
                           (long long)from->n_head_kv, (long long)from->head_dim, (long long)from->head_dim_v);
        l->il_kv = last[l->pattern];
    }
    return OK;
}

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    hp->embd_scale = sqrtf((float)hp->n_embd);
    hp->expert_norm = 1;
    for (int64_t il = 0; il < hp->n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        l->scale = 1;
        if (l->kind & LAYER_MOE) l->kind |= LAYER_DENSE;
        if (!l->pattern) continue;
        l->window = hp->window;
        l->head_dim = l->head_dim_v = hp->head_dim_swa;
        l->no_rope_factors = true;
        l->rope = (struct rope_spec){ .n_rot = (int32_t)(hp->n_rot_swa ? hp->n_rot_swa : hp->head_dim_swa), .base = hp->rope_base_swa,
                                      .freq_scale = 1, .mscale = 1 };
    }
    return share_caches(m, e);
}

static status need(const struct model *m, int il, enum weight_id id, const char *name, struct err *e)
{
    char full[64];
    snprintf(full, sizeof full, name, il);
    return model_weight(m, il, id) ? OK : err_set(e, ERR_FORMAT, "tensor %s is missing", full);
}

static status check(const struct model *m, struct err *e)
{
    bool extra = m->hp.embd_per_layer > 0;
    if (extra) TRY(need(m, -1, W_PER_LAYER_EMBD, "per_layer_token_embd.weight", e));
    if (extra) TRY(need(m, -1, W_PER_LAYER_MODEL_PROJ, "per_layer_model_proj.weight", e));
    if (extra) TRY(need(m, -1, W_PER_LAYER_PROJ_NORM, "per_layer_proj_norm.weight", e));
    for (int il = 0; il < m->hp.n_layer; il++) {
        const struct layer_params *l = &m->layer[il].hp;
        if (l->il_kv == il && !model_weight(m, il, W_ATTN_V) && l->head_dim != l->head_dim_v)
            return err_set(e, ERR_FORMAT, "layer %d takes its keys as values: head sizes %lld and %lld, expected two equal ones", il,
                           (long long)l->head_dim, (long long)l->head_dim_v);
        if (l->il_kv == il) TRY(need(m, il, W_ATTN_K, "blk.%d.attn_k.weight", e));
        if (l->il_kv == il) TRY(need(m, il, W_K_NORM, "blk.%d.attn_k_norm.weight", e));
        if (extra) TRY(need(m, il, W_PER_LAYER_GATE, "blk.%d.inp_gate.weight", e));
        if (extra) TRY(need(m, il, W_PER_LAYER_PROJ, "blk.%d.proj.weight", e));
        if (extra) TRY(need(m, il, W_POST_PER_LAYER_NORM, "blk.%d.post_norm.weight", e));
        if (!(l->kind & LAYER_MOE) || model_weight(m, il, W_GATE_UP_EXPS)) continue;
        TRY(need(m, il, W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", e));
        TRY(need(m, il, W_UP_EXPS, "blk.%d.ffn_up_exps.weight", e));
    }
    return OK;
}

/* The second embedding of all layers side by side: (norm(P x / sqrt(n_embd)) + table[token] sqrt(width)) / sqrt(2). */
static val embed(struct build *b, val x)
{
    struct plan *p = b->p;
    const struct hparams *hp = &b->m->hp;
    int64_t each = hp->embd_per_layer;
    if (each == 0) return x;
    val t = op_scale(p, op_embed(p, weight(b, -1, W_PER_LAYER_EMBD), each * hp->n_layer), sqrtf((float)each));
    val y = op_scale(p, op_matmul(p, weight(b, -1, W_PER_LAYER_MODEL_PROJ), x), 1 / sqrtf((float)hp->n_embd));
    y = op_add(p, op_head_norm(p, y, weight(b, -1, W_PER_LAYER_PROJ_NORM), hp->eps, each), t);
    b->side[0] = op_scale(p, y, sqrtf(0.5f));
    return x;
}

static val attend(const struct build *b, int il, val h)
{
    const struct layer_params *l = layer_of(b, il);
    val k = VAL_NONE, v = VAL_NONE;
    if (l->il_kv == il) {
        k = project(b, il, W_ATTN_K, W_COUNT, h);
        v = model_weight(b->m, il, W_ATTN_V) ? project(b, il, W_ATTN_V, W_COUNT, h) : k;
        v = op_head_norm(b->p, v, VAL_NONE, b->m->hp.eps, l->head_dim_v);
        k = rope(b, il, head_norm(b, il, k, W_K_NORM));
    }
    val q = rope(b, il, head_norm(b, il, project(b, il, W_ATTN_Q, W_COUNT, h), W_Q_NORM));
    return project(b, il, W_ATTN_O, W_COUNT, last_rows(b, il, attention(b, il, q, k, v)));
}

static val experts_beside_dense(const struct build *b, int il, val x)
{
    struct plan *p = b->p;
    val seen = op_scale(p, op_rms_norm(p, x, VAL_NONE, b->m->hp.eps), 1 / sqrtf((float)b->m->hp.n_embd));
    val d = norm(b, il, dense(b, il, norm(b, il, x, W_FFN_NORM)), W_POST_DENSE_NORM);
    val m = mixture(b, il, norm(b, il, x, W_MOE_NORM), op_mul_vector(p, seen, weight(b, il, W_ROUTER_SCALE)));
    return op_add(p, d, norm(b, il, m, W_POST_MOE_NORM));
}

static val layer(const struct build *b, int il, val x)
{
    struct plan *p = b->p;
    const struct tensor *scale = model_weight(b->m, il, W_LAYER_SCALE);
    int64_t each = b->m->hp.embd_per_layer;
    val a = attend(b, il, norm(b, il, x, W_ATTN_NORM));
    x = op_add(p, last_rows(b, il, x), norm(b, il, a, W_POST_ATTN_NORM));
    val f = layer_of(b, il)->kind & LAYER_MOE ? experts_beside_dense(b, il, x) : dense(b, il, norm(b, il, x, W_FFN_NORM));
    x = op_add(p, x, norm(b, il, f, W_POST_FFN_NORM));
    if (each > 0) {
        val own = last_rows(b, il, op_slice(p, b->side[0], each * b->m->hp.n_layer, il * each, each));
        val g = op_act_mul(p, ACT_GELU_TANH, op_matmul(p, weight(b, il, W_PER_LAYER_GATE), x), own, 0);
        x = op_add(p, x, norm(b, il, op_matmul(p, weight(b, il, W_PER_LAYER_PROJ), g), W_POST_PER_LAYER_NORM));
    }
    return scale ? op_scale(p, x, *(const float *)scale->data) : x;
}

/* ---- Hugging Face checkpoints ---- */

/* A number that layers without a window have for themselves: under its own name or in the first of their entries. */
static double full_number(const struct import *im, const char *own, const char *common)
{
    double v = import_number(im, own, 0), all = import_number(im, common, 0);
    const struct json *layers = import_config(im, "per_layer_config"), *types = import_config(im, "layer_types");
    if (v > 0 || !layers || !types) return v > 0 ? v : all;
    int64_t il = 0;
    for (const struct json *t = types->child; t; t = t->next, il++) {
        char key[24];
        snprintf(key, sizeof key, "%lld", (long long)il);
        const struct json *entry = json_get(layers, key), *n = entry ? json_get(entry, common) : NULL;
        if (t->kind == JSON_STR && !strcmp(t->str, "full_attention") && n && n->kind == JSON_INT) return n->f;
    }
    return all;
}

static status keys(struct import *im, struct err *e)
{
    enum { LAYERS = 1024 };
    int32_t window[LAYERS], heads[LAYERS], ff[LAYERS];
    int64_t n = 0, all = import_int(im, "num_hidden_layers", 0), shared = import_int(im, "num_kv_shared_layers", 0);
    bool k_is_v = import_number(im, "attention_k_eq_v", 0) != 0, wide = import_number(im, "use_double_wide_mlp", 0) != 0;
    const struct json *types = import_config(im, "layer_types");
    double dim = full_number(im, "global_head_dim", "head_dim"), dim_swa = import_number(im, "head_dim", 0);
    if (!types || types->n != all || all > LAYERS) return err_set(e, ERR_FORMAT, "config.json: layer_types is missing or not one for each layer");
    if (import_number(im, "attention_bias", 0) != 0) return err_set(e, ERR_FORMAT, "config.json: attention_bias is true, these layers have none");
    if (import_is(im, "use_bidirectional_attention", "all")) return err_set(e, ERR_FORMAT, "config.json: use_bidirectional_attention is all");
    for (const struct json *t = types->child; t; t = t->next, n++) {
        window[n] = t->kind == JSON_STR && !strcmp(t->str, "sliding_attention");
        heads[n] = (int32_t)(window[n] || !k_is_v ? import_int(im, "num_key_value_heads", 0)
                                                  : import_whole(full_number(im, "num_global_key_value_heads", "num_key_value_heads")));
        ff[n] = (int32_t)import_whole((wide && n >= all - shared ? 2 : 1) * import_number(im, "intermediate_size", 0));
    }
    import_put_ints(im, "attention.sliding_window_pattern", window, n);
    import_put_ints(im, "attention.head_count_kv", heads, n);
    import_put_ints(im, "feed_forward_length", ff, n);
    import_put_int(im, "attention.key_length", import_whole(dim));
    import_put_int(im, "attention.value_length", import_whole(dim));
    import_put_int(im, "attention.key_length_swa", import_whole(dim_swa));
    import_put_int(im, "attention.value_length_swa", import_whole(dim_swa));
    import_put_int(im, "rope.dimension_count", import_whole(dim));
    import_put_int(im, "rope.dimension_count_swa", import_whole(dim_swa));
    import_put_float(im, "rope.freq_base", import_number(im, "rope_parameters.full_attention.rope_theta", 1000000));
    import_put_float(im, "rope.freq_base_swa", import_number(im, "rope_parameters.sliding_attention.rope_theta", 10000));
    return OK;
}

/* Pairs past the turned share of the head: a factor so large that they stay. */
static status load_factors(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    int64_t pairs = turned_pairs(m);
    int64_t turned = import_whole(import_number(im, "rope_parameters.full_attention.partial_rotary_factor", 0.25) * (double)(2 * pairs) / 2);
    for (int64_t i = 0; i < pairs; i++) out[i] = i < turned ? 1 : 1e30f;
    return OK;
}

static const struct weight_import imports[] = { { .id = W_ROPE_FREQS, .load = load_factors }, { .id = W_COUNT } };
static const char *const ignore[] = { "vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.", "rotary_emb.", NULL };
static const struct arch_import import_4 = { .keys = keys, .weights = imports, .ignore = ignore };

const struct arch arch_gemma4 = { .name = "gemma4", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .act = ACT_GELU_TANH,
                                  .setup = setup, .check = check, .dim = own_dim, .embed = embed, .layer = layer, .import = &import_4 };

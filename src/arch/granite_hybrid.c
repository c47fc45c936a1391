/* granitehybrid - IBM Granite 4: Mamba-2 in most layers, grouped-query attention in the others (those with K/V heads), usually without positions; the four
 * factors of Granite 3; a dense shared block, alone or beside experts chosen by the softmax over the chosen logits. Source: Granite 4.0 (2025). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"
#include <string.h>

static const char *const hf[] = { "GraniteMoeHybridForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HPARAMS_MAMBA2,
    { "attention.scale", "attention_multiplier", HP_FLOAT, HP(attn_scale), 0, 1e9, HP_ABSENT },
    { "embedding_scale", "embedding_multiplier", HP_FLOAT, HP(embd_scale), 0, 1e9, HP_ABSENT },
    { "residual_scale", "residual_multiplier", HP_FLOAT, HP(residual_scale), 0, 1e9, HP_ABSENT },
    { "logit_scale", "logits_scaling", HP_FLOAT, HP(logit_scale), 1e-9, 1e9, 1 },
    { "rope.scaling.finetuned", NULL, HP_BOOL, HP(rope_on), 0, 1, 1 },
    { "expert_count", "num_local_experts", HP_INT, HP(n_expert), 0, EXPERT_LIMIT, 0 },
    { "expert_shared_feed_forward_length", NULL, HP_INT, HP(n_ff_shared), 0, 1 << 22, 0 },
    HPARAMS_END,
};

/* The checkpoint has gate above up in one matrix, for each expert and for the shared block, which is the file's dense block where there are no experts. */
#define ATTN HF_LAYER "self_attn."
#define MOE HF_LAYER "block_sparse_moe."
#define SHARED HF_LAYER "shared_mlp."
static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_MAMBA2(HF_LAYER "mamba.", 0),
    { W_ATTN_Q, "blk.%d.attn_q.weight", ATTN "q_proj.weight", DIM_EMBD, DIM_Q, WEIGHT_ROPE_PAIRS, DIM_1, LAYER_ATTENTION },
    { W_ATTN_K, "blk.%d.attn_k.weight", ATTN "k_proj.weight", DIM_EMBD, DIM_K, WEIGHT_ROPE_PAIRS, DIM_1, LAYER_ATTENTION },
    { W_ATTN_V, "blk.%d.attn_v.weight", ATTN "v_proj.weight", DIM_EMBD, DIM_V, 0, DIM_1, LAYER_ATTENTION },
    { W_ATTN_O, "blk.%d.attn_output.weight", ATTN "o_proj.weight", DIM_O, DIM_EMBD, 0, DIM_1, LAYER_ATTENTION },
    { W_FFN_GATE, "blk.%d.ffn_gate.weight", SHARED "input_linear.weight", DIM_EMBD, DIM_FF, 0, DIM_1, LAYER_DENSE },
    { W_FFN_UP, "blk.%d.ffn_up.weight", SHARED "input_linear.weight", DIM_EMBD, DIM_FF, 0, DIM_1, LAYER_DENSE },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", SHARED "output_linear.weight", DIM_FF, DIM_EMBD, 0, DIM_1, LAYER_DENSE },
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", MOE "router.layer.weight", DIM_EMBD, DIM_EXPERT, 0, DIM_1, LAYER_MOE },
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", MOE "input_linear.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT, LAYER_MOE },
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", MOE "input_linear.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT, LAYER_MOE },
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", MOE "output_linear.weight", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT, LAYER_MOE },
    { W_GATE_SHARED, "blk.%d.ffn_gate_shexp.weight", SHARED "input_linear.weight", DIM_EMBD, DIM_FF_SHARED, WEIGHT_OPTIONAL, DIM_1, LAYER_MOE },
    { W_UP_SHARED, "blk.%d.ffn_up_shexp.weight", SHARED "input_linear.weight", DIM_EMBD, DIM_FF_SHARED, WEIGHT_OPTIONAL, DIM_1, LAYER_MOE },
    { W_DOWN_SHARED, "blk.%d.ffn_down_shexp.weight", SHARED "output_linear.weight", DIM_FF_SHARED, DIM_EMBD, WEIGHT_OPTIONAL, DIM_1, LAYER_MOE },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    hp->logit_scale = 1.0f / hp->logit_scale;
    hp->n_ff_expert = m->layer[0].hp.n_ff;
    hp->expert_norm = 1;
    for (int il = 0; il < hp->n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        l->no_rope = !hp->rope_on;
        if (l->n_head_kv > 0) continue;
        l->kind &= ~(unsigned)LAYER_ATTENTION;
        TRY(mamba2_state(m, il, e));
    }
    return OK;
}

static status check(const struct model *m, struct err *e)
{
    for (int il = 0; il < m->hp.n_layer; il++) {
        bool gate = model_weight(m, il, W_GATE_SHARED), up = model_weight(m, il, W_UP_SHARED), down = model_weight(m, il, W_DOWN_SHARED);
        if (gate != up || gate != down) return err_set(e, ERR_FORMAT, "layer %d has a part of the shared expert's matrices only", il);
    }
    return OK;
}

static val layer(const struct build *b, int il, val x)
{
    val h = norm(b, il, x, W_ATTN_NORM);
    h = layer_of(b, il)->kind & LAYER_RECURRENT ? mamba2_mixer(b, il, h) : self_attention(b, il, h);
    x = residual(b, last_rows(b, il, x), h);
    return residual(b, x, feed_forward(b, il, norm(b, il, x, W_FFN_NORM)));
}

/* ---- Hugging Face checkpoints ---- */

static status keys(struct import *im, struct err *e)
{
    enum { LAYERS = 1024 };
    int32_t heads[LAYERS];
    int64_t n = 0, all = import_int(im, "num_hidden_layers", 0);
    bool experts = import_number(im, "num_local_experts", 0) > 0;
    const struct json *types = import_config(im, "layer_types|layers_block_type");
    if (!types || types->n != all || all > LAYERS) return err_set(e, ERR_FORMAT, "config.json: layer_types is missing or not one for each layer");
    for (const struct json *t = types->child; t; t = t->next, n++) {
        bool attends = t->kind == JSON_STR && (!strcmp(t->str, "attention") || !strcmp(t->str, "full_attention"));
        heads[n] = attends ? (int32_t)import_int(im, "num_key_value_heads", import_int(im, "num_attention_heads", 0)) : 0;
    }
    if (import_number(im, "attention_bias", 0) != 0) return err_set(e, ERR_FORMAT, "config.json: attention_bias is true, these layers have none");
    if (import_number(im, "mamba_proj_bias", 0) != 0) return err_set(e, ERR_FORMAT, "config.json: mamba_proj_bias is true, these projections have none");
    import_put_ints(im, "attention.head_count_kv", heads, n);
    import_put_int(im, "feed_forward_length", import_int(im, experts ? "intermediate_size" : "shared_intermediate_size", 0));
    if (experts) import_put_int(im, "expert_shared_feed_forward_length", import_int(im, "shared_intermediate_size", 0));
    else import_drop(im, "expert_count"), import_drop(im, "expert_used_count");
    import_put_bool(im, "rope.scaling.finetuned", import_is(im, "position_embedding_type", "rope"));
    import_put_int(im, "ssm.inner_size", import_whole(import_number(im, "mamba_expand", 2) * import_number(im, "hidden_size", 0)));
    return mamba2_keys(im, e);
}

static int64_t gate_row(const struct model *m, int il, int64_t i) { return i + i / m->hp.n_ff_expert * m->hp.n_ff_expert; }
static int64_t up_row(const struct model *m, int il, int64_t i) { return gate_row(m, il, i) + m->hp.n_ff_expert; }
static int64_t first_row(const struct model *m, int il, int64_t i) { return i; }
static int64_t shared_up_row(const struct model *m, int il, int64_t i) { return i + m->hp.n_ff_shared; }
static int64_t dense_up_row(const struct model *m, int il, int64_t i) { return i + m->layer[il].hp.n_ff; }

static const struct weight_import imports[] = {
    { .id = W_SSM_A, .value = minus_exp },     { .id = W_GATE_EXPS, .row = gate_row },    { .id = W_UP_EXPS, .row = up_row },
    { .id = W_GATE_SHARED, .row = first_row }, { .id = W_UP_SHARED, .row = shared_up_row }, { .id = W_FFN_GATE, .row = first_row },
    { .id = W_FFN_UP, .row = dense_up_row },   { .id = W_COUNT },
};
static const struct arch_import import_own = { .keys = keys, .weights = imports };

const struct arch arch_granitehybrid = { .name = "granitehybrid", .hf = hf, .hparams = hparams, .weights = weights, .setup = setup, .check = check,
                                         .layer = layer, .import = &import_own };

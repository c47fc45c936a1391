/* mamba2 - Mamba-2: nothing but norms and the scan's block, no attention, no feed-forward block. Source: Transformers are SSMs, Dao & Gu 2024. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

/* ---- the block, for all architectures that have it ---- */

status mamba2_state(struct model *m, int il, struct err *e)
{
    const struct hparams *hp = &m->hp;
    if (hp->ssm_inner % hp->ssm_rank || hp->ssm_rank % hp->ssm_group || hp->ssm_inner % hp->ssm_group || hp->ssm_inner / hp->ssm_rank > HEAD_DIM_LIMIT)
        return err_set(e, ERR_FORMAT, "ssm.inner_size %lld, ssm.time_step_rank %lld, ssm.group_count %lld: expected multiples, heads of at most %d",
                       (long long)hp->ssm_inner, (long long)hp->ssm_rank, (long long)hp->ssm_group, HEAD_DIM_LIMIT);
    m->layer[il].hp.kind |= LAYER_RECURRENT;
    m->layer[il].hp.rec = (struct recurrent_state){ .n_conv = hp->ssm_conv, .channels = model_dim(m, il, DIM_SSM_MIXED),
                                                    .n_memory = hp->ssm_inner * hp->ssm_state };
    return OK;
}

/* A vector that the file keeps in two dimensions. */
static val flat_weight(const struct build *b, int il, enum weight_id id)
{
    struct tensor t = *model_weight(b->m, il, id);
    tensor_shape(&t, t.type, tensor_elements(&t), 1, 1, 1);
    return plan_weight(b->p, &t);
}

val mamba2_mixer(const struct build *b, int il, val h)
{
    struct plan *p = b->p;
    const struct hparams *hp = &b->m->hp;
    int64_t inner = hp->ssm_inner, shared = hp->ssm_group * hp->ssm_state, mixed = inner + 2 * shared, all = inner + mixed + hp->ssm_rank;
    struct delta_spec s = { .il = il, .n_k_head = (int32_t)hp->ssm_group, .n_v_head = (int32_t)hp->ssm_rank, .k_dim = (int32_t)hp->ssm_state,
                            .v_dim = (int32_t)(inner / hp->ssm_rank), .plain = true };
    val in = op_matmul(p, weight(b, il, W_SSM_IN), h), z = op_slice(p, in, all, 0, inner);
    val dt = op_act(p, ACT_SOFTPLUS, op_bias(p, op_slice(p, in, all, inner + mixed, hp->ssm_rank), weight(b, il, W_SSM_DT)));
    val m = op_conv(p, il, op_slice(p, in, all, inner, mixed), weight(b, il, W_SSM_CONV), weight(b, il, W_SSM_CONV_B));
    m = op_act(p, ACT_SILU, m);
    val x = op_slice(p, m, mixed, 0, inner), k = op_slice(p, m, mixed, inner, shared), q = op_slice(p, m, mixed, inner + shared, shared);
    val y = op_delta_rule(p, &s, q, k, x, op_mul_vector(p, dt, flat_weight(b, il, W_SSM_A)), dt);
    y = op_act_mul(p, ACT_SILU, z, op_add(p, y, op_scale_runs(p, x, flat_weight(b, il, W_SSM_D))), 0);
    if (model_weight(b->m, il, W_SSM_NORM))
        y = op_mul_vector(p, op_head_norm(p, y, VAL_NONE, hp->eps, inner / hp->ssm_group), flat_weight(b, il, W_SSM_NORM));
    return op_matmul(p, weight(b, il, W_SSM_OUT), last_rows(b, il, y));
}

/* ---- the architecture ---- */

static const char *const hf[] = { "Mamba2ForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HPARAMS_MAMBA2,
    { "attention.head_count", NULL, HP_LAYER_INT, LP(n_head), 0, 1024, 0 },
    { "attention.layer_norm_rms_epsilon", "layer_norm_epsilon", HP_FLOAT, HP(eps), 1e-12, 1, NAN },
    HPARAMS_END,
};

#define BLOCK "backbone.layers.%d."
static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "backbone.embeddings.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    { W_OUTPUT_NORM, "output_norm.weight", "backbone.norm_f.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", BLOCK "norm.weight", DIM_EMBD, DIM_1, 0 },
    ROWS_MAMBA2(BLOCK "mixer.", 0),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    for (int il = 0; il < m->hp.n_layer; il++) {
        m->layer[il].hp.kind = 0;
        TRY(mamba2_state(m, il, e));
    }
    return OK;
}

static val layer(const struct build *b, int il, val x)
{
    return op_add(b->p, last_rows(b, il, x), mamba2_mixer(b, il, norm(b, il, x, W_ATTN_NORM)));
}

static status keys(struct import *im, struct err *e)
{
    double heads = import_number(im, "num_heads", 0), width = import_number(im, "expand", 2) * import_number(im, "hidden_size", 0);
    if (import_number(im, "use_bias", 0) != 0) return err_set(e, ERR_FORMAT, "config.json: use_bias is true, these projections have none");
    if (heads * import_number(im, "head_dim", 0) != width)
        return err_set(e, ERR_FORMAT, "config.json: num_heads %g of head_dim %g, expected %g in all", heads, import_number(im, "head_dim", 0), width);
    import_put_int(im, "ssm.inner_size", import_whole(width));
    import_put_int(im, "context_length", 1 << 20); /* it has no limit */
    import_put_int(im, "attention.head_count", 0);
    import_put_int(im, "feed_forward_length", 0);
    import_drop(im, "attention.key_length");
    import_drop(im, "attention.value_length");
    return mamba2_keys(im, e);
}

static const struct weight_import imports[] = { { .id = W_SSM_A, .value = minus_exp }, { .id = W_COUNT } };
static const struct arch_import import_own = { .keys = keys, .weights = imports };

const struct arch arch_mamba2 = { .name = "mamba2", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .layer = layer,
                                  .import = &import_own };

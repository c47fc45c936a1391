/* falcon-h1 - Falcon-H1: in every layer a Mamba-2 block and grouped-query attention read the same normed input and are added together; then SwiGLU. The
 * checkpoint's muP factors are part of the file's matrices. Source: Falcon-H1, Zuo et al. 2025. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "FalconH1ForCausalLM", NULL };

static const struct hparam_row hparams[] = { HPARAMS_MAMBA2, HPARAMS_END };

static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "model.embed_tokens.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight|model.embed_tokens.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    { W_OUTPUT_NORM, "output_norm.weight", "model.final_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_FFN_NORM, "blk.%d.ffn_norm", HF_LAYER "pre_ff_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    ROWS_ATTENTION(0),
    ROWS_MAMBA2(HF_LAYER "mamba.", WEIGHT_OPTIONAL),
    { W_FFN_GATE, "blk.%d.ffn_gate.weight", HF_LAYER "feed_forward.gate_proj.weight", DIM_EMBD, DIM_FF },
    { W_FFN_UP, "blk.%d.ffn_up.weight", HF_LAYER "feed_forward.up_proj.weight", DIM_EMBD, DIM_FF },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", HF_LAYER "feed_forward.down_proj.weight", DIM_FF, DIM_EMBD },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    for (int il = 0; il < m->hp.n_layer; il++) TRY(mamba2_state(m, il, e));
    return OK;
}

static val layer(const struct build *b, int il, val x)
{
    val h = norm(b, il, x, W_ATTN_NORM);
    val attention = self_attention(b, il, h), both = op_add(b->p, mamba2_mixer(b, il, h), attention); /* recorded in this order by every compiler */
    x = op_add(b->p, last_rows(b, il, x), both);
    return op_add(b->p, x, dense(b, il, norm(b, il, x, W_FFN_NORM)));
}

/* ---- Hugging Face checkpoints ---- */

static double list_item(const struct import *im, const char *name, int i)
{
    const struct json *list = import_config(im, name), *n = list ? list->child : NULL;
    while (n && i-- > 0) n = n->next;
    return n && (n->kind == JSON_INT || n->kind == JSON_FLOAT) ? n->f : 1;
}

static double of_in(const struct import *im, const struct model *m, int il, int64_t i)
{
    const struct hparams *hp = &m->hp;
    int64_t end[] = { hp->ssm_inner, hp->ssm_inner, hp->ssm_group * hp->ssm_state, hp->ssm_group * hp->ssm_state, hp->ssm_rank };
    int part = 0;
    for (; part < ARRAY_LEN(end) - 1 && i >= end[part]; part++) i -= end[part];
    return import_number(im, "ssm_in_multiplier", 1) * list_item(im, "ssm_multipliers", part);
}

static double of_input(const struct import *im, const struct model *m, int il, int64_t i) { return import_number(im, "attention_in_multiplier", 1); }
static double of_keys(const struct import *im, const struct model *m, int il, int64_t i)
{
    return of_input(im, m, il, i) * import_number(im, "key_multiplier", 1);
}
static double of_attention(const struct import *im, const struct model *m, int il, int64_t i) { return import_number(im, "attention_out_multiplier", 1); }
static double of_out(const struct import *im, const struct model *m, int il, int64_t i) { return import_number(im, "ssm_out_multiplier", 1); }
static double of_gate(const struct import *im, const struct model *m, int il, int64_t i) { return list_item(im, "mlp_multipliers", 0); }
static double of_down(const struct import *im, const struct model *m, int il, int64_t i) { return list_item(im, "mlp_multipliers", 1); }
static double of_embedding(const struct import *im, const struct model *m, int il, int64_t i) { return import_number(im, "embedding_multiplier", 1); }
static double of_head(const struct import *im, const struct model *m, int il, int64_t i) { return import_number(im, "lm_head_multiplier", 1); }

static status keys(struct import *im, struct err *e)
{
    double width = import_number(im, "mamba_d_ssm", import_number(im, "mamba_expand", 2) * import_number(im, "hidden_size", 0));
    static const char *const biases[] = { "attention_bias", "mlp_bias", "mamba_proj_bias", "projectors_bias" };
    for (int i = 0; i < ARRAY_LEN(biases); i++)
        if (import_number(im, biases[i], 0) != 0) return err_set(e, ERR_FORMAT, "config.json: %s is true, these equations have none", biases[i]);
    if (import_number(im, "mamba_rms_norm", 0) != 0 && import_number(im, "mamba_norm_before_gate", 1) != 0)
        return err_set(e, ERR_FORMAT, "config.json: mamba_norm_before_gate is true, here the gate comes first");
    import_put_int(im, "ssm.inner_size", import_whole(width));
    return mamba2_keys(im, e);
}

static const struct weight_import imports[] = {
    { .id = W_SSM_A, .value = minus_exp },      { .id = W_SSM_IN, .factor = of_in },      { .id = W_SSM_OUT, .factor = of_out },
    { .id = W_ATTN_Q, .factor = of_input },     { .id = W_ATTN_K, .factor = of_keys },    { .id = W_ATTN_V, .factor = of_input },
    { .id = W_ATTN_O, .factor = of_attention }, { .id = W_FFN_GATE, .factor = of_gate },  { .id = W_FFN_DOWN, .factor = of_down },
    { .id = W_EMBD, .factor = of_embedding },   { .id = W_OUTPUT, .factor = of_head },    { .id = W_COUNT },
};
static const struct arch_import import_own = { .keys = keys, .weights = imports };

const struct arch arch_falcon_h1 = { .name = "falcon-h1", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup,
                                     .layer = layer, .import = &import_own };

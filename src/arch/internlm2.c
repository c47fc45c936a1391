/* internlm2 - InternLM 2 and 2.5: the Llama block; checkpoints keep each KV head's queries, its key and its value together. Source: Cai et
 * al. 2024. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "InternLM2ForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

#define WQKV HF_LAYER "attention.wqkv.weight"
#define FF HF_LAYER "feed_forward."

static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "model.tok_embeddings.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT, "output.weight", "output.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "attention_norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_Q, "blk.%d.attn_q.weight", WQKV, DIM_EMBD, DIM_Q, 0 },
    { W_ATTN_K, "blk.%d.attn_k.weight", WQKV, DIM_EMBD, DIM_K, 0 },
    { W_ATTN_V, "blk.%d.attn_v.weight", WQKV, DIM_EMBD, DIM_V, 0 },
    { W_ATTN_O, "blk.%d.attn_output.weight", HF_LAYER "attention.wo.weight", DIM_O, DIM_EMBD, 0 },
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", HF_LAYER "ffn_norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_FFN_GATE, "blk.%d.ffn_gate.weight", FF "w1.weight", DIM_EMBD, DIM_FF, 0 },
    { W_FFN_UP, "blk.%d.ffn_up.weight", FF "w3.weight", DIM_EMBD, DIM_FF, 0 },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", FF "w2.weight", DIM_FF, DIM_EMBD, 0 },
    ROWS_END,
};

static status keys(struct import *im, struct err *e)
{
    if (import_number(im, "bias", 0) != 0) return err_set(e, ERR_FORMAT, "bias is true: not supported for InternLM 2");
    return OK;
}

/* Row `at` of the member `part` of a KV head's group (its queries, then key, then value). */
static int64_t group_row(const struct layer_params *l, int64_t kv, int64_t part, int64_t at)
{
    return (kv * (l->n_head / l->n_head_kv + 2) + part) * l->head_dim + at;
}

/* Neighbours here are half a head apart there. */
static int64_t unpaired(const struct layer_params *l, int64_t at) { return at % 2 * (l->head_dim / 2) + at / 2; }

static int64_t q_row(const struct model *m, int il, int64_t i)
{
    const struct layer_params *l = &m->layer[il].hp;
    int64_t group = l->n_head / l->n_head_kv, head = i / l->head_dim;
    return group_row(l, head / group, head % group, unpaired(l, i % l->head_dim));
}

static int64_t k_row(const struct model *m, int il, int64_t i)
{
    const struct layer_params *l = &m->layer[il].hp;
    return group_row(l, i / l->head_dim, l->n_head / l->n_head_kv, unpaired(l, i % l->head_dim));
}

static int64_t v_row(const struct model *m, int il, int64_t i)
{
    const struct layer_params *l = &m->layer[il].hp;
    return group_row(l, i / l->head_dim, l->n_head / l->n_head_kv + 1, i % l->head_dim);
}

static const struct weight_import parts[] = {
    { .id = W_ATTN_Q, .row = q_row },
    { .id = W_ATTN_K, .row = k_row },
    { .id = W_ATTN_V, .row = v_row },
    { .id = W_COUNT },
};
static const struct arch_import import = { .keys = keys, .weights = parts };

const struct arch arch_internlm2 = { .name = "internlm2", .hf = hf, .hparams = hparams, .weights = weights, .import = &import };

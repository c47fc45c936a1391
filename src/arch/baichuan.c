/* baichuan - Baichuan 1 and 2: the Llama block; 13B (40 layers) with ALiBi in place of rope. Checkpoints keep Q, K and V in one matrix, and
 * Baichuan 2's head is normalised row by row when it is used. Source: Yang et al. 2023. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

enum { LAYERS_13B = 40, VOCAB_2 = 125696 };

static const char *const hf[] = { "BaichuanForCausalLM", "BaiChuanForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

#define W_PACK HF_LAYER "self_attn.W_pack.weight"

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    { W_ATTN_Q, "blk.%d.attn_q.weight", W_PACK, DIM_EMBD, DIM_Q, 0 },
    { W_ATTN_K, "blk.%d.attn_k.weight", W_PACK, DIM_EMBD, DIM_K, 0 },
    { W_ATTN_V, "blk.%d.attn_v.weight", W_PACK, DIM_EMBD, DIM_V, 0 },
    { W_ATTN_O, "blk.%d.attn_output.weight", HF_LAYER "self_attn.o_proj.weight", DIM_O, DIM_EMBD, 0 },
    ROWS_GATED_FFN,
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    if (m->hp.n_layer != LAYERS_13B) return OK;
    m->hp.alibi = 8;
    for (int64_t il = 0; il < m->hp.n_layer; il++) m->layer[il].hp.no_rope = true;
    return OK;
}

/* Row i of the part-th of three parts of n rows, neighbours of a rope pair half a head apart. */
static int64_t pack_row(const struct layer_params *l, int part, int64_t i, bool pairs)
{
    int64_t d = l->head_dim, at = i % d;
    return part * l->n_head * d + i / d * d + (pairs ? at % 2 * (d / 2) + at / 2 : at);
}

static int64_t q_row(const struct model *m, int il, int64_t i) { return pack_row(&m->layer[il].hp, 0, i, true); }
static int64_t k_row(const struct model *m, int il, int64_t i) { return pack_row(&m->layer[il].hp, 1, i, true); }
static int64_t v_row(const struct model *m, int il, int64_t i) { return pack_row(&m->layer[il].hp, 2, i, false); }

static status load_head(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    int64_t n = m->hp.n_embd, rows = m->hp.n_vocab, shape[] = { -1, n };
    float *x;
    TRY(import_load(im, "lm_head.weight", il, shape, 2, &x, e));
    if (shape[0] < rows) {
        mem_free(x);
        return err_set(e, ERR_FORMAT, "lm_head.weight has %lld rows, expected %lld", (long long)shape[0], (long long)rows);
    }
    for (int64_t r = 0; r < rows; r++) {
        double square = 0;
        for (int64_t i = 0; i < n; i++) square += (double)x[r * n + i] * (double)x[r * n + i];
        double s = rows == VOCAB_2 ? 1 / fmax(sqrt(square), 1e-12) : 1;
        for (int64_t i = 0; i < n; i++) out[r * n + i] = (float)((double)x[r * n + i] * s);
    }
    mem_free(x);
    return OK;
}

static status keys(struct import *im, struct err *e)
{
    import_drop(im, "attention.head_count_kv");
    return OK;
}

static const struct weight_import parts[] = {
    { .id = W_ATTN_Q, .row = q_row },
    { .id = W_ATTN_K, .row = k_row },
    { .id = W_ATTN_V, .row = v_row },
    { .id = W_OUTPUT, .load = load_head },
    { .id = W_COUNT },
};
static const struct arch_import import = { .keys = keys, .weights = parts };

const struct arch arch_baichuan = {
    .name = "baichuan", .hf = hf, .hparams = hparams, .weights = weights, .setup = setup, .import = &import
};

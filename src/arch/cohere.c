/* cohere - Command R (command-r) and Command R7B (cohere2): attention and feed-forward read the same LayerNorm without bias and are added together;
 * tied head with a factor. Command R+ has LayerNorms with a part for each head on Q and K. In cohere2 three of four layers have a sliding window and
 * rope, the fourth sees everything and has no positions. Adjacent rope pairs, in checkpoints too. Sources: the model cards; Yang et al. 2025 (RoPE to
 * NoRoPE and back). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

enum { PATTERN = 4 };

static const char *const hf[] = { "CohereForCausalLM", NULL };
static const char *const hf2[] = { "Cohere2ForCausalLM", NULL };

#define HPARAMS_COHERE                                                                                                                     \
    { "attention.layer_norm_epsilon", "layer_norm_eps", HP_FLOAT, HP(eps), 1e-12, 1, NAN },                                                \
    { "logit_scale", "logit_scale", HP_FLOAT, HP(logit_scale), 1e-9, 1e9, NAN }

static const struct hparam_row hparams[] = { HPARAMS_COHERE, HPARAMS_END };
static const struct hparam_row hparams2[] = { HPARAMS_COHERE, HPARAM_WINDOW(0), HPARAMS_END };

#define ROWS_COHERE                                                                                                                        \
    { W_EMBD, "token_embd.weight", "model.embed_tokens.weight", DIM_EMBD, DIM_VOCAB },                                                     \
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },                                                 \
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1 },                                                         \
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1 },                                        \
    ROWS_ATTENTION(0),                                                                                                                     \
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),                                                                                               \
    ROW_BIAS_O(WEIGHT_OPTIONAL),                                                                                                           \
    ROWS_GATED_FFN

static const struct weight_row weights[] = {
    ROWS_COHERE,
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", HF_LAYER "self_attn.q_norm.weight", DIM_HEAD, DIM_N_HEAD, WEIGHT_OPTIONAL | WEIGHT_VECTOR },
    { W_K_NORM, "blk.%d.attn_k_norm.weight", HF_LAYER "self_attn.k_norm.weight", DIM_HEAD, DIM_N_HEAD_KV, WEIGHT_OPTIONAL | WEIGHT_VECTOR },
    ROWS_END,
};

static const struct weight_row weights2[] = { ROWS_COHERE, ROWS_END };

static val layer(const struct build *b, int il, val x)
{
    val h = norm(b, il, x, W_ATTN_NORM), a = self_attention(b, il, h), f = feed_forward(b, il, last_rows(b, il, h));
    return op_add(b->p, op_add(b->p, last_rows(b, il, x), a), f);
}

static status setup2(struct model *m, struct err *e)
{
    TRY(window_layers(m, PATTERN, e));
    for (int64_t il = 0; il < m->hp.n_layer; il++) m->layer[il].hp.no_rope = m->layer[il].hp.window == 0;
    return OK;
}

static status keys2(struct import *im, struct err *e) { return import_windows(im, PATTERN, e); }
static const struct arch_import import2 = { .keys = keys2 };

const struct arch arch_command_r = {
    .name = "command-r", .hf = hf, .hparams = hparams, .weights = weights, .layer_norm = true, .layer = layer
};
const struct arch arch_cohere2 = {
    .name = "cohere2", .hf = hf2, .hparams = hparams2, .weights = weights2, .layer_norm = true, .layer = layer, .setup = setup2, .import = &import2
};

/* gemma3 - Gemma 3 text models. Norms before and after both blocks, RMS norms on every Q and K head, embeddings scaled by sqrt(n_embd),
 * GeGLU; five layers with a sliding window and rope base 10,000, then one that sees everything with the file's base and rope scaling. Norm
 * weights are stored with their +1 already added. Source: Gemma 3 Technical Report (2025). */
#include "src/arch.h"
#include "src/model_int.h"
#include <math.h>

enum { PATTERN = 6 }; /* every 6th layer is global */

static const struct hparam_row hparams[] = {
    { "attention.sliding_window", "sliding_window", HP_INT, offsetof(struct hparams, window), 0, 1 << 24, 0 },
    { "rope.freq_base_swa", "rope_local_base_freq", HP_FLOAT, offsetof(struct hparams, rope_base_swa), 1e-3, 1e12, 10000 },
    { "final_logit_softcapping", "final_logit_softcapping", HP_FLOAT, offsetof(struct hparams, final_softcap), 0, 1e6, 0 },
    { NULL, NULL, HP_INT, 0, 0, 0, 0 },
};

static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "model.embed_tokens.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", "model.layers.%d.input_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_Q, "blk.%d.attn_q.weight", "model.layers.%d.self_attn.q_proj.weight", DIM_EMBD, DIM_Q, 0 },
    { W_ATTN_K, "blk.%d.attn_k.weight", "model.layers.%d.self_attn.k_proj.weight", DIM_EMBD, DIM_K, 0 },
    { W_ATTN_V, "blk.%d.attn_v.weight", "model.layers.%d.self_attn.v_proj.weight", DIM_EMBD, DIM_V, 0 },
    { W_ATTN_O, "blk.%d.attn_output.weight", "model.layers.%d.self_attn.o_proj.weight", DIM_O, DIM_EMBD, 0 },
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", "model.layers.%d.self_attn.q_norm.weight", DIM_HEAD, DIM_1, 0 },
    { W_K_NORM, "blk.%d.attn_k_norm.weight", "model.layers.%d.self_attn.k_norm.weight", DIM_HEAD, DIM_1, 0 },
    { W_POST_ATTN_NORM, "blk.%d.post_attention_norm.weight", "model.layers.%d.post_attention_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", "model.layers.%d.pre_feedforward_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_FFN_GATE, "blk.%d.ffn_gate.weight", "model.layers.%d.mlp.gate_proj.weight", DIM_EMBD, DIM_FF, 0 },
    { W_FFN_UP, "blk.%d.ffn_up.weight", "model.layers.%d.mlp.up_proj.weight", DIM_EMBD, DIM_FF, 0 },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", "model.layers.%d.mlp.down_proj.weight", DIM_FF, DIM_EMBD, 0 },
    { W_POST_FFN_NORM, "blk.%d.post_ffw_norm.weight", "model.layers.%d.post_feedforward_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_COUNT, NULL, NULL, DIM_1, DIM_1, 0 },
};

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    hp->embd_scale = sqrtf((float)hp->n_embd);
    /* The 27B model (62 layers) divides by the width of an even share of the embedding instead of the head. */
    if (hp->n_layer == 62 && hp->attn_scale == 0) hp->attn_scale = 1.0f / sqrtf((float)hp->n_embd / (float)m->layer[0].hp.n_head);
    for (int il = 0; il < hp->n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        if (hp->window == 0 || il % PATTERN == PATTERN - 1) continue;
        l->window = hp->window;
        l->rope = (struct rope_spec){ .n_rot = l->rope.n_rot, .base = hp->rope_base_swa, .freq_scale = 1, .mscale = 1 };
    }
    return OK;
}

static val layer(const struct build *b, int il, val x)
{
    struct plan *p = b->p;
    const struct layer_params *l = &b->m->layer[il].hp;
    float eps = b->m->hp.eps;
    val h = norm(b, x, weight(b, il, W_ATTN_NORM));
    val q = rope(b, il, op_head_norm(p, op_matmul(p, weight(b, il, W_ATTN_Q), h), weight(b, il, W_Q_NORM), eps, l->head_dim));
    val k = rope(b, il, op_head_norm(p, op_matmul(p, weight(b, il, W_ATTN_K), h), weight(b, il, W_K_NORM), eps, l->head_dim));
    val v = op_matmul(p, weight(b, il, W_ATTN_V), h);
    val a = op_matmul(p, weight(b, il, W_ATTN_O), last_rows(b, il, attention(b, il, q, k, v)));
    x = op_add(p, last_rows(b, il, x), norm(b, a, weight(b, il, W_POST_ATTN_NORM)));

    h = norm(b, x, weight(b, il, W_FFN_NORM));
    val g = op_gelu_mul(p, op_matmul(p, weight(b, il, W_FFN_GATE), h), op_matmul(p, weight(b, il, W_FFN_UP), h));
    return op_add(p, x, norm(b, op_matmul(p, weight(b, il, W_FFN_DOWN), g), weight(b, il, W_POST_FFN_NORM)));
}

const struct arch arch_gemma3 = {
    .name = "gemma3", .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .layer = layer
};

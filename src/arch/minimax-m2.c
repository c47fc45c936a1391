/* minimax-m2 - MiniMax-M2: grouped-query attention with RMS norms over all heads of Q and of K at once, rope on the first dimensions of
 * each head, and in every layer a mixture of experts chosen by sigmoid and bias. Source: MiniMax 2025. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "MiniMaxM2ForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    { "expert_count", "num_local_experts", HP_INT, HP(n_expert), 1, EXPERT_LIMIT, NAN },
    { "expert_feed_forward_length", "intermediate_size", HP_INT, HP(n_ff_expert), 1, 1 << 22, HP_ABSENT },
    { "expert_gating_func", NULL, HP_INT, HP(expert_func), 0, ROUTE_SOFTMAX_CHOSEN, 0 },
    { "rope.dimension_count", "rotary_dim", HP_INT, HP(n_rot), 2, HEAD_DIM_LIMIT, HP_ABSENT },
    HPARAMS_END,
};

#define MOE HF_LAYER "block_sparse_moe."

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", HF_LAYER "self_attn.q_norm.weight", DIM_Q, DIM_1, 0 },
    { W_K_NORM, "blk.%d.attn_k_norm.weight", HF_LAYER "self_attn.k_norm.weight", DIM_K, DIM_1, 0 },
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", MOE "gate.weight", DIM_EMBD, DIM_EXPERT, 0 },
    ROW_CHOICE_BIAS(MOE "e_score_correction_bias", 0),
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", MOE "experts.%e.w1.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", MOE "experts.%e.w3.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT },
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", MOE "experts.%e.w2.weight", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT },
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    if (hp->n_ff_expert == 0) hp->n_ff_expert = m->layer[0].hp.n_ff;
    if (hp->expert_func == 0) hp->expert_func = ROUTE_SIGMOID;
    hp->expert_norm = 1;
    return OK;
}

const struct arch arch_minimax_m2 = {
    .name = "minimax-m2",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .setup = setup,
    .import = &import_sigmoid,
};

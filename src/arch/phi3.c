/* phi3 - Phi-3, Phi-3.5 and Phi-4: the Llama block with Q, K, V in one matrix and gate above up in another; rope over a part of each head; LongRoPE
 * factors for contexts up to and beyond the original one. The sliding window of Phi-3 applies to every layer (llama.cpp ignores it).
 * Sources: Abdin et al. 2024; LongRoPE (Ding et al. 2024). */
#include "src/arch/rows.h"
#include "src/model_int.h"

static const char *const hf[] = { "Phi3ForCausalLM", "Phi4ForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAM_WINDOW(0), HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_ROPE_LONG,
    ROWS_NORMS,
    { W_ATTN_QKV, "blk.%d.attn_qkv.weight", HF_LAYER "self_attn.qkv_proj.weight", DIM_EMBD, DIM_QKV },
    { W_ATTN_O, "blk.%d.attn_output.weight", HF_LAYER "self_attn.o_proj.weight", DIM_O, DIM_EMBD },
    { W_FFN_UP, "blk.%d.ffn_up.weight", HF_LAYER "mlp.gate_up_proj.weight", DIM_EMBD, DIM_FF_TWICE },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", HF_LAYER "mlp.down_proj.weight", DIM_FF, DIM_EMBD },
    ROWS_END,
};

static status setup(struct model *m, struct err *e) { return window_layers(m, 0, e); }

const struct arch arch_phi3 = { .name = "phi3", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup };

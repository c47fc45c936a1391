/* arch - what the runtime knows about model families. An architecture is one file in arch/: rows for the keys and weights it reads, one
 * function that refines them, one function of equations; and one row in arch.c. Running, inspecting, converting and training follow from the
 * same rows. Internal to src/. */
#pragma once
#include "ggml-like/gguf.h"
#include "ggml-like/ops.h"

struct arch_import;
struct lora_set;
struct model;

enum { HEAD_DIM_LIMIT = 1024, EXPERT_LIMIT = 1024, SSM_CONV_LIMIT = 16 };

/* What a layer is made of, bits. Weight rows name the kinds of layers that have them. */
enum layer_kind {
    LAYER_ATTENTION = 1, /* keeps keys and values */
    LAYER_RECURRENT = 2, /* keeps a recurrent state instead */
    LAYER_DENSE = 4,
    LAYER_MOE = 8,       /* a mixture of experts in place of (or beside) the dense feed-forward block */
    LAYER_SHARED = 16,   /* beside the mixture, experts that every row passes */
    LAYER_OWN = 1 << 8,  /* and above: what an architecture tells apart itself */
};

/* One layer's numbers. Layers may differ in every respect; nothing may assume that layer 0 speaks for all. */
struct layer_params {
    unsigned kind;       /* LAYER_ bits */
    int64_t n_head, n_head_kv, head_dim, head_dim_v, n_ff;
    int64_t window;      /* keys a query sees, itself included; 0 = all */
    int64_t il_kv;       /* the layer whose cache is read; another's: this layer appends nothing */
    bool v_in_k;         /* kv_cache.v_in_k */
    bool no_rope, no_rope_factors;
    float scale;         /* of attention logits; 0 = 1 / sqrt(head_dim) */
    struct rope_spec rope;
    struct recurrent_state rec; /* sizes of what a recurrent layer keeps */
    int64_t pattern;     /* what a per-layer flag of the file says: window or not, recurrent or not */
};

struct hparams {
    int64_t n_layer, n_embd, n_ctx_train, n_vocab; /* n_vocab: tokens; matrices may have more rows */
    int64_t n_rot, window, window_pattern;
    float eps, rope_base, rope_base_swa;
    float rope_factor, rope_attn_factor, yarn_ext, yarn_beta_fast, yarn_beta_slow, yarn_log_mul;
    int64_t rope_ctx_orig;
    float attn_scale; /* 0 = 1 / sqrt(head_dim) */
    float attn_softcap, final_softcap, embd_scale, residual_scale, logit_scale; /* 0 = none */
    float clamp_kqv, alibi;
    float temp_scale; /* queries are scaled by 1 + temp_scale * ln(floor(position / temp_floor) + 1); 0 = not */
    int64_t temp_floor;
    /* mixtures of experts */
    int64_t n_expert, n_expert_used, n_expert_shared, n_ff_expert, n_ff_shared, n_dense_lead, expert_step, n_expert_group, n_expert_group_used;
    int64_t expert_func; /* enum route_func */
    int64_t expert_norm; /* weights of the chosen are normalised: 0, 1 */
    float expert_scale;
    int64_t expert_best_one; /* groups of experts are ranked by their best one instead of their two best */
    /* latent attention */
    int64_t q_lora, kv_lora, head_dim_mla, head_dim_v_mla;
    /* recurrent layers */
    int64_t ssm_conv, ssm_inner, ssm_state, ssm_rank, ssm_group, full_attn_step;
    int64_t n_nextn;        /* layers at the end that predict further tokens: not run */
    int64_t yarn_exact;     /* YaRN's ramp begins and ends between dimensions */
    int64_t parallel, embd_per_layer, n_kv_shared;
    int64_t head_dim_swa, n_rot_swa; /* of layers with a window */
    int64_t rope_on;                 /* Granite: are there positions? */
};

enum weight_id {
    W_ATTN_NORM, W_ATTN_NORM_B, W_ATTN_NORM_2, W_ATTN_NORM_2_B,
    W_ATTN_Q, W_ATTN_K, W_ATTN_V, W_ATTN_O, W_ATTN_QKV,
    W_BIAS_Q, W_BIAS_K, W_BIAS_V, W_BIAS_O, W_BIAS_QKV,
    W_Q_NORM, W_K_NORM, W_Q_NORM_B, W_K_NORM_B, W_SINKS, W_ATTN_GATE, W_ATTN_SUB_NORM,
    W_Q_A, W_Q_A_NORM, W_Q_B, W_KV_A, W_KV_A_NORM, W_KV_B, W_K_B, W_V_B, /* latent attention */
    W_POST_ATTN_NORM, W_POST_ATTN_NORM_B,
    W_FFN_NORM, W_FFN_NORM_B, W_FFN_GATE, W_FFN_UP, W_FFN_DOWN, W_BIAS_GATE, W_BIAS_UP, W_BIAS_DOWN, W_FFN_SUB_NORM,
    W_POST_FFN_NORM, W_POST_FFN_NORM_B,
    W_ROUTER, W_BIAS_ROUTER, W_CHOICE_BIAS, W_ROUTER_SCALE, W_GATE_EXPS, W_UP_EXPS, W_GATE_UP_EXPS, W_DOWN_EXPS,
    W_BIAS_GATE_EXPS, W_BIAS_UP_EXPS, W_BIAS_DOWN_EXPS, W_EXPS_SCALE,
    W_SHARED_ROUTER, W_GATE_SHARED, W_UP_SHARED, W_DOWN_SHARED,
    W_MOE_NORM, W_POST_MOE_NORM, W_POST_DENSE_NORM, W_LAYER_SCALE, W_PER_LAYER_GATE, W_PER_LAYER_PROJ, W_POST_PER_LAYER_NORM,
    W_SSM_IN, W_SSM_GATE, W_SSM_CONV, W_SSM_CONV_B, W_SSM_DT, W_SSM_A, W_SSM_D, W_SSM_ALPHA, W_SSM_BETA, W_SSM_NORM, W_SSM_OUT,
    W_SSM_BETA_ALPHA,
    W_LAYER_COUNT,
    W_EMBD = W_LAYER_COUNT, W_POSITION, W_EMBD_NORM, W_EMBD_NORM_B, W_PER_LAYER_EMBD, W_PER_LAYER_MODEL_PROJ, W_PER_LAYER_PROJ_NORM,
    W_OUTPUT_NORM, W_OUTPUT_NORM_B, W_OUTPUT, W_BIAS_OUTPUT,
    W_ROPE_FREQS, W_ROPE_LONG, W_ROPE_SHORT, /* of the whole model */
    W_COUNT
};

/* Symbolic sizes, resolved per layer. From DIM_OWN on an architecture defines its own (arch.dim). */
enum dim {
    DIM_1, DIM_EMBD, DIM_Q, DIM_K, DIM_V, DIM_O, DIM_QKV, DIM_FF, DIM_FF_TWICE, DIM_HEAD, DIM_N_HEAD, DIM_VOCAB, DIM_ROT_HALF, DIM_CTX,
    DIM_EXPERT, DIM_FF_EXPERT, DIM_FF_EXPERT_TWICE, DIM_FF_SHARED, DIM_N_HEAD_KV,
    DIM_SSM_ALL, DIM_SSM_MIXED, DIM_SSM_INNER, DIM_SSM_HEADS, DIM_SSM_WINDOW, DIM_SSM_PART, DIM_SSM_GROUPS, /* of Mamba-2 */
    DIM_OWN,
};
enum {
    WEIGHT_OPTIONAL = 1,
    WEIGHT_ROPE_PAIRS = 2, /* rows are permuted from the Hugging Face order so that rope pairs are adjacent */
    WEIGHT_PLUS_ONE = 4,   /* the Hugging Face file stores w - 1 */
    WEIGHT_TRANSPOSED = 8, /* the Hugging Face matrix is stored [in][out] */
    WEIGHT_VECTOR = 16,    /* read as f32 though it has two dimensions: convolutions, biases of experts */
};

struct weight_row {
    enum weight_id id;
    const char *gguf; /* %d = layer, ".weight" or ".bias" included */
    const char *hf;   /* names in a Hugging Face checkpoint, '|' between alternatives; %d = layer, %e = expert (stacked into ne2) */
    enum dim ne0, ne1;
    unsigned flags;
    enum dim ne2;
    unsigned kind;    /* LAYER_ bits that a layer must have; 0 = every layer */
};

enum hparam_kind { HP_INT, HP_FLOAT, HP_BOOL, HP_LAYER_INT }; /* HP_BOOL: into an int64_t; HP_LAYER_INT: a number, or an array with one per layer
                                                            * (of bools where hi is 1) */
struct hparam_row {
    const char *key, *hf; /* behind "<arch>."; name in config.json */
    enum hparam_kind kind;
    size_t offset; /* in struct hparams, or struct layer_params for HP_LAYER_INT */
    double lo, hi; /* allowed range, inclusive */
    double def;    /* value when absent; NAN = required; HP_ABSENT leaves the field alone */
};
#define HP_ABSENT -1e300
#define HP(f) offsetof(struct hparams, f)
#define LP(f) offsetof(struct layer_params, f)

struct build {
    struct plan *p;
    const struct model *m;
    val side[4]; /* an architecture's own values that live across layers */
    const struct lora_set *lora; /* adapters in use; NULL: none */
};

struct arch {
    const char *name;
    const char *const *hf;                           /* names in "architectures" of config.json, NULL-terminated */
    const struct hparam_row *hparams;                /* beyond common_hparams; a key that both have is this one's; ends with key NULL */
    const struct weight_row *weights;                /* ends with gguf NULL */
    bool rope_neox;                                  /* pairs (i, i + n/2) instead of (2i, 2i + 1) */
    bool layer_norm;                                 /* LayerNorm instead of RMSNorm */
    enum act act;                                    /* of the feed-forward block; 0 = SiLU */
    status (*setup)(struct model *m, struct err *e); /* after the keys are read, before weights; may be NULL */
    status (*check)(const struct model *m, struct err *e); /* after the weights are bound: alternatives among optional ones; NULL: nothing */
    int64_t (*dim)(const struct model *m, int il, enum dim d); /* DIM_OWN.. ; NULL when rows use none */
    val (*embed)(struct build *b, val x);            /* behind the embedding (already scaled); NULL: x */
    val (*layer)(const struct build *b, int il, val x); /* NULL: standard_layer */
    const struct arch_import *import;                /* src/import.h; NULL: the rows say everything about a Hugging Face checkpoint */
};
extern const struct arch *const arches[]; /* NULL-terminated */
extern const struct hparam_row common_hparams[];
bool arch_replaces(const struct arch *a, const struct hparam_row *common); /* has a row of its own for the field that this one fills */
/* Weights of the whole model that any architecture may have: factors of the positions. A row of the same id in the architecture's table is that one. */
extern const struct weight_row common_weights[];
const struct weight_row *arch_row(const struct arch *a, enum weight_id id); /* of its own table; NULL: none */

/* window_layers - for setups: gives hp.window to the layers that <arch>.attention.sliding_window_pattern marks (a list with one item for each
 * layer, or a number n: all but every n-th layer); without the key all but every period-th, period 0: all. Nothing when hp.window is 0. */
status window_layers(struct model *m, int64_t period, struct err *e) MUST_USE;

/* ---- for equations (arch.c, blocks.c) ---- */

val weight(const struct build *b, int il, enum weight_id id); /* VAL_NONE when the file has none; il -1 for the model's own */
const struct layer_params *layer_of(const struct build *b, int il);
/* norm - RMSNorm or LayerNorm with weight id and, for LayerNorm, bias id + 1; x itself when the model has no such weight. */
val norm(const struct build *b, int il, val x, enum weight_id id);
/* head_norm - the same over heads of head_dim columns; over the whole row when the weight is as long as the row. */
val head_norm(const struct build *b, int il, val x, enum weight_id id);
/* project - x through weight w plus bias (bias may be W_COUNT: none). A projection that the file keeps fused with others (Q, K, V in
 * W_ATTN_QKV; gate in W_FFN_UP) is taken out of the fused rows. */
val project(const struct build *b, int il, enum weight_id w, enum weight_id bias, val x);
val rope(const struct build *b, int il, val x);
/* attention - with the layer's numbers; sinks when the model has them. k, v as op_attention takes them. */
val attention(const struct build *b, int il, val q, val k, val v);
/* last_rows - behind the last layer's attention only the rows that give results go on; elsewhere x unchanged. */
val last_rows(const struct build *b, int il, val x);
val residual(const struct build *b, val x, val y); /* x + residual_scale * y */

/* Blocks that most architectures share. What a model has weights for is done: biases, norms of Q and K heads, sinks, post-norms, experts. */
val self_attention(const struct build *b, int il, val h); /* Q, K, V -> rope -> attention -> O; only the rows that go on (last_rows) */
val feed_forward(const struct build *b, int il, val h);   /* dense, or mixture for LAYER_MOE */
val dense(const struct build *b, int il, val h);
val mixture(const struct build *b, int il, val h, val router_in);
/* share_experts - for setup functions: layers with a mixture have n_expert_shared experts of width n_ff_expert that every row passes. */
void share_experts(struct model *m);
/* drop_nextn - for setup functions: the last n_nextn layers predict further tokens and are not run. */
status drop_nextn(struct model *m, struct err *e) MUST_USE;
/* parallel_layer - x + attention(h) + ffn(g), where h is norm(x) by W_ATTN_NORM_2 or else W_ATTN_NORM, and g is norm(x) by W_FFN_NORM or else
 * W_ATTN_NORM. */
val parallel_layer(const struct build *b, int il, val x);
/* mamba2_mixer - Mamba-2's block on a layer with its weights: z, x, B, C, dt = W_in h; convolution and SiLU of x, B, C; the scan; D x; the gate; the norm
 * of each group where the layer has one; W_out. mamba2_state - checks the sizes and sets what such a layer keeps. */
val mamba2_mixer(const struct build *b, int il, val h);
status mamba2_state(struct model *m, int il, struct err *e) MUST_USE;
/* standard_layer - x + post(attention(norm(x))), then x + post(ffn(norm(x))). */
val standard_layer(const struct build *b, int il, val x);

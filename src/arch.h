/* arch - what the runtime knows about model families. An architecture is one file in arch/: rows for the keys and weights it reads, one
 * function that refines them, one function of equations; and one row in arch.c. Running, inspecting and (later) converting and training
 * follow from the same rows. Internal to src/. */
#pragma once
#include "ggml-like/gguf.h"
#include "ggml-like/ops.h"

struct model;

/* One layer's numbers. Layers may differ in every respect; nothing may assume that layer 0 speaks for all. */
struct layer_params {
    int64_t n_head, n_head_kv, head_dim, head_dim_v, n_ff;
    int64_t window; /* keys a query sees, itself included; 0 = all */
    struct rope_spec rope;
};

struct hparams {
    int64_t n_layer, n_embd, n_ctx_train, n_vocab; /* n_vocab: tokens; matrices may have more rows */
    int64_t n_rot, window, expert_count;
    float eps, rope_base, rope_base_swa;
    float rope_factor, rope_attn_factor, yarn_ext, yarn_beta_fast, yarn_beta_slow;
    int64_t rope_ctx_orig;
    float attn_scale; /* 0 = 1 / sqrt(head_dim) */
    float attn_softcap, final_softcap, embd_scale, logit_scale;
};

enum weight_id {
    W_ATTN_NORM,
    W_ATTN_Q,
    W_ATTN_K,
    W_ATTN_V,
    W_ATTN_O,
    W_BIAS_Q,
    W_BIAS_K,
    W_BIAS_V,
    W_BIAS_O,
    W_Q_NORM,
    W_K_NORM,
    W_POST_ATTN_NORM,
    W_FFN_NORM,
    W_FFN_GATE,
    W_FFN_UP,
    W_FFN_DOWN,
    W_POST_FFN_NORM,
    W_LAYER_COUNT,
    W_EMBD = W_LAYER_COUNT,
    W_OUTPUT_NORM,
    W_OUTPUT,
    W_ROPE_FREQS, /* of the whole model */
    W_COUNT
};
/* Symbolic sizes, resolved per layer. */
enum dim { DIM_1, DIM_EMBD, DIM_Q, DIM_K, DIM_V, DIM_O, DIM_FF, DIM_HEAD, DIM_VOCAB, DIM_ROT_HALF };
enum { WEIGHT_OPTIONAL = 1, WEIGHT_ROPE_PAIRS = 2 }; /* rows are permuted from the Hugging Face order so that rope pairs are adjacent */

struct weight_row {
    enum weight_id id;
    const char *gguf, *hf; /* names; %d = layer, ".weight" or ".bias" included */
    enum dim ne0, ne1;
    unsigned flags;
};

enum hparam_kind { HP_INT, HP_FLOAT, HP_LAYER_INT }; /* HP_LAYER_INT: a number, or an array with one per layer */
struct hparam_row {
    const char *key, *hf; /* behind "<arch>."; name in config.json */
    enum hparam_kind kind;
    size_t offset; /* in struct hparams, or struct layer_params for HP_LAYER_INT */
    double lo, hi; /* allowed range, inclusive */
    double def;    /* value when absent; NAN = required; HP_ABSENT leaves the field alone */
};
#define HP_ABSENT -1e300

struct build {
    struct plan *p;
    const struct model *m;
};

struct arch {
    const char *name;
    const struct hparam_row *hparams;                /* beyond common_hparams; ends with key NULL */
    const struct weight_row *weights;                /* ends with gguf NULL */
    bool rope_neox;                                  /* pairs (i, i + n/2) instead of (2i, 2i + 1) */
    status (*setup)(struct model *m, struct err *e); /* after the keys are read, before weights; may be NULL */
    val (*layer)(const struct build *b, int il, val x);
};
extern const struct arch *const arches[]; /* NULL-terminated */
extern const struct hparam_row common_hparams[];

/* ---- for equations ---- */
val weight(const struct build *b, int il, enum weight_id id); /* VAL_NONE when the file has none; il -1 for the model's own */
val rope(const struct build *b, int il, val x);
val attention(const struct build *b, int il, val q, val k, val v);
/* last_rows - behind the last layer's attention only the rows that give results go on; elsewhere x unchanged. */
val last_rows(const struct build *b, int il, val x);
val norm(const struct build *b, val x, val w);

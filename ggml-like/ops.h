/* ops - the vocabulary in which architectures write their equations. Each function records one op (a matmul also its input's quantization)
 * and returns the result value. Shapes are [rows][columns] f32. Weights' shapes were validated at load: a mismatch here is a programmer
 * error (assert). One file per family: ops_norm.c, ops_matmul.c, ops_attn.c. */
#pragma once
#include "ggml-like/plan.h"

/* KV cache of one layer of one session. K and V hold one contiguous run per KV head: row j of head h at (h * n_ctx + j) * row_bytes. */
struct kv_cache {
    const struct dtype *type;
    int64_t n_ctx;
    int32_t n_head, k_dim, v_dim;
    size_t k_row, v_row; /* bytes of one head's row */
    uint8_t *k, *v;
};

val op_embed(struct plan *p, val table, int64_t n_embd);                     /* rows of `table` picked by batch->token; [n_rows][n_embd] */
val op_rows(struct plan *p, val x);                                          /* rows batch->out of x; x itself when all rows continue */
val op_rms_norm(struct plan *p, val x, val w, float eps);                    /* over each row; Zhang & Sennrich 2019 */
val op_head_norm(struct plan *p, val x, val w, float eps, int64_t head_dim); /* over each head */
val op_add(struct plan *p, val a, val b);
val op_bias(struct plan *p, val x, val b); /* b [columns] added to each row; b VAL_NONE: x */
val op_scale(struct plan *p, val x, float s);
val op_softcap(struct plan *p, val x, float cap);  /* cap * tanh(x / cap) */
val op_silu_mul(struct plan *p, val gate, val up); /* SwiGLU's middle; Shazeer 2020 */
val op_gelu_mul(struct plan *p, val gate, val up); /* GeGLU's middle, tanh form */
val op_matmul(struct plan *p, val w, val x);       /* w [n][k] any format, x [rows][k] -> [rows][n]; adds w's extra columns (plan_extra) */
/* op_matmul_rows - only the first n rows of w (padded vocabularies). */
val op_matmul_rows(struct plan *p, val w, val x, int64_t n);

val op_cols(struct plan *p, val x, val index);     /* columns `index` (I32 [n]) of x -> [rows][n] */

/* op_rope_table - cos/sin of the batch positions [n_rows][n_rot]; reused when the same spec was asked for before. */
val op_rope_table(struct plan *p, const struct rope_spec *spec);
val op_rope(struct plan *p, val x, val table, int32_t head_dim, int32_t n_rot, bool neox);
/* op_attention - appends k, v to the cache of layer il, then attends. q [n][n_head*head_dim] -> [n][n_head*head_dim_v].
 * A query at position s sees keys j <= s, and with a window only j > s - window. */
struct attn_spec {
    int32_t il, n_head, n_head_kv, head_dim, head_dim_v;
    int64_t window;
    float scale, cap;
};
val op_attention(struct plan *p, const struct attn_spec *s, val q, val k, val v);

/* One row per kind, in op_table (plan.c). */
struct op_def {
    const char *name;
    void (*run)(const struct op_run *r, const struct op *op);
    bool in_place; /* dst may take over src[0]'s bytes when this op is its last reader */
};
void op_run_embed(const struct op_run *r, const struct op *op);
void op_run_rows(const struct op_run *r, const struct op *op);
void op_run_rms_norm(const struct op_run *r, const struct op *op);
void op_run_add(const struct op_run *r, const struct op *op);
void op_run_bias(const struct op_run *r, const struct op *op);
void op_run_scale(const struct op_run *r, const struct op *op);
void op_run_softcap(const struct op_run *r, const struct op *op);
void op_run_silu_mul(const struct op_run *r, const struct op *op);
void op_run_gelu_mul(const struct op_run *r, const struct op *op);
void op_run_quant(const struct op_run *r, const struct op *op);
void op_run_matmul(const struct op_run *r, const struct op *op);
void op_run_rope_table(const struct op_run *r, const struct op *op);
void op_run_rope(const struct op_run *r, const struct op *op);
void op_run_kv_store(const struct op_run *r, const struct op *op);
void op_run_attn(const struct op_run *r, const struct op *op);
void op_run_cols(const struct op_run *r, const struct op *op);

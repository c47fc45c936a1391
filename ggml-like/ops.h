/* ops - the vocabulary in which architectures write their equations. Each function records one op (a matmul also its input's quantization)
 * and returns the result value. Shapes are [rows][columns] f32. Weights' shapes were validated at load: a mismatch here is a programmer
 * error (assert). One file per family: ops_norm.c, ops_act.c, ops_matmul.c, ops_score.c, ops_attn.c, ops_moe.c, ops_state.c. */
#pragma once
#include "ggml-like/plan.h"

/* KV cache of one layer of one session. K and V hold one contiguous run per KV head: row j of head h at (h * n_ctx + j) * row_bytes.
 * v_in_k: V is the first v_dim elements of K's rows (latent attention keeps one row for both). */
struct kv_cache {
    const struct dtype *k_type, *v_type; /* v_in_k: the same */
    int64_t n_ctx;
    int32_t n_head, k_dim, v_dim; /* n_head 0: this layer keeps none */
    bool v_in_k;
    size_t k_row, v_row; /* bytes of one head's row */
    uint8_t *k, *v;
};

/* What a recurrent layer keeps instead. Undefined before the first row of a timeline: ops take it as zero there.
 *   conv f32 [n_conv - 1][channels] the last inputs of the causal convolution      memory f32 [n_v_head][v_dim / 64 blocks][k_dim][64] */
struct recurrent_state {
    int64_t n_conv, channels, n_memory; /* n_memory floats in all */
    float *conv, *memory;
};

struct layer_state {
    struct kv_cache kv;
    struct recurrent_state rec;
};

val op_embed(struct plan *p, val table, int64_t n_embd);                     /* rows of `table` picked by batch->token; [n_rows][n_embd] */
val op_rows(struct plan *p, val x);                                          /* rows batch->out of x; x itself when all rows continue */
val op_rms_norm(struct plan *p, val x, val w, float eps);                    /* over each row; Zhang & Sennrich 2019 */
val op_head_norm(struct plan *p, val x, val w, float eps, int64_t head_dim); /* over each head */
val op_add(struct plan *p, val a, val b);
val op_bias(struct plan *p, val x, val b); /* b [columns] added to each row; b VAL_NONE: x */
val op_scale(struct plan *p, val x, float s);
val op_softcap(struct plan *p, val x, float cap);  /* cap * tanh(x / cap) */
/* op_layer_norm - (x - mean) / sqrt(variance + eps) * w + b over each run of `dim` columns; w [dim] or [columns] (each run its own), b likewise;
 * both may be VAL_NONE. Ba et al. 2016 */
val op_layer_norm(struct plan *p, val x, val w, val b, float eps, int64_t dim);
val op_l2_norm(struct plan *p, val x, float eps, int64_t dim); /* x / sqrt(sum x^2 + eps) over each run */
val op_mul(struct plan *p, val a, val b);
val op_mul_vector(struct plan *p, val x, val w);   /* each row times w [columns] */
val op_clamp(struct plan *p, val x, float lo, float hi);
val op_act(struct plan *p, enum act act, val x);
/* op_act_mul - act(gate) * up; limit is that of ACT_CLAMPED_SWISH. */
val op_act_mul(struct plan *p, enum act act, val gate, val up, float limit);
/* op_xielu - x > 0: alpha_p x^2 + beta x; else (e^min(x, eps) - 1 - x) alpha_n + beta x. Huang & Schlag 2024 */
val op_xielu(struct plan *p, val x, float alpha_p, float alpha_n, float beta, float eps);
val op_gate(struct plan *p, val x, val g);         /* each run of x's columns times sigmoid(g): g [rows][runs], runs divide the columns evenly */
val op_scale_runs(struct plan *p, val x, val w);   /* each run of x's columns times its element of w [runs] */
/* op_slice - n columns from `first` on of every run of `width` columns. op_join - the runs of a (len_a long) and of b alternate; b may have
 * one run that all of a's share. */
val op_slice(struct plan *p, val x, int64_t width, int64_t first, int64_t n);
val op_join(struct plan *p, val a, int64_t len_a, val b, int64_t len_b);
val op_add_position(struct plan *p, val x, val table); /* x + row batch->pos of table (positions past its end: its last row) */
/* op_row_factor - each row times 1 + scale * ln(floor(pos / floor_len) + 1): attention temperature by position (Llama 4, Ministral 3). */
val op_row_factor(struct plan *p, val x, float scale, float floor_len);

/* ---- mixtures of experts (ops_moe.c): each row's work is done for its n_used experts only, rows of one expert together ----
 * A routed value has n_used rows for each row of the pass, sorted by expert; element-wise ops work on it as on any other. */
/* op_route - logits [rows][n_expert], bias [n_expert] or VAL_NONE -> the choice (opaque). */
val op_route(struct plan *p, val logits, val bias, const struct route_spec *s);
/* op_moe_matmul - w [n_expert][n][k] times the rows of x: those of the pass, or a routed value's -> routed [n]. */
val op_moe_matmul(struct plan *p, val w, val x, val route);
val op_moe_bias(struct plan *p, val x, val b, val route); /* b [n_expert][columns]; VAL_NONE: x */
val op_moe_scale(struct plan *p, val x, val s, val route); /* each row times its expert's s [n_expert]; VAL_NONE: x */
val op_moe_sum(struct plan *p, val x, val route);         /* routed -> rows of the pass: sum over the experts by weight */

/* ---- recurrent layers (ops_state.c) ---- */
/* op_conv - causal convolution of each column over time, w [columns][n_conv], b [columns] or VAL_NONE: y_t = b + sum_i w_i x_(t - n_conv + 1 + i). */
val op_conv(struct plan *p, int32_t il, val x, val w, val b);
/* op_delta_rule - gated delta rule, for each value head h (key head h / (n_v_head / n_k_head), tiled: h % n_k_head):
 *   S = exp(g) S;  S += k (beta (v - S^T k))^T;  y = S^T q / sqrt(k_dim).  q, k [n][n_k_head * k_dim], v [n][n_v_head * v_dim], g, beta [n][n_v_head]
 * plain: what the state holds for k already is not taken off, and q is not scaled: S += k (beta v)^T;  y = S^T q, the scan of Mamba-2.
 * Sources: Gated Delta Networks, Yang et al. 2024, eq. 10; Transformers are SSMs, Dao & Gu 2024, section 6. */
struct delta_spec {
    int32_t il, n_k_head, n_v_head, k_dim, v_dim;
    bool tiled, plain;
};
val op_delta_rule(struct plan *p, const struct delta_spec *s, val q, val k, val v, val g, val beta);
val op_silu_mul(struct plan *p, val gate, val up); /* SwiGLU's middle; Shazeer 2020 */
val op_gelu_mul(struct plan *p, val gate, val up); /* GeGLU's middle, tanh form */
val op_matmul(struct plan *p, val w, val x);       /* w [n][k] any format, x [rows][k] -> [rows][n]; adds w's extras (value.extra) */
/* An extra of so low a rank is multiplied by the same OP_MATMUL: source 4, and 5 what it is multiplied with. */
enum { LOW_RANK = 256 };
/* op_matmul_rows - only the first n rows of w (padded vocabularies). */
val op_matmul_rows(struct plan *p, val w, val x, int64_t n);
/* op_score - -ln softmax(y)[batch->target] of each of x's rows (1 to SCORE_ROWS) as doubles, y = w x over the first n_vocab rows of w, times scale (0: 1), then
 * cap * tanh(y / cap) (0: none). w's extras are not added. Not finite for logits that are not. */
enum { SCORE_ROWS = 256, SCORE_CHUNK = 256 };
val op_score(struct plan *p, val w, val x, int64_t n_vocab, float scale, float cap);

/* op_head_matmul - each head's run of x by a matrix of its own: w [n_head][n][k], x [rows][n_head * k] -> [rows][n_head * n]. */
val op_head_matmul(struct plan *p, val w, val x);

/* op_dropout - each element of x becomes 0 with probability `rate`, the others are divided by 1 - rate; the same ones for equal batch->draw and `draw`.
 * Nothing changes where batch->draw is 0. Srivastava et al. 2014 */
val op_dropout(struct plan *p, val x, float rate, uint32_t draw);

val op_cols(struct plan *p, val x, val index);     /* columns `index` (I32 [n]) of x -> [rows][n] */

/* op_rope_table - cos/sin of the batch positions [n_rows][n_rot]; reused when the same spec was asked for before. */
val op_rope_table(struct plan *p, const struct rope_spec *spec);
/* op_rope - turns dims first .. first + n_rot of each head. */
val op_rope(struct plan *p, val x, val table, int32_t head_dim, int32_t first, bool neox);
/* op_attention - appends k, v to the cache of layer il, then attends. q [n][n_head*head_dim] -> [n][n_head*head_dim_v].
 * A query at position s sees keys j <= s, and with a window only j > s - window. k VAL_NONE: nothing is appended, the cache of an earlier layer
 * is read. v VAL_NONE: V lies in K's rows (kv_cache.v_in_k). sinks [n_head] or VAL_NONE: one more logit per head in the softmax's denominator.
 * alibi > 0: logits grow by slope_h * (key - query), slopes 2^(-alibi h / n) as Press et al. 2022, for numbers of heads that are no power of two too. */
struct attn_spec {
    int32_t il, n_head, n_head_kv, head_dim, head_dim_v;
    int64_t window;
    float scale, cap, alibi;
};
val op_attention(struct plan *p, const struct attn_spec *s, val q, val k, val v, val sinks);

/* ---- gradients (ops_grad.c): what plan_backward (grad.h) records. dy: gradient of an op's result; the others as in that op ---- */
/* op_norm_grad - of x behind a norm: w as in op_rms_norm or op_layer_norm. */
val op_norm_grad(struct plan *p, enum norm_form form, val dy, val x, val w, float eps, int64_t dim);
/* op_act_grad - dy * act'(x), times up where there is one (clamped as ACT_CLAMPED_SWISH does). act: enum act or enum bend. */
val op_act_grad(struct plan *p, int act, val dy, val x, val up, float limit, const float param[4]);
val op_gate_grad(struct plan *p, val dy, val x, val g);             /* of g in op_gate(x, g) */
val op_rows_grad(struct plan *p, val dy);                           /* rows batch->out of the result are dy's, the others zero */
val op_cols_grad(struct plan *p, val dy, val index, int64_t n);     /* dy's columns added to columns `index` of n */
val op_slice_grad(struct plan *p, val dy, int64_t width, int64_t first, int64_t n); /* op_slice turned round: zeros elsewhere */
val op_sum_runs(struct plan *p, val x, int64_t len);                /* the sum of the runs of each row */
/* op_sum_rows - to[i / len % n] += a b over all rows, i the column, n the elements of `to`; b VAL_NONE: 1. Summed in the order of the rows.
 * op_scatter - row i of dy is added to row batch->token[i] of `to`; position: batch->pos[i], at most the last. */
void op_sum_rows(struct plan *p, val a, val b, val to, int64_t len);
void op_scatter(struct plan *p, val dy, val to, bool position);
/* op_conv_grad - of x in op_conv; segments begin at position 0. op_conv_outer - of its taps. op_head_transposed, op_head_outer - as op_matmul_t and op_outer
 * for each head's run of columns. */
val op_conv_grad(struct plan *p, val dy, val w);
void op_conv_outer(struct plan *p, val dy, val x, val to);
val op_head_transposed(struct plan *p, val w, val dy);
void op_head_outer(struct plan *p, val dy, val x, val to);
/* op_delta_grad - of all sources of op_delta_rule (the op) side by side in each row: q, k, v, then g and beta of each head; segments begin at position 0. */
val op_delta_grad(struct plan *p, const struct op *rule, val dy);
/* Of mixtures: the choice stays as it was. op_moe_spread - to each pair its row of x, times the pair's weight unless plain. op_moe_gather - op_moe_sum
 * without weights. op_moe_weight_grad - of the weights [rows][n_used] in op_moe_sum(x, route). op_route_grad - of the logits, from those.
 * op_moe_transposed, op_moe_outer - as op_matmul_t and op_outer; x sorted. op_moe_scatter - rows of dy are added to that of their expert. */
val op_moe_spread(struct plan *p, val x, val route, bool plain);
val op_moe_gather(struct plan *p, val x, val route);
val op_moe_weight_grad(struct plan *p, val dy, val x, val route);
val op_route_grad(struct plan *p, val dweight, val logits, val route, const struct route_spec *s);
val op_moe_transposed(struct plan *p, val w, val dy, val route);
void op_moe_outer(struct plan *p, val dy, val x, val route, val to);
void op_moe_scatter(struct plan *p, val dy, val route, val to);
/* op_rope_back - op_rope turned round: what `table` (of op_rope_table) turned on. */
val op_rope_back(struct plan *p, val dy, val table, int32_t head_dim, int32_t first, bool neox);
/* op_matmul_t - w [n][k] any format, x [rows][n] -> x w [rows][k]: the gradient of op_matmul's input; _add: added to y.
 * op_outer - to f32 [n][k] += dy^T x; dy [rows][n], x [rows][k]: the gradient of its matrix. */
val op_matmul_t(struct plan *p, val w, val x);
void op_matmul_t_add(struct plan *p, val w, val x, val y);
void op_outer(struct plan *p, val dy, val x, val to);
/* op_attn_whole - as op_attention, without a cache: segments begin at position 0, all they attend to is in the pass. v VAL_NONE: values are the first
 * head_dim_v of each head's keys. op_attn_make_whole - turns each recorded OP_ATTN into it, but for those over the keys of an earlier layer.
 * op_attn_grad - y, the result of op_attn_whole(s, q, k, v, ..), has the gradient dy -> those of q, k, v side by side in each row. */
val op_attn_whole(struct plan *p, const struct attn_spec *s, val q, val k, val v, val sinks);
status op_attn_make_whole(struct plan *p, struct err *e) MUST_USE;
val op_attn_grad(struct plan *p, const struct attn_spec *s, val q, val k, val v, val y, val dy);
/* op_score_grad - of x in op_score, for the loss sum batch->weight[i] * score[i]. score: the OP_SCORE. to: what the gradient of its matrix is added to, or
 * VAL_NONE. */
val op_score_grad(struct plan *p, const struct op *score, val to);

/* One row per kind, in op_table (plan.c). */
struct grad;
struct op_def {
    const char *name;
    void (*run)(const struct op_run *r, const struct op *op);
    bool in_place; /* dst may take over src[0]'s bytes when this op is its last reader */
    bool small;    /* cheap for each element: on little data one thread does it alone, and backward passes do it once more rather than hold its result */
    bool adds;     /* has no dst: adds to its last source */
    void (*back)(struct grad *g, const struct op *op, val dy); /* grad.h; NULL: has no backward */
};
const struct op_def *op_def(enum op_kind kind);
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
void op_run_slice(const struct op_run *r, const struct op *op);
void op_run_join(const struct op_run *r, const struct op *op);
void op_run_layer_norm(const struct op_run *r, const struct op *op);
void op_run_l2_norm(const struct op_run *r, const struct op *op);
void op_run_mul(const struct op_run *r, const struct op *op);
void op_run_mul_vector(const struct op_run *r, const struct op *op);
void op_run_clamp(const struct op_run *r, const struct op *op);
void op_run_gate(const struct op_run *r, const struct op *op);
void op_run_scale_runs(const struct op_run *r, const struct op *op);
void op_run_act(const struct op_run *r, const struct op *op);
void op_run_add_position(const struct op_run *r, const struct op *op);
void op_run_row_factor(const struct op_run *r, const struct op *op);
void op_run_route(const struct op_run *r, const struct op *op);
void op_run_moe_sort(const struct op_run *r, const struct op *op);
void op_run_moe_quant(const struct op_run *r, const struct op *op);
void op_run_moe_matmul(const struct op_run *r, const struct op *op);
void op_show_experts(const struct op_run *r, const struct op *op, struct shown *s); /* shows each expert its rows of the values in s */
void op_run_moe_bias(const struct op_run *r, const struct op *op);
void op_run_moe_scale(const struct op_run *r, const struct op *op);
void op_run_moe_sum(const struct op_run *r, const struct op *op);
void op_run_head_quant(const struct op_run *r, const struct op *op);
void op_run_head_matmul(const struct op_run *r, const struct op *op);
void op_run_conv(const struct op_run *r, const struct op *op);
void op_run_score(const struct op_run *r, const struct op *op);
void op_run_score_sum(const struct op_run *r, const struct op *op);
void op_run_show(const struct op_run *r, const struct op *op);
void op_run_dropout(const struct op_run *r, const struct op *op);
void op_run_delta_rule(const struct op_run *r, const struct op *op);
void op_run_norm_grad(const struct op_run *r, const struct op *op);
void op_run_act_grad(const struct op_run *r, const struct op *op);
void op_run_gate_grad(const struct op_run *r, const struct op *op);
void op_run_rows_grad(const struct op_run *r, const struct op *op);
void op_run_cols_grad(const struct op_run *r, const struct op *op);
void op_run_slice_grad(const struct op_run *r, const struct op *op);
void op_run_sum_runs(const struct op_run *r, const struct op *op);
void op_run_sum_rows(const struct op_run *r, const struct op *op);
void op_run_scatter(const struct op_run *r, const struct op *op);
void op_run_matmul_t(const struct op_run *r, const struct op *op);
void op_run_outer(const struct op_run *r, const struct op *op);
void op_run_attn_pack(const struct op_run *r, const struct op *op);
void op_run_attn_whole(const struct op_run *r, const struct op *op);
void op_run_attn_grad(const struct op_run *r, const struct op *op);
void op_run_score_grad(const struct op_run *r, const struct op *op);
void op_run_score_targets(const struct op_run *r, const struct op *op);
size_t op_grad_bytes(int64_t head_dim_max); /* scratch of a thread */
size_t op_panel_matmul_bytes(void);          /* of it, for matmuls: the beginning; a multiple of 64 */
void op_run_route_grad(const struct op_run *r, const struct op *op);
void op_run_moe_spread(const struct op_run *r, const struct op *op);
void op_run_moe_weight_grad(const struct op_run *r, const struct op *op);
void op_run_moe_matmul_t(const struct op_run *r, const struct op *op);
void op_run_moe_outer(const struct op_run *r, const struct op *op);
void op_run_conv_grad(const struct op_run *r, const struct op *op);
void op_run_conv_outer(const struct op_run *r, const struct op *op);
void op_run_head_matmul_t(const struct op_run *r, const struct op *op);
void op_run_head_outer(const struct op_run *r, const struct op *op);
void op_run_delta_grad(const struct op_run *r, const struct op *op);

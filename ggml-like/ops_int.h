/* ops_int - what the op files share. Nobody else includes it. */
#pragma once
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/ops.h"
#include <assert.h>
#include <string.h>

static inline const struct tensor *op_shape(const struct plan *p, val v) { return &p->val[v].t; }

/* A value with x's rows, whose columns number ne0. */
static inline val op_rows_like(struct plan *p, val x, int64_t ne0)
{
    const struct value *v = &p->val[x];
    bool sorted = v->sorted;
    val y = plan_temp_rows(p, ne0, v->t.ne[1] / v->per_row, v->per_row);
    p->val[y].sorted = sorted;
    return y;
}

static inline val op_like(struct plan *p, val x) { return op_rows_like(p, x, op_shape(p, x)->ne[0]); }

/* Element-wise ops share the flat element range, so one long row (decoding) is split as well as many rows. 256 floats are 1 KiB: no two
 * threads write the same cache line. */
static inline bool op_flat(const struct op_run *r, const struct op *op, int64_t *begin, int64_t *n)
{
    int64_t end;
    pool_range(tensor_elements(op_shape(r->x->plan, op->dst)), 256, r->ith, r->nth, begin, &end);
    *n = end - *begin;
    return *n > 0;
}

/* This thread's share of dst's rows. */
static inline void op_row_range(const struct op_run *r, const struct op *op, int64_t *begin, int64_t *end)
{
    pool_range(op_shape(r->x->plan, op->dst)->ne[1], 1, r->ith, r->nth, begin, end);
}

/* op_alibi_slope - of head h (ops_attn.c). */
float op_alibi_slope(float max_bias, int32_t n_head, int32_t h);
/* op_part_of - what vector v has for run `run` of dim columns (ops_norm.c); NULL for VAL_NONE. */
const float *op_part_of(const struct op_run *r, val v, int64_t run, int64_t dim);

static inline void op_attn_arg(struct op *op, const struct attn_spec *s)
{
    op->arg.attn.il = s->il;
    op->arg.attn.n_head = s->n_head;
    op->arg.attn.n_head_kv = s->n_head_kv;
    op->arg.attn.head_dim = s->head_dim;
    op->arg.attn.head_dim_v = s->head_dim_v;
    op->arg.attn.window = s->window;
    op->arg.attn.scale = s->scale;
    op->arg.attn.cap = s->cap;
    op->arg.attn.alibi = s->alibi;
}

static inline struct attn_spec op_attn_spec(const struct op *op)
{
    return (struct attn_spec){ op->arg.attn.il, op->arg.attn.n_head, op->arg.attn.n_head_kv, op->arg.attn.head_dim, op->arg.attn.head_dim_v,
                               op->arg.attn.window, op->arg.attn.scale, op->arg.attn.cap, op->arg.attn.alibi };
}

/* ---- matmuls (ops_matmul.c) ---- */

static inline bool op_is_float(const struct dtype *t) { return t->group_len == 0; }

/* Weight rows that a thread takes at a time for one row of activations: about 8 KiB, 0.3 us, which is what the last one keeps the others waiting. A
 * piece costs 8 ns to take (a locked instruction, which also waits for the loads before it): of large matrices up to 64 KiB, 32 pieces a thread. One
 * thread has nobody to wait for it. */
static inline int64_t op_row_chunk(const struct op_run *r, const struct tensor *w)
{
    if (r->nth == 1) return w->ne[1];
    return max_i64(max_i64(4, (int64_t)(8192 / w->nb[1])), min_i64((int64_t)(65536 / w->nb[1]), w->ne[1] / (32 * r->nth)));
}

/* op_by_rows - rows go through rowdot one by one. op_act_form - what they become otherwise for weights of this type. op_quantized - x in that form,
 * recorded once per x and form. */
static inline bool op_by_rows(const struct plan *p, int64_t rows) { return rows == 1 || p->single; }
static inline enum act_form op_act_form(const struct plan *p, const struct dtype *t)
{
    return p->precise ? act_form_precise(t) : act_form_fast(p->k, t);
}
/* Low-rank parts in BF16 where a level multiplies it: they add little to what bytes have rounded as much. Of their time two thirds were making and
 * multiplying F32. */
static inline enum act_form op_form_of(const struct plan *p, val w)
{
    const struct value *v = &p->val[w];
    return v->rough && v->t.ne[0] % TILE_COLUMNS == 0 && p->k->has_bf16 && op_is_float(v->t.type) ? ACT_BF16 : op_act_form(p, v->t.type);
}
val op_quantized(struct plan *p, val x, enum act_form form);

/* op_grad_form - the form of floats in which gradients are multiplied. op_packed - x in tiles of such a form, one row too. */
static inline enum act_form op_grad_form(const struct plan *p) { return p->k->has_bf16 && !p->precise ? ACT_BF16 : ACT_F32; }
val op_packed(struct plan *p, val x, enum act_form form);

/* op_act_row - row `i` of the activations that op_quantized made for single rows. */
struct act_row op_act_row(const struct op_run *r, val q, const struct tensor *w, int64_t i);

/* op_acts - the panel of activations in v. op_fill_tile - tile `tile` of q from m rows of q->k floats. */
struct act_panel op_acts(const struct op_run *r, val v, int64_t k, int64_t n, enum act_form form);
void op_fill_tile(const struct op_run *r, struct act_panel *q, int64_t tile, const float *const *x, int m);

/* What OP_SCORE leaves of a chunk of the vocabulary for each row. Behind all of them, if it keeps them for the gradient (op_score_keep, before plan_finish),
 * the terms of the sums, times the slope of the cap, as tiles of BF16. ops_score.c */
struct score_part {
    double sum;        /* of exp(y - max) */
    float max, target; /* the target's logit, in the chunk that holds it */
};
struct score_part op_score_terms(const struct kernels *k, float *y, int64_t n, float cap); /* logits to those terms */
void op_score_keep(struct plan *p, struct op *score);
struct act_panel op_score_kept(const struct op_run *r, val parts, int64_t n_vocab, int64_t rows);
/* op_tiles_part - columns at .. at + n of tiles of floats from rows SCORE_CHUNK floats apart */
void op_tiles_part(const struct op_run *r, const struct act_panel *to, int64_t at, int64_t n, int64_t rows, const float *x);

/* op_logits - of an op like OP_SCORE (sources: matrix, activations, input): rows first .. first + n (at most SCORE_CHUNK) of the vocabulary for all rows of
 * the input, row t at y + t * SCORE_CHUNK. Always the same bits. ops_score.c */
void op_logits(const struct op_run *r, const struct op *op, int64_t first, int64_t n, float *y);

/* op_panel_rows - how many rows op_panel_matmul takes for n tokens of a form. op_panel_matmul - `unit` weight rows from `row` on, or what is left of the n_w
 * at `data` (shape and type as w), against `n` tokens from tile `tile` on: row t of the result at y + t * stride, or added to what is there. next: what this
 * thread will most likely read after them. op_rows_soon - up to `unit` rows from `row` on, if there are any. */
struct op_soon { const uint8_t *at; size_t bytes; };
static inline struct op_soon op_rows_soon(const struct tensor *w, const uint8_t *data, int64_t n_w, int64_t row, int64_t unit)
{
    int64_t first = min_i64(row, n_w);
    return (struct op_soon){ data + (size_t)first * w->nb[1], (size_t)min_i64(unit, n_w - first) * w->nb[1] };
}
int64_t op_panel_rows(const struct kernels *k, enum act_form form, int64_t n);
void op_panel_matmul(const struct op_run *r, const struct tensor *w, const uint8_t *data, int64_t n_w, struct op_soon next, const struct act_panel *x,
                     int64_t tile, int64_t n, int64_t row, int64_t unit, float *y, int64_t stride, bool add);

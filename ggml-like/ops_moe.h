/* ops_moe - where the rows of a mixture of experts stand. For ops_moe.c and ops_grad_moe.c. */
#pragma once
#include "ggml-like/ops_int.h"
#include <math.h>

/* What OP_MOE_SORT makes of it. A pair is a row and one of its experts; pairs are sorted by expert, then by row. */
struct route {
    int64_t n_pairs;
    int32_t *n_active;       /* experts that have pairs */
    int32_t *expert;         /* [n_expert] the active ones, rising */
    int32_t *start, *tile;   /* [n_expert + 1] of the i-th active expert: its first pair, its first tile */
    int32_t *row, *id;       /* [pairs] sorted: row of the pass, expert */
    int32_t *at;             /* [rows][n_used] where the pair stands */
    float *weight;           /* [rows][n_used] */
};

static inline size_t op_route_bytes(int64_t n_expert, int64_t pairs) { return (size_t)(1 + 3 * n_expert + 2 + 4 * pairs) * sizeof(int32_t); }

static inline struct route op_route_at(void *p, int64_t n_expert, int64_t pairs)
{
    struct route r = { .n_pairs = pairs, .n_active = p };
    r.expert = r.n_active + 1;
    r.start = r.expert + n_expert;
    r.tile = r.start + n_expert + 1;
    r.row = r.tile + n_expert + 1;
    r.id = r.row + pairs;
    r.at = r.id + pairs;
    r.weight = (float *)(r.at + pairs);
    return r;
}

/* The number of experts and of pairs stand in the value: ne[0] experts, ne[1] rows, per_row experts of a row. */
static inline struct route op_route_of(const struct op_run *r, val v)
{
    const struct value *x = &r->x->plan->val[v];
    return op_route_at(op_data(r, v), x->t.ne[0], x->t.ne[1] * x->per_row);
}

/* op_route_scores - what the weights of a row with logits x are taken from: probabilities, or the logits themselves. op_near_best - is a logit in the
 * softmax of ROUTE_SPARSE_MIXER's best one? */
#define ROUTE_FLOOR 6.103515625e-5f
void op_route_scores(const struct kernels *k, const struct route_spec *s, const float *x, float *score);
static inline bool op_near_best(float top, float x) { return !((top - x) / fmaxf(fabsf(x), top) > 0.02f); }
/* op_moe_packed - x in tiles of floats that begin anew with each expert, for one row too. */
val op_moe_packed(struct plan *p, val x, val route, enum act_form form);

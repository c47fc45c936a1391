/* ref_attn - attention in plain C, and the block walk that all ISA levels share.
 * A key outside a row's own range is never combined with the row, not even with weight 0: stale cache rows may hold NaN. */
#include "ggml-like/kernels/attn.h"
#include <assert.h>
#include <math.h>
#include <string.h>

static int padded(int n) { return (n + ATTN_PAD - 1) / ATTN_PAD * ATTN_PAD; }

size_t attn_place(struct attn_scratch *x, void *buf, int head_dim, int head_dim_v)
{
    size_t q = (size_t)padded(head_dim), v = (size_t)padded(head_dim_v), most = q > v ? q : v, at = 0;
    struct {
        float **p;
        size_t n;
    } part[] = {
        { &x->q, ATTN_ROWS * q },   { &x->tile, ATTN_KEYS * most }, { &x->rows, ATTN_KEYS * most }, { &x->s, ATTN_ROWS * ATTN_KEYS },
        { &x->acc, ATTN_ROWS * v }, { &x->acc_all, ATTN_ROWS * v }, { &x->max, ATTN_ROWS },         { &x->max_all, ATTN_ROWS },
        { &x->decay, ATTN_ROWS },
    };
    for (int i = 0; i < ARRAY_LEN(part); i++) {
        *part[i].p = buf ? (float *)buf + at : NULL;
        at += part[i].n; /* multiples of 16 floats: everything stays on 64 bytes */
    }
    x->sum = buf ? (double *)(void *)((float *)buf + at) : NULL;
    x->sum_all = buf ? x->sum + ATTN_ROWS : NULL;
    x->q_len = (int)q;
    x->v_len = (int)v;
    return at * sizeof(float) + 2 * ATTN_ROWS * sizeof(double);
}

size_t attn_scratch_bytes(int head_dim, int head_dim_v)
{
    struct attn_scratch x;
    return attn_place(&x, NULL, head_dim, head_dim_v);
}

bool attn_block_at(struct attn_block *b, const struct attn_args *a, int64_t base)
{
    b->base = base;
    b->n = 0;
    b->first = ATTN_KEYS;
    b->last = 0;
    for (int r = 0; r < a->n_q; r++) {
        int lo = (int)max_i64(a->lo[r] - base, 0), hi = (int)min_i64(a->hi[r] - base, ATTN_KEYS);
        if (lo >= hi) continue;
        b->row[b->n] = r;
        b->lo[b->n] = lo;
        b->hi[b->n++] = hi;
        if (lo < b->first) b->first = lo;
        if (hi > b->last) b->last = hi;
    }
    return b->n > 0;
}

int64_t attn_part_floats(int head_dim_v) { return PART_ACC + padded(head_dim_v); }

void attn_clear(const struct attn_scratch *x, int r)
{
    x->max[r] = -INFINITY;
    x->sum[r] = 0.0;
    memset(x->acc + (ptrdiff_t)r * x->v_len, 0, (size_t)x->v_len * sizeof(float));
}

void attn_clear_all(const struct attn_scratch *x, const struct attn_args *a, int r)
{
    x->max_all[r] = a->sink ? a->sink[r] : -INFINITY;
    x->sum_all[r] = x->max_all[r] > -INFINITY ? 1.0 : 0.0;
    memset(x->acc_all + (ptrdiff_t)r * x->v_len, 0, (size_t)x->v_len * sizeof(float));
}

void attn_begin(const struct attn_scratch *x, const struct attn_args *a, int64_t *base, int64_t *end)
{
    assert(a->n_q >= 0 && a->n_q <= ATTN_ROWS && a->head_dim % 8 == 0 && a->head_dim_v % 8 == 0);
    int64_t begin = INT64_MAX;
    *end = 0;
    for (int r = 0; r < a->n_q; r++) {
        attn_clear(x, r);
        attn_clear_all(x, a, r);
        if (a->lo[r] >= a->hi[r]) continue;
        begin = min_i64(begin, a->lo[r]);
        *end = max_i64(*end, a->hi[r]);
    }
    if (a->part) begin = max_i64(begin, a->first), *end = min_i64(*end, a->last);
    *base = begin / ATTN_KEYS * ATTN_KEYS;
}

bool attn_part_ends(const struct attn_args *a, int r, int64_t base)
{
    return !a->part && a->lo[r] < base && base < a->hi[r] && base % attn_part_keys(a->hi[r]) == 0;
}

void attn_keep(const struct attn_scratch *x, const struct attn_args *a, int r)
{
    float *to = a->part + r * attn_part_floats(a->head_dim_v);
    *(struct attn_part *)(void *)to = (struct attn_part){ x->max[r], x->sum[r] };
    memcpy(to + PART_ACC, x->acc + (ptrdiff_t)r * x->v_len, (size_t)x->v_len * sizeof(float));
}

const struct attn_part *attn_part_at(const struct attn_args *a, int r, int64_t i)
{
    return (const struct attn_part *)(const void *)(a->part + i * a->part_step + r * attn_part_floats(a->head_dim_v));
}

int64_t attn_parts(const struct attn_args *a, int r)
{
    int64_t keys = attn_part_keys(a->hi[r]);
    return a->lo[r] < a->hi[r] ? (a->hi[r] - 1) / keys - a->lo[r] / keys + 1 : 0;
}

static float logit(const struct attn_args *a, const float *q, const float *key)
{
    double sum = 0.0;
    for (int d = 0; d < a->head_dim; d++) sum += (double)q[d] * (double)key[d];
    float l = (float)(sum * (double)a->scale);
    return a->cap > 0.0f ? a->cap * tanhf(l / a->cap) : l;
}

/* Online softmax of one row over one block: the state is brought to the new maximum, then the block is added. */
static void attend(const struct attn_args *a, struct attn_scratch *x, int64_t base, int r, int lo, int hi)
{
    float *acc = x->acc + (ptrdiff_t)r * x->v_len, *s = x->s, old = x->max[r], top = old;
    for (int j = lo; j < hi; j++) {
        s[j] = logit(a, a->q + r * a->q_stride, x->rows + (ptrdiff_t)j * x->q_len);
        if (a->slope) s[j] += a->slope[r] * (float)(base + j - a->hi[r] + 1);
        if (s[j] > top) top = s[j];
    }
    float shift = top > -INFINITY ? top : 0.0f, decay = top > old ? expf(old - shift) : 1.0f;
    x->max[r] = top;
    x->sum[r] *= (double)decay;
    for (int d = 0; d < a->head_dim_v; d++) acc[d] *= decay;
    for (int j = lo; j < hi; j++) {
        const float *v = x->tile + (ptrdiff_t)j * x->v_len;
        float p = expf(s[j] - shift);
        x->sum[r] += (double)p;
        for (int d = 0; d < a->head_dim_v; d++) acc[d] += p * v[d];
    }
}

static void merge(const struct attn_args *a, const struct attn_scratch *x, int r, struct attn_part p, const float *acc)
{
    float *all = x->acc_all + (ptrdiff_t)r * x->v_len, old = x->max_all[r], top = p.max > old ? p.max : old, shift = top > -INFINITY ? top : 0.0f;
    float by_old = expf(old - shift), by_new = expf(p.max - shift);
    for (int d = 0; d < a->head_dim_v; d++) all[d] = all[d] * by_old + acc[d] * by_new;
    x->sum_all[r] = x->sum_all[r] * (double)by_old + p.sum * (double)by_new;
    x->max_all[r] = top;
}

static void merge_own(const struct attn_args *a, const struct attn_scratch *x, int r)
{
    merge(a, x, r, (struct attn_part){ x->max[r], x->sum[r] }, x->acc + (ptrdiff_t)r * x->v_len);
    attn_clear(x, r);
}

static void finish(const struct attn_args *a, const struct attn_scratch *x, int r)
{
    float inv = x->sum_all[r] != 0.0 ? (float)(1.0 / x->sum_all[r]) : 0.0f;
    for (int d = 0; d < a->head_dim_v; d++) a->out[r * a->out_stride + d] = x->acc_all[(ptrdiff_t)r * x->v_len + d] * inv;
}

void attn_merge_ref(const struct attn_args *a, void *scratch)
{
    struct attn_scratch x;
    attn_place(&x, scratch, a->head_dim, a->head_dim_v);
    for (int r = 0; r < a->n_q; r++) {
        attn_clear_all(&x, a, r);
        for (int64_t i = 0; i < attn_parts(a, r); i++) {
            const struct attn_part *p = attn_part_at(a, r, i);
            merge(a, &x, r, *p, (const float *)(const void *)p + PART_ACC);
        }
        finish(a, &x, r);
    }
}

void attn_ref(const struct kernels *k, const struct attn_args *a, void *scratch)
{
    struct attn_scratch x;
    attn_place(&x, scratch, a->head_dim, a->head_dim_v);
    int64_t base, end;
    attn_begin(&x, a, &base, &end);
    for (; base < end; base += ATTN_KEYS) {
        for (int r = 0; r < a->n_q; r++)
            if (attn_part_ends(a, r, base)) merge_own(a, &x, r);
        struct attn_block b;
        if (!attn_block_at(&b, a, base)) continue;
        for (int j = b.first; j < b.last; j++) {
            size_t at = (size_t)(base + j);
            dtype_to_f32(a->k_type, (const uint8_t *)a->k + at * a->k_row_bytes, x.rows + (ptrdiff_t)j * x.q_len, a->head_dim);
            dtype_to_f32(a->v_type, (const uint8_t *)a->v + at * a->v_row_bytes, x.tile + (ptrdiff_t)j * x.v_len, a->head_dim_v);
        }
        for (int i = 0; i < b.n; i++) attend(a, &x, base, b.row[i], b.lo[i], b.hi[i]);
    }
    for (int r = 0; r < a->n_q; r++) {
        if (a->part) attn_keep(&x, a, r);
        else merge_own(a, &x, r), finish(a, &x, r);
    }
}

/* ops_grad_attn - attention of whole sequences, as training runs it, and its gradients. With P = softmax(S), S = scale q k^T (capped, with
 * ALiBi), y = P v and a given dy:
 *   dP = dy v^T   D = sum(dy y)   dS = P (dP - D)   dv = P^T dy   dq = scale dS k   dk = scale dS^T q
 * S is kept by keys, a row of each with all queries side by side: maxima and sums are those of columns, 16 at once, and P is a panel, for y^T = v^T P^T.
 * There, PAIR_ROWS queries of a head meet their keys RUN at a time; what is summed follows the largest S so far, and ln sum exp(S) of each query stays for
 * the way back. There a part of a head's keys meets, KEYS at a time, the queries that see them: P = exp(S - that). Memory does not grow with the square of
 * the length. S in f32, or in BF16 of two parts (exact_of): of one, gradients are off by 6e-3 of their size instead of 2e-3. P v in f32: of BF16,
 * losses are 1e-3 off those of engines. The gradients' other products in BF16 where matmuls of gradients are. Dao et al. 2022, algorithm 4; Dao 2023,
 * section 3.
 * A head's keys have their gradients beside the result, from where those of a group are summed in order, and so have queries those of each part: no bit
 * depends on who did what. */
#include "ggml-like/ops_grad.h"
#include <float.h>
#include <math.h>

enum {
    QUERIES = 96, /* of a block on the way back */
    KEYS = 256,
    RUN = 128,    /* keys that a block meets at once on the way there: their S and P stay in the first cache */
    PARTS = 4,    /* of a head's keys, at most */
    AHEAD = 8,    /* rows */
    STRIDE = QUERIES + 16, /* floats: rows do not meet in one set of the cache */
};

static int64_t width_of(const struct attn_spec *s) { return s->n_head * s->head_dim + s->n_head_kv * (s->head_dim + s->head_dim_v); }
static int64_t chunks_of(int64_t n) { return (n + KEYS - 1) / KEYS; }
static int64_t parts_of(int64_t n) { return min_i64(PARTS, chunks_of(n)); }
static int64_t part_keys(int64_t n) { return (chunks_of(n) + parts_of(n) - 1) / parts_of(n) * KEYS; }

/* What stands behind the result: ln sum exp(S) [rows][n_head] */
static size_t sums_bytes(int32_t n_head, int64_t room) { return ((size_t)n_head * (size_t)room * sizeof(float) + 63) & ~(size_t)63; }

/* What q k^T is multiplied as: F32, or where BF16 has tiles of its own (has_chunks) in three products of it, of numbers cut into their first 8 bits and the
 * next 8: hi hi + lo hi + hi lo, side by side as columns. Those are five times as fast, and off by 2^-16 of each term. */
enum { CUTS = 3 };
struct exact { enum act_form form; int64_t dim; };
static struct exact exact_of(const struct plan *p, int64_t dim)
{
    bool cut = p->k->has_chunks && !p->precise;
    return (struct exact){ cut ? ACT_BF16 : ACT_F32, cut ? CUTS * dim : dim };
}

/* Of a head: K as tiles of all rows, then V as tiles whose tokens are its columns. */
struct packed { struct act_panel key, v; };

static size_t packed_bytes(const struct plan *p, int64_t hd, int64_t vd, int64_t room)
{
    struct exact s = exact_of(p, hd);
    return act_panel_bytes(p->k, s.dim, room, s.form) + act_panel_bytes(p->k, room, vd, ACT_F32);
}

static struct packed packed_of(const struct plan *p, uint8_t *data, int64_t kv, int64_t hd, int64_t vd, int64_t room)
{
    struct exact s = exact_of(p, hd);
    struct packed to;
    data += (size_t)kv * packed_bytes(p, hd, vd, room);
    act_panel_place(p->k, &to.key, data, s.dim, room, s.form);
    act_panel_place(p->k, &to.v, data + act_panel_bytes(p->k, s.dim, room, s.form), room, vd, ACT_F32);
    return to;
}

static val pack(struct plan *p, const struct attn_spec *s, int64_t rows)
{
    return plan_temp_bytes(p, (size_t)s->n_head_kv * packed_bytes(p, s->head_dim, s->head_dim_v, plan_room(p, rows)));
}

/* OP_KV_STORE becomes OP_ATTN_PACK. */
static void make_pack(struct plan *p, struct op *op, const struct attn_spec *s)
{
    op->kind = OP_ATTN_PACK;
    op->dst = pack(p, s, op_shape(p, op->src[0])->ne[1]);
    op_attn_arg(op, s);
}

static void make_whole(struct plan *p, struct op *op, const struct op *packed)
{
    struct value *y = &p->val[op->dst];
    op->kind = OP_ATTN_WHOLE;
    op->src[2] = packed->src[0], op->src[3] = packed->src[1], op->src[4] = packed->dst;
    y->bytes += sums_bytes(op->arg.attn.n_head, plan_room(p, y->t.ne[1]));
}

status op_attn_make_whole(struct plan *p, struct err *e)
{
    for (int32_t i = 0; i < p->n_op; i++) {
        int32_t at = i - 1, il = p->op[i].arg.attn.il;
        if (p->op[i].kind != OP_ATTN) continue;
        while (at >= 0 && !(p->op[at].kind == OP_KV_STORE && p->op[at].arg.store.il == il) && !(p->op[at].kind == OP_ATTN_PACK && p->op[at].arg.attn.il == il))
            at--;
        if (at < 0) continue;
        TRY(plan_reserve(p, 1, e));
        struct attn_spec s = op_attn_spec(&p->op[i]);
        if (p->op[at].kind == OP_KV_STORE) make_pack(p, &p->op[at], &s);
        make_whole(p, &p->op[i], &p->op[at]);
    }
    plan_relink(p);
    return OK;
}

val op_attn_whole(struct plan *p, const struct attn_spec *s, val q, val k, val v, val sinks)
{
    struct op *packed = plan_op(p, OP_KV_STORE, VAL_NONE, k, v, VAL_NONE);
    make_pack(p, packed, s);
    val y = op_rows_like(p, q, (int64_t)s->n_head * s->head_dim_v);
    struct op *op = plan_op(p, OP_ATTN_WHOLE, y, q, sinks, k);
    op_attn_arg(op, s);
    make_whole(p, op, op - 1);
    for (int i = 3; i <= 4; i++)
        if (op->src[i] != VAL_NONE) p->val[op->src[i]].last = p->n_op - 1;
    return y;
}

val op_attn_grad(struct plan *p, const struct attn_spec *s, val q, val k, val v, val y, val dy)
{
    assert(op_shape(p, q)->ne[0] == (int64_t)s->n_head * s->head_dim && s->n_head % s->n_head_kv == 0);
    assert(op_shape(p, k)->ne[0] == (int64_t)s->n_head_kv * s->head_dim);
    assert(op_shape(p, dy)->ne[0] == (int64_t)s->n_head * s->head_dim_v && op_shape(p, y)->ne[0] == op_shape(p, dy)->ne[0]);
    val d = op_rows_like(p, q, width_of(s));
    int64_t room = plan_room(p, op_shape(p, q)->ne[1]), heads = s->n_head > s->n_head_kv ? s->n_head * (s->head_dim + s->head_dim_v) : 0;
    p->val[d].bytes += (size_t)(room * (heads + (parts_of(room) - 1) * s->n_head * s->head_dim)) * sizeof(float);
    struct op *op = plan_op(p, OP_ATTN_GRAD, d, q, VAL_NONE, k);
    val more[] = { v, y, dy };
    for (int i = 0; i < ARRAY_LEN(more); i++) {
        op->src[3 + i] = more[i];
        if (more[i] != VAL_NONE) p->val[more[i]].last = p->n_op - 1;
    }
    op_attn_arg(op, s);
    return d;
}

/* ---- keys and values of a pass, packed for the way there ---- */

/* Rows of floats, and where results go. */
struct rows { const float *x; int64_t stride; };
struct sums { float *x; int64_t stride; };

static struct rows rows_at(struct rows x, int64_t row) { return (struct rows){ x.x + row * x.stride, x.stride }; }

/* n rows as tokens, from tile `tile` on. */
static void fill_tokens(const struct kernels *k, struct act_panel *to, int64_t tile, struct rows x, int64_t n)
{
    const float *rows[TILE_TOKENS_MAX];
    int64_t nt = k->tile_tokens;
    for (int64_t t = 0; t < n; t += nt, tile++) {
        int m = (int)min_i64(nt, n - t);
        for (int i = 0; i < m; i++) rows[i] = x.x + (t + i) * x.stride;
        kernels_fill(k, to->form)(k, to, tile, rows, m);
    }
}

/* n rows of dim floats, cut: as keys or as queries have it. */
static struct rows cut_rows(const struct kernels *k, float *to, struct rows x, int64_t n, int64_t dim, bool keys)
{
    const struct dtype *bf16 = dtype_by_id(GGUF_BF16);
    uint16_t half[BLOCK_MAX];
    for (int64_t i = 0; i < n; i++) {
        const float *from = x.x + i * x.stride;
        float *hi = to + i * CUTS * dim, *lo = hi + (keys ? 2 : 1) * dim;
        for (int64_t c = 0; c < dim; c += BLOCK_MAX) {
            int64_t m = min_i64(BLOCK_MAX, dim - c);
            k->from_f32(bf16, from + c, half, m);
            k->to_f32(bf16, half, hi + c, m);
        }
        memcpy(lo, from, (size_t)dim * sizeof *lo);
        k->axpy(lo, hi, -1, dim);
        memcpy(hi + (keys ? 1 : 2) * dim, hi, (size_t)dim * sizeof *hi);
    }
    return (struct rows){ to, CUTS * dim };
}

/* fill_tokens of keys, through `room` for a tile of cut rows. */
static void fill_keys(const struct kernels *k, struct act_panel *to, int64_t tile, struct rows x, int64_t n, int64_t dim, float *room)
{
    if (to->form == ACT_F32) {
        fill_tokens(k, to, tile, x, n);
        return;
    }
    for (int64_t t = 0; t < n; t += k->tile_tokens, tile++) {
        int64_t m = min_i64(k->tile_tokens, n - t);
        fill_tokens(k, to, tile, cut_rows(k, room, (struct rows){ x.x + t * x.stride, x.stride }, m, dim, true), m);
    }
}

/* Rows of n floats become columns of panels; of tiles, from column `at` on. */
static void fill_columns(const struct kernels *k, enum act_form form, uint8_t *to, size_t step, struct rows x, int64_t rows, int64_t n)
{
    for (int64_t i = 0; i < rows; i += 2) op_columns(k, form, to, step, i, x.x + i * x.stride, i + 1 < rows ? x.x + (i + 1) * x.stride : NULL, n);
}

void op_run_attn_pack(const struct op_run *r, const struct op *op)
{
    const struct plan *p = r->x->plan;
    int64_t n = op_shape(p, op->src[0])->ne[1], n_kv = op->arg.attn.n_head_kv, hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v, begin, end;
    const float *key = op_data(r, op->src[0]), *v = op->src[1] == VAL_NONE ? key : op_data(r, op->src[1]);
    int nt = r->k->tile_tokens;
    pool_range(n, nt, r->ith, r->nth, &begin, &end);
    for (int64_t kv = 0; kv < n_kv; kv++) {
        struct packed to = packed_of(p, op_data(r, op->dst), kv, hd, vd, plan_room(p, n));
        int64_t width = op->src[1] == VAL_NONE ? hd : vd;
        fill_keys(r->k, &to.key, begin / nt, (struct rows){ key + (begin * n_kv + kv) * hd, n_kv * hd }, end - begin, hd, r->scratch);
        op_tile_columns(r->k, ACT_F32, to.v.data, to.v.tile_bytes, begin, v + (begin * n_kv + kv) * width, n_kv * width, end - begin, vd);
    }
}

/* ---- one head of one segment ---- */

struct head {
    const struct kernels *k;
    enum act_form form;
    struct exact exact;
    int64_t row, n, window; /* of the segment: its first row, its rows; 0: none */
    int hd, vd, nt;
    float scale, cap, slope, sink;
    bool has_sink;
    struct rows q, key, v, y, dy;
    struct packed packed;  /* there */
    struct sums out, dq, dk, dv;
    struct sums lse;       /* a float each row */
    /* in the thread's scratch */
    float *s, *dp, *edge;  /* S, a row of each key, then P; dP, then dS */
    float *sq, *sum;       /* queries times scale; P v so far, a row of each column */
    float *room;           /* rows of queries or of a tile of keys, cut */
    uint8_t *q_rows, *dy_rows;     /* panels of queries */
    uint8_t *q_cols, *dy_cols;     /* their columns as panels */
    uint8_t *p_cols;               /* P as panels of queries */
    uint8_t *key_acts, *v_acts;    /* tiles of keys */
    uint8_t *key_cols;             /* their columns as panels */
    uint8_t *acts;
    float log_sum[QUERIES], d[QUERIES]; /* of the block's queries: ln sum exp(S); D */
};

static size_t whole(int64_t columns) { return ((size_t)columns + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS; }
static size_t queries_step(enum act_form form) { return (size_t)QUERIES * PANEL_ROWS * op_form_bytes(form) + 64; }
static size_t keys_step(enum act_form form) { return (size_t)KEYS * PANEL_ROWS * op_form_bytes(form) + 64; }
static size_t rows_step(enum act_form form, int64_t dim) { return whole(dim) * PANEL_ROWS * op_form_bytes(form) + 64; }
static size_t exact_step(int64_t dim) /* of either form */
{
    size_t cut = rows_step(ACT_BF16, CUTS * dim), f32 = rows_step(ACT_F32, dim);
    return cut > f32 ? cut : f32;
}
static size_t run_step(void) { return RUN * PANEL_ROWS * sizeof(float) + 64; }
static size_t panels_of(int64_t n) { return ((size_t)n + PANEL_ROWS - 1) / PANEL_ROWS; }

/* Carves the scratch, h NULL: only its size. */
static size_t place(struct head *h, uint8_t *base, int64_t hd, int64_t vd)
{
    size_t block = (KEYS + TILE_TOKENS_MAX) * STRIDE * sizeof(float), tokens = KEYS + TILE_TOKENS_MAX;
    size_t acts = (QUERIES + TILE_TOKENS_MAX) * KEYS * sizeof(float);
    size_t bytes[] = { block, block, PANEL_ROWS * TILE_TOKENS_MAX * sizeof(float), QUERIES * (size_t)hd * sizeof(float),
                       PAIR_ROWS * (size_t)vd * sizeof(float), panels_of(QUERIES) * exact_step(hd), panels_of(QUERIES) * rows_step(ACT_F32, vd),
                       panels_of(hd) * queries_step(ACT_F32), panels_of(vd) * queries_step(ACT_F32), 2 * run_step(),
                       tokens / PANEL_ROWS * exact_step(hd), tokens * whole(vd) * sizeof(float), panels_of(hd) * keys_step(ACT_F32), acts,
                       QUERIES * CUTS * (size_t)hd * sizeof(float) };
    uint8_t *at[ARRAY_LEN(bytes)];
    size_t n = 0;
    for (int i = 0; i < ARRAY_LEN(bytes); i++) {
        at[i] = base + n;
        n += (bytes[i] + 63) & ~(size_t)63;
    }
    if (!h) return n;
    h->s = (float *)(void *)at[0], h->dp = (float *)(void *)at[1], h->edge = (float *)(void *)at[2], h->sq = (float *)(void *)at[3];
    h->sum = (float *)(void *)at[4];
    h->q_rows = at[5], h->dy_rows = at[6], h->q_cols = at[7], h->dy_cols = at[8], h->p_cols = at[9], h->key_acts = at[10], h->v_acts = at[11];
    h->key_cols = at[12], h->acts = at[13], h->room = (float *)(void *)at[14];
    return n;
}

size_t op_attn_grad_bytes(int64_t head_dim_max)
{
    uint8_t base[1];
    return place(NULL, base, head_dim_max, head_dim_max);
}

/* Panels of n rows. */
static struct op_panels fill_rows(const struct head *h, enum act_form form, uint8_t *to, int64_t dim, struct rows x, int64_t n)
{
    struct op_panels all = { to, rows_step(form, dim), form, dim };
    for (int64_t j = 0; j < n; j += PANEL_ROWS, to += all.step) {
        struct panel p = { .code = (int8_t *)to, .f32 = (float *)(void *)to, .bf16 = (uint16_t *)(void *)to };
        kernels_panel(h->k, form)(h->k, &p, dtype_by_id(GGUF_F32), form, x.x + j * x.stride, (size_t)x.stride * sizeof(float),
                                  (int)min_i64(PANEL_ROWS, n - j), 0, dim);
    }
    return all;
}

static struct op_panels panel_from(struct op_panels p, int64_t row)
{
    p.data = (uint8_t *)p.data + (size_t)(row / PANEL_ROWS) * p.step;
    return p;
}

/* A head's rows lie a page apart or nearly, so that no prefetcher follows. */
static void ask(struct rows x, int64_t row, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(x.x + (row + AHEAD) * x.stride + i, 0, 3);
}

static struct op_panels open_queries(struct head *h, int64_t i0, int64_t m)
{
    for (int64_t i = 0; i < m; i++) {
        ask(h->q, i0 + i, h->hd);
        h->k->scale(h->sq + i * h->hd, h->q.x + (i0 + i) * h->q.stride, h->scale, h->hd);
    }
    struct rows q = { h->sq, h->hd };
    if (h->exact.form != ACT_F32) q = cut_rows(h->k, h->room, q, m, h->hd, false);
    return fill_rows(h, h->exact.form, h->q_rows, h->exact.dim, q, m);
}

/* A row: logits of key j and queries i0 + from .. i0 + wide - 1, but for a cap as the softmax takes them: -inf where a query does not see the key. */
static void bend_row(const struct head *h, float *s, int64_t j, int64_t i0, int64_t from, int64_t wide)
{
    for (int64_t i = from; i < wide && h->slope != 0; i++) s[i] += h->slope * (float)(j - i0 - i);
    for (int64_t i = from; i < min_i64(wide, j - i0); i++) s[i] = -INFINITY;
    for (int64_t i = max_i64(from, j - i0 + h->window); i < wide && h->window > 0; i++) s[i] = -INFINITY;
}

/* ---- there ---- */

/* Where the row of key j0 is: those before it in its tile have rows, too. */
static float *keys_run(const struct head *h, struct op_panels q, int64_t i0, int64_t wide, int64_t j0, int64_t j1)
{
    int64_t first = (h->row + j0) / h->nt, lead = (h->row + j0) % h->nt;
    float *s = h->s + lead * PAIR_ROWS;
    for (int64_t t = first; t * h->nt < h->row + j1; t++)
        op_tile(h->k, &q, &h->packed.key, t, 0, (int)min_i64(h->nt, h->row + j1 - t * h->nt), wide, h->s + (t - first) * h->nt * PAIR_ROWS, PAIR_ROWS, false,
                h->edge);
    bool bent = h->cap > 0 || h->slope != 0 || h->window > 0;
    for (int64_t j = bent ? j0 : max_i64(j0, i0 + 1); j < j1; j++) {
        float *row = s + (j - j0) * PAIR_ROWS;
        if (h->cap > 0) h->k->softcap(row, row, h->cap, wide);
        bend_row(h, row, j, i0, 0, wide);
    }
    return s;
}

/* S of keys j0 .. j1 - 1 to P, and P v to the sums. */
static void sum_run(struct head *h, const float *s, int64_t i0, int64_t wide, int64_t j0, int64_t j1, float *max, float *sum)
{
    struct op_panels p = { h->p_cols, run_step(), ACT_F32, j1 - j0 };
    struct act_panel v = h->packed.v;
    v.data += (size_t)(h->row + j0) * (size_t)h->nt * sizeof(float);
    for (int64_t c = 0; c < wide; c += PANEL_ROWS) {
        float *to = (float *)(void *)(h->p_cols + (size_t)(c / PANEL_ROWS) * p.step);
        int64_t n = max_i64(0, min_i64(j1, i0 + c + PANEL_ROWS) - j0); /* keys that one of them sees */
        struct softmax_args a = { .s = s + c, .p = to, .max = max + c, .sum = sum + c, .acc = h->sum + c, .stride = PAIR_ROWS, .n = n,
                                  .acc_stride = PAIR_ROWS, .n_acc = h->vd };
        if (n > 0) h->k->softmax_columns(&a);
        memset(to + n * PANEL_ROWS, 0, (size_t)((p.nk - n) * PANEL_ROWS) * sizeof *to);
    }
    for (int64_t c = 0; c < h->vd; c += h->nt)
        op_tile(h->k, &p, &v, c / h->nt, 0, (int)min_i64(h->nt, h->vd - c), wide, h->sum + c * PAIR_ROWS, PAIR_ROWS, true, h->edge);
}

/* Of queries i0 .. i0 + PAIR_ROWS - 1; those beyond the last are zeros. */
static void block_run(struct head *h, int64_t i0)
{
    int64_t m = min_i64(PAIR_ROWS, h->n - i0), hi = i0 + m, wide = m > PANEL_ROWS ? PAIR_ROWS : PANEL_ROWS;
    float max[PAIR_ROWS], sum[PAIR_ROWS];
    struct op_panels q = open_queries(h, i0, m);
    memset(h->sum, 0, (size_t)h->vd * PAIR_ROWS * sizeof(float));
    for (int64_t i = 0; i < wide; i++) max[i] = h->has_sink ? h->sink : -FLT_MAX, sum[i] = h->has_sink ? 1 : 0;
    for (int64_t j0 = h->window > 0 ? max_i64(0, i0 - h->window + 1) : 0; j0 < hi; j0 += RUN) {
        int64_t j1 = min_i64(hi, j0 + RUN);
        sum_run(h, keys_run(h, q, i0, wide, j0, j1), i0, wide, j0, j1, max, sum);
    }
    for (int64_t i = 0; i < m; i++) {
        float *out = h->out.x + (i0 + i) * h->out.stride, inv = 1 / sum[i];
        for (int64_t c = 0; c < h->vd; c++) out[c] = inv * h->sum[c * PAIR_ROWS + i];
        h->lse.x[(i0 + i) * h->lse.stride] = max[i] + logf(sum[i]);
    }
}

/* ---- and back: m queries from i0 on, and n keys from j0 on ---- */

struct block { int64_t i0, m, wide, j0, n; };

/* The first query of a pair of panels that sees key j0 + j: those before do not. */
static int64_t first_query(const struct block *b, int64_t j) { return max_i64(0, b->j0 + j - b->i0) / PAIR_ROWS * PAIR_ROWS; }

static void open_grads(struct head *h, const struct block *b)
{
    for (int64_t i = 0; i < b->m; i++) {
        ask(h->dy, b->i0 + i, h->vd), ask(h->y, b->i0 + i, h->vd);
        h->d[i] = h->k->dot(h->dy.x + (b->i0 + i) * h->dy.stride, h->y.x + (b->i0 + i) * h->y.stride, h->vd);
        h->log_sum[i] = h->lse.x[(b->i0 + i) * h->lse.stride];
    }
    for (int64_t i = b->m; i < b->wide; i++) h->d[i] = 0, h->log_sum[i] = INFINITY;
    fill_columns(h->k, h->form, h->q_cols, queries_step(h->form), (struct rows){ h->sq, h->hd }, b->m, h->hd);
    fill_columns(h->k, h->form, h->dy_cols, queries_step(h->form), rows_at(h->dy, b->i0), b->m, h->vd);
}

/* to[j][i] = key j0 + j times query i0 + i; queries of a pair of panels that does not see a tile of keys are left out. */
static void multiply_queries(const struct head *h, struct op_panels q, const struct act_panel *keys, const struct block *b, float *to)
{
    for (int64_t j = 0; j < b->n; j += h->nt)
        for (int64_t c = first_query(b, j); c < b->wide; c += PAIR_ROWS) {
            struct op_panels part = panel_from(q, c);
            op_tile(h->k, &part, keys, j / h->nt, 0, (int)min_i64(h->nt, b->n - j), min_i64(PAIR_ROWS, b->wide - c), to + j * STRIDE + c, STRIDE, false,
                    h->edge);
        }
}

/* With a cap, what dP - D is multiplied by besides P: 1 - (S / cap)^2, S as capped. Leaves no mean to take off. */
static void slope_of_cap(struct head *h, const struct block *b, const float *s, float *d, int64_t from)
{
    float row[QUERIES];
    int64_t n = b->wide - from;
    h->k->axpy(d + from, h->d + from, -1, n);
    h->k->scale(row, s + from, 1 / h->cap, n);
    h->k->mul(row, row, row, n);
    h->k->mul(row, row, d + from, n);
    h->k->axpy(d + from, row, -1, n);
}

/* S and dP to P and dS; what a query does not see becomes 0. */
static void softmax_grads(struct head *h, const struct block *b)
{
    static const float none[PANEL_ROWS];
    for (int64_t j = 0; j < b->n; j++) {
        int64_t from = first_query(b, j / h->nt * h->nt);
        float *s = h->s + j * STRIDE, *d = h->dp + j * STRIDE;
        memset(d, 0, (size_t)from * sizeof *d);
        if (h->cap > 0) {
            h->k->softcap(s + from, s + from, h->cap, b->wide - from);
            slope_of_cap(h, b, s, d, from);
        }
        if (h->slope != 0 || h->window > 0 || b->j0 + j > b->i0) bend_row(h, s, b->j0 + j, b->i0, from, b->wide);
    }
    for (int64_t c = 0; c < b->wide; c += PANEL_ROWS) {
        int64_t n = b->n;
        while (n > 0 && first_query(b, (n - 1) / h->nt * h->nt) > c) n = (n - 1) / h->nt * h->nt;
        struct softmax_grad_args a = { h->s + c, h->dp + c, h->log_sum + c, h->cap > 0 ? none : h->d + c, STRIDE, n };
        h->k->softmax_grad(&a);
    }
}

/* to[j] += sum_i x[j][i] cols[i]: cols the columns of the block's queries or of their dy. */
static void add_to_keys(const struct head *h, const float *x, const struct block *b, uint8_t *cols, int64_t dim, struct sums to)
{
    size_t row = op_form_bytes(h->form), step = queries_step(h->form);
    for (int64_t j = 0; j < b->n; j += h->nt) {
        int64_t from = first_query(b, j); /* earlier ones do not see these keys */
        int tokens = (int)min_i64(h->nt, b->n - j);
        struct act_panel a = { .k = b->m - from, .n_tokens = tokens, .form = h->form, .data = h->acts };
        fill_tokens(h->k, &a, 0, (struct rows){ x + j * STRIDE + from, STRIDE }, tokens);
        for (int64_t c = 0; c < dim; c += PAIR_ROWS) {
            struct op_panels p = { cols + (size_t)(c / PANEL_ROWS) * step + (size_t)from * PANEL_ROWS * row, step, h->form, b->m - from };
            op_tile(h->k, &p, &a, 0, 0, tokens, min_i64(PAIR_ROWS, dim - c), to.x + (b->j0 + j) * to.stride + c, to.stride, true, h->edge);
        }
    }
}

/* dq[i] (+)= sum_j dS[j][i] key j, whose columns are in key_cols */
static void add_to_queries(const struct head *h, const struct block *b, bool add)
{
    struct act_panel a = { .k = b->n, .n_tokens = b->m, .form = h->form, .data = h->acts };
    a.tile_bytes = (size_t)h->nt * KEYS * op_form_bytes(h->form);
    op_tile_columns(h->k, h->form, h->acts, a.tile_bytes, 0, h->dp, STRIDE, b->n, b->m);
    for (int64_t t = 0; t < b->m; t += h->nt) {
        int tokens = (int)min_i64(h->nt, b->m - t);
        int64_t seen = min_i64(b->n, b->i0 + t + tokens - b->j0);
        for (int64_t c = 0; c < h->hd && seen > 0; c += PAIR_ROWS) {
            struct op_panels p = { h->key_cols + (size_t)(c / PANEL_ROWS) * keys_step(h->form), keys_step(h->form), h->form, seen };
            op_tile(h->k, &p, &a, t / h->nt, 0, tokens, min_i64(PAIR_ROWS, h->hd - c), h->dq.x + (b->i0 + t) * h->dq.stride + c, h->dq.stride, add, h->edge);
        }
    }
}

static void clear_rows(struct sums x, int64_t first, int64_t end, int64_t n)
{
    for (int64_t i = first; i < end; i++) memset(x.x + i * x.stride, 0, (size_t)n * sizeof *x.x);
}

static struct act_panel tiles_of(const struct head *h, enum act_form form, uint8_t *to, int64_t dim, int64_t n)
{
    return (struct act_panel){ .k = dim, .n_tokens = n, .form = form, .tile_bytes = kernels_tile_bytes(h->k, dim, form), .data = to };
}

/* Keys from .. to - 1 and the queries that see them: `from` and those behind it. */
static void part_back(struct head *h, int64_t from, int64_t to)
{
    clear_rows(h->dk, from, to, h->hd), clear_rows(h->dv, from, to, h->vd);
    if (h->window > 0) clear_rows(h->dq, from, h->n, h->hd); /* else the first KEYS reach all rows */
    for (int64_t j0 = from; j0 < to; j0 += KEYS) {
        int64_t j1 = min_i64(to, j0 + KEYS), end = h->window > 0 ? min_i64(h->n, j1 + h->window - 1) : h->n;
        struct act_panel key = tiles_of(h, h->exact.form, h->key_acts, h->exact.dim, j1 - j0), v = tiles_of(h, h->form, h->v_acts, h->vd, j1 - j0);
        fill_keys(h->k, &key, 0, rows_at(h->key, j0), j1 - j0, h->hd, h->room);
        fill_tokens(h->k, &v, 0, rows_at(h->v, j0), j1 - j0);
        fill_columns(h->k, h->form, h->key_cols, keys_step(h->form), rows_at(h->key, j0), j1 - j0, h->hd);
        for (int64_t i0 = j0 / QUERIES * QUERIES; i0 < end; i0 += QUERIES) {
            struct block b = { .i0 = i0, .m = min_i64(QUERIES, h->n - i0), .j0 = j0 };
            b.wide = (b.m + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS, b.n = min_i64(j1, i0 + b.m) - j0;
            struct op_panels q = open_queries(h, i0, b.m), dy = fill_rows(h, h->form, h->dy_rows, h->vd, rows_at(h->dy, i0), b.m);
            open_grads(h, &b);
            multiply_queries(h, q, &key, &b, h->s);
            multiply_queries(h, dy, &v, &b, h->dp);
            softmax_grads(h, &b);
            add_to_keys(h, h->s, &b, h->dy_cols, h->vd, h->dv);
            add_to_keys(h, h->dp, &b, h->q_cols, h->hd, h->dk);
            add_to_queries(h, &b, j0 > from || h->window > 0);
        }
    }
}

/* ---- all heads ---- */

static void head_open(const struct op_run *r, const struct op *op, const struct batch_segment *seg, int32_t head, val y, enum act_form form, struct head *h)
{
    int hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v;
    int64_t n_head = op->arg.attn.n_head, n_kv = op->arg.attn.n_head_kv, kv = head / (n_head / n_kv), row = seg->row;
    const float *q = op_data(r, op->src[0]), *sinks = op->src[1] == VAL_NONE ? NULL : op_data(r, op->src[1]), *k = op_data(r, op->src[2]);
    const struct value *result = &r->x->plan->val[y];
    uint8_t *sums = (uint8_t *)op_data(r, y) + result->bytes - sums_bytes((int32_t)n_head, plan_room(r->x->plan, result->t.ne[1]));
    assert(seg->pos == 0);
    *h = (struct head){
        .k = r->k, .form = form, .exact = exact_of(r->x->plan, hd), .row = row, .n = seg->n, .window = op->arg.attn.window,
        .hd = hd, .vd = vd, .nt = r->k->tile_tokens,
        .scale = op->arg.attn.scale, .cap = op->arg.attn.cap, .has_sink = sinks != NULL, .sink = sinks ? sinks[head] : 0,
        .slope = op->arg.attn.alibi > 0 ? op_alibi_slope(op->arg.attn.alibi, (int32_t)n_head, head) : 0,
        .q = { q + (row * n_head + head) * hd, n_head * hd },
        .key = { k + (row * n_kv + kv) * hd, n_kv * hd },
        .v = { k + (row * n_kv + kv) * hd, n_kv * hd }, /* unless they have rows of their own */
        .lse = { (float *)(void *)sums + row * n_head + head, n_head },
    };
    if (op->src[3] != VAL_NONE) h->v = (struct rows){ (const float *)op_data(r, op->src[3]) + (row * n_kv + kv) * vd, n_kv * vd };
    (void)place(h, r->scratch, hd, vd);
}

void op_run_attn_whole(const struct op_run *r, const struct op *op)
{
    const struct batch *b = r->x->batch;
    int64_t n_head = op->arg.attn.n_head, vd = op->arg.attn.head_dim_v, n = 0, room = plan_room(r->x->plan, op_shape(r->x->plan, op->dst)->ne[1]);
    assert(r->x->thread_bytes >= op_attn_grad_bytes(max_i64(op->arg.attn.head_dim, vd)));
    for (int s = 0; s < b->n_seg; s++) n += (b->seg[s].n + PAIR_ROWS - 1) / PAIR_ROWS * n_head;
    for (int64_t i, end; op_take(r, n, 1, &i, &end);) {
        const struct batch_segment *seg = b->seg;
        struct head h;
        for (int64_t items; i >= (items = (seg->n + PAIR_ROWS - 1) / PAIR_ROWS * n_head); i -= items) seg++;
        int64_t head = i % n_head;
        head_open(r, op, seg, (int32_t)head, op->dst, ACT_F32, &h);
        h.out = (struct sums){ (float *)op_data(r, op->dst) + (seg->row * n_head + head) * vd, n_head * vd };
        h.packed = packed_of(r->x->plan, op_data(r, op->src[4]), head / (n_head / op->arg.attn.n_head_kv), h.hd, vd, room);
        block_run(&h, i / n_head * PAIR_ROWS);
    }
}

/* Where the gradients go: into the result, or beside it where several heads share keys, and those of queries of all parts of the keys but the first. */
struct results { float *y, *heads, *parts; int64_t width, rows; };

static struct results results_of(const struct op_run *r, const struct op *op)
{
    const struct value *d = &r->x->plan->val[op->dst];
    int64_t n_head = op->arg.attn.n_head, dims = op->arg.attn.head_dim + op->arg.attn.head_dim_v, room = plan_room(r->x->plan, d->t.ne[1]);
    float *y = op_data(r, op->dst), *heads = y + d->t.ne[0] * room;
    return (struct results){ y, heads, heads + (n_head > op->arg.attn.n_head_kv ? room * n_head * dims : 0), d->t.ne[0], d->t.ne[1] };
}

/* [part][row][head][hd] */
static struct sums part_sums(const struct op *op, const struct results *d, int64_t part, int64_t row)
{
    int64_t n = (int64_t)op->arg.attn.n_head * op->arg.attn.head_dim;
    if (part == 0) return (struct sums){ d->y + row * d->width, d->width };
    return (struct sums){ d->parts + ((part - 1) * d->rows + row) * n, n };
}

/* dk [head][row][hd], then dv */
static void head_sums(const struct op *op, const struct results *d, int64_t head, int64_t row, struct sums *dk, struct sums *dv)
{
    int64_t hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v, n_head = op->arg.attn.n_head, n_kv = op->arg.attn.n_head_kv;
    if (n_head == n_kv) {
        *dk = (struct sums){ d->y + row * d->width + n_head * hd + head * hd, d->width };
        *dv = (struct sums){ d->y + row * d->width + 2 * n_head * hd + head * vd, d->width };
        return;
    }
    *dk = (struct sums){ d->heads + (head * d->rows + row) * hd, hd };
    *dv = (struct sums){ d->heads + n_head * d->rows * hd + (head * d->rows + row) * vd, vd };
}

static void part_run(const struct op_run *r, const struct op *op, const struct batch_segment *seg, int64_t head, int64_t part)
{
    int64_t hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v, n_head = op->arg.attn.n_head, each = part_keys(seg->n);
    struct results d = results_of(r, op);
    struct head h;
    head_open(r, op, seg, (int32_t)head, op->src[4], op_grad_form(r->x->plan), &h);
    h.y = (struct rows){ (const float *)op_data(r, op->src[4]) + (seg->row * n_head + head) * vd, n_head * vd };
    h.dy = (struct rows){ (const float *)op_data(r, op->src[5]) + (seg->row * n_head + head) * vd, n_head * vd };
    h.dq = part_sums(op, &d, part, seg->row);
    h.dq.x += head * hd;
    head_sums(op, &d, head, seg->row, &h.dk, &h.dv);
    part_back(&h, min_i64(part * each, seg->n), min_i64((part + 1) * each, seg->n));
}

static void sum_group(const struct op_run *r, const struct op *op, const struct results *d, int64_t row)
{
    int64_t hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v, n_head = op->arg.attn.n_head, n_kv = op->arg.attn.n_head_kv;
    float *dk = d->y + row * d->width + n_head * hd, *dv = dk + n_kv * hd;
    for (int64_t h = 0; h < n_head; h++) {
        int64_t kv = h / (n_head / n_kv);
        struct sums k, v;
        head_sums(op, d, h, row, &k, &v);
        if (h % (n_head / n_kv) == 0) {
            memcpy(dk + kv * hd, k.x, (size_t)hd * sizeof *dk);
            memcpy(dv + kv * vd, v.x, (size_t)vd * sizeof *dv);
            continue;
        }
        r->k->add(dk + kv * hd, dk + kv * hd, k.x, hd);
        r->k->add(dv + kv * vd, dv + kv * vd, v.x, vd);
    }
}

/* The parts of a row's queries, and the heads of its groups of keys. */
static void sum_row(const struct op_run *r, const struct op *op, const struct results *d, const struct batch_segment *seg, int64_t row)
{
    int64_t n = (int64_t)op->arg.attn.n_head * op->arg.attn.head_dim, each = part_keys(seg->n);
    float *dq = part_sums(op, d, 0, row).x;
    for (int64_t part = 1; part * each <= row - seg->row; part++) r->k->add(dq, dq, part_sums(op, d, part, row).x, n);
    r->k->scale(dq, dq, op->arg.attn.scale, n);
    if (op->arg.attn.n_head > op->arg.attn.n_head_kv) sum_group(r, op, d, row);
}

void op_run_attn_grad(const struct op_run *r, const struct op *op)
{
    const struct batch *b = r->x->batch;
    int64_t n_head = op->arg.attn.n_head, n = 0, begin, end;
    assert(r->x->thread_bytes >= op_attn_grad_bytes(max_i64(op->arg.attn.head_dim, op->arg.attn.head_dim_v)));
    for (int s = 0; s < b->n_seg; s++) n += parts_of(b->seg[s].n) * n_head;
    for (int64_t i; op_take(r, n, 1, &i, &end);) {
        const struct batch_segment *seg = b->seg;
        for (int64_t items; i >= (items = parts_of(seg->n) * n_head); i -= items) seg++;
        part_run(r, op, seg, i % n_head, i / n_head);
    }
    struct results d = results_of(r, op);
    pool_barrier(r->x->pool);
    pool_range(d.rows, 1, r->ith, r->nth, &begin, &end);
    for (int s = 0; s < b->n_seg; s++)
        for (int64_t row = max_i64(begin, b->seg[s].row); row < min_i64(end, b->seg[s].row + b->seg[s].n); row++)
            sum_row(r, op, &d, &b->seg[s], row);
}

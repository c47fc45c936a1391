/* ops_grad_matmul - the gradients of a matmul y = W x: of its input (dx = W^T dy) and of its matrix (dW += dy^T x).
 * Weights are unpacked to floats row by row, as they lie in the file; since a panel's rows are columns of the matrix here, nothing is transposed. A
 * block of them is unpacked once for all tokens. In BF16 where a level multiplies pairs of it and the plan is not precise. */
#include "ggml-like/ops_grad.h"

enum {
    T_COLS = 320,        /* columns of a matrix in a block: 20 panels */
    T_DEPTH = 512,       /* its rows of BF16, half as many floats: 320 KiB, of a second cache of 1 MiB */
    T_TOKENS = 240,      /* all panels meet so many tokens before the next ones: they stay in that cache, too */
    T_PAD = 64,          /* bytes behind each panel: their rows are written side by side, and would meet in one set of the cache */
    AHEAD = 16,
    OUTER_TOKENS = 240,  /* rows of a result for which the other operand is packed once */
    OUTER_PANELS = 8,    /* packed together */
};

static int64_t depth_of(enum act_form form) { return form == ACT_BF16 ? T_DEPTH : T_DEPTH / 2; }
static size_t panel_step(enum act_form form) { return (size_t)depth_of(form) * PANEL_ROWS * op_form_bytes(form) + T_PAD; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- what is shared with the other gradients ---- */

/* One row of floats, width of them to each panel. Widths are constants where they are common. */
static inline __attribute__((always_inline)) void copy_columns(uint8_t *to, size_t step, int width, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + width <= n; i += width, to += step) memcpy(to, x + i, (size_t)width * sizeof *x);
    if (i == n) return;
    memset(to, 0, (size_t)width * sizeof *x);
    memcpy(to, x + i, (size_t)(n - i) * sizeof *x);
}

static inline __attribute__((always_inline)) void copy_rows(uint8_t *to, size_t step, int width, int64_t i, const float *a, const float *b, int64_t n)
{
    to += (size_t)i * (size_t)width * sizeof(float);
    copy_columns(to, step, width, a, n);
    if (b) copy_columns(to + (size_t)width * sizeof(float), step, width, b, n);
}

void op_columns(const struct kernels *k, enum act_form form, uint8_t *to, size_t step, int64_t i, const float *a, const float *b, int64_t n)
{
    if (form == ACT_F32) copy_rows(to, step, PANEL_ROWS, i, a, b, n);
    else k->columns_bf16((uint16_t *)(void *)to + i * PANEL_ROWS, (int64_t)(step / sizeof(uint16_t)), PANEL_ROWS, a, b, n);
}

void op_tile_columns(const struct kernels *k, enum act_form form, uint8_t *to, size_t step, int64_t i, const float *x, int64_t stride, int64_t rows, int64_t n)
{
    if (form == ACT_BF16) {
        k->tile_columns_bf16(k, (uint16_t *)(void *)to, (int64_t)(step / sizeof(uint16_t)), i, x, stride, rows, n);
        return;
    }
    for (; rows > 0; rows--, i++, x += stride) {
        if (k->tile_tokens == 12) copy_rows(to, step, 12, i, x, NULL, n);
        else if (k->tile_tokens == 4) copy_rows(to, step, 4, i, x, NULL, n);
        else copy_rows(to, step, k->tile_tokens, i, x, NULL, n);
    }
}

static struct panel panel_at(const struct op_panels *p, int i)
{
    uint8_t *data = (uint8_t *)p->data + (size_t)i * p->step;
    return (struct panel){ .nk = p->nk, .form = p->form, .code = (int8_t *)data, .f32 = (float *)(void *)data, .bf16 = (uint16_t *)(void *)data };
}

void op_tile(const struct kernels *k, const struct op_panels *p, const struct act_panel *x, int64_t tile, int64_t k0, int n_tokens, int64_t n_rows, float *y,
             int64_t stride, bool add, float *edge)
{
    struct panel one = panel_at(p, 0), two = panel_at(p, 1);
    if (n_rows >= PAIR_ROWS) {
        kernels_pair(k, &one, &two, x, tile, k0, n_tokens, y, stride, add);
        return;
    }
    if (n_rows >= PANEL_ROWS) {
        kernels_tile(k, p->form)(k, &one, x, tile, k0, n_tokens, y, stride, add);
        n_rows -= PANEL_ROWS, y += PANEL_ROWS, one = two;
    }
    if (n_rows == 0) return;
    kernels_tile(k, p->form)(k, &one, x, tile, k0, n_tokens, edge, PANEL_ROWS, false);
    for (int t = 0; t < n_tokens; t++)
        for (int i = 0; i < n_rows; i++) y[t * stride + i] = edge[t * PANEL_ROWS + i] + (add ? y[t * stride + i] : 0.0f);
}

size_t op_transposed_bytes(void)
{
    return T_COLS / PANEL_ROWS * panel_step(ACT_BF16) + 2 * T_COLS * sizeof(float) + PANEL_ROWS * TILE_TOKENS_MAX * sizeof(float);
}

size_t op_grad_bytes(int64_t head_dim_max)
{
    size_t edge = PANEL_ROWS * TILE_TOKENS_MAX * sizeof(float), columns = op_score_grad_bytes();
    size_t outer = (OUTER_TOKENS + TILE_TOKENS_MAX) * (T_DEPTH * sizeof(uint16_t) + T_PAD) + OUTER_PANELS * panel_step(ACT_BF16) + edge;
    size_t most = columns > outer ? columns : outer, attn = op_attn_grad_bytes(head_dim_max);
    return attn > most ? attn : most;
}

/* ---- dx ---- */

val op_matmul_t(struct plan *p, val w, val x)
{
    const struct tensor *t = op_shape(p, w);
    assert(t->ne[1] == op_shape(p, x)->ne[0]);
    val q = op_packed(p, x, op_grad_form(p)), y = op_rows_like(p, x, t->ne[0]);
    plan_op(p, OP_MATMUL_T, y, w, q, VAL_NONE)->arg.part.n = t->ne[1];
    return y;
}

void op_matmul_t_add(struct plan *p, val w, val x, val y)
{
    assert(op_shape(p, w)->ne[1] == op_shape(p, x)->ne[0] && op_shape(p, w)->ne[0] == op_shape(p, y)->ne[0]);
    struct op *op = plan_op(p, OP_MATMUL_T, y, w, op_packed(p, x, op_grad_form(p)), VAL_NONE);
    op->arg.part.n = op_shape(p, w)->ne[1];
    op->arg.part.add = true;
}

struct t_cut op_t_cut(const struct op_run *r, const struct tensor *w, int64_t rows)
{
    enum { WIDTH_MIN = 64, TILES_MIN = 8 };
    int64_t unit = max_i64(PANEL_ROWS, w->type->block_len), widest = T_COLS / unit * unit, k = w->ne[0], n_tiles = ceil_div(rows, r->k->tile_tokens);
    int64_t blocks = ceil_div(ceil_div(k, widest), r->nth) * r->nth;
    if (blocks * WIDTH_MIN > k) blocks = ceil_div(k, widest);
    struct t_cut c = { .width = ceil_div(ceil_div(k, blocks), unit) * unit };
    c.blocks = ceil_div(k, c.width);
    c.splits = max_i64(1, min_i64(r->nth / c.blocks, n_tiles / TILES_MIN));
    c.tiles = ceil_div(n_tiles, c.splits);
    return c;
}

/* Rows n0 .. n0 + n of the matrix (bytes at `data`, from the block's first column on) as panels of columns. */
static void unpack_columns(const struct op_run *r, const struct tensor *w, const uint8_t *data, int64_t n, int64_t cols, enum act_form form, uint8_t *panels)
{
    float *x[2] = { (float *)(void *)(panels + T_COLS / PANEL_ROWS * panel_step(form)), NULL };
    x[1] = x[0] + T_COLS;
    size_t bytes = dtype_row_bytes(w->type, cols);
    for (int64_t i = 0; i < n; i += 2) {
        int pair = (int)min_i64(2, n - i);
        for (int j = 0; j < 2; j++)
            for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(data + (size_t)(i + j + AHEAD) * w->nb[1] + at, 0, 2);
        for (int j = 0; j < pair; j++) kernels_to_f32(r->k, w->type, data + (size_t)(i + j) * w->nb[1], x[j], cols);
        op_columns(r->k, form, panels, panel_step(form), i, x[0], pair == 2 ? x[1] : NULL, cols);
    }
}

void op_transposed(const struct op_run *r, const struct tensor *w, const uint8_t *data, int64_t n, const struct act_panel *x, int64_t tile, int64_t rows,
                   int64_t col, int64_t cols, float *y, int64_t stride, bool add)
{
    enum act_form form = x->form;
    int64_t nt = r->k->tile_tokens, group = T_TOKENS / nt * nt;
    float *edge = (float *)((uint8_t *)r->scratch + T_COLS / PANEL_ROWS * panel_step(form)) + 2 * T_COLS;
    for (int64_t n0 = 0; n0 < n; n0 += depth_of(form)) {
        int64_t nk = min_i64(depth_of(form), n - n0);
        unpack_columns(r, w, data + (size_t)n0 * w->nb[1] + dtype_row_bytes(w->type, col), nk, cols, form, r->scratch);
        for (int64_t i0 = 0; i0 < rows; i0 += group)
            for (int64_t c0 = 0; c0 < cols; c0 += PAIR_ROWS) {
                struct op_panels p = { (uint8_t *)r->scratch + (size_t)(c0 / PANEL_ROWS) * panel_step(form), panel_step(form), form, nk };
                for (int64_t i = i0; i < min_i64(i0 + group, rows); i += nt) {
                    float *out = y + i * stride + col + c0;
                    int m = (int)min_i64(nt, rows - i);
                    for (int j = 0; j < m; j++) __builtin_prefetch(out + j * stride, 1, 3), __builtin_prefetch(out + j * stride + PANEL_ROWS, 1, 3);
                    op_tile(r->k, &p, x, tile + i / nt, n0, m, min_i64(PAIR_ROWS, cols - c0), out, stride, add || n0 > 0, edge);
                }
            }
    }
}

void op_run_matmul_t(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[0]), *t = op_shape(r->x->plan, op->dst);
    int64_t rows = t->ne[1], k = t->ne[0], n = op->arg.part.n, nt = r->k->tile_tokens;
    if (rows == 0) return;
    struct act_panel x = op_acts(r, op->src[1], n, rows, op_grad_form(r->x->plan));
    struct t_cut c = op_t_cut(r, w, rows);
    float *y = op_data(r, op->dst);
    const uint8_t *data = (const uint8_t *)w->data + (size_t)op->arg.part.first * w->nb[1];
    for (int64_t item, end; op_take(r, c.blocks * c.splits, 1, &item, &end);) {
        int64_t col = item / c.splits * c.width, cols = min_i64(c.width, k - col), tile = item % c.splits * c.tiles;
        int64_t here = min_i64(c.tiles * nt, rows - tile * nt);
        if (here > 0) op_transposed(r, w, data, n, &x, tile, here, col, cols, y + tile * nt * k, k, op->arg.part.add);
    }
}

/* ---- dW ---- */

void op_outer(struct plan *p, val dy, val x, val to)
{
    assert(op_shape(p, to)->ne[0] == op_shape(p, x)->ne[0] && op_shape(p, to)->ne[1] == op_shape(p, dy)->ne[0]);
    assert(op_shape(p, x)->ne[1] == op_shape(p, dy)->ne[1]);
    plan_op(p, OP_OUTER, VAL_NONE, dy, x, to);
}

/* Tokens first .. end of a tile times n_rows rows of panels, added where these are the columns of a matrix of k: or turned, rows of that. */
static void add_outer(const struct op_run *r, const struct op_outer_args *o, bool turned, const struct op_panels *p, const struct act_panel *a, int64_t tile,
                      int64_t first, int tokens, int64_t c, int64_t n_rows, float *edge)
{
    float sum[TILE_TOKENS_MAX * PAIR_ROWS];
    if (!turned) {
        op_tile(r->k, p, a, tile, 0, tokens, n_rows, o->to + first * o->k + c, o->k, true, edge);
        return;
    }
    op_tile(r->k, p, a, tile, 0, tokens, n_rows, sum, PAIR_ROWS, false, edge);
    for (int64_t i = 0; i < n_rows; i++)
        for (int t = 0; t < tokens; t++) o->to[(c + i) * o->n + first + t] += sum[t * PAIR_ROWS + i];
}

/* Those of dy become tiles whose tokens are its columns, once for a block of them; those of x become panels. turned: they have changed places. */
static void outer_block(const struct op_run *r, const struct op_outer_args *o, enum act_form form, bool turned, int64_t n0, int64_t n1, int64_t c0,
                        int64_t c1)
{
    int nt = r->k->tile_tokens;
    size_t tile_bytes = (size_t)depth_of(form) * (size_t)nt * op_form_bytes(form) + T_PAD;
    uint8_t *tiles = r->scratch, *panels = tiles + (size_t)ceil_div(OUTER_TOKENS, nt) * tile_bytes;
    float *edge = (float *)(void *)(panels + OUTER_PANELS * panel_step(form));
    for (int64_t row = 0; row < o->rows; row += depth_of(form)) {
        int64_t nk = min_i64(depth_of(form), o->rows - row);
        struct act_panel a = { .k = nk, .n_tokens = n1 - n0, .form = form, .tile_bytes = tile_bytes, .data = tiles };
        op_tile_columns(r->k, form, tiles, tile_bytes, 0, o->dy + row * o->dy_stride + n0, o->dy_stride, nk, n1 - n0);
        for (int64_t c = c0; c < c1; c += OUTER_PANELS * PANEL_ROWS) {
            int64_t wide = min_i64(OUTER_PANELS * PANEL_ROWS, c1 - c);
            for (int64_t i = 0; i < nk; i += 2) {
                const float *x = o->x + (row + i) * o->x_stride + c;
                for (int64_t at = 0; at < 2 * wide; at += 16) __builtin_prefetch(x + (AHEAD + (at >= wide)) * o->x_stride + at % wide, 0, 2);
                op_columns(r->k, form, panels, panel_step(form), i, x, i + 1 < nk ? x + o->x_stride : NULL, wide);
            }
            for (int64_t at = 0; at < wide; at += PAIR_ROWS) {
                struct op_panels p = { panels + (size_t)(at / PANEL_ROWS) * panel_step(form), panel_step(form), form, nk };
                for (int64_t t = n0; t < n1; t += nt)
                    add_outer(r, o, turned, &p, &a, (t - n0) / nt, t, (int)min_i64(nt, n1 - t), c + at, min_i64(PAIR_ROWS, wide - at), edge);
            }
        }
    }
}

/* turned: few columns of x, as of a part of low rank, become the tiles, which cost twice as much as panels to make. */
struct outer_cut { int64_t tokens, down, wide, across; bool turned; };

static struct outer_cut outer_cut(const struct op_run *r, int64_t n, int64_t k)
{
    enum { ITEMS = 4 /* a thread: fewer, and the last one waits */, FEW = 64 };
    bool turned = k <= FEW && n >= 4 * k;
    if (turned) {
        int64_t keep = n;
        n = k, k = keep;
    }
    int64_t tokens = OUTER_TOKENS / r->k->tile_tokens * r->k->tile_tokens, down = ceil_div(n, tokens), panels = ceil_div(k, PANEL_ROWS);
    int64_t across = r->nth == 1 ? 1 : min_i64(panels, ceil_div((int64_t)ITEMS * r->nth, down)), wide = ceil_div(panels, across) * PANEL_ROWS;
    return (struct outer_cut){ tokens, down, wide, ceil_div(k, wide), turned };
}

int64_t op_outer_items(const struct op_run *r, int64_t n, int64_t k)
{
    struct outer_cut c = outer_cut(r, n, k);
    return c.down * c.across;
}

void op_outer_item(const struct op_run *r, const struct op_outer_args *o, int64_t item)
{
    struct outer_cut c = outer_cut(r, o->n, o->k);
    int64_t n0 = item / c.across * c.tokens, c0 = item % c.across * c.wide;
    struct op_outer_args turned = { o->x, o->dy, o->k, o->n, o->rows, o->x_stride, o->dy_stride, o->to };
    if (c.turned) o = &turned;
    outer_block(r, o, op_grad_form(r->x->plan), c.turned, n0, min_i64(n0 + c.tokens, o->n), c0, min_i64(c0 + c.wide, o->k));
}

void op_run_outer(const struct op_run *r, const struct op *op)
{
    const struct tensor *dy = op_shape(r->x->plan, op->src[0]), *x = op_shape(r->x->plan, op->src[1]);
    struct op_outer_args o = { op_data(r, op->src[0]), op_data(r, op->src[1]), dy->ne[0], x->ne[0], x->ne[1], dy->ne[0], x->ne[0],
                               op_data(r, op->src[2]) };
    for (int64_t item, end; op_take(r, op_outer_items(r, o.n, o.k), 1, &item, &end);) op_outer_item(r, &o, item);
}

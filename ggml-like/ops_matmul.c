/* ops_matmul - embedding look-up, quantization of activations, and matmul on weights in their file layout.
 * One row of activations goes through rowdot, several through panels and tiles; kernels.h explains both.
 * Several rows have 8 bits, in a precise plan 15, like the row of one token. */
#include "ggml-like/ops_int.h"

/* Where two panels are multiplied at once: 128 rows of 2048 columns of BF16 are 512 KiB of a second cache of 2 MiB, and activations, of which a prompt of
 * 512 tokens has as much or more, are read from the third once for them. Few tokens do not need that, and share rows out better. */
enum { BLOCK_PANELS = 8, FEW_TOKENS = 64 };

/* The quantized form of x: recorded once, shared by all matmuls that read x (Q, K, V; gate, up). Float weights read the floats: as they are
 * for one row, packed into tiles for several. */
val op_quantized(struct plan *p, val x, enum act_form form)
{
    const struct tensor *t = op_shape(p, x);
    bool row = op_by_rows(p, t->ne[1]);
    if (row && act_is_float(form)) return x;
    if (row) form = ACT_8; /* one form for all */
    if (p->val[x].quant[form] != VAL_NONE) return p->val[x].quant[form];
    if (act_forms_agree(p->k, t->ne[0], form) && !row) form = ACT_BF16;
    if (p->val[x].quant[form] != VAL_NONE) return p->val[x].quant[form];
    int64_t room = plan_room(p, t->ne[1]);
    val q = plan_temp_bytes(p, row ? act_row_bytes(t->ne[0]) * (size_t)room : act_panel_bytes(p->k, t->ne[0], room, form));
    plan_op(p, OP_QUANT, q, x, VAL_NONE, VAL_NONE)->arg.acts.form = form;
    p->val[x].quant[form] = q;
    return q;
}

val op_packed(struct plan *p, val x, enum act_form form)
{
    const struct tensor *t = op_shape(p, x);
    assert(act_is_float(form));
    if (p->val[x].quant[form] != VAL_NONE) return p->val[x].quant[form];
    val q = plan_temp_bytes(p, act_panel_bytes(p->k, t->ne[0], plan_room(p, t->ne[1]), form));
    plan_op(p, OP_QUANT, q, x, VAL_NONE, VAL_NONE)->arg.acts.form = form;
    p->val[x].quant[form] = q;
    return q;
}

/* up, low: VAL_NONE, or a second matrix and what it is multiplied with */
static val matmul(struct plan *p, val w, val x, int64_t n, bool observe, val up, val low)
{
    assert(op_shape(p, w)->ne[0] == op_shape(p, x)->ne[0] && n <= op_shape(p, w)->ne[1]);
    val q = op_quantized(p, x, op_form_of(p, w)), more[] = { up, low };
    if (up != VAL_NONE) more[1] = op_quantized(p, low, op_form_of(p, up));
    val y = plan_temp(p, n, op_shape(p, x)->ne[1]);
    struct op *op = plan_op(p, OP_MATMUL, y, w, q, observe ? x : VAL_NONE);
    for (int i = 0; i < 2 && up != VAL_NONE; i++) {
        op->src[4 + i] = more[i];
        p->val[more[i]].last = p->n_op - 1;
    }
    return y;
}

static val product(struct plan *p, val w, val x, int64_t n) { return matmul(p, w, x, n, false, VAL_NONE, VAL_NONE); }

/* y plus the product; of several rows added where y is: without a value of its own, and the pass over both. */
static val matmul_add(struct plan *p, val w, val x, int64_t n, val y)
{
    if (op_by_rows(p, op_shape(p, x)->ne[1])) return op_add(p, y, product(p, w, x, n));
    val q = op_quantized(p, x, op_form_of(p, w));
    plan_op(p, OP_MATMUL, y, w, q, VAL_NONE)->arg.part.add = true;
    return y;
}

val op_embed(struct plan *p, val table, int64_t n_embd)
{
    assert(op_shape(p, table)->ne[0] == n_embd);
    val y = plan_temp(p, n_embd, p->n_rows);
    plan_op(p, OP_EMBED, y, table, VAL_NONE, VAL_NONE);
    for (val s = p->val[table].extra; s != VAL_NONE; s = p->val[s].extra) { /* down [vocabulary][n] is picked from, too */
        val down = p->val[s].down;
        assert(down != VAL_NONE);
        y = op_add(p, y, product(p, s, op_scale(p, op_embed(p, down, op_shape(p, down)->ne[0]), p->val[s].scale), n_embd));
    }
    return y;
}

/* What the matrix s, an extra of another, is multiplied with. */
static val extra_input(struct plan *p, val s, val x)
{
    if (p->val[s].index != VAL_NONE) return op_cols(p, x, p->val[s].index);
    val in = p->dropout > 0 ? op_dropout(p, x, p->dropout, p->draws++) : x;
    return op_scale(p, product(p, p->val[s].down, in, op_shape(p, p->val[s].down)->ne[1]), p->val[s].scale);
}

/* The first extra, if it is of low rank, is multiplied with the matrix, a tile after the other: on its own it is as slow as the memory of y. */
val op_matmul_rows(struct plan *p, val w, val x, int64_t n)
{
    val s = p->val[w].extra, low = VAL_NONE;
    bool both = s != VAL_NONE && p->val[s].down != VAL_NONE && op_shape(p, s)->ne[0] <= LOW_RANK && !op_by_rows(p, op_shape(p, x)->ne[1]);
    if (both) low = extra_input(p, s, x);
    val y = matmul(p, w, x, n, p->observe, both ? s : VAL_NONE, low);
    for (s = both ? p->val[s].extra : s; s != VAL_NONE; s = p->val[s].extra) y = matmul_add(p, s, extra_input(p, s, x), n, y);
    return y;
}

val op_matmul(struct plan *p, val w, val x) { return op_matmul_rows(p, w, x, op_shape(p, w)->ne[1]); }

void op_run_embed(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[0]), *t = op_shape(r->x->plan, op->dst);
    float *y = op_data(r, op->dst);
    int64_t begin, end;
    pool_range(t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        r->k->to_f32(w->type, (const uint8_t *)w->data + (size_t)r->x->batch->token[i] * w->nb[1], y + i * t->ne[0], t->ne[0]);
}

static void quant_one_row(const struct op_run *r, const float *x, uint8_t *to, int64_t k)
{
    struct act_row row, part;
    act_row_place(&row, to, k);
    int64_t begin, end;
    pool_range(k, ACT_ROW_SPAN, r->ith, r->nth, &begin, &end); /* spans are independent */
    if (begin == end) return;
    part = act_row_part(&row, begin, end);
    r->k->quant_row(&part, x + begin, end - begin);
}

struct act_panel op_acts(const struct op_run *r, val v, int64_t k, int64_t n, enum act_form form)
{
    struct act_panel q;
    act_panel_place(r->k, &q, op_data(r, v), k, n, form);
    return q;
}

void op_fill_tile(const struct op_run *r, struct act_panel *q, int64_t tile, const float *const *x, int m)
{
    kernels_fill(r->k, q->form)(r->k, q, tile, x, m);
}

void op_run_quant(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->src[0]);
    int64_t k = t->ne[0], n = t->ne[1];
    const float *x = op_data(r, op->src[0]), *rows[TILE_TOKENS_MAX];
    if (op_by_rows(r->x->plan, n) && !act_is_float(op->arg.acts.form)) {
        for (int64_t i = 0; i < n; i++) quant_one_row(r, x + i * k, (uint8_t *)op_data(r, op->dst) + (size_t)i * act_row_bytes(k), k);
        return;
    }
    struct act_panel q = op_acts(r, op->dst, k, n, op->arg.acts.form);
    int nt = r->k->tile_tokens;
    for (int64_t begin, end; op_take(r, (n + nt - 1) / nt, 4, &begin, &end);)
        for (int64_t i = begin; i < end; i++) {
            int m = (int)min_i64(nt, n - i * nt);
            for (int j = 0; j < m; j++) rows[j] = x + (i * nt + j) * k;
            op_fill_tile(r, &q, i, rows, m);
        }
}

struct act_row op_act_row(const struct op_run *r, val q, const struct tensor *w, int64_t i)
{
    struct act_row x = { .k = w->ne[0] };
    if (op_is_float(w->type)) x.f32 = (const float *)op_data(r, q) + i * w->ne[0];
    else act_row_place(&x, (uint8_t *)op_data(r, q) + (size_t)i * act_row_bytes(w->ne[0]), w->ne[0]);
    return x;
}

static void matmul_row(const struct op_run *r, const struct op *op, const struct tensor *w, int64_t n_w, float *y)
{
    struct act_row x = op_act_row(r, op->src[1], w, 0);
    for (int64_t begin, end; op_take(r, n_w, op_row_chunk(r, w), &begin, &end);)
        kernels_dots(r->k, w->type, y + begin, (const uint8_t *)w->data + (size_t)begin * w->nb[1], w->nb[1], end - begin, &x, w->ne[0]);
}

/* A plan of single rows: a block of weight rows stays in the first cache while all rows of activations pass. */
static void matmul_rows(const struct op_run *r, const struct op *op, const struct tensor *w, int64_t n_w, int64_t n, float *y)
{
    int64_t chunk = max_i64(1, min_i64((int64_t)(8192 / w->nb[1]), 16));
    for (int64_t begin, end; op_take(r, n_w, 4 * chunk, &begin, &end);)
        for (int64_t from = begin; from < end; from += chunk)
            for (int64_t t = 0; t < n; t++) {
                struct act_row x = op_act_row(r, op->src[1], w, t);
                kernels_dots(r->k, w->type, y + t * n_w + from, (const uint8_t *)w->data + (size_t)from * w->nb[1], w->nb[1],
                             min_i64(chunk, end - from), &x, w->ne[0]);
            }
}

/* A tile of the first `rows` rows of one or two panels; of rows that are not all through a small buffer. */
static void put_tile(const struct kernels *k, const struct panel p[2], int64_t rows, const struct act_panel *x, int64_t tile, int64_t k0, int m, float *out,
                     int64_t stride, bool add, float *edge)
{
    if (rows >= 2 * PANEL_ROWS) {
        kernels_pair(k, &p[0], &p[1], x, tile, k0, m, out, stride, add);
        return;
    }
    if (rows >= PANEL_ROWS) {
        kernels_tile(k, x->form)(k, p, x, tile, k0, m, out, stride, add);
        rows -= PANEL_ROWS, out += PANEL_ROWS, p++;
    }
    if (rows <= 0) return;
    kernels_tile(k, x->form)(k, p, x, tile, k0, m, edge, PANEL_ROWS, false);
    for (int j = 0; j < m; j++)
        for (int i = 0; i < rows; i++) out[j * stride + i] = edge[j * PANEL_ROWS + i] + (add ? out[j * stride + i] : 0.0f);
}

/* A second matrix of few columns with as many rows, and what it is multiplied with. */
struct low { const struct tensor *w; struct act_panel x; };

int64_t op_panel_rows(const struct kernels *k, enum act_form form, int64_t n)
{
    bool gains = form == ACT_BF16 ? k->has_chunks : form != ACT_F32; /* 1.4 times the speed with chunks; of other floats 1.02, for 1 MiB of F32 */
    if (!gains || !kernels_pairs(k, form)) return PANEL_ROWS;
    return n <= FEW_TOKENS ? 2 * PANEL_ROWS : BLOCK_PANELS * PANEL_ROWS;
}

/* Panels for rows row .. row + n_rows of a matrix, columns k0 .. k0 + nk. What is read next is one piece of memory: each part of the columns, and each panel,
 * asks for its share of it. */
static void build_panels(const struct kernels *k, struct panel *p, const struct tensor *w, enum act_form form, const uint8_t *data, int64_t row, int64_t n_rows,
                         struct op_soon next, int64_t k0, int64_t nk)
{
    int64_t panels = (n_rows + PANEL_ROWS - 1) / PANEL_ROWS, parts = panels * w->ne[0];
    for (int64_t i = 0; i < panels; i++) {
        int64_t done = panels * k0 + i * nk;
        size_t from = next.bytes * (size_t)done / (size_t)parts, to = next.bytes * (size_t)(done + nk) / (size_t)parts;
        p[i].next = next.at + from;
        p[i].next_bytes = to - from;
        kernels_panel(k, form)(k, &p[i], w->type, form, data + (size_t)(row + i * PANEL_ROWS) * w->nb[1], w->nb[1],
                               (int)min_i64(PANEL_ROWS, n_rows - i * PANEL_ROWS), k0, nk);
    }
}

/* PANEL_K columns at a time. The panels of a block stay in the second cache, where the tiles meet them one after the other. */
static void panel_matmul(const struct op_run *r, const struct tensor *w, const uint8_t *data, int64_t n_w, struct op_soon next, const struct act_panel *x,
                         int64_t tile, int64_t n, int64_t row, int64_t unit, float *y, int64_t stride, bool add, const struct low *low)
{
    const struct kernels *k = r->k;
    struct panel p[BLOCK_PANELS], q[BLOCK_PANELS];
    float *edge = r->scratch;
    uint8_t *room = (uint8_t *)(edge + PANEL_ROWS * TILE_TOKENS_MAX), *low_room = room + BLOCK_PANELS * panel_bytes(PANEL_K);
    int64_t rows = min_i64(unit, n_w - row), nt = k->tile_tokens;
    for (int64_t i = 0; i * PANEL_ROWS < rows; i++) {
        panel_place(&p[i], room + (size_t)i * panel_bytes(PANEL_K), PANEL_K);
        if (low) panel_place(&q[i], low_room + (size_t)i * panel_bytes(LOW_RANK), LOW_RANK);
    }
    if (low) build_panels(k, q, low->w, low->x.form, low->w->data, row, rows, (struct op_soon){ NULL, 0 }, 0, low->w->ne[0]);
    for (int64_t k0 = 0; k0 < w->ne[0]; k0 += PANEL_K) {
        int64_t nk = min_i64(PANEL_K, w->ne[0] - k0);
        build_panels(k, p, w, x->form, data, row, rows, next, k0, nk);
        for (int64_t t = 0; t < n; t += nt) {
            int m = (int)min_i64(nt, n - t);
            for (int64_t i = 0; i < rows; i += 2 * PANEL_ROWS) {
                float *out = y + t * stride + row + i;
                for (int j = 0; j < m; j++) __builtin_prefetch(out + j * stride, 1, 3); /* 3 MiB of results in no cache: 200 GMAC/s without, 246 with */
                put_tile(k, p + i / PANEL_ROWS, rows - i, x, tile + t / nt, k0, m, out, stride, add || k0 > 0, edge);
                if (low && k0 + nk == w->ne[0]) put_tile(k, q + i / PANEL_ROWS, rows - i, &low->x, tile + t / nt, 0, m, out, stride, true, edge);
            }
            for (int64_t i = 0; i * PANEL_ROWS < rows && t == 0; i++) p[i].next_bytes = 0; /* the first tile has asked for it */
        }
    }
}

void op_panel_matmul(const struct op_run *r, const struct tensor *w, const uint8_t *data, int64_t n_w, struct op_soon next, const struct act_panel *x,
                     int64_t tile, int64_t n, int64_t row, int64_t unit, float *y, int64_t stride, bool add)
{
    panel_matmul(r, w, data, n_w, next, x, tile, n, row, unit, y, stride, add, NULL);
}

size_t op_panel_matmul_bytes(void)
{
    return PANEL_ROWS * TILE_TOKENS_MAX * sizeof(float) + BLOCK_PANELS * (panel_bytes(PANEL_K) + panel_bytes(LOW_RANK));
}

/* What this thread reads first in the next matmul. Where a thread has six panels of a small matrix, the first, unasked for, took a quarter of the
 * time. */
static struct op_soon next_matmul(const struct op_run *r)
{
    const struct plan *p = r->x->plan;
    for (int32_t i = r->index + 1; i < p->n_op; i++) {
        if (p->op[i].kind != OP_MATMUL) continue;
        const struct tensor *w = op_shape(p, p->op[i].src[0]);
        int64_t begin, end;
        int64_t n = op_shape(p, p->op[i].dst)->ne[1], unit = op_panel_rows(r->k, op_form_of(p, p->op[i].src[0]), n);
        pool_range(op_shape(p, p->op[i].dst)->ne[0], unit, r->ith, r->nth, &begin, &end);
        return op_rows_soon(w, w->data, end, begin, unit);
    }
    return (struct op_soon){ NULL, 0 };
}

void op_run_matmul(const struct op_run *r, const struct op *op)
{
    enum { ITEMS = 2 }; /* a thread */
    const struct tensor *w = op_shape(r->x->plan, op->src[0]), *t = op_shape(r->x->plan, op->dst);
    float *y = op_data(r, op->dst);
    int64_t n = t->ne[1];
    if (n == 0) return;
    if (n == 1) {
        matmul_row(r, op, w, t->ne[0], y);
        return;
    }
    if (r->x->plan->single) {
        matmul_rows(r, op, w, t->ne[0], n, y);
        return;
    }
    struct act_panel x = op_acts(r, op->src[1], w->ne[0], n, op_form_of(r->x->plan, op->src[0]));
    struct op_soon after = next_matmul(r), none = { NULL, 0 };
    struct low low = { .w = op->src[4] == VAL_NONE ? NULL : op_shape(r->x->plan, op->src[4]) };
    if (low.w) low.x = op_acts(r, op->src[5], low.w->ne[0], n, op_form_of(r->x->plan, op->src[4]));
    /* Few blocks are shared out by tokens, too. */
    int64_t unit = op_panel_rows(r->k, x.form, n), blocks = (t->ne[0] + unit - 1) / unit, nt = r->k->tile_tokens, tiles = (n + nt - 1) / nt, first, last;
    int64_t parts = r->nth == 1 ? 1 : max_i64(1, min_i64(tiles, (ITEMS * r->nth + blocks - 1) / blocks)), each = (tiles + parts - 1) / parts;
    pool_range(blocks * parts, 1, r->ith, r->nth, &first, &last);
    for (int64_t i, end; op_take(r, blocks * parts, 1, &i, &end);) {
        int64_t row = i / parts * unit, tile = i % parts * each, tokens = min_i64(n, (tile + each) * nt) - tile * nt;
        struct op_soon next = parts > 1 ? none : end == last ? after : op_rows_soon(w, w->data, t->ne[0], row + unit, unit);
        if (tokens > 0)
            panel_matmul(r, w, w->data, t->ne[0], next, &x, tile, tokens, row, unit, y + tile * nt * t->ne[0], t->ne[0], op->arg.part.add, low.w ? &low : NULL);
    }
}

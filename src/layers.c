/* layers - a model one layer at a time. Each call records the equations of one part of the model, drops what its results do not need, and runs them over
 * the windows in passes: whole short windows together, a long one alone in several. See layers.h.
 * What architectures derive from the tokens for all layers (Gemma 4's second embedding) is recorded with each layer and pruned where it is not used. */
#include "src/layers.h"
#include "ggml-like/file.h"
#include "ggml-like/kernels/kernels.h"
#include "src/forward.h"
#include "src/state.h"
#include <math.h>
#include <string.h>

enum { PASS_WINDOWS = 64 };

/* The cache of a layer that later layers read: of all windows. */
struct kept {
    bool wanted;
    uint8_t *base; /* NULL until the layer is first run over the set */
    size_t bytes;
    size_t *at;    /* [n_windows] */
    bool *done;    /* [n_windows] the layer passed it to the end */
};

struct layers {
    const struct model *m; /* as it was opened */
    struct model own;      /* the same with its weights as they are now */
    struct kernels k;
    struct pool *pool;
    struct plan_share *share;
    struct kv_types kv;
    const struct dtype *state;
    int64_t n_batch, head_rows;
    bool precise;
    /* the set */
    int64_t n_windows, *row; /* [n_windows + 1] */
    int32_t *token, *pos;    /* [rows] */
    struct kept *kept;       /* [n_layer] */
    /* the part of the model that is recorded, for passes of how many rows */
    struct plan p;
    val in, out;
    int64_t shape_rows;
    /* memory of a pass */
    struct mem_room scratch, states, rows;
    uint8_t *threads;
    size_t threads_bytes, thread_bytes;
    struct layer_state *layer; /* [PASS_WINDOWS][n_layer] */
    struct batch_segment seg[PASS_WINDOWS];
    int32_t *emit;             /* [2][n_batch] zeros; rows of logits handed out */
};

/* ---- open, close ---- */

static void kept_drop(struct kept *k)
{
    if (k->base) mem_unmap(k->base, k->bytes);
    mem_free(k->at);
    mem_free(k->done);
    *k = (struct kept){ .wanted = k->wanted };
}

static status own_weights(struct layers *l, struct err *e)
{
    size_t n = (size_t)l->m->hp.n_layer;
    l->own = *l->m;
    l->own.layer = mem_calloc(n, sizeof *l->own.layer);
    l->kept = mem_calloc(n, sizeof *l->kept);
    l->layer = mem_calloc(n * PASS_WINDOWS, sizeof *l->layer);
    l->emit = mem_calloc((size_t)l->n_batch, 2 * sizeof *l->emit);
    if (!l->own.layer || !l->kept || !l->layer || !l->emit) return err_oom(e, "layers", n * (sizeof *l->own.layer + PASS_WINDOWS * sizeof *l->layer));
    memcpy(l->own.layer, l->m->layer, n * sizeof *l->own.layer);
    for (int64_t il = 0; il < l->m->hp.n_layer; il++)
        if (l->m->layer[il].hp.il_kv != il && l->m->layer[il].hp.kind & LAYER_ATTENTION) l->kept[l->m->layer[il].hp.il_kv].wanted = true;
    return OK;
}

static status open_threads(struct layers *l, const struct layers_options *o, struct err *e)
{
    TRY(forward_machine(&l->k, NULL, &l->pool, o->n_threads, o->isa, e));
    size_t n = (size_t)pool_threads(l->pool);
    l->thread_bytes = forward_thread_bytes(l->m);
    if (!mul_size(n, l->thread_bytes, &l->threads_bytes)) return err_oom(e, "scratch", SIZE_MAX);
    l->share = mem_calloc(n, sizeof *l->share);
    l->threads = mem_map(l->threads_bytes);
    return l->share && l->threads ? OK : err_oom(e, "scratch", l->threads_bytes);
}

status layers_open(struct layers **out, const struct model *m, const struct layers_options *o, struct err *e)
{
    *out = NULL;
    if (o->n_batch < 0 || o->n_batch > 65536) return err_set(e, ERR_USAGE, "batch is %lld, expected 1 to 65536", (long long)o->n_batch);
    if (o->state && o->state->gguf_id != GGUF_F32 && o->state->gguf_id != GGUF_BF16)
        return err_set(e, ERR_USAGE, "hidden states in %s are not supported: F32, BF16", o->state->gguf_name);
    struct kv_types kv;
    TRY(kv_types_choose(&kv, o->kv_type, NULL, NULL, e));
    struct layers *l = mem_calloc(1, sizeof *l);
    if (!l) return err_oom(e, "layers", sizeof *l);
    l->m = m;
    l->kv = kv;
    l->state = o->state ? o->state : dtype_by_id(GGUF_F32);
    l->precise = o->precise;
    l->n_batch = o->n_batch ? o->n_batch : BATCH_DEFAULT;
    l->head_rows = forward_head_rows(m, l->n_batch);
    plan_init(&l->p, &l->k);
    status st = own_weights(l, e);
    if (st == OK) st = open_threads(l, o, e);
    if (st == OK) st = layers_windows(l, NULL, NULL, 0, e);
    if (st != OK) {
        layers_close(l);
        return st;
    }
    *out = l;
    return OK;
}

void layers_close(struct layers *l)
{
    if (!l) return;
    pool_close(l->pool);
    plan_free(&l->p);
    for (int64_t il = 0; l->kept && il < l->m->hp.n_layer; il++) kept_drop(&l->kept[il]);
    struct mem_room *const rooms[] = { &l->scratch, &l->states, &l->rows };
    for (int i = 0; i < ARRAY_LEN(rooms); i++) mem_room_drop(rooms[i]);
    if (l->threads) mem_unmap(l->threads, l->threads_bytes);
    void *const owned[] = { l->own.layer, l->kept, l->layer, l->share, l->row, l->token, l->emit };
    for (int i = 0; i < ARRAY_LEN(owned); i++) mem_free(owned[i]);
    mem_free(l);
}

struct pool *layers_pool(struct layers *l) { return l->pool; }
const struct kernels *layers_kernels(const struct layers *l) { return &l->k; }

size_t layers_bytes(const struct layers *l)
{
    size_t n = sizeof *l + l->threads_bytes + l->scratch.n + l->states.n + l->rows.n;
    n += (size_t)l->m->hp.n_layer * (sizeof *l->own.layer + sizeof *l->kept + PASS_WINDOWS * sizeof *l->layer);
    n += (size_t)l->n_batch * 2 * sizeof *l->emit + (size_t)(l->n_windows + 1) * sizeof *l->row + (size_t)l->row[l->n_windows] * 2 * sizeof *l->token;
    for (int64_t il = 0; il < l->m->hp.n_layer; il++)
        if (l->kept[il].base) n += l->kept[il].bytes + (size_t)l->n_windows * (sizeof *l->kept->at + sizeof *l->kept->done);
    return n;
}

/* ---- the set ---- */

static status count_rows(const struct layers *l, const int32_t *tokens, const int64_t *len, int64_t n, int64_t *rows, struct err *e)
{
    *rows = 0;
    for (int64_t w = 0; w < n; w++) {
        if (len[w] < 1 || len[w] > INT32_MAX - *rows)
            return err_set(e, ERR_USAGE, "window %lld has %lld tokens, expected 1 or more and at most %d in all", (long long)w, (long long)len[w], INT32_MAX);
        *rows += len[w];
    }
    for (int64_t i = 0; i < *rows; i++)
        if (tokens[i] < 0 || tokens[i] >= l->m->hp.n_vocab)
            return err_set(e, ERR_USAGE, "token id %d, expected 0 to %lld", tokens[i], (long long)l->m->hp.n_vocab - 1);
    return OK;
}

status layers_windows(struct layers *l, const int32_t *tokens, const int64_t *len, int64_t n, struct err *e)
{
    int64_t rows;
    if (n < 0 || n > INT32_MAX) return err_set(e, ERR_USAGE, "%lld windows, expected 0 to %d", (long long)n, INT32_MAX);
    TRY(count_rows(l, tokens, len, n, &rows, e));
    int64_t *row = mem_calloc((size_t)n + 1, sizeof *row);
    int32_t *token = mem_calloc((size_t)max_i64(1, rows), 2 * sizeof *token);
    if (!row || !token) {
        mem_free(row);
        mem_free(token);
        return err_oom(e, "windows", (size_t)(n + 1) * sizeof *row + (size_t)rows * 2 * sizeof *token);
    }
    if (rows > 0) memcpy(token, tokens, (size_t)rows * sizeof *token);
    for (int64_t w = 0; w < n; w++) {
        row[w + 1] = row[w] + len[w];
        for (int64_t i = 0; i < len[w]; i++) token[rows + row[w] + i] = (int32_t)i;
    }
    for (int64_t il = 0; il < l->m->hp.n_layer; il++) kept_drop(&l->kept[il]);
    mem_free(l->row);
    mem_free(l->token);
    l->n_windows = n;
    l->row = row;
    l->token = token;
    l->pos = token + rows;
    return OK;
}

status layers_windows_of(struct layers *l, const struct layers *from, struct err *e)
{
    int64_t *len = mem_alloc((size_t)max_i64(1, from->n_windows) * sizeof *len);
    if (!len) return err_oom(e, "windows", (size_t)from->n_windows * sizeof *len);
    for (int64_t w = 0; w < from->n_windows; w++) len[w] = from->row[w + 1] - from->row[w];
    status st = layers_windows(l, from->token, len, from->n_windows, e);
    mem_free(len);
    return st;
}

int64_t layers_n_windows(const struct layers *l) { return l->n_windows; }
int64_t layers_row(const struct layers *l, int64_t window) { return l->row[window]; }
int64_t layers_position(const struct layers *l, int64_t row) { return l->pos[row]; }

static int64_t window_len(const struct layers *l, int64_t w) { return l->row[w + 1] - l->row[w]; }

/* Windows window .. window + n - 1 whole, or rows at .. at + rows - 1 of one. */
struct pass {
    int64_t window, n, at, rows;
};

/* A window of one row goes alone: single rows are multiplied otherwise than several. */
static struct pass next_pass(const struct layers *l, int64_t w, int64_t at, int64_t end)
{
    int64_t len = window_len(l, w), rows = forward_pass_rows(l->n_batch, len - at);
    struct pass p = { w, 1, at, rows };
    if (len > l->n_batch || len == 1) return p;
    for (; w + p.n < end && p.n < PASS_WINDOWS; p.n++) {
        int64_t next = window_len(l, w + p.n);
        if (p.rows + next > l->n_batch || next == 1) break;
        p.rows += next;
    }
    return p;
}

static status check_windows(const struct layers *l, int64_t first, int64_t n, struct err *e)
{
    if (first >= 0 && n >= 0 && first <= l->n_windows && n <= l->n_windows - first) return OK;
    return err_set(e, ERR_USAGE, "windows %lld to %lld, the set has %lld", (long long)first, (long long)(first + n - 1), (long long)l->n_windows);
}

/* ---- recording ---- */

static bool listed(const struct layers_run *r, const char *name)
{
    for (int i = 0; r->show && i < r->n_show; i++)
        if (!strcmp(r->show[i], name)) return true;
    return !r->show;
}

/* The weight that an observer would see at this op, NULL: none. */
static struct tensor *shown_weight(struct plan *p, const struct op *op)
{
    bool plain = op->kind == OP_MATMUL || op->kind == OP_HEAD_MATMUL, shown = op->kind == OP_MOE_MATMUL || (plain && op->src[2] != VAL_NONE);
    struct tensor *w = shown && p->observe ? &p->val[op->src[0]].t : NULL;
    return w && w->name ? w : NULL;
}

/* Leaves the names only of those weights that are to be shown. */
static status choose_shown(struct layers *l, const struct layers_run *r, struct err *e)
{
    for (int i = 0; r->show && i < r->n_show; i++) {
        bool found = false;
        for (int32_t j = 0; j < l->p.n_op && !found; j++) {
            const struct tensor *w = shown_weight(&l->p, &l->p.op[j]);
            found = w && !strcmp(w->name, r->show[i]);
        }
        if (!found)
            return err_set(e, ERR_USAGE, "%s: layer %d of architecture %s does not multiply by a matrix of this name", r->show[i], r->il,
                           l->m->arch->name);
    }
    for (int32_t j = 0; j < l->p.n_op; j++) {
        struct tensor *w = shown_weight(&l->p, &l->p.op[j]);
        if (w && !listed(r, w->name)) w->name = NULL;
    }
    return OK;
}

static status record_input(struct layers *l, struct build *b, int64_t rows, val *x, struct err *e)
{
    TRY(plan_reserve(b->p, 1, e));
    *x = l->in = plan_input(b->p, l->m->hp.n_embd, rows);
    return OK;
}

/* Part r->il for passes of `rows` rows, everything in it. */
static status record_part(struct layers *l, const struct layers_run *r, int64_t rows, struct err *e)
{
    struct build b = { &l->p, &l->own, { VAL_NONE, VAL_NONE, VAL_NONE, VAL_NONE }, NULL };
    bool watched = r->observe, embed = r->il == LAYERS_EMBED, head = r->il == l->m->hp.n_layer;
    val x = VAL_NONE;
    l->shape_rows = -1;
    plan_reset(&l->p, rows, rows, l->n_batch);
    l->p.precise = l->precise;
    l->p.observe = watched && embed;
    if (embed || (!head && l->m->arch->embed)) TRY(forward_embed(&b, &x, e)); /* b.side */
    if (!embed) TRY(record_input(l, &b, rows, &x, e));
    l->p.observe = watched;
    if (head) {
        TRY(forward_norm(&b, &x, e));
        TRY(forward_logits(&b, &x, e));
    } else if (!embed) {
        TRY(forward_layer(&b, r->il, &x, e));
    }
    l->out = x;
    return OK;
}

static status record_run(struct layers *l, const struct layers_run *r, const struct pass *p, struct err *e)
{
    if (l->shape_rows == p->rows) return OK;
    TRY(record_part(l, r, p->rows, e));
    TRY(choose_shown(l, r, e));
    if (r->y) plan_keep(&l->p, l->out);
    plan_prune(&l->p);
    TRY(plan_finish(&l->p, e));
    TRY(mem_room_for(&l->scratch, l->p.bytes, e));
    l->shape_rows = p->rows;
    return OK;
}

/* ---- states of a pass ---- */

static bool keeps_cache(const struct layers *l, int il) { return il >= 0 && il < l->m->hp.n_layer && l->kept[il].wanted; }

static status kept_open(struct layers *l, int64_t il, struct err *e)
{
    struct kept *k = &l->kept[il];
    size_t n = 0;
    if (k->base) return OK;
    k->at = mem_calloc((size_t)l->n_windows + 1, sizeof *k->at);
    k->done = mem_calloc((size_t)l->n_windows + 1, sizeof *k->done);
    status st = k->at && k->done ? OK : err_oom(e, "KV cache", (size_t)l->n_windows);
    for (int64_t w = 0; w < l->n_windows && st == OK; w++) {
        struct layer_state s;
        k->at[w] = n;
        st = state_place(l->m, il, window_len(l, w), &l->kv, NULL, &s, &n, e);
    }
    k->bytes = n + 1;
    if (st == OK && !(k->base = mem_map(k->bytes))) st = err_oom(e, "KV cache", n);
    if (st != OK) kept_drop(k);
    return st;
}

static status place_window(struct layers *l, int il, int64_t w, uint8_t *base, struct layer_state *s, size_t *at, struct err *e)
{
    int64_t from = l->m->layer[il].hp.il_kv, len = window_len(l, w);
    if (keeps_cache(l, il)) return state_place(l->m, il, len, &l->kv, l->kept[il].base, &s[il], &(size_t){ l->kept[il].at[w] }, e);
    if (l->m->layer[il].hp.kind & LAYER_ATTENTION && from != il)
        TRY(state_place(l->m, from, len, &l->kv, l->kept[from].base, &s[from], &(size_t){ l->kept[from].at[w] }, e));
    return state_place(l->m, il, len, &l->kv, base, &s[il], at, e);
}

/* Measures, then places: the parts of a long window find the same bytes. */
static status place_states(struct layers *l, int il, const struct pass *p, struct err *e)
{
    if (il < 0 || il >= l->m->hp.n_layer) return OK;
    if (keeps_cache(l, il)) TRY(kept_open(l, il, e));
    for (int place = 0; place < 2; place++) {
        size_t n = 0;
        for (int64_t i = 0; i < p->n; i++)
            TRY(place_window(l, il, p->window + i, place ? l->states.p : NULL, l->layer + i * l->m->hp.n_layer, &n, e));
        if (!place) TRY(mem_room_for(&l->states, n, e));
    }
    return OK;
}

static status check_cache(const struct layers *l, const struct layers_run *r, struct err *e)
{
    if (r->il < 0 || r->il >= l->m->hp.n_layer || !(l->m->layer[r->il].hp.kind & LAYER_ATTENTION)) return OK;
    int64_t from = l->m->layer[r->il].hp.il_kv;
    for (int64_t w = r->first; from != r->il && w < r->first + r->n; w++)
        if (!l->kept[from].base || !l->kept[from].done[w])
            return err_set(e, ERR_USAGE, "architecture %s: layer %d reads the keys and values of layer %lld, which has not passed window %lld to the end yet",
                           l->m->arch->name, r->il, (long long)from, (long long)w);
    return OK;
}

/* ---- running ---- */

/* Rows at the border: the caller's state to f32 and back, by all threads. */
struct border {
    const struct kernels *k;
    const struct dtype *type;
    const void *from;
    void *to;
    bool in; /* from the caller's */
    int64_t rows, n_embd;
};

static void cross(void *ctx, int ith, int nth)
{
    const struct border *b = ctx;
    size_t f32 = (size_t)b->n_embd * sizeof(float), own = dtype_row_bytes(b->type, b->n_embd);
    int64_t begin, end;
    pool_range(b->rows, 1, ith, nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const uint8_t *from = (const uint8_t *)b->from + (size_t)i * (b->in ? own : f32);
        uint8_t *to = (uint8_t *)b->to + (size_t)i * (b->in ? f32 : own);
        if (b->in) b->k->to_f32(b->type, from, (float *)(void *)to, b->n_embd);
        else b->k->from_f32(b->type, (const float *)(const void *)from, to, b->n_embd);
    }
}

static const void *state_row(const struct layers *l, const void *x, int64_t i)
{
    return (const uint8_t *)x + (size_t)i * dtype_row_bytes(l->state, l->m->hp.n_embd);
}

/* Binds `rows` rows of the caller's x from row i on as the plan's input: where they are, or as f32 in a room of n_batch rows. */
static status bind_input(struct layers *l, const void *x, int64_t i, int64_t rows, struct err *e)
{
    int64_t n = l->m->hp.n_embd;
    const void *from = state_row(l, x, i);
    if (l->state->gguf_id != GGUF_F32) {
        TRY(mem_room_for(&l->rows, (size_t)(l->n_batch * n) * sizeof(float), e));
        struct border b = { &l->k, l->state, from, l->rows.p, true, rows, n };
        pool_run(l->pool, cross, &b);
        from = l->rows.p;
    }
    plan_bind(&l->p, l->in, (float *)(uintptr_t)from);
    return OK;
}

static void run_plan(struct layers *l, const struct batch *b, const struct layers_run *r, int64_t first_row)
{
    struct plan_exec x = {
        .plan = &l->p,
        .pool = l->pool,
        .batch = b,
        .base = l->scratch.p,
        .thread_base = l->threads,
        .thread_bytes = l->thread_bytes,
        .share = l->share,
        .observe = r ? r->observe : NULL,
        .observe_ctx = r ? r->observe_ctx : NULL,
        .first_row = first_row,
    };
    plan_run(&x);
}

static struct batch fill_batch(struct layers *l, const struct pass *p, int64_t first_row)
{
    struct batch b = { .n_rows = p->rows, .n_out = p->rows, .token = l->token + first_row, .pos = l->pos + first_row, .seg = l->seg, .n_seg = (int)p->n };
    for (int64_t i = 0, row = 0; i < p->n; row += l->seg[i++].n)
        l->seg[i] = (struct batch_segment){ row, p->n > 1 ? window_len(l, p->window + i) : p->rows, p->at, l->layer + i * l->m->hp.n_layer };
    return b;
}

static status run_pass(struct layers *l, const struct layers_run *r, const struct pass *p, struct err *e)
{
    int64_t row = l->row[p->window] + p->at, i = row - l->row[r->first];
    TRY(record_run(l, r, p, e));
    TRY(place_states(l, r->il, p, e));
    if (r->il != LAYERS_EMBED) TRY(bind_input(l, r->x, i, p->rows, e));
    bool keeps = keeps_cache(l, r->il), last = p->at + p->rows == window_len(l, p->window) || p->n > 1;
    for (int64_t w = 0; keeps && w < p->n; w++) l->kept[r->il].done[p->window + w] = false;
    struct batch b = fill_batch(l, p, row);
    run_plan(l, &b, r, row);
    for (int64_t w = 0; keeps && r->y && last && w < p->n; w++) l->kept[r->il].done[p->window + w] = true;
    if (!r->y) return OK;
    struct border y = { &l->k, l->state, l->scratch.p + l->p.val[l->out].offset, (void *)(uintptr_t)state_row(l, r->y, i), false, p->rows, l->m->hp.n_embd };
    pool_run(l->pool, cross, &y);
    return OK;
}

status layers_run(struct layers *l, const struct layers_run *r, struct err *e)
{
    if (r->il < LAYERS_EMBED || r->il > l->m->hp.n_layer)
        return err_set(e, ERR_USAGE, "layer %d, expected %d to %lld", r->il, LAYERS_EMBED, (long long)l->m->hp.n_layer);
    TRY(check_windows(l, r->first, r->n, e));
    if (r->il == l->m->hp.n_layer && r->y) return err_set(e, ERR_USAGE, "layer %d is the head, which gives no hidden states", r->il);
    if (!r->y && !r->observe) return err_set(e, ERR_USAGE, "layer %d: neither a result nor an observer is asked for", r->il);
    if (r->il != LAYERS_EMBED && !r->x) return err_set(e, ERR_USAGE, "layer %d: no hidden states", r->il);
    TRY(check_cache(l, r, e));
    l->shape_rows = -1;
    for (int64_t w = r->first, at = 0; w < r->first + r->n;) {
        struct pass p = next_pass(l, w, at, r->first + r->n);
        TRY(run_pass(l, r, &p, e));
        at += p.rows;
        if (p.n > 1 || at == window_len(l, w)) w += p.n, at = 0;
    }
    return OK;
}

/* ---- weights ---- */

static void ignore(void *ctx, const struct shown *s, int ith, int nth) {}

static bool has_name(const struct layers_matmul *out, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(out[i].w->name, name)) return true;
    return false;
}

static enum layers_sum sum_of(const struct layers *l, int32_t i)
{
    val y = l->p.op[i].dst;
    for (i++; i < l->p.n_op; i++) {
        const struct op *op = &l->p.op[i];
        if (op->kind == OP_BIAS && op->src[0] == y) y = op->dst;
        if (op->kind != OP_ADD || (op->src[0] != y && op->src[1] != y)) continue;
        if (op->dst == l->out) return LAYERS_SUM_OUT;
        return (op->src[0] == y ? op->src[1] : op->src[0]) == l->in ? LAYERS_SUM_IN : LAYERS_SUM_NONE;
    }
    return LAYERS_SUM_NONE;
}

status layers_matmuls(struct layers *l, int il, struct layers_matmul *out, int cap, int *n, struct err *e)
{
    int groups = 0;
    val input[PLAN_CHUNK]; /* of each group */
    *n = 0;
    if (il < LAYERS_EMBED || il > l->m->hp.n_layer)
        return err_set(e, ERR_USAGE, "layer %d, expected %d to %lld", il, LAYERS_EMBED, (long long)l->m->hp.n_layer);
    struct layers_run r = { .il = il, .observe = ignore };
    int64_t rows = min_i64(2, l->n_batch);
    TRY(record_part(l, &r, rows, e));
    for (int32_t i = 0; i < l->p.n_op; i++) {
        const struct op *op = &l->p.op[i];
        const struct tensor *w = shown_weight(&l->p, op);
        if (!w || has_name(out, (int)min_i64(*n, cap), w->name)) continue;
        val x = op->src[op->kind == OP_MOE_MATMUL ? 3 : 2];
        int g = 0;
        while (g < groups && input[g] != x) g++;
        if (g == groups && groups < ARRAY_LEN(input)) input[groups++] = x;
        if (*n < cap) out[*n] = (struct layers_matmul){ layers_weight(l, w->name), g, sum_of(l, i) };
        ++*n;
    }
    return OK;
}

/* The weight in slot i of layer il; from W_LAYER_COUNT on, those of the model. */
static struct tensor *slot(const struct model *m, int64_t il, int i)
{
    return i < W_LAYER_COUNT ? &m->layer[il].w[i] : (struct tensor *)(uintptr_t)&m->w[i - W_LAYER_COUNT];
}

/* The next slot behind (*il, *i) with a weight of this name in the file; begin with (0, -1). The factors of the positions are no weights in this sense. */
static bool next_named(const struct layers *l, const char *name, int64_t *il, int *i)
{
    for (; *il < l->m->hp.n_layer; ++*il, *i = -1)
        while (++*i < (*il == 0 ? W_ROPE_FREQS : W_LAYER_COUNT)) {
            const struct tensor *t = slot(l->m, *il, *i);
            if (t->type && !strcmp(t->name, name)) return true;
        }
    return false;
}

const struct tensor *layers_weight(const struct layers *l, const char *name)
{
    int64_t il = 0;
    int i = -1;
    return next_named(l, name, &il, &i) ? slot(&l->own, il, i) : NULL;
}

static bool is_vector(const struct layers *l, int i)
{
    const struct weight_row *r = arch_row(l->m->arch, (enum weight_id)i);
    return r && (r->ne1 == DIM_1 || r->flags & WEIGHT_VECTOR);
}

static status new_bytes(const struct layers *l, const struct tensor *old, bool vector, const struct dtype *type, size_t bytes, struct tensor *t, struct err *e)
{
    *t = *old;
    if (old->ne[0] % type->block_len || (vector && type->gguf_id != GGUF_F32))
        return err_set(e, ERR_USAGE, "%s: type %s for rows of %lld is not possible, expected %s", old->name, type->gguf_name, (long long)old->ne[0],
                       vector ? "F32" : "blocks that divide them");
    tensor_shape(t, type, old->ne[0], old->ne[1], old->ne[2], old->ne[3]);
    if (tensor_bytes(t) != bytes)
        return err_set(e, ERR_USAGE, "%s: %zu bytes, expected %zu in %s", old->name, bytes, tensor_bytes(t), type->gguf_name);
    return OK;
}

status layers_replace(struct layers *l, const char *name, const struct dtype *type, const void *data, size_t bytes, struct err *e)
{
    int64_t il = 0;
    int i = -1;
    if (!next_named(l, name, &il, &i)) return err_set(e, ERR_USAGE, "%s: architecture %s has no weight of this name", name, l->m->arch->name);
    do {
        const struct tensor *old = slot(l->m, il, i);
        struct tensor t = *old;
        if (type) {
            TRY(new_bytes(l, old, is_vector(l, i), type, bytes, &t, e));
            t.data = (void *)(uintptr_t)data;
        }
        *slot(&l->own, il, i) = t;
    } while (next_named(l, name, &il, &i));
    return OK;
}

/* ---- the head ---- */

/* Norm and head over a block of rows: their logits, or their scores. */
static status record_head(struct layers *l, bool score, int64_t rows, int64_t max_rows, bool *whole, struct err *e)
{
    struct build b = { &l->p, &l->own, { VAL_NONE, VAL_NONE, VAL_NONE, VAL_NONE }, NULL };
    plan_reset(&l->p, rows, rows, max_rows);
    l->p.precise = l->precise;
    l->p.observe = false;
    TRY(record_input(l, &b, rows, &l->out, e));
    TRY(forward_norm(&b, &l->out, e));
    if (score) TRY(forward_score(&b, &l->out, whole, e));
    else TRY(forward_logits(&b, &l->out, e));
    plan_keep(&l->p, l->out);
    TRY(plan_finish(&l->p, e));
    return mem_room_for(&l->scratch, l->p.bytes, e);
}

/* Rows index[0 .. n) of x as f32, one behind the other, as the plan's input. */
static status gather(struct layers *l, const void *x, const int64_t *index, int64_t n, struct err *e)
{
    int64_t n_embd = l->m->hp.n_embd;
    TRY(mem_room_for(&l->rows, (size_t)(l->n_batch * n_embd) * sizeof(float), e));
    float *to = (float *)(void *)l->rows.p;
    for (int64_t i = 0; i < n; i++) l->k.to_f32(l->state, state_row(l, x, index[i]), to + i * n_embd, n_embd);
    plan_bind(&l->p, l->in, to);
    return OK;
}

/* Rows of one pass of a window that are scored, SCORE_ROWS at a time as an engine does. x, target, nll: of the window. */
static status score_pass(struct layers *l, const struct pass *p, const void *x, const int32_t *target, double *nll, struct err *e)
{
    int64_t index[SCORE_ROWS], max_rows = min_i64(SCORE_ROWS, l->n_batch), n = 0;
    int32_t wanted[SCORE_ROWS];
    bool whole;
    for (int64_t i = p->at; i < p->at + p->rows; i++) {
        if (target[i] >= 0) wanted[n] = target[i], index[n++] = i;
        if (n == 0 || (n < max_rows && i + 1 < p->at + p->rows)) continue;
        TRY(record_head(l, true, n, max_rows, &whole, e));
        TRY(gather(l, x, index, n, e));
        struct batch b = { .n_rows = n, .n_out = n, .target = wanted };
        run_plan(l, &b, NULL, 0);
        const double *y = (const double *)(const void *)(l->scratch.p + l->p.val[l->out].offset);
        for (int64_t j = 0; j < n; j++) nll[index[j]] = y[j];
        n = 0;
    }
    return OK;
}

/* A head with more than a product: by its logits. */
struct by_logits {
    const struct kernels *k;
    int64_t n_vocab;
    const int32_t *target;
    double *nll;
};

static void score_row(void *ctx, int seg, int64_t row, const float *y)
{
    const struct by_logits *s = ctx;
    if (s->target[row] < 0) return;
    float max = s->k->max(y, s->n_vocab, NULL);
    s->nll[row] = (double)max + log(s->k->exp_sum(NULL, y, max, s->n_vocab)) - (double)y[s->target[row]];
}

static status score_window(struct layers *l, int64_t w, bool whole, const void *x, const int32_t *target, double *nll, struct err *e)
{
    int64_t len = window_len(l, w), from = 0;
    while (from < len && target[from] < 0) nll[from++] = 0;
    for (int64_t i = from; i < len; i++) nll[i] = 0;
    struct by_logits s = { &l->k, l->m->hp.n_vocab, target, nll };
    if (!whole) return layers_logits(l, w, x, from, score_row, &s, e);
    for (int64_t at = 0; at < len;) {
        struct pass p = next_pass(l, w, at, w + 1);
        TRY(score_pass(l, &p, x, target, nll, e));
        at += p.rows;
    }
    return OK;
}

status layers_score(struct layers *l, int64_t first, int64_t n, const void *x, const int32_t *target, double *nll, struct err *e)
{
    bool whole;
    TRY(check_windows(l, first, n, e));
    int64_t rows = l->row[first + n] - l->row[first];
    for (int64_t i = 0; i < rows; i++)
        if (target[i] >= l->m->hp.n_vocab)
            return err_set(e, ERR_USAGE, "target %lld is token %d, expected up to %lld", (long long)i, target[i], (long long)l->m->hp.n_vocab - 1);
    TRY(record_head(l, true, 1, 1, &whole, e));
    for (int64_t w = first; w < first + n; w++) {
        int64_t i = l->row[w] - l->row[first];
        TRY(score_window(l, w, whole, state_row(l, x, i), target + i, nll + i, e));
    }
    return OK;
}

/* Rows from .. of one pass of a window, head_rows at a time. */
static status logits_pass(struct layers *l, const struct pass *p, const void *x, int64_t from, logits_fn fn, void *ctx, struct err *e)
{
    int32_t *seg = l->emit, *row = seg + l->n_batch;
    int64_t end = p->at + p->rows, n;
    for (int64_t i = max_i64(from, p->at); i < end; i += n) {
        n = min_i64(l->head_rows, end - i);
        TRY(record_head(l, false, n, l->head_rows, NULL, e));
        TRY(bind_input(l, x, i, n, e));
        struct batch b = { .n_rows = n, .n_out = n };
        run_plan(l, &b, NULL, 0);
        for (int64_t j = 0; j < n; j++) row[j] = (int32_t)(i + j);
        struct emit out = { fn, ctx, (const float *)(const void *)(l->scratch.p + l->p.val[l->out].offset), seg, row, n, l->m->hp.n_vocab };
        forward_emit(l->pool, &out);
    }
    return OK;
}

status layers_logits(struct layers *l, int64_t window, const void *x, int64_t from, logits_fn fn, void *ctx, struct err *e)
{
    TRY(check_windows(l, window, 1, e));
    for (int64_t at = 0; at < window_len(l, window);) {
        struct pass p = next_pass(l, window, at, window + 1);
        TRY(logits_pass(l, &p, x, from, fn, ctx, e));
        at += p.rows;
    }
    return OK;
}

/* trainer - see trainer.h. Each part of the model has a plan of its own: its equations, and behind plan.split the ops that carry gradients back. A forward
 * pass runs the first halves, a backward pass the second, which find what they need in the part's held block; a layer without a block of its own is
 * run whole once more. */
#include "src/trainer.h"
#include "ggml-like/file.h"
#include "ggml-like/grad.h"
#include "ggml-like/kernels/kernels.h"
#include "src/forward.h"
#include "src/state.h"
#include <math.h>
#include <string.h>

enum { RANK_DEFAULT = 16, RANK_MOST = 4096 };

/* A part of the model, recorded for passes of one shape. */
struct part {
    struct plan plan;
    val x, y, dx, dy;  /* input and result, and their gradients */
    bool own_block;    /* its held block is kept between the passes */
    size_t block;      /* then: where it begins in trainer.kept */
};

struct shape { int64_t rows, n_out; bool whole; /* attention as passes with a way back have it, not as an engine does */ };

struct trainer {
    const struct model *m;
    struct kernels k;
    struct pool *pool;
    struct plan_share *share;
    uint8_t *threads;
    size_t threads_bytes, thread_bytes, memory;
    int64_t n_batch;
    bool full, precise;
    float alpha, dropout;
    int64_t rank;
    uint64_t seed;
    /* what is trained */
    struct train_param *param;
    int64_t n_params, n, most_params;
    float *w, *g;
    int lowest;                /* the first layer with something trained, or with gradients for what lies before it */
    bool trains_embedding;
    struct model own;          /* with full: the model with its weights as they are now */
    struct adapter adapter;    /* else */
    struct lora_set set;
    /* the plans, and the shape that they are for */
    struct part embed, *layer, head, tail; /* tail: of the last block of the head's rows */
    struct shape shape;
    bool recorded, recorded_base, recorded_back;
    int64_t n_kept;
    /* a pass */
    struct mem_room scratch, states;
    struct mem_room kept;      /* blocks of the head, then of the layers that keep theirs: one room, so that passes of other lengths cut it anew */
    struct mem_room held, embed_held; /* the block of the other layers, and the embedding's */
    struct kv_types kv;
    struct layer_state *state; /* [n_batch][n_layer] */
    struct batch_segment *seg; /* [n_batch] */
    int n_seq;
    int32_t *token, *pos, *out, *target, *of; /* [n_batch]; of: sequence of the i-th row that predicts */
    float *counts, *weight;    /* [n_batch] of that row: the sequence's own weight, and what it weighs in the gradient */
    float *x, *dx;             /* [n_layer + 1][n_batch][n_embd] inputs of the layers and of the head; [2][n_batch][n_embd] */
    uint64_t draw;
    bool forward_done;
    int64_t op_ns[OP_KINDS];
};

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

/* ---- what is trained ---- */

/* Number i of a stream: uniform in [0, 1). */
static double uniform(uint64_t stream, uint64_t i) { return (double)(mix64_nth(stream, i + 1) >> 11) * 0x1p-53; }

static double normal(uint64_t stream, uint64_t i) /* Box & Muller 1958 */
{
    return sqrt(-2 * log(1 - uniform(stream, 2 * i))) * cos(2 * 3.14159265358979323846 * uniform(stream, 2 * i + 1));
}

static status add_param(struct trainer *t, const struct train_param *p, struct err *e)
{
    if (t->n_params == t->most_params) {
        int64_t want = max_i64(64, 2 * t->most_params);
        struct train_param *more = mem_realloc(t->param, (size_t)want * sizeof *more);
        if (!more) return err_oom(e, "trained tensors", (size_t)want * sizeof *more);
        t->param = more;
        t->most_params = want;
    }
    t->param[t->n_params] = *p;
    t->param[t->n_params++].offset = t->n;
    size_t n;
    if (!mul_size((size_t)p->ne0, (size_t)p->ne1, &n) || n > (size_t)(INT64_MAX / 8 - t->n)) return err_oom(e, p->base, SIZE_MAX);
    t->n += (int64_t)n;
    return OK;
}

static bool is_vector(const struct weight_row *r) { return r->ne1 == DIM_1 || r->flags & WEIGHT_VECTOR; }

/* Matrices that adapters are for when nobody chooses: those that every row passes. */
static bool usual(const struct weight_row *r, const struct tensor *w)
{
    return w->ne[2] == 1 && r->id != W_ROUTER && r->id != W_SHARED_ROUTER && !(r->id >= W_SSM_IN && r->id <= W_SSM_BETA_ALPHA);
}

static status add_pair(struct trainer *t, const struct weight_row *r, int il, const struct tensor *w, struct err *e)
{
    struct adapter *a = &t->adapter;
    if (w->ne[2] != 1) return err_set(e, ERR_USAGE, "%s: adapters of stacks of experts cannot be trained", w->name);
    struct train_param p = { w->name, TRAIN_A, w->ne[0], t->rank, 0, false };
    TRY(add_param(t, &p, e));
    p = (struct train_param){ w->name, TRAIN_B, t->rank, w->ne[1], 0, false };
    TRY(add_param(t, &p, e));
    a->pair[a->n_pairs] = (struct lora_pair){ .factor = t->alpha / (float)t->rank, .id = r->id, .il = il };
    a->of[adapter_slot(t->m, il, r->id)] = (int32_t)a->n_pairs++;
    if (il < t->lowest) t->lowest = il;
    return OK;
}

static status pick(struct trainer *t, const struct trainer_options *o, struct err *e)
{
    const struct model *m = t->m;
    size_t slots = (size_t)m->hp.n_layer * W_LAYER_COUNT + W_COUNT - W_LAYER_COUNT;
    struct adapter *a = &t->adapter;
    a->m = m;
    a->alpha = t->alpha;
    a->of = mem_alloc(slots * sizeof *a->of);
    a->pair = mem_calloc((size_t)m->hp.n_layer * W_LAYER_COUNT, sizeof *a->pair);
    if (!a->of || !a->pair) return err_oom(e, "adapter", slots * sizeof *a->pair);
    memset(a->of, 0xff, slots * sizeof *a->of);
    t->lowest = (int)m->hp.n_layer;
    for (int il = 0; il < m->hp.n_layer; il++)
        for (const struct weight_row *r = m->arch->weights; r->gguf; r++) {
            const struct tensor *w = r->id < W_LAYER_COUNT && !is_vector(r) ? model_weight(m, il, r->id) : NULL;
            if (w && (o->pick ? o->pick(o->pick_ctx, w->name) : usual(r, w))) TRY(add_pair(t, r, il, w, e));
        }
    if (a->n_pairs == 0) return err_set(e, ERR_USAGE, "no matrix of the layers of architecture %s is picked for an adapter", m->arch->name);
    t->set = (struct lora_set){ .use = { { a, 1 } }, .n = 1 };
    return OK;
}

/* Where the pairs' numbers lie, now that there is memory; A random, B zero, so that at first nothing changes. */
static void begin_adapter(struct trainer *t)
{
    for (int64_t i = 0; i < t->adapter.n_pairs; i++) {
        struct train_param *pa = &t->param[2 * i], *pb = pa + 1;
        struct tensor *a = &t->adapter.pair[i].a, *b = &t->adapter.pair[i].b;
        tensor_shape(a, dtype_by_id(GGUF_F32), pa->ne0, pa->ne1, 1, 1);
        tensor_shape(b, dtype_by_id(GGUF_F32), pb->ne0, pb->ne1, 1, 1);
        a->data = t->w + pa->offset;
        b->data = t->w + pb->offset;
        double bound = 1 / sqrt((double)pa->ne0);
        uint64_t stream = mix64(t->seed + 2 * (uint64_t)i + 1);
        for (int64_t j = 0; j < pa->ne0 * pa->ne1; j++) t->w[pa->offset + j] = (float)(bound * (2 * uniform(stream, (uint64_t)j) - 1));
    }
}

/* ---- training all weights ---- */

static struct tensor *own_slot(struct trainer *t, int64_t il, int i) { return i < W_LAYER_COUNT ? &t->own.layer[il].w[i] : &t->own.w[i - W_LAYER_COUNT]; }

static status add_whole(struct trainer *t, struct tensor *w, const struct weight_row *r, struct err *e)
{
    for (int64_t i = 0; i < t->n_params; i++)
        if (!strcmp(t->param[i].base, w->name)) return OK; /* a tied head */
    if (w->type->group_len != 0)
        return err_set(e, ERR_USAGE, "%s is %s: all weights can be trained in files of floats (F32, F16, BF16) only", w->name, w->type->gguf_name);
    struct train_param p = { w->name, TRAIN_WHOLE, w->ne[0], tensor_rows(w), 0, is_vector(r) };
    return add_param(t, &p, e);
}

/* Of all weights that the architecture has rows for; layers first. */
static status each_whole(struct trainer *t, status (*fn)(struct trainer *t, struct tensor *w, const struct weight_row *r, struct err *e), struct err *e)
{
    for (int64_t il = 0; il <= t->m->hp.n_layer; il++)
        for (const struct weight_row *r = t->m->arch->weights; r->gguf; r++) {
            bool in_layer = r->id < W_LAYER_COUNT;
            if (in_layer != (il < t->m->hp.n_layer) || r->id >= W_ROPE_FREQS) continue;
            struct tensor *w = own_slot(t, il, r->id);
            if (w->type) TRY(fn(t, w, r, e));
        }
    return OK;
}

static status pick_all(struct trainer *t, struct err *e)
{
    t->own = *t->m;
    t->own.layer = mem_alloc((size_t)t->m->hp.n_layer * sizeof *t->own.layer);
    if (!t->own.layer) return err_oom(e, "layers", (size_t)t->m->hp.n_layer * sizeof *t->own.layer);
    memcpy(t->own.layer, t->m->layer, (size_t)t->m->hp.n_layer * sizeof *t->own.layer);
    t->trains_embedding = true;
    return each_whole(t, add_whole, e);
}

static status bind_whole(struct trainer *t, struct tensor *w, const struct weight_row *r, struct err *e)
{
    int64_t i = 0;
    while (strcmp(t->param[i].base, w->name)) i++;
    float *to = t->w + t->param[i].offset;
    for (int64_t j = 0; j < tensor_rows(w); j++) t->k.to_f32(w->type, (const uint8_t *)w->data + (size_t)j * w->nb[1], to + j * w->ne[0], w->ne[0]);
    const void *name = w->name;
    tensor_shape(w, dtype_by_id(GGUF_F32), w->ne[0], w->ne[1], w->ne[2], w->ne[3]);
    w->name = name;
    w->data = to;
    return OK;
}

/* Matrices with a deviation of 0.02 (GPT-2, Radford et al. 2019), norms one, biases zero. */
static void begin_random(struct trainer *t)
{
    for (int64_t i = 0; i < t->n_params; i++) {
        const struct train_param *p = &t->param[i];
        uint64_t stream = mix64(t->seed + (uint64_t)i + 1);
        size_t len = strlen(p->base);
        bool bias = len > 5 && !strcmp(p->base + len - 5, ".bias");
        for (int64_t j = 0; j < p->ne0 * p->ne1; j++)
            t->w[p->offset + j] = p->vector ? (bias ? 0.0f : 1.0f) : (float)(0.02 * normal(stream, (uint64_t)j));
    }
}

/* ---- recording ---- */

static int64_t head_rows(int64_t n_out) { return forward_pass_rows(SCORE_ROWS, n_out); }
static int64_t head_blocks(int64_t n_out) { return (n_out + head_rows(n_out) - 1) / head_rows(n_out); }

static struct build build_of(const struct trainer *t, struct part *p, bool base)
{
    return (struct build){ &p->plan, t->full ? &t->own : t->m, { VAL_NONE, VAL_NONE, VAL_NONE, VAL_NONE }, t->full || base ? NULL : &t->set };
}

static void begin_part(const struct trainer *t, struct part *p, int64_t rows, int64_t n_out)
{
    plan_reset(&p->plan, rows, n_out, rows);
    p->plan.precise = t->precise;
    p->x = p->y = p->dx = p->dy = VAL_NONE;
}

/* The way back, from the gradient of y: of dy_rows rows, 0: of a loss. */
static status end_part(struct trainer *t, struct part *p, bool back, bool wants_dx, int64_t dy_rows, struct err *e)
{
    plan_keep(&p->plan, p->y);
    if (back) {
        struct grad_spec s = { .param = t->w, .grad = t->g, .n_param = t->n, .y = p->y, .dy = VAL_NONE, .x = wants_dx ? p->x : VAL_NONE, .dx = VAL_NONE };
        TRY(plan_reserve(&p->plan, 1, e));
        if (dy_rows > 0) s.dy = p->dy = plan_input(&p->plan, t->m->hp.n_embd, dy_rows);
        TRY(plan_backward(&p->plan, &s, e));
        p->dx = s.dx;
        if (p->dx != VAL_NONE && dy_rows > 0) plan_output(&p->plan, p->dx);
    }
    return plan_finish(&p->plan, e);
}

static status record_embed(struct trainer *t, const struct shape *s, bool back, struct err *e)
{
    struct build b = build_of(t, &t->embed, false);
    begin_part(t, &t->embed, s->rows, s->rows);
    TRY(forward_embed(&b, &t->embed.y, e));
    for (int i = 0; i < ARRAY_LEN(b.side); i++)
        if (b.side[i] != VAL_NONE)
            return err_set(e, ERR_USAGE, "architecture %s: all layers read values made from the tokens, which training does not handle", t->m->arch->name);
    return end_part(t, &t->embed, back && t->trains_embedding, false, s->rows, e);
}

static status record_layer(struct trainer *t, int il, const struct shape *s, bool base, bool back, struct err *e)
{
    struct part *p = &t->layer[il];
    struct build b = build_of(t, p, base);
    begin_part(t, p, s->rows, il + 1 == t->m->hp.n_layer ? s->n_out : s->rows);
    p->plan.dropout = base || !back ? 0 : t->dropout;
    p->plan.draws = (uint32_t)il << 16;
    TRY(plan_reserve(&p->plan, 1, e));
    p->y = p->x = plan_input(&p->plan, t->m->hp.n_embd, s->rows);
    TRY(forward_layer(&b, il, &p->y, e));
    if (s->whole) TRY(op_attn_make_whole(&p->plan, e));
    if (p->y != p->x) plan_output(&p->plan, p->y);
    return end_part(t, p, back && il >= t->lowest, il > t->lowest || t->trains_embedding, p->plan.val[p->y].t.ne[1], e);
}

/* Norm, head and loss of `rows` of the rows behind the last layer. */
static status record_head(struct trainer *t, struct part *p, int64_t rows, bool base, bool back, struct err *e)
{
    bool whole;
    struct build b = build_of(t, p, base);
    begin_part(t, p, rows, rows);
    TRY(plan_reserve(&p->plan, 1, e));
    p->y = p->x = plan_input(&p->plan, t->m->hp.n_embd, rows);
    TRY(forward_norm(&b, &p->y, e));
    TRY(forward_score(&b, &p->y, &whole, e));
    if (!whole) return err_set(e, ERR_USAGE, "architecture %s: its head has a bias, which training does not handle", t->m->arch->name);
    return end_part(t, p, back, true, 0, e);
}

static size_t head_block_bytes(const struct trainer *t) { return max_size(t->head.plan.held_bytes, t->tail.plan.held_bytes); }

/* Blocks of their own for layers from the last on, while `memory` has room; the others share one. */
static status give_blocks(struct trainer *t, const struct shape *s, bool back, struct err *e)
{
    size_t kept = (size_t)head_blocks(s->n_out) * head_block_bytes(t), held = 0;
    size_t scratch = max_size(t->embed.plan.bytes, max_size(t->head.plan.bytes, t->tail.plan.bytes));
    bool room = back;
    t->n_kept = 0;
    for (int il = (int)t->m->hp.n_layer - 1; il >= 0; il--) {
        struct part *p = &t->layer[il];
        size_t n = (p->plan.held_bytes + 63) & ~(size_t)63;
        room = room && il >= t->lowest && kept <= t->memory && n <= t->memory - kept;
        p->own_block = room;
        p->block = kept;
        scratch = max_size(scratch, p->plan.bytes);
        if (room) kept += n, t->n_kept++;
        else held = max_size(held, n);
    }
    TRY(mem_room_for(&t->scratch, scratch, e));
    TRY(mem_room_for(&t->held, held, e));
    TRY(mem_room_for(&t->embed_held, t->embed.plan.held_bytes, e));
    return mem_room_for(&t->kept, kept, e);
}

static status record(struct trainer *t, const struct shape *s, bool base, bool back, struct err *e)
{
    bool same = t->shape.rows == s->rows && t->shape.n_out == s->n_out && t->shape.whole == s->whole;
    if (t->recorded && same && t->recorded_base == base && t->recorded_back == back) return OK;
    t->recorded = false;
    TRY(record_embed(t, s, back, e));
    for (int il = 0; il < t->m->hp.n_layer; il++) TRY(record_layer(t, il, s, base, back, e));
    int64_t rows = head_rows(s->n_out);
    size_t room = t->memory / 4 / (size_t)max_i64(1, head_blocks(s->n_out)); /* saves three times as much time a byte as what layers keep */
    t->head.plan.score_room = t->tail.plan.score_room = room;
    TRY(record_head(t, &t->head, rows, base, back, e));
    TRY(record_head(t, &t->tail, s->n_out - (head_blocks(s->n_out) - 1) * rows, base, back, e));
    TRY(give_blocks(t, s, back, e));
    t->shape = *s;
    t->recorded_base = base;
    t->recorded_back = back;
    t->recorded = true;
    return OK;
}

/* ---- running ---- */

static void run(struct trainer *t, struct part *p, uint8_t *held, const struct batch *b, int32_t first, int32_t end)
{
    struct plan_exec x = {
        .plan = &p->plan,
        .pool = t->pool,
        .batch = b,
        .base = t->scratch.p,
        .held = held,
        .first_op = first,
        .end_op = end,
        .thread_base = t->threads,
        .thread_bytes = t->thread_bytes,
        .share = t->share,
        .op_ns = t->op_ns,
    };
    plan_run(&x);
}

static const void *result(const struct trainer *t, const struct part *p, const uint8_t *held, val v)
{
    const struct value *x = &p->plan.val[v];
    return x->temp ? (x->held ? held : t->scratch.p) + x->offset : x->t.data;
}

static float *rows_at(const struct trainer *t, int64_t il, int64_t row) { return t->x + (il * t->n_batch + row) * t->m->hp.n_embd; }
static size_t rows_bytes(const struct trainer *t, int64_t rows) { return (size_t)(rows * t->m->hp.n_embd) * sizeof(float); }

/* Keys and values of a layer while it runs, in F32; all layers find theirs at one place. */
static status place(struct trainer *t, int il, struct err *e)
{
    for (int put = 0; put < 2; put++) {
        size_t n = 0;
        for (int i = 0; i < t->n_seq; i++)
            TRY(state_place(t->m, il, t->seg[i].n, &t->kv, put ? t->states.p : NULL, &t->state[i * t->m->hp.n_layer + il], &n, e));
        if (!put) TRY(mem_room_for(&t->states, n, e));
    }
    return OK;
}

static struct batch whole_batch(const struct trainer *t)
{
    return (struct batch){ .n_rows = t->shape.rows, .n_out = t->shape.n_out, .token = t->token, .pos = t->pos, .out = t->out, .target = t->target,
                           .weight = t->weight, .seg = t->seg, .n_seg = t->n_seq, .draw = t->draw };
}

/* A block of the head's rows. */
struct block {
    struct part *part;
    int64_t first, rows;
    uint8_t *held;
    struct batch batch;
};

static struct block head_block(struct trainer *t, int64_t i)
{
    int64_t n = t->shape.n_out, rows = head_rows(n), first = i * rows;
    struct block h = { .part = i + 1 == head_blocks(n) ? &t->tail : &t->head, .first = first, .rows = min_i64(rows, n - first) };
    h.held = t->kept.p + (size_t)i * head_block_bytes(t);
    h.batch = (struct batch){ .n_rows = h.rows, .n_out = h.rows, .target = t->target + first, .weight = t->weight + first };
    plan_bind(&h.part->plan, h.part->x, rows_at(t, t->m->hp.n_layer, first));
    return h;
}

static uint8_t *block_of(const struct trainer *t, const struct part *p) { return p->own_block ? t->kept.p + p->block : t->held.p; }

static void score(struct trainer *t, double *nll)
{
    for (int64_t i = 0; i < head_blocks(t->shape.n_out); i++) {
        struct block h = head_block(t, i);
        run(t, h.part, h.held, &h.batch, 0, h.part->plan.split);
        const double *y = result(t, h.part, h.held, h.part->y);
        for (int64_t j = 0; j < h.rows; j++)
            if (t->counts[h.first + j] != 0) nll[t->of[h.first + j]] += (double)t->counts[h.first + j] * y[j];
    }
}

static status forward(struct trainer *t, const struct shape *s, bool base, bool back, double *nll, struct err *e)
{
    t->forward_done = false;
    TRY(record(t, s, base, back, e));
    struct batch b = whole_batch(t);
    run(t, &t->embed, t->embed_held.p, &b, 0, t->embed.plan.split);
    memcpy(rows_at(t, 0, 0), result(t, &t->embed, t->embed_held.p, t->embed.y), rows_bytes(t, s->rows));
    for (int il = 0; il < t->m->hp.n_layer; il++) {
        struct part *p = &t->layer[il];
        uint8_t *held = block_of(t, p);
        TRY(place(t, il, e));
        plan_bind(&p->plan, p->x, rows_at(t, il, 0));
        if (p->y != p->x) plan_bind(&p->plan, p->y, rows_at(t, il + 1, 0));
        run(t, p, held, &b, 0, p->plan.split);
        if (p->y == p->x) memcpy(rows_at(t, il + 1, 0), rows_at(t, il, 0), rows_bytes(t, t->shape.rows));
    }
    score(t, nll);
    t->forward_done = back;
    return OK;
}

/* From the loss to the lowest layer; dx holds the gradient of what the part at hand gave. */
static status backward(struct trainer *t, struct err *e)
{
    struct batch b = whole_batch(t);
    float *dx = t->dx, *next = dx + t->n_batch * t->m->hp.n_embd;
    for (int64_t i = 0; i < head_blocks(t->shape.n_out); i++) {
        struct block h = head_block(t, i);
        run(t, h.part, h.held, &h.batch, h.part->plan.split, 0);
        memcpy(dx + h.first * t->m->hp.n_embd, result(t, h.part, h.held, h.part->dx), rows_bytes(t, h.rows));
    }
    for (int il = (int)t->m->hp.n_layer - 1; il >= t->lowest; il--) {
        struct part *p = &t->layer[il];
        uint8_t *held = block_of(t, p);
        plan_bind(&p->plan, p->dy, dx);
        if (p->dx != VAL_NONE) plan_bind(&p->plan, p->dx, next);
        TRY(place(t, il, e));
        run(t, p, held, &b, p->own_block ? p->plan.split : 0, 0);
        float *was = dx;
        dx = next, next = was;
    }
    if (!t->trains_embedding) return OK;
    plan_bind(&t->embed.plan, t->embed.dy, dx);
    run(t, &t->embed, t->embed_held.p, &b, t->embed.plan.split, 0);
    return OK;
}

/* ---- a pass ---- */

static status check_sequences(const struct trainer *t, const struct train_seq *seq, int n, struct shape *s, struct err *e)
{
    *s = (struct shape){ 0 };
    for (int i = 0; i < n; i++) {
        if (seq[i].n < 1 || seq[i].n > t->n_batch - s->rows)
            return err_set(e, ERR_USAGE, "sequence %d has %lld tokens, expected 1 to %lld: a pass has %lld rows", i, (long long)seq[i].n,
                           (long long)(t->n_batch - s->rows), (long long)t->n_batch);
        s->rows += seq[i].n;
        for (int64_t j = 0; j < seq[i].n; j++)
            if (seq[i].token[j] < 0 || seq[i].token[j] >= t->m->hp.n_vocab)
                return err_set(e, ERR_USAGE, "token id %d, expected 0 to %lld", seq[i].token[j], (long long)t->m->hp.n_vocab - 1);
    }
    return s->rows >= 2 ? OK : err_set(e, ERR_USAGE, "%lld tokens in a pass, expected 2 or more", (long long)s->rows);
}

/* Rows that predict a token with a weight. At least two rows go to the head, since single rows are multiplied otherwise: the others have no weight. */
static void gather(struct trainer *t, const struct train_seq *seq, int n, struct shape *s)
{
    int64_t row = 0;
    t->n_seq = n;
    for (int i = 0; i < n; i++) {
        t->seg[i] = (struct batch_segment){ row, seq[i].n, 0, t->state + i * t->m->hp.n_layer };
        for (int64_t j = 0; j < seq[i].n; j++, row++) {
            t->token[row] = seq[i].token[j];
            t->pos[row] = (int32_t)j;
            if (j + 1 == seq[i].n || seq[i].weight[j + 1] == 0) continue;
            t->out[s->n_out] = (int32_t)row;
            t->target[s->n_out] = seq[i].token[j + 1];
            t->of[s->n_out] = i;
            t->counts[s->n_out++] = seq[i].weight[j + 1];
        }
    }
    for (int64_t i = 0; s->n_out < 2; i++) { /* in front of or behind the row there is, to stay in rising order */
        bool before = s->n_out == 1 && t->out[0] > 0;
        if (before) t->out[1] = t->out[0], t->target[1] = t->target[0], t->of[1] = t->of[0], t->counts[1] = t->counts[0];
        int64_t at = before ? 0 : s->n_out;
        t->out[at] = before ? t->out[1] - 1 : (int32_t)s->n_out;
        t->target[at] = t->of[at] = 0;
        t->counts[at] = 0;
        s->n_out++;
    }
}

static status pass(struct trainer *t, const struct train_seq *seq, int n, bool base, bool back, bool whole, double *nll, struct err *e)
{
    struct shape s;
    TRY(check_sequences(t, seq, n, &s, e));
    s.whole = whole;
    gather(t, seq, n, &s);
    for (int i = 0; i < n; i++) nll[i] = 0;
    return forward(t, &s, base, back, nll, e);
}

status trainer_forward(struct trainer *t, const struct train_seq *seq, int n, uint64_t step, double *nll, struct err *e)
{
    t->draw = t->dropout > 0 ? mix64(t->seed ^ mix64(step + 1)) | 1 : 0;
    return pass(t, seq, n, false, true, true, nll, e);
}

status trainer_score(struct trainer *t, const struct train_seq *seq, int n, bool base, double *nll, struct err *e)
{
    t->draw = 0;
    return pass(t, seq, n, base && !t->full, false, false, nll, e);
}

status trainer_refer(struct trainer *t, const struct train_seq *seq, int n, double *nll, struct err *e)
{
    t->draw = 0;
    return pass(t, seq, n, !t->full, false, true, nll, e);
}

status trainer_backward(struct trainer *t, const double *factor, struct err *e)
{
    if (!t->forward_done) return err_set(e, ERR_USAGE, "trainer_backward without trainer_forward");
    for (int64_t i = 0; i < t->shape.n_out; i++) t->weight[i] = (float)(factor[t->of[i]] * (double)t->counts[i]);
    t->forward_done = false;
    return backward(t, e);
}

/* ---- open, close ---- */

static status check_model(const struct model *m, struct err *e)
{
    for (int64_t il = 0; il < m->hp.n_layer; il++)
        if (m->layer[il].hp.kind & LAYER_ATTENTION && m->layer[il].hp.il_kv != il)
            return err_set(e, ERR_USAGE, "architecture %s: layer %lld reads the keys and values of layer %lld, which training does not handle", m->arch->name,
                           (long long)il, (long long)m->layer[il].hp.il_kv);
    return OK;
}

static status check_options(const struct trainer_options *o, struct err *e)
{
    if (o->n_batch != 0 && (o->n_batch < 2 || o->n_batch > 65536)) return err_set(e, ERR_USAGE, "batch is %lld, expected 2 to 65536", (long long)o->n_batch);
    if (o->rank < 0 || o->rank > RANK_MOST) return err_set(e, ERR_USAGE, "rank is %lld, expected 1 to %d", (long long)o->rank, RANK_MOST);
    if (!isfinite(o->alpha) || o->alpha < 0) return err_set(e, ERR_USAGE, "alpha is %g, expected a positive number", (double)o->alpha);
    if (!(o->dropout >= 0 && o->dropout < 1)) return err_set(e, ERR_USAGE, "dropout is %g, expected 0 or more and less than 1", (double)o->dropout);
    return OK;
}

static status open_buffers(struct trainer *t, struct err *e)
{
    size_t rows = (size_t)t->n_batch, layers = (size_t)t->m->hp.n_layer, n = (size_t)pool_threads(t->pool);
    struct { void **p; size_t n; } lists[] = {
        { (void **)&t->state, rows * layers * sizeof *t->state }, { (void **)&t->seg, rows * sizeof *t->seg },
        { (void **)&t->token, rows * sizeof *t->token },          { (void **)&t->pos, rows * sizeof *t->pos },
        { (void **)&t->out, rows * sizeof *t->out },              { (void **)&t->target, rows * sizeof *t->target },
        { (void **)&t->of, rows * sizeof *t->of },                { (void **)&t->counts, rows * sizeof *t->counts },
        { (void **)&t->weight, rows * sizeof *t->weight },        { (void **)&t->layer, layers * sizeof *t->layer },
        { (void **)&t->share, n * sizeof *t->share },
    };
    for (int i = 0; i < ARRAY_LEN(lists); i++)
        if (!(*lists[i].p = mem_calloc(1, lists[i].n))) return err_oom(e, "trainer", lists[i].n);
    for (size_t il = 0; il < layers; il++) plan_init(&t->layer[il].plan, &t->k);
    t->thread_bytes = forward_grad_bytes(t->m);
    t->threads_bytes = n * t->thread_bytes;
    t->threads = mem_map_dense(t->threads_bytes);
    t->x = mem_map_dense(rows_bytes(t, t->n_batch) * (layers + 1));
    t->dx = mem_map_dense(2 * rows_bytes(t, t->n_batch));
    t->w = mem_map_dense((size_t)t->n * sizeof *t->w);
    t->g = mem_map_dense((size_t)t->n * sizeof *t->g);
    if (t->threads && t->x && t->dx && t->w && t->g) return OK;
    return err_oom(e, "trainer", 2 * (size_t)t->n * sizeof *t->w + rows_bytes(t, t->n_batch) * (layers + 3));
}

static status open_all(struct trainer *t, const struct trainer_options *o, struct err *e)
{
    TRY(forward_machine(&t->k, NULL, &t->pool, o->n_threads, o->isa, e));
    plan_init(&t->embed.plan, &t->k);
    plan_init(&t->head.plan, &t->k);
    plan_init(&t->tail.plan, &t->k);
    TRY(check_model(t->m, e));
    TRY(kv_types_choose(&t->kv, dtype_by_id(GGUF_F32), NULL, NULL, e));
    TRY(t->full ? pick_all(t, e) : pick(t, o, e));
    TRY(open_buffers(t, e));
    if (t->full) TRY(each_whole(t, bind_whole, e));
    else begin_adapter(t);
    if (t->full && o->from_scratch) begin_random(t);
    return record(t, &(struct shape){ t->n_batch, t->n_batch, true }, false, true, e); /* what cannot be trained is told now */
}

status trainer_open(struct trainer **out, const struct model *m, const struct trainer_options *o, struct err *e)
{
    *out = NULL;
    TRY(check_options(o, e));
    struct trainer *t = mem_calloc(1, sizeof *t);
    if (!t) return err_oom(e, "trainer", sizeof *t);
    t->m = m;
    t->n_batch = o->n_batch ? o->n_batch : BATCH_DEFAULT;
    t->memory = o->memory;
    t->full = o->full;
    t->precise = o->precise;
    t->seed = o->seed;
    t->dropout = o->full ? 0 : o->dropout;
    t->rank = o->rank ? o->rank : RANK_DEFAULT;
    t->alpha = o->alpha > 0 ? o->alpha : 2 * (float)t->rank;
    if (o->rslora) t->alpha *= sqrtf((float)t->rank);
    status st = open_all(t, o, e);
    if (st != OK) {
        trainer_close(t);
        return st;
    }
    *out = t;
    return OK;
}

void trainer_close(struct trainer *t)
{
    if (!t) return;
    size_t layers = (size_t)t->m->hp.n_layer;
    pool_close(t->pool);
    for (size_t il = 0; t->layer && il < layers; il++) plan_free(&t->layer[il].plan);
    plan_free(&t->embed.plan);
    plan_free(&t->head.plan);
    plan_free(&t->tail.plan);
    struct mem_room *const rooms[] = { &t->scratch, &t->states, &t->kept, &t->held, &t->embed_held };
    for (int i = 0; i < ARRAY_LEN(rooms); i++) mem_room_drop(rooms[i]);
    if (t->threads) mem_unmap(t->threads, t->threads_bytes);
    if (t->x) mem_unmap(t->x, rows_bytes(t, t->n_batch) * (layers + 1));
    if (t->dx) mem_unmap(t->dx, 2 * rows_bytes(t, t->n_batch));
    if (t->w) mem_unmap(t->w, (size_t)t->n * sizeof *t->w);
    if (t->g) mem_unmap(t->g, (size_t)t->n * sizeof *t->g);
    void *const owned[] = { t->state, t->seg, t->token, t->pos, t->out, t->target, t->of, t->counts, t->weight, t->layer, t->share,
                            t->param, t->own.layer, t->adapter.of, t->adapter.pair };
    for (int i = 0; i < ARRAY_LEN(owned); i++) mem_free(owned[i]);
    mem_free(t);
}

struct train_param_list trainer_params(const struct trainer *t) { return (struct train_param_list){ t->param, t->n_params }; }
int64_t trainer_n(const struct trainer *t) { return t->n; }
float *trainer_weights(struct trainer *t) { return t->w; }
float *trainer_gradients(struct trainer *t) { return t->g; }
struct pool *trainer_pool(struct trainer *t) { return t->pool; }
const struct kernels *trainer_kernels(const struct trainer *t) { return &t->k; }
const struct adapter *trainer_adapter(const struct trainer *t) { return t->full ? NULL : &t->adapter; }
float trainer_alpha(const struct trainer *t) { return t->alpha; }
int64_t trainer_rank(const struct trainer *t) { return t->rank; }
bool trainer_op_time(const struct trainer *t, int i, const char **name, int64_t *ns)
{
    if (i < 0 || i >= OP_KINDS) return false;
    *name = op_name((enum op_kind)i);
    *ns = t->op_ns[i];
    return true;
}

int64_t trainer_kept(const struct trainer *t) { return t->n_kept; }

size_t trainer_bytes(const struct trainer *t)
{
    size_t layers = (size_t)t->m->hp.n_layer, rows = (size_t)t->n_batch;
    size_t n = t->threads_bytes + rows_bytes(t, t->n_batch) * (layers + 3) + 2 * (size_t)t->n * sizeof *t->w;
    return n + t->scratch.n + t->states.n + t->kept.n + t->held.n + t->embed_held.n + rows * layers * sizeof *t->state;
}

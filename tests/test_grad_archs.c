/* test_grad_archs - a small model of every architecture, layer by layer forwards and then backwards: the gradient of the loss by each weight and by what comes
 * out of the embedding, against differences along it. Architectures that have no backward are listed with the op that is in the way. */
#include "ggml-like/grad.h"
#include "ggml-like/kernels/kernels.h"
#include "src/forward.h"
#include "src/state.h"
#include "tests/test.h"
#include "tests/tiny.h"

enum { ROWS = 7, N_SEG = 2, MAX_LAYERS = 4, PARTS = MAX_LAYERS + 2, CTX = 8 };
static const int32_t tokens[ROWS] = { 17, 200, 4, 100, 17, 66, 31 }, places[ROWS] = { 0, 1, 2, 3, 0, 1, 2 }, targets[ROWS] = { 200, 4, 100, 9, 66, 31, 250 };
static const float weights[ROWS] = { 1, 0.5f, 0, 2, 1, -0.5f, 1 };

/* One part of the model: embedding, layers, head; each with its own plan, input, result and what it holds. */
struct part {
    struct plan p;
    struct grad_spec s;
    val x, y;
    float *in, *out, *dy, *dx;
    uint8_t *held;
};

struct chain {
    struct model *m;
    struct kernels k;
    struct pool *pool;
    struct plan_share share[1];
    struct part part[PARTS]; /* 0: the embedding; n_layer + 1: the head */
    int n_layer;
    int64_t n_embd, n_vocab;
    float *param, *grad, *frozen;
    int64_t n_param;
    struct layer_state state[N_SEG][MAX_LAYERS];
    uint8_t *states, *base, *scratch;
    struct batch_segment seg[N_SEG];
    struct batch batch;
};

/* ---- weights in one array ---- */

/* Left out of training: nothing has their gradient. */
static bool is_frozen(int id) { return id == W_SINKS || id == W_CHOICE_BIAS; }

static void move_weights(struct chain *c, struct tensor *w, int first, int n, int64_t *at, bool place)
{
    for (int i = 0; i < n; i++) {
        if (!w[i].type || first + i >= W_ROPE_FREQS || is_frozen(first + i)) continue;
        int64_t k = tensor_elements(&w[i]);
        if (place && !(first + i == W_OUTPUT && w[i].data == c->m->w[W_EMBD - W_LAYER_COUNT].data)) {
            memcpy(c->param + *at, w[i].data, (size_t)k * sizeof(float));
            w[i].data = c->param + *at;
        }
        *at += (k + 15) / 16 * 16;
    }
}

static void move_all(struct chain *c)
{
    struct model *m = c->m;
    for (int place = 0; place < 2; place++) {
        int64_t n = 0;
        if (place) c->param = aligned_alloc(64, (size_t)c->n_param * sizeof(float)), memset(c->param, 0, (size_t)c->n_param * sizeof(float));
        for (int64_t il = 0; il < c->n_layer; il++) move_weights(c, m->layer[il].w, 0, W_LAYER_COUNT, &n, place);
        move_weights(c, m->w, W_LAYER_COUNT, W_COUNT - W_LAYER_COUNT, &n, place);
        c->n_param = n;
    }
    c->grad = calloc((size_t)c->n_param, sizeof(float));
}

/* ---- recording ---- */

static status record_part(struct chain *c, int i, bool full, struct err *e)
{
    struct part *q = &c->part[i];
    struct plan *p = &q->p;
    struct build b = { p, c->m, { VAL_NONE, VAL_NONE, VAL_NONE, VAL_NONE }, NULL };
    bool embed = i == 0, head = i == c->n_layer + 1;
    plan_reset(p, ROWS, ROWS, ROWS);
    p->precise = true;
    val x = VAL_NONE;
    if (embed || (!head && c->m->arch->embed)) TRY(forward_embed(&b, &x, e));
    q->x = VAL_NONE;
    if (!embed) {
        TRY(plan_reserve(p, 2, e));
        x = q->x = plan_input(p, c->n_embd, ROWS);
    }
    if (head) {
        TRY(forward_norm(&b, &x, e));
        TRY(forward_logits(&b, &x, e));
    } else if (!embed) {
        TRY(forward_layer(&b, i - 1, &x, e));
    }
    q->y = x;
    plan_keep(p, x);
    plan_prune(p);
    TRY(plan_reserve(p, 1, e));
    q->s = (struct grad_spec){ .param = c->param, .grad = c->grad, .n_param = full ? c->n_param : 0, .y = x, .x = q->x };
    q->s.dy = plan_input(p, p->val[x].t.ne[0], ROWS);
    TRY(plan_backward(p, &q->s, e));
    return plan_finish(p, e);
}

static void close_parts(struct chain *c)
{
    for (int i = 0; i < PARTS; i++) {
        struct part *q = &c->part[i];
        float *const owned[] = { q->in, q->out, q->dy, (float *)(void *)q->held };
        for (size_t j = 0; j < ARRAY_LEN(owned); j++) free(owned[j]);
        struct plan p = q->p;
        *q = (struct part){ .p = p };
    }
    free(c->base);
    c->base = NULL;
}

/* All parts; the first error. */
static status record_all(struct chain *c, bool full, struct err *e)
{
    size_t bytes = 64;
    close_parts(c);
    for (int i = 0; i < c->n_layer + 2; i++) {
        struct part *q = &c->part[i];
        TRY(record_part(c, i, full, e));
        if (q->p.bytes > bytes) bytes = q->p.bytes;
        q->held = aligned_alloc(64, q->p.held_bytes + 64);
        int64_t n_y = q->p.val[q->y].t.ne[0];
        q->in = calloc((size_t)(ROWS * c->n_embd), sizeof(float));
        q->out = calloc((size_t)(ROWS * n_y), sizeof(float));
        q->dy = calloc((size_t)(ROWS * n_y), sizeof(float));
        if (q->x != VAL_NONE) plan_bind(&q->p, q->x, q->in);
        plan_bind(&q->p, q->s.dy, q->dy);
    }
    c->base = aligned_alloc(64, bytes);
    return OK;
}

/* ---- running ---- */

static struct plan_exec exec_of(struct chain *c, struct part *q)
{
    return (struct plan_exec){ .plan = &q->p, .pool = c->pool, .batch = &c->batch, .base = c->base, .held = q->held, .thread_base = c->scratch,
                               .thread_bytes = plan_grad_bytes(128), .share = c->share };
}

static void run_part(struct chain *c, int i, bool back)
{
    struct part *q = &c->part[i];
    struct plan_exec x = exec_of(c, q);
    if (back) x.first_op = q->p.split;
    else x.end_op = q->p.split;
    plan_run(&x);
    val v = back ? q->s.dx : q->y;
    if (v != VAL_NONE) memcpy(back ? c->part[i - 1].dy : q->out, plan_data(&x, v), (size_t)tensor_elements(&q->p.val[v].t) * sizeof(float));
}

/* sum weight nll; the gradient by the logits goes to the head's dy. `from`: the first part that runs, whose input is there. */
static double loss_from(struct chain *c, int from)
{
    for (int i = from; i < c->n_layer + 2; i++) {
        run_part(c, i, false);
        if (i <= c->n_layer) memcpy(c->part[i + 1].in, c->part[i].out, (size_t)(ROWS * c->n_embd) * sizeof(float));
    }
    struct part *head = &c->part[c->n_layer + 1];
    double loss = 0;
    for (int64_t t = 0; t < ROWS; t++) {
        const float *y = head->out + t * c->n_vocab;
        double top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < c->n_vocab; j++)
            if ((double)y[j] > top) top = (double)y[j];
        for (int64_t j = 0; j < c->n_vocab; j++) sum += exp((double)y[j] - top);
        loss += (double)weights[t] * (top + log(sum) - (double)y[targets[t]]);
        for (int64_t j = 0; j < c->n_vocab; j++)
            head->dy[t * c->n_vocab + j] = (float)((double)weights[t] * (exp((double)y[j] - top) / sum - (j == targets[t])));
    }
    return loss;
}

static void backwards(struct chain *c)
{
    memset(c->grad, 0, (size_t)c->n_param * sizeof(float));
    for (int i = c->n_layer + 1; i >= 0; i--)
        if (i > 0 || c->part[0].p.n_op > c->part[0].p.split) run_part(c, i, true);
}

/* ---- differences ---- */

static double slope(struct chain *c, float *x, const float *was, const float *g, int64_t n, double size, int from, double h)
{
    const double step[4] = { h, -h, 2 * h, -2 * h }, factor[4] = { 8, -8, -1, 1 };
    double sum = 0;
    for (int k = 0; k < 4; k++) {
        for (int64_t i = 0; i < n; i++) x[i] = (float)((double)was[i] + step[k] * (double)g[i] / size);
        sum += factor[k] * loss_from(c, from);
    }
    memcpy(x, was, (size_t)n * sizeof(float));
    return sum / (12 * h);
}

/* The slope of the loss along g, over n floats at x, is the length of g. Where a step leads to another choice of experts, a shorter one does not. */
static void along(struct chain *c, const char *arch, const char *what, float *x, const float *g, int64_t n, double whole, int from)
{
    double size = 0, got = 0, h = 0.02;
    for (int64_t i = 0; i < n; i++) size += (double)g[i] * (double)g[i];
    size = sqrt(size);
    CHECK_MSG(isfinite(size), "%s: gradient of %s is not finite", arch, what);
    if (size < 1e-3 * whole) return; /* below what differences of floats show */
    float *was = malloc((size_t)n * sizeof(float));
    memcpy(was, x, (size_t)n * sizeof(float));
    bool near = false;
    for (int i = 0; i < 4 && !near; i++, h /= 4) {
        got = slope(c, x, was, g, n, size, from, h / fmax(1, size));
        near = fabs(got - size) <= 1e-3 * size + 1e-4 * whole;
    }
    free(was);
    CHECK_MSG(near, "%s: %s: slope %g, gradient %g (of %g in all)", arch, what, got, size, whole);
}

static void check_slopes(struct chain *c, const char *arch, bool full)
{
    double whole = 0;
    loss_from(c, 0);
    backwards(c);
    int64_t n = ROWS * c->n_embd;
    for (int64_t i = 0; i < n; i++) whole += (double)c->part[0].dy[i] * (double)c->part[0].dy[i];
    for (int64_t i = 0; full && i < c->n_param; i++) whole += (double)c->grad[i] * (double)c->grad[i];
    whole = sqrt(whole);
    CHECK_MSG(whole > 1e-3, "%s: gradient is %g", arch, whole);
    float *dx = malloc((size_t)n * sizeof(float)), *grad = malloc((size_t)c->n_param * sizeof(float));
    memcpy(dx, c->part[0].dy, (size_t)n * sizeof(float));
    memcpy(grad, c->grad, (size_t)c->n_param * sizeof(float));
    along(c, arch, "embedded rows", c->part[1].in, dx, n, whole, 1);
    for (int64_t il = -1; full && il < c->n_layer; il++)
        for (int i = 0; i < (il < 0 ? W_COUNT - W_LAYER_COUNT : W_LAYER_COUNT); i++) {
            const struct tensor *w = il < 0 ? &c->m->w[i] : &c->m->layer[il].w[i];
            int64_t at = (const float *)w->data - c->param;
            bool in = w->type && (uintptr_t)w->data >= (uintptr_t)c->param && (uintptr_t)w->data < (uintptr_t)(c->param + c->n_param);
            if (in) along(c, arch, w->name, w->data, grad + at, tensor_elements(w), whole, 0);
        }
    free(dx);
    free(grad);
}

/* ---- architectures ---- */

static status open_chain(struct chain *c, const char *arch, void (*more)(struct gguf_writer *w, void *ctx), struct err *e)
{
    *c = (struct chain){ 0 };
    const char *path = test_tmp("grad_arch.gguf");
    struct tiny_options o = { .arch = arch, .n_layer = MAX_LAYERS, .n_expert = 0, .head_dim = 16, .optional = true, .more = more };
    TRY(tiny_model(path, &o, e));
    TRY(model_open(&c->m, path, &(struct model_options){ 0 }, e));
    TRY(forward_machine(&c->k, NULL, &c->pool, 1, NULL, e));
    c->n_layer = (int)c->m->hp.n_layer;
    c->n_embd = c->m->hp.n_embd;
    c->n_vocab = c->m->hp.n_vocab;
    CHECK(c->n_layer <= MAX_LAYERS);
    for (int i = 0; i < PARTS; i++) plan_init(&c->part[i].p, &c->k);
    move_all(c);
    const struct kv_types kv = { dtype_by_id(GGUF_F32), dtype_by_id(GGUF_F32) };
    for (int place = 0; place < 2; place++) {
        size_t n = 0;
        for (int s = 0; s < N_SEG; s++)
            for (int64_t il = 0; il < c->n_layer; il++) TRY(state_place(c->m, il, CTX, &kv, c->states, &c->state[s][il], &n, e));
        if (!place) c->states = aligned_alloc(64, n + 64);
    }
    for (int s = 0; s < N_SEG; s++) c->seg[s] = (struct batch_segment){ s ? 4 : 0, s ? 3 : 4, 0, c->state[s] };
    c->batch = (struct batch){ .n_rows = ROWS, .n_out = ROWS, .token = tokens, .pos = places, .seg = c->seg, .n_seg = N_SEG };
    c->scratch = aligned_alloc(64, plan_grad_bytes(128));
    return OK;
}

static void close_chain(struct chain *c)
{
    close_parts(c);
    for (int i = 0; i < PARTS; i++) plan_free(&c->part[i].p);
    free(c->param);
    free(c->grad);
    free(c->states);
    free(c->scratch);
    pool_close(c->pool);
    model_close(c->m);
}

TEST(every_architecture_backwards)
{
    for (int i = 0; arches[i]; i++) {
        static struct chain c;
        struct err e = { 0 };
        const char *arch = arches[i]->name;
        test_begin("gradients of %s", arch);
        CHECK_MSG(open_chain(&c, arch, NULL, &e) == OK, "%s", e.text);
        for (int full = 0; full < 2; full++) {
            CHECK_MSG(record_all(&c, full, &e) == OK, "%s: %s", arch, e.text);
            if (!e.text[0]) check_slopes(&c, arch, full);
        }
        close_chain(&c);
    }
}

/* What is in the way of a gradient: nothing but layers that read what others keep. */
static void share_caches(struct gguf_writer *w, void *ctx) { gguf_put_i64(w, "gemma4.attention.shared_kv_layers", KV_U32, 2); }

static const struct {
    const char *arch, *why;
    void (*more)(struct gguf_writer *w, void *ctx);
} refused[] = {
    { "gemma4", "op attention has no backward over the keys of an earlier layer", share_caches },
};

TEST(models_without_a_backward_are_refused_by_op)
{
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        static struct chain c;
        struct err e = { 0 };
        CHECK_MSG(open_chain(&c, refused[i].arch, refused[i].more, &e) == OK, "%s", e.text);
        CHECK(record_all(&c, false, &e) == ERR_USAGE);
        CHECK_STR(e.text, refused[i].why);
        close_chain(&c);
    }
}

SUITE(grad_archs, T(every_architecture_backwards), T(models_without_a_backward_are_refused_by_op));

/* quant_measure - see quant_measure.h. */
#include "tools/quant_measure.h"
#include <assert.h>
#include <math.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"

enum { BLOCK = 1024, WEIGHTS_MAX = 64, REF_BYTES = 512 << 20 };

static int64_t scored(const struct meter *m) { return max_i64(0, m->n_ctx - MEASURE_FROM); }

/* ---- logits ---- */

struct row_ctx { struct meter *m; const struct kernels *k; int64_t window; };

static void keep_row(void *ctx, int seg, int64_t row, const float *logits)
{
    const struct row_ctx *c = ctx;
    const struct meter *m = c->m;
    int64_t top;
    if (row < MEASURE_FROM) return;
    uint16_t *to = m->ref + (c->window * scored(m) + row - MEASURE_FROM) * m->n_vocab;
    float max = c->k->max(logits, m->n_vocab, &top);
    for (int64_t i = 0; i < m->n_vocab; i++) to[i] = f32_to_f16(fmaxf(logits[i] - max, -60000.0f));
}

/* sum p (r - q) + ln Z_q - ln Z_r: r the rounded reference, which is a distribution like any other, so rounding costs nothing to first order. */
static void score_row(void *ctx, int seg, int64_t row, const float *logits)
{
    const struct row_ctx *c = ctx;
    const struct meter *m = c->m;
    float r[BLOCK], term[BLOCK];
    double z = 0, sum = 0;
    int64_t top;
    if (row < MEASURE_FROM) return;
    int64_t slot = c->window * scored(m) + row - MEASURE_FROM;
    const struct dtype *f16 = dtype_by_id(GGUF_F16);
    float max = c->k->max(logits, m->n_vocab, &top);
    for (int64_t i = 0; i < m->n_vocab; i += BLOCK) {
        int64_t n = min_i64(BLOCK, m->n_vocab - i);
        c->k->to_f32(f16, m->ref + slot * m->n_vocab + i, r, n);
        z += c->k->exp_sum(term, r, 0, n);
        for (int64_t j = 0; j < n; j++) r[j] -= logits[i + j] - max;
        sum += (double)c->k->dot(term, r, n);
    }
    m->kl[slot] = sum / z + log(c->k->exp_sum(NULL, logits, max, m->n_vocab)) - log(z);
}

static status each_logits(struct meter *m, struct layers *l, const float *x, logits_fn fn, struct err *e)
{
    for (int64_t w = 0; w < m->n_windows; w++) {
        struct row_ctx ctx = { m, layers_kernels(l), w };
        TRY(layers_logits(l, w, x + layers_row(l, w) * m->n_embd, MEASURE_FROM, fn, &ctx, e));
        if (cli_interrupted) return err_set(e, ERR_INTERRUPTED, "interrupted");
    }
    return OK;
}

static status mean_kl(const struct meter *m, double *kl, struct err *e)
{
    double sum = 0;
    int64_t n = m->n_windows * scored(m);
    for (int64_t i = 0; i < n; i++) sum += m->kl[i];
    *kl = sum / (double)n;
    if (isfinite(*kl)) return OK;
    return err_set(e, ERR_RUNTIME, "the model's logits are not finite: the weights may be damaged (try inspect --check)");
}

/* ---- the model ---- */

static status part(struct meter *m, struct layers *l, int il, const float *x, float *y, struct err *e)
{
    if (cli_interrupted) return err_set(e, ERR_INTERRUPTED, "interrupted");
    return layers_run(l, &(struct layers_run){ .il = il, .first = 0, .n = m->n_windows, .x = x, .y = y }, e);
}

/* y passes parts il .. n_layer - 1, the first of them from x. */
static status pass(struct meter *m, struct layers *l, int il, const float *x, struct err *e)
{
    if (il == m->n_layer) memcpy(m->y, x, m->state_bytes);
    for (; il < m->n_layer; il++, x = m->y) TRY(part(m, l, il, x, m->y, e));
    return OK;
}

status meter_start(struct meter *m, struct err *e)
{
    m->il = 0;
    return part(m, m->layers, LAYERS_EMBED, NULL, m->x, e);
}

status meter_step(struct meter *m, struct err *e) { return part(m, m->layers, m->il++, m->x, m->x, e); }

status meter_tail(struct meter *m, int il, double *kl, struct err *e)
{
    TRY(pass(m, m->layers, il, m->x, e));
    TRY(each_logits(m, m->layers, m->y, score_row, e));
    return mean_kl(m, kl, e);
}

static status layers_for(struct meter *m, struct layers **l, const struct model *model, const struct cli *c, const int32_t *tokens, struct err *e)
{
    const struct layers_options o = { .n_threads = (int)c->threads, .isa = c->isa, .precise = true };
    int64_t *len = mem_alloc((size_t)m->n_windows * sizeof *len);
    status st = len ? layers_open(l, model, &o, e) : err_oom(e, "windows", (size_t)m->n_windows * sizeof *len);
    for (int64_t i = 0; st == OK && i < m->n_windows; i++) len[i] = m->n_ctx;
    if (st == OK) st = layers_windows(*l, tokens, len, m->n_windows, e);
    mem_free(len);
    return st;
}

static void figures(struct meter *m, const struct model *model, int64_t n_windows, int64_t n_ctx)
{
    struct model_info info;
    model_info(model, &info);
    *m = (struct meter){ .model = model, .n_windows = n_windows, .n_ctx = n_ctx, .n_rows = n_windows * n_ctx, .n_vocab = info.n_vocab,
                         .n_embd = info.n_embd, .n_layer = info.n_layer };
    m->state_bytes = (size_t)(m->n_rows * m->n_embd) * sizeof(float);
    m->ref_bytes = (size_t)(n_windows * scored(m) * m->n_vocab) * sizeof(uint16_t);
}

status meter_open(struct meter *m, const struct model *model, const struct cli *c, const int32_t *tokens, int64_t n_windows, int64_t n_ctx, struct err *e)
{
    *m = (struct meter){ 0 };
    if (n_ctx <= MEASURE_FROM)
        return err_set(e, ERR_USAGE, "windows of %lld tokens, the model was trained for no more: a measurement needs over %d", (long long)n_ctx, MEASURE_FROM);
    figures(m, model, n_windows, n_ctx);
    status st = layers_for(m, &m->layers, model, c, tokens, e);
    m->x = mem_map(m->state_bytes), m->y = mem_map(m->state_bytes), m->ref = mem_map(m->ref_bytes);
    m->kl = mem_calloc((size_t)(n_windows * scored(m)), sizeof *m->kl);
    m->tokens = mem_alloc((size_t)m->n_rows * sizeof *tokens);
    if (st == OK && (!m->x || !m->y || !m->ref || !m->kl || !m->tokens)) st = err_oom(e, "logits of the reference", m->ref_bytes);
    if (st == OK) memcpy(m->tokens, tokens, (size_t)m->n_rows * sizeof *tokens);
    if (st == OK) st = meter_start(m, e);
    if (st == OK) st = pass(m, m->layers, 0, m->x, e);
    if (st == OK) st = each_logits(m, m->layers, m->y, keep_row, e);
    if (st != OK) meter_close(m);
    return st;
}

void meter_close(struct meter *m)
{
    if (m->x) mem_unmap(m->x, m->state_bytes);
    if (m->y) mem_unmap(m->y, m->state_bytes);
    if (m->ref) mem_unmap(m->ref, m->ref_bytes);
    mem_free(m->kl);
    mem_free(m->tokens);
    layers_close(m->layers);
    *m = (struct meter){ 0 };
}

size_t meter_bytes(const struct model *model, int64_t n_windows, int64_t n_ctx)
{
    struct meter m;
    figures(&m, model, n_windows, n_ctx);
    return 2 * m.state_bytes + m.ref_bytes;
}

int64_t meter_windows(const struct model *model, int64_t n)
{
    size_t one = meter_bytes(model, 1, MEASURE_CTX);
    return max_i64(1, min_i64(n, (int64_t)(REF_BYTES / one)));
}

status meter_model(struct meter *m, const struct model *other, const struct cli *c, double *kl, struct err *e)
{
    struct model_info info;
    struct layers *l = NULL;
    model_info(other, &info);
    if (info.n_vocab != m->n_vocab || info.n_embd != m->n_embd || info.n_layer != m->n_layer)
        return err_set(e, ERR_USAGE, "the result has %lld tokens, %lld columns, %lld layers, the original %lld, %lld, %lld", (long long)info.n_vocab,
                       (long long)info.n_embd, (long long)info.n_layer, (long long)m->n_vocab, (long long)m->n_embd, (long long)m->n_layer);
    status st = layers_for(m, &l, other, c, m->tokens, e);
    if (st == OK) st = part(m, l, LAYERS_EMBED, NULL, m->y, e);
    if (st == OK) st = pass(m, l, 0, m->y, e);
    if (st == OK) st = each_logits(m, l, m->y, score_row, e);
    if (st == OK) st = mean_kl(m, kl, e);
    layers_close(l);
    return st;
}

/* ---- weights ---- */

int part_weights(struct layers *l, const struct model *m, int il, const char **name, int cap, struct err *e)
{
    struct layers_matmul mm[WEIGHTS_MAX];
    int n, count = 0;
    if (il == LAYERS_EMBED) {
        if (cap > 0 && layers_weight(l, "token_embd.weight")) name[count++] = "token_embd.weight";
        return count;
    }
    if (layers_matmuls(l, il, mm, WEIGHTS_MAX, &n, e) != OK) return -1;
    for (int i = 0; i < n && i < WEIGHTS_MAX && count < cap; i++) {
        const struct tensor *t = gguf_tensor(model_gguf(m), mm[i].w->name);
        int seen = 0;
        while (t && seen < count && strcmp(name[seen], t->name)) seen++;
        if (t && seen == count) name[count++] = t->name;
    }
    return count;
}

status exchange(struct meter *m, const struct trial_tools *t, const char *name, const struct dtype *to, struct exchanged *x, struct err *e)
{
    const struct tensor *src = gguf_tensor(model_gguf(m->model), name);
    size_t bytes;
    assert(src);
    if (!mul_size(dtype_row_bytes(to, src->ne[0]), (size_t)tensor_rows(src), &bytes)) return err_oom(e, name, SIZE_MAX);
    *x = (struct exchanged){ .name = name, .bytes = mem_alloc(bytes) };
    if (!x->bytes) return err_oom(e, name, bytes);
    status st = trial_bytes(t, src, to, x->bytes, e);
    if (st == OK) st = layers_replace(m->layers, name, to, x->bytes, bytes, e);
    if (st == OK) return OK;
    mem_free(x->bytes);
    *x = (struct exchanged){ 0 };
    return st;
}

void exchange_back(struct meter *m, struct exchanged *x)
{
    if (!x->bytes) return;
    status back = layers_replace(m->layers, x->name, NULL, NULL, 0, NULL);
    assert(back == OK);
    (void)back;
    mem_free(x->bytes);
    *x = (struct exchanged){ 0 };
}

/* Part il with its new weights: y passes it, or is scored behind the last. */
static status exchanged_part(struct meter *m, const struct trial_tools *t, int il, const struct dtype *(*type_of)(void *ctx, const char *name), void *ctx,
                             struct err *e)
{
    const char *name[WEIGHTS_MAX];
    struct exchanged x[WEIGHTS_MAX] = { { 0 } };
    int n = part_weights(m->layers, m->model, il, name, WEIGHTS_MAX, e);
    status st = n < 0 ? e->code : OK;
    for (int i = 0; st == OK && i < n; i++) {
        const struct dtype *to = type_of(ctx, name[i]);
        if (to) st = exchange(m, t, name[i], to, &x[i], e);
    }
    if (st == OK) st = il == m->n_layer ? each_logits(m, m->layers, m->y, score_row, e) : part(m, m->layers, il, m->y, m->y, e);
    for (int i = 0; i < n; i++) exchange_back(m, &x[i]);
    return st;
}

status meter_types(struct meter *m, const struct trial_tools *t, const struct dtype *(*type_of)(void *ctx, const char *name), void *ctx, double *kl,
                   struct err *e)
{
    for (int il = LAYERS_EMBED; il <= m->n_layer; il++) TRY(exchanged_part(m, t, il, type_of, ctx, e));
    return mean_kl(m, kl, e);
}

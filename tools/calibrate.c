/* calibrate - see calibrate.h. Windows are whole sequences; the model passes over all of them part by part, and only the states between two parts are kept. */
#include "tools/calibrate.h"
#include <string.h>
#include "ggml-like/pool.h"
#include "tools/dataset.h"

enum { COLUMN_GRAIN = 16, WINDOWS_MIN = 2 };

static uint64_t hash_tokens(const int32_t *t, int64_t n)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (int64_t i = 0; i < n; i++) h = (h ^ (uint32_t)t[i]) * 0x100000001b3u;
    return h;
}

/* Windows spread evenly over the text, so that a short budget still sees all of its kinds. */
static status lay_windows(struct calibration *k, const struct cli *c, const int32_t *ids, int64_t n, struct err *e)
{
    const struct tokenizer *t = model_tokenizer(k->model);
    int64_t have = n / k->n_ctx, bos = tokenizer_adds_bos(t) ? tokenizer_bos(t) : -1;
    k->n_windows = min_i64(have, (c->calibration_tokens > 0 ? c->calibration_tokens : CALIBRATION_TOKENS) / k->n_ctx);
    if (k->n_windows < WINDOWS_MIN)
        return err_set(e, ERR_USAGE, "%.80s: %lld tokens, %lld are needed: %d windows of %lld", c->calibration, (long long)n,
                       (long long)(WINDOWS_MIN * k->n_ctx), WINDOWS_MIN, (long long)k->n_ctx);
    k->n_rows = k->n_windows * k->n_ctx;
    int32_t *tokens = mem_alloc((size_t)k->n_rows * sizeof *tokens);
    int64_t *len = mem_alloc((size_t)k->n_windows * sizeof *len);
    status st = tokens && len ? OK : err_oom(e, "calibration", (size_t)k->n_rows * sizeof *tokens);
    for (int64_t i = 0; st == OK && i < k->n_windows; i++) {
        int64_t from = k->n_windows > 1 ? i * (have - 1) / (k->n_windows - 1) : 0;
        memcpy(tokens + i * k->n_ctx, ids + from * k->n_ctx, (size_t)k->n_ctx * sizeof *tokens);
        if (bos >= 0) tokens[i * k->n_ctx] = (int32_t)bos;
        len[i] = k->n_ctx;
    }
    if (st == OK) st = layers_windows(k->layers, tokens, len, k->n_windows, e);
    if (st == OK) k->hash = hash_tokens(tokens, k->n_rows);
    k->tokens = tokens;
    mem_free(len);
    return st;
}

static status read_text(struct calibration *k, const struct cli *c, struct err *e)
{
    struct dataset d;
    TRY(dataset_read(&d, c->calibration, model_tokenizer(k->model), model_template(k->model), c->template_name, e));
    status st = lay_windows(k, c, d.ids, d.n_ids, e);
    k->n_lines = d.n_rows, k->n_chats = d.n_chats, k->n_plain = d.n_plain;
    dataset_close(&d);
    return st;
}

status calibration_open(struct calibration *k, const struct cli *c, const char *path, struct err *e)
{
    const struct model_options mo = { .n_ctx = -(int64_t)RUNTIME_CTX }; /* LongRoPE's factors are those that run and chat use */
    const struct layers_options lo = { .n_threads = (int)c->threads, .isa = c->isa };
    struct model_info info;
    *k = (struct calibration){ .text = path_base(c->calibration), .il = LAYERS_EMBED };
    status st = model_open(&k->model, path, &mo, e);
    if (st == OK) st = layers_open(&k->layers, k->model, &lo, e);
    if (st == OK) {
        model_info(k->model, &info);
        k->n_ctx = min_i64(CALIBRATION_CTX, info.n_ctx_train > 0 ? info.n_ctx_train : CALIBRATION_CTX);
        st = read_text(k, c, e);
    }
    if (st == OK) {
        k->x_bytes = (size_t)k->n_rows * (size_t)info.n_embd * sizeof *k->x;
        if (!(k->x = mem_map(k->x_bytes))) st = err_oom(e, "hidden states of the calibration", k->x_bytes);
    }
    if (st != OK) calibration_close(k);
    return st;
}

int64_t calibration_n_held_out(const struct calibration *k)
{
    int64_t n = 0;
    for (int64_t i = 0; i < k->n_windows; i++) n += calibration_held_out(k, i);
    return n;
}

void calibration_close(struct calibration *k)
{
    if (k->x) mem_unmap(k->x, k->x_bytes);
    mem_free(k->tokens);
    layers_close(k->layers);
    model_close(k->model);
    k->x = NULL, k->tokens = NULL, k->layers = NULL, k->model = NULL;
}

/* Of every `every` windows the first; 1: all. */
static status run_some(struct calibration *k, struct layers_run r, int64_t every, struct err *e)
{
    int64_t width = (int64_t)(k->x_bytes / sizeof *k->x) / k->n_rows, step = every > 1 ? 1 : STEP_WINDOWS;
    for (r.first = 0; r.first < k->n_windows; r.first += step * every) {
        if (cli_interrupted) return err_set(e, ERR_INTERRUPTED, "interrupted");
        r.n = min_i64(step, k->n_windows - r.first);
        float *x = k->x + layers_row(k->layers, r.first) * width;
        r.x = x;
        if (r.y) r.y = x;
        TRY(layers_run(k->layers, &r, e));
    }
    return OK;
}

static status run_part(struct calibration *k, struct layers_run r, struct err *e) { return run_some(k, r, 1, e); }

status calibration_start(struct calibration *k, struct err *e)
{
    TRY(run_part(k, (struct layers_run){ .il = LAYERS_EMBED, .y = k->x }, e));
    k->il = 0;
    return OK;
}

status calibration_step(struct calibration *k, struct err *e)
{
    TRY(run_part(k, (struct layers_run){ .il = k->il, .y = k->x }, e));
    k->il++;
    return OK;
}

status calibration_show(struct calibration *k, const char *const *name, int n, observe_fn fn, void *ctx, struct err *e)
{
    return run_part(k, (struct layers_run){ .il = k->il, .show = name, .n_show = n, .observe = fn, .observe_ctx = ctx }, e);
}

/* ---- importance ----
 * A head that is the embedding too counts as a head: what is looked up loses less than the head gains. As IQ4_NL, everything else kept, KL on other text:
 * SmolLM2-135M 0.128 with all columns alike, 0.042 so; Gemma 3 270M 0.071, 0.045. */

struct summing { struct calibration *k; struct importance *im; int64_t every; };

static void add_squares(void *ctx, const struct shown *s, int ith, int nth)
{
    const struct summing *a = ctx;
    const struct importance_entry *en = importance_find(a->im, s->w->name);
    int64_t begin, end;
    if (!en || en->n_cols != s->k || s->mat >= en->n_mat) return;
    pool_range(s->k, COLUMN_GRAIN, ith, nth, &begin, &end);
    for (int64_t i = 0; i < s->n; i++) {
        if (calibration_held_out(a->k, shown_row(s, i) / a->k->n_ctx)) continue;
        importance_columns(en, s->mat, shown_x(s, i), 1, begin, end);
        if (ith == 0) en->count[s->mat]++;
    }
}

static status sum_part(struct summing *a, float *y, struct err *e)
{
    return run_some(a->k, (struct layers_run){ .il = a->k->il, .y = y, .observe = add_squares, .observe_ctx = a }, a->every, e);
}

/* HELD_OUT is a multiple of each step: none of these windows is held out. */
static int64_t sample_every(const struct calibration *k, bool sample)
{
    int64_t every = sample ? HELD_OUT : 1;
    while (every > 1 && k->n_windows / every < SAMPLE_WINDOWS) every /= 2;
    return every;
}

int64_t calibration_importance_windows(const struct calibration *k, bool sample)
{
    int64_t every = sample_every(k, sample);
    return (k->n_windows + every - 1) / every;
}

status calibration_outline(const struct calibration *k, bool sample, struct importance *im, struct err *e)
{
    const struct gguf *g = model_gguf(k->model);
    const struct importance_entry *en;
    bool tied = !gguf_tensor(g, "output.weight");
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const struct tensor *t = &g->tensor[i];
        if (t->ne[1] > 1 && t->ne[3] == 1 && (tied || strcmp(t->name, "token_embd.weight") != 0))
            TRY(importance_entry(im, t->name, t->ne[2], t->ne[0], &en, e));
    }
    for (int64_t i = 0; i < im->n; i++) {
        for (int64_t j = 0; j < im->entry[i].n_mat * im->entry[i].n_cols; j++) im->entry[i].sum2[j] = 1;
        for (int64_t j = 0; j < im->entry[i].n_mat; j++) im->entry[i].count[j] = 1;
    }
    im->chunk_size = k->n_ctx;
    im->n_chunks = calibration_importance_windows(k, sample) - (sample_every(k, sample) > 1 ? 0 : calibration_n_held_out(k));
    return importance_dataset(im, k->text, e);
}

status calibration_importance(struct calibration *k, const struct cli *c, bool sample, struct importance *im, struct err *e)
{
    struct summing a = { k, im, sample_every(k, sample) };
    struct model_info info;
    struct bar bar;
    model_info(k->model, &info);
    for (int64_t i = 0; i < im->n; i++) {
        memset(im->entry[i].sum2, 0, (size_t)(im->entry[i].n_mat * im->entry[i].n_cols) * sizeof *im->entry[i].sum2);
        memset(im->entry[i].count, 0, (size_t)im->entry[i].n_mat * sizeof *im->entry[i].count);
    }
    bar_begin(&bar, c, "calibrate", "layers", info.n_layer);
    status st = calibration_start(k, e);
    for (; st == OK && k->il < info.n_layer; k->il++) {
        bar_update(&bar, k->il, NULL);
        st = sum_part(&a, k->x, e);
    }
    if (st == OK) st = sum_part(&a, NULL, e);
    bar_end(&bar);
    if (st == OK) st = importance_check(im, e);
    im->hash = importance_hash(im);
    return st;
}

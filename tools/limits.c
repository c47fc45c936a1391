/* limits - see limits.h. Every figure is the best of several short runs: a disturbed run is slower, never faster. */
#include "tools/limits.h"
#include <string.h>
#include "ggml-like/arena.h"
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"
#include "tools/cli.h"

enum {
    READ_MAX = 512 << 20,
    SLICE = 8 << 20,    /* one timed read per thread: long against a barrier, short enough to fall between two disturbances */
    LINE = 64,          /* bytes that memory hands over at a time */
    STREAMS = 8,
    TILE_K = 512,       /* 8 KiB of codes and as much of activations: with scales half of a 32 KiB cache */
    TILE_CALLS = 512,   /* between two looks at the clock, 0.1 to 1 ms */
    BARRIERS = 200,
    DECODE_K = 2048,    /* columns of a row: whole blocks of every format */
    DECODE_SLICE = 1 << 20,
};
#define BEST_OF_SECONDS 0.08
#define DECODE_SECONDS 0.05

/* ---- reading ---- */

struct reading {
    const uint8_t *data;
    size_t begin, end;   /* the slice of data that is read */
    uint64_t sum[512];   /* one per thread: the loads cannot be left out */
};

/* One word of every line: the line travels as a whole, and the loop is not what limits. Adding up every byte halves the rate (two threads of a
 * Xeon, median of 54 slices: 14 instead of 28 GB/s), and a decode could then pass its "limit". Several streams side by side add at most a tenth. */
static uint64_t read_span(const uint8_t *p, size_t n)
{
    uint64_t a[STREAMS] = { 0 }, all = 0;
    size_t part = n / STREAMS / LINE * LINE;
    for (size_t i = 0; i < part; i += LINE)
        for (int j = 0; j < STREAMS; j++) {
            uint64_t v;
            memcpy(&v, p + (size_t)j * part + i, sizeof v);
            a[j] += v;
        }
    for (int j = 0; j < STREAMS; j++) all ^= a[j];
    return all;
}

static void read_share(void *ctx, int ith, int nth)
{
    struct reading *r = ctx;
    int64_t begin, end;
    pool_range((int64_t)(r->end - r->begin), 4096, ith, nth, &begin, &end);
    r->sum[ith] ^= read_span(r->data + r->begin + begin, (size_t)(end - begin));
}

/* The fastest slice in GB/s: all threads of the pool, or this thread alone when pool is NULL. Walks over all weights again and again,
 * so that a slice comes from where a token's weights come from: memory, or the last-level cache when the model fits there. */
static double best_read(struct reading *r, struct pool *pool, size_t bytes)
{
    double best = 0, begin = now_seconds(), t0 = begin;
    size_t slice = (size_t)SLICE * (size_t)(pool ? pool_threads(pool) : 1);
    do {
        for (r->begin = 0; r->begin < bytes; r->begin = r->end) {
            r->end = bytes - r->begin < 2 * slice ? bytes : r->begin + slice;
            if (pool) pool_run(pool, read_share, r);
            else read_share(r, 0, 1);
            double t1 = now_seconds(), rate = (double)(r->end - r->begin) / (t1 - t0) * 1e-9;
            if (rate > best) best = rate;
            t0 = t1;
        }
    } while (t0 - begin < BEST_OF_SECONDS);
    return best;
}

/* The weights lie one behind the other: from the first byte of any tensor to the last, at most READ_MAX. Of a split model one part: between the parts'
 * mappings there may be nothing. */
static size_t weights_of(const struct gguf *g, const uint8_t **data)
{
    const uint8_t *from = NULL, *to = NULL;
    for (int64_t i = 0; i < g->n_tensors; i++) {
        if (gguf_file_of(g, &g->tensor[i]) != gguf_file_of(g, &g->tensor[0])) continue;
        const uint8_t *begin = g->tensor[i].data, *end = begin + tensor_bytes(&g->tensor[i]);
        if (!from || begin < from) from = begin;
        if (!to || end > to) to = end;
    }
    *data = from;
    return to - from < READ_MAX ? (size_t)(to - from) : READ_MAX;
}

static void measure_reading(struct limits *l, struct engine *en)
{
    struct reading r = { 0 };
    struct pool *pool = engine_pool(en);
    r.end = l->read_bytes = weights_of(model_gguf(engine_model(en)), &r.data);
    pool_run(pool, read_share, &r); /* page faults are not bandwidth */
    l->read_gbps_1 = best_read(&r, NULL, l->read_bytes);
    l->read_gbps_n = pool_threads(pool) > 1 ? best_read(&r, pool, l->read_bytes) : l->read_gbps_1;
}

void limits_again(struct limits *l, struct engine *en)
{
    struct limits now = *l;
    measure_reading(&now, en);
    if (now.read_gbps_1 > l->read_gbps_1) l->read_gbps_1 = now.read_gbps_1;
    if (now.read_gbps_n > l->read_gbps_n) l->read_gbps_n = now.read_gbps_n;
}

/* ---- tiles ---- */

/* A weight of the type that takes most bytes and has whole panels; NULL when there is none. */
static const struct tensor *dominant_weight(const struct model *m)
{
    struct model_info info;
    const struct gguf *g = model_gguf(m);
    model_info(m, &info);
    const struct dtype *type = dtype_by_name(info.type);
    for (int64_t i = 0; type && type->unpack && i < g->n_tensors; i++)
        if (g->tensor[i].type == type && g->tensor[i].ne[1] >= PANEL_ROWS && g->tensor[i].ne[0] >= TILE_K && TILE_K % type->block_len == 0)
            return &g->tensor[i];
    return NULL;
}

typedef void (*tile_fn)(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t tile, int64_t k0, int n_tokens,
                        float *y, int64_t y_stride, bool add);

static double best_tile(const struct kernels *k, tile_fn tile, const struct panel *p, const struct act_panel *x, float *y)
{
    double best = 0, begin = now_seconds(), t0 = begin;
    do {
        for (int i = 0; i < TILE_CALLS; i++) tile(k, p, x, 0, 0, k->tile_tokens, y, PANEL_ROWS, false);
        double t1 = now_seconds(), rate = (double)TILE_CALLS * PANEL_ROWS * (double)p->nk * k->tile_tokens / (t1 - t0) * 1e-9;
        if (rate > best) best = rate;
        t0 = t1;
    } while (t0 - begin < BEST_OF_SECONDS);
    return best;
}

static status measure_tiles(struct limits *l, struct engine *en, struct arena *a, struct err *e)
{
    const struct kernels *k = engine_kernels(en);
    const struct tensor *w = dominant_weight(engine_model(en));
    size_t panel_size = panel_bytes(TILE_K), act_size = act_panel_bytes(k, TILE_K, TILE_TOKENS_MAX, false),
           f32_size = act_panel_bytes(k, TILE_K, TILE_TOKENS_MAX, true);
    void *panel_buf = arena_zalloc(a, 1, panel_size), *act_buf = arena_zalloc(a, 1, act_size), *f32_buf = arena_zalloc(a, 1, f32_size);
    float *x = arena_zalloc(a, TILE_K, sizeof *x), *y = arena_zalloc(a, TILE_TOKENS_MAX * PANEL_ROWS, sizeof *y);
    const float *rows[TILE_TOKENS_MAX];
    struct panel p;
    struct act_panel act;
    if (!panel_buf || !act_buf || !f32_buf || !x || !y) return err_oom(e, "tiles", panel_size + act_size + f32_size);
    for (int i = 0; i < TILE_K; i++) x[i] = (float)((i * 37) % 101 - 50) / 50;
    for (int i = 0; i < TILE_TOKENS_MAX; i++) rows[i] = x;
    if (w) {
        panel_place(&p, panel_buf, TILE_K);
        k->panel_build(k, &p, w->type, w->data, w->nb[1], PANEL_ROWS, 0, TILE_K);
        act_panel_place(k, &act, act_buf, TILE_K, k->tile_tokens, false);
        k->quant_tile(k, &act, 0, rows, k->tile_tokens);
        l->int8_gmacs_1 = best_tile(k, k->tile, &p, &act, y);
    }
    enum { F32_K = TILE_K / 4 }; /* four bytes each: the same share of the cache */
    panel_place(&p, panel_buf, F32_K);
    for (int i = 0; i < F32_K * PANEL_ROWS; i++) p.f32[i] = (float)(i % 13 - 6) / 6;
    act_panel_place(k, &act, f32_buf, F32_K, k->tile_tokens, true);
    k->pack_tile_f32(k, &act, 0, rows, k->tile_tokens);
    l->f32_gflops_1 = 2 * best_tile(k, k->tile_f32, &p, &act, y);
    return OK;
}

/* ---- decoding ---- */

struct decoding {
    const uint8_t *data;
    size_t row_bytes;
    int64_t begin, end;  /* rows of the slice */
    float (*dot)(const void *w, const struct act_row *x, int64_t k);
    struct act_row x;
    float sum[512];      /* one per thread */
};

static void decode_share(void *ctx, int ith, int nth)
{
    struct decoding *d = ctx;
    int64_t begin, end;
    float sum = 0;
    pool_range(d->end - d->begin, 16, ith, nth, &begin, &end);
    for (int64_t i = d->begin + begin; i < d->begin + end; i++) sum += d->dot(d->data + (size_t)i * d->row_bytes, &d->x, d->x.k);
    d->sum[ith] += sum;
}

/* Walks over the weights as best_read does, so that a slice comes from where a token's weights come from. */
static double best_decode(struct decoding *d, struct pool *pool, int64_t rows)
{
    double best = 0, begin = now_seconds(), t0 = begin;
    int64_t slice = max_i64(1, (int64_t)((size_t)DECODE_SLICE / d->row_bytes)) * pool_threads(pool);
    do {
        for (d->begin = 0; d->begin < rows; d->begin = d->end) {
            d->end = rows - d->begin < 2 * slice ? rows : d->begin + slice;
            pool_run(pool, decode_share, d);
            double t1 = now_seconds(), rate = (double)(d->end - d->begin) * (double)d->row_bytes / (t1 - t0) * 1e-9;
            if (rate > best) best = rate;
            t0 = t1;
            if (t1 - begin > DECODE_SECONDS) break;
        }
    } while (t0 - begin < DECODE_SECONDS);
    return best;
}

status limits_decode(double *gbps, struct engine *en, const struct dtype *t, struct err *e)
{
    const struct kernels *k = engine_kernels(en);
    struct arena a;
    struct decoding d = { .row_bytes = dtype_row_bytes(t, DECODE_K), .dot = k->rowdot[t->gguf_id], .x = { .k = DECODE_K } };
    int64_t rows = (int64_t)(weights_of(model_gguf(engine_model(en)), &d.data) / d.row_bytes);
    arena_init(&a, 0);
    float *x = arena_zalloc(&a, DECODE_K, sizeof *x);
    void *buf = arena_zalloc(&a, 1, act_row_bytes(DECODE_K));
    status st = x && buf ? OK : err_oom(e, "one token", act_row_bytes(DECODE_K));
    *gbps = 0;
    if (st == OK && rows > 0) {
        for (int i = 0; i < DECODE_K; i++) x[i] = (float)((i * 37) % 101 - 50) / 50;
        act_row_place(&d.x, buf, DECODE_K);
        k->quant_row(&d.x, x, DECODE_K);
        d.x.f32 = x;
        *gbps = best_decode(&d, engine_pool(en), rows);
    }
    arena_free(&a);
    return st;
}

/* ---- barrier ---- */

static void many_barriers(void *ctx, int ith, int nth)
{
    for (int i = 0; i < BARRIERS; i++) pool_barrier(ctx);
}

static double best_barrier(struct pool *pool)
{
    double best = 1, begin = now_seconds(), t0 = begin;
    do {
        pool_run(pool, many_barriers, pool);
        double t1 = now_seconds();
        if (t1 - t0 < best) best = t1 - t0;
        t0 = t1;
    } while (t0 - begin < BEST_OF_SECONDS / 2);
    return best / BARRIERS * 1e9;
}

status limits_measure(struct limits *l, struct engine *en, struct err *e)
{
    struct arena a;
    *l = (struct limits){ .n_threads = pool_threads(engine_pool(en)) };
    arena_init(&a, 0);
    status st = measure_tiles(l, en, &a, e);
    arena_free(&a);
    if (st != OK) return st;
    measure_reading(l, en);
    l->barrier_ns = best_barrier(engine_pool(en));
    return OK;
}

uint64_t limits_memory(const struct engine *en, int64_t n_ctx, const struct dtype *kv_type)
{
    size_t state = model_state_bytes(engine_model(en), n_ctx, kv_type);
    return state == SIZE_MAX ? 0 : (uint64_t)state + engine_bytes(en);
}

struct share limits_share(struct limits *l, const struct load *w)
{
    if (w->bytes > w->best_seconds * l->read_gbps_n * 1e9) l->read_gbps_n = w->bytes / w->best_seconds * 1e-9;
    double tile = l->int8_gmacs_1 > 0 ? l->int8_gmacs_1 : l->f32_gflops_1 / 2;
    double bandwidth = w->bytes / w->seconds / (l->read_gbps_n * 1e9) * 100;
    double compute = w->macs / w->seconds / (l->n_threads * tile * 1e9) * 100;
    return bandwidth >= compute ? (struct share){ bandwidth, "bandwidth" } : (struct share){ compute, "compute" };
}

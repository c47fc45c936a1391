/* limits - see limits.h. Every figure is the best of several short runs: a disturbed run is slower, never faster. */
#include "tools/limits.h"
#include <string.h>
#include "ggml-like/arena.h"
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"
#include "tools/cli.h"

enum {
    THREADS_MAX = 512,
    READ_MAX = 512 << 20,
    LINE = 64,          /* bytes that memory hands over at a time */
    TILE_K = 512,       /* 8 KiB of codes and as much of activations: with scales half of a 32 KiB cache */
    TILE_CALLS = 512,   /* between two looks at the clock, 0.1 to 1 ms */
    BARRIERS = 64, /* a sample, 20 us: short beside the time slices of other work */
    BARRIER_SAMPLES = 4,
    DOT_BYTES = 256 << 10,
    DECODE_K = 2048,    /* columns of a row: whole blocks of every format */
    DECODE_MAX = 192 << 20,
    FRESH_BYTES = 24 << 20,  /* first touched: 5 to 20 ms */
    FAULT_BYTES = 128 << 20, /* mapped anew and looked at, one byte a page */
    CLOCK_STEPS = 100000,    /* 30 us: shorter than the time between two interrupts */
};
#define BEST_OF_SECONDS 0.08
#define DECODE_SECONDS 0.05
#define BARRIER_SECONDS 0.4 /* where the threads share a core, until they are moved apart for a moment */

/* ---- passes over the weights ---- */

/* Timed passes over bytes of the mapping, shared by n threads of a pool. */
struct pass {
    struct pool *pool;
    int n_threads;       /* that work; the others of the pool only come to the barrier */
    size_t bytes, grain; /* shared out in whole grains */
    void (*part)(void *ctx, int ith, size_t begin, size_t end);
    void *ctx;
    struct { double start, stop; size_t bytes; } by[THREADS_MAX];
};

static void pass_share(void *ctx, int ith, int nth)
{
    struct pass *p = ctx;
    int64_t begin, end;
    if (nth > 1) pool_barrier(p->pool);
    if (ith >= p->n_threads) return;
    pool_range((int64_t)p->bytes, (int64_t)p->grain, ith, p->n_threads, &begin, &end);
    p->by[ith].start = now_seconds();
    p->part(p->ctx, ith, (size_t)begin, (size_t)end);
    p->by[ith].stop = now_seconds();
    p->by[ith].bytes = (size_t)(end - begin);
}

/* Bytes per second of one pass. Threads that worked side by side count with their own rates, because the engine shares work out as threads become
 * free; where they did not (a thread came late), all bytes from the first start to the last stop. */
static double pass_rate(const struct pass *p)
{
    double first = p->by[0].start, last = p->by[0].stop, from = first, to = last, bytes = 0, rates = 0;
    for (int i = 0; i < p->n_threads; i++) {
        double start = p->by[i].start, stop = p->by[i].stop;
        first = start < first ? start : first, from = start > from ? start : from;
        last = stop > last ? stop : last, to = stop < to ? stop : to;
        bytes += (double)p->by[i].bytes;
        if (p->by[i].bytes) rates += (double)p->by[i].bytes / (stop - start);
    }
    return to - from > 0.9 * (last - first) ? rates : bytes / (last - first);
}

static double one_pass(struct pass *p)
{
    if (p->n_threads > 1) pool_run(p->pool, pass_share, p);
    else pass_share(p, 0, 1);
    return pass_rate(p) * 1e-9;
}

/* ---- reading ---- */

struct reading {
    const uint8_t *data;
    int turn;                  /* which loop */
    uint64_t sum[THREADS_MAX]; /* the loads cannot be left out */
};

/* One word of every line: the line travels as a whole, and the loop is not what limits. Adding up every byte halves the rate (two threads of a
 * Xeon, median of 54 slices: 14 instead of 28 GB/s), and a decode could then pass its "limit". How many streams side by side are best depends on the
 * machine: two threads of a Zen 5 read 80 GB/s in 1 or 2 streams, 77 in 4, 67 in 8; wide loads and prefetches change less than 3 %. So the loops take turns. */
static inline __attribute__((always_inline)) uint64_t read_streams(const uint8_t *p, size_t n, int streams)
{
    uint64_t a[4] = { 0 }, all = 0;
    size_t part = n / (size_t)streams / LINE * LINE;
    for (size_t i = 0; i < part; i += LINE)
        for (int j = 0; j < streams; j++) {
            uint64_t v;
            memcpy(&v, p + (size_t)j * part + i, sizeof v);
            a[j] += v;
        }
    for (int j = 0; j < streams; j++) all ^= a[j];
    return all;
}
static uint64_t read_1(const uint8_t *p, size_t n) { return read_streams(p, n, 1); }
static uint64_t read_2(const uint8_t *p, size_t n) { return read_streams(p, n, 2); }
static uint64_t read_4(const uint8_t *p, size_t n) { return read_streams(p, n, 4); }
static uint64_t (*const read_loops[])(const uint8_t *p, size_t n) = { read_2, read_1, read_4 };

static void read_part(void *ctx, int ith, size_t begin, size_t end)
{
    struct reading *r = ctx;
    r->sum[ith] ^= read_loops[r->turn](r->data + begin, end - begin);
}

/* The fastest pass in GB/s. Whole passes, as a token makes them: parts of a small model stay in the last-level cache, and the fastest part alone
 * would promise a third too much (92 MB beside 32 MB of cache: 54 instead of 41 GB/s). */
static double best_read(struct pass *p, struct reading *r)
{
    double best = 0, begin = now_seconds();
    do {
        double rate = one_pass(p);
        if (rate > best) best = rate;
        r->turn = (r->turn + 1) % ARRAY_LEN(read_loops);
    } while (now_seconds() - begin < BEST_OF_SECONDS);
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

/* 1, 2, 3, 4, then every power of two, then all: at most LIMITS_READS steps up to THREADS_MAX. */
static int next_threads(int n, int all)
{
    int next = n < 4 ? n + 1 : 2 * n;
    return next < all ? next : all;
}

/* Only the first and the last step when `ends`. Keeps the better of old and new figures. */
static void measure_reading(struct limits *l, struct engine *en, bool ends)
{
    struct reading r = { 0 };
    struct pass p = { .pool = engine_pool(en), .grain = 4096, .part = read_part, .ctx = &r };
    l->read_bytes = p.bytes = weights_of(model_gguf(engine_model(en)), &r.data);
    l->n_reads = 0;
    for (int n = 1;; n = next_threads(n, l->n_threads)) {
        int i = l->n_reads++;
        l->read_threads[i] = n;
        if (!ends || n == 1 || n == l->n_threads) {
            p.n_threads = n;
            double rate = best_read(&p, &r);
            if (rate > l->read_gbps[i]) l->read_gbps[i] = rate;
        }
        if (n == l->n_threads) break;
    }
    l->read_gbps_1 = l->read_gbps[0];
    if (l->read_gbps[l->n_reads - 1] > l->read_gbps_n) l->read_gbps_n = l->read_gbps[l->n_reads - 1];
}

static void touch_weights(struct engine *en) /* page faults are not bandwidth */
{
    struct reading r = { 0 };
    struct pass p = { .pool = engine_pool(en), .n_threads = pool_threads(engine_pool(en)), .grain = 4096, .part = read_part, .ctx = &r };
    p.bytes = weights_of(model_gguf(engine_model(en)), &r.data);
    one_pass(&p);
}

void limits_again(struct limits *l, struct engine *en) { measure_reading(l, en, true); }

/* ---- tiles ---- */

/* Multiply-adds of a token by this type: an embedding that is only looked up has none. */
static uint64_t macs_of(const struct model_info *info, int type, bool head)
{
    return info->type_macs[type] + (head && info->head_type->gguf_id == type ? info->head_macs : 0);
}

static int most_macs(const struct model_info *info, bool head)
{
    int most = 0;
    for (int i = 1; i < DTYPE_IDS; i++)
        if (macs_of(info, i, head) > macs_of(info, most, head)) most = i;
    return most;
}

/* A weight of this type, of 16 rows or more; NULL when there is none. */
static const struct tensor *weight_of(const struct model *m, int type)
{
    const struct gguf *g = model_gguf(m);
    for (int64_t i = 0; i < g->n_tensors; i++)
        if (g->tensor[i].type->gguf_id == type && g->tensor[i].ne[1] >= PANEL_ROWS) return &g->tensor[i];
    return NULL;
}

static double best_tile(const struct kernels *k, kernels_tile_fn *tile, const struct panel *p, const struct act_panel *x, float *y)
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

/* Every type with work of its own: their tiles differ by half (int8 products or 15 bits, one scale or many). */
static status measure_tiles(struct limits *l, struct engine *en, const struct model_info *info, struct arena *a, struct err *e)
{
    const struct kernels *k = engine_kernels(en);
    size_t panel_size = panel_bytes(TILE_K), act_size = 0;
    for (enum act_form f = 0; f < ACT_FORMS; f++)
        if (act_panel_bytes(k, TILE_K, TILE_TOKENS_MAX, f) > act_size) act_size = act_panel_bytes(k, TILE_K, TILE_TOKENS_MAX, f);
    void *panel_buf = arena_zalloc(a, 1, panel_size), *act_buf = arena_zalloc(a, 1, act_size);
    float *x = arena_zalloc(a, TILE_K, sizeof *x), *y = arena_zalloc(a, TILE_TOKENS_MAX * PANEL_ROWS, sizeof *y);
    const float *rows[TILE_TOKENS_MAX];
    struct panel p;
    struct act_panel act;
    if (!panel_buf || !act_buf || !x || !y) return err_oom(e, "tiles", panel_size + act_size);
    for (int i = 0; i < TILE_K; i++) x[i] = (float)((i * 37) % 101 - 50) / 50;
    for (int i = 0; i < TILE_TOKENS_MAX; i++) rows[i] = x;
    for (int i = 0; i < DTYPE_IDS; i++) {
        const struct tensor *w = macs_of(info, i, true) ? weight_of(engine_model(en), i) : NULL;
        enum act_form form = w ? act_form_fast(k, w->type) : ACT_F32;
        if (form == ACT_F32 || w->ne[0] < TILE_K || TILE_K % w->type->block_len != 0) continue;
        panel_place(&p, panel_buf, TILE_K);
        kernels_panel(k, form)(k, &p, w->type, form, w->data, w->nb[1], PANEL_ROWS, 0, TILE_K);
        act_panel_place(k, &act, act_buf, TILE_K, k->tile_tokens, form);
        kernels_fill(k, form)(k, &act, 0, rows, k->tile_tokens);
        l->tile_gmacs[i] = best_tile(k, kernels_tile(k, form), &p, &act, y);
    }
    int most = most_macs(info, false);
    if (most != GGUF_BF16) l->int8_gmacs_1 = l->tile_gmacs[most];
    l->bf16_gmacs_1 = l->tile_gmacs[GGUF_BF16];
    enum { F32_K = TILE_K / 4 }; /* four bytes each: the same share of the cache */
    panel_place(&p, panel_buf, F32_K);
    for (int i = 0; i < F32_K * PANEL_ROWS; i++) p.f32[i] = (float)(i % 13 - 6) / 6;
    act_panel_place(k, &act, act_buf, F32_K, k->tile_tokens, ACT_F32);
    k->pack_tile_f32(k, &act, 0, rows, k->tile_tokens);
    l->f32_gflops_1 = 2 * best_tile(k, k->tile_f32, &p, &act, y);
    return OK;
}

/* ---- decoding ---- */

/* One token times rows of w, in the second cache. */
static status best_rowdot(double *best, const struct kernels *k, const struct tensor *w, struct arena *a, struct err *e)
{
    if (!w || w->ne[0] % 32 != 0 || !k->rowdot[w->type->gguf_id]) return OK;
    int64_t cols = w->ne[0], rows = max_i64(PANEL_ROWS, min_i64(w->ne[1], (int64_t)(DOT_BYTES / w->nb[1])));
    float *x = arena_zalloc(a, (size_t)cols, sizeof *x), *y = arena_zalloc(a, (size_t)rows, sizeof *y);
    void *buf = arena_zalloc(a, 1, act_row_bytes(cols));
    struct act_row row;
    if (!x || !y || !buf) return err_oom(e, "one token", act_row_bytes(cols));
    for (int64_t i = 0; i < cols; i++) x[i] = (float)((i * 37) % 101 - 50) / 50;
    act_row_place(&row, buf, cols);
    k->quant_row(&row, x, cols);
    row.f32 = x;
    double begin = now_seconds(), t0 = begin;
    do {
        kernels_dots(k, w->type, y, w->data, w->nb[1], rows, &row, cols);
        double t1 = now_seconds(), rate = (double)(rows * cols) / (t1 - t0) * 1e-9;
        if (rate > *best) *best = rate;
        t0 = t1;
    } while (t0 - begin < BEST_OF_SECONDS / 2);
    return OK;
}

static status measure_rowdots(struct limits *l, struct engine *en, const struct model_info *info, struct arena *a, struct err *e)
{
    for (int i = 0; i < DTYPE_IDS; i++)
        if (macs_of(info, i, true)) TRY(best_rowdot(&l->dot_gmacs[i], engine_kernels(en), weight_of(engine_model(en), i), a, e));
    l->dot_gmacs_1 = l->dot_gmacs[most_macs(info, true)];
    return OK;
}

struct decoding {
    const uint8_t *data;
    size_t row_bytes;
    const struct kernels *k;
    const struct dtype *t;
    struct act_row x;
};

static void decode_part(void *ctx, int ith, size_t begin, size_t end)
{
    struct decoding *d = ctx;
    enum { ROWS = 16 };
    float y[ROWS];
    for (size_t i = begin; i < end; i += ROWS * d->row_bytes)
        kernels_dots(d->k, d->t, y, d->data + i, d->row_bytes, min_i64(ROWS, (int64_t)((end - i) / d->row_bytes)), &d->x, d->x.k);
}

static double best_decode(struct decoding *d, struct pool *pool, size_t bytes)
{
    double best = 0, begin = now_seconds();
    struct pass p = { .pool = pool, .n_threads = pool ? pool_threads(pool) : 1, .part = decode_part, .ctx = d, .grain = d->row_bytes };
    p.bytes = (bytes < DECODE_MAX ? bytes : DECODE_MAX) / d->row_bytes * d->row_bytes;
    if (p.bytes == 0) return 0;
    do {
        double rate = one_pass(&p);
        if (rate > best) best = rate;
    } while (now_seconds() - begin < DECODE_SECONDS);
    return best;
}

status limits_decode(double *gbps, struct engine *en, const struct dtype *t, bool all_threads, struct err *e)
{
    const struct kernels *k = engine_kernels(en);
    struct arena a;
    struct decoding d = { .row_bytes = dtype_row_bytes(t, DECODE_K), .k = k, .t = t, .x = { .k = DECODE_K } };
    size_t bytes = weights_of(model_gguf(engine_model(en)), &d.data);
    arena_init(&a, 0);
    float *x = arena_zalloc(&a, DECODE_K, sizeof *x);
    void *buf = arena_zalloc(&a, 1, act_row_bytes(DECODE_K));
    status st = x && buf ? OK : err_oom(e, "one token", act_row_bytes(DECODE_K));
    *gbps = 0;
    if (st == OK) {
        for (int i = 0; i < DECODE_K; i++) x[i] = (float)((i * 37) % 101 - 50) / 50;
        act_row_place(&d.x, buf, DECODE_K);
        k->quant_row(&d.x, x, DECODE_K);
        d.x.f32 = x;
        *gbps = best_decode(&d, all_threads && pool_threads(engine_pool(en)) > 1 ? engine_pool(en) : NULL, bytes);
    }
    arena_free(&a);
    return st;
}

/* ---- barrier ---- */

struct barriers {
    struct pool *pool;
    double best; /* seconds of the fastest sample */
};

/* Samples of a few barriers each: where other work takes a core every few milliseconds, some still lie between two of its time slices. */
static void sample_barriers(void *ctx, int ith, int nth)
{
    struct barriers *b = ctx;
    for (int i = 0; i < BARRIER_SAMPLES; i++) {
        double t0 = now_seconds();
        for (int j = 0; j < BARRIERS; j++) pool_barrier(b->pool);
        double seconds = now_seconds() - t0;
        if (ith == 0 && seconds < b->best) b->best = seconds;
    }
}

static void measure_barrier(struct limits *l, struct pool *pool)
{
    struct barriers b = { pool, 1 };
    double begin = now_seconds(), spent;
    int runs = 0;
    do {
        pool_run(pool, sample_barriers, &b);
        runs++;
        spent = now_seconds() - begin;
    } while (spent < (b.best * 1e9 > LIMITS_SHARED_NS * (double)BARRIERS ? BARRIER_SECONDS : BEST_OF_SECONDS / 2));
    l->barrier_ns = b.best / BARRIERS * 1e9;
    l->barrier_mean_ns = spent / runs / (BARRIERS * BARRIER_SAMPLES) * 1e9;
}

/* ---- clock and pages ---- */

/* Additions that wait for each other take one cycle each, on every CPU; the empty asm keeps the compiler from adding them up. */
double limits_clock(void)
{
    double best = 0, begin = now_seconds(), t0 = begin;
    uint64_t x = 0, y = 3;
    do {
        for (int i = 0; i < CLOCK_STEPS / 8; i++)
            for (int j = 0; j < 8; j++) {
                x += y;
                __asm__ volatile("" : "+r"(x), "+r"(y));
            }
        double t1 = now_seconds(), rate = CLOCK_STEPS / (t1 - t0) * 1e-9;
        if (rate > best) best = rate;
        t0 = t1;
    } while (t0 - begin < 0.005);
    return best;
}

/* Seconds to look at one byte of every page. */
static double touch_pages(volatile uint8_t *p, size_t bytes, size_t page, bool write)
{
    double start = now_seconds();
    for (size_t i = 0; i < bytes; i += page)
        if (write) p[i] = 1;
        else (void)p[i];
    return now_seconds() - start;
}

status limits_pages(struct limits *l, const char *path, size_t page, struct err *e)
{
    struct file f;
    if (page == 0) page = 4096;
    for (int i = 0; i < 3; i++) {
        uint8_t *fresh = mem_map(FRESH_BYTES);
        if (!fresh) return err_oom(e, "fresh pages", FRESH_BYTES);
        double seconds = touch_pages(fresh, FRESH_BYTES, page, true), rate = FRESH_BYTES / seconds * 1e-9;
        if (rate > l->fresh_gbps) l->fresh_gbps = rate;
        mem_unmap(fresh, FRESH_BYTES);
        TRY(file_open(&f, path, true, e));
        size_t bytes = f.size < FAULT_BYTES ? f.size : FAULT_BYTES;
        if (f.mapped && bytes > 0) {
            double ns = touch_pages((uint8_t *)(uintptr_t)f.data, bytes, page, false) * 1e9 / (double)((bytes + page - 1) / page);
            if (l->fault_ns == 0 || ns < l->fault_ns) l->fault_ns = ns;
        }
        file_close(&f);
    }
    return OK;
}

status limits_measure(struct limits *l, struct engine *en, struct err *e)
{
    struct arena a;
    *l = (struct limits){ .n_threads = pool_threads(engine_pool(en)) };
    struct model_info info;
    model_info(engine_model(en), &info);
    arena_init(&a, 0);
    status st = measure_tiles(l, en, &info, &a, e);
    if (st == OK) st = measure_rowdots(l, en, &info, &a, e);
    arena_free(&a);
    if (st != OK) return st;
    touch_weights(en);
    measure_reading(l, en, false);
    measure_barrier(l, engine_pool(en));
    l->clock_ghz = limits_clock();
    return OK;
}

uint64_t limits_memory(const struct engine *en, int64_t n_ctx, const struct dtype *kv_type)
{
    size_t state = model_state_bytes(engine_model(en), n_ctx, kv_type);
    return state == SIZE_MAX ? 0 : (uint64_t)state + engine_bytes(en);
}

/* Seconds of all threads together that the multiply-adds take at the limits. A type without a tile of its own goes through that of floats, one without
 * a row-dot of its own counts like the tile. */
static double multiply_seconds(const struct limits *l, const struct load *w)
{
    double sum = 0;
    for (int i = 0; i < DTYPE_IDS; i++) {
        double tile = l->tile_gmacs[i] > 0 ? l->tile_gmacs[i] : l->f32_gflops_1 / 2, dot = l->dot_gmacs[i] > 0 ? l->dot_gmacs[i] : tile;
        if (w->tile_macs[i] > 0) sum += w->tile_macs[i] / (tile * 1e9);
        if (w->dot_macs[i] > 0) sum += w->dot_macs[i] / (dot * 1e9);
    }
    return sum;
}

void limits_raise(struct limits *l, const struct load *w)
{
    if (w->bytes > w->best_seconds * l->read_gbps_n * 1e9) l->read_gbps_n = w->bytes / w->best_seconds * 1e-9;
    double by = multiply_seconds(l, w) / (w->best_seconds * l->n_threads);
    if (!(by > 1)) return;
    for (int i = 0; i < DTYPE_IDS; i++) l->tile_gmacs[i] *= by, l->dot_gmacs[i] *= by; /* which of them was measured too low, nobody knows */
    l->int8_gmacs_1 *= by, l->bf16_gmacs_1 *= by, l->f32_gflops_1 *= by, l->dot_gmacs_1 *= by;
}

struct share limits_share(const struct limits *l, const struct load *w)
{
    struct share s = { .bandwidth = w->bytes / w->seconds / (l->read_gbps_n * 1e9) * 100 };
    s.compute = multiply_seconds(l, w) / l->n_threads / w->seconds * 100;
    s.bound = s.bandwidth >= s.compute ? "bandwidth" : "compute";
    s.percent = s.bandwidth >= s.compute ? s.bandwidth : s.compute;
    return s;
}

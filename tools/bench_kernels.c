/* bench_kernels - the hot loops by themselves, format by format, beside what the machine allows: see bench.h.
 * One thread, K columns, everything in its caches, but for the two columns that read the weights from memory. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "ggml-like/arena.h"
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"
#include "tools/bench.h"
#include "tools/opt.h"

enum {
    K = 2048,              /* whole blocks of every format, one panel */
    CACHE_BYTES = 256 << 10, /* rows that are multiplied again and again: in the second cache; 16 of the widest format */
    N_COUNTS = 6, N_MAX = 512,
};
#define SECONDS 0.02
static const int counts[N_COUNTS] = { 2, 4, 8, 16, 32, N_MAX };

struct kernel_rates {
    const struct dtype *t;
    double dot_cycles, dot_gbps;      /* row-dot in cache: per 256 weights; file bytes */
    double memory_gbps[2];            /* from memory: one thread, all */
    double panel_cycles;              /* per 256 weights */
    double tile_gmacs, n_gmacs[N_COUNTS];
};

struct bench_data {
    struct arena a;
    uint8_t *w;               /* CACHE_BYTES of blocks */
    float *x, *y;             /* 16 rows of K; N_MAX tokens of 16 rows */
    struct act_row row;
    struct act_panel act[ACT_FORMS];
    void *panel;
};

/* ---- data ---- */

/* Rows of random weights in the format; where it cannot be packed, the model's bytes serve, whatever they mean. */
static void fill_weights(struct bench_data *d, const struct dtype *t, const struct gguf *g)
{
    size_t row = dtype_row_bytes(t, K);
    const uint8_t *any = g->n_tensors ? g->tensor[0].data : NULL;
    size_t have = any ? (size_t)(gguf_file_of(g, &g->tensor[0])->data + gguf_file_of(g, &g->tensor[0])->size - any) : 0;
    if (t->pack || t->from_f32)
        for (size_t i = 0; i + row <= CACHE_BYTES; i += row)
            if (i < 16 * row) dtype_from_f32(t, d->x + i / row * K, d->w + i, K);
            else memcpy(d->w + i, d->w + i % (16 * row), row);
    else
        for (size_t i = 0; have && i < CACHE_BYTES; i += have) memcpy(d->w + i, any, CACHE_BYTES - i < have ? CACHE_BYTES - i : have);
}

static status make_data(struct bench_data *d, const struct kernels *k, struct err *e)
{
    const float *rows[TILE_TOKENS_MAX];
    uint64_t s = 0x9e3779b97f4a7c15u;
    arena_init(&d->a, 0);
    d->w = arena_zalloc(&d->a, 1, CACHE_BYTES);
    d->x = arena_zalloc(&d->a, TILE_TOKENS_MAX * K, sizeof *d->x);
    d->y = arena_zalloc(&d->a, N_MAX * PANEL_ROWS, sizeof *d->y);
    d->panel = arena_zalloc(&d->a, 1, panel_bytes(PANEL_K));
    void *row = arena_zalloc(&d->a, 1, act_row_bytes(K)), *act[ACT_FORMS];
    bool all = true;
    for (enum act_form f = 0; f < ACT_FORMS; f++) all &= (act[f] = arena_zalloc(&d->a, 1, act_panel_bytes(k, K, N_MAX, f))) != NULL;
    if (!d->w || !d->x || !d->y || !d->panel || !row || !all)
        return err_oom(e, "kernels", act_panel_bytes(k, K, N_MAX, ACT_F32));
    for (int i = 0; i < TILE_TOKENS_MAX * K; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        d->x[i] = (float)(int)(s % 2001 - 1000) / 500;
    }
    act_row_place(&d->row, row, K);
    k->quant_row(&d->row, d->x, K);
    d->row.f32 = d->x;
    for (int i = 0; i < TILE_TOKENS_MAX; i++) rows[i] = d->x + i * K;
    for (enum act_form f = 0; f < ACT_FORMS; f++) {
        act_panel_place(k, &d->act[f], act[f], K, N_MAX, f);
        for (int tile = 0; tile * k->tile_tokens < N_MAX; tile++)
            kernels_fill(k, f)(k, &d->act[f], tile, rows, k->tile_tokens);
    }
    return OK;
}

/* ---- loops: each returns the seconds of its fastest round ---- */

struct loop { const struct kernels *k; struct bench_data *d; const struct dtype *t; struct panel p; int n; };

static double fastest(void (*round)(struct loop *), struct loop *l)
{
    double best = INFINITY, begin = now_seconds(), t0 = begin;
    do {
        round(l);
        double t1 = now_seconds();
        if (t1 - t0 < best) best = t1 - t0;
        t0 = t1;
    } while (t0 - begin < SECONDS);
    return best;
}

static void dot_round(struct loop *l) /* n rows */
{
    size_t row = dtype_row_bytes(l->t, K);
    kernels_dots(l->k, l->t, l->d->y, l->d->w, row, l->n, &l->d->row, K);
}

static void panel_round(struct loop *l)
{
    size_t row = dtype_row_bytes(l->t, K);
    enum act_form form = act_form_fast(l->k, l->t);
    kernels_panel(l->k, form)(l->k, &l->p, l->t, form, l->d->w, row, PANEL_ROWS, 0, K);
}

static void tile_round(struct loop *l) /* n tokens */
{
    enum act_form form = act_form_fast(l->k, l->t);
    for (int i = 0; i < l->n; i += l->k->tile_tokens)
        kernels_tile(l->k, form)(l->k, &l->p, &l->d->act[form], i / l->k->tile_tokens, 0, (int)min_i64(l->k->tile_tokens, l->n - i),
                                 l->d->y + i * PANEL_ROWS, PANEL_ROWS, false);
}

static void both_round(struct loop *l)
{
    panel_round(l);
    tile_round(l);
}

static status measure(struct kernel_rates *r, struct engine *en, struct bench_data *d, double ghz, struct err *e)
{
    struct loop l = { .k = engine_kernels(en), .d = d, .t = r->t };
    double blocks = K / 256.0, macs = (double)PANEL_ROWS * K;
    size_t row = dtype_row_bytes(r->t, K);
    fill_weights(d, r->t, model_gguf(engine_model(en)));
    panel_place(&l.p, d->panel, PANEL_K);
    l.n = (int)min_i64((int64_t)(CACHE_BYTES / row), N_MAX * PANEL_ROWS);
    double seconds = fastest(dot_round, &l) / l.n;
    r->dot_cycles = seconds * ghz * 1e9 / blocks;
    r->dot_gbps = (double)row / seconds * 1e-9;
    r->panel_cycles = fastest(panel_round, &l) * ghz * 1e9 / (PANEL_ROWS * blocks);
    l.n = 4 * l.k->tile_tokens;
    r->tile_gmacs = macs * l.n / fastest(tile_round, &l) * 1e-9;
    for (int i = 0; i < N_COUNTS; i++) {
        l.n = counts[i];
        r->n_gmacs[i] = macs * l.n / fastest(both_round, &l) * 1e-9;
    }
    for (int all = 0; all < 2; all++) TRY(limits_decode(&r->memory_gbps[all], en, r->t, all, e));
    if (pool_threads(engine_pool(en)) == 1) /* the same thing twice */
        r->memory_gbps[0] = r->memory_gbps[1] = r->memory_gbps[0] > r->memory_gbps[1] ? r->memory_gbps[0] : r->memory_gbps[1];
    return OK;
}

/* ---- writing ---- */

/* Of the read limit, which a faster loop raises: what was reached is possible. */
static double of_reading(double *limit, double rate)
{
    if (rate > *limit) *limit = rate;
    return 100 * rate / *limit;
}

/* Tiles of one kind have one peak: all of integers, of BF16, of floats. */
static enum act_form tile_kind(const struct bench *b, const struct kernel_rates *r)
{
    return r->t->unpack ? ACT_8 : act_form_fast(engine_kernels(b->r.engine), r->t);
}

static void kernels_md(struct bench *b, struct kernel_rates *r, int n, const double peak[ACT_FORMS])
{
    struct limits *l = &b->limits;
    char all[16];
    snprintf(all, sizeof all, "-t %d", l->n_threads);
    out_printf("| %-7s | %7s | %6s | %6s | %7s | %6s | %7s | %6s | %6s | %6s |", "type", "row-dot", "cache", "memory", "of read", all, "of read", "panel",
               "tile", "/cycle");
    for (int i = 0; i < N_COUNTS; i++) out_printf(" n=%-4d |", counts[i]);
    out_printf(" of tile |\n| ------- | ------: | -----: | -----: | ------: | -----: | ------: | -----: | -----: | -----: |");
    for (int i = 0; i < N_COUNTS; i++) out_printf(" -----: |");
    out_printf(" ------: |\n");
    for (int i = 0; i < n; i++, r++) {
        out_printf("| %-7s | %7.1f | %6.1f | %6.1f | %5.1f %% | %6.1f | %5.1f %% | %6.1f | %6.1f | %6.1f |", r->t->gguf_name, r->dot_cycles, r->dot_gbps,
                   r->memory_gbps[0], of_reading(&l->read_gbps_1, r->memory_gbps[0]), r->memory_gbps[1], of_reading(&l->read_gbps_n, r->memory_gbps[1]),
                   r->panel_cycles, r->tile_gmacs, r->tile_gmacs / l->clock_ghz);
        for (int j = 0; j < N_COUNTS; j++) out_printf(" %6.1f |", r->n_gmacs[j]);
        out_printf(" %5.1f %% |\n", 100 * r->n_gmacs[N_COUNTS - 1] / peak[tile_kind(b, r)]);
    }
    out_flush();
    if (b->c->quiet) return;
    fprintf(stderr,
            "row-dot, panel: cycles per 256 weights | cache, memory (one thread), -t %d: GB/s of weights that the row-dot multiplies, its share of the\n"
            "read limit | tile: 10^9 multiply-adds per second, and per cycle | n: the same for n tokens, panel built for them; of the fastest tile\n",
            l->n_threads);
}

static void kernels_fields(struct bench *b, const struct kernel_rates *r, const double peak[ACT_FORMS])
{
    struct limits *l = &b->limits;
    struct field f[32];
    char names[N_COUNTS][16];
    const struct field rows[] = {
        { "build_commit", FIELD_STR, .str = cuanto_version },
        { "cpu_info", FIELD_STR, .str = b->r.cpu.model },
        { "isa", FIELD_STR, .str = engine_kernels(b->r.engine)->name },
        { "n_threads", FIELD_INT, .i = l->n_threads },
        { "clock_ghz", FIELD_REAL, .f = l->clock_ghz },
        { "type", FIELD_STR, .str = r->t->gguf_name },
        { "rowdot_cycles_256", FIELD_REAL, .f = r->dot_cycles },
        { "rowdot_gbps_cache", FIELD_REAL, .f = r->dot_gbps },
        { "rowdot_gbps_1", FIELD_REAL, .f = r->memory_gbps[0] },
        { "percent_of_read_1", FIELD_REAL, .f = of_reading(&l->read_gbps_1, r->memory_gbps[0]) },
        { "rowdot_gbps_n", FIELD_REAL, .f = r->memory_gbps[1] },
        { "percent_of_read_n", FIELD_REAL, .f = of_reading(&l->read_gbps_n, r->memory_gbps[1]) },
        { "panel_cycles_256", FIELD_REAL, .f = r->panel_cycles },
        { "tile_gmacs", FIELD_REAL, .f = r->tile_gmacs },
        { "tile_percent_of_peak", FIELD_REAL, .f = 100 * r->tile_gmacs / peak[tile_kind(b, r)] },
    };
    int n = ARRAY_LEN(rows);
    memcpy(f, rows, sizeof rows);
    for (int i = 0; i < N_COUNTS; i++) {
        snprintf(names[i], sizeof names[i], "gmacs_n%d", counts[i]);
        f[n++] = (struct field){ names[i], FIELD_REAL, .f = r->n_gmacs[i] };
    }
    if (b->format == REPORT_CSV) {
        if (!b->head_written) report_csv_head(f, n);
        report_csv_row(f, n);
        b->head_written = true;
        return;
    }
    struct json_out line, *o = b->format == REPORT_JSON ? &b->json : &line;
    if (o == &line) json_out_init(o, false);
    json_begin(o, NULL, '{');
    report_json(o, f, n);
    json_end(o, '}');
    if (o == &line) report_out(o);
}

/* ---- which formats ---- */

static bool in_model(const struct gguf *g, const struct dtype *t)
{
    for (int64_t i = 0; i < g->n_tensors; i++)
        if (g->tensor[i].type == t && g->tensor[i].ne[1] > 1) return true;
    return false;
}

static bool in_list(const char *list, const char *name)
{
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == strlen(name) && !strncasecmp(p, name, strlen(name))) return true;
    return false;
}

static status check_list(const char *list, struct err *e)
{
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',') {
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)min_i64((int64_t)strcspn(p, ","), 31), p);
        if (!dtype_by_name(name)) return err_set(e, ERR_USAGE, "--kernels=%s: no format '%s'; a list like q4_k,q6_k, or all", list, name);
    }
    return OK;
}

static bool has_kernels(const struct kernels *k, const struct dtype *t) { return k->rowdot[t->gguf_id] && K % t->block_len == 0 && (t->unpack || t->to_f32); }

static status run_kernels(struct bench *b, struct kernel_rates *r, int *n, struct bench_data *d, struct err *e)
{
    const char *list = b->c->kernels;
    const struct kernels *k = engine_kernels(b->r.engine);
    TRY(make_data(d, k, e));
    TRY(limits_measure(&b->limits, b->r.engine, e));
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        bool wanted = !strcasecmp(list, "all") || (*list ? in_list(list, t->name) : in_model(model_gguf(b->r.model), t));
        if (!wanted || !has_kernels(k, t)) continue;
        r[*n].t = t;
        TRY(measure(&r[(*n)++], b->r.engine, d, b->limits.clock_ghz, e));
    }
    limits_again(&b->limits, b->r.engine);
    return *n ? OK : err_set(e, ERR_USAGE, "--kernels=%s: nothing to measure", list);
}

status bench_kernels(struct bench *b, struct err *e)
{
    struct kernel_rates r[DTYPE_IDS] = { { 0 } };
    struct bench_data d = { 0 };
    int n = 0;
    if (strcasecmp(b->c->kernels, "all") != 0) TRY(check_list(b->c->kernels, e));
    TRY(runtime_open(&b->r, b->c, 0, e));
    status st = run_kernels(b, r, &n, &d, e);
    arena_free(&d.a);
    double peak[ACT_FORMS] = { [ACT_8] = b->limits.int8_gmacs_1, [ACT_BF16] = b->limits.bf16_gmacs_1, [ACT_F32] = b->limits.f32_gflops_1 / 2 };
    for (int i = 0; i < n; i++) { /* the fastest tile of this run is the peak */
        double *p = &peak[tile_kind(b, &r[i])];
        if (r[i].tile_gmacs > *p) *p = r[i].tile_gmacs;
        for (int j = 0; j < N_COUNTS; j++)
            if (r[i].n_gmacs[j] > *p) *p = r[i].n_gmacs[j];
    }
    if (st == OK && b->format == REPORT_MD) kernels_md(b, r, n, peak);
    for (int i = 0; st == OK && b->format != REPORT_MD && i < n; i++) kernels_fields(b, &r[i], peak);
    if (st == OK) bench_limits(b, 0);
    runtime_close(&b->r);
    return st;
}

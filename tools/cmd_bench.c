/* bench - speed, measured as llama-bench does and shown in its columns, so that lines of both can stand side by side:
 * pp N = one prompt of N random tokens on an empty context (or after `depth` tokens), tg N = N single tokens; no sampling, no
 * tokenizing; one warm-up, then `reps` runs, mean and sample standard deviation. Beside it the machine's limits (limits.h) and the share
 * of them reached. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"
#include "tools/limits.h"
#include "tools/opt.h"
#include "tools/ranges.h"
#include "tools/report.h"

enum { LIST_MAX = 64, REPS_MAX = 1000, TOKENS_MAX = 1 << 24, OPS_MAX = 64 };

struct list { int64_t v[LIST_MAX]; int n; };
struct test { int64_t n_prompt, n_gen, n_depth; };

struct bench {
    const struct cli *c;
    enum report_format format;
    struct list threads, prompt, gen, depth;
    struct test pair[LIST_MAX];
    int n_pairs;
    struct runtime r;
    struct model_info info;
    struct limits limits;
    int32_t *tokens;          /* random ids, as many as the longest run needs */
    int64_t n_ctx;
    bool head_written;
    struct json_out json;
    double seconds[REPS_MAX];
    int n_reps;
    int64_t op_ns[OPS_MAX];   /* --verbose: time by kind of op in the measured runs of one test */
    /* rows of the second table, written at the end */
    struct { struct test t; int threads; struct share share; } shares[LIST_MAX * 4];
    int n_shares;
};

/* ---- what to run ---- */

static status parse_lists(struct bench *b, struct err *e)
{
    const struct cli *c = b->c;
    int64_t p[LIST_MAX], g[LIST_MAX];
    TRY(range_parse(c->threads_list, "--threads", 0, 512, b->threads.v, LIST_MAX, &b->threads.n, e));
    TRY(range_parse(c->n_prompt, "--n-prompt", 0, TOKENS_MAX, b->prompt.v, LIST_MAX, &b->prompt.n, e));
    TRY(range_parse(c->n_gen, "--n-gen", 0, TOKENS_MAX, b->gen.v, LIST_MAX, &b->gen.n, e));
    TRY(range_parse(c->depth, "--n-depth", 0, TOKENS_MAX, b->depth.v, LIST_MAX, &b->depth.n, e));
    if (c->pg) TRY(pair_parse(c->pg, "--pg", 1, TOKENS_MAX, p, g, LIST_MAX, &b->n_pairs, e));
    for (int i = 0; i < b->n_pairs; i++) b->pair[i] = (struct test){ p[i], g[i], 0 };
    return OK;
}

/* The i-th test in llama-bench's order: for each depth the prompts, then generation, then pairs. False past the end. */
static bool test_at(const struct bench *b, int i, struct test *t)
{
    int per_depth = b->prompt.n + b->gen.n + b->n_pairs, d = per_depth ? i / per_depth : 0, j = per_depth ? i % per_depth : 0;
    if (!per_depth || d >= b->depth.n) return false;
    if (j < b->prompt.n) *t = (struct test){ b->prompt.v[j], 0, 0 };
    else if (j < b->prompt.n + b->gen.n) *t = (struct test){ 0, b->gen.v[j - b->prompt.n], 0 };
    else *t = b->pair[j - b->prompt.n - b->gen.n];
    t->n_depth = b->depth.v[d];
    return true;
}

static bool is_empty(const struct test *t) { return t->n_prompt == 0 && t->n_gen == 0; } /* -p 0, -n 0 switch a kind of test off */

static const char *test_name(const struct test *t, char buf[96])
{
    int n = 0;
    if (t->n_prompt) n += snprintf(buf + n, 96 - (size_t)n, "pp%lld", (long long)t->n_prompt);
    if (t->n_gen) n += snprintf(buf + n, 96 - (size_t)n, "%stg%lld", n ? "+" : "", (long long)t->n_gen);
    if (t->n_depth) snprintf(buf + n, 96 - (size_t)n, " @ d%lld", (long long)t->n_depth);
    return buf;
}

/* ---- one run ---- */

static status feed(struct bench *b, int64_t n, int64_t at_a_time, struct err *e)
{
    int64_t begin = session_pos(b->r.session);
    for (int64_t i = 0; i < n; i += at_a_time) {
        int64_t m = min_i64(at_a_time, n - i);
        struct segment seg = { b->r.session, b->tokens + begin + i, m, i + m == n ? m - 1 : m };
        TRY(engine_forward(b->r.engine, &seg, 1, NULL, NULL, e));
    }
    return OK;
}

static status run_once(struct bench *b, const struct test *t, double *seconds, struct err *e)
{
    int64_t n_batch = engine_n_batch(b->r.engine);
    TRY(session_truncate(b->r.session, 0, e));
    TRY(feed(b, t->n_depth, n_batch, e));
    if (b->c->verbose) engine_profile(b->r.engine, true);
    double start = now_seconds();
    TRY(feed(b, t->n_prompt, n_batch, e));
    for (int64_t i = 0; i < t->n_gen; i++) TRY(feed(b, 1, 1, e));
    *seconds = now_seconds() - start;
    return OK;
}

static void add_op_times(struct bench *b)
{
    const char *name;
    int64_t ns;
    for (int i = 0; i < OPS_MAX && engine_op_time(b->r.engine, i, &name, &ns); i++) b->op_ns[i] += ns;
    engine_profile(b->r.engine, false);
}

static status warm_up(struct bench *b, const struct test *t, struct err *e)
{
    double ignored;
    struct test w = { t->n_prompt, min_i64(t->n_gen, 1), 0 };
    return b->c->no_warmup ? OK : run_once(b, &w, &ignored, e);
}

static status run_test(struct bench *b, const struct test *t, struct err *e)
{
    TRY(warm_up(b, t, e));
    b->n_reps = (int)b->c->reps;
    memset(b->op_ns, 0, sizeof b->op_ns);
    for (int i = 0; i < b->n_reps; i++) {
        if (b->c->delay > 0) nanosleep(&(struct timespec){ .tv_sec = (time_t)b->c->delay }, NULL);
        TRY(run_once(b, t, &b->seconds[i], e));
        if (b->c->verbose) add_op_times(b);
    }
    if (!b->c->no_limits) limits_again(&b->limits, b->r.engine);
    return OK;
}

/* Bytes that must be read and multiply-adds that must be done: each pass reads the weights once, and the KV rows so far. */
static struct load load_of(const struct bench *b, const struct test *t)
{
    int64_t n_batch = engine_n_batch(b->r.engine), passes = (t->n_prompt + n_batch - 1) / n_batch + t->n_gen;
    double row = (double)session_bytes(b->r.session) / (double)session_n_ctx(b->r.session);
    double prompt_rows = 0, gen_rows = (double)t->n_gen * ((double)(t->n_depth + t->n_prompt) + 0.5 * (double)t->n_gen);
    double best = b->seconds[0];
    for (int i = 1; i < b->n_reps; i++) best = b->seconds[i] < best ? b->seconds[i] : best;
    for (int64_t i = 0; i < t->n_prompt; i += n_batch) prompt_rows += (double)(t->n_depth + min_i64(i + n_batch, t->n_prompt));
    return (struct load){ (double)passes * (double)b->info.token_bytes + row * (prompt_rows + gen_rows),
                          (double)(t->n_prompt + t->n_gen) * (double)b->info.token_macs, mean_of(b->seconds, b->n_reps), best };
}

/* ---- writing ---- */

static void model_text(const struct bench *b, char buf[64])
{
    double p = (double)b->info.n_params;
    const char *format = format_name(model_gguf(b->r.model), b->info.type);
    if (p < 1e9) snprintf(buf, 64, "%s %.0fM %s", b->info.arch, p * 1e-6, format);
    else snprintf(buf, 64, "%s %.1fB %s", b->info.arch, p * 1e-9, format);
}

/* Columns, widths and rounding of llama-bench. */
static void write_md(struct bench *b, const struct test *t, double mean, double dev)
{
    char model[64], size[32], params[32], name[96], speed[64];
    double bytes = (double)b->info.tensor_bytes, p = (double)b->info.n_params;
    model_text(b, model);
    if (bytes < 0x1p30) snprintf(size, sizeof size, "%.2f MiB", bytes / 0x1p20);
    else snprintf(size, sizeof size, "%.2f GiB", bytes / 0x1p30);
    if (p < 1e9) snprintf(params, sizeof params, "%.2f M", p * 1e-6);
    else snprintf(params, sizeof params, "%.2f B", p * 1e-9);
    snprintf(speed, sizeof speed, "%.2f \xC2\xB1 %.2f", mean, dev);
    if (!b->head_written) {
        out_printf("| %-30s | %10s | %10s | %-10s | %7s | %15s | %20s |\n", "model", "size", "params", "backend", "threads", "test", "t/s");
        out_printf("| %.29s- | %.9s: | %.9s: | %.9s- | %.6s: | %.14s: | %.19s: |\n", "-----------------------------", "---------",
                   "---------", "---------", "------", "--------------", "-------------------");
        b->head_written = true;
    }
    out_printf("| %-30s | %10s | %10s | %-10s | %7d | %15s | %21s |\n", model, size, params, "CPU", pool_threads(engine_pool(b->r.engine)),
               test_name(t, name), speed);
    out_flush();
}

enum { FIELDS_MAX = 32 };

static int collect(struct bench *b, const struct test *t, const double *speed, const struct share *share, struct field *f, char text[2][64])
{
    double ns[REPS_MAX];
    time_t now = time(NULL);
    struct tm tm;
    for (int i = 0; i < b->n_reps; i++) ns[i] = b->seconds[i] * 1e9;
    strftime(text[0], 64, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    model_text(b, text[1]);
    const char *kv = b->c->kv_type ? b->c->kv_type : "f16";
    const struct field rows[] = {
        { "build_commit", FIELD_STR, .str = cuanto_version },
        { "cpu_info", FIELD_STR, .str = b->r.cpu.model },
        { "backends", FIELD_STR, .str = "CPU" },
        { "model_filename", FIELD_STR, .str = b->c->model },
        { "model_type", FIELD_STR, .str = text[1] },
        { "model_size", FIELD_INT, .i = (int64_t)b->info.tensor_bytes },
        { "model_n_params", FIELD_INT, .i = (int64_t)b->info.n_params },
        { "n_batch", FIELD_INT, .i = engine_n_batch(b->r.engine) },
        { "n_ubatch", FIELD_INT, .i = engine_n_batch(b->r.engine) },
        { "n_threads", FIELD_INT, .i = pool_threads(engine_pool(b->r.engine)) },
        { "type_k", FIELD_STR, .str = kv },
        { "type_v", FIELD_STR, .str = kv },
        { "isa", FIELD_STR, .str = engine_kernels(b->r.engine)->name },
        { "n_prompt", FIELD_INT, .i = t->n_prompt },
        { "n_gen", FIELD_INT, .i = t->n_gen },
        { "n_depth", FIELD_INT, .i = t->n_depth },
        { "test_time", FIELD_STR, .str = text[0] },
        { "avg_ns", FIELD_INT, .i = (int64_t)mean_of(ns, b->n_reps) },
        { "stddev_ns", FIELD_INT, .i = (int64_t)stddev_of(ns, b->n_reps) },
        { "avg_ts", FIELD_REAL, .f = mean_of(speed, b->n_reps) },
        { "stddev_ts", FIELD_REAL, .f = stddev_of(speed, b->n_reps) },
        { "percent_of_limit", FIELD_REAL, .f = share->percent },
        { "bound", FIELD_STR, .str = share->bound },
    };
    _Static_assert(sizeof rows <= FIELDS_MAX * sizeof *f, "room for all fields");
    memcpy(f, rows, sizeof rows);
    return ARRAY_LEN(rows);
}

static void write_limits_json(const struct bench *b, struct json_out *o)
{
    const struct limits *l = &b->limits;
    const struct field f[] = {
        { "read_gbps_1", FIELD_REAL, .f = l->read_gbps_1 },     { "read_gbps_n", FIELD_REAL, .f = l->read_gbps_n },
        { "int8_gmacs_1", FIELD_REAL, .f = l->int8_gmacs_1 },   { "f32_gflops_1", FIELD_REAL, .f = l->f32_gflops_1 },
        { "barrier_ns", FIELD_REAL, .f = l->barrier_ns },       { "read_bytes", FIELD_INT, .i = (int64_t)l->read_bytes },
    };
    if (b->c->no_limits) {
        json_put_null(o, "limits");
        return;
    }
    json_begin(o, "limits", '{');
    report_json(o, f, ARRAY_LEN(f));
    json_end(o, '}');
}

static void write_json(struct bench *b, struct json_out *o, const struct field *f, int n, const double *speed)
{
    json_begin(o, NULL, '{');
    report_json(o, f, n);
    json_begin(o, "samples_ns", '[');
    for (int i = 0; i < b->n_reps; i++) json_put_i64(o, NULL, (int64_t)(b->seconds[i] * 1e9));
    json_end(o, ']');
    json_begin(o, "samples_ts", '[');
    for (int i = 0; i < b->n_reps; i++) json_put_f64(o, NULL, speed[i]);
    json_end(o, ']');
    write_limits_json(b, o);
    json_end(o, '}');
}

static void write_test(struct bench *b, const struct test *t)
{
    double speed[REPS_MAX];
    struct share share = { NAN, NULL };
    struct load load = load_of(b, t);
    if (!b->c->no_limits) share = limits_share(&b->limits, &load);
    for (int i = 0; i < b->n_reps; i++) speed[i] = (double)(t->n_prompt + t->n_gen) / b->seconds[i];
    if (b->n_shares < ARRAY_LEN(b->shares)) {
        b->shares[b->n_shares].t = *t;
        b->shares[b->n_shares].threads = b->limits.n_threads;
        b->shares[b->n_shares++].share = share;
    }
    if (b->format == REPORT_MD) {
        write_md(b, t, mean_of(speed, b->n_reps), stddev_of(speed, b->n_reps));
        return;
    }
    struct field f[FIELDS_MAX];
    char text[2][64];
    int n = collect(b, t, speed, &share, f, text);
    if (b->format == REPORT_CSV) {
        if (!b->head_written) report_csv_head(f, n);
        report_csv_row(f, n);
        b->head_written = true;
    } else if (b->format == REPORT_JSONL) {
        struct json_out line;
        json_out_init(&line, false);
        write_json(b, &line, f, n, speed);
        report_out(&line);
    } else {
        write_json(b, &b->json, f, n, speed);
    }
    out_flush();
}

/* Where the time of one test went, by kind of op, largest first; per token, as thread 0 sees it. */
static void write_ops(const struct bench *b, const struct test *t)
{
    double all = 0, tokens = (double)(t->n_prompt + t->n_gen) * b->n_reps;
    bool done[OPS_MAX] = { false };
    const char *name;
    char label[96];
    int64_t ignored;
    int n = 0;
    for (; n < OPS_MAX && engine_op_time(b->r.engine, n, &name, &ignored); n++) all += (double)b->op_ns[n];
    fprintf(stderr, "  %-20s %14s %8s\n", test_name(t, label), "us per token", "share");
    for (;;) {
        int most = -1;
        for (int i = 0; i < n; i++)
            if (!done[i] && b->op_ns[i] > 0 && (most < 0 || b->op_ns[i] > b->op_ns[most])) most = i;
        if (most < 0 || !engine_op_time(b->r.engine, most, &name, &ignored)) break;
        fprintf(stderr, "    %-18s %14.2f %6.1f %%\n", name, (double)b->op_ns[most] * 1e-3 / tokens, 100 * (double)b->op_ns[most] / all);
        done[most] = true;
    }
}

/* After the tests of one thread count: what the machine allows. To stderr, so that stdout holds one table only. */
static void write_limits(const struct bench *b, int from)
{
    const struct limits *l = &b->limits;
    char size[32], name[96];
    if (b->c->quiet) return;
    fprintf(stderr, "%s | SIMD %s\n", b->r.cpu.model, engine_kernels(b->r.engine)->name);
    if (b->c->no_limits) return;
    fprintf(stderr, "limits, %d %s: read %.1f GB/s (one thread %.1f) over %s of weights, ", l->n_threads,
            l->n_threads == 1 ? "thread" : "threads", l->read_gbps_n, l->read_gbps_1, size_text(l->read_bytes, size));
    if (l->int8_gmacs_1 > 0) fprintf(stderr, "int8 tile %.0f GMAC/s per thread, ", l->int8_gmacs_1);
    fprintf(stderr, "f32 tile %.0f GFLOP/s per thread, barrier %.0f ns\n", l->f32_gflops_1, l->barrier_ns);
    for (int i = from; i < b->n_shares; i++)
        fprintf(stderr, "  %-24s %5.1f %% of %s\n", test_name(&b->shares[i].t, name), b->shares[i].share.percent, b->shares[i].share.bound);
}

/* ---- all runs ---- */

static status make_tokens(struct bench *b, struct err *e)
{
    const struct tokenizer *t = model_tokenizer(b->r.model);
    uint64_t x = 0x9e3779b97f4a7c15u;
    if (b->tokens) return OK;
    b->tokens = mem_alloc((size_t)b->n_ctx * sizeof *b->tokens);
    if (!b->tokens) return err_oom(e, "tokens", (size_t)b->n_ctx * sizeof *b->tokens);
    for (int64_t i = 0; i < b->n_ctx; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift64: the same ids in every run */
        b->tokens[i] = (int32_t)(x % (uint64_t)b->info.n_vocab);
    }
    if (tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0) b->tokens[0] = tokenizer_bos(t);
    return OK;
}

static status run_threads(struct bench *b, int64_t n_threads, struct err *e)
{
    struct cli c = *b->c;
    struct test t;
    int from = b->n_shares;
    c.threads = n_threads;
    c.ctx = 0;
    c.quiet = c.quiet || b->n_shares > 0; /* one status line */
    TRY(runtime_open(&b->r, &c, b->n_ctx, e));
    model_info(b->r.model, &b->info);
    status st = make_tokens(b, e);
    if (st == OK && !c.no_limits) st = limits_measure(&b->limits, b->r.engine, e);
    for (int i = 0; st == OK && test_at(b, i, &t); i++) {
        if (is_empty(&t)) continue;
        st = run_test(b, &t, e);
        if (st == OK) write_test(b, &t);
        if (st == OK && c.verbose) write_ops(b, &t);
        if (st == OK && out_status() != 0) break;
    }
    if (st == OK) write_limits(b, from);
    runtime_close(&b->r);
    return st;
}

static status run_all(struct bench *b, struct err *e)
{
    struct test t;
    TRY(parse_lists(b, e));
    for (int i = 0; test_at(b, i, &t); i++) b->n_ctx = max_i64(b->n_ctx, is_empty(&t) ? 0 : t.n_prompt + t.n_gen + t.n_depth);
    if (b->n_ctx == 0) return err_set(e, ERR_USAGE, "nothing to measure: -p %s and -n %s", b->c->n_prompt, b->c->n_gen);
    if (b->format == REPORT_JSON) json_begin(&b->json, NULL, '[');
    for (int i = 0; i < b->threads.n; i++) TRY(run_threads(b, b->threads.v[i], e));
    if (b->format == REPORT_JSON) json_end(&b->json, ']');
    return OK;
}

static int run(struct cli *c)
{
    struct err e = { 0 };
    struct bench *b = mem_calloc(1, sizeof *b);
    if (!b) {
        err_oom(&e, "bench", sizeof *b);
        return cli_fail(&e, NULL);
    }
    b->c = c;
    b->format = report_format(c, REPORT_MD);
    json_out_init(&b->json, true);
    cli_signals_at_once(true); /* rows are out as soon as they are known: nothing to save */
    status st = run_all(b, &e);
    bool good = true;
    if (st == OK && b->format == REPORT_JSON) good = report_out(&b->json);
    else json_out_free(&b->json);
    mem_free(b->tokens);
    mem_free(b);
    if (st == OK && !good && out_status() == 0) st = err_oom(&e, "report", 0);
    return st == OK ? out_status() : cli_fail(&e, NULL);
}

OPT_GROUP(bench_group, "Bench",
    { "n-prompt", "-p", OPT_STR, OPT_AT(n_prompt), .value = "LIST", .def = "512",
      .help = "prompt lengths: 512,1024 or 8-32*2 or 0-1024+256; 0: none" },
    { "n-gen", "-n", OPT_STR, OPT_AT(n_gen), .value = "LIST", .def = "128", .help = "tokens to generate; 0: none" },
    { "pg", "-pg", OPT_STR, OPT_AT(pg), .value = "PP,TG", .help = "prompt and generation in one run, several joined by ';'" },
    { "n-depth", "-d --depth", OPT_STR, OPT_AT(depth), .value = "LIST", .def = "0", .help = "tokens already in the context" },
    { "threads", "-t", OPT_STR, OPT_AT(threads_list), .value = "LIST", .def = "0",
      .help = "threads; 0: one per physical core within the cgroup limit" },
    { "reps", "-r --repetitions", OPT_INT, OPT_AT(reps), .value = "N", .def = "5", .lo = 1, .hi = REPS_MAX,
      .help = "measured runs of each test" },
    { "delay", NULL, OPT_INT, OPT_AT(delay), .value = "SECONDS", .lo = 0, .hi = 3600, .help = "pause before each run" },
    { "format", "-o --output", OPT_STR, OPT_AT(format), .value = "FORMAT", .def = "md", .choices = "md|csv|json|jsonl",
      .help = "of the results on stdout" },
    { "no-warmup", NULL, OPT_FLAG, OPT_AT(no_warmup), .help = "skip the unmeasured run before each test" },
    { "no-limits", NULL, OPT_FLAG, OPT_AT(no_limits), .help = "do not measure what the machine could do" },
    ROW_KV_TYPE("number format of the KV cache"),
    ROW_LORA,
    { "no-mmap", NULL, OPT_FLAG, OPT_AT(no_mmap), .help = "read the file into memory instead of mapping it" });

static const struct opt_group *const groups[] = { &bench_group, &opts_cpu, &opts_common, NULL };

const struct command command_bench = {
    .name = "bench",
    .brief = "measure speed, in llama-bench's columns",
    .usage = "cuanto bench MODEL [options]",
    .examples = "cuanto bench model.gguf\n"
                "cuanto bench model.gguf -p 512,2048 -n 64 -t 1-8*2\n"
                "cuanto bench model.gguf -d 0-4096+1024 --json",
    .groups = groups,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};

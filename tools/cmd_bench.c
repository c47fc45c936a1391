/* bench - speed, measured as llama-bench does and shown in its columns, so that lines of both can stand side by side:
 * pp N = one prompt of N random tokens on an empty context (or after `depth` tokens), tg N = N single tokens; no sampling, no
 * tokenizing; one warm-up, then `reps` runs, mean and sample standard deviation. Beside it the machine's limits (limits.h) and the share
 * of them reached. */
#include <string.h>
#include "ggml-like/pool.h"
#include "tools/bench.h"
#include "tools/opt.h"
#include "tools/ranges.h"

enum { TOKENS_MAX = 1 << 24 };

/* ---- what to run ---- */

/* 1, 2, 3, 4, then every power of two, then all cores that may be used. */
static void sweep_threads(struct bench *b)
{
    struct cpu_info cpu;
    cpu_detect(&cpu);
    int all = b->threads.n == 1 && b->threads.v[0] > 0 ? (int)b->threads.v[0] : cpu.n_threads_default;
    b->threads.n = 0;
    for (int n = 1; n < all; n = n < 4 ? n + 1 : 2 * n) b->threads.v[b->threads.n++] = n;
    b->threads.v[b->threads.n++] = all;
}

static status parse_lists(struct bench *b, struct err *e)
{
    const struct cli *c = b->c;
    int64_t p[BENCH_LIST], g[BENCH_LIST];
    TRY(range_parse(c->threads_list, "--threads", 0, 512, b->threads.v, BENCH_LIST, &b->threads.n, e));
    TRY(range_parse(c->n_prompt, "--n-prompt", 0, TOKENS_MAX, b->prompt.v, BENCH_LIST, &b->prompt.n, e));
    TRY(range_parse(c->n_gen, "--n-gen", 0, TOKENS_MAX, b->gen.v, BENCH_LIST, &b->gen.n, e));
    TRY(range_parse(c->depth, "--n-depth", 0, TOKENS_MAX, b->depth.v, BENCH_LIST, &b->depth.n, e));
    TRY(range_parse(c->n_parallel, "--n-parallel", 1, BENCH_SEQ, b->parallel.v, BENCH_LIST, &b->parallel.n, e));
    if (c->pg) TRY(pair_parse(c->pg, "--pg", 1, TOKENS_MAX, p, g, BENCH_LIST, &b->n_pairs, e));
    for (int i = 0; i < b->n_pairs; i++) b->pair[i] = (struct bench_case){ p[i], g[i], 0, 1 };
    if (c->n_fail_if && !c->compare) return err_set(e, ERR_USAGE, "--fail-if %s: there is nothing to compare with; --compare OLD.json", c->fail_if[0]);
    for (int i = 0; i < c->n_fail_if; i++) TRY(bench_gate_parse(&b->gate[i], c->fail_if[i], e));
    if (c->threads_sweep && b->threads.n > 1) return err_set(e, ERR_USAGE, "--threads %s: --threads-sweep takes one number, the last", c->threads_list);
    if (c->threads_sweep) sweep_threads(b);
    return OK;
}

/* The i-th test in llama-bench's order: for each depth the prompts, then generation, then pairs; all that for each number of sequences. False past
 * the end. */
static bool test_at(const struct bench *b, int i, struct bench_case *t)
{
    int per_depth = b->prompt.n + b->gen.n + b->n_pairs, d = per_depth ? i / per_depth : 0, j = per_depth ? i % per_depth : 0;
    if (!per_depth || d >= b->depth.n * b->parallel.n) return false;
    if (j < b->prompt.n) *t = (struct bench_case){ .n_prompt = b->prompt.v[j] };
    else if (j < b->prompt.n + b->gen.n) *t = (struct bench_case){ .n_gen = b->gen.v[j - b->prompt.n] };
    else *t = b->pair[j - b->prompt.n - b->gen.n];
    t->n_depth = b->depth.v[d % b->depth.n];
    t->n_seq = b->parallel.v[d / b->depth.n];
    return true;
}

static bool is_empty(const struct bench_case *t) { return t->n_prompt == 0 && t->n_gen == 0; } /* -p 0, -n 0 switch a kind of test off */

/* ---- all runs ---- */

static status run_tests(struct bench *b, struct err *e)
{
    char path[4096];
    struct bench_case t;
    int first = b->n_results;
    model_info(b->r.model, &b->info);
    TRY(bench_tokens(b, e));
    if (!b->c->no_limits) {
        TRY(limits_measure(&b->limits, b->r.engine, e));
        TRY(model_find(b->c->model, path, sizeof path, e));
        TRY(limits_pages(&b->limits, path, b->r.cpu.page_size, e));
    }
    for (int i = 0; test_at(b, i, &t) && out_status() == 0; i++) {
        if (is_empty(&t)) continue;
        TRY(bench_test(b, &t, e));
        bench_row(b, &b->result[b->n_results - 1]);
        if (b->c->verbose) bench_ops(b, &b->result[b->n_results - 1], false);
    }
    bench_limits(b, first);
    return OK;
}

static status run_threads(struct bench *b, int64_t n_threads, bool last, struct err *e)
{
    const struct cli *all = b->c;
    struct cli c = *b->c;
    c.threads = n_threads;
    c.ctx = 0;
    c.quiet = c.quiet || b->n_results > 0; /* one status line */
    TRY(runtime_open(&b->r, &c, b->n_ctx, e));
    status st = run_tests(b, e);
    if (st == OK && last && b->format == REPORT_MD) {
        for (int i = 0; all->ops && i < b->n_results; i++) bench_ops(b, &b->result[i], true);
        if (b->old) compare_table(b);
    }
    for (int i = 1; i < BENCH_SEQ; i++) {
        session_close(b->more[i]);
        b->more[i] = NULL;
    }
    runtime_close(&b->r);
    return st;
}

static bool is_results(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && (!strcmp(dot, ".json") || !strcmp(dot, ".jsonl"));
}

static status run_all(struct bench *b, struct err *e)
{
    const struct cli *c = b->c;
    struct bench_case t;
    TRY(parse_lists(b, e));
    if (c->compare) TRY(old_open(&b->old, c->compare, e));
    if (b->format == REPORT_JSON) json_begin(&b->json, NULL, '[');
    if (c->kernels) {
        struct cli one = *c;
        one.threads = b->threads.v[b->threads.n - 1];
        b->c = &one;
        status st = bench_kernels(b, e);
        b->c = c;
        TRY(st);
    } else if (c->compare && is_results(c->model)) {
        TRY(compare_files(b, e));
    } else {
        for (int i = 0; test_at(b, i, &t); i++) {
            b->n_ctx = max_i64(b->n_ctx, is_empty(&t) ? 0 : t.n_prompt + t.n_gen + t.n_depth);
            b->n_seq_max = max_i64(b->n_seq_max, t.n_seq);
        }
        if (b->n_ctx == 0) return err_set(e, ERR_USAGE, "nothing to measure: -p %s and -n %s", c->n_prompt, c->n_gen);
        for (int i = 0; i < b->threads.n; i++) TRY(run_threads(b, b->threads.v[i], i == b->threads.n - 1, e));
    }
    if (b->format == REPORT_JSON) json_end(&b->json, ']');
    return OK;
}

static void release(struct bench *b)
{
    for (int i = 0; i < b->n_results; i++) mem_free(b->result[i].seconds);
    mem_free(b->result);
    mem_free(b->tokens);
    old_close(b->old);
    mem_free(b);
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
    b->times_ops = c->ops || c->verbose;
    b->format = report_format(c, REPORT_MD);
    json_out_init(&b->json, true);
    cli_signals_at_once(true); /* rows are out as soon as they are known: nothing to save */
    status st = run_all(b, &e), gates = OK;
    bool good = true;
    if (st == OK && b->format == REPORT_JSON) good = report_out(&b->json);
    else json_out_free(&b->json);
    if (st == OK && b->old) gates = bench_gates(b);
    release(b);
    if (st == OK && !good && out_status() == 0) st = err_oom(&e, "report", 0);
    if (st != OK) return cli_fail(&e, NULL);
    return gates != OK ? (int)gates : out_status();
}

OPT_GROUP(bench_group, "Bench",
    { "n-prompt", "-p", OPT_STR, OPT_AT(n_prompt), .value = "LIST", .def = "512",
      .help = "prompt lengths: 512,1024 or 8-32*2 or 0-1024+256; 0: none" },
    { "n-gen", "-n", OPT_STR, OPT_AT(n_gen), .value = "LIST", .def = "128", .help = "tokens to generate; 0: none" },
    { "pg", "-pg", OPT_STR, OPT_AT(pg), .value = "PP,TG", .help = "prompt and generation in one run, several joined by ';'" },
    { "n-depth", "-d --depth", OPT_STR, OPT_AT(depth), .value = "LIST", .def = "0", .help = "tokens already in the context" },
    { "n-parallel", "-npl --parallel", OPT_STR, OPT_AT(n_parallel), .value = "LIST", .def = "1",
      .help = "sequences side by side, as llama-batched-bench; t/s counts the tokens of all" },
    { "threads", "-t", OPT_STR, OPT_AT(threads_list), .value = "LIST", .def = "0",
      .help = "threads; 0: one per physical core within the cgroup limit" },
    { "threads-sweep", NULL, OPT_FLAG, OPT_AT(threads_sweep), .help = "1, 2, 3, 4, 8, ... up to -t; adds speed-up, efficiency and the limit that binds" },
    { "reps", "-r --repetitions", OPT_INT, OPT_AT(reps), .value = "N", .def = "5", .lo = 1, .hi = BENCH_REPS,
      .help = "measured runs of each test" },
    { "delay", NULL, OPT_INT, OPT_AT(delay), .value = "SECONDS", .lo = 0, .hi = 3600, .help = "pause before each run" },
    { "ops", NULL, OPT_FLAG, OPT_AT(ops), .help = "where the time went, by kind of op: in tables, columns or members of the results" },
    { "kernels", NULL, OPT_STR, OPT_AT(kernels), .value = "TYPES", .implied = "",
      .help = "in place of the tests: the hot loops by themselves, for the model's formats, those listed (q4_k,q6_k), or all" },
    { "compare", NULL, OPT_STR, OPT_AT(compare), .value = "OLD",
      .help = "results of an earlier --json, also llama-bench's, beside the new ones (see below)" },
    { "fail-if", NULL, OPT_LIST, OPT_AT(fail_if), OPT_AT(n_fail_if), BENCH_GATES, .value = "COND",
      .help = "with --compare: exit code 6 when it holds: 'pp512<0.95' (new by old), 'tg128@d4096<1', 'all<0.9'; repeatable" },
    { "format", "-o --output", OPT_STR, OPT_AT(format), .value = "FORMAT", .def = "md", .choices = "md|csv|json|jsonl",
      .help = "of the results on stdout" },
    { "no-warmup", NULL, OPT_FLAG, OPT_AT(no_warmup), .help = "skip the unmeasured run before each test" },
    { "no-limits", NULL, OPT_FLAG, OPT_AT(no_limits), .help = "do not measure what the machine could do" },
    ROW_KV_TYPE("number format of the KV cache"),
    ROW_LORA,
    { "no-mmap", NULL, OPT_FLAG, OPT_AT(no_mmap), .help = "read the file into memory instead of mapping it" });

static const struct opt_group *const groups[] = { &bench_group, &opts_cpu, &opts_common, NULL };

static void more(void)
{
    out_printf("\nComparing: rows belong together when file name, test, threads, SIMD level and KV types are equal. ratio = median speed now by median\n"
               "speed then; p = two-sided Mann-Whitney test over the samples of both (exact up to 60). faster, slower: p < 0.01 (5 runs against 5\n"
               "can reach it, 3 against 3 cannot); with a question mark: p < 0.05. The test sees noise within the two runs, not what changed on the\n"
               "machine between them. Two files are compared without running anything: cuanto bench new.json --compare old.json\n");
}

const struct command command_bench = {
    .name = "bench",
    .brief = "measure speed, in llama-bench's columns",
    .usage = "cuanto bench MODEL [options]",
    .examples = "cuanto bench model.gguf -p 512,2048 -n 64 -t 1-8*2 -d 0-4096+1024\n"
                "cuanto bench model.gguf --json >old.json; cuanto bench model.gguf --compare old.json --fail-if 'pp512<0.95'\n"
                "cuanto bench model.gguf --kernels",
    .groups = groups,
    .more = more,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};

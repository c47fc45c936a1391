/* bench_report - results of `cuanto bench` in the format asked for: see bench.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"
#include "tools/bench.h"
#include "tools/opt.h"

enum { FIELDS_MAX = 48 + BENCH_OPS };
struct row_text { char time[32], model[64], op[BENCH_OPS][32]; };

const char *bench_model_text(const struct model_info *info, const struct gguf *g, char buf[64])
{
    double p = (double)info->n_params;
    const char *format = format_name(g, info->type);
    if (p < 1e9) snprintf(buf, 64, "%s %.0fM %s", info->arch, p * 1e-6, format);
    else snprintf(buf, 64, "%s %.1fB %s", info->arch, p * 1e-9, format);
    return buf;
}

/* ---- Markdown: columns, widths and rounding of llama-bench; --threads-sweep adds three ---- */

static void md_head(const struct bench *b)
{
    out_printf("| %-30s | %10s | %10s | %-10s | %7s | %15s | %20s |", "model", "size", "params", "backend", "threads", "test", "t/s");
    out_printf(b->c->threads_sweep ? " speed-up | efficiency |           of limit |\n" : "\n");
    out_printf("| %.29s- | %.9s: | %.9s: | %.9s- | %.6s: | %.14s: | %.19s: |", "-----------------------------", "---------", "---------", "---------",
               "------", "--------------", "-------------------");
    out_printf(b->c->threads_sweep ? " -------: | ---------: | -----------------: |\n" : "\n");
}

static void md_row(struct bench *b, const struct result *r, double mean, double dev)
{
    char model[64], size[32], params[32], name[96], speed[64], limit[64] = "";
    double bytes = (double)b->info.tensor_bytes, p = (double)b->info.n_params;
    if (bytes < 0x1p30) snprintf(size, sizeof size, "%.2f MiB", bytes / 0x1p20);
    else snprintf(size, sizeof size, "%.2f GiB", bytes / 0x1p30);
    if (p < 1e9) snprintf(params, sizeof params, "%.2f M", p * 1e-6);
    else snprintf(params, sizeof params, "%.2f B", p * 1e-9);
    snprintf(speed, sizeof speed, "%.2f \xC2\xB1 %.2f", mean, dev);
    if (!b->head_written) md_head(b);
    b->head_written = true;
    bench_model_text(&b->info, model_gguf(b->r.model), model);
    case_name(&r->t, name);
    out_printf("| %-30s | %10s | %10s | %-10s | %7d | %15s | %21s |", model, size, params, "CPU", r->threads, name, speed);
    if (b->c->threads_sweep) {
        if (r->share.bound) snprintf(limit, sizeof limit, "%.1f %% %s", r->share.percent, r->share.bound);
        out_printf(" %8.2f | %8.1f %% | %18s |", r->speedup, 100 * r->speedup / r->threads, limit);
    }
    out_printf("\n");
}

/* ---- fields ---- */

static int collect(const struct bench *b, const struct result *r, const double *speed, struct field *f, struct row_text *text)
{
    double ns[BENCH_REPS];
    time_t now = time(NULL);
    struct tm tm;
    for (int i = 0; i < r->n; i++) ns[i] = r->seconds[i] * 1e9;
    strftime(text->time, sizeof text->time, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    const char *kv = b->c->kv_type ? b->c->kv_type : "f16";
    const struct field rows[] = {
        { "build_commit", FIELD_STR, .str = cuanto_version },
        { "cpu_info", FIELD_STR, .str = b->r.cpu.model },
        { "backends", FIELD_STR, .str = "CPU" },
        { "model_filename", FIELD_STR, .str = b->c->model },
        { "model_type", FIELD_STR, .str = bench_model_text(&b->info, model_gguf(b->r.model), text->model) },
        { "model_size", FIELD_INT, .i = (int64_t)b->info.tensor_bytes },
        { "model_n_params", FIELD_INT, .i = (int64_t)b->info.n_params },
        { "n_batch", FIELD_INT, .i = engine_n_batch(b->r.engine) },
        { "n_ubatch", FIELD_INT, .i = engine_n_batch(b->r.engine) },
        { "n_threads", FIELD_INT, .i = r->threads },
        { "type_k", FIELD_STR, .str = kv },
        { "type_v", FIELD_STR, .str = kv },
        { "isa", FIELD_STR, .str = engine_kernels(b->r.engine)->name },
        { "n_prompt", FIELD_INT, .i = r->t.n_prompt },
        { "n_gen", FIELD_INT, .i = r->t.n_gen },
        { "n_depth", FIELD_INT, .i = r->t.n_depth },
        { "n_parallel", FIELD_INT, .i = r->t.n_seq },
        { "test_time", FIELD_STR, .str = text->time },
        { "avg_ns", FIELD_INT, .i = (int64_t)mean_of(ns, r->n) },
        { "stddev_ns", FIELD_INT, .i = (int64_t)stddev_of(ns, r->n) },
        { "avg_ts", FIELD_REAL, .f = mean_of(speed, r->n) },
        { "stddev_ts", FIELD_REAL, .f = stddev_of(speed, r->n) },
        { "percent_of_bandwidth", FIELD_REAL, .f = r->share.bandwidth },
        { "percent_of_compute", FIELD_REAL, .f = r->share.compute },
        { "percent_of_limit", FIELD_REAL, .f = r->share.percent },
        { "bound", FIELD_STR, .str = r->share.bound },
        { "speedup", FIELD_REAL, .f = r->speedup },
        { "efficiency", FIELD_REAL, .f = r->speedup / r->threads },
    };
    const struct field compared[] = {
        { "old_ts", FIELD_REAL, .f = r->old.text ? r->old.old_ts : NAN },
        { "ratio", FIELD_REAL, .f = r->old.text ? r->old.ratio : NAN },
        { "p_value", FIELD_REAL, .f = r->old.text ? r->old.p : NAN },
        { "verdict", FIELD_STR, .str = r->old.text },
    };
    _Static_assert(ARRAY_LEN(rows) + ARRAY_LEN(compared) + BENCH_OPS <= FIELDS_MAX, "room for all fields");
    memcpy(f, rows, sizeof rows);
    if (b->old) memcpy(f + ARRAY_LEN(rows), compared, sizeof compared);
    return ARRAY_LEN(rows) + (b->old ? ARRAY_LEN(compared) : 0);
}

/* CSV has a column for every kind of op, used or not: rows of different models fit together. */
static int collect_ops(const struct bench *b, const struct result *r, struct field *f, struct row_text *text)
{
    const char *name;
    int64_t ignored;
    for (int i = 0; i < r->n_ops && engine_op_time(b->r.engine, i, &name, &ignored); i++) {
        snprintf(text->op[i], sizeof text->op[i], "us_%s", name);
        f[i] = (struct field){ text->op[i], FIELD_REAL, .f = (double)r->op_ns[i] * 1e-3 / ((double)case_tokens(&r->t) * r->n) };
    }
    return r->n_ops;
}

/* ---- JSON ---- */

static void limits_json(const struct bench *b, struct json_out *o)
{
    const struct limits *l = &b->limits;
    const struct field f[] = {
        { "read_gbps_1", FIELD_REAL, .f = l->read_gbps_1 },     { "read_gbps_n", FIELD_REAL, .f = l->read_gbps_n },
        { "int8_gmacs_1", FIELD_REAL, .f = l->int8_gmacs_1 },   { "bf16_gmacs_1", FIELD_REAL, .f = l->bf16_gmacs_1 },
        { "f32_gflops_1", FIELD_REAL, .f = l->f32_gflops_1 },
        { "dot_gmacs_1", FIELD_REAL, .f = l->dot_gmacs_1 },     { "clock_ghz", FIELD_REAL, .f = l->clock_ghz },
        { "barrier_ns", FIELD_REAL, .f = l->barrier_ns },
        { "fresh_gbps", FIELD_REAL, .f = l->fresh_gbps },       { "fault_ns", FIELD_REAL, .f = l->fault_ns > 0 ? l->fault_ns : NAN },
        { "read_bytes", FIELD_INT, .i = (int64_t)l->read_bytes },
    };
    if (b->c->no_limits) {
        json_put_null(o, "limits");
        return;
    }
    json_begin(o, "limits", '{');
    report_json(o, f, ARRAY_LEN(f));
    json_begin(o, "read_gbps", '{');
    for (int i = 0; i < l->n_reads; i++) {
        char threads[16];
        snprintf(threads, sizeof threads, "%d", l->read_threads[i]);
        json_put_f64(o, threads, l->read_gbps[i]);
    }
    json_end(o, '}');
    json_end(o, '}');
}

static void ops_json(const struct bench *b, const struct result *r, struct json_out *o)
{
    const char *name;
    int64_t ignored;
    json_begin(o, "ops_us_per_token", '{');
    for (int i = 0; i < r->n_ops && engine_op_time(b->r.engine, i, &name, &ignored); i++)
        if (r->op_ns[i] > 0) json_put_f64(o, name, (double)r->op_ns[i] * 1e-3 / ((double)case_tokens(&r->t) * r->n));
    json_end(o, '}');
}

static void row_json(const struct bench *b, const struct result *r, struct json_out *o, const struct field *f, int n, const double *speed)
{
    json_begin(o, NULL, '{');
    report_json(o, f, n);
    json_begin(o, "samples_ns", '[');
    for (int i = 0; i < r->n; i++) json_put_i64(o, NULL, (int64_t)(r->seconds[i] * 1e9));
    json_end(o, ']');
    json_begin(o, "samples_ts", '[');
    for (int i = 0; i < r->n; i++) json_put_f64(o, NULL, speed[i]);
    json_end(o, ']');
    limits_json(b, o);
    if (b->c->ops) ops_json(b, r, o);
    json_end(o, '}');
}

/* ---- one row ---- */

void bench_row(struct bench *b, const struct result *r)
{
    double speed[BENCH_REPS];
    struct field f[FIELDS_MAX];
    struct row_text text;
    result_speed(r, speed);
    if (b->format == REPORT_MD) {
        md_row(b, r, mean_of(speed, r->n), stddev_of(speed, r->n));
        out_flush();
        return;
    }
    int n = collect(b, r, speed, f, &text);
    if (b->format == REPORT_CSV) {
        if (b->c->ops) n += collect_ops(b, r, f + n, &text);
        if (!b->head_written) report_csv_head(f, n);
        report_csv_row(f, n);
        b->head_written = true;
    } else if (b->format == REPORT_JSONL) {
        struct json_out line;
        json_out_init(&line, false);
        row_json(b, r, &line, f, n, speed);
        report_out(&line);
    } else {
        row_json(b, r, &b->json, f, n, speed);
    }
    out_flush();
}

/* ---- where the time of one test went ---- */

/* By kind of op, largest first; per token, as thread 0 sees it, waiting included. */
void bench_ops(const struct bench *b, const struct result *r, bool to_stdout)
{
    double all = 0, tokens = (double)case_tokens(&r->t) * r->n;
    bool done[BENCH_OPS] = { false };
    const char *name;
    char label[96];
    int64_t ignored;
    for (int i = 0; i < r->n_ops; i++) all += (double)r->op_ns[i];
    case_name(&r->t, label);
    if (to_stdout) out_printf("\n| op, %s, %d %s | us per token | share |\n| --- | --: | --: |\n", label, r->threads, r->threads == 1 ? "thread" : "threads");
    else fprintf(stderr, "  %-20s %14s %8s\n", label, "us per token", "share");
    for (;;) {
        int most = -1;
        for (int i = 0; i < r->n_ops; i++)
            if (!done[i] && r->op_ns[i] > 0 && (most < 0 || r->op_ns[i] > r->op_ns[most])) most = i;
        if (most < 0 || !engine_op_time(b->r.engine, most, &name, &ignored)) break;
        double us = (double)r->op_ns[most] * 1e-3 / tokens, share = 100 * (double)r->op_ns[most] / all;
        if (to_stdout) out_printf("| %s | %.2f | %.1f %% |\n", name, us, share);
        else fprintf(stderr, "    %-18s %14.2f %6.1f %%\n", name, us, share);
        done[most] = true;
    }
}

/* ---- limits ---- */

/* After the tests of one thread count: what the machine allows, and the share of it that each got. To stderr, so that stdout holds one table only. */
void bench_limits(const struct bench *b, int first)
{
    const struct limits *l = &b->limits;
    char size[32], name[96];
    if (b->c->quiet) return;
    fprintf(stderr, "%s | SIMD %s", b->r.cpu.model, engine_kernels(b->r.engine)->name);
    if (b->c->no_limits) {
        fputs("\n", stderr);
        return;
    }
    fprintf(stderr, " | %.2f GHz\nlimits, %d %s: read", l->clock_ghz, l->n_threads, l->n_threads == 1 ? "thread" : "threads");
    for (int i = 0; i < l->n_reads; i++) fprintf(stderr, "%s %.1f", i ? " /" : "", i == l->n_reads - 1 ? l->read_gbps_n : l->read_gbps[i]);
    fprintf(stderr, " GB/s by");
    for (int i = 0; i < l->n_reads; i++) fprintf(stderr, "%s %d", i ? " /" : "", l->read_threads[i]);
    fprintf(stderr, " over %s of weights\n  one thread:", size_text(l->read_bytes, size));
    if (l->int8_gmacs_1 > 0) fprintf(stderr, " int8 tile %.0f GMAC/s (%.0f a cycle),", l->int8_gmacs_1, l->int8_gmacs_1 / l->clock_ghz);
    if (l->bf16_gmacs_1 > 0) fprintf(stderr, " bf16 tile %.0f GMAC/s (%.0f a cycle),", l->bf16_gmacs_1, l->bf16_gmacs_1 / l->clock_ghz);
    fprintf(stderr, " f32 tile %.0f GFLOP/s (%.0f MAC a cycle)", l->f32_gflops_1, l->f32_gflops_1 / 2 / l->clock_ghz);
    if (l->dot_gmacs_1 > 0) fprintf(stderr, ", row-dot %.1f GMAC/s (%.1f a cycle)", l->dot_gmacs_1, l->dot_gmacs_1 / l->clock_ghz);
    fputs("\n", stderr);
    fprintf(stderr, "  barrier %.0f ns", l->barrier_ns);
    if (l->fresh_gbps > 0) fprintf(stderr, ", fresh memory %.2f GB/s", l->fresh_gbps);
    if (l->fault_ns > 0) fprintf(stderr, ", a page of the mapped file %.0f ns", l->fault_ns);
    fputs("\n", stderr);
    if (l->barrier_mean_ns > LIMITS_SHARED_NS)
        fprintf(stderr, "note: at %.0f us a barrier on average, the threads share a core with each other or with other work: these figures say little\n",
                l->barrier_mean_ns * 1e-3);
    for (int i = first; i < b->n_results; i++) { /* of the limits above, which every test may have raised */
        struct share s = limits_share(l, &b->result[i].load);
        fprintf(stderr, "  %-24s %5.1f %% of bandwidth, %5.1f %% of compute\n", case_name(&b->result[i].t, name), s.bandwidth, s.compute);
    }
}

/* bench_compare - an earlier run of `cuanto bench` (or llama-bench) beside this one: see bench.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ggml-like/arena.h"
#include "ggml-like/kernels/kernels.h"
#include "tools/bench.h"

enum { OLD_BYTES = 256 << 20, OLD_ROWS = 65536, RANK_EXACT = 60 };

struct old_row {
    const char *model, *type_k, *type_v, *isa; /* NULL: not said */
    struct bench_case t;
    int64_t threads;
    const double *ts;                          /* [n] tokens per second, one per sample */
    int n;
};
struct old_results {
    struct arena a;
    char *text;
    struct old_row *row;
    int n_rows, cap;
};

/* ---- reading ---- */

static const char *text_of(const struct json *o, const char *key)
{
    const struct json *v = json_get(o, key);
    return v && v->kind == JSON_STR ? v->str : NULL;
}

static status number_of(const struct json *o, const char *key, int64_t absent, int64_t *out, const char *path, struct err *e)
{
    const struct json *v = json_get(o, key);
    *out = absent;
    if (!v) return OK;
    if (v->kind != JSON_INT || v->i < 0 || v->i > 1 << 24) return err_set(e, ERR_FORMAT, "%s: %s is not a number in 0..%d", path, key, 1 << 24);
    *out = v->i;
    return OK;
}

static double real_of(const struct json *v) { return v->kind == JSON_INT ? (double)v->i : v->kind == JSON_FLOAT ? v->f : NAN; }

/* Samples are times, or speeds where a file has only those. */
static status read_samples(struct old_results *r, struct old_row *row, const struct json *o, const char *path, struct err *e)
{
    const struct json *ns = json_get(o, "samples_ns"), *list = ns ? ns : json_get(o, "samples_ts");
    int n = 0;
    if (!list || list->kind != JSON_ARR || !list->child) return err_set(e, ERR_FORMAT, "%s: a row without samples_ns: not results of bench --json", path);
    for (const struct json *v = list->child; v; v = v->next) n++;
    double *ts = arena_zalloc(&r->a, (size_t)n, sizeof *ts);
    if (!ts) return err_oom(e, path, (size_t)n * sizeof *ts);
    row->n = 0;
    for (const struct json *v = list->child; v; v = v->next) {
        double x = real_of(v);
        if (!(x > 0) || !isfinite(x)) return err_set(e, ERR_FORMAT, "%s: a sample is %g, expected a positive number", path, x);
        ts[row->n++] = ns ? (double)case_tokens(&row->t) * 1e9 / x : x;
    }
    row->ts = ts;
    return OK;
}

static status read_row(struct old_results *r, const struct json *o, const char *path, struct err *e)
{
    struct old_row row = { 0 };
    if (o->kind != JSON_OBJ) return err_set(e, ERR_FORMAT, "%s: a row is no JSON object: not results of bench --json", path);
    row.model = text_of(o, "model_filename");
    row.type_k = text_of(o, "type_k"), row.type_v = text_of(o, "type_v"), row.isa = text_of(o, "isa");
    TRY(number_of(o, "n_prompt", 0, &row.t.n_prompt, path, e));
    TRY(number_of(o, "n_gen", 0, &row.t.n_gen, path, e));
    TRY(number_of(o, "n_depth", 0, &row.t.n_depth, path, e));
    TRY(number_of(o, "n_parallel", 1, &row.t.n_seq, path, e));
    TRY(number_of(o, "n_threads", 0, &row.threads, path, e));
    if (case_tokens(&row.t) == 0) return err_set(e, ERR_FORMAT, "%s: a row without n_prompt and n_gen", path);
    TRY(read_samples(r, &row, o, path, e));
    if (r->n_rows == OLD_ROWS) return err_set(e, ERR_FORMAT, "%s: more than %d rows", path, OLD_ROWS);
    if (r->n_rows == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 64;
        struct old_row *more = mem_realloc(r->row, (size_t)r->cap * sizeof *more);
        if (!more) return err_oom(e, path, (size_t)r->cap * sizeof *more);
        r->row = more;
    }
    r->row[r->n_rows++] = row;
    return OK;
}

/* One array of rows, or a row a line. */
static status read_rows(struct old_results *r, const char *path, size_t n, struct err *e)
{
    struct json *v;
    const char *p = r->text + strspn(r->text, " \t\r\n");
    if (*p == '[') {
        TRY(json_parse(&v, r->text, n, &r->a, path, e));
        for (const struct json *o = v->child; o; o = o->next) TRY(read_row(r, o, path, e));
    } else {
        while (*p) {
            size_t len = strcspn(p, "\n");
            TRY(json_parse(&v, p, len, &r->a, path, e));
            TRY(read_row(r, v, path, e));
            p += len;
            p += strspn(p, " \t\r\n");
        }
    }
    return r->n_rows ? OK : err_set(e, ERR_FORMAT, "%s: no results in it", path);
}

status old_open(struct old_results **out, const char *path, struct err *e)
{
    size_t n;
    struct old_results *r = mem_calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return err_oom(e, path, sizeof *r);
    arena_init(&r->a, 0);
    status st = file_text(path, OLD_BYTES, &r->text, &n, e);
    if (st == OK) st = read_rows(r, path, n, e);
    if (st == OK) *out = r;
    else old_close(r);
    return st;
}

void old_close(struct old_results *r)
{
    if (!r) return;
    arena_free(&r->a);
    mem_free(r->text);
    mem_free(r->row);
    mem_free(r);
}

/* ---- is it a difference ---- */

struct ranked { double v; bool first; int rank2; }; /* twice the rank: ties share the middle one */

static int by_value(const void *a, const void *b)
{
    double x = ((const struct ranked *)a)->v, y = ((const struct ranked *)b)->v;
    return (x > y) - (x < y);
}

/* Ways to pick n_a of the n ranks by their sum: how many of all picks lie at least as far from the middle as this one. */
static double exact_p(const struct ranked *r, int n, int n_a, int sum2)
{
    int top = n * (n + 1) + 1; /* sums of doubled ranks are below */
    double all = 0, far = 0, middle = (double)n_a * (n + 1);
    double *ways = mem_calloc((size_t)(n_a + 1) * (size_t)top, sizeof *ways);
    if (!ways) return 1;
    ways[0] = 1;
    for (int i = 0; i < n; i++)
        for (int k = i + 1 < n_a ? i + 1 : n_a; k > 0; k--)
            for (int s = top - 1; s >= r[i].rank2; s--) ways[k * top + s] += ways[(k - 1) * top + s - r[i].rank2];
    for (int s = 0; s < top; s++) {
        double w = ways[n_a * top + s];
        all += w;
        if (fabs(s - middle) >= fabs(sum2 - middle)) far += w;
    }
    mem_free(ways);
    return far / all;
}

/* Mean and variance of the rank sum under exchange, ties included: the ranks are what was drawn from. */
static double normal_p(const struct ranked *r, int n, int n_a, int sum2)
{
    double mean = 0, var = 0;
    for (int i = 0; i < n; i++) mean += r[i].rank2 * 0.5 / n;
    for (int i = 0; i < n; i++) var += (r[i].rank2 * 0.5 - mean) * (r[i].rank2 * 0.5 - mean) / (n - 1);
    var *= (double)n_a * (n - n_a) / n;
    if (!(var > 0)) return 1;
    double far = fabs(sum2 * 0.5 - n_a * mean) - 0.5;
    return far > 0 ? erfc(far / sqrt(2 * var)) : 1;
}

double compare_p(const double *a, int n_a, const double *b, int n_b)
{
    int n = n_a + n_b, sum2 = 0;
    if (n_a < 1 || n_b < 1) return 1;
    struct ranked *r = mem_calloc((size_t)n, sizeof *r);
    if (!r) return 1;
    for (int i = 0; i < n; i++) r[i] = (struct ranked){ .v = i < n_a ? a[i] : b[i - n_a], .first = i < n_a };
    qsort(r, (size_t)n, sizeof *r, by_value);
    for (int i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && r[j].v == r[i].v; j++) continue;
        for (int k = i; k < j; k++) r[k].rank2 = i + j + 1; /* the mean of i + 1 .. j, doubled */
    }
    for (int i = 0; i < n; i++) sum2 += r[i].first ? r[i].rank2 : 0;
    double p = n <= RANK_EXACT ? exact_p(r, n, n_a, sum2) : normal_p(r, n, n_a, sum2);
    mem_free(r);
    return p;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(const double *x, int n)
{
    double *sorted = mem_alloc((size_t)n * sizeof *sorted), m = NAN;
    if (!sorted) return m;
    memcpy(sorted, x, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    m = n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
    mem_free(sorted);
    return m;
}

/* ---- matching ---- */

static bool fits(const char *a, const char *b) { return !a || !b || !strcmp(a, b); }

/* A path and a name of the same model: "/x/m.gguf", "m". */
static bool same_model(const char *a, const char *b)
{
    if (!a || !b) return true;
    a = path_base(a), b = path_base(b);
    size_t n_a = strlen(a), n_b = strlen(b);
    if (n_a > 5 && !strcmp(a + n_a - 5, ".gguf")) n_a -= 5;
    if (n_b > 5 && !strcmp(b + n_b - 5, ".gguf")) n_b -= 5;
    return n_a == n_b && !memcmp(a, b, n_a);
}

/* The last row that fits: a file of lines may have been appended to. */
static const struct old_row *old_find(const struct old_results *o, const struct old_row *want)
{
    for (int i = o->n_rows - 1; i >= 0; i--) {
        const struct old_row *r = &o->row[i];
        if (r->threads == want->threads && case_same(&r->t, &want->t) && fits(r->isa, want->isa) && fits(r->type_k, want->type_k) &&
            fits(r->type_v, want->type_v) && same_model(r->model, want->model))
            return r;
    }
    return NULL;
}

static struct verdict judge(const struct old_results *o, const struct old_row *now)
{
    const struct old_row *old = old_find(o, now);
    if (!old) return (struct verdict){ .text = NULL };
    struct verdict v = { .old_ts = median_of(old->ts, old->n), .p = compare_p(old->ts, old->n, now->ts, now->n) };
    v.ratio = median_of(now->ts, now->n) / v.old_ts;
    if (v.p < 0.01) v.text = v.ratio >= 1 ? "faster" : "slower";
    else if (v.p < 0.05) v.text = v.ratio >= 1 ? "faster?" : "slower?";
    else v.text = "same";
    return v;
}

void old_verdict(struct bench *b, struct result *r)
{
    double speed[BENCH_REPS];
    const char *kv = b->c->kv_type ? b->c->kv_type : "f16";
    result_speed(r, speed);
    struct old_row now = { b->c->model, kv, kv, engine_kernels(b->r.engine)->name, r->t, r->threads, speed, r->n };
    r->old = judge(b->old, &now);
}

/* ---- tables ---- */

static void table_head(void)
{
    out_printf("| %-30s | %7s | %15s | %10s | %10s | %6s | %7s | %-7s |\n", "model", "threads", "test", "old t/s", "new t/s", "ratio", "p", "");
    out_printf("| %.30s | %.6s: | %.14s: | %.9s: | %.9s: | %.5s: | %.6s: | ------- |\n", "------------------------------", "------", "--------------",
               "---------", "---------", "-----", "------");
}

static void table_row(const char *model, const struct bench_case *t, int64_t threads, double ts, const struct verdict *v)
{
    char name[96];
    case_name(t, name);
    if (v->text)
        out_printf("| %-30s | %7lld | %15s | %10.2f | %10.2f | %6.3f | %7.4f | %-7s |\n", model, (long long)threads, name, v->old_ts, ts, v->ratio, v->p,
                   v->text);
    else
        out_printf("| %-30s | %7lld | %15s | %10s | %10.2f | %6s | %7s | %-7s |\n", model, (long long)threads, name, "-", ts, "-", "-", "no old");
}

void compare_table(const struct bench *b)
{
    double speed[BENCH_REPS];
    out_printf("\n");
    table_head();
    for (int i = 0; i < b->n_results; i++) {
        const struct result *r = &b->result[i];
        result_speed(r, speed);
        table_row(path_base(b->c->model), &r->t, r->threads, median_of(speed, r->n), &r->old);
    }
}

static int row_fields(const struct old_row *r, const struct verdict *v, struct field *f)
{
    const struct field rows[] = {
        { "model_filename", FIELD_STR, .str = r->model },
        { "isa", FIELD_STR, .str = r->isa },
        { "n_threads", FIELD_INT, .i = r->threads },
        { "n_prompt", FIELD_INT, .i = r->t.n_prompt },
        { "n_gen", FIELD_INT, .i = r->t.n_gen },
        { "n_depth", FIELD_INT, .i = r->t.n_depth },
        { "n_parallel", FIELD_INT, .i = r->t.n_seq },
        { "new_ts", FIELD_REAL, .f = median_of(r->ts, r->n) },
        { "old_ts", FIELD_REAL, .f = v->text ? v->old_ts : NAN },
        { "ratio", FIELD_REAL, .f = v->text ? v->ratio : NAN },
        { "p_value", FIELD_REAL, .f = v->text ? v->p : NAN },
        { "verdict", FIELD_STR, .str = v->text },
    };
    memcpy(f, rows, sizeof rows);
    return ARRAY_LEN(rows);
}

static void file_row(struct bench *b, const struct old_row *r, const struct verdict *v)
{
    struct field f[16];
    if (b->format == REPORT_MD) {
        if (!b->head_written) table_head();
        table_row(r->model ? path_base(r->model) : "", &r->t, r->threads, median_of(r->ts, r->n), v);
    } else {
        int n = row_fields(r, v, f);
        struct json_out line, *o = b->format == REPORT_JSON ? &b->json : &line;
        if (b->format == REPORT_CSV) {
            if (!b->head_written) report_csv_head(f, n);
            report_csv_row(f, n);
        } else {
            if (o == &line) json_out_init(o, false);
            json_begin(o, NULL, '{');
            report_json(o, f, n);
            json_end(o, '}');
            if (o == &line) report_out(o);
        }
    }
    b->head_written = true;
}

/* The new file's rows become results, so that conditions see them. */
status compare_files(struct bench *b, struct err *e)
{
    struct old_results *now;
    TRY(old_open(&now, b->c->model, e));
    b->result = mem_calloc((size_t)now->n_rows, sizeof *b->result);
    status st = b->result ? OK : err_oom(e, "results", (size_t)now->n_rows * sizeof *b->result);
    for (int i = 0; st == OK && i < now->n_rows; i++) {
        struct result *r = &b->result[b->n_results++];
        *r = (struct result){ .t = now->row[i].t, .threads = (int)now->row[i].threads, .old = judge(b->old, &now->row[i]) };
        file_row(b, &now->row[i], &r->old);
    }
    old_close(now);
    return st;
}

/* ---- conditions ---- */

status bench_gate_parse(struct bench_gate *g, const char *text, struct err *e)
{
    size_t n = strcspn(text, "<>");
    char *end;
    *g = (struct bench_gate){ .text = text, .name_len = n, .less = text[n] == '<' };
    if (!text[n]) return err_set(e, ERR_USAGE, "--fail-if '%.60s': < or > is expected after the name of a test", text);
    if (strspn(text, " ") == n) return err_set(e, ERR_USAGE, "--fail-if '%.60s': the name of a test is missing: 'pp512<0.95', 'all<0.95'", text);
    const char *p = text + n + 1;
    g->equal = *p == '=';
    g->limit = strtod(p + g->equal, &end);
    if (end == p + g->equal || end[strspn(end, " ")] || !isfinite(g->limit))
        return err_set(e, ERR_USAGE, "--fail-if '%.60s': a ratio of speeds is expected after %c", text, text[n]);
    return OK;
}

/* Names without spaces: "pp512@d4096". */
static bool gate_names(const struct bench_gate *g, const char *name)
{
    size_t i = 0;
    for (; *name; name++) {
        if (*name == ' ') continue;
        while (i < g->name_len && g->text[i] == ' ') i++;
        if (i >= g->name_len || g->text[i++] != *name) return false;
    }
    while (i < g->name_len && g->text[i] == ' ') i++;
    return i == g->name_len;
}

status bench_gates(const struct bench *b)
{
    status st = OK;
    char name[96];
    out_flush();
    for (int i = 0; i < b->c->n_fail_if; i++) {
        const struct bench_gate *g = &b->gate[i];
        int met = 0;
        for (int j = 0; j < b->n_results; j++) {
            const struct result *r = &b->result[j];
            if (!r->old.text || (!gate_names(g, case_name(&r->t, name)) && !gate_names(g, "all"))) continue;
            double v = r->old.ratio;
            bool fails = !isfinite(v) || (g->equal && v == g->limit) || (g->less ? v < g->limit : v > g->limit);
            met++;
            if (fails) st = ERR_GATE;
            if (fails || !b->c->quiet)
                fprintf(stderr, "gate: %s, %d %s: ratio %.3f, %s: %s\n", name, r->threads, r->threads == 1 ? "thread" : "threads", v, g->text,
                        fails ? "failed" : "passed");
        }
        if (met) continue;
        fprintf(stderr, "gate: %s: no test of this name has an old result: failed\n", g->text);
        st = ERR_GATE;
    }
    return st;
}

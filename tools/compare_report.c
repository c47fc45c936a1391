/* compare_report - see compare_report.h. */
#include "tools/compare_report.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "ggml-like/json.h"

#define AT(field) offsetof(struct compared, field)
#define ESTIMATE(name, field, scale, both, brief)                                                                                          \
    { name, AT(s.field.value), scale, both, brief }, { name "_error", AT(s.field.error), scale, both, "one standard error of " name }

const struct metric metrics[] = {
    { "size", AT(bytes), 1, true, "bytes of the file" },
    { "bpw", AT(bpw), 1, true, "bits per weight" },
    { "speed", AT(speed), 1, true, "tokens per second, scoring included" },
    ESTIMATE("ppl", ppl, 1, true, "perplexity"),
    ESTIMATE("dppl", dppl, 1, false, "perplexity minus that of the reference"),
    ESTIMATE("ln_ratio", ln_ratio, 1, false, "logarithm of the ratio of the perplexities"),
    ESTIMATE("ratio", ratio, 1, false, "ratio of the perplexities"),
    { "correlation", AT(s.cor), 100, false, "of the two log-likelihoods, percent" },
    ESTIMATE("kld", kld, 1, false, "mean KL divergence from the reference, nats"),
    { "kld_error_chunks", AT(s.kld_error_chunks), 1, false, "standard error of kld from the means of chunks" },
    { "kldmin", AT(s.kld_at[0]), 1, false, "smallest KL divergence of a token" },
    { "kld001", AT(s.kld_at[1]), 1, false, "0.1 % of the tokens are below" },
    { "kld01", AT(s.kld_at[2]), 1, false, "1 % of the tokens are below" },
    { "kld05", AT(s.kld_at[3]), 1, false, "5 % of the tokens are below" },
    { "kld10", AT(s.kld_at[4]), 1, false, "10 % of the tokens are below" },
    { "kld50", AT(s.kld_at[5]), 1, false, "median" },
    { "kld90", AT(s.kld_at[6]), 1, false, "90 % of the tokens are below" },
    { "kld95", AT(s.kld_at[7]), 1, false, "95 % of the tokens are below" },
    { "kld99", AT(s.kld_at[8]), 1, false, "99 % of the tokens are below" },
    { "kld999", AT(s.kld_at[9]), 1, false, "99.9 % of the tokens are below" },
    { "kldmax", AT(s.kld_at[10]), 1, false, "largest KL divergence of a token" },
    ESTIMATE("top1", top1, 100, false, "tokens with the same likeliest continuation, percent"),
    ESTIMATE("rmsdp", rms_dp, 100, false, "root mean square change of the right token's probability, percent"),
    ESTIMATE("dp", dp, 100, false, "mean change of the right token's probability, percent"),
    { "dpmin", AT(s.dp_at[0]), 100, false, "smallest change" },
    { "dp001", AT(s.dp_at[1]), 100, false, "0.1 % of the changes are below" },
    { "dp01", AT(s.dp_at[2]), 100, false, "1 % of the changes are below" },
    { "dp05", AT(s.dp_at[3]), 100, false, "5 % of the changes are below" },
    { "dp10", AT(s.dp_at[4]), 100, false, "10 % of the changes are below" },
    { "dp25", AT(s.dp_at[5]), 100, false, "25 % of the changes are below" },
    { "dp50", AT(s.dp_at[6]), 100, false, "median change" },
    { "dp75", AT(s.dp_at[7]), 100, false, "75 % of the changes are below" },
    { "dp90", AT(s.dp_at[8]), 100, false, "90 % of the changes are below" },
    { "dp95", AT(s.dp_at[9]), 100, false, "95 % of the changes are below" },
    { "dp99", AT(s.dp_at[10]), 100, false, "99 % of the changes are below" },
    { "dp999", AT(s.dp_at[11]), 100, false, "99.9 % of the changes are below" },
    { "dpmax", AT(s.dp_at[12]), 100, false, "largest change" },
};
const int metric_count = ARRAY_LEN(metrics);

double metric_value(const struct metric *m, const struct compared *c)
{
    double v;
    memcpy(&v, (const char *)c + m->offset, sizeof v);
    return v * m->scale;
}

/* ---- conditions ---- */

static const struct metric *metric_find(const char *s, size_t n)
{
    for (int i = 0; i < metric_count; i++)
        if (strlen(metrics[i].name) == n && !strncasecmp(metrics[i].name, s, n)) return &metrics[i];
    return NULL;
}

/* The figure's factor for a letter after the number: sizes know K, M, G; percentages %. 0 = not allowed. */
static double unit_of(const struct metric *m, const char *s)
{
    static const struct {
        const char *unit;
        double factor;
    } sizes[] = { { "", 1 }, { "K", 1024 }, { "M", 1048576 }, { "G", 1073741824 } };
    if (!strcmp(s, "%") && m->scale == 100) return 1;
    for (int i = 0; i < ARRAY_LEN(sizes); i++)
        if (!strcasecmp(s, sizes[i].unit)) return i == 0 || !strcmp(m->name, "size") ? sizes[i].factor : 0;
    return 0;
}

status gate_parse(struct gate *g, const char *text, struct err *e)
{
    const char *p = text + strspn(text, " "), *name = p;
    size_t n = strcspn(p, " <>=");
    *g = (struct gate){ .metric = metric_find(name, n), .text = text };
    if (!g->metric)
        return err_set(e, ERR_USAGE,
                       "--fail-if '%.60s': no figure '%.*s'; some are: kld kld99 kld999 kldmax ppl dppl ratio top1 rmsdp size bpw speed",
                       text, (int)(n < 30 ? n : 30), name);
    p = name + n + strspn(name + n, " ");
    if (*p != '<' && *p != '>') return err_set(e, ERR_USAGE, "--fail-if '%.60s': < or > is expected after %s", text, g->metric->name);
    g->less = *p++ == '<';
    g->equal = *p == '=';
    p += g->equal;
    p += strspn(p, " ");
    char *end;
    g->limit = strtod(p, &end);
    if (end == p || !isfinite(g->limit))
        return err_set(e, ERR_USAGE, "--fail-if '%.60s': a number is expected after %c", text, g->less ? '<' : '>');
    char unit[8] = "";
    end += strspn(end, " ");
    snprintf(unit, sizeof unit, "%s", end);
    size_t used = strcspn(unit, " ");
    bool rest = unit[used + strspn(unit + used, " ")] != 0 || strlen(end) >= sizeof unit;
    unit[used] = 0;
    double factor = unit_of(g->metric, unit);
    if (rest || factor == 0) return err_set(e, ERR_USAGE, "--fail-if '%.60s': '%.20s' after the number is not understood", text, end);
    g->limit *= factor;
    return OK;
}

bool gate_fails(const struct gate *g, const struct compared *c)
{
    double v = metric_value(g->metric, c);
    if (isnan(v) || (g->equal && v == g->limit)) return true;
    return g->less ? v < g->limit : v > g->limit;
}

/* ---- formats ---- */

enum compare_format compare_format(const char *name, const char *path)
{
    static const char *const names[] = {
        [COMPARE_TEXT] = "text", [COMPARE_MD] = "md", [COMPARE_CSV] = "csv", [COMPARE_JSON] = "json", [COMPARE_HTML] = "html"
    };
    const char *dot = path ? strrchr(path, '.') : NULL;
    if (!name && dot) name = dot + 1;
    for (int i = 0; name && i < ARRAY_LEN(names); i++)
        if (!strcasecmp(name, names[i])) return (enum compare_format)i;
    return COMPARE_TEXT;
}

/* A number, or "-" when it is not known. */
static const char *number(char buf[32], int decimals, double v)
{
    if (isfinite(v)) snprintf(buf, 32, "%.*f", decimals, v);
    else snprintf(buf, 32, "-");
    return buf;
}

/* Enough digits for the error and one more. */
static const char *with_error(char buf[48], int decimals, double value, double error)
{
    snprintf(buf, 48, "%.*f +- %.*f", decimals, value, decimals, error);
    return buf;
}

/* ---- text ---- */

static bool text_row(struct buffer *b, const struct compared *c, bool is_ref)
{
    char mib[32], bpw[32], speed[32], ppl[48], ratio[48] = "", kld[48] = "", top[48] = "", rms[48] = "";
    number(mib, 1, c->bytes / 1048576);
    number(bpw, 2, c->bpw);
    number(speed, 1, c->speed);
    with_error(ppl, 4, c->s.ppl.value, c->s.ppl.error);
    if (!is_ref) {
        with_error(ratio, 5, c->s.ln_ratio.value, c->s.ln_ratio.error);
        with_error(kld, 5, c->s.kld.value, c->s.kld.error);
        with_error(top, 2, 100 * c->s.top1.value, 100 * c->s.top1.error);
        with_error(rms, 2, 100 * c->s.rms_dp.value, 100 * c->s.rms_dp.error);
    }
    return buffer_put(b, "%-26.26s %-7s %8s %6s %20s %20s %19s %15s %14s %7s\n", c->name, c->type, mib, bpw, ppl, ratio, kld, top, rms,
                    speed);
}

struct point {
    const char *name;
    int at;
};

static bool text_points(struct buffer *b, const struct comparison *c, const char *title, const struct point *p, int n, bool dp)
{
    bool ok = buffer_put(b, "\n%-26s", title);
    for (int i = 0; i < n; i++) ok = buffer_put(b, " %9s", p[i].name) && ok;
    ok = buffer_put(b, "\n") && ok;
    for (int m = 0; m < c->n_models; m++) {
        const struct kld_stats *s = &c->model[m].s;
        ok = buffer_put(b, "%-26.26s", c->model[m].name) && ok;
        for (int i = 0; i < n; i++) ok = buffer_put(b, dp ? " %9.3f" : " %9.5f", dp ? 100 * s->dp_at[p[i].at] : s->kld_at[p[i].at]) && ok;
        ok = buffer_put(b, "\n") && ok;
    }
    return ok;
}

static bool report_text(const struct comparison *c, struct buffer *b)
{
    static const struct point kl[] = { { "median", 5 }, { "90 %", 6 }, { "95 %", 7 }, { "99 %", 8 }, { "99.9 %", 9 }, { "maximum", 10 } };
    static const struct point dp[] = { { "minimum", 0 }, { "1 %", 2 },  { "5 %", 3 },   { "25 %", 5 },    { "median", 6 },
                                       { "75 %", 7 },    { "95 %", 9 }, { "99 %", 10 }, { "maximum", 12 } };
    bool ok = buffer_put(b, "%-26s %-7s %8s %6s %20s %20s %19s %15s %14s %7s\n", "model", "type", "MiB", "bpw", "perplexity",
                       "ln(PPL/PPL ref)", "KL divergence", "same top-1 %", "RMS dp %", "tok/s");
    ok = text_row(b, c->ref, true) && ok;
    for (int i = 0; i < c->n_models; i++) ok = text_row(b, &c->model[i], false) && ok;
    ok = text_points(b, c, "KL divergence of a token", kl, ARRAY_LEN(kl), false) && ok;
    ok = text_points(b, c, "change of probability, %", dp, ARRAY_LEN(dp), true) && ok;
    return buffer_put(b, "\n%lld %s of %lld tokens, %lld scored%s; %s. +- is one standard error over tokens; over chunks, KL:",
                    (long long)c->n_chunks, c->n_chunks == 1 ? "chunk" : "chunks", (long long)c->n_ctx, (long long)c->n_tokens,
                    c->bos ? ", each chunk begins with BOS" : "", c->precise ? "precise" : "not precise") &&
           ok;
}

/* ---- Markdown ---- */

static bool md_row(struct buffer *b, const struct compared *c, bool is_ref)
{
    char mib[32], bpw[32], speed[32], ppl[48], ratio[48] = "", kld[48] = "", top[48] = "", rms[48] = "", tail[32] = "";
    number(mib, 1, c->bytes / 1048576);
    number(bpw, 2, c->bpw);
    number(speed, 1, c->speed);
    with_error(ppl, 4, c->s.ppl.value, c->s.ppl.error);
    if (!is_ref) {
        with_error(ratio, 5, c->s.ln_ratio.value, c->s.ln_ratio.error);
        with_error(kld, 5, c->s.kld.value, c->s.kld.error);
        with_error(top, 2, 100 * c->s.top1.value, 100 * c->s.top1.error);
        with_error(rms, 2, 100 * c->s.rms_dp.value, 100 * c->s.rms_dp.error);
        number(tail, 5, c->s.kld_at[9]);
    }
    bool ok = buffer_put(b, "| ") && buffer_md(b, c->name, SIZE_MAX);
    return buffer_put(b, " | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", c->type, mib, bpw, ppl, ratio, kld, tail, top, rms, speed) && ok;
}

static bool report_md(const struct comparison *c, struct buffer *b)
{
    bool ok = buffer_put(
        b, "| model | type | MiB | bpw | perplexity | ln(PPL/PPL ref) | KL divergence | 99.9 %% KL | same top-1 %% | RMS dp %% | tok/s |\n"
           "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    ok = md_row(b, c->ref, true) && ok;
    for (int i = 0; i < c->n_models; i++) ok = md_row(b, &c->model[i], false) && ok;
    return ok;
}

/* ---- CSV, JSON ---- */

static bool csv_row(struct buffer *b, const struct compared *c, bool is_ref)
{
    bool ok = buffer_csv(b, c->path) && buffer_put(b, ",%s,", is_ref ? "reference" : "candidate") && buffer_csv(b, c->type);
    for (int i = 0; i < metric_count; i++) {
        double v = metric_value(&metrics[i], c);
        bool there = isfinite(v) && (!is_ref || metrics[i].both);
        ok = (there ? buffer_put(b, ",%.9g", v) : buffer_put(b, ",")) && ok;
    }
    return buffer_put(b, "\n") && ok;
}

static bool report_csv(const struct comparison *c, struct buffer *b)
{
    bool ok = buffer_put(b, "model,role,type");
    for (int i = 0; i < metric_count; i++) ok = buffer_put(b, ",%s", metrics[i].name) && ok;
    ok = buffer_put(b, "\n") && ok;
    ok = csv_row(b, c->ref, true) && ok;
    for (int i = 0; i < c->n_models; i++) ok = csv_row(b, &c->model[i], false) && ok;
    return ok;
}

static void json_model(struct json_out *o, const char *key, const struct compared *c, bool is_ref, int n_bins)
{
    json_begin(o, key, '{');
    json_put_cstr(o, "model", c->path);
    json_put_cstr(o, "type", c->type);
    for (int i = 0; i < metric_count; i++)
        if (!is_ref || metrics[i].both) json_put_f64(o, metrics[i].name, metric_value(&metrics[i], c));
    if (!is_ref) {
        json_begin(o, "kld_by_position", '[');
        for (int i = 0; i < n_bins; i++) json_put_f64(o, NULL, c->kld_bin[i]);
        json_end(o, ']');
    }
    json_end(o, '}');
}

static bool report_json_compare(const struct comparison *c, struct buffer *b)
{
    struct json_out o;
    json_out_init(&o, true);
    json_begin(&o, NULL, '{');
    json_put_cstr(&o, "text", c->text);
    json_put_i64(&o, "n_ctx", c->n_ctx);
    json_put_i64(&o, "n_chunks", c->n_chunks);
    json_put_i64(&o, "n_tokens", c->n_tokens);
    json_put_i64(&o, "n_vocab", c->n_vocab);
    json_put_bool(&o, "bos", c->bos);
    json_put_bool(&o, "precise", c->precise);
    json_put_i64(&o, "threads", c->threads);
    json_put_cstr(&o, "isa", c->isa);
    json_put_f64(&o, "seconds", c->seconds);
    json_model(&o, "reference", c->ref, true, c->n_bins);
    json_begin(&o, "models", '[');
    for (int i = 0; i < c->n_models; i++) json_model(&o, NULL, &c->model[i], false, c->n_bins);
    json_end(&o, ']');
    json_end(&o, '}');
    bool ok = json_out_ok(&o) && buffer_append(b, o.buf, o.n) && buffer_put(b, "\n");
    json_out_free(&o);
    return ok;
}

static bool text_with_chunks(const struct comparison *c, struct buffer *b)
{
    char error[32];
    bool ok = report_text(c, b);
    for (int i = 0; i < c->n_models; i++) ok = buffer_put(b, "%s %s", i ? "," : "", number(error, 5, c->model[i].s.kld_error_chunks)) && ok;
    return buffer_put(b, "\n") && ok;
}

bool compare_report(const struct comparison *c, enum compare_format format, struct buffer *out)
{
    static bool (*const write[])(const struct comparison *, struct buffer *) = {
        [COMPARE_TEXT] = text_with_chunks,    [COMPARE_MD] = report_md,      [COMPARE_CSV] = report_csv,
        [COMPARE_JSON] = report_json_compare, [COMPARE_HTML] = compare_html,
    };
    return write[format](c, out);
}

/* quant_report - see quant_report.h: gathers and ranks, puts the answer into words, writes Markdown, CSV and JSON. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ggml-like/file.h"
#include "ggml-like/json.h"
#include "tools/quant_plan.h"
#include "tools/quant_report.h"

double stats_snr(const struct quant_stats *s) { return s->e2 > 0 ? 10 * log10(s->x2 / s->e2) : INFINITY; }

static double bits(const struct dtype *t) { return 8.0 * t->block_bytes / t->block_len; }
static double mib(double bytes) { return bytes / (1 << 20); }

/* ---- gathering ---- */

/* "blk.3.ffn_down.weight" -> 3, "ffn_down" */
static int64_t split_name(const char *name, char role[48])
{
    int64_t layer = -1;
    const char *p = name;
    if (!strncmp(name, "blk.", 4) && isdigit((unsigned char)name[4])) {
        char *end;
        long long v = strtoll(name + 4, &end, 10);
        if (*end == '.' && end[1] && v >= 0 && v < 100000) layer = v, p = end + 1;
    }
    snprintf(role, 48, "%.47s", p);
    size_t n = strlen(role);
    if (n > 7 && !strcmp(role + n - 7, ".weight")) role[n - 7] = 0;
    return layer;
}

static struct report_group *group_of(struct report_group *g, int64_t *n, const char *name, const struct dtype *to, bool kept, bool by_name)
{
    int64_t i = 0;
    while (i < *n && (by_name ? strcmp(g[i].name, name) != 0 : g[i].to != to || g[i].kept != kept)) i++;
    if (i == *n) {
        g[i] = (struct report_group){ .to = to, .kept = kept };
        snprintf(g[i].name, sizeof g[i].name, "%s", name);
        ++*n;
    }
    if (g[i].to != to) g[i].to = NULL;
    if (!kept) g[i].kept = false;
    return &g[i];
}

static void add_item(struct report_group *g, const struct quant_item *it, double weighted)
{
    double n = (double)tensor_elements(it->src), before = g->weighted * g->weighted * (double)g->elements;
    g->n++;
    g->elements += (int64_t)n;
    g->bytes_from += it->bytes_from, g->bytes_to += it->bytes_to;
    g->weighted = g->elements > 0 ? sqrt((before + weighted * weighted * n) / (double)g->elements) : 0;
    stats_join(&g->stats, &it->stats);
}

static int worse(const void *a, const void *b)
{
    const struct report_row *x = a, *y = b;
    if (x->weighted != y->weighted) return x->weighted < y->weighted ? 1 : -1;
    return x->it < y->it ? -1 : x->it > y->it;
}

static int larger(const void *a, const void *b)
{
    const struct report_group *x = a, *y = b;
    if (x->bytes_to != y->bytes_to) return x->bytes_to < y->bytes_to ? 1 : -1;
    return strcmp(x->name, y->name);
}

static status gather(struct report *r, struct err *e)
{
    int64_t n = quant_plan_n(r->plan);
    double sum = 0, elements = 0;
    r->weighted = quant_plan_options(r->plan)->importance != NULL;
    r->row = mem_calloc((size_t)n, sizeof *r->row);
    r->type = mem_calloc((size_t)n, sizeof *r->type);
    r->role = mem_calloc((size_t)n, sizeof *r->role);
    if (!r->row || !r->type || !r->role) return err_oom(e, "report", (size_t)n * sizeof *r->type);
    for (int64_t i = 0; i < n; i++) {
        struct quant_item *it = quant_plan_item(r->plan, i);
        struct report_row row = { .it = it, .relative = stats_relative(&it->stats), .weighted = stats_weighted(&it->stats) };
        row.layer = split_name(it->src->name, row.role);
        add_item(group_of(r->type, &r->n_types, it->to->gguf_name, it->to, it->kept, false), it, row.weighted);
        add_item(group_of(r->role, &r->n_roles, row.role, it->to, it->kept, true), it, row.weighted);
        if (it->kept || it->stats.n == 0) continue;
        if (row.layer >= r->n_layers) r->n_layers = row.layer + 1;
        r->row[r->n_rows++] = row;
        stats_join(&r->all, &it->stats);
        r->sampled |= it->stats.n < tensor_elements(it->src);
        double m = (double)tensor_elements(it->src);
        sum += row.weighted * row.weighted * m, elements += m;
    }
    qsort(r->row, (size_t)r->n_rows, sizeof *r->row, worse);
    qsort(r->type, (size_t)r->n_types, sizeof *r->type, larger);
    qsort(r->role, (size_t)r->n_roles, sizeof *r->role, larger);
    r->median = r->n_rows ? r->row[r->n_rows / 2].weighted : 0;
    r->overall = elements > 0 ? sqrt(sum / elements) : 0;
    return OK;
}

/* ---- advice ---- */

static const int ladder[] = { GGUF_Q2_K, GGUF_Q3_K, GGUF_Q4_K, GGUF_IQ4_NL, GGUF_Q5_K, GGUF_Q5_0, GGUF_Q6_K, GGUF_Q8_0, GGUF_F16 };

/* What a tensor may be made larger with: the first that fits its rows and has `more` bits more. NULL: nothing does. */
static const struct dtype *stronger(const struct dtype *now, int64_t cols, double more)
{
    for (int i = 0; i < ARRAY_LEN(ladder); i++) {
        const struct dtype *t = dtype_by_id(ladder[i]);
        if (t && cols % t->block_len == 0 && bits(t) >= bits(now) + more) return t;
    }
    return NULL;
}

/* The next smaller one that fits. */
static const struct dtype *weaker(const struct dtype *now, int64_t cols)
{
    for (int i = ARRAY_LEN(ladder) - 1; i >= 0; i--) {
        const struct dtype *t = dtype_by_id(ladder[i]);
        if (t && cols % t->block_len == 0 && bits(t) < bits(now) - 0.9) return t;
    }
    return NULL;
}

/* A regular expression for a name, fit for single quotes of a shell: anything unusual becomes "any character". */
static void name_regex(const char *name, char *out, size_t cap)
{
    size_t n = 0;
    for (; *name && n + 1 < cap; name++) out[n++] = (char)(isalnum((unsigned char)*name) || strchr("._-", *name) ? *name : '.');
    out[n] = 0;
    if (n > 7 && !strcmp(out + n - 7, ".weight")) out[n - 7] = 0;
}

/* More bits that a relative error of `from` needs to come down to `to`: each bit halves the step. */
static double bits_for(double from, double to) { return fmax(0.9, to > 0 ? fmin(log2(from / to), 8) : 0.9); }

static bool advise_tensor(struct report *r, const struct report_row *row)
{
    char rule[80];
    const struct quant_item *it = row->it;
    const struct dtype *to = stronger(it->to, it->cols, bits_for(row->weighted, r->median));
    bool ok = buffer_put(&r->advice, "%s (%s): %.3g %% relative error, %.1fx the median", it->src->name, it->to->gguf_name,
                         100 * row->weighted, r->median > 0 ? row->weighted / r->median : 1.0);
    if (!to) return buffer_put(&r->advice, ".\n") && ok;
    size_t cost = dtype_row_bytes(to, it->cols) * (size_t)tensor_rows(it->src) - it->bytes_to;
    name_regex(it->src->name, rule, sizeof rule);
    return buffer_put(&r->advice, "; --type '%s=%s' costs %.2f MiB and should bring it to about %.2g %%.\n", rule, to->gguf_name,
                      mib((double)cost), 100 * row->weighted * exp2(bits(it->to) - bits(to))) &&
           ok;
}

/* The rule for a kind of tensor: longer where the short name also stands in the name of another kind (ffn_up, ffn_up_exps). */
static void role_regex(const struct report *r, const char *role, char *out, size_t cap)
{
    bool alone = true;
    name_regex(role, out, cap);
    for (int64_t i = 0; i < r->n_roles; i++) alone &= !strcmp(r->role[i].name, role) || !strstr(r->role[i].name, role);
    size_t n = strlen(out);
    if (!alone) snprintf(out + n, cap - n, ".weight");
}

static int64_t cols_of(const struct report *r, const struct report_group *g)
{
    for (int64_t i = 0; i < r->n_rows; i++)
        if (!strcmp(r->row[i].role, g->name)) return r->row[i].it->cols;
    return 0;
}

/* Bytes more that a kind of tensor takes as `to`; false where its rows do not fit. */
static bool cost_of(const struct report *r, const struct report_group *g, const struct dtype *to, double *cost)
{
    *cost = 0;
    for (int64_t i = 0; i < r->n_rows; i++) {
        const struct quant_item *it = r->row[i].it;
        if (strcmp(r->row[i].role, g->name)) continue;
        if (it->cols % to->block_len) return false;
        *cost += (double)dtype_row_bytes(to, it->cols) * (double)tensor_rows(it->src) - (double)it->bytes_to;
    }
    return true;
}

/* A kind of tensor of which many are worse than the rest, or simply the worst kind: one rule for all of them. worst: its worst tensor; hurt:
 * how many stand out. */
static bool advise_role(struct report *r, const struct report_group *g, const struct report_row *worst, int64_t hurt)
{
    char rule[80];
    double cost;
    const struct dtype *now = worst->it->to, *to = stronger(now, worst->it->cols, bits_for(worst->weighted, r->median));
    bool ok = hurt > 0 ? buffer_put(&r->advice, "%lld of %lld %s tensors stand out, the worst is %s (%s): %.3g %% relative error, %.1fx the median",
                                    (long long)hurt, (long long)g->n, g->name, worst->it->src->name, now->gguf_name, 100 * worst->weighted,
                                    worst->weighted / r->median)
                       : buffer_put(&r->advice, "The kind with the largest error is %s (%lld tensors): %.3g %% together", g->name, (long long)g->n,
                                    100 * g->weighted);
    if (!to || !cost_of(r, g, to, &cost)) return buffer_put(&r->advice, ".\n") && ok;
    role_regex(r, g->name, rule, sizeof rule);
    return buffer_put(&r->advice, "; --type '%s=%s' costs %.2f MiB (%.1f %% of the file) and should bring %s to about %.2g %%.\n", rule, to->gguf_name,
                      mib(cost), 100 * cost / (double)r->totals->bytes_to, hurt > 0 ? "it" : "them",
                      100 * (hurt > 0 ? worst->weighted : g->weighted) * exp2(bits(now) - bits(to))) &&
           ok;
}

static bool stands_out(const struct report *r, const struct report_row *row) { return row->weighted > 1.3 * r->median; }

/* What the caller chose needs no advice: a kind of which any tensor was asked for. */
static bool was_asked(const struct report *r, const struct report_group *g)
{
    for (int64_t i = 0; i < r->n_rows; i++)
        if (r->row[i].it->asked && !strcmp(r->row[i].role, g->name)) return true;
    return false;
}

/* Embeddings that are the head too: an error there meets every token twice. */
static bool is_tied_head(const struct report *r, const struct report_group *g)
{
    return !strcmp(g->name, "token_embd") && !gguf_tensor(quant_plan_gguf(r->plan), "output.weight");
}

/* The best place to save: the largest kind whose error is far below the median. */
static bool advise_saving(struct report *r)
{
    char rule[80];
    for (int64_t i = 0; i < r->n_roles; i++) {
        const struct report_group *g = &r->role[i];
        if (was_asked(r, g) || is_tied_head(r, g)) continue;
        if (g->kept || !g->to || g->weighted == 0 || g->weighted >= 0.4 * r->median || bits(g->to) < 5) continue;
        double cost;
        const struct dtype *to = weaker(g->to, cols_of(r, g));
        if (!to || !cost_of(r, g, to, &cost) || -cost < 0.005 * (double)r->totals->bytes_to) continue; /* not worth a sentence */
        role_regex(r, g->name, rule, sizeof rule);
        return buffer_put(&r->advice,
                          "Room to save: %s (%s, %.1f MiB) has %.3g %%, far below the median of %.3g %%; --type '%s=%s' saves %.1f MiB and should leave it "
                          "at about %.2g %%.\n", g->name,
                          g->to->gguf_name, mib((double)g->bytes_to), 100 * g->weighted, 100 * r->median, rule, to->gguf_name, -mib(cost),
                          100 * g->weighted * exp2(bits(g->to) - bits(to)));
    }
    return true;
}

static const struct report_row *worst_of(const struct report *r, const struct report_group *g)
{
    for (int64_t i = 0; i < r->n_rows; i++)
        if (!strcmp(r->row[i].role, g->name)) return &r->row[i];
    return NULL;
}

/* Nothing stands out: the kind of tensor with the largest error is where bytes help most. */
static bool advise_even(struct report *r)
{
    const struct report_group *worst = NULL;
    const struct report_row *first = &r->row[0];
    double times = r->median > 0 ? first->weighted / r->median : 1.0;
    bool ok = stands_out(r, first)
                  ? buffer_put(&r->advice, "The worst, %s (%s), has %.3g %%, %.1fx the median: its format was asked for.\n", first->it->src->name,
                               first->it->to->gguf_name, 100 * first->weighted, times)
                  : buffer_put(&r->advice, "No tensor stands out: the worst, %s, has %.3g %%, %.1fx the median. A much smaller error needs a larger "
                                           "type for all.\n", first->it->src->name, 100 * first->weighted, times);
    for (int64_t i = 0; i < r->n_roles; i++)
        if (!r->role[i].kept && !was_asked(r, &r->role[i]) && (!worst || r->role[i].weighted > worst->weighted)) worst = &r->role[i];
    const struct report_row *row = worst ? worst_of(r, worst) : NULL;
    if (!row || r->median == 0) return ok;
    return (worst->n > 1 ? advise_role(r, worst, row, 0) : advise_tensor(r, row)) && ok;
}

/* Kinds with many such tensors first, then single ones. */
static bool advise_outstanding(struct report *r, int *told)
{
    bool ok = true;
    for (int64_t k = 0; k < r->n_roles && r->n_roles > 1; k++) {
        struct report_group *g = &r->role[k];
        int64_t hurt = 0;
        for (int64_t i = 0; i < r->n_rows; i++) hurt += stands_out(r, &r->row[i]) && !strcmp(r->row[i].role, g->name);
        if (hurt < 4 || r->median == 0 || *told == 3 || was_asked(r, g)) continue;
        ok = advise_role(r, g, worst_of(r, g), hurt) && ok;
        g->told = true;
        ++*told;
    }
    for (int64_t i = 0; i < r->n_rows && *told < 5; i++) {
        bool known = false;
        for (int64_t k = 0; k < r->n_roles; k++) known |= r->role[k].told && !strcmp(r->role[k].name, r->row[i].role);
        if (known || r->row[i].it->asked || !stands_out(r, &r->row[i])) continue;
        ok = advise_tensor(r, &r->row[i]) && ok;
        ++*told;
    }
    return ok;
}

static bool advise(struct report *r)
{
    int told = 0;
    const struct quant_spec *spec = &quant_plan_options(r->plan)->spec;
    static const char *const wide[] = { [PER_TENSOR] = "a whole tensor", [PER_ROW] = "a whole row", [PER_GROUP] = NULL };
    if (r->n_rows == 0) return buffer_put(&r->advice, "Nothing is quantized: every tensor keeps its bytes.\n");
    bool ok = true;
    if (r->row[0].it->to->group_len > 0 && quant_plan_options(r->plan)->type == NULL && !quant_plan_options(r->plan)->chosen && wide[spec->granularity])
        ok = buffer_put(&r->advice, "One scale serves %s: its largest weight decides for all. --granularity group:32 costs no byte more in this "
                                    "format.\n", wide[spec->granularity]);
    ok = advise_outstanding(r, &told) && ok;
    if (told == 0) ok = advise_even(r) && ok;
    ok = advise_saving(r) && ok;
    if (!r->weighted)
        return buffer_put(&r->advice, "All columns counted the same: cuanto importance MODEL -f TEXT -o FILE, then --imatrix FILE, lowers what "
                                      "the model notices at no cost in bytes.\n") && ok;
    if (r->totals->n_without_importance > 0)
        ok = buffer_put(&r->advice, "%d tensors are not in the importance file: all their columns counted the same.\n",
                        r->totals->n_without_importance) && ok;
    return ok;
}

/* ---- Markdown, CSV, JSON ---- */

static bool report_md_all(const struct report *r, struct buffer *b)
{
    char shape[64], error[32];
    const struct quant_totals *t = r->totals;
    bool ok = buffer_put(b, "# Quantization report\n\n");
    for (int i = 0; i < REPORT_FACTS; i++)
        if (r->fact[i].text[0]) ok = buffer_put(b, "- %s: ", r->fact[i].key) && buffer_md(b, r->fact[i].text, SIZE_MAX) && buffer_put(b, "\n") && ok;
    ok = buffer_put(b,
                         "\n%.1f MiB -> %.1f MiB, %.2f -> %.2f bits per weight, weighted relative error %s "
                         "(median tensor %.3g %%)%s\n",
                         mib((double)t->bytes_from), mib((double)t->bytes_to), t->bpw_from, t->bpw_to, error_text(r->overall, r->sampled, error),
                         100 * r->median, r->sampled ? ", from a sample of rows" : "") && ok;
    ok = buffer_put(b, "\n## Which tensors hurt, and what to change\n\n") && ok;
    for (const char *p = r->advice.p ? r->advice.p : ""; *p;) {
        int n = (int)strcspn(p, "\n");
        ok = buffer_put(b, "- ") && buffer_md(b, p, (size_t)n) && buffer_put(b, "\n") && ok;
        p += n + (p[n] == '\n');
    }
    ok = buffer_put(b, "\n## By type\n\n| type | tensors | MiB | bpw | relative %% | weighted %% | cosine | max error "
                       "|\n|---|--:|--:|--:|--:|--:|--:|--:|\n") &&
         ok;
    for (int64_t i = 0; i < r->n_types; i++) {
        const struct report_group *g = &r->type[i];
        ok = buffer_put(b, "| %s%s | %lld | %.2f | %.2f |", g->name, g->kept ? " (kept)" : "", (long long)g->n, mib((double)g->bytes_to),
                        g->elements ? 8.0 * (double)g->bytes_to / (double)g->elements : 0) &&
             ok;
        ok = (g->kept ? buffer_put(b, " | | | |\n")
                      : buffer_put(b, " %.4g | %.4g | %.6f | %.4g |\n", 100 * stats_relative(&g->stats), 100 * g->weighted,
                                   stats_cosine(&g->stats), (double)g->stats.max_err)) &&
             ok;
    }
    ok = buffer_put(b, "\n## Tensors, worst first\n\n| tensor | shape | from | to | MiB | rmse | relative %% | weighted %% | cosine | max "
                       "error | outliers | why |\n"
                       "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n") &&
         ok;
    for (int64_t i = 0; i < r->n_rows; i++) {
        const struct quant_item *it = r->row[i].it;
        ok = buffer_put(b, "| ") && buffer_md(b, it->src->name, SIZE_MAX) && ok;
        ok = buffer_put(b, " | %s | %s | %s | %.2f | %.4g | %.4g | %.4g | %.6f | %.4g | %lld | ", tensor_shape_text(it->src, shape),
                        it->src->type->gguf_name, it->to->gguf_name, mib((double)it->bytes_to), stats_rmse(&it->stats), 100 * r->row[i].relative,
                        100 * r->row[i].weighted, stats_cosine(&it->stats), (double)it->stats.max_err, (long long)it->stats.outliers) && ok;
        ok = buffer_md(b, it->why, SIZE_MAX) && buffer_put(b, " |\n") && ok;
    }
    return report_solved_md(r, b) && ok;
}

static bool report_csv_all(const struct report *r, struct buffer *b)
{
    bool ok = buffer_put(b, "tensor,layer,role,from,to,rows,cols,matrices,bytes_from,bytes_to,bpw,n,rmse,relative,weighted,cosine,snr_db,"
                            "max_error,max_abs,lo,hi,"
                            "outliers,outlier_columns,importance,seconds,feedback,descent,held_out,why\n");
    for (int64_t i = 0; i < r->n_rows; i++) {
        const struct report_row *row = &r->row[i];
        const struct quant_item *it = row->it;
        const struct quant_stats *s = &it->stats;
        ok = buffer_csv(b, it->src->name) && buffer_put(b, ",%lld,", (long long)row->layer) && buffer_csv(b, row->role) && ok;
        ok = buffer_put(b, ",%s,%s,%lld,%lld,%lld,%zu,%zu,%.4f,%lld,%.9g,%.9g,%.9g,%.9f,%.4f,%.9g,%.9g,%.9g,%.9g,%lld,%lld,%d,%.3f,",
                        it->src->type->gguf_name, it->to->gguf_name, (long long)it->rows, (long long)it->cols, (long long)it->n_mat,
                        it->bytes_from, it->bytes_to, bits(it->to), (long long)s->n, stats_rmse(s), row->relative, row->weighted,
                        stats_cosine(s), s->e2 > 0 ? stats_snr(s) : 0, (double)s->max_err, (double)s->max_abs, (double)s->lo, (double)s->hi,
                        (long long)s->outliers, (long long)it->n_outliers, it->has_importance, it->seconds) &&
             ok;
        if (report_is_solved(it))
            ok = buffer_put(b, "%.6g,%.6g,%.6g,", report_stage(it, 1), report_stage(it, SOLVED_STAGES - 1), report_held_out(it)) && ok;
        else ok = buffer_put(b, ",,,") && ok;
        ok = buffer_csv(b, it->why) && buffer_put(b, "\n") && ok;
    }
    return ok;
}

static void json_errors(struct json_out *o, const struct quant_stats *s, double weighted)
{
    json_put_i64(o, "n", s->n);
    json_put_f64(o, "rmse", stats_rmse(s));
    json_put_f64(o, "relative", stats_relative(s));
    json_put_f64(o, "weighted", weighted);
    json_put_f64(o, "cosine", stats_cosine(s));
    json_put_f64(o, "snr_db", stats_snr(s));
    json_put_f64(o, "max_error", (double)s->max_err);
    json_put_f64(o, "max_abs", (double)s->max_abs);
    json_put_i64(o, "outliers", s->outliers);
}

static void json_hist(struct json_out *o, const char *key, const int64_t *h)
{
    json_begin(o, key, '[');
    for (int i = 0; i < STATS_BINS; i++) json_put_i64(o, NULL, h[i]);
    json_end(o, ']');
}

static void json_tensor(struct json_out *o, const struct report_row *row)
{
    const struct quant_item *it = row->it;
    json_begin(o, NULL, '{');
    json_put_cstr(o, "name", it->src->name);
    if (row->layer >= 0) json_put_i64(o, "layer", row->layer);
    json_put_cstr(o, "role", row->role);
    json_put_cstr(o, "from", it->src->type->gguf_name);
    json_put_cstr(o, "to", it->to->gguf_name);
    json_put_i64(o, "rows", it->rows), json_put_i64(o, "cols", it->cols), json_put_i64(o, "matrices", it->n_mat);
    json_put_i64(o, "bytes_from", (int64_t)it->bytes_from), json_put_i64(o, "bytes_to", (int64_t)it->bytes_to);
    json_put_i64(o, "outlier_columns", it->n_outliers);
    json_put_bool(o, "importance", it->has_importance);
    json_put_cstr(o, "why", it->why);
    json_put_f64(o, "seconds", it->seconds);
    json_errors(o, &it->stats, row->weighted);
    report_solved_json(it, o);
    json_put_f64(o, "lo", (double)it->stats.lo), json_put_f64(o, "hi", (double)it->stats.hi);
    json_hist(o, "histogram", it->stats.hist);
    json_hist(o, "error_histogram", it->stats.err_hist);
    json_end(o, '}');
}

static bool report_json_all(const struct report *r, struct buffer *b)
{
    struct json_out o;
    json_out_init(&o, true);
    json_begin(&o, NULL, '{');
    for (int i = 0; i < REPORT_FACTS; i++) json_put_cstr(&o, r->fact[i].key, r->fact[i].text[0] ? r->fact[i].text : NULL);
    json_put_i64(&o, "bytes_from", (int64_t)r->totals->bytes_from), json_put_i64(&o, "bytes_to", (int64_t)r->totals->bytes_to);
    json_put_f64(&o, "bpw_from", r->totals->bpw_from), json_put_f64(&o, "bpw_to", r->totals->bpw_to);
    json_put_f64(&o, "weighted", r->overall), json_put_f64(&o, "weighted_median", r->median);
    if (quant_held_out(r->plan) > 0) json_put_f64(&o, "held_out", quant_held_out(r->plan));
    json_put_bool(&o, "sampled", r->sampled);
    json_begin(&o, "advice", '[');
    for (const char *p = r->advice.p ? r->advice.p : ""; *p;) {
        size_t n = strcspn(p, "\n");
        json_put_str(&o, NULL, p, n);
        p += n + (p[n] == '\n');
    }
    json_end(&o, ']');
    json_begin(&o, "types", '[');
    for (int64_t i = 0; i < r->n_types; i++) {
        const struct report_group *g = &r->type[i];
        json_begin(&o, NULL, '{');
        json_put_cstr(&o, "type", g->name);
        json_put_bool(&o, "kept", g->kept);
        json_put_i64(&o, "tensors", g->n), json_put_i64(&o, "bytes_to", (int64_t)g->bytes_to);
        if (!g->kept) json_errors(&o, &g->stats, g->weighted);
        json_end(&o, '}');
    }
    json_end(&o, ']');
    json_begin(&o, "tensors", '[');
    for (int64_t i = 0; i < r->n_rows; i++) json_tensor(&o, &r->row[i]);
    json_end(&o, ']');
    json_end(&o, '}');
    bool ok = json_out_ok(&o) && buffer_append(b, o.buf, o.n) && buffer_append(b, "\n", 1);
    json_out_free(&o);
    return ok;
}

/* ---- writing ---- */

typedef bool (*report_fn)(const struct report *r, struct buffer *b);

static report_fn format_of(const char *path)
{
    static const struct {
        const char *end;
        report_fn fn;
    } formats[] = {
        { ".html", report_html },   { ".htm", report_html },  { ".json", report_json_all },
        { ".csv", report_csv_all }, { ".md", report_md_all },
    };
    size_t n = strlen(path);
    for (int i = 0; i < ARRAY_LEN(formats); i++) {
        size_t m = strlen(formats[i].end);
        if (n > m && !strcmp(path + n - m, formats[i].end)) return formats[i].fn;
    }
    return NULL;
}

status quant_report_check(const char *path, struct err *e)
{
    struct file_out f;
    if (!format_of(path)) return err_set(e, ERR_USAGE, "--report %.100s: the name must end in .html, .json, .csv or .md", path);
    TRY(file_create(&f, path, e));
    file_abort(&f);
    return OK;
}

/* What the figures are of. */
static void gather_facts(struct report *r, const char *in, const char *out)
{
    static const char *const per[] = { [PER_TENSOR] = "tensor", [PER_ROW] = "row", [PER_GROUP] = "group" };
    const struct quant_options *o = quant_plan_options(r->plan);
    char how[100], importance[160] = "";
    const struct recipe *recipe = o->type ? recipe_by_name(o->type) : NULL;
    const struct quantizer *method = o->spec.method;
    if (recipe) snprintf(how, sizeof how, "%s%s%s%s", recipe->name, o->pure ? ", pure" : "", method ? ", method " : "", method ? method->name : "");
    else if (o->chosen) snprintf(how, sizeof how, "%s%s%s", o->recipe, method ? ", method " : "", method ? method->name : "");
    else snprintf(how, sizeof how, "%s, %d bits, one scale per %s", o->spec.method ? o->spec.method->name : "?", o->spec.bits, per[o->spec.granularity]);
    if (!recipe && !o->chosen && o->spec.granularity == PER_GROUP) snprintf(how + strlen(how), sizeof how - strlen(how), " of %lld", (long long)o->spec.group);
    if (o->importance) snprintf(importance, sizeof importance, "%.150s", o->importance_name ? o->importance_name : "unnamed");
    const struct report_fact facts[REPORT_FACTS] = { { "input", "" }, { "output", "" }, { "format", "" }, { "importance", "" }, { "program", "" } };
    const char *const text[REPORT_FACTS] = { in, out, how, importance, o->program };
    for (int i = 0; i < REPORT_FACTS; i++) {
        r->fact[i] = facts[i];
        snprintf(r->fact[i].text, sizeof r->fact[i].text, "%s", text[i] ? text[i] : "");
    }
}

status quant_report_write(const char *path, struct quant_plan *p, const struct quant_totals *t, const char *in, const char *out, struct err *e)
{
    struct report r = { .plan = p, .totals = t };
    gather_facts(&r, in, out);
    struct buffer b = { 0 };
    report_fn fn = format_of(path);
    TRY(quant_report_check(path, e));
    status st = gather(&r, e);
    if (st == OK && !(advise(&r) && fn(&r, &b))) st = err_oom(e, "report", b.n);
    if (st == OK) st = buffer_save(&b, path, e);
    mem_free(r.row);
    mem_free(r.type);
    mem_free(r.role);
    buffer_free(&r.advice);
    buffer_free(&b);
    return st;
}

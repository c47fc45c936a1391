/* explain - see explain.h. Works on at most SAMPLE weights of a tensor, rows spread evenly; ranges come from all rows. */
#include <math.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"
#include "tools/explain.h"
#include "tools/term.h"

enum { SAMPLE = 1 << 20, SHOWN_TENSORS = 8, BY_HAND = 6, WORST = 3, WIDTH = 78, TRIALS_MAX = 20, CHART_LINES = 8 };

/* One technique and what it did to the sample. */
struct trial {
    char name[40];
    struct quant_spec spec;
    const struct dtype *to;
    double bpw; /* of the technique: codes, scales, zero-points */
    struct quant_stats stats;
};
struct view {
    const struct tensor *t;
    const struct quant_item *item; /* what the plan does with it, or NULL */
    const struct quant_options *o;
    const struct kernels *k;
    const struct quant_kernels *qk;
    bool pretty;           /* UTF-8 terminal */
    bool whole;            /* the sample is the tensor */
    int64_t n, rows, *row; /* weights in a row, rows of the sample and their numbers */
    float *x, *y, *w;      /* sample; what a technique gives back; importance or NULL */
    uint8_t *q;
    void *scratch;
    float lo, hi;       /* of the whole tensor */
    double mean, sigma; /* of the sample */
    struct trial trial[TRIALS_MAX];
    int n_trials;
    int focus; /* the trial that was chosen on the command line */
    struct arena mem;
};

static const char *safe_name(const char *name, char out[80])
{
    int n = 0;
    for (; *name && n < 79; name++) out[n++] = (char)((unsigned char)*name < 32 || (unsigned char)*name > 126 ? '?' : *name);
    out[n] = 0;
    return out;
}

/* ---- the sample ---- */

/* Importance of the first matrix; a stack of experts is sampled there. */
static void find_importance(struct view *v)
{
    const struct importance_entry *en = v->o->importance ? importance_find(v->o->importance, v->t->name) : NULL;
    if (en && !importance_slice(en, v->n, v->t->ne[2] * v->t->ne[3], 0, v->w)) en = NULL;
    if (!en) v->w = NULL;
}

static status take_sample(struct view *v, struct err *e)
{
    const struct tensor *t = v->t;
    int64_t all = t->ne[1];
    v->n = t->ne[0];
    if (v->n > SAMPLE) return err_set(e, ERR_USAGE, "%s: rows of %lld weights are too long to explain", t->name, (long long)v->n);
    v->rows = max_i64(1, min_i64(all, SAMPLE / v->n));
    v->whole = v->rows == tensor_rows(t);
    size_t bytes = (size_t)(v->rows * v->n) * sizeof(float);
    v->row = arena_zalloc(&v->mem, (size_t)v->rows, sizeof *v->row);
    v->x = arena_alloc(&v->mem, bytes);
    v->y = arena_alloc(&v->mem, bytes);
    v->q = arena_alloc(&v->mem, 2 * bytes);
    v->w = arena_alloc(&v->mem, (size_t)v->n * sizeof *v->w);
    v->scratch = arena_alloc(&v->mem, QUANT_SCRATCH);
    if (!v->row || !v->x || !v->y || !v->q || !v->w || !v->scratch) return err_oom(e, "sample", 4 * bytes);
    find_importance(v);
    for (int64_t i = 0; i < v->rows; i++) v->row[i] = i * all / v->rows;
    for (int64_t r = 0, i = 0; r < tensor_rows(t); r++) {
        bool wanted = i < v->rows && v->row[i] == r;
        float *x = wanted ? v->x + i++ * v->n : v->y, lo, hi;
        v->k->to_f32(t->type, (const uint8_t *)t->data + (size_t)r * t->nb[1], x, v->n);
        for (int64_t j = 0; j < v->n; j++)
            if (!isfinite(x[j]))
                return err_set(e, ERR_FORMAT, "%s: row %lld column %lld is %f", t->name, (long long)r, (long long)j, (double)x[j]);
        technique_range(x, v->n, &lo, &hi);
        if (r == 0 || lo < v->lo) v->lo = lo;
        if (r == 0 || hi > v->hi) v->hi = hi;
    }
    double sum = 0, sum2 = 0, count = (double)(v->rows * v->n);
    for (int64_t i = 0; i < v->rows * v->n; i++) sum += (double)v->x[i], sum2 += (double)v->x[i] * (double)v->x[i];
    v->mean = sum / count;
    v->sigma = sqrt(fmax(0, sum2 / count - v->mean * v->mean));
    return OK;
}

/* ---- trials ---- */

static void run_trial(struct view *v, struct trial *t)
{
    if (t->spec.method) t->spec.method->rows(&t->spec, v->qk, v->lo, v->hi, v->x, v->w, v->rows, v->n, v->q, v->scratch);
    else v->qk->rows[t->to->gguf_id](v->qk, v->x, v->w, v->rows, v->n, v->q, v->scratch);
    memset(&t->stats, 0, sizeof t->stats);
    stats_rows(&t->stats, v->k, t->to, v->x, v->q, v->w, v->rows, v->n, v->y);
}

static bool same_spec(const struct quant_spec *a, const struct quant_spec *b)
{
    return a->method == b->method && a->bits == b->bits && a->granularity == b->granularity &&
           (a->granularity != PER_GROUP || a->group == b->group);
}

/* Half floats for scales, whole bits for zero-points. */
static double technique_bits(const struct view *v, const struct quant_spec *s)
{
    double share = s->granularity == PER_GROUP ? (double)s->group
                   : s->granularity == PER_ROW ? (double)v->n
                                               : (double)tensor_elements(v->t);
    return s->bits + (16 + (s->method == &quantizer_zero_point ? s->bits : 0)) / share;
}

static void add_technique(struct view *v, const struct quant_spec *s)
{
    static const char *const names[] = { [PER_TENSOR] = "tensor", [PER_ROW] = "row", [PER_GROUP] = "group" };
    struct err ignored = { 0 };
    struct trial *t = &v->trial[v->n_trials];
    const struct dtype *to = s->method->target(s, &ignored);
    if (!to || v->n % to->block_len || v->n_trials == TRIALS_MAX) return;
    *t = (struct trial){ .spec = *s, .to = to, .bpw = technique_bits(v, s) };
    if (s->granularity == PER_GROUP) snprintf(t->name, sizeof t->name, "%s %d, group:%lld", s->method->name, s->bits, (long long)s->group);
    else snprintf(t->name, sizeof t->name, "%s %d, %s", s->method->name, s->bits, names[s->granularity]);
    if (v->o->spec.method && same_spec(s, &v->o->spec)) v->focus = v->n_trials;
    run_trial(v, t);
    v->n_trials++;
}

static void add_search(struct view *v, const struct dtype *to)
{
    struct trial *t = &v->trial[v->n_trials];
    *t = (struct trial){ .to = to, .bpw = 8.0 * to->block_bytes / to->block_len };
    snprintf(t->name, sizeof t->name, "search %s", to->gguf_name);
    run_trial(v, t);
    v->focus = v->n_trials++;
}

static void run_trials(struct view *v)
{
    static const struct quantizer *const methods[] = { &quantizer_absmax, &quantizer_zero_point };
    static const struct {
        enum granularity kind;
        int64_t group;
    } grains[] = { { PER_TENSOR, 0 }, { PER_ROW, 0 }, { PER_GROUP, 64 }, { PER_GROUP, 32 } };
    const struct quant_options *o = v->o;
    v->focus = -1;
    for (int bits = 8; bits >= 4; bits -= 4)
        for (int m = 0; m < ARRAY_LEN(methods); m++)
            for (int g = 0; g < ARRAY_LEN(grains); g++)
                add_technique(
                    v, &(struct quant_spec){ .method = methods[m], .bits = bits, .granularity = grains[g].kind, .group = grains[g].group });
    const struct dtype *to = v->item && !v->item->kept && !o->spec.method ? v->item->to : NULL;
    bool technique = o->spec.method == &quantizer_absmax || o->spec.method == &quantizer_zero_point;
    if (to) add_search(v, to);
    else if (technique && v->focus < 0) {
        int at = v->n_trials;
        add_technique(v, &o->spec);
        if (v->n_trials > at) v->focus = at;
    }
    if (v->focus < 0) v->focus = v->n_trials - 1;
}

/* ---- pictures and words ---- */

/* A sentence in lines of 78 characters, indented by two. */
static void say(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void say(const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t column = 0;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " ");
        if (column > 0 && column + 1 + n > WIDTH) out_printf("\n"), column = 0;
        out_printf("%s%.*s", column ? " " : "  ", (int)n, p);
        column += n + (column ? 1 : 2);
        p += n + strspn(p + n, " ");
    }
    out_printf("\n");
}

static void show_head(const struct view *v)
{
    char shape[64], name[80];
    const struct quant_stats *s = &v->trial[0].stats;
    double share = v->n_trials && s->n ? 100 * (double)s->outliers / (double)s->n : 0;
    out_printf("%s  %s  %s, %lld weights\n", safe_name(v->t->name, name), tensor_shape_text(v->t, shape), v->t->type->gguf_name,
               (long long)tensor_elements(v->t));
    if (!v->whole)
        say("figures are of %lld of its %lld rows, the range is of all", (long long)v->rows, (long long)tensor_rows(v->t));
    out_printf("  range %.6g to %.6g   mean %.3g   sigma %.4g\n", (double)v->lo, (double)v->hi, v->mean, v->sigma);
    if (v->n_trials)
        out_printf("  largest weight %.1f sigma   beyond 6 sigma of their row: %lld (%.4f %%)\n",
                   v->sigma > 0 ? fmax(-(double)v->lo, (double)v->hi) / v->sigma : 0, (long long)s->outliers, share);
    if (v->item && !v->item->kept)
        say("in the plan: %s%s%s", v->item->fallback ? "" : v->item->to->gguf_name, v->item->fallback ? v->item->why : "",
            v->w ? ", with importance" : ", without importance: all columns count the same");
    else if (v->item) say("in the plan: %s", v->item->why);
    out_printf("\n");
}

/* Where the 15 codes of absmax at 4 bits fall when every `span` weights share a scale: 0 = all. In units of the row's sigma, the middle span. */
static void show_codes(const struct view *v, int64_t span, const char *what)
{
    char line[STATS_BINS + 1];
    double sum = 0;
    int64_t n = 0;
    for (int64_t r = 0; r < v->rows; r++) {
        const float *x = v->x + r * v->n;
        double square = 0;
        for (int64_t j = 0; j < v->n; j++) square += (double)x[j] * (double)x[j];
        double sigma = sqrt(square / (double)v->n);
        for (int64_t at = 0; sigma > 0 && at < v->n; at += span ? span : v->n, n++) {
            float lo = v->lo, hi = v->hi;
            if (span) technique_range(x + at, min_i64(span, v->n - at), &lo, &hi);
            sum += fmax(-(double)lo, (double)hi) / 7 / sigma;
        }
    }
    memset(line, ' ', STATS_BINS);
    line[STATS_BINS] = 0;
    double step = n ? sum / (double)n : 0;
    for (int q = -7; q <= 7; q++) {
        double at = (q * step + 4) * (STATS_BINS / 8.0);
        if (at >= 0 && at < STATS_BINS) line[(int)at] = '|';
    }
    out_printf("  %s  %s\n", line, what);
}

static void show_histogram(const struct view *v)
{
    static const char *const blocks[] = { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
    const int64_t *h = v->trial[0].stats.hist;
    int64_t top = 1;
    for (int i = 0; i < STATS_BINS; i++) top = max_i64(top, h[i]);
    for (int line = CHART_LINES - 1; line >= 0; line--) {
        out_printf("  ");
        for (int i = 0; i < STATS_BINS; i++) {
            /* eighths of a line; whatever is not empty shows at least one */
            int64_t eighths = h[i] ? max_i64(1, h[i] * 8 * CHART_LINES / top) : 0, part = min_i64(8, max_i64(0, eighths - 8 * line));
            out_printf("%s", v->pretty ? blocks[part] : part > 4 ? "#" : part > 0 ? "." : " ");
        }
        out_printf("\n");
    }
    out_printf("  -4      -3      -2      -1       0       1       2       3     4  sigma of row\n");
    say("where the codes of 4-bit absmax fall when one scale serves the tensor, a row, 32 weights:");
    show_codes(v, 0, "tensor");
    show_codes(v, v->n, "row");
    show_codes(v, 32, "group:32");
    out_printf("\n");
}

static int codes_used(const struct view *v, const struct affine *a, int64_t n, int *lo, int *hi)
{
    bool used[512] = { false };
    int count = 0;
    *lo = 511, *hi = -512;
    for (int64_t i = 0; i < n; i++) {
        int q = affine_code(a, v->x[i]);
        if (!used[q + 256]) used[q + 256] = true, count++;
        if (q < *lo) *lo = q;
        if (q > *hi) *hi = q;
    }
    return count;
}

static void show_formulas(const struct view *v)
{
    for (int bits = 8; bits >= 4; bits -= 4) {
        int lo, hi;
        struct affine a = absmax_fit(v->lo, v->hi, bits), z = zero_point_fit(v->lo, v->hi, bits);
        out_printf("  absmax, %d bits, one scale for the tensor:      q is stored, y = scale * q\n", bits);
        out_printf("    scale = max |x| / %d = %.6g / %d = %.6g\n", a.q_hi, fmax(-(double)v->lo, (double)v->hi), a.q_hi, (double)a.scale);
        int n = codes_used(v, &a, v->rows * v->n, &lo, &hi);
        out_printf("    q     = round(x / scale), codes %d to %d are used: %d of %d\n", lo, hi, n, a.q_hi - a.q_lo + 1);
        out_printf("  zero-point, %d bits, one scale for the tensor:  y = scale * (q - zero)\n", bits);
        out_printf("    scale = (max - min) / %d = (%.6g - %.6g) / %d = %.6g\n", z.q_hi, fmax(0, (double)v->hi), fmin(0, (double)v->lo),
                   z.q_hi, (double)z.scale);
        out_printf("    zero  = round(-min / scale) = round(%.6g / %.6g) = %d\n", -fmin(0, (double)v->lo), (double)z.scale, z.zero);
        n = codes_used(v, &z, v->rows * v->n, &lo, &hi);
        out_printf("    q     = round(x / scale) + zero, codes %d to %d are used: %d of %d\n\n", lo, hi, n, z.q_hi + 1);
    }
}

/* The first weights of the first row: one scale for the tensor at 8 bits beside one for each 32 weights at 4. */
static void show_by_hand(const struct view *v)
{
    float lo, hi;
    int64_t n = min_i64(v->n, 32), shown = min_i64(n, BY_HAND);
    technique_range(v->x, n, &lo, &hi);
    const struct { const char *name; struct affine a; } each[] = {
        { "absmax 8, tensor", absmax_fit(v->lo, v->hi, 8) },
        { "absmax 4, group:32", absmax_fit(lo, hi, 4) },
        { "zero-point 4, group:32", zero_point_fit(lo, hi, 4) },
    };
    out_printf("  by hand, the first weights of row %lld:\n    x     ", (long long)v->row[0]);
    for (int64_t i = 0; i < shown; i++) out_printf(" %9.5f", (double)v->x[i]);
    for (int j = 0; j < ARRAY_LEN(each); j++) {
        const struct affine *a = &each[j].a;
        out_printf("\n  %s: scale %.6g", each[j].name, (double)a->scale);
        if (a->q_lo == 0) out_printf(", zero %d", a->zero);
        out_printf("\n    q     ");
        for (int64_t i = 0; i < shown; i++) out_printf(" %9d", affine_code(a, v->x[i]));
        out_printf("\n    y     ");
        for (int64_t i = 0; i < shown; i++) out_printf(" %9.5f", (double)affine_value(a, affine_code(a, v->x[i])));
        out_printf("\n    y - x ");
        for (int64_t i = 0; i < shown; i++) out_printf(" %9.5f", (double)(affine_value(a, affine_code(a, v->x[i])) - v->x[i]));
    }
    out_printf("\n\n");
}

/* With importance its column takes the place of the cosine: 80 columns hold no more. */
static void show_errors(const struct view *v)
{
    out_printf("  %-22s %6s  %-5s %9s %10s %10s %9s\n", "technique", "bits", "file", "rmse", "relative", v->w ? "weighted" : "cosine", "max error");
    for (int i = 0; i < v->n_trials; i++) {
        const struct trial *t = &v->trial[i];
        const struct quant_stats *s = &t->stats;
        out_printf("%s%-22s %6.3f  %-5s %9.3g %8.3f %%", i == v->focus ? "> " : "  ", t->name, t->bpw, t->to->gguf_name, stats_rmse(s),
                   100 * stats_relative(s));
        if (v->w) out_printf(" %8.3f %%", 100 * stats_weighted(s));
        else out_printf(" %10.6f", stats_cosine(s));
        out_printf(" %9.3g\n", (double)s->max_err);
    }
    out_printf("\n");
}

/* ---- where it hurts ---- */

struct share {
    int64_t at;
    double part;
};

static int by_part(const void *a, const void *b)
{
    const struct share *x = a, *y = b;
    if (x->part != y->part) return x->part < y->part ? 1 : -1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Squared errors of the chosen trial summed over rows or over columns, largest first; NULL when memory is out. */
static struct share *shares(struct view *v, bool columns, int64_t *n)
{
    double all = 0;
    *n = columns ? v->n : v->rows;
    struct share *s = arena_zalloc(&v->mem, (size_t)*n, sizeof *s);
    if (!s) return NULL;
    for (int64_t i = 0; i < *n; i++) s[i].at = i;
    for (int64_t r = 0; r < v->rows; r++)
        for (int64_t j = 0; j < v->n; j++) {
            double err = (double)(v->x[r * v->n + j] - v->y[r * v->n + j]), e2 = err * err * (v->w ? (double)v->w[j] : 1);
            s[columns ? j : r].part += e2;
            all += e2;
        }
    for (int64_t i = 0; i < *n; i++) s[i].part = all > 0 ? s[i].part / all : 0;
    qsort(s, (size_t)*n, sizeof *s, by_part);
    return s;
}

static void show_shares(const struct view *v, const struct share *s, int64_t n, bool columns)
{
    out_printf("    %-8s", columns ? "columns" : "rows");
    for (int64_t i = 0; i < min_i64(n, WORST); i++)
        out_printf(" %lld: %.2f %%  ", (long long)(columns ? s[i].at : v->row[s[i].at]), 100 * s[i].part);
    out_printf("(an even share: %.2f %%)\n", 100.0 / (double)n);
}

static const struct trial *find_trial(const struct view *v, const struct quantizer *m, int bits, enum granularity kind, int64_t group)
{
    struct quant_spec s = { .method = m, .bits = bits, .granularity = kind, .group = group };
    for (int i = 0; i < v->n_trials; i++)
        if (v->trial[i].spec.method && same_spec(&v->trial[i].spec, &s)) return &v->trial[i];
    return NULL;
}

/* The column with the largest weights and how many times those of the middle column they are. A column far above the others sets the scale
 * of its neighbours: its own error is small, theirs are not. */
struct tall {
    int64_t column;
    double times, relative;
};

static int rising(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static status find_tall(struct view *v, struct tall *t, struct err *e)
{
    float *top = arena_zalloc(&v->mem, 2 * (size_t)v->n, sizeof *top), *sorted = top + v->n;
    float *kept = arena_alloc(&v->mem, (size_t)v->rows * sizeof *kept);
    if (!top || !kept) return err_oom(e, "columns", (size_t)(2 * v->n + v->rows) * sizeof *top);
    for (int64_t i = 0; i < v->rows * v->n; i++) top[i % v->n] = fmaxf(top[i % v->n], fabsf(v->x[i]));
    *t = (struct tall){ 0 };
    for (int64_t j = 0; j < v->n; j++)
        if (top[j] > top[t->column]) t->column = j;
    memcpy(sorted, top, (size_t)v->n * sizeof *top);
    qsort(sorted, (size_t)v->n, sizeof *sorted, rising);
    t->times = sorted[v->n / 2] > 0 ? (double)(top[t->column] / sorted[v->n / 2]) : 1;
    /* what the chosen technique loses without it; exact when it is kept apart, but for half floats */
    struct trial without = v->trial[v->focus];
    float lo = v->lo, hi = v->hi;
    for (int64_t r = 0; r < v->rows; r++) {
        kept[r] = v->x[r * v->n + t->column];
        v->x[r * v->n + t->column] = 0;
    }
    technique_range(v->x, v->rows * v->n, &v->lo, &v->hi);
    run_trial(v, &without);
    v->lo = lo, v->hi = hi;
    for (int64_t r = 0; r < v->rows; r++) v->x[r * v->n + t->column] = kept[r];
    double x2 = v->trial[v->focus].stats.x2;
    t->relative = x2 > 0 ? sqrt(without.stats.e2 / x2) : 0;
    return OK;
}

/* One sentence: the cheapest thing that helps. */
static void show_verdict(const struct view *v, const struct share *column, const struct tall *tall)
{
    const struct trial *tensor = find_trial(v, &quantizer_absmax, 4, PER_TENSOR, 0), *row = find_trial(v, &quantizer_absmax, 4, PER_ROW, 0);
    const struct trial *group = find_trial(v, &quantizer_absmax, 4, PER_GROUP, 32),
                       *zero = find_trial(v, &quantizer_zero_point, 4, PER_GROUP, 32);
    const struct trial *now = &v->trial[v->focus];
    if (!tensor || !row || !group || !zero) return;
    double t = stats_relative(&tensor->stats), r = stats_relative(&row->stats), g = stats_relative(&group->stats),
           z = stats_relative(&zero->stats);
    double f = stats_relative(&now->stats), even = 1.0 / (double)v->n;
    if (t == 0 || f == 0) say("What would help: nothing is lost here.");
    else if (tall->times > 6 && tall->relative < 0.9 * f)
        say("What would help: keep column %lld in F16 (--keep-outliers): its weights are %.0fx those of other columns and set the scale of their "
            "neighbours; the error falls from %.3g %% to %.3g %%.", (long long)tall->column, tall->times, 100 * f, 100 * tall->relative);
    else if (column && column[0].part > fmax(0.05, 20 * even))
        say("What would help: column %lld alone makes %.0f %% of the error; keeping such columns in F16 (--keep-outliers) removes it.",
            (long long)column[0].at, 100 * column[0].part);
    else if (now->spec.method && now->spec.granularity == PER_TENSOR && t > 1.3 * r)
        say("What would help: one scale per row: rows differ in size, at 4 bits the error falls from %.2f %% to %.2f %%, with groups of 32 to "
            "%.2f %%.", 100 * t, 100 * r, 100 * g);
    else if (now->spec.method && now->spec.granularity != PER_GROUP && r > 1.15 * g)
        say("What would help: smaller groups: one large weight spoils the scale of fewer others; at 4 bits %.2f %% per row, %.2f %% per 32 "
            "weights.", 100 * r, 100 * g);
    else if (now->spec.method == &quantizer_absmax && z < 0.93 * g)
        say("What would help: a zero-point: groups are not symmetric; at 4 bits and groups of 32 the error falls from %.2f %% to %.2f %%.",
            100 * g, 100 * z);
    else
        say("What would help: more bits: each one halves the error (%.3g %% now)%s.", 100 * f,
            v->w ? "" : "; importance (cuanto importance) puts the error where the model looks least");
}

/* ---- */

static status explain_one(struct view *v, struct err *e)
{
    int64_t n;
    TRY(take_sample(v, e));
    run_trials(v);
    show_head(v);
    if (v->n_trials == 0 || v->n % 32) {
        out_printf(
            "  rows of %lld weights: the 4- and 8-bit formats need a multiple of 32; a plan keeps this tensor or stores it as F16.\n\n",
            (long long)v->n);
        return OK;
    }
    show_histogram(v);
    show_formulas(v);
    show_by_hand(v);
    show_errors(v);
    struct tall tall = { 0 };
    TRY(find_tall(v, &tall, e));
    run_trial(v, &v->trial[v->focus]); /* its bytes again */
    dtype_to_f32(v->trial[v->focus].to, v->q, v->y, v->rows * v->n);
    out_printf("  with %s, most of the squared error is in\n", v->trial[v->focus].name);
    struct share *rows = shares(v, false, &n);
    if (rows) show_shares(v, rows, n, false);
    struct share *columns = shares(v, true, &n);
    if (columns) show_shares(v, columns, n, true);
    say("largest weights: column %lld, %.1fx those of the middle column", (long long)tall.column, tall.times);
    show_verdict(v, columns, &tall);
    out_printf("\n");
    return rows && columns ? OK : err_oom(e, "shares", (size_t)n * sizeof *columns);
}

static bool utf8_terminal(void)
{
    static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
    for (int i = 0; i < ARRAY_LEN(names); i++) {
        const char *s = getenv(names[i]);
        if (s && *s) return term_is_tty(1) && (strstr(s, "UTF-8") || strstr(s, "utf8") || strstr(s, "UTF8") || strstr(s, "utf-8"));
    }
    return false;
}

static const struct quant_item *item_of(struct quant_plan *p, const struct tensor *t)
{
    for (int64_t i = 0; p && i < quant_plan_n(p); i++)
        if (!strcmp(quant_plan_item(p, i)->src->name, t->name)) return quant_plan_item(p, i);
    return NULL;
}

/* "^blk\.15\." of a model with 30 layers: neither the first nor the last speak for the rest. */
static void middle_layer(const struct gguf *g, char out[48])
{
    int64_t last = 0;
    int il;
    for (int64_t i = 0; i < g->n_tensors; i++)
        if (sscanf(g->tensor[i].name, "blk.%d.", &il) == 1 && il > last) last = il;
    snprintf(out, 48, "^blk\\.%lld\\..*weight", (long long)(last + 1) / 2);
}

static status explain_matches(const struct gguf *g, struct quant_plan *plan, const regex_t *re, bool matrices, struct view *v, int64_t *n,
                              struct err *e)
{
    status st = OK;
    for (int64_t i = 0; st == OK && i < g->n_tensors; i++) {
        if (regexec(re, g->tensor[i].name, 0, NULL, 0) != 0 || (matrices && tensor_rows(&g->tensor[i]) == 1)) continue;
        if (++*n > SHOWN_TENSORS) continue;
        v->t = &g->tensor[i];
        v->item = item_of(plan, v->t);
        v->n_trials = 0;
        arena_init(&v->mem, 0);
        st = explain_one(v, e);
        arena_free(&v->mem);
    }
    if (*n > SHOWN_TENSORS) out_printf("%lld more tensors match: narrow the expression to see them\n", (long long)*n - SHOWN_TENSORS);
    return st;
}

status explain_tensors(const struct gguf *g, struct quant_plan *plan, const char *regex, const struct quant_options *o, struct err *e)
{
    char middle[48];
    struct cpu_info cpu;
    struct kernels k;
    struct quant_kernels qk;
    uint64_t features;
    regex_t re;
    int64_t n = 0;
    cpu_detect(&cpu);
    features = cpu.features;
    if (o->isa) TRY(isa_features(o->isa, &cpu, &features, e));
    kernels_init(&k, features);
    quant_kernels_init(&qk, features);
    middle_layer(g, middle);
    bool chosen = *regex != 0;
    if (!chosen) regex = middle;
    int bad = regcomp(&re, regex, REG_EXTENDED | REG_NOSUB);
    if (bad) {
        char why[100];
        regerror(bad, &re, why, sizeof why);
        return err_set(e, ERR_USAGE, "--explain '%.60s': %s", regex, why);
    }
    struct view *v = mem_calloc(1, sizeof *v);
    status st = v ? OK : err_oom(e, "explanation", sizeof *v);
    if (st == OK) {
        v->o = o, v->k = &k, v->qk = &qk, v->pretty = utf8_terminal();
        st = explain_matches(g, plan, &re, !chosen, v, &n, e);
    }
    mem_free(v);
    regfree(&re);
    if (st == OK && n == 0)
        return err_set(e, ERR_USAGE, "--explain '%.60s' matches no tensor; the first is %.60s", regex,
                       g->n_tensors ? g->tensor[0].name : "missing");
    return st;
}

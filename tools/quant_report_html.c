/* quant_report_html - the report of a quantization as one page: no scripts, no other files, light and dark, readable on a phone. Charts are
 * inline SVG of 360 units, about the width of a phone, so that their text keeps its size there. Every name goes through buffer_html. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "tools/quant_plan.h"
#include "tools/quant_report.h"

enum { WIDTH = 360, SHOWN_LAYERS = 128, SHOWN_ROLES = 24, SHOWN_BARS = 16, SMALL_CHARTS = 6 };

static const char style[] =
    "<style>:root{color-scheme:light "
    "dark;--bg:#fbfbfa;--card:#fff;--fg:#1b1f24;--dim:#59636e;--line:#dde1e6;--hot:#c2350a;--cold:#1f6feb;--good:#1a7f37}"
    "@media(prefers-color-scheme:dark){:root{--bg:#0f1216;--card:#171b21;--fg:#e6e9ed;--dim:#9aa5b1;--line:#2b323b;--hot:#ff7a45;--cold:#"
    "6cb1ff;--good:#5fd38a}}"
    "*{box-sizing:border-box}body{background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif;margin:0 "
    "auto;max-width:76rem;padding:1rem}"
    "h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}p{max-width:46rem;margin:.4rem 0}.dim{color:var(--dim)}"
    ".cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:1rem 0}"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.7rem .9rem}.card "
    "b{display:block;font-size:1.15rem}"
    ".card span{color:var(--dim);font-size:.85rem}ul.advice{list-style:none;margin:0;padding:0;max-width:60rem}"
    "ul.advice li{background:var(--card);border:1px solid var(--line);border-left:.3rem solid "
    "var(--hot);border-radius:.4rem;padding:.55rem .8rem;margin:.5rem 0;"
    "overflow-wrap:anywhere}.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.5rem;background:var(--card)}"
    "table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;width:100%}"
    "th,td{padding:.32rem .6rem;text-align:right;border-bottom:1px solid "
    "var(--line);white-space:nowrap}th{color:var(--dim);font-weight:600}"
    "th:first-child,td:first-child{text-align:left}td.l,th.l{text-align:left}tr:last-child td{border-bottom:0}"
    ".bars{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr max-content;gap:.25rem "
    ".7rem;align-items:center;font-size:.88rem;max-width:60rem}"
    ".bars .n{overflow-wrap:anywhere}.bar{background:var(--line);border-radius:.25rem;height:.95rem}.bar "
    "i{display:block;height:100%;border-radius:.25rem;"
    "background:var(--cold);min-width:2px}.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1rem}"
    "figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.7rem;min-width:0}"
    "figure.wide{max-width:38rem}code{background:var(--bg);border:1px solid "
    "var(--line);border-radius:.25rem;padding:.05rem .3rem;-webkit-box-decoration-break:clone;box-decoration-break:clone;"
    "font:.9em ui-monospace,monospace}"
    "figcaption{font-size:.85rem;color:var(--dim);overflow-wrap:anywhere}svg{display:block;width:100%;height:auto}"
    "svg text{fill:var(--dim);font:9px system-ui,sans-serif}svg .axis{stroke:var(--line)}details{margin:.6rem 0}"
    "summary{cursor:pointer;color:var(--dim)}</style>";

static double mib(size_t bytes) { return (double)bytes / (1 << 20); }

/* A size with three digits: "52 B", "73.5 KiB", "3.51 MiB", "128 MiB" */
static bool put_size(struct buffer *b, size_t bytes)
{
    double v = mib(bytes);
    if (bytes < 1000) return buffer_put(b, "%zu B", bytes);
    if (v < 0.1) return buffer_put(b, "%.1f KiB", v * 1024);
    return buffer_put(b, v < 10 ? "%.2f MiB" : v < 100 ? "%.1f MiB" : "%.0f MiB", v);
}

/* A sentence with its --type '...' shown as what it is: something to copy. */
static bool put_advice(struct buffer *b, const char *s)
{
    static const char option[] = "--type '";
    char part[400];
    const char *at = strstr(s, option), *end = at ? strchr(at + sizeof option - 1, '\'') : NULL;
    if (!end) return buffer_html(b, s);
    snprintf(part, sizeof part, "%.*s", (int)(at - s), s);
    bool ok = buffer_html(b, part) && buffer_put(b, "<code>");
    snprintf(part, sizeof part, "%.*s", (int)(end + 1 - at), at);
    return buffer_html(b, part) && buffer_put(b, "</code>") && buffer_html(b, end + 1) && ok;
}

/* ---- head ---- */

static bool card(struct buffer *b, const char *what, const char *fmt, ...) PRINTF_LIKE(3, 4);
static bool card(struct buffer *b, const char *what, const char *fmt, ...)
{
    char text[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return buffer_put(b, "<div class=card><b>") && buffer_html(b, text) && buffer_put(b, "</b><span>%s</span></div>", what);
}

static bool head(const struct report *r, struct buffer *b)
{
    const struct quant_totals *t = r->totals;
    struct str name = { "", 0 };
    char text[96], error[32];
    struct err ignored = { 0 };
    gguf_get_str(quant_plan_gguf(r->plan), "general.name", &name, &ignored);
    snprintf(text, sizeof text, "%.*s", (int)(name.n < 90 ? name.n : 90), name.p);
    bool ok = buffer_put(b, "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
                            "content='width=device-width,initial-scale=1'><title>Quantization report ");
    ok = buffer_html(b, text) && buffer_put(b, "</title>%s<h1>Quantization report", style) && ok;
    if (name.n) ok = buffer_put(b, ": ") && buffer_html(b, text) && ok;
    ok = buffer_put(b, "</h1><p class=dim>") && ok;
    for (int i = 0; i < REPORT_FACTS; i++)
        if (r->fact[i].text[0]) ok = buffer_put(b, "%s <code>", r->fact[i].key) && buffer_html(b, r->fact[i].text) && buffer_put(b, "</code> ") && ok;
    ok = buffer_put(b, "</p><div class=cards>") && ok;
    ok = card(b, "file before, after", "%.4g → %.4g MiB", mib(t->bytes_from), mib(t->bytes_to)) && ok;
    ok = card(b, "bits per weight", "%.2f → %.2f", t->bpw_from, t->bpw_to) && ok;
    ok = card(b, "relative error, all weights", "%s", error_text(r->overall, r->sampled, error)) && ok;
    ok = card(b, "error of the middle tensor", "%.3g %%", 100 * r->median) && ok;
    if (r->n_rows) ok = card(b, "error of the worst tensor", "%.3g %%", 100 * r->row[0].weighted) && ok;
    if (quant_held_out(r->plan) > 0) ok = card(b, "error on unseen text, over the search's", "%.2f", quant_held_out(r->plan)) && ok;
    if (t->n_outliers) ok = card(b, "outlier columns in F16; cuanto only", "%lld in %d", (long long)t->n_outliers, t->n_outlier_matrices) && ok;
    ok = card(b, "tensors quantized, kept", "%lld, %lld", (long long)r->n_rows, (long long)(quant_plan_n(r->plan) - r->n_rows)) && ok;
    return buffer_put(b,
                      "</div><p class=dim>Errors are relative: root mean square of what rounding changed, divided by that of the "
                      "weights%s.%s</p>\n",
                      r->weighted ? ", each column weighted by how much the model uses it (importance)" : "",
                      r->sampled ? " They come from a sample of the rows." : "") &&
           ok;
}

static bool advice(const struct report *r, struct buffer *b)
{
    bool ok = buffer_put(b, "<h2>Which tensors hurt, and what to change</h2><ul class=advice>");
    char line[400];
    for (const char *p = r->advice.p ? r->advice.p : ""; *p;) {
        size_t n = strcspn(p, "\n");
        snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line - 1 ? n : sizeof line - 1), p);
        ok = buffer_put(b, "<li>") && put_advice(b, line) && ok;
        p += n + (p[n] == '\n');
    }
    return buffer_put(b, "</ul>\n") && ok;
}

/* ---- heat map ---- */

static const struct report_row *row_at(const struct report *r, const char *role, int64_t layer)
{
    for (int64_t i = 0; i < r->n_rows; i++)
        if (r->row[i].layer == layer && !strcmp(r->row[i].role, role)) return &r->row[i];
    return NULL;
}

static bool heat_cell(const struct report *r, struct buffer *b, const char *role, int64_t layer, double x, double y, double w, double h)
{
    const struct report_row *row = row_at(r, role, layer);
    if (!row) return true;
    double top = r->row[0].weighted, at = top > 0 ? row->weighted / top : 0;
    return buffer_put(b, "<rect x='%.2f' y='%.1f' width='%.2f' height='%.1f' rx=1 fill='var(--hot)' fill-opacity='%.2f'><title>", x, y, w,
                      h, 0.06 + 0.94 * at) &&
           buffer_html(b, row->it->src->name) && buffer_put(b, " %s: %.3g %%</title></rect>", row->it->to->gguf_name, 100 * row->weighted);
}

static bool heat_scale(const struct report *r, struct buffer *b, double y)
{
    bool ok = true;
    for (int i = 0; i < 20; i++)
        ok = buffer_put(b, "<rect x='%d' y='%.1f' width=4.6 height=8 fill='var(--hot)' fill-opacity='%.2f'/>", 150 + 5 * i, y,
                        0.06 + 0.94 * i / 19) &&
             ok;
    return buffer_put(b, "<text x=146 y='%.1f' text-anchor=end>0 %%</text><text x=254 y='%.1f'>%.3g %%</text>", y + 7.5, y + 7.5,
                      100 * r->row[0].weighted) &&
           ok;
}

static bool in_map(const struct report *r, const struct report_group *g)
{
    for (int64_t i = 0; i < r->n_rows; i++)
        if (r->row[i].layer >= 0 && !strcmp(r->row[i].role, g->name)) return true;
    return false;
}

/* One row per kind of tensor, one column per layer: where errors gather shows at a glance. */
static bool heat_map(const struct report *r, struct buffer *b)
{
    int64_t layers = min_i64(r->n_layers, SHOWN_LAYERS);
    const struct report_group *shown[SHOWN_ROLES];
    int n = 0;
    for (int64_t i = 0; i < r->n_roles && n < SHOWN_ROLES; i++)
        if (in_map(r, &r->role[i])) shown[n++] = &r->role[i];
    if (layers < 2 || n == 0) return true;
    const double left = 84, line = 15, step = (WIDTH - left) / (double)layers;
    bool ok = buffer_put(
        b,
        "<h2>Error by layer</h2><figure class=wide><svg viewBox='0 0 %d %.0f' role=img aria-label='relative error of every kind of tensor "
        "in every layer'>",
        WIDTH, 14 + line * n + 18);
    ok = buffer_put(b, "<text x='%.0f' y=9>layer 0</text><text x='%d' y=9 text-anchor=end>%lld</text>", left, WIDTH - 1,
                    (long long)layers - 1) &&
         ok;
    for (int i = 0; i < n; i++) {
        char label[20];
        double y = 14 + line * i;
        snprintf(label, sizeof label, "%.17s", shown[i]->name);
        ok = buffer_put(b, "<text x='%.0f' y='%.1f' text-anchor=end>", left - 5, y + 10) && buffer_html(b, label) &&
             buffer_put(b, "</text>") && ok;
        for (int64_t il = 0; il < layers; il++)
            ok = heat_cell(r, b, shown[i]->name, il, left + step * (double)il, y, step * 0.9, line - 2) && ok;
    }
    ok = heat_scale(r, b, 14 + line * n + 5) && ok;
    return buffer_put(b, "</svg><figcaption>The stronger the colour, the larger the error. A strong row is a kind of tensor that needs a "
                         "larger type; a strong cell is one tensor. Empty: kept as it was.</figcaption>"
                         "</figure>\n") &&
           ok;
}

/* ---- sizes ---- */

static bool sizes(const struct report *r, struct buffer *b)
{
    size_t top = r->n_roles ? r->role[0].bytes_to : 1, rest = 0;
    int64_t shown = 0, rest_n = 0;
    while (shown < min_i64(r->n_roles, SHOWN_BARS) && r->role[shown].bytes_to > r->totals->bytes_to / 500) shown++;
    bool ok = buffer_put(b, "<h2>Where the bytes are</h2><div class=bars>");
    for (int64_t i = 0; i < shown; i++) {
        const struct report_group *g = &r->role[i];
        ok = buffer_put(b, "<span class=n>") && buffer_html(b, g->name) && buffer_put(b, " <span class=dim>") && ok;
        if (g->n > 1) ok = buffer_put(b, "×%lld ", (long long)g->n) && ok;
        ok = buffer_put(b, "%s</span></span><span class=bar><i style='width:%.1f%%'></i></span><span>", g->to ? g->to->gguf_name : "mixed",
                        100 * (double)g->bytes_to / (double)(top ? top : 1)) &&
             ok;
        ok = put_size(b, g->bytes_to) && buffer_put(b, "</span>") && ok;
    }
    for (int64_t i = shown; i < r->n_roles; i++) rest += r->role[i].bytes_to, rest_n += r->role[i].n;
    if (rest_n) {
        ok = buffer_put(b, "<span class=n>%lld more</span><span class=bar><i style='width:%.1f%%'></i></span><span>", (long long)rest_n,
                        fmin(100, 100 * (double)rest / (double)(top ? top : 1))) &&
             ok;
        ok = put_size(b, rest) && buffer_put(b, "</span>") && ok;
    }
    return buffer_put(b, "</div>\n") && ok;
}

/* ---- types ---- */

static bool types(const struct report *r, struct buffer *b)
{
    bool ok =
        buffer_put(b, "<h2>By type</h2><div "
                      "class=scroll><table><tr><th>type<th>tensors<th>size<th>bits/weight<th>relative error%s<th>cosine<th>SNR<th>max "
                      "error<th>outliers</tr>\n", r->weighted ? "<th>weighted" : "");
    for (int64_t i = 0; i < r->n_types; i++) {
        const struct report_group *g = &r->type[i];
        ok = buffer_put(b, "<tr><td>%s%s<td>%lld<td>", g->to->gguf_name, g->kept ? " <span class=dim>kept</span>" : "", (long long)g->n) &&
             put_size(b, g->bytes_to) && ok;
        ok = buffer_put(b, "<td>%.2f", g->elements ? 8.0 * (double)g->bytes_to / (double)g->elements : 0) && ok;
        if (g->kept || g->stats.n == 0) {
            ok = buffer_put(b, "<td>-<td>-<td>-<td>-<td>-%s</tr>\n", r->weighted ? "<td>-" : "") && ok;
            continue;
        }
        ok = (!r->weighted || buffer_put(b, "<td>%.3g %%", 100 * stats_relative(&g->stats))) && ok;
        ok = buffer_put(b, "<td>%.3g %%<td>%.6f<td>%.1f dB<td>%.3g<td>%lld</tr>\n", 100 * g->weighted, stats_cosine(&g->stats),
                        fmin(stats_snr(&g->stats), 999), (double)g->stats.max_err, (long long)g->stats.outliers) &&
             ok;
    }
    return buffer_put(b, "</table></div>\n") && ok;
}

/* ---- histograms ---- */

static bool histogram(struct buffer *b, const int64_t *h, const char *color, const char *unit)
{
    int64_t top = 1;
    const double height = 84, base = 90, step = (double)WIDTH / STATS_BINS;
    for (int i = 0; i < STATS_BINS; i++) top = max_i64(top, h[i]);
    bool ok = buffer_put(b, "<svg viewBox='0 0 %d 104' role=img aria-label='histogram'>", WIDTH);
    for (int i = 0; i < STATS_BINS; i++)
        if (h[i])
            ok = buffer_put(b, "<rect x='%.2f' y='%.2f' width='%.2f' height='%.2f' fill='var(--%s)'/>", step * i,
                            base - fmax(0.7, height * (double)h[i] / (double)top), step * 0.88,
                            fmax(0.7, height * (double)h[i] / (double)top), color) &&
                 ok;
    ok = buffer_put(b, "<line class=axis x1=0 x2='%d' y1=90.5 y2=90.5 />", WIDTH) && ok;
    for (int i = -3; i <= 3; i++)
        ok = buffer_put(b, "<text x='%.1f' y=101 text-anchor=middle>%d%s</text>", WIDTH * (i + 4) / 8.0, i, i ? unit : "") && ok;
    return buffer_put(b, "</svg>") && ok;
}

static bool histograms(const struct report *r, struct buffer *b)
{
    if (!r->n_rows) return true;
    bool ok = buffer_put(b, "<h2>Distributions</h2><p class=dim>σ is the root mean square of the weight's row; the outermost bars hold "
                            "everything beyond ±4σ.</p><div class=charts>"
                            "<figure>") &&
              histogram(b, r->all.hist, "cold", "σ");
    ok = buffer_put(b, "<figcaption>weights of all quantized tensors</figcaption></figure><figure>") &&
         histogram(b, r->all.err_hist, "hot", "σ") && ok;
    ok = buffer_put(
             b,
             "<figcaption>their errors, in units of the row's error; flat: rounding, long tails: clipped weights</figcaption></figure>") &&
         ok;
    for (int64_t i = 0; i < min_i64(r->n_rows, SMALL_CHARTS); i++) {
        const struct report_row *row = &r->row[i];
        ok = buffer_put(b, "<figure>") && histogram(b, row->it->stats.hist, "cold", "σ") && buffer_put(b, "<figcaption>weights of ") &&
             buffer_html(b, row->it->src->name) && ok;
        ok = buffer_put(b, ", number %lld by error: %.3g %%, %lld outliers beyond 6σ</figcaption></figure>", (long long)i + 1,
                        100 * row->weighted, (long long)row->it->stats.outliers) &&
             ok;
    }
    return buffer_put(b, "</div>\n") && ok;
}

/* ---- all tensors ---- */

static bool tensors(const struct report *r, struct buffer *b)
{
    char shape[64];
    bool ok = buffer_put(b, "<h2>All tensors, worst first</h2><div class=scroll><table><tr><th>tensor<th "
                            "class=l>type%s<th>relative<th>rmse<th>cosine<th>max error<th>"
                            "outliers<th>size<th class=l>shape<th class=l>why</tr>\n", r->weighted ? "<th>weighted" : "");
    for (int64_t i = 0; i < r->n_rows; i++) {
        const struct report_row *row = &r->row[i];
        const struct quant_item *it = row->it;
        const struct quant_stats *s = &it->stats;
        ok = buffer_put(b, "<tr><td>") && buffer_html(b, it->src->name) &&
             buffer_put(b, "<td class=l>%s → %s", it->src->type->gguf_name, it->to->gguf_name) && ok;
        ok = (!r->weighted || buffer_put(b, "<td>%.3g %%", 100 * row->weighted)) && ok;
        ok = buffer_put(b, "<td>%.3g %%<td>%.3g<td>%.6f<td>%.3g<td>%lld<td>", 100 * row->relative, stats_rmse(s), stats_cosine(s),
                        (double)s->max_err, (long long)s->outliers) &&
             ok;
        ok = put_size(b, it->bytes_to) && buffer_put(b, "<td class=l>%s<td class=l>", tensor_shape_text(it->src, shape)) &&
             buffer_html(b, it->why) && buffer_put(b, "</tr>\n") && ok;
    }
    return buffer_put(b, "</table></div>\n") && ok;
}

bool report_html(const struct report *r, struct buffer *b)
{
    return head(r, b) && advice(r, b) && heat_map(r, b) && types(r, b) && report_solved_html(r, b) && sizes(r, b) && histograms(r, b) && tensors(r, b) &&
           buffer_put(b, "<p class=dim>Written by cuanto quantize --report.</p></html>\n");
}

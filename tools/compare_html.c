/* compare_html - the report of `cuanto compare` as one page: no scripts, no other files, light and dark. Charts are inline SVG. */
#include <math.h>
#include <stdio.h>
#include "tools/compare_report.h"

/* A chart: data of x in 0..1 and y in 0..1 land in this frame. */
enum { WIDTH = 640, HEIGHT = 300, LEFT = 70, RIGHT = 20, TOP = 16, BOTTOM = 44 };
static double px(double x) { return LEFT + x * (WIDTH - LEFT - RIGHT); }
static double py(double y) { return HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM); }

static const char style[] =
    "<style>:root{color-scheme:light "
    "dark;--bg:#fff;--fg:#1a1d21;--dim:#667;--line:#d5d9de;--s0:#1667c0;--s1:#c2410c;--s2:#15803d;--s3:#9333ea;"
    "--s4:#b45309;--s5:#0e7490;--s6:#be185d;--s7:#4d7c0f}@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e6e8eb;--dim:#9aa3ad;"
    "--line:#333a42;--s0:#6cb1ff;--s1:#ff9a62;--s2:#6fd694;--s3:#cf9bff;--s4:#f3c052;--s5:#5fd3e6;--s6:#ff8abf;--s7:#b6dd6c}}"
    "body{background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem}"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin:2rem 0 .3rem}p{max-width:60rem}.dim{color:var(--dim)}.scroll{overflow-x:auto}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid "
    "var(--line);"
    "white-space:nowrap}th:first-child,td:first-child{text-align:left}.e{color:var(--dim);font-size:.85em}.charts{display:flex;flex-wrap:"
    "wrap;gap:1rem}"
    "figure{margin:0;flex:1 1 30rem;max-width:44rem}figcaption{color:var(--dim);font-size:.9em}svg{width:100%;height:auto}"
    "svg text{fill:var(--dim);font:12px system-ui,sans-serif}svg .grid{stroke:var(--line)}svg .curve{fill:none;stroke-width:2}"
    ".key{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.4em}</style>";

static bool cell(struct buffer *b, int decimals, double v)
{
    return isfinite(v) ? buffer_put(b, "<td>%.*f</td>", decimals, v) : buffer_put(b, "<td>-</td>");
}

static bool cell_error(struct buffer *b, int decimals, double v, double error)
{
    return buffer_put(b, "<td>%.*f <span class=e>&plusmn; %.*f</span></td>", decimals, v, decimals, error);
}

/* ---- tables ---- */

static bool model_row(struct buffer *b, const struct compared *c, int series)
{
    bool ok =
        series < 0 ? buffer_put(b, "<tr><td>") : buffer_put(b, "<tr><td><span class=key style='background:var(--s%d)'></span>", series % 8);
    ok = buffer_html(b, c->name) && buffer_put(b, "</td><td>") && buffer_html(b, c->type) && buffer_put(b, "</td>") && ok;
    ok = cell(b, 1, c->bytes / 1048576) && cell(b, 2, c->bpw) && cell_error(b, 4, c->s.ppl.value, c->s.ppl.error) && ok;
    if (series < 0) return buffer_put(b, "<td colspan=5>reference</td>") && cell(b, 1, c->speed) && buffer_put(b, "</tr>\n") && ok;
    ok = cell_error(b, 5, c->s.ln_ratio.value, c->s.ln_ratio.error) && cell_error(b, 5, c->s.kld.value, c->s.kld.error) && ok;
    ok = cell(b, 5, c->s.kld_at[9]) && cell_error(b, 2, 100 * c->s.top1.value, 100 * c->s.top1.error) && ok;
    return cell_error(b, 2, 100 * c->s.rms_dp.value, 100 * c->s.rms_dp.error) && cell(b, 1, c->speed) && buffer_put(b, "</tr>\n") && ok;
}

static bool points_table(struct buffer *b, const struct comparison *c, const char *title, const double *at, int n, bool dp)
{
    bool ok = buffer_put(b, "<h2>%s</h2><div class=scroll><table><tr><th>model</th>", title);
    for (int i = 0; i < n; i++) {
        if (at[i] == 0 || at[i] == 1) ok = buffer_put(b, "<th>%s</th>", at[i] == 0 ? "min" : "max") && ok;
        else ok = buffer_put(b, "<th>%g %%</th>", 100 * at[i]) && ok;
    }
    ok = buffer_put(b, "</tr>\n") && ok;
    for (int m = 0; m < c->n_models; m++) {
        ok = buffer_put(b, "<tr><td><span class=key style='background:var(--s%d)'></span>", m % 8) && buffer_html(b, c->model[m].name) &&
             buffer_put(b, "</td>") && ok;
        for (int i = 0; i < n; i++) ok = (dp ? cell(b, 3, 100 * c->model[m].s.dp_at[i]) : cell(b, 5, c->model[m].s.kld_at[i])) && ok;
        ok = buffer_put(b, "</tr>\n") && ok;
    }
    return buffer_put(b, "</table></div>\n") && ok;
}

/* ---- charts ---- */

static bool frame(struct buffer *b, const char *label)
{
    return buffer_put(b, "<figure><svg viewBox='0 0 %d %d' role=img aria-label='%s'>", WIDTH, HEIGHT, label);
}

static bool tick_y(struct buffer *b, double y, const char *text)
{
    return buffer_put(b, "<line class=grid x1='%d' x2='%d' y1='%.1f' y2='%.1f'/><text x='%d' y='%.1f' text-anchor=end>%s</text>", LEFT,
                    WIDTH - RIGHT, py(y), py(y), LEFT - 6, py(y) + 4, text);
}

static bool tick_x(struct buffer *b, double x, const char *text)
{
    return buffer_put(b, "<text x='%.1f' y='%d' text-anchor=middle>%s</text>", px(x), HEIGHT - BOTTOM + 18, text);
}

/* Logarithmic scale of y over whole decades. */
struct decades {
    int lo, hi;
};
static double log_y(const struct decades *d, double v)
{
    double y = (log10(v > 0 ? v : 1e-30) - d->lo) / (d->hi - d->lo);
    return y < 0 ? 0 : y > 1 ? 1 : y;
}

static void widen(struct decades *d, double v)
{
    if (!(v > 1e-6)) v = 1e-6; /* below is rounding */
    int lo = (int)floor(log10(v)), hi = (int)ceil(log10(v));
    if (lo < d->lo) d->lo = lo;
    if (hi > d->hi) d->hi = hi;
    if (d->hi == d->lo) d->hi++;
}

static bool decade_ticks(struct buffer *b, const struct decades *d)
{
    bool ok = true;
    for (int k = d->lo; k <= d->hi; k++) {
        char text[32];
        snprintf(text, sizeof text, "%g", pow(10, k));
        ok = tick_y(b, (double)(k - d->lo) / (d->hi - d->lo), text) && ok;
    }
    return ok;
}

static bool percentile_chart(struct buffer *b, const struct comparison *c)
{
    enum { FROM = 4 };
    static const char *const names[] = { "10 %", "50 %", "90 %", "95 %", "99 %", "99.9 %", "max" };
    struct decades d = { 9, -9 };
    for (int m = 0; m < c->n_models; m++)
        for (int i = FROM; i < KLD_POINTS; i++) widen(&d, c->model[m].s.kld_at[i]);
    bool ok = frame(b, "KL divergence by percentile") && decade_ticks(b, &d);
    for (int i = FROM; i < KLD_POINTS; i++) ok = tick_x(b, (double)(i - FROM) / (KLD_POINTS - 1 - FROM), names[i - FROM]) && ok;
    for (int m = 0; m < c->n_models; m++) {
        ok = buffer_put(b, "<polyline class=curve stroke='var(--s%d)' points='", m % 8) && ok;
        for (int i = FROM; i < KLD_POINTS; i++)
            ok = buffer_put(b, "%.1f,%.1f ", px((double)(i - FROM) / (KLD_POINTS - 1 - FROM)), py(log_y(&d, c->model[m].s.kld_at[i]))) && ok;
        ok = buffer_put(b, "'><title>") && buffer_html(b, c->model[m].name) && buffer_put(b, "</title></polyline>") && ok;
    }
    return buffer_put(
               b,
               "</svg><figcaption>KL divergence (nats, logarithmic) that this share of the tokens stays below.</figcaption></figure>\n") &&
           ok;
}

static bool position_chart(struct buffer *b, const struct comparison *c)
{
    double top = 0;
    char text[32];
    for (int m = 0; m < c->n_models; m++)
        for (int i = 0; i < c->n_bins; i++) top = fmax(top, c->model[m].kld_bin[i]);
    if (!(top > 0)) top = 1e-6;
    bool ok = frame(b, "mean KL divergence by position");
    for (int i = 0; i <= 4; i++) {
        snprintf(text, sizeof text, "%.3g", top * i / 4);
        ok = tick_y(b, i / 4.0, text) && ok;
        snprintf(text, sizeof text, "%lld", (long long)(c->n_ctx / 2 + 1 + (c->n_ctx - 2 - c->n_ctx / 2) * i / 4));
        ok = tick_x(b, i / 4.0, text) && ok;
    }
    for (int m = 0; m < c->n_models; m++) {
        ok = buffer_put(b, "<polyline class=curve stroke='var(--s%d)' points='", m % 8) && ok;
        for (int i = 0; i < c->n_bins; i++)
            ok = buffer_put(b, "%.1f,%.1f ", px((i + 0.5) / c->n_bins), py(fmax(0, c->model[m].kld_bin[i]) / top)) && ok;
        ok = buffer_put(b, "'><title>") && buffer_html(b, c->model[m].name) && buffer_put(b, "</title></polyline>") && ok;
    }
    return buffer_put(b, "</svg><figcaption>Mean KL divergence by position in the chunk. A curve that climbs means that errors build up in "
                       "the context.</figcaption></figure>\n") &&
           ok;
}

static bool size_chart(struct buffer *b, const struct comparison *c)
{
    struct decades d = { 9, -9 };
    double lo = INFINITY, hi = 0;
    char text[32];
    for (int m = 0; m < c->n_models; m++) {
        widen(&d, c->model[m].s.kld.value);
        lo = fmin(lo, c->model[m].bytes), hi = fmax(hi, c->model[m].bytes);
    }
    double pad = hi > lo ? 0.1 * (hi - lo) : 0.1 * hi;
    lo -= pad, hi += pad;
    bool ok = frame(b, "file size against mean KL divergence") && decade_ticks(b, &d);
    for (int i = 0; i <= 4; i++) {
        snprintf(text, sizeof text, "%.0f MiB", (lo + (hi - lo) * i / 4) / 1048576);
        ok = tick_x(b, i / 4.0, text) && ok;
    }
    for (int m = 0; m < c->n_models; m++) {
        const struct compared *x = &c->model[m];
        double at = px((x->bytes - lo) / (hi - lo)), v = x->s.kld.value, e = x->s.kld.error;
        ok = buffer_put(b, "<line stroke='var(--s%d)' x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f'/>", m % 8, at, at, py(log_y(&d, v - e)),
                      py(log_y(&d, v + e))) &&
             ok;
        ok = buffer_put(b, "<circle fill='var(--s%d)' r=5 cx='%.1f' cy='%.1f'/><text x='%.1f' y='%.1f'>", m % 8, at, py(log_y(&d, v)), at + 8,
                      py(log_y(&d, v)) - 8) &&
             ok;
        ok = buffer_html(b, x->type) && buffer_put(b, "</text>") && ok;
    }
    return buffer_put(
               b, "</svg><figcaption>File size against mean KL divergence (logarithmic). Lower left is better.</figcaption></figure>\n") &&
           ok;
}

bool compare_html(const struct comparison *c, struct buffer *b)
{
    bool ok = buffer_put(
        b, "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>cuanto compare: ");
    ok = buffer_html(b, c->ref->name) && buffer_put(b, "</title>%s\n<h1>Compared with ", style) && buffer_html(b, c->ref->name) &&
         buffer_put(b, "</h1>\n<p class=dim>Text ") && ok;
    ok = buffer_html(b, c->text) &&
         buffer_put(b, ": %lld %s of %lld tokens, %lld scored%s. %d threads, %s, %s activations, %.1f s.</p>\n", (long long)c->n_chunks,
                    c->n_chunks == 1 ? "chunk" : "chunks",
                  (long long)c->n_ctx, (long long)c->n_tokens, c->bos ? ", each chunk begins with BOS" : "", c->threads, c->isa,
                  c->precise ? "precise" : "fast", c->seconds) &&
         ok;
    ok = buffer_put(b, "<div class=scroll><table><tr><th>model</th><th>type</th><th>MiB</th><th>bpw</th><th>perplexity</th><th>ln(PPL/PPL "
                     "ref)</th><th>KL divergence</th>"
                     "<th>99.9 %% KL</th><th>same top-1 %%</th><th>RMS &Delta;p %%</th><th>tok/s</th></tr>\n") &&
         ok;
    ok = model_row(b, c->ref, -1) && ok;
    for (int m = 0; m < c->n_models; m++) ok = model_row(b, &c->model[m], m) && ok;
    ok = buffer_put(b, "</table></div>\n<p>KL divergence says how far the model's predictions are from the reference's, 0 is identical; its "
                     "99.9 %% point shows the rare "
                     "large errors. Perplexity says how well the text is predicted, by luck also better than the reference. &plusmn; is "
                     "one standard error.</p>\n"
                     "<div class=charts>\n") &&
         ok;
    ok = percentile_chart(b, c) && position_chart(b, c) && (c->n_models < 2 || size_chart(b, c)) && buffer_put(b, "</div>\n") && ok;
    ok = points_table(b, c, "KL divergence of a token, by percentile", kld_points, KLD_POINTS, false) && ok;
    ok = points_table(b, c, "Change of the right token's probability, percent", dp_points, DP_POINTS, true) && ok;
    return buffer_put(b, "</html>\n") && ok;
}

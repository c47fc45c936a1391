/* train_plot - see train_plot.h. */
#include "tools/train_plot.h"
#include <math.h>

enum { W = 720, H = 400, LEFT = 60, RIGHT = 20, TOP = 24, BOTTOM = 44 };

struct range { double lo, hi; };

static struct range losses(const struct train_point *row, int64_t n)
{
    struct range r = { INFINITY, -INFINITY };
    for (int64_t i = 0; i < n; i++) {
        r.lo = fmin(r.lo, row[i].loss), r.hi = fmax(r.hi, row[i].loss);
        if (isfinite(row[i].valid)) r.lo = fmin(r.lo, row[i].valid), r.hi = fmax(r.hi, row[i].valid);
    }
    if (!(r.hi > r.lo)) r.lo -= 0.5, r.hi += 0.5;
    return r;
}

struct frame { struct range y; double steps; };
static double at_x(const struct frame *f, double step) { return LEFT + (W - LEFT - RIGHT) * (f->steps > 1 ? (step - 1) / (f->steps - 1) : 0.5); }
static double at_y(const struct frame *f, double loss) { return TOP + (H - TOP - BOTTOM) * (f->y.hi - loss) / (f->y.hi - f->y.lo); }

static bool axes(struct buffer *b, const struct frame *f)
{
    bool ok = true;
    for (int i = 0; i <= 4 && ok; i++) {
        double loss = f->y.lo + (f->y.hi - f->y.lo) * i / 4, y = at_y(f, loss), step = 1 + (f->steps - 1) * i / 4, x = at_x(f, step);
        ok = buffer_put(b, "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' stroke='#ddd'/>", LEFT, y, W - RIGHT, y) &&
             buffer_put(b, "<text x='%d' y='%.1f' text-anchor='end'>%.3g</text>", LEFT - 6, y + 4, loss) &&
             buffer_put(b, "<text x='%.1f' y='%d' text-anchor='middle'>%.0f</text>\n", x, H - BOTTOM + 18, step);
    }
    return ok && buffer_put(b, "<text x='%d' y='%d' text-anchor='middle'>step</text>\n", (LEFT + W - RIGHT) / 2, H - 8);
}

/* kind 0: each step, 1: the average, 2: validation */
static bool line(struct buffer *b, const struct frame *f, const struct train_point *row, int64_t n, int kind)
{
    static const char *const style[] = { "stroke='#9bc' stroke-width='1'", "stroke='#147' stroke-width='2'", "stroke='#c50' stroke-width='2'" };
    double mean = 0;
    bool ok = buffer_put(b, "<polyline fill='none' %s points='", style[kind]);
    for (int64_t i = 0; i < n && ok; i++) {
        mean = train_average(mean, row[i].loss, i, n);
        double y = kind == 0 ? row[i].loss : kind == 1 ? mean : row[i].valid;
        if (isfinite(y)) ok = buffer_put(b, "%.1f,%.1f ", at_x(f, (double)row[i].step), at_y(f, y));
    }
    return ok && buffer_put(b, "'/>\n");
}

bool plot_svg(struct buffer *b, const struct train_point *row, int64_t n)
{
    struct frame f = { losses(row, n), n > 0 ? (double)row[n - 1].step : 1 };
    bool ok = buffer_put(b, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' font-family='sans-serif' font-size='12'>\n", W, H) &&
              buffer_put(b, "<rect width='%d' height='%d' fill='white'/>\n", W, H) && axes(b, &f);
    for (int kind = 0; kind < 3 && ok; kind++) ok = line(b, &f, row, n, kind);
    return ok && buffer_put(b, "<text x='%d' y='16' fill='#147'>training loss</text><text x='%d' y='16' fill='#c50'>validation loss</text>\n</svg>\n", LEFT,
                            LEFT + 110);
}

bool plot_text(struct buffer *b, const struct train_point *row, int64_t n, int width)
{
    enum { LINES = 8, MOST = 200 };
    static const char *const block[] = { " ", "\u2581", "\u2582", "\u2583", "\u2584", "\u2585", "\u2586", "\u2587", "\u2588" };
    double mean = 0, column[MOST];
    struct range r = { INFINITY, -INFINITY };
    int columns = (int)min_i64(min_i64(width - 10, MOST), n);
    if (columns < 2) return true;
    for (int64_t i = 0; i < n; i++) {
        mean = train_average(mean, row[i].loss, i, n);
        column[i * columns / n] = mean;
        r.lo = fmin(r.lo, mean), r.hi = fmax(r.hi, mean);
    }
    double unit = (r.hi - r.lo) / (LINES * 8 - 1);
    bool ok = true;
    for (int y = LINES - 1; y >= 0 && ok; y--) {
        ok = y == LINES - 1 ? buffer_put(b, "%8.3f ", r.hi) : y == 0 ? buffer_put(b, "%8.3f ", r.lo) : buffer_put(b, "         ");
        for (int x = 0; x < columns && ok; x++) {
            int level = unit > 0 ? 1 + (int)((column[x] - r.lo) / unit) : 1, here = level - 8 * y;
            ok = buffer_put(b, "%s", block[here < 0 ? 0 : here > 8 ? 8 : here]);
        }
        ok = ok && buffer_put(b, "\n");
    }
    return ok && buffer_put(b, "         1%*lld\n", columns - 1, (long long)row[n - 1].step);
}

/* ranges - see ranges.h. */
#include "tools/ranges.h"

struct cursor {
    const char *text, *p, *what;
    int64_t lo, hi;
    struct err *e;
};

static status bad(const struct cursor *c, const char *why)
{
    return err_set(c->e, ERR_USAGE, "%s: '%.60s' at '%.20s': %s", c->what, c->text, c->p, why);
}

/* Digits only; values past 10^15 are refused, so that steps and factors cannot overflow. */
static status number(struct cursor *c, int64_t *out)
{
    int64_t v = 0;
    if (*c->p < '0' || *c->p > '9') return bad(c, "a number is expected");
    for (; *c->p >= '0' && *c->p <= '9'; c->p++) {
        if (v >= 100000000000000) return bad(c, "the number is too large");
        v = v * 10 + (*c->p - '0');
    }
    *out = v;
    return OK;
}

static status value(struct cursor *c, int64_t *out)
{
    const char *start = c->p;
    TRY(number(c, out));
    if (*out >= c->lo && *out <= c->hi) return OK;
    c->p = start;
    return err_set(c->e, ERR_USAGE, "%s: %lld is out of range %lld..%lld", c->what, (long long)*out, (long long)c->lo, (long long)c->hi);
}

static bool skip(struct cursor *c, char ch)
{
    if (*c->p != ch) return false;
    c->p++;
    return true;
}

static status item(struct cursor *c, int64_t *out, int cap, int *n)
{
    int64_t first, last, step = 1;
    bool factor = false;
    const char *start = c->p;
    TRY(value(c, &first));
    last = first;
    if (skip(c, '-')) {
        TRY(value(c, &last));
        if (last < first) return c->p = start, bad(c, "the range falls");
        factor = skip(c, '*');
        if (factor || skip(c, '+')) TRY(number(c, &step));
    }
    for (int64_t v = first; v <= last;) {
        if (*n >= cap) return c->p = start, bad(c, "too many values");
        out[(*n)++] = v;
        if (v == last) break;
        if (factor ? step > last / (v > 0 ? v : 1) && v > 0 : step > last - v) break; /* the next one would be past the end */
        int64_t next = factor ? v * step : v + step;
        if (next <= v) return c->p = start, bad(c, "the step does not advance");
        v = next;
    }
    return OK;
}

status range_parse(const char *text, const char *what, int64_t lo, int64_t hi, int64_t *out, int cap, int *n, struct err *e)
{
    struct cursor c = { text, text, what, lo, hi, e };
    *n = 0;
    do TRY(item(&c, out, cap, n));
    while (skip(&c, ','));
    return *c.p ? bad(&c, "',' or the end is expected") : OK;
}

status pair_parse(const char *text, const char *what, int64_t lo, int64_t hi, int64_t *first, int64_t *second, int cap, int *n,
                  struct err *e)
{
    struct cursor c = { text, text, what, lo, hi, e };
    *n = 0;
    do {
        if (*n >= cap) return bad(&c, "too many pairs");
        TRY(value(&c, &first[*n]));
        if (!skip(&c, ',')) return bad(&c, "',' and a second number are expected");
        TRY(value(&c, &second[*n]));
        (*n)++;
    } while (skip(&c, ';'));
    return *c.p ? bad(&c, "';' or the end is expected") : OK;
}

/* json_schema_text - see json_schema_int.h. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "src/grammar.h"
#include "src/json_schema_int.h"

enum { DIGITS_MAX = 20 };
static const int64_t integer_most = 999999999999999999; /* 18 digits */

static bool room(struct gbnf *t, size_t n)
{
    if (t->failed) return false;
    if (t->n + n + 1 <= t->cap) return true;
    size_t cap = 2 * (t->n + n) + 256;
    char *p = t->n + n < GRAMMAR_TEXT_MAX ? mem_realloc(t->p, cap) : NULL;
    if (!p) return t->failed = true, false;
    t->p = p, t->cap = cap;
    return true;
}

void gbnf_put_n(struct gbnf *t, const char *p, size_t n)
{
    if (!room(t, n)) return;
    memcpy(t->p + t->n, p, n);
    t->n += n;
    t->p[t->n] = 0;
}

void gbnf_put(struct gbnf *t, const char *fmt, ...)
{
    char buf[512];
    va_list a;
    va_start(a, fmt);
    int n = vsnprintf(buf, sizeof buf, fmt, a);
    va_end(a);
    if (n < 0 || n >= (int)sizeof buf) t->failed = true; /* only short texts are put this way */
    else gbnf_put_n(t, buf, (size_t)n);
}

/* ---- strings ---- */

/* A byte of the grammar's text inside a literal. */
static void put_literal_byte(struct gbnf *t, char c)
{
    if (c == '"' || c == '\\') gbnf_put_n(t, "\\", 1);
    gbnf_put_n(t, &c, 1);
}

void gbnf_put_code(struct gbnf *t, uint32_t c)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *special = c > 0 && c < 0x80 ? strchr(plain, (int)c) : NULL;
    char buf[8];
    if (special) {
        put_literal_byte(t, '\\');
        put_literal_byte(t, letter[special - plain]);
    } else if (c < 0x20) {
        snprintf(buf, sizeof buf, "\\u%04x", (unsigned)c);
        for (const char *p = buf; *p; p++) put_literal_byte(t, *p);
    } else if (c < 0x80) {
        put_literal_byte(t, (char)c);
    } else {
        int k = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3, n = 0;
        static const unsigned char lead[] = { 0, 0xC0, 0xE0, 0xF0 };
        buf[n++] = (char)(lead[k] | c >> 6 * k);
        while (k-- > 0) buf[n++] = (char)(0x80 | (c >> 6 * k & 0x3F));
        gbnf_put_n(t, buf, (size_t)n);
    }
}

void gbnf_put_json(struct gbnf *t, const char *s, size_t n, bool quotes)
{
    if (quotes) put_literal_byte(t, '"');
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] < 0x80) gbnf_put_code(t, (unsigned char)s[i]);
        else gbnf_put_n(t, s + i, 1); /* the reader has checked that it is UTF-8 */
    }
    if (quotes) put_literal_byte(t, '"');
}

/* ---- ranges of integers ---- */

static bool all(const char *s, char c) { return strspn(s, (char[]){ c, 0 }) == strlen(s); }

static void put_digits(struct gbnf *t, size_t n)
{
    if (n == 1) gbnf_put(t, " [0-9]");
    else if (n > 1) gbnf_put(t, " [0-9]{%zu}", n);
}

static void put_digit(struct gbnf *t, char lo, char hi)
{
    if (lo == hi) gbnf_put(t, " \"%c\"", lo);
    else gbnf_put(t, " [%c-%c]", lo, hi);
}

/* Numbers of as many digits that are at least (up: true) or at most s. */
static void put_tail(struct gbnf *t, const char *s, bool up)
{
    size_t n = strlen(s);
    if (all(s, up ? '0' : '9')) {
        put_digits(t, n);
        return;
    }
    gbnf_put(t, " (");
    put_digit(t, s[0], s[0]);
    put_tail(t, s + 1, up);
    if (up ? s[0] < '9' : s[0] > '0') {
        gbnf_put(t, " |");
        put_digit(t, up ? (char)(s[0] + 1) : '0', up ? '9' : (char)(s[0] - 1));
        put_digits(t, n - 1);
    }
    gbnf_put(t, " )");
}

/* a..b, both of n digits, a <= b. */
static void put_same_length(struct gbnf *t, const char *a, const char *b)
{
    size_t i = 0, n = strlen(a);
    while (i < n && a[i] == b[i]) i++;
    if (i > 0) gbnf_put(t, " \"%.*s\"", (int)i, a);
    if (i == n) return;
    if (all(a + i, '0') && all(b + i, '9')) {
        put_digits(t, n - i);
        return;
    }
    gbnf_put(t, " (");
    put_digit(t, a[i], a[i]);
    put_tail(t, a + i + 1, true);
    if (a[i] + 1 < b[i]) {
        gbnf_put(t, " |");
        put_digit(t, (char)(a[i] + 1), (char)(b[i] - 1));
        put_digits(t, n - i - 1);
    }
    gbnf_put(t, " |");
    put_digit(t, b[i], b[i]);
    put_tail(t, b + i + 1, false);
    gbnf_put(t, " )");
}

/* 0 <= lo <= hi */
static void put_naturals(struct gbnf *t, int64_t lo, int64_t hi)
{
    char a[DIGITS_MAX + 1], b[DIGITS_MAX + 1];
    for (bool first = true;; first = false) {
        int64_t end = 9;
        while (end < lo) end = 10 * end + 9;
        if (!first) gbnf_put(t, " |");
        snprintf(a, sizeof a, "%lld", (long long)lo);
        snprintf(b, sizeof b, "%lld", (long long)min_i64(end, hi));
        put_same_length(t, a, b);
        if (end >= hi) return;
        lo = end + 1;
    }
}

void gbnf_put_integers(struct gbnf *t, int64_t lo, int64_t hi)
{
    gbnf_put(t, " (");
    if (lo < 0) {
        gbnf_put(t, " \"-\" (");
        put_naturals(t, hi < 0 ? -hi : 1, -lo);
        gbnf_put(t, " )");
        if (hi >= 0) gbnf_put(t, " |");
    }
    if (hi >= 0) put_naturals(t, max_i64(lo, 0), hi);
    gbnf_put(t, " )");
}

/* ---- numbers ---- */

bool bounds_integers(const struct bounds *b, int64_t *lo, int64_t *hi)
{
    double most = (double)integer_most, down = ceil(b->lo), up = floor(b->hi);
    if (b->lo_open && down == b->lo) down += 1;
    if (b->hi_open && up == b->hi) up -= 1;
    if (!(down <= up) || down > most || up < -most) return false;
    *lo = down < -most ? -integer_most : (int64_t)down;
    *hi = up > most ? integer_most : (int64_t)up;
    return *lo <= *hi;
}

/* Numbers n.ddd of one sign, n >= 0, that are inside lo..hi (of absolute values). Every value with the whole part n is below n + 1, or, once a reader has
 * rounded it to a double, at most n + 1. */
static bool put_fractions(struct gbnf *t, const char *sign, double lo, bool lo_open, double hi, bool *any)
{
    double from = lo <= 0 && !(lo == 0 && lo_open) ? 0 : ceil(lo), to = floor(hi) - (hi > 1e6 ? 2 : 1), most = (double)integer_most;
    bool exact = lo >= 0 && from == lo && lo_open; /* n itself is out, anything above it is in */
    if (exact && from <= to) {
        if (from < 1e6) gbnf_put(t, "%s \"%s%lld.\" [0-9]{0,5} [1-9]", *any ? " |" : "", sign, (long long)from), *any = true;
        from += 1;
    }
    if (from > to || from > most) return *any;
    gbnf_put(t, "%s \"%s\" (", *any ? " |" : "", sign);
    put_naturals(t, (int64_t)from, to > most ? integer_most : (int64_t)to);
    gbnf_put(t, " ) \".\" [0-9]{1,15}");
    return *any = true;
}

bool gbnf_put_numbers(struct gbnf *t, const struct bounds *b)
{
    int64_t lo, hi;
    bool any = false;
    gbnf_put(t, " (");
    if (bounds_integers(b, &lo, &hi)) {
        gbnf_put_integers(t, lo, hi);
        any = true;
    }
    if (b->hi > 0) put_fractions(t, "", b->lo, b->lo_open, b->hi, &any);
    if (b->lo < 0) put_fractions(t, "-", -b->hi, b->hi_open, -b->lo, &any);
    gbnf_put(t, " )");
    return any;
}

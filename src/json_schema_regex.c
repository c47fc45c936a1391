/* json_schema_regex - regular expressions as GBNF, over the JSON spelling of strings: quotes, backslashes and control characters of the text are written
 * escaped. Where dialects differ (is e with an accent a word character?) only what all of them match is produced: \W, \D, \S and negated classes with \w,
 * \d or \s stay within ASCII. */
#include <string.h>
#include "src/grammar_int.h"
#include "src/json_schema_int.h"

enum { DEPTH_MAX = 50, ITEMS_MAX = 512, CODE_MAX = 0x10FFFF };

struct regex {
    struct gbnf *t;
    const char *text, *p, *end, *where;
    struct err *e;
    int depth;
    struct range item[ITEMS_MAX + 2]; int64_t n_item;
    bool ascii;  /* the class holds \w, \d or \s */
};

static status refuse(const struct regex *r, const char *at, const char *what)
{
    return err_set(r->e, ERR_USAGE, "%s: pattern '%.60s' at byte %d: %s", r->where, r->text, (int)(at - r->text) + 1, what);
}

static bool at(const struct regex *r, char c) { return r->p < r->end && *r->p == c; }

/* ---- sets of characters ---- */

static status add(struct regex *r, uint32_t lo, uint32_t hi)
{
    if (r->n_item >= ITEMS_MAX) return refuse(r, r->p, "the class has more than 512 items");
    r->item[r->n_item++] = (struct range){ lo, hi };
    return OK;
}

struct letter_class { char letter; int n; struct range r[9]; };
static const struct letter_class letters[] = {
    { 'd', 1, { { '0', '9' } } },
    { 'D', 2, { { 0, '0' - 1 }, { '9' + 1, 0x7F } } },
    { 'w', 4, { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } } },
    { 'W', 5, { { 0, '0' - 1 }, { '9' + 1, 'A' - 1 }, { 'Z' + 1, '_' - 1 }, { '_' + 1, 'a' - 1 }, { 'z' + 1, 0x7F } } },
    { 's', 2, { { 9, 13 }, { ' ', ' ' } } },
    { 'S', 2, { { 0x21, 0x7F }, { 0, 8 } } },
};

static status take_utf8(struct regex *r, uint32_t *c)
{
    const unsigned char *p = (const unsigned char *)r->p;
    int k = *p < 0x80 ? 0 : *p < 0xE0 ? 1 : *p < 0xF0 ? 2 : 3;
    if (r->end - r->p <= k) return refuse(r, r->p, "not UTF-8");
    *c = k == 0 ? *p : *p & (0x3Fu >> k);
    for (int i = 1; i <= k; i++) *c = *c << 6 | (p[i] & 0x3F);
    r->p += k + 1;
    return OK;
}

static status take_hex(struct regex *r, const char *from, int digits, uint32_t *c)
{
    *c = 0;
    for (int i = 0; i < digits; i++, r->p++) {
        char x = r->p < r->end ? *r->p : 0;
        int d = x >= '0' && x <= '9' ? x - '0' : x >= 'a' && x <= 'f' ? x - 'a' + 10 : x >= 'A' && x <= 'F' ? x - 'A' + 10 : -1;
        if (d < 0) return refuse(r, from, "this escape needs hexadecimal digits");
        *c = *c << 4 | (uint32_t)d;
    }
    if (*c >= 0xD800 && *c < 0xE000) return refuse(r, from, "half of a surrogate pair");
    return OK;
}

/* Behind a backslash: a class of characters (added to the item list, *is_class) or one character. */
static status take_escape(struct regex *r, bool *is_class, uint32_t *c)
{
    static const char plain[] = "nrtfv0", code[] = "\n\r\t\f\v";
    const char *from = r->p - 1;
    if (r->p == r->end) return refuse(r, from, "nothing follows the backslash");
    char x = *r->p++;
    *is_class = false;
    for (int i = 0; i < ARRAY_LEN(letters); i++) {
        if (letters[i].letter != x) continue;
        for (int j = 0; j < letters[i].n; j++) TRY(add(r, letters[i].r[j].lo, letters[i].r[j].hi));
        r->ascii = *is_class = true;
        return OK;
    }
    if (x == 'x' || x == 'u') return take_hex(r, from, x == 'x' ? 2 : 4, c);
    const char *found = x ? strchr(plain, x) : NULL;
    if (found && !(x == '0' && r->p < r->end && *r->p >= '0' && *r->p <= '9')) return *c = (uint32_t)(unsigned char)code[found - plain], OK;
    if (x == 'b' || x == 'B') return refuse(r, from, "word boundaries (\\b) are not supported");
    if (x == 'p' || x == 'P') return refuse(r, from, "properties (\\p) are not supported");
    if (x == 'k' || (x >= '0' && x <= '9')) return refuse(r, from, "references to groups are not supported");
    if ((x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z')) return refuse(r, from, "unknown escape");
    r->p--;
    return take_utf8(r, c);
}

/* Writes the set in item[0..n_item): what JSON writes as it is, as a class; the rest escaped. */
static status put_set(struct regex *r, const char *from, bool not)
{
    static const struct { uint32_t c; const char *gbnf; } escaped[] = {
        { '"', "\"\\\\\\\"\"" }, { '\\', "\"\\\\\\\\\"" }, { '\n', "\"\\\\n\"" }, { '\r', "\"\\\\r\"" }, { '\t', "\"\\\\t\"" }, { '\f', "\"\\\\f\"" },
        { 8, "\"\\\\b\"" },
    };
    struct range *s = r->item;
    int64_t n = class_normalise(s, r->n_item, not);
    uint32_t most = not && r->ascii ? 0x7F : CODE_MAX;
    bool any = false, open = false;
    gbnf_put(r->t, " (");
    for (int64_t i = 0; i < n; i++) {
        uint32_t lo = s[i].lo, hi = s[i].hi < most ? s[i].hi : most;
        while (lo <= hi) { /* cut out what JSON escapes */
            uint32_t to = hi;
            if (lo < 0x20) { lo = 0x20; continue; }
            if (lo == '"' || lo == '\\') { lo++; continue; }
            if (lo < '"' && hi >= '"') to = '"' - 1;
            else if (lo < '\\' && hi >= '\\') to = '\\' - 1;
            if (!open) gbnf_put(r->t, "[");
            open = any = true;
            gbnf_put(r->t, "\\U%08x-\\U%08x", lo, to);
            lo = to + 1;
        }
    }
    if (open) gbnf_put(r->t, "]");
    for (int k = 0; k < ARRAY_LEN(escaped); k++)
        for (int64_t i = 0; i < n; i++)
            if (escaped[k].c >= s[i].lo && escaped[k].c <= s[i].hi) {
                gbnf_put(r->t, "%s%s", any ? " | " : "", escaped[k].gbnf);
                any = true;
            }
    gbnf_put(r->t, ")");
    return any ? OK : refuse(r, from, "no character of this set can be written");
}

static status take_class(struct regex *r)
{
    const char *from = r->p++;
    bool not = at(r, '^');
    r->p += not;
    r->n_item = 0, r->ascii = false;
    for (bool first = true; !at(r, ']') || first; first = false) {
        uint32_t lo = 0, hi;
        bool is_class = false, end_class = false;
        if (r->p == r->end) return refuse(r, from, "this class has no end");
        if (at(r, ']')) break; /* [] matches nothing, [^] anything */
        if (at(r, '\\') && r->end - r->p >= 2 && r->p[1] == 'b') r->p += 2, lo = 8; /* in a class: backspace */
        else if (at(r, '\\')) {
            r->p++;
            TRY(take_escape(r, &is_class, &lo));
        } else TRY(take_utf8(r, &lo));
        if (is_class) continue;
        hi = lo;
        if (r->end - r->p >= 2 && r->p[0] == '-' && r->p[1] != ']') {
            r->p++;
            if (at(r, '\\')) {
                r->p++;
                TRY(take_escape(r, &end_class, &hi));
            } else TRY(take_utf8(r, &hi));
            if (end_class || hi < lo) return refuse(r, from, "a range in this class goes downward or ends in a class");
        }
        TRY(add(r, lo, hi));
    }
    r->p++;
    return put_set(r, from, not);
}

static status put_any(struct regex *r) /* the dot: no line ends */
{
    r->n_item = 0, r->ascii = false;
    TRY(add(r, '\n', '\n'));
    TRY(add(r, '\r', '\r'));
    TRY(add(r, 0x2028, 0x2029));
    return put_set(r, r->p, true);
}

/* ---- structure ---- */

static status take_alternatives(struct regex *r);

static status take_group(struct regex *r)
{
    const char *from = r->p++;
    if (++r->depth > DEPTH_MAX) return refuse(r, from, "more than 50 groups inside each other");
    if (at(r, '?')) {
        if (r->end - r->p < 2 || r->p[1] != ':') return refuse(r, from, "look-around, named groups and flags (?...) are not supported");
        r->p += 2;
    }
    gbnf_put(r->t, " (");
    TRY(take_alternatives(r));
    gbnf_put(r->t, " )");
    if (!at(r, ')')) return refuse(r, from, "this group has no end");
    r->p++;
    r->depth--;
    return OK;
}

static status take_atom(struct regex *r)
{
    uint32_t c = 0;
    bool is_class = false;
    const char *from = r->p;
    switch (*r->p) {
    case '(': return take_group(r);
    case '[': return take_class(r);
    case '.': return r->p++, put_any(r);
    case '^': case '$': return refuse(r, from, "an anchor inside the pattern is not supported");
    case '*': case '+': case '?': case '{': return refuse(r, from, "there is nothing to repeat");
    case '\\':
        r->p++;
        r->n_item = 0, r->ascii = false;
        TRY(take_escape(r, &is_class, &c));
        if (is_class) return put_set(r, from, false);
        break;
    default: TRY(take_utf8(r, &c));
    }
    gbnf_put(r->t, " \"");
    gbnf_put_code(r->t, c);
    gbnf_put(r->t, "\"");
    return OK;
}

static bool take_number(struct regex *r, int *v)
{
    const char *from = r->p;
    for (*v = 0; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++)
        if (*v <= REPEAT_MAX) *v = 10 * *v + (*r->p - '0');
    return r->p > from;
}

static status take_repeat(struct regex *r)
{
    const char *from = r->p;
    int min, max;
    if (!at(r, '*') && !at(r, '+') && !at(r, '?') && !at(r, '{')) return OK;
    if (*r->p != '{') {
        gbnf_put_n(r->t, r->p++, 1);
    } else {
        r->p++;
        if (!take_number(r, &min)) return refuse(r, from, "a number must follow '{' (a plain brace is written \\{)");
        max = min;
        bool open = at(r, ',');
        r->p += open;
        if (open && !take_number(r, &max)) max = -1;
        if (!at(r, '}')) return refuse(r, from, "this repetition has no '}'");
        r->p++;
        if (min > REPEAT_MAX || max > REPEAT_MAX) return refuse(r, from, "more than 10000 repetitions");
        if (max >= 0 && max < min) return refuse(r, from, "the upper bound is below the lower one");
        if (max < 0) gbnf_put(r->t, "{%d,}", min);
        else gbnf_put(r->t, "{%d,%d}", min, max);
    }
    if (at(r, '?')) r->p++; /* lazy: the same texts */
    if (at(r, '+')) return refuse(r, r->p, "possessive repetitions are not supported");
    if (at(r, '*') || at(r, '?') || at(r, '{')) return refuse(r, r->p, "there is nothing to repeat");
    return OK;
}

/* An alternative up to | or ) or the end. At the top, anchors may stand at its ends; a missing one means that anything may stand there. */
static status take_sequence(struct regex *r, bool top)
{
    bool anchored = top && at(r, '^'), closed = false, any = false;
    r->p += anchored;
    if (top && !anchored) gbnf_put(r->t, " char*");
    while (r->p < r->end && *r->p != '|' && *r->p != ')') {
        if (top && *r->p == '$' && (r->p + 1 == r->end || r->p[1] == '|')) {
            r->p++;
            closed = true;
            break;
        }
        TRY(take_atom(r));
        TRY(take_repeat(r));
        any = true;
    }
    if (top && !closed) gbnf_put(r->t, " char*");
    if (!any) gbnf_put(r->t, " \"\"");
    return OK;
}

static status take_alternatives(struct regex *r)
{
    bool top = r->depth == 0;
    for (;;) {
        TRY(take_sequence(r, top));
        if (!at(r, '|')) return OK;
        r->p++;
        gbnf_put(r->t, " |");
    }
}

status gbnf_put_pattern(struct gbnf *t, const char *pattern, size_t n, const char *where, struct err *e)
{
    struct regex r = { .t = t, .text = pattern, .p = pattern, .end = pattern + n, .where = where, .e = e };
    if (memchr(pattern, 0, n)) return refuse(&r, pattern, "a NUL in it is not supported");
    gbnf_put(t, " (");
    TRY(take_alternatives(&r));
    gbnf_put(t, " )");
    if (r.p < r.end) return refuse(&r, r.p, "this ')' closes nothing");
    return OK;
}

/* json - reader and writer. The reader is one loop over values with a stack of 64 open containers; strings are decoded into one block as
 * long as the text, which always suffices (a decoded string and its NUL take no more than its quotes and body). The key table that finds
 * duplicates lives only while parsing. */
#include "ggml-like/json.h"
#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 64, NODES_FIRST = 16, NODES_MAX = 1024, KEYS_FIRST = 64 };

/* One member of any object of the text. Empty slots have member == NULL. */
struct key_slot {
    uint64_t hash;
    const struct json *object, *member;
};

struct key_table {
    struct key_slot *slot;
    size_t cap, n; /* cap is a power of two; at most half full */
    uint64_t seed;
};

struct parser {
    const char *name;
    const uint8_t *text, *p, *end;
    struct arena *arena;
    struct err *e;
    struct json *nodes; /* free nodes of the current slab */
    size_t n_nodes, slab;
    char *strings; /* free rest of the string block: at least as long as the text that is left, and a NUL */
    struct key_table keys;
    struct json *open[DEPTH_MAX], *last[DEPTH_MAX]; /* containers around p, and their newest items */
    int depth;
    bool python; /* NaN and the infinities are numbers */
};

/* ---- errors ---- */

static void locate(const struct parser *s, const uint8_t *at, int64_t *line, int64_t *column)
{
    *line = *column = 1;
    for (const uint8_t *p = s->text; p < at; p++) {
        if (*p == '\n') {
            ++*line;
            *column = 1;
        } else if ((*p & 0xc0) != 0x80) { /* columns count characters */
            ++*column;
        }
    }
}

static status fail_at(const struct parser *s, const uint8_t *at, const char *what)
{
    int64_t line, column;
    locate(s, at, &line, &column);
    return err_set(s->e, ERR_FORMAT, "%s:%lld:%lld: %s", s->name, (long long)line, (long long)column, what);
}

static status expected(const struct parser *s, const char *what)
{
    char text[120], found[24] = "the end";
    if (s->p < s->end) snprintf(found, sizeof found, *s->p > 0x20 && *s->p < 0x7f ? "'%c'" : "byte 0x%02x", *s->p);
    snprintf(text, sizeof text, "expected %s, found %s", what, found);
    return fail_at(s, s->p, text);
}

/* ---- characters ---- */

static void skip_blanks(struct parser *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t')) s->p++;
}

static bool accept(struct parser *s, char c)
{
    if (s->p >= s->end || *s->p != (uint8_t)c) return false;
    s->p++;
    return true;
}

/* Length of the valid UTF-8 character at p, 0 if there is none: shortest forms, no surrogates, at most U+10FFFF (Unicode table 3-7). */
static int utf8_length(const uint8_t *p, const uint8_t *end)
{
    static const struct {
        uint8_t first, last, low, high;
        int len;
    } rows[] = {
        { 0x00, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
        { 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
        { 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        if (*p < rows[i].first || *p > rows[i].last) continue;
        int len = rows[i].len;
        if (end - p < len || (len > 1 && (p[1] < rows[i].low || p[1] > rows[i].high))) return 0;
        for (int j = 2; j < len; j++)
            if ((p[j] & 0xc0) != 0x80) return 0;
        return len;
    }
    return 0;
}

static char *utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 63));
        *out++ = (char)(0x80 | (c & 63));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 63));
        *out++ = (char)(0x80 | (c >> 6 & 63));
        *out++ = (char)(0x80 | (c & 63));
    }
    return out;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits after \u; p stands on the first. */
static status read_hex4(struct parser *s, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, s->p++) {
        int d = s->p < s->end ? hex_digit(*s->p) : -1;
        if (d < 0) return expected(s, "a hexadecimal digit");
        *out = *out << 4 | (uint32_t)d;
    }
    return OK;
}

/* ---- strings ---- */

/* \uXXXX, p after the u. Six bytes of text become at most three, twelve become four. */
static status read_unicode_escape(struct parser *s, char **out)
{
    const uint8_t *at = s->p - 2;
    uint32_t c, low;
    TRY(read_hex4(s, &c));
    if (c >= 0xdc00 && c <= 0xdfff) return fail_at(s, at, "low surrogate without a high one before it");
    if (c >= 0xd800 && c <= 0xdbff) {
        if (s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u') return fail_at(s, at, "high surrogate without a low one after it");
        s->p += 2;
        TRY(read_hex4(s, &low));
        if (low < 0xdc00 || low > 0xdfff) return fail_at(s, at, "high surrogate without a low one after it");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    *out = utf8_put(*out, c);
    return OK;
}

static status read_escape(struct parser *s, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (accept(s, 'u')) return read_unicode_escape(s, out);
    const char *hit = s->p < s->end && *s->p ? strchr(from, *s->p) : NULL;
    if (!hit) return expected(s, "one of \" \\ / b f n r t u after a backslash");
    s->p++;
    *(*out)++ = to[hit - from];
    return OK;
}

static bool is_plain(uint8_t c) { return c >= 0x20 && c < 0x80 && c != '"' && c != '\\'; }

/* p on the opening quote. */
static status read_string(struct parser *s, const char **str, int64_t *n)
{
    s->p++;
    char *start = s->strings, *out = start;
    for (;;) {
        while (s->p < s->end && is_plain(*s->p)) *out++ = (char)*s->p++;
        if (s->p >= s->end) return expected(s, "the closing quote of a string");
        if (accept(s, '"')) break;
        if (accept(s, '\\')) {
            TRY(read_escape(s, &out));
        } else if (*s->p < 0x20) {
            return fail_at(s, s->p, "control character in a string, must be escaped");
        } else {
            int len = utf8_length(s->p, s->end);
            if (len == 0) return fail_at(s, s->p, "invalid UTF-8");
            memcpy(out, s->p, (size_t)len);
            out += len;
            s->p += len;
        }
    }
    *out = 0;
    *str = start;
    *n = out - start;
    s->strings = out + 1;
    return OK;
}

/* ---- numbers ---- */

static bool skip_digits(struct parser *s)
{
    const uint8_t *start = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9') s->p++;
    return s->p > start;
}

/* The digits of an integer, p behind them; false when it does not fit. */
static bool to_int64(const uint8_t *p, const uint8_t *end, int64_t *out)
{
    bool negative = *p == '-';
    int64_t v = 0;
    for (p += negative; p < end; p++) {
        int d = *p - '0';
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, d, &v)) return false; /* counts downward: INT64_MIN fits */
    }
    if (!negative && v == INT64_MIN) return false;
    *out = negative ? v : -v;
    return true;
}

static status read_number(struct parser *s, struct json *j)
{
    const uint8_t *start = s->p;
    bool integer = true;
    (void)accept(s, '-');
    if (!accept(s, '0') && !skip_digits(s)) return expected(s, "a digit");
    if (accept(s, '.')) {
        integer = false;
        if (!skip_digits(s)) return expected(s, "a digit after the point");
    }
    if (accept(s, 'e') || accept(s, 'E')) {
        integer = false;
        if (!accept(s, '+')) (void)accept(s, '-');
        if (!skip_digits(s)) return expected(s, "a digit of the exponent");
    }
    size_t n = (size_t)(s->p - start);
    memcpy(s->strings, start, n); /* strtod wants a NUL; the space is not kept */
    s->strings[n] = 0;
    j->f = strtod(s->strings, NULL);
    if (!isfinite(j->f)) return fail_at(s, start, "number out of range");
    j->kind = integer && to_int64(start, s->p, &j->i) ? JSON_INT : JSON_FLOAT;
    return OK;
}

/* ---- duplicate keys ---- */

static uint64_t hash_key(uint64_t seed, const struct json *object, const char *key, int64_t n)
{
    return hash64(seed ^ (uintptr_t)object, key, (size_t)n);
}

static struct key_slot *find_slot(const struct key_table *t, uint64_t hash, const struct json *object, const struct json *m)
{
    for (size_t i = hash & (t->cap - 1);; i = (i + 1) & (t->cap - 1)) {
        struct key_slot *k = &t->slot[i];
        if (!k->member) return k;
        if (k->hash == hash && k->object == object && k->member->key_n == m->key_n && !memcmp(k->member->key, m->key, (size_t)m->key_n))
            return k;
    }
}

static bool grow_keys(struct key_table *t)
{
    struct key_table wide = *t;
    wide.cap = t->cap ? t->cap * 2 : KEYS_FIRST;
    wide.slot = mem_calloc(wide.cap, sizeof *wide.slot);
    if (!wide.slot) return false;
    for (size_t i = 0; i < t->cap; i++)
        if (t->slot[i].member) *find_slot(&wide, t->slot[i].hash, t->slot[i].object, t->slot[i].member) = t->slot[i];
    mem_free(t->slot);
    *t = wide;
    return true;
}

static status note_key(struct parser *s, const struct json *object, const struct json *m, const uint8_t *at)
{
    struct key_table *t = &s->keys;
    if (t->n * 2 >= t->cap && !grow_keys(t)) return err_oom(s->e, s->name, t->cap * 2 * sizeof *t->slot);
    uint64_t hash = hash_key(t->seed, object, m->key, m->key_n);
    struct key_slot *slot = find_slot(t, hash, object, m);
    if (slot->member) {
        char text[240];
        snprintf(text, sizeof text, "second member with the key \"%s\"", m->key);
        return fail_at(s, at, text);
    }
    *slot = (struct key_slot){ .hash = hash, .object = object, .member = m };
    t->n++;
    return OK;
}

/* ---- values ---- */

static struct json *new_node(struct parser *s)
{
    if (s->n_nodes == 0) {
        s->slab = s->slab == 0 ? NODES_FIRST : s->slab < NODES_MAX ? s->slab * 2 : NODES_MAX;
        s->nodes = arena_zalloc(s->arena, s->slab, sizeof *s->nodes);
        if (!s->nodes) return NULL;
        s->n_nodes = s->slab;
    }
    s->n_nodes--;
    return s->nodes++;
}

static status read_word(struct parser *s, const char *word, struct json *j, enum json_kind kind, int64_t i)
{
    size_t n = strlen(word);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n)) return expected(s, "a value");
    s->p += n;
    j->kind = kind;
    j->i = i;
    return OK;
}

static bool read_python_number(struct parser *s, struct json *j)
{
    static const struct { const char *text; double value; } words[] = { { "NaN", NAN }, { "Infinity", INFINITY }, { "-Infinity", -INFINITY } };
    for (int i = 0; i < ARRAY_LEN(words); i++) {
        size_t n = strlen(words[i].text);
        if ((size_t)(s->end - s->p) < n || memcmp(s->p, words[i].text, n)) continue;
        s->p += n;
        j->kind = JSON_FLOAT;
        j->f = words[i].value;
        return true;
    }
    return false;
}

static status open_container(struct parser *s, struct json *j, enum json_kind kind)
{
    if (s->depth == DEPTH_MAX) return fail_at(s, s->p, "nested deeper than 64");
    s->p++;
    j->kind = kind;
    s->open[s->depth] = j;
    s->last[s->depth++] = NULL;
    return OK;
}

/* A value at p; containers are only opened, parse_loop fills them. */
static status read_value(struct parser *s, struct json *j)
{
    if (s->p >= s->end) return expected(s, "a value");
    switch (*s->p) {
    case '{':
        return open_container(s, j, JSON_OBJ);
    case '[':
        return open_container(s, j, JSON_ARR);
    case '"':
        j->kind = JSON_STR;
        return read_string(s, &j->str, &j->n);
    case 't':
        return read_word(s, "true", j, JSON_BOOL, 1);
    case 'f':
        return read_word(s, "false", j, JSON_BOOL, 0);
    case 'n':
        return read_word(s, "null", j, JSON_NULL, 0);
    default:
        if (s->python && read_python_number(s, j)) return OK;
        return *s->p == '-' || (*s->p >= '0' && *s->p <= '9') ? read_number(s, j) : expected(s, "a value");
    }
}

static status read_key(struct parser *s, const struct json *object, struct json *m)
{
    const uint8_t *at = s->p;
    if (s->p >= s->end || *s->p != '"') return expected(s, "a key in quotes");
    TRY(read_string(s, &m->key, &m->key_n));
    TRY(note_key(s, object, m, at));
    skip_blanks(s);
    if (!accept(s, ':')) return expected(s, "':' after a key");
    skip_blanks(s);
    return OK;
}

/* The next item of the innermost container, p at its first byte. */
static status read_item(struct parser *s)
{
    int d = s->depth - 1;
    struct json *parent = s->open[d], *j = new_node(s);
    if (!j) return err_oom(s->e, s->name, s->slab * sizeof *j);
    if (parent->kind == JSON_OBJ) TRY(read_key(s, parent, j));
    if (s->last[d]) s->last[d]->next = j;
    else parent->child = j;
    s->last[d] = j;
    parent->n++;
    return read_value(s, j);
}

/* One step inside the innermost container: close it, or pass the comma and read an item. */
static status step(struct parser *s)
{
    struct json *parent = s->open[s->depth - 1];
    bool object = parent->kind == JSON_OBJ;
    if (accept(s, object ? '}' : ']')) {
        s->depth--;
        return OK;
    }
    if (parent->n > 0) {
        if (!accept(s, ',')) return expected(s, object ? "',' or '}'" : "',' or ']'");
        skip_blanks(s);
    }
    return read_item(s);
}

static status parse(struct parser *s, struct json **out)
{
    size_t n = (size_t)(s->end - s->text), bytes;
    if (!add_size(n, 1, &bytes) || !(s->strings = arena_alloc(s->arena, bytes))) return err_oom(s->e, s->name, n);
    struct json *root = new_node(s);
    if (!root) return err_oom(s->e, s->name, s->slab * sizeof *root);
    skip_blanks(s);
    TRY(read_value(s, root));
    skip_blanks(s);
    while (s->depth > 0) {
        TRY(step(s));
        skip_blanks(s);
    }
    if (s->p < s->end) return expected(s, "the end");
    *out = root;
    return OK;
}

static status parse_text(struct json **out, const char *text, size_t n, struct arena *a, const char *name, bool python, struct err *e)
{
    const uint8_t *bytes = (const uint8_t *)(n ? text : "");
    struct parser s = { .name = name, .text = bytes, .p = bytes, .end = bytes + n, .arena = a, .e = e, .python = python };
    const uintptr_t where[2] = { (uintptr_t)&s, (uintptr_t)a }; /* an address, so that a file cannot be made to collide */
    s.keys.seed = hash64(0, where, sizeof where);
    *out = NULL;
    status st = parse(&s, out);
    mem_free(s.keys.slot);
    return st;
}

status json_parse(struct json **out, const char *text, size_t n, struct arena *a, const char *name, struct err *e)
{
    return parse_text(out, text, n, a, name, false, e);
}

status json_parse_python(struct json **out, const char *text, size_t n, struct arena *a, const char *name, struct err *e)
{
    return parse_text(out, text, n, a, name, true, e);
}

const struct json *json_get(const struct json *obj, const char *key)
{
    if (!obj || obj->kind != JSON_OBJ) return NULL;
    size_t n = strlen(key);
    for (const struct json *m = obj->child; m; m = m->next)
        if ((size_t)m->key_n == n && !memcmp(m->key, key, n)) return m;
    return NULL;
}

/* ---- writer ---- */

void json_out_init(struct json_out *o, bool pretty) { *o = (struct json_out){ .pretty = pretty }; }

void json_out_free(struct json_out *o)
{
    mem_free(o->buf);
    *o = (struct json_out){ 0 };
}

bool json_out_ok(const struct json_out *o) { return !o->failed; }

static void append(struct json_out *o, const char *s, size_t n)
{
    size_t need;
    if (o->failed) return;
    if (!add_size(o->n, n, &need) || !add_size(need, 1, &need)) {
        o->failed = true;
        return;
    }
    if (need > o->cap) {
        size_t cap = o->cap < PTRDIFF_MAX / 2 ? o->cap * 2 : need;
        cap = cap < need ? need : cap;
        cap = cap < 256 ? 256 : cap;
        char *grown = mem_realloc(o->buf, cap);
        if (!grown) {
            o->failed = true;
            return;
        }
        o->buf = grown;
        o->cap = cap;
    }
    if (n) memcpy(o->buf + o->n, s, n);
    o->n += n;
    o->buf[o->n] = 0;
}

static void append_cstr(struct json_out *o, const char *s) { append(o, s, strlen(s)); }

static void break_line(struct json_out *o)
{
    if (!o->pretty) return;
    append(o, "\n", 1);
    for (int i = 0; i < o->depth; i++) append(o, "  ", 2);
}

static void append_quoted(struct json_out *o, const char *s, size_t n)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const uint8_t *p = (const uint8_t *)s, *end = p + n;
    append(o, "\"", 1);
    while (p < end) {
        const uint8_t *run = p;
        while (p < end && is_plain(*p)) p++;
        append(o, (const char *)run, (size_t)(p - run));
        if (p == end) break;
        int len = utf8_length(p, end);
        const char *hit = *p ? strchr(from, *p) : NULL;
        char escape[8];
        if (hit) append(o, (char[]){ '\\', to[hit - from] }, 2);
        else if (*p < 0x20) append(o, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", *p));
        else if (len) append(o, (const char *)p, (size_t)len);
        else append(o, "\xef\xbf\xbd", 3);
        p += len ? len : 1;
    }
    append(o, "\"", 1);
}

/* Everything that stands before a value. */
static void lead(struct json_out *o, const char *key)
{
    if (o->need_comma) append(o, ",", 1);
    if (o->depth > 0) break_line(o);
    if (key) {
        append_quoted(o, key, strlen(key));
        append(o, ": ", o->pretty ? 2 : 1);
    }
    o->need_comma = true;
}

void json_begin(struct json_out *o, const char *key, char bracket)
{
    assert(bracket == '{' || bracket == '[');
    lead(o, key);
    append(o, &bracket, 1);
    o->depth++;
    o->need_comma = false;
}

void json_end(struct json_out *o, char bracket)
{
    assert(o->depth > 0 && (bracket == '}' || bracket == ']'));
    o->depth--;
    if (o->need_comma) break_line(o); /* else the container is empty: {} */
    append(o, &bracket, 1);
    o->need_comma = true;
}

void json_put_str(struct json_out *o, const char *key, const char *s, size_t n)
{
    lead(o, key);
    append_quoted(o, s, n);
}

void json_put_cstr(struct json_out *o, const char *key, const char *s)
{
    if (s) json_put_str(o, key, s, strlen(s));
    else json_put_null(o, key);
}

static void put_plain(struct json_out *o, const char *key, const char *text)
{
    lead(o, key);
    append_cstr(o, text);
}

void json_put_i64(struct json_out *o, const char *key, int64_t v)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)v);
    put_plain(o, key, text);
}

/* Inside the float range the nearest float is written: 9 digits tell all floats apart, but not all doubles that round to them. Outside it
 * the double itself, 17 digits. */
static void put_number(struct json_out *o, const char *key, double v, bool point)
{
    char text[36];
    bool in_float = v == 0 || (fabs(v) <= FLT_MAX && fabs(v) >= FLT_MIN);
    double x = in_float ? (float)v : v;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, x);
        double back = strtod(text, NULL);
        if (in_float ? (float)back == (float)x : back == x) break;
    }
    if (point && !strpbrk(text, ".e")) memcpy(text + strlen(text), ".0", 3);
    put_plain(o, key, isfinite(v) ? text : "null");
}

void json_put_f64(struct json_out *o, const char *key, double v) { put_number(o, key, v, false); }
void json_put_real(struct json_out *o, const char *key, double v) { put_number(o, key, v, true); }

void json_put_bool(struct json_out *o, const char *key, bool v) { put_plain(o, key, v ? "true" : "false"); }
void json_put_null(struct json_out *o, const char *key) { put_plain(o, key, "null"); }

/* json_schema - from a schema to GBNF. A schema is always a conjunction: a list of parts, all of which must hold ($ref and allOf are unfolded into it, an
 * alternative of anyOf or oneOf is one more part). What a conjunction allows is worked out keyword by keyword, then written as one rule per place. */
#include "src/json_schema.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "src/grammar_int.h"
#include "src/json_schema_int.h"

enum { DEPTH_MAX = 64, PARTS_MAX = 64, RULE_NAME = 24, KNOWN = 1024, MEMBERS_MAX = 4096, ONE_OF_MAX = 256, COMPARED_MAX = 1 << 16 };
enum { T_NULL = 1, T_BOOL = 2, T_INT = 4, T_NUMBER = 8, T_STRING = 16, T_ARRAY = 32, T_OBJECT = 64, T_ALL = 127 };

struct path { const struct path *up; const char *key; int64_t index; }; /* key NULL: an index */
struct part { const struct json *s; bool any_done, one_done; };
struct parts { struct part p[PARTS_MAX]; int n; };
struct known { const struct json *s; char name[RULE_NAME]; struct known *next; };

struct conv {
    struct gbnf out;
    const struct json *root;
    const char *name;
    struct arena mem;
    struct known *known[KNOWN]; /* by address: schemas that have a rule, or will have; recursion ends here */
    int64_t n_rules, n_compared;
    int depth;
    struct err *e;
};

/* What the parts say together. */
struct spec {
    unsigned types, spoken;  /* spoken: types that keywords are about */
    bool typed;
    const struct json *values[PARTS_MAX]; int n_values;   /* enum arrays, const values */
    const char *also;        /* a keyword that cannot stand beside enum */
    const struct json *object[PARTS_MAX], *array[PARTS_MAX]; int n_object, n_array;
    int64_t min_length, max_length; /* max -1: none */
    const struct json *pattern, *format;
    struct bounds bounds;
    bool bounded;
};

/* ---- errors ---- */

static void path_text(const struct path *p, char *buf, size_t cap)
{
    if (!p) {
        snprintf(buf, cap, "#");
        return;
    }
    path_text(p->up, buf, cap);
    size_t n = strlen(buf);
    if (p->key) snprintf(buf + n, cap - n, "/%s", p->key);
    else snprintf(buf + n, cap - n, "/%lld", (long long)p->index);
}

static status refuse(const struct conv *c, const struct path *p, const char *fmt, const char *what)
{
    char where[100], text[160];
    path_text(p, where, sizeof where);
    snprintf(text, sizeof text, fmt, what);
    return err_set(c->e, ERR_USAGE, "%s: %s: %s", c->name, where, text);
}

/* ---- values ---- */

static bool is_number(const struct json *j) { return j->kind == JSON_INT || j->kind == JSON_FLOAT; }

static bool equal(const struct json *a, const struct json *b)
{
    if (is_number(a) && is_number(b)) return a->kind == JSON_INT && b->kind == JSON_INT ? a->i == b->i : a->f == b->f;
    if (a->kind != b->kind || a->n != b->n) return a->kind == b->kind && a->kind <= JSON_BOOL && a->i == b->i;
    if (a->kind == JSON_BOOL) return a->i == b->i;
    if (a->kind == JSON_STR) return !memcmp(a->str, b->str, (size_t)a->n);
    if (a->kind != JSON_ARR && a->kind != JSON_OBJ) return true;
    for (const struct json *x = a->child, *y = b->child; x; x = x->next, y = y->next) {
        if (a->kind == JSON_OBJ) {
            for (y = b->child; y && (y->key_n != x->key_n || memcmp(y->key, x->key, (size_t)x->key_n)); y = y->next) {}
            if (!y) return false;
        }
        if (!equal(x, y)) return false;
    }
    return true;
}

static unsigned type_of(const struct json *j)
{
    switch (j->kind) {
    case JSON_NULL: return T_NULL;
    case JSON_BOOL: return T_BOOL;
    case JSON_INT: return T_INT | T_NUMBER;
    case JSON_FLOAT: return j->f == floor(j->f) ? T_INT | T_NUMBER : T_NUMBER;
    case JSON_STR: return T_STRING;
    case JSON_ARR: return T_ARRAY;
    case JSON_OBJ: return T_OBJECT;
    }
    return 0;
}

/* The shortest text that reads back as x. */
static void put_float(struct gbnf *t, double x)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    gbnf_put(t, "%s", text);
}

/* The value as JSON inside a GBNF literal. Depth is the reader's: at most 64. */
static void put_value(struct gbnf *t, const struct json *j)
{
    static const char *const words[] = { "false", "true" };
    switch (j->kind) {
    case JSON_NULL: gbnf_put(t, "null"); break;
    case JSON_BOOL: gbnf_put(t, "%s", words[j->i != 0]); break;
    case JSON_INT: gbnf_put(t, "%lld", (long long)j->i); break;
    case JSON_FLOAT: put_float(t, j->f); break;
    case JSON_STR: gbnf_put_json(t, j->str, (size_t)j->n, true); break;
    case JSON_ARR: case JSON_OBJ:
        gbnf_put(t, "%s", j->kind == JSON_ARR ? "[" : "{");
        for (const struct json *x = j->child; x; x = x->next) {
            if (j->kind == JSON_OBJ) gbnf_put_json(t, x->key, (size_t)x->key_n, true), gbnf_put(t, ": ");
            put_value(t, x);
            if (x->next) gbnf_put(t, ", ");
        }
        gbnf_put(t, "%s", j->kind == JSON_ARR ? "]" : "}");
    }
}

/* ---- keywords ---- */

typedef status keyword_fn(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p);

static status kw_type(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p)
{
    static const struct { const char *name; unsigned bits; } rows[] = {
        { "null", T_NULL }, { "boolean", T_BOOL }, { "integer", T_INT }, { "number", T_INT | T_NUMBER }, { "string", T_STRING }, { "array", T_ARRAY },
        { "object", T_OBJECT },
    };
    unsigned types = 0;
    for (const struct json *x = v->kind == JSON_ARR ? v->child : v; x; x = v->kind == JSON_ARR ? x->next : NULL) {
        int i = 0;
        if (x->kind != JSON_STR) return refuse(c, p, "%s must be a name or a list of names", "'type'");
        while (i < ARRAY_LEN(rows) && strcmp(rows[i].name, x->str)) i++;
        if (i == ARRAY_LEN(rows)) return refuse(c, p, "there is no type '%.40s'", x->str);
        types |= rows[i].bits;
    }
    const struct json *nullable = json_get(schema, "nullable");
    if (nullable && nullable->kind == JSON_BOOL && nullable->i) types |= T_NULL;
    s->types &= types;
    s->typed = true;
    return OK;
}

static status kw_nullable(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p)
{
    return v->kind == JSON_BOOL ? OK : refuse(c, p, "%s must be true or false", "'nullable'");
}

static status kw_values(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p)
{
    if (!strcmp(v->key, "enum") && (v->kind != JSON_ARR || v->n == 0)) return refuse(c, p, "%s must be a non-empty list of values", "'enum'");
    s->values[s->n_values++] = v;
    return s->n_values < PARTS_MAX ? OK : refuse(c, p, "too many lists of values%s", "");
}

static void add_once(const struct json **list, int *n, const struct json *s)
{
    if (*n == 0 || list[*n - 1] != s) list[(*n)++] = s;
}

static status kw_object(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p)
{
    static const struct { const char *name; enum json_kind kind; const char *must; } rows[] = {
        { "properties", JSON_OBJ, "%s must be an object" }, { "required", JSON_ARR, "%s must be a list of names" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (!strcmp(v->key, rows[i].name) && v->kind != rows[i].kind) return refuse(c, p, rows[i].must, v->key);
    if (!strcmp(v->key, "required"))
        for (const struct json *x = v->child; x; x = x->next)
            if (x->kind != JSON_STR) return refuse(c, p, "%s must be a list of names", v->key);
    s->spoken |= T_OBJECT;
    s->also = v->key;
    add_once(s->object, &s->n_object, schema);
    return OK;
}

static status kw_array(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p)
{
    if (!strcmp(v->key, "prefixItems") && v->kind != JSON_ARR) return refuse(c, p, "%s must be a list of schemas", v->key);
    if (!strcmp(v->key, "items") && v->kind == JSON_ARR && json_get(schema, "prefixItems"))
        return refuse(c, p, "'items' as a list stands beside %s", "'prefixItems'");
    s->spoken |= T_ARRAY;
    s->also = v->key;
    add_once(s->array, &s->n_array, schema);
    return OK;
}

static status count_of(const struct conv *c, const struct json *v, const struct path *p, int64_t *out)
{
    if (!is_number(v) || v->f < 0 || v->f != floor(v->f)) return refuse(c, p, "'%s' must be a whole number, 0 or more", v->key);
    *out = v->f > 1e9 ? 1000000000 : (int64_t)v->f;
    return OK;
}

static status kw_length(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p)
{
    int64_t n;
    TRY(count_of(c, v, p, &n));
    if (!strcmp(v->key, "minLength")) s->min_length = max_i64(s->min_length, n);
    else s->max_length = s->max_length < 0 ? n : min_i64(s->max_length, n);
    s->spoken |= T_STRING;
    s->also = v->key;
    return OK;
}

static status kw_text(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p)
{
    const struct json **at = !strcmp(v->key, "pattern") ? &s->pattern : &s->format;
    if (v->kind != JSON_STR) return refuse(c, p, "'%s' must be a string", v->key);
    if (*at && !equal(*at, v)) return refuse(c, p, "two different values of '%s' for one place are not supported", v->key);
    *at = v;
    s->spoken |= T_STRING;
    s->also = v->key;
    return OK;
}

static status kw_bound(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p)
{
    bool low = strstr(v->key, "inimum") != NULL, open = v->key[0] == 'e';
    const struct json *at = v;
    if (v->kind == JSON_BOOL) { /* draft 4: exclusiveMinimum true makes the minimum exclusive */
        at = json_get(schema, low ? "minimum" : "maximum");
        if (!at) return refuse(c, p, "'%s' as true or false needs the bound beside it", v->key);
        open = v->i != 0;
    }
    if (!is_number(at)) return refuse(c, p, "'%s' must be a number", at->key);
    struct bounds *b = &s->bounds;
    if (low && (at->f > b->lo || (at->f == b->lo && open))) b->lo = at->f, b->lo_open = open;
    if (!low && (at->f < b->hi || (at->f == b->hi && open))) b->hi = at->f, b->hi_open = open;
    s->bounded = true;
    s->spoken |= T_INT | T_NUMBER;
    s->also = v->key;
    return OK;
}

static status kw_off(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p)
{
    return v->kind == JSON_BOOL && !v->i ? OK : refuse(c, p, "keyword '%s' is supported as false only", v->key);
}

static status kw_note(struct conv *c, struct spec *s, const struct json *schema, const struct json *v, const struct path *p) { return OK; }

static const struct keyword { const char *name; keyword_fn *fn; } keywords[] = {
    { "type", kw_type }, { "nullable", kw_nullable }, { "enum", kw_values }, { "const", kw_values },
    { "properties", kw_object }, { "required", kw_object }, { "additionalProperties", kw_object }, { "minProperties", kw_object },
    { "maxProperties", kw_object },
    { "items", kw_array }, { "prefixItems", kw_array }, { "additionalItems", kw_array }, { "minItems", kw_array }, { "maxItems", kw_array },
    { "minLength", kw_length }, { "maxLength", kw_length }, { "pattern", kw_text }, { "format", kw_text },
    { "minimum", kw_bound }, { "maximum", kw_bound }, { "exclusiveMinimum", kw_bound }, { "exclusiveMaximum", kw_bound },
    { "uniqueItems", kw_off },
    /* handled when parts are unfolded */
    { "anyOf", kw_note }, { "oneOf", kw_note }, { "allOf", kw_note }, { "$ref", kw_note },
    /* annotations */
    { "$schema", kw_note }, { "$id", kw_note }, { "id", kw_note }, { "$comment", kw_note }, { "$defs", kw_note }, { "definitions", kw_note },
    { "title", kw_note },
    { "description", kw_note }, { "default", kw_note }, { "examples", kw_note }, { "example", kw_note }, { "deprecated", kw_note }, { "readOnly", kw_note },
    { "writeOnly", kw_note },
};

static const struct keyword *keyword_of(const char *name)
{
    for (int i = 0; i < ARRAY_LEN(keywords); i++)
        if (!strcmp(keywords[i].name, name)) return &keywords[i];
    return NULL;
}

static bool is_annotation(const char *key)
{
    const struct keyword *k = keyword_of(key);
    return !strncmp(key, "x-", 2) || (k && k->fn == kw_note && !strstr(key, "Of") && strcmp(key, "$ref") != 0);
}

/* ---- unfolding $ref and allOf ---- */

/* A JSON pointer behind '#'; NULL when it leads nowhere. */
static const struct json *pointer(const struct json *at, const char *p)
{
    char key[256];
    while (at && *p == '/') {
        size_t n = 0;
        for (p++; *p && *p != '/'; p++) {
            char ch = *p;
            unsigned hex;
            if (ch == '~' && (p[1] == '0' || p[1] == '1')) ch = *++p == '0' ? '~' : '/';
            else if (ch == '%' && sscanf(p + 1, "%2x", &hex) == 1 && p[1] && p[2]) ch = (char)hex, p += 2;
            if (n + 1 == sizeof key) return NULL;
            key[n++] = ch;
        }
        key[n] = 0;
        if (at->kind == JSON_OBJ) {
            at = json_get(at, key);
        } else if (at->kind == JSON_ARR) {
            int64_t i = 0;
            const struct json *x = at->child;
            if (n == 0 || n > 9 || strspn(key, "0123456789") != n) return NULL;
            for (size_t d = 0; d < n; d++) i = 10 * i + (key[d] - '0');
            while (x && i-- > 0) x = x->next;
            at = x;
        } else {
            return NULL;
        }
    }
    return *p ? NULL : at;
}

static status resolve(struct conv *c, const struct json *v, const struct path *p, const struct json **out)
{
    if (v->kind != JSON_STR) return refuse(c, p, "%s must be a string", "'$ref'");
    if (v->str[0] != '#') return refuse(c, p, "'$ref' to another document ('%.60s') is not supported", v->str);
    *out = pointer(c->root, v->str + 1);
    return *out ? OK : refuse(c, p, "'$ref' %.60s leads nowhere", v->str);
}

/* Has a schema only this keyword, annotations apart? */
static bool stands_alone(const struct json *s, const char *keyword)
{
    for (const struct json *x = s->child; x; x = x->next)
        if (strcmp(x->key, keyword) != 0 && !is_annotation(x->key)) return false;
    return true;
}

static status unfold(struct conv *c, struct parts *out, struct part part, const struct path *p, int depth)
{
    const struct json *s = part.s, *ref, *list;
    if (depth > DEPTH_MAX) return refuse(c, p, "%s in a circle, or too many inside each other", "'$ref' or 'allOf'");
    if (s->kind == JSON_BOOL) return s->i ? OK : refuse(c, p, "no value can satisfy %s", "false");
    if (s->kind != JSON_OBJ) return refuse(c, p, "a schema must be an object, true or false%s", "");
    if ((ref = json_get(s, "$ref"))) {
        struct part to = { 0 };
        TRY(resolve(c, ref, p, &to.s));
        TRY(unfold(c, out, to, &(struct path){ p, "$ref", 0 }, depth + 1));
    }
    if ((list = json_get(s, "allOf"))) {
        struct path at = { p, "allOf", 0 };
        int64_t i = 0;
        if (list->kind != JSON_ARR) return refuse(c, p, "%s must be a list of schemas", "'allOf'");
        for (const struct json *x = list->child; x; x = x->next)
            TRY(unfold(c, out, (struct part){ .s = x }, &(struct path){ &at, NULL, i++ }, depth + 1));
    }
    if (out->n == PARTS_MAX) return refuse(c, p, "more than 64 schemas for one place%s", "");
    out->p[out->n++] = part;
    return OK;
}

static status gather(struct conv *c, struct spec *s, const struct parts *parts, const struct path *p)
{
    *s = (struct spec){ .types = T_ALL, .max_length = -1, .bounds = { -INFINITY, INFINITY, false, false } };
    for (int i = 0; i < parts->n; i++)
        for (const struct json *v = parts->p[i].s->child; v; v = v->next) {
            const struct keyword *k = keyword_of(v->key);
            if (!k && !strncmp(v->key, "x-", 2)) continue;
            if (!k) return refuse(c, p, "keyword '%.60s' is not supported", v->key);
            TRY(k->fn(c, s, parts->p[i].s, v, p));
        }
    return OK;
}

/* ---- rules ---- */

static status convert(struct conv *c, const struct parts *list, const struct path *p, char name[RULE_NAME]);

static void fresh(struct conv *c, char name[RULE_NAME]) { snprintf(name, RULE_NAME, "s%lld", (long long)c->n_rules++); }

/* Moves a finished right-hand side to the output. */
static status put_rule(struct conv *c, const char *name, struct gbnf *t)
{
    gbnf_put(&c->out, "%s ::=", name);
    if (t->n) gbnf_put_n(&c->out, t->p, t->n);
    else gbnf_put(&c->out, " \"\"");
    gbnf_put_n(&c->out, "\n", 1);
    c->out.failed |= t->failed;
    mem_free(t->p);
    *t = (struct gbnf){ 0 };
    return c->out.failed ? err_set(c->e, ERR_USAGE, "%s: the schema needs more than %d bytes of grammar, or memory is out", c->name, GRAMMAR_TEXT_MAX) : OK;
}

/* ---- objects ---- */

struct member { const char *key; int64_t key_n; bool required; struct parts parts; char rule[RULE_NAME]; bool forbidden; };

static bool same_key(const struct member *m, const char *key, int64_t n) { return m->key_n == n && !memcmp(m->key, key, (size_t)n); }

static struct member *find_member(struct member *m, int64_t n, const char *key, int64_t key_n)
{
    for (int64_t i = 0; i < n; i++)
        if (same_key(&m[i], key, key_n)) return &m[i];
    return NULL;
}

/* All names that properties or required mention, in order. */
static status list_members(struct conv *c, const struct spec *s, const struct path *p, struct member **out, int64_t *n_out)
{
    int64_t cap = 1, n = 0;
    for (int i = 0; i < s->n_object; i++) {
        const struct json *props = json_get(s->object[i], "properties"), *req = json_get(s->object[i], "required");
        cap += (props ? props->n : 0) + (req ? req->n : 0);
    }
    *out = NULL, *n_out = 0;
    if (cap > MEMBERS_MAX) return refuse(c, p, "more than 4095 names in %s", "'properties' and 'required'");
    struct member *m = arena_zalloc(&c->mem, (size_t)cap, sizeof *m);
    if (!m) return err_oom(c->e, "JSON schema", (size_t)cap * sizeof *m);
    for (int i = 0; i < s->n_object; i++) {
        const struct json *props = json_get(s->object[i], "properties");
        for (const struct json *x = props ? props->child : NULL; x; x = x->next)
            if (!find_member(m, n, x->key, x->key_n)) m[n++] = (struct member){ .key = x->key, .key_n = x->key_n };
    }
    for (int i = 0; i < s->n_object; i++) {
        const struct json *req = json_get(s->object[i], "required");
        for (const struct json *x = req ? req->child : NULL; x; x = x->next) {
            struct member *f = find_member(m, n, x->str, x->n);
            if (!f) f = &m[n++], *f = (struct member){ .key = x->str, .key_n = x->n };
            f->required = true;
        }
    }
    *out = m, *n_out = n;
    return OK;
}

static bool is_false(const struct json *j) { return j && j->kind == JSON_BOOL && !j->i; }

/* What one object part says about a name: its property, else its additionalProperties; NULL = nothing. */
static const struct json *said_about(const struct json *object, const struct member *m)
{
    const struct json *props = json_get(object, "properties");
    for (const struct json *x = props ? props->child : NULL; x; x = x->next)
        if (same_key(m, x->key, x->key_n)) return x;
    return json_get(object, "additionalProperties");
}

static status convert_member(struct conv *c, const struct spec *s, struct member *m, const struct path *p)
{
    struct path props = { p, "properties", 0 }, at = { &props, m->key, 0 };
    for (int i = 0; i < s->n_object; i++) {
        const struct json *v = said_about(s->object[i], m);
        if (is_false(v)) m->forbidden = true;
        else if (v && m->parts.n < PARTS_MAX) m->parts.p[m->parts.n++] = (struct part){ .s = v };
    }
    if (m->forbidden) return m->required ? refuse(c, &at, "%s is required and forbidden", "it") : OK;
    char value[RULE_NAME];
    struct gbnf t = { 0 };
    TRY(convert(c, &m->parts, &at, value));
    fresh(c, m->rule);
    gbnf_put(&t, " \"");
    gbnf_put_json(&t, m->key, (size_t)m->key_n, true);
    gbnf_put(&t, ":\" ws %s", value);
    return put_rule(c, m->rule, &t);
}

/* Keys that are none of the members: a trie of their characters, one rule a node. Such keys are written without escapes. */
static status other_keys(struct conv *c, const struct member *m, const int64_t *of, int64_t n, int64_t depth, char name[RULE_NAME], int nesting)
{
    struct gbnf t = { 0 };
    bool whole = false, branches = false;
    char sub[RULE_NAME];
    int64_t *next = mem_calloc((size_t)n + 1, sizeof *next);
    bool *used = mem_calloc((size_t)n + 1, sizeof *used);
    struct gbnf not = { 0 };
    status st = next && used ? OK : err_oom(c->e, "JSON schema", (size_t)n * sizeof *next);
    fresh(c, name);
    for (int64_t i = 0; i < n && st == OK; i++) {
        const char *key = m[of[i]].key + depth;
        int64_t left = m[of[i]].key_n - depth, len = 1, k = 0;
        whole |= left == 0;
        if (left == 0 || used[i]) continue;
        while (len < left && (key[len] & 0xC0) == 0x80) len++;
        for (int64_t j = i; j < n; j++) {
            const struct member *o = &m[of[j]];
            if (o->key_n - depth >= len && !memcmp(o->key + depth, key, (size_t)len)) next[k++] = of[j], used[j] = true;
        }
        if ((unsigned char)key[0] < ' ' || key[0] == '"' || key[0] == '\\') continue; /* cannot be written without an escape: nothing to exclude */
        if (nesting < 1000) st = other_keys(c, m, next, k, depth + len, sub, nesting + 1);
        else st = err_set(c->e, ERR_USAGE, "%s: a property name has more than 1000 characters", c->name);
        gbnf_put(&t, "%s [", branches ? " |" : "");
        if (strchr("]-^", key[0])) gbnf_put(&t, "\\x%02x", (unsigned)key[0]), gbnf_put(&not, "\\x%02x", (unsigned)key[0]);
        else gbnf_put_n(&t, key, (size_t)len), gbnf_put_n(&not, key, (size_t)len);
        gbnf_put(&t, "] %s", sub);
        branches = true;
    }
    if (branches) gbnf_put(&t, " | [^\"\\\\\\x00-\\x1F\\x7F"), gbnf_put_n(&t, not.p ? not.p : "", not.n), gbnf_put(&t, "] plain*");
    else gbnf_put(&t, " plain+");
    if (!whole) gbnf_put(&t, " | \"\"");
    mem_free(next), mem_free(used), mem_free(not.p);
    if (st == OK) return put_rule(c, name, &t);
    mem_free(t.p);
    return st;
}

/* The rule of one further member, "" when none may stand there. */
static status convert_additional(struct conv *c, const struct spec *s, const struct member *m, int64_t n, const struct path *p, char rule[RULE_NAME])
{
    struct parts parts = { .n = 0 };
    bool asked = false, any_props = false;
    char key[RULE_NAME] = "", value[RULE_NAME];
    struct gbnf t = { 0 };
    rule[0] = 0;
    for (int i = 0; i < s->n_object; i++) {
        const struct json *v = json_get(s->object[i], "additionalProperties");
        if (is_false(v)) return OK;
        any_props |= json_get(s->object[i], "properties") != NULL;
        asked |= v != NULL;
        if (v && parts.n < PARTS_MAX) parts.p[parts.n++] = (struct part){ .s = v };
    }
    if (!asked && (any_props || n > 0)) return OK;
    TRY(convert(c, &parts, &(struct path){ p, "additionalProperties", 0 }, value));
    if (n > 0) {
        int64_t *of = mem_calloc((size_t)n, sizeof *of);
        if (!of) return err_oom(c->e, "JSON schema", (size_t)n * sizeof *of);
        for (int64_t i = 0; i < n; i++) of[i] = i;
        status st = other_keys(c, m, of, n, 0, key, 0);
        mem_free(of);
        TRY(st);
    }
    fresh(c, rule);
    if (n > 0) gbnf_put(&t, " \"\\\"\" %s \"\\\":\" ws %s", key, value);
    else gbnf_put(&t, " string \":\" ws %s", value);
    return put_rule(c, rule, &t);
}

static status check_counts(struct conv *c, const struct spec *s, int64_t required, int64_t all, bool open, const struct path *p)
{
    for (int i = 0; i < s->n_object; i++) {
        const struct json *least = json_get(s->object[i], "minProperties"), *most = json_get(s->object[i], "maxProperties");
        int64_t n;
        if (least) {
            TRY(count_of(c, least, p, &n));
            if (n > required) return refuse(c, p, "%s beyond the number of required properties is not supported", "'minProperties'");
        }
        if (most) {
            TRY(count_of(c, most, p, &n));
            if (open || n < all) return refuse(c, p, "%s below the number of possible properties is not supported", "'maxProperties'");
        }
    }
    return OK;
}

/* Members in order. rest[i]: what may follow when something stands before member i; the alternatives of the beginning: the first member that is there. */
static status put_object(struct conv *c, const struct spec *s, const struct path *p, struct gbnf *t)
{
    struct member *m;
    int64_t n, required = 0, all = 0;
    char more[RULE_NAME], rest[RULE_NAME], next[RULE_NAME] = "";
    TRY(list_members(c, s, p, &m, &n));
    for (int64_t i = 0; i < n; i++) {
        TRY(convert_member(c, s, &m[i], p));
        required += m[i].required, all += !m[i].forbidden;
    }
    TRY(convert_additional(c, s, m, n, p, more));
    TRY(check_counts(c, s, required, all, more[0] != 0, p));
    if (all == 0 && !more[0]) return gbnf_put(t, " \"{\" ws \"}\""), OK;
    struct gbnf tail = { 0 };
    fresh(c, next);
    if (more[0]) gbnf_put(&tail, " (\",\" ws %s)*", more);
    TRY(put_rule(c, next, &tail));
    int64_t first = 0; /* the first required member: nothing behind it can begin */
    while (first < n && !(m[first].required && !m[first].forbidden)) first++;
    char (*rests)[RULE_NAME] = arena_zalloc(&c->mem, (size_t)n + 1, sizeof *rests);
    if (!rests) return err_oom(c->e, "JSON schema", (size_t)n * sizeof *rests);
    memcpy(rests[n], next, RULE_NAME);
    for (int64_t i = n; i-- > 0;) {
        if (m[i].forbidden) {
            memcpy(rests[i], rests[i + 1], RULE_NAME);
            continue;
        }
        fresh(c, rest);
        gbnf_put(&tail, " (\",\" ws %s)%s %s", m[i].rule, m[i].required ? "" : "?", rests[i + 1]);
        TRY(put_rule(c, rest, &tail));
        memcpy(rests[i], rest, RULE_NAME);
    }
    bool any = false;
    gbnf_put(t, " \"{\" ws (");
    for (int64_t i = 0; i < n && i <= first; i++) {
        if (m[i].forbidden) continue;
        gbnf_put(t, "%s (%s %s ws)", any ? " |" : "", m[i].rule, rests[i + 1]);
        any = true;
    }
    if (first == n && more[0]) gbnf_put(t, "%s (%s %s ws)", any ? " |" : "", more, rests[n]);
    gbnf_put(t, " )%s \"}\"", required ? "" : "?");
    return OK;
}

/* ---- lists ---- */

/* The schemas of item i together; false when there may be none. i behind all prefixes: the rest. */
static bool item_parts(const struct spec *s, int64_t i, struct parts *out, bool *said)
{
    out->n = 0;
    *said = false;
    for (int k = 0; k < s->n_array; k++) {
        const struct json *items = json_get(s->array[k], "items"), *prefix = json_get(s->array[k], "prefixItems"), *v;
        if (items && items->kind == JSON_ARR) prefix = items, items = json_get(s->array[k], "additionalItems");
        int64_t at = i;
        v = prefix ? prefix->child : NULL;
        while (v && at-- > 0) v = v->next;
        if (!v) v = items;
        if (is_false(v)) return false;
        if (v && out->n < PARTS_MAX) out->p[out->n++] = (struct part){ .s = v }, *said = true;
    }
    return true;
}

static int64_t prefix_length(const struct spec *s)
{
    int64_t n = 0;
    for (int k = 0; k < s->n_array; k++) {
        const struct json *items = json_get(s->array[k], "items"), *prefix = json_get(s->array[k], "prefixItems");
        if (items && items->kind == JSON_ARR) prefix = items;
        if (prefix) n = max_i64(n, prefix->n);
    }
    return n;
}

static status list_bounds(struct conv *c, const struct spec *s, const struct path *p, int64_t *min, int64_t *max)
{
    *min = 0, *max = INT64_MAX;
    for (int k = 0; k < s->n_array; k++) {
        const struct json *least = json_get(s->array[k], "minItems"), *most = json_get(s->array[k], "maxItems");
        int64_t n;
        if (least) {
            TRY(count_of(c, least, p, &n));
            *min = max_i64(*min, n);
        }
        if (most) {
            TRY(count_of(c, most, p, &n));
            *max = min_i64(*max, n);
        }
    }
    if (*min > REPEAT_MAX) return refuse(c, p, "more than 10000 items%s", "");
    if (*min > *max) return refuse(c, p, "no list can satisfy minItems above %s", "maxItems");
    return OK;
}

/* "{m,n}" or, for INT64_MAX, "{m,}" */
static void put_times(struct gbnf *t, int64_t min, int64_t max)
{
    if (max == INT64_MAX) gbnf_put(t, "{%lld,}", (long long)min);
    else gbnf_put(t, "{%lld,%lld}", (long long)min, (long long)min_i64(max, REPEAT_MAX));
}

static status put_array(struct conv *c, const struct spec *s, const struct path *p, struct gbnf *t)
{
    int64_t min, max, n_prefix = prefix_length(s);
    struct parts parts;
    bool said;
    char item[RULE_NAME], next[RULE_NAME] = "", name[RULE_NAME];
    struct gbnf tail = { 0 };
    TRY(list_bounds(c, s, p, &min, &max));
    bool open = item_parts(s, n_prefix, &parts, &said) && (said || n_prefix == 0 || min > n_prefix) && max > n_prefix;
    if (!open && min > n_prefix) return refuse(c, p, "no list can have the %s", "items that minItems asks for");
    if (open) {
        TRY(convert(c, &parts, &(struct path){ p, "items", 0 }, item));
        if (n_prefix == 0) {
            gbnf_put(t, " \"[\" ws (%s (\",\" ws %s)", item, item);
            put_times(t, max_i64(min - 1, 0), max == INT64_MAX ? max : max - 1);
            gbnf_put(t, " ws)%s \"]\"", min == 0 ? "?" : "");
            return OK;
        }
        gbnf_put(&tail, " (\",\" ws %s)", item);
        put_times(&tail, max_i64(min - n_prefix, 0), max == INT64_MAX ? max : max - n_prefix);
    }
    fresh(c, next);
    TRY(put_rule(c, next, &tail));
    struct path prefix = { p, "prefixItems", 0 };
    for (int64_t i = min_i64(n_prefix, max); i-- > 0;) {
        if (!item_parts(s, i, &parts, &said)) return refuse(c, p, "an item of %s is false", "'prefixItems'");
        TRY(convert(c, &parts, &(struct path){ &prefix, NULL, i }, item));
        fresh(c, name);
        gbnf_put(&tail, i > 0 ? " (\",\" ws %s %s)%s" : " (%s %s ws)%s", item, next, min > i ? "" : "?");
        TRY(put_rule(c, name, &tail));
        memcpy(next, name, RULE_NAME);
    }
    gbnf_put(t, " \"[\" ws %s \"]\"", next);
    return OK;
}

/* ---- strings, numbers, values ---- */

static status put_string(struct conv *c, const struct spec *s, const struct path *p, struct gbnf *t)
{
    static const char *const formats[] = { "date", "time", "date-time", "uuid" };
    bool lengths = s->min_length > 0 || s->max_length >= 0;
    char where[140];
    if ((s->pattern || s->format) && (lengths || (s->pattern && s->format)))
        return refuse(c, p, "'pattern', 'format' and lengths together are not supported%s", "");
    if (s->format) {
        for (int i = 0; i < ARRAY_LEN(formats); i++)
            if (!strcmp(s->format->str, formats[i])) return gbnf_put(t, " \"\\\"\" %s \"\\\"\"", formats[i]), OK;
        return refuse(c, p, "format '%.40s' is not supported (date, time, date-time and uuid are)", s->format->str);
    }
    if (s->pattern) {
        path_text(p, where, 100);
        char full[260];
        snprintf(full, sizeof full, "%.100s: %s", c->name, where);
        gbnf_put(t, " \"\\\"\"");
        TRY(gbnf_put_pattern(t, s->pattern->str, (size_t)s->pattern->n, full, c->e));
        gbnf_put(t, " \"\\\"\"");
        return OK;
    }
    if (!lengths) return gbnf_put(t, " string"), OK;
    if (s->min_length > REPEAT_MAX) return refuse(c, p, "more than 10000 characters%s", "");
    if (s->max_length >= 0 && s->max_length < s->min_length) return refuse(c, p, "no string can satisfy minLength above %s", "maxLength");
    gbnf_put(t, " \"\\\"\" char");
    put_times(t, s->min_length, s->max_length < 0 ? INT64_MAX : s->max_length);
    gbnf_put(t, " \"\\\"\"");
    return OK;
}

static status put_number(struct conv *c, const struct spec *s, unsigned types, const struct path *p, struct gbnf *t)
{
    int64_t lo, hi;
    if (!s->bounded) return gbnf_put(t, types & T_NUMBER ? " number" : " integer"), OK;
    if (!(types & T_NUMBER)) {
        if (!bounds_integers(&s->bounds, &lo, &hi)) return refuse(c, p, "no whole number satisfies the bounds%s", "");
        gbnf_put_integers(t, lo, hi);
        return OK;
    }
    return gbnf_put_numbers(t, &s->bounds) ? OK : refuse(c, p, "bounds of numbers less than 1 apart are not supported%s", "");
}

static bool among(const struct json *v, const struct json *list)
{
    if (strcmp(list->key, "enum") != 0) return equal(v, list);
    for (const struct json *x = list->child; x; x = x->next)
        if (equal(v, x)) return true;
    return false;
}

static status put_values(struct conv *c, const struct spec *s, const struct path *p, struct gbnf *t)
{
    const struct json *list = s->values[0];
    bool is_enum = !strcmp(list->key, "enum"), any = false;
    if (s->also) return refuse(c, p, "'enum' or 'const' beside '%s' is not supported", s->also);
    for (const struct json *v = is_enum ? list->child : list; v; v = is_enum ? v->next : NULL) {
        bool fits = !s->typed || (type_of(v) & s->types);
        for (int i = 1; i < s->n_values && fits; i++) fits = among(v, s->values[i]);
        if (!fits) continue;
        struct gbnf value = { 0 };
        put_value(&value, v);
        gbnf_put(t, "%s \"", any ? " |" : "");
        if (value.p) gbnf_put_n(t, value.p, value.n);
        t->failed |= value.failed;
        gbnf_put(t, "\"");
        mem_free(value.p);
        any = true;
    }
    return any ? OK : refuse(c, p, "no value satisfies %s", "all of enum, const and type");
}

static status put_types(struct conv *c, const struct spec *s, const struct path *p, struct gbnf *t)
{
    unsigned types = s->typed ? s->types : s->spoken ? s->spoken : T_ALL;
    bool any = false;
    if (!s->typed && !s->spoken) return gbnf_put(t, " value"), OK;
    static const unsigned order[] = { T_OBJECT, T_ARRAY, T_STRING, T_INT | T_NUMBER, T_BOOL, T_NULL };
    for (int i = 0; i < ARRAY_LEN(order); i++) {
        if (!(types & order[i])) continue;
        if (any) gbnf_put(t, " |");
        any = true;
        if (order[i] == T_OBJECT && s->n_object) TRY(put_object(c, s, p, t));
        else if (order[i] == T_OBJECT) gbnf_put(t, " object");
        else if (order[i] == T_ARRAY && s->n_array) TRY(put_array(c, s, p, t));
        else if (order[i] == T_ARRAY) gbnf_put(t, " array");
        else if (order[i] == T_STRING) TRY(put_string(c, s, p, t));
        else if (order[i] & T_INT) TRY(put_number(c, s, types, p, t));
        else gbnf_put(t, order[i] == T_BOOL ? " boolean" : " null");
    }
    return any ? OK : refuse(c, p, "no value satisfies %s", "all types asked for");
}

/* ---- alternatives ---- */

/* Do the schemas exclude each other for sure? Types, values, and objects told apart by a required property. */
static status excludes(struct conv *c, const struct json *a, const struct json *b, const struct path *p, int depth, bool *yes);

/* The types that our grammar writes for it (written), or that it admits. */
static unsigned types_of(const struct spec *s, bool written)
{
    unsigned types = s->typed ? s->types : written && s->spoken ? s->spoken : T_ALL;
    if (s->n_values == 0) return types;
    unsigned have = 0;
    const struct json *list = s->values[0];
    bool is_enum = !strcmp(list->key, "enum");
    for (const struct json *v = is_enum ? list->child : list; v; v = is_enum ? v->next : NULL) have |= type_of(v);
    return types & have;
}

static bool values_apart(const struct spec *x, const struct spec *y)
{
    if (!x->n_values || !y->n_values) return false;
    const struct json *list = x->values[0];
    bool is_enum = !strcmp(list->key, "enum");
    for (const struct json *v = is_enum ? list->child : list; v; v = is_enum ? v->next : NULL)
        if (among(v, y->values[0])) return false;
    return true;
}

static bool requires(const struct spec *s, const char *key, int64_t n)
{
    for (int i = 0; i < s->n_object; i++) {
        const struct json *req = json_get(s->object[i], "required");
        for (const struct json *x = req ? req->child : NULL; x; x = x->next)
            if (x->n == n && !memcmp(x->str, key, (size_t)n)) return true;
    }
    return false;
}

/* x requires a property that y does not admit, or both require one and describe it in ways that exclude each other. */
static status objects_apart(struct conv *c, const struct spec *x, const struct spec *y, const struct path *p, int depth, bool *yes)
{
    for (int i = 0; i < x->n_object && !*yes; i++) {
        const struct json *req = json_get(x->object[i], "required");
        for (const struct json *k = req ? req->child : NULL; k && !*yes; k = k->next) {
            struct member m = { .key = k->str, .key_n = k->n };
            for (int j = 0; j < y->n_object && !*yes; j++) {
                const struct json *mine = said_about(x->object[i], &m), *theirs = said_about(y->object[j], &m);
                if (is_false(theirs)) *yes = true;
                else if (mine && theirs && requires(y, k->str, k->n)) TRY(excludes(c, mine, theirs, p, depth + 1, yes));
            }
        }
    }
    return OK;
}

static status excludes(struct conv *c, const struct json *a, const struct json *b, const struct path *p, int depth, bool *yes)
{
    struct parts pa = { .n = 0 }, pb = { .n = 0 };
    struct spec x, y;
    *yes = false;
    if (depth > 8 || c->n_compared++ >= COMPARED_MAX) return OK; /* schemas that refer to each other have no end of properties to compare */
    TRY(unfold(c, &pa, (struct part){ .s = a }, p, 0));
    TRY(unfold(c, &pb, (struct part){ .s = b }, p, 0));
    TRY(gather(c, &x, &pa, p));
    TRY(gather(c, &y, &pb, p));
    unsigned both = (types_of(&x, true) & types_of(&y, false)) | (types_of(&x, false) & types_of(&y, true));
    if (both == 0 || values_apart(&x, &y)) return *yes = true, OK;
    if (both & ~(unsigned)T_OBJECT) return OK;
    TRY(objects_apart(c, &x, &y, p, depth, yes));
    return *yes ? OK : objects_apart(c, &y, &x, p, depth, yes);
}

static status check_one_of(struct conv *c, const struct json *list, const struct path *p)
{
    int64_t i = 0, j;
    char text[64];
    if (list->n > ONE_OF_MAX) return refuse(c, p, "more than 256 alternatives in %s", "'oneOf'");
    for (const struct json *a = list->child; a; a = a->next, i++) {
        j = i + 1;
        for (const struct json *b = a->next; b; b = b->next, j++) {
            bool yes;
            TRY(excludes(c, a, b, p, 0, &yes));
            snprintf(text, sizeof text, "%lld and %lld", (long long)i, (long long)j);
            if (!yes) return refuse(c, p, "alternatives %s of 'oneOf' may overlap; if that does not matter, write anyOf", text);
        }
    }
    return OK;
}

/* The first part that has alternatives left to unfold; NULL = none. *bare: nothing else is asked for. */
static const struct json *choice_of(struct parts *parts, int *which, bool *is_one, bool *bare)
{
    *bare = false;
    for (int i = 0; i < parts->n; i++) {
        const struct json *any = parts->p[i].any_done ? NULL : json_get(parts->p[i].s, "anyOf");
        const struct json *one = parts->p[i].one_done ? NULL : json_get(parts->p[i].s, "oneOf");
        if (!any && !one) continue;
        *which = i, *is_one = !any;
        *bare = parts->n == 1 && stands_alone(parts->p[i].s, any ? "anyOf" : "oneOf");
        return any ? any : one;
    }
    return NULL;
}

static status put_choice(struct conv *c, struct parts *parts, const struct json *list, int which, bool is_one, bool bare, const struct path *p, struct gbnf *t)
{
    struct path at = { p, is_one ? "oneOf" : "anyOf", 0 };
    char name[RULE_NAME];
    int64_t i = 0;
    if (list->kind != JSON_ARR || list->n == 0) return refuse(c, p, "'%s' must be a list of schemas", at.key);
    if (is_one) TRY(check_one_of(c, list, p));
    if (is_one) parts->p[which].one_done = true;
    else parts->p[which].any_done = true;
    for (const struct json *x = list->child; x; x = x->next, i++) {
        struct parts with = { .n = 0 };
        if (!bare) with = *parts;
        if (with.n == PARTS_MAX) return refuse(c, p, "more than 64 schemas for one place%s", "");
        with.p[with.n++] = (struct part){ .s = x };
        TRY(convert(c, &with, &(struct path){ &at, NULL, i }, name));
        gbnf_put(t, "%s %s", i ? " |" : "", name);
    }
    return OK;
}

/* ---- one place ---- */

/* A single schema that is only a reference stands for its target: equal places get one rule, and recursion ends. */
static status follow(struct conv *c, const struct json **s, const struct path *p)
{
    for (int i = 0; (*s)->kind == JSON_OBJ && json_get(*s, "$ref") && stands_alone(*s, "$ref"); i++) {
        if (i > DEPTH_MAX) return refuse(c, p, "%s in a circle", "'$ref'");
        TRY(resolve(c, json_get(*s, "$ref"), p, s));
    }
    return OK;
}

static status write_place(struct conv *c, const struct parts *list, const struct path *p, const char *name)
{
    struct parts parts = { .n = 0 };
    struct spec spec;
    struct gbnf t = { 0 };
    int which;
    bool is_one, bare;
    status st = OK;
    for (int i = 0; i < list->n && st == OK; i++) {
        if (list->p[i].any_done || list->p[i].one_done) parts.p[parts.n++] = list->p[i]; /* unfolded before */
        else st = unfold(c, &parts, list->p[i], p, 0);
    }
    if (st == OK) st = gather(c, &spec, &parts, p);
    const struct json *choice = st == OK ? choice_of(&parts, &which, &is_one, &bare) : NULL;
    if (choice) st = put_choice(c, &parts, choice, which, is_one, bare, p, &t);
    else if (st == OK) st = spec.n_values ? put_values(c, &spec, p, &t) : put_types(c, &spec, p, &t);
    if (st == OK) return put_rule(c, name, &t);
    mem_free(t.p);
    return st;
}

static status convert(struct conv *c, const struct parts *list, const struct path *p, char name[RULE_NAME])
{
    struct parts one = *list;
    struct known **head = NULL;
    if (list->n == 1) {
        TRY(follow(c, &one.p[0].s, p));
        head = &c->known[(uintptr_t)one.p[0].s / sizeof(struct json) % KNOWN];
        for (const struct known *k = *head; k; k = k->next)
            if (k->s == one.p[0].s && !one.p[0].any_done && !one.p[0].one_done) return memcpy(name, k->name, RULE_NAME), OK;
    }
    if (++c->depth > DEPTH_MAX) return refuse(c, p, "schemas more than 64 deep, or a combination that never ends%s", "");
    fresh(c, name);
    if (list->n == 1) {
        struct known *k = arena_zalloc(&c->mem, 1, sizeof *k);
        if (!k) return err_oom(c->e, "JSON schema", sizeof *k);
        *k = (struct known){ .s = one.p[0].s, .next = *head };
        memcpy(k->name, name, RULE_NAME);
        *head = k;
    }
    TRY(write_place(c, &one, p, name));
    c->depth--;
    return OK;
}

/* ---- the whole ---- */

/* Days that every month of every year has; no lone surrogates, so that an escape is a character. */
static const char builtin[] =
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n"
    "plain ::= [^\"\\\\\\x00-\\x1F\\x7F]\n"
    "hex ::= [0-9a-fA-F]\n"
    "char ::= plain | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" ([0-9a-cA-CefEF] hex{3} | [dD] [0-7] hex{2}))\n"
    "string ::= \"\\\"\" char* \"\\\"\"\n"
    "integer ::= \"-\"? (\"0\" | [1-9] [0-9]{0,15})\n"
    "number ::= integer (\".\" [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?\n"
    "boolean ::= \"true\" | \"false\"\n"
    "null ::= \"null\"\n"
    "value ::= object | array | string | number | boolean | null\n"
    "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)* ws)? \"}\"\n"
    "array ::= \"[\" ws (value (\",\" ws value)* ws)? \"]\"\n"
    "date ::= [1-9] [0-9]{3} \"-\" (days31 \"-\" (day28 | \"29\" | \"3\" [01]) | days30 \"-\" (day28 | \"29\" | \"30\") | \"02-\" day28)\n"
    "days31 ::= \"0\" [13578] | \"1\" [02]\n"
    "days30 ::= \"0\" [469] | \"11\"\n"
    "day28 ::= \"0\" [1-9] | \"1\" [0-9] | \"2\" [0-8]\n"
    "clock ::= ([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9]\n"
    "time ::= clock \":\" [0-5] [0-9] (\".\" [0-9]{1,6})? (\"Z\" | [-+] clock)\n"
    "date-time ::= date \"T\" time\n"
    "uuid ::= hex{8} \"-\" hex{4} \"-\" hex{4} \"-\" hex{4} \"-\" hex{12}\n";

status json_schema_to_gbnf(char **out, const struct json *schema, const char *name, struct err *e)
{
    struct conv c = { .root = schema, .name = name, .e = e };
    struct parts root = { .n = 1 };
    char rule[RULE_NAME];
    root.p[0].s = schema;
    *out = NULL;
    arena_init(&c.mem, 0);
    status st = convert(&c, &root, NULL, rule);
    if (st == OK) {
        gbnf_put(&c.out, "root ::= %s\n", rule);
        gbnf_put_n(&c.out, builtin, sizeof builtin - 1);
        if (c.out.failed) st = err_set(e, ERR_USAGE, "%s: the schema needs more than %d bytes of grammar, or memory is out", name, GRAMMAR_TEXT_MAX);
    }
    arena_free(&c.mem);
    if (st == OK) *out = c.out.p;
    else mem_free(c.out.p);
    return st;
}

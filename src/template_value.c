/* template_value - the values of one render: memory, text building, equality, order, arithmetic and printing with Python's rules.
 * Knows nothing of nodes. Values are immutable but for lists, dicts and namespaces; strings are views wherever possible.
 * Every loop over data is charged to the step limit, every recursion over data goes through down(): no input makes it run long or deep.
 * Source: the Python 3 language reference (repr of str and float, // and % of negative numbers). */
#include "src/template_int.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const val_type_names[V_KINDS] = {
    [V_ABSENT] = "nothing", [V_UNDEF] = "Undefined", [V_NONE] = "NoneType", [V_BOOL] = "bool",           [V_INT] = "int",
    [V_FLOAT] = "float",    [V_STR] = "str",         [V_LIST] = "list",     [V_TUPLE] = "tuple",         [V_RANGE] = "range",
    [V_VIEW] = "dict view", [V_GEN] = "generator",   [V_DICT] = "dict",     [V_NAMESPACE] = "namespace", [V_MACRO] = "macro",
    [V_FUNC] = "function",  [V_METHOD] = "method",   [V_LOOP] = "loop",     [V_CYCLER] = "cycler",       [V_JOINER] = "joiner",
};

status fail(struct render *r, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++)
        if (*p == '\n') *p = ' ';
    return err_set(r->e, ERR_RUNTIME, "%s line %d: %s", r->t->name, r->line, text);
}

status fail_undef(struct render *r, const struct val *v)
{
    if (v->kind != V_UNDEF) return OK;
    int n = v->n > 80 ? 80 : (int)v->n;
    if (v->flag == UNDEF_NAME) return fail(r, "'%.*s' is undefined", n, v->p);
    if (v->flag == UNDEF_HINT) return fail(r, "%.*s", n, v->p);
    return fail(r, "'%s' has no member '%.*s'", val_type_names[v->flag - UNDEF_MEMBER], n, v->p);
}

status charge(struct render *r, size_t bytes)
{
    r->steps += 1 + (int64_t)(bytes >> 8);
    return r->steps > TEMPLATE_STEPS ? fail(r, "limit of %d steps passed", TEMPLATE_STEPS) : OK;
}

status charge_chars(struct render *r, size_t bytes) { return charge(r, bytes < SIZE_MAX / 8 ? bytes * 8 : bytes); }

status down(struct render *r)
{
    return ++r->frames > TEMPLATE_FRAMES ? fail(r, "values or calls are nested deeper than %d", TEMPLATE_FRAMES) : OK;
}

/* ---- memory ---- */

enum { PAGE = 16 << 10 };

status heap_fail(struct render *r, size_t bytes)
{
    size_t total;
    if (!add_size(r->heap.total, bytes, &total) || total > TEMPLATE_HEAP)
        return fail(r, "limit of %d bytes of memory passed", TEMPLATE_HEAP);
    return err_set(r->e, ERR_MEMORY, "%s line %d: no memory for %zu bytes", r->t->name, r->line, bytes);
}

status heap_get(struct render *r, size_t bytes, void *pointer)
{
    size_t need;
    if (!pad_size(bytes, 8, &need)) return heap_fail(r, bytes);
    char *start = r->tip ? r->tip + (-(uintptr_t)r->tip & 7) : NULL;
    if (!start || start > r->tip_end || need > (size_t)(r->tip_end - start)) {
        size_t size = need > PAGE / 4 ? need : PAGE;
        start = arena_alloc(&r->heap, size);
        if (!start) return heap_fail(r, size);
        if (size != PAGE) { /* large blocks stand alone, the current page goes on being used */
            *(void **)pointer = start;
            return OK;
        }
        r->tip_end = start + size;
    }
    r->tip = start + need;
    *(void **)pointer = start;
    return OK;
}

/* a + b. When a is the newest text on the heap it grows in place, so that chains of + cost linear time and memory. */
static status concat(struct render *r, struct text a, struct text b, struct val *out)
{
    size_t n;
    if (!add_size(a.n, b.n, &n) || n > TEMPLATE_HEAP) return heap_fail(r, n);
    TRY(charge(r, n));
    if (a.n == 0 || b.n == 0) {
        *out = val_str(a.n ? a : b);
        return OK;
    }
    if (a.p + a.n == r->tip && b.n <= (size_t)(r->tip_end - r->tip)) {
        memcpy(r->tip, b.p, b.n);
        r->tip += b.n;
        *out = val_str((struct text){ a.p, n });
        return OK;
    }
    char *p;
    if (n <= PAGE / 4) {
        TRY(heap_get(r, n, &p));
        r->tip = p + n;
    } else { /* a page of its own with room to grow */
        size_t size = n + n / 2 + PAGE;
        p = arena_alloc(&r->heap, size);
        if (!p) p = arena_alloc(&r->heap, size = n);
        if (!p) return heap_fail(r, n);
        r->tip = p + n;
        r->tip_end = p + size;
    }
    memcpy(p, a.p, a.n);
    memcpy(p + a.n, b.p, b.n);
    *out = val_str((struct text){ p, n });
    return OK;
}

static status grow(struct render *r, void *array, int64_t n, int64_t *cap, size_t item)
{
    if (n < *cap) return OK;
    int64_t more = *cap < 4 ? 4 : *cap * 2;
    void *p;
    TRY(heap_get(r, (size_t)more * item, &p));
    if (n) memcpy(p, *(void **)array, (size_t)n * item);
    *(void **)array = p;
    *cap = more;
    return OK;
}

status seq_new(struct render *r, enum val_kind kind, int64_t cap, struct val *out)
{
    struct seq *s;
    TRY(heap_get(r, sizeof *s, &s));
    *s = (struct seq){ .cap = cap };
    if (cap) TRY(heap_get(r, (size_t)cap * sizeof *s->at, &s->at));
    *out = (struct val){ .kind = kind, .seq = s };
    return OK;
}

status seq_push(struct render *r, struct seq *s, struct val v)
{
    TRY(charge(r, 0));
    TRY(grow(r, &s->at, s->n, &s->cap, sizeof *s->at));
    s->at[s->n++] = v;
    return OK;
}

status dict_new(struct render *r, enum val_kind kind, int64_t cap, struct val *out)
{
    struct dict *d;
    TRY(heap_get(r, sizeof *d, &d));
    *d = (struct dict){ .cap = cap };
    if (cap) TRY(heap_get(r, (size_t)cap * sizeof *d->at, &d->at));
    *out = (struct val){ .kind = kind, .dict = d };
    return OK;
}

static uint32_t hash_bytes(const void *p, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)p)[i]) * 16777619u;
    return h;
}

/* Equal keys have equal hashes: 1, 1.0 and true are one key. */
static status hash_key(struct render *r, const struct val *v, uint32_t *out)
{
    double f = v->kind == V_FLOAT ? v->f : (double)v->i;
    *out = (uint32_t)v->kind;
    if (v->kind == V_STR) {
        TRY(charge(r, v->n));
        *out = hash_bytes(v->p, v->n);
    } else if (val_is_num(v)) {
        if (f == 0) f = 0; /* -0.0 too */
        *out = hash_bytes(&f, sizeof f);
    } else if (v->kind == V_TUPLE) {
        TRY(down(r));
        for (int64_t i = 0; i < v->seq->n; i++) {
            uint32_t h;
            TRY(charge(r, 0));
            TRY(hash_key(r, &v->seq->at[i], &h));
            *out = *out * 31 + h;
        }
        r->frames--;
    } else if (v->kind == V_LIST || v->kind == V_DICT) {
        return fail(r, "'%s' cannot be the key of a dict", val_type_names[v->kind]);
    }
    return OK;
}

static status find_hashed(struct render *r, const struct dict *d, const struct val *key, uint32_t h, struct entry **out)
{
    *out = NULL;
    TRY(charge(r, (size_t)d->n * 8));
    for (int64_t i = 0; i < d->n; i++) {
        bool same;
        if (d->at[i].hash != h) continue;
        TRY(val_equal(r, &d->at[i].key, key, &same));
        if (same) {
            *out = &d->at[i];
            return OK;
        }
    }
    return OK;
}

status dict_find(struct render *r, const struct dict *d, const struct val *key, struct entry **out)
{
    uint32_t h;
    TRY(hash_key(r, key, &h));
    return find_hashed(r, d, key, h, out);
}

status dict_set(struct render *r, struct dict *d, struct val key, struct val v)
{
    uint32_t h;
    struct entry *old;
    TRY(hash_key(r, &key, &h));
    TRY(find_hashed(r, d, &key, h, &old));
    if (old) {
        old->value = v;
        return OK;
    }
    TRY(grow(r, &d->at, d->n, &d->cap, sizeof *d->at));
    d->at[d->n++] = (struct entry){ h, key, v };
    return OK;
}

static status dict_from_json(struct render *r, const struct json *j, int depth, struct val *out)
{
    TRY(dict_new(r, V_DICT, j->n, out));
    struct dict *d = out->dict;
    for (const struct json *c = j->child; c && d->n < d->cap; c = c->next) {
        struct entry *en = &d->at[d->n];
        en->key = val_str((struct text){ c->key, (size_t)c->key_n });
        TRY(hash_key(r, &en->key, &en->hash));
        TRY(val_from_json(r, c, depth + 1, &en->value));
        d->n++;
    }
    return OK;
}

status val_from_json(struct render *r, const struct json *j, int depth, struct val *out)
{
    if (depth > TEMPLATE_DEPTH) return fail(r, "variables are nested deeper than %d", TEMPLATE_DEPTH);
    switch (j->kind) {
    case JSON_NULL: *out = val_none(); return OK;
    case JSON_BOOL: *out = val_bool(j->i != 0); return OK;
    case JSON_INT: *out = val_int(j->i); return OK;
    case JSON_FLOAT: *out = val_float(j->f); return OK;
    case JSON_STR: *out = val_str((struct text){ j->str, (size_t)j->n }); return OK;
    case JSON_OBJ: return dict_from_json(r, j, depth, out);
    case JSON_ARR: break;
    }
    TRY(seq_new(r, V_LIST, j->n, out));
    struct seq *s = out->seq;
    for (const struct json *c = j->child; c && s->n < s->cap; c = c->next) {
        TRY(val_from_json(r, c, depth + 1, &s->at[s->n]));
        s->n++;
    }
    return OK;
}

/* ---- text ---- */

status put(struct render *r, const char *p, size_t n)
{
    TRY(charge(r, n));
    if (n > (size_t)TEMPLATE_OUTPUT - r->out_n) return fail(r, "limit of %d bytes of output passed", TEMPLATE_OUTPUT);
    if (!r->out || r->out_n + n > r->out_cap) {
        size_t cap = r->out_cap ? r->out_cap : 1024;
        while (cap < r->out_n + n) cap *= 2;
        char *bigger = mem_realloc(r->out, cap + 1); /* + 1: the NUL behind the result */
        if (!bigger) return err_set(r->e, ERR_MEMORY, "%s line %d: no memory for %zu bytes of output", r->t->name, r->line, cap);
        r->out = bigger;
        r->out_cap = cap;
    }
    if (n) memcpy(r->out + r->out_n, p, n);
    r->out_n += n;
    return OK;
}

status put_text(struct render *r, struct text t) { return put(r, t.p, t.n); }

status put_cp(struct render *r, uint32_t cp)
{
    char buf[4];
    return put(r, buf, (size_t)text_put(cp, buf));
}

status text_end(struct render *r, size_t mark, struct val *out)
{
    size_t n = r->out_n - mark;
    char *p = NULL;
    if (n) {
        TRY(heap_get(r, n, &p));
        memcpy(p, r->out + mark, n);
        if (r->tip && p + n <= r->tip && p + n + 8 > r->tip) r->tip = p + n; /* on the page: the next + may grow it */
    }
    r->out_n = mark;
    *out = val_str((struct text){ n ? p : "", n });
    return OK;
}

status to_text(struct render *r, const struct val *v, struct text *out)
{
    if (v->kind == V_STR) {
        *out = val_text(v);
        return OK;
    }
    struct val s;
    size_t mark = text_begin(r);
    TRY(put_val(r, v));
    TRY(text_end(r, mark, &s));
    *out = val_text(&s);
    return OK;
}

int float_repr(double f, char buf[40])
{
    if (isnan(f)) return snprintf(buf, 40, "nan");
    if (isinf(f)) return snprintf(buf, 40, f < 0 ? "-inf" : "inf");
    char sci[40];
    int digits = 1;
    do snprintf(sci, sizeof sci, "%.*e", digits - 1, f);
    while (strtod(sci, NULL) != f && ++digits <= 17);
    int exp10 = (int)strtol(strchr(sci, 'e') + 1, NULL, 10);
    if (exp10 >= 16 || exp10 < -4) { /* Python drops a fraction that is not there; the exponent has two digits at least, as in C */
        return snprintf(buf, 40, "%s", sci);
    }
    int n = snprintf(buf, 40, "%.*f", digits - 1 > exp10 ? digits - 1 - exp10 : 0, f);
    if (!strchr(buf, '.')) n += snprintf(buf + n, (size_t)(40 - n), ".0");
    return n;
}

static status put_str_repr(struct render *r, struct text t)
{
    char quote = t.n && memchr(t.p, '\'', t.n) && !memchr(t.p, '"', t.n) ? '"' : '\'', buf[16];
    TRY(put(r, &quote, 1));
    for (size_t i = 0, n; i < t.n; i += n) {
        uint32_t c;
        n = (size_t)text_get(t.p + i, t.p + t.n, &c);
        const char *named = c == '\n' ? "\\n" : c == '\r' ? "\\r" : c == '\t' ? "\\t" : c == '\\' ? "\\\\" : NULL;
        if (named) TRY(put(r, named, 2));
        else if (c == (uint32_t)quote) TRY(put(r, "\\'", 2));
        else if (cp_is_printable(c) || (c >= 0xDC80 && c <= 0xDCFF)) TRY(put(r, t.p + i, n));
        else TRY(put(r, buf, (size_t)snprintf(buf, sizeof buf, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c)));
    }
    return put(r, &quote, 1);
}

static status put_seq(struct render *r, const struct val *v)
{
    const struct seq *s = v->seq;
    bool tuple = v->kind == V_TUPLE, view = v->kind == V_VIEW;
    if (v->kind == V_RANGE) return put_text(r, s->label);
    if (v->kind == V_GEN) return put_text(r, TEXT("<generator>"));
    TRY(down(r));
    if (view) {
        TRY(put_text(r, s->label));
        TRY(put(r, "(", 1));
    }
    TRY(put(r, tuple ? "(" : "[", 1));
    for (int64_t i = 0; i < s->n; i++) {
        if (i) TRY(put(r, ", ", 2));
        TRY(put_repr(r, &s->at[i]));
    }
    if (tuple && s->n == 1) TRY(put(r, ",", 1));
    TRY(put(r, tuple ? ")" : "]", 1));
    if (view) TRY(put(r, ")", 1));
    r->frames--;
    return OK;
}

static status put_dict(struct render *r, const struct val *v)
{
    TRY(down(r));
    if (v->kind == V_NAMESPACE) TRY(put_text(r, TEXT("<Namespace ")));
    TRY(put(r, "{", 1));
    for (int64_t i = 0; i < v->dict->n; i++) {
        if (i) TRY(put(r, ", ", 2));
        TRY(put_repr(r, &v->dict->at[i].key));
        TRY(put(r, ": ", 2));
        TRY(put_repr(r, &v->dict->at[i].value));
    }
    TRY(put(r, "}", 1));
    if (v->kind == V_NAMESPACE) TRY(put(r, ">", 1));
    r->frames--;
    return OK;
}

status put_val(struct render *r, const struct val *v)
{
    char buf[40];
    switch (v->kind) {
    case V_ABSENT:
    case V_UNDEF: return OK;
    case V_NONE: return put_text(r, TEXT("None"));
    case V_BOOL: return put_text(r, v->i ? TEXT("True") : TEXT("False"));
    case V_INT: return put(r, buf, (size_t)snprintf(buf, sizeof buf, "%lld", (long long)v->i));
    case V_FLOAT: return put(r, buf, (size_t)float_repr(v->f, buf));
    case V_STR: return put_text(r, val_text(v));
    case V_DICT:
    case V_NAMESPACE: return put_dict(r, v);
    default:
        if (val_is_seq(v)) return put_seq(r, v);
        return put(r, buf, (size_t)snprintf(buf, sizeof buf, "<%s>", val_type_names[v->kind]));
    }
}

status put_repr(struct render *r, const struct val *v)
{
    if (v->kind == V_UNDEF) return put_text(r, TEXT("Undefined"));
    if (v->kind == V_STR && v->flag == STR_MARKUP) {
        TRY(put_text(r, TEXT("Markup(")));
        TRY(put_str_repr(r, val_text(v)));
        return put(r, ")", 1);
    }
    return v->kind == V_STR ? put_str_repr(r, val_text(v)) : put_val(r, v);
}

status put_escaped(struct render *r, struct text t)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = { "&amp;", "&lt;", "&gt;", "&#39;", "&#34;" };
    for (size_t i = 0, start = 0; i <= t.n; i++) {
        const char *f = i < t.n && t.p[i] ? strchr(from, t.p[i]) : NULL;
        if (i < t.n && !f) continue;
        TRY(put(r, t.p + start, i - start));
        if (f) TRY(put(r, to[f - from], strlen(to[f - from])));
        start = i + 1;
    }
    return OK;
}

/* ---- walking ---- */

status iter_begin(struct render *r, const struct val *v, struct iter *it)
{
    *it = (struct iter){ .v = v };
    if (val_is_seq(v)) it->seq = v->seq;
    else if (v->kind == V_DICT) it->dict = v->dict;
    else if (v->kind == V_STR) {
        it->p = v->p;
        it->end = v->p + v->n;
    } else if (v->kind != V_UNDEF) {
        return fail(r, "'%s' cannot be iterated over", val_type_names[v->kind]);
    }
    if (v->kind == V_GEN) { /* the walk takes the items away */
        struct seq *s;
        TRY(heap_get(r, sizeof *s, &s));
        *s = *v->seq;
        *v->seq = (struct seq){ 0 };
        it->seq = s;
    }
    return OK;
}

bool iter_next(struct iter *it, struct val *out)
{
    if (it->seq) {
        if (it->i >= it->seq->n) return false;
        *out = it->seq->at[it->i++];
        return true;
    }
    if (it->dict) {
        if (it->i >= it->dict->n) return false;
        *out = it->dict->at[it->i++].key;
        return true;
    }
    if (it->p >= it->end) return false;
    uint32_t c;
    int n = text_get(it->p, it->end, &c);
    *out = val_str((struct text){ it->p, (size_t)n });
    it->p += n;
    return true;
}

status to_list(struct render *r, const struct val *v, struct val *out)
{
    struct iter it;
    struct val item;
    TRY(iter_begin(r, v, &it));
    TRY(seq_new(r, V_LIST, 0, out));
    while (iter_next(&it, &item)) TRY(seq_push(r, out->seq, item));
    return OK;
}

/* ---- truth, length, equality, order ---- */

bool val_true(const struct val *v)
{
    switch (v->kind) {
    case V_ABSENT:
    case V_UNDEF:
    case V_NONE: return false;
    case V_BOOL:
    case V_INT: return v->i != 0;
    case V_FLOAT: return v->f != 0;
    case V_STR: return v->n > 0;
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW: return v->seq->n > 0;
    case V_DICT: return v->dict->n > 0;
    default: return true;
    }
}

status val_length(struct render *r, const struct val *v, int64_t *out)
{
    *out = 0;
    if (v->kind == V_STR) {
        TRY(charge_chars(r, v->n));
        *out = text_length(val_text(v));
    } else if (val_is_seq(v) && v->kind != V_GEN) *out = v->seq->n;
    else if (v->kind == V_DICT) *out = v->dict->n;
    else if (v->kind != V_UNDEF) return fail(r, "'%s' has no length", val_type_names[v->kind]);
    return OK;
}

static int order_num(const struct val *a, const struct val *b)
{
    if (val_is_whole(a) && val_is_whole(b)) return a->i < b->i ? -1 : a->i > b->i;
    double x = a->kind == V_FLOAT ? a->f : (double)a->i, y = b->kind == V_FLOAT ? b->f : (double)b->i;
    return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
}

static status equal_dict(struct render *r, const struct dict *a, const struct dict *b, bool *out)
{
    *out = a->n == b->n;
    for (int64_t i = 0; *out && i < a->n; i++) {
        struct entry *other;
        TRY(find_hashed(r, b, &a->at[i].key, a->at[i].hash, &other));
        *out = other != NULL;
        if (other) TRY(val_equal(r, &a->at[i].value, &other->value, out));
    }
    return OK;
}

status val_equal(struct render *r, const struct val *a, const struct val *b, bool *out)
{
    *out = false;
    TRY(charge(r, a->kind == V_STR ? a->n : 0));
    if (val_is_num(a) && val_is_num(b)) {
        *out = order_num(a, b) == 0;
        return OK;
    }
    if (a->kind != b->kind) return OK;
    if (a->kind == V_STR) *out = text_eq(val_text(a), val_text(b));
    else if (a->kind <= V_NONE) *out = true;
    else if (a->kind == V_LIST || a->kind == V_TUPLE || a->kind == V_RANGE) {
        *out = a->seq->n == b->seq->n;
        TRY(down(r));
        for (int64_t i = 0; *out && i < a->seq->n && i < b->seq->n; i++) TRY(val_equal(r, &a->seq->at[i], &b->seq->at[i], out));
        r->frames--;
    } else if (a->kind == V_DICT) {
        TRY(down(r));
        TRY(equal_dict(r, a->dict, b->dict, out));
        r->frames--;
    } else *out = a->p == b->p;
    return OK;
}

status val_order(struct render *r, const struct val *a, const struct val *b, int *out)
{
    if (val_is_num(a) && val_is_num(b)) {
        *out = order_num(a, b);
        return charge(r, 0);
    }
    TRY(fail_undef(r, a));
    TRY(fail_undef(r, b));
    if (a->kind == V_STR && b->kind == V_STR) { /* UTF-8 bytes sort as code points do */
        size_t n = a->n < b->n ? a->n : b->n;
        int c = n ? memcmp(a->p, b->p, n) : 0;
        *out = c ? (c < 0 ? -1 : 1) : a->n < b->n ? -1 : a->n > b->n;
        return charge(r, n);
    }
    if (a->kind == b->kind && (a->kind == V_LIST || a->kind == V_TUPLE)) {
        TRY(down(r));
        *out = 0;
        int64_t n = min_i64(a->seq->n, b->seq->n);
        for (int64_t i = 0; i < n && *out == 0; i++) {
            bool same;
            TRY(val_equal(r, &a->seq->at[i], &b->seq->at[i], &same));
            if (!same) TRY(val_order(r, &a->seq->at[i], &b->seq->at[i], out));
        }
        if (*out == 0) *out = a->seq->n < b->seq->n ? -1 : a->seq->n > b->seq->n;
        r->frames--;
        return OK;
    }
    return fail(r, "'%s' and '%s' cannot be ordered", val_type_names[a->kind], val_type_names[b->kind]);
}

status val_contains(struct render *r, const struct val *box, const struct val *item, bool *out)
{
    *out = false;
    if (box->kind == V_STR) {
        TRY(fail_undef(r, item));
        if (item->kind != V_STR) return fail(r, "'in <string>' needs a string on its left, not '%s'", val_type_names[item->kind]);
        TRY(charge(r, box->n));
        *out = item->n == 0 || memmem(box->p, box->n, item->p, item->n) != NULL;
        return OK;
    }
    if (box->kind == V_DICT) {
        struct entry *en;
        TRY(dict_find(r, box->dict, item, &en));
        *out = en != NULL;
        return OK;
    }
    struct iter it;
    struct val v;
    TRY(iter_begin(r, box, &it));
    while (!*out && iter_next(&it, &v)) TRY(val_equal(r, &v, item, out));
    return OK;
}

status val_compare(struct render *r, enum op op, const struct val *a, const struct val *b, bool *out)
{
    if (op == OP_EQ || op == OP_NE) {
        TRY(val_equal(r, a, b, out));
        *out ^= op == OP_NE;
        return OK;
    }
    if (op == OP_IN || op == OP_NOT_IN) {
        TRY(val_contains(r, b, a, out));
        *out ^= op == OP_NOT_IN;
        return OK;
    }
    int c;
    TRY(val_order(r, a, b, &c));
    *out = c != 2 && (op == OP_LT ? c < 0 : op == OP_LE ? c <= 0 : op == OP_GT ? c > 0 : c >= 0);
    return OK;
}

status want_int(struct render *r, const struct val *v, const char *what, int64_t *out)
{
    TRY(fail_undef(r, v));
    if (!val_is_whole(v)) return fail(r, "%s must be an integer, not '%s'", what, val_type_names[v->kind]);
    *out = v->i;
    return OK;
}

/* ---- arithmetic ---- */

static const char *const op_names[] = { "+", "-", "*", "/", "//", "%", "**" };

static status bad_operands(struct render *r, enum op op, const struct val *a, const struct val *b)
{
    return fail(r, "unsupported operands of %s: '%s' and '%s'", op_names[op], val_type_names[a->kind], val_type_names[b->kind]);
}

static status overflow(struct render *r, enum op op) { return fail(r, "result of %s does not fit into 64 bits", op_names[op]); }

static status int_pow(struct render *r, int64_t base, int64_t n, struct val *out)
{
    int64_t result = 1;
    while (n) {
        if ((n & 1) && __builtin_mul_overflow(result, base, &result)) return overflow(r, OP_POW);
        n >>= 1;
        if (n && __builtin_mul_overflow(base, base, &base)) return overflow(r, OP_POW);
    }
    *out = val_int(result);
    return OK;
}

/* Python: the quotient is rounded down, the remainder has the sign of the divisor. */
static status int_binary(struct render *r, enum op op, int64_t a, int64_t b, struct val *out)
{
    int64_t v = 0;
    if (op == OP_POW && b >= 0) return int_pow(r, a, b, out);
    if (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD || op == OP_POW)
        if (op == OP_POW ? a == 0 : b == 0) return fail(r, "division by zero");
    if (op == OP_POW || op == OP_DIV) {
        *out = val_float(op == OP_POW ? pow((double)a, (double)b) : (double)a / (double)b);
        return OK;
    }
    bool over = false;
    if (op == OP_ADD) over = __builtin_add_overflow(a, b, &v);
    else if (op == OP_SUB) over = __builtin_sub_overflow(a, b, &v);
    else if (op == OP_MUL) over = __builtin_mul_overflow(a, b, &v);
    else if (b == -1) over = op == OP_FLOORDIV && __builtin_sub_overflow((int64_t)0, a, &v);
    else {
        int64_t q = a / b, m = a % b;
        if (m && (m < 0) != (b < 0)) {
            q--;
            m += b;
        }
        v = op == OP_MOD ? m : q;
    }
    if (over) return overflow(r, op);
    *out = val_int(v);
    return OK;
}

static status float_binary(struct render *r, enum op op, double a, double b, struct val *out)
{
    double v = 0;
    if (op >= OP_DIV && op <= OP_MOD && b == 0) return fail(r, "division by zero");
    if (op == OP_ADD) v = a + b;
    else if (op == OP_SUB) v = a - b;
    else if (op == OP_MUL) v = a * b;
    else if (op == OP_DIV) v = a / b;
    else if (op == OP_POW) {
        if (a == 0 && b < 0) return fail(r, "division by zero");
        if (a < 0 && isfinite(b) && b != floor(b)) return fail(r, "negative number to a fractional power");
        v = pow(a, b);
        if (isinf(v) && isfinite(a) && isfinite(b)) return fail(r, "result of ** is too large");
    } else {
        double m = fmod(a, b), q = (a - m) / b;
        if (m != 0 && (b < 0) != (m < 0)) {
            m += b;
            q -= 1;
        }
        if (m == 0) m = copysign(0.0, b);
        double whole = floor(q);
        if (q - whole > 0.5) whole += 1;
        v = op == OP_MOD ? m : q != 0 ? whole : copysign(0.0, a / b);
    }
    *out = val_float(v);
    return OK;
}

static status repeat(struct render *r, const struct val *v, int64_t times, struct val *out)
{
    size_t unit = v->kind == V_STR ? v->n : (size_t)v->seq->n, total;
    if (times < 0) times = 0;
    if (!mul_size(unit, (size_t)times, &total) || total > TEMPLATE_HEAP) return heap_fail(r, SIZE_MAX);
    TRY(charge(r, total));
    if (v->kind == V_STR) {
        char *p;
        TRY(heap_get(r, total, &p));
        for (size_t i = 0; total && i < (size_t)times; i++) memcpy(p + i * unit, v->p, unit);
        *out = val_str((struct text){ total ? p : "", total });
        return OK;
    }
    TRY(seq_new(r, v->kind, (int64_t)total, out));
    for (size_t i = 0; i < total; i++) TRY(seq_push(r, out->seq, v->seq->at[i % unit]));
    return OK;
}

static status escaped(struct render *r, const struct val *v, struct text *out)
{
    *out = val_text(v);
    if (v->flag == STR_MARKUP) return OK;
    struct val s;
    size_t mark = text_begin(r);
    TRY(put_escaped(r, val_text(v)));
    TRY(text_end(r, mark, &s));
    *out = val_text(&s);
    return OK;
}

static status add(struct render *r, const struct val *a, const struct val *b, struct val *out)
{
    if (a->kind == V_STR && b->kind == V_STR) {
        struct text x = val_text(a), y = val_text(b);
        bool markup = a->flag == STR_MARKUP || b->flag == STR_MARKUP;
        if (markup) {
            TRY(escaped(r, a, &x));
            TRY(escaped(r, b, &y));
        }
        TRY(concat(r, x, y, out));
        out->flag = markup ? STR_MARKUP : 0;
        return OK;
    }
    if (a->kind == b->kind && (a->kind == V_LIST || a->kind == V_TUPLE)) {
        TRY(seq_new(r, a->kind, a->seq->n + b->seq->n, out));
        for (int64_t i = 0; i < a->seq->n; i++) TRY(seq_push(r, out->seq, a->seq->at[i]));
        for (int64_t i = 0; i < b->seq->n; i++) TRY(seq_push(r, out->seq, b->seq->at[i]));
        return OK;
    }
    return bad_operands(r, OP_ADD, a, b);
}

static bool repeatable(const struct val *v) { return v->kind == V_STR || v->kind == V_LIST || v->kind == V_TUPLE; }

status val_binary(struct render *r, enum op op, const struct val *a, const struct val *b, struct val *out)
{
    TRY(charge(r, 0));
    if (val_is_whole(a) && val_is_whole(b)) return int_binary(r, op, a->i, b->i, out);
    if (val_is_num(a) && val_is_num(b))
        return float_binary(r, op, a->kind == V_FLOAT ? a->f : (double)a->i, b->kind == V_FLOAT ? b->f : (double)b->i, out);
    if (op == OP_MOD && a->kind == V_STR) return format_percent(r, val_text(a), b, out);
    TRY(fail_undef(r, a));
    TRY(fail_undef(r, b));
    if (op == OP_ADD) return add(r, a, b, out);
    if (op == OP_MUL && repeatable(a) && val_is_whole(b)) return repeat(r, a, b->i, out);
    if (op == OP_MUL && repeatable(b) && val_is_whole(a)) return repeat(r, b, a->i, out);
    return bad_operands(r, op, a, b);
}

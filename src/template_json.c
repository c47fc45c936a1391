/* template_json - tojson and from_json. The text is that of Python's json.dumps(ensure_ascii=False), which Hugging Face's tojson calls; it
 * differs from the project's own JSON writer in separators, key order and number formatting. */
#include "src/template_int.h"
#include <stdio.h>
#include <string.h>

struct dump {
    struct render *r;
    struct text indent, item_sep, key_sep;
    bool pretty, ascii, sort;
    int depth;
};

static status put_string(const struct dump *d, struct text t)
{
    struct render *r = d->r;
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    char buf[16];
    TRY(put(r, "\"", 1));
    size_t start = 0;
    for (size_t i = 0, n; i <= t.n; i += n) {
        uint32_t c = 0;
        n = i < t.n ? (size_t)text_get(t.p + i, t.p + t.n, &c) : 1;
        if (i < t.n && c >= 0x20 && c != '"' && c != '\\' && (c < 0x80 || !d->ascii)) continue;
        TRY(put(r, t.p + start, i - start));
        start = i + n;
        if (i == t.n) break;
        const char *f = c && c < 0x80 ? strchr(from, (int)c) : NULL;
        int len = f             ? snprintf(buf, sizeof buf, "\\%c", to[f - from])
                  : c < 0x10000 ? snprintf(buf, sizeof buf, "\\u%04x", c)
                                : snprintf(buf, sizeof buf, "\\u%04x\\u%04x", 0xD7C0 + (c >> 10), 0xDC00 + (c & 0x3FF));
        TRY(put(r, buf, (size_t)len));
    }
    return put(r, "\"", 1);
}

static status put_newline(const struct dump *d)
{
    if (!d->pretty) return OK;
    TRY(put(d->r, "\n", 1));
    for (int i = 0; i < d->depth; i++) TRY(put_text(d->r, d->indent));
    return OK;
}

static status put_number(struct render *r, const struct val *v)
{
    char buf[40];
    if (v->kind != V_FLOAT) return put_val(r, v);
    size_t n = (size_t)float_repr(v->f, buf);
    if (buf[n - 1] == 'f') return put_text(r, buf[0] == '-' ? TEXT("-Infinity") : TEXT("Infinity"));
    return buf[0] == 'n' ? put_text(r, TEXT("NaN")) : put(r, buf, n);
}

static status put_scalar(const struct dump *d, const struct val *v)
{
    struct render *r = d->r;
    if (v->kind == V_NONE) return put_text(r, TEXT("null"));
    if (v->kind == V_BOOL) return put_text(r, v->i ? TEXT("true") : TEXT("false"));
    if (v->kind == V_INT || v->kind == V_FLOAT) return put_number(r, v);
    if (v->kind == V_STR) return put_string(d, val_text(v));
    TRY(fail_undef(r, v));
    return fail(r, "'%s' cannot be written as JSON", val_type_names[v->kind]);
}

static status put_key(const struct dump *d, const struct val *key)
{
    if (key->kind == V_STR) return put_string(d, val_text(key));
    if (key->kind != V_NONE && !val_is_num(key)) return fail(d->r, "'%s' cannot be the key of a JSON object", val_type_names[key->kind]);
    TRY(put(d->r, "\"", 1));
    TRY(put_scalar(d, key));
    return put(d->r, "\"", 1);
}

/* Entries in the order of their keys; insertion sort would be quadratic, so merge runs bottom-up. */
static status sorted_entries(struct render *r, const struct dict *dict, const struct entry **out)
{
    struct entry *a, *b;
    int64_t n = dict->n;
    TRY(heap_get(r, (size_t)n * sizeof *a, &a));
    TRY(heap_get(r, (size_t)n * sizeof *b, &b));
    memcpy(a, dict->at, (size_t)n * sizeof *a);
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t lo = 0; lo < n; lo += 2 * width) {
            int64_t mid = min_i64(lo + width, n), hi = min_i64(lo + 2 * width, n), i = lo, j = mid;
            for (int64_t k = lo; k < hi; k++) {
                int c = i >= mid ? 1 : -1;
                if (i < mid && j < hi) TRY(val_order(r, &a[i].key, &a[j].key, &c));
                b[k] = c <= 0 ? a[i++] : a[j++];
            }
        }
        struct entry *t = a;
        a = b;
        b = t;
    }
    *out = a;
    return OK;
}

static status put_value(struct dump *d, const struct val *v);

static status put_object(struct dump *d, const struct dict *dict)
{
    const struct entry *at = dict->at;
    if (d->sort && dict->n) TRY(sorted_entries(d->r, dict, &at));
    TRY(put(d->r, "{", 1));
    d->depth++;
    for (int64_t i = 0; i < dict->n; i++) {
        if (i) TRY(put_text(d->r, d->item_sep));
        TRY(put_newline(d));
        TRY(put_key(d, &at[i].key));
        TRY(put_text(d->r, d->key_sep));
        TRY(put_value(d, &at[i].value));
    }
    d->depth--;
    if (dict->n) TRY(put_newline(d));
    return put(d->r, "}", 1);
}

static status put_array(struct dump *d, const struct seq *s)
{
    TRY(put(d->r, "[", 1));
    d->depth++;
    for (int64_t i = 0; i < s->n; i++) {
        if (i) TRY(put_text(d->r, d->item_sep));
        TRY(put_newline(d));
        TRY(put_value(d, &s->at[i]));
    }
    d->depth--;
    if (s->n) TRY(put_newline(d));
    return put(d->r, "]", 1);
}

static status put_value(struct dump *d, const struct val *v)
{
    if (v->kind != V_DICT && v->kind != V_LIST && v->kind != V_TUPLE) return put_scalar(d, v);
    TRY(down(d->r));
    TRY(v->kind == V_DICT ? put_object(d, v->dict) : put_array(d, v->seq));
    d->r->frames--;
    return OK;
}

static status read_separators(struct render *r, const struct val *v, struct dump *d)
{
    if ((v->kind != V_TUPLE && v->kind != V_LIST) || v->seq->n != 2 || v->seq->at[0].kind != V_STR || v->seq->at[1].kind != V_STR)
        return fail(r, "tojson: separators must be a pair of strings");
    d->item_sep = val_text(&v->seq->at[0]);
    d->key_sep = val_text(&v->seq->at[1]);
    return OK;
}

/* tojson(ensure_ascii, indent, separators, sort_keys) */
status filter_tojson(struct render *r, struct call *c, struct val *out)
{
    struct dump d = { .r = r, .item_sep = TEXT(", "), .key_sep = TEXT(": ") };
    d.ascii = val_true(&c->arg[0]);
    d.sort = val_true(&c->arg[3]);
    if (given(&c->arg[1])) {
        static const char spaces[] = "                                ";
        d.pretty = true;
        d.item_sep = TEXT(",");
        d.indent = val_text(&c->arg[1]);
        if (c->arg[1].kind != V_STR) {
            int64_t n;
            TRY(want_int(r, &c->arg[1], "tojson: indent", &n));
            if (n > (int64_t)sizeof spaces - 1) return fail(r, "tojson: indent is %lld, limit %zu", (long long)n, sizeof spaces - 1);
            d.indent = (struct text){ spaces, n > 0 ? (size_t)n : 0 };
        }
    }
    if (given(&c->arg[2])) TRY(read_separators(r, &c->arg[2], &d));
    size_t mark = text_begin(r);
    TRY(put_value(&d, &c->self));
    return text_end(r, mark, out);
}

status filter_from_json(struct render *r, struct call *c, struct val *out)
{
    struct err e = { 0 };
    struct json *j;
    TRY(fail_undef(r, &c->self));
    if (c->self.kind != V_STR) return fail(r, "from_json needs a string, not '%s'", val_type_names[c->self.kind]);
    TRY(charge(r, c->self.n * 8));
    status st = json_parse(&j, c->self.p, c->self.n, &r->heap, "from_json", &e);
    if (st == ERR_MEMORY) return heap_fail(r, c->self.n);
    return st == OK ? val_from_json(r, j, 1, out) : fail(r, "%s", e.text);
}

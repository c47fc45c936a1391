/* template_filters - filters, tests and functions: three tables, one row each with name, parameters and function.
 * Filters that return many values give a generator as Jinja2 does: always true, without length, walked once.
 * Source: Jinja2 3.1 documentation, lists of builtin filters, tests and global functions; Hugging Face adds tojson, raise_exception and
 * strftime_now. */
#include "src/template_int.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- keys: what sort, unique, groupby, min, max, map and sum look at ---- */

struct key_rule {
    struct val attribute; /* V_ABSENT: the item itself; "a.b.0" or an index */
    struct val fallback;  /* for an undefined member; V_ABSENT: none */
    bool lower;           /* strings without regard to case */
    bool many;            /* "a,b": a list of keys */
};

static status path_part(struct render *r, struct text part, struct val *item)
{
    struct val key = val_str(part), v = *item;
    bool digits = part.n > 0 && part.n < 18;
    int64_t n = 0;
    for (size_t i = 0; i < part.n && digits; i++) {
        digits = part.p[i] >= '0' && part.p[i] <= '9';
        n = n * 10 + (part.p[i] - '0');
    }
    if (digits) key = val_int(n);
    return get_item(r, &v, &key, item);
}

static status path_get(struct render *r, const struct key_rule *k, struct text path, const struct val *item, struct val *out)
{
    *out = *item;
    for (bool more = true; more;) {
        const char *dot = path.n ? memchr(path.p, '.', path.n) : NULL;
        struct text part = { path.p, dot ? (size_t)(dot - path.p) : path.n };
        TRY(path_part(r, part, out));
        if (out->kind == V_UNDEF && given(&k->fallback)) *out = k->fallback;
        more = dot != NULL;
        if (more) path = (struct text){ dot + 1, path.n - part.n - 1 };
    }
    return OK;
}

static status lower_key(struct render *r, const struct key_rule *k, struct val *v)
{
    struct val s = *v;
    return k->lower && v->kind == V_STR ? text_case(r, val_text(&s), cp_lower, v) : OK;
}

static status key_get(struct render *r, const struct key_rule *k, const struct val *item, struct val *out)
{
    *out = *item;
    TRY(charge(r, 0));
    if (k->attribute.kind == V_STR && k->many) {
        struct text rest = val_text(&k->attribute);
        TRY(seq_new(r, V_LIST, 0, out));
        for (bool more = true; more;) {
            const char *comma = rest.n ? memchr(rest.p, ',', rest.n) : NULL;
            struct text path = { rest.p, comma ? (size_t)(comma - rest.p) : rest.n };
            struct val v;
            TRY(path_get(r, k, path, item, &v));
            TRY(lower_key(r, k, &v));
            TRY(seq_push(r, out->seq, v));
            more = comma != NULL;
            if (more) rest = (struct text){ comma + 1, rest.n - path.n - 1 };
        }
        return OK;
    }
    if (k->attribute.kind == V_STR) TRY(path_get(r, k, val_text(&k->attribute), item, out));
    else if (given(&k->attribute)) TRY(get_item(r, item, &k->attribute, out));
    if (out->kind == V_UNDEF && given(&k->attribute) && given(&k->fallback)) *out = k->fallback;
    return lower_key(r, k, out);
}

static struct key_rule key_rule(const struct val *attribute, const struct val *case_sensitive)
{
    return (struct key_rule){ .attribute = *attribute, .lower = !val_true(case_sensitive) };
}

struct keyed {
    struct val key, item;
};

/* Equal keys need no order: Python compares lists of keys, so that [none, none] sorts. */
static status order_keys(struct render *r, const struct val *a, const struct val *b, int *out)
{
    bool same;
    *out = 0;
    TRY(val_equal(r, a, b, &same));
    return same ? OK : val_order(r, a, b, out);
}

/* Stable merge sort, bottom-up. */
static status sort_keyed(struct render *r, struct keyed *a, int64_t n, bool reverse, struct keyed **sorted)
{
    struct keyed *b;
    TRY(heap_get(r, (size_t)n * sizeof *b, &b));
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t lo = 0; lo < n; lo += 2 * width) {
            int64_t mid = min_i64(lo + width, n), hi = min_i64(lo + 2 * width, n), i = lo, j = mid;
            for (int64_t k = lo; k < hi; k++) {
                int c = i >= mid ? 1 : 0;
                if (i < mid && j < hi) TRY(order_keys(r, &a[i].key, &a[j].key, &c));
                bool right = i >= mid || (j < hi && (reverse ? c == -1 : c == 1));
                b[k] = right ? a[j++] : a[i++];
            }
        }
        struct keyed *t = a;
        a = b;
        b = t;
    }
    *sorted = a;
    return OK;
}

static status sorted(struct render *r, const struct val *v, const struct key_rule *k, bool reverse, struct keyed **out, int64_t *n)
{
    struct val list;
    struct keyed *a;
    TRY(to_list(r, v, &list));
    *n = list.seq->n;
    TRY(heap_get(r, (size_t)*n * sizeof *a, &a));
    for (int64_t i = 0; i < *n; i++) {
        a[i].item = list.seq->at[i];
        TRY(key_get(r, k, &a[i].item, &a[i].key));
    }
    return sort_keyed(r, a, *n, reverse, out);
}

static status items_of(struct render *r, const struct keyed *a, int64_t n, struct val *out)
{
    TRY(seq_new(r, V_LIST, n, out));
    for (int64_t i = 0; i < n; i++) TRY(seq_push(r, out->seq, a[i].item));
    return OK;
}

static status f_sort(struct render *r, struct call *c, struct val *out)
{
    struct key_rule k = key_rule(&c->arg[2], &c->arg[1]);
    struct keyed *a;
    int64_t n;
    k.many = true;
    TRY(sorted(r, &c->self, &k, val_true(&c->arg[0]), &a, &n));
    return items_of(r, a, n, out);
}

static status f_dictsort(struct render *r, struct call *c, struct val *out)
{
    struct key_rule k = { .attribute = val_int(0), .lower = !val_true(&c->arg[0]) };
    struct keyed *a;
    struct val items;
    int64_t n;
    TRY(fail_undef(r, &c->self));
    if (c->self.kind != V_DICT) return fail(r, "dictsort needs a dict, not '%s'", val_type_names[c->self.kind]);
    if (c->arg[1].kind != V_ABSENT) {
        bool by_key = c->arg[1].kind == V_STR && text_is(val_text(&c->arg[1]), "key");
        if (!by_key && !(c->arg[1].kind == V_STR && text_is(val_text(&c->arg[1]), "value")))
            return fail(r, "dictsort: by must be 'key' or 'value'");
        k.attribute = val_int(!by_key);
    }
    TRY(dict_items(r, c->self.dict, V_LIST, &items));
    TRY(sorted(r, &items, &k, val_true(&c->arg[2]), &a, &n));
    return items_of(r, a, n, out);
}

static status f_groupby(struct render *r, struct call *c, struct val *out)
{
    struct key_rule k = key_rule(&c->arg[0], &c->arg[2]);
    struct keyed *a;
    struct val group, members = { 0 }, real;
    int64_t n;
    k.fallback = c->arg[1];
    TRY(sorted(r, &c->self, &k, false, &a, &n));
    k.lower = false;
    TRY(seq_new(r, V_LIST, 0, out));
    for (int64_t i = 0; i < n; i++) {
        bool same = false;
        if (i) TRY(val_equal(r, &a[i - 1].key, &a[i].key, &same));
        if (!same) { /* the group carries the key as its first member writes it */
            TRY(key_get(r, &k, &a[i].item, &real));
            TRY(seq_new(r, V_LIST, 0, &members));
            TRY(seq_new(r, V_TUPLE, 2, &group));
            group.seq->group = true;
            TRY(seq_push(r, group.seq, real));
            TRY(seq_push(r, group.seq, members));
            TRY(seq_push(r, out->seq, group));
        }
        TRY(seq_push(r, members.seq, a[i].item));
    }
    return OK;
}

static status f_unique(struct render *r, struct call *c, struct val *out)
{
    struct key_rule k = key_rule(&c->arg[1], &c->arg[0]);
    struct val seen, item, key;
    struct iter it;
    struct entry *en;
    TRY(iter_begin(r, &c->self, &it));
    TRY(dict_new(r, V_DICT, 0, &seen));
    TRY(seq_new(r, V_GEN, 0, out));
    while (iter_next(&it, &item)) {
        TRY(key_get(r, &k, &item, &key));
        TRY(dict_find(r, seen.dict, &key, &en));
        if (en) continue;
        TRY(dict_set(r, seen.dict, key, val_none()));
        TRY(seq_push(r, out->seq, item));
    }
    return OK;
}

static status extreme(struct render *r, struct call *c, int want, struct val *out)
{
    struct key_rule k = key_rule(&c->arg[1], &c->arg[0]);
    struct val item, key, best;
    struct iter it;
    TRY(iter_begin(r, &c->self, &it));
    *out = val_undef(UNDEF_HINT, TEXT("the sequence was empty"));
    for (bool first = true; iter_next(&it, &item); first = false) {
        int order = want;
        TRY(key_get(r, &k, &item, &key));
        if (!first) TRY(val_order(r, &key, &best, &order));
        if (order != want) continue;
        best = key;
        *out = item;
    }
    return OK;
}

static status f_min(struct render *r, struct call *c, struct val *out) { return extreme(r, c, -1, out); }
static status f_max(struct render *r, struct call *c, struct val *out) { return extreme(r, c, 1, out); }

static status f_sum(struct render *r, struct call *c, struct val *out)
{
    struct key_rule k = { .attribute = c->arg[0] };
    struct val item, v, total = c->arg[1].kind == V_ABSENT ? val_int(0) : c->arg[1];
    struct iter it;
    TRY(iter_begin(r, &c->self, &it));
    while (iter_next(&it, &item)) {
        struct val before = total;
        TRY(key_get(r, &k, &item, &v));
        TRY(val_binary(r, OP_ADD, &before, &v, &total));
    }
    *out = total;
    return OK;
}

/* ---- map, select, reject ---- */

static status want_name(struct render *r, const struct val *v, struct text *out)
{
    *out = TEXT("");
    if (v->kind != V_STR) return fail(r, "a name must be a string, not '%s'", val_type_names[v->kind]);
    *out = val_text(v);
    return OK;
}

static status find_row(struct render *r, const struct val *name, bool filter, const struct builtin **out)
{
    struct text t;
    TRY(want_name(r, name, &t));
    *out = filter ? template_filter(t) : template_test(t);
    return *out ? OK : fail(r, "unknown %s '%.*s'", filter ? "filter" : "test", t.n > 60 ? 60 : (int)t.n, t.p);
}

/* Runs a filter or test on one item with the arguments behind the first `skip`. */
static status apply(struct render *r, const struct builtin *row, const struct call *c, int skip, const struct val *item, struct val *out)
{
    struct call inner = { .self = *item, .pos = c->pos + skip, .n_pos = c->n_pos - skip, .kw = c->kw, .n_kw = c->n_kw };
    TRY(down(r)); /* map('map', ...) nests */
    TRY(call_row(r, row, &inner, out));
    r->frames--;
    return OK;
}

static status map_attribute(struct render *r, struct call *c, struct val *out)
{
    struct key_rule k = { 0 };
    struct val item, v;
    struct iter it;
    for (int i = 0; i < c->n_kw; i++) {
        struct text name = val_text(&c->kw[2 * i]);
        if (text_is(name, "attribute")) k.attribute = c->kw[2 * i + 1];
        else if (text_is(name, "default")) k.fallback = c->kw[2 * i + 1];
        else return fail(r, "'map' has no argument '%.*s'", (int)name.n, name.p);
    }
    if (k.attribute.kind == V_ABSENT) return fail(r, "'map' needs the name of a filter or attribute=...");
    TRY(iter_begin(r, &c->self, &it));
    while (iter_next(&it, &item)) {
        TRY(key_get(r, &k, &item, &v));
        TRY(seq_push(r, out->seq, v));
    }
    return OK;
}

static status f_map(struct render *r, struct call *c, struct val *out)
{
    const struct builtin *row;
    struct val item, v;
    struct iter it;
    TRY(seq_new(r, V_GEN, 0, out));
    if (!val_true(&c->self)) return OK;
    if (c->n_pos == 0) return map_attribute(r, c, out);
    TRY(find_row(r, &c->pos[0], true, &row));
    TRY(iter_begin(r, &c->self, &it));
    while (iter_next(&it, &item)) {
        TRY(apply(r, row, c, 1, &item, &v));
        TRY(seq_push(r, out->seq, v));
    }
    return OK;
}

static status choose(struct render *r, struct call *c, bool attr, bool keep, struct val *out)
{
    const struct builtin *row = NULL;
    struct key_rule k = { 0 };
    struct val item, v, result;
    struct iter it;
    int skip = attr ? 1 : 0;
    TRY(seq_new(r, V_GEN, 0, out));
    if (!val_true(&c->self)) return OK;
    if (c->n_pos < skip) return fail(r, "the name of an attribute is missing");
    if (attr) k.attribute = c->pos[0];
    if (c->n_pos > skip) TRY(find_row(r, &c->pos[skip], false, &row));
    TRY(iter_begin(r, &c->self, &it));
    while (iter_next(&it, &item)) {
        TRY(key_get(r, &k, &item, &v));
        result = v;
        if (row) TRY(apply(r, row, c, skip + 1, &v, &result));
        if (val_true(&result) == keep) TRY(seq_push(r, out->seq, item));
    }
    return OK;
}

static status f_select(struct render *r, struct call *c, struct val *out) { return choose(r, c, false, true, out); }
static status f_reject(struct render *r, struct call *c, struct val *out) { return choose(r, c, false, false, out); }
static status f_selectattr(struct render *r, struct call *c, struct val *out) { return choose(r, c, true, true, out); }
static status f_rejectattr(struct render *r, struct call *c, struct val *out) { return choose(r, c, true, false, out); }

/* ---- sequences ---- */

static status f_length(struct render *r, struct call *c, struct val *out)
{
    int64_t n;
    TRY(val_length(r, &c->self, &n));
    *out = val_int(n);
    return OK;
}

static status f_list(struct render *r, struct call *c, struct val *out) { return to_list(r, &c->self, out); }

static status f_items(struct render *r, struct call *c, struct val *out)
{
    if (c->self.kind == V_UNDEF) return seq_new(r, V_GEN, 0, out);
    if (c->self.kind != V_DICT) return fail(r, "'items' needs a dict, not '%s'", val_type_names[c->self.kind]);
    return dict_items(r, c->self.dict, V_GEN, out);
}

static status f_first(struct render *r, struct call *c, struct val *out)
{
    if (c->self.kind == V_GEN) { /* takes one item only */
        struct seq *s = c->self.seq;
        *out = s->n ? s->at[0] : val_undef(UNDEF_HINT, TEXT("no first item, the sequence was empty"));
        if (s->n) *s = (struct seq){ .n = s->n - 1, .at = s->at + 1 };
        return OK;
    }
    struct iter it;
    TRY(iter_begin(r, &c->self, &it));
    if (!iter_next(&it, out)) *out = val_undef(UNDEF_HINT, TEXT("no first item, the sequence was empty"));
    return OK;
}

static status f_last(struct render *r, struct call *c, struct val *out)
{
    struct val list;
    if (c->self.kind == V_GEN) return fail(r, "'last' needs a sequence, not a generator: use 'list' before it");
    TRY(to_list(r, &c->self, &list));
    int64_t n = list.seq->n;
    *out = n ? list.seq->at[n - 1] : val_undef(UNDEF_HINT, TEXT("no last item, the sequence was empty"));
    return OK;
}

static status f_reverse(struct render *r, struct call *c, struct val *out)
{
    struct val list;
    TRY(to_list(r, &c->self, &list));
    size_t mark = text_begin(r);
    if (c->self.kind != V_STR) TRY(seq_new(r, c->self.kind == V_GEN ? V_LIST : V_GEN, list.seq->n, out));
    for (int64_t i = list.seq->n - 1; i >= 0; i--) {
        if (c->self.kind == V_STR) TRY(put_val(r, &list.seq->at[i]));
        else TRY(seq_push(r, out->seq, list.seq->at[i]));
    }
    return c->self.kind == V_STR ? text_end(r, mark, out) : OK;
}

static status f_join(struct render *r, struct call *c, struct val *out)
{
    struct key_rule k = { .attribute = c->arg[1] };
    struct val item, v;
    struct iter it;
    struct text sep;
    TRY(to_text(r, &c->arg[0], &sep));
    TRY(iter_begin(r, &c->self, &it));
    size_t mark = text_begin(r);
    for (bool first = true; iter_next(&it, &item); first = false) {
        if (!first) TRY(put_text(r, sep));
        TRY(key_get(r, &k, &item, &v));
        TRY(put_val(r, &v));
    }
    return text_end(r, mark, out);
}

static status f_batch(struct render *r, struct call *c, struct val *out)
{
    int64_t size;
    struct val item, row = { 0 };
    struct iter it;
    TRY(want_int(r, &c->arg[0], "batch size", &size));
    TRY(iter_begin(r, &c->self, &it));
    TRY(seq_new(r, V_GEN, 0, out));
    while (iter_next(&it, &item)) {
        if (row.kind == V_ABSENT || row.seq->n == size) {
            TRY(seq_new(r, V_LIST, 0, &row));
            TRY(seq_push(r, out->seq, row));
        }
        TRY(seq_push(r, row.seq, item));
    }
    while (row.kind == V_LIST && given(&c->arg[1]) && row.seq->n < size) TRY(seq_push(r, row.seq, c->arg[1]));
    return OK;
}

static status f_slice(struct render *r, struct call *c, struct val *out)
{
    int64_t slices, at = 0;
    struct val list, row;
    TRY(want_int(r, &c->arg[0], "number of slices", &slices));
    TRY(to_list(r, &c->self, &list));
    if (slices <= 0) return slices ? seq_new(r, V_GEN, 0, out) : fail(r, "division by zero");
    TRY(seq_new(r, V_GEN, 0, out));
    for (int64_t i = 0; i < slices; i++) {
        int64_t n = list.seq->n / slices + (i < list.seq->n % slices);
        TRY(seq_new(r, V_LIST, 0, &row));
        for (int64_t k = 0; k < n; k++) TRY(seq_push(r, row.seq, list.seq->at[at++]));
        if (given(&c->arg[1]) && i >= list.seq->n % slices) TRY(seq_push(r, row.seq, c->arg[1]));
        TRY(seq_push(r, out->seq, row));
    }
    return OK;
}

static status f_attr(struct render *r, struct call *c, struct val *out)
{
    struct text name;
    TRY(want_name(r, &c->arg[0], &name));
    if (c->self.kind == V_DICT && !template_method(V_DICT, name)) {
        *out = val_undef(UNDEF_MEMBER + V_DICT, name);
        return OK;
    }
    return get_attr(r, &c->self, name, out);
}

/* ---- text ---- */

static status f_string(struct render *r, struct call *c, struct val *out)
{
    struct text t;
    TRY(to_text(r, &c->self, &t));
    int flag = c->self.kind == V_STR ? c->self.flag : 0;
    *out = val_str(t);
    out->flag = flag;
    return OK;
}

static status f_upper(struct render *r, struct call *c, struct val *out)
{
    struct text t;
    TRY(to_text(r, &c->self, &t));
    return text_case(r, t, cp_upper, out);
}

static status f_lower(struct render *r, struct call *c, struct val *out)
{
    struct text t;
    TRY(to_text(r, &c->self, &t));
    return text_case(r, t, cp_lower, out);
}

static status f_capitalize(struct render *r, struct call *c, struct val *out)
{
    struct text t;
    TRY(to_text(r, &c->self, &t));
    return text_capitalize(r, t, out);
}

static status f_title(struct render *r, struct call *c, struct val *out)
{
    struct text t;
    bool inside = false;
    TRY(to_text(r, &c->self, &t));
    size_t mark = text_begin(r);
    for (size_t i = 0; i < t.n;) {
        uint32_t cp;
        i += (size_t)text_get(t.p + i, t.p + t.n, &cp);
        TRY(put_cp(r, inside ? cp_lower(cp) : cp_upper(cp)));
        inside = !(cp_is_space(cp) || cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<');
    }
    return text_end(r, mark, out);
}

static status f_trim(struct render *r, struct call *c, struct val *out)
{
    struct text t;
    TRY(to_text(r, &c->self, &t));
    return text_trim(r, t, &c->arg[0], true, true, out);
}

static status f_replace(struct render *r, struct call *c, struct val *out)
{
    struct text t, old, with;
    int64_t limit = -1;
    TRY(to_text(r, &c->self, &t));
    TRY(to_text(r, &c->arg[0], &old));
    TRY(to_text(r, &c->arg[1], &with));
    if (given(&c->arg[2])) TRY(want_int(r, &c->arg[2], "count", &limit));
    return text_replace(r, t, old, with, limit, out);
}

static status f_center(struct render *r, struct call *c, struct val *out)
{
    struct text t;
    int64_t width = 80;
    TRY(to_text(r, &c->self, &t));
    if (c->arg[0].kind != V_ABSENT) TRY(want_int(r, &c->arg[0], "width", &width));
    return text_center(r, t, width, out);
}

static status f_indent(struct render *r, struct call *c, struct val *out)
{
    struct text rest, line, indent = TEXT("    ");
    struct val four = val_int(4), space = val_str(TEXT(" ")), spaces;
    bool first = val_true(&c->arg[1]), blank = val_true(&c->arg[2]), extra = true;
    TRY(fail_undef(r, &c->self));
    TRY(want_name(r, &c->self, &rest));
    if (c->arg[0].kind == V_STR) indent = val_text(&c->arg[0]);
    else {
        const struct val *width = c->arg[0].kind == V_ABSENT ? &four : &c->arg[0];
        TRY(val_binary(r, OP_MUL, &space, width, &spaces));
        indent = val_text(&spaces);
    }
    size_t mark = text_begin(r);
    if (first) TRY(put_text(r, indent));
    for (int64_t n = 0; extra || rest.n; n++) {
        char last = rest.n ? rest.p[rest.n - 1] : '\n';
        extra = last == '\n'; /* text that ends with a newline has one more, empty, line */
        if (!text_line(&rest, &line)) {
            line = TEXT("");
            extra = false;
        }
        if (n) TRY(put(r, "\n", 1));
        if (n && (blank || line.n)) TRY(put_text(r, indent));
        TRY(put_text(r, line));
    }
    return text_end(r, mark, out);
}

static status f_truncate(struct render *r, struct call *c, struct val *out)
{
    struct text t, end = TEXT("...");
    int64_t length = 255, leeway = 5;
    int64_t n;
    if (c->arg[0].kind != V_ABSENT) TRY(want_int(r, &c->arg[0], "length", &length));
    if (c->arg[2].kind != V_ABSENT) TRY(want_name(r, &c->arg[2], &end));
    if (given(&c->arg[3])) TRY(want_int(r, &c->arg[3], "leeway", &leeway));
    if (length < text_length(end) || leeway < 0) return fail(r, "truncate: length is below that of its end, or leeway below 0");
    *out = c->self;
    TRY(val_length(r, &c->self, &n));
    if (n - leeway <= length) return OK; /* whatever it is */
    TRY(want_name(r, &c->self, &t));
    t.n = text_offset(t, length - text_length(end));
    for (size_t i = t.n; !val_true(&c->arg[1]) && i > 0; i--)
        if (t.p[i - 1] == ' ') {
            t.n = i - 1;
            break;
        }
    struct val head = val_str(t), tail = val_str(end);
    return val_binary(r, OP_ADD, &head, &tail, out);
}

static status f_wordcount(struct render *r, struct call *c, struct val *out)
{
    struct text t;
    int64_t n = 0;
    bool inside = false;
    TRY(to_text(r, &c->self, &t));
    TRY(charge_chars(r, t.n));
    for (size_t i = 0; i < t.n;) {
        uint32_t cp;
        i += (size_t)text_get(t.p + i, t.p + t.n, &cp);
        bool word = cp_is_alpha(cp) || cp == '_' || (cp >= '0' && cp <= '9');
        n += word && !inside;
        inside = word;
    }
    *out = val_int(n);
    return OK;
}

static status f_safe(struct render *r, struct call *c, struct val *out)
{
    TRY(f_string(r, c, out));
    out->flag = STR_MARKUP;
    return OK;
}

static status f_forceescape(struct render *r, struct call *c, struct val *out)
{
    struct text t;
    TRY(to_text(r, &c->self, &t));
    size_t mark = text_begin(r);
    TRY(put_escaped(r, t));
    TRY(text_end(r, mark, out));
    out->flag = STR_MARKUP;
    return OK;
}

static status f_escape(struct render *r, struct call *c, struct val *out)
{
    return c->self.kind == V_STR && c->self.flag == STR_MARKUP ? f_string(r, c, out) : f_forceescape(r, c, out);
}

/* ---- values and numbers ---- */

static status f_default(struct render *r, struct call *c, struct val *out)
{
    bool replace = c->self.kind == V_UNDEF || (val_true(&c->arg[1]) && !val_true(&c->self));
    *out = !replace ? c->self : c->arg[0].kind == V_ABSENT ? val_str(TEXT("")) : c->arg[0];
    return charge(r, 0);
}

/* Digits and sign as Python's int() and float() read them: white space around, single underscores inside. *out NUL-terminated. */
static bool clean_number(struct text t, char *out, size_t cap)
{
    size_t n = 0;
    t = text_strip(t, true, true);
    for (size_t i = 0; i < t.n; i++) {
        char c = t.p[i];
        if (c == '_') {
            if (i == 0 || i + 1 == t.n || t.p[i - 1] == '_') return false;
            continue;
        }
        if (n + 1 >= cap || !c || !strchr("+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", c)) return false;
        out[n++] = c;
    }
    out[n] = 0;
    return n > 0;
}

static bool read_float(struct text t, double *out)
{
    char buf[400], *end;
    if (!clean_number(t, buf, sizeof buf) || strpbrk(buf, "xXpP")) return false;
    *out = strtod(buf, &end);
    return *end == 0;
}

static status read_int(struct render *r, struct text t, int64_t base, bool *ok, int64_t *out)
{
    char buf[100];
    *ok = false;
    if (!clean_number(t, buf, sizeof buf)) return OK;
    const char *p = buf + (*buf == '-' || *buf == '+');
    int implied = p[0] != '0' ? 0 : (p[1] | 32) == 'x' ? 16 : (p[1] | 32) == 'o' ? 8 : (p[1] | 32) == 'b' ? 2 : 0;
    if (implied && (base == implied || base == 0)) {
        p += 2;
        base = implied;
    }
    if (base == 0) base = 10;
    uint64_t v = 0;
    if (!*p) return OK;
    for (; *p; p++) {
        int d = *p >= '0' && *p <= '9' ? *p - '0' : (*p | 32) >= 'a' && (*p | 32) <= 'z' ? (*p | 32) - 'a' + 10 : 99;
        if (d >= base) return OK;
        if (v > (UINT64_C(1) << 63) / (uint64_t)base) return fail(r, "integer does not fit into 64 bits");
        v = v * (uint64_t)base + (uint64_t)d;
    }
    if (v > (UINT64_C(1) << 63) - (*buf != '-')) return fail(r, "integer does not fit into 64 bits");
    *out = *buf == '-' ? (int64_t)(0 - v) : (int64_t)v;
    *ok = true;
    return OK;
}

static status float_to_int(struct render *r, double f, const struct val *fallback, struct val *out)
{
    *out = fallback->kind == V_ABSENT ? val_int(0) : *fallback;
    if (!isfinite(f)) return OK;
    if (f >= 0x1p63 || f < -0x1p63) return fail(r, "integer does not fit into 64 bits");
    *out = val_int((int64_t)f);
    return OK;
}

static status f_int(struct render *r, struct call *c, struct val *out)
{
    int64_t base = 10, i;
    double f = NAN;
    TRY(fail_undef(r, &c->self));
    if (c->arg[1].kind != V_ABSENT) TRY(want_int(r, &c->arg[1], "base", &base));
    if (base != 0 && (base < 2 || base > 36)) return fail(r, "base must be 0 or 2 to 36");
    if (val_is_whole(&c->self)) {
        *out = val_int(c->self.i);
        return OK;
    }
    if (c->self.kind == V_FLOAT) return float_to_int(r, c->self.f, &c->arg[0], out);
    if (c->self.kind == V_STR) {
        bool ok;
        TRY(read_int(r, val_text(&c->self), base, &ok, &i));
        if (ok) {
            *out = val_int(i);
            return OK;
        }
        if (!read_float(val_text(&c->self), &f)) f = NAN;
    }
    return float_to_int(r, f, &c->arg[0], out);
}

static status f_float(struct render *r, struct call *c, struct val *out)
{
    double f;
    TRY(fail_undef(r, &c->self));
    if (c->self.kind == V_FLOAT) *out = c->self;
    else if (val_is_whole(&c->self)) *out = val_float((double)c->self.i);
    else if (c->self.kind == V_STR && read_float(val_text(&c->self), &f)) *out = val_float(f);
    else *out = c->arg[0].kind == V_ABSENT ? val_float(0) : c->arg[0];
    return OK;
}

static status want_num(struct render *r, const struct val *v, double *out)
{
    *out = 0;
    TRY(fail_undef(r, v));
    if (!val_is_num(v)) return fail(r, "a number is needed, not '%s'", val_type_names[v->kind]);
    *out = v->kind == V_FLOAT ? v->f : (double)v->i;
    return OK;
}

static status f_abs(struct render *r, struct call *c, struct val *out)
{
    double f;
    TRY(want_num(r, &c->self, &f));
    *out = c->self.kind == V_FLOAT ? val_float(fabs(f)) : val_int(c->self.i);
    if (out->kind == V_INT && out->i == INT64_MIN) return fail(r, "result of abs does not fit into 64 bits");
    if (out->kind == V_INT && out->i < 0) out->i = -out->i;
    return OK;
}

static status f_round(struct render *r, struct call *c, struct val *out)
{
    int64_t digits = 0;
    double f;
    struct text method = TEXT("common");
    TRY(want_num(r, &c->self, &f));
    if (c->arg[0].kind != V_ABSENT) TRY(want_int(r, &c->arg[0], "precision", &digits));
    if (c->arg[1].kind != V_ABSENT) TRY(want_name(r, &c->arg[1], &method));
    bool ceiling = text_is(method, "ceil"), flooring = text_is(method, "floor"), common = text_is(method, "common");
    if (!ceiling && !flooring && !common) return fail(r, "round: method must be common, ceil or floor");
    if (digits < -20 || digits > 100) return fail(r, "round: precision is %lld, limits -20 and 100", (long long)digits);
    if (common && val_is_whole(&c->self) && digits >= 0) {
        *out = val_int(c->self.i);
        return OK;
    }
    if (common && digits >= 0 && isfinite(f)) { /* the decimal text is rounded exactly, half to even, as Python does */
        char buf[512];
        snprintf(buf, sizeof buf, "%.*f", (int)digits, f);
        *out = val_float(strtod(buf, NULL));
        return OK;
    }
    double scale = pow(10, (double)digits), v = f * scale;
    v = ceiling ? ceil(v) : flooring ? floor(v) : nearbyint(v);
    *out = common && val_is_whole(&c->self) ? val_int((int64_t)(v / scale)) : val_float(isfinite(f) ? v / scale : f);
    return OK;
}

/* ---- tests ---- */

static status compare_test(struct render *r, struct call *c, enum op op, struct val *out)
{
    bool yes;
    TRY(val_compare(r, op, &c->self, &c->arg[0], &yes));
    *out = val_bool(yes);
    return OK;
}

static status t_eq(struct render *r, struct call *c, struct val *out) { return compare_test(r, c, OP_EQ, out); }
static status t_ne(struct render *r, struct call *c, struct val *out) { return compare_test(r, c, OP_NE, out); }
static status t_lt(struct render *r, struct call *c, struct val *out) { return compare_test(r, c, OP_LT, out); }
static status t_le(struct render *r, struct call *c, struct val *out) { return compare_test(r, c, OP_LE, out); }
static status t_gt(struct render *r, struct call *c, struct val *out) { return compare_test(r, c, OP_GT, out); }
static status t_ge(struct render *r, struct call *c, struct val *out) { return compare_test(r, c, OP_GE, out); }
static status t_in(struct render *r, struct call *c, struct val *out) { return compare_test(r, c, OP_IN, out); }

static status remainder_is(struct render *r, const struct val *v, struct val by, int64_t want, struct val *out)
{
    struct val m, w = val_int(want);
    bool same;
    TRY(val_binary(r, OP_MOD, v, &by, &m));
    TRY(val_equal(r, &m, &w, &same));
    *out = val_bool(same);
    return OK;
}

static status t_odd(struct render *r, struct call *c, struct val *out) { return remainder_is(r, &c->self, val_int(2), 1, out); }
static status t_even(struct render *r, struct call *c, struct val *out) { return remainder_is(r, &c->self, val_int(2), 0, out); }
static status t_divisibleby(struct render *r, struct call *c, struct val *out) { return remainder_is(r, &c->self, c->arg[0], 0, out); }

/* Tests of the kind alone: one bit per kind that passes. */
static status kind_is(const struct call *c, unsigned kinds, struct val *out)
{
    *out = val_bool(kinds >> c->self.kind & 1);
    return OK;
}

static status t_defined(struct render *r, struct call *c, struct val *out) { return kind_is(c, ~(1u << V_UNDEF), out); }
static status t_undefined(struct render *r, struct call *c, struct val *out) { return kind_is(c, 1u << V_UNDEF, out); }
static status t_none(struct render *r, struct call *c, struct val *out) { return kind_is(c, 1u << V_NONE, out); }
static status t_boolean(struct render *r, struct call *c, struct val *out) { return kind_is(c, 1u << V_BOOL, out); }
static status t_integer(struct render *r, struct call *c, struct val *out) { return kind_is(c, 1u << V_INT, out); }
static status t_float(struct render *r, struct call *c, struct val *out) { return kind_is(c, 1u << V_FLOAT, out); }
static status t_number(struct render *r, struct call *c, struct val *out)
{
    return kind_is(c, 1u << V_BOOL | 1u << V_INT | 1u << V_FLOAT, out);
}
static status t_string(struct render *r, struct call *c, struct val *out) { return kind_is(c, 1u << V_STR, out); }
static status t_mapping(struct render *r, struct call *c, struct val *out) { return kind_is(c, 1u << V_DICT, out); }

static status t_sequence(struct render *r, struct call *c, struct val *out)
{
    return kind_is(c, 1u << V_UNDEF | 1u << V_STR | 1u << V_LIST | 1u << V_TUPLE | 1u << V_RANGE | 1u << V_DICT, out);
}

static status t_iterable(struct render *r, struct call *c, struct val *out)
{
    unsigned seqs = 1u << V_LIST | 1u << V_TUPLE | 1u << V_RANGE | 1u << V_VIEW | 1u << V_GEN;
    return kind_is(c, 1u << V_UNDEF | 1u << V_STR | 1u << V_DICT | seqs, out);
}

static status t_callable(struct render *r, struct call *c, struct val *out)
{
    return kind_is(c, 1u << V_UNDEF | 1u << V_MACRO | 1u << V_FUNC | 1u << V_METHOD | 1u << V_LOOP | 1u << V_JOINER, out);
}

static status t_true(struct render *r, struct call *c, struct val *out)
{
    *out = val_bool(c->self.kind == V_BOOL && c->self.i);
    return OK;
}

static status t_false(struct render *r, struct call *c, struct val *out)
{
    *out = val_bool(c->self.kind == V_BOOL && !c->self.i);
    return OK;
}

static status t_escaped(struct render *r, struct call *c, struct val *out)
{
    *out = val_bool(c->self.kind == V_STR && c->self.flag == STR_MARKUP);
    return OK;
}

static status cased_test(struct render *r, struct call *c, bool upper, struct val *out)
{
    struct text t;
    TRY(to_text(r, &c->self, &t));
    *out = val_bool(text_cased(t, upper));
    return charge_chars(r, t.n);
}

static status t_lower(struct render *r, struct call *c, struct val *out) { return cased_test(r, c, false, out); }
static status t_upper(struct render *r, struct call *c, struct val *out) { return cased_test(r, c, true, out); }

/* Identity: by value for what Python keeps one copy of, by object for containers. */
static status t_sameas(struct render *r, struct call *c, struct val *out)
{
    const struct val *a = &c->self, *b = &c->arg[0];
    bool same = a->kind == b->kind;
    if (same && (val_is_seq(a) || a->kind >= V_DICT)) same = a->p == b->p;
    else if (same) TRY(val_equal(r, a, b, &same));
    *out = val_bool(same);
    return OK;
}

static status t_filter(struct render *r, struct call *c, struct val *out)
{
    *out = val_bool(c->self.kind == V_STR && template_filter(val_text(&c->self)));
    return OK;
}

static status t_test(struct render *r, struct call *c, struct val *out)
{
    *out = val_bool(c->self.kind == V_STR && template_test(val_text(&c->self)));
    return OK;
}

/* ---- functions ---- */

static status g_range(struct render *r, struct call *c, struct val *out)
{
    int64_t a[3] = { 0, 0, 1 };
    int n = c->n_pos;
    if (n < 1 || n > 3 || c->n_kw) return fail(r, "'range' takes 1 to 3 arguments");
    for (int i = 0; i < n; i++) TRY(want_int(r, &c->pos[i], "range argument", &a[n == 1 ? 1 : i]));
    if (a[2] == 0) return fail(r, "range step is 0");
    uint64_t span = a[2] > 0 ? (a[1] > a[0] ? (uint64_t)a[1] - (uint64_t)a[0] : 0) : (a[0] > a[1] ? (uint64_t)a[0] - (uint64_t)a[1] : 0);
    uint64_t step = a[2] > 0 ? (uint64_t)a[2] : 0 - (uint64_t)a[2], count = span / step + (span % step != 0);
    if (count > TEMPLATE_RANGE) return fail(r, "range of %llu numbers, limit %d", (unsigned long long)count, TEMPLATE_RANGE);
    TRY(seq_new(r, V_RANGE, (int64_t)count, out));
    for (uint64_t i = 0; i < count; i++) TRY(seq_push(r, out->seq, val_int((int64_t)((uint64_t)a[0] + i * (uint64_t)a[2]))));
    char buf[80];
    int len = a[2] == 1 ? snprintf(buf, sizeof buf, "range(%lld, %lld)", (long long)a[0], (long long)a[1])
                        : snprintf(buf, sizeof buf, "range(%lld, %lld, %lld)", (long long)a[0], (long long)a[1], (long long)a[2]);
    struct val label;
    size_t mark = text_begin(r);
    TRY(put(r, buf, (size_t)len));
    TRY(text_end(r, mark, &label));
    out->seq->label = val_text(&label);
    return OK;
}

/* dict(...) and namespace(...): a mapping or pairs, then keywords */
static status make_dict(struct render *r, struct call *c, enum val_kind kind, struct val *out)
{
    TRY(dict_new(r, kind, 0, out));
    struct dict *d = out->dict;
    if (c->n_pos > 1) return fail(r, "'dict' takes 1 argument at most, not %d", c->n_pos);
    if (c->n_pos && c->pos[0].kind == V_DICT) {
        for (int64_t i = 0; i < c->pos[0].dict->n; i++) TRY(dict_set(r, d, c->pos[0].dict->at[i].key, c->pos[0].dict->at[i].value));
    } else if (c->n_pos) {
        struct iter it;
        struct val pair, key, v, list;
        TRY(iter_begin(r, &c->pos[0], &it));
        while (iter_next(&it, &pair)) {
            TRY(to_list(r, &pair, &list));
            if (list.seq->n != 2) return fail(r, "'dict' needs pairs, not %lld items", (long long)list.seq->n);
            key = list.seq->at[0];
            v = list.seq->at[1];
            TRY(dict_set(r, d, key, v));
        }
    }
    for (int i = 0; i < c->n_kw; i++) TRY(dict_set(r, d, c->kw[2 * i], c->kw[2 * i + 1]));
    return OK;
}

static status g_dict(struct render *r, struct call *c, struct val *out) { return make_dict(r, c, V_DICT, out); }
static status g_namespace(struct render *r, struct call *c, struct val *out) { return make_dict(r, c, V_NAMESPACE, out); }

static status make_cycler(struct render *r, enum val_kind kind, struct val *out)
{
    struct val items;
    struct cycler *y;
    TRY(seq_new(r, V_LIST, 0, &items));
    TRY(heap_get(r, sizeof *y, &y));
    *y = (struct cycler){ items.seq, 0 };
    *out = (struct val){ .kind = kind, .cycler = y };
    return OK;
}

static status g_cycler(struct render *r, struct call *c, struct val *out)
{
    if (c->n_pos == 0) return fail(r, "'cycler' needs at least one item");
    TRY(make_cycler(r, V_CYCLER, out));
    for (int i = 0; i < c->n_pos; i++) TRY(seq_push(r, out->cycler->items, c->pos[i]));
    return OK;
}

static status g_joiner(struct render *r, struct call *c, struct val *out)
{
    TRY(make_cycler(r, V_JOINER, out));
    return seq_push(r, out->cycler->items, c->arg[0].kind == V_ABSENT ? val_str(TEXT(", ")) : c->arg[0]);
}

static status g_raise_exception(struct render *r, struct call *c, struct val *out)
{
    struct text t;
    TRY(to_text(r, &c->arg[0], &t));
    return err_set(r->e, ERR_USAGE, "%.*s", t.n > 230 ? 230 : (int)t.n, t.p);
}

static const char *const day_names[] = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" };
static const char *const month_names[] = { "January", "February", "March",     "April",   "May",      "June",
                                           "July",    "August",   "September", "October", "November", "December" };

/* One strftime code into buf; 0 when it is not known. Names are English: no locale takes part. */
static int time_code(const struct tm *t, char code, bool pad, char buf[64])
{
    const char *two = pad ? "%02d" : "%d";
    int hour12 = t->tm_hour % 12 ? t->tm_hour % 12 : 12;
    switch (code) {
    case 'Y': return snprintf(buf, 64, "%04d", t->tm_year + 1900);
    case 'y': return snprintf(buf, 64, two, t->tm_year % 100);
    case 'm': return snprintf(buf, 64, two, t->tm_mon + 1);
    case 'd': return snprintf(buf, 64, two, t->tm_mday);
    case 'e': return snprintf(buf, 64, "%2d", t->tm_mday);
    case 'H': return snprintf(buf, 64, two, t->tm_hour);
    case 'I': return snprintf(buf, 64, two, hour12);
    case 'M': return snprintf(buf, 64, two, t->tm_min);
    case 'S': return snprintf(buf, 64, two, t->tm_sec);
    case 'j': return snprintf(buf, 64, pad ? "%03d" : "%d", t->tm_yday + 1);
    case 'p': return snprintf(buf, 64, "%s", t->tm_hour < 12 ? "AM" : "PM");
    case 'B': return snprintf(buf, 64, "%s", month_names[t->tm_mon]);
    case 'b':
    case 'h': return snprintf(buf, 64, "%.3s", month_names[t->tm_mon]);
    case 'A': return snprintf(buf, 64, "%s", day_names[t->tm_wday]);
    case 'a': return snprintf(buf, 64, "%.3s", day_names[t->tm_wday]);
    case 'w': return snprintf(buf, 64, "%d", t->tm_wday);
    case 'u': return snprintf(buf, 64, "%d", t->tm_wday ? t->tm_wday : 7);
    case 'F': return snprintf(buf, 64, "%04d-%02d-%02d", t->tm_year + 1900, t->tm_mon + 1, t->tm_mday);
    case 'D': return snprintf(buf, 64, "%02d/%02d/%02d", t->tm_mon + 1, t->tm_mday, t->tm_year % 100);
    case 'T': return snprintf(buf, 64, "%02d:%02d:%02d", t->tm_hour, t->tm_min, t->tm_sec);
    case 'R': return snprintf(buf, 64, "%02d:%02d", t->tm_hour, t->tm_min);
    case '%': return snprintf(buf, 64, "%%");
    case 'n': return snprintf(buf, 64, "\n");
    case 't': return snprintf(buf, 64, "\t");
    default: return 0;
    }
}

static status g_strftime_now(struct render *r, struct call *c, struct val *out)
{
    struct text fmt;
    struct tm t;
    char buf[64];
    time_t now = (time_t)r->now;
    TRY(want_name(r, &c->arg[0], &fmt));
    if (!gmtime_r(&now, &t) || t.tm_year < -1899 || t.tm_year > 8099)
        return fail(r, "strftime_now: time %lld is out of range", (long long)r->now);
    size_t mark = text_begin(r);
    for (size_t i = 0; i < fmt.n; i++) {
        if (fmt.p[i] != '%') {
            TRY(put(r, fmt.p + i, 1));
            continue;
        }
        bool pad = !(i + 1 < fmt.n && fmt.p[i + 1] == '-');
        i += pad ? 1 : 2;
        int n = i < fmt.n ? time_code(&t, fmt.p[i], pad, buf) : 0;
        if (n == 0) return fail(r, "strftime_now: unsupported code in '%.*s'", fmt.n > 60 ? 60 : (int)fmt.n, fmt.p);
        TRY(put(r, buf, (size_t)n));
    }
    return text_end(r, mark, out);
}

/* ---- tables ---- */

static const struct builtin filters[] = {
    { "abs", "", 0, f_abs, 0 },
    { "attr", "name", 1, f_attr, 0 },
    { "batch", "linecount fill_with", 1, f_batch, 0 },
    { "capitalize", "", 0, f_capitalize, 0 },
    { "center", "width", 0, f_center, 0 },
    { "count", "", 0, f_length, 0 },
    { "d", "default_value boolean", 0, f_default, 0 },
    { "default", "default_value boolean", 0, f_default, 0 },
    { "dictsort", "case_sensitive by reverse", 0, f_dictsort, 0 },
    { "e", "", 0, f_escape, 0 },
    { "escape", "", 0, f_escape, 0 },
    { "first", "", 0, f_first, 0 },
    { "float", "default", 0, f_float, 0 },
    { "forceescape", "", 0, f_forceescape, 0 },
    { "format", NULL, 0, format_filter, 0 },
    { "from_json", "", 0, filter_from_json, 0 },
    { "groupby", "attribute default case_sensitive", 1, f_groupby, 0 },
    { "indent", "width first blank", 0, f_indent, 0 },
    { "int", "default base", 0, f_int, 0 },
    { "items", "", 0, f_items, 0 },
    { "join", "d attribute", 0, f_join, 0 },
    { "last", "", 0, f_last, 0 },
    { "length", "", 0, f_length, 0 },
    { "list", "", 0, f_list, 0 },
    { "lower", "", 0, f_lower, 0 },
    { "map", NULL, 0, f_map, 0 },
    { "max", "case_sensitive attribute", 0, f_max, 0 },
    { "min", "case_sensitive attribute", 0, f_min, 0 },
    { "reject", NULL, 0, f_reject, 0 },
    { "rejectattr", NULL, 0, f_rejectattr, 0 },
    { "replace", "old new count", 2, f_replace, 0 },
    { "reverse", "", 0, f_reverse, 0 },
    { "round", "precision method", 0, f_round, 0 },
    { "safe", "", 0, f_safe, 0 },
    { "select", NULL, 0, f_select, 0 },
    { "selectattr", NULL, 0, f_selectattr, 0 },
    { "slice", "slices fill_with", 1, f_slice, 0 },
    { "sort", "reverse case_sensitive attribute", 0, f_sort, 0 },
    { "string", "", 0, f_string, 0 },
    { "sum", "attribute start", 0, f_sum, 0 },
    { "title", "", 0, f_title, 0 },
    { "tojson", "ensure_ascii indent separators sort_keys", 0, filter_tojson, 0 },
    { "trim", "chars", 0, f_trim, 0 },
    { "truncate", "length killwords end leeway", 0, f_truncate, 0 },
    { "unique", "case_sensitive attribute", 0, f_unique, 0 },
    { "upper", "", 0, f_upper, 0 },
    { "wordcount", "", 0, f_wordcount, 0 },
};

static const struct builtin tests[] = {
    { "!=", "other", 1, t_ne, 0 },
    { "<", "other", 1, t_lt, 0 },
    { "<=", "other", 1, t_le, 0 },
    { "==", "other", 1, t_eq, 0 },
    { ">", "other", 1, t_gt, 0 },
    { ">=", "other", 1, t_ge, 0 },
    { "boolean", "", 0, t_boolean, 0 },
    { "callable", "", 0, t_callable, 0 },
    { "defined", "", 0, t_defined, 0 },
    { "divisibleby", "num", 1, t_divisibleby, 0 },
    { "eq", "other", 1, t_eq, 0 },
    { "equalto", "other", 1, t_eq, 0 },
    { "escaped", "", 0, t_escaped, 0 },
    { "even", "", 0, t_even, 0 },
    { "false", "", 0, t_false, 0 },
    { "filter", "", 0, t_filter, 0 },
    { "float", "", 0, t_float, 0 },
    { "ge", "other", 1, t_ge, 0 },
    { "greaterthan", "other", 1, t_gt, 0 },
    { "gt", "other", 1, t_gt, 0 },
    { "in", "seq", 1, t_in, 0 },
    { "integer", "", 0, t_integer, 0 },
    { "iterable", "", 0, t_iterable, 0 },
    { "le", "other", 1, t_le, 0 },
    { "lessthan", "other", 1, t_lt, 0 },
    { "lower", "", 0, t_lower, 0 },
    { "lt", "other", 1, t_lt, 0 },
    { "mapping", "", 0, t_mapping, 0 },
    { "ne", "other", 1, t_ne, 0 },
    { "none", "", 0, t_none, 0 },
    { "number", "", 0, t_number, 0 },
    { "odd", "", 0, t_odd, 0 },
    { "sameas", "other", 1, t_sameas, 0 },
    { "sequence", "", 0, t_sequence, 0 },
    { "string", "", 0, t_string, 0 },
    { "test", "", 0, t_test, 0 },
    { "true", "", 0, t_true, 0 },
    { "undefined", "", 0, t_undefined, 0 },
    { "upper", "", 0, t_upper, 0 },
};

static const struct builtin globals[] = {
    { "cycler", NULL, 0, g_cycler, 0 },
    { "dict", NULL, 0, g_dict, 0 },
    { "joiner", "sep", 0, g_joiner, 0 },
    { "namespace", NULL, 0, g_namespace, 0 },
    { "raise_exception", "message", 1, g_raise_exception, 0 },
    { "range", NULL, 0, g_range, 0 },
    { "strftime_now", "format", 1, g_strftime_now, 0 },
};

static const struct builtin *find_builtin(const struct builtin *rows, int n, struct text name)
{
    for (int i = 0; i < n; i++)
        if (text_is(name, rows[i].name)) return &rows[i];
    return NULL;
}

const struct builtin *template_filter(struct text name) { return find_builtin(filters, ARRAY_LEN(filters), name); }
const struct builtin *template_test(struct text name) { return find_builtin(tests, ARRAY_LEN(tests), name); }
const struct builtin *template_global(struct text name) { return find_builtin(globals, ARRAY_LEN(globals), name); }

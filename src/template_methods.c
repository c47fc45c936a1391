/* template_methods - what can be called on a value with a dot: one row per method and kind of owner.
 * append, pop, extend and the like change their owner: Hugging Face's sandbox refuses them, other engines allow them, and so does this one.
 * Source: Python 3 library reference (str, list, dict). */
#include "src/template_int.h"
#include <string.h>

/* Argument i as text; it must be a string. */
static status want_text(struct render *r, const struct call *c, int i, struct text *out)
{
    *out = TEXT("");
    TRY(fail_undef(r, &c->arg[i]));
    if (c->arg[i].kind != V_STR) return fail(r, "argument %d must be a string, not '%s'", i + 1, val_type_names[c->arg[i].kind]);
    *out = val_text(&c->arg[i]);
    return OK;
}

static struct text self(const struct call *c) { return val_text(&c->self); }

/* ---- text ---- */

status text_case(struct render *r, struct text s, uint32_t (*map)(uint32_t), struct val *out)
{
    size_t mark = text_begin(r);
    for (size_t i = 0; i < s.n;) {
        uint32_t c;
        char buf[256];
        size_t n = 0;
        while (i < s.n && n < sizeof buf - 8) { /* in pieces: put is charged per call */
            i += (size_t)text_get(s.p + i, s.p + s.n, &c);
            if (c == 0xDF && map('a') == 'A') buf[n++] = 'S', buf[n++] = 'S'; /* sharp s */
            else n += (size_t)text_put(map(c), buf + n);
        }
        TRY(charge_chars(r, n));
        TRY(put(r, buf, n));
    }
    return text_end(r, mark, out);
}

status text_capitalize(struct render *r, struct text s, struct val *out)
{
    struct val head, tail;
    size_t n = text_offset(s, 1);
    TRY(text_case(r, (struct text){ s.p, n }, cp_upper, &head));
    TRY(text_case(r, (struct text){ s.p + n, s.n - n }, cp_lower, &tail));
    return val_binary(r, OP_ADD, &head, &tail, out);
}

status text_replace(struct render *r, struct text s, struct text old, struct text with, int64_t limit, struct val *out)
{
    const char *p = s.p, *end = s.p + s.n;
    size_t mark = text_begin(r);
    for (; limit != 0; limit--) {
        uint32_t c;
        const char *hit = old.n ? memmem(p, (size_t)(end - p), old.p, old.n) : p;
        if (!hit) break;
        TRY(put(r, p, (size_t)(hit - p)));
        TRY(put_text(r, with));
        p = hit + old.n;
        if (old.n) continue;
        if (p == end) break;
        size_t n = (size_t)text_get(p, end, &c); /* an empty pattern stands before every character and at the end */
        TRY(put(r, p, n));
        p += n;
    }
    TRY(put(r, p, (size_t)(end - p)));
    return text_end(r, mark, out);
}

static status put_spaces(struct render *r, int64_t n)
{
    static const char spaces[] = "                                                                ";
    for (; n > 0; n -= 64) TRY(put(r, spaces, n < 64 ? (size_t)n : 64));
    return OK;
}

static status pad_text(struct render *r, struct text s, int64_t width, int64_t left_of_2, struct val *out)
{
    int64_t pad = width - text_length(s), left = left_of_2 == 0 ? 0 : left_of_2 == 2 ? pad : pad / 2 + (pad & width & 1);
    size_t mark = text_begin(r);
    TRY(put_spaces(r, left));
    TRY(put_text(r, s));
    TRY(put_spaces(r, pad - left));
    return text_end(r, mark, out);
}

status text_center(struct render *r, struct text s, int64_t width, struct val *out)
{
    if (width > TEMPLATE_OUTPUT) return fail(r, "limit of %d bytes of output passed", TEMPLATE_OUTPUT);
    return pad_text(r, s, width, 1, out);
}

static bool ends_line(uint32_t c) { return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029; }

bool text_line(struct text *rest, struct text *line)
{
    const char *p = rest->p, *end = p + rest->n;
    if (p == end) return false;
    uint32_t c = 0;
    int n = 0;
    for (; p < end; p += n) {
        n = text_get(p, end, &c);
        if (ends_line(c)) break;
    }
    *line = (struct text){ rest->p, (size_t)(p - rest->p) };
    if (p < end) p += c == '\r' && p + 1 < end && p[1] == '\n' ? 2 : n;
    *rest = (struct text){ p, (size_t)(end - p) };
    return true;
}

bool text_cased(struct text s, bool upper)
{
    bool any = false;
    for (size_t i = 0; i < s.n;) {
        uint32_t c;
        i += (size_t)text_get(s.p + i, s.p + s.n, &c);
        bool is_upper = cp_lower(c) != c, is_lower = cp_upper(c) != c || c == 0xDF;
        if (upper ? is_lower : is_upper) return false;
        any |= is_upper || is_lower;
    }
    return any;
}

/* split: from the left on a separator or on white space; limit < 0: no limit */
static status split_left(struct render *r, struct text s, const struct text *sep, int64_t limit, struct seq *out)
{
    const char *p = s.p, *end = s.p + s.n;
    for (; limit != 0; limit--) {
        const char *hit;
        size_t skip = 0;
        if (sep) {
            hit = memmem(p, (size_t)(end - p), sep->p, sep->n);
            if (!hit) break;
            skip = sep->n;
        } else {
            p = text_strip((struct text){ p, (size_t)(end - p) }, true, false).p;
            uint32_t c;
            int n = 0;
            for (hit = p; hit < end; hit += n) {
                n = text_get(hit, end, &c);
                if (cp_is_space(c)) break;
            }
            if (p == end) return OK;
        }
        TRY(charge(r, (size_t)(hit - p)));
        TRY(seq_push(r, out, val_str((struct text){ p, (size_t)(hit - p) })));
        p = hit + skip;
    }
    struct text rest = { p, (size_t)(end - p) };
    if (!sep) {
        rest = text_strip(rest, true, false);
        if (rest.n == 0) return OK;
    }
    return seq_push(r, out, val_str(rest));
}

/* The caller charged for it with charge_find_last: the plain search may compare the whole of `what` at every place. */
static const char *find_last(struct text s, struct text what)
{
    for (const char *p = s.p + s.n - what.n; s.n >= what.n && p >= s.p; p--)
        if (memcmp(p, what.p, what.n) == 0) return p;
    return NULL;
}

static status charge_find_last(struct render *r, struct text s, struct text what) { return charge(r, s.n * (1 + what.n / 16)); }

static status split_right(struct render *r, struct text s, const struct text *sep, int64_t limit, struct seq *out)
{
    for (; limit != 0; limit--) {
        const char *hit = sep ? find_last(s, *sep) : NULL;
        struct text part = s;
        if (sep && !hit) break;
        if (sep) {
            part = (struct text){ hit + sep->n, (size_t)(s.p + s.n - hit) - sep->n };
            s.n = (size_t)(hit - s.p);
        } else {
            s = text_strip(s, false, true);
            if (s.n == 0) break;
            size_t start = s.n;
            while (start > 0) {
                size_t prev = start - 1;
                uint32_t c;
                while (prev > 0 && (s.p[prev] & 0xC0) == 0x80) prev--;
                (void)text_get(s.p + prev, s.p + start, &c);
                if (cp_is_space(c)) break;
                start = prev;
            }
            part = (struct text){ s.p + start, s.n - start };
            s.n = start;
        }
        TRY(charge(r, part.n));
        TRY(seq_push(r, out, val_str(part)));
    }
    if (!sep) s = text_strip(s, false, true);
    if (sep || s.n) TRY(seq_push(r, out, val_str(s)));
    for (int64_t i = 0, j = out->n - 1; i < j; i++, j--) {
        struct val t = out->at[i];
        out->at[i] = out->at[j];
        out->at[j] = t;
    }
    return OK;
}

static status split(struct render *r, struct call *c, bool right, struct val *out)
{
    struct text sep = TEXT("");
    int64_t limit = -1;
    bool by_sep = given(&c->arg[0]);
    if (by_sep) {
        TRY(want_text(r, c, 0, &sep));
        if (sep.n == 0) return fail(r, "empty separator");
    }
    if (c->arg[1].kind != V_ABSENT) TRY(want_int(r, &c->arg[1], "maxsplit", &limit));
    TRY(by_sep ? (right ? charge_find_last(r, self(c), sep) : charge(r, c->self.n)) : charge_chars(r, c->self.n));
    TRY(seq_new(r, V_LIST, 0, out));
    return (right ? split_right : split_left)(r, self(c), by_sep ? &sep : NULL, limit < 0 ? -1 : limit, out->seq);
}

static status str_split(struct render *r, struct call *c, struct val *out) { return split(r, c, false, out); }
static status str_rsplit(struct render *r, struct call *c, struct val *out) { return split(r, c, true, out); }

status text_trim(struct render *r, struct text s, const struct val *chars, bool left, bool right, struct val *out)
{
    struct text set = val_text(chars), t;
    size_t odd = 0; /* bytes of the set that are looked for one by one */
    if (given(chars)) {
        if (chars->kind != V_STR) return fail(r, "characters must be a string, not '%s'", val_type_names[chars->kind]);
        for (size_t i = 0; i < set.n; i++) odd += (set.p[i] & 0x80) != 0;
        TRY(charge(r, set.n));
        if (odd) TRY(charge_chars(r, s.n * odd));
        t = text_strip_chars(s, set, left, right);
    } else {
        t = text_strip(s, left, right);
    }
    *out = val_str(t);
    return charge_chars(r, s.n - t.n);
}

static status str_strip(struct render *r, struct call *c, struct val *out) { return text_trim(r, self(c), &c->arg[0], true, true, out); }
static status str_lstrip(struct render *r, struct call *c, struct val *out) { return text_trim(r, self(c), &c->arg[0], true, false, out); }
static status str_rstrip(struct render *r, struct call *c, struct val *out) { return text_trim(r, self(c), &c->arg[0], false, true, out); }
static status str_upper(struct render *r, struct call *c, struct val *out) { return text_case(r, self(c), cp_upper, out); }
static status str_lower(struct render *r, struct call *c, struct val *out) { return text_case(r, self(c), cp_lower, out); }
static status str_capitalize(struct render *r, struct call *c, struct val *out) { return text_capitalize(r, self(c), out); }
static uint32_t cp_swap(uint32_t c) { return cp_lower(c) != c ? cp_lower(c) : cp_upper(c); }
static status str_swapcase(struct render *r, struct call *c, struct val *out) { return text_case(r, self(c), cp_swap, out); }

/* A letter behind a letter is small, any other is a capital. */
static status str_title(struct render *r, struct call *c, struct val *out)
{
    struct text s = self(c);
    bool inside = false;
    size_t mark = text_begin(r);
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += (size_t)text_get(s.p + i, s.p + s.n, &cp);
        TRY(put_cp(r, inside ? cp_lower(cp) : cp_upper(cp)));
        inside = cp_lower(cp) != cp || cp_upper(cp) != cp || cp == 0xDF;
    }
    return text_end(r, mark, out);
}

/* s[start:end] by characters, for the searching methods; arguments a and a + 1 */
static status sub_range(struct render *r, const struct call *c, int a, struct text *out, int64_t *first)
{
    struct text s = self(c);
    int64_t bound[2] = { 0, INT64_MAX };
    if (given(&c->arg[a]) || given(&c->arg[a + 1])) {
        TRY(charge_chars(r, s.n));
        int64_t n = text_length(s);
        for (int i = 0; i < 2; i++) {
            if (given(&c->arg[a + i])) TRY(want_int(r, &c->arg[a + i], "start or end", &bound[i]));
            if (bound[i] < 0) bound[i] = max_i64(bound[i] + n, 0);
            if (i && bound[1] > n) bound[1] = n;
        }
    }
    *first = bound[0];
    size_t from = text_offset(s, bound[0]), to = bound[1] == INT64_MAX ? s.n : text_offset(s, bound[1]);
    *out = (struct text){ s.p + from, to > from ? to - from : 0 };
    if (bound[0] > bound[1]) out->p = NULL; /* nothing fits, not even "" */
    return OK;
}

static bool affix_is(struct text s, struct text a, bool end)
{
    return s.p && a.n <= s.n && (a.n == 0 || memcmp(end ? s.p + s.n - a.n : s.p, a.p, a.n) == 0);
}

static status has_affix(struct render *r, struct call *c, bool end, struct val *out)
{
    struct text s, affix;
    int64_t first;
    bool yes = false;
    TRY(sub_range(r, c, 1, &s, &first));
    if (c->arg[0].kind == V_TUPLE) {
        const struct seq *list = c->arg[0].seq;
        for (int64_t i = 0; i < list->n && !yes; i++) {
            if (list->at[i].kind != V_STR) return fail(r, "a tuple of strings is needed");
            yes = affix_is(s, val_text(&list->at[i]), end);
        }
    } else {
        TRY(want_text(r, c, 0, &affix));
        yes = affix_is(s, affix, end);
    }
    *out = val_bool(yes);
    return OK;
}

static status str_startswith(struct render *r, struct call *c, struct val *out) { return has_affix(r, c, false, out); }
static status str_endswith(struct render *r, struct call *c, struct val *out) { return has_affix(r, c, true, out); }

static status find(struct render *r, struct call *c, bool last, bool must, struct val *out)
{
    struct text s, what;
    int64_t first;
    TRY(want_text(r, c, 0, &what));
    TRY(sub_range(r, c, 1, &s, &first));
    TRY(charge_chars(r, s.n));
    if (last) TRY(charge_find_last(r, s, what));
    const char *hit = !s.p ? NULL : last ? find_last(s, what) : what.n ? memmem(s.p, s.n, what.p, what.n) : s.p;
    if (!hit && must) return fail(r, "substring not found");
    *out = val_int(hit ? first + text_length((struct text){ s.p, (size_t)(hit - s.p) }) : -1);
    return OK;
}

static status str_find(struct render *r, struct call *c, struct val *out) { return find(r, c, false, false, out); }
static status str_rfind(struct render *r, struct call *c, struct val *out) { return find(r, c, true, false, out); }
static status str_index(struct render *r, struct call *c, struct val *out) { return find(r, c, false, true, out); }

static status str_count(struct render *r, struct call *c, struct val *out)
{
    struct text s, what;
    int64_t first, n = 0;
    TRY(want_text(r, c, 0, &what));
    TRY(sub_range(r, c, 1, &s, &first));
    TRY(charge_chars(r, s.n));
    if (what.n == 0) n = s.p ? text_length(s) + 1 : 0;
    else
        for (const char *p = s.p; p && (p = memmem(p, (size_t)(s.p + s.n - p), what.p, what.n)); p += what.n) n++;
    *out = val_int(n);
    return OK;
}

static status str_replace(struct render *r, struct call *c, struct val *out)
{
    struct text old, with;
    int64_t limit = -1;
    TRY(want_text(r, c, 0, &old));
    TRY(want_text(r, c, 1, &with));
    if (c->arg[2].kind != V_ABSENT) TRY(want_int(r, &c->arg[2], "count", &limit));
    return text_replace(r, self(c), old, with, limit, out);
}

static status str_join(struct render *r, struct call *c, struct val *out)
{
    struct iter it;
    struct val item;
    TRY(iter_begin(r, &c->arg[0], &it));
    size_t mark = text_begin(r);
    for (int64_t n = 0; iter_next(&it, &item); n++) {
        if (item.kind != V_STR) return fail(r, "join: item %lld is no string but '%s'", (long long)n, val_type_names[item.kind]);
        if (n) TRY(put_text(r, self(c)));
        TRY(put_val(r, &item));
    }
    return text_end(r, mark, out);
}

static status str_splitlines(struct render *r, struct call *c, struct val *out)
{
    struct text rest = self(c), line;
    bool keep = val_true(&c->arg[0]);
    TRY(charge_chars(r, rest.n));
    TRY(seq_new(r, V_LIST, 0, out));
    for (const char *start = rest.p; text_line(&rest, &line); start = rest.p)
        TRY(seq_push(r, out->seq, val_str(keep ? (struct text){ start, (size_t)(rest.p - start) } : line)));
    return OK;
}

static status str_removeprefix(struct render *r, struct call *c, struct val *out)
{
    struct text s = self(c), a;
    TRY(want_text(r, c, 0, &a));
    *out = val_str(affix_is(s, a, false) ? (struct text){ s.p + a.n, s.n - a.n } : s);
    return OK;
}

static status str_removesuffix(struct render *r, struct call *c, struct val *out)
{
    struct text s = self(c), a;
    TRY(want_text(r, c, 0, &a));
    *out = val_str(affix_is(s, a, true) ? (struct text){ s.p, s.n - a.n } : s);
    return OK;
}

static status partition(struct render *r, struct call *c, bool last, struct val *out)
{
    struct text s = self(c), sep, none = TEXT("");
    TRY(want_text(r, c, 0, &sep));
    if (sep.n == 0) return fail(r, "empty separator");
    TRY(last ? charge_find_last(r, s, sep) : charge(r, s.n));
    TRY(seq_new(r, V_TUPLE, 3, out));
    const char *hit = last ? find_last(s, sep) : memmem(s.p, s.n, sep.p, sep.n);
    struct text head = { s.p, hit ? (size_t)(hit - s.p) : s.n }, tail = none;
    if (hit) tail = (struct text){ hit + sep.n, s.n - head.n - sep.n };
    if (!hit) sep = none;
    TRY(seq_push(r, out->seq, val_str(!hit && last ? none : head)));
    TRY(seq_push(r, out->seq, val_str(sep)));
    return seq_push(r, out->seq, val_str(!hit && last ? s : tail));
}

static status str_partition(struct render *r, struct call *c, struct val *out) { return partition(r, c, false, out); }
static status str_rpartition(struct render *r, struct call *c, struct val *out) { return partition(r, c, true, out); }

static status pad(struct render *r, struct call *c, int side, struct val *out)
{
    int64_t width;
    TRY(want_int(r, &c->arg[0], "width", &width));
    if (width > TEMPLATE_OUTPUT) return fail(r, "limit of %d bytes of output passed", TEMPLATE_OUTPUT);
    return pad_text(r, self(c), width, side, out);
}

static status str_ljust(struct render *r, struct call *c, struct val *out) { return pad(r, c, 0, out); }
static status str_center(struct render *r, struct call *c, struct val *out) { return pad(r, c, 1, out); }
static status str_rjust(struct render *r, struct call *c, struct val *out) { return pad(r, c, 2, out); }

static bool is_digit_cp(uint32_t c) { return c >= '0' && c <= '9'; }
static bool is_alnum_cp(uint32_t c) { return is_digit_cp(c) || cp_is_alpha(c); }

static status all_are(struct render *r, const struct call *c, bool (*is)(uint32_t), struct val *out)
{
    struct text s = self(c);
    bool yes = s.n > 0;
    TRY(charge_chars(r, s.n));
    for (size_t i = 0; yes && i < s.n;) {
        uint32_t cp;
        i += (size_t)text_get(s.p + i, s.p + s.n, &cp);
        yes = is(cp);
    }
    *out = val_bool(yes);
    return OK;
}

static status str_isdigit(struct render *r, struct call *c, struct val *out) { return all_are(r, c, is_digit_cp, out); }
static status str_isalpha(struct render *r, struct call *c, struct val *out) { return all_are(r, c, cp_is_alpha, out); }
static status str_isalnum(struct render *r, struct call *c, struct val *out) { return all_are(r, c, is_alnum_cp, out); }
static status str_isspace(struct render *r, struct call *c, struct val *out) { return all_are(r, c, cp_is_space, out); }

static status str_isupper(struct render *r, struct call *c, struct val *out)
{
    *out = val_bool(text_cased(self(c), true));
    return charge_chars(r, c->self.n);
}

static status str_islower(struct render *r, struct call *c, struct val *out)
{
    *out = val_bool(text_cased(self(c), false));
    return charge_chars(r, c->self.n);
}

/* ---- dict ---- */

status dict_items(struct render *r, const struct dict *d, enum val_kind kind, struct val *out)
{
    TRY(seq_new(r, kind, d->n, out));
    out->seq->label = TEXT("dict_items");
    for (int64_t i = 0; i < d->n; i++) {
        struct val pair;
        TRY(seq_new(r, V_TUPLE, 2, &pair));
        TRY(seq_push(r, pair.seq, d->at[i].key));
        TRY(seq_push(r, pair.seq, d->at[i].value));
        TRY(seq_push(r, out->seq, pair));
    }
    return OK;
}

static status dict_items_method(struct render *r, struct call *c, struct val *out) { return dict_items(r, c->self.dict, V_VIEW, out); }

static status dict_keys(struct render *r, struct call *c, struct val *out)
{
    const struct dict *d = c->self.dict;
    TRY(seq_new(r, V_VIEW, d->n, out));
    out->seq->label = TEXT("dict_keys");
    for (int64_t i = 0; i < d->n; i++) TRY(seq_push(r, out->seq, d->at[i].key));
    return OK;
}

static status dict_values(struct render *r, struct call *c, struct val *out)
{
    const struct dict *d = c->self.dict;
    TRY(seq_new(r, V_VIEW, d->n, out));
    out->seq->label = TEXT("dict_values");
    for (int64_t i = 0; i < d->n; i++) TRY(seq_push(r, out->seq, d->at[i].value));
    return OK;
}

static status dict_get(struct render *r, struct call *c, struct val *out)
{
    struct entry *en;
    TRY(dict_find(r, c->self.dict, &c->arg[0], &en));
    *out = en ? en->value : c->arg[1].kind == V_ABSENT ? val_none() : c->arg[1];
    return OK;
}

static status dict_pop(struct render *r, struct call *c, struct val *out)
{
    struct dict *d = c->self.dict;
    struct entry *en;
    TRY(dict_find(r, d, &c->arg[0], &en));
    if (!en) {
        *out = c->arg[1];
        return c->arg[1].kind == V_ABSENT ? fail(r, "pop: the dict has no such key") : OK;
    }
    *out = en->value;
    TRY(charge(r, (size_t)d->n * sizeof *en));
    memmove(en, en + 1, (size_t)(d->at + d->n - en - 1) * sizeof *en);
    d->n--;
    return OK;
}

static status dict_update(struct render *r, struct call *c, struct val *out)
{
    if (c->n_pos > 1 || (c->n_pos && c->pos[0].kind != V_DICT)) return fail(r, "'update' needs a dict");
    for (int64_t i = 0; c->n_pos && i < c->pos[0].dict->n; i++)
        TRY(dict_set(r, c->self.dict, c->pos[0].dict->at[i].key, c->pos[0].dict->at[i].value));
    for (int i = 0; i < c->n_kw; i++) TRY(dict_set(r, c->self.dict, c->kw[2 * i], c->kw[2 * i + 1]));
    *out = val_none();
    return OK;
}

static status dict_copy(struct render *r, struct call *c, struct val *out)
{
    const struct dict *d = c->self.dict;
    TRY(dict_new(r, V_DICT, d->n, out));
    TRY(charge(r, (size_t)d->n * sizeof *d->at));
    if (d->n) memcpy(out->dict->at, d->at, (size_t)d->n * sizeof *d->at);
    out->dict->n = d->n;
    return OK;
}

/* ---- list, tuple ---- */

static status list_append(struct render *r, struct call *c, struct val *out)
{
    *out = val_none();
    return seq_push(r, c->self.seq, c->arg[0]);
}

static status list_extend(struct render *r, struct call *c, struct val *out)
{
    struct val items;
    TRY(to_list(r, &c->arg[0], &items)); /* a copy: the argument may be the list itself */
    for (int64_t i = 0; i < items.seq->n; i++) TRY(seq_push(r, c->self.seq, items.seq->at[i]));
    *out = val_none();
    return OK;
}

static status list_pop(struct render *r, struct call *c, struct val *out)
{
    struct seq *s = c->self.seq;
    int64_t i = -1;
    if (c->arg[0].kind != V_ABSENT) TRY(want_int(r, &c->arg[0], "index", &i));
    if (i < 0) i += s->n;
    if (i < 0 || i >= s->n) return fail(r, "pop: index out of range of a list of %lld", (long long)s->n);
    *out = s->at[i];
    TRY(charge(r, (size_t)(s->n - i) * sizeof *s->at));
    memmove(s->at + i, s->at + i + 1, (size_t)(s->n - i - 1) * sizeof *s->at);
    s->n--;
    return OK;
}

static status list_insert(struct render *r, struct call *c, struct val *out)
{
    struct seq *s = c->self.seq;
    int64_t i;
    TRY(want_int(r, &c->arg[0], "index", &i));
    if (i < 0) i = max_i64(i + s->n, 0);
    i = min_i64(i, s->n);
    TRY(seq_push(r, s, val_none()));
    TRY(charge(r, (size_t)(s->n - i) * sizeof *s->at));
    memmove(s->at + i + 1, s->at + i, (size_t)(s->n - i - 1) * sizeof *s->at);
    s->at[i] = c->arg[1];
    *out = val_none();
    return OK;
}

static status list_index(struct render *r, struct call *c, struct val *out)
{
    const struct seq *s = c->self.seq;
    for (int64_t i = 0; i < s->n; i++) {
        bool same;
        TRY(val_equal(r, &s->at[i], &c->arg[0], &same));
        if (!same) continue;
        *out = val_int(i);
        return OK;
    }
    return fail(r, "index: the value is not in the list");
}

static status list_count(struct render *r, struct call *c, struct val *out)
{
    const struct seq *s = c->self.seq;
    int64_t n = 0;
    for (int64_t i = 0; i < s->n; i++) {
        bool same;
        TRY(val_equal(r, &s->at[i], &c->arg[0], &same));
        n += same;
    }
    *out = val_int(n);
    return OK;
}

static status list_copy(struct render *r, struct call *c, struct val *out) { return to_list(r, &c->self, out); }

static status cycler_next(struct render *r, struct call *c, struct val *out)
{
    struct cycler *y = c->self.cycler;
    *out = y->items->at[y->at];
    y->at = (y->at + 1) % y->items->n;
    return charge(r, 0);
}

static status cycler_reset(struct render *r, struct call *c, struct val *out)
{
    c->self.cycler->at = 0;
    *out = val_none();
    return charge(r, 0);
}

enum {
    STR = 1 << V_STR,
    DICT = 1 << V_DICT,
    LIST = 1 << V_LIST,
    ITEMS = 1 << V_LIST | 1 << V_TUPLE | 1 << V_RANGE,
    LOOP = 1 << V_LOOP,
    CYCLER = 1 << V_CYCLER
};

static const struct builtin methods[] = {
    { "split", "sep maxsplit", 0, str_split, STR },
    { "rsplit", "sep maxsplit", 0, str_rsplit, STR },
    { "splitlines", "keepends", 0, str_splitlines, STR },
    { "partition", "sep", 1, str_partition, STR },
    { "rpartition", "sep", 1, str_rpartition, STR },
    { "strip", "chars", 0, str_strip, STR },
    { "lstrip", "chars", 0, str_lstrip, STR },
    { "rstrip", "chars", 0, str_rstrip, STR },
    { "removeprefix", "prefix", 1, str_removeprefix, STR },
    { "removesuffix", "suffix", 1, str_removesuffix, STR },
    { "upper", "", 0, str_upper, STR },
    { "lower", "", 0, str_lower, STR },
    { "title", "", 0, str_title, STR },
    { "capitalize", "", 0, str_capitalize, STR },
    { "swapcase", "", 0, str_swapcase, STR },
    { "replace", "old new count", 2, str_replace, STR },
    { "join", "iterable", 1, str_join, STR },
    { "format", NULL, 0, format_braces, STR },
    { "startswith", "prefix start end", 1, str_startswith, STR },
    { "endswith", "suffix start end", 1, str_endswith, STR },
    { "find", "sub start end", 1, str_find, STR },
    { "rfind", "sub start end", 1, str_rfind, STR },
    { "index", "sub start end", 1, str_index, STR },
    { "count", "sub start end", 1, str_count, STR },
    { "ljust", "width", 1, str_ljust, STR },
    { "rjust", "width", 1, str_rjust, STR },
    { "center", "width", 1, str_center, STR },
    { "isdigit", "", 0, str_isdigit, STR },
    { "isdecimal", "", 0, str_isdigit, STR },
    { "isnumeric", "", 0, str_isdigit, STR },
    { "isalpha", "", 0, str_isalpha, STR },
    { "isalnum", "", 0, str_isalnum, STR },
    { "isspace", "", 0, str_isspace, STR },
    { "isupper", "", 0, str_isupper, STR },
    { "islower", "", 0, str_islower, STR },
    { "items", "", 0, dict_items_method, DICT },
    { "keys", "", 0, dict_keys, DICT },
    { "values", "", 0, dict_values, DICT },
    { "get", "key default", 1, dict_get, DICT },
    { "pop", "key default", 1, dict_pop, DICT },
    { "update", NULL, 0, dict_update, DICT },
    { "copy", "", 0, dict_copy, DICT },
    { "append", "item", 1, list_append, LIST },
    { "extend", "items", 1, list_extend, LIST },
    { "insert", "index item", 2, list_insert, LIST },
    { "pop", "index", 0, list_pop, LIST },
    { "copy", "", 0, list_copy, LIST },
    { "index", "value", 1, list_index, ITEMS },
    { "count", "value", 1, list_count, ITEMS },
    { "cycle", NULL, 0, loop_cycle, LOOP },
    { "changed", NULL, 0, loop_changed, LOOP },
    { "next", "", 0, cycler_next, CYCLER },
    { "reset", "", 0, cycler_reset, CYCLER },
};

const struct builtin *template_method(enum val_kind kind, struct text name)
{
    for (int i = 0; i < ARRAY_LEN(methods); i++)
        if ((methods[i].kinds >> kind & 1) && text_is(name, methods[i].name)) return &methods[i];
    return NULL;
}

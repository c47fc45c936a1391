/* template_format - "%s" % x and "{}".format(x): two notations, one way to lay out a value.
 * Source: Python 3 library reference, "Format Specification Mini-Language" and "printf-style String Formatting". */
#include "src/template_int.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH_MAX = 1 << 16, PRECISION_MAX = 100 }; /* a double has at most 309 digits before the point: see `digits` below */
struct spec {
    uint32_t fill;
    char align, sign, type;         /* 0 when not given; sign: '+', ' ' */
    bool alt, zero, comma, percent; /* percent: written in the % notation */
    int64_t width, precision;       /* precision -1: not given */
};

static status put_fill(struct render *r, uint32_t fill, int64_t n)
{
    for (; n > 0; n--) TRY(put_cp(r, fill));
    return OK;
}

/* sign and prefix (head), digits or text (body), padded to the width */
static status put_padded(struct render *r, const struct spec *s, struct text head, struct text body, char align)
{
    int64_t pad = s->width - text_length(head) - text_length(body);
    if (s->align) align = s->align;
    if (s->zero && !s->align) align = '=';
    uint32_t fill = s->fill ? s->fill : s->zero ? '0' : ' ';
    int64_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0;
    TRY(put_fill(r, fill, left));
    TRY(put_text(r, head));
    if (align == '=') TRY(put_fill(r, fill, pad));
    TRY(put_text(r, body));
    return align == '=' || pad < 0 ? OK : put_fill(r, fill, pad - left);
}

/* Thousands separators into the whole part of digits. */
static int group_digits(const char *digits, int n, char *out)
{
    int whole = 0, w = 0;
    while (whole < n && digits[whole] >= '0' && digits[whole] <= '9') whole++;
    for (int i = 0; i < n; i++) {
        if (i && i < whole && (whole - i) % 3 == 0) out[w++] = ',';
        out[w++] = digits[i];
    }
    return w;
}

static status put_number(struct render *r, const struct spec *s, bool negative, const char *prefix, const char *digits, int n)
{
    char head[8], grouped[640];
    int h = snprintf(head, sizeof head, "%s%s", negative ? "-" : s->sign == '+' ? "+" : s->sign == ' ' ? " " : "", prefix);
    if (s->comma) n = group_digits(digits, n, grouped);
    return put_padded(r, s, (struct text){ head, (size_t)h }, (struct text){ s->comma ? grouped : digits, (size_t)n }, '>');
}

static status put_int(struct render *r, const struct spec *s, int64_t i)
{
    char digits[80];
    int n = 0, base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    uint64_t u = i < 0 ? -(uint64_t)i : (uint64_t)i;
    char *p = digits + sizeof digits;
    do *--p = (s->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[u % (unsigned)base], n++;
    while (u /= (unsigned)base);
    while (n < s->precision && p > digits) *--p = '0', n++;
    const char *prefix = !s->alt ? "" : base == 16 ? (s->type == 'X' ? "0X" : "0x") : base == 8 ? "0o" : base == 2 ? "0b" : "";
    return put_number(r, s, i < 0, prefix, p, n);
}

static status put_float(struct render *r, const struct spec *s, double f)
{
    char digits[512], fmt[8], type = s->type == '%' ? 'f' : s->type ? s->type : 'g';
    int precision = s->precision < 0 ? 6 : (int)s->precision, n;
    double a = fabs(f) * (s->type == '%' ? 100 : 1);
    if (!s->type && s->precision < 0) {
        n = float_repr(a, digits);
    } else if (!s->type && s->precision >= 0 && a != 0 && a < pow(10, precision ? precision : 1) && a == floor(a) && a < 1e15) {
        n = snprintf(digits, sizeof digits, "%.*g", precision ? precision : 1, a); /* the empty type keeps one digit behind the point */
        if (!strchr(digits, '.') && n < precision) n += snprintf(digits + n, 4, ".0");
    } else {
        snprintf(fmt, sizeof fmt, s->alt ? "%%#.*%c" : "%%.*%c", type);
        n = snprintf(digits, sizeof digits, fmt, precision, a);
    }
    if (s->type == '%') digits[n++] = '%';
    return put_number(r, s, signbit(f) && !isnan(f), "", digits, n);
}

static status put_str(struct render *r, const struct spec *s, struct text t)
{
    if (s->precision >= 0) t.n = text_offset(t, s->precision);
    return put_padded(r, s, TEXT(""), t, s->percent ? '>' : '<');
}

static status put_char(struct render *r, const struct spec *s, const struct val *v)
{
    char buf[4];
    if (v->kind == V_STR && text_length(val_text(v)) == 1) return put_str(r, s, val_text(v));
    if (v->kind != V_INT || v->i < 0 || v->i > 0x10FFFF || (v->i >= 0xD800 && v->i < 0xE000))
        return fail(r, "%%c needs a character or its code");
    return put_str(r, s, (struct text){ buf, (size_t)text_put((uint32_t)v->i, buf) });
}

/* A number where the type asks for one. */
static status put_typed_number(struct render *r, const struct spec *s, const struct val *v)
{
    TRY(fail_undef(r, v));
    if (!val_is_num(v)) return fail(r, "format type '%c' needs a number, not '%s'", s->type, val_type_names[v->kind]);
    bool whole = val_is_whole(v);
    if (strchr("eEfFgG%", s->type)) return put_float(r, s, whole ? (double)v->i : v->f);
    if (whole) return put_int(r, s, v->i);
    bool truncates = s->percent && strchr("diu", s->type) && v->f > -9e18 && v->f < 9e18;
    return truncates ? put_int(r, s, (int64_t)v->f) : fail(r, "format type '%c' needs an integer", s->type);
}

static status check_spec(struct render *r, const struct spec *s)
{
    if (s->width > WIDTH_MAX) return fail(r, "format width is %lld, limit %d", (long long)s->width, WIDTH_MAX);
    if (s->precision > PRECISION_MAX) return fail(r, "format precision is %lld, limit %d", (long long)s->precision, PRECISION_MAX);
    return OK;
}

static int64_t read_number(const char **p, const char *end, int64_t none)
{
    int64_t n = 0;
    if (*p >= end || **p < '0' || **p > '9') return none;
    for (; *p < end && **p >= '0' && **p <= '9'; ++*p) n = n > WIDTH_MAX ? n : n * 10 + (**p - '0');
    return n;
}

/* ---- % ---- */

struct percent_args {
    const struct val *args;
    int64_t used;
};

static status next_arg(struct render *r, struct percent_args *a, const struct val **out)
{
    bool tuple = a->args->kind == V_TUPLE;
    if (a->used >= (tuple ? a->args->seq->n : 1)) return fail(r, "not enough arguments for the format string");
    *out = tuple ? &a->args->seq->at[a->used] : a->args;
    a->used++;
    return OK;
}

/* "(key)": the member of the mapping */
static status named_arg(struct render *r, struct percent_args *a, const char **p, const char *end, struct val *out)
{
    const char *close = memchr(*p, ')', (size_t)(end - *p));
    if (a->args->kind != V_DICT || !close) return fail(r, "%%(name) needs a dict on the right");
    struct val key = val_str((struct text){ *p + 1, (size_t)(close - *p - 1) });
    *p = close + 1;
    a->used = 1;
    TRY(get_item(r, a->args, &key, out));
    return fail_undef(r, out);
}

static status width_or_star(struct render *r, struct percent_args *a, const char **p, const char *end, int64_t none, int64_t *out)
{
    *out = read_number(p, end, none);
    if (*p >= end || **p != '*') return OK;
    const struct val *v;
    ++*p;
    TRY(next_arg(r, a, &v));
    return want_int(r, v, "format width", out);
}

static status put_percent(struct render *r, struct percent_args *a, const char **p, const char *end)
{
    struct spec s = { .percent = true, .precision = -1 };
    struct val named;
    const struct val *v = NULL;
    if (*p < end && **p == '(') {
        TRY(named_arg(r, a, p, end, &named));
        v = &named;
    }
    for (; *p < end && **p && strchr("-+ #0", **p); ++*p) {
        if (**p == '-') s.align = '<';
        else if (**p == '#') s.alt = true;
        else if (**p == '0') s.zero = true;
        else if (s.sign != '+') s.sign = **p;
    }
    TRY(width_or_star(r, a, p, end, 0, &s.width));
    if (s.width < 0) {
        s.align = '<';
        s.width = -s.width;
    }
    if (*p < end && **p == '.') {
        ++*p;
        TRY(width_or_star(r, a, p, end, 0, &s.precision));
    }
    TRY(check_spec(r, &s));
    while (*p < end && **p && strchr("lLh", **p)) ++*p;
    if (*p >= end) return fail(r, "incomplete format string");
    s.type = *(*p)++;
    if (s.type == '%') return put(r, "%", 1);
    if (!s.type || !strchr("sradiuoxXeEfFgGc", s.type)) return fail(r, "unsupported format type '%c'", s.type);
    if (!v) TRY(next_arg(r, a, &v));
    if (strchr("diuoxXeEfFgG", s.type)) {
        if (s.align == '<') s.zero = false;
        return put_typed_number(r, &s, v);
    }
    s.zero = false;
    if (s.type == 'c') return put_char(r, &s, v);
    struct val shown = *v;
    size_t mark = text_begin(r);
    TRY(s.type == 's' ? put_val(r, v) : put_repr(r, v));
    TRY(text_end(r, mark, &shown));
    return put_str(r, &s, val_text(&shown));
}

status format_percent(struct render *r, struct text fmt, const struct val *args, struct val *out)
{
    struct percent_args a = { args, 0 };
    const char *p = fmt.p, *end = fmt.p + fmt.n;
    size_t mark = text_begin(r);
    while (p < end) {
        const char *pct = memchr(p, '%', (size_t)(end - p));
        TRY(put(r, p, (size_t)((pct ? pct : end) - p)));
        if (!pct) break;
        p = pct + 1;
        TRY(put_percent(r, &a, &p, end));
    }
    bool all = args->kind == V_DICT || args->kind == V_LIST || a.used == (args->kind == V_TUPLE ? args->seq->n : 1);
    if (!all) return fail(r, "not all arguments were used by the format string");
    return text_end(r, mark, out);
}

status format_filter(struct render *r, struct call *c, struct val *out)
{
    struct text fmt;
    struct val args;
    TRY(to_text(r, &c->self, &fmt));
    if (c->n_pos && c->n_kw) return fail(r, "'format' takes positional or keyword arguments, not both");
    if (c->n_kw) {
        TRY(dict_new(r, V_DICT, 0, &args));
        for (int i = 0; i < c->n_kw; i++) TRY(dict_set(r, args.dict, c->kw[2 * i], c->kw[2 * i + 1]));
    } else {
        TRY(seq_new(r, V_TUPLE, c->n_pos, &args));
        for (int i = 0; i < c->n_pos; i++) TRY(seq_push(r, args.seq, c->pos[i]));
    }
    return format_percent(r, fmt, &args, out);
}

/* ---- {} ---- */

static bool is_align(uint32_t c) { return c == '<' || c == '>' || c == '^' || c == '='; }

static status read_spec(struct render *r, struct text t, struct spec *s)
{
    const char *p = t.p, *end = t.p + t.n;
    uint32_t c = 0, after = 0;
    *s = (struct spec){ .precision = -1 };
    if (p < end) {
        int n = text_get(p, end, &c);
        if (p + n < end) (void)text_get(p + n, end, &after);
        if (is_align(after)) {
            s->fill = c;
            s->align = (char)after;
            p += n + 1;
        } else if (is_align(c)) {
            s->align = (char)c;
            p++;
        }
    }
    if (p < end && (*p == '+' || *p == ' ' || *p == '-')) s->sign = *p++;
    if (p < end && *p == '#') s->alt = *p++ == '#';
    if (p < end && *p == '0') s->zero = *p++ == '0';
    s->width = read_number(&p, end, 0);
    if (p < end && *p == ',') s->comma = *p++ == ',';
    if (p < end && *p == '.') {
        p++;
        s->precision = read_number(&p, end, -1);
        if (s->precision < 0) return fail(r, "format precision is missing");
    }
    if (p < end) s->type = *p++;
    if (p < end || (s->type && !strchr("sdxXobceEfFgG%", s->type)))
        return fail(r, "unsupported format '%.*s'", t.n > 60 ? 60 : (int)t.n, t.p);
    return check_spec(r, s);
}

static status put_field(struct render *r, const struct val *v, char conversion, struct text spec)
{
    struct spec s;
    struct val shown = *v;
    TRY(read_spec(r, spec, &s));
    if (conversion == 'r' || conversion == 's' || (v->kind != V_STR && !val_is_num(v)) || (v->kind == V_BOOL && !s.type)) {
        size_t mark = text_begin(r);
        TRY(conversion == 'r' ? put_repr(r, v) : put_val(r, v));
        TRY(text_end(r, mark, &shown));
        if (!conversion && spec.n && v->kind != V_BOOL) return fail(r, "'%s' takes no format", val_type_names[v->kind]);
    }
    if (shown.kind == V_STR) {
        if (s.type && s.type != 's') return fail(r, "format type '%c' needs a number, not 'str'", s.type);
        return put_str(r, &s, val_text(&shown));
    }
    if (s.type == 's') return fail(r, "format type 's' needs a string");
    if (s.type == 'c') return put_char(r, &s, &shown);
    if (!s.type && val_is_whole(&shown)) return s.precision < 0 ? put_int(r, &s, shown.i) : fail(r, "integers take no precision");
    return s.type ? put_typed_number(r, &s, &shown) : put_float(r, &s, shown.f);
}

/* "name", "0", "name.attr[item]": the value it names. automatic: next number of "{}". */
static status find_field(struct render *r, const struct call *c, struct text field, int64_t *automatic, struct val *out)
{
    size_t n = 0;
    while (n < field.n && field.p[n] != '.' && field.p[n] != '[') n++;
    struct text head = { field.p, n };
    const char *p = head.p;
    int64_t index = read_number(&p, head.p + n, -1);
    if (n == 0) index = (*automatic)++;
    bool found = false;
    if (n == 0 || p == head.p + n) {
        found = index >= 0 && index < c->n_pos;
        if (found) *out = c->pos[index];
    } else {
        for (int i = 0; i < c->n_kw && !found; i++)
            if ((found = text_eq(val_text(&c->kw[2 * i]), head))) *out = c->kw[2 * i + 1];
    }
    if (!found) return fail(r, "format argument '%.*s' is missing", n > 60 ? 60 : (int)n, field.p);
    while (n < field.n) {
        bool item = field.p[n] == '[';
        size_t from = ++n;
        while (n < field.n && (item ? field.p[n] != ']' : field.p[n] != '.' && field.p[n] != '[')) n++;
        struct text part = { field.p + from, n - from };
        n += item;
        struct val v = *out, key = val_str(part);
        p = part.p;
        index = item ? read_number(&p, part.p + part.n, -1) : -1;
        if (index >= 0 && p == part.p + part.n) key = val_int(index);
        TRY(item ? get_item(r, &v, &key, out) : get_attr(r, &v, part, out));
        TRY(fail_undef(r, out));
    }
    return OK;
}

/* The field between braces; p stands behind "{". */
static status put_brace_field(struct render *r, const struct call *c, const char **p, const char *end, int64_t *automatic)
{
    const char *close = memchr(*p, '}', (size_t)(end - *p));
    if (!close) return fail(r, "'{' without '}' in a format string");
    struct text field = { *p, (size_t)(close - *p) }, spec = TEXT("");
    if (memchr(field.p, '{', field.n)) return fail(r, "nested fields in a format string are not supported");
    const char *colon = memchr(field.p, ':', field.n);
    char conversion = 0;
    if (colon) {
        spec = (struct text){ colon + 1, (size_t)(close - colon - 1) };
        field.n = (size_t)(colon - field.p);
    }
    if (field.n >= 2 && field.p[field.n - 2] == '!') {
        conversion = field.p[field.n - 1];
        field.n -= 2;
        if (conversion != 'r' && conversion != 's') return fail(r, "unsupported conversion '!%c' in a format string", conversion);
    }
    struct val v;
    TRY(find_field(r, c, field, automatic, &v));
    *p = close + 1;
    return put_field(r, &v, conversion, spec);
}

status format_braces(struct render *r, struct call *c, struct val *out)
{
    const char *p = c->self.p, *end = p + c->self.n;
    int64_t automatic = 0;
    size_t mark = text_begin(r);
    while (p < end) {
        const char *q = p;
        while (q < end && *q != '{' && *q != '}') q++;
        TRY(put(r, p, (size_t)(q - p)));
        if (q >= end) break;
        p = q + 1;
        if (p < end && *p == *q) TRY(put(r, p++, 1));
        else if (*q == '}') return fail(r, "single '}' in a format string");
        else TRY(put_brace_field(r, c, &p, end, &automatic));
    }
    return text_end(r, mark, out);
}

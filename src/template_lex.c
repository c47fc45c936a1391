/* template_lex - source text to tokens, one at a time. Decides white space (trim_blocks and lstrip_blocks are on, "-" and "+" in tags) and
 * unescapes string literals; knows no grammar. Its memory: one copy of the source plus one per string with escapes.
 * Source: the lexing rules of Jinja2 3.1 (documentation, "Whitespace Control"; checked against jinja2/lexer.py). */
#include "src/template_int.h"
#include <stdlib.h>
#include <string.h>

static status lex_fail(const struct lexer *x, const char *what)
{
    return err_set(x->e, ERR_FORMAT, "%s line %d: %s", x->name, x->line, what);
}

status lexer_init(struct lexer *x, struct arena *a, const char *src, size_t n, const char *name, struct err *e)
{
    *x = (struct lexer){ .name = name, .line = 1, .arena = a, .e = e };
    if (n > TEMPLATE_SOURCE) return err_set(e, ERR_FORMAT, "%s: template is %zu bytes, limit %d", name, n, TEMPLATE_SOURCE);
    char *copy = arena_strdup(a, src, n), *w = copy;
    if (!copy) return err_set(e, ERR_MEMORY, "%s: no memory for %zu bytes of template", name, n);
    for (const char *s = copy, *end = copy + n; s < end; s++) {
        if (*s == '\r' && s + 1 < end && s[1] == '\n') continue;
        *w++ = *s == '\r' ? '\n' : *s;
    }
    if (w > copy && w[-1] == '\n') w--;
    x->src = x->p = copy;
    x->end = w;
    return OK;
}

static bool at(const struct lexer *x, const char *p, const char *word)
{
    size_t n = strlen(word);
    return (size_t)(x->end - p) >= n && memcmp(p, word, n) == 0;
}

static const char *skip_space(const struct lexer *x, const char *p)
{
    uint32_t c;
    while (p < x->end) {
        int n = text_get(p, x->end, &c);
        if (!cp_is_space(c)) break;
        p += n;
    }
    return p;
}

static void advance(struct lexer *x, const char *to)
{
    for (; x->p < to; x->p++) x->line += *x->p == '\n';
}

/* The end of a tag at p: "-%}" eats the white space behind it, "%}" one newline, "+%}" nothing. NULL: no end here. */
static const char *tag_end(const struct lexer *x, const char *p, const char *close, bool plus, bool newline)
{
    if (*p == '-' && at(x, p + 1, close)) return skip_space(x, p + 3);
    if (plus && *p == '+' && at(x, p + 1, close)) return p + 3;
    if (!at(x, p, close)) return NULL;
    p += 2;
    return newline && p < x->end && *p == '\n' ? p + 1 : p;
}

/* The text before a tag: "-" drops all white space at its end; otherwise the indentation of a block tag alone on its line goes. */
static struct text before_tag(const struct lexer *x, struct text t, char sign, bool variable)
{
    if (sign == '-') return text_strip(t, false, true);
    if (sign == '+' || variable) return t;
    size_t line = t.n;
    while (line > 0 && t.p[line - 1] != '\n') line--;
    bool line_start = line > 0 || t.p == x->src || t.p[-1] == '\n';
    if (line_start && text_strip((struct text){ t.p + line, t.n - line }, true, false).n == 0) t.n = line;
    return t;
}

static char sign_at(const struct lexer *x, const char *p) { return p < x->end && (*p == '-' || *p == '+') ? *p : 0; }

/* "{%- word %}" at p: where the text behind the word begins; NULL if something else stands here. */
static const char *word_tag(const struct lexer *x, const char *p, const char *word)
{
    if (!at(x, p, "{%")) return NULL;
    p += 2;
    if (sign_at(x, p)) p++;
    p = skip_space(x, p);
    if (!at(x, p, word)) return NULL;
    p = skip_space(x, p + strlen(word));
    return p < x->end ? p : NULL;
}

static status lex_comment(struct lexer *x)
{
    const char *p = x->p + 2;
    if (sign_at(x, p)) p++;
    for (; p < x->end; p++) {
        const char *end = tag_end(x, p, "#}", true, true);
        if (!end) continue;
        advance(x, end);
        x->state = LEX_DATA;
        return OK;
    }
    return lex_fail(x, "comment '{#' is not closed");
}

/* Everything up to endraw is data. *found: a raw tag stood here. */
static status lex_raw(struct lexer *x, struct token *t, bool *found)
{
    const char *body = word_tag(x, x->p, "raw");
    if (body) body = tag_end(x, body, "%}", false, false);
    *found = body != NULL;
    if (!body) return OK;
    for (const char *p = body; p < x->end; p++) {
        const char *close = word_tag(x, p, "endraw");
        const char *end = close ? tag_end(x, close, "%}", true, true) : NULL;
        if (!end) continue;
        advance(x, body);
        *t = (struct token){ .kind = T_DATA, .line = x->line };
        t->text = before_tag(x, (struct text){ body, (size_t)(p - body) }, sign_at(x, p + 2), false);
        advance(x, end);
        x->state = LEX_DATA;
        return OK;
    }
    return lex_fail(x, "'raw' is not closed by 'endraw'");
}

static status lex_data(struct lexer *x, struct token *t)
{
    const char *p = x->p;
    while (p < x->end && !(*p == '{' && p + 1 < x->end && strchr("{%#", p[1]) && p[1])) p++;
    *t = (struct token){ .kind = T_DATA, .line = x->line, .text = { x->p, (size_t)(p - x->p) } };
    if (p < x->end) t->text = before_tag(x, t->text, sign_at(x, p + 2), p[1] == '{');
    advance(x, p);
    x->state = LEX_TAG;
    return OK;
}

static status lex_tag(struct lexer *x, struct token *t, bool *got)
{
    *got = true;
    if (x->p >= x->end) {
        *t = (struct token){ .kind = T_EOF, .line = x->line };
        return OK;
    }
    if (x->p[1] == '#') {
        *got = false;
        return lex_comment(x);
    }
    bool variable = x->p[1] == '{', raw = false;
    if (!variable) TRY(lex_raw(x, t, &raw));
    if (raw) return OK;
    *t = (struct token){ .kind = variable ? T_VAR_BEGIN : T_BLOCK_BEGIN, .line = x->line };
    x->p += sign_at(x, x->p + 2) ? 3 : 2;
    x->state = variable ? LEX_VAR : LEX_BLOCK;
    return OK;
}

static int hex_digits(const char *p, const char *end, int n, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        if (p + i >= end) return 0;
        char c = p[i];
        uint32_t d = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a' + 10) : 16;
        if (d == 16) return 0;
        *out = *out << 4 | d;
    }
    return n;
}

/* One escape after the backslash at *p; writes its text at w. Halves of a surrogate pair are joined, a lone one becomes U+FFFD. */
static status unescape_one(struct lexer *x, const char **p, const char *end, char **w)
{
    static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    char c = *(*p)++;
    uint32_t cp = 0;
    for (int i = 0; plain[i]; i += 2)
        if (plain[i] == c) {
            *(*w)++ = plain[i + 1];
            return OK;
        }
    if (c == '\n') return OK;
    int n = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (n) {
        if (!hex_digits(*p, end, n, &cp) || cp > 0x10FFFF) return lex_fail(x, "bad \\x, \\u or \\U escape in a string");
        *p += n;
        uint32_t low;
        if (cp >= 0xD800 && cp < 0xDC00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u' && hex_digits(*p + 2, end, 4, &low) &&
            low >= 0xDC00 && low < 0xE000) {
            cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
            *p += 6;
        }
        if (cp >= 0xD800 && cp < 0xE000) cp = 0xFFFD;
    } else if (c >= '0' && c <= '7') {
        cp = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++) cp = cp * 8 + (uint32_t)(*(*p)++ - '0');
    } else if (c == 'N') {
        return lex_fail(x, "\\N{...} escapes are not supported");
    } else {
        *(*w)++ = '\\'; /* an unknown escape stays as written */
        *(*w)++ = c;
        return OK;
    }
    *w += text_put(cp, *w);
    return OK;
}

static status lex_string(struct lexer *x, struct token *t)
{
    char quote = *x->p;
    const char *begin = x->p + 1, *p = begin;
    bool escaped = false;
    for (; p < x->end && *p != quote; p++)
        if (*p == '\\') {
            escaped = true;
            p++;
        }
    if (p >= x->end) return lex_fail(x, "string is not closed");
    t->kind = T_STR;
    t->text = (struct text){ begin, (size_t)(p - begin) };
    if (escaped) {
        char *copy = arena_alloc(x->arena, t->text.n + 1), *w = copy; /* no escape is longer than what it stands for */
        if (!copy) return err_set(x->e, ERR_MEMORY, "%s: no memory for a string of %zu bytes", x->name, t->text.n);
        for (const char *s = begin; s < p;) {
            if (*s != '\\') *w++ = *s++;
            else {
                s++;
                TRY(unescape_one(x, &s, p, &w));
            }
        }
        t->text = (struct text){ copy, (size_t)(w - copy) };
    }
    advance(x, p + 1);
    return OK;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Digits of a base with single underscores between them; returns their end, p if there are none. */
static const char *digits(const struct lexer *x, const char *p, int base)
{
    const char *q = p;
    while (q < x->end) {
        const char *d = *q == '_' && q > p ? q + 1 : q;
        uint32_t v;
        if (d >= x->end || !hex_digits(d, x->end, 1, &v) || (int)v >= base) break;
        q = d + 1;
    }
    return q;
}

static status lex_number(struct lexer *x, struct token *t)
{
    const char *p = x->p, *end = digits(x, p, 10);
    char buf[64];
    int base = 10, n = 0;
    bool is_float = false;
    if (p == x->src || p[-1] != '.') { /* "a.0.5" is two subscripts */
        const char *q = end;
        if (q + 1 < x->end && *q == '.' && is_digit(q[1])) q = digits(x, q + 1, 10), is_float = true;
        if (q < x->end && (*q | 32) == 'e') {
            const char *s = q + 1;
            if (s < x->end && (*s == '+' || *s == '-')) s++;
            if (s < x->end && is_digit(*s)) q = digits(x, s, 10), is_float = true;
        }
        if (is_float) end = q;
    }
    if (!is_float && *p == '0') {
        char c = p + 1 < x->end ? (char)(p[1] | 32) : 0;
        base = c == 'b' ? 2 : c == 'o' ? 8 : c == 'x' ? 16 : 10;
        if (base != 10) {
            p += 2;
            end = digits(x, p, base);
            if (end == p) return lex_fail(x, "number without digits");
        }
    }
    for (; p < end; p++) {
        if (*p == '_') continue;
        if (n == (int)sizeof buf - 1) return lex_fail(x, "number has more than 63 digits");
        buf[n++] = *p;
    }
    buf[n] = 0;
    t->kind = is_float ? T_FLOAT : T_INT;
    if (is_float) t->f = strtod(buf, NULL);
    else
        for (int i = 0; i < n; i++) {
            uint32_t d = 0;
            (void)hex_digits(buf + i, buf + n, 1, &d);
            if (__builtin_mul_overflow(t->i, (int64_t)base, &t->i) || __builtin_add_overflow(t->i, (int64_t)d, &t->i))
                return lex_fail(x, "integer does not fit into 64 bits");
        }
    x->p = end;
    return OK;
}

static const struct {
    const char text[3];
    enum tok kind;
} operators[] = {
    /* longer ones first */
    { "//", T_FLOORDIV }, { "**", T_POW },      { "==", T_EQ },    { "!=", T_NE },    { "<=", T_LE },    { ">=", T_GE },
    { "+", T_ADD },       { "-", T_SUB },       { "*", T_MUL },    { "/", T_DIV },    { "%", T_MOD },    { "~", T_TILDE },
    { "[", T_LBRACKET },  { "]", T_RBRACKET },  { "(", T_LPAREN }, { ")", T_RPAREN }, { "{", T_LBRACE }, { "}", T_RBRACE },
    { "<", T_LT },        { ">", T_GT },        { "=", T_ASSIGN }, { ".", T_DOT },    { ":", T_COLON },  { "|", T_PIPE },
    { ",", T_COMMA },     { ";", T_SEMICOLON },
};

static status lex_operator(struct lexer *x, struct token *t)
{
    for (int i = 0; i < ARRAY_LEN(operators); i++) {
        if (!at(x, x->p, operators[i].text)) continue;
        t->kind = operators[i].kind;
        t->text = (struct text){ x->p, strlen(operators[i].text) };
        x->p += t->text.n;
        char c = t->text.p[0];
        if (strchr("([{", c)) {
            if (x->n_open == TEMPLATE_DEPTH) return lex_fail(x, "brackets are nested deeper than 128");
            x->open[x->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (strchr(")]}", c)) {
            if (x->n_open == 0) return err_set(x->e, ERR_FORMAT, "%s line %d: unexpected '%c'", x->name, x->line, c);
            char want = x->open[--x->n_open];
            if (want != c) return err_set(x->e, ERR_FORMAT, "%s line %d: unexpected '%c', expected '%c'", x->name, x->line, c, want);
        }
        return OK;
    }
    unsigned char c = (unsigned char)*x->p;
    if (c > 32 && c < 127) return err_set(x->e, ERR_FORMAT, "%s line %d: unexpected character '%c'", x->name, x->line, c);
    return err_set(x->e, ERR_FORMAT, "%s line %d: unexpected byte 0x%02x", x->name, x->line, c);
}

static bool in_name(char c) { return is_digit(c) || c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c & 0x80); }

static status lex_inside(struct lexer *x, struct token *t)
{
    advance(x, skip_space(x, x->p));
    *t = (struct token){ .kind = T_EOF, .line = x->line };
    if (x->p >= x->end) return OK;
    bool block = x->state == LEX_BLOCK;
    const char *end = x->n_open ? NULL : tag_end(x, x->p, block ? "%}" : "}}", block, block);
    if (end) {
        t->kind = block ? T_BLOCK_END : T_VAR_END;
        advance(x, end);
        x->state = LEX_DATA;
        return OK;
    }
    char c = *x->p;
    if (c == '"' || c == '\'') return lex_string(x, t);
    if (is_digit(c)) return lex_number(x, t);
    if (!in_name(c)) return lex_operator(x, t);
    const char *p = x->p;
    while (p < x->end && in_name(*p)) p++;
    t->kind = T_NAME;
    t->text = (struct text){ x->p, (size_t)(p - x->p) };
    x->p = p;
    return OK;
}

status lexer_next(struct lexer *x, struct token *t)
{
    for (;;) {
        if (x->state == LEX_BLOCK || x->state == LEX_VAR) return lex_inside(x, t);
        if (x->state == LEX_DATA) {
            TRY(lex_data(x, t));
            if (t->text.n) return OK;
        }
        bool got;
        TRY(lex_tag(x, t, &got));
        if (got && !(t->kind == T_DATA && t->text.n == 0)) return OK;
    }
}

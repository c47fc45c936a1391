/* rows - see rows.h. The members of a list are found by counting brackets outside strings; whether they are JSON is for rows_parse to say. */
#include "tools/rows.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "ggml-like/file.h"

static const size_t bytes_max = (size_t)1 << 32;

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* White space aside, does the text begin with these characters? */
static bool begins(const char *text, size_t n, const char *with)
{
    size_t at = 0;
    for (; *with; with++, at++) {
        while (at < n && is_blank(text[at])) at++;
        if (at == n || text[at] != *with) return false;
    }
    return true;
}

static bool named(const char *path, const char *end)
{
    size_t m = strlen(path), n = strlen(end);
    return m > n && !strcasecmp(path + m - n, end);
}

void rows_of(struct rows *r, const char *name, const char *text, size_t n)
{
    size_t mark = n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0; /* some editors put it before JSON */
    *r = (struct rows){ .path = name, .text = text + mark, .n = n - mark, .line = 1 };
    if (begins(r->text, r->n, "[{\"")) r->kind = ROWS_LIST;
    else if (named(name, ".jsonl") || begins(r->text, r->n, "{\"")) r->kind = ROWS_LINES;
}

status rows_open(struct rows *r, const char *path, struct err *e)
{
    char *text;
    size_t n;
    *r = (struct rows){ 0 };
    TRY(file_text(path, bytes_max, &text, &n, e));
    rows_of(r, path, text, n);
    if (r->kind == ROWS_TEXT && (named(path, ".json") || named(path, ".ndjson"))) r->kind = ROWS_LINES; /* whose faults are told */
    r->owned = text;
    return OK;
}

void rows_close(struct rows *r)
{
    mem_free(r->owned);
    *r = (struct rows){ 0 };
}

/* ---- lines ---- */

static bool next_line(struct rows *r, struct row *out)
{
    while (r->at < r->n) {
        const char *p = r->text + r->at, *end = memchr(p, '\n', r->n - r->at);
        size_t n = end ? (size_t)(end - p) : r->n - r->at, first = 0;
        r->at += n + 1;
        r->line++;
        while (first < n && is_blank(p[first])) first++;
        if (first == n) continue;
        *out = (struct row){ p, n, r->line - 1 };
        return true;
    }
    return false;
}

/* ---- the members of a list ---- */

static void skip_blanks(struct rows *r)
{
    for (; r->at < r->n && is_blank(r->text[r->at]); r->at++) r->line += r->text[r->at] == '\n';
}

static status list_expected(const struct rows *r, const char *what, struct err *e)
{
    char found[24] = "the end";
    unsigned char c = r->at < r->n ? (unsigned char)r->text[r->at] : 0;
    if (r->at < r->n) snprintf(found, sizeof found, c > 0x20 && c < 0x7f ? "'%c'" : "byte 0x%02x", c);
    return err_set(e, ERR_FORMAT, "%.100s:%lld: expected %s, found %s", r->path, (long long)r->line, what, found);
}

/* To the comma or bracket behind the member at r->at. */
static void skip_member(struct rows *r)
{
    int64_t depth = 0;
    bool quoted = false;
    for (; r->at < r->n; r->at++) {
        char c = r->text[r->at];
        if (c == '\n') r->line++;
        if (quoted) {
            if (c == '\\' && r->at + 1 < r->n && r->text[r->at + 1] != '\n') r->at++;
            quoted = c != '"';
        } else if (c == '"') quoted = true;
        else if (c == '{' || c == '[') depth++;
        else if (depth == 0 && (c == ',' || c == ']' || c == '}')) return;
        else if (c == '}' || c == ']') depth--;
    }
}

static status next_member(struct rows *r, struct row *out, bool *more, struct err *e)
{
    skip_blanks(r);
    bool first = r->n_rows == 0;
    if (first) r->at++; /* the bracket that rows_of saw */
    skip_blanks(r);
    if (r->at < r->n && r->text[r->at] == ']') {
        r->at++;
        skip_blanks(r);
        *more = false;
        return r->at == r->n ? OK : list_expected(r, "the end behind the list", e);
    }
    if (!first) {
        if (r->at == r->n || r->text[r->at] != ',') return list_expected(r, "',' or ']' behind a member of the list", e);
        r->at++;
        skip_blanks(r);
    }
    if (r->at == r->n || r->text[r->at] != '{') return list_expected(r, "an object as member of the list", e);
    *out = (struct row){ r->text + r->at, 0, r->line };
    skip_member(r);
    out->n = (size_t)(r->text + r->at - out->p);
    return OK;
}

/* ---- both ---- */

status rows_next(struct rows *r, struct row *out, bool *more, struct err *e)
{
    *more = true;
    if (r->kind == ROWS_LIST) TRY(next_member(r, out, more, e));
    else *more = r->kind == ROWS_LINES && next_line(r, out);
    r->n_rows += *more;
    return OK;
}

status rows_parse(struct row *row, struct arena *a, struct json **out, struct err *e)
{
    struct err why = { 0 };
    status st = json_parse(out, row->p, row->n, a, "", &why);
    if (st != ERR_FORMAT) return st == OK ? OK : err_set(e, st, "%s", why.text);
    char *rest = NULL;
    long long line = why.text[0] == ':' ? strtoll(why.text + 1, &rest, 10) : 1;
    row->line += line - 1;
    return err_set(e, st, "column %s", rest && *rest == ':' ? rest + 1 : why.text);
}

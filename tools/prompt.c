/* prompt - see prompt.h. Knows templates and tokens, not sessions. */
#include "tools/prompt.h"
#include "ggml-like/file.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEMPLATE_FILE_MAX = 4 << 20, MARKER_CAP = 32 };

/* ---- control tokens ---- */

static int by_text(const void *a, const void *b)
{
    const struct control *x = a, *y = b;
    int cx = (unsigned char)x->text.p[0], cy = (unsigned char)y->text.p[0];
    if (cx != cy) return cx - cy;
    return x->text.n < y->text.n ? 1 : x->text.n > y->text.n ? -1 : 0;
}

static bool is_control(const struct tokenizer *t, int32_t id)
{
    int attr = tokenizer_attr(t, id);
    return (attr == TOKEN_CONTROL || attr == TOKEN_UNKNOWN) && tokenizer_text(t, id).n > 0;
}

static status list_controls(struct prompt *p, struct err *e)
{
    int64_t size = tokenizer_size(p->tok), n = 0;
    for (int32_t id = 0; id < size; id++) n += is_control(p->tok, id);
    p->control = mem_calloc((size_t)n + 1, sizeof *p->control);
    if (!p->control) return err_oom(e, "control tokens", (size_t)n * sizeof *p->control);
    for (int32_t id = 0; id < size; id++)
        if (is_control(p->tok, id)) p->control[p->n_control++] = (struct control){ id, tokenizer_text(p->tok, id) };
    qsort(p->control, (size_t)p->n_control, sizeof *p->control, by_text);
    for (int b = 0, i = 0; b <= 256; b++) {
        while (i < p->n_control && (unsigned char)p->control[i].text.p[0] < b) i++;
        p->first[b] = i;
    }
    return OK;
}

/* The longest control token whose text stands at `at`, or NULL. */
static const struct control *control_at(const struct prompt *p, const char *text, size_t n, size_t at)
{
    int b = (unsigned char)text[at];
    for (int i = p->first[b]; i < p->first[b + 1]; i++)
        if (p->control[i].text.n <= n - at && !memcmp(p->control[i].text.p, text + at, p->control[i].text.n)) return &p->control[i];
    return NULL;
}

static bool contains_control(const struct prompt *p, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (control_at(p, text, n, i)) return true;
    return false;
}

/* ---- opening ---- */

static char *text_of(const struct tokenizer *t, int32_t id)
{
    struct str s = id >= 0 ? tokenizer_text(t, id) : (struct str){ 0 };
    char *copy = mem_alloc(s.n + 1);
    if (!copy) return NULL;
    if (s.n) memcpy(copy, s.p, s.n);
    copy[s.n] = 0;
    return copy;
}

static const struct chat_builtin *builtin(const char *name)
{
    for (int i = 0; i < chat_builtin_count; i++)
        if (!strcmp(chat_builtins[i].name, name)) return &chat_builtins[i];
    return NULL;
}

/* Finds the template text; *owned is what must be freed afterwards. */
static status pick_template(struct str file_template, const char *name, const char *model, struct str *source, char **owned, const char **label,
                            struct err *e)
{
    *source = file_template, *owned = NULL, *label = "tokenizer.chat_template";
    if (!name && file_template.n == 0) return err_set(e, ERR_USAGE, "%s has no chat template (no tokenizer.chat_template in the file)", model);
    if (!name) return OK;
    const struct chat_builtin *row = builtin(name);
    *label = name;
    if (row) *source = (struct str){ row->source, strlen(row->source) };
    if (row) return OK;
    struct err why = { 0 };
    size_t n;
    status st = file_text(name, TEMPLATE_FILE_MAX, owned, &n, &why);
    if (st == OK) *source = (struct str){ *owned, n };
    if (st == OK) return OK;
    if (strchr(name, '/') || strchr(name, '.')) return err_set(e, why.code, "%s", why.text);
    char names[160] = "";
    for (int i = 0; i < chat_builtin_count; i++) {
        size_t len = strlen(names);
        snprintf(names + len, sizeof names - len, "%s%s", i ? ", " : "", chat_builtins[i].name);
    }
    return err_set(e, ERR_USAGE, "--template: '%s' is neither a file nor one of %s", name, names);
}

status prompt_open(struct prompt *p, const struct tokenizer *t, struct str file_template, const char *template_name, const char *model, struct err *e)
{
    struct str source;
    char *owned = NULL, *bos = text_of(t, tokenizer_bos(t)), *eos = text_of(t, tokenizer_eos(t));
    const char *label;
    *p = (struct prompt){ .tok = t, .now = (int64_t)time(NULL) };
    status st = bos && eos ? OK : err_oom(e, "prompt", 0);
    if (st == OK) st = pick_template(file_template, template_name, model, &source, &owned, &label, e);
    if (st == OK) st = chat_open(&p->chat, source.p, source.n, label, bos, eos, e);
    if (st == OK) st = chat_open(&p->marked, source.p, source.n, label, bos, eos, e);
    if (st == OK) st = list_controls(p, e);
    mem_free(owned), mem_free(bos), mem_free(eos);
    if (st != OK) prompt_close(p);
    return st;
}

static void shape_free(struct shape *s)
{
    mem_free(s->key), mem_free(s->text), mem_free(s->turn);
    *s = (struct shape){ 0 };
}

void prompt_close(struct prompt *p)
{
    chat_close(p->chat), chat_close(p->marked);
    for (int i = 0; i < PROMPT_SHAPES; i++) shape_free(&p->shape[i]);
    shape_free(&p->own);
    mem_free(p->control), mem_free(p->text), mem_free(p->ids), mem_free(p->span);
    *p = (struct prompt){ 0 };
}

/* ---- where the messages are ---- */

static status add_span(struct prompt *p, struct span span, struct err *e)
{
    if (p->n_span == p->span_cap) {
        int cap = p->span_cap ? 2 * p->span_cap : 16;
        struct span *s = mem_realloc(p->span, (size_t)cap * sizeof *s);
        if (!s) return err_oom(e, "prompt", (size_t)cap * sizeof *s);
        p->span = s, p->span_cap = cap;
    }
    p->span[p->n_span++] = span;
    return OK;
}

/* \001<number>\002 - cannot be confused with template text, is no white space, survives trim. */
static const char *next_marker(const char *p, const char *end, long *index, size_t *len)
{
    for (; p < end && (p = memchr(p, 1, (size_t)(end - p))); p++) {
        char *stop;
        long i = strtol(p + 1, &stop, 10);
        if (stop == p + 1 || *stop != 2) continue;
        *index = i, *len = (size_t)(stop + 1 - p);
        return p;
    }
    return NULL;
}

static bool starts(const char *text, size_t n, const char *part, size_t m) { return m <= n && !memcmp(text, part, m); }

/* How the message stands at the front of text, with `after` behind it: as it is, or without white space at its ends. -1: not there. */
static int64_t match_message(struct chat_message m, const char *text, size_t n, const char *after, size_t after_n)
{
    const char *p = m.text, *end = m.text + m.n;
    if (starts(text, n, p, m.n) && starts(text + m.n, n - m.n, after, after_n)) return (int64_t)m.n;
    while (p < end && isspace((unsigned char)*p)) p++;
    while (end > p && isspace((unsigned char)end[-1])) end--;
    size_t len = (size_t)(end - p);
    if (starts(text, n, p, len) && starts(text + len, n - len, after, after_n)) return (int64_t)len;
    return -1;
}

/* Walks the marked rendering and the real one side by side. */
static status match_spans(struct prompt *p, const char *marked, size_t marked_n, const char *text, size_t n, struct err *e)
{
    const char *m = marked, *end = marked + marked_n;
    size_t at = 0, len = 0, next_len = 0;
    long index = 0, next_index = 0;
    const char *mark = next_marker(m, end, &index, &len);
    size_t literal = (size_t)((mark ? mark : end) - m);
    if (!starts(text, n, m, literal)) return OK;
    for (at = literal; mark; at += literal) {
        m = mark + len;
        mark = next_marker(m, end, &next_index, &next_len);
        literal = (size_t)((mark ? mark : end) - m);
        if (index < 0 || index >= chat_count(p->chat)) return OK;
        int64_t took = match_message(chat_at(p->chat, index), text + at, n - at, m, literal);
        if (took < 0) return OK;
        TRY(add_span(p, (struct span){ at, at + (size_t)took, (size_t)(m - len - marked), len }, e));
        at += (size_t)took;
        index = next_index, len = next_len;
    }
    p->spans_known = at == n;
    return OK;
}

status prompt_mark(struct prompt *p, struct err *e)
{
    char marker[MARKER_CAP];
    chat_truncate(p->marked, 0);
    for (int64_t i = 0; i < chat_count(p->chat); i++) {
        struct chat_message m = chat_at(p->chat, i);
        int len = m.n ? snprintf(marker, sizeof marker, "\001%lld\002", (long long)i) : 0;
        TRY(chat_add(p->marked, m.role, marker, (size_t)len, e));
    }
    return OK;
}

/* What a shape depends on: for every message its role and whether it is empty, then whether an answer is opened. */
static size_t shape_key(const struct prompt *p, bool add_generation, char *key)
{
    size_t n = 0;
    for (int64_t i = 0; i < chat_count(p->chat); i++) {
        struct chat_message m = chat_at(p->chat, i);
        size_t len = strlen(m.role) + 1;
        if (key) memcpy(key + n, m.role, len), key[n + len] = m.n > 0;
        n += len + 1;
    }
    if (key) key[n] = add_generation;
    return n + 1;
}

static status find_shape(struct prompt *p, bool add_generation, struct err *e)
{
    size_t n = shape_key(p, add_generation, NULL);
    char *key = mem_alloc(n);
    if (!key) return err_oom(e, "prompt", n);
    shape_key(p, add_generation, key);
    struct shape *s = p->current = p->extra ? &p->own : &p->shape[hash64((uintptr_t)p, key, n) % PROMPT_SHAPES];
    if (!p->extra && s->key && s->n_key == n && !memcmp(s->key, key, n)) return mem_free(key), OK;
    shape_free(s);
    struct err why = { 0 };
    status st = prompt_mark(p, e);
    if (st == OK && chat_render(p->marked, add_generation, p->extra, p->now, &s->text, &s->n, &why) == ERR_MEMORY) st = err_set(e, why.code, "%s", why.text);
    if (st == OK) s->key = key, s->n_key = n;
    else mem_free(key);
    return st;
}

static status find_spans(struct prompt *p, bool add_generation, const char *text, size_t n, struct err *e)
{
    p->n_span = 0, p->spans_known = false;
    TRY(find_shape(p, add_generation, e));
    return p->current->text ? match_spans(p, p->current->text, p->current->n, text, n, e) : OK;
}

status prompt_render(struct prompt *p, bool add_generation, char **text, size_t *n, struct err *e)
{
    TRY(chat_render(p->chat, add_generation, p->extra, p->now, text, n, e));
    status st = find_spans(p, add_generation, *text, *n, e);
    if (st == OK && !p->spans_known)
        for (int64_t i = 0; i < chat_count(p->chat) && st == OK; i++) {
            struct chat_message m = chat_at(p->chat, i);
            if (contains_control(p, m.text, m.n))
                st = err_set(e, ERR_USAGE, "message %lld contains the text of a control token, and this template rewrites messages: "
                             "it could not be kept apart; remove it or use another --template", (long long)i + 1);
        }
    if (st != OK) mem_free(*text), *text = NULL;
    return st;
}

/* ---- encoding ---- */

static status ids_room(int32_t **ids, int64_t *cap, int64_t need, struct err *e)
{
    if (need <= *cap) return OK;
    int32_t *q = mem_realloc(*ids, (size_t)need * sizeof **ids);
    if (!q) return err_oom(e, "tokens", (size_t)need * sizeof **ids);
    *ids = q, *cap = need;
    return OK;
}

status encode_text(const struct tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids, int64_t *n_ids, int64_t *cap, struct err *e)
{
    int64_t n_new = 0;
    TRY(ids_room(ids, cap, *n_ids + (int64_t)(n / 3) + 16, e));
    for (;;) {
        TRY(tokenizer_encode(t, text, n, flags, *ids + *n_ids, *cap - *n_ids, &n_new, e));
        if (n_new <= *cap - *n_ids) break;
        TRY(ids_room(ids, cap, *n_ids + n_new, e));
    }
    *n_ids += n_new;
    return OK;
}

static bool needs_bos(const struct tokenizer *t, const int32_t *ids, int64_t n)
{
    int32_t bos = tokenizer_bos(t);
    return tokenizer_adds_bos(t) && bos >= 0 && (n == 0 || ids[0] != bos);
}

static bool overlaps(const struct prompt *p, size_t from, size_t to)
{
    for (int i = 0; i < p->n_span; i++)
        if (from < p->span[i].to && to > p->span[i].from) return true;
    return false;
}

/* Is there text of a control token in, or across the border of, a message behind `from`? */
static bool messages_imitate(const struct prompt *p, const char *text, size_t n, size_t from)
{
    for (size_t i = from; i < n; i++) {
        const struct control *c = control_at(p, text, n, i);
        if (c && overlaps(p, i, i + c->text.n)) return true;
    }
    return false;
}

/* Encodes text[from..n): in one piece if messages are harmless, else split at the template's control tokens. */
static status encode_from(struct prompt *p, const char *text, size_t n, size_t from, struct err *e)
{
    if (!p->spans_known || !messages_imitate(p, text, n, from))
        return encode_text(p->tok, text + from, n - from, ENCODE_SPECIAL, &p->ids, &p->n_ids, &p->cap, e);
    size_t start = from;
    for (size_t i = from; i < n;) {
        const struct control *c = control_at(p, text, n, i);
        if (!c || overlaps(p, i, i + c->text.n)) {
            i++;
            continue;
        }
        if (i > start) TRY(encode_text(p->tok, text + start, i - start, 0, &p->ids, &p->n_ids, &p->cap, e));
        TRY(ids_room(&p->ids, &p->cap, p->n_ids + 1, e));
        p->ids[p->n_ids++] = c->id;
        start = i += c->text.n;
    }
    if (start < n) TRY(encode_text(p->tok, text + start, n - start, 0, &p->ids, &p->n_ids, &p->cap, e));
    return OK;
}

status prompt_add_bos(struct prompt *p, struct err *e)
{
    if (!needs_bos(p->tok, p->ids, p->n_ids)) return OK;
    TRY(ids_room(&p->ids, &p->cap, p->n_ids + 1, e));
    memmove(p->ids + 1, p->ids, (size_t)p->n_ids * sizeof *p->ids);
    p->ids[0] = tokenizer_bos(p->tok);
    p->n_ids++;
    return OK;
}

static bool continues(const struct prompt *p, const char *text, size_t n)
{
    if (!p->exact || p->n_text == 0 || n <= p->n_text || memcmp(text, p->text, p->n_text)) return false;
    const struct control *c = control_at(p, text, n, p->n_text);
    return c && !overlaps(p, p->n_text, p->n_text + c->text.n);
}

status prompt_encode(struct prompt *p, bool add_generation, struct err *e)
{
    char *text;
    size_t n;
    TRY(prompt_render(p, add_generation, &text, &n, e));
    bool kept = continues(p, text, n);
    size_t from = kept ? p->n_text : 0;
    p->n_kept = kept ? p->n_ids : 0;
    p->n_ids = p->n_kept;
    mem_free(p->text);
    p->text = text, p->n_text = n, p->text_cap = n + 1;
    status st = encode_from(p, text, n, from, e);
    if (st == OK && !kept) st = prompt_add_bos(p, e);
    p->exact = st == OK;
    return st;
}

status prompt_count(struct prompt *p, int64_t *n_ids, struct err *e)
{
    char *text;
    size_t n;
    int64_t had = p->n_ids;
    *n_ids = 0;
    if (chat_count(p->chat) == 0) return OK;
    TRY(prompt_render(p, false, &text, &n, e));
    bool kept = continues(p, text, n);
    status st = encode_from(p, text, n, kept ? p->n_text : 0, e);
    *n_ids = p->n_ids - (kept ? 0 : had);
    if (!kept) *n_ids += needs_bos(p->tok, p->ids + had, *n_ids);
    p->n_ids = had;
    mem_free(text);
    return st;
}

status prompt_reserve(struct prompt *p, int64_t n_ids, struct err *e) { return ids_room(&p->ids, &p->cap, p->n_ids + n_ids, e); }

void prompt_append(struct prompt *p, int32_t id)
{
    if (p->n_ids < p->cap) p->ids[p->n_ids++] = id;
}

status prompt_answer(struct prompt *p, const char *text, size_t n, bool exact, struct err *e)
{
    size_t need = p->n_text + n + 1;
    p->exact = p->exact && exact;
    if (need > p->text_cap) {
        char *q = mem_realloc(p->text, need);
        if (!q) return p->exact = false, err_oom(e, "answer", need);
        p->text = q, p->text_cap = need;
    }
    memcpy(p->text + p->n_text, text, n);
    p->n_text += n;
    p->text[p->n_text] = 0;
    return OK;
}

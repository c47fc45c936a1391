/* dataset - see dataset.h. Rows are encoded one by one: the template's control tokens count as such, what looks like one in a message does not. */
#include "tools/dataset.h"
#include <string.h>
#include "tools/prompt.h"
#include "tools/rows.h"

enum { TEXT_MAX = 1 << 30 };
static const int64_t template_date = 1721952000; /* 26 July 2024, for templates that tell the date: the ids must not change with the day */
const char dataset_default[] = "default";

struct reading {
    struct dataset *d;
    const struct tokenizer *tok;
    struct prompt prompt;
    bool has_template, lenient; /* lenient: a conversation that the template refuses becomes plain text */
    int64_t cap;
};

/* ---- ids ---- */

static status add_ids(struct reading *r, const int32_t *ids, int64_t n, struct err *e)
{
    struct dataset *d = r->d;
    if (d->n_ids + n > r->cap) {
        int64_t cap = max_i64(2 * r->cap, d->n_ids + n + 1024);
        int32_t *grown = mem_realloc(d->ids, (size_t)cap * sizeof *grown);
        if (!grown) return err_oom(e, "tokens", (size_t)cap * sizeof *grown);
        d->ids = grown, r->cap = cap;
    }
    if (n > 0) memcpy(d->ids + d->n_ids, ids, (size_t)n * sizeof *ids);
    d->n_ids += n;
    return OK;
}

static status add_text(struct reading *r, const char *text, size_t n, struct err *e)
{
    return encode_text(r->tok, text, n, r->d->n_ids == 0 ? ENCODE_BOS : 0, &r->d->ids, &r->d->n_ids, &r->cap, e);
}

/* A text or a turn, and the blank line that parts it from what follows: encoded together, because some tokenizers put a space before each text. */
static status add_part(struct reading *r, const char *text, size_t n, struct err *e)
{
    char *copy = mem_alloc(n + 2);
    if (!copy) return err_oom(e, "text", n + 2);
    if (n > 0) memcpy(copy, text, n);
    memcpy(copy + n, "\n\n", 2);
    status st = add_text(r, copy, n + 2, e);
    mem_free(copy);
    return st;
}

static bool is_bos(const struct tokenizer *t, int32_t id) { return tokenizer_adds_bos(t) && id == tokenizer_bos(t); }

/* The conversation that stands in r->prompt. */
static status add_chat(struct reading *r, struct err *e)
{
    struct prompt *p = &r->prompt;
    struct err why = { 0 };
    if (chat_count(p->chat) == 0) return err_set(e, ERR_FORMAT, "no messages");
    status st = r->has_template ? prompt_encode(p, false, &why) : ERR_USAGE;
    if (st == OK) {
        int64_t skip = r->d->n_ids > 0 && p->n_ids > 0 && is_bos(r->tok, p->ids[0]); /* a window has one, at its front */
        r->d->n_chats++;
        return add_ids(r, p->ids + skip, p->n_ids - skip, e);
    }
    if (st == ERR_MEMORY || (r->has_template && !r->lenient)) return err_set(e, why.code, "%s", why.text);
    r->d->n_plain++;
    for (int64_t i = 0; i < chat_count(p->chat); i++) {
        struct chat_message m = chat_at(p->chat, i);
        TRY(add_part(r, m.text, m.n, e));
    }
    return OK;
}

/* ---- rows ---- */

static status row_messages(struct reading *r, const struct json *row, struct err *e)
{
    TRY(chat_from_json(r->prompt.chat, row, e));
    return add_chat(r, e);
}

static status row_text(struct reading *r, const struct json *row, struct err *e)
{
    const struct json *s = json_get(row, "text");
    if (s->kind != JSON_STR) return err_set(e, ERR_FORMAT, "text: expected a string");
    return add_part(r, s->str, (size_t)s->n, e);
}

static status row_pair(struct reading *r, const struct json *row, struct err *e)
{
    static const char *const keys[] = { "prompt", "completion" }, *const roles[] = { "user", "assistant" };
    chat_truncate(r->prompt.chat, 0);
    for (int i = 0; i < 2; i++) {
        const struct json *s = json_get(row, keys[i]);
        if (!s || s->kind != JSON_STR) return err_set(e, ERR_FORMAT, "%s: expected a string", keys[i]);
        TRY(chat_add(r->prompt.chat, roles[i], s->str, (size_t)s->n, e));
    }
    return add_chat(r, e);
}

static status add_row(struct reading *r, struct row *line, struct err *e)
{
    static const struct { const char *key; status (*read)(struct reading *, const struct json *, struct err *); } kinds[] = {
        { "messages", row_messages }, { "text", row_text }, { "prompt", row_pair },
    };
    struct arena a;
    struct json *row;
    arena_init(&a, 0);
    status st = rows_parse(line, &a, &row, e);
    int i = 0;
    while (st == OK && i < ARRAY_LEN(kinds) && !json_get(row, kinds[i].key)) i++;
    if (st == OK && i == ARRAY_LEN(kinds))
        st = err_set(e, ERR_FORMAT, "expected an object with \"messages\", with \"text\", or with \"prompt\" and \"completion\"");
    else if (st == OK) st = kinds[i].read(r, row, e);
    arena_free(&a);
    return st;
}

static status add_rows(struct reading *r, struct rows *rows, struct err *e)
{
    struct row row;
    bool more;
    for (;;) {
        struct err why = { 0 };
        TRY(rows_next(rows, &row, &more, e));
        if (!more) break;
        status st = add_row(r, &row, &why);
        if (st == ERR_MEMORY) return err_set(e, st, "%s", why.text);
        if (st != OK) return err_set(e, ERR_FORMAT, "%.100s:%lld: %s", rows->path, (long long)row.line, why.text);
        r->d->n_rows++;
    }
    return r->d->n_rows > 0 ? OK : err_set(e, ERR_FORMAT, "%.100s: no rows", rows->path);
}

/* ---- whole ---- */

static status open_prompt(struct reading *r, struct str file_template, const char *name, struct err *e)
{
    static const struct str none = { "", 0 };
    r->has_template = name || file_template.n > 0;
    struct err why = { 0 };
    status st = prompt_open(&r->prompt, r->tok, file_template, r->has_template ? name : "chatml", "model", &why); /* without one chats are only kept there */
    if (st != OK && st != ERR_MEMORY && r->lenient) {
        r->has_template = false;
        return prompt_open(&r->prompt, r->tok, none, "chatml", "model", e);
    }
    if (st != OK) return err_set(e, st, "%s", why.text);
    r->prompt.now = template_date;
    return OK;
}

status dataset_read(struct dataset *d, const char *path, const struct tokenizer *t, struct str file_template, const char *template_name, struct err *e)
{
    struct reading r = { .d = d, .tok = t, .lenient = !strcmp(path, dataset_default) };
    struct str text = dataset_text_default();
    char *owned = NULL;
    *d = (struct dataset){ 0 };
    if (!r.lenient) TRY(file_text(path, TEXT_MAX, &owned, &text.n, e));
    if (!r.lenient) text.p = owned;
    status st = OK;
    struct rows rows;
    rows_of(&rows, path, text.p, text.n);
    if (rows.kind != ROWS_TEXT) {
        st = open_prompt(&r, file_template, template_name, e);
        if (st == OK) st = add_rows(&r, &rows, e);
        prompt_close(&r.prompt);
    } else {
        if (text.n > 0 && text.p[text.n - 1] == '\n') text.n--; /* as llama.cpp's tools do */
        st = add_text(&r, text.p, text.n, e);
    }
    mem_free(owned);
    if (st != OK) dataset_close(d);
    return st;
}

void dataset_close(struct dataset *d)
{
    mem_free(d->ids);
    *d = (struct dataset){ 0 };
}

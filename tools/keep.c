/* keep - see keep.h. A conversation stands in the file's note as JSON: {"messages": [...], "text": "...", "ids": [...], "now": seconds}. With the ids
 * that its text had, an answer stays in the KV cache token for token, however the tokenizer would cut it. */
#include "tools/keep.h"
#include <stdio.h>
#include <string.h>

static void put_messages(struct json_out *o, const struct chat *c)
{
    json_begin(o, "messages", '[');
    for (int64_t i = 0; i < chat_count(c); i++) {
        struct chat_message m = chat_at(c, i);
        json_begin(o, NULL, '{');
        json_put_cstr(o, "role", m.role);
        json_put_str(o, "content", m.text, m.n);
        json_end(o, '}');
    }
    json_end(o, ']');
}

status keep_save(const struct runtime *rt, const struct cli *c, const struct prompt *p, struct err *e)
{
    struct json_out o;
    if (!c->session_file) return OK;
    json_out_init(&o, false);
    if (p && p->chat) {
        json_begin(&o, NULL, '{');
        put_messages(&o, p->chat);
        json_put_i64(&o, "now", p->now);
        if (p->exact) json_put_str(&o, "text", p->text, p->n_text);
        json_begin(&o, "ids", '[');
        for (int64_t i = 0; i < p->n_ids; i++) json_put_i64(&o, NULL, p->ids[i]);
        json_end(&o, ']');
        json_end(&o, '}');
    }
    status st = json_out_ok(&o) ? session_save(rt->session, c->session_file, o.buf, o.n, e) : err_oom(e, "conversation", o.n);
    json_out_free(&o);
    return st;
}

/* The text and its ids. Ids that are none make the text count as new: it is then encoded again. */
static status take_text(struct prompt *p, const struct json *text, const struct json *ids, int64_t n_vocab, struct err *e)
{
    if (!text || text->kind != JSON_STR || !ids || ids->kind != JSON_ARR) return OK;
    TRY(prompt_reserve(p, ids->n, e));
    TRY(prompt_answer(p, text->str, (size_t)text->n, true, e));
    p->exact = true;
    for (const struct json *j = ids->child; j; j = j->next) {
        if (j->kind != JSON_INT || j->i < 0 || j->i >= n_vocab) return p->exact = false, OK;
        prompt_append(p, (int32_t)j->i);
    }
    return OK;
}

static status take_note(struct prompt *p, const struct cli *c, const char *note, size_t n, int64_t n_vocab, struct err *e)
{
    struct arena a;
    struct json *j;
    arena_init(&a, 0);
    status st = json_parse(&j, note, n, &a, c->session_file, e);
    if (st == OK) st = chat_from_json(p->chat, j, e);
    if (st == OK) st = take_text(p, json_get(j, "text"), json_get(j, "ids"), n_vocab, e);
    const struct json *now = st == OK ? json_get(j, "now") : NULL;
    if (now && now->kind == JSON_INT) p->now = now->i; /* a date in the template must not change */
    arena_free(&a);
    return st;
}

status keep_load(struct runtime *rt, const struct cli *c, struct prompt *p, struct err *e)
{
    struct file_facts facts;
    char *note = NULL;
    size_t n = 0;
    if (!c->session_file) return OK;
    TRY(output_check("--session", c->session_file, &c->model, 1, e));
    if (!file_stat(c->session_file, &facts)) return OK;
    TRY(session_load(rt->session, c->session_file, &note, &n, e));
    status st = p && n ? take_note(p, c, note, n, tokenizer_size(model_tokenizer(rt->model)), e) : OK;
    mem_free(note);
    if (st == OK && !c->quiet && session_pos(rt->session))
        fprintf(stderr, "session %s: %lld tokens\n", c->session_file, (long long)session_pos(rt->session));
    return st;
}

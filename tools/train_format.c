/* train_format - see train_format.h. */
#include "tools/train_format.h"
#include <stdio.h>
#include <string.h>
#include "tools/term.h"

static bool is_blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", p[i]) || !p[i]) return false;
    return true;
}

static status expected(const char *key, const char *what, struct err *e) { return err_set(e, ERR_FORMAT, "%s: expected %s", key, what); }

static status get_str(const struct json *row, const char *key, const struct json **out, struct err *e)
{
    *out = json_get(row, key);
    return *out && (*out)->kind == JSON_STR ? OK : expected(key, "a string", e);
}

/* ---- lists of messages ---- */

static bool answers(const struct json *message)
{
    const struct json *role = json_get(message, "role");
    return role && role->kind == JSON_STR && !strcmp(role->str, "assistant");
}

/* An answer may be a call of a tool, or thoughts, and nothing else. */
static bool says_more(const struct json *message)
{
    static const char *const keys[] = { "tool_calls", "function_call", "reasoning_content", "thinking" };
    for (int i = 0; i < ARRAY_LEN(keys); i++) {
        const struct json *x = json_get(message, keys[i]);
        if (x && x->kind != JSON_NULL && x->n > 0) return true;
    }
    return false;
}

static status check_list(const char *key, const struct json *list, const struct chat *chat, struct err *e)
{
    int64_t i = 0, found = 0;
    for (const struct json *m = list->child; m; m = m->next, i++) {
        struct chat_message said = chat_at(chat, i);
        if (!answers(m)) continue;
        found++;
        if (is_blank(said.text, said.n) && !says_more(m)) return err_set(e, ERR_FORMAT, "%s[%lld]: the assistant's turn is empty", key, (long long)i);
    }
    if (list->n == 0) return err_set(e, ERR_FORMAT, "%s: no messages", key);
    return found ? OK : err_set(e, ERR_FORMAT, "%s: no turn of the assistant, nothing to learn from", key);
}

static status read_weights(const struct json *list, struct arena *a, struct train_row *out, struct err *e)
{
    int64_t i = 0;
    for (const struct json *m = list->child; m; m = m->next, i++) {
        const struct json *w = json_get(m, "weight");
        if (!w) continue;
        if (w->kind == JSON_FLOAT || (w->kind == JSON_INT && w->i != 0 && w->i != 1) || (w->kind != JSON_INT && w->kind != JSON_BOOL))
            return err_set(e, ERR_FORMAT, "messages[%lld].weight: expected 0 or 1", (long long)i);
        if (!out->on) {
            out->on = arena_alloc(a, (size_t)list->n);
            if (!out->on) return err_oom(e, "weights", (size_t)list->n);
            memset(out->on, 1, (size_t)list->n);
        }
        out->on[i] = w->i != 0;
    }
    return OK;
}

static status read_list(const char *key, const struct json *list, struct chat *chat, struct arena *a, struct train_row *out, struct err *e)
{
    struct err why = { 0 };
    if (!list || list->kind != JSON_ARR) return expected(key, "a list of messages", e);
    status st = chat_from_json(chat, list, &why);
    if (st != OK) return err_set(e, st == ERR_MEMORY ? st : ERR_FORMAT, "%s", why.text);
    TRY(check_list(key, list, chat, e));
    return read_weights(list, a, out, e);
}

/* One list of the members of two. */
static status join_lists(const struct json *one, const struct json *two, struct arena *a, struct json **out, struct err *e)
{
    const struct json *parts[] = { one, two };
    *out = arena_zalloc(a, 1, sizeof **out);
    if (!*out) return err_oom(e, "messages", sizeof **out);
    (*out)->kind = JSON_ARR;
    struct json **tail = &(*out)->child;
    for (int i = 0; i < 2; i++)
        for (const struct json *m = parts[i]->child; m; m = m->next) {
            *tail = arena_alloc(a, sizeof **tail);
            if (!*tail) return err_oom(e, "messages", sizeof **tail);
            **tail = *m;
            (*tail)->next = NULL;
            tail = &(*tail)->next;
            (*out)->n++;
        }
    return OK;
}

/* ---- one function per format ---- */

static status read_messages(const struct json *row, int answer, struct chat *chat, struct arena *a, struct train_row *out, struct err *e)
{
    return read_list("messages", json_get(row, "messages"), chat, a, out, e);
}

static status add_turn(struct chat *chat, const char *role, const char *key, const struct json *s, struct err *e)
{
    if (!strcmp(role, "assistant") && is_blank(s->str, (size_t)s->n)) return err_set(e, ERR_FORMAT, "%s: the assistant's turn is empty", key);
    return chat_add(chat, role, s->str, (size_t)s->n, e);
}

static const char *sharegpt_role(const struct json *from)
{
    static const struct { const char *from, *role; } names[] = {
        { "human", "user" }, { "user", "user" }, { "gpt", "assistant" }, { "assistant", "assistant" }, { "model", "assistant" }, { "chatgpt", "assistant" },
        { "bot", "assistant" }, { "system", "system" }, { "tool", "tool" }, { "function", "tool" }, { "observation", "tool" },
    };
    for (int i = 0; from && from->kind == JSON_STR && i < ARRAY_LEN(names); i++)
        if (!strcmp(from->str, names[i].from)) return names[i].role;
    return NULL;
}

static status read_sharegpt(const struct json *row, int answer, struct chat *chat, struct arena *a, struct train_row *out, struct err *e)
{
    const struct json *list = json_get(row, "conversations");
    int64_t i = 0, found = 0;
    if (!list || list->kind != JSON_ARR) return expected("conversations", "a list of {\"from\", \"value\"}", e);
    if (list->n == 0) return err_set(e, ERR_FORMAT, "conversations: no messages");
    for (const struct json *m = list->child; m; m = m->next, i++) {
        char key[48];
        const struct json *from = json_get(m, "from"), *value = json_get(m, "value");
        const char *role = sharegpt_role(from);
        if (!role && from && from->kind == JSON_STR)
            return err_set(e, ERR_FORMAT, "conversations[%lld].from: \"%.40s\" is not one of human, gpt, system, tool", (long long)i, from->str);
        if (!role || !value || value->kind != JSON_STR)
            return err_set(e, ERR_FORMAT, "conversations[%lld]: expected {\"from\": \"human\" or \"gpt\", \"value\": \"...\"}", (long long)i);
        snprintf(key, sizeof key, "conversations[%lld]", (long long)i);
        TRY(add_turn(chat, role, key, value, e));
        found += !strcmp(role, "assistant");
    }
    return found ? OK : err_set(e, ERR_FORMAT, "conversations: no turn of the assistant, nothing to learn from");
}

/* prompt and answer, both strings or both lists of messages. */
static status read_two(const struct json *row, const char *key, struct chat *chat, struct arena *a, struct train_row *out, struct err *e)
{
    const struct json *prompt = json_get(row, "prompt"), *said = json_get(row, key);
    if (prompt && prompt->kind == JSON_ARR && said && said->kind == JSON_ARR) {
        struct json *list;
        TRY(join_lists(prompt, said, a, &list, e));
        out->first = prompt->n;
        return read_list(key, list, chat, a, out, e);
    }
    TRY(get_str(row, "prompt", &prompt, e));
    TRY(get_str(row, key, &said, e));
    out->first = 1, out->strings = true;
    TRY(add_turn(chat, "user", "prompt", prompt, e));
    return add_turn(chat, "assistant", key, said, e);
}

static status read_prompt(const struct json *row, int answer, struct chat *chat, struct arena *a, struct train_row *out, struct err *e)
{
    return read_two(row, "completion", chat, a, out, e);
}

/* Stanford's: an input stands under the instruction. */
static status read_alpaca(const struct json *row, int answer, struct chat *chat, struct arena *a, struct train_row *out, struct err *e)
{
    const struct json *instruction, *said, *input = json_get(row, "input");
    TRY(get_str(row, "instruction", &instruction, e));
    TRY(get_str(row, "output", &said, e));
    if (input && input->kind != JSON_STR && input->kind != JSON_NULL) return expected("input", "a string", e);
    bool more = input && input->kind == JSON_STR && input->n > 0;
    size_t n = (size_t)instruction->n;
    char *text = arena_alloc(a, n + (more ? (size_t)input->n + 2 : 0) + 1);
    if (!text) return err_oom(e, "instruction", n);
    if (n > 0) memcpy(text, instruction->str, n);
    if (more) {
        memcpy(text + n, "\n\n", 2);
        memcpy(text + n + 2, input->str, (size_t)input->n);
        n += 2 + (size_t)input->n;
    }
    out->first = 1;
    TRY(chat_add(chat, "user", text, n, e));
    return add_turn(chat, "assistant", "output", said, e);
}

static bool same_message(const struct json *a, const struct json *b)
{
    static const char *const keys[] = { "role", "content" };
    for (int i = 0; i < 2; i++) {
        const struct json *x = json_get(a, keys[i]), *y = json_get(b, keys[i]);
        if (!x || !y || x->kind != JSON_STR || y->kind != JSON_STR || x->n != y->n || memcmp(x->str, y->str, (size_t)x->n)) return false;
    }
    return true;
}

static bool same_answers(const struct json *a, const struct json *b)
{
    if (a->kind == JSON_STR && b->kind == JSON_STR) return a->n == b->n && !memcmp(a->str, b->str, (size_t)a->n);
    if (a->kind != JSON_ARR || b->kind != JSON_ARR) return false;
    const struct json *x = a->child, *y = b->child;
    while (x && y && same_message(x, y)) x = x->next, y = y->next;
    return !x && !y;
}

static status read_preference(const struct json *row, int answer, struct chat *chat, struct arena *a, struct train_row *out, struct err *e)
{
    static const char *const keys[] = { "chosen", "rejected" };
    const struct json *said = json_get(row, keys[answer]), *other = json_get(row, keys[1 - answer]);
    if (said && other && same_answers(said, other)) return err_set(e, ERR_FORMAT, "chosen and rejected are the same: there is nothing to prefer");
    if (json_get(row, "prompt")) return read_two(row, keys[answer], chat, a, out, e);
    if (!said || said->kind != JSON_ARR || !other || other->kind != JSON_ARR)
        return err_set(e, ERR_FORMAT, "%s: expected a list of messages, or a string beside \"prompt\"", keys[answer]);
    TRY(read_list(keys[answer], said, chat, a, out, e));
    for (const struct json *x = said->child, *y = other->child; x && y && same_message(x, y); x = x->next, y = y->next) out->first++;
    if (out->first >= said->n) return err_set(e, ERR_FORMAT, "chosen and rejected are the same up to where one ends");
    return OK;
}

static status read_text(const struct json *row, int answer, struct chat *chat, struct arena *a, struct train_row *out, struct err *e)
{
    const struct json *s;
    TRY(get_str(row, "text", &s, e));
    if (is_blank(s->str, (size_t)s->n)) return err_set(e, ERR_FORMAT, "text: nothing but white space");
    out->text = (struct str){ s->str, (size_t)s->n };
    return OK;
}

/* Functions that the model may call, for the template. */
static status read_tools(const struct json *row, struct arena *a, struct train_row *out, struct err *e)
{
    const struct json *tools = json_get(row, "tools");
    if (!tools || tools->kind == JSON_NULL || tools->n == 0) return OK;
    if (tools->kind != JSON_ARR) return expected("tools", "a list", e);
    struct json *j = arena_zalloc(a, 2, sizeof *j);
    if (!j) return err_oom(e, "tools", 2 * sizeof *j);
    j[1] = *tools, j[1].next = NULL;
    j[0] = (struct json){ .kind = JSON_OBJ, .child = &j[1], .n = 1 };
    out->extra = &j[0];
    return OK;
}

/* ---- the table ---- */

static const struct {
    enum train_format format;
    const char *key, *other;  /* a row of this format has them; other may be NULL */
    const char *known;        /* all members it knows, between spaces */
    const char *list;         /* the member whose items have members themselves */
    const char *list_known;
    status (*read)(const struct json *row, int answer, struct chat *chat, struct arena *a, struct train_row *out, struct err *e);
} formats[] = {
    { TRAIN_PREFERENCE, "chosen", "rejected", " prompt chosen rejected tools ", NULL, NULL, read_preference },
    { TRAIN_MESSAGES, "messages", NULL, " messages tools ", "messages",
      " role content name weight tool_calls tool_call_id function_call reasoning_content thinking ", read_messages },
    { TRAIN_SHAREGPT, "conversations", NULL, " conversations tools ", "conversations", " from value ", read_sharegpt },
    { TRAIN_PROMPT, "prompt", "completion", " prompt completion tools ", NULL, NULL, read_prompt },
    { TRAIN_ALPACA, "instruction", "output", " instruction input output ", NULL, NULL, read_alpaca },
    { TRAIN_TEXT, "text", NULL, " text ", NULL, NULL, read_text },
};

const char *const train_format_names[TRAIN_FORMATS] = {
    [TRAIN_MESSAGES] = "messages", [TRAIN_SHAREGPT] = "sharegpt", [TRAIN_PROMPT] = "prompt", [TRAIN_ALPACA] = "alpaca",
    [TRAIN_PREFERENCE] = "preference", [TRAIN_TEXT] = "text", [TRAIN_PLAIN] = "plain",
};
const char train_format_expected[] =
    "an object with \"messages\", \"conversations\", \"prompt\" + \"completion\", \"instruction\" + \"output\", \"chosen\" + \"rejected\", or \"text\"";

int train_format_of(const struct json *row)
{
    for (int i = 0; i < ARRAY_LEN(formats); i++)
        if (json_get(row, formats[i].key) && (!formats[i].other || json_get(row, formats[i].other))) return (int)formats[i].format;
    return -1;
}

static int row_of(enum train_format f)
{
    for (int i = 0; i < ARRAY_LEN(formats); i++)
        if (formats[i].format == f) return i;
    return -1;
}

status train_row_read(enum train_format f, const struct json *row, int answer, struct chat *chat, struct arena *a, struct train_row *out, struct err *e)
{
    *out = (struct train_row){ 0 };
    chat_truncate(chat, 0);
    if (strstr(formats[row_of(f)].known, " tools ")) TRY(read_tools(row, a, out, e));
    return formats[row_of(f)].read(row, answer, chat, a, out, e);
}

static bool in_words(const char *words, const struct json *member)
{
    char word[66];
    if (member->key_n > 60 || (size_t)member->key_n != strlen(member->key)) return false;
    snprintf(word, sizeof word, " %s ", member->key);
    return strstr(words, word) != NULL;
}

/* A name from a file as people see it: no control characters, no half character where it was cut. */
static const char *tidy(char *s)
{
    uint32_t cp;
    for (size_t i = 0, n = strlen(s), len; i < n; i += len) {
        len = (size_t)utf8_next(s + i, n - i, &cp);
        if (cp == 0xfffd && len == 1) s[n = i] = 0;
        else if (cp < 32 || (cp >= 127 && cp < 160)) memset(s + i, '?', len);
    }
    return s;
}

struct train_unknown train_format_unknown(enum train_format f, const struct json *row)
{
    const char *list = formats[row_of(f)].list;
    const struct json *x = list ? json_get(row, list) : NULL;
    return (struct train_unknown){ .format = f, .member = row->child, .item = x ? x->child : NULL };
}

const char *train_unknown_next(struct train_unknown *u, char name[64])
{
    int r = row_of(u->format);
    for (;;) {
        for (; u->member; u->member = u->member->next) {
            if (in_words(u->in_list ? formats[r].list_known : formats[r].known, u->member)) continue;
            snprintf(name, 64, "%s%s%.40s", u->in_list ? formats[r].list : "", u->in_list ? "[]." : "", u->member->key);
            u->member = u->member->next;
            return tidy(name);
        }
        if (!u->item) return NULL;
        u->in_list = true;
        u->member = u->item->kind == JSON_OBJ ? u->item->child : NULL;
        u->item = u->item->next;
    }
}

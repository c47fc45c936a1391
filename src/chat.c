/* chat - the conversation and the table of well-known templates. A message keeps the members that came with it as JSON (tool_calls, name,
 * ...), so that templates see them. Texts are owned one by one: chat_truncate gives their memory back. */
#include "src/chat.h"
#include <string.h>

/* ---- built-in templates ----
 * Written for this project. They print what llama.cpp's built-in templates print (tests/golden/chat_builtins.txt); "alpaca", which
 * llama.cpp lacks, follows the Stanford Alpaca prompt. None prints BOS: the tokenizer adds it. */

#define EACH "{% for m in messages %}{% set text = m.content or '' %}"
#define END "{% endfor %}"
#define ASK(opening) "{% if add_generation_prompt %}{{ '" opening "' }}{% endif %}"
/* [INST] opens a turn that system and user texts share and the answer closes. */
#define INST(open, system, user, answer)                                          \
    "{% set ns = namespace(open=false) %}" EACH                                   \
    "{% if not ns.open %}{% set ns.open = true %}{{ '" open "' }}{% endif %}"     \
    "{% if m.role == 'system' %}{{ " system " }}"                                 \
    "{% elif m.role == 'user' %}{{ " user " }}"                                   \
    "{% else %}{{ " answer " }}{% set ns.open = false %}{% endif %}" END

static const char chatml[] = EACH "{{ '<|im_start|>' + m.role + '\\n' + text + '<|im_end|>\\n' }}" END ASK("<|im_start|>assistant\\n");

static const char llama2[] = INST("[INST] ", "'<<SYS>>\\n' + text + '\\n<</SYS>>\\n\\n'", "text + ' [/INST]'", "text + '</s>'");

static const char llama3[] = EACH "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + text|trim + '<|eot_id|>' }}" END
    ASK("<|start_header_id|>assistant<|end_header_id|>\\n\\n");

static const char mistral_v1[] = INST(" [INST] ", "text + '\\n\\n'", "text + ' [/INST]'", "' ' + text + '</s>'");
static const char mistral_v3[] = INST("[INST] ", "text + '\\n\\n'", "text + '[/INST]'", "' ' + text|trim + '</s>'");
static const char mistral_tekken[] = INST("[INST]", "text + '\\n\\n'", "text + '[/INST]'", "text + '</s>'");
static const char mistral_v7[] = EACH
    "{% if m.role == 'system' %}{{ '[SYSTEM_PROMPT] ' + text + '[/SYSTEM_PROMPT]' }}"
    "{% elif m.role == 'user' %}{{ '[INST] ' + text + '[/INST]' }}"
    "{% else %}{{ ' ' + text + '</s>' }}{% endif %}" END;

/* Gemma has no system turn: the text goes before the next user's. */
static const char gemma[] = "{% set ns = namespace(system='') %}" EACH
    "{% if m.role == 'system' %}{% set ns.system = ns.system + text|trim %}{% else %}"
    "{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\\n' }}"
    "{% if ns.system and role != 'model' %}{{ ns.system + '\\n\\n' }}{% set ns.system = '' %}{% endif %}"
    "{{ text|trim + '<end_of_turn>\\n' }}{% endif %}" END ASK("<start_of_turn>model\\n");

static const char phi3[] = EACH "{{ '<|' + m.role + '|>\\n' + text + '<|end|>\\n' }}" END ASK("<|assistant|>\\n");
static const char phi4[] = EACH "{{ '<|im_start|>' + m.role + '<|im_sep|>' + text + '<|im_end|>' }}" END
    ASK("<|im_start|>assistant<|im_sep|>");
static const char zephyr[] = EACH "{{ '<|' + m.role + '|>\\n' + text + (eos_token or '</s>') + '\\n' }}" END ASK("<|assistant|>\\n");

static const char vicuna[] = EACH
    "{% if m.role == 'system' %}{{ text + '\\n\\n' }}"
    "{% elif m.role == 'user' %}{{ 'USER: ' + text + '\\n' }}"
    "{% else %}{{ 'ASSISTANT: ' + text + '</s>\\n' }}{% endif %}" END ASK("ASSISTANT:");

static const char alpaca[] = EACH
    "{% if m.role == 'system' %}{{ text + '\\n\\n' }}"
    "{% elif m.role == 'user' %}{{ '### Instruction:\\n' + text + '\\n\\n' }}"
    "{% else %}{{ '### Response:\\n' + text + eos_token + '\\n\\n' }}{% endif %}" END ASK("### Response:\\n");

static const char deepseek3[] = EACH
    "{% if m.role == 'system' %}{{ text + '\\n\\n' }}"
    "{% elif m.role == 'user' %}{{ '<｜User｜>' + text }}"
    "{% else %}{{ '<｜Assistant｜>' + text + '<｜end▁of▁sentence｜>' }}{% endif %}" END ASK("<｜Assistant｜>");

static const char deepseek2[] = EACH
    "{% if m.role == 'system' %}{{ text + '\\n\\n' }}"
    "{% elif m.role == 'user' %}{{ 'User: ' + text + '\\n\\n' }}"
    "{% else %}{{ 'Assistant: ' + text + '<｜end▁of▁sentence｜>' }}{% endif %}" END ASK("Assistant:");

static const char deepseek_coder[] = EACH
    "{% if m.role == 'system' %}{{ text }}"
    "{% elif m.role == 'user' %}{{ '### Instruction:\\n' + text + '\\n' }}"
    "{% else %}{{ '### Response:\\n' + text + '\\n<|EOT|>\\n' }}{% endif %}" END ASK("### Response:\\n");

static const char command_r[] = "{% set roles = {'system': 'SYSTEM', 'user': 'USER'} %}" EACH
    "{{ '<|START_OF_TURN_TOKEN|><|' + roles.get(m.role, 'CHATBOT') + '_TOKEN|>' + text|trim + '<|END_OF_TURN_TOKEN|>' }}" END
    ASK("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>");

static const char glm4[] = "[gMASK]<sop>" EACH "{{ '<|' + m.role + '|>\\n' + text }}" END ASK("<|assistant|>\\n");

const struct chat_builtin chat_builtins[] = {
    { "chatml", chatml },
    { "llama2", llama2 },
    { "llama3", llama3 },
    { "mistral", mistral_v3 },
    { "mistral-v1", mistral_v1 },
    { "mistral-tekken", mistral_tekken },
    { "mistral-v7", mistral_v7 },
    { "gemma", gemma },
    { "phi3", phi3 },
    { "phi4", phi4 },
    { "zephyr", zephyr },
    { "vicuna", vicuna },
    { "alpaca", alpaca },
    { "deepseek", deepseek3 },
    { "deepseek2", deepseek2 },
    { "deepseek-coder", deepseek_coder },
    { "command-r", command_r },
    { "glm4", glm4 },
};
const int chat_builtin_count = ARRAY_LEN(chat_builtins);

/* ---- the conversation ---- */

struct message {
    char *role, *text;
    size_t n;
    bool null_text;     /* came as "content": null or without content */
    struct arena arena; /* of rest */
    struct json *rest;  /* members but role and content, chained by next */
    int64_t n_rest;
};
struct messages {
    struct message *at;
    int64_t n, cap;
};
struct chat {
    struct template *t;
    char *bos, *eos;
    struct messages list;
};

static status no_memory(struct err *e) { return err_set(e, ERR_MEMORY, "chat: no memory for a message"); }

static char *copy_text(const char *s, size_t n)
{
    size_t bytes;
    char *p = add_size(n, 1, &bytes) ? mem_alloc(bytes) : NULL;
    if (!p) return NULL;
    if (n) memcpy(p, s, n);
    p[n] = 0;
    return p;
}

static void messages_cut(struct messages *l, int64_t n)
{
    while (l->n > n) {
        struct message *m = &l->at[--l->n];
        mem_free(m->role);
        mem_free(m->text);
        arena_free(&m->arena);
    }
}

static void messages_free(struct messages *l)
{
    messages_cut(l, 0);
    mem_free(l->at);
    *l = (struct messages){ 0 };
}

/* Appends an empty message; on success it belongs to the list, whatever happens to it later. */
static status messages_grow(struct messages *l, struct message **out, struct err *e)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? (size_t)l->cap * 2 : 8, bytes;
        struct message *at = mul_size(cap, sizeof *at, &bytes) ? mem_realloc(l->at, bytes) : NULL;
        if (!at) return no_memory(e);
        l->at = at;
        l->cap = (int64_t)cap;
    }
    *out = &l->at[l->n++];
    **out = (struct message){ 0 };
    return OK;
}

static status messages_add(struct messages *l, const char *role, const char *text, size_t n, struct err *e)
{
    struct message *m;
    TRY(messages_grow(l, &m, e));
    m->role = copy_text(role, strlen(role));
    m->text = copy_text(text, n);
    m->n = n;
    if (m->role && m->text) return OK;
    messages_cut(l, l->n - 1);
    return no_memory(e);
}

status chat_open(struct chat **out, const char *source, size_t n, const char *name, const char *bos, const char *eos, struct err *e)
{
    *out = NULL;
    struct chat *c = mem_calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_MEMORY, "%s: no memory for a chat", name);
    status st = template_parse(&c->t, source, n, name, e);
    if (st == OK) {
        c->bos = copy_text(bos, strlen(bos));
        c->eos = copy_text(eos, strlen(eos));
        if (!c->bos || !c->eos) st = err_set(e, ERR_MEMORY, "%s: no memory for a chat", name);
    }
    if (st == OK) *out = c;
    else chat_close(c);
    return st;
}

void chat_close(struct chat *c)
{
    if (!c) return;
    template_close(c->t);
    messages_free(&c->list);
    mem_free(c->bos);
    mem_free(c->eos);
    mem_free(c);
}

status chat_add(struct chat *c, const char *role, const char *text, size_t n, struct err *e)
{
    return messages_add(&c->list, role, text, n, e);
}

int64_t chat_count(const struct chat *c) { return c->list.n; }

struct chat_message chat_at(const struct chat *c, int64_t i)
{
    const struct message *m = &c->list.at[i];
    return (struct chat_message){ m->role, m->text, m->n };
}

void chat_truncate(struct chat *c, int64_t n) { messages_cut(&c->list, max_i64(n, 0)); }

/* ---- rendering: the variables as one JSON tree that borrows all texts ---- */

struct vars {
    struct arena arena;
    struct json *root, **tail;
    struct err *e;
};

static status new_json(struct vars *v, enum json_kind kind, const char *key, struct json **out)
{
    struct json *j = *out = arena_zalloc(&v->arena, 1, sizeof *j);
    if (!j) return err_set(v->e, ERR_MEMORY, "chat: no memory for the variables of the template");
    j->kind = kind;
    j->key = key;
    j->key_n = (int64_t)strlen(key);
    return OK;
}

static status new_str(struct vars *v, const char *key, const char *s, size_t n, struct json **out)
{
    TRY(new_json(v, JSON_STR, key, out));
    (*out)->str = s;
    (*out)->n = (int64_t)n;
    return OK;
}

static void add_member(struct vars *v, struct json *j)
{
    *v->tail = j;
    v->tail = &j->next;
    v->root->n++;
}

static status message_json(struct vars *v, const struct message *m, struct json **out)
{
    struct json *role, *content;
    TRY(new_json(v, JSON_OBJ, "", out));
    TRY(new_str(v, "role", m->role, strlen(m->role), &role));
    if (m->null_text) TRY(new_json(v, JSON_NULL, "content", &content));
    else TRY(new_str(v, "content", m->text, m->n, &content));
    (*out)->child = role;
    role->next = content;
    content->next = m->rest;
    (*out)->n = 2 + m->n_rest;
    return OK;
}

static status fill_vars(struct vars *v, const struct chat *c, int64_t n, bool add_generation, const struct json *extra)
{
    struct json *list, *j;
    TRY(new_json(v, JSON_OBJ, "", &v->root));
    v->tail = &v->root->child;
    TRY(new_json(v, JSON_ARR, "messages", &list));
    add_member(v, list);
    struct json **tail = &list->child;
    for (int64_t i = 0; i < n; i++) {
        TRY(message_json(v, &c->list.at[i], tail));
        tail = &(*tail)->next;
        list->n++;
    }
    TRY(new_json(v, JSON_BOOL, "add_generation_prompt", &j));
    j->i = add_generation;
    add_member(v, j);
    TRY(new_str(v, "bos_token", c->bos, strlen(c->bos), &j));
    add_member(v, j);
    TRY(new_str(v, "eos_token", c->eos, strlen(c->eos), &j));
    add_member(v, j);
    if (!extra) return OK;
    if (extra->kind != JSON_OBJ) return err_set(v->e, ERR_USAGE, "chat: template variables must be a JSON object");
    for (const struct json *x = extra->child; x; x = x->next)
        if (json_get(v->root, x->key)) return err_set(v->e, ERR_USAGE, "chat: template variable '%s' is set by the chat itself", x->key);
    *v->tail = extra->child;
    v->root->n += extra->n;
    return OK;
}

static status render(const struct chat *c, int64_t n_messages, unsigned flags, const struct json *extra, int64_t now, char **out, size_t *n,
                     struct err *e)
{
    struct vars v = { .e = e };
    *out = NULL;
    *n = 0;
    arena_init(&v.arena, 0);
    status st = fill_vars(&v, c, n_messages, flags & CHAT_OPEN, extra);
    if (st == OK) st = (flags & CHAT_BLOCKS ? template_render_blocks : template_render)(c->t, v.root, now, out, n, e);
    arena_free(&v.arena);
    return st;
}

status chat_render(const struct chat *c, bool add_generation, const struct json *extra, int64_t now, char **out, size_t *n, struct err *e)
{
    return render(c, c->list.n, add_generation ? CHAT_OPEN : 0, extra, now, out, n, e);
}

status chat_render_part(const struct chat *c, int64_t n_messages, unsigned flags, const struct json *extra, int64_t now, char **out, size_t *n,
                        struct err *e)
{
    return render(c, min_i64(max_i64(n_messages, 0), c->list.n), flags, extra, now, out, n, e);
}

/* ---- JSON ---- */

static void write_json(struct json_out *o, const char *key, const struct json *j)
{
    switch (j->kind) {
    case JSON_NULL: json_put_null(o, key); break;
    case JSON_BOOL: json_put_bool(o, key, j->i != 0); break;
    case JSON_INT: json_put_i64(o, key, j->i); break;
    case JSON_FLOAT: json_put_f64(o, key, j->f); break;
    case JSON_STR: json_put_str(o, key, j->str, (size_t)j->n); break;
    case JSON_ARR:
    case JSON_OBJ:
        json_begin(o, key, j->kind == JSON_ARR ? '[' : '{');
        for (const struct json *c = j->child; c; c = c->next) write_json(o, j->kind == JSON_OBJ ? c->key : NULL, c);
        json_end(o, j->kind == JSON_ARR ? ']' : '}');
        break;
    }
}

status chat_to_json(const struct chat *c, char **out, size_t *n, struct err *e)
{
    struct json_out o;
    json_out_init(&o, true);
    json_begin(&o, NULL, '[');
    for (int64_t i = 0; i < c->list.n; i++) {
        const struct message *m = &c->list.at[i];
        json_begin(&o, NULL, '{');
        json_put_cstr(&o, "role", m->role);
        if (m->null_text) json_put_null(&o, "content");
        else json_put_str(&o, "content", m->text, m->n);
        for (const struct json *x = m->rest; x; x = x->next) write_json(&o, x->key, x);
        json_end(&o, '}');
    }
    json_end(&o, ']');
    *out = NULL;
    *n = 0;
    if (!json_out_ok(&o)) {
        json_out_free(&o);
        return err_set(e, ERR_MEMORY, "chat: no memory for the conversation as JSON");
    }
    *out = o.buf;
    *n = o.n;
    return OK;
}

/* Deep copy; depth is bounded like everything a template sees. */
static status copy_json(struct arena *a, const struct json *j, int depth, struct json **out, struct err *e)
{
    if (depth > TEMPLATE_DEPTH) return err_set(e, ERR_USAGE, "messages: nested deeper than %d", TEMPLATE_DEPTH);
    struct json *c = arena_alloc(a, sizeof *c);
    if (!c) return no_memory(e);
    *c = *j;
    c->next = c->child = NULL;
    if (j->key) c->key = arena_strdup(a, j->key, (size_t)j->key_n);
    if (j->kind == JSON_STR) c->str = arena_strdup(a, j->str, (size_t)j->n);
    if ((j->key && !c->key) || (j->kind == JSON_STR && !c->str)) return no_memory(e);
    struct json **tail = &c->child;
    bool container = j->kind == JSON_ARR || j->kind == JSON_OBJ;
    for (const struct json *x = container ? j->child : NULL; x; x = x->next) {
        TRY(copy_json(a, x, depth + 1, tail, e));
        tail = &(*tail)->next;
    }
    *out = c;
    return OK;
}

/* Text parts joined by newlines, as llama.cpp joins them. Two walks: sizes, then bytes into text (NULL the first time). */
static status join_parts(const struct json *parts, int64_t i, char *text, size_t *n, struct err *e)
{
    *n = 0;
    int64_t k = 0;
    for (const struct json *p = parts->child; p; p = p->next, k++) {
        const struct json *type = json_get(p, "type"), *s = p->kind == JSON_STR ? p : json_get(p, "text");
        if (type && type->kind == JSON_STR && strcmp(type->str, "text"))
            return err_set(e, ERR_USAGE, "messages[%lld].content[%lld]: type '%s' is not supported, only text", (long long)i, (long long)k,
                           type->str);
        if (!s || s->kind != JSON_STR)
            return err_set(e, ERR_USAGE, "messages[%lld].content[%lld]: expected {\"type\": \"text\", \"text\": \"...\"}", (long long)i,
                           (long long)k);
        if (k) {
            if (text) text[*n] = '\n';
            ++*n;
        }
        if (text && s->n) memcpy(text + *n, s->str, (size_t)s->n);
        *n += (size_t)s->n;
    }
    return OK;
}

static status read_content(struct message *m, const struct json *content, int64_t i, struct err *e)
{
    m->null_text = !content || content->kind == JSON_NULL;
    if (m->null_text) m->text = copy_text("", 0);
    else if (content->kind == JSON_STR) {
        m->n = (size_t)content->n;
        m->text = copy_text(content->str, m->n);
    } else if (content->kind == JSON_ARR) {
        TRY(join_parts(content, i, NULL, &m->n, e));
        m->text = mem_alloc(m->n + 1);
        if (!m->text) return no_memory(e);
        TRY(join_parts(content, i, m->text, &m->n, e));
        m->text[m->n] = 0;
    } else {
        return err_set(e, ERR_USAGE, "messages[%lld].content: expected a string, null or a list of text parts", (long long)i);
    }
    return m->text ? OK : no_memory(e);
}

static status read_message(struct messages *l, const struct json *j, int64_t i, struct err *e)
{
    struct message *m;
    const struct json *role = json_get(j, "role");
    if (!role || role->kind != JSON_STR)
        return err_set(e, ERR_USAGE, "messages[%lld]: expected an object with a string 'role'", (long long)i);
    if (strlen(role->str) != (size_t)role->n) return err_set(e, ERR_USAGE, "messages[%lld].role: holds a NUL character", (long long)i);
    TRY(messages_grow(l, &m, e));
    arena_init(&m->arena, 0);
    m->role = copy_text(role->str, (size_t)role->n);
    if (!m->role) return no_memory(e);
    TRY(read_content(m, json_get(j, "content"), i, e));
    struct json **tail = &m->rest;
    for (const struct json *x = j->child; x; x = x->next) {
        if (!strcmp(x->key, "role") || !strcmp(x->key, "content")) continue;
        TRY(copy_json(&m->arena, x, 1, tail, e));
        tail = &(*tail)->next;
        m->n_rest++;
    }
    return OK;
}

status chat_from_json(struct chat *c, const struct json *j, struct err *e)
{
    struct messages fresh = { 0 };
    const struct json *list = j->kind == JSON_OBJ ? json_get(j, "messages") : j;
    if (!list || list->kind != JSON_ARR) return err_set(e, ERR_USAGE, "messages: expected a list or an object with a list 'messages'");
    status st = OK;
    int64_t i = 0;
    for (const struct json *m = list->child; m && st == OK; m = m->next, i++) st = read_message(&fresh, m, i, e);
    if (st != OK) {
        messages_free(&fresh);
        return st;
    }
    messages_free(&c->list);
    c->list = fresh;
    return OK;
}

/* convert_tok_special - what stands around the vocabulary: added tokens, the roles of single tokens, what is put before and after a text, and chat
 * templates. Several files say the same things; the order of precedence is that of Hugging Face's loader, then that of llama.cpp's converter. */
#include "src/convert_tok_int.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- added tokens ---- */

static bool begins(struct str s, const char *text) { return s.n >= strlen(text) && !memcmp(s.p, text, strlen(text)); }
static bool ends(struct str s, const char *text) { return s.n >= strlen(text) && !memcmp(s.p + s.n - strlen(text), text, strlen(text)); }

/* Tokens that models mark as ordinary added text but that are control tokens (the list of llama.cpp's converter). */
static bool looks_special(struct str s)
{
    static const char *const whole[] = { "<pad>", "<mask>", "<2mass>", "[@BOS@]" };
    for (int i = 0; i < ARRAY_LEN(whole); i++)
        if (str_is(s, whole[i])) return true;
    return (begins(s, "<|") && ends(s, "|>")) || (begins(s, "<｜") && ends(s, "｜>")) || (begins(s, "<unused") && ends(s, ">"));
}

/* User-defined tokens are searched in the text as it is typed: their spaces are spaces. */
static status plain_spaces(struct conv *c, struct str *s, struct err *e)
{
    size_t n = 0;
    char *out = arena_alloc(&c->mem, s->n + 1);
    if (!out) return err_oom(e, "added tokens", s->n);
    for (size_t i = 0; i < s->n;) {
        bool mark = s->n - i >= 3 && !memcmp(s->p + i, "\xe2\x96\x81", 3);
        out[n++] = mark ? ' ' : s->p[i];
        i += mark ? 3 : 1;
    }
    *s = (struct str){ out, n };
    return OK;
}

/* A token of the vocabulary keeps its place; SentencePiece models are overruled, as Hugging Face does. */
static status add_token(struct conv *c, const char *file, int64_t id, struct str text, bool special, struct err *e)
{
    int type = special || looks_special(text) ? CONV_CONTROL : CONV_USER;
    if (id >= 0 && id < c->n && c->token[id].type != CONV_HOLE) {
        struct conv_token *t = &c->token[id];
        if (!str_same(t->text, text)) {
            struct str was = t->text, now = text;
            if (type == CONV_USER) TRY(plain_spaces(c, &now, e)); /* another file may have brought it already */
            if (!str_same(was, now) && t->type != CONV_UNUSED)
                conv_warn(c, "%s: token %lld was \"%.*s\" and becomes \"%.*s\"", file, (long long)id, show(was), was.p, show(text), text.p);
        }
        if (t->type == CONV_UNKNOWN || t->type == CONV_BYTE) type = t->type;
        if (t->type == CONV_CONTROL) type = CONV_CONTROL;
        t->type = CONV_HOLE;
    }
    if (type == CONV_USER) TRY(plain_spaces(c, &text, e));
    return conv_put(c, file, id, text, c->has_scores ? -1000.0f : 0.0f, type, e);
}

static status add_from_tokenizer(struct conv *c, struct err *e)
{
    static const char file[] = "tokenizer.json";
    const struct json *list = json_get(c->tokenizer, "added_tokens");
    if (!list || list->kind == JSON_NULL) return OK;
    TRY(conv_want(file, c->tokenizer, "added_tokens", JSON_ARR, &list, e));
    int64_t strips = 0;
    const struct json *first = NULL;
    for (const struct json *i = list->child; i; i = i->next) {
        const struct json *text = get_kind(i, "content", JSON_STR), *id = get_kind(i, "id", JSON_INT);
        if (!text || !id) return err_set(e, ERR_FORMAT, "%s: an item of added_tokens has no content and id", file);
        if (id->i > c->n + 4 * list->n + 65536)
            return err_set(e, ERR_FORMAT, "%s: added token \"%.60s\" has the id %lld, the vocabulary has %lld tokens", file, text->str, (long long)id->i,
                           (long long)c->n);
        TRY(add_token(c, file, id->i, json_str(text), get_int(i, "special", 0) != 0, e));
        if (!get_int(i, "lstrip", 0) && !get_int(i, "rstrip", 0)) continue;
        if (strips++ == 0) first = text;
    }
    if (first) conv_warn(c, "%s: %lld added tokens take the spaces beside them (\"%.40s\"): GGUF has no key for that", file, (long long)strips, first->str);
    return OK;
}

/* {"32000": {"content": ..., "special": ...}} */
static status add_from_config(struct conv *c, struct err *e)
{
    static const char file[] = "tokenizer_config.json";
    const struct json *list = get_kind(c->config, "added_tokens_decoder", JSON_OBJ);
    for (const struct json *i = list ? list->child : NULL; i; i = i->next) {
        const struct json *text = get_kind(i, "content", JSON_STR);
        char *end;
        long long id = strtoll(i->key, &end, 10);
        if (!text || end == i->key || *end || id < 0 || id > c->n + 4 * list->n + 65536)
            return err_set(e, ERR_FORMAT, "%s: added_tokens_decoder[\"%.40s\"] is no token", file, i->key);
        /* tokenizer.json is what runs; the copy in the configuration only adds to it. */
        bool known = c->tokenizer && id < c->n && c->token[id].type != CONV_HOLE;
        struct str was = known ? c->token[id].text : (struct str){ "", 0 };
        if (known && !str_same(was, json_str(text)) && c->token[id].type != CONV_NORMAL) continue;
        TRY(add_token(c, file, id, json_str(text), get_int(i, "special", 0) != 0, e));
    }
    return OK;
}

/* added_tokens.json: {"<tok>": 32000} */
static status add_from_map(struct conv *c, struct err *e)
{
    static const char file[] = "added_tokens.json";
    for (const struct json *i = c->added ? c->added->child : NULL; i; i = i->next) {
        if (i->kind != JSON_INT) return err_set(e, ERR_FORMAT, "%s: the id of \"%.60s\" is %s, expected an integer", file, i->key, json_kind_text(i));
        if (i->i < c->n && i->i >= 0 && c->token[i->i].type != CONV_HOLE && c->tokenizer) continue;
        if (i->i > c->n + 4 * c->added->n + 65536)
            return err_set(e, ERR_FORMAT, "%s: \"%.60s\" has the id %lld, the vocabulary has %lld tokens", file, i->key, (long long)i->i, (long long)c->n);
        TRY(add_token(c, file, i->i, (struct str){ i->key, (size_t)i->key_n }, false, e));
    }
    return OK;
}

status conv_added_tokens(struct conv *c, struct err *e)
{
    TRY(add_from_map(c, e));
    TRY(add_from_tokenizer(c, e));
    TRY(add_from_config(c, e));
    return conv_index(c, e);
}

/* ---- roles ---- */

static const struct { const char *text, *id; enum conv_role role; } role_names[] = {
    { "bos_token", "bos_token_id", CONV_BOS }, { "eos_token", "eos_token_id", CONV_EOS }, { "unk_token", "unk_token_id", CONV_UNK },
    { "sep_token", "sep_token_id", CONV_SEP }, { "pad_token", "pad_token_id", CONV_PAD }, { "cls_token", "cls_token_id", CONV_CLS },
    { "mask_token", "mask_token_id", CONV_MASK }, { "eot_token", "eot_token_id", CONV_EOT }, { "eom_token", "eom_token_id", CONV_EOM },
};

/* A role's text: a string, or an object with content. */
static bool role_text(const struct json *file, const char *key, struct str *out)
{
    const struct json *j = json_get(file, key), *text = is_kind(j, JSON_OBJ) ? get_kind(j, "content", JSON_STR) : j;
    if (!is_kind(text, JSON_STR) || text->n == 0) return false;
    *out = json_str(text);
    return true;
}

static void roles_by_text(struct conv *c)
{
    for (int i = 0; i < ARRAY_LEN(role_names); i++) {
        struct str text;
        if (!role_text(c->config, role_names[i].text, &text) && !role_text(c->special_map, role_names[i].text, &text)) continue;
        int32_t id = conv_find(c, text);
        if (id >= 0) c->role[role_names[i].role] = id;
        else conv_warn(c, "%s is \"%.*s\", which is no token", role_names[i].text, show(text), text.p);
    }
}

/* An id, or the first of a list. */
static int64_t id_of(const struct json *file, const char *key)
{
    const struct json *j = json_get(file, key);
    if (is_kind(j, JSON_ARR)) j = j->child;
    return is_kind(j, JSON_INT) ? j->i : -1;
}

static void roles_by_id(struct conv *c)
{
    const struct json *files[] = { c->model_config, json_get(c->model_config, "text_config"), c->generation };
    for (int i = 0; i < ARRAY_LEN(role_names); i++)
        for (int f = 0; f < ARRAY_LEN(files); f++) {
            int64_t id = id_of(files[f], role_names[i].id);
            if (c->role[role_names[i].role] < 0 && id >= 0 && id < c->n) c->role[role_names[i].role] = (int32_t)id;
        }
}

/* Generation may stop at more tokens than one; GGUF has two more keys for such. */
static void other_ends(struct conv *c)
{
    const struct json *list = get_kind(c->generation, "eos_token_id", JSON_ARR);
    if (!list) list = get_kind(c->model_config, "eos_token_id", JSON_ARR);
    for (const struct json *i = list ? list->child : NULL; i; i = i->next) {
        if (i->kind != JSON_INT || i->i < 0 || i->i >= c->n) continue;
        int32_t id = (int32_t)i->i;
        if (id == c->role[CONV_EOS] || id == c->role[CONV_EOT] || id == c->role[CONV_EOM]) continue;
        bool eom = str_is(c->token[id].text, "<|eom_id|>");
        enum conv_role role = eom || c->role[CONV_EOT] >= 0 ? CONV_EOM : CONV_EOT;
        if (c->role[role] < 0) c->role[role] = id;
        else conv_warn(c, "token %d \"%.*s\" ends generation too: GGUF has no key for so many", id, show(c->token[id].text), c->token[id].text.p);
    }
}

/* ---- what surrounds a text: the post-processor ---- */

static struct str special_at(const struct json *piece)
{
    const struct json *id = get_kind(json_get(piece, "SpecialToken"), "id", JSON_STR);
    return id ? json_str(id) : (struct str){ "", 0 };
}

static int32_t role_or(struct conv *c, enum conv_role role, int32_t id)
{
    if (c->role[role] < 0) c->role[role] = id;
    return c->role[role];
}

/* A separator between two texts where none ends a single one: A </s></s> B. */
static int pair_separates(const struct json *pair)
{
    int n = 0;
    bool inside = false;
    for (const struct json *i = pair ? pair->child : NULL; i; i = i->next) {
        const struct json *seq = get_kind(json_get(i, "Sequence"), "id", JSON_STR);
        if (seq) inside = str_is(json_str(seq), "A");
        else n += inside;
    }
    return n >= 2;
}

static void read_template(struct conv *c, const struct json *step)
{
    const struct json *single = get_kind(step, "single", JSON_ARR), *last = single ? single->child : NULL;
    if (!single || single->n < 2) return;
    while (last->next) last = last->next;
    struct str first = special_at(single->child), end = special_at(last);
    int32_t first_id = first.n ? conv_find(c, first) : -1, end_id = end.n ? conv_find(c, end) : -1;
    if (first_id >= 0) {
        if (c->role[CONV_CLS] >= 0 && c->role[CONV_BOS] < 0) c->role[CONV_BOS] = c->role[CONV_CLS];
        c->add_bos = role_or(c, CONV_BOS, first_id) == first_id;
        if (!c->add_bos)
            conv_warn(c, "tokenizer.json puts \"%.*s\" before a text, which is not the BOS token: left out", show(first), first.p);
    } else {
        c->add_bos = 0;
    }
    c->add_eos = end_id >= 0;
    if (end_id >= 0 && role_or(c, CONV_EOS, end_id) != end_id) {
        enum conv_role spare = c->role[CONV_EOT] < 0 ? CONV_EOT : CONV_EOM;
        if (c->role[spare] < 0) c->role[spare] = c->role[CONV_EOS];
        c->role[CONV_EOS] = end_id;
    }
    c->add_sep = pair_separates(get_kind(step, "pair", JSON_ARR));
    if (c->add_sep && end_id >= 0) role_or(c, CONV_SEP, end_id);
    int inner = 0;
    for (const struct json *i = single->child; i; i = i->next) inner += special_at(i).n > 0;
    if (inner > (first.n > 0) + (end.n > 0)) conv_warn(c, "tokenizer.json puts more than one token before or after a text: GGUF has one of each");
}

/* RobertaProcessing, BertProcessing: "sep": [text, id], "cls": [text, id] */
static void read_pair_processing(struct conv *c, const struct json *step, bool sep)
{
    const struct json *s = get_kind(step, "sep", JSON_ARR), *f = get_kind(step, "cls", JSON_ARR);
    int32_t end = s && is_kind(s->child, JSON_STR) ? conv_find(c, json_str(s->child)) : -1;
    int32_t first = f && is_kind(f->child, JSON_STR) ? conv_find(c, json_str(f->child)) : -1;
    if (end < 0 || first < 0) return;
    c->add_bos = role_or(c, CONV_BOS, first) == first;
    c->add_eos = role_or(c, CONV_EOS, end) == end;
    c->add_sep = sep;
    role_or(c, CONV_CLS, first);
    role_or(c, CONV_SEP, end);
}

static void read_post_processor(struct conv *c, const struct json *step)
{
    const struct json *list = type_is(step, "Sequence") ? get_kind(step, "processors", JSON_ARR) : NULL;
    for (const struct json *i = list ? list->child : step; i; i = list ? i->next : NULL) {
        if (type_is(i, "TemplateProcessing")) read_template(c, i);
        else if (type_is(i, "RobertaProcessing")) read_pair_processing(c, i, true);
        else if (type_is(i, "BertProcessing")) read_pair_processing(c, i, false);
    }
}

/* Classes whose loader builds the post-processor from add_bos_token and add_eos_token, whatever tokenizer.json holds; the first three do so for
 * SentencePiece vocabularies only. */
static bool config_rules(const struct conv *c)
{
    static const struct { const char *name; bool bytes; } classes[] = {
        { "LlamaTokenizer", false }, { "CodeLlamaTokenizer", false }, { "GemmaTokenizer", false }, { "CohereTokenizer", true },
    };
    const struct json *class = get_kind(c->config, "tokenizer_class", JSON_STR);
    bool bytes = !strcmp(c->model, "gpt2");
    for (int i = 0; class && i < ARRAY_LEN(classes); i++) {
        size_t n = strlen(classes[i].name);
        if (bytes == classes[i].bytes && begins(json_str(class), classes[i].name) && (class->str[n] == 0 || !strcmp(class->str + n, "Fast"))) return true;
    }
    return false;
}

static void surroundings(struct conv *c)
{
    bool spm = !strcmp(c->model, "llama") || !strcmp(c->model, "gemma4");
    read_post_processor(c, get_kind(c->tokenizer, "post_processor", JSON_OBJ));
    const struct { const char *key; int *value; } rows[] = { { "add_bos_token", &c->add_bos }, { "add_eos_token", &c->add_eos } };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        const struct json *j = get_kind(c->config, rows[i].key, JSON_BOOL);
        if (!j) continue;
        if (*rows[i].value >= 0 && *rows[i].value != j->i && !config_rules(c)) {
            conv_warn(c, "tokenizer_config.json: %s is %s, the post-processor of tokenizer.json says otherwise and counts", rows[i].key,
                      j->i ? "true" : "false");
            continue;
        }
        if (*rows[i].value < 0 && get_kind(c->tokenizer, "post_processor", JSON_OBJ) && !config_rules(c)) continue;
        *rows[i].value = (int)j->i;
    }
    /* Nothing said: what the loaders of these kinds do. */
    bool bert = !strcmp(c->model, "bert"), t5 = !strcmp(c->model, "t5");
    if (c->add_bos < 0) c->add_bos = (spm && !c->tokenizer) || bert;
    if (c->add_eos < 0) c->add_eos = (t5 && !c->tokenizer) || bert;
    if (bert) {
        role_or(c, CONV_BOS, c->role[CONV_CLS]);
        role_or(c, CONV_EOS, c->role[CONV_SEP]);
    }
    if (c->role[CONV_BOS] < 0) c->add_bos = 0;
    if (c->role[CONV_EOS] < 0) c->add_eos = 0;
}

status conv_roles(struct conv *c, struct err *e)
{
    (void)e;
    if (!strcmp(c->model, "bert")) { /* vocab.txt alone: BERT's own names */
        static const struct { const char *text; enum conv_role role; } rows[] = {
            { "[UNK]", CONV_UNK }, { "[CLS]", CONV_CLS }, { "[SEP]", CONV_SEP }, { "[PAD]", CONV_PAD }, { "[MASK]", CONV_MASK },
        };
        for (int i = 0; i < ARRAY_LEN(rows); i++) c->role[rows[i].role] = conv_find(c, str_of(rows[i].text));
    }
    roles_by_text(c);
    roles_by_id(c);
    surroundings(c);
    other_ends(c);
    const struct json *space = get_kind(c->config, "add_prefix_space", JSON_BOOL);
    if (space && !strcmp(c->model, "llama")) c->add_space = (int)space->i; /* the loader rebuilds the tokenizer for it */
    if (c->role[CONV_UNK] >= 0 && c->token[c->role[CONV_UNK]].type == CONV_NORMAL && c->has_scores) c->token[c->role[CONV_UNK]].type = CONV_UNKNOWN;
    return OK;
}

/* ---- chat templates ---- */

enum { TEMPLATE_MAX = 4 << 20, TEMPLATES_MAX = 64 };

struct templates {
    struct gguf_writer *w;
    struct str name[TEMPLATES_MAX];
    int n;
    bool has_default;
};

static status put_template(struct conv *c, struct templates *t, struct str name, struct str text, struct err *e)
{
    char key[160], clean[100];
    size_t n = name.n < sizeof clean - 1 ? name.n : sizeof clean - 1;
    if (name.n == 0) return OK;
    if (str_is(name, "default")) {
        if (t->has_default) return OK;
        t->has_default = true;
        gguf_put_str(t->w, "tokenizer.chat_template", text.p, text.n);
        return OK;
    }
    for (size_t i = 0; i < n; i++) {
        char b = name.p[i];
        bool keep = (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9');
        clean[i] = keep ? b : '_';
    }
    clean[n] = 0;
    for (int i = 0; i < t->n; i++)
        if (str_is(t->name[i], clean)) return OK;
    if (t->n == TEMPLATES_MAX) return err_set(e, ERR_FORMAT, "more than %d chat templates", TEMPLATES_MAX);
    const char *kept = arena_strdup(&c->mem, clean, n);
    if (!kept) return err_oom(e, "chat template", n);
    t->name[t->n++] = (struct str){ kept, n };
    snprintf(key, sizeof key, "tokenizer.chat_template.%s", clean);
    gguf_put_str(t->w, key, text.p, text.n);
    return OK;
}

/* A string, or a list of {name, template}. */
static status put_json_template(struct conv *c, struct templates *t, const char *file, const struct json *j, struct err *e)
{
    if (!j || j->kind == JSON_NULL) return OK;
    if (j->kind == JSON_STR) return put_template(c, t, str_of("default"), json_str(j), e);
    if (j->kind != JSON_ARR) return err_set(e, ERR_FORMAT, "%s: chat_template is %s, expected a string or an array", file, json_kind_text(j));
    for (const struct json *i = j->child; i; i = i->next) {
        const struct json *name = get_kind(i, "name", JSON_STR), *text = get_kind(i, "template", JSON_STR);
        if (!name || !text) return err_set(e, ERR_FORMAT, "%s: an item of chat_template has no name and template", file);
        TRY(put_template(c, t, json_str(name), json_str(text), e));
    }
    return OK;
}

/* A file's text as a template; its bytes are copied by the writer. */
static status put_file_template(struct conv *c, struct templates *t, const char *file, struct str name, bool *found, struct err *e)
{
    struct str text;
    TRY(conv_open(c, file, TEMPLATE_MAX, &text, found, e));
    if (!*found) return OK;
    status st = put_template(c, t, name, text, e);
    file_close(&c->file[--c->n_files]);
    return st;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* additional_chat_templates/NAME.jinja, in the order of the names */
static status put_more_templates(struct conv *c, struct templates *t, struct err *e)
{
    char path[4096], *names[TEMPLATES_MAX];
    int n = 0;
    bool found;
    if (snprintf(path, sizeof path, "%s/additional_chat_templates", c->dir) >= (int)sizeof path) return OK;
    DIR *d = opendir(path);
    if (!d) return OK;
    status st = OK;
    for (struct dirent *f = readdir(d); f && st == OK; f = readdir(d)) {
        size_t len = strlen(f->d_name);
        if (len < 7 || strcmp(f->d_name + len - 6, ".jinja")) continue;
        if (n == TEMPLATES_MAX) st = err_set(e, ERR_FORMAT, "more than %d chat templates", TEMPLATES_MAX);
        else if (!(names[n] = arena_strdup(&c->mem, f->d_name, len))) st = err_oom(e, "chat template", len);
        else n++;
    }
    closedir(d);
    if (n) qsort(names, (size_t)n, sizeof *names, by_name);
    for (int i = 0; i < n && st == OK; i++) {
        char file[300];
        snprintf(file, sizeof file, "additional_chat_templates/%s", names[i]);
        st = put_file_template(c, t, file, (struct str){ names[i], strlen(names[i]) - 6 }, &found, e);
    }
    return st;
}

status conv_templates(struct conv *c, struct gguf_writer *w, struct err *e)
{
    struct templates t = { .w = w };
    const struct json *file = NULL;
    bool found = false;
    if (c->dir) {
        TRY(put_file_template(c, &t, "chat_template.jinja", str_of("default"), &found, e));
        TRY(put_more_templates(c, &t, e));
        if (!found) TRY(conv_json(c, "chat_template.json", &file, e));
    }
    TRY(put_json_template(c, &t, "chat_template.json", json_get(file, "chat_template"), e));
    if (!found) TRY(put_json_template(c, &t, "tokenizer_config.json", json_get(c->config, "chat_template"), e));
    if (t.n) gguf_put_arr_str(w, "tokenizer.chat_templates", t.name, (uint64_t)t.n);
    return OK;
}

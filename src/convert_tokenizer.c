/* convert_tokenizer - see convert_tokenizer.h: which files are read, and the keys that come out. */
#include "src/convert_tok_int.h"
#include "src/pretok.h"
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>

enum {
    JSON_MAX = 512 << 20,  /* bytes of one file */
    SMALL_MAX = 64 << 20,
    ARENA_GIB = 2,
};

/* ---- shared by the readers ---- */

void conv_warn(const struct conv *c, const char *fmt, ...)
{
    if (!c->o->warn) return;
    char text[240];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->o->warn(c->o->warn_ctx, text);
}

const char *json_kind_text(const struct json *j)
{
    static const char *const names[] = {
        [JSON_NULL] = "null",       [JSON_BOOL] = "a boolean", [JSON_INT] = "an integer", [JSON_FLOAT] = "a number",
        [JSON_STR] = "a string",    [JSON_ARR] = "an array",   [JSON_OBJ] = "an object",
    };
    return j ? names[j->kind] : "missing";
}

status conv_want(const char *file, const struct json *obj, const char *key, enum json_kind kind, const struct json **out, struct err *e)
{
    *out = json_get(obj, key);
    if (is_kind(*out, kind)) return OK;
    const struct json sample = { .kind = kind };
    return err_set(e, ERR_FORMAT, "%s: %s is %s, expected %s", file, key, json_kind_text(*out), json_kind_text(&sample));
}

status conv_open(struct conv *c, const char *name, size_t max, struct str *text, bool *found, struct err *e)
{
    struct file_facts facts;
    *found = false;
    if (!c->dir) return OK;
    size_t n = strlen(c->dir) + strlen(name) + 2;
    char *path = arena_alloc(&c->mem, n);
    if (!path) return err_oom(e, name, n);
    snprintf(path, n, "%s/%s", c->dir, name);
    if (!file_stat(path, &facts)) return OK;
    if (facts.size > max)
        return err_set(e, ERR_FORMAT, "%s: %llu bytes, at most %zu are read", name, (unsigned long long)facts.size, max);
    if (c->n_files == CONV_FILES) return err_set(e, ERR_RUNTIME, "%s: too many files are open", name);
    struct file *f = &c->file[c->n_files];
    TRY(file_open(f, path, true, e));
    c->n_files++;
    *text = (struct str){ (const char *)f->data, f->size };
    *found = true;
    return OK;
}

static void close_last(struct conv *c) { file_close(&c->file[--c->n_files]); }

status conv_json(struct conv *c, const char *name, const struct json **out, struct err *e)
{
    struct str text;
    struct json *j = NULL;
    bool found;
    *out = NULL;
    TRY(conv_open(c, name, JSON_MAX, &text, &found, e));
    if (!found) return OK;
    status st = json_parse_python(&j, text.p, text.n, &c->mem, name, e);
    close_last(c); /* the values are in the arena */
    if (st == OK && j->kind != JSON_OBJ) st = err_set(e, ERR_FORMAT, "%s: %s, expected an object", name, json_kind_text(j));
    if (st == OK) *out = j;
    return st;
}

static status grow_tokens(struct conv *c, int64_t need, struct err *e)
{
    int64_t cap = c->cap ? c->cap : 1024;
    while (cap < need) cap *= 2;
    if (cap == c->cap) return OK;
    struct conv_token *t = mem_realloc(c->token, (size_t)cap * sizeof *t);
    if (!t) return err_oom(e, "vocabulary", (size_t)cap * sizeof *t);
    memset(t + c->cap, 0, (size_t)(cap - c->cap) * sizeof *t);
    c->token = t;
    c->cap = cap;
    return OK;
}

status conv_put(struct conv *c, const char *file, int64_t id, struct str text, float score, int type, struct err *e)
{
    if (id < 0 || id >= CONV_IDS_MAX)
        return err_set(e, ERR_FORMAT, "%s: token \"%.*s\" has the id %lld, allowed are 0 to %d", file, show(text), text.p, (long long)id,
                       CONV_IDS_MAX - 1);
    if (text.n > CONV_TEXT_MAX)
        return err_set(e, ERR_FORMAT, "%s: token %lld has %zu bytes, at most %d are possible", file, (long long)id, text.n, CONV_TEXT_MAX);
    if (id >= c->cap) TRY(grow_tokens(c, id + 1, e));
    struct conv_token *t = &c->token[id];
    if (t->type != CONV_HOLE && !str_same(t->text, text))
        return err_set(e, ERR_FORMAT, "%s: id %lld is both \"%.*s\" and \"%.*s\"", file, (long long)id, show(t->text), t->text.p, show(text), text.p);
    *t = (struct conv_token){ .text = text, .score = score, .type = type };
    if (id >= c->n) c->n = id + 1;
    return OK;
}

static struct conv_slot *find_slot(const struct conv *c, struct str text, uint64_t hash)
{
    for (size_t i = hash & c->slot_mask;; i = (i + 1) & c->slot_mask) {
        struct conv_slot *s = &c->slot[i];
        if (s->id < 0 || (s->hash == hash && str_same(c->token[s->id].text, text))) return s;
    }
}

int32_t conv_find(const struct conv *c, struct str text)
{
    return c->slot ? find_slot(c, text, hash64((uintptr_t)c, text.p, text.n))->id : -1;
}

status conv_index(struct conv *c, struct err *e)
{
    size_t n_slots = 64;
    while (n_slots < 2 * (size_t)c->n) n_slots *= 2;
    mem_free(c->slot);
    c->slot = mem_alloc(n_slots * sizeof *c->slot);
    if (!c->slot) return err_oom(e, "vocabulary", n_slots * sizeof *c->slot);
    memset(c->slot, 0xff, n_slots * sizeof *c->slot); /* id -1 */
    c->slot_mask = n_slots - 1;
    for (int32_t id = 0; id < c->n; id++) {
        if (c->token[id].type == CONV_HOLE) continue;
        struct str text = c->token[id].text;
        uint64_t hash = hash64((uintptr_t)c, text.p, text.n);
        struct conv_slot *s = find_slot(c, text, hash);
        if (s->id < 0) *s = (struct conv_slot){ .hash = hash, .id = id };
    }
    return OK;
}

/* ---- which files ---- */

/* The first file of the directory, by name, that ends with this. name keeps its own copy. */
static void find_by_end(const char *dir, const char *end, char name[256])
{
    DIR *d = opendir(dir);
    name[0] = 0;
    if (!d) return;
    for (struct dirent *f = readdir(d); f; f = readdir(d)) {
        size_t n = strlen(f->d_name), m = strlen(end);
        if (n <= m || n > 255 || strcmp(f->d_name + n - m, end) || (name[0] && strcmp(name, f->d_name) <= 0)) continue;
        memcpy(name, f->d_name, n + 1);
    }
    closedir(d);
}

/* Forgets a vocabulary that was read. */
static void reset_vocabulary(struct conv *c)
{
    if (c->token) memset(c->token, 0, (size_t)c->cap * sizeof *c->token);
    c->n = 0;
    c->charsmap = (struct str){ 0 };
    c->has_scores = false;
    c->add_space = c->remove_spaces = -1;
    for (int i = 0; i < CONV_ROLES; i++) c->role[i] = -1;
}

/* Some families number their tokens otherwise than the SentencePiece model beside them (Pegasus): then tokenizer.json, which is what runs, counts. */
static status settle_sentencepiece(struct conv *c, const char *file, struct err *e)
{
    int64_t id;
    TRY(conv_json_differs(c, &id, e));
    if (id < 0) return conv_added_tokens(c, e);
    conv_warn(c, "%s and tokenizer.json differ at token %lld: tokenizer.json counts", file, (long long)id);
    reset_vocabulary(c);
    return conv_read_json(c, e);
}

static status read_sentencepiece(struct conv *c, bool *done, struct err *e)
{
    static const char *const names[] = { "tokenizer.model", "spiece.model" };
    for (int i = 0; i < ARRAY_LEN(names) && !*done; i++) {
        struct str bytes;
        bool found;
        TRY(conv_open(c, names[i], SMALL_MAX, &bytes, &found, e));
        if (!found) continue;
        bool spm = conv_looks_spm(bytes);
        if (!spm && c->tokenizer) continue; /* tiktoken under that name: tokenizer.json says more */
        TRY(spm ? conv_read_spm(c, names[i], bytes, e) : conv_read_tiktoken(c, names[i], bytes, e));
        if (spm) TRY(settle_sentencepiece(c, names[i], e));
        *done = true;
    }
    return OK;
}

static status read_vocab_files(struct conv *c, bool *done, struct err *e)
{
    const struct json *vocab;
    struct str text;
    bool found;
    TRY(conv_json(c, "vocab.json", &vocab, e));
    if (vocab) {
        TRY(conv_open(c, "merges.txt", SMALL_MAX, &text, &found, e));
        if (!found) return err_set(e, ERR_FILE, "%s: vocab.json is there, merges.txt is missing", c->dir);
        *done = true;
        return conv_read_vocab_json(c, vocab, text, e);
    }
    TRY(conv_open(c, "vocab.txt", SMALL_MAX, &text, &found, e));
    if (!found) return OK;
    *done = true;
    return conv_read_vocab_txt(c, text, e);
}

static status read_rank_files(struct conv *c, bool *done, struct err *e)
{
    char name[256];
    struct str text;
    bool found = false;
    TRY(conv_json(c, "tekken.json", &c->tekken, e));
    if (c->tekken) {
        *done = true;
        return conv_read_tekken(c, e);
    }
    find_by_end(c->dir, ".tiktoken", name);
    if (name[0]) TRY(conv_open(c, name, SMALL_MAX, &text, &found, e));
    if (!found) return OK;
    *done = true;
    return conv_read_tiktoken(c, name, text, e);
}

static status read_directory(struct conv *c, struct err *e)
{
    bool done = false;
    TRY(conv_json(c, "tokenizer_config.json", &c->config, e));
    TRY(conv_json(c, "special_tokens_map.json", &c->special_map, e));
    TRY(conv_json(c, "added_tokens.json", &c->added, e));
    TRY(conv_json(c, "config.json", &c->model_config, e));
    TRY(conv_json(c, "generation_config.json", &c->generation, e));
    TRY(conv_json(c, "tokenizer.json", &c->tokenizer, e));
    TRY(read_sentencepiece(c, &done, e));
    if (!done && c->tokenizer) {
        done = true;
        TRY(conv_read_json(c, e));
    }
    if (!done) TRY(read_vocab_files(c, &done, e));
    if (!done) TRY(read_rank_files(c, &done, e));
    if (done) return OK;
    return err_set(e, ERR_FILE, "%s: no tokenizer: none of tokenizer.model, spiece.model, tokenizer.json, vocab.json, vocab.txt, tekken.json, "
                                "*.tiktoken", c->dir);
}

/* ---- keys ---- */

/* Ids beyond the embedding cannot be used. Tokens of the algorithm must not be lost; added ones are, with a warning. */
static status fit_vocabulary(struct conv *c, struct err *e)
{
    int64_t rows = c->o->n_vocab ? c->o->n_vocab : c->n;
    int64_t dropped = 0;
    for (int64_t id = rows; id < c->n; id++) {
        const struct conv_token *t = &c->token[id];
        if (t->type == CONV_HOLE) continue;
        if (t->type != CONV_CONTROL && t->type != CONV_USER && t->type != CONV_UNUSED)
            return err_set(e, ERR_FORMAT, "tokenizer of another model: %lld tokens, the embedding has %lld rows (token %lld is \"%.*s\")", (long long)c->n,
                           (long long)rows, (long long)id, show(t->text), t->text.p);
        if (dropped++ == 0)
            conv_warn(c, "added token %lld \"%.*s\" and others from there on are left out: the embedding has %lld rows", (long long)id,
                      show(t->text), t->text.p, (long long)rows);
    }
    if (rows > c->n) TRY(grow_tokens(c, rows, e));
    c->n = rows;
    for (int64_t id = 0; id < rows; id++) {
        struct conv_token *t = &c->token[id];
        if (t->type != CONV_HOLE) continue;
        char name[32], *text;
        int n = snprintf(name, sizeof name, "[PAD%lld]", (long long)id);
        if (!(text = arena_strdup(&c->mem, name, (size_t)n))) return err_oom(e, "vocabulary", (size_t)n);
        *t = (struct conv_token){ .text = { text, (size_t)n }, .score = -10000.0f, .type = CONV_UNUSED };
    }
    return OK;
}

static status put_vocabulary(struct conv *c, struct gguf_writer *w, struct err *e)
{
    size_t n = (size_t)c->n;
    struct str *text = mem_alloc(n * sizeof *text);
    float *score = mem_alloc(n * sizeof *score);
    int32_t *type = mem_alloc(n * sizeof *type);
    status st = text && score && type ? OK : err_oom(e, "vocabulary", n * (sizeof *text + 8));
    for (size_t i = 0; st == OK && i < n; i++) {
        text[i] = c->token[i].text;
        score[i] = c->token[i].score;
        type[i] = c->token[i].type;
    }
    if (st == OK) {
        gguf_put_arr_str(w, "tokenizer.ggml.tokens", text, n);
        if (c->has_scores) gguf_put_arr(w, "tokenizer.ggml.scores", KV_F32, score, n);
        gguf_put_arr(w, "tokenizer.ggml.token_type", KV_I32, type, n);
        if (c->merge) gguf_put_arr_str(w, "tokenizer.ggml.merges", c->merge, (uint64_t)c->n_merges);
    }
    mem_free(text);
    mem_free(score);
    mem_free(type);
    return st;
}

static void put_roles(const struct conv *c, struct gguf_writer *w)
{
    static const char *const keys[CONV_ROLES] = {
        [CONV_BOS] = "bos",     [CONV_EOS] = "eos", [CONV_UNK] = "unknown", [CONV_SEP] = "seperator" /* as llama.cpp spells it */,
        [CONV_PAD] = "padding", [CONV_CLS] = "cls", [CONV_MASK] = "mask",   [CONV_EOT] = "eot",
        [CONV_EOM] = "eom",
    };
    for (int i = 0; i < CONV_ROLES; i++) {
        if (c->role[i] < 0) continue;
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", keys[i]);
        gguf_put_i64(w, key, KV_U32, c->role[i]);
    }
}

static void put_flags(const struct conv *c, struct gguf_writer *w)
{
    const struct { const char *key; int value; } rows[] = {
        { "tokenizer.ggml.add_bos_token", c->add_bos },
        { "tokenizer.ggml.add_eos_token", c->add_eos },
        { "tokenizer.ggml.add_sep_token", c->add_sep },
        { "tokenizer.ggml.add_space_prefix", c->add_space },
        { "tokenizer.ggml.remove_extra_whitespaces", c->remove_spaces },
        { "tokenizer.ggml.normalizer.lowercase", c->lowercase },
        { "tokenizer.ggml.normalizer.strip_accents", c->strip_accents },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].value >= 0) gguf_put_i64(w, rows[i].key, KV_BOOL, rows[i].value);
    if (get_kind(c->tokenizer, "added_tokens", JSON_ARR)) gguf_put_i64(w, "tokenizer.cuanto.exact_types", KV_BOOL, 1); /* tok_special.c */
}

/* A name that was asked for must be one that the file can be opened with. */
static status check_pre(const struct conv *c, struct err *e)
{
    const char *asked = c->o->pre;
    if (!asked) return OK;
    if (strcmp(c->pre, asked)) conv_warn(c, "the pre-tokenizer %.60s is not used: the tokenizer is of the kind \"%s\"", asked, c->model);
    if (strcmp(c->model, "gpt2") || pretok_find(asked, strlen(asked))) return OK;
    char list[200] = "";
    for (int i = 0; pretok_at(i) && strlen(list) + 1 < sizeof list; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", pretok_at(i)->name);
    return err_set(e, ERR_USAGE, "the pre-tokenizer \"%.60s\" is unknown; known are %s, ...", asked, list);
}

static status finish(struct conv *c, struct gguf_writer *w, struct err *e)
{
    if (c->n == 0) return err_set(e, ERR_FORMAT, "the vocabulary is empty");
    TRY(check_pre(c, e));
    TRY(conv_roles(c, e));
    TRY(fit_vocabulary(c, e));
    gguf_put_str(w, "tokenizer.ggml.model", c->model, strlen(c->model));
    gguf_put_str(w, "tokenizer.ggml.pre", c->pre, strlen(c->pre));
    TRY(put_vocabulary(c, w, e));
    for (int i = 0; i < CONV_ROLES; i++)
        if (c->role[i] >= c->n) c->role[i] = -1;
    put_roles(c, w);
    put_flags(c, w);
    if (c->charsmap.n) gguf_put_arr(w, "tokenizer.ggml.precompiled_charsmap", KV_U8, c->charsmap.p, c->charsmap.n);
    return conv_templates(c, w, e);
}

/* ---- entries ---- */

static status begin(struct conv *c, const char *dir, const struct convert_tokenizer_options *o, struct err *e)
{
    *c = (struct conv){ .dir = dir, .o = o, .add_bos = -1, .add_eos = -1, .add_sep = -1, .add_space = -1, .remove_spaces = -1, .lowercase = -1,
                        .strip_accents = -1 };
    for (int i = 0; i < CONV_ROLES; i++) c->role[i] = -1;
    arena_init(&c->mem, (size_t)ARENA_GIB << 30);
    if (o->n_vocab < 0 || o->n_vocab > CONV_IDS_MAX)
        return err_set(e, ERR_FORMAT, "the embedding has %lld rows, allowed are 1 to %d", (long long)o->n_vocab, CONV_IDS_MAX);
    return OK;
}

static void end(struct conv *c)
{
    while (c->n_files) close_last(c);
    mem_free(c->token);
    mem_free(c->slot);
    arena_free(&c->mem);
}

status convert_tokenizer(struct gguf_writer *w, const char *dir, const struct convert_tokenizer_options *o, struct err *e)
{
    struct conv c;
    status st = begin(&c, dir, o, e);
    if (st == OK) st = read_directory(&c, e);
    if (st == OK) st = finish(&c, w, e);
    end(&c);
    return st;
}

status convert_tokenizer_spm(struct gguf_writer *w, const void *data, size_t n, const struct convert_tokenizer_options *o, struct err *e)
{
    struct conv c;
    status st = begin(&c, NULL, o, e);
    if (st == OK) st = conv_read_spm(&c, "tokenizer.model", (struct str){ data, n }, e);
    if (st == OK) st = conv_index(&c, e);
    if (st == OK) st = finish(&c, w, e);
    end(&c);
    return st;
}

status convert_tokenizer_json(struct gguf_writer *w, const void *data, size_t n, const struct convert_tokenizer_options *o, struct err *e)
{
    struct conv c;
    struct json *j = NULL;
    status st = begin(&c, NULL, o, e);
    if (st == OK) st = json_parse(&j, data, n, &c.mem, "tokenizer.json", e);
    if (st == OK && j->kind != JSON_OBJ) st = err_set(e, ERR_FORMAT, "tokenizer.json: %s, expected an object", json_kind_text(j));
    if (st == OK) {
        c.tokenizer = j;
        st = conv_read_json(&c, e);
    }
    if (st == OK) st = finish(&c, w, e);
    end(&c);
    return st;
}

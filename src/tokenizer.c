/* tokenizer - opening, the rows of algorithms, and the public calls. How a word becomes tokens is the business of tok_bpe.c,
 * tok_spm.c and so on, special tokens that of tok_special.c. Invariant: ids that leave this file are < vocab.n. Results equal those of
 * llama.cpp. */
#include "src/tokenizer_int.h"
#include <stdio.h>

static const struct tok_model *const models[] = {
    &tok_bpe, &tok_gemma4, &tok_whitespace, &tok_spm, &tok_wordpiece, &tok_unigram, &tok_rwkv, &tok_plamo,
};

/* ---- open ---- */

static const struct tok_model *find_model(struct str name)
{
    for (int i = 0; i < ARRAY_LEN(models); i++)
        if (strlen(models[i]->name) == name.n && !memcmp(models[i]->name, name.p, name.n)) return models[i];
    return NULL;
}

static int shown_len(struct str s) { return s.n < 40 ? (int)s.n : 40; }

static status choose_model(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    struct str name;
    struct err ge = { 0 };
    if (!gguf_get_str(g, "tokenizer.ggml.model", &name, &ge))
        return ge.code ? err_set(e, ge.code, "%s", ge.text) : err_set(e, ERR_FORMAT, "tokenizer.ggml.model is missing");
    t->model = find_model(name);
    if (t->model) return OK;
    char list[128] = "";
    for (int i = 0, at = 0; i < ARRAY_LEN(models) && at < (int)sizeof list; i++)
        at += snprintf(list + at, sizeof list - (size_t)at, "%s%s", i ? ", " : "", models[i]->name);
    return err_set(e, ERR_FORMAT, "tokenizer.ggml.model is \"%.*s\", known are %s", shown_len(name), name.p, list);
}

/* One name for each distinct scanner: the others are aliases and would not fit in an error text. */
static void list_pre(char *list, size_t cap)
{
    const struct pretok *row, *last = NULL;
    size_t at = 0;
    for (int i = 0; (row = pretok_at(i)) && at < cap; last = row, i++)
        if (!last || row->stages != last->stages) at += (size_t)snprintf(list + at, cap - at, "%s%s", i ? ", " : "", row->name);
}

/* A file without a name is an old one: llama.cpp reads it as "default". */
static status choose_pre(struct tokenizer *t, const struct gguf *g, const char *pre, struct err *e)
{
    if (!t->model->has_pre)
        return pre ? err_set(e, ERR_USAGE, "pre-tokenizer \"%s\": a tokenizer of model \"%s\" has none", pre, t->model->name) : OK;
    struct str name = { "default", 7 };
    struct err ge = { 0 };
    if (!pre) pre = t->model->pre;
    if (pre) name = (struct str){ pre, strlen(pre) };
    else gguf_get_str(g, "tokenizer.ggml.pre", &name, &ge);
    if (ge.code) return err_set(e, ge.code, "%s", ge.text);
    if (name.n == 0) name = (struct str){ "default", 7 };
    t->pre = pretok_find(name.p, name.n);
    if (t->pre) return OK;
    char list[512];
    list_pre(list, sizeof list);
    return err_set(e, pre ? ERR_USAGE : ERR_FORMAT, "%s is \"%.*s\", known are %s, and aliases",
                   pre ? "pre-tokenizer" : "tokenizer.ggml.pre", shown_len(name), name.p, list);
}

/* A flag that the file sets needs its token; one that only the model's default sets is dropped without. */
static status read_flag(const struct gguf *g, const char *key, bool *flag, const char *id_key, int32_t id, struct err *e)
{
    struct err ge = { 0 };
    bool said = gguf_get_bool(g, key, flag, &ge);
    if (ge.code) return err_set(e, ge.code, "%s", ge.text);
    if (said && *flag && id < 0) return err_set(e, ERR_FORMAT, "%s is true, but %s is missing", key, id_key);
    if (id < 0) *flag = false;
    return OK;
}

static status read_flags(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    struct err ge = { 0 };
    unsigned pre = t->pre ? t->pre->flags : 0;
    t->add_bos = t->model->adds_bos || (pre & PRETOK_ADDS_BOS);
    t->add_eos = t->model->adds_eos;
    t->add_space = t->model->adds_space;
    if (!t->model->has_pre) gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space, &ge);
    if (ge.code) return err_set(e, ge.code, "%s", ge.text);
    TRY(read_flag(g, "tokenizer.ggml.add_bos_token", &t->add_bos, "tokenizer.ggml.bos_token_id", t->role[ROLE_BOS], e));
    TRY(read_flag(g, "tokenizer.ggml.add_eos_token", &t->add_eos, "tokenizer.ggml.eos_token_id", t->role[ROLE_EOS], e));
    if (pre & PRETOK_ALWAYS_BOS) t->add_bos = t->role[ROLE_BOS] >= 0;
    int32_t first = t->add_bos ? t->role[ROLE_BOS] : -1, last = t->add_eos ? t->role[ROLE_EOS] : -1;
    if (t->model->frame == FRAME_CLS_SEP) first = t->role[ROLE_BOS], last = t->role[ROLE_SEP];
    if (t->model->frame == FRAME_NONE) first = last = -1;
    t->add_bos = first >= 0;
    t->first = first;
    t->last = last;
    return OK;
}

status tokenizer_open(struct tokenizer **out, const struct gguf *g, const char *pre, struct err *e)
{
    *out = NULL;
    struct tokenizer *t = mem_calloc(1, sizeof *t);
    if (!t) return err_oom(e, "tokenizer", sizeof *t);
    arena_init(&t->mem, 0);
    status st = choose_model(t, g, e);
    if (st == OK) st = choose_pre(t, g, pre, e);
    if (st == OK) st = tok_vocab_open(&t->vocab, g, &t->mem, e);
    if (st == OK) st = tok_special_open(t, g, e);
    if (st == OK) st = read_flags(t, g, e);
    if (st == OK) st = t->model->open(t, g, e);
    if (st == OK) *out = t;
    else tokenizer_close(t);
    return st;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    arena_free(&t->mem);
    mem_free(t->split);
    mem_free(t);
}

/* ---- encode ---- */

enum { TEXT_MAX = 1 << 30 };

status tok_reserve_buf(struct tok_encoder *enc, size_t n, struct err *e)
{
    if (n <= enc->buf_cap) return OK;
    char *p = mem_alloc(n);
    if (!p) return err_oom(e, "tokenizer", n);
    if (enc->buf != enc->buf_own) mem_free(enc->buf);
    enc->buf = p;
    enc->buf_cap = n;
    return OK;
}

/* Keeps what encode wrote: the word itself if it fits, else where it stands. */
static void remember(struct tok_cached *c, const struct tok_encoder *enc, const char *word, const struct tok_key *key, const int32_t *ids, int64_t n_ids)
{
    bool near = key->n <= 16 && n_ids <= TOK_NEAR_IDS;
    *c = (struct tok_cached){ .len = near ? (uint8_t)key->n : TOK_FAR, .n = (uint8_t)n_ids };
    if (near) c->word.key.a = key->a, c->word.key.b = key->b;
    else c->word.far.at = (uint32_t)(word - enc->text), c->word.far.len = (uint32_t)key->n;
    for (int64_t i = 0; i < n_ids; i++) *(i < TOK_NEAR_IDS ? &c->id[i] : &c->word.far.id[i - TOK_NEAR_IDS]) = ids[i];
}

static NOINLINE status encode_new(struct tok_encoder *enc, const char *word, struct tok_key key, tok_encode_word encode, struct err *e)
{
    struct tok_cached *c = &enc->cache[key.hash & enc->cache_mask];
    if (c->len == TOK_FAR && c->word.far.len == key.n && !memcmp(enc->text + c->word.far.at, word, key.n)) {
        for (int32_t i = 0; i < c->n; i++) tok_emit(enc, i < TOK_NEAR_IDS ? c->id[i] : c->word.far.id[i - TOK_NEAR_IDS]);
        return OK;
    }
    int64_t before = enc->n;
    TRY(encode(enc, word, key.n, e));
    int64_t n_ids = enc->n - before;
    if (n_ids <= TOK_CACHED_IDS && enc->n <= enc->cap) remember(c, enc, word, &key, enc->ids + before, n_ids);
    return OK;
}

status tok_encode_cached(struct tok_encoder *enc, const char *word, size_t n, tok_encode_word encode, struct err *e)
{
    if (!enc->cache || n > TOK_CACHED_LEN) return encode(enc, word, n, e);
    struct tok_key key = tok_key_of(word, n);
    const struct tok_cached *c = &enc->cache[key.hash & enc->cache_mask];
    if (c->len != n || c->word.key.a != key.a || c->word.key.b != key.b || enc->n + TOK_NEAR_IDS > enc->cap)
        return encode_new(enc, word, key, encode, e);
    memcpy(enc->ids + enc->n, c->id, sizeof c->id);
    enc->n += c->n;
    return OK;
}

static void encoder_free(struct tok_encoder *enc)
{
    if (enc->symbol != enc->symbol_own) mem_free(enc->symbol);
    if (enc->buf != enc->buf_own) mem_free(enc->buf);
    mem_free(enc->heap);
    mem_free(enc->cache);
    mem_free(enc->joins);
}

/* The text between special tokens goes to the algorithm, piece by piece. */
static status encode_text(struct tok_encoder *enc, size_t n, bool control, struct err *e)
{
    const struct tokenizer *t = enc->t;
    struct tok_hit *hits;
    int64_t n_hits;
    TRY(tok_special_find(t, enc->text, n, control, &hits, &n_hits, e));
    status st = OK;
    size_t at = 0;
    for (int64_t i = 0; st == OK && i < n_hits; i++) {
        if (hits[i].entry < 0) continue;
        if (hits[i].begin > at) st = t->model->encode(enc, enc->text + at, hits[i].begin - at, e);
        if (st == OK) tok_emit(enc, t->special[control].id[hits[i].entry]);
        at = hits[i].end;
    }
    mem_free(hits);
    if (st == OK && n > at) st = t->model->encode(enc, enc->text + at, n - at, e);
    return st;
}

status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags, int32_t *ids, int64_t cap, int64_t *n_out,
                        struct err *e)
{
    *n_out = 0;
    if (n > TEXT_MAX) return err_set(e, ERR_USAGE, "text has %zu bytes, allowed are %d", n, TEXT_MAX);
    struct tok_encoder enc = { .t = t, .text = text, .ids = ids, .cap = cap, .symbol_cap = TOK_SYMBOLS, .buf_cap = TOK_BUF };
    enc.symbol = enc.symbol_own;
    enc.buf = enc.buf_own;
    if (n >= TOK_CACHE_MIN) {
        uint32_t slots = TOK_CACHE_MIN / 8;
        while (slots < TOK_CACHE_SLOTS && slots < n / 8) slots *= 2;
        enc.cache = mem_calloc(slots, sizeof *enc.cache);
        enc.cache_mask = slots - 1;
        bool joins = t->model->joins && n >= TOK_JOIN_MIN;
        if (enc.cache && joins) enc.joins = mem_alloc(TOK_JOIN_SLOTS * sizeof *enc.joins);
        if (!enc.cache || (joins && !enc.joins)) {
            mem_free(enc.cache);
            return err_oom(e, "tokenizer", slots * sizeof *enc.cache + (joins ? TOK_JOIN_SLOTS * sizeof *enc.joins : 0));
        }
        if (enc.joins) memset(enc.joins, 0xff, TOK_JOIN_SLOTS * sizeof *enc.joins); /* left -1 */
    }
    if ((flags & ENCODE_BOS) && t->first >= 0) tok_emit(&enc, t->first);
    status st = n > 0 ? encode_text(&enc, n, flags & ENCODE_SPECIAL, e) : OK;
    if ((flags & ENCODE_BOS) && t->last >= 0) tok_emit(&enc, t->last);
    if (st == OK) *n_out = enc.n;
    encoder_free(&enc);
    return st;
}

/* ---- decode ---- */

static bool in_range(const struct tokenizer *t, int32_t id) { return id >= 0 && id < t->vocab.n; }

/* lead: without the space at the beginning, if there is one. */
static size_t piece_of(const struct tokenizer *t, int32_t id, bool special, bool lead, char *buf, size_t cap)
{
    unsigned attr = t->vocab.attr[id];
    struct str s = tok_text(&t->vocab, id);
    size_t at = 0;
    if (!special && (attr & (ATTR_CONTROL | ATTR_UNKNOWN))) return 0;
    if (attr & ATTR_SPECIAL) {
        tok_put(buf, cap, &at, s.p, s.n);
    } else if (attr & ATTR_NORMAL) {
        if (lead && s.n >= TOK_SPACE_LEN && !memcmp(s.p, TOK_SPACE, TOK_SPACE_LEN))
            s = (struct str){ s.p + TOK_SPACE_LEN, s.n - TOK_SPACE_LEN };
        at = t->model->piece(t, s, buf, cap);
    } else if (attr & ATTR_BYTE) {
        char byte = (char)tok_byte_value(s);
        tok_put(buf, cap, &at, &byte, 1);
    }
    return at;
}

size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *buf, size_t cap)
{
    return in_range(t, id) ? piece_of(t, id, special, false, buf, cap) : 0;
}

struct str tokenizer_text(const struct tokenizer *t, int32_t id)
{
    return in_range(t, id) ? tok_text(&t->vocab, id) : (struct str){ "", 0 };
}

/* The space that encoding put before the first word of the text stands after every special token too, and goes there as well. */
size_t tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t n, bool special, char *buf, size_t cap)
{
    size_t at = 0;
    bool lead = t->lead_space;
    for (int64_t i = 0; i < n; i++) {
        if (!in_range(t, ids[i])) continue;
        at += piece_of(t, ids[i], special, lead, at < cap ? buf + at : NULL, at < cap ? cap - at : 0);
        lead = t->lead_space && (t->vocab.attr[ids[i]] & ATTR_SPECIAL);
    }
    return at;
}

/* ---- facts ---- */

int64_t tokenizer_size(const struct tokenizer *t) { return t->vocab.n; }

size_t tokenizer_piece_max(const struct tokenizer *t) { return t->vocab.len_max; }

int tokenizer_attr(const struct tokenizer *t, int32_t id)
{
    static const struct {
        int bit, attr;
    } order[] = {
        { ATTR_CONTROL, TOKEN_CONTROL }, { ATTR_UNKNOWN, TOKEN_UNKNOWN }, { ATTR_USER, TOKEN_USER },
        { ATTR_BYTE, TOKEN_BYTE },       { ATTR_NORMAL, TOKEN_NORMAL },
    };
    if (in_range(t, id))
        for (int i = 0; i < ARRAY_LEN(order); i++)
            if (t->vocab.attr[id] & order[i].bit) return order[i].attr;
    return TOKEN_UNUSED;
}

int32_t tokenizer_bos(const struct tokenizer *t) { return t->role[ROLE_BOS]; }
int32_t tokenizer_eos(const struct tokenizer *t) { return t->role[ROLE_EOS]; }
bool tokenizer_adds_bos(const struct tokenizer *t) { return t->add_bos; }
bool tokenizer_is_end(const struct tokenizer *t, int32_t id) { return in_range(t, id) && (t->vocab.attr[id] & ATTR_END); }
const char *tokenizer_model_name(const struct tokenizer *t) { return t->model->name; }
const char *tokenizer_pre_name(const struct tokenizer *t) { return t->pre ? t->pre->name : ""; }

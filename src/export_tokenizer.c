/* export_tokenizer - tokenizer.json and tokenizer_config.json from the vocabulary of a GGUF file: byte-level BPE with the rules of its pre-tokenizer
 * (the table in convert_tok_pre.c), SentencePiece BPE as merges in the order of scores, the way transformers' own converter writes it
 * (convert_slow_tokenizer.py, generate_merges). Other kinds are left out with a word. */
#include "src/convert_tok_int.h"
#include "src/export_int.h"
#include "src/pretok.h"
#include "src/unicode.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACE_MARK "\xe2\x96\x81"

static void put_text(struct json_out *o, const char *key, struct str s) { json_put_str(o, key, s.p, s.n); }

static struct str token_text(const struct export *x, int64_t id) { return tokenizer_text(model_tokenizer(x->m), (int32_t)id); }

static void begin_typed(struct json_out *o, const char *key, const char *type)
{
    json_begin(o, key, '{');
    json_put_cstr(o, "type", type);
}

/* ---- parts that both kinds have ---- */

static void put_added(const struct export *x, struct json_out *o)
{
    const struct tokenizer *t = model_tokenizer(x->m);
    json_begin(o, "added_tokens", '[');
    for (int64_t id = 0; id < tokenizer_size(t); id++) {
        int attr = tokenizer_attr(t, (int32_t)id);
        if (attr != TOKEN_CONTROL && attr != TOKEN_USER && attr != TOKEN_UNKNOWN) continue;
        json_begin(o, NULL, '{');
        json_put_i64(o, "id", id);
        put_text(o, "content", token_text(x, id));
        static const char *const off[] = { "single_word", "lstrip", "rstrip", "normalized" };
        for (int i = 0; i < ARRAY_LEN(off); i++) json_put_bool(o, off[i], false);
        json_put_bool(o, "special", attr != TOKEN_USER);
        json_end(o, '}');
    }
    json_end(o, ']');
}

/* Rows of the embedding without a token are no tokens here. */
static bool is_padding(const struct export *x, int64_t id)
{
    struct str s = token_text(x, id);
    return tokenizer_attr(model_tokenizer(x->m), (int32_t)id) == TOKEN_UNUSED && (s.n == 0 || (s.n > 4 && !memcmp(s.p, "[PAD", 4)));
}

static int64_t role_id(const struct export *x, const char *name)
{
    char key[64];
    int64_t id = -1;
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    return gguf_get_i64(&x->m->g, key, 0, tokenizer_size(model_tokenizer(x->m)) - 1, &id, NULL) ? id : -1;
}

static void put_special(const struct export *x, int64_t id, struct json_out *o)
{
    json_begin(o, NULL, '{');
    json_begin(o, "SpecialToken", '{');
    put_text(o, "id", token_text(x, id));
    json_put_i64(o, "type_id", 0);
    json_end(o, '}');
    json_end(o, '}');
}

static void put_sequence(const struct export *x, const char *names, int64_t bos, int64_t eos, struct json_out *o)
{
    for (int i = 0; names[i]; i++) {
        if (bos >= 0) put_special(x, bos, o);
        json_begin(o, NULL, '{');
        json_begin(o, "Sequence", '{');
        json_put_str(o, "id", names + i, 1);
        json_put_i64(o, "type_id", i);
        json_end(o, '}');
        json_end(o, '}');
        if (eos >= 0) put_special(x, eos, o);
    }
}

/* What stands before and behind every text. */
static void put_surroundings(const struct export *x, struct json_out *o)
{
    const struct tokenizer *t = model_tokenizer(x->m);
    bool adds_eos = false;
    (void)gguf_get_bool(&x->m->g, "tokenizer.ggml.add_eos_token", &adds_eos, NULL);
    int64_t end[2] = { tokenizer_adds_bos(t) ? tokenizer_bos(t) : -1, adds_eos ? tokenizer_eos(t) : -1 };
    if (end[0] < 0 && end[1] < 0) {
        json_put_null(o, "post_processor");
        return;
    }
    begin_typed(o, "post_processor", "TemplateProcessing");
    json_begin(o, "single", '[');
    put_sequence(x, "A", end[0], end[1], o);
    json_end(o, ']');
    json_begin(o, "pair", '[');
    put_sequence(x, "AB", end[0], end[1], o);
    json_end(o, ']');
    json_begin(o, "special_tokens", '{');
    for (int i = 0; i < 2; i++) {
        if (end[i] < 0 || (i == 1 && end[1] == end[0])) continue;
        struct str s = token_text(x, end[i]);
        char *key = arena_strdup(x->mem, s.p, s.n);
        if (!key) {
            o->failed = true;
            continue;
        }
        json_begin(o, key, '{');
        put_text(o, "id", s);
        json_begin(o, "ids", '[');
        json_put_i64(o, NULL, end[i]);
        json_end(o, ']');
        json_begin(o, "tokens", '[');
        put_text(o, NULL, s);
        json_end(o, ']');
        json_end(o, '}');
    }
    json_end(o, '}');
    json_end(o, '}');
}

static status put_vocab(const struct export *x, struct json_out *o, struct err *e)
{
    const struct tokenizer *t = model_tokenizer(x->m);
    struct json_out *out = o;
    json_begin(out, "vocab", '{');
    for (int64_t id = 0; id < tokenizer_size(t); id++) {
        struct str s = token_text(x, id);
        char key[512], *long_key = NULL;
        if (is_padding(x, id)) continue;
        if (memchr(s.p, 0, s.n)) return err_set(e, ERR_FORMAT, "token %lld holds a zero byte", (long long)id);
        if (s.n >= sizeof key && !(long_key = arena_strdup(x->mem, s.p, s.n))) return err_oom(e, "vocabulary", s.n);
        if (!long_key) snprintf(key, sizeof key, "%.*s", (int)s.n, s.p);
        json_put_i64(out, long_key ? long_key : key, id);
    }
    json_end(out, '}');
    return OK;
}

static void begin_model(struct json_out *o, const char *unk, bool byte_fallback, bool ignore_merges)
{
    static const char *const none[] = { "dropout", "continuing_subword_prefix", "end_of_word_suffix" };
    begin_typed(o, "model", "BPE");
    for (int i = 0; i < ARRAY_LEN(none); i++) json_put_null(o, none[i]);
    json_put_cstr(o, "unk_token", unk);
    json_put_bool(o, "fuse_unk", byte_fallback);
    json_put_bool(o, "byte_fallback", byte_fallback);
    json_put_bool(o, "ignore_merges", ignore_merges);
}

/* ---- byte-level BPE ---- */

static void put_byte_level(struct json_out *o, const char *key, bool space, bool regex)
{
    begin_typed(o, key, "ByteLevel");
    json_put_bool(o, "add_prefix_space", space);
    json_put_bool(o, "trim_offsets", true);
    json_put_bool(o, "use_regex", regex);
    json_end(o, '}');
}

static void put_rule(struct json_out *o, const char *rule)
{
    static const char contractions[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    char text[4200];
    size_t at = 0;
    if (!strncmp(rule, "punctuation", 11)) {
        begin_typed(o, NULL, "Punctuation");
        json_put_cstr(o, "behavior", rule[11] ? "Contiguous" : "Isolated");
        json_end(o, '}');
        return;
    }
    for (const char *p = rule; *p && at + sizeof contractions < sizeof text;) {
        bool mark = !strncmp(p, "(C)", 3);
        at += (size_t)snprintf(text + at, sizeof text - at, mark ? "%s" : "%.1s", mark ? contractions : p);
        p += mark ? 3 : 1;
    }
    begin_typed(o, NULL, "Split");
    json_begin(o, "pattern", '{');
    json_put_str(o, "Regex", text, at);
    json_end(o, '}');
    json_put_cstr(o, "behavior", "Isolated");
    json_put_bool(o, "invert", false);
    json_end(o, '}');
}

/* The rules by the name itself, or by one that cuts with the same scanners. */
static const char *const *rules_of(const char *pre)
{
    const struct pretok *own = pretok_find(pre, strlen(pre)), *other;
    const char *const *rules = conv_pre_rules(pre);
    for (int i = 0; !rules && own && (other = pretok_at(i)); i++)
        if (other->stages == own->stages) rules = conv_pre_rules(other->name);
    return rules;
}

static status put_bpe(const struct export *x, const char *const *rules, struct json_out *o, struct err *e)
{
    const char *pre = tokenizer_pre_name(model_tokenizer(x->m));
    const struct pretok *row = pretok_find(pre, strlen(pre));
    const struct gguf_kv *merges = gguf_find(&x->m->g, "tokenizer.ggml.merges");
    begin_typed(o, "pre_tokenizer", "Sequence");
    json_begin(o, "pretokenizers", '[');
    for (int i = 0; i < CONV_RULES_MAX && rules[i]; i++) put_rule(o, rules[i]);
    put_byte_level(o, NULL, false, false);
    json_end(o, ']');
    json_end(o, '}');
    put_surroundings(x, o);
    put_byte_level(o, "decoder", true, true);
    begin_model(o, NULL, false, row && row->flags & PRETOK_WHOLE_WORDS);
    TRY(put_vocab(x, o, e));
    json_begin(o, "merges", '[');
    const uint8_t *at = merges && merges->kind == KV_ARR ? merges->data : NULL;
    for (uint64_t i = 0; at && i < merges->n; i++) put_text(o, NULL, gguf_arr_str(&at));
    json_end(o, ']');
    json_end(o, '}');
    return OK;
}

/* ---- SentencePiece BPE ---- */

struct merge {
    float score;
    int32_t id, left, right; /* token; characters of its halves */
    uint32_t bytes;          /* of the left one */
};

struct table { int32_t *slot; size_t mask; };

static bool is_token(const struct export *x, const struct table *t, const char *p, size_t n)
{
    for (size_t i = hash64((uintptr_t)t, p, n) & t->mask; t->slot[i] >= 0; i = (i + 1) & t->mask) {
        struct str s = token_text(x, t->slot[i]);
        if (s.n == n && !memcmp(s.p, p, n)) return true;
    }
    return false;
}

static status make_table(const struct export *x, struct table *t, struct err *e)
{
    int64_t n = tokenizer_size(model_tokenizer(x->m));
    size_t slots = 64;
    while (slots < 2 * (size_t)n) slots *= 2;
    t->slot = mem_alloc(slots * sizeof *t->slot);
    if (!t->slot) return err_oom(e, "vocabulary", slots * sizeof *t->slot);
    memset(t->slot, 0xff, slots * sizeof *t->slot);
    t->mask = slots - 1;
    for (int32_t id = 0; id < n; id++) {
        struct str s = token_text(x, id);
        size_t i = hash64((uintptr_t)t, s.p, s.n) & t->mask;
        while (t->slot[i] >= 0) i = (i + 1) & t->mask;
        t->slot[i] = id;
    }
    return OK;
}

static int by_rank(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left != y->left) return x->left > y->left ? -1 : 1;
    if (x->right != y->right) return x->right > y->right ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static int32_t characters(const char *p, size_t n)
{
    int32_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((uint8_t)p[i] & 0xc0) != 0x80;
    return count;
}

/* Both halves of every piece, wherever both are tokens. list NULL: only counted. */
static int64_t find_merges(const struct export *x, const struct table *t, const struct gguf_kv *scores, struct merge *list)
{
    const struct tokenizer *tok = model_tokenizer(x->m);
    int64_t n = 0;
    for (int32_t id = 0; id < tokenizer_size(tok); id++) {
        struct str s = token_text(x, id);
        if (tokenizer_attr(tok, id) != TOKEN_NORMAL || s.n > 512) continue;
        for (size_t i = 1; i < s.n; i++) {
            if (((uint8_t)s.p[i] & 0xc0) == 0x80 || !is_token(x, t, s.p, i) || !is_token(x, t, s.p + i, s.n - i)) continue;
            if (list) list[n] = (struct merge){ gguf_arr_f32(scores, (uint64_t)id), id, characters(s.p, i), characters(s.p + i, s.n - i), (uint32_t)i };
            n++;
        }
    }
    return n;
}

static status put_score_merges(const struct export *x, struct json_out *o, struct err *e)
{
    const struct gguf_kv *scores = gguf_find(&x->m->g, "tokenizer.ggml.scores");
    struct table t = { 0 };
    struct merge *list = NULL;
    int64_t n = 0;
    if (!scores || scores->kind != KV_ARR || scores->n != (uint64_t)tokenizer_size(model_tokenizer(x->m)))
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.scores is missing");
    status st = make_table(x, &t, e);
    if (st == OK) n = find_merges(x, &t, scores, NULL);
    if (st == OK && !(list = mem_calloc((size_t)n + 1, sizeof *list))) st = err_oom(e, "merges", (size_t)n * sizeof *list);
    json_begin(o, "merges", '[');
    if (st == OK) {
        find_merges(x, &t, scores, list);
        qsort(list, (size_t)n, sizeof *list, by_rank);
        for (int64_t i = 0; i < n; i++) {
            struct str s = token_text(x, list[i].id);
            json_begin(o, NULL, '[');
            json_put_str(o, NULL, s.p, list[i].bytes);
            json_put_str(o, NULL, s.p + list[i].bytes, s.n - list[i].bytes);
            json_end(o, ']');
        }
    }
    json_end(o, ']');
    mem_free(list);
    mem_free(t.slot);
    return st;
}

static void put_replace(struct json_out *o, const char *key, const char *from, const char *to)
{
    begin_typed(o, key, "Replace");
    json_begin(o, "pattern", '{');
    json_put_cstr(o, "String", from);
    json_end(o, '}');
    json_put_cstr(o, "content", to);
    json_end(o, '}');
}

static void put_plain(struct json_out *o, const char *type)
{
    begin_typed(o, NULL, type);
    json_end(o, '}');
}

static status put_spm(const struct export *x, struct json_out *o, struct err *e)
{
    bool space = true;
    (void)gguf_get_bool(&x->m->g, "tokenizer.ggml.add_space_prefix", &space, NULL);
    begin_typed(o, "normalizer", "Sequence");
    json_begin(o, "normalizers", '[');
    if (space) {
        begin_typed(o, NULL, "Prepend");
        json_put_cstr(o, "prepend", SPACE_MARK);
        json_end(o, '}');
    }
    put_replace(o, NULL, " ", SPACE_MARK);
    json_end(o, ']');
    json_end(o, '}');
    json_put_null(o, "pre_tokenizer");
    put_surroundings(x, o);
    begin_typed(o, "decoder", "Sequence");
    json_begin(o, "decoders", '[');
    put_replace(o, NULL, SPACE_MARK, " ");
    put_plain(o, "ByteFallback");
    put_plain(o, "Fuse");
    if (space) {
        begin_typed(o, NULL, "Strip");
        json_put_cstr(o, "content", " ");
        json_put_i64(o, "start", 1);
        json_put_i64(o, "stop", 0);
        json_end(o, '}');
    }
    json_end(o, ']');
    json_end(o, '}');
    int64_t unk = role_id(x, "unknown");
    struct str s = unk >= 0 ? token_text(x, unk) : (struct str){ NULL, 0 };
    char *name = s.n ? arena_strdup(x->mem, s.p, s.n) : NULL;
    o->failed |= s.n && !name;
    begin_model(o, name, true, false);
    TRY(put_vocab(x, o, e));
    TRY(put_score_merges(x, o, e));
    json_end(o, '}');
    return OK;
}

/* ---- files ---- */

status export_tokenizer(const struct export *x, struct json_out *o, bool *written, struct err *e)
{
    const struct tokenizer *t = model_tokenizer(x->m);
    bool bpe = !strcmp(tokenizer_model_name(t), "gpt2"), spm = !strcmp(tokenizer_model_name(t), "llama");
    const char *const *rules = bpe ? rules_of(tokenizer_pre_name(t)) : NULL;
    *written = spm || rules;
    if (!*written) {
        export_warn(x, "no tokenizer.json: the tokenizer \"%s\"%s%s has no exact form there", tokenizer_model_name(t), bpe ? " with the pre-tokenizer " : "",
                    bpe ? tokenizer_pre_name(t) : "");
        return OK;
    }
    json_begin(o, NULL, '{');
    json_put_cstr(o, "version", "1.0");
    json_put_null(o, "truncation");
    json_put_null(o, "padding");
    put_added(x, o);
    if (bpe) json_put_null(o, "normalizer");
    TRY(bpe ? put_bpe(x, rules, o, e) : put_spm(x, o, e));
    json_end(o, '}');
    return OK;
}

status export_tokenizer_config(const struct export *x, bool tokenizer, struct json_out *o, struct err *e)
{
    static const struct { const char *role, *member; } roles[] = {
        { "bos", "bos_token" }, { "eos", "eos_token" }, { "unknown", "unk_token" }, { "padding", "pad_token" }, { "mask", "mask_token" },
    };
    struct str template = model_template(x->m);
    json_begin(o, NULL, '{');
    json_put_cstr(o, "tokenizer_class", "PreTrainedTokenizerFast");
    for (int i = 0; i < ARRAY_LEN(roles); i++) {
        int64_t id = role_id(x, roles[i].role);
        if (id >= 0) put_text(o, roles[i].member, token_text(x, id));
    }
    json_put_i64(o, "model_max_length", x->m->hp.n_ctx_train);
    json_put_bool(o, "clean_up_tokenization_spaces", false);
    if (template.n) put_text(o, "chat_template", template);
    json_end(o, '}');
    return OK;
}

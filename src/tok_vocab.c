/* tok_vocab - the token list: views into the file, one open-addressing table from text to id. Invariant: every text of the table lies
 * inside the token array, whose bounds gguf.c proved. Memory per token: an entry of 32 bytes, 2 of attributes, 5 to 11 of table. */
#include "src/tokenizer_int.h"

static bool is_entry(const struct tok_vocab *v, int32_t id, const char *text, const struct tok_key *key)
{
    const struct tok_entry *x = &v->entry[id];
    if (key->n <= TOK_SHORT) return x->short_len == key->n && x->a == key->a && x->b == key->b;
    if (x->short_len) return false;
    struct str s = tok_text(v, id);
    return s.n == key->n && !memcmp(s.p, text, s.n);
}

/* The slot that holds the text or is free for it, NULL after TOK_PROBES others. */
static uint32_t *slot_of(const struct tok_vocab *v, const char *text, const struct tok_key *key)
{
    for (uint32_t i = 0; i < TOK_PROBES; i++) {
        uint32_t *slot = &v->slot[(key->hash + i) & v->slot_mask];
        if (*slot == TOK_FREE) return slot;
        if (((*slot ^ key->hash) & ~v->id_mask) == 0 && is_entry(v, (int32_t)(*slot & v->id_mask), text, key)) return slot;
    }
    return NULL;
}

int32_t tok_vocab_find(const struct tok_vocab *v, const char *text, size_t n)
{
    if (n == 0 || n > v->len_max) return -1;
    struct tok_key key = tok_key_of(text, n);
    const uint32_t *slot = slot_of(v, text, &key);
    return slot && *slot != TOK_FREE ? (int32_t)(*slot & v->id_mask) : -1;
}

int tok_hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

int tok_byte_value(struct str s)
{
    if (s.n != 6 || memcmp(s.p, "<0x", 3) || s.p[5] != '>') return -1;
    int high = tok_hex_digit(s.p[3]), low = tok_hex_digit(s.p[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Slots are fetched for a batch of texts before the first of them is entered: at 262k tokens the table is larger than most caches, and
 * waiting for each slot took more than half of the time to open. */
static status index_texts(struct tok_vocab *v, const uint8_t *cursor, const char *name, struct err *e)
{
    struct tok_key key[TOK_BATCH];
    for (int32_t first = 0; first < v->n; first += TOK_BATCH) {
        int32_t end = (int32_t)min_i64(v->n, first + TOK_BATCH);
        for (int32_t id = first; id < end; id++) {
            struct str s = gguf_arr_str(&cursor);
            size_t at = (size_t)((const uint8_t *)s.p - v->base);
            if (at > UINT32_MAX)
                return err_set(e, ERR_FORMAT, "%s: text %d begins at byte %zu, allowed are 4 GiB", name, id, at);
            v->attr[id] = ATTR_NORMAL;
            if (s.n > v->len_max) v->len_max = s.n;
            struct tok_key *k = &key[id - first];
            *k = tok_key_of(s.p, s.n);
            v->entry[id] = (struct tok_entry){ .a = k->a, .b = k->b, .at = (uint32_t)at, .short_len = s.n <= TOK_SHORT ? (unsigned)s.n : 0 };
            tok_vocab_expect(v, k->hash);
        }
        for (int32_t id = first; id < end; id++) {
            struct str s = tok_text(v, id);
            if (s.n == 0) continue;
            const struct tok_key *k = &key[id - first];
            uint32_t *slot = slot_of(v, s.p, k);
            if (!slot)
                return err_set(e, ERR_FORMAT, "%s[%d] is one of more than %d whose hashes collide", name, id, TOK_PROBES);
            if (*slot == TOK_FREE) *slot = (k->hash & ~v->id_mask) | (uint32_t)id;
            else v->repeats = true;
        }
    }
    return OK;
}

/* Slots are at most 3/4 full. */
status tok_vocab_index(struct tok_vocab *v, const uint8_t *texts, size_t n, const char *name, struct arena *mem, struct err *e)
{
    uint32_t n_slots = 16;
    while (n_slots < n + n / 3) n_slots *= 2;
    v->n = (int64_t)n;
    v->base = texts;
    v->slot_mask = n_slots - 1;
    while (v->id_mask <= n) v->id_mask = 2 * v->id_mask + 1;
    v->entry = arena_alloc(mem, n * sizeof *v->entry);
    v->attr = arena_alloc(mem, n * sizeof *v->attr);
    v->slot = arena_alloc(mem, n_slots * sizeof *v->slot);
    if (!v->entry || !v->attr || !v->slot)
        return err_oom(e, "vocabulary", n * (sizeof *v->entry + sizeof *v->attr) + n_slots * sizeof *v->slot);
    memset(v->slot, 0xff, n_slots * sizeof *v->slot); /* TOK_FREE */
    return index_texts(v, texts, name, e);
}

static status read_types(struct tok_vocab *v, const struct gguf *g, struct err *e)
{
    /* By the number in the file. Type 0, undefined, has no text, like an unused token. */
    static const uint16_t attr[] = { ATTR_UNUSED, ATTR_NORMAL, ATTR_UNKNOWN, ATTR_CONTROL, ATTR_USER, ATTR_UNUSED, ATTR_BYTE };
    const struct gguf_kv *kv;
    struct err ge = { 0 };
    if (!gguf_get_arr(g, "tokenizer.ggml.token_type", KV_I32, &kv, &ge)) return ge.code ? err_set(e, ge.code, "%s", ge.text) : OK;
    if (kv->n != (uint64_t)v->n)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.token_type has %llu items, tokenizer.ggml.tokens has %lld", (unsigned long long)kv->n,
                       (long long)v->n);
    for (int32_t id = 0; id < v->n; id++) {
        int32_t type;
        memcpy(&type, kv->data + (size_t)id * sizeof type, sizeof type);
        if (type < 0 || type >= ARRAY_LEN(attr))
            return err_set(e, ERR_FORMAT, "tokenizer.ggml.token_type[%d] is %d, allowed are 0 to %d", id, type,
                           ARRAY_LEN(attr) - 1);
        struct str s = tok_text(v, id);
        if (type == TOKEN_BYTE && tok_byte_value(s) < 0)
            return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens[%d] is the byte token \"%.*s\", expected a text like <0x0A>", id,
                           s.n < 32 ? (int)s.n : 32, s.p);
        v->attr[id] = attr[type];
    }
    return OK;
}

status tok_vocab_open(struct tok_vocab *v, const struct gguf *g, struct arena *mem, struct err *e)
{
    const struct gguf_kv *tokens;
    struct err ge = { 0 };
    if (!gguf_get_arr(g, "tokenizer.ggml.tokens", KV_STR, &tokens, &ge))
        return ge.code ? err_set(e, ge.code, "%s", ge.text) : err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens is missing");
    if (tokens->n == 0 || tokens->n > 1 << 28)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens has %llu items, allowed are 1 to %d", (unsigned long long)tokens->n, 1 << 28);
    TRY(tok_vocab_index(v, tokens->data, (size_t)tokens->n, "tokenizer.ggml.tokens", mem, e));
    return read_types(v, g, e);
}

status tok_vocab_scores(const struct tok_vocab *v, const struct gguf *g, const struct gguf_kv **scores, struct err *e)
{
    const struct gguf_kv *kv;
    struct err ge = { 0 };
    if (!gguf_get_arr(g, "tokenizer.ggml.scores", KV_F32, &kv, &ge))
        return ge.code ? err_set(e, ge.code, "%s", ge.text) : err_set(e, ERR_FORMAT, "tokenizer.ggml.scores is missing");
    if (kv->n != (uint64_t)v->n)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.scores has %llu items, tokenizer.ggml.tokens has %lld", (unsigned long long)kv->n,
                       (long long)v->n);
    for (uint64_t i = 0; i < kv->n; i++) {
        float score = gguf_arr_f32(kv, i);
        if (score != score) return err_set(e, ERR_FORMAT, "tokenizer.ggml.scores[%llu] is not a number", (unsigned long long)i);
    }
    *scores = kv;
    return OK;
}

/* tok_vocab - the token list: views into the file, one open-addressing table from text to id. Invariant: every text of the table lies
 * inside the token array, whose bounds gguf.c proved. Memory per token: 4 bytes of offset, 2 of attributes, 16 to 32 of table. */
#include "src/tokenizer_int.h"

/* The slot that holds the text or is free for it, NULL after TOK_PROBES others. */
static struct tok_slot *slot_of(const struct tok_vocab *v, uint32_t hash, const char *text, size_t n)
{
    for (uint32_t i = 0; i < TOK_PROBES; i++) {
        struct tok_slot *slot = &v->slot[(hash + i) & v->slot_mask];
        if (slot->id < 0) return slot;
        if (slot->hash != hash) continue;
        struct str s = tok_text(v, slot->id);
        if (s.n == n && !memcmp(s.p, text, n)) return slot;
    }
    return NULL;
}

int32_t tok_vocab_find_hashed(const struct tok_vocab *v, const char *text, size_t n, uint32_t hash)
{
    if (n == 0 || n > v->len_max) return -1;
    const struct tok_slot *slot = slot_of(v, hash, text, n);
    return slot ? slot->id : -1;
}

int32_t tok_vocab_find(const struct tok_vocab *v, const char *text, size_t n)
{
    return tok_vocab_find_hashed(v, text, n, tok_hash(text, n));
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
    uint32_t hash[TOK_BATCH];
    for (int32_t first = 0; first < v->n; first += TOK_BATCH) {
        int32_t end = (int32_t)min_i64(v->n, first + TOK_BATCH);
        for (int32_t id = first; id < end; id++) {
            struct str s = gguf_arr_str(&cursor);
            size_t at = (size_t)((const uint8_t *)s.p - v->base);
            if (at > UINT32_MAX)
                return err_set(e, ERR_FORMAT, "%s: text %d begins at byte %zu, allowed are 4 GiB", name, id, at);
            v->at[id] = (uint32_t)at;
            v->attr[id] = ATTR_NORMAL;
            if (s.n > v->len_max) v->len_max = s.n;
            hash[id - first] = tok_hash(s.p, s.n);
            tok_vocab_expect(v, hash[id - first]);
        }
        for (int32_t id = first; id < end; id++) {
            struct str s = tok_text(v, id);
            if (s.n == 0) continue;
            struct tok_slot *slot = slot_of(v, hash[id - first], s.p, s.n);
            if (!slot)
                return err_set(e, ERR_FORMAT, "%s[%d] is one of more than %d whose hashes collide", name, id, TOK_PROBES);
            if (slot->id < 0) *slot = (struct tok_slot){ hash[id - first], id };
            else v->repeats = true;
        }
    }
    return OK;
}

/* Slots are at most 3/4 full: 151,936 tokens in 2 MiB, of which every page is touched. */
status tok_vocab_index(struct tok_vocab *v, const uint8_t *texts, size_t n, const char *name, struct arena *mem, struct err *e)
{
    uint32_t n_slots = 16;
    while (n_slots < n + n / 3) n_slots *= 2;
    v->n = (int64_t)n;
    v->base = texts;
    v->slot_mask = n_slots - 1;
    v->at = arena_alloc(mem, n * sizeof *v->at);
    v->attr = arena_alloc(mem, n * sizeof *v->attr);
    v->slot = arena_alloc(mem, n_slots * sizeof *v->slot);
    if (!v->at || !v->attr || !v->slot) return err_oom(e, "vocabulary", n * 6 + n_slots * sizeof *v->slot);
    memset(v->slot, 0xff, n_slots * sizeof *v->slot); /* id -1 */
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

/* tok_vocab - the token list: views into the file, one open-addressing table from text to id. Invariant: every text of the table lies
 * inside the token array, whose bounds gguf.c proved. Memory per token: 4 bytes of offset, 2 of attributes, 16 to 32 of table. */
#include "src/tokenizer_int.h"

/* Eight bytes a step; the multiplier is the golden ratio, odd. */
uint32_t tok_hash(const char *p, size_t n)
{
    const uint64_t k = 0x9e3779b97f4a7c15u;
    uint64_t h = n * k, w;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&w, p, 8);
        h = (h ^ w) * k;
        h ^= h >> 29;
    }
    w = 0;
    if (n >= 4) { /* overlapping: a loop over the rest was a fifth of the time of short texts */
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + n - 4, 4);
        w = (uint64_t)high << 32 | low;
    } else if (n > 0) {
        w = (uint64_t)(uint8_t)p[0] | (uint64_t)(uint8_t)p[n / 2] << 8 | (uint64_t)(uint8_t)p[n - 1] << 16;
    }
    h = (h ^ w) * k;
    h ^= h >> 32;
    return (uint32_t)(h * k >> 32);
}

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

void tok_vocab_expect(const struct tok_vocab *v, uint32_t hash, int step)
{
    const struct tok_slot *slot = &v->slot[hash & v->slot_mask];
    if (step == 0) __builtin_prefetch(slot);
    else if (slot->id >= 0) __builtin_prefetch(v->base + v->at[slot->id]);
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
static status index_texts(struct tok_vocab *v, const uint8_t *cursor, struct err *e)
{
    uint32_t hash[TOK_BATCH];
    for (int32_t first = 0; first < v->n; first += TOK_BATCH) {
        int32_t end = (int32_t)min_i64(v->n, first + TOK_BATCH);
        for (int32_t id = first; id < end; id++) {
            struct str s = gguf_arr_str(&cursor);
            size_t at = (size_t)((const uint8_t *)s.p - v->base);
            if (at > UINT32_MAX)
                return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens: token %d begins at byte %zu, allowed are 4 GiB", id, at);
            v->at[id] = (uint32_t)at;
            v->attr[id] = ATTR_NORMAL;
            if (s.n > v->len_max) v->len_max = s.n;
            hash[id - first] = tok_hash(s.p, s.n);
            tok_vocab_expect(v, hash[id - first], 0);
        }
        for (int32_t id = first; id < end; id++) {
            struct str s = tok_text(v, id);
            if (s.n == 0) continue;
            struct tok_slot *slot = slot_of(v, hash[id - first], s.p, s.n);
            if (!slot)
                return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens[%d] is one of more than %d whose hashes collide", id, TOK_PROBES);
            if (slot->id < 0) *slot = (struct tok_slot){ hash[id - first], id };
        }
    }
    return OK;
}

static status open_texts(struct tok_vocab *v, const struct gguf_kv *tokens, struct arena *mem, struct err *e)
{
    uint32_t n_slots = 16;
    while (n_slots < 2 * tokens->n) n_slots *= 2;
    v->n = (int64_t)tokens->n;
    v->base = tokens->data;
    v->slot_mask = n_slots - 1;
    v->at = arena_alloc(mem, tokens->n * sizeof *v->at);
    v->attr = arena_alloc(mem, tokens->n * sizeof *v->attr);
    v->slot = arena_alloc(mem, n_slots * sizeof *v->slot);
    if (!v->at || !v->attr || !v->slot) return err_oom(e, "vocabulary", tokens->n * 6 + n_slots * sizeof *v->slot);
    memset(v->slot, 0xff, n_slots * sizeof *v->slot); /* id -1 */
    return index_texts(v, tokens->data, e);
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
        int64_t type = gguf_arr_i64(kv, (uint64_t)id);
        if (type < 0 || type >= ARRAY_LEN(attr))
            return err_set(e, ERR_FORMAT, "tokenizer.ggml.token_type[%d] is %lld, allowed are 0 to %d", id, (long long)type,
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
    TRY(open_texts(v, tokens, mem, e));
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

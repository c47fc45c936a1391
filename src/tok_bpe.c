/* tok_bpe - byte-pair encoding by a list of merges (tokenizer.ggml.model "gpt2", "gemma4", "whitespace"): words come from pretok, every
 * byte of a word starts as a token of its own, and neighbours are joined by the merge list, earliest entry first.
 * In the vocabulary each byte is written as one printable character: itself if it is printable Latin-1, else U+0100 and up in order.
 * Rows of pretok with PRETOK_CHARS begin with characters instead, which the vocabulary holds as they are. */
#include "src/tokenizer_int.h"
#include "src/unicode.h"
#include <stdio.h>

/* ---- bytes and the characters they are written as ---- */

static bool is_plain(unsigned b) { return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae; }

enum { N_SHIFTED = 0x21 + (0xa0 - 0x7e) + 1 }; /* bytes that are not plain: 00..20, 7f..a0, ad */

/* In order they are: 00..20 -> U+0100..0120, 7f..a0 -> U+0121..0142, ad -> U+0143. */
static uint32_t byte_char(unsigned b) { return is_plain(b) ? b : b <= 0x20 ? 0x100 + b : b <= 0xa0 ? 0x121 + (b - 0x7f) : 0x143; }

static int char_byte(uint32_t c)
{
    if (c < 0x100) return is_plain(c) ? (int)c : -1;
    if (c >= 0x100 + N_SHIFTED) return -1;
    return c <= 0x120 ? (int)(c - 0x100) : c <= 0x142 ? (int)(c - 0x121 + 0x7f) : 0xad;
}

/* ---- merges ---- */

static uint32_t pair_hash(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)((h ^ h >> 29) * 0xbf58476d1ce4e5b9u >> 32);
}

/* The slot that holds the pair or is free for it, NULL after TOK_PROBES others. */
static struct tok_pair *pair_slot(const struct tokenizer *t, int32_t left, int32_t right)
{
    uint32_t hash = pair_hash(left, right);
    for (uint32_t i = 0; i < TOK_PROBES; i++) {
        struct tok_pair *p = &t->pair[(hash + i) & t->pair_mask];
        if (p->left < 0 || (p->left == left && p->right == right)) return p;
    }
    return NULL;
}

static status fail_merge(struct err *e, uint64_t i, struct str s, const char *what)
{
    return err_set(e, ERR_FORMAT, "tokenizer.ggml.merges[%llu] is \"%.*s\", %s", (unsigned long long)i, s.n < 64 ? (int)s.n : 64, s.p,
                   what);
}

/* One line of the merge list on its way into the table. */
struct merge {
    struct str text;  /* "left right" */
    size_t left_len;  /* up to the first space after the first byte */
    uint32_t hash[2]; /* of the halves */
    struct tok_pair pair;
};

static struct str half(const struct merge *m, int i)
{
    return i == 0 ? (struct str){ m->text.p, m->left_len } : (struct str){ m->text.p + m->left_len + 1, m->text.n - m->left_len - 1 };
}

static status split_merge(struct tokenizer *t, uint64_t i, struct str s, struct merge *m, struct err *e)
{
    const char *space = s.n > 1 ? memchr(s.p + 1, ' ', s.n - 1) : NULL;
    if (!space) return fail_merge(e, i, s, "expected two tokens with a space between");
    *m = (struct merge){ .text = s, .left_len = (size_t)(space - s.p) };
    for (int k = 0; k < 2; k++) {
        m->hash[k] = tok_hash(half(m, k).p, half(m, k).n);
        tok_vocab_expect(&t->vocab, m->hash[k], 0);
    }
    return OK;
}

/* The token that the joined halves are. Most lists name their tokens in order, so `next` is tried before the table is asked.
 * joined: len_max bytes of scratch. */
static int32_t find_joined(const struct tok_vocab *v, const struct merge *m, int32_t next, char *joined)
{
    size_t n = m->text.n - 1;
    if (n > v->len_max) return -1;
    memcpy(joined, m->text.p, m->left_len);
    memcpy(joined + m->left_len, m->text.p + m->left_len + 1, n - m->left_len);
    if (next < v->n) {
        struct str s = tok_text(v, next);
        if (s.n == n && !memcmp(s.p, joined, n)) return next;
    }
    return tok_vocab_find(v, joined, n);
}

static void mark_joint(struct tokenizer *t, struct str left, struct str right)
{
    tok_mark_glued(t, left);
    tok_mark_glued(t, right);
    if (right.n >= TOK_SPACE_LEN && !memcmp(right.p, TOK_SPACE, TOK_SPACE_LEN)) t->glued[(uint8_t)left.p[left.n - 1]] = true;
}

static status resolve_merge(struct tokenizer *t, uint64_t i, struct merge *m, int32_t next, char *joined, struct err *e)
{
    const struct tok_vocab *v = &t->vocab;
    int32_t id[2];
    for (int k = 0; k < 2; k++) {
        id[k] = tok_vocab_find_hashed(v, half(m, k).p, half(m, k).n, m->hash[k]);
        if (id[k] < 0) return fail_merge(e, i, m->text, k == 0 ? "whose left half is no token" : "whose right half is no token");
    }
    m->pair = (struct tok_pair){ id[0], id[1], (uint32_t)i, find_joined(v, m, next, joined) };
    if (t->pre->flags & PRETOK_SPACE_SIGN) mark_joint(t, half(m, 0), half(m, 1));
    __builtin_prefetch(&t->pair[pair_hash(id[0], id[1]) & t->pair_mask]);
    return OK;
}

/* In batches, each memory access asked for one step ahead: see index_texts in tok_vocab.c. */
static status add_merges(struct tokenizer *t, const struct gguf_kv *kv, char *joined, struct err *e)
{
    struct merge batch[TOK_BATCH];
    const uint8_t *cursor = kv->data;
    int32_t next = 0;
    for (uint64_t first = 0; first < kv->n; first += TOK_BATCH) {
        int n = kv->n - first < TOK_BATCH ? (int)(kv->n - first) : TOK_BATCH;
        for (int i = 0; i < n; i++) TRY(split_merge(t, first + (uint64_t)i, gguf_arr_str(&cursor), &batch[i], e));
        for (int i = 0; i < n; i++)
            for (int k = 0; k < 2; k++) tok_vocab_expect(&t->vocab, batch[i].hash[k], 1);
        for (int i = 0; i < n; i++) {
            TRY(resolve_merge(t, first + (uint64_t)i, &batch[i], next, joined, e));
            next = batch[i].pair.merged + 1;
        }
        for (int i = 0; i < n; i++) {
            struct tok_pair *p = pair_slot(t, batch[i].pair.left, batch[i].pair.right);
            if (!p) return fail_merge(e, first + (uint64_t)i, batch[i].text, "one of too many whose hashes collide");
            if (p->left < 0) *p = batch[i].pair;
        }
    }
    return OK;
}

static status open_merges(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    const struct gguf_kv *kv;
    struct err ge = { 0 };
    static const struct gguf_kv none;
    if (!gguf_get_arr(g, "tokenizer.ggml.merges", KV_STR, &kv, &ge)) {
        if (ge.code) return err_set(e, ge.code, "%s", ge.text);
        if (!(t->pre->flags & PRETOK_NO_MERGES)) return err_set(e, ERR_FORMAT, "tokenizer.ggml.merges is missing");
        kv = &none;
    }
    if (kv->n > 1 << 28)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.merges has %llu items, allowed are 0 to %d", (unsigned long long)kv->n, 1 << 28);
    uint32_t n_slots = 16;
    while (n_slots < kv->n + kv->n / 2) n_slots *= 2;
    t->pair = arena_alloc(&t->mem, n_slots * sizeof *t->pair);
    char *joined = mem_alloc(t->vocab.len_max);
    status st = t->pair && joined ? OK : err_oom(e, "merges", n_slots * sizeof *t->pair);
    if (st == OK) {
        t->pair_mask = n_slots - 1;
        memset(t->pair, 0xff, n_slots * sizeof *t->pair); /* left -1 */
        st = add_merges(t, kv, joined, e);
    }
    mem_free(joined);
    return st;
}

static status bpe_open(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    struct err ge = { 0 };
    gguf_get_bool(g, "tokenizer.ggml.normalizer.lowercase", &t->lower_case, &ge);
    if (ge.code) return err_set(e, ge.code, "%s", ge.text);
    for (unsigned b = 0; b < 256; b++) {
        char c[8];
        int n = t->pre->flags & PRETOK_CHARS ? snprintf(c, sizeof c, "<0x%02X>", b) : unicode_encode(byte_char(b), c);
        t->byte_id[b] = tok_vocab_find(&t->vocab, c, (size_t)n);
    }
    return open_merges(t, g, e);
}

/* ---- encoding ---- */

static void rate(const struct tok_encoder *enc, const char *word, struct tok_symbol *a, const struct tok_symbol *b)
{
    if (a->id < 0 || b->id < 0) return;
    const struct tok_pair *p = pair_slot(enc->t, a->id, b->id);
    if (!p || p->left < 0) return;
    a->rank = p->rank;
    a->merged = p->merged;
}

/* The token whose text is the whole word, -1 if there is none. */
static status whole_word(struct tok_encoder *enc, const char *word, size_t n, int32_t *id, struct err *e)
{
    *id = -1;
    if (n > enc->t->vocab.len_max) return OK;
    TRY(tok_reserve_buf(enc, 2 * n, e));
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        char c[4];
        int k = unicode_encode(byte_char((uint8_t)word[i]), c);
        memcpy(enc->buf + len, c, (size_t)k);
        len += (size_t)k;
    }
    *id = tok_vocab_find(&enc->t->vocab, enc->buf, len);
    return OK;
}

/* Bytes that the vocabulary does not have disappear, as in llama.cpp. */
static void emit_word(struct tok_encoder *enc, const char *word)
{
    for (int32_t i = 0; i >= 0; i = enc->symbol[i].next) {
        const struct tok_symbol *s = &enc->symbol[i];
        if (s->id >= 0) tok_emit(enc, s->id);
        else
            for (uint32_t k = s->begin; k < s->end; k++) {
                int32_t id = enc->t->byte_id[(uint8_t)word[k]];
                if (id >= 0) tok_emit(enc, id);
            }
    }
}

static status encode_bytes(struct tok_encoder *enc, const char *word, size_t n, struct err *e)
{
    const struct tokenizer *t = enc->t;
    if (n == 1) {
        if (t->byte_id[(uint8_t)*word] >= 0) tok_emit(enc, t->byte_id[(uint8_t)*word]);
        return OK;
    }
    if (t->pre->flags & PRETOK_WHOLE_WORDS) {
        int32_t id;
        TRY(whole_word(enc, word, n, &id, e));
        if (id >= 0) {
            tok_emit(enc, id);
            return OK;
        }
    }
    TRY(tok_merge_reserve(enc, n, e));
    for (size_t i = 0; i < n; i++)
        enc->symbol[i] = (struct tok_symbol){ .id = t->byte_id[(uint8_t)word[i]], .begin = (uint32_t)i, .end = (uint32_t)i + 1 };
    TRY(tok_merge_run(enc, word, n, rate, e));
    emit_word(enc, word);
    return OK;
}

static status encode_chars(struct tok_encoder *enc, const char *word, size_t n, struct err *e)
{
    const struct tokenizer *t = enc->t;
    bool whole = (t->pre->flags & PRETOK_WHOLE_WORDS) || ((t->pre->flags & PRETOK_WHOLE_NEWLINES) && *word == '\n');
    int32_t id = whole ? tok_vocab_find(&t->vocab, word, n) : -1;
    if (id >= 0) {
        tok_emit(enc, id);
        return OK;
    }
    size_t n_symbols = 0;
    TRY(tok_merge_reserve(enc, n, e));
    for (size_t at = 0; at < n;) {
        uint32_t c;
        size_t len = (size_t)unicode_decode(word + at, n - at, &c);
        enc->symbol[n_symbols++] =
            (struct tok_symbol){ .id = tok_vocab_find(&t->vocab, word + at, len), .begin = (uint32_t)at, .end = (uint32_t)(at + len) };
        at += len;
    }
    TRY(tok_merge_run(enc, word, n_symbols, rate, e));
    emit_word(enc, word);
    return OK;
}

/* One part of a text with spaces, between two places where it may be cut. */
static status encode_spaced(struct tok_encoder *enc, const char *text, size_t n, struct err *e)
{
    struct pretok_cursor c;
    size_t n_written;
    TRY(tok_write_spaces(enc, text, n, false, &n_written, e));
    const char *p = enc->buf;
    pretok_start(&c, enc->t->pre, p, n_written);
    for (size_t len; (len = pretok_next(&c)) > 0; p += len) TRY(encode_chars(enc, p, len, e));
    return OK;
}

static status bpe_encode(struct tok_encoder *enc, const char *text, size_t n, struct err *e)
{
    unsigned flags = enc->t->pre->flags;
    if (flags & PRETOK_SPACE_SIGN) {
        for (size_t len; n > 0; text += len, n -= len) {
            len = tok_cut_len(enc->t, text, n);
            TRY(tok_encode_cached(enc, text, len, encode_spaced, e));
        }
        return OK;
    }
    struct pretok_cursor c;
    pretok_start(&c, enc->t->pre, text, n);
    tok_encode_word encode = flags & PRETOK_CHARS ? encode_chars : encode_bytes;
    for (size_t len; (len = pretok_next(&c)) > 0; text += len) TRY(tok_encode_cached(enc, text, len, encode, e));
    return OK;
}

/* Words without the spaces between them, in lower case if the file asks for it. */
static status whitespace_encode(struct tok_encoder *enc, const char *text, size_t n, struct err *e)
{
    size_t cap;
    if (!mul_size(n, 4, &cap)) return err_oom(e, "tokenizer", n);
    char *lower = mem_alloc(cap);
    if (!lower) return err_oom(e, "tokenizer", cap);
    size_t len = 0;
    status st = OK;
    for (size_t i = 0; st == OK && i < n;) {
        uint32_t c;
        int k = unicode_decode(text + i, n - i, &c);
        bool space = unicode_flags(c) & UC_SPACE, valid = k > 1 || c < 0x80;
        if (space && len > 0) st = encode_chars(enc, lower, len, e), len = 0;
        else if (!space && valid) len += (size_t)unicode_encode(enc->t->lower_case ? unicode_lower(c) : c, lower + len);
        else if (!space) lower[len++] = text[i];
        i += (size_t)k;
    }
    if (st == OK && len > 0) st = encode_chars(enc, lower, len, e);
    mem_free(lower);
    return st;
}

static size_t bpe_piece(const struct tokenizer *t, struct str s, char *buf, size_t cap)
{
    size_t at = 0;
    if (t->pre->flags & PRETOK_SPACE_SIGN) return tok_read_spaces(t, s, buf, cap);
    if (t->pre->flags & PRETOK_CHARS) {
        tok_put(buf, cap, &at, s.p, s.n);
        return at;
    }
    while (s.n > 0) {
        uint32_t c;
        int len = unicode_decode(s.p, s.n, &c), b = len == 1 && c >= 0x80 ? -1 : char_byte(c);
        char byte = (char)b;
        if (b >= 0) tok_put(buf, cap, &at, &byte, 1);
        else tok_put(buf, cap, &at, s.p, (size_t)len);
        s.p += len;
        s.n -= (size_t)len;
    }
    return at;
}

#define BPE_ROW .has_pre = true, .bos = -1, .eos = -1, .unknown = -1, .sep = -1, .open = bpe_open, .piece = bpe_piece
const struct tok_model tok_bpe = { .name = "gpt2", .encode = bpe_encode, BPE_ROW };
const struct tok_model tok_gemma4 = { .name = "gemma4", .pre = "gemma4", .encode = bpe_encode, BPE_ROW };
const struct tok_model tok_whitespace = { .name = "whitespace", .pre = "whitespace", .encode = whitespace_encode, BPE_ROW };

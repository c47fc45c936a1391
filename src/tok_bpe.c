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

/* ---- merges: kept by the text that they make, so that opening looks no half up ---- */

static status fail_merge(struct err *e, uint64_t i, struct str s, const char *what)
{
    return err_set(e, ERR_FORMAT, "tokenizer.ggml.merges[%llu] is \"%.*s\", %s", (unsigned long long)i, s.n < 64 ? (int)s.n : 64, s.p,
                   what);
}

static void mark_joint(struct tokenizer *t, struct str left, struct str right)
{
    tok_mark_glued(t, left);
    tok_mark_glued(t, right);
    if (right.n >= TOK_SPACE_LEN && !memcmp(right.p, TOK_SPACE, TOK_SPACE_LEN)) t->glued[(uint8_t)left.p[left.n - 1]] = true;
}

/* One line of the merge list. */
struct merge {
    struct str text;  /* "left right" */
    size_t left_len;  /* up to the first space after the first byte */
    uint32_t hash[2]; /* of the halves */
};

static struct str half(const struct merge *m, int i)
{
    return i == 0 ? (struct str){ m->text.p, m->left_len } : (struct str){ m->text.p + m->left_len + 1, m->text.n - m->left_len - 1 };
}

static status split_merge(struct tokenizer *t, uint64_t i, struct str s, struct merge *m, struct err *e)
{
    const char *space = s.n > 1 && s.n <= TOK_LEFT_MAX ? memchr(s.p + 1, ' ', s.n - 1) : NULL;
    if (!space) return fail_merge(e, i, s, "expected two tokens with a space between");
    *m = (struct merge){ .text = s, .left_len = (size_t)(space - s.p) };
    for (int k = 0; k < 2; k++) {
        m->hash[k] = tok_key_of(half(m, k).p, half(m, k).n).hash;
        tok_vocab_expect(&t->vocab, m->hash[k]);
    }
    return OK;
}

static bool makes(const struct tok_vocab *v, const struct merge *m, int32_t id)
{
    struct str s = tok_text(v, id), right = half(m, 1);
    return s.n == m->text.n - 1 && !memcmp(s.p, m->text.p, m->left_len) && !memcmp(s.p + m->left_len, right.p, right.n);
}

static void write_joined(const struct merge *m, char *to)
{
    memcpy(to, m->text.p, m->left_len);
    memcpy(to + m->left_len, half(m, 1).p, half(m, 1).n);
}

/* The token that the joined halves are, -1 if they are none. Most lists name their tokens in order, some several ways to each in turn: so the
 * last one and the one after it are tried before the table is asked. joined: len_max bytes of scratch. */
static int32_t find_joined(const struct tok_vocab *v, const struct merge *m, int32_t last, char *joined)
{
    size_t n = m->text.n - 1;
    if (n > v->len_max) return -1;
    if (last + 1 < v->n && !v->repeats && makes(v, m, last + 1)) return last + 1;
    if (last >= 0 && !v->repeats && makes(v, m, last)) return last;
    write_joined(m, joined);
    return tok_vocab_find(v, joined, n);
}

/* Adds a way of making the text of entry x: of two equal ones the first counts. False after TOK_PROBES others. */
static bool add_way(struct tokenizer *t, struct tok_entry *x, uint64_t rank, size_t left_len, int32_t *n_split)
{
    if (x->left_len == 0) {
        x->rank = (uint32_t)rank;
        x->left_len = (uint32_t)left_len;
        return true;
    }
    if (x->left_len == left_len) return true;
    int32_t *next = &x->next;
    for (int k = 0; k < TOK_PROBES; k++) {
        if (*next == 0) {
            *next = (*n_split)++;
            t->split[*next] = (struct tok_split){ .rank = (uint32_t)rank, .left_len = (uint32_t)left_len };
            return true;
        }
        if (t->split[*next].left_len == left_len) return true;
        next = &t->split[*next].next;
    }
    return false;
}

static const char too_many[] = "one of too many that make the same text";

struct merge_list {
    uint64_t n_loose;   /* merges whose result is no token */
    size_t loose_bytes; /* of their results, with a length before each */
    int32_t n_split, last;
    char *joined;
};

static status add_merge(struct tokenizer *t, uint64_t i, const struct merge *m, struct merge_list *l, struct err *e)
{
    for (int k = 0; k < 2; k++)
        if (!tok_vocab_may_hold(&t->vocab, m->hash[k]))
            return fail_merge(e, i, m->text, k == 0 ? "whose left half is no token" : "whose right half is no token");
    if (t->pre->flags & PRETOK_SPACE_SIGN) mark_joint(t, half(m, 0), half(m, 1));
    l->last = find_joined(&t->vocab, m, l->last, l->joined);
    if (l->last < 0) {
        l->n_loose++;
        l->loose_bytes += sizeof(uint64_t) + m->text.n - 1;
    } else if (!add_way(t, &t->vocab.entry[l->last], i, m->left_len, &l->n_split)) {
        return fail_merge(e, i, m->text, too_many);
    }
    return OK;
}

/* In batches, slots asked for one step ahead: see index_texts in tok_vocab.c. */
static status add_merges(struct tokenizer *t, const struct gguf_kv *kv, struct merge_list *l, struct err *e)
{
    struct merge batch[TOK_BATCH];
    const uint8_t *cursor = kv->data;
    for (uint64_t first = 0; first < kv->n; first += TOK_BATCH) {
        int n = kv->n - first < TOK_BATCH ? (int)(kv->n - first) : TOK_BATCH;
        for (int i = 0; i < n; i++) TRY(split_merge(t, first + (uint64_t)i, gguf_arr_str(&cursor), &batch[i], e));
        for (int i = 0; i < n; i++) TRY(add_merge(t, first + (uint64_t)i, &batch[i], l, e));
    }
    return OK;
}

/* Once more over the list, for the merges whose results are no tokens: few files have one. */
static status add_loose(struct tokenizer *t, const struct gguf_kv *kv, struct merge_list *l, struct err *e)
{
    uint8_t *text = arena_alloc(&t->mem, l->loose_bytes);
    struct tok_split *way = arena_alloc(&t->mem, (size_t)l->n_loose * sizeof *way);
    if (!text || !way) return err_oom(e, "merges", l->loose_bytes + (size_t)l->n_loose * sizeof *way);
    const uint8_t *cursor = kv->data, *start = text;
    struct merge m;
    int32_t n = 0;
    for (uint64_t i = 0; i < kv->n; i++) {
        TRY(split_merge(t, i, gguf_arr_str(&cursor), &m, e));
        if (find_joined(&t->vocab, &m, -1, l->joined) >= 0) continue;
        uint64_t len = m.text.n - 1;
        memcpy(text, &len, sizeof len);
        write_joined(&m, (char *)text + sizeof len);
        text += sizeof len + (size_t)len;
        way[n++] = (struct tok_split){ .rank = (uint32_t)i, .left_len = (uint32_t)m.left_len };
    }
    TRY(tok_vocab_index(&t->loose, start, (size_t)n, "results of tokenizer.ggml.merges", &t->mem, e));
    for (int32_t k = 0; k < n; k++) {
        struct str s = tok_text(&t->loose, k);
        struct tok_entry *head = &t->loose.entry[tok_vocab_find(&t->loose, s.p, s.n)];
        if (!add_way(t, head, way[k].rank, way[k].left_len, &l->n_split)) return fail_merge(e, way[k].rank, s, too_many);
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
    size_t n = (size_t)kv->n + 1;
    t->split = mem_calloc(n, sizeof *t->split); /* fresh pages, of which few are ever touched */
    struct merge_list l = { .n_split = 1, .last = -1, .joined = mem_alloc(t->vocab.len_max) };
    status st = t->split && l.joined ? OK : err_oom(e, "merges", n * sizeof *t->split);
    if (st == OK) st = add_merges(t, kv, &l, e);
    if (st == OK && l.n_loose) st = add_loose(t, kv, &l, e);
    mem_free(l.joined);
    return st;
}

static status bpe_open(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    struct err ge = { 0 };
    gguf_get_bool(g, "tokenizer.ggml.normalizer.lowercase", &t->lower_case, &ge);
    if (ge.code) return err_set(e, ge.code, "%s", ge.text);
    for (unsigned b = 0; b < 256; b++) {
        char c[8];
        int n = unicode_encode(byte_char(b), c);
        memcpy(t->byte_text[b], c, (size_t)n); /* 1 or 2 */
        if (t->pre->flags & PRETOK_CHARS) n = snprintf(c, sizeof c, "<0x%02X>", b);
        t->byte_id[b] = tok_vocab_find(&t->vocab, c, (size_t)n);
    }
    return open_merges(t, g, e);
}

/* ---- encoding ---- */

/* The rank of making the text of x with the left half so long. */
static uint32_t rank_of(const struct tokenizer *t, const struct tok_entry *x, uint32_t left_len)
{
    if (x->left_len == left_len) return x->rank;
    for (int32_t i = x->next; i; i = t->split[i].next)
        if (t->split[i].left_len == left_len) return t->split[i].rank;
    return (uint32_t)TOK_NO_MERGE;
}

static void rate(const struct tok_encoder *enc, const char *word, struct tok_symbol *a, const struct tok_symbol *b)
{
    const struct tokenizer *t = enc->t;
    if (a->id < 0 || b->id < 0) return;
    const char *text = word + a->begin;
    uint32_t n = b->end - a->begin, left_len = a->end - a->begin;
    int32_t id = tok_vocab_find(&t->vocab, text, n);
    if (id >= 0) {
        a->rank = rank_of(t, &t->vocab.entry[id], left_len);
        a->merged = id;
        return;
    }
    int32_t loose = t->loose.n ? tok_vocab_find(&t->loose, text, n) : -1;
    if (loose >= 0) a->rank = rank_of(t, &t->loose.entry[loose], left_len);
}

/* The word in the byte alphabet, one symbol a byte. enc->buf: room for 2 n bytes. */
static size_t write_bytes(struct tok_encoder *enc, const char *word, size_t n)
{
    uint32_t len = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t b = (uint8_t)word[i];
        const char *c = enc->t->byte_text[b];
        enc->symbol[i].id = enc->t->byte_id[b];
        enc->symbol[i].begin = len;
        enc->buf[len] = c[0];
        enc->buf[len + 1] = c[1];
        len += c[1] ? 2 : 1;
        enc->symbol[i].end = len;
    }
    return len;
}

/* Bytes that the vocabulary does not have disappear, as in llama.cpp. */
static void emit_bytes(struct tok_encoder *enc, const char *p, size_t n)
{
    bool chars = enc->t->pre->flags & PRETOK_CHARS;
    while (n > 0) {
        uint32_t c = (uint8_t)*p;
        size_t len = chars ? 1 : (size_t)unicode_decode(p, n, &c);
        int32_t id = enc->t->byte_id[chars ? (int)c : char_byte(c)];
        if (id >= 0) tok_emit(enc, id);
        p += len;
        n -= len;
    }
}

static void emit_word(struct tok_encoder *enc, const char *word)
{
    for (int32_t i = 0; i >= 0; i = enc->symbol[i].next) {
        const struct tok_symbol *s = &enc->symbol[i];
        if (s->id >= 0) tok_emit(enc, s->id);
        else emit_bytes(enc, word + s->begin, s->end - s->begin);
    }
}

static status encode_bytes(struct tok_encoder *enc, const char *word, size_t n, struct err *e)
{
    const struct tokenizer *t = enc->t;
    if (n == 1) {
        if (t->byte_id[(uint8_t)*word] >= 0) tok_emit(enc, t->byte_id[(uint8_t)*word]);
        return OK;
    }
    TRY(tok_merge_reserve(enc, n, e));
    TRY(tok_reserve_buf(enc, 2 * n, e));
    size_t len = write_bytes(enc, word, n);
    int32_t id = t->pre->flags & PRETOK_WHOLE_WORDS ? tok_vocab_find(&t->vocab, enc->buf, len) : -1;
    if (id >= 0) {
        tok_emit(enc, id);
        return OK;
    }
    TRY(tok_merge_run(enc, enc->buf, n, rate, e));
    emit_word(enc, enc->buf);
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
    for (size_t len; (len = pretok_next(&c)) > 0; text += len)
        if (len == 1) TRY(encode(enc, text, len, e));
        else TRY(tok_encode_cached(enc, text, len, encode, e));
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

#define BPE_ROW .has_pre = true, .joins = true, .bos = -1, .eos = -1, .unknown = -1, .sep = -1, .open = bpe_open, .piece = bpe_piece
const struct tok_model tok_bpe = { .name = "gpt2", .encode = bpe_encode, BPE_ROW };
const struct tok_model tok_gemma4 = { .name = "gemma4", .pre = "gemma4", .encode = bpe_encode, BPE_ROW };
const struct tok_model tok_whitespace = { .name = "whitespace", .pre = "whitespace", .encode = whitespace_encode, BPE_ROW };

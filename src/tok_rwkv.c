/* tok_rwkv - RWKV "world" (tokenizer.ggml.model "rwkv"): at every place the longest token. Tokens are any bytes, written in the file as in
 * a Python literal: \t \n \r \xNN, and a backslash before what stands for itself. */
#include "src/tokenizer_int.h"

/* The bytes that s stands for, never more than s.n. */
static size_t unescape(struct str s, char *buf, size_t cap)
{
    size_t at = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '\\') {
            if (++i == s.n) break;
            c = s.p[i] == 't' ? '\t' : s.p[i] == 'n' ? '\n' : s.p[i] == 'r' ? '\r' : s.p[i];
            if (s.p[i] == 'x') {
                if (s.n - i <= 2) break;
                int high = tok_hex_digit(s.p[i + 1]), low = tok_hex_digit(s.p[i + 2]);
                i += 2;
                c = (char)(((unsigned)high << 4 | (unsigned)low) & 0xff);
            }
        }
        tok_put(buf, cap, &at, &c, 1);
    }
    return at;
}

static status rwkv_open(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    const struct tok_vocab *v = &t->vocab;
    size_t bytes = 0, n = 0, at = 0;
    for (int32_t id = 0; id < v->n; id++) bytes += tok_text(v, id).n; /* all lie in the file: no overflow */
    char *text = arena_alloc(&t->mem, bytes + 1);
    struct tok_trie_item *item = mem_alloc((size_t)v->n * sizeof *item);
    status st = text && item ? OK : err_oom(e, "vocabulary", bytes + (size_t)v->n * sizeof *item);
    for (int32_t id = 0; st == OK && id < v->n; id++) {
        size_t len = unescape(tok_text(v, id), text + at, bytes - at);
        if (len > 0) item[n++] = (struct tok_trie_item){ .text = { text + at, len }, .id = id };
        at += len;
    }
    if (st == OK) st = tok_trie_build(&t->trie, item, n, &t->mem, e);
    mem_free(item);
    return st;
}

/* Bytes of which no token exists are the unknown token, or nothing. */
static status rwkv_encode(struct tok_encoder *enc, const char *text, size_t n, struct err *e)
{
    for (size_t len; n > 0; text += len, n -= len) {
        int32_t id = tok_trie_longest(&enc->t->trie, text, n, &len);
        if (id < 0) len = 1, id = enc->t->role[ROLE_UNKNOWN];
        if (id >= 0) tok_emit(enc, id);
    }
    return OK;
}

static size_t rwkv_piece(const struct tokenizer *t, struct str s, char *buf, size_t cap) { return unescape(s, buf, cap); }

const struct tok_model tok_rwkv = {
    .name = "rwkv",
    .frame = FRAME_NONE,
    .bos = -1,
    .eos = -1,
    .unknown = -1,
    .sep = -1,
    .open = rwkv_open,
    .encode = rwkv_encode,
    .piece = rwkv_piece,
};

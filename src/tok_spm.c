/* tok_spm - SentencePiece byte-pair encoding (tokenizer.ggml.model "llama"): spaces are written as U+2581, every character starts as a
 * symbol, and the neighbours whose joined text is the token of the best score are joined first. What is no token becomes byte tokens.
 * Words are cut as tok_space.c says. */
#include "src/tokenizer_int.h"
#include "src/unicode.h"

/* ---- opening ---- */

/* Ascending order of the bits is descending order of the scores. */
static uint32_t score_rank(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 is 0 */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : bits ^ 0x7fffffffu;
}

static status open_scores(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    const struct gguf_kv *kv;
    TRY(tok_vocab_scores(&t->vocab, g, &kv, e));
    for (uint64_t i = 0; i < kv->n; i++) t->vocab.entry[i].rank = score_rank(gguf_arr_f32(kv, i));
    return OK;
}

/* Bytes that are no token fall back to <0xNN>, else to the byte itself, else to the unknown token. */
static status open_bytes(struct tokenizer *t, struct err *e)
{
    static const char hex[] = "0123456789ABCDEF";
    for (int b = 0; b < 256; b++) {
        char name[] = { '<', '0', 'x', hex[b >> 4], hex[b & 15], '>' }, byte = (char)b;
        int32_t id = tok_vocab_find(&t->vocab, name, sizeof name);
        if (id < 0) id = tok_vocab_find(&t->vocab, &byte, 1);
        if (id < 0) id = t->role[ROLE_UNKNOWN];
        if (id < 0) return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens has neither <0x%02X> nor an unknown token", (unsigned)b);
        t->byte_id[b] = id;
    }
    return OK;
}

static status spm_open(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    t->lead_space = t->add_space;
    TRY(open_scores(t, g, e));
    TRY(open_bytes(t, e));
    for (int32_t id = 0; id < t->vocab.n; id++) tok_mark_glued(t, tok_text(&t->vocab, id));
    return OK;
}

/* ---- encoding ---- */

static void rate(const struct tok_encoder *enc, const char *word, struct tok_symbol *a, const struct tok_symbol *b)
{
    int32_t id = tok_vocab_find(&enc->t->vocab, word + a->begin, b->end - a->begin);
    if (id < 0) return;
    a->rank = enc->t->vocab.entry[id].rank;
    a->merged = id;
}

/* word: already with U+2581 for spaces */
static status encode_escaped(struct tok_encoder *enc, const char *word, size_t n, struct err *e)
{
    const struct tokenizer *t = enc->t;
    size_t n_symbols = 0;
    TRY(tok_merge_reserve(enc, n, e));
    for (size_t at = 0; at < n;) {
        uint32_t c;
        int len = unicode_decode(word + at, n - at, &c);
        enc->symbol[n_symbols++] = (struct tok_symbol){ .id = tok_vocab_find(&t->vocab, word + at, (size_t)len),
                                                        .begin = (uint32_t)at,
                                                        .end = (uint32_t)(at + (size_t)len) };
        at += (size_t)len;
    }
    TRY(tok_merge_run(enc, word, n_symbols, rate, e));
    for (int32_t i = 0; i >= 0; i = enc->symbol[i].next) {
        const struct tok_symbol *s = &enc->symbol[i];
        if (s->id >= 0) tok_emit(enc, s->id);
        else
            for (uint32_t k = s->begin; k < s->end; k++) tok_emit(enc, t->byte_id[(uint8_t)word[k]]);
    }
    return OK;
}

/* lead: with the space that the model wants before the text. */
static status encode_spaced(struct tok_encoder *enc, const char *word, size_t n, bool lead, struct err *e)
{
    size_t len;
    TRY(tok_write_spaces(enc, word, n, lead, &len, e));
    return encode_escaped(enc, enc->buf, len, e);
}

static status encode_word(struct tok_encoder *enc, const char *word, size_t n, struct err *e)
{
    return encode_spaced(enc, word, n, false, e);
}

static status spm_encode(struct tok_encoder *enc, const char *text, size_t n, struct err *e)
{
    const struct tokenizer *t = enc->t;
    bool first = t->add_space;
    for (size_t len; n > 0; text += len, n -= len) {
        len = tok_cut_len(t, text, n);
        if (first) TRY(encode_spaced(enc, text, len, true, e));
        else TRY(tok_encode_cached(enc, text, len, encode_word, e));
        first = false;
    }
    return OK;
}

const struct tok_model tok_spm = {
    .name = "llama",
    .adds_bos = true,
    .adds_space = true,
    .joins = true,
    .bos = 1,
    .eos = 2,
    .unknown = -1,
    .sep = -1,
    .open = spm_open,
    .encode = spm_encode,
    .piece = tok_read_spaces,
};

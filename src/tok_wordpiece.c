/* tok_wordpiece - WordPiece (tokenizer.ggml.model "bert"): words in lower case and without accents, as the file says, each cut greedily
 * into the longest tokens; a word that cannot be cut is one unknown token. In GGUF files the first token of a word begins with U+2581 and
 * the others have no "##". Spaces, punctuation and Chinese characters end a word, the latter two are words; controls disappear. Follows
 * llama.cpp, whose decomposition keeps the first code point only: of a Hangul syllable the leading consonant is left. */
#include "src/tokenizer_int.h"
#include "src/unicode.h"

static status wordpiece_open(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    static const struct {
        enum tok_role role;
        const char *key;
    } needed[] = { { ROLE_BOS, "bos_token_id" }, { ROLE_SEP, "seperator_token_id" }, { ROLE_UNKNOWN, "unknown_token_id" } };
    for (int i = 0; i < ARRAY_LEN(needed); i++)
        if (t->role[needed[i].role] < 0)
            return err_set(e, ERR_FORMAT, "tokenizer.ggml.%s is missing, and its usual value is beyond the %lld tokens", needed[i].key,
                           (long long)t->vocab.n);
    struct err ge = { 0 };
    t->lower_case = true;
    gguf_get_bool(g, "tokenizer.ggml.normalizer.lowercase", &t->lower_case, &ge);
    t->strip_accents = t->lower_case;
    gguf_get_bool(g, "tokenizer.ggml.normalizer.strip_accents", &t->strip_accents, &ge);
    if (ge.code) return err_set(e, ge.code, "%s", ge.text);
    t->lead_space = true;
    return tok_trie_of_vocab(&t->trie, t, ATTR_ALL, e);
}

/* The ranges of llama.cpp and of Hugging Face's tokenizers, which both begin the fifth extension 256 code points late. */
static bool is_chinese(uint32_t c)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        { 0x3400, 0x4dbf },   { 0x4e00, 0x9fff },   { 0xf900, 0xfaff },   { 0x20000, 0x2a6df },
        { 0x2a700, 0x2b73f }, { 0x2b740, 0x2b81f }, { 0x2b920, 0x2ceaf }, { 0x2f800, 0x2fa1f },
    };
    if (c < 0x3400) return false;
    for (int i = 0; i < ARRAY_LEN(ranges); i++)
        if (c >= ranges[i].first && c <= ranges[i].last) return true;
    return false;
}

/* enc->buf holds U+2581 and the word. */
static void emit_word(struct tok_encoder *enc, size_t n)
{
    const struct tokenizer *t = enc->t;
    int64_t before = enc->n;
    for (size_t at = 0, len; at < n; at += len) {
        int32_t id = tok_trie_longest(&t->trie, enc->buf + at, n - at, &len);
        if (id >= 0) {
            tok_emit(enc, id);
            continue;
        }
        enc->n = before;
        tok_emit(enc, t->role[ROLE_UNKNOWN]);
        return;
    }
}

/* text: no white space in it. A folded character takes at most twice the bytes. */
static status encode_run(struct tok_encoder *enc, const char *text, size_t n, struct err *e)
{
    const struct tokenizer *t = enc->t;
    size_t len = TOK_SPACE_LEN;
    TRY(tok_reserve_buf(enc, 2 * n + TOK_SPACE_LEN, e));
    memcpy(enc->buf, TOK_SPACE, TOK_SPACE_LEN);
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += (size_t)unicode_decode(text + i, n - i, &c);
        if (t->strip_accents) c = unicode_base(c);
        unsigned flags = unicode_flags(c);
        if (c == 0 || c == UNICODE_INVALID || (flags & UC_CONTROL) || (t->strip_accents && (flags & UC_MARK))) continue;
        bool alone = (flags & UC_PUNCT) || (c < 0x7f && (flags & UC_SYMBOL)) || is_chinese(c);
        if (alone && len > TOK_SPACE_LEN) emit_word(enc, len), len = TOK_SPACE_LEN;
        len += (size_t)unicode_encode(t->lower_case ? unicode_lower(c) : c, enc->buf + len);
        if (alone) emit_word(enc, len), len = TOK_SPACE_LEN;
    }
    if (len > TOK_SPACE_LEN) emit_word(enc, len);
    return OK;
}

static status wordpiece_encode(struct tok_encoder *enc, const char *text, size_t n, struct err *e)
{
    for (size_t i = 0, begin = 0, len; i < n; i += len) {
        uint32_t c;
        len = (size_t)unicode_decode(text + i, n - i, &c);
        bool space = unicode_flags(c) & UC_SPACE;
        if (space && i > begin) TRY(tok_encode_cached(enc, text + begin, i - begin, encode_run, e));
        if (space) begin = i + len;
        else if (i + len == n) return tok_encode_cached(enc, text + begin, n - begin, encode_run, e);
    }
    return OK;
}

const struct tok_model tok_wordpiece = {
    .name = "bert",
    .frame = FRAME_CLS_SEP,
    .bos = 101,
    .eos = -1,
    .unknown = 100,
    .sep = 102,
    .open = wordpiece_open,
    .encode = wordpiece_encode,
    .piece = tok_read_spaces,
};

/* tok_unigram - SentencePiece unigram (tokenizer.ggml.model "t5"): the text is normalized, then cut into the tokens whose scores have the
 * greatest sum (Viterbi; Kudo 2018). A character that no token covers costs ten less than the worst token; unknown ones in a row are one.
 * Normalizing replaces the longest prefix found in tokenizer.ggml.precompiled_charsmap (tok_charsmap.c), then treats spaces.
 * The sum is carried in double from the beginning of the text, so that ties fall as in llama.cpp; only the way back is cut into parts,
 * where no token reaches across. */
#include "src/tokenizer_int.h"
#include "src/unicode.h"
#include <float.h>
#include <math.h>

/* ---- opening ---- */

static status open_scores(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    const struct gguf_kv *kv;
    TRY(tok_vocab_scores(&t->vocab, g, &kv, e));
    t->score = arena_alloc(&t->mem, kv->n * sizeof *t->score);
    if (!t->score) return err_oom(e, "scores", kv->n * sizeof *t->score);
    float least = FLT_MAX;
    for (uint64_t i = 0; i < kv->n; i++) {
        float score = gguf_arr_f32(kv, i);
        if (!isfinite(score)) return err_set(e, ERR_FORMAT, "tokenizer.ggml.scores[%llu] is infinite", (unsigned long long)i);
        unsigned attr = t->vocab.attr[i];
        t->score[i] = attr & ATTR_USER ? 0 : score;
        if ((attr & ATTR_NORMAL) && score < least) least = score;
    }
    t->unknown_score = least - 10.0f;
    return OK;
}

static status unigram_open(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    if (t->role[ROLE_UNKNOWN] < 0)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.unknown_token_id is missing, and its usual value is beyond the %lld tokens",
                       (long long)t->vocab.n);
    struct err ge = { 0 };
    gguf_get_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &t->merge_spaces, &ge);
    if (ge.code) return err_set(e, ge.code, "%s", ge.text);
    t->lead_space = t->add_space || t->merge_spaces;
    TRY(open_scores(t, g, e));
    TRY(tok_charsmap_open(&t->charsmap, g, e));
    TRY(tok_trie_of_vocab(&t->trie, t, ATTR_NORMAL | ATTR_USER | ATTR_UNUSED, e));
    TRY(tok_trie_of_vocab(&t->user_trie, t, ATTR_USER, e));
    for (int32_t id = 0; id < t->vocab.n; id++) tok_mark_glued(t, tok_text(&t->vocab, id));
    return OK;
}

/* ---- normalizing ---- */

struct normal {
    char *p;
    size_t n, cap;
    bool in_word, spaced; /* spaced: the space before the first word is written */
};

static status put(struct normal *out, const char *p, size_t n, struct err *e)
{
    if (out->cap - out->n < n) {
        size_t cap;
        if (!add_size(out->n, n, &cap) || !mul_size(cap, 2, &cap)) return err_oom(e, "normalized text", SIZE_MAX);
        char *more = mem_realloc(out->p, cap);
        if (!more) return err_oom(e, "normalized text", cap);
        out->p = more;
        out->cap = cap;
    }
    memcpy(out->p + out->n, p, n);
    out->n += n;
    return OK;
}

static status put_normal(const struct tokenizer *t, struct normal *out, struct str s, struct err *e)
{
    for (size_t i = 0; i < s.n; i++) {
        bool space = s.p[i] == ' ';
        if (!space && !out->in_word && ((t->add_space && !out->spaced) || t->merge_spaces)) {
            TRY(put(out, TOK_SPACE, TOK_SPACE_LEN, e));
            out->spaced = true;
        }
        out->in_word = !space;
        if (!space) TRY(put(out, s.p + i, 1, e));
        else if (!t->merge_spaces) TRY(put(out, TOK_SPACE, TOK_SPACE_LEN, e));
    }
    return OK;
}

/* What the text at p begins with, normalized: *used bytes of it. What begins a user-defined token stays as it is, even where it goes on
 * otherwise. */
static struct str normal_prefix(const struct tokenizer *t, const char *p, size_t n, size_t *used)
{
    uint32_t node = 0;
    size_t len = 0;
    while (len < n && (node = tok_trie_step(&t->user_trie, node, p[len])) > 0) len++;
    struct str out = { p, len };
    *used = len;
    if (len > 0 || tok_charsmap_find(&t->charsmap, p, n, &out, used)) return out;
    uint32_t c;
    *used = (size_t)unicode_decode(p, n, &c);
    bool valid = *used > 1 || c < 0x80;
    return valid ? (struct str){ p, *used } : (struct str){ "\xef\xbf\xbd", 3 };
}

static status normalize(const struct tokenizer *t, const char *text, size_t n, struct normal *out, struct err *e)
{
    for (size_t used; n > 0; text += used, n -= used) TRY(put_normal(t, out, normal_prefix(t, text, n, &used), e));
    return OK;
}

/* ---- the best path ---- */

/* The best way to reach a byte: from there, with this token. */
struct best {
    double score;
    uint32_t from;
    int32_t id;
};

struct lattice {
    struct best *best; /* [cap], of the bytes of one part */
    size_t cap;
    double score; /* up to the beginning of the part */
    bool after_unknown;
};

/* Bytes of a character by its first byte alone, cut off by the end. */
static size_t char_len(const char *p, size_t n)
{
    static const uint8_t by_high_bits[16] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4 };
    size_t len = by_high_bits[(uint8_t)*p >> 4];
    return len < n ? len : n;
}

/* Up to the first character that is a space which no token has in its middle. */
static size_t part_len(const struct tokenizer *t, const char *p, size_t n)
{
    size_t i = char_len(p, n);
    for (; i < n; i += char_len(p + i, n - i))
        if (p[i] == TOK_SPACE[0] && n - i >= TOK_SPACE_LEN && !memcmp(p + i, TOK_SPACE, TOK_SPACE_LEN) && !t->glued[(uint8_t)p[i - 1]])
            break;
    return i;
}

static void offer(struct best *to, double score, size_t from, int32_t id)
{
    if (score > to->score) *to = (struct best){ score, (uint32_t)from, id };
}

static void find_best(const struct tokenizer *t, const char *p, size_t n, struct best *best, double score)
{
    int32_t unknown = t->role[ROLE_UNKNOWN];
    best[0] = (struct best){ score, 0, unknown };
    for (size_t i = 1; i <= n; i++) best[i] = (struct best){ -DBL_MAX, 0, unknown };
    for (size_t at = 0, len; at < n; at += len) {
        len = char_len(p + at, n - at);
        bool whole = false;
        uint32_t node = 0;
        for (size_t i = at; i < n && (node = tok_trie_step(&t->trie, node, p[i])) > 0; i++) {
            int32_t id = t->trie.id[node];
            if (id < 0) continue;
            if (i + 1 == at + len) whole = true;
            offer(&best[i + 1], best[at].score + (double)t->score[id], at, id);
        }
        if (!whole) offer(&best[at + len], best[at].score + (double)t->unknown_score, at, unknown);
    }
}

/* Turns the way back into one forward, then emits it. */
static void emit_path(struct tok_encoder *enc, struct lattice *l, size_t n)
{
    struct best *best = l->best;
    uint32_t next = 0;
    for (uint32_t at = (uint32_t)n; at > 0;) {
        uint32_t from = best[at].from;
        best[at].from = next;
        next = at;
        at = from;
    }
    for (; next > 0; next = best[next].from) {
        bool unknown = best[next].id == enc->t->role[ROLE_UNKNOWN];
        if (!unknown || !l->after_unknown) tok_emit(enc, best[next].id);
        l->after_unknown = unknown;
    }
}

static status encode_part(struct tok_encoder *enc, struct lattice *l, const char *p, size_t n, struct err *e)
{
    if (n >= l->cap) {
        size_t bytes;
        if (n >= UINT32_MAX || !mul_size(2 * n + 256, sizeof *l->best, &bytes)) return err_oom(e, "normalized text", SIZE_MAX);
        mem_free(l->best);
        l->cap = 0;
        l->best = mem_alloc(bytes);
        if (!l->best) return err_oom(e, "normalized text", bytes);
        l->cap = 2 * n + 256;
    }
    find_best(enc->t, p, n, l->best, l->score);
    l->score = l->best[n].score;
    emit_path(enc, l, n);
    return OK;
}

static status unigram_encode(struct tok_encoder *enc, const char *text, size_t n, struct err *e)
{
    struct normal out = { 0 };
    struct lattice l = { 0 };
    status st = normalize(enc->t, text, n, &out, e);
    for (size_t at = 0, len; st == OK && at < out.n; at += len) {
        len = part_len(enc->t, out.p + at, out.n - at);
        st = encode_part(enc, &l, out.p + at, len, e);
    }
    mem_free(l.best);
    mem_free(out.p);
    return st;
}

const struct tok_model tok_unigram = {
    .name = "t5",
    .adds_eos = true,
    .bos = -1,
    .eos = 1,
    .unknown = 2,
    .sep = -1,
    .open = unigram_open,
    .encode = unigram_encode,
    .piece = tok_read_spaces,
};

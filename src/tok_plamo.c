/* tok_plamo - PLaMo 2 (tokenizer.ggml.model "plamo2"): the tokens whose scores have the greatest sum, found from the end of the text; at
 * equal sums the longer token. Scores are integers, ten thousandths. A character that no token covers becomes its byte tokens. */
#include "src/tokenizer_int.h"
#include "src/unicode.h"
#include <math.h>

enum { SCORE_UNKNOWN = -10000000, SCORE_NONE = -20000000, SCORE_MAX = 1000000000 };

static status plamo_open(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    const struct gguf_kv *kv;
    for (int b = 0; b < 256; b++) t->byte_id[b] = -1;
    for (int32_t id = 0; id < t->vocab.n; id++)
        if (t->vocab.attr[id] & ATTR_BYTE) t->byte_id[tok_byte_value(tok_text(&t->vocab, id))] = id;
    for (int b = 0; b < 256; b++)
        if (t->byte_id[b] < 0) return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens has no byte token <0x%02X>", (unsigned)b);
    TRY(tok_vocab_scores(&t->vocab, g, &kv, e));
    t->cost = arena_alloc(&t->mem, kv->n * sizeof *t->cost);
    if (!t->cost) return err_oom(e, "scores", kv->n * sizeof *t->cost);
    for (uint64_t i = 0; i < kv->n; i++) {
        double score = round((double)gguf_arr_f32(kv, i) * 1e4);
        t->cost[i] = score >= SCORE_NONE && score <= SCORE_MAX ? (int32_t)score : SCORE_NONE;
    }
    return tok_trie_of_vocab(&t->trie, t, ATTR_ALL & ~ATTR_BYTE, e);
}

/* The best way from a byte to the end. */
struct best {
    int64_t cost;
    uint32_t len;
    int32_t id; /* -1: by byte tokens */
};

static size_t char_len(const char *p, size_t n)
{
    uint32_t c;
    return (size_t)unicode_decode(p, n, &c);
}

static void find_best(const struct tokenizer *t, const char *p, size_t n, struct best *best, size_t at)
{
    struct best b = { .cost = INT64_MAX };
    uint32_t node = 0;
    for (size_t i = at; i < n && (node = tok_trie_step(&t->trie, node, p[i])) > 0; i++) {
        int32_t id = t->trie.id[node];
        if (id < 0 || t->cost[id] <= SCORE_NONE || best[i + 1].len == 0) continue;
        int64_t cost = best[i + 1].cost - t->cost[id];
        if (cost <= b.cost) b = (struct best){ cost, (uint32_t)(i + 1 - at), id };
    }
    size_t len = char_len(p + at, n - at);
    if (best[at + len].cost - SCORE_UNKNOWN < b.cost) b = (struct best){ best[at + len].cost - SCORE_UNKNOWN, (uint32_t)len, -1 };
    best[at] = b;
}

static status plamo_encode(struct tok_encoder *enc, const char *text, size_t n, struct err *e)
{
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3; /* byte order mark */
    struct best *best = mem_calloc(n + 1, sizeof *best);
    if (!best) return err_oom(e, "tokenizer", (n + 1) * sizeof *best);
    best[n].len = 1;
    /* Characters from the end: a byte that does not begin one has len 0 and is never reached. */
    for (size_t i = 0; i < n; i += char_len(text + i, n - i)) best[i].len = 1;
    for (size_t at = n; at-- > 0;)
        if (best[at].len) find_best(enc->t, text, n, best, at);
    for (size_t at = 0; at < n; at += best[at].len) {
        if (best[at].id >= 0) tok_emit(enc, best[at].id);
        else
            for (uint32_t k = 0; k < best[at].len; k++) tok_emit(enc, enc->t->byte_id[(uint8_t)text[at + k]]);
    }
    mem_free(best);
    return OK;
}

static size_t plamo_piece(const struct tokenizer *t, struct str s, char *buf, size_t cap)
{
    size_t at = 0;
    tok_put(buf, cap, &at, s.p, s.n);
    return at;
}

const struct tok_model tok_plamo = {
    .name = "plamo2",
    .frame = FRAME_NONE,
    .bos = 1,
    .eos = 2,
    .unknown = 0,
    .sep = -1,
    .open = plamo_open,
    .encode = plamo_encode,
    .piece = plamo_piece,
};

/* token_trie - the vocabulary as a trie, nodes in depth-first order: walking all tokens that begin alike is walking a run of nodes, and leaving a dead
 * branch is one jump. */
#include <stdlib.h>
#include <string.h>
#include "src/grammar_int.h"
#include "src/tokenizer.h"

struct sorter { const struct token_text *text; int32_t id; };

static int by_bytes(const void *a, const void *b)
{
    const struct sorter *x = a, *y = b;
    const struct token_text *s = &x->text[x->id], *t = &y->text[y->id];
    int c = memcmp(s->p, t->p, s->n < t->n ? s->n : t->n);
    if (c) return c;
    if (s->n != t->n) return s->n < t->n ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static uint32_t common(const struct token_text *a, const struct token_text *b)
{
    uint32_t n = a->n < b->n ? a->n : b->n, i = 0;
    while (i < n && a->p[i] == b->p[i]) i++;
    return i;
}

/* Nodes of the sorted tokens; t == NULL arrays: counts only. */
static int64_t build(struct token_trie *t, const struct token_text *text, const struct sorter *order, int64_t n, bool count_only)
{
    int64_t n_nodes = 0;
    uint32_t open[TOKEN_BYTES_MAX + 1] = { 0 }; /* node of each depth on the path */
    uint32_t depth = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct token_text *w = &text[order[i].id];
        uint32_t same = i > 0 ? common(&text[order[i - 1].id], w) : 0;
        if (count_only) {
            n_nodes += w->n - same;
            continue;
        }
        for (; depth > same; depth--) t->skip[open[depth]] = (uint32_t)n_nodes;
        for (uint32_t d = same + 1; d <= w->n; d++) {
            open[d] = (uint32_t)n_nodes;
            t->byte[n_nodes] = (uint8_t)w->p[d - 1];
            t->depth[n_nodes] = (uint16_t)d;
            t->token[n_nodes++] = -1;
        }
        depth = w->n;
        t->same[order[i].id] = t->token[open[depth]];
        t->token[open[depth]] = order[i].id;
    }
    if (!count_only)
        for (; depth > 0; depth--) t->skip[open[depth]] = (uint32_t)n_nodes;
    return n_nodes;
}

static status allocate(struct token_trie *t, size_t bytes, struct err *e)
{
    size_t n = (size_t)t->n + 1, v = (size_t)t->n_vocab;
    t->byte = mem_calloc(n, sizeof *t->byte);
    t->depth = mem_calloc(n, sizeof *t->depth);
    t->skip = mem_calloc(n, sizeof *t->skip);
    t->token = mem_calloc(n, sizeof *t->token);
    t->same = mem_calloc(v + 1, sizeof *t->same);
    t->at = mem_calloc(v + 1, sizeof *t->at);
    t->text = mem_alloc(bytes + 1);
    t->end_bits = mem_calloc((v + 63) / 64 + 1, sizeof *t->end_bits);
    t->is_end = mem_calloc(v + 1, sizeof *t->is_end);
    bool ok = t->byte && t->depth && t->skip && t->token && t->same && t->at && t->text && t->end_bits && t->is_end;
    return ok ? OK : err_oom(e, "vocabulary trie", n * 11 + v * 9 + bytes);
}

static void fill(struct token_trie *t, const struct token_text *text)
{
    uint32_t at = 0;
    for (int64_t id = 0; id < t->n_vocab; id++) {
        t->at[id] = at;
        t->same[id] = -1;
        t->is_end[id] = text[id].end;
        if (text[id].end) t->end_bits[id >> 6] |= (uint64_t)1 << (id & 63);
        if (text[id].n > TOKEN_BYTES_MAX || text[id].n == 0) continue;
        memcpy(t->text + at, text[id].p, text[id].n);
        at += text[id].n;
    }
    t->at[t->n_vocab] = at;
}

status token_trie_of(struct token_trie **out, const struct token_text *text, int64_t n, struct err *e)
{
    *out = NULL;
    struct token_trie *t = mem_calloc(1, sizeof *t);
    struct sorter *order = mem_calloc((size_t)n + 1, sizeof *order);
    status st = t && order ? OK : err_oom(e, "vocabulary trie", (size_t)n * sizeof *order);
    int64_t m = 0;
    size_t bytes = 0;
    for (int64_t id = 0; id < n && st == OK; id++) {
        if (text[id].n == 0 || text[id].n > TOKEN_BYTES_MAX) continue;
        bytes += text[id].n;
        if (!text[id].end) order[m++] = (struct sorter){ text, (int32_t)id };
    }
    if (st == OK && (bytes > UINT32_MAX || n > INT32_MAX))
        st = err_set(e, ERR_USAGE, "the vocabulary has %zu bytes of text, at most %u are supported", bytes, UINT32_MAX);
    if (st == OK) {
        qsort(order, (size_t)m, sizeof *order, by_bytes);
        t->n_vocab = n;
        t->n = build(t, text, order, m, true);
        st = allocate(t, bytes, e);
    }
    if (st == OK) fill(t, text), build(t, text, order, m, false);
    mem_free(order);
    if (st == OK) *out = t;
    else token_trie_close(t);
    return st;
}

status token_trie_open(struct token_trie **out, const struct tokenizer *t, int64_t n_vocab, struct err *e)
{
    int64_t n = min_i64(tokenizer_size(t), n_vocab);
    size_t bytes = 0, at = 0;
    *out = NULL;
    for (int32_t id = 0; id < n; id++) bytes += tokenizer_piece(t, id, false, NULL, 0);
    char *all = mem_alloc(bytes + 1);
    struct token_text *text = mem_calloc((size_t)n_vocab + 1, sizeof *text);
    status st = all && text ? OK : err_oom(e, "vocabulary trie", bytes + (size_t)n_vocab * sizeof *text);
    for (int32_t id = 0; id < n && st == OK; id++) {
        size_t len = tokenizer_piece(t, id, false, all + at, bytes - at);
        text[id] = (struct token_text){ all + at, len > TOKEN_BYTES_MAX ? TOKEN_BYTES_MAX + 1 : (uint32_t)len, tokenizer_is_end(t, id) };
        at += len;
    }
    if (st == OK) st = token_trie_of(out, text, n_vocab, e);
    mem_free(all), mem_free(text);
    return st;
}

void token_trie_close(struct token_trie *t)
{
    if (!t) return;
    mem_free(t->byte), mem_free(t->depth), mem_free(t->skip), mem_free(t->token), mem_free(t->same);
    mem_free(t->at), mem_free(t->text), mem_free(t->end_bits), mem_free(t->is_end);
    mem_free(t);
}

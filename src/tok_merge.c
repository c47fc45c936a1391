/* tok_merge - joins neighbouring symbols by rank. Knows neither ranks nor texts: a callback rates pairs.
 * Invariant: rank and merged of every live symbol speak for its present right neighbour, so a heap entry is out of date exactly when
 * its rank is no longer that of its symbol. A dead symbol has rank TOK_NO_MERGE. */
#include "src/tokenizer_int.h"

static const uint32_t NO_MERGE = (uint32_t)TOK_NO_MERGE;

status tok_merge_reserve(struct tok_encoder *enc, size_t n, struct err *e)
{
    if (n <= enc->symbol_cap) return OK;
    size_t bytes;
    if (n > INT32_MAX || !mul_size(n, sizeof *enc->symbol, &bytes)) return err_oom(e, "tokenizer", SIZE_MAX);
    struct tok_symbol *s = mem_alloc(bytes);
    if (!s) return err_oom(e, "tokenizer", bytes);
    if (enc->symbol != enc->symbol_own) mem_free(enc->symbol);
    enc->symbol = s;
    enc->symbol_cap = n;
    return OK;
}

/* p: where to keep the answer, NULL: nowhere. */
static NOINLINE void rate_new(struct tok_encoder *enc, const char *word, struct tok_symbol *a, const struct tok_symbol *b, struct tok_pair *p, tok_rate rate)
{
    a->rank = NO_MERGE;
    a->merged = -1;
    rate(enc, word, a, b);
    if (p) *p = (struct tok_pair){ a->id, b->id, a->rank, a->merged };
}

static inline void rate_pair(struct tok_encoder *enc, const char *word, int32_t i, tok_rate rate)
{
    struct tok_symbol *a = &enc->symbol[i];
    struct tok_pair *p = NULL;
    if (a->next < 0) {
        a->rank = NO_MERGE;
        return;
    }
    const struct tok_symbol *b = &enc->symbol[a->next];
    if (enc->joins && a->id >= 0 && b->id >= 0) {
        uint64_t h = ((uint64_t)(uint32_t)a->id << 32 | (uint32_t)b->id) * 0x9e3779b97f4a7c15u;
        p = &enc->joins[(h ^ h >> 29) * 0xbf58476d1ce4e5b9u >> 32 & (TOK_JOIN_SLOTS - 1)];
        if (p->left == a->id && p->right == b->id) {
            a->rank = p->rank;
            a->merged = p->merged;
            return;
        }
    }
    rate_new(enc, word, a, b, p, rate);
}

/* Symbol i takes over its right neighbour. */
static void join(struct tok_encoder *enc, const char *word, int32_t i, tok_rate rate)
{
    struct tok_symbol *s = enc->symbol, *a = &s[i], *b = &s[a->next];
    a->id = a->merged;
    a->end = b->end;
    a->next = b->next;
    b->rank = NO_MERGE;
    if (a->next >= 0) s[a->next].prev = i;
    rate_pair(enc, word, i, rate);
    if (a->prev >= 0) rate_pair(enc, word, a->prev, rate);
}

static void merge_by_scan(struct tok_encoder *enc, const char *word, tok_rate rate)
{
    struct tok_symbol *s = enc->symbol;
    for (;;) {
        uint32_t best = NO_MERGE;
        int32_t at = -1;
        for (int32_t i = 0; i >= 0; i = s[i].next)
            if (s[i].rank < best) best = s[i].rank, at = i;
        if (at < 0) return;
        join(enc, word, at, rate);
    }
}

/* ---- heap of rank << 32 | symbol, smallest on top ---- */

void tok_sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t x = heap[i];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && heap[c + 1] < heap[c]) c++;
        if (heap[c] >= x) break;
        heap[i] = heap[c];
    }
    heap[i] = x;
}

static void push(uint64_t *heap, size_t *n, const struct tok_symbol *s, int32_t i)
{
    if (i < 0 || s[i].rank == NO_MERGE) return;
    uint64_t x = (uint64_t)s[i].rank << 32 | (uint32_t)i;
    size_t at = (*n)++;
    for (; at > 0 && heap[(at - 1) / 2] > x; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = x;
}

/* A join takes one entry out and puts at most two in, and there are fewer than n joins: 2 n entries suffice. */
static status merge_by_heap(struct tok_encoder *enc, const char *word, size_t n, tok_rate rate, struct err *e)
{
    if (2 * n > enc->heap_cap) {
        mem_free(enc->heap);
        enc->heap_cap = 0;
        enc->heap = mem_alloc(2 * n * sizeof *enc->heap);
        if (!enc->heap) return err_oom(e, "tokenizer", 2 * n * sizeof *enc->heap);
        enc->heap_cap = 2 * n;
    }
    struct tok_symbol *s = enc->symbol;
    uint64_t *heap = enc->heap;
    size_t n_heap = 0;
    for (size_t i = 0; i < n; i++)
        if (s[i].rank != NO_MERGE) heap[n_heap++] = (uint64_t)s[i].rank << 32 | i;
    for (size_t i = n_heap / 2; i-- > 0;) tok_sift_down(heap, n_heap, i);
    while (n_heap) {
        int32_t i = (int32_t)(heap[0] & UINT32_MAX);
        uint32_t rank = (uint32_t)(heap[0] >> 32);
        heap[0] = heap[--n_heap];
        if (n_heap) tok_sift_down(heap, n_heap, 0);
        if (s[i].rank != rank) continue;
        join(enc, word, i, rate);
        push(heap, &n_heap, s, s[i].prev);
        push(heap, &n_heap, s, i);
    }
    return OK;
}

status tok_merge_run(struct tok_encoder *enc, const char *word, size_t n, tok_rate rate, struct err *e)
{
    struct tok_symbol *s = enc->symbol;
    for (size_t i = 0; i < n; i++) {
        s[i].prev = (int32_t)i - 1;
        s[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i < n; i++) rate_pair(enc, word, (int32_t)i, rate);
    if (n > TOK_SCAN) return merge_by_heap(enc, word, n, rate, e);
    merge_by_scan(enc, word, rate);
    return OK;
}

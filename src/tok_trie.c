/* tok_trie - all tokens that begin at a place, one byte at a time. Built once from texts in any order: sorted, then laid out breadth
 * first, so that the children of a node stand in a row in byte order. 9 bytes a node. */
#include "src/tokenizer_int.h"

/* ---- sorting ---- */

/* The first eight bytes of a text as a number decide most comparisons without touching the text. */
static uint64_t key_of(struct str s)
{
    uint64_t key = 0;
    for (size_t i = 0; i < 8; i++) key = key << 8 | (i < s.n ? (uint8_t)s.p[i] : 0);
    return key;
}

static bool not_after(const struct tok_trie_item *a, const struct tok_trie_item *b)
{
    if (a->key != b->key) return a->key < b->key;
    size_t n = a->text.n < b->text.n ? a->text.n : b->text.n;
    int c = memcmp(a->text.p, b->text.p, n);
    if (c) return c < 0;
    return a->text.n != b->text.n ? a->text.n < b->text.n : a->id <= b->id;
}

/* Merge sort, bottom up; spare has room for n. */
static void sort_items(struct tok_trie_item *item, struct tok_trie_item *spare, size_t n)
{
    for (size_t run = 1; run < n; run *= 2) {
        for (size_t at = 0; at < n; at += 2 * run) {
            size_t mid = at + run < n ? at + run : n, end = at + 2 * run < n ? at + 2 * run : n, a = at, b = mid;
            for (size_t i = at; i < end; i++) spare[i] = a < mid && (b == end || not_after(&item[a], &item[b])) ? item[a++] : item[b++];
        }
        memcpy(item, spare, n * sizeof *item);
    }
}

/* ---- layout ---- */

static size_t common(struct str a, struct str b)
{
    size_t n = 0;
    while (n < a.n && n < b.n && a.p[n] == b.p[n]) n++;
    return n;
}

static size_t count_nodes(const struct tok_trie_item *item, size_t n)
{
    size_t nodes = 1;
    for (size_t i = 0; i < n; i++) nodes += item[i].text.n - (i ? common(item[i - 1].text, item[i].text) : 0);
    return nodes;
}

/* What a node stands for while the layout is made: the items that begin with its `depth` bytes. */
struct span {
    uint32_t begin, end, depth;
};

static void lay_out(struct tok_trie *trie, const struct tok_trie_item *item, size_t n, struct span *span)
{
    uint32_t n_nodes = 1;
    span[0] = (struct span){ 0, (uint32_t)n, 0 };
    trie->id[0] = -1;
    for (uint32_t node = 0; node < n_nodes; node++) {
        struct span s = span[node];
        trie->child[node] = n_nodes;
        trie->id[node] = -1;
        if (s.begin < s.end && item[s.begin].text.n == s.depth) trie->id[node] = item[s.begin].id;
        while (s.begin < s.end && item[s.begin].text.n == s.depth) s.begin++;
        while (s.begin < s.end) {
            uint8_t label = (uint8_t)item[s.begin].text.p[s.depth];
            uint32_t end = s.begin + 1;
            while (end < s.end && (uint8_t)item[end].text.p[s.depth] == label) end++;
            if (node == 0) trie->root[label] = n_nodes;
            trie->label[n_nodes] = label;
            span[n_nodes++] = (struct span){ s.begin, end, s.depth + 1 };
            s.begin = end;
        }
    }
    trie->child[n_nodes] = n_nodes;
}

status tok_trie_build(struct tok_trie *trie, struct tok_trie_item *item, size_t n, struct arena *mem, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (item[i].text.n > TOK_TRIE_LEN)
            return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens[%d] has %zu bytes, this kind of tokenizer allows %d", item[i].id,
                           item[i].text.n, TOK_TRIE_LEN);
        item[i].key = key_of(item[i].text);
    }
    struct tok_trie_item *spare = mem_alloc(n * sizeof *spare + 1);
    if (!spare) return err_oom(e, "vocabulary", n * sizeof *spare);
    sort_items(item, spare, n);
    mem_free(spare);
    size_t nodes = count_nodes(item, n);
    if (nodes >= UINT32_MAX || n >= UINT32_MAX)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens have %zu prefixes, allowed are 2^32", nodes);
    trie->child = arena_alloc(mem, (nodes + 1) * sizeof *trie->child);
    trie->id = arena_alloc(mem, nodes * sizeof *trie->id);
    trie->label = arena_alloc(mem, nodes);
    struct span *span = mem_alloc(nodes * sizeof *span);
    status st = trie->child && trie->id && trie->label && span ? OK : err_oom(e, "vocabulary", nodes * (9 + sizeof *span));
    if (st == OK) lay_out(trie, item, n, span);
    mem_free(span);
    return st;
}

status tok_trie_of_vocab(struct tok_trie *trie, struct tokenizer *t, unsigned attrs, struct err *e)
{
    struct tok_trie_item *item = mem_alloc((size_t)t->vocab.n * sizeof *item);
    if (!item) return err_oom(e, "vocabulary", (size_t)t->vocab.n * sizeof *item);
    size_t n = 0;
    for (int32_t id = 0; id < t->vocab.n; id++) {
        struct str s = tok_text(&t->vocab, id);
        if ((t->vocab.attr[id] & attrs) && s.n > 0) item[n++] = (struct tok_trie_item){ .text = s, .id = id };
    }
    status st = tok_trie_build(trie, item, n, &t->mem, e);
    mem_free(item);
    return st;
}

uint32_t tok_trie_step(const struct tok_trie *trie, uint32_t node, char byte)
{
    uint8_t b = (uint8_t)byte;
    if (node == 0) return trie->root[b];
    uint32_t lo = trie->child[node], end = trie->child[node + 1], hi = end;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (trie->label[mid] < b) lo = mid + 1;
        else hi = mid;
    }
    return lo < end && trie->label[lo] == b ? lo : 0;
}

int32_t tok_trie_longest(const struct tok_trie *trie, const char *p, size_t n, size_t *len)
{
    int32_t id = -1;
    uint32_t node = 0;
    *len = 0;
    for (size_t i = 0; i < n && (node = tok_trie_step(trie, node, p[i])) > 0; i++)
        if (trie->id[node] >= 0) id = trie->id[node], *len = i + 1;
    return id;
}

/* grammars - which tokens fit, for comparisons with other engines:  grammars MODEL
 * Input: frames {u32 grammar bytes, u32 n_ids, the grammar, n_ids int32}: a grammar and tokens accepted so far. Output per frame: {u32 n_vocab, one byte a
 * token: may it come next}, or n_vocab 0 when the grammar is refused or a token did not fit. */
#include "src/cuanto.h"
#include <stdio.h>
#include <stdlib.h>

static uint32_t mask_of(const struct token_trie *trie, const struct tokenizer *t, const char *text, uint32_t n, const int32_t *ids, uint32_t n_ids,
                        uint8_t *fits, uint32_t n_vocab)
{
    struct grammar *g = NULL;
    struct matcher *m = NULL;
    struct err e = { 0 };
    const uint64_t *bits;
    status st = grammar_parse(&g, text, n, "grammar", t, &e);
    if (st == OK) st = matcher_open(&m, g, trie, &e);
    for (uint32_t i = 0; i < n_ids && st == OK; i++) st = matcher_accept(m, ids[i], &e);
    if (st == OK) st = matcher_mask(m, &bits, &e);
    if (st == OK) for (uint32_t id = 0; id < n_vocab; id++) fits[id] = bits[id >> 6] >> (id & 63) & 1;
    else fprintf(stderr, "grammars: %s\n", e.text);
    matcher_close(m);
    grammar_close(g);
    return st == OK ? n_vocab : 0;
}

int main(int argc, char **argv)
{
    struct model *m;
    struct token_trie *trie;
    struct model_info info;
    struct err e = { 0 };
    uint32_t head[2];
    if (argc != 2 || model_open(&m, argv[1], &(struct model_options){ 0 }, &e) != OK) return fprintf(stderr, "grammars: %s\n", e.text), 1;
    model_info(m, &info);
    if (token_trie_open(&trie, model_tokenizer(m), info.n_vocab, &e) != OK) return fprintf(stderr, "grammars: %s\n", e.text), 1;
    uint8_t *fits = malloc((size_t)info.n_vocab);
    while (fits && fread(head, sizeof head, 1, stdin) == 1) {
        char *text = malloc(head[0] + 1u);
        int32_t *ids = malloc((head[1] + 1u) * sizeof *ids);
        if (!text || !ids || fread(text, 1, head[0], stdin) != head[0] || fread(ids, sizeof *ids, head[1], stdin) != head[1]) return 1;
        uint32_t n = mask_of(trie, model_tokenizer(m), text, head[0], ids, head[1], fits, (uint32_t)info.n_vocab);
        fwrite(&n, sizeof n, 1, stdout);
        fwrite(fits, 1, n, stdout);
        fflush(stdout);
        free(text);
        free(ids);
    }
    free(fits);
    token_trie_close(trie);
    model_close(m);
    return 0;
}

/* fuzz_grammar - any bytes are either refused as a grammar, with a text, or followed: along a walk of allowed tokens the mask and the single test agree, and
 * every allowed token is accepted. The first byte seeds the walk. */
#include "src/grammar.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N = 256 + 8 };

static void walk(const struct grammar *g, const struct token_trie *t, uint32_t rng)
{
    struct matcher *m;
    struct err e = { 0 };
    const uint64_t *bits;
    bool yes;
    if (matcher_open(&m, g, t, &e) != OK) {
        if (!e.text[0]) abort();
        return;
    }
    for (int step = 0; step < 12; step++) {
        int32_t allowed[N];
        int n = 0;
        if (matcher_mask(m, &bits, &e) != OK) break;
        for (int32_t id = 0; id < N; id++)
            if (bits[id >> 6] >> (id & 63) & 1) allowed[n++] = id;
        if (n == 0) break;
        rng = rng * 1664525u + 1013904223u;
        int32_t id = allowed[(rng >> 8) % (uint32_t)n], other = (int32_t)(rng >> 4 & 0xFF);
        bool masked = bits[other >> 6] >> (other & 63) & 1;
        if (matcher_allows(m, other, &yes, &e) != OK) break;
        if (yes != masked) abort();
        if (matcher_accept(m, id, &e) != OK) {
            if (!strstr(e.text, "cannot be followed")) abort();
            break;
        }
        if (id == N - 1 && !matcher_must_end(m)) abort();
    }
    matcher_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const more[7] = { "ab", "a b", "{\"", "\xC3\xA9", "\xA9\xC3", "0123", "\n\n" };
    static char bytes[256];
    struct token_text text[N] = { 0 };
    for (int i = 0; i < 256; i++) bytes[i] = (char)i, text[i] = (struct token_text){ &bytes[i], 1, false };
    for (int i = 0; i < 7; i++) text[256 + i] = (struct token_text){ more[i], (uint32_t)strlen(more[i]), false };
    text[N - 1].end = true;
    struct grammar *g;
    struct token_trie *t;
    struct err e = { 0 };
    status st = grammar_parse(&g, (const char *)data, size, "input", NULL, &e);
    if ((st == OK) != (g != NULL) || (st == OK) != (e.text[0] == 0)) abort();
    if (st == OK && token_trie_of(&t, text, N, NULL) == OK) {
        walk(g, t, size ? data[size - 1] : 0);
        token_trie_close(t);
    }
    grammar_close(g);
    return 0;
}

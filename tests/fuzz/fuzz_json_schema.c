/* fuzz_json_schema - any bytes are refused as JSON or as a schema, with a text, or become a grammar that parses (or is refused for recursion or size) and
 * whose texts, drawn byte by byte, are JSON. */
#include "src/grammar.h"
#include "src/json_schema.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void draw_text(const struct grammar *g, uint32_t rng)
{
    static char bytes[256];
    struct token_text one[256] = { 0 };
    struct token_trie *t;
    struct matcher *m;
    char text[400];
    size_t n = 0;
    for (int i = 0; i < 256; i++) bytes[i] = (char)i, one[i] = (struct token_text){ &bytes[i], 1, false };
    if (token_trie_of(&t, one, 256, NULL) != OK) abort();
    if (matcher_open(&m, g, t, NULL) == OK) {
        const uint64_t *bits;
        while (n < sizeof text && !matcher_must_end(m) && matcher_mask(m, &bits, NULL) == OK) {
            int allowed[256], k = 0;
            for (int b = 0; b < 256; b++)
                if (bits[b >> 6] >> (b & 63) & 1) allowed[k++] = b;
            rng = rng * 1664525u + 1013904223u;
            if (matcher_can_end(m) && rng >> 30 == 0) break;
            if (k == 0) abort(); /* nothing dead is ever begun */
            int b = allowed[(rng >> 8) % (uint32_t)k];
            if (matcher_accept(m, b, NULL) != OK) break;
            text[n++] = (char)b;
        }
        struct arena a;
        struct json *j;
        struct err e = { 0 };
        arena_init(&a, 0);
        if (matcher_can_end(m) && json_parse(&j, text, n, &a, "text", &e) != OK && !strstr(e.text, "key")) abort(); /* a key twice is the reader's rule */
        arena_free(&a);
        matcher_close(m);
    }
    token_trie_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct json *j;
    struct err e = { 0 };
    char *text = NULL;
    struct grammar *g;
    arena_init(&a, 0);
    if (json_parse(&j, (const char *)data, size, &a, "input", &e) == OK) {
        status st = json_schema_to_gbnf(&text, j, "input", &e);
        if ((st == OK) != (text != NULL) || (st == OK) != (e.text[0] == 0)) abort();
        if (st == OK && grammar_parse(&g, text, strlen(text), "gbnf", NULL, &e) == OK) {
            draw_text(g, data[size / 2]);
            grammar_close(g);
        } else if (st == OK && !strstr(e.text, "begins with itself") && !strstr(e.text, "more than")) {
            abort();
        }
    }
    mem_free(text);
    arena_free(&a);
    return 0;
}

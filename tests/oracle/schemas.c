/* schemas - JSON schemas, one a line, on stdin; for each N texts of its grammar, drawn byte by byte, or one line "error: ..." :  schemas N
 * Output per schema: a line with the number of texts, then each as one line (JSON needs no raw newlines between tokens: they are written as blanks). */
#include "src/grammar.h"
#include "src/json_schema.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t rng = 1;
static uint32_t next(uint32_t n)
{
    rng = rng * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(rng >> 4) * n >> 28);
}

/* Printable bytes are preferred, so that texts are read more easily; the end is taken with probability 1/3 where it is allowed. */
static size_t draw(struct matcher *m, char *text, size_t cap)
{
    size_t n = 0;
    const uint64_t *bits;
    matcher_reset(m);
    while (n < cap && !matcher_must_end(m) && matcher_mask(m, &bits, NULL) == OK) {
        int allowed[256], k = 0, plain = 0;
        for (int b = 0; b < 256; b++)
            if (bits[b >> 6] >> (b & 63) & 1) allowed[k++] = b;
        while (plain < k && allowed[plain] < 0x80) plain++;
        if (matcher_can_end(m) && next(3) == 0) break;
        if (k == 0) return cap;
        int b = next(4) && plain > 0 ? allowed[next((uint32_t)plain)] : allowed[next((uint32_t)k)];
        if (next(2) && bits['"' >> 6] >> ('"' & 63) & 1) b = '"'; /* strings and objects end sooner */
        else if (next(3) == 0 && bits['}' >> 6] >> ('}' & 63) & 1) b = '}';
        else if (next(3) == 0 && bits[']' >> 6] >> (']' & 63) & 1) b = ']';
        if (matcher_accept(m, b, NULL) != OK) return cap;
        text[n++] = (char)b;
    }
    return n;
}

static void answer(const char *line, const struct token_trie *t, int n_texts)
{
    struct arena a;
    struct json *j;
    struct err e = { 0 };
    char *gbnf = NULL;
    struct grammar *g = NULL;
    struct matcher *m = NULL;
    static char text[20000];
    arena_init(&a, 0);
    status st = json_parse(&j, line, strlen(line), &a, "schema", &e);
    if (st == OK) st = json_schema_to_gbnf(&gbnf, j, "schema", &e);
    if (st == OK) st = grammar_parse(&g, gbnf, strlen(gbnf), "gbnf", NULL, &e);
    if (st == OK) st = matcher_open(&m, g, t, &e);
    if (st != OK) {
        printf("error: %s\n", e.text);
    } else {
        printf("%d\n", n_texts);
        for (int i = 0; i < n_texts; i++) {
            size_t n = draw(m, text, sizeof text);
            if (n == sizeof text) n = (size_t)sprintf(text, "unfinished");
            for (size_t k = 0; k < n; k++) putchar(text[k] == '\n' ? ' ' : text[k]);
            putchar('\n');
        }
    }
    fflush(stdout);
    matcher_close(m), grammar_close(g), mem_free(gbnf), arena_free(&a);
}

int main(int argc, char **argv)
{
    static char line[1 << 20], bytes[256];
    struct token_text one[256] = { 0 };
    struct token_trie *t;
    for (int i = 0; i < 256; i++) bytes[i] = (char)i, one[i] = (struct token_text){ &bytes[i], 1, false };
    if (argc != 2 || token_trie_of(&t, one, 256, NULL) != OK) return 1;
    while (fgets(line, sizeof line, stdin)) answer(line, t, atoi(argv[1]));
    token_trie_close(t);
    return 0;
}

/* tokens - the tokenizer as a filter, for comparisons with other engines:  tokens MODEL [facts]   tokens split PRE
 * Input: frames {u32 flags (ENCODE_), u32 bytes, text}. Output per frame: {u32 n, n int32 ids, u32 bytes, the ids decoded with special
 * tokens}. facts: per token one line with the piece in hex without and with special tokens, and 1 if it ends generation; then bos, eos.
 * split: the scanners of a pre-tokenizer alone; input frames {u32 bytes, text}, output {u32 n, n int32 bytes of the pieces}. */
#include "src/pretok.h"
#include "src/tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *text)
{
    fprintf(stderr, "tokens: %s\n", text);
    return 1;
}

static void put(const void *p, uint32_t n, size_t item)
{
    fwrite(&n, sizeof n, 1, stdout);
    fwrite(p, item, n, stdout);
}

static int facts(const struct tokenizer *t)
{
    static char buf[1 << 20];
    for (int32_t id = 0; id < tokenizer_size(t); id++) {
        for (int special = 0; special < 2; special++) {
            size_t n = tokenizer_piece(t, id, special, buf, sizeof buf);
            for (size_t i = 0; i < n && n <= sizeof buf; i++) printf("%02x", (unsigned char)buf[i]);
            printf(" ");
        }
        printf("%d\n", tokenizer_is_end(t, id));
    }
    printf("%d %d\n", tokenizer_bos(t), tokenizer_eos(t));
    return 0;
}

static int filter(const struct tokenizer *t)
{
    uint32_t head[2];
    struct err e = { 0 };
    while (fread(head, sizeof head, 1, stdin) == 1) {
        int64_t n, again, cap = 4 * (int64_t)head[1] + 16;
        char *text = malloc(head[1] + 1u), *back = NULL;
        int32_t *ids = malloc((size_t)cap * sizeof *ids);
        if (!text || !ids || fread(text, 1, head[1], stdin) != head[1]) return fail("short input");
        if (tokenizer_encode(t, text, head[1], head[0], ids, cap, &n, &e) != OK) return fail(e.text);
        if (tokenizer_encode(t, text, head[1], head[0], NULL, 0, &again, &e) != OK || again != n)
            return fail("counting gives another number");
        if (n > cap) return fail("more than four tokens a byte");
        size_t bytes = tokenizer_decode(t, ids, n, true, NULL, 0);
        back = malloc(bytes + 1);
        if (!back || tokenizer_decode(t, ids, n, true, back, bytes) != bytes) return fail("decoding twice gives two lengths");
        put(ids, (uint32_t)n, sizeof *ids);
        put(back, (uint32_t)bytes, 1);
        free(text);
        free(ids);
        free(back);
    }
    return 0;
}

static int split(const char *name)
{
    const struct pretok *row = pretok_find(name, strlen(name));
    uint32_t n;
    if (!row) return fail("unknown pre-tokenizer");
    while (fread(&n, sizeof n, 1, stdin) == 1) {
        char *text = malloc(n + 1u);
        int32_t *len = malloc((n + 1u) * sizeof *len);
        if (!text || !len || fread(text, 1, n, stdin) != n) return fail("short input");
        struct pretok_cursor c;
        pretok_start(&c, row, text, n);
        uint32_t n_pieces = 0;
        for (size_t k; (k = pretok_next(&c)) > 0;) len[n_pieces++] = (int32_t)k;
        put(len, n_pieces, sizeof *len);
        free(text);
        free(len);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct gguf g;
    struct tokenizer *t;
    struct err e = { 0 };
    if (argc < 2) return fail("tokens MODEL [facts]");
    if (!strcmp(argv[1], "split")) return argc > 2 ? split(argv[2]) : fail("tokens split PRE");
    if (gguf_open(&g, argv[1], true, &e) != OK || tokenizer_open(&t, &g, NULL, &e) != OK) return fail(e.text);
    int rc = argc > 2 ? facts(t) : filter(t);
    tokenizer_close(t);
    gguf_close(&g);
    return rc;
}

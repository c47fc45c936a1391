/* pretok - cuts text into the pieces inside which byte-pair merges may happen: one row per value of tokenizer.ggml.pre.
 * The regular expressions of the models are hand-written scanners here; a row lists one to four of them, each cutting the pieces that
 * the one before left. Knows no vocabulary. Cannot fail; any bytes are accepted; the pieces joined are the text. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { PRETOK_STAGES = 4 };

/* A stage - bytes of the first piece of [p, end), p < end: a match at p, or the gap before the first match. At least 1. */
typedef size_t (*pretok_stage)(const char *p, const char *end);

enum {
    PRETOK_WHOLE_WORDS = 1, /* a piece that is a token is not merged ("ignore_merges") */
    PRETOK_ADDS_BOS = 2,    /* add_bos_token when the file does not say */
};

struct pretok {
    const char *name;
    const pretok_stage *stages; /* ends with NULL */
    unsigned flags;
};

/* pretok_find - NULL when the name is unknown. pretok_at - row i in the order of the table, NULL past the end. */
const struct pretok *pretok_find(const char *name, size_t n);
const struct pretok *pretok_at(int i);

struct pretok_cursor {
    const pretok_stage *stages;
    const char *p;
    const char *end[PRETOK_STAGES]; /* [0]: of the text; [i]: of the piece that stage i - 1 found */
};
void pretok_start(struct pretok_cursor *c, const struct pretok *row, const char *text, size_t n);
/* pretok_next - bytes of the next piece, which begins where the last one ended; 0 after the last. */
size_t pretok_next(struct pretok_cursor *c);

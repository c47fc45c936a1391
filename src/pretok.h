/* pretok - cuts text into the pieces inside which byte-pair merges may happen: one row per value of tokenizer.ggml.pre.
 * The regular expressions of the models are hand-written scanners (pretok_words.c, pretok_parts.c, pretok_cjk.c); a row lists one to six
 * of them, each cutting the pieces that the one before left. Knows no vocabulary. Cannot fail; any bytes are accepted; the pieces
 * joined are the text. Time is linear in the text. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { PRETOK_STAGES = 6 };

/* A stage - bytes of the first piece of [p, end), p < end: a match at p, or the gap before the first match. At least 1.
 * *note is a place in the text that the stage remembers from piece to piece; before the first it is not after p. */
typedef size_t (*pretok_stage)(const char *p, const char *end, const char **note);

enum {
    PRETOK_WHOLE_WORDS = 1,    /* a piece that is a token is not merged ("ignore_merges") */
    PRETOK_WHOLE_NEWLINES = 2, /* the same, only for pieces of newlines */
    PRETOK_ADDS_BOS = 4,       /* add_bos_token when the file does not say */
    PRETOK_ALWAYS_BOS = 8,     /* add_bos_token whatever the file says */
    PRETOK_CHARS = 16,         /* merging begins with UTF-8 characters and <0xNN> tokens, not with the byte alphabet */
    PRETOK_SPACE_SIGN = 32,    /* spaces are written as U+2581 before the first stage */
    PRETOK_NO_MERGES = 64,     /* the file may come without a list of merges */
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
    const char *note[PRETOK_STAGES];
};
void pretok_start(struct pretok_cursor *c, const struct pretok *row, const char *text, size_t n);
/* pretok_next - bytes of the next piece, which begins where the last one ended; 0 after the last. */
size_t pretok_next(struct pretok_cursor *c);

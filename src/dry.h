/* dry - sequence breakers of the DRY sampler, resolved against a vocabulary. A breaker is a text that ends a repetition; in tokens it is a head (a token
 * that holds it, or that ends with a beginning of it) and the tail that the rest of the text becomes. Rows are sorted by head. Read-only after open. */
#pragma once
#include "ggml-like/base.h"

struct tokenizer;

enum { DRY_TEXT_MAX = 40, DRY_TAIL_MAX = 20, DRY_BREAKERS_MAX = 16 };

struct dry_breaker { int32_t head, n_tail; int64_t at; }; /* tail = tails[at .. at + n_tail) */
struct dry_breakers {
    struct dry_breaker *row; int64_t n;
    int32_t *tails; int64_t n_tails;
    int64_t cap, tails_cap;
};

/* dry_breakers_open - n texts of 1..DRY_TEXT_MAX bytes, n <= DRY_BREAKERS_MAX (else ERR_USAGE); tails longer than DRY_TAIL_MAX tokens are cut, as llama.cpp
 * does. Looks at every token of the vocabulary once: tens of milliseconds. */
status dry_breakers_open(struct dry_breakers **out, const struct tokenizer *t, const char *const *texts, int n, struct err *e) MUST_USE;
void dry_breakers_close(struct dry_breakers *b); /* accepts NULL */
/* dry_breakers_of - the rows with this head: their number, *first = index of the first. */
int64_t dry_breakers_of(const struct dry_breakers *b, int32_t head, int64_t *first);

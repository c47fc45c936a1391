/* similar - finds texts that are nearly the same among many: shingles of three words, their MinHash in bands to find candidates, then the exact share of
 * common shingles (Jaccard). Deterministic: the same texts in the same order give the same answers. */
#pragma once
#include "ggml-like/base.h"

struct similar; /* the texts that were kept */
status similar_open(struct similar **out, double threshold, struct err *e) MUST_USE; /* 0.5 <= threshold <= 1 */
void similar_close(struct similar *s);                                              /* accepts NULL */
/* similar_add - *like = the id of the earliest kept text that shares at least `threshold` of its shingles with this one, *share = how much; -1: none, and
 * the text is kept under this id. Words are compared without case (ASCII) and punctuation. A text without any word is like nothing and is not kept. */
status similar_add(struct similar *s, const char *text, size_t n, int64_t id, int64_t *like, double *share, struct err *e) MUST_USE;

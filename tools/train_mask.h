/* train_mask - which tokens of a conversation the assistant wrote. Found in the text that the template renders, then laid over the tokens:
 *   1. {% generation %} blocks, where the template has one for every turn of the assistant;
 *   2. else turn by turn: the first k messages rendered with an answer opened tell where turn k begins, k + 1 messages where it ends. The end token is
 *      part of the turn, what the template prints behind it is not;
 *   3. where a template rewrites earlier turns, so that its renderings are no prefixes of each other: where the turn's text stands.
 * All of this is done once for each shape of conversation (prompt.h), on the rendering with markers: what a sample costs is one rendering, one encoding and
 * one walk over both. Only conversations that the template rewrites, or with members such as tool calls, are looked at one by one. */
#pragma once
#include "tools/prompt.h"

struct train_mask {
    struct prompt *p;
    struct str *end; int n_end;           /* texts of the tokens that end an answer */
    struct turn *turn; int64_t n_turn, cap; /* of the last call, as offsets in p->text, in order */
    char *piece; size_t piece_cap;
};
status train_mask_open(struct train_mask *m, struct prompt *p, struct err *e) MUST_USE;
void train_mask_close(struct train_mask *m); /* accepts a zeroed one */

/* train_mask_turns - after prompt_encode(p, false): fills turn. ERR_FORMAT "messages[3]: ..." when a turn cannot be found in the text. */
status train_mask_turns(struct train_mask *m, struct err *e) MUST_USE;
/* train_mask_text - the same for a text that is no conversation: it stands in p->text, bytes [from, n) are the turn. */
status train_mask_text(struct train_mask *m, size_t from, struct err *e) MUST_USE;
/* train_mask_tokens - weight[i], i < p->n_ids: 1 for tokens that hold a byte of a turn whose message is >= first and, where `on` is not NULL, on[message];
 * 0 for all others and for token 0, which nothing predicts. ERR_FORMAT when tokens do not spell the text and their prefixes do not agree with it either. */
status train_mask_tokens(struct train_mask *m, int64_t first, const bool *on, float *weight, struct err *e) MUST_USE;

/* train_preview - what a training set holds, for people: a summary, and samples with the learnt tokens marked. */
#pragma once
#include "tools/buffer.h"
#include "tools/train_set.h"

/* train_set_summary - lines: every file with its format, samples and tokens, how much of them is learnt, what was left out, cut, split or not understood,
 * answers without an end token. False: no memory. */
bool train_set_summary(const struct train_set *s, const struct train_options *o, struct buffer *b);
/* train_faults_print - the bad rows that are listed, one line each: "  file:12: what". */
bool train_faults_print(const struct train_set *s, struct buffer *b);
/* train_preview - n samples spread evenly over the set, as the model sees them. Learnt tokens stand in colour (the others dim), or in [[ ]] when color is
 * false. Control characters are shown as ?. False: no memory. */
bool train_preview(const struct train_set *s, const struct tokenizer *t, int64_t n, bool color, struct buffer *b);
/* train_preview_json - the same samples as {"samples": [{"file", "line", "tokens": [ids], "learnt": [0 or 1 for each], "full": tokens before cutting}]}. */
void train_preview_json(const struct train_set *s, int64_t n, struct json_out *o);

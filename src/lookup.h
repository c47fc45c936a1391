/* lookup - guesses the next tokens from the text so far: where the last few tokens stood before, what followed them is likely to follow again.
 * Knows tokens only. Sources: prompt lookup decoding (Saxena 2023); speculative decoding (Leviathan et al. 2023). */
#pragma once
#include "ggml-like/base.h"

enum { LOOKUP_GRAM_MAX = 4, LOOKUP_GRAM_MIN = 2 };

/* lookup_draft - into out at most max tokens that may follow tokens[0..n): those behind the latest earlier place of the last LOOKUP_GRAM_MAX tokens, else of
 * fewer, down to LOOKUP_GRAM_MIN. Returns their number, 0 when there is no such place. Any thread. */
int64_t lookup_draft(const int32_t *tokens, int64_t n, int32_t *out, int64_t max);

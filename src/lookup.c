/* lookup - see lookup.h. A walk back over the whole text costs 30 us for 100,000 tokens: no index is worth keeping. */
#include "src/lookup.h"
#include <string.h>

/* The longest suffix wins, then the latest place: one walk that remembers the best so far. A place is worth something only if text follows it that is
 * not the suffix's own end. */
static int64_t find(const int32_t *t, int64_t n, int64_t *length)
{
    int64_t best = -1;
    *length = LOOKUP_GRAM_MIN - 1;
    for (int64_t end = n - 1; end >= LOOKUP_GRAM_MIN && *length < LOOKUP_GRAM_MAX; end--) { /* t[end] would be the first guess */
        if (t[end - 1] != t[n - 1]) continue;
        int64_t k = 1;
        while (k < LOOKUP_GRAM_MAX && k < end && t[end - 1 - k] == t[n - 1 - k]) k++;
        if (k > *length) *length = k, best = end;
    }
    return best;
}

int64_t lookup_draft(const int32_t *tokens, int64_t n, int32_t *out, int64_t max)
{
    int64_t length, at = find(tokens, n, &length);
    if (at < 0) return 0;
    int64_t m = min_i64(max, n - at);
    memcpy(out, tokens + at, (size_t)m * sizeof *out);
    return m;
}

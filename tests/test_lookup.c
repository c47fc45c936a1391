/* test_lookup - guesses from the text so far. That answers stay the same is shown by tests/cli/model_lookup.sh. */
#include "src/lookup.h"
#include "tests/test.h"

static const struct {
    const char *text; /* one token a letter */
    int64_t max;
    const char *want;
} rows[] = {
    { "", 4, "" },
    { "a", 4, "" },
    { "aa", 4, "" },           /* the pair has no earlier place */
    { "abcab", 4, "cab" },     /* what followed ab, up to the end */
    { "abcab", 2, "ca" },
    { "abcab", 0, "" },
    { "xabyab", 4, "yab" },
    { "ab1ab2ab", 4, "2ab" },  /* the latest place */
    { "cab1xab2cab", 2, "1x" }, /* the longer suffix before the latest place */
    { "zcab1.ycab2.xcab", 1, "2" },
    { "abcd1bcd2cd3abcd", 1, "1" },
    { "aaa", 3, "a" },
    { "aaaaaaaa", 3, "a" },    /* the latest place of four: what follows overlaps the suffix */
    { "abab", 9, "ab" },
    { "abcb", 4, "" },         /* one token alone is no hint */
};

TEST(lookup_draft_continues_the_longest_then_latest_place)
{
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        int32_t t[64], out[64];
        int64_t n = (int64_t)strlen(rows[i].text);
        char got[64] = "";
        for (int64_t j = 0; j < n; j++) t[j] = rows[i].text[j];
        int64_t m = lookup_draft(t, n, out, rows[i].max);
        for (int64_t j = 0; j < m; j++) got[j] = (char)out[j];
        CHECK_MSG(!strcmp(got, rows[i].want), "\"%s\": \"%s\", expected \"%s\"", rows[i].text, got, rows[i].want);
    }
}

SUITE(lookup, T(lookup_draft_continues_the_longest_then_latest_place));

/* pretok_parts - the stages that take out one kind of thing: numbers, punctuation, lines, spaces. Each stands under its regular
 * expression; what lies between two matches is a piece of its own. */
#include "src/pretok_int.h"
#include <string.h>

/* ---- numbers ---- */

/* \p{N} and \p{N}{1,3} and \p{N}+ */
static inline size_t numbers(const char *p, const char *end, int most)
{
    const char *q = number_run(p, end, most);
    return (size_t)((q > p ? q : skip(p, end, UC_NUMBER, false)) - p);
}
size_t pretok_one_number(const char *p, const char *end, const char **note) { return numbers(p, end, 1); }
size_t pretok_three_numbers(const char *p, const char *end, const char **note) { return numbers(p, end, 3); }
size_t pretok_all_numbers(const char *p, const char *end, const char **note)
{
    return (size_t)(skip(p, end, UC_NUMBER, look(p, end).flags & UC_NUMBER) - p);
}

/* [0-9][0-9][0-9] */
size_t pretok_three_digits(const char *p, const char *end, const char **note)
{
    int run = 0;
    for (const char *q = p; q < end; q++) {
        run = is_digit(*q) ? run + 1 : 0;
        if (run == 3) return q - p == 2 ? 3 : (size_t)(q - p - 2);
    }
    return (size_t)(end - p);
}

/* Numbers in groups of three from the right, the first group with what stands before it. *note is the end of the run of numbers inside
 * which p stands: from there on all groups have three. */
size_t pretok_grouped_numbers(const char *p, const char *end, const char **note)
{
    if (*note > p) return (size_t)(number_run(p, end, 3) - p);
    const char *first = skip(p, end, UC_NUMBER, false), *q = first;
    int n = 0;
    for (; q < end && (look(q, end).flags & UC_NUMBER); n = (n + 1) % 3) q += look(q, end).len;
    *note = q;
    return (size_t)(number_run(first, end, n ? n : 3) - p);
}

/* (?=(\d{3})+(?!\d))   cuts before every third digit from the right; what is no digit sticks to what stands before it. *note as above. */
size_t pretok_grouped_digits(const char *p, const char *end, const char **note)
{
    const char *q = p;
    if (*note > p && *note - p > 3) return 3;
    if (*note > p) q = *note;
    while (q < end) {
        const char *run = q;
        while (q < end && is_digit(*q)) q++;
        ptrdiff_t n = q - run, lead = n % 3;
        if (n >= 3) {
            const char *cut = run + lead > p ? run + lead : p + 3;
            *note = q;
            if (cut < q) return (size_t)(cut - p);
        }
        while (q < end && !is_digit(*q)) q++;
    }
    return (size_t)(end - p);
}

/* ---- punctuation ---- */

/* [\p{P}$+<=>^~|]+ and, with `tick`, [\p{P}$+<=>^~|`]+ */
static bool is_ascii_symbol(struct glyph g) { return g.c < 0x80 && (g.flags & UC_SYMBOL); }
static int default_punctuation(struct glyph g) { return (g.flags & UC_PUNCT) || (is_ascii_symbol(g) && g.c != '`'); }
static int falcon_punctuation(struct glyph g) { return (g.flags & UC_PUNCT) || is_ascii_symbol(g); }
size_t pretok_default_punctuation(const char *p, const char *end, const char **note) { return class_run(p, end, default_punctuation); }
size_t pretok_falcon_punctuation(const char *p, const char *end, const char **note) { return class_run(p, end, falcon_punctuation); }

/* [\p{P}!-/:-@\[-`{-~] */
static const char *match_one_punctuation(const char *p, const char *end)
{
    struct glyph g = look(p, end);
    return falcon_punctuation(g) ? p + g.len : NULL;
}
size_t pretok_one_punctuation(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_one_punctuation); }

/* \s?\p{L}+ and \s?\p{P}+ */
static inline const char *match_spaced(const char *p, const char *end, unsigned mask)
{
    struct glyph g = look(p, end);
    const char *q = g.flags & UC_SPACE ? p + g.len : p, *stop = skip(q, end, mask, true);
    return stop > q ? stop : NULL;
}
static const char *match_spaced_letters(const char *p, const char *end) { return match_spaced(p, end, UC_LETTER); }
static const char *match_spaced_punctuation(const char *p, const char *end) { return match_spaced(p, end, UC_PUNCT); }
size_t pretok_spaced_letters(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_spaced_letters); }
size_t pretok_spaced_punctuation(const char *p, const char *end, const char **note)
{
    return match_or_gap(p, end, match_spaced_punctuation);
}

/* ---- lines and spaces ---- */

/* [\r\n] */
static const char *match_newline(const char *p, const char *end) { return is_newline((uint8_t)*p) ? p + 1 : NULL; }
size_t pretok_one_newline(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_newline); }

/* [^\n]+|[\n]+ */
static int is_line_feed(struct glyph g) { return g.c == '\n'; }
size_t pretok_lines(const char *p, const char *end, const char **note) { return class_run(p, end, is_line_feed); }

/* \S+ */
static int is_space(struct glyph g) { return (g.flags & UC_SPACE) != 0; }
size_t pretok_no_spaces(const char *p, const char *end, const char **note) { return class_run(p, end, is_space); }

/* \s+$ */
size_t pretok_last_spaces(const char *p, const char *end, const char **note)
{
    const char *stop = p; /* after the last character that is no space */
    for (const char *q = p; q < end;) {
        struct glyph g = look(q, end);
        q += g.len;
        if (!(g.flags & UC_SPACE)) stop = q;
    }
    return (size_t)((stop > p ? stop : end) - p);
}

/* ---- Chameleon ---- */

/* <sentinel:[0-9]+> */
static const char *match_sentinel(const char *p, const char *end)
{
    static const char begin[] = "<sentinel:";
    enum { N = sizeof begin - 1 };
    if (end - p < N || memcmp(p, begin, N)) return NULL;
    const char *q = p + N;
    while (q < end && is_digit(*q)) q++;
    return q > p + N && q < end && *q == '>' ? q + 1 : NULL;
}
size_t pretok_sentinels(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_sentinel); }

/* (IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z */
static const char *match_image(const char *p, const char *end)
{
    static const char begin[] = "IMGIMG";
    enum { N = sizeof begin - 1 };
    if (end - p < N || memcmp(p, begin, N)) return NULL;
    const char *q = p + N;
    while (q < end && q - p < N + 4 && *q >= 'A' && *q <= 'I') q++;
    return q > p + N && q < end && *q == 'Z' ? q + 1 : NULL;
}
size_t pretok_images(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_image); }

/* ([\t\n]|    |  ) */
static const char *match_tab(const char *p, const char *end)
{
    if (*p == '\t' || *p == '\n') return p + 1;
    if (end - p >= 4 && !memcmp(p, "    ", 4)) return p + 4;
    return end - p >= 2 && !memcmp(p, "  ", 2) ? p + 2 : NULL;
}
size_t pretok_tabs(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_tab); }

/* pretok_words - the stages that cut a text into words. Each stands under its regular expression. In all of them
 *   C = (?i:'s|'t|'re|'ve|'m|'ll|'d)      S = \s*[\r\n]+|\s+(?!\S)|\s+      X = [^\r\n\p{L}\p{N}]
 * "Other" is what is neither space, letter nor number. */
#include "src/pretok_int.h"
#include <limits.h>

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)   what is left over stands alone */
size_t pretok_gpt2_words(const char *p, const char *end, const char **note)
{
    size_t n = contraction(p, end, false);
    if (n) return n;
    enum { WORD = UC_LETTER | UC_NUMBER | UC_SPACE };
    const char *q = p + (*p == ' ');
    struct glyph g = look(q, end);
    const char *stop;
    if (g.flags & UC_LETTER) stop = skip(q, end, UC_LETTER, true);
    else if (g.flags & UC_NUMBER) stop = skip(q, end, UC_NUMBER, true);
    else if (g.len && !(g.flags & WORD)) stop = skip(q, end, WORD, false);
    else stop = space_run(p, end, false);
    return (size_t)(stop - p);
}

/* C|X?\p{L}+|\p{N}{1,digits}: the end of a match at p, NULL if there is none. \p{L} is `letter`, C only if `contract`. */
static inline const char *word_or_number(const char *p, const char *end, int digits, unsigned letter, bool contract)
{
    size_t n = contract ? contraction(p, end, true) : 0;
    if (n) return p + n;
    struct glyph g = look(p, end);
    if (g.flags & letter) return skip(p, end, letter, true);
    if (g.flags & UC_NUMBER) return number_run(p, end, digits);
    return !is_newline(g.c) && (look(p + g.len, end).flags & letter) ? skip(p + g.len, end, letter, true) : NULL;
}

/* C|X?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|S */
static inline size_t words(const char *p, const char *end, int digits, unsigned letter, bool contract)
{
    const char *stop = word_or_number(p, end, digits, letter, contract);
    return (size_t)((stop ? stop : other_or_space(p, end, letter, false)) - p);
}

size_t pretok_llama3_words(const char *p, const char *end, const char **note) { return words(p, end, 3, UC_LETTER, true); }
size_t pretok_qwen2_words(const char *p, const char *end, const char **note) { return words(p, end, 1, UC_LETTER, true); }
size_t pretok_qwen35_words(const char *p, const char *end, const char **note) { return words(p, end, 1, UC_LETTER | UC_MARK, true); }
size_t pretok_ufakzeka_words(const char *p, const char *end, const char **note) { return words(p, end, 1, UC_LETTER, false); }
size_t pretok_minicpm5_words(const char *p, const char *end, const char **note) { return words(p, end, INT_MAX, UC_LETTER, true); }

/* ... ?[^\s\p{L}\p{N}\r\n]+|S   without the newlines after other characters */
size_t pretok_seed_coder_words(const char *p, const char *end, const char **note)
{
    const char *stop = word_or_number(p, end, 1, UC_LETTER, true);
    if (stop) return (size_t)(stop - p);
    enum { WORD = UC_LETTER | UC_NUMBER | UC_SPACE };
    const char *q = p + (*p == ' ');
    struct glyph g = look(q, end);
    return (size_t)((g.len && !(g.flags & WORD) ? skip(q, end, WORD, false) : space_run(p, end, true)) - p);
}

/* \s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)| ... |\s{4}(?!\S)|\s{1,2}(?!\S)|\s
 * A long run is cut into many pieces: *note is the end of the run once it is known to have no newline. */
static const char *halving_spaces(const char *p, const char *end, const char **note)
{
    enum { MOST = 512 };
    if (*note <= p) {
        const char *q = p, *after_newline = NULL;
        for (struct glyph g = look(q, end); g.flags & UC_SPACE; g = look(q, end)) {
            q += g.len;
            if (is_newline(g.c)) after_newline = q;
        }
        if (after_newline) return after_newline;
        *note = q;
    }
    int n = 0;
    for (const char *q = p; q < *note && n <= MOST; n++) q += look(q, end).len;
    if (*note < end) n--; /* the last one stands before something */
    int take = MOST;
    while (take > n && take > 1) take /= 2;
    for (; take > 0; take--) p += look(p, end).len;
    return p;
}

/* as llama3, with other spaces */
size_t pretok_jais2_words(const char *p, const char *end, const char **note)
{
    const char *stop = word_or_number(p, end, 3, UC_LETTER, true);
    if (stop) return (size_t)(stop - p);
    enum { WORD = UC_LETTER | UC_NUMBER | UC_SPACE };
    const char *q = p + (*p == ' ');
    struct glyph g = look(q, end);
    if (g.len && !(g.flags & WORD)) stop = skip_newlines(skip(q, end, WORD, false), end, false);
    else stop = halving_spaces(p, end, note);
    return (size_t)(stop - p);
}

/* (?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+   p is a letter */
static const char *word_group(const char *p, const char *end)
{
    for (;;) {
        p = skip(p + look(p, end).len, end, UC_MARK, true);
        const char *q = p;
        if (q < end && *q == ' ') q++;
        if (!(look(q, end).flags & UC_LETTER)) return p;
        p = q;
    }
}

/* C|X?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|S */
size_t pretok_exaone_moe_words(const char *p, const char *end, const char **note)
{
    size_t n = contraction(p, end, true);
    if (n) return n;
    enum { WORD = UC_LETTER | UC_NUMBER | UC_SPACE };
    struct glyph g = look(p, end);
    const char *stop, *q = p + (*p == ' ');
    if (g.flags & UC_LETTER) stop = word_group(p, end);
    else if (g.flags & UC_NUMBER) stop = p + g.len;
    else if (!is_newline(g.c) && (look(p + g.len, end).flags & UC_LETTER)) stop = word_group(p + g.len, end);
    else if (g = look(q, end), g.len && !(g.flags & WORD)) {
        stop = skip(q, end, WORD, false);
        if (stop < end && (is_newline((uint8_t)*stop) || *stop == '/')) stop++;
    } else {
        stop = space_run(p, end, true);
    }
    return (size_t)(stop - p);
}

/* ---- words of upper, then lower case ----
 * U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], W = [\p{Ll}\p{Lm}\p{Lo}\p{M}]: letters without case and marks are both. */

static inline bool is_upper(struct glyph g) { return (g.flags & (UC_LETTER | UC_MARK)) && !(g.flags & UC_LOWER); }
static inline bool is_lower(struct glyph g) { return (g.flags & (UC_LETTER | UC_MARK)) && !(g.flags & UC_UPPER); }

/* The end of U*W+ at p, NULL if it does not match. U* gives characters back until W+ can start. *upper: the end of U* alone. */
static const char *cased_word(const char *p, const char *end, const char **upper)
{
    const char *q = p, *back = NULL; /* back: after the last character of the U run that is a W as well */
    struct glyph g = look(q, end);
    for (; is_upper(g); g = look(q, end)) {
        q += g.len;
        if (is_lower(g)) back = q;
    }
    *upper = q;
    if (!is_lower(g)) return back;
    for (; is_lower(g); g = look(q, end)) q += g.len;
    return q;
}

/* X?U*W+C?|X?U+W*C?: a mark can be X, U or W. The first expression is tried with and without X before the second, of which W* is then empty.
 * NULL: no match. */
static const char *match_cased(const char *p, const char *end)
{
    struct glyph g = look(p, end);
    const char *upper = p, *first = p + (!(g.flags & (UC_LETTER | UC_NUMBER)) && !is_newline(g.c) ? g.len : 0);
    const char *stop = cased_word(first, end, &upper);
    if (stop) return stop;
    if (g.flags & UC_MARK) return cased_word(p, end, &upper);
    return upper > first ? upper : NULL;
}

/* X?U*W+C?|X?U+W*C?|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|S, C? only if `contract` */
static inline size_t cased_words(const char *p, const char *end, int digits, bool contract)
{
    if (look(p, end).flags & UC_NUMBER) return (size_t)(number_run(p, end, digits) - p);
    const char *stop = match_cased(p, end);
    if (!stop) return (size_t)(other_or_space(p, end, UC_LETTER, true) - p);
    return (size_t)(stop - p) + (contract ? contraction(stop, end, true) : 0);
}

size_t pretok_gpt4o_words(const char *p, const char *end, const char **note) { return cased_words(p, end, 3, true); }
size_t pretok_youtu_words(const char *p, const char *end, const char **note) { return cased_words(p, end, 1, true); }
size_t pretok_tekken_words(const char *p, const char *end, const char **note) { return cased_words(p, end, 1, false); }

/* ---- everything but a few signs ---- */

/*  ?[^(\s|.,!?…。，、।۔،)]+ */
static bool ends_bloom_word(struct glyph g)
{
    static const uint32_t signs[] = { '(', '|', '.', ',', '!', '?', ')', 0x2026, 0x3002, 0xff0c, 0x3001, 0x964, 0x6d4, 0x60c };
    if (g.len == 0 || (g.flags & UC_SPACE)) return true;
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++)
        if (g.c == signs[i]) return true;
    return false;
}

static const char *match_bloom_word(const char *p, const char *end)
{
    const char *q = p + (*p == ' ');
    struct glyph g = look(q, end);
    if (ends_bloom_word(g)) return NULL;
    for (; !ends_bloom_word(g); g = look(q, end)) q += g.len;
    return q;
}

size_t pretok_bloom_words(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_bloom_word); }

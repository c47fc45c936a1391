/* pretok_int - what the files of scanners share: looking at characters, runs, and the names of the stages. Only pretok*.c include it. */
#pragma once
#include "src/pretok.h"
#include "src/unicode.h"
#include <string.h>

/* ---- looking at characters ---- */

/* The character at p: c is its code point, or a value beyond Unicode at the end of the piece, where len and flags are 0. */
struct glyph {
    uint32_t c;
    unsigned flags;
    int len;
};
enum { GLYPH_END = 0x7fffffff };

static inline struct glyph look(const char *p, const char *end)
{
    struct glyph g = { .c = GLYPH_END };
    if (p == end) return g;
    g.c = (uint8_t)*p;
    g.len = 1;
    if (g.c >= 0x80) g.len = unicode_decode(p, (size_t)(end - p), &g.c);
    g.flags = unicode_flags(g.c);
    return g;
}

/* First character from p on of which (flags & mask) != 0 is not `in`. */
static inline const char *skip(const char *p, const char *end, unsigned mask, bool in)
{
    while (p < end) {
        struct glyph g = look(p, end);
        if (((g.flags & mask) != 0) != in) break;
        p += g.len;
    }
    return p;
}

static inline bool is_newline(uint32_t c) { return c == '\n' || c == '\r'; }
static inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
static inline bool is_ascii_letter(uint32_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

/* ---- pieces from a test of characters or from a match ---- */

/* [class]+: a run of characters of one class, or of none (0). */
typedef int (*pretok_class)(struct glyph g);
static inline size_t class_run(const char *p, const char *end, pretok_class class_of)
{
    struct glyph g = look(p, end);
    int first = class_of(g);
    const char *q = p;
    do {
        q += g.len;
        g = look(q, end);
    } while (q < end && class_of(g) == first);
    return (size_t)(q - p);
}

/* The end of a match at p, NULL if there is none. Must look at a bounded number of characters before it says NULL. */
typedef const char *(*pretok_match)(const char *p, const char *end);
static inline size_t match_or_gap(const char *p, const char *end, pretok_match match)
{
    const char *q = match(p, end);
    if (q) return (size_t)(q - p);
    q = p;
    do q += look(q, end).len;
    while (q < end && !match(q, end));
    return (size_t)(q - p);
}

/* ---- parts that several expressions have ---- */

/* [\r\n]* and, for `slash`, [\r\n/]* */
static inline const char *skip_newlines(const char *p, const char *end, bool slash)
{
    while (p < end && (is_newline((uint8_t)*p) || (slash && *p == '/'))) p++;
    return p;
}

/* Bytes of 's 't 're 've 'm 'll 'd at p, 0 if none stands there. any_case: (?i:...), where U+017F, the long s, is an s as well. */
static inline size_t contraction(const char *p, const char *end, bool any_case)
{
    if (end - p < 2 || *p != '\'') return 0;
    char fold = any_case ? 0x20 : 0, a = p[1] | fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (end - p < 3) return 0;
    if (any_case && !memcmp(p + 1, "\xc5\xbf", 2)) return 3;
    char b = p[2] | fold;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* A run of spaces at p: with `newlines` up to its last newline; else all of it if nothing follows; else all but its last character,
 * which is left to be the prefix of the next piece. A single space stays whole. p itself if no space stands there. */
static inline const char *space_run(const char *p, const char *end, bool newlines)
{
    const char *q = p, *last = p, *after_newline = NULL;
    while (q < end) {
        struct glyph g = look(q, end);
        if (!(g.flags & UC_SPACE)) break;
        last = q;
        q += g.len;
        if (is_newline(g.c)) after_newline = q;
    }
    if (newlines && after_newline) return after_newline;
    return q < end && last > p ? last : q;
}

/* Up to `digits` numbers. */
static inline const char *number_run(const char *p, const char *end, int digits)
{
    for (int i = 0; i < digits; i++) {
        struct glyph g = look(p, end);
        if (!(g.flags & UC_NUMBER)) break;
        p += g.len;
    }
    return p;
}

/* ` ?[^\s\p{L}\p{N}]+[\r\n]*|S`, where \p{L} is `letter`; p is neither letter nor number */
static inline const char *other_or_space(const char *p, const char *end, unsigned letter, bool slash)
{
    unsigned word = letter | UC_NUMBER | UC_SPACE;
    const char *q = p + (*p == ' ');
    struct glyph g = look(q, end);
    if (g.len && !(g.flags & word)) return skip_newlines(skip(q, end, word, false), end, slash);
    return space_run(p, end, true);
}

/* ---- stages ---- */

/* pretok_words.c */
size_t pretok_gpt2_words(const char *p, const char *end, const char **note);
size_t pretok_llama3_words(const char *p, const char *end, const char **note);
size_t pretok_qwen2_words(const char *p, const char *end, const char **note);
size_t pretok_qwen35_words(const char *p, const char *end, const char **note);
size_t pretok_ufakzeka_words(const char *p, const char *end, const char **note);
size_t pretok_minicpm5_words(const char *p, const char *end, const char **note);
size_t pretok_jais2_words(const char *p, const char *end, const char **note);
size_t pretok_seed_coder_words(const char *p, const char *end, const char **note);
size_t pretok_exaone_moe_words(const char *p, const char *end, const char **note);
size_t pretok_gpt4o_words(const char *p, const char *end, const char **note);
size_t pretok_tekken_words(const char *p, const char *end, const char **note);
size_t pretok_youtu_words(const char *p, const char *end, const char **note);
size_t pretok_bloom_words(const char *p, const char *end, const char **note);

/* pretok_parts.c */
size_t pretok_one_number(const char *p, const char *end, const char **note);
size_t pretok_three_numbers(const char *p, const char *end, const char **note);
size_t pretok_all_numbers(const char *p, const char *end, const char **note);
size_t pretok_three_digits(const char *p, const char *end, const char **note);
size_t pretok_grouped_numbers(const char *p, const char *end, const char **note);
size_t pretok_grouped_digits(const char *p, const char *end, const char **note);
size_t pretok_default_punctuation(const char *p, const char *end, const char **note);
size_t pretok_falcon_punctuation(const char *p, const char *end, const char **note);
size_t pretok_one_punctuation(const char *p, const char *end, const char **note);
size_t pretok_spaced_letters(const char *p, const char *end, const char **note);
size_t pretok_spaced_punctuation(const char *p, const char *end, const char **note);
size_t pretok_one_newline(const char *p, const char *end, const char **note);
size_t pretok_lines(const char *p, const char *end, const char **note);
size_t pretok_no_spaces(const char *p, const char *end, const char **note);
size_t pretok_last_spaces(const char *p, const char *end, const char **note);
size_t pretok_sentinels(const char *p, const char *end, const char **note);
size_t pretok_images(const char *p, const char *end, const char **note);
size_t pretok_tabs(const char *p, const char *end, const char **note);

/* pretok_cjk.c */
size_t pretok_cased_letters(const char *p, const char *end, const char **note);
size_t pretok_wide_punctuation(const char *p, const char *end, const char **note);
size_t pretok_old_cjk(const char *p, const char *end, const char **note);
size_t pretok_han_kana(const char *p, const char *end, const char **note);
size_t pretok_youtu_cjk(const char *p, const char *end, const char **note);
size_t pretok_afmoe_scripts(const char *p, const char *end, const char **note);
size_t pretok_deepseek3_words(const char *p, const char *end, const char **note);
size_t pretok_spark_words(const char *p, const char *end, const char **note);
size_t pretok_kimi_words(const char *p, const char *end, const char **note);

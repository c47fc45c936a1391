/* pretok_cjk - the stages that know scripts: DeepSeek, Hunyuan, Youtu, AFMoE, Kimi. Each stands under its regular expression.
 * Ranges are those of llama.cpp (src/llama-vocab.cpp, src/unicode.cpp); a space is in none of them, whatever its code point. */
#include "src/pretok_int.h"

struct range {
    uint32_t first, last;
};

/* Ascending, disjoint ranges. */
static bool in_ranges(const struct range *r, size_t n, uint32_t c)
{
    size_t lo = 0;
    while (n > 0) {
        size_t half = n / 2;
        if (r[lo + half].last < c) lo += half + 1, n -= half + 1;
        else n = half;
    }
    return c >= r[lo].first && c <= r[lo].last; /* the last row ends every search */
}
#define IN_RANGES(table, c) in_ranges(table, sizeof table / sizeof table[0] - 1, c)
/* clang-format off */
#define LAST_ROW { 0xffffffff, 0xffffffff }
/* clang-format on */

static bool within(uint32_t c, uint32_t first, uint32_t last) { return c >= first && c <= last; }

/* ---- DeepSeek LLM and Coder ---- */

/* The letters of scripts with two cases. */
/* clang-format off */
static const struct range cased_letters[] = {
    { 0x41, 0x5a }, { 0x61, 0x7a }, { 0xb5, 0xb5 }, { 0xc0, 0xd6 }, { 0xd8, 0xf6 }, { 0xf8, 0x1ba },
    { 0x1bc, 0x1bf }, { 0x1c4, 0x293 }, { 0x295, 0x2af }, { 0x370, 0x373 }, { 0x376, 0x377 }, { 0x37b, 0x37d },
    { 0x37f, 0x37f }, { 0x386, 0x386 }, { 0x388, 0x38a }, { 0x38c, 0x38c }, { 0x38e, 0x3a1 }, { 0x3a3, 0x3f5 },
    { 0x3f7, 0x481 }, { 0x48a, 0x52f }, { 0x531, 0x556 }, { 0x10a0, 0x10c5 }, { 0x13a0, 0x13f5 }, { 0x13f8, 0x13fd },
    { 0x1c90, 0x1cba }, { 0x1cbd, 0x1cbf }, { 0x1d00, 0x1d2b }, { 0x1d6b, 0x1d77 }, { 0x1d79, 0x1d9a }, { 0x1e00, 0x1f15 },
    { 0x1f18, 0x1f1d }, { 0x1f20, 0x1f45 }, { 0x1f48, 0x1f4d }, { 0x1f50, 0x1f57 }, { 0x1f59, 0x1f59 }, { 0x1f5b, 0x1f5b },
    { 0x1f5d, 0x1f5d }, { 0x1f5f, 0x1f7d }, { 0x1f80, 0x1fb4 }, { 0x1fb6, 0x1fbc }, { 0x1fbe, 0x1fbe }, { 0x1fc2, 0x1fc4 },
    { 0x1fc6, 0x1fcc }, { 0x1fd0, 0x1fd3 }, { 0x1fd6, 0x1fdb }, { 0x1fe0, 0x1fec }, { 0x1ff2, 0x1ff4 }, { 0x1ff6, 0x1ffc },
    { 0x2102, 0x2102 }, { 0x2107, 0x2107 }, { 0x210a, 0x2113 }, { 0x2115, 0x2115 }, { 0x2119, 0x211d }, { 0x2124, 0x2124 },
    { 0x2126, 0x2126 }, { 0x2128, 0x2128 }, { 0x212a, 0x212d }, { 0x212f, 0x2134 }, { 0x2139, 0x2139 }, { 0x213c, 0x213f },
    { 0x2145, 0x2149 }, { 0x214e, 0x214e }, { 0x2183, 0x2184 }, { 0x2c00, 0x2c7b }, { 0x2c7e, 0x2ce4 }, { 0x2ceb, 0x2cee },
    { 0x2cf2, 0x2cf3 }, { 0xa640, 0xa66d }, { 0xa680, 0xa69b }, { 0xa722, 0xa76f }, { 0xa771, 0xa787 }, { 0xa78b, 0xa78e },
    { 0xab70, 0xabbf }, { 0xfb00, 0xfb06 }, { 0xfb13, 0xfb17 }, { 0xff21, 0xff3a }, { 0xff41, 0xff5a }, { 0x10400, 0x1044f },
    { 0x104b0, 0x104d3 }, { 0x104d8, 0x104fb }, { 0x10c80, 0x10cb2 }, { 0x10cc0, 0x10cf2 }, { 0x118a0, 0x118df }, { 0x1e900, 0x1e943 },
    LAST_ROW,
};
/* clang-format on */

/* \s?[cased letters]+ */
static const char *match_cased_letters(const char *p, const char *end)
{
    struct glyph g = look(p, end);
    const char *q = p;
    if (g.flags & UC_SPACE) q += g.len, g = look(q, end);
    if (!IN_RANGES(cased_letters, g.c)) return NULL;
    for (; IN_RANGES(cased_letters, g.c); g = look(q, end)) q += g.len;
    return q;
}
size_t pretok_cased_letters(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_cased_letters); }

/* \s?[!-/:-~！-／：-～‘-‟　-。]+   the second range holds the ASCII letters too */
static bool is_wide_punctuation(uint32_t c)
{
    static const struct range table[] = {
        { '!', '/' }, { ':', '~' }, { 0x2018, 0x201f }, { 0x3001, 0x3002 }, { 0xff01, 0xff0f }, { 0xff1a, 0xff5e }, LAST_ROW,
    };
    return IN_RANGES(table, c);
}
static const char *match_wide_punctuation(const char *p, const char *end)
{
    struct glyph g = look(p, end);
    const char *q = p;
    if (g.flags & UC_SPACE) q += g.len, g = look(q, end);
    if (!is_wide_punctuation(g.c)) return NULL;
    for (; is_wide_punctuation(g.c); g = look(q, end)) q += g.len;
    return q;
}
size_t pretok_wide_punctuation(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_wide_punctuation); }

/* [一-龥ࠀ-一가-퟿]+ */
static int old_cjk(struct glyph g) { return !(g.flags & UC_SPACE) && (within(g.c, 0x800, 0x9fa5) || within(g.c, 0xac00, 0xd7ff)); }
size_t pretok_old_cjk(const char *p, const char *end, const char **note) { return class_run(p, end, old_cjk); }

/* ---- DeepSeek V3, Hunyuan, Spark ---- */

/* [一-龥぀-ゟ゠-ヿ]+ */
static int han_kana(struct glyph g) { return within(g.c, 0x4e00, 0x9fa5) || within(g.c, 0x3040, 0x30ff); }
size_t pretok_han_kana(const char *p, const char *end, const char **note) { return class_run(p, end, han_kana); }

/* [ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|S
 * and, without `newlines`,  ... | ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+ */
static inline const char *match_marked_word(const char *p, const char *end, bool newlines)
{
    enum { WORD = UC_LETTER | UC_MARK, SIGN = UC_PUNCT | UC_SYMBOL };
    struct glyph g = look(p, end), next = look(p + g.len, end);
    if (g.c < 0x80 && (g.flags & SIGN) && is_ascii_letter(next.c)) {
        const char *q = p + g.len;
        while (q < end && is_ascii_letter((uint8_t)*q)) q++;
        return q;
    }
    if (g.flags & WORD) return skip(p, end, WORD, true);
    if (!is_newline(g.c) && !(g.flags & SIGN) && (next.flags & WORD)) return skip(p + g.len, end, WORD, true);
    const char *q = g.c == ' ' ? p + 1 : p, *stop = skip(q, end, SIGN, true);
    if (stop > q) return newlines ? skip_newlines(stop, end, false) : stop;
    if (!newlines && is_newline(g.c)) return p + 1;
    stop = space_run(p, end, newlines);
    return stop > p ? stop : NULL;
}
static const char *match_deepseek3(const char *p, const char *end) { return match_marked_word(p, end, true); }
static const char *match_spark(const char *p, const char *end) { return match_marked_word(p, end, false); }
size_t pretok_deepseek3_words(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_deepseek3); }
size_t pretok_spark_words(const char *p, const char *end, const char **note) { return match_or_gap(p, end, match_spark); }

/* ---- Youtu ---- */

/* [가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+ */
static int youtu_cjk(struct glyph g)
{
    static const struct range signs[] = {
        { 0x2014, 0x2014 }, { 0x2018, 0x2019 }, { 0x201c, 0x201d }, { 0x2026, 0x2026 }, { 0x3001, 0x303f },
        { 0xfe30, 0xfe4f }, { 0xff01, 0xff01 }, { 0xff0c, 0xff0c }, { 0xff1a, 0xff1b }, LAST_ROW,
    };
    if (g.c < 0x2014) return 0;
    if (within(g.c, 0xac00, 0xd7a3) || within(g.c, 0x3131, 0x318e)) return 1;
    if (IN_RANGES(signs, g.c)) return 2;
    if (within(g.c, 0x3105, 0x312f)) return 3;
    return han_kana(g) ? 4 : 0;
}
size_t pretok_youtu_cjk(const char *p, const char *end, const char **note) { return class_run(p, end, youtu_cjk); }

/* ---- AFMoE ---- */

/* [一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+
 * The third range was meant to begin at U+F900 and begins at U+8C48. */
static int afmoe_scripts(struct glyph g)
{
    static const struct range table[] = {
        { 0xe40, 0xeff },   { 0x1000, 0x109f }, { 0x1100, 0x11ff }, { 0x1780, 0x17ff }, { 0x2f00, 0x2fdf },
        { 0x3040, 0x30ff }, { 0x3400, 0x4dbf }, { 0x4e00, 0xfaff }, { 0xff65, 0xff9f }, LAST_ROW,
    };
    return IN_RANGES(table, g.c);
}
size_t pretok_afmoe_scripts(const char *p, const char *end, const char **note) { return class_run(p, end, afmoe_scripts); }

/* ---- Kimi ---- */

static bool is_han(uint32_t c)
{
    static const struct range table[] = {
        { 0x3400, 0x4dbf },   { 0x4e00, 0x9fff },   { 0xf900, 0xfaff }, { 0x20000, 0x2a6df },
        { 0x2a700, 0x2ebef }, { 0x2f800, 0x2fa1f }, LAST_ROW,
    };
    return c >= 0x3400 && IN_RANGES(table, c);
}

/* [\p{Han}]+|X?[\p{L}&&[^\p{Han}]]+C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|S: cases and marks are not told apart, as in llama.cpp */
size_t pretok_kimi_words(const char *p, const char *end, const char **note)
{
    struct glyph g = look(p, end);
    const char *q = p;
    if (is_han(g.c)) {
        for (; is_han(g.c); g = look(q, end)) q += g.len;
        return (size_t)(q - p);
    }
    if (g.flags & UC_NUMBER) return (size_t)(number_run(p, end, 3) - p);
    if (!(g.flags & UC_LETTER) && !is_newline(g.c)) q += g.len, g = look(q, end);
    if (!(g.flags & UC_LETTER) || is_han(g.c)) return (size_t)(other_or_space(p, end, UC_LETTER, false) - p);
    for (; (g.flags & UC_LETTER) && !is_han(g.c); g = look(q, end)) q += g.len;
    return (size_t)(q - p) + contraction(q, end, true);
}

/* pretok - see pretok.h. Every scanner stands under the regular expression it follows. In all of them
 *   C = (?i:'s|'t|'re|'ve|'m|'ll|'d)      S = \s*[\r\n]+|\s+(?!\S)|\s+
 * "Other" is what is neither space, letter nor number. The expressions are those of llama.cpp (src/llama-vocab.cpp), whose \p classes
 * are those of unicode.h; where it only approximates a model's own expression, the approximation is followed. */
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

/* [\r\n]* and, for `slash`, [\r\n/]* */
static inline const char *skip_newlines(const char *p, const char *end, bool slash)
{
    while (p < end && (is_newline((uint8_t)*p) || (slash && *p == '/'))) p++;
    return p;
}

/* Bytes of 's 't 're 've 'm 'll 'd at p, 0 if none stands there. */
static inline size_t contraction(const char *p, const char *end, bool any_case)
{
    if (end - p < 2 || *p != '\'') return 0;
    char fold = any_case ? 0x20 : 0, a = p[1] | fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (end - p < 3) return 0;
    char b = p[2] | fold;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* A run of spaces at p: with `newlines` up to its last newline; else all of it if nothing follows; else all but its last character,
 * which is left to be the prefix of the next piece. A single space stays whole. */
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

/* ---- scanners ---- */

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)   what is left over stands alone */
static size_t gpt2_words(const char *p, const char *end)
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

/* C|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|S   \p{L} is `letter`; C only if `contract` */
static inline size_t words(const char *p, const char *end, int digits, unsigned letter, bool contract)
{
    size_t n = contract ? contraction(p, end, true) : 0;
    if (n) return n;
    struct glyph g = look(p, end);
    const char *stop;
    if (g.flags & letter) stop = skip(p, end, letter, true);
    else if (g.flags & UC_NUMBER) stop = number_run(p, end, digits);
    else if (!is_newline(g.c) && (look(p + g.len, end).flags & letter)) stop = skip(p + g.len, end, letter, true);
    else stop = other_or_space(p, end, letter, false);
    return (size_t)(stop - p);
}

static size_t llama3_words(const char *p, const char *end) { return words(p, end, 3, UC_LETTER, true); }
static size_t qwen2_words(const char *p, const char *end) { return words(p, end, 1, UC_LETTER, true); }
static size_t qwen35_words(const char *p, const char *end) { return words(p, end, 1, UC_LETTER | UC_MARK, true); }
static size_t ufakzeka_words(const char *p, const char *end) { return words(p, end, 1, UC_LETTER, false); }

/* Words of upper then lower case: U is a letter that is not a-z, W one that is not A-Z.
 *   U*W+ if that matches at p, else U+W*.  U* gives characters back until W+ can start. p is a letter. */
static const char *cased_word(const char *p, const char *end)
{
    const char *q = p, *back = NULL; /* back: after the last character of the U run that is a W as well */
    struct glyph g = look(q, end);
    for (; (g.flags & UC_LETTER) && !(g.c >= 'a' && g.c <= 'z'); g = look(q, end)) {
        q += g.len;
        if (!(g.c >= 'A' && g.c <= 'Z')) back = q;
    }
    if (!(g.flags & UC_LETTER)) return back ? back : q;
    for (; (g.flags & UC_LETTER) && !(g.c >= 'A' && g.c <= 'Z'); g = look(q, end)) q += g.len;
    return q;
}

/* X?U*W+C?|X?U+W*C?|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|S   with X = [^\r\n\p{L}\p{N}]; C? only if `contract` */
static inline size_t cased_words(const char *p, const char *end, int digits, bool contract)
{
    struct glyph g = look(p, end);
    const char *stop, *first = p;
    if (g.flags & UC_NUMBER) return (size_t)(number_run(p, end, digits) - p);
    if (!(g.flags & UC_LETTER) && !is_newline(g.c)) first += g.len;
    if (look(first, end).flags & UC_LETTER) {
        stop = cased_word(first, end);
        if (contract) stop += contraction(stop, end, true);
    } else {
        stop = other_or_space(p, end, UC_LETTER, true);
    }
    return (size_t)(stop - p);
}

static size_t gpt4o_words(const char *p, const char *end) { return cased_words(p, end, 3, true); }
static size_t tekken_words(const char *p, const char *end) { return cased_words(p, end, 1, false); }

/* \p{N} and, in the second, \p{N}+ */
static size_t one_number(const char *p, const char *end)
{
    struct glyph g = look(p, end);
    return g.flags & UC_NUMBER ? (size_t)g.len : (size_t)(skip(p, end, UC_NUMBER, false) - p);
}
static size_t all_numbers(const char *p, const char *end) { return (size_t)(skip(p, end, UC_NUMBER, look(p, end).flags & UC_NUMBER) - p); }

/* [0-9][0-9][0-9] */
static size_t three_digits(const char *p, const char *end)
{
    int run = 0;
    for (const char *q = p; q < end; q++) {
        run = *q >= '0' && *q <= '9' ? run + 1 : 0;
        if (run == 3) return q - p == 2 ? 3 : (size_t)(q - p - 2);
    }
    return (size_t)(end - p);
}

/* [\p{P}$+<=>^~|]+ and, with `tick`, [\p{P}$+<=>^~|`]+ */
static inline size_t punctuation(const char *p, const char *end, bool tick)
{
    bool first = false;
    const char *q = p;
    while (q < end) {
        struct glyph g = look(q, end);
        bool in = (g.flags & UC_PUNCT) || (g.c < 0x80 && (g.flags & UC_SYMBOL) && (tick || g.c != '`'));
        if (q == p) first = in;
        if (in != first) break;
        q += g.len;
    }
    return (size_t)(q - p);
}
static size_t default_punctuation(const char *p, const char *end) { return punctuation(p, end, false); }
static size_t falcon_punctuation(const char *p, const char *end) { return punctuation(p, end, true); }

/* ---- the table ---- */

static const pretok_stage stages_default[] = { default_punctuation, gpt2_words, all_numbers, three_digits, NULL };
static const pretok_stage stages_falcon[] = { falcon_punctuation, gpt2_words, three_digits, NULL };
static const pretok_stage stages_gpt2[] = { gpt2_words, NULL };
static const pretok_stage stages_starcoder[] = { one_number, gpt2_words, NULL };
static const pretok_stage stages_llama3[] = { llama3_words, NULL };
static const pretok_stage stages_qwen2[] = { qwen2_words, NULL };
static const pretok_stage stages_qwen35[] = { qwen35_words, NULL };
static const pretok_stage stages_ufakzeka[] = { ufakzeka_words, NULL };
static const pretok_stage stages_gpt4o[] = { gpt4o_words, NULL };
static const pretok_stage stages_tekken[] = { tekken_words, NULL };

enum { WHOLE_BOS = PRETOK_WHOLE_WORDS | PRETOK_ADDS_BOS };

static const struct pretok rows[] = {
    { "default", stages_default, 0 },
    { "falcon", stages_falcon, 0 },

    { "gpt-2", stages_gpt2, 0 },
    { "phi-2", stages_gpt2, 0 },
    { "mpt", stages_gpt2, 0 },
    { "olmo", stages_gpt2, 0 },
    { "jais", stages_gpt2, 0 },
    { "exaone4", stages_gpt2, 0 },
    { "trillion", stages_gpt2, 0 },
    { "granite-docling", stages_gpt2, 0 },
    { "gigachat", stages_gpt2, 0 },
    { "a.x-4.0", stages_gpt2, 0 },
    { "mellum", stages_gpt2, 0 },
    { "modern-bert", stages_gpt2, 0 },
    { "roberta-bpe", stages_gpt2, 0 },
    { "jina-es", stages_gpt2, 0 },
    { "jina-de", stages_gpt2, 0 },
    { "jina-v1-en", stages_gpt2, 0 },
    { "jina-v2-es", stages_gpt2, 0 },
    { "jina-v2-de", stages_gpt2, 0 },
    { "jina-v2-code", stages_gpt2, 0 },

    { "smollm", stages_starcoder, 0 },
    { "starcoder", stages_starcoder, 0 },
    { "refact", stages_starcoder, 0 },
    { "command-r", stages_starcoder, 0 },
    { "codeshell", stages_starcoder, 0 },
    { "exaone", stages_starcoder, 0 },
    { "minerva-7b", stages_starcoder, 0 },
    { "mellum2", stages_starcoder, 0 },

    { "llama-bpe", stages_llama3, WHOLE_BOS },
    { "llama3", stages_llama3, WHOLE_BOS },
    { "llama-v3", stages_llama3, WHOLE_BOS },
    { "falcon3", stages_llama3, WHOLE_BOS },
    { "falcon-h1", stages_llama3, WHOLE_BOS },
    { "pixtral", stages_llama3, WHOLE_BOS },
    { "lfm2", stages_llama3, WHOLE_BOS },
    { "midm-2.0", stages_llama3, WHOLE_BOS },
    { "jina-v5-nano", stages_llama3, WHOLE_BOS },
    { "dbrx", stages_llama3, 0 },
    { "smaug-bpe", stages_llama3, 0 },
    { "chatglm-bpe", stages_llama3, 0 },
    { "glm4", stages_llama3, 0 },

    { "qwen2", stages_qwen2, 0 },
    { "deepseek-r1-qwen", stages_qwen2, 0 },
    { "stablelm2", stages_qwen2, 0 },
    { "hunyuan", stages_qwen2, 0 },
    { "megrez", stages_qwen2, 0 },
    { "kormo", stages_qwen2, 0 },
    { "f2llmv2", stages_qwen2, 0 },
    { "grok-2", stages_qwen2, 0 },
    { "solar-open", stages_qwen2, 0 },
    { "qwen35", stages_qwen35, 0 },
    { "ufakzeka", stages_ufakzeka, 0 },

    { "gpt-4o", stages_gpt4o, 0 },
    { "llama4", stages_gpt4o, 0 },
    { "kanana2", stages_gpt4o, 0 },
    { "talkie", stages_gpt4o, 0 },
    { "minimax-m2", stages_gpt4o, 0 },
    { "tekken", stages_tekken, WHOLE_BOS },
};

const struct pretok *pretok_at(int i) { return i >= 0 && (size_t)i < sizeof rows / sizeof rows[0] ? &rows[i] : NULL; }

const struct pretok *pretok_find(const char *name, size_t n)
{
    for (int i = 0; pretok_at(i); i++)
        if (strlen(rows[i].name) == n && !memcmp(rows[i].name, name, n)) return &rows[i];
    return NULL;
}

void pretok_start(struct pretok_cursor *c, const struct pretok *row, const char *text, size_t n)
{
    *c = (struct pretok_cursor){ .stages = row->stages, .p = text };
    for (int i = 0; i < PRETOK_STAGES; i++) c->end[i] = text;
    c->end[0] = text + n;
}

size_t pretok_next(struct pretok_cursor *c)
{
    if (c->p == c->end[0]) return 0;
    const char *p = c->p;
    int i = 0;
    for (; c->stages[i + 1]; i++)
        if (p == c->end[i + 1]) c->end[i + 1] = p + c->stages[i](p, c->end[i]);
    size_t n = c->stages[i](p, c->end[i]);
    c->p = p + n;
    return n;
}

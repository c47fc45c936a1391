/* convert_tok_pre - the name that llama.cpp gives to a pre-tokenizer (tokenizer.ggml.pre), from its definition in tokenizer.json. llama.cpp's
 * converter recognises a vocabulary by a hash of the ids of one test text; here the definition itself is compared, so a new vocabulary with known rules
 * is recognised too. Steps are first written in one form, because files spell the same rule in several ways. */
#include "src/convert_tok_int.h"
#include <stdio.h>

enum { RULES_MAX = CONV_RULES_MAX };

/* ---- one form ----
 * A rule is the regular expression whose matches stand alone. (C) stands for the English contractions in any case. */

/* Each pair matches the same pieces in every expression below: possessive quantifiers before what the class excludes, one character of white
 * space before a newline instead of all. */
static const struct { const char *from, *to; } spellings[] = {
    { "\r", "\\r" },
    { "\n", "\\n" },
    { "\t", "\\t" },
    { "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(C)" },
    { "'(?i:[sdmt]|ll|ve|re)", "(C)" },
    { "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "(C)" },
    { "?+\\p{L}", "?\\p{L}" },
    { "++[\\r\\n]", "+[\\r\\n]" },
    { "++|", "+|" },
    { "*+|", "*|" },
    { "{1,3}+|", "{1,3}|" },
    { "\\s*[\\r\\n]|", "\\s*[\\r\\n]+|" },
    { "\\p{N}{1}|", "\\p{N}|" },
};

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TAIL " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES
#define WORDS(digits) "(C)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "|" TAIL
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(contraction, digits)                                                                                                   \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" contraction "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" contraction "|" digits        \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
#define ASCII_PUNCT "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
#define MARKED ASCII_PUNCT "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+"
#define KANJI "[一-龥぀-ゟ゠-ヿ]+"
#define CJK "[一-龥ࠀ-一가-퟿]+"
/* Letters with case, as DeepSeek LLM's expression lists them. */
static const char cased_letters[] =
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ"
    "-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ"
    "-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇ"
    "Ꞌ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";

/* ignore_merges: 0 or 1 as in the file; -1: the name is right for both. The expressions are those of published tokenizer.json files; of several names
 * with the same rules one is chosen. */
static const struct {
    const char *name;
    int ignore_merges;
    const char *rule[RULES_MAX];
} rows[] = {
    { "gpt-2", -1, { GPT2 } },
    { "smollm", -1, { "\\p{N}", GPT2 } },
    { "falcon", -1, { "punctuation+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" } },
    { "falcon", -1, { "punctuation+", GPT2, "[0-9][0-9][0-9]" } },
    { "llama-bpe", 1, { WORDS("\\p{N}{1,3}") } },
    { "dbrx", 0, { WORDS("\\p{N}{1,3}") } },
    { "minicpm5", -1, { "\\p{N}{1,3}", WORDS("\\p{N}+") } },
    { "qwen2", -1, { WORDS("\\p{N}") } },
    { "qwen35", -1, { "(C)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES } },
    { "ufakzeka", -1, { "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" TAIL } },
    { "laguna", -1, { "[^\\n]+|[\\n]+", WORDS("\\p{N}") } },
    { "seed-coder", -1, { "(C)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES } },
    { "exaone-moe", -1, { "(C)|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|" SPACES } },
    { "jais-2", -1, { "(C)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|"
                      "\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}" } },
    { "gpt-4o", -1, { CASED("(C)?", "\\p{N}{1,3}") } },
    { "tiny_aya", -1, { "\\d{1,3}(?=(?:\\d{3})*\\b)", CASED("(C)?", "\\p{N}{1,3}") } },
    { "tekken", -1, { CASED("", "\\p{N}") } },
    { "youtu", -1, { "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、　-〿︰-﹏]+|[ㄅ-ㄯ]+|" KANJI, CASED("(C)?", "\\p{N}") } },
    { "deepseek-llm", -1, { "[\\r\\n]", cased_letters, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", CJK, "\\p{N}" } },
    { "deepseek-llm", -1, { "[\\r\\n]", cased_letters, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", CJK, "\\p{N}+" } },
    { "deepseek-coder", -1, { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}" } },
    { "deepseek-v3", -1, { "\\p{N}{1,3}", KANJI, MARKED "[\\r\\n]*|" SPACES } },
    { "spark2_5", -1, { "\\p{N}{1,3}", KANJI, MARKED "|[\\r\\n]|\\s+(?!\\S)|\\s+", "\\p{N}" } },
    { "bloom", -1, { " ?[^(\\s|[.,!?…。，、।۔،])]+" } },
    { "bloom", -1, { " ?[^(\\s|.,!?…。，、।۔،)]+" } },
    { "viking", -1, { " ?[^(\\s|[.,!?…。，、।۔،])]+", "\\p{N}" } },
    { "viking", -1, { " ?[^(\\s|.,!?…。，、।۔،)]+", "\\p{N}" } },
    { "superbpe", -1, { "\\p{N}+", "(?=(\\d{3})+(?!\\d))" } },
};

/* ---- reading the definition ---- */

struct rules {
    struct conv *c;
    const char *file;
    const char *rule[RULES_MAX]; /* in the arena */
    int n;
    struct err *e;
};

/* The text with the first spelling that stands at each place replaced; runs of all spellings one after the other. */
static char *replace_all(struct arena *a, const char *text, const char *from, const char *to)
{
    size_t n = strlen(from), m = strlen(to), count = 0;
    for (const char *p = strstr(text, from); p; p = strstr(p + n, from)) count++;
    char *out = arena_alloc(a, strlen(text) + count * m + 1), *at = out;
    if (!out) return NULL;
    for (const char *p = strstr(text, from); p; text = p + n, p = strstr(text, from)) {
        memcpy(at, text, (size_t)(p - text));
        at += p - text;
        memcpy(at, to, m);
        at += m;
    }
    memcpy(at, text, strlen(text) + 1);
    return out;
}

static status add_rule(struct rules *r, struct str text)
{
    if (r->n == RULES_MAX) return err_set(r->e, ERR_FORMAT, "%s: the pre-tokenizer has more than %d steps", r->file, RULES_MAX);
    if (text.n > 4096) return err_set(r->e, ERR_FORMAT, "%s: an expression of the pre-tokenizer has %zu bytes, at most 4096", r->file, text.n);
    const char *s = arena_strdup(&r->c->mem, text.p, text.n);
    for (int i = 0; s && i < ARRAY_LEN(spellings); i++)
        if (strstr(s, spellings[i].from)) s = replace_all(&r->c->mem, s, spellings[i].from, spellings[i].to);
    if (!s) return err_oom(r->e, r->file, text.n);
    r->rule[r->n++] = s;
    return OK;
}

static bool has_text(const struct json *j, const char *key, const char *text)
{
    const struct json *t = get_kind(j, key, JSON_STR);
    return t && str_is(json_str(t), text);
}

/* Isolated: matches and what is between them. Removed with invert: matches only, which is the same where the expression matches everything. */
static status add_split(struct rules *r, const struct json *step)
{
    const struct json *pattern = json_get(step, "pattern"), *regex = get_kind(pattern, "Regex", JSON_STR);
    bool isolated = has_text(step, "behavior", "Isolated") || (has_text(step, "behavior", "Removed") && get_int(step, "invert", 0));
    if (regex && isolated) return add_rule(r, json_str(regex));
    const struct json *behavior = get_kind(step, "behavior", JSON_STR), *text = get_kind(pattern, "String", JSON_STR);
    char other[120];
    snprintf(other, sizeof other, "Split %.20s %.60s", behavior ? behavior->str : "?", regex ? regex->str : text ? text->str : "?");
    return add_rule(r, str_of(other));
}

static status add_step(struct rules *r, const struct json *step)
{
    if (type_is(step, "Split")) return add_split(r, step);
    if (type_is(step, "ByteLevel")) return get_int(step, "use_regex", 1) ? add_rule(r, str_of(GPT2)) : OK;
    if (type_is(step, "Digits")) return add_rule(r, str_of(get_int(step, "individual_digits", 0) ? "\\p{N}" : "\\p{N}+"));
    if (type_is(step, "Punctuation")) return add_rule(r, str_of(has_text(step, "behavior", "Contiguous") ? "punctuation+" : "punctuation"));
    const struct json *type = get_kind(step, "type", JSON_STR);
    return add_rule(r, type ? json_str(type) : str_of("?"));
}

/* Sequences in sequences: the JSON reader's depth ends the recursion. */
static status add_steps(struct rules *r, const struct json *j)
{
    const struct json *items = get_kind(j, "pretokenizers", JSON_ARR);
    if (!items || !type_is(j, "Sequence")) return j && j->kind == JSON_OBJ ? add_step(r, j) : OK;
    for (const struct json *i = items->child; i; i = i->next) TRY(add_steps(r, i));
    return OK;
}

/* ---- comparing ---- */

static bool same_rules(const struct rules *r, const char *const *rule)
{
    for (int i = 0; i < r->n; i++)
        if (!rule[i] || strcmp(rule[i], r->rule[i])) return false;
    return r->n == RULES_MAX || !rule[r->n];
}

static status find_row(struct rules *r, bool ignore_merges)
{
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        if (!same_rules(r, rows[i].rule) || (rows[i].ignore_merges >= 0 && rows[i].ignore_merges != ignore_merges)) continue;
        r->c->pre = rows[i].name;
        return OK;
    }
    char text[200] = "no rules";
    size_t at = 0;
    for (int i = 0; i < r->n && at < sizeof text; i++) at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", i ? " then " : "", r->rule[i]);
    return err_set(r->e, ERR_FORMAT, "%s: unknown pre-tokenizer (--pre NAME chooses one): %s", r->file, text);
}

status conv_find_pre(struct conv *c, const char *file, const struct json *pre, bool ignore_merges, struct err *e)
{
    struct rules r = { .c = c, .file = file, .e = e };
    if (c->o->pre) {
        c->pre = c->o->pre;
        return OK;
    }
    TRY(add_steps(&r, pre));
    return find_row(&r, ignore_merges);
}

status conv_find_pre_regex(struct conv *c, const char *file, struct str regex, struct err *e)
{
    struct rules r = { .c = c, .file = file, .e = e };
    if (c->o->pre) {
        c->pre = c->o->pre;
        return OK;
    }
    TRY(add_rule(&r, regex));
    return find_row(&r, true);
}

const char *const *conv_pre_rules(const char *name)
{
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (!strcmp(rows[i].name, name)) return rows[i].rule;
    return NULL;
}

/* grammar, token_trie: texts that fit and that do not, tokens against bytes, limits. tests/oracle/grammars.py compares masks with llama.cpp's. */
#include "src/grammar.h"
#include "tests/test.h"

/* ---- vocabularies ---- */

/* 256 single bytes, then some pieces, then one end token. */
static const char *const pieces[] = {
    "{\"", "\":", "\",", "null", "true", "  ", "\n", "ab", "abc", "abcd", "ba", "\xC3\xA9\xC3", "\xE2\x82\xAC", "\x9F\x98\x80", "\xF0\x9F", "\"\xE2\x82",
    "a", "ab", "10", "123456", "]}", "", "<tool>", "e", "\xA9",
};
enum { N_PIECES = ARRAY_LEN(pieces), N_TOKENS = 256 + N_PIECES + 1, END = N_TOKENS - 1 };

static struct token_trie *make_trie(void)
{
    static char bytes[256];
    struct token_text text[N_TOKENS] = { 0 };
    struct token_trie *t = NULL;
    for (int i = 0; i < 256; i++) bytes[i] = (char)i, text[i] = (struct token_text){ &bytes[i], 1, false };
    for (int i = 0; i < N_PIECES; i++) text[256 + i] = (struct token_text){ pieces[i], (uint32_t)strlen(pieces[i]), false };
    text[END] = (struct token_text){ "</s>", 4, true };
    CHECK(token_trie_of(&t, text, N_TOKENS, NULL) == OK);
    return t;
}

static const char *piece_of(int32_t id, size_t *n)
{
    static char one[1];
    if (id >= 256) return *n = id == END ? 0 : strlen(pieces[id - 256]), pieces[(id - 256) % N_PIECES];
    one[0] = (char)id;
    *n = 1;
    return one;
}

static struct grammar *must_parse(const char *text)
{
    struct grammar *g = NULL;
    struct err e = { 0 };
    CHECK_MSG(grammar_parse(&g, text, strlen(text), "g", NULL, &e) == OK, "%s in: %s", e.text, text);
    return g;
}

static struct matcher *must_match(const struct grammar *g, const struct token_trie *t)
{
    struct matcher *m = NULL;
    struct err e = { 0 };
    CHECK_MSG(matcher_open(&m, g, t, &e) == OK, "%s", e.text);
    return m;
}

/* ---- language ---- */

enum fit { NO, OPEN, WHOLE, LAST }; /* refused; may go on; may end or go on; must end */

static enum fit fit_of(struct matcher *m, const char *text, size_t n)
{
    bool yes;
    matcher_reset(m);
    for (size_t i = 0; i < n; i++) {
        CHECK(matcher_text(m, text + i, 1, &yes, NULL) == OK);
        if (!yes) return NO;
    }
    return matcher_must_end(m) ? LAST : matcher_can_end(m) ? WHOLE : OPEN;
}

static const struct { const char *grammar, *text; enum fit fit; } language[] = {
    { "root ::= \"ab\"", "", OPEN }, { "root ::= \"ab\"", "a", OPEN }, { "root ::= \"ab\"", "ab", LAST }, { "root ::= \"ab\"", "abc", NO },
    { "root ::= \"\"", "", LAST }, { "root ::= \"\" | \"a\"", "", WHOLE },
    { "root ::= \"a\" | \"b\" \"c\"", "bc", LAST }, { "root ::= \"a\" |\n \"b\"  # comment\n\n# more\n", "b", LAST },
    { "root ::= [a-c]", "b", LAST }, { "root ::= [a-c]", "d", NO }, { "root ::= [^a-c]", "d", LAST }, { "root ::= [^a-c]", "b", NO },
    { "root ::= [^\\n\"]", "\n", NO }, { "root ::= [-a]", "-", LAST }, { "root ::= [a-]", "-", LAST }, { "root ::= [\\]\\[]", "]", LAST },
    { "root ::= [\\x41-\\u0043]+", "ABC", WHOLE }, { "root ::= \"\\x41\\u00e9\\U0001F600\"", "A\xC3\xA9\xF0\x9F\x98\x80", LAST },
    { "root ::= \"\\t\\r\\n\\\\\\\"\"", "\t\r\n\\\"", LAST }, { "root ::= \"caf\xC3\xA9\"", "caf\xC3\xA9", LAST },
    { "root ::= .", "\xE2\x82\xAC", LAST }, { "root ::= .", "\n", LAST }, { "root ::= .", "\xE2\x82", OPEN },
    { "root ::= .", "\xED\xA0\x80", NO }, { "root ::= .", "\xC0\x80", NO }, { "root ::= .", "\xE0\x80\x80", NO }, { "root ::= .", "\xF4\x90\x80\x80", NO },
    { "root ::= .", "\xFF", NO }, { "root ::= .", "\x80", NO }, { "root ::= .", "\xF4\x8F\xBF\xBF", LAST }, { "root ::= [^a]", "\xEE\x80\x80", LAST },
    { "root ::= [\xC3\xA0-\xC3\xA9]", "\xC3\xA5", LAST }, { "root ::= [\xC3\xA0-\xC3\xA9]", "\xC3\xAA", NO }, { "root ::= [^\xC3\xA9]", "\xC3\xA9", NO },
    { "root ::= [^\xC3\xA9]", "\xC3\xA8", LAST }, { "root ::= [\\u0300-\\u20ab]", "\xE2\x82\xAB", LAST },
    { "root ::= [\\u0300-\\u20ab]", "\xE2\x82\xAC", NO },
    { "root ::= \"a\"*", "", WHOLE }, { "root ::= \"a\"*", "aaaa", WHOLE }, { "root ::= \"a\"+", "", OPEN }, { "root ::= \"a\"+", "aa", WHOLE },
    { "root ::= \"a\"? \"b\"", "b", LAST }, { "root ::= \"ab\"?", "ab", LAST }, { "root ::= (\"a\" | \"b\")* \"c\"", "abbac", LAST },
    { "root ::= \"a\"{3}", "aa", OPEN }, { "root ::= \"a\"{3}", "aaa", LAST }, { "root ::= \"a\"{2,}", "aaaaa", WHOLE }, { "root ::= \"a\"{2,}", "a", OPEN },
    { "root ::= \"a\"{1,3}", "aaaa", NO }, { "root ::= \"a\"{1,3}", "aaa", LAST },
    { "root ::= \"a\"{0,0} \"b\"", "b", LAST }, { "root ::= \"a\"{0}", "", LAST },
    { "root ::= (\"ab\" | \"a\"){2}", "aba", WHOLE }, { "root ::= (\"ab\" | \"a\"){2}", "abab", LAST },
    { "root ::= (\"a\"?){3} \"b\"", "b", LAST }, { "root ::= (\"a\"?){3} \"b\"", "aab", LAST }, { "root ::= (\"a\"?){3} \"b\"", "aaaab", NO },
    { "root ::= ((\"a\"*)*)* \"b\"", "aaab", LAST }, { "root ::= (\"a\"*)+", "", WHOLE },
    { "root ::= (\"a\"{2}){2}", "aaaa", LAST }, { "root ::= \"a\"?{2}", "aa", LAST },
    { "root ::= x y\nx ::= \"a\" x | \"\"\ny ::= \"b\"", "aaab", LAST }, { "root ::= \"(\" root \")\" | \"x\"", "((x))", LAST },
    { "root ::= \"(\" root \")\" | \"x\"", "((x)", OPEN }, { "root ::= \"(\" root \")\" | \"x\"", "((x)))", NO },
    { "root ::= (\n\"a\"\n|\n\"b\"\n)\nother-1 ::= \"z\"", "b", LAST }, { "root ::= []", "a", NO }, { "root ::= \"a\" [] | \"ab\"", "ab", LAST },
};

TEST(grammar_accepts_exactly_its_language)
{
    struct token_trie *t = make_trie();
    for (int i = 0; i < ARRAY_LEN(language); i++) {
        struct grammar *g = must_parse(language[i].grammar);
        struct matcher *m = must_match(g, t);
        enum fit fit = fit_of(m, language[i].text, strlen(language[i].text));
        CHECK_MSG(fit == language[i].fit, "%s with \"%s\": %d, not %d", language[i].grammar, language[i].text, fit, language[i].fit);
        matcher_close(m);
        grammar_close(g);
    }
    token_trie_close(t);
}

static const char json_text[] =
    "root ::= object\n"
    "value ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
    "object ::= \"{\" ws ( string \":\" ws value (\",\" ws string \":\" ws value)* )? \"}\" ws\n"
    "array ::= \"[\" ws ( value (\",\" ws value)* )? \"]\" ws\n"
    "string ::= \"\\\"\" ( [^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" [0-9a-fA-F]{4}) )* \"\\\"\" ws\n"
    "number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws\n"
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";

TEST(grammar_of_json_takes_json_only)
{
    static const struct { const char *text; enum fit fit; } rows[] = {
        { "{}", WHOLE }, { "{\"a\": [1, -2.5e3, true, null, \"x\\n\\u00e9\xC3\xA9\"], \"b\": {}}", WHOLE },
        { "{\"a\": ", OPEN }, { "{\"a\" 1}", NO }, { "[1]", NO },
        { "{\"a\": \"\n\"}", NO }, { "{\"a\": tru}", NO }, { "{\"a\": 1,}", NO }, { "{\"a\": 01", NO }, { "{\"\xFF", NO },
    };
    struct token_trie *t = make_trie();
    struct grammar *g = must_parse(json_text);
    struct matcher *m = must_match(g, t);
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        enum fit fit = fit_of(m, rows[i].text, strlen(rows[i].text));
        CHECK_MSG(fit == rows[i].fit, "%s: %d, not %d", rows[i].text, fit, rows[i].fit);
    }
    matcher_close(m), grammar_close(g), token_trie_close(t);
}

/* ---- tokens ---- */

/* In states along random walks: mask, matcher_allows and feeding the bytes agree, for every token; accept and bytes reach the same state. */
static void check_walk(const char *text, uint64_t seed, int steps)
{
    struct token_trie *t = make_trie();
    struct grammar *g = must_parse(text);
    struct matcher *m = must_match(g, t), *by_bytes = must_match(g, t);
    for (int i = 0; i < steps; i++) {
        const uint64_t *bits;
        int32_t fits[N_TOKENS], n_fits = 0;
        uint64_t mask[(N_TOKENS + 63) / 64];
        CHECK(matcher_mask(m, &bits, NULL) == OK);
        memcpy(mask, bits, sizeof mask);
        for (int32_t id = 0; id < N_TOKENS; id++) {
            bool yes, fed = false;
            size_t n;
            const char *p = piece_of(id, &n);
            CHECK(matcher_allows(m, id, &yes, NULL) == OK);
            CHECK_MSG(yes == (mask[id >> 6] >> (id & 63) & 1), "token %d: mask and test differ in %s", id, text);
            matcher_copy(by_bytes, m);
            if (id == END) fed = matcher_can_end(m);
            else if (n > 0) CHECK(matcher_text(by_bytes, p, n, &fed, NULL) == OK);
            CHECK_MSG(yes == fed, "token %d: %d, its bytes %d in %s", id, yes, fed, text);
            if (yes && id != END) fits[n_fits++] = id;
        }
        if (n_fits == 0) break;
        int32_t id = fits[test_rand(&seed) % (uint64_t)n_fits];
        size_t n;
        bool yes;
        const char *p = piece_of(id, &n);
        matcher_copy(by_bytes, m);
        CHECK(matcher_text(by_bytes, p, n, &yes, NULL) == OK && yes);
        CHECK(matcher_accept(m, id, NULL) == OK);
        CHECK(matcher_can_end(m) == matcher_can_end(by_bytes) && matcher_must_end(m) == matcher_must_end(by_bytes));
        bool alive = matcher_can_end(m);
        CHECK(matcher_mask(m, &bits, NULL) == OK);
        for (int j = 0; j < (N_TOKENS + 63) / 64; j++) alive |= bits[j] != 0;
        CHECK_MSG(alive, "token %d leads nowhere in %s", id, text); /* the vocabulary has every byte: what may begin can be finished */
    }
    matcher_close(m), matcher_close(by_bytes), grammar_close(g), token_trie_close(t);
}

TEST(matcher_mask_test_and_bytes_agree)
{
    check_walk(json_text, 1, 14);
    for (int i = 0; i < ARRAY_LEN(language); i++) check_walk(language[i].grammar, (uint64_t)i, 1);
    check_walk("root ::= ([a-e] | \"ab\" | \"abcd\" | [\\u0080-\\U0010ffff])* \"10\"", 5, 12);
}

TEST(matcher_takes_tokens_by_id)
{
    struct token_trie *t = make_trie();
    char text[200];
    int tool = 256 + 22, null = 256 + 3, empty = 256 + 21;
    snprintf(text, sizeof text, "root ::= \"a\" (<[%d]> | \"nu\" \"ll\") !<[%d]> \"b\"", empty, tool);
    struct grammar *g = must_parse(text);
    struct matcher *m = must_match(g, t);
    const uint64_t *bits;
    bool yes;
    CHECK(matcher_accept(m, 'a', NULL) == OK);
    CHECK(matcher_allows(m, empty, &yes, NULL) == OK && yes); /* no bytes, but the grammar asks for it by id */
    CHECK(matcher_allows(m, null, &yes, NULL) == OK && yes);
    CHECK(matcher_allows(m, 'n', &yes, NULL) == OK && yes);
    CHECK(matcher_allows(m, tool, &yes, NULL) == OK && !yes);
    CHECK(matcher_accept(m, empty, NULL) == OK);
    CHECK(matcher_mask(m, &bits, NULL) == OK);
    for (int32_t id = 0; id < N_TOKENS; id++) {
        CHECK(matcher_allows(m, id, &yes, NULL) == OK);
        CHECK(yes == (id != tool && id != END) && yes == (bits[id >> 6] >> (id & 63) & 1));
    }
    CHECK(matcher_accept(m, 'x', NULL) == OK && matcher_accept(m, 'b', NULL) == OK && matcher_must_end(m));
    matcher_close(m), grammar_close(g), token_trie_close(t);
}

TEST(matcher_allows_the_end_only_where_the_text_may_end)
{
    struct token_trie *t = make_trie();
    struct grammar *g = must_parse("root ::= \"a\" \"b\"?");
    struct matcher *m = must_match(g, t);
    struct err e = { 0 };
    bool yes;
    const uint64_t *bits;
    CHECK(matcher_allows(m, END, &yes, NULL) == OK && !yes);
    CHECK(matcher_accept(m, 'a', NULL) == OK);
    CHECK(matcher_can_end(m) && !matcher_must_end(m));
    CHECK(matcher_mask(m, &bits, NULL) == OK && (bits[END >> 6] >> (END & 63) & 1) && (bits['b' >> 6] >> ('b' & 63) & 1));
    CHECK(matcher_accept(m, END, NULL) == OK && matcher_must_end(m));
    CHECK(matcher_allows(m, 'b', &yes, NULL) == OK && !yes);
    CHECK(matcher_mask(m, &bits, NULL) == OK);
    for (int i = 0; i < (N_TOKENS + 63) / 64; i++) CHECK(bits[i] == (i == END >> 6 ? (uint64_t)1 << (END & 63) : 0));
    CHECK(matcher_accept(m, 'b', &e) == ERR_RUNTIME);
    CHECK_HAS(e.text, "token 98 does not fit the grammar");
    CHECK(matcher_accept(m, END, NULL) == ERR_RUNTIME); /* a broken text stays broken */
    matcher_reset(m);
    CHECK(matcher_accept(m, 'a', NULL) == OK);
    CHECK(matcher_allows(m, -1, &yes, NULL) == OK && !yes && matcher_allows(m, N_TOKENS, &yes, NULL) == OK && !yes);
    matcher_close(m), grammar_close(g), token_trie_close(t);
}

/* ---- errors ---- */

TEST(grammar_errors_say_where)
{
    static const struct { const char *text, *says; } rows[] = {
        { "", "g: there is no rule 'root'" },
        { "x ::= \"a\"", "there is no rule 'root'" },
        { "root = \"a\"", "g:1:6: expected ::=, found '='" },
        { "root ::= \"a\n", "g:1:10: this literal has no end" },
        { "root ::= [a", "g:1:10: this class has no end" },
        { "root ::= [z-a]", "g:1:11: this range goes downward" },
        { "root ::= \"\\q\"", "g:1:11: unknown escape" },
        { "root ::= \"\\x4\"", "g:1:14: expected a hexadecimal digit, found '\"'" },
        { "root ::= \"\\U00110000\"", "no such character" },
        { "root ::= \"\\ud800\"", "half of a surrogate pair" },
        { "root ::= \"\xFF\"", "g:1:11: this is not UTF-8" },
        { "root ::= \"\xED\xA0\x80\"", "this is not UTF-8" },
        { "root ::= * \"a\"", "g:1:10: there is nothing to repeat" },
        { "root ::= \"a\" (\"b\"", "g:1:18: expected ')' or another item, found the end" },
        { "root ::= \"a\") \"b\"", "g:1:13: expected an item, '|' or the end of the line, found ')'" },
        { "root ::= \"a\"{2", "expected ',' or '}'" },
        { "root ::= \"a\"{3,2}", "g:1:13: the upper bound is below the lower one" },
        { "root ::= \"a\"{99999}", "g:1:14: the number is too large, at most 10000" },
        { "root ::= x\n", "g:1:10: rule 'x' is not defined" },
        { "root ::= \"a\"\nroot ::= \"b\"", "g:2:1: rule 'root' is defined twice" },
        { "root ::= root \"a\" | \"b\"", "g:1:1: rule 'root' begins with itself" },
        { "root ::= x\nx ::= y \"a\"\ny ::= \"z\"? x", "begins with itself" },
        { "root ::= \"b\" | (\"a\"? root)", "begins with itself" },
        { "root ::= (root)*", "begins with itself" },
        { "root ::= a a\na ::= \"x\"? b\nb ::= \"\" | a", "begins with itself" },
        { "root ::= <tool>", "token names need a vocabulary" },
        { "root ::= <[5>", "expected ]>" },
        { "root ::= <[99999999999]>", "too large" },
        { "root ::= !a", "expected <[id]>" },
        { "root ::= \"a\" ;", "found ';'" },
        { "\x01", "expected the name of a rule, found byte 1" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct err e = { 0 };
        struct grammar *g = NULL;
        CHECK_MSG(grammar_parse(&g, rows[i].text, strlen(rows[i].text), "g", NULL, &e) == ERR_USAGE && !g, "accepted: %s", rows[i].text);
        CHECK_HAS(e.text, rows[i].says);
    }
}

static char *repeated(const char *before, const char *part, int n, const char *after)
{
    size_t len = strlen(part), head = strlen(before);
    char *text = malloc(head + len * (size_t)n + strlen(after) + 1);
    memcpy(text, before, head);
    for (int i = 0; i < n; i++) memcpy(text + head + len * (size_t)i, part, len);
    strcpy(text + head + len * (size_t)n, after);
    return text;
}

TEST(grammar_limits_hold)
{
    struct err e = { 0 };
    struct grammar *g = NULL;
    char *text = repeated("root ::= ", "(", 300, "\"a\"");
    CHECK(grammar_parse(&g, text, strlen(text), "g", NULL, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "more than 200 groups");
    free(text);
    text = repeated("root ::= \"a\" ", "(\"b\") ", 70000, "");
    e = (struct err){ 0 };
    CHECK(grammar_parse(&g, text, strlen(text), "g", NULL, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "more than 65536 rules");
    free(text);
    text = malloc(GRAMMAR_TEXT_MAX + 2);
    memset(text, ' ', GRAMMAR_TEXT_MAX + 1);
    e = (struct err){ 0 };
    CHECK(grammar_parse(&g, text, GRAMMAR_TEXT_MAX + 1, "g", NULL, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "bytes of grammar");
    free(text);
}

/* Long chains of rules that may be empty: linear work, no recursion. */
TEST(grammar_checks_long_chains)
{
    enum { N = 20000 };
    char *text = malloc(N * 40);
    size_t at = (size_t)sprintf(text, "root ::= r0 \"x\"\n");
    for (int i = 0; i < N; i++) at += (size_t)sprintf(text + at, "r%d ::= r%d | r%d\n", i, i + 1, i + 1);
    at += (size_t)sprintf(text + at, "r%d ::= \"\"\n", N);
    struct grammar *g = NULL;
    struct err e = { 0 };
    CHECK_MSG(grammar_parse(&g, text, at, "g", NULL, &e) == OK, "%s", e.text);
    grammar_close(g);
    at += (size_t)sprintf(text + at, "s ::= r0 s\n");
    CHECK(grammar_parse(&g, text, at, "g", NULL, &e) == ERR_USAGE);
    free(text);
}

/* The state outgrows its arrays many times: what is not needed is forgotten, and nesting goes on. */
TEST(matcher_follows_deep_nesting_and_long_texts)
{
    struct token_trie *t = make_trie();
    struct grammar *g = must_parse(json_text);
    struct matcher *m = must_match(g, t);
    struct err e = { 0 };
    bool yes;
    CHECK(matcher_text(m, "{\"a\":", 5, &yes, NULL) == OK && yes);
    for (int i = 0; i < 10000; i++) CHECK_MSG(matcher_text(m, "[{\"b\":", 6, &yes, &e) == OK && yes, "depth %d: %s", i, e.text);
    CHECK(matcher_text(m, "null", 4, &yes, NULL) == OK && yes);
    for (int i = 0; i < 10000; i++) CHECK(matcher_text(m, "}]", 2, &yes, NULL) == OK && yes);
    CHECK(!matcher_can_end(m));
    CHECK(matcher_text(m, "}", 1, &yes, NULL) == OK && yes && matcher_can_end(m));
    matcher_reset(m);
    CHECK(matcher_text(m, "{\"a\":[", 6, &yes, NULL) == OK && yes);
    for (int i = 0; i < 3000; i++) CHECK(matcher_text(m, "{\"k\": [\"text\", 12.5e3, [[]]]}, ", 31, &yes, NULL) == OK && yes);
    matcher_close(m), grammar_close(g), token_trie_close(t);
}

TEST(matcher_gives_up_with_an_error)
{
    static const struct { const char *grammar, *text; int n; } rows[] = {
        { "root ::= \"(\" root \")\" | \"x\"", "(", 80000 },                        /* nesting without end */
        { "root ::= (\"a\" | \"aa\" | \"aaa\"){0,10000} \"b\"", "a", 1500 },       /* many counts at once */
        { "root ::= \"a\" root root | \"a\"", "a", 400 },                          /* ambiguity */
        { "root ::= [a-c]* a* | [ -~] a?\na ::= [a-c]+ | [ -~] root?", "a", 100 },  /* ambiguity that needs no more than its length */
    };
    struct token_trie *t = make_trie();
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct grammar *g = must_parse(rows[i].grammar);
        struct matcher *m = must_match(g, t);
        struct err e = { 0 };
        status st = OK;
        bool yes = true;
        for (int j = 0; j < rows[i].n && st == OK && yes; j++) st = matcher_text(m, rows[i].text, 1, &yes, &e);
        CHECK_MSG(st == OK || (st == ERR_RUNTIME && strstr(e.text, "cannot be followed")), "row %d: %s", i, e.text);
        if (i == 0) CHECK(st == ERR_RUNTIME);
        if (i == 3) CHECK_MSG(st == OK && yes, "%s", e.text);
        const uint64_t *bits;
        if (st != OK) CHECK(matcher_mask(m, &bits, NULL) == ERR_RUNTIME);
        matcher_close(m), grammar_close(g);
    }
    token_trie_close(t);
}

TEST(grammar_survives_every_failed_allocation)
{
    struct token_text text[3] = { { "a", 1, false }, { "ab", 2, false }, { "", 0, true } };
    for (int n = 1; n < 300; n++) {
        struct grammar *g = NULL;
        struct token_trie *t = NULL;
        struct matcher *m = NULL;
        struct err e = { 0 };
        mem_fail_at(n, false);
        status st = grammar_parse(&g, json_text, strlen(json_text), "g", NULL, &e);
        if (st == OK) st = token_trie_of(&t, text, 3, &e);
        if (st == OK) st = matcher_open(&m, g, t, &e);
        mem_fail_at(0, false);
        matcher_close(m), token_trie_close(t), grammar_close(g);
        CHECK(st != OK || n > 10);
        if (st == OK) return;
        CHECK(st == ERR_MEMORY && e.code == ERR_MEMORY);
    }
    CHECK(!"never opened");
}

SUITE(grammar, T(grammar_accepts_exactly_its_language), T(grammar_of_json_takes_json_only), T(matcher_mask_test_and_bytes_agree),
      T(matcher_takes_tokens_by_id), T(matcher_allows_the_end_only_where_the_text_may_end), T(grammar_errors_say_where), T(grammar_limits_hold),
      T(grammar_checks_long_chains), T(matcher_follows_deep_nesting_and_long_texts), T(matcher_gives_up_with_an_error),
      T(grammar_survives_every_failed_allocation));

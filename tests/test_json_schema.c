/* json_schema: what the grammar of a schema takes and what not; refusals by name and place. tests/oracle/schemas.py validates generated texts. */
#include "src/json_schema.h"
#include "src/grammar.h"
#include "tests/test.h"

static status compile(const char *schema, struct grammar **g, struct err *e)
{
    struct arena a;
    struct json *j;
    char *text = NULL;
    *g = NULL;
    arena_init(&a, 0);
    status st = json_parse(&j, schema, strlen(schema), &a, "schema", e);
    if (st == OK) st = json_schema_to_gbnf(&text, j, "schema", e);
    if (st == OK) {
        st = grammar_parse(g, text, strlen(text), "gbnf", NULL, e);
        CHECK_MSG(st == OK || strstr(e->text, "begins with itself"), "%s from %s", e->text, schema);
    }
    mem_free(text);
    arena_free(&a);
    return st;
}

static bool fits(const struct grammar *g, const char *text)
{
    struct token_text one = { "x", 1, false };
    struct token_trie *t = NULL;
    struct matcher *m = NULL;
    bool yes = false;
    CHECK(token_trie_of(&t, &one, 1, NULL) == OK && matcher_open(&m, g, t, NULL) == OK);
    CHECK(matcher_text(m, text, strlen(text), &yes, NULL) == OK);
    yes = yes && matcher_can_end(m);
    matcher_close(m);
    token_trie_close(t);
    return yes;
}

/* Texts before the first NULL fit, those behind it do not. */
static const struct { const char *schema, *text[16]; } language[] = {
    { "{}", { "1", "-0.5e3", "\"a\\n\\u00e9\"", "[1, [], {}]", "{\"a\": {\"b\": null}}", "true", NULL, "", "01", "{a:1}", "[1,]", "\"\\ud800\"", "nul",
      "+1" } },
    { "true", { "{}", NULL, "x" } },
    { "{\"type\": \"object\"}", { "{}", "{\"x\": [1]}", NULL, "[]", "1" } },
    { "{\"type\": \"string\"}", { "\"\"", "\"\xC3\xA9\"", NULL, "1", "\"\n\"", "\"a" } },
    { "{\"type\": [\"string\", \"null\"]}", { "null", "\"a\"", NULL, "1" } },
    { "{\"type\": \"string\", \"nullable\": true}", { "null", "\"a\"", NULL, "1" } },
    { "{\"type\": \"integer\"}", { "0", "-12", NULL, "1.5", "01", "-" } },
    { "{\"type\": \"number\"}", { "0", "-12", "1.5", "2e-3", NULL, "1.", ".5", "\"1\"" } },
    { "{\"enum\": [\"a\\\"b\", 1, null, {\"k\": [true, 2.5]}]}", { "\"a\\\"b\"", "1", "null", "{\"k\": [true, 2.5]}", NULL, "2", "\"a\"" } },
    { "{\"type\": \"string\", \"enum\": [\"a\", 1]}", { "\"a\"", NULL, "1" } },
    { "{\"const\": \"x\\ny\"}", { "\"x\\ny\"", NULL, "\"x\ny\"" } },
    { "{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 3}", { "\"ab\"", "\"a\xC3\xA9\\n\"", NULL, "\"a\"", "\"abcd\"", "\"\\ud83d\\ude00\"" } },
    { "{\"type\": \"string\", \"maxLength\": 0}", { "\"\"", NULL, "\"a\"" } },
    /* objects */
    { "{\"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {}}, \"required\": [\"a\"]}",
      { "{\"a\": 1}", "{\"a\":1,\"b\":[]}", "{ \"a\":\n  1, \"b\": 2}", NULL, "{}", "{\"b\": 1}", "{\"a\": \"x\"}", "{\"a\": 1, \"c\": 1}", "{\"a\": 1, }" } },
    { "{\"properties\": {\"a\": {}, \"b\": {}, \"c\": {}}}", { "{}", "{\"a\":1}", "{\"b\":1}", "{\"c\":1}", "{\"a\":1,\"c\":1}",
      "{\"a\":1,\"b\":1,\"c\":1}", NULL, "{,\"a\":1}" } },
    { "{\"properties\": {\"a\": {}, \"b\": {}, \"c\": {}}, \"required\": [\"b\"]}", { "{\"b\":1}", "{\"a\":1,\"b\":1}", "{\"b\":1,\"c\":1}", NULL,
      "{\"a\":1}", "{\"a\":1,\"c\":1}" } },
    { "{\"type\": \"object\", \"additionalProperties\": {\"type\": \"boolean\"}}", { "{}", "{\"x\": true, \"y\": false}", NULL, "{\"x\": 1}" } },
    { "{\"type\": \"object\", \"additionalProperties\": false}", { "{}", "{ }", NULL, "{\"x\": 1}" } },
    { "{\"properties\": {\"ab\": {\"type\": \"null\"}, \"ac\": {}, \"\xC3\xA9\": {}}, \"required\": [\"ab\"], "
      "\"additionalProperties\": {\"type\": \"integer\"}}",
      { "{\"ab\": null}", "{\"ab\":null,\"a\":1}", "{\"ab\":null,\"abc\":1,\"\":2,\"b\":3}", "{\"ab\":null,\"\xC3\xA8\":1}",
        "{\"ab\":null,\"ac\":\"x\",\"ad\":1}", NULL,
        "{\"ab\":null,\"ab\":1}", "{\"ab\":null,\"\xC3\xA9\":\"x\",\"\xC3\xA9\":1}", "{\"ab\":null,\"\\u0061b\":1}", "{\"ab\":null,\"x\":\"y\"}" } },
    { "{\"required\": [\"z\"], \"type\": \"object\"}", { "{\"z\": 1}", NULL, "{}" } },
    /* lists */
    { "{\"type\": \"array\"}", { "[]", "[1, \"a\"]", NULL, "{}" } },
    { "{\"items\": {\"type\": \"integer\"}, \"minItems\": 2, \"maxItems\": 3}", { "[1,2]", "[1, 2, 3 ]", NULL, "[1]", "[1,2,3,4]", "[1,\"a\"]" } },
    { "{\"items\": {\"type\": \"integer\"}, \"maxItems\": 0}", { "[]", NULL, "[1]" } },
    { "{\"items\": {\"type\": \"integer\"}, \"minItems\": 1}", { "[1]", "[1,2,3,4,5]", NULL, "[]" } },
    { "{\"prefixItems\": [{\"type\": \"integer\"}, {\"type\": \"string\"}]}", { "[]", "[1]", "[1, \"a\"]", NULL, "[\"a\"]", "[1,\"a\",2]" } },
    { "{\"prefixItems\": [{\"type\": \"integer\"}, {\"type\": \"string\"}], \"items\": {\"type\": \"null\"}, \"minItems\": 2, \"maxItems\": 4}",
      { "[1, \"a\"]", "[1, \"a\", null, null]", NULL, "[1]", "[1,\"a\",null,null,null]", "[1,\"a\",3]" } },
    { "{\"items\": [{\"type\": \"integer\"}], \"additionalItems\": {\"type\": \"null\"}}", { "[1, null, null]", NULL, "[null]" } },
    /* integers and numbers */
    { "{\"type\": \"integer\", \"minimum\": 5, \"maximum\": 1234}", { "5", "9", "10", "99", "100", "999", "1000", "1234", NULL, "4", "1235", "-5", "05",
      "2000" } },
    { "{\"type\": \"integer\", \"minimum\": -12, \"maximum\": 7}", { "-12", "-1", "0", "7", NULL, "-13", "8", "-0", "-20" } },
    { "{\"type\": \"integer\", \"exclusiveMinimum\": 0}", { "1", "99999", NULL, "0", "-1" } },
    { "{\"type\": \"integer\", \"exclusiveMinimum\": 3, \"exclusiveMaximum\": 5}", { "4", NULL, "3", "5" } },
    { "{\"type\": \"integer\", \"minimum\": 3, \"exclusiveMinimum\": true}", { "4", NULL, "3" } },
    { "{\"type\": \"integer\", \"maximum\": -100}", { "-100", "-5000", NULL, "-99", "0" } },
    { "{\"type\": \"number\", \"minimum\": 0, \"maximum\": 1}", { "0", "1", "0.25", "0.999", NULL, "1.5", "-0.5", "1.0001" } },
    { "{\"type\": \"number\", \"exclusiveMinimum\": 0}", { "1", "0.001", "12.5", NULL, "0", "0.0", "0.000" } },
    { "{\"type\": \"number\", \"minimum\": -2, \"exclusiveMaximum\": 0}", { "-1", "-2", "-0.5", "-1.5", NULL, "-2.5", "0.5", "-0.0" } },
    /* combinations */
    { "{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"null\"}]}", { "1", "null", NULL, "\"a\"" } },
    { "{\"oneOf\": [{\"type\": \"integer\"}, {\"type\": \"string\"}]}", { "1", "\"a\"", NULL, "null" } },
    { "{\"enum\": [0.1, -2.5e300, 12345678901234567890]}", { "0.1", "-2.5e+300", "1.2345678901234567e+19", NULL, "0.10000000000000001", "1" } },
    { "{\"oneOf\": [{\"properties\": {\"k\": {\"const\": \"a\"}, \"x\": {}}, \"required\": [\"k\"]}, {\"properties\": {\"k\": {\"const\": \"b\"}}, "
      "\"required\": [\"k\"]}]}",
      { "{\"k\": \"a\", \"x\": 1}", "{\"k\": \"b\"}", NULL, "{\"k\": \"b\", \"x\": 1}", "{\"k\": \"c\"}" } },
    { "{\"allOf\": [{\"properties\": {\"a\": {\"type\": \"integer\"}}, \"required\": [\"a\"]}, {\"properties\": {\"b\": {}, \"a\": {\"minimum\": 3}}}]}",
      { "{\"a\": 3}", "{\"a\": 4, \"b\": 1}", NULL, "{\"a\": 2}", "{\"b\": 1}" } },
    { "{\"type\": \"object\", \"properties\": {\"a\": {}, \"b\": {}}, \"anyOf\": [{\"required\": [\"a\"]}, {\"required\": [\"b\"]}]}",
      { "{\"a\": 1}", "{\"b\": 1}", "{\"a\":1,\"b\":1}", NULL, "{}" } },
    { "{\"$defs\": {\"n\": {\"properties\": {\"v\": {\"type\": \"integer\"}, \"next\": {\"anyOf\": [{\"$ref\": \"#/$defs/n\"}, {\"type\": \"null\"}]}}, "
      "\"required\": [\"v\"]}}, \"$ref\": \"#/$defs/n\"}",
      { "{\"v\": 1}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}", NULL, "{\"v\":1,\"next\":{}}", "{\"v\":1,\"next\":1}" } },
    { "{\"type\": \"array\", \"items\": {\"$ref\": \"#\"}}", { "[]", "[[],[[]]]", NULL, "[1]" } },
    { "{\"properties\": {\"a\": {\"$ref\": \"#/properties/b/items\"}, \"b\": {\"items\": {\"type\": \"null\"}}}}", { "{\"a\": null, \"b\": [null]}", NULL,
      "{\"a\": 1}" } },
    /* formats and patterns */
    { "{\"format\": \"date\"}", { "\"2024-02-28\"", "\"1999-12-31\"", NULL, "\"2024-02-30\"", "\"2024-13-01\"", "\"2024-04-31\"", "\"0000-01-01\"" } },
    { "{\"format\": \"date-time\"}", { "\"2024-02-28T23:59:59Z\"", "\"2024-02-28T00:00:00.5+01:30\"", NULL, "\"2024-02-28 23:59:59Z\"",
      "\"2024-02-28T24:00:00Z\"" } },
    { "{\"format\": \"uuid\"}", { "\"12345678-90ab-cdef-1234-567890ABCDEF\"", NULL, "\"12345678-90ab-cdef-1234\"" } },
    { "{\"pattern\": \"^[a-c]{2}-\\\\d+$\"}", { "\"ab-1\"", "\"cc-123\"", NULL, "\"ad-1\"", "\"ab-\"", "\"xab-1\"" } },
    { "{\"pattern\": \"b+\"}", { "\"abc\"", "\"bb\"", "\"\\u00e9b\"", NULL, "\"ac\"", "\"\"" } },
    { "{\"pattern\": \"^a|b$\"}", { "\"axx\"", "\"xxb\"", NULL, "\"xax\"", "\"bx\"" } },
    { "{\"pattern\": \"^(?:x|yy)*?[^a\\\"]?$\"}", { "\"\"", "\"xyyx\"", "\"xb\"", "\"\\\\\"", NULL, "\"xya\"", "\"\\\"\"", "\"xa\"" } },
    { "{\"pattern\": \"^\\\\w\\\\s\\\\S.\\\\\\\\\\\\.\\\\u0041$\"}", { "\"a ! \\\\.A\"", "\"_\\t~\xC3\xA9\\\\.A\"", NULL, "\"a  x\\\\.A\"",
      "\"a !\\n\\\\.A\"" } },
    { "{\"pattern\": \"^[^\\\\d]{1,2}$\"}", { "\"ab\"", NULL, "\"1\"", "\"\xC3\xA9\"", "\"\"" } },
    { "{\"pattern\": \"^[\\\\]\\\\-^]$\"}", { "\"]\"", "\"-\"", "\"^\"", NULL, "\"a\"" } },
};

TEST(schema_grammars_take_valid_texts_only)
{
    for (int i = 0; i < ARRAY_LEN(language); i++) {
        struct grammar *g;
        struct err e = { 0 };
        CHECK_MSG(compile(language[i].schema, &g, &e) == OK, "%s: %s", language[i].schema, e.text);
        bool want = true;
        for (int k = 0; g && k < 16; k++) {
            const char *text = language[i].text[k];
            if (!text && !want) break;
            if (!text) want = false;
            else CHECK_MSG(fits(g, text) == want, "%s %s %s", language[i].schema, want ? "refuses" : "takes", text);
        }
        grammar_close(g);
    }
}

TEST(schema_refusals_name_keyword_and_place)
{
    static const struct { const char *schema, *says; } rows[] = {
        { "{\"not\": {}}", "schema: #: keyword 'not' is not supported" },
        { "{\"properties\": {\"a\": {\"items\": {\"contains\": 1}}}}", "#/properties/a/items: keyword 'contains' is not supported" },
        { "{\"if\": {}}", "keyword 'if'" }, { "{\"patternProperties\": {}}", "keyword 'patternProperties'" }, { "{\"multipleOf\": 2}", "keyword 'multipleOf'" },
        { "{\"requird\": []}", "keyword 'requird'" }, { "{\"uniqueItems\": true}", "keyword 'uniqueItems' is supported as false only" },
        { "{\"type\": \"text\"}", "there is no type 'text'" }, { "{\"type\": 3}", "'type' must be a name" },
        { "{\"enum\": []}", "'enum' must be a non-empty list" },
        { "{\"type\": \"null\", \"const\": 1}", "no value satisfies" }, { "{\"allOf\": [{\"type\": \"null\"}, {\"type\": \"array\"}]}", "no value satisfies" },
        { "{\"enum\": [\"ab\"], \"minLength\": 3}", "'enum' or 'const' beside 'minLength'" },
        { "{\"properties\": {\"a\": false}, \"required\": [\"a\"]}", "#/properties/a: it is required and forbidden" },
        { "{\"properties\": []}", "properties must be an object" }, { "{\"required\": [1]}", "must be a list of names" },
        { "{\"type\": \"object\", \"minProperties\": 1}", "'minProperties' beyond" }, { "{\"type\": \"object\", \"maxProperties\": 1}",
          "'maxProperties' below" },
        { "{\"minItems\": 3, \"maxItems\": 2}", "no list can satisfy" }, { "{\"minItems\": -1}", "'minItems' must be a whole number" },
        { "{\"minLength\": 3, \"maxLength\": 2}", "no string can satisfy" }, { "{\"format\": \"email\"}", "format 'email' is not supported" },
        { "{\"pattern\": \"a\", \"minLength\": 2}", "'pattern', 'format' and lengths together" },
        { "{\"type\": \"integer\", \"minimum\": 0.2, \"maximum\": 0.8}", "no whole number" },
        { "{\"type\": \"number\", \"minimum\": 0.2, \"maximum\": 0.8}", "bounds of numbers less than 1 apart" },
        { "{\"minimum\": \"1\"}", "'minimum' must be a number" }, { "{\"exclusiveMinimum\": true}", "needs the bound beside it" },
        { "{\"oneOf\": [{\"type\": \"integer\"}, {\"type\": \"number\"}]}", "alternatives 0 and 1 of 'oneOf' may overlap" }, { "{\"anyOf\": []}",
          "'anyOf' must be a list" },
#define K64 "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
        { "{\"$ref\": \"#/$defs/" K64 K64 K64 K64 "\", \"$defs\": {\"" K64 K64 K64 "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\": {}}}",
          "leads nowhere" },
        { "{\"$ref\": \"#/nowhere\"}", "'$ref' #/nowhere leads nowhere" }, { "{\"$ref\": \"http://x/y\"}", "to another document" }, { "{\"$ref\": \"#\"}",
          "in a circle" },
        { "{\"allOf\": [{\"$ref\": \"#\"}]}", "in a circle" }, { "[]", "a schema must be an object" }, { "false", "no value can satisfy false" },
        { "{\"anyOf\": [{\"$ref\": \"#\"}, {\"type\": \"null\"}]}", "begins with itself" },
        { "{\"pattern\": \"(?=a)\"}", "#: pattern '(?=a)' at byte 1: look-around" }, { "{\"pattern\": \"(a)\\\\1\"}", "at byte 4: references to groups" },
        { "{\"pattern\": \"\\\\bx\"}", "word boundaries" }, { "{\"pattern\": \"\\\\p{L}\"}", "properties (\\p)" }, { "{\"pattern\": \"a^b\"}",
          "an anchor inside" },
        { "{\"pattern\": \"(a\"}", "this group has no end" }, { "{\"pattern\": \"a)\"}", "closes nothing" }, { "{\"pattern\": \"[a\"}",
          "this class has no end" },
        { "{\"pattern\": \"*a\"}", "nothing to repeat" }, { "{\"pattern\": \"a**\"}", "nothing to repeat" }, { "{\"pattern\": \"a{3,1}\"}",
          "below the lower one" },
        { "{\"pattern\": \"[z-a]\"}", "goes downward" }, { "{\"pattern\": \"\\\\q\"}", "unknown escape" }, { "{\"pattern\": \"a++\"}", "possessive" },
        { "{\"pattern\": \"(?<n>a)\"}", "named groups" }, { "{\"pattern\": \"[\\\\x00-\\\\x07]\"}", "no character of this set" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct grammar *g;
        struct err e = { 0 };
        CHECK_MSG(compile(rows[i].schema, &g, &e) == ERR_USAGE && !g, "accepted: %s", rows[i].schema);
        CHECK_HAS(e.text, rows[i].says);
        grammar_close(g);
    }
}

/* Thirty required properties of the same recursive schema: each pair of them begins thirty comparisons more, eight deep. */
TEST(schema_comparisons_end)
{
    static char schema[4096], required[512];
    size_t at = 0, n = 0;
    at += (size_t)snprintf(schema, sizeof schema,
                           "{\"oneOf\": [{\"$ref\": \"#/$defs/a\"}, {\"$ref\": \"#/$defs/a\"}], \"$defs\": {\"a\": {\"properties\": {");
    for (int i = 0; i < 30; i++) {
        at += (size_t)snprintf(schema + at, sizeof schema - at, "%s\"p%d\": {\"$ref\": \"#/$defs/a\"}", i ? ", " : "", i);
        n += (size_t)snprintf(required + n, sizeof required - n, "%s\"p%d\"", i ? ", " : "", i);
    }
    snprintf(schema + at, sizeof schema - at, "}, \"required\": [%s], \"type\": \"object\"}}}", required);
    struct grammar *g;
    struct err e = { 0 };
    CHECK(compile(schema, &g, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "alternatives 0 and 1 of 'oneOf' may overlap");
}

/* Every integer of small ranges, by trying all numbers around. */
TEST(schema_integer_bounds_are_exact)
{
    uint64_t rng = 3;
    for (int round = 0; round < 60; round++) {
        int64_t lo = (int64_t)(test_rand(&rng) % 2400) - 1200, hi = lo + (int64_t)(test_rand(&rng) % (round & 1 ? 2000 : 20));
        char schema[100], text[32];
        struct grammar *g;
        snprintf(schema, sizeof schema, "{\"type\": \"integer\", \"minimum\": %lld, \"maximum\": %lld}", (long long)lo, (long long)hi);
        CHECK(compile(schema, &g, NULL) == OK);
        struct token_text one = { "x", 1, false };
        struct token_trie *t = NULL;
        struct matcher *m = NULL;
        CHECK(token_trie_of(&t, &one, 1, NULL) == OK && matcher_open(&m, g, t, NULL) == OK);
        for (int64_t v = lo - 30; v <= hi + 30; v += 1 + (int64_t)(test_rand(&rng) % (round & 1 ? 13 : 1))) {
            bool yes;
            snprintf(text, sizeof text, "%lld", (long long)v);
            matcher_reset(m);
            CHECK(matcher_text(m, text, strlen(text), &yes, NULL) == OK);
            CHECK_MSG((yes && matcher_can_end(m)) == (v >= lo && v <= hi), "%s: %s", schema, text);
        }
        matcher_close(m), token_trie_close(t), grammar_close(g);
    }
}

TEST(schema_conversion_ends_on_hostile_schemas)
{
    char *text = malloc(1 << 20), *p = text;
    struct grammar *g;
    struct err e = { 0 };
    for (int i = 0; i < 30; i++) p += sprintf(p, "{\"items\":");
    p += sprintf(p, "{}");
    for (int i = 0; i < 30; i++) p += sprintf(p, "}");
    CHECK(compile(text, &g, &e) == OK);
    grammar_close(g);
    /* alternatives times alternatives times ... */
    p = text + sprintf(text, "{\"allOf\":[");
    for (int i = 0; i < 40; i++) p += sprintf(p, "%s{\"anyOf\":[{\"minLength\":%d},{\"maxLength\":%d},{\"type\":\"null\"}]}", i ? "," : "", i, i + 50);
    sprintf(p, "]}");
    CHECK(compile(text, &g, &e) == ERR_USAGE);
    grammar_close(g);
    /* a conjunction that grows by recursion */
    e = (struct err){ 0 };
    CHECK(compile("{\"$defs\":{\"a\":{\"properties\":{\"n\":{\"allOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/b\"}]}}},"
                  "\"b\":{\"properties\":{\"n\":{\"$ref\":\"#/$defs/a\"}}}},\"allOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/b\"}]}", &g,
                      &e) == ERR_USAGE);
    CHECK_HAS(e.text, "more than 64");
    free(text);
}

TEST(schema_conversion_survives_every_failed_allocation)
{
    const char *schema = "{\"properties\": {\"a\": {\"pattern\": \"^[a-z]+$\"}, \"b\": {\"type\": \"number\", \"minimum\": 3}}, "
      "\"additionalProperties\": {\"type\": \"array\"}}";
    struct arena a;
    struct json *j;
    arena_init(&a, 0);
    CHECK(json_parse(&j, schema, strlen(schema), &a, "schema", NULL) == OK);
    for (int n = 1; n < 300; n++) {
        char *text = NULL;
        struct err e = { 0 };
        mem_fail_at(n, false);
        status st = json_schema_to_gbnf(&text, j, "schema", &e);
        mem_fail_at(0, false);
        CHECK((st == OK) == (text != NULL) && (st == OK) == (e.code == OK));
        mem_free(text);
        if (st == OK) break;
        CHECK(n < 299);
    }
    arena_free(&a);
}

SUITE(json_schema, T(schema_grammars_take_valid_texts_only), T(schema_refusals_name_keyword_and_place), T(schema_comparisons_end),
      T(schema_integer_bounds_are_exact), T(schema_conversion_ends_on_hostile_schemas), T(schema_conversion_survives_every_failed_allocation));

/* json: what is accepted, what is refused and where, values, round trips, limits, and failure of every allocation. */
#include "ggml-like/json.h"
#include "tests/test.h"
#include <float.h>
#include <time.h>

static status parse(struct json **j, const char *text, struct arena *a, struct err *e)
{
    arena_init(a, 0);
    return json_parse(j, text, strlen(text), a, "x.json", e);
}

/* ---- acceptance ---- */

static const char *const good[] = {
    "0", "-0", "1", "-1", "10", "0.5", "-0.5e10", "1E+2", "1e-2", "0e0", "123456789012345678901234567890", "1e308", "1e-400",
    "9223372036854775807", "-9223372036854775808", "true", "false", "null", "\"\"", "\"a\"", " \t\r\n1 \n", "[]", "[ ]", "{}", "{ }", "[1]",
    "[1,2]", "[ 1 , 2 ]", "{\"a\":1}", "{ \"a\" : 1 , \"b\" : [ ] }", "[[],[[]]]", "{\"\":1}", "{\"a\":{\"a\":{\"a\":1}}}",
    "[{\"a\":1},{\"a\":1}]",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u0041\\u00e9\\u20AC\\uD83D\\uDE00\"", "\"\\u0000\"", "\"\x7f\"", "\"\xc2\x80\xdf\xbf\"",
    "\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\"", "\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"", "{\"a\":1,\"A\":2,\"a\\u0000\":3}",
};

TEST(json_accepts)
{
    for (int i = 0; i < ARRAY_LEN(good); i++) {
        struct arena a;
        struct json *j = NULL;
        struct err e = { 0 };
        CHECK_MSG(parse(&j, good[i], &a, &e) == OK && j, "%s: %s", good[i], e.text);
        arena_free(&a);
    }
}

/* ---- refusal ---- */

static const struct { const char *text, *where; } bad[] = {
    { "", "x.json:1:1: expected a value, found the end" },
    { "  \n ", "x.json:2:2: expected a value, found the end" },
    { "\xef\xbb\xbf{}", "x.json:1:1: expected a value, found byte 0xef" },
    { "tru", "1:1" }, { "True", "1:1" }, { "nul", "1:1" }, { "nan", "1:1" }, { "Infinity", "1:1" }, { "-Infinity", "1:2" },
    { "truex", "1:5: expected the end, found 'x'" },
    { "1 2", "1:3: expected the end" },
    { "{}{}", "1:3" }, { "[]]", "1:3" }, { "// c\n1", "1:1" },
    { "-", "1:2: expected a digit" }, { "+1", "1:1" }, { ".5", "1:1" }, { "1.", "1:3: expected a digit after the point" },
    { "1.e5", "1:3" }, { "1e", "1:3: expected a digit of the exponent" }, { "1e+", "1:4" }, { "01", "1:2" }, { "-01", "1:3" },
    { "0x10", "1:2" },
    { "1_000", "1:2" }, { "[1e999]", "1:2: number out of range" }, { "-1e999", "1:1: number out of range" },
    { "[", "1:2" }, { "[1", "1:3: expected ',' or ']', found the end" }, { "[1,", "1:4" }, { "[1,]", "1:4: expected a value, found ']'" },
    { "[,1]", "1:2" }, { "[1 2]", "1:4: expected ',' or ']', found '2'" }, { "[1,,2]", "1:4" }, { "[1}", "1:3" }, { "]", "1:1" },
    { "{", "1:2" }, { "{\"a\"", "1:5: expected ':' after a key" }, { "{\"a\":", "1:6" }, { "{\"a\":1", "1:7: expected ',' or '}'" },
    { "{\"a\":1,}", "1:8: expected a key in quotes, found '}'" }, { "{a:1}", "1:2" }, { "{'a':1}", "1:2" }, { "{1:1}", "1:2" },
    { "{\"a\" 1}", "1:6" }, { "{\"a\":1]", "1:7" }, { "{\"a\":1 \"b\":2}", "1:8" }, { "{,}", "1:2" }, { "}", "1:1" },
    { "{\"a\":1,\n \"b\":2,\n \"a\":3}", "x.json:3:2: second member with the key \"a\"" },
    { "{\"a\":1,\"\\u0061\":2}", "1:8: second member" }, { "{\"\":1,\"\":2}", "1:7: second member" },
    { "{\"k\\u0000a\":1,\"k\\u0000a\":2}", "1:15: second member" },
    { "\"", "1:2: expected the closing quote" }, { "\"abc", "1:5" }, { "\"\\\"", "1:4" }, { "'a'", "1:1" },
    { "\"a\nb\"", "1:3: control character" },
    { "\"\t\"", "1:2: control character" }, { "\"\\", "1:3" }, { "\"\\x41\"", "1:3" }, { "\"\\'\"", "1:3" },
    { "\"\\u12", "1:6: expected a hexadecimal digit, found the end" }, { "\"\\u12G4\"", "1:6: expected a hexadecimal digit, found 'G'" },
    { "\"\\U0041\"", "1:3" }, { "\"\\u 041\"", "1:4" },
    { "\"\\ud800\"", "1:2: high surrogate" }, { "\"\\ud800x\"", "1:2: high surrogate" }, { "\"\\ud800\\n\"", "1:2: high surrogate" },
    { "\"\\ud800\\u0041\"", "1:2: high surrogate" }, { "\"\\ud800\\ud800\"", "1:2: high surrogate" },
    { "\"\\udc00\"", "1:2: low surrogate" },
    { "\"\x80\"", "1:2: invalid UTF-8" }, { "\"\xc3\"", "invalid UTF-8" }, { "\"\xc3(\"", "invalid UTF-8" },
    { "\"\xc0\x80\"", "invalid UTF-8" },
    { "\"\xc1\xbf\"", "invalid UTF-8" }, { "\"\xe0\x9f\xbf\"", "invalid UTF-8" }, { "\"\xed\xa0\x80\"", "invalid UTF-8" },
    { "\"\xe2\x82\"", "invalid UTF-8" }, { "\"\xe2\x28\xa1\"", "invalid UTF-8" }, { "\"\xf0\x8f\xbf\xbf\"", "invalid UTF-8" },
    { "\"\xf4\x90\x80\x80\"", "invalid UTF-8" }, { "\"\xf5\x80\x80\x80\"", "invalid UTF-8" }, { "\"\xff\"", "invalid UTF-8" },
    { "\"\xf0\x9f\x98", "invalid UTF-8" }, { "[\"\xc3\xa9\xe2\x82\xac\", x]", "1:8: expected a value, found 'x'" },
};

TEST(json_refuses_with_line_and_column)
{
    for (int i = 0; i < ARRAY_LEN(bad); i++) {
        struct arena a;
        struct json *j = (struct json *)&a;
        struct err e = { 0 };
        CHECK_MSG(parse(&j, bad[i].text, &a, &e) == ERR_FORMAT && j == NULL, "accepted: %s", bad[i].text);
        CHECK_HAS(e.text, "x.json:");
        CHECK_HAS(e.text, bad[i].where);
        arena_free(&a);
    }
}

TEST(json_refuses_every_truncation)
{
    static const char text[] = "{\"a\": [1, -2.5e3, true, null, \"x\\u20ac\\ud83d\\ude00\\n\"], \"b\": {\"c\": {}}}";
    for (size_t n = 0; n < sizeof text; n++) {
        struct arena a;
        struct json *j = NULL;
        char *copy = mem_alloc(n); /* exact size: a read past the end is seen by the sanitizer */
        memcpy(copy, text, n);
        arena_init(&a, 0);
        CHECK_MSG(json_parse(&j, copy, n, &a, "t", NULL) == (n == sizeof text - 1 ? OK : ERR_FORMAT), "%zu bytes", n);
        arena_free(&a);
        mem_free(copy);
    }
}

TEST(json_nul_bytes_are_not_blanks)
{
    struct arena a;
    struct json *j;
    arena_init(&a, 0);
    CHECK(json_parse(&j, "1\0", 2, &a, "t", NULL) == ERR_FORMAT);
    CHECK(json_parse(&j, "\"a\0\"", 4, &a, "t", NULL) == ERR_FORMAT);
    CHECK(json_parse(&j, "\"\\\0\"", 4, &a, "t", NULL) == ERR_FORMAT);
    CHECK(json_parse(&j, NULL, 0, &a, "t", NULL) == ERR_FORMAT);
    arena_free(&a);
}

/* ---- values ---- */

TEST(json_values_arrive)
{
    struct arena a;
    struct json *j = NULL;
    CHECK(parse(&j, "{\"s\":\"\\u20ac\\ud83d\\ude00\\u0000z\",\"i\":-42,\"f\":0.1,\"t\":true,\"n\":null,\"l\":[1,[2],{\"x\":3}],"
                    "\"big\":1e3}", &a, NULL) == OK);
    if (!j) return;
    CHECK(j->kind == JSON_OBJ && j->n == 7 && j->next == NULL);
    const struct json *s = json_get(j, "s"), *i = json_get(j, "i"), *f = json_get(j, "f"), *t = json_get(j, "t"), *l = json_get(j, "l");
    CHECK(s && s->kind == JSON_STR && s->n == 9 && !memcmp(s->str, "\xe2\x82\xac\xf0\x9f\x98\x80\0z", 10));
    CHECK(i && i->kind == JSON_INT && i->i == -42 && i->f == -42.0);
    CHECK(f && f->kind == JSON_FLOAT && f->f == 0.1);
    CHECK(t && t->kind == JSON_BOOL && t->i == 1);
    CHECK(json_get(j, "n") && json_get(j, "n")->kind == JSON_NULL);
    CHECK(json_get(j, "big")->kind == JSON_FLOAT && json_get(j, "big")->f == 1000.0);
    CHECK(l && l->kind == JSON_ARR && l->n == 3);
    CHECK(l && l->child->next->child->i == 2 && json_get(l->child->next->next, "x")->i == 3 && l->child->next->next->next == NULL);
    CHECK(l && l->child->key == NULL && !strcmp(l->key, "l") && l->key_n == 1);
    CHECK(json_get(j, "absent") == NULL && json_get(l, "x") == NULL && json_get(NULL, "x") == NULL);
    arena_free(&a);
}

TEST(json_integers_that_do_not_fit_become_floats)
{
    static const struct { const char *text; enum json_kind kind; int64_t i; double f; } rows[] = {
        { "9223372036854775807", JSON_INT, INT64_MAX, 0x1p63 }, { "9223372036854775808", JSON_FLOAT, 0, 0x1p63 },
        { "-9223372036854775808", JSON_INT, INT64_MIN, -0x1p63 }, { "-9223372036854775809", JSON_FLOAT, 0, -0x1p63 },
        { "18446744073709551616", JSON_FLOAT, 0, 18446744073709551616.0 }, { "-0", JSON_INT, 0, 0.0 }, { "1.0", JSON_FLOAT, 0, 1.0 },
        { "1e0", JSON_FLOAT, 0, 1.0 }, { "100000000000000000000000000000000000000000", JSON_FLOAT, 0, 1e41 },
    };
    for (int r = 0; r < ARRAY_LEN(rows); r++) {
        struct arena a;
        struct json *j = NULL;
        CHECK(parse(&j, rows[r].text, &a, NULL) == OK);
        CHECK_MSG(j && j->kind == rows[r].kind && j->f == rows[r].f && (j->kind != JSON_INT || j->i == rows[r].i), "%s", rows[r].text);
        arena_free(&a);
    }
}

/* ---- limits ---- */

TEST(json_parse_python_takes_what_is_no_number)
{
    static const char text[] = "[NaN, Infinity, -Infinity, -1, 2.5]";
    struct arena a;
    struct json *j = NULL;
    struct err e = { 0 };
    arena_init(&a, 0);
    CHECK(json_parse(&j, text, strlen(text), &a, "x", &e) == ERR_FORMAT);
    CHECK(json_parse_python(&j, text, strlen(text), &a, "x", NULL) == OK && j->n == 5);
    const struct json *v = j ? j->child : NULL;
    CHECK(v && v->kind == JSON_FLOAT && isnan(v->f));
    CHECK(v && v->next->kind == JSON_FLOAT && isinf(v->next->f) && v->next->f > 0);
    CHECK(v && v->next->next->kind == JSON_FLOAT && isinf(v->next->next->f) && v->next->next->f < 0);
    CHECK(v && v->next->next->next->i == -1);
    static const char *const wrong[] = { "[Nan]", "[-]", "[-Infinit]", "[Infinity", "[NaNa]", "[--Infinity]" };
    for (int i = 0; i < ARRAY_LEN(wrong); i++) CHECK(json_parse_python(&j, wrong[i], strlen(wrong[i]), &a, "x", NULL) == ERR_FORMAT);
    arena_free(&a);
}

TEST(json_depth_ends_at_64)
{
    for (int depth = 63; depth <= 66; depth++)
        for (int object = 0; object < 2; object++) {
            char text[512] = "";
            for (int i = 0; i < depth; i++) strcat(text, object ? "{\"k\":" : "[");
            if (object) strcat(text, "1");
            for (int i = 0; i < depth; i++) strcat(text, object ? "}" : "]");
            struct arena a;
            struct json *j;
            struct err e = { 0 };
            CHECK_MSG(parse(&j, text, &a, &e) == (depth <= 64 ? OK : ERR_FORMAT), "depth %d", depth);
            if (depth > 64) CHECK_HAS(e.text, "deeper than 64");
            arena_free(&a);
        }
}

/* 200,000 members: a quadratic search for duplicates would take minutes here, not a second. */
TEST(json_large_objects_are_checked_in_linear_time)
{
    enum { N = 200000 };
    struct json_out o;
    json_out_init(&o, false);
    json_begin(&o, NULL, '{');
    for (int i = 0; i < N; i++) {
        char key[24];
        snprintf(key, sizeof key, "key%d", i);
        json_put_i64(&o, key, i);
    }
    json_put_i64(&o, "key777", 1);
    json_end(&o, '}');
    CHECK(json_out_ok(&o));
    struct arena a;
    arena_init(&a, 0);
    struct json *j = NULL;
    struct err e = { 0 };
    clock_t start = clock();
    CHECK(json_parse(&j, o.buf, o.n, &a, "big", &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "second member with the key \"key777\"");
    CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 10);
    size_t last = o.n - strlen(",\"key777\":1}");
    o.buf[last] = '}';
    CHECK(json_parse(&j, o.buf, last + 1, &a, "big", NULL) == OK && j && j->n == N);
    arena_free(&a);
    json_out_free(&o);
}

TEST(json_parse_survives_failure_of_every_allocation)
{
    struct json_out o;
    json_out_init(&o, false);
    json_begin(&o, NULL, '{');
    for (int i = 0; i < 600; i++) { /* several chunks, slabs and key tables */
        char key[24];
        snprintf(key, sizeof key, "k%d", i);
        json_put_cstr(&o, key, "some text for a value");
    }
    json_end(&o, '}');
    CHECK(json_out_ok(&o));
    for (int sticky = 0; sticky < 2; sticky++) {
        int n = 0;
        status st;
        do {
            struct arena a;
            struct json *j = NULL;
            struct err e = { 0 };
            arena_init(&a, 0);
            mem_fail_at(++n, sticky);
            st = json_parse(&j, o.buf, o.n, &a, "oom", &e);
            mem_fail_at(0, false);
            CHECK_MSG(st == OK || (st == ERR_MEMORY && j == NULL && e.code == ERR_MEMORY), "allocation %d: status %d", n, st);
            arena_free(&a);
        } while (st == ERR_MEMORY && n < 100);
        CHECK_MSG(st == OK && n > 4, "passed at allocation %d", n);
    }
    struct arena tight;
    arena_init(&tight, 64);
    struct json *j;
    CHECK(json_parse(&j, o.buf, o.n, &tight, "oom", NULL) == ERR_MEMORY);
    arena_free(&tight);
    json_out_free(&o);
}

/* ---- writer ---- */

static void write_sample(struct json_out *o)
{
    json_begin(o, NULL, '{');
    json_put_cstr(o, "a", "x");
    json_begin(o, "list", '[');
    json_put_i64(o, NULL, INT64_MIN);
    json_put_bool(o, NULL, true);
    json_put_null(o, NULL);
    json_begin(o, NULL, '{');
    json_end(o, '}');
    json_end(o, ']');
    json_begin(o, "none", '[');
    json_end(o, ']');
    json_put_cstr(o, "null", NULL);
    json_put_f64(o, "f", 0.5);
    json_end(o, '}');
}

TEST(json_writer_places_commas_and_lines)
{
    struct json_out o;
    json_out_init(&o, false);
    write_sample(&o);
    CHECK(json_out_ok(&o) && o.n == strlen(o.buf));
    CHECK_STR(o.buf, "{\"a\":\"x\",\"list\":[-9223372036854775808,true,null,{}],\"none\":[],\"null\":null,\"f\":0.5}");
    json_out_free(&o);
    json_out_init(&o, true);
    write_sample(&o);
    CHECK_STR(o.buf, "{\n  \"a\": \"x\",\n  \"list\": [\n    -9223372036854775808,\n    true,\n    null,\n    {}\n  ],\n  \"none\": [],\n"
                     "  \"null\": null,\n  \"f\": 0.5\n}");
    json_out_free(&o);
}

TEST(json_strings_round_trip)
{
    uint64_t seed = 5;
    for (int round = 0; round < 2000; round++) {
        char text[400];
        size_t n = 0;
        while (n < (size_t)(round % 300)) { /* valid UTF-8 of all lengths, control characters included */
            uint64_t r = test_rand(&seed);
            uint32_t c = (uint32_t)(r >> 32) % (r % 4 == 0 ? 0x20 : r % 4 == 1 ? 0x80 : r % 4 == 2 ? 0x800 : 0x110000);
            if (c >= 0xd800 && c <= 0xdfff) c = '"';
            if (c < 0x80) text[n++] = (char)c;
            else if (c < 0x800) n += (size_t)snprintf(text + n, 5, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 63));
            else if (c < 0x10000) n += (size_t)snprintf(text + n, 5, "%c%c%c", 0xe0 | c >> 12, 0x80 | (c >> 6 & 63), 0x80 | (c & 63));
            else n += (size_t)snprintf(text + n, 5, "%c%c%c%c", 0xf0 | c >> 18, 0x80 | (c >> 12 & 63), 0x80 | (c >> 6 & 63),
                                       0x80 | (c & 63));
        }
        struct json_out o;
        struct arena a;
        struct json *j = NULL;
        struct err e = { 0 };
        json_out_init(&o, round % 2);
        json_put_str(&o, NULL, text, n);
        arena_init(&a, 0);
        CHECK_MSG(json_parse(&j, o.buf, o.n, &a, "t", &e) == OK, "%s", e.text);
        CHECK_MSG(j && j->kind == JSON_STR && (size_t)j->n == n && !memcmp(j->str, text, n), "round %d: %s", round, o.buf);
        arena_free(&a);
        json_out_free(&o);
    }
}

TEST(json_writer_escapes_and_repairs)
{
    static const struct { const char *in, *out; } rows[] = {
        { "a\"b\\c/", "\"a\\\"b\\\\c/\"" }, { "\b\f\n\r\t", "\"\\b\\f\\n\\r\\t\"" }, { "\x01\x1f\x7f", "\"\\u0001\\u001f\x7f\"" },
        { "\xff", "\"\xef\xbf\xbd\"" }, { "a\xc3", "\"a\xef\xbf\xbd\"" }, { "\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" },
        { "\xf0\x9f\x98\x80", "\"\xf0\x9f\x98\x80\"" }, { "", "\"\"" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct json_out o;
        json_out_init(&o, false);
        json_put_cstr(&o, NULL, rows[i].in);
        CHECK_STR(o.buf, rows[i].out);
        json_out_free(&o);
    }
    struct json_out o;
    json_out_init(&o, false);
    json_put_str(&o, NULL, "a\0b", 3);
    CHECK_STR(o.buf, "\"a\\u0000b\"");
    json_out_free(&o);
    json_out_init(&o, false);
    json_put_str(&o, NULL, NULL, 0);
    CHECK_STR(o.buf, "\"\"");
    json_out_free(&o);
}

static double write_and_read(double v, size_t *length)
{
    struct json_out o;
    struct arena a;
    struct json *j = NULL;
    json_out_init(&o, false);
    json_put_f64(&o, NULL, v);
    *length = o.n;
    arena_init(&a, 0);
    CHECK_MSG(json_parse(&j, o.buf, o.n, &a, "t", NULL) == OK, "%s", o.buf);
    double back = j ? j->f : NAN;
    if (j && j->kind == JSON_NULL) back = NAN;
    arena_free(&a);
    json_out_free(&o);
    return back;
}

TEST(json_floats_read_back)
{
    size_t n;
    uint64_t seed = 3;
    for (int i = 0; i < 5000; i++) {
        uint32_t bits = (uint32_t)test_rand(&seed);
        float f;
        memcpy(&f, &bits, 4);
        if (!isfinite(f)) continue;
        double back = write_and_read(f, &n);
        CHECK_MSG((float)back == f, "%.9g came back as %.9g", f, back);
    }
    for (int i = 0; i < 20000; i++) { /* doubles between two floats: the written text must not jump to a neighbour */
        double v = (1 + (double)(test_rand(&seed) >> 12) * 0x1p-52) * (i % 2 ? 1e27 : 3e-5), back = write_and_read(v, &n);
        CHECK_MSG((float)back == (float)v, "%.17g came back as %.17g", v, back);
    }
    static const double wide[] = { 1e300, -1e-300, 1e39, DBL_MAX, DBL_MIN, 5e-324, 1.2345678901234567e-45 };
    for (int i = 0; i < ARRAY_LEN(wide); i++) CHECK_MSG(write_and_read(wide[i], &n) == wide[i], "%.17g", wide[i]);
    CHECK(write_and_read(0.1, &n) == 0.1 && n == 3); /* shortest */
    CHECK(write_and_read(0, &n) == 0 && n == 1);
    CHECK(isnan(write_and_read(NAN, &n)) && isnan(write_and_read(INFINITY, &n)) && isnan(write_and_read(-INFINITY, &n)));
}

TEST(json_writer_failure_is_sticky)
{
    for (int n = 1; n <= 3; n++) {
        struct json_out o;
        json_out_init(&o, true);
        mem_fail_at(n, false);
        json_begin(&o, NULL, '[');
        for (int i = 0; i < 100; i++) json_put_i64(&o, NULL, 1000000 + i); /* 1.2 kB: buffers of 256, 512, 1024, 2048 bytes */
        json_end(&o, ']');
        mem_fail_at(0, false);
        CHECK(!json_out_ok(&o));
        json_out_free(&o);
        CHECK(json_out_ok(&o));
    }
}

SUITE(json, T(json_accepts), T(json_parse_python_takes_what_is_no_number),
      T(json_refuses_with_line_and_column), T(json_refuses_every_truncation), T(json_nul_bytes_are_not_blanks),
      T(json_values_arrive), T(json_integers_that_do_not_fit_become_floats), T(json_depth_ends_at_64),
      T(json_large_objects_are_checked_in_linear_time), T(json_parse_survives_failure_of_every_allocation),
      T(json_writer_places_commas_and_lines), T(json_strings_round_trip), T(json_writer_escapes_and_repairs), T(json_floats_read_back),
      T(json_writer_failure_is_sticky));

/* gguf, gguf_write: files are built byte by byte in struct bytes, damaged, and parsed from an exact-size heap copy, so that the sanitizer
 * build sees one byte too far. golden/gguf.bin comes from another writer (golden/gguf_file.py). */
#include "tests/gguf_use.h"
#include "tests/test.h"
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- building files ---- */

struct bytes { uint8_t p[16384]; size_t n; };

static void put(struct bytes *b, const void *p, size_t n)
{
    if (b->n + n > sizeof b->p) abort();
    memcpy(b->p + b->n, p, n);
    b->n += n;
}
static void put_u32(struct bytes *b, uint32_t v) { put(b, &v, sizeof v); }
static void put_u64(struct bytes *b, uint64_t v) { put(b, &v, sizeof v); }
static void put_text(struct bytes *b, const char *s) { put_u64(b, strlen(s)), put(b, s, strlen(s)); }
static void put_head(struct bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    b->n = 0;
    put(b, "GGUF", 4), put_u32(b, version), put_u64(b, n_tensors), put_u64(b, n_kv);
}
static void put_kv_u32(struct bytes *b, const char *key, uint32_t v) { put_text(b, key), put_u32(b, KV_U32), put_u32(b, v); }
static void put_info(struct bytes *b, const char *name, uint32_t n_dims, uint64_t ne0, uint64_t ne1, int32_t type, uint64_t offset)
{
    uint64_t ne[4] = { ne0, ne1, 1, 1 };
    put_text(b, name), put_u32(b, n_dims), put(b, ne, (n_dims <= 4 ? n_dims : 4) * 8), put_u32(b, (uint32_t)type), put_u64(b, offset);
}
static void put_data(struct bytes *b, size_t alignment, size_t n)
{
    while (b->n % alignment) put(b, "", 1);
    for (size_t i = 0; i < n; i++) put(b, &(uint8_t){ (uint8_t)(i * 37 + 1) }, 1);
}

/* Every value kind and three tensors: the file that is cut and flipped below. Returns the length of its header. */
static size_t build_tiny(struct bytes *b)
{
    put_head(b, 3, 3, 16);
    for (uint32_t kind = KV_U8; kind <= KV_F64; kind++) {
        if (kind == KV_ARR) continue;
        char key[16];
        snprintf(key, sizeof key, "a.%s", gguf_kind_name(kind));
        put_text(b, key), put_u32(b, kind);
        if (kind == KV_STR) put_text(b, "hello");
        else put_u64(b, 1), b->n -= 8 - gguf_kind_bytes(kind);
    }
    put_text(b, "arr.i32"), put_u32(b, KV_ARR), put_u32(b, KV_I32), put_u64(b, 3), put_u32(b, 7), put_u32(b, (uint32_t)-8), put_u32(b, 9);
    put_text(b, "arr.str"), put_u32(b, KV_ARR), put_u32(b, KV_STR), put_u64(b, 2), put_text(b, "x"), put_text(b, "yz");
    put_kv_u32(b, "general.alignment", 16);
    put_text(b, "arr.none"), put_u32(b, KV_ARR), put_u32(b, KV_F32), put_u64(b, 0);
    put_info(b, "norm", 1, 4, 0, GGUF_F32, 0);
    put_info(b, "w.q4", 2, 32, 2, GGUF_Q4_0, 16);
    put_info(b, "w.q8", 2, 32, 1, GGUF_Q8_0, 64);
    size_t header = b->n;
    put_data(b, 16, 64 + 34);
    return header;
}

static status parse_copy(const uint8_t *p, size_t n, struct gguf *g, uint8_t **copy, struct err *e)
{
    *e = (struct err){ 0 };
    *copy = malloc(n ? n : 1);
    memcpy(*copy, p, n);
    status st = gguf_parse(g, *copy, n, "t.gguf", e);
    if (st == OK) return OK;
    free(*copy);
    *copy = NULL;
    return st;
}

/* ERR_FORMAT, and the text contains both phrases. */
static void expect_refused(const struct bytes *b, const char *a, const char *c, int line)
{
    struct gguf g;
    struct err e;
    uint8_t *copy;
    status st = parse_copy(b->p, b->n, &g, &copy, &e);
    if (st == OK) {
        gguf_close(&g);
        free(copy);
    }
    if (st != ERR_FORMAT) test_fail(__FILE__, line, "status %d, expected a refusal with \"%s\"", st, a);
    else if (!strstr(e.text, a) || !strstr(e.text, c)) test_fail(__FILE__, line, "\"%s\" lacks \"%s\" or \"%s\"", e.text, a, c);
    else if (strncmp(e.text, "t.gguf: ", 8)) test_fail(__FILE__, line, "\"%s\" does not start with the path", e.text);
}
#define REFUSED(b, a, c) expect_refused(b, a, c, __LINE__)

static void expect_accepted(const struct bytes *b, int line)
{
    struct gguf g;
    struct err e;
    uint8_t *copy;
    if (parse_copy(b->p, b->n, &g, &copy, &e) != OK) {
        test_fail(__FILE__, line, "refused: %s", e.text);
        return;
    }
    gguf_use(&g);
    gguf_close(&g);
    free(copy);
}
#define ACCEPTED(b) expect_accepted(b, __LINE__)

static void write_file(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n || fclose(f)) abort();
}

static uint8_t *read_file(const char *path, size_t *n)
{
    char *text;
    struct err e = { 0 };
    if (file_text(path, 1 << 24, &text, n, &e) == OK) return (uint8_t *)text;
    test_fail(__FILE__, __LINE__, "%s", e.text);
    *n = 0;
    return NULL;
}

/* ---- reading ---- */

TEST(gguf_reads_what_the_reference_writer_wrote)
{
    struct gguf g;
    struct err e = { 0 };
    if (gguf_open(&g, "tests/golden/gguf.bin", true, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        return;
    }
    int64_t i = 0;
    float f = 0;
    bool b = false;
    struct str s = { 0 };
    const struct gguf_kv *a = NULL;
    CHECK(g.version == 3 && g.alignment == 64 && g.n_tensors == 4 && g.file.mapped);
    static const struct { const char *key; int64_t v; } ints[] = {
        { "kind.u8", 200 }, { "kind.i8", -100 }, { "kind.u16", 60000 }, { "kind.i16", -30000 }, { "kind.u32", 4000000000 },
        { "kind.i32", -2000000000 }, { "kind.i64", -((int64_t)1 << 62) },
    };
    for (int k = 0; k < ARRAY_LEN(ints); k++) {
        CHECK_MSG(gguf_get_i64(&g, ints[k].key, INT64_MIN, INT64_MAX, &i, &e) && i == ints[k].v, "%s is %lld", ints[k].key, (long long)i);
    }
    CHECK(gguf_get_f32(&g, "kind.f32", &f, &e) && f == 0.15625f);
    CHECK(gguf_get_f32(&g, "kind.f64", &f, &e) && f == 0.1f);
    CHECK(gguf_get_bool(&g, "kind.bool", &b, &e) && b);
    CHECK(gguf_get_str(&g, "kind.str", &s, &e) && s.n == 12 && !memcmp(s.p, "gr\xc3\xbc\xc3\x9f" "e \xf0\x9f\x8c\x8d", 12));
    CHECK(gguf_get_arr(&g, "arr.i32", KV_I32, &a, &e) && a->n == 5 && gguf_arr_i64(a, 1) == -1 && gguf_arr_i64(a, 4) == 5);
    CHECK(gguf_get_arr(&g, "arr.f32", KV_F32, &a, &e) && a->n == 3 && gguf_arr_f32(a, 1) == -2.0f);
    CHECK(gguf_get_arr(&g, "arr.bool", KV_BOOL, &a, &e) && a->n == 3 && gguf_arr_i64(a, 0) == 1 && gguf_arr_i64(a, 1) == 0);
    CHECK(gguf_get_arr(&g, "arr.str", KV_STR, &a, &e) && a->n == 4);
    const uint8_t *cursor = a->data;
    static const char *const strings[] = { "a", "", "\xc4\xa0the", "<|end|>" };
    for (int k = 0; k < 4; k++) {
        s = gguf_arr_str(&cursor);
        CHECK_MSG(s.n == strlen(strings[k]) && !memcmp(s.p, strings[k], s.n), "string %d", k);
    }
    CHECK_MSG(e.code == OK, "%s", e.text);
    const struct tensor *t = gguf_tensor(&g, "half.weight");
    CHECK(t && t->type->gguf_id == GGUF_F16 && t->ne[0] == 16 && t->ne[1] == 2 && t->ne[2] == 2 && t->ne[3] == 1 && t->nb[1] == 32);
    CHECK(t && f16_to_f32(((const uint16_t *)t->data)[63]) == 3.875f);
    t = gguf_tensor(&g, "blk.0.q8.weight");
    float w[32];
    if (t) dtype_to_f32(t->type, (const uint8_t *)t->data + t->nb[1], w, 32);
    CHECK(t && fabsf(w[31] - 3.875f) < 0.02f && w[0] == 0.0f);
    CHECK(gguf_tensor(&g, "half.weigh") == NULL && gguf_tensor(&g, "") == NULL && gguf_find(&g, "kind.u") == NULL);
    gguf_close(&g);
}

TEST(gguf_reads_the_same_without_mmap)
{
    struct gguf a, b;
    struct err e = { 0 };
    CHECK(gguf_open(&a, "tests/golden/gguf.bin", true, &e) == OK && gguf_open(&b, "tests/golden/gguf.bin", false, &e) == OK);
    CHECK(!b.file.mapped && a.n_kv == b.n_kv && a.data_offset == b.data_offset && gguf_use(&a) == gguf_use(&b));
    gguf_close(&a);
    gguf_close(&b);
}

TEST(gguf_reads_version_2_and_files_without_tensors)
{
    struct bytes b;
    build_tiny(&b);
    b.p[4] = 2;
    ACCEPTED(&b);
    put_head(&b, 3, 0, 1);
    put_kv_u32(&b, "k", 1);
    ACCEPTED(&b);
    put_head(&b, 3, 0, 0);
    ACCEPTED(&b);
}

TEST(gguf_getters_refuse_other_types_and_ranges)
{
    struct bytes b;
    struct gguf g;
    struct err e;
    uint8_t *copy;
    int64_t i = 77;
    float f = 77;
    bool flag = true;
    struct str s = { 0 };
    const struct gguf_kv *a;
    put_head(&b, 3, 0, 5);
    put_kv_u32(&b, "n", 300);
    put_text(&b, "big"), put_u32(&b, KV_U64), put_u64(&b, UINT64_MAX);
    put_text(&b, "s"), put_u32(&b, KV_STR), put_text(&b, "text");
    put_text(&b, "f"), put_u32(&b, KV_F32), put_u32(&b, 0x3f800000);
    put_text(&b, "arr"), put_u32(&b, KV_ARR), put_u32(&b, KV_U8), put_u64(&b, 2), put(&b, "\1\2", 2);
    if (parse_copy(b.p, b.n, &g, &copy, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        return;
    }
#define GIVES(call, phrase) do { e = (struct err){ 0 }; CHECK(!(call)); CHECK(e.code == ERR_FORMAT); CHECK_HAS(e.text, phrase); } while (0)
    GIVES(gguf_get_i64(&g, "n", 0, 255, &i, &e), "n is 300, allowed are 0 to 255");
    GIVES(gguf_get_i64(&g, "n", 301, 400, &i, &e), "301 to 400");
    GIVES(gguf_get_i64(&g, "big", INT64_MIN, INT64_MAX, &i, &e), "18446744073709551615");
    GIVES(gguf_get_i64(&g, "f", 0, 9, &i, &e), "f: the type is f32, expected an integer");
    GIVES(gguf_get_i64(&g, "arr", 0, 9, &i, &e), "the type is array of u8");
    GIVES(gguf_get_f32(&g, "n", &f, &e), "n: the type is u32, expected f32");
    GIVES(gguf_get_bool(&g, "n", &flag, &e), "expected bool");
    GIVES(gguf_get_str(&g, "arr", &s, &e), "expected string");
    GIVES(gguf_get_arr(&g, "arr", KV_F32, &a, &e), "the type is array of u8, expected array of f32");
    GIVES(gguf_get_arr(&g, "s", KV_STR, &a, &e), "the type is string, expected array of string");
    CHECK(i == 77 && f == 77 && flag && s.p == NULL);
    e = (struct err){ 0 };
    CHECK(!gguf_get_i64(&g, "absent", 0, 1, &i, &e) && !gguf_get_arr(&g, "absent", KV_U8, &a, &e) && e.code == OK);
    CHECK(gguf_get_i64(&g, "n", 300, 300, &i, &e) && i == 300 && e.code == OK);
    gguf_close(&g);
    free(copy);
}

/* ---- refusals; L numbers: table 5.1 of the reliability document ---- */

TEST(gguf_open_refuses_what_is_no_regular_file) /* L1 */
{
    struct gguf g;
    struct err e = { 0 };
    const char *empty = test_tmp("gguf_empty"), *three = test_tmp("gguf_three"), *fifo = test_tmp("gguf_fifo");
    write_file(empty, "", 0);
    CHECK(gguf_open(&g, empty, true, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "gguf_empty: the file is empty");
    write_file(three, "GGU", 3);
    e = (struct err){ 0 };
    CHECK(gguf_open(&g, three, true, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "3 bytes");
    unlink(fifo);
    if (mkfifo(fifo, 0600) == 0) CHECK(gguf_open(&g, fifo, true, NULL) == ERR_FILE);
    unlink(fifo);
    CHECK(gguf_open(&g, "/dev/zero", true, NULL) == ERR_FILE);
    CHECK(gguf_open(&g, "tests", true, NULL) == ERR_FILE);
    e = (struct err){ 0 };
    CHECK(gguf_open(&g, "no/such.gguf", true, &e) == ERR_FILE);
    CHECK_HAS(e.text, "no/such.gguf");
    gguf_close(&g);
}

TEST(gguf_says_what_other_files_are) /* L2 */
{
    static const struct { const char *start, *text; } others[] = {
        { "version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs pointer, download the real file" },
        { "PK\x03\x04rest of a zip archive", "zip archive" },
        { "<!DOCTYPE html><html><body>404</body>", "HTML page" },
        { "<html><head>", "HTML page" },
        { "FUGG\1\1\1\1", "big-endian" },
        { "tjgg\1\1\1\1", "before GGUF" },
        { "Repository not found.", "text file" },
        { "\x7f" "ELF\2\1\1", "7f 45 4c 46" },
    };
    struct bytes b;
    for (int i = 0; i < ARRAY_LEN(others); i++) {
        b.n = 0;
        put(&b, others[i].start, strlen(others[i].start));
        REFUSED(&b, others[i].text, "");
    }
    b.n = 0;
    put_u64(&b, 40), put(&b, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_o", 40);
    REFUSED(&b, "safetensors", "");
}

TEST(gguf_refuses_other_versions) /* L3 */
{
    struct bytes b;
    static const struct { uint32_t version; const char *text; } versions[] = {
        { 0, "version is 0" }, { 1, "version 1" }, { 4, "version is 4, this build reads 2 and 3" }, { 0x03000000, "big-endian" },
        { 0x02000000, "big-endian" }, { UINT32_MAX, "version is 4294967295" },
    };
    for (int i = 0; i < ARRAY_LEN(versions); i++) {
        build_tiny(&b);
        memcpy(b.p + 4, &versions[i].version, 4);
        REFUSED(&b, versions[i].text, "");
    }
}

TEST(gguf_refuses_impossible_counts_without_allocating) /* L4 */
{
    struct bytes b;
    static const struct { uint64_t n_tensors, n_kv; const char *text; } counts[] = {
        { 3, (uint64_t)1 << 63, "number of keys is 9223372036854775808" }, { 3, (uint64_t)1 << 32, "at most 65536" },
        { 3, 65536, "number of keys is 65536" }, { UINT64_MAX, 16, "number of tensors is 18446744073709551615" },
        { 1000001, 16, "at most 1000000" }, { 1000000, 16, "number of tensors is 1000000" },
    };
    for (int i = 0; i < ARRAY_LEN(counts); i++) {
        build_tiny(&b);
        memcpy(b.p + 8, &counts[i].n_tensors, 8);
        memcpy(b.p + 16, &counts[i].n_kv, 8);
        int64_t before = mem_count();
        REFUSED(&b, counts[i].text, "");
        CHECK(mem_count() == before);
    }
    build_tiny(&b);
    b.p[16]++; /* the first tensor info passes for a key, what follows does not */
    REFUSED(&b, "tensor 0", "");
    build_tiny(&b);
    b.p[8]++;
    REFUSED(&b, "tensor 3", "");
}

TEST(gguf_refuses_bad_keys) /* L5 */
{
    struct bytes b;
    static const struct { uint64_t len; const char *key, *text; } keys[] = {
        { 0, "", "length of the key is 0, allowed are 1 to 65535" }, { (uint64_t)1 << 63, "k", "length of the key is 9223372036854775808" },
        { UINT64_MAX - 7, "k", "bytes left" }, { 3, "a\0b", "control byte 0x00 at 1" }, { 3, "a\nb", "control byte 0x0a" },
        { 2, "a\xff", "not UTF-8: byte 0xff at 1" }, { 2, "\xc0\x80", "not UTF-8" }, { 3, "\xed\xa0\x80", "not UTF-8" },
        { 2, "a\xe2", "not UTF-8" }, { 4, "\xf4\x90\x80\x80", "not UTF-8" },
    };
    for (int i = 0; i < ARRAY_LEN(keys); i++) {
        put_head(&b, 3, 0, 2);
        put_kv_u32(&b, "first", 1);
        put_u64(&b, keys[i].len), put(&b, keys[i].key, keys[i].len < 9 ? keys[i].len : 1), put_u32(&b, KV_U32), put_u32(&b, 1);
        REFUSED(&b, keys[i].text, "key 1, byte");
    }
    static uint8_t large[65536 + 64];
    for (int over = 0; over < 2; over++) {
        uint64_t len = 65535 + (uint64_t)over;
        put_head(&b, 3, 0, 1);
        put_u64(&b, len);
        memcpy(large, b.p, b.n);
        memset(large + b.n, 'k', len);
        memset(large + b.n + len, 0, 5); /* type u8, value 0 */
        struct gguf g;
        struct err e = { 0 };
        CHECK(gguf_parse(&g, large, b.n + len + 5, "t", &e) == (over ? ERR_FORMAT : OK));
        if (over) CHECK_HAS(e.text, "length of the key is 65536");
        gguf_close(&g);
    }
}

TEST(gguf_refuses_bad_values) /* L6 */
{
    struct bytes b;
    static const uint32_t kinds[] = { 13, 255, UINT32_MAX };
    for (int i = 0; i < ARRAY_LEN(kinds); i++) {
        put_head(&b, 3, 0, 1), put_text(&b, "k"), put_u32(&b, kinds[i]), put_u64(&b, 0);
        REFUSED(&b, "the value type is", "key 0 'k'");
        put_head(&b, 3, 0, 1), put_text(&b, "k"), put_u32(&b, KV_ARR), put_u32(&b, kinds[i]), put_u64(&b, 0);
        REFUSED(&b, "the element type is", "known are 0 to 12");
    }
    put_head(&b, 3, 0, 1), put_text(&b, "k"), put_u32(&b, KV_ARR), put_u32(&b, KV_ARR), put_u64(&b, 1), put_u64(&b, 0);
    REFUSED(&b, "arrays of arrays", "key 0 'k'");
    static const uint64_t lengths[] = { (uint64_t)1 << 63, UINT64_MAX, ((uint64_t)1 << 61) + 1, 5 };
    for (int i = 0; i < ARRAY_LEN(lengths); i++)
        for (uint32_t kind = KV_U8; kind <= KV_F64; kind++) {
            if (kind == KV_ARR) continue;
            put_head(&b, 3, 0, 1), put_text(&b, "k"), put_u32(&b, KV_ARR), put_u32(&b, kind), put_u64(&b, lengths[i]), put_u32(&b, 0);
            REFUSED(&b, "do not fit in the 4 bytes left", "");
        }
    put_head(&b, 3, 0, 1), put_text(&b, "k"), put_u32(&b, KV_ARR), put_u32(&b, KV_STR), put_u64(&b, 2);
    put_text(&b, "ok"), put_u64(&b, 9), put(&b, "short", 5);
    REFUSED(&b, "length of a string is 9, 5 bytes left", "key 0 'k'");
    put_head(&b, 3, 0, 1), put_text(&b, "flag"), put_u32(&b, KV_BOOL), put(&b, "\2", 1);
    REFUSED(&b, "value 2, expected 0 or 1", "'flag'");
    put_head(&b, 3, 0, 1), put_text(&b, "flags"), put_u32(&b, KV_ARR), put_u32(&b, KV_BOOL), put_u64(&b, 3), put(&b, "\0\1\3", 3);
    REFUSED(&b, "bool 2 has the value 3", "'flags'");
}

TEST(gguf_refuses_duplicates_but_not_other_case) /* L7 */
{
    struct bytes b;
    put_head(&b, 3, 0, 4);
    put_kv_u32(&b, "twice", 1), put_kv_u32(&b, "b", 1), put_kv_u32(&b, "a", 1), put_kv_u32(&b, "twice", 2);
    REFUSED(&b, "key 'twice' appears twice (keys 0 and 3)", "");
    put_head(&b, 3, 3, 0);
    put_info(&b, "t", 1, 8, 0, GGUF_F32, 0), put_info(&b, "u", 1, 8, 0, GGUF_F32, 32), put_info(&b, "t", 1, 8, 0, GGUF_F32, 64);
    put_data(&b, 32, 96);
    REFUSED(&b, "tensor 't' appears twice (tensors 0 and 2)", "");
    put_head(&b, 3, 2, 2);
    put_kv_u32(&b, "key", 1), put_kv_u32(&b, "Key", 1);
    put_info(&b, "t", 1, 8, 0, GGUF_F32, 0), put_info(&b, "T", 1, 8, 0, GGUF_F32, 32);
    put_data(&b, 32, 64);
    ACCEPTED(&b);
}

TEST(gguf_checks_the_alignment_key) /* L8 */
{
    struct bytes b;
    static const uint32_t bad[] = { 0, 1, 3, 4, 24, 1u << 21, 1u << 31, UINT32_MAX };
    for (int i = 0; i < ARRAY_LEN(bad); i++) {
        put_head(&b, 3, 0, 1), put_kv_u32(&b, "general.alignment", bad[i]);
        char text[48];
        snprintf(text, sizeof text, "general.alignment is %u", bad[i]);
        REFUSED(&b, text, "power of two from 8 to 1048576");
    }
    put_head(&b, 3, 0, 1), put_text(&b, "general.alignment"), put_u32(&b, KV_I32), put_u32(&b, 32);
    REFUSED(&b, "has type i32, expected u32", "");
    for (uint32_t a = 8; a <= 4096; a *= 2) {
        put_head(&b, 3, 2, 1), put_kv_u32(&b, "general.alignment", a);
        put_info(&b, "x", 1, 1, 0, GGUF_F32, 0), put_info(&b, "y", 1, 1, 0, GGUF_F32, a);
        put_data(&b, a, a + 4);
        ACCEPTED(&b);
    }
    put_head(&b, 3, 0, 1), put_kv_u32(&b, "general.alignment", 1 << 20);
    ACCEPTED(&b);
}

TEST(gguf_refuses_bad_shapes) /* L9 */
{
    struct bytes b;
    static const struct { uint32_t n_dims; uint64_t ne0, ne1; int32_t type; const char *text; } shapes[] = {
        { 0, 0, 0, GGUF_F32, "dimensions is 0, expected 1 to 4" }, { 5, 1, 1, GGUF_F32, "dimensions is 5" },
        { UINT32_MAX, 1, 1, GGUF_F32, "dimensions is 4294967295" }, { 2, 8, 0, GGUF_F32, "shape [8, 0] has a zero dimension" },
        { 1, 0, 0, GGUF_F32, "zero dimension" }, { 1, (uint64_t)1 << 63, 1, GGUF_F32, "shape [9223372036854775808] has too many" },
        { 2, (uint64_t)1 << 32, (uint64_t)1 << 32, GGUF_F32, "too many elements" },
        { 2, (uint64_t)1 << 31, (uint64_t)1 << 32, GGUF_F32, "too many elements" },
        { 1, (uint64_t)1 << 62, 1, GGUF_F32, "more bytes than can be addressed" },
        { 2, (uint64_t)1 << 61, 2, GGUF_F32, "more bytes than can be addressed" },
        { 2, 48, 2, GGUF_Q4_0, "shape [48, 2] does not divide into Q4_0 blocks of 32" },
        { 1, 128, 1, GGUF_Q4_K, "does not divide into Q4_K blocks of 256" },
    };
    for (int i = 0; i < ARRAY_LEN(shapes); i++) {
        put_head(&b, 3, 1, 0);
        put_info(&b, "blk.0.w", shapes[i].n_dims, shapes[i].ne0, shapes[i].ne1, shapes[i].type, 0);
        put_data(&b, 32, 256);
        REFUSED(&b, shapes[i].text, "tensor 0 'blk.0.w'");
    }
    char name[300];
    memset(name, 'n', sizeof name);
    for (int len = 255; len <= 256; len++) {
        name[len] = 0;
        put_head(&b, 3, 1, 0), put_info(&b, name, 1, 8, 0, GGUF_F32, 0), put_data(&b, 32, 32);
        if (len == 255) ACCEPTED(&b);
        else REFUSED(&b, "length of the tensor name is 256, allowed are 1 to 255", "");
        name[len] = 'n';
    }
    put_head(&b, 3, 1, 0), put_u64(&b, 3), put(&b, "a\0b", 3), put_u32(&b, 1), put_u64(&b, 8), put_u32(&b, GGUF_F32), put_u64(&b, 0);
    put_data(&b, 32, 32);
    REFUSED(&b, "control byte 0x00", "tensor 0");
}

TEST(gguf_names_types_it_cannot_read) /* L10 */
{
    struct bytes b;
    static const struct { int32_t id; const char *text; } types[] = {
        { 4, "type id 4: removed type Q4_2" }, { 31, "removed" }, { 36, "removed" }, { 38, "removed" }, { 43, "type id 43: unknown" },
        { 144, "ik_llama.cpp" }, { 200, "type id 200: unknown to this build" }, { -1, "type id -1: unknown" }, { INT32_MIN, "unknown" },
    };
    for (int i = 0; i < ARRAY_LEN(types); i++) {
        put_head(&b, 3, 1, 0), put_info(&b, "w", 1, 256, 0, types[i].id, 0), put_data(&b, 32, 2048);
        REFUSED(&b, types[i].text, "tensor 0 'w'");
    }
}

TEST(gguf_refuses_bad_offsets) /* L11 */
{
    struct bytes b;
    static const struct { uint64_t a, c; const char *text, *where; } offsets[] = {
        { 16, 64, "offset 16 is not a multiple of the alignment 32", "'x'" },
        { 0, 4096, "offset 4096 is beyond the 96 data bytes", "'y'" },
        { 0, UINT64_MAX - 31, "is beyond", "'y'" },
        { 0, (uint64_t)1 << 63, "is beyond", "'y'" },
        { 0, 96, "needs 32 bytes at offset 96, the file has 0 there: 32 missing", "'y'" },
        { 0, 32, "tensors 'x' and 'y' overlap: 64 bytes, but the next starts after 32", "" },
        { 32, 0, "overlap", "" }, { 0, 0, "overlap", "" },
    };
    for (int i = 0; i < ARRAY_LEN(offsets); i++) {
        bool y_first = i == 6; /* y (32 bytes at 0) may stand before x; make it longer so that it reaches into x */
        put_head(&b, 3, 2, 0);
        put_info(&b, "x", 1, 16, 0, GGUF_F32, offsets[i].a), put_info(&b, "y", 1, y_first ? 9 : 8, 0, GGUF_F32, offsets[i].c);
        put_data(&b, 32, 96);
        REFUSED(&b, offsets[i].text, offsets[i].where);
    }
    put_head(&b, 3, 2, 0), put_info(&b, "x", 1, 16, 0, GGUF_F32, 0), put_info(&b, "y", 1, 8, 0, GGUF_F32, 64), put_data(&b, 32, 95);
    REFUSED(&b, "needs 32 bytes at offset 64, the file has 31 there: 1 missing", "tensor 1 'y'");
    put_head(&b, 3, 2, 0), put_info(&b, "x", 1, 16, 0, GGUF_F32, 96), put_info(&b, "y", 1, 8, 0, GGUF_F32, 32), put_data(&b, 32, 200);
    ACCEPTED(&b); /* out of order, with gaps */
}

TEST(gguf_refuses_a_file_cut_anywhere) /* L12 */
{
    struct bytes b;
    build_tiny(&b);
    ACCEPTED(&b);
    for (size_t n = 0; n < b.n; n++) {
        struct gguf g;
        struct err e;
        uint8_t *copy;
        status st = parse_copy(b.p, n, &g, &copy, &e);
        CHECK_MSG(st == ERR_FORMAT && e.text[0], "cut at %zu: status %d", n, st);
    }
}

TEST(gguf_survives_every_flipped_header_bit) /* L13 */
{
    struct bytes b;
    size_t header = build_tiny(&b);
    int opened = 0, refused = 0;
    for (size_t bit = 0; bit < header * 8; bit++) {
        struct gguf g;
        struct err e;
        uint8_t *copy;
        b.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (parse_copy(b.p, b.n, &g, &copy, &e) == OK) {
            gguf_use(&g);
            gguf_close(&g);
            free(copy);
            opened++;
        } else {
            CHECK_MSG(e.code == ERR_FORMAT && strlen(e.text) > 20, "bit %zu: \"%s\"", bit, e.text);
            refused++;
        }
        b.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK_MSG(opened > 100 && refused > 1000, "%d opened, %d refused", opened, refused);
}

TEST(gguf_survives_random_damage)
{
    struct bytes b, clean;
    size_t header = build_tiny(&clean);
    uint64_t s = 4;
    int opened = 0;
    for (int round = 0; round < 20000; round++) {
        b = clean;
        for (int k = (int)(test_rand(&s) % 6); k >= 0; k--) {
            static const uint64_t nasty[] = { 0,          1, 8, 255, 0x7fffffff, 0x80000000, UINT32_MAX, (uint64_t)1 << 63,
                                              UINT64_MAX, UINT64_MAX - 7 };
            uint64_t at = test_rand(&s) % (header - 8), v = test_rand(&s) % 3 ? nasty[test_rand(&s) % ARRAY_LEN(nasty)] : test_rand(&s);
            memcpy(b.p + at, &v, (size_t)1 << test_rand(&s) % 4);
        }
        struct gguf g;
        struct err e;
        uint8_t *copy;
        if (parse_copy(b.p, b.n, &g, &copy, &e) != OK) continue;
        gguf_use(&g);
        gguf_close(&g);
        free(copy);
        opened++;
    }
    CHECK_MSG(opened > 20, "%d opened", opened);
}

TEST(gguf_refuses_parts_of_split_models)
{
    struct bytes b;
    put_head(&b, 3, 0, 1), put_text(&b, "split.count"), put_u32(&b, KV_U16), put(&b, "\5\0", 2);
    REFUSED(&b, "split.count is 5", "open the file of the first part");
    put_head(&b, 3, 0, 1), put_text(&b, "split.count"), put_u32(&b, KV_U16), put(&b, "\1\0", 2);
    ACCEPTED(&b);
    put_head(&b, 3, 0, 1), put_text(&b, "split.count"), put_u32(&b, KV_STR), put_text(&b, "5");
    REFUSED(&b, "split.count: the type is string", "");
}

TEST(gguf_error_texts_show_hostile_names_safely)
{
    struct bytes b;
    char name[200];
    memset(name, 'x', sizeof name);
    memcpy(name, "\xe2\x80\xae", 3); /* right-to-left override: valid UTF-8, but not for a terminal */
    name[199] = 0;
    put_head(&b, 3, 1, 0), put_info(&b, name, 1, 256, 0, 200, 0), put_data(&b, 32, 2048);
    REFUSED(&b, "'???xxx", "...', byte");
    struct gguf g;
    struct err e = { 0 };
    char path[400];
    memset(path, 'p', sizeof path);
    memcpy(path + 390, "/end.gguf", 10);
    CHECK(gguf_parse(&g, b.p, b.n, path, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "type id 200: unknown to this build");
    CHECK_HAS(e.text, "/end.gguf: tensor 0");
}

/* ---- resources ---- */

TEST(gguf_metadata_stays_below_three_times_the_header)
{
    enum { N = 20000 };
    static uint8_t file[N * 64];
    size_t n = 24;
    memcpy(file, "GGUF\3\0\0\0", 8);
    uint64_t count = N;
    memcpy(file + 8, &count, 8), memcpy(file + 16, &(uint64_t){ 0 }, 8);
    for (int i = 0; i < N; i++) { /* the densest tensor infos there can be: short names, one dimension */
        char name[8];
        uint64_t len = (uint64_t)snprintf(name, sizeof name, "%x", i), ne = 1, offset = (uint64_t)i * 32;
        uint32_t dims = 1;
        memcpy(file + n, &len, 8), memcpy(file + n + 8, name, len), n += 8 + len;
        memcpy(file + n, &dims, 4), memcpy(file + n + 4, &ne, 8), memset(file + n + 12, 0, 4), memcpy(file + n + 16, &offset, 8), n += 24;
    }
    struct gguf g;
    struct err e = { 0 };
    /* the data is not there: only the header is read */
    CHECK_MSG(gguf_check_header(&g, file, n, n + N * 32 + 32, "t", &e) == OK, "%s", e.text);
    CHECK_MSG(g.meta.total < 3 * n, "%zu bytes for a header of %zu", g.meta.total, n);
    CHECK(gguf_tensor(&g, "4e1f") == &g.tensor[N - 1] && gguf_tensor(&g, "4e20") == NULL);
    gguf_close(&g);
}

TEST(gguf_look_ups_find_every_name_in_any_order)
{
    for (int order = 0; order < 3; order++) {
        static struct { uint8_t p[300000]; size_t n; } file;
        static int ids[1000];
        struct bytes b;
        uint64_t s = 8;
        put_head(&b, 3, 0, 1000);
        memcpy(file.p, b.p, b.n), file.n = b.n;
        for (int i = 0; i < 1000; i++) ids[i] = order == 1 ? 999 - i : i;
        for (int i = 999; order == 2 && i > 0; i--) {
            int j = (int)(test_rand(&s) % (uint64_t)(i + 1)), t = ids[i];
            ids[i] = ids[j], ids[j] = t;
        }
        for (int i = 0; i < 1000; i++) {
            char key[32];
            snprintf(key, sizeof key, "%.*skey%d", ids[i] % 7, "prefix.", ids[i]);
            b.n = 0;
            put_kv_u32(&b, key, (uint32_t)ids[i]);
            memcpy(file.p + file.n, b.p, b.n), file.n += b.n;
        }
        struct gguf g;
        struct err e = { 0 };
        if (gguf_parse(&g, file.p, file.n, "t", &e) != OK) {
            test_fail(__FILE__, __LINE__, "%s", e.text);
            continue;
        }
        for (int i = 0; i < 1000; i++) {
            char key[32];
            int64_t v = -1;
            snprintf(key, sizeof key, "%.*skey%d", i % 7, "prefix.", i);
            CHECK_MSG(gguf_get_i64(&g, key, 0, 1000, &v, &e) && v == i, "order %d: %s gives %lld", order, key, (long long)v);
        }
        CHECK(gguf_find(&g, "key1000") == NULL && gguf_find(&g, "") == NULL && gguf_find(&g, "zzz") == NULL);
        gguf_close(&g);
    }
}

TEST(gguf_open_reports_every_failing_allocation)
{
    for (int sticky = 0; sticky < 2; sticky++) {
        int n = 1;
        for (;; n++) {
            struct gguf g;
            struct err e = { 0 };
            mem_fail_at(n, sticky);
            status st = gguf_open(&g, "tests/golden/gguf.bin", false, &e);
            mem_fail_at(0, false);
            if (st == OK) {
                gguf_close(&g);
                break;
            }
            CHECK_MSG(st == ERR_MEMORY && e.text[0], "allocation %d: status %d \"%s\"", n, st, e.text);
            CHECK(g.kv == NULL && g.tensor == NULL && g.file.data == NULL);
            if (n > 100) break;
        }
        CHECK_MSG(n > 2 && n < 100, "%d allocations", n);
    }
}

/* ---- writing ---- */

static struct gguf_writer *open_writer(const char *path)
{
    struct gguf_writer *w = NULL;
    struct err e = { 0 };
    if (gguf_writer_open(&w, path, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return w;
}

static void put_some(struct gguf_writer *w, float *data)
{
    struct tensor t = { .data = data, .name = "w" };
    tensor_shape(&t, dtype_by_name("f32"), 5, 3, 1, 1);
    gguf_put_str(w, "general.architecture", "toy", 3);
    gguf_put_i64(w, "toy.block_count", KV_U32, 2);
    gguf_put_arr_str(w, "toy.names", (struct str[]){ { "a", 1 }, { NULL, 0 }, { "ccc", 3 } }, 3);
    gguf_put_tensor(w, &t);
}

TEST(gguf_written_copy_equals_the_reference_file)
{
    const char *path = test_tmp("gguf_copy.gguf");
    struct gguf g;
    struct err e = { 0 };
    struct gguf_writer *w = open_writer(path);
    if (!w || gguf_open(&g, "tests/golden/gguf.bin", true, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        return;
    }
    for (int64_t i = 0; i < g.n_kv; i++) gguf_put_kv(w, &g.kv[i]);
    for (int64_t i = 0; i < g.n_tensors; i++) gguf_put_tensor(w, &g.tensor[i]);
    CHECK_MSG(gguf_writer_finish(w, &e) == OK, "%s", e.text);
    gguf_close(&g);
    size_t n, m;
    uint8_t *a = read_file("tests/golden/gguf.bin", &n), *b = read_file(path, &m);
    CHECK_MSG(a && b && n == m && !memcmp(a, b, n), "%zu and %zu bytes", n, m);
    mem_free(a);
    mem_free(b);
    unlink(path);
}

TEST(gguf_writer_round_trips_every_kind)
{
    const char *path = test_tmp("gguf_kinds.gguf");
    struct gguf g = { 0 };
    struct err e = { 0 };
    struct gguf_writer *w = open_writer(path);
    static const enum gguf_kind ints[] = { KV_U8, KV_I8, KV_U16, KV_I16, KV_U32, KV_I32, KV_U64, KV_I64 };
    static const int64_t low[] = { 0, -128, 0, -32768, 0, INT32_MIN, 0, INT64_MIN };
    static const int64_t high[] = { 255, 127, 65535, 32767, UINT32_MAX, INT32_MAX, INT64_MAX, INT64_MAX };
    uint8_t packed[8][16];
    for (int i = 0; i < ARRAY_LEN(ints); i++) {
        char key[32];
        snprintf(key, sizeof key, "low.%d", i);
        gguf_put_i64(w, key, ints[i], low[i]);
        snprintf(key, sizeof key, "high.%d", i);
        gguf_put_i64(w, key, ints[i], high[i]);
        size_t bytes = gguf_kind_bytes(ints[i]);
        memcpy(packed[i], &low[i], bytes), memcpy(packed[i] + bytes, &high[i], bytes);
        snprintf(key, sizeof key, "arr.%d", i);
        gguf_put_arr(w, key, ints[i], packed[i], 2);
    }
    gguf_put_i64(w, "yes", KV_BOOL, 1);
    gguf_put_i64(w, "no", KV_BOOL, 0);
    gguf_put_f32(w, "f", -0.75f);
    gguf_put_str(w, "s", "a\0b", 3);
    gguf_put_arr(w, "fs", KV_F32, (float[]){ 1, 2, 3 }, 3);
    gguf_put_arr(w, "ds", KV_F64, (double[]){ 0.5 }, 1);
    gguf_put_arr_str(w, "ss", (struct str[]){ { "one", 3 }, { "", 0 } }, 2);
    gguf_put_arr_str(w, "none", NULL, 0);
    CHECK_MSG(gguf_writer_finish(w, &e) == OK && gguf_open(&g, path, true, &e) == OK, "%s", e.text);
    for (int i = 0; i < ARRAY_LEN(ints) && g.n_kv; i++) {
        char key[32];
        int64_t v = 1;
        const struct gguf_kv *a = NULL;
        snprintf(key, sizeof key, "low.%d", i);
        CHECK_MSG(gguf_get_i64(&g, key, INT64_MIN, INT64_MAX, &v, &e) && v == low[i] && gguf_find(&g, key)->kind == ints[i], "%s", key);
        snprintf(key, sizeof key, "high.%d", i);
        CHECK_MSG(gguf_get_i64(&g, key, INT64_MIN, INT64_MAX, &v, &e) && v == high[i], "%s", key);
        snprintf(key, sizeof key, "arr.%d", i);
        CHECK_MSG(gguf_get_arr(&g, key, ints[i], &a, &e) && a->n == 2, "%s", key);
        CHECK_MSG(a && gguf_arr_i64(a, 0) == low[i] && gguf_arr_i64(a, 1) == high[i], "%s", key);
    }
    bool b = false;
    float f = 0;
    struct str s = { 0 };
    const struct gguf_kv *a = NULL;
    CHECK(gguf_get_bool(&g, "yes", &b, &e) && b && gguf_get_bool(&g, "no", &b, &e) && !b);
    CHECK(gguf_get_f32(&g, "f", &f, &e) && f == -0.75f);
    CHECK(gguf_get_str(&g, "s", &s, &e) && s.n == 3 && !memcmp(s.p, "a\0b", 3));
    CHECK(gguf_get_arr(&g, "fs", KV_F32, &a, &e) && a->n == 3 && gguf_arr_f32(a, 2) == 3.0f);
    CHECK(gguf_get_arr(&g, "ds", KV_F64, &a, &e) && a->n == 1 && gguf_arr_f32(a, 0) == 0.5f);
    CHECK(gguf_get_arr(&g, "ss", KV_STR, &a, &e) && a->n == 2);
    CHECK(gguf_get_arr(&g, "none", KV_STR, &a, &e) && a->n == 0);
    gguf_use(&g);
    gguf_close(&g);
    unlink(path);
}

TEST(gguf_writer_round_trips_every_type_and_alignment)
{
    for (uint32_t alignment = 8; alignment <= 16384; alignment *= 4) {
        const char *path = test_tmp("gguf_types.gguf");
        struct gguf g = { 0 };
        struct err e = { 0 };
        struct gguf_writer *w = open_writer(path);
        static uint8_t data[DTYPE_IDS][2 * 512];
        uint64_t s = 5;
        for (int i = 0; i < ARRAY_LEN(data); i++)
            for (size_t k = 0; k < sizeof data[0]; k++) data[i][k] = (uint8_t)test_rand(&s);
        for (int i = 0; i < dtype_count; i++) {
            struct tensor t = { .data = data[i], .name = dtypes[i]->name };
            tensor_shape(&t, dtypes[i], dtypes[i]->block_len, 1, 2, 1);
            gguf_put_tensor(w, &t);
        }
        gguf_put_i64(w, "general.alignment", KV_U32, alignment); /* may come after the tensors */
        CHECK_MSG(gguf_writer_finish(w, &e) == OK && gguf_open(&g, path, true, &e) == OK, "%s", e.text);
        CHECK(g.alignment == alignment && g.data_offset % alignment == 0 && g.file.size % alignment == 0);
        for (int i = 0; i < dtype_count; i++) {
            const struct tensor *t = gguf_tensor(&g, dtypes[i]->name);
            CHECK_MSG(t && t->type == dtypes[i] && t->ne[2] == 2 && !memcmp(t->data, data[i], tensor_bytes(t)), "%s", dtypes[i]->name);
        }
        gguf_close(&g);
        unlink(path);
    }
}

TEST(gguf_writer_refuses_what_the_reader_would)
{
    const char *path = test_tmp("gguf_refused.gguf");
    float data[16] = { 0 };
    struct tensor t = { .data = data, .name = "w" };
    tensor_shape(&t, dtype_by_name("f32"), 5, 1, 1, 1);
    char part[300];
    snprintf(part, sizeof part, "%s.part-%lld", path, (long long)getpid());
    unlink(path);
    for (int fault = 0; fault < 7; fault++) {
        struct err e = { 0 };
        struct gguf_writer *w = open_writer(path);
        if (!w) return;
        CHECK(access(part, F_OK) == 0);
        put_some(w, data);
        static const char *const texts[] = { "key 'toy.block_count' appears twice", "tensor 'w' appears twice", "70000 does not fit u16",
                                             "general.alignment is 24", "length of the key is 0", "length of the tensor name is 0",
                                             "2 does not fit bool" };
        if (fault == 0) gguf_put_f32(w, "toy.block_count", 1.0f);
        if (fault == 1) gguf_put_tensor(w, &t);
        if (fault == 2) gguf_put_i64(w, "k", KV_U16, 70000);
        if (fault == 3) gguf_put_i64(w, "general.alignment", KV_U32, 24);
        if (fault == 4) gguf_put_f32(w, "", 1.0f);
        if (fault == 5) t.name = "", gguf_put_tensor(w, &t);
        if (fault == 6) gguf_put_i64(w, "k", KV_BOOL, 2);
        CHECK_MSG(gguf_writer_finish(w, &e) != OK, "fault %d accepted", fault);
        CHECK_HAS(e.text, texts[fault]);
        CHECK_MSG(access(path, F_OK) != 0 && access(part, F_OK) != 0, "fault %d left a file", fault);
    }
}

TEST(gguf_writer_abort_leaves_the_old_file)
{
    const char *path = test_tmp("gguf_old.gguf");
    float data[16] = { 0 };
    write_file(path, "old", 3);
    struct gguf_writer *w = open_writer(path);
    put_some(w, data);
    gguf_writer_abort(w);
    gguf_writer_abort(NULL);
    size_t n;
    uint8_t *old = read_file(path, &n);
    CHECK(old && n == 3 && !memcmp(old, "old", 3));
    mem_free(old);
    unlink(path);
}

TEST(gguf_writer_reports_every_failing_allocation)
{
    const char *path = test_tmp("gguf_fail.gguf");
    float data[16] = { 1 };
    for (int sticky = 0; sticky < 2; sticky++) {
        write_file(path, "old", 3);
        int n = 1;
        for (;; n++) {
            struct gguf_writer *w = NULL;
            struct err e = { 0 };
            mem_fail_at(n, sticky);
            status st = gguf_writer_open(&w, path, &e);
            if (st == OK) {
                put_some(w, data);
                st = gguf_writer_finish(w, &e);
            }
            mem_fail_at(0, false);
            if (st == OK || n > 100) break;
            CHECK_MSG(st == ERR_MEMORY && e.code == ERR_MEMORY, "allocation %d: status %d \"%s\"", n, st, e.text);
            size_t len;
            uint8_t *old = read_file(path, &len);
            CHECK_MSG(len == 3, "allocation %d: the old file has %zu bytes", n, len);
            mem_free(old);
        }
        CHECK_MSG(n > 5 && n < 100, "%d allocations", n);
        struct gguf g;
        CHECK(gguf_open(&g, path, true, NULL) == OK && g.n_tensors == 1 && g.n_kv == 3);
        gguf_close(&g);
    }
    unlink(path);
}

SUITE(gguf, T(gguf_reads_what_the_reference_writer_wrote), T(gguf_reads_the_same_without_mmap),
      T(gguf_reads_version_2_and_files_without_tensors), T(gguf_getters_refuse_other_types_and_ranges),
      T(gguf_open_refuses_what_is_no_regular_file), T(gguf_says_what_other_files_are), T(gguf_refuses_other_versions),
      T(gguf_refuses_impossible_counts_without_allocating), T(gguf_refuses_bad_keys), T(gguf_refuses_bad_values),
      T(gguf_refuses_duplicates_but_not_other_case), T(gguf_checks_the_alignment_key), T(gguf_refuses_bad_shapes),
      T(gguf_names_types_it_cannot_read), T(gguf_refuses_bad_offsets), T(gguf_refuses_a_file_cut_anywhere),
      T(gguf_survives_every_flipped_header_bit), T(gguf_survives_random_damage), T(gguf_refuses_parts_of_split_models),
      T(gguf_error_texts_show_hostile_names_safely), T(gguf_metadata_stays_below_three_times_the_header),
      T(gguf_look_ups_find_every_name_in_any_order), T(gguf_open_reports_every_failing_allocation),
      T(gguf_written_copy_equals_the_reference_file), T(gguf_writer_round_trips_every_kind),
      T(gguf_writer_round_trips_every_type_and_alignment), T(gguf_writer_refuses_what_the_reader_would),
      T(gguf_writer_abort_leaves_the_old_file), T(gguf_writer_reports_every_failing_allocation));

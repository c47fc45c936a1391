/* checkpoint, safetensors, torchfile, torchpickle: goldens by torch and safetensors (golden/checkpoint.py), files built byte by byte, damaged in
 * every way, parsed from exact-size heap copies; directories of shards; the writer. */
#include "ggml-like/pool.h"
#include "tests/checkpoint_use.h"
#include "tests/test.h"
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN(name) "tests/golden/checkpoint_" name ".bin"

static status parse_copy(const void *p, size_t n, struct err *e, bool use)
{
    struct checkpoint c;
    uint8_t *copy = malloc(n ? n : 1);
    if (n) memcpy(copy, p, n);
    *e = (struct err){ 0 };
    status st = checkpoint_parse(&c, copy, n, "t.bin", e);
    if (st == OK && use) checkpoint_use(&c);
    if (st == OK) checkpoint_close(&c);
    else if ((st != ERR_FORMAT && st != ERR_MEMORY) || !e->text[0]) abort();
    free(copy);
    return st;
}

static void expect(const void *p, size_t n, const char *text, int line)
{
    struct err e;
    status st = parse_copy(p, n, &e, true);
    if (!text && st != OK) test_fail(__FILE__, line, "refused: %s", e.text);
    if (text && st == OK) test_fail(__FILE__, line, "accepted, expected \"%s\"", text);
    if (text && st != OK && !strstr(e.text, text)) test_fail(__FILE__, line, "\"%s\" lacks \"%s\"", e.text, text);
    if (text && st != OK && strncmp(e.text, "t.bin:", 6)) test_fail(__FILE__, line, "\"%s\" does not start with the path", e.text);
}

static uint8_t *read_file(const char *path, size_t *n)
{
    char *text;
    struct err e = { 0 };
    if (file_text(path, 1 << 20, &text, n, &e) == OK) return (uint8_t *)text;
    test_fail(__FILE__, __LINE__, "%s", e.text);
    *n = 0;
    return mem_calloc(1, 1);
}

static void write_file(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n || fclose(f)) abort();
}

static bool open_golden(struct checkpoint *c, const char *path)
{
    struct err e = { 0 };
    if (checkpoint_open(c, path, &e) == OK) return true;
    test_fail(__FILE__, __LINE__, "%s", e.text);
    return false;
}

/* The tensor's values, by rows, as double; 0 where it is not there or not of this shape. */
static void expect_values(const struct checkpoint *c, const char *name, enum ckpt_type type, const char *shape, const double *want, int n)
{
    const struct ckpt_tensor *t = checkpoint_find(c, name);
    char text[64] = "";
    struct err e = { 0 };
    float f[64];
    int32_t v[64];
    if (!t) {
        test_fail(__FILE__, __LINE__, "%s is missing", name);
        return;
    }
    for (int d = 0, at = 0; d < t->n_dims; d++) at += snprintf(text + at, sizeof text - (size_t)at, d ? " %d" : "%d", (int)t->shape[d]);
    CHECK_MSG(t->type == type && !strcmp(text, shape) && t->n_elements == n, "%s: %s [%s]", name, ckpt_type_name(t->type), text);
    status st = ckpt_type_is_float(type) ? checkpoint_read_f32(c, t, 0, ckpt_rows(t), f, &e) : checkpoint_read_i32(c, t, 0, ckpt_rows(t), v, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    for (int i = 0; st == OK && i < n; i++) {
        double got = ckpt_type_is_float(type) ? f[i] : v[i];
        CHECK_MSG(got == want[i], "%s[%d] is %g, expected %g", name, i, got, want[i]);
    }
}

/* ---- goldens ---- */

TEST(checkpoint_reads_every_type_that_safetensors_wrote)
{
    static const struct { const char *name; enum ckpt_type type; } rows[] = {
        { "f64", CKPT_F64 }, { "f32", CKPT_F32 }, { "f16", CKPT_F16 }, { "bf16", CKPT_BF16 }, { "e4m3", CKPT_F8_E4M3 }, { "e5m2", CKPT_F8_E5M2 },
        { "i64", CKPT_I64 }, { "i32", CKPT_I32 }, { "i16", CKPT_I16 }, { "i8", CKPT_I8 }, { "u8", CKPT_U8 }, { "u16", CKPT_U16 }, { "u32", CKPT_U32 },
        { "u64", CKPT_U64 },
    };
    struct checkpoint c;
    if (!open_golden(&c, GOLDEN("st"))) return;
    for (int i = 0; i < ARRAY_LEN(rows); i++) expect_values(&c, rows[i].name, rows[i].type, "4", (double[]){ 0, 1, 2, 3 }, 4);
    expect_values(&c, "bool", CKPT_BOOL, "4", (double[]){ 0, 1, 1, 1 }, 4);
    expect_values(&c, "e8m0", CKPT_F8_E8M0, "4", (double[]){ 0.5, 1, 2, 4 }, 4);
    expect_values(&c, "w", CKPT_F32, "2 3", (double[]){ -2.5, -1.5, -0.5, 0.5, 1.5, 2.5 }, 6);
    expect_values(&c, "scalar", CKPT_F32, "", (double[]){ 3.5 }, 1);
    expect_values(&c, "empty", CKPT_F32, "2 0", NULL, 0);
    CHECK(c.n_tensors == 19 && c.n_meta == 1 && !checkpoint_find(&c, "nothing") && !checkpoint_meta(&c, "nothing"));
    CHECK_STR(checkpoint_meta(&c, "format"), "pt");
    for (int64_t i = 1; i < c.n_tensors; i++) CHECK(strcmp(c.tensor[i - 1].name, c.tensor[i].name) < 0);
    checkpoint_use(&c);
    struct err e = { 0 };
    CHECK(checkpoint_unchanged(&c, &e) == OK);
    checkpoint_want(&c, &c.tensor[0]), checkpoint_drop(&c, &c.tensor[0]);
    checkpoint_close(&c);
}

TEST(checkpoint_reads_a_state_dict_that_torch_saved)
{
    struct checkpoint c;
    if (!open_golden(&c, GOLDEN("linear"))) return;
    expect_values(&c, "weight", CKPT_F32, "2 3", (double[]){ -2.5, -1.5, -0.5, 0.5, 1.5, 2.5 }, 6);
    expect_values(&c, "bias", CKPT_F32, "2", (double[]){ 7, -8 }, 2);
    CHECK(c.n_tensors == 2 && c.n_meta == 0);
    checkpoint_close(&c);
}

TEST(checkpoint_takes_the_model_of_a_training_checkpoint_with_its_views)
{
    struct checkpoint c;
    if (!open_golden(&c, GOLDEN("nested"))) return;
    expect_values(&c, "t", CKPT_F32, "3 2", (double[]){ -2.5, 0.5, -1.5, 1.5, -0.5, 2.5 }, 6);
    expect_values(&c, "tied", CKPT_F32, "2 3", (double[]){ -2.5, -1.5, -0.5, 0.5, 1.5, 2.5 }, 6);
    expect_values(&c, "param", CKPT_F32, "2 3", (double[]){ -2.5, -1.5, -0.5, 0.5, 1.5, 2.5 }, 6);
    expect_values(&c, "column", CKPT_F32, "2", (double[]){ -1.5, 1.5 }, 2);
    expect_values(&c, "f8", CKPT_F8_E4M3, "4", (double[]){ 0, 1, 2, 3 }, 4);
    expect_values(&c, "u16", CKPT_U16, "4", (double[]){ 0, 1, 2, 3 }, 4);
    double cube[24];
    for (int i = 0; i < 24; i++) cube[i] = i / 6 + i / 3 % 2 * 12 + i % 3 * 4; /* permuted [2][3][4] -> [4][2][3] */
    expect_values(&c, "cube", CKPT_F16, "4 2 3", cube, 24);
    CHECK(c.n_tensors == 7); /* neither the optimiser nor the numbers */
    const struct ckpt_tensor *t = checkpoint_find(&c, "t"), *tied = checkpoint_find(&c, "tied"), *param = checkpoint_find(&c, "param");
    struct err e = { 0 };
    float f[6];
    CHECK(!t->contiguous && tied->contiguous && tied->offset == param->offset && t->offset == tied->offset);
    CHECK(checkpoint_read(&c, t, 0, 6, f, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "t: is a view with strides");
    checkpoint_use(&c);
    checkpoint_close(&c);
}

TEST(checkpoint_converts_every_8_bit_float_exactly)
{
    uint8_t file[4096] = { 0 };
    static const char *const names[] = { "F8_E4M3", "F8_E5M2", "F8_E8M0" };
    for (int k = 0; k < 3; k++) {
        char head[128];
        int n = snprintf(head, sizeof head, "{\"x\":{\"dtype\":\"%s\",\"shape\":[8,256],\"data_offsets\":[0,2048]}}", names[k]);
        file[0] = (uint8_t)n;
        memcpy(file + 8, head, (size_t)n);
        for (int i = 0; i < 2048; i++) file[8 + n + i] = (uint8_t)i;
        struct checkpoint c;
        struct err e = { 0 };
        static float f[2048];
        CHECK(checkpoint_parse(&c, file, 8 + (size_t)n + 2048, "x", &e) == OK);
        for (int pass = 0; pass < 2; pass++) { /* one row; then all, which takes the way through a table */
            CHECK(checkpoint_read_f32(&c, &c.tensor[0], 0, pass ? 8 : 1, f, &e) == OK);
            for (int i = 0; i < 256; i++) {
                int sign = i & 128 ? -1 : 1, ex = k ? i >> 2 & 31 : i >> 3 & 15, man = k ? i & 3 : i & 7, bits = k ? 2 : 3, bias = k ? 15 : 7;
                double want = sign * (ex ? ldexp(1 + ldexp(man, -bits), ex - bias) : ldexp(man, 1 - bias - bits));
                bool nan = k == 0 ? (i & 127) == 127 : ex == 31 && man;
                if (k == 1 && ex == 31 && !man) want = sign * INFINITY;
                if (k == 2) want = ldexp(1, i - 127), nan = i == 255;
                CHECK_MSG(nan ? isnan(f[i]) : f[i] == want && !signbit(f[i]) == !signbit(want), "%s %d: %g, expected %g", names[k], i, f[i], want);
                CHECK(!pass || !memcmp(&f[i], &f[i + 1792], 4));
            }
        }
        checkpoint_close(&c);
    }
}

TEST(checkpoint_names_an_integer_that_does_not_fit)
{
    static const char head[] = "{\"x\":{\"dtype\":\"I64\",\"shape\":[2,2],\"data_offsets\":[0,32]},"
                               "\"f\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[32,40]}}";
    uint8_t file[256] = { sizeof head - 1 };
    int64_t v[4] = { INT32_MAX, INT32_MIN, 0, (int64_t)INT32_MAX + 1 };
    double d = 0.1;
    memcpy(file + 8, head, sizeof head - 1), memcpy(file + 7 + sizeof head, v, sizeof v), memcpy(file + 39 + sizeof head, &d, sizeof d);
    struct checkpoint c;
    struct err e = { 0 };
    int32_t out[4] = { 0 };
    float f = 0;
    CHECK(checkpoint_parse(&c, file, 47 + sizeof head, "x.bin", &e) == OK);
    const struct ckpt_tensor *x = checkpoint_find(&c, "x"), *r = checkpoint_find(&c, "f");
    CHECK(checkpoint_read_i32(&c, x, 0, 1, out, &e) == OK && out[0] == INT32_MAX && out[1] == INT32_MIN);
    CHECK(checkpoint_read_i32(&c, x, 0, 2, out, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "x.bin: x: holds 2147483648, which does not fit");
    CHECK(checkpoint_read_f32(&c, r, 0, 1, &f, &e) == OK && f == 0.1f);
    e = (struct err){ 0 };
    CHECK(checkpoint_read_f32(&c, x, 0, 1, &f, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "x: is I64, expected floats");
    e = (struct err){ 0 };
    CHECK(checkpoint_read_i32(&c, r, 0, 1, out, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "f: is F64, expected integers");
    CHECK(checkpoint_read(&c, x, 3, 2, v, NULL) == ERR_USAGE && checkpoint_read(&c, x, -1, 1, v, NULL) == ERR_USAGE);
    CHECK(checkpoint_read_rows(&c, x, 2, 1, v, NULL) == ERR_USAGE && checkpoint_read_rows(&c, x, INT64_MAX, INT64_MAX, v, NULL) == ERR_USAGE);
    checkpoint_close(&c);
}

/* ---- safetensors: what is refused ---- */

#define X "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"
static const struct { const char *head; size_t data; const char *text; } headers[] = {
    { "{\"x\":{" X "}}", 8, NULL },
    { "{\"x\":{" X "}}      \n", 8, NULL },
    { "{\"x\":{" X ",\"more\":[]}}", 8, NULL }, /* as the reference */
    { "{\"__metadata__\":{\"a\":\"b\"},\"x\":{" X "}}", 8, NULL },
    { "{\"__metadata__\":null,\"x\":{" X "}}", 8, NULL },
    { "{\"x\":{" X "},\"y\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[8,9]},"
      "\"z\":{\"dtype\":\"I64\",\"shape\":[0,3],\"data_offsets\":[8,8]}}", 9, NULL },
    { "{}", 0, "holds no tensor" },
    { "{\"__metadata__\":{}}", 0, "holds no tensor" },
    { " {\"x\":{" X "}}", 8, "the header is no object" },
    { "[]", 0, "the header is no object" },
    { "{\"x\":{" X "}", 8, "1:" },
    { "{\"x\":{" X "}} x", 8, "1:" },
    { "{\"x\":{" X "},\"x\":{" X "}}", 8, "second member with the key \"x\"" },
    { "{\"x\":1}", 0, "x: is not an object" },
    { "{\"x\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "x: has no dtype" },
    { "{\"x\":{\"dtype\":3,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "x: has no dtype" },
    { "{\"x\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "x: dtype F4 is not supported" },
    { "{\"x\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "x: dtype f32 is not supported" },
    { "{\"x\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "x: has no shape" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "x: has no shape" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "x: shape[0] is not a length" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[1,2.0],\"data_offsets\":[0,8]}}", 8, "x: shape[1] is not a length" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, "x: has 7 dimensions, at most 6" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "x: shape [4294967296, 4294967296] is too large" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, "is too large" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "is too large" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,0]}}", 0, "not a length" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "x: data_offsets are not [begin, end]" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "data_offsets are not" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", 8, "data_offsets are not" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[\"0\",8]}}", 8, "data_offsets are not" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "data_offsets are not" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "end at 0, before their begin 8" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "x: data_offsets span 4 bytes, F32 [2] needs 8" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "x: begins at byte 4 of the data, expected 0 (a hole)" },
    { "{\"x\":{" X "},\"y\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[7,8]}}", 8, "y: begins at byte 7 of the data, expected 8 (an overlap)" },
    { "{\"x\":{" X "},\"y\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}", 8, "(an overlap)" },
    { "{\"x\":{" X "}}", 7, "x: ends at byte 8 of the data, which has 7: the file is cut" },
    { "{\"x\":{" X "}}", 9, "the tensors end at byte 8 of the data, which has 9" },
    { "{\"x\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807],\"data_offsets\":[0,9223372036854775807]}}", 8, "the file is cut" },
    { "{\"x\\u0000y\":{" X "}}", 8, "holds a NUL" },
    { "{\"__metadata__\":{\"a\":1},\"x\":{" X "}}", 8, "__metadata__: a is not a text" },
    { "{\"__metadata__\":[],\"x\":{" X "}}", 8, "__metadata__ is not an object" },
};

static size_t build_st(uint8_t *file, const char *head, size_t data)
{
    size_t n = strlen(head);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)n >> 8 * i);
    memcpy(file + 8, head, n);
    for (size_t i = 0; i < data; i++) file[8 + n + i] = (uint8_t)(i * 37 + 1);
    return 8 + n + data;
}

TEST(safetensors_accepts_and_refuses_headers)
{
    uint8_t file[1024];
    for (int i = 0; i < ARRAY_LEN(headers); i++) {
        test_begin("safetensors_header_%d", i);
        expect(file, build_st(file, headers[i].head, headers[i].data), headers[i].text, __LINE__);
    }
}

TEST(checkpoint_says_what_is_no_checkpoint)
{
    static const struct { const char *bytes; size_t n; const char *text; } files[] = {
        { "", 0, "is empty" },
        { "{}", 2, "has 2 bytes" },
        { "\0\0\0\0\0\0\0\0 ", 9, "the header is no object" },
        { "\xff\xff\xff\xff\xff\xff\xff\xff{", 9, "a header of 18446744073709551615 bytes, at most 100000000" },
        { "\1\xe1\xf5\5\0\0\0\0{", 9, "a header of 100000001 bytes" },
        { "\2\0\0\0\0\0\0\0{", 9, "the header has 2 bytes, the file 1 after its length: cut" },
        { "GGUF\3\0\0\0\1\0\0\0", 12, "is a GGUF file" },
        { "version https://git-lfs.github.com/spec/v1\n", 43, "is a git-lfs pointer" },
        { "<!DOCTYPE html><html>", 21, "is an HTML page" },
        { "\x1f\x8b\b\0\0\0\0\0\0\0", 10, "gzip" },
        { "\x80\2}q\0.\0\0\0\0", 10, "is a bare pickle" },
        { "PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22, "is an empty zip" },
        { "PK\3\4\0\0\0\0\0\0", 10, "no end record" },
    };
    for (int i = 0; i < ARRAY_LEN(files); i++) expect(files[i].bytes, files[i].n, files[i].text, __LINE__);
    size_t n;
    uint8_t *old = read_file(GOLDEN("old"), &n);
    expect(old, n, "is a torch file of before 2020", __LINE__);
    mem_free(old);
}

/* ---- torch: pickles ---- */

#define P "\x80\2"
#define TENSOR "ctorch._utils\n_rebuild_tensor_v2\n"
#define STORAGE(type, key, n) "(X\7\0\0\0storagectorch\n" type "\nX\1\0\0\0" key "X\3\0\0\0cpuK" n "tQ"
#define F6 STORAGE("FloatStorage", "0", "\6")
#define TAIL "\x89}tR"
#define W "X\1\0\0\0w"
static const struct { const char *p; size_t n; const char *text; } pickles[] = {
#define ROW(bytes, text) { bytes, sizeof(bytes) - 1, text }
    ROW(P "}" W TENSOR "(" F6 "K\0K\2K\3\x86K\3K\1\x86" TAIL "s.", NULL),
    ROW(P "}" W TENSOR "(" F6 "K\0K\3K\2\x86K\1K\3\x86" TAIL "s.", NULL),                            /* transposed */
    ROW(P "}" W TENSOR "(" F6 "K\5))" TAIL "s.", NULL),                                                /* scalar */
    ROW(P "}" W TENSOR "(" F6 "K\6K\0\x85K\1\x85" TAIL "s.", NULL),                                    /* nothing, at the end */
    ROW(P "}" W TENSOR "(" F6 "K\0K\1K\6\x86M\xff\xffK\1\x86" TAIL "s.", NULL),                        /* a stride that is never used */
    ROW(P "}(" W TENSOR "(" STORAGE("FloatStorage", "1", "\0") "K\0K\0\x85K\1\x85" TAIL "X\1\0\0\0nNu.", NULL),
    ROW(P "}" W "ctorch._utils\n_rebuild_tensor\n(" F6 "K\0K\6\x85K\1\x85tRs.", NULL),
    ROW(P "}" W TENSOR "(" F6 "K\0K\6\x85K\1\x85\x89}NtRs.", NULL),                                    /* no metadata */
    ROW(P "}" W "(K\1" TENSOR "(" F6 "K\0K\6\x85K\1\x85" TAIL "ts.", NULL),                            /* w.1 */
    ROW(P "}" W "](" TENSOR "(" F6 "K\0K\6\x85K\1\x85" TAIL "es.", NULL),                              /* w.0 */
    ROW("\x80\4\x95\1\0\0\0\0\0\0\0}" W "\x8c\14torch._utils\x8c\22_rebuild_tensor_v2\x93(" F6 "K\0K\6\x85K\1\x85" TAIL "s.", NULL),
    /* values and views that lie */
    ROW(P "}" W TENSOR "(" F6 "K\1K\2K\3\x86K\3K\1\x86" TAIL "s.", "[2, 3] reaches from element 1 beyond its storage of 6"),
    ROW(P "}" W TENSOR "(" F6 "K\0K\2K\3\x86K\4K\1\x86" TAIL "s.", "beyond its storage of 6"),
    ROW(P "}" W TENSOR "(" F6 "K\6))" TAIL "s.", "beyond its storage of 6"),
    ROW(P "}" W TENSOR "(" F6 "K\7K\0\x85K\1\x85" TAIL "s.", "an empty tensor begins at element 7"),
    ROW(P "}" W TENSOR "(" F6 "K\0K\7\x85K\0\x85" TAIL "s.", "is expanded from a storage of 6"),
    ROW(P "}" W TENSOR "(" F6 "K\0\x8a\10\0\0\0\0\0\0\0\x7f\x85\x8a\10\0\0\0\0\0\0\0\x7f\x85" TAIL "s.", "is too large"),
    ROW(P "}" W TENSOR "(" F6 "K\0K\2\x85\x8a\10\xff\xff\xff\xff\xff\xff\xff\x7f\x85" TAIL "s.", "beyond its storage"),
    ROW(P "}" W TENSOR "(" F6 "K\0K\2\x85J\xff\xff\xff\xff\x85" TAIL "s.", "stride[0] is not a number >= 0"),
    ROW(P "}" W TENSOR "(" F6 "J\xff\xff\xff\xffK\2\x85K\1\x85" TAIL "s.", "first element is not a number >= 0"),
    ROW(P "}" W TENSOR "(" F6 "K\0K\2\x85K\1K\1\x86" TAIL "s.", "1 lengths and 2 strides"),
    ROW(P "}" W TENSOR "(" F6 "K\0(K\1K\1K\1K\1K\1K\1K\1t(K\1K\1K\1K\1K\1K\1K\1t" TAIL "s.", "7 dimensions, at most 6"),
    ROW(P "}" W TENSOR "(" F6 "K\0K\2K\1\x85" TAIL "s.", "shape is int, expected a tuple"),
    ROW(P "}" W TENSOR "(K\0K\0))" TAIL "s.", "is built on int, expected a storage"),
    ROW(P "}" W TENSOR "(" F6 "K\0))\x89tRs.", "is built from 5 arguments, expected 6"),
    ROW(P "}" W TENSOR "(" F6 "K\0))\x89}}X\4\0\0\0conj\x88stRs.", "metadata (conj, neg)"),
    ROW(P "}" W "ctorch._utils\n_rebuild_tensor_v3\n(" F6 "K\0))\x89}ctorch\nbfloat16\ntRs.", "another type than its storage"),
    ROW(P "}" W "ctorch._utils\n_rebuild_tensor_v3\n(" F6 "K\0))\x89}K\0tRs.", "no torch.dtype"),
    ROW(P "}" W STORAGE("FloatStorage", "0", "\7") "s.", "data/0 has 24 bytes, 7 elements of F32"),
    ROW(P "}" W STORAGE("FloatStorage", "2", "\7") "s.", "no entry data/2"),
    ROW(P "}" W STORAGE("Size", "0", "\6") "s.", "type is no storage type"),
    ROW(P "}" W "(K\0tQs.", "not a tuple of five"),
    ROW(P "}" W "(K\0K\0K\0K\0K\0tQs.", "is no storage"),
    ROW(P "}" W "ctorch._utils\n_rebuild_parameter\nK\0K\0K\0\x87Rs.", "not made of a tensor"),
    /* what would execute something */
    ROW(P "cos\nsystem\nX\2\0\0\0id\x85R.", "data.pkl byte 2: os.system is not among the types"),
    ROW(P "c__builtin__\neval\n.", "__builtin__.eval is not among"),
    ROW("\x80\4\x8c\2os\x8c\6system\x93.", "byte 14: os.system is not among"),
    ROW(P "(X\2\0\0\0idios\nsystem\n.", "byte 10: opcode 0x69 is not allowed"),
    ROW(P "ctorch\nSize\n)\x81.", "opcode 0x81 is not allowed"),
    ROW(P "ctorch\nFloatStorage\n)R.", "torch.FloatStorage is called"),
    ROW(P "ctorch\nfloat32\n)R.", "torch.float32 is called"),
    ROW(P "K\1)R.", "int is called with tuple"),
    ROW(P "ccollections\nOrderedDict\nK\1\x85R.", "OrderedDict is made with arguments"),
    ROW(P "ctorch\nSize\nK\1\x85R.", "torch.Size is not made of a tuple"),
    ROW(P "K\1}b.", "attributes (dict) are set on int"),
    ROW("\x80\4K\1K\2\x93.", "a global is named by int and int"),
    /* a machine out of step */
    ROW("\x80\6}.", "protocol 6"),
    ROW("\x80\4\x95\xff\0\0\0\0\0\0\0}.", "a frame of 255 bytes, 2 are left"),
    ROW(P "}", "needs 1 bytes, 0 are left"),
    ROW(P ".", "ends with 0 values"),
    ROW(P "K\1K\1.", "ends with 2 values"),
    ROW(P "(K\1.", "ends with 1 values"),
    ROW(P "}..", "1 bytes follow the end"),
    ROW(P "q\0}.", "the stack is empty"),
    ROW(P "K\1(q\0}.", "the stack is empty"),
    ROW(P "K\1(\x85.", "the stack is empty"),
    ROW(P "}K\1(s.", "the stack is empty"),
    ROW(P "R.", "the stack is empty"),
    ROW(P "t.", "no mark"),
    ROW(P "u.", "no mark"),
    ROW(P "(u.", "the stack is empty"),
    ROW(P "}(K\1u.", "a key without a value"),
    ROW(P "K\1K\1K\1s.", "items are added to int, expected dict"),
    ROW(P "}K\1a.", "items are added to dict, expected list"),
    ROW(P "h\0.", "memo number 0 was never stored"),
    ROW(P "}r\xff\xff\xff\x7f.", "memo number 2147483647 in a pickle"),
    ROW(P "X\xff\xff\xff\xff.", "a text of 4294967295 bytes"),
    ROW(P "X\2\0\0\0a.", "byte 9: needs 1 bytes, 0 are left"), /* the end is part of a text */
    ROW(P "cos\nsys", "a line does not end"),
    /* what is no dict of tensors */
    ROW(P "}.", "holds no tensor"),
    ROW(P "K\1.", "holds no tensor"),
    ROW(P TENSOR "(" F6 "K\0))" TAIL ".", "one bare tensor"),
    ROW(P "}q\1" W "h\1s.", "nested deeper than 16"),
    ROW(P "}N" TENSOR "(" F6 "K\0))" TAIL "s.", "a key of type None"),
    ROW(P "}(" W TENSOR "(" F6 "K\0))" TAIL W "Nu.", NULL),
    ROW(P "}(" W TENSOR "(" F6 "K\0))" TAIL W TENSOR "(" F6 "K\0))" TAIL "u.", "two tensors are called w"),
};

TEST(torch_accepts_and_refuses_pickles)
{
    for (int i = 0; i < ARRAY_LEN(pickles); i++) {
        test_begin("torch_pickle_%d", i);
        struct zip_out *z = calloc(1, sizeof *z);
        zip_torch(z, pickles[i].p, pickles[i].n);
        expect(z->p, z->n, pickles[i].text, __LINE__);
        free(z);
    }
}

/* A list that holds itself twice at each of many levels has 2^levels leaves. */
TEST(torch_stops_at_a_pickle_that_unfolds_without_end)
{
    uint8_t p[512];
    size_t n = 0;
    zip_bytes(p, &n, P "K\1", 4);
    for (int i = 0; i < 12; i++) { /* 16^12 values */
        p[n++] = 'q', p[n++] = (uint8_t)i, p[n++] = '(';
        for (int j = 0; j < 16; j++) p[n++] = 'h', p[n++] = (uint8_t)i;
        p[n++] = 't';
    }
    p[n++] = '.';
    struct zip_out *z = calloc(1, sizeof *z);
    zip_torch(z, p, n);
    expect(z->p, z->n, "ends with 13 values", __LINE__);
    free(z);
    z = calloc(1, sizeof *z);
    n = 0;
    zip_bytes(p, &n, P "]q\0", 5);
    for (int i = 0; i < 10; i++) {
        p[n++] = ']', p[n++] = 'q', p[n++] = (uint8_t)(i + 1), p[n++] = '(';
        for (int j = 0; j < 16; j++) p[n++] = 'h', p[n++] = (uint8_t)i;
        p[n++] = 'e';
    }
    zip_bytes(p, &n, "t.", 2);
    p[2] = '(', p[3] = ']', p[4] = 'q'; /* everything in one tuple, so that one value is left */
    memmove(p + 6, p + 5, n - 5);
    p[5] = 0, n++;
    zip_torch(z, p, n);
    expect(z->p, z->n, "more than 4194304 values", __LINE__);
    free(z);
}

/* One tensor in a tuple of 16, that tuple in one of 16, and so on: 16^4 names. */
TEST(torch_stops_at_a_tensor_of_many_names)
{
    static const char tensor[] = P "(" TENSOR "(" F6 "K\0))" TAIL "q\0";
    uint8_t p[512];
    size_t n = 0;
    zip_bytes(p, &n, tensor, sizeof tensor - 1);
    for (int i = 0; i < 4; i++) {
        p[n++] = '(';
        for (int j = 0; j < 16; j++) p[n++] = 'h', p[n++] = (uint8_t)i;
        p[n++] = 't', p[n++] = 'q', p[n++] = (uint8_t)(i + 1);
    }
    zip_bytes(p, &n, "t.", 2);
    struct zip_out *z = calloc(1, sizeof *z);
    zip_torch(z, p, n);
    expect(z->p, z->n, "names, too many for a pickle of", __LINE__);
    free(z);
}

/* ---- torch: zips ---- */

static const char one[] = P "}" W TENSOR "(" F6 "K\0K\2K\3\x86K\3K\1\x86" TAIL "s.";

TEST(torch_reads_zips_of_every_kind)
{
    for (int kind = 0; kind < 4; kind++) {
        struct zip_out *z = calloc(1, sizeof *z);
        z->zip64 = kind & 1, z->late = kind & 2;
        zip_torch(z, one, sizeof one - 1);
        expect(z->p, z->n, NULL, __LINE__);
        free(z);
    }
}

static void expect_zip(struct zip_out *z, const char *text, int line)
{
    zip_finish(z);
    expect(z->p, z->n, text, line);
    free(z);
}

TEST(torch_refuses_zips_that_lie)
{
    uint8_t data[24] = { 0 };
    struct zip_out *z = calloc(1, sizeof *z);
    zip_add(z, "m/data.pkl", one, sizeof one - 1, 8);
    expect_zip(z, "entry m/data.pkl is compressed (method 8)", __LINE__);
    z = calloc(1, sizeof *z);
    zip_add(z, "m/data/0", data, sizeof data, 0);
    expect_zip(z, "without data.pkl", __LINE__);
    z = calloc(1, sizeof *z);
    zip_add(z, "m/data.pkl", one, sizeof one - 1, 0), zip_add(z, "n/data.pkl", one, sizeof one - 1, 0);
    expect_zip(z, "two data.pkl", __LINE__);
    z = calloc(1, sizeof *z);
    zip_add(z, "m/data.pkl", one, sizeof one - 1, 0), zip_add(z, "m/data/0", data, 24, 0), zip_add(z, "m/data/0", data, 24, 0);
    expect_zip(z, "two entries are called m/data/0", __LINE__);
    z = calloc(1, sizeof *z);
    zip_add(z, "m/data.pkl", one, sizeof one - 1, 0), zip_add(z, "m/constants.pkl", data, 1, 0);
    expect_zip(z, "TorchScript", __LINE__);
    z = calloc(1, sizeof *z);
    zip_add(z, "m/data.pkl", one, sizeof one - 1, 0), zip_add(z, "m/byteorder", "big", 3, 0);
    expect_zip(z, "byteorder is big, expected little", __LINE__);
    z = calloc(1, sizeof *z);
    zip_add(z, "m/data.pkl", one, sizeof one - 1, 0);
    expect_zip(z, "no entry data/0", __LINE__);
    static const struct { int from_end; size_t at; uint8_t byte; const char *text; } edits[] = { /* of the end record, or of the file */
        { 22, 4, 1, "several volumes" }, { 22, 8, 9, "several volumes" }, { 22, 12, 1, "is said to have" }, { 22, 16, 1, "is said to have" },
        { 22, 20, 1, "no end record" }, { 0, 26, 3, "local header at byte 0 is another's" }, { 0, 31, 'x', "is another's" },
        { 0, 8, 8, "is another's" }, { 0, 22, 1, "in the local header" }, { 0, 28, 255, "local header" }, { 0, 6, 1, "is another's" },
    };
    for (int i = 0; i < ARRAY_LEN(edits); i++) {
        z = calloc(1, sizeof *z);
        zip_torch(z, one, sizeof one - 1);
        size_t at = (edits[i].from_end ? z->n - (size_t)edits[i].from_end : 0) + edits[i].at;
        z->p[at] = edits[i].byte;
        if (edits[i].at == 8 && edits[i].from_end) z->p[at + 2] = 8; /* 9 and 8 entries */
        expect(z->p, z->n, edits[i].text, __LINE__);
        free(z);
    }
}

TEST(torch_refuses_directories_that_lie)
{
    static const struct { size_t at; uint8_t byte; const char *text; } edits[] = { /* of the directory's second record, m/byteorder */
        { 0, 'x', "the directory of the zip is damaged" }, { 8, 1, "is encrypted" }, { 10, 12, "method 12" }, { 20, 7, "6 bytes stored as 7" },
        { 28, 255, "the directory of the zip is cut" }, { 45, 1, "the directory begins at" }, { 42, 0, "another's" }, { 47, 'x', "another's" },
    };
    for (int i = 0; i < ARRAY_LEN(edits); i++) {
        struct zip_out *z = calloc(1, sizeof *z);
        zip_torch(z, one, sizeof one - 1);
        size_t record = z->n - 22 - z->dir_n + 46 + strlen("m/data.pkl") + 4;
        z->p[record + edits[i].at] = edits[i].byte;
        expect(z->p, z->n, edits[i].text, __LINE__);
        free(z);
    }
    /* longer than it is, over its neighbour: the local header leaves sizes to the directory, torch's way */
    struct zip_out *z = calloc(1, sizeof *z);
    z->late = true;
    zip_torch(z, one, sizeof one - 1);
    size_t record = z->n - 22 - z->dir_n + 46 + strlen("m/data.pkl") + 4;
    z->p[record + 20] = z->p[record + 24] = 7;
    expect(z->p, z->n, "entries m/byteorder and m/data/0 overlap", __LINE__);
    free(z);
}

/* ---- damage of every kind ---- */

static const char *const goldens[] = { GOLDEN("st"), GOLDEN("linear"), GOLDEN("nested") };

TEST(checkpoint_refuses_files_cut_anywhere)
{
    for (int g = 0; g < ARRAY_LEN(goldens); g++) {
        size_t n;
        struct err e;
        uint8_t *p = read_file(goldens[g], &n);
        for (size_t cut = 0; cut < n; cut++) CHECK_MSG(parse_copy(p, cut, &e, true) != OK, "%s opens with %zu bytes", goldens[g], cut);
        CHECK_MSG(parse_copy(p, n, &e, true) == OK, "%s", e.text);
        mem_free(p);
    }
}

TEST(checkpoint_survives_any_changed_byte)
{
    uint64_t rng = 7;
    int opened = 0, refused = 0;
    for (int g = 0; g < ARRAY_LEN(goldens); g++) {
        size_t n;
        struct err e;
        uint8_t *p = read_file(goldens[g], &n);
        for (size_t at = 0; at < n; at++) {
            const uint8_t was = p[at], tries[] = { (uint8_t)test_rand(&rng), (uint8_t)(was ^ 1 << test_rand(&rng) % 8), (uint8_t)(was + 1), 0xff };
            for (int i = 0; i < ARRAY_LEN(tries); i++) {
                p[at] = tries[i];
                if (parse_copy(p, n, &e, true) == OK) opened++;
                else refused++;
            }
            p[at] = was;
        }
        mem_free(p);
    }
    CHECK_MSG(opened > 1000 && refused > 3000, "%d opened, %d refused", opened, refused); /* tensor data may change, structure may not */
}

TEST(checkpoint_survives_failing_allocations)
{
    for (int g = 0; g < ARRAY_LEN(goldens); g++) {
        int64_t n = 0;
        for (status st = ERR_MEMORY; st != OK; n++) {
            struct checkpoint c;
            struct err e = { 0 };
            mem_fail_at(n + 1, false);
            st = checkpoint_open(&c, goldens[g], &e);
            mem_fail_at(0, false);
            CHECK_MSG(st == OK || (st == ERR_MEMORY && e.text[0]), "%s: %s", goldens[g], e.text);
            if (st == OK) checkpoint_close(&c);
            if (n > 1000) break;
        }
        CHECK(n > 5 && n < 1000);
    }
}

/* ---- views against the definition ---- */

TEST(torch_views_equal_their_definition)
{
    enum { N = 4000 };
    static const struct { int n_dims; int64_t shape[4], stride[4], first; } views[] = {
        { 2, { 60, 60 }, { 1, 60 }, 0 },  { 2, { 3, 1000 }, { 1, 3 }, 7 },      { 2, { 1000, 3 }, { 1, 1000 }, 0 }, { 2, { 10, 10 }, { 300, 7 }, 11 },
        { 1, { 200 }, { 19 }, 0 },        { 3, { 5, 6, 7 }, { 1, 5, 30 }, 100 }, { 3, { 5, 6, 7 }, { 42, 1, 6 }, 0 }, { 4, { 2, 3, 4, 5 }, { 1, 2, 30, 6 }, 3 },
        { 2, { 900, 1 }, { 4, 1 }, 2 },   { 2, { 1, 900 }, { 1, 4 }, 2 },
    };
    for (int v = 0; v < ARRAY_LEN(views); v++) {
        int16_t data[N];
        uint8_t p[512];
        size_t n = 0;
        for (int i = 0; i < N; i++) data[i] = (int16_t)i;
        static const char begin[] = P "}" W TENSOR "((X\7\0\0\0storagectorch\nShortStorage\nX\1\0\0\000" "0X\3\0\0\0cpuM\xa0\x0ftQ";
        zip_bytes(p, &n, begin, sizeof begin - 1);
        p[n++] = 'M', zip_put(p, &n, (uint64_t)views[v].first, 2);
        for (int part = 0; part < 2; part++) {
            p[n++] = '(';
            for (int d = 0; d < views[v].n_dims; d++) p[n++] = 'M', zip_put(p, &n, (uint64_t)(part ? views[v].stride : views[v].shape)[d], 2);
            p[n++] = 't';
        }
        zip_bytes(p, &n, TAIL "s.", sizeof TAIL + 1);
        struct zip_out *z = calloc(1, sizeof *z);
        zip_add(z, "m/data.pkl", p, n, 0), zip_add(z, "m/data/0", data, sizeof data, 0);
        zip_finish(z);
        struct checkpoint c;
        struct err e = { 0 };
        CHECK_MSG(checkpoint_parse(&c, z->p, z->n, "v", &e) == OK, "view %d: %s", v, e.text);
        if (e.code == OK) {
            const struct ckpt_tensor *t = &c.tensor[0];
            int16_t raw[N];
            int32_t wide[N];
            int64_t rows = ckpt_rows(t), cols = ckpt_row_len(t);
            for (int64_t r = 0, m; r < rows; r += m) { /* pieces that begin and end anywhere */
                m = min_i64(1 + r % 5, rows - r);
                CHECK(checkpoint_read_rows(&c, t, r, m, raw + r * cols, &e) == OK);
            }
            CHECK(checkpoint_read_i32(&c, t, 0, rows, wide, &e) == OK && !t->contiguous);
            for (int64_t i = 0; i < t->n_elements; i++) {
                int64_t at = views[v].first, left = i;
                for (int d = t->n_dims - 1; d >= 0; d--) at += left % t->shape[d] * views[v].stride[d], left /= t->shape[d];
                CHECK_MSG(raw[i] == at && wide[i] == at, "view %d [%d]: %d, %d, expected %d", v, (int)i, raw[i], wide[i], (int)at);
            }
            checkpoint_close(&c);
        }
        free(z);
    }
}

/* ---- directories ---- */

static char dir[256];

static void fresh_dir(const char *name)
{
    snprintf(dir, sizeof dir, "%s", test_tmp(name));
    mkdir(dir, 0777);
    DIR *d = opendir(dir);
    for (struct dirent *x; (x = readdir(d));) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", dir, x->d_name);
        if (x->d_name[0] != '.') unlink(path);
    }
    closedir(d);
}

static void put_file(const char *name, const void *p, size_t n)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    write_file(path, p, n);
}

static void put_shard(const char *name, const char *tensor)
{
    char head[128];
    uint8_t file[256];
    snprintf(head, sizeof head, "{\"__metadata__\":{\"of\":\"%s\"},\"%s\":{" X "}}", tensor, tensor);
    put_file(name, file, build_st(file, head, 8));
}

static void put_index(const char *name, const char *map)
{
    char text[400];
    put_file(name, text, (size_t)snprintf(text, sizeof text, "{\"metadata\":{},\"weight_map\":%s}", map));
}

static void expect_dir(const char *path, int64_t n_tensors, status want, const char *text, int line)
{
    struct checkpoint c;
    struct err e = { 0 };
    status st = checkpoint_open(&c, path, &e);
    if (st != want || (text && !strstr(e.text, text)) || (st == OK && c.n_tensors != n_tensors))
        test_fail(__FILE__, line, "status %d, %d tensors, \"%s\" instead of \"%s\"", st, st == OK ? (int)c.n_tensors : 0, e.text, text ? text : "");
    if (st == OK) checkpoint_use(&c);
    checkpoint_close(&c);
}
#define DIR_IS(n) expect_dir(dir, n, OK, NULL, __LINE__)
#define DIR_FAILS(st, text) expect_dir(dir, 0, st, text, __LINE__)

TEST(checkpoint_opens_shards_by_index)
{
    fresh_dir("ckpt_index");
    DIR_FAILS(ERR_FILE, "holds no *.safetensors");
    put_shard("model-00001-of-00002.safetensors", "a"), put_shard("model-00002-of-00002.safetensors", "b");
    DIR_IS(2);
    put_index("model.safetensors.index.json", "{\"a\":\"model-00001-of-00002.safetensors\",\"b\":\"model-00002-of-00002.safetensors\"}");
    put_shard("consolidated.safetensors", "a"); /* Mistral puts the same tensors beside the shards: the index decides */
    DIR_IS(2);
    struct checkpoint c;
    struct err e = { 0 };
    CHECK(checkpoint_open(&c, dir, &e) == OK && c.n_shards == 2 && checkpoint_find(&c, "b")->shard == 1);
    CHECK_HAS(checkpoint_path(&c, checkpoint_find(&c, "b")), "ckpt_index/model-00002-of-00002.safetensors");
    CHECK_STR(checkpoint_meta(&c, "of"), "a"); /* the first shard's */
    CHECK(c.n_meta == 1);
    checkpoint_close(&c);
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    expect_dir(path, 2, OK, NULL, __LINE__);
    snprintf(path, sizeof path, "%s/model-00002-of-00002.safetensors", dir);
    expect_dir(path, 1, OK, NULL, __LINE__);
    put_shard("model.safetensors", "whole");
    DIR_IS(1);
}

TEST(checkpoint_refuses_indexes_that_lie)
{
    static const struct { const char *map, *text; status st; } rows[] = {
        { "{\"a\":\"s1.safetensors\",\"b\":\"s3.safetensors\"}", "s3.safetensors: is missing (1 of 2 files named by model.safetensors.index.json", ERR_FILE },
        { "{\"a\":\"s1.safetensors\",\"x\":\"s2.safetensors\"}", "says that x is in s2.safetensors, which lacks it", ERR_FORMAT },
        { "{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\"}", "says that a is in s2.safetensors, it is in s1.safetensors", ERR_FORMAT },
        { "{\"a\":\"../s1.safetensors\"}", "expected the name of a file beside the index", ERR_FORMAT },
        { "{\"a\":\"/etc/passwd\"}", "expected the name of a file beside the index", ERR_FORMAT },
        { "{\"a\":1}", "a is not mapped to a file", ERR_FORMAT },
        { "{\"a\":\"\"}", "a is not mapped to a file", ERR_FORMAT },
        { "{}", "weight_map is empty", ERR_FORMAT },
        { "[]", "has no weight_map", ERR_FORMAT },
        { "{\"a\":", "model.safetensors.index.json:1:", ERR_FORMAT },
    };
    fresh_dir("ckpt_lies");
    put_shard("s1.safetensors", "a"), put_shard("s2.safetensors", "b");
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        put_index("model.safetensors.index.json", rows[i].map);
        DIR_FAILS(rows[i].st, rows[i].text);
    }
    put_index("model.safetensors.index.json", "{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}");
    put_shard("s2.safetensors", "a");
    DIR_FAILS(ERR_FORMAT, "a: in two files, s1.safetensors [2] and s2.safetensors [2]");
}

TEST(checkpoint_misses_shards_without_an_index)
{
    fresh_dir("ckpt_series");
    put_shard("m-00001-of-00003.safetensors", "a"), put_shard("m-00003-of-00003.safetensors", "c");
    DIR_FAILS(ERR_FILE, "ckpt_series/m-00002-of-00003.safetensors: is missing; m-00001-of-00003.safetensors says that there are 3");
    put_shard("m-00002-of-00003.safetensors", "b");
    DIR_IS(3);
    put_index("a.safetensors.index.json", "{\"a\":\"m-00001-of-00003.safetensors\"}");
    put_index("b.safetensors.index.json", "{\"a\":\"m-00001-of-00003.safetensors\"}");
    DIR_FAILS(ERR_FILE, "has 2 indexes, a.safetensors.index.json and b.safetensors.index.json");
}

TEST(checkpoint_opens_torch_files_by_name)
{
    size_t n;
    uint8_t *p = read_file(GOLDEN("linear"), &n);
    fresh_dir("ckpt_torch");
    put_file("training_args.bin", p, 3);
    put_file("model.pt", p, n);
    DIR_IS(2);
    put_file("consolidated.00.pth", p, n), put_file("consolidated.01.pth", p, n);
    DIR_FAILS(ERR_FORMAT, "bias: in two files, consolidated.00.pth [2] and consolidated.01.pth [2]");
    put_file("pytorch_model-00001-of-00001.bin", p, n);
    DIR_IS(2);
    put_index("pytorch_model.bin.index.json", "{\"bias\":\"pytorch_model-00001-of-00001.bin\"}");
    DIR_IS(2);
    put_file("pytorch_model.bin", p, n - 1);
    DIR_FAILS(ERR_FORMAT, "pytorch_model.bin: has no end record");
    mem_free(p);
    expect_dir("tests/golden/none.safetensors", 0, ERR_FILE, "cannot open", __LINE__);
}

TEST(checkpoint_notices_a_file_that_shrinks)
{
    const char *path = test_tmp("ckpt_shrinks.safetensors");
    struct checkpoint c;
    struct err e = { 0 };
    uint8_t file[256];
    float f[2];
    write_file(path, file, build_st(file, "{\"x\":{" X "}}", 8));
    CHECK(checkpoint_open(&c, path, &e) == OK && checkpoint_unchanged(&c, &e) == OK);
    CHECK(truncate(path, 60) == 0);
    CHECK(checkpoint_read_f32(&c, &c.tensor[0], 0, 1, f, &e) == ERR_FILE);
    CHECK_HAS(e.text, "shortened while reading");
    e = (struct err){ 0 };
    CHECK(checkpoint_unchanged(&c, &e) == ERR_FORMAT);
    checkpoint_close(&c);
}

/* ---- writing ---- */

/* A copy of c through the writer, the last tensor first and each in two pieces. */
static status write_copy(const struct checkpoint *c, const char *path, struct err *e)
{
    struct safetensors_writer *w = NULL;
    status st = safetensors_writer_open(&w, path, e);
    if (st != OK) return st;
    for (int64_t i = 0; i < c->n_tensors; i++) safetensors_add(w, c->tensor[i].name, c->tensor[i].type, c->tensor[i].n_dims, c->tensor[i].shape);
    for (int64_t i = 0; i < c->n_meta; i++) safetensors_put_meta(w, c->meta[i].key, c->meta[i].value);
    st = safetensors_begin(w, e);
    for (int64_t i = c->n_tensors - 1; st == OK && i >= 0; i--) {
        const struct ckpt_tensor *t = &c->tensor[i];
        uint8_t raw[256];
        size_t half = t->bytes / 2;
        st = checkpoint_read_rows(c, t, 0, ckpt_rows(t), raw, e);
        if (st == OK) st = safetensors_write(w, i, half, raw + half, t->bytes - half, e);
        if (st == OK) st = safetensors_write(w, i, 0, raw, half, e);
    }
    if (st == OK) return safetensors_writer_finish(w, e);
    safetensors_writer_abort(w);
    return st;
}

TEST(safetensors_writer_writes_the_reference_bytes)
{
    struct checkpoint c;
    struct err e = { 0 };
    const char *path = test_tmp("ckpt_written.safetensors");
    if (!open_golden(&c, GOLDEN("st"))) return;
    CHECK_MSG(write_copy(&c, path, &e) == OK, "%s", e.text);
    checkpoint_close(&c);
    size_t n, m;
    uint8_t *a = read_file(GOLDEN("st"), &n), *b = read_file(path, &m);
    CHECK(n == m && !memcmp(a, b, n));
    mem_free(a), mem_free(b);
}

struct copy_job { const struct checkpoint *c; struct safetensors_writer *w; };

static void copy_share(void *ctx, int ith, int nth)
{
    struct copy_job *j = ctx;
    for (int64_t i = 0; i < j->c->n_tensors; i++) { /* every thread a piece of every tensor */
        const struct ckpt_tensor *t = &j->c->tensor[i];
        size_t size = ckpt_type_bytes(t->type);
        int64_t begin, end;
        uint8_t raw[256];
        pool_range(t->n_elements, 1, ith, nth, &begin, &end);
        if (checkpoint_read(j->c, t, begin, end - begin, raw, NULL) != OK) abort();
        if (safetensors_write(j->w, i, (size_t)begin * size, raw, (size_t)(end - begin) * size, NULL) != OK) abort();
    }
}

TEST(checkpoint_is_read_and_written_by_several_threads)
{
    struct checkpoint c;
    struct safetensors_writer *w;
    struct pool *pool;
    struct err e = { 0 };
    const char *path = test_tmp("ckpt_threads.safetensors");
    if (!open_golden(&c, GOLDEN("st"))) return;
    if (pool_open(&pool, 3, &e) != OK || safetensors_writer_open(&w, path, &e) != OK) abort();
    for (int64_t i = 0; i < c.n_tensors; i++) CHECK(safetensors_add(w, c.tensor[i].name, c.tensor[i].type, c.tensor[i].n_dims, c.tensor[i].shape) == i);
    safetensors_put_meta(w, "format", "pt");
    CHECK(safetensors_begin(w, &e) == OK);
    pool_run(pool, copy_share, &(struct copy_job){ &c, w });
    CHECK(safetensors_writer_finish(w, &e) == OK);
    pool_close(pool);
    checkpoint_close(&c);
    size_t n, m;
    uint8_t *a = read_file(GOLDEN("st"), &n), *b = read_file(path, &m);
    CHECK(n == m && !memcmp(a, b, n));
    mem_free(a), mem_free(b);
}

TEST(safetensors_writer_refuses_what_it_could_not_read)
{
    static const struct { const char *a, *b; int64_t length; const char *text; } rows[] = {
        { "x", "x", 2, "two tensors are called x" },
        { "x", "y", (int64_t)1 << 62, "shape [4611686018427387904] is too large" },
        { "x", "y", -1, "shape [-1] is too large" },
        { "x", "__metadata__", 2, "no tensor may be called __metadata__" },
        { "x", "b\xff", 2, "the name is not UTF-8" },
    };
    const char *path = test_tmp("ckpt_refused.safetensors");
    unlink(path);
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct safetensors_writer *w;
        struct err e = { 0 };
        CHECK(safetensors_writer_open(&w, path, &e) == OK);
        safetensors_add(w, rows[i].a, CKPT_F32, 1, &rows[i].length);
        safetensors_add(w, rows[i].b, CKPT_F32, 1, &rows[i].length);
        CHECK(safetensors_begin(w, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, rows[i].text);
        safetensors_writer_abort(w);
    }
    struct safetensors_writer *w;
    struct err e = { 0 };
    CHECK(safetensors_writer_open(&w, path, &e) == OK);
    safetensors_add(w, "x", CKPT_F16, 1, (int64_t[]){ 3 });
    CHECK(safetensors_begin(w, &e) == OK && safetensors_write(w, 0, 0, "abcd", 4, &e) == OK);
    CHECK(safetensors_writer_finish(w, &e) == ERR_RUNTIME);
    CHECK_HAS(e.text, "x: 4 bytes were written, expected 6");
    CHECK(access(path, F_OK) != 0);
}

TEST(safetensors_writer_survives_failing_allocations)
{
    struct checkpoint c;
    if (!open_golden(&c, GOLDEN("st"))) return;
    const char *path = test_tmp("ckpt_oom.safetensors");
    int64_t n = 0;
    for (status st = ERR_MEMORY; st != OK && n < 1000; n++) {
        struct err e = { 0 };
        unlink(path);
        mem_fail_at(n + 1, false);
        st = write_copy(&c, path, &e);
        mem_fail_at(0, false);
        CHECK_MSG(st == OK || (st == ERR_MEMORY && e.text[0] && access(path, F_OK) != 0), "%s", e.text);
    }
    CHECK(n > 5 && n < 1000);
    checkpoint_close(&c);
}

SUITE(checkpoint, T(checkpoint_reads_every_type_that_safetensors_wrote), T(checkpoint_reads_a_state_dict_that_torch_saved),
      T(checkpoint_takes_the_model_of_a_training_checkpoint_with_its_views), T(checkpoint_converts_every_8_bit_float_exactly),
      T(checkpoint_names_an_integer_that_does_not_fit), T(safetensors_accepts_and_refuses_headers), T(checkpoint_says_what_is_no_checkpoint),
      T(torch_accepts_and_refuses_pickles), T(torch_stops_at_a_pickle_that_unfolds_without_end), T(torch_stops_at_a_tensor_of_many_names),
      T(torch_reads_zips_of_every_kind), T(torch_refuses_zips_that_lie), T(torch_refuses_directories_that_lie), T(checkpoint_refuses_files_cut_anywhere),
      T(checkpoint_survives_any_changed_byte), T(checkpoint_survives_failing_allocations), T(torch_views_equal_their_definition),
      T(checkpoint_opens_shards_by_index), T(checkpoint_refuses_indexes_that_lie), T(checkpoint_misses_shards_without_an_index),
      T(checkpoint_opens_torch_files_by_name), T(checkpoint_notices_a_file_that_shrinks), T(safetensors_writer_writes_the_reference_bytes),
      T(checkpoint_is_read_and_written_by_several_threads),
      T(safetensors_writer_refuses_what_it_could_not_read), T(safetensors_writer_survives_failing_allocations));

/* test_importance - sums, files, refusals. golden/importance.bin and .dat were written by llama-imatrix's rules with another writer
 * (golden/importance.py). */
#include <unistd.h>
#include "ggml-like/pool.h"
#include "quant/importance.h"
#include "tests/test.h"

enum { COLS = 70, ROWS = 40, FILE_MAX = 16384 };

static float rows[ROWS * COLS];

static void fill_rows(uint64_t seed)
{
    for (int i = 0; i < ROWS * COLS; i++) rows[i] = test_randn(&seed) * (i % COLS == 3 ? 50 : 1);
}

/* A dense matrix, a stack of four of which no token met the third, and two texts. */
static void make(struct importance *im)
{
    struct err e = { 0 };
    importance_init(im);
    fill_rows(7);
    CHECK(importance_add(im, "blk.1.ffn_down.weight", 0, 1, rows, ROWS, COLS, &e) == OK);
    for (int m = 0; m < 4; m++)
        if (m != 2) CHECK(importance_add(im, "blk.0.ffn_up_exps.weight", m, 4, rows + m * COLS, 2 + m, COLS, &e) == OK);
    CHECK(importance_dataset(im, "one.txt", &e) == OK && importance_dataset(im, "two.txt", &e) == OK);
    im->chunk_size = 20, im->n_chunks = 2;
}

static size_t read_bytes(const char *path, uint8_t *out)
{
    FILE *f = fopen(path, "rb");
    CHECK_MSG(f != NULL, "%s", path);
    size_t n = f ? fread(out, 1, FILE_MAX, f) : 0;
    if (f) fclose(f);
    CHECK(n > 0 && n < FILE_MAX);
    return n;
}

static size_t save(const struct importance *im, bool legacy, uint8_t *out)
{
    struct err e = { 0 };
    const char *path = test_tmp("importance.out");
    CHECK_MSG(importance_save(im, path, legacy, &e) == OK, "%s", e.text);
    return read_bytes(path, out);
}

/* Exactly n bytes on the heap: a sanitizer sees one too far. */
static status parse(struct importance *im, const uint8_t *p, size_t n, struct err *e)
{
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, p, n);
    *e = (struct err){ 0 };
    status st = importance_parse(im, copy, n, "t", e);
    free(copy);
    return st;
}

static void check_weights(const struct importance *a, const struct importance *b, const char *name, float tol)
{
    static float x[4 * COLS], y[4 * COLS];
    const struct importance_entry *p = importance_find(a, name), *q = importance_find(b, name);
    CHECK(p && q);
    for (int64_t m = 0; p && q && m < p->n_mat; m++) {
        CHECK(importance_slice(p, COLS, p->n_mat, m, x) && importance_slice(q, COLS, p->n_mat, m, y));
        for (int j = 0; j < COLS; j++) CHECK_MSG(fabsf(x[j] - y[j]) <= tol * x[j], "%s[%d] is %g, expected %g", name, j, y[j], x[j]);
    }
}

TEST(importance_gguf_round_trips_exactly)
{
    static uint8_t first[FILE_MAX], second[FILE_MAX];
    struct importance im, back;
    struct err e;
    make(&im);
    size_t n = save(&im, false, first);
    CHECK_MSG(parse(&back, first, n, &e) == OK, "%s", e.text);
    CHECK(back.n == 2 && !back.legacy && back.n_chunks == 2 && back.chunk_size == 20 && back.n_datasets == 2);
    CHECK_STR(back.dataset[1], "two.txt");
    CHECK(back.hash == importance_hash(&im) && back.hash == importance_hash(&back));
    CHECK_STR(back.entry[0].name, "blk.0.ffn_up_exps.weight"); /* sorted */
    check_weights(&im, &back, "blk.1.ffn_down.weight", 0);
    check_weights(&im, &back, "blk.0.ffn_up_exps.weight", 0);
    CHECK(save(&back, false, second) == n && !memcmp(first, second, n));
    importance_close(&im);
    importance_close(&back);
}

TEST(importance_legacy_keeps_the_weights)
{
    static uint8_t first[FILE_MAX], second[FILE_MAX];
    struct importance im, back;
    struct err e;
    make(&im);
    size_t n = save(&im, true, first);
    CHECK_MSG(parse(&back, first, n, &e) == OK, "%s", e.text);
    CHECK(back.legacy && back.n == 2 && back.n_chunks == 2 && back.n_datasets == 1);
    CHECK_STR(back.dataset[0], "two.txt");
    check_weights(&im, &back, "blk.1.ffn_down.weight", 3e-7f); /* three roundings */
    check_weights(&im, &back, "blk.0.ffn_up_exps.weight", 3e-7f);
    CHECK(save(&back, true, second) == n && !memcmp(first, second, n));
    importance_close(&im);
    importance_close(&back);
}

TEST(importance_does_not_depend_on_how_rows_are_split)
{
    static double whole[COLS];
    struct err e = { 0 };
    struct importance im;
    fill_rows(3);
    for (int step = ROWS; step > 0; step -= 3) {
        importance_init(&im);
        for (int i = 0; i < ROWS; i += step)
            CHECK(importance_add(&im, "w", 0, 1, rows + i * COLS, min_i64(step, ROWS - i), COLS, &e) == OK);
        if (step == ROWS) memcpy(whole, im.entry[0].sum2, sizeof whole);
        CHECK(!memcmp(whole, im.entry[0].sum2, sizeof whole) && im.entry[0].count[0] == ROWS);
        importance_close(&im);
    }
    for (int nth = 1; nth <= 5; nth++) { /* and not on how columns are divided among threads */
        const struct importance_entry *en;
        importance_init(&im);
        CHECK(importance_entry(&im, "w", 1, COLS, &en, &e) == OK);
        for (int ith = 0; ith < nth; ith++) {
            int64_t begin, end;
            pool_range(COLS, 1, ith, nth, &begin, &end);
            importance_columns(en, 0, rows, ROWS, begin, end);
        }
        CHECK(!memcmp(whole, en->sum2, sizeof whole));
        importance_close(&im);
    }
    for (int j = 0; j < COLS; j++) { /* against the definition */
        double sum = 0;
        for (int i = ROWS - 1; i >= 0; i--) sum += (double)rows[i * COLS + j] * rows[i * COLS + j];
        CHECK_NEAR(whole[j] / sum, 1, 1e-14);
    }
}

TEST(importance_of_what_no_token_met_is_one)
{
    float w[COLS];
    struct importance im;
    make(&im);
    const struct importance_entry *en = importance_find(&im, "blk.0.ffn_up_exps.weight");
    CHECK(en && en->n_mat == 4 && en->count[2] == 0 && en->count[3] == 5);
    if (!en) return;
    importance_weights(en, 2, w);
    for (int j = 0; j < COLS; j++) CHECK(w[j] == 1);
    importance_weights(en, 1, w);
    for (int j = 0; j < COLS; j++) CHECK(w[j] == (float)en->sum2[COLS + j] / 3);
    importance_close(&im);
}

TEST(importance_slices_one_row_for_a_stack)
{
    float w[COLS];
    struct err e = { 0 };
    struct importance im;
    fill_rows(1);
    importance_init(&im);
    CHECK(importance_add(&im, "w", 0, 1, rows, 4, COLS, &e) == OK); /* 7 matrices of 10 columns with one count */
    const struct importance_entry *en = im.entry;
    for (int m = 0; m < 7; m++) {
        CHECK(importance_slice(en, 10, 7, m, w));
        for (int j = 0; j < 10; j++) CHECK(w[j] == (float)en->sum2[10 * m + j] / 4);
    }
    CHECK(!importance_slice(en, 10, 8, 0, w) && !importance_slice(en, 11, 7, 0, w) && !importance_slice(en, INT64_MAX, 3, 0, w));
    importance_close(&im);
}

TEST(importance_add_keeps_shapes)
{
    struct err e = { 0 };
    struct importance im;
    make(&im);
    CHECK(importance_add(&im, "blk.1.ffn_down.weight", 0, 1, rows, 1, COLS - 1, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "blk.1.ffn_down.weight: the importance has 70 columns and 1 matrices, expected 69 and 1");
    e = (struct err){ 0 };
    CHECK(importance_add(&im, "blk.0.ffn_up_exps.weight", 4, 4, rows, 1, COLS, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "matrix 4, expected 0 to 3");
    importance_close(&im);
}

TEST(importance_merges_files_of_both_forms)
{
    static uint8_t bytes[FILE_MAX];
    struct importance im, back, sum;
    struct err e;
    make(&im);
    size_t n = save(&im, false, bytes);
    importance_init(&sum);
    CHECK(parse(&back, bytes, n, &e) == OK && importance_merge(&sum, &back, 0, &e) == OK && importance_merge(&sum, &back, 0, &e) == OK);
    importance_close(&back);
    CHECK(sum.n == 2 && sum.n_datasets == 4 && importance_find(&sum, "blk.1.ffn_down.weight")->count[0] == 2 * ROWS);
    check_weights(&im, &sum, "blk.0.ffn_up_exps.weight", 1e-7f);
    n = save(&im, true, bytes);
    CHECK(parse(&back, bytes, n, &e) == OK && importance_merge(&sum, &back, 20, &e) == OK); /* 2 chunks of 20 */
    CHECK(importance_find(&sum, "blk.1.ffn_down.weight")->count[0] == 3 * ROWS);
    check_weights(&im, &sum, "blk.1.ffn_down.weight", 3e-7f);
    importance_close(&back);
    importance_init(&back);
    e = (struct err){ 0 };
    CHECK(importance_add(&back, "blk.1.ffn_down.weight", 0, 1, rows, 1, 5, &e) == OK && importance_merge(&sum, &back, 0, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "blk.1.ffn_down.weight: 5 columns and 1 matrices, those before have 70 and 1");
    importance_close(&back);
    importance_close(&sum);
    importance_close(&im);
}

static void refuse_cuts(bool legacy)
{
    static uint8_t bytes[FILE_MAX];
    struct importance im, back;
    struct err e;
    int opened = 0;
    make(&im);
    size_t n = save(&im, legacy, bytes), end = n - 4 - 4 - strlen("two.txt"); /* the oldest legacy files end before the texts */
    if (!legacy) n -= 28; /* what pads the last count to 32 bytes */
    for (size_t len = 0; len < n; len++) {
        status st = parse(&back, bytes, len, &e);
        if (st == OK) opened++, importance_close(&back);
        CHECK_MSG(st == (legacy && len == end ? OK : ERR_FORMAT), "%zu of %zu bytes: %d", len, n, st);
        CHECK(st == OK || (e.text[0] && back.entry == NULL));
    }
    CHECK(opened == legacy);
    if (legacy) {
        bytes[n] = 0;
        CHECK(parse(&back, bytes, n + 1, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, "1 bytes after the end");
    }
    importance_close(&im);
}

TEST(importance_refuses_gguf_cut_anywhere) { refuse_cuts(false); }
TEST(importance_refuses_legacy_cut_anywhere) { refuse_cuts(true); }

/* Every float of the file is replaced by a bad one, wherever its four bytes stand. */
static void refuse_value(bool legacy, double was, float bad, const char *text)
{
    static uint8_t bytes[FILE_MAX];
    struct importance im, back;
    struct err e;
    float f = (float)was;
    int found = 0;
    make(&im);
    size_t n = save(&im, legacy, bytes);
    for (size_t at = 0; at + 4 <= n; at++) {
        if (memcmp(bytes + at, &f, 4) != 0) continue;
        memcpy(bytes + at, &bad, 4);
        CHECK(parse(&back, bytes, n, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, text);
        memcpy(bytes + at, &f, 4);
        found++;
    }
    CHECK(found > 0);
    importance_close(&im);
}

TEST(importance_refuses_values_that_are_no_sums)
{
    struct importance im;
    make(&im);
    double sum = im.entry[0].sum2[5];
    importance_close(&im);
    refuse_value(false, sum, NAN, "blk.1.ffn_down.weight: in_sum2[5] is nan, expected 0 or more");
    refuse_value(false, sum, INFINITY, "in_sum2[5] is inf");
    refuse_value(false, sum, -1, "in_sum2[5] is -1");
    refuse_value(false, ROWS, NAN, "blk.1.ffn_down.weight: counts[0] is nan, expected 0 to");
    refuse_value(false, ROWS, -3, "counts[0] is -3");
    refuse_value(false, ROWS, 1e30f, "counts[0] is 1e+30");
    sum = (double)((float)sum / (float)ROWS * 2.0f);
    refuse_value(true, sum, NAN, "blk.1.ffn_down.weight: value[0] is nan");
    refuse_value(true, sum, -1, "value[0] is -1");
}

static void put(uint8_t *p, size_t *n, const void *v, size_t bytes) { memcpy(p + *n, v, bytes), *n += bytes; }
static void put_i32(uint8_t *p, size_t *n, int32_t v) { put(p, n, &v, sizeof v); }

static void put_entry(uint8_t *p, size_t *n, const char *name, int32_t chunks, int32_t values)
{
    float v = 1;
    put_i32(p, n, (int32_t)strlen(name)), put(p, n, name, strlen(name));
    put_i32(p, n, chunks), put_i32(p, n, values), put(p, n, &v, 4);
}

#define REFUSED(p, n, a, b)                                \
    do {                                                   \
        struct importance im_;                             \
        struct err e_;                                     \
        CHECK(parse(&im_, p, n, &e_) == ERR_FORMAT);       \
        CHECK_HAS(e_.text, a);                             \
        CHECK_HAS(e_.text, b);                             \
    } while (0)

TEST(importance_refuses_hostile_legacy_numbers)
{
    static const int32_t lengths[] = { 0, -1, INT32_MIN, INT32_MAX, 248 };
    static const char *const texts[] = { "is 0", "is -1", "is -2147483648", "is 2147483647", "is 248, expected 1 to 16" };
    uint8_t p[512];
    size_t n = 0;
    put_i32(p, &n, 0), put_i32(p, &n, 0);
    REFUSED(p, n, "number of entries is 0", "expected 1 to 65536");
    n = 0, put_i32(p, &n, 65537), put_i32(p, &n, 0);
    REFUSED(p, n, "number of entries is 65537", "");
    for (int i = 0; i < ARRAY_LEN(lengths); i++) {
        n = 0, put_i32(p, &n, 1), put_i32(p, &n, lengths[i]), put(p, &n, "0123456789abcdef", 16);
        REFUSED(p, n, "length of the name", texts[i]);
        n = 0, put_i32(p, &n, 1), put_entry(p, &n, "w", 1, lengths[i]);
        REFUSED(p, n, "the number of values is", "expected 1 to 1 (4 bytes left)");
    }
    n = 0, put_i32(p, &n, 1), put_i32(p, &n, 248), memset(p + n, 'x', 300);
    REFUSED(p, n + 300, "length of the name is 248", "at most 247");
    n = 0, put_i32(p, &n, 1), put_entry(p, &n, "a\033b", 1, 1);
    REFUSED(p, n, "control byte 0x1b", "");
    n = 0, put_i32(p, &n, 1), put_entry(p, &n, "w", -2, 1);
    REFUSED(p, n, "number of chunks is -2", "0 or more");
    n = 0, put_i32(p, &n, 2), put_entry(p, &n, "w", 1, 1), put_entry(p, &n, "w", 1, 1);
    REFUSED(p, n, "entry 1: w appears twice", "");
    REFUSED((const uint8_t *)"", 0, "0 bytes", "");
    n = 0, put_i32(p, &n, 1), put_entry(p, &n, "w", 0, 1); /* no chunks: the values are the weights, as in llama-quantize */
    struct importance im;
    struct err e;
    float w = 0;
    CHECK(parse(&im, p, n, &e) == OK && importance_slice(im.entry, 1, 1, 0, &w) && w == 1);
    importance_close(&im);
}

/* A GGUF file with one pair of tensors, shapes and names as given. */
static size_t gguf_pair(uint8_t *out, const char *type, const char *sums, int64_t n, const char *counts, int64_t n_mat, const char *dtype)
{
    static const float zeros[64];
    struct gguf_writer *w;
    struct err e = { 0 };
    CHECK(gguf_writer_open(&w, test_tmp("importance.gguf"), &e) == OK);
    if (type) gguf_put_str(w, "general.type", type, strlen(type));
    for (int i = 0; i < 2; i++) {
        struct tensor t;
        tensor_shape(&t, dtype_by_name(i ? "f32" : dtype), i ? n_mat : n, 1, 1, 1);
        t.name = i ? counts : sums;
        t.data = (void *)(uintptr_t)zeros;
        if (t.name) gguf_put_tensor(w, &t);
    }
    CHECK_MSG(gguf_writer_finish(w, &e) == OK, "%s", e.text);
    return read_bytes(test_tmp("importance.gguf"), out);
}

TEST(importance_refuses_other_gguf_files)
{
    static uint8_t p[FILE_MAX];
    REFUSED(p, gguf_pair(p, "imatrix", "w.in_sum2", 8, NULL, 1, "f32"), "w.in_sum2", "no .counts beside it");
    REFUSED(p, gguf_pair(p, "imatrix", NULL, 8, "w.counts", 1, "f32"), "w.counts", "no .in_sum2 beside it");
    REFUSED(p, gguf_pair(p, "imatrix", "w.in_sum2", 8, "w.counts", 3, "f32"), "shape [8]", "counts [3]");
    REFUSED(p, gguf_pair(p, "imatrix", "w.in_sum2", 8, "w.counts", 1, "f16"), "types F16 and F32", "expected F32");
    REFUSED(p, gguf_pair(p, "model\n", "w.in_sum2", 8, "w.counts", 1, "f32"), "general.type is 'model?'", "expected 'imatrix'");
    REFUSED(p, gguf_pair(p, NULL, "w.weight", 8, "w.bias", 1, "f32"), "no importance entries", "a model?");
    struct importance im;
    struct err e;
    CHECK(parse(&im, p, gguf_pair(p, NULL, "w.in_sum2", 8, "w.counts", 2, "f32"), &e) == OK && im.entry[0].n_cols == 4 && im.entry[0].n_mat == 2);
    importance_close(&im);
}

TEST(importance_reads_files_of_llama_imatrix)
{
    static const char *const path[2] = { "tests/golden/importance.bin", "tests/golden/importance.dat" };
    static uint8_t want[FILE_MAX], got[FILE_MAX];
    for (int legacy = 0; legacy < 2; legacy++) {
        struct importance im;
        struct err e = { 0 };
        float w[8];
        CHECK_MSG(importance_open(&im, path[legacy], &e) == OK, "%s", e.text);
        if (e.code) return;
        const struct importance_entry *en = importance_find(&im, "blk.0.attn_q.weight"), *ex = importance_find(&im, "blk.0.ffn_up_exps.weight");
        CHECK(im.n == 2 && im.legacy == legacy && im.n_chunks == 3 && en && ex && im.n_datasets == 1);
        CHECK_STR(im.dataset[0], "calibration.txt");
        CHECK(importance_slice(en, 8, 1, 0, w) && w[0] == 0.5f && w[7] == 4.0f);
        CHECK(importance_slice(ex, 4, 2, 0, w) && w[0] == 2.0f && w[3] == 8.0f);
        CHECK(importance_slice(ex, 4, 2, 1, w) && w[0] == 1.0f && w[3] == 1.0f); /* met by no token */
        size_t n = read_bytes(path[legacy], want);
        CHECK(save(&im, legacy, got) == n && !memcmp(want, got, n)); /* and writes the same bytes */
        importance_close(&im);
    }
}

TEST(importance_saves_nothing_that_is_damaged_or_empty)
{
    struct err e = { 0 };
    struct importance im;
    const struct importance_entry *en;
    importance_init(&im);
    unlink(test_tmp("importance.none"));
    CHECK(importance_entry(&im, "w", 1, 4, &en, &e) == OK && importance_save(&im, test_tmp("importance.none"), false, &e) == ERR_USAGE);
    e = (struct err){ 0 };
    float x[4] = { 1, 2, NAN, 3 };
    CHECK(importance_add(&im, "w", 0, 1, x, 1, 4, &e) == OK && importance_save(&im, test_tmp("importance.none"), true, &e) == ERR_RUNTIME);
    CHECK_HAS(e.text, "w: the sum of squares of column 2 is nan");
    CHECK(access(test_tmp("importance.none"), F_OK) != 0);
    importance_close(&im);
}

TEST(importance_survives_every_allocation_failure)
{
    static uint8_t bytes[2][FILE_MAX];
    struct importance im;
    size_t size[2];
    make(&im);
    for (int legacy = 0; legacy < 2; legacy++) size[legacy] = save(&im, legacy, bytes[legacy]);
    for (int what = 0; what < 4; what++) { /* parse both forms, save both */
        status st = ERR_MEMORY;
        int64_t n = 0;
        while (st != OK && n < 1000) {
            struct importance back = { 0 };
            struct err e = { 0 };
            mem_fail_at(++n, true);
            st = what < 2 ? importance_parse(&back, bytes[what], size[what], "t", &e) : importance_save(&im, test_tmp("importance.mem"), what == 3, &e);
            mem_fail_at(0, false);
            importance_close(&back);
            CHECK(st == OK || (st == ERR_MEMORY && e.text[0]));
        }
        CHECK(st == OK && n > 2);
    }
    importance_close(&im);
}

SUITE(importance, T(importance_gguf_round_trips_exactly), T(importance_legacy_keeps_the_weights),
      T(importance_does_not_depend_on_how_rows_are_split), T(importance_of_what_no_token_met_is_one), T(importance_slices_one_row_for_a_stack),
      T(importance_add_keeps_shapes), T(importance_merges_files_of_both_forms), T(importance_refuses_gguf_cut_anywhere),
      T(importance_refuses_legacy_cut_anywhere), T(importance_refuses_values_that_are_no_sums), T(importance_refuses_hostile_legacy_numbers),
      T(importance_refuses_other_gguf_files), T(importance_reads_files_of_llama_imatrix), T(importance_saves_nothing_that_is_damaged_or_empty),
      T(importance_survives_every_allocation_failure));

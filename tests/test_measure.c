/* measure - the arithmetic behind perplexity and bench: windows, sums, the logits file, lists of numbers, shares of the limits. */
#include "tests/test.h"
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "tools/bench.h"
#include "tools/ppl.h"
#include "tools/ranges.h"
#include "tools/report.h"

/* ---- perplexity ---- */

TEST(ppl_windows_are_those_of_llama_perplexity)
{
    static const struct { int64_t n_tokens, n_ctx, max, chunks, first, scored; } rows[] = {
        { 1024, 512, 0, 2, 256, 255 }, { 1535, 512, -1, 2, 256, 255 }, { 5120, 512, 4, 4, 256, 255 },
        { 5120, 512, 40, 10, 256, 255 }, { 10, 5, 0, 2, 2, 2 }, { 8, 4, 0, 2, 2, 1 },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t n = 0;
        CHECK(ppl_chunks(rows[i].n_tokens, rows[i].n_ctx, rows[i].max, &n, NULL) == OK);
        CHECK_MSG(n == rows[i].chunks, "row %d: %d chunks", i, (int)n);
        CHECK(ppl_first(rows[i].n_ctx) == rows[i].first && ppl_scored(rows[i].n_ctx) == rows[i].scored);
    }
}

TEST(ppl_refuses_a_text_shorter_than_two_contexts)
{
    struct err e = { 0 };
    int64_t n;
    CHECK(ppl_chunks(1023, 512, 0, &n, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "1023 tokens");
    CHECK_HAS(e.text, "1024");
    CHECK(ppl_chunks(100, 3, 0, &n, NULL) == ERR_USAGE);
}

TEST(ppl_of_a_uniform_guess_is_the_number_of_choices)
{
    struct kernels k;
    struct ppl_sum sum = { 0 };
    float logits[50];
    kernels_init(&k, 0);
    for (int i = 0; i < 50; i++) logits[i] = -3;
    for (int i = 0; i < 20; i++) ppl_add(&sum, ppl_nll(&k, logits, 50, i));
    CHECK_NEAR(ppl_value(&sum), 50, 1e-4);
    CHECK_NEAR(ppl_error(&sum), 0, 1e-3);
}

TEST(ppl_nll_agrees_with_double_precision_and_keeps_far_tokens)
{
    struct kernels k;
    float logits[1000];
    double z = 0;
    uint64_t rng = 3;
    kernels_init(&k, 0);
    for (int i = 0; i < 1000; i++) logits[i] = 5 * test_randn(&rng);
    logits[7] = -90;
    for (int i = 0; i < 1000; i++) z += exp(logits[i]);
    for (int i = 0; i < 1000; i++) CHECK_NEAR(ppl_nll(&k, logits, 1000, i), log(z) - logits[i], 2e-5);
    logits[500] = NAN;
    CHECK(!isfinite(ppl_nll(&k, logits, 1000, 500)));
}

/* nll 1, 2, 3: mean 2, variance 2/3; error = e^2 * sqrt((2/3) / 2) */
TEST(ppl_error_is_the_standard_error_times_ppl)
{
    struct ppl_sum s = { 0 };
    ppl_add(&s, 1);
    CHECK(ppl_error(&s) == 0);
    ppl_add(&s, 2), ppl_add(&s, 3);
    CHECK_NEAR(ppl_value(&s), exp(2), 1e-12);
    CHECK_NEAR(ppl_error(&s), exp(2) * sqrt(1.0 / 3), 1e-12);
}

TEST(kld_rows_read_back_to_log_probabilities)
{
    static const int64_t sizes[] = { 1, 2, 7, 1000 };
    struct kernels k;
    kernels_init(&k, 0);
    for (int a = 0; a < ARRAY_LEN(sizes); a++) {
        int64_t n = sizes[a];
        float logits[1000], head[2];
        uint16_t row[1005];
        double z = 0;
        uint64_t rng = 17;
        memset(row, 0xAA, sizeof row);
        for (int64_t i = 0; i < n; i++) logits[i] = 4 * test_randn(&rng), z += exp(logits[i]);
        CHECK(kld_row_words(n) == (size_t)(n + n % 2 + 4));
        kld_row(&k, logits, n, row);
        memcpy(head, row, sizeof head);
        float max = k.max(logits, n, NULL);
        for (int64_t i = 0; i < n; i++) {
            double want = logits[i] - log(z), floor = max - 16.0 - log(z);
            CHECK_NEAR(head[0] * (double)row[4 + i] + head[1], want > floor ? want : floor, 16.0 / 65535 / 2 + 1e-5);
        }
        if (n % 2) CHECK(row[4 + n] == 0);
        CHECK(row[kld_row_words(n)] == 0xAAAA);
    }
}

TEST(kld_row_of_equal_logits_has_scale_zero)
{
    struct kernels k;
    const float logits[4] = { 2, 2, 2, 2 };
    uint16_t row[8];
    float head[2];
    kernels_init(&k, 0);
    kld_row(&k, logits, 4, row);
    memcpy(head, row, sizeof head);
    CHECK(head[0] == 0);
    CHECK_NEAR(head[1], log(0.25), 1e-6);
    for (int i = 0; i < 4; i++) CHECK(row[4 + i] == 0);
}

/* ---- lists ---- */

TEST(ranges_expand_in_order)
{
    static const struct { const char *text; int n; int64_t v[8]; } rows[] = {
        { "512", 1, { 512 } }, { "512,1024", 2, { 512, 1024 } }, { "1-4", 4, { 1, 2, 3, 4 } }, { "8-32*2", 3, { 8, 16, 32 } },
        { "8-33*2", 3, { 8, 16, 32 } }, { "0-1000+400", 3, { 0, 400, 800 } }, { "5-5", 1, { 5 } }, { "7,1-2,7", 4, { 7, 1, 2, 7 } },
        { "0", 1, { 0 } }, { "1-1000000*1000", 3, { 1, 1000, 1000000 } }, { "3-4+9", 1, { 3 } },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t v[8];
        int n = 0;
        struct err e = { 0 };
        CHECK_MSG(range_parse(rows[i].text, "-p", 0, 1 << 20, v, 8, &n, &e) == OK, "%s: %s", rows[i].text, e.text);
        CHECK_MSG(n == rows[i].n && !memcmp(v, rows[i].v, (size_t)n * sizeof *v), "%s: %d values", rows[i].text, n);
    }
}

TEST(ranges_refuse_what_is_no_list)
{
    static const struct { const char *text, *says; } rows[] = {
        { "", "a number is expected" }, { "a", "a number is expected" }, { "1,", "a number is expected" }, { "1-", "a number is expected" },
        { "1 2", "the end is expected" }, { "9-4", "the range falls" }, { "1-9+0", "does not advance" }, { "1-9*1", "does not advance" },
        { "0-9*2", "does not advance" }, { "-5", "a number is expected" }, { "1-100", "too many values" },
        { "2000000", "out of range 0..1048576" },
        { "99999999999999999999", "too large" }, { "1-2-3", "the end is expected" }, { "1+2", "the end is expected" },
        { "1-9*99999999999999999", "too large" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t v[8];
        int n;
        struct err e = { 0 };
        CHECK_MSG(range_parse(rows[i].text, "-p", 0, 1 << 20, v, 8, &n, &e) == ERR_USAGE, "'%s' was accepted", rows[i].text);
        CHECK_HAS(e.text, rows[i].says);
        CHECK_HAS(e.text, "-p");
    }
}

TEST(pairs_need_two_numbers_each)
{
    int64_t a[4], b[4];
    int n = 0;
    CHECK(pair_parse("512,128;1,2", "--pg", 1, 1000, a, b, 4, &n, NULL) == OK);
    CHECK(n == 2 && a[0] == 512 && b[0] == 128 && a[1] == 1 && b[1] == 2);
    static const char *const bad[] = { "", "5", "5,", "5,6,7", "5;6", "0,1", "5,6;", "1,1;1,1;1,1;1,1;1,1" };
    for (int i = 0; i < ARRAY_LEN(bad); i++) CHECK_MSG(pair_parse(bad[i], "--pg", 1, 1000, a, b, 4, &n, NULL) == ERR_USAGE, "'%s'", bad[i]);
}

/* ---- figures ---- */

TEST(stddev_is_that_of_a_sample)
{
    const double x[] = { 2, 4, 4, 4, 5, 5, 7, 9 };
    CHECK_NEAR(mean_of(x, 8), 5, 1e-12);
    CHECK_NEAR(stddev_of(x, 8), sqrt(32.0 / 7), 1e-12);
    CHECK(stddev_of(x, 1) == 0 && mean_of(x, 0) == 0);
}

TEST(field_text_writes_numbers_and_leaves_nan_empty)
{
    char buf[64];
    CHECK_STR(field_text(&(struct field){ "a", FIELD_REAL, .f = 1.5 }, buf), "1.500000");
    CHECK_STR(field_text(&(struct field){ "a", FIELD_REAL, .f = NAN }, buf), "");
    CHECK_STR(field_text(&(struct field){ "a", FIELD_INT, .i = -3 }, buf), "-3");
    CHECK_STR(field_text(&(struct field){ "a", FIELD_STR }, buf), "");
}

/* 10 GB/s and 2 x 100 GMAC/s: 5 GB in a second is half, 150 GMAC three quarters. */
TEST(limits_share_names_the_nearer_limit)
{
    struct limits l = { .read_gbps_n = 10, .tile_gmacs = { [GGUF_Q8_0] = 100 }, .f32_gflops_1 = 40, .n_threads = 2 };
    struct share s = limits_share(&l, &(struct load){ 5e9, 1, 1, { [GGUF_Q8_0] = 20e9 } });
    CHECK_NEAR(s.percent, 50, 1e-9);
    CHECK_STR(s.bound, "bandwidth");
    s = limits_share(&l, &(struct load){ 5e9, 1, 1, { [GGUF_Q8_0] = 150e9 } });
    CHECK_NEAR(s.percent, 75, 1e-9);
    CHECK_STR(s.bound, "compute");
    s = limits_share(&l, &(struct load){ 0, 2, 2, { [GGUF_F16] = 60e9 } }); /* floats: 20 GMAC/s per thread */
    CHECK_NEAR(s.percent, 75, 1e-9);
}

/* Each type at its own rate, passes of one row at 20 GMAC/s per thread: 30 GMAC in a second are three quarters. */
TEST(limits_share_adds_types_and_rows)
{
    struct limits l = { .read_gbps_n = 10, .tile_gmacs = { [GGUF_Q8_0] = 100, [GGUF_Q4_K] = 50 }, .dot_gmacs = { [GGUF_Q8_0] = 20 }, .n_threads = 2 };
    struct share s = limits_share(&l, &(struct load){ 5e9, 1, 1, { 0 }, { [GGUF_Q8_0] = 30e9 } });
    CHECK_NEAR(s.percent, 75, 1e-9);
    CHECK_STR(s.bound, "compute");
    s = limits_share(&l, &(struct load){ 5e9, 1, 1, { [GGUF_Q8_0] = 50e9, [GGUF_Q4_K] = 25e9 }, { [GGUF_Q8_0] = 10e9 } });
    CHECK_NEAR(s.compute, 75, 1e-9);
    CHECK_NEAR(s.bandwidth, 50, 1e-9);
}

/* A limit measured while something else slowed the machine: the fastest run shows what is possible. */
TEST(limits_rise_to_what_was_reached)
{
    struct limits l = { .read_gbps_n = 10, .tile_gmacs = { [GGUF_Q8_0] = 100 }, .dot_gmacs = { [GGUF_Q8_0] = 20 }, .n_threads = 2 };
    struct load read = { 16e9, 1, 0.8, { [GGUF_Q8_0] = 20e9 } }, tile = { 0, 1, 0.8, { [GGUF_Q8_0] = 240e9 } },
                dot = { 5e9, 1.25, 1, { 0 }, { [GGUF_Q8_0] = 120e9 } };
    limits_raise(&l, &read);
    CHECK_NEAR(l.read_gbps_n, 20, 1e-9);
    CHECK_NEAR(l.tile_gmacs[GGUF_Q8_0], 100, 1e-9);
    CHECK_NEAR(limits_share(&l, &read).percent, 80, 1e-9);
    limits_raise(&l, &tile);
    CHECK_NEAR(l.tile_gmacs[GGUF_Q8_0], 150, 1e-9);
    CHECK_NEAR(limits_share(&l, &tile).compute, 80, 1e-9);
    limits_raise(&l, &dot);
    CHECK_NEAR(l.dot_gmacs[GGUF_Q8_0], 60, 1e-9);
    CHECK_NEAR(limits_share(&l, &dot).compute, 80, 1e-9);
}

/* Mann and Whitney's test by trying all ways to deal the samples out. */
static double brute_p(const double *v, int n, int n_a)
{
    double rank[16], sum = 0, middle = n_a * (n + 1) / 2.0, far = 0, all = 0;
    for (int i = 0; i < n; i++) {
        rank[i] = 1;
        for (int j = 0; j < n; j++) rank[i] += v[j] < v[i] ? 1 : v[j] == v[i] && j != i ? 0.5 : 0;
        sum += i < n_a ? rank[i] : 0;
    }
    for (int set = 0; set < 1 << n; set++) {
        double s = 0;
        int k = 0;
        for (int i = 0; i < n; i++)
            if (set >> i & 1) s += rank[i], k++;
        if (k != n_a) continue;
        all++;
        far += fabs(s - middle) >= fabs(sum - middle);
    }
    return far / all;
}

TEST(bench_compare_counts_all_ways_to_deal_the_samples)
{
    CHECK_NEAR(compare_p((double[]){ 1, 2, 3, 4, 5 }, 5, (double[]){ 6, 7, 8, 9, 10 }, 5), 2.0 / 252, 1e-12);
    CHECK_NEAR(compare_p((double[]){ 3, 4 }, 2, (double[]){ 1, 2 }, 2), 1.0 / 3, 1e-12);
    CHECK_NEAR(compare_p((double[]){ 7 }, 1, (double[]){ 7, 7 }, 2), 1, 1e-12);
    CHECK_NEAR(compare_p(NULL, 0, (double[]){ 7 }, 1), 1, 0);
    for (int n = 2; n <= 11; n++)
        for (int n_a = 1; n_a < n; n_a++) {
            double v[16];
            for (int i = 0; i < n; i++) v[i] = (double)((i * 7 + n_a * 3 + i * i) % 9) + (i < n_a ? 2 : 0); /* with ties */
            CHECK_NEAR(compare_p(v, n_a, v + n_a, n - n_a), brute_p(v, n, n_a), 1e-9);
        }
}

/* 60 samples are dealt out exactly, 61 by the normal approximation: no jump between them. */
TEST(bench_compare_of_many_samples_joins_the_exact_one)
{
    double a[40], b[40];
    for (int i = 0; i < 40; i++) a[i] = i % 20 + 0.5 * (i / 20), b[i] = a[i] + 3.1;
    for (int shift = 0; shift < 3; shift++) {
        for (int i = 0; i < 40; i++) b[i] += shift;
        double exact = compare_p(a, 30, b, 30), normal = compare_p(a, 30, b, 31);
        CHECK(exact > 0 && exact < 0.2);
        CHECK(normal > 0.5 * exact && normal < 2 * exact);
    }
}

TEST(bench_gates_are_names_and_ratios)
{
    struct bench_gate g;
    struct err e = { 0 };
    CHECK(bench_gate_parse(&g, "pp512 @ d4096 <= 0.95", &e) == OK);
    CHECK(g.less && g.equal && g.limit == 0.95 && g.name_len == 14);
    CHECK(bench_gate_parse(&g, "all>2", &e) == OK && !g.less && !g.equal && g.limit == 2);
    CHECK(bench_gate_parse(&g, "pp512<nan", &e) == ERR_USAGE);
}

SUITE(measure, T(ppl_windows_are_those_of_llama_perplexity), T(ppl_refuses_a_text_shorter_than_two_contexts),
      T(ppl_of_a_uniform_guess_is_the_number_of_choices), T(ppl_nll_agrees_with_double_precision_and_keeps_far_tokens),
      T(ppl_error_is_the_standard_error_times_ppl), T(kld_rows_read_back_to_log_probabilities), T(kld_row_of_equal_logits_has_scale_zero),
      T(ranges_expand_in_order), T(ranges_refuse_what_is_no_list), T(pairs_need_two_numbers_each), T(stddev_is_that_of_a_sample),
      T(field_text_writes_numbers_and_leaves_nan_empty), T(limits_share_names_the_nearer_limit),
      T(limits_share_adds_types_and_rows), T(limits_rise_to_what_was_reached), T(bench_compare_counts_all_ways_to_deal_the_samples),
      T(bench_compare_of_many_samples_joins_the_exact_one), T(bench_gates_are_names_and_ratios));

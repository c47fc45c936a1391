/* test_compare - the statistics of compare against plain double precision written from the definitions, conditions of --fail-if, logits files. The
 * command itself runs in cli/model_compare.sh. */
#include "tests/test.h"
#include <unistd.h>
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "tools/compare_report.h"
#include "tools/ppl.h"

enum { VOCAB = 1500, TOKENS = 60, PER_CHUNK = 20 };

/* ---- one token ---- */

struct plain { double nll_p, nll_q, kld, dp; int64_t top_p, top_q; };

static double log_sum(const float *x, int64_t n)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = fmax(max, x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(x[i] - max);
    return max + log(sum);
}

static int64_t first_max(const float *x, int64_t n)
{
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[at]) at = i;
    return at;
}

static struct plain plain_token(const float *p, const float *q, int64_t n, int32_t target)
{
    double zp = log_sum(p, n), zq = log_sum(q, n);
    struct plain r = { .nll_p = zp - p[target], .nll_q = zq - q[target], .top_p = first_max(p, n), .top_q = first_max(q, n) };
    for (int64_t i = 0; i < n; i++) {
        double lp = p[i] - zp;
        if (exp(lp) > 0) r.kld += exp(lp) * (lp - (q[i] - zq));
    }
    r.dp = exp(-r.nll_q) - exp(-r.nll_p);
    return r;
}

static struct kld_token token_of(const struct kernels *k, const float *p, const float *q, int64_t n, int32_t target, double *nll_ref)
{
    static float kept[VOCAB];
    struct kld_ref r = { .logits = kept };
    struct kld_token t;
    memcpy(kept, p, (size_t)n * sizeof *p);
    kld_ref_logits(k, &r, n, target);
    kld_token(k, &r, q, n, target, &t);
    *nll_ref = r.nll;
    return t;
}

static void make_logits(float *x, int64_t n, float spread, uint64_t *rng)
{
    for (int64_t i = 0; i < n; i++) x[i] = spread * test_randn(rng);
}

/* Terms and differences are floats: the error is a few of their last bits of the largest difference. */
static double bound_of(const float *p, const float *q, int64_t n)
{
    double most = 1;
    for (int64_t i = 0; i < n; i++)
        if (p[i] > -100) most = fmax(most, fmax(fabs(p[i]), fabs(p[i] - q[i])));
    return 4e-7 * most;
}

TEST(compare_token_agrees_with_double_precision)
{
    static const int64_t sizes[] = { 1, 2, 7, 64, 1023, 1024, 1025, VOCAB };
    static const float spreads[] = { 0.01f, 1, 6, 20 }, changes[] = { 0, 1e-4f, 0.05f, 1, 10 };
    struct kernels k;
    uint64_t rng = 11;
    for (int level = 0; level < 2; level++) { /* plain C, and the strongest of this machine */
        kernels_init(&k, level ? UINT64_MAX : 0);
        for (int s = 0; s < ARRAY_LEN(sizes); s++)
            for (int a = 0; a < ARRAY_LEN(spreads) * ARRAY_LEN(changes); a++) {
                static float p[VOCAB], q[VOCAB];
                int64_t n = sizes[s];
                int32_t target = (int32_t)(test_rand(&rng) % (uint64_t)n);
                double nll;
                make_logits(p, n, spreads[a % 4], &rng);
                for (int64_t i = 0; i < n; i++) p[i] += 3, q[i] = p[i] + changes[a / 4] * test_randn(&rng) - 2;
                struct plain want = plain_token(p, q, n, target);
                struct kld_token t = token_of(&k, p, q, n, target, &nll);
                double tol = bound_of(p, q, n);
                CHECK_NEAR(nll, want.nll_p, tol);
                CHECK_NEAR(t.nll, want.nll_q, tol);
                CHECK_NEAR(t.kld, want.kld, tol);
                CHECK_NEAR(t.dp, want.dp, tol);
                CHECK(t.same_top == (want.top_p == want.top_q));
            }
    }
}

TEST(compare_of_equal_logits_is_exactly_nothing)
{
    static float p[VOCAB];
    struct kernels k;
    uint64_t rng = 5;
    kernels_init(&k, UINT64_MAX);
    for (int i = 0; i < 40; i++) {
        double nll;
        int64_t n = 1 + (int64_t)(test_rand(&rng) % VOCAB);
        make_logits(p, n, i % 2 ? 0 : 12, &rng); /* also all of one value: the lowest index is the top of both */
        struct kld_token t = token_of(&k, p, p, n, 0, &nll);
        CHECK(t.kld == 0 && t.dp == 0 && t.same_top && t.nll == nll);
    }
}

/* Tokens that are as good as impossible, on both sides or on one. */
TEST(compare_keeps_far_logits_apart)
{
    static const float far[] = { -1e3f, -1e4f, -1e30f };
    float p[40], q[40];
    struct kernels k;
    uint64_t rng = 9;
    kernels_init(&k, UINT64_MAX);
    for (int f = 0; f < ARRAY_LEN(far); f++) {
        double nll;
        make_logits(p, 40, 2, &rng);
        memcpy(q, p, sizeof q);
        for (int i = 0; i < 40; i += 3) p[i] = q[i] = far[f];
        CHECK(token_of(&k, p, q, 40, 1, &nll).kld == 0);
        q[3] = 0; /* the candidate believes in what the reference excludes: finite */
        struct plain want = plain_token(p, q, 40, 1);
        CHECK_NEAR(token_of(&k, p, q, 40, 1, &nll).kld, want.kld, 1e-5);
        q[3] = p[3], q[1] = far[f]; /* and the opposite: as far as the logit is */
        want = plain_token(p, q, 40, 1);
        struct kld_token t = token_of(&k, p, q, 40, 1, &nll);
        CHECK_NEAR(t.kld / want.kld, 1, 1e-5);
        CHECK_NEAR(t.nll / want.nll_q, 1, 1e-5);
        CHECK_NEAR(t.dp, want.dp, 1e-6);
    }
    p[0] = 0, q[0] = NAN; /* damaged: told by what is not finite, never by a number */
    double nll;
    CHECK(!isfinite(token_of(&k, p, q, 40, 0, &nll).nll));
}

/* ---- many tokens ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double plain_point(const double *sorted, int n, double f)
{
    double at = f * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static double mean(const double *x, int n)
{
    double s = 0;
    for (int i = 0; i < n; i++) s += x[i];
    return s / n;
}

/* Standard error of a mean from the deviations, not from sums of squares. */
static double error_of(const double *x, int n)
{
    double m = mean(x, n), s = 0;
    for (int i = 0; i < n; i++) s += (x[i] - m) * (x[i] - m);
    return sqrt(s / n / (n - 1));
}

struct tokens { struct kld_token t[TOKENS]; double p[TOKENS], q[TOKENS], kld[TOKENS], dp[TOKENS], dp2[TOKENS]; int same; };

static void make_tokens(struct tokens *x, int n, uint64_t seed)
{
    *x = (struct tokens){ 0 };
    for (int i = 0; i < n; i++) {
        x->p[i] = 2 + fabs(test_randn(&seed)), x->q[i] = x->p[i] + 0.1 * test_randn(&seed);
        x->kld[i] = 0.02 * exp(test_randn(&seed));
        x->dp[i] = (double)(float)(0.1f * test_randf(&seed));
        x->dp2[i] = x->dp[i] * x->dp[i];
        bool same = test_rand(&seed) % 8 != 0;
        x->same += same;
        x->t[i] = (struct kld_token){ .nll = x->q[i], .kld = x->kld[i], .dp = (float)x->dp[i], .same_top = same };
    }
}

TEST(compare_summary_agrees_with_its_definitions)
{
    static struct tokens x;
    struct kld_stats s;
    double ln[TOKENS], chunk[TOKENS / PER_CHUNK], sorted[TOKENS];
    make_tokens(&x, TOKENS, 21);
    CHECK(kld_summary(x.t, x.p, TOKENS, PER_CHUNK, &s, NULL) == OK);
    for (int i = 0; i < TOKENS; i++) ln[i] = x.q[i] - x.p[i];
    for (int i = 0; i < TOKENS / PER_CHUNK; i++) chunk[i] = mean(x.kld + i * PER_CHUNK, PER_CHUNK);
    double ppl_q = exp(mean(x.q, TOKENS)), ppl_p = exp(mean(x.p, TOKENS)), share = (double)x.same / TOKENS;
    CHECK(s.n == TOKENS);
    CHECK_NEAR(s.ppl.value, ppl_q, 1e-9);
    CHECK_NEAR(s.ppl.error, ppl_q * error_of(x.q, TOKENS), 1e-9);
    CHECK_NEAR(s.ppl_ref.value, ppl_p, 1e-9);
    CHECK_NEAR(s.ln_ratio.value, mean(ln, TOKENS), 1e-12);
    CHECK_NEAR(s.ln_ratio.error, error_of(ln, TOKENS), 1e-9); /* tokens paired */
    CHECK_NEAR(s.ratio.value, ppl_q / ppl_p, 1e-9);
    CHECK_NEAR(s.ratio.error, ppl_q / ppl_p * error_of(ln, TOKENS), 1e-9);
    CHECK_NEAR(s.dppl.value, ppl_q - ppl_p, 1e-9);
    CHECK_NEAR(s.kld.value, mean(x.kld, TOKENS), 1e-12);
    CHECK_NEAR(s.kld.error, error_of(x.kld, TOKENS), 1e-9);
    CHECK_NEAR(s.kld_error_chunks, error_of(chunk, TOKENS / PER_CHUNK), 1e-9);
    CHECK_NEAR(s.dp.value, mean(x.dp, TOKENS), 1e-9);
    CHECK_NEAR(s.rms_dp.value, sqrt(mean(x.dp2, TOKENS)), 1e-9);
    CHECK_NEAR(s.rms_dp.error, error_of(x.dp2, TOKENS) / (2 * sqrt(mean(x.dp2, TOKENS))), 1e-9);
    CHECK_NEAR(s.top1.value, share, 1e-12);
    CHECK_NEAR(s.top1.error, sqrt(share * (1 - share) / (TOKENS - 1)), 1e-12);
    double cov = 0, var_p = 0, var_q = 0, mp = mean(x.p, TOKENS), mq = mean(x.q, TOKENS);
    for (int i = 0; i < TOKENS; i++) cov += (x.p[i] - mp) * (x.q[i] - mq), var_p += pow(x.p[i] - mp, 2), var_q += pow(x.q[i] - mq, 2);
    CHECK_NEAR(s.cor, cov / sqrt(var_p * var_q), 1e-9);
    memcpy(sorted, x.kld, sizeof sorted);
    qsort(sorted, TOKENS, sizeof *sorted, by_value);
    for (int i = 0; i < KLD_POINTS; i++) CHECK_NEAR(s.kld_at[i], plain_point(sorted, TOKENS, kld_points[i]), 1e-8);
    memcpy(sorted, x.dp, sizeof sorted);
    qsort(sorted, TOKENS, sizeof *sorted, by_value);
    for (int i = 0; i < DP_POINTS; i++) CHECK_NEAR(s.dp_at[i], plain_point(sorted, TOKENS, dp_points[i]), 1e-8);
}

TEST(compare_summary_of_one_token_has_no_errors)
{
    static struct tokens x;
    struct kld_stats s;
    make_tokens(&x, 1, 3);
    CHECK(kld_summary(x.t, x.p, 1, 1, &s, NULL) == OK);
    CHECK(s.n == 1 && s.kld.value == x.kld[0] && s.kld.error == 0 && isnan(s.kld_error_chunks) && s.ln_ratio.error == 0 && s.top1.error == 0);
    CHECK(s.cor == 0 && s.ppl.error == 0 && s.rms_dp.error == 0);
    for (int i = 0; i < KLD_POINTS; i++) CHECK(s.kld_at[i] == (double)(float)x.kld[0]);
    for (int i = 0; i < DP_POINTS; i++) CHECK(s.dp_at[i] == (double)x.t[0].dp);
}

TEST(compare_summary_of_no_difference_is_clean)
{
    struct kld_token t[TOKENS];
    double p[TOKENS];
    struct kld_stats s;
    for (int i = 0; i < TOKENS; i++) p[i] = 1 + 0.1 * i, t[i] = (struct kld_token){ .nll = p[i], .same_top = true };
    CHECK(kld_summary(t, p, TOKENS, PER_CHUNK, &s, NULL) == OK);
    CHECK(s.kld.value == 0 && s.kld.error == 0 && s.top1.value == 1 && s.top1.error == 0 && s.rms_dp.value == 0 && s.rms_dp.error == 0);
    CHECK(s.ln_ratio.value == 0 && s.dppl.value == 0 && s.ratio.value == 1);
    CHECK_NEAR(s.ln_ratio.error, 0, 1e-8);
    CHECK_NEAR(s.cor, 1, 1e-12);
}

TEST(compare_summary_survives_a_failed_allocation)
{
    static struct tokens x;
    struct kld_stats s;
    struct err e = { 0 };
    make_tokens(&x, TOKENS, 1);
    mem_fail_at(1, false);
    CHECK(kld_summary(x.t, x.p, TOKENS, PER_CHUNK, &s, &e) == ERR_MEMORY && e.text[0]);
    mem_fail_at(0, false);
}

/* ---- conditions ---- */

static bool fails(const char *text, const struct compared *c)
{
    struct gate g;
    struct err e = { 0 };
    CHECK_MSG(gate_parse(&g, text, &e) == OK, "%s", e.text);
    return e.code == OK && gate_fails(&g, c);
}

TEST(compare_gates_hold_figures_against_limits)
{
    const struct compared c = { .bytes = 3.0 * 1073741824, .bpw = 4.5, .speed = NAN,
                                .s = { .kld = { 0.05, 0.001 }, .top1 = { 0.97, 0 }, .ppl = { 8, 0 }, .dppl = { -0.5, 0 }, .rms_dp = { 0.03, 0 } } };
    static const char *const hold[] = { "kld>0.049", "kld>=0.05", "kld<=0.05", " KLD > 1e-3 ", "top1<98", "top1<98%", "top1 < 97.5 %", "ppl>7.99",
                                        "dppl<0", "dppl>=-0.5", "size>2G", "size>3000M", "size>=3g", "size<3221225473", "bpw>4", "rmsdp>2.9%",
                                        "kld_error>=0.001", "speed>1", "speed<1" }; /* a figure that is not known passes no gate */
    static const char *const pass[] = { "kld>0.05", "kld<0.05", "top1<97", "ppl<8", "size>3G", "size>4G", "size<1K", "dppl<-0.5", "bpw>4.5" };
    for (int i = 0; i < ARRAY_LEN(hold); i++) CHECK_MSG(fails(hold[i], &c), "'%s' does not hold", hold[i]);
    for (int i = 0; i < ARRAY_LEN(pass); i++) CHECK_MSG(!fails(pass[i], &c), "'%s' holds", pass[i]);
}

TEST(compare_gates_refuse_what_is_no_condition)
{
    static const struct { const char *text, *says; } rows[] = {
        { "", "no figure ''; some are: kld" }, { "loss>1", "no figure 'loss'" }, { "kld", "< or > is expected after kld" },
        { "kld=1", "< or > is expected after kld" }, { "kld!1", "no figure 'kld!1'" }, { "kld>", "a number is expected after >" },
        { "kld>x", "a number is expected after >" }, { "kld<=", "a number is expected after <" }, { "kld>nan", "a number is expected" },
        { "kld>inf", "a number is expected" }, { "kld>1e999", "a number is expected" }, { "kld>0.05%", "'%' after the number" },
        { "kld>5G", "'G' after the number" }, { "size>4GB", "'GB' after the number" }, { "size>4%", "'%' after the number" },
        { "top1<98%%", "'%%' after the number" }, { "kld>0.05 and more", "'and more' after the number" }, { "kld>>1", "a number is expected" },
        { "kld>0.05,ppl>3", "',ppl>3' after the number" }, { "ppl>1 2", "'2' after the number" }, { "top1<98% x", "'% x' after the number" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct gate g;
        struct err e = { 0 };
        CHECK_MSG(gate_parse(&g, rows[i].text, &e) == ERR_USAGE, "'%s' was accepted", rows[i].text);
        CHECK_HAS(e.text, "--fail-if");
        CHECK_HAS(e.text, rows[i].says);
    }
    char longest[4096];
    struct gate g;
    struct err e = { 0 };
    memset(longest, 'k', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    CHECK(gate_parse(&g, longest, &e) == ERR_USAGE);
}

TEST(compare_gates_know_every_metric)
{
    for (int i = 0; i < metric_count; i++) {
        struct gate g;
        char text[64];
        snprintf(text, sizeof text, "%s>=1", metrics[i].name);
        CHECK(gate_parse(&g, text, NULL) == OK && g.metric == &metrics[i]);
    }
}

TEST(compare_formats_are_known_by_name_or_by_file)
{
    CHECK(compare_format("md", NULL) == COMPARE_MD && compare_format(NULL, "a/b.html") == COMPARE_HTML && compare_format(NULL, "x.JSON") == COMPARE_JSON);
    CHECK(compare_format("csv", "x.html") == COMPARE_CSV && compare_format(NULL, NULL) == COMPARE_TEXT && compare_format(NULL, "x.doc") == COMPARE_TEXT);
}

/* ---- logits files ---- */

enum { F_CTX = 8, F_VOCAB = 301, F_CHUNKS = 3, F_SCORED = 3, F_BYTES = 20 + 4 * F_CHUNKS * F_CTX + 2 * F_CHUNKS * F_SCORED * (302 + 4) };

static float file_logits[F_CHUNKS * F_SCORED][F_VOCAB];

static status write_logits(const char *path, struct err *e)
{
    struct file_out f = { .fd = -1 };
    struct kernels k;
    int32_t tokens[F_CHUNKS * F_CTX];
    uint16_t row[306];
    uint64_t rng = 77;
    kernels_init(&k, 0);
    for (int i = 0; i < F_CHUNKS * F_CTX; i++) tokens[i] = (int32_t)(test_rand(&rng) % F_VOCAB);
    status st = file_create(&f, path, e);
    if (st == OK) st = kld_write_head(&f, F_CTX, F_VOCAB, F_CHUNKS, tokens, e);
    for (int i = 0; i < F_CHUNKS * F_SCORED && st == OK; i++) {
        make_logits(file_logits[i], F_VOCAB, 3, &rng);
        kld_row(&k, file_logits[i], F_VOCAB, row);
        st = file_write(&f, row, sizeof row, e);
    }
    if (st == OK) st = file_commit(&f, e);
    file_abort(&f);
    return st;
}

static size_t logits_bytes(uint8_t *out, size_t cap)
{
    FILE *f = fopen(test_tmp("compare.kld"), "rb");
    size_t n = f ? fread(out, 1, cap, f) : 0;
    if (f) fclose(f);
    return n;
}

static status open_bytes(const uint8_t *p, size_t n, struct kld_file *out, struct err *e)
{
    const char *path = test_tmp("compare-bad.kld");
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(p, 1, n, f) == n);
    if (f) fclose(f);
    *e = (struct err){ 0 };
    return kld_file_open(out, path, e);
}

/* Against the logits themselves: a code is off by half a step of 16 / 65535, so is each ln p; a KL of nothing comes out as the square of that. */
TEST(compare_reads_back_the_logits_file_it_wrote)
{
    struct kld_file f;
    struct kernels k;
    struct err e = { 0 };
    static float kept[F_VOCAB];
    kernels_init(&k, UINT64_MAX);
    CHECK_MSG(write_logits(test_tmp("compare.kld"), &e) == OK, "%s", e.text);
    CHECK_MSG(kld_file_open(&f, test_tmp("compare.kld"), &e) == OK, "%s", e.text);
    CHECK(f.n_ctx == F_CTX && f.n_vocab == F_VOCAB && f.n_chunks == F_CHUNKS && f.row_words == 306 && f.file.size == F_BYTES);
    for (int i = 0; i < F_CHUNKS * F_SCORED && e.code == OK; i++) {
        struct kld_ref r = { .logits = kept };
        struct kld_token t;
        int32_t target = f.tokens[i / F_SCORED * F_CTX + F_CTX / 2 + 1 + i % F_SCORED];
        CHECK(kld_ref_codes(&k, &r, f.rows + (size_t)i * f.row_words, F_VOCAB, target));
        struct plain same = plain_token(file_logits[i], file_logits[i], F_VOCAB, target);
        CHECK(r.top == same.top_p);
        CHECK_NEAR(r.nll, same.nll_p, 2e-4);
        CHECK_NEAR(r.mass, 1, 2e-4);
        kld_token(&k, &r, file_logits[i], F_VOCAB, target, &t);
        CHECK(t.same_top && fabsf(t.dp) < 2e-4f);
        CHECK_NEAR(t.kld, 0, 2e-4);
        const float *other = file_logits[(i + 1) % (F_CHUNKS * F_SCORED)];
        kld_token(&k, &r, other, F_VOCAB, target, &t);
        struct plain want = plain_token(file_logits[i], other, F_VOCAB, target);
        CHECK_NEAR(t.kld / want.kld, 1, 2e-3);
        CHECK_NEAR(t.nll, want.nll_q, 1e-5);
    }
    kld_file_close(&f);
}

TEST(compare_refuses_logits_files_cut_anywhere)
{
    static uint8_t p[F_BYTES + 8];
    struct kld_file f;
    struct err e = { 0 };
    CHECK(write_logits(test_tmp("compare.kld"), &e) == OK && logits_bytes(p, sizeof p) == F_BYTES);
    for (size_t n = 0; n < F_BYTES; n += n < 200 ? 1 : 97) {
        CHECK_MSG(open_bytes(p, n, &f, &e) == ERR_FORMAT, "cut to %zu bytes", n);
        CHECK_HAS(e.text, "compare-bad.kld");
        CHECK_HAS(e.text, n < 20 ? "does not begin with _logits_" : "cut short");
    }
    CHECK(open_bytes(p, F_BYTES + 1, &f, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "bytes too many");
    CHECK(kld_file_open(&f, test_tmp("compare-none.kld"), &e) == ERR_FILE);
}

TEST(compare_refuses_hostile_logits_heads)
{
    static const struct { int at; int32_t value; const char *says; } rows[] = {
        { 8, 3, "context is 3, expected 4 to" },     { 8, -1, "context is -1" },           { 8, INT32_MAX, "context is 2147483647" },
        { 12, 0, "vocabulary is 0, expected 1 to" }, { 12, -5, "vocabulary is -5" },       { 12, INT32_MAX, "vocabulary is 2147483647" },
        { 16, 0, "number of chunks is 0" },          { 16, INT32_MIN, "number of chunks" }, { 16, INT32_MAX, "cut short" },
        { 8, 1 << 24, "cut short" },                 { 12, 1 << 24, "cut short" },         { 16, 2, "bytes too many" },
        { 12, 300, "bytes too many" },               { 20, -1, "token 0 is -1, expected 0 to 300" }, { 24, 301, "token 1 is 301" },
        { 0, 0, "does not begin with _logits_" },
    };
    static uint8_t good[F_BYTES + 8], p[F_BYTES + 8];
    struct kld_file f;
    struct err e = { 0 };
    CHECK(write_logits(test_tmp("compare.kld"), &e) == OK && logits_bytes(good, sizeof good) == F_BYTES);
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        memcpy(p, good, sizeof p);
        memcpy(p + rows[i].at, &rows[i].value, 4);
        CHECK_MSG(open_bytes(p, F_BYTES, &f, &e) == ERR_FORMAT, "row %d was accepted", i);
        CHECK_HAS(e.text, rows[i].says);
    }
    memcpy(p, good, sizeof p); /* all three at once: no product wraps */
    for (int at = 8; at < 20; at += 4) memcpy(p + at, at < 16 ? &(int32_t){ 1 << 24 } : &(int32_t){ INT32_MAX }, 4);
    CHECK(open_bytes(p, F_BYTES, &f, &e) == ERR_FORMAT);
}

TEST(compare_refuses_rows_that_are_no_distribution)
{
    static const float heads[][2] = { { NAN, -1 }, { -1e-4f, -1 }, { 2, -1 },     { 1e-4f, NAN }, { 1e-4f, INFINITY },
                                      { 0, 0 },    { 0, -20 },     { 2e-4f, 3 }, { 1, 1e5f } };
    static float kept[F_VOCAB];
    uint16_t row[306] = { 0 };
    struct kernels k;
    struct kld_ref r = { .logits = kept };
    kernels_init(&k, UINT64_MAX);
    for (int i = 4; i < 306; i++) row[i] = (uint16_t)(i * 200);
    for (int i = 0; i < ARRAY_LEN(heads); i++) {
        memcpy(row, heads[i], sizeof heads[i]);
        CHECK_MSG(!kld_ref_codes(&k, &r, row, F_VOCAB, 5), "head %d was accepted", i);
    }
}

SUITE(compare, T(compare_token_agrees_with_double_precision), T(compare_of_equal_logits_is_exactly_nothing), T(compare_keeps_far_logits_apart),
      T(compare_summary_agrees_with_its_definitions), T(compare_summary_of_one_token_has_no_errors), T(compare_summary_of_no_difference_is_clean),
      T(compare_summary_survives_a_failed_allocation), T(compare_gates_hold_figures_against_limits), T(compare_gates_refuse_what_is_no_condition),
      T(compare_gates_know_every_metric), T(compare_formats_are_known_by_name_or_by_file), T(compare_reads_back_the_logits_file_it_wrote),
      T(compare_refuses_logits_files_cut_anywhere), T(compare_refuses_hostile_logits_heads), T(compare_refuses_rows_that_are_no_distribution));

/* solver - the model read, its matrices solved and written by one call (tools/quant_solve.h), on models that are damaged. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tests/test.h"
#include "tests/tiny.h"
#include "tools/quant_solve.h"
#include "tools/twin.h"

enum { TOKENS = 2048 };

static status solve_with(struct calibration *k, const struct cli *c, struct importance *im, const char *in, const char *out, struct err *e)
{
    const struct quant_options o = { .type = "Q4_0", .n_threads = 2, .importance = im, .spec.method = &quantizer_gptq, .solver = "a test" };
    struct quant_solve q = { .c = c, .k = k, .correct = METRIC_AIM_STRENGTH };
    const struct quant_run r = { .overwrite = true, .solve = quant_solve_run, .solve_ctx = &q };
    TRY(calibration_outline(k, true, im, e));
    TRY(quant_plan_open(&q.plan, in, &o, e));
    status st = calibration_importance(k, c, true, im, e);
    if (st == OK) st = quant_file(q.plan, out, &r, e);
    quant_plan_close(q.plan);
    return st;
}

static status open_text(struct calibration *k, struct cli *c, const char *in, struct err *e)
{
    *c = (struct cli){ .quiet = true, .threads = 2, .calibration = test_tmp("solver.txt"), .calibration_tokens = TOKENS };
    FILE *f = fopen(c->calibration, "w");
    for (int i = 0; f && i < TOKENS; i++) fprintf(f, "Line %d says nothing. ", i);
    if (f) fclose(f);
    return calibration_open(k, c, in, e);
}

static status solve(const char *in, const char *out, struct err *e)
{
    struct cli c;
    struct calibration k;
    struct importance im;
    TRY(open_text(&k, &c, in, e));
    importance_init(&im);
    status st = solve_with(&k, &c, &im, in, out, e);
    importance_close(&im);
    calibration_close(&k);
    return st;
}

/* Inputs say nothing of a head's weights, nor of an expert's that no token chose. */
TEST(solver_refuses_damaged_weights_that_no_input_shows)
{
    static const struct tiny_options models[] = { { .poison = "output.weight" }, { .poison = "blk.1.ffn_down_exps.weight", .n_expert = 64 } };
    for (int i = 0; i < ARRAY_LEN(models); i++) {
        const char *in = test_tmp("solver_in.gguf"), *out = test_tmp("solver_out.gguf");
        struct tiny_options o = models[i];
        struct err e = { 0 };
        o.n_embd = 256, o.n_head = 4, o.head_dim = 64, o.n_ff = 64;
        CHECK_MSG(tiny_model(in, &o, &e) == OK, "%s", e.text);
        CHECK(solve(in, out, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, models[i].poison);
        CHECK_HAS(e.text, "holds NaN or infinity");
        CHECK(access(out, F_OK) != 0);
    }
}

struct seen { int64_t n_embd, n_cols, n_ctx; _Atomic int64_t rows, same, weighed, raised; };

static double mean_square(const struct seen *s, const struct twin_rows *r, int64_t i)
{
    double sum = 0;
    for (int64_t j = 0; j < s->n_embd; j++) sum += (double)r->sum_f[i * s->n_embd + j] * (double)r->sum_f[i * s->n_embd + j];
    return sum / (double)s->n_embd + (double)TWIN_EPS;
}

/* The first of a window, row i: n_ctx times, but where it is not larger than the others no more than one of them. */
static double first_weight(const struct seen *s, const struct twin_rows *r, int64_t i)
{
    double own = mean_square(s, r, i), others = 0;
    for (int64_t j = 1; j < s->n_ctx; j++) others += mean_square(s, r, i + j);
    return fmax(1 / own, fmin((double)s->n_ctx / own, (double)(s->n_ctx - 1) / others));
}

static void see(void *ctx, const struct twin_rows *r, int ith, int nth)
{
    struct seen *s = ctx;
    for (int64_t i = ith; i < r->n; i += nth) {
        double own = 1 / mean_square(s, r, i), want = i % s->n_ctx ? own : first_weight(s, r, i);
        s->rows++;
        s->same += !memcmp(r->f + i * s->n_cols, r->x + i * s->n_cols, (size_t)s->n_cols * sizeof *r->x) &&
                   !memcmp(r->sum_f + i * s->n_embd, r->sum + i * s->n_embd, (size_t)s->n_embd * sizeof *r->sum);
        s->weighed += fabs((double)r->weight[i] / want - 1) < 1e-5;
        s->raised += want > 1.01 * own;
    }
}

/* Inputs and sums of both models are the same as long as nothing is replaced, all rows are shown once, and each is weighed by the size of its sum. */
TEST(twins_are_alike_and_rows_are_weighed)
{
    static const struct { const char *name; int64_t n_cols; enum layers_sum sum; } shown[] = { { "blk.0.attn_output.weight", 256, LAYERS_SUM_IN },
                                                                                            { "blk.0.ffn_down.weight", 64, LAYERS_SUM_OUT } };
    const char *in = test_tmp("solver_in.gguf");
    struct tiny_options o = { .n_embd = 256, .n_head = 4, .head_dim = 64, .n_ff = 64 };
    struct err e = { 0 };
    struct cli c;
    struct calibration k;
    struct twin t;
    CHECK_MSG(tiny_model(in, &o, &e) == OK, "%s", e.text);
    CHECK(open_text(&k, &c, in, &e) == OK && calibration_start(&k, &e) == OK && twin_open(&t, &k, &c, &e) == OK && twin_start(&t, &e) == OK);
    for (int i = 0; i < ARRAY_LEN(shown); i++) {
        struct seen s = { .n_embd = 256, .n_cols = shown[i].n_cols, .n_ctx = k.n_ctx };
        CHECK_MSG(twin_show(&t, shown[i].name, s.n_cols, shown[i].sum, see, &s, &e) == OK, "%s", e.text);
        CHECK(s.rows == k.n_rows && s.same == s.rows && s.weighed == s.rows);
        CHECK(s.raised > 0);
    }
    twin_close(&t);
    calibration_close(&k);
}

/* States behind layer 0 */
static void take_states(const char *in, const struct tiny_options *o, float *x, int64_t n)
{
    struct err e = { 0 };
    struct cli c;
    struct calibration k;
    CHECK_MSG(tiny_model(in, o, &e) == OK, "%s", e.text);
    CHECK(open_text(&k, &c, in, &e) == OK && calibration_start(&k, &e) == OK && calibration_step(&k, &e) == OK);
    CHECK(k.x_bytes >= (size_t)n * sizeof *x);
    memcpy(x, k.x, (size_t)n * sizeof *x);
    calibration_close(&k);
}

/* Of LongRoPE those of a context of 4096, as run and chat: of the model that is trained for 16384 the short ones, although both have the same weights. */
TEST(calibration_picks_the_factors_of_longrope_that_run_picks)
{
    enum { N = 64 * 64 };
    float near[N], far[N];
    const char *in = test_tmp("solver_in.gguf");
    struct tiny_options o = { .arch = "phi3", .optional = true, .n_ctx = 16384 };
    take_states(in, &o, near, N);
    o.n_ctx = 256;
    take_states(in, &o, far, N);
    CHECK(memcmp(near, far, sizeof near) != 0);
}

SUITE(solver, T(solver_refuses_damaged_weights_that_no_input_shows), T(twins_are_alike_and_rows_are_weighed),
      T(calibration_picks_the_factors_of_longrope_that_run_picks));

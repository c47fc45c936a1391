/* solver - the model read, its matrices solved and written by one call (tools/quant_solve.h), on models that are damaged. */
#include <stdio.h>
#include <unistd.h>
#include "tests/test.h"
#include "tests/tiny.h"
#include "tools/quant_solve.h"

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

static status solve(const char *in, const char *out, struct err *e)
{
    const struct cli c = { .quiet = true, .threads = 2, .calibration = test_tmp("solver.txt"), .calibration_tokens = TOKENS };
    struct calibration k;
    struct importance im;
    FILE *f = fopen(c.calibration, "w");
    for (int i = 0; f && i < TOKENS; i++) fprintf(f, "Line %d says nothing. ", i);
    if (f) fclose(f);
    TRY(calibration_open(&k, &c, in, e));
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

SUITE(solver, T(solver_refuses_damaged_weights_that_no_input_shows));

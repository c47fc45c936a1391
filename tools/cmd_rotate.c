/* rotate - a model turned by Hadamard matrices into an equivalent one (src/rotate.h), for experiments in quantizing it. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "ggml-like/dtype.h"
#include "tools/opt.h"

struct job {
    struct bar bar;
    char in[PATH_MAX];
    struct model *model;
    struct rotate *rotate;
};

static bool progress(void *ctx, int64_t done, const char *tensor)
{
    struct job *j = ctx;
    bar_update(&j->bar, done >> 20, tensor);
    return !cli_interrupted;
}

static status check_out(const struct job *j, const struct cli *c, struct err *e)
{
    struct file_facts f;
    const char *in = j->in;
    TRY(output_check("rotate", c->args[0], &in, 1, e));
    if (c->overwrite || !file_stat(c->args[0], &f)) return OK;
    return err_set(e, ERR_USAGE, "%s: exists; --overwrite replaces it", c->args[0]);
}

static status rotate(struct job *j, const struct cli *c, struct err *e)
{
    char from[32], to[32];
    struct model_info info;
    struct rotate_options o = { .seed = (uint64_t)c->rotate_seed, .no_r1 = c->no_r1, .no_r2 = c->no_r2, .untie = c->untie,
                                .allow_requantize = c->allow_requantize, .n_threads = (int)c->threads, .progress = progress, .ctx = j };
    o.type = dtype_by_name(c->dtype);
    TRY(model_find(c->model, j->in, sizeof j->in, e));
    TRY(check_out(j, c, e));
    TRY(model_open(&j->model, j->in, &(struct model_options){ 0 }, e));
    TRY(rotate_open(&j->rotate, j->model, j->in, &o, e));
    model_info(j->model, &info);
    const char *head = rotate_head(j->rotate);
    if (!c->quiet)
        fprintf(stderr, "rotate    %s, seed %lld, %lld tensors, %s -> %s%s%s (experimental)\n", c->no_r1 ? "R2" : c->no_r2 ? "R1" : "R1 and R2",
                (long long)c->rotate_seed, (long long)rotate_n(j->rotate), size_text(info.file_bytes, from), size_text(rotate_bytes(j->rotate), to),
                head ? ", the head apart from the embedding: " : "", head ? head : "");
    bar_begin(&j->bar, c, "rotate", "MiB", (int64_t)(rotate_bytes(j->rotate) >> 20));
    status st = rotate_write(j->rotate, c->args[0], e);
    bar_end(&j->bar);
    return st;
}

static int run(struct cli *c)
{
    struct err e = { 0 };
    struct job j = { .model = NULL };
    cli_signals();
    status st = rotate(&j, c, &e);
    if (st == OK && !c->quiet) fprintf(stderr, "wrote %s\n", c->args[0]);
    rotate_close(j.rotate);
    model_close(j.model);
    const char *hint = strstr(e.text, ": R1 would") ? "--no-r1 turns the values of attention only." : NULL;
    if (strstr(e.text, ": R2 would")) hint = "--no-r2 turns the residual stream only.";
    return st == OK ? 0 : cli_fail(&e, hint);
}

OPT_GROUP(rotate_group, "Rotate",
    { "seed", "-s", OPT_INT, OPT_AT(rotate_seed), .value = "N", .def = "1", .lo = 0, .hi = (double)(1ll << 53), .help = "of the random signs" },
    { "no-r1", NULL, OPT_FLAG, OPT_AT(no_r1), .help = "leave the residual stream as it is" },
    { "no-r2", NULL, OPT_FLAG, OPT_AT(no_r2), .help = "leave the values of attention as they are" },
    { "type", NULL, OPT_STR, OPT_AT(dtype), .value = "TYPE", .def = "f16", .choices = "f32|f16|bf16", .help = "of turned matrices; F32 ones stay F32" },
    { "untie", NULL, OPT_FLAG, OPT_AT(untie), .help = "a head that is the embedding becomes a tensor of its own: the file grows" },
    { "allow-requantize", NULL, OPT_FLAG, OPT_AT(allow_requantize), .help = "take tensors that are quantized; written as --type" },
    { "overwrite", "--force", OPT_FLAG, OPT_AT(overwrite), .help = "replace an existing output" },
    { "threads", "-t", OPT_INT, OPT_AT(threads), .value = "N", .lo = 0, .hi = 500, .help = "threads; 0: one per physical core" },
    ROW_QUIET, ROW_COLOR);

static const struct opt_group *const groups[] = { &rotate_group, NULL };

const struct command command_rotate = {
    .name = "rotate",
    .brief = "turn a model by Hadamard matrices before quantizing it (experimental)",
    .usage = "cuanto rotate MODEL OUT [options]",
    .examples = "cuanto rotate model-F16.gguf turned.gguf\n"
                "cuanto rotate tied-F16.gguf turned.gguf --untie --seed 7",
    .groups = groups,
    .min_args = 2,
    .max_args = 2,
    .run = run,
};

/* convert - a Hugging Face directory as one GGUF file, and back; a PEFT folder as an adapter in GGUF, and back. The library plans, checks and writes
 * (src/convert.h, src/peft.h); here are words and a bar. */
#include "src/convert.h"
#include "src/peft.h"
#include "tools/opt.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct job {
    struct cli *c;
    struct bar bar;
    char out[PATH_MAX];
};

static void warn(void *ctx, const char *text)
{
    const struct job *j = ctx;
    if (j->c->quiet) return;
    fputs("convert: ", stderr);
    for (; *text; text++) fputc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, stderr); /* names of tensors and tokens are the file's */
    fputc('\n', stderr);
}

static bool progress(void *ctx, size_t done, size_t total)
{
    struct job *j = ctx;
    bar_update(&j->bar, (int64_t)(done >> 20), NULL);
    return !cli_interrupted;
}

/* Of a checkpoint: one of its files was named. */
static bool is_part(const char *path)
{
    static const char *const ends[] = { ".safetensors", ".bin", ".pth", ".pt", ".json" };
    size_t n = strlen(path);
    for (int i = 0; i < ARRAY_LEN(ends); i++)
        if (n > strlen(ends[i]) && !strcmp(path + n - strlen(ends[i]), ends[i])) return true;
    return false;
}

/* "dir/Name", or a file in it, and F16: "Name-F16.gguf" here */
static status default_out(struct job *j, const char *type, struct err *e)
{
    char dir[PATH_MAX];
    size_t n = is_part(j->c->model) ? (size_t)(path_base(j->c->model) - j->c->model) : strlen(j->c->model);
    while (n > 1 && j->c->model[n - 1] == '/') n--;
    if (n >= sizeof dir) return err_set(e, ERR_USAGE, "%.60s...: the path is too long", j->c->model);
    memcpy(dir, j->c->model, n);
    dir[n] = '\0';
    const char *base = path_base(dir), *name = base;
    char real[PATH_MAX];
    if (!*base || !strcmp(base, ".") || !strcmp(base, "..")) name = realpath(*dir ? dir : ".", real) && *path_base(real) ? path_base(real) : "model";
    if (snprintf(j->out, sizeof j->out, "%s-%s.gguf", name, type) < (int)sizeof j->out) return OK;
    return err_set(e, ERR_USAGE, "%.60s...: the path is too long", j->c->model);
}

/* A checkpoint has many files, and what is written takes the place of one: only an older output is replaced, or an empty file. */
static bool may_replace(const char *path)
{
    char head[4];
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    return n == 0 || (n == sizeof head && !memcmp(head, "GGUF", sizeof head));
}

static status check_out(struct job *j, struct err *e)
{
    struct stat st;
    TRY(output_apart("--output", j->out, &j->c->model, 1, e));
    if (stat(j->out, &st) != 0 || !S_ISREG(st.st_mode)) return OK; /* what is no file is refused when it is opened */
    if (!j->c->overwrite) return err_set(e, ERR_USAGE, "%s exists; --overwrite replaces it", j->out);
    return may_replace(j->out) ? OK : err_set(e, ERR_USAGE, "%s is no GGUF file: --overwrite does not replace it", j->out);
}

/* What both directions say of a file; for an export, what only a conversion knows is NULL or 0. */
static void tell(const struct job *j, const struct convert_info *i)
{
    char size[32];
    size_text(i->out_bytes, size);
    if (j->c->json) {
        struct json_out o;
        json_out_init(&o, true);
        json_begin(&o, NULL, '{');
        json_put_cstr(&o, "architecture", i->arch);
        json_put_cstr(&o, "hugging_face", i->hf);
        if (i->type) json_put_cstr(&o, "type", i->type);
        if (i->type) json_put_cstr(&o, "types", i->types);
        if (i->pre) json_put_cstr(&o, "pre_tokenizer", i->pre);
        json_put_i64(&o, "tensors", i->n_tensors);
        if (i->n_vocab) json_put_i64(&o, "vocabulary", i->n_vocab);
        json_put_i64(&o, "bytes", (int64_t)i->out_bytes);
        json_put_cstr(&o, "output", j->c->dry_run ? NULL : j->out);
        json_end(&o, '}');
        if (json_out_ok(&o)) out_printf("%.*s\n", (int)o.n, o.buf);
        json_out_free(&o);
        return;
    }
    if (j->c->quiet && !j->c->dry_run) return;
    if (i->type)
        out_printf("%s (%s) -> %s: %lld tensors%s%s, %lld tokens%s%s, %s\n", i->hf, j->c->model, i->arch, (long long)i->n_tensors, *i->types ? ": " : "",
                   i->types, (long long)i->n_vocab, *i->pre ? ", pre-tokenizer " : "", i->pre, size);
    else out_printf("%s (%s) -> %s: %lld tensors, %s\n", i->arch, j->c->model, i->hf, (long long)i->n_tensors, size);
    if (!j->c->dry_run && !j->c->quiet) out_printf("wrote %s\n", j->out);
}

static status convert(struct job *j, struct err *e)
{
    struct cli *c = j->c;
    struct convert_options o = {
        .pre = c->pre,
        .name = c->name,
        .allow_unused = c->allow_unused,
        .vocab_only = c->vocab_only,
        .n_threads = (int)c->threads,
        .warn = warn,
        .progress = progress,
        .ctx = j,
    };
    if (c->dtype && strcmp(c->dtype, "auto") && !(o.type = dtype_by_name(c->dtype)))
        return err_set(e, ERR_USAGE, "--dtype: '%.30s' is unknown: auto, f32, f16, bf16, q8_0, ...", c->dtype);
    struct convert *cv;
    struct convert_info info;
    if (c->output && snprintf(j->out, sizeof j->out, "%s", c->output) >= (int)sizeof j->out)
        return err_set(e, ERR_USAGE, "%.60s...: the path is too long", c->output);
    TRY(convert_open(&cv, c->model, &o, e));
    convert_info(cv, &info);
    status st = c->output ? OK : default_out(j, info.type, e);
    if (st == OK && !c->dry_run) st = check_out(j, e);
    if (st == OK && cli_interrupted) st = err_set(e, ERR_INTERRUPTED, "interrupted");
    if (st == OK && !c->dry_run) {
        bar_begin(&j->bar, c, "convert", "MiB", (int64_t)(info.out_bytes >> 20));
        st = convert_write(cv, j->out, e);
        bar_end(&j->bar);
    }
    if (st == OK) tell(j, &info);
    convert_close(cv);
    return st;
}

/* ---- the other way ---- */

static bool is_gguf(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && !strcmp(path + n - 5, ".gguf");
}

/* "dir/Name.gguf": "Name-hf" here */
static status default_dir(struct job *j, const char *kind, struct err *e)
{
    const char *base = path_base(j->c->model);
    int n = (int)strlen(base) - 5;
    if (snprintf(j->out, sizeof j->out, "%.*s-%s", n, base, kind) < (int)sizeof j->out) return OK;
    return err_set(e, ERR_USAGE, "%.60s...: the path is too long", j->c->model);
}

/* Any of the files of a model says that the directory is one: a checkpoint in shards has no model.safetensors. */
static status check_dir(struct job *j, struct err *e)
{
    static const char *const names[] = { "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                                         "adapter_config.json", "adapter_model.safetensors" };
    struct stat st;
    char path[PATH_MAX + 32];
    if (stat(j->out, &st) == 0 && !S_ISDIR(st.st_mode)) return err_set(e, ERR_USAGE, "%s is no directory: a GGUF file becomes a directory", j->out);
    for (int i = 0; i < ARRAY_LEN(names) && !j->c->overwrite; i++) {
        snprintf(path, sizeof path, "%s/%s", j->out, names[i]);
        if (stat(path, &st) == 0) return err_set(e, ERR_USAGE, "%s exists; --overwrite replaces it", path);
    }
    return OK;
}

/* What only a checkpoint has. */
static status check_options(const struct cli *c, bool adapter, struct err *e)
{
    const struct { const char *name; bool given; } rows[] = {
        { "--pre", c->pre != NULL }, { "--name", c->name != NULL && !adapter }, { "--allow-unused", c->allow_unused }, { "--vocab-only", c->vocab_only },
    };
    const char *what = adapter ? "an adapter" : "a GGUF file that becomes a directory";
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].given) return err_set(e, ERR_USAGE, "%s: not for %s", rows[i].name, what);
    return OK;
}

static status export(struct job *j, struct err *e)
{
    struct cli *c = j->c;
    TRY(check_options(c, false, e));
    struct export *x;
    struct export_info info;
    struct export_options o = { .n_threads = (int)c->threads, .warn = warn, .progress = progress, .ctx = j };
    if (c->dtype && strcmp(c->dtype, "auto") && !(o.type = dtype_by_name(c->dtype)))
        return err_set(e, ERR_USAGE, "--dtype: '%.30s' is unknown: auto, f32, f16, bf16", c->dtype);
    if (c->output && snprintf(j->out, sizeof j->out, "%s", c->output) >= (int)sizeof j->out)
        return err_set(e, ERR_USAGE, "%.60s...: the path is too long", c->output);
    if (is_gguf(j->out)) return err_set(e, ERR_USAGE, "-o %s: a GGUF file becomes a directory; cuanto quantize makes another GGUF file of it", j->out);
    TRY(export_open(&x, c->model, &o, e));
    export_info(x, &info);
    status st = c->output ? OK : default_dir(j, "hf", e);
    if (st == OK && !c->dry_run) st = check_dir(j, e);
    if (st == OK && cli_interrupted) st = err_set(e, ERR_INTERRUPTED, "interrupted");
    if (st == OK && !c->dry_run) {
        bar_begin(&j->bar, c, "convert", "MiB", (int64_t)(info.bytes >> 20));
        st = export_write(x, j->out, e);
        bar_end(&j->bar);
    }
    if (st == OK) tell(j, &(struct convert_info){ .arch = info.arch, .hf = info.hf, .n_tensors = info.n_tensors, .out_bytes = info.bytes });
    export_close(x);
    return st;
}

/* ---- adapters ---- */

static void tell_adapter(const struct job *j, const struct peft_info *i, bool to_gguf)
{
    if (j->c->json) {
        struct json_out o;
        json_out_init(&o, true);
        json_begin(&o, NULL, '{');
        json_put_cstr(&o, "kind", "adapter");
        json_put_i64(&o, "tensors", i->n_tensors);
        json_put_i64(&o, "modules", i->n_modules);
        json_put_i64(&o, "rank_min", i->rank_min);
        json_put_i64(&o, "rank_max", i->rank_max);
        json_put_f64(&o, "alpha", i->alpha);
        json_put_cstr(&o, "type", i->type->gguf_name);
        json_put_cstr(&o, "output", j->c->dry_run ? NULL : j->out);
        json_end(&o, '}');
        if (json_out_ok(&o)) out_printf("%.*s\n", (int)o.n, o.buf);
        json_out_free(&o);
        return;
    }
    if (j->c->quiet && !j->c->dry_run) return;
    char rank[48];
    snprintf(rank, sizeof rank, i->rank_min == i->rank_max ? "%lld" : "%lld to %lld", (long long)i->rank_min, (long long)i->rank_max);
    out_printf("%s (%s) -> %s: %lld modules, %lld tensors, rank %s, alpha %g, %s\n", to_gguf ? "PEFT adapter" : "adapter", j->c->model,
               to_gguf ? "GGUF adapter" : "PEFT folder", (long long)i->n_modules, (long long)i->n_tensors, rank, i->alpha, i->type->gguf_name);
    if (!j->c->dry_run && !j->c->quiet) out_printf("wrote %s\n", j->out);
}

/* Either way needs the base: shapes, names and the order of rows are its. The first look writes nothing. */
static status convert_adapter(struct job *j, bool to_gguf, struct err *e)
{
    struct cli *c = j->c;
    char path[PATH_MAX];
    struct model *m;
    struct peft_info info;
    struct peft_options o = { .base_name = c->name, .check_only = true, .warn = warn, .ctx = j };
    status (*make)(const char *, const struct model *, const char *, const struct peft_options *, struct peft_info *, struct err *) =
        to_gguf ? peft_import : peft_export;
    TRY(check_options(c, true, e));
    if (!c->base) return err_set(e, ERR_USAGE, "%.80s is an adapter: --base MODEL.gguf says of which model", c->model);
    if (c->dtype && strcmp(c->dtype, "auto") && !(o.type = dtype_by_name(c->dtype)))
        return err_set(e, ERR_USAGE, "--dtype: '%.30s' is unknown: auto, f32, f16, bf16", c->dtype);
    if (o.type && o.type->gguf_id != GGUF_F32 && o.type->gguf_id != GGUF_F16 && o.type->gguf_id != GGUF_BF16)
        return err_set(e, ERR_USAGE, "--dtype %s: adapters are f32, f16 or bf16", c->dtype);
    if (c->output && snprintf(j->out, sizeof j->out, "%s", c->output) >= (int)sizeof j->out)
        return err_set(e, ERR_USAGE, "%.60s...: the path is too long", c->output);
    TRY(model_find(c->base, path, sizeof path, e));
    TRY(model_open(&m, path, &(struct model_options){ 0 }, e));
    status st = make(c->model, m, NULL, &o, &info, e);
    o.check_only = false, o.warn = NULL;
    if (st == OK && !c->output) st = to_gguf ? default_out(j, info.type->gguf_name, e) : default_dir(j, "peft", e);
    if (st == OK && !c->dry_run) st = to_gguf ? check_out(j, e) : check_dir(j, e);
    if (st == OK && !c->dry_run) st = output_apart("--output", j->out, (const char *const[]){ path }, 1, e);
    if (st == OK && cli_interrupted) st = err_set(e, ERR_INTERRUPTED, "interrupted");
    if (st == OK && !c->dry_run) st = make(c->model, m, j->out, &o, &info, e);
    if (st == OK) tell_adapter(j, &info, to_gguf);
    model_close(m);
    return st;
}

/* A GGUF file that says it is one; what cannot be read is told by whoever opens it next. */
static bool is_adapter(const char *path)
{
    struct gguf g;
    struct str type;
    struct err none = { 0 };
    if (gguf_open(&g, path, true, &none) != OK) return false;
    bool is = gguf_get_str(&g, "general.type", &type, &none) && type.n == 7 && !memcmp(type.p, "adapter", 7);
    gguf_close(&g);
    return is;
}

/* ---- which way ---- */

static bool holds(const char *dir, const char *name)
{
    struct stat st;
    char path[PATH_MAX];
    return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path && stat(path, &st) == 0;
}

/* "HuggingFaceTB/SmolLM2-135M": two names and one slash. */
static bool is_hub_name(const char *name)
{
    const char *slash = strchr(name, '/');
    return slash && slash != name && slash[1] && !strchr(slash + 1, '/') && *name != '.' && *name != '~';
}

/* What `convert NAME` names: a checkpoint's directory or file as given, or the GGUF file that other commands find under the name. */
static status find_input(struct cli *c, char *path, size_t cap, struct err *e)
{
    struct stat st;
    struct err none = { 0 };
    const char *name = c->model;
    if (stat(name, &st) == 0) {
        return OK;
    }
    if (is_part(name)) return OK; /* told when it is opened */
    if (model_find(name, path, cap, &none) == OK && is_gguf(path)) {
        c->model = path;
        return OK;
    }
    if (is_gguf(name)) return OK;
    if (is_hub_name(name)) return err_set(e, ERR_FILE, "%s: no such directory; names of hubs are not downloaded: give a local directory", name);
    return err_set(e, ERR_FILE, "%s: no such file or directory", name);
}

static int run(struct cli *c)
{
    struct job j = { .c = c };
    struct err e = { 0 };
    char path[PATH_MAX];
    cli_signals();
    status st = find_input(c, path, sizeof path, &e);
    bool folder = st == OK && !is_gguf(c->model) && peft_is_folder(c->model) && (c->base || !holds(c->model, "config.json"));
    if (st == OK && folder) st = convert_adapter(&j, true, &e);
    else if (st == OK && is_gguf(c->model) && is_adapter(c->model)) st = convert_adapter(&j, false, &e);
    else if (st == OK && c->base) st = err_set(&e, ERR_USAGE, "--base: %.80s is no adapter", c->model);
    else if (st == OK) st = is_gguf(c->model) ? export(&j, &e) : convert(&j, &e);
    if (cli_interrupted && st != OK) st = e.code = ERR_INTERRUPTED; /* what is finished stays a success */
    return st == OK ? out_status() : cli_fail(&e, NULL);
}

OPT_GROUP(convert_group, "Convert",
    { "output", "-o --outfile", OPT_STR, OPT_AT(output), .value = "PATH",
      .help = "the file to write (default: NAME-TYPE.gguf here); of a GGUF file the directory (NAME-hf)" },
    { "dtype", "--outtype", OPT_STR, OPT_AT(dtype), .value = "TYPE", .def = "auto",
      .help = "format of the matrices: auto (as the checkpoint), f32, f16, bf16, q8_0, ..." },
    ROW_PRE,
    { "name", "--model-name", OPT_STR, OPT_AT(name), .value = "TEXT", .help = "the model's name in the file (default: the directory's)" },
    { "base", "--base-model", OPT_STR, OPT_AT(base), .value = "MODEL", .help = "of an adapter (PEFT folder or GGUF): the GGUF model it belongs to" },
    { "allow-unused", NULL, OPT_FLAG, OPT_AT(allow_unused), .help = "leave out tensors that the architecture has no place for" },
    { "vocab-only", NULL, OPT_FLAG, OPT_AT(vocab_only), .help = "keys and tokenizer, no weights" },
    { "dry-run", NULL, OPT_FLAG, OPT_AT(dry_run), .help = "check everything and print the plan, write nothing" },
    { "overwrite", "--force", OPT_FLAG, OPT_AT(overwrite), .help = "replace an existing output" },
    { "threads", "-t", OPT_INT, OPT_AT(threads), .value = "N", .lo = 0, .hi = 500, .help = "threads; 0: one per physical core" });

static const struct opt_group *const groups[] = { &convert_group, &opts_common, NULL };

const struct command command_convert = {
    .name = "convert",
    .brief = "make a GGUF file of a Hugging Face checkpoint or adapter, or the other way",
    .usage = "cuanto convert DIR|FILE [-o OUT.gguf] [options]\n"
             "       cuanto convert FILE.gguf [-o DIR] [options]\n"
             "       cuanto convert ADAPTER --base MODEL.gguf [-o OUT] [options]",
    .examples = "cuanto convert ./Qwen3-0.6B\n"
                "cuanto convert ./Qwen3-0.6B -o qwen.gguf --dtype q8_0\n"
                "cuanto convert ./checkpoint --dry-run\n"
                "cuanto convert qwen.gguf -o ./qwen-hf\n"
                "cuanto convert ./my-lora --base qwen.gguf -o lora.gguf",
    .groups = groups,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};

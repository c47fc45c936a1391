/* common - what every command needs around its work: errors with exit codes, finding a model file, opening model, engine and session.
 * The only file that decides defaults of machine and context. */
#include "ggml-like/kernels/kernels.h"
#include "quant/quant.h"
#include "tools/cli.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

int cli_fail(const struct err *e, const char *hint)
{
    if (e->code == ERR_INTERRUPTED) return 128 + (cli_interrupted ? cli_interrupted : 2);
    out_flush();
    fprintf(stderr, "cuanto: %s\n", e->text[0] ? e->text : "failed");
    if (hint) fprintf(stderr, "%s\n", hint);
    return e->code == OK ? ERR_RUNTIME : (int)e->code;
}

/* ---- finding the model ---- */

enum { PATH_CAP = 4096, SHORT_ROWS = 64 /* 15 bits: a question is not answered wrongly by rounding */ };

static bool has_suffix(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcasecmp(s + n - m, end);
}

/* dir/name when that is a file; with .gguf added when needed. */
static bool try_file(const char *dir, size_t dir_n, const char *name, char *path, size_t cap)
{
    static const char *const ends[] = { "", ".gguf" };
    struct stat st;
    for (int i = 0; i < ARRAY_LEN(ends); i++) {
        int n = snprintf(path, cap, "%.*s%s%s%s", (int)dir_n, dir, dir_n ? "/" : "", name, ends[i]);
        if (n > 0 && (size_t)n < cap && stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) return true;
    }
    return false;
}

/* The one .gguf of a directory. */
static status only_file(const char *dir, char *path, size_t cap, struct err *e)
{
    char names[120] = "";
    int found = 0;
    DIR *d = opendir(dir);
    if (!d) return err_set(e, ERR_FILE, "%s: cannot read this directory", dir);
    for (struct dirent *f; (f = readdir(d));) {
        if (!has_suffix(f->d_name, ".gguf")) continue;
        size_t n = strlen(names);
        if (snprintf(names + n, sizeof names - n, "%s%s", found ? ", " : "", f->d_name) >= (int)(sizeof names - n))
            memcpy(names + sizeof names - 4, "...", 4);
        if (found++ == 0 && snprintf(path, cap, "%s/%s", dir, f->d_name) >= (int)cap) found = -1;
        if (found < 0) break;
    }
    closedir(d);
    if (found == 1) return OK;
    if (found < 0) return err_set(e, ERR_FILE, "%s: the path is too long", dir);
    struct stat st;
    if (found == 0 && snprintf(path, cap, "%s/config.json", dir) < (int)cap && stat(path, &st) == 0)
        return err_set(e, ERR_FILE, "%.90s: a Hugging Face checkpoint, no .gguf file: first `cuanto convert %.90s`", dir, dir);
    if (found == 0) return err_set(e, ERR_FILE, "%s: no .gguf file in this directory", dir);
    return err_set(e, ERR_FILE, "%s: %d .gguf files, name one: %s", dir, found, names);
}

/* Files of ./models whose name holds `name`, in any case: ", did you mean a.gguf, b.gguf?"; "" for none. */
static const char *near_files(const char *name, char *buf, size_t cap)
{
    size_t n = strlen(name), used = 0;
    int found = 0;
    DIR *d = opendir("models");
    *buf = 0;
    for (struct dirent *f; d && found < 3 && (f = readdir(d));) {
        const char *at = has_suffix(f->d_name, ".gguf") ? f->d_name : "";
        while (*at && strncasecmp(at, name, n) != 0) at++;
        if (!*at || used + strlen(f->d_name) + 24 > cap) continue;
        used += (size_t)snprintf(buf + used, cap - used, "%s%s", found++ ? ", " : "; did you mean ", f->d_name);
    }
    if (found) snprintf(buf + used, cap - used, "?");
    if (d) closedir(d);
    return buf;
}

status model_find(const char *name, char *path, size_t cap, struct err *e)
{
    struct stat st;
    const char *dirs = getenv("CUANTO_MODELS");
    if (!name || !*name) return err_set(e, ERR_USAGE, "the model name is empty");
    if (stat(name, &st) == 0) {
        if (S_ISDIR(st.st_mode)) return only_file(name, path, cap, e);
        if (snprintf(path, cap, "%s", name) < (int)cap) return OK;
        return err_set(e, ERR_FILE, "%.60s...: the path is too long", name);
    }
    if (strchr(name, '/')) {
        if (try_file("", 0, name, path, cap)) return OK;
        return err_set(e, ERR_FILE, "%s: no such file or directory", name);
    }
    for (const char *p = dirs; p && *p;) {
        size_t n = strcspn(p, ":");
        if (n && try_file(p, n, name, path, cap)) return OK;
        p += n + (p[n] == ':');
    }
    if (try_file("models", 6, name, path, cap) || try_file("", 0, name, path, cap)) return OK;
    char near[200];
    near_files(name, near, sizeof near);
    if (dirs && *dirs) return err_set(e, ERR_FILE, "%s: no such model here, in ./models or in $CUANTO_MODELS (%s)%s", name, dirs, near);
    return err_set(e, ERR_FILE, "%s: no such model here or in ./models ($CUANTO_MODELS is not set)%s", name, near);
}

/* ---- opening ---- */

const char *format_name(const struct gguf *g, const char *dominant)
{
    const struct recipe *r = recipe_of_file(g);
    return r ? r->name : dominant;
}

int64_t runtime_default_ctx(const struct model *m)
{
    struct model_info info;
    model_info(m, &info);
    return info.n_ctx_train > 0 ? min_i64(info.n_ctx_train, RUNTIME_CTX) : RUNTIME_CTX;
}

/* "FILE:0.5": what stands behind the last colon is a scale when it is a number. */
status adapter_word(const char *text, char *path, size_t cap, float *scale_out, struct err *e)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    double scale = colon && colon[1] ? strtod(colon + 1, &end) : 1;
    if (!end || *end) scale = 1, colon = NULL;
    int n = snprintf(path, cap, "%.*s", colon ? (int)(colon - text) : (int)strlen(text), text);
    if (n >= (int)cap) return err_set(e, ERR_FILE, "%.60s...: the path is too long", text);
    if (!(scale >= -1e6 && scale <= 1e6)) return err_set(e, ERR_USAGE, "--lora %s: the scale is out of range -1e6..1e6", text);
    *scale_out = (float)scale;
    return OK;
}

static status open_adapter(struct runtime *r, const char *text, struct adapter_use *use, struct err *e)
{
    char path[PATH_CAP];
    TRY(adapter_word(text, path, sizeof path, &use->scale, e));
    TRY(adapter_open(&r->lora[r->n_lora], path, r->model, e));
    use->adapter = r->lora[r->n_lora++];
    return OK;
}

static status open_engine(struct runtime *r, const struct cli *c, struct err *e)
{
    struct adapter_use use[ADAPTERS_MAX];
    for (int i = 0; i < c->n_lora; i++) TRY(open_adapter(r, c->lora[i], &use[i], e));
    struct engine_options o = { .n_threads = (int)c->threads, .n_batch = c->batch, .isa = c->isa, .precise = c->precise, .short_rows = SHORT_ROWS,
                                .observe = c->observe, .observe_ctx = c->observe_ctx, .lora = use, .n_lora = c->n_lora };
    return engine_open(&r->engine, r->model, &o, e);
}

struct session_options session_choices(const struct cli *c, int64_t n_ctx)
{
    return (struct session_options){ .n_ctx = n_ctx,
                                     .kv_type = c->kv_type ? dtype_by_name(c->kv_type) : NULL,
                                     .k_type = c->k_type ? dtype_by_name(c->k_type) : NULL,
                                     .v_type = c->v_type ? dtype_by_name(c->v_type) : NULL };
}

static status open_session(struct runtime *r, const struct cli *c, int64_t n_ctx, struct err *e)
{
    if (n_ctx == 0) return OK;
    struct session_options o = session_choices(c, c->ctx > 0 ? c->ctx : n_ctx == RUNTIME_DEFAULT_CTX ? runtime_default_ctx(r->model) : n_ctx);
    return session_open(&r->session, r->engine, &o, e);
}

static void print_status(const struct runtime *r, const struct cli *c, const char *path)
{
    struct model_info m;
    char size[32], kv[32], context[96] = "", rope[48] = "";
    const char *slash = strrchr(path, '/'), *name;
    model_info(r->model, &m);
    name = m.name[0] ? m.name : slash ? slash + 1 : path;
    if (r->session)
        snprintf(context, sizeof context, " | context %lld, KV %s", (long long)session_n_ctx(r->session), size_text(session_bytes(r->session), kv));
    if (strcmp(m.rope, "none") != 0)
        snprintf(rope, sizeof rope, m.rope_factor != 1 ? " | rope %s x%g" : " | rope %s", m.rope, (double)m.rope_factor);
    int threads = c->threads > 0 ? (int)c->threads : r->cpu.n_threads_default;
    fprintf(stderr, "%s, %s, %s%s%s | %d %s (%s) | %s\n", name, format_name(model_gguf(r->model), m.type), size_text(m.file_bytes, size), context, rope,
            threads, threads == 1 ? "thread" : "threads", c->threads > 0 ? "asked for" : r->cpu.why, engine_kernels(r->engine)->name);
    if (r->session && m.n_ctx_train > 0 && session_n_ctx(r->session) > m.n_ctx_train && !c->rope_scaling)
        fprintf(stderr, "warning: context %lld is longer than the %lld positions this model was trained on; "
                "--rope-scaling yarn --rope-scale %lld stretches them\n",
                (long long)session_n_ctx(r->session), (long long)m.n_ctx_train, (long long)((session_n_ctx(r->session) - 1) / m.n_ctx_train + 1));
    for (int i = 0; i < r->n_lora; i++) {
        struct adapter_info a;
        adapter_info(r->lora[i], &a);
        fprintf(stderr, "adapter %s: %lld matrices, rank %lld%s\n", c->lora[i], (long long)a.n_matrices, (long long)a.rank_max,
                a.rank_min < a.rank_max ? " at most" : "");
    }
    if (m.note && m.note[0]) fprintf(stderr, "note: %s\n", m.note);
    if (!c->verbose) return;
    fprintf(stderr, "%s | %s, %lld layers, width %lld, %lld heads (%lld KV), vocabulary %lld | %.2f bits per weight | loaded in %.0f ms\n", path, m.arch,
            (long long)m.n_layer, (long long)m.n_embd, (long long)m.n_head, (long long)m.n_head_kv, (long long)m.n_vocab, m.bpw, r->load_ms);
}

status runtime_open(struct runtime *r, const struct cli *c, int64_t n_ctx, struct err *e)
{
    char path[PATH_CAP];
    double start = now_seconds();
    struct model_options o = {
        .no_mmap = c->no_mmap,
        .check = c->check,
        .pre = c->pre,
        .rope_scaling = c->rope_scaling,
        .rope_factor = c->rope_scale,
        .rope_base = c->rope_base,
        .rope_ctx_orig = c->yarn_orig_ctx,
        .n_ctx = c->ctx ? c->ctx : n_ctx == RUNTIME_DEFAULT_CTX ? -(int64_t)RUNTIME_CTX : n_ctx, /* as runtime_default_ctx */
    };
    *r = (struct runtime){ 0 };
    cpu_detect(&r->cpu);
    if (c->rope_scale > 0 && !c->rope_scaling) return err_set(e, ERR_USAGE, "--rope-scale needs --rope-scaling linear, yarn or ntk");
    status st = model_find(c->model, path, sizeof path, e);
    bool before = cli_signals_at_once(true);
    if (st == OK) st = model_open(&r->model, path, &o, e);
    cli_signals_at_once(before);
    if (st == OK) st = open_engine(r, c, e);
    if (st == OK) st = open_session(r, c, n_ctx, e);
    if (st == OK && cli_interrupted) st = err_set(e, ERR_INTERRUPTED, "interrupted");
    r->load_ms = (now_seconds() - start) * 1e3;
    if (st == OK && !c->quiet) print_status(r, c, path);
    if (st != OK) runtime_close(r);
    return st;
}

void runtime_close(struct runtime *r)
{
    session_close(r->session);
    engine_close(r->engine);
    for (int i = 0; i < r->n_lora; i++) adapter_close(r->lora[i]);
    r->n_lora = 0;
    model_close(r->model);
    r->session = NULL, r->engine = NULL, r->model = NULL;
}

/* ---- outputs ---- */

/* The same file, or the same name in the same folder where there is none yet. */
static bool same_place(const char *a, const char *b)
{
    char path[2][PATH_CAP];
    struct file_facts x, y;
    const char *name[2];
    if (file_stat(a, &x) && file_stat(b, &y)) return x.dev == y.dev && x.ino == y.ino;
    if (!file_target(a, path[0], PATH_CAP) || !file_target(b, path[1], PATH_CAP)) return false;
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(path[i], '/');
        name[i] = slash ? slash + 1 : path[i];
        if (slash) *slash = 0;
    }
    if (strcmp(name[0], name[1]) != 0) return false;
    const char *folder[2];
    for (int i = 0; i < 2; i++) folder[i] = name[i] == path[i] ? "." : *path[i] ? path[i] : "/";
    return file_stat(folder[0], &x) && file_stat(folder[1], &y) && x.dev == y.dev && x.ino == y.ino;
}

status output_apart(const char *what, const char *path, const char *const *other, int n, struct err *e)
{
    for (int i = 0; path && i < n; i++) {
        char found[PATH_CAP];
        struct err ignored = { 0 };
        if (!other[i]) continue;
        if (same_place(path, other[i]) || (model_find(other[i], found, sizeof found, &ignored) == OK && same_place(path, found)))
            return err_set(e, ERR_USAGE, "%s %.80s: would overwrite %.80s, named in the same command", what, path, other[i]);
    }
    return OK;
}

status output_check(const char *what, const char *path, const char *const *other, int n, struct err *e)
{
    struct file_out probe;
    if (!path) return OK;
    TRY(output_apart(what, path, other, n, e));
    TRY(file_create(&probe, path, e));
    file_abort(&probe);
    return OK;
}

/* export - weights of a GGUF file under the names, in the order and shape of a Hugging Face checkpoint: what convert_source.c and convert_write.c do,
 * backwards. See convert.h. */
#include "src/export_int.h"
#include "ggml-like/checkpoint.h"
#include "ggml-like/cpu.h"
#include "ggml-like/pool.h"
#include "src/hf.h"
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PIECE_FLOATS = 1 << 20 };

/* One tensor of the checkpoint: rows [first, first + rows) of a weight. */
struct export_tensor {
    const char *name;
    const struct tensor *t;
    const struct weight_row *row;
    int il;
    int64_t first, rows;
    const struct dtype *type;
    int64_t id; /* in the safetensors writer */
};

void export_warn(const struct export *x, const char *fmt, ...)
{
    if (!x->o.warn) return;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    x->o.warn(x->o.ctx, text);
}

/* ---- the plan ---- */

/* The first alternative of a row's pattern with its numbers. */
static char *hf_name(struct export *x, const struct weight_row *r, int il, int64_t expert)
{
    char name[256];
    return hf_expand(r->hf, strcspn(r->hf, "|"), il, expert, name, sizeof name) ? arena_strdup(&x->arena, name, strlen(name)) : NULL;
}

static bool is_float(const struct dtype *t) { return t->gguf_id == GGUF_F32 || t->gguf_id == GGUF_F16 || t->gguf_id == GGUF_BF16; }

static const struct dtype *type_of(const struct export *x, const struct tensor *t, const struct weight_row *r)
{
    bool vector = r->ne1 == DIM_1 || r->flags & WEIGHT_VECTOR;
    if (is_float(t->type) && (vector || !x->o.type)) return t->type;
    return x->type;
}

static int64_t parts_of(const struct weight_row *r, const struct tensor *t) { return strstr(r->hf, "%e") ? t->ne[2] : 1; }

/* Is this weight a tensor of the checkpoint? Factors of rope are numbers of config.json there. */
static const struct tensor *wanted(const struct export *x, const struct weight_row *r, int il)
{
    const struct tensor *t = model_weight(x->m, il, r->id);
    bool copy = r->id == W_OUTPUT && x->tied;
    return t && r->hf && !copy ? t : NULL;
}

static status add_weight(struct export *x, const struct weight_row *r, int il, struct err *e)
{
    const struct tensor *t = wanted(x, r, il);
    if (!t) return OK;
    if (model_outliers(x->m, il, r->id)) return err_set(e, ERR_FORMAT, "%s: outlier columns kept apart cannot be written to a checkpoint", t->name);
    if (r->flags & (WEIGHT_VECTOR | WEIGHT_TRANSPOSED)) return err_set(e, ERR_FORMAT, "%s: cannot be put back into the order of a checkpoint", t->name);
    int64_t n = parts_of(r, t), rows = tensor_rows(t) / n;
    for (int64_t i = 0; i < n; i++) {
        struct export_tensor *o = &x->tensor[x->n_tensors++];
        *o = (struct export_tensor){ .name = hf_name(x, r, il, i), .t = t, .row = r, .il = il, .first = i * rows, .rows = rows, .type = type_of(x, t, r) };
        if (!o->name) return err_oom(e, t->name, 256);
        x->bytes += (size_t)rows * dtype_row_bytes(o->type, t->ne[0]);
    }
    return OK;
}

static status plan(struct export *x, struct err *e)
{
    const struct weight_row *rows = x->m->arch->weights;
    int64_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int il = -1; il < x->m->hp.n_layer; il++)
            for (const struct weight_row *r = rows; r->gguf; r++) {
                if ((r->id >= W_LAYER_COUNT) != (il < 0) || (il >= 0 && !model_has_row(x->m, il, r))) continue;
                if (pass) TRY(add_weight(x, r, il, e));
                else if (wanted(x, r, il)) n += parts_of(r, wanted(x, r, il));
            }
        if (pass == 0 && !(x->tensor = arena_zalloc(&x->arena, (size_t)n + 1, sizeof *x->tensor))) return err_oom(e, "tensors", (size_t)n);
    }
    return OK;
}

static status refuse(const struct export *x, struct err *e)
{
    const struct arch *a = x->m->arch;
    if (a->import && a->import->weights && a->import->weights[0].id != W_COUNT)
        return err_set(e, ERR_FORMAT, "architecture %s cannot be written as a checkpoint: its weights are cut or combined when they are imported", a->name);
    return err_set(e, ERR_FORMAT, "architecture %s cannot be written as a checkpoint yet: what its config.json must say is not known", a->name);
}

status export_open(struct export **out, const char *path, const struct export_options *o, struct err *e)
{
    *out = NULL;
    if (o->type && !is_float(o->type)) return err_set(e, ERR_USAGE, "a checkpoint in %s cannot be written: f32, f16 or bf16", o->type->gguf_name);
    struct export *x = mem_calloc(1, sizeof *x);
    if (!x) return err_oom(e, path, sizeof *x);
    x->o = *o;
    arena_init(&x->arena, 0);
    x->mem = &x->arena;
    status st = model_open(&x->m, path, &(struct model_options){ 0 }, e);
    if (st == OK && !(x->arch = export_arch_of(x->m))) st = refuse(x, e);
    if (st == OK) {
        x->tied = !gguf_tensor(&x->m->g, "output.weight");
        x->type = o->type ? o->type : dtype_by_id(GGUF_F16);
        st = plan(x, e);
    }
    if (st == OK) *out = x;
    else export_close(x);
    return st;
}

void export_close(struct export *x)
{
    if (!x) return;
    model_close(x->m);
    arena_free(&x->arena);
    mem_free(x);
}

void export_info(const struct export *x, struct export_info *info)
{
    *info = (struct export_info){ x->m->arch->name, x->arch->hf, x->type->gguf_name, x->n_tensors, x->bytes };
}

/* ---- rows ---- */

/* Where element i of the checkpoint stands in the file, whose rope pairs are neighbours. */
static int64_t paired(const struct layer_params *l, int64_t i)
{
    int64_t head = i / l->head_dim, j = i % l->head_dim, n = l->rope.n_rot;
    return head * l->head_dim + (j < n ? j % (n / 2) * 2 + j / (n / 2) : j);
}

static void load_row(const struct export *x, const struct export_tensor *o, int64_t i, float *out, float *spare)
{
    const struct tensor *t = o->t;
    bool pairs = o->row->flags & WEIGHT_ROPE_PAIRS, vector = t->ne[1] == 1;
    int64_t cols = t->ne[0], from = o->first + (pairs && !vector ? paired(&x->m->layer[o->il].hp, i) : i);
    dtype_to_f32(t->type, (const uint8_t *)t->data + (size_t)from * t->nb[1], pairs && vector ? spare : out, cols);
    for (int64_t k = 0; pairs && vector && k < cols; k++) out[k] = spare[paired(&x->m->layer[o->il].hp, k)];
    if (o->row->flags & WEIGHT_PLUS_ONE)
        for (int64_t k = 0; k < cols; k++) out[k] -= 1.0f;
}

struct writer {
    struct export *x;
    struct safetensors_writer *out;
    _Atomic int64_t next;
    _Atomic size_t done;
    _Atomic bool stop;
    int64_t n_pieces;
    pthread_mutex_t lock;
    struct err err;
};

static int64_t piece_rows(const struct export_tensor *o) { return min_i64(o->rows, max_i64(1, PIECE_FLOATS / o->t->ne[0])); }
static int64_t piece_count(const struct export_tensor *o) { return (o->rows + piece_rows(o) - 1) / piece_rows(o); }

static status make_piece(struct writer *w, const struct export_tensor *o, int64_t piece, struct err *e)
{
    int64_t row0 = piece * piece_rows(o), n = min_i64(piece_rows(o), o->rows - row0), cols = o->t->ne[0];
    size_t row_bytes = dtype_row_bytes(o->type, cols), bytes = (size_t)n * row_bytes, floats = 2 * (size_t)cols * sizeof(float);
    bool same = o->type == o->t->type && !(o->row->flags & (WEIGHT_ROPE_PAIRS | WEIGHT_PLUS_ONE));
    const uint8_t *from = (const uint8_t *)o->t->data + (size_t)(o->first + row0) * o->t->nb[1];
    atomic_fetch_add(&w->done, bytes);
    if (same) return safetensors_write(w->out, o->id, (size_t)row0 * row_bytes, from, bytes, e);
    float *row = mem_alloc(floats);
    uint8_t *dst = mem_alloc(bytes);
    status st = row && dst ? OK : err_oom(e, o->name, floats + bytes);
    for (int64_t i = 0; st == OK && i < n; i++) {
        load_row(w->x, o, row0 + i, row, row + cols);
        dtype_from_f32(o->type, row, dst + (size_t)i * row_bytes, cols);
    }
    if (st == OK) st = safetensors_write(w->out, o->id, (size_t)row0 * row_bytes, dst, bytes, e);
    mem_free(row);
    mem_free(dst);
    return st;
}

static void work(void *ctx, int ith, int nth)
{
    struct writer *w = ctx;
    const struct export *x = w->x;
    int64_t it = 0, before = 0;
    for (int64_t i; !atomic_load(&w->stop) && (i = atomic_fetch_add(&w->next, 1)) < w->n_pieces;) {
        struct err e = { 0 };
        while (i - before >= piece_count(&x->tensor[it])) before += piece_count(&x->tensor[it++]);
        status st = make_piece(w, &x->tensor[it], i - before, &e);
        if (st == OK && ith == 0 && x->o.progress && !x->o.progress(x->o.ctx, atomic_load(&w->done), x->bytes)) st = err_set(&e, ERR_INTERRUPTED, "stopped");
        if (st == OK) continue;
        atomic_store(&w->stop, true);
        pthread_mutex_lock(&w->lock);
        err_set(&w->err, e.code, "%s", e.text);
        pthread_mutex_unlock(&w->lock);
    }
}

static status begin(struct export *x, struct safetensors_writer *w, struct err *e)
{
    static const struct { int from; enum ckpt_type to; } types[] = { { GGUF_F32, CKPT_F32 }, { GGUF_F16, CKPT_F16 }, { GGUF_BF16, CKPT_BF16 } };
    safetensors_put_meta(w, "format", "pt");
    for (int64_t i = 0; i < x->n_tensors; i++) {
        struct export_tensor *o = &x->tensor[i];
        int64_t ne0 = o->t->ne[0], ne1 = o->t->ne[1], shape[3] = { o->rows / max_i64(ne1, 1), ne1, ne0 };
        int n_dims = o->row->ne1 == DIM_1 ? 1 : shape[0] > 1 ? 3 : 2;
        for (int k = 0; k < ARRAY_LEN(types); k++)
            if (o->type->gguf_id == types[k].from) o->id = safetensors_add(w, o->name, types[k].to, n_dims, shape + 3 - n_dims);
    }
    return safetensors_begin(w, e);
}

static status write_weights(struct export *x, const char *path, struct err *e)
{
    struct writer w = { .x = x };
    struct pool *pool;
    struct cpu_info cpu;
    cpu_detect(&cpu);
    for (int64_t i = 0; i < x->n_tensors; i++) w.n_pieces += piece_count(&x->tensor[i]);
    TRY(pool_open(&pool, x->o.n_threads ? x->o.n_threads : cpu.n_threads_default, e));
    status st = safetensors_writer_open(&w.out, path, e);
    if (st == OK) {
        pthread_mutex_init(&w.lock, NULL);
        st = begin(x, w.out, e);
        if (st == OK) {
            pool_run(pool, work, &w);
            st = w.err.code == OK ? OK : err_set(e, w.err.code, "%s", w.err.text);
        }
        if (st == OK) st = safetensors_writer_finish(w.out, e);
        else safetensors_writer_abort(w.out);
        pthread_mutex_destroy(&w.lock);
    }
    pool_close(pool);
    return st;
}

/* ---- the directory ---- */

status export_text(const char *dir, const char *name, struct json_out *o, struct err *e)
{
    char path[4200];
    struct file_out f;
    if (!json_out_ok(o)) return err_oom(e, name, o->n);
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) return err_set(e, ERR_FILE, "%.60s...: the path is too long", dir);
    TRY(file_create(&f, path, e));
    status st = file_write(&f, o->buf, o->n, e);
    if (st == OK) st = file_write(&f, "\n", 1, e);
    if (st == OK) return file_commit(&f, e);
    file_abort(&f);
    return st;
}

/* Everything that can be refused is refused before the first byte is written. */
struct texts {
    struct json_out config, generation, tokenizer, tokenizer_config;
};

static status make_texts(const struct export *x, struct texts *t, bool *tokenizer, struct err *e)
{
    TRY(export_config(x, &t->config, e));
    TRY(export_generation(x, &t->generation, e));
    TRY(export_tokenizer(x, &t->tokenizer, tokenizer, e));
    return export_tokenizer_config(x, *tokenizer, &t->tokenizer_config, e);
}

static status write_all(struct export *x, const char *dir, struct texts *t, bool tokenizer, struct err *e)
{
    char path[4200];
    if (snprintf(path, sizeof path, "%s/model.safetensors", dir) >= (int)sizeof path) return err_set(e, ERR_FILE, "%.60s...: the path is too long", dir);
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) return err_set(e, ERR_FILE, "%s: cannot make the directory", dir);
    TRY(write_weights(x, path, e));
    TRY(export_text(dir, "config.json", &t->config, e));
    TRY(export_text(dir, "generation_config.json", &t->generation, e));
    if (tokenizer) TRY(export_text(dir, "tokenizer.json", &t->tokenizer, e));
    return export_text(dir, "tokenizer_config.json", &t->tokenizer_config, e);
}

status export_write(struct export *x, const char *dir, struct err *e)
{
    struct texts t;
    bool tokenizer = false;
    struct json_out *all[] = { &t.config, &t.generation, &t.tokenizer, &t.tokenizer_config };
    for (int i = 0; i < ARRAY_LEN(all); i++) json_out_init(all[i], all[i] != &t.tokenizer);
    status st = make_texts(x, &t, &tokenizer, e);
    if (st == OK) st = write_all(x, dir, &t, tokenizer, e);
    for (int i = 0; i < ARRAY_LEN(all); i++) json_out_free(all[i]);
    return st;
}

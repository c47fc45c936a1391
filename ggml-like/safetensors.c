/* safetensors - reads and writes the container of that name:
 *   0..7  n, little-endian      8..8+n-1  JSON, padded with spaces      then the data, without holes
 *   JSON: { "__metadata__": { text: text, ... }, NAME: { "dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end) }, ... }
 * Offsets count from the end of the JSON. Source: https://github.com/huggingface/safetensors, README and safetensors/src/tensor.rs, whose
 * refusals are kept: n above 100 MB, holes, overlaps, bytes behind the last tensor, sizes that are not what type and shape need. */
#include "ggml-like/checkpoint_int.h"
#include "ggml-like/json.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 100000000, HEAD = 8 };

/* ---- reading ---- */

static uint64_t load64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static status get_type(const struct ckpt_shard *s, const struct json *m, struct ckpt_tensor *t, struct err *e)
{
    const struct json *type = json_get(m, "dtype");
    if (!type || type->kind != JSON_STR) return err_set(e, ERR_FORMAT, "%s: %s: has no dtype", s->path, m->key);
    if (ckpt_type_by_name(type->str, &t->type)) return OK;
    return err_set(e, ERR_FORMAT, "%s: %s: dtype %s is not supported", s->path, m->key, type->str);
}

static status get_shape(const struct ckpt_shard *s, const struct json *m, struct ckpt_tensor *t, struct err *e)
{
    const struct json *shape = json_get(m, "shape");
    if (!shape || shape->kind != JSON_ARR) return err_set(e, ERR_FORMAT, "%s: %s: has no shape", s->path, m->key);
    if (shape->n > CKPT_MAX_DIMS)
        return err_set(e, ERR_FORMAT, "%s: %s: has %lld dimensions, at most %d are supported", s->path, m->key, (long long)shape->n,
                       CKPT_MAX_DIMS);
    for (const struct json *d = shape->child; d; d = d->next) {
        if (d->kind != JSON_INT || d->i < 0) return err_set(e, ERR_FORMAT, "%s: %s: shape[%d] is not a length", s->path, m->key, t->n_dims);
        t->shape[t->n_dims++] = d->i;
    }
    if (ckpt_shape(t)) return OK;
    char text[160];
    return err_set(e, ERR_FORMAT, "%s: %s: shape %s is too large", s->path, m->key, ckpt_shape_text(t, text));
}

/* Leaves t->offset relative to the data. */
static status get_place(const struct ckpt_shard *s, const struct json *m, struct ckpt_tensor *t, struct err *e)
{
    const struct json *o = json_get(m, "data_offsets");
    if (!o || o->kind != JSON_ARR || o->n != 2 || o->child->kind != JSON_INT || o->child->next->kind != JSON_INT || o->child->i < 0)
        return err_set(e, ERR_FORMAT, "%s: %s: data_offsets are not [begin, end]", s->path, m->key);
    int64_t begin = o->child->i, end = o->child->next->i;
    if (end < begin)
        return err_set(e, ERR_FORMAT, "%s: %s: data_offsets end at %lld, before their begin %lld", s->path, m->key, (long long)end,
                       (long long)begin);
    char text[160];
    if ((uint64_t)(end - begin) != t->bytes)
        return err_set(e, ERR_FORMAT, "%s: %s: data_offsets span %lld bytes, %s %s needs %zu", s->path, m->key, (long long)(end - begin),
                       ckpt_type_name(t->type), ckpt_shape_text(t, text), t->bytes);
    t->offset = (size_t)begin;
    return OK;
}

static status get_metadata(const struct ckpt_shard *s, const struct json *m, int shard, struct ckpt_list *list, struct err *e)
{
    if (m->kind == JSON_NULL) return OK;
    if (m->kind != JSON_OBJ) return err_set(e, ERR_FORMAT, "%s: __metadata__ is not an object", s->path);
    for (const struct json *v = m->child; v; v = v->next) {
        if (v->kind != JSON_STR) return err_set(e, ERR_FORMAT, "%s: __metadata__: %s is not a text", s->path, v->key);
        TRY(ckpt_list_add_meta(list, shard, v->key, (size_t)v->key_n, v->str, (size_t)v->n, e));
    }
    return OK;
}

static int by_place(const void *a, const void *b)
{
    const struct ckpt_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Tensors follow each other without gap or overlap, from the first byte of the data to the last. */
static status check_places(const struct ckpt_shard *s, struct ckpt_tensor *t, int64_t n, size_t data, struct err *e)
{
    if (n > 1) qsort(t, (size_t)n, sizeof *t, by_place);
    size_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        if (t[i].offset != at)
            return err_set(e, ERR_FORMAT, "%s: %s: begins at byte %zu of the data, expected %zu (%s)", s->path, t[i].name, t[i].offset, at,
                           t[i].offset > at ? "a hole" : "an overlap");
        if (!add_size(at, t[i].bytes, &at) || at > s->size - data)
            return err_set(e, ERR_FORMAT, "%s: %s: ends at byte %zu of the data, which has %zu: the file is cut", s->path, t[i].name, at,
                           s->size - data);
        t[i].offset += data;
    }
    if (at == s->size - data) return OK;
    return err_set(e, ERR_FORMAT, "%s: the tensors end at byte %zu of the data, which has %zu", s->path, at, s->size - data);
}

static status parse_members(const struct ckpt_shard *s, const struct json *top, int shard, size_t data, struct ckpt_list *list,
                            struct err *e)
{
    int64_t first = list->n;
    if (top->kind != JSON_OBJ) return err_set(e, ERR_FORMAT, "%s: the header is not an object", s->path);
    for (const struct json *m = top->child; m; m = m->next) {
        if (!strcmp(m->key, "__metadata__")) {
            TRY(get_metadata(s, m, shard, list, e));
            continue;
        }
        struct ckpt_tensor t = { .shard = shard };
        if (m->kind != JSON_OBJ) return err_set(e, ERR_FORMAT, "%s: %s: is not an object", s->path, m->key);
        TRY(get_type(s, m, &t, e));
        TRY(get_shape(s, m, &t, e));
        TRY(get_place(s, m, &t, e));
        TRY(ckpt_list_add(list, s, &t, m->key, (size_t)m->key_n, e));
    }
    return check_places(s, list->n > first ? list->t + first : NULL, list->n - first, data, e);
}

status safetensors_parse(const struct ckpt_shard *s, int shard, struct ckpt_list *list, struct err *e)
{
    uint8_t head[HEAD];
    if (s->size < HEAD + 1) return err_set(e, ERR_FORMAT, "%s: has %zu bytes: neither safetensors nor a torch file", s->path, s->size);
    TRY(ckpt_shard_read(s, head, HEAD, 0, e));
    uint64_t n = load64(head);
    if (n > HEADER_MAX)
        return err_set(e, ERR_FORMAT, "%s: neither a torch file nor safetensors (a header of %llu bytes, at most %d)", s->path,
                       (unsigned long long)n, HEADER_MAX);
    if (n > s->size - HEAD)
        return err_set(e, ERR_FORMAT, "%s: the header has %llu bytes, the file %zu after its length: cut", s->path, (unsigned long long)n,
                       s->size - HEAD);
    char *text = mem_alloc((size_t)n + 1);
    if (!text) return err_oom(e, s->path, (size_t)n + 1);
    struct arena a;
    arena_init(&a, (size_t)n * 32 + (1 << 20)); /* real headers take 6 times their length; "0,0,0,..." would take 40 */
    struct json *top = NULL;
    status st = ckpt_shard_read(s, text, (size_t)n, HEAD, e);
    if (st == OK && (n == 0 || text[0] != '{'))
        st = err_set(e, ERR_FORMAT, "%s: neither a torch file nor safetensors (the header is no object)", s->path);
    if (st == OK) st = json_parse(&top, text, (size_t)n, &a, s->path, e);
    if (st == OK) st = parse_members(s, top, shard, HEAD + (size_t)n, list, e);
    arena_free(&a);
    mem_free(text);
    return st;
}

/* ---- writing ---- */

struct out_tensor {
    struct ckpt_tensor t;
    int64_t id;
    _Atomic size_t written;
};

struct safetensors_writer {
    struct file_out out;
    struct arena arena;
    struct out_tensor **tensor; /* by id; the records are in the arena */
    int64_t n, cap;
    struct ckpt_list meta; /* its metadata half */
    bool begun;
    struct err first; /* what an add could not report */
};

static void free_writer(struct safetensors_writer *w)
{
    mem_free(w->tensor);
    mem_free(w->meta.meta);
    arena_free(&w->arena);
    mem_free(w);
}

status safetensors_writer_open(struct safetensors_writer **out, const char *path, struct err *e)
{
    *out = NULL;
    struct safetensors_writer *w = mem_calloc(1, sizeof *w);
    if (!w) return err_oom(e, path, sizeof *w);
    arena_init(&w->arena, 0);
    w->meta.arena = &w->arena;
    status st = file_create(&w->out, path, e);
    if (st == OK) *out = w;
    else free_writer(w);
    return st;
}

void safetensors_writer_abort(struct safetensors_writer *w)
{
    if (!w) return;
    file_abort(&w->out);
    free_writer(w);
}

void safetensors_put_meta(struct safetensors_writer *w, const char *key, const char *value)
{
    if (w->first.code == OK) (void)!ckpt_list_add_meta(&w->meta, 0, key, strlen(key), value, strlen(value), &w->first);
}

int64_t safetensors_add(struct safetensors_writer *w, const char *name, enum ckpt_type type, int n_dims, const int64_t *shape)
{
    assert(!w->begun && n_dims >= 0 && n_dims <= CKPT_MAX_DIMS);
    if (w->n == w->cap) {
        size_t cap = w->cap ? (size_t)w->cap * 2 : 64;
        struct out_tensor **grown = mem_realloc(w->tensor, cap * sizeof *grown);
        if (!grown) return err_oom(&w->first, w->out.path, cap * sizeof *grown), w->n;
        w->tensor = grown, w->cap = (int64_t)cap;
    }
    struct out_tensor *o = arena_zalloc(&w->arena, 1, sizeof *o);
    char *copy = arena_strdup(&w->arena, name, strlen(name));
    if (!o || !copy) return err_oom(&w->first, w->out.path, sizeof *o), w->n;
    *o = (struct out_tensor){ .t = { .name = copy, .type = type, .n_dims = n_dims }, .id = w->n };
    for (int d = 0; d < n_dims; d++) o->t.shape[d] = shape[d];
    char text[160];
    if (!ckpt_shape(&o->t))
        err_set(&w->first, ERR_FORMAT, "%s: %s: shape %s is too large", w->out.path, name, ckpt_shape_text(&o->t, text));
    if (!strcmp(name, "__metadata__")) err_set(&w->first, ERR_FORMAT, "%s: no tensor may be called __metadata__", w->out.path);
    w->tensor[w->n] = o;
    return w->n++;
}

/* The reference writer's order: widest types first, so that every tensor is aligned to its element. */
static int by_layout(const void *a, const void *b)
{
    const struct out_tensor *x = *(struct out_tensor *const *)a, *y = *(struct out_tensor *const *)b;
    if (x->t.type != y->t.type) return x->t.type > y->t.type ? -1 : 1;
    return strcmp(x->t.name, y->t.name);
}

static int by_id(const void *a, const void *b)
{
    const struct out_tensor *x = *(struct out_tensor *const *)a, *y = *(struct out_tensor *const *)b;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_out_name(const void *a, const void *b)
{
    const struct out_tensor *x = *(struct out_tensor *const *)a, *y = *(struct out_tensor *const *)b;
    return strcmp(x->t.name, y->t.name);
}

static status check_names(struct safetensors_writer *w, struct err *e)
{
    if (w->n > 1) qsort(w->tensor, (size_t)w->n, sizeof *w->tensor, by_out_name);
    for (int64_t i = 1; i < w->n; i++)
        if (!strcmp(w->tensor[i - 1]->t.name, w->tensor[i]->t.name))
            return err_set(e, ERR_FORMAT, "%s: two tensors are called %s", w->out.path, w->tensor[i]->t.name);
    return OK;
}

/* Offsets relative to the data, and the header's text. */
static status lay_out(struct safetensors_writer *w, struct json_out *o, size_t *data, struct err *e)
{
    json_begin(o, NULL, '{');
    if (w->meta.n_meta) {
        json_begin(o, "__metadata__", '{');
        for (int64_t i = 0; i < w->meta.n_meta; i++) json_put_cstr(o, w->meta.meta[i].key, w->meta.meta[i].value);
        json_end(o, '}');
    }
    *data = 0;
    for (int64_t i = 0; i < w->n; i++) {
        struct ckpt_tensor *t = &w->tensor[i]->t;
        t->offset = *data;
        if (!add_size(*data, t->bytes, data) || *data > PTRDIFF_MAX)
            return err_set(e, ERR_FORMAT, "%s: the tensors are too large", w->out.path);
        json_begin(o, t->name, '{');
        json_put_cstr(o, "dtype", ckpt_type_name(t->type));
        json_begin(o, "shape", '[');
        for (int d = 0; d < t->n_dims; d++) json_put_i64(o, NULL, t->shape[d]);
        json_end(o, ']');
        json_begin(o, "data_offsets", '[');
        json_put_i64(o, NULL, (int64_t)t->offset);
        json_put_i64(o, NULL, (int64_t)*data);
        json_end(o, ']');
        json_end(o, '}');
    }
    json_end(o, '}');
    if (!json_out_ok(o)) return err_oom(e, w->out.path, o->n);
    return OK;
}

/* What this file writes, it reads: the header (n bytes, without the spaces) goes through the reader before it is written, and names that
 * JSON cannot hold (invalid UTF-8) are found. */
static status read_back(struct safetensors_writer *w, const struct json_out *o, size_t data, struct err *e)
{
    uint8_t *file = mem_alloc(HEAD + o->n);
    if (!file) return err_oom(e, w->out.path, HEAD + o->n);
    for (int i = 0; i < HEAD; i++) file[i] = (uint8_t)((uint64_t)o->n >> 8 * i);
    memcpy(file + HEAD, o->buf, o->n);
    struct arena a;
    arena_init(&a, 0);
    struct ckpt_list list = { .arena = &a };
    /* the reader looks at nothing behind the header */
    struct ckpt_shard s = { .path = w->out.path, .data = file, .size = HEAD + o->n + data };
    status st = safetensors_parse(&s, 0, &list, e);
    for (int64_t i = 0; st == OK && i < w->n; i++) {
        bool found = i < list.n && !strcmp(list.t[i].name, w->tensor[i]->t.name);
        if (!found && w->tensor[i]->t.bytes)
            st = err_set(e, ERR_FORMAT, "%s: %s: the name is not UTF-8", w->out.path, w->tensor[i]->t.name);
    }
    mem_free(list.t);
    mem_free(list.meta);
    arena_free(&a);
    mem_free(file);
    return st;
}

static status write_header(struct safetensors_writer *w, struct json_out *o, size_t data, struct err *e)
{
    size_t n;
    if (!pad_size(o->n, HEAD, &n) || n > HEADER_MAX)
        return err_set(e, ERR_FORMAT, "%s: a header of %zu bytes, the format allows %d", w->out.path, o->n, HEADER_MAX);
    for (int64_t i = 0; i < w->n; i++) w->tensor[i]->t.offset += HEAD + n;
    uint8_t head[HEAD];
    for (int i = 0; i < HEAD; i++) head[i] = (uint8_t)((uint64_t)n >> 8 * i);
    TRY(file_write(&w->out, head, HEAD, e));
    TRY(file_write(&w->out, o->buf, o->n, e));
    TRY(file_write(&w->out, "        ", n - o->n, e));
    return file_resize(&w->out, HEAD + n + data, e);
}

status safetensors_begin(struct safetensors_writer *w, struct err *e)
{
    assert(!w->begun);
    if (w->first.code != OK) return err_set(e, w->first.code, "%s", w->first.text);
    TRY(check_names(w, e));
    if (w->n > 1) qsort(w->tensor, (size_t)w->n, sizeof *w->tensor, by_layout);
    struct json_out o;
    size_t data = 0;
    json_out_init(&o, false);
    status st = lay_out(w, &o, &data, e);
    if (st == OK) st = read_back(w, &o, data, e);
    if (st == OK) st = write_header(w, &o, data, e);
    json_out_free(&o);
    if (w->n > 1) qsort(w->tensor, (size_t)w->n, sizeof *w->tensor, by_id);
    w->begun = st == OK;
    return st;
}

status safetensors_write(struct safetensors_writer *w, int64_t id, size_t at, const void *p, size_t n, struct err *e)
{
    assert(w->begun && id >= 0 && id < w->n);
    struct out_tensor *o = w->tensor[id];
    assert(at <= o->t.bytes && n <= o->t.bytes - at);
    TRY(file_write_at(&w->out, p, n, o->t.offset + at, e));
    atomic_fetch_add(&o->written, n);
    return OK;
}

status safetensors_writer_finish(struct safetensors_writer *w, struct err *e)
{
    status st = w->begun ? OK : err_set(e, ERR_RUNTIME, "%s: finished before its header was written", w->out.path);
    for (int64_t i = 0; st == OK && i < w->n; i++)
        if (w->tensor[i]->written != w->tensor[i]->t.bytes)
            st = err_set(e, ERR_RUNTIME, "%s: %s: %zu bytes were written, expected %zu", w->out.path, w->tensor[i]->t.name,
                         (size_t)w->tensor[i]->written, w->tensor[i]->t.bytes);
    if (st == OK) st = file_commit(&w->out, e);
    else file_abort(&w->out);
    free_writer(w);
    return st;
}

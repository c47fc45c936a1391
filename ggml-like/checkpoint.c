/* checkpoint - types, opening, finding and reading of tensors. The containers are parsed in safetensors.c and torchfile.c. */
#include "ggml-like/checkpoint_int.h"
#include "ggml-like/dtype.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 32 << 10 }; /* bytes on the stack through which conversions and gathers go; a multiple of 8 */

/* ---- types ---- */

static uint16_t load16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static float f32_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static float f32_1(const void *p)
{
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}
static float f64_1(const void *p)
{
    double d;
    memcpy(&d, p, sizeof d);
    return (float)d;
}
static float f16_1(const void *p) { return f16_to_f32(load16(p)); }
static float bf16_1(const void *p) { return bf16_to_f32(load16(p)); }

/* 1 sign, 5 exponent, 2 mantissa bits: the upper half of an IEEE half. */
static float e5m2_1(const void *p) { return f16_to_f32((uint16_t)(*(const uint8_t *)p << 8)); }

/* 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity, 0x7f and 0xff are NaN. Source: OCP 8-bit floating point specification. */
static float e4m3_1(const void *p)
{
    uint32_t b = *(const uint8_t *)p, sign = (b & 0x80) << 24, exp = b >> 3 & 15, man = b & 7;
    if ((b & 0x7f) == 0x7f) return f32_of_bits(sign | 0x7fc00000);
    if (exp) return f32_of_bits(sign | (exp + 120) << 23 | man << 20);
    float f = (float)man * 0x1p-9f;
    return sign ? -f : f;
}

/* A power of two, 2^(b - 127); 255 is NaN. Source: OCP microscaling formats. */
static float e8m0_1(const void *p)
{
    uint32_t b = *(const uint8_t *)p;
    return f32_of_bits(b == 255 ? 0x7fc00000 : b ? b << 23 : 0x00400000);
}

static int64_t u8_1(const void *p) { return *(const uint8_t *)p; }
static int64_t i8_1(const void *p) { return *(const int8_t *)p; }
static int64_t i16_1(const void *p) { return (int16_t)load16(p); }
static int64_t u16_1(const void *p) { return load16(p); }
static int64_t i32_1(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static int64_t u32_1(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static int64_t i64_1(const void *p)
{
    int64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static int64_t u64_1(const void *p)
{
    int64_t v = i64_1(p);
    return v < 0 ? INT64_MAX : v; /* too large either way */
}

static const struct type_row {
    const char *name;
    size_t bytes;
    float (*to_f32)(const void *p);
    int64_t (*to_i64)(const void *p);
    int gguf_id; /* of the float types that have one: whole rows are converted by dtype.c */
} types[CKPT_N_TYPES] = {
    [CKPT_BOOL] = { "BOOL", 1, NULL, u8_1 },
    [CKPT_U8] = { "U8", 1, NULL, u8_1 },
    [CKPT_I8] = { "I8", 1, NULL, i8_1 },
    [CKPT_F8_E5M2] = { "F8_E5M2", 1, e5m2_1, NULL },
    [CKPT_F8_E4M3] = { "F8_E4M3", 1, e4m3_1, NULL },
    [CKPT_F8_E8M0] = { "F8_E8M0", 1, e8m0_1, NULL },
    [CKPT_I16] = { "I16", 2, NULL, i16_1 },
    [CKPT_U16] = { "U16", 2, NULL, u16_1 },
    [CKPT_F16] = { "F16", 2, f16_1, NULL, GGUF_F16 },
    [CKPT_BF16] = { "BF16", 2, bf16_1, NULL, GGUF_BF16 },
    [CKPT_I32] = { "I32", 4, NULL, i32_1 },
    [CKPT_U32] = { "U32", 4, NULL, u32_1 },
    [CKPT_F32] = { "F32", 4, f32_1, NULL, GGUF_F32 },
    [CKPT_F64] = { "F64", 8, f64_1, NULL, GGUF_F64 },
    [CKPT_I64] = { "I64", 8, NULL, i64_1 },
    [CKPT_U64] = { "U64", 8, NULL, u64_1 },
};

const char *ckpt_type_name(enum ckpt_type type) { return types[type].name; }
size_t ckpt_type_bytes(enum ckpt_type type) { return types[type].bytes; }
bool ckpt_type_is_float(enum ckpt_type type) { return types[type].to_f32 != NULL; }

bool ckpt_type_by_name(const char *name, enum ckpt_type *out)
{
    for (int i = 0; i < CKPT_N_TYPES; i++)
        if (!strcmp(types[i].name, name)) {
            *out = (enum ckpt_type)i;
            return true;
        }
    return false;
}

/* ---- shapes and the list ---- */

/* Lengths of 0 count as 1 in products, so that no stride overflows either: PyTorch does the same. */
bool ckpt_shape(struct ckpt_tensor *t)
{
    size_t n = 1, bytes;
    bool none = false;
    for (int d = CKPT_MAX_DIMS - 1; d >= 0; d--) {
        if (d >= t->n_dims) t->shape[d] = 1;
        if (t->shape[d] < 0) return false;
        t->stride[d] = (int64_t)n;
        none |= t->shape[d] == 0;
        if (!mul_size(n, t->shape[d] ? (size_t)t->shape[d] : 1, &n) || n > PTRDIFF_MAX) return false;
    }
    if (!mul_size(n, types[t->type].bytes, &bytes) || bytes > PTRDIFF_MAX) return false;
    t->n_elements = none ? 0 : (int64_t)n;
    t->bytes = none ? 0 : bytes;
    t->contiguous = true;
    return true;
}

const char *ckpt_shape_text(const struct ckpt_tensor *t, char buf[160])
{
    size_t at = (size_t)snprintf(buf, 160, "[");
    for (int d = 0; d < t->n_dims && d < CKPT_MAX_DIMS; d++)
        at += (size_t)snprintf(buf + at, 160 - at, d ? ", %lld" : "%lld", (long long)t->shape[d]);
    snprintf(buf + at, 160 - at, "]");
    return buf;
}

static void *grow(void *p, int64_t n, int64_t *cap, size_t bytes)
{
    if (n < *cap) return p;
    size_t want = *cap ? (size_t)*cap * 2 : 64, total;
    void *grown = mul_size(want, bytes, &total) ? mem_realloc(p, total) : NULL;
    if (grown) *cap = (int64_t)want;
    return grown;
}

status ckpt_list_add(struct ckpt_list *list, const struct ckpt_shard *s, const struct ckpt_tensor *t, const char *name, size_t name_n,
                     struct err *e)
{
    if (memchr(name, 0, name_n)) return err_set(e, ERR_FORMAT, "%s: a tensor's name holds a NUL: \"%s\"", s->path, name);
    struct ckpt_tensor *grown = grow(list->t, list->n, &list->cap, sizeof *list->t);
    if (!grown) return err_oom(e, s->path, (size_t)list->cap * 2 * sizeof *list->t);
    list->t = grown;
    grown[list->n] = *t;
    grown[list->n].name = arena_strdup(list->arena, name, name_n);
    if (!grown[list->n].name) return err_oom(e, s->path, name_n);
    list->n++;
    return OK;
}

status ckpt_list_add_meta(struct ckpt_list *list, int shard, const char *key, size_t key_n, const char *value, size_t value_n,
                          struct err *e)
{
    struct ckpt_meta *grown = grow(list->meta, list->n_meta, &list->cap_meta, sizeof *list->meta);
    if (!grown) return err_oom(e, "metadata of a checkpoint", (size_t)list->cap_meta * 2 * sizeof *list->meta);
    list->meta = grown;
    struct ckpt_meta m = { arena_strdup(list->arena, key, key_n), arena_strdup(list->arena, value, value_n), shard };
    if (!m.key || !m.value) return err_oom(e, "metadata of a checkpoint", key_n + value_n);
    grown[list->n_meta++] = m;
    return OK;
}

/* ---- opening ---- */

status ckpt_shard_read(const struct ckpt_shard *s, void *p, size_t n, size_t offset, struct err *e)
{
    assert(offset <= s->size && n <= s->size - offset);
    if (s->data) {
        if (n) memcpy(p, s->data + offset, n);
        return OK;
    }
    return file_reader_read((struct file_reader *)(uintptr_t)&s->reader, p, n, offset, e); /* pread: the reader does not change */
}

/* What starts otherwise than a safetensors file, and what to say about it. */
static const struct magic {
    const char *bytes;
    size_t n;
    status (*parse)(const struct ckpt_shard *s, int shard, struct ckpt_list *list, struct err *e);
    const char *text;
} magics[] = {
    { "PK\3\4", 4, torch_parse, NULL },
    { "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.", 14, NULL,
      "is a torch file of before 2020, not a zip: load it with torch.load and save it again with torch.save or safetensors.torch.save_file" },
    { "\x80", 1, NULL, "is a bare pickle, not made by torch.save: save the tensors with torch.save or safetensors.torch.save_file" },
    { "GGUF", 4, NULL, "is a GGUF file, not a PyTorch checkpoint" },
    { "version https://git-lfs", 23, NULL, "is a git-lfs pointer, not the file itself: fetch it with `git lfs pull`" },
    { "<!DOCTYPE", 9, NULL, "is an HTML page: the download failed" },
    { "\x1f\x8b", 2, NULL, "is compressed with gzip: unpack it" },
    { "PK\5\6", 4, NULL, "is an empty zip" },
};

static status parse_shard(const struct ckpt_shard *s, int shard, struct ckpt_list *list, struct err *e)
{
    uint8_t head[32] = { 0 };
    size_t n = s->size < sizeof head ? s->size : sizeof head;
    if (n == 0) return err_set(e, ERR_FORMAT, "%s: is empty", s->path);
    TRY(ckpt_shard_read(s, head, n, 0, e));
    if (n >= 9 && head[8] == '{') return safetensors_parse(s, shard, list, e); /* first: the length of a header may look like anything */
    for (int i = 0; i < ARRAY_LEN(magics); i++) {
        if (n < magics[i].n || memcmp(head, magics[i].bytes, magics[i].n)) continue;
        return magics[i].parse ? magics[i].parse(s, shard, list, e) : err_set(e, ERR_FORMAT, "%s: %s", s->path, magics[i].text);
    }
    return safetensors_parse(s, shard, list, e);
}

static int by_name(const void *a, const void *b)
{
    const struct ckpt_tensor *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->shard > y->shard) - (x->shard < y->shard);
}

static status sort_tensors(struct checkpoint *c, struct err *e)
{
    if (c->n_tensors > 1) qsort(c->tensor, (size_t)c->n_tensors, sizeof *c->tensor, by_name);
    for (int64_t i = 1; i < c->n_tensors; i++) {
        const struct ckpt_tensor *a = &c->tensor[i - 1], *b = &c->tensor[i];
        if (strcmp(a->name, b->name)) continue;
        if (a->shard == b->shard) return err_set(e, ERR_FORMAT, "%s: two tensors are called %s", checkpoint_path(c, a), a->name);
        char first[160], second[160];
        return err_set(e, ERR_FORMAT, "%s: in two files, %s %s and %s %s: not the shards of one model, or parts of model-parallel training",
                       a->name, path_base(checkpoint_path(c, a)), ckpt_shape_text(a, first), path_base(checkpoint_path(c, b)),
                       ckpt_shape_text(b, second));
    }
    return OK;
}

static int by_key(const void *a, const void *b)
{
    const struct ckpt_meta *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order ? order : (x->shard > y->shard) - (x->shard < y->shard);
}

static void sort_meta(struct checkpoint *c)
{
    int64_t n = 0;
    if (c->n_meta > 1) qsort(c->meta, (size_t)c->n_meta, sizeof *c->meta, by_key);
    for (int64_t i = 0; i < c->n_meta; i++)
        if (n == 0 || strcmp(c->meta[i].key, c->meta[n - 1].key)) c->meta[n++] = c->meta[i];
    c->n_meta = n;
}

static status parse_all(struct checkpoint *c, struct err *e)
{
    struct ckpt_list list = { .arena = &c->arena };
    status st = OK;
    for (int i = 0; st == OK && i < c->n_shards; i++) st = parse_shard(&c->shard[i], i, &list, e);
    c->tensor = list.t, c->n_tensors = list.n;
    c->meta = list.meta, c->n_meta = list.n_meta;
    sort_meta(c);
    if (st == OK && c->n_tensors == 0) st = err_set(e, ERR_FORMAT, "%s: holds no tensor", c->shard[0].path);
    return st == OK ? sort_tensors(c, e) : st;
}

static status alloc_shards(struct checkpoint *c, int n, struct err *e)
{
    *c = (struct checkpoint){ 0 };
    arena_init(&c->arena, 0);
    c->shard = mem_calloc((size_t)n, sizeof *c->shard);
    if (!c->shard) return err_oom(e, "shards of a checkpoint", (size_t)n * sizeof *c->shard);
    c->n_shards = n;
    for (int i = 0; i < n; i++) c->shard[i].reader.fd = -1;
    return OK;
}

static status open_shard(struct checkpoint *c, struct ckpt_shard *s, const char *path, struct err *e)
{
    TRY(file_reader_open(&s->reader, path, e));
    s->path = s->reader.path;
    if (s->reader.size > PTRDIFF_MAX) return err_set(e, ERR_FILE, "%s: too large for this machine", path);
    s->size = (size_t)s->reader.size;
    return OK;
}

status checkpoint_open(struct checkpoint *c, const char *path, struct err *e)
{
    struct ckpt_files files;
    *c = (struct checkpoint){ 0 };
    status st = ckpt_files_of(&files, path, e);
    if (st == OK) st = alloc_shards(c, files.n, e);
    for (int i = 0; st == OK && i < files.n; i++) st = open_shard(c, &c->shard[i], files.path[i], e);
    if (st == OK) st = parse_all(c, e);
    if (st == OK) st = ckpt_files_check(&files, c, e);
    arena_free(&files.arena);
    if (st != OK) checkpoint_close(c);
    return st;
}

status checkpoint_parse(struct checkpoint *c, const uint8_t *data, size_t size, const char *name, struct err *e)
{
    status st = alloc_shards(c, 1, e);
    if (st == OK) {
        c->shard[0].data = data, c->shard[0].size = size;
        c->shard[0].path = arena_strdup(&c->arena, name, strlen(name));
        if (!c->shard[0].path) st = err_oom(e, name, strlen(name));
    }
    if (st == OK) st = parse_all(c, e);
    if (st != OK) checkpoint_close(c);
    return st;
}

void checkpoint_close(struct checkpoint *c)
{
    for (int i = 0; i < c->n_shards; i++) file_reader_close(&c->shard[i].reader);
    mem_free(c->shard);
    mem_free(c->tensor);
    mem_free(c->meta);
    arena_free(&c->arena);
    *c = (struct checkpoint){ 0 };
}

/* ---- finding ---- */

static int compare_name(const void *key, const void *t) { return strcmp(key, ((const struct ckpt_tensor *)t)->name); }

static int compare_key(const void *key, const void *m) { return strcmp(key, ((const struct ckpt_meta *)m)->key); }

const struct ckpt_tensor *checkpoint_find(const struct checkpoint *c, const char *name)
{
    return c->n_tensors ? bsearch(name, c->tensor, (size_t)c->n_tensors, sizeof *c->tensor, compare_name) : NULL;
}

const char *checkpoint_meta(const struct checkpoint *c, const char *key)
{
    const struct ckpt_meta *m = c->n_meta ? bsearch(key, c->meta, (size_t)c->n_meta, sizeof *m, compare_key) : NULL;
    return m ? m->value : NULL;
}

const char *checkpoint_path(const struct checkpoint *c, const struct ckpt_tensor *t) { return c->shard[t->shard].path; }

int64_t ckpt_row_len(const struct ckpt_tensor *t) { return t->n_dims ? t->shape[t->n_dims - 1] : 1; }
int64_t ckpt_rows(const struct ckpt_tensor *t) { return t->n_elements ? t->n_elements / ckpt_row_len(t) : 0; }

/* ---- reading ----
 * Everything is a set of runs: n elements that stand `stride` apart in the file and go `step` apart to out. */

struct target {
    const struct checkpoint *c;
    const struct ckpt_tensor *t;
    uint8_t *out;
    size_t out_bytes; /* of one element */
    status (*put)(const struct target *x, const uint8_t *from, size_t from_stride, int64_t n, int64_t at, int64_t step, struct err *e);
};

static status put_raw(const struct target *x, const uint8_t *from, size_t from_stride, int64_t n, int64_t at, int64_t step, struct err *e)
{
    size_t size = x->out_bytes;
    uint8_t *to = x->out + (size_t)at * size;
    if (from_stride == size && step == 1) {
        memcpy(to, from, (size_t)n * size);
        return OK;
    }
    for (int64_t i = 0; i < n; i++) memcpy(to + (size_t)(i * step) * size, from + (size_t)i * from_stride, size);
    return OK;
}

static status put_f32(const struct target *x, const uint8_t *from, size_t from_stride, int64_t n, int64_t at, int64_t step, struct err *e)
{
    float (*to_f32)(const void *) = types[x->t->type].to_f32;
    float *to = (float *)(void *)x->out + at;
    const struct type_row *type = &types[x->t->type];
    if (from_stride == type->bytes && step == 1 && type->bytes > 1) {
        dtype_to_f32(dtype_by_id(type->gguf_id), from, to, n);
        return OK;
    }
    if (type->bytes == 1 && n >= 1024) { /* a table is made faster than a thousand conversions */
        float value[256];
        for (int i = 0; i < 256; i++) value[i] = to_f32(&(uint8_t){ (uint8_t)i });
        for (int64_t i = 0; i < n; i++) to[i * step] = value[from[(size_t)i * from_stride]];
        return OK;
    }
    for (int64_t i = 0; i < n; i++) to[i * step] = to_f32(from + (size_t)i * from_stride);
    return OK;
}

static status put_i32(const struct target *x, const uint8_t *from, size_t from_stride, int64_t n, int64_t at, int64_t step, struct err *e)
{
    int64_t (*to_i64)(const void *) = types[x->t->type].to_i64;
    int32_t *to = (int32_t *)(void *)x->out + at;
    for (int64_t i = 0; i < n; i++) {
        int64_t v = to_i64(from + (size_t)i * from_stride);
        if (v < INT32_MIN || v > INT32_MAX)
            return err_set(e, ERR_FORMAT, "%s: %s: holds %lld, which does not fit into 32 bits", checkpoint_path(x->c, x->t), x->t->name,
                           (long long)v);
        to[i * step] = (int32_t)v;
    }
    return OK;
}

/* Elements first, first + stride, ... counted from the tensor's first one. Spans of up to CHUNK bytes are read at once. */
static status read_run(const struct target *x, int64_t first, int64_t stride, int64_t n, int64_t at, int64_t step, struct err *e)
{
    _Alignas(8) uint8_t chunk[CHUNK];
    size_t size = types[x->t->type].bytes;
    int64_t room = (int64_t)(CHUNK / size), per = stride == 0 ? 1 : (room - 1) / stride + 1;
    for (int64_t i = 0; i < n; i += per) {
        int64_t m = min_i64(per, n - i);
        size_t offset = x->t->offset + (size_t)(first + i * stride) * size;
        TRY(ckpt_shard_read(&x->c->shard[x->t->shard], chunk, (size_t)((m - 1) * stride + 1) * size, offset, e));
        TRY(x->put(x, chunk, (size_t)stride * size, m, at + i * step, step, e));
    }
    return OK;
}

/* Rows [r, r + n) of the last two dimensions, beginning `base` elements after the tensor's first: along the dimension that is denser in the
 * file. */
static status read_matrix(const struct target *x, int64_t base, int64_t r, int64_t n, int64_t at, struct err *e)
{
    int last = x->t->n_dims - 1;
    int64_t cols = ckpt_row_len(x->t), col_stride = last >= 0 ? x->t->stride[last] : 1, row_stride = last >= 1 ? x->t->stride[last - 1] : 0;
    base += r * row_stride;
    if (n == 1 || (cols > 1 && col_stride <= row_stride)) {
        for (int64_t i = 0; i < n; i++) TRY(read_run(x, base + i * row_stride, col_stride, cols, at + i * cols, 1, e));
    } else {
        for (int64_t i = 0; i < cols; i++) TRY(read_run(x, base + i * col_stride, row_stride, n, at + i, cols, e));
    }
    return OK;
}

/* Where matrix number m of the outer dimensions begins. */
static int64_t matrix_base(const struct ckpt_tensor *t, int64_t m)
{
    int64_t base = 0;
    for (int d = t->n_dims - 3; d >= 0; d--) {
        base += m % t->shape[d] * t->stride[d];
        m /= t->shape[d];
    }
    return base;
}

static status read_rows(const struct target *x, int64_t row0, int64_t n_rows, struct err *e)
{
    const struct ckpt_tensor *t = x->t;
    int64_t rows = ckpt_rows(t), cols = ckpt_row_len(t);
    if (row0 < 0 || n_rows < 0 || row0 > rows || n_rows > rows - row0)
        return err_set(e, ERR_USAGE, "%s: %lld rows from %lld on wanted, it has %lld", t->name, (long long)n_rows, (long long)row0,
                       (long long)rows);
    if (n_rows == 0) return OK;
    if (t->contiguous && x->put == put_raw)
        return ckpt_shard_read(&x->c->shard[t->shard], x->out, (size_t)(n_rows * cols) * x->out_bytes,
                               t->offset + (size_t)(row0 * cols) * x->out_bytes, e);
    if (t->contiguous) return read_run(x, row0 * cols, 1, n_rows * cols, 0, 1, e);
    int64_t per = t->n_dims >= 2 ? t->shape[t->n_dims - 2] : 1;
    for (int64_t done = 0; done < n_rows;) {
        int64_t row = row0 + done, n = min_i64(per - row % per, n_rows - done);
        TRY(read_matrix(x, matrix_base(t, row / per), row % per, n, done * cols, e));
        done += n;
    }
    return OK;
}

status checkpoint_read(const struct checkpoint *c, const struct ckpt_tensor *t, int64_t first, int64_t n, void *raw, struct err *e)
{
    if (!t->contiguous) return err_set(e, ERR_USAGE, "%s: %s: is a view with strides, read it by rows", checkpoint_path(c, t), t->name);
    if (first < 0 || n < 0 || first > t->n_elements || n > t->n_elements - first)
        return err_set(e, ERR_USAGE, "%s: %lld elements from %lld on wanted, it has %lld", t->name, (long long)n, (long long)first,
                       (long long)t->n_elements);
    size_t size = types[t->type].bytes;
    return ckpt_shard_read(&c->shard[t->shard], raw, (size_t)n * size, t->offset + (size_t)first * size, e);
}

status checkpoint_read_rows(const struct checkpoint *c, const struct ckpt_tensor *t, int64_t row0, int64_t n_rows, void *raw, struct err *e)
{
    struct target x = { .c = c, .t = t, .out = raw, .out_bytes = types[t->type].bytes, .put = put_raw };
    return read_rows(&x, row0, n_rows, e);
}

status checkpoint_read_f32(const struct checkpoint *c, const struct ckpt_tensor *t, int64_t row0, int64_t n_rows, float *out, struct err *e)
{
    if (!types[t->type].to_f32)
        return err_set(e, ERR_FORMAT, "%s: %s: is %s, expected floats", checkpoint_path(c, t), t->name, types[t->type].name);
    struct target x = { .c = c, .t = t, .out = (uint8_t *)out, .out_bytes = sizeof *out, .put = put_f32 };
    return read_rows(&x, row0, n_rows, e);
}

status checkpoint_read_i32(const struct checkpoint *c, const struct ckpt_tensor *t, int64_t row0, int64_t n_rows, int32_t *out,
                           struct err *e)
{
    if (!types[t->type].to_i64)
        return err_set(e, ERR_FORMAT, "%s: %s: is %s, expected integers", checkpoint_path(c, t), t->name, types[t->type].name);
    struct target x = { .c = c, .t = t, .out = (uint8_t *)out, .out_bytes = sizeof *out, .put = put_i32 };
    return read_rows(&x, row0, n_rows, e);
}

/* Of a view with strides the whole span, which is at most what its storage holds. */
static size_t span_bytes(const struct ckpt_tensor *t)
{
    int64_t last = 0;
    if (t->n_elements == 0) return 0;
    for (int d = 0; d < t->n_dims; d++) last += (t->shape[d] - 1) * t->stride[d];
    return (size_t)(last + 1) * types[t->type].bytes;
}

void checkpoint_want(const struct checkpoint *c, const struct ckpt_tensor *t)
{
    const struct ckpt_shard *s = &c->shard[t->shard];
    if (!s->data) file_reader_want((struct file_reader *)(uintptr_t)&s->reader, span_bytes(t), t->offset);
}

void checkpoint_drop(const struct checkpoint *c, const struct ckpt_tensor *t)
{
    const struct ckpt_shard *s = &c->shard[t->shard];
    if (!s->data) file_reader_drop((struct file_reader *)(uintptr_t)&s->reader, span_bytes(t), t->offset);
}

status checkpoint_unchanged(const struct checkpoint *c, struct err *e)
{
    for (int i = 0; i < c->n_shards; i++)
        if (!c->shard[i].data) TRY(file_reader_unchanged((struct file_reader *)(uintptr_t)&c->shard[i].reader, e));
    return OK;
}

/* gguf_write - collects keys and tensors, then writes one GGUF v3 file through file.h: complete or not at all.
 * The finished header is read back by the reader before a byte is written, so what this file writes, gguf_open accepts;
 * duplicates, bad names, alignments and shapes are found there and need no check here. */
#include "ggml-like/gguf.h"
#include <assert.h>
#include <string.h>

struct buf {
    uint8_t *p;
    size_t n, cap;
};

struct gguf_writer {
    struct file_out out;               /* of a header alone: closed */
    const char *name;                  /* for errors */
    struct buf kv;                     /* the key section as it will stand in the file */
    struct arena names;
    struct tensor *tensor;             /* names in the arena, data is the caller's */
    int64_t n_kv, n_tensors, cap_tensors;
    size_t alignment;
    struct err first;                  /* what a put could not report */
};

enum { HEADER_BYTES = 4 + 4 + 8 + 8 };
static const uint8_t zeros[4096];

static status buf_put(struct buf *b, const void *p, size_t n, struct err *e)
{
    size_t need, cap = b->cap ? b->cap : 4096;
    if (!add_size(b->n, n, &need)) return err_oom(e, "writing a GGUF header", n);
    while (cap < need && mul_size(cap, 2, &cap)) { }
    if (cap < need) cap = need;
    if (cap != b->cap) {
        uint8_t *grown = mem_realloc(b->p, cap);
        if (!grown) return err_oom(e, "writing a GGUF header", cap);
        b->p = grown, b->cap = cap;
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n = need;
    return OK;
}

static status buf_u32(struct buf *b, uint32_t v, struct err *e) { return buf_put(b, &v, sizeof v, e); }
static status buf_u64(struct buf *b, uint64_t v, struct err *e) { return buf_put(b, &v, sizeof v, e); }

static status buf_str(struct buf *b, const char *s, size_t n, struct err *e)
{
    TRY(buf_u64(b, n, e));
    return buf_put(b, s, n, e);
}

static void free_writer(struct gguf_writer *w)
{
    mem_free(w->kv.p);
    mem_free(w->tensor);
    arena_free(&w->names);
    mem_free(w);
}

status gguf_header_open(struct gguf_writer **out, const char *name, struct err *e)
{
    *out = NULL;
    struct gguf_writer *w = mem_calloc(1, sizeof *w);
    if (!w) return err_oom(e, "GGUF writer", sizeof *w);
    arena_init(&w->names, 0);
    w->alignment = 32;
    w->out.fd = -1;
    w->name = arena_strdup(&w->names, name, strlen(name));
    if (w->name) {
        *out = w;
        return OK;
    }
    free_writer(w);
    return err_oom(e, "GGUF writer", strlen(name));
}

status gguf_writer_open(struct gguf_writer **out, const char *path, struct err *e)
{
    TRY(gguf_header_open(out, path, e));
    status st = file_create(&(*out)->out, path, e);
    if (st == OK) return OK;
    free_writer(*out);
    *out = NULL;
    return st;
}

void gguf_writer_abort(struct gguf_writer *w)
{
    if (!w) return;
    file_abort(&w->out);
    free_writer(w);
}

/* ---- keys ----
 * A failed put leaves half a record behind; that is harmless, because finish then writes nothing. */

static status put_head(struct gguf_writer *w, const char *key, size_t n, enum gguf_kind kind)
{
    TRY(w->first.code);
    TRY(buf_str(&w->kv, key, n, &w->first));
    TRY(buf_u32(&w->kv, (uint32_t)kind, &w->first));
    w->n_kv++;
    return OK;
}

static bool is_alignment(const char *key, size_t n) { return n == strlen("general.alignment") && !memcmp(key, "general.alignment", n); }

/* Impossible values are left to the reader's check, which names them. */
static void note_alignment(struct gguf_writer *w, uint64_t v)
{
    if (v >= 8 && v <= 1 << 20 && (v & (v - 1)) == 0) w->alignment = (size_t)v;
}

void gguf_put_i64(struct gguf_writer *w, const char *key, enum gguf_kind kind, int64_t v)
{
    size_t bytes = gguf_kind_bytes(kind);
    assert(bytes > 0 && kind != KV_F32 && kind != KV_F64);
    bool is_signed = kind == KV_I8 || kind == KV_I16 || kind == KV_I32 || kind == KV_I64;
    int bits = kind == KV_BOOL ? 1 : (int)bytes * 8 - is_signed;
    int64_t top = bits >= 63 ? INT64_MAX : ((int64_t)1 << bits) - 1, bottom = is_signed ? -top - 1 : 0;
    if (v < bottom || v > top) {
        err_set(&w->first, ERR_RUNTIME, "%s: %lld does not fit %s", key, (long long)v, gguf_kind_name(kind));
        return;
    }
    if (put_head(w, key, strlen(key), kind) != OK || buf_put(&w->kv, &v, bytes, &w->first) != OK) return;
    if (is_alignment(key, strlen(key))) note_alignment(w, (uint64_t)v);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float v)
{
    status st = put_head(w, key, strlen(key), KV_F32);
    if (st == OK) st = buf_put(&w->kv, &v, sizeof v, &w->first);
}

void gguf_put_str(struct gguf_writer *w, const char *key, const char *s, size_t n)
{
    status st = put_head(w, key, strlen(key), KV_STR);
    if (st == OK) st = buf_str(&w->kv, s, n, &w->first);
}

static status put_array_head(struct gguf_writer *w, const char *key, size_t key_len, enum gguf_kind elem, uint64_t n)
{
    TRY(put_head(w, key, key_len, KV_ARR));
    TRY(buf_u32(&w->kv, (uint32_t)elem, &w->first));
    return buf_u64(&w->kv, n, &w->first);
}

void gguf_put_arr(struct gguf_writer *w, const char *key, enum gguf_kind elem, const void *items, uint64_t n)
{
    assert(gguf_kind_bytes(elem) > 0);
    size_t bytes;
    status st = put_array_head(w, key, strlen(key), elem, n);
    if (st == OK && !mul_size((size_t)n, gguf_kind_bytes(elem), &bytes)) st = err_oom(&w->first, key, SIZE_MAX);
    if (st == OK) st = buf_put(&w->kv, items, bytes, &w->first);
}

void gguf_put_arr_str(struct gguf_writer *w, const char *key, const struct str *items, uint64_t n)
{
    status st = put_array_head(w, key, strlen(key), KV_STR, n);
    for (uint64_t i = 0; st == OK && i < n; i++) st = buf_str(&w->kv, items[i].p, items[i].n, &w->first);
}

void gguf_put_kv(struct gguf_writer *w, const struct gguf_kv *kv)
{
    const uint8_t *end = kv->data + (size_t)kv->n * gguf_kind_bytes(kv->elem);
    for (uint64_t i = 0; kv->elem == KV_STR && i < kv->n; i++) gguf_arr_str(&end);
    status st = kv->kind == KV_ARR ? put_array_head(w, kv->key.p, kv->key.n, kv->elem, kv->n) : put_head(w, kv->key.p, kv->key.n, kv->kind);
    if (st == OK) st = buf_put(&w->kv, kv->data, (size_t)(end - kv->data), &w->first);
    if (st == OK && kv->kind == KV_U32 && is_alignment(kv->key.p, kv->key.n)) {
        uint32_t v;
        memcpy(&v, kv->data, sizeof v);
        note_alignment(w, v);
    }
}

/* ---- tensors ---- */

void gguf_put_tensor(struct gguf_writer *w, const struct tensor *t)
{
    if (w->first.code != OK) return;
    if (w->n_tensors == w->cap_tensors) {
        int64_t cap = w->cap_tensors ? 2 * w->cap_tensors : 64;
        struct tensor *grown = mem_realloc(w->tensor, (size_t)cap * sizeof *grown);
        if (!grown) {
            err_oom(&w->first, "GGUF writer", (size_t)cap * sizeof *grown);
            return;
        }
        w->tensor = grown, w->cap_tensors = cap;
    }
    char *name = arena_strdup(&w->names, t->name, strlen(t->name));
    if (!name) {
        err_oom(&w->first, t->name, strlen(t->name));
        return;
    }
    w->tensor[w->n_tensors] = *t;
    w->tensor[w->n_tensors++].name = name;
}

static status put_tensor_info(struct buf *b, const struct tensor *t, uint64_t offset, struct err *e)
{
    uint32_t n_dims = 4;
    while (n_dims > 1 && t->ne[n_dims - 1] == 1) n_dims--;
    TRY(buf_str(b, t->name, strlen(t->name), e));
    TRY(buf_u32(b, n_dims, e));
    TRY(buf_put(b, t->ne, n_dims * sizeof t->ne[0], e));
    TRY(buf_u32(b, (uint32_t)t->type->gguf_id, e));
    return buf_u64(b, offset, e);
}

/* The whole header, padded to the start of the data. at [n_tensors] = offsets from there; *size = bytes of the whole file. */
static status build_header(const struct gguf_writer *w, struct buf *b, size_t *at, size_t *size, struct err *e)
{
    uint8_t head[HEADER_BYTES] = { 'G', 'G', 'U', 'F', 3 };
    memcpy(head + 8, &w->n_tensors, 8);
    memcpy(head + 16, &w->n_kv, 8);
    TRY(buf_put(b, head, sizeof head, e));
    TRY(buf_put(b, w->kv.p, w->kv.n, e));
    size_t offset = 0;
    for (int64_t i = 0; i < w->n_tensors; i++) {
        TRY(put_tensor_info(b, &w->tensor[i], offset, e));
        at[i] = offset;
        if (!add_size(offset, tensor_bytes(&w->tensor[i]), &offset) || !pad_size(offset, w->alignment, &offset))
            return err_oom(e, w->tensor[i].name, SIZE_MAX);
    }
    while (b->n % w->alignment != 0) {
        size_t gap = w->alignment - b->n % w->alignment;
        TRY(buf_put(b, zeros, gap < sizeof zeros ? gap : sizeof zeros, e));
    }
    return add_size(b->n, offset, size) ? OK : err_oom(e, "GGUF file", SIZE_MAX);
}

static status write_data(struct gguf_writer *w, struct err *e)
{
    for (int64_t i = 0; i < w->n_tensors; i++) {
        size_t bytes = tensor_bytes(&w->tensor[i]), gap = bytes % w->alignment ? w->alignment - bytes % w->alignment : 0;
        TRY(file_write(&w->out, w->tensor[i].data, bytes, e));
        for (size_t n; gap > 0; gap -= n) {
            n = gap < sizeof zeros ? gap : sizeof zeros;
            TRY(file_write(&w->out, zeros, n, e));
        }
    }
    return OK;
}

/* Builds the header and lets the reader check it. */
static status layout(struct gguf_writer *w, struct gguf_header *h, struct err *e)
{
    struct buf b = { 0 };
    struct gguf check;
    *h = (struct gguf_header){ 0 };
    status st = w->first.code;
    if (st != OK) err_set(e, st, "%s", w->first.text);
    if (st == OK && !(h->offset = mem_calloc((size_t)w->n_tensors, sizeof *h->offset))) st = err_oom(e, w->name, (size_t)w->n_tensors * 8);
    if (st == OK) st = build_header(w, &b, h->offset, &h->size, e);
    h->data = b.p, h->n = b.n;
    if (st == OK) st = gguf_check_header(&check, h->data, h->n, h->size, w->name, e);
    if (st == OK) gguf_close(&check);
    for (int64_t i = 0; st == OK && i < w->n_tensors; i++) h->offset[i] += h->n;
    if (st != OK) gguf_header_free(h);
    return st;
}

void gguf_header_free(struct gguf_header *h)
{
    mem_free(h->data);
    mem_free(h->offset);
    *h = (struct gguf_header){ 0 };
}

status gguf_header_finish(struct gguf_writer *w, struct gguf_header *h, struct err *e)
{
    status st = layout(w, h, e);
    file_abort(&w->out);
    free_writer(w);
    return st;
}

status gguf_writer_finish(struct gguf_writer *w, struct err *e)
{
    struct gguf_header header;
    status st = layout(w, &header, e);
    if (st == OK) st = file_write(&w->out, header.data, header.n, e);
    if (st == OK) st = write_data(w, e);
    if (st == OK) st = file_commit(&w->out, e);
    if (st != OK) file_abort(&w->out);
    gguf_header_free(&header);
    free_writer(w);
    return st;
}

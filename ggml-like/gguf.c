/* gguf - the reader. Knows bytes, keys and tensor views; no key has a meaning here except general.alignment and split.*.
 * Two passes over the keys and two over the tensor infos: the first proves every length against the bytes left, the second stores.
 * So memory is only ever allocated for records that exist, and after open no bound needs another check.
 * Look-ups and duplicate checks use sorted orders, not hashes: no choice of names makes them slow. */
#include "ggml-like/gguf.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    KV_MAX = 65536, TENSOR_MAX = 1000000,
    KEY_LEN_MAX = 65535, NAME_LEN_MAX = 255,
    KV_BYTES_MIN = 8 + 1 + 4 + 1,              /* a one-byte key with a one-byte value */
    TENSOR_BYTES_MIN = 8 + 1 + 4 + 8 + 4 + 8,  /* one-byte name, one dimension */
    ALIGNMENT_DEFAULT = 32, ALIGNMENT_MIN = 8, ALIGNMENT_MAX = 1 << 20,
};

static const struct { const char *name; uint8_t bytes; bool is_int, is_signed; } kinds[] = {
    [KV_U8] = { "u8", 1, true, false }, [KV_I8] = { "i8", 1, true, true }, [KV_U16] = { "u16", 2, true, false },
    [KV_I16] = { "i16", 2, true, true }, [KV_U32] = { "u32", 4, true, false }, [KV_I32] = { "i32", 4, true, true },
    [KV_F32] = { "f32", 4, false, false }, [KV_BOOL] = { "bool", 1, false, false }, [KV_STR] = { "string", 0, false, false },
    [KV_ARR] = { "array", 0, false, false }, [KV_U64] = { "u64", 8, true, false }, [KV_I64] = { "i64", 8, true, true },
    [KV_F64] = { "f64", 8, false, false },
};

const char *gguf_kind_name(enum gguf_kind kind) { return kinds[kind].name; }
size_t gguf_kind_bytes(enum gguf_kind kind) { return kinds[kind].bytes; }

const char *gguf_kv_text(const struct gguf_kv *kv, char buf[32])
{
    snprintf(buf, 32, "%s%s", kv->kind == KV_ARR ? "array of " : "", gguf_kind_name(kv->elem));
    return buf;
}

/* ---- the reader: the only code that touches unproven bytes ---- */

struct reader {
    const uint8_t *data;
    size_t size, at;     /* bytes that may be read; position */
    size_t file_size;    /* = size, or more when only the header is present */
    const char *path;
    const char *record;  /* "key" or "tensor", NULL in the fixed header */
    int64_t index;       /* of the record */
    struct str name;     /* of the record, once read */
    struct err *e;
};

/* Names come from the file: error texts show at most 40 printable characters of them. */
static const char *printable(struct str s, char buf[64])
{
    size_t n = s.n < 40 ? s.n : 40;
    for (size_t i = 0; i < n; i++) buf[i] = s.p[i] < 0x20 || s.p[i] > 0x7e ? '?' : s.p[i];
    memcpy(buf + n, s.n > n ? "..." : "", s.n > n ? 4 : 1);
    return buf;
}

static struct str str_of(const char *s) { return (struct str){ s, strlen(s) }; }

/* "<path>: key 3 'general.name', byte 120: <what>". Only the end of a long path is shown, so that the cause always fits. */
static status fail(struct reader *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static status fail(struct reader *r, const char *fmt, ...)
{
    char what[200], where[120] = "", name[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (r->record)
        snprintf(where, sizeof where, "%s %lld%s%s%s, byte %zu: ", r->record, (long long)r->index, r->name.n ? " '" : "",
                 printable(r->name, name), r->name.n ? "'" : "", r->at);
    size_t n = strlen(r->path);
    return err_set(r->e, ERR_FORMAT, "%s%s: %s%s", n > 60 ? "..." : "", n > 60 ? r->path + n - 57 : r->path, where, what);
}

static size_t left(const struct reader *r) { return r->size - r->at; }

static status read_bytes(struct reader *r, const char *what, void *out, size_t n)
{
    if (n > left(r)) return fail(r, "the file ends inside %s: %zu bytes needed, %zu left", what, n, left(r));
    memcpy(out, r->data + r->at, n);
    r->at += n;
    return OK;
}

static status read_str(struct reader *r, const char *what, struct str *out)
{
    uint64_t n = 0;
    TRY(read_bytes(r, what, &n, sizeof n));
    if (n > left(r)) return fail(r, "length of %s is %llu, %zu bytes left in the file", what, (unsigned long long)n, left(r));
    *out = (struct str){ (const char *)r->data + r->at, (size_t)n };
    r->at += (size_t)n;
    return OK;
}

/* Bytes of the UTF-8 character at p; 0 if it is none (overlong, surrogate, beyond U+10FFFF, cut). */
static size_t utf8_char(const uint8_t *p, size_t n)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (len == 0 || len > n) return 0;
    for (size_t i = 1; i < len; i++)
        if (p[i] >> 6 != 2) return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] > 0x9f, beyond = p[0] == 0xf4 && p[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : len;
}

/* Keys and tensor names: bounded, UTF-8, nothing that a terminal or a C string would trip over. */
static status check_name(struct reader *r, const char *what, struct str s, size_t max)
{
    if (s.n < 1 || s.n > max) return fail(r, "length of %s is %zu, allowed are 1 to %zu", what, s.n, max);
    const uint8_t *p = (const uint8_t *)s.p;
    for (size_t i = 0; i < s.n;) {
        size_t len = utf8_char(p + i, s.n - i);
        if (len == 0) return fail(r, "%s is not UTF-8: byte 0x%02x at %zu", what, p[i], i);
        if (p[i] < 0x20 || p[i] == 0x7f) return fail(r, "%s contains the control byte 0x%02x at %zu", what, p[i], i);
        i += len;
    }
    return OK;
}

/* ---- sorted orders ---- */

typedef int compare(const void *items, int32_t a, int32_t b);

static status alloc(struct gguf *g, const char *what, int64_t n, size_t bytes, void *out, struct err *e)
{
    void *p = arena_alloc(&g->meta, (size_t)n * bytes); /* n <= TENSOR_MAX, or bytes of the file */
    memcpy(out, &p, sizeof p);
    return p ? OK : err_oom(e, what, (size_t)n * bytes);
}

/* Merge sort of the indices 0..n-1: n log n whatever the file holds, and one pass over what is already in order. */
static status sort_order(struct gguf *g, int32_t *order, int64_t n, const void *items, compare *cmp, struct err *e)
{
    struct arena_mark mark = arena_mark(&g->meta);
    int32_t *tmp;
    TRY(alloc(g, "sorting names", n, sizeof *tmp, &tmp, e));
    for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t lo = 0; lo + width < n; lo += 2 * width) {
            int64_t mid = lo + width, hi = min_i64(mid + width, n), a = lo, b = mid, out = lo;
            if (cmp(items, order[mid - 1], order[mid]) <= 0) continue;
            memcpy(tmp + lo, order + lo, (size_t)(hi - lo) * sizeof *tmp);
            while (a < mid && b < hi) order[out++] = cmp(items, tmp[b], tmp[a]) < 0 ? tmp[b++] : tmp[a++];
            while (a < mid) order[out++] = tmp[a++];
            while (b < hi) order[out++] = tmp[b++];
        }
    }
    arena_release(&g->meta, mark);
    return OK;
}

static int compare_str(struct str a, struct str b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : a.n < b.n ? -1 : a.n > b.n;
}

static int compare_keys(const void *items, int32_t a, int32_t b)
{
    const struct gguf_kv *kv = items;
    return compare_str(kv[a].key, kv[b].key);
}

static int compare_names(const void *items, int32_t a, int32_t b)
{
    const struct tensor *t = items;
    return strcmp(t[a].name, t[b].name);
}

static int compare_data(const void *items, int32_t a, int32_t b)
{
    const struct tensor *t = items;
    uintptr_t x = (uintptr_t)t[a].data, y = (uintptr_t)t[b].data;
    return x < y ? -1 : x > y;
}

/* ---- what else it may be ---- */

static const struct { const char *start; size_t n; const char *text; } lookalikes[] = {
    { "version https://git-lfs", 23, "this is a git-lfs pointer, download the real file" },
    { "PK\x03\x04", 4, "this is a zip archive (a PyTorch checkpoint?), not GGUF" },
    { "<!DOCTYPE", 9, "this is an HTML page: the download went wrong" },
    { "<!doctype", 9, "this is an HTML page: the download went wrong" },
    { "<html", 5, "this is an HTML page: the download went wrong" },
    { "<HTML", 5, "this is an HTML page: the download went wrong" },
    { "FUGG", 4, "this is a big-endian GGUF file, only little-endian ones can be read" },
    { "lmgg", 4, "this is a GGML file from before GGUF, convert the model again" },
    { "fmgg", 4, "this is a GGML file from before GGUF, convert the model again" },
    { "tjgg", 4, "this is a GGML file from before GGUF, convert the model again" },
    { "algg", 4, "this is a GGML adapter from before GGUF, convert it again" },
    { "\x1f\x8b", 2, "this is a gzip file, unpack it first" },
    { "\x28\xb5\x2f\xfd", 4, "this is a zstd file, unpack it first" },
    { "\x80\x02", 2, "this is a Python pickle, not GGUF" },
};

static bool is_text(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n && i < 512; i++)
        if (p[i] < 0x20 && p[i] != '\n' && p[i] != '\r' && p[i] != '\t') return false;
    return true;
}

static status refuse_magic(struct reader *r)
{
    const uint8_t *p = r->data;
    if (r->size == 0) return fail(r, "the file is empty");
    for (int i = 0; i < ARRAY_LEN(lookalikes); i++)
        if (r->size >= lookalikes[i].n && !memcmp(p, lookalikes[i].start, lookalikes[i].n)) return fail(r, "%s", lookalikes[i].text);
    uint64_t n = 0;
    if (r->size > 9) memcpy(&n, p, sizeof n);
    if (n > 1 && n <= r->size - 8 && p[8] == '{') return fail(r, "this is a safetensors file, convert it to GGUF first");
    if (r->size < 4) return fail(r, "the file has %zu bytes, not a GGUF file", r->size);
    if (is_text(p, r->size)) return fail(r, "this is a text file, not GGUF");
    return fail(r, "the first bytes are %02x %02x %02x %02x, expected 47 47 55 46 (\"GGUF\")", p[0], p[1], p[2], p[3]);
}

/* ---- header and keys ---- */

static status read_count(struct reader *r, const char *what, int64_t max, int64_t *out)
{
    uint64_t n = 0;
    TRY(read_bytes(r, what, &n, sizeof n));
    if (n > (uint64_t)max) return fail(r, "%s is %llu, at most %lld are accepted", what, (unsigned long long)n, (long long)max);
    *out = (int64_t)n;
    return OK;
}

static status check_count(struct reader *r, const char *what, int64_t n, size_t record_min)
{
    if ((uint64_t)n <= left(r) / record_min) return OK;
    return fail(r, "%s is %lld, but the %zu bytes left hold at most %zu", what, (long long)n, left(r), left(r) / record_min);
}

static status read_header(struct reader *r, struct gguf *g)
{
    if (r->size < 4 || memcmp(r->data, "GGUF", 4)) return refuse_magic(r);
    r->at = 4;
    TRY(read_bytes(r, "the version", &g->version, 4));
    if (g->version != 0 && (g->version & 0xffff) == 0) return fail(r, "this is a big-endian file, only little-endian GGUF can be read");
    if (g->version == 1) return fail(r, "GGUF version 1 is no longer in use, convert the model again (versions 2 and 3 can be read)");
    if (g->version < 2 || g->version > 3) return fail(r, "GGUF version is %u, this build reads 2 and 3", g->version);
    TRY(read_count(r, "the number of tensors", TENSOR_MAX, &g->n_tensors));
    TRY(read_count(r, "the number of keys", KV_MAX, &g->n_kv));
    TRY(check_count(r, "the number of keys", g->n_kv, KV_BYTES_MIN));
    return check_count(r, "the number of tensors", g->n_tensors, TENSOR_BYTES_MIN);
}

static status skip_strings(struct reader *r, uint64_t n)
{
    if (n > left(r) / 8) return fail(r, "%llu strings do not fit in the %zu bytes left", (unsigned long long)n, left(r));
    struct str s;
    for (uint64_t i = 0, len; i < n; i++) {
        if (left(r) < sizeof len) return read_str(r, "a string", &s); /* which says what is wrong */
        memcpy(&len, r->data + r->at, sizeof len);
        if (len > left(r) - sizeof len) return read_str(r, "a string", &s);
        r->at += sizeof len + (size_t)len;
    }
    return OK;
}

static status skip_numbers(struct reader *r, enum gguf_kind kind, uint64_t n)
{
    size_t bytes = kinds[kind].bytes;
    if (n > left(r) / bytes)
        return fail(r, "%llu values of type %s do not fit in the %zu bytes left", (unsigned long long)n, kinds[kind].name, left(r));
    const uint8_t *p = r->data + r->at;
    for (uint64_t i = 0; kind == KV_BOOL && i < n; i++)
        if (p[i] > 1) return fail(r, "bool %llu has the value %u, expected 0 or 1", (unsigned long long)i, p[i]);
    r->at += (size_t)n * bytes;
    return OK;
}

static status read_kind(struct reader *r, const char *what, enum gguf_kind *out)
{
    uint32_t kind = 0;
    TRY(read_bytes(r, what, &kind, sizeof kind));
    if (kind >= ARRAY_LEN(kinds)) return fail(r, "%s is %d, known are 0 to %d", what, (int)kind, ARRAY_LEN(kinds) - 1);
    *out = (enum gguf_kind)kind;
    return OK;
}

static status read_kv(struct reader *r, struct gguf_kv *kv)
{
    *kv = (struct gguf_kv){ .n = 1 };
    r->name = (struct str){ 0 };
    TRY(read_str(r, "the key", &kv->key));
    TRY(check_name(r, "the key", kv->key, KEY_LEN_MAX));
    r->name = kv->key;
    TRY(read_kind(r, "the value type", &kv->kind));
    kv->elem = kv->kind;
    if (kv->kind == KV_ARR) {
        TRY(read_kind(r, "the element type", &kv->elem));
        if (kv->elem == KV_ARR) return fail(r, "arrays of arrays are not supported");
        TRY(read_bytes(r, "the array length", &kv->n, sizeof kv->n));
    }
    kv->data = r->data + r->at;
    return kv->elem == KV_STR ? skip_strings(r, kv->n) : skip_numbers(r, kv->elem, kv->n);
}

static status read_keys(struct reader *r, struct gguf *g)
{
    size_t start = r->at;
    struct gguf_kv probe;
    r->record = "key";
    for (r->index = 0; r->index < g->n_kv; r->index++) TRY(read_kv(r, &probe));
    TRY(alloc(g, "keys", g->n_kv, sizeof *g->kv, &g->kv, r->e));
    TRY(alloc(g, "keys", g->n_kv, sizeof *g->kv_order, &g->kv_order, r->e));
    r->at = start;
    for (r->index = 0; r->index < g->n_kv; r->index++) TRY(read_kv(r, &g->kv[r->index]));
    r->record = NULL;

    TRY(sort_order(g, g->kv_order, g->n_kv, g->kv, compare_keys, r->e));
    char name[64];
    for (int64_t i = 1; i < g->n_kv; i++)
        if (compare_keys(g->kv, g->kv_order[i - 1], g->kv_order[i]) == 0)
            return fail(r, "key '%s' appears twice (keys %d and %d)", printable(g->kv[g->kv_order[i]].key, name), g->kv_order[i - 1],
                        g->kv_order[i]);
    return OK;
}

static status read_alignment(struct reader *r, struct gguf *g)
{
    g->alignment = ALIGNMENT_DEFAULT;
    const struct gguf_kv *kv = gguf_find(g, "general.alignment");
    if (!kv) return OK;
    char text[32];
    if (kv->kind != KV_U32) return fail(r, "general.alignment has type %s, expected u32", gguf_kv_text(kv, text));
    uint32_t a;
    memcpy(&a, kv->data, sizeof a);
    if (a < ALIGNMENT_MIN || a > ALIGNMENT_MAX || (a & (a - 1)))
        return fail(r, "general.alignment is %u, expected a power of two from %d to %d", a, ALIGNMENT_MIN, ALIGNMENT_MAX);
    g->alignment = a;
    return OK;
}

/* ---- tensors ---- */

static status fail_shape(struct reader *r, const uint64_t ne[4], uint32_t n_dims, const char *what)
{
    char text[96];
    int n = 0;
    for (uint32_t i = 0; i < n_dims; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%llu", i ? ", " : "", (unsigned long long)ne[i]);
    return fail(r, "shape [%s] %s", text, what);
}

/* Reads one tensor info and proves its sizes, not its place. *t gets type and shape, *name a view. */
static status read_tensor(struct reader *r, struct tensor *t, struct str *name, uint64_t *offset)
{
    r->name = (struct str){ 0 };
    TRY(read_str(r, "the tensor name", name));
    TRY(check_name(r, "the tensor name", *name, NAME_LEN_MAX));
    r->name = *name;

    uint32_t n_dims = 0;
    uint64_t ne[4] = { 1, 1, 1, 1 };
    TRY(read_bytes(r, "the number of dimensions", &n_dims, sizeof n_dims));
    if (n_dims < 1 || n_dims > 4) return fail(r, "the number of dimensions is %u, expected 1 to 4", n_dims);
    TRY(read_bytes(r, "the dimensions", ne, n_dims * sizeof ne[0]));

    int32_t id = 0;
    TRY(read_bytes(r, "the tensor type", &id, sizeof id));
    TRY(read_bytes(r, "the tensor offset", offset, sizeof *offset));
    const struct dtype *type = dtype_by_id(id);
    if (!type) return fail(r, "type id %d: %s", id, dtype_id_text(id));

    size_t elements = 1, bytes;
    for (int i = 0; i < 4; i++) {
        if (ne[i] < 1) return fail_shape(r, ne, n_dims, "has a zero dimension");
        if (ne[i] > INT64_MAX || !mul_size(elements, (size_t)ne[i], &elements) || elements > INT64_MAX)
            return fail_shape(r, ne, n_dims, "has too many elements");
    }
    if (ne[0] % (uint64_t)type->block_len != 0) {
        char what[80];
        snprintf(what, sizeof what, "does not divide into %s blocks of %d", type->gguf_name, type->block_len);
        return fail_shape(r, ne, n_dims, what);
    }
    if (!mul_size(elements / (size_t)type->block_len, (size_t)type->block_bytes, &bytes))
        return fail_shape(r, ne, n_dims, "has more bytes than can be addressed");
    tensor_shape(t, type, (int64_t)ne[0], (int64_t)ne[1], (int64_t)ne[2], (int64_t)ne[3]);
    return OK;
}

static status place_tensor(struct reader *r, const struct gguf *g, struct tensor *t, uint64_t offset)
{
    size_t room = r->file_size - g->data_offset, bytes = tensor_bytes(t);
    if (offset % g->alignment != 0)
        return fail(r, "offset %llu is not a multiple of the alignment %zu", (unsigned long long)offset, g->alignment);
    if (offset > room) return fail(r, "offset %llu is beyond the %zu data bytes of the file", (unsigned long long)offset, room);
    if (bytes > room - offset)
        return fail(r, "needs %zu bytes at offset %llu, the file has %zu there: %zu missing", bytes, (unsigned long long)offset,
                    room - (size_t)offset, bytes - (room - (size_t)offset));
    t->data = (void *)((uintptr_t)r->data + g->data_offset + (size_t)offset);
    return OK;
}

/* Names are unique and no two tensors share bytes. Gaps are allowed. */
static status check_tensor_set(struct reader *r, struct gguf *g)
{
    const struct tensor *t = g->tensor;
    int32_t *order = g->tensor_order;
    char a[64], b[64];
    TRY(sort_order(g, order, g->n_tensors, t, compare_data, r->e));
    for (int64_t i = 1; i < g->n_tensors; i++) {
        const struct tensor *x = &t[order[i - 1]], *y = &t[order[i]];
        size_t distance = (size_t)((uintptr_t)y->data - (uintptr_t)x->data);
        if (distance < tensor_bytes(x))
            return fail(r, "tensors '%s' and '%s' overlap: %zu bytes, but the next starts after %zu", printable(str_of(x->name), a),
                        printable(str_of(y->name), b), tensor_bytes(x), distance);
    }
    TRY(sort_order(g, order, g->n_tensors, t, compare_names, r->e));
    for (int64_t i = 1; i < g->n_tensors; i++)
        if (compare_names(t, order[i - 1], order[i]) == 0)
            return fail(r, "tensor '%s' appears twice (tensors %d and %d)", printable(str_of(t[order[i]].name), a), order[i - 1], order[i]);
    return OK;
}

static status read_tensors(struct reader *r, struct gguf *g)
{
    size_t start = r->at, name_bytes = 0;
    struct tensor probe;
    struct str name;
    uint64_t offset;
    r->record = "tensor";
    for (r->index = 0; r->index < g->n_tensors; r->index++) {
        TRY(read_tensor(r, &probe, &name, &offset));
        name_bytes += name.n + 1; /* each is part of the file: cannot wrap */
    }
    r->record = NULL;
    if (!pad_size(r->at, g->alignment, &g->data_offset) || g->data_offset > r->file_size) {
        if (g->n_tensors > 0) return fail(r, "the file ends at byte %zu, before the tensor data", r->file_size);
        g->data_offset = r->file_size;
    }
    char *names;
    TRY(alloc(g, "tensors", g->n_tensors, sizeof *g->tensor, &g->tensor, r->e));
    TRY(alloc(g, "tensors", g->n_tensors, sizeof *g->tensor_order, &g->tensor_order, r->e));
    TRY(alloc(g, "tensor names", (int64_t)name_bytes, 1, &names, r->e));

    r->record = "tensor";
    r->at = start;
    for (r->index = 0; r->index < g->n_tensors; r->index++) {
        struct tensor *t = &g->tensor[r->index];
        TRY(read_tensor(r, t, &name, &offset));
        TRY(place_tensor(r, g, t, offset));
        memcpy(names, name.p, name.n);
        names[name.n] = 0;
        t->name = names;
        names += name.n + 1;
    }
    r->record = NULL;
    return check_tensor_set(r, g);
}

/* ---- open ---- */

static status parse(struct reader *r, struct gguf *g)
{
    TRY(read_header(r, g));
    TRY(read_keys(r, g));
    TRY(read_alignment(r, g));
    return read_tensors(r, g);
}

status gguf_check_header(struct gguf *g, const uint8_t *data, size_t n, size_t size, const char *name, struct err *e)
{
    *g = (struct gguf){ 0 };
    arena_init(&g->meta, 0);
    struct reader r = { .data = data, .size = n, .file_size = size, .path = name, .e = e };
    status st = parse(&r, g);
    if (st != OK) gguf_close(g);
    return st;
}

/* ---- split models ----
 * Keys of every part: split.no (from 0), split.count, split.tensors.count (of all parts together). Source: llama.cpp, tools/gguf-split. */

struct split { int64_t no, count, tensors; }; /* count 1: not split; tensors -1: not said */

static status read_split(struct reader *r, const struct gguf *g, struct split *s)
{
    struct err bad = { 0 };
    *s = (struct split){ .count = 1, .tensors = -1 };
    gguf_get_i64(g, "split.count", 0, GGUF_PARTS_MAX, &s->count, &bad);
    gguf_get_i64(g, "split.no", 0, GGUF_PARTS_MAX, &s->no, &bad);
    gguf_get_i64(g, "split.tensors.count", 0, TENSOR_MAX, &s->tensors, &bad);
    if (bad.code) return fail(r, "%s", bad.text);
    if (s->count > 1 && s->no >= s->count)
        return fail(r, "split.no is %lld, but split.count is %lld", (long long)s->no, (long long)s->count);
    return OK;
}

status gguf_parse(struct gguf *g, const uint8_t *data, size_t size, const char *name, struct err *e)
{
    struct reader r = { .path = name, .e = e };
    struct split s;
    TRY(gguf_check_header(g, data, size, size, name, e));
    status st = read_split(&r, g, &s);
    if (st == OK && s.count > 1)
        st = fail(&r, "split.count is %lld: this is one part of a split model, open the file of the first part", (long long)s.count);
    if (st != OK) gguf_close(g);
    return st;
}

/* The path of part `no`; NULL, with the reason in e, where `path` does not end like the name of part `from` of `count`. */
static char *part_path(struct reader *r, struct arena *mem, int64_t from, int64_t no, int64_t count)
{
    char end[48], want[48];
    size_t n = strlen(r->path), m = (size_t)snprintf(end, sizeof end, "-%05lld-of-%05lld.gguf", (long long)from + 1, (long long)count);
    if (n < m || strcmp(r->path + n - m, end) != 0) {
        fail(r, "part %lld of %lld, but its name does not end in %s: the other parts cannot be found", (long long)from + 1, (long long)count, end);
        return NULL;
    }
    char *path = arena_strdup(mem, r->path, n);
    if (!path) err_oom(r->e, "names of parts", n);
    else snprintf(want, sizeof want, "-%05lld-of-%05lld.gguf", (long long)no + 1, (long long)count), memcpy(path + n - m, want, m);
    return path;
}

/* What all parts must have in common. Only the first needs to name its architecture. */
static status check_part(struct reader *r, const struct gguf *first, const struct split *s, const struct gguf *g, int64_t no)
{
    struct split p;
    struct str want = { 0 }, have = { 0 };
    char a[64], b[64];
    TRY(read_split(r, g, &p));
    if (g->version != first->version) return fail(r, "GGUF version is %u, that of the first part %u", g->version, first->version);
    if (p.count != s->count) return fail(r, "split.count is %lld, that of the first part %lld", (long long)p.count, (long long)s->count);
    if (p.no != no) return fail(r, "split.no is %lld, expected %lld", (long long)p.no, (long long)no);
    if (p.tensors != s->tensors && p.tensors >= 0)
        return fail(r, "split.tensors.count is %lld, that of the first part %lld", (long long)p.tensors, (long long)s->tensors);
    gguf_get_str(first, "general.architecture", &want, NULL);
    if (gguf_get_str(g, "general.architecture", &have, NULL) && compare_str(want, have) != 0)
        return fail(r, "general.architecture is '%s', that of the first part '%s'", printable(have, a), printable(want, b));
    return OK;
}

static status open_part(struct reader *r, struct gguf *g, struct gguf *part, const struct split *s, int64_t no, bool use_mmap)
{
    struct file *f = &g->more[no - 1];
    struct reader at = { .path = part_path(r, &g->meta, 0, no, s->count), .e = r->e };
    if (!at.path) return r->e->code;
    TRY(file_open(f, at.path, use_mmap, r->e));
    g->n_more = (int)no; /* gguf_close closes what is open */
    TRY(gguf_check_header(part, f->data, f->size, f->size, at.path, r->e));
    return check_part(&at, g, s, part, no);
}

/* g takes the tensors of all parts behind its own. */
static status append_tensors(struct reader *r, struct gguf *g, const struct gguf *part, int n_parts, const struct split *s)
{
    int64_t n = g->n_tensors;
    struct tensor *t;
    char name[64];
    for (int i = 0; i < n_parts; i++) n += part[i].n_tensors;
    if (s->tensors >= 0 && n != s->tensors)
        return fail(r, "split.tensors.count is %lld, but the %d parts hold %lld", (long long)s->tensors, n_parts + 1, (long long)n);
    if (n > TENSOR_MAX) return fail(r, "the parts hold %lld tensors, at most %d are accepted", (long long)n, TENSOR_MAX);
    TRY(alloc(g, "tensors", n, sizeof *t, &t, r->e));
    TRY(alloc(g, "tensors", n, sizeof *g->tensor_order, &g->tensor_order, r->e));
    if (g->n_tensors) memcpy(t, g->tensor, (size_t)g->n_tensors * sizeof *t);
    for (int i = 0; i < n_parts; i++)
        for (int64_t j = 0; j < part[i].n_tensors; j++) {
            struct tensor *to = &t[g->n_tensors++];
            *to = part[i].tensor[j];
            to->name = arena_strdup(&g->meta, to->name, strlen(to->name));
            if (!to->name) return err_oom(r->e, "tensor names", 1);
        }
    g->tensor = t;
    TRY(sort_order(g, g->tensor_order, n, t, compare_names, r->e));
    for (int64_t i = 1; i < n; i++)
        if (compare_names(t, g->tensor_order[i - 1], g->tensor_order[i]) == 0)
            return fail(r, "tensor '%s' stands in two parts", printable(str_of(t[g->tensor_order[i]].name), name));
    return OK;
}

static status open_parts(struct reader *r, struct gguf *g, const struct split *s, bool use_mmap)
{
    if (s->no > 0) {
        const char *first = part_path(r, &g->meta, s->no, 0, s->count), *slash = first ? strrchr(first, '/') : NULL;
        if (!first) return r->e->code;
        return fail(r, "this is part %lld of %lld, open the first part: %s", (long long)s->no + 1, (long long)s->count, slash ? slash + 1 : first);
    }
    int n = (int)s->count - 1;
    struct gguf *part = mem_calloc((size_t)n, sizeof *part);
    if (!part) return err_oom(r->e, "parts", (size_t)n * sizeof *part);
    status st = alloc(g, "parts", n, sizeof *g->more, &g->more, r->e);
    for (int i = 0; st == OK && i < n; i++) st = open_part(r, g, &part[i], s, i + 1, use_mmap);
    if (st == OK) st = append_tensors(r, g, part, n, s);
    for (int i = 0; i < n; i++) gguf_close(&part[i]); /* their files belong to g */
    mem_free(part);
    return st;
}

status gguf_open(struct gguf *g, const char *path, bool use_mmap, struct err *e)
{
    *g = (struct gguf){ 0 };
    struct err own = { 0 }, *err = e ? e : &own;
    struct reader r = { .path = path, .e = err };
    struct file f = { 0 };
    struct split s;
    TRY(file_open(&f, path, use_mmap, err));
    status st = gguf_check_header(g, f.data, f.size, f.size, path, err);
    g->file = f;
    if (st == OK) st = read_split(&r, g, &s);
    if (st == OK && s.count > 1) st = open_parts(&r, g, &s, use_mmap);
    if (st != OK) gguf_close(g);
    return st;
}

void gguf_close(struct gguf *g)
{
    for (int i = 0; i < g->n_more; i++) file_close(&g->more[i]);
    arena_free(&g->meta);
    file_close(&g->file);
    *g = (struct gguf){ 0 };
}

const struct file *gguf_file_of(const struct gguf *g, const struct tensor *t)
{
    uintptr_t at = (uintptr_t)t->data;
    for (int i = 0; i < g->n_more; i++)
        if (at - (uintptr_t)g->more[i].data < g->more[i].size) return &g->more[i];
    return &g->file;
}

size_t gguf_bytes(const struct gguf *g)
{
    size_t n = g->file.size; /* mapped side by side: the sum cannot wrap */
    for (int i = 0; i < g->n_more; i++) n += g->more[i].size;
    return n;
}

/* ---- look-ups ---- */

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    struct str want = str_of(key);
    for (int64_t lo = 0, hi = g->n_kv; lo < hi;) {
        int64_t mid = lo + (hi - lo) / 2;
        const struct gguf_kv *kv = &g->kv[g->kv_order[mid]];
        int c = compare_str(kv->key, want);
        if (c == 0) return kv;
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    return NULL;
}

struct tensor *gguf_tensor(const struct gguf *g, const char *name)
{
    for (int64_t lo = 0, hi = g->n_tensors; lo < hi;) {
        int64_t mid = lo + (hi - lo) / 2;
        struct tensor *t = &g->tensor[g->tensor_order[mid]];
        int c = strcmp(t->name, name);
        if (c == 0) return t;
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    return NULL;
}

/* ---- values ---- */

static uint64_t load(enum gguf_kind kind, const uint8_t *p)
{
    uint64_t v = 0;
    memcpy(&v, p, kinds[kind].bytes);
    int unused = 64 - 8 * kinds[kind].bytes;
    return kinds[kind].is_signed ? (uint64_t)((int64_t)(v << unused) >> unused) : v;
}

static float load_float(enum gguf_kind kind, const uint8_t *p)
{
    float f;
    double d;
    if (kind == KV_F32) return memcpy(&f, p, sizeof f), f;
    return memcpy(&d, p, sizeof d), (float)d;
}

static bool mismatch(struct err *e, const char *key, const struct gguf_kv *kv, const char *expected)
{
    char text[32];
    err_set(e, ERR_FORMAT, "%s: the type is %s, expected %s", key, gguf_kv_text(kv, text), expected);
    return false;
}

bool gguf_get_i64(const struct gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return false;
    if (!kinds[kv->kind].is_int) return mismatch(e, key, kv, "an integer");
    uint64_t raw = load(kv->kind, kv->data);
    int64_t v = (int64_t)raw;
    if (kv->kind == KV_U64 && raw > INT64_MAX) {
        err_set(e, ERR_FORMAT, "%s is %llu, allowed are %lld to %lld", key, (unsigned long long)raw, (long long)lo, (long long)hi);
        return false;
    }
    if (v < lo || v > hi) {
        err_set(e, ERR_FORMAT, "%s is %lld, allowed are %lld to %lld", key, (long long)v, (long long)lo, (long long)hi);
        return false;
    }
    *out = v;
    return true;
}

bool gguf_get_f32(const struct gguf *g, const char *key, float *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return false;
    if (kv->kind != KV_F32 && kv->kind != KV_F64) return mismatch(e, key, kv, "f32");
    *out = load_float(kv->kind, kv->data);
    return true;
}

bool gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return false;
    if (kv->kind != KV_BOOL) return mismatch(e, key, kv, "bool");
    *out = kv->data[0] != 0;
    return true;
}

bool gguf_get_str(const struct gguf *g, const char *key, struct str *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return false;
    if (kv->kind != KV_STR) return mismatch(e, key, kv, "string");
    const uint8_t *p = kv->data;
    *out = gguf_arr_str(&p);
    return true;
}

bool gguf_get_arr(const struct gguf *g, const char *key, enum gguf_kind elem, const struct gguf_kv **out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return false;
    char expected[32];
    struct gguf_kv want = { .kind = KV_ARR, .elem = elem };
    if (kv->kind != KV_ARR || kv->elem != elem) return mismatch(e, key, kv, gguf_kv_text(&want, expected));
    *out = kv;
    return true;
}

int64_t gguf_arr_i64(const struct gguf_kv *kv, uint64_t i)
{
    assert(i < kv->n && (kinds[kv->elem].is_int || kv->elem == KV_BOOL));
    uint64_t v = load(kv->elem, kv->data + i * kinds[kv->elem].bytes);
    return kv->elem == KV_U64 && v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

float gguf_arr_f32(const struct gguf_kv *kv, uint64_t i)
{
    assert(i < kv->n && (kv->elem == KV_F32 || kv->elem == KV_F64));
    return load_float(kv->elem, kv->data + i * kinds[kv->elem].bytes);
}

struct str gguf_arr_str(const uint8_t **cursor)
{
    uint64_t n;
    memcpy(&n, *cursor, sizeof n);
    struct str s = { (const char *)*cursor + sizeof n, (size_t)n };
    *cursor += sizeof n + (size_t)n;
    return s;
}

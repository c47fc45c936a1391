/* gguf - reads a GGUF v2/v3 container: everything is validated at open, then only views are handed out.
 * Every count, length and offset is compared with the bytes left before it is used; memory is only allocated for records that exist.
 * Read-only and thread-safe after open. Source: GGUF specification (ggml/docs/gguf.md). */
#pragma once
#include "ggml-like/arena.h"
#include "ggml-like/file.h"
#include "ggml-like/tensor.h"

enum gguf_kind { KV_U8, KV_I8, KV_U16, KV_I16, KV_U32, KV_I32, KV_F32, KV_BOOL, KV_STR, KV_ARR, KV_U64, KV_I64, KV_F64 };

struct str { const char *p; size_t n; }; /* view into the mapping: not NUL-terminated */

struct gguf_kv {
    struct str key;
    enum gguf_kind kind;   /* KV_ARR: see elem */
    enum gguf_kind elem;   /* element kind of an array, else = kind; nested arrays are refused at open */
    uint64_t n;            /* elements of an array, 1 otherwise */
    const uint8_t *data;   /* first value byte (unaligned); strings: u64 length + bytes each */
};

enum { GGUF_PARTS_MAX = 999 }; /* of a split model */
/* A model may be split over files NAME-00001-of-0000N.gguf, each a GGUF of its own; the first has the keys. */
struct gguf {
    struct file file;           /* the first, or only one */
    struct file *more;          /* parts 2 .. of a split model, [n_more] */
    int n_more;
    struct arena meta;
    uint32_t version;
    size_t alignment, data_offset;
    int64_t n_kv, n_tensors;
    struct gguf_kv *kv;
    struct tensor *tensor;      /* file order, part after part; data points into the mapping; names NUL-terminated copies */
    int32_t *kv_order, *tensor_order; /* indices sorted by key and by name, internal */
};

/* gguf_open - ERR_FILE / ERR_FORMAT / ERR_MEMORY; text names path, field or tensor, offset, found and expected. Recognises and names
 * what is not GGUF: empty file, git-lfs pointer, zip, safetensors, HTML, big-endian GGUF, v1. The first part of a split model opens them all:
 * a missing part is named, so is the first part when another one was given. */
status gguf_open(struct gguf *g, const char *path, bool use_mmap, struct err *e) MUST_USE;
/* gguf_parse - the same over bytes the caller keeps alive (fuzzing, tests). name stands for the path in errors. */
status gguf_parse(struct gguf *g, const uint8_t *data, size_t size, const char *name, struct err *e) MUST_USE;
/* gguf_check_header - gguf_parse for a header alone (data, n bytes) of a file that will be `size` bytes long. Tensor data must not be
 * touched afterwards. The writer runs it over what it is about to write. */
status gguf_check_header(struct gguf *g, const uint8_t *data, size_t n, size_t size, const char *name, struct err *e) MUST_USE;
void gguf_close(struct gguf *g);
/* gguf_file_of - the file that holds the data of t, which belongs to g; gguf_bytes - all files together. */
const struct file *gguf_file_of(const struct gguf *g, const struct tensor *t);
size_t gguf_bytes(const struct gguf *g);

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);
struct tensor *gguf_tensor(const struct gguf *g, const char *name);

/* Typed getters. Return true and set *out when the key exists with a fitting type (any integer kind whose value is in range for
 * the integer getter). False: absent. A key of another type sets e (ERR_FORMAT, key + both types) and returns false:
 * initialise e to zero before a series of gets and look at e->code after it. */
bool gguf_get_i64(const struct gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out, struct err *e);
bool gguf_get_f32(const struct gguf *g, const char *key, float *out, struct err *e);
bool gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e);
bool gguf_get_str(const struct gguf *g, const char *key, struct str *out, struct err *e);
/* gguf_get_arr - the array with this element kind. Use gguf_arr_* to read items; strings: walk with gguf_arr_str in order. */
bool gguf_get_arr(const struct gguf *g, const char *key, enum gguf_kind elem, const struct gguf_kv **out, struct err *e);
/* gguf_arr_i64/f32 - item i of a numeric array (any integer kind or bool / F32, F64). i < n. U64 above INT64_MAX gives INT64_MAX. */
int64_t gguf_arr_i64(const struct gguf_kv *kv, uint64_t i);
float gguf_arr_f32(const struct gguf_kv *kv, uint64_t i);
/* gguf_arr_str - reads the string at *cursor (start with kv->data) and advances it. Bounds were proven at open. */
struct str gguf_arr_str(const uint8_t **cursor);

const char *gguf_kind_name(enum gguf_kind kind);
size_t gguf_kind_bytes(enum gguf_kind kind); /* of one value in the file; 0 for strings and arrays */
/* gguf_get_* fails on the wrong type; this names what is there: "array of i32", "u8". Returns buf. */
const char *gguf_kv_text(const struct gguf_kv *kv, char buf[32]);

/* ---- writing (gguf_write.c) ----
 * A writer collects keys and tensors, then writes header and data in one pass, atomically (file.h). */
struct gguf_writer;
status gguf_writer_open(struct gguf_writer **out, const char *path, struct err *e) MUST_USE;
void gguf_writer_abort(struct gguf_writer *w); /* accepts NULL */
/* All copies are taken; failures are kept and reported by finish. */
void gguf_put_i64(struct gguf_writer *w, const char *key, enum gguf_kind kind, int64_t v); /* any integer kind or KV_BOOL */
void gguf_put_f32(struct gguf_writer *w, const char *key, float v);
void gguf_put_str(struct gguf_writer *w, const char *key, const char *s, size_t n);
void gguf_put_arr(struct gguf_writer *w, const char *key, enum gguf_kind elem, const void *items, uint64_t n); /* packed numbers */
void gguf_put_arr_str(struct gguf_writer *w, const char *key, const struct str *items, uint64_t n);
void gguf_put_kv(struct gguf_writer *w, const struct gguf_kv *kv);                          /* copy from a reader */
/* gguf_put_tensor - data must live until finish. */
void gguf_put_tensor(struct gguf_writer *w, const struct tensor *t);
status gguf_writer_finish(struct gguf_writer *w, struct err *e) MUST_USE; /* frees w */

/* A header without its data, for files whose tensors are written piece by piece by somebody else: collect as above (tensor data may be NULL),
 * then gguf_header_finish instead of gguf_writer_finish. `name` stands in errors. */
struct gguf_header {
    uint8_t *data;     /* [n] the first n bytes of the file, padding before the first tensor included */
    size_t n;
    size_t *offset;    /* [n_tensors] where each tensor's bytes go, from the start of the file; gaps are zeros */
    size_t size;       /* of the whole file */
};
status gguf_header_open(struct gguf_writer **out, const char *name, struct err *e) MUST_USE;
status gguf_header_finish(struct gguf_writer *w, struct gguf_header *h, struct err *e) MUST_USE; /* frees w */
void gguf_header_free(struct gguf_header *h); /* accepts a zeroed one */

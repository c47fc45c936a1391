/* checkpoint - a named list of tensors, from the files in which models are published for PyTorch: safetensors (safetensors.c) and torch.save
 * (torchfile.c), whole or in shards. Knows containers only: what a name means is the caller's business. Everything is validated at open; nothing
 * is mapped, nothing is ever executed or inflated; tensors are read in pieces.
 * Read-only and safe from several threads after open. Sources: https://github.com/huggingface/safetensors (format, README),
 * PyTorch 2 torch/serialization.py and torch/_utils.py, PKWARE APPNOTE 6.3 (zip). */
#pragma once
#include "ggml-like/arena.h"
#include "ggml-like/file.h"

enum ckpt_type { /* the order of the table in checkpoint.c; names are those of safetensors */
    CKPT_BOOL, CKPT_U8, CKPT_I8, CKPT_F8_E5M2, CKPT_F8_E4M3, CKPT_F8_E8M0, CKPT_I16, CKPT_U16, CKPT_F16, CKPT_BF16, CKPT_I32, CKPT_U32,
    CKPT_F32, CKPT_F64, CKPT_I64, CKPT_U64, CKPT_N_TYPES
};
const char *ckpt_type_name(enum ckpt_type type);                    /* "BF16", "F8_E4M3" (the "fn" kind), ... */
size_t ckpt_type_bytes(enum ckpt_type type);                        /* of one element: 1, 2, 4 or 8 */
bool ckpt_type_by_name(const char *name, enum ckpt_type *out);
bool ckpt_type_is_float(enum ckpt_type type);                       /* checkpoint_read_f32 takes it; of the others checkpoint_read_i32 */

enum { CKPT_MAX_DIMS = 6 };
struct ckpt_tensor {
    const char *name;
    enum ckpt_type type;
    int n_dims;                        /* 0: a scalar */
    int64_t shape[CKPT_MAX_DIMS];      /* outermost first, as in PyTorch; unused ones 1 */
    int64_t stride[CKPT_MAX_DIMS];     /* in elements, >= 0 */
    bool contiguous;                   /* elements stand in the file in the order of shape; always true in safetensors */
    int64_t n_elements;                /* product of shape */
    int shard;                         /* index into checkpoint.shard */
    size_t offset, bytes;              /* of the first element in the shard's file; n_elements * size of type. Tied weights share the offset */
};
struct ckpt_shard { const char *path; struct file_reader reader; const uint8_t *data; size_t size; }; /* data: of checkpoint_parse, else NULL */
struct ckpt_meta { const char *key, *value; int shard; };

struct checkpoint {
    struct ckpt_tensor *tensor; /* [n_tensors] sorted by name (strcmp) */
    int64_t n_tensors;
    struct ckpt_shard *shard;   /* [n_shards] in the order of their names */
    int n_shards;
    struct ckpt_meta *meta;     /* [n_meta] `__metadata__` of safetensors, sorted by key; of a key in several shards the first one's */
    int64_t n_meta;
    struct arena arena;         /* names and metadata */
};

/* checkpoint_open - path is a directory, one .safetensors / .bin / .pth / .pt file, or a *.index.json.
 * In a directory the first that exists is taken: model.safetensors; model.safetensors.index.json, else the only *.safetensors.index.json; all
 * *.safetensors; pytorch_model.bin; pytorch_model.bin.index.json; all pytorch_model*.bin; all consolidated*.pth; all *.pth; all *.pt.
 * What a file is, its bytes say, not its name. A torch file may hold {"state_dict" | "model_state_dict" | "model" | "module": {...}} beside other
 * things: the inner dict is taken; other nested dicts and lists are flattened to "outer.inner", what is no tensor is left out.
 * ERR_FILE, ERR_FORMAT, ERR_MEMORY. Errors name file, object, found and expected: a missing shard, a name in two shards, a tensor that the index
 * promises and the shard lacks, everything malformed; what is recognised but not read says how to convert it (old torch files, compressed zips). */
status checkpoint_open(struct checkpoint *c, const char *path, struct err *e) MUST_USE;
/* checkpoint_parse - the same over the bytes of one file, which the caller keeps alive (fuzzing, tests). name stands for the path in errors. */
status checkpoint_parse(struct checkpoint *c, const uint8_t *data, size_t size, const char *name, struct err *e) MUST_USE;
void checkpoint_close(struct checkpoint *c); /* accepts a zeroed struct */

const struct ckpt_tensor *checkpoint_find(const struct checkpoint *c, const char *name);  /* NULL if absent; O(log n) */
const char *checkpoint_meta(const struct checkpoint *c, const char *key);                 /* NULL if absent */
const char *checkpoint_path(const struct checkpoint *c, const struct ckpt_tensor *t);     /* file that holds t */

/* Rows of a tensor: its last dimension; ckpt_rows x ckpt_row_len = n_elements. A vector is one row, a scalar one row of one. */
int64_t ckpt_row_len(const struct ckpt_tensor *t);
int64_t ckpt_rows(const struct ckpt_tensor *t);

/* checkpoint_read - n elements from `first` on as they stand in the file (little-endian), contiguous tensors only.
 * checkpoint_read_rows - the same for n_rows whole rows of any tensor: views with strides (x.t()) arrive in the order of their shape. Rows of a
 * transposed view are gathered column by column: ask for 64 or more at once.
 * ERR_USAGE when outside the tensor (or not contiguous), ERR_FILE when the disk fails or the file has shrunk. Allocate nothing. */
status checkpoint_read(const struct checkpoint *c, const struct ckpt_tensor *t, int64_t first, int64_t n, void *raw, struct err *e) MUST_USE;
status checkpoint_read_rows(const struct checkpoint *c, const struct ckpt_tensor *t, int64_t row0, int64_t n_rows, void *raw, struct err *e) MUST_USE;
/* checkpoint_read_f32 - n_rows rows as f32, out [n_rows][row_len]. F32, F16, BF16, F8_* exactly, F64 rounded to nearest; ERR_FORMAT for others.
 * checkpoint_read_i32 - the same for integers and BOOL; ERR_FORMAT naming the value when one does not fit. */
status checkpoint_read_f32(const struct checkpoint *c, const struct ckpt_tensor *t, int64_t row0, int64_t n_rows, float *out, struct err *e) MUST_USE;
status checkpoint_read_i32(const struct checkpoint *c, const struct ckpt_tensor *t, int64_t row0, int64_t n_rows, int32_t *out,
                           struct err *e) MUST_USE;
/* Hints for a pass over a checkpoint larger than memory: soon needed; not needed again (frees the system's cache of these bytes). */
void checkpoint_want(const struct checkpoint *c, const struct ckpt_tensor *t);
void checkpoint_drop(const struct checkpoint *c, const struct ckpt_tensor *t);
/* checkpoint_unchanged - ERR_FORMAT when a file's size or time are no longer what they were at open. */
status checkpoint_unchanged(const struct checkpoint *c, struct err *e) MUST_USE;

/* ---- writing safetensors (safetensors.c) ----
 * Names and shapes first, then the data in any order and any pieces, then finish: the file appears complete or not at all. The layout depends on
 * names, types and shapes only and is that of the reference writer: types of the table above from last to first, then names; so every tensor is
 * aligned to its element. */
struct safetensors_writer;
status safetensors_writer_open(struct safetensors_writer **out, const char *path, struct err *e) MUST_USE;
void safetensors_writer_abort(struct safetensors_writer *w); /* accepts NULL */
/* Copies are taken; failures (a name twice, a shape that overflows) are kept and reported by begin. safetensors_add returns the tensor's number. */
void safetensors_put_meta(struct safetensors_writer *w, const char *key, const char *value);
int64_t safetensors_add(struct safetensors_writer *w, const char *name, enum ckpt_type type, int n_dims, const int64_t *shape);
status safetensors_begin(struct safetensors_writer *w, struct err *e) MUST_USE; /* lays out, writes the header */
/* safetensors_write - n bytes of tensor number `id` from its byte `at` on; every byte once. Different threads may write different pieces. */
status safetensors_write(struct safetensors_writer *w, int64_t id, size_t at, const void *p, size_t n, struct err *e) MUST_USE;
status safetensors_writer_finish(struct safetensors_writer *w, struct err *e) MUST_USE; /* refuses when bytes are missing; frees w either way */

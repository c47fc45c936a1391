/* checkpoint_int - what checkpoint.c, checkpoint_files.c, safetensors.c and torchfile.c share, and nobody else includes. */
#pragma once
#include "ggml-like/checkpoint.h"

/* The tensors of all shards while a checkpoint is being opened, unsorted. */
struct ckpt_list { struct ckpt_tensor *t; int64_t n, cap; struct ckpt_meta *meta; int64_t n_meta, cap_meta; struct arena *arena; };

/* ckpt_shard_read - n bytes of a shard; the caller has compared offset + n with its size. */
status ckpt_shard_read(const struct ckpt_shard *s, void *p, size_t n, size_t offset, struct err *e) MUST_USE;
/* ckpt_list_add - copies t and its name (name_n bytes, no NUL inside: refused). */
status ckpt_list_add(struct ckpt_list *list, const struct ckpt_shard *s, const struct ckpt_tensor *t, const char *name, size_t name_n,
                     struct err *e) MUST_USE;
status ckpt_list_add_meta(struct ckpt_list *list, int shard, const char *key, size_t key_n, const char *value, size_t value_n, struct err *e) MUST_USE;
/* ckpt_shape - checks n_dims and shape of t, fills n_elements, bytes, contiguous strides. False when a product overflows. */
bool ckpt_shape(struct ckpt_tensor *t);
const char *ckpt_shape_text(const struct ckpt_tensor *t, char buf[160]); /* "[2, 3]"; returns buf */

/* The containers: append the tensors of one shard. */
status safetensors_parse(const struct ckpt_shard *s, int shard, struct ckpt_list *list, struct err *e) MUST_USE;
status torch_parse(const struct ckpt_shard *s, int shard, struct ckpt_list *list, struct err *e) MUST_USE;

/* ---- torchfile.c: the zip around a pickle; torchpickle.c: the pickle ---- */
struct zip_entry { const char *name; size_t name_n, local, data, size; }; /* name: view into the directory; bytes [data, data + size) of the file */
struct zip { uint8_t *directory; struct zip_entry *entry; int64_t n; const char *prefix; size_t prefix_n; }; /* entry sorted by name */
/* zip_find - the entry "<prefix>/<name>"; NULL if absent. */
const struct zip_entry *zip_find(const struct zip *z, const char *name, size_t name_n);
/* pickle_tensors - runs data.pkl (n bytes) and appends the tensors it describes; their storages are entries of z. */
status pickle_tensors(const struct ckpt_shard *s, const struct zip *z, const uint8_t *data, size_t n, int shard, struct ckpt_list *list,
                      struct err *e) MUST_USE;

/* ---- checkpoint_files.c: which files a path means ---- */
struct ckpt_files { char **path; int n; struct json *weight_map; char *index; struct arena arena; }; /* sorted; index: NULL, or the file's path */
status ckpt_files_of(struct ckpt_files *f, const char *path, struct err *e) MUST_USE;
/* ckpt_files_check - every name of the index is in the shard that the index says. c is open but for this. */
status ckpt_files_check(const struct ckpt_files *f, const struct checkpoint *c, struct err *e) MUST_USE;

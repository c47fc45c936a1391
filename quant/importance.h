/* importance - statistics of the activations that meet each weight matrix (an "imatrix"): sums of squared inputs per column, per matrix of a
 * stack of experts. Reads and writes llama.cpp's two file forms. Knows ggml-like only.
 * Sums are kept in double, one addition per row in the order the rows come: x^2 is exact there, and the result does not depend on how rows
 * are split over calls, nor columns over threads. Files hold floats. */
#pragma once
#include "ggml-like/gguf.h"

struct importance_entry {
    const char *name;    /* GGUF tensor name, "blk.0.attn_q.weight" */
    int64_t n_cols, n_mat;
    double *sum2;        /* [n_mat][n_cols] sum over tokens of x^2 */
    int64_t *count;      /* [n_mat] tokens that met this matrix */
};
struct importance {
    struct importance_entry *entry; /* [n], order of the file or of the first observation */
    int64_t n;
    char **dataset;      /* names of the texts, [n_datasets] */
    int n_datasets;
    int64_t n_chunks, chunk_size; /* 0 = not known */
    bool legacy;         /* came from the .dat form: sums are means times chunks, counts are chunks, stacks are one long row (n_mat 1) */
    uint64_t hash;       /* importance_hash of what was opened: part of the fingerprint of a quantization */
    struct arena mem;
    int64_t cap;         /* internal: room in entry */
    int32_t *order;      /* internal: indices sorted by name */
};

/* importance_open - either form, recognised by its bytes. ERR_FILE, ERR_FORMAT (names entry and field, both values; NaN, Inf and negative sums are
 * refused), ERR_MEMORY. */
status importance_open(struct importance *im, const char *path, struct err *e) MUST_USE;
/* importance_parse - the same over bytes (fuzzing, tests). name stands for the path. Copies what it keeps. */
status importance_parse(struct importance *im, const uint8_t *data, size_t size, const char *name, struct err *e) MUST_USE;
void importance_init(struct importance *im);
void importance_close(struct importance *im); /* accepts a zeroed struct */
/* importance_find - valid until the next entry is made. */
const struct importance_entry *importance_find(const struct importance *im, const char *name);
/* importance_weights - out [n_cols] = sum2 / count of one matrix; all ones where count is 0 (an expert that no token met). */
void importance_weights(const struct importance_entry *en, int64_t mat, float *out);
/* importance_slice - the same for a tensor of n_mat matrices with n_cols columns each, whose entry may hold one count for all of them (the
 * legacy form, stacks that every token meets). False, out untouched, when the entry has another size. */
bool importance_slice(const struct importance_entry *en, int64_t n_cols, int64_t n_mat, int64_t mat, float *out) MUST_USE;
uint64_t importance_hash(const struct importance *im); /* of names, sums and counts, whatever the order of the entries */

/* importance_add - n rows x [n][k] that met matrix `mat` of n_mat; makes the entry when it is new. k and n_mat must stay the same per name. */
status importance_add(struct importance *im, const char *name, int64_t mat, int64_t n_mat, const float *x, int64_t n, int64_t k,
                      struct err *e) MUST_USE;
/* Its parts, for several threads: one makes the entry beforehand and raises count[mat] by n; each adds columns begin..end of the same rows. */
status importance_entry(struct importance *im, const char *name, int64_t n_mat, int64_t k, const struct importance_entry **en,
                        struct err *e) MUST_USE;
void importance_columns(const struct importance_entry *en, int64_t mat, const float *x, int64_t n, int64_t begin, int64_t end);
int64_t importance_tokens(const struct importance *im); /* most that any matrix met */
/* importance_merge - adds the sums, counts and texts of `from`; chunk_size tokens are one chunk where `from` counts in chunks (legacy). */
status importance_merge(struct importance *im, const struct importance *from, int64_t chunk_size, struct err *e) MUST_USE;
/* importance_check - ERR_RUNTIME naming entry and column of the first sum that is not finite. */
status importance_check(const struct importance *im, struct err *e) MUST_USE;
status importance_dataset(struct importance *im, const char *name, struct err *e) MUST_USE; /* appends a text's name */
/* importance_save - atomically, entries sorted by name, those that no token met left out. legacy: the .dat form, else GGUF. */
status importance_save(const struct importance *im, const char *path, bool legacy, struct err *e) MUST_USE;

/* convert_int - what convert.c, convert_config.c, convert_source.c and convert_write.c share. Nobody else includes it. */
#pragma once
#include "ggml-like/checkpoint.h"
#include "ggml-like/json.h"
#include "src/convert.h"
#include "src/convert_packed.h"
#include "src/import.h"
#include "src/model_int.h"
#include <pthread.h>

/* A key to write; the last one of a name counts. */
struct out_key {
    char *key;
    enum gguf_kind kind; /* KV_U32, KV_I32, KV_F32, KV_BOOL, KV_STR, KV_ARR of elem */
    enum gguf_kind elem; /* KV_I32, KV_F32 */
    int64_t i, n;
    double f;
    char *s;
    void *items;
    bool dropped;
};

/* Where the rows of one matrix come from: a tensor of the checkpoint, as it stands or turned, or the parts of a packed one. */
struct source {
    const struct ckpt_tensor *t;
    const struct packed *packed; /* t is packed->as */
    struct ckpt_tensor turned; /* with a name: this view, its last two dimensions swapped, is read */
};

/* One tensor of the output. */
struct out_tensor {
    struct tensor t;                  /* type and shape; name in the arena */
    const struct weight_row *row;
    const struct weight_import *own;  /* NULL: the row says everything */
    int il;
    struct source *source;            /* [n_source]: 1, or one for each expert; none for made tensors and those that are loaded */
    int64_t n_source;
    bool exact;                       /* rows are the blocks that packed_read makes of this type */
    float *made;                      /* computed data, [elements] */
    size_t offset;
};

struct import {
    const struct convert_options *o;
    const char *dir;            /* folder of the files */
    struct checkpoint ckpt;
    bool *used;                 /* [ckpt.n_tensors] */
    const struct packed **bound; /* [ckpt.n_tensors] what packed_bind made of these codes */
    pthread_mutex_t lock;       /* of used, bound and, while the file is written, the arena */
    struct arena arena;
    struct json *config, *text; /* the whole, and its text_config if there is one */
    const struct arch *arch;
    const struct packed_scheme *scheme; /* of packed matrices; NULL: none */
    int scheme_bits;
    int zero_add;
    struct out_key *key;
    int64_t n_key, cap_key;
    struct out_key lost;        /* what is put when memory is out; never written */
    struct err first;           /* what a put could not report */
    const struct model *m;      /* the model that the keys describe, once they are complete */
};

struct convert {
    struct import im;
    struct model model;         /* hyper-parameters only */
    struct gguf_header keys, header;
    struct out_tensor *tensor;
    int64_t n_tensors, cap_tensors;
    const struct dtype *type;   /* of matrices */
    const struct dtype *most;   /* of most bytes of the output */
    int64_t n_packed, n_unpacked, n_rounded; /* packed matrices; those that are written as floats; those with rounded minima */
    const char *why;            /* of the first of n_unpacked */
    const char *hf;
    char pre[40];
    char missing[512];          /* names of missing tensors, for the error */
    int64_t n_missing;
};

void import_warn(const struct import *im, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* convert_config.c */
void convert_put_keys(const struct import *im, struct gguf_writer *w);
status convert_read_config(struct import *im, const char **hf, struct err *e) MUST_USE; /* config.json -> arch */
status convert_config_keys(struct import *im, struct err *e) MUST_USE;                  /* -> keys */
/* The factors of rope_freqs, rope_factors_long or _short that the config asks for, [n] in the arena; NULL: none. */
status convert_rope_factors(struct import *im, enum weight_id id, int64_t n, float **out, struct err *e) MUST_USE;

/* convert_source.c */
/* source_find - the tensor `pattern` (alternatives, %d, %e) names; false: absent. Marks it as used. */
bool source_find(struct import *im, const char *pattern, int il, int64_t expert, struct source *s);
bool source_is_packed(const struct import *im, const char *pattern, int il);
/* import_failed - what a function without an error of its own (import_put_*, source_find) could not do. */
status import_failed(const struct import *im, struct err *e) MUST_USE;
int64_t source_rows(const struct source *s);
int64_t source_cols(const struct source *s);
void source_turn(struct source *s, int64_t *rows, int64_t *cols); /* swaps its last two dimensions */
status source_read(const struct import *im, const struct source *s, int64_t row0, int64_t n, float *out, struct err *e) MUST_USE;
/* source_read_as - rows as f32 (type NULL), or as they stand (type: theirs, or one that a packed source fits). */
status source_read_as(const struct import *im, const struct source *s, const struct dtype *type, int64_t row0, int64_t n, void *out,
                      struct err *e) MUST_USE;
bool source_is_float(const struct source *s);
status convert_plan_tensors(struct convert *c, struct err *e) MUST_USE;

/* plan_int - what the parts of a quantization share: plan.c decides, chunk.c turns a chunk of rows into bytes, pipeline.c runs all chunks on all
 * threads, journal.c remembers which are done. Internal to quant/.
 *
 * The unit of work is a chunk: whole rows of one matrix, about 1 MiB as f32, or 1 MiB of bytes of a tensor that is copied. Chunks are numbered
 * through the whole plan; a chunk's bytes depend on nothing but the plan, so order, threads and restarts cannot change the file. */
#pragma once
#include "ggml-like/kernels/kernels.h"
#include "quant/quant.h"
#include "quant/recipe.h"

enum { CHUNK_FLOATS = 1 << 18, CHUNK_BYTES = 1 << 20 };
enum {
    FLUSH_SECONDS = 10,   /* work that a power cut may cost */
    RECHECK = 16,         /* verify makes every 16th chunk again */
};

/* How one tensor is worked on; beside quant_item, which is public. */
struct item_work {
    const struct importance_entry *importance; /* or NULL */
    const struct quantizer *method;            /* NULL: copied */
    bool sound;                    /* values are checked for NaN and infinity: float sources */
    int64_t chunk_rows;            /* rows in a chunk, or bytes of a copied tensor */
    int64_t mat_chunks;            /* chunks in one matrix */
    int64_t first, n;              /* number of its first chunk, chunks */
    int source;                    /* which input file, and where in it */
    size_t source_offset;
    int file;                      /* which output file, and where in it */
    size_t offset;
    float lo, hi;                  /* range of the tensor, for methods that need it */
    const int32_t *outlier;        /* [n_outliers] columns kept apart, rising; also of the companion that stores them. Else NULL */
    int64_t part;                  /* item of <base>.outlier.weight, where there are outliers. It has no chunks of its own */
    const struct quant_scale *scale; /* or NULL */
    bool solved;                   /* its bytes came from quant_run.solve: chunk_make would make others */
};

struct quant_plan {
    struct gguf g;                 /* header and views; the weights themselves are read through source */
    struct file_reader *source;    /* [n_sources] */
    int n_sources;
    struct quant_options o;
    const struct recipe *recipe;   /* NULL for the methods that derive their format */
    struct recipe_model model;
    struct quant_item *item;       /* [n] */
    struct item_work *work;        /* [n] */
    int64_t n, n_chunks;
    size_t room_floats, room_bytes, room_source; /* largest chunk: values, bytes of the result, of the source (unless F32) */
    size_t room_apart;             /* values of outlier columns in the largest chunk */
    int64_t max_cols, max_outliers;
    struct arena mem;              /* names and columns of companions, tables of the method */
    struct gguf_header *file;      /* [n_files] */
    int n_files;
    int ftype;
    int n_threads;
    bool passing;                  /* the input is too large to stay cached: its pages are given back behind the work */
    struct kernels k;
    struct quant_kernels qk;
};

/* plan_keep_columns - finds the outlier columns of all matrices (reads them once) and inserts the companions. Between two calls of
 * plan_lay_chunks. ERR_USAGE: the threshold, nothing that could have outliers, an input that has companions already; errors of chunk_load. */
status plan_keep_columns(struct quant_plan *p, struct err *e) MUST_USE;
void plan_lay_chunks(struct quant_plan *p);
/* plan_set_held_out - the value of quantize.held_out_error in a header, if it has one. */
status plan_set_held_out(struct gguf_header *h, float error, struct err *e) MUST_USE;
const char *plan_recipe(const struct quant_plan *p); /* what the plan follows: a mix, what was asked of the allocator, or a method */

/* ---- chunk.c ---- */

/* One thread's buffers. */
struct chunk_room {
    float *x;                      /* the values of the chunk */
    uint8_t *source;               /* its bytes in the input; F32 is read into x at once */
    uint8_t *out, *check;          /* bytes made; bytes read back */
    float *w, *y;                  /* importance of a matrix, 0 for outlier columns; one row */
    float *apart, *w_apart;        /* outlier columns of the chunk [rows][n_outliers]; their importance */
    void *scratch;
    const struct importance_entry *w_of; /* what w holds */
    int64_t w_mat;
    void *block;
    size_t bytes;
};
size_t chunk_room_bytes(const struct quant_plan *p);
status chunk_room_init(struct chunk_room *r, const struct quant_plan *p, struct err *e) MUST_USE;
void chunk_room_free(struct chunk_room *r); /* accepts a zeroed one */

struct chunk {
    int64_t item, mat, row, n_rows; /* copied tensors: row = first byte, n_rows = bytes */
    size_t source_bytes, source_offset;
    size_t bytes, offset;           /* of the result, in its file */
    size_t part_bytes, part_offset; /* outlier columns: behind `bytes` in memory, in item work.part of the output */
};
void chunk_at(const struct quant_plan *p, int64_t c, struct chunk *out);
/* chunk_load - reads the source and makes values in room->x; ERR_FORMAT names tensor, row and column of the first value that is not finite or would
 * not be in the new format. Copied
 * tensors: bytes in room->source, and the check. ERR_FILE. */
status chunk_load(const struct quant_plan *p, const struct chunk *c, struct chunk_room *room, struct err *e) MUST_USE;
/* chunk_make - after chunk_load: the bytes + part_bytes of the result, in the room. */
const uint8_t *chunk_make(const struct quant_plan *p, const struct chunk *c, struct chunk_room *room);
/* chunk_check - the bytes of chunk_make; ERR_FORMAT names the first block whose scale is not finite (methods that may_overflow). */
status chunk_check(const struct quant_plan *p, const struct chunk *c, const uint8_t *bytes, struct err *e) MUST_USE;
/* chunk_stats - after chunk_load: errors of `bytes` against the values, of all rows or of the first sixteenth. */
void chunk_stats(const struct quant_plan *p, const struct chunk *c, struct chunk_room *room, const uint8_t *bytes, bool all, struct quant_stats *s);
void chunk_range(const struct quant_plan *p, const struct chunk *c, const struct chunk_room *room, float *lo, float *hi);
uint64_t chunk_hash(const void *p, size_t n); /* never 0 */

/* ---- journal.c ---- */

/* "<out>.part.journal": what the job is, then one word per chunk, 0 or the hash of its bytes. A word is written after the bytes it stands for,
 * and a resume believes it only if the bytes in the part still have this hash: so neither a kill nor a power cut can slip in wrong data. */
enum { JOB_LINES = 6, JOB_TEXT = 512 /* more than any options take: what does not fit would not be compared */ };
struct job { const char *what[JOB_LINES]; char text[JOB_LINES][JOB_TEXT]; int n; };
struct journal {
    int fd;
    char *path;
    uint64_t *done;    /* [n] as found on opening */
    int64_t n;
    bool committing;   /* all chunks were done and files were being renamed */
};
void job_of(const struct quant_plan *p, struct job *j);
/* journal_open - fresh: starts anew. Else reads what is there: ERR_USAGE names the first thing in which the job differs. ERR_RUNTIME when
 * another process has it. */
status journal_open(struct journal *jr, const char *out, const struct job *j, int64_t n, bool fresh, struct err *e) MUST_USE;
status journal_mark(struct journal *jr, int64_t c, uint64_t hash, struct err *e) MUST_USE; /* any thread */
/* journal_note, journal_noted - a record for each item behind the words, with a hash of its own: a torn one is none. */
status journal_note(struct journal *jr, int64_t item, const struct solved *s, struct err *e) MUST_USE;
bool journal_noted(const struct journal *jr, int64_t item, struct solved *s);
status journal_commit(struct journal *jr, struct err *e) MUST_USE;
status journal_flush(struct journal *jr, struct err *e) MUST_USE;
void journal_close(struct journal *jr, bool remove_it); /* accepts a zeroed one with fd -1 */
bool journal_name(const char *out, char *path, size_t cap);

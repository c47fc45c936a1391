/* quant - the public side of quantization: a plan (which tensor gets which format, and what it costs), and one call that streams a GGUF file into
 * another. Resumable, byte-identical for every number of threads and ISA level, never leaves half a file under the final name.
 * Knows ggml-like only: no model, no tokens. Nothing is printed: progress and notes go through callbacks. */
#pragma once
#include "ggml-like/cpu.h"
#include "ggml-like/gguf.h"
#include "quant/importance.h"
#include "quant/quantizer.h"
#include "quant/stats.h"
#include "quant/techniques.h"

/* Rows and columns of a tensor times these before anything else looks at them: transforms that another tensor undoes (src/fold.h). */
struct quant_scale {
    const char *name;              /* of the tensor */
    const float *row, *column;     /* [rows, of all matrices of a stack], [columns]; NULL: 1 */
};

/* What is added to the values of some tensors before they are made: adapters that are merged. Threads call add at once. Such a tensor is made anew even
 * where its format stays, and whatever the mix says of its kind. */
struct quant_delta {
    const bool *has;               /* [tensors of the input] */
    void (*add)(void *ctx, int64_t tensor, float *x, int64_t row, int64_t n); /* to x: n rows from `row` of all matrices of a stack */
    void *ctx;
    const char *what;              /* for the metadata (merge.adapters), and so for what a part on the disk is compared with */
};

/* Strings and arrays must stay until quant_plan_close. */
struct quant_options {
    const char *type;              /* a mix ("Q4_K_M") or a format ("Q6_K"); NULL with a method that chooses the format */
    struct quant_spec spec;        /* method NULL = search */
    const struct importance *importance; /* or NULL */
    const char *importance_name;   /* path, for the metadata */
    const struct quant_delta *delta; /* or NULL */
    const int *chosen;             /* in place of type: the GGUF id for each tensor of the input (-1: as it is), or NULL. Rules and the two types below
                                    * come before it */
    const char *recipe, *measurement; /* with it, for the metadata: what was asked for; what the choice rests on (or NULL) */
    const char *const *rules; int n_rules;  /* "REGEX=TYPE" (POSIX extended, matched anywhere in the tensor name), first match wins; TYPE may be "keep" */
    const char *output_type, *embd_type;    /* head and token embeddings, NULL = the mix decides; "keep" = as in the input */
    bool pure;                     /* one format for all: no mix */
    bool allow_requantize;         /* inputs that are quantized already */
    bool keep_outliers;            /* LLM.int8(): input columns of outliers stay F16 beside the matrix */
    float outlier_threshold;       /* times the middle column's largest weight, or its root of importance; > 1 */
    int64_t split_bytes;           /* > 0: output files of at most about this size, -00001-of-0000N */
    int n_threads;                 /* 0 = default of the CPU */
    const char *isa;               /* as in engine_options */
    const char *calibration;       /* of what text the importance is, when it was made for this: for the metadata; or NULL */
    const char *solver;            /* what makes tensors in quant_run.solve, for metadata and the fingerprint of a resume; NULL: nothing does */
    bool folded;                   /* quant_plan_set_scales will come: for metadata (their number) and the fingerprint of a resume */
    bool sizes_only;               /* formats that need importance are not refused without it; quant_file does */
    const char *program;           /* "cuanto 1.2", for the metadata and the fingerprint of a resume; may be NULL */
};

/* What a solver says of a tensor that it made: the error on what it solved for after each of its stages, and the error on data that it did not see, of the
 * search and of what was taken. In units of its own, the same within a tensor. */
enum { SOLVED_STAGES = 4 };
struct solved { double stage[SOLVED_STAGES], held_out[2]; };

/* One tensor of the plan. */
struct quant_item {
    const struct tensor *src;      /* of the input file */
    const struct dtype *to;
    int64_t rows, cols, n_mat;     /* rows of one matrix; matrices of a stack */
    size_t bytes_from, bytes_to;
    bool kept;                     /* bytes are copied */
    bool added;                    /* not of the input: holds outlier columns of the matrix before it. src then has no data */
    int64_t n_outliers;            /* columns that stay F16, in companions <base>.outlier.weight and .index */
    bool asked;                    /* a rule or an option of the caller chose the format, not the mix or the method */
    bool fallback;                 /* not the format that was meant for it: the rows do not fit */
    bool has_importance;
    char why[96];                  /* "mix", "rule 1: attn_v=q6_k", "kept: 1-D", "Q5_0 instead of Q4_K: rows of 896 are no multiple of 256" */
    struct quant_stats stats;      /* filled by the run; of a sample of rows unless full_stats. Kept tensors: zeros */
    double seconds;                /* of all threads together */
    struct solved solved;          /* zeros: no solver made it */
};
struct quant_plan;
struct quant_totals {
    size_t bytes_from, bytes_to;   /* whole files */
    uint64_t n_params;
    double bpw_from, bpw_to;       /* of the tensors */
    size_t ram;                    /* peak resident bytes of the run, predicted */
    double seconds;                /* predicted, from a short measurement on this CPU and these disks; < 0 when not measured */
    int n_fallback, n_without_importance;
    int64_t n_outliers;            /* columns, of n_outlier_matrices */
    int n_outlier_matrices;
    int n_files;                   /* of the output */
    int n_threads;
    const char *isa;
    int ftype;
};
/* quant_plan_open - reads the input's header, decides every tensor. ERR_USAGE names unknown types, rules that match nothing, formats that need
 * importance (by name and what to run), inputs that are quantized already. */
status quant_plan_open(struct quant_plan **out, const char *in, const struct quant_options *o, struct err *e) MUST_USE;
void quant_plan_close(struct quant_plan *p); /* accepts NULL */
int64_t quant_plan_n(const struct quant_plan *p);
struct quant_item *quant_plan_item(struct quant_plan *p, int64_t i);
const struct gguf *quant_plan_gguf(const struct quant_plan *p);
const struct quant_options *quant_plan_options(const struct quant_plan *p);
/* quant_plan_check - what quant_file will demand: ERR_USAGE naming the first tensor whose format must not be made without importance. */
status quant_plan_check(const struct quant_plan *p, struct err *e) MUST_USE;
/* quant_plan_set_scales - before quant_file, which must stay the same for a resume: importance is of the scaled columns. s lives as long as the plan. ERR_USAGE
 * for tensors that the plan has not, or keeps in another format than F32.
 * quant_plan_scale - x, rows row .. row + n - 1 of item i as the source has them, becomes what the plan quantizes. */
status quant_plan_set_scales(struct quant_plan *p, const struct quant_scale *s, int n, struct err *e) MUST_USE;
void quant_plan_scale(const struct quant_plan *p, int64_t i, float *x, int64_t row, int64_t n);
size_t quant_plan_part_bytes(const struct quant_plan *p, int64_t i); /* of the output file that item i goes to */

/* quant_plan_sample - the errors of one chunk of every tensor into item->stats: for a look before the work. Errors of reading, damaged weights. */
status quant_plan_sample(struct quant_plan *p, struct err *e) MUST_USE;

struct quant_progress {
    int64_t i, n;                  /* tensor now, tensors */
    const struct quant_item *item;
    size_t bytes_done, bytes_total; /* of the input */
    size_t bytes_found;            /* of bytes_done: written by an earlier run, only checked by this one */
    size_t bytes_before;           /* what a resume found to be done when it began */
    double rel_error;              /* of the finished tensors: weighted relative error, tensors weighted by their sizes */
    bool finished;                 /* this item just ended: item->stats is there */
    bool verifying;                /* the second pass of verify */
};
struct quant_output;
struct quant_run {
    bool resume;                   /* continue OUT.part when its fingerprint fits; starts anew when there is none */
    bool full_stats;               /* error of every row, not of a sample of them */
    bool verify;                   /* read the result back: compare bytes and recompute the errors; ERR_VERIFY */
    bool overwrite;                /* an existing OUT, or the OUT.part of another run, may be replaced */
    bool (*progress)(void *ctx, const struct quant_progress *p); /* false stops: ERR_INTERRUPTED, resumable. Calling thread. May be NULL */
    void *ctx;
    /* NULL, or makes some tensors before the others are made: a solver that sees how the model uses them. Calling thread; an error ends the run, and
     * what was put stays for a resume */
    status (*solve)(void *solve_ctx, struct quant_output *out, struct err *e);
    void *solve_ctx;
};
/* quant_output_get - the bytes [bytes_to] of item i, if an earlier run put them; *have false: it did not, or they are damaged. Items that were got or put
 * are not made again. quant_output_put - they are on disk when it returns; s (or NULL): what to remember of the item, in quant_item.solved, too; comes
 * back with quant_output_get. For items that are neither kept nor have outliers. Within solve only. */
status quant_output_get(struct quant_output *o, int64_t i, void *bytes, bool *have, struct err *e) MUST_USE;
status quant_output_put(struct quant_output *o, int64_t i, const void *bytes, const struct solved *s, struct err *e) MUST_USE;
/* quant_output_make - the bytes [bytes_to] that item i gets when nobody puts any, by the threads of `p`. For such items too. */
struct pool;
status quant_output_make(struct quant_output *o, int64_t i, void *bytes, struct pool *p, struct err *e) MUST_USE;
/* quant_held_out - of the items that a solver made: error on held-out data over the search's, each tensor counting once. 0: there are none. The file has it
 * as quantize.held_out_error. */
double quant_held_out(const struct quant_plan *p);
/* quant_plan_totals - for_run, unless NULL: also predicts the time, by quantizing a few rows of each format (about a second) and writing some MiB
 * to an unnamed file where `out` will be. */
void quant_plan_totals(struct quant_plan *p, const struct quant_run *for_run, const char *out, struct quant_totals *t);
/* quant_file - writes `out`. On failure OUT.part and OUT.part.journal stay for a resume; out itself is untouched.
 * ERR_USAGE: out is the input, exists, or has a part of another job (what differs is named); ERR_FORMAT: NaN or infinity, with tensor, row
 * and column; ERR_RUNTIME: disk. */
status quant_file(struct quant_plan *p, const char *out, const struct quant_run *r, struct err *e) MUST_USE;
/* quant_out_check - what quant_file would refuse about names, before any work: the input itself, an existing output, parts of an earlier run. Whether
 * that run was of the same job is only seen by quant_file. */
status quant_out_check(const struct quant_plan *p, const char *out, const struct quant_run *r, struct err *e) MUST_USE;
/* quant_out_name - path of output file i of n: `out` itself, or with -00001-of-0000N. False when cap is too small. */
bool quant_out_name(const struct quant_plan *p, const char *out, int i, char *path, size_t cap) MUST_USE;
/* quant_resumable - a part and a journal of an unfinished run stand beside out. */
bool quant_resumable(const struct quant_plan *p, const char *out);

/* ---- recipes: which tensor gets which format (recipe.c) ---- */
struct recipe { const char *name, *brief; int base /* GGUF id */; int ftype; bool needs_importance; };
extern const struct recipe recipes[];
extern const int recipe_count;
/* recipe_of_file - the mix that general.file_type names. NULL: none, unknown, guessed by whoever wrote the file, or its weights say otherwise (less than a
 * quarter of what is neither embeddings nor head has the mix's base format or the one that takes its place for short rows). */
const struct recipe *recipe_of_file(const struct gguf *g);
/* recipe_needs_importance - a format that must not be made of this tensor without importance. r: a mix, or NULL. */
bool recipe_needs_importance(const struct recipe *r, const char *tensor, int id);
const struct recipe *recipe_by_name(const char *name); /* without case; aliases of llama-quantize too (Q4_K = Q4_K_M) */

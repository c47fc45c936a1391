/* layers - a model run one layer at a time over hidden states that the caller keeps: sequential calibration, later gradient checkpoints. The rows are
 * those of a set of windows, each a sequence of its own from position 0; rows are numbered through all windows. KV caches and recurrent states live
 * for one pass, except caches that later layers read. Weights can be replaced between calls.
 * Each window gets the bits that a session of an engine with the same n_batch gives it, fed alone in passes of engine_pass_rows rows, whatever the
 * number of threads and however the windows are spread over calls. One caller at a time. */
#pragma once
#include "src/engine.h"

struct layers;

struct layers_options {
    int n_threads;               /* 0 = cpu_info.n_threads_default */
    int64_t n_batch;             /* rows of one pass at most; 0 = 512 */
    const char *isa;             /* as engine_options */
    bool precise;                /* as engine_options */
    const struct dtype *state;   /* of the caller's hidden states: F32 (NULL) or BF16, which halves them and rounds them at every border */
    const struct dtype *kv_type; /* as session_options: F16 (NULL), ... */
};
/* layers_open - for a model that stays open. Scratch is taken as layers need it. */
status layers_open(struct layers **out, const struct model *m, const struct layers_options *o, struct err *e) MUST_USE;
void layers_close(struct layers *l); /* accepts NULL */
struct pool *layers_pool(struct layers *l);
const struct kernels *layers_kernels(const struct layers *l);
/* layers_bytes - memory held: scratch of threads and of one pass, states of a pass (as many positions as it has rows, or as the longest window has), the
 * caches that later layers read; without the model and the caller's states. */
size_t layers_bytes(const struct layers *l);

/* layers_windows - the set: n windows of len[i] >= 1 tokens, one behind the other in `tokens` (all copied); replaces an earlier set. ERR_USAGE for ids
 * out of range, an empty window, more than 2^31 - 1 rows. */
status layers_windows(struct layers *l, const int32_t *tokens, const int64_t *len, int64_t n, struct err *e) MUST_USE;
/* layers_windows_of - the set of another one of the same model. */
status layers_windows_of(struct layers *l, const struct layers *from, struct err *e) MUST_USE;
int64_t layers_n_windows(const struct layers *l);
int64_t layers_row(const struct layers *l, int64_t window); /* its first row; of window n: the number of rows */
int64_t layers_position(const struct layers *l, int64_t row); /* in its window */

/* What is computed. Layers are numbered 0 .. n_layer - 1; LAYERS_EMBED is what comes before them, n_layer the norm and the matrix behind them. */
enum { LAYERS_EMBED = -1 };
struct layers_run {
    int il;
    int64_t first, n;        /* windows */
    const void *x;           /* their rows in options.state [rows][n_embd]; of no meaning for LAYERS_EMBED */
    void *y;                 /* the same behind the layer, may be x; NULL: nothing but what `show` needs is computed */
    const char *const *show; /* [n_show] GGUF names of weights whose inputs are shown; NULL: of all */
    int n_show;
    observe_fn observe;      /* NULL: nothing is shown. shown.first counts rows of the set, not of `first` */
    void *observe_ctx;
};
/* layers_run - layer `il` over windows first .. first + n - 1. Layer n_layer has no y (layers_score, layers_logits). ERR_USAGE, before anything changes,
 * for numbers out of range, a weight of `show` that this part of the model does not multiply by, a layer that reads the cache of an earlier
 * one which has not passed all these windows to the end since layers_windows. */
status layers_run(struct layers *l, const struct layers_run *r, struct err *e) MUST_USE;

/* layers_matmuls - the weights that part `il` multiplies by, in order of execution: at most cap are written, *n is their number. Weights of one group
 * read the same input; of a stack each expert those rows of it that chose it, each head its own columns. */
enum layers_sum { LAYERS_SUM_NONE, LAYERS_SUM_IN /* its product is added to the layer's input */, LAYERS_SUM_OUT /* the layer's output is a sum with it */ };
struct layers_matmul {
    const struct tensor *w; /* as it is now: name, type, shape */
    int group;              /* 0, 1, ... */
    enum layers_sum sum;    /* as it is, but for a bias */
};
status layers_matmuls(struct layers *l, int il, struct layers_matmul *out, int cap, int *n, struct err *e) MUST_USE;

/* layers_replace - from now on weight `name` (GGUF) has these bytes (`bytes` of them, of the caller, until replaced again or layers_close) in this type; its
 * shape stays: of a stack all matrices. Where the output matrix is the embedding, both are replaced. type NULL: what the model file has. Outlier
 * columns beside it stay. ERR_USAGE when it is not bound, the type does not fit or cannot be multiplied by, or the size is another (both values). Vectors
 * stay F32.
 * layers_weight - as it is now; NULL when no weight of that name is bound. */
status layers_replace(struct layers *l, const char *name, const struct dtype *type, const void *data, size_t bytes, struct err *e) MUST_USE;
const struct tensor *layers_weight(const struct layers *l, const char *name);

/* layers_score - of the rows x (behind the last layer) of windows first .. first + n - 1: nll[i] = -ln softmax(logits)[target[i]], 0 where target[i] < 0;
 * for every model (engine_can_score or not).
 * layers_logits - of the rows x of one window, from row `from` on: fn on pool threads as in engine_forward, seg = 0, row = row in the window. */
status layers_score(struct layers *l, int64_t first, int64_t n, const void *x, const int32_t *target, double *nll, struct err *e) MUST_USE;
status layers_logits(struct layers *l, int64_t window, const void *x, int64_t from, logits_fn fn, void *ctx, struct err *e) MUST_USE;

/* plan - a flat list of ops over values, recorded by an architecture's equations and then run as often as its shape fits.
 * No graph walk and no optimiser: plan_finish lays the values out in one scratch block (a value's bytes are reused after its last reader) and marks
 * which ops must wait for the ones before them. Everything that can fail fails while building; plan_run cannot fail and allocates nothing.
 * Knows tensors, kernels and the pool; knows no model, no tokens' meaning, no sessions: those come as a struct batch. */
#pragma once
#include "ggml-like/observe.h"
#include "ggml-like/pool.h"

struct kernels;

typedef int32_t val; /* index into plan.val */
enum { VAL_NONE = -1, OP_SRC = 6 };

enum op_kind {
    OP_EMBED, OP_ROWS, OP_RMS_NORM, OP_ADD, OP_BIAS, OP_SCALE, OP_SOFTCAP, OP_SILU_MUL, OP_GELU_MUL,
    OP_QUANT, OP_MATMUL, OP_ROPE_TABLE, OP_ROPE, OP_KV_STORE, OP_ATTN, OP_COLS,
    OP_SLICE, OP_JOIN, OP_LAYER_NORM, OP_MUL, OP_MUL_VECTOR, OP_CLAMP, OP_GATE, OP_ACT, OP_ADD_POSITION, OP_ROW_FACTOR,
    OP_ROUTE, OP_MOE_SORT, OP_MOE_QUANT, OP_MOE_MATMUL, OP_MOE_BIAS, OP_MOE_SUM,
    OP_CONV, OP_L2_NORM, OP_DELTA_RULE, OP_HEAD_QUANT, OP_HEAD_MATMUL, OP_MOE_SCALE, OP_SCALE_RUNS,
    OP_SCORE, OP_SCORE_SUM, OP_SHOW, OP_DROPOUT,
    OP_NORM_GRAD, OP_ACT_GRAD, OP_GATE_GRAD, OP_ROWS_GRAD, OP_COLS_GRAD, OP_SLICE_GRAD, OP_SUM_RUNS, OP_SUM_ROWS, OP_SCATTER,
    OP_MATMUL_T, OP_OUTER, OP_ATTN_PACK, OP_ATTN_WHOLE, OP_ATTN_GRAD, OP_SCORE_GRAD, OP_SCORE_TARGETS,
    OP_ROUTE_GRAD, OP_MOE_SPREAD, OP_MOE_WEIGHT_GRAD, OP_MOE_MATMUL_T, OP_MOE_OUTER,
    OP_CONV_GRAD, OP_CONV_OUTER, OP_HEAD_MATMUL_T, OP_HEAD_OUTER, OP_DELTA_GRAD, OP_KINDS
};

/* Angles of one rope variant: theta(pos, i) = pos * base^(-2i/n_rot) * freq_scale / factor[i], cos and sin times `mscale`;
 * yarn_ext > 0 blends towards unscaled angles for fast dimensions. Sources: RoFormer; YaRN (Peng et al. 2023), section 3; Llama 3.1 rope_freqs. */
struct rope_spec {
    int32_t n_rot;
    float base, freq_scale, mscale;
    float yarn_ext, yarn_low, yarn_high; /* blend weight; first and last dimension of the ramp */
    const float *factor;                 /* [n_rot / 2] or NULL */
};

/* y = act(x). CLAMPED_SWISH is the gate of gpt-oss: x * sigmoid(1.702 x) with x <= limit (and the other factor in -limit..limit, plus 1). */
enum act { ACT_SILU, ACT_GELU_TANH, ACT_GELU_ERF, ACT_RELU, ACT_RELU_SQUARED, ACT_SIGMOID, ACT_TANH, ACT_SOFTPLUS, ACT_CLAMPED_SWISH, ACT_XIELU, ACT_KINDS };

/* What OP_ACT_GRAD knows besides: the derivatives of other bends by the same op. CLAMPED_UP: clamped swish by its second factor. */
enum bend { BEND_SOFTCAP = ACT_KINDS, BEND_CLAMP, BEND_CLAMPED_UP, BEND_KINDS };
enum norm_form { NORM_RMS, NORM_LAYER, NORM_L2 };

/* How a router's logits become n_used experts and their weights, for each row:
 *   p = softmax / sigmoid of the logits (+ bias, which counts for the choice only); groups of n_expert / n_group experts are ranked by the sum of
 *   their two best (n_group_used > 0: only these groups stay; best_one: ranked by their best); the n_used best are taken, lowest id on a tie;
 *   ROUTE_SOFTMAX_CHOSEN takes the softmax over the chosen logits; then normalised to sum 1 (norm), then times scale (0 = 1).
 *   ROUTE_SPARSE_MIXER takes the best by logit, then the best of the others; the weight is its share of a softmax over the logits near it, those not
 *   chosen before, for which (best - logit) / max(|logit|, best) is at most 2 %.
 * Sources: Mixtral (Jiang et al. 2024); DeepSeek-V2, V3 (2024), section 2.1.2; gpt-oss model card (2025); GRIN (Liu et al. 2024). */
enum route_func {
    ROUTE_SOFTMAX = 1, ROUTE_SIGMOID = 2, ROUTE_SOFTMAX_CHOSEN = 3, /* as <arch>.expert_gating_func */
    ROUTE_SPARSE_MIXER = 100,
};
struct route_spec {
    int32_t n_expert, n_used, n_group, n_group_used;
    enum route_func func;
    bool norm, best_one;
    float scale;
};

union op_arg {
    struct { float eps; int64_t dim; enum norm_form form; } norm; /* dim = length of a normalised run (row or head); form: OP_NORM_GRAD */
    struct { float s; } scale;                              /* factor, or cap */
    struct { struct rope_spec spec; } table;                /* unless its source has them: turned back */
    struct { int32_t head_dim, n_rot, first; bool neox; } rope; /* dims first .. first + n_rot of each head turn */
    struct { int32_t il; } store;
    struct { int32_t il, n_head, n_head_kv, head_dim, head_dim_v; int64_t window; float scale, cap, alibi; } attn; /* window 0 = none */
    struct { int64_t width, first, n; } slice;              /* of runs of `width` columns, n from `first` on */
    struct { int64_t a, b; } join;                          /* lengths of the runs that alternate */
    struct { float lo, hi; } clamp;
    struct { enum act act; float limit, param[4]; } act;    /* OP_ACT_GRAD: enum bend too */
    struct route_spec route;
    struct { int32_t n_expert, n_used; } moe;
    struct { bool plain; } pairs;                           /* without the weights of the choice */
    struct { float scale, floor; } factor;
    struct { int64_t n_vocab; float scale, cap; int64_t first, n; bool floats, keep; } score; /* scale, cap: of logits, 0 = none; a part of the vocabulary */
    struct { int32_t n_head, form; } head;                  /* form: enum act_form (kernels.h) */
    struct { int32_t form; } acts;
    struct { float rate; uint32_t draw; } dropout;
    struct { int64_t len; } sum;                            /* columns that share one sum */
    struct { bool position; } scatter;                      /* by batch->pos, else by batch->token */
    struct { int64_t first, n; bool add; } part;            /* rows of the matrix; added to what dst holds */
    struct { int32_t il, kind; } state;
    struct { int32_t il, n_k_head, n_v_head, k_dim, v_dim; bool tiled, plain; } delta;
};

struct op {
    enum op_kind kind;
    val dst, src[OP_SRC];
    bool wait;             /* all threads meet before this op */
    bool solo;             /* thread 0 does it alone: too small to be worth meeting for */
    bool live;             /* plan_prune: stays */
    union op_arg arg;
};

struct value {
    struct tensor t;       /* weights: data set; temporaries: data NULL, see offset */
    size_t bytes, offset;  /* temporaries: place in the scratch block */
    int64_t per_row;       /* rows of this value for each row of the pass: 1, or the experts that a row uses */
    int32_t last;          /* index of the last op that reads or writes it */
    bool temp, keep;       /* keep: not reused before the next plan_reset (results) */
    bool live;             /* plan_prune: somebody needs it */
    bool held;             /* lives across the split: offset counts from plan_exec.held */
    bool rough;            /* a matrix of a low-rank part of one that reads 8 bits of its input */
    bool sorted;           /* rows stand in the order of a route: by expert */
    val quant[4];          /* the forms of this value that matmuls read, by enum act_form (kernels.h), once some matmul asked for them */
    val extra;             /* weights: the first of the matrices [rows][n] whose products op_matmul adds; an extra's extra is the next one */
    val index, down;       /* extras: what is multiplied: the n columns `index` (I32) of the input, or scale * (down [n][columns] times the input) */
    float scale;
};

struct plan {
    struct op *op;
    struct value *val;
    int32_t n_op, n_val, cap_op, cap_val;
    const struct kernels *k;
    size_t bytes;          /* scratch block, set by plan_finish */
    int32_t split;         /* ops of the forward pass, behind which plan_backward (grad.h) recorded others; 0: nothing was */
    size_t held_bytes;     /* what the ops behind the split read of those before it, set by plan_finish */
    int64_t n_rows, n_out; /* rows of the pass; rows that continue behind the last attention */
    int64_t max_rows;      /* of all passes that share the scratch block */
    bool precise;          /* matmuls of several rows read 15 bits of the activations, like those of one row, instead of 8 */
    bool single;           /* each row is computed as in a pass of its own, to the same bits: weight rows are read once, activations one by one */
    float dropout;         /* of what low-rank parts of a matmul read, for training; 0: none */
    uint32_t draws;        /* numbers the masks of dropout; plan_reset leaves it alone */
    size_t score_room;     /* bytes that a score may keep for its gradient, which otherwise computes them once more */
    bool observe;          /* matmuls keep their float input alive for the observer; weights without a name are not shown */
};

void plan_init(struct plan *p, const struct kernels *k);
void plan_free(struct plan *p);
/* plan_reset - forgets ops and values, keeps their memory. Temporaries of several rows get room for max_rows: so the scratch block has one
 * size for all passes that record the same ops, whatever their number of rows. */
void plan_reset(struct plan *p, int64_t n_rows, int64_t n_out, int64_t max_rows);
/* plan_room - rows for which a temporary of ne1 rows gets bytes: max_rows for two or more. */
int64_t plan_room(const struct plan *p, int64_t ne1);
/* plan_reserve - room for n more ops and values, so that recording cannot fail. PLAN_CHUNK is enough for a layer; rebuilding a plan of the same
 * equations never allocates. */
enum { PLAN_CHUNK = 256 };
status plan_reserve(struct plan *p, int32_t n, struct err *e) MUST_USE;
/* plan_weight / plan_temp / plan_input - new values. An input's bytes are the caller's: bound with plan_bind before running. */
val plan_weight(struct plan *p, const struct tensor *t);
/* plan_extra - w, whose columns `index` are zero, is completed by them. plan_low_rank - w x + scale * up (down x). See value.extra. */
void plan_extra(struct plan *p, val w, const struct tensor *extra, const struct tensor *index);
void plan_low_rank(struct plan *p, val w, const struct tensor *up, const struct tensor *down, float scale);
val plan_temp(struct plan *p, int64_t ne0, int64_t ne1);        /* f32 [ne1][ne0] */
val plan_temp_rows(struct plan *p, int64_t ne0, int64_t rows, int64_t per_row); /* f32 [rows * per_row][ne0] */
val plan_temp_bytes(struct plan *p, size_t bytes);              /* opaque */
val plan_input(struct plan *p, int64_t ne0, int64_t ne1);       /* f32 [ne1][ne0] */
void plan_bind(struct plan *p, val v, float *data);
void plan_keep(struct plan *p, val v);
/* plan_output - the bytes of this result are the caller's, too. Before plan_finish. */
void plan_output(struct plan *p, val v);
struct op *plan_op(struct plan *p, enum op_kind kind, val dst, val a, val b, val c); /* VAL_NONE for absent operands */
/* plan_relink - value.last once more, after ops were moved. */
void plan_relink(struct plan *p);
/* plan_prune - before plan_finish, before or behind plan_backward: drops what neither a kept value, nor a place outside that an op adds to, nor an
 * observer needs. Matmuls that an observer is shown (of a plan with `observe`: whose weights have a name) stay; where nobody reads the product, only
 * their input is computed and shown (OP_SHOW). */
void plan_prune(struct plan *p);
status plan_finish(struct plan *p, struct err *e) MUST_USE;

/* What one pass works on. Rows of all segments are concatenated. */
struct layer_state;        /* ops.h */
struct batch_segment { int64_t row, n, pos; struct layer_state *state; }; /* first row, rows, position of the first row; state [n_layer] */
struct batch {
    int64_t n_rows, n_out;
    const int32_t *token;  /* [n_rows] */
    const int32_t *pos;    /* [n_rows] */
    const int32_t *out;    /* [n_out] rows that give results, rising */
    const int32_t *target; /* [n_rows] what OP_SCORE looks for */
    const float *weight;   /* backward passes: [rows of OP_SCORE] the loss is the sum of weight[i] * score[i] */
    uint64_t draw;         /* what the masks of dropout follow from; 0: nothing is left out */
    const struct batch_segment *seg;
    int n_seg;
};

/* Where a thread stands in its own part of the work of an op: op number + 1 in the upper half, next item in the lower. Whoever has finished helps
 * the others from there. `last`, the end of the part, is for the thread itself, others work it out. A line of its own for each thread, whatever the
 * alignment of the array. */
struct plan_share { _Atomic uint64_t at; int64_t last; uint8_t apart[112]; };

struct plan_exec {
    const struct plan *plan;
    struct pool *pool;
    const struct batch *batch;
    uint8_t *base;         /* scratch block, plan->bytes, 64-byte aligned */
    uint8_t *held;         /* plan->held_bytes, 64-byte aligned, when the plan has a split: a layer is run up to the split, and later, with the same block,
                            * from there on; or all of it once more */
    int32_t first_op, end_op; /* what is run; end_op 0: up to the end */
    uint8_t *thread_base;  /* [n_threads][thread_bytes] */
    size_t thread_bytes;
    struct plan_share *share; /* [n_threads] */
    observe_fn observe;
    void *observe_ctx;
    int64_t first_row;     /* shown.first */
    int64_t *op_ns;        /* [OP_KINDS] time by kind is added here, or NULL */
};
/* plan_run - runs all ops on the pool. The same bits for any number of threads. */
void plan_run(const struct plan_exec *x);
/* plan_data - where a value lies in this run. */
void *plan_data(const struct plan_exec *x, val v);
/* plan_thread_bytes - scratch each thread needs for ops with heads of up to these sizes. */
size_t plan_thread_bytes(int64_t head_dim_max);
/* plan_grad_bytes - the same where there are the ops of a backward pass. */
size_t plan_grad_bytes(int64_t head_dim_max);
size_t plan_panel_bytes(void); /* of it, what op_panel_matmul uses: the beginning */
const char *op_name(enum op_kind kind);

/* For op implementations: one thread's view of a running plan. */
struct op_run {
    const struct plan_exec *x;
    const struct kernels *k;
    int ith, nth;
    int32_t index;         /* of the op */
    void *scratch;         /* this thread's, 64-byte aligned */
};
void *op_data(const struct op_run *r, val v);
/* op_take - next chunk of [0, n), at most `chunk` items, n < 2^31: false when all work is taken. Each thread first takes its own contiguous part: a core
 * then reads one stream of weights, and in each pass the same one (two threads on one counter: 0.72 to 0.83 of the speed of decoding). A thread that has
 * finished takes from the parts of the others: chunks do not come in rising order. One loop of op_take for each op, always with the same n and chunk. */
bool op_take(const struct op_run *r, int64_t n, int64_t chunk, int64_t *begin, int64_t *end);

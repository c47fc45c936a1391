/* engine - threads, kernels, plan and scratch for one model; session - one timeline (KV cache and position) on an engine.
 * One forward pass takes segments of one or more sessions: prefill, decode, parallel chats and perplexity windows are all segments.
 * One caller at a time per engine. Output is identical for every thread count. */
#pragma once
#include "ggml-like/observe.h"
#include "src/lora.h"
#include "src/model.h"

struct engine;
struct session;
struct kernels;
struct pool;
struct cpu_info;

struct engine_options {
    int n_threads;   /* 0 = cpu_info.n_threads_default */
    int64_t n_batch; /* rows of one pass at most; 0 = automatic: 512, less where activations would exceed 48 MiB */
    const char *isa; /* use no ISA level above this one ("scalar", "avx2", ...); NULL = the strongest */
    bool precise;    /* passes of several rows keep 15 bits of the activations, as those of one row do, for 1.3 to 1.8 times the time */
    int64_t short_rows; /* a pass of one sequence of at most this many rows is precise as well: it costs little, and close calls of a short question stay
                         * what they are; 0: none */
    observe_fn observe; /* layers show all rows of a pass, the head those that give logits */
    void *observe_ctx;
    const struct adapter_use *lora; /* [n_lora] adapters added to the model, at most ADAPTERS_MAX; copied, the adapters stay the caller's */
    int n_lora;
};
status engine_open(struct engine **out, const struct model *m, const struct engine_options *o, struct err *e) MUST_USE;
void engine_close(struct engine *en); /* accepts NULL; sessions must be closed before */
const struct model *engine_model(const struct engine *en);
const struct kernels *engine_kernels(const struct engine *en);
struct pool *engine_pool(struct engine *en);
int64_t engine_n_batch(const struct engine *en);
/* engine_pass_rows - rows of the next pass when `left` are to come: passes of nearly equal size, since a short last one (512 = 448 + 64) unpacks all weights
 * for little work. */
int64_t engine_pass_rows(const struct engine *en, int64_t left);
size_t engine_bytes(const struct engine *en); /* scratch memory, without sessions */

/* engine_profile - starts (from zero) or stops counting time by kind of op, as thread 0 sees it, waiting included. engine_op_time - name
 * and time of the i-th kind; false past the last. */
void engine_profile(struct engine *en, bool on);
bool engine_op_time(const struct engine *en, int i, const char **name, int64_t *ns);

struct session_options {
    int64_t n_ctx;               /* positions; 0 = the model's training length */
    const struct dtype *kv_type; /* of K and V: F16 (NULL), BF16, F32, Q8_0, Q4_0 */
    const struct dtype *k_type, *v_type; /* of one of them, over kv_type; NULL = kv_type */
};
/* session_open - reserves the KV cache (touched lazily). ERR_USAGE for a type that is not offered or does not fit the heads, ERR_MEMORY with need,
 * have and the largest n_ctx that fits. */
status session_open(struct session **out, struct engine *en, const struct session_options *o, struct err *e) MUST_USE;
void session_close(struct session *s);
int64_t session_n_ctx(const struct session *s);
int64_t session_pos(const struct session *s);           /* tokens in the timeline */
const int32_t *session_tokens(const struct session *s); /* [pos] */
size_t session_bytes(const struct session *s);
/* session_truncate - forgets all tokens from position n on (0 <= n <= pos). Exact, or ERR_USAGE: a recurrent state
 * (model_is_recurrent) can only be kept or begun anew, n == pos or 0. */
status session_truncate(struct session *s, int64_t n, struct err *e) MUST_USE;

/* session_save - writes tokens and the used part of the state to a file, atomically, with n_note bytes of the caller's own (at most 64 MiB; 0: none).
 * session_load - replaces the timeline by that of a file: later passes give the same bits as if it had never been away. The context may be larger or
 * smaller, as long as the tokens fit (ERR_USAGE); model, adapters and KV types must be those of the file, and every byte is covered by a checksum
 * (ERR_FORMAT with both values). After a failure in the header the session is unchanged, after a later one it is empty. *note (may be NULL) is from
 * mem_alloc, NUL-terminated, the caller's.
 * session_copy - makes `to` a copy of `from`, of the same engine and KV types; only used rows are copied. The first `same` tokens (0: none) are known
 * to stand in both, with the same state: copies of one session. */
status session_save(const struct session *s, const char *path, const void *note, size_t n_note, struct err *e) MUST_USE;
status session_load(struct session *s, const char *path, char **note, size_t *n_note, struct err *e) MUST_USE;
status session_copy(struct session *to, const struct session *from, int64_t same, struct err *e) MUST_USE;

struct segment {
    struct session *session;
    const int32_t *tokens; /* [n] appended to the session */
    int64_t n;
    int64_t want_from; /* rows want_from..n-1 give logits; n = none, n - 1 = last only, 0 = all */
};
/* One row of logits [n_vocab], valid during the call. Runs on pool threads, several rows at once. seg, row: index in segments, in the
 * segment. */
typedef void (*logits_fn)(void *ctx, int seg, int64_t row, const float *logits);

/* engine_forward - one pass over all segments (total rows <= n_batch, each session at most once). Everything is checked before anything
 * changes: ERR_USAGE for a full context ("context is full: 4096 of 4096 ..."), ids out of range, too many rows. */
status engine_forward(struct engine *en, const struct segment *seg, int n_seg, logits_fn fn, void *ctx, struct err *e) MUST_USE;

/* engine_forward_single - the same for at most SINGLE_ROWS rows, each of which gets the bits that a pass of its own would give, in its logits and in
 * its session: weights are read once for all. What speculation needs: its answers equal those without. */
enum { SINGLE_ROWS = 32 };
status engine_forward_single(struct engine *en, const struct segment *seg, int n_seg, logits_fn fn, void *ctx, struct err *e) MUST_USE;

/* engine_score - the same pass, but of each wanted row only -ln softmax(logits)[target]: nll, target [wanted rows of all segments, in their order]. No row
 * of logits is stored, the head's matrix is unpacked once for 256 rows, and engine_logits is of no meaning afterwards. Not finite for logits that are not.
 * engine_can_score - not with an observer, nor where logits are more than a product: a bias, outlier columns, an adapter of the output matrix. */
bool engine_can_score(const struct engine *en);
status engine_score(struct engine *en, const struct segment *seg, int n_seg, const int32_t *target, double *nll, struct err *e) MUST_USE;

/* engine_logits - logits of the last wanted row of the last pass, [n_vocab], writable, valid until the next pass. */
float *engine_logits(struct engine *en);

/* session_feed - appends n tokens in passes of n_batch rows; progress(ctx, done, n) after each, false stops early (ERR_INTERRUPTED; the
 * tokens so far stay). Logits of the last row are then in engine_logits. progress may be NULL. */
status session_feed(struct session *s, const int32_t *tokens, int64_t n, bool (*progress)(void *ctx, int64_t done, int64_t n), void *ctx,
                    struct err *e) MUST_USE;

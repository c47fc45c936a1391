/* model - an opened GGUF file: validated hyper-parameters, weight views, tokenizer, chat template. Read-only after open; shared by any
 * number of engines and threads. */
#pragma once
#include "ggml-like/gguf.h"
#include "src/tokenizer.h"

struct model;

struct model_options {
    bool no_mmap;    /* read the file into memory instead of mapping it */
    bool check;      /* scan all weights for NaN and infinities: ERR_FORMAT names tensor and row */
    const char *pre; /* overrides tokenizer.ggml.pre, NULL = the file's */
    /* positions, where they should differ from what the file says; 0 or NULL = as the file says */
    const char *rope_scaling;      /* "none", "linear", "yarn", "longrope", "ntk" */
    float rope_factor, rope_base;  /* context extension; base frequency */
    int64_t rope_ctx_orig;         /* context before the extension */
    int64_t n_ctx; /* that sessions will have: longrope picks its factors by it; 0 = the training length, -n = that, but at most n */
};

/* model_open - ERR_FILE / ERR_FORMAT / ERR_MEMORY. Names an unknown architecture and lists the known ones; a missing key; a missing tensor;
 * a wrongly shaped tensor with both shapes. */
status model_open(struct model **out, const char *path, const struct model_options *o, struct err *e) MUST_USE;
void model_close(struct model *m); /* accepts NULL; engines must be closed before */

struct model_info {
    const char *arch;                                          /* "llama" */
    char name[96];                                             /* general.name, "" if absent */
    char type[32];                                             /* dominant tensor type by bytes, "Q4_K" */
    int64_t n_layer, n_embd, n_head, n_head_kv, n_ff, n_vocab; /* of layer 0 where layers differ */
    int64_t n_ctx_train;
    uint64_t n_params; /* elements of all tensors, a tied head counted once */
    uint64_t file_bytes, tensor_bytes;
    uint64_t token_bytes; /* weight bytes read to decode one token: layers + head + one embedding row */
    uint64_t token_macs;  /* multiply-adds in matmuls per token, head included */
    uint64_t type_macs[DTYPE_IDS], head_macs; /* of them those of the layers, by type of weights, and the head's, which only rows with logits have */
    const struct dtype *head_type;
    double bpw;           /* 8 * tensor_bytes / n_params */
    const char *rope;     /* how positions are stretched: "none", "linear", "yarn", "longrope", "ntk" */
    float rope_factor;    /* and how far; 1 for none and longrope */
    const char *note;     /* "" or one line worth telling: tensors that this architecture does not use */
};
void model_info(const struct model *m, struct model_info *info);
const struct gguf *model_gguf(const struct model *m);
const struct tokenizer *model_tokenizer(const struct model *m);
/* model_template - tokenizer.chat_template; n = 0 when the file has none. */
struct str model_template(const struct model *m);
/* model_state_bytes - memory of one session (KV caches, recurrent states) at n_ctx positions with this KV type. SIZE_MAX on overflow. */
size_t model_state_bytes(const struct model *m, int64_t n_ctx, const struct dtype *kv_type);
/* model_is_recurrent - do layers keep a state that cannot go back to an earlier position? */
bool model_is_recurrent(const struct model *m);
/* model_check - scans every weight: ERR_FORMAT names the first tensor and row that holds NaN or infinity. Seconds for a gigabyte. */
status model_check(const struct model *m, struct err *e) MUST_USE;
/* model_arch_name - name of the i-th architecture of this build, NULL past the last. */
const char *model_arch_name(int i);

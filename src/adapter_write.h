/* adapter_write - LoRA adapters as GGUF files, in the format that lora.h reads and llama.cpp loads. */
#pragma once
#include "ggml-like/dtype.h"
#include "src/model.h"

/* The two matrices for one weight, [n_mat] of them for a stack of experts (0 counts as 1): its rows get scale * b a. Of token_embd.weight `in` is the
 * vocabulary and `out` the width: what a token's number goes into and what comes out. */
struct adapter_tensor {
    const char *base;      /* "blk.0.attn_q.weight" */
    int64_t in, out, rank, n_mat;
    const float *a, *b;    /* [n_mat][rank][in], [n_mat][out][rank] */
};

/* One more key of the file: text, else a whole number, else `f`. */
enum adapter_note_kind { NOTE_TEXT, NOTE_INT, NOTE_FLOAT };
struct adapter_note {
    const char *key;       /* "training.seed"; keys that this file writes itself (general.type, ...) are ERR_USAGE */
    enum adapter_note_kind kind;
    const char *text;
    int64_t i;
    double f;
};

struct adapter_file {
    const struct model *m;               /* gives the architecture; every base must be a tensor of it that fits */
    const struct adapter_tensor *tensor; /* [n] */
    int64_t n;
    float alpha;                         /* the scale of a tensor is alpha / its rank; rsLoRA: alpha * sqrt(rank); 0: the scale is 1 */
    const struct dtype *type;            /* of the matrices: F32 (NULL), F16, BF16 */
    const struct adapter_note *note;     /* [n_notes] */
    int n_notes;
};

/* adapter_write_gguf - the file appears complete or not at all. ERR_FORMAT: a base that the model has not, with the name, or another shape, with both;
 * ERR_USAGE: no tensors, an impossible rank, alpha or type; ERR_FILE, ERR_RUNTIME, ERR_MEMORY. */
status adapter_write_gguf(const char *path, const struct adapter_file *f, struct err *e) MUST_USE;

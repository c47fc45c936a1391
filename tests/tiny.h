/* tiny - small random GGUF models for tests, made from an architecture's own weight rows: a new architecture needs nothing here.
 * The same options give the same bytes on every machine (integers and uniform floats only). */
#pragma once
#include "ggml-like/gguf.h"

struct tiny_options {
    const char *arch;          /* NULL = "llama" */
    const char *type;          /* format of the matrices, NULL = "f32"; norms and biases are always F32 */
    int64_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_ctx; /* 0 = 2, 64, 4, 2, 16, 96, 256 */
    int64_t extra_rows;        /* rows of token_embd beyond the vocabulary */
    int64_t n_expert;          /* two of them are used; 0 = dense */
    int64_t window;            /* attention.sliding_window, where the architecture reads it */
    bool spm;                  /* SentencePiece vocabulary instead of byte-level BPE */
    bool tied;                 /* no output.weight */
    bool optional;             /* also write the optional weights (biases, rope factors) */
    bool no_template;
    const char *other, *other_type; /* this matrix has that format */
    float outlier;             /* gain of every norm's column TINY_OUTLIER times this, that column of what reads it divided by it; 0 = none */
    uint64_t seed;
    /* damage, for error tests */
    const char *drop_tensor, *drop_key; /* left out */
    const char *reshape;       /* this tensor gets one row too many */
    const char *poison;        /* this tensor gets a NaN in row 1 (row 0 of vectors) */
    void (*more)(struct gguf_writer *w, void *ctx); /* further keys */
    void *ctx;
};
enum { TINY_TOKENS = 256 + 12, TINY_OUTLIER = 5 };
/* tiny_model - writes the file. Vocabulary: 256 single bytes and a few merges or words, <|endoftext|>, <|im_start|>, <|im_end|>; ChatML template. */
status tiny_model(const char *path, const struct tiny_options *o, struct err *e) MUST_USE;

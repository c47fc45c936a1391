/* convert - a Hugging Face checkpoint as a GGUF file: config.json, tokenizer and weights, by the rows of the architecture (src/arch.h) and nothing
 * else. Everything is planned and checked before the first byte is written: missing and unused tensors, shapes, numbers. Streams: memory is
 * bounded by the largest tensor that must be rearranged (several at once up to 1 GiB), and is some MiB a thread for all others. The same input gives
 * the same bytes.
 * Quantized checkpoints (convert_packed.h): GPTQ, AWQ, compressed-tensors, bitsandbytes, FP8, MXFP4. */
#pragma once
#include "ggml-like/dtype.h"
#include "src/model.h"

struct convert;

struct convert_options {
    const struct dtype *type;  /* of the matrices; NULL: the type that most of the checkpoint's bytes have, F16, BF16 or F32; of quantized matrices
                                * one that holds the same numbers, if there is one, else what the checkpoint computes in. Vectors, convolutions
                                * and routers are F32 in any case; rows that do not fit the type's blocks are F16 */
    const char *pre;           /* tokenizer.ggml.pre of byte-level BPE; NULL = found from tokenizer.json. ERR_USAGE: unknown */
    const char *name;          /* general.name; NULL = the directory's */
    bool allow_unused;         /* source tensors that the architecture has no row for are left out instead of refused */
    bool vocab_only;           /* no tensors: keys and tokenizer */
    int n_threads;             /* 0 = as many as the machine has cores */
    void (*warn)(void *ctx, const char *text); /* one line; may be NULL */
    bool (*progress)(void *ctx, size_t done, size_t total); /* bytes of the output, some times a second, by the caller's thread; false stops
                                                             * (ERR_INTERRUPTED, nothing is left). May be NULL */
    void *ctx;
};

/* convert_open - path is a directory with config.json and weights (checkpoint.h), or one of its weight files. ERR_FILE, ERR_FORMAT (unknown
 * architecture with the known ones; missing key; missing and unused tensors, listed; wrong shape with both), ERR_USAGE, ERR_MEMORY. */
status convert_open(struct convert **out, const char *path, const struct convert_options *o, struct err *e) MUST_USE;
void convert_close(struct convert *c); /* accepts NULL */

struct convert_info {
    const char *arch, *hf, *type; /* "llama", "LlamaForCausalLM", "F16" */
    int64_t n_tensors, n_sources, n_vocab;
    size_t out_bytes;
    const char *pre;
    char types[200]; /* how many tensors have which type: "30 Q4_K, 181 F16 (rows are no multiple of 256), 61 F32" */
};
void convert_info(const struct convert *c, struct convert_info *info);

/* convert_write - makes the file at path (replacing it when complete). */
status convert_write(struct convert *c, const char *path, struct err *e) MUST_USE;

/* ---- the other way (export.c): a GGUF file as a Hugging Face directory ---- model.safetensors, config.json, generation_config.json, tokenizer.json and
 * tokenizer_config.json. Weights get their Hugging Face names and order back by the same rows. Streams like the above. */
struct export;
struct export_options {
    const struct dtype *type; /* F32, F16 or BF16 for all matrices; NULL: floats as they are, quantized ones as F16 */
    int n_threads;
    void (*warn)(void *ctx, const char *text);
    bool (*progress)(void *ctx, size_t done, size_t total);
    void *ctx;
};
/* export_open - ERR_FILE, ERR_FORMAT (an architecture whose weights are cut or combined when imported, by name), ERR_USAGE, ERR_MEMORY. */
status export_open(struct export **out, const char *path, const struct export_options *o, struct err *e) MUST_USE;
void export_close(struct export *x); /* accepts NULL */
struct export_info { const char *arch, *hf, *type; int64_t n_tensors; size_t bytes; };
void export_info(const struct export *x, struct export_info *info);
/* export_write - dir is made if it is not there; each file appears complete, the weights first. */
status export_write(struct export *x, const char *dir, struct err *e) MUST_USE;

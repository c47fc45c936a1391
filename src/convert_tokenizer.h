/* convert_tokenizer - the tokenizer files of a Hugging Face checkpoint, as the `tokenizer.` keys of a GGUF file.
 * Knows no model and no weights. What is written agrees with llama.cpp's converter (conversion/base.py, gguf-py/gguf/vocab.py) wherever
 * that gives the ids of Hugging Face's own tokenizer. One key is ours: tokenizer.cuanto.exact_types, true where a tokenizer.json says which
 * tokens are cut out of a text, so that no token is taken for a control token by its text. */
#pragma once
#include "ggml-like/gguf.h"

struct convert_tokenizer_options {
    int64_t n_vocab;  /* rows of the embedding: the vocabulary is padded with unused tokens [PADn] up to it; 0: as many as there are tokens */
    const char *pre;  /* value of tokenizer.ggml.pre, NULL: found from the definition of the pre-tokenizer */
    void (*warn)(void *ctx, const char *text); /* one line without newline: what GGUF cannot say or the files say twice. May be NULL */
    void *warn_ctx;
};

/* convert_tokenizer - reads the first of these that dir has, with tokenizer_config.json, special_tokens_map.json, added_tokens.json, chat templates,
 * generation_config.json and config.json beside it:
 *   tokenizer.model or spiece.model (SentencePiece; a tiktoken file under that name is recognised; overruled by a tokenizer.json that
 *   numbers tokens otherwise), tokenizer.json (BPE, Unigram, WordPiece),
 *   vocab.json and merges.txt, vocab.txt, tekken.json, *.tiktoken
 * ERR_FILE: none of them, or unreadable; ERR_FORMAT: damaged, contradictory or not expressible in GGUF, naming file, object and both values; an
 * unknown pre-tokenizer names its expressions. ERR_MEMORY. Keys go to w, which takes copies; w is unusable after an error.
 * Memory: about seven times the size of tokenizer.json, at most 2 GiB. Any thread. */
status convert_tokenizer(struct gguf_writer *w, const char *dir, const struct convert_tokenizer_options *o, struct err *e) MUST_USE;

/* Without a directory, for fuzzing: the bytes of a SentencePiece model, or of a tokenizer.json. */
status convert_tokenizer_spm(struct gguf_writer *w, const void *data, size_t n, const struct convert_tokenizer_options *o, struct err *e) MUST_USE;
status convert_tokenizer_json(struct gguf_writer *w, const void *data, size_t n, const struct convert_tokenizer_options *o, struct err *e) MUST_USE;

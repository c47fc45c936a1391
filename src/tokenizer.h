/* tokenizer - text <-> token ids, from the vocabulary inside a GGUF file. One row per algorithm (tokenizer.ggml.model, in tokenizer.c) and one
 * per pre-tokenizer (tokenizer.ggml.pre, in pretok.c); scanners are hand-written state machines over unicode.h, no regex engine.
 * Read-only after open: any thread may encode and decode at once, each with its own buffers. */
#pragma once
#include "ggml-like/gguf.h"

struct tokenizer;

enum token_attr { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5, TOKEN_BYTE = 6 };

/* tokenizer_open - views into g, which must outlive it. ERR_FORMAT: unknown model or pre-tokenizer (lists the known ones), arrays of wrong
 * type or length, special ids >= n_vocab, bad byte tokens, merges whose halves are no tokens. pre overrides tokenizer.ggml.pre when not NULL. */
status tokenizer_open(struct tokenizer **out, const struct gguf *g, const char *pre, struct err *e) MUST_USE;
void tokenizer_close(struct tokenizer *t); /* accepts NULL */

enum { ENCODE_SPECIAL = 1,    /* text of control and user-defined tokens becomes those tokens; without it only user-defined ones do */
       ENCODE_BOS = 2 };      /* begin with BOS (and end with EOS) if the file says so (add_bos_token, add_eos_token); "bert": always
                               * between CLS and SEP; "rwkv" and "plamo2": nothing */
/* tokenizer_encode - n bytes of text. Writes up to cap ids and sets *n_out to the number needed (may exceed cap: call again).
 * Invalid UTF-8 is never refused: it is encoded byte by byte, by "t5" as U+FFFD, by "bert" not at all. n <= 2^30 (else ERR_USAGE). ERR_MEMORY.
 * Ids equal llama.cpp's llama_tokenize(text, add_special = ENCODE_BOS, parse_special = ENCODE_SPECIAL). */
status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags, int32_t *ids, int64_t cap, int64_t *n_out,
                        struct err *e) MUST_USE;
/* tokenizer_piece - the bytes a token stands for (a partial UTF-8 sequence is possible). special = false: control tokens give "".
 * Writes up to cap bytes, returns the number needed; 0 for ids out of range. */
size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *buf, size_t cap);
/* tokenizer_text - the token as written in the vocabulary ("Ġthe", "▁the"). Empty for ids out of range. */
struct str tokenizer_text(const struct tokenizer *t, int32_t id);
/* tokenizer_decode - pieces of n ids joined; drops the space that SPM adds before the first word. Same capacity rule as encode.
 * encode then decode gives back valid UTF-8 text exactly, but for the models that normalize: "bert", "t5", "whitespace". */
size_t tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t n, bool special, char *buf, size_t cap);

int64_t tokenizer_size(const struct tokenizer *t);
size_t tokenizer_piece_max(const struct tokenizer *t);             /* no piece has more bytes */
int tokenizer_attr(const struct tokenizer *t, int32_t id);         /* enum token_attr */
/* ids of the special tokens, -1 when the file has none */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
bool tokenizer_adds_bos(const struct tokenizer *t);
/* tokenizer_is_end - end of generation: eos, eot, eom ids and the tokens whose text is a known end marker (<|im_end|>, <|eot_id|>, <end_of_turn>, ...) */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);
const char *tokenizer_model_name(const struct tokenizer *t);       /* "gpt2", "llama", "bert", ... */
const char *tokenizer_pre_name(const struct tokenizer *t);         /* "qwen2", "" when the model has none */

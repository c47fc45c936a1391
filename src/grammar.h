/* grammar - constrained decoding: which token may come next so that the text fits a grammar in llama.cpp's GBNF notation.
 *   root ::= "yes" | "no" ("," ws [0-9a-f]{2,4})*      # rules, literals, classes, groups, alternation, * + ? {m} {m,} {m,n}, ., comments
 *   <[1234]>  <|name|>  !<[7]>                         # a whole token by id or by name; any token but this one
 * grammar: compiled rules, read-only. token_trie: the vocabulary in order of bytes, read-only. matcher: one text in progress; not thread-safe.
 * Texts are bytes of valid UTF-8 throughout: a character may be spread over tokens. Control tokens only match token elements; end tokens are allowed
 * exactly where the text may end. */
#pragma once
#include "ggml-like/base.h"

struct tokenizer;
struct grammar;
struct token_trie;
struct matcher;

enum { GRAMMAR_TEXT_MAX = 4 << 20 };

/* grammar_parse - n bytes of text; name stands in messages ("name:line:column: ..."). t: for token names; NULL = they are refused. ERR_USAGE for anything
 * wrong with the text: syntax, bytes that are no UTF-8, undefined or repeated rules, left recursion, more than 65,536 rules or 200 levels of groups. */
status grammar_parse(struct grammar **out, const char *text, size_t n, const char *name, const struct tokenizer *t, struct err *e) MUST_USE;
void grammar_close(struct grammar *g); /* accepts NULL */

/* One token as the trie sees it: the bytes it stands for (none: it only matches token elements), whether it ends generation. */
struct token_text { const char *p; uint32_t n; bool end; };
/* token_trie_of - n tokens; copies what it needs. Tokens of more than TOKEN_BYTES_MAX bytes are never allowed. token_trie_open - the same for a
 * vocabulary; ids from tokenizer_size to n_vocab have no text. About 60 ms and 6 MB for 150,000 tokens. */
enum { TOKEN_BYTES_MAX = 1000 };
status token_trie_of(struct token_trie **out, const struct token_text *text, int64_t n, struct err *e) MUST_USE;
status token_trie_open(struct token_trie **out, const struct tokenizer *t, int64_t n_vocab, struct err *e) MUST_USE;
void token_trie_close(struct token_trie *t); /* accepts NULL */

/* matcher_open - at the start of the grammar's root. Borrows both. Allocates about 6 MB, and nothing later. */
status matcher_open(struct matcher **out, const struct grammar *g, const struct token_trie *t, struct err *e) MUST_USE;
void matcher_close(struct matcher *m); /* accepts NULL */
int64_t matcher_vocab(const struct matcher *m); /* tokens of its trie */
void matcher_reset(struct matcher *m);
/* matcher_copy - m becomes what from is; both have the same grammar and trie. */
void matcher_copy(struct matcher *m, const struct matcher *from);

/* All below: ERR_RUNTIME when the grammar is too deep or too ambiguous to follow (more than 65,536 open rules or 16,384 ways to go on).
 * matcher_allows - may id come next? matcher_accept - it came; ERR_RUNTIME if it is not allowed, and from then on. */
status matcher_allows(struct matcher *m, int32_t id, bool *yes, struct err *e) MUST_USE;
status matcher_accept(struct matcher *m, int32_t id, struct err *e) MUST_USE;
/* matcher_mask - bit id & 63 of word id >> 6: allowed. [(n_vocab + 63) / 64], valid until the next call. Kept for the last few states. */
status matcher_mask(struct matcher *m, const uint64_t **bits, struct err *e) MUST_USE;
/* matcher_text - advances by n bytes outside of any token; *yes = they fit (else the matcher stays where it was). For tests and prefixes. */
status matcher_text(struct matcher *m, const char *text, size_t n, bool *yes, struct err *e) MUST_USE;
bool matcher_can_end(const struct matcher *m);  /* the text so far is complete */
bool matcher_must_end(const struct matcher *m); /* and nothing can follow */

/* convert_tok_int - what the files convert_tok*.c share. Nobody else includes it.
 * A reader (spm, json, ranks) fills the vocabulary of struct conv; convert_tok_special.c adds added tokens, roles and templates;
 * convert_tokenizer.c writes. Texts are views into the arena or into files that stay open. */
#pragma once
#include "ggml-like/json.h"
#include "src/convert_tokenizer.h"
#include <string.h>

enum {
    CONV_IDS_MAX = 1 << 22,      /* tokens of a vocabulary; the largest published ones have about 2^18 */
    CONV_TEXT_MAX = 1 << 16,     /* bytes of one token */
    CONV_RULES_MAX = 8,          /* steps of a pre-tokenizer */
    CONV_FILES = 4,              /* files kept open: their bytes are referred to */
};

/* The numbers of tokenizer.ggml.token_type, which are those of SentencePiece; CONV_HOLE: no token has this id. */
enum { CONV_HOLE = 0, CONV_NORMAL = 1, CONV_UNKNOWN = 2, CONV_CONTROL = 3, CONV_USER = 4, CONV_UNUSED = 5, CONV_BYTE = 6 };

enum conv_role { CONV_BOS, CONV_EOS, CONV_UNK, CONV_SEP, CONV_PAD, CONV_CLS, CONV_MASK, CONV_EOT, CONV_EOM, CONV_ROLES };

struct conv_token {
    struct str text;
    float score;
    int type;
};

struct conv_slot { uint64_t hash; int32_t id; }; /* id -1: free */

struct conv {
    struct arena mem;
    const char *dir; /* NULL: nothing beside the given bytes */
    const struct convert_tokenizer_options *o;
    struct file file[CONV_FILES];
    int n_files;

    /* the JSON files, NULL where there is none */
    const struct json *tokenizer, *config, *special_map, *model_config, *generation, *added, *tekken;

    /* the vocabulary */
    struct conv_token *token;
    int64_t n, cap;
    struct conv_slot *slot; /* text to id, built by conv_index */
    size_t slot_mask;
    bool has_scores;

    /* what goes into keys; numbers are -1 and texts NULL while unknown */
    const char *model, *pre;
    struct str *merge;
    int64_t n_merges;
    int add_bos, add_eos, add_sep, add_space, remove_spaces, lowercase, strip_accents;
    int32_t role[CONV_ROLES];
    struct str charsmap;
};

/* ---- convert_tokenizer.c ---- */
PRINTF_LIKE(2, 3) void conv_warn(const struct conv *c, const char *fmt, ...);
/* conv_open - the bytes of dir/name, which stay valid until the end; a file that is not there: *found false and OK. */
status conv_open(struct conv *c, const char *name, size_t max, struct str *text, bool *found, struct err *e) MUST_USE;
status conv_json(struct conv *c, const char *name, const struct json **out, struct err *e) MUST_USE; /* NULL: not there */

/* conv_put - token id := text. ERR_FORMAT: id out of range, text too long, or another text has this id. file stands in errors. */
status conv_put(struct conv *c, const char *file, int64_t id, struct str text, float score, int type, struct err *e) MUST_USE;
status conv_index(struct conv *c, struct err *e) MUST_USE;
int32_t conv_find(const struct conv *c, struct str text); /* -1 */

/* ---- small things about JSON ---- */
static inline bool is_kind(const struct json *j, enum json_kind kind) { return j && j->kind == kind; }
static inline const struct json *get_kind(const struct json *obj, const char *key, enum json_kind kind)
{
    const struct json *j = json_get(obj, key);
    return is_kind(j, kind) ? j : NULL;
}
static inline struct str json_str(const struct json *j) { return (struct str){ j->str, (size_t)j->n }; }
static inline struct str str_of(const char *s) { return (struct str){ s, strlen(s) }; }
static inline bool str_is(struct str s, const char *text) { return s.n == strlen(text) && !memcmp(s.p, text, s.n); }
static inline bool str_same(struct str a, struct str b) { return a.n == b.n && !memcmp(a.p, b.p, a.n); }
/* An integer or bool member; otherwise `other`. */
static inline int64_t get_int(const struct json *obj, const char *key, int64_t other)
{
    const struct json *j = json_get(obj, key);
    return j && (j->kind == JSON_INT || j->kind == JSON_BOOL) ? j->i : other;
}
static inline bool type_is(const struct json *j, const char *type)
{
    const struct json *t = get_kind(j, "type", JSON_STR);
    return t && str_is(json_str(t), type);
}
const char *json_kind_text(const struct json *j); /* "a string", "missing" */
/* conv_want - the member key of obj, which must be of this kind. */
status conv_want(const char *file, const struct json *obj, const char *key, enum json_kind kind, const struct json **out, struct err *e) MUST_USE;
/* How much of a text goes into an error. */
static inline int show(struct str s) { return s.n < 60 ? (int)s.n : 60; }

/* ---- readers ---- */
status conv_read_spm(struct conv *c, const char *file, struct str bytes, struct err *e) MUST_USE;         /* convert_tok_spm.c; added tokens are not in yet */
bool conv_looks_spm(struct str bytes);
status conv_read_json(struct conv *c, struct err *e) MUST_USE;                                            /* convert_tok_json.c: c->tokenizer */
/* conv_json_differs - the first token of c that tokenizer.json knows under another text, added tokens left aside; -1: none. */
status conv_json_differs(const struct conv *c, int64_t *id, struct err *e) MUST_USE;
status conv_read_vocab_json(struct conv *c, const struct json *vocab, struct str merges, struct err *e) MUST_USE; /* vocab.json, merges.txt */
status conv_read_vocab_txt(struct conv *c, struct str text, struct err *e) MUST_USE;                      /* vocab.txt */
status conv_read_tiktoken(struct conv *c, const char *file, struct str text, struct err *e) MUST_USE;     /* convert_tok_ranks.c */
status conv_read_tekken(struct conv *c, struct err *e) MUST_USE;                                          /* c->tekken */
/* conv_base64 - decoded bytes in the arena. ERR_FORMAT names file and what. */
status conv_base64(struct conv *c, const char *file, const char *what, struct str text, struct str *out, struct err *e) MUST_USE;
/* conv_byte_text - bytes as byte-level BPE writes them, in the arena; p NULL: no memory. */
struct str conv_byte_text(struct conv *c, struct str bytes);

/* ---- convert_tok_pre.c ---- */
/* conv_find_pre - sets c->pre from the pre_tokenizer of a byte-level BPE (or from the one expression of a tekken file). */
status conv_find_pre(struct conv *c, const char *file, const struct json *pre, bool ignore_merges, struct err *e) MUST_USE;
status conv_find_pre_regex(struct conv *c, const char *file, struct str regex, struct err *e) MUST_USE;

/* ---- convert_tok_special.c ---- */
status conv_added_tokens(struct conv *c, struct err *e) MUST_USE; /* before conv_index */
status conv_roles(struct conv *c, struct err *e) MUST_USE;        /* after it */
status conv_templates(struct conv *c, struct gguf_writer *w, struct err *e) MUST_USE;
/* conv_pre_rules - the regular expressions of a pre-tokenizer, one after the other; NULL after the last if there are fewer than CONV_RULES_MAX. "(C)" stands
 * for the English contractions in any case, "punctuation" and "punctuation+" for the step Punctuation, isolated or in runs. NULL: the name is not known. */
const char *const *conv_pre_rules(const char *name);

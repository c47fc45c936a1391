/* tokenizer_int - what tokenizer.c and tok_*.c share. Nobody else includes it.
 * Everything in struct tokenizer is built at open and only read afterwards; what an encode call needs lives in struct tok_encoder. */
#pragma once
#include "src/pretok.h"
#include "src/tokenizer.h"
#include <string.h>

/* What is rare stays out of a hot loop, with its registers. */
#define NOINLINE __attribute__((noinline))

/* ---- vocabulary (tok_vocab.c): id -> text and attributes, text -> id ---- */

/* Bits, because a token of one type in the file can be made a control token by its text as well. */
enum {
    ATTR_NORMAL = 1 << 0,
    ATTR_UNKNOWN = 1 << 1,
    ATTR_CONTROL = 1 << 2,
    ATTR_USER = 1 << 3,
    ATTR_UNUSED = 1 << 4,
    ATTR_BYTE = 1 << 5,
    ATTR_LSTRIP = 1 << 6, /* spaces before its text are dropped */
    ATTR_RSTRIP = 1 << 7, /* spaces after its text are dropped */
    ATTR_END = 1 << 8,    /* ends generation */
    ATTR_SPECIAL = ATTR_UNKNOWN | ATTR_CONTROL | ATTR_USER, /* cut out of the text before the algorithm sees it */
    ATTR_ALL = 0xffff,
};

/* What is looked for: a text of up to 16 bytes is known by n, a and b, of a longer one they are the last 16 bytes. */
struct tok_key {
    uint64_t a, b;
    size_t n;
    uint32_t hash;
};

/* All that finding a text or joining to it reads of a token: half a cache line. rank, left_len and next belong to the model. */
struct tok_entry {
    uint64_t a, b; /* tok_key of a text of up to TOK_SHORT bytes, so that to find it reads no text */
    uint32_t at;   /* where the text begins, from tok_vocab.base */
    uint32_t rank;
    uint32_t left_len : 28, short_len : 4; /* short_len: bytes of the text, 0: none or more than TOK_SHORT */
    int32_t next;
};
enum { TOK_SHORT = 15, TOK_LEFT_MAX = (1 << 28) - 1 };

struct tok_vocab {
    int64_t n;
    const uint8_t *base; /* the token array in the file: a u64 length before each text */
    struct tok_entry *entry; /* [n] */
    uint16_t *attr;      /* [n] ATTR_ bits */
    size_t len_max;      /* longest text */
    bool repeats;        /* some text is that of several tokens */
    uint32_t *slot;      /* the high bits of the hash over an id; TOK_FREE. Four bytes: 151,936 tokens in 1 MiB */
    uint32_t slot_mask, id_mask; /* id_mask > any id */
};

/* tok_vocab_open - tokens and token types. Of two tokens with one text the first is found. Empty texts are never found. */
status tok_vocab_open(struct tok_vocab *v, const struct gguf *g, struct arena *mem, struct err *e) MUST_USE;
int32_t tok_vocab_find(const struct tok_vocab *v, const char *text, size_t n); /* -1: no such token */
/* tok_vocab_index - the n texts at `texts`, a u64 length before each, which must outlive v. name: of the array, for errors. n <= 1 << 28. */
status tok_vocab_index(struct tok_vocab *v, const uint8_t *texts, size_t n, const char *name, struct arena *mem, struct err *e) MUST_USE;
#define TOK_FREE UINT32_MAX
enum {
    TOK_BATCH = 32,    /* texts fetched ahead while opening */
    TOK_PROBES = 1024, /* no entry of a table lies further from its slot; real vocabularies stay below 100, so what needs more was made to */
};
/* tok_vocab_scores - tokenizer.ggml.scores: one f32 per token, none of them NaN. */
status tok_vocab_scores(const struct tok_vocab *v, const struct gguf *g, const struct gguf_kv **scores, struct err *e) MUST_USE;
/* tok_byte_value - of "<0x0A>" and the like; -1 for any other text. tok_hex_digit - -1 if it is none. */
int tok_byte_value(struct str text);
int tok_hex_digit(char c);

static inline uint64_t tok_load(const char *p, size_t n)
{
    uint64_t w = 0;
    memcpy(&w, p, n);
    return w;
}

/* Up to 16 bytes by two overlapping loads: a loop over the rest was a fifth of the time of short texts. Of longer texts the bytes before the
 * last 16 go into the hash only, eight a step. The multiplier is the golden ratio, odd. */
static inline struct tok_key tok_key_of(const char *p, size_t n)
{
    const uint64_t k = 0x9e3779b97f4a7c15u;
    struct tok_key key = { .n = n };
    uint64_t h = n * k;
    for (; n > 16; p += 8, n -= 8) {
        h = (h ^ tok_load(p, 8)) * k;
        h ^= h >> 29;
    }
    if (n >= 8) key.a = tok_load(p, 8), key.b = tok_load(p + n - 8, 8);
    else if (n >= 4) key.a = tok_load(p, 4), key.b = tok_load(p + n - 4, 4);
    else if (n > 0) key.a = (uint64_t)(uint8_t)p[0] | (uint64_t)(uint8_t)p[n / 2] << 8 | (uint64_t)(uint8_t)p[n - 1] << 16;
    h = (h ^ key.a) * k;
    h ^= h >> 29;
    h = (h ^ key.b) * k;
    h ^= h >> 32;
    key.hash = (uint32_t)(h * k >> 32);
    return key;
}

static inline struct str tok_text(const struct tok_vocab *v, int32_t id)
{
    const uint8_t *p = v->base + v->entry[id].at;
    uint64_t n;
    memcpy(&n, p - sizeof n, sizeof n);
    return (struct str){ (const char *)p, (size_t)n };
}

/* tok_vocab_expect - fetches into the cache the slot that finding a text of this hash will read. */
static inline void tok_vocab_expect(const struct tok_vocab *v, uint32_t hash) { __builtin_prefetch(&v->slot[hash & v->slot_mask]); }

/* tok_vocab_may_hold - false: no text has this hash. Of a text that is none it says so but once in thousands, and reads none: to be sure cost 10 million
 * instructions and a cache miss for each half of a merge, 2 ms of the 7 that opening Qwen2 takes. */
static inline bool tok_vocab_may_hold(const struct tok_vocab *v, uint32_t hash)
{
    for (uint32_t i = 0; i < TOK_PROBES; i++) {
        uint32_t slot = v->slot[(hash + i) & v->slot_mask];
        if (slot == TOK_FREE) return false;
        if (((slot ^ hash) & ~v->id_mask) == 0) return true;
    }
    return false;
}

/* ---- merging (tok_merge.c) ---- */

/* A symbol is a run of bytes of one word that may join its right neighbour. */
struct tok_symbol {
    int32_t id;          /* token, -1 if the bytes are none */
    int32_t prev, next;  /* neighbours, -1 at the ends of the word */
    uint32_t begin, end; /* bytes of the word */
    uint32_t rank;       /* of joining with next: smallest first; TOK_NO_MERGE: never */
    int32_t merged;      /* the token that this would give, -1 if it is none */
};
enum { TOK_NO_MERGE = -1 }; /* UINT32_MAX as a rank */

struct tok_encoder;
/* Sets a->rank and a->merged, if there is something to set, for joining a with its right neighbour b. The answer must depend on the two texts only. */
typedef void (*tok_rate)(const struct tok_encoder *enc, const char *word, struct tok_symbol *a, const struct tok_symbol *b);

/* tok_merge_reserve - room for n symbols in enc->symbol. */
status tok_merge_reserve(struct tok_encoder *enc, size_t n, struct err *e) MUST_USE;
/* tok_merge_run - joins neighbours among the n >= 1 symbols in enc->symbol, smallest rank first, leftmost first among equals, until no
 * pair has a rank. The caller has set id, begin and end. Afterwards the word is symbol 0 and its next chain. O(n log n).
 * Fails only for want of memory (n > TOK_SCAN). */
status tok_merge_run(struct tok_encoder *enc, const char *word, size_t n, tok_rate rate, struct err *e) MUST_USE;

/* tok_sift_down - lets item i of a heap of n, smallest on top, sink to its place. */
void tok_sift_down(uint64_t *heap, size_t n, size_t i);

/* ---- one encode call ---- */

enum {
    TOK_SYMBOLS = 64,  /* symbols held without allocation */
    TOK_SCAN = 32,     /* up to this many symbols the best pair is found by walking, above by a heap */
    TOK_BUF = 256,     /* bytes of rewritten word held without allocation */
    TOK_CACHE_MIN = 2048,   /* bytes of text from which on words are remembered */
    TOK_CACHE_SLOTS = 16384, /* most, 512 KiB; a text gets one for each 8 bytes */
    TOK_JOIN_MIN = 16384,   /* bytes of text from which on joins are remembered: clearing their table costs as much as 400 bytes of text */
    TOK_JOIN_SLOTS = 32768, /* 512 KiB */
    TOK_CACHED_LEN = 64,    /* longest remembered word */
    TOK_NEAR_IDS = 3,       /* most tokens of one of up to 16 bytes that is kept itself */
    TOK_CACHED_IDS = 5,     /* most tokens of one */
    TOK_FAR = 255,
};

/* Words repeat: the ids of a short word seen before are copied. One slot per hash, the last word wins. Half a cache line. */
struct tok_cached {
    union {
        struct { uint64_t a, b; } key; /* tok_key */
        struct { uint32_t at, len; int32_t id[2]; } far; /* bytes of the text, the last ids */
    } word;
    int32_t id[TOK_NEAR_IDS];
    uint8_t len; /* 0: free; 1 to 16: `key` is the word; TOK_FAR: `far` */
    uint8_t n;
};

/* Two texts always join to the same text, and a few thousand pairs are most of what a text asks for. One slot per hash, the last pair wins. */
struct tok_pair {
    int32_t left, right; /* tokens; left -1: free slot */
    uint32_t rank;
    int32_t merged; /* -1: the joined text is no token */
};

struct tok_encoder {
    const struct tokenizer *t;
    const char *text; /* all of it: what tok_cached.at counts from */
    int32_t *ids;
    int64_t cap, n; /* n may pass cap: then ids are only counted */
    struct tok_symbol *symbol, symbol_own[TOK_SYMBOLS];
    size_t symbol_cap;
    uint64_t *heap;
    size_t heap_cap;
    char *buf, buf_own[TOK_BUF];
    size_t buf_cap;
    struct tok_cached *cache; /* [cache_mask + 1]; NULL: short text */
    uint32_t cache_mask;
    struct tok_pair *joins;   /* [TOK_JOIN_SLOTS] what was learned about pairs of tokens; NULL: short text, or a model without merging */
};

static inline void tok_emit(struct tok_encoder *enc, int32_t id)
{
    if (enc->n < enc->cap) enc->ids[enc->n] = id;
    enc->n++;
}

typedef status (*tok_encode_word)(struct tok_encoder *enc, const char *word, size_t n, struct err *e);
/* tok_encode_cached - encode(word), or the ids that it gave for the same word before. word lies in enc->text. */
status tok_encode_cached(struct tok_encoder *enc, const char *word, size_t n, tok_encode_word encode, struct err *e) MUST_USE;
/* tok_reserve_buf - room for n bytes in enc->buf; what it held is lost. */
status tok_reserve_buf(struct tok_encoder *enc, size_t n, struct err *e) MUST_USE;

/* ---- special tokens (tok_special.c) ---- */

/* The roles of single tokens; each has a key in the file, most have known texts as well. */
enum tok_role {
    ROLE_BOS, ROLE_EOS, ROLE_UNKNOWN, ROLE_SEP, ROLE_EOT, ROLE_EOM, ROLE_FIM_PREFIX, ROLE_FIM_SUFFIX, ROLE_FIM_MIDDLE, ROLE_FIM_PAD, ROLE_FIM_REPO,
    ROLE_FIM_FILE, N_ROLES
};

/* The texts to look for, in byte order. */
struct tok_special_set {
    int32_t n;
    int32_t *id;      /* [n] */
    int32_t *shorter; /* [n] the longest other entry that begins this one, -1 if none */
    int32_t first[257]; /* entries that begin with byte b: first[b] .. first[b + 1] - 1 */
    uint8_t second[256][32]; /* bit c of row b: some entry begins with the bytes b c, or is the byte b */
    int32_t n_len;
    uint32_t *len;    /* [n_len] the distinct lengths, longest first */
};

/* A special token found in the text: bytes begin .. end - 1 belong to it, stripped spaces included. entry -1: overruled by another. */
struct tok_hit {
    uint32_t begin, end;
    int32_t entry;
};

/* tok_special_open - reads the ids of the roles, finds tokens by known texts, marks end tokens, builds both sets. */
status tok_special_open(struct tokenizer *t, const struct gguf *g, struct err *e) MUST_USE;
/* tok_special_find - hits in the order of the text, to be released with mem_free. Longer tokens first, then smaller ids, then leftmost. */
status tok_special_find(const struct tokenizer *t, const char *text, size_t n, bool control, struct tok_hit **hits, int64_t *n_hits,
                        struct err *e) MUST_USE;

/* ---- tries (tok_trie.c): the tokens that begin at a place ---- */

/* Longest text: the walk from one place is bounded, and so the time by the length of the text. Real vocabularies stay below 130 bytes. */
enum { TOK_TRIE_LEN = 512 };

struct tok_trie_item {
    struct str text; /* not empty; must outlive the building only */
    uint64_t key;    /* set while building */
    int32_t id;
};
/* Node 0 is the root, and as a child means "none". */
struct tok_trie {
    uint32_t *child;    /* [n + 1] children of node i: child[i] .. child[i + 1] - 1, by label */
    uint8_t *label;     /* [n] the byte that leads here */
    int32_t *id;        /* [n] the token that ends here, -1: none */
    uint32_t root[256]; /* children of the root */
};
/* tok_trie_build - sorts the items. Of two with one text the smaller id is kept. ERR_FORMAT: a text is too long. */
status tok_trie_build(struct tok_trie *trie, struct tok_trie_item *item, size_t n, struct arena *mem, struct err *e) MUST_USE;
/* tok_trie_of_vocab - over the tokens that have one of the attributes. */
status tok_trie_of_vocab(struct tok_trie *trie, struct tokenizer *t, unsigned attrs, struct err *e) MUST_USE;
uint32_t tok_trie_step(const struct tok_trie *trie, uint32_t node, char byte); /* the child, 0: none */
/* tok_trie_longest - the longest token at p and its bytes; -1 if there is none. */
int32_t tok_trie_longest(const struct tok_trie *trie, const char *p, size_t n, size_t *len);

/* ---- compiled normalization rules (tok_charsmap.c) ---- */

struct tok_charsmap {
    const uint8_t *unit; /* [n_units] u32, unaligned */
    uint32_t n_units;    /* 0: no rules */
    const char *text;    /* [n_text] replacements, the last byte is a NUL */
    size_t n_text;
};
/* tok_charsmap_open - views into g; no rules if the key is missing. */
status tok_charsmap_open(struct tok_charsmap *m, const struct gguf *g, struct err *e) MUST_USE;
/* tok_charsmap_find - the rule for the longest prefix of p: its replacement and the bytes it replaces. false, nothing set: none. */
bool tok_charsmap_find(const struct tok_charsmap *m, const char *p, size_t n, struct str *out, size_t *used);

/* ---- the algorithms ---- */

/* What ENCODE_BOS puts around the text. */
enum tok_frame {
    FRAME_FILE,    /* BOS and EOS, as the file says */
    FRAME_CLS_SEP, /* always BOS and SEP */
    FRAME_NONE,
};

struct tok_model {
    const char *name; /* tokenizer.ggml.model */
    bool has_pre;
    const char *pre; /* the row of pretok, whatever the file says; NULL: tokenizer.ggml.pre */
    enum tok_frame frame;
    bool adds_bos, adds_eos, adds_space; /* when the file does not say */
    bool joins; /* encode calls tok_merge_run */
    int32_t bos, eos, unknown, sep; /* when the file does not say; dropped if >= n_vocab; -1: none */
    status (*open)(struct tokenizer *t, const struct gguf *g, struct err *e);
    status (*encode)(struct tok_encoder *enc, const char *text, size_t n, struct err *e); /* text without special tokens, n >= 1 */
    size_t (*piece)(const struct tokenizer *t, struct str text, char *buf, size_t cap);   /* of a normal token */
};
extern const struct tok_model tok_bpe, tok_gemma4, tok_whitespace, tok_spm, tok_wordpiece, tok_unigram, tok_rwkv, tok_plamo;

/* One more way to make a text of two; the first is in the text's entry. */
struct tok_split {
    uint32_t rank, left_len;
    int32_t next; /* 0: no other */
};

struct tokenizer {
    struct arena mem;
    const struct tok_model *model;
    const struct pretok *pre; /* NULL unless model->has_pre */
    struct tok_vocab vocab;
    int32_t role[N_ROLES]; /* -1: none */
    bool add_bos, add_eos, add_space;
    int32_t first, last; /* what ENCODE_BOS adds, -1: nothing */
    struct tok_special_set special[2]; /* [0] user-defined tokens, [1] control and unknown ones too */
    int32_t byte_id[256];              /* the token of a single byte, -1: none */
    struct tok_split *split;           /* bpe: merges whose result is that of an earlier one. [0] is none */
    struct tok_vocab loose;            /* bpe: texts that a merge makes and that are no tokens */
    char byte_text[256][2];            /* bpe: the character of the byte alphabet */
    bool glued[256];                   /* U+2581 models: some token or merge has a space right after this byte */
    bool lead_space;                   /* decoding drops the space before the first word */
    bool lower_case, strip_accents;    /* bert, whitespace: fold before looking up */
    bool merge_spaces;                 /* t5: a run of spaces is one, none at the ends */
    float *score, unknown_score;       /* t5: [n] */
    int32_t *cost;                     /* plamo2: [n] scores in ten thousandths */
    struct tok_trie trie, user_trie;   /* bert, t5, rwkv, plamo2: all tokens; t5: the user-defined ones */
    struct tok_charsmap charsmap;      /* t5 */
};

/* tok_put - appends n bytes at *at if they fit in cap, and counts them. */
static inline void tok_put(char *buf, size_t cap, size_t *at, const char *p, size_t n)
{
    if (*at <= cap && n <= cap - *at && n) memcpy(buf + *at, p, n);
    *at += n;
}

/* ---- U+2581 for a space (tok_space.c) ---- */

#define TOK_SPACE "\xe2\x96\x81"
enum { TOK_SPACE_LEN = 3 };
/* tok_mark_glued - notes in t->glued the bytes after which s has a space. */
void tok_mark_glued(struct tokenizer *t, struct str s);
/* tok_cut_len - bytes up to the first place where the text may be cut, at least 1. */
size_t tok_cut_len(const struct tokenizer *t, const char *text, size_t n);
/* tok_write_spaces - the word into enc->buf with U+2581 for spaces, `lead`: and one before it. *len: bytes written. */
status tok_write_spaces(struct tok_encoder *enc, const char *word, size_t n, bool lead, size_t *len, struct err *e) MUST_USE;
/* tok_read_spaces - a tok_model.piece: the text with spaces for U+2581. */
size_t tok_read_spaces(const struct tokenizer *t, struct str s, char *buf, size_t cap);

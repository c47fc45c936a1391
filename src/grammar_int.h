/* grammar_int - the compiled form. A rule is a list of alternatives; an alternative is a run of elements ended by ELEM_END. Groups and repeated items
 * are rules without a name. A class of characters is a small automaton over bytes, so that the matcher knows bytes only. */
#pragma once
#include "src/grammar.h"

enum elem_kind {
    ELEM_END,       /* of an alternative */
    ELEM_BYTE,      /* a: the byte */
    ELEM_CLASS,     /* a: first state of its automaton */
    ELEM_RULE,      /* a: rule */
    ELEM_REPEAT,    /* a: rule, min..max times */
    ELEM_TOKEN,     /* a: token id */
    ELEM_TOKEN_NOT, /* a: token id */
};
enum { REPEAT_NO_MAX = UINT16_MAX, REPEAT_MAX = 10000, RULES_MAX = 1 << 16, CLASS_STATES_MAX = 1 << 13 };

struct elem { uint8_t kind; uint16_t min, max; uint32_t a; };
struct alt { uint32_t elem, next; };      /* next: index of the next alternative, 0 = last */
struct rule { uint32_t alt, last; };      /* first and last alternative, 0 = none yet */
enum { CLASS_DEAD = 0, CLASS_DONE = 1 };  /* other values: a state */
struct class_state { uint16_t next[256]; };

struct grammar {
    struct elem *elem; uint32_t n_elem, elem_cap;
    struct alt *alt; uint32_t n_alt, alt_cap;         /* alt[0] is not used */
    struct rule *rule; uint32_t n_rule, rule_cap;
    struct class_state *state; uint32_t n_state, state_cap; /* states 0 and 1 stand for dead and done */
    uint32_t root;
};

/* A set of code points: ranges, sorted and disjoint after class_normalise. */
struct range { uint32_t lo, hi; };
/* class_normalise - sorts, merges, complements when `not`, leaves surrogates out. r has room for n + 2 ranges. Returns the new number. */
int64_t class_normalise(struct range *r, int64_t n, bool not);
/* class_compile - the automaton of n normalised ranges; *first = its first state. ERR_USAGE when the grammar's states are used up. */
status class_compile(struct grammar *g, const struct range *r, int64_t n, uint32_t *first, struct err *e) MUST_USE;

/* grammar_room - array p of items of size `item`: room for n; grows *cap. */
status grammar_room(void *p, uint32_t n, uint32_t *cap, size_t item, struct err *e) MUST_USE;

/* The vocabulary in order of bytes: nodes of a trie, parents before children, children in one run behind their parent. */
struct token_trie {
    int64_t n_vocab;
    int64_t n;            /* nodes */
    uint8_t *byte;        /* [n] */
    uint16_t *depth;      /* [n] bytes from the root, 1 = a first byte */
    uint32_t *skip;       /* [n] index behind the subtree */
    int32_t *token;       /* [n] a token that ends here, -1 = none */
    int32_t *same;        /* [n_vocab] the next token with the same bytes, -1 = none */
    char *text;           /* all bytes; token id: text[at[id]] .. text[at[id + 1]] */
    uint32_t *at;         /* [n_vocab + 1] */
    uint64_t *end_bits;   /* [(n_vocab + 63) / 64] end tokens */
    bool *is_end;         /* [n_vocab] */
};

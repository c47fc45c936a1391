/* template_int - what the parts of the template engine share; private to src/template_*.c.
 *   template_lex.c    source text -> tokens, whitespace control
 *   template_parse.c  tokens -> nodes; every name that can be checked early is
 *   template_value.c  values of one render: memory, text, equality, order, arithmetic, printing
 *   template_eval.c   nodes + variables -> output
 *   template_filters.c template_methods.c   tables of what a template may call
 *   template_text.c   UTF-8, white space, case
 * Nothing here owns memory but the template (its arena) and the render (its arena and output buffer): a failed step just returns. */
#pragma once
#include "src/template.h"

enum {
    TEMPLATE_SOURCE = 1 << 20,             /* bytes of template text */
    TEMPLATE_TREE = 64 << 20,              /* arena bytes of a parsed template */
    TEMPLATE_FRAMES = 8 * TEMPLATE_DEPTH,  /* nested evaluations: at most 800 bytes of C stack each, so below 1 MiB */
    TEMPLATE_STACK = 4096,                 /* arguments of all calls in progress */
    PARAMS_MAX = 8,
};

struct text {
    const char *p;
    size_t n;
};
#define TEXT(literal) ((struct text){ literal, sizeof(literal) - 1 })
bool text_eq(struct text a, struct text b);
bool text_is(struct text a, const char *word);

/* ---- UTF-8 (template_text.c). A byte that is no UTF-8 counts as one character, coded 0xDC00 + byte, and is written back as it was. */
int text_get(const char *p, const char *end, uint32_t *cp); /* bytes taken, >= 1; p < end */
int text_put(uint32_t cp, char out[4]);                     /* bytes written */
int64_t text_length(struct text t);                         /* characters */
size_t text_offset(struct text t, int64_t index);           /* byte offset of a character, t.n past the end */
struct text text_strip(struct text t, bool left, bool right);
struct text text_strip_chars(struct text t, struct text chars, bool left, bool right);
bool cp_is_space(uint32_t cp);
bool cp_is_alpha(uint32_t cp);
bool cp_is_printable(uint32_t cp);
uint32_t cp_upper(uint32_t cp);
uint32_t cp_lower(uint32_t cp);

/* ---- values ---- */
enum val_kind {
    V_ABSENT, /* an argument that was not given */
    V_UNDEF,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_LIST, /* from here to V_GEN: struct seq */
    V_TUPLE,
    V_RANGE,
    V_VIEW, /* dict.items() and the like: has a length, cannot be indexed */
    V_GEN,  /* what map, select, ... return: can be walked once, has no length, is always true */
    V_DICT, /* struct dict, as V_NAMESPACE */
    V_NAMESPACE,
    V_MACRO,
    V_FUNC,
    V_METHOD,
    V_LOOP,
    V_CYCLER,
    V_JOINER,
    V_KINDS
};
enum { STR_MARKUP = 1 };                               /* val.flag of V_STR: marked safe; joining escapes the other side */
enum { UNDEF_NAME, UNDEF_HINT, UNDEF_MEMBER };         /* val.flag of V_UNDEF; UNDEF_MEMBER + kind of the owner */
struct val {
    enum val_kind kind;
    int flag;
    union {
        int64_t i; /* V_INT, V_BOOL */
        double f;
        const char *p; /* V_STR text, V_UNDEF name or hint */
        struct seq *seq;
        struct dict *dict;
        const struct macro *macro;
        const struct builtin *fn;
        const struct method *method;
        struct loop *loop;
        struct cycler *cycler; /* V_CYCLER and V_JOINER */
    };
    size_t n; /* bytes at p */
};
struct seq {
    int64_t n, cap;
    struct val *at;
    struct text label; /* V_RANGE: how it prints; V_VIEW: "dict_items" */
    bool group;        /* a pair of groupby: .grouper, .list */
};
struct entry {
    uint32_t hash;
    struct val key, value;
};
struct dict {
    int64_t n, cap;
    struct entry *at; /* insertion order */
};
struct cycler {
    struct seq *items; /* joiner: the separator */
    int64_t at;
};
struct macro {
    const struct node *node; /* N_MACRO or N_CALL_BLOCK */
    struct scope *scope;     /* where it was defined */
};
struct method {
    struct val self;
    const struct builtin *row;
};

static inline struct val val_none(void) { return (struct val){ .kind = V_NONE }; }
static inline struct val val_bool(bool b) { return (struct val){ .kind = V_BOOL, .i = b }; }
static inline struct val val_int(int64_t i) { return (struct val){ .kind = V_INT, .i = i }; }
static inline struct val val_float(double f) { return (struct val){ .kind = V_FLOAT, .f = f }; }
static inline struct val val_str(struct text t) { return (struct val){ .kind = V_STR, .p = t.p, .n = t.n }; }
static inline struct val val_undef(int why, struct text t) { return (struct val){ .kind = V_UNDEF, .flag = why, .p = t.p, .n = t.n }; }
static inline struct text val_text(const struct val *v) { return (struct text){ v->p, v->n }; }
static inline bool val_is_seq(const struct val *v) { return v->kind >= V_LIST && v->kind <= V_GEN; }
static inline bool val_is_num(const struct val *v) { return v->kind >= V_BOOL && v->kind <= V_FLOAT; }
static inline bool val_is_whole(const struct val *v) { return v->kind == V_BOOL || v->kind == V_INT; }
extern const char *const val_type_names[V_KINDS]; /* Python's: "str", "dict", "NoneType" */

/* ---- tokens and nodes ---- */
enum tok {
    T_EOF, T_DATA, T_VAR_BEGIN, T_VAR_END, T_BLOCK_BEGIN, T_BLOCK_END, T_NAME, T_STR, T_INT, T_FLOAT,
    T_ADD, T_SUB, T_MUL, T_DIV, T_FLOORDIV, T_MOD, T_POW, T_TILDE, T_LBRACKET, T_RBRACKET, T_LPAREN, T_RPAREN, T_LBRACE, T_RBRACE,
    T_EQ, T_NE, T_LT, T_LE, T_GT, T_GE, T_ASSIGN, T_DOT, T_COLON, T_PIPE, T_COMMA, T_SEMICOLON
};
struct token {
    enum tok kind;
    int line;
    struct text text; /* T_DATA, T_NAME, T_STR (unescaped); operators as written */
    int64_t i;
    double f;
};
struct lexer {
    const char *name, *src, *p, *end;
    int line;
    enum { LEX_DATA, LEX_TAG, LEX_BLOCK, LEX_VAR } state; /* LEX_TAG: p stands on an opening tag, the text before it is done */
    char open[TEMPLATE_DEPTH];                            /* closing brackets owed */
    int n_open;
    struct arena *arena;
    struct err *e;
};
/* lexer_init - copies n bytes of source with newlines made "\n" and one trailing newline dropped. */
status lexer_init(struct lexer *x, struct arena *a, const char *src, size_t n, const char *name, struct err *e) MUST_USE;
status lexer_next(struct lexer *x, struct token *t) MUST_USE;

enum op { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW, OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN, OP_NOT_IN };
enum node_kind {
    /* expressions */
    N_CONST,    /* v */
    N_NAME,     /* v = name */
    N_LIST, N_TUPLE, /* a.. = items */
    N_DICT,     /* a.. = key, value, key, value */
    N_AND, N_OR, /* a, b */
    N_NOT, N_NEG, N_POS, /* a */
    N_BINARY,   /* op, a, b */
    N_COMPARE,  /* a, b.. = N_CMP(op, a) */
    N_CMP,
    N_CONCAT,   /* a.. */
    N_COND,     /* a ? b : c; c may be NULL */
    N_ATTR,     /* a . v */
    N_ITEM,     /* a [ b ] */
    N_SLICE,    /* a [ b : c : d ] */
    N_CALL,     /* a ( args ) */
    N_FILTER,   /* a | row(args); a NULL: the text of the block around it */
    N_TEST,     /* a is row(args) */
    N_KWARG,    /* v = a, inside args */
    N_NS_ATTR,  /* assignment target: v . d->v */
    /* statements */
    N_DATA,     /* v */
    N_OUTPUT,   /* a */
    N_IF,       /* a, then b.., else c.. (an elif is a single N_IF) */
    N_FOR,      /* target d, in a, if c, body b.., else args.. */
    N_SET,      /* target d = a */
    N_SET_BLOCK, /* target d, body b.., filter a or NULL */
    N_WITH,     /* args = N_KWARG, body b.. */
    N_FILTER_BLOCK, /* filter a, body b.. */
    N_MACRO,    /* v = name, args = N_KWARG parameters (a = default or NULL), body b.. */
    N_CALL_BLOCK, /* call a, parameters args, body b.. */
    N_SCOPED,   /* generation: body b.. */
    N_BREAK, N_CONTINUE,
    N_KINDS
};
enum { MACRO_VARARGS = 1, MACRO_KWARGS = 2, MACRO_CALLER = 4 }; /* node.op of N_MACRO: special names its body uses */
struct node {
    enum node_kind kind;
    int line, op;
    struct node *a, *b, *c, *d, *args;
    struct node *next; /* in the list that holds it */
    struct val v;
    const struct builtin *row;
};
struct template {
    struct arena arena;
    const char *name;
    struct node *body;
};

/* ---- what a template may call ---- */
struct call {
    struct val self;       /* filter input, test subject, method owner; V_ABSENT for functions */
    const struct val *pos; /* as written */
    int n_pos;
    const struct val *kw; /* name, value, name, value */
    int n_kw;
    struct val arg[PARAMS_MAX]; /* bound to the row's parameters */
};
struct render;
typedef status template_fn(struct render *r, struct call *c, struct val *out);
/* params: names separated by spaces, bound by position or keyword; the first `required` must be given. NULL: the function reads pos and kw
 * itself. kinds: bit per val_kind of owner (methods only). */
struct builtin {
    const char *name, *params;
    int required;
    template_fn *run;
    unsigned kinds;
};
const struct builtin *template_filter(struct text name); /* NULL when unknown */
const struct builtin *template_test(struct text name);
const struct builtin *template_global(struct text name);
const struct builtin *template_method(enum val_kind kind, struct text name);

/* ---- one render ---- */
struct var {
    struct text name;
    struct val v;
};
struct scope {
    struct scope *up;
    struct var *at;
    int64_t n, cap;
    bool captured; /* a macro refers to it: its storage may not be reused by the next turn of a loop */
};
struct render {
    const struct template *t;
    struct err *e;
    struct arena heap;
    char *tip, *tip_end; /* rest of the current page */
    char *out;           /* output; the tail doubles as the place where text is built (text_begin, text_end) */
    size_t out_n, out_cap;
    struct scope *scope;
    struct val *stack;
    int n_stack;
    int64_t steps, now;
    int frames, calls, line;
    enum { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE } flow;
    struct val block_text; /* input of an N_FILTER without a */
    bool blocks;           /* generation blocks print where they begin and end */
};

status fail(struct render *r, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_USE; /* ERR_RUNTIME "name line n: ..." */
/* fail_undef - if v is undefined: the error that names it; OK otherwise. */
status fail_undef(struct render *r, const struct val *v) MUST_USE;
status charge(struct render *r, size_t bytes) MUST_USE;       /* one step per 256 bytes of work: copies count too, not only nodes */
status charge_chars(struct render *r, size_t bytes) MUST_USE; /* walking UTF-8 by characters is some eight times slower */
status down(struct render *r) MUST_USE; /* one level of recursion over data; r->frames-- on the way back */
status heap_fail(struct render *r, size_t bytes) MUST_USE; /* the limit or the machine refused this many bytes */
status heap_get(struct render *r, size_t bytes, void *pointer) MUST_USE; /* *(void **)pointer = memory, aligned to 8 */

status put(struct render *r, const char *p, size_t n) MUST_USE;
status put_text(struct render *r, struct text t) MUST_USE;
status put_cp(struct render *r, uint32_t cp) MUST_USE;
status put_val(struct render *r, const struct val *v) MUST_USE;  /* str(v) */
status put_repr(struct render *r, const struct val *v) MUST_USE; /* repr(v) */
static inline size_t text_begin(const struct render *r) { return r->out_n; }
status text_end(struct render *r, size_t mark, struct val *out) MUST_USE; /* takes what was put since mark as a string */
status to_text(struct render *r, const struct val *v, struct text *out) MUST_USE; /* str(v) */
int float_repr(double f, char buf[40]);

status seq_new(struct render *r, enum val_kind kind, int64_t cap, struct val *out) MUST_USE;
status seq_push(struct render *r, struct seq *s, struct val v) MUST_USE;
status dict_new(struct render *r, enum val_kind kind, int64_t cap, struct val *out) MUST_USE;
status dict_set(struct render *r, struct dict *d, struct val key, struct val v) MUST_USE;
status dict_find(struct render *r, const struct dict *d, const struct val *key, struct entry **out) MUST_USE; /* NULL: absent */
status val_from_json(struct render *r, const struct json *j, int depth, struct val *out) MUST_USE;

struct iter {
    const struct val *v; /* not read after iter_begin */
    struct seq *seq;
    struct dict *dict;
    const char *p, *end;
    int64_t i;
};
status iter_begin(struct render *r, const struct val *v, struct iter *it) MUST_USE; /* fails on what cannot be walked */
bool iter_next(struct iter *it, struct val *out);
status to_list(struct render *r, const struct val *v, struct val *out) MUST_USE; /* a new V_LIST */

bool val_true(const struct val *v);
status val_length(struct render *r, const struct val *v, int64_t *out) MUST_USE;
status val_equal(struct render *r, const struct val *a, const struct val *b, bool *out) MUST_USE;
status val_order(struct render *r, const struct val *a, const struct val *b, int *out) MUST_USE; /* -1, 0, 1, 2 = unordered (NaN) */
status val_contains(struct render *r, const struct val *box, const struct val *item, bool *out) MUST_USE;
status val_binary(struct render *r, enum op op, const struct val *a, const struct val *b, struct val *out) MUST_USE;
status val_compare(struct render *r, enum op op, const struct val *a, const struct val *b, bool *out) MUST_USE;
status want_int(struct render *r, const struct val *v, const char *what, int64_t *out) MUST_USE;
status put_escaped(struct render *r, struct text t) MUST_USE; /* HTML */

/* template_eval.c */
status get_attr(struct render *r, const struct val *v, struct text name, struct val *out) MUST_USE;
status get_item(struct render *r, const struct val *v, const struct val *key, struct val *out) MUST_USE;
status call_row(struct render *r, const struct builtin *row, struct call *c, struct val *out) MUST_USE; /* binds arguments, runs */
status loop_attr(struct render *r, struct loop *l, struct text name, struct val *out) MUST_USE;
status loop_cycle(struct render *r, struct call *c, struct val *out) MUST_USE;
status loop_changed(struct render *r, struct call *c, struct val *out) MUST_USE;

/* template_methods.c */
status text_replace(struct render *r, struct text s, struct text old, struct text with, int64_t limit, struct val *out) MUST_USE;
status text_case(struct render *r, struct text s, uint32_t (*map)(uint32_t), struct val *out) MUST_USE;
/* chars absent or none: white space */
status text_trim(struct render *r, struct text s, const struct val *chars, bool left, bool right, struct val *out) MUST_USE;
status text_capitalize(struct render *r, struct text s, struct val *out) MUST_USE;
status text_center(struct render *r, struct text s, int64_t width, struct val *out) MUST_USE;
bool text_line(struct text *rest, struct text *line); /* the next line without its end, as str.splitlines; false when rest is empty */
bool text_cased(struct text s, bool upper);           /* str.isupper, str.islower */
status dict_items(struct render *r, const struct dict *d, enum val_kind kind, struct val *out) MUST_USE; /* (key, value) tuples */

/* template_format.c */
status format_percent(struct render *r, struct text fmt, const struct val *args, struct val *out) MUST_USE; /* fmt % args */
status format_braces(struct render *r, struct call *c, struct val *out) MUST_USE;                           /* fmt.format(...) */
status format_filter(struct render *r, struct call *c, struct val *out) MUST_USE;                           /* fmt | format(...) */

/* template_json.c */
status filter_tojson(struct render *r, struct call *c, struct val *out) MUST_USE;
status filter_from_json(struct render *r, struct call *c, struct val *out) MUST_USE;

static inline bool given(const struct val *v) { return v->kind != V_ABSENT && v->kind != V_NONE; }

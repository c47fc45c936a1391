/* template_parse - tokens to nodes, by recursive descent; binary operators from one table of levels.
 * Knows the names of filters, tests and functions (so that unknown ones fail here) but not what they do. Nesting of brackets and blocks is
 * counted (parser.depth), so a hostile template cannot exhaust the C stack.
 * Source: the grammar of Jinja2 3.1 (documentation, "Template Designer"; precedence checked against jinja2/parser.py). */
#include "src/template_int.h"
#include <string.h>

struct name_ref {
    struct text name;
    int line;
    struct name_ref *next;
};
struct parser {
    struct lexer lex;
    struct token cur, peek;
    struct arena *arena;
    const char *name;
    struct err *e;
    int depth, loops; /* loops: for statements around this point within one macro */
    unsigned macro_uses;
    struct name_ref *bound, *tested, *called; /* names assigned, names asked for with "is defined", names called as functions */
};
struct list {
    struct node *first, **tail;
};

static void list_new(struct list *l)
{
    l->first = NULL;
    l->tail = &l->first;
}

static void list_add(struct list *l, struct node *n)
{
    *l->tail = n;
    l->tail = &n->next;
}

static status no_memory(struct parser *p)
{
    if (p->arena->total > TEMPLATE_TREE - 2 * TEMPLATE_SOURCE) /* no single request is larger than that rest */
        return err_set(p->e, ERR_FORMAT, "%s line %d: template needs more than %d bytes of memory", p->name, p->cur.line, TEMPLATE_TREE);
    return err_set(p->e, ERR_MEMORY, "%s line %d: no memory for the parsed template", p->name, p->cur.line);
}

/* fail_at - "name line n: what 'text'" */
static status fail_at(struct parser *p, int line, const char *what, struct text t)
{
    int n = t.n > 60 ? 60 : (int)t.n;
    return err_set(p->e, ERR_FORMAT, "%s line %d: %s '%.*s'", p->name, line, what, n, t.p);
}

/* A token as messages name it. */
static struct text token_text(const struct token *t)
{
    switch (t->kind) {
    case T_EOF: return TEXT("end of template");
    case T_DATA: return TEXT("template text");
    case T_VAR_BEGIN: return TEXT("{{");
    case T_VAR_END: return TEXT("}}");
    case T_BLOCK_BEGIN: return TEXT("{%");
    case T_BLOCK_END: return TEXT("%}");
    case T_INT:
    case T_FLOAT: return TEXT("number");
    default: return t->text;
    }
}

static status unexpected(struct parser *p, const char *wanted)
{
    struct text t = token_text(&p->cur);
    return err_set(p->e, ERR_FORMAT, "%s line %d: expected %s, found '%.*s'", p->name, p->cur.line, wanted, t.n > 60 ? 60 : (int)t.n, t.p);
}

static status next(struct parser *p)
{
    p->cur = p->peek;
    return p->cur.kind == T_EOF ? OK : lexer_next(&p->lex, &p->peek);
}

static bool cur_is(const struct parser *p, const char *word) { return p->cur.kind == T_NAME && text_is(p->cur.text, word); }

static status skip_word(struct parser *p, const char *word, bool *found)
{
    *found = cur_is(p, word);
    return *found ? next(p) : OK;
}

static status expect(struct parser *p, enum tok kind, const char *what) { return p->cur.kind == kind ? next(p) : unexpected(p, what); }

static status enter(struct parser *p)
{
    if (++p->depth > TEMPLATE_DEPTH)
        return err_set(p->e, ERR_FORMAT, "%s line %d: nested deeper than %d", p->name, p->cur.line, TEMPLATE_DEPTH);
    return OK;
}

static status node_new(struct parser *p, enum node_kind kind, int line, struct node **out)
{
    struct node *n = *out = arena_zalloc(p->arena, 1, sizeof *n);
    if (!n) return no_memory(p);
    n->kind = kind;
    n->line = line;
    return OK;
}

static status remember(struct parser *p, struct name_ref **where, struct text name, int line)
{
    struct name_ref *ref = arena_alloc(p->arena, sizeof *ref);
    if (!ref) return no_memory(p);
    *ref = (struct name_ref){ name, line, *where };
    *where = ref;
    return OK;
}

/* ---- expressions ---- */

static status parse_expr(struct parser *p, struct node **out);
static status parse_primary(struct parser *p, struct node **out);
static status parse_postfix(struct parser *p, struct node **out, bool filters);

enum level { LV_OR = 1, LV_AND, LV_NOT, LV_COMPARE, LV_SUM, LV_CONCAT, LV_PRODUCT, LV_POWER };
static const struct binop {
    enum tok tok;
    const char *word; /* T_NAME */
    enum level level;
    enum node_kind kind;
    enum op op;
} binops[] = {
    { T_NAME, "or", LV_OR, N_OR, 0 },
    { T_NAME, "and", LV_AND, N_AND, 0 },
    { T_EQ, NULL, LV_COMPARE, N_COMPARE, OP_EQ },
    { T_NE, NULL, LV_COMPARE, N_COMPARE, OP_NE },
    { T_LT, NULL, LV_COMPARE, N_COMPARE, OP_LT },
    { T_LE, NULL, LV_COMPARE, N_COMPARE, OP_LE },
    { T_GT, NULL, LV_COMPARE, N_COMPARE, OP_GT },
    { T_GE, NULL, LV_COMPARE, N_COMPARE, OP_GE },
    { T_NAME, "in", LV_COMPARE, N_COMPARE, OP_IN },
    { T_NAME, "not", LV_COMPARE, N_COMPARE, OP_NOT_IN }, /* followed by "in" */
    { T_ADD, NULL, LV_SUM, N_BINARY, OP_ADD },
    { T_SUB, NULL, LV_SUM, N_BINARY, OP_SUB },
    { T_TILDE, NULL, LV_CONCAT, N_CONCAT, 0 },
    { T_MUL, NULL, LV_PRODUCT, N_BINARY, OP_MUL },
    { T_DIV, NULL, LV_PRODUCT, N_BINARY, OP_DIV },
    { T_FLOORDIV, NULL, LV_PRODUCT, N_BINARY, OP_FLOORDIV },
    { T_MOD, NULL, LV_PRODUCT, N_BINARY, OP_MOD },
    { T_POW, NULL, LV_POWER, N_BINARY, OP_POW }, /* groups to the left, as in Jinja2 */
};

static const struct binop *binop_here(const struct parser *p)
{
    for (int i = 0; i < ARRAY_LEN(binops); i++) {
        if (binops[i].tok != p->cur.kind) continue;
        if (binops[i].tok == T_NAME && !text_is(p->cur.text, binops[i].word)) continue;
        if (binops[i].op == OP_NOT_IN && !(p->peek.kind == T_NAME && text_is(p->peek.text, "in"))) continue;
        return &binops[i];
    }
    return NULL;
}

static status parse_unary(struct parser *p, bool filters, struct node **out)
{
    enum tok kind = p->cur.kind;
    if (kind == T_SUB || kind == T_ADD) {
        TRY(enter(p));
        struct node *n;
        TRY(node_new(p, kind == T_SUB ? N_NEG : N_POS, p->cur.line, &n));
        TRY(next(p));
        TRY(parse_unary(p, false, &n->a));
        p->depth--;
        *out = n;
    } else {
        TRY(parse_primary(p, out));
    }
    return parse_postfix(p, out, filters);
}

static status parse_binary(struct parser *p, int least, struct node **out);

/* One operator and its right side onto *left. Chains of comparisons and of "~" become one node with a list. */
static status parse_right(struct parser *p, const struct binop *op, struct node **left)
{
    struct node *n, *right;
    TRY(node_new(p, op->kind, p->cur.line, &n));
    n->op = op->op;
    n->a = *left;
    struct node **tail = op->kind == N_COMPARE ? &n->b : &(*left)->next;
    const struct binop *o = op;
    for (;;) {
        TRY(next(p));
        if (o->op == OP_NOT_IN) TRY(next(p));
        TRY(parse_binary(p, o->level + 1, &right));
        if (op->kind != N_COMPARE && op->kind != N_CONCAT) {
            n->b = right;
            break;
        }
        if (op->kind == N_COMPARE) {
            struct node *cmp;
            TRY(node_new(p, N_CMP, p->cur.line, &cmp));
            cmp->op = o->op;
            cmp->a = right;
            right = cmp;
        }
        *tail = right;
        tail = &right->next;
        o = binop_here(p);
        if (!o || o->kind != op->kind) break;
    }
    *left = n;
    return OK;
}

static status parse_binary(struct parser *p, int least, struct node **out)
{
    if (least <= LV_NOT && cur_is(p, "not")) {
        struct node *n;
        TRY(enter(p));
        TRY(node_new(p, N_NOT, p->cur.line, &n));
        TRY(next(p));
        TRY(parse_binary(p, LV_NOT, &n->a));
        p->depth--;
        *out = n;
    } else {
        TRY(parse_unary(p, true, out));
    }
    for (;;) {
        const struct binop *op = binop_here(p);
        if (!op || (int)op->level < least) break;
        TRY(parse_right(p, op, out));
    }
    return OK;
}

static status parse_expr(struct parser *p, struct node **out)
{
    TRY(enter(p));
    TRY(parse_binary(p, LV_OR, out));
    while (cur_is(p, "if")) {
        struct node *n;
        bool has_else;
        TRY(node_new(p, N_COND, p->cur.line, &n));
        TRY(next(p));
        n->b = *out;
        TRY(parse_binary(p, LV_OR, &n->a));
        TRY(skip_word(p, "else", &has_else));
        if (has_else) TRY(parse_expr(p, &n->c));
        *out = n;
    }
    p->depth--;
    return OK;
}

/* One expression, or a tuple without its parentheses. cond: inline if allowed (not in for and if heads). empty: () is a tuple. */
static status parse_tuple(struct parser *p, bool cond, bool empty, struct node **out)
{
    struct list items;
    list_new(&items);
    bool tuple = false;
    int line = p->cur.line;
    while (p->cur.kind != T_VAR_END && p->cur.kind != T_BLOCK_END && p->cur.kind != T_RPAREN) {
        struct node *n;
        if (cond) TRY(parse_expr(p, &n));
        else TRY(parse_binary(p, LV_OR, &n));
        list_add(&items, n);
        if (p->cur.kind != T_COMMA) break;
        tuple = true;
        TRY(next(p));
    }
    if (!tuple && items.first) {
        *out = items.first;
        return OK;
    }
    if (!items.first && !empty) return unexpected(p, "an expression");
    TRY(node_new(p, N_TUPLE, line, out));
    (*out)->a = items.first;
    return OK;
}

static status parse_list(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_LIST, p->cur.line, out));
    TRY(next(p));
    struct list items;
    list_new(&items);
    while (p->cur.kind != T_RBRACKET) {
        struct node *n;
        TRY(parse_expr(p, &n));
        list_add(&items, n);
        if (p->cur.kind != T_COMMA) break;
        TRY(next(p));
    }
    (*out)->a = items.first;
    return expect(p, T_RBRACKET, "',' or ']'");
}

static status parse_dict(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_DICT, p->cur.line, out));
    TRY(next(p));
    struct list items;
    list_new(&items);
    while (p->cur.kind != T_RBRACE) {
        struct node *key, *v;
        TRY(parse_expr(p, &key));
        TRY(expect(p, T_COLON, "':'"));
        TRY(parse_expr(p, &v));
        list_add(&items, key);
        list_add(&items, v);
        if (p->cur.kind != T_COMMA) break;
        TRY(next(p));
    }
    (*out)->a = items.first;
    return expect(p, T_RBRACE, "',' or '}'");
}

/* Adjacent literals are one string. */
static status parse_string(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_CONST, p->cur.line, out));
    struct text t = p->cur.text;
    TRY(next(p));
    if (p->cur.kind == T_STR) { /* gathered in doubling pieces, so that many literals cost linear time */
        size_t cap = 0;
        char *all = NULL;
        struct text part = t;
        t.n = 0;
        for (bool more = true; more;) {
            if (t.n + part.n > cap) {
                cap = 2 * (t.n + part.n);
                char *bigger = arena_alloc(p->arena, cap);
                if (!bigger) return no_memory(p);
                if (t.n) memcpy(bigger, all, t.n);
                all = bigger;
            }
            if (part.n) memcpy(all + t.n, part.p, part.n);
            t.n += part.n;
            more = p->cur.kind == T_STR;
            part = p->cur.text;
            if (more) TRY(next(p));
        }
        t.p = t.n ? all : "";
    }
    (*out)->v = val_str(t);
    return OK;
}

static const struct {
    const char *word;
    struct val v;
} constants[] = {
    { "true", { .kind = V_BOOL, .i = 1 } }, { "True", { .kind = V_BOOL, .i = 1 } }, { "false", { .kind = V_BOOL } },
    { "False", { .kind = V_BOOL } },        { "none", { .kind = V_NONE } },         { "None", { .kind = V_NONE } },
};
static const struct {
    const char *word;
    unsigned use;
} special_names[] = { { "varargs", MACRO_VARARGS }, { "kwargs", MACRO_KWARGS }, { "caller", MACRO_CALLER } };
static const char *const reserved[] = { "and", "or", "not", "in", "is", "if", "else" };

static status parse_name(struct parser *p, struct node **out)
{
    struct text name = p->cur.text;
    for (int i = 0; i < ARRAY_LEN(reserved); i++)
        if (text_is(name, reserved[i])) return unexpected(p, "an expression");
    TRY(node_new(p, N_NAME, p->cur.line, out));
    (*out)->v = val_str(name);
    for (int i = 0; i < ARRAY_LEN(constants); i++)
        if (text_is(name, constants[i].word)) {
            (*out)->kind = N_CONST;
            (*out)->v = constants[i].v;
        }
    for (int i = 0; i < ARRAY_LEN(special_names); i++)
        if (text_is(name, special_names[i].word)) p->macro_uses |= special_names[i].use;
    return next(p);
}

static status parse_primary(struct parser *p, struct node **out)
{
    switch (p->cur.kind) {
    case T_NAME: TRY(parse_name(p, out)); break;
    case T_STR: TRY(parse_string(p, out)); break;
    case T_INT:
    case T_FLOAT:
        TRY(node_new(p, N_CONST, p->cur.line, out));
        (*out)->v = p->cur.kind == T_INT ? val_int(p->cur.i) : val_float(p->cur.f);
        TRY(next(p));
        break;
    case T_LPAREN:
        TRY(next(p));
        TRY(parse_tuple(p, true, true, out));
        TRY(expect(p, T_RPAREN, "')'"));
        break;
    case T_LBRACKET: TRY(parse_list(p, out)); break;
    case T_LBRACE: TRY(parse_dict(p, out)); break;
    default: return unexpected(p, "an expression");
    }
    return OK;
}

/* "(" is current. Keyword arguments come last, each an N_KWARG. */
static status parse_args(struct parser *p, struct node **out)
{
    TRY(next(p));
    struct list args;
    list_new(&args);
    bool keywords = false;
    while (p->cur.kind != T_RPAREN) {
        struct node *n;
        if (p->cur.kind == T_MUL || p->cur.kind == T_POW)
            return fail_at(p, p->cur.line, "argument unpacking is not supported:", p->cur.text);
        if (p->cur.kind == T_NAME && p->peek.kind == T_ASSIGN) {
            keywords = true;
            TRY(node_new(p, N_KWARG, p->cur.line, &n));
            n->v = val_str(p->cur.text);
            TRY(next(p));
            TRY(next(p));
            TRY(parse_expr(p, &n->a));
        } else if (keywords) {
            return unexpected(p, "a keyword argument");
        } else {
            TRY(parse_expr(p, &n));
        }
        list_add(&args, n);
        if (p->cur.kind != T_COMMA) break;
        TRY(next(p));
    }
    *out = args.first;
    return expect(p, T_RPAREN, "',' or ')'");
}

/* Filters that take the name of a filter or test: a literal one is checked here too. */
static const struct {
    const char *filter;
    int arg;
    const struct builtin *(*find)(struct text);
    const char *what;
} name_args[] = {
    { "map", 0, template_filter, "unknown filter" },    { "select", 0, template_test, "unknown test" },
    { "reject", 0, template_test, "unknown test" },     { "selectattr", 1, template_test, "unknown test" },
    { "rejectattr", 1, template_test, "unknown test" },
};

static status check_name_arg(struct parser *p, const struct node *filter)
{
    for (int i = 0; i < ARRAY_LEN(name_args); i++) {
        if (strcmp(name_args[i].filter, filter->row->name)) continue;
        const struct node *arg = filter->args;
        for (int k = name_args[i].arg; k > 0 && arg; k--) arg = arg->next;
        if (!arg || arg->kind != N_CONST || arg->v.kind != V_STR) continue;
        if (!name_args[i].find(val_text(&arg->v))) return fail_at(p, arg->line, name_args[i].what, val_text(&arg->v));
    }
    return OK;
}

/* A name is current; *out is what it applies to (NULL: the block around it). */
static status parse_filter(struct parser *p, struct node **out)
{
    if (p->cur.kind != T_NAME) return unexpected(p, "the name of a filter");
    struct node *n;
    TRY(node_new(p, N_FILTER, p->cur.line, &n));
    n->row = template_filter(p->cur.text);
    if (!n->row) return fail_at(p, p->cur.line, "unknown filter", p->cur.text);
    n->a = *out;
    TRY(next(p));
    if (p->cur.kind == T_LPAREN) TRY(parse_args(p, &n->args));
    *out = n;
    return check_name_arg(p, n);
}

static bool starts_test_arg(const struct parser *p)
{
    static const char *const stops[] = { "else", "or", "and", "if", "in", "not", "is", "recursive" };
    if (p->cur.kind == T_NAME) {
        for (int i = 0; i < ARRAY_LEN(stops); i++)
            if (text_is(p->cur.text, stops[i])) return false;
        return true;
    }
    return p->cur.kind == T_STR || p->cur.kind == T_INT || p->cur.kind == T_FLOAT || p->cur.kind == T_LBRACKET || p->cur.kind == T_LBRACE;
}

/* "is" is current. */
static status parse_test(struct parser *p, struct node **out)
{
    struct node *n, *not_node = NULL;
    int line = p->cur.line;
    bool negated;
    TRY(next(p));
    TRY(skip_word(p, "not", &negated));
    if (p->cur.kind != T_NAME) return unexpected(p, "the name of a test");
    TRY(node_new(p, N_TEST, line, &n));
    n->row = template_test(p->cur.text);
    if (!n->row) return fail_at(p, p->cur.line, "unknown test", p->cur.text);
    n->a = *out;
    if (n->a->kind == N_NAME && (text_is(p->cur.text, "defined") || text_is(p->cur.text, "undefined")))
        TRY(remember(p, &p->tested, val_text(&n->a->v), line));
    TRY(next(p));
    if (cur_is(p, "is")) return fail_at(p, p->cur.line, "tests cannot be chained with", TEXT("is"));
    if (p->cur.kind == T_LPAREN) TRY(parse_args(p, &n->args));
    else if (starts_test_arg(p)) {
        TRY(parse_primary(p, &n->args));
        TRY(parse_postfix(p, &n->args, false));
    }
    *out = n;
    if (negated) {
        TRY(node_new(p, N_NOT, line, &not_node));
        not_node->a = n;
        *out = not_node;
    }
    return OK;
}

static status parse_dot(struct parser *p, struct node **out)
{
    struct node *n;
    TRY(next(p));
    TRY(node_new(p, N_ATTR, p->cur.line, &n));
    n->a = *out;
    if (p->cur.kind == T_NAME) n->v = val_str(p->cur.text);
    else if (p->cur.kind == T_INT) {
        n->kind = N_ITEM;
        TRY(node_new(p, N_CONST, p->cur.line, &n->b));
        n->b->v = val_int(p->cur.i);
    } else return unexpected(p, "a name or number after '.'");
    *out = n;
    return next(p);
}

static bool slice_part_ends(const struct parser *p) { return p->cur.kind == T_COLON || p->cur.kind == T_RBRACKET; }

static status parse_subscript(struct parser *p, struct node **out)
{
    struct node *n;
    TRY(node_new(p, N_ITEM, p->cur.line, &n));
    n->a = *out;
    *out = n;
    TRY(next(p));
    if (p->cur.kind != T_COLON) TRY(parse_expr(p, &n->b));
    if (p->cur.kind == T_COLON) {
        n->kind = N_SLICE;
        TRY(next(p));
        if (!slice_part_ends(p)) TRY(parse_expr(p, &n->c));
        if (p->cur.kind == T_COLON) {
            TRY(next(p));
            if (!slice_part_ends(p)) TRY(parse_expr(p, &n->d));
        }
    }
    return expect(p, T_RBRACKET, "']'");
}

static status parse_call(struct parser *p, struct node **out)
{
    struct node *n;
    TRY(node_new(p, N_CALL, p->cur.line, &n));
    n->a = *out;
    if (n->a->kind == N_NAME) TRY(remember(p, &p->called, val_text(&n->a->v), n->line));
    *out = n;
    return parse_args(p, &n->args);
}

/* Subscripts and calls, then (filters) filters, tests and calls. */
static status parse_postfix(struct parser *p, struct node **out, bool filters)
{
    for (;;) {
        if (p->cur.kind == T_DOT) TRY(parse_dot(p, out));
        else if (p->cur.kind == T_LBRACKET) TRY(parse_subscript(p, out));
        else if (p->cur.kind == T_LPAREN) TRY(parse_call(p, out));
        else break;
    }
    while (filters) {
        if (p->cur.kind == T_PIPE) {
            TRY(next(p));
            TRY(parse_filter(p, out));
        } else if (cur_is(p, "is")) TRY(parse_test(p, out));
        else if (p->cur.kind == T_LPAREN) TRY(parse_call(p, out));
        else break;
    }
    return OK;
}

/* ---- statements ---- */

static status parse_body(struct parser *p, const char *block, const char *const *ends, struct node **out, const char **ended);
static status parse_one_body(struct parser *p, const char *block, const char *end, struct node **out)
{
    const char *const ends[] = { end, NULL };
    const char *ended;
    return parse_body(p, block, ends, out, &ended);
}

/* name, name.attr (attrs), or a tuple of targets. */
static status parse_target(struct parser *p, bool attrs, struct node **out)
{
    TRY(enter(p));
    struct list items;
    list_new(&items);
    bool tuple = false;
    int line = p->cur.line;
    for (;;) {
        struct node *n;
        if (p->cur.kind == T_LPAREN) {
            TRY(next(p));
            TRY(parse_target(p, attrs, &n));
            TRY(expect(p, T_RPAREN, "')'"));
        } else {
            if (p->cur.kind != T_NAME) return unexpected(p, "a name to assign to");
            TRY(parse_name(p, &n));
            if (n->kind != N_NAME) return fail_at(p, n->line, "cannot assign to", TEXT("constant"));
            TRY(remember(p, &p->bound, val_text(&n->v), n->line));
            if (attrs && p->cur.kind == T_DOT) {
                TRY(next(p));
                if (p->cur.kind != T_NAME) return unexpected(p, "a name after '.'");
                n->kind = N_NS_ATTR;
                TRY(node_new(p, N_NAME, n->line, &n->d));
                n->d->v = val_str(p->cur.text);
                TRY(next(p));
            }
        }
        list_add(&items, n);
        if (p->cur.kind != T_COMMA) break;
        tuple = true;
        TRY(next(p));
        if (p->cur.kind != T_NAME && p->cur.kind != T_LPAREN) break;
        if (cur_is(p, "in")) break;
    }
    *out = items.first;
    if (tuple) {
        TRY(node_new(p, N_TUPLE, line, out));
        (*out)->a = items.first;
    }
    p->depth--;
    return OK;
}

static status parse_for(struct parser *p, struct node **out)
{
    struct node *n;
    bool found;
    TRY(node_new(p, N_FOR, p->cur.line, out));
    n = *out;
    TRY(next(p));
    TRY(parse_target(p, false, &n->d));
    TRY(skip_word(p, "in", &found));
    if (!found) return unexpected(p, "'in'");
    TRY(parse_tuple(p, false, false, &n->a));
    TRY(skip_word(p, "if", &found));
    if (found) TRY(parse_expr(p, &n->c));
    if (cur_is(p, "recursive")) return fail_at(p, p->cur.line, "unsupported: for ...", p->cur.text);
    static const char *const ends[] = { "endfor", "else", NULL };
    const char *ended;
    TRY(remember(p, &p->bound, TEXT("loop"), n->line));
    p->loops++;
    TRY(parse_body(p, "for", ends, &n->b, &ended));
    p->loops--;
    return strcmp(ended, "else") ? OK : parse_one_body(p, "for", "endfor", &n->args);
}

static status parse_if(struct parser *p, struct node **out)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL };
    const char *ended;
    for (struct node **at = out;; at = &(*at)->c) {
        TRY(node_new(p, N_IF, p->cur.line, at));
        TRY(next(p));
        TRY(parse_tuple(p, false, false, &(*at)->a));
        TRY(parse_body(p, "if", ends, &(*at)->b, &ended));
        if (!strcmp(ended, "else")) return parse_one_body(p, "if", "endif", &(*at)->c);
        if (!strcmp(ended, "endif")) return OK;
    }
}

static status parse_set(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_SET, p->cur.line, out));
    struct node *n = *out;
    TRY(next(p));
    TRY(parse_target(p, true, &n->d));
    if (p->cur.kind == T_ASSIGN) {
        TRY(next(p));
        return parse_tuple(p, true, false, &n->a);
    }
    n->kind = N_SET_BLOCK;
    while (p->cur.kind == T_PIPE) {
        TRY(next(p));
        TRY(parse_filter(p, &n->a));
    }
    return parse_one_body(p, "set", "endset", &n->b);
}

static status parse_with(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_WITH, p->cur.line, out));
    struct list args;
    list_new(&args);
    TRY(next(p));
    while (p->cur.kind == T_NAME) {
        struct node *n;
        TRY(node_new(p, N_KWARG, p->cur.line, &n));
        n->v = val_str(p->cur.text);
        TRY(remember(p, &p->bound, p->cur.text, p->cur.line));
        TRY(next(p));
        TRY(expect(p, T_ASSIGN, "'='"));
        TRY(parse_expr(p, &n->a));
        list_add(&args, n);
        if (p->cur.kind != T_COMMA) break;
        TRY(next(p));
    }
    (*out)->args = args.first;
    return parse_one_body(p, "with", "endwith", &(*out)->b);
}

static status parse_filter_block(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_FILTER_BLOCK, p->cur.line, out));
    TRY(next(p));
    TRY(parse_filter(p, &(*out)->a));
    while (p->cur.kind == T_PIPE) {
        TRY(next(p));
        TRY(parse_filter(p, &(*out)->a));
    }
    return parse_one_body(p, "filter", "endfilter", &(*out)->b);
}

/* "(" is current: parameter names with defaults. */
static status parse_params(struct parser *p, struct node **out)
{
    struct list args;
    list_new(&args);
    bool defaults = false;
    TRY(next(p));
    while (p->cur.kind == T_NAME) {
        struct node *n;
        TRY(node_new(p, N_KWARG, p->cur.line, &n));
        n->v = val_str(p->cur.text);
        TRY(remember(p, &p->bound, p->cur.text, p->cur.line));
        TRY(next(p));
        if (p->cur.kind == T_ASSIGN) {
            defaults = true;
            TRY(next(p));
            TRY(parse_expr(p, &n->a));
        } else if (defaults) return fail_at(p, n->line, "parameter without default after one with default:", val_text(&n->v));
        list_add(&args, n);
        if (p->cur.kind != T_COMMA) break;
        TRY(next(p));
    }
    *out = args.first;
    return expect(p, T_RPAREN, "a parameter name or ')'");
}

/* The body of a macro or call block: a function of its own, so break cannot leave it; notes which special names it uses. */
static status parse_function_body(struct parser *p, const char *block, const char *end, struct node *n)
{
    int loops = p->loops;
    unsigned uses = p->macro_uses;
    p->loops = 0;
    p->macro_uses = 0;
    TRY(parse_one_body(p, block, end, &n->b));
    n->op = (int)p->macro_uses;
    p->loops = loops;
    p->macro_uses = uses;
    return OK;
}

static status parse_macro(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_MACRO, p->cur.line, out));
    TRY(next(p));
    if (p->cur.kind != T_NAME) return unexpected(p, "the name of the macro");
    (*out)->v = val_str(p->cur.text);
    TRY(remember(p, &p->bound, p->cur.text, p->cur.line));
    TRY(next(p));
    if (p->cur.kind != T_LPAREN) return unexpected(p, "'('");
    TRY(parse_params(p, &(*out)->args));
    return parse_function_body(p, "macro", "endmacro", *out);
}

static status parse_call_block(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_CALL_BLOCK, p->cur.line, out));
    struct node *n = *out;
    TRY(next(p));
    if (p->cur.kind == T_LPAREN) TRY(parse_params(p, &n->args));
    TRY(parse_expr(p, &n->a));
    if (n->a->kind != N_CALL) return fail_at(p, n->line, "expected the call of a macro after", TEXT("call"));
    n->v = val_str(TEXT("caller"));
    TRY(remember(p, &p->bound, TEXT("caller"), n->line));
    return parse_function_body(p, "call", "endcall", n);
}

/* Hugging Face's marker of assistant text: prints its body. */
static status parse_generation(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_SCOPED, p->cur.line, out));
    TRY(next(p));
    return parse_function_body(p, "generation", "endgeneration", *out);
}

static status parse_loop_exit(struct parser *p, struct node **out)
{
    if (p->loops == 0) return fail_at(p, p->cur.line, "outside of a loop:", p->cur.text);
    TRY(node_new(p, cur_is(p, "break") ? N_BREAK : N_CONTINUE, p->cur.line, out));
    return next(p);
}

static const struct {
    const char *word;
    status (*parse)(struct parser *p, struct node **out); /* NULL: known and refused by name */
} statements[] = {
    { "for", parse_for },
    { "if", parse_if },
    { "set", parse_set },
    { "macro", parse_macro },
    { "call", parse_call_block },
    { "filter", parse_filter_block },
    { "with", parse_with },
    { "generation", parse_generation },
    { "break", parse_loop_exit },
    { "continue", parse_loop_exit },
    { "include", NULL },
    { "import", NULL },
    { "from", NULL },
    { "extends", NULL },
    { "block", NULL },
    { "autoescape", NULL },
    { "print", NULL },
    { "do", NULL },
    { "trans", NULL },
};

static status parse_statement(struct parser *p, struct node **out)
{
    if (p->cur.kind != T_NAME) return unexpected(p, "a statement");
    for (int i = 0; i < ARRAY_LEN(statements); i++) {
        if (!cur_is(p, statements[i].word)) continue;
        if (!statements[i].parse) return fail_at(p, p->cur.line, "unsupported statement", p->cur.text);
        TRY(statements[i].parse(p, out));
        return expect(p, T_BLOCK_END, "'%}'");
    }
    return OK;
}

/* Statements up to one of `ends` (block NULL: to the end of the template), which is consumed up to, not including, its "%}". */
static status parse_items(struct parser *p, struct list *items, const char *const *ends, const char **ended)
{
    while (p->cur.kind != T_EOF) {
        struct node *n = NULL;
        int line = p->cur.line;
        if (p->cur.kind == T_DATA) {
            TRY(node_new(p, N_DATA, line, &n));
            n->v = val_str(p->cur.text);
            TRY(next(p));
        } else if (p->cur.kind == T_VAR_BEGIN) {
            TRY(node_new(p, N_OUTPUT, line, &n));
            TRY(next(p));
            TRY(parse_tuple(p, true, false, &n->a));
            TRY(expect(p, T_VAR_END, "'}}'"));
        } else {
            TRY(next(p));
            for (int i = 0; ends && ends[i]; i++)
                if (cur_is(p, ends[i])) {
                    *ended = ends[i];
                    return strcmp(*ended, "elif") ? next(p) : OK; /* parse_if takes "elif" as it takes "if" */
                }
            TRY(parse_statement(p, &n));
            if (!n) return OK;
        }
        list_add(items, n);
    }
    return OK;
}

static status parse_body(struct parser *p, const char *block, const char *const *ends, struct node **out, const char **ended)
{
    TRY(enter(p));
    int line = p->cur.line;
    if (block && p->cur.kind == T_COLON) TRY(next(p)); /* "for x in y:" */
    if (block) TRY(expect(p, T_BLOCK_END, "'%}'"));
    struct list items;
    list_new(&items);
    *ended = NULL;
    TRY(parse_items(p, &items, ends, ended));
    if (!*ended && (block || p->cur.kind != T_EOF)) {
        const char *found = p->cur.kind == T_EOF ? "end of template" : "unknown or misplaced statement";
        struct text t = p->cur.kind == T_EOF ? TEXT("") : p->cur.text;
        if (!block) return fail_at(p, p->cur.line, found, t);
        return err_set(p->e, ERR_FORMAT, "%s line %d: %s '%.*s' inside the '%s' of line %d", p->name, p->cur.line, found,
                       t.n > 60 ? 60 : (int)t.n, t.p, block, line);
    }
    *out = items.first;
    p->depth--;
    return OK;
}

static bool listed(const struct name_ref *l, struct text name, int64_t *work)
{
    for (; l; l = l->next, ++*work)
        if (text_eq(l->name, name)) return true;
    return false;
}

/* A call of a name that is no function, is never assigned and never asked for with "is defined" cannot succeed. */
static status check_calls(struct parser *p)
{
    enum { CHECK_WORK = 10000000 }; /* comparisons: about 30 ms */
    int64_t work = 0;
    const struct name_ref *wrong = NULL; /* the list runs backwards: keep the earliest */
    for (const struct name_ref *c = p->called; c; c = c->next) {
        if (work > CHECK_WORK) return OK; /* left to the render */
        if (template_global(c->name) || text_is(c->name, "caller")) continue;
        if (!listed(p->bound, c->name, &work) && !listed(p->tested, c->name, &work)) wrong = c;
    }
    return wrong ? fail_at(p, wrong->line, "unknown function", wrong->name) : OK;
}

static status parse_template(struct template *t, const char *src, size_t n, struct err *e)
{
    struct parser p = { .arena = &t->arena, .name = t->name, .e = e };
    TRY(lexer_init(&p.lex, &t->arena, src, n, t->name, e));
    TRY(lexer_next(&p.lex, &p.peek));
    TRY(next(&p));
    const char *ended;
    TRY(parse_body(&p, NULL, NULL, &t->body, &ended));
    return check_calls(&p);
}

status template_parse(struct template **out, const char *src, size_t n, const char *name, struct err *e)
{
    *out = NULL;
    struct template *t = mem_calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_MEMORY, "%s: no memory for a template", name);
    arena_init(&t->arena, TEMPLATE_TREE);
    status st = OK;
    t->name = arena_strdup(&t->arena, name, strlen(name));
    if (!t->name) st = err_set(e, ERR_MEMORY, "%s: no memory for a template", name);
    if (st == OK) st = parse_template(t, src, n, e);
    if (st == OK) *out = t;
    else template_close(t);
    return st;
}

void template_close(struct template *t)
{
    if (!t) return;
    arena_free(&t->arena);
    mem_free(t);
}

/* grammar_parse - GBNF text to rules. One pass with one symbol of look-ahead; groups recurse, at most DEPTH_MAX deep. An alternative is gathered on a
 * stack of elements and copied when it is complete, so that the alternatives of a group inside it can be completed first.
 * Notation: llama.cpp, src/llama-grammar.cpp and grammars/README.md. */
#include <stdlib.h>
#include <string.h>
#include "ggml-like/arena.h"
#include "src/grammar_int.h"
#include "src/tokenizer.h"

enum { DEPTH_MAX = 200, CLASS_ITEMS_MAX = 4096, NAME_MAX_BYTES = 60, CLASS_BUCKETS = 256, CODE_MAX = 0x10FFFF };

struct symbol { const char *name; uint32_t n, rule; const char *used, *defined; }; /* where it was first used and defined, NULL = not */
struct class_seen { uint64_t hash; const struct range *r; int64_t n; uint32_t first, next; }; /* next: class + 1 of the same bucket */

struct parser {
    struct grammar *g;
    const char *text, *p, *end, *name;
    const struct tokenizer *t;
    struct err *e;
    struct symbol *symbol; uint32_t n_symbol, symbol_cap;
    uint32_t *table; uint32_t table_n;                       /* symbol + 1 by hash, a power of two */
    struct elem *stack; uint32_t n_stack, stack_cap;
    struct class_seen *seen; uint32_t n_seen, seen_cap, bucket[CLASS_BUCKETS];
    struct arena ranges;                                     /* of the classes seen */
    struct range *item;                                      /* [CLASS_ITEMS_MAX + 2] the class being read */
    int depth;
};

status grammar_room(void *p, uint32_t n, uint32_t *cap, size_t item, struct err *e)
{
    void **array = p;
    if (n <= *cap) return OK;
    size_t want = (size_t)n + n / 2 + 64, bytes;
    void *q = mul_size(want, item, &bytes) && want <= UINT32_MAX ? mem_realloc(*array, bytes) : NULL;
    if (!q) return err_oom(e, "grammar", want * item);
    *array = q;
    *cap = (uint32_t)want;
    return OK;
}

/* ---- errors ---- */

static void locate(const struct parser *s, const char *at, int *line, int *column)
{
    *line = *column = 1;
    for (const char *p = s->text; p < at; p++) {
        if (*p == '\n') ++*line, *column = 1;
        else if ((*p & 0xC0) != 0x80) ++*column;
    }
}

static status wrong(const struct parser *s, const char *at, const char *what)
{
    int line, column;
    locate(s, at, &line, &column);
    return err_set(s->e, ERR_USAGE, "%s:%d:%d: %s", s->name, line, column, what);
}

/* "expected WHAT, found 'x'" */
static status expected(const struct parser *s, const char *what)
{
    int line, column;
    locate(s, s->p, &line, &column);
    if (s->p == s->end) return err_set(s->e, ERR_USAGE, "%s:%d:%d: expected %s, found the end", s->name, line, column, what);
    if (*s->p == '\n') return err_set(s->e, ERR_USAGE, "%s:%d:%d: expected %s, found the end of the line", s->name, line, column, what);
    if ((unsigned char)*s->p < ' ') return err_set(s->e, ERR_USAGE, "%s:%d:%d: expected %s, found byte %d", s->name, line, column, what, *s->p);
    int n = 1;
    while (n < 4 && s->p + n < s->end && (s->p[n] & 0xC0) == 0x80) n++;
    return err_set(s->e, ERR_USAGE, "%s:%d:%d: expected %s, found '%.*s'", s->name, line, column, what, n, s->p);
}

static status about(const struct parser *s, const struct symbol *y, const char *at, const char *what)
{
    int line, column, n = (int)(y->n < NAME_MAX_BYTES ? y->n : NAME_MAX_BYTES);
    locate(s, at, &line, &column);
    return err_set(s->e, ERR_USAGE, "%s:%d:%d: rule '%.*s' %s", s->name, line, column, n, y->name, what);
}

/* ---- rules ---- */

static status new_rule(struct parser *s, uint32_t *out)
{
    struct grammar *g = s->g;
    if (g->n_rule >= RULES_MAX) return err_set(s->e, ERR_USAGE, "%s: more than %d rules, groups and repetitions", s->name, RULES_MAX);
    TRY(grammar_room(&g->rule, g->n_rule + 1, &g->rule_cap, sizeof *g->rule, s->e));
    g->rule[g->n_rule] = (struct rule){ 0, 0 };
    *out = g->n_rule++;
    return OK;
}

/* The elements on the stack from `from` on become an alternative of the rule. */
static status close_alternative(struct parser *s, uint32_t rule, uint32_t from)
{
    struct grammar *g = s->g;
    uint32_t n = s->n_stack - from;
    TRY(grammar_room(&g->elem, g->n_elem + n + 1, &g->elem_cap, sizeof *g->elem, s->e));
    TRY(grammar_room(&g->alt, g->n_alt + 1, &g->alt_cap, sizeof *g->alt, s->e));
    if (n > 0) memcpy(g->elem + g->n_elem, s->stack + from, n * sizeof *g->elem);
    g->elem[g->n_elem + n] = (struct elem){ .kind = ELEM_END };
    g->alt[g->n_alt] = (struct alt){ g->n_elem, 0 };
    if (g->rule[rule].alt) g->alt[g->rule[rule].last].next = g->n_alt;
    else g->rule[rule].alt = g->n_alt;
    g->rule[rule].last = g->n_alt++;
    g->n_elem += n + 1;
    s->n_stack = from;
    return OK;
}

static status push(struct parser *s, enum elem_kind kind, uint32_t a)
{
    TRY(grammar_room(&s->stack, s->n_stack + 1, &s->stack_cap, sizeof *s->stack, s->e));
    s->stack[s->n_stack++] = (struct elem){ .kind = (uint8_t)kind, .a = a };
    return OK;
}

static uint64_t hash_bytes(const void *p, size_t n)
{
    const unsigned char *b = p;
    uint64_t h = 1469598103934665603u; /* FNV-1a, 64 bits */
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 1099511628211u;
    return h ^ h >> 29;
}

static status grow_table(struct parser *s)
{
    uint32_t n = s->table_n ? 2 * s->table_n : 256;
    uint32_t *t = mem_calloc(n, sizeof *t);
    if (!t) return err_oom(s->e, "grammar", n * sizeof *t);
    for (uint32_t i = 0; i < s->n_symbol; i++) {
        uint64_t h = hash_bytes(s->symbol[i].name, s->symbol[i].n);
        while (t[h & (n - 1)]) h++;
        t[h & (n - 1)] = i + 1;
    }
    mem_free(s->table);
    s->table = t;
    s->table_n = n;
    return OK;
}

static status symbol_of(struct parser *s, const char *name, uint32_t n, uint32_t *out)
{
    if (2 * (s->n_symbol + 1) > s->table_n) TRY(grow_table(s));
    uint64_t h = hash_bytes(name, n);
    for (; s->table[h & (s->table_n - 1)]; h++) {
        const struct symbol *y = &s->symbol[*out = s->table[h & (s->table_n - 1)] - 1];
        if (y->n == n && !memcmp(y->name, name, n)) return OK;
    }
    uint32_t rule;
    TRY(new_rule(s, &rule));
    TRY(grammar_room(&s->symbol, s->n_symbol + 1, &s->symbol_cap, sizeof *s->symbol, s->e));
    s->symbol[s->n_symbol] = (struct symbol){ .name = name, .n = n, .rule = rule };
    s->table[h & (s->table_n - 1)] = s->n_symbol + 1;
    *out = s->n_symbol++;
    return OK;
}

/* ---- words ---- */

static void skip_space(struct parser *s, bool newlines)
{
    while (s->p < s->end) {
        char c = *s->p;
        if (c == '#') while (s->p < s->end && *s->p != '\n' && *s->p != '\r') s->p++;
        else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) s->p++;
        else break;
    }
}

static bool at(const struct parser *s, char c) { return s->p < s->end && *s->p == c; }

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '-' || c == '_'; }

static uint32_t take_name(struct parser *s)
{
    const char *from = s->p;
    while (s->p < s->end && is_word(*s->p)) s->p++;
    return (uint32_t)(s->p - from);
}

static status take_number(struct parser *s, uint32_t most, uint32_t *out)
{
    const char *from = s->p;
    uint64_t v = 0;
    if (s->p == s->end || !is_digit(*s->p)) return expected(s, "a number");
    while (s->p < s->end && is_digit(*s->p) && v <= most) v = 10 * v + (uint64_t)(*s->p++ - '0');
    if (v <= most) return *out = (uint32_t)v, OK;
    int line, column;
    locate(s, from, &line, &column);
    return err_set(s->e, ERR_USAGE, "%s:%d:%d: the number is too large, at most %u is allowed", s->name, line, column, most);
}

static status take_hex(struct parser *s, int digits, uint32_t *out)
{
    const char *from = s->p - 2;
    uint64_t v = 0;
    for (int i = 0; i < digits; i++, s->p++) {
        char c = s->p < s->end ? *s->p : 0;
        int d = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0) return expected(s, "a hexadecimal digit");
        v = v << 4 | (uint64_t)d;
    }
    if (v > CODE_MAX) return wrong(s, from, "no such character: Unicode ends at 10FFFF");
    *out = (uint32_t)v;
    return OK;
}

static status take_utf8(struct parser *s, uint32_t *out)
{
    const unsigned char *p = (const unsigned char *)s->p;
    int k = *p < 0x80 ? 0 : *p >= 0xC2 && *p < 0xE0 ? 1 : *p >= 0xE0 && *p < 0xF0 ? 2 : *p >= 0xF0 && *p < 0xF5 ? 3 : -1;
    static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
    if (k < 0 || s->end - s->p <= k) return wrong(s, s->p, "this is not UTF-8");
    uint32_t v = k == 0 ? *p : *p & (0x3Fu >> k);
    for (int i = 1; i <= k; i++) {
        if ((p[i] & 0xC0) != 0x80) return wrong(s, s->p, "this is not UTF-8");
        v = v << 6 | (p[i] & 0x3F);
    }
    if (v < least[k] || v > CODE_MAX || (v >= 0xD800 && v < 0xE000)) return wrong(s, s->p, "this is not UTF-8");
    s->p += k + 1;
    *out = v;
    return OK;
}

/* One character of a literal or a class, escapes resolved. */
static status take_char(struct parser *s, uint32_t *out)
{
    static const char plain[] = "trn\\\"[]-", stands_for[] = "\t\r\n\\\"[]-";
    if (!at(s, '\\')) return take_utf8(s, out);
    if (s->end - s->p < 2) return s->p++, expected(s, "an escape");
    char c = s->p[1];
    const char *found = c ? strchr(plain, c) : NULL;
    if (!found && c != 'x' && c != 'u' && c != 'U')
        return wrong(s, s->p, "unknown escape; there are \\x41 \\u0041 \\U00000041 \\t \\r \\n \\\\ \\\" \\[ \\] \\-");
    s->p += 2;
    if (!found) return take_hex(s, c == 'x' ? 2 : c == 'u' ? 4 : 8, out);
    *out = (uint32_t)(unsigned char)stands_for[found - plain];
    return OK;
}

/* ---- symbols ---- */

static status push_code(struct parser *s, const char *from, uint32_t c)
{
    if (c >= 0xD800 && c < 0xE000) return wrong(s, from, "half of a surrogate pair is no character");
    int k = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint32_t lead[] = { 0, 0xC0, 0xE0, 0xF0 };
    TRY(push(s, ELEM_BYTE, lead[k] | c >> 6 * k));
    while (k-- > 0) TRY(push(s, ELEM_BYTE, 0x80 | (c >> 6 * k & 0x3F)));
    return OK;
}

static status take_literal(struct parser *s)
{
    const char *start = s->p++;
    uint32_t c;
    while (!at(s, '"')) {
        if (s->p == s->end) return wrong(s, start, "this literal has no end");
        const char *from = s->p;
        TRY(take_char(s, &c));
        TRY(push_code(s, from, c));
    }
    s->p++;
    return OK;
}

/* The class in s->item[0..n): an automaton, made once for equal classes. */
static status push_class(struct parser *s, int64_t n, bool not)
{
    n = class_normalise(s->item, n, not);
    size_t bytes = (size_t)n * sizeof *s->item;
    if (n == 1 && s->item[0].lo == s->item[0].hi && s->item[0].lo < 0x80) return push(s, ELEM_BYTE, s->item[0].lo);
    uint64_t h = hash_bytes(s->item, bytes);
    uint32_t *bucket = &s->bucket[h % CLASS_BUCKETS];
    for (uint32_t i = *bucket; i; i = s->seen[i - 1].next) {
        const struct class_seen *c = &s->seen[i - 1];
        if (c->hash == h && c->n == n && !memcmp(c->r, s->item, bytes)) return push(s, ELEM_CLASS, c->first);
    }
    struct range *kept = arena_alloc(&s->ranges, bytes + 1);
    if (!kept) return err_oom(s->e, "grammar", bytes);
    memcpy(kept, s->item, bytes);
    TRY(grammar_room(&s->seen, s->n_seen + 1, &s->seen_cap, sizeof *s->seen, s->e));
    struct class_seen *c = &s->seen[s->n_seen];
    *c = (struct class_seen){ .hash = h, .r = kept, .n = n, .next = *bucket };
    TRY(class_compile(s->g, kept, n, &c->first, s->e));
    *bucket = ++s->n_seen;
    return push(s, ELEM_CLASS, c->first);
}

static status take_class(struct parser *s)
{
    const char *start = s->p++;
    bool not = at(s, '^');
    int64_t n = 0;
    s->p += not;
    while (!at(s, ']')) {
        if (s->p == s->end) return wrong(s, start, "this class has no end");
        if (n == CLASS_ITEMS_MAX) return wrong(s, start, "this class has more than 4096 items");
        const char *from = s->p;
        struct range *r = &s->item[n++];
        TRY(take_char(s, &r->lo));
        r->hi = r->lo;
        if (!(s->end - s->p >= 2 && s->p[0] == '-' && s->p[1] != ']')) continue;
        s->p++;
        TRY(take_char(s, &r->hi));
        if (r->hi < r->lo) return wrong(s, from, "this range goes downward");
    }
    s->p++;
    return push_class(s, n, not);
}

static status take_token(struct parser *s)
{
    const char *start = s->p;
    bool not = at(s, '!');
    uint32_t id;
    s->p += not;
    if (!at(s, '<')) return expected(s, "<[id]> or <name>");
    const char *name = s->p++;
    if (at(s, '[')) {
        s->p++;
        TRY(take_number(s, INT32_MAX, &id));
        if (s->end - s->p < 2 || s->p[0] != ']' || s->p[1] != '>') return expected(s, "]>");
        s->p += 2;
        if (s->t && id >= (uint64_t)tokenizer_size(s->t)) return wrong(s, start, "the vocabulary has no token of this id");
        return push(s, not ? ELEM_TOKEN_NOT : ELEM_TOKEN, id);
    }
    while (s->p < s->end && *s->p != '>' && *s->p != '\n') s->p++;
    if (!at(s, '>')) return wrong(s, start, "this token has no end '>'");
    s->p++;
    if (!s->t) return wrong(s, start, "token names need a vocabulary, use <[id]>");
    int32_t ids[2];
    int64_t n;
    TRY(tokenizer_encode(s->t, name, (size_t)(s->p - name), ENCODE_SPECIAL, ids, 2, &n, s->e));
    if (n != 1) return wrong(s, start, "the vocabulary has no single token for this text");
    return push(s, not ? ELEM_TOKEN_NOT : ELEM_TOKEN, (uint32_t)ids[0]);
}

static status take_alternatives(struct parser *s, uint32_t rule, bool nested);

static status take_group(struct parser *s)
{
    const char *start = s->p++;
    uint32_t rule;
    if (++s->depth > DEPTH_MAX) return wrong(s, start, "more than 200 groups inside each other");
    TRY(new_rule(s, &rule));
    skip_space(s, true);
    TRY(take_alternatives(s, rule, true));
    if (!at(s, ')')) return expected(s, "')' or another item");
    s->p++;
    s->depth--;
    return push(s, ELEM_RULE, rule);
}

static status take_reference(struct parser *s)
{
    const char *name = s->p;
    uint32_t y;
    TRY(symbol_of(s, name, take_name(s), &y));
    if (!s->symbol[y].used) s->symbol[y].used = name;
    return push(s, ELEM_RULE, s->symbol[y].rule);
}

/* The elements from `from` on, repeated: they become a rule unless they are one. */
static status repeat(struct parser *s, uint32_t from, uint32_t min, uint32_t max)
{
    uint32_t rule;
    if (s->n_stack == from + 1 && s->stack[from].kind == ELEM_RULE) {
        rule = s->stack[from].a;
        s->n_stack = from;
    } else {
        TRY(new_rule(s, &rule));
        TRY(close_alternative(s, rule, from));
    }
    if (max == 0) return OK;
    TRY(push(s, ELEM_REPEAT, rule));
    s->stack[s->n_stack - 1].min = (uint16_t)min;
    s->stack[s->n_stack - 1].max = (uint16_t)max;
    return OK;
}

/* {m} {m,} {m,n} */
static status take_bounds(struct parser *s, uint32_t *min, uint32_t *max, bool nested)
{
    const char *start = s->p++;
    skip_space(s, nested);
    TRY(take_number(s, REPEAT_MAX, min));
    *max = *min;
    skip_space(s, nested);
    if (at(s, ',')) {
        s->p++;
        skip_space(s, nested);
        *max = REPEAT_NO_MAX;
        if (s->p < s->end && is_digit(*s->p)) TRY(take_number(s, REPEAT_MAX, max));
        skip_space(s, nested);
    }
    if (!at(s, '}')) return expected(s, "',' or '}'");
    s->p++;
    if (*max < *min) return wrong(s, start, "the upper bound is below the lower one");
    return OK;
}

static status take_symbol(struct parser *s, bool *none)
{
    char c = s->p < s->end ? *s->p : 0;
    *none = false;
    if (c == '"') return take_literal(s);
    if (c == '[') return take_class(s);
    if (c == '<' || c == '!') return take_token(s);
    if (c == '(') return take_group(s);
    if (is_word(c)) return take_reference(s);
    if (c == '.') {
        s->p++;
        return push_class(s, 0, true);
    }
    *none = true;
    return OK;
}

static status take_sequence(struct parser *s, bool nested)
{
    uint32_t from = s->n_stack;
    bool any = false;
    for (;; skip_space(s, nested)) {
        char c = s->p < s->end ? *s->p : 0;
        uint32_t min = c == '+', max = c == '?' ? 1 : REPEAT_NO_MAX;
        if (c == '*' || c == '+' || c == '?' || c == '{') {
            if (!any) return wrong(s, s->p, "there is nothing to repeat before this");
            if (c == '{') TRY(take_bounds(s, &min, &max, nested));
            else s->p++;
            TRY(repeat(s, from, min, max));
            continue;
        }
        uint32_t start = s->n_stack;
        bool none;
        TRY(take_symbol(s, &none));
        if (none) return OK;
        from = start;
        any = true;
    }
}

static status take_alternatives(struct parser *s, uint32_t rule, bool nested)
{
    uint32_t from = s->n_stack;
    for (;;) {
        TRY(take_sequence(s, nested));
        TRY(close_alternative(s, rule, from));
        if (!at(s, '|')) return OK;
        s->p++;
        skip_space(s, true);
    }
}

static status take_rule(struct parser *s)
{
    const char *name = s->p;
    uint32_t n = take_name(s), y;
    if (n == 0) return expected(s, "the name of a rule");
    skip_space(s, false);
    if (s->end - s->p < 3 || memcmp(s->p, "::=", 3) != 0) return expected(s, "::=");
    s->p += 3;
    skip_space(s, true);
    TRY(symbol_of(s, name, n, &y));
    if (s->symbol[y].defined) return about(s, &s->symbol[y], name, "is defined twice");
    s->symbol[y].defined = name;
    TRY(take_alternatives(s, s->symbol[y].rule, false));
    if (s->p < s->end && *s->p != '\n' && *s->p != '\r') return expected(s, "an item, '|' or the end of the line");
    skip_space(s, true);
    return OK;
}

/* ---- checks ---- */

/* Which rules can be empty. Every alternative waits at its first element that is not known to be empty; a rule that turns out to be can wake those
 * that wait for it: linear in the number of elements. */
static status find_empty(const struct parser *s, bool *empty)
{
    const struct grammar *g = s->g;
    uint32_t *at_elem = mem_calloc(g->n_alt, sizeof *at_elem), *owner = mem_calloc(g->n_alt, sizeof *owner);
    uint32_t *next = mem_calloc(g->n_alt, sizeof *next), *waiting = mem_calloc(g->n_rule + 1, sizeof *waiting);
    uint32_t *todo = mem_calloc(g->n_alt, sizeof *todo), n = 0;
    status st = at_elem && owner && next && waiting && todo ? OK : err_oom(s->e, "grammar", g->n_alt * sizeof *todo);
    for (uint32_t r = 0; r < g->n_rule && st == OK; r++)
        for (uint32_t a = g->rule[r].alt; a; a = g->alt[a].next) owner[a] = r, at_elem[a] = g->alt[a].elem, todo[n++] = a;
    while (n > 0 && st == OK) {
        uint32_t a = todo[--n], r = owner[a], i = at_elem[a];
        const struct elem *x = g->elem;
        while ((x[i].kind == ELEM_REPEAT && x[i].min == 0) || ((x[i].kind == ELEM_RULE || x[i].kind == ELEM_REPEAT) && empty[x[i].a])) i++;
        at_elem[a] = i;
        if (x[i].kind == ELEM_RULE || x[i].kind == ELEM_REPEAT) {
            next[a] = waiting[x[i].a];
            waiting[x[i].a] = a;
        } else if (x[i].kind == ELEM_END && !empty[r]) {
            empty[r] = true;
            for (uint32_t w = waiting[r]; w; w = next[w]) todo[n++] = w;
            waiting[r] = 0;
        }
    }
    mem_free(at_elem), mem_free(owner), mem_free(next), mem_free(waiting), mem_free(todo);
    return st;
}

struct visit { uint32_t rule, alt, elem; };

/* The next rule that can stand at the very beginning of v->rule; false when there is no further one. */
static bool next_leftmost(const struct grammar *g, const bool *empty, struct visit *v, uint32_t *out)
{
    while (v->alt) {
        const struct elem *x = &g->elem[v->elem];
        bool calls = x->kind == ELEM_RULE || x->kind == ELEM_REPEAT;
        if (calls) *out = x->a;
        if (calls && (empty[x->a] || (x->kind == ELEM_REPEAT && x->min == 0))) {
            v->elem++;
        } else {
            v->alt = g->alt[v->alt].next;
            v->elem = g->alt[v->alt].elem;
        }
        if (calls) return true;
    }
    return false;
}

static const struct symbol *symbol_of_rule(const struct parser *s, uint32_t rule)
{
    for (uint32_t i = 0; i < s->n_symbol; i++)
        if (s->symbol[i].rule == rule) return &s->symbol[i];
    return NULL;
}

/* Depth-first along "can begin with", without recursion. A rule met again while it is open begins with itself. */
static status refuse_left_recursion(const struct parser *s, const bool *empty)
{
    const struct grammar *g = s->g;
    struct visit *path = mem_calloc(g->n_rule + 1, sizeof *path);
    uint8_t *colour = mem_calloc(g->n_rule + 1, 1); /* 1 open, 2 done */
    status st = path && colour ? OK : err_oom(s->e, "grammar", g->n_rule * sizeof *path);
    for (uint32_t r = 0; r < g->n_rule && st == OK; r++) {
        uint32_t n = 0, to = 0;
        if (colour[r]) continue;
        path[n++] = (struct visit){ r, g->rule[r].alt, g->alt[g->rule[r].alt].elem };
        colour[r] = 1;
        while (n > 0 && st == OK) {
            if (!next_leftmost(g, empty, &path[n - 1], &to)) {
                colour[path[--n].rule] = 2;
            } else if (colour[to] == 1) {
                const struct symbol *y = symbol_of_rule(s, to);
                for (uint32_t i = n; !y && i-- > 0;) y = symbol_of_rule(s, path[i].rule);
                st = y ? about(s, y, y->defined, "begins with itself (left recursion); put the recursion behind something")
                       : err_set(s->e, ERR_USAGE, "%s: a group begins with itself", s->name);
            } else if (colour[to] == 0) {
                path[n++] = (struct visit){ to, g->rule[to].alt, g->alt[g->rule[to].alt].elem };
                colour[to] = 1;
            }
        }
    }
    mem_free(path), mem_free(colour);
    return st;
}

static status check(const struct parser *s)
{
    for (uint32_t i = 0; i < s->n_symbol; i++)
        if (!s->symbol[i].defined) return about(s, &s->symbol[i], s->symbol[i].used, "is not defined");
    bool *empty = mem_calloc(s->g->n_rule + 1, sizeof *empty);
    if (!empty) return err_oom(s->e, "grammar", s->g->n_rule);
    status st = find_empty(s, empty);
    if (st == OK) st = refuse_left_recursion(s, empty);
    mem_free(empty);
    return st;
}

/* ---- the whole ---- */

static status parse(struct parser *s)
{
    struct grammar *g = s->g;
    uint32_t y;
    s->item = mem_calloc(CLASS_ITEMS_MAX + 2, sizeof *s->item);
    if (!s->item) return err_oom(s->e, "grammar", CLASS_ITEMS_MAX * sizeof *s->item);
    TRY(grammar_room(&g->alt, 1, &g->alt_cap, sizeof *g->alt, s->e));
    TRY(grammar_room(&g->state, 2, &g->state_cap, sizeof *g->state, s->e));
    memset(g->state, 0, 2 * sizeof *g->state);
    g->alt[0] = (struct alt){ 0, 0 };
    g->n_alt = 1, g->n_state = 2;
    TRY(grammar_room(&g->elem, 1, &g->elem_cap, sizeof *g->elem, s->e));
    g->elem[0] = (struct elem){ .kind = ELEM_END };
    g->n_elem = 1;
    skip_space(s, true);
    while (s->p < s->end) TRY(take_rule(s));
    TRY(symbol_of(s, "root", 4, &y));
    if (!s->symbol[y].defined) return err_set(s->e, ERR_USAGE, "%s: there is no rule 'root', where every text begins", s->name);
    g->root = s->symbol[y].rule;
    return check(s);
}

status grammar_parse(struct grammar **out, const char *text, size_t n, const char *name, const struct tokenizer *t, struct err *e)
{
    struct parser s = { .text = text, .p = text, .end = text + n, .name = name, .t = t, .e = e };
    *out = NULL;
    if (n > GRAMMAR_TEXT_MAX) return err_set(e, ERR_USAGE, "%s: %zu bytes of grammar, at most %d are allowed", name, n, GRAMMAR_TEXT_MAX);
    s.g = mem_calloc(1, sizeof *s.g);
    if (!s.g) return err_oom(e, "grammar", sizeof *s.g);
    arena_init(&s.ranges, 0);
    status st = parse(&s);
    if (st == OK) *out = s.g;
    else grammar_close(s.g);
    arena_free(&s.ranges);
    mem_free(s.symbol), mem_free(s.table), mem_free(s.stack), mem_free(s.seen), mem_free(s.item);
    return st;
}

void grammar_close(struct grammar *g)
{
    if (!g) return;
    mem_free(g->elem), mem_free(g->alt), mem_free(g->rule), mem_free(g->state);
    mem_free(g);
}

/* template_eval - walks the nodes of one template over one set of variables and writes the output.
 * One function per node kind in two tables (eval_rows, exec_rows); what a template calls comes from the tables of filters and methods.
 * All memory of a render is its arena and its output buffer; the first failure ends the render, so nothing is undone on the way out.
 * Source: Jinja2 3.1 (scoping, loop variable, macros) as run by Hugging Face: sandboxed, autoescape off. */
#include "src/template_int.h"
#include <string.h>

struct loop {
    struct iter it;
    const struct node *node;
    struct scope *outer, *body, *test; /* around the loop; of the current turn; of the filter */
    struct val before, current, after;
    bool has_after, has_length, unfiltered; /* unfiltered: the rest has passed the filter already */
    int64_t index0, length;
    struct val changed; /* arguments of the last loop.changed(), V_ABSENT before */
};

static status eval(struct render *r, const struct node *n, struct val *out);
static status exec(struct render *r, const struct node *list);

/* ---- scopes ---- */

static status scope_push(struct render *r)
{
    struct scope *s;
    TRY(heap_get(r, sizeof *s, &s));
    *s = (struct scope){ .up = r->scope };
    r->scope = s;
    return OK;
}

static status scope_set(struct render *r, struct scope *s, struct text name, struct val v)
{
    for (int64_t i = 0; i < s->n; i++)
        if (text_eq(s->at[i].name, name)) {
            s->at[i].v = v;
            return charge(r, (size_t)i * 8);
        }
    TRY(charge(r, (size_t)s->n * 8));
    if (s->n == s->cap) {
        int64_t cap = s->cap ? s->cap * 2 : 4;
        struct var *at;
        TRY(heap_get(r, (size_t)cap * sizeof *at, &at));
        if (s->n) memcpy(at, s->at, (size_t)s->n * sizeof *at);
        s->at = at;
        s->cap = cap;
    }
    s->at[s->n++] = (struct var){ name, v };
    return OK;
}

static status lookup(struct render *r, struct text name, struct val *out)
{
    size_t seen = 0;
    for (const struct scope *s = r->scope; s; s = s->up)
        for (int64_t i = 0; i < s->n; i++, seen++)
            if (text_eq(s->at[i].name, name)) {
                *out = s->at[i].v;
                return charge(r, seen * 8);
            }
    const struct builtin *fn = template_global(name);
    *out = fn ? (struct val){ .kind = V_FUNC, .fn = fn } : val_undef(UNDEF_NAME, name);
    return charge(r, seen * 8);
}

/* A macro is about to keep the current scope: loops around must give their next turn a new one. */
static void capture_scope(struct render *r)
{
    for (struct scope *s = r->scope; s && !s->captured; s = s->up) s->captured = true;
}

static status assign(struct render *r, const struct node *target, struct val v);

static status assign_tuple(struct render *r, const struct node *target, const struct val *v)
{
    struct iter it;
    struct val item;
    TRY(fail_undef(r, v));
    TRY(iter_begin(r, v, &it));
    int64_t n = 0;
    for (const struct node *t = target->a; t; t = t->next, n++) {
        if (!iter_next(&it, &item)) return fail(r, "too few values to assign: %lld", (long long)n);
        TRY(assign(r, t, item));
    }
    return iter_next(&it, &item) ? fail(r, "too many values to assign: more than %lld", (long long)n) : OK;
}

static status assign(struct render *r, const struct node *target, struct val v)
{
    if (target->kind == N_NAME) return scope_set(r, r->scope, val_text(&target->v), v);
    if (target->kind == N_TUPLE) return assign_tuple(r, target, &v);
    struct val ns;
    TRY(lookup(r, val_text(&target->v), &ns));
    TRY(fail_undef(r, &ns));
    if (ns.kind != V_NAMESPACE) return fail(r, "cannot set a member of '%s', only of a namespace", val_type_names[ns.kind]);
    return dict_set(r, ns.dict, target->d->v, v);
}

/* ---- members, items, slices ---- */

static status bound_method(struct render *r, const struct val *v, struct text name, struct val *out)
{
    const struct builtin *row = template_method(v->kind, name);
    if (!row) {
        *out = val_undef(UNDEF_MEMBER + (int)v->kind, name);
        return OK;
    }
    struct method *m;
    TRY(heap_get(r, sizeof *m, &m));
    *m = (struct method){ *v, row };
    *out = (struct val){ .kind = V_METHOD, .method = m };
    return OK;
}

/* dict[key]; *found false when absent */
static status dict_item(struct render *r, const struct dict *d, const struct val *key, struct val *out, bool *found)
{
    struct entry *en;
    TRY(dict_find(r, d, key, &en));
    *found = en != NULL;
    if (en) *out = en->value;
    return OK;
}

status get_attr(struct render *r, const struct val *v, struct text name, struct val *out)
{
    struct val key = val_str(name);
    bool found = false;
    TRY(fail_undef(r, v));
    if (v->kind == V_LOOP) return loop_attr(r, v->loop, name, out);
    if (v->kind == V_NAMESPACE) TRY(dict_item(r, v->dict, &key, out, &found));
    if (found) return OK;
    if (v->kind == V_TUPLE && v->seq->group && (text_is(name, "grouper") || text_is(name, "list"))) {
        *out = v->seq->at[name.p[0] == 'l'];
        return OK;
    }
    if (v->kind == V_CYCLER && text_is(name, "current")) {
        *out = v->cycler->items->at[v->cycler->at];
        return OK;
    }
    TRY(bound_method(r, v, name, out));
    if (out->kind == V_UNDEF && v->kind == V_DICT) {
        struct val undef = *out;
        TRY(dict_item(r, v->dict, &key, out, &found));
        if (!found) *out = undef;
    }
    return OK;
}

status get_item(struct render *r, const struct val *v, const struct val *key, struct val *out)
{
    TRY(fail_undef(r, v));
    bool found = false;
    if (v->kind == V_DICT && key->kind != V_LIST && key->kind != V_DICT) TRY(dict_item(r, v->dict, key, out, &found));
    if (found) return OK;
    if (val_is_whole(key) && (v->kind == V_STR || v->kind == V_LIST || v->kind == V_TUPLE || v->kind == V_RANGE)) {
        int64_t n, i = key->i;
        TRY(val_length(r, v, &n));
        if (i < 0) i += n;
        if (i >= 0 && i < n && v->kind != V_STR) {
            *out = v->seq->at[i];
            return OK;
        }
        if (i >= 0 && i < n) {
            size_t at = text_offset(val_text(v), i);
            uint32_t c;
            *out = val_str((struct text){ v->p + at, (size_t)text_get(v->p + at, v->p + v->n, &c) });
            return OK;
        }
    }
    if (key->kind == V_STR && v->kind == V_DICT) return bound_method(r, v, val_text(key), out);
    if (key->kind == V_STR) return get_attr(r, v, val_text(key), out);
    struct text shown;
    TRY(to_text(r, key, &shown));
    *out = val_undef(UNDEF_MEMBER + (int)v->kind, shown);
    return OK;
}

/* One bound of a slice, clipped as Python does; absent: `fallback`. */
static status slice_bound(struct render *r, const struct node *node, int64_t n, int64_t low, int64_t high, int64_t fallback, int64_t *out)
{
    struct val v = val_none();
    if (node) TRY(eval(r, node, &v));
    *out = fallback;
    if (v.kind == V_NONE) return OK;
    TRY(want_int(r, &v, "slice bound", out));
    if (*out < 0) *out += n;
    if (*out < low) *out = low;
    if (*out > high) *out = high;
    return OK;
}

static status slice_text(struct render *r, struct text t, int64_t from, int64_t to, int64_t step, struct val *out)
{
    if (step == 1) {
        size_t a = text_offset(t, from), b = from < to ? a + text_offset((struct text){ t.p + a, t.n - a }, to - from) : a;
        *out = val_str((struct text){ t.p + a, b - a });
        return charge_chars(r, t.n);
    }
    size_t *start; /* byte offset of every character */
    int64_t n = text_length(t);
    uint32_t c;
    TRY(charge_chars(r, t.n));
    TRY(heap_get(r, (size_t)(n + 1) * sizeof *start, &start));
    start[0] = 0;
    for (int64_t i = 0; i < n; i++) start[i + 1] = start[i] + (size_t)text_get(t.p + start[i], t.p + t.n, &c);
    size_t mark = text_begin(r);
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step) TRY(put(r, t.p + start[i], start[i + 1] - start[i]));
    return text_end(r, mark, out);
}

static status eval_slice(struct render *r, const struct node *n, struct val *out)
{
    struct val v, s = val_none();
    int64_t len, from, to, step = 1;
    TRY(eval(r, n->a, &v));
    TRY(fail_undef(r, &v));
    if (n->d) TRY(eval(r, n->d, &s));
    if (s.kind != V_NONE) TRY(want_int(r, &s, "slice step", &step));
    if (step == 0) return fail(r, "slice step is 0");
    if (v.kind != V_STR && v.kind != V_LIST && v.kind != V_TUPLE && v.kind != V_RANGE)
        return fail(r, "'%s' cannot be sliced", val_type_names[v.kind]);
    TRY(val_length(r, &v, &len));
    step = step < -len - 1 ? -len - 1 : step > len + 1 ? len + 1 : step; /* no sum below can overflow */
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? len : len - 1;
    TRY(slice_bound(r, n->b, len, low, high, step > 0 ? 0 : len - 1, &from));
    TRY(slice_bound(r, n->c, len, low, high, step > 0 ? len : -1, &to));
    if (v.kind == V_STR) return slice_text(r, val_text(&v), from, to, step, out);
    TRY(seq_new(r, v.kind == V_RANGE ? V_LIST : v.kind, 0, out));
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step) TRY(seq_push(r, out->seq, v.seq->at[i]));
    return OK;
}

/* ---- calls ---- */

static status stack_push(struct render *r, struct val v)
{
    if (r->n_stack == TEMPLATE_STACK) return fail(r, "limit of %d arguments in progress passed", TEMPLATE_STACK);
    r->stack[r->n_stack++] = v;
    return OK;
}

/* Evaluates arguments onto the stack; the caller pops them by restoring n_stack. */
static status eval_args(struct render *r, const struct node *args, struct call *c)
{
    int base = r->n_stack;
    const struct node *n = args;
    struct val v;
    for (; n && n->kind != N_KWARG; n = n->next) {
        TRY(eval(r, n, &v));
        TRY(stack_push(r, v));
        c->n_pos++;
    }
    for (; n; n = n->next) {
        TRY(eval(r, n->a, &v));
        TRY(stack_push(r, n->v));
        TRY(stack_push(r, v));
        c->n_kw++;
    }
    c->pos = r->stack + base;
    c->kw = c->pos + c->n_pos;
    return OK;
}

/* Position of a name in "a b c", -1 if it is not there; *n_out = number of names. */
static int param_index(const char *params, struct text name, int *n_out)
{
    int n = 0, found = -1;
    for (const char *p = params; *p; n++) {
        size_t len = strcspn(p, " ");
        if (text_eq(name, (struct text){ p, len })) found = n;
        p += len + (p[len] == ' ');
    }
    *n_out = n;
    return found;
}

status call_row(struct render *r, const struct builtin *row, struct call *c, struct val *out)
{
    if (row->params) {
        int n_params;
        (void)param_index(row->params, TEXT(""), &n_params);
        if (c->n_pos > n_params) return fail(r, "'%s' takes %d arguments at most, not %d", row->name, n_params, c->n_pos);
        for (int i = 0; i < PARAMS_MAX; i++) c->arg[i] = i < c->n_pos ? c->pos[i] : (struct val){ .kind = V_ABSENT };
        for (int i = 0; i < c->n_kw; i++) {
            struct text name = val_text(&c->kw[2 * i]);
            int at = param_index(row->params, name, &n_params);
            if (at < 0) return fail(r, "'%s' has no argument '%.*s'", row->name, name.n > 60 ? 60 : (int)name.n, name.p);
            if (c->arg[at].kind != V_ABSENT) return fail(r, "'%s' got argument '%.*s' twice", row->name, (int)name.n, name.p);
            c->arg[at] = c->kw[2 * i + 1];
        }
        for (int i = 0; i < row->required; i++)
            if (c->arg[i].kind == V_ABSENT) return fail(r, "'%s' needs %d arguments", row->name, row->required);
    }
    TRY(charge(r, 0));
    return row->run(r, c, out);
}

static int find_kw(const struct call *c, struct text name)
{
    for (int i = 0; i < c->n_kw; i++)
        if (text_eq(val_text(&c->kw[2 * i]), name)) return i;
    return -1;
}

/* Binds parameters in the current (new) scope; defaults may use earlier ones. *used: keyword arguments taken. */
static status bind_params(struct render *r, const struct node *macro, const struct call *c, int *n_params, int *used)
{
    *n_params = *used = 0;
    for (const struct node *p = macro->args; p; p = p->next, ++*n_params) {
        struct text name = val_text(&p->v);
        int k = find_kw(c, name);
        struct val v = val_undef(UNDEF_NAME, name);
        if (*n_params < c->n_pos) {
            if (k >= 0) return fail(r, "argument '%.*s' is given twice", (int)name.n, name.p);
            v = c->pos[*n_params];
        } else if (k >= 0) {
            v = c->kw[2 * k + 1];
            ++*used;
        } else if (p->a) {
            TRY(eval(r, p->a, &v));
        }
        TRY(scope_set(r, r->scope, name, v));
    }
    return OK;
}

/* varargs, kwargs and caller, for macros that mention them; otherwise what is left over is an error. */
static status bind_rest(struct render *r, const struct node *macro, const struct call *c, int n_params, int used)
{
    struct text name = val_text(&macro->v);
    int caller = find_kw(c, TEXT("caller"));
    struct val v;
    if (macro->op & MACRO_CALLER) {
        if (macro->kind == N_MACRO) {
            v = caller >= 0 ? c->kw[2 * caller + 1] : val_undef(UNDEF_NAME, TEXT("caller"));
            TRY(scope_set(r, r->scope, TEXT("caller"), v));
        }
        used += caller >= 0;
    }
    if (macro->op & MACRO_KWARGS) {
        TRY(dict_new(r, V_DICT, 0, &v));
        for (int i = 0; i < c->n_kw; i++) {
            bool is_param = i == caller && (macro->op & MACRO_CALLER);
            for (const struct node *p = macro->args; p && !is_param; p = p->next)
                is_param = text_eq(val_text(&p->v), val_text(&c->kw[2 * i]));
            if (!is_param) TRY(dict_set(r, v.dict, c->kw[2 * i], c->kw[2 * i + 1]));
        }
        TRY(scope_set(r, r->scope, TEXT("kwargs"), v));
        used = c->n_kw;
    }
    if (used < c->n_kw) {
        for (int i = 0; i < c->n_kw; i++) {
            struct text kw = val_text(&c->kw[2 * i]);
            bool is_param = false;
            for (const struct node *p = macro->args; p && !is_param; p = p->next) is_param = text_eq(val_text(&p->v), kw);
            if (!is_param) return fail(r, "macro '%.*s' has no argument '%.*s'", (int)name.n, name.p, kw.n > 60 ? 60 : (int)kw.n, kw.p);
        }
    }
    if (macro->op & MACRO_VARARGS) {
        TRY(seq_new(r, V_TUPLE, 0, &v));
        for (int i = n_params; i < c->n_pos; i++) TRY(seq_push(r, v.seq, c->pos[i]));
        TRY(scope_set(r, r->scope, TEXT("varargs"), v));
    } else if (c->n_pos > n_params) {
        return fail(r, "macro '%.*s' takes %d arguments at most, not %d", (int)name.n, name.p, n_params, c->n_pos);
    }
    return OK;
}

static status call_macro(struct render *r, const struct macro *m, const struct call *c, struct val *out)
{
    if (++r->calls > TEMPLATE_DEPTH) return fail(r, "macro calls are nested deeper than %d", TEMPLATE_DEPTH);
    struct scope *scope = r->scope;
    int n_params, used;
    r->scope = m->scope;
    TRY(scope_push(r));
    TRY(bind_params(r, m->node, c, &n_params, &used));
    TRY(bind_rest(r, m->node, c, n_params, used));
    size_t mark = text_begin(r);
    TRY(exec(r, m->node->b));
    TRY(text_end(r, mark, out));
    r->scope = scope;
    r->calls--;
    return OK;
}

static status call_joiner(struct render *r, struct cycler *j, struct val *out)
{
    *out = j->at++ ? j->items->at[0] : val_str(TEXT(""));
    j->at = 1;
    return charge(r, 0);
}

static status call_value(struct render *r, const struct val *f, struct call *c, struct val *out)
{
    TRY(fail_undef(r, f));
    switch (f->kind) {
    case V_MACRO: return call_macro(r, f->macro, c, out);
    case V_FUNC: return call_row(r, f->fn, c, out);
    case V_METHOD: c->self = f->method->self; return call_row(r, f->method->row, c, out);
    case V_JOINER: return call_joiner(r, f->cycler, out);
    case V_LOOP: return fail(r, "recursive loops (calling loop) are not supported");
    default: return fail(r, "'%s' cannot be called", val_type_names[f->kind]);
    }
}

static status eval_call_with(struct render *r, const struct node *n, const struct val *caller, struct val *out)
{
    struct call c = { 0 };
    struct val f;
    int base = r->n_stack;
    TRY(eval(r, n->a, &f));
    TRY(eval_args(r, n->args, &c));
    if (caller) {
        TRY(stack_push(r, val_str(TEXT("caller"))));
        TRY(stack_push(r, *caller));
        c.n_kw++;
    }
    r->line = n->line;
    TRY(call_value(r, &f, &c, out));
    r->n_stack = base;
    return OK;
}

static status eval_call(struct render *r, const struct node *n, struct val *out) { return eval_call_with(r, n, NULL, out); }

static status eval_row_call(struct render *r, const struct node *n, struct val *out)
{
    struct call c = { .self = r->block_text };
    int base = r->n_stack;
    if (n->a) TRY(eval(r, n->a, &c.self));
    TRY(eval_args(r, n->args, &c));
    r->line = n->line;
    TRY(call_row(r, n->row, &c, out));
    r->n_stack = base;
    return OK;
}

/* ---- expressions ---- */

static status eval_const(struct render *r, const struct node *n, struct val *out)
{
    (void)r;
    *out = n->v;
    return OK;
}

static status eval_name(struct render *r, const struct node *n, struct val *out) { return lookup(r, val_text(&n->v), out); }

static status eval_items(struct render *r, const struct node *n, struct val *out)
{
    TRY(seq_new(r, n->kind == N_LIST ? V_LIST : V_TUPLE, 0, out));
    for (const struct node *c = n->a; c; c = c->next) {
        struct val v;
        TRY(eval(r, c, &v));
        TRY(seq_push(r, out->seq, v));
    }
    return OK;
}

static status eval_dict(struct render *r, const struct node *n, struct val *out)
{
    TRY(dict_new(r, V_DICT, 0, out));
    for (const struct node *c = n->a; c; c = c->next->next) {
        struct val key, v;
        TRY(eval(r, c, &key));
        TRY(eval(r, c->next, &v));
        TRY(dict_set(r, out->dict, key, v));
    }
    return OK;
}

static status eval_logic(struct render *r, const struct node *n, struct val *out)
{
    TRY(eval(r, n->a, out));
    return val_true(out) == (n->kind == N_AND) ? eval(r, n->b, out) : OK;
}

static status eval_not(struct render *r, const struct node *n, struct val *out)
{
    struct val v;
    TRY(eval(r, n->a, &v));
    *out = val_bool(!val_true(&v));
    return OK;
}

static status eval_sign(struct render *r, const struct node *n, struct val *out)
{
    struct val v, zero = val_int(0);
    TRY(eval(r, n->a, &v));
    TRY(fail_undef(r, &v));
    if (!val_is_num(&v)) return fail(r, "unsupported operand of %s: '%s'", n->kind == N_NEG ? "-" : "+", val_type_names[v.kind]);
    if (n->kind == N_NEG && v.kind == V_FLOAT) *out = val_float(-v.f);
    else return val_binary(r, n->kind == N_NEG ? OP_SUB : OP_ADD, n->kind == N_NEG ? &zero : &v, n->kind == N_NEG ? &v : &zero, out);
    return OK;
}

static status eval_binary(struct render *r, const struct node *n, struct val *out)
{
    struct val a, b;
    TRY(eval(r, n->a, &a));
    TRY(eval(r, n->b, &b));
    r->line = n->line;
    return val_binary(r, (enum op)n->op, &a, &b, out);
}

static status eval_compare(struct render *r, const struct node *n, struct val *out)
{
    struct val left, right;
    bool yes = true;
    TRY(eval(r, n->a, &left));
    for (const struct node *c = n->b; c && yes; c = c->next) {
        TRY(eval(r, c->a, &right));
        r->line = n->line;
        TRY(val_compare(r, (enum op)c->op, &left, &right, &yes));
        left = right;
    }
    *out = val_bool(yes);
    return OK;
}

static status eval_concat(struct render *r, const struct node *n, struct val *out)
{
    int base = r->n_stack;
    for (const struct node *c = n->a; c; c = c->next) {
        struct val v;
        TRY(eval(r, c, &v));
        TRY(stack_push(r, v));
    }
    size_t mark = text_begin(r);
    for (int i = base; i < r->n_stack; i++) TRY(put_val(r, &r->stack[i]));
    r->n_stack = base;
    return text_end(r, mark, out);
}

static status eval_cond(struct render *r, const struct node *n, struct val *out)
{
    struct val test;
    TRY(eval(r, n->a, &test));
    if (val_true(&test)) return eval(r, n->b, out);
    if (n->c) return eval(r, n->c, out);
    *out = val_undef(UNDEF_HINT, TEXT("the inline if was false and has no else"));
    return OK;
}

static status eval_attr(struct render *r, const struct node *n, struct val *out)
{
    struct val v;
    TRY(eval(r, n->a, &v));
    r->line = n->line;
    return get_attr(r, &v, val_text(&n->v), out);
}

static status eval_item(struct render *r, const struct node *n, struct val *out)
{
    struct val v, key;
    TRY(eval(r, n->a, &v));
    TRY(eval(r, n->b, &key));
    r->line = n->line;
    return get_item(r, &v, &key, out);
}

static status (*const eval_rows[N_KINDS])(struct render *r, const struct node *n, struct val *out) = {
    [N_CONST] = eval_const,   [N_NAME] = eval_name,       [N_LIST] = eval_items,    [N_TUPLE] = eval_items,     [N_DICT] = eval_dict,
    [N_AND] = eval_logic,     [N_OR] = eval_logic,        [N_NOT] = eval_not,       [N_NEG] = eval_sign,        [N_POS] = eval_sign,
    [N_BINARY] = eval_binary, [N_COMPARE] = eval_compare, [N_CONCAT] = eval_concat, [N_COND] = eval_cond,       [N_ATTR] = eval_attr,
    [N_ITEM] = eval_item,     [N_SLICE] = eval_slice,     [N_CALL] = eval_call,     [N_FILTER] = eval_row_call, [N_TEST] = eval_row_call,
};

static status eval(struct render *r, const struct node *n, struct val *out)
{
    r->line = n->line;
    TRY(charge(r, 0));
    if (++r->frames > TEMPLATE_FRAMES) return fail(r, "expressions and calls are nested deeper than %d", TEMPLATE_FRAMES);
    TRY(eval_rows[n->kind](r, n, out));
    r->frames--;
    return OK;
}

/* ---- loops ---- */

/* A clean scope for the next turn; the last one is reused unless a macro holds on to it. */
static status loop_scope(struct render *r, struct scope *outer, struct scope **mine)
{
    r->scope = outer;
    if (*mine && !(*mine)->captured) {
        (*mine)->n = 0;
        r->scope = *mine;
        return OK;
    }
    TRY(scope_push(r));
    *mine = r->scope;
    return OK;
}

/* The next item that passes the filter of the loop, into l->after. */
static status loop_fetch(struct render *r, struct loop *l)
{
    while (!l->has_after && iter_next(&l->it, &l->after)) {
        struct val test = val_bool(true);
        TRY(charge(r, 0));
        if (l->node->c && !l->unfiltered) {
            struct scope *scope = r->scope;
            TRY(loop_scope(r, l->outer, &l->test));
            TRY(assign(r, l->node->d, l->after));
            TRY(eval(r, l->node->c, &test));
            r->scope = scope;
        }
        l->has_after = val_true(&test);
    }
    return OK;
}

static status loop_length(struct render *r, struct loop *l)
{
    if (l->has_length) return OK;
    struct val rest;
    TRY(loop_fetch(r, l));
    TRY(seq_new(r, V_LIST, 0, &rest));
    l->length = l->index0 + 1;
    while (l->has_after) { /* the filter runs over the rest now, once */
        l->length++;
        TRY(seq_push(r, rest.seq, l->after));
        l->has_after = false;
        TRY(loop_fetch(r, l));
    }
    l->it = (struct iter){ .seq = rest.seq };
    l->unfiltered = true;
    l->has_length = true;
    return OK;
}

status loop_attr(struct render *r, struct loop *l, struct text name, struct val *out)
{
    enum { INDEX, INDEX0, FIRST, LAST, LENGTH, REVINDEX, REVINDEX0, PREVITEM, NEXTITEM, DEPTH, DEPTH0, MEMBERS };
    static const char *const names[MEMBERS] = {
        [INDEX] = "index",       [INDEX0] = "index0",     [FIRST] = "first",         [LAST] = "last",
        [LENGTH] = "length",     [REVINDEX] = "revindex", [REVINDEX0] = "revindex0", [PREVITEM] = "previtem",
        [NEXTITEM] = "nextitem", [DEPTH] = "depth",       [DEPTH0] = "depth0",
    };
    int k = 0;
    while (k < MEMBERS && !text_is(name, names[k])) k++;
    if (k == LAST || k == NEXTITEM) TRY(loop_fetch(r, l));
    if (k >= LENGTH && k <= REVINDEX0) TRY(loop_length(r, l));
    switch (k) {
    case INDEX: *out = val_int(l->index0 + 1); break;
    case INDEX0: *out = val_int(l->index0); break;
    case FIRST: *out = val_bool(l->index0 == 0); break;
    case LAST: *out = val_bool(!l->has_after); break;
    case LENGTH: *out = val_int(l->length); break;
    case REVINDEX: *out = val_int(l->length - l->index0); break;
    case REVINDEX0: *out = val_int(l->length - l->index0 - 1); break;
    case PREVITEM: *out = l->index0 ? l->before : val_undef(UNDEF_HINT, TEXT("there is no previous item")); break;
    case NEXTITEM: *out = l->has_after ? l->after : val_undef(UNDEF_HINT, TEXT("there is no next item")); break;
    case DEPTH: *out = val_int(1); break; /* recursive loops are refused when parsed */
    case DEPTH0: *out = val_int(0); break;
    default: {
        struct val self = { .kind = V_LOOP, .loop = l };
        return bound_method(r, &self, name, out);
    }
    }
    return OK;
}

status loop_cycle(struct render *r, struct call *c, struct val *out)
{
    if (c->n_pos == 0) return fail(r, "loop.cycle needs at least one argument");
    *out = c->pos[c->self.loop->index0 % c->n_pos];
    return OK;
}

status loop_changed(struct render *r, struct call *c, struct val *out)
{
    struct loop *l = c->self.loop;
    struct val now;
    bool same = false;
    TRY(seq_new(r, V_TUPLE, 0, &now));
    for (int i = 0; i < c->n_pos; i++) TRY(seq_push(r, now.seq, c->pos[i]));
    if (l->changed.kind != V_ABSENT) TRY(val_equal(r, &l->changed, &now, &same));
    l->changed = now;
    *out = val_bool(!same);
    return OK;
}

static status loop_turn(struct render *r, const struct node *n, struct loop *l)
{
    l->index0++;
    l->before = l->current;
    l->current = l->after;
    l->has_after = false;
    TRY(scope_set(r, r->scope, TEXT("loop"), (struct val){ .kind = V_LOOP, .loop = l }));
    TRY(assign(r, n->d, l->current));
    return exec(r, n->b);
}

static status exec_for(struct render *r, const struct node *n)
{
    struct scope *outer = r->scope;
    struct loop *l;
    struct val v;
    TRY(eval(r, n->a, &v));
    TRY(heap_get(r, sizeof *l, &l));
    *l = (struct loop){ .node = n, .outer = outer, .index0 = -1 };
    TRY(iter_begin(r, &v, &l->it));
    if (!n->c && v.kind != V_GEN) {
        TRY(val_length(r, &v, &l->length));
        l->has_length = true;
    }
    bool finished = false; /* Jinja2 runs else unless one turn went through without break or continue */
    while (r->flow != FLOW_BREAK) {
        r->scope = outer;
        TRY(loop_fetch(r, l));
        if (!l->has_after) break;
        TRY(loop_scope(r, outer, &l->body));
        TRY(loop_turn(r, n, l));
        finished |= r->flow == FLOW_NEXT;
        if (r->flow == FLOW_CONTINUE) r->flow = FLOW_NEXT;
    }
    r->scope = outer;
    r->flow = FLOW_NEXT;
    if (!finished && n->args) {
        TRY(scope_push(r));
        TRY(exec(r, n->args));
        r->scope = outer;
    }
    return OK;
}

/* ---- statements ---- */

static status exec_data(struct render *r, const struct node *n) { return put(r, n->v.p, n->v.n); }

static status exec_output(struct render *r, const struct node *n)
{
    struct val v;
    TRY(eval(r, n->a, &v));
    return put_val(r, &v);
}

static status exec_if(struct render *r, const struct node *n)
{
    struct val test;
    for (;;) {
        TRY(eval(r, n->a, &test));
        if (val_true(&test)) return exec(r, n->b);
        const struct node *other = n->c;
        if (!other || other->kind != N_IF || other->next) return exec(r, other);
        n = other;
    }
}

static status exec_set(struct render *r, const struct node *n)
{
    struct val v;
    TRY(eval(r, n->a, &v));
    r->line = n->line;
    return assign(r, n->d, v);
}

/* Runs a body in its own scope and takes its output as a string. */
static status run_captured(struct render *r, const struct node *body, struct val *out)
{
    struct scope *outer = r->scope;
    TRY(scope_push(r));
    size_t mark = text_begin(r);
    TRY(exec(r, body));
    r->scope = outer;
    return text_end(r, mark, out);
}

static status exec_set_block(struct render *r, const struct node *n)
{
    struct val v;
    TRY(run_captured(r, n->b, &v));
    if (r->flow != FLOW_NEXT) return OK;
    r->block_text = v;
    if (n->a) TRY(eval(r, n->a, &v));
    return assign(r, n->d, v);
}

static status exec_filter_block(struct render *r, const struct node *n)
{
    struct val v;
    TRY(run_captured(r, n->b, &v));
    if (r->flow != FLOW_NEXT) return OK;
    r->block_text = v;
    TRY(eval(r, n->a, &v));
    return put_val(r, &v);
}

static status exec_with(struct render *r, const struct node *n)
{
    struct scope *outer = r->scope, *inner;
    TRY(scope_push(r));
    inner = r->scope;
    for (const struct node *a = n->args; a; a = a->next) { /* the values see the scope outside */
        struct val v;
        r->scope = outer;
        TRY(eval(r, a->a, &v));
        TRY(scope_set(r, inner, val_text(&a->v), v));
    }
    r->scope = inner;
    TRY(exec(r, n->b));
    r->scope = outer;
    return OK;
}

static status make_macro(struct render *r, const struct node *n, struct val *out)
{
    struct macro *m;
    TRY(heap_get(r, sizeof *m, &m));
    *m = (struct macro){ n, r->scope };
    capture_scope(r);
    *out = (struct val){ .kind = V_MACRO, .macro = m };
    return OK;
}

static status exec_macro(struct render *r, const struct node *n)
{
    struct val v;
    TRY(make_macro(r, n, &v));
    return scope_set(r, r->scope, val_text(&n->v), v);
}

static status exec_call_block(struct render *r, const struct node *n)
{
    struct val caller, v;
    TRY(make_macro(r, n, &caller));
    TRY(eval_call_with(r, n->a, &caller, &v));
    return put_val(r, &v);
}

static status exec_scoped(struct render *r, const struct node *n)
{
    static const char open = TEMPLATE_OPEN, close = TEMPLATE_CLOSE;
    struct scope *outer = r->scope;
    TRY(scope_push(r));
    if (r->blocks) TRY(put(r, &open, 1));
    TRY(exec(r, n->b));
    if (r->blocks) TRY(put(r, &close, 1));
    r->scope = outer;
    return OK;
}

static status exec_flow(struct render *r, const struct node *n)
{
    r->flow = n->kind == N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
    return OK;
}

static status (*const exec_rows[N_KINDS])(struct render *r, const struct node *n) = {
    [N_DATA] = exec_data,     [N_OUTPUT] = exec_output,         [N_IF] = exec_if,         [N_FOR] = exec_for,
    [N_SET] = exec_set,       [N_SET_BLOCK] = exec_set_block,   [N_WITH] = exec_with,     [N_FILTER_BLOCK] = exec_filter_block,
    [N_MACRO] = exec_macro,   [N_CALL_BLOCK] = exec_call_block, [N_SCOPED] = exec_scoped, [N_BREAK] = exec_flow,
    [N_CONTINUE] = exec_flow,
};

static status exec(struct render *r, const struct node *list)
{
    if (++r->frames > TEMPLATE_FRAMES) return fail(r, "statements and calls are nested deeper than %d", TEMPLATE_FRAMES);
    for (const struct node *n = list; n && r->flow == FLOW_NEXT; n = n->next) {
        r->line = n->line;
        TRY(charge(r, 0));
        TRY(exec_rows[n->kind](r, n));
    }
    r->frames--;
    return OK;
}

static status render_body(struct render *r, const struct json *vars)
{
    TRY(heap_get(r, TEMPLATE_STACK * sizeof *r->stack, &r->stack));
    TRY(scope_push(r));
    for (const struct json *v = vars->child; v; v = v->next) {
        struct val value;
        TRY(val_from_json(r, v, 1, &value));
        TRY(scope_set(r, r->scope, (struct text){ v->key, (size_t)v->key_n }, value));
    }
    TRY(scope_push(r));
    TRY(exec(r, r->t->body));
    return put(r, "", 0); /* an empty result has a buffer too */
}

static status render_all(const struct template *t, const struct json *vars, int64_t now, bool blocks, char **out, size_t *n, struct err *e)
{
    *out = NULL;
    *n = 0;
    if (vars->kind != JSON_OBJ) return err_set(e, ERR_USAGE, "%s: variables must be a JSON object", t->name);
    struct render r = { .t = t, .e = e, .now = now, .line = 1, .blocks = blocks };
    arena_init(&r.heap, TEMPLATE_HEAP);
    status st = render_body(&r, vars);
    arena_free(&r.heap);
    if (st != OK) {
        mem_free(r.out);
        return st;
    }
    r.out[r.out_n] = 0;
    *out = r.out;
    *n = r.out_n;
    return OK;
}

status template_render(const struct template *t, const struct json *vars, int64_t now, char **out, size_t *n, struct err *e)
{
    return render_all(t, vars, now, false, out, n, e);
}

status template_render_blocks(const struct template *t, const struct json *vars, int64_t now, char **out, size_t *n, struct err *e)
{
    return render_all(t, vars, now, true, out, n, e);
}

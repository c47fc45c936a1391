/* torchpickle - the data.pkl of a torch file: a machine for the opcodes and the globals that dicts of tensors are made of, and for nothing
 * else. Nothing is called: a global is a row of a table, and REDUCE builds the one thing that row stands for. Every opcode adds at most one
 * node, so memory is bounded by the length of the pickle; what is built is a graph of indices, which the walk at the end enters to a
 * limited depth. Sources: CPython Lib/pickletools.py (opcodes), PyTorch torch/_utils.py and torch/serialization.py (globals, arguments). */
#include "ggml-like/checkpoint_int.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TENSORS_MAX = 1 << 20, WALK_DEPTH = 16, WALK_STEPS = 1 << 22, NAME_MAX_BYTES = 1024, NAMES_FACTOR = 64 };

enum node_kind { N_NONE, N_BOOL, N_INT, N_FLOAT, N_STR, N_TUPLE, N_LIST, N_DICT, N_GLOBAL, N_STORAGE, N_TENSOR };
static const char *const kind_names[] = { "None", "bool", "int", "float", "str", "tuple", "list", "dict", "global", "storage", "tensor" };

struct node {
    uint32_t kind;
    uint32_t at; /* N_STR: first byte in the pickle; N_TUPLE: in item[]; N_LIST, N_DICT: first link or 0; else index in its vec */
    int64_t n;   /* N_STR: bytes; N_TUPLE: items; N_LIST, N_DICT: last link; N_BOOL, N_INT: value */
};
struct link {
    uint32_t key, value, next;
};
struct storage {
    bool untyped;
    enum ckpt_type type;
    const struct zip_entry *entry;
};

struct vec {
    void *p;
    int64_t n, cap;
};

struct pickle {
    const struct ckpt_shard *s;
    const struct zip *z;
    const uint8_t *data;
    size_t size, at, op_at; /* next byte; byte of the opcode that runs */
    struct vec node, link, item, stack, mark, memo, storage, tensor;
    bool done;
    struct err *e;
};

/* ---- errors and growing ---- */

static status fail(struct pickle *k, const char *fmt, ...) PRINTF_LIKE(2, 3);
static status fail(struct pickle *k, const char *fmt, ...)
{
    char text[240];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(k->e, ERR_FORMAT, "%s: data.pkl byte %zu: %s", k->s->path, k->op_at, text);
}

static status push(struct pickle *k, struct vec *v, const void *record, size_t bytes)
{
    if (v->n == v->cap) {
        size_t cap = v->cap ? (size_t)v->cap * 2 : 64, total;
        void *grown = v->cap < INT32_MAX / 2 && mul_size(cap, bytes, &total) ? mem_realloc(v->p, total) : NULL;
        if (!grown) return err_oom(k->e, k->s->path, cap * bytes);
        v->p = grown, v->cap = (int64_t)cap;
    }
    memcpy((char *)v->p + (size_t)v->n++ * bytes, record, bytes);
    return OK;
}

static struct node *node_of(const struct pickle *k, uint32_t i) { return (struct node *)k->node.p + i; }
static struct link *link_of(const struct pickle *k, uint32_t i) { return (struct link *)k->link.p + i; }
static uint32_t item_of(const struct pickle *k, const struct node *tuple, int64_t i) { return ((uint32_t *)k->item.p)[tuple->at + i]; }
static const struct node *arg_of(const struct pickle *k, const struct node *tuple, int64_t i) { return node_of(k, item_of(k, tuple, i)); }

static status push_index(struct pickle *k, uint32_t i) { return push(k, &k->stack, &i, sizeof i); }

static status push_node(struct pickle *k, struct node n)
{
    uint32_t i = (uint32_t)k->node.n;
    TRY(push(k, &k->node, &n, sizeof n));
    return push_index(k, i);
}

/* What lies below the newest mark belongs to somebody else. */
static status pop(struct pickle *k, uint32_t *out)
{
    uint32_t floor = k->mark.n ? ((uint32_t *)k->mark.p)[k->mark.n - 1] : 0;
    if (k->stack.n <= floor) return fail(k, "the stack is empty");
    *out = ((uint32_t *)k->stack.p)[--k->stack.n];
    return OK;
}

static status top(struct pickle *k, uint32_t *out)
{
    TRY(pop(k, out));
    k->stack.n++;
    return OK;
}

/* ---- arguments of opcodes ---- */

static status take(struct pickle *k, size_t n, const uint8_t **p)
{
    if (n > k->size - k->at) return fail(k, "needs %zu bytes, %zu are left", n, k->size - k->at);
    *p = k->data + k->at;
    k->at += n;
    return OK;
}

static status take_uint(struct pickle *k, int bytes, uint64_t *v)
{
    const uint8_t *p = NULL;
    TRY(take(k, (size_t)bytes, &p));
    *v = 0;
    for (int i = bytes - 1; i >= 0; i--) *v = *v << 8 | p[i];
    return OK;
}

static status take_line(struct pickle *k, const char **p, size_t *n)
{
    const uint8_t *from = k->data + k->at, *end = memchr(from, '\n', k->size - k->at);
    if (!end) return fail(k, "a line does not end");
    *p = (const char *)from;
    *n = (size_t)(end - from);
    k->at += *n + 1;
    return OK;
}

/* ---- globals ---- */

enum global_kind { G_DICT, G_SIZE, G_TENSOR, G_PARAMETER, G_STORAGE, G_UNTYPED, G_DTYPE };
static const struct global {
    const char *module, *name;
    enum global_kind kind;
    int type; /* enum ckpt_type of G_STORAGE and G_DTYPE; G_TENSOR: arguments before the metadata */
} globals[] = {
    { "collections", "OrderedDict", G_DICT, 0 },
    { "torch", "Size", G_SIZE, 0 },
    { "torch._utils", "_rebuild_tensor", G_TENSOR, 4 },
    { "torch._utils", "_rebuild_tensor_v2", G_TENSOR, 6 },
    { "torch._utils", "_rebuild_tensor_v3", G_TENSOR, 7 },
    { "torch._utils", "_rebuild_parameter", G_PARAMETER, 3 },
    { "torch._utils", "_rebuild_parameter_with_state", G_PARAMETER, 4 },
    { "torch", "FloatStorage", G_STORAGE, CKPT_F32 },
    { "torch", "DoubleStorage", G_STORAGE, CKPT_F64 },
    { "torch", "HalfStorage", G_STORAGE, CKPT_F16 },
    { "torch", "BFloat16Storage", G_STORAGE, CKPT_BF16 },
    { "torch", "LongStorage", G_STORAGE, CKPT_I64 },
    { "torch", "IntStorage", G_STORAGE, CKPT_I32 },
    { "torch", "ShortStorage", G_STORAGE, CKPT_I16 },
    { "torch", "CharStorage", G_STORAGE, CKPT_I8 },
    { "torch", "ByteStorage", G_STORAGE, CKPT_U8 },
    { "torch", "BoolStorage", G_STORAGE, CKPT_BOOL },
    { "torch", "UntypedStorage", G_UNTYPED, CKPT_U8 },
    { "torch.storage", "UntypedStorage", G_UNTYPED, CKPT_U8 },
    { "torch", "float32", G_DTYPE, CKPT_F32 },
    { "torch", "float64", G_DTYPE, CKPT_F64 },
    { "torch", "float16", G_DTYPE, CKPT_F16 },
    { "torch", "bfloat16", G_DTYPE, CKPT_BF16 },
    { "torch", "float8_e4m3fn", G_DTYPE, CKPT_F8_E4M3 },
    { "torch", "float8_e5m2", G_DTYPE, CKPT_F8_E5M2 },
    { "torch", "float8_e8m0fnu", G_DTYPE, CKPT_F8_E8M0 },
    { "torch", "int64", G_DTYPE, CKPT_I64 },
    { "torch", "int32", G_DTYPE, CKPT_I32 },
    { "torch", "int16", G_DTYPE, CKPT_I16 },
    { "torch", "int8", G_DTYPE, CKPT_I8 },
    { "torch", "uint8", G_DTYPE, CKPT_U8 },
    { "torch", "uint16", G_DTYPE, CKPT_U16 },
    { "torch", "uint32", G_DTYPE, CKPT_U32 },
    { "torch", "uint64", G_DTYPE, CKPT_U64 },
    { "torch", "bool", G_DTYPE, CKPT_BOOL },
};

static bool is_text(const char *text, const char *p, size_t n) { return strlen(text) == n && !memcmp(text, p, n); }

static status push_global(struct pickle *k, const char *module, size_t module_n, const char *name, size_t name_n)
{
    for (int i = 0; i < ARRAY_LEN(globals); i++)
        if (is_text(globals[i].module, module, module_n) && is_text(globals[i].name, name, name_n))
            return push_node(k, (struct node){ .kind = N_GLOBAL, .at = (uint32_t)i });
    return fail(k, "%.*s.%.*s is not among the types of a dict of tensors, and nothing is executed: save model.state_dict() alone",
                (int)(module_n < 60 ? module_n : 60), module, (int)(name_n < 60 ? name_n : 60), name);
}

static status op_global(struct pickle *k, int arg)
{
    const char *module = NULL, *name = NULL;
    size_t module_n = 0, name_n = 0;
    TRY(take_line(k, &module, &module_n));
    TRY(take_line(k, &name, &name_n));
    return push_global(k, module, module_n, name, name_n);
}

static status op_stack_global(struct pickle *k, int arg)
{
    uint32_t name = 0, module = 0;
    TRY(pop(k, &name));
    TRY(pop(k, &module));
    const struct node *m = node_of(k, module), *n = node_of(k, name);
    if (m->kind != N_STR || n->kind != N_STR) return fail(k, "a global is named by %s and %s", kind_names[m->kind], kind_names[n->kind]);
    return push_global(k, (const char *)k->data + m->at, (size_t)m->n, (const char *)k->data + n->at, (size_t)n->n);
}

/* ---- tensors ---- */

static const struct global *global_of(const struct node *n, enum global_kind kind)
{
    return n->kind == N_GLOBAL && globals[n->at].kind == kind ? &globals[n->at] : NULL;
}

/* ('storage', type, key, location, number of elements) */
static status op_persid(struct pickle *k, int arg)
{
    uint32_t id = 0;
    TRY(pop(k, &id));
    const struct node *t = node_of(k, id);
    if (t->kind != N_TUPLE || t->n != 5) return fail(k, "a persistent id is not a tuple of five");
    const struct node *word = arg_of(k, t, 0), *type = arg_of(k, t, 1), *key = arg_of(k, t, 2), *count = arg_of(k, t, 4);
    if (word->kind != N_STR || !is_text("storage", (const char *)k->data + word->at, (size_t)word->n) || key->kind != N_STR ||
        key->n > 64 || count->kind != N_INT || count->n < 0)
        return fail(k, "a persistent id is no storage");
    const struct global *g = global_of(type, G_STORAGE), *untyped = global_of(type, G_UNTYPED);
    if (!g && !untyped) return fail(k, "a storage's type is no storage type");
    struct storage s = { .untyped = untyped != NULL, .type = (enum ckpt_type)(g ? g : untyped)->type };
    char name[5 + 64] = "data/";
    memcpy(name + 5, k->data + key->at, (size_t)key->n);
    s.entry = zip_find(k->z, name, 5 + (size_t)key->n);
    if (!s.entry) return fail(k, "the zip has no entry data/%.*s", (int)key->n, name + 5);
    size_t bytes;
    if (!mul_size((size_t)count->n, ckpt_type_bytes(s.type), &bytes) || bytes != s.entry->size)
        return fail(k, "data/%.*s has %zu bytes, %lld elements of %s were expected", (int)key->n, name + 5, s.entry->size,
                    (long long)count->n, ckpt_type_name(s.type));
    if (k->storage.n >= TENSORS_MAX) return fail(k, "more than %d storages", TENSORS_MAX);
    struct node n = { .kind = N_STORAGE, .at = (uint32_t)k->storage.n };
    TRY(push(k, &k->storage, &s, sizeof s));
    return push_node(k, n);
}

static status get_lengths(struct pickle *k, const struct node *t, const char *what, int64_t out[CKPT_MAX_DIMS])
{
    if (t->kind != N_TUPLE) return fail(k, "a tensor's %s is %s, expected a tuple", what, kind_names[t->kind]);
    if (t->n > CKPT_MAX_DIMS) return fail(k, "a tensor has %lld dimensions, at most %d are supported", (long long)t->n, CKPT_MAX_DIMS);
    for (int64_t i = 0; i < t->n; i++) {
        const struct node *v = arg_of(k, t, i);
        if (v->kind != N_INT || v->n < 0) return fail(k, "a tensor's %s[%lld] is not a number >= 0", what, (long long)i);
        out[i] = v->n;
    }
    return OK;
}

/* Takes the strides given instead of those of ckpt_shape, unless they mean the same; every element must lie in the storage of `have`
 * elements. */
static status set_strides(struct pickle *k, struct ckpt_tensor *t, const int64_t *stride, size_t first, size_t have)
{
    char text[160];
    size_t last = first, step;
    bool fits = true, same = true;
    for (int d = 0; d < t->n_dims; d++) {
        if (t->shape[d] <= 1) continue; /* such a stride is never used */
        same &= stride[d] == t->stride[d];
        fits = fits && mul_size((size_t)(t->shape[d] - 1), (size_t)stride[d], &step) && add_size(last, step, &last);
    }
    if (t->n_elements == 0) return first <= have ? OK : fail(k, "an empty tensor begins at element %zu of a storage of %zu", first, have);
    if (!fits || last >= have)
        return fail(k, "a tensor %s reaches from element %zu beyond its storage of %zu", ckpt_shape_text(t, text), first, have);
    if ((size_t)t->n_elements > have)
        return fail(k, "a tensor %s is expanded from a storage of %zu elements: save x.contiguous()", ckpt_shape_text(t, text), have);
    if (same) return OK;
    t->contiguous = false;
    for (int d = 0; d < t->n_dims; d++) t->stride[d] = t->shape[d] > 1 ? stride[d] : 0;
    return OK;
}

/* (storage, first element, size, stride [, requires_grad, hooks [, dtype]] [, metadata]): n arguments before the metadata */
static status build_tensor(struct pickle *k, const struct node *args, int n)
{
    if (args->n < n || args->n > n + 1) return fail(k, "a tensor is built from %lld arguments, expected %d", (long long)args->n, n);
    const struct node *st = arg_of(k, args, 0), *first = arg_of(k, args, 1);
    if (st->kind != N_STORAGE) return fail(k, "a tensor is built on %s, expected a storage", kind_names[st->kind]);
    if (first->kind != N_INT || first->n < 0) return fail(k, "a tensor's first element is not a number >= 0");
    const struct storage *s = (struct storage *)k->storage.p + st->at;
    struct ckpt_tensor t = { .type = s->type };
    int64_t stride[CKPT_MAX_DIMS] = { 0 };
    if (n == 7) {
        const struct global *dtype = global_of(arg_of(k, args, 6), G_DTYPE);
        if (!dtype) return fail(k, "a tensor's type is no torch.dtype");
        if (!s->untyped && (enum ckpt_type)dtype->type != s->type) return fail(k, "a tensor of another type than its storage");
        t.type = (enum ckpt_type)dtype->type;
    }
    if (args->n > n) { /* bits that change the meaning of the values (conjugated, negated) */
        const struct node *meta = arg_of(k, args, n);
        if (meta->kind != N_NONE && (meta->kind != N_DICT || meta->at != 0))
            return fail(k, "a tensor with metadata (conj, neg) is not supported");
    }
    TRY(get_lengths(k, arg_of(k, args, 2), "shape", t.shape));
    TRY(get_lengths(k, arg_of(k, args, 3), "stride", stride));
    t.n_dims = (int)arg_of(k, args, 2)->n;
    if (arg_of(k, args, 3)->n != t.n_dims)
        return fail(k, "a tensor has %d lengths and %lld strides", t.n_dims, (long long)arg_of(k, args, 3)->n);
    char text[160];
    if (!ckpt_shape(&t)) return fail(k, "a tensor %s is too large", ckpt_shape_text(&t, text));
    size_t bytes = ckpt_type_bytes(t.type);
    TRY(set_strides(k, &t, stride, (size_t)first->n, s->entry->size / bytes));
    t.offset = s->entry->data + (size_t)first->n * bytes;
    if (k->tensor.n >= TENSORS_MAX) return fail(k, "more than %d tensors", TENSORS_MAX);
    struct node node = { .kind = N_TENSOR, .at = (uint32_t)k->tensor.n };
    TRY(push(k, &k->tensor, &t, sizeof t));
    return push_node(k, node);
}

static status op_reduce(struct pickle *k, int arg)
{
    uint32_t a = 0, f = 0;
    TRY(pop(k, &a));
    TRY(pop(k, &f));
    const struct node *args = node_of(k, a), *fn = node_of(k, f);
    if (fn->kind != N_GLOBAL || args->kind != N_TUPLE) return fail(k, "%s is called with %s", kind_names[fn->kind], kind_names[args->kind]);
    const struct global *g = &globals[fn->at];
    switch (g->kind) {
    case G_DICT:
        if (args->n != 0) return fail(k, "OrderedDict is made with arguments");
        return push_node(k, (struct node){ .kind = N_DICT });
    case G_SIZE:
        if (args->n != 1 || arg_of(k, args, 0)->kind != N_TUPLE) return fail(k, "torch.Size is not made of a tuple");
        return push_index(k, item_of(k, args, 0));
    case G_TENSOR:
        return build_tensor(k, args, g->type);
    case G_PARAMETER:
        if (args->n != g->type || arg_of(k, args, 0)->kind != N_TENSOR) return fail(k, "a parameter is not made of a tensor");
        return push_index(k, item_of(k, args, 0));
    default:
        return fail(k, "%s.%s is called", g->module, g->name);
    }
}

/* Attributes of an OrderedDict (a state_dict's _metadata): versions of modules, no tensors. */
static status op_build(struct pickle *k, int arg)
{
    uint32_t state = 0, object = 0;
    TRY(pop(k, &state));
    TRY(top(k, &object));
    if (node_of(k, object)->kind == N_DICT && node_of(k, state)->kind == N_DICT) return OK;
    return fail(k, "attributes (%s) are set on %s", kind_names[node_of(k, state)->kind], kind_names[node_of(k, object)->kind]);
}

/* ---- plain values and containers ---- */

static status op_proto(struct pickle *k, int arg)
{
    uint64_t v = 0;
    TRY(take_uint(k, 1, &v));
    return v <= 5 ? OK : fail(k, "protocol %d, at most 5 is known", (int)v);
}

static status op_frame(struct pickle *k, int arg)
{
    uint64_t v = 0;
    TRY(take_uint(k, 8, &v));
    return v <= k->size - k->at ? OK : fail(k, "a frame of %llu bytes, %zu are left", (unsigned long long)v, k->size - k->at);
}

static status op_mark(struct pickle *k, int arg)
{
    uint32_t n = (uint32_t)k->stack.n;
    return push(k, &k->mark, &n, sizeof n);
}

static status op_stop(struct pickle *k, int arg)
{
    k->done = true;
    if (k->mark.n || k->stack.n != 1) return fail(k, "ends with %lld values on the stack", (long long)k->stack.n);
    return k->at == k->size ? OK : fail(k, "%zu bytes follow the end", k->size - k->at);
}

static status op_none(struct pickle *k, int arg) { return push_node(k, (struct node){ .kind = N_NONE }); }
static status op_bool(struct pickle *k, int arg) { return push_node(k, (struct node){ .kind = N_BOOL, .n = arg }); }

static status op_uint(struct pickle *k, int bytes)
{
    uint64_t v = 0;
    TRY(take_uint(k, bytes, &v));
    return push_node(k, (struct node){ .kind = N_INT, .n = (int64_t)v });
}

static status op_int32(struct pickle *k, int arg)
{
    uint64_t v = 0;
    TRY(take_uint(k, 4, &v));
    return push_node(k, (struct node){ .kind = N_INT, .n = (int32_t)v });
}

static status op_long1(struct pickle *k, int arg)
{
    uint64_t n = 0, v = 0;
    const uint8_t *p = NULL;
    TRY(take_uint(k, 1, &n));
    TRY(take(k, (size_t)n, &p));
    if (n > 8) return op_none(k, 0); /* no size of anything; kept as a value that nothing accepts (torch.Generator seeds, hashes) */
    for (int i = (int)n - 1; i >= 0; i--) v = v << 8 | p[i];
    if (n > 0 && n < 8 && p[n - 1] & 0x80) v |= ~(uint64_t)0 << 8 * n;
    return push_node(k, (struct node){ .kind = N_INT, .n = (int64_t)v });
}

static status op_float(struct pickle *k, int arg)
{
    const uint8_t *p = NULL;
    TRY(take(k, 8, &p));
    return push_node(k, (struct node){ .kind = N_FLOAT }); /* hyper-parameters beside the tensors: their values are of no interest */
}

static status op_text(struct pickle *k, int length_bytes)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    TRY(take_uint(k, length_bytes, &n));
    if (n > k->size) return fail(k, "a text of %llu bytes, %zu are left", (unsigned long long)n, k->size - k->at);
    TRY(take(k, (size_t)n, &p));
    return push_node(k, (struct node){ .kind = N_STR, .at = (uint32_t)(p - k->data), .n = (int64_t)n });
}

/* The values above `from` become a tuple. */
static status make_tuple(struct pickle *k, int64_t from)
{
    struct node t = { .kind = N_TUPLE, .at = (uint32_t)k->item.n, .n = k->stack.n - from };
    for (int64_t i = from; i < k->stack.n; i++) TRY(push(k, &k->item, (uint32_t *)k->stack.p + i, sizeof(uint32_t)));
    k->stack.n = from;
    return push_node(k, t);
}

static status op_tuple_of(struct pickle *k, int n)
{
    uint32_t floor = k->mark.n ? ((uint32_t *)k->mark.p)[k->mark.n - 1] : 0;
    if (k->stack.n - floor < n) return fail(k, "the stack is empty");
    return make_tuple(k, k->stack.n - n);
}

static status pop_mark(struct pickle *k, int64_t *from)
{
    if (k->mark.n == 0) return fail(k, "no mark on the stack");
    *from = ((uint32_t *)k->mark.p)[--k->mark.n];
    return OK;
}

static status op_tuple(struct pickle *k, int arg)
{
    int64_t from = 0;
    TRY(pop_mark(k, &from));
    return make_tuple(k, from);
}

static status op_container(struct pickle *k, int kind) { return push_node(k, (struct node){ .kind = (uint32_t)kind }); }

static status add_link(struct pickle *k, uint32_t container, uint32_t key, uint32_t value)
{
    struct link l = { .key = key, .value = value };
    uint32_t i = (uint32_t)k->link.n;
    TRY(push(k, &k->link, &l, sizeof l));
    struct node *c = node_of(k, container);
    if (c->at == 0) c->at = i;
    else link_of(k, (uint32_t)c->n)->next = i;
    c->n = i;
    return OK;
}

/* Values above `from` go into the container below: pairs into a dict, single ones into a list. */
static status add_items(struct pickle *k, int64_t from, uint32_t kind)
{
    int64_t end = k->stack.n, n = end - from, per = kind == N_DICT ? 2 : 1;
    uint32_t container = 0;
    k->stack.n = from;
    TRY(top(k, &container));
    if (node_of(k, container)->kind != kind)
        return fail(k, "items are added to %s, expected %s", kind_names[node_of(k, container)->kind], kind_names[kind]);
    if (n % per) return fail(k, "a key without a value");
    for (int64_t i = from; i < end; i += per) {
        const uint32_t *v = (uint32_t *)k->stack.p + i; /* still there: nothing has been pushed */
        TRY(add_link(k, container, per == 2 ? v[0] : 0, v[per - 1]));
    }
    return OK;
}

static status op_add_one(struct pickle *k, int kind)
{
    uint32_t floor = k->mark.n ? ((uint32_t *)k->mark.p)[k->mark.n - 1] : 0;
    int n = kind == N_DICT ? 2 : 1;
    if (k->stack.n - floor < n) return fail(k, "the stack is empty");
    return add_items(k, k->stack.n - n, (uint32_t)kind);
}

static status op_add_all(struct pickle *k, int kind)
{
    int64_t from = 0;
    TRY(pop_mark(k, &from));
    return add_items(k, from, (uint32_t)kind);
}

/* Memo numbers count the values stored, so an honest one is below the length of the pickle. 0 = none. */
static status store(struct pickle *k, uint64_t i)
{
    uint32_t value = 0, none = 0;
    TRY(top(k, &value));
    if (i >= k->size) return fail(k, "memo number %llu in a pickle of %zu bytes", (unsigned long long)i, k->size);
    while ((uint64_t)k->memo.n <= i) TRY(push(k, &k->memo, &none, sizeof none));
    ((uint32_t *)k->memo.p)[i] = value;
    return OK;
}

static status op_put(struct pickle *k, int bytes)
{
    uint64_t i = 0;
    TRY(take_uint(k, bytes, &i));
    return store(k, i);
}

static status op_memoize(struct pickle *k, int arg) { return store(k, (uint64_t)k->memo.n); }

static status op_get(struct pickle *k, int bytes)
{
    uint64_t i = 0;
    TRY(take_uint(k, bytes, &i));
    uint32_t value = i < (uint64_t)k->memo.n ? ((uint32_t *)k->memo.p)[i] : 0;
    return value ? push_index(k, value) : fail(k, "memo number %llu was never stored", (unsigned long long)i);
}

static const struct opcode {
    uint8_t code;
    status (*run)(struct pickle *k, int arg);
    int arg;
} opcodes[] = {
    { 0x80, op_proto, 0 },       { 0x95, op_frame, 0 },       { '(', op_mark, 0 },           { '.', op_stop, 0 },
    { 'N', op_none, 0 },         { 0x88, op_bool, 1 },        { 0x89, op_bool, 0 },          { 'K', op_uint, 1 },
    { 'M', op_uint, 2 },         { 'J', op_int32, 0 },        { 0x8a, op_long1, 0 },         { 'G', op_float, 0 },
    { 0x8c, op_text, 1 },        { 'X', op_text, 4 },         { 0x8d, op_text, 8 },          { 'U', op_text, 1 },
    { 'T', op_text, 4 },         { ')', op_tuple_of, 0 },     { 0x85, op_tuple_of, 1 },      { 0x86, op_tuple_of, 2 },
    { 0x87, op_tuple_of, 3 },    { 't', op_tuple, 0 },        { ']', op_container, N_LIST }, { '}', op_container, N_DICT },
    { 'a', op_add_one, N_LIST }, { 'e', op_add_all, N_LIST }, { 's', op_add_one, N_DICT },   { 'u', op_add_all, N_DICT },
    { 'q', op_put, 1 },          { 'r', op_put, 4 },          { 0x94, op_memoize, 0 },       { 'h', op_get, 1 },
    { 'j', op_get, 4 },          { 'c', op_global, 0 },       { 0x93, op_stack_global, 0 },  { 'R', op_reduce, 0 },
    { 'b', op_build, 0 },        { 'Q', op_persid, 0 },
};

static status run(struct pickle *k)
{
    uint8_t row[256] = { 0 }; /* number of the row + 1 */
    for (int i = 0; i < ARRAY_LEN(opcodes); i++) row[opcodes[i].code] = (uint8_t)(i + 1);
    while (!k->done) {
        const uint8_t *p = NULL;
        k->op_at = k->at;
        TRY(take(k, 1, &p));
        if (!row[*p]) return fail(k, "opcode 0x%02x is not allowed: a dict of tensors needs none such", *p);
        const struct opcode *o = &opcodes[row[*p] - 1];
        TRY(o->run(k, o->arg));
    }
    return OK;
}

/* ---- from the graph to the list ---- */

struct walk {
    struct pickle *k;
    struct ckpt_list *list;
    int shard, depth;
    int64_t steps;
    size_t names; /* bytes of the list so far, and 64 for each */
    char name[NAME_MAX_BYTES];
    size_t n;
};

static status walk(struct walk *w, uint32_t i);

static status walk_member(struct walk *w, const char *key, size_t key_n, uint32_t value)
{
    size_t n = w->n, dot = n > 0;
    if (n + dot + key_n > sizeof w->name) return fail(w->k, "a name longer than %d bytes", NAME_MAX_BYTES);
    if (dot) w->name[w->n++] = '.';
    memcpy(w->name + w->n, key, key_n);
    w->n += key_n;
    status st = walk(w, value);
    w->n = n;
    return st;
}

static status walk_numbered(struct walk *w, int64_t number, uint32_t value)
{
    char key[24];
    return walk_member(w, key, (size_t)snprintf(key, sizeof key, "%lld", (long long)number), value);
}

static status walk_dict(struct walk *w, const struct node *d)
{
    for (uint32_t i = d->at; i; i = link_of(w->k, i)->next) {
        const struct link *l = link_of(w->k, i);
        const struct node *key = node_of(w->k, l->key), *value = node_of(w->k, l->value);
        if (key->kind == N_STR) TRY(walk_member(w, (const char *)w->k->data + key->at, (size_t)key->n, l->value));
        else if (key->kind == N_INT) TRY(walk_numbered(w, key->n, l->value));
        else if (value->kind == N_TENSOR || value->kind == N_DICT)
            return fail(w->k, "a dict has a key of type %s, expected str or int", kind_names[key->kind]);
    }
    return OK;
}

/* Indices, not pointers to nodes, survive: the graph does not grow while it is walked. */
static status walk(struct walk *w, uint32_t i)
{
    const struct node *n = node_of(w->k, i);
    if (++w->steps > WALK_STEPS) return fail(w->k, "more than %d values", WALK_STEPS);
    if (n->kind == N_TENSOR) {
        struct ckpt_tensor t = ((struct ckpt_tensor *)w->k->tensor.p)[n->at];
        t.shard = w->shard;
        if (w->list->n >= TENSORS_MAX) return fail(w->k, "more than %d tensors", TENSORS_MAX);
        if (w->depth == 0) return fail(w->k, "is one bare tensor, expected a dict of tensors");
        w->names += w->n + 64; /* containers in containers give one tensor any number of names */
        if (w->names / NAMES_FACTOR > w->k->size + 1024)
            return fail(w->k, "%lld names, too many for a pickle of %zu bytes", (long long)w->list->n, w->k->size);
        return ckpt_list_add(w->list, w->k->s, &t, w->name, w->n, w->k->e);
    }
    if (n->kind != N_DICT && n->kind != N_LIST && n->kind != N_TUPLE) return OK;
    if (w->depth >= WALK_DEPTH) return fail(w->k, "dicts nested deeper than %d", WALK_DEPTH);
    status st = OK;
    int64_t number = 0;
    w->depth++;
    if (n->kind == N_DICT) st = walk_dict(w, n);
    else if (n->kind == N_TUPLE)
        for (int64_t j = 0; st == OK && j < n->n; j++) st = walk_numbered(w, j, item_of(w->k, n, j));
    else
        for (uint32_t j = n->at; st == OK && j; j = link_of(w->k, j)->next) st = walk_numbered(w, number++, link_of(w->k, j)->value);
    w->depth--;
    return st;
}

static uint32_t find_key(const struct pickle *k, const struct node *d, const char *key)
{
    for (uint32_t i = d->at; i; i = link_of(k, i)->next) {
        const struct node *n = node_of(k, link_of(k, i)->key);
        if (n->kind == N_STR && is_text(key, (const char *)k->data + n->at, (size_t)n->n)) return link_of(k, i)->value;
    }
    return 0;
}

static bool has_tensor(const struct pickle *k, const struct node *d)
{
    for (uint32_t i = d->at; i; i = link_of(k, i)->next)
        if (node_of(k, link_of(k, i)->value)->kind == N_TENSOR) return true;
    return false;
}

/* A training checkpoint holds the model beside the optimiser: the model is meant. */
static uint32_t model_of(const struct pickle *k, uint32_t root)
{
    static const char *const inner[] = { "model_state_dict", "state_dict", "model", "module" };
    for (int depth = 0; depth < WALK_DEPTH; depth++) {
        const struct node *d = node_of(k, root);
        uint32_t next = 0;
        if (d->kind != N_DICT || has_tensor(k, d)) return root;
        for (int i = 0; i < ARRAY_LEN(inner) && !next; i++) {
            next = find_key(k, d, inner[i]);
            if (next && node_of(k, next)->kind != N_DICT) next = 0;
        }
        if (!next) return root;
        root = next;
    }
    return root;
}

status pickle_tensors(const struct ckpt_shard *s, const struct zip *z, const uint8_t *data, size_t n, int shard, struct ckpt_list *list,
                      struct err *e)
{
    struct pickle k = { .s = s, .z = z, .data = data, .size = n, .e = e };
    struct walk w = { .k = &k, .list = list, .shard = shard };
    struct node none = { .kind = N_NONE };
    struct link end = { 0 };
    status st = push(&k, &k.node, &none, sizeof none); /* number 0 of nodes and links means none */
    if (st == OK) st = push(&k, &k.link, &end, sizeof end);
    if (st == OK) st = run(&k);
    if (st == OK) st = walk(&w, model_of(&k, ((uint32_t *)k.stack.p)[0]));
    struct vec *const all[] = { &k.node, &k.link, &k.item, &k.stack, &k.mark, &k.memo, &k.storage, &k.tensor };
    for (int i = 0; i < ARRAY_LEN(all); i++) mem_free(all[i]->p);
    return st;
}

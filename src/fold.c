/* fold - see fold.h. The model's equations are recorded once as a whole, for no run; from each value that matrices read the trace goes back through ops that
 * keep columns apart and are linear (or homogeneous) in one operand, to weights that can take the factor. A value on the way may have no other reader. */
#include "src/fold.h"
#include "src/recorded.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char no_memory[] = "no memory";

struct fold {
    struct recorded r;
    struct fold_group *group;
    int n_groups;
};

static int64_t columns(const struct fold *f, val v) { return f->r.p.val[v].t.ne[0]; }

/* ---- tracing ---- */

struct trace {
    struct fold *f;
    struct fold_group *g;
    int32_t *x_of;            /* of the columns of the value that the readers read */
};

static int32_t *indices(struct trace *t, int64_t n)
{
    int32_t *of = arena_alloc(&t->f->r.mem, (size_t)n * sizeof *of);
    for (int64_t i = 0; of && i < n; i++) of[i] = -1;
    return of;
}

static struct fold_part *add_part(struct trace *t, const struct tensor *w, bool rows, float power, int32_t *of)
{
    struct fold_group *g = t->g;
    if ((g->n_parts & (g->n_parts + 1)) == 0) { /* full: room for 1, 3, 7, ... */
        struct fold_part *more = arena_alloc(&t->f->r.mem, (size_t)(2 * g->n_parts + 1) * sizeof *more);
        if (!more) return NULL;
        if (g->n_parts > 0) memcpy(more, g->part, (size_t)g->n_parts * sizeof *more);
        g->part = more;
    }
    g->part[g->n_parts] = (struct fold_part){ w, rows, power, of };
    return &g->part[g->n_parts++];
}

/* The weight in operand `src` of op takes the factors: of[j] is that of its row or element j, counted from where the operand begins, through every of the
 * `copies` matrices or vectors of a stack. Nobody else may use these. */
static const char *take(struct trace *t, int32_t op, int src, bool rows, float power, const int32_t *of, int64_t n, int64_t copies)
{
    const struct use *u = recorded_use(&t->f->r, op, src);
    if (!u) return "a weight that is not in the file as it is used";
    for (int i = 0; i < t->f->r.n_uses; i++) {
        const struct use *o = &t->f->r.use[i];
        if (o->w == u->w && o->op != op && o->first < u->first + u->n && u->first < o->first + o->n) return "a weight on the way is used elsewhere, too";
    }
    int64_t all = rows ? tensor_rows(u->w) : u->w->ne[0], from = rows || tensor_rows(u->w) == 1 ? u->first : 0;
    if (n * (rows ? copies : 1) + from > all) return "a weight on the way has another shape";
    int32_t *to = indices(t, all);
    if (!to) return no_memory;
    for (int64_t i = 0; i < (rows ? copies : 1); i++) memcpy(to + from + i * n, of, (size_t)n * sizeof *of);
    return add_part(t, u->w, rows, power, to) ? NULL : no_memory;
}

static const char *divide(struct trace *t, val v, int32_t reader, const int32_t *of, float power);

/* How the result of an op is divided: by dividing one operand, or by its weights. One row per op; others cannot. */
typedef const char *back_fn(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power);

static const char *back_first(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power)
{
    return divide(t, op->src[0], i, of, power);
}

static const char *back_second(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power)
{
    return divide(t, op->src[1], i, of, power);
}

static const char *back_either(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power)
{
    int n = t->g->n_parts;
    const char *why = divide(t, op->src[0], i, of, power);
    if (!why) return NULL;
    t->g->n_parts = n;
    return divide(t, op->src[1], i, of, power);
}

static const char *back_act(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power)
{
    enum act act = op->arg.act.act;
    if (act == ACT_CLAMPED_SWISH || act == ACT_XIELU) return "its activation is not linear in one factor";
    if (op->src[1] != VAL_NONE) return divide(t, op->src[1], i, of, power);
    if (act == ACT_RELU) return divide(t, op->src[0], i, of, power);
    if (act == ACT_RELU_SQUARED) return divide(t, op->src[0], i, of, power / 2);
    return "its activation is not linear";
}

static const char *back_slice(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power)
{
    int64_t n = op->arg.slice.n, width = op->arg.slice.width;
    int32_t *whole = indices(t, columns(t->f, op->src[0]));
    if (!whole) return no_memory;
    for (int64_t c = 0; c < columns(t->f, op->dst); c++) whole[c / n * width + op->arg.slice.first + c % n] = of[c];
    return divide(t, op->src[0], i, whole, power);
}

static const char *back_norm(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power)
{
    int64_t n = columns(t->f, op->dst);
    if (op->src[1] == VAL_NONE) return "its norm has no weights";
    if (columns(t->f, op->src[1]) != n) return "its norm's weights are shared by heads";
    const char *why = take(t, i, 1, false, power, of, n, 1);
    if (!why && op->src[2] != VAL_NONE) why = take(t, i, 2, false, power, of, n, 1);
    return why;
}

static const char *back_bias(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power)
{
    const char *why = take(t, i, 1, false, power, of, columns(t->f, op->dst), 1);
    return why ? why : divide(t, op->src[0], i, of, power);
}

static const char *back_rows(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power)
{
    return take(t, i, 0, true, power, of, columns(t->f, op->dst), op->kind == OP_MOE_MATMUL ? t->f->r.p.val[op->src[0]].t.ne[2] : 1);
}

static const char *back_conv(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power)
{
    int64_t n = columns(t->f, op->dst);
    const char *why = take(t, i, 1, true, power, of, n, 1);
    if (!why && op->src[2] != VAL_NONE) why = take(t, i, 2, false, power, of, n, 1);
    return why;
}

/* Columns c of all heads that read column k of V share their factor: `to` of their old one. */
static const char *share_heads(struct trace *t, const struct op *op, const int32_t *of, int32_t *v_of, int32_t *to, int32_t *n)
{
    int64_t dim = op->arg.attn.head_dim_v, share = op->arg.attn.n_head / op->arg.attn.n_head_kv;
    *n = 0;
    for (int64_t c = 0; c < columns(t->f, op->dst); c++) {
        int64_t k = c / dim / share * dim + c % dim;
        if (of[c] < 0) return "only a part of its columns comes from the values";
        int32_t was = to[of[c]], is = v_of[k], id = was >= 0 ? was : is >= 0 ? is : (*n)++;
        if ((was >= 0 && was != id) || (is >= 0 && is != id)) return "its columns belong to several values";
        to[of[c]] = v_of[k] = id;
    }
    return NULL;
}

static const char *back_attention(struct trace *t, int32_t i, const struct op *op, const int32_t *of, float power)
{
    struct fold *f = t->f;
    int32_t store = -1, n;
    for (int32_t j = 0; j < f->r.p.n_op; j++) {
        const struct op *o = &f->r.p.op[j];
        if (o->kind == OP_ATTN && j != i && o->arg.attn.il == op->arg.attn.il) return "its values are read by several layers";
        if (o->kind == OP_KV_STORE && o->arg.store.il == op->arg.attn.il) store = j;
    }
    if (store < 0 || f->r.p.op[store].src[1] == VAL_NONE) return "its values are no matrix's rows";
    int32_t *v_of = indices(t, columns(f, f->r.p.op[store].src[1])), *to = indices(t, t->g->n);
    if (!v_of || !to) return no_memory;
    const char *why = share_heads(t, op, of, v_of, to, &n);
    if (why) return why;
    for (int64_t c = 0; c < columns(f, op->dst); c++) t->x_of[c] = to[t->x_of[c]];
    for (int k = t->g->n_readers; k < t->g->n_parts; k++) {
        struct fold_part *p = &t->g->part[k];
        int32_t *own = (int32_t *)(uintptr_t)p->of;
        for (int64_t c = 0; c < (p->rows ? tensor_rows(p->w) : p->w->ne[0]); c++) own[c] = own[c] < 0 ? -1 : to[own[c]];
    }
    t->g->n = n;
    return divide(t, f->r.p.op[store].src[1], store, v_of, power);
}

static back_fn *const back[OP_KINDS] = {
    [OP_ROWS] = back_first,      [OP_SCALE] = back_first,       [OP_SCALE_RUNS] = back_first, [OP_GATE] = back_first,
    [OP_MOE_SCALE] = back_first, [OP_SILU_MUL] = back_second,   [OP_GELU_MUL] = back_second,  [OP_MUL] = back_either,
    [OP_ACT] = back_act,         [OP_SLICE] = back_slice,       [OP_RMS_NORM] = back_norm,    [OP_LAYER_NORM] = back_norm,
    [OP_MUL_VECTOR] = back_norm, [OP_BIAS] = back_bias,         [OP_MOE_BIAS] = back_bias,    [OP_MATMUL] = back_rows,
    [OP_MOE_MATMUL] = back_rows, [OP_HEAD_MATMUL] = back_rows,  [OP_CONV] = back_conv,        [OP_ATTN] = back_attention,
};

/* A slice of other columns does not mind. */
static bool spares(const struct op *op, const int32_t *of, int64_t columns_of)
{
    if (op->kind != OP_SLICE) return false;
    for (int64_t c = 0; c < columns_of; c++) {
        int64_t at = c % op->arg.slice.width - op->arg.slice.first;
        if (at >= 0 && at < op->arg.slice.n && of[c] >= 0) return false;
    }
    return true;
}

/* Makes v / s to the power out of what made v. */
static const char *made(struct trace *t, val v, const int32_t *of, float power)
{
    int32_t i = t->f->r.maker[v];
    enum op_kind kind = i < 0 ? OP_KINDS : t->f->r.p.op[i].kind;
    if (kind == OP_ADD) return "it is a sum";
    if (kind == OP_KINDS || !back[kind]) return "its columns are not made one by one";
    return back[kind](t, i, &t->f->r.p.op[i], of, power);
}

static const char *divide(struct trace *t, val v, int32_t reader, const int32_t *of, float power)
{
    const struct plan *p = &t->f->r.p;
    for (int32_t j = 0; j < p->n_op; j++) {
        int reads = 0;
        for (int k = 0; k < OP_SRC; k++) reads += p->op[j].src[k] == v;
        if (reads > (j == reader) && !spares(&p->op[j], of, columns(t->f, v))) return "something else reads it on the way";
    }
    return made(t, v, of, power);
}

/* ---- groups ---- */

static bool has_reader(const struct fold_group *g, const struct tensor *w)
{
    for (int i = 0; i < g->n_readers; i++)
        if (g->part[i].w == w) return true;
    return false;
}

/* Op i reads x and must be a product with a matrix that meets nothing but x. */
static const char *add_reader(struct trace *t, int32_t i, val x)
{
    const struct plan *p = &t->f->r.p;
    const struct use *u = recorded_use(&t->f->r, i, 0);
    if (recorded_input(&p->op[i]) != x) return "not only matrices read it";
    if (!u || u->w->ne[0] != columns(t->f, x)) return "a matrix that is not in the file as it is used";
    if (has_reader(t->g, u->w)) return NULL;
    if (!t->g->name) t->g->name = u->w->name;
    for (int j = 0; j < t->f->r.n_uses; j++)
        if (t->f->r.use[j].w == u->w && recorded_input(&p->op[t->f->r.use[j].op]) != x) return "a matrix that reads it is used elsewhere, too";
    if (!add_part(t, u->w, false, 1, t->x_of)) return no_memory;
    t->g->n_readers++;
    return NULL;
}

static const char *find_group(struct trace *t, val x)
{
    const struct plan *p = &t->f->r.p;
    t->g->n = columns(t->f, x);
    if (!(t->x_of = indices(t, t->g->n))) return no_memory;
    for (int64_t c = 0; c < t->g->n; c++) t->x_of[c] = (int32_t)c;
    const char *why = NULL;
    for (int32_t i = 0; i < p->n_op; i++) {
        bool reads = false;
        for (int k = 0; k < OP_SRC; k++) reads |= p->op[i].src[k] == x;
        const char *no = reads && !recorded_form(&p->op[i]) ? add_reader(t, i, x) : NULL;
        if (!why) why = no;
    }
    if (why) return why;
    int32_t *of = indices(t, t->g->n);
    if (!of) return no_memory;
    memcpy(of, t->x_of, (size_t)t->g->n * sizeof *of);
    return made(t, x, of, -1);
}

static status find_groups(struct fold *f, struct err *e)
{
    int il = 0;
    bool *seen = arena_zalloc(&f->r.mem, (size_t)f->r.p.n_val, sizeof *seen);
    f->group = arena_zalloc(&f->r.mem, (size_t)f->r.p.n_op, sizeof *f->group);
    if (!seen || !f->group) return err_oom(e, "fold", (size_t)f->r.p.n_op * sizeof *f->group);
    for (int32_t i = 0; i < f->r.p.n_op; i++) {
        val x = recorded_input(&f->r.p.op[i]);
        while (il < f->r.m->hp.n_layer && i >= f->r.end[il + 1]) il++;
        if (i < f->r.end[0] || x == VAL_NONE || seen[x]) continue;
        struct trace t = { f, &f->group[f->n_groups++], NULL };
        t.g->il = i < f->r.end[f->r.m->hp.n_layer] ? il : (int)f->r.m->hp.n_layer;
        seen[x] = true;
        t.g->refused = find_group(&t, x);
        if (t.g->refused == no_memory) return err_oom(e, "fold", f->r.mem.total);
        if (!t.g->name) t.g->name = "";
    }
    return OK;
}

status fold_open(struct fold **out, const struct model *m, struct err *e)
{
    *out = NULL;
    struct fold *f = mem_calloc(1, sizeof *f);
    if (!f) return err_oom(e, "fold", sizeof *f);
    status st = recorded_open(&f->r, m, e);
    if (st == OK) st = find_groups(f, e);
    if (st == OK) *out = f;
    else fold_close(f);
    return st;
}

void fold_close(struct fold *f)
{
    if (!f) return;
    recorded_close(&f->r);
    mem_free(f);
}

int fold_n(const struct fold *f) { return f->n_groups; }
const struct fold_group *fold_group(const struct fold *f, int i) { return &f->group[i]; }

/* ---- factors ---- */

static float *ones(struct arena *a, int64_t n)
{
    float *x = arena_alloc(a, (size_t)n * sizeof *x);
    for (int64_t i = 0; x && i < n; i++) x[i] = 1;
    return x;
}

static bool multiply(struct arena *a, struct fold_scale *to, const struct fold_part *p, const float *s)
{
    float **at = p->rows ? &to->row : &to->column;
    int64_t n = p->rows ? tensor_rows(p->w) : p->w->ne[0];
    if (!*at && !(*at = ones(a, n))) return false;
    for (int64_t i = 0; i < n; i++)
        if (p->of[i] >= 0) (*at)[i] *= p->power == 1 ? s[p->of[i]] : powf(s[p->of[i]], p->power);
    return true;
}

static int by_name(const void *a, const void *b) { return strcmp(((const struct fold_scale *)a)->w->name, ((const struct fold_scale *)b)->w->name); }

status fold_scales(struct fold *f, const float *const *s, struct fold_scale **out, int *n, struct err *e)
{
    int most = 0, k;
    *n = 0;
    for (int i = 0; i < f->n_groups; i++) most += s[i] ? f->group[i].n_parts : 0;
    *out = arena_zalloc(&f->r.mem, (size_t)most + 1, sizeof **out);
    if (!*out) return err_oom(e, "fold", (size_t)most * sizeof **out);
    for (int i = 0; i < f->n_groups; i++)
        for (int j = 0; s[i] && j < f->group[i].n_parts; j++) {
            const struct fold_part *p = &f->group[i].part[j];
            for (k = 0; k < *n && (*out)[k].w != p->w; k++) {}
            if (k == *n) (*out)[(*n)++].w = p->w;
            if (!multiply(&f->r.mem, &(*out)[k], p, s[i])) return err_oom(e, "fold", f->r.mem.total);
        }
    qsort(*out, (size_t)*n, sizeof **out, by_name);
    return OK;
}

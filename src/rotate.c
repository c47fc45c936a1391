/* rotate - see rotate.h. R1: from the value that enters the first layer the trace goes to all that makes or reads a turned value, op by op, until nothing new
 * is found. An op either lets the rotation through, or has a weight that takes it in, or is in the way. R2: from each attention to what makes its values and
 * what reads its result. */
#include "src/rotate_int.h"
#include "ggml-like/ops.h"
#include <stdio.h>

static int64_t columns(const struct rotate *r, val v) { return r->r.p.val[v].t.ne[0]; }

/* ---- weights ---- */

static const char twice[] = "it is used in two ways";

static struct turns *turns_of(struct rotate *r, int32_t op, int src)
{
    const struct use *u = recorded_use(&r->r, op, src);
    return u ? &r->turn[u - r->r.use] : NULL;
}

static bool same_turn(const struct turn *a, const struct turn *b)
{
    bool gain = a->gain == b->gain || (a->gain && b->gain && a->gain->w == b->gain->w && a->gain->first == b->gain->first);
    return a->dim == b->dim && a->share == b->share && a->key == b->key && gain;
}

/* The weight in operand src of op is to be turned; NULL or why it cannot be. */
static const char *turn_weight(struct rotate *r, int32_t op, int src, int axis, struct turn turn)
{
    struct turns *t = turns_of(r, op, src);
    val w = r->r.p.op[op].src[src];
    if (!t) return "it is not in the file as it is used";
    if (r->r.p.val[w].extra != VAL_NONE) return "outlier columns of it are kept apart";
    const struct use *u = &r->r.use[t - r->turn];
    int64_t n = axis == ROWS || tensor_rows(u->w) == 1 ? u->n : u->w->ne[0];
    if (n % turn.dim != 0 || (axis == ROWS && tensor_rows(u->w) == 1)) return "its shape is another";
    if (t->axis[axis].dim && !same_turn(&t->axis[axis], &turn)) return twice;
    t->axis[axis] = turn;
    return NULL;
}

/* ---- R1 ---- */

static const char *turned(struct rotate *r, val v, const struct use *gain)
{
    if (r->in[v]) return !gain == !r->gain[v] ? NULL : "weights of a norm stand between it and the residual stream";
    r->in[v] = true, r->gain[v] = gain;
    r->todo[r->n_todo++] = v;
    return NULL;
}

static struct turn stream_turn(const struct rotate *r, const struct use *gain)
{
    return (struct turn){ columns(r, r->r.stream), INT64_MAX, 0, gain };
}

/* v, an operand or the result of op i, is turned: what follows for the op. One row per op; others are in the way. */
typedef const char *flow_fn(struct rotate *r, int32_t i, const struct op *op, val v);

static const char *flow_through(struct rotate *r, int32_t i, const struct op *op, val v)
{
    (void)i;
    if (v != op->dst && v != op->src[0]) return "it is a factor of something else";
    const char *why = turned(r, op->src[0], r->gain[v]);
    return why ? why : turned(r, op->dst, r->gain[v]);
}

static const char *flow_add(struct rotate *r, int32_t i, const struct op *op, val v)
{
    if (r->gain[v]) return "the result of a norm is added";
    const char *why = turned(r, op->src[1], NULL);
    return why ? why : flow_through(r, i, op, v == op->src[1] ? op->dst : v);
}

static const char *flow_vector(struct rotate *r, int32_t i, const struct op *op, val v)
{
    if (r->gain[v]) return "it is added to the result of a norm";
    const char *why = turn_weight(r, i, 1, COLUMNS, stream_turn(r, NULL));
    return why ? why : flow_through(r, i, op, v);
}

static const char *flow_gate(struct rotate *r, int32_t i, const struct op *op, val v)
{
    return columns(r, op->src[1]) == 1 ? flow_through(r, i, op, v) : "it multiplies columns by different factors";
}

static const char *flow_embed(struct rotate *r, int32_t i, const struct op *op, val v)
{
    (void)op, (void)v;
    return turn_weight(r, i, 0, COLUMNS, stream_turn(r, NULL));
}

static const char *flow_product(struct rotate *r, int32_t i, const struct op *op, val v)
{
    if (v == op->dst) return r->gain[v] ? twice : turn_weight(r, i, 0, ROWS, stream_turn(r, NULL));
    return v == recorded_input(op) ? turn_weight(r, i, 0, COLUMNS, stream_turn(r, r->gain[v])) : "the residual stream is its matrix";
}

static const char *flow_norm(struct rotate *r, int32_t i, const struct op *op, val v)
{
    if (op->arg.norm.dim != columns(r, op->dst)) return "it takes the residual stream apart";
    if (op->src[2] != VAL_NONE) return "it has a bias";
    if (v == op->src[0] && r->gain[v]) return "the result of a norm is normed again";
    const char *why = turned(r, op->src[0], NULL);
    if (why || op->src[1] == VAL_NONE) return why ? why : turned(r, op->dst, NULL);
    struct turns *t = turns_of(r, i, 1);
    if (!t) return "its weights are not in the file as they are used";
    t->ones = true;
    return turned(r, op->dst, &r->r.use[t - r->turn]);
}

static const char *flow_layer_norm(struct rotate *r, int32_t i, const struct op *op, val v)
{
    (void)r, (void)i, (void)op, (void)v;
    return "LayerNorm takes the mean of the columns away, and rotations do not keep it";
}

static flow_fn *const flow[OP_KINDS] = {
    [OP_EMBED] = flow_embed,          [OP_MATMUL] = flow_product,       [OP_MOE_MATMUL] = flow_product, [OP_RMS_NORM] = flow_norm,
    [OP_LAYER_NORM] = flow_layer_norm, [OP_ADD] = flow_add,              [OP_BIAS] = flow_vector,        [OP_MOE_BIAS] = flow_vector,
    [OP_ADD_POSITION] = flow_vector,  [OP_ROWS] = flow_through,         [OP_SCALE] = flow_through,      [OP_ROW_FACTOR] = flow_through,
    [OP_MOE_SUM] = flow_through,      [OP_MOE_SCALE] = flow_through,    [OP_GATE] = flow_gate,
};

/* "FILE: R1 would change the model: layer 3, rms_norm of blk.3.post_ffw_norm.weight: why" */
static status refuse(const struct rotate *r, const char *part, int32_t i, const char *why, struct err *e)
{
    char where[32] = "embedding";
    const struct tensor *w = NULL;
    int il = 0, n = (int)r->r.m->hp.n_layer;
    while (il < n && i >= r->r.end[il + 1]) il++;
    if (i >= r->r.end[n]) snprintf(where, sizeof where, "head");
    else if (i >= r->r.end[0]) snprintf(where, sizeof where, "layer %d", il);
    for (int k = OP_SRC - 1; k >= 0; k--) w = recorded_use(&r->r, i, k) ? recorded_use(&r->r, i, k)->w : w;
    return err_set(e, ERR_FORMAT, "%s: %s would change the model: %s, %s%s%.64s: %s", path_base(r->path), part, where, op_name(r->r.p.op[i].kind),
                   w ? " of " : "", w ? w->name : "", why);
}

static status follow(struct rotate *r, int32_t i, val v, struct err *e)
{
    const struct op *op = &r->r.p.op[i];
    const char *why = flow[op->kind] ? flow[op->kind](r, i, op, v) : "it does not keep to rotations";
    return why ? refuse(r, "R1", i, why, e) : OK;
}

static status turn_stream(struct rotate *r, struct err *e)
{
    const struct plan *p = &r->r.p;
    const char *why = turned(r, r->r.stream, NULL);
    for (int done = 0; !why && done < r->n_todo; done++) {
        val v = r->todo[done];
        if (r->r.maker[v] >= 0) TRY(follow(r, r->r.maker[v], v, e));
        for (int32_t i = 0; i < p->n_op; i++)
            for (int k = 0; k < OP_SRC; k++)
                if (p->op[i].src[k] == v && !recorded_form(&p->op[i])) TRY(follow(r, i, v, e));
    }
    return OK;
}

/* ---- R2 ---- */

/* The only op but changes of form that reads v; -1: there are others, too. */
static int32_t only_reader(const struct rotate *r, val v)
{
    const struct plan *p = &r->r.p;
    int32_t found = -1;
    for (int32_t i = 0; i < p->n_op; i++)
        for (int k = 0; k < OP_SRC; k++) {
            if (p->op[i].src[k] != v || recorded_form(&p->op[i]) || found == i) continue;
            if (found >= 0) return -1;
            found = i;
        }
    return found;
}

/* v, each head of which is turned, was made by a matrix, a bias may have been added. */
static const char *turn_values(struct rotate *r, val v, struct turn turn)
{
    int32_t i = r->r.maker[v];
    const char *why = NULL;
    if (only_reader(r, v) < 0) return "not only the cache reads the values";
    if (i >= 0 && r->r.p.op[i].kind == OP_BIAS) {
        why = turn_weight(r, i, 1, COLUMNS, turn);
        v = r->r.p.op[i].src[0];
        i = only_reader(r, v) < 0 ? -1 : r->r.maker[v];
    }
    if (!why) why = i >= 0 && r->r.p.op[i].kind == OP_MATMUL ? turn_weight(r, i, 0, ROWS, turn) : "its values are not the product of a matrix";
    return why;
}

static const char *turn_heads(struct rotate *r, int32_t i, const struct op *op)
{
    const struct plan *p = &r->r.p;
    int32_t store = -1, reader = only_reader(r, op->dst);
    for (int32_t j = 0; j < p->n_op; j++) {
        const struct op *o = &p->op[j];
        if (o->kind == OP_ATTN && j != i && o->arg.attn.il == op->arg.attn.il) return "its values are read by several layers";
        if (o->kind == OP_KV_STORE && o->arg.store.il == op->arg.attn.il) store = j;
    }
    if (store < 0 || p->op[store].src[1] == VAL_NONE) return "its values are no matrix's rows";
    if (reader < 0 || recorded_input(&p->op[reader]) != op->dst) return "no matrix alone reads its result";
    struct turn turn = { op->arg.attn.head_dim_v, 1, 1 + op->arg.attn.il, NULL };
    const char *why = turn_values(r, p->op[store].src[1], turn);
    turn.share = op->arg.attn.n_head / op->arg.attn.n_head_kv;
    return why ? why : turn_weight(r, reader, 0, COLUMNS, turn);
}

static status turn_attention(struct rotate *r, struct err *e)
{
    for (int32_t i = 0; i < r->r.p.n_op; i++) {
        const struct op *op = &r->r.p.op[i];
        const char *why = op->kind == OP_ATTN ? turn_heads(r, i, op) : NULL;
        if (why) return refuse(r, "R2", i, why, e);
    }
    return OK;
}

/* ---- the same weight in several places ---- */

static bool is_turned(const struct turns *t) { return t->axis[COLUMNS].dim || t->axis[ROWS].dim || t->ones; }

static bool same_turns(const struct turns *a, const struct turns *b)
{
    return a->ones == b->ones && same_turn(&a->axis[COLUMNS], &b->axis[COLUMNS]) && same_turn(&a->axis[ROWS], &b->axis[ROWS]);
}

static bool inside(const struct use *a, const struct use *b) { return a->first >= b->first && a->first + a->n <= b->first + b->n; }

/* Uses i < j of one weight that have rows in common. The head may leave: it gets a copy. */
static status settle(struct rotate *r, int i, int j, struct err *e)
{
    const struct use *a = &r->r.use[i], *b = &r->r.use[j];
    struct turns *s = &r->turn[i], *t = &r->turn[j];
    if (!is_turned(s) && !is_turned(t)) return OK;
    if (same_turns(s, t) && (inside(a, b) || inside(b, a))) {
        if (inside(b, a)) t->covered = true;
        else s->covered = true;
        return OK;
    }
    const struct weight_row *row = arch_row(r->r.m->arch, W_OUTPUT);
    bool head = r->r.p.op[a->op].kind == OP_EMBED && b->op >= r->r.end[r->r.m->hp.n_layer] && r->r.p.op[b->op].kind == OP_MATMUL;
    if (!head || !row || (r->head >= 0 && r->head != j)) return refuse(r, "R1", b->op, twice, e);
    r->head = j, r->head_name = row->gguf;
    if (r->o.untie) return OK;
    return err_set(e, ERR_USAGE, "%s: %s is the head, too, which has to take the last norm's weights in: --untie makes %s of it", path_base(r->path),
                   a->w->name, r->head_name);
}

static status settle_all(struct rotate *r, struct err *e)
{
    const struct recorded *f = &r->r;
    for (int i = 0; i < f->n_uses; i++)
        for (int j = i + 1; j < f->n_uses; j++) {
            const struct use *a = &f->use[i], *b = &f->use[j];
            if (a->w == b->w && a->first < b->first + b->n && b->first < a->first + a->n) TRY(settle(r, i, j, e));
        }
    return OK;
}

/* ---- open ---- */

static status prepare(struct rotate *r, const struct model *m, struct err *e)
{
    TRY(recorded_open(&r->r, m, e));
    struct arena *mem = &r->r.mem;
    size_t n = (size_t)r->r.p.n_val;
    r->turn = arena_zalloc(mem, (size_t)r->r.n_uses + 1, sizeof *r->turn);
    r->in = arena_zalloc(mem, n, sizeof *r->in);
    r->gain = arena_zalloc(mem, n, sizeof *r->gain);
    r->todo = arena_zalloc(mem, n, sizeof *r->todo);
    return r->turn && r->in && r->gain && r->todo ? OK : err_oom(e, "rotation", n * sizeof *r->gain);
}

status rotate_open(struct rotate **out, const struct model *m, const char *path, const struct rotate_options *o, struct err *e)
{
    *out = NULL;
    int id = o->type ? o->type->gguf_id : DTYPE_IDS;
    if (id != GGUF_F32 && id != GGUF_F16 && id != GGUF_BF16)
        return err_set(e, ERR_USAGE, "a rotated model holds F32, F16 or BF16, not %s", o->type ? o->type->gguf_name : "nothing");
    if (gguf_find(&m->g, "rotate.kind")) return err_set(e, ERR_USAGE, "%s: is rotated already", path_base(path));
    struct rotate *r = mem_calloc(1, sizeof *r);
    if (!r) return err_oom(e, "rotation", sizeof *r);
    r->o = *o, r->path = path, r->head = -1;
    status st = prepare(r, m, e);
    if (st == OK && !o->no_r1) st = turn_stream(r, e);
    if (st == OK && !o->no_r2) st = turn_attention(r, e);
    if (st == OK) st = settle_all(r, e);
    if (st == OK) st = rotate_plan(r, e);
    if (st == OK) *out = r;
    else rotate_close(r);
    return st;
}

void rotate_close(struct rotate *r)
{
    if (!r) return;
    gguf_header_free(&r->h);
    recorded_close(&r->r);
    mem_free(r);
}

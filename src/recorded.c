/* recorded - see recorded.h. */
#include "src/recorded.h"
#include "ggml-like/cpu.h"
#include "src/forward.h"

enum { ROWS = 2 /* of the recorded pass: any number but one */ };

static status record(struct recorded *r, struct err *e)
{
    struct build b = { &r->p, r->m, { VAL_NONE, VAL_NONE, VAL_NONE, VAL_NONE }, NULL };
    struct cpu_info cpu;
    val x;
    cpu_detect(&cpu);
    kernels_init(&r->k, cpu.features);
    plan_init(&r->p, &r->k);
    plan_reset(&r->p, ROWS, ROWS, ROWS);
    r->p.observe = true; /* matmuls then name their input */
    TRY(forward_embed(&b, &x, e));
    r->stream = x;
    r->end[0] = r->p.n_op;
    for (int il = 0; il < r->m->hp.n_layer; il++) {
        TRY(forward_layer(&b, il, &x, e));
        r->end[il + 1] = r->p.n_op;
    }
    TRY(forward_norm(&b, &x, e));
    TRY(forward_logits(&b, &x, e));
    return OK;
}

static const struct tensor *in_file(const struct gguf *g, const void *data)
{
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const uint8_t *from = g->tensor[i].data;
        if ((const uint8_t *)data >= from && (const uint8_t *)data < from + tensor_bytes(&g->tensor[i])) return &g->tensor[i];
    }
    return NULL;
}

static void note_use(struct recorded *r, int32_t op, int src)
{
    const struct value *v = &r->p.val[r->p.op[op].src[src]];
    const struct tensor *w = v->temp || !v->t.data ? NULL : in_file(&r->m->g, v->t.data);
    if (!w) return;
    size_t from = (size_t)((const uint8_t *)v->t.data - (const uint8_t *)w->data);
    bool vector = tensor_rows(w) == 1;
    r->use[r->n_uses++] = (struct use){ op, src, w, (int64_t)(from / (vector ? sizeof(float) : w->nb[1])),
                                        vector ? v->t.ne[0] : (int64_t)(tensor_bytes(&v->t) / w->nb[1]) };
}

static status look_up(struct recorded *r, struct err *e)
{
    const struct plan *p = &r->p;
    r->maker = arena_zalloc(&r->mem, (size_t)p->n_val, sizeof *r->maker);
    r->use = arena_zalloc(&r->mem, (size_t)p->n_op * OP_SRC, sizeof *r->use);
    if (!r->maker || !r->use) return err_oom(e, "recorded equations", (size_t)p->n_op * OP_SRC * sizeof *r->use);
    for (int32_t i = 0; i < p->n_val; i++) r->maker[i] = -1;
    for (int32_t i = 0; i < p->n_op; i++) {
        if (p->op[i].dst != VAL_NONE) r->maker[p->op[i].dst] = i;
        for (int k = 0; k < OP_SRC; k++)
            if (p->op[i].src[k] != VAL_NONE) note_use(r, i, k);
    }
    return OK;
}

status recorded_open(struct recorded *r, const struct model *m, struct err *e)
{
    *r = (struct recorded){ .m = m };
    arena_init(&r->mem, 0);
    r->end = arena_zalloc(&r->mem, (size_t)m->hp.n_layer + 1, sizeof *r->end);
    status st = r->end ? record(r, e) : err_oom(e, "recorded equations", (size_t)m->hp.n_layer * sizeof *r->end);
    return st == OK ? look_up(r, e) : st;
}

void recorded_close(struct recorded *r)
{
    plan_free(&r->p);
    arena_free(&r->mem);
}

const struct use *recorded_use(const struct recorded *r, int32_t op, int src)
{
    for (int i = 0; i < r->n_uses; i++)
        if (r->use[i].op == op && r->use[i].src == src) return &r->use[i];
    return NULL;
}

val recorded_input(const struct op *op) { return op->kind == OP_MATMUL ? op->src[2] : op->kind == OP_MOE_MATMUL ? op->src[3] : VAL_NONE; }
bool recorded_form(const struct op *op) { return op->kind == OP_QUANT || op->kind == OP_MOE_QUANT || op->kind == OP_HEAD_QUANT; }

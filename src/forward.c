/* forward - a model's equations in parts. See forward.h. */
#include "src/forward.h"
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"

static status reserve(const struct build *b, struct err *e) { return plan_reserve(b->p, PLAN_CHUNK * (1 + (b->lora ? b->lora->n : 0)), e); }

status forward_embed(struct build *b, val *x, struct err *e)
{
    const struct model *m = b->m;
    TRY(reserve(b, e));
    *x = op_embed(b->p, weight(b, -1, W_EMBD), m->hp.n_embd);
    if (m->hp.embd_scale != 0) *x = op_scale(b->p, *x, m->hp.embd_scale);
    if (m->arch->embed) *x = m->arch->embed(b, *x);
    return OK;
}

status forward_layer(const struct build *b, int il, val *x, struct err *e)
{
    TRY(reserve(b, e));
    *x = (b->m->arch->layer ? b->m->arch->layer : standard_layer)(b, il, *x);
    return OK;
}

status forward_norm(const struct build *b, val *x, struct err *e)
{
    TRY(reserve(b, e));
    *x = norm(b, -1, *x, W_OUTPUT_NORM);
    return OK;
}

status forward_logits(const struct build *b, val *x, struct err *e)
{
    const struct hparams *hp = &b->m->hp;
    TRY(reserve(b, e));
    *x = op_matmul_rows(b->p, weight(b, -1, W_OUTPUT), *x, hp->n_vocab);
    *x = op_bias(b->p, *x, weight(b, -1, W_BIAS_OUTPUT));
    if (hp->logit_scale != 0) *x = op_scale(b->p, *x, hp->logit_scale);
    if (hp->final_softcap > 0) *x = op_softcap(b->p, *x, hp->final_softcap);
    return OK;
}

status forward_score(const struct build *b, val *x, bool *whole, struct err *e)
{
    const struct hparams *hp = &b->m->hp;
    TRY(reserve(b, e));
    val w = weight(b, -1, W_OUTPUT);
    *whole = b->p->val[w].extra == VAL_NONE && !model_weight(b->m, -1, W_BIAS_OUTPUT);
    *x = op_score(b->p, w, *x, hp->n_vocab, hp->logit_scale, hp->final_softcap);
    return OK;
}

status forward_machine(struct kernels *k, struct kernels *few, struct pool **pool, int n_threads, const char *isa, struct err *e)
{
    if (n_threads < 0 || n_threads > 512) return err_set(e, ERR_USAGE, "threads is %d, expected 1 to 512", n_threads);
    struct cpu_info cpu;
    cpu_detect(&cpu);
    if (isa) TRY(isa_features(isa, &cpu, &cpu.features, e));
    kernels_init(k, cpu.features);
    if (few) kernels_init(few, cpu.features & ~(uint64_t)CPU_AMX);
    return pool_open(pool, n_threads ? n_threads : cpu.n_threads_default, e);
}

static int64_t widest_head(const struct model *m)
{
    int64_t n = 8;
    for (int64_t il = 0; il < m->hp.n_layer; il++) n = max_i64(n, max_i64(m->layer[il].hp.head_dim, m->layer[il].hp.head_dim_v));
    return n;
}

size_t forward_thread_bytes(const struct model *m) { return plan_thread_bytes(widest_head(m)); }
size_t forward_grad_bytes(const struct model *m) { return plan_grad_bytes(widest_head(m)); }

int64_t forward_pass_rows(int64_t n_batch, int64_t left)
{
    int64_t passes = max_i64(1, (left + n_batch - 1) / n_batch);
    return (left + passes - 1) / passes;
}

int64_t forward_head_rows(const struct model *m, int64_t n_batch)
{
    return max_i64(1, min_i64(n_batch, HEAD_BYTES / max_i64(1, m->hp.n_vocab * (int64_t)sizeof(float))));
}

static void emit_rows(void *ctx, int ith, int nth)
{
    const struct emit *x = ctx;
    for (int64_t i = ith; i < x->n; i += nth) x->fn(x->ctx, x->seg[i], x->row[i], x->logits + i * x->n_vocab);
}

void forward_emit(struct pool *pool, const struct emit *x) { pool_run(pool, emit_rows, (void *)(uintptr_t)x); }

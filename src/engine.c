/* engine - runs forward passes: builds the plan for the shape at hand, feeds it batches, computes the head in row blocks.
 * Sessions hold only their timeline. See engine.h. */
#include "src/engine.h"
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "src/forward.h"
#include "src/session_int.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BATCH_MIN = 64, SCRATCH_GOAL = 48 << 20, SEGMENTS_MAX = 256 };

/* How the rows of a pass are multiplied: SHORT is the precise form for what `short_rows` says, SINGLE each row as in a pass of its own, BESIDE
 * up to FEW_ROWS sequences of a row each. */
enum pass_form { PASS_SEVERAL, PASS_SHORT, PASS_SINGLE, PASS_BESIDE };

struct engine {
    const struct model *m;
    struct kernels k, few; /* few: for PASS_BESIDE */
    struct pool *pool;
    struct plan body, head, score;
    val hidden, head_in, head_out, score_in, score_out;
    int64_t n_batch, head_rows;                /* most rows of one pass; of one head block */
    int64_t shape_rows, shape_out, shape_head, shape_score; /* what the plans are built for */
    uint8_t *mem;                              /* body scratch | head scratch | thread scratch */
    size_t mem_bytes, body_bytes, head_bytes, thread_bytes;
    struct plan_share *share;
    int32_t *token, *pos, *out; /* [n_batch] */
    int32_t *out_seg, *out_row; /* [n_batch] segment and row in it of each wanted row */
    struct batch_segment *seg;  /* [SEGMENTS_MAX] */
    observe_fn observe;
    void *observe_ctx;
    bool profile, precise, can_score;
    int64_t short_rows;
    enum pass_form form, head_form, score_form; /* of the plans as they are built */
    struct lora_set lora;
    int64_t op_ns[OP_KINDS];
};

/* ---- plans ---- */

/* AMX unpacks weights to BF16, which pays for more rows: 8 sequences of SmolLM2, a thread of Sapphire Rapids, 180 tokens/s, with bytes 275. */
enum { FEW_ROWS = 16 };

/* Most rows that share the scratch of a form. */
static int64_t form_rows(const struct engine *en, enum pass_form form, int64_t most)
{
    if (form == PASS_BESIDE) return min_i64(FEW_ROWS, most);
    return form == PASS_SINGLE ? min_i64(SINGLE_ROWS, most) : form == PASS_SHORT ? min_i64(en->short_rows, most) : most;
}

static status build_body(struct engine *en, int64_t rows, int64_t out, enum pass_form form, struct err *e)
{
    struct plan *p = &en->body;
    struct build b = { p, en->m, { VAL_NONE, VAL_NONE, VAL_NONE, VAL_NONE }, &en->lora };
    en->shape_rows = -1; /* until the new plan is complete */
    p->k = form == PASS_BESIDE ? &en->few : &en->k;
    plan_reset(p, rows, out, form_rows(en, form, en->n_batch));
    en->form = form;
    p->single = form == PASS_SINGLE;
    p->observe = en->observe != NULL;
    p->precise = en->precise || form == PASS_SHORT;
    val x;
    TRY(forward_embed(&b, &x, e));
    for (int il = 0; il < en->m->hp.n_layer; il++) TRY(forward_layer(&b, il, &x, e));
    TRY(plan_reserve(p, PLAN_CHUNK, e));
    if (p->observe) x = op_rows(p, x);
    TRY(forward_norm(&b, &x, e));
    plan_keep(p, x);
    TRY(plan_finish(p, e));
    en->hidden = x;
    en->shape_rows = rows;
    en->shape_out = out;
    return OK;
}

static status build_head(struct engine *en, int64_t rows, struct err *e)
{
    struct plan *p = &en->head;
    struct build b = { p, en->m, { VAL_NONE, VAL_NONE, VAL_NONE, VAL_NONE }, &en->lora };
    en->shape_head = -1;
    en->head_form = en->form;
    p->k = en->form == PASS_BESIDE ? &en->few : &en->k;
    plan_reset(p, rows, rows, form_rows(en, en->form, en->head_rows));
    p->single = en->form == PASS_SINGLE;
    p->observe = en->observe != NULL;
    p->precise = en->precise || en->form == PASS_SHORT;
    TRY(plan_reserve(p, 1, e));
    en->head_in = plan_input(p, en->m->hp.n_embd, rows);
    val y = en->head_in;
    TRY(forward_logits(&b, &y, e));
    plan_keep(p, y);
    TRY(plan_finish(p, e));
    en->head_out = y;
    en->shape_head = rows;
    return OK;
}

static int64_t score_rows(const struct engine *en) { return min_i64(SCORE_ROWS, en->n_batch); }

static status build_score(struct engine *en, int64_t rows, struct err *e)
{
    struct plan *p = &en->score;
    struct build b = { p, en->m, { VAL_NONE, VAL_NONE, VAL_NONE, VAL_NONE }, &en->lora };
    bool whole;
    en->shape_score = -1;
    en->score_form = en->form;
    plan_reset(p, rows, rows, form_rows(en, en->form == PASS_SHORT ? PASS_SHORT : PASS_SEVERAL, score_rows(en)));
    p->precise = en->precise || en->form == PASS_SHORT;
    TRY(plan_reserve(p, 1, e));
    en->score_out = en->score_in = plan_input(p, en->m->hp.n_embd, rows);
    TRY(forward_score(&b, &en->score_out, &whole, e));
    en->can_score = !en->observe && whole;
    plan_keep(p, en->score_out);
    TRY(plan_finish(p, e));
    en->shape_score = rows;
    return OK;
}

/* Builds all plans once for each list of ops that a shape can record: several rows or one; all of them wanted, several, one, none. Scratch
 * depends on the list only (plan_reset), so afterwards rebuilding for any shape neither allocates nor outgrows what is remembered here. */
static status measure(struct engine *en, struct err *e)
{
    int64_t n = en->n_batch;
    int64_t s = min_i64(SINGLE_ROWS, n), t = min_i64(en->short_rows, n), f = min_i64(FEW_ROWS, n);
    const int64_t shapes[][3] = {
        { s, s, PASS_SINGLE }, { s, s - 1, PASS_SINGLE }, { s, 1, PASS_SINGLE }, { s, 0, PASS_SINGLE },
        { t, t, PASS_SHORT },  { t, t - 1, PASS_SHORT },  { t, 1, PASS_SHORT },  { t, 0, PASS_SHORT },
        { n, n }, { n, n - 1 }, { n, 1 }, { n, 0 }, { 1, 1 }, { 1, 0 },
        { f, f, PASS_BESIDE }, { f, f - 1, PASS_BESIDE }, { f, 1, PASS_BESIDE }, { f, 0, PASS_BESIDE },
    };
    en->body_bytes = en->head_bytes = 0;
    for (int i = 0; i < ARRAY_LEN(shapes); i++) {
        if ((shapes[i][2] == PASS_SHORT && t < 2) || (shapes[i][2] == PASS_BESIDE && f < 2)) continue;
        TRY(build_body(en, shapes[i][0], shapes[i][1], (enum pass_form)shapes[i][2], e));
        if (en->body.bytes > en->body_bytes) en->body_bytes = en->body.bytes;
    }
    const int64_t heads[][2] = { { form_rows(en, PASS_SINGLE, en->head_rows), PASS_SINGLE }, { min_i64(t, en->head_rows), PASS_SHORT },
                                 { en->head_rows, PASS_SEVERAL }, { 1, PASS_SEVERAL }, { min_i64(f, en->head_rows), PASS_BESIDE } };
    for (int i = 0; i < ARRAY_LEN(heads); i++) {
        if (heads[i][0] < 1) continue;
        en->form = (enum pass_form)heads[i][1];
        TRY(build_head(en, heads[i][0], e));
        if (en->head.bytes > en->head_bytes) en->head_bytes = en->head.bytes;
    }
    const int64_t scores[][2] = { { min_i64(t, score_rows(en)), PASS_SHORT }, { score_rows(en), PASS_SEVERAL }, { 1, PASS_SEVERAL } };
    for (int i = 0; i < ARRAY_LEN(scores); i++) {
        if (scores[i][0] < 1) continue;
        en->form = (enum pass_form)scores[i][1];
        TRY(build_score(en, scores[i][0], e));
        if (en->score.bytes > en->head_bytes) en->head_bytes = en->score.bytes;
    }
    en->shape_rows = en->shape_head = en->shape_score = -1; /* en->form is not that of all of them */
    en->body_bytes = (en->body_bytes + 4095) & ~(size_t)4095;
    en->head_bytes = (en->head_bytes + 4095) & ~(size_t)4095;
    return OK;
}

static status choose_batch(struct engine *en, int64_t wanted, struct err *e)
{
    en->n_batch = wanted ? wanted : BATCH_DEFAULT;
    for (;;) {
        en->head_rows = forward_head_rows(en->m, en->n_batch);
        TRY(measure(en, e));
        if (wanted || en->n_batch <= BATCH_MIN || en->body_bytes <= SCRATCH_GOAL) return OK;
        en->n_batch = max_i64(BATCH_MIN, en->n_batch - 64);
    }
}

static status allocate(struct engine *en, struct err *e)
{
    size_t threads, n = (size_t)en->n_batch;
    en->thread_bytes = forward_thread_bytes(en->m);
    if (!mul_size(en->thread_bytes, (size_t)pool_threads(en->pool), &threads) ||
        !add_size(en->body_bytes, en->head_bytes, &en->mem_bytes) || !add_size(en->mem_bytes, threads, &en->mem_bytes))
        return err_oom(e, "scratch", SIZE_MAX);
    en->mem = mem_map(en->mem_bytes);
    en->share = mem_calloc((size_t)pool_threads(en->pool), sizeof *en->share);
    en->token = mem_calloc(n, 5 * sizeof(int32_t));
    en->seg = mem_calloc(SEGMENTS_MAX, sizeof *en->seg);
    if (!en->mem || !en->share || !en->token || !en->seg) return err_oom(e, "scratch", en->mem_bytes);
    en->pos = en->token + n;
    en->out = en->pos + n;
    en->out_seg = en->out + n;
    en->out_row = en->out_seg + n;
    return OK;
}

static bool in_plan(const struct plan *p, const struct tensor *t)
{
    for (int32_t i = 0; i < p->n_val; i++)
        if (p->val[i].t.data == t->data && p->val[i].last >= 0) return true;
    return false;
}

static status take_adapters(struct engine *en, const struct engine_options *o, struct err *e)
{
    if (o->n_lora < 0 || o->n_lora > ADAPTERS_MAX) return err_set(e, ERR_USAGE, "%d adapters, at most %d", o->n_lora, ADAPTERS_MAX);
    for (int i = 0; i < o->n_lora; i++) {
        if (o->lora[i].adapter->m != en->m) return err_set(e, ERR_USAGE, "adapter %d was opened for another model", i + 1);
        if (!isfinite(o->lora[i].scale)) return err_set(e, ERR_USAGE, "adapter %d: scale is %g", i + 1, (double)o->lora[i].scale);
        en->lora.use[en->lora.n++] = o->lora[i];
    }
    return OK;
}

/* Some architectures take matrices apart instead of multiplying by them: an adapter of such a one would be lost without a word. */
static status check_adapters(const struct engine *en, struct err *e)
{
    for (int i = 0; i < en->lora.n; i++)
        for (int64_t j = 0; j < en->lora.use[i].adapter->n_pairs; j++) {
            const struct tensor *b = &en->lora.use[i].adapter->pair[j].b;
            if (!in_plan(&en->body, b) && !in_plan(&en->head, b))
                return err_set(e, ERR_FORMAT, "%s: architecture %s does not multiply by this matrix as a whole: no adapter is possible", b->name,
                               en->m->arch->name);
        }
    return OK;
}

status engine_open(struct engine **out, const struct model *m, const struct engine_options *o, struct err *e)
{
    *out = NULL;
    if (o->n_batch < 0 || o->n_batch > 65536) return err_set(e, ERR_USAGE, "batch is %lld, expected 1 to 65536", (long long)o->n_batch);
    struct engine *en = mem_calloc(1, sizeof *en);
    if (!en) return err_oom(e, "engine", sizeof *en);
    en->m = m;
    en->observe = o->observe;
    en->observe_ctx = o->observe_ctx;
    en->precise = o->precise;
    en->short_rows = o->short_rows;
    plan_init(&en->body, &en->k);
    plan_init(&en->head, &en->k);
    plan_init(&en->score, &en->k);
    status st = forward_machine(&en->k, &en->few, &en->pool, o->n_threads, o->isa, e);
    if (st == OK) st = take_adapters(en, o, e);
    if (st == OK) st = choose_batch(en, o->n_batch, e);
    if (st == OK) st = check_adapters(en, e);
    if (st == OK) st = allocate(en, e);
    if (st != OK) {
        engine_close(en);
        return st;
    }
    *out = en;
    return OK;
}

void engine_close(struct engine *en)
{
    if (!en) return;
    pool_close(en->pool);
    plan_free(&en->body);
    plan_free(&en->head);
    plan_free(&en->score);
    if (en->mem) mem_unmap(en->mem, en->mem_bytes);
    mem_free(en->share);
    mem_free(en->token);
    mem_free(en->seg);
    mem_free(en);
}

const struct model *engine_model(const struct engine *en) { return en->m; }
const struct kernels *engine_kernels(const struct engine *en) { return &en->k; }
struct pool *engine_pool(struct engine *en) { return en->pool; }
uint64_t engine_adapters(const struct engine *en)
{
    struct hash64 x = { 0 };
    for (int i = 0; i < en->lora.n; i++) {
        hash64_add(&x, &en->lora.use[i].adapter->fingerprint, sizeof(uint64_t));
        hash64_add(&x, &en->lora.use[i].scale, sizeof(float));
    }
    return en->lora.n ? hash64_end(&x) | 1 : 0;
}
const char *engine_adapter_names(const struct engine *en, char *buf, size_t cap)
{
    snprintf(buf, cap, "none");
    for (int i = 0; i < en->lora.n; i++) {
        size_t n = i ? strlen(buf) : 0;
        snprintf(buf + n, cap - n, "%s%s:%g", i ? ", " : "", en->lora.use[i].adapter->name, (double)en->lora.use[i].scale);
    }
    return buf;
}
int64_t engine_n_batch(const struct engine *en) { return en->n_batch; }
int64_t engine_pass_rows(const struct engine *en, int64_t left)
{
    return forward_pass_rows(en->n_batch, left);
}
size_t engine_bytes(const struct engine *en) { return en->mem_bytes; }

void engine_profile(struct engine *en, bool on)
{
    en->profile = on;
    if (on) memset(en->op_ns, 0, sizeof en->op_ns);
}

bool engine_op_time(const struct engine *en, int i, const char **name, int64_t *ns)
{
    if (i < 0 || i >= OP_KINDS) return false;
    *name = op_name((enum op_kind)i);
    *ns = en->op_ns[i];
    return true;
}

/* ---- sessions ---- */

size_t model_state_bytes(const struct model *m, int64_t n_ctx, const struct dtype *kv_type)
{
    size_t n;
    return state_layout(m, n_ctx, &(struct kv_types){ kv_type, kv_type }, NULL, NULL, &n, NULL) == OK ? n : SIZE_MAX;
}

bool model_is_recurrent(const struct model *m)
{
    for (int64_t il = 0; il < m->hp.n_layer; il++)
        if (m->layer[il].hp.kind & LAYER_RECURRENT) return true;
    return false;
}

/* Refuses a KV cache that the machine cannot hold, before a page of it is touched. */
static status check_memory(const struct model *m, int64_t n_ctx, const struct kv_types *types, struct err *e)
{
    struct cpu_info cpu;
    cpu_detect(&cpu);
    size_t need, fixed; /* recurrent states have one size for all contexts */
    TRY(state_layout(m, n_ctx, types, NULL, NULL, &need, e));
    TRY(state_layout(m, 0, types, NULL, NULL, &fixed, e));
    if (!cpu.ram_available || need <= cpu.ram_available) return OK;
    double room = (double)cpu.ram_available - (double)fixed, row = (double)(need - fixed) / (double)n_ctx;
    int64_t fits = room > 0 && row > 0 ? (int64_t)(room / row) & ~(int64_t)255 : 0;
    return err_set(e, ERR_MEMORY, "context %lld needs %.1f GiB for its KV cache, %.1f GiB are available: at most %lld positions fit",
                   (long long)n_ctx, (double)need / 0x1p30, (double)cpu.ram_available / 0x1p30, (long long)fits);
}

status session_open(struct session **out, struct engine *en, const struct session_options *o, struct err *e)
{
    *out = NULL;
    int64_t n_ctx = o->n_ctx ? o->n_ctx : en->m->hp.n_ctx_train;
    struct kv_types types;
    if (n_ctx < 1 || n_ctx > 1 << 24) return err_set(e, ERR_USAGE, "context is %lld, expected 1 to %d", (long long)n_ctx, 1 << 24);
    TRY(kv_types_choose(&types, o->kv_type, o->k_type, o->v_type, e));
    TRY(check_memory(en->m, n_ctx, &types, e));
    struct session *s = mem_calloc(1, sizeof *s);
    if (!s) return err_oom(e, "session", sizeof *s);
    s->en = en;
    s->n_ctx = n_ctx;
    status st = state_open(&s->state, en->m, n_ctx, &types, e);
    if (st == OK && !(s->token = mem_map((size_t)n_ctx * sizeof *s->token))) st = err_oom(e, "tokens", (size_t)n_ctx * sizeof *s->token);
    if (st != OK) {
        session_close(s);
        return st;
    }
    *out = s;
    return OK;
}

void session_close(struct session *s)
{
    if (!s) return;
    state_close(&s->state);
    if (s->token) mem_unmap(s->token, (size_t)s->n_ctx * sizeof *s->token);
    mem_free(s);
}

int64_t session_n_ctx(const struct session *s) { return s->n_ctx; }
int64_t session_pos(const struct session *s) { return s->pos; }
const int32_t *session_tokens(const struct session *s) { return s->token; }
size_t session_bytes(const struct session *s) { return s->state.bytes; }

status session_truncate(struct session *s, int64_t n, struct err *e)
{
    if (n < 0 || n > s->pos) return err_set(e, ERR_USAGE, "truncate to %lld, expected 0 to %lld", (long long)n, (long long)s->pos);
    if (n > 0 && n < s->pos && model_is_recurrent(s->en->m))
        return err_set(e, ERR_USAGE, "truncate to %lld of %lld: the recurrent layers of this model keep a summary that cannot forget; only 0 is possible",
                       (long long)n, (long long)s->pos);
    s->pos = n;
    return OK;
}

/* ---- forward ---- */

static status check_segments(const struct engine *en, const struct segment *seg, int n_seg, int64_t *rows, int64_t *out, struct err *e)
{
    *rows = *out = 0;
    if (n_seg < 1 || n_seg > SEGMENTS_MAX) return err_set(e, ERR_USAGE, "%d segments, expected 1 to %d", n_seg, SEGMENTS_MAX);
    for (int i = 0; i < n_seg; i++) {
        const struct segment *g = &seg[i];
        if (g->n < 1 || g->want_from < 0 || g->want_from > g->n)
            return err_set(e, ERR_USAGE, "segment %d: %lld rows, logits from %lld", i, (long long)g->n, (long long)g->want_from);
        if (g->session->en != en) return err_set(e, ERR_USAGE, "segment %d: its session belongs to another engine", i);
        if (g->n > g->session->n_ctx - g->session->pos)
            return err_set(e, ERR_USAGE, "context is full: %lld of %lld tokens used, %lld more do not fit", (long long)g->session->pos,
                           (long long)g->session->n_ctx, (long long)g->n);
        for (int j = 0; j < i; j++)
            if (seg[j].session == g->session) return err_set(e, ERR_USAGE, "segments %d and %d share a session", j, i);
        for (int64_t t = 0; t < g->n; t++)
            if (g->tokens[t] < 0 || g->tokens[t] >= en->m->hp.n_vocab)
                return err_set(e, ERR_USAGE, "token id %d, expected 0 to %lld", g->tokens[t], (long long)en->m->hp.n_vocab - 1);
        *rows += g->n;
        *out += g->n - g->want_from;
    }
    if (*rows > en->n_batch) return err_set(e, ERR_USAGE, "%lld rows in one pass, at most %lld", (long long)*rows, (long long)en->n_batch);
    return OK;
}

static struct batch fill_batch(struct engine *en, const struct segment *seg, int n_seg)
{
    struct batch b = { .token = en->token, .pos = en->pos, .out = en->out, .seg = en->seg, .n_seg = n_seg };
    for (int i = 0; i < n_seg; i++) {
        struct session *s = seg[i].session;
        en->seg[i] = (struct batch_segment){ .row = b.n_rows, .n = seg[i].n, .pos = s->pos, .state = s->state.layer };
        for (int64_t t = 0; t < seg[i].n; t++) {
            en->token[b.n_rows] = seg[i].tokens[t];
            en->pos[b.n_rows] = (int32_t)(s->pos + t);
            if (t >= seg[i].want_from) {
                en->out[b.n_out] = (int32_t)b.n_rows;
                en->out_seg[b.n_out] = i;
                en->out_row[b.n_out++] = (int32_t)t;
            }
            b.n_rows++;
        }
        memcpy(s->token + s->pos, seg[i].tokens, (size_t)seg[i].n * sizeof *s->token);
    }
    return b;
}

static void run_plan(struct engine *en, const struct plan *p, uint8_t *base, const struct batch *b)
{
    struct plan_exec x = {
        .plan = p,
        .pool = en->pool,
        .batch = b,
        .base = base,
        .thread_base = en->mem + en->body_bytes + en->head_bytes,
        .thread_bytes = en->thread_bytes,
        .share = en->share,
        .observe = en->observe,
        .observe_ctx = en->observe_ctx,
        .op_ns = en->profile ? en->op_ns : NULL,
    };
    plan_run(&x);
}

/* The head's logits are rows x vocabulary: computed in blocks of head_rows so that 512 rows of a 262k vocabulary do not need 512 MiB. */
static status run_head(struct engine *en, int64_t n_out, logits_fn fn, void *ctx, struct err *e)
{
    float *hidden = (float *)(en->mem + en->body.val[en->hidden].offset);
    for (int64_t done = 0; done < n_out;) {
        int64_t n = min_i64(en->head_rows, n_out - done);
        if (en->shape_head != n || en->head_form != en->form) TRY(build_head(en, n, e));
        plan_bind(&en->head, en->head_in, hidden + done * en->m->hp.n_embd);
        struct batch b = { .n_rows = n, .n_out = n };
        run_plan(en, &en->head, en->mem + en->body_bytes, &b);
        if (fn) {
            struct emit x = { fn,
                              ctx,
                              (float *)(en->mem + en->body_bytes + en->head.val[en->head_out].offset),
                              en->out_seg + done,
                              en->out_row + done,
                              n,
                              en->m->hp.n_vocab };
            forward_emit(en->pool, &x);
        }
        done += n;
    }
    return OK;
}

static status run_score(struct engine *en, int64_t n_out, const int32_t *target, double *nll, struct err *e)
{
    float *hidden = (float *)(en->mem + en->body.val[en->hidden].offset);
    en->shape_head = -1; /* its logits are overwritten */
    for (int64_t done = 0, n; done < n_out; done += n) {
        n = min_i64(score_rows(en), n_out - done);
        if (en->shape_score != n || en->score_form != en->form) TRY(build_score(en, n, e));
        plan_bind(&en->score, en->score_in, hidden + done * en->m->hp.n_embd);
        struct batch b = { .n_rows = n, .n_out = n, .target = target + done };
        run_plan(en, &en->score, en->mem + en->body_bytes, &b);
        memcpy(nll + done, en->mem + en->body_bytes + en->score.val[en->score_out].offset, (size_t)n * sizeof *nll);
    }
    return OK;
}

static status run_body(struct engine *en, const struct segment *seg, int n_seg, bool single, int64_t *n_out, struct err *e)
{
    int64_t rows, out;
    TRY(check_segments(en, seg, n_seg, &rows, &out, e));
    if (single && rows > SINGLE_ROWS) return err_set(e, ERR_USAGE, "%lld single rows in one pass, at most %d", (long long)rows, SINGLE_ROWS);
    enum pass_form form = single ? PASS_SINGLE : n_seg == 1 && rows > 1 && rows <= en->short_rows ? PASS_SHORT
                                 : n_seg == rows && rows > 1 && rows <= FEW_ROWS ? PASS_BESIDE : PASS_SEVERAL;
    if (en->shape_rows != rows || en->shape_out != out || en->form != form) TRY(build_body(en, rows, out, form, e));
    assert(en->body.bytes <= en->body_bytes);
    struct batch b = fill_batch(en, seg, n_seg);
    run_plan(en, &en->body, en->mem, &b);
    for (int i = 0; i < n_seg; i++) seg[i].session->pos += seg[i].n;
    *n_out = out;
    return OK;
}

static status forward(struct engine *en, const struct segment *seg, int n_seg, bool single, logits_fn fn, void *ctx, struct err *e)
{
    int64_t out;
    TRY(run_body(en, seg, n_seg, single, &out, e));
    return run_head(en, out, fn, ctx, e);
}

status engine_forward(struct engine *en, const struct segment *seg, int n_seg, logits_fn fn, void *ctx, struct err *e)
{
    return forward(en, seg, n_seg, false, fn, ctx, e);
}

status engine_forward_single(struct engine *en, const struct segment *seg, int n_seg, logits_fn fn, void *ctx, struct err *e)
{
    return forward(en, seg, n_seg, true, fn, ctx, e);
}

bool engine_can_score(const struct engine *en) { return en->can_score; }

status engine_score(struct engine *en, const struct segment *seg, int n_seg, const int32_t *target, double *nll, struct err *e)
{
    int64_t rows, out;
    assert(engine_can_score(en));
    TRY(check_segments(en, seg, n_seg, &rows, &out, e));
    for (int64_t i = 0; i < out; i++)
        if (target[i] < 0 || target[i] >= en->m->hp.n_vocab)
            return err_set(e, ERR_USAGE, "target %lld is token %d, expected 0 to %lld", (long long)i, target[i], (long long)en->m->hp.n_vocab - 1);
    TRY(run_body(en, seg, n_seg, false, &out, e));
    return run_score(en, out, target, nll, e);
}

float *engine_logits(struct engine *en)
{
    if (en->shape_head < 1) return (float *)(en->mem + en->body_bytes); /* the last pass failed: room for a row, of no meaning */
    return (float *)(en->mem + en->body_bytes + en->head.val[en->head_out].offset) + (en->shape_head - 1) * en->m->hp.n_vocab;
}

status session_feed(struct session *s, const int32_t *tokens, int64_t n, bool (*progress)(void *ctx, int64_t done, int64_t n), void *ctx,
                    struct err *e)
{
    if (n > s->n_ctx - s->pos)
        return err_set(e, ERR_USAGE, "context is full: %lld of %lld tokens used, %lld more do not fit", (long long)s->pos,
                       (long long)s->n_ctx, (long long)n);
    for (int64_t done = 0; done < n;) {
        int64_t m = engine_pass_rows(s->en, n - done);
        struct segment g = { .session = s, .tokens = tokens + done, .n = m, .want_from = done + m == n ? m - 1 : m };
        TRY(engine_forward(s->en, &g, 1, NULL, NULL, e));
        done += m;
        if (progress && !progress(ctx, done, n))
            return done == n ? OK : err_set(e, ERR_INTERRUPTED, "stopped after %lld of %lld tokens", (long long)done, (long long)n);
    }
    return OK;
}

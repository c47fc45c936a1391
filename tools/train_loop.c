/* train_loop - see train_loop.h. */
#include "tools/train_loop.h"
#include "ggml-like/file.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PASS_SEQS = 512 };

/* ---- order ---- */

static void shuffle(struct train_loop *l, int64_t epoch)
{
    uint64_t s = mix64(l->seed ^ mix64((uint64_t)epoch + 1));
    for (int64_t i = 0; i < l->train.n; i++) l->order[i] = i;
    for (int64_t i = l->train.n - 1; i > 0; i--) {
        int64_t j = (int64_t)(mix64_nth(s, (uint64_t)(l->train.n - i)) % (uint64_t)(i + 1)), was = l->order[i];
        l->order[i] = l->order[j];
        l->order[j] = was;
    }
    l->epoch = epoch;
}

/* Item i of the run, counted through all epochs. */
static int64_t item_at(struct train_loop *l, int64_t i)
{
    if (i / l->train.n != l->epoch) shuffle(l, i / l->train.n);
    return l->order[i % l->train.n];
}

/* ---- passes ---- */

/* Sequences that go through the model together, and the samples they are. */
struct pass {
    struct train_seq seq[PASS_SEQS];
    int64_t sample[PASS_SEQS];
    double nll[PASS_SEQS], factor[PASS_SEQS];
    int n;
    int64_t rows;
};

static struct train_seq sequence(const struct train_set *set, int64_t i)
{
    const struct train_sample *s = &set->sample[i];
    return (struct train_seq){ set->token + s->first, set->weight + s->first, s->n };
}

static void pass_add(struct pass *p, const struct train_set *set, int64_t sample)
{
    p->sample[p->n] = sample;
    p->seq[p->n++] = sequence(set, sample);
    p->rows += set->sample[sample].n;
}

/* Adds item i, one sample or the two of a pair, chosen before rejected; false when the pass has no room. */
static bool pass_item(struct pass *p, const struct train_loop *l, const struct train_items *items, int64_t i)
{
    const struct train_set *set = items->set;
    int64_t at = items->item[i], first = l->dpo ? set->pair[at].chosen : at, second = l->dpo ? set->pair[at].rejected : -1;
    int64_t rows = set->sample[first].n + (l->dpo ? set->sample[second].n : 0);
    if (p->n + 2 > PASS_SEQS || (p->n > 0 && p->rows + rows > l->n_batch)) return false;
    pass_add(p, set, first);
    if (l->dpo) pass_add(p, set, second);
    return true;
}

static const char *where(const struct train_set *set, int64_t sample, char buf[200])
{
    const struct train_sample *s = &set->sample[sample];
    snprintf(buf, 200, "%.150s:%lld", s->file, (long long)s->line);
    return buf;
}

static status check_finite(const struct train_loop *l, const struct pass *p, const struct train_set *set, int64_t step, struct err *e)
{
    char text[200], kept[60] = "the state that was saved last stays";
    if (step > l->state.step) snprintf(kept, sizeof kept, "the state of step %lld is kept", (long long)l->state.step);
    for (int i = 0; i < p->n; i++)
        if (!isfinite(p->nll[i]))
            return err_set(e, ERR_RUNTIME, "step %lld: the loss of sample %s is %g; %s", (long long)step, where(set, p->sample[i], text), p->nll[i], kept);
    return OK;
}

/* ---- pairs (Rafailov et al. 2023) ---- */

/* nll of the pass's samples by the model without adapter, computed as those that they stand beside; kept. */
static status refer(struct train_loop *l, struct pass *p, bool valid, struct err *e)
{
    double *known = valid ? l->reference_valid : l->reference;
    bool all = true;
    for (int i = 0; i < p->n; i++) all = all && !isnan(known[p->sample[i]]);
    if (all) return OK;
    if (valid) TRY(trainer_score(l->t, p->seq, p->n, true, p->nll, e));
    else TRY(trainer_refer(l->t, p->seq, p->n, p->nll, e));
    for (int i = 0; i < p->n; i++) known[p->sample[i]] = p->nll[i];
    return OK;
}

/* loss = -ln sigmoid(margin), margin = beta * ((ref_c - nll_c) - (ref_r - nll_r)); factor: its derivatives by the two nll. */
static void take_pairs(const struct train_loop *l, struct pass *p, const double *ref, struct train_point *r)
{
    for (int i = 0; i < p->n; i += 2) {
        double margin = (double)l->beta * ((ref[p->sample[i]] - p->nll[i]) - (ref[p->sample[i + 1]] - p->nll[i + 1]));
        double loss = margin > 0 ? log1p(exp(-margin)) : log1p(exp(margin)) - margin, slope = (double)l->beta / (1 + exp(margin));
        p->factor[i] = slope;
        p->factor[i + 1] = -slope;
        r->loss += loss;
        r->margin += margin;
        r->accuracy += margin > 0;
    }
}

/* ---- validation ---- */

static status score_valid(struct train_loop *l, struct pass *p, struct train_point *sum, int64_t *tokens, struct err *e)
{
    if (l->dpo) TRY(refer(l, p, true, e));
    TRY(trainer_score(l->t, p->seq, p->n, false, p->nll, e));
    TRY(check_finite(l, p, l->valid.set, l->state.step, e));
    if (l->dpo) take_pairs(l, p, l->reference_valid, sum);
    for (int i = 0; i < p->n; i++) {
        if (!l->dpo) sum->loss += p->nll[i];
        *tokens += l->valid.set->sample[p->sample[i]].n_trained;
    }
    return OK;
}

status train_loop_valid(struct train_loop *l, struct train_point *r, struct err *e)
{
    struct train_point sum = { 0 };
    int64_t tokens = 0, item = 0;
    while (item < l->valid.n) {
        struct pass p = { .n = 0 };
        while (item < l->valid.n && pass_item(&p, l, &l->valid, item)) item++;
        TRY(score_valid(l, &p, &sum, &tokens, e));
    }
    r->valid = sum.loss / (double)(l->dpo ? l->valid.n : max_i64(1, tokens));
    return OK;
}

/* ---- a step ---- */

static int64_t step_tokens(struct train_loop *l, int64_t first)
{
    int64_t n = 0;
    for (int64_t i = 0; i < l->batch_size; i++) {
        struct pass p = { .n = 0 };
        pass_item(&p, l, &l->train, item_at(l, first + i));
        for (int k = 0; k < p.n; k++) n += l->train.set->sample[p.sample[k]].n_trained;
    }
    return n;
}

static status run_pass(struct train_loop *l, struct pass *p, int64_t step, int64_t number, struct train_point *r, struct err *e)
{
    if (l->dpo) TRY(refer(l, p, false, e));
    TRY(trainer_forward(l->t, p->seq, p->n, (uint64_t)step << 20 | (uint64_t)number, p->nll, e));
    TRY(check_finite(l, p, l->train.set, step, e));
    if (l->dpo) take_pairs(l, p, l->reference, r);
    r->rows += p->rows;
    for (int i = 0; i < p->n; i++) {
        if (!l->dpo) r->loss += p->nll[i];
        p->factor[i] = l->dpo ? p->factor[i] / (double)l->batch_size : 1 / (double)r->tokens;
    }
    return trainer_backward(l->t, p->factor, e);
}

/* The mean over all trained tokens of the step, however it is cut into passes. */
static status gradients(struct train_loop *l, int64_t step, struct train_point *r, struct err *e)
{
    int64_t first = (step - 1) * l->batch_size, done = 0, number = 0;
    memset(trainer_gradients(l->t), 0, (size_t)l->state.n * sizeof(float));
    r->tokens = step_tokens(l, first);
    while (done < l->batch_size) {
        struct pass p = { .n = 0 };
        while (done < l->batch_size && pass_item(&p, l, &l->train, item_at(l, first + done))) done++;
        TRY(run_pass(l, &p, step, number++, r, e));
    }
    double n = (double)(l->dpo ? l->batch_size : r->tokens);
    r->loss /= n;
    r->margin /= n;
    r->accuracy /= n;
    return OK;
}

static void update(struct train_loop *l, int64_t step, const struct train_point *r)
{
    struct adamw o = l->adam, flat = l->adam;
    struct train_param_list list = trainer_params(l->t);
    float factor = l->clip > 0 && r->norm > (double)l->clip ? (float)((double)l->clip / r->norm) : 1;
    o.lr = flat.lr = (float)r->rate;
    flat.decay = 0;
    for (int64_t i = 0; i < list.n;) { /* runs of tensors with and without decay */
        int64_t j = i + 1, from = list.param[i].offset;
        while (j < list.n && list.param[j].vector == list.param[i].vector) j++;
        int64_t n = (j < list.n ? list.param[j].offset : l->state.n) - from;
        adamw_step(trainer_pool(l->t), list.param[i].vector ? &flat : &o, step, factor, l->state.w + from, trainer_gradients(l->t) + from, l->state.m + from,
                   l->state.v + from, n);
        i = j;
    }
}

static int64_t first_sample(const struct train_loop *l, int64_t i)
{
    int64_t at = l->train.item[i];
    return l->dpo ? l->train.set->pair[at].chosen : at;
}

static status one_step(struct train_loop *l, struct train_point *r, struct err *e)
{
    int64_t step = l->state.step + 1;
    char text[200];
    double began = now_seconds();
    *r = (struct train_point){ .step = step, .valid = NAN, .rate = (double)schedule_rate(&l->schedule, step) };
    TRY(gradients(l, step, r, e));
    r->norm = grad_norm(trainer_pool(l->t), trainer_gradients(l->t), l->state.n);
    if (!isfinite(r->norm))
        return err_set(e, ERR_RUNTIME, "step %lld: the gradient's norm is %g (first sample %s); the state of step %lld is kept", (long long)step, r->norm,
                       where(l->train.set, first_sample(l, item_at(l, (step - 1) * l->batch_size)), text), (long long)l->state.step);
    update(l, step, r);
    l->spoiled = !isfinite(grad_norm(trainer_pool(l->t), l->state.w, l->state.n));
    if (l->spoiled)
        return err_set(e, ERR_RUNTIME, "step %lld: weights that are not finite come of it (rate %g, --adam-eps %g); the state that was saved last stays",
                       (long long)step, r->rate, (double)l->adam.eps);
    l->state.step = step;
    l->smooth = train_average(l->smooth, r->loss, step - 1, l->schedule.steps);
    r->seconds = now_seconds() - began;
    return OK;
}

/* ---- checkpoints ---- */

void train_loop_aside(const char *out, int64_t step, char *path, size_t cap)
{
    char what[40] = "best";
    size_t n = strlen(out);
    if (n > 5 && !strcmp(out + n - 5, ".gguf")) n -= 5;
    if (step >= 0) snprintf(what, sizeof what, "step-%lld", (long long)step);
    snprintf(path, cap, "%.*s.%s.gguf", (int)n, out, what);
}

/* The adapter of this step; the one that is no longer among the last goes. */
static status keep_adapter(struct train_loop *l, struct err *e)
{
    char path[4200];
    train_loop_aside(l->out, l->state.step, path, sizeof path);
    TRY(l->write(l->ctx, l, path, e));
    int64_t old = l->state.step - l->keep * l->save_every;
    if (old <= 0) return OK;
    train_loop_aside(l->out, old, path, sizeof path);
    unlink(path);
    return OK;
}

/* The old state stays until the new one is complete. With `keep` the adapter comes first, where saves by steps fall on this step: behind a kill between the two
 * the run comes by here again. Either is written though the other cannot be. */
static status save(struct train_loop *l, struct err *e)
{
    bool keeps = l->keep > 0 && l->save_every > 0 && l->state.step % l->save_every == 0;
    l->saved_at = now_seconds();
    status kept = keeps ? keep_adapter(l, e) : OK, saved = train_state_save(&l->state, l->state_path, e);
    return kept == OK ? saved : kept;
}

static status measure(struct train_loop *l, struct train_point *r, struct err *e)
{
    char path[4200];
    TRY(train_loop_valid(l, r, e));
    if (!(r->valid < l->state.best)) return OK;
    struct err why = { 0 };
    double best = l->state.best;
    int64_t best_step = l->state.best_step;
    l->state.best = r->valid;
    l->state.best_step = r->step;
    train_loop_aside(l->out, -1, path, sizeof path);
    if (l->write(l->ctx, l, path, &why) == OK) return OK;
    l->warn(l->ctx, why.text);
    l->state.best = best, l->state.best_step = best_step; /* of what is in the file */
    return OK;
}

static status after_step(struct train_loop *l, struct train_point *r, struct err *e)
{
    bool last = r->step == l->schedule.steps;
    if (l->valid.n > 0 && (last || (l->eval_every > 0 && r->step % l->eval_every == 0))) TRY(measure(l, r, e));
    TRY(train_state_add(&l->state, r, e));
    l->tell(l->ctx, l, r);
    bool due = (l->save_every > 0 && r->step % l->save_every == 0) || (l->save_seconds > 0 && now_seconds() - l->saved_at >= l->save_seconds);
    struct err why = { 0 };
    if ((due || last) && save(l, &why) != OK) l->warn(l->ctx, why.text); /* the last: the result is a third of it, and may still fit */
    return OK;
}

/* A step that fails before its update changed nothing yet, so the state of the one before can be kept. */
status train_loop_run(struct train_loop *l, struct err *e)
{
    l->saved_at = now_seconds();
    while (l->state.step < l->schedule.steps) {
        struct train_point r;
        struct err more = { 0 };
        status st = one_step(l, &r, e);
        if (st != OK) {
            if (l->state.step > 0 && !l->spoiled && train_state_save(&l->state, l->state_path, &more) != OK) fprintf(stderr, "cuanto: %s\n", more.text);
            return st;
        }
        TRY(after_step(l, &r, e));
        if (!cli_interrupted) continue;
        TRY(train_state_save(&l->state, l->state_path, e));
        return err_set(e, ERR_INTERRUPTED, "interrupted");
    }
    return OK;
}

/* ---- open, close ---- */

static double *unknown(int64_t n)
{
    double *x = mem_alloc((size_t)max_i64(1, n) * sizeof *x);
    for (int64_t i = 0; x && i < n; i++) x[i] = NAN;
    return x;
}

status train_loop_open(struct train_loop *l, const char *job, bool resume, struct err *e)
{
    int64_t n = trainer_n(l->t);
    l->order = mem_alloc((size_t)l->train.n * sizeof *l->order);
    if (!mul_size((size_t)n, 2 * sizeof(float), &l->moments_bytes)) return err_oom(e, "optimizer", SIZE_MAX);
    if (l->moments_path) TRY(mem_map_file(&l->moments, l->moments_path, l->moments_bytes, e));
    else l->moments = mem_map_dense(l->moments_bytes);
    l->reference = unknown(l->dpo ? l->train.set->n_samples : 0);
    l->reference_valid = unknown(l->dpo && l->valid.n ? l->valid.set->n_samples : 0);
    if (!l->order || !l->moments || !l->reference || !l->reference_valid) return err_oom(e, "optimizer", (size_t)n * 2 * sizeof(float));
    l->state = (struct train_state){ .job = job, .n = n, .w = trainer_weights(l->t), 
                                     .m = l->moments, .v = (float *)l->moments + n, .best = INFINITY };
    shuffle(l, 0);
    if (!resume || access(l->state_path, F_OK) != 0) return OK;
    TRY(train_state_load(&l->state, l->state_path, e));
    for (int64_t i = 0; i < l->state.n_rows; i++) l->smooth = train_average(l->smooth, l->state.row[i].loss, i, l->schedule.steps);
    return OK;
}

void train_loop_close(struct train_loop *l)
{
    train_state_close(&l->state);
    mem_free(l->order);
    if (l->moments) mem_unmap(l->moments, l->moments_bytes);
    mem_free(l->reference);
    mem_free(l->reference_valid);
}

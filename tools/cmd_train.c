/* train - fine-tunes adapters on a model of any format, or all weights of a small one of floats: reads the data, says what will happen, does it, and can be
 * stopped and continued at any step (train_loop). */
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"
#include "tools/opt.h"
#include "tools/prompt.h"
#include "tools/report.h"
#include "tools/sha256.h"
#include "tools/term.h"
#include "tools/train_loop.h"
#include "tools/train_plot.h"
#include "tools/train_preview.h"
#include "tools/train_write.h"

enum { ROWS_DEFAULT = 512, ROWS_MOST = 65536, BATCH_DEFAULT = 8, SPLIT_LEAST = 10, JOB_TEXT = 4096 };

struct job {
    struct cli *c;
    char model_path[4096], model_sha[65], state_path[4200], text[JOB_TEXT];
    struct model *m;
    struct trainer *t;
    struct train_set all, valid_set;
    struct train_options data;
    int64_t *item;                    /* of all: those to train on, then those held out; those of valid_set */
    int64_t *valid_item;
    char data_sha[65], valid_sha[65];
    struct train_loop l;
    regex_t target[16];
    int n_target;
    struct file_out lock;             /* FILE.run.part, held while the run goes on: two runs would take each other's results away */
    struct bar bar;
    FILE *log;
    bool csv;
    double started, trained_seconds;
    int64_t trained_tokens, first_step;
    struct engine *engine;            /* for samples of what the model says */
};

/* ---- which matrices ---- */

/* Names of the modules in PEFT's configurations, for those who know these. all-linear leaves out stacks of experts (..._exps), which are no modules there. */
static const struct { const char *peft, *gguf; } modules[] = {
    { "q_proj", "attn_q" },    { "k_proj", "attn_k" },       { "v_proj", "attn_v" },   { "o_proj", "attn_output" }, { "qkv_proj", "attn_qkv" },
    { "gate_proj", "ffn_gate" }, { "up_proj", "ffn_up" },    { "down_proj", "ffn_down" }, { "all-linear", "[^s]\\.weight$" },
};

static status compile_targets(struct job *j, struct err *e)
{
    for (int i = 0; i < j->c->train.n_target; i++) {
        const char *text = j->c->train.target[i];
        for (int k = 0; k < ARRAY_LEN(modules); k++)
            if (!strcmp(text, modules[k].peft)) text = modules[k].gguf;
        char why[120];
        int bad = regcomp(&j->target[i], text, REG_EXTENDED | REG_NOSUB);
        if (bad) {
            regerror(bad, &j->target[i], why, sizeof why);
            return err_set(e, ERR_USAGE, "--target %.80s: %s", text, why);
        }
        j->n_target++;
    }
    return OK;
}

static bool picked(void *ctx, const char *name)
{
    struct job *j = ctx;
    for (int i = 0; i < j->n_target; i++)
        if (regexec(&j->target[i], name, 0, NULL, 0) == 0) return true;
    return false;
}

/* ---- the data ---- */

static int64_t count_items(const struct job *j, const struct train_set *s) { return j->l.dpo ? s->n_pairs : s->n_samples; }

/* Samples are spread over a file, often sorted: those held out are taken at equal distances. */
static status split(struct job *j, struct err *e)
{
    int64_t n = count_items(j, &j->all), at = 0, want = 0;
    if (!j->c->train.valid && n >= SPLIT_LEAST) want = (int64_t)((double)n * (double)j->c->train.valid_split + 0.5);
    if (!(j->item = mem_alloc((size_t)n * sizeof *j->item))) return err_oom(e, "samples", (size_t)n * sizeof *j->item);
    for (int out = 0; out < 2; out++)
        for (int64_t i = 0; i < n; i++)
            if (((i + 1) * want / n != i * want / n) == out) j->item[at++] = i;
    j->l.train = (struct train_items){ &j->all, j->item, n - want };
    j->l.valid = (struct train_items){ &j->all, j->item + n - want, want };
    return OK;
}

static void set_sha(const struct train_set *s, char hex[65])
{
    struct sha256 sha;
    sha256_init(&sha);
    sha256_add(&sha, s->token, (size_t)s->n_tokens * sizeof *s->token);
    sha256_add(&sha, s->weight, (size_t)s->n_tokens * sizeof *s->weight);
    for (int64_t i = 0; i < s->n_samples; i++) sha256_add(&sha, &s->sample[i].n, sizeof s->sample[i].n);
    sha256_text(&sha, hex);
}

static status read_valid(struct job *j, struct err *e)
{
    TRY(train_set_read(&j->valid_set, &j->c->train.valid, 1, model_tokenizer(j->m), model_template(j->m), &j->data, e));
    int64_t n = count_items(j, &j->valid_set);
    if (!(j->valid_item = mem_alloc((size_t)n * sizeof *j->valid_item))) return err_oom(e, "samples", (size_t)n * sizeof *j->valid_item);
    for (int64_t i = 0; i < n; i++) j->valid_item[i] = i;
    j->l.valid = (struct train_items){ &j->valid_set, j->valid_item, n };
    set_sha(&j->valid_set, j->valid_sha);
    return OK;
}

static status check_pairs(const struct job *j, const struct train_set *s, struct err *e)
{
    if (j->l.dpo && s->n_pairs == 0) return err_set(e, ERR_USAGE, "%s: --dpo needs rows with chosen and rejected answers", s->file[0].path);
    if (!j->l.dpo && s->n_pairs > 0) return err_set(e, ERR_USAGE, "%s: rows with chosen and rejected answers are for --dpo", s->file[0].path);
    return OK;
}

static status read_data(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    j->data = train_choices(c);
    j->data.n_ctx = c->ctx;
    j->data.model = path_base(j->model_path);
    TRY(train_set_read(&j->all, c->args, c->n_args, model_tokenizer(j->m), model_template(j->m), &j->data, e));
    TRY(check_pairs(j, &j->all, e));
    set_sha(&j->all, j->data_sha);
    TRY(split(j, e));
    if (!c->train.valid) return OK;
    TRY(read_valid(j, e));
    return check_pairs(j, &j->valid_set, e);
}

/* ---- what will happen ---- */

static const char *count_text(int64_t n, char buf[32])
{
    int len = snprintf(buf, 32, "%lld", (long long)n);
    for (int at = len - 3; at > 0; at -= 3) {
        memmove(buf + at + 1, buf + at, (size_t)(len - at + 1));
        buf[at] = ',';
        len++;
    }
    return buf;
}

static void say_model(const struct job *j)
{
    struct model_info info;
    char size[32], params[32], all[32];
    model_info(j->m, &info);
    fprintf(stderr, "model     %s, %s, %s\n", info.name[0] ? info.name : path_base(j->model_path),
            format_name(model_gguf(j->m), info.type), size_text(info.file_bytes, size));
    int64_t n = trainer_n(j->t), matrices = 0;
    struct train_param_list list = trainer_params(j->t);
    for (int64_t i = 0; i < list.n; i++) matrices += list.param[i].part == TRAIN_A;
    if (j->c->train.full) fprintf(stderr, "trained   all %s weights\n", count_text(n, all));
    else
        fprintf(stderr, "adapter   rank %lld, alpha %g, %lld matrices: %s numbers, %.2f %% of the model\n", (long long)trainer_rank(j->t),
                (double)trainer_alpha(j->t), (long long)matrices, count_text(n, params), 100 * (double)n / (double)info.n_params);
}

/* "1 sample", "57 samples" */
static const char *items_text(const struct job *j, int64_t n, char buf[64])
{
    char count[32];
    snprintf(buf, 64, "%s %s%s", count_text(n, count), j->l.dpo ? "pair" : "sample", n == 1 ? "" : "s");
    return buf;
}

static void say_data(const struct job *j)
{
    char a[64], b[32];
    struct buffer text = { 0 };
    if (train_set_summary(&j->all, &j->data, &text) && text.p) fputs(text.p, stderr);
    buffer_free(&text);
    fprintf(stderr, "split     %s to train on, %s to validate\n", items_text(j, j->l.train.n, a), count_text(j->l.valid.n, b));
}

/* A model keeps the types of its tensors. */
static void say_disk(const struct job *j, const struct model_info *info)
{
    const struct train_loop *l = &j->l;
    size_t n = (size_t)trainer_n(j->t) * sizeof(float), out = j->c->train.full ? info->file_bytes : n;
    bool best = l->valid.n > 0;
    uint64_t room = file_room(l->out), need = (uint64_t)out * (uint64_t)(1 + best + l->keep) + 6 * (uint64_t)n;
    char a[32], b[32], d[32], path[4200];
    train_loop_aside(l->out, -1, path, sizeof path);
    fprintf(stderr, "disk      %s as %s%s%s, %s as %s, twice that while it is saved", size_text(out, a), path_base(l->out), best ? " and as " : "",
            best ? path_base(path) : "", size_text(3 * n, b), path_base(j->state_path));
    if (l->moments_path) fprintf(stderr, "; %s as %s", size_text(2 * n, d), path_base(l->moments_path));
    fprintf(stderr, "\n%s", room < need ? "warning   the disk has less than that: " : "");
    if (room < need) fprintf(stderr, "%s\n", size_text(room, a));
}

static void say_plan(const struct job *j)
{
    const struct train_loop *l = &j->l;
    char a[64], b[32], d[32];
    struct model_info info;
    model_info(j->m, &info);
    say_model(j);
    say_data(j);
    fprintf(stderr, "run       %lld step%s of %s: %.3g epochs; %s, rate %g, %lld step%s to warm up; passes of %lld tokens\n", (long long)l->schedule.steps,
            l->schedule.steps == 1 ? "" : "s", items_text(j, l->batch_size, a), (double)(l->schedule.steps * l->batch_size) / (double)l->train.n,
            schedule_name(l->schedule.kind), (double)l->schedule.lr, (long long)l->schedule.warmup, l->schedule.warmup == 1 ? "" : "s",
            (long long)l->n_batch);
    size_t optimizer = l->moments_path ? 0 : 2 * (size_t)trainer_n(j->t) * sizeof(float);
    fprintf(stderr, "memory    %s beside the file: %s to train (activations of %lld of %lld layers are kept), %s for the optimizer\n",
            size_text(trainer_bytes(j->t) + optimizer, a), size_text(trainer_bytes(j->t), b), (long long)trainer_kept(j->t), (long long)info.n_layer,
            size_text(optimizer, d));
    say_disk(j, &info);
    fprintf(stderr, "cpu       %d thread%s, %s\n", pool_threads(trainer_pool(j->t)), pool_threads(trainer_pool(j->t)) == 1 ? "" : "s",
            trainer_kernels(j->t)->name);
}

/* ---- what the model says meanwhile ---- */

static int32_t best_token(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

/* Control characters stay harmless, as in out_text. */
static void say_piece(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        bool c1 = c == 0xc2 && i + 1 < n && (unsigned char)p[i + 1] < 0xa0;
        fputc(c1 || c == 127 || (c < 32 && c != '\n' && c != '\t') ? '?' : c, stderr);
        i += c1;
    }
}

static status say_sample(struct job *j, const char *text, struct err *e)
{
    struct prompt p;
    struct session *s = NULL;
    const struct tokenizer *tok = model_tokenizer(j->m);
    TRY(prompt_open(&p, tok, model_template(j->m), j->c->template_name, path_base(j->model_path), e));
    status st = chat_add(p.chat, "user", text, strlen(text), e);
    if (st == OK) st = prompt_encode(&p, true, e);
    int64_t most = j->c->train.sample_tokens, n_vocab = tokenizer_size(tok);
    if (st == OK) st = session_open(&s, j->engine, &(struct session_options){ .n_ctx = p.n_ids + most + 1 }, e);
    if (st == OK) st = session_feed(s, p.ids, p.n_ids, NULL, NULL, e);
    fprintf(stderr, "  > %s\n    ", text);
    for (int64_t i = 0; st == OK && i < most; i++) {
        char piece[256];
        int32_t id = best_token(engine_logits(j->engine), n_vocab);
        if (tokenizer_is_end(tok, id)) break;
        size_t n = tokenizer_piece(tok, id, false, piece, sizeof piece);
        say_piece(piece, n < sizeof piece ? n : sizeof piece);
        st = session_feed(s, &id, 1, NULL, NULL, e);
    }
    fputc('\n', stderr);
    session_close(s);
    prompt_close(&p);
    return st;
}

static status say_samples(struct job *j, struct err *e)
{
    if (!j->engine) {
        struct adapter_use use = { trainer_adapter(j->t), 1 };
        TRY(engine_open(&j->engine, j->m, &(struct engine_options){ .n_threads = (int)j->c->threads, .isa = j->c->isa, .lora = &use, .n_lora = 1 }, e));
    }
    for (int i = 0; i < j->c->train.n_sample; i++) TRY(say_sample(j, j->c->train.sample[i], e));
    return OK;
}

/* ---- while running ---- */

static void log_row(struct job *j, const struct train_point *r)
{
    char valid[40] = "";
    if (!j->log) return;
    if (isfinite(r->valid)) snprintf(valid, sizeof valid, "%.9g", r->valid);
    if (j->csv)
        fprintf(j->log, "%lld,%.9g,%s,%.7g,%.9g,%lld,%.9g,%.9g,%.3f\n", (long long)r->step, r->loss, valid, r->rate, r->norm, (long long)r->tokens, r->margin,
                r->accuracy, r->seconds);
    else
        fprintf(j->log,
                "{\"step\":%lld,\"loss\":%.9g,\"valid\":%s,\"lr\":%.7g,\"grad_norm\":%.9g,\"tokens\":%lld,\"margin\":%.9g,\"accuracy\":%.9g,"
                "\"seconds\":%.3f}\n",
                (long long)r->step, r->loss, valid[0] ? valid : "null", r->rate, r->norm, (long long)r->tokens, r->margin, r->accuracy, r->seconds);
    fflush(j->log);
}

static status open_log(struct job *j, struct err *e)
{
    const char *path = j->c->train.log;
    size_t n = path ? strlen(path) : 0;
    if (!path) return OK;
    j->csv = n > 4 && !strcmp(path + n - 4, ".csv");
    j->log = fopen(path, "w");
    if (!j->log) return err_set(e, ERR_RUNTIME, "%s: cannot be written", path);
    if (j->csv) fprintf(j->log, "step,loss,valid,lr,grad_norm,tokens,margin,accuracy,seconds\n");
    for (int64_t i = 0; i < j->l.state.n_rows; i++) log_row(j, &j->l.state.row[i]);
    return OK;
}

static void save_plot(const struct job *j)
{
    struct buffer b = { 0 };
    struct err e = { 0 };
    if (!j->c->train.plot) return;
    if (!plot_svg(&b, j->l.state.row, j->l.state.n_rows) || buffer_save(&b, j->c->train.plot, &e) != OK)
        fprintf(stderr, "cuanto: %s\n", e.code ? e.text : "no memory for the plot");
    buffer_free(&b);
}

static void tell(void *ctx, const struct train_loop *l, const struct train_point *r)
{
    struct job *j = ctx;
    char extra[160];
    j->trained_tokens += r->rows;
    j->trained_seconds += r->seconds;
    snprintf(extra, sizeof extra, "loss %.3f (%.3f) lr %.1e norm %.2f  %.0f tok/s", r->loss, l->smooth, r->rate, r->norm,
             (double)j->trained_tokens / fmax(1e-9, j->trained_seconds));
    bar_update(&j->bar, r->step, extra);
    log_row(j, r);
    if (isfinite(r->valid)) {
        if (l->dpo) snprintf(extra, sizeof extra, ", margin %.3f, %.0f %% of pairs right", r->margin, 100 * r->accuracy);
        if (!j->c->quiet) fprintf(stderr, "%sstep %lld: loss %.4f%s, validation %.4f%s\n", j->bar.tty ? "\r\033[K" : "", (long long)r->step, l->smooth,
                                  l->dpo ? extra : "", r->valid, l->state.best_step == r->step ? " (best)" : "");
        save_plot(j);
    }
    struct err e = { 0 };
    bool due = j->c->train.n_sample > 0 && j->c->train.sample_every > 0 && r->step % j->c->train.sample_every == 0;
    if (due && say_samples(j, &e) != OK) fprintf(stderr, "cuanto: sample: %s\n", e.text);
}

static void warn(void *ctx, const char *text) { fprintf(stderr, "cuanto: not saved: %s; going on\n", text); }

/* ---- set-up ---- */

static status write_result(void *ctx, const struct train_loop *l, const char *path, struct err *e)
{
    struct job *j = ctx;
    const struct train_state *s = &l->state;
    bool last = s->n_rows > 0 && s->row[s->n_rows - 1].step == s->step; /* not yet while the best is written */
    double valid = s->best_step == s->step ? s->best : last ? s->row[s->n_rows - 1].valid : (double)NAN;
    struct train_facts f = { j->model_sha, j->data_sha, j->text, s->step, l->seed, valid };
    return j->c->train.full ? train_write_model(path, j->m, j->t, &f, e) : train_write_adapter(path, j->m, j->t, &f, e);
}

/* Tokens of the longest sample, or of both answers of the longest pair. */
static int64_t longest_item(const struct train_set *s)
{
    int64_t most = 0;
    for (int64_t i = 0; i < s->n_samples; i++) most = max_i64(most, s->sample[i].n);
    for (int64_t i = 0; i < s->n_pairs; i++) most = max_i64(most, s->sample[s->pair[i].chosen].n + s->sample[s->pair[i].rejected].n);
    return most;
}

static status open_trainer(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    int64_t item = max_i64(2, max_i64(longest_item(&j->all), longest_item(&j->valid_set)));
    j->l.n_batch = c->train.rows ? c->train.rows : max_i64(ROWS_DEFAULT, item);
    if (item > ROWS_MOST)
        return err_set(e, ERR_USAGE, "the longest %s has %lld tokens, a pass at most %d: a smaller --ctx", c->train.dpo ? "pair" : "sample", (long long)item,
                       ROWS_MOST);
    if (j->l.n_batch < item)
        return err_set(e, ERR_USAGE, "--rows %lld: the longest %s has %lld tokens", (long long)c->train.rows, c->train.dpo ? "pair" : "sample",
                       (long long)item);
    struct trainer_options o = {
        .n_threads = (int)c->threads,
        .isa = c->isa,
        .precise = c->precise,
        .n_batch = j->l.n_batch,
        .memory = (size_t)c->train.memory << 20,
        .full = c->train.full,
        .from_scratch = c->train.from_scratch,
        .pick = j->n_target ? picked : NULL,
        .pick_ctx = j,
        .rank = c->train.rank,
        .alpha = c->train.alpha,
        .rslora = c->train.rslora,
        .dropout = c->train.dropout,
        .seed = (uint64_t)c->train.seed,
    };
    return trainer_open(&j->t, j->m, &o, e);
}

static void set_loop(struct job *j)
{
    const struct cli *c = j->c;
    struct train_loop *l = &j->l;
    l->t = j->t;
    l->beta = c->train.dpo_beta;
    l->batch_size = min_i64(c->train.batch ? c->train.batch : BATCH_DEFAULT, l->train.n);
    double run = (double)c->train.epochs * (double)l->train.n / (double)l->batch_size; /* a millionth less: 0.1 as a float is more than a tenth */
    int64_t steps = c->train.steps ? c->train.steps : max_i64(1, (int64_t)ceil(run * (1 - 1e-6)));
    enum schedule_kind kind = 0;
    while (kind + 1 < SCHEDULE_KINDS && strcmp(schedule_name(kind), c->train.schedule)) kind++;
    float lr = c->train.lr > 0 ? c->train.lr : c->train.from_scratch ? 3e-4f : c->train.full ? 1e-5f : c->train.dpo ? 1e-5f : 2e-4f;
    l->schedule = (struct schedule){ kind, steps, c->train.warmup >= 0 ? min_i64(c->train.warmup, steps) : steps / 20, lr, c->train.lr_floor };
    l->adam = (struct adamw){ .beta1 = c->train.beta1, .beta2 = c->train.beta2, .eps = c->train.adam_eps, .decay = c->train.decay };
    l->clip = c->train.clip;
    l->seed = (uint64_t)c->train.seed;
    l->eval_every = c->train.eval_every ? c->train.eval_every : max_i64(1, steps / 10);
    l->save_every = c->train.save_every;
    l->save_seconds = (double)c->train.save_minutes * 60;
    l->keep = c->train.keep;
    l->out = c->output;
    l->state_path = j->state_path;
    l->write = write_result;
    l->warn = warn;
    l->moments_path = c->train.optimizer_file;
    l->tell = tell;
    l->ctx = j;
}

/* A float in the fewest digits that give it back: 0.0002, not 0.000199999995. */
static const char *float_text(float x, char buf[24])
{
    snprintf(buf, 24, "%.6g", (double)x);
    if (strtof(buf, NULL) != x) snprintf(buf, 24, "%.9g", (double)x);
    return buf;
}

/* All that decides a number of the run, a line each, but the CPU: what must be the same to go on. */
static void describe(struct job *j)
{
    const struct cli *c = j->c;
    const struct train_loop *l = &j->l;
    char f[10][24];
    size_t n = (size_t)snprintf(j->text, sizeof j->text,
        "model: %s\ndata: %s\nvalidation: %s of %lld\nsamples: %lld\ncontext: %lld\nloss: %s\nsteps: %lld\nbatch: %lld\nrows: %lld\n",
        j->model_sha, j->data_sha, c->train.valid ? j->valid_sha : "held out", (long long)l->valid.n, (long long)l->train.n, (long long)j->data.n_ctx, c->loss,
        (long long)l->schedule.steps, (long long)l->batch_size, (long long)l->n_batch);
    n += (size_t)snprintf(j->text + n, sizeof j->text - n,
        "schedule: %s\nrate: %s\nwarmup: %lld\nfloor: %s\ndecay: %s\nclip: %s\nbeta1: %s\nbeta2: %s\neps: %s\nseed: %lld\neval every: %lld\n",
        schedule_name(l->schedule.kind), float_text(l->schedule.lr, f[0]), (long long)l->schedule.warmup, float_text(l->schedule.floor, f[1]),
        float_text(l->adam.decay, f[2]), float_text(l->clip, f[3]), float_text(l->adam.beta1, f[4]), float_text(l->adam.beta2, f[5]),
        float_text(l->adam.eps, f[6]), (long long)c->train.seed, (long long)l->eval_every);
    n += (size_t)snprintf(j->text + n, sizeof j->text - n, "method: %s%s%s\nrank: %lld\nalpha: %s\ndropout: %s\nbeta: %s\nprecise: %d\ntargets:",
        c->train.full ? "full" : "lora", c->train.from_scratch ? " from scratch" : "", c->train.dpo ? " dpo" : "", (long long)trainer_rank(j->t),
        float_text(trainer_alpha(j->t), f[7]), float_text(c->train.dropout, f[8]), float_text(c->train.dpo ? c->train.dpo_beta : 0, f[9]), c->precise);
    for (int i = 0; i < c->train.n_target && n < sizeof j->text; i++) n += (size_t)snprintf(j->text + n, sizeof j->text - n, " %s", c->train.target[i]);
}

/* Nothing that is read is written over, nor are two results one file. */
static status check_outputs(struct job *j, const char **other, struct err *e)
{
    const struct cli *c = j->c;
    int n = 0;
    char path[4200], run[4220], part[4220];
    train_loop_aside(c->output, -1, path, sizeof path);
    snprintf(run, sizeof run, "%s.run.part", c->output);
    snprintf(part, sizeof part, "%s.part", j->state_path);
    const struct { const char *what, *path; } out[] = { { "-o", c->output }, { "-o", j->state_path }, { "-o", path }, { "-o", run }, { "-o", part },
                                                        { "--log", c->train.log }, { "--plot", c->train.plot },
                                                        { "--optimizer-file", c->train.optimizer_file } };
    for (int i = 0; i < c->n_args; i++) other[n++] = c->args[i];
    other[n++] = j->model_path, other[n++] = c->train.valid, other[n++] = c->template_name;
    for (int i = 0; i < ARRAY_LEN(out); other[n++] = out[i++].path) TRY(output_apart(out[i].what, out[i].path, other, n, e));
    for (int i = 0; i < n - ARRAY_LEN(out) && c->train.keep > 0; i++) {
        char *step = other[i] ? strstr(path_base(other[i]), ".step-") : NULL;
        if (!step) continue;
        train_loop_aside(c->output, strtoll(step + 6, NULL, 10), path, sizeof path);
        TRY(output_apart("--keep", path, &other[i], 1, e));
    }
    const char *made[] = { c->output, j->state_path, c->train.plot };
    for (int i = 0; i < ARRAY_LEN(made); i++) TRY(output_check("", made[i], NULL, 0, e));
    return OK;
}

static status check_words(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    if (c->train.from_scratch && !c->train.full) return err_set(e, ERR_USAGE, "--from-scratch needs --full");
    if (c->train.full && c->train.dpo) return err_set(e, ERR_USAGE, "--dpo needs an adapter, to compare with the model without it; not with --full");
    if (c->train.full && c->train.n_target) return err_set(e, ERR_USAGE, "--target chooses matrices for adapters; not with --full");
    const char *only = c->train.dropout > 0 ? "dropout" : c->train.rslora ? "rslora" : NULL;
    if (c->train.full && only) return err_set(e, ERR_USAGE, "--%s is of adapters; not with --full", only);
    if (c->train.full && c->train.n_sample) return err_set(e, ERR_USAGE, "--sample needs an adapter; not with --full");
    if (c->preview > 0 || c->dry_run) return OK;
    if (!c->output) return err_set(e, ERR_USAGE, "-o FILE is missing: where the %s goes", c->train.full ? "model" : "adapter");
    if (c->train.keep > 0 && c->train.save_every == 0) return err_set(e, ERR_USAGE, "--keep needs --save-every: of saves by time there is no N-th last");
    if (snprintf(j->state_path, sizeof j->state_path, "%s.state", c->output) >= 4096) return err_set(e, ERR_USAGE, "-o: the path is too long");
    const char **other = mem_calloc((size_t)c->n_args + 16, sizeof *other);
    status st = other ? check_outputs(j, other, e) : err_oom(e, "paths", (size_t)c->n_args);
    mem_free(other);
    TRY(st);
    bool begun = access(j->state_path, F_OK) == 0;
    if (c->overwrite || (c->resume && begun)) return OK;
    if (begun) return err_set(e, ERR_USAGE, "%s is there: an unfinished or finished run; --resume goes on with it, --overwrite begins anew", j->state_path);
    return access(c->output, F_OK) == 0 ? err_set(e, ERR_USAGE, "%s: exists; --overwrite replaces it", c->output) : OK;
}

static status prepare(struct job *j, struct err *e)
{
    TRY(model_find(j->c->model, j->model_path, sizeof j->model_path, e));
    TRY(check_words(j, e));
    TRY(compile_targets(j, e));
    struct model_options o = { .no_mmap = j->c->no_mmap, .check = j->c->check, .pre = j->c->pre };
    o.n_ctx = j->c->ctx > RUNTIME_CTX ? j->c->ctx : -(int64_t)RUNTIME_CTX; /* as for run and chat: LongRoPE picks its factors by it */
    TRY(model_open(&j->m, j->model_path, &o, e));
    j->l.dpo = j->c->train.dpo;
    return read_data(j, e);
}

static status take_output(struct job *j, struct err *e)
{
    char path[4200];
    bool left;
    snprintf(path, sizeof path, "%s.run", j->c->output);
    TRY(file_part(&j->lock, path, &left, e));
    train_loop_aside(j->c->output, -1, path, sizeof path);
    file_sweep(path), file_sweep(j->c->output); /* what killed runs of this output left, a model each with --full */
    return OK;
}

static status train(struct job *j, struct err *e)
{
    struct cli *c = j->c;
    TRY(sha256_file(j->model_path, j->model_sha, e));
    TRY(open_trainer(j, e));
    set_loop(j);
    describe(j);
    if (c->dry_run) j->l.out = c->output ? c->output : "OUT", snprintf(j->state_path, sizeof j->state_path, "%.4000s.state", j->l.out);
    if (!c->quiet || c->dry_run) say_plan(j);
    if (c->dry_run) return OK;
    TRY(take_output(j, e));
    TRY(train_loop_open(&j->l, j->text, c->resume, e));
    TRY(open_log(j, e));
    if (j->l.state.step > 0 && !c->quiet) fprintf(stderr, "goes on   behind step %lld\n", (long long)j->l.state.step);
    if (c->train.n_sample && j->l.state.step == 0) TRY(say_samples(j, e));
    bar_begin(&j->bar, c, "train", "steps", j->l.schedule.steps);
    j->bar.before = j->l.state.step;
    bar_update(&j->bar, j->l.state.step, NULL);
    status st = train_loop_run(&j->l, e);
    bar_end(&j->bar);
    save_plot(j);
    if (st != OK) return st;
    return write_result(j, &j->l, c->output, e);
}

static void say_times(const struct job *j)
{
    const char *name;
    int64_t ns, all = 0;
    for (int i = 0; trainer_op_time(j->t, i, &name, &ns); i++) all += ns;
    for (int i = 0; trainer_op_time(j->t, i, &name, &ns); i++)
        if (ns * 200 > all) fprintf(stderr, "  %-16s %8.2f s %5.1f %%\n", name, (double)ns * 1e-9, 100 * (double)ns / (double)all);
}

static void put_result(const struct job *j)
{
    const struct train_state *s = &j->l.state;
    struct json_out o;
    json_out_init(&o, true);
    json_begin(&o, NULL, '{');
    json_put_cstr(&o, "output", j->c->output);
    json_put_i64(&o, "steps", s->step);
    json_put_f64(&o, "first_loss", s->n_rows > 0 ? s->row[0].loss : (double)NAN);
    json_put_f64(&o, "loss", j->l.smooth);
    json_put_f64(&o, "best_valid", isfinite(s->best) ? s->best : (double)NAN);
    json_put_i64(&o, "best_step", s->best_step);
    json_end(&o, '}');
    report_out(&o);
}

static void say_result(struct job *j)
{
    const struct train_loop *l = &j->l;
    struct buffer b = { 0 };
    if (j->c->json) put_result(j);
    if (j->c->quiet || l->state.n_rows == 0) return;
    if (j->c->verbose) say_times(j);
    if (plot_text(&b, l->state.row, l->state.n_rows, term_width()) && b.p) fputs(b.p, stderr);
    buffer_free(&b);
    fprintf(stderr, "loss %.4f -> %.4f", l->state.row[0].loss, l->smooth);
    if (isfinite(l->state.best)) fprintf(stderr, "; validation %.4f at best, after step %lld", l->state.best, (long long)l->state.best_step);
    if (isfinite(l->state.best) && l->state.best_step < l->state.step) {
        char best[4200];
        train_loop_aside(l->out, -1, best, sizeof best);
        fprintf(stderr, " (%s)", best);
    }
    fprintf(stderr, "\n%s is written", j->c->output);
    const char *template = j->c->template_name;
    if (!j->c->train.full)
        fprintf(stderr, "; cuanto chat %s --lora %s%s%s", j->c->model, j->c->output, template ? " --template " : "", template ? template : "");
    fputc('\n', stderr);
}

static status preview(const struct job *j, struct err *e)
{
    struct buffer b = { 0 };
    if (j->c->json) {
        struct json_out o;
        json_out_init(&o, false);
        train_preview_json(&j->all, j->c->preview, &o);
        report_out(&o);
        return OK;
    }
    bool ok = train_set_summary(&j->all, &j->data, &b) && train_preview(&j->all, model_tokenizer(j->m), j->c->preview, term_color(j->c, 1), &b);
    ok = ok && (!b.p || out_write(b.p, b.n));
    buffer_free(&b);
    return ok ? OK : err_oom(e, "preview", 0);
}

static void release(struct job *j)
{
    if (j->log && (ferror(j->log) | fclose(j->log))) fprintf(stderr, "cuanto: %s: rows are missing, it could not be written\n", j->c->train.log);
    file_abort(&j->lock);
    engine_close(j->engine);
    train_loop_close(&j->l);
    trainer_close(j->t);
    train_set_close(&j->all);
    train_set_close(&j->valid_set);
    mem_free(j->item);
    mem_free(j->valid_item);
    model_close(j->m);
    for (int i = 0; i < j->n_target; i++) regfree(&j->target[i]);
}

/* What to type after an error, NULL: it says so itself. */
static const char *hint_for(const struct err *e)
{
    static const struct { const char *says, *hint; } hints[] = {
        { "no chat template", "Name one: --template chatml (or llama3, gemma, ..., or a file)." },
        { "bad row", "Correct them, or leave them out: --skip-bad. cuanto data FILE lists them." },
        { "is of another run", "Give what that run was given (a longer run, another rate or other data is a new one), or begin anew: --overwrite" },
        { "the loss of sample", "A lower --lr, or look at that sample. --resume would go the same way again: begin anew with --overwrite." },
        { "is picked for an adapter", "--target is a pattern of names as blk.0.attn_q.weight or q_proj; cuanto inspect MODEL --all lists them." },
    };
    for (int i = 0; i < ARRAY_LEN(hints); i++)
        if (e->code != OK && strstr(e->text, hints[i].says)) return hints[i].hint;
    return NULL;
}

static int run(struct cli *c)
{
    struct job *j = mem_calloc(1, sizeof *j);
    struct err e = { 0 };
    status st = j ? OK : err_oom(&e, "train", sizeof *j);
    if (st == OK) {
        j->c = c;
        j->lock.fd = -1;
        st = prepare(j, &e);
        if (st == OK && c->preview > 0) st = preview(j, &e);
        else if (st == OK) st = train(j, &e);
        if (st == OK && !c->dry_run && c->preview == 0) say_result(j);
        if (st == ERR_INTERRUPTED && j->l.state.step > 0)
            fprintf(stderr, "cuanto: stopped behind step %lld; the same command with --resume goes on\n", (long long)j->l.state.step);
        release(j);
        mem_free(j);
    }
    return st == OK ? out_status() : cli_fail(&e, hint_for(&e));
}

#define T(field) OPT_AT(train.field)
OPT_GROUP(data_group, "Data",
    { "valid", NULL, OPT_STR, T(valid), .value = "FILE", .help = "validation set; default: --valid-split of the data" },
    { "valid-split", NULL, OPT_FLOAT, T(valid_split), .value = "X", .def = "0.05", .hi = 0.9,
      .help = "share of the samples that is held out; of fewer than 10 none" },
    { "ctx", "-c --ctx-size", OPT_INT, OPT_AT(ctx), .value = "N", .def = "1024", .lo = 8, .hi = 65536, .help = "tokens of a sample at most" },
    ROW_TOO_LONG, ROW_LOSS, ROW_SKIP_BAD, ROW_SPECIAL_ROWS, ROW_TEMPLATE, ROW_PREVIEW);
OPT_GROUP(adapter_group, "Adapter",
    { "rank", "-r --lora-r", OPT_INT, T(rank), .value = "N", .def = "16", .lo = 1, .hi = 4096, .help = "rank of the adapters" },
    { "alpha", "--lora-alpha", OPT_FLOAT, T(alpha), .value = "X", .hi = 1e6, .help = "they count alpha / rank times; 0: twice the rank" },
    { "rslora", NULL, OPT_FLAG, T(rslora), .help = "alpha / sqrt(rank) instead" },
    { "dropout", "--lora-dropout", OPT_FLOAT, T(dropout), .value = "P", .hi = 0.99, .help = "share of their inputs left out at random" },
    { "target", "--target-modules", OPT_LIST, T(target), T(n_target), 16, .value = "REGEX",
      .help = "matrices that get one, by name (attn_q, ffn_, blk\\.[0-9]\\., q_proj), repeatable; default: all of the layers" },
    { "full", NULL, OPT_FLAG, T(full), .help = "train all weights of a model of floats; -o is then a model" },
    { "from-scratch", NULL, OPT_FLAG, T(from_scratch), .help = "with --full: begin with random weights" },
    { "dpo", NULL, OPT_FLAG, T(dpo), .help = "preferences: rows with prompt, chosen, rejected" },
    { "dpo-beta", "--beta", OPT_FLOAT, T(dpo_beta), .value = "X", .def = "0.1", .lo = 1e-6, .hi = 100,
      .help = "with --dpo: how strongly the model without adapter holds back" });
OPT_GROUP(run_group, "Training",
    { "output", "-o", OPT_STR, OPT_AT(output), .value = "FILE", .help = "the adapter (GGUF); FILE.state beside it is for --resume" },
    { "resume", NULL, OPT_FLAG, OPT_AT(resume), .help = "go on where FILE.state stands: on a CPU of this kind the result is that of a run without a break" },
    { "overwrite", "-y", OPT_FLAG, OPT_AT(overwrite), .help = "begin anew though there is a FILE or FILE.state" },
    { "dry-run", NULL, OPT_FLAG, OPT_AT(dry_run), .help = "check the data, say what would happen" },
    { "epochs", NULL, OPT_FLOAT, T(epochs), .value = "X", .def = "3", .lo = 1e-6, .hi = 1e6,
      .help = "times that all samples are seen; fewer than 100 samples want more" },
    { "steps", "--max-steps", OPT_INT, T(steps), .value = "N", .hi = 1e9, .help = "instead of --epochs" },
    { "batch", "-b --batch-size", OPT_INT, T(batch), .value = "N", .hi = 1e6, .help = "samples of one step; 0: 8" },
    { "lr", "--learning-rate", OPT_FLOAT, T(lr), .value = "X", .hi = 10, .help = "highest rate; 0: 2e-4, with --dpo or --full 1e-5, with --from-scratch 3e-4" },
    { "schedule", "--lr-scheduler-type", OPT_STR, T(schedule), .value = "KIND", .def = "cosine", .choices = "cosine|linear|constant",
      .help = "how the rate falls" },
    { "warmup", "--warmup-steps", OPT_INT, T(warmup), .value = "N", .def = "-1", .lo = -1, .hi = 1e9,
      .help = "steps until the highest rate; -1: a twentieth" },
    { "lr-floor", NULL, OPT_FLOAT, T(lr_floor), .value = "X", .hi = 1, .help = "share of the rate that is left at the end" },
    { "weight-decay", "--decay", OPT_FLOAT, T(decay), .value = "X", .hi = 10, .help = "AdamW's" },
    { "clip", "--max-grad-norm", OPT_FLOAT, T(clip), .value = "X", .def = "1", .hi = 1e9, .help = "longest gradient; 0: any" },
    { "beta1", "--adam-beta1", OPT_FLOAT, T(beta1), .value = "X", .def = "0.9", .hi = 0.99999, .help = "AdamW's" },
    { "beta2", "--adam-beta2", OPT_FLOAT, T(beta2), .value = "X", .def = "0.999", .hi = 0.9999999, .help = "AdamW's" },
    { "adam-eps", "--adam-epsilon", OPT_FLOAT, T(adam_eps), .value = "X", .def = "1e-8", .hi = 1, .help = "AdamW's" },
    { "seed", NULL, OPT_INT, T(seed), .value = "N", .def = "1", .hi = 2147483647, .help = "of first weights, order and dropout" },
    { "rows", NULL, OPT_INT, T(rows), .value = "N", .hi = 65536,
      .help = "tokens of one pass, several samples together; 0: 512, or the longest sample" },
    { "optimizer-file", NULL, OPT_STR, T(optimizer_file), .value = "FILE",
      .help = "keep the optimizer's numbers there instead of in memory; the file is removed at once" },
    { "memory", NULL, OPT_INT, T(memory), .value = "MIB", .def = "512", .hi = 1e7,
      .help = "for activations; those that do not fit are computed again" });
OPT_GROUP(watch_group, "Watching and saving",
    { "eval-every", "--eval-steps", OPT_INT, T(eval_every), .value = "N", .hi = 1e9,
      .help = "steps between validations; 0: a tenth of the run. The best is kept in FILE.best.gguf" },
    { "save-every", "--save-steps", OPT_INT, T(save_every), .value = "N", .hi = 1e9, .help = "steps between saves; 0: by time only" },
    { "save-minutes", NULL, OPT_FLOAT, T(save_minutes), .value = "X", .def = "5", .hi = 1e6, .help = "minutes between saves; 0: by steps only" },
    { "keep", "--save-total-limit", OPT_INT, T(keep), .value = "K", .hi = 1000,
      .help = "adapters of the last K saves by --save-every that stay, as FILE.step-N.gguf" },
    { "log", NULL, OPT_STR, T(log), .value = "FILE", .help = "every step, as JSON lines, or CSV if it ends in .csv" },
    { "plot", NULL, OPT_STR, T(plot), .value = "FILE", .help = "the losses as a picture (SVG)" },
    { "sample", NULL, OPT_LIST, T(sample), T(n_sample), 8, .value = "TEXT", .help = "ask the model this before and while it learns, repeatable" },
    { "sample-every", NULL, OPT_INT, T(sample_every), .value = "N", .def = "20", .hi = 1e9, .help = "steps between such questions" },
    { "sample-tokens", NULL, OPT_INT, T(sample_tokens), .value = "N", .def = "48", .lo = 1, .hi = 4096, .help = "tokens of an answer at most" });
OPT_GROUP(machine_group, "Model, CPU",
    { "threads", "-t", OPT_INT, OPT_AT(threads), .value = "N", .hi = 512, .help = "threads; 0: one per physical core within the cgroup limit" },
    { "precise", NULL, OPT_FLAG, OPT_AT(precise), .help = "15-bit activations forward, F32 backward: slower, for comparisons" },
    { "isa", NULL, OPT_STR, OPT_AT(isa), .value = "LEVEL", .help = "strongest instruction set to use; default: all" },
    { "no-mmap", NULL, OPT_FLAG, OPT_AT(no_mmap), .help = "read the file into memory instead of mapping it" },
    { "check", "--check-tensors", OPT_FLAG, OPT_AT(check), .help = "scan all weights for NaN and infinities first" },
    ROW_PRE);

static const struct opt_group *const groups[] = { &data_group, &adapter_group, &run_group, &watch_group, &machine_group, &opts_common, NULL };

const struct command command_train = {
    .name = "train",
    .brief = "fine-tune: LoRA adapters on a model of any format, or all weights of a small one",
    .usage = "cuanto train MODEL DATA... -o FILE [options]",
    .examples = "cuanto train models/m.gguf style.jsonl --preview 3\n"
                "cuanto train models/m.gguf style.jsonl -o style.gguf --plot loss.svg\n"
                "cuanto train models/m.gguf pairs.jsonl --dpo -o better.gguf --resume",
    .groups = groups,
    .min_args = 2,
    .max_args = -1,
    .run = run,
};

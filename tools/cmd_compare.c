/* compare - how far models are from a reference on a text, in one process and in lock-step: for a span of positions the reference runs and its logits
 * are kept, then every candidate runs the same tokens and each of its rows is scored against them on the pool's threads. No logits file is
 * needed. Rows go to slots and are summed in order: the number of threads changes nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"
#include "tools/compare_report.h"
#include "tools/opt.h"
#include "tools/ppl.h"
#include "tools/report.h"
#include "tools/windows.h"

enum { MODELS_MAX = 16, KEEP_BYTES = 256 << 20, QUICK_CHUNKS = 32 };

struct side {
    struct cli c;                /* the command line with this model */
    struct runtime r;
    struct reader reader;
    struct model_info info;
    struct kld_token *token;     /* [n_chunks * n_scored], candidates */
    double seconds;
    struct compared figures;
};

struct job {
    const struct cli *c;
    struct side ref, model[MODELS_MAX]; /* ref: not opened when its logits come from a file */
    int n_models, n_seq;
    struct gate gate[16];
    struct kld_file file;
    bool from_file;
    struct windows w;
    int64_t n_vocab, n_rows;     /* rows of the reference kept at once, over all chunks of a span */
    struct kld_ref *row;         /* [n_rows] */
    float *logits;               /* [n_rows][n_vocab] */
    double *nll_ref;             /* [n_chunks * n_scored] */
    uint16_t *codes;             /* [n_rows][row_words] when logits are saved */
    size_t row_words, logits_bytes;
    struct file_out out;
    struct span span;
    int64_t i0, per_chunk;       /* first scored row of the span and their number, per chunk */
    int64_t bad_row;             /* row of the file that is no distribution, -1 = none */
    double seconds;
};

static int64_t slot_of(const struct job *j, int64_t chunk, int64_t i) { return (chunk - j->span.chunk) * j->per_chunk + i - j->i0; }

/* ---- scoring: pool threads ---- */

static void keep_row(void *ctx, int64_t chunk, int64_t i, int32_t target, const float *logits)
{
    struct job *j = ctx;
    const struct kernels *k = engine_kernels(j->ref.r.engine);
    int64_t slot = slot_of(j, chunk, i);
    struct kld_ref *row = &j->row[slot];
    memcpy(row->logits, logits, (size_t)j->n_vocab * sizeof *logits);
    kld_ref_logits(k, row, j->n_vocab, target);
    j->nll_ref[chunk * j->w.n_scored + i] = row->nll;
    if (j->codes) kld_row(k, logits, j->n_vocab, j->codes + (size_t)slot * j->row_words);
}

struct scoring { struct job *j; struct side *s; };

static void score_row(void *ctx, int64_t chunk, int64_t i, int32_t target, const float *logits)
{
    const struct scoring *x = ctx;
    const struct job *j = x->j;
    kld_token(engine_kernels(x->s->r.engine), &j->row[slot_of(j, chunk, i)], logits, j->n_vocab, target, &x->s->token[chunk * j->w.n_scored + i]);
}

static void decode_rows(void *ctx, int ith, int nth)
{
    struct job *j = ctx;
    const struct kernels *k = engine_kernels(j->model[0].r.engine);
    for (int64_t s = ith; s < j->span.n * j->per_chunk; s += nth) {
        int64_t chunk = j->span.chunk + s / j->per_chunk, i = j->i0 + s % j->per_chunk, at = chunk * j->w.n_scored + i;
        int32_t target = j->w.tokens[chunk * j->w.n_ctx + j->w.first + i + 1];
        if (!kld_ref_codes(k, &j->row[s], j->file.rows + (size_t)at * j->row_words, j->n_vocab, target)) j->row[s].mass = NAN;
        j->nll_ref[at] = j->row[s].nll;
    }
}

/* ---- one span ---- */

static status read_side(struct side *s, const struct span *span, score_fn fn, void *ctx, struct err *e)
{
    double start = now_seconds();
    status st = reader_run(&s->reader, span, fn, ctx, e);
    s->seconds += now_seconds() - start;
    return st;
}

static status run_reference(struct job *j, struct err *e)
{
    int64_t n = j->span.n * j->per_chunk;
    if (!j->from_file) {
        TRY(read_side(&j->ref, &j->span, keep_row, j, e));
        return j->codes && n > 0 ? file_write(&j->out, j->codes, (size_t)n * j->row_words * sizeof *j->codes, e) : OK;
    }
    pool_run(engine_pool(j->model[0].r.engine), decode_rows, j);
    for (int64_t s = 0; s < n; s++)
        if (isnan(j->row[s].mass))
            return err_set(e, ERR_FORMAT, "%s: row %lld is no distribution: its probabilities do not add up to 1", j->c->base_logits,
                           (long long)(j->span.chunk * j->w.n_scored + j->i0 + s));
    return OK;
}

static status check_side(const struct job *j, const struct side *s, struct err *e)
{
    for (int n = 0; n < j->span.n; n++)
        for (int64_t i = j->i0; i < j->i0 + j->per_chunk; i++) {
            int64_t chunk = j->span.chunk + n, at = chunk * j->w.n_scored + i;
            double v = s ? s->token[at].nll + s->token[at].kld : j->nll_ref[at];
            if (!isfinite(v))
                return err_set(e, ERR_RUNTIME, "%s: chunk %lld, position %lld: log-likelihood is %g, the weights may be damaged (try --check)",
                               s ? s->c.model : j->ref.figures.path, (long long)chunk, (long long)(j->w.first + i + 1), v);
        }
    return OK;
}

static status run_span(struct job *j, struct bar *bar, int64_t *done, struct err *e)
{
    TRY(run_reference(j, e));
    TRY(check_side(j, NULL, e));
    for (int m = 0; m < j->n_models; m++) {
        struct scoring x = { j, &j->model[m] };
        TRY(read_side(&j->model[m], &j->span, score_row, &x, e));
        TRY(check_side(j, &j->model[m], e));
        *done += (j->span.to - j->span.from) * j->span.n;
        bar_update(bar, *done, NULL);
    }
    return OK;
}

static status run_all(struct job *j, struct err *e)
{
    struct bar bar;
    status st = OK;
    int64_t n_feed = j->w.n_ctx - 1, done = 0, rows = j->n_rows / j->n_seq;
    double start = now_seconds();
    bar_begin(&bar, j->c, "compare", "tok", j->w.n_chunks * n_feed * j->n_models);
    bar_update(&bar, 0, NULL);
    for (int64_t chunk = 0; chunk < j->w.n_chunks && st == OK; chunk += j->n_seq)
        for (int64_t from = 0; from < n_feed && st == OK; from = j->span.to) {
            int64_t to = min_i64(n_feed, max_i64(from, j->w.first) + rows);
            j->span = (struct span){ chunk, from, to, (int)min_i64(j->n_seq, j->w.n_chunks - chunk) };
            j->i0 = max_i64(0, from - j->w.first);
            j->per_chunk = to - j->w.first - j->i0;
            st = run_span(j, &bar, &done, e);
        }
    j->seconds = now_seconds() - start;
    bar_end(&bar);
    return st;
}

/* ---- set-up ---- */

static status open_side(struct job *j, struct side *s, const char *model, int64_t n_ctx, struct err *e)
{
    s->c = *j->c;
    s->c.model = model;
    s->c.ctx = n_ctx;
    if (s == &j->ref) s->c.n_lora = 0; /* adapters are what is compared with it */
    TRY(runtime_open(&s->r, &s->c, n_ctx, e));
    model_info(s->r.model, &s->info);
    s->figures.path = model;
    s->figures.type = format_name(model_gguf(s->r.model), s->info.type);
    s->figures.bytes = (double)s->info.file_bytes;
    s->figures.bpw = s->info.bpw;
    return OK;
}

static bool same_text(struct str a, struct str b) { return a.n == b.n && (a.n == 0 || !memcmp(a.p, b.p, a.n)); }

/* Same numbers must mean the same tokens. Sizes that differ end the run; contents that differ are told. */
static status check_vocabulary(const struct job *j, const struct side *s, struct err *e)
{
    if (s->info.n_vocab != j->n_vocab)
        return err_set(e, ERR_USAGE, "%s: vocabulary has %lld tokens, the reference %s has %lld: nothing to compare", s->c.model, (long long)s->info.n_vocab,
                       j->ref.figures.path, (long long)j->n_vocab);
    if (j->from_file || j->c->quiet) return OK;
    const struct tokenizer *a = model_tokenizer(j->ref.r.model), *b = model_tokenizer(s->r.model);
    int64_t n = min_i64(tokenizer_size(a), tokenizer_size(b)), differ = tokenizer_size(a) != tokenizer_size(b), at = n;
    for (int64_t i = n - 1; i >= 0; i--)
        if (!same_text(tokenizer_text(a, (int32_t)i), tokenizer_text(b, (int32_t)i))) differ++, at = i;
    if (differ)
        fprintf(stderr, "warning: %s: %lld tokens of its vocabulary are not those of the reference, the first is id %lld; compared by id\n", s->c.model,
                (long long)differ, (long long)at);
    if (tokenizer_adds_bos(a) != tokenizer_adds_bos(b))
        fprintf(stderr, "warning: %s: its file says %s BOS, the reference the opposite; the reference decides\n", s->c.model,
                tokenizer_adds_bos(b) ? "begin with" : "no");
    return OK;
}

/* The text as the candidate itself would cut it: when that differs, it is judged on tokens it would not see in use. */
static status check_tokens(const struct job *j, const struct side *s, const char *text, size_t n, struct err *e)
{
    int32_t *ids;
    int64_t n_ids, i = 0;
    if (j->c->quiet) return OK;
    TRY(windows_encode(model_tokenizer(s->r.model), text, n, &ids, &n_ids, e));
    while (i < n_ids && i < j->w.n_tokens && ids[i] == j->w.tokens[i]) i++;
    if (i < n_ids || i < j->w.n_tokens)
        fprintf(stderr, "warning: %s: its tokenizer cuts the text differently from token %lld on; it reads the reference's tokens\n", s->c.model, (long long)i);
    mem_free(ids);
    return OK;
}

static int64_t chunks_wanted(const struct cli *c) { return c->chunks > 0 ? c->chunks : c->quick ? QUICK_CHUNKS : 0; }

static void make_name(struct compared *f)
{
    const char *slash = strrchr(f->path, '/'), *name = slash && slash[1] ? slash + 1 : f->path;
    size_t n = strlen(name);
    if (n > 5 && !strcmp(name + n - 5, ".gguf")) n -= 5;
    snprintf(f->name, sizeof f->name, "%.*s", (int)(n < sizeof f->name - 1 ? n : sizeof f->name - 1), name);
}

static status open_reference(struct job *j, const char *model, const char *text, size_t n, struct err *e)
{
    int64_t n_ctx = j->c->ctx > 0 ? j->c->ctx : WINDOWS_CTX;
    TRY(open_side(j, &j->ref, model, n_ctx, e));
    j->n_vocab = j->ref.info.n_vocab;
    return windows_open(&j->w, model_tokenizer(j->ref.r.model), text, n, n_ctx, chunks_wanted(j->c), e);
}

/* The file's own context and tokens; BOS is put in as the first candidate's file says, as llama-perplexity does. */
static status use_file(struct job *j, struct err *e)
{
    int64_t max = chunks_wanted(j->c);
    size_t bytes = (size_t)(j->file.n_chunks * j->file.n_ctx) * sizeof(int32_t);
    j->n_vocab = j->file.n_vocab;
    j->row_words = j->file.row_words;
    j->w = (struct windows){ .n_ctx = j->file.n_ctx, .n_chunks = max > 0 ? min_i64(max, j->file.n_chunks) : j->file.n_chunks, .bos = -1,
                             .first = ppl_first(j->file.n_ctx), .n_scored = ppl_scored(j->file.n_ctx), .n_tokens = j->file.n_chunks * j->file.n_ctx };
    j->w.tokens = mem_alloc(bytes);
    if (!j->w.tokens) return err_oom(e, "tokens", bytes);
    memcpy(j->w.tokens, j->file.tokens, bytes);
    j->ref.figures = (struct compared){ .path = j->c->base_logits, .type = "logits", .bytes = NAN, .bpw = NAN, .speed = NAN };
    return OK;
}

static status open_models(struct job *j, const char *text, size_t n, struct err *e)
{
    const char *name[MODELS_MAX + 1] = { j->c->model };
    int n_models = j->c->n_args + j->from_file, at = 0;
    if (n_models > MODELS_MAX) return err_set(e, ERR_USAGE, "%d models to compare, at most %d", n_models, MODELS_MAX);
    if (n_models < 1) return err_set(e, ERR_USAGE, "nothing to compare with %s: cuanto compare REF MODEL...", name[0]);
    for (int i = 0; i < j->c->n_args; i++) name[i + 1] = j->c->args[i];
    j->n_models = n_models;
    if (j->from_file) TRY(use_file(j, e));
    else TRY(open_reference(j, name[at++], text, n, e));
    for (int m = 0; m < j->n_models; m++) {
        TRY(open_side(j, &j->model[m], name[at++], j->w.n_ctx, e));
        TRY(check_vocabulary(j, &j->model[m], e));
        if (!j->from_file) TRY(check_tokens(j, &j->model[m], text, n, e));
    }
    const struct tokenizer *t = model_tokenizer(j->model[0].r.model);
    if (j->from_file && tokenizer_adds_bos(t)) j->w.bos = tokenizer_bos(t);
    return OK;
}

/* Memory of the reference's rows is bounded: as many whole chunks as passes and KEEP_BYTES take, or else a part of one chunk at a time. */
static status allocate(struct job *j, struct err *e)
{
    size_t row_bytes = (size_t)j->n_vocab * sizeof(float), bytes;
    int64_t keep = max_i64(1, (int64_t)(KEEP_BYTES / row_bytes)), n_all = j->w.n_chunks * j->w.n_scored;
    j->n_seq = (int)max_i64(1, min_i64(WINDOWS_SEQS, keep / j->w.n_scored));
    if (!j->from_file) j->n_seq = (int)min_i64(j->n_seq, reader_seqs(j->ref.r.engine, &j->w));
    for (int m = 0; m < j->n_models; m++) j->n_seq = (int)min_i64(j->n_seq, reader_seqs(j->model[m].r.engine, &j->w));
    j->n_rows = j->n_seq * min_i64(j->w.n_scored, keep);
    if (!mul_size(row_bytes, (size_t)j->n_rows, &bytes)) return err_oom(e, "logits of the reference", SIZE_MAX);
    j->logits_bytes = bytes;
    j->logits = mem_alloc(bytes);
    j->row = mem_calloc((size_t)j->n_rows, sizeof *j->row);
    j->nll_ref = mem_calloc((size_t)n_all, sizeof *j->nll_ref);
    if (!j->logits || !j->row || !j->nll_ref) return err_oom(e, "logits of the reference", bytes);
    for (int64_t i = 0; i < j->n_rows; i++) j->row[i].logits = j->logits + i * j->n_vocab;
    for (int m = 0; m < j->n_models; m++) {
        j->model[m].token = mem_calloc((size_t)n_all, sizeof *j->model[m].token);
        if (!j->model[m].token) return err_oom(e, "scores", (size_t)n_all * sizeof *j->model[m].token);
    }
    if (!j->c->save_logits) return OK;
    j->row_words = kld_row_words(j->n_vocab);
    j->codes = mem_alloc((size_t)j->n_rows * j->row_words * sizeof *j->codes);
    if (!j->codes) return err_oom(e, "rows of logits", (size_t)j->n_rows * j->row_words * sizeof *j->codes);
    TRY(file_create(&j->out, j->c->save_logits, e));
    return kld_write_head(&j->out, j->w.n_ctx, j->n_vocab, j->w.n_chunks, j->w.tokens, e);
}

static status open_readers(struct job *j, struct err *e)
{
    size_t bytes = j->logits_bytes;
    if (!j->from_file) {
        TRY(reader_open(&j->ref.reader, &j->ref.r, &j->ref.c, &j->w, j->n_seq, e));
        bytes += engine_bytes(j->ref.r.engine) + (size_t)j->n_seq * session_bytes(j->ref.r.session);
    }
    for (int m = 0; m < j->n_models; m++) {
        struct side *s = &j->model[m];
        TRY(reader_open(&s->reader, &s->r, &s->c, &j->w, j->n_seq, e));
        bytes += engine_bytes(s->r.engine) + (size_t)j->n_seq * session_bytes(s->r.session);
        bytes += (size_t)(j->w.n_chunks * j->w.n_scored) * sizeof *s->token;
    }
    char kept[32], all[32];
    if (!j->c->quiet)
        fprintf(stderr, "%lld %s of %lld, %d at once | logits of the reference %s, memory besides weights %s\n", (long long)j->w.n_chunks,
                j->w.n_chunks == 1 ? "chunk" : "chunks", (long long)j->w.n_ctx, j->n_seq, size_text(j->logits_bytes, kept), size_text(bytes, all));
    return OK;
}

/* Hours of work must not end at a read-only folder, nor in place of a model. */
static status check_outputs(const struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    const char *other[MODELS_MAX + 4] = { c->model, c->base_logits, c->n_file ? c->file[0] : NULL };
    int n = 3;
    for (int i = 0; i < c->n_args && n < ARRAY_LEN(other) - 1; i++) other[n++] = c->args[i];
    TRY(output_check("--save-logits", c->save_logits, other, n, e));
    other[n++] = c->save_logits;
    return output_check("-o", c->output, other, n, e);
}

static status prepare(struct job *j, struct err *e)
{
    char *text = NULL;
    size_t n = 0;
    for (int i = 0; i < j->c->n_fail_if; i++) TRY(gate_parse(&j->gate[i], j->c->fail_if[i], e));
    TRY(check_outputs(j, e));
    j->from_file = j->c->base_logits != NULL;
    if (j->from_file && j->c->n_file) return err_set(e, ERR_USAGE, "-f %s: the logits file %s holds its own tokens", j->c->file[0], j->c->base_logits);
    if (j->from_file && j->c->save_logits) return err_set(e, ERR_USAGE, "--save-logits: the reference is not run when --base-logits is given");
    if (j->from_file) TRY(kld_file_open(&j->file, j->c->base_logits, e));
    else TRY(windows_text(j->c, &text, &n, e));
    status st = open_models(j, text, n, e);
    mem_free(text);
    if (st == OK) st = allocate(j, e);
    if (st == OK) st = open_readers(j, e);
    return st;
}

static void close_side(struct side *s)
{
    reader_close(&s->reader);
    mem_free(s->token);
    runtime_close(&s->r);
}

static void release(struct job *j)
{
    close_side(&j->ref);
    for (int m = 0; m < j->n_models; m++) close_side(&j->model[m]);
    file_abort(&j->out);
    windows_close(&j->w);
    kld_file_close(&j->file);
    mem_free(j->row);
    mem_free(j->logits);
    mem_free(j->nll_ref);
    mem_free(j->codes);
}

/* ---- result ---- */

static void fill_bins(struct compared *f, const struct kld_token *t, int64_t n_chunks, int64_t n_scored, int n_bins)
{
    for (int b = 0; b < n_bins; b++) {
        int64_t from = n_scored * b / n_bins, to = n_scored * (b + 1) / n_bins;
        double sum = 0;
        for (int64_t c = 0; c < n_chunks; c++)
            for (int64_t i = from; i < to; i++) sum += t[c * n_scored + i].kld;
        f->kld_bin[b] = sum / (double)((to - from) * n_chunks);
    }
}

static status summarise(struct job *j, struct comparison *r, struct compared *models, struct err *e)
{
    int64_t n = j->w.n_chunks * j->w.n_scored, fed = j->w.n_chunks * j->w.n_ctx;
    int n_bins = (int)min_i64(COMPARE_BINS, j->w.n_scored);
    for (int m = 0; m < j->n_models; m++) {
        struct side *s = &j->model[m];
        make_name(&s->figures);
        TRY(kld_summary(s->token, j->nll_ref, n, j->w.n_scored, &s->figures.s, e));
        fill_bins(&s->figures, s->token, j->w.n_chunks, j->w.n_scored, n_bins);
        s->figures.speed = (double)fed / s->seconds;
        models[m] = s->figures;
    }
    make_name(&j->ref.figures);
    j->ref.figures.s = (struct kld_stats){ .n = n, .ppl = models[0].s.ppl_ref, .top1.value = 1, .ratio.value = 1, .cor = 1 };
    if (!j->from_file) j->ref.figures.speed = (double)fed / j->ref.seconds;
    struct engine *en = j->model[0].r.engine;
    *r = (struct comparison){ .ref = &j->ref.figures, .model = models, .n_models = j->n_models, .n_ctx = j->w.n_ctx, .n_chunks = j->w.n_chunks,
                              .n_tokens = n, .n_vocab = j->n_vocab, .n_bins = n_bins, .text = j->from_file ? j->c->base_logits : j->c->file[0],
                              .isa = engine_kernels(en)->name, .threads = pool_threads(engine_pool(en)), .precise = j->c->precise, .bos = j->w.bos >= 0,
                              .seconds = j->seconds };
    return OK;
}

/* With -o the file gets the format asked for and stdout the text. */
static status print_result(const struct job *j, const struct comparison *r, struct err *e)
{
    struct buffer b = { 0 };
    enum compare_format f = compare_format(j->c->json ? "json" : j->c->format, j->c->output);
    status st = compare_report(r, f, &b) ? OK : err_oom(e, "report", b.n);
    if (st == OK && j->c->output) {
        st = buffer_save(&b, j->c->output, e);
        b.n = 0;
        if (st == OK && !compare_report(r, COMPARE_TEXT, &b)) st = err_oom(e, "report", b.n);
    }
    if (st == OK) out_write(b.p, b.n);
    buffer_free(&b);
    return st;
}

/* Every condition is told for every model; quiet: those that hold. */
static status check_gates(const struct job *j, const struct comparison *r)
{
    status st = OK;
    out_flush();
    for (int m = 0; m < r->n_models; m++)
        for (int i = 0; i < j->c->n_fail_if; i++) {
            const struct gate *g = &j->gate[i];
            const char *sign = g->less ? g->equal ? "<=" : "<" : g->equal ? ">=" : ">";
            double v = metric_value(g->metric, &r->model[m]);
            bool fails = gate_fails(g, &r->model[m]);
            if (fails) st = ERR_GATE;
            if (fails && isnan(v)) fprintf(stderr, "gate: %s: %s is not known, limit %s %.6g: failed\n", r->model[m].path, g->metric->name, sign, g->limit);
            else if (fails) fprintf(stderr, "gate: %s: %s %.6g %s %.6g: failed\n", r->model[m].path, g->metric->name, v, sign, g->limit);
            else if (!j->c->quiet) fprintf(stderr, "gate: %s: %s %.6g, not %s %.6g: passed\n", r->model[m].path, g->metric->name, v, sign, g->limit);
        }
    return st;
}

static int run(struct cli *c)
{
    struct job *j = mem_calloc(1, sizeof *j);
    struct compared models[MODELS_MAX];
    struct comparison r;
    struct err e = { 0 };
    if (!j) return cli_fail(&(struct err){ .code = ERR_MEMORY, .text = "out of memory" }, NULL);
    j->c = c;
    j->out.fd = -1;
    cli_signals_at_once(!c->save_logits);
    status st = prepare(j, &e), gates = OK;
    if (st == OK) st = run_all(j, &e);
    if (st == OK && c->save_logits) st = file_commit(&j->out, &e);
    if (st == OK) st = summarise(j, &r, models, &e);
    if (st == OK) st = print_result(j, &r, &e);
    if (st == OK) gates = check_gates(j, &r);
    release(j);
    mem_free(j);
    if (st != OK) return cli_fail(&e, NULL);
    return gates != OK ? (int)gates : out_status();
}

OPT_GROUP(compare_group, "Compare",
    { "precise", NULL, OPT_FLAG, OPT_AT(precise), .def = "on",
      .help = "15-bit activations: measures the files, not the rounding of the engine; --no-precise: as run and chat compute prompts" },
    { "file", "-f", OPT_LIST, OPT_AT(file), OPT_AT(n_file), 1, .value = "FILE", .help = "the text (- is stdin)" },
    { "ctx", "-c --ctx-size", OPT_INT, OPT_AT(ctx), .value = "N", .def = "512", .lo = PPL_CTX_MIN, .hi = 16777216,
      .help = "tokens in one chunk (with --base-logits: that of the file)" },
    { "chunks", NULL, OPT_INT, OPT_AT(chunks), .value = "N", .lo = -1, .hi = 1e12, .help = "score at most N chunks; 0: all" },
    { "quick", NULL, OPT_FLAG, OPT_AT(quick), .help = "32 chunks: KL settles long before perplexity does, and the errors are shown" },
    { "fail-if", NULL, OPT_LIST, OPT_AT(fail_if), OPT_AT(n_fail_if), 16, .value = "COND",
      .help = "exit code 6 when it holds for a model: 'kld>0.05', 'top1<98', 'size>4G'; repeatable" },
    { "format", NULL, OPT_STR, OPT_AT(format), .value = "FORMAT", .choices = "text|md|csv|json|html", .help = "of the report; text, or by the name of -o" },
    { "output", "-o", OPT_STR, OPT_AT(output), .value = "FILE", .help = "the report goes there, stdout gets the text" },
    { "base-logits", NULL, OPT_STR, OPT_AT(base_logits), .value = "FILE", .help = "a logits file of llama-perplexity or --save-logits in place of REF" },
    { "save-logits", "--kl-divergence-base", OPT_STR, OPT_AT(save_logits), .value = "FILE",
      .help = "also write the reference's logits in llama-perplexity's format" });

static const struct opt_group *const groups[] = { &compare_group, &opts_model, &opts_cpu, &opts_common, NULL };

const struct command command_compare = {
    .name = "compare",
    .brief = "how far models are from a reference: KL divergence, perplexity, size, speed",
    .usage = "cuanto compare REF MODEL... -f TEXT [options]",
    .examples = "cuanto compare f16.gguf q8_0.gguf q4_k_m.gguf -f wiki.test.raw --quick\n"
                "cuanto compare f16.gguf q4_k_m.gguf -f wiki.test.raw -o report.html --fail-if 'kld>0.05'\n"
                "cuanto compare --base-logits f16.kld q4_k_m.gguf",
    .groups = groups,
    .min_args = 1,
    .max_args = -1,
    .run = run,
};

/* importance - runs a model over a text and writes how strongly each column of each weight matrix is driven: an importance matrix for
 * `cuanto quantize --imatrix`, in llama-imatrix's forms and by its windows. The engine hands the inputs over (engine_options.observe); all
 * threads add them up, columns divided among them, so that the file is the same for every number of threads and batch size.
 * Interrupted, it keeps what there is beside the output, never in its place. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"
#include "quant/importance.h"
#include "tools/dataset.h"
#include "tools/opt.h"
#include "tools/ppl.h"
#include "tools/report.h"
#include "tools/windows.h"

enum { COLUMN_GRAIN = 16, SAVE_SECONDS = 600, PPL_SUSPICIOUS = 2000 };

struct job {
    const struct cli *c;
    struct runtime r;
    struct importance im;
    const char *head;            /* name of the head's weight when it is wanted too, else NULL */
    int64_t n_ctx, n_vocab, n_chunks, first, n_scored; /* scored: per chunk */
    int32_t *tokens;
    int64_t n_tokens, done;      /* done: chunks */
    int32_t bos;                 /* put at the start of each chunk, -1 = the chunk keeps its own */
    struct session *session[WINDOWS_SEQS];
    int n_seq;                   /* chunks in one pass */
    int32_t *window;             /* [n_seq][n_ctx] */
    double *nll;                 /* [n_seq][n_scored] */
    int64_t at;                  /* position of row 0 of the pass in its chunk */
    struct ppl_sum sum;
    double seconds;
    char partial[4096];          /* where an unfinished result goes */
    bool saved_partial;
};

/* ---- collecting ---- */

/* All threads of the pool; the entries exist already, thread 0 counts. */
static void observe(void *ctx, const struct shown *s, int ith, int nth)
{
    const struct job *j = ctx;
    const char *name = s->w->name;
    const struct importance_entry *en = importance_find(&j->im, name);
    if (!en || en->n_cols != s->k || s->mat >= en->n_mat) return;
    if (strncmp(name, "blk.", 4) != 0 && (!j->head || strcmp(name, j->head) != 0)) return; /* of a merged file */
    int64_t begin, end;
    pool_range(s->k, COLUMN_GRAIN, ith, nth, &begin, &end);
    bool dense = !s->at && s->stride == s->k;
    if (dense) importance_columns(en, s->mat, s->x, s->n, begin, end);
    for (int64_t i = 0; !dense && i < s->n; i++) importance_columns(en, s->mat, shown_x(s, i), 1, begin, end);
    if (ith == 0) en->count[s->mat] += s->n;
}

/* An entry for every matrix of the layers, and for the head if asked; those that no matmul reads stay at 0 and are not saved. */
static status make_entries(struct job *j, struct err *e)
{
    const struct gguf *g = model_gguf(j->r.model);
    const struct importance_entry *en;
    if (j->c->process_output) j->head = gguf_tensor(g, "output.weight") ? "output.weight" : "token_embd.weight";
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const struct tensor *t = &g->tensor[i];
        bool head = j->head && !strcmp(t->name, j->head);
        if ((head || !strncmp(t->name, "blk.", 4)) && t->ne[1] > 1 && t->ne[3] == 1)
            TRY(importance_entry(&j->im, t->name, t->ne[2], t->ne[0], &en, e));
    }
    return OK;
}

/* Pool threads: rows of one pass at once, each its own slot. */
static void score_row(void *ctx, int seg, int64_t row, const float *logits)
{
    struct job *j = ctx;
    int64_t pos = j->at + row, i = pos - j->first;
    if (i >= 0 && i < j->n_scored)
        j->nll[seg * j->n_scored + i] = ppl_nll(engine_kernels(j->r.engine), logits, j->n_vocab, j->window[seg * j->n_ctx + pos + 1]);
}

/* Feeds chunks chunk .. chunk + n - 1 whole, one per session. Logits: those that are scored; all where the head is observed; or none. */
static status run_chunks(struct job *j, int64_t chunk, int n, struct err *e)
{
    int64_t n_batch = engine_n_batch(j->r.engine), want = j->head ? 0 : j->c->no_ppl ? j->n_ctx : j->first;
    for (int s = 0; s < n; s++) {
        int32_t *w = j->window + s * j->n_ctx;
        memcpy(w, j->tokens + (chunk + s) * j->n_ctx, (size_t)j->n_ctx * sizeof *w);
        if (j->bos >= 0) w[0] = j->bos;
        TRY(session_truncate(j->session[s], 0, e));
    }
    for (j->at = 0; j->at < j->n_ctx;) {
        struct segment seg[WINDOWS_SEQS];
        int64_t rows = n > 1 ? j->n_ctx : min_i64(n_batch, j->n_ctx - j->at);
        for (int s = 0; s < n; s++)
            seg[s] = (struct segment){ j->session[s], j->window + s * j->n_ctx + j->at, rows, max_i64(0, min_i64(rows, want - j->at)) };
        TRY(engine_forward(j->r.engine, seg, n, j->c->no_ppl ? NULL : score_row, j, e));
        j->at += rows;
    }
    return OK;
}

static status take_scores(struct job *j, int64_t chunk, int n, struct err *e)
{
    for (int64_t i = 0; !j->c->no_ppl && i < n * j->n_scored; i++) {
        if (!isfinite(j->nll[i]))
            return err_set(e, ERR_RUNTIME, "chunk %lld, position %lld: log-likelihood is %g, the weights may be damaged (try --check)",
                           (long long)(chunk + i / j->n_scored), (long long)(j->first + i % j->n_scored + 1), j->nll[i]);
        ppl_add(&j->sum, j->nll[i]);
    }
    j->done += n;
    return OK;
}

static status save_partial(struct job *j, struct err *e)
{
    j->im.n_chunks = importance_tokens(&j->im) / j->im.chunk_size;
    TRY(importance_save(&j->im, j->partial, j->c->legacy, e));
    j->saved_partial = true;
    return OK;
}

static status run_all(struct job *j, struct err *e)
{
    struct bar bar;
    status st = OK;
    double start = now_seconds(), saved = start;
    bar_begin(&bar, j->c, "importance", "tok", j->n_chunks * j->n_ctx);
    bar_update(&bar, 0, NULL);
    for (int64_t i = 0; st == OK && i < j->n_chunks && !cli_interrupted; i += j->n_seq) {
        char text[64] = "";
        int n = (int)min_i64(j->n_seq, j->n_chunks - i);
        st = run_chunks(j, i, n, e);
        if (st == OK) st = take_scores(j, i, n, e);
        if (st == OK && now_seconds() - saved > SAVE_SECONDS) st = save_partial(j, e), saved = now_seconds();
        if (st == OK && j->sum.n > 0) snprintf(text, sizeof text, "PPL %.4f +/- %.4f", ppl_value(&j->sum), ppl_error(&j->sum));
        if (st == OK) bar_update(&bar, (i + n) * j->n_ctx, text);
    }
    j->seconds = now_seconds() - start;
    bar_end(&bar);
    return st;
}

/* ---- set-up ---- */

static status tokenize(struct job *j, struct err *e)
{
    struct dataset d;
    TRY(dataset_read(&d, j->c->file[0], model_tokenizer(j->r.model), model_template(j->r.model), NULL, e));
    j->tokens = d.ids, j->n_tokens = d.n_ids; /* ours now */
    return OK;
}

static status choose_chunks(struct job *j, struct err *e)
{
    int64_t skip = j->c->from_chunk;
    TRY(ppl_chunks(j->n_tokens, j->n_ctx, 0, &j->n_chunks, e));
    if (skip >= j->n_chunks)
        return err_set(e, ERR_USAGE, "--from-chunk is %lld, the text has %lld chunks", (long long)skip, (long long)j->n_chunks);
    j->n_tokens -= skip * j->n_ctx;
    memmove(j->tokens, j->tokens + skip * j->n_ctx, (size_t)j->n_tokens * sizeof *j->tokens);
    j->n_chunks -= skip;
    if (j->c->chunks > 0) j->n_chunks = min_i64(j->n_chunks, j->c->chunks);
    return OK;
}

static status open_sessions(struct job *j, struct err *e)
{
    j->n_seq = (int)min_i64(max_i64(1, engine_n_batch(j->r.engine) / j->n_ctx), min_i64(WINDOWS_SEQS, j->n_chunks));
    j->session[0] = j->r.session;
    for (int i = 1; i < j->n_seq; i++) {
        const struct session_options o = session_choices(j->c, j->n_ctx);
        TRY(session_open(&j->session[i], j->r.engine, &o, e));
    }
    size_t n = (size_t)j->n_seq;
    j->window = mem_calloc(n * (size_t)j->n_ctx, sizeof *j->window);
    j->nll = mem_calloc(n * (size_t)j->n_scored, sizeof *j->nll);
    return j->window && j->nll ? OK : err_oom(e, "windows", n * (size_t)j->n_ctx * sizeof *j->nll);
}

static status prepare(struct job *j, struct err *e)
{
    struct cli c = *j->c;
    struct model_info info;
    c.ctx = j->n_ctx;
    c.observe = observe, c.observe_ctx = j;
    TRY(runtime_open(&j->r, &c, j->n_ctx, e));
    TRY(tokenize(j, e));
    TRY(choose_chunks(j, e));
    TRY(make_entries(j, e));
    model_info(j->r.model, &info);
    const struct tokenizer *t = model_tokenizer(j->r.model);
    j->n_vocab = info.n_vocab;
    j->bos = tokenizer_adds_bos(t) ? tokenizer_bos(t) : -1;
    j->first = ppl_first(j->n_ctx);
    j->n_scored = ppl_scored(j->n_ctx);
    return open_sessions(j, e);
}

/* One earlier file, if it is of this form. Without --ctx the first chunk size that a file states is kept. */
static status merge_file(struct job *j, const char *path, bool legacy, struct err *e)
{
    struct importance from;
    status st = OK;
    TRY(importance_open(&from, path, e));
    if (from.legacy == legacy) {
        if (j->im.chunk_size == 0) j->im.chunk_size = j->c->ctx > 0 ? j->c->ctx : from.chunk_size;
        st = importance_merge(&j->im, &from, j->im.chunk_size > 0 ? j->im.chunk_size : WINDOWS_CTX, e);
    }
    importance_close(&from);
    return st;
}

/* The sums of earlier files. GGUF first, in whatever order they are named: only these know chunk sizes and the matrices of stacks. */
static status merge_files(struct job *j, struct err *e)
{
    for (int i = 0; i < j->c->n_merge; i++) TRY(merge_file(j, j->c->merge[i], false, e));
    for (int i = 0; i < j->c->n_merge; i++) TRY(merge_file(j, j->c->merge[i], true, e));
    return OK;
}

static status check_words(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    const char *const input[] = { c->model, c->n_file ? c->file[0] : NULL };
    if (c->n_file > 1) return err_set(e, ERR_USAGE, "%d texts, expected one: -f FILE; more by --merge", c->n_file);
    if (c->n_file == 0 && c->n_merge == 0) return err_set(e, ERR_USAGE, "no text to run the model on: -f FILE");
    if (c->n_file == 1 && !c->model) return err_set(e, ERR_USAGE, "no model to run over %.100s", c->file[0]);
    if (!c->output) return err_set(e, ERR_USAGE, "no output file: -o FILE");
    if (snprintf(j->partial, sizeof j->partial, "%s.partial", c->output) >= (int)sizeof j->partial)
        return err_set(e, ERR_USAGE, "%.60s...: the path is too long", c->output);
    TRY(output_apart("-o: what an interrupted run keeps,", j->partial, input, ARRAY_LEN(input), e));
    return output_check("-o", c->output, input, ARRAY_LEN(input), e); /* hours of work must not end at a read-only folder */
}

static void release(struct job *j)
{
    for (int i = 1; i < j->n_seq; i++) session_close(j->session[i]);
    mem_free(j->tokens);
    mem_free(j->window);
    mem_free(j->nll);
    runtime_close(&j->r);
    importance_close(&j->im);
}

/* ---- result ---- */

static bool print_text(const struct job *j, int64_t n, int64_t tokens)
{
    const struct cli *c = j->c;
    out_printf("%s: %lld entries, %lld tokens%s\n", c->output, (long long)n, (long long)tokens, c->legacy ? ", older form" : "");
    if (j->done == 0) return true;
    out_printf("%lld %s of %lld tokens%s, %.1f tokens/s, %.1f s\n", (long long)j->done, j->done == 1 ? "chunk" : "chunks", (long long)j->n_ctx,
               j->bos >= 0 ? ", each chunk begins with BOS" : "", (double)(j->done * j->n_ctx) / j->seconds, j->seconds);
    return j->sum.n == 0 || out_printf("Final estimate: PPL = %.4f +/- %.5f\n", ppl_value(&j->sum), ppl_error(&j->sum));
}

static bool print_result(const struct job *j)
{
    int64_t n = 0, tokens = importance_tokens(&j->im);
    for (int64_t i = 0; i < j->im.n; i++) n += j->im.entry[i].count[0] > 0;
    const struct field f[] = {
        { "file", FIELD_STR, .str = j->c->output },
        { "n_entries", FIELD_INT, .i = n },
        { "n_tokens", FIELD_INT, .i = tokens },
        { "n_chunks", FIELD_INT, .i = j->done },
        { "n_ctx", FIELD_INT, .i = j->n_ctx },
        { "ppl", FIELD_REAL, .f = j->sum.n ? ppl_value(&j->sum) : NAN },
        { "ppl_error", FIELD_REAL, .f = j->sum.n ? ppl_error(&j->sum) : NAN },
        { "tokens_per_s", FIELD_REAL, .f = j->done ? (double)(j->done * j->n_ctx) / j->seconds : NAN },
        { "seconds", FIELD_REAL, .f = j->seconds },
    };
    enum report_format format = report_format(j->c, REPORT_TEXT);
    if (format == REPORT_TEXT) return print_text(j, n, tokens);
    struct json_out o;
    json_out_init(&o, format == REPORT_JSON);
    json_begin(&o, NULL, '{');
    report_json(&o, f, ARRAY_LEN(f));
    json_end(&o, '}');
    return report_out(&o);
}

static void print_notes(const struct job *j)
{
    if (j->c->quiet || j->sum.n == 0 || ppl_value(&j->sum) < PPL_SUSPICIOUS) return;
    fprintf(stderr, "warning: a perplexity of %.0f is near guessing: is this text of the kind that the model was trained on?\n", ppl_value(&j->sum));
}

/* What an interrupted run leaves: the chunks that were finished, under a name of their own. */
static status keep_partial(struct job *j, struct err *e)
{
    if (j->done > 0) {
        TRY(save_partial(j, e));
        fprintf(stderr, "interrupted after %lld of %lld chunks, kept in %s; the rest: --merge %s --from-chunk %lld\n", (long long)j->done,
                (long long)j->n_chunks, j->partial, j->partial, (long long)(j->c->from_chunk + j->done));
    }
    return err_set(e, ERR_INTERRUPTED, "interrupted");
}

static status collect(struct job *j, struct err *e)
{
    TRY(prepare(j, e));
    j->im.chunk_size = j->n_ctx;
    TRY(importance_dataset(&j->im, j->c->file[0], e));
    TRY(run_all(j, e));
    return cli_interrupted ? keep_partial(j, e) : OK;
}

static int run(struct cli *c)
{
    struct job j = { .c = c, .n_ctx = c->ctx > 0 ? c->ctx : WINDOWS_CTX };
    struct err e = { 0 };
    importance_init(&j.im);
    status st = check_words(&j, &e);
    if (st == OK) st = merge_files(&j, &e);
    if (st == OK && c->n_file) st = collect(&j, &e);
    if (st == OK && j.im.chunk_size > 0) j.im.n_chunks = importance_tokens(&j.im) / j.im.chunk_size;
    if (st == OK) st = importance_save(&j.im, c->output, c->legacy, &e);
    if (st == OK && j.saved_partial) unlink(j.partial);
    if (st == OK) print_notes(&j);
    if (st == OK && !print_result(&j) && out_status() == 0) st = err_oom(&e, "report", 0);
    release(&j);
    return st == OK ? out_status() : cli_fail(&e, NULL);
}

OPT_GROUP(importance_group, "Importance",
    { "file", "-f", OPT_LIST, OPT_AT(file), OPT_AT(n_file), 1, .value = "FILE",
      .help = "the text (- is stdin), or JSON lines as for quantize --calibration; the word default: cuanto's own text" },
    { "output", "-o", OPT_STR, OPT_AT(output), .value = "FILE", .help = "the file to write" },
    { "ctx", "-c --ctx-size", OPT_INT, OPT_AT(ctx), .value = "N", .lo = PPL_CTX_MIN, .hi = 16777216, .help = "tokens in one chunk, 512 if not said" },
    { "chunks", NULL, OPT_INT, OPT_AT(chunks), .value = "N", .lo = -1, .hi = 1e12, .help = "at most N chunks; 0: all" },
    { "from-chunk", "--chunk", OPT_INT, OPT_AT(from_chunk), .value = "N", .lo = 0, .hi = 1e12, .help = "leave the first N chunks out" },
    { "merge", "--in-file", OPT_LIST, OPT_AT(merge), OPT_AT(n_merge), 16, .value = "FILE",
      .help = "add the sums of an importance file, repeatable; without -f nothing else happens" },
    { "legacy", NULL, OPT_FLAG, OPT_AT(legacy), .help = "write the older .dat form" },
    { "process-output", NULL, OPT_FLAG, OPT_AT(process_output), .help = "an entry for the head too (output.weight, or token_embd.weight if tied)" },
    { "no-ppl", NULL, OPT_FLAG, OPT_AT(no_ppl), .help = "do not compute the perplexity of the text meanwhile: faster" },
    { "precise", NULL, OPT_FLAG, OPT_AT(precise), .def = "on",
      .help = "15-bit activations; --no-precise: faster, sums off by about 0.1 %" },
    { "format", NULL, OPT_STR, OPT_AT(format), .value = "FORMAT", .def = "text", .choices = "text|json|jsonl", .help = "of the result on stdout" });

static const struct opt_group *const groups[] = { &importance_group, &opts_model, &opts_cpu, &opts_common, NULL };

const struct command command_importance = {
    .name = "importance",
    .brief = "which columns of the weights matter: statistics for quantize",
    .usage = "cuanto importance [MODEL -f TEXT] -o FILE [options]",
    .examples = "cuanto importance model.gguf -f calibration.txt -o model.imatrix.gguf\n"
                "cuanto importance model.gguf -f more.txt --merge model.imatrix.gguf -o both.gguf\n"
                "cuanto importance --merge imatrix.dat -o imatrix.gguf",
    .groups = groups,
    .min_args = 0,
    .max_args = 1,
    .run = run,
};

/* perplexity - how well a model predicts a text, by llama-perplexity's windows (ppl.h), so that figures can be compared.
 * Rows are scored on the pool's threads into an array and summed in order on this one: the number of threads changes nothing. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"
#include "tools/opt.h"
#include "tools/ppl.h"
#include "tools/report.h"

enum { DEFAULT_CTX = 512, SEQS_MAX = 16, TEXT_MAX = 1 << 30 };

struct job {
    const struct cli *c;
    struct runtime r;
    int64_t n_ctx, n_vocab, n_chunks, first, n_scored; /* scored: per chunk */
    int32_t *tokens;
    int64_t n_tokens;
    int32_t bos;                 /* put at the start of each chunk, -1 = the chunk keeps its own */
    struct session *session[SEQS_MAX];
    int n_seq;                   /* chunks in one pass */
    int32_t *window;             /* [n_seq][n_ctx] */
    double *nll;                 /* [n_seq][n_scored] */
    uint16_t *rows;              /* [n_seq][n_scored][row_words] when logits are saved */
    size_t row_words;
    struct file_out out;
    int64_t at;                  /* position of row 0 of the pass in its chunk */
    struct ppl_sum sum;
    double scored_bytes, seconds;
};

/* Pool threads: rows of one pass at once, each its own slot. */
static void score_row(void *ctx, int seg, int64_t row, const float *logits)
{
    struct job *j = ctx;
    int64_t pos = j->at + row, i = pos - j->first;
    if (i < 0 || i >= j->n_scored) return;
    int64_t slot = seg * j->n_scored + i;
    const struct kernels *k = engine_kernels(j->r.engine);
    j->nll[slot] = ppl_nll(k, logits, j->n_vocab, j->window[seg * j->n_ctx + pos + 1]);
    if (j->rows) kld_row(k, logits, j->n_vocab, j->rows + (size_t)slot * j->row_words);
}

/* Feeds chunks chunk .. chunk + n - 1, one per session. The last token of a chunk is only a target and need not be fed. */
static status run_chunks(struct job *j, int64_t chunk, int n, struct err *e)
{
    int64_t n_feed = j->n_ctx - 1, n_batch = engine_n_batch(j->r.engine);
    for (int s = 0; s < n; s++) {
        int32_t *w = j->window + s * j->n_ctx;
        memcpy(w, j->tokens + (chunk + s) * j->n_ctx, (size_t)j->n_ctx * sizeof *w);
        if (j->bos >= 0) w[0] = j->bos;
        TRY(session_truncate(j->session[s], 0, e));
    }
    for (j->at = 0; j->at < n_feed;) {
        struct segment seg[SEQS_MAX];
        int64_t rows = n > 1 ? n_feed : min_i64(n_batch, n_feed - j->at);
        for (int s = 0; s < n; s++)
            seg[s] = (struct segment){ j->session[s], j->window + s * j->n_ctx + j->at, rows, max_i64(0, min_i64(rows, j->first - j->at)) };
        TRY(engine_forward(j->r.engine, seg, n, score_row, j, e));
        j->at += rows;
        if (cli_interrupted) return err_set(e, ERR_INTERRUPTED, "interrupted");
    }
    return OK;
}

static status take_scores(struct job *j, int64_t chunk, int n, struct err *e)
{
    const struct tokenizer *t = model_tokenizer(j->r.model);
    for (int s = 0; s < n; s++)
        for (int64_t i = 0; i < j->n_scored; i++) {
            double nll = j->nll[s * j->n_scored + i];
            if (!isfinite(nll))
                return err_set(e, ERR_RUNTIME, "chunk %lld, position %lld: log-likelihood is %g, the weights may be damaged (try --check)",
                               (long long)(chunk + s), (long long)(j->first + i + 1), nll);
            ppl_add(&j->sum, nll);
            j->scored_bytes += (double)tokenizer_piece(t, j->window[s * j->n_ctx + j->first + i + 1], true, NULL, 0);
        }
    if (!j->rows) return OK;
    return file_write(&j->out, j->rows, (size_t)n * (size_t)j->n_scored * j->row_words * sizeof *j->rows, e);
}

static status run_all(struct job *j, struct err *e)
{
    struct bar bar;
    status st = OK;
    double start = now_seconds();
    bar_begin(&bar, j->c, "perplexity", "tok", j->n_chunks * j->n_ctx);
    bar_update(&bar, 0, NULL);
    for (int64_t i = 0; i < j->n_chunks; i += j->n_seq) {
        char text[64];
        int n = (int)min_i64(j->n_seq, j->n_chunks - i);
        st = run_chunks(j, i, n, e);
        if (st == OK) st = take_scores(j, i, n, e);
        if (st != OK) break;
        snprintf(text, sizeof text, "PPL %.4f +/- %.4f", ppl_value(&j->sum), ppl_error(&j->sum));
        bar_update(&bar, (i + n) * j->n_ctx, text);
    }
    j->seconds = now_seconds() - start;
    bar_end(&bar);
    return st;
}

/* ---- set-up ---- */

static status read_text(const struct cli *c, char **text, size_t *n, struct err *e)
{
    if (c->n_file != 1) return err_set(e, ERR_USAGE, "no text to score: -f FILE");
    TRY(file_text(c->file[0], TEXT_MAX, text, n, e));
    if (*n > 0 && (*text)[*n - 1] == '\n') (*n)--; /* llama-perplexity drops one newline at the end */
    return OK;
}

static status tokenize(struct job *j, const char *text, size_t n, struct err *e)
{
    const struct tokenizer *t = model_tokenizer(j->r.model);
    int64_t cap = (int64_t)n + 8; /* a token stands for at least one byte, BOS and EOS besides, SPM adds a space */
    j->tokens = mem_alloc((size_t)cap * sizeof *j->tokens);
    if (!j->tokens) return err_oom(e, "tokens", (size_t)cap * sizeof *j->tokens);
    TRY(tokenizer_encode(t, text, n, ENCODE_BOS, j->tokens, cap, &j->n_tokens, e));
    if (j->n_tokens > cap) return err_set(e, ERR_RUNTIME, "%zu bytes became %lld tokens", n, (long long)j->n_tokens);
    return OK;
}

static status write_head(struct job *j, struct err *e)
{
    int32_t head[3] = { (int32_t)j->n_ctx, (int32_t)j->n_vocab, (int32_t)j->n_chunks };
    TRY(file_write(&j->out, "_logits_", 8, e));
    TRY(file_write(&j->out, head, sizeof head, e));
    return file_write(&j->out, j->tokens, (size_t)(j->n_chunks * j->n_ctx) * sizeof *j->tokens, e);
}

static status allocate(struct job *j, struct err *e)
{
    size_t n = (size_t)j->n_seq, row_bytes = 0, rows = 0;
    j->window = mem_calloc(n * (size_t)j->n_ctx, sizeof *j->window);
    j->nll = mem_calloc(n * (size_t)j->n_scored, sizeof *j->nll);
    if (!j->window || !j->nll) return err_oom(e, "windows", n * (size_t)j->n_ctx * sizeof *j->nll);
    if (!j->c->save_logits) return OK;
    j->row_words = kld_row_words(j->n_vocab);
    if (!mul_size(j->row_words, sizeof *j->rows * n, &row_bytes) || !mul_size(row_bytes, (size_t)j->n_scored, &rows))
        return err_oom(e, "rows of logits", SIZE_MAX);
    j->rows = mem_alloc(rows);
    if (!j->rows) return err_oom(e, "rows of logits", rows);
    TRY(file_create(&j->out, j->c->save_logits, e));
    return write_head(j, e);
}

static status open_sessions(struct job *j, struct err *e)
{
    j->session[0] = j->r.session;
    for (int i = 1; i < j->n_seq; i++) {
        struct session_options o = { .n_ctx = j->n_ctx, .kv_type = j->c->kv_type ? dtype_by_name(j->c->kv_type) : NULL };
        TRY(session_open(&j->session[i], j->r.engine, &o, e));
    }
    return OK;
}

static status prepare(struct job *j, struct err *e)
{
    struct cli c = *j->c;
    struct model_info info;
    char *text = NULL;
    size_t n = 0;
    c.ctx = j->n_ctx;
    TRY(read_text(&c, &text, &n, e));
    status st = runtime_open(&j->r, &c, j->n_ctx, e);
    if (st == OK) st = tokenize(j, text, n, e);
    mem_free(text);
    if (st == OK) st = ppl_chunks(j->n_tokens, j->n_ctx, c.chunks, &j->n_chunks, e);
    if (st != OK) return st;
    model_info(j->r.model, &info);
    const struct tokenizer *t = model_tokenizer(j->r.model);
    j->n_vocab = info.n_vocab;
    j->bos = tokenizer_adds_bos(t) ? tokenizer_bos(t) : -1;
    j->first = ppl_first(j->n_ctx);
    j->n_scored = ppl_scored(j->n_ctx);
    j->n_seq = (int)min_i64(max_i64(1, engine_n_batch(j->r.engine) / (j->n_ctx - 1)), min_i64(SEQS_MAX, j->n_chunks));
    TRY(open_sessions(j, e));
    return allocate(j, e);
}

static void release(struct job *j)
{
    for (int i = 1; i < j->n_seq; i++) session_close(j->session[i]);
    file_abort(&j->out);
    mem_free(j->tokens);
    mem_free(j->window);
    mem_free(j->nll);
    mem_free(j->rows);
    runtime_close(&j->r);
}

/* ---- result ---- */

static bool print_text(const struct job *j, double ppl, double error)
{
    out_printf("Final estimate: PPL = %.4f +/- %.5f\n", ppl, error);
    out_printf("%lld chunks of %lld tokens, %lld scored%s\n", (long long)j->n_chunks, (long long)j->n_ctx, (long long)j->sum.n,
               j->bos >= 0 ? ", each chunk begins with BOS" : "");
    return out_printf("%.4f bits per byte, %.1f tokens/s, %.1f s\n", j->sum.nll / (log(2) * j->scored_bytes),
               (double)(j->n_chunks * j->n_ctx) / j->seconds, j->seconds);
}

static bool print_result(const struct job *j)
{
    double ppl = ppl_value(&j->sum), error = ppl_error(&j->sum);
    const struct field f[] = {
        { "ppl", FIELD_REAL, .f = ppl },
        { "ppl_error", FIELD_REAL, .f = error },
        { "n_tokens", FIELD_INT, .i = j->sum.n },
        { "tokens_per_s", FIELD_REAL, .f = (double)(j->n_chunks * j->n_ctx) / j->seconds },
        { "n_ctx", FIELD_INT, .i = j->n_ctx },
        { "n_chunks", FIELD_INT, .i = j->n_chunks },
        { "bits_per_byte", FIELD_REAL, .f = j->sum.nll / (log(2) * j->scored_bytes) },
        { "model", FIELD_STR, .str = j->c->model },
        { "threads", FIELD_INT, .i = pool_threads(engine_pool(j->r.engine)) },
        { "isa", FIELD_STR, .str = engine_kernels(j->r.engine)->name },
        { "seconds", FIELD_REAL, .f = j->seconds },
    };
    enum report_format format = report_format(j->c, REPORT_TEXT);
    if (format == REPORT_TEXT) return print_text(j, ppl, error);
    if (format == REPORT_MD) return report_md(f, ARRAY_LEN(f));
    if (format == REPORT_CSV) return report_csv_head(f, ARRAY_LEN(f)) && report_csv_row(f, ARRAY_LEN(f));
    struct json_out o;
    json_out_init(&o, format == REPORT_JSON);
    json_begin(&o, NULL, '{');
    report_json(&o, f, ARRAY_LEN(f));
    json_end(&o, '}');
    return report_out(&o);
}

static int run(struct cli *c)
{
    struct job j = { .c = c, .n_ctx = c->ctx > 0 ? c->ctx : DEFAULT_CTX, .out.fd = -1 };
    struct err e = { 0 };
    cli_signals_at_once(!c->save_logits); /* a half-written file must go, and nothing else is kept */
    status st = prepare(&j, &e);
    if (st == OK) st = run_all(&j, &e);
    if (st == OK && c->save_logits) st = file_commit(&j.out, &e);
    if (st == OK && !print_result(&j) && out_status() == 0) st = err_oom(&e, "report", 0);
    release(&j);
    return st == OK ? out_status() : cli_fail(&e, NULL);
}

OPT_GROUP(perplexity_group, "Perplexity",
    { "precise", NULL, OPT_FLAG, OPT_AT(precise), .def = "on",
      .help = "15-bit activations: measures the file, not the rounding of the engine; --no-precise: as run and chat compute prompts" },
    { "file", "-f", OPT_LIST, OPT_AT(file), OPT_AT(n_file), 1, .value = "FILE", .help = "the text (- is stdin)" },
    { "ctx", "-c --ctx-size", OPT_INT, OPT_AT(ctx), .value = "N", .def = "512", .lo = PPL_CTX_MIN, .hi = 16777216,
      .help = "tokens in one chunk" },
    { "chunks", NULL, OPT_INT, OPT_AT(chunks), .value = "N", .lo = -1, .hi = 1e12, .help = "score at most N chunks; 0: all" },
    { "format", NULL, OPT_STR, OPT_AT(format), .value = "FORMAT", .def = "text", .choices = "text|md|csv|json|jsonl",
      .help = "of the result on stdout" },
    { "save-logits", "--kl-divergence-base", OPT_STR, OPT_AT(save_logits), .value = "FILE",
      .help = "also write all scored logits in llama-perplexity's format" });

static const struct opt_group *const groups[] = { &perplexity_group, &opts_model, &opts_cpu, &opts_common, NULL };

const struct command command_perplexity = {
    .name = "perplexity",
    .brief = "how well a model predicts a text",
    .usage = "cuanto perplexity MODEL -f TEXT [options]",
    .examples = "cuanto perplexity model.gguf -f wiki.test.raw\n"
                "cuanto perplexity model.gguf -f wiki.test.raw -c 2048 --chunks 20\n"
                "cuanto perplexity model.gguf -f wiki.test.raw --json",
    .groups = groups,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};

/* perplexity - how well a model predicts a text, by llama-perplexity's windows (ppl.h), so that figures can be compared.
 * Rows are scored on the pool's threads into an array and summed in order on this one: the number of threads changes nothing.
 * Not precise unless asked: over 17,000 tokens of 100 KB the fast passes moved perplexity by +0.03 % (SmolLM2), +0.05 % (Gemma 270M), a fiftieth of the error
 * that is printed beside it, in 0.57 of the time. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"
#include "tools/opt.h"
#include "tools/ppl.h"
#include "tools/report.h"
#include "tools/windows.h"

struct job {
    const struct cli *c;
    struct runtime r;
    struct windows w;
    struct reader reader;
    int64_t n_vocab, chunk;      /* first chunk of the pass */
    bool fused;                  /* no rows of logits are made */
    double *nll;                 /* [n_seq][n_scored] */
    uint16_t *rows;              /* [n_seq][n_scored][row_words] when logits are saved */
    size_t row_words;
    struct file_out out;
    struct ppl_sum sum;
    double scored_bytes, seconds;
};

/* Pool threads: rows of one pass at once, each its own slot. */
static void score_row(void *ctx, int64_t chunk, int64_t i, int32_t target, const float *logits)
{
    struct job *j = ctx;
    int64_t slot = (chunk - j->chunk) * j->w.n_scored + i;
    const struct kernels *k = engine_kernels(j->r.engine);
    j->nll[slot] = ppl_nll(k, logits, j->n_vocab, target);
    if (j->rows) kld_row(k, logits, j->n_vocab, j->rows + (size_t)slot * j->row_words);
}

static status take_scores(struct job *j, int64_t chunk, int n, struct err *e)
{
    const struct tokenizer *t = model_tokenizer(j->r.model);
    for (int s = 0; s < n; s++)
        for (int64_t i = 0; i < j->w.n_scored; i++) {
            double nll = j->nll[s * j->w.n_scored + i];
            int64_t target = j->w.first + i + 1;
            if (!isfinite(nll))
                return err_set(e, ERR_RUNTIME, "chunk %lld, position %lld: log-likelihood is %g, the weights may be damaged (try --check)",
                               (long long)(chunk + s), (long long)target, nll);
            ppl_add(&j->sum, nll);
            j->scored_bytes += (double)tokenizer_piece(t, j->w.tokens[(chunk + s) * j->w.n_ctx + target], true, NULL, 0);
        }
    if (!j->rows) return OK;
    return file_write(&j->out, j->rows, (size_t)n * (size_t)j->w.n_scored * j->row_words * sizeof *j->rows, e);
}

static status run_all(struct job *j, struct err *e)
{
    struct bar bar;
    status st = OK;
    double start = now_seconds();
    bar_begin(&bar, j->c, "perplexity", "tok", j->w.n_chunks * j->w.n_ctx);
    bar_update(&bar, 0, NULL);
    for (j->chunk = 0; j->chunk < j->w.n_chunks;) {
        char text[64];
        struct span s = { j->chunk, 0, j->w.n_ctx - 1, (int)min_i64(j->reader.n_seq, j->w.n_chunks - j->chunk) };
        st = j->fused ? reader_score(&j->reader, &s, j->nll, e) : reader_run(&j->reader, &s, score_row, j, e);
        if (st == OK) st = take_scores(j, s.chunk, s.n, e);
        if (st != OK) break;
        j->chunk += s.n;
        snprintf(text, sizeof text, "PPL %.4f +/- %.4f", ppl_value(&j->sum), ppl_error(&j->sum));
        bar_update(&bar, j->chunk * j->w.n_ctx, text);
    }
    j->seconds = now_seconds() - start;
    bar_end(&bar);
    return st;
}

/* ---- set-up ---- */

static status allocate(struct job *j, struct err *e)
{
    size_t n = (size_t)j->reader.n_seq * (size_t)j->w.n_scored, row_bytes = 0, rows = 0;
    j->nll = mem_calloc(n, sizeof *j->nll);
    if (!j->nll) return err_oom(e, "scores", n * sizeof *j->nll);
    if (!j->c->save_logits) return OK;
    j->row_words = kld_row_words(j->n_vocab);
    if (!mul_size(j->row_words, sizeof *j->rows, &row_bytes) || !mul_size(row_bytes, n, &rows)) return err_oom(e, "rows of logits", SIZE_MAX);
    j->rows = mem_alloc(rows);
    if (!j->rows) return err_oom(e, "rows of logits", rows);
    TRY(file_create(&j->out, j->c->save_logits, e));
    return kld_write_head(&j->out, j->w.n_ctx, j->n_vocab, j->w.n_chunks, j->w.tokens, e);
}

static status prepare(struct job *j, struct err *e)
{
    struct cli c = *j->c;
    struct model_info info;
    char *text = NULL;
    size_t n = 0;
    c.ctx = c.ctx > 0 ? c.ctx : WINDOWS_CTX;
    TRY(windows_text(&c, &text, &n, e));
    status st = runtime_open(&j->r, &c, c.ctx, e);
    if (st == OK) st = windows_open(&j->w, model_tokenizer(j->r.model), text, n, c.ctx, c.chunks, e);
    mem_free(text);
    if (st != OK) return st;
    model_info(j->r.model, &info);
    j->n_vocab = info.n_vocab;
    TRY(reader_open(&j->reader, &j->r, &c, &j->w, reader_seqs(j->r.engine, &j->w), e));
    j->fused = !c.save_logits && engine_can_score(j->r.engine);
    return allocate(j, e);
}

static void release(struct job *j)
{
    reader_close(&j->reader);
    file_abort(&j->out);
    windows_close(&j->w);
    mem_free(j->nll);
    mem_free(j->rows);
    runtime_close(&j->r);
}

/* ---- result ---- */

static bool print_text(const struct job *j, double ppl, double error)
{
    out_printf("Final estimate: PPL = %.4f +/- %.5f\n", ppl, error);
    out_printf("%lld %s of %lld tokens, %lld scored%s\n", (long long)j->w.n_chunks, j->w.n_chunks == 1 ? "chunk" : "chunks",
               (long long)j->w.n_ctx, (long long)j->sum.n,
               j->w.bos >= 0 ? ", each chunk begins with BOS" : "");
    return out_printf("%.4f bits per byte, %.1f tokens/s, %.1f s\n", j->sum.nll / (log(2) * j->scored_bytes),
               (double)(j->w.n_chunks * j->w.n_ctx) / j->seconds, j->seconds);
}

static bool print_result(const struct job *j)
{
    double ppl = ppl_value(&j->sum), error = ppl_error(&j->sum);
    const struct field f[] = {
        { "ppl", FIELD_REAL, .f = ppl },
        { "ppl_error", FIELD_REAL, .f = error },
        { "n_tokens", FIELD_INT, .i = j->sum.n },
        { "tokens_per_s", FIELD_REAL, .f = (double)(j->w.n_chunks * j->w.n_ctx) / j->seconds },
        { "n_ctx", FIELD_INT, .i = j->w.n_ctx },
        { "n_chunks", FIELD_INT, .i = j->w.n_chunks },
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
    struct job j = { .c = c, .out.fd = -1 };
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
    { "precise", NULL, OPT_FLAG, OPT_AT(precise),
      .help = "15-bit activations, for 1.3 to 1.5 times the time: what rounding them to 8 bits adds (0.05 % of perplexity, measured) goes" },
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

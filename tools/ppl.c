/* ppl - see ppl.h. */
#include "tools/ppl.h"
#include <math.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"

status ppl_chunks(int64_t n_tokens, int64_t n_ctx, int64_t max_chunks, int64_t *n_chunks, struct err *e)
{
    if (n_ctx < PPL_CTX_MIN)
        return err_set(e, ERR_USAGE, "a context of %lld tokens is too short to score, at least %d", (long long)n_ctx, PPL_CTX_MIN);
    if (n_tokens < 2 * n_ctx && n_tokens / 2 >= PPL_CTX_MIN)
        return err_set(e, ERR_USAGE, "the text has %lld tokens, at least %lld (two contexts of %lld) are needed; a context that fits: -c %lld",
                       (long long)n_tokens, (long long)(2 * n_ctx), (long long)n_ctx, (long long)(n_tokens / 2));
    if (n_tokens < 2 * n_ctx)
        return err_set(e, ERR_USAGE, "the text has %lld tokens, at least %lld (two contexts of %lld) are needed", (long long)n_tokens,
                       (long long)(2 * n_ctx), (long long)n_ctx);
    int64_t n = n_tokens / n_ctx;
    *n_chunks = max_chunks > 0 ? min_i64(n, max_chunks) : n;
    return OK;
}

double ppl_nll(const struct kernels *k, const float *logits, int64_t n_vocab, int32_t target)
{
    float max = k->max(logits, n_vocab, NULL);
    return (double)max + log(k->exp_sum(NULL, logits, max, n_vocab)) - (double)logits[target];
}

void ppl_add(struct ppl_sum *s, double nll)
{
    s->n++;
    s->nll += nll;
    s->nll2 += nll * nll;
}

double ppl_value(const struct ppl_sum *s) { return exp(s->nll / (double)s->n); }

double ppl_error(const struct ppl_sum *s)
{
    if (s->n < 2) return 0;
    double mean = s->nll / (double)s->n, var = s->nll2 / (double)s->n - mean * mean;
    return var > 0 ? ppl_value(s) * sqrt(var / (double)(s->n - 1)) : 0;
}

size_t kld_row_words(int64_t n_vocab) { return (size_t)(2 * ((n_vocab + 1) / 2) + 4); }

void kld_row(const struct kernels *k, const float *logits, int64_t n_vocab, uint16_t *out)
{
    float max = k->max(logits, n_vocab, NULL), min = max;
    for (int64_t i = 0; i < n_vocab; i++) min = logits[i] < min ? logits[i] : min;
    min = min > max - 16 ? min : max - 16;
    float log_sum = (float)log(k->exp_sum(NULL, logits, max, n_vocab));
    float head[2] = { (max - min) / 65535.0f, min - max - log_sum };
    memcpy(out, head, sizeof head);
    out += 4;
    memset(out + n_vocab, 0, (kld_row_words(n_vocab) - 4 - (size_t)n_vocab) * sizeof *out);
    float inv = head[0] > 0 ? 1 / head[0] : 0;
    for (int64_t i = 0; i < n_vocab; i++) {
        float code = logits[i] > min ? inv * (logits[i] - min) : 0;
        out[i] = (uint16_t)(code < 65535 ? (code + 12582912.0f) - 12582912.0f : 65535); /* half to even, as there; rintf costs a call */
    }
}

/* ---- logits files ---- */

static const char kld_magic[8] = { '_', 'l', 'o', 'g', 'i', 't', 's', '_' };
enum { HEAD_BYTES = sizeof kld_magic + 3 * sizeof(int32_t), VOCAB_MAX = 1 << 24, CTX_MAX = 1 << 24 };

status kld_write_head(struct file_out *f, int64_t n_ctx, int64_t n_vocab, int64_t n_chunks, const int32_t *tokens, struct err *e)
{
    const int32_t head[3] = { (int32_t)n_ctx, (int32_t)n_vocab, (int32_t)n_chunks };
    TRY(file_write(f, kld_magic, sizeof kld_magic, e));
    TRY(file_write(f, head, sizeof head, e));
    return file_write(f, tokens, (size_t)(n_chunks * n_ctx) * sizeof *tokens, e);
}

/* What a file with this head is long; SIZE_MAX when that does not fit. */
static size_t kld_file_bytes(const struct kld_file *f)
{
    size_t tokens, rows, row, all;
    if (!mul_size((size_t)f->n_chunks, (size_t)f->n_ctx * sizeof(int32_t), &tokens)) return SIZE_MAX;
    if (!mul_size((size_t)ppl_scored(f->n_ctx), f->row_words * sizeof(uint16_t), &row)) return SIZE_MAX;
    if (!mul_size((size_t)f->n_chunks, row, &rows) || !add_size(tokens, rows, &all) || !add_size(all, HEAD_BYTES, &all)) return SIZE_MAX;
    return all;
}

static status kld_parse(struct kld_file *f, const char *path, struct err *e)
{
    int32_t head[3];
    const uint8_t *p = f->file.data;
    if (f->file.size < HEAD_BYTES || memcmp(p, kld_magic, sizeof kld_magic) != 0)
        return err_set(e, ERR_FORMAT, "%s: no logits file: it does not begin with _logits_", path);
    memcpy(head, p + sizeof kld_magic, sizeof head);
    if (head[0] < PPL_CTX_MIN || head[0] > CTX_MAX)
        return err_set(e, ERR_FORMAT, "%s: context is %d, expected %d to %d", path, head[0], PPL_CTX_MIN, CTX_MAX);
    if (head[1] < 1 || head[1] > VOCAB_MAX) return err_set(e, ERR_FORMAT, "%s: vocabulary is %d, expected 1 to %d", path, head[1], VOCAB_MAX);
    if (head[2] < 1) return err_set(e, ERR_FORMAT, "%s: number of chunks is %d, expected 1 or more", path, head[2]);
    f->n_ctx = head[0], f->n_vocab = head[1], f->n_chunks = head[2];
    f->row_words = kld_row_words(f->n_vocab);
    size_t need = kld_file_bytes(f);
    if (need != f->file.size)
        return err_set(e, ERR_FORMAT, "%s: %zu bytes, but %d chunks of %d tokens with a vocabulary of %d make %zu: %s", path, f->file.size, head[2],
                       head[0], head[1], need, need > f->file.size ? "the file was cut short" : "it has bytes too many");
    f->tokens = (const int32_t *)(const void *)(p + HEAD_BYTES);
    f->rows = (const uint16_t *)(const void *)(f->tokens + f->n_chunks * f->n_ctx);
    for (int64_t i = 0; i < f->n_chunks * f->n_ctx; i++)
        if (f->tokens[i] < 0 || f->tokens[i] >= f->n_vocab)
            return err_set(e, ERR_FORMAT, "%s: token %lld is %d, expected 0 to %d", path, (long long)i, f->tokens[i], head[1] - 1);
    return OK;
}

status kld_file_open(struct kld_file *f, const char *path, struct err *e)
{
    *f = (struct kld_file){ 0 };
    TRY(file_open(&f->file, path, true, e));
    status st = kld_parse(f, path, e);
    if (st != OK) kld_file_close(f);
    return st;
}

void kld_file_close(struct kld_file *f)
{
    file_close(&f->file);
    *f = (struct kld_file){ 0 };
}

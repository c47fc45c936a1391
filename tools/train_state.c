/* train_state - see train_state.h. Layout, little-endian: magic [16], header [8 x 64 bits], job [n_job bytes], rows, w, m, v, checksum of all before it. */
#include "tools/train_state.h"
#include "ggml-like/file.h"
#include <math.h>
#include <string.h>

static const char magic[16] = "cuanto train 1\n";
enum { JOB_MOST = 1 << 16 };

struct header {
    int64_t n_job, n, step, best_step, n_rows;
    double best;
    int64_t row_bytes, spare;
};

status train_state_add(struct train_state *s, const struct train_point *r, struct err *e)
{
    if (s->n_rows == s->most_rows) {
        int64_t want = s->most_rows ? 2 * s->most_rows : 256;
        struct train_point *more = mem_realloc(s->row, (size_t)want * sizeof *more);
        if (!more) return err_oom(e, "history", (size_t)want * sizeof *more);
        s->row = more;
        s->most_rows = want;
    }
    s->row[s->n_rows++] = *r;
    return OK;
}

void train_state_close(struct train_state *s)
{
    mem_free(s->row);
    s->row = NULL;
    s->n_rows = s->most_rows = 0;
}

static status put(struct file_out *f, uint64_t *sum, const void *p, size_t n, struct err *e)
{
    *sum = hash64(*sum, p, n);
    return file_write(f, p, n, e);
}

static status write_all(const struct train_state *s, struct file_out *f, struct err *e)
{
    struct header h = { .n_job = (int64_t)strlen(s->job), .n = s->n, .step = s->step, .best_step = s->best_step, .n_rows = s->n_rows, .best = s->best,
                        .row_bytes = sizeof *s->row };
    size_t bytes = (size_t)s->n * sizeof *s->w;
    uint64_t sum = 0;
    TRY(put(f, &sum, magic, sizeof magic, e));
    TRY(put(f, &sum, &h, sizeof h, e));
    TRY(put(f, &sum, s->job, (size_t)h.n_job, e));
    if (s->n_rows > 0) TRY(put(f, &sum, s->row, (size_t)s->n_rows * sizeof *s->row, e));
    TRY(put(f, &sum, s->w, bytes, e));
    TRY(put(f, &sum, s->m, bytes, e));
    TRY(put(f, &sum, s->v, bytes, e));
    return file_write(f, &sum, sizeof sum, e);
}

/* By way of a name that is the same in each run: what a kill leaves is three times the adapter, and nobody would clear it away. */
status train_state_save(const struct train_state *s, const char *path, struct err *e)
{
    struct file_out f;
    bool left;
    TRY(file_part(&f, path, &left, e));
    f.keeps = false;
    status st = left ? file_resize(&f, 0, e) : OK;
    if (st == OK) st = write_all(s, &f, e);
    if (st == OK) return file_commit(&f, e);
    file_abort(&f);
    return st;
}

/* ---- reading ---- */

struct reader {
    const struct file *f;
    size_t at;
    const char *path;
};

static status take(struct reader *r, void *to, size_t n, const char *what, struct err *e)
{
    if (n > r->f->size - r->at)
        return err_set(e, ERR_FORMAT, "%s: %s ends at byte %zu, the file has %zu", r->path, what, r->at + n, r->f->size);
    memcpy(to, r->f->data + r->at, n);
    r->at += n;
    return OK;
}

/* The first line that is not the same in both. */
static status same_job(const char *now, const char *then, const char *path, struct err *e)
{
    while (*now && *now == *then) {
        const char *a = strchr(now, '\n'), *b = strchr(then, '\n');
        size_t na = a ? (size_t)(a - now) : strlen(now), nb = b ? (size_t)(b - then) : strlen(then);
        if (na != nb || memcmp(now, then, na)) break;
        now += na + (a != NULL);
        then += nb + (b != NULL);
    }
    if (!*now && !*then) return OK;
    return err_set(e, ERR_USAGE, "%s is of another run: \"%.*s\", here it is \"%.*s\"", path, (int)min_i64(70, (int64_t)strcspn(then, "\n")), then,
                   (int)min_i64(70, (int64_t)strcspn(now, "\n")), now);
}

static status read_job(struct train_state *s, struct reader *r, const struct header *h, struct err *e)
{
    if (h->n_job < 0 || h->n_job > JOB_MOST)
        return err_set(e, ERR_FORMAT, "%s: a text of %lld bytes, expected up to %d", r->path, (long long)h->n_job, JOB_MOST);
    char *then = mem_calloc(1, (size_t)h->n_job + 1);
    if (!then) return err_oom(e, r->path, (size_t)h->n_job);
    status st = take(r, then, (size_t)h->n_job, "its description", e);
    if (st == OK) st = same_job(s->job, then, r->path, e);
    mem_free(then);
    return st;
}

static status read_rows(struct train_state *s, struct reader *r, const struct header *h, struct err *e)
{
    if (h->n_rows < 0 || (size_t)h->n_rows > r->f->size / sizeof *s->row || h->row_bytes != (int64_t)sizeof *s->row)
        return err_set(e, ERR_FORMAT, "%s: %lld rows of %lld bytes of history, the file has %zu", r->path, (long long)h->n_rows,
                       (long long)h->row_bytes, r->f->size);
    train_state_close(s);
    if (h->step != h->n_rows) /* a row for each step */
        return err_set(e, ERR_FORMAT, "%s: step %lld, but %lld rows of history", r->path, (long long)h->step, (long long)h->n_rows);
    s->row = mem_calloc((size_t)h->n_rows + 1, sizeof *s->row);
    if (!s->row) return err_oom(e, r->path, (size_t)h->n_rows * sizeof *s->row);
    s->n_rows = h->n_rows;
    s->most_rows = h->n_rows + 1;
    TRY(take(r, s->row, (size_t)h->n_rows * sizeof *s->row, "its history", e));
    for (int64_t i = 0; i < s->n_rows; i++)
        if (s->row[i].step != i + 1)
            return err_set(e, ERR_FORMAT, "%s: row %lld of the history is of step %lld", r->path, (long long)i + 1, (long long)s->row[i].step);
    return OK;
}

/* All bytes, before any of them is believed: a damaged description would be another run's, which invites to begin anew. */
static status check_sum(const struct reader *r, const struct header *h, struct err *e)
{
    size_t rows, numbers, at = 0;
    uint64_t sum = 0, want;
    bool fits = h->n_job >= 0 && h->n_rows >= 0 && h->row_bytes >= 0 && h->n >= 0;
    fits = fits && mul_size((size_t)h->n_rows, (size_t)h->row_bytes, &rows) && mul_size((size_t)h->n, sizeof(float), &numbers);
    if (!fits)
        return err_set(e, ERR_FORMAT, "%s: %lld bytes of description, %lld rows of %lld bytes of history, %lld trained numbers", r->path, (long long)h->n_job,
                       (long long)h->n_rows, (long long)h->row_bytes, (long long)h->n);
    const size_t part[] = { sizeof magic, sizeof *h, (size_t)h->n_job, rows, numbers, numbers, numbers };
    for (int i = 0; i < ARRAY_LEN(part); at += part[i++]) {
        if (part[i] > r->f->size - at)
            return err_set(e, ERR_FORMAT, "%s: part %d of it, %zu bytes, does not end in the file, which has %zu", r->path, i, part[i], r->f->size);
        if (part[i] > 0 || i != 3) sum = hash64(sum, r->f->data + at, part[i]);
    }
    if (r->f->size - at != sizeof want) return err_set(e, ERR_FORMAT, "%s: %zu bytes, expected %zu", r->path, r->f->size, at + sizeof want);
    memcpy(&want, r->f->data + at, sizeof want);
    if (sum == want) return OK;
    return err_set(e, ERR_FORMAT, "%s: checksum is %016llx, its bytes give %016llx", r->path, (unsigned long long)want, (unsigned long long)sum);
}

static status read_all(struct train_state *s, struct reader *r, struct err *e)
{
    char head[sizeof magic];
    struct header h;
    TRY(take(r, head, sizeof head, "its mark", e));
    if (memcmp(head, magic, sizeof magic)) return err_set(e, ERR_FORMAT, "%s is no state of a training run", r->path);
    TRY(take(r, &h, sizeof h, "its header", e));
    TRY(check_sum(r, &h, e));
    TRY(read_job(s, r, &h, e));
    if (h.n != s->n) return err_set(e, ERR_FORMAT, "%s: %lld trained numbers, expected %lld", r->path, (long long)h.n, (long long)s->n);
    TRY(read_rows(s, r, &h, e));
    float *const parts[] = { s->w, s->m, s->v };
    for (int i = 0; i < ARRAY_LEN(parts); i++) TRY(take(r, parts[i], (size_t)s->n * sizeof(float), "its numbers", e));
    s->step = h.step;
    s->best = h.best;
    s->best_step = h.best_step;
    return OK;
}

status train_state_load(struct train_state *s, const char *path, struct err *e)
{
    struct file f;
    TRY(file_open(&f, path, true, e));
    struct reader r = { &f, 0, path };
    status st = read_all(s, &r, e);
    file_close(&f);
    return st;
}

double train_average(double old, double loss, int64_t i, int64_t steps)
{
    return i == 0 ? loss : old + (loss - old) / (double)max_i64(1, min_i64(20, steps / 10));
}

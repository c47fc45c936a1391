/* journal - the memory of an unfinished quantization beside its part. Layout: a page of text lines that say what the job is, the last word of the
 * page = committing, then one 64-bit word per chunk. Every word is written once, whole, at its own place: no record can be torn or lost in
 * the middle, and threads need no lock. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include "quant/plan_int.h"
#include "quant/solve.h"

enum { HEAD_BYTES = 4096, TEXT_BYTES = HEAD_BYTES - 8 };
static const char magic[] = "cuanto quantization journal 1\n";

static status err_io(struct err *e, const char *path, const char *what, int error)
{
    return err_set(e, ERR_RUNTIME, "%s: %s: %s", path, what, strerror(error));
}

bool journal_name(const char *out, char *path, size_t cap)
{
    int n = snprintf(path, cap, "%s.part.journal", out);
    return n > 0 && (size_t)n < cap;
}

/* ---- what the job is ---- */

static void options_text(const struct quant_plan *p, char *text, size_t cap)
{
    const struct quant_options *o = &p->o;
    uint64_t h = 0;
    size_t n = (size_t)snprintf(text, cap, "%.100s", plan_recipe(p));
    if (!p->recipe && !o->chosen)
        n += (size_t)snprintf(text + n, cap - n, " %d bits granularity %d:%lld", o->spec.bits, (int)o->spec.granularity, (long long)o->spec.group);
    else if (o->spec.method && o->spec.method != quantizers[0]) n += (size_t)snprintf(text + n, cap - n, " %s", o->spec.method->name);
    if (o->solver) n += (size_t)snprintf(text + n, cap - n, " %.100s, solver %d", o->solver, SOLVE_REVISION);
    if (o->folded) n += (size_t)snprintf(text + n, cap - n, " folded");
    if (o->pure) n += (size_t)snprintf(text + n, cap - n, " pure");
    if (o->keep_outliers) n += (size_t)snprintf(text + n, cap - n, " outliers=%g", (double)o->outlier_threshold);
    if (o->output_type) n += (size_t)snprintf(text + n, cap - n, " head=%.20s", o->output_type);
    if (o->embd_type) n += (size_t)snprintf(text + n, cap - n, " embeddings=%.20s", o->embd_type);
    if (o->split_bytes > 0) n += (size_t)snprintf(text + n, cap - n, " split=%lld", (long long)o->split_bytes);
    for (int i = 0; i < o->n_rules; i++) h = h * 31 + chunk_hash(o->rules[i], strlen(o->rules[i]));
    if (o->n_rules > 0) snprintf(text + n, cap - n, " %d rules (%016llx)", o->n_rules, (unsigned long long)h);
}

/* The input is known by its size, time and header: reading it all to be sure would take as long as the work. */
void job_of(const struct quant_plan *p, struct job *j)
{
    uint64_t layout = 0, header = 0, time = 0;
    size_t size = 0;
    *j = (struct job){ .n = 0 };
    for (int i = 0; i < p->n_files; i++) layout = layout * 31 + chunk_hash(p->file[i].data, p->file[i].n);
    for (int64_t i = 0; i < p->n; i++) {
        const struct tensor *t = p->item[i].src;
        header = header * 31 + chunk_hash(t->name, strlen(t->name));
        header = header * 31 + chunk_hash(t->ne, sizeof t->ne) + (uint64_t)t->type->gguf_id;
        if (p->item[i].added && p->work[i].outlier) header = header * 31 + chunk_hash(p->work[i].outlier, p->item[i].bytes_to);
        size += p->item[i].bytes_from;
    }
    for (int i = 0; i < p->n_sources; i++) time = time * 31 + (uint64_t)p->source[i].mtime_ns;
    static const char *const lines[] = { "program", "input", "input header", "options", "importance", "output" };
    for (int i = 0; i < ARRAY_LEN(lines); i++) j->what[j->n++] = lines[i];
    snprintf(j->text[0], sizeof j->text[0], "%s", p->o.program ? p->o.program : "unnamed");
    snprintf(j->text[1], sizeof j->text[1], "%zu bytes of %zu, time %llu", size, gguf_bytes(&p->g), (unsigned long long)time);
    snprintf(j->text[2], sizeof j->text[2], "%016llx", (unsigned long long)header);
    options_text(p, j->text[3], sizeof j->text[3]);
    if (p->o.importance)
        snprintf(j->text[4], sizeof j->text[4], "%.60s (%016llx)", p->o.importance_name ? path_base(p->o.importance_name) : "unnamed",
                 (unsigned long long)p->o.importance->hash);
    else snprintf(j->text[4], sizeof j->text[4], "none");
    snprintf(j->text[5], sizeof j->text[5], "%d files, %lld chunks, header %016llx", p->n_files, (long long)p->n_chunks, (unsigned long long)layout);
}

static void head_text(const struct job *j, char text[TEXT_BYTES])
{
    memset(text, 0, TEXT_BYTES);
    size_t n = (size_t)snprintf(text, TEXT_BYTES, "%s", magic);
    for (int i = 0; i < j->n; i++) n += (size_t)snprintf(text + n, TEXT_BYTES - n, "%s\t%s\n", j->what[i], j->text[i]);
}

/* Names the first line that differs. */
static status compare_jobs(const char *path, const struct job *j, char found[TEXT_BYTES], struct err *e)
{
    char want[TEXT_BYTES];
    head_text(j, want);
    if (!memcmp(want, found, TEXT_BYTES)) return OK;
    found[TEXT_BYTES - 1] = 0;
    const char *at = strncmp(found, magic, sizeof magic - 1) ? NULL : found + sizeof magic - 1;
    for (int i = 0; at && i < j->n; i++) {
        const char *tab = strchr(at, '\t'), *end = strchr(at, '\n');
        if (!tab || !end || tab > end) break;
        if ((size_t)(end - tab - 1) != strlen(j->text[i]) || memcmp(tab + 1, j->text[i], strlen(j->text[i])))
            return err_set(e, ERR_USAGE, "%s: the part belongs to another job: begun with %s '%.*s', now it is '%.60s'; --overwrite starts anew", path,
                           j->what[i], (int)min_i64(end - tab - 1, 60), tab + 1, j->text[i]);
        at = end + 1;
    }
    return err_set(e, ERR_USAGE, "%s: not a journal of this version", path);
}

/* ---- the file ---- */

static status put_at(struct journal *jr, const void *p, size_t n, size_t offset, struct err *e)
{
    ssize_t put;
    do put = pwrite(jr->fd, p, n, (off_t)offset);
    while (put < 0 && errno == EINTR);
    if (put == (ssize_t)n) return OK;
    return err_io(e, jr->path, "cannot write", put < 0 ? errno : ENOSPC);
}

static size_t get_at(const struct journal *jr, void *p, size_t n, size_t offset)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(jr->fd, (char *)p + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        done += (size_t)got;
    }
    return done;
}

static status start(struct journal *jr, const struct job *j, struct err *e)
{
    char head[HEAD_BYTES] = { 0 };
    head_text(j, head);
    if (ftruncate(jr->fd, 0) != 0) return err_io(e, jr->path, "cannot empty", errno);
    TRY(put_at(jr, head, sizeof head, 0, e));
    if (fsync(jr->fd) != 0) return err_io(e, jr->path, "cannot flush to disk", errno);
    return OK;
}

static status load(struct journal *jr, const struct job *j, struct err *e)
{
    char head[HEAD_BYTES];
    if (get_at(jr, head, sizeof head, 0) < sizeof head) return start(jr, j, e); /* killed before the first chunk */
    TRY(compare_jobs(jr->path, j, head, e));
    uint64_t committing;
    memcpy(&committing, head + TEXT_BYTES, sizeof committing);
    jr->committing = committing == 1;
    get_at(jr, jr->done, (size_t)jr->n * sizeof *jr->done, HEAD_BYTES); /* what is missing stays 0 */
    return OK;
}

status journal_open(struct journal *jr, const char *out, const struct job *j, int64_t n, bool fresh, struct err *e)
{
    char path[PATH_MAX];
    *jr = (struct journal){ .fd = -1, .n = n };
    if (!journal_name(out, path, sizeof path)) return err_set(e, ERR_USAGE, "%.80s...: the path is too long", out);
    jr->path = mem_alloc(strlen(path) + 1);
    jr->done = mem_calloc((size_t)n, sizeof *jr->done);
    status st = jr->path && jr->done ? OK : err_oom(e, "journal", (size_t)n * sizeof *jr->done);
    bool ours = false;
    if (st == OK) {
        memcpy(jr->path, path, strlen(path) + 1);
        jr->fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
        if (jr->fd < 0) st = err_set(e, errno == ENOSPC || errno == EIO ? ERR_RUNTIME : ERR_USAGE, "%s: cannot create: %s", path, strerror(errno));
        else if (flock(jr->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
            st = err_set(e, ERR_RUNTIME, "%s: another process is at work on this output", path);
        else ours = true;
    }
    if (st == OK) st = fresh ? start(jr, j, e) : load(jr, j, e);
    if (st != OK) journal_close(jr, fresh && ours);
    return st;
}

status journal_mark(struct journal *jr, int64_t c, uint64_t hash, struct err *e)
{
    return put_at(jr, &hash, sizeof hash, HEAD_BYTES + (size_t)c * sizeof hash, e);
}

struct note { struct solved s; uint64_t hash; };

static size_t note_at(const struct journal *jr, int64_t item) { return HEAD_BYTES + (size_t)jr->n * sizeof *jr->done + (size_t)item * sizeof(struct note); }

status journal_note(struct journal *jr, int64_t item, const struct solved *s, struct err *e)
{
    struct note n = { *s, chunk_hash(s, sizeof *s) };
    return put_at(jr, &n, sizeof n, note_at(jr, item), e);
}

bool journal_noted(const struct journal *jr, int64_t item, struct solved *s)
{
    struct note n;
    if (get_at(jr, &n, sizeof n, note_at(jr, item)) < sizeof n || n.hash != chunk_hash(&n.s, sizeof n.s)) return false;
    *s = n.s;
    return true;
}

status journal_commit(struct journal *jr, struct err *e)
{
    uint64_t one = 1;
    TRY(put_at(jr, &one, sizeof one, TEXT_BYTES, e));
    return journal_flush(jr, e);
}

status journal_flush(struct journal *jr, struct err *e)
{
    int r;
    do r = fdatasync(jr->fd);
    while (r != 0 && errno == EINTR);
    return r == 0 ? OK : err_io(e, jr->path, "cannot flush to disk", errno);
}

void journal_close(struct journal *jr, bool remove_it)
{
    if (remove_it && jr->path) unlink(jr->path);
    if (jr->fd >= 0) close(jr->fd);
    mem_free(jr->path);
    mem_free(jr->done);
    *jr = (struct journal){ .fd = -1 };
}

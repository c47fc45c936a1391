/* pipeline - runs the chunks of a plan on all threads: source in, bytes of the output and a word of the journal out. Thread 0, the caller, does
 * no chunk: it reports progress and flushes, so that neither a slow terminal nor a slow disk holds up the work.
 * A chunk's statistics are joined in the order of chunks, whoever made them: the figures do not depend on threads. */
#include <assert.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include "ggml-like/pool.h"
#include "quant/plan_int.h"

enum {
    RING = 64,            /* chunks that may run ahead of the oldest unfinished one */
    AHEAD_BYTES = 16 << 20, /* of the source, asked for in advance: 10 ms of a fast disk, 100 ms of a slow one */
};

enum pass { PASS_RANGE, PASS_WRITE, PASS_VERIFY };
struct slot { bool ready, found; double seconds; struct quant_stats stats; }; /* found: an earlier run wrote its bytes */

struct run {
    struct quant_plan *p;
    const struct quant_run *r;
    struct pool *pool;
    struct journal journal;
    struct file_out *part;         /* [n_files] */
    struct chunk_room *room;       /* [n_threads] */
    bool begun;                    /* there is something that a resume could use */
    enum pass pass;
    _Atomic int64_t next, joined;  /* chunks taken, chunks joined */
    _Atomic int64_t ahead;         /* chunks whose source was asked for */
    _Atomic bool stop;
    _Atomic int working;           /* threads that have not returned */
    pthread_mutex_t lock;          /* all below */
    struct err err;                /* of the lowest chunk that failed */
    int64_t err_chunk;
    struct slot slot[RING];
    int64_t item;                  /* being joined */
    size_t bytes_done, bytes_found; /* of the input; found: those of bytes_done that an earlier run wrote */
    size_t bytes_before;           /* of the input, written by an earlier run as its journal says */
    double error_sum, error_n;     /* squared relative errors of finished tensors, times elements */
};

static void nap(double s)
{
    struct timespec t = { 0, (long)(s * 1e9) };
    nanosleep(&t, NULL);
}

/* ---- one chunk ---- */

static void ask_ahead(struct run *x, int64_t c, size_t chunk_bytes)
{
    int64_t depth = max_i64(2 * x->p->n_threads, AHEAD_BYTES / (int64_t)(chunk_bytes + 1)), end = min_i64(c + depth, x->p->n_chunks);
    for (int64_t i; (i = atomic_load(&x->ahead)) < end;) {
        struct chunk k;
        if (!atomic_compare_exchange_strong(&x->ahead, &i, i + 1)) continue;
        chunk_at(x->p, i, &k);
        if (k.source_bytes == 0) continue; /* the system would take it for "all" */
        file_reader_want(&x->p->source[x->p->work[k.item].source], k.source_bytes, k.source_offset);
    }
}

static struct file_out *file_of(struct run *x, int64_t item) { return &x->part[x->p->work[item].file]; }

/* A chunk lies in one place of the output, or in two: the matrix, and the outlier columns beside it. */
static status put_bytes(struct run *x, const struct chunk *k, const uint8_t *bytes, struct err *e)
{
    TRY(file_write_at(file_of(x, k->item), bytes, k->bytes, k->offset, e));
    if (k->part_bytes == 0) return OK;
    return file_write_at(file_of(x, x->p->work[k->item].part), bytes + k->bytes, k->part_bytes, k->part_offset, e);
}

/* *same: the bytes are there and are what the journal says. */
static status get_bytes(struct run *x, int64_t c, const struct chunk *k, uint8_t *bytes, bool *same, struct err *e)
{
    size_t got, part_got = 0;
    TRY(file_read_at(file_of(x, k->item), bytes, k->bytes, k->offset, &got, e));
    if (k->part_bytes > 0) TRY(file_read_at(file_of(x, x->p->work[k->item].part), bytes + k->bytes, k->part_bytes, k->part_offset, &part_got, e));
    *same = got + part_got == k->bytes + k->part_bytes && chunk_hash(bytes, k->bytes + k->part_bytes) == x->journal.done[c];
    return OK;
}

/* Bytes that an earlier run wrote; NULL: to be made. */
static const uint8_t *found_bytes(struct run *x, int64_t c, const struct chunk *k, struct chunk_room *room)
{
    bool same;
    return x->journal.done[c] && get_bytes(x, c, k, room->check, &same, NULL) == OK && same ? room->check : NULL;
}

static status write_chunk(struct run *x, int64_t c, const struct chunk *k, struct chunk_room *room, struct slot *out, struct err *e)
{
    ask_ahead(x, c, k->source_bytes);
    TRY(chunk_load(x->p, k, room, e));
    const uint8_t *bytes = found_bytes(x, c, k, room);
    out->found = bytes != NULL;
    if (!bytes && x->p->work[k->item].solved)
        return err_set(e, ERR_RUNTIME, "%s: bytes %zu to %zu of %s have changed since they were written", x->p->item[k->item].src->name, k->offset,
                       k->offset + k->bytes, file_of(x, k->item)->part);
    if (!bytes) {
        bytes = chunk_make(x->p, k, room);
        TRY(chunk_check(x->p, k, bytes, e));
        TRY(put_bytes(x, k, bytes, e));
        x->journal.done[c] = chunk_hash(bytes, k->bytes + k->part_bytes);
        TRY(journal_mark(&x->journal, c, x->journal.done[c], e));
    }
    chunk_stats(x->p, k, room, bytes, x->r->full_stats, &out->stats);
    return OK;
}

static status verify_chunk(struct run *x, int64_t c, const struct chunk *k, struct chunk_room *room, struct slot *out, struct err *e)
{
    bool same;
    const char *name = x->p->item[k->item].src->name;
    ask_ahead(x, c, k->source_bytes);
    TRY(get_bytes(x, c, k, room->check, &same, e));
    if (!same)
        return err_set(e, ERR_VERIFY, "%s: bytes %zu to %zu of %s are not what was written", name, k->offset, k->offset + k->bytes,
                       file_of(x, k->item)->part);
    TRY(chunk_load(x->p, k, room, e));
    if (c % RECHECK == 0 && !x->p->work[k->item].solved) {
        const uint8_t *again = chunk_make(x->p, k, room);
        if (memcmp(again, room->check, k->bytes + k->part_bytes)) return err_set(e, ERR_VERIFY, "%s: quantizing it again gives other bytes", name);
    }
    chunk_stats(x->p, k, room, room->check, true, &out->stats);
    return OK;
}

static bool needs_range(const struct quant_plan *p, int64_t item)
{
    const struct quantizer *m = p->work[item].method;
    return m && m->needs_range && p->o.spec.granularity == PER_TENSOR;
}

static status range_chunk(struct run *x, const struct chunk *k, struct chunk_room *room, struct err *e)
{
    struct item_work *w = &x->p->work[k->item];
    float lo, hi;
    TRY(chunk_load(x->p, k, room, e));
    chunk_range(x->p, k, room, &lo, &hi);
    pthread_mutex_lock(&x->lock);
    bool first = w->lo > w->hi;
    if (first || lo < w->lo) w->lo = lo;
    if (first || hi > w->hi) w->hi = hi;
    pthread_mutex_unlock(&x->lock);
    return OK;
}

static status do_chunk(struct run *x, int64_t c, struct chunk_room *room, struct slot *out, struct err *e)
{
    struct chunk k;
    chunk_at(x->p, c, &k);
    memset(&out->stats, 0, sizeof out->stats);
    out->found = false;
    if (x->pass == PASS_RANGE && !needs_range(x->p, k.item)) return OK;
    status st = x->pass == PASS_RANGE    ? range_chunk(x, &k, room, e)
                : x->pass == PASS_WRITE  ? write_chunk(x, c, &k, room, out, e)
                                         : verify_chunk(x, c, &k, room, out, e);
    if (x->p->passing && k.source_bytes > 0) file_reader_drop(&x->p->source[x->p->work[k.item].source], k.source_bytes, k.source_offset);
    return st;
}

/* ---- joining ---- */

static void end_item(struct run *x, int64_t i)
{
    const struct quant_item *it = &x->p->item[i];
    double relative = stats_weighted(&it->stats), n = (double)tensor_elements(it->src);
    if (it->kept) return;
    x->error_sum += relative * relative * n;
    x->error_n += n;
}

/* Under the lock: all chunks that are ready and next in order. */
static void join(struct run *x)
{
    struct quant_plan *p = x->p;
    for (int64_t c; (c = atomic_load(&x->joined)) < p->n_chunks && x->slot[c % RING].ready; atomic_store(&x->joined, c + 1)) {
        struct slot *s = &x->slot[c % RING];
        struct chunk k;
        chunk_at(p, c, &k);
        if (x->pass != PASS_RANGE) {
            stats_join(&p->item[k.item].stats, &s->stats);
            p->item[k.item].seconds += s->seconds;
        }
        x->bytes_done += k.source_bytes;
        if (s->found) x->bytes_found += k.source_bytes;
        s->ready = false;
        if (c + 1 == p->work[k.item].first + p->work[k.item].n) {
            end_item(x, k.item);
            x->item = k.item + 1;
        }
    }
}

static void publish(struct run *x, int64_t c, const struct slot *s, status st, const struct err *e)
{
    pthread_mutex_lock(&x->lock);
    if (st != OK && (x->err.code == OK || c < x->err_chunk)) {
        x->err = *e;
        x->err_chunk = c;
    }
    if (st == OK) {
        x->slot[c % RING] = *s;
        x->slot[c % RING].ready = true;
        join(x);
    }
    pthread_mutex_unlock(&x->lock);
    if (st != OK) atomic_store(&x->stop, true);
}

static void work(struct run *x, struct chunk_room *room)
{
    for (int64_t c; !atomic_load(&x->stop) && (c = atomic_fetch_add(&x->next, 1)) < x->p->n_chunks;) {
        struct slot s;
        struct err e = { 0 };
        while (c - atomic_load(&x->joined) >= RING && !atomic_load(&x->stop)) nap(50e-6);
        if (atomic_load(&x->stop)) break;
        double start = now_seconds();
        status st = do_chunk(x, c, room, &s, &e);
        s.seconds = now_seconds() - start;
        publish(x, c, &s, st, &e);
    }
}

/* ---- the caller's thread ---- */

static void fail(struct run *x, const struct err *e)
{
    pthread_mutex_lock(&x->lock);
    if (x->err.code == OK) {
        x->err = *e;
        x->err_chunk = INT64_MAX; /* a chunk's error says more */
    }
    pthread_mutex_unlock(&x->lock);
    atomic_store(&x->stop, true);
}

/* Every tensor that ended since the last look, then the one at work. */
static bool report(struct run *x, int64_t *told)
{
    struct quant_plan *p = x->p;
    if (!x->r->progress || x->pass == PASS_RANGE) return true;
    pthread_mutex_lock(&x->lock);
    int64_t item = x->item;
    struct quant_progress now = { .n = p->n, .bytes_done = x->bytes_done, .bytes_found = x->bytes_found,
                                  .bytes_before = x->bytes_before, .verifying = x->pass == PASS_VERIFY,
                                  .rel_error = x->error_n > 0 ? sqrt(x->error_sum / x->error_n) : 0 };
    pthread_mutex_unlock(&x->lock);
    for (int64_t i = 0; i < p->n; i++) now.bytes_total += p->item[i].bytes_from;
    for (; *told < item; ++*told) {
        now.i = *told, now.item = &p->item[*told], now.finished = true;
        if (!x->r->progress(x->r->ctx, &now)) return false;
    }
    now.i = min_i64(item, p->n - 1), now.item = &p->item[now.i], now.finished = false;
    return x->r->progress(x->r->ctx, &now);
}

/* Data first: a word of the journal that is on disk before its bytes would only cost a hash on resuming, but promises nothing. */
static status flush(struct run *x, struct err *e)
{
    for (int i = 0; i < x->p->n_files; i++) TRY(file_flush(&x->part[i], e));
    return journal_flush(&x->journal, e);
}

static void keep_books(struct run *x)
{
    double flushed = now_seconds(), wait = 1e-3;
    int64_t told = 0;
    struct err e = { 0 };
    while (atomic_load(&x->working) > 0) {
        nap(wait);
        wait = fmin(2 * wait, 0.05);
        if (!report(x, &told)) {
            err_set(&e, ERR_INTERRUPTED, "interrupted");
            fail(x, &e);
        }
        if (x->pass == PASS_WRITE && now_seconds() - flushed > FLUSH_SECONDS) {
            if (flush(x, &e) != OK) fail(x, &e);
            flushed = now_seconds();
        }
    }
    if (!atomic_load(&x->stop) && !report(x, &told)) {
        err_set(&e, ERR_INTERRUPTED, "interrupted");
        fail(x, &e);
    }
}

static void thread_main(void *ctx, int ith, int nth)
{
    struct run *x = ctx;
    if (ith == 0) {
        keep_books(x);
        return;
    }
    work(x, &x->room[ith - 1]);
    atomic_fetch_sub(&x->working, 1);
}

static status run_pass(struct run *x, enum pass pass, struct err *e)
{
    struct quant_plan *p = x->p;
    x->pass = pass;
    x->item = 0, x->bytes_done = x->bytes_found = 0, x->error_sum = x->error_n = 0;
    atomic_store(&x->next, 0), atomic_store(&x->joined, 0), atomic_store(&x->ahead, 0), atomic_store(&x->stop, false);
    atomic_store(&x->working, p->n_threads);
    for (int i = 0; i < RING; i++) x->slot[i].ready = false;
    for (int64_t i = 0; i < p->n; i++) {
        if (pass != PASS_RANGE) p->item[i].stats = (struct quant_stats){ 0 }, p->item[i].seconds = 0;
        if (pass == PASS_RANGE) p->work[i].lo = 1, p->work[i].hi = -1;
    }
    pool_run(x->pool, thread_main, x);
    if (x->err.code == OK) return OK;
    return err_set(e, x->err.code, "%s", x->err.text);
}

/* ---- tensors that a solver makes ---- */

/* Chunks of one item follow each other in the file: their bytes are the item's. */
status quant_output_get(struct quant_output *o, int64_t i, void *bytes, bool *have, struct err *e)
{
    struct run *x = (struct run *)o;
    struct item_work *w = &x->p->work[i];
    *have = true;
    for (int64_t c = w->first; *have && c < w->first + w->n; c++) {
        struct chunk k;
        chunk_at(x->p, c, &k);
        *have = x->journal.done[c] != 0;
        if (*have) TRY(get_bytes(x, c, &k, (uint8_t *)bytes + (k.offset - w->offset), have, e));
    }
    if (*have) *have = journal_noted(&x->journal, i, &x->p->item[i].solved); /* a number of the header would be missing */
    w->solved = *have;
    return OK;
}

status quant_output_put(struct quant_output *o, int64_t i, const void *bytes, const struct solved *s, struct err *e)
{
    struct run *x = (struct run *)o;
    struct item_work *w = &x->p->work[i];
    assert(!x->p->item[i].kept && x->p->item[i].n_outliers == 0);
    x->p->item[i].solved = s ? *s : (struct solved){ .stage = { 0 } };
    TRY(journal_note(&x->journal, i, &x->p->item[i].solved, e)); /* first: bytes that are found are found with it */
    for (int64_t c = w->first; c < w->first + w->n; c++) {
        struct chunk k;
        chunk_at(x->p, c, &k);
        const uint8_t *from = (const uint8_t *)bytes + (k.offset - w->offset);
        TRY(put_bytes(x, &k, from, e));
        x->journal.done[c] = chunk_hash(from, k.bytes);
        TRY(journal_mark(&x->journal, c, x->journal.done[c], e));
    }
    w->solved = true;
    return flush(x, e);
}

struct making {
    struct run *x;
    const struct item_work *w;
    uint8_t *bytes;
    struct chunk_room *room;   /* [threads] */
    struct err *e;             /* [threads] */
    _Atomic int64_t next;
};

static void make_thread(void *ctx, int ith, int nth)
{
    struct making *m = ctx;
    (void)nth;
    for (int64_t c; m->e[ith].code == OK && (c = atomic_fetch_add(&m->next, 1)) < m->w->n;) {
        struct chunk k;
        chunk_at(m->x->p, m->w->first + c, &k);
        if (chunk_load(m->x->p, &k, &m->room[ith], &m->e[ith]) != OK) return;
        const uint8_t *made = chunk_make(m->x->p, &k, &m->room[ith]);
        if (chunk_check(m->x->p, &k, made, &m->e[ith]) == OK) memcpy(m->bytes + (k.offset - m->w->offset), made, k.bytes);
    }
}

status quant_output_make(struct quant_output *o, int64_t i, void *bytes, struct pool *p, struct err *e)
{
    struct run *x = (struct run *)o;
    int threads = pool_threads(p);
    struct making m = { .x = x, .w = &x->p->work[i], .bytes = bytes };
    assert(!x->p->item[i].kept && x->p->item[i].n_outliers == 0);
    m.room = mem_calloc((size_t)threads, sizeof *m.room);
    m.e = mem_calloc((size_t)threads, sizeof *m.e);
    status st = m.room && m.e ? OK : err_oom(e, "buffers", (size_t)threads * sizeof *m.room);
    for (int t = 0; st == OK && t < threads; t++) st = chunk_room_init(&m.room[t], x->p, e);
    if (st == OK) pool_run(p, make_thread, &m);
    for (int t = 0; st == OK && t < threads; t++)
        if (m.e[t].code != OK) st = err_set(e, m.e[t].code, "%s", m.e[t].text);
    for (int t = 0; m.room && t < threads; t++) chunk_room_free(&m.room[t]);
    mem_free(m.room);
    mem_free(m.e);
    return st;
}

double quant_held_out(const struct quant_plan *p)
{
    double sum = 0, n = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const double *h = p->item[i].solved.held_out;
        if (h[0] > 0) sum += h[1] / h[0], n++;
    }
    return n > 0 ? sum / n : 0;
}

/* The header was written before there was an error to tell; its place is there. */
static status tell_held_out(struct run *x, struct err *e)
{
    struct gguf_header *h = &x->p->file[0];
    float error = (float)quant_held_out(x->p);
    if (error == 0) return OK;
    TRY(plan_set_held_out(h, error, e));
    return file_write_at(&x->part[0], h->data, h->n, 0, e);
}

/* ---- files ---- */

bool quant_out_name(const struct quant_plan *p, const char *out, int i, char *path, size_t cap)
{
    static const char end[] = ".gguf";
    size_t n = strlen(out), m = sizeof end - 1;
    if (p->o.split_bytes <= 0) return snprintf(path, cap, "%s", out) < (int)cap;
    if (n > m && !strcasecmp(out + n - m, end)) n -= m;
    return n < INT_MAX && snprintf(path, cap, "%.*s-%05d-of-%05d.gguf", (int)n, out, i + 1, p->n_files) < (int)cap;
}

static bool part_name(const struct quant_plan *p, const char *out, int i, char *path, size_t cap)
{
    if (!quant_out_name(p, out, i, path, cap)) return false;
    size_t n = strlen(path);
    return snprintf(path + n, cap - n, ".part") < (int)(cap - n);
}

/* One output may be a symbolic link; part and journal then stand beside the file it leads to. The parts of a split output may not be links. */
static status find_target(const struct quant_plan *p, const char *out, char target[PATH_MAX], struct err *e)
{
    char path[PATH_MAX];
    if (p->o.split_bytes <= 0 && !file_target(out, target, PATH_MAX))
        return err_set(e, ERR_USAGE, "%.80s: the path is too long, or a symbolic link that leads nowhere", out);
    if (p->o.split_bytes <= 0) return OK;
    if (snprintf(target, PATH_MAX, "%s", out) >= PATH_MAX) return err_set(e, ERR_USAGE, "%.80s...: the path is too long", out);
    for (int i = 0; i < p->n_files; i++)
        if (!quant_out_name(p, out, i, path, sizeof path) || !file_target(path, target, PATH_MAX) || strcmp(path, target) != 0)
            return err_set(e, ERR_USAGE, "%.80s: part %d is a symbolic link, or its path is too long", out, i + 1);
    memcpy(target, out, strlen(out) + 1);
    return OK;
}

bool quant_resumable(const struct quant_plan *p, const char *link)
{
    char path[PATH_MAX], out[PATH_MAX];
    struct file_facts f;
    if (find_target(p, link, out, NULL) != OK) return false;
    return journal_name(out, path, sizeof path) && file_stat(path, &f) && part_name(p, out, 0, path, sizeof path) && file_stat(path, &f);
}

static bool is_input(const struct quant_plan *p, const struct file_facts *f)
{
    for (int i = 0; i < p->n_sources; i++)
        if (f->dev == p->source[i].dev && f->ino == p->source[i].ino) return true;
    return false;
}

/* What stands in the way of the output, before anything is touched. A journal alone counts too: its parts may be of another --split-size. */
static status look_at_names(const struct quant_plan *p, const char *out, const struct quant_run *r, bool resuming, struct err *e)
{
    static const char left[] = "%s: left by an earlier run; --resume continues it, --overwrite starts anew";
    char path[PATH_MAX];
    struct file_facts f;
    for (int i = 0; i < p->n_files; i++) {
        if (!quant_out_name(p, out, i, path, sizeof path - 8)) return err_set(e, ERR_USAGE, "%.80s...: the path is too long", out);
        if (file_stat(path, &f) && is_input(p, &f)) return err_set(e, ERR_USAGE, "%s: is the input itself", path);
        if (!part_name(p, out, i, path, sizeof path)) return err_set(e, ERR_USAGE, "%.80s...: the path is too long", out);
        if (!file_stat(path, &f)) continue;
        if (is_input(p, &f)) return err_set(e, ERR_USAGE, "%s: is the input itself", path);
        if (resuming || r->overwrite) continue;
        if (r->resume) return err_set(e, ERR_USAGE, "%s: has no journal, so it cannot be resumed; --overwrite starts anew", path);
        return err_set(e, ERR_USAGE, left, path);
    }
    if (!resuming && !r->overwrite && journal_name(out, path, sizeof path) && file_stat(path, &f)) return err_set(e, ERR_USAGE, left, path);
    return OK;
}

static status look_at_finals(const struct quant_plan *p, const char *out, struct err *e)
{
    char path[PATH_MAX];
    struct file_facts f;
    for (int i = 0; i < p->n_files; i++)
        if (quant_out_name(p, out, i, path, sizeof path) && file_stat(path, &f))
            return err_set(e, ERR_USAGE, f.regular ? "%s: exists; --overwrite replaces it" : "%s: exists and is no regular file", path);
    return OK;
}

/* A journal says that this run would go on with an earlier one. */
static bool resumes(const char *out, const struct quant_run *r)
{
    char path[PATH_MAX];
    struct file_facts f;
    return r->resume && journal_name(out, path, sizeof path) && file_stat(path, &f);
}

status quant_out_check(const struct quant_plan *p, const char *link, const struct quant_run *r, struct err *e)
{
    char out[PATH_MAX];
    TRY(find_target(p, link, out, e));
    bool resuming = resumes(out, r);
    TRY(look_at_names(p, out, r, resuming, e));
    return resuming || r->overwrite ? OK : look_at_finals(p, out, e);
}

/* A run that died while renaming: finished files go back to being parts, and their bytes are checked like any others. A file of another size
 * has taken the name since then, and stays. */
static status take_back(const struct quant_plan *p, const char *out, struct err *e)
{
    char path[PATH_MAX], part[PATH_MAX];
    struct file_facts f;
    for (int i = 0; i < p->n_files; i++) {
        if (!quant_out_name(p, out, i, path, sizeof path) || !part_name(p, out, i, part, sizeof part)) continue;
        if (file_stat(part, &f) || !file_stat(path, &f) || f.size != p->file[i].size) continue;
        if (rename(path, part) != 0) return err_set(e, ERR_RUNTIME, "%s: cannot rename back to %s", path, part);
    }
    return OK;
}

static status check_room(const struct run *x, const char *out, struct err *e)
{
    uint64_t need = 0, have = file_room(out);
    struct file_facts f;
    for (int i = 0; i < x->p->n_files; i++) {
        need += x->p->file[i].size;
        if (file_stat(x->part[i].part, &f)) need -= f.allocated < need ? f.allocated : need;
    }
    if (have == UINT64_MAX || need <= have) return OK;
    return err_set(e, ERR_RUNTIME, "%s: the disk has %llu MiB free, %llu MiB are needed", out, (unsigned long long)(have >> 20),
                   (unsigned long long)(need >> 20));
}

static size_t bytes_before(const struct run *x)
{
    size_t n = 0;
    for (int64_t c = 0; c < x->p->n_chunks; c++) {
        struct chunk k;
        if (!x->journal.done[c]) continue;
        chunk_at(x->p, c, &k);
        n += k.source_bytes;
    }
    return n;
}

static status open_files(struct run *x, const char *out, struct err *e)
{
    struct quant_plan *p = x->p;
    char path[PATH_MAX];
    struct job job;
    bool resuming = resumes(out, x->r);
    TRY(look_at_names(p, out, x->r, resuming, e));
    if (!resuming && !x->r->overwrite) TRY(look_at_finals(p, out, e));
    job_of(p, &job);
    TRY(journal_open(&x->journal, out, &job, p->n_chunks, !resuming, e));
    x->begun = resuming;
    x->bytes_before = bytes_before(x);
    if (x->journal.committing) TRY(take_back(p, out, e));
    if (resuming && !x->r->overwrite) TRY(look_at_finals(p, out, e));
    for (int i = 0; i < p->n_files; i++) {
        bool existed;
        if (!quant_out_name(p, out, i, path, sizeof path)) return err_set(e, ERR_USAGE, "%.80s...: the path is too long", out);
        TRY(file_part(&x->part[i], path, &existed, e));
        if (existed && !resuming) TRY(file_resize(&x->part[i], 0, e));
    }
    TRY(check_room(x, out, e));
    for (int i = 0; i < p->n_files; i++) TRY(file_write_at(&x->part[i], p->file[i].data, p->file[i].n, 0, e));
    return OK;
}

static status check_headers(struct run *x, struct err *e)
{
    for (int i = 0; i < x->p->n_files; i++) {
        const struct gguf_header *h = &x->p->file[i];
        struct file_facts f;
        size_t got = 0;
        uint8_t *back = mem_alloc(h->n);
        if (!back) return err_oom(e, "verification", h->n);
        status st = file_read_at(&x->part[i], back, h->n, 0, &got, e);
        bool same = got == h->n && !memcmp(back, h->data, h->n) && file_stat(x->part[i].part, &f) && f.size == h->size;
        mem_free(back);
        if (st == OK && !same) st = err_set(e, ERR_VERIFY, "%s: the header or the size is not what was written", x->part[i].part);
        if (st != OK) return st;
    }
    return OK;
}

/* The bytes come from the disk, not from memory: the cache was dropped after flushing. */
static status verify(struct run *x, struct err *e)
{
    for (int i = 0; i < x->p->n_files; i++) file_forget_cache(&x->part[i]);
    TRY(check_headers(x, e));
    return run_pass(x, PASS_VERIFY, e);
}

static status finish(struct run *x, const char *out, struct err *e)
{
    for (int i = 0; i < x->p->n_files; i++) TRY(file_resize(&x->part[i], x->p->file[i].size, e));
    TRY(tell_held_out(x, e));
    TRY(flush(x, e));
    if (x->r->verify) TRY(verify(x, e));
    if (!x->r->overwrite) TRY(look_at_finals(x->p, out, e)); /* hours may have passed */
    TRY(journal_commit(&x->journal, e));
    for (int i = x->p->n_files - 1; i >= 0; i--) TRY(file_commit(&x->part[i], e)); /* the first last: it is the one that is opened */
    return OK;
}

static status run_all(struct run *x, const char *out, struct err *e)
{
    struct quant_plan *p = x->p;
    bool ranges = false;
    TRY(quant_plan_check(p, e));
    TRY(open_files(x, out, e));
    TRY(pool_open(&x->pool, p->n_threads + 1, e));
    for (int i = 0; i < p->n_threads; i++) TRY(chunk_room_init(&x->room[i], p, e));
    for (int64_t i = 0; i < p->n; i++) ranges |= needs_range(p, i);
    if (ranges) TRY(run_pass(x, PASS_RANGE, e));
    x->begun = true;
    if (x->r->solve) TRY(x->r->solve(x->r->solve_ctx, (struct quant_output *)x, e));
    TRY(run_pass(x, PASS_WRITE, e));
    for (int i = 0; i < p->n_sources; i++) TRY(file_reader_unchanged(&p->source[i], e));
    return finish(x, out, e);
}

/* Damaged weights cannot be resumed into sound ones, and before the first chunk there is nothing to resume: nothing is left. Otherwise the
 * parts stay. */
static void close_all(struct run *x, status st)
{
    bool in_vain = st == ERR_FORMAT || (st != OK && !x->begun);
    for (int i = 0; x->part && i < x->p->n_files; i++) {
        if (in_vain) file_abort(&x->part[i]);
        else file_leave(&x->part[i]);
    }
    journal_close(&x->journal, st == OK || in_vain);
    pool_close(x->pool);
    for (int i = 0; x->room && i < x->p->n_threads; i++) chunk_room_free(&x->room[i]);
    mem_free(x->part);
    mem_free(x->room);
    pthread_mutex_destroy(&x->lock);
    mem_free(x);
}

status quant_file(struct quant_plan *p, const char *link, const struct quant_run *r, struct err *e)
{
    struct err own = { 0 };
    char out[PATH_MAX];
    if (!e) e = &own;
    TRY(find_target(p, link, out, e));
    struct run *x = mem_calloc(1, sizeof *x);
    if (!x) return err_oom(e, "quantization", sizeof *x);
    if (pthread_mutex_init(&x->lock, NULL) != 0) {
        mem_free(x);
        return err_oom(e, "lock", 0);
    }
    x->p = p, x->r = r;
    x->journal.fd = -1;
    x->part = mem_calloc((size_t)p->n_files, sizeof *x->part);
    x->room = mem_calloc((size_t)p->n_threads, sizeof *x->room);
    for (int i = 0; x->part && i < p->n_files; i++) x->part[i].fd = -1;
    status st = x->part && x->room ? run_all(x, out, e) : err_oom(e, "quantization", sizeof *x);
    close_all(x, st);
    return st;
}

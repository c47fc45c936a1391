/* predict - what a quantization will cost: bytes are exact, memory is a sum of what is allocated, time is measured on a few rows of each kind of
 * work with all threads running, as in the run itself. Reading and writing go on beside the work, so the slowest of the three decides; what the
 * last flush finds unwritten comes on top. */
#include <stdatomic.h>
#include <string.h>
#include "ggml-like/pool.h"
#include "quant/plan_int.h"

enum { KINDS = 64, TRIAL_MS = 1200, TRIAL_MS_MAX = 250, TRIAL_WRITE = 3 << 20 };

/* ---- memory ---- */

/* Measured: program, C library and stacks of a small run 3.2 MiB resident; a thread besides its buffers 0.2 MiB. */
enum { BASE_BYTES = 3300 << 10, THREAD_BYTES = 256 << 10 };

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* What a thread touches of its buffers: pages that no chunk reaches cost nothing. */
static size_t room_touched(const struct quant_plan *p, bool reads_back)
{
    size_t floats = 0, source = 0, out = 0, row = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const struct quant_item *it = &p->item[i];
        size_t n = (size_t)p->work[i].chunk_rows;
        if (it->kept) {
            size_t piece = it->bytes_from < n ? it->bytes_from : n;
            source = larger(source, piece);
            if (p->work[i].sound) floats = larger(floats, larger(piece / (size_t)it->src->type->block_bytes, 1) * sizeof(float));
            continue;
        }
        floats = larger(floats, n * (size_t)it->cols * sizeof(float));
        if (it->src->type->gguf_id != GGUF_F32) source = larger(source, n * dtype_row_bytes(it->src->type, it->cols));
        out = larger(out, n * dtype_row_bytes(it->to, it->cols));
        row = larger(row, (size_t)it->cols * sizeof(float));
    }
    return floats + source + (reads_back ? 2 : 1) * out + (p->o.importance ? 2 : 1) * row + p->room_apart * sizeof(float);
}

static size_t ram(const struct quant_plan *p, const struct quant_run *run, size_t scratch)
{
    size_t headers = 0, importance = 0;
    for (int i = 0; i < p->n_files; i++) headers += p->file[i].n;
    for (int64_t i = 0; p->o.importance && i < p->o.importance->n; i++) {
        const struct importance_entry *en = &p->o.importance->entry[i];
        importance += (size_t)(en->n_cols * en->n_mat) * sizeof(double) + (size_t)en->n_mat * sizeof(int64_t) + 256;
    }
    size_t items = (size_t)p->n * (sizeof(struct quant_item) + sizeof(struct item_work)), journal = (size_t)p->n_chunks * sizeof(uint64_t);
    size_t thread = room_touched(p, run && (run->verify || run->resume)) + scratch + THREAD_BYTES;
    size_t running = p->g.data_offset + headers + journal + (size_t)p->n_threads * thread;
    size_t planning = 3 * p->g.data_offset; /* read, collected, laid out: a large vocabulary outweighs the buffers of the threads */
    return BASE_BYTES + importance + items + p->mem.total + larger(running, planning);
}

/* ---- time ---- */

struct kind {
    const struct dtype *from, *to;
    const struct quantizer *method; /* NULL: copied */
    bool weighted;
    double elements;               /* in the plan */
    int64_t first, n;              /* chunks of the largest tensor of this kind */
    int64_t best;
    double rate;                   /* elements a second, all threads */
};
struct trial {
    const struct quant_plan *p;
    const struct quant_run *run;
    struct chunk_room *room;
    const struct kind *kind;
    double until;
    _Atomic int64_t next, elements, read_bytes;
    _Atomic int64_t read_ns, work_ns, verify_ns; /* of all threads together */
};
struct prediction {
    double work, verify;           /* seconds, by all threads */
    double read_speed;             /* bytes a second; 0: not known */
    size_t scratch;                /* bytes that the searches touch, a thread */
};

static int find_kinds(const struct quant_plan *p, struct kind *kinds)
{
    int n = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const struct quant_item *it = &p->item[i];
        const struct item_work *w = &p->work[i];
        if (it->added) continue;
        int k = 0;
        while (k < n && (kinds[k].from != it->src->type || kinds[k].to != it->to || kinds[k].method != w->method ||
                         kinds[k].weighted != it->has_importance)) k++;
        if (k == KINDS) k = KINDS - 1; /* more kinds than formats times two: the last stands for the rest */
        if (k == n) kinds[n++] = (struct kind){ .from = it->src->type, .to = it->to, .method = w->method, .weighted = it->has_importance };
        int64_t elements = tensor_elements(it->src);
        kinds[k].elements += (double)elements;
        if (elements > kinds[k].best) kinds[k].best = elements, kinds[k].first = w->first, kinds[k].n = w->n;
    }
    return n;
}

/* Nanoseconds since *at, which becomes now. */
static int64_t lap(double *at)
{
    double now = now_seconds(), since = now - *at;
    *at = now;
    return (int64_t)(since * 1e9);
}

/* One chunk as the run works on it. The first read may come from the disk; the second, part of the work, does not. */
static bool try_chunk(struct trial *t, const struct chunk *c, struct chunk_room *room, bool again)
{
    const struct quant_plan *p = t->p;
    struct quant_stats s;
    double at = now_seconds();
    void *to = c->source_bytes <= p->room_source ? (void *)room->source : (void *)room->x;
    if (file_reader_read(&p->source[p->work[c->item].source], to, c->source_bytes, c->source_offset, NULL) != OK) return false;
    atomic_fetch_add(&t->read_ns, lap(&at));
    atomic_fetch_add(&t->read_bytes, (int64_t)c->source_bytes);
    if (chunk_load(p, c, room, NULL) != OK) return false;
    const uint8_t *bytes = chunk_make(p, c, room);
    (void)!chunk_hash(bytes, c->bytes);
    if (bytes != room->source) /* takes as long as a write to the page cache */
        memcpy(room->source, bytes, c->bytes < p->room_source ? c->bytes : p->room_source);
    chunk_stats(p, c, room, bytes, t->run->full_stats, &s);
    atomic_fetch_add(&t->work_ns, lap(&at));
    if (!t->run->verify) return true;
    if (chunk_load(p, c, room, NULL) != OK) return false;
    if (again) bytes = chunk_make(p, c, room);
    (void)!chunk_hash(bytes, c->bytes);
    chunk_stats(p, c, room, bytes, true, &s);
    atomic_fetch_add(&t->verify_ns, lap(&at));
    return true;
}

/* Chunks spread over the tensor: its first rows may be unlike the rest. */
static void trial_thread(void *ctx, int ith, int nth)
{
    struct trial *t = ctx;
    do {
        int64_t i = atomic_fetch_add(&t->next, 1);
        struct chunk c;
        chunk_at(t->p, t->kind->first + (int64_t)((uint64_t)i * 0x9e3779b1u % (uint64_t)t->kind->n), &c);
        if (!try_chunk(t, &c, &t->room[ith], i % RECHECK == 0)) return;
        const struct quant_item *it = &t->p->item[c.item];
        atomic_fetch_add(&t->elements, it->kept ? c.n_rows / it->src->type->block_bytes * it->src->type->block_len : c.n_rows * it->cols);
    } while (now_seconds() < t->until);
}

static status try_kinds(const struct quant_plan *p, const struct quant_run *run, struct pool *pool, struct chunk_room *room, struct prediction *out)
{
    struct kind kinds[KINDS];
    int n = find_kinds(p, kinds);
    double all = 0, rest = 0, read_bytes = 0, read_seconds = 0;
    for (int k = 0; k < n; k++) all += kinds[k].elements;
    for (int k = 0; k < n; k++) {
        if (kinds[k].elements < all * 0.001) { /* norms and the like */
            rest += kinds[k].elements;
            continue;
        }
        double ms = TRIAL_MS * kinds[k].elements / all;
        ms = ms < 20 ? 20 : ms > TRIAL_MS_MAX ? TRIAL_MS_MAX : ms;
        struct trial t = { .p = p, .run = run, .room = room, .kind = &kinds[k], .until = now_seconds() + ms * 1e-3 };
        pool_run(pool, trial_thread, &t);
        double elements = (double)atomic_load(&t.elements), share = 1e-9 / p->n_threads / elements * kinds[k].elements;
        if (elements == 0) return ERR_FORMAT; /* damaged weights: the run will name them */
        out->work += share * (double)atomic_load(&t.work_ns);
        out->verify += share * (double)atomic_load(&t.verify_ns);
        read_bytes += (double)atomic_load(&t.read_bytes);
        read_seconds += 1e-9 / p->n_threads * (double)atomic_load(&t.read_ns);
    }
    double more = all > rest ? all / (all - rest) : 1;
    out->work *= more, out->verify *= more;
    out->read_speed = read_seconds > 0 ? read_bytes / read_seconds : 0;
    out->scratch = mem_touched(room[0].scratch, QUANT_SCRATCH);
    return OK;
}

static status measure(const struct quant_plan *p, const struct quant_run *run, struct prediction *out)
{
    struct pool *pool = NULL;
    struct chunk_room *room = mem_calloc((size_t)p->n_threads, sizeof *room);
    *out = (struct prediction){ 0 };
    status st = room ? pool_open(&pool, p->n_threads, NULL) : ERR_MEMORY;
    for (int i = 0; st == OK && i < p->n_threads; i++) st = chunk_room_init(&room[i], p, NULL);
    if (st == OK) st = try_kinds(p, run, pool, room, out);
    for (int i = 0; room && i < p->n_threads; i++) chunk_room_free(&room[i]);
    mem_free(room);
    pool_close(pool);
    return st;
}

static double larger_of(double a, double b) { return a > b ? a : b; }

/* Work, reading and all flushes but the last run side by side. */
static double seconds_of(const struct quant_plan *p, const struct quant_run *run, const struct prediction *m, double from, double to, double write_speed)
{
    double read = m->read_speed > 0 ? from / m->read_speed : 0, write = write_speed > 0 ? to / write_speed : 0;
    double busy = larger_of(m->work, read), last = busy > FLUSH_SECONDS ? write * FLUSH_SECONDS / busy : write;
    double total = larger_of(busy, write - last) + last;
    if (!run->verify) return total;
    return total + larger_of(m->verify, m->read_speed > 0 ? (from + to) / m->read_speed : 0);
}

/* ---- errors of a sample ---- */

struct sampling {
    struct quant_plan *p;
    struct chunk_room *room;
    _Atomic int64_t next, failed;  /* items; the lowest that failed */
};

/* The middle chunk of one tensor. A scale for the whole tensor needs all of its chunks. */
static status sample_item(struct quant_plan *p, int64_t i, struct chunk_room *room, struct err *e)
{
    struct item_work *w = &p->work[i];
    struct chunk c;
    if (p->item[i].kept) return OK;
    w->lo = 1, w->hi = -1;
    for (int64_t k = 0; w->method->needs_range && p->o.spec.granularity == PER_TENSOR && k < w->n; k++) {
        float lo, hi;
        chunk_at(p, w->first + k, &c);
        TRY(chunk_load(p, &c, room, e));
        chunk_range(p, &c, room, &lo, &hi);
        if (w->lo > w->hi) w->lo = lo, w->hi = hi;
        if (lo < w->lo) w->lo = lo;
        if (hi > w->hi) w->hi = hi;
    }
    chunk_at(p, w->first + w->n / 2, &c);
    TRY(chunk_load(p, &c, room, e));
    chunk_stats(p, &c, room, chunk_make(p, &c, room), true, &p->item[i].stats);
    return OK;
}

static void sample_thread(void *ctx, int ith, int nth)
{
    struct sampling *s = ctx;
    for (int64_t i; (i = atomic_fetch_add(&s->next, 1)) < atomic_load(&s->failed);) {
        if (sample_item(s->p, i, &s->room[ith], NULL) == OK) continue;
        int64_t lowest = atomic_load(&s->failed);
        while (i < lowest && !atomic_compare_exchange_weak(&s->failed, &lowest, i)) {}
    }
}

status quant_plan_sample(struct quant_plan *p, struct err *e)
{
    struct pool *pool = NULL;
    struct sampling s = { .p = p, .failed = p->n };
    status st = pool_open(&pool, p->n_threads, e);
    s.room = mem_calloc((size_t)p->n_threads, sizeof *s.room);
    if (st == OK && !s.room) st = err_oom(e, "sample", (size_t)p->n_threads * sizeof *s.room);
    for (int i = 0; st == OK && i < p->n_threads; i++) st = chunk_room_init(&s.room[i], p, e);
    if (st == OK) pool_run(pool, sample_thread, &s);
    if (st == OK && s.failed < p->n) st = sample_item(p, s.failed, &s.room[0], e); /* again, for the words */
    for (int i = 0; s.room && i < p->n_threads; i++) chunk_room_free(&s.room[i]);
    mem_free(s.room);
    pool_close(pool);
    return st;
}

void quant_plan_totals(struct quant_plan *p, const struct quant_run *for_run, const char *out, struct quant_totals *t)
{
    double data_from = 0, data_to = 0;
    struct prediction m = { 0 };
    *t = (struct quant_totals){ .bytes_from = gguf_bytes(&p->g), .seconds = -1, .ftype = p->ftype, .n_files = p->n_files, .n_threads = p->n_threads,
                                .isa = p->k.name };
    for (int i = 0; i < p->n_files; i++) t->bytes_to += p->file[i].size;
    for (int64_t i = 0; i < p->n; i++) {
        const struct quant_item *it = &p->item[i];
        if (!it->added) t->n_params += (uint64_t)tensor_elements(it->src);
        t->n_outliers += it->n_outliers;
        t->n_outlier_matrices += it->n_outliers > 0;
        data_from += (double)it->bytes_from;
        data_to += (double)it->bytes_to;
        t->n_fallback += it->fallback;
        t->n_without_importance += p->o.importance && !it->kept && it->to->group_len > 0 && !it->has_importance &&
                                   !recipe_is_embd(it->src->name) && !recipe_is_head(it->src->name);
    }
    t->bpw_from = t->n_params ? 8 * data_from / (double)t->n_params : 0;
    t->bpw_to = t->n_params ? 8 * data_to / (double)t->n_params : 0;
    if (for_run && measure(p, for_run, &m) == OK)
        t->seconds = seconds_of(p, for_run, &m, (double)t->bytes_from, (double)t->bytes_to, out ? file_write_speed(out, TRIAL_WRITE) : 0);
    t->ram = ram(p, for_run, m.scratch);
}

/* convert_write - makes rows of the output from rows of the checkpoint, and writes the file with all threads.
 * A piece is some rows of one tensor; pieces go to their places in any order, and their bytes do not depend on who made them. */
#include "ggml-like/cpu.h"
#include "ggml-like/pool.h"
#include "src/convert_int.h"
#include "src/hf.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* Rows that go together: half a megabyte of halves stays in a core's cache between reading and writing, which halves the time beside 1 << 20. Sources that
 * are read by columns want more rows at once. */
enum { PIECE_FLOATS = 1 << 18, COLUMN_FLOATS = 1 << 20, COLUMN_ROWS = 256 };
static const size_t WHOLE_MAX = (size_t)1 << 30;

/* ---- rows ---- */

/* Row i of all rows of t: which source, which row of it; -1: zeros. */
static int64_t source_row(const struct convert *c, const struct out_tensor *t, int64_t i, const struct source **s)
{
    *s = &t->source[0];
    if (t->n_source > 1) {
        *s = &t->source[i / t->t.ne[1]];
        i %= t->t.ne[1];
    }
    return t->t.ne[1] > 1 ? hf_row(&c->model, t->row, t->own, t->il, i) : i;
}

static void finish_floats(const struct convert *c, const struct out_tensor *t, float *x, float *spare, int64_t n)
{
    bool mapped = t->own && t->own->row; /* elements of a vector go the way of a matrix's rows */
    if (t->t.ne[1] == 1 && (mapped || t->row->flags & WEIGHT_ROPE_PAIRS)) {
        memcpy(spare, x, (size_t)n * sizeof *x);
        for (int64_t i = 0; i < n; i++) {
            int64_t from = hf_row(&c->model, t->row, t->own, t->il, i);
            x[i] = from >= 0 && from < n ? spare[from] : 0;
        }
    }
    if (t->row->flags & WEIGHT_PLUS_ONE)
        for (int64_t i = 0; i < n; i++) x[i] += 1.0f;
    if (t->own && t->own->value)
        for (int64_t i = 0; i < n; i++) x[i] = t->own->value(x[i]);
}

/* Do rows come in the order of the source? */
static bool in_order(const struct out_tensor *t) { return !(t->own && t->own->row) && !(t->row->flags & WEIGHT_ROPE_PAIRS); }

/* Rows that need no change go from file to file. */
static bool as_they_are(const struct convert *c, const struct out_tensor *t)
{
    static const struct { enum ckpt_type from; int to; } same[] = { { CKPT_F32, GGUF_F32 }, { CKPT_F16, GGUF_F16 }, { CKPT_BF16, GGUF_BF16 } };
    bool changed = t->own && (t->own->load || t->own->value || t->own->factor);
    if (t->made || t->n_source == 0 || changed || t->row->flags & (WEIGHT_PLUS_ONE | WEIGHT_TRANSPOSED)) return false;
    for (int64_t x = 0; x < t->n_source; x++) {
        bool fits = false;
        for (int i = 0; i < ARRAY_LEN(same) && !t->source[x].turned.name && !t->source[x].packed; i++)
            fits |= t->source[x].t->type == same[i].from && t->t.type->gguf_id == same[i].to;
        if (!fits || !t->source[x].t->contiguous) return false;
    }
    return true;
}

static status copy_rows(struct convert *c, const struct out_tensor *t, int64_t row0, int64_t n, uint8_t *dst, struct err *e)
{
    int64_t per = t->n_source > 1 ? t->t.ne[1] : t->t.ne[1] * t->t.ne[2], cols = t->t.ne[0];
    while (n > 0) {
        int64_t m = min_i64(n, per - row0 % per);
        TRY(checkpoint_read(&c->im.ckpt, t->source[row0 / per].t, row0 % per * cols, m * cols, dst, e));
        row0 += m, n -= m;
        dst += (size_t)m * t->t.nb[1];
    }
    return OK;
}

/* Rows of one source that lie close together, in any order: the whole range is read once and rows are picked. Of a turned or packed source a row by
 * itself costs as much as a hundred. */
static status read_window(struct convert *c, const struct source *s, const struct dtype *type, const int64_t *from, int64_t n, int64_t lo, int64_t hi,
                          size_t row_bytes, uint8_t *out, struct err *e)
{
    size_t bytes = (size_t)(hi - lo + 1) * row_bytes;
    uint8_t *all = mem_alloc(bytes);
    if (!all) return err_oom(e, s->t->name, bytes);
    status st = source_read_as(&c->im, s, type, lo, hi - lo + 1, all, e);
    for (int64_t i = 0; st == OK && i < n; i++) memcpy(out + (size_t)i * row_bytes, all + (size_t)(from[i] - lo) * row_bytes, row_bytes);
    mem_free(all);
    return st;
}

enum { RUN = 1024 }; /* rows that are looked at at once */

/* Rows row0 .. row0 + n, at most RUN, of one source; returns how many in *n. from -1: zeros. */
static const struct source *next_rows(const struct convert *c, const struct out_tensor *t, int64_t row0, int64_t *n, int64_t *from)
{
    const struct source *s, *next;
    int64_t m = 1;
    from[0] = source_row(c, t, row0, &s);
    for (; m < *n && m < RUN; m++) {
        from[m] = source_row(c, t, row0 + m, &next);
        if (next != s || (from[m] < 0) != (from[0] < 0)) break;
    }
    *n = m;
    return s;
}

static int64_t source_height(const struct source *s) { return s->turned.name ? ckpt_rows(&s->turned) : source_rows(s); }

/* Rows of t as f32 (type NULL) or as blocks of a packed source. */
static status read_as(struct convert *c, const struct out_tensor *t, const struct dtype *type, int64_t row0, int64_t n, uint8_t *out, struct err *e)
{
    int64_t from[RUN], cols = t->t.ne[0];
    size_t row_bytes = type ? t->t.nb[1] : (size_t)cols * sizeof(float);
    for (int64_t i = 0, m; i < n; i += m) {
        m = n - i;
        const struct source *s = next_rows(c, t, row0 + i, &m, from);
        uint8_t *to = out + (size_t)i * row_bytes;
        int64_t lo = from[0], hi = from[0], run = 1;
        for (int64_t k = 1; k < m; k++) lo = min_i64(lo, from[k]), hi = max_i64(hi, from[k]);
        while (run < m && from[run] == from[0] + run) run++;
        if (lo < 0) memset(to, 0, (size_t)m * row_bytes);
        else if (hi >= source_height(s))
            return err_set(e, ERR_FORMAT, "%s: row %lld of %lld is needed", s->t->name, (long long)hi, (long long)source_height(s));
        else if (run < m && hi - lo < 4 * m) TRY(read_window(c, s, type, from, m, lo, hi, row_bytes, to, e));
        else TRY(source_read_as(&c->im, s, type, lo, m = run, to, e));
    }
    return OK;
}

static status convert_rows(struct convert *c, const struct out_tensor *t, int64_t row0, int64_t n, uint8_t *dst, float *scratch, struct err *e)
{
    int64_t cols = t->t.ne[0];
    bool matrix = t->t.ne[1] > 1 && !(t->row->flags & WEIGHT_VECTOR), same = as_they_are(c, t);
    if (same && in_order(t)) return copy_rows(c, t, row0, n, dst, e);
    if (t->exact || (same && matrix)) return read_as(c, t, t->t.type, row0, n, dst, e);
    if (t->made) {
        dtype_from_f32(t->t.type, t->made + row0 * cols, dst, n * cols);
        return OK;
    }
    const struct source *s = t->source;
    /* in one piece, whatever its dimensions: see check_source */
    bool whole = t->row->ne1 == DIM_1 || (t->row->flags & WEIGHT_VECTOR && !(t->own && t->own->row));
    if (whole) TRY(source_read(&c->im, s, 0, source_height(s), scratch, e));
    else TRY(read_as(c, t, NULL, row0, n, (uint8_t *)scratch, e));
    finish_floats(c, t, scratch, scratch + n * cols, n * cols);
    for (int64_t i = 0; t->own && t->own->factor && i < n; i++) {
        float by = (float)t->own->factor(&c->im, &c->model, t->il, row0 + i);
        for (int64_t j = 0; j < cols; j++) scratch[i * cols + j] *= by;
    }
    dtype_from_f32(t->t.type, scratch, dst, n * cols);
    return OK;
}

/* ---- pieces ---- */

struct writer {
    struct convert *c;
    struct file_out out;
    _Atomic int64_t next;
    _Atomic size_t done;
    _Atomic bool stop;
    int64_t n_pieces;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    size_t whole;      /* bytes of the tensors that are made as a whole just now */
    int64_t failed;    /* the first piece that failed, n_pieces if none did, and its error */
    struct err err;
};

/* Packed sources have rows in place of the function. */
static bool is_loaded(const struct out_tensor *t) { return t->own && t->own->load && t->n_source == 0; }

/* A tensor that is computed as a whole, or a vector, is one piece. Of turned and packed sources more rows at once cost less. */
static int64_t piece_rows(const struct out_tensor *t)
{
    int64_t rows = tensor_rows(&t->t);
    if (is_loaded(t)) return rows;
    if (t->row->ne1 == DIM_1 || t->row->flags & WEIGHT_VECTOR) return rows;
    bool columns = t->n_source > 0 && (t->source[0].turned.name || t->source[0].packed);
    int64_t n = columns ? max_i64(COLUMN_ROWS, COLUMN_FLOATS / t->t.ne[0]) : max_i64(1, PIECE_FLOATS / t->t.ne[0]);
    return min_i64(rows, n > 64 ? n & ~(int64_t)63 : n);
}

static int64_t piece_count(const struct out_tensor *t) { return (tensor_rows(&t->t) + piece_rows(t) - 1) / piece_rows(t); }

/* Tensors made as a whole may be as large as all experts of a layer: as many at once as fit into WHOLE_MAX, at least one. */
static void take_room(struct writer *w, size_t bytes)
{
    pthread_mutex_lock(&w->lock);
    while (w->whole > 0 && (bytes > WHOLE_MAX || w->whole > WHOLE_MAX - bytes)) pthread_cond_wait(&w->freed, &w->lock);
    w->whole += bytes;
    pthread_mutex_unlock(&w->lock);
}

static void give_room(struct writer *w, size_t bytes)
{
    pthread_mutex_lock(&w->lock);
    w->whole -= bytes;
    pthread_cond_broadcast(&w->freed);
    pthread_mutex_unlock(&w->lock);
}

static status load_whole(struct writer *w, const struct out_tensor *t, struct err *e)
{
    size_t bytes, floats;
    if (!mul_size((size_t)tensor_elements(&t->t), sizeof(float), &floats) || !add_size(floats, tensor_bytes(&t->t), &bytes))
        return err_oom(e, t->t.name, SIZE_MAX);
    take_room(w, bytes);
    float *x = mem_alloc(floats);
    uint8_t *packed = mem_alloc(tensor_bytes(&t->t));
    status st = x && packed ? OK : err_oom(e, t->t.name, bytes);
    if (st == OK) st = t->own->load(&w->c->im, &w->c->model, t->il, x, e);
    for (int64_t i = 0; st == OK && t->own->value && i < tensor_elements(&t->t); i++) x[i] = t->own->value(x[i]);
    if (st == OK) dtype_from_f32(t->t.type, x, packed, tensor_elements(&t->t));
    if (st == OK) st = file_write_at(&w->out, packed, tensor_bytes(&t->t), t->offset, e);
    mem_free(x);
    mem_free(packed);
    give_room(w, bytes);
    atomic_fetch_add(&w->done, tensor_bytes(&t->t));
    return st;
}

static status make_piece(struct writer *w, const struct out_tensor *t, int64_t piece, struct err *e)
{
    if (is_loaded(t)) return load_whole(w, t, e);
    int64_t rows = piece_rows(t), row0 = piece * rows, n = min_i64(rows, tensor_rows(&t->t) - row0);
    size_t floats = 2 * (size_t)(n * t->t.ne[0]) * sizeof(float), bytes = (size_t)n * t->t.nb[1];
    float *scratch = mem_alloc(floats);
    uint8_t *dst = mem_alloc(bytes);
    status st = scratch && dst ? OK : err_oom(e, t->t.name, floats + bytes);
    if (st == OK) st = convert_rows(w->c, t, row0, n, dst, scratch, e);
    if (st == OK) st = file_write_at(&w->out, dst, bytes, t->offset + (size_t)row0 * t->t.nb[1], e);
    mem_free(scratch);
    mem_free(dst);
    atomic_fetch_add(&w->done, bytes);
    return st;
}

static void work(void *ctx, int ith, int nth)
{
    struct writer *w = ctx;
    const struct convert_options *o = w->c->im.o;
    int64_t it = 0, before = 0;
    for (int64_t i; !atomic_load(&w->stop) && (i = atomic_fetch_add(&w->next, 1)) < w->n_pieces;) {
        struct err e = { 0 };
        while (i - before >= piece_count(&w->c->tensor[it])) before += piece_count(&w->c->tensor[it++]);
        status st = make_piece(w, &w->c->tensor[it], i - before, &e);
        if (st == OK && ith == 0 && o->progress && !o->progress(o->ctx, atomic_load(&w->done), w->c->header.size))
            st = err_set(&e, ERR_INTERRUPTED, "stopped");
        if (st == OK) continue;
        atomic_store(&w->stop, true);
        pthread_mutex_lock(&w->lock);
        if (i < w->failed) w->failed = i, w->err = e; /* pieces before it are under way or done: the same error for all numbers of threads */
        pthread_mutex_unlock(&w->lock);
    }
}

status convert_write(struct convert *c, const char *path, struct err *e)
{
    struct writer w = { .c = c };
    struct pool *pool;
    for (int64_t i = 0; i < c->n_tensors; i++) w.n_pieces += piece_count(&c->tensor[i]);
    struct cpu_info cpu;
    cpu_detect(&cpu);
    TRY(pool_open(&pool, c->im.o->n_threads ? c->im.o->n_threads : cpu.n_threads_default, e));
    status st = file_create(&w.out, path, e);
    if (st != OK) {
        pool_close(pool);
        return st;
    }
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.freed, NULL);
    w.failed = w.n_pieces;
    st = file_resize(&w.out, c->header.size, e);
    if (st == OK) st = file_write_at(&w.out, c->header.data, c->header.n, 0, e);
    if (st == OK) {
        pool_run(pool, work, &w);
        st = w.err.code == OK ? OK : err_set(e, w.err.code, "%s", w.err.text);
    }
    if (st == OK) st = checkpoint_unchanged(&c->im.ckpt, e);
    if (st == OK) st = file_commit(&w.out, e);
    else file_abort(&w.out);
    pthread_cond_destroy(&w.freed);
    pthread_mutex_destroy(&w.lock);
    pool_close(pool);
    return st;
}

/* rotate_write - the new file: its header, then tensor after tensor. A tensor whose rows alone are turned is read in pieces of rows, others matrix by matrix:
 * 16 lines along the turned axis side by side, in doubles. No sum depends on the number of threads. */
#include "src/rotate_int.h"
#include "ggml-like/cpu.h"
#include <float.h>
#include <math.h>
#include <string.h>

enum { LANES = 16, PIECE_FLOATS = 1 << 22 };

/* ---- one rotation ---- */

/* C over the m blocks of n rows: entries cas(2 pi a b / m) / sqrt(m), symmetric and its own inverse. Bracewell 1983 */
static void hartley(double *x, double *y, int64_t m, int64_t n)
{
    memset(y, 0, (size_t)(m * n) * LANES * sizeof *y);
    for (int64_t a = 0; a < m; a++)
        for (int64_t b = 0; b < m; b++) {
            double angle = 2 * 3.14159265358979323846 * (double)(a * b % m) / (double)m, c = (cos(angle) + sin(angle)) / sqrt((double)m);
            for (int64_t i = 0; i < n * LANES; i++) y[a * n * LANES + i] += c * x[b * n * LANES + i];
        }
    memcpy(x, y, (size_t)(m * n) * LANES * sizeof *x);
}

/* x [dim][LANES], each lane a vector; y: room for as much. */
static void rotate_lanes(double *x, double *y, int64_t dim, uint64_t key)
{
    int64_t n = dim & -dim;
    double scale = 1 / sqrt((double)n);
    for (int64_t i = 0; i < dim; i++) {
        double s = mix64_nth(key, (uint64_t)i >> 6) >> (i & 63) & 1 ? -scale : scale;
        for (int k = 0; k < LANES; k++) x[i * LANES + k] *= s;
    }
    for (int64_t h = 1; h < n; h *= 2)
        for (int64_t i = 0; i < dim; i += 2 * h)
            for (int64_t k = i * LANES; k < (i + h) * LANES; k++) {
                double a = x[k], b = x[k + h * LANES];
                x[k] = a + b, x[k + h * LANES] = a - b;
            }
    if (dim > n) hartley(x, y, dim / n, n);
}

/* Vectors x[line * line_step + (run * dim + i) * step], i < dim, in place. */
struct job {
    const struct turn *t;
    uint64_t seed;
    float *x;
    const float *gain;
    int64_t n_lines, line_step, step, n_runs;
    double *room;             /* of each thread 2 dim LANES */
};

static void rotate_part(void *ctx, int ith, int nth)
{
    const struct job *j = ctx;
    int64_t dim = j->t->dim, begin, end;
    double *x = j->room + 2 * dim * LANES * ith;
    pool_range((j->n_lines + LANES - 1) / LANES, 1, ith, nth, &begin, &end);
    for (int64_t g = begin * j->n_runs; g < end * j->n_runs; g++) {
        int64_t run = g % j->n_runs, line = g / j->n_runs * LANES, n = min_i64(LANES, j->n_lines - line);
        float *at = j->x + line * j->line_step + run * dim * j->step;
        uint64_t key = mix64_nth(mix64_nth(j->seed, (uint64_t)(j->t->key + 1)), (uint64_t)(run / j->t->share + 1));
        memset(x, 0, (size_t)dim * LANES * sizeof *x);
        for (int64_t i = 0; i < dim; i++)
            for (int64_t k = 0; k < n; k++) x[i * LANES + k] = (double)at[k * j->line_step + i * j->step] * (j->gain ? (double)j->gain[i] : 1);
        rotate_lanes(x, x + dim * LANES, dim, key);
        for (int64_t i = 0; i < dim; i++)
            for (int64_t k = 0; k < n; k++) at[k * j->line_step + i * j->step] = (float)x[i * LANES + k];
    }
}

/* ---- tensors ---- */

/* Does use k say what becomes of w (head: of its copy)? */
static bool says(const struct rotate *r, int k, const struct tensor *w, bool head)
{
    const struct turns *t = &r->turn[k];
    return r->r.use[k].w == w && (k == r->head) == head && !t->covered && (t->axis[COLUMNS].dim || t->axis[ROWS].dim || t->ones);
}

static bool changes(const struct rotate *r, const struct tensor *w, bool head)
{
    bool found = false;
    for (int k = 0; k < r->r.n_uses && !found; k++) found = says(r, k, w, head);
    return found;
}

/* Tensor i of the new file: one of the old, and behind them the head. */
static const struct tensor *source(const struct rotate *r, int64_t i)
{
    const struct gguf *g = &r->r.m->g;
    return i < g->n_tensors ? &g->tensor[i] : r->r.use[r->head].w;
}
static bool is_head(const struct rotate *r, int64_t i) { return i >= r->r.m->g.n_tensors; }
static int64_t n_tensors(const struct rotate *r) { return r->r.m->g.n_tensors + (r->head >= 0); }
static const char *name_of(const struct rotate *r, int64_t i) { return is_head(r, i) ? r->head_name : source(r, i)->name; }

static const struct dtype *type_of(const struct rotate *r, int64_t i)
{
    const struct tensor *w = source(r, i);
    return w->type->gguf_id == GGUF_F32 || !changes(r, w, is_head(r, i)) ? w->type : r->o.type;
}

static void turn_piece(const struct rotate *r, struct pool *pool, const struct use *u, const struct turns *t, struct job j, int64_t row, int64_t n)
{
    int64_t ne0 = u->w->ne[0], from = max_i64(row, u->first), to = min_i64(row + n, u->first + u->n);
    bool vector = tensor_rows(u->w) == 1;
    float *x = j.x;
    if (vector) row = 0, from = u->first, to = from + u->n; /* elements, all of them there */
    for (int64_t i = from; t->ones && i < to; i++) x[i] = 1;
    for (int axis = 0; axis < AXES && from < to; axis++) {
        j.t = &t->axis[axis];
        if (!j.t->dim) continue;
        j.gain = j.t->gain ? (const float *)j.t->gain->w->data + j.t->gain->first : NULL;
        j.x = x + (vector ? from : (from - row) * ne0);
        bool down = axis == ROWS;
        j.n_lines = down ? ne0 : vector ? 1 : to - from, j.line_step = down ? 1 : ne0, j.step = down ? ne0 : 1;
        j.n_runs = (down || vector ? to - from : ne0) / j.t->dim;
        pool_run(pool, rotate_part, &j);
    }
}

static status check(const struct rotate *r, int64_t i, const float *x, int64_t n, int64_t first, float limit, const char *when, struct err *e)
{
    int64_t ne0 = source(r, i)->ne[0];
    for (int64_t k = 0; k < n; k++)
        if (!(fabsf(x[k]) < limit))
            return err_set(e, ERR_FORMAT, "%s: %s: row %lld, column %lld is %g%s, expected less than %g", path_base(r->path), name_of(r, i),
                           (long long)((first + k) / ne0), (long long)((first + k) % ne0), (double)x[k], when, (double)limit);
    return OK;
}

/* From here on a value becomes infinity in the format. */
static float limit_of(const struct dtype *t) { return t->gguf_id == GGUF_F16 ? 65520.0f : t->gguf_id == GGUF_BF16 ? 0x1.ffp127f : INFINITY; }

struct writer {
    struct rotate *r;
    struct file_out out;
    struct pool *pool;
    size_t at;                /* bytes written */
    struct mem_room x, y, room;
};

static status put(struct writer *w, const void *p, size_t n, struct err *e)
{
    w->at += n;
    return file_write(&w->out, p, n, e);
}

static status write_piece(struct writer *w, int64_t i, int64_t row, int64_t n, struct err *e)
{
    struct rotate *r = w->r;
    const struct tensor *src = source(r, i);
    const struct dtype *to = type_of(r, i);
    int64_t all = n * src->ne[0], first = row * src->ne[0];
    float *x = (float *)(void *)w->x.p;
    dtype_to_f32(src->type, (const uint8_t *)src->data + (size_t)row * src->nb[1], x, all);
    TRY(check(r, i, x, all, first, INFINITY, "", e));
    for (int k = 0; k < r->r.n_uses; k++)
        if (says(r, k, src, is_head(r, i)))
            turn_piece(r, w->pool, &r->r.use[k], &r->turn[k], (struct job){ .seed = r->o.seed, .x = x, .room = (double *)(void *)w->room.p }, row, n);
    TRY(check(r, i, x, all, first, limit_of(to), " when turned", e));
    dtype_from_f32(to, x, w->y.p, all);
    return put(w, w->y.p, (size_t)n * dtype_row_bytes(to, src->ne[0]), e);
}

/* Rows that are turned together: all of a matrix where its columns are, or as many as are convenient. */
static int64_t piece_rows(const struct rotate *r, const struct tensor *w, bool head)
{
    bool whole = false;
    for (int k = 0; k < r->r.n_uses; k++) whole |= says(r, k, w, head) && r->turn[k].axis[ROWS].dim;
    return whole ? w->ne[1] : max_i64(1, min_i64(tensor_rows(w), PIECE_FLOATS / w->ne[0]));
}

static status write_tensor(struct writer *w, int64_t i, struct err *e)
{
    const struct tensor *src = source(w->r, i);
    bool turned = changes(w->r, src, is_head(w->r, i));
    int64_t step = turned ? piece_rows(w->r, src, is_head(w->r, i)) : tensor_rows(src);
    size_t n = (size_t)step, row = (size_t)src->ne[0] * sizeof(float), bytes;
    static const uint8_t zeros[4096];
    while (w->at < w->r->h.offset[i]) TRY(put(w, zeros, (size_t)min_i64(sizeof zeros, (int64_t)(w->r->h.offset[i] - w->at)), e));
    if (!turned) return put(w, src->data, tensor_bytes(src), e);
    if (!mul_size(n, row, &bytes)) return err_oom(e, src->name, SIZE_MAX);
    TRY(mem_room_for(&w->x, bytes, e));
    TRY(mem_room_for(&w->y, bytes, e));
    for (int64_t at = 0; at < tensor_rows(src); at += step) {
        TRY(write_piece(w, i, at, min_i64(step, tensor_rows(src) - at), e));
        if (w->r->o.progress && !w->r->o.progress(w->r->o.ctx, (int64_t)w->at, name_of(w->r, i))) return err_set(e, ERR_INTERRUPTED, "stopped");
    }
    return OK;
}

static status open_writer(struct writer *w, const char *path, struct err *e)
{
    struct cpu_info cpu;
    int64_t dim = 1;
    size_t bytes;
    cpu_detect(&cpu);
    int n = w->r->o.n_threads ? w->r->o.n_threads : cpu.n_threads_default;
    if (n < 1 || n > 512) return err_set(e, ERR_USAGE, "threads is %d, expected 1 to 512", n);
    for (int k = 0; k < w->r->r.n_uses * AXES; k++) dim = max_i64(dim, w->r->turn[k / AXES].axis[k % AXES].dim);
    if (!mul_size((size_t)dim, 2 * LANES * sizeof(double), &bytes) || !mul_size(bytes, (size_t)n, &bytes)) return err_oom(e, "rotation", SIZE_MAX);
    TRY(mem_room_for(&w->room, bytes, e));
    TRY(pool_open(&w->pool, n, e));
    return file_create(&w->out, path, e);
}

status rotate_write(struct rotate *r, const char *path, struct err *e)
{
    struct writer w = { .r = r, .out = { .fd = -1 } };
    status st = open_writer(&w, path, e);
    if (st == OK) st = put(&w, r->h.data, r->h.n, e);
    for (int64_t i = 0; st == OK && i < n_tensors(r); i++) st = write_tensor(&w, i, e);
    if (st == OK) st = file_commit(&w.out, e);
    file_abort(&w.out);
    pool_close(w.pool);
    mem_room_drop(&w.x), mem_room_drop(&w.y), mem_room_drop(&w.room);
    return st;
}

/* ---- header ---- */

static bool is_float(const struct dtype *t) { return t->gguf_id == GGUF_F32 || t->gguf_id == GGUF_F16 || t->gguf_id == GGUF_BF16; }

/* Keys that are no longer true, or that are stated anew. */
static bool is_dropped(const struct str *key, bool typed)
{
    static const char *const heads[] = { "split.", "general.file_type", "quantize." };
    for (int i = 0; i < (typed ? ARRAY_LEN(heads) : 1); i++)
        if (key->n >= strlen(heads[i]) && !memcmp(key->p, heads[i], strlen(heads[i]))) return true;
    return false;
}

static void put_keys(const struct rotate *r, struct gguf_writer *w, bool typed)
{
    static const struct { int id, file_type; } types[] = { { GGUF_F32, 0 }, { GGUF_F16, 1 }, { GGUF_BF16, 32 } }; /* enum llama_ftype in llama.h */
    const struct gguf *g = &r->r.m->g;
    const char *kind = r->o.no_r1 ? "R2" : r->o.no_r2 ? "R1" : "R1+R2";
    for (int64_t i = 0; i < g->n_kv; i++)
        if (!is_dropped(&g->kv[i].key, typed)) gguf_put_kv(w, &g->kv[i]);
    for (int i = 0; typed && i < ARRAY_LEN(types); i++)
        if (types[i].id == r->o.type->gguf_id) gguf_put_i64(w, "general.file_type", KV_U32, types[i].file_type);
    gguf_put_str(w, "rotate.kind", kind, strlen(kind));
    gguf_put_i64(w, "rotate.seed", KV_U64, (int64_t)r->o.seed);
}

status rotate_plan(struct rotate *r, struct err *e)
{
    struct gguf_writer *w;
    bool typed = false;
    if (rotate_n(r) == 0) return err_set(e, ERR_USAGE, "%s: nothing to rotate", path_base(r->path));
    for (int64_t i = 0; i < n_tensors(r); i++) {
        const struct tensor *src = source(r, i);
        typed |= type_of(r, i) != src->type;
        if (type_of(r, i) == src->type || is_float(src->type) || r->o.allow_requantize) continue;
        return err_set(e, ERR_USAGE, "%s: %s is %s: rotated and quantized again, it is rounded twice; --allow-requantize writes %s", path_base(r->path),
                       src->name, src->type->gguf_name, r->o.type->gguf_name);
    }
    TRY(gguf_header_open(&w, path_base(r->path), e));
    put_keys(r, w, typed);
    for (int64_t i = 0; i < n_tensors(r); i++) {
        struct tensor t = *source(r, i);
        tensor_shape(&t, type_of(r, i), t.ne[0], t.ne[1], t.ne[2], t.ne[3]);
        t.name = name_of(r, i), t.data = NULL;
        gguf_put_tensor(w, &t);
    }
    return gguf_header_finish(w, &r->h, e);
}

int64_t rotate_n(const struct rotate *r)
{
    int64_t n = 0;
    for (int64_t i = 0; i < n_tensors(r); i++) n += changes(r, source(r, i), is_head(r, i));
    return n;
}

size_t rotate_bytes(const struct rotate *r) { return r->h.size; }
const char *rotate_head(const struct rotate *r) { return r->head_name; }

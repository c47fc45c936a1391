/* chunk - from source bytes to result bytes, one chunk at a time. Reads the input, touches no output, knows no threads.
 * The input is read, not mapped: the memory of a run is then its buffers and nothing else, at the same speed (2 GiB of F16 from the page
 * cache: 0.27 s against 0.23 to 0.28 s), and a failing disk is an error instead of a signal. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "quant/outliers.h"
#include "quant/plan_int.h"

/* ---- buffers ---- */

static size_t aligned(size_t n) { return (n + 63) & ~(size_t)63; }

size_t chunk_room_bytes(const struct quant_plan *p)
{
    size_t row = aligned((size_t)p->max_cols * sizeof(float));
    size_t apart = aligned(p->room_apart * sizeof(float)) + aligned((size_t)p->max_outliers * sizeof(float));
    return aligned(p->room_floats * sizeof(float)) + aligned(p->room_source) + 2 * aligned(p->room_bytes) + 2 * row + apart + QUANT_SCRATCH + 64;
}

status chunk_room_init(struct chunk_room *r, const struct quant_plan *p, struct err *e)
{
    size_t row = aligned((size_t)p->max_cols * sizeof(float));
    *r = (struct chunk_room){ .bytes = chunk_room_bytes(p) };
    if (!(r->block = mem_map(r->bytes))) return err_oom(e, "buffers of a thread", r->bytes);
    uint8_t *at = r->block; /* a page begins at a multiple of 64 */
    r->x = (float *)(void *)at, at += aligned(p->room_floats * sizeof(float));
    r->source = at, at += aligned(p->room_source);
    r->out = at, at += aligned(p->room_bytes);
    r->check = at, at += aligned(p->room_bytes);
    r->w = (float *)(void *)at, at += row;
    r->y = (float *)(void *)at, at += row;
    r->apart = (float *)(void *)at, at += aligned(p->room_apart * sizeof(float));
    r->w_apart = (float *)(void *)at, at += aligned((size_t)p->max_outliers * sizeof(float));
    r->scratch = at;
    return OK;
}

void chunk_room_free(struct chunk_room *r)
{
    mem_unmap(r->block, r->bytes);
    *r = (struct chunk_room){ 0 };
}

/* ---- where a chunk lies ---- */

void chunk_at(const struct quant_plan *p, int64_t c, struct chunk *out)
{
    int64_t lo = 0, hi = p->n - 1;
    while (lo < hi) {
        int64_t mid = hi - (hi - lo) / 2;
        if (p->work[mid].first <= c) lo = mid;
        else hi = mid - 1;
    }
    const struct quant_item *it = &p->item[lo];
    const struct item_work *w = &p->work[lo];
    int64_t at = c - w->first, mat = at / w->mat_chunks, row = at % w->mat_chunks * w->chunk_rows;
    if (it->kept) {
        size_t n = (size_t)min_i64(w->chunk_rows, (int64_t)it->bytes_to - row);
        *out = (struct chunk){ lo, 0, row, (int64_t)n, it->added ? 0 : n, w->source_offset + (size_t)row, n, w->offset + (size_t)row, 0, 0 };
        return;
    }
    int64_t n_rows = min_i64(w->chunk_rows, it->rows - row), first = mat * it->rows + row;
    size_t from = dtype_row_bytes(it->src->type, it->cols), to = dtype_row_bytes(it->to, it->cols);
    *out = (struct chunk){ lo, mat, row, n_rows, (size_t)n_rows * from, w->source_offset + (size_t)first * from, (size_t)n_rows * to,
                           w->offset + (size_t)first * to, 0, 0 };
    if (it->n_outliers == 0) return;
    size_t half_row = (size_t)it->n_outliers * sizeof(uint16_t);
    out->part_bytes = (size_t)n_rows * half_row;
    out->part_offset = p->work[w->part].offset + (size_t)first * half_row;
}

/* ---- values ---- */

/* The order of dtype.h: product rounded, then sum rounded. */
static void unpack_rows(const struct kernels *k, const struct dtype *t, const uint8_t *src, float *x, int64_t n)
{
    struct codes c;
    for (int64_t i = 0; i < n; i += t->block_len, src += t->block_bytes, x += t->block_len) {
        k->unpack[t->gguf_id](src, &c);
        for (int g = 0; g < t->block_len; g += t->group_len) {
            float s = c.scale[g / t->group_len], m = c.min[g / t->group_len];
            for (int j = 0; j < t->group_len; j++) {
                float v = s * (float)c.code[g + j];
                x[g + j] = v + m;
            }
        }
    }
}

/* A sum of squares is finite only if every value is; the rare other case (also: values beyond 1e19) is looked at one by one. */
static int64_t first_unsound(const struct kernels *k, const float *x, int64_t n)
{
    if (isfinite(k->dot(x, x, n))) return -1;
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return i;
    return -1;
}

static status err_unsound(const struct quant_item *it, int64_t index, float v, struct err *e)
{
    char at[64] = "";
    int64_t mat = index / (it->rows * it->cols), row = index / it->cols % it->rows;
    if (it->n_mat > 1) snprintf(at, sizeof at, "matrix %lld, ", (long long)mat);
    return err_set(e, ERR_FORMAT, "%s: %srow %lld, column %lld is %s: the weights are damaged", it->src->name, at, (long long)row,
                   (long long)(index % it->cols), isnan(v) ? "NaN" : "infinite");
}

static status check_copied(const struct quant_plan *p, const struct chunk *c, struct chunk_room *room, struct err *e)
{
    const struct quant_item *it = &p->item[c->item];
    int64_t size = it->src->type->block_bytes, n = c->n_rows / size;
    for (int64_t i = 0, part; i < n; i += part) {
        part = min_i64(n - i, (int64_t)p->room_floats);
        p->k.to_f32(it->src->type, room->source + i * size, room->x, part);
        int64_t bad = first_unsound(&p->k, room->x, part);
        if (bad >= 0) return err_unsound(it, c->row / size + i + bad, room->x[bad], e);
    }
    return OK;
}

/* From here on a value becomes infinity in the format; infinity where none does. */
static float overflow_of(const struct dtype *t) { return t->gguf_id == GGUF_F16 ? 65520.0f : t->gguf_id == GGUF_BF16 ? 0x1.ffp127f : INFINITY; }

/* Half floats have no scale that could take large values in; in a format with scales they only lose precision. */
static status check_fits(const struct quant_item *it, const float *x, int64_t first, int64_t n, struct err *e)
{
    float top = 0, limit = overflow_of(it->to);
    for (int64_t i = 0; isfinite(limit) && i < n; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    if (top < limit) return OK;
    int64_t i = 0;
    while (fabsf(x[i]) < limit) i++;
    i += first;
    return err_set(e, ERR_FORMAT, "%s: row %lld, column %lld is %g, %s holds less than %g: choose another format for it with --type", it->src->name,
                   (long long)(i / it->cols), (long long)(i % it->cols), (double)x[i - first], it->to->gguf_name, (double)limit);
}

void quant_plan_scale(const struct quant_plan *p, int64_t i, float *x, int64_t row, int64_t n)
{
    const struct quant_scale *s = p->work[i].scale;
    int64_t cols = p->item[i].cols;
    for (int64_t r = row; s && r < row + n; r++, x += cols) {
        float f = s->row ? s->row[r] : 1;
        for (int64_t c = 0; c < cols; c++) x[c] *= s->column ? f * s->column[c] : f;
    }
}

/* x: values from number `first` of item i on, scaled. */
static status check_scaled(const struct quant_plan *p, int64_t i, const float *x, int64_t first, int64_t n, struct err *e)
{
    const struct quant_item *it = &p->item[i];
    int64_t bad = p->work[i].scale ? first_unsound(&p->k, x, n) : -1;
    if (bad < 0) return OK;
    return err_set(e, ERR_FORMAT, "%s: row %lld, column %lld is %g when it is scaled: --fold off does without", it->src->name,
                   (long long)((first + bad) / it->cols), (long long)((first + bad) % it->cols), (double)x[bad]);
}

/* A piece of a copied tensor of floats begins anywhere in a row. */
static status scale_piece(const struct quant_plan *p, const struct chunk *c, float *x, struct err *e)
{
    const struct quant_scale *s = p->work[c->item].scale;
    int64_t cols = p->item[c->item].cols, first = c->row / (int64_t)sizeof *x, n = (int64_t)c->bytes / (int64_t)sizeof *x;
    for (int64_t i = 0; s && i < n; i++) {
        float f = s->row ? s->row[(first + i) / cols] : 1;
        x[i] *= s->column ? f * s->column[(first + i) % cols] : f;
    }
    return check_scaled(p, c->item, x, first, n, e);
}

static bool in_place(const struct quant_item *it) { return !it->kept && it->src->type->gguf_id == GGUF_F32; }

status chunk_load(const struct quant_plan *p, const struct chunk *c, struct chunk_room *room, struct err *e)
{
    const struct quant_item *it = &p->item[c->item];
    const struct item_work *w = &p->work[c->item];
    if (it->added) {
        memcpy(room->source, (const uint8_t *)w->outlier + c->row, c->bytes);
        return OK;
    }
    void *to = in_place(it) ? (void *)room->x : (void *)room->source;
    TRY(file_reader_read(&p->source[w->source], to, c->source_bytes, c->source_offset, e));
    if (it->kept) {
        if (w->sound) TRY(check_copied(p, c, room, e));
        return scale_piece(p, c, (float *)(void *)room->source, e);
    }
    int64_t n = c->n_rows * it->cols;
    if (it->src->type->group_len) unpack_rows(&p->k, it->src->type, room->source, room->x, n);
    else if (!in_place(it)) p->k.to_f32(it->src->type, room->source, room->x, n);
    int64_t first = (c->mat * it->rows + c->row) * it->cols, bad = first_unsound(&p->k, room->x, n);
    if (bad >= 0) return err_unsound(it, first + bad, room->x[bad], e);
    const struct quant_delta *d = p->o.delta;
    int64_t tensor = it->src - p->g.tensor;
    if (d && d->has[tensor]) d->add(d->ctx, tensor, room->x, c->mat * it->rows + c->row, c->n_rows);
    quant_plan_scale(p, c->item, room->x, c->mat * it->rows + c->row, c->n_rows);
    TRY(check_scaled(p, c->item, room->x, first, n, e));
    TRY(check_fits(it, room->x, first, n, e));
    if (it->n_outliers > 0) outliers_take(room->x, c->n_rows, it->cols, w->outlier, it->n_outliers, room->apart);
    return OK;
}

/* ---- results ---- */

/* Importance of the chunk's matrix, or NULL. */
static const float *weights(const struct quant_plan *p, const struct chunk *c, struct chunk_room *room)
{
    const struct importance_entry *en = p->work[c->item].importance;
    if (!en) return NULL;
    if (room->w_of != en || room->w_mat != c->mat) {
        const struct quant_item *it = &p->item[c->item];
        if (!importance_slice(en, it->cols, it->n_mat, c->mat, room->w)) return NULL; /* plan.c has seen that it fits */
        for (int64_t j = 0; j < it->n_outliers; j++) {
            int32_t at = p->work[c->item].outlier[j];
            room->w_apart[j] = room->w[at];
            room->w[at] = 0.0f;
        }
        room->w_of = en;
        room->w_mat = c->mat;
    }
    return room->w;
}

/* What the matrix gives back in the outlier columns, which may be not quite zero, goes into x; half, unless NULL, gets what is missing to
 * the weights: the sum of both is what the engine computes with. */
static void settle_apart(const struct quant_plan *p, const struct chunk *c, struct chunk_room *room, const uint8_t *bytes, int64_t n_rows, uint8_t *half)
{
    const struct quant_item *it = &p->item[c->item];
    const int32_t *at = p->work[c->item].outlier;
    size_t row_bytes = dtype_row_bytes(it->to, it->cols);
    const float *apart = room->apart;
    float *x = room->x;
    for (int64_t r = 0; r < n_rows; r++, x += it->cols, bytes += row_bytes) {
        unpack_rows(&p->k, it->to, bytes, room->y, it->cols);
        for (int64_t j = 0; j < it->n_outliers; j++) {
            float rest = *apart++ - (x[at[j]] = room->y[at[j]]);
            uint16_t h = f32_to_f16(fminf(65504.0f, fmaxf(-65504.0f, rest)));
            if (half) memcpy(half, &h, sizeof h), half += sizeof h;
        }
    }
}

const uint8_t *chunk_make(const struct quant_plan *p, const struct chunk *c, struct chunk_room *room)
{
    const struct quant_item *it = &p->item[c->item];
    const struct item_work *w = &p->work[c->item];
    if (it->kept) return room->source;
    struct quant_spec spec = p->o.spec;
    spec.method = w->method;
    spec.type = it->to;
    w->method->rows(&spec, &p->qk, w->lo, w->hi, room->x, weights(p, c, room), c->n_rows, it->cols, room->out, room->scratch);
    if (it->n_outliers > 0) settle_apart(p, c, room, room->out, c->n_rows, room->out + c->bytes);
    return room->out;
}

status chunk_check(const struct quant_plan *p, const struct chunk *c, const uint8_t *bytes, struct err *e)
{
    enum { EXPONENT = 0x7c00 };
    const struct quant_item *it = &p->item[c->item];
    const struct quantizer *m = p->work[c->item].method;
    if (!m || !m->may_overflow || !it->to->split) return OK;
    int64_t blocks = it->cols / it->to->block_len;
    for (int64_t b = 0; b < c->n_rows * blocks; b++, bytes += it->to->block_bytes) {
        struct parts parts;
        it->to->split(bytes, &parts);
        if ((parts.d & EXPONENT) == EXPONENT || (parts.dmin & EXPONENT) == EXPONENT)
            return err_set(e, ERR_FORMAT, "%s: row %lld, columns from %lld: the scale that --method %s gives them is no half float of %s", it->src->name,
                           (long long)(c->mat * it->rows + c->row + b / blocks), (long long)(b % blocks * it->to->block_len), m->name, it->to->gguf_name);
    }
    return OK;
}

/* The outlier columns belong to the matrix: errors are of all its weights, whichever tensor stores them. */
static void add_apart(const struct quant_plan *p, const struct chunk *c, const struct chunk_room *room, const uint8_t *half, bool weighted, int64_t n_rows,
                      struct quant_stats *s)
{
    const struct quant_item *it = &p->item[c->item];
    const int32_t *at = p->work[c->item].outlier;
    for (int64_t i = 0; i < n_rows * it->n_outliers; i++, half += sizeof(uint16_t)) {
        int64_t row = i / it->n_outliers, j = i % it->n_outliers;
        uint16_t h;
        memcpy(&h, half, sizeof h);
        double x = room->apart[i], y = (double)room->x[row * it->cols + at[j]] + (double)f16_to_f32(h), err = x - y, w = weighted ? room->w_apart[j] : 1;
        s->x2 += x * x, s->y2 += y * y, s->xy += x * y, s->e2 += err * err;
        s->wx2 += w * (x * x), s->we2 += w * (err * err);
        s->lo = fminf(s->lo, (float)x), s->hi = fmaxf(s->hi, (float)x);
        s->max_abs = fmaxf(s->max_abs, (float)fabs(x)), s->max_err = fmaxf(s->max_err, (float)fabs(err));
    }
}

void chunk_stats(const struct quant_plan *p, const struct chunk *c, struct chunk_room *room, const uint8_t *bytes, bool all, struct quant_stats *s)
{
    const struct quant_item *it = &p->item[c->item];
    memset(s, 0, sizeof *s);
    if (it->kept) return;
    int64_t n = all ? c->n_rows : (c->n_rows + 15) / 16;
    const float *w = weights(p, c, room);
    if (it->n_outliers > 0) settle_apart(p, c, room, bytes, n, NULL);
    stats_rows(s, &p->k, it->to, room->x, bytes, w, n, it->cols, room->y);
    if (it->n_outliers > 0) add_apart(p, c, room, bytes + c->bytes, w != NULL, n, s);
}

void chunk_range(const struct quant_plan *p, const struct chunk *c, const struct chunk_room *room, float *lo, float *hi)
{
    int64_t n = c->n_rows * p->item[c->item].cols;
    *lo = *hi = room->x[0];
    for (int64_t i = 1; i < n; i++) {
        if (room->x[i] < *lo) *lo = room->x[i];
        if (room->x[i] > *hi) *hi = room->x[i];
    }
}

/* Four independent lanes of multiply and fold (constants of splitmix64): against accidents, not against an enemy. */
uint64_t chunk_hash(const void *data, size_t n)
{
    enum { LANES = 4 };
    static const uint64_t k = 0x9e3779b97f4a7c15u, m = 0xbf58476d1ce4e5b9u;
    uint64_t h[LANES] = { k, 2 * k, 3 * k, 4 * k }, word[LANES], tail;
    const uint8_t *p = data;
    size_t i = 0;
    for (; i + sizeof word <= n; i += sizeof word) {
        memcpy(word, p + i, sizeof word);
        for (int l = 0; l < LANES; l++) {
            h[l] = (h[l] ^ word[l]) * m;
            h[l] ^= h[l] >> 29;
        }
    }
    uint64_t sum = n * k;
    for (; i < n; i += sizeof tail) {
        tail = 0;
        memcpy(&tail, p + i, n - i < sizeof tail ? n - i : sizeof tail);
        sum = (sum ^ tail) * m;
        sum ^= sum >> 29;
    }
    for (int l = 0; l < LANES; l++) {
        sum = (sum ^ h[l]) * m;
        sum ^= sum >> 32;
    }
    return sum ? sum : 1;
}

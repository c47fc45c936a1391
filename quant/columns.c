/* columns - LLM.int8() in a plan: reads the matrices once to find the input columns of outliers (outliers.h), and gives each matrix that has some
 * two companions in the output, <base>.outlier.weight and <base>.outlier.index. Their bytes are made with the chunks of the matrix (chunk.c).
 * The largest weights of a column are a maximum: the same for every order of threads. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "ggml-like/pool.h"
#include "quant/outliers.h"
#include "quant/plan_int.h"

static const char weight_end[] = ".weight", part_end[] = ".outlier.weight", index_end[] = ".outlier.index";

/* ---- which matrices ---- */

static int base_len(const char *name)
{
    size_t n = strlen(name), m = sizeof weight_end - 1;
    return n > m && n < 512 && !strcmp(name + n - m, weight_end) ? (int)(n - m) : -1;
}

/* Rows of an embedding table are looked up, not multiplied; the engine multiplies stacks of experts without companions. */
static bool eligible(const struct quant_item *it)
{
    return !it->kept && it->to->group_len > 0 && it->n_mat == 1 && it->cols >= OUTLIER_SHARE && base_len(it->src->name) > 0 &&
           !recipe_is_embd(it->src->name);
}

static status check_names(const struct quant_plan *p, const struct quant_item *it, struct err *e)
{
    static const char *const ends[] = { part_end, index_end };
    char name[544];
    for (int i = 0; i < ARRAY_LEN(ends); i++) {
        snprintf(name, sizeof name, "%.*s%s", base_len(it->src->name), it->src->name, ends[i]);
        if (gguf_tensor(&p->g, name)) return err_set(e, ERR_USAGE, "--keep-outliers: %s: the input has outlier columns already", name);
    }
    return OK;
}

/* ---- the largest weights ---- */

struct search {
    struct quant_plan *p;
    struct chunk_room *room;   /* [n_threads] */
    float **top;               /* [n] largest |weight| of each column; NULL: not eligible */
    _Atomic int64_t next;
    _Atomic bool stop;
    pthread_mutex_t lock;      /* top, err */
    struct err err;            /* of the lowest chunk that failed */
    int64_t err_chunk;
};

static void search_chunk(struct search *s, int64_t c, struct chunk_room *room)
{
    struct chunk k;
    struct err e = { 0 };
    chunk_at(s->p, c, &k);
    float *top = s->top[k.item];
    if (!top) return;
    int64_t n = s->p->item[k.item].cols;
    status st = chunk_load(s->p, &k, room, &e);
    if (st == OK) {
        memset(room->y, 0, (size_t)n * sizeof *room->y);
        outliers_top(room->x, k.n_rows, n, room->y);
    }
    pthread_mutex_lock(&s->lock);
    if (st == OK) outliers_top(room->y, 1, n, top);
    else if (s->err.code == OK || c < s->err_chunk) s->err = e, s->err_chunk = c;
    pthread_mutex_unlock(&s->lock);
    if (st != OK) atomic_store(&s->stop, true);
    if (s->p->passing) file_reader_drop(&s->p->source[s->p->work[k.item].source], k.source_bytes, k.source_offset);
}

static void search_thread(void *ctx, int ith, int nth)
{
    struct search *s = ctx;
    for (int64_t c; !atomic_load(&s->stop) && (c = atomic_fetch_add(&s->next, 1)) < s->p->n_chunks;) search_chunk(s, c, &s->room[ith]);
}

static status search_all(struct search *s, struct err *e)
{
    struct pool *pool = NULL;
    status st = pool_open(&pool, s->p->n_threads, e);
    s->room = mem_calloc((size_t)s->p->n_threads, sizeof *s->room);
    if (st == OK && !s->room) st = err_oom(e, "plan", (size_t)s->p->n_threads * sizeof *s->room);
    for (int i = 0; st == OK && i < s->p->n_threads; i++) st = chunk_room_init(&s->room[i], s->p, e);
    if (st == OK) pool_run(pool, search_thread, s);
    if (st == OK && s->err.code != OK) st = err_set(e, s->err.code, "%s", s->err.text);
    for (int i = 0; s->room && i < s->p->n_threads; i++) chunk_room_free(&s->room[i]);
    mem_free(s->room);
    pool_close(pool);
    return st;
}

/* ---- the columns ---- */

static status choose(struct quant_plan *p, int64_t i, const float *top, float *room, struct err *e)
{
    struct quant_item *it = &p->item[i];
    struct item_work *w = &p->work[i];
    float *importance = NULL, *scratch = room + it->cols;
    if (w->importance && importance_slice(w->importance, it->cols, 1, 0, room)) importance = room;
    int32_t *index = arena_alloc(&p->mem, (size_t)(it->cols / OUTLIER_SHARE + 1) * sizeof *index);
    if (!index) return err_oom(e, it->src->name, (size_t)it->cols / OUTLIER_SHARE * sizeof *index);
    it->n_outliers = outliers_find(importance, top, it->cols, p->o.outlier_threshold, index, scratch);
    if (it->n_outliers > 0) w->outlier = index;
    return OK;
}

static status find_columns(struct quant_plan *p, int64_t *found, struct err *e)
{
    struct search s = { .p = p };
    int64_t matrices = 0;
    *found = 0;
    if (pthread_mutex_init(&s.lock, NULL) != 0) return err_oom(e, "lock", 0);
    s.top = mem_calloc((size_t)p->n, sizeof *s.top);
    float *room = mem_calloc((size_t)p->max_cols, 3 * sizeof *room);
    status st = s.top && room ? OK : err_oom(e, "plan", (size_t)p->max_cols * 3 * sizeof *room);
    for (int64_t i = 0; st == OK && i < p->n; i++) {
        if (!eligible(&p->item[i])) continue;
        matrices++;
        st = check_names(p, &p->item[i], e);
        size_t cols = (size_t)p->item[i].cols;
        if (st == OK && !(s.top[i] = mem_calloc(cols, sizeof *s.top[i]))) st = err_oom(e, "plan", cols * sizeof *s.top[i]);
    }
    if (st == OK && matrices == 0)
        st = err_set(e, ERR_USAGE, "--keep-outliers: no matrix is quantized that could do without some columns (embedding tables and stacks of "
                                   "experts cannot)");
    if (st == OK) st = search_all(&s, e);
    for (int64_t i = 0; st == OK && i < p->n; i++) {
        if (s.top[i]) st = choose(p, i, s.top[i], room, e);
        *found += p->item[i].n_outliers > 0;
    }
    for (int64_t i = 0; s.top && i < p->n; i++) mem_free(s.top[i]);
    mem_free(s.top);
    mem_free(room);
    pthread_mutex_destroy(&s.lock);
    return st;
}

/* ---- the companions ---- */

static status add_companion(struct quant_plan *p, int64_t matrix, const char *end, const struct dtype *type, int64_t ne0, int64_t ne1, struct err *e)
{
    char name[544];
    const char *of = p->item[matrix].src->name;
    snprintf(name, sizeof name, "%.*s%s", base_len(of), of, end);
    struct tensor *t = arena_zalloc(&p->mem, 1, sizeof *t);
    const char *copy = arena_strdup(&p->mem, name, strlen(name));
    if (!t || !copy) return err_oom(e, name, sizeof *t);
    tensor_shape(t, type, ne0, ne1, 1, 1);
    t->name = copy;
    struct quant_item *it = &p->item[p->n];
    *it = (struct quant_item){ .src = t, .to = type, .rows = ne1, .cols = ne0, .n_mat = 1, .bytes_to = tensor_bytes(t), .kept = true, .added = true };
    snprintf(it->why, sizeof it->why, "outlier columns");
    p->n++;
    return OK;
}

/* Every matrix with its companions behind it. */
static status insert_companions(struct quant_plan *p, int64_t found, struct err *e)
{
    struct quant_item *item = p->item;
    struct item_work *work = p->work;
    int64_t n = p->n;
    status st = OK;
    p->item = mem_calloc((size_t)(n + 2 * found), sizeof *p->item);
    p->work = mem_calloc((size_t)(n + 2 * found), sizeof *p->work);
    if (!p->item || !p->work) st = err_oom(e, "plan", (size_t)(n + 2 * found) * sizeof *item);
    p->n = 0;
    for (int64_t i = 0; st == OK && i < n; i++) {
        int64_t at = p->n++;
        p->item[at] = item[i];
        p->work[at] = work[i];
        if (item[i].n_outliers == 0) continue;
        p->work[at].part = p->n;
        st = add_companion(p, at, part_end, dtype_by_id(GGUF_F16), item[i].n_outliers, item[i].rows, e);
        if (st == OK) st = add_companion(p, at, index_end, dtype_by_id(GGUF_I32), item[i].n_outliers, 1, e);
        if (st == OK) p->work[p->n - 1].outlier = work[i].outlier;
    }
    mem_free(item);
    mem_free(work);
    return st;
}

status plan_keep_columns(struct quant_plan *p, struct err *e)
{
    int64_t found;
    if (!(p->o.outlier_threshold > 1 && p->o.outlier_threshold < 1e6f))
        return err_set(e, ERR_USAGE, "--keep-outliers: the threshold is %g, expected more than 1 (times the middle column)", (double)p->o.outlier_threshold);
    TRY(find_columns(p, &found, e));
    return insert_companions(p, found, e);
}

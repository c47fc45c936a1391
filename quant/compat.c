/* compat - the method "compat": rows to llama-quantize's bytes. See compat.h. */
#include "quant/compat.h"

/* What is built once per plan. */
struct compat_books { struct compat_book of[DTYPE_IDS]; };

static const struct compat_format *const families[] = { compat_even, compat_uneven, compat_codebook, compat_iq1 };

const struct compat_format *compat_format_of(int id)
{
    for (int i = 0; i < ARRAY_LEN(families); i++)
        for (const struct compat_format *f = families[i]; f->block; f++)
            if (f->id == id) return f;
    return NULL;
}

static const struct dtype *target(const struct quant_spec *s, struct err *e) { return s->type; }

static status prepare(const bool made[DTYPE_IDS], struct arena *mem, const void **out, struct err *e)
{
    struct compat_books *books = arena_zalloc(mem, 1, sizeof *books);
    if (!books) return err_oom(e, "codebooks", sizeof *books);
    for (int id = 0; id < DTYPE_IDS; id++) {
        const struct compat_format *f = made[id] ? compat_format_of(id) : NULL;
        const struct compat_book *same = NULL;
        for (int k = 0; f && f->grid && k < id; k++)
            if (books->of[k].grid == f->grid) same = &books->of[k];
        if (same) books->of[id] = *same;
        else if (f && f->grid) TRY(compat_book_make(&books->of[id], f->grid, mem, e));
    }
    *out = books;
    return OK;
}

/* Formats without a search: the conversion of floats, or the plain rounding that has no use for importance. */
static void row_plain(const struct dtype *t, const float *x, int64_t n, uint8_t *to)
{
    if (t->from_f32) t->from_f32(x, to, n);
    else
        for (int64_t i = 0; i < n; i += t->block_len, to += t->block_bytes) t->pack(x + i, to);
}

static void row_searched(const struct dtype *t, const struct compat_format *f, const struct compat_book *book, const float *x, const float *w, int64_t n,
                         uint8_t *to)
{
    float mean2 = w && f->plain_pack ? compat_sum2(x, n) / (float)n : 0.0f;
    for (int64_t i = 0; i < n; i += t->block_len, to += t->block_bytes) {
        struct compat_in in = { .x = x + i, .w = w ? w + i : NULL, .mean2 = mean2 };
        struct parts p = { 0 };
        f->block(f, &in, book, &p);
        t->join(&p, to);
    }
}

static void rows(const struct quant_spec *s, const struct quant_kernels *k, float lo, float hi, const float *x, const float *w, int64_t n_rows, int64_t n,
                 void *dst, void *scratch)
{
    const struct compat_format *f = compat_format_of(s->type->gguf_id);
    const struct compat_books *books = s->prepared;
    size_t row_bytes = dtype_row_bytes(s->type, n);
    uint8_t *to = dst;
    for (int64_t r = 0; r < n_rows; r++, x += n, to += row_bytes) {
        if (!f || (f->plain_pack && !w)) row_plain(s->type, x, n, to);
        else row_searched(s->type, f, &books->of[f->id], x, w, n, to);
    }
}

const struct quantizer quantizer_compat = {
    .name = "compat",
    .brief = "the bytes that llama-quantize writes, to compare with",
    .takes_type = true,
    .may_overflow = true,
    .target = target,
    .prepare = prepare,
    .rows = rows,
};

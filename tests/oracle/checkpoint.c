/* checkpoint - copies every tensor of a checkpoint into one safetensors file:  checkpoint PATH OUT.safetensors
 * or reads everything and says how fast:  checkpoint PATH (raw|f32)
 * checkpoint.py compares the copy with what torch loads. */
#include "ggml-like/checkpoint.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_ROWS = 100 }; /* at once; not a divisor of anything, so that ends of tensors and of matrices fall anywhere */

static status copy(const struct checkpoint *c, const char *to, struct err *e)
{
    struct safetensors_writer *w;
    status st = safetensors_writer_open(&w, to, e);
    if (st != OK) return st;
    for (int64_t i = 0; i < c->n_tensors; i++) safetensors_add(w, c->tensor[i].name, c->tensor[i].type, c->tensor[i].n_dims, c->tensor[i].shape);
    for (int64_t i = 0; i < c->n_meta; i++) safetensors_put_meta(w, c->meta[i].key, c->meta[i].value);
    st = safetensors_begin(w, e);
    for (int64_t i = 0; st == OK && i < c->n_tensors; i++) {
        const struct ckpt_tensor *t = &c->tensor[i];
        size_t row = (size_t)ckpt_row_len(t) * ckpt_type_bytes(t->type);
        uint8_t *buf = malloc(PIECE_ROWS * row + 1);
        for (int64_t r = 0, n; st == OK && r < ckpt_rows(t); r += n) {
            n = min_i64(PIECE_ROWS, ckpt_rows(t) - r);
            st = checkpoint_read_rows(c, t, r, n, buf, e);
            if (st == OK) st = safetensors_write(w, i, (size_t)r * row, buf, (size_t)n * row, e);
        }
        free(buf);
    }
    if (st == OK) return safetensors_writer_finish(w, e);
    safetensors_writer_abort(w);
    return st;
}

/* Pieces of about 4 MiB, as a converter reads. */
static status measure(const struct checkpoint *c, bool f32, struct err *e)
{
    double start = now_seconds();
    size_t bytes = 0;
    status st = OK;
    for (int64_t i = 0; st == OK && i < c->n_tensors; i++) {
        const struct ckpt_tensor *t = &c->tensor[i];
        size_t row = (size_t)ckpt_row_len(t) * (f32 ? 4 : ckpt_type_bytes(t->type));
        int64_t rows = (int64_t)((4 << 20) / (row + 1)) + 1;
        void *buf = malloc((size_t)rows * row + 1);
        for (int64_t r = 0, n; st == OK && r < ckpt_rows(t); r += n) {
            n = min_i64(rows, ckpt_rows(t) - r);
            st = f32 && ckpt_type_is_float(t->type) ? checkpoint_read_f32(c, t, r, n, buf, e) : checkpoint_read_rows(c, t, r, n, buf, e);
        }
        free(buf);
        bytes += t->bytes;
    }
    double s = now_seconds() - start;
    printf("%zu bytes in %.3f s, %.2f GB/s\n", bytes, s, (double)bytes / s * 1e-9);
    return st;
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    struct checkpoint c;
    struct err e = { 0 };
    status st = checkpoint_open(&c, argv[1], &e);
    if (st == OK) st = !strcmp(argv[2], "raw") || !strcmp(argv[2], "f32") ? measure(&c, argv[2][0] == 'f', &e) : copy(&c, argv[2], &e);
    if (st != OK) printf("%s\n", e.text);
    checkpoint_close(&c);
    return st;
}

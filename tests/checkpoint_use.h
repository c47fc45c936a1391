/* checkpoint_use - what a program may do with an opened checkpoint: every look-up, every row of every tensor in every way. Under the sanitizers
 * this is the proof that open validated enough. And a writer of the zips of torch.save. Shared with fuzz/. */
#pragma once
#include "ggml-like/checkpoint.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads everything, rows in two pieces. Aborts where the ways of reading contradict each other. */
static inline void checkpoint_use(const struct checkpoint *c)
{
    struct err e = { 0 };
    for (int64_t i = 0; i < c->n_meta; i++)
        if (strcmp(checkpoint_meta(c, c->meta[i].key), c->meta[i].value)) abort();
    for (int64_t i = 0; i < c->n_tensors; i++) {
        const struct ckpt_tensor *t = &c->tensor[i];
        if (checkpoint_find(c, t->name) != t) abort();
        size_t size = ckpt_type_bytes(t->type), n = (size_t)t->n_elements;
        if (t->bytes != n * size || n > 1 << 20) abort(); /* nothing larger than its file opens: inputs here are small */
        uint8_t *raw = malloc(t->bytes + 1), *flat = malloc(t->bytes + 1);
        void *wide = malloc(n * 4 + 1);
        int64_t rows = ckpt_rows(t), half = rows / 2, cols = ckpt_row_len(t);
        if (checkpoint_read_rows(c, t, 0, half, raw, &e) != OK) abort();
        if (checkpoint_read_rows(c, t, half, rows - half, raw + (size_t)(half * cols) * size, &e) != OK) abort();
        if (t->contiguous && (checkpoint_read(c, t, 0, t->n_elements, flat, &e) != OK || memcmp(raw, flat, t->bytes))) abort();
        if (ckpt_type_is_float(t->type) && checkpoint_read_f32(c, t, 0, rows, wide, &e) != OK) abort();
        if (!ckpt_type_is_float(t->type)) (void)!checkpoint_read_i32(c, t, 0, rows, wide, &e); /* may hold large values */
        if (checkpoint_read_rows(c, t, 0, rows + 1, raw, NULL) != ERR_USAGE) abort();
        free(raw), free(flat), free(wide);
    }
}

/* ---- zips ---- */

struct zip_out {
    uint8_t p[1 << 17]; /* the file so far */
    size_t n;
    uint8_t dir[1 << 14]; /* its central directory so far */
    size_t dir_n;
    int entries;
    bool zip64, late;   /* late: as torch does, sizes in the local header are 0 (flag 8) */
};

static inline void zip_put(uint8_t *p, size_t *n, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) p[(*n)++] = i < 8 ? (uint8_t)(v >> 8 * i) : 0;
}

static inline void zip_bytes(uint8_t *p, size_t *n, const void *from, size_t bytes)
{
    if (bytes) memcpy(p + *n, from, bytes);
    *n += bytes;
}

/* One entry with data; method 0 stores. */
static inline void zip_add(struct zip_out *z, const char *name, const void *data, size_t n, int method)
{
    size_t at = z->n, name_n = strlen(name);
    if (z->n + n + 200 > sizeof z->p || z->dir_n + 200 > sizeof z->dir) abort();
    uint32_t flags = z->late ? 0x808 : 0x800, shown = z->late ? 0 : z->zip64 ? 0xffffffff : (uint32_t)n;
    size_t extra = z->zip64 && !z->late ? 20 : 0;
    zip_put(z->p, &z->n, 0x04034b50, 4), zip_put(z->p, &z->n, 0, 2), zip_put(z->p, &z->n, flags, 2), zip_put(z->p, &z->n, (uint64_t)method, 2);
    zip_put(z->p, &z->n, 0, 8), zip_put(z->p, &z->n, shown, 4), zip_put(z->p, &z->n, shown, 4), zip_put(z->p, &z->n, name_n, 2);
    zip_put(z->p, &z->n, extra, 2), zip_bytes(z->p, &z->n, name, name_n);
    if (extra) zip_put(z->p, &z->n, 1, 2), zip_put(z->p, &z->n, 16, 2), zip_put(z->p, &z->n, n, 8), zip_put(z->p, &z->n, n, 8);
    zip_bytes(z->p, &z->n, data, n);
    shown = z->zip64 ? 0xffffffff : (uint32_t)n;
    extra = z->zip64 ? 32 : 4; /* another field first: it must be skipped */
    zip_put(z->dir, &z->dir_n, 0x02014b50, 4), zip_put(z->dir, &z->dir_n, 0, 4), zip_put(z->dir, &z->dir_n, flags, 2);
    zip_put(z->dir, &z->dir_n, (uint64_t)method, 2), zip_put(z->dir, &z->dir_n, 0, 8), zip_put(z->dir, &z->dir_n, shown, 4);
    zip_put(z->dir, &z->dir_n, shown, 4), zip_put(z->dir, &z->dir_n, name_n, 2), zip_put(z->dir, &z->dir_n, extra, 2);
    zip_put(z->dir, &z->dir_n, 0, 10), zip_put(z->dir, &z->dir_n, z->zip64 ? 0xffffffff : at, 4), zip_bytes(z->dir, &z->dir_n, name, name_n);
    zip_put(z->dir, &z->dir_n, 0x4246, 2), zip_put(z->dir, &z->dir_n, 0, 2);
    if (z->zip64) {
        zip_put(z->dir, &z->dir_n, 1, 2), zip_put(z->dir, &z->dir_n, 24, 2), zip_put(z->dir, &z->dir_n, n, 8), zip_put(z->dir, &z->dir_n, n, 8);
        zip_put(z->dir, &z->dir_n, at, 8);
    }
    z->entries++;
}

static inline void zip_finish(struct zip_out *z)
{
    size_t at = z->n;
    if (z->n + z->dir_n + 200 > sizeof z->p) abort();
    zip_bytes(z->p, &z->n, z->dir, z->dir_n);
    size_t end64 = z->n;
    if (z->zip64) {
        zip_put(z->p, &z->n, 0x06064b50, 4), zip_put(z->p, &z->n, 44, 8), zip_put(z->p, &z->n, 0, 12), zip_put(z->p, &z->n, (uint64_t)z->entries, 8);
        zip_put(z->p, &z->n, (uint64_t)z->entries, 8), zip_put(z->p, &z->n, z->dir_n, 8), zip_put(z->p, &z->n, at, 8);
        zip_put(z->p, &z->n, 0x07064b50, 4), zip_put(z->p, &z->n, 0, 4), zip_put(z->p, &z->n, end64, 8), zip_put(z->p, &z->n, 1, 4);
    }
    zip_put(z->p, &z->n, 0x06054b50, 4), zip_put(z->p, &z->n, 0, 4), zip_put(z->p, &z->n, (uint64_t)z->entries, 2);
    zip_put(z->p, &z->n, (uint64_t)z->entries, 2), zip_put(z->p, &z->n, z->zip64 ? 0xffffffff : z->dir_n, 4);
    zip_put(z->p, &z->n, z->zip64 ? 0xffffffff : at, 4), zip_put(z->p, &z->n, 0, 2);
}

/* A torch file around a pickle: storages "0" of 24 bytes (0, 1, 2, ...) and "1" of none. */
static inline void zip_torch(struct zip_out *z, const void *pickle, size_t n)
{
    uint8_t data[24];
    for (int i = 0; i < 24; i++) data[i] = (uint8_t)i;
    zip_add(z, "m/data.pkl", pickle, n, 0);
    zip_add(z, "m/byteorder", "little", 6, 0);
    zip_add(z, "m/data/0", data, sizeof data, 0);
    zip_add(z, "m/data/1", data, 0, 0);
    zip_add(z, "m/version", "3\n", 2, 0);
    zip_finish(z);
}

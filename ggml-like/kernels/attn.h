/* attn - what the attention bodies share: the carving of the scratch buffer, the rows that need a block of keys, the plain C version.
 * Private to kernels/. */
#pragma once
#include "ggml-like/kernels/kernels.h"

/* Rows are padded to ATTN_PAD floats: two vectors of the widest ISA. */
enum { ATTN_PAD = 32 };
struct attn_scratch {
    int q_len, v_len;   /* padded head_dim, head_dim_v */
    float *q;           /* [ATTN_ROWS][q_len]     scaled queries */
    float *tile;        /* [ATTN_KEYS][max]       a block of K, later of V, in the order of the register tiles */
    float *rows;        /* [ATTN_KEYS][max]       the block as f32 rows, for formats without a direct load */
    float *s;           /* [ATTN_ROWS][ATTN_KEYS] logits, then probabilities, of the block */
    float *acc;         /* [ATTN_ROWS][v_len]     sum of p * v */
    float *max, *decay; /* [ATTN_ROWS]            running maximum; exp(old maximum - new) */
    double *sum;        /* [ATTN_ROWS]            running sum of p */
};

/* attn_place - carves buf (NULL: only measures). Returns the bytes needed. */
size_t attn_place(struct attn_scratch *x, void *buf, int head_dim, int head_dim_v);

/* The rows that see a key of base .. base + ATTN_KEYS, with their ranges relative to base; first..last is the union. */
struct attn_block {
    int64_t base;
    int n, first, last;
    int row[ATTN_ROWS], lo[ATTN_ROWS], hi[ATTN_ROWS];
};
/* attn_block_at - false if no row needs the block. */
bool attn_block_at(struct attn_block *b, const struct attn_args *a, int64_t base);
/* attn_begin - clears the running state of all rows (sinks counted) and gives the range of blocks: *base <= block base < *end. */
void attn_begin(const struct attn_scratch *x, const struct attn_args *a, int64_t *base, int64_t *end);

void attn_ref(const struct kernels *k, const struct attn_args *a, void *scratch);

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
    float *acc, *acc_all; /* [ATTN_ROWS][v_len]   sum of p * v: of the part that is being read; of the parts before it */
    float *max, *max_all; /* [ATTN_ROWS]          maximum of the logits */
    float *decay;         /* [ATTN_ROWS]          exp(old maximum - new) */
    double *sum, *sum_all; /* [ATTN_ROWS]         sum of p */
};

/* What attn leaves of a part: struct attn_part, then acc from float PART_ACC on. */
enum { PART_ACC = 16 };
struct attn_part {
    float max;
    double sum;
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
/* attn_begin - clears the states of all rows (sinks counted) and gives the range of blocks: *base <= block base < *end. */
void attn_begin(const struct attn_scratch *x, const struct attn_args *a, int64_t *base, int64_t *end);
/* attn_clear - row r starts a part / starts at all. */
void attn_clear(const struct attn_scratch *x, int r);
void attn_clear_all(const struct attn_scratch *x, const struct attn_args *a, int r);
/* attn_part_ends - true if at block base `base` row r has seen a part to its end and goes on. */
bool attn_part_ends(const struct attn_args *a, int r, int64_t base);
/* attn_keep - writes the state of row r to a->part. attn_part_at - part i of row r there. attn_parts - how many parts row r has. */
void attn_keep(const struct attn_scratch *x, const struct attn_args *a, int r);
const struct attn_part *attn_part_at(const struct attn_args *a, int r, int64_t i);
int64_t attn_parts(const struct attn_args *a, int r);

static inline bool attn_is_float(const struct dtype *t) { return t->gguf_id == GGUF_F32 || t->gguf_id == GGUF_F16; }

/* How the sides of the product are read: a query made ready; logits and values of one block. */
struct attn_side {
    void (*query)(const struct attn_args *a, const struct attn_scratch *x, int r);
    void (*logits)(const struct kernels *k, const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b);
    void (*values)(const struct kernels *k, const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b);
};

void attn_merge_ref(const struct attn_args *a, void *scratch);
void attn_ref(const struct kernels *k, const struct attn_args *a, void *scratch);

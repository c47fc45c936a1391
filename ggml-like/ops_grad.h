/* ops_grad - what the gradients of matmuls, attention and scores share: products of two values both of which are packed, of floats (or pairs of BF16).
 * Three shapes, by which of its two sides each operand is packed from: the columns of a panel's rows and of a tile's tokens are summed over. Rows of a
 * matrix become rows of a panel by kernels_panel, tokens by kernels_fill, both transpose; its columns become them by op_columns, which copies. */
#pragma once
#include "ggml-like/ops_int.h"

static inline size_t op_form_bytes(enum act_form form) { return form == ACT_BF16 ? sizeof(uint16_t) : sizeof(float); }

/* op_columns - rows a and b (NULL: zeros, or none) of n floats become columns i and i + 1 of panels, `step` bytes from one to the next; i even. The last
 * panel is filled up with zeros. op_tile_columns - rows of n floats, `stride` apart, become columns of tiles from i on. */
void op_columns(const struct kernels *k, enum act_form form, uint8_t *to, size_t step, int64_t i, const float *a, const float *b, int64_t n);
void op_tile_columns(const struct kernels *k, enum act_form form, uint8_t *to, size_t step, int64_t i, const float *x, int64_t stride, int64_t rows,
                     int64_t n);

size_t op_attn_grad_bytes(int64_t head_dim_max); /* scratch */
size_t op_score_grad_bytes(void);
size_t op_transposed_bytes(void); /* of op_transposed: the beginning; a multiple of 64 */

/* Panels side by side, `step` bytes apart. op_tile - y[t * stride + i] (+)= the tile's tokens times the first n_rows (1..32) rows of two of them; edge:
 * room for PANEL_ROWS floats of each token. A copy of `p`, just written in words and read in pairs of them, waited until all stores before were through: a
 * twentieth of attention's way back */
enum { PAIR_ROWS = 2 * PANEL_ROWS };
struct op_panels { void *data; size_t step; enum act_form form; int64_t nk; };
void op_tile(const struct kernels *k, const struct op_panels *p, const struct act_panel *x, int64_t tile, int64_t k0, int n_tokens, int64_t n_rows, float *y,
             int64_t stride, bool add, float *edge);

/* How a matrix of k columns and a number of tokens is cut: `width` columns, `tiles` tiles of tokens. A result depends on neither.
 * op_transposed - columns col .. col + cols of `rows` tokens from tile `tile` on times n rows of a matrix at `data` (shape and type as w): token t at
 * y + t * stride. */
struct t_cut { int64_t width, blocks, tiles, splits; };
struct t_cut op_t_cut(const struct op_run *r, const struct tensor *w, int64_t rows);
void op_transposed(const struct op_run *r, const struct tensor *w, const uint8_t *data, int64_t n, const struct act_panel *x, int64_t tile, int64_t rows,
                   int64_t col, int64_t cols, float *y, int64_t stride, bool add);
/* to [n][k] += dy^T x, summed over rows: in a number of items, each of them whole. */
struct op_outer_args { const float *dy, *x; int64_t n, k, rows, dy_stride, x_stride; float *to; };
int64_t op_outer_items(const struct op_run *r, int64_t n, int64_t k);
void op_outer_item(const struct op_run *r, const struct op_outer_args *o, int64_t item);

/* kernels - the table of hot loops and the contract of every slot. Filled by kernels_init (cpu.h): plain C first (ref.c), then each ISA level
 * overwrites what it does better. Knows dtype and base only: no tensors, no threads, no models.
 *
 * The whole matmul design in one place
 * ------------------------------------
 * y[t][r] = sum_k W[r][k] * x[t][k].  W is a GGUF matrix that stays in the mapping in its file layout.
 *
 * One token (decode): activations become int16 with one scale per 256 (struct act_row); rowdot[] multiplies a file row in registers.
 *   A value is off by at most 1/65000 of the largest of its 256, as in precise passes (ACT_15): where one is 300 times the others, products of those
 *   have an rms error of 0.3 % (a test), which a scale per 32 would confine to its 32. The 15 bits are two signed bytes where bytes are
 *   multiplied: a second multiplication is cheaper than widening the codes. One scale a superblock leaves one conversion and one FMA of it.
 *
 * Several tokens (prefill, batches): 16 weight rows x up to PANEL_K columns are unpacked once into a panel of integer codes and float scales;
 *   activations are quantized once per matmul input into tiles of NT tokens, with a scale AND an offset per 16 columns where they are bytes: on
 *   the inputs of four real models that has a quarter of the error variance of symmetric int8 with a scale per 32 (asymmetric: 1.5 to 2.7 times
 *   less, 16 instead of 32: 1.5 to 1.9 times less) for about a fifth of the tile's speed. tile() multiplies a panel by a tile.
 *     w[r][k] = S[g][r] * c[r][k] + M[g][r]           c centred: |c| <= code_max
 *     x[t][k] ~ v[t][k] = D[g][t] * a[t][k] + O[g][t]
 *     y[t][r] = sum_g  S[g][r] D[g][t] (sum_k c a)  +  S[g][r] O[g][t] (sum_k c)  +  M[g][r] X[g][t]       g: 16 columns
 *   with X[g][t] = exact float sum of x over the group.
 *   The panel decouples the tile from the file format: one tile body serves all quantized formats. How a level lays out panels and tiles is
 *   its own affair: only its own slots read them. Three layouts exist: planes (levels.h), the blocks of AVX2 (avx2_tiles.h), and the chunks of AMX
 *   (amx_chunks.h), whose panels hold w itself as BF16, in precise passes as two of them, and whose activations are rounded to that.
 *
 * Float weights: the same walk with f32 panels and tile_f32; or, where a level multiplies pairs of BF16 (has_bf16), weights and activations rounded
 *   to BF16, summed in f32. BF16 weights are that already, and rounding the activations is what such files are made for (and what llama.cpp does).
 *   F16 weights stay with f32: as BF16 they lose 3 bits, and as two halves of BF16 they take the two multiplications that f32 takes.
 *
 * All pointers are 64-byte aligned unless a slot says otherwise, d and sum32 of an act_row to 32 bytes (a part of a row may begin at any
 * ACT_ROW_SPAN). Scales of weights below 2^96 in magnitude: integer sums meet them before the activations' own scale (a larger one, which no half
 * float is but MXFP4 and Q8_K can state, gives infinities or NaN). No slot allocates, fails, or touches memory outside its arguments. Different
 * threads may run any slot at once on different outputs. Results of a row or token never depend on its neighbours in the same call. */
#pragma once
#include "ggml-like/dtype.h"

enum {
    PANEL_ROWS = 16,     /* weight rows side by side */
    PANEL_K = 2048,      /* columns in one panel: 32 KiB of codes stays in L1/L2 while all tokens pass */
    TILE_TOKENS_MAX = 32,
    TILE_COLUMNS = 32,   /* parts of a tile begin at its multiples */
    ACT_ROW_MAX = 127 * 256 + 127,
    ACT_ROW_SPAN = 256,  /* columns with one scale in an act_row */
};

/* What activations become. ACT_8: 8 bits each, whatever the level multiplies fastest. ACT_15: about 15 bits, for at most three times the time: precise
 * passes, and what 8-bit codes need where a level cannot multiply them by bytes without loss. For float weights: ACT_F32 as they are, ACT_BF16
 * rounded to 8 bits and an exponent. */
enum act_form { ACT_8, ACT_15, ACT_BF16, ACT_F32, ACT_FORMS };
static inline bool act_is_float(enum act_form form) { return form >= ACT_BF16; }

/* Weights of up to 16 rows x nk columns, for activations of one form. Buffers are the caller's (panel_bytes, panel_place). Rows past n_rows are
 * zero. Planes:
 *   code  int8  [nk/4][16][4]     centred codes
 *   scale f32   [nk/group][16]    S
 *   csum  f32   [nk/16][16]       scale * sum of codes, over 16 columns even when group is 32
 *   min   f32   [nk/group][16]    M, for centred codes (min + scale * code_bias); valid when has_min. Formats without min in the file but
 *                                 with code_bias 0..: has_min is false exactly when M would be 0 everywhere.
 *   f32   f32   [nk][16]          float formats, on every level: uses the memory of `code`; the other arrays are unused
 *   bf16  u16   [nk/2][16][2]     the same for ACT_BF16: pairs of columns, the last of an odd number beside a zero. Rows of a transposed matrix are
 *                                 columns of the file: two of its rows side by side make such pairs
 * A level with blocks or chunks keeps them in the memory from `code` on. */
struct panel {
    int64_t nk;
    enum act_form form;
    int group;       /* 16 or 32; 0 = float panel */
    int code_max;    /* of the centred codes: picks the int16 chain length */
    bool has_min;
    int8_t *code;
    float *scale, *csum, *min;
    float *spare;    /* [2][16][16]: for scales and mins of 256 columns while they are unpacked */
    float *f32;
    uint16_t *bf16;
    const uint8_t *next; /* set by the caller: bytes that will be read soon, in one piece: panel_build asks memory for the first half of them as it */
    size_t next_bytes;   /* goes, tile or pair for the second (0: nothing). In step with the work: a burst waits, since few lines can be under way */
};

/* Activations of n_tokens x k (k % 32 == 0 unless a form of floats) in one form, in tiles of NT = kernels.tile_tokens; tokens past n_tokens in the last
 * tile hold zeros. Tile i starts at data + i * tile_bytes.
 *   ACT_F32: float [k][NT] on every level     ACT_BF16: u16 [k/2][NT][2], pairs as in a panel, or what the level makes of them */
struct act_panel {
    int64_t k, n_tokens;
    enum act_form form;
    size_t tile_bytes;
    uint8_t *data;
};

/* Four blocks of 32 activations for multiplication side by side: their first halves, then their second. */
struct act_quad { int8_t hi[2][4][16], lo[2][4][16]; };
/* Eight of them: byte i of block b in [r] is column 4r + i of the block. */
struct act_eight { int8_t hi[8][8][4], lo[8][8][4]; };

/* One token for rowdot. x[i] ~ d[i/32] * y[i].
 *   y  int16 [k], |y| <= ACT_ROW_MAX    hi, lo  int8 [k], y = 256 * hi + lo: for instructions that multiply bytes
 *   d  f32 [k/32], the same for all of ACT_ROW_SPAN columns: max|x| / ACT_ROW_MAX
 *   sum  int32 [k/16] sums of y over 16    sum16  f32 [k/16], sum32  f32 [k/32]: the sums of y times d, for constants and mins of the weights
 *   f32 [k] for float weights: the input itself
 *   quad  [k/128], eight  [k/256] rounded up, in the same memory: hi and lo in another order; a level's quant_row fills the one that the level reads
 * The arrays of act_row_place may be read up to the next multiple of 256 columns; what lies past k is undefined. */
struct act_row {
    int64_t k;
    int16_t *y;
    int8_t *hi, *lo;
    float *d, *sum16, *sum32;
    int32_t *sum;
    struct act_quad *quad;
    struct act_eight *eight;
    const float *f32;
};

/* A stack of query rows that share one KV head. Row r sees keys lo[r] <= j < hi[r] (an empty range gives zeros).
 *   q   f32 [n_q][head_dim]; row r at q + r * q_stride      out f32 [n_q][head_dim_v]; row r at out + r * out_stride
 *   k   rows of k_type, row j at k + j * k_row_bytes         v likewise; rows hold head_dim / head_dim_v elements
 *   logit = scale * q.k, then cap * tanh(logit / cap) when cap > 0, then + slope[r] * (j - hi[r] + 1)
 * head_dim, head_dim_v % 8 == 0, <= HEAD_DIM_MAX; n_q <= ATTN_ROWS. k_type, v_type: any format whose block divides the row.
 * Of q8_0 and q4_0 levels may multiply the codes by words. Keys: q in multiples of max|q| / 32767. Values: a weight times a scale in multiples of 1 / 32767
 * of the largest weight times the largest scale that the row sees of ATTN_KEYS keys and 32 dims. A row with what is not finite in q, or in a scale that
 * it sees, gets what is not finite. */
enum { ATTN_ROWS = 64, ATTN_KEYS = 64, HEAD_DIM_MAX = 1024, ATTN_PART = 512, ATTN_PARTS = 16 };
struct attn_args {
    int head_dim, head_dim_v, n_q;
    const float *q;
    float *out;
    int64_t q_stride, out_stride;
    const struct dtype *k_type, *v_type;
    const void *k, *v;
    size_t k_row_bytes, v_row_bytes;
    const int32_t *lo, *hi; /* [n_q] */
    float scale, cap;
    bool many;              /* the row is one of many of its sequence: then a level may round what it multiplies to 16 bits */
    const float *sink;      /* [n_q] one extra logit per row in the denominator, or NULL */
    const float *slope;     /* [n_q] ALiBi: added per key of distance to the last one seen, or NULL */
    float *part;            /* attn: not NULL: instead of out, the state of row r after keys first .. last - 1 of its range, which lie in one of its
                             * parts, goes to part + r * attn_part_floats */
    int64_t first, last, part_step; /* attn_merge: floats from one part of a row to its next */
};

/* The keys of a row that ends at hi are summed in parts of this many, cut at its multiples: at most ATTN_PARTS. A row's result is the merge of its
 * parts in order, whoever computed them. */
static inline int64_t attn_part_keys(int64_t hi)
{
    int64_t n = ATTN_PART;
    while (n * ATTN_PARTS < hi) n *= 2;
    return n;
}

/* One step of a linear recurrence, for `cols` columns of its state s [rows][cols], whose rows lie `stride` floats apart:
 *   s = decay s;  u = beta (v - s^T k), plain: beta v;  s += k u^T;  y = scale s^T q          k, q [rows]; v, y [cols] */
struct recur_args {
    float *s, *y;
    const float *k, *q, *v;
    int64_t rows, cols, stride;
    float decay, beta, scale;
    bool plain;
};

/* PANEL_ROWS softmaxes side by side, over n more terms: column i of s [n][PANEL_ROWS], whose rows lie `stride` floats apart. top = the larger of max and
 * the column's; p = exp(s - top), as a panel; what was summed so far follows: sum and the column of acc [n_acc][PANEL_ROWS] are multiplied by
 * exp(max - top), then sum grows by the terms, in f32. max finite or what an earlier call left; of s, -inf gives 0, NaN a NaN and no maximum. p may be s
 * where stride is PANEL_ROWS. Terms and factors: rel. error <= 1e-6 for arguments in [-80, 0], 0 below -104. Milakov & Gimelshein 2018 */
struct softmax_args {
    const float *s;
    float *p, *max, *sum, *acc; /* max, sum [PANEL_ROWS] */
    int64_t stride, n, acc_stride, n_acc;
};

/* Of as many columns, in place: s becomes p = exp(s - lse), d becomes p (d - mean); lse +inf: both 0. Rows of s and d `stride` apart. Terms as above. */
struct softmax_grad_args {
    float *s, *d;
    const float *lse, *mean; /* [PANEL_ROWS] */
    int64_t stride, n;
};

struct act_tile; /* levels.h */
struct act_wide;
struct attn_side; /* attn.h */
struct kernels;

typedef void kernels_panel_fn(const struct kernels *k, struct panel *p, const struct dtype *t, enum act_form form, const void *w, size_t row_bytes,
                              int n_rows, int64_t k0, int64_t nk);
typedef void kernels_fill_fn(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n);
typedef void kernels_tile_fn(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t tile, int64_t k0, int n_tokens,
                             float *y, int64_t y_stride, bool add);
typedef void kernels_pair_fn(const struct kernels *k, const struct panel *p, const struct panel *q, const struct act_panel *x, int64_t tile, int64_t k0,
                             int n_tokens, float *y, int64_t y_stride, bool add);

struct kernels {
    const char *name;     /* strongest ISA level in use */
    int tile_tokens;      /* NT, <= TILE_TOKENS_MAX */
    int code_max_8;       /* formats with larger codes are multiplied by ACT_15 activations only */
    bool has_bf16;        /* ACT_BF16 is the fast form of BF16 weights */
    bool has_chunks;      /* ACT_8 is BF16, ACT_15 two of them, and so are weights in panels: rounded by up to 2^-8, 2^-16 of themselves */

    /* ---- vectors: n >= 0 elements, any alignment, y may equal x exactly (no partial overlap) ---- */
    /* sum of x[i] * y[i] in f32 with a fixed order that depends on n only */
    float (*dot)(const float *x, const float *y, int64_t n);
    /* y = x * w / sqrt(mean(x^2) + eps); w may be NULL (ones). Relative error <= 1e-5. Source: Zhang & Sennrich 2019 */
    void (*rms_norm)(float *y, const float *x, const float *w, int64_t n, float eps);
    void (*add)(float *y, const float *a, const float *b, int64_t n);    /* y = a + b */
    void (*mul)(float *y, const float *a, const float *b, int64_t n);    /* y = a * b */
    void (*scale)(float *y, const float *x, float s, int64_t n);         /* y = s * x */
    void (*axpy)(float *y, const float *x, float s, int64_t n);          /* y += s * x */
    void (*silu_mul)(float *y, const float *g, const float *u, int64_t n); /* y = g * sigmoid(g) * u; rel. error <= 1e-5 */
    void (*gelu_mul)(float *y, const float *g, const float *u, int64_t n); /* tanh form of GELU on g, times u; rel. error <= 1e-5 or abs 1e-6 */
    /* y = u times the derivative of SiLU, of the tanh form of GELU, at g; rel. error <= 1e-5 or abs 1e-6 u */
    void (*silu_grad)(float *y, const float *g, const float *u, int64_t n);
    void (*gelu_grad)(float *y, const float *g, const float *u, int64_t n);
    void (*softcap)(float *y, const float *x, float cap, int64_t n);     /* cap * tanh(x / cap) */
    /* max of x, -inf for n = 0, NaN elements ignored; *at (may be NULL) = lowest index that holds it */
    float (*max)(const float *x, int64_t n, int64_t *at);
    /* sum of exp(x[i] - m), accumulated in double; the terms go to y when y != NULL. Each term rel. error <= 1e-6 for x - m in [-80, 0], 0 below -104 */
    double (*exp_sum)(float *y, const float *x, float m, int64_t n);
    /* sum of exp((x[i] - max) / t), x <= max, t > 0; the terms go to y when y != NULL. 0 where that is below e^-87 or x is NaN, else each term within
     * 3e-7 of what the rounded argument gives. The same bits at every level (weights_tmpl.h) */
    double (*weights)(float *y, const float *x, int64_t n, float max, float t);
    /* in f32, over the rows in order: a column does not depend on its neighbours. Unaligned; y overlaps nothing. Yang et al. 2024; Dao & Gu 2024 */
    void (*recur)(const struct recur_args *a);
    /* rotate one head vector x [n_rot] in place by cs [n_rot/2][2] = {cos, sin}. neox: pairs (i, i + n_rot/2); else (2i, 2i+1).
     * Source: RoFormer, Su et al. 2021 */
    void (*rope)(float *x, const float *cs, int n_rot, bool neox);
    /* conversions of n elements between f32 and a KV/row format: exact round-to-nearest-even for F16/BF16; the slot handles
     * F32, F16, BF16, Q8_0, Q4_0 (to_f32) and falls back to dtype_to_f32 / dtype_from_f32 for others. Unaligned. n multiple of block_len */
    void (*to_f32)(const struct dtype *t, const void *src, float *dst, int64_t n);
    void (*from_f32)(const struct dtype *t, const float *src, void *dst, int64_t n);

    /* ---- matmul, one token ---- */
    /* fills all arrays of `row` but f32 from x [k], k % 32 == 0. d = max|x| / ACT_ROW_MAX per ACT_ROW_SPAN (0 when all zero),
     * over the finite elements; the others become anything finite. x unaligned */
    void (*quant_row)(struct act_row *row, const float *x, int64_t k);
    /* sum_k W[row][k] * x[k] for one row of `k` elements at w (file bytes, unaligned). Integer parts exact; float terms summed in an order that
     * depends on k only. May read ahead of the row by prefetch instructions only. Never NULL after kernels_init for rows of the dtype list. */
    float (*rowdot[DTYPE_IDS])(const void *w, const struct act_row *x, int64_t k);
    /* y[i] = rowdot of w + i * stride for i < n, bit for bit: short rows are over before what is set up for them pays. NULL where a level has no
     * such loop; a level that replaces rowdot[] replaces both. Call kernels_dots. */
    void (*rowdots[DTYPE_IDS])(float *y, const void *w, size_t stride, int64_t n, const struct act_row *x, int64_t k);

    /* ---- matmul, several tokens ---- */
    /* fast twin of dtype->unpack, bit-equal to it. Never NULL for quantized formats */
    void (*unpack[DTYPE_IDS])(const void *block, struct codes *out);
    /* the same of n blocks side by side, at most BLOCK_MAX weights. NULL: a level has nothing faster than one by one */
    void (*unpack_run[DTYPE_IDS])(const uint8_t *blocks, int n, struct codes *out);
    /* bytes of a tile of ACT_8 or ACT_15 activations with `cols` columns, a multiple of 64 */
    size_t (*act_tile_bytes)(const struct kernels *k, enum act_form form, int64_t cols);
    /* fills `p` from n_rows (1..16) file rows: row i at w + i * row_bytes, columns k0 .. k0 + nk of it (k0 multiple of the block length,
     * nk % 32 == 0 for quantized, nk <= PANEL_K), to be multiplied by activations of `form` (code_max <= code_max_8 for ACT_8; any but ACT_BF16 for
     * floats). Sets nk, form, group, code_max, has_min. panel_bf16: the same of float formats for ACT_BF16, of any nk. Call kernels_panel. */
    kernels_panel_fn *panel_build, *panel_bf16;
    /* writes tile `tile` of p, of ACT_8 or ACT_15, from its tokens: x[i] for i < n (n <= NT) are rows of p->k floats; tokens i >= n become zeros.
     * The error of a value is at most half a step:
     *   ACT_8:  (max - min) / 254 over its 16 columns (which 16 of 32 is the level's choice) + 2^-14 max|x| over its 256
     *   ACT_15: max|x| / 32500 over its 256 columns
     * and at most 1e-33 besides; with has_chunks 2^-7 |x| and 2^-15 |x|, and what is not finite stays so. Else elements that are not finite become
     * anything finite and do not disturb the others beyond their 16 columns; with ACT_8, and ACT_15 of two parts, so do those beyond 2^127. The sums of
     * x, for mins, keep what is not finite: such a token shows it. x unaligned. */
    kernels_fill_fn *quant_tile;
    /* the same of ACT_F32, and of ACT_BF16: to nearest even; magnitudes below 2^-126 may become zeros, NaN stays one. Call kernels_fill */
    kernels_fill_fn *pack_tile_f32, *pack_tile_bf16;
    /* v[t][k0 .. k0 + n] of token t of a tile, exactly: what tile() multiplies. k0 and n multiples of 32. For tests and for what rounding left. */
    void (*act_read)(const struct kernels *k, const struct act_panel *p, int64_t tile, int t, int64_t k0, int64_t n, double *v);
    /* y[t * y_stride + r] (+)= panel x tile, for t < n_tokens (1..NT), r < 16. Columns k0 .. k0 + p->nk of the activations (k0 % 256 == 0), whose
     * form is the panel's. add = false overwrites. y has room for 16 floats per token. y unaligned. Float result within 2e-6 * sum |terms| of
     * exact (the terms of the third equation above), where 128 * D * S * sum c counts as a term for codes beyond 6 bits (some levels multiply
     * them by a - 128); with has_chunks besides 2^-8 of the sum of |w x|, or 2^-15 for ACT_15, whose product of two second parts is left out. */
    kernels_tile_fn *tile;
    /* the same of ACT_F32, and of ACT_BF16, where factors, sums and y below 2^-126 may count as zeros. Call kernels_tile */
    kernels_tile_fn *tile_f32, *tile_bf16;
    /* two panels of as many columns, q's rows at y + 16: the same bits as a call for each. NULL: a level reads no value of a token for both.
     * Call kernels_pair */
    kernels_pair_fn *pair, *pair_f32, *pair_bf16;
    /* levels with planes only (kernels_use_planes): `cols` columns of ACT_8 activations, and a panel times those */
    void (*quant_planes)(const struct kernels *k, const struct act_tile *to, int64_t cols, const float *const *x, int n);
    void (*tile_planes)(const struct kernels *k, const struct panel *p, const struct act_tile *x, int n_tokens, float *y, int64_t y_stride,
                        bool add);
    /* the same for ACT_15 as words (levels.h), columns from a multiple of 256 on; NULL: it is two parts of ACT_8 */
    void (*quant_wide)(const struct kernels *k, const struct act_wide *to, int64_t cols, const float *const *x, int n);
    void (*tile_wide)(const struct kernels *k, const struct panel *p, const struct act_wide *x, int n_tokens, float *y, int64_t y_stride, bool add);

    /* ---- attention ---- */
    /* softmax(scale q k^T) v, online over blocks of ATTN_KEYS keys aligned to multiples of ATTN_KEYS; a row's result does not depend on the
     * other rows of the stack. scratch: attn_scratch_bytes, 64-byte aligned. Source: Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022 */
    void (*attn)(const struct kernels *k, const struct attn_args *a, void *scratch);
    const struct attn_side *attn_many; /* how it reads rows of F32 and F16 for `many` queries; NULL: as for few */
    /* out of each row from its parts as attn left them, the same bits as one attn over all keys; reads n_q, head_dim_v, lo, hi, sink, part, part_step */
    void (*attn_merge)(const struct attn_args *a, void *scratch);

    /* ---- gradients ---- */
    /* n weights from the codes of whole blocks, bit for bit those of dtype_to_f32. y unaligned. Call kernels_to_f32 */
    void (*from_codes)(const struct dtype *t, const struct codes *c, int n, float *y);
    /* softmax of columns side by side, and the way back: see their structs */
    void (*softmax_columns)(const struct softmax_args *a);
    void (*softmax_grad)(const struct softmax_grad_args *a);
    /* Panels whose rows, and tiles whose tokens, are the columns of a matrix: two of its rows become one row of pairs in each of them.
     *   to[i / width * step + i % width * 2] = a[i], .. + 1] = b[i], both rounded to BF16 as by panel_bf16; b NULL: zeros
     * width: at most PANEL_ROWS, to which the last group is filled up with zeros. step: from a group to the next, a multiple of 2 */
    void (*columns_bf16)(uint16_t *to, int64_t step, int width, const float *a, const float *b, int64_t n);
    /* rows of n floats, `stride` apart, become columns i .. i + rows - 1 (i even) of tiles of ACT_BF16 that are `step` apart: token t of the first has
     * x[j * stride + t]. An odd number is followed by zeros, as is the last token */
    void (*tile_columns_bf16)(const struct kernels *k, uint16_t *to, int64_t step, int64_t i, const float *x, int64_t stride, int64_t rows, int64_t n);
    /* n columns of all tokens of a tile of ACT_BF16, from a multiple of TILE_COLUMNS on: to = x * f[t], rounded to BF16. Up to the next multiple may be
     * written. to may be x */
    void (*scale_tile_bf16)(const struct kernels *k, uint16_t *to, const uint16_t *x, const float *f, int64_t n);
};

/* n weights (a multiple of block_len), bit for bit those of dtype_to_f32: of all formats at the speed of vectors */
static inline void kernels_to_f32(const struct kernels *k, const struct dtype *t, const void *src, float *dst, int64_t n)
{
    const uint8_t *block = src;
    if (t->group_len == 0 || t->gguf_id == GGUF_Q8_0) {
        k->to_f32(t, src, dst, n);
        return;
    }
    int run = k->unpack_run[t->gguf_id] ? BLOCK_MAX / t->block_len : 1;
    for (int64_t left = n / t->block_len; left > 0; left -= run) {
        struct codes c;
        if (run > left) run = (int)left;
        if (run > 1) k->unpack_run[t->gguf_id](block, run, &c);
        else k->unpack[t->gguf_id](block, &c);
        k->from_codes(t, &c, run * t->block_len, dst);
        block += (size_t)run * (size_t)t->block_bytes, dst += run * t->block_len;
    }
}

static inline void kernels_dots(const struct kernels *k, const struct dtype *t, float *y, const uint8_t *w, size_t stride, int64_t n,
                                const struct act_row *x, int64_t cols)
{
    if (k->rowdots[t->gguf_id]) k->rowdots[t->gguf_id](y, w, stride, n, x, cols);
    else for (int64_t i = 0; i < n; i++) y[i] = k->rowdot[t->gguf_id](w + (size_t)i * stride, x, cols);
}

/* The form in which weights of this type read activations when 8 bits of them are enough, and the one of precise passes. */
static inline enum act_form act_form_fast(const struct kernels *k, const struct dtype *t)
{
    if (t->group_len == 0) return t->gguf_id == GGUF_BF16 && k->has_bf16 ? ACT_BF16 : ACT_F32;
    return t->code_max > k->code_max_8 ? ACT_15 : ACT_8;
}
static inline enum act_form act_form_precise(const struct dtype *t) { return t->group_len == 0 ? ACT_F32 : ACT_15; }

/* Whether activations of this form are, byte for byte, those of ACT_BF16. */
static inline bool act_forms_agree(const struct kernels *k, int64_t cols, enum act_form form) { return k->has_chunks && form == ACT_8 && cols % 32 == 0; }

/* The slots of a form. */
static inline kernels_panel_fn *kernels_panel(const struct kernels *k, enum act_form form) { return form == ACT_BF16 ? k->panel_bf16 : k->panel_build; }
static inline kernels_fill_fn *kernels_fill(const struct kernels *k, enum act_form form)
{
    return form == ACT_F32 ? k->pack_tile_f32 : form == ACT_BF16 ? k->pack_tile_bf16 : k->quant_tile;
}
static inline kernels_tile_fn *kernels_tile(const struct kernels *k, enum act_form form)
{
    return form == ACT_F32 ? k->tile_f32 : form == ACT_BF16 ? k->tile_bf16 : k->tile;
}

static inline kernels_pair_fn *kernels_pairs(const struct kernels *k, enum act_form form)
{
    return form == ACT_F32 ? k->pair_f32 : form == ACT_BF16 ? k->pair_bf16 : k->pair;
}

static inline void kernels_pair(const struct kernels *k, const struct panel *p, const struct panel *q, const struct act_panel *x, int64_t tile, int64_t k0,
                                int n_tokens, float *y, int64_t y_stride, bool add)
{
    kernels_pair_fn *both = kernels_pairs(k, p->form);
    if (both) {
        both(k, p, q, x, tile, k0, n_tokens, y, y_stride, add);
        return;
    }
    kernels_tile(k, p->form)(k, p, x, tile, k0, n_tokens, y, y_stride, add);
    kernels_tile(k, p->form)(k, q, x, tile, k0, n_tokens, y + PANEL_ROWS, y_stride, add);
}

/* Sizes and carving of the buffers above (kernels/layout.c). All sizes are multiples of 64. The arithmetic cannot overflow for
 * k <= 2^31 and n_tokens <= 2^20 on 64-bit; callers validate those bounds. */
size_t panel_bytes(int64_t nk);                                   /* enough for any format */
void panel_place(struct panel *p, void *buf, int64_t nk);
size_t kernels_tile_bytes(const struct kernels *k, int64_t cols, enum act_form form);
size_t act_panel_bytes(const struct kernels *k, int64_t cols, int64_t n_tokens, enum act_form form);
void act_panel_place(const struct kernels *k, struct act_panel *p, void *buf, int64_t cols, int64_t n_tokens, enum act_form form);
size_t act_row_bytes(int64_t cols);
void act_row_place(struct act_row *r, void *buf, int64_t cols);
struct act_row act_row_part(const struct act_row *r, int64_t begin, int64_t end); /* columns begin (a multiple of ACT_ROW_SPAN) .. end */
size_t attn_scratch_bytes(int head_dim, int head_dim_v);          /* for ATTN_ROWS rows, the largest of all ISA levels */

int64_t attn_part_floats(int head_dim_v);                         /* a row's state of one part; a multiple of 16 */

/* One init per ISA level; each overwrites the slots it improves. Called by kernels_init only. */
void kernels_init_ref(struct kernels *k);
void kernels_init_avx2(struct kernels *k);
void kernels_init_avxvnni(struct kernels *k);
void kernels_init_avx512(struct kernels *k);
void kernels_init_avx512vbmi(struct kernels *k);
void kernels_init_avx512bf16(struct kernels *k);
void kernels_init_amx(struct kernels *k);
void kernels_init_neon(struct kernels *k);
void kernels_init_dotprod(struct kernels *k);
void kernels_init_i8mm(struct kernels *k);

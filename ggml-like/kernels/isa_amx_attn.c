/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mavx512bf16 -mamx-tile -mamx-bf16 */
/* isa_amx_attn - attention of many rows by tile registers: logits of 16 queries and 16 keys, values of 16 queries and 16 dims. Both factors are two BF16 with
 * 16 bits together, which for F16 is exact, and meet in three products; what two second parts give is below 2^-16. A third of the rate of BF16 is four times
 * that of float multiplications and leaves the exponentials to take the time. In the scratch:
 *   q     [row] u16 [2 parts][q_len]             tile  keys    u16 [2 parts][4 groups of 16 keys][q_len/32] chunks
 *   s     [row] float [64 keys], then                  values  u16 [2 parts][2 x 32 keys][v_len/16] chunks of 16 pairs of keys x 16 dims
 *         u16 [2 parts][64 keys] */
#include "ggml-like/kernels/amx_chunks.h"
#include "ggml-like/kernels/attn.h"
#include <math.h>

enum { SIDE = 16, GROUPS = ATTN_KEYS / SIDE, QUERY_PAIRS = ATTN_ROWS / (2 * SIDE) };

INLINE __m512i rest_of(__m512 high, __m512 low, __m512i v) { return rounded(_mm512_sub_ps(high, high_floats(v)), _mm512_sub_ps(low, low_floats(v))); }

/* Elements d .. d + 31 of a row of n, beyond them zeros. */
INLINE void load32(__m512 x[2], const uint8_t *row, bool half, int d, int n)
{
    uint32_t mask = n - d >= 32 ? UINT32_MAX : ((uint32_t)1 << (n - d)) - 1;
    if (half) {
        __m512i v = _mm512_maskz_loadu_epi16(mask, row + 2 * d);
        x[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(v)), x[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(v, 1));
    } else {
        const float *p = (const float *)(const void *)row + d;
        x[0] = _mm512_maskz_loadu_ps((__mmask16)mask, p), x[1] = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), p + 16);
    }
}

static uint16_t *tile_of(const struct attn_scratch *x) { return (uint16_t *)(void *)x->tile; }
static uint16_t *row_of(float *rows, int row, int len) { return (uint16_t *)(void *)(rows + (ptrdiff_t)row * len); }

static void query(const struct attn_args *a, const struct attn_scratch *x, int r)
{
    uint16_t *to = row_of(x->q, r, x->q_len);
    const uint8_t *q = (const uint8_t *)(a->q + r * a->q_stride);
    __m512 by = _mm512_set1_ps(a->scale), v[2];
    for (int d = 0; d < x->q_len; d += CHUNK_COLUMNS) {
        load32(v, q, false, d, a->head_dim);
        v[0] = _mm512_mul_ps(v[0], by), v[1] = _mm512_mul_ps(v[1], by);
        __m512i first = rounded(v[1], v[0]);
        _mm512_storeu_si512(to + d, first);
        _mm512_storeu_si512(to + x->q_len + d, rest_of(v[1], v[0], first));
    }
}

static const uint8_t *key_at(const void *rows, size_t row_bytes, const struct attn_block *b, int j)
{
    int inside = j < b->first ? b->first : j < b->last ? j : b->last - 1;
    return (const uint8_t *)rows + (size_t)(b->base + inside) * row_bytes;
}

/* The groups of keys that somebody sees; those beside them repeat a neighbour. */
static void put_keys(const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b)
{
    int chunks = x->q_len / CHUNK_COLUMNS;
    bool half = a->k_type->gguf_id == GGUF_F16;
    for (int g = b->first / SIDE; g * SIDE < b->last; g++)
        for (int c = 0; c < chunks; c++) {
            uint16_t *to = tile_of(x) + (g * chunks + c) * CHUNK_ROWS;
            __m512i first[SIDE], second[SIDE];
            for (int i = 0; i < SIDE; i++) {
                __m512 v[2];
                load32(v, key_at(a->k, a->k_row_bytes, b, g * SIDE + i), half, c * CHUNK_COLUMNS, a->head_dim);
                first[i] = rounded(v[1], v[0]);
                second[i] = rest_of(v[1], v[0], first[i]);
            }
            turn(first);
            for (int i = 0; i < SIDE; i++) _mm512_storeu_si512(to + i * 2 * SIDE, first[i]);
            turn(second);
            for (int i = 0; i < SIDE; i++) _mm512_storeu_si512(to + GROUPS * chunks * CHUNK_ROWS + i * 2 * SIDE, second[i]);
        }
}

/* 32 rows of a block, their part of its list, and the keys that they see. */
struct part_rows { int first, end, lo, hi; };

static struct part_rows rows_of_pair(const struct attn_block *b, int pair)
{
    struct part_rows p = { .lo = ATTN_KEYS };
    while (p.first < b->n && b->row[p.first] < pair * 2 * SIDE) p.first++;
    for (p.end = p.first; p.end < b->n && b->row[p.end] < (pair + 1) * 2 * SIDE; p.end++) {
        if (b->lo[p.end] < p.lo) p.lo = b->lo[p.end];
        if (b->hi[p.end] > p.hi) p.hi = b->hi[p.end];
    }
    return p;
}

/* Two times 16 rows of a row-major side, `step` values apart; two chunks of the other. */
INLINE void load_left(const uint16_t *x, int step)
{
    _tile_loadd(4, x, step * 2);
    _tile_loadd(5, x + SIDE * step, step * 2);
}

INLINE void load_right(const uint16_t *p, const uint16_t *q)
{
    _tile_loadd(6, p, LINE);
    _tile_loadd(7, q, LINE);
}

INLINE void multiply(void)
{
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* All products but that of two second parts. x: first part; x_part, part: from there, and from p and q, to the second */
INLINE void multiply_parts(const uint16_t *x, int step, int x_part, const uint16_t *p, const uint16_t *q, int part)
{
    load_left(x + x_part, step);
    load_right(p, q);
    multiply();
    load_left(x, step);
    multiply();
    load_right(p + part, q + part);
    multiply();
}

static void logits(const struct kernels *k, const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b)
{
    int chunks = x->q_len / CHUNK_COLUMNS, part = GROUPS * chunks * CHUNK_ROWS;
    (void)k;
    put_keys(a, x, b);
    shape_registers();
    memory_is_read();
    for (int pair = 0; pair < QUERY_PAIRS; pair++) {
        struct part_rows rows = rows_of_pair(b, pair);
        for (int g = rows.lo / (2 * SIDE) * 2; rows.first < rows.end && g * SIDE < rows.hi; g += 2) {
            const uint16_t *q = row_of(x->q, pair * 2 * SIDE, x->q_len), *key = tile_of(x) + g * chunks * CHUNK_ROWS;
            float *s = x->s + pair * 2 * SIDE * ATTN_KEYS + g * SIDE;
            zero_sums();
            for (int c = 0; c < chunks; c++)
                multiply_parts(q + c * CHUNK_COLUMNS, 2 * x->q_len, x->q_len, key + c * CHUNK_ROWS, key + (chunks + c) * CHUNK_ROWS, part);
            _tile_stored(0, s, ATTN_KEYS * sizeof *s);
            _tile_stored(1, s + SIDE, ATTN_KEYS * sizeof *s);
            _tile_stored(2, s + SIDE * ATTN_KEYS, ATTN_KEYS * sizeof *s);
            _tile_stored(3, s + SIDE * ATTN_KEYS + SIDE, ATTN_KEYS * sizeof *s);
        }
    }
}

/* ---- values ---- */

/* From here to the largest float BF16 rounds to infinity. */
static const float TOO_LARGE = 0x1.ffp127f;

/* What BF16 cannot hold becomes 0: infinity or NaN in a product would reach rows which do not see it. Returns its keys, a bit each. */
static uint64_t put_values(const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b)
{
    int groups = x->v_len / SIDE, part = ATTN_KEYS * x->v_len;
    bool half = a->v_type->gguf_id == GGUF_F16;
    uint64_t bad = 0;
    for (int j = 0; j < ATTN_KEYS; j += 2)
        for (int g = 0; g < groups; g += 2) {
            uint16_t *to = tile_of(x) + (j / CHUNK_COLUMNS * groups + g) * CHUNK_ROWS + j % CHUNK_COLUMNS * SIDE;
            __m512 v[2][2];
            for (int i = 0; i < 2; i++) {
                bool in = j + i >= b->first && j + i < b->last;
                if (in) load32(v[i], key_at(a->v, a->v_row_bytes, b, j + i), half, g * SIDE, a->head_dim_v);
                else v[i][0] = v[i][1] = _mm512_setzero_ps();
                for (int h = 0; h < 2; h++) {
                    __mmask16 fine = _mm512_cmp_ps_mask(_mm512_abs_ps(v[i][h]), _mm512_set1_ps(TOO_LARGE), _CMP_LT_OQ);
                    if (fine == 0xffff) continue;
                    v[i][h] = _mm512_maskz_mov_ps(fine, v[i][h]);
                    bad |= (uint64_t)1 << (j + i);
                }
            }
            for (int h = 0; h < 2; h++) {
                __m512i first = rounded(v[1][h], v[0][h]);
                _mm512_storeu_si512(to + h * CHUNK_ROWS, paired(first));
                _mm512_storeu_si512(to + part + h * CHUNK_ROWS, paired(rest_of(v[1][h], v[0][h], first)));
            }
        }
    return bad;
}

/* To those who see it: in floats, by the weight as put_weights left it. */
static void add_too_large(const struct kernels *k, const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b, uint64_t bad)
{
    for (int j = 0; j < ATTN_KEYS; j++) {
        if (!(bad >> j & 1)) continue;
        k->to_f32(a->v_type, key_at(a->v, a->v_row_bytes, b, j), x->rows, a->head_dim_v);
        for (int i = 0; i < b->n; i++) {
            const uint16_t *part = row_of(x->s, b->row[i], ATTN_KEYS) + j;
            float p = bf16_to_f32(part[0]) + bf16_to_f32(part[ATTN_KEYS]), *acc = x->acc + (ptrdiff_t)b->row[i] * x->v_len;
            for (int d = 0; d < a->head_dim_v && j >= b->lo[i] && j < b->hi[i]; d++)
                if (!(fabsf(x->rows[d]) < TOO_LARGE)) acc[d] += isfinite(x->rows[d]) ? p * x->rows[d] : x->rows[d];
        }
    }
}

static void put_weights(const struct attn_scratch *x, const struct attn_block *b)
{
    for (int i = 0; i < b->n; i++) {
        float *s = x->s + b->row[i] * ATTN_KEYS;
        uint16_t *to = (uint16_t *)(void *)s;
        __m512 v[4];
        for (int j = 0; j < 4; j++) v[j] = _mm512_loadu_ps(s + 16 * j);
        for (int j = 0; j < 2; j++) {
            __m512i first = rounded(v[2 * j + 1], v[2 * j]);
            _mm512_storeu_si512(to + j * CHUNK_COLUMNS, first);
            _mm512_storeu_si512(to + ATTN_KEYS + j * CHUNK_COLUMNS, rest_of(v[2 * j + 1], v[2 * j], first));
        }
    }
}

static void add_sums(const struct attn_scratch *x, const struct attn_block *b, struct part_rows rows, int d)
{
    _Alignas(64) float sum[4][SIDE][SIDE];
    _tile_stored(0, sum[0], LINE);
    _tile_stored(1, sum[1], LINE);
    _tile_stored(2, sum[2], LINE);
    _tile_stored(3, sum[3], LINE);
    for (int i = rows.first; i < rows.end; i++) {
        int row = b->row[i], at = row % (2 * SIDE);
        float *acc = x->acc + (ptrdiff_t)row * x->v_len + d;
        __m512 decay = _mm512_set1_ps(x->decay[row]);
        for (int h = 0; h < 2; h++, acc += SIDE)
            _mm512_storeu_ps(acc, _mm512_fmadd_ps(_mm512_loadu_ps(acc), decay, _mm512_load_ps(sum[at / SIDE * 2 + h][at % SIDE])));
    }
}

static void values(const struct kernels *k, const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b)
{
    int groups = x->v_len / SIDE, part = ATTN_KEYS * x->v_len;
    uint64_t bad = put_values(a, x, b);
    put_weights(x, b);
    shape_registers();
    memory_is_read();
    for (int pair = 0; pair < QUERY_PAIRS; pair++) {
        struct part_rows rows = rows_of_pair(b, pair);
        for (int g = 0; rows.first < rows.end && g < groups; g += 2) {
            const uint16_t *p = row_of(x->s, pair * 2 * SIDE, ATTN_KEYS);
            zero_sums();
            for (int c = rows.lo / CHUNK_COLUMNS; c * CHUNK_COLUMNS < rows.hi; c++) {
                const uint16_t *v = tile_of(x) + (c * groups + g) * CHUNK_ROWS;
                multiply_parts(p + c * CHUNK_COLUMNS, 2 * ATTN_KEYS, ATTN_KEYS, v, v + CHUNK_ROWS, part);
            }
            add_sums(x, b, rows, g * SIDE);
        }
    }
    if (bad) add_too_large(k, a, x, b, bad);
}

void kernels_init_amx_attn(struct kernels *k)
{
    static const struct attn_side side = { query, logits, values };
    k->attn_many = &side;
}

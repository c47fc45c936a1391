/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mavx512bf16 -mamx-tile -mamx-bf16 */
/* isa_amx_tile - 16 or 32 rows x 1..32 tokens in tile registers: 0 to 3 hold the sums of two panels and two halves of the tokens (2 * half + panel), 4 and
 * 5 the tokens, 6 and 7 the panels. With all four, each register that is loaded, 8 cycles, meets two others, 16 cycles each. Denormals count as zeros.
 * Source: Intel, Architecture Instruction Set Extensions Programming Reference, chapter on AMX. */
#include "ggml-like/kernels/amx_chunks.h"

#include "ggml-like/kernels/avx512_floats_tmpl.h"

enum { SIDE_TOKENS = 16 };

INLINE void load_tokens(const uint16_t *x, bool halves)
{
    _tile_loadd(4, x, LINE);
    if (halves) _tile_loadd(5, x + CHUNK_TOKENS / 2, LINE);
}

INLINE void load_rows(const uint16_t *const w[2], int64_t at, bool both)
{
    _tile_loadd(6, w[0] + at, LINE);
    if (both) _tile_loadd(7, w[1] + at, LINE);
}

INLINE void multiply(bool both, bool halves)
{
    _tile_dpbf16ps(0, 4, 6);
    if (both) _tile_dpbf16ps(1, 4, 7);
    if (halves) _tile_dpbf16ps(2, 5, 6);
    if (halves && both) _tile_dpbf16ps(3, 5, 7);
}

/* What is multiplied: one or two panels of nk columns and a tile, the distances to their second parts, and what is read meanwhile. */
struct factors { const uint16_t *w[2], *x; int64_t nk, w_part, x_part; struct stream next[2]; };

/* The columns after the last whole chunk, beside zeros. */
INLINE void multiply_rest(const struct factors *f, int64_t columns, bool both, bool halves)
{
    _Alignas(64) uint16_t w[2][CHUNK_ROWS] = { { 0 } }, x[CHUNK_TOKENS] = { 0 };
    size_t rows = (size_t)(columns + 1) / 2 * 2 * PANEL_ROWS * sizeof **w;
    memcpy(w[0], f->w[0], rows);
    if (both) memcpy(w[1], f->w[1], rows);
    for (int t = 0; t < NT; t++) memcpy(x + t * CHUNK_COLUMNS, f->x + t * CHUNK_COLUMNS, (size_t)columns * sizeof *x);
    memory_is_read();
    load_tokens(x, halves);
    load_rows((const uint16_t *const[2]){ w[0], w[1] }, 0, both);
    multiply(both, halves);
}

INLINE void sums_of(struct factors f, bool both, bool halves, bool two)
{
    for (; f.nk >= CHUNK_COLUMNS; f.nk -= CHUNK_COLUMNS) {
        stream_ask(&f.next[0], CHUNK_COLUMNS);
        if (both) stream_ask(&f.next[1], CHUNK_COLUMNS);
        if (two) {
            load_tokens(f.x + f.x_part, halves);
            load_rows(f.w, 0, both);
            multiply(both, halves);
        }
        load_tokens(f.x, halves);
        if (!two) load_rows(f.w, 0, both);
        multiply(both, halves);
        if (two) {
            load_rows(f.w, f.w_part, both);
            multiply(both, halves);
        }
        f.x += CHUNK_TOKENS, f.w[0] += CHUNK_ROWS, f.w[1] += CHUNK_ROWS;
    }
    if (f.nk) multiply_rest(&f, f.nk, both, halves);
}

/* Half of the tokens of one panel, register `at`: in y itself where all 16 are there. sum: a buffer for fewer. */
#define WITH_SUMS(at, fn, y, y_stride, n, sum)                                    \
    do {                                                                          \
        if ((n) >= SIDE_TOKENS) fn(at, y, (size_t)(y_stride) * sizeof *(y));      \
        else fn(at, sum, LINE);                                                   \
    } while (0)

/* Sums begin with what is in y. */
INLINE void take_sums(const float *y, int64_t y_stride, int n, bool both)
{
    _Alignas(64) float sum[2][SIDE_TOKENS][PANEL_ROWS];
    int from = n > SIDE_TOKENS ? SIDE_TOKENS : 0, left = n - from;
    if (left < SIDE_TOKENS) {
        for (int t = 0; t < left; t++)
            for (int i = 0; i <= both; i++) _mm512_store_ps(sum[i][t], _mm512_loadu_ps(y + (from + t) * y_stride + i * PANEL_ROWS));
        for (int t = left; t < SIDE_TOKENS; t++)
            for (int i = 0; i <= both; i++) _mm512_store_ps(sum[i][t], _mm512_setzero_ps());
    }
    memory_is_read();
    WITH_SUMS(0, _tile_loadd, y, y_stride, n, sum[0]);
    if (both) WITH_SUMS(1, _tile_loadd, y + PANEL_ROWS, y_stride, n, sum[1]);
    if (n <= SIDE_TOKENS) return;
    y += SIDE_TOKENS * y_stride;
    WITH_SUMS(2, _tile_loadd, y, y_stride, left, sum[0]);
    if (both) WITH_SUMS(3, _tile_loadd, y + PANEL_ROWS, y_stride, left, sum[1]);
}

INLINE void put_sums(float *y, int64_t y_stride, int n, bool both)
{
    _Alignas(64) float sum[2][SIDE_TOKENS][PANEL_ROWS];
    int from = n > SIDE_TOKENS ? SIDE_TOKENS : 0, left = n - from;
    WITH_SUMS(0, _tile_stored, y, y_stride, n, sum[0]);
    if (both) WITH_SUMS(1, _tile_stored, y + PANEL_ROWS, y_stride, n, sum[1]);
    y += from * y_stride;
    if (from) WITH_SUMS(2, _tile_stored, y, y_stride, left, sum[0]);
    if (from && both) WITH_SUMS(3, _tile_stored, y + PANEL_ROWS, y_stride, left, sum[1]);
    for (int t = 0; t < left && left < SIDE_TOKENS; t++, y += y_stride)
        for (int i = 0; i <= both; i++) _mm512_storeu_ps(y + i * PANEL_ROWS, _mm512_load_ps(sum[i][t]));
}

INLINE void tiles(const struct panel *p, const struct panel *q, const struct act_panel *x, int64_t at, int64_t k0, int n, float *y, int64_t y_stride, bool add)
{
    struct factors f = { .w = { p->bf16, q ? q->bf16 : NULL }, .x = act_chunks_at(x, at, k0), .nk = p->nk, .w_part = panel_part(p->nk), .x_part = act_part(x),
                         .next = { panel_stream(p, true) } };
    bool two = p->form == ACT_15, halves = n > SIDE_TOKENS;
    assert(k0 % CHUNK_COLUMNS == 0 && n >= 1 && n <= NT);
    if (q) f.next[1] = panel_stream(q, true);
    shape_registers();
    if (add) take_sums(y, y_stride, n, q);
    else zero_sums();
    memory_is_read();
    if (two && halves) sums_of(f, q, true, true);
    else if (two) sums_of(f, q, false, true);
    else if (halves) sums_of(f, q, true, false);
    else sums_of(f, q, false, false);
    put_sums(y, y_stride, n, q);
}

static void tile(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens, float *y,
                 int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT);
    tiles(p, NULL, x, at, k0, n_tokens, y, y_stride, add);
}

static void pair(const struct kernels *k, const struct panel *p, const struct panel *q, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens,
                 float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && p->nk == q->nk && p->form == q->form);
    tiles(p, q, x, at, k0, n_tokens, y, y_stride, add);
}

void kernels_init_amx_tile(struct kernels *k)
{
    k->tile = k->tile_bf16 = tile;
    k->pair = k->pair_bf16 = pair;
    k->tile_planes = NULL;
    k->tile_wide = NULL;
    k->pack_tile_f32 = pack_tile_f32;
    k->tile_f32 = tile_f32;
    k->pair_f32 = pair_f32;
}

/* ref_matmul - plain C for the matmul slots, written to be read beside the equations of kernels.h.
 * Formats come in through dtype->unpack and dtype->to_f32 only. Integers it produces (codes of activations) are equal on every level:
 * the float operations before the rounding are part of the contract, one by one. */
#include "ggml-like/kernels/levels.h"
#include <assert.h>
#include <math.h>
#include <string.h>

enum { REF_TILE_TOKENS = 4, FLOAT_CHUNK = 64 };

/* ---- one token ---- */

/* NaN gives lo */
static float clampf(float v, float lo, float hi) { return v > lo ? (v < hi ? v : hi) : lo; }

static void quant_row(struct act_row *row, const float *x, int64_t k)
{
    assert(k % 32 == 0);
    row->k = k;
    float magnitude = 0.0f;
    for (int64_t b = 0; b < k / 32; b++, x += 32) {
        if (b * 32 % ACT_ROW_SPAN == 0) {
            magnitude = 0.0f;
            for (int64_t i = 0; i < min_i64(ACT_ROW_SPAN, k - b * 32); i++)
                if (isfinite(x[i]) && fabsf(x[i]) > magnitude) magnitude = fabsf(x[i]);
        }
        bool flat = !(magnitude >= ACT_RANGE_MIN);
        float inv = flat ? 0.0f : (float)ACT_ROW_MAX / magnitude;
        row->d[b] = flat ? 0.0f : magnitude / (float)ACT_ROW_MAX;
        int32_t sum[2] = { 0, 0 };
        for (int i = 0; i < 32; i++) {
            int q = (int)lrintf(clampf(x[i] * inv, -(float)ACT_ROW_MAX, (float)ACT_ROW_MAX)), low = (q & 255) - (q & 128) * 2;
            row->y[b * 32 + i] = (int16_t)q;
            row->lo[b * 32 + i] = (int8_t)low;
            row->hi[b * 32 + i] = (int8_t)((q - low) / 256);
            sum[i / 16] += q;
        }
        for (int i = 0; i < 2; i++) row->sum[2 * b + i] = sum[i], row->sum16[2 * b + i] = row->d[b] * (float)sum[i];
        row->sum32[b] = row->d[b] * (float)(sum[0] + sum[1]);
    }
}

static float rowdot_codes(const struct dtype *t, const uint8_t *block, const struct act_row *x, int64_t k)
{
    float y = 0.0f;
    for (int64_t at = 0; at < k; at += t->block_len, block += t->block_bytes) {
        struct codes c;
        t->unpack(block, &c);
        for (int g = 0; g < t->block_len / t->group_len; g++) {
            int64_t first = at + g * t->group_len;
            int32_t dot = 0, sum = 0;
            for (int i = 0; i < t->group_len; i++) dot += c.code[g * t->group_len + i] * x->y[first + i];
            for (int i = 0; i < t->group_len / 16; i++) sum += x->sum[first / 16 + i];
            y += x->d[first / 32] * (c.scale[g] * (float)dot + (t->has_min ? c.min[g] * (float)sum : 0.0f));
        }
    }
    return y;
}

static float rowdot_floats(const struct dtype *t, const uint8_t *w, const float *x, int64_t k)
{
    float y = 0.0f, chunk[FLOAT_CHUNK];
    for (int64_t at = 0; at < k; at += FLOAT_CHUNK, w += FLOAT_CHUNK * t->block_bytes) {
        int64_t n = min_i64(FLOAT_CHUNK, k - at);
        t->to_f32(w, chunk, n);
        for (int64_t i = 0; i < n; i++) y += chunk[i] * x[at + i];
    }
    return y;
}

static float rowdot_any(int id, const void *w, const struct act_row *x, int64_t k)
{
    const struct dtype *t = dtype_by_id(id);
    return t->unpack ? rowdot_codes(t, w, x, k) : rowdot_floats(t, w, x->f32, k);
}

/* A slot has no dtype argument, so every id has a function of its own. */
#define OCTET(X, n) X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7)
#define ALL_IDS(X) OCTET(X, 0) OCTET(X, 01) OCTET(X, 02) OCTET(X, 03) OCTET(X, 04) OCTET(X, 05) /* octal: 00 .. 057 */
#define ROWDOT(id) \
    static float rowdot_##id(const void *w, const struct act_row *x, int64_t k) { return rowdot_any(id, w, x, k); }
ALL_IDS(ROWDOT)
#define ROWDOT_NAME(id) rowdot_##id,
static float (*const rowdots[])(const void *, const struct act_row *, int64_t) = { ALL_IDS(ROWDOT_NAME) };
_Static_assert(sizeof rowdots / sizeof rowdots[0] == DTYPE_IDS, "one function per id");

/* ---- panels ---- */

static void panel_block(struct panel *p, const struct codes *c, const struct dtype *t, int r, int64_t k, int n)
{
    int lanes = PANEL_ROWS;
    for (int i = 0; i < n; i++) {
        int64_t col = k + i;
        int code = c->code[i] - t->code_bias;
        p->code[(col / 4 * lanes + r) * 4 + col % 4] = (int8_t)code;
        p->csum[col / 16 * lanes + r] += c->scale[i / t->group_len] * (float)code;
    }
    for (int g = 0; g < n / t->group_len; g++) {
        int64_t at = (k / t->group_len + g) * lanes + r;
        p->scale[at] = c->scale[g];
        if (p->has_min) p->min[at] = (t->has_min ? c->min[g] : 0.0f) + c->scale[g] * (float)t->code_bias;
    }
}

static void panel_codes(const struct kernels *k, struct panel *p, const struct dtype *t, const uint8_t *w, size_t row_bytes, int n_rows)
{
    size_t group_floats = (size_t)(p->nk / p->group) * PANEL_ROWS;
    memset(p->code, 0, (size_t)p->nk * PANEL_ROWS);
    memset(p->scale, 0, group_floats * sizeof(float));
    memset(p->csum, 0, (size_t)(p->nk / 16) * PANEL_ROWS * sizeof(float));
    if (p->has_min) memset(p->min, 0, group_floats * sizeof(float));
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *block = w + (size_t)r * row_bytes;
        for (int64_t at = 0; at < p->nk; at += t->block_len, block += t->block_bytes) {
            struct codes c;
            k->unpack[t->gguf_id](block, &c);
            panel_block(p, &c, t, r, at, (int)min_i64(t->block_len, p->nk - at));
        }
    }
}

static void panel_floats(struct panel *p, const struct dtype *t, const uint8_t *w, size_t row_bytes, int n_rows)
{
    float chunk[FLOAT_CHUNK];
    memset(p->f32, 0, (size_t)p->nk * PANEL_ROWS * sizeof(float));
    for (int r = 0; r < n_rows; r++)
        for (int64_t at = 0; at < p->nk; at += FLOAT_CHUNK) {
            int64_t n = min_i64(FLOAT_CHUNK, p->nk - at);
            t->to_f32(w + (size_t)r * row_bytes + (size_t)at * (size_t)t->block_bytes, chunk, n);
            for (int64_t i = 0; i < n; i++) p->f32[(at + i) * PANEL_ROWS + r] = chunk[i];
        }
}

static void panel_build(const struct kernels *k, struct panel *p, const struct dtype *t, enum act_form form, const void *w, size_t row_bytes,
                        int n_rows, int64_t k0, int64_t nk)
{
    const uint8_t *first = (const uint8_t *)w + dtype_row_bytes(t, k0);
    panel_shape(p, t, form, nk);
    if (p->group == 0) panel_floats(p, t, first, row_bytes, n_rows);
    else panel_codes(k, p, t, first, row_bytes, n_rows);
}

/* BF16 of n columns of a row, and a zero after an odd number. */
static int64_t pairs_of(const struct kernels *k, const float *x, uint16_t *to, int64_t n)
{
    k->from_f32(dtype_by_id(GGUF_BF16), x, to, n);
    to[n] = 0;
    return (n + 1) / 2;
}

static void panel_bf16(const struct kernels *k, struct panel *p, const struct dtype *t, enum act_form form, const void *w, size_t row_bytes,
                       int n_rows, int64_t k0, int64_t nk)
{
    float chunk[FLOAT_CHUNK];
    uint16_t half[FLOAT_CHUNK + 1];
    const uint8_t *first = (const uint8_t *)w + dtype_row_bytes(t, k0);
    panel_shape(p, t, form, nk);
    memset(p->bf16, 0, (size_t)(nk + 1) / 2 * PANEL_ROWS * 2 * sizeof *p->bf16);
    for (int r = 0; r < n_rows; r++)
        for (int64_t at = 0; at < nk; at += FLOAT_CHUNK) {
            int64_t n = min_i64(FLOAT_CHUNK, nk - at);
            k->to_f32(t, first + (size_t)r * row_bytes + (size_t)at * (size_t)t->block_bytes, chunk, n);
            int64_t pairs = pairs_of(k, chunk, half, n);
            for (int64_t i = 0; i < pairs; i++) memcpy(p->bf16 + ((at / 2 + i) * PANEL_ROWS + r) * 2, half + 2 * i, 2 * sizeof *half);
        }
}

static void columns_bf16(uint16_t *to, int64_t step, int width, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < (n + width - 1) / width * width; i++) {
        uint16_t *pair = to + i / width * step + i % width * 2;
        pair[0] = i < n ? f32_to_bf16(a[i]) : 0;
        pair[1] = i < n && b ? f32_to_bf16(b[i]) : 0;
    }
}

static void tile_columns_bf16(const struct kernels *k, uint16_t *to, int64_t step, int64_t i, const float *x, int64_t stride, int64_t rows, int64_t n)
{
    for (int64_t j = 0; j < rows; j += 2, x += 2 * stride)
        k->columns_bf16(to + (i + j) * k->tile_tokens, step, k->tile_tokens, x, j + 1 < rows ? x + stride : NULL, n);
}

static void scale_tile_bf16(const struct kernels *k, uint16_t *to, const uint16_t *x, const float *f, int64_t n)
{
    for (int64_t i = 0; i < (n + 1) / 2 * k->tile_tokens * 2; i++) to[i] = f32_to_bf16(bf16_to_f32(x[i]) * f[i / 2 % k->tile_tokens]);
}

/* ---- activations of a tile ---- */

/* 16 columns of one token */
static void quant_tile_group(struct act_tile to, const float *x, int64_t nt)
{
    float lo = ACT_FAR, hi = -ACT_FAR;
    for (int i = 0; i < 16; i++) {
        if (x[i] < lo) lo = x[i];
        if (x[i] > hi) hi = x[i];
    }
    lo = clampf(lo, -ACT_FAR, ACT_FAR), hi = clampf(hi, -ACT_FAR, ACT_FAR);
    float range = hi - lo, sum = 0.0f;
    bool flat = !(range >= ACT_RANGE_MIN);
    float d = flat ? 0.0f : range / 254.0f, inv = flat ? 0.0f : 254.0f / range;
    to.d[0] = d;
    to.o[0] = lo - d;
    for (int i = 0; i < 16; i++) {
        sum += x[i];
        to.a[i / 4 * nt * 4 + i % 4] = (uint8_t)(1 + lrintf(clampf((x[i] - lo) * inv, 0.0f, 254.0f)));
    }
    to.sum[0] = sum;
}

static void zero_tile_group(struct act_tile to, int64_t nt)
{
    to.d[0] = to.o[0] = to.sum[0] = 0.0f;
    for (int i = 0; i < 4; i++) memset(to.a + i * nt * 4, 0, 4);
}

static void quant_planes(const struct kernels *k, const struct act_tile *into, int64_t cols, const float *const *x, int n)
{
    int64_t nt = k->tile_tokens;
    struct act_tile row = *into;
    for (int64_t at = 0; at < cols; at += 16, row.a += 16 * nt, row.d += nt, row.o += nt, row.sum += nt) {
        struct act_tile to = row;
        for (int t = 0; t < nt; t++, to.a += 4, to.d++, to.o++, to.sum++) {
            if (t < n) quant_tile_group(to, x[t] + at, nt);
            else zero_tile_group(to, nt);
        }
    }
}

static void pack_tile_f32(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    float *to = act_floats_at(p, k->tile_tokens, tile, 0);
    for (int64_t i = 0; i < p->k; i++)
        for (int t = 0; t < k->tile_tokens; t++) *to++ = t < n ? x[t][i] : 0.0f;
}

static void pack_tile_bf16(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    int64_t nt = k->tile_tokens;
    uint16_t half[FLOAT_CHUNK + 1], *to = act_pairs_at(p, nt, tile, 0);
    memset(to, 0, (size_t)(p->k + 1) / 2 * (size_t)nt * 2 * sizeof *to);
    for (int t = 0; t < n; t++)
        for (int64_t at = 0; at < p->k; at += FLOAT_CHUNK) {
            int64_t pairs = pairs_of(k, x[t] + at, half, min_i64(FLOAT_CHUNK, p->k - at));
            for (int64_t i = 0; i < pairs; i++) memcpy(to + ((at / 2 + i) * nt + t) * 2, half + 2 * i, 2 * sizeof *half);
        }
}

/* ---- tiles ---- */

/* 16 columns of one row and one token; g counts groups of 16 in the panel, x starts at that group and token */
static float tile_group(const struct panel *p, int64_t g, int r, struct act_tile x, int64_t nt)
{
    int64_t at = g * 16 / p->group * PANEL_ROWS + r;
    int32_t dot = 0;
    for (int i = 0; i < 16; i++) dot += p->code[((g * 4 + i / 4) * PANEL_ROWS + r) * 4 + i % 4] * x.a[i / 4 * nt * 4 + i % 4];
    float y = p->csum[g * PANEL_ROWS + r] * x.o[0] + p->scale[at] * x.d[0] * (float)dot;
    return p->has_min ? y + p->min[at] * x.sum[0] : y;
}

static void tile_planes(const struct kernels *k, const struct panel *p, const struct act_tile *x, int n_tokens, float *y, int64_t y_stride, bool add)
{
    int64_t nt = k->tile_tokens;
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < PANEL_ROWS; r++) {
            float sum = 0.0f;
            struct act_tile from = { x->a + 4 * t, x->d + t, x->o + t, x->sum + t };
            for (int64_t g = 0; g < p->nk / 16; g++, from.a += 16 * nt, from.d += nt, from.o += nt, from.sum += nt)
                sum += tile_group(p, g, r, from, nt);
            y[t * y_stride + r] = add ? y[t * y_stride + r] + sum : sum;
        }
}

static void tile_f32(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens,
                     float *y, int64_t y_stride, bool add)
{
    int64_t nt = k->tile_tokens;
    const float *from = act_floats_at(x, nt, at, k0);
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < PANEL_ROWS; r++) {
            float sum = 0.0f;
            for (int64_t i = 0; i < p->nk; i++) sum += p->f32[i * PANEL_ROWS + r] * from[i * nt + t];
            y[t * y_stride + r] = add ? y[t * y_stride + r] + sum : sum;
        }
}

static void tile_bf16(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens,
                      float *y, int64_t y_stride, bool add)
{
    int64_t nt = k->tile_tokens;
    const uint16_t *from = act_pairs_at(x, nt, at, k0);
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < PANEL_ROWS; r++) {
            float sum = 0.0f;
            for (int64_t i = 0; i < p->nk; i++)
                sum += bf16_to_f32(p->bf16[(i / 2 * PANEL_ROWS + r) * 2 + i % 2]) * bf16_to_f32(from[(i / 2 * nt + t) * 2 + i % 2]);
            y[t * y_stride + r] = add ? y[t * y_stride + r] + sum : sum;
        }
}

void kernels_init_ref_matmul(struct kernels *k)
{
    k->tile_tokens = REF_TILE_TOKENS;
    k->quant_row = quant_row;
    for (int i = 0; i < dtype_count; i++) {
        int id = dtypes[i]->gguf_id;
        k->rowdot[id] = rowdots[id];
        k->unpack[id] = dtypes[i]->unpack;
    }
    k->panel_build = panel_build;
    k->panel_bf16 = panel_bf16;
    k->columns_bf16 = columns_bf16;
    k->tile_columns_bf16 = tile_columns_bf16;
    k->scale_tile_bf16 = scale_tile_bf16;
    kernels_use_planes(k);
    k->quant_planes = quant_planes;
    k->pack_tile_f32 = pack_tile_f32;
    k->pack_tile_bf16 = pack_tile_bf16;
    k->tile_planes = tile_planes;
    k->tile_f32 = tile_f32;
    k->tile_bf16 = tile_bf16;
}

/* planes - the layout that ref, AVX-512 and aarch64 share: codes, scales and sums in arrays of their own. ACT_15 is made of two parts of
 * ACT_8, x and the rest that its rounding left, and its tiles run twice - unless the level multiplies words. */
#include "ggml-like/kernels/levels.h"
#include <string.h>

enum { REST_COLUMNS = 256 };

static size_t act_tile_bytes(const struct kernels *k, enum act_form form, int64_t cols)
{
    if (form == ACT_15 && k->tile_wide) return wide_bytes(k->tile_tokens, cols);
    return planes_part_bytes(k->tile_tokens, cols) * (form == ACT_15 ? 2 : 1);
}

/* The second part of an ACT_15 tile. */
static struct act_tile rest_at(const struct act_panel *p, int64_t nt, int64_t tile, int64_t k0)
{
    struct act_panel rest = *p;
    rest.data += p->tile_bytes / 2;
    return act_tile_at(&rest, nt, tile, k0);
}

static void read_part(struct act_tile from, int64_t nt, int t, int64_t n, double *v)
{
    for (int64_t c = 0; c < n; c++) v[c] = (double)from.d[c / 16 * nt + t] * from.a[(c / 4 * nt + t) * 4 + c % 4] + from.o[c / 16 * nt + t];
}

static void read_wide(struct act_wide from, int64_t nt, int t, int64_t k0, int64_t n, double *v)
{
    for (int64_t c = 0; c < n; c++) {
        int64_t i = c % 4, pair = c / 4 * 2 + i % 2;
        v[c] = (double)from.unit[(k0 % WIDE_SPAN + c) / WIDE_SPAN * nt + t] * from.y[(pair * nt + t) * 2 + i / 2];
    }
}

static void act_read(const struct kernels *k, const struct act_panel *p, int64_t tile, int t, int64_t k0, int64_t n, double *v)
{
    double rest[REST_COLUMNS];
    int64_t nt = k->tile_tokens;
    if (p->form == ACT_15 && k->tile_wide) {
        read_wide(act_wide_at(p, nt, tile, k0), nt, t, k0, n, v);
        return;
    }
    read_part(act_tile_at(p, nt, tile, k0), nt, t, n, v);
    for (int64_t c0 = 0; p->form == ACT_15 && c0 < n; c0 += REST_COLUMNS) {
        int64_t m = min_i64(REST_COLUMNS, n - c0);
        read_part(rest_at(p, nt, tile, k0 + c0), nt, t, m, rest);
        for (int64_t c = 0; c < m; c++) v[c0 + c] += rest[c];
    }
}

/* The exact sums of x are in the first part already: in the second they are 0. */
static void quant_tile(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    int64_t nt = k->tile_tokens;
    if (p->form == ACT_15 && k->tile_wide) {
        struct act_wide wide = act_wide_at(p, nt, tile, 0);
        k->quant_wide(k, &wide, p->k, x, n);
        return;
    }
    struct act_tile to = act_tile_at(p, nt, tile, 0);
    k->quant_planes(k, &to, p->k, x, n);
    if (p->form != ACT_15) return;
    float left[TILE_TOKENS_MAX][REST_COLUMNS];
    double v[REST_COLUMNS];
    const float *rows[TILE_TOKENS_MAX];
    for (int t = 0; t < n; t++) rows[t] = left[t];
    for (int64_t c0 = 0; c0 < p->k; c0 += REST_COLUMNS) {
        int64_t m = min_i64(REST_COLUMNS, p->k - c0);
        struct act_tile rest = rest_at(p, nt, tile, c0);
        for (int t = 0; t < n; t++) {
            read_part(act_tile_at(p, nt, tile, c0), nt, t, m, v);
            for (int64_t c = 0; c < m; c++) left[t][c] = (float)(x[t][c0 + c] - v[c]);
        }
        k->quant_planes(k, &rest, m, rows, n);
        memset(rest.sum, 0, (size_t)(m / 16 * nt) * sizeof *rest.sum);
    }
}

static void tile(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens, float *y,
                 int64_t y_stride, bool add)
{
    if (x->form == ACT_15 && k->tile_wide) {
        struct act_wide wide = act_wide_at(x, k->tile_tokens, at, k0);
        k->tile_wide(k, p, &wide, n_tokens, y, y_stride, add);
        return;
    }
    struct act_tile first = act_tile_at(x, k->tile_tokens, at, k0);
    k->tile_planes(k, p, &first, n_tokens, y, y_stride, add);
    if (x->form != ACT_15) return;
    struct act_tile rest = rest_at(x, k->tile_tokens, at, k0);
    k->tile_planes(k, p, &rest, n_tokens, y, y_stride, true);
}

void kernels_use_planes(struct kernels *k)
{
    k->code_max_8 = 128;
    k->act_tile_bytes = act_tile_bytes;
    k->act_read = act_read;
    k->quant_tile = quant_tile;
    k->tile = tile;
}

/* avx2_tile_tmpl - the tiles of 16 rows x 4 tokens on the blocks of avx2_tiles.h: 2 registers of 8 rows x nt tokens. The file that includes this
 * has defined DOT_ADD(sum, x, y): int32 sums + the sums of pairs of int16 products; and, for the blocks of VNNI, DOT4(sum, x, y): int32
 * sums + the sums of four products of unsigned and signed bytes.
 * Bodies are inlined with constant chain, group and nt. int16 sums live in registers; float sums on the stack, one load and store per scale.
 * KEEP after each add pins the order: without it gcc 12 hoists the products above the sums and spills them (0.6x the speed); and after the
 * loads of weights, which gcc otherwise does again for every token (0.7x). REST sends a float sum to the stack, where it does not take a
 * register from a chain (0.9x). */
#include "ggml-like/kernels/avx2_tiles.h"
#include <assert.h>

#define KEEP(v) __asm__ volatile("" : "+x"(v))
#define REST(v) __asm__ volatile("" : "+m"(v))
#define UNROLL _Pragma("GCC unroll 16")

INLINE __m256i broadcast_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32((int)v);
}

INLINE __m256i load_rows(const void *p, int r) { return load256((const uint8_t *)p + 32 * r); }
INLINE __m256 load_rows_ps(const void *p, int r) { return _mm256_castsi256_ps(load_rows(p, r)); }

#ifndef DOT4
/* s[r][t] = codes x activations over `steps` x 4 columns, in int16. minus128: x activations - 128, begun at -128 * sums. */
INLINE void chain_dot(__m256i s[2][NT], const uint8_t *w, const uint8_t *a, const uint8_t *sums, bool minus128, int steps, int nt)
{
    __m256i start[2];
    if (minus128)
UNROLL
        for (int r = 0; r < 2; r++) start[r] = _mm256_slli_epi16(load_rows(sums, r), 7);
UNROLL
    for (int i = 0; i < steps; i++) {
        __m256i w0 = load_rows(w + i * 64, 0), w1 = load_rows(w + i * 64, 1);
        KEEP(w0);
        KEEP(w1);
UNROLL
        for (int t = 0; t < nt; t++) {
            __m256i b = broadcast_u32(a + (i * NT + t) * 4), p0 = _mm256_maddubs_epi16(b, w0), p1 = _mm256_maddubs_epi16(b, w1);
            s[0][t] = i ? _mm256_add_epi16(s[0][t], p0) : minus128 ? _mm256_sub_epi16(p0, start[0]) : p0;
            s[1][t] = i ? _mm256_add_epi16(s[1][t], p1) : minus128 ? _mm256_sub_epi16(p1, start[1]) : p1;
            KEEP(s[0][t]);
            KEEP(s[1][t]);
        }
    }
}

#else
/* dot[r][t] = codes x (activations - 128) over 16 columns; sums: 0, - sum of the codes */
INLINE void half_dot(__m256i dot[2][NT], const uint8_t *w, const uint8_t *a, const __m256i sums[2], int nt)
{
UNROLL
    for (int i = 0; i < 4; i++) {
        __m256i w0 = load_rows(w + i * 64, 0), w1 = load_rows(w + i * 64, 1);
        KEEP(w0);
        KEEP(w1);
UNROLL
        for (int t = 0; t < nt; t++) {
            __m256i b = broadcast_u32(a + (i * NT + t) * 4);
            dot[0][t] = DOT4(i ? dot[0][t] : _mm256_srai_epi32(sums[0], 9), b, w0);
            dot[1][t] = DOT4(i ? dot[1][t] : _mm256_srai_epi32(sums[1], 9), b, w1);
            KEEP(dot[0][t]);
            KEEP(dot[1][t]);
        }
    }
}
#endif

/* What multiplies the integer sums of a group: scale and min (NULL: none) of 16 rows, sum and offset (NULL: none) of the tokens. */
struct factors { const uint8_t *scale, *min; const float *sum; const int16_t (*offset)[2]; };

/* acc[r][t] += scale[r] * (dot[r][t] + codes[r] . offset[t]) + min[r] * sum[t] */
INLINE void add_scaled_body(__m256 acc[2][NT], __m256i dot[2][NT], const __m256i codes[2], struct factors f, bool has_min, int nt)
{
    __m256 scale[2], min[2];
UNROLL
    for (int r = 0; r < 2; r++) scale[r] = load_rows_ps(f.scale, r);
    if (has_min)
UNROLL
        for (int r = 0; r < 2; r++) min[r] = load_rows_ps(f.min, r);
UNROLL
    for (int t = 0; t < nt; t++)
UNROLL
        for (int r = 0; r < 2; r++) {
            if (f.offset) dot[r][t] = DOT_ADD(dot[r][t], codes[r], broadcast_u32(f.offset[t]));
            if (has_min) acc[r][t] = _mm256_fmadd_ps(min[r], _mm256_broadcast_ss(f.sum + t), acc[r][t]);
            acc[r][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][t]), scale[r], acc[r][t]);
            REST(acc[r][t]);
        }
}

INLINE void add_scaled(__m256 acc[2][NT], __m256i dot[2][NT], const __m256i codes[2], struct factors f, int nt)
{
    if (f.min) add_scaled_body(acc, dot, codes, f, true, nt);
    else add_scaled_body(acc, dot, codes, f, false, nt);
}

#ifndef DOT4
/* chains: int16 sums of 32 columns, one after the other; plain: the sums of a fit in int16 as they are */
INLINE void block8(__m256 acc[2][NT], const uint8_t *w, const struct act8 *x, bool has_min, int chains, int group, bool plain, int nt)
{
    const uint8_t *sums = w + BLOCK_CODES, *scale = sums + chains * 64, *min = scale + BLOCK / group * 64;
    int steps = 8 / chains, each = group / 4 / steps; /* products in a chain, chains in a scale */
UNROLL
    for (int g = 0; g < BLOCK / group; g++) {
        __m256i dot[2][NT], total[2];
UNROLL
        for (int c = 0; c < each; c++) {
            int at = g * each + c;
            __m256i s[2][NT];
            chain_dot(s, w + at * steps * 64, x->a[at * steps][0], sums + at * 64, !plain, steps, nt);
UNROLL
            for (int t = 0; t < nt; t++) {
                __m256i d = broadcast_u32(x->d[t]);
UNROLL
                for (int r = 0; r < 2; r++) dot[r][t] = c ? DOT_ADD(dot[r][t], s[r][t], d) : _mm256_madd_epi16(s[r][t], d);
            }
UNROLL
            for (int r = 0; r < 2; r++) total[r] = c ? _mm256_add_epi16(total[r], load_rows(sums + at * 64, r)) : load_rows(sums + at * 64, r);
        }
        struct factors f = { scale + g * 64, has_min ? min + g * 64 : NULL, group == 32 ? x->sum32 : x->sum[g], plain ? x->o : x->mid };
        add_scaled(acc, dot, total, f, nt);
    }
}

#else
/* chains: how many sums there is room for before the scales; plain: the sums of 16 products fit in int16; if not, they take a product of 32 bits,
 * and those of the codes another one */
INLINE void block8(__m256 acc[2][NT], const uint8_t *w, const struct act8 *x, bool has_min, int chains, int group, bool plain, int nt)
{
    const uint8_t *scale = w + BLOCK_CODES + chains * 64, *min = scale + BLOCK / group * 64;
    __m256i first[2][NT];
UNROLL
    for (int h = 0; h < 2; h++) {
        __m256i dot[2][NT], both[2], sums[2];
UNROLL
        for (int r = 0; r < 2; r++) {
            both[r] = load_rows(w + BLOCK_CODES, r);
            sums[r] = h ? _mm256_and_si256(both[r], _mm256_set1_epi32(-65536)) : _mm256_slli_epi32(both[r], 16);
        }
        half_dot(dot, w + h * 4 * 64, x->a[h * 4][0], sums, nt);
UNROLL
        for (int t = 0; t < nt; t++) {
            __m256i dm = broadcast_u32(x->dm[h][t]), d = _mm256_srli_epi32(_mm256_slli_epi32(dm, 16), 16);
UNROLL
            for (int r = 0; r < 2; r++) {
                __m256i pairs = _mm256_blend_epi16(dot[r][t], sums[r], 0xaa);
                if (group == 16 || h == 0) dot[r][t] = plain ? _mm256_madd_epi16(pairs, dm) : _mm256_mullo_epi32(dot[r][t], d);
                else dot[r][t] = plain ? DOT_ADD(first[r][t], pairs, dm) : _mm256_add_epi32(first[r][t], _mm256_mullo_epi32(dot[r][t], d));
                if (group == 16 || h == 1) continue;
                first[r][t] = dot[r][t];
                REST(first[r][t]);
            }
        }
        if (group == 32 && h == 0) continue;
        int g = group == 16 ? h : 0;
        struct factors f = { scale + g * 64, has_min ? min + g * 64 : NULL, group == 32 ? x->sum32 : x->sum[g], NULL };
        if (!plain) f.offset = group == 16 ? x->dm[h] : x->minus_mid;
        add_scaled(acc, dot, group == 16 ? sums : both, f, nt);
    }
}
#endif

INLINE void block15(__m256 acc[2][NT], const uint8_t *w, const struct act15 *x, bool has_min, int group, int nt)
{
    const uint8_t *scale = w + 2 * BLOCK_CODES, *min = scale + BLOCK / group * 64;
UNROLL
    for (int g = 0; g < BLOCK / group; g++) {
        __m256i dot[2][NT];
UNROLL
        for (int i = 0; i < group / 2; i++) {
            int at = g * group / 2 + i;
            __m256i w0 = load_rows(w + at * 64, 0), w1 = load_rows(w + at * 64, 1);
            KEEP(w0);
            KEEP(w1);
UNROLL
            for (int t = 0; t < nt; t++) {
                __m256i b = broadcast_u32(x->y[at][t]);
                dot[0][t] = i ? DOT_ADD(dot[0][t], b, w0) : _mm256_madd_epi16(b, w0);
                dot[1][t] = i ? DOT_ADD(dot[1][t], b, w1) : _mm256_madd_epi16(b, w1);
                KEEP(dot[0][t]);
                KEEP(dot[1][t]);
            }
        }
        add_scaled(acc, dot, NULL, (struct factors){ scale + g * 64, has_min ? min + g * 64 : NULL, group == 32 ? x->sum32 : x->sum[g], NULL }, nt);
    }
}

/* Writes or adds the float sums to y. */
INLINE void tile_store(__m256 acc[2][NT], int nt, float *y, int64_t y_stride, bool add)
{
UNROLL
    for (int t = 0; t < nt; t++)
UNROLL
        for (int r = 0; r < 2; r++) {
            float *to = y + t * y_stride + 8 * r;
            _mm256_storeu_ps(to, add ? _mm256_add_ps(_mm256_loadu_ps(to), acc[r][t]) : acc[r][t]);
        }
}

/* Where a tile's activations are read. */
struct act_at { const uint8_t *block; const float *unit; };

/* chains 0: ACT_15 */
INLINE void tile_body(const struct panel *p, struct act_at x, float *y, int64_t y_stride, bool add, int chains, int group, bool plain, int nt)
{
    size_t block = panel_layout(p->form, group, p->code_max, p->has_min).bytes;
    const uint8_t *w = (const uint8_t *)p->code;
    struct stream next = panel_stream(p, true);
    __m256 all[2][NT];
    for (int t = 0; t < nt; t++) all[0][t] = all[1][t] = _mm256_setzero_ps();
    for (int64_t at = 0; at < p->nk; x.unit += NT) {
        __m256 acc[2][NT];
        for (int t = 0; t < nt; t++) acc[0][t] = acc[1][t] = _mm256_setzero_ps();
        for (int64_t end = min_i64(at + SPAN, p->nk); at < end; at += BLOCK, w += block) {
            stream_ask(&next, BLOCK);
            if (chains) block8(acc, w, (const struct act8 *)(const void *)x.block, p->has_min, chains, group, plain, nt);
            else block15(acc, w, (const struct act15 *)(const void *)x.block, p->has_min, group, nt);
            x.block += chains ? sizeof(struct act8) : sizeof(struct act15);
        }
UNROLL
        for (int t = 0; t < nt; t++) {
            __m256 u = _mm256_broadcast_ss(x.unit + t);
            all[0][t] = _mm256_fmadd_ps(acc[0][t], u, all[0][t]);
            all[1][t] = _mm256_fmadd_ps(acc[1][t], u, all[1][t]);
        }
    }
    tile_store(all, nt, y, y_stride, add);
}

typedef void tile_fn(const struct panel *p, struct act_at x, float *y, int64_t y_stride, bool add);

#define TILE(name, chains, group, plain, nt)                                                                 \
    static void name##_##nt(const struct panel *p, struct act_at x, float *y, int64_t y_stride, bool add)    \
    {                                                                                                        \
        tile_body(p, x, y, y_stride, add, chains, group, plain, nt);                                         \
    }
/* X(name, form, group, the largest code, chains (0: none), the sums of a fit in int16 as they are) */
#ifndef DOT4
#define TILES(X)                                                                                                             \
    X(tile8_32_8, ACT_8, 32, 8, 1, true) X(tile8_32_16, ACT_8, 32, 16, 1, false) X(tile8_32_32, ACT_8, 32, 32, 2, false)     \
    X(tile8_32_64, ACT_8, 32, 64, 4, false) X(tile8_16_16, ACT_8, 16, 16, 2, true) X(tile8_16_32, ACT_8, 16, 32, 2, false)   \
    X(tile8_16_64, ACT_8, 16, 64, 4, false) X(tile15_32, ACT_15, 32, 128, 0, true) X(tile15_16, ACT_15, 16, 128, 0, true)
#else
#define TILES(X)                                                                                                             \
    X(tile8_32_16, ACT_8, 32, 16, 1, true) X(tile8_32_32, ACT_8, 32, 32, 2, false) X(tile8_32_128, ACT_8, 32, 128, 4, false) \
    X(tile8_16_16, ACT_8, 16, 16, 2, true) X(tile8_16_32, ACT_8, 16, 32, 2, false) X(tile8_16_128, ACT_8, 16, 128, 4, false) \
    X(tile15_32, ACT_15, 32, 128, 0, true) X(tile15_16, ACT_15, 16, 128, 0, true)
#endif
/* X(..., number of tokens) */
#if defined(DOT4)
#define EACH_NT(X, ...) \
    X(__VA_ARGS__, 1) X(__VA_ARGS__, 2) X(__VA_ARGS__, 3) X(__VA_ARGS__, 4) X(__VA_ARGS__, 5) X(__VA_ARGS__, 6)
#else
#define EACH_NT(X, ...) X(__VA_ARGS__, 1) X(__VA_ARGS__, 2) X(__VA_ARGS__, 3) X(__VA_ARGS__, 4)
#endif
#define TILE_TOKENS(name, form, group, code_max, chains, plain) EACH_NT(TILE, name, chains, group, plain)
TILES(TILE_TOKENS)

#define TILE_NAME(name, nt) name##_##nt,
#define TILE_ROW(name, form, group, code_max, chains, plain) { form, group, code_max, { EACH_NT(TILE_NAME, name) } },
static const struct {
    enum act_form form;
    int group, code_max;
    tile_fn *of_tokens[NT];
} tiles[] = { TILES(TILE_ROW) };

static void tile(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens, float *y,
                 int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && p->form == x->form && p->nk % BLOCK == 0 && k0 % SPAN == 0 && n_tokens >= 1 && n_tokens <= NT);
    int i = 0;
    while (tiles[i].form != p->form || tiles[i].group != p->group || tiles[i].code_max < p->code_max) i++;
    const uint8_t *data = x->data + (size_t)at * x->tile_bytes;
    struct act_at from = { data + (size_t)(k0 / BLOCK) * act_block_bytes(x->form),
                           (const float *)(const void *)(data + act_units_at(x->form, x->k)) + k0 / SPAN * NT };
    tiles[i].of_tokens[n_tokens - 1](p, from, y, y_stride, add);
}

/* ---- float weights ---- */

/* acc[r][t] += v[r] * x[t] */
INLINE void add_outer(__m256 acc[2][NT], const float *v, const float *x, int nt)
{
    __m256 v0 = _mm256_loadu_ps(v), v1 = _mm256_loadu_ps(v + 8);
UNROLL
    for (int t = 0; t < nt; t++) {
        __m256 b = _mm256_broadcast_ss(x + t);
        acc[0][t] = _mm256_fmadd_ps(v0, b, acc[0][t]);
        acc[1][t] = _mm256_fmadd_ps(v1, b, acc[1][t]);
    }
}

INLINE void tile_f32_body(const float *w, const float *x, int64_t nk, float *y, int64_t y_stride, bool add, int nt)
{
    __m256 acc[2][NT];
    for (int t = 0; t < nt; t++) acc[0][t] = acc[1][t] = _mm256_setzero_ps();
    for (int64_t i = 0; i < nk; i++) add_outer(acc, w + i * PANEL_ROWS, x + i * NT, nt);
    tile_store(acc, nt, y, y_stride, add);
}

typedef void tile_f32_fn(const struct panel *p, const float *x, float *y, int64_t y_stride, bool add);

#define TILE_F32(name, nt)                                                                                       \
    static void name##_##nt(const struct panel *p, const float *x, float *y, int64_t y_stride, bool add)         \
    {                                                                                                            \
        tile_f32_body(p->f32, x, p->nk, y, y_stride, add, nt);                                                   \
    }
EACH_NT(TILE_F32, tile_f32)
static tile_f32_fn *const tiles_f32[NT] = { EACH_NT(TILE_NAME, tile_f32) };

static void tile_f32(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens, float *y,
                     int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && n_tokens >= 1 && n_tokens <= NT);
    tiles_f32[n_tokens - 1](p, act_floats_at(x, NT, at, k0), y, y_stride, add);
}

INLINE void init_tiles(struct kernels *k)
{
    k->tile_tokens = NT;
    k->tile = tile;
    k->tile_f32 = tile_f32;
}

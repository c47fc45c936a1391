/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512_tile - the tiles of 16 rows x 1..12 tokens. One register is 4 columns of 16 rows; vpdpbusd multiplies them by 4 activations of a
 * token, u8 x s8 summed in int32 without saturation, so one body serves every quantized format. 12 integer and 12 float sums, the weights
 * and the scales fill the 32 registers. Per 16 columns, 16 rows and token: 4 dot products and 3 FMAs (4 with mins) on two ports. */
#include "ggml-like/kernels/avx512_blocks.h"

enum { NT = AVX512_TILE_TOKENS };
#include "ggml-like/kernels/avx512_floats_tmpl.h"

/* The int32 sums start at the bits of 1.5 * 2^23. Read as a float, such a sum is 1.5 * 2^23 + dot exactly, as |dot| < 2^22 (16 columns,
 * 255 * 128 each), so scale * dot is one FMA without conversion: an eighth of the tile. scale * 1.5 * 2^23 must be exact for that, which
 * holds for scales of up to 22 significant bits: every half float times a small integer. Other panels (q8_k) convert. It is finite for all scales
 * of the contract (< 2^96). */
static const float integer_one = 0x1.8p23f;
enum { LONG_SCALE = 3 }; /* mantissa bits that a scale of 22 bits leaves zero */

INLINE __m512i broadcast_u32(const uint8_t *p) { return _mm512_set1_epi32((int)load_u32(p)); }

/* dot[t] = bits of integer_one (or 0) + codes x activations over 16 columns */
INLINE void group_dot(__m512i dot[NT], const int8_t *w, const uint8_t *a, bool convert, int nt)
{
    __m512i start = convert ? _mm512_setzero_si512() : _mm512_castps_si512(_mm512_set1_ps(integer_one));
UNROLL
    for (int t = 0; t < nt; t++) dot[t] = start;
UNROLL
    for (int i = 0; i < 4; i++) {
        __m512i codes = load512(w + i * 4 * PANEL_ROWS);
UNROLL
        for (int t = 0; t < nt; t++) dot[t] = _mm512_dpbusd_epi32(dot[t], broadcast_u32(a + (i * NT + t) * 4), codes);
    }
}

/* What 16 columns of 16 rows and of all tokens are multiplied with; min is NULL where no mins are due. */
struct factors { const float *scale, *csum, *min, *d, *o, *sum; };

/* acc[t] += o[t] * csum + sum[t] * min + d[t] * scale * dot[t]. Token by token: kinder to the ports than term by term. */
INLINE __m512i add_group(__m512 acc[NT], const __m512i dot[NT], struct factors f, bool convert, int nt)
{
    __m512 scale = load_ps(f.scale), csum = load_ps(f.csum), base = _mm512_mul_ps(scale, _mm512_set1_ps(-integer_one));
    __m512 min = f.min ? load_ps(f.min) : _mm512_setzero_ps();
UNROLL
    for (int t = 0; t < nt; t++) {
        acc[t] = _mm512_fmadd_ps(csum, _mm512_set1_ps(f.o[t]), acc[t]);
        __m512 v = convert ? _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dot[t])) : _mm512_fmadd_ps(scale, _mm512_castsi512_ps(dot[t]), base);
        if (f.min) acc[t] = _mm512_fmadd_ps(min, _mm512_set1_ps(f.sum[t]), acc[t]);
        acc[t] = _mm512_fmadd_ps(v, _mm512_set1_ps(f.d[t]), acc[t]);
    }
    return _mm512_castps_si512(scale);
}

/* The sums of the activations over 32 columns, for mins that hold for 32. */
INLINE void pair_sums(float both[16], const float *sum)
{
    _mm512_store_ps(both, _mm512_add_ps(load_ps(sum), _mm512_maskz_loadu_ps((1 << NT) - 1, sum + NT)));
}

/* Computes nt tokens and writes n of them. False, and nothing written, when a scale is too long for the sums not to be converted. */
INLINE bool tile_body(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add, int n, bool convert, int group,
                      bool has_min, int nt)
{
    const int8_t *w = p->code;
    const float *scale = p->scale, *csum = p->csum, *min = p->min;
    bool pairs = has_min && group == 32;
    _Alignas(64) float both[2][16]; /* of this block and the next: a broadcast right after the store would wait for it */
    int now = 0;
    __m512i bits = _mm512_setzero_si512();
    __m512 acc[NT];
UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
    struct stream next = panel_stream(p, true);
    if (pairs) pair_sums(both[0], x.sum);
    for (const int8_t *end = w + p->nk * PANEL_ROWS; w < end; w += 32 * PANEL_ROWS) {
        stream_ask(&next, 32);
        if (pairs) pair_sums(both[now ^ 1], w + 32 * PANEL_ROWS < end ? x.sum + 2 * NT : x.sum);
UNROLL
        for (int h = 0; h < 2; h++) {
            __m512i dot[NT];
            group_dot(dot, w + h * 16 * PANEL_ROWS, x.a + h * 16 * NT, convert, nt);
            struct factors f = { scale + (group == 16 ? h * PANEL_ROWS : 0), csum + h * PANEL_ROWS, NULL, x.d + h * NT, x.o + h * NT, NULL };
            if (has_min && group == 16) f.min = min + h * PANEL_ROWS, f.sum = x.sum + h * NT;
            if (pairs && h == 1) f.min = min, f.sum = both[now];
            bits = _mm512_or_si512(bits, add_group(acc, dot, f, convert, nt));
        }
        now ^= 1;
        x.a += 32 * NT, x.d += 2 * NT, x.o += 2 * NT, x.sum += 2 * NT;
        scale += 32 / group * PANEL_ROWS, csum += 2 * PANEL_ROWS, min += 32 / group * PANEL_ROWS;
    }
    if (!convert && _mm512_test_epi32_mask(bits, _mm512_set1_epi32(LONG_SCALE))) return false;
    tile_store(acc, y, y_stride, add, n);
    return true;
}

typedef bool tile_fn(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add, int n);

#define TILE(name, convert, group, has_min, nt)                                                                     \
    static bool name(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add, int n)         \
    {                                                                                                               \
        return tile_body(p, x, y, y_stride, add, convert ? n : nt, convert, group, has_min, nt);                    \
    }
#define TILE_NT(group, has_min, nt) TILE(tile_##group##_##has_min##_##nt, false, group, has_min, nt)
#define TILE_NT_NAME(group, has_min, nt) tile_##group##_##has_min##_##nt,
EACH_NT(TILE_NT, 32, 0) EACH_NT(TILE_NT, 32, 1) EACH_NT(TILE_NT, 16, 0) EACH_NT(TILE_NT, 16, 1)
TILE(convert_32_0, true, 32, false, NT) TILE(convert_32_1, true, 32, true, NT)
TILE(convert_16_0, true, 16, false, NT) TILE(convert_16_1, true, 16, true, NT)

/* [group 16][has_min][n_tokens - 1] */
static tile_fn *const tiles[2][2][NT] = {
    { { EACH_NT(TILE_NT_NAME, 32, 0) }, { EACH_NT(TILE_NT_NAME, 32, 1) } },
    { { EACH_NT(TILE_NT_NAME, 16, 0) }, { EACH_NT(TILE_NT_NAME, 16, 1) } },
};
static tile_fn *const converting_tiles[2][2] = { { convert_32_0, convert_32_1 }, { convert_16_0, convert_16_1 } };

static void tile_planes(const struct kernels *k, const struct panel *p, const struct act_tile *x, int n_tokens, float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && p->nk % 32 == 0 && n_tokens >= 1 && n_tokens <= NT);
    int group16 = p->group == 16;
    if (!tiles[group16][p->has_min][n_tokens - 1](p, *x, y, y_stride, add, n_tokens))
        (void)converting_tiles[group16][p->has_min](p, *x, y, y_stride, add, n_tokens);
}

/* ---- activations of 15 bits: four codes of a row become two pairs of words, vpdpwssd multiplies them by two pairs of a token. Per 32 columns, 16
 * rows and token: 16 products and one FMA (two with mins), against 8 products and 6 FMAs for 8 bits. |sum| <= 32 * 128 * 32500 fits. ---- */

INLINE __m512i broadcast_pair(const int16_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

INLINE void wide_dot(__m512i dot[NT], const int8_t *w, const int16_t *y, int columns, int nt)
{
UNROLL
    for (int i = 0; i < columns / 4; i++, y += 4 * NT) {
        __m512i codes = load512(w + i * 4 * PANEL_ROWS), even = _mm512_srai_epi16(_mm512_slli_epi16(codes, 8), 8), odd = _mm512_srai_epi16(codes, 8);
UNROLL
        for (int t = 0; t < nt; t++)
            dot[t] = i ? _mm512_dpwssd_epi32(dot[t], even, broadcast_pair(y + 2 * t)) : _mm512_madd_epi16(even, broadcast_pair(y + 2 * t));
UNROLL
        for (int t = 0; t < nt; t++) dot[t] = _mm512_dpwssd_epi32(dot[t], odd, broadcast_pair(y + 2 * NT + 2 * t));
    }
}

INLINE void wide_body(const struct panel *p, struct act_wide x, float *y, int64_t y_stride, bool add, int group, int nt)
{
    const int8_t *w = p->code;
    const float *scale = p->scale, *min = p->min, *sum = group == 32 ? x.sum32 : x.sum;
    struct stream next = panel_stream(p, true);
    __m512 all[NT];
UNROLL
    for (int t = 0; t < nt; t++) all[t] = _mm512_setzero_ps();
    for (int64_t at = 0; at < p->nk; x.unit += NT) {
        __m512 acc[NT];
UNROLL
        for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
        for (int64_t end = min_i64(at + WIDE_SPAN, p->nk); at < end; at += group, w += group * PANEL_ROWS, x.y += group * NT) {
            __m512i dot[NT];
            stream_ask(&next, group);
            wide_dot(dot, w, x.y, group, nt);
            __m512 s = load_ps(scale);
UNROLL
            for (int t = 0; t < nt; t++) acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t]), s, acc[t]);
            if (p->has_min) {
                __m512 m = load_ps(min);
UNROLL
                for (int t = 0; t < nt; t++) acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(sum[t]), acc[t]);
                min += PANEL_ROWS, sum += NT;
            }
            scale += PANEL_ROWS;
        }
UNROLL
        for (int t = 0; t < nt; t++) {
            all[t] = _mm512_fmadd_ps(acc[t], _mm512_set1_ps(x.unit[t]), all[t]);
            __asm__ volatile("" : "+m"(all[t])); /* not in registers: the sums need them */
        }
    }
    tile_store(all, y, y_stride, add, nt);
}

typedef void wide_fn(const struct panel *p, struct act_wide x, float *y, int64_t y_stride, bool add);

#define WIDE(group, nt)                                                                                             \
    static void wide_##group##_##nt(const struct panel *p, struct act_wide x, float *y, int64_t y_stride, bool add) \
    {                                                                                                               \
        wide_body(p, x, y, y_stride, add, group, nt);                                                               \
    }
#define WIDE_NAME(group, nt) wide_##group##_##nt,
EACH_NT(WIDE, 32) EACH_NT(WIDE, 16)
static wide_fn *const wide_tiles[2][NT] = { { EACH_NT(WIDE_NAME, 32) }, { EACH_NT(WIDE_NAME, 16) } };

static void tile_wide(const struct kernels *k, const struct panel *p, const struct act_wide *x, int n_tokens, float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && p->nk % 32 == 0 && n_tokens >= 1 && n_tokens <= NT);
    wide_tiles[p->group == 16][n_tokens - 1](p, *x, y, y_stride, add);
}

void kernels_init_avx512_tile(struct kernels *k)
{
    k->tile_tokens = NT;
    kernels_use_planes(k);
    k->tile_planes = tile_planes;
    k->tile_wide = tile_wide;
    k->pack_tile_f32 = pack_tile_f32;
    k->tile_f32 = tile_f32;
    k->pair_f32 = pair_f32;
}

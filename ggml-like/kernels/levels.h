/* levels - what the files of this folder share and nobody else sees: the parts of each ISA level, and addressing inside act_panel. */
#pragma once
#include "ggml-like/kernels/kernels.h"

/* kernels_init_<level> calls these; every part fills its own slots. */
void kernels_init_ref_matmul(struct kernels *k);
void kernels_init_ref_vec(struct kernels *k);
void kernels_init_avx2_act(struct kernels *k);
void kernels_init_avx2_panel(struct kernels *k);
void kernels_init_avx2_tile(struct kernels *k);
void kernels_init_avx2_rowdot(struct kernels *k);
void kernels_init_avx2_rowdot_iq(struct kernels *k);
void kernels_init_avx2_unpack(struct kernels *k);
void kernels_init_avx2_vec(struct kernels *k);
void kernels_init_avxvnni_act(struct kernels *k);
void kernels_init_avxvnni_panel(struct kernels *k);
void kernels_init_avxvnni_rowdot(struct kernels *k);
void kernels_init_avxvnni_tile(struct kernels *k);
void kernels_init_avx512_act(struct kernels *k);
void kernels_init_avx512_panel(struct kernels *k);
void kernels_init_avx512_rowdot(struct kernels *k);
void kernels_init_avx512_rowdot_iq(struct kernels *k);
void kernels_init_avx512_tile(struct kernels *k);
void kernels_init_neon_matmul(struct kernels *k);
void kernels_init_neon_rowdot(struct kernels *k);
void kernels_init_neon_tile(struct kernels *k);
void kernels_init_neon_unpack(struct kernels *k);
void kernels_init_neon_vec(struct kernels *k);
void kernels_init_dotprod_rowdot(struct kernels *k);
void kernels_init_dotprod_tile(struct kernels *k);
void kernels_init_i8mm_tile(struct kernels *k);
void kernels_init_avx512_vec(struct kernels *k);
void kernels_init_amx_act(struct kernels *k);
void kernels_init_amx_attn(struct kernels *k);
void kernels_init_amx_panel(struct kernels *k);
void kernels_init_amx_tile(struct kernels *k);

/* kernels_use_planes - planes.c: the slots that know the layout `planes`, for levels whose panel_build, quant_planes and tile_planes share it.
 * A tile of ACT_8 activations, nt = tile_tokens:
 *   a  u8 [k/4][nt][4] in 1..255    d, o  f32 [k/16][nt]    sum  f32 [k/16][nt]  X
 * Per 16 columns d = (max - min) / 254, o so that a = 1 <-> min, a = 255 <-> max; d = 0 when max - min < ACT_RANGE_MIN (then a = 1, o = min).
 * ACT_15: two such parts, x and what the first has left of it; or, on levels with tile_wide, pairs of words (struct act_wide). */
void kernels_use_planes(struct kernels *k);

static inline size_t planes_part_bytes(int64_t nt, int64_t cols)
{
    size_t cells = (size_t)nt * (((size_t)cols + 31) / 32 * 32);
    return (cells + 3 * cells / 16 * sizeof(float) + 63) / 64 * 64;
}

/* The arrays of one tile from column k0 on (k0 % 16 == 0). */
struct act_tile {
    uint8_t *a;
    float *d, *o, *sum;
};

static inline struct act_tile act_tile_at(const struct act_panel *x, int64_t nt, int64_t tile, int64_t k0)
{
    uint8_t *a = x->data + (size_t)tile * x->tile_bytes;
    float *d = (float *)(void *)(a + x->k * nt);
    int64_t groups = x->k / 16 * nt, at = k0 / 16 * nt;
    return (struct act_tile){ .a = a + k0 * nt, .d = d + at, .o = d + groups + at, .sum = d + 2 * groups + at };
}

/* A tile of ACT_15 activations as words, from a column on: x = unit * y, |y| <= 32500.
 *   y  int16 [k/4][2][nt][2]: columns 4i, 4i + 2 and 4i + 1, 4i + 3, the words that two shifts make of four codes
 *   unit  f32 [k/256][nt]    sum  f32 [k/16][nt], sum32  f32 [k/32][nt]: exact sums of x, divided by unit */
struct act_wide {
    int16_t *y;
    float *unit, *sum, *sum32;
};
enum { WIDE_MAX = 32500, WIDE_SPAN = 256 };

static inline size_t wide_spans(int64_t cols) { return ((size_t)cols + WIDE_SPAN - 1) / WIDE_SPAN; }

static inline size_t wide_bytes(int64_t nt, int64_t cols)
{
    size_t n = (size_t)nt, blocks = ((size_t)cols + 31) / 32;
    return (n * blocks * (32 * sizeof(int16_t) + 3 * sizeof(float)) + n * wide_spans(cols) * sizeof(float) + 63) / 64 * 64;
}

static inline struct act_wide act_wide_at(const struct act_panel *x, int64_t nt, int64_t tile, int64_t k0)
{
    int16_t *y = (int16_t *)(void *)(x->data + (size_t)tile * x->tile_bytes);
    float *sum = (float *)(void *)(y + x->k * nt), *sum32 = sum + x->k / 16 * nt, *unit = sum32 + x->k / 32 * nt;
    return (struct act_wide){ .y = y + k0 * nt, .unit = unit + k0 / WIDE_SPAN * nt, .sum = sum + k0 / 16 * nt, .sum32 = sum32 + k0 / 32 * nt };
}

/* Column k0 of a tile of ACT_F32. */
static inline float *act_floats_at(const struct act_panel *x, int64_t nt, int64_t tile, int64_t k0)
{
    return (float *)(void *)(x->data + (size_t)tile * x->tile_bytes) + k0 * nt;
}

/* Column k0 (even) of a tile of ACT_BF16. */
static inline uint16_t *act_pairs_at(const struct act_panel *x, int64_t nt, int64_t tile, int64_t k0)
{
    return (uint16_t *)(void *)(x->data + (size_t)tile * x->tile_bytes) + k0 * nt;
}

/* panel_shape - what panel_build says about the panel before it fills it. */
static inline void panel_shape(struct panel *p, const struct dtype *t, enum act_form form, int64_t nk)
{
    p->form = form;
    p->nk = nk;
    p->group = t->group_len;
    p->code_max = t->code_max;
    p->has_min = t->has_min || t->code_bias != 0;
}

/* One half of panel.next, asked for in step with the columns of the panel. One stream over whole rows, whatever the order in which they are
 * unpacked: memory then sees one reader, and its prefetchers join in (16 streams of parts of rows: 1.4 times the time of a batch of 8). */
struct stream { const uint8_t *at, *due; size_t step; /* bytes for 32 columns */ };

static inline struct stream panel_stream(const struct panel *p, bool second)
{
    size_t half = p->form == ACT_F32 ? p->next_bytes : p->next_bytes / 2; /* tiles of floats ask for nothing */
    const uint8_t *at = second ? p->next + half : p->next;
    return (struct stream){ at, at, p->next_bytes ? half * 32 / (size_t)p->nk + 1 : 0 };
}

static inline void stream_ask(struct stream *s, int columns)
{
    s->due += s->step * (size_t)columns / 32;
    for (; s->at < s->due; s->at += 64) __builtin_prefetch(s->at, 0, 2);
}

/* For panel_tmpl.h. Where rows begin, `stride` bytes apart; and what a format's panels look like: constants after inlining, equal to the format's
 * row of the dtype table. */
struct rows { const uint8_t *w; size_t stride; };
struct shape { int group, code_max; bool has_min; };

/* Smallest range (tile) or magnitude (row) of a block that is still quantized: below it the reciprocal of the scale would not be finite.
 * Such a block becomes a constant; the error is below 1e-33. */
#define ACT_RANGE_MIN 0x1p-110f
/* Planes: minima and maxima of 16 columns are clamped to this, so that their difference is finite whatever the columns hold. */
#define ACT_FAR 0x1.fffffep126f

/* layout - sizes and carving of panels and activation buffers. The arrays of one buffer follow each other, each 64-byte aligned.
 * Knows the shapes of kernels.h only, no format and no ISA. */
#include "ggml-like/kernels/kernels.h"

enum { ALIGN = 64 };

static size_t aligned(size_t bytes) { return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1); }

static size_t blocks_of_32(int64_t n) { return ((size_t)n + 31) / 32; }

/* Per column and row, codes + scales + sums + minima at their densest (group 16) take 1 + 3 * 4/16 bytes; a float takes 4. */
static size_t columns_bytes(int64_t nk) { return blocks_of_32(nk) * 32 * PANEL_ROWS * sizeof(float); }
size_t panel_bytes(int64_t nk) { return columns_bytes(nk) + 2 * 16 * PANEL_ROWS * sizeof(float); }

void panel_place(struct panel *p, void *buf, int64_t nk)
{
    size_t blocks = blocks_of_32(nk), block_floats = PANEL_ROWS;
    uint8_t *at = buf;
    *p = (struct panel){ .nk = nk, .code = buf, .f32 = buf, .bf16 = buf, .spare = (float *)(void *)(at + columns_bytes(nk)) };
    at += blocks * 32 * PANEL_ROWS;
    p->scale = (float *)at;
    p->csum = p->scale + 2 * blocks * block_floats;
    p->min = p->csum + 2 * blocks * block_floats;
}

size_t kernels_tile_bytes(const struct kernels *k, int64_t cols, enum act_form form)
{
    if (!act_is_float(form)) return k->act_tile_bytes(k, form, cols);
    size_t row = form == ACT_F32 ? (size_t)cols * sizeof(float) : blocks_of_32(cols) * TILE_COLUMNS * sizeof(uint16_t);
    return aligned((size_t)k->tile_tokens * row);
}

size_t act_panel_bytes(const struct kernels *k, int64_t cols, int64_t n_tokens, enum act_form form)
{
    return ((size_t)n_tokens + (size_t)k->tile_tokens - 1) / (size_t)k->tile_tokens * kernels_tile_bytes(k, cols, form);
}

void act_panel_place(const struct kernels *k, struct act_panel *p, void *buf, int64_t cols, int64_t n_tokens, enum act_form form)
{
    *p = (struct act_panel){ .k = cols, .n_tokens = n_tokens, .form = form, .tile_bytes = kernels_tile_bytes(k, cols, form), .data = buf };
}

/* Whole chunks of 256 columns. */
static size_t row_columns(int64_t cols) { return ((size_t)cols + 255) / 256 * 256; }

/* Per column y 2, hi 1, lo 1; per 32 of them d 4, sum32 4, sum16 8, sum 8; per 128 a quad of 256, per 256 an eight of 512 instead. */
size_t act_row_bytes(int64_t cols) { return row_columns(cols) * 4 + row_columns(cols) / 32 * 24 + row_columns(cols) / 128 * sizeof(struct act_quad); }

void act_row_place(struct act_row *r, void *buf, int64_t cols)
{
    size_t n = row_columns(cols);
    float *at = (float *)((int16_t *)buf + 2 * n);
    *r = (struct act_row){ .k = cols, .y = buf, .hi = (int8_t *)buf + 2 * n, .lo = (int8_t *)buf + 3 * n };
    r->sum16 = at, r->sum = (int32_t *)(at + n / 16), r->d = at + n / 8, r->sum32 = at + n / 8 + n / 32;
    r->quad = (struct act_quad *)(at + 6 * n / 32), r->eight = (struct act_eight *)r->quad;
}

struct act_row act_row_part(const struct act_row *r, int64_t begin, int64_t end)
{
    return (struct act_row){ .k = end - begin, .y = r->y + begin, .hi = r->hi + begin, .lo = r->lo + begin, .d = r->d + begin / 32,
                             .sum32 = r->sum32 + begin / 32, .sum16 = r->sum16 + begin / 16, .sum = r->sum + begin / 16,
                             .quad = r->quad + begin / 128, .eight = r->eight + begin / 256 };
}

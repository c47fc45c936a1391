/* layout - sizes and carving of panels and activation buffers. The arrays of one buffer follow each other, each 64-byte aligned.
 * Knows the shapes of kernels.h only, no format and no ISA. */
#include "ggml-like/kernels/kernels.h"

enum { ALIGN = 64 };

static size_t aligned(size_t bytes) { return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1); }

static size_t blocks_of_32(int64_t n) { return ((size_t)n + 31) / 32; }

/* Per column and row, codes + scales + sums + minima at their densest (group 16) take 1 + 3 * 4/16 bytes; a float takes 4. */
size_t panel_bytes(int64_t nk) { return blocks_of_32(nk) * 32 * PANEL_ROWS * sizeof(float); }

void panel_place(struct panel *p, void *buf, int64_t nk)
{
    size_t blocks = blocks_of_32(nk), block_floats = PANEL_ROWS;
    uint8_t *at = buf;
    *p = (struct panel){ .nk = nk, .code = buf, .f32 = buf };
    at += blocks * 32 * PANEL_ROWS;
    p->scale = (float *)at;
    p->csum = p->scale + 2 * blocks * block_floats;
    p->min = p->csum + 2 * blocks * block_floats;
}

static size_t n_tiles(const struct kernels *k, int64_t n_tokens)
{
    return ((size_t)n_tokens + (size_t)k->tile_tokens - 1) / (size_t)k->tile_tokens;
}

/* bytes of a, and of d or o or sum */
static void act_sizes(const struct kernels *k, int64_t cols, int64_t n_tokens, size_t size[2])
{
    size_t cells = n_tiles(k, n_tokens) * (size_t)k->tile_tokens * blocks_of_32(cols);
    size[0] = aligned(cells * 32);
    size[1] = aligned(cells * 2 * sizeof(float));
}

size_t act_panel_bytes(const struct kernels *k, int64_t cols, int64_t n_tokens, bool f32)
{
    if (f32) return aligned(n_tiles(k, n_tokens) * (size_t)k->tile_tokens * (size_t)cols * sizeof(float));
    size_t size[2];
    act_sizes(k, cols, n_tokens, size);
    return size[0] + 3 * size[1];
}

void act_panel_place(const struct kernels *k, struct act_panel *p, void *buf, int64_t cols, int64_t n_tokens, bool f32)
{
    *p = (struct act_panel){ .k = cols, .n_tokens = n_tokens };
    if (f32) {
        p->f32 = buf;
        return;
    }
    size_t size[2];
    act_sizes(k, cols, n_tokens, size);
    uint8_t *at = buf;
    p->a = at;
    p->d = (float *)(at + size[0]);
    p->o = (float *)(at + size[0] + size[1]);
    p->sum = (float *)(at + size[0] + 2 * size[1]);
}

static size_t row_y_bytes(int64_t cols) { return blocks_of_32(cols) * 32 * sizeof(int16_t); }
static size_t row_d_bytes(int64_t cols) { return aligned(blocks_of_32(cols) * sizeof(float)); }

size_t act_row_bytes(int64_t cols) { return row_y_bytes(cols) + row_d_bytes(cols) + aligned(blocks_of_32(cols) * 2 * sizeof(int32_t)); }

void act_row_place(struct act_row *r, void *buf, int64_t cols)
{
    uint8_t *at = buf;
    *r = (struct act_row){ .k = cols, .y = buf };
    r->d = (float *)(at + row_y_bytes(cols));
    r->sum = (int32_t *)(at + row_y_bytes(cols) + row_d_bytes(cols));
}

/* convert_unpack - rows of packed matrices as f32 or as blocks of a GGUF type. All shapes were checked by convert_packed.c; nothing here trusts a
 * value that stands in a file further than its type allows. */
#include "src/convert_int.h"
#include <string.h>

enum { TILE = 16 }; /* rows that are unpacked side by side: a cache line of words */

/* ---- parts ---- */

/* Rows [r0, r0 + nr), columns [c0, c0 + nc) of a matrix, as they stand. */
static status read_rect(const struct import *im, const struct ckpt_tensor *t, int64_t r0, int64_t nr, int64_t c0, int64_t nc, void *out, struct err *e)
{
    int64_t width = ckpt_row_len(t);
    size_t bytes = (size_t)nc * ckpt_type_bytes(t->type);
    if (nc == width) return checkpoint_read(&im->ckpt, t, r0 * width, nr * width, out, e);
    for (int64_t r = 0; r < nr; r++) TRY(checkpoint_read(&im->ckpt, t, (r0 + r) * width + c0, nc, (uint8_t *)out + (size_t)r * bytes, e));
    return OK;
}

/* The same rectangle as floats; the type is F16, BF16 or F32. */
static status read_rect_f32(const struct import *im, const struct ckpt_tensor *t, int64_t r0, int64_t nr, int64_t c0, int64_t nc, float *out, struct err *e)
{
    if (t->type == CKPT_F32) return read_rect(im, t, r0, nr, c0, nc, out, e);
    size_t bytes = (size_t)(nr * nc) * ckpt_type_bytes(t->type);
    void *raw = mem_alloc(bytes);
    if (!raw) return err_oom(e, t->name, bytes);
    status st = read_rect(im, t, r0, nr, c0, nc, raw, e);
    if (st == OK) dtype_to_f32(dtype_by_id(t->type == CKPT_F16 ? GGUF_F16 : GGUF_BF16), raw, out, nr * nc);
    mem_free(raw);
    return st;
}

/* The code that begins at this bit of a stream of words, lowest bits first. */
static inline uint32_t code_at(const uint32_t *word, int64_t stride, int64_t bit, int bits)
{
    int shift = (int)(bit & 31);
    uint32_t v = word[(bit >> 5) * stride] >> shift;
    if (shift + bits > 32) v |= word[((bit >> 5) + 1) * stride] << (32 - shift);
    return v & ((1u << bits) - 1);
}

/* ---- GPTQ ---- */

static status gptq_codes(const struct import *im, const struct packed *p, int64_t row0, int64_t n, uint8_t *code, struct err *e)
{
    int64_t words = p->code->shape[0];
    uint32_t *w = mem_alloc((size_t)(words * n) * sizeof *w);
    if (!w) return err_oom(e, p->code->name, (size_t)(words * n) * sizeof *w);
    status st = read_rect(im, p->code, 0, words, row0, n, w, e);
    for (int64_t r0 = 0; st == OK && r0 < n; r0 += TILE) {
        int64_t end = min_i64(r0 + TILE, n), each = 32 % p->bits ? 0 : 32 / p->bits;
        uint32_t mask = (1u << p->bits) - 1;
        for (int64_t i = 0; each && i < words; i++)
            for (int64_t r = r0; r < end; r++) {
                uint32_t x = w[i * n + r];
                uint8_t *to = code + r * p->cols + i * each;
                for (int64_t k = 0; k < each; k++, x >>= p->bits) to[k] = (uint8_t)(x & mask);
            }
        for (int64_t i = 0; !each && i < p->cols; i++)
            for (int64_t r = r0; r < end; r++) code[r * p->cols + i] = (uint8_t)code_at(w + r, n, i * p->bits, p->bits);
    }
    mem_free(w);
    return st;
}

/* scales [groups][out] and the words of zero points that rows row0 .. row0 + n need, turned. */
static status read_turned(const struct import *im, const struct packed *p, int64_t row0, int64_t n, int64_t word0, int64_t n_words, float *scale,
                          uint32_t *word, struct err *e)
{
    size_t bytes = (size_t)(p->n_groups * n) * sizeof(float);
    float *s = mem_alloc(bytes);
    if (!s) return err_oom(e, p->scale->name, bytes);
    status st = read_rect_f32(im, p->scale, 0, p->n_groups, row0, n, s, e);
    for (int64_t g = 0; st == OK && g < p->n_groups; g++)
        for (int64_t r = 0; r < n; r++) scale[r * p->n_groups + g] = s[g * n + r];
    if (st == OK) st = read_rect(im, p->zero, 0, p->n_groups, word0, n_words, word, e);
    mem_free(s);
    return st;
}

static status gptq_groups(const struct import *im, const struct packed *p, int64_t row0, int64_t n, float *scale, int16_t *zero, struct err *e)
{
    int64_t word0 = row0 * p->bits / 32, n_words = ((row0 + n) * p->bits + 31) / 32 - word0, first = row0 * p->bits - word0 * 32;
    size_t bytes = (size_t)(p->n_groups * n_words) * sizeof(uint32_t);
    uint32_t *w = mem_alloc(bytes);
    if (!w) return err_oom(e, p->zero->name, bytes);
    status st = read_turned(im, p, row0, n, word0, n_words, scale, w, e);
    for (int64_t g = 0; st == OK && g < p->n_groups; g++)
        for (int64_t r = 0; r < n; r++) {
            uint32_t z = code_at(w + g * n_words, 1, first + r * p->bits, p->bits);
            zero[r * p->n_groups + g] = (int16_t)(z + (uint32_t)p->zero_add);
        }
    mem_free(w);
    return st;
}

const struct packing packing_gptq = { gptq_codes, gptq_groups, NULL };

/* ---- AWQ ---- */

static const int awq_shift[8] = { 0, 16, 4, 20, 8, 24, 12, 28 }; /* of column i of eight: they stand in the order 0 2 4 6 1 3 5 7 */

static status awq_codes(const struct import *im, const struct packed *p, int64_t row0, int64_t n, uint8_t *code, struct err *e)
{
    int64_t word0 = row0 / 8, words = (row0 + n + 7) / 8 - word0;
    uint32_t *w = mem_alloc((size_t)(words * p->cols) * sizeof *w);
    if (!w) return err_oom(e, p->code->name, (size_t)(words * p->cols) * sizeof *w);
    status st = read_rect(im, p->code, 0, p->cols, word0, words, w, e);
    for (int64_t r = 0; st == OK && r < n; r++) {
        const uint32_t *at = w + (row0 + r) / 8 - word0;
        int shift = awq_shift[(row0 + r) % 8];
        for (int64_t i = 0; i < p->cols; i++) code[r * p->cols + i] = (uint8_t)(at[i * words] >> shift & 15);
    }
    mem_free(w);
    return st;
}

static status awq_groups(const struct import *im, const struct packed *p, int64_t row0, int64_t n, float *scale, int16_t *zero, struct err *e)
{
    int64_t word0 = row0 / 8, words = (row0 + n + 7) / 8 - word0;
    uint32_t *w = mem_alloc((size_t)(p->n_groups * words) * sizeof *w);
    if (!w) return err_oom(e, p->zero->name, (size_t)(p->n_groups * words) * sizeof *w);
    status st = read_turned(im, p, row0, n, word0, words, scale, w, e);
    for (int64_t g = 0; st == OK && g < p->n_groups; g++)
        for (int64_t r = 0; r < n; r++)
            zero[r * p->n_groups + g] = (int16_t)(w[g * words + (row0 + r) / 8 - word0] >> awq_shift[(row0 + r) % 8] & 15);
    mem_free(w);
    return st;
}

const struct packing packing_awq = { awq_codes, awq_groups, NULL };

/* ---- rows of codes: compressed-tensors, bitsandbytes int8 ---- */

static status row_codes(const struct import *im, const struct packed *p, int64_t row0, int64_t n, uint8_t *code, struct err *e)
{
    if (p->code->type == CKPT_I8) {
        TRY(checkpoint_read(&im->ckpt, p->code, row0 * p->cols, n * p->cols, code, e));
        for (int64_t i = 0; i < n * p->cols; i++) code[i] ^= 0x80;
        return OK;
    }
    int64_t words = p->code->shape[1];
    uint32_t *w = mem_alloc((size_t)(words * n) * sizeof *w);
    if (!w) return err_oom(e, p->code->name, (size_t)(words * n) * sizeof *w);
    status st = checkpoint_read(&im->ckpt, p->code, row0 * words, n * words, w, e);
    for (int64_t r = 0; st == OK && r < n; r++)
        for (int64_t i = 0; i < p->cols; i++) code[r * p->cols + i] = (uint8_t)code_at(w + r * words, 1, i * p->bits, p->bits);
    mem_free(w);
    return st;
}

static status row_zeros(const struct import *im, const struct packed *p, int64_t row0, int64_t n, int16_t *zero, struct err *e)
{
    const struct ckpt_tensor *z = p->zero;
    int64_t count = n * p->n_groups, all = z ? z->n_elements : 0, word0 = row0 * p->bits / 32, words = ((row0 + n) * p->bits + 31) / 32 - word0;
    for (int64_t i = 0; i < count; i++) zero[i] = (int16_t)p->zero_fixed;
    if (!z) return OK;
    bool packed = z->type == CKPT_I32;
    size_t bytes = packed ? (size_t)(words * p->n_groups + 1) * sizeof(uint32_t) : (size_t)count;
    void *raw = mem_alloc(bytes);
    if (!raw) return err_oom(e, z->name, bytes);
    status st = packed ? checkpoint_read(&im->ckpt, z, word0 * p->n_groups, words * p->n_groups, raw, e)
                       : checkpoint_read(&im->ckpt, z, all == 1 ? 0 : row0 * p->n_groups, all == 1 ? 1 : count, raw, e);
    for (int64_t i = 0; st == OK && i < count; i++) {
        int64_t bit = (row0 + i / p->n_groups) * p->bits - word0 * 32;
        if (packed) zero[i] = (int16_t)code_at((const uint32_t *)raw + i % p->n_groups, p->n_groups, bit, p->bits);
        else zero[i] = (int16_t)(p->zero_fixed + ((const int8_t *)raw)[all == 1 ? 0 : i]);
    }
    mem_free(raw);
    return st;
}

static status row_groups(const struct import *im, const struct packed *p, int64_t row0, int64_t n, float *scale, int16_t *zero, struct err *e)
{
    const struct ckpt_tensor *s = p->scale;
    int64_t count = n * p->n_groups;
    if (s->n_elements == 1) {
        TRY(checkpoint_read_f32(&im->ckpt, s, 0, 1, scale, e));
        for (int64_t i = 1; i < count; i++) scale[i] = scale[0];
    } else {
        bool vector = s->n_dims == 1; /* one row of the checkpoint */
        TRY(read_rect_f32(im, s, vector ? 0 : row0, vector ? 1 : n, vector ? row0 : 0, vector ? n : p->n_groups, scale, e));
    }
    return row_zeros(im, p, row0, n, zero, e);
}

const struct packing packing_rows = { row_codes, row_groups, NULL };

/* ---- small floats ---- */

static status fp8_floats(const struct import *im, const struct packed *p, int64_t row0, int64_t n, float *out, struct err *e)
{
    int64_t per_row = (p->cols + p->block_cols - 1) / p->block_cols, b0 = row0 / p->block_rows, nb = (row0 + n - 1) / p->block_rows - b0 + 1;
    bool vector = p->scale->n_dims < 2 && p->scale->n_elements > 1; /* one row of the checkpoint */
    int64_t count = vector ? p->scale->n_elements : nb * per_row;
    float *s = mem_alloc((size_t)count * sizeof *s);
    if (!s) return err_oom(e, p->scale->name, (size_t)count * sizeof *s);
    status st = checkpoint_read_f32(&im->ckpt, p->code, row0, n, out, e);
    if (st == OK) st = checkpoint_read_f32(&im->ckpt, p->scale, vector ? 0 : b0, vector ? 1 : nb, s, e);
    for (int64_t r = 0; st == OK && r < n; r++) {
        const float *row = s + (vector ? row0 + r : ((row0 + r) / p->block_rows - b0) * per_row);
        for (int64_t i = 0; i < p->cols; i++) out[r * p->cols + i] *= row[i / p->block_cols];
    }
    mem_free(s);
    return st;
}

const struct packing packing_fp8 = { NULL, NULL, fp8_floats };

/* ---- codes of a table, the first in the upper half of a byte; blocks run over the ends of rows ---- */

static status table_scales(const struct import *im, const struct packed *p, int64_t b0, int64_t n, float *scale, struct err *e)
{
    if (!p->scale_table) return checkpoint_read(&im->ckpt, p->scale, b0, n, scale, e);
    int64_t s0 = b0 / p->block2, n2 = (b0 + n - 1) / p->block2 - s0 + 1;
    size_t bytes = (size_t)n2 * sizeof(float) + (size_t)n;
    float *second = mem_alloc(bytes);
    if (!second) return err_oom(e, p->scale->name, bytes);
    uint8_t *code = (uint8_t *)(second + n2);
    status st = checkpoint_read(&im->ckpt, p->scale2, s0, n2, second, e);
    if (st == OK) st = checkpoint_read(&im->ckpt, p->scale, b0, n, code, e);
    for (int64_t i = 0; st == OK && i < n; i++) {
        float s = p->scale_table[code[i]] * second[(b0 + i) / p->block2 - s0];
        scale[i] = s + p->offset2;
    }
    mem_free(second);
    return st;
}

static status table_floats(const struct import *im, const struct packed *p, int64_t row0, int64_t n, float *out, struct err *e)
{
    int64_t first = row0 * p->cols, count = n * p->cols, b0 = first / p->block, nb = (first + count - 1) / p->block - b0 + 1;
    int64_t byte0 = first / 2, n_bytes = (first + count + 1) / 2 - byte0;
    size_t bytes = (size_t)nb * sizeof(float) + (size_t)n_bytes;
    float *scale = mem_alloc(bytes);
    if (!scale) return err_oom(e, p->code->name, bytes);
    uint8_t *code = (uint8_t *)(scale + nb);
    status st = table_scales(im, p, b0, nb, scale, e);
    if (st == OK) st = checkpoint_read(&im->ckpt, p->code, byte0, n_bytes, code, e);
    for (int64_t i = 0; st == OK && i < count; i++) {
        uint8_t b = code[(first + i) / 2 - byte0];
        out[i] = p->table[(first + i) % 2 ? b & 15 : b >> 4] * scale[(first + i) / p->block - b0];
    }
    mem_free(scale);
    return st;
}

const struct packing packing_table = { NULL, NULL, table_floats };

/* ---- MXFP4: two values a byte, the first in its lower half ---- */

static status mxfp4_blocks(const struct import *im, const struct packed *p, int64_t row0, int64_t n, uint8_t *out, struct err *e)
{
    const struct dtype *type = dtype_by_id(GGUF_MXFP4);
    int64_t blocks = n * (p->cols / 32), first = row0 * (p->cols / 32);
    uint8_t *raw = mem_alloc((size_t)blocks * 17);
    if (!raw) return err_oom(e, p->code->name, (size_t)blocks * 17);
    uint8_t *exponent = raw + blocks * 16;
    status st = checkpoint_read(&im->ckpt, p->code, first * 16, blocks * 16, raw, e);
    if (st == OK) st = checkpoint_read(&im->ckpt, p->scale, first, blocks, exponent, e);
    struct parts parts = { 0 };
    for (int64_t b = 0; st == OK && b < blocks; b++) {
        parts.d = exponent[b];
        for (int i = 0; i < 16; i++) parts.q[2 * i] = raw[b * 16 + i] & 15, parts.q[2 * i + 1] = raw[b * 16 + i] >> 4;
        type->join(&parts, out + b * type->block_bytes);
    }
    mem_free(raw);
    return st;
}

static status mxfp4_floats(const struct import *im, const struct packed *p, int64_t row0, int64_t n, float *out, struct err *e)
{
    const struct dtype *type = dtype_by_id(GGUF_MXFP4);
    size_t bytes = (size_t)(n * (p->cols / 32)) * (size_t)type->block_bytes;
    uint8_t *blocks = mem_alloc(bytes);
    if (!blocks) return err_oom(e, p->code->name, bytes);
    status st = mxfp4_blocks(im, p, row0, n, blocks, e);
    if (st == OK) dtype_to_f32(type, blocks, out, n * p->cols);
    mem_free(blocks);
    return st;
}

const struct packing packing_mxfp4 = { NULL, NULL, mxfp4_floats };

/* ---- integer codes to numbers ---- */

static void codes_to_floats(const struct packed *p, const uint8_t *code, const float *scale, const int16_t *zero, float *out)
{
    if (p->group_of) {
        for (int64_t i = 0; i < p->cols; i++) out[i] = (float)(code[i] - zero[p->group_of[i]]) * scale[p->group_of[i]] * p->factor;
        return;
    }
    int64_t len = p->cols / p->n_groups;
    for (int64_t g = 0; g < p->n_groups; g++)
        for (int64_t i = g * len; i < (g + 1) * len; i++) out[i] = (float)(code[i] - zero[g]) * scale[g] * p->factor;
}

/* A block as each type stores it. The scale is a half, so is (for Q4_1, rounded) the minimum. */
static void block_q4_0(const uint8_t *code, float scale, int zero, struct parts *b)
{
    b->d = f32_to_f16(scale);
    for (int i = 0; i < 32; i++) b->q[i] = (uint16_t)(code[i] - zero + 8);
}
static void block_q4_1(const uint8_t *code, float scale, int zero, struct parts *b)
{
    b->d = f32_to_f16(scale);
    b->dmin = f32_to_f16(-(scale * (float)zero));
    for (int i = 0; i < 32; i++) b->q[i] = code[i];
}
static void block_q8_0(const uint8_t *code, float scale, int zero, struct parts *b)
{
    b->d = f32_to_f16(scale);
    for (int i = 0; i < 32; i++) b->q[i] = (uint8_t)(code[i] - zero);
}

static const struct {
    int type;
    unsigned fits;
    void (*block)(const uint8_t *code, float scale, int zero, struct parts *b);
} blocks[] = {
    { GGUF_Q4_0, FITS_Q4_0, block_q4_0 },
    { GGUF_Q4_1, FITS_Q4_1, block_q4_1 },
    { GGUF_Q8_0, FITS_Q8_0, block_q8_0 },
    { GGUF_MXFP4, FITS_MXFP4, NULL },
};

unsigned packed_fits_bit(const struct dtype *type)
{
    for (int i = 0; i < ARRAY_LEN(blocks); i++)
        if (blocks[i].type == type->gguf_id) return blocks[i].fits;
    return 0;
}

static void codes_to_blocks(const struct packed *p, const struct dtype *type, const uint8_t *code, const float *scale, const int16_t *zero, uint8_t *out)
{
    struct parts parts = { 0 };
    for (int k = 0; k < ARRAY_LEN(blocks); k++)
        for (int64_t i = 0; blocks[k].type == type->gguf_id && i < p->cols; i += 32) {
            int64_t g = p->group_of ? p->group_of[i] : i / (p->cols / p->n_groups);
            blocks[k].block(code + i, scale[g], zero[g], &parts);
            type->join(&parts, out + i / 32 * type->block_bytes);
        }
}

status packed_read(const struct import *im, const struct packed *p, const struct dtype *type, int64_t row0, int64_t n, void *out, struct err *e)
{
    if (row0 < 0 || n < 0 || row0 > p->rows || n > p->rows - row0)
        return err_set(e, ERR_FORMAT, "%s: rows %lld to %lld are needed, it has %lld", p->as.name, (long long)row0, (long long)(row0 + n), (long long)p->rows);
    if (n == 0) return OK;
    if (p->how->floats) return type ? mxfp4_blocks(im, p, row0, n, out, e) : p->how->floats(im, p, row0, n, out, e);
    size_t codes = (size_t)(n * p->cols), groups = (size_t)(n * p->n_groups), bytes = groups * 6 + codes;
    float *scale = mem_alloc(bytes);
    if (!scale) return err_oom(e, p->code->name, bytes);
    int16_t *zero = (int16_t *)(scale + groups);
    uint8_t *code = (uint8_t *)(zero + groups);
    status st = p->how->groups(im, p, row0, n, scale, zero, e);
    if (st == OK) st = p->how->codes(im, p, row0, n, code, e);
    for (int64_t r = 0; st == OK && r < n; r++) {
        const uint8_t *c = code + r * p->cols;
        const float *s = scale + r * p->n_groups;
        const int16_t *z = zero + r * p->n_groups;
        if (type) codes_to_blocks(p, type, c, s, z, (uint8_t *)out + (size_t)r * dtype_row_bytes(type, p->cols));
        else codes_to_floats(p, c, s, z, (float *)out + r * p->cols);
    }
    mem_free(scale);
    return st;
}

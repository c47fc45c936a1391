/* convert_packed - the quantization schemes of Hugging Face checkpoints, one row each: which names a matrix goes by, what its parts must look like,
 * and which GGUF type holds the same numbers. Sources: AutoGPTQ and GPTQModel (qlinear), AutoAWQ (packing_utils), compressed-tensors
 * (compressors), bitsandbytes (functional.py, QuantState), DeepSeek-V3 (inference/kernel.py), gpt-oss (gpt_oss/torch/weights.py). */
#include "src/convert_packed.h"
#include "src/convert_int.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SCAN = 1 << 16 }; /* scales that are looked at at once */

struct packed_scheme {
    const char *name, *method; /* method: quant_method of quantization_config */
    const char *code[3];       /* what names of codes have in place of .weight; "_blocks" is put behind a name without it */
    bool in_place;             /* .weight itself may hold codes */
    status (*setup)(struct import *im, const struct json *q, struct err *e); /* may be NULL */
    status (*bind)(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e);
};

/* ---- small things ---- */

static const char *shape_of(const struct ckpt_tensor *t, char buf[96])
{
    size_t at = 0;
    buf[0] = '\0';
    for (int i = 0; i < t->n_dims && at < 70; i++) at += (size_t)snprintf(buf + at, 96 - at, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    return buf;
}

static status wrong_shape(const struct ckpt_tensor *t, int64_t a, int64_t b, struct err *e)
{
    char have[96];
    if (b < 0) return err_set(e, ERR_FORMAT, "%s: shape is [%s], expected [%lld]", t->name, shape_of(t, have), (long long)a);
    return err_set(e, ERR_FORMAT, "%s: shape is [%s], expected [%lld, %lld]", t->name, shape_of(t, have), (long long)a, (long long)b);
}

static bool is_2d(const struct ckpt_tensor *t, int64_t a, int64_t b) { return t->n_dims == 2 && t->shape[0] == a && t->shape[1] == b; }

static status want_type(const struct ckpt_tensor *t, enum ckpt_type a, enum ckpt_type b, struct err *e)
{
    if (t->type == a || t->type == b) return OK;
    return err_set(e, ERR_FORMAT, "%s: type is %s, expected %s", t->name, ckpt_type_name(t->type), ckpt_type_name(a));
}

static status want_floats(const struct ckpt_tensor *t, struct err *e)
{
    if (t->type == CKPT_F16 || t->type == CKPT_BF16 || t->type == CKPT_F32) return OK;
    return err_set(e, ERR_FORMAT, "%s: type is %s, expected F16, BF16 or F32", t->name, ckpt_type_name(t->type));
}

/* The part `stem` + suffix, marked as used; NULL: absent. */
static const struct ckpt_tensor *part(struct import *im, const char *stem, const char *suffix)
{
    char name[400];
    snprintf(name, sizeof name, "%s%s", stem, suffix);
    const struct ckpt_tensor *t = checkpoint_find(&im->ckpt, name);
    if (t) im->used[t - im->ckpt.tensor] = true;
    return t;
}

static status need(struct import *im, const char *stem, const char *suffix, const struct ckpt_tensor **out, struct err *e)
{
    *out = part(im, stem, suffix);
    return *out ? OK : err_set(e, ERR_FORMAT, "tensor %s%s is missing: a part of a packed matrix", stem, suffix);
}

static status set_shape(struct packed *p, int64_t rows, int64_t cols, struct err *e)
{
    size_t n;
    if (rows < 1 || cols < 1 || !mul_size((size_t)rows, (size_t)cols, &n) || n > (size_t)1 << 48)
        return err_set(e, ERR_FORMAT, "%s: %lld rows of %lld columns", p->code->name, (long long)rows, (long long)cols);
    p->rows = rows, p->cols = cols;
    p->as.type = CKPT_F32;
    p->as.n_dims = 2;
    p->as.shape[0] = rows, p->as.shape[1] = cols;
    p->as.n_elements = (int64_t)n;
    return OK;
}

static const char *text_of(const struct json *q, const char *key)
{
    const struct json *v = q ? json_get(q, key) : NULL;
    return v && v->kind == JSON_STR ? v->str : NULL;
}

static int64_t int_of(const struct json *q, const char *key, int64_t def)
{
    const struct json *v = q ? json_get(q, key) : NULL;
    return v && (v->kind == JSON_INT || v->kind == JSON_BOOL) ? v->i : def;
}

/* ---- which type holds the same numbers ---- */

struct scan {
    bool halves, q4_0, q4_1, q8_0, rounds;
};

static void look_at(struct scan *s, float scale, int zero, int bits)
{
    int lo = -zero, hi = (1 << bits) - 1 - zero;
    float m = -(scale * (float)zero), m16 = f16_to_f32(f32_to_f16(m));
    s->halves &= isfinite(scale) && f16_to_f32(f32_to_f16(scale)) == scale;
    s->q4_0 &= lo >= -8 && hi <= 7;
    s->q8_0 &= lo >= -128 && hi <= 127;
    s->q4_1 &= bits <= 4 && fabsf(m16 - m) <= fabsf(m) * 0x1p-11f;
    s->rounds |= m16 != m;
}

/* Do blocks of 32 columns lie in one group each? */
static bool whole_blocks(const struct packed *p)
{
    if (p->cols % 32) return false;
    if (!p->group_of) return p->cols / p->n_groups % 32 == 0;
    for (int64_t i = 0; i < p->cols; i++)
        if (p->group_of[i] != p->group_of[i & ~(int64_t)31]) return false;
    return true;
}

static status find_fits(const struct import *im, struct packed *p, struct err *e)
{
    p->why = "a group of columns is no multiple of 32 in a row";
    if (!whole_blocks(p)) return OK;
    int64_t chunk = min_i64(p->rows, max_i64(1, SCAN / p->n_groups));
    size_t n = (size_t)chunk * (size_t)p->n_groups;
    float *scale = mem_calloc(n, sizeof *scale);
    int16_t *zero = mem_calloc(n, sizeof *zero);
    status st = scale && zero ? OK : err_oom(e, p->code->name, n * 6);
    struct scan s = { true, true, true, true, false };
    if (p->factor != 1.0f) s.halves = false;
    for (int64_t row = 0; st == OK && s.halves && row < p->rows; row += chunk) {
        int64_t m = min_i64(chunk, p->rows - row);
        st = p->how->groups(im, p, row, m, scale, zero, e);
        for (int64_t i = 0; st == OK && i < m * p->n_groups; i++) look_at(&s, scale[i], zero[i], p->bits);
    }
    mem_free(scale);
    mem_free(zero);
    TRY(st);
    if (!s.halves) {
        p->why = "scales are no half floats";
        return OK;
    }
    p->fits = (s.q4_0 ? FITS_Q4_0 : 0u) | (s.q4_1 ? FITS_Q4_1 : 0u) | (s.q8_0 ? FITS_Q8_0 : 0u);
    p->rounds = s.rounds;
    p->why = p->fits ? NULL : "zero points are off the middle";
    return OK;
}

/* g_idx: the group of each column. In order and equally long: not kept. */
static status read_order(struct import *im, struct packed *p, const struct ckpt_tensor *t, struct err *e)
{
    if (!t) {
        if (p->cols % p->n_groups == 0) return OK;
        return err_set(e, ERR_FORMAT, "%s: %lld columns in %lld groups, expected a multiple", p->code->name, (long long)p->cols, (long long)p->n_groups);
    }
    if (t->n_elements != p->cols || t->n_dims != 1) return wrong_shape(t, p->cols, -1, e);
    int32_t *group = arena_alloc(&im->arena, (size_t)p->cols * sizeof *group);
    if (!group) return err_oom(e, t->name, (size_t)p->cols * sizeof *group);
    TRY(checkpoint_read_i32(&im->ckpt, t, 0, 1, group, e));
    bool plain = p->cols % p->n_groups == 0;
    for (int64_t i = 0; i < p->cols; i++) {
        if (group[i] < 0 || group[i] >= p->n_groups)
            return err_set(e, ERR_FORMAT, "%s: column %lld is in group %d, there are %lld", t->name, (long long)i, group[i], (long long)p->n_groups);
        plain = plain && group[i] == i / (p->cols / p->n_groups);
    }
    if (!plain) p->group_of = group;
    return OK;
}

/* ---- GPTQ: qweight [in * bits / 32][out], along a column a stream of codes, lowest bits first; qzeros [groups][out * bits / 32] along a row;
 * scales [groups][out]; g_idx [in]. Format "gptq" stores zero points less 1, "gptq_v2" as they are. ---- */

static status check_bits(const struct import *im, const char *scheme, int64_t bits, unsigned allowed, struct err *e)
{
    if (bits >= 1 && bits <= 8 && allowed >> bits & 1) return OK;
    return err_set(e, ERR_FORMAT, "%s/config.json: %s with %lld bits is not supported", im->dir, scheme, (long long)bits);
}

static status setup_gptq(struct import *im, const struct json *q, struct err *e)
{
    const char *format = text_of(q, "checkpoint_format");
    int64_t bits = int_of(q, "bits", 0);
    TRY(check_bits(im, "GPTQ", bits, 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8, e));
    if (int_of(q, "is_marlin_format", 0)) format = "marlin";
    if (format && strcmp(format, "gptq") && strcmp(format, "gptq_v2"))
        return err_set(e, ERR_FORMAT, "%s/config.json: checkpoint_format \"%.40s\" is none of gptq, gptq_v2", im->dir, format);
    im->zero_add = format && !strcmp(format, "gptq_v2") ? 0 : 1;
    im->scheme_bits = (int)bits;
    return OK;
}

static status bind_gptq(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e)
{
    int64_t bits = im->scheme_bits;
    TRY(need(im, stem, ".scales", &p->scale, e));
    TRY(need(im, stem, ".qzeros", &p->zero, e));
    TRY(want_type(t, CKPT_I32, CKPT_U32, e));
    TRY(want_type(p->zero, CKPT_I32, CKPT_U32, e));
    TRY(want_floats(p->scale, e));
    if (t->n_dims != 2 || t->shape[0] * 32 % bits)
        return err_set(e, ERR_FORMAT, "%s: %lld rows of words are no whole number of columns of %lld bits", t->name, (long long)t->shape[0], (long long)bits);
    TRY(set_shape(p, t->shape[1], t->shape[0] * 32 / bits, e));
    if (p->scale->n_dims != 2 || p->scale->shape[1] != p->rows || p->scale->shape[0] < 1 || p->scale->shape[0] > p->cols)
        return wrong_shape(p->scale, p->scale->shape[0], p->rows, e);
    p->n_groups = p->scale->shape[0];
    if (!is_2d(p->zero, p->n_groups, p->rows * bits / 32) || p->rows * bits % 32) return wrong_shape(p->zero, p->n_groups, p->rows * bits / 32, e);
    p->bits = (int)bits;
    p->zero_add = im->zero_add;
    p->how = &packing_gptq;
    TRY(read_order(im, p, part(im, stem, ".g_idx"), e));
    return find_fits(im, p, e);
}

/* ---- AWQ: qweight [in][out / 8], eight columns of out in a word in the order 0 2 4 6 1 3 5 7; qzeros [groups][out / 8] likewise; scales
 * [groups][out] ---- */

static status setup_awq(struct import *im, const struct json *q, struct err *e)
{
    const char *version = text_of(q, "version");
    TRY(check_bits(im, "AWQ", int_of(q, "bits", int_of(q, "w_bit", 0)), 1u << 4, e));
    if (version && strcmp(version, "gemm") && strcmp(version, "GEMM"))
        return err_set(e, ERR_FORMAT, "%s/config.json: AWQ version \"%.40s\" is not supported, expected gemm", im->dir, version);
    return OK;
}

static status bind_awq(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e)
{
    TRY(need(im, stem, ".scales", &p->scale, e));
    TRY(need(im, stem, ".qzeros", &p->zero, e));
    TRY(want_type(t, CKPT_I32, CKPT_U32, e));
    TRY(want_type(p->zero, CKPT_I32, CKPT_U32, e));
    TRY(want_floats(p->scale, e));
    if (t->n_dims != 2 || t->shape[1] > INT64_MAX / 8) return wrong_shape(t, t->shape[0], t->shape[1], e);
    TRY(set_shape(p, t->shape[1] * 8, t->shape[0], e));
    if (p->scale->n_dims != 2 || p->scale->shape[1] != p->rows || p->scale->shape[0] < 1 || p->scale->shape[0] > p->cols)
        return wrong_shape(p->scale, p->scale->shape[0], p->rows, e);
    p->n_groups = p->scale->shape[0];
    if (!is_2d(p->zero, p->n_groups, p->rows / 8)) return wrong_shape(p->zero, p->n_groups, p->rows / 8, e);
    p->bits = 4;
    p->how = &packing_awq;
    TRY(read_order(im, p, NULL, e));
    return find_fits(im, p, e);
}

/* ---- compressed-tensors ---- */

static status setup_compressed(struct import *im, const struct json *q, struct err *e)
{
    static const char *const known[] = { "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense",
                                         "mxfp4-pack-quantized" };
    const char *format = text_of(q, "format");
    for (int i = 0; i < ARRAY_LEN(known); i++)
        if (!format || !strcmp(format, known[i])) return OK;
    return err_set(e, ERR_FORMAT, "%s/config.json: format \"%.40s\" of compressed-tensors is none of pack-quantized, int-quantized, float-quantized, "
                   "naive-quantized, mxfp4-pack-quantized", im->dir, format);
}

/* A scale for each row and group, each row, or one. */
static status check_row_scales(struct packed *p, struct err *e)
{
    const struct ckpt_tensor *s = p->scale;
    TRY(want_floats(s, e));
    p->n_groups = 1;
    if (s->n_elements == 1) return OK;
    if (s->n_dims == 1 && s->shape[0] == p->rows) return OK;
    if (s->n_dims != 2 || s->shape[0] != p->rows || s->shape[1] < 1 || s->shape[1] > p->cols) return wrong_shape(s, p->rows, s->shape[1], e);
    p->n_groups = s->shape[1];
    return OK;
}

static status check_zeros(struct packed *p, struct err *e)
{
    const struct ckpt_tensor *z = p->zero;
    p->zero_fixed = 1 << (p->bits - 1);
    if (!z) return OK;
    if (z->type == CKPT_I32) {
        int64_t words = (p->rows * p->bits + 31) / 32;
        return is_2d(z, words, p->n_groups) ? OK : wrong_shape(z, words, p->n_groups, e);
    }
    TRY(want_type(z, CKPT_I8, CKPT_I8, e));
    if (z->n_elements == p->scale->n_elements) return OK;
    return wrong_shape(z, p->rows, p->n_groups, e);
}

static status matrix_shape(struct import *im, const char *stem, int64_t shape[2], struct err *e)
{
    const struct ckpt_tensor *t;
    int32_t v[2];
    TRY(need(im, stem, ".weight_shape", &t, e));
    if (t->n_elements != 2 || t->n_dims != 1) return wrong_shape(t, 2, -1, e);
    TRY(checkpoint_read_i32(&im->ckpt, t, 0, 1, v, e));
    shape[0] = v[0], shape[1] = v[1];
    return OK;
}

/* weight_packed [out][in * bits / 32], along a row a stream of codes plus 2^(bits - 1) */
static status bind_packed_rows(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e)
{
    int64_t shape[2] = { 0 };
    TRY(want_type(t, CKPT_I32, CKPT_I32, e));
    TRY(matrix_shape(im, stem, shape, e));
    TRY(set_shape(p, shape[0], shape[1], e));
    for (int bits = 1; bits <= 8 && !p->bits; bits++)
        if (is_2d(t, p->rows, (p->cols * bits + 31) / 32)) p->bits = bits;
    if (!p->bits) return wrong_shape(t, p->rows, (p->cols * 4 + 31) / 32, e);
    TRY(check_row_scales(p, e));
    TRY(check_zeros(p, e));
    TRY(read_order(im, p, part(im, stem, ".weight_g_idx"), e));
    return find_fits(im, p, e);
}

static status bind_int8_rows(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e)
{
    if (t->n_dims != 2) return wrong_shape(t, t->shape[0], t->shape[1], e);
    TRY(set_shape(p, t->shape[0], t->shape[1], e));
    p->bits = 8;
    TRY(check_row_scales(p, e));
    TRY(check_zeros(p, e));
    TRY(read_order(im, p, part(im, stem, ".weight_g_idx"), e));
    return find_fits(im, p, e);
}

/* ---- FP8: one scale, one for each row, or one for each block ---- */

static status bind_fp8(struct import *im, const struct ckpt_tensor *t, struct packed *p, struct err *e)
{
    const struct ckpt_tensor *s = p->scale;
    const struct json *size = import_config(im, "quantization_config.weight_block_size");
    if (t->n_dims != 2) return wrong_shape(t, t->shape[0], t->shape[1], e);
    TRY(set_shape(p, t->shape[0], t->shape[1], e));
    if (!ckpt_type_is_float(s->type)) return err_set(e, ERR_FORMAT, "%s: type is %s, expected floats", s->name, ckpt_type_name(s->type));
    p->how = &packing_fp8;
    p->why = "FP8 has no GGUF type";
    p->block_rows = p->rows, p->block_cols = p->cols;
    if (s->n_elements == 1) return OK;
    if ((s->n_dims == 1 && s->shape[0] == p->rows) || is_2d(s, p->rows, 1)) {
        p->block_rows = 1;
        return OK;
    }
    const struct json *r = size && size->kind == JSON_ARR && size->n == 2 ? size->child : NULL;
    p->block_rows = r && r->kind == JSON_INT ? r->i : 128;
    p->block_cols = r && r->next->kind == JSON_INT ? r->next->i : 128;
    if (p->block_rows < 1 || p->block_cols < 1 || p->block_rows > 1 << 20 || p->block_cols > 1 << 20)
        return err_set(e, ERR_FORMAT, "%s/config.json: weight_block_size is [%lld, %lld]", im->dir, (long long)p->block_rows, (long long)p->block_cols);
    int64_t a = (p->rows + p->block_rows - 1) / p->block_rows, b = (p->cols + p->block_cols - 1) / p->block_cols;
    return is_2d(s, a, b) ? OK : wrong_shape(s, a, b, e);
}

static status bind_fp8_any(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e)
{
    TRY(want_type(t, CKPT_F8_E4M3, CKPT_F8_E5M2, e));
    if (!(p->scale = part(im, stem, ".weight_scale_inv"))) TRY(need(im, stem, ".weight_scale", &p->scale, e));
    return bind_fp8(im, t, p, e);
}

/* ---- MXFP4: blocks [..][in / 32][16] bytes or [..][in / 2], an exponent each 32 ---- */

static status bind_mxfp4(struct packed *p, int64_t n_expert, int64_t rows, int64_t n_blocks, int lead, struct err *e)
{
    const struct ckpt_tensor *s = p->scale, *t = p->code;
    TRY(want_type(t, CKPT_U8, CKPT_U8, e));
    TRY(want_type(s, CKPT_U8, CKPT_F8_E8M0, e));
    bool fits = s->n_dims == lead + 1 && s->shape[lead] == n_blocks && n_expert <= INT64_MAX / rows;
    for (int i = 0; i < lead; i++) fits = fits && s->shape[i] == t->shape[i];
    if (!fits) return wrong_shape(s, n_expert * rows, n_blocks, e);
    TRY(set_shape(p, n_expert * rows, n_blocks * 32, e));
    if (lead == 2) {
        p->as.n_dims = 3;
        p->as.shape[0] = n_expert, p->as.shape[1] = rows, p->as.shape[2] = n_blocks * 32;
    }
    p->how = &packing_mxfp4;
    p->fits = FITS_MXFP4;
    return OK;
}

static status bind_gpt_oss(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e)
{
    TRY(need(im, stem, "_scales", &p->scale, e));
    if (t->n_dims != 4 || t->shape[3] != 16 || t->n_elements == 0) {
        char have[96];
        return err_set(e, ERR_FORMAT, "%s: shape is [%s], expected [experts, rows, blocks, 16]", t->name, shape_of(t, have));
    }
    return bind_mxfp4(p, t->shape[0], t->shape[1], t->shape[2], 2, e);
}

static status bind_compressed(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e)
{
    TRY(need(im, stem, ".weight_scale", &p->scale, e));
    if (t->type == CKPT_F8_E4M3) return bind_fp8(im, t, p, e);
    if (t->type == CKPT_U8 && t->n_dims == 2 && t->shape[1] % 16 == 0 && t->n_elements) return bind_mxfp4(p, 1, t->shape[0], t->shape[1] / 16, 1, e);
    p->zero = part(im, stem, ".weight_zero_point");
    p->how = &packing_rows;
    if (t->type == CKPT_I8) return bind_int8_rows(im, t, stem, p, e);
    return bind_packed_rows(im, t, stem, p, e);
}

/* ---- bitsandbytes ---- */

static status bind_bnb8(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e)
{
    (void)part(im, stem, ".weight_format");
    TRY(need(im, stem, ".SCB", &p->scale, e));
    if (t->n_dims != 2) return wrong_shape(t, t->shape[0], t->shape[1], e);
    TRY(set_shape(p, t->shape[0], t->shape[1], e));
    TRY(want_type(p->scale, CKPT_F32, CKPT_F32, e));
    if (p->scale->n_elements != p->rows) return wrong_shape(p->scale, p->rows, -1, e);
    p->bits = 8;
    p->n_groups = 1;
    p->zero_fixed = 128;
    p->factor = 7.874015718698502e-3f; /* 1 / 127, as the library has it */
    p->how = &packing_rows;
    return find_fits(im, p, e);
}

static status read_table(struct import *im, const struct ckpt_tensor *t, int64_t n, const float **out, struct err *e)
{
    TRY(want_type(t, CKPT_F32, CKPT_F32, e));
    if (t->n_elements != n || t->n_dims != 1) return wrong_shape(t, n, -1, e);
    float *x = arena_alloc(&im->arena, (size_t)n * sizeof *x);
    if (!x) return err_oom(e, t->name, (size_t)n * sizeof *x);
    *out = x;
    return checkpoint_read_f32(&im->ckpt, t, 0, 1, x, e);
}

/* The JSON text in quant_state: sizes and the type of the table. */
static status read_state(struct import *im, const char *stem, const struct json **out, struct err *e)
{
    const struct ckpt_tensor *t = part(im, stem, ".weight.quant_state.bitsandbytes__nf4");
    char text[4096];
    struct json *j;
    if (!t) TRY(need(im, stem, ".weight.quant_state.bitsandbytes__fp4", &t, e));
    TRY(want_type(t, CKPT_U8, CKPT_U8, e));
    if (t->n_elements > (int64_t)sizeof text) return err_set(e, ERR_FORMAT, "%s: %lld bytes, expected at most 4096", t->name, (long long)t->n_elements);
    TRY(checkpoint_read(&im->ckpt, t, 0, t->n_elements, text, e));
    TRY(json_parse(&j, text, (size_t)t->n_elements, &im->arena, t->name, e));
    *out = j;
    return j->kind == JSON_OBJ ? OK : err_set(e, ERR_FORMAT, "%s: is no JSON object", t->name);
}

static status bind_nested(struct import *im, const char *stem, const struct json *state, struct packed *p, struct err *e)
{
    const struct ckpt_tensor *map;
    const struct json *offset = json_get(state, "nested_offset");
    TRY(need(im, stem, ".weight.nested_absmax", &p->scale2, e));
    TRY(need(im, stem, ".weight.nested_quant_map", &map, e));
    TRY(read_table(im, map, 256, &p->scale_table, e));
    TRY(want_type(p->scale2, CKPT_F32, CKPT_F32, e));
    p->block2 = int_of(state, "nested_blocksize", 0);
    p->offset2 = offset && (offset->kind == JSON_FLOAT || offset->kind == JSON_INT) ? (float)offset->f : 0.0f;
    if (p->block2 < 1 || p->block2 > 1 << 20)
        return err_set(e, ERR_FORMAT, "%s: nested_blocksize is %lld, expected 1 to %d", p->code->name, (long long)p->block2, 1 << 20);
    int64_t n2 = (p->scale->n_elements + p->block2 - 1) / p->block2;
    return p->scale2->n_dims == 1 && p->scale2->n_elements == n2 ? OK : wrong_shape(p->scale2, n2, -1, e);
}

static status bind_bnb4(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e)
{
    const struct json *state = NULL;
    const struct ckpt_tensor *map;
    TRY(read_state(im, stem, &state, e));
    TRY(need(im, stem, ".weight.absmax", &p->scale, e));
    TRY(need(im, stem, ".weight.quant_map", &map, e));
    TRY(read_table(im, map, 16, &p->table, e));
    const struct json *shape = json_get(state, "shape"), *r = shape && shape->kind == JSON_ARR && shape->n == 2 ? shape->child : NULL;
    if (!r || r->kind != JSON_INT || r->next->kind != JSON_INT) return err_set(e, ERR_FORMAT, "%s: its quant_state has no shape of two integers", t->name);
    TRY(set_shape(p, r->i, r->next->i, e));
    int64_t bytes = (p->as.n_elements + 1) / 2;
    if (t->n_elements != bytes) return wrong_shape(t, bytes, 1, e);
    p->block = int_of(state, "blocksize", 0);
    if (p->block < 1 || p->block > 1 << 20) return err_set(e, ERR_FORMAT, "%s: blocksize is %lld, expected 1 to %d", t->name, (long long)p->block, 1 << 20);
    int64_t n = (p->as.n_elements + p->block - 1) / p->block;
    if (p->scale->n_elements != n || p->scale->n_dims != 1) return wrong_shape(p->scale, n, -1, e);
    p->how = &packing_table;
    p->why = "nf4 and fp4 have no GGUF type";
    if (p->scale->type == CKPT_U8) return bind_nested(im, stem, state, p, e);
    return want_type(p->scale, CKPT_F32, CKPT_F32, e);
}

static status bind_bnb(struct import *im, const struct ckpt_tensor *t, const char *stem, struct packed *p, struct err *e)
{
    if (t->type == CKPT_I8) return bind_bnb8(im, t, stem, p, e);
    TRY(want_type(t, CKPT_U8, CKPT_U8, e));
    return bind_bnb4(im, t, stem, p, e);
}

/* ---- the table ---- */

static const struct packed_scheme schemes[] = {
    { "GPTQ", "gptq", { ".qweight" }, false, setup_gptq, bind_gptq },
    { "AWQ", "awq", { ".qweight" }, false, setup_awq, bind_awq },
    { "compressed-tensors", "compressed-tensors", { ".weight_packed" }, true, setup_compressed, bind_compressed },
    { "bitsandbytes", "bitsandbytes", { NULL }, true, NULL, bind_bnb },
    { "FP8", "fp8", { NULL }, true, NULL, bind_fp8_any },
    { "FP8", "fbgemm_fp8", { NULL }, true, NULL, bind_fp8_any },
    { "MXFP4", "mxfp4", { "_blocks" }, false, NULL, bind_gpt_oss },
};

static status unknown_scheme(const struct import *im, const char *method, struct err *e)
{
    char list[160] = "";
    for (int i = 0; i < ARRAY_LEN(schemes); i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", schemes[i].method);
    return err_set(e, ERR_FORMAT, "%s/config.json: quant_method \"%.40s\" is none of %s", im->dir, method ? method : "(none)", list);
}

status packed_setup(struct import *im, struct err *e)
{
    const struct json *q = import_config(im, "quantization_config|compression_config");
    if (!q) return OK;
    const char *method = text_of(q, "quant_method");
    if (!method && (int_of(q, "load_in_4bit", 0) || int_of(q, "load_in_8bit", 0))) method = "bitsandbytes";
    for (int i = 0; method && i < ARRAY_LEN(schemes); i++)
        if (!strcmp(schemes[i].method, method)) im->scheme = &schemes[i];
    if (!im->scheme) return unknown_scheme(im, method, e);
    return im->scheme->setup ? im->scheme->setup(im, q, e) : OK;
}

const char *packed_scheme_name(const struct packed_scheme *s) { return s->name; }

bool packed_name(const struct import *im, int i, const char *name, char *out, size_t cap)
{
    static const char plain[] = ".weight";
    const struct packed_scheme *s = im->scheme;
    if (!s || i >= ARRAY_LEN(s->code) || !s->code[i]) return false;
    size_t n = strlen(name), tail = strlen(plain);
    bool ends = n > tail && !strcmp(name + n - tail, plain);
    if (s->code[i][0] == '.' && !ends) return false;
    return snprintf(out, cap, "%.*s%s", (int)(s->code[i][0] == '.' ? n - tail : n), name, s->code[i]) < (int)cap;
}

bool packed_is(const struct import *im, const struct ckpt_tensor *t)
{
    static const enum ckpt_type codes[] = { CKPT_I8, CKPT_U8, CKPT_F8_E4M3, CKPT_F8_E5M2 };
    bool is = false;
    for (int i = 0; i < ARRAY_LEN(codes); i++) is |= t->type == codes[i];
    return im->scheme && im->scheme->in_place && is;
}

/* What stands before the part's own ending. */
static bool stem_of(const struct packed_scheme *s, const char *name, char *stem, size_t cap)
{
    size_t n = strlen(name);
    for (int i = -1; i < ARRAY_LEN(s->code); i++) {
        const char *tail = i < 0 ? ".weight" : s->code[i];
        size_t len = tail ? strlen(tail) : n;
        if (n <= len || n - len >= cap || strcmp(name + n - len, tail)) continue;
        memcpy(stem, name, n - len);
        stem[n - len] = '\0';
        return true;
    }
    return false;
}

status packed_bind(struct import *im, const struct ckpt_tensor *t, const struct packed **out, struct err *e)
{
    char stem[320], name[340];
    struct packed *p = arena_zalloc(&im->arena, 1, sizeof *p);
    if (!p) return err_oom(e, t->name, sizeof *p);
    if (!stem_of(im->scheme, t->name, stem, sizeof stem)) return err_set(e, ERR_FORMAT, "%s: %s with this name is not supported", t->name, im->scheme->name);
    snprintf(name, sizeof name, "%s%s", stem, im->scheme->code[0] && im->scheme->code[0][0] == '_' ? "" : ".weight");
    p->as.name = arena_strdup(&im->arena, name, strlen(name));
    if (!p->as.name) return err_oom(e, name, strlen(name));
    for (int i = 0; i < CKPT_MAX_DIMS; i++) p->as.shape[i] = 1;
    p->code = t;
    p->factor = 1;
    im->used[t - im->ckpt.tensor] = true;
    if (!t->contiguous) return err_set(e, ERR_FORMAT, "%s: is a view with strides, expected codes in order", t->name);
    TRY(im->scheme->bind(im, t, stem, p, e));
    const struct ckpt_tensor *parts[] = { p->scale, p->zero, p->scale2 };
    for (int i = 0; i < ARRAY_LEN(parts); i++)
        if (parts[i] && !parts[i]->contiguous) return err_set(e, ERR_FORMAT, "%s: is a view with strides, expected values in order", parts[i]->name);
    *out = p;
    return OK;
}

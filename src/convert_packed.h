/* convert_packed - matrices that a checkpoint has in a quantized form of its own: integer codes with scales (GPTQ, AWQ, compressed-tensors,
 * bitsandbytes int8), small floats with scales (FP8), codes of a table (bitsandbytes nf4, fp4), blocks with an exponent (MXFP4). A struct packed is
 * one such matrix: its parts, all shapes checked, and how its rows become f32 or, where a GGUF type holds exactly the same numbers, blocks of that
 * type. convert_packed.c finds and checks, convert_unpack.c reads. Internal to convert*.c. */
#pragma once
#include "ggml-like/checkpoint.h"
#include "ggml-like/dtype.h"

struct import;
struct packed;

/* GGUF types that can hold a matrix, bits. Q4_1's minimum is the scale times the zero point rounded to a half; all else is exact. */
enum { FITS_Q4_0 = 1, FITS_Q4_1 = 2, FITS_Q8_0 = 4, FITS_MXFP4 = 8 };

/* Integer codes: w = scale[group] * (code - zero[group]), a scale and a zero point for each row and group of columns. */
struct packing {
    /* codes - n rows from row0 on, [n][cols]; as unsigned numbers: int8 codes have 128 added. */
    status (*codes)(const struct import *im, const struct packed *p, int64_t row0, int64_t n, uint8_t *code, struct err *e);
    /* groups - scales and zero points of these rows, [n][n_groups]. */
    status (*groups)(const struct import *im, const struct packed *p, int64_t row0, int64_t n, float *scale, int16_t *zero, struct err *e);
    /* floats - instead of both: finished rows [n][cols]. */
    status (*floats)(const struct import *im, const struct packed *p, int64_t row0, int64_t n, float *out, struct err *e);
};

struct packed {
    const struct packing *how;
    struct ckpt_tensor as;                          /* the matrix that the parts make: name, shape; never read */
    const struct ckpt_tensor *code, *scale, *zero;  /* zero NULL: zero_fixed everywhere */
    int bits;
    int64_t rows, cols, n_groups;
    int zero_add, zero_fixed;                       /* added to stored zero points; in place of them */
    float factor;                                   /* of all scales, multiplied last */
    const int32_t *group_of;                        /* [cols] group of each column; NULL: n_groups equal parts in order */
    int64_t block_rows, block_cols;                 /* FP8: of one scale */
    const float *table, *scale_table;               /* of codes, [16]; of 8-bit scales, [256], or NULL */
    const struct ckpt_tensor *scale2;               /* scales of those scales */
    int64_t block, block2;                          /* elements of one scale; scales of one scale2 */
    float offset2;                                  /* added to scales */
    unsigned fits;
    bool rounds;                                    /* as Q4_1 some minima are rounded */
    const char *why;                                /* fits == 0: why no type does */
};

extern const struct packing packing_gptq, packing_awq, packing_rows, packing_fp8, packing_table, packing_mxfp4;

struct packed_scheme;
/* packed_setup - the scheme that quantization_config names, into im->scheme; NULL without one. ERR_FORMAT names what is unknown. */
status packed_setup(struct import *im, struct err *e) MUST_USE;
const char *packed_scheme_name(const struct packed_scheme *s);
/* packed_name - name number i (0, 1, ..) under which the codes of tensor `name` may stand; false: no more. */
bool packed_name(const struct import *im, int i, const char *name, char *out, size_t cap);
/* packed_is - does t hold codes of this scheme, rather than plain numbers? */
bool packed_is(const struct import *im, const struct ckpt_tensor *t);
/* packed_bind - the matrix that t holds codes of, in the arena, its parts marked as used. ERR_FORMAT: missing parts by name, both shapes. */
status packed_bind(struct import *im, const struct ckpt_tensor *t, const struct packed **out, struct err *e) MUST_USE;
/* packed_read - n rows from row0 on as f32 (type NULL) or as blocks of a type that p fits. */
status packed_read(const struct import *im, const struct packed *p, const struct dtype *type, int64_t row0, int64_t n, void *out, struct err *e) MUST_USE;
unsigned packed_fits_bit(const struct dtype *type);

/* import - what an architecture may say about Hugging Face checkpoints beyond its rows. The rows alone suffice where names map one to one;
 * an arch_import adds keys that are computed and tensors that are cut, reordered or combined. Internal to src/ (convert.c, arch/). */
#pragma once
#include "ggml-like/json.h"
#include "src/arch.h"

struct import; /* a conversion under way (convert.c) */

/* ---- config.json ---- Names may be paths ("rope_parameters.rope_theta") and alternatives ("n_head|num_heads"): the first that exists and is not
 * null. Nested text_config of multimodal checkpoints is looked into by itself. */
const struct json *import_config(const struct import *im, const char *name); /* NULL: absent or null */
double import_number(const struct import *im, const char *name, double def); /* number or bool; def when absent or of another kind */
bool import_is(const struct import *im, const char *name, const char *text); /* is a string equal to text */

/* import_whole - v cut to a whole number within +-2^31: sums and products of a few do not overflow. import_int - import_number so cut. */
static inline int64_t import_whole(double v)
{
    return v >= 2147483647.0 ? 2147483647 : v > -2147483648.0 ? (int64_t)v : -2147483647 - (int64_t)1; /* NaN: the least */
}
static inline int64_t import_int(const struct import *im, const char *name, int64_t def) { return import_whole(import_number(im, name, (double)def)); }

/* Keys of the file, "<arch>." is put in front, or nothing but the '/' taken away where the key begins with one. A key that a row
 * wrote before is replaced. */
void import_put_int(struct import *im, const char *key, int64_t v);
void import_put_float(struct import *im, const char *key, double v);
void import_put_bool(struct import *im, const char *key, bool v);
void import_put_str(struct import *im, const char *key, const char *v);
void import_put_ints(struct import *im, const char *key, const int32_t *v, int64_t n); /* array, one per layer */
/* import_windows - the key that window_layers reads, from layer_types or sliding_window_pattern; not written where it says what `period` says
 * anyway. Refuses other types of layers. */
status import_windows(struct import *im, int64_t period, struct err *e) MUST_USE;
/* import_qwen_windows - Qwen 2 and 3: the window counts only with use_sliding_window, for the layers that layer_types marks. */
status import_qwen_windows(struct import *im, struct err *e) MUST_USE;
/* import_rope_sections - Qwen-VL: how a head's pairs are shared among time, height and width (all the same for text); llama.cpp wants the key, and
 * the number of layers that images reach into. */
status import_rope_sections(struct import *im, struct err *e) MUST_USE;
/* import_all_sparse - refuses Qwen mixtures with dense layers in between (decoder_sparse_step, mlp_only_layers) and switched-on windows. */
status import_all_sparse(struct import *im, struct err *e) MUST_USE;
void import_put_floats(struct import *im, const char *key, const float *v, int64_t n);
/* import_drop - the key that a row wrote is not written. */
void import_drop(struct import *im, const char *key);

/* ---- tensors ---- */

/* import_load - the whole source tensor `hf` (pattern with %d = il) as f32 in PyTorch's order; shape[0..n_dims) is what the caller expects, -1 = any,
 * and is filled in. *out from mem_alloc, the caller frees. ERR_FORMAT names a missing tensor or both shapes. */
status import_load(struct import *im, const char *hf, int il, int64_t *shape, int n_dims, float **out, struct err *e) MUST_USE;
/* import_load_item - item `item` of its first dimension only (-1: all); shape still describes the whole. Both read integers as well. */
status import_load_item(struct import *im, const char *hf, int il, int64_t item, int64_t *shape, int n_dims, float **out, struct err *e) MUST_USE;
bool import_has(const struct import *im, const char *hf, int il); /* does the checkpoint have one of the alternatives? */

/* qkv_by_head - for weight_import.row: row i of Q above K above V, where the source has Q, K and V of each head together. As many KV heads as heads. */
int64_t qkv_by_head(const struct model *m, int il, int64_t i);

/* One weight that is more than its row says. All members but id may be 0.
 *   row   source row of row i (of all rows of the tensor, experts included: e * ne1 + i); -1: the row is zero. Of a vector: source element of element i
 *         With load as well: of checkpoints that have the tensor quantized.
 *   load  fills the whole tensor in the GGUF order, [ne2][ne1][ne0] f32, from any sources (import_load)
 *   value applied to each element, after the flags of the row
 *   factor  row i is multiplied by it, after `value` */
struct weight_import {
    enum weight_id id;
    int64_t (*row)(const struct model *m, int il, int64_t i);
    status (*load)(struct import *im, const struct model *m, int il, float *out, struct err *e);
    float (*value)(float x);
    double (*factor)(const struct import *im, const struct model *m, int il, int64_t i);
};

/* mamba2_keys, minus_exp (convert_config.c) - what checkpoints with Mamba-2 blocks share: refuses a limited time step; A = -exp(A_log). */
status mamba2_keys(struct import *im, struct err *e) MUST_USE;
float minus_exp(float x);

struct arch_import {
    status (*keys)(struct import *im, struct err *e); /* after the rows wrote theirs; refuses what the equations cannot do, by name */
    const struct weight_import *weights;              /* ends with id W_COUNT; NULL = none */
    const char *const *ignore;                        /* source tensors that are not needed: substrings, NULL-terminated ("rotary_emb.inv_freq") */
};

/* A checkpoint whose mixtures choose by the sigmoid of their router, which its config.json does not say. */
extern const struct arch_import import_sigmoid;

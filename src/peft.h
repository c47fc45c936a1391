/* peft - adapters of the PEFT library (a folder with adapter_config.json and adapter_model.safetensors) as GGUF adapters, and back, by the rows of the base's
 * architecture: names, fused matrices, the order of rows, stacks of experts. The base is a GGUF model. Exact: numbers move, and are multiplied only where
 * a file has more than one ratio of scale and rank (alpha_pattern, rank_pattern with rsLoRA). */
#pragma once
#include "ggml-like/dtype.h"
#include "src/model.h"

struct peft_options {
    const struct dtype *type;  /* of the matrices: F32, F16, BF16; NULL: the source's where it is one of these and none was multiplied, else F32 */
    const char *base_name;     /* export: base_model_name_or_path; NULL: null */
    bool check_only;           /* write nothing */
    void (*warn)(void *ctx, const char *text); /* one line; may be NULL */
    void *ctx;
};

struct peft_info {
    int64_t n_modules, n_tensors; /* of the PEFT folder; weights of the base that have an adapter */
    int64_t rank_min, rank_max;
    double alpha;
    const struct dtype *type;
};

/* peft_import - path is the folder. ERR_FORMAT names what GGUF adapters cannot say (DoRA, bias, modules_to_save, ...), modules that the base has no place
 * for, wrong shapes with both. */
status peft_import(const char *path, const struct model *m, const char *out, const struct peft_options *o, struct peft_info *info, struct err *e) MUST_USE;
/* peft_export - path is the GGUF adapter; writes the two files into dir. Matrices that share a source (Q, K, V of one fused projection) get an A of all
 * their ranks where their own differ. */
status peft_export(const char *path, const struct model *m, const char *dir, const struct peft_options *o, struct peft_info *info, struct err *e) MUST_USE;

/* peft_is_folder - has path an adapter_config.json? */
bool peft_is_folder(const char *path);

/* lora - low-rank adapters in GGUF files: y = W x + s B (A x) for the matrices that an adapter names; the base stays as it is. Read-only after
 * open; shared by any number of engines. Format: general.type "adapter", adapter.type "lora", adapter.lora.alpha; tensors X.lora_a [in, r] and
 * X.lora_b [r, out] beside each base tensor X; matrices of experts have a third dimension; those of token_embd.weight stand [r, vocabulary] and
 * [r, width]. s = scale * alpha / r, or scale where alpha is 0. Sources: Hu et al. 2021; llama.cpp (llama-adapter.cpp). */
#pragma once
#include "src/model.h"

struct adapter;

/* adapter_open - checked against m, which must stay open: ERR_FORMAT names a key or tensor and both values when the file is no adapter, belongs to
 * another architecture, or a tensor has no base, no partner, or another shape. Vectors (norms, biases) are refused: an adapter that changes
 * them would silently be only a part of itself. */
status adapter_open(struct adapter **out, const char *path, const struct model *m, struct err *e) MUST_USE;
void adapter_close(struct adapter *a); /* accepts NULL; engines that use it must be closed before */

struct adapter_info {
    int64_t n_matrices, rank_min, rank_max;
    float alpha;
    size_t bytes;
};
void adapter_info(const struct adapter *a, struct adapter_info *info);

/* One adapter in use. */
enum { ADAPTERS_MAX = 8 };
struct adapter_use {
    const struct adapter *adapter;
    float scale;
};

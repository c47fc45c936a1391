/* lora_int - the inside of adapters, for src/ only. */
#pragma once
#include "src/arch.h"
#include "src/lora.h"

enum { LORA_RANK_MAX = 4096 };

struct lora_pair {
    struct tensor a, b; /* type NULL: no adapter for this weight */
    float factor;       /* alpha / rank, or 1 */
    enum weight_id id;
    int il;             /* -1: of the model */
};

struct adapter {
    char name[80];           /* of its file, for messages */
    struct gguf g;
    const struct model *m;
    struct lora_pair *pair;  /* [n_pairs] */
    int64_t n_pairs;
    int32_t *of;             /* [n_layer * W_LAYER_COUNT + W_COUNT - W_LAYER_COUNT] index in pair, -1: none */
    float alpha;
    uint64_t fingerprint;
};

/* The adapters of an engine, as equations see them. */
struct lora_set {
    struct adapter_use use[ADAPTERS_MAX];
    int n;
};

/* adapter_slot - index of a weight in adapter.of. adapter_pair - what the adapter has for this weight; NULL: nothing. */
size_t adapter_slot(const struct model *m, int il, enum weight_id id);
const struct lora_pair *adapter_pair(const struct adapter *a, int il, enum weight_id id);

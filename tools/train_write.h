/* train_write - what training made, as a GGUF file: an adapter, or a model like the one it began with. */
#pragma once
#include "src/cuanto.h"

/* How it came about, for the file's metadata. */
struct train_facts {
    const char *model_sha, *data_sha, *job;
    int64_t step;
    uint64_t seed;
    double valid; /* validation loss at that step, not finite: not measured */
};
/* Both appear complete or not at all. The model keeps its keys and the types of its tensors. */
status train_write_adapter(const char *path, const struct model *m, struct trainer *t, const struct train_facts *f, struct err *e) MUST_USE;
status train_write_model(const char *path, const struct model *m, struct trainer *t, const struct train_facts *f, struct err *e) MUST_USE;

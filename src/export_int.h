/* export_int - what export.c, export_config.c and export_tokenizer.c share. Nobody else includes it. */
#pragma once
#include "ggml-like/json.h"
#include "src/convert.h"
#include "src/model_int.h"

struct export {
    struct export_options o;
    struct model *m;
    const struct export_arch *arch;
    struct export_tensor *tensor;
    int64_t n_tensors;
    size_t bytes;
    bool tied;
    const struct dtype *type; /* of matrices that were quantized, or of all */
    struct arena arena, *mem; /* mem: &arena */
};

/* One architecture that can be written: its name in config.json, and what the rows do not say. */
struct export_arch {
    const char *name, *model_type, *hf;
    status (*config)(const struct model *m, struct json_out *o, struct err *e); /* further members; may be NULL */
    enum { EXPORT_ALWAYS, EXPORT_EXPERTS, EXPORT_WINDOWS } when;                /* with experts; with a window in some layer */
};

void export_warn(const struct export *x, const char *fmt, ...) PRINTF_LIKE(2, 3);
const struct export_arch *export_arch_of(const struct model *m); /* NULL: not known how */
/* The texts of the files. ERR_FORMAT names what config.json cannot express. export_tokenizer: *written false, with a warning, when there is no exact one. */
status export_config(const struct export *x, struct json_out *o, struct err *e) MUST_USE;
status export_generation(const struct export *x, struct json_out *o, struct err *e) MUST_USE;
status export_tokenizer(const struct export *x, struct json_out *o, bool *written, struct err *e) MUST_USE;
status export_tokenizer_config(const struct export *x, bool tokenizer, struct json_out *o, struct err *e) MUST_USE;
/* export_text - a small file of a directory, complete or not at all. */
status export_text(const char *dir, const char *name, struct json_out *o, struct err *e) MUST_USE;

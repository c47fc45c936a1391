/* quant_plan - a plan of quantization shown to people and scripts: groups of tensors, sizes, memory, time, what fell back and why. */
#pragma once
#include "quant/quant.h"
#include "tools/calibrate.h"
#include "tools/cli.h"
#include "tools/quant_predict.h"

enum { RUN_CONTEXTS = 3 };
/* What the result takes to run: weights, KV cache (F16) and the engine's scratch at a few contexts, none longer than the model was trained for. path: the
 * model, opened for a moment; NULL, or one that does not run here: weights and cache, from the header alone. */
struct run_memory { int64_t n_ctx[RUN_CONTEXTS]; uint64_t bytes[RUN_CONTEXTS]; int n; /* 0: the file does not say */ };
void run_memory(struct run_memory *m, const struct gguf *g, const char *path, uint64_t weights);

struct plan_view {
    struct quant_plan *plan;
    const char *in, *out;       /* out NULL: not known */
    struct quant_totals totals;
    struct run_memory run;
    const struct calibration *calibration; /* NULL: the model reads nothing first */
    struct quant_cost cost;     /* of it */
    uint64_t room;              /* free bytes where out goes, UINT64_MAX: not known */
};
/* plan_print - the table and what it comes to, line by line through put (out_printf, or one for stderr). */
typedef bool (*print_fn)(const char *fmt, ...);
void plan_print(const struct plan_view *v, print_fn put);
void plan_json(const struct plan_view *v, struct json_out *o); /* members of the object that is open: totals, run, tensors */
/* error_text - a relative error in percent: "2.81 %", or "about 2.9 %" when it comes from a sample of rows */
const char *error_text(double error, bool sampled, char buf[32]);
const char *duration_text(double seconds, char buf[32]);       /* "42 s", "3 min 20 s", "1 h 5 min" */

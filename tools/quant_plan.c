/* quant_plan - see quant_plan.h. Tensors of all layers with one name and one fate are one row. */
#include "tools/quant_plan.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "src/cuanto.h"
#include "tools/dataset.h"
#include "tools/limits.h"

/* ---- what it takes to run the result ---- */

static int64_t key_at(const struct gguf *g, const char *name, int64_t layer)
{
    char key[128];
    struct str arch = { "", 0 };
    struct err ignored = { 0 };
    gguf_get_str(g, "general.architecture", &arch, &ignored);
    snprintf(key, sizeof key, "%.*s.%s", (int)(arch.n < 60 ? arch.n : 60), arch.p, name);
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv || kv->n == 0 || kv->elem == KV_STR || kv->elem == KV_F32 || kv->elem == KV_F64) return -1;
    return gguf_arr_i64(kv, kv->n > 1 ? (uint64_t)layer % kv->n : 0);
}

/* Bytes of the KV cache for each position; 0: the header does not say. */
static int64_t cache_bytes(const struct gguf *g)
{
    enum { LIMIT = 1 << 20 }; /* of each figure: their product stays far below 2^63 */
    int64_t layers = key_at(g, "block_count", 0), width = key_at(g, "embedding_length", 0), per_position = 0;
    for (int64_t il = 0; il < layers; il++) {
        int64_t heads = key_at(g, "attention.head_count", il), kv = key_at(g, "attention.head_count_kv", il);
        if (heads <= 0 || width <= 0 || layers > 4096) return 0;
        int64_t k = key_at(g, "attention.key_length", il), v = key_at(g, "attention.value_length", il);
        if (kv < 0) kv = heads;
        if (k < 0) k = width / heads;
        if (v < 0) v = width / heads;
        if (kv > LIMIT || k > LIMIT || v > LIMIT) return 0;
        per_position += kv * (k + v) * 2; /* F16 */
        if (per_position > INT64_C(1) << 40) return 0;
    }
    return per_position;
}

void run_memory(struct run_memory *m, const struct gguf *g, const char *path, uint64_t weights)
{
    static const int64_t contexts[RUN_CONTEXTS] = { 4096, 8192, 32768 };
    int64_t per_position = cache_bytes(g), trained = key_at(g, "context_length", 0);
    struct model_options mo = { 0 };
    struct engine_options eo = { 0 };
    struct model *model = NULL;
    struct engine *en = NULL;
    struct err ignored = { 0 };
    *m = (struct run_memory){ .n = 0 };
    if (path && model_open(&model, path, &mo, &ignored) == OK && engine_open(&en, model, &eo, &ignored) != OK) en = NULL;
    for (int i = 0; i < RUN_CONTEXTS; i++) {
        int64_t n = contexts[i];
        if (trained > 0 && n > trained && i > 0) break;
        if (trained > 0 && n > trained) n = trained;
        uint64_t besides = en ? limits_memory(en, n, dtype_by_name("f16")) : (uint64_t)(per_position * n);
        if (besides == 0) break;
        m->n_ctx[m->n] = n;
        m->bytes[m->n++] = weights + besides;
    }
    engine_close(en);
    model_close(model);
}

/* ---- the table ---- */

struct group {
    char name[64];
    const struct dtype *from, *to;
    int64_t n;
    size_t bytes_from, bytes_to;
    const struct quant_item *first;
};

/* "blk.7.attn_q.weight" -> "blk.*.attn_q.weight" */
static void pattern(const char *name, char *out, size_t cap)
{
    size_t n = 0;
    for (const char *p = name; *p && n + 1 < cap;) {
        bool number = isdigit((unsigned char)*p) && p > name && p[-1] == '.';
        const char *end = p;
        while (number && isdigit((unsigned char)*end)) end++;
        if (number && *end == '.') {
            out[n++] = '*';
            p = end;
        } else {
            out[n++] = *p++;
        }
    }
    out[n] = 0;
}

/* Returns NULL when memory is out. */
static struct group *find_groups(struct quant_plan *p, int64_t *n)
{
    struct group *g = mem_calloc((size_t)quant_plan_n(p), sizeof *g);
    *n = 0;
    for (int64_t i = 0; g && i < quant_plan_n(p); i++) {
        const struct quant_item *it = quant_plan_item(p, i);
        char name[64];
        int64_t k = 0;
        pattern(it->src->name, name, sizeof name);
        while (k < *n && (strcmp(g[k].name, name) || g[k].from != it->src->type || g[k].to != it->to)) k++;
        if (k == *n) {
            g[k] = (struct group){ .from = it->src->type, .to = it->to, .first = it };
            memcpy(g[k].name, name, sizeof name);
            ++*n;
        }
        g[k].n++;
        g[k].bytes_from += it->bytes_from;
        g[k].bytes_to += it->bytes_to;
    }
    return g;
}

const char *error_text(double error, bool sampled, char buf[32])
{
    double percent = 100 * error;
    int digits = percent >= 99.5 ? 0 : percent >= 9.95 ? 1 : percent >= 0.995 ? 2 : percent > 0.0995 ? 3 : 4; /* three that count */
    if (digits > 0 && sampled) digits--; /* two of them can be trusted */
    snprintf(buf, 32, "%s%.*f %%", sampled ? "about " : "", digits, percent);
    return buf;
}

const char *duration_text(double s, char buf[32])
{
    int64_t t = (int64_t)(s + 0.5);
    if (s < 9.95) snprintf(buf, 32, "%.1f s", s);
    else if (t < 100) snprintf(buf, 32, "%d s", (int)t);
    else if (t < 6000) snprintf(buf, 32, "%d min %d s", (int)(t / 60), (int)(t % 60));
    else snprintf(buf, 32, "%lld h %d min", (long long)(t / 3600), (int)(t / 60 % 60));
    return buf;
}

static double mib(size_t bytes) { return (double)bytes / (1 << 20); }

static void print_table(const struct plan_view *v, print_fn put)
{
    int64_t n;
    struct group *g = find_groups(v->plan, &n);
    put("%-36s %5s  %-16s %10s %10s\n", "tensors", "count", "type", "MiB", "becomes");
    for (int64_t i = 0; g && i < n; i++) {
        char types[48];
        snprintf(types, sizeof types, g[i].from == g[i].to ? "%s" : "%s -> %s", g[i].from->gguf_name, g[i].to->gguf_name);
        put("%-36s %5lld  %-16s %10.2f %10.2f\n", g[i].name, (long long)g[i].n, types, mib(g[i].bytes_from), mib(g[i].bytes_to));
    }
    mem_free(g);
}

/* Reasons that differ in nothing but a rule's or a row's numbers are told once each, with how many tensors they hit. */
static void print_fallbacks(const struct plan_view *v, print_fn put)
{
    const char *told[8];
    int n = 0;
    for (int64_t i = 0; i < quant_plan_n(v->plan); i++) {
        const struct quant_item *it = quant_plan_item(v->plan, i);
        int k = 0, count = 0;
        if (!it->fallback) continue;
        while (k < n && strcmp(told[k], it->why)) k++;
        if (k < n || n == ARRAY_LEN(told)) continue;
        told[n++] = it->why;
        for (int64_t j = i; j < quant_plan_n(v->plan); j++) {
            const struct quant_item *other = quant_plan_item(v->plan, j);
            count += other->fallback && !strcmp(other->why, it->why);
        }
        put("fallback, %d tensors: %s\n", count, it->why);
    }
}

static void print_blind(const struct plan_view *v, print_fn put)
{
    const char *shown = NULL;
    if (v->totals.n_without_importance == 0) return;
    for (int64_t i = 0; i < quant_plan_n(v->plan) && !shown; i++) {
        const struct quant_item *it = quant_plan_item(v->plan, i);
        bool table = !strncmp(it->src->name, "token_embd", 10) || !strncmp(it->src->name, "output.", 7);
        if (!it->kept && !it->has_importance && it->to->group_len > 0 && !table) shown = it->src->name;
    }
    put("without importance: %d tensors, the first is %s\n", v->totals.n_without_importance, shown ? shown : "?");
}

/* Text from a file, fit for a terminal. */
static const char *plain(const char *s, char *buf, size_t cap)
{
    size_t n = 0;
    for (; s[n] && n + 1 < cap; n++) buf[n] = (unsigned char)s[n] < 32 || s[n] == 127 ? '?' : s[n];
    buf[n] = 0;
    return buf;
}

/* What the model will read. */
static void print_calibration(const struct calibration *k, print_fn put)
{
    char text[80];
    const char *name = strcmp(k->text, dataset_default) ? plain(k->text, text, sizeof text) : "cuanto's own text";
    long long held = (long long)calibration_n_held_out(k), n = (long long)k->n_windows;
    put("calibrate %lld tokens of %s: %lld window%s of %lld, and %lld to check with\n", (long long)k->n_rows, name, n - held, n - held == 1 ? "" : "s",
        (long long)k->n_ctx, held);
    if (k->n_lines > 0) put("          it has %lld rows, %lld of them conversations\n", (long long)k->n_lines, (long long)(k->n_chats + k->n_plain));
    if (k->n_plain > 0) put("note      %lld conversations are read as plain text: the model has no chat template that takes them (--template)\n",
                             (long long)k->n_plain);
}

static void print_importance(const struct plan_view *v, print_fn put)
{
    const struct quant_options *o = quant_plan_options(v->plan);
    const struct importance *im = o->importance;
    char text[80];
    if (v->calibration) print_calibration(v->calibration, put);
    if (!im || v->calibration) return;
    put("importance: %lld tensors of %s", (long long)im->n, o->importance_name ? o->importance_name : "?");
    if (im->n_chunks > 0) put(", %lld %s", (long long)im->n_chunks, im->n_chunks == 1 ? "chunk" : "chunks");
    if (im->n_datasets > 0 && (!o->importance_name || strcmp(im->dataset[0], o->importance_name)))
        put(" of %s", plain(im->dataset[0], text, sizeof text));
    put("\n");
}

/* Methods that choose codes with care have nothing to choose where codes are copied, and cannot know what was lost before. */
static void print_quantized(const struct plan_view *v, print_fn put)
{
    const struct quantizer *m = quant_plan_options(v->plan)->spec.method;
    int copied = 0, again = 0;
    for (int64_t i = 0; i < quant_plan_n(v->plan); i++) {
        const struct quant_item *it = quant_plan_item(v->plan, i);
        if (it->src->type->group_len > 0 && !it->asked && !it->added) copied += it->kept, again += !it->kept;
    }
    if (copied > 0 && (m == &quantizer_gptq || m == &quantizer_awq))
        put("note      %d tensors have their format already and are copied: --method %s gains nothing there, the original could\n", copied, m->name);
    if (again > 0) put("note      %d tensors are quantized already: what they lost then stays lost, the original gives a better file\n", again);
}

/* What is allowed and still may not be what was meant. */
static void print_notes(const struct plan_view *v, print_fn put)
{
    const struct quant_options *o = quant_plan_options(v->plan);
    const struct quant_item *largest = NULL;
    struct err missing = { 0 };
    char part[32], limit[32];
    int64_t largest_i = 0;
    if (o->spec.method && !strcmp(o->spec.method->name, "zero-point") && o->spec.bits == 8)
        put("note      GGUF has no format with 8-bit codes and a zero-point: stored as F32 values, for study; the file grows\n");
    print_quantized(v, put);
    if (quant_plan_check(v->plan, &missing) != OK) put("note      the run will ask for more: %s\n", missing.text);
    for (int64_t i = 0; o->split_bytes > 0 && i < quant_plan_n(v->plan); i++) {
        const struct quant_item *it = quant_plan_item(v->plan, i);
        if (!largest || it->bytes_to > largest->bytes_to) largest = it, largest_i = i;
    }
    if (!largest || largest->bytes_to <= (size_t)o->split_bytes) return;
    put("note      --split-size %s is less than %s takes: its part will have %s\n", size_text((uint64_t)o->split_bytes, limit), largest->src->name,
        size_text(quant_plan_part_bytes(v->plan, largest_i), part));
}

/* Memory and time of everything that is to be done. */
static void print_needs(const struct plan_view *v, print_fn put)
{
    const struct quant_totals *t = &v->totals;
    char a[32], b[32], c[32];
    put("needs     %s of memory, %s of disk", size_text(t->ram + v->cost.bytes, a), size_text(t->bytes_to, b));
    put(v->room == UINT64_MAX ? "\n" : " (%s free)\n", size_text(v->room, c));
    if (v->cost.mapped > 0) put("          and the model itself, mapped from its file: %s\n", size_text(v->cost.mapped, a));
    if (t->seconds < 0) return;
    double read = v->calibration ? v->cost.calibrate : 0, solve = fmax(v->cost.solve, 0);
    if (read < 0) put("time      of the calibration not known; then about %s", duration_text(t->seconds, a));
    else put("time      about %s", duration_text(t->seconds + read + solve, a));
    if (read > 0) put(": %s to read the text", duration_text(read, a));
    if (solve > 0) put(", %s to solve", duration_text(solve, a));
    put(", %d threads, %s\n", t->n_threads, t->isa);
}

void plan_print(const struct plan_view *v, print_fn put)
{
    const struct quant_totals *t = &v->totals;
    char a[32], b[32];
    if (v->out) put("%s -> %s\n", v->in, v->out);
    print_importance(v, put);
    print_table(v, put);
    put("file      %s -> %s, %.2f -> %.2f bits per weight", size_text(t->bytes_from, a), size_text(t->bytes_to, b), t->bpw_from, t->bpw_to);
    put(t->n_files > 1 ? ", %d files\n" : "\n", t->n_files);
    print_needs(v, put);
    put("to run    ");
    if (v->run.n == 0) put("memory unknown: the file does not say how large its attention is\n");
    for (int i = 0; i < v->run.n; i++) {
        long long n = (long long)v->run.n_ctx[i];
        put(n % 1024 ? "%s at %lld context%s" : "%s at %lldk context%s", size_text(v->run.bytes[i], a), n % 1024 ? n : n / 1024,
            i + 1 < v->run.n ? ", " : "\n");
    }
    if (quant_plan_options(v->plan)->folded) put("scales    columns first where it helps, what makes their inputs by as much the other way\n");
    if (t->n_outliers > 0)
        put("outliers  %lld columns of %d matrices stay F16; llama.cpp cannot read such a file\n", (long long)t->n_outliers, t->n_outlier_matrices);
    else if (quant_plan_options(v->plan)->keep_outliers)
        put("outliers  no column is %g times as large as the middle one\n", (double)quant_plan_options(v->plan)->outlier_threshold);
    print_fallbacks(v, put);
    print_blind(v, put);
    print_notes(v, put);
}

/* ---- the same for scripts ---- */

static void json_item(struct json_out *o, const struct quant_item *it)
{
    json_begin(o, NULL, '{');
    json_put_cstr(o, "name", it->src->name);
    json_begin(o, "shape", '[');
    int dims = 4;
    while (dims > 1 && it->src->ne[dims - 1] == 1) dims--;
    for (int i = 0; i < dims; i++) json_put_i64(o, NULL, it->src->ne[i]);
    json_end(o, ']');
    json_put_cstr(o, "from", it->src->type->gguf_name);
    json_put_cstr(o, "to", it->to->gguf_name);
    json_put_i64(o, "bytes_from", (int64_t)it->bytes_from);
    json_put_i64(o, "bytes_to", (int64_t)it->bytes_to);
    json_put_bool(o, "kept", it->kept);
    json_put_bool(o, "fallback", it->fallback);
    json_put_bool(o, "importance", it->has_importance);
    if (it->n_outliers > 0) json_put_i64(o, "outlier_columns", it->n_outliers);
    json_put_cstr(o, "why", it->why);
    if (it->stats.n > 0) {
        json_put_f64(o, "rmse", stats_rmse(&it->stats));
        json_put_f64(o, "relative", stats_relative(&it->stats));
        json_put_f64(o, "weighted", stats_weighted(&it->stats));
        json_put_f64(o, "cosine", stats_cosine(&it->stats));
        json_put_f64(o, "max_error", it->stats.max_err);
        json_put_i64(o, "outliers", it->stats.outliers);
    }
    json_end(o, '}');
}

static void json_calibration(struct json_out *o, const struct plan_view *v)
{
    const struct calibration *k = v->calibration;
    json_begin(o, "calibration", '{');
    json_put_cstr(o, "text", k->text);
    json_put_i64(o, "tokens", k->n_rows);
    json_put_i64(o, "windows", k->n_windows);
    json_put_i64(o, "held_out", calibration_n_held_out(k));
    json_put_i64(o, "rows", k->n_lines);
    json_put_i64(o, "conversations", k->n_chats + k->n_plain);
    json_put_i64(o, "ram_bytes", (int64_t)v->cost.bytes);
    json_put_i64(o, "mapped_bytes", (int64_t)v->cost.mapped);
    if (v->cost.calibrate >= 0) json_put_f64(o, "seconds_predicted", v->cost.calibrate);
    if (v->cost.solve >= 0) json_put_f64(o, "solve_seconds_predicted", v->cost.solve);
    json_end(o, '}');
}

void plan_json(const struct plan_view *v, struct json_out *o)
{
    const struct quant_totals *t = &v->totals;
    json_put_cstr(o, "input", v->in);
    json_put_cstr(o, "output", v->out);
    json_put_i64(o, "bytes_from", (int64_t)t->bytes_from);
    json_put_i64(o, "bytes_to", (int64_t)t->bytes_to);
    json_put_i64(o, "files", t->n_files);
    json_put_i64(o, "params", (int64_t)t->n_params);
    json_put_f64(o, "bpw_from", t->bpw_from);
    json_put_f64(o, "bpw_to", t->bpw_to);
    json_put_i64(o, "ram_bytes", (int64_t)t->ram);
    if (v->room == UINT64_MAX) json_put_null(o, "disk_free");
    else json_put_i64(o, "disk_free", (int64_t)v->room);
    if (t->seconds >= 0) json_put_f64(o, "seconds_predicted", t->seconds);
    else json_put_null(o, "seconds_predicted");
    if (v->calibration) json_calibration(o, v);
    json_put_i64(o, "file_type", t->ftype);
    json_put_i64(o, "fallbacks", t->n_fallback);
    json_put_i64(o, "without_importance", t->n_without_importance);
    json_put_i64(o, "outlier_columns", t->n_outliers);
    json_put_i64(o, "outlier_matrices", t->n_outlier_matrices);
    json_put_i64(o, "threads", t->n_threads);
    json_put_cstr(o, "isa", t->isa);
    json_begin(o, "run", '[');
    for (int i = 0; i < v->run.n; i++) {
        json_begin(o, NULL, '{');
        json_put_i64(o, "ctx", v->run.n_ctx[i]);
        json_put_i64(o, "bytes", (int64_t)v->run.bytes[i]);
        json_end(o, '}');
    }
    json_end(o, ']');
    json_begin(o, "tensors", '[');
    for (int64_t i = 0; i < quant_plan_n(v->plan); i++) json_item(o, quant_plan_item(v->plan, i));
    json_end(o, ']');
}

/* logits - raw logits of a token file, for comparisons with other engines:
 *   logits MODEL TOKENS OUT N_CTX [decode | precise | rows=N | kv=f32 | lora=FILE | isa=NAME]...
 * TOKENS: int32 ids; windows of N_CTX, each in an empty session. OUT: f32 [tokens][n_vocab]. rows: of a pass; decode = rows=1. kv: f16, f32, q8_0. */
#include "src/cuanto.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sink {
    float *rows;
    int64_t n_vocab;
};
static void take(void *ctx, int seg, int64_t row, const float *logits)
{
    struct sink *s = ctx;
    memcpy(s->rows + row * s->n_vocab, logits, (size_t)s->n_vocab * sizeof *logits);
}

static int fail(const struct err *e)
{
    fprintf(stderr, "logits: %s\n", e->text);
    return e->code;
}

int main(int argc, char **argv)
{
    struct err e = { 0 };
    struct model *m = NULL;
    struct engine *en = NULL;
    struct session *s = NULL;
    char *raw = NULL;
    size_t bytes;
    if (argc < 5) return 2;
    int64_t n_ctx = atoll(argv[4]), rows = 0;
    bool precise = false;
    const struct dtype *kv = NULL;
    const char *lora = NULL, *isa = NULL;
    struct adapter *adapter = NULL;
    struct adapter_use use = { NULL, 1 };
    for (int i = 5; i < argc; i++) {
        if (!strcmp(argv[i], "decode")) rows = 1;
        else if (!strcmp(argv[i], "precise")) precise = true;
        else if (!strncmp(argv[i], "rows=", 5)) rows = atoll(argv[i] + 5);
        else if (!strncmp(argv[i], "lora=", 5)) lora = argv[i] + 5;
        else if (!strncmp(argv[i], "isa=", 4)) isa = argv[i] + 4;
        else if (strncmp(argv[i], "kv=", 3) || !(kv = dtype_by_name(argv[i] + 3))) return 2;
    }
    if (file_text(argv[2], 1 << 30, &raw, &bytes, &e) != OK || model_open(&m, argv[1], &(struct model_options){ .n_ctx = n_ctx }, &e) != OK ||
        (lora && adapter_open(&adapter, lora, m, &e) != OK) || (use.adapter = adapter, false) ||
        engine_open(&en, m, &(struct engine_options){ .precise = precise, .isa = isa, .n_batch = rows, .lora = &use, .n_lora = lora != NULL }, &e) != OK ||
        session_open(&s, en, &(struct session_options){ .n_ctx = n_ctx, .kv_type = kv }, &e) != OK)
        return fail(&e);
    FILE *out = fopen(argv[3], "wb");
    if (!out) return 3;
    struct sink sink = { .n_vocab = tokenizer_size(model_tokenizer(m)) };
    int64_t step = min_i64(engine_n_batch(en), n_ctx), n = (int64_t)(bytes / 4);
    sink.rows = malloc((size_t)(step * sink.n_vocab) * sizeof(float));
    for (int64_t at = 0; at < n;) {
        if (at % n_ctx == 0 && session_truncate(s, 0, &e) != OK) return fail(&e);
        int64_t len = min_i64(step, min_i64(n, at / n_ctx * n_ctx + n_ctx) - at);
        struct segment g = { s, (const int32_t *)(const void *)raw + at, len, 0 };
        if (engine_forward(en, &g, 1, take, &sink, &e) != OK) return fail(&e);
        if (fwrite(sink.rows, sizeof(float), (size_t)(len * sink.n_vocab), out) != (size_t)(len * sink.n_vocab)) return 1;
        at += len;
    }
    free(sink.rows);
    mem_free(raw);
    session_close(s);
    engine_close(en);
    adapter_close(adapter);
    model_close(m);
    return fclose(out) != 0;
}

/* test_main - runs every suite, or the claims whose names contain one of the arguments. */
#include "tests/test.h"
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>

#define SUITES(X) \
    X(allocate) \
    X(archs) \
    X(arena) \
    X(base) \
    X(beam) \
    X(chat) \
    X(checkpoint) \
    X(cli) \
    X(compare) \
    X(convert_tokenizer) \
    X(convert) \
    X(convert_hostile) \
    X(cpu) \
    X(data) \
    X(dataset) \
    X(dtype) \
    X(engine) \
    X(experts) \
    X(export) \
    X(file) \
    X(gguf) \
    X(gguf_split) \
    X(grad) \
    X(grad_ops) \
    X(grad_archs) \
    X(grammar) \
    X(import_quant) \
    X(importance) \
    X(json) \
    X(json_schema) \
    X(kernels_matmul) \
    X(kernels_vec) \
    X(latent) \
    X(layers) \
    X(train) \
    X(lookup) \
    X(lora) \
    X(peft) \
    X(measure) \
    X(model) \
    X(model_hostile) \
    X(pool) \
    X(quant_basic) \
    X(quant_compat) \
    X(quant_iq) \
    X(quant_search) \
    X(quant_level) \
    X(quantize) \
    X(recurrent) \
    X(rotate) \
    X(sampler) \
    X(session) \
    X(solve) \
    X(solver) \
    X(template) \
    X(tok_models) \
    X(tokenizer) \
    X(train_set)
#define DECL(id) extern const struct test_suite suite_##id;
SUITES(DECL)
#define ROW(id) &suite_##id,
static const struct test_suite *const suites[] = { SUITES(ROW) };

static char current[160];
static char tmp_folder[128];
static int passed, failed;
static bool current_failed, current_open;

static void finish(void)
{
    if (!current_open) return;
    if (current_failed) failed++;
    else passed++;
    current_open = false;
}

void test_begin(const char *fmt, ...)
{
    finish();
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(current, sizeof current, fmt, ap);
    va_end(ap);
    current_failed = false;
    current_open = true;
}

void test_fail(const char *file, int line, const char *fmt, ...)
{
    current_failed = true;
    printf("FAIL %s  %s:%d: ", current, file, line);
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
}

uint64_t test_rand(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float test_randf(uint64_t *s) { return (float)(test_rand(s) >> 40) * (1.0f / 8388608.0f) - 1.0f; }

/* Drawn from 65536 values made once: log and cos for each took 40 % of the time of the kernel claims. */
float test_randn(uint64_t *s)
{
    static float value[1 << 16];
    if (value[0] == 0.0f) {
        uint64_t seed = 1;
        for (int i = 0; i < ARRAY_LEN(value); i++) {
            double u = ((double)(test_rand(&seed) >> 11) + 0.5) * 0x1p-53, v = ((double)(test_rand(&seed) >> 11) + 0.5) * 0x1p-53;
            value[i] = (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
        }
    }
    return value[test_rand(s) >> 48];
}

const char *test_tmp(const char *name)
{
    static char ring[8][256];
    static int at;
    char *buf = ring[at++ % 8];
    mkdir(tmp_folder, 0777);
    snprintf(buf, sizeof ring[0], "%s/%s", tmp_folder, name);
    return buf;
}

/* NAME: claims whose name contains it, or a suite; -x NAME: not these; -t: says what takes a second or more. Without any NAME all. */
static bool chosen(const struct test_suite *s, const struct test *t, int argc, char **argv)
{
    bool all = true, wanted = false;
    for (int a = 1; a < argc; a++) {
        bool out = !strcmp(argv[a], "-x") && a + 1 < argc;
        if (!strcmp(argv[a], "-t")) continue;
        a += out;
        bool is = strstr(t->name, argv[a]) || !strcmp(s->name, argv[a]);
        if (out && is) return false;
        if (!out) all = false, wanted |= is;
    }
    return all || wanted;
}

static double cpu_seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

/* Seconds of all threads that the claims of a suite took, each of a second or more by itself. */
static void run_suite(const struct test_suite *s, int argc, char **argv, bool times)
{
    double begun = cpu_seconds();
    for (int j = 0; j < s->n; j++) {
        const struct test *t = &s->tests[j];
        if (!chosen(s, t, argc, argv)) continue;
        double start = cpu_seconds();
        test_begin("%s", t->name);
        t->run();
        double spent = cpu_seconds() - start;
        if (times && spent >= 1.0) printf("%8.2f s  %s: %s\n", spent, s->name, t->name);
    }
    double all = cpu_seconds() - begun;
    if (times && all >= 1.0) printf("%8.2f s  %s\n", all, s->name);
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    snprintf(tmp_folder, sizeof tmp_folder, "%.*stmp", slash ? (int)(slash - argv[0]) + 1 : 0, argv[0]);
    bool times = false;
    for (int a = 1; a < argc; a++) times |= !strcmp(argv[a], "-t");
    for (int i = 0; i < ARRAY_LEN(suites); i++) run_suite(suites[i], argc, argv, times);
    finish();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

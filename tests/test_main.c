/* test_main - runs every suite, or the claims whose names contain one of the arguments; suites side by side with -j. */
#include "tests/test.h"
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The longest ones first, so that side by side none of them is left alone at the end. */
#define SUITES(X) \
    X(kernels_matmul) \
    X(engine) \
    X(train) \
    X(layers) \
    X(solve) \
    X(quant_compat) \
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
    X(kernels_vec) \
    X(latent) \
    X(lookup) \
    X(lora) \
    X(peft) \
    X(measure) \
    X(model) \
    X(model_hostile) \
    X(pool) \
    X(quant_basic) \
    X(quant_iq) \
    X(quant_search) \
    X(quant_level) \
    X(quantize) \
    X(recurrent) \
    X(rotate) \
    X(sampler) \
    X(session) \
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

struct options { char **words; int n, jobs; bool times; };

/* NAME: claims whose name contains it, or a suite; -x NAME: not these. Without any NAME all. */
static bool chosen(const struct test_suite *s, const struct test *t, const struct options *o)
{
    bool all = true, wanted = false;
    for (int a = 0; a < o->n; a++) {
        bool out = !strcmp(o->words[a], "-x") && a + 1 < o->n;
        a += out;
        bool is = strstr(t->name, o->words[a]) || !strcmp(s->name, o->words[a]);
        if (out && is) return false;
        if (!out) all = false, wanted |= is;
    }
    return all || wanted;
}

static double cpu_seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

/* With -t the seconds of all threads that the claims of a suite took, each of a second or more by itself. */
static void run_suite(const struct test_suite *s, const struct options *o)
{
    double begun = cpu_seconds();
    for (int j = 0; j < s->n; j++) {
        const struct test *t = &s->tests[j];
        if (!chosen(s, t, o)) continue;
        double start = cpu_seconds();
        test_begin("%s", t->name);
        t->run();
        double spent = cpu_seconds() - start;
        if (o->times && spent >= 1.0) printf("%8.2f s  %s: %s\n", spent, s->name, t->name);
    }
    finish();
    double all = cpu_seconds() - begun;
    if (o->times && all >= 1.0) printf("%8.2f s  %s\n", all, s->name);
}

/* ---- suites side by side: a process, a scratch folder and a file of output each ---- */

struct job { pid_t pid; const struct test_suite *suite; FILE *out; };
struct counts { int passed, failed; bool ended; }; /* of a suite, written by its process */

static void job_start(struct job *job, struct counts *counts, const struct options *o)
{
    *job = (struct job){ .suite = job->suite, .out = tmpfile() };
    fflush(stdout);
    if (!job->out || (job->pid = fork()) < 0) abort();
    if (job->pid) return;
    dup2(fileno(job->out), STDOUT_FILENO), dup2(fileno(job->out), STDERR_FILENO);
    passed = failed = 0;
    size_t at = strlen(tmp_folder);
    mkdir(tmp_folder, 0777);
    snprintf(tmp_folder + at, sizeof tmp_folder - at, "/%s", job->suite->name);
    run_suite(job->suite, o);
    *counts = (struct counts){ passed, failed, true };
    exit(0); /* not _exit: a sanitizer tells of leaks there */
}

/* What the process printed and counted; one that did not come to its end is a failure, also if something called exit(0). */
static void job_end(struct job *job, const struct counts *counts, int ended)
{
    char line[4096];
    rewind(job->out);
    while (fgets(line, sizeof line, job->out)) fputs(line, stdout);
    fclose(job->out);
    passed += counts->passed, failed += counts->failed;
    if (counts->ended && WIFEXITED(ended) && WEXITSTATUS(ended) == 0) return;
    failed++;
    if (WIFSIGNALED(ended)) printf("FAIL %s: ended by signal %d\n", job->suite->name, WTERMSIG(ended));
    else printf("FAIL %s: ended with status %d\n", job->suite->name, WEXITSTATUS(ended));
}

static void run_side_by_side(const struct options *o)
{
    struct job jobs[ARRAY_LEN(suites)];
    struct counts *counts = mmap(NULL, sizeof *counts * ARRAY_LEN(suites), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) abort();
    for (int next = 0, running = 0; next < ARRAY_LEN(suites) || running > 0;) {
        if (next < ARRAY_LEN(suites) && running < o->jobs) {
            jobs[next].suite = suites[next];
            job_start(&jobs[next], &counts[next], o);
            next++, running++;
            continue;
        }
        int ended = 0, i = 0;
        pid_t pid = wait(&ended);
        if (pid < 0) abort();
        while (jobs[i].pid != pid) i++;
        job_end(&jobs[i], &counts[i], ended);
        jobs[i].pid = 0, running--;
    }
    munmap(counts, sizeof *counts * ARRAY_LEN(suites));
}

/* test [-j PROCESSES] [-t] [NAME | -x NAME]... */
int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    snprintf(tmp_folder, sizeof tmp_folder, "%.*stmp", slash ? (int)(slash - argv[0]) + 1 : 0, argv[0]);
    struct options o = { .words = argv, .jobs = 1 };
    for (int a = 1; a < argc; a++) {
        if (!strcmp(argv[a], "-t")) o.times = true;
        else if (!strcmp(argv[a], "-j") && a + 1 < argc) o.jobs = atoi(argv[++a]);
        else o.words[o.n++] = argv[a];
    }
    if (o.jobs > 1) run_side_by_side(&o);
    for (int i = 0; o.jobs <= 1 && i < ARRAY_LEN(suites); i++) run_suite(suites[i], &o);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

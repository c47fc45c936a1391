/* speed - one loaded model that runs tests on request, for speed.py: the same protocol as its peers. Reads lines, answers each with seconds.
 *     pp N DEPTH    one prompt of N tokens after DEPTH      tg N DEPTH    N single tokens after DEPTH      batch B N    N steps of B sequences
 * speed MODEL THREADS N_CTX SEQUENCES [ISA] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "ggml-like/kernels/kernels.h"
#include "src/engine.h"

enum { SEQUENCES_MAX = 64 };

struct served {
    struct engine *engine;
    struct session *session[SEQUENCES_MAX];
    int32_t *token;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(status st, const struct err *e)
{
    if (st == OK) return;
    fprintf(stderr, "speed: %s\n", e->text);
    exit(1);
}

static void feed(struct served *x, int64_t n, int64_t each)
{
    struct err e = { 0 };
    int64_t at = session_pos(x->session[0]);
    for (int64_t i = 0, m; i < n; i += m) {
        m = min_i64(each, engine_pass_rows(x->engine, n - i));
        struct segment seg = { x->session[0], x->token + at + i, m, i + m == n || each == 1 ? m - 1 : m };
        must(engine_forward(x->engine, &seg, 1, NULL, NULL, &e), &e);
    }
}

/* DEPTH tokens in the session: those of an earlier test are kept. */
static void stand_at(struct served *x, int64_t depth)
{
    struct err e = { 0 };
    must(session_truncate(x->session[0], min_i64(depth, session_pos(x->session[0])), &e), &e);
    feed(x, depth - session_pos(x->session[0]), engine_n_batch(x->engine));
}

static double run_batch(struct served *x, int sequences, int64_t steps)
{
    struct err e = { 0 };
    struct segment seg[SEQUENCES_MAX];
    for (int s = 0; s < sequences; s++) must(session_truncate(x->session[s], 0, &e), &e);
    double start = now();
    for (int64_t i = 0; i < steps; i++) {
        for (int s = 0; s < sequences; s++) seg[s] = (struct segment){ x->session[s], x->token + s + i, 1, 0 };
        must(engine_forward(x->engine, seg, sequences, NULL, NULL, &e), &e);
    }
    return now() - start;
}

int main(int argc, char **argv)
{
    struct served x = { 0 };
    struct err e = { 0 };
    struct model *m;
    if (argc < 5) return 2;
    int threads = atoi(argv[2]), sequences = atoi(argv[4]);
    int64_t n_ctx = atoll(argv[3]);
    if (sequences < 1 || sequences > SEQUENCES_MAX || n_ctx < 1) return 2;
    must(model_open(&m, argv[1], &(struct model_options){ 0 }, &e), &e);
    must(engine_open(&x.engine, m, &(struct engine_options){ .n_threads = threads, .isa = argc > 5 ? argv[5] : NULL }, &e), &e);
    for (int s = 0; s < sequences; s++)
        must(session_open(&x.session[s], x.engine, &(struct session_options){ .n_ctx = s ? 512 : n_ctx }, &e), &e);
    x.token = malloc((size_t)(n_ctx + SEQUENCES_MAX) * sizeof *x.token);
    if (!x.token) return 1;
    for (int64_t i = 0; i < n_ctx + SEQUENCES_MAX; i++) x.token[i] = (int32_t)((i * 7919 + 1000) % 30000);
    printf("%s\n", engine_kernels(x.engine)->name);
    fflush(stdout);
    char line[128], kind[16];
    long long a, b;
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%15s %lld %lld", kind, &a, &b) == 3) {
        double seconds;
        if (!strcmp(kind, "batch")) {
            seconds = run_batch(&x, (int)min_i64(a, sequences), b);
        } else {
            stand_at(&x, b);
            double start = now();
            feed(&x, a, strcmp(kind, "pp") ? 1 : engine_n_batch(x.engine));
            seconds = now() - start;
        }
        printf("%.9f\n", seconds);
        fflush(stdout);
    }
    return 0;
}

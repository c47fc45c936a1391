/* sample_cost - what sampling one token costs, us, best of many: 151,936 logits of a normal distribution with a deviation of 3. Prints JSON. */
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "src/cuanto.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N = 151936, ROUNDS = 400 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static double uniform(uint64_t *x)
{
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return ((double)(*x >> 11) + 0.5) * 0x1p-53;
}

static double cost(const struct kernels *k, const struct sampler_options *o, const float *logits, float *work)
{
    struct sampler *s;
    struct err e = { 0 };
    double best = INFINITY;
    if (sampler_open(&s, o, N, k, &e) != OK) exit(1);
    for (int i = 0; i < ROUNDS; i++) {
        int32_t id;
        memcpy(work, logits, N * sizeof *work);
        double t0 = now_us();
        if (sampler_sample(s, work, &id, &e) != OK) exit(1);
        sampler_accept(s, id);
        best = fmin(best, now_us() - t0);
    }
    sampler_close(s);
    return best;
}

typedef void set_fn(struct sampler_options *o);
static void as_is(struct sampler_options *o) { (void)o; }
static void greedy(struct sampler_options *o) { o->temperature = 0; }
static void no_top_k(struct sampler_options *o) { o->top_k = 0; }
static void penalties(struct sampler_options *o) { o->repeat_penalty = 1.1f; }
static void min_p_only(struct sampler_options *o) { o->top_k = 0, o->top_p = 1; }
static void top_p_only(struct sampler_options *o) { o->top_k = 0, o->min_p = 0; }
static void temperature_only(struct sampler_options *o) { o->top_k = 0, o->top_p = 1, o->min_p = 0; }
static void dynamic(struct sampler_options *o) { o->dynatemp_range = 0.5f; }
static void xtc(struct sampler_options *o) { o->xtc_probability = 0.5f; }
static void mirostat(struct sampler_options *o) { o->mirostat = 2; }
static const struct { const char *name; set_fn *set; } rows[] = {
    { "default", as_is }, { "greedy", greedy }, { "no top-k", no_top_k }, { "penalties", penalties }, { "min-p only", min_p_only },
    { "top-p only", top_p_only }, { "temperature only", temperature_only }, { "dynamic temperature", dynamic }, { "xtc", xtc }, { "mirostat 2", mirostat },
};

int main(int argc, char **argv)
{
    struct cpu_info cpu;
    struct kernels k;
    struct err e = { 0 };
    float *logits = malloc(N * sizeof *logits), *work = malloc(N * sizeof *work);
    uint64_t seed = 1;
    cpu_detect(&cpu);
    if (argc > 1 && isa_features(argv[1], &cpu, &cpu.features, &e) != OK) return 1;
    kernels_init(&k, cpu.features);
    for (int i = 0; i < N; i++) logits[i] = (float)(3 * sqrt(-2 * log(uniform(&seed))) * cos(6.283185307179586 * uniform(&seed)));
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++) {
        struct sampler_options o;
        sampler_defaults(&o);
        rows[i].set(&o);
        printf("%s\"%s\": %.1f", i ? ", " : "{", rows[i].name, cost(&k, &o, logits, work));
    }
    printf(", \"isa\": \"%s\"}\n", k.name);
    free(logits), free(work);
    return 0;
}

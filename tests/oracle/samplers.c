/* samplers - the sampler as a filter, for comparisons with other engines:  samplers MODEL
 * Input: frames {u32 n_vocab, u32 n_history, 22 doubles (options, below), n_vocab floats, n_history int32}. Output per frame: {u32 n, n int32 ids,
 * n floats}: what the draw would be made from. MODEL: its tokenizer resolves the usual breakers of DRY when option 18 is not 0. */
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "src/cuanto.h"
#include <stdio.h>
#include <stdlib.h>

static int fail(const char *text)
{
    fprintf(stderr, "samplers: %s\n", text);
    return 1;
}

static struct sampler_options options_of(const double v[22], const struct dry_breakers *b)
{
    struct sampler_options o;
    sampler_defaults(&o);
    o.temperature = (float)v[0], o.top_k = (int64_t)v[1], o.top_p = (float)v[2], o.min_p = (float)v[3];
    o.repeat_penalty = (float)v[4], o.presence_penalty = (float)v[5], o.frequency_penalty = (float)v[6], o.repeat_last = (int64_t)v[7];
    o.top_n_sigma = (float)v[8], o.typical_p = (float)v[9], o.xtc_probability = (float)v[10], o.xtc_threshold = (float)v[11];
    o.dynatemp_range = (float)v[12], o.dynatemp_exponent = (float)v[13];
    o.dry_multiplier = (float)v[14], o.dry_base = (float)v[15], o.dry_allowed_length = (int64_t)v[16], o.dry_last = (int64_t)v[17];
    o.breakers = v[18] != 0 ? b : NULL;
    o.mirostat = (int64_t)v[19], o.mirostat_tau = (float)v[20], o.mirostat_eta = (float)v[21];
    return o;
}

static int frame(const struct kernels *k, const struct dry_breakers *b, const uint32_t head[2])
{
    int64_t n = head[0], got = 0;
    double v[22];
    float *x = malloc(n * sizeof *x), *probs = malloc(n * sizeof *probs);
    int32_t *ids = malloc(n * sizeof *ids), id;
    struct sampler *s = NULL;
    struct err e = { 0 };
    if (!x || !probs || !ids || fread(v, sizeof v, 1, stdin) != 1 || fread(x, sizeof *x, n, stdin) != (size_t)n) return fail("short input");
    struct sampler_options o = options_of(v, b);
    if (sampler_open(&s, &o, n, k, &e) != OK) return fail(e.text);
    for (uint32_t i = 0; i < head[1]; i++) {
        if (fread(&id, sizeof id, 1, stdin) != 1) return fail("short input");
        sampler_accept(s, id);
    }
    if (sampler_distribution(s, x, ids, probs, &got, &e) != OK) return fail(e.text);
    uint32_t n_out = (uint32_t)got;
    fwrite(&n_out, sizeof n_out, 1, stdout);
    fwrite(ids, sizeof *ids, got, stdout);
    fwrite(probs, sizeof *probs, got, stdout);
    fflush(stdout);
    sampler_close(s);
    free(x), free(probs), free(ids);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const usual[] = { "\n", ":", "\"", "*" };
    struct model *m;
    struct dry_breakers *b;
    struct err e = { 0 };
    struct cpu_info cpu;
    struct kernels k;
    uint32_t head[2];
    if (argc != 2) return fail("usage: samplers MODEL");
    cpu_detect(&cpu);
    kernels_init(&k, cpu.features);
    if (model_open(&m, argv[1], &(struct model_options){ 0 }, &e) != OK) return fail(e.text);
    if (dry_breakers_open(&b, model_tokenizer(m), usual, ARRAY_LEN(usual), &e) != OK) return fail(e.text);
    int rc = 0;
    while (rc == 0 && fread(head, sizeof head, 1, stdin) == 1) rc = frame(&k, b, head);
    dry_breakers_close(b);
    model_close(m);
    return rc;
}

/* test_kernels_vec - every ISA level this CPU offers, the vector and attention slots, against formulas in double.
 * Outputs start as canaries (a NaN pattern), so an element that is not written, or written outside, shows. */
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "tests/guard.h"
#include "tests/test.h"
#include <float.h>

enum { MAX_N = 4099, GUARD = 16 };
#define CANARY 0x7fc5a5a5u

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Walks the levels; each is a claim of its own. */
static void each_level(const char *claim, void (*run)(const struct kernels *k))
{
    struct cpu_info cpu;
    cpu_detect(&cpu);
    for (int i = 0; i < isa_count; i++) {
        uint64_t features;
        if (isa_features(isa_table[i].name, &cpu, &features, NULL) != OK) continue;
        struct kernels k;
        kernels_init(&k, features);
        test_begin("%s [%s]", claim, isa_table[i].name);
        run(&k);
    }
}
#define LEVEL_TEST(name)                                                                                                                   \
    static void name##_level(const struct kernels *k);                                                                                     \
    TEST(name) { each_level(#name, name##_level); }                                                                                        \
    static void name##_level(const struct kernels *k)

/* Lengths 0..67, then some longer and ragged ones; -1 ends */
static int64_t next_len(int64_t n)
{
    static const int64_t longer[] = { 67, 100, 255, 512, 513, 1000, MAX_N };
    if (n < 67) return n + 1;
    for (int i = 0; i + 1 < ARRAY_LEN(longer); i++)
        if (longer[i] == n) return longer[i + 1];
    return -1;
}

/* An output of n floats, `shift` floats off alignment, between canaries */
struct out {
    float *mem, *y;
    int64_t n;
};
static float out_mem[MAX_N + 2 * GUARD + 16];
static struct out out_open(int64_t n, int shift)
{
    struct out o = { out_mem, out_mem + GUARD + shift, n };
    for (int i = 0; i < ARRAY_LEN(out_mem); i++) out_mem[i] = from_bits(CANARY);
    return o;
}
static void out_check(const struct out *o, const char *what)
{
    for (int64_t i = 0; i < ARRAY_LEN(out_mem); i++) {
        bool inside = o->mem + i >= o->y && o->mem + i < o->y + o->n, canary = bits_of(o->mem[i]) == CANARY;
        if (inside == canary) {
            test_fail(__FILE__, __LINE__, "%s n %d: element %d %s", what, (int)o->n, (int)(o->mem + i - o->y),
                      inside ? "not written" : "overwritten");
            return;
        }
    }
}

static float in_a[MAX_N + 16], in_b[MAX_N + 16];
/* kind 0: normal; 1: magnitudes from denormal to 1e18; 2: as 1 with zeros, +-1e30 and denormals strewn in */
static void fill(float *x, int64_t n, int kind, uint64_t *seed)
{
    static const float odd[] = { 0.0f, -0.0f, 1e30f, -1e30f, 1e-42f, -1e-45f, 1.17549435e-38f, -88.7f, 88.8f, -103.0f };
    for (int64_t i = 0; i < n; i++) {
        x[i] = kind == 0 ? test_randn(seed) : test_randf(seed) * exp2f((float)(test_rand(seed) % 180) - 120.0f);
        if (kind == 2 && test_rand(seed) % 4 == 0) x[i] = odd[test_rand(seed) % ARRAY_LEN(odd)];
    }
}

/* ---- element-wise slots ---- */

enum { OP_ADD, OP_MUL, OP_SCALE, OP_AXPY, OP_SILU, OP_GELU, OP_CAP, OP_SILU_GRAD, OP_GELU_GRAD, OP_NORM, OP_NORM_ONES, OPS };
static const char *const op_name[OPS] = { "add", "mul", "scale", "axpy", "silu_mul", "gelu_mul", "softcap", "silu_grad", "gelu_grad", "rms_norm",
                                          "rms_norm ones" };
static const float S = 0.37f, CAP = 30.0f, EPS = 1e-6f;

static void call(const struct kernels *k, int op, float *y, const float *a, const float *b, int64_t n)
{
    switch (op) {
    case OP_ADD:
        k->add(y, a, b, n);
        break;
    case OP_MUL:
        k->mul(y, a, b, n);
        break;
    case OP_SCALE:
        k->scale(y, a, S, n);
        break;
    case OP_AXPY:
        k->axpy(y, a, S, n);
        break;
    case OP_SILU:
        k->silu_mul(y, a, b, n);
        break;
    case OP_GELU:
        k->gelu_mul(y, a, b, n);
        break;
    case OP_CAP:
        k->softcap(y, a, CAP, n);
        break;
    case OP_SILU_GRAD:
        k->silu_grad(y, a, b, n);
        break;
    case OP_GELU_GRAD:
        k->gelu_grad(y, a, b, n);
        break;
    case OP_NORM:
        k->rms_norm(y, a, b, n, EPS);
        break;
    case OP_NORM_ONES:
        k->rms_norm(y, a, NULL, n, EPS);
        break;
    }
}

static double silu(double g) { return g / (1.0 + exp(-g)); }
static double gelu(double g) { return g / (1.0 + exp(-1.5957691216057308 * (g + 0.044715 * g * g * g))); }

static double silu_slope(double g) { return 1 / (1 + exp(-g)) * (1 + g / (1 + exp(g))); }
static double gelu_slope(double g)
{
    double a = 1.5957691216057308, z = a * (g + 0.044715 * g * g * g);
    return fabs(g) > 100 ? g > 0 : 1 / (1 + exp(-z)) * (1 + g / (1 + exp(z)) * a * (1 + 3 * 0.044715 * g * g));
}

/* the exact value and the allowed error; y0 = what y held before (axpy) */
static double exact(int op, double a, double b, double y0, double norm, double *tol)
{
    double tiny = 3e-37 * fmax(1.0, fabs(b)), v = 0.0;
    switch (op) {
    case OP_ADD:
        *tol = 0.0;
        return (double)((float)a + (float)b);
    case OP_MUL:
        *tol = 0.0;
        return (double)((float)a * (float)b);
    case OP_SCALE:
        *tol = 0.0;
        return (double)((float)a * S);
    case OP_AXPY:
        *tol = 1.3e-7 * (fabs(y0) + fabs(a * (double)S)) + 1e-44;
        return y0 + a * (double)S;
    case OP_SILU:
        v = silu(a) * b;
        *tol = 1e-5 * fabs(v) + tiny;
        return v;
    case OP_GELU:
        v = gelu(a) * b;
        *tol = fmax(1e-5 * fabs(v), 1e-6 * fmin(1.0, fabs(b))) + tiny;
        return v;
    case OP_SILU_GRAD:
    case OP_GELU_GRAD:
        v = (op == OP_SILU_GRAD ? fabs(a) > 800 ? a > 0 : silu_slope(a) : gelu_slope(a)) * b;
        *tol = fmax(1e-5 * fabs(v), 1e-6 * fabs(b)) + tiny;
        return v;
    case OP_CAP:
        v = (double)CAP * tanh(a / (double)CAP);
        *tol = 1e-6 * fabs(v) + tiny;
        return v;
    case OP_NORM:
        v = a * norm * b;
        break;
    case OP_NORM_ONES:
        v = a * norm;
        break;
    }
    *tol = 1e-5 * fabs(v) + tiny;
    return v;
}

static double norm_of(const float *x, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return 1.0 / sqrt(sum / (double)(n > 0 ? n : 1) + (double)EPS);
}

static void check_op(const struct kernels *k, int op, int64_t n, int kind, uint64_t *seed)
{
    int shift = (int)(test_rand(seed) % 8);
    float *a = in_a + test_rand(seed) % 8, *b = in_b + test_rand(seed) % 8;
    fill(a, n, kind, seed);
    fill(b, n, kind == 2 ? 0 : kind, seed);
    struct out o = out_open(n, shift);
    if (op == OP_AXPY) memcpy(o.y, b, (size_t)n * sizeof *b);
    call(k, op, o.y, a, b, n);
    out_check(&o, op_name[op]);
    double norm = norm_of(a, n);
    for (int64_t i = 0; i < n; i++) {
        double tol, want = exact(op, (double)a[i], (double)b[i], (double)b[i], norm, &tol), got = (double)o.y[i];
        if (fabs(want) > 3.3e38) continue; /* overflow is allowed to round either way at the edge */
        CHECK_MSG(fabs(got - want) <= tol, "%s n %d i %d: %.9g of (%g, %g), not %.9g", op_name[op], (int)n, (int)i, got, (double)a[i],
                  (double)b[i], want);
    }
    float first[MAX_N];
    memcpy(first, o.y, (size_t)n * sizeof *first);
    if (op != OP_AXPY) {
        memcpy(o.y, a, (size_t)n * sizeof *a);
        call(k, op, o.y, o.y, b, n);
        CHECK_MSG(!memcmp(first, o.y, (size_t)n * sizeof *first), "%s n %d: in place differs", op_name[op], (int)n);
    }
}

LEVEL_TEST(vec_elementwise_ops_match_double)
{
    uint64_t seed = 1;
    for (int op = 0; op < OPS; op++)
        for (int64_t n = 0; n >= 0; n = next_len(n))
            for (int kind = 0; kind < 3; kind++) check_op(k, op, n, kind, &seed);
}

/* Every step-th float pattern goes through `op`; reports the worst excess over the contract. */
LEVEL_TEST(vec_gates_hold_their_bound_for_all_floats)
{
    for (int op = OP_SILU; op <= OP_CAP; op++) {
        double worst = 0.0;
        float at = 0.0f;
        for (uint64_t u = 0; u < 1ull << 32;) {
            float x[512], ones[512], y[512];
            for (int i = 0; i < 512; i++, u += 8209) x[i] = from_bits((uint32_t)u), ones[i] = 1.0f;
            call(k, op, y, x, ones, 512);
            for (int i = 0; i < 512; i++) {
                if (isnan(x[i])) CHECK(isnan(y[i]));
                if (!(fabsf(x[i]) <= 1e30f)) continue;
                double tol, want = exact(op, (double)x[i], 1.0, 0.0, 0.0, &tol), over = fabs((double)y[i] - want) / tol;
                if (!(over <= worst)) worst = over, at = x[i];
            }
        }
        CHECK_MSG(worst <= 1.0, "%s: error is %g times the bound at %.9g", op_name[op], worst, (double)at);
    }
}

/* ---- reductions ---- */

LEVEL_TEST(vec_dot_is_accurate_and_depends_on_n_only)
{
    uint64_t seed = 2;
    CHECK(k->dot(in_a, in_b, 0) == 0.0f);
    for (int64_t n = 1; n >= 0; n = next_len(n)) {
        fill(in_a, n, 0, &seed);
        fill(in_b, n, 0, &seed);
        double sum = 0.0, mag = 0.0;
        for (int64_t i = 0; i < n; i++) sum += (double)in_a[i] * (double)in_b[i], mag += fabs((double)in_a[i] * (double)in_b[i]);
        float d = k->dot(in_a, in_b, n);
        CHECK_NEAR(d, sum, 3e-6 * mag);
        memmove(in_a + 3, in_a, (size_t)n * sizeof *in_a);
        CHECK(bits_of(k->dot(in_a + 3, in_b, n)) == bits_of(d));
    }
}

LEVEL_TEST(vec_max_finds_the_first_maximum_and_ignores_nan)
{
    uint64_t seed = 3;
    int64_t at = 7;
    CHECK(k->max(in_a, 0, &at) == -INFINITY && at == -1);
    for (int64_t n = 1; n >= 0; n = next_len(n)) {
        for (int trial = 0; trial < 6; trial++) {
            float *x = in_a + trial;
            for (int64_t i = 0; i < n; i++) {
                x[i] = trial < 2 ? test_randn(&seed) : (float)(int)(test_rand(&seed) % 4); /* many ties */
                if (trial == 3 && test_rand(&seed) % 2) x[i] = NAN;
                if (trial == 4) x[i] = test_rand(&seed) % 2 ? NAN : -INFINITY;
                if (trial == 5) x[i] = NAN;
            }
            if (trial == 0) x[n - 1] = 9.0f; /* the last element of a ragged tail counts */
            if (trial == 1) x[n / 2] = 9.0f;
            float best = -INFINITY;
            int64_t where = -1;
            for (int64_t i = 0; i < n; i++)
                if (x[i] > best || (where < 0 && x[i] == best)) best = x[i], where = i;
            float got = k->max(x, n, &at);
            CHECK_MSG(got == best && at == where, "n %d: max %g at %d, expected %g at %d", (int)n, (double)got, (int)at, (double)best,
                      (int)where);
            CHECK(k->max(x, n, NULL) == best);
        }
    }
}

LEVEL_TEST(vec_exp_is_exact_to_2e7_over_its_range)
{
    double worst = 0.0;
    float at = 0.0f;
    for (double from = -110.0; from < 95.0;) {
        float x[512], y[512];
        for (int i = 0; i < 512; i++, from += 0.00037) x[i] = (float)from;
        k->exp_sum(y, x, 0.0f, 512);
        for (int i = 0; i < 512; i++) {
            double want = exp((double)x[i]), error = fabs((double)y[i] - want) / want;
            if (x[i] < -104.0f) CHECK(y[i] == 0.0f);
            else if (x[i] < -80.0f) CHECK((double)y[i] >= 0.0 && (double)y[i] <= want * 1.000001 + 1e-45);
            else if (x[i] <= 88.72f && !(error <= worst)) worst = error, at = x[i];
            else if (x[i] > 88.73f) CHECK(y[i] == INFINITY);
        }
    }
    CHECK_MSG(worst <= 2e-7, "relative error %g at %.9g", worst, (double)at);
    float x[6] = { NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 0.0f }, y[6];
    k->exp_sum(y, x, 0.0f, 6);
    CHECK(isnan(y[0]) && y[1] == INFINITY && y[2] == 0.0f && y[3] == INFINITY && y[4] == 0.0f && y[5] == 1.0f);
    CHECK(isnan(k->exp_sum(NULL, x, 0.0f, 1)));
    for (uint32_t u = 0x7f800001; u < 0x80000000u - 70000; u += 69997) { /* NaN of any payload */
        float nan8[9] = { 0 };
        nan8[2] = from_bits(u), nan8[8] = from_bits(u | 0x80000000u);
        CHECK(isnan(k->exp_sum(NULL, nan8, 0.0f, 8)) && isnan(k->exp_sum(NULL, nan8 + 8, 0.0f, 1)));
    }
}

LEVEL_TEST(vec_exp_sum_adds_its_terms_for_all_lengths)
{
    uint64_t seed = 4;
    CHECK(k->exp_sum(NULL, in_a, 0.0f, 0) == 0.0);
    for (int64_t n = 1; n >= 0; n = next_len(n)) {
        fill(in_a, n, 0, &seed);
        struct out o = out_open(n, (int)(n % 8));
        double sum = k->exp_sum(o.y, in_a, 1.5f, n), terms = 0.0;
        out_check(&o, "exp_sum");
        for (int64_t i = 0; i < n; i++) {
            terms += (double)o.y[i];
            CHECK_NEAR(o.y[i], exp((double)(in_a[i] - 1.5f)), 3e-7 * (double)o.y[i]);
        }
        CHECK_NEAR(sum, terms, 2e-7 * terms);
        CHECK(k->exp_sum(NULL, in_a, 1.5f, n) == sum);
        CHECK(k->exp_sum(in_a, in_a, 1.5f, n) == sum && !memcmp(in_a, o.y, (size_t)n * sizeof(float)));
    }
}

LEVEL_TEST(vec_weights_are_exponentials_with_the_same_bits_at_all_levels)
{
    static const float ts[] = { 1.0f, 0.8f, 0.01f, 1e6f };
    struct kernels plain;
    uint64_t seed = 14;
    kernels_init_ref(&plain);
    CHECK(k->weights(NULL, in_a, 0, 0.0f, 1.0f) == 0.0);
    for (int64_t n = 1; n >= 0; n = next_len(n)) {
        float t = ts[n % 4], max = 9.5f;
        for (int64_t i = 0; i < n; i++) in_a[i] = fminf(max, max - 12.0f * fabsf(test_randn(&seed)) * (i % 5 == 0 ? 8.0f : t));
        if (n > 3) in_a[n / 2] = NAN, in_a[n / 3] = -INFINITY, in_a[n - 1] = max;
        struct out o = out_open(n, (int)(n % 8));
        double sum = k->weights(o.y, in_a, n, max, t), terms = 0.0;
        out_check(&o, "weights");
        CHECK(plain.weights(in_b, in_a, n, max, t) == sum && !memcmp(in_b, o.y, (size_t)n * sizeof(float)));
        for (int64_t i = 0; i < n; i++) {
            float a = (in_a[i] - max) / t;
            if (a > -87.0f) CHECK_NEAR(o.y[i], exp((double)a), 3e-7 * exp((double)a));
            else CHECK(o.y[i] == 0.0f);
            terms += (double)o.y[i];
        }
        CHECK_NEAR(sum, terms, 3e-7 * terms);
        CHECK(k->weights(NULL, in_a, n, max, t) == sum);
        CHECK(k->weights(in_a, in_a, n, max, t) == sum && !memcmp(in_a, o.y, (size_t)n * sizeof(float)));
    }
}

LEVEL_TEST(vec_rope_rotates_pairs_of_both_orders)
{
    uint64_t seed = 5;
    for (int n_rot = 0; n_rot <= 256; n_rot += n_rot < 70 ? 2 : 62)
        for (int neox = 0; neox < 2; neox++) {
            float cs[256], x[256];
            for (int i = 0; i < n_rot; i += 2) {
                double t = (double)test_randf(&seed) * 100.0;
                cs[i] = (float)cos(t), cs[i + 1] = (float)sin(t);
            }
            fill(x, n_rot, 0, &seed);
            struct out o = out_open(n_rot, n_rot / 2 % 8);
            memcpy(o.y, x, (size_t)n_rot * sizeof *x);
            k->rope(o.y, cs, n_rot, neox);
            out_check(&o, "rope");
            for (int i = 0; i < n_rot / 2; i++) {
                int p = neox ? i : 2 * i, q = neox ? i + n_rot / 2 : 2 * i + 1;
                double c = (double)cs[2 * i], s = (double)cs[2 * i + 1], a = (double)x[p], b = (double)x[q],
                       tol = 2e-7 * (fabs(a) + fabs(b));
                CHECK_NEAR(o.y[p], a * c - b * s, tol);
                CHECK_NEAR(o.y[q], a * s + b * c, tol);
            }
        }
}

/* ---- conversions ---- */

static bool same_float(float a, float b) { return isnan(a) ? isnan(b) : bits_of(a) == bits_of(b); }

LEVEL_TEST(vec_to_f32_equals_the_scalar_for_all_halves)
{
    static const int ids[] = { GGUF_F16, GGUF_BF16 };
    for (int t = 0; t < ARRAY_LEN(ids); t++)
        for (uint32_t base = 0; base < 65536; base += 256) {
            uint8_t raw[513];
            float y[256];
            for (uint32_t i = 0; i < 256; i++) memcpy(raw + 1 + 2 * i, (uint16_t[]){ (uint16_t)(base + i) }, 2);
            k->to_f32(dtype_by_id(ids[t]), raw + 1, y, 256);
            for (uint32_t i = 0; i < 256; i++)
                CHECK(same_float(y[i], t ? bf16_to_f32((uint16_t)(base + i)) : f16_to_f32((uint16_t)(base + i))));
        }
}

LEVEL_TEST(vec_from_f32_rounds_halves_as_the_scalar_does)
{
    static const int ids[] = { GGUF_F16, GGUF_BF16 };
    for (int t = 0; t < ARRAY_LEN(ids); t++)
        for (uint64_t u = 0; u < 1ull << 32;) {
            float x[512];
            uint16_t y[512];
            /* odd multiples walk all exponents; every other sample sits on or beside a tie */
            for (int i = 0; i < 512; i++, u += 32771)
                x[i] = from_bits((uint32_t)(i & 1 ? u : (u & ~0x1fffull) + 0x1000 + (uint64_t)(i / 2 % 3) - 1));
            k->from_f32(dtype_by_id(ids[t]), x, y, 512);
            for (int i = 0; i < 512; i++) {
                uint16_t want = t ? f32_to_bf16(x[i]) : f32_to_f16(x[i]);
                bool ok = isnan(x[i]) ? isnan(t ? bf16_to_f32(y[i]) : f16_to_f32(y[i])) : y[i] == want;
                CHECK_MSG(ok, "%08x gives %04x, expected %04x", bits_of(x[i]), y[i], want);
            }
        }
}

LEVEL_TEST(vec_conversions_of_all_lengths_stay_inside)
{
    static const int ids[] = { GGUF_F32, GGUF_F16, GGUF_BF16, GGUF_Q8_0, GGUF_Q4_0 };
    uint64_t seed = 6;
    for (int t = 0; t < ARRAY_LEN(ids); t++) {
        const struct dtype *d = dtype_by_id(ids[t]);
        for (int64_t n = 0; n >= 0; n = next_len(n)) {
            if (n % d->block_len) continue;
            size_t bytes = dtype_row_bytes(d, n);
            uint8_t got[MAX_N * 4 + 64], want[MAX_N * 4 + 64];
            memset(got, 0xa5, sizeof got);
            memset(want, 0xa5, sizeof want);
            fill(in_a + 1, n, 0, &seed);
            k->from_f32(d, in_a + 1, got + 3, n);
            dtype_from_f32(d, in_a + 1, want + 3, n);
            CHECK_MSG(!memcmp(got, want, sizeof got), "from_f32 %s n %d", d->name, (int)n);
            struct out o = out_open(n, (int)(n % 8));
            k->to_f32(d, want + 3, o.y, n);
            out_check(&o, d->name);
            dtype_to_f32(d, want + 3, in_b, n);
            CHECK_MSG(!memcmp(o.y, in_b, (size_t)n * sizeof(float)), "to_f32 %s n %d", d->name, (int)n);
            CHECK(got[3 + bytes] == 0xa5);
        }
    }
}

LEVEL_TEST(vec_q8_0_packs_ties_and_extremes_as_the_format_does)
{
    const struct dtype *d = dtype_by_id(GGUF_Q8_0);
    uint64_t seed = 7;
    for (int trial = 0; trial < 4000; trial++) {
        float x[32];
        uint8_t got[34], want[34];
        fill(x, 32, trial % 3, &seed);
        if (trial % 4 == 0) { /* maximum 127: every half is a tie */
            for (int i = 0; i < 32; i++) x[i] = (float)((int)(test_rand(&seed) % 509) - 254) * 0.5f;
            x[trial % 32] = 127.0f;
            x[(trial + 1) % 32] = 0.49999997f;
        }
        if (trial % 16 == 1) x[trial % 31] = (float[]){ NAN, INFINITY, -INFINITY, 1e-40f }[trial / 16 % 4];
        if (trial % 16 == 2)
            for (int i = 0; i < 32; i++) x[i] = trial & 16 ? 0.0f : test_randf(&seed) * 1e-41f;
        k->from_f32(d, x, got, 32);
        dtype_from_f32(d, x, want, 32);
        CHECK_MSG(!memcmp(got, want, sizeof got), "trial %d", trial);
        k->to_f32(d, want, x, 32);
        float y[32];
        dtype_to_f32(d, want, y, 32);
        for (int i = 0; i < 32; i++) CHECK(same_float(x[i], y[i]));
    }
}

/* ---- attention ---- */

struct attn_case {
    int head_dim, head_dim_v, n_q, keys, heads, window; /* rows = tokens x heads, causal at the end of `keys` */
    int k_type, v_type;
    float cap;
    bool sink;
    float gain;  /* of the logits */
    float slope; /* ALiBi */
    bool many;
};
static const struct attn_case attn_cases[] = {
    { 64, 64, 64, 200, 4, 0, GGUF_F16, GGUF_F16, 0, false, 1 },   { 128, 128, 64, 333, 1, 0, GGUF_F16, GGUF_F16, 0, false, 1 },
    { 96, 80, 13, 130, 1, 0, GGUF_F32, GGUF_F16, 0, false, 3 },   { 80, 96, 7, 64, 7, 0, GGUF_F16, GGUF_F32, 50, false, 9 },
    { 64, 64, 64, 300, 8, 70, GGUF_F16, GGUF_F16, 0, true, 1 },   { 256, 256, 16, 150, 2, 33, GGUF_F16, GGUF_F16, 20, true, 2 },
    { 128, 128, 1, 700, 1, 0, GGUF_F16, GGUF_F16, 0, false, 1 },  { 64, 64, 2, 65, 2, 0, GGUF_F32, GGUF_F32, 0, false, 1 },
    { 64, 64, 3, 1, 3, 0, GGUF_F16, GGUF_F16, 0, false, 1 },      { 8, 8, 5, 17, 1, 0, GGUF_F32, GGUF_F32, 0, false, 1 },
    { 72, 72, 9, 90, 3, 10, GGUF_F16, GGUF_F16, 0, false, 1 },    { 24, 40, 12, 129, 4, 0, GGUF_F16, GGUF_F16, 0, false, 1 },
    { 512, 512, 33, 70, 1, 0, GGUF_F16, GGUF_F16, 0, false, 1 },  { 64, 64, 14, 260, 7, 0, GGUF_Q8_0, GGUF_Q8_0, 0, false, 1 },
    { 128, 96, 4, 100, 4, 40, GGUF_Q8_0, GGUF_F16, 0, true, 1 },  { 64, 64, 8, 128, 8, 0, GGUF_F16, GGUF_F16, 0, false, 3000 },
    { 192, 128, 6, 127, 6, 0, GGUF_F16, GGUF_Q8_0, 0, false, 1 }, { 64, 64, 14, 1100, 2, 0, GGUF_F16, GGUF_F16, 0, true, 1 },
    { 64, 96, 5, 130, 5, 0, GGUF_Q4_0, GGUF_BF16, 0, false, 1 }, { 64, 64, 64, 64, 1, 1, GGUF_F16, GGUF_F16, 0, false, 1 },
    { 64, 64, 64, 300, 1, 0, GGUF_Q8_0, GGUF_Q8_0, 0, false, 1 }, { 256, 256, 20, 150, 4, 33, GGUF_Q8_0, GGUF_Q8_0, 20, true, 2 },
    { 96, 32, 1, 700, 1, 0, GGUF_Q8_0, GGUF_Q4_0, 0, false, 1 },  { 32, 96, 33, 129, 3, 40, GGUF_Q4_0, GGUF_Q8_0, 0, true, 1 },
    { 128, 128, 7, 1, 7, 0, GGUF_Q4_0, GGUF_Q4_0, 0, false, 1 },  { 512, 512, 9, 130, 3, 0, GGUF_Q8_0, GGUF_Q8_0, 0, false, 1 },
    { 64, 64, 64, 64, 1, 1, GGUF_Q8_0, GGUF_Q8_0, 0, false, 1 },  { 64, 64, 24, 200, 8, 0, GGUF_Q4_0, GGUF_Q4_0, 0, true, 9, 0.02f },
};

/* Everything one case needs; K and V are exactly keys rows, what is read or written ends at pages that cannot be touched. */
struct attn_data {
    struct attn_args a;
    float *q, *out, *kf, *vf, sink[ATTN_ROWS], slope[ATTN_ROWS];
    uint8_t *k, *v, *scratch;
    size_t scratch_bytes;
    int32_t lo[ATTN_ROWS], hi[ATTN_ROWS];
};

/* rows of a cache in the given type (exactly sized), and what they mean as f32 */
static uint8_t *cache_rows(const struct dtype *t, int keys, int dim, float **means, uint64_t *seed)
{
    size_t row = dtype_row_bytes(t, dim);
    uint8_t *p = guard_new(row * (size_t)keys, 1);
    float x[512];
    *means = malloc(sizeof(float) * (size_t)(keys * dim));
    if (!*means) abort();
    for (int j = 0; j < keys; j++) {
        fill(x, dim, 0, seed);
        dtype_from_f32(t, x, p + (size_t)j * row, dim);
        dtype_to_f32(t, p + (size_t)j * row, *means + j * dim, dim);
    }
    return p;
}

/* As a pass of few rows, and as one of many. */
enum { ATTN_CASES = 2 * ARRAY_LEN(attn_cases) };
static struct attn_case attn_case_of(int number)
{
    struct attn_case c = attn_cases[number / 2];
    c.many = number % 2;
    return c;
}

static void attn_data_init(struct attn_data *d, const struct attn_case *c, uint64_t *seed)
{
    int n_queries = c->n_q * (c->head_dim + 3) - 3;
    *d = (struct attn_data){ .q = guard_new(sizeof(float) * (size_t)n_queries, sizeof(float)),
                             .out = guard_new(sizeof(float) * (size_t)(c->n_q * (c->head_dim_v + 5)), sizeof(float)) };
    const struct dtype *kt = dtype_by_id(c->k_type), *vt = dtype_by_id(c->v_type);
    d->k = cache_rows(kt, c->keys, c->head_dim, &d->kf, seed);
    d->v = cache_rows(vt, c->keys, c->head_dim_v, &d->vf, seed);
    fill(d->q, n_queries, 0, seed);
    int tokens = (c->n_q + c->heads - 1) / c->heads;
    for (int r = 0; r < c->n_q; r++) {
        int hi = c->keys - (tokens - 1) + r / c->heads;
        d->hi[r] = hi > 0 ? hi : 0;
        d->lo[r] = c->window && d->hi[r] > c->window ? d->hi[r] - c->window : 0;
        d->sink[r] = test_randn(seed) * 2.0f;
        d->slope[r] = c->slope * (float)(1 + r % c->heads);
    }
    d->scratch_bytes = attn_scratch_bytes(c->head_dim, c->head_dim_v);
    d->scratch = guard_new(d->scratch_bytes, 64);
    d->a = (struct attn_args){
        .head_dim = c->head_dim,
        .head_dim_v = c->head_dim_v,
        .n_q = c->n_q,
        .q = d->q,
        .out = d->out,
        .q_stride = c->head_dim + 3,
        .out_stride = c->head_dim_v + 5,
        .k_type = kt,
        .v_type = vt,
        .k = d->k,
        .v = d->v,
        .k_row_bytes = dtype_row_bytes(kt, c->head_dim),
        .v_row_bytes = dtype_row_bytes(vt, c->head_dim_v),
        .lo = d->lo,
        .hi = d->hi,
        .scale = c->gain / sqrtf((float)c->head_dim),
        .cap = c->cap,
        .many = c->many,
        .sink = c->sink ? d->sink : NULL,
        .slope = c->slope > 0.0f ? d->slope : NULL,
    };
}

static void attn_data_free(struct attn_data *d)
{
    guard_free(d->q), guard_free(d->out), guard_free(d->k), guard_free(d->v), guard_free(d->scratch);
    free(d->kf), free(d->vf);
}

static void attn_run(const struct kernels *k, struct attn_data *d, const struct attn_args *a)
{
    memset(d->scratch, 0xff, d->scratch_bytes); /* NaN everywhere */
    k->attn(k, a, d->scratch);
}

static bool has_codes(const struct dtype *t) { return t->gguf_id == GGUF_Q8_0 || t->gguf_id == GGUF_Q4_0; }

/* The step to which levels may round the elements of a query */
static double query_step(const struct attn_args *a, int r)
{
    float top = 0;
    for (int i = 0; i < a->head_dim; i++)
        if (fabsf(a->q[r * a->q_stride + i]) > top) top = fabsf(a->q[r * a->q_stride + i]);
    return has_codes(a->k_type) ? (double)top / 32767 : 0;
}

struct exact { double biggest, share; }; /* max |v|, the largest weight of a key */

/* softmax(q k) v of one row in double, q in multiples of `step` if that is not 0 */
static struct exact attn_exact(const struct attn_data *d, int r, double step, double *out)
{
    const struct attn_args *a = &d->a;
    double top = a->sink ? (double)a->sink[r] : -INFINITY, sum, biggest = 0.0, largest = 0.0, *s = malloc(sizeof *s * (size_t)(d->hi[r] + 1));
    if (!s) abort();
    for (int j = d->lo[r]; j < d->hi[r]; j++) {
        double dot = 0.0;
        for (int i = 0; i < a->head_dim; i++) {
            double q = (double)a->q[r * a->q_stride + i];
            dot += (step > 0 ? step * rint(q / step) : q) * (double)d->kf[j * a->head_dim + i];
        }
        s[j] = (double)a->scale * dot;
        if (a->cap > 0.0f) s[j] = (double)a->cap * tanh(s[j] / (double)a->cap);
        if (a->slope) s[j] += (double)a->slope[r] * (double)(j + 1 - d->hi[r]);
        top = fmax(top, s[j]);
    }
    sum = a->sink ? exp((double)a->sink[r] - top) : 0.0;
    for (int i = 0; i < a->head_dim_v; i++) out[i] = 0.0;
    for (int j = d->lo[r]; j < d->hi[r]; j++) {
        double p = exp(s[j] - top);
        sum += p, largest = fmax(largest, p);
        for (int i = 0; i < a->head_dim_v; i++) {
            double v = (double)d->vf[j * a->head_dim_v + i];
            out[i] += p * v;
            biggest = fmax(biggest, fabs(v));
        }
    }
    for (int i = 0; i < a->head_dim_v; i++) out[i] = sum > 0.0 ? out[i] / sum : 0.0;
    free(s);
    return (struct exact){ biggest, sum > 0.0 ? largest / sum : 0.0 };
}

LEVEL_TEST(attn_matches_double_softmax)
{
    uint64_t seed = 8;
    for (int c = 0; c < ATTN_CASES; c++) {
        struct attn_data d;
        struct attn_case one = attn_case_of(c);
        attn_data_init(&d, &one, &seed);
        int64_t n_out = d.a.n_q * d.a.out_stride;
        for (int64_t i = 0; i < n_out; i++) d.out[i] = from_bits(CANARY);
        attn_run(k, &d, &d.a);
        /* a logit of size g carries a rounding error of g * 2^-24 and more into its exponential */
        double bound = 2e-5 * fmax(1.0, (double)attn_cases[c / 2].gain / 4.0), worst = 0.0, squares = 0.0;
        for (int r = 0; r < d.a.n_q; r++) {
            double want[512], rounded[512];
            struct exact e = attn_exact(&d, r, 0, want);
            attn_exact(&d, r, query_step(&d.a, r), rounded);
            /* values of codes: half a step of the largest weight a key, which add up at random */
            double more = has_codes(d.a.v_type) ? 4 * e.share / 32767 : 0;
            const float *row = d.out + r * d.a.out_stride;
            for (int i = 0; i < d.a.head_dim_v; i++) {
                double error = fmin(fabs((double)row[i] - want[i]), fabs((double)row[i] - rounded[i])) / fmax(e.biggest, 1e-30);
                worst = fmax(worst, isnan(row[i]) ? INFINITY : error - more), squares += error * error;
            }
            for (int i = d.a.head_dim_v; i < d.a.out_stride; i++) CHECK(bits_of(row[i]) == CANARY);
        }
        double rms = sqrt(squares / (d.a.n_q * d.a.head_dim_v));
        CHECK_MSG(rms <= bound, "case %d: rms error %g of max |v|, allowed %g", c, rms, bound);
        CHECK_MSG(worst <= bound, "case %d: error %g of max |v|, allowed %g", c, worst, bound);
        attn_data_free(&d);
    }
}

static void attn_rows(const struct kernels *k, struct attn_data *d, int first, int n, float *out)
{
    struct attn_args a = d->a;
    a.n_q = n;
    a.q += first * a.q_stride;
    a.lo += first;
    a.hi += first;
    a.out = out;
    a.out_stride = a.head_dim_v;
    if (a.sink) a.sink += first;
    if (a.slope) a.slope += first;
    attn_run(k, d, &a);
}

LEVEL_TEST(attn_row_is_bit_equal_alone_and_in_any_stack)
{
    uint64_t seed = 9;
    for (int c = 0; c < ATTN_CASES; c++) {
        struct attn_data d;
        struct attn_case one = attn_case_of(c);
        attn_data_init(&d, &one, &seed);
        size_t row = (size_t)d.a.head_dim_v;
        float *all = malloc(sizeof *all * row * ATTN_ROWS), *part = malloc(sizeof *part * row * ATTN_ROWS);
        if (!all || !part) abort();
        attn_rows(k, &d, 0, d.a.n_q, all);
        for (int n = 1; n < d.a.n_q; n = n < 16 ? n + 1 : n + 9)
            for (int first = 0; first < d.a.n_q; first += n + d.a.n_q / 7) {
                int m = n < d.a.n_q - first ? n : d.a.n_q - first;
                attn_rows(k, &d, first, m, part);
                CHECK_MSG(!memcmp(part, all + (size_t)first * row, sizeof *all * row * (size_t)m), "case %d: rows %d..%d differ", c, first,
                          first + m);
            }
        free(all), free(part);
        attn_data_free(&d);
    }
}

/* Each part of each row alone, then merged: the bits of one call over all keys. */
LEVEL_TEST(attn_merged_from_parts_has_the_same_bits)
{
    static const struct attn_case cases[] = {
        { 64, 64, 9, 1300, 3, 0, GGUF_F16, GGUF_F16, 0, true, 1, 0 },   { 64, 96, 4, 1537, 2, 700, GGUF_F16, GGUF_F16, 0, false, 1, 0 },
        { 40, 24, 6, 9000, 6, 0, GGUF_Q8_0, GGUF_F16, 0, false, 1, 0 }, { 32, 32, 2, 1100, 2, 0, GGUF_F32, GGUF_F32, 20, false, 3, 0.01f },
        { 64, 64, 20, 530, 1, 0, GGUF_F16, GGUF_F16, 0, false, 1, 0 },  { 64, 64, 3, 100, 3, 0, GGUF_F16, GGUF_F16, 0, true, 1, 0 },
        { 64, 64, 9, 1300, 3, 0, GGUF_Q8_0, GGUF_Q8_0, 0, true, 1, 0 }, { 64, 96, 4, 1537, 2, 700, GGUF_Q4_0, GGUF_Q4_0, 0, false, 1, 0 },
    };
    uint64_t seed = 11;
    for (int c = 0; c < 2 * ARRAY_LEN(cases); c++) {
        struct attn_case one = cases[c / 2];
        one.many = c % 2;
        if (one.k_type == GGUF_Q8_0) one.head_dim = 64;
        struct attn_data d;
        attn_data_init(&d, &one, &seed);
        attn_run(k, &d, &d.a);
        int64_t floats = attn_part_floats(one.head_dim_v);
        float *part = guard_new(sizeof *part * (size_t)(ATTN_PARTS * floats), 64), *out = malloc(sizeof *out * (size_t)one.head_dim_v);
        if (!out) abort();
        for (int r = 0; r < one.n_q; r++) {
            struct attn_args a = d.a;
            a.n_q = 1;
            a.q += r * a.q_stride, a.lo += r, a.hi += r;
            if (a.sink) a.sink += r;
            if (a.slope) a.slope += r;
            int64_t keys = attn_part_keys(*a.hi), n = 0;
            CHECK(keys % ATTN_PART == 0 && *a.hi <= keys * ATTN_PARTS);
            for (int64_t first = *a.lo / keys * keys; first < *a.hi; first += keys, n++) {
                a.first = first, a.last = first + keys;
                a.part = part + n * floats;
                attn_run(k, &d, &a);
            }
            a.part = part, a.part_step = floats, a.out = out;
            memset(d.scratch, 0xff, d.scratch_bytes);
            k->attn_merge(&a, d.scratch);
            CHECK_MSG(!memcmp(out, d.out + r * d.a.out_stride, sizeof *out * (size_t)one.head_dim_v), "case %d: row %d of %d parts differs", c, r, (int)n);
        }
        guard_free(part), free(out);
        attn_data_free(&d);
    }
}

LEVEL_TEST(attn_ranges_may_be_empty_single_or_far_apart)
{
    uint64_t seed = 10;
    struct attn_case c = { 64, 64, 9, 400, 1, 0, GGUF_F16, GGUF_F16, 0, false, 1 };
    static const int32_t lo[9] = { 0, 5, 399, 70, 64, 0, 128, 300, 63 }, hi[9] = { 0, 5, 400, 71, 128, 400, 60, 310, 65 };
    for (int n = 1; n <= 9; n += 4) {
        c.n_q = n, c.many = n == 9;
        struct attn_data d;
        attn_data_init(&d, &c, &seed);
        memcpy(d.lo, lo, sizeof lo);
        memcpy(d.hi, hi, sizeof hi);
        attn_run(k, &d, &d.a);
        for (int r = 0; r < n; r++) {
            double want[64];
            if (lo[r] >= hi[r]) memset(want, 0, sizeof want);
            else attn_exact(&d, r, 0, want);
            for (int i = 0; i < 64; i++) CHECK_NEAR(d.out[r * d.a.out_stride + i], want[i], 8e-5);
        }
        attn_data_free(&d);
    }
}

/* A cache is never cleared: rows outside a row's range may hold NaN, infinity, or what rounding makes infinity, needed by a neighbour or not. */
static void check_outside(const struct kernels *k, int n, int type, bool many, uint64_t *seed)
{
    struct attn_case c = { 64, 64, n, 256, 1, 0, type, type, 0, false, 1, .many = many };
    struct attn_data d;
    attn_data_init(&d, &c, seed);
    size_t row_bytes = d.a.k_row_bytes, block = (size_t)d.a.v_type->block_bytes;
    float large = 3.4e38f;
    const void *value = type == GGUF_F32 ? (const void *)&large : "\0\x7c"; /* infinity: of a number or a scale */
    float before[64], *row0 = d.out;
    for (int r = 0; r < n; r++) d.lo[r] = 71, d.hi[r] = 149;
    attn_run(k, &d, &d.a);
    memcpy(before, row0, sizeof before);
    for (int r = 1; r < n; r++) d.lo[r] = 70, d.hi[r] = 150;
    for (size_t j = 0; j < 256; j++) {
        if (j >= 71 && j < 149) continue;
        memset(d.k + j * row_bytes, 0xff, row_bytes); /* NaN */
        for (size_t i = 0; i < row_bytes; i += block) memcpy(d.v + j * row_bytes + i, value, type == GGUF_F32 ? 4 : 2);
    }
    attn_run(k, &d, &d.a);
    CHECK(!memcmp(before, row0, sizeof before));
    for (int r = 1; r < n; r++) CHECK(!isfinite(d.out[r * d.a.out_stride]));
    attn_data_free(&d);
}

LEVEL_TEST(attn_keys_outside_a_row_cannot_reach_it)
{
    static const int types[] = { GGUF_F32, GGUF_F16, GGUF_Q8_0, GGUF_Q4_0 };
    uint64_t seed = 11;
    for (int t = 0; t < ARRAY_LEN(types); t++)
        for (int n = 2; n <= 32; n *= 4) check_outside(k, n, types[t], false, &seed), check_outside(k, n, types[t], true, &seed);
}

/* The last that BF16 holds, one that it rounds down, one that it rounds to infinity: for those who see it a value like others. */
LEVEL_TEST(attn_weighs_values_up_to_the_largest_float)
{
    static const float large[] = { 0x1.fep127f, 0x1.fefffep127f, -FLT_MAX };
    enum { N = 16, KEYS = 130, AT = 120, DIM = 64, COLUMN = 5 };
    uint64_t seed = 14;
    for (int i = 0; i < 2 * ARRAY_LEN(large); i++) {
        struct attn_case c = { DIM, DIM, N, KEYS, 1, 0, GGUF_F32, GGUF_F32, 0, false, 1, .many = i % 2 };
        struct attn_data d;
        attn_data_init(&d, &c, &seed);
        d.vf[AT * DIM + COLUMN] = large[i / 2];
        memcpy(d.v + AT * d.a.v_row_bytes, d.vf + AT * DIM, d.a.v_row_bytes);
        attn_run(k, &d, &d.a);
        for (int r = 0; r < N; r++) {
            double want[DIM];
            attn_exact(&d, r, 0, want);
            for (int j = 0; j < DIM; j++) CHECK_NEAR((double)d.out[r * d.a.out_stride + j], want[j], 8e-5 * fmax(1.0, fabs(want[j])));
        }
        attn_data_free(&d);
    }
}

/* Queries that are not numbers, and infinite values, where rows are quantized: seen by those alone whom they concern. */
LEVEL_TEST(attn_codes_pass_on_what_is_not_finite)
{
    uint64_t seed = 13;
    for (int n = 2; n <= 16; n += 14) {
        struct attn_case c = { 64, 64, n, 100, n, 0, GGUF_Q8_0, GGUF_Q8_0, 0, false, 1 };
        struct attn_data d;
        attn_data_init(&d, &c, &seed);
        for (int i = 0; i < 2; i++) {
            float bad = i ? NAN : INFINITY, old = d.q[5];
            d.q[5] = bad;
            attn_run(k, &d, &d.a);
            CHECK(isnan(d.out[0]));
            for (int r = 1; r < n; r++) CHECK(isfinite(d.out[r * d.a.out_stride]));
            d.q[5] = old;
        }
        for (int i = 0; i < 64; i++) d.q[i] = i == 5 ? 2e38f : 0.0f; /* finite: the key that is largest there takes all */
        int first = 0;
        for (int j = 1; j < d.hi[0]; j++)
            if (d.kf[j * 64 + 5] > d.kf[first * 64 + 5]) first = j;
        attn_run(k, &d, &d.a);
        for (int i = 0; i < 64; i++) CHECK(fabsf(d.out[i] - d.vf[first * 64 + i]) < 1e-3f * (1.0f + fabsf(d.vf[first * 64 + i])));
        memcpy(d.v + 10 * d.a.v_row_bytes, "\0\x7c", 2); /* the first block of one value */
        attn_run(k, &d, &d.a);
        for (int r = 0; r < n; r++) CHECK(!isfinite(d.out[r * d.a.out_stride]) && isfinite(d.out[r * d.a.out_stride + 32]));
        attn_data_free(&d);
    }
}

LEVEL_TEST(attn_extreme_logits_stay_defined)
{
    uint64_t seed = 12;
    for (int n = 1; n <= 16; n += 15) {
        struct attn_case c = { 64, 64, n, 100, n, 0, GGUF_F32, GGUF_F32, 0, false, 1, .many = n > 1 };
        struct attn_data d;
        attn_data_init(&d, &c, &seed);
        float *q = d.q, *key = (float *)(void *)d.k;
        for (int i = 0; i < 64; i++) q[i] = 1e20f; /* logits of +-1e38 and infinity; all -inf must give zeros, not NaN */
        for (int j = 0; j < 6400; j++) key[j] = -1e20f;
        attn_run(k, &d, &d.a);
        for (int i = 0; i < 64; i++) CHECK(d.out[i] == 0.0f);
        for (int j = 0; j < 64; j++) key[50 * 64 + j] = 0.0f; /* one finite logit takes all */
        attn_run(k, &d, &d.a);
        for (int i = 0; i < 64; i++) CHECK_NEAR(d.out[i], d.vf[50 * 64 + i], c.many ? 0x1p-16f * fabsf(d.vf[50 * 64 + i]) : 0);
        q[0] = NAN;
        attn_run(k, &d, &d.a);
        CHECK(isnan(d.out[0]));
        for (int r = 1; r < n; r++) CHECK(isfinite(d.out[r * d.a.out_stride]));
        attn_data_free(&d);
    }
}

/* ---- recurrence ---- */

LEVEL_TEST(recur_matches_double_and_stays_in_its_columns)
{
    enum { ROWS = 33, COLS = 150, STRIDE = COLS + 5 };
    static float s[ROWS * STRIDE], before[ROWS * STRIDE], kq[2][ROWS], v[COLS], y[COLS + 1];
    uint64_t seed = 11;
    for (int64_t rows = 1; rows <= ROWS; rows += 16)
        for (int64_t cols = 0; cols <= COLS; cols += cols < 70 ? 1 : 40)
            for (int plain = 0; plain < 2; plain++) {
                fill(before, ROWS * STRIDE, 0, &seed), fill(kq[0], ROWS, 0, &seed), fill(kq[1], ROWS, 0, &seed), fill(v, COLS, 0, &seed);
                memcpy(s, before, sizeof s);
                y[cols] = 7;
                struct recur_args a = { .s = s, .y = y, .k = kq[0], .q = kq[1], .v = v, .rows = rows, .cols = cols, .stride = STRIDE,
                                        .decay = 0.7f, .beta = 0.4f, .scale = 1.3f, .plain = plain };
                k->recur(&a);
                CHECK(y[cols] == 7);
                for (int64_t c = 0; c < cols; c++) {
                    double seen = 0, sum = 0, size = fabs((double)v[c]), total = 0;
                    for (int64_t i = 0; i < rows && !plain; i++) {
                        seen += 0.7f * (double)before[i * STRIDE + c] * kq[0][i];
                        size += fabs((double)before[i * STRIDE + c] * kq[0][i]);
                    }
                    for (int64_t i = 0; i < rows; i++) {
                        double want = 0.7f * (double)before[i * STRIDE + c] + kq[0][i] * 0.4f * (v[c] - seen);
                        double tol = 1e-6 * (fabs((double)before[i * STRIDE + c]) + fabs((double)kq[0][i]) * size);
                        CHECK_NEAR((double)s[i * STRIDE + c], want, tol);
                        sum += want * kq[1][i];
                        total += (fabs(want) + tol * 1e6) * fabs((double)kq[1][i]);
                    }
                    CHECK_NEAR((double)y[c], 1.3f * sum, 3e-6 * total);
                }
                for (int64_t i = 0; i < ROWS * STRIDE; i++)
                    if (i / STRIDE >= rows || i % STRIDE >= cols) CHECK(s[i] == before[i]);
            }
}

SUITE(kernels_vec, T(recur_matches_double_and_stays_in_its_columns), T(vec_elementwise_ops_match_double), T(vec_gates_hold_their_bound_for_all_floats),
      T(vec_dot_is_accurate_and_depends_on_n_only), T(vec_max_finds_the_first_maximum_and_ignores_nan),
      T(vec_exp_is_exact_to_2e7_over_its_range), T(vec_exp_sum_adds_its_terms_for_all_lengths), T(vec_rope_rotates_pairs_of_both_orders),
      T(vec_weights_are_exponentials_with_the_same_bits_at_all_levels),
      T(vec_to_f32_equals_the_scalar_for_all_halves), T(vec_from_f32_rounds_halves_as_the_scalar_does),
      T(vec_conversions_of_all_lengths_stay_inside), T(vec_q8_0_packs_ties_and_extremes_as_the_format_does), T(attn_matches_double_softmax),
      T(attn_row_is_bit_equal_alone_and_in_any_stack), T(attn_merged_from_parts_has_the_same_bits),
      T(attn_ranges_may_be_empty_single_or_far_apart),
      T(attn_keys_outside_a_row_cannot_reach_it), T(attn_weighs_values_up_to_the_largest_float),
      T(attn_codes_pass_on_what_is_not_finite), T(attn_extreme_logits_stay_defined));

/* test_experts - mixtures of experts, matrices of single heads and layer norms against plain formulas in double precision: every way to
 * choose, for one row, for few and for many, on one thread and on several. */
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/ops.h"
#include "tests/test.h"

enum { ROWS_MAX = 70, OPS_MAX = 32 };

static void fill(float *x, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) x[i] = test_randf(&seed);
}

static val input(struct plan *p, int64_t ne0, int64_t ne1, float *data)
{
    val v = plan_input(p, ne0, ne1);
    plan_bind(p, v, data);
    return v;
}

/* Runs what `record` writes for `rows` rows; the result's floats to y. Scratch is filled with NaN before. */
static void run(val (*record)(struct plan *, void *, int64_t rows), void *ctx, int64_t rows, int threads, float *y)
{
    struct cpu_info cpu;
    struct kernels k;
    struct pool *pool = NULL;
    struct plan p;
    struct plan_share share[8];
    cpu_detect(&cpu);
    kernels_init(&k, cpu.features);
    CHECK(pool_open(&pool, threads, NULL) == OK);
    plan_init(&p, &k);
    plan_reset(&p, rows, rows, ROWS_MAX);
    CHECK(plan_reserve(&p, PLAN_CHUNK, NULL) == OK);
    val out = record(&p, ctx, rows);
    plan_keep(&p, out);
    CHECK(plan_finish(&p, NULL) == OK && p.n_op <= OPS_MAX);
    size_t scratch = plan_thread_bytes(64), bytes = (p.bytes + 63) & ~(size_t)63;
    uint8_t *thread_base = aligned_alloc(64, scratch * (size_t)threads), *base = aligned_alloc(64, bytes);
    memset(base, 0xff, bytes);
    struct batch b = { .n_rows = rows, .n_out = rows };
    struct plan_exec x = {
        .plan = &p, .pool = pool, .batch = &b, .base = base, .thread_base = thread_base, .thread_bytes = scratch, .share = share
    };
    plan_run(&x);
    memcpy(y, base + p.val[out].offset, (size_t)(p.val[out].t.ne[0] * rows) * sizeof *y);
    free(base);
    free(thread_base);
    plan_free(&p);
    pool_close(pool);
}

/* ---- the choice ---- */

enum { EXPERTS = 12, USED = 3, WIDTH = 32, OUT = 20 };

struct mixture {
    struct route_spec spec;
    bool biased;
    float logits[ROWS_MAX * EXPERTS], bias[EXPERTS], x[ROWS_MAX * WIDTH], w[EXPERTS * OUT * WIDTH];
};

static val record_mixture(struct plan *p, void *ctx, int64_t rows)
{
    struct mixture *m = ctx;
    struct tensor w = { 0 };
    tensor_shape(&w, dtype_by_id(GGUF_F32), WIDTH, OUT, EXPERTS, 1);
    w.data = m->w;
    val route = op_route(p, input(p, EXPERTS, rows, m->logits), m->biased ? input(p, EXPERTS, 1, m->bias) : VAL_NONE, &m->spec);
    return op_moe_sum(p, op_moe_matmul(p, plan_weight(p, &w), input(p, WIDTH, rows, m->x), route), route);
}

/* How many of x[0, n) come before x[i]: larger ones, and equal ones further left. */
static int place_of(const double *x, int n, int i)
{
    int before = 0;
    for (int j = 0; j < n; j++) before += x[j] > x[i] || (x[j] == x[i] && j < i);
    return before;
}

static void plain_scores(const struct route_spec *s, const float *logits, double *score)
{
    double sum = 0;
    for (int e = 0; e < EXPERTS; e++) sum += exp((double)logits[e]);
    for (int e = 0; e < EXPERTS; e++)
        score[e] = s->func == ROUTE_SOFTMAX   ? exp((double)logits[e]) / sum
                   : s->func == ROUTE_SIGMOID ? 1 / (1 + exp(-(double)logits[e]))
                                              : (double)logits[e];
}

/* SparseMixer: the best; its weight among those near it; then the same without it. */
static void plain_sparse_mixer(const float *logits, double *weight)
{
    double x[EXPERTS];
    for (int e = 0; e < EXPERTS; e++) x[e] = (double)logits[e], weight[e] = 0;
    for (int i = 0; i < USED; i++) {
        int best = 0;
        double sum = 0;
        for (int e = 0; e < EXPERTS; e++)
            if (x[e] > x[best]) best = e;
        for (int e = 0; e < EXPERTS; e++)
            if ((x[best] - (double)logits[e]) / fmax(fabs((double)logits[e]), x[best]) <= 0.02) sum += exp(x[e] - x[best]);
        weight[best] = 1 / sum;
        x[best] = -INFINITY;
    }
}

/* Weights of all experts for one row, 0 for those not chosen. */
static void plain_choice(const struct mixture *m, const float *logits, double *weight)
{
    const struct route_spec *s = &m->spec;
    double score[EXPERTS], rank[EXPERTS], group[EXPERTS], sum = 0;
    int len = s->n_group > 1 ? EXPERTS / s->n_group : EXPERTS;
    if (s->func == ROUTE_SPARSE_MIXER) {
        plain_sparse_mixer(logits, weight);
        return;
    }
    plain_scores(s, logits, score);
    for (int e = 0; e < EXPERTS; e++) rank[e] = score[e] + (m->biased ? (double)m->bias[e] : 0);
    for (int g = 0; g < EXPERTS / len; g++) {
        group[g] = 0;
        for (int e = 0; e < len; e++) group[g] += place_of(rank + g * len, len, e) < (s->best_one ? 1 : 2) ? rank[g * len + e] : 0;
    }
    for (int e = 0; e < EXPERTS && s->n_group > 1; e++)
        if (place_of(group, EXPERTS / len, e / len) >= s->n_group_used) rank[e] = -1e9;
    for (int e = 0; e < EXPERTS; e++) {
        weight[e] = place_of(rank, EXPERTS, e) >= USED ? 0 : s->func == ROUTE_SOFTMAX_CHOSEN ? exp(score[e]) : score[e];
        sum += weight[e];
    }
    for (int e = 0; e < EXPERTS; e++)
        weight[e] *= (s->norm || s->func == ROUTE_SOFTMAX_CHOSEN ? 1 / sum : 1) * (s->scale > 0 ? (double)s->scale : 1);
}

static double mixture_error(const struct mixture *m, int64_t rows, const float *y)
{
    double worst = 0;
    for (int64_t r = 0; r < rows; r++) {
        double weight[EXPERTS];
        plain_choice(m, m->logits + r * EXPERTS, weight);
        for (int c = 0; c < OUT; c++) {
            double want = 0;
            for (int e = 0; e < EXPERTS; e++)
                for (int k = 0; k < WIDTH; k++) want += weight[e] * (double)m->w[(e * OUT + c) * WIDTH + k] * (double)m->x[r * WIDTH + k];
            worst = fmax(worst, fabs(want - (double)y[r * OUT + c]));
        }
    }
    return worst;
}

TEST(experts_are_chosen_and_weighed_as_written)
{
    static const struct {
        const char *name;
        struct route_spec spec;
        bool biased;
    } ways[] = {
        { "softmax", { EXPERTS, USED, 0, 0, ROUTE_SOFTMAX, false, false, 0 }, false },
        { "softmax_scaled", { EXPERTS, USED, 1, 1, ROUTE_SOFTMAX, false, false, 2.5f }, false },
        { "softmax_normalised", { EXPERTS, USED, 0, 0, ROUTE_SOFTMAX, true, false, 0 }, false },
        { "softmax_of_the_chosen", { EXPERTS, USED, 0, 0, ROUTE_SOFTMAX_CHOSEN, false, false, 0 }, false },
        { "sigmoid_with_bias", { EXPERTS, USED, 0, 0, ROUTE_SIGMOID, true, false, 1.5f }, true },
        { "one_after_the_other", { EXPERTS, USED, 0, 0, ROUTE_SPARSE_MIXER, false, false, 0 }, false },
        { "groups_by_two_best", { EXPERTS, USED, 4, 2, ROUTE_SIGMOID, true, false, 2.5f }, true },
        { "groups_by_best", { EXPERTS, USED, 4, 1, ROUTE_SOFTMAX, false, true, 16 }, false },
    };
    static struct mixture m;
    static float y[ROWS_MAX * OUT];
    for (int i = 0; i < ARRAY_LEN(ways); i++)
        for (int64_t rows = 1; rows <= ROWS_MAX; rows += rows == 1 ? 1 : 34) {
            test_begin("experts_are_chosen_and_weighed_as_written %s, %d rows", ways[i].name, (int)rows);
            m.spec = ways[i].spec;
            m.biased = ways[i].biased;
            fill(m.logits, ROWS_MAX * EXPERTS, 1);
            fill(m.bias, EXPERTS, 2);
            fill(m.x, ROWS_MAX * WIDTH, 3);
            fill(m.w, EXPERTS * OUT * WIDTH, 4);
            for (int e = 0; e < EXPERTS; e++) m.logits[e] = 0.25f; /* all the same: the first ones */
            run(record_mixture, &m, rows, 1 + (int)rows % 3, y);
            double scale = m.spec.scale > 0 ? (double)m.spec.scale : 1;
            CHECK_NEAR(mixture_error(&m, rows, y), 0, 2e-5 * scale);
        }
}

/* ---- matrices of single heads ---- */

enum { HEADS = 5, K = 64, N = 24 };

struct heads {
    const struct dtype *type;
    float w[HEADS * N * K], x[ROWS_MAX * HEADS * K];
    uint8_t data[HEADS * N * K * 4];
};

static val record_heads(struct plan *p, void *ctx, int64_t rows)
{
    struct heads *h = ctx;
    struct tensor w = { 0 };
    tensor_shape(&w, h->type, K, N, HEADS, 1);
    w.data = h->data;
    return op_head_matmul(p, plan_weight(p, &w), input(p, HEADS * K, rows, h->x));
}

static double heads_error(const struct heads *h, int64_t rows, const float *y)
{
    double worst = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < HEADS * N; i++) {
            double want = 0;
            for (int k = 0; k < K; k++) want += (double)h->w[i * K + k] * (double)h->x[(r * HEADS + i / N) * K + k];
            worst = fmax(worst, fabs(want - (double)y[r * HEADS * N + i]));
        }
    return worst;
}

TEST(each_head_meets_its_own_matrix)
{
    static const char *const types[] = { "f32", "f16", "q8_0", "q4_0" };
    static struct heads h;
    static float y[ROWS_MAX * HEADS * N], z[ROWS_MAX * HEADS * N];
    for (int i = 0; i < ARRAY_LEN(types); i++)
        for (int64_t rows = 1; rows <= ROWS_MAX; rows += rows == 1 ? 1 : 34) {
            test_begin("each_head_meets_its_own_matrix %s, %d rows", types[i], (int)rows);
            h.type = dtype_by_name(types[i]);
            fill(h.w, HEADS * N * K, 5);
            fill(h.x, ROWS_MAX * HEADS * K, 6);
            dtype_from_f32(h.type, h.w, h.data, HEADS * N * K);
            dtype_to_f32(h.type, h.data, h.w, HEADS * N * K);
            run(record_heads, &h, rows, 1, y);
            /* products of up to 1, K of them: activations of one row keep 15 bits, of several 8 */
            CHECK_NEAR(heads_error(&h, rows, y), 0, h.type->group_len == 0 ? 1e-5 : rows == 1 ? 1e-3 : 0.1);
            run(record_heads, &h, rows, 3, z);
            CHECK(!memcmp(y, z, (size_t)(rows * HEADS * N) * sizeof *y));
        }
}

/* ---- rows ---- */

static val record_join(struct plan *p, void *ctx, int64_t rows)
{
    float *x = ctx;
    return op_join(p, input(p, 3 * 4, rows, x), 4, input(p, 2, rows, x + ROWS_MAX * 12), 2);
}

TEST(one_run_is_joined_to_every_run)
{
    static float x[ROWS_MAX * 14], y[ROWS_MAX * 18];
    fill(x, ARRAY_LEN(x), 7);
    run(record_join, x, 5, 2, y);
    for (int r = 0; r < 5; r++)
        for (int i = 0; i < 18; i++) {
            float want = i % 6 < 4 ? x[r * 12 + i / 6 * 4 + i % 6] : x[ROWS_MAX * 12 + r * 2 + i % 6 - 4];
            CHECK(y[r * 18 + i] == want);
        }
}

enum { NORM_DIM = 24, NORM_RUNS = 3 };
struct norms {
    bool own, bias; /* each run has its own weights; there are biases */
    float x[9 * NORM_DIM * NORM_RUNS], w[NORM_DIM * NORM_RUNS], b[NORM_DIM * NORM_RUNS];
};

static val record_norm(struct plan *p, void *ctx, int64_t rows)
{
    struct norms *n = ctx;
    int64_t len = n->own ? NORM_DIM * NORM_RUNS : NORM_DIM;
    return op_layer_norm(p, input(p, NORM_DIM * NORM_RUNS, rows, n->x), input(p, len, 1, n->w), n->bias ? input(p, len, 1, n->b) : VAL_NONE,
                         1e-5f, NORM_DIM);
}

/* Around a mean of 1000, which would eat the digits of a one-pass variance. */
TEST(layer_norms_equal_their_formula)
{
    static struct norms n;
    static float y[9 * NORM_DIM * NORM_RUNS];
    for (int way = 0; way < 4; way++) {
        n.own = way & 1;
        n.bias = way & 2;
        fill(n.x, ARRAY_LEN(n.x), 8);
        fill(n.w, ARRAY_LEN(n.w), 9);
        fill(n.b, ARRAY_LEN(n.b), 10);
        for (int i = 0; i < ARRAY_LEN(n.x); i++) n.x[i] += 1000;
        run(record_norm, &n, 9, 2, y);
        double worst = 0;
        for (int r = 0; r < 9 * NORM_RUNS; r++) {
            double mean = 0, square = 0;
            for (int i = 0; i < NORM_DIM; i++) mean += (double)n.x[r * NORM_DIM + i] / NORM_DIM;
            for (int i = 0; i < NORM_DIM; i++) square += pow((double)n.x[r * NORM_DIM + i] - mean, 2) / NORM_DIM;
            for (int i = 0; i < NORM_DIM; i++) {
                int at = n.own ? r % NORM_RUNS * NORM_DIM + i : i;
                double want =
                    ((double)n.x[r * NORM_DIM + i] - mean) / sqrt(square + 1e-5) * (double)n.w[at] + (n.bias ? (double)n.b[at] : 0);
                worst = fmax(worst, fabs(want - (double)y[r * NORM_DIM + i]));
            }
        }
        CHECK_NEAR(worst, 0, 3e-4); /* the mean itself is rounded to float: 3e-5 before the division */
    }
}

/* One table of angles for all layers that turn alike, whatever stands between the members of their specs. */
TEST(rope_tables_are_shared_by_value)
{
    struct cpu_info cpu;
    struct kernels k;
    struct plan p;
    struct rope_spec s[2];
    cpu_detect(&cpu);
    kernels_init(&k, cpu.features);
    plan_init(&p, &k);
    plan_reset(&p, 1, 1, ROWS_MAX);
    CHECK(plan_reserve(&p, PLAN_CHUNK, NULL) == OK);
    for (int i = 0; i < 2; i++) {
        memset(&s[i], i ? 0xff : 0, sizeof s[i]);
        s[i].n_rot = 8, s[i].base = 1e4f, s[i].freq_scale = s[i].mscale = 1, s[i].factor = NULL;
        s[i].yarn_ext = s[i].yarn_low = s[i].yarn_high = 0;
    }
    val first = op_rope_table(&p, &s[0]);
    CHECK(op_rope_table(&p, &s[1]) == first);
    s[1].freq_scale = 0.5f;
    CHECK(op_rope_table(&p, &s[1]) != first);
    plan_free(&p);
}

/* A prompt's table of angles is work for all threads, one token's is not: nothing else tells, the op has no source. */
TEST(large_rope_tables_are_shared_out)
{
    struct cpu_info cpu;
    struct kernels k;
    struct plan p;
    struct rope_spec s = { .n_rot = 64, .base = 1e4f, .freq_scale = 1, .mscale = 1 };
    cpu_detect(&cpu);
    kernels_init(&k, cpu.features);
    plan_init(&p, &k);
    for (int64_t rows = 1; rows <= 64; rows += 63) {
        plan_reset(&p, rows, 1, 64);
        CHECK(plan_reserve(&p, PLAN_CHUNK, NULL) == OK);
        plan_keep(&p, op_rope_table(&p, &s));
        CHECK(plan_finish(&p, NULL) == OK);
        CHECK(p.n_op == 1 && p.op[0].solo == (rows == 1));
    }
    plan_free(&p);
}

SUITE(experts, T(rope_tables_are_shared_by_value), T(large_rope_tables_are_shared_out),
      T(experts_are_chosen_and_weighed_as_written), T(each_head_meets_its_own_matrix), T(one_run_is_joined_to_every_run),
      T(layer_norms_equal_their_formula));

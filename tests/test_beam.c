/* test_beam - beam search: scores are what the answers cost when read anew, two steps equal brute force. Agreement with transformers over whole
 * searches: tests/oracle/beams.py. */
#include "src/cuanto.h"
#include "tests/test.h"
#include "tests/tiny.h"

enum { PROMPT = 7, V = TINY_TOKENS };

struct rig {
    struct model *m;
    struct engine *en;
    struct session *s, *other;
    float logits[V]; /* behind the prompt */
};

static void open_rig(struct rig *r)
{
    struct err e = { 0 };
    const char *path = test_tmp("beam.gguf");
    const struct session_options o = { .n_ctx = 64, .kv_type = dtype_by_name("f32") };
    int32_t t[PROMPT] = { 5, 90, 17, 40, 41, 42, 43 };
    *r = (struct rig){ 0 };
    if (tiny_model(path, &(struct tiny_options){ .seed = 2 }, &e) != OK || model_open(&r->m, path, &(struct model_options){ 0 }, &e) != OK ||
        engine_open(&r->en, r->m, &(struct engine_options){ .n_threads = 2 }, &e) != OK || session_open(&r->s, r->en, &o, &e) != OK ||
        session_open(&r->other, r->en, &o, &e) != OK || session_feed(r->s, t, PROMPT, NULL, NULL, &e) != OK)
        test_fail(__FILE__, __LINE__, "%s", e.text);
    memcpy(r->logits, engine_logits(r->en), sizeof r->logits);
}

static void close_rig(struct rig *r)
{
    session_close(r->s), session_close(r->other);
    engine_close(r->en);
    model_close(r->m);
}

static void log_softmax(const float *x, double *y)
{
    double top = x[0], sum = 0;
    for (int i = 1; i < V; i++)
        if (x[i] > top) top = x[i]; /* not fmax: gcc 12 for aarch64 crashes on that reduction */
    for (int i = 0; i < V; i++) sum += exp(x[i] - top);
    for (int i = 0; i < V; i++) y[i] = x[i] - top - log(sum);
}

/* Sum of log probabilities of an answer, token by token in another session. */
static double cost(struct rig *r, const int32_t *t, int64_t n)
{
    double lp[V], sum = 0;
    CHECK(session_copy(r->other, r->s, 0, NULL) == OK);
    log_softmax(r->logits, lp);
    for (int64_t i = 0; i < n; i++) {
        sum += lp[t[i]];
        if (i + 1 == n) break;
        CHECK(session_feed(r->other, t + i, 1, NULL, NULL, NULL) == OK);
        log_softmax(engine_logits(r->en), lp);
    }
    return sum;
}

static const struct {
    int n_beams;
    int64_t max;
    float penalty;
    enum beam_stop stop;
    int n_end;
} rows[] = {
    { 1, 9, 1, BEAM_STOP_AUTO, 0 },  { 2, 12, 1, BEAM_STOP_AUTO, 3 },  { 5, 10, 0, BEAM_STOP_NEVER, 8 },
    { 16, 6, 2, BEAM_STOP_FIRST, 8 }, { 4, 20, -1, BEAM_STOP_AUTO, 8 },
};

TEST(beam_scores_are_what_the_answers_cost)
{
    struct rig r;
    open_rig(&r);
    static const int32_t end[] = { 3, 60, 61, 62, 63, 100, 130, 200 };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct beam_result b;
        struct err e = { 0 };
        struct beam_options o = { rows[i].n_beams, rows[i].max, rows[i].penalty, rows[i].stop, end, rows[i].n_end, NULL, NULL };
        CHECK_MSG(beam_search(r.s, r.logits, &o, &b, &e) == OK, "%s", e.text);
        CHECK(b.n >= 1 && b.n <= o.n_beams && session_pos(r.s) == PROMPT);
        for (int j = 0; j < b.n; j++) {
            const struct beam_answer *a = &b.answer[j];
            double want = cost(&r, a->token, a->n) / pow((double)a->n, o.length_penalty);
            CHECK_NEAR(a->score, want, 1e-3);
            CHECK(j == 0 || a->score <= b.answer[j - 1].score);
            for (int64_t k = 0; k < a->n; k++) /* an end token ends, and nothing else before the limit does */
                for (int q = 0, is = 0; q <= o.n_end; q++) {
                    if (q < o.n_end) is = is || a->token[k] == end[q];
                    else CHECK(k + 1 == a->n ? is || a->n == o.max_tokens : !is);
                }
            for (int k = 0; k < j; k++) CHECK(a->n != b.answer[k].n || memcmp(a->token, b.answer[k].token, (size_t)a->n * sizeof *a->token) != 0);
        }
        beam_free(&b);
    }
    close_rig(&r);
}

static int falling(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Two tokens: the best pairs whose first token is one of the n_beams best. */
TEST(beam_search_of_two_steps_equals_brute_force)
{
    enum { B = 6 };
    struct rig r;
    struct beam_result b;
    struct err e = { 0 };
    double lp[V], rank[V], *pair = malloc(B * V * sizeof *pair);
    int n = 0;
    open_rig(&r);
    log_softmax(r.logits, lp);
    memcpy(rank, lp, sizeof lp);
    qsort(rank, V, sizeof *rank, falling);
    for (int32_t t = 0; t < V; t++) {
        double next[V];
        if (lp[t] < rank[B - 1]) continue;
        CHECK(session_copy(r.other, r.s, 0, NULL) == OK && session_feed(r.other, &t, 1, NULL, NULL, NULL) == OK);
        log_softmax(engine_logits(r.en), next);
        for (int u = 0; u < V; u++) pair[n++] = lp[t] + next[u];
    }
    qsort(pair, (size_t)n, sizeof *pair, falling);
    struct beam_options o = { .n_beams = B, .max_tokens = 2, .length_penalty = 0 };
    CHECK_MSG(n == B * V && beam_search(r.s, r.logits, &o, &b, &e) == OK && b.n == B, "%s", e.text);
    for (int i = 0; i < b.n; i++) CHECK_NEAR(b.answer[i].score, pair[i], 1e-3);
    beam_free(&b);
    free(pair);
    close_rig(&r);
}

static bool stop_at_3(void *ctx, int64_t n) { return n < 3; }

TEST(beam_search_refuses_and_stops)
{
    struct rig r;
    struct beam_result b;
    struct err e = { 0 };
    open_rig(&r);
    struct beam_options o = { .n_beams = BEAMS_MAX + 1, .max_tokens = 2, .length_penalty = 1 };
    CHECK(beam_search(r.s, r.logits, &o, &b, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "17, expected 1 to 16");
    o.n_beams = 2, o.max_tokens = 0;
    CHECK(beam_search(r.s, r.logits, &o, &b, NULL) == ERR_USAGE);
    o.max_tokens = 9, o.progress = stop_at_3;
    CHECK(beam_search(r.s, r.logits, &o, &b, NULL) == ERR_INTERRUPTED && b.n == 0);
    o.progress = NULL;
    status st = ERR_MEMORY;
    for (int n = 1; st == ERR_MEMORY && n < 200; n++) {
        mem_fail_at(n, false);
        st = beam_search(r.s, r.logits, &o, &b, NULL);
        mem_fail_at(0, false);
    }
    CHECK(st == OK);
    beam_free(&b);
    close_rig(&r);
}

/* A NaN counts as -inf: it is never chosen, and the others keep their probabilities. */
TEST(beam_search_passes_over_nan)
{
    struct rig r;
    struct beam_result a, b;
    struct err e = { 0 };
    open_rig(&r);
    struct beam_options o = { .n_beams = 3, .max_tokens = 2, .length_penalty = 1 };
    float least[V];
    int best = 0;
    for (int i = 0; i < V; i++) best = r.logits[i] > r.logits[best] ? i : best;
    memcpy(least, r.logits, sizeof least);
    for (int i = 0; i < V; i += 3) least[i] = -INFINITY, r.logits[i] = NAN;
    least[best] = -INFINITY, r.logits[best] = NAN;
    CHECK_MSG(beam_search(r.s, least, &o, &a, &e) == OK, "%s", e.text);
    CHECK_MSG(beam_search(r.s, r.logits, &o, &b, &e) == OK, "%s", e.text);
    CHECK(a.n == 3 && b.n == 3);
    for (int i = 0; i < 3; i++) {
        CHECK(b.answer[i].token[0] != best && b.answer[i].token[0] % 3 != 0);
        CHECK(!memcmp(a.answer[i].token, b.answer[i].token, 2 * sizeof(int32_t)));
        CHECK(isfinite(b.answer[i].score) && fabs(a.answer[i].score - b.answer[i].score) < 1e-5);
    }
    beam_free(&a), beam_free(&b);
    close_rig(&r);
}

SUITE(beam, T(beam_search_passes_over_nan),
      T(beam_scores_are_what_the_answers_cost), T(beam_search_of_two_steps_equals_brute_force), T(beam_search_refuses_and_stops));

/* reference - see reference.h. Formulas from the papers named in src/arch/; a whole row of the sequence at a time, no cache. */
#include "tests/reference.h"
#include "tests/test.h"

struct mat {
    int64_t rows, cols;
    double *x;
};

static struct mat mat_new(int64_t rows, int64_t cols) { return (struct mat){ rows, cols, calloc((size_t)(rows * cols), sizeof(double)) }; }

static struct mat load_part(const struct tensor *t, int64_t part)
{
    struct mat m = mat_new(t->ne[1], t->ne[0]);
    float *row = malloc((size_t)t->ne[0] * sizeof *row);
    for (int64_t r = 0; r < m.rows; r++) {
        dtype_to_f32(t->type, (const uint8_t *)t->data + (size_t)part * t->nb[2] + (size_t)r * t->nb[1], row, t->ne[0]);
        for (int64_t c = 0; c < m.cols; c++) m.x[r * m.cols + c] = row[c];
    }
    free(row);
    return m;
}

static struct mat load(const struct tensor *t) { return load_part(t, 0); }

/* x W^T + b, W the part-th matrix of a stack; frees nothing of its inputs */
static struct mat linear_part(const struct mat *x, const struct tensor *w, int64_t part, const struct tensor *b)
{
    struct mat wm = load_part(w, part), y = mat_new(x->rows, wm.rows);
    for (int64_t t = 0; t < y.rows; t++)
        for (int64_t r = 0; r < y.cols; r++) {
            double s = b ? ((const float *)b->data)[r] : 0;
            for (int64_t k = 0; k < wm.cols; k++) s += wm.x[r * wm.cols + k] * x->x[t * wm.cols + k];
            y.x[t * y.cols + r] = s;
        }
    free(wm.x);
    return y;
}

static struct mat linear(const struct mat *x, const struct tensor *w, const struct tensor *b) { return linear_part(x, w, 0, b); }

static void norm_runs(struct mat *x, int64_t run, const struct tensor *w, double eps)
{
    for (int64_t i = 0; i < x->rows * x->cols; i += run) {
        double ss = 0;
        for (int64_t k = 0; k < run; k++) ss += x->x[i + k] * x->x[i + k];
        double inv = 1 / sqrt(ss / (double)run + eps);
        for (int64_t k = 0; k < run; k++) x->x[i + k] *= inv * ((const float *)w->data)[k];
    }
}

static struct mat normed(const struct mat *x, const struct tensor *w, double eps)
{
    struct mat y = mat_new(x->rows, x->cols);
    memcpy(y.x, x->x, (size_t)(x->rows * x->cols) * sizeof(double));
    norm_runs(&y, x->cols, w, eps);
    return y;
}

static void rotate(struct mat *x, int64_t hd, double base, const float *factor, bool neox)
{
    for (int64_t t = 0; t < x->rows; t++)
        for (int64_t h = 0; h < x->cols; h += hd)
            for (int64_t i = 0; i < hd / 2; i++) {
                double a = (double)t * pow(base, -2.0 * (double)i / (double)hd) / (factor ? factor[i] : 1);
                double *p = &x->x[t * x->cols + h + (neox ? i : 2 * i)], *q = neox ? p + hd / 2 : p + 1, u = *p, v = *q;
                *p = u * cos(a) - v * sin(a);
                *q = u * sin(a) + v * cos(a);
            }
}

static struct mat attend(const struct mat *q, const struct mat *k, const struct mat *v, int64_t n_head, int64_t n_kv, int64_t hd,
                         int64_t window)
{
    struct mat y = mat_new(q->rows, n_head * hd);
    double *p = malloc((size_t)q->rows * sizeof *p);
    for (int64_t t = 0; t < q->rows; t++)
        for (int64_t h = 0; h < n_head; h++) {
            int64_t g = h / (n_head / n_kv), lo = window && t - window + 1 > 0 ? t - window + 1 : 0;
            double sum = 0;
            for (int64_t j = lo; j <= t; j++) {
                double s = 0;
                for (int64_t d = 0; d < hd; d++) s += q->x[t * q->cols + h * hd + d] * k->x[j * k->cols + g * hd + d];
                sum += p[j] = exp(s / sqrt((double)hd));
            }
            for (int64_t j = lo; j <= t; j++)
                for (int64_t d = 0; d < hd; d++) y.x[t * y.cols + h * hd + d] += p[j] / sum * v->x[j * v->cols + g * hd + d];
        }
    free(p);
    return y;
}

static double silu(double x) { return x / (1 + exp(-x)); }
static double gelu(double x) { return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }

static void add(struct mat *x, const struct mat *y)
{
    for (int64_t i = 0; i < x->rows * x->cols; i++) x->x[i] += y->x[i];
}

static struct mat gated(const struct mat *f, const struct tensor *const w[3], const struct tensor *const b[3], int64_t part,
                        double (*act)(double))
{
    struct mat g = linear_part(f, w[0], part, b[0]), u = linear_part(f, w[1], part, b[1]);
    for (int64_t i = 0; i < g.rows * g.cols; i++) g.x[i] = act(g.x[i]) * u.x[i];
    struct mat d = linear_part(&g, w[2], part, b[2]);
    free(g.x);
    free(u.x);
    return d;
}

/* Mixtral: all experts are computed, the two with the highest logits count, by the softmax over their two logits. */
static struct mat mixture_of(const struct model *m, int il, const struct mat *f)
{
    struct mat logits = linear(f, model_weight(m, il, W_ROUTER), NULL), y = mat_new(f->rows, f->cols);
    const struct tensor *const w[3] = { model_weight(m, il, W_GATE_EXPS), model_weight(m, il, W_UP_EXPS), model_weight(m, il, W_DOWN_EXPS) };
    const struct tensor *const none[3] = { NULL, NULL, NULL };
    for (int64_t e = 0; e < logits.cols; e++) {
        struct mat d = gated(f, w, none, e, silu);
        for (int64_t t = 0; t < f->rows; t++) {
            const double *l = logits.x + t * logits.cols;
            double best = -INFINITY;
            int64_t above = 0;
            for (int64_t i = 0; i < logits.cols; i++) above += l[i] > l[e];
            for (int64_t i = 0; i < logits.cols; i++)
                if (i != e && l[i] > best) best = l[i];
            if (above < 2) {
                double share = 1 / (1 + exp(best - l[e])); /* the other one of the two is the best of the rest */
                for (int64_t c = 0; c < f->cols; c++) y.x[t * f->cols + c] += share * d.x[t * f->cols + c];
            }
        }
        free(d.x);
    }
    free(logits.x);
    return y;
}

static void block(const struct model *m, int il, struct mat *x, bool gemma, bool neox)
{
    const struct layer_params *l = &m->layer[il].hp;
    double eps = m->hp.eps;
    bool local = gemma && il % 6 != 5;
#define W(id) model_weight(m, il, id)
    struct mat h = normed(x, W(W_ATTN_NORM), eps);
    struct mat q = linear(&h, W(W_ATTN_Q), W(W_BIAS_Q)), k = linear(&h, W(W_ATTN_K), W(W_BIAS_K)), v = linear(&h, W(W_ATTN_V), W(W_BIAS_V));
    if (W(W_Q_NORM)) {
        norm_runs(&q, l->head_dim, W(W_Q_NORM), eps);
        norm_runs(&k, l->head_dim, W(W_K_NORM), eps);
    }
    const struct tensor *factors = model_weight(m, -1, W_ROPE_FREQS);
    double base = local ? 10000 : m->hp.rope_base;
    rotate(&q, l->head_dim, base, factors ? factors->data : NULL, neox);
    rotate(&k, l->head_dim, base, factors ? factors->data : NULL, neox);
    struct mat a = attend(&q, &k, &v, l->n_head, l->n_head_kv, l->head_dim, local ? m->hp.window : 0);
    struct mat o = linear(&a, W(W_ATTN_O), W(W_BIAS_O));
    if (gemma) norm_runs(&o, o.cols, W(W_POST_ATTN_NORM), eps);
    add(x, &o);
    struct mat f = normed(x, W(W_FFN_NORM), eps), d;
    if (W(W_ROUTER)) d = mixture_of(m, il, &f);
    else
        d = gated(&f, (const struct tensor *const[3]){ W(W_FFN_GATE), W(W_FFN_UP), W(W_FFN_DOWN) },
                  (const struct tensor *const[3]){ W(W_BIAS_GATE), W(W_BIAS_UP), W(W_BIAS_DOWN) }, 0, gemma ? gelu : silu);
    if (gemma) norm_runs(&d, d.cols, W(W_POST_FFN_NORM), eps);
    add(x, &d);
#undef W
    struct mat *all[] = { &h, &q, &k, &v, &a, &o, &f, &d };
    for (int i = 0; i < ARRAY_LEN(all); i++) free(all[i]->x);
}

void reference_logits(const struct model *m, const int32_t *tokens, int64_t n, double *out)
{
    bool gemma = !strcmp(m->arch->name, "gemma3"), neox = strcmp(m->arch->name, "llama") != 0;
    struct mat e = load(model_weight(m, -1, W_EMBD)), x = mat_new(n, m->hp.n_embd);
    for (int64_t t = 0; t < n; t++)
        for (int64_t c = 0; c < x.cols; c++) x.x[t * x.cols + c] = e.x[tokens[t] * x.cols + c] * (gemma ? sqrt((double)x.cols) : 1);
    for (int il = 0; il < m->hp.n_layer; il++) block(m, il, &x, gemma, neox);
    struct mat h = normed(&x, model_weight(m, -1, W_OUTPUT_NORM), m->hp.eps), y = linear(&h, model_weight(m, -1, W_OUTPUT), NULL);
    for (int64_t t = 0; t < n; t++) memcpy(out + t * m->hp.n_vocab, y.x + t * y.cols, (size_t)m->hp.n_vocab * sizeof *out);
    free(e.x);
    free(x.x);
    free(h.x);
    free(y.x);
}

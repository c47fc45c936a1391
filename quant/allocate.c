/* allocate - see allocate.h. Both problems are one: `cost` is to become small while the sum of `use` stays in bounds; (bytes, loss) or (loss, bytes). */
#include "quant/allocate.h"
#include <assert.h>
#include <stdlib.h>

enum { PASSES = 16 };

struct point { double use, cost; int choice; };
struct hull { struct point p[ALLOC_CHOICES]; int n, at; };
struct step { double rate; int64_t item; int to; };
struct problem {
    struct alloc_item *item;
    int64_t n;
    bool by_bytes;                     /* use is bytes, cost is loss */
    double budget;
    struct hull *hull;                 /* [n] */
    struct step *step;
};

static struct point point_of(const struct problem *p, int64_t i, int c)
{
    const struct alloc_choice *a = &p->item[i].choice[c];
    struct point r = { (double)a->bytes, a->loss, c };
    if (!p->by_bytes) r = (struct point){ a->loss, (double)a->bytes, c };
    return r;
}

static int by_use(const void *a, const void *b)
{
    const struct point *x = a, *y = b;
    if (x->use != y->use) return x->use < y->use ? -1 : 1;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    return x->choice - y->choice;
}

/* Rising use, falling cost, each step saving less per use than the one before. */
static void make_hull(const struct problem *p, int64_t i, struct hull *h)
{
    struct point all[ALLOC_CHOICES];
    int n = p->item[i].n;
    assert(n > 0 && n <= ALLOC_CHOICES);
    for (int c = 0; c < n; c++) all[c] = point_of(p, i, c);
    qsort(all, (size_t)n, sizeof *all, by_use);
    h->n = h->at = 0;
    for (int c = 0; c < n; c++) {
        const struct point *q = &all[c];
        if (h->n > 0 && q->cost >= h->p[h->n - 1].cost) continue;
        while (h->n > 1) {
            const struct point *b = &h->p[h->n - 1], *a = b - 1;
            if ((a->cost - b->cost) * (q->use - b->use) > (b->cost - q->cost) * (b->use - a->use)) break;
            h->n--; /* below the line from a to q there is no b */
        }
        h->p[h->n++] = *q;
    }
}

static int by_rate(const void *a, const void *b)
{
    const struct step *x = a, *y = b;
    if (x->rate != y->rate) return x->rate > y->rate ? -1 : 1;
    if (x->item != y->item) return x->item < y->item ? -1 : 1;
    return x->to - y->to;
}

static double used(const struct problem *p)
{
    double sum = 0;
    for (int64_t i = 0; i < p->n; i++) sum += point_of(p, i, p->item[i].pick).use;
    return sum;
}

static void take_steps(struct problem *p)
{
    int64_t n = 0;
    double sum = used(p);
    for (int64_t i = 0; i < p->n; i++)
        for (int k = 1; k < p->hull[i].n; k++) {
            const struct point *b = &p->hull[i].p[k], *a = b - 1;
            p->step[n++] = (struct step){ (a->cost - b->cost) / (b->use - a->use), i, k };
        }
    qsort(p->step, (size_t)n, sizeof *p->step, by_rate);
    for (int64_t s = 0; s < n; s++) {
        struct hull *h = &p->hull[p->step[s].item];
        int to = p->step[s].to;
        if (h->at != to - 1 || sum + (h->p[to].use - h->p[h->at].use) > p->budget) continue;
        sum += h->p[to].use - h->p[h->at].use;
        h->at = to;
        p->item[p->step[s].item].pick = h->p[to].choice;
    }
}

/* The best that item i alone, or with one other that gives way, can do from here. */
struct move { double saved; int64_t other; int to, other_to; };

static void look_at_pairs(const struct problem *p, int64_t i, int c, double room, struct move *best)
{
    struct point now = point_of(p, i, p->item[i].pick), to = point_of(p, i, c);
    double need = to.use - now.use - room, gain = now.cost - to.cost;
    for (int64_t j = 0; j < p->n; j++) {
        if (j == i) continue;
        struct point b = point_of(p, j, p->item[j].pick);
        for (int d = 0; d < p->item[j].n; d++) {
            struct point q = point_of(p, j, d);
            double saved = gain - (q.cost - b.cost);
            if (b.use - q.use >= need && saved > best->saved) *best = (struct move){ saved, j, c, d };
        }
    }
}

static bool improve(struct problem *p, int64_t i, double least)
{
    struct point now = point_of(p, i, p->item[i].pick);
    double room = p->budget - used(p);
    struct move best = { least, -1, -1, -1 };
    for (int c = 0; c < p->item[i].n; c++) {
        struct point to = point_of(p, i, c);
        if (to.cost >= now.cost) continue;
        if (to.use - now.use <= room) {
            if (now.cost - to.cost > best.saved) best = (struct move){ now.cost - to.cost, -1, c, -1 };
        } else look_at_pairs(p, i, c, room, &best);
    }
    if (best.to < 0) return false;
    int before = p->item[i].pick, other_before = best.other >= 0 ? p->item[best.other].pick : 0;
    p->item[i].pick = best.to;
    if (best.other >= 0) p->item[best.other].pick = best.other_to;
    if (used(p) <= p->budget) return true;
    p->item[i].pick = before; /* the sum, taken in order, rounds the other way */
    if (best.other >= 0) p->item[best.other].pick = other_before;
    return false;
}

/* False: the least use is beyond the budget. */
static status solve(struct problem *p, bool *fits, struct err *e)
{
    int64_t n_choices = 0;
    double cost = 0;
    for (int64_t i = 0; i < p->n; i++) n_choices += p->item[i].n;
    p->hull = mem_calloc((size_t)p->n + 1, sizeof *p->hull);
    p->step = mem_calloc((size_t)n_choices + 1, sizeof *p->step);
    status st = p->hull && p->step ? OK : err_oom(e, "allocation", (size_t)p->n * sizeof *p->hull);
    for (int64_t i = 0; st == OK && i < p->n; i++) {
        make_hull(p, i, &p->hull[i]);
        p->item[i].pick = p->hull[i].p[0].choice;
    }
    *fits = st == OK && used(p) <= p->budget;
    if (*fits) {
        take_steps(p);
        for (int64_t i = 0; i < p->n; i++) cost += point_of(p, i, p->item[i].pick).cost;
        bool moved = true;
        for (int pass = 0; moved && pass < PASSES; pass++) {
            moved = false;
            for (int64_t i = 0; i < p->n; i++) moved |= improve(p, i, 1e-12 * cost);
        }
    }
    mem_free(p->hull);
    mem_free(p->step);
    return st;
}

status allocate_bytes(struct alloc_item *item, int64_t n, size_t budget, struct err *e)
{
    struct problem p = { .item = item, .n = n, .by_bytes = true, .budget = (double)budget };
    bool fits;
    TRY(solve(&p, &fits, e));
    if (fits) return OK;
    return err_set(e, ERR_USAGE, "the weights take %zu bytes at least, %zu are allowed", allocated_bytes(item, n), budget);
}

status allocate_loss(struct alloc_item *item, int64_t n, double limit, struct err *e)
{
    struct problem p = { .item = item, .n = n, .budget = limit };
    bool fits;
    TRY(solve(&p, &fits, e));
    if (fits) return OK;
    return err_set(e, ERR_USAGE, "the loss is %.3g at least, %.3g is allowed", allocated_loss(item, n), limit);
}

size_t allocated_bytes(const struct alloc_item *item, int64_t n)
{
    size_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += item[i].choice[item[i].pick].bytes;
    return sum;
}

double allocated_loss(const struct alloc_item *item, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += item[i].choice[item[i].pick].loss;
    return sum;
}

/* The allocator beside all combinations of small problems; its bounds, ties and refusals; large problems against the bound that prices give. */
#include "quant/allocate.h"
#include "tests/test.h"

enum { ITEMS = 6, CHOICES = 5 };

struct problem {
    struct alloc_choice choice[ITEMS][CHOICES];
    struct alloc_item item[ITEMS];
    int n;
};

/* Choices of about two bits each more, losses falling like those of formats do, some out of line. */
static void make(struct problem *p, uint64_t *seed)
{
    p->n = 1 + (int)(test_rand(seed) % ITEMS);
    for (int i = 0; i < p->n; i++) {
        double size = 100 + (double)(test_rand(seed) % 4000), weight = exp2(6 * (double)test_randf(seed));
        p->item[i] = (struct alloc_item){ .choice = p->choice[i], .n = 1 + (int)(test_rand(seed) % CHOICES) };
        for (int c = 0; c < p->item[i].n; c++) {
            double bits = 1 + (double)(test_rand(seed) % 80) / 10;
            p->choice[i][c] = (struct alloc_choice){ (size_t)(size * bits), weight * exp2(-2 * bits + (double)test_randf(seed)) };
        }
    }
}

struct best { double loss; size_t bytes; };

/* All combinations: least loss within `budget` bytes, fewest bytes within `limit`. */
static void search(const struct problem *p, size_t budget, double limit, struct best *least_loss, struct best *least_bytes)
{
    int at[ITEMS] = { 0 };
    *least_loss = *least_bytes = (struct best){ INFINITY, SIZE_MAX };
    for (;;) {
        struct best now = { 0, 0 };
        for (int i = 0; i < p->n; i++) now.loss += p->choice[i][at[i]].loss, now.bytes += p->choice[i][at[i]].bytes;
        if (now.bytes <= budget && now.loss < least_loss->loss) *least_loss = now;
        if (now.loss <= limit && now.bytes < least_bytes->bytes) *least_bytes = now;
        int i = 0;
        while (i < p->n && ++at[i] == p->item[i].n) at[i++] = 0;
        if (i == p->n) return;
    }
}

static double largest_step(const struct problem *p)
{
    double most = 0;
    for (int i = 0; i < p->n; i++)
        for (int a = 0; a < p->item[i].n; a++)
            for (int b = 0; b < p->item[i].n; b++) most = fmax(most, p->choice[i][a].loss - p->choice[i][b].loss);
    return most;
}

TEST(allocate_beside_all_combinations)
{
    enum { CASES = 3000 };
    uint64_t seed = 7;
    int optimal = 0, counted = 0;
    double worst = 1;
    for (int k = 0; k < CASES; k++) {
        struct problem p;
        struct best loss, bytes;
        struct err e = { 0 };
        make(&p, &seed);
        size_t budget = 200 + (size_t)(test_rand(&seed) % 60000);
        search(&p, budget, 0, &loss, &bytes);
        status st = allocate_bytes(p.item, p.n, budget, &e);
        CHECK((st == OK) == (loss.bytes != SIZE_MAX));
        if (st != OK) {
            CHECK(st == ERR_USAGE);
            continue;
        }
        double got = allocated_loss(p.item, p.n);
        CHECK(allocated_bytes(p.item, p.n) <= budget);
        CHECK(got >= loss.loss * (1 - 1e-12));
        CHECK(got <= loss.loss + largest_step(&p));
        counted++, optimal += got <= loss.loss * (1 + 1e-9);
        worst = fmax(worst, got / loss.loss);
    }
    CHECK_MSG(counted > CASES / 2 && optimal > counted * 95 / 100, "%d of %d optimal, the worst %.3f times", optimal, counted, worst);
}

TEST(allocate_fewest_bytes_beside_all_combinations)
{
    enum { CASES = 3000 };
    uint64_t seed = 8;
    int optimal = 0, counted = 0;
    for (int k = 0; k < CASES; k++) {
        struct problem p;
        struct best loss, bytes;
        struct err e = { 0 };
        make(&p, &seed);
        double limit = exp2(-4 + 8 * (double)test_randf(&seed));
        search(&p, 0, limit, &loss, &bytes);
        status st = allocate_loss(p.item, p.n, limit, &e);
        CHECK((st == OK) == (bytes.bytes != SIZE_MAX));
        if (st != OK) continue;
        CHECK(allocated_loss(p.item, p.n) <= limit);
        CHECK(allocated_bytes(p.item, p.n) >= bytes.bytes);
        counted++, optimal += allocated_bytes(p.item, p.n) == bytes.bytes;
    }
    CHECK_MSG(counted > CASES / 2 && optimal > counted * 95 / 100, "%d of %d optimal", optimal, counted);
}

/* With many items nothing is left to find: the price alone bounds the optimum from below. */
TEST(allocate_many)
{
    enum { MANY = 400 };
    static struct alloc_choice choice[MANY][12];
    static struct alloc_item item[MANY];
    uint64_t seed = 9;
    struct err e = { 0 };
    size_t all = 0;
    for (int i = 0; i < MANY; i++) {
        double size = 1e5 * (1 + (double)(test_rand(&seed) % 9)), weight = exp2(4 * (double)test_randf(&seed));
        item[i] = (struct alloc_item){ .choice = choice[i], .n = 12 };
        for (int c = 0; c < 12; c++)
            choice[i][c] = (struct alloc_choice){ (size_t)(size * (2 + 0.5 * c) / 8), weight * exp2(-2.0 * (2 + 0.5 * c) + 0.3 * (double)test_randf(&seed)) };
        all += (size_t)(size * 4 / 8);
    }
    CHECK(allocate_bytes(item, MANY, all, &e) == OK);
    double got = allocated_loss(item, MANY), bound = 0;
    CHECK(allocated_bytes(item, MANY) <= all && allocated_bytes(item, MANY) > all - all / 1000);
    for (double price = 1e-12; price < 1; price *= 1.02) { /* Lagrange: min of loss + price * bytes, less price * budget, is no more than the optimum */
        double sum = -price * (double)all;
        for (int i = 0; i < MANY; i++) {
            double least = INFINITY;
            for (int c = 0; c < 12; c++) least = fmin(least, choice[i][c].loss + price * (double)choice[i][c].bytes);
            sum += least;
        }
        bound = fmax(bound, sum);
    }
    CHECK_MSG(got < 1.002 * bound && got > 0.9999 * bound, "loss %.6g, bound %.6g", got, bound);
    int before[MANY];
    for (int i = 0; i < MANY; i++) before[i] = item[i].pick;
    CHECK(allocate_bytes(item, MANY, all, &e) == OK);
    for (int i = 0; i < MANY; i++) CHECK(before[i] == item[i].pick);
}

TEST(allocate_refuses)
{
    const struct alloc_choice c[2] = { { 100, 0.5 }, { 200, 0.1 } };
    struct alloc_item item[2] = { { c, 2, 0 }, { c, 2, 0 } };
    struct err e = { 0 };
    CHECK(allocate_bytes(item, 2, 199, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "200 bytes at least, 199 are allowed");
    e = (struct err){ 0 };
    CHECK(allocate_loss(item, 2, 0.19, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "0.2 at least, 0.19 is allowed");
    CHECK(allocate_bytes(item, 2, 300, &e) == OK && item[0].pick == 1 && item[1].pick == 0); /* a tie goes to the first */
    CHECK(allocate_bytes(item, 0, 0, &e) == OK);
}

SUITE(allocate, T(allocate_beside_all_combinations), T(allocate_fewest_bytes_beside_all_combinations), T(allocate_many), T(allocate_refuses));

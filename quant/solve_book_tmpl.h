/* solve_book_tmpl - feedback and descent where vectors of 8 or 4 elements share an index into a codebook, and eight elements a byte of signs. A unit is
 * eight elements: y = scale * sign * level. With a metric D of the unit and the linear term b the loss is  y D y - 2 y b  up to a constant.
 *
 * For known signs the best entry is exact: what an entry costs is a cost of its lower half, one of its upper half, and the product of the lower half with a
 * vector that depends on the upper half: four multiplications per entry. Signs move when that gains: one where all are legal, else the best pair
 * (their number stays even); then entries again. */

enum { UNIT = GRID_UNIT, UNIT_VECS = UNIT / 4, ROUNDS = 3 };

struct unit {
    float D[UNIT][UNIT];
    vf b[UNIT], y[UNIT], sign[UNIT];
    vi q[UNIT_VECS];
};

/* The entry for elements from i0 on: least  a Q a + l a  over entries a, Q = D with the signs in it, l = -2 sign b' / scale, b' what is left of b
 * when the rest of the unit stays (known: it has its values already). */
LANE_FN void unit_entry(const struct solver *s, struct unit *u, int i0, int vec, vf inverse, bool known)
{
    const struct solve_book *k = &s->book;
    int half = vec / 2;
    vf Q[UNIT][UNIT], l[UNIT], lo[SOLVE_HALVES];
    for (int i = 0; i < vec; i++) {
        vf b = u->b[i0 + i];
        for (int j = 0; j < UNIT && known; j++)
            if (j < i0 || j >= i0 + vec) b = v_sub(b, v_mul(v_set(u->D[i0 + i][j]), u->y[j]));
        l[i] = v_mul(v_mul(v_mul(b, v_set(-2.0f)), u->sign[i0 + i]), inverse);
        for (int j = 0; j < i; j++) Q[i][j] = v_mul(v_mul(v_set(2.0f * u->D[i0 + i][i0 + j]), u->sign[i0 + i]), u->sign[i0 + j]);
        Q[i][i] = v_set(u->D[i0 + i][i0 + i]);
    }
    for (int e = 0; e < k->n_lo; e++) {
        vf cost = v_set(0.0f);
        for (int i = 0; i < half; i++) {
            vf slope = l[i];
            for (int j = 0; j <= i; j++) slope = v_add(slope, v_mul(Q[i][j], v_set(k->lo[e][j])));
            cost = v_add(cost, v_mul(slope, v_set(k->lo[e][i])));
        }
        lo[e] = cost;
    }
    vf least = v_set(3.0e38f);
    vi at = vi_set(0);
    for (int h = 0; h < k->n_hi; h++) {
        vf cost = v_set(0.0f), across[4];
        for (int i = 0; i < half; i++) {
            vf slope = l[half + i];
            for (int j = 0; j <= i; j++) slope = v_add(slope, v_mul(Q[half + i][half + j], v_set(k->hi[h][j])));
            cost = v_add(cost, v_mul(slope, v_set(k->hi[h][i])));
        }
        for (int j = 0; j < half; j++) {
            across[j] = v_mul(Q[half][j], v_set(k->hi[h][0]));
            for (int i = 1; i < half; i++) across[j] = v_add(across[j], v_mul(Q[half + i][j], v_set(k->hi[h][i])));
        }
        for (int e = k->start[h]; e < k->start[h + 1]; e++) {
            const float *a = k->lo[k->lo_of[e]];
            vf c = v_add(lo[k->lo_of[e]], cost);
            for (int j = 0; j < half; j++) c = v_add(c, v_mul(v_set(a[j]), across[j]));
            vm better = v_lt(c, least);
            least = v_sel(better, c, least), at = vi_sel(better, vi_set(k->q[e]), at);
        }
    }
    u->q[i0 / vec] = at;
}

LANE_FN void unit_values(const struct solver *s, struct unit *u, int i0, int vec, vf scale)
{
    vi at = vi_mul(u->q[i0 / vec], vi_set(vec));
    for (int i = 0; i < vec; i++) u->y[i0 + i] = v_mul(scale, v_mul(u->sign[i0 + i], v_gather(s->book.level + i, at)));
}

/* Turns signs where that makes the unit's loss smaller; false when none did. */
LANE_FN bool unit_turn(struct unit *u, bool even)
{
    vf r[UNIT], gain[UNIT], zero = v_set(0.0f);
    for (int i = 0; i < UNIT; i++) {
        r[i] = v_neg(u->b[i]);
        for (int j = 0; j < UNIT; j++) r[i] = v_add(r[i], v_mul(v_set(u->D[i][j]), u->y[j]));
        gain[i] = v_mul(v_mul(u->y[i], v_set(4.0f)), v_sub(r[i], v_mul(v_set(u->D[i][i]), u->y[i])));
    }
    vf best = zero;
    vi first = vi_set(-1), second = vi_set(-1);
    for (int i = 0; i < UNIT; i++)
        for (int j = even ? i + 1 : i; j < (even ? UNIT : i + 1); j++) {
            vf g = gain[i];
            if (even) g = v_sub(v_add(g, gain[j]), v_mul(v_mul(u->y[i], u->y[j]), v_set(8.0f * u->D[i][j])));
            vm better = v_lt(best, g);
            best = v_sel(better, g, best), first = vi_sel(better, vi_set(i), first), second = vi_sel(better, vi_set(j), second);
        }
    for (int i = 0; i < UNIT; i++) {
        vm turn = vm_or(vi_eq(first, vi_set(i)), vi_eq(second, vi_set(i)));
        u->sign[i] = v_sel(turn, v_neg(u->sign[i]), u->sign[i]), u->y[i] = v_sel(turn, v_neg(u->y[i]), u->y[i]);
    }
    return vm_any(v_lt(zero, best));
}

/* From the signs in u: entries, signs, entries. started: the unit has values already. */
LANE_FN void unit_settle(const struct solver *s, struct unit *u, int vec, vf scale, vf inverse, bool started)
{
    bool even = s->grid.sign == GRID_EVEN;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i0 = 0; i0 < UNIT; i0 += vec) {
            unit_entry(s, u, i0, vec, inverse, started || i0 > 0);
            unit_values(s, u, i0, vec, scale);
        }
        started = true;
        if (round + 1 == ROUNDS) break;
        bool turned = unit_turn(u, even);
        if (turned) unit_turn(u, even);
        else if (vec == UNIT) break; /* the same entries again. Two vectors settle between each other in each round: the number is fixed for all lanes */
    }
}

/* Signs of t; where there must be an even number of minuses and is not, the one that costs least is wrong. */
LANE_FN void unit_signs(const struct solver *s, struct unit *u, const vf *t)
{
    vf cost, least = v_set(3.0e38f);
    vi odd = vi_set(0), at = vi_set(-1);
    for (int i = 0; i < UNIT; i++) {
        u->sign[i] = v_sel(v_lt(t[i], v_set(0.0f)), v_set(-1.0f), v_set(1.0f));
        odd = vi_xor(odd, v_bits(u->sign[i]));
        cost = v_mul(v_abs(t[i]), v_set(u->D[i][i]));
        vm less = v_lt(cost, least);
        least = v_sel(less, cost, least), at = vi_sel(less, vi_set(i), at);
    }
    if (s->grid.sign != GRID_EVEN) return;
    at = vi_sel(vi_lt(odd, vi_set(0)), at, vi_set(-1));
    for (int i = 0; i < UNIT; i++) u->sign[i] = v_sel(vi_eq(at, vi_set(i)), v_neg(u->sign[i]), u->sign[i]);
}

/* What is left for the unit at position k when the ones before have errors and later ones are free: target and metric. acc: their pull. */
LANE_FN void unit_target(const struct solve_tile *t, const float *m, int64_t k, const vf *acc, struct unit *u, vf *target)
{
    int o = (int)(k % CHUNK);
    const float *B = m + k * CHUNK + o; /* B[j * CHUNK + i]: what the error of j asks of i > j */
    for (int i = 0; i < UNIT; i++) {
        vf f = acc[o + i];
        for (int j = 0; j < i; j++) f = v_sub(f, v_mul(v_set(B[j * CHUNK + i]), v_sub(target[j], t->x[k + j])));
        target[i] = v_add(t->x[k + i], f);
    }
    for (int i = 0; i < UNIT; i++)
        for (int j = 0; j <= i; j++) {
            float sum = 0.0f;
            for (int l = i; l < UNIT; l++)
                sum += (l == i ? 1.0f : B[i * CHUNK + l]) * t->m->d[k + l] * (l == j ? 1.0f : B[j * CHUNK + l]);
            u->D[i][j] = u->D[j][i] = sum;
        }
    for (int i = 0; i < UNIT; i++) {
        u->b[i] = v_set(0.0f);
        for (int j = 0; j < UNIT; j++) u->b[i] = v_add(u->b[i], v_mul(v_set(u->D[i][j]), target[j]));
    }
}

/* Columns k0 .. k0 + 15. */
LANE_FN void feedback_book(struct solve_tile *t, int64_t k0, int vec)
{
    struct unit u;
    vf acc[CHUNK], target[UNIT];
    const float *m = metric_panel(t->m, k0 / CHUNK);
    pull_16(acc, m, t->e, k0);
    for (int64_t k = k0; k < k0 + CHUNK; k += UNIT) {
        int64_t r = k / t->group;
        unit_target(t, m, k, acc, &u, target);
        unit_signs(t->s, &u, target);
        for (int i = 0; i < UNIT; i++) u.y[i] = target[i];
        unit_settle(t->s, &u, vec, t->scale[r], t->inverse[r], vec < UNIT);
        for (int i = 0; i < UNIT; i++) {
            vf e = v_sub(t->x[k + i], u.y[i]);
            t->y[k + i] = u.y[i], t->e[k + i] = e;
            for (int c = (int)(k - k0) + UNIT; c < CHUNK; c++) acc[c] = v_add(acc[c], v_mul(v_set(m[(k + i) * CHUNK + c]), e));
        }
        for (int i = 0; i < UNIT / vec; i++) t->q[k / vec + i] = u.q[i];
        for (int i = 0; i < UNIT; i++) t->code[k + i] = v_mul(u.sign[i], v_gather(t->s->book.level + i % vec, vi_mul(u.q[i / vec], vi_set(vec))));
    }
}

LANE_FN void attempt_book(struct solve_tile *t, int64_t p0, int n, struct attempt *a, int vec)
{
    struct unit u;
    for (int i = 0; i < n; i++) a->y[i] = t->y[p0 + i], a->g[i] = t->g[p0 + i];
    for (int i0 = 0; i0 < n; i0 += UNIT) {
        for (int i = 0; i < UNIT; i++) {
            vf b = a->g[i0 + i];
            for (int j = 0; j < UNIT; j++) u.D[i][j] = *element_of(&t->h, p0 + i0 + i, p0 + i0 + j), b = v_add(b, v_mul(v_set(u.D[i][j]), a->y[i0 + j]));
            u.b[i] = b, u.y[i] = a->y[i0 + i];
            u.sign[i] = v_sel(v_lt(t->code[p0 + i0 + i], v_set(0.0f)), v_set(-1.0f), v_set(1.0f));
        }
        unit_settle(t->s, &u, vec, a->scale, a->inverse, true);
        for (int i = 0; i < UNIT; i++) {
            vf delta = v_sub(u.y[i], a->y[i0 + i]);
            a->y[i0 + i] = u.y[i];
            a->code[i0 + i] = v_mul(u.sign[i], v_gather(t->s->book.level + i % vec, vi_mul(u.q[i / vec], vi_set(vec))));
            if (!vm_any(vm_not(v_eq(delta, v_set(0.0f))))) continue;
            for (int j = 0; j < n; j++) a->g[j] = v_fnma(v_set(*element_of(&t->h, p0 + i0 + i, p0 + j)), delta, a->g[j]);
        }
        for (int i = 0; i < UNIT / vec; i++) a->q[i0 / vec + i] = u.q[i];
    }
    a->gain = v_set(0.0f);
    for (int i = 0; i < n; i++) a->gain = v_add(a->gain, v_mul(v_sub(a->y[i], t->y[p0 + i]), v_add(a->g[i], t->g[p0 + i])));
}

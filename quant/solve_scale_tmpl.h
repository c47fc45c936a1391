/* solve_scale_tmpl - sweeps over the groups of a row, with scales as they are or with other ones tried; least squares for the half floats of blocks. */

/* Steps of the stored codes of a group that are tried, or of its own half floats: d *= 1 + d step, min += offset of a step. */
struct move { int8_t sc, m; float d, offset; };
#define COUNTED(list) list, ARRAY_LEN(list)
/* Steps of two, and half floats moved by other amounts, changed held-out errors by less than 1 %. */
static const struct move scale_moves[] = { { 1, 0 }, { -1, 0 } };
static const struct move both_moves[] = { { 1, 0 }, { -1, 0 }, { 0, 1 }, { 0, -1 }, { 1, 1 }, { -1, -1 }, { 1, -1 }, { -1, 1 } };
static const struct move half_moves[] = { { .d = 0.03f }, { .d = -0.03f } };
static const struct move half_min_moves[] = { { .d = 0.03f, .offset = -0.225f }, { .d = -0.03f, .offset = 0.225f }, { .offset = 0.2f }, { .offset = -0.2f } };

static const struct move *moves_of(const struct solve_tile *t, int *n)
{
    const struct grid *g = &t->s->grid;
    const struct { const struct move *list; int n; } all[] = {
        { COUNTED(scale_moves) }, { COUNTED(both_moves) }, { COUNTED(half_moves) }, { COUNTED(half_min_moves) },
    };
    int at = g->n_scale > 1 ? g->n_min > 1 : t->per_block == 1 ? 2 + (g->n_min == 1) : -1;
    *n = at < 0 ? 0 : all[at].n;
    return at < 0 ? NULL : all[at].list;
}

LANE_FN void attempt_sel(vm better, const struct attempt *from, struct attempt *to, int n)
{
    to->scale = v_sel(better, from->scale, to->scale), to->inverse = v_sel(better, from->inverse, to->inverse);
    to->min = v_sel(better, from->min, to->min), to->gain = v_sel(better, from->gain, to->gain);
    to->sc = vi_sel(better, from->sc, to->sc), to->mi = vi_sel(better, from->mi, to->mi);
    to->d = v_sel(better, from->d, to->d), to->dmin = v_sel(better, from->dmin, to->dmin);
    for (int i = 0; i < n; i++) {
        to->y[i] = v_sel(better, from->y[i], to->y[i]), to->g[i] = v_sel(better, from->g[i], to->g[i]);
        to->code[i] = v_sel(better, from->code[i], to->code[i]);
    }
    for (int i = 0; i < n / 4; i++) to->q[i] = vi_sel(better, from->q[i], to->q[i]);
}

/* The group as it is. */
LANE_FN void attempt_start(const struct solve_tile *t, int r, struct attempt *a)
{
    a->scale = t->scale[r], a->inverse = t->inverse[r], a->min = t->min[r], a->sc = t->sc[r], a->mi = t->mi[r];
    int block = r / t->per_block;
    a->d = t->d[block], a->dmin = t->dmin[block];
}

LANE_FN vi code_moved(vi code, int step, int n) { return vi_max(vi_set(0), vi_min(vi_set(n - 1), vi_add(code, vi_set(step)))); }

LANE_FN void attempt_move(const struct solve_tile *t, const struct move *m, struct attempt *a)
{
    const struct grid *g = &t->s->grid;
    if (m->sc) a->sc = code_moved(a->sc, m->sc, g->n_scale);
    if (m->m) a->mi = code_moved(a->mi, m->m, g->n_min);
    if (m->offset != 0.0f) a->dmin = v_half(v_add(a->dmin, v_mul(a->d, v_set(m->offset))));
    if (m->d != 0.0f) a->d = v_half(v_mul(a->d, v_set(1.0f + m->d)));
    a->scale = scale_of(t, a->d, a->sc), a->inverse = scale_inverse(a->scale);
    if (g->n_min) a->min = min_of(t, a->dmin, a->mi);
}

/* y changed by t->delta at the n positions from p0 on: the gradient of the span from s0 to end, inside these too or not. */
static void push_span(struct solve_tile *t, int64_t p0, int n, int64_t s0, int64_t end, bool inside)
{
    int moved = 0;
    for (int i = 0; i < n; i++)
        if (vm_any(vm_not(v_eq(t->delta[i], v_set(0.0f))))) t->delta[moved] = t->delta[i], t->moved[moved++] = (int32_t)(p0 + i);
    for (int64_t k = s0; k < end && moved; k += CHUNK)
        if (inside || k < p0 || k >= p0 + n) push_16(t->g + k, &t->h, k, t->delta, t->moved, moved);
}

/* The best of the moves of one group, in the span from s0 to end; false when there is none. */
static bool sweep_group(struct solve_tile *t, int r, const struct move *move, int n_moves, int64_t s0, int64_t end)
{
    struct attempt best, other;
    int per_run = t->group / t->s->grid.vec_len, block = r / t->per_block;
    int64_t p0 = (int64_t)r * t->group;
    attempt_start(t, r, &best);
    attempt(t, p0, t->group, &best);
    for (int i = 0; i < n_moves; i++) {
        attempt_start(t, r, &other);
        attempt_move(t, &move[i], &other);
        attempt(t, p0, t->group, &other);
        attempt_sel(v_lt(best.gain, other.gain), &other, &best, t->group);
    }
    vm better = v_lt(v_set(0.0f), best.gain);
    if (!vm_any(better)) return false;
    for (int i = 0; i < t->group; i++) {
        t->delta[i] = v_sel(better, v_sub(best.y[i], t->y[p0 + i]), v_set(0.0f));
        t->y[p0 + i] = v_sel(better, best.y[i], t->y[p0 + i]), t->g[p0 + i] = v_sel(better, best.g[i], t->g[p0 + i]);
        t->code[p0 + i] = v_sel(better, best.code[i], t->code[p0 + i]);
    }
    for (int i = 0; i < per_run && t->s->grid.vec_len > 1; i++) t->q[r * per_run + i] = vi_sel(better, best.q[i], t->q[r * per_run + i]);
    t->scale[r] = v_sel(better, best.scale, t->scale[r]), t->inverse[r] = v_sel(better, best.inverse, t->inverse[r]);
    t->min[r] = v_sel(better, best.min, t->min[r]), t->sc[r] = vi_sel(better, best.sc, t->sc[r]), t->mi[r] = vi_sel(better, best.mi, t->mi[r]);
    t->d[block] = v_sel(better, best.d, t->d[block]), t->dmin[block] = v_sel(better, best.dmin, t->dmin[block]);
    push_span(t, p0, t->group, s0, end, false);
    return true;
}

/* ---- half floats ---- */

/* -H_bb u of the block of n positions from p0 on. */
static void block_product(struct solve_tile *t, const vf *u, int64_t p0, int n, vf *out)
{
    for (int j = 0; j < n; j++) out[j] = v_set(0.0f), t->moved[j] = (int32_t)(p0 + j);
    for (int j = 0; j < n; j += CHUNK) push_16(out + j, &t->h, p0 + j, u, t->moved, n);
}

/* d and dmin of one block: how far their parts of y, u and w, should be stretched: least squares of both, or of one where the other is no use. */
static bool refit_block(struct solve_tile *t, int block, int64_t s0, int64_t end)
{
    const struct grid *g = &t->s->grid;
    vf *u = t->block[0], *w = t->block[1], *Hu = t->block[2], *Hw = t->block[3], zero = v_set(0.0f), one = v_set(1.0f);
    int n = g->type->block_len, r0 = block * t->per_block;
    int64_t p0 = (int64_t)block * n;
    for (int i = 0; i < n; i++) {
        w[i] = t->min[r0 + i / t->group];
        u[i] = v_sub(t->y[p0 + i], w[i]);
    }
    block_product(t, u, p0, n, Hu);
    if (g->n_min) block_product(t, w, p0, n, Hw);
    vf uu = zero, uw = zero, ww = zero, gu = zero, gw = zero;
    for (int i = 0; i < n; i++) {
        uu = v_sub(uu, v_mul(u[i], Hu[i])), gu = v_add(gu, v_mul(u[i], t->g[p0 + i]));
        if (g->n_min) uw = v_sub(uw, v_mul(u[i], Hw[i])), ww = v_sub(ww, v_mul(w[i], Hw[i])), gw = v_add(gw, v_mul(w[i], t->g[p0 + i]));
    }
    vf det = v_sub(v_mul(uu, ww), v_mul(uw, uw));
    vm both = v_lt(v_mul(v_mul(uu, ww), v_set(1e-4f)), det);
    vf a = v_mul(gu, v_inverse(uu)), b = zero;
    if (g->n_min) {
        a = v_sel(both, v_mul(v_sub(v_mul(gu, ww), v_mul(gw, uw)), v_inverse(det)), a);
        b = v_sel(both, v_mul(v_sub(v_mul(gw, uu), v_mul(gu, uw)), v_inverse(det)), b);
    }
    vf d = v_half(v_mul(t->d[block], v_add(one, a))), dmin = v_half(v_mul(t->dmin[block], v_add(one, b)));
    a = v_sub(v_mul(d, v_inverse(t->d[block])), one), b = v_sub(v_mul(dmin, v_inverse(t->dmin[block])), one);
    if (!g->n_min) b = zero;
    vf gain = v_sub(v_add(gu, gu), v_add(v_mul(a, uu), v_mul(v_add(b, b), uw)));
    gain = v_add(v_mul(a, gain), v_mul(b, v_sub(v_add(gw, gw), v_mul(b, ww))));
    vm better = vm_and(v_lt(zero, gain), vm_and(v_lt(v_abs(a), v_set(0.5f)), v_lt(v_abs(b), v_set(0.5f))));
    if (!vm_any(better)) return false;
    t->d[block] = v_sel(better, d, t->d[block]);
    if (g->n_min) t->dmin[block] = v_sel(better, dmin, t->dmin[block]);
    for (int r = r0; r < r0 + t->per_block; r++) {
        t->scale[r] = scale_of(t, t->d[block], t->sc[r]), t->inverse[r] = scale_inverse(t->scale[r]);
        if (g->n_min) t->min[r] = min_of(t, t->dmin[block], t->mi[r]);
    }
    for (int i = 0; i < n; i++) {
        int r = r0 + i / t->group;
        vf y = v_add(v_mul(t->scale[r], t->code[p0 + i]), t->min[r]);
        t->delta[i] = v_sub(y, t->y[p0 + i]), t->y[p0 + i] = y;
    }
    push_span(t, p0, n, s0, end, true);
    return true;
}

/* ---- sweeps ---- */

/* The blocks and groups of one span; what moved in all is then in delta. */
static bool sweep_span(struct solve_tile *t, int64_t s0, int64_t end, bool scales)
{
    bool any = false;
    int n_moves = 0, block = t->per_block * t->group;
    const struct move *move = scales ? moves_of(t, &n_moves) : NULL;
    for (int64_t p = s0; p < end; p++) t->was[p - s0] = t->y[p];
    for (int64_t p = s0; p < end && scales && !t->s->grid.no_half; p += block) any = refit_block(t, (int)(p / block), s0, end) || any;
    for (int64_t p = s0; p < end; p += t->group) any = sweep_group(t, (int)(p / t->group), move, n_moves, s0, end) || any;
    t->n_moved = 0;
    for (int64_t p = s0; p < end && any; p++) {
        vf delta = v_sub(t->y[p], t->was[p - s0]);
        if (vm_any(vm_not(v_eq(delta, v_set(0.0f))))) t->delta[t->n_moved] = delta, t->moved[t->n_moved++] = (int32_t)p;
    }
    return any;
}

/* All rows of a batch once; false when nothing moved. */
static bool sweep(struct solve_batch *b, bool scales)
{
    int64_t n = b->tile[0].n;
    bool moved[TILES] = { false }, any = false;
    for (int64_t s0 = 0; s0 < n; s0 += SPAN) {
        int64_t end = min_i64(s0 + SPAN, n);
        for (int i = 0; i < b->n; i++) {
            b->tile[i].n_moved = 0;
            if (!b->tile[i].done) moved[i] = sweep_span(&b->tile[i], s0, end, scales) || moved[i];
        }
        push_all(b, s0, end);
    }
    for (int i = 0; i < b->n; i++) b->tile[i].done = !moved[i], any = any || moved[i];
    return any;
}

/* avx512_unpacked_tmpl - panels of the formats that panel_tmpl.h, included before, does not know, of the last rows of a matrix, and of floats.
 * to_columns(p, k): where columns k .. go, whatever the format. */

/* ---- any format, any number of rows, through the unpack slot ---- */

/* up to 256 weights of a row */
static void unpack_blocks(const struct kernels *k, const struct dtype *t, const uint8_t *w, int n, struct codes *out)
{
    int groups = t->block_len / t->group_len;
    if (n == t->block_len) {
        k->unpack[t->gguf_id](w, out);
        return;
    }
    for (int i = 0; i < n / t->block_len; i++, w += t->block_bytes) {
        struct codes one;
        k->unpack[t->gguf_id](w, &one);
        memcpy(out->code + i * t->block_len, one.code, (size_t)t->block_len);
        memcpy(out->scale + i * groups, one.scale, (size_t)groups * sizeof(float));
        memcpy(out->min + i * groups, one.min, (size_t)groups * sizeof(float));
    }
}

/* The first n columns of c[] to the panel. */
static void put_unpacked(struct to to, const struct dtype *t, const struct codes c[PANEL_ROWS], int n)
{
    struct rows r = { (const uint8_t *)c, sizeof c[0] };
    V x[4], bias = v_set8(t->code_bias);
    F centre = f_set((float)t->code_bias);
    for (int g = 0; g < n / t->group_len; g += 4) {
        V s[4], m[4] = { 0 };
        columns16(r, offsetof(struct codes, scale) + (size_t)g * 4, s);
        if (t->has_min) columns16(r, offsetof(struct codes, min) + (size_t)g * 4, m);
UNROLL
        for (int i = 0; i < 4; i++) {
            if (g + i >= n / t->group_len) break;
            F scale = f_bits(s[i]);
            put_scale(to, g + i, scale);
            if (to.min) put_min(to, g + i, _mm512_add_ps(f_mul(scale, centre), f_bits(m[i])));
        }
    }
    for (int i = 0; i < n / 16; i++) {
        columns16(r, (size_t)i * 16, x);
UNROLL
        for (int j = 0; j < 4; j++) x[j] = v_sub8(x[j], bias);
        put16(to, 16 * i, x, get_scale(to, i >> (t->group_len == 32)));
    }
}

static void panel_unpacked(const struct kernels *k, struct panel *p, const struct dtype *t, struct rows r, int n_rows, int64_t from)
{
    struct codes c[PANEL_ROWS];
    for (int i = n_rows; i < PANEL_ROWS; i++) { /* zero scales; the code that centres to 0 */
        memset(&c[i], 0, sizeof c[i]);
        memset(c[i].code, t->code_bias, sizeof c[i].code);
    }
    struct stream next = panel_stream(p, false);
    for (int64_t at = from; at < p->nk; at += CHUNK) {
        stream_ask(&next, CHUNK);
        int n = (int)min_i64(CHUNK, p->nk - at), whole = (n + t->block_len - 1) / t->block_len * t->block_len;
        for (int i = 0; i < n_rows; i++) unpack_blocks(k, t, r.w + (size_t)i * r.stride + dtype_row_bytes(t, at), whole, &c[i]);
        put_unpacked(to_columns(p, at), t, c, n);
    }
}

/* ---- float weights ---- */

static void panel_floats(const struct kernels *k, struct panel *p, const struct dtype *t, struct rows r, int n_rows)
{
    enum { COLS = 64 };
    _Alignas(64) float rows[PANEL_ROWS][COLS];
    memset(rows, 0, sizeof rows);
    struct stream next = panel_stream(p, false);
    for (int64_t at = 0; at < p->nk; at += COLS) {
        int64_t n = min_i64(COLS, p->nk - at);
        stream_ask(&next, COLS);
        for (int i = 0; i < n_rows; i++) k->to_f32(t, r.w + (size_t)i * r.stride + (size_t)at * (size_t)t->block_bytes, rows[i], n);
        for (int i = 0; i < n; i += 4) {
            V x[4];
            columns16((struct rows){ (const uint8_t *)rows, sizeof rows[0] }, (size_t)i * sizeof(float), x);
            for (int j = 0; j < 4 && i + j < n; j++) _mm512_storeu_si512(p->f32 + (at + i + j) * PANEL_ROWS, x[j]);
        }
    }
}

/* convert_tok_spm - a SentencePiece model: the protobuf message ModelProto of sentencepiece_model.proto, of which these fields are read:
 *   1 pieces {1 text, 2 score, 3 type}      2 trainer_spec {3 model_type, 24 treat_whitespace_as_suffix, 40..43 unk, bos, eos, pad id}
 *   3 normalizer_spec {2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces, 5 escape_whitespaces}
 * The reader walks fields in place; every length is compared with the bytes left before it is used. */
#include "src/convert_tok_int.h"

/* ---- protobuf ---- */

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct proto {
    const char *file;
    const uint8_t *start, *p, *end; /* start: of the file, for offsets in errors */
    struct err *e;
};

struct field {
    uint32_t number;
    int wire;
    uint64_t value;   /* varint, or the raw bits of a fixed one */
    struct str bytes; /* WIRE_BYTES */
};

static status bad(const struct proto *r, const uint8_t *at, const char *what)
{
    return err_set(r->e, ERR_FORMAT, "%s: byte %lld: %s", r->file, (long long)(at - r->start), what);
}

static status read_varint(struct proto *r, uint64_t *out)
{
    const uint8_t *at = r->p;
    *out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (r->p == r->end) return bad(r, at, "a number is cut off");
        uint8_t b = *r->p++;
        *out |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) return OK;
    }
    return bad(r, at, "a number has more than ten bytes");
}

static status read_fixed(struct proto *r, size_t n, uint64_t *out)
{
    if ((size_t)(r->end - r->p) < n) return bad(r, r->p, "a number is cut off");
    *out = 0;
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)r->p[i] << (8 * i);
    r->p += n;
    return OK;
}

/* The next field of the message; the caller has seen that r->p < r->end. */
static status read_field(struct proto *r, struct field *f)
{
    const uint8_t *at = r->p;
    uint64_t tag;
    TRY(read_varint(r, &tag));
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff) return bad(r, at, "a field number is out of range");
    *f = (struct field){ .number = (uint32_t)(tag >> 3), .wire = (int)(tag & 7) };
    switch (f->wire) {
    case WIRE_VARINT:
        return read_varint(r, &f->value);
    case WIRE_64:
        return read_fixed(r, 8, &f->value);
    case WIRE_32:
        return read_fixed(r, 4, &f->value);
    case WIRE_BYTES:
        TRY(read_varint(r, &f->value));
        if (f->value > (uint64_t)(r->end - r->p))
            return err_set(r->e, ERR_FORMAT, "%s: byte %lld: field %u has %llu bytes, %lld are left", r->file, (long long)(at - r->start), f->number,
                           (unsigned long long)f->value, (long long)(r->end - r->p));
        f->bytes = (struct str){ (const char *)r->p, (size_t)f->value };
        r->p += f->value;
        return OK;
    default:
        return bad(r, at, "a field has an unknown wire type");
    }
}

static struct proto inside(const struct proto *r, struct str bytes)
{
    return (struct proto){ r->file, r->start, (const uint8_t *)bytes.p, (const uint8_t *)bytes.p + bytes.n, r->e };
}

static status expect(const struct proto *r, const struct field *f, int wire, const char *name)
{
    if (f->wire == wire) return OK;
    return err_set(r->e, ERR_FORMAT, "%s: byte %lld: %s has wire type %d, expected %d", r->file, (long long)(r->p - r->start), name, f->wire, wire);
}

/* ---- the model ---- */

struct model {
    int64_t type; /* 1 unigram, 2 BPE, 3 word, 4 char */
    bool suffix;
    int64_t unk, bos, eos, pad;
    bool add_prefix, remove_spaces, escape;
    struct str charsmap;
};

static status read_piece(struct conv *c, struct proto r, int64_t id)
{
    struct str text = { "", 0 };
    float score = 0.0f;
    uint64_t type = CONV_NORMAL;
    while (r.p < r.end) {
        struct field f;
        TRY(read_field(&r, &f));
        if (f.number == 1) {
            TRY(expect(&r, &f, WIRE_BYTES, "a piece's text"));
            text = f.bytes;
        } else if (f.number == 2) {
            TRY(expect(&r, &f, WIRE_32, "a piece's score"));
            uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, sizeof score);
        } else if (f.number == 3) {
            TRY(expect(&r, &f, WIRE_VARINT, "a piece's type"));
            type = f.value;
        }
    }
    if (type < CONV_NORMAL || type > CONV_BYTE)
        return err_set(r.e, ERR_FORMAT, "%s: piece %lld has the type %llu, allowed are %d to %d", r.file, (long long)id, (unsigned long long)type,
                       CONV_NORMAL, CONV_BYTE);
    if (!(score - score == 0.0f)) return err_set(r.e, ERR_FORMAT, "%s: piece %lld has a score that is no number", r.file, (long long)id);
    return conv_put(c, r.file, id, text, score, (int)type, r.e);
}

static status read_trainer(struct model *m, struct proto r)
{
    while (r.p < r.end) {
        struct field f;
        TRY(read_field(&r, &f));
        const struct { uint32_t number; int64_t *to; } rows[] = { { 3, &m->type }, { 40, &m->unk }, { 41, &m->bos }, { 42, &m->eos }, { 43, &m->pad } };
        for (int i = 0; i < ARRAY_LEN(rows); i++) {
            if (rows[i].number != f.number) continue;
            TRY(expect(&r, &f, WIRE_VARINT, "trainer_spec"));
            *rows[i].to = (int64_t)f.value; /* -1 is written as ten bytes */
        }
        if (f.number == 24 && f.wire == WIRE_VARINT) m->suffix = f.value != 0;
    }
    return OK;
}

static status read_normalizer(struct model *m, struct proto r)
{
    while (r.p < r.end) {
        struct field f;
        TRY(read_field(&r, &f));
        const struct { uint32_t number; bool *to; } rows[] = { { 3, &m->add_prefix }, { 4, &m->remove_spaces }, { 5, &m->escape } };
        for (int i = 0; i < ARRAY_LEN(rows); i++) {
            if (rows[i].number != f.number) continue;
            TRY(expect(&r, &f, WIRE_VARINT, "normalizer_spec"));
            *rows[i].to = f.value != 0;
        }
        if (f.number == 2) {
            TRY(expect(&r, &f, WIRE_BYTES, "precompiled_charsmap"));
            m->charsmap = f.bytes;
        }
    }
    return OK;
}

static status read_model(struct conv *c, struct model *m, struct proto r)
{
    int64_t n = 0;
    while (r.p < r.end) {
        struct field f;
        TRY(read_field(&r, &f));
        if (f.number < 1 || f.number > 3) continue;
        TRY(expect(&r, &f, WIRE_BYTES, f.number == 1 ? "a piece" : f.number == 2 ? "trainer_spec" : "normalizer_spec"));
        struct proto in = inside(&r, f.bytes);
        TRY(f.number == 1 ? read_piece(c, in, n++) : f.number == 2 ? read_trainer(m, in) : read_normalizer(m, in));
    }
    if (n == 0) return err_set(r.e, ERR_FORMAT, "%s: no pieces", r.file);
    return OK;
}

static status set_role(struct conv *c, const char *file, enum conv_role role, int64_t id, struct err *e)
{
    if (id < 0) return OK; /* the model has none */
    if (id >= c->n) return err_set(e, ERR_FORMAT, "%s: special id %lld, there are %lld pieces", file, (long long)id, (long long)c->n);
    c->role[role] = (int32_t)id;
    return OK;
}

bool conv_looks_spm(struct str bytes) { return bytes.n > 2 && (bytes.p[0] == 0x0a || bytes.p[0] == 0x12 || bytes.p[0] == 0x1a); }

status conv_read_spm(struct conv *c, const char *file, struct str bytes, struct err *e)
{
    struct model m = { .type = 1, .unk = 0, .bos = 1, .eos = 2, .pad = -1, .add_prefix = true, .remove_spaces = true, .escape = true };
    const uint8_t *p = (const uint8_t *)bytes.p;
    if (!conv_looks_spm(bytes)) return err_set(e, ERR_FORMAT, "%s: not a SentencePiece model", file);
    TRY(read_model(c, &m, (struct proto){ file, p, p, p + bytes.n, e }));
    if (m.type != 1 && m.type != 2) return err_set(e, ERR_FORMAT, "%s: model_type is %lld, supported are 1 (unigram) and 2 (BPE)", file, (long long)m.type);
    if (m.suffix || !m.escape)
        return err_set(e, ERR_FORMAT, "%s: %s is not supported", file, m.suffix ? "treat_whitespace_as_suffix" : "escape_whitespaces off");
    TRY(set_role(c, file, CONV_UNK, m.unk, e));
    TRY(set_role(c, file, CONV_BOS, m.bos, e));
    TRY(set_role(c, file, CONV_EOS, m.eos, e));
    TRY(set_role(c, file, CONV_PAD, m.pad, e));
    bool unigram = m.type == 1;
    c->model = unigram ? "t5" : "llama";
    c->pre = "default";
    c->has_scores = true;
    c->add_space = m.add_prefix;
    c->remove_spaces = unigram || m.remove_spaces ? m.remove_spaces : -1;
    c->charsmap = m.charsmap;
    if (m.charsmap.n && m.charsmap.n < 4) return err_set(e, ERR_FORMAT, "%s: precompiled_charsmap has %zu bytes", file, m.charsmap.n);
    if (!unigram && (m.charsmap.n || m.remove_spaces)) {
        conv_warn(c, "%s: its normalizer (%s) is not applied by models of the kind \"llama\"", file,
                  m.charsmap.n ? "a character map" : "extra spaces removed");
    }
    return OK;
}

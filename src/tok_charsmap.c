/* tok_charsmap - the normalization rules that SentencePiece compiles into its models (tokenizer.ggml.precompiled_charsmap):
 *   u32 bytes of the trie, the trie, then the replacements, each ended by a NUL.
 * The trie is a double array (darts-clone) of 32-bit units:
 *   bits 0-7 and 31   the label, one byte (bit 31 set: no label matches, the unit holds a value)
 *   bit 8             a value follows     bits 10-30, << 8 if bit 9 is set   distance to the children, by XOR
 * A child for byte b of the node at i with distance d stands at i ^ d ^ b; the value, an offset into the replacements, at i ^ d.
 * Little-endian. Every index is checked when it is used: one beyond the trie or the replacements ends the search as "no rule",
 * and a rule that makes a text more than GROWTH_MAX times as long is none. */
#include "src/tokenizer_int.h"

/* Bytes; the longest of the standard rules has 33. What a rule replaces is short too: the search ends there, so that a trie with a loop
 * costs no more than a bounded number of steps at each place of the text. No standard rule makes more than 11 bytes of one. */
enum { REPLACEMENT_MAX = 64, PREFIX_MAX = 128, GROWTH_MAX = 16 };

status tok_charsmap_open(struct tok_charsmap *m, const struct gguf *g, struct err *e)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return OK;
    if (kv->kind != KV_ARR || (kv->elem != KV_U8 && kv->elem != KV_I8)) {
        struct err ge = { 0 };
        gguf_get_arr(g, key, KV_U8, &kv, &ge);
        return err_set(e, ERR_FORMAT, "%s", ge.text);
    }
    if (kv->n == 0) return OK;
    uint32_t n = 0;
    if (kv->n >= sizeof n) memcpy(&n, kv->data, sizeof n);
    if (kv->n < sizeof n || n >= kv->n - sizeof n || n % 4)
        return err_set(e, ERR_FORMAT, "%s has %llu bytes, of which the trie claims %u", key, (unsigned long long)kv->n, n);
    m->unit = kv->data + sizeof n;
    m->n_units = n / 4;
    m->text = (const char *)m->unit + n;
    m->n_text = (size_t)(kv->n - sizeof n - n);
    if (m->text[m->n_text - 1]) return err_set(e, ERR_FORMAT, "%s: the last replacement has no end", key);
    for (size_t i = 0, run = 0; i < m->n_text; i++) {
        run = m->text[i] ? run + 1 : 0;
        if (run > REPLACEMENT_MAX)
            return err_set(e, ERR_FORMAT, "%s: the replacement around byte %zu has more than %d bytes", key, i, REPLACEMENT_MAX);
    }
    return OK;
}

static uint32_t unit_at(const struct tok_charsmap *m, uint32_t i)
{
    uint32_t unit;
    memcpy(&unit, m->unit + (size_t)i * sizeof unit, sizeof unit);
    return unit;
}

static uint32_t distance(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

bool tok_charsmap_find(const struct tok_charsmap *m, const char *p, size_t n, struct str *out, size_t *used)
{
    enum { HAS_VALUE = 1 << 8 };
    const uint32_t label = 1u << 31 | 0xff, value = ~(1u << 31);
    bool found = false;
    uint32_t at = 0;
    if (m->n_units == 0) return false;
    at = distance(unit_at(m, 0));
    if (n > PREFIX_MAX) n = PREFIX_MAX;
    for (size_t i = 0; i < n && p[i]; i++) {
        at ^= (uint8_t)p[i];
        if (at >= m->n_units) break;
        uint32_t unit = unit_at(m, at);
        if ((unit & label) != (uint8_t)p[i]) break;
        at ^= distance(unit);
        if (!(unit & HAS_VALUE)) continue;
        if (at >= m->n_units) break;
        size_t begin = unit_at(m, at) & value;
        if (begin >= m->n_text) break;
        struct str text = { m->text + begin, strlen(m->text + begin) };
        if (text.n > GROWTH_MAX * (i + 1)) continue;
        *out = text;
        *used = i + 1;
        found = true;
    }
    return found;
}

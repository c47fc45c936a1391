/* unicode - see unicode.h. Well-formedness: Unicode standard, table 3-7. */
#include "src/unicode.h"
#include <stdbool.h>

static bool is_tail(char c) { return ((uint8_t)c & 0xc0) == 0x80; }

int unicode_decode(const char *p, size_t n, uint32_t *cp)
{
    uint32_t c = (uint8_t)p[0];
    *cp = UNICODE_INVALID;
    if (c < 0x80) {
        *cp = c;
        return 1;
    }
    int len = c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (len == 0 || (size_t)len > n) return 1;
    c &= 0x7fu >> len;
    for (int i = 1; i < len; i++) {
        if (!is_tail(p[i])) return 1;
        c = c << 6 | ((uint8_t)p[i] & 0x3f);
    }
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (c < least[len] || c > UNICODE_MAX || (c >= 0xd800 && c < 0xe000)) return 1;
    *cp = c;
    return len;
}

int unicode_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    static const uint8_t lead[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    out[0] = (char)(lead[len] | cp);
    return len;
}

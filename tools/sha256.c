/* sha256 - see sha256.h. Plain C, some 250 MB/s: a file is read from the disk no faster on most machines. */
#include "tools/sha256.h"
#include "tools/cli.h"
#include <stdio.h>
#include <string.h>

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2). */
static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

static inline void one(uint32_t a, uint32_t b, uint32_t c, uint32_t *d, uint32_t e, uint32_t f, uint32_t g, uint32_t *h, uint32_t kw)
{
    uint32_t t = *h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + (g ^ (e & (f ^ g))) + kw;
    *d += t;
    *h = t + (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) | (c & (a | b)));
}

/* Names turn, not values: moving those took three quarters of the time. */
static void block(uint32_t state[8], const uint8_t *p)
{
    uint32_t w[64], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ x >> 3) + w[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ y >> 10);
    }
    for (int i = 0; i < 64; i += 8) {
        one(a, b, c, &d, e, f, g, &h, k[i] + w[i]);
        one(h, a, b, &c, d, e, f, &g, k[i + 1] + w[i + 1]);
        one(g, h, a, &b, c, d, e, &f, k[i + 2] + w[i + 2]);
        one(f, g, h, &a, b, c, d, &e, k[i + 3] + w[i + 3]);
        one(e, f, g, &h, a, b, c, &d, k[i + 4] + w[i + 4]);
        one(d, e, f, &g, h, a, b, &c, k[i + 5] + w[i + 5]);
        one(c, d, e, &f, g, h, a, &b, k[i + 6] + w[i + 6]);
        one(b, c, d, &e, f, g, h, &a, k[i + 7] + w[i + 7]);
    }
    const uint32_t end[8] = { a, b, c, d, e, f, g, h };
    for (int i = 0; i < 8; i++) state[i] += end[i];
}

void sha256_init(struct sha256 *s)
{
    *s = (struct sha256){ { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 }, 0, { 0 } };
}

void sha256_add(struct sha256 *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    while (n > 0) {
        size_t at = s->bytes % 64, part = 64 - at < n ? 64 - at : n;
        if (part == 64) block(s->h, p);
        else memcpy(s->block + at, p, part);
        if (part < 64 && at + part == 64) block(s->h, s->block);
        s->bytes += part, p += part, n -= part;
    }
}

void sha256_text(struct sha256 *s, char hex[65])
{
    uint64_t bits = s->bytes * 8;
    uint8_t pad[72] = { 0x80 };
    size_t n = 1 + (119 - s->bytes % 64) % 64;
    for (int i = 0; i < 8; i++) pad[n + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_add(s, pad, n + 8);
    for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", (unsigned)s->h[i]);
}

status sha256_file(const char *path, char hex[65], struct err *e)
{
    enum { PIECE = 1 << 16 };
    uint8_t buf[PIECE];
    struct file_reader r;
    struct sha256 s;
    status st = OK;
    TRY(file_reader_open(&r, path, e));
    sha256_init(&s);
    for (uint64_t at = 0; st == OK && at < r.size; at += PIECE) {
        size_t n = r.size - at < PIECE ? (size_t)(r.size - at) : PIECE;
        st = file_reader_read(&r, buf, n, (size_t)at, e);
        if (st == OK) sha256_add(&s, buf, n);
        if (st == OK && cli_interrupted) st = err_set(e, ERR_INTERRUPTED, "interrupted");
    }
    sha256_text(&s, hex);
    file_reader_close(&r);
    return st;
}

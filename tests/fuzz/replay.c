/* replay - runs a fuzz target over files without a fuzzer, and over seeded mutations of each:  fuzz_gguf [-m N] FILE...
 * A crash, a sanitizer report or a hang is the failure; every file counts as one claim. */
#include "tests/test.h"
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static uint64_t rng = 1;
static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    return rng ^= rng << 17;
}

/* One to four edits: flipped bits, small integers, extreme 64-bit values, cuts, copied stretches. */
static size_t mutate(const uint8_t *in, size_t n, uint8_t *out)
{
    static const uint64_t extreme[] = { 0, 1, 0x7f, 0xff, 0x7fffffff, 0xffffffff, 0x100000000, 0x7fffffffffffffff, 0xffffffffffffffff };
    memcpy(out, in, n);
    for (int edits = 1 + (int)(next() % 4); edits > 0 && n > 0; edits--) {
        size_t at = next() % n;
        if (next() % 2) at %= 64 < n ? 64 : n; /* headers are where structure is */
        switch (next() % 5) {
        case 0: out[at] ^= (uint8_t)(1u << next() % 8); break;
        case 1: out[at] = (uint8_t)next(); break;
        case 2: {
            uint64_t v = extreme[next() % 9];
            memcpy(out + at, &v, n - at < 8 ? n - at : 8);
            break;
        }
        case 3: n = at; break;
        default: {
            size_t from = next() % n, len = next() % 32;
            if (from + len <= n && at + len <= n) memmove(out + at, out + from, len);
        }
        }
    }
    return n;
}

int main(int argc, char **argv)
{
    int mutations = 0, passed = 0, failed = 0, first = 1;
    if (argc > 2 && !strcmp(argv[1], "-m")) {
        mutations = atoi(argv[2]);
        first = 3;
    }
    for (int i = first; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f) {
            printf("FAIL cannot open %s\n", argv[i]);
            failed++;
            continue;
        }
        static uint8_t in[1 << 20];
        size_t n = fread(in, 1, sizeof in, f);
        fclose(f);
        for (int m = 0; m <= mutations; m++) {
            uint8_t *exact = malloc(n ? n : 1); /* exact size: one byte too far is caught */
            size_t len = n;
            if (m == 0) memcpy(exact, in, n);
            else len = mutate(in, n, exact);
            uint8_t *cut = malloc(len ? len : 1);
            memcpy(cut, exact, len);
            free(exact);
            alarm(20);
            LLVMFuzzerTestOneInput(cut, len);
            alarm(0);
            free(cut);
        }
        passed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0 || passed == 0;
}

/* fuzz_tokenizer - input: u32 n, n bytes of a GGUF file, then text. Any vocabulary opens or is refused with a reason; with one that opens
 * any text encodes, whatever the flags, to ids in range, to as many as counting says, and decoding stays inside its buffer. */
#include "src/tokenizer.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct tokenizer *t, const char *text, size_t n, unsigned flags)
{
    struct err e = { 0 };
    int64_t need = 0, again = 0;
    if (tokenizer_encode(t, text, n, flags, NULL, 0, &need, &e) != OK) abort();
    int32_t *ids = malloc((size_t)need * sizeof *ids + 1);
    if (!ids || tokenizer_encode(t, text, n, flags, ids, need, &again, &e) != OK || again != need) abort();
    size_t sum = 0, bytes = tokenizer_decode(t, ids, need, true, NULL, 0);
    for (int64_t i = 0; i < need; i++) {
        if (ids[i] < 0 || ids[i] >= tokenizer_size(t)) abort();
        sum += tokenizer_piece(t, ids[i], true, NULL, 0);
    }
    char *back = malloc(bytes + 1);
    if (!back || bytes > sum || tokenizer_decode(t, ids, need, true, back, bytes) != bytes) abort();
    free(back);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t n;
    if (size < sizeof n) return 0;
    memcpy(&n, data, sizeof n);
    data += sizeof n, size -= sizeof n;
    if (n > size) n = (uint32_t)size;
    struct gguf g;
    struct tokenizer *t;
    struct err e = { 0 };
    if (gguf_parse(&g, data, n, "input", &e) != OK) return 0;
    if (tokenizer_open(&t, &g, NULL, &e) == OK) {
        for (unsigned flags = 0; flags < 4; flags++) use(t, (const char *)data + n, size - n, flags);
        for (int32_t id = -1; id <= tokenizer_size(t); id++)
            (void)tokenizer_text(t, id), (void)tokenizer_attr(t, id), (void)tokenizer_is_end(t, id);
        tokenizer_close(t);
    } else if (t || e.text[0] == 0 || (e.code != ERR_FORMAT && e.code != ERR_MEMORY)) {
        abort();
    }
    gguf_close(&g);
    return 0;
}

/* fuzz_torch - as fuzz_safetensors for torch files. What does not begin like a zip is taken as the data.pkl of one, so that the pickle machine is
 * reached without a zip's lengths having to agree. */
#include "tests/checkpoint_use.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct checkpoint c;
    struct err e = { 0 };
    struct zip_out *z = NULL;
    if (size > 1 << 16) return 0;
    if (size < 2 || memcmp(data, "PK", 2)) {
        z = calloc(1, sizeof *z);
        if (!z) return 0;
        zip_torch(z, data, size);
        data = z->p, size = z->n;
    }
    uint8_t *exact = malloc(size); /* one byte too far is caught */
    memcpy(exact, data, size);
    free(z);
    if (checkpoint_parse(&c, exact, size, "input", &e) == OK) {
        checkpoint_use(&c);
        checkpoint_close(&c);
    } else if (e.text[0] == 0 || (e.code != ERR_FORMAT && e.code != ERR_MEMORY)) {
        abort();
    }
    free(exact);
    return 0;
}

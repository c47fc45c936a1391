/* fuzz_gguf - any bytes open or are refused with a reason; what opens can be used. Build with a fuzzer's main
 * (clang -fsanitize=fuzzer,address,undefined) or with any main that feeds files. */
#include "tests/gguf_use.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf g;
    struct err e = { 0 };
    if (gguf_parse(&g, data, size, "input", &e) == OK) {
        gguf_use(&g);
        gguf_close(&g);
    } else if (e.text[0] == 0 || (e.code != ERR_FORMAT && e.code != ERR_MEMORY)) {
        abort();
    }
    return 0;
}

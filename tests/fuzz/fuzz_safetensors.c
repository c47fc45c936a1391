/* fuzz_safetensors - any bytes open as a checkpoint or are refused with a reason; what opens can be read. */
#include "tests/checkpoint_use.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct checkpoint c;
    struct err e = { 0 };
    if (checkpoint_parse(&c, data, size, "input", &e) == OK) {
        checkpoint_use(&c);
        checkpoint_close(&c);
    } else if (e.text[0] == 0 || (e.code != ERR_FORMAT && e.code != ERR_MEMORY)) {
        abort();
    }
    return 0;
}

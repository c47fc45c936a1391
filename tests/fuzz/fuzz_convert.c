/* fuzz_convert - input: config.json and the names and shapes of a checkpoint (tests/convert_use.h). Any directory is converted or refused with a reason;
 * what was converted opens and runs, or is refused with a reason. */
#include "tests/convert_use.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
__attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max); /* libFuzzer's */

static char dir[64];

static void clean(void)
{
    static const char *const names[] = { "config.json", "tokenizer.json", "model.safetensors", "out.gguf" };
    for (int i = 0; i < ARRAY_LEN(names); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        (void)remove(path);
    }
    (void)rmdir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = { 0 };
    if (!dir[0]) {
        const char *base = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
        snprintf(dir, sizeof dir, "%s/cuanto_fuzz_convert_%d", base, (int)getpid());
        mkdir(dir, 0700);
        use_put_tokenizer(dir);
        atexit(clean);
    }
    if (size < 1 << 16 && use_make(dir, (const char *)data, size)) (void)use_convert(dir, &e);
    return 0;
}

/* Half of the mutations put another value behind a name. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    uint32_t rng = seed * 2654435761u + 1, n = 0;
    size_t place = 0;
    for (size_t i = 0; seed % 2 && i + 1 < size; i++) {
        rng = rng * 1664525u + 1013904223u;
        if (data[i] == '"' && data[i + 1] == ':' && (rng >> 8) % ++n == 0) place = i + 2;
    }
    if (!place) return LLVMFuzzerMutate(data, size, max);
    const char *value = use_values[(rng >> 16) % ARRAY_LEN(use_values)], *end = use_value_end((char *)data + place, (char *)data + size);
    size_t old = (size_t)(end - (char *)data) - place, len = strlen(value);
    if (size - old + len > max) return LLVMFuzzerMutate(data, size, max);
    memmove(data + place + len, data + place + old, size - place - old);
    memcpy(data + place, value, len);
    return size - old + len;
}

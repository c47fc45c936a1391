/* guard - mappings are kept and taken again: some claims have ten thousands of buffers, and a mapping of its own for each costs four system calls. */
#include "tests/guard.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes)
#endif

enum { MAPPINGS = 64, LEAST = 1 << 16 };

static struct mapping { uint8_t *at; size_t bytes; void *taken; } mappings[MAPPINGS];

static void map(struct mapping *m, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (m->bytes = LEAST; m->bytes < bytes;) m->bytes *= 2;
    m->at = mmap(NULL, m->bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m->at == MAP_FAILED || mprotect(m->at + m->bytes, page, PROT_NONE)) abort();
}

void *guard_new(size_t bytes, size_t align)
{
    bytes = (bytes + align - 1) & ~(align - 1);
    for (struct mapping *m = mappings; m < mappings + MAPPINGS; m++) {
        if (m->taken || (m->at && m->bytes < bytes)) continue;
        if (!m->at) map(m, bytes);
        m->taken = m->at + m->bytes - bytes;
        ASAN_POISON_MEMORY_REGION(m->at, m->bytes - bytes);
        ASAN_UNPOISON_MEMORY_REGION(m->taken, bytes);
        return m->taken;
    }
    abort();
}

void guard_free(void *p)
{
    for (struct mapping *m = mappings; m < mappings + MAPPINGS; m++)
        if (p && m->taken == p) {
            m->taken = NULL;
            return;
        }
    abort();
}

/* guard - buffers that end at a page which cannot be touched. What steps behind them ends the process, loads of tile registers too, which no sanitizer sees. */
#pragma once
#include <stddef.h>

/* guard_new - the address is a multiple of align (a power of 2), the end of the buffer less than align before the page; the bytes are those of an earlier
 * buffer. An address sanitizer sees what steps before them. One thread at a time. guard_free keeps the mapping for the next one. */
void *guard_new(size_t bytes, size_t align);
void guard_free(void *p);

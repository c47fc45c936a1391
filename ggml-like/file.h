/* file - read-only view of a whole regular file, and files that appear complete or not at all.
 * Nothing else in the project opens files for model data. */
#pragma once
#include "ggml-like/base.h"

struct file {
    const uint8_t *data; /* [size], valid until file_close */
    size_t size;
    bool mapped;         /* false: read into memory with pread */
    int64_t mtime_ns;
    uint64_t dev, ino;
};

/* file_open - maps the file (or reads it when use_mmap is false or mapping fails). ERR_FILE with the path and the reason for: missing,
 * no permission, directory, FIFO or device (never blocks on them). An empty file is OK here (size 0). */
status file_open(struct file *f, const char *path, bool use_mmap, struct err *e) MUST_USE;
void file_close(struct file *f); /* accepts a zeroed struct */

/* file_text - reads a whole small file ("-" = stdin) into memory from mem_alloc, NUL-terminated; *n = length without the NUL.
 * ERR_FILE, or ERR_USAGE when larger than max bytes. The caller frees *out. */
status file_text(const char *path, size_t max, char **out, size_t *n, struct err *e) MUST_USE;

/* Atomic write: file_create opens "<path>.part-<pid>" beside the target, file_write appends, file_commit flushes to disk and renames over
 * path, file_abort removes the part. A crash leaves the old target untouched. Errors name the path. */
struct file_out {
    int fd; /* -1 when closed */
    char *path, *part;
};
status file_create(struct file_out *f, const char *path, struct err *e) MUST_USE;
status file_write(struct file_out *f, const void *p, size_t n, struct err *e) MUST_USE;
status file_commit(struct file_out *f, struct err *e) MUST_USE;
void file_abort(struct file_out *f); /* accepts a committed one */

/* mem_map/mem_unmap - zeroed anonymous pages, touched lazily (KV caches). NULL when refused. */
void *mem_map(size_t bytes) MUST_USE;
void mem_unmap(void *p, size_t bytes);

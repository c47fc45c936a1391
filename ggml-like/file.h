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
    bool keeps; /* made by file_part: a commit that fails leaves the part */
};
status file_create(struct file_out *f, const char *path, struct err *e) MUST_USE;
status file_write(struct file_out *f, const void *p, size_t n, struct err *e) MUST_USE;
status file_commit(struct file_out *f, struct err *e) MUST_USE;
void file_abort(struct file_out *f); /* accepts a committed one */
/* file_sweep - removes the parts of file_create for this path whose process was killed: nobody holds their lock. */
void file_sweep(const char *path);

/* A file that grows piece by piece, in any order, by several threads, over several runs: "<path>.part" until file_commit renames it over path.
 * file_part - opens it, or creates it; *existed tells which. ERR_RUNTIME when another process has it open. For a symbolic link, the part is
 * beside the file it leads to (file_target). */
status file_part(struct file_out *f, const char *path, bool *existed, struct err *e) MUST_USE;
status file_write_at(struct file_out *f, const void *p, size_t n, size_t offset, struct err *e) MUST_USE;
/* file_read_at - *got < n where the part ends early. */
status file_read_at(struct file_out *f, void *p, size_t n, size_t offset, size_t *got, struct err *e) MUST_USE;
status file_flush(struct file_out *f, struct err *e) MUST_USE;                /* what was written is on disk when it returns */
status file_resize(struct file_out *f, size_t size, struct err *e) MUST_USE;  /* gaps read as zeros */
void file_forget_cache(struct file_out *f);                                   /* after file_flush: the next read comes from the disk */
void file_leave(struct file_out *f);                                          /* closes, keeps the part; accepts a closed one */

/* A file read in pieces, by several threads: what streams a file larger than memory uses, where a mapping would fill it, and where a failing disk
 * must be an error and not a signal. */
struct file_reader { int fd; char *path; uint64_t dev, ino, size; int64_t mtime_ns; };
status file_reader_open(struct file_reader *r, const char *path, struct err *e) MUST_USE;
void file_reader_close(struct file_reader *r); /* accepts a closed one: fd -1, path NULL */
status file_reader_read(struct file_reader *r, void *p, size_t n, size_t offset, struct err *e) MUST_USE; /* all n bytes, or ERR_FILE */
void file_reader_want(struct file_reader *r, size_t n, size_t offset);      /* a hint: soon */
void file_reader_drop(struct file_reader *r, size_t n, size_t offset);      /* a hint: not again; frees the system's cache of these bytes */
/* file_reader_unchanged - ERR_FORMAT when size or time are no longer what they were at open. */
status file_reader_unchanged(struct file_reader *r, struct err *e) MUST_USE;

/* file_stat - what stands at path: false when nothing does. dev and ino of the file that a link leads to. */
struct file_facts { uint64_t dev, ino, size, allocated; bool regular; };
bool file_stat(const char *path, struct file_facts *facts);
/* file_target - what a write to path would replace: path itself, or the file that a symbolic link leads to. False when it is too long for cap, or
 * leads nowhere. */
bool file_target(const char *path, char *target, size_t cap);
uint64_t file_room(const char *path); /* free bytes where path is or would be; UINT64_MAX when not known */
/* file_write_speed - bytes a second that reach the disk where path would be, without what each flush costs by itself: from some writes of `bytes`
 * and a quarter of that to an unnamed file. 0 when not known. */
double file_write_speed(const char *path, size_t bytes);

/* mem_map_file - zeroed pages that the system may write to a file instead of keeping them in memory. The file has no name any more when this returns, so
 * it goes with the memory. ERR_USAGE when something stands at path, ERR_RUNTIME, ERR_MEMORY. Freed by mem_unmap. */
status mem_map_file(void **out, const char *path, size_t bytes, struct err *e) MUST_USE;

/* mem_map/mem_unmap - zeroed anonymous pages, touched lazily (KV caches). NULL when refused. */
void *mem_map(size_t bytes) MUST_USE;
/* mem_map_dense - the same for what will all be used: in large pages, where the system has them. */
void *mem_map_dense(size_t bytes) MUST_USE;
void mem_unmap(void *p, size_t bytes);
/* mem_room - dense memory that grows when more is needed; growing forgets what it held. mem_room_drop frees it; a zeroed one has none. */
struct mem_room {
    uint8_t *p;
    size_t n;
};
status mem_room_for(struct mem_room *r, size_t n, struct err *e) MUST_USE;
void mem_room_drop(struct mem_room *r);
size_t mem_touched(const void *p, size_t bytes); /* of these, in memory now, in whole pages. 0 when not known */

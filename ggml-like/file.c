/* file - the operating system's files behind four small contracts. Knows bytes and paths, no formats. Only regular files are read or
 * replaced; every open is non-blocking and close-on-exec; every read and write loops over EINTR and short counts. */
#include "ggml-like/file.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    IO_MAX = 1 << 30,      /* bytes of one read or write; Linux stops at 2 GiB - 4 KiB, some systems fail above INT_MAX */
    TEXT_FIRST = 64 << 10, /* first buffer for texts of unknown size */
};

static status err_errno(struct err *e, status code, const char *path, const char *what, int error)
{
    return err_set(e, code, "%s: %s: %s", path, what, strerror(error));
}

/* ---- reading ---- */

static const char *kind_of(mode_t mode)
{
    if (S_ISDIR(mode)) return "is a directory";
    if (S_ISFIFO(mode)) return "is a FIFO";
    if (S_ISSOCK(mode)) return "is a socket";
    return "is a device";
}

/* O_NONBLOCK: opening a FIFO must not wait for a writer; the flag has no effect on regular files. */
static status open_regular(const char *path, int *fd, struct stat *st, struct err *e)
{
    do *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    while (*fd < 0 && errno == EINTR);
    if (*fd < 0) return err_errno(e, ERR_FILE, path, "cannot open", errno);
    status s = OK;
    if (fstat(*fd, st) != 0) s = err_errno(e, ERR_FILE, path, "cannot examine", errno);
    else if (!S_ISREG(st->st_mode)) s = err_set(e, ERR_FILE, "%s: %s, not a regular file", path, kind_of(st->st_mode));
    if (s != OK) close(*fd);
    return s;
}

static ssize_t read_some(int fd, void *p, size_t n)
{
    ssize_t got;
    do got = read(fd, p, n < IO_MAX ? n : IO_MAX);
    while (got < 0 && errno == EINTR);
    return got;
}

static status read_all(int fd, uint8_t *p, size_t n, const char *path, struct err *e)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = pread(fd, p + at, n - at < IO_MAX ? n - at : IO_MAX, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_errno(e, ERR_FILE, path, "cannot read", errno);
        if (got == 0) return err_set(e, ERR_FILE, "%s: ends at byte %zu, expected %zu (shortened while reading)", path, at, n);
        at += (size_t)got;
    }
    return OK;
}

static status read_copy(struct file *f, int fd, const char *path, struct err *e)
{
    uint8_t *p = mem_map(f->size);
    if (!p) return err_oom(e, path, f->size);
    status s = read_all(fd, p, f->size, path, e);
    if (s == OK) f->data = p;
    else mem_unmap(p, f->size);
    return s;
}

/* A file that is not in memory yet is then read in pieces of 4 MiB and stays there in pages of 2 MiB: cold start 330 -> 195 ms (469 MiB), and every
 * later mapping costs 15 ns for each 4 KiB, where pages of ordinary read-ahead cost 38 and those of small writes 330 to 570. No other advice: populating
 * costs what the faults cost (400 against 570 ns in pages of 4 KiB, 23 against 38 in large ones), WILLNEED and SEQUENTIAL read no faster than touching. */
static bool map_file(struct file *f, int fd)
{
    void *p = mmap(NULL, f->size, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return false;
    (void)!madvise(p, f->size, MADV_HUGEPAGE);
    f->data = p;
    f->mapped = true;
    return true;
}

status file_open(struct file *f, const char *path, bool use_mmap, struct err *e)
{
    *f = (struct file){ 0 };
    int fd;
    struct stat st;
    TRY(open_regular(path, &fd, &st, e));
    f->size = (size_t)st.st_size;
    f->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    f->dev = (uint64_t)st.st_dev;
    f->ino = (uint64_t)st.st_ino;
    status s = OK;
    if (st.st_size < 0 || (uintmax_t)st.st_size > PTRDIFF_MAX) s = err_set(e, ERR_FILE, "%s: too large for this machine", path);
    else if (f->size == 0) f->data = (const uint8_t *)"";
    else if (!use_mmap || !map_file(f, fd)) s = read_copy(f, fd, path, e);
    close(fd);
    if (s != OK) *f = (struct file){ 0 };
    return s;
}

void file_close(struct file *f)
{
    if (f->size) mem_unmap((void *)(uintptr_t)f->data, f->size); /* a mapping and a copy end the same way */
    *f = (struct file){ 0 };
}

/* ---- reading in pieces ---- */

status file_reader_open(struct file_reader *r, const char *path, struct err *e)
{
    struct stat st;
    *r = (struct file_reader){ .fd = -1 };
    int fd;
    TRY(open_regular(path, &fd, &st, e));
    size_t n = strlen(path) + 1;
    char *copy = mem_alloc(n);
    if (!copy) {
        close(fd);
        return err_oom(e, path, n);
    }
    memcpy(copy, path, n);
    *r = (struct file_reader){ fd, copy, (uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size,
                               (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec };
    return OK;
}

void file_reader_close(struct file_reader *r)
{
    if (r->path) close(r->fd);
    mem_free(r->path);
    *r = (struct file_reader){ .fd = -1 };
}

status file_reader_read(struct file_reader *r, void *p, size_t n, size_t offset, struct err *e)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = pread(r->fd, (char *)p + at, n - at < IO_MAX ? n - at : IO_MAX, (off_t)(offset + at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_errno(e, ERR_FILE, r->path, "cannot read", errno);
        if (got == 0)
            return err_set(e, ERR_FILE, "%s: ends at byte %zu, expected %zu (shortened while reading)", r->path, offset + at, offset + n);
        at += (size_t)got;
    }
    return OK;
}

void file_reader_want(struct file_reader *r, size_t n, size_t offset) { (void)!posix_fadvise(r->fd, (off_t)offset, (off_t)n, POSIX_FADV_WILLNEED); }

void file_reader_drop(struct file_reader *r, size_t n, size_t offset) { (void)!posix_fadvise(r->fd, (off_t)offset, (off_t)n, POSIX_FADV_DONTNEED); }

status file_reader_unchanged(struct file_reader *r, struct err *e)
{
    struct stat st;
    if (fstat(r->fd, &st) != 0) return err_errno(e, ERR_FILE, r->path, "cannot examine", errno);
    if ((uint64_t)st.st_size == r->size && (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec == r->mtime_ns) return OK;
    return err_set(e, ERR_FORMAT, "%s: changed while it was being read", r->path);
}

static status too_large(const char *path, size_t max, struct err *e)
{
    return err_set(e, ERR_USAGE, "%s: larger than the limit of %zu bytes", path, max);
}

/* Reads to the end of fd; `cap` is a guess. One byte more than max is asked for, so that "larger" shows. */
static status read_text(int fd, const char *name, size_t cap, size_t max, char **out, size_t *n, struct err *e)
{
    char *buf = NULL;
    size_t len = 0;
    status s = OK;
    for (;;) {
        char *grown = mem_realloc(buf, cap + 1);
        if (!grown) {
            s = err_oom(e, name, cap + 1);
            break;
        }
        buf = grown;
        ssize_t got = 1;
        while (len < cap && (got = read_some(fd, buf + len, cap - len)) > 0) len += (size_t)got;
        if (got < 0) s = err_errno(e, ERR_FILE, name, "cannot read", errno);
        else if (len > max) s = too_large(name, max, e);
        if (s != OK || got == 0) break;
        cap = cap < max / 2 ? cap * 2 : max + 1;
    }
    if (s != OK) {
        mem_free(buf);
        return s;
    }
    buf[len] = 0;
    *out = buf;
    *n = len;
    return OK;
}

status file_text(const char *path, size_t max, char **out, size_t *n, struct err *e)
{
    *out = NULL;
    *n = 0;
    if (max > PTRDIFF_MAX - 2) max = PTRDIFF_MAX - 2;
    if (!strcmp(path, "-")) return read_text(STDIN_FILENO, "standard input", TEXT_FIRST, max, out, n, e);
    int fd;
    struct stat st;
    TRY(open_regular(path, &fd, &st, e));
    status s;
    if (st.st_size > 0 && (uintmax_t)st.st_size > max) {
        s = too_large(path, max, e);
    } else {
        size_t guess = st.st_size > 0 ? (size_t)st.st_size + 1 : TEXT_FIRST; /* /proc says 0; + 1 meets the end in the first round */
        s = read_text(fd, path, guess, max, out, n, e);
    }
    close(fd);
    return s;
}

/* ---- writing ---- */

/* Refusals that another path cures are the user's business, the rest (disk full, EIO, no descriptors) happened while working. */
static status code_of(int error)
{
    static const int usage[] = { EACCES, EPERM, ENOENT, ENOTDIR, EISDIR, EROFS, ENAMETOOLONG, ELOOP };
    for (int i = 0; i < ARRAY_LEN(usage); i++)
        if (usage[i] == error) return ERR_USAGE;
    return ERR_RUNTIME;
}

/* The file that is to be replaced: symbolic links are followed, so that a link keeps pointing at the new content. *mode = its
 * permissions, or 0 if there is none yet. */
static status resolve_target(const char *path, char real[PATH_MAX], mode_t *mode, struct err *e)
{
    struct stat st;
    *mode = 0;
    size_t n = strlen(path);
    if (n == 0) return err_set(e, ERR_USAGE, "the output path is empty");
    if (n >= PATH_MAX) return err_errno(e, ERR_USAGE, path, "cannot create", ENAMETOOLONG);
    if (path[n - 1] == '/') return err_set(e, ERR_USAGE, "%s: names a directory, not a file", path);
    memcpy(real, path, n + 1);
    if (lstat(path, &st) != 0) return errno == ENOENT ? OK : err_errno(e, code_of(errno), path, "cannot create", errno);
    if (S_ISLNK(st.st_mode) && (!realpath(path, real) || lstat(real, &st) != 0))
        return err_errno(e, code_of(errno), path, "cannot follow the symbolic link", errno);
    if (!S_ISREG(st.st_mode)) return err_set(e, ERR_USAGE, "%s: %s, not a regular file", path, kind_of(st.st_mode));
    *mode = st.st_mode & 0777;
    return OK;
}

/* A part of the same name without a lock was left by a crash under a recycled process id (containers give everybody the same one). */
static bool remove_stale_part(const char *part)
{
    int fd = open(part, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return false;
    bool stale = flock(fd, LOCK_EX | LOCK_NB) == 0 && unlink(part) == 0;
    close(fd);
    return stale;
}

static int open_part(const char *part)
{
    int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EEXIST) {
        if (remove_stale_part(part)) fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        else errno = EEXIST;
    }
    if (fd >= 0) (void)!flock(fd, LOCK_EX | LOCK_NB); /* some network file systems have none: then a stale part needs a hand */
    return fd;
}

static void forget(struct file_out *f)
{
    mem_free(f->path);
    mem_free(f->part);
    *f = (struct file_out){ .fd = -1 };
}

static status copy_names(struct file_out *f, const char *path, bool with_pid, struct err *e)
{
    size_t n = strlen(path), cap = n + sizeof ".part-" + 20;
    f->path = mem_alloc(n + 1);
    f->part = mem_alloc(cap);
    if (!f->path || !f->part) return err_oom(e, path, cap);
    memcpy(f->path, path, n + 1);
    if (with_pid) snprintf(f->part, cap, "%s.part-%lld", path, (long long)getpid());
    else snprintf(f->part, cap, "%s.part", path);
    return OK;
}

status file_create(struct file_out *f, const char *path, struct err *e)
{
    *f = (struct file_out){ .fd = -1 };
    char real[PATH_MAX];
    mode_t mode;
    TRY(resolve_target(path, real, &mode, e));
    status s = copy_names(f, real, true, e);
    if (s == OK && (f->fd = open_part(f->part)) < 0) s = err_errno(e, code_of(errno), f->path, "cannot create", errno);
    if (s != OK) {
        forget(f);
        return s;
    }
    if (mode) (void)!fchmod(f->fd, mode); /* a private file stays private; where the file system refuses, the default stands */
    return OK;
}

status file_write(struct file_out *f, const void *p, size_t n, struct err *e)
{
    assert(f->fd >= 0);
    const char *at = p;
    while (n > 0) {
        ssize_t put = write(f->fd, at, n < IO_MAX ? n : IO_MAX);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return err_errno(e, ERR_RUNTIME, f->path, "cannot write", errno);
        at += put;
        n -= (size_t)put;
    }
    return OK;
}

static int fsync_retry(int fd)
{
    int r;
    do r = fsync(fd);
    while (r != 0 && errno == EINTR);
    return r;
}

/* "dir/name" -> "dir/."; false when it is too long. */
static bool folder_of(const char *path, char dir[PATH_MAX + 1])
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 0;
    if (n >= PATH_MAX) return false;
    memcpy(dir, path, n);
    memcpy(dir + n, ".", 2);
    return true;
}

/* rename is atomic but not durable before its directory is on disk. Directories that may not be read, or file systems that cannot
 * flush them, offer nothing better: no error. */
static status sync_directory(const char *path, struct err *e)
{
    char dir[PATH_MAX + 1];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 0;
    memcpy(dir, path, n);
    memcpy(dir + n, ".", 2);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return OK;
    int r = fsync_retry(fd), error = errno;
    close(fd);
    return r == 0 || error == EINVAL || error == ENOTSUP ? OK : err_errno(e, ERR_RUNTIME, path, "cannot flush its directory", error);
}

status file_commit(struct file_out *f, struct err *e)
{
    assert(f->fd >= 0);
    status s = OK;
    if (fsync_retry(f->fd) != 0) s = err_errno(e, ERR_RUNTIME, f->path, "cannot flush to disk", errno);
    int fd = f->fd;
    if (s == OK) {
        f->fd = -1;
        /* EINTR: the descriptor is closed all the same, and the data is on disk already */
        if (close(fd) != 0 && errno != EINTR) s = err_errno(e, ERR_RUNTIME, f->path, "cannot close", errno);
    }
    if (s == OK && rename(f->part, f->path) != 0) s = err_errno(e, ERR_RUNTIME, f->path, "cannot replace", errno);
    if (s != OK) {
        if (f->keeps) file_leave(f);
        else file_abort(f);
        return s;
    }
    s = sync_directory(f->path, e);
    forget(f);
    return s;
}

void file_abort(struct file_out *f)
{
    if (!f->part) return;
    if (f->fd >= 0) close(f->fd);
    unlink(f->part);
    forget(f);
}

void file_sweep(const char *path)
{
    char real[PATH_MAX], dir[PATH_MAX + 1], part[2 * PATH_MAX];
    struct err ignored = { 0 };
    mode_t mode;
    if (resolve_target(path, real, &mode, &ignored) != OK || !folder_of(real, dir)) return;
    static const char mark[] = ".part-";
    const char *name = path_base(real);
    size_t n = strlen(name), base = (size_t)(name - real), front = n + sizeof mark - 1;
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        size_t len = strlen(f->d_name);
        if (len <= front || memcmp(f->d_name, name, n) || memcmp(f->d_name + n, mark, sizeof mark - 1)) continue;
        if (strspn(f->d_name + front, "0123456789") != len - front) continue;
        snprintf(part, sizeof part, "%.*s%s", (int)base, real, f->d_name);
        (void)!remove_stale_part(part);
    }
    if (d) closedir(d);
}

/* ---- writing in pieces ---- */

status file_part(struct file_out *f, const char *path, bool *existed, struct err *e)
{
    *f = (struct file_out){ .fd = -1 };
    char real[PATH_MAX];
    mode_t mode;
    struct stat st;
    TRY(resolve_target(path, real, &mode, e));
    status s = copy_names(f, real, false, e);
    if (s == OK) {
        *existed = lstat(f->part, &st) == 0;
        f->fd = open(f->part, O_RDWR | O_CREAT | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (f->fd < 0) s = err_errno(e, code_of(errno), f->part, "cannot create", errno);
        else if (fstat(f->fd, &st) != 0 || !S_ISREG(st.st_mode)) s = err_set(e, ERR_USAGE, "%s: not a regular file", f->part);
        else if (flock(f->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
            s = err_set(e, ERR_RUNTIME, "%s: another process is writing it", f->part);
    }
    f->keeps = true;
    if (s != OK) file_leave(f);
    else if (mode) (void)!fchmod(f->fd, mode);
    return s;
}

status file_write_at(struct file_out *f, const void *p, size_t n, size_t offset, struct err *e)
{
    const char *at = p;
    while (n > 0) {
        ssize_t put = pwrite(f->fd, at, n < IO_MAX ? n : IO_MAX, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return err_errno(e, ERR_RUNTIME, f->part, "cannot write", errno);
        at += put;
        offset += (size_t)put;
        n -= (size_t)put;
    }
    return OK;
}

status file_read_at(struct file_out *f, void *p, size_t n, size_t offset, size_t *got, struct err *e)
{
    for (*got = 0; *got < n;) {
        ssize_t r = pread(f->fd, (char *)p + *got, n - *got < IO_MAX ? n - *got : IO_MAX, (off_t)(offset + *got));
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return err_errno(e, ERR_RUNTIME, f->part, "cannot read", errno);
        if (r == 0) break;
        *got += (size_t)r;
    }
    return OK;
}

status file_flush(struct file_out *f, struct err *e)
{
    return fsync_retry(f->fd) == 0 ? OK : err_errno(e, ERR_RUNTIME, f->part, "cannot flush to disk", errno);
}

status file_resize(struct file_out *f, size_t size, struct err *e)
{
    int r;
    do r = ftruncate(f->fd, (off_t)size);
    while (r != 0 && errno == EINTR);
    return r == 0 ? OK : err_errno(e, ERR_RUNTIME, f->part, "cannot set its size", errno);
}

void file_forget_cache(struct file_out *f) { (void)!posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED); }

void file_leave(struct file_out *f)
{
    if (f->fd >= 0) close(f->fd);
    forget(f);
}

/* ---- facts ---- */

bool file_stat(const char *path, struct file_facts *facts)
{
    struct stat st;
    *facts = (struct file_facts){ 0 };
    if (stat(path, &st) != 0) return false;
    *facts = (struct file_facts){ (uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_blocks * 512,
                                  S_ISREG(st.st_mode) };
    return true;
}

bool file_target(const char *path, char *target, size_t cap)
{
    struct stat st;
    char real[PATH_MAX];
    bool link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
    if (link && !realpath(path, real)) return false;
    size_t n = strlen(link ? real : path);
    if (n >= cap) return false;
    memcpy(target, link ? real : path, n + 1);
    return true;
}

uint64_t file_room(const char *path)
{
    char dir[PATH_MAX + 1];
    struct statvfs v;
    return folder_of(path, dir) && statvfs(dir, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : UINT64_MAX;
}

/* Seconds until n more bytes are on disk; < 0 when they cannot be written. */
static double time_write(int fd, size_t n)
{
    uint32_t block[1 << 14], x = 1;
    for (int i = 0; i < ARRAY_LEN(block); i++) block[i] = x = x * 1664525 + 1013904223; /* nothing that a disk could compress */
    double start = now_seconds();
    for (size_t at = 0; at < n;) {
        ssize_t put = write(fd, block, n - at < sizeof block ? n - at : sizeof block);
        if (put <= 0) return -1;
        at += (size_t)put;
    }
    return fsync_retry(fd) == 0 ? now_seconds() - start : -1;
}

/* O_TMPFILE never has a name, so nothing can be left behind. File systems without it stay unmeasured. The best of three: any other may have
 * waited for somebody else's flush. */
double file_write_speed(const char *path, size_t bytes)
{
    char dir[PATH_MAX + 1];
    int fd = folder_of(path, dir) ? open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600) : -1;
    if (fd < 0) return 0;
    double few = time_write(fd, bytes / 4), many = time_write(fd, bytes);
    for (int i = 0; i < 2 && few > 0 && many > 0; i++) {
        double t = time_write(fd, bytes / 4), u = time_write(fd, bytes);
        few = t < few ? t : few, many = u < many ? u : many;
    }
    close(fd);
    if (few <= 0 || many <= 0) return 0;
    double more = many - few, part = (double)(bytes - bytes / 4);
    return more > many * 3 / 8 ? part / more : 2 * (double)bytes / many; /* at most twice what was seen: the difference is noisy */
}

/* ---- anonymous memory ---- */

void *mem_map(size_t bytes)
{
    if (bytes > PTRDIFF_MAX || !mem_admit()) return NULL;
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Pages of 4 KiB were a fifth of a first step of training (458 MiB, 3.7 instead of 4.5 s) and 3 % of each later one. */
void *mem_map_dense(size_t bytes)
{
    void *p = mem_map(bytes);
    if (p) (void)!madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

void mem_room_drop(struct mem_room *r)
{
    if (r->p) mem_unmap(r->p, r->n);
    *r = (struct mem_room){ 0 };
}

status mem_room_for(struct mem_room *r, size_t n, struct err *e)
{
    if (n <= r->n) return OK;
    mem_room_drop(r);
    r->p = mem_map_dense(n);
    if (!r->p) return err_oom(e, "scratch", n);
    r->n = n;
    return OK;
}

/* The room on the disk is taken now: a full disk would otherwise be a signal at some later store. */
status mem_map_file(void **out, const char *path, size_t bytes, struct err *e)
{
    *out = NULL;
    if (bytes == 0 || bytes > PTRDIFF_MAX || !mem_admit()) return err_oom(e, path, bytes);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return err_set(e, errno == EEXIST ? ERR_USAGE : ERR_RUNTIME, "%s: %s", path, strerror(errno));
    int full = posix_fallocate(fd, 0, (off_t)bytes);
    void *p = full ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unlink(path);
    close(fd);
    if (full) return err_set(e, ERR_RUNTIME, "%s: %zu bytes: %s", path, bytes, strerror(full));
    if (p == MAP_FAILED) return err_oom(e, path, bytes);
    *out = p;
    return OK;
}

size_t mem_touched(const void *p, size_t bytes)
{
    enum { BATCH = 1024 };
    unsigned char in[BATCH];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), touched = 0, inside = (uintptr_t)p % page;
    char *start = (char *)(uintptr_t)p - inside;
    bytes += inside;
    for (size_t at = 0; at < bytes; at += BATCH * page) {
        size_t n = bytes - at < BATCH * page ? bytes - at : BATCH * page;
        if (mincore(start + at, n, in) != 0) return 0;
        for (size_t i = 0; i * page < n; i++) touched += in[i] & 1 ? page : 0;
    }
    return touched;
}

void mem_unmap(void *p, size_t bytes)
{
    if (p) munmap(p, bytes ? bytes : 1);
}

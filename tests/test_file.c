/* file: what is refused and why, mapped and copied views, texts, and writes that appear whole or not at all. */
#include "ggml-like/file.h"
#include "tests/test.h"
#include <fcntl.h>
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void put(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(p, 1, n, f) == n);
    if (f) fclose(f);
}

static bool holds(const char *path, const char *want)
{
    char *text = NULL;
    size_t n = 0;
    bool same = file_text(path, 1 << 20, &text, &n, NULL) == OK && n == strlen(want) && !memcmp(text, want, n);
    mem_free(text);
    return same;
}

/* Number of names in the scratch folder that start like the file name of path. */
static int count_names(const char *path)
{
    char dir[256];
    snprintf(dir, sizeof dir, "%s", path);
    char *base = strrchr(dir, '/');
    *base++ = 0;
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *entry; d && (entry = readdir(d));) n += strncmp(entry->d_name, base, strlen(base)) == 0;
    if (d) closedir(d);
    return n;
}

/* All three readers of a path refuse it with ERR_FILE, its name and the reason. */
static void refused(const char *path, const char *reason)
{
    for (int way = 0; way < 3; way++) {
        struct file f = { .size = 99 };
        struct err e = { 0 };
        char *text = (char *)"";
        size_t n;
        CHECK((way < 2 ? file_open(&f, path, way == 0, &e) : file_text(path, 1000, &text, &n, &e)) == ERR_FILE);
        if (way < 2) CHECK(f.data == NULL && f.size == 0);
        else CHECK(text == NULL);
        CHECK_HAS(e.text, path);
        CHECK_HAS(e.text, reason);
        file_close(&f);
    }
}

TEST(file_missing_is_refused) { refused(test_tmp("no-such-file"), "No such file"); }
TEST(file_directory_is_refused) { refused(test_tmp(""), "directory"); }
TEST(file_device_is_refused) { refused("/dev/zero", "is a device"); }

TEST(file_fifo_is_refused_without_waiting)
{
    const char *path = test_tmp("fifo");
    unlink(path);
    CHECK(mkfifo(path, 0600) == 0);
    alarm(5); /* nobody writes to it: a blocking open would wait for ever, now it would end the test run */
    refused(path, "is a FIFO");
    struct file_out o;
    struct err e = { 0 };
    CHECK(file_create(&o, path, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "is a FIFO");
    alarm(0);
    unlink(path);
}

TEST(file_without_permission_is_refused)
{
    const char *path = test_tmp("secret"), *dir = test_tmp("locked");
    put(path, "x", 1);
    mkdir(dir, 0700);
    CHECK(chmod(path, 0) == 0 && chmod(dir, 0500) == 0);
    uid_t own = geteuid();
    /* Root may read everything: it becomes nobody for the check. Where it cannot (a user namespace of one), nothing can be checked. */
    if (own != 0 || seteuid(65534) == 0) {
        refused(path, "Permission denied");
        struct file_out o;
        struct err e = { 0 };
        CHECK(file_create(&o, test_tmp("locked/out"), &e) == ERR_USAGE && o.fd == -1);
        CHECK_HAS(e.text, "Permission denied");
        CHECK(seteuid(own) == 0);
    }
    rmdir(dir);
    unlink(path);
}

TEST(file_unfollowable_link_is_refused)
{
    const char *path = test_tmp("loop");
    unlink(path);
    CHECK(symlink("loop", path) == 0);
    refused(path, "symbolic links");
    struct file_out o;
    struct err e = { 0 };
    CHECK(file_create(&o, path, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "symbolic link");
    unlink(path);
}

TEST(file_empty_is_open_with_size_zero)
{
    const char *path = test_tmp("empty");
    put(path, "", 0);
    for (int use_mmap = 0; use_mmap < 2; use_mmap++) {
        struct file f;
        CHECK(file_open(&f, path, use_mmap, NULL) == OK);
        CHECK(f.size == 0 && f.data != NULL && !f.mapped);
        file_close(&f);
        CHECK(f.data == NULL);
    }
    CHECK(holds(path, ""));
    unlink(path);
}

TEST(file_views_agree_mapped_and_read)
{
    enum { N = 300001 };
    uint8_t *want = mem_alloc(N);
    uint64_t seed = 7;
    for (int i = 0; i < N; i++) want[i] = (uint8_t)test_rand(&seed);
    const char *path = test_tmp("data");
    put(path, want, N);
    struct stat st;
    CHECK(stat(path, &st) == 0);
    for (int use_mmap = 0; use_mmap < 2; use_mmap++) {
        struct file f;
        CHECK(file_open(&f, path, use_mmap, NULL) == OK);
        CHECK(f.mapped == (use_mmap == 1));
        CHECK(f.size == N && !memcmp(f.data, want, N));
        CHECK(((uintptr_t)f.data & 63) == 0);
        CHECK(f.ino == (uint64_t)st.st_ino && f.dev == (uint64_t)st.st_dev);
        CHECK(f.mtime_ns / 1000000000 == (int64_t)st.st_mtime);
        file_close(&f);
        file_close(&f);
    }
    struct file f;
    struct err e = { 0 };
    mem_fail_at(1, false);
    CHECK(file_open(&f, path, false, &e) == ERR_MEMORY && f.data == NULL);
    mem_fail_at(0, false);
    unlink(path);
    mem_free(want);
}

TEST(file_text_obeys_its_limit)
{
    const char *path = test_tmp("text");
    put(path, "0123456789", 10);
    char *text = NULL;
    size_t n = 0;
    struct err e = { 0 };
    CHECK(file_text(path, 10, &text, &n, &e) == OK && n == 10);
    CHECK(text && !strcmp(text, "0123456789"));
    mem_free(text);
    CHECK(file_text(path, 9, &text, &n, &e) == ERR_USAGE && text == NULL);
    CHECK_HAS(e.text, "limit of 9");
    CHECK(file_text(path, SIZE_MAX, &text, &n, NULL) == OK && n == 10);
    mem_free(text);
    mem_fail_at(1, false);
    CHECK(file_text(path, 10, &text, &n, NULL) == ERR_MEMORY && text == NULL);
    mem_fail_at(0, false);
    unlink(path);
}

/* Runs file_text("-") with standard input replaced by a pipe that holds n bytes. */
static status text_from_pipe(size_t n, size_t max, char **text, size_t *got)
{
    int fds[2], saved = dup(0);
    char *bytes = mem_alloc(n);
    memset(bytes, 'p', n);
    CHECK(pipe(fds) == 0 && write(fds[1], bytes, n) == (ssize_t)n);
    close(fds[1]);
    dup2(fds[0], 0);
    close(fds[0]);
    status st = file_text("-", max, text, got, NULL);
    dup2(saved, 0);
    close(saved);
    mem_free(bytes);
    return st;
}

TEST(file_text_reads_standard_input)
{
    static const size_t sizes[] = { 0, 1, 65535, 65536 }; /* the last fills the first buffer; a pipe holds no more by default */
    for (int i = 0; i < ARRAY_LEN(sizes); i++) {
        char *text = NULL;
        size_t n = 0;
        CHECK(text_from_pipe(sizes[i], 1 << 20, &text, &n) == OK);
        CHECK(n == sizes[i] && text && strlen(text) == n);
        mem_free(text);
    }
    char *text = NULL;
    size_t n = 0;
    CHECK(text_from_pipe(1001, 1000, &text, &n) == ERR_USAGE && text == NULL);
    CHECK(text_from_pipe(1000, 1000, &text, &n) == OK && n == 1000);
    mem_free(text);
}

TEST(file_commit_replaces_and_abort_leaves_the_target)
{
    const char *path = test_tmp("target");
    put(path, "old", 3);
    chmod(path, 0600);
    struct file_out o;
    struct err e = { 0 };
    CHECK(file_create(&o, path, &e) == OK);
    CHECK(file_write(&o, "half", 4, &e) == OK);
    CHECK(count_names(path) == 2 && holds(path, "old"));
    file_abort(&o);
    CHECK(count_names(path) == 1 && holds(path, "old") && o.fd == -1);

    CHECK(file_create(&o, path, &e) == OK);
    CHECK(file_write(&o, "brand", 5, &e) == OK);
    CHECK(file_write(&o, "", 0, &e) == OK);
    CHECK(file_write(&o, " new", 4, &e) == OK);
    CHECK(holds(path, "old"));
    CHECK(file_commit(&o, &e) == OK);
    CHECK(count_names(path) == 1 && holds(path, "brand new") && o.fd == -1);
    file_abort(&o);
    CHECK(holds(path, "brand new"));
    struct stat st;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600); /* a private file stays private */
    unlink(path);
    file_abort(&(struct file_out){ 0 });
}

TEST(file_create_refuses_bad_targets)
{
    struct file_out o;
    struct err e = { 0 };
    CHECK(file_create(&o, test_tmp(""), &e) == ERR_USAGE && o.fd == -1);
    CHECK_HAS(e.text, "directory");
    e = (struct err){ 0 };
    CHECK(file_create(&o, ".", &e) == ERR_USAGE);
    CHECK_HAS(e.text, "is a directory");
    e = (struct err){ 0 };
    CHECK(file_create(&o, "/dev/null", &e) == ERR_USAGE); /* a rename over it would replace the device */
    CHECK_HAS(e.text, "is a device");
    e = (struct err){ 0 };
    CHECK(file_create(&o, test_tmp("none/x"), &e) == ERR_USAGE);
    CHECK_HAS(e.text, "none/x");
    CHECK(file_create(&o, "", NULL) == ERR_USAGE);
    char longest[5000];
    memset(longest, 'n', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    CHECK(file_create(&o, longest, NULL) == ERR_USAGE);
    CHECK(file_create(&o, longest + sizeof longest - 300, NULL) == ERR_USAGE);
}

TEST(file_create_follows_a_link_and_keeps_it)
{
    const char *real = test_tmp("real"), *link = test_tmp("link");
    unlink(link);
    put(real, "old", 3);
    CHECK(symlink("real", link) == 0);
    struct file_out o;
    CHECK(file_create(&o, link, NULL) == OK);
    CHECK(file_write(&o, "new", 3, NULL) == OK);
    CHECK(file_commit(&o, NULL) == OK);
    struct stat st;
    CHECK(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
    CHECK(holds(real, "new"));
    unlink(link);
    unlink(real);
}

TEST(file_part_of_a_crashed_run_is_replaced_and_a_live_one_is_not)
{
    const char *path = test_tmp("crashed");
    char part[300];
    snprintf(part, sizeof part, "%s.part-%d", path, (int)getpid());
    put(part, "left by a crash", 15);
    struct file_out o, second;
    struct err e = { 0 };
    CHECK(file_create(&o, path, &e) == OK);
    CHECK(file_create(&second, path, &e) == ERR_RUNTIME);
    CHECK_HAS(e.text, "File exists");
    CHECK(file_write(&o, "fresh", 5, NULL) == OK);
    CHECK(file_commit(&o, NULL) == OK);
    CHECK(holds(path, "fresh") && count_names(path) == 1);
    unlink(path);
}

TEST(file_sweep_removes_parts_of_killed_runs_only)
{
    char path[280], other[300];
    snprintf(path, sizeof path, "%s", test_tmp("swept"));
    static const char *const names[] = { ".part-1", ".part-4000000000", ".part", ".part-1x", "x.part-1" };
    struct file_out live;
    struct err e = { 0 };
    for (int i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(other, sizeof other, "%s%s", path, names[i]);
        put(other, "x", 1);
    }
    CHECK(file_create(&live, path, &e) == OK);
    file_sweep(path);
    CHECK(count_names(path) == 4);
    CHECK(file_write(&live, "new", 3, NULL) == OK && file_commit(&live, NULL) == OK && holds(path, "new"));
    for (int i = 2; i < ARRAY_LEN(names); i++) {
        snprintf(other, sizeof other, "%s%s", path, names[i]);
        CHECK(unlink(other) == 0);
    }
    unlink(path);
}

/* A file size limit makes write fail at a chosen byte, as a full disk does; no privilege lifts it. */
TEST(file_write_failure_names_the_path_and_keeps_the_target)
{
    const char *path = test_tmp("full");
    put(path, "old", 3);
    static char big[10000];
    struct rlimit before, small;
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    small = before;
    small.rlim_cur = 4096;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    struct file_out o;
    struct err e = { 0 };
    CHECK(file_create(&o, path, &e) == OK);
    CHECK(file_write(&o, big, sizeof big, &e) == ERR_RUNTIME);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    CHECK_HAS(e.text, path);
    CHECK_HAS(e.text, "File too large");
    file_abort(&o);
    CHECK(holds(path, "old") && count_names(path) == 1);
    unlink(path);
}

TEST(file_write_reports_a_full_disk)
{
    struct file_out o = { .fd = open("/dev/full", O_WRONLY), .path = (char *)"model.gguf" };
    if (o.fd < 0) return; /* only Linux has the device; the size limit above tests the same path everywhere */
    struct err e = { 0 };
    CHECK(file_write(&o, "x", 1, &e) == ERR_RUNTIME);
    CHECK_STR(e.text, "model.gguf: cannot write: No space left on device");
    close(o.fd);
}

TEST(file_commit_failure_removes_the_part)
{
    const char *dir = test_tmp("folder"), *path = test_tmp("folder/x");
    mkdir(dir, 0700);
    struct file_out o;
    struct err e = { 0 };
    CHECK(file_create(&o, path, &e) == OK);
    CHECK(mkdir(path, 0700) == 0); /* the target became a directory meanwhile: rename must fail */
    CHECK(file_commit(&o, &e) == ERR_RUNTIME);
    CHECK_HAS(e.text, "cannot replace");
    CHECK(o.fd == -1 && o.part == NULL);
    CHECK(rmdir(path) == 0 && rmdir(dir) == 0); /* nothing else was left */
}

TEST(file_create_survives_allocation_failure)
{
    const char *path = test_tmp("oom");
    for (int n = 1; n <= 3; n++) {
        struct file_out o;
        mem_fail_at(n, false);
        status st = file_create(&o, path, NULL);
        mem_fail_at(0, false);
        CHECK(st == (n < 3 ? ERR_MEMORY : OK));
        file_abort(&o);
        CHECK(count_names(path) == 0);
    }
}

TEST(file_target_follows_a_link)
{
    const char *link = test_tmp("link-to"), *file = test_tmp("linked");
    char target[4096], real[4096];
    unlink(link), unlink(file);
    CHECK(file_target(file, target, sizeof target) && !strcmp(target, file)); /* nothing there yet */
    CHECK(symlink("linked", link) == 0 && !file_target(link, target, sizeof target));
    put(file, "x", 1);
    CHECK(realpath(file, real) && file_target(link, target, sizeof target) && !strcmp(target, real));
    CHECK(!file_target(file, target, strlen(file)));
    unlink(link), unlink(file);
}

TEST(file_write_speed_leaves_nothing)
{
    const char *dir = test_tmp("speed"), *path = test_tmp("speed/x");
    mkdir(dir, 0700);
    double speed = file_write_speed(path, 1 << 18);
    CHECK_MSG(speed == 0 || (speed > 1e3 && speed < 1e12), "%g", speed);
    CHECK(rmdir(dir) == 0);
    CHECK(file_write_speed(path, 1 << 18) == 0);
}

TEST(mem_touched_counts_pages)
{
    size_t n = 64 * (size_t)sysconf(_SC_PAGESIZE);
    char *p = mem_map(n);
    CHECK(p && mem_touched(p, n) == 0);
    p[5] = p[n - 1] = 1;
    CHECK(mem_touched(p, n) == n / 32 && mem_touched(p + 7, 1) == n / 64);
    mem_unmap(p, n);
}

TEST(mem_map_is_zero_and_lazy)
{
    size_t n = (size_t)1 << 33; /* 8 GiB of address space, of which two pages are touched */
    uint8_t *p = mem_map(n);
    if (!p) p = mem_map(n = 1 << 20); /* an address space limit */
    CHECK(p && p[0] == 0 && p[n - 1] == 0);
    if (p) p[n - 1] = 1;
    mem_unmap(p, n);
    CHECK(mem_map(SIZE_MAX) == NULL);
    mem_fail_at(1, false);
    CHECK(mem_map(4096) == NULL);
    mem_fail_at(0, false);
    p = mem_map(0);
    CHECK(p != NULL);
    mem_unmap(p, 0);
    mem_unmap(NULL, 5);
}

SUITE(file, T(file_missing_is_refused), T(file_directory_is_refused), T(file_device_is_refused), T(file_fifo_is_refused_without_waiting),
      T(file_without_permission_is_refused), T(file_unfollowable_link_is_refused), T(file_empty_is_open_with_size_zero),
      T(file_views_agree_mapped_and_read), T(file_text_obeys_its_limit), T(file_text_reads_standard_input),
      T(file_commit_replaces_and_abort_leaves_the_target), T(file_create_refuses_bad_targets), T(file_create_follows_a_link_and_keeps_it),
      T(file_part_of_a_crashed_run_is_replaced_and_a_live_one_is_not), T(file_sweep_removes_parts_of_killed_runs_only),
      T(file_write_failure_names_the_path_and_keeps_the_target),
      T(file_write_reports_a_full_disk), T(file_commit_failure_removes_the_part), T(file_create_survives_allocation_failure),
      T(file_target_follows_a_link), T(file_write_speed_leaves_nothing),
      T(mem_touched_counts_pages), T(mem_map_is_zero_and_lazy));

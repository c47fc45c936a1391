/* history - see history.h. The file is read once and only ever appended to, except when it has grown past twice the limit. */
#include "tools/history.h"
#include "ggml-like/file.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Copies n bytes; escaped = the file form: "\\" and "\n" stand for backslash and newline. */
static char *copy(const char *s, size_t n, bool escaped)
{
    char *out = mem_alloc(n + 1);
    size_t m = 0;
    if (!out) return NULL;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (escaped && c == '\\' && i + 1 < n) c = s[++i] == 'n' ? '\n' : s[i];
        if (c) out[m++] = c;
    }
    out[m] = 0;
    return out;
}

static bool push(struct history *h, char *text)
{
    if (!text) return false;
    if (h->n == HISTORY_MAX) {
        mem_free(h->item[0]);
        memmove(h->item, h->item + 1, (size_t)(--h->n) * sizeof *h->item);
    }
    h->item[h->n++] = text;
    return true;
}

/* Adds one entry to an open file in a single write, so that two chats at once do not mix their lines. */
static void write_entry(int fd, const char *text)
{
    size_t n = strlen(text), m = 0;
    char *line = mem_alloc(2 * n + 1);
    if (!line) return;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\\' || text[i] == '\n') line[m++] = '\\';
        line[m++] = text[i] == '\n' ? 'n' : text[i];
    }
    line[m++] = '\n';
    ssize_t ignored = write(fd, line, m);
    (void)ignored;
    mem_free(line);
}

/* Keeps the file short: rewrites it with what memory holds, by rename. */
static void compact(const struct history *h)
{
    char tmp[4200];
    if (snprintf(tmp, sizeof tmp, "%s.new", h->path) >= (int)sizeof tmp) return;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return;
    for (int i = 0; i < h->n; i++) write_entry(fd, h->item[i]);
    if (close(fd) != 0 || rename(tmp, h->path) != 0) unlink(tmp);
}

static void load(struct history *h)
{
    char *text;
    size_t n;
    int lines = 0;
    if (access(h->path, R_OK) != 0 || file_text(h->path, 16 << 20, &text, &n, NULL) != OK) return;
    for (char *p = text, *end = text + n; p < end; lines++) {
        char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((stop ? stop : end) - p);
        if (len > 0 && len <= 2 * HISTORY_ENTRY && !push(h, copy(p, len, true))) break;
        p += len + 1;
    }
    mem_free(text);
    if (lines > 2 * HISTORY_MAX) compact(h);
}

status history_open(struct history *h, const char *path, struct err *e)
{
    *h = (struct history){ 0 };
    h->item = mem_calloc(HISTORY_MAX, sizeof *h->item);
    if (path) h->path = copy(path, strlen(path), false);
    if (!h->item || (path && !h->path)) {
        history_close(h);
        return err_oom(e, "line history", HISTORY_MAX * sizeof *h->item);
    }
    if (h->path) load(h);
    return OK;
}

void history_close(struct history *h)
{
    for (int i = 0; i < h->n; i++) mem_free(h->item[i]);
    mem_free(h->item);
    mem_free(h->path);
    *h = (struct history){ 0 };
}

void history_add(struct history *h, const char *text, size_t n)
{
    if (n == 0 || n > HISTORY_ENTRY || !h->item) return;
    char *entry = copy(text, n, false);
    if (!entry) return;
    if (h->n > 0 && !strcmp(entry, h->item[h->n - 1])) {
        mem_free(entry);
        return;
    }
    push(h, entry);
    if (!h->path) return;
    int fd = open(h->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    write_entry(fd, entry);
    close(fd);
}

static void make_folders(char *path)
{
    for (char *p = path + 1; *p; p++)
        if (*p == '/') *p = 0, mkdir(path, 0700), *p = '/';
}

bool history_path(char *buf, size_t cap)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (state && *state == '/') n = snprintf(buf, cap, "%s/cuanto/history", state);
    else if (home && *home == '/') n = snprintf(buf, cap, "%s/.local/state/cuanto/history", home);
    if (n < 0 || (size_t)n >= cap) return false;
    make_folders(buf);
    return true;
}

/* term - terminal state, signals, stdout and progress bars. All state here is per process and belongs to the tool, never to the library.
 * stdout carries data only; everything else goes to stderr. Each descriptor is asked by itself whether it is a terminal. */
#include "tools/term.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* ---- raw mode ---- */

static struct termios cooked;
static volatile sig_atomic_t raw_fd = -1;
static const char paste_on[] = "\033[?2004h", paste_off[] = "\033[?2004l";

void term_restore(void)
{
    int fd = raw_fd, error = errno;
    if (fd < 0) return;
    raw_fd = -1;
    ssize_t ignored = write(fd, paste_off, sizeof paste_off - 1);
    (void)ignored;
    tcsetattr(fd, TCSADRAIN, &cooked);
    errno = error;
}

static void on_fatal(int sig)
{
    term_restore();
    raise(sig); /* SA_RESETHAND: now with the default action */
}

static bool prepare(int fd)
{
    static const int fatal[] = { SIGSEGV, SIGABRT, SIGFPE, SIGILL, SIGQUIT };
    static bool done;
    struct sigaction sa = { .sa_handler = on_fatal, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER) };
    if (raw_fd >= 0) return true;
    if (tcgetattr(fd, &cooked) != 0) return false;
    for (int i = 0; i < ARRAY_LEN(fatal) && !done; i++) sigaction(fatal[i], &sa, NULL);
    if (!done) atexit(term_restore);
    done = true;
    return true;
}

static bool set_mode(int fd, bool signals)
{
    struct termios raw = cooked;
    raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
    raw.c_cflag |= CS8;
    raw.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
    if (signals) raw.c_lflag |= ISIG, raw.c_cc[VSUSP] = _POSIX_VDISABLE; /* a stop here would leave the shell without echo */
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    return tcsetattr(fd, TCSADRAIN, &raw) == 0;
}

bool term_raw(int fd)
{
    if (!prepare(fd) || !set_mode(fd, false)) return false;
    raw_fd = fd;
    ssize_t ignored = write(fd, paste_on, sizeof paste_on - 1);
    (void)ignored;
    return true;
}

void term_busy(void)
{
    if (raw_fd < 0) return;
    ssize_t ignored = write(raw_fd, paste_off, sizeof paste_off - 1);
    (void)ignored;
    set_mode(raw_fd, true);
}

/* ---- signals ---- */

volatile int cli_interrupted;
static volatile sig_atomic_t at_once, bar_shown;

static void on_signal(int sig)
{
    if (!cli_interrupted && !at_once) {
        cli_interrupted = sig;
        return;
    }
    if (bar_shown) {
        ssize_t ignored = write(STDERR_FILENO, "\r\033[K", 4);
        (void)ignored;
    }
    term_restore();
    _exit(128 + sig);
}

bool cli_signals_at_once(bool on)
{
    bool before = at_once;
    at_once = on;
    return before;
}

/* Reading a page that a mapped file no longer has: somebody truncated the model, or its disk fails. No state of ours can go on from here. */
static void on_bus(int sig)
{
    static const char text[] = "cuanto: the model file became shorter, or unreadable, while it was in use\n";
    term_restore();
    ssize_t ignored = write(2, text, sizeof text - 1);
    (void)ignored;
    _exit(ERR_FORMAT);
}

void cli_signals(void)
{
    static const int polite[] = { SIGINT, SIGHUP }; /* stay ignored if they came ignored: nohup, background jobs */
    struct sigaction sa = { .sa_handler = on_signal }, old;
    struct sigaction bus = { .sa_handler = on_bus };
    sigaction(SIGBUS, &bus, NULL);
    sigaction(SIGTERM, &sa, NULL);
    for (int i = 0; i < ARRAY_LEN(polite); i++)
        if (sigaction(polite[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaction(polite[i], &sa, NULL);
    sa.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &sa, NULL);
}

/* ---- terminal facts ---- */

bool term_is_tty(int fd) { return isatty(fd) == 1; }

bool term_dumb(void)
{
    const char *term = getenv("TERM");
    return !term || !*term || !strcmp(term, "dumb");
}

bool term_color(const struct cli *c, int fd)
{
    const char *no = getenv("NO_COLOR");
    if (c->color && !strcmp(c->color, "always")) return true;
    if ((c->color && !strcmp(c->color, "never")) || (no && *no)) return false;
    return term_is_tty(fd) && !term_dumb();
}

static bool window_size(struct winsize *w)
{
    for (int fd = 2; fd >= 0; fd--)
        if (ioctl(fd, TIOCGWINSZ, w) == 0 && w->ws_col > 0) return true;
    return false;
}

int term_width(void)
{
    struct winsize w;
    return window_size(&w) ? w.ws_col : 80;
}

int term_height(void)
{
    struct winsize w;
    return window_size(&w) && w.ws_row > 0 ? w.ws_row : 24;
}

const char *term_style(bool on, enum term_style style)
{
    static const char *const codes[] = { "\033[0m", "\033[2m", "\033[1m", "\033[1;32m" };
    return on ? codes[style] : "";
}

/* ---- stdout ---- */

static char out_buf[1 << 14];
static size_t out_n;
static int out_error; /* errno of the first failure */

bool out_flush(void)
{
    size_t done = 0;
    while (done < out_n && !out_error) {
        ssize_t n = write(STDOUT_FILENO, out_buf + done, out_n - done);
        if (n > 0) done += (size_t)n;
        else if (n == 0 || errno != EINTR || cli_interrupted) out_error = n < 0 ? errno : EIO;
    }
    out_n = 0;
    return !out_error;
}

bool out_write(const char *p, size_t n)
{
    while (n > 0 && !out_error) {
        size_t part = sizeof out_buf - out_n < n ? sizeof out_buf - out_n : n;
        memcpy(out_buf + out_n, p, part);
        out_n += part, p += part, n -= part;
        if (out_n == sizeof out_buf) out_flush();
    }
    return !out_error;
}

/* Terminal control characters from a model stay harmless on a terminal; files and pipes get the bytes as they are. */
bool out_text(const char *p, size_t n)
{
    size_t from = 0;
    if (!term_is_tty(STDOUT_FILENO)) return out_write(p, n) && out_flush();
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        bool c1 = c == 0xc2 && i + 1 < n && (unsigned char)p[i + 1] < 0xa0;
        if (!c1 && ((c >= 32 && c != 127) || c == '\n' || c == '\t')) continue;
        out_write(p + from, i - from);
        out_write("?", 1);
        i += c1;
        from = i + 1;
    }
    return out_write(p + from, n - from) && out_flush();
}

bool out_printf(const char *fmt, ...)
{
    char small[1024];
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof small) {
        char *big = mem_alloc((size_t)n + 1);
        if (big) {
            vsnprintf(big, (size_t)n + 1, fmt, again);
            out_write(big, (size_t)n);
        } else {
            out_error = ENOMEM;
        }
        mem_free(big);
    } else if (n > 0) {
        out_write(small, (size_t)n);
    }
    va_end(again);
    return !out_error;
}

int out_status(void)
{
    static bool told;
    if (!out_error) return OK;
    if (out_error == EPIPE) return 128 + SIGPIPE;
    if (out_error == EINTR && cli_interrupted) return 128 + cli_interrupted;
    if (!told) fprintf(stderr, "cuanto: writing to standard output failed: %s\n", strerror(out_error));
    told = true;
    return ERR_RUNTIME;
}

/* ---- progress ---- */

const char *size_text(uint64_t bytes, char buf[32])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double v = (double)bytes;
    int u = 0;
    while (v >= 1023.5 && u < 4) v /= 1024, u++;
    if (u == 0) snprintf(buf, 32, "%d B", (int)bytes);
    else snprintf(buf, 32, v < 99.95 ? "%.1f %s" : "%.0f %s", v, units[u]);
    return buf;
}

/* "3s", "4m 10s", "2h 5m": two units at most */
static void eta_text(double s, char buf[32])
{
    int64_t t = s < 1e9 ? (int64_t)ceil(s) : 0;
    if (t < 60) snprintf(buf, 32, "%ds", (int)t);
    else if (t < 3600) snprintf(buf, 32, "%dm %ds", (int)(t / 60), (int)(t % 60));
    else snprintf(buf, 32, "%lldh %dm", (long long)(t / 3600), (int)(t / 60 % 60));
}

void bar_begin(struct bar *b, const struct cli *c, const char *label, const char *unit, int64_t total)
{
    *b = (struct bar){ .label = label, .unit = unit, .total = total, .start = now_seconds(), .last = -1, .quiet = c->quiet };
    b->since = b->start;
    b->tty = term_is_tty(STDERR_FILENO) && !term_dumb();
}

/* On a terminal short work (0.3 s) shows nothing; elsewhere work under 2 s leaves no lines in logs. */
static bool bar_due(const struct bar *b, int64_t done, int percent, double now)
{
    if (b->quiet || b->total <= 0) return false;
    if (!b->tty) return now - b->start >= 2 && (percent / 10 != b->last / 10 || now - b->shown >= 30);
    if (done == 0) return b->shown == 0;
    if (b->shown == 0) return now - b->start >= 0.3 && done < b->total;
    return now - b->shown >= 0.1 || done >= b->total;
}

void bar_update(struct bar *b, int64_t done, const char *extra)
{
    double now = now_seconds();
    if (b->before > 0 && done <= b->before) b->since = now; /* looking at what is done says nothing about the work ahead */
    double elapsed = now - b->since, rate = elapsed > 0 ? (double)(done - b->before) / elapsed : 0;
    int percent = b->total > 0 ? (int)((double)done * 100.0 / (double)b->total) : 0;
    if (!bar_due(b, done, percent, now)) return;
    char line[256], fill[21], speed[80] = "", eta[32];
    int n = percent < 0 ? 0 : percent > 100 ? 20 : percent / 5;
    memset(fill, ' ', 20), memset(fill, '#', (size_t)n), fill[20] = 0;
    if (done > 0 && rate > 0) {
        eta_text((double)(b->total - done) / rate, eta);
        snprintf(speed, sizeof speed, rate < 10 ? "  %.1f %s/s  ETA %s" : "  %.0f %s/s  ETA %s", rate, b->unit, eta);
    }
    snprintf(line, sizeof line, "%s %3d%% |%s| %lld/%lld %s%s%s%s", b->label, percent, fill, (long long)done, (long long)b->total, b->unit, speed,
             extra ? "  " : "", extra ? extra : "");
    bar_shown = b->tty;
    if (b->tty) fprintf(stderr, "\r%.*s\033[K", term_width() - 1, line);
    else fprintf(stderr, "%s\n", line);
    fflush(stderr);
    b->shown = now;
    b->last = percent;
}

void bar_end(struct bar *b)
{
    if (b->tty && b->shown > 0) fputs("\r\033[K", stderr), fflush(stderr);
    bar_shown = false;
    b->shown = 0;
}

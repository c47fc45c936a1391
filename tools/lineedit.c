/* lineedit - see lineedit.h. The buffer is one string with newlines; the screen is always redrawn from it as a whole, and only when no more
 * input waits, so pastes and fast typing cost one drawing. Rows beyond the height of the terminal scroll inside a window around the cursor. */
#include "tools/lineedit.h"
#include "tools/buffer.h"
#include "tools/history.h"
#include "tools/term.h"
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct lineedit {
    struct line_options o;
    bool interactive;
    struct history history;
    int at;                     /* position in history while browsing; history.n = the draft */
    struct buffer buf, draft, kill, screen;
    size_t pos;                 /* cursor, a byte offset at the start of a cluster */
    const char *prompt;
    int row;                    /* screen row of the cursor below the first row drawn */
    char in[4096];              /* bytes read and not yet used */
    size_t in_n, in_at;
    bool eof;
};

enum key {
    KEY_NONE = 256, KEY_EOF, KEY_SIGNAL, KEY_UP, KEY_DOWN, KEY_LEFT, KEY_RIGHT, KEY_HOME, KEY_END, KEY_DELETE, KEY_WORD_LEFT, KEY_WORD_RIGHT,
    KEY_NEWLINE, KEY_PASTE, KEY_ALT = 512, /* + the character */
};
#define CTRL(c) ((c) & 31)
static const char continuation[] = "... ";

/* ---- clusters: a character with the combining ones behind it; what the cursor steps over ---- */

enum { ZWJ = 0x200d };

static size_t cluster(const struct buffer *t, size_t at, int *width)
{
    uint32_t cp;
    size_t n = (size_t)utf8_next(t->p + at, t->n - at, &cp);
    bool joined = cp == ZWJ;
    *width = cp == '\t' ? 4 : cp < 32 || cp == 127 ? 2 : char_width(cp);
    if (cp < 32) return n;
    while (at + n < t->n) {
        size_t len = (size_t)utf8_next(t->p + at + n, t->n - at - n, &cp);
        if (!joined && (cp < 32 || char_width(cp) > 0)) break;
        joined = cp == ZWJ;
        n += len;
    }
    return n;
}

static size_t step_right(const struct lineedit *l, size_t at)
{
    int w;
    return at < l->buf.n ? at + cluster(&l->buf, at, &w) : at;
}

/* Clusters are found forwards only: from the start of the line. */
static size_t step_left(const struct lineedit *l, size_t at)
{
    size_t p = at, last;
    while (p > 0 && l->buf.p[p - 1] != '\n') p--;
    if (p == at) return at > 0 ? at - 1 : 0;
    for (last = p; p < at; p = step_right(l, p)) last = p;
    return last;
}

static bool word_byte(char c) { return isalnum((unsigned char)c) || (unsigned char)c >= 0x80 || c == '_'; }

static size_t word_left(const struct lineedit *l, size_t at, bool blanks_only)
{
    const char *p = l->buf.p;
    while (at > 0 && (blanks_only ? isspace((unsigned char)p[at - 1]) : !word_byte(p[at - 1]))) at--;
    while (at > 0 && (blanks_only ? !isspace((unsigned char)p[at - 1]) : word_byte(p[at - 1]))) at--;
    return at;
}

static size_t word_right(const struct lineedit *l, size_t at)
{
    while (at < l->buf.n && !word_byte(l->buf.p[at])) at++;
    while (at < l->buf.n && word_byte(l->buf.p[at])) at++;
    return at;
}

static size_t line_start(const struct lineedit *l, size_t at)
{
    while (at > 0 && l->buf.p[at - 1] != '\n') at--;
    return at;
}

static size_t line_end(const struct lineedit *l, size_t at)
{
    while (at < l->buf.n && l->buf.p[at] != '\n') at++;
    return at;
}

/* ---- screen ---- */

static void put(struct buffer *s, const char *p, size_t n)
{
    if (s) (void)buffer_append(s, p, n);
}

static void put_str(struct buffer *s, const char *p) { put(s, p, strlen(p)); }

static void put_cluster(struct buffer *s, const char *p, size_t n)
{
    uint32_t cp;
    char caret[2] = { '^', 0 };
    int len = utf8_next(p, n, &cp);
    if (cp == '\t') put(s, "    ", 4);
    else if (cp < 32 || cp == 127) caret[1] = (char)(cp ^ 64), put(s, caret, 2);
    else if (cp == 0xfffd && len == 1) put(s, "\357\277\275", 3);
    else put(s, p, n);
}

struct place { int row, col; };

/* Lays the buffer out in rows of cols columns; where[0] = cursor, where[1] = end. Rows first..last are appended to s (NULL: only measure). A row
 * that is exactly full ends with an explicit line break, which every terminal treats the same. */
static void layout(struct lineedit *l, int cols, int first, int last, struct buffer *s, struct place where[2])
{
    struct place p = { 0, 0 };
    const char *lead = l->prompt;
    for (size_t i = 0;;) {
        if (lead) { /* start of a line of the buffer */
            bool shown = s && p.row >= first && p.row <= last;
            if (shown) put_str(s, term_style(l->o.color, STYLE_PROMPT)), put_str(s, lead), put_str(s, term_style(l->o.color, STYLE_RESET));
            for (size_t k = 0, n = strlen(lead); k < n;) {
                uint32_t cp;
                k += (size_t)utf8_next(lead + k, n - k, &cp);
                p.col += char_width(cp);
            }
            lead = NULL;
        }
        int w = 1;
        bool newline = i < l->buf.n && l->buf.p[i] == '\n';
        size_t n = i < l->buf.n && !newline ? cluster(&l->buf, i, &w) : 1;
        if (!newline && p.col + w > cols && p.col > 0) {
            p.row++, p.col = 0;
            if (p.row > first && p.row <= last) put(s, "\r\n", 2);
        }
        if (i == l->pos) where[0] = p;
        if (i >= l->buf.n) break;
        if (newline) {
            p.row++, p.col = 0, lead = continuation;
            if (p.row > first && p.row <= last) put(s, "\r\n", 2);
        } else {
            if (s && p.row >= first && p.row <= last) put_cluster(s, l->buf.p + i, n);
            p.col += w;
        }
        i += n;
    }
    where[1] = p;
}

static void flush_screen(struct lineedit *l)
{
    for (size_t done = 0; done < l->screen.n;) {
        ssize_t n = write(l->o.out, l->screen.p + done, l->screen.n - done);
        if (n > 0) done += (size_t)n;
        else if (n < 0 && errno != EINTR) break;
    }
    l->screen.n = 0;
}

static void move(struct buffer *s, int n, char direction)
{
    char seq[24];
    if (n > 0) put(s, seq, (size_t)snprintf(seq, sizeof seq, "\033[%d%c", n, direction));
}

static void draw(struct lineedit *l)
{
    int cols = term_width(), height = term_height(), first = 0;
    struct place where[2];
    struct buffer *s = &l->screen;
    if (cols < 8) cols = 8;
    layout(l, cols, 0, 0, NULL, where);
    if (where[1].row >= height) {
        first = where[0].row - height / 2;
        if (first > where[1].row - height + 1) first = where[1].row - height + 1;
        if (first < 0) first = 0;
    }
    int last = where[1].row - first >= height ? first + height - 1 : where[1].row;
    put_str(s, "\r");
    move(s, l->row, 'A');
    put_str(s, "\033[J");
    layout(l, cols, first, last, s, where);
    put_str(s, "\r");
    move(s, last - where[0].row, 'A');
    move(s, where[0].col < cols ? where[0].col : cols - 1, 'C');
    l->row = where[0].row - first;
    flush_screen(l);
}

/* Leaves the text on the screen and goes to a fresh line below it. */
static void leave_screen(struct lineedit *l, const char *mark)
{
    size_t pos = l->pos;
    l->pos = l->buf.n;
    draw(l);
    l->pos = pos;
    put_str(&l->screen, mark);
    put_str(&l->screen, "\r\n");
    flush_screen(l);
    l->row = 0;
}

/* ---- input ---- */

static bool waiting(struct lineedit *l, int timeout_ms)
{
    struct pollfd p = { .fd = l->o.in, .events = POLLIN };
    return l->in_at < l->in_n || poll(&p, 1, timeout_ms) > 0;
}

static int read_byte(struct lineedit *l)
{
    while (l->in_at >= l->in_n) {
        if (cli_interrupted) return KEY_SIGNAL;
        if (l->eof) return KEY_EOF;
        ssize_t n = read(l->o.in, l->in, sizeof l->in);
        l->in_at = 0;
        l->in_n = n > 0 ? (size_t)n : 0;
        if (n == 0 || (n < 0 && errno != EINTR)) l->eof = true;
        if (n < 0 && errno == EINTR && !cli_interrupted && l->interactive) return KEY_NONE; /* the window changed its size */
    }
    return (unsigned char)l->in[l->in_at++];
}

/* Escape sequences by their final byte and first parameter; modifier 2.. = Shift, Alt, Ctrl. */
static int csi_key(int final, int first, int modifier)
{
    static const struct { int final, first, key; } keys[] = {
        { 'A', 0, KEY_UP }, { 'B', 0, KEY_DOWN }, { 'C', 0, KEY_RIGHT }, { 'D', 0, KEY_LEFT }, { 'H', 0, KEY_HOME }, { 'F', 0, KEY_END },
        { '~', 1, KEY_HOME }, { '~', 7, KEY_HOME }, { '~', 4, KEY_END }, { '~', 8, KEY_END }, { '~', 3, KEY_DELETE }, { '~', 200, KEY_PASTE },
        { 'u', 13, KEY_NEWLINE },
    };
    for (int i = 0; i < ARRAY_LEN(keys); i++) {
        if (keys[i].final != final || (keys[i].first && keys[i].first != first)) continue;
        if (modifier > 1 && keys[i].key == KEY_LEFT) return KEY_WORD_LEFT;
        if (modifier > 1 && keys[i].key == KEY_RIGHT) return KEY_WORD_RIGHT;
        return keys[i].key;
    }
    return KEY_NONE;
}

static int read_key(struct lineedit *l)
{
    int c = read_byte(l), param[3] = { 0 }, n = 0;
    if (c != 27) return c;
    if (!waiting(l, 50)) return KEY_NONE;
    c = read_byte(l);
    if (c == '\r' || c == '\n') return KEY_NEWLINE;
    if (c != '[' && c != 'O') return c < 256 ? KEY_ALT + c : c;
    for (int used = 0; used < 32; used++) {
        if (!waiting(l, 50)) return KEY_NONE;
        c = read_byte(l);
        if (c >= '0' && c <= '9') param[n] = param[n] < 1000 ? param[n] * 10 + c - '0' : 1000;
        else if (c == ';' && n < 2) n++;
        else if (c >= 0x40) break;
    }
    if (c == '~' && param[0] == 27 && param[2] == 13) return KEY_NEWLINE; /* xterm's modifyOtherKeys form of Shift-Enter */
    return csi_key(c, param[0], param[1]);
}

/* Everything up to ESC [ 201 ~ is text. */
static bool paste(struct lineedit *l)
{
    static const char end[] = "\033[201~";
    struct buffer got = { 0 };
    bool ok = true;
    for (int c = 0, last = 0;; last = c) {
        c = read_byte(l);
        if (c == KEY_NONE) continue;
        if (c >= 256) break;
        if (c == '\n' && last == '\r') continue; /* CR LF is one line break */
        char b = c == '\r' ? '\n' : (char)c;
        if (!(ok = buffer_append(&got, &b, 1))) break;
        if (got.n >= sizeof end - 1 && !memcmp(got.p + got.n - (sizeof end - 1), end, sizeof end - 1)) {
            got.n -= sizeof end - 1;
            break;
        }
    }
    if (ok && got.n) ok = buffer_insert(&l->buf, l->pos, got.p, got.n);
    if (ok) l->pos += got.n;
    buffer_free(&got);
    return ok;
}

/* ---- what keys do ---- */

static bool insert(struct lineedit *l, const char *s, size_t n)
{
    if (!buffer_insert(&l->buf, l->pos, s, n)) return false;
    l->pos += n;
    return true;
}

static bool kill_range(struct lineedit *l, size_t from, size_t to)
{
    if (from == to) return true;
    if (!buffer_set(&l->kill, l->buf.p + from, to - from)) return false;
    buffer_remove(&l->buf, from, to - from);
    l->pos = from;
    return true;
}

static void erase(struct lineedit *l, size_t from, size_t to)
{
    buffer_remove(&l->buf, from, to - from);
    l->pos = from;
}

static bool show_history(struct lineedit *l, int at)
{
    if (at < 0 || at > l->history.n) return true;
    if (l->at == l->history.n && !buffer_set(&l->draft, l->buf.p, l->buf.n)) return false;
    const char *s = at < l->history.n ? l->history.item[at] : l->draft.p;
    size_t n = at < l->history.n ? strlen(s) : l->draft.n;
    l->at = at;
    if (!buffer_set(&l->buf, s, n)) return false;
    l->pos = l->buf.n;
    return true;
}

/* Up and down move between the lines of the buffer, and from its first and last line through the history. */
static bool vertical(struct lineedit *l, int direction)
{
    size_t start = line_start(l, l->pos), end = line_end(l, l->pos);
    if (direction < 0 && start == 0) return show_history(l, l->at - 1);
    if (direction > 0 && end == l->buf.n) return show_history(l, l->at + 1);
    int column = 0;
    for (size_t p = start; p < l->pos; p = step_right(l, p)) column++;
    l->pos = direction < 0 ? line_start(l, start - 1) : end + 1;
    while (column-- > 0 && l->pos < l->buf.n && l->buf.p[l->pos] != '\n') l->pos = step_right(l, l->pos);
    return true;
}

static bool transpose(struct lineedit *l)
{
    size_t mid = l->pos == l->buf.n ? step_left(l, l->pos) : l->pos, left = step_left(l, mid), right = step_right(l, mid);
    struct buffer *k = &l->draft; /* scratch: the draft is only alive while browsing */
    if (mid == 0 || left == mid || l->at != l->history.n) return true;
    if (!buffer_set(k, l->buf.p + mid, right - mid) || !buffer_append(k, l->buf.p + left, mid - left)) return false;
    memcpy(l->buf.p + left, k->p, k->n);
    l->pos = right;
    return true;
}

/* Tab at the start: completes one of the words, or shows those that fit. */
static bool complete(struct lineedit *l)
{
    const char *common = NULL;
    size_t len = 0;
    int found = 0;
    for (const char *const *w = l->o.words; w && *w; w++) {
        if (strncmp(*w, l->buf.p, l->pos)) continue;
        if (found++ == 0) common = *w, len = strlen(*w);
        size_t k = 0;
        while (k < len && (*w)[k] == common[k]) k++;
        len = k;
    }
    if (!found || l->buf.p[0] != '/' || memchr(l->buf.p, ' ', l->pos)) return insert(l, "\t", 1);
    if (len > l->pos && !insert(l, common + l->pos, len - l->pos)) return false;
    if (found == 1) return insert(l, " ", 1);
    if (len == l->pos) {
        leave_screen(l, "");
        for (const char *const *w = l->o.words; *w; w++)
            if (!strncmp(*w, l->buf.p, l->pos)) put_str(&l->screen, *w), put_str(&l->screen, "  ");
        put_str(&l->screen, "\r\n");
    }
    return true;
}

static int find_back(const struct lineedit *l, int from, const char *query)
{
    for (int i = from; i >= 0; i--)
        if (strstr(l->history.item[i], query)) return i;
    return -1;
}

/* Ctrl-R: the buffer shows the newest entry that contains the query. Returns the key that ended the search, which then acts as usual. */
static int search(struct lineedit *l)
{
    struct buffer query = { 0 };
    const char *prompt = l->prompt;
    char shown[128];
    int hit = -1, key = KEY_NONE;
    bool failed = !buffer_set(&l->draft, l->buf.p, l->buf.n) || !buffer_reserve(&query, 0);
    while (!failed) {
        snprintf(shown, sizeof shown, "(search)'%.90s': ", query.p);
        l->prompt = shown;
        draw(l);
        key = read_key(l);
        int from = l->history.n - 1;
        if (key == KEY_NONE) continue;
        if (key == CTRL('r')) from = hit >= 0 ? hit - 1 : from;
        else if (key == CTRL('h') || key == 127) query.n -= query.n > 0, query.p[query.n] = 0;
        else if (key >= 32 && key < 256) failed = !buffer_append(&query, &(char){ (char)key }, 1);
        else break;
        while (query.n > 0 && key >= 128 && key < 256 && waiting(l, 0) && l->in_at < l->in_n && ((unsigned char)l->in[l->in_at] & 0xc0) == 0x80)
            failed = !buffer_append(&query, &l->in[l->in_at++], 1);
        int found = query.n ? find_back(l, from, query.p) : -1;
        if (found < 0) continue;
        hit = found;
        failed = !buffer_set(&l->buf, l->history.item[hit], strlen(l->history.item[hit]));
        const char *at = strstr(l->buf.p, query.p);
        l->pos = at ? (size_t)(at - l->buf.p) : l->buf.n;
    }
    if (key == CTRL('g') || key == CTRL('c')) {
        (void)buffer_set(&l->buf, l->draft.p, l->draft.n); /* fits: it was there before */
        l->pos = l->buf.n;
        key = KEY_NONE;
    }
    l->at = l->history.n;
    l->prompt = prompt;
    buffer_free(&query);
    return failed ? KEY_EOF : key;
}

static bool open_quotes(const struct buffer *t)
{
    size_t i = 0;
    while (i < t->n && isspace((unsigned char)t->p[i])) i++;
    if (t->n - i < 3 || memcmp(t->p + i, "\"\"\"", 3)) return false;
    return !strstr(t->p + i + 3, "\"\"\"");
}

/* Enter: does the message go on? Then its last line gets a newline instead. */
static bool goes_on(struct lineedit *l)
{
    if (open_quotes(&l->buf)) return true;
    if (l->pos != l->buf.n || l->buf.n == 0 || l->buf.p[l->buf.n - 1] != '\\') return false;
    buffer_remove(&l->buf, --l->pos, 1);
    return true;
}

static void suspend(struct lineedit *l)
{
    leave_screen(l, "");
    term_restore();
    raise(SIGTSTP);
    term_raw(l->o.in);
}

static bool edit_key(struct lineedit *l, int key)
{
    size_t pos = l->pos;
    char c = (char)key;
    switch (key) {
    case CTRL('a'): case KEY_HOME: l->pos = line_start(l, pos); return true;
    case CTRL('e'): case KEY_END: l->pos = line_end(l, pos); return true;
    case CTRL('b'): case KEY_LEFT: l->pos = step_left(l, pos); return true;
    case CTRL('f'): case KEY_RIGHT: l->pos = step_right(l, pos); return true;
    case KEY_ALT + 'b': case KEY_WORD_LEFT: l->pos = word_left(l, pos, false); return true;
    case KEY_ALT + 'f': case KEY_WORD_RIGHT: l->pos = word_right(l, pos); return true;
    case CTRL('p'): case KEY_UP: return vertical(l, -1);
    case CTRL('n'): case KEY_DOWN: return vertical(l, 1);
    case CTRL('h'): case 127: erase(l, step_left(l, pos), pos); return true;
    case CTRL('d'): case KEY_DELETE: erase(l, pos, step_right(l, pos)); return true;
    case CTRL('k'): return kill_range(l, pos, line_end(l, pos) > pos ? line_end(l, pos) : step_right(l, pos));
    case CTRL('u'): return kill_range(l, line_start(l, pos), pos);
    case CTRL('w'): return kill_range(l, word_left(l, pos, true), pos);
    case KEY_ALT + 127: case KEY_ALT + CTRL('h'): return kill_range(l, word_left(l, pos, false), pos);
    case KEY_ALT + 'd': return kill_range(l, pos, word_right(l, pos));
    case CTRL('y'): return !l->kill.n || insert(l, l->kill.p, l->kill.n);
    case CTRL('t'): return transpose(l);
    case CTRL('l'): put_str(&l->screen, "\033[H\033[2J"), l->row = 0; return true;
    case CTRL('z'): suspend(l); return true;
    case CTRL('j'): case KEY_NEWLINE: return insert(l, "\n", 1);
    case KEY_PASTE: return paste(l);
    case '\t': return complete(l);
    default: return key < 32 || key > 255 || insert(l, &c, 1);
    }
}

static enum line_result edit(struct lineedit *l, size_t *dropped)
{
    for (;;) {
        if (!waiting(l, 0)) draw(l);
        int key = read_key(l);
        if (key == CTRL('r')) key = search(l);
        if (key == KEY_SIGNAL) return leave_screen(l, ""), LINE_SIGNAL;
        if (key == KEY_EOF) return leave_screen(l, ""), LINE_EOF;
        if (key == CTRL('d') && l->buf.n == 0) return leave_screen(l, ""), LINE_EOF;
        if (key == CTRL('c')) return *dropped = l->buf.n, leave_screen(l, "^C"), LINE_CANCEL;
        if (key == '\r') {
            if (!goes_on(l)) return leave_screen(l, ""), LINE_OK;
            key = KEY_NEWLINE;
        }
        if (!edit_key(l, key)) return LINE_ERROR;
    }
}

/* ---- plain input ---- */

static enum line_result read_plain(struct lineedit *l)
{
    bool any = false;
    for (;;) {
        if (l->in_at >= l->in_n) {
            int c = read_byte(l);
            if (c == KEY_SIGNAL) return LINE_SIGNAL;
            if (c == KEY_EOF) return any ? LINE_OK : LINE_EOF;
            l->in_at--;
        }
        any = true;
        const char *p = l->in + l->in_at, *stop = memchr(p, '\n', l->in_n - l->in_at);
        size_t n = stop ? (size_t)(stop - p) : l->in_n - l->in_at;
        if (!buffer_append(&l->buf, p, n)) return LINE_ERROR;
        l->in_at += n + (stop != NULL);
        if (!stop) continue;
        if (l->buf.n && l->buf.p[l->buf.n - 1] == '\r') buffer_remove(&l->buf, l->buf.n - 1, 1);
        l->pos = l->buf.n;
        if (!goes_on(l)) return LINE_OK;
        if (!buffer_append(&l->buf, "\n", 1)) return LINE_ERROR;
    }
}

/* ---- interface ---- */

/* """text""" -> text, without the newlines that only set the marks apart. */
static void strip_quotes(struct buffer *t, const char **text, size_t *n)
{
    char *p = t->p, *end = t->p + t->n;
    while (p < end && isspace((unsigned char)*p)) p++;
    while (end > p && isspace((unsigned char)end[-1])) end--;
    *text = t->p, *n = t->n;
    if (end - p < 6 || memcmp(p, "\"\"\"", 3) || memcmp(end - 3, "\"\"\"", 3)) return;
    p += 3, end -= 3;
    if (p < end && *p == '\n') p++;
    if (p < end && end[-1] == '\n') end--;
    *end = 0;
    *text = p, *n = (size_t)(end - p);
}

static void on_resize(int sig) { (void)sig; }

status lineedit_open(struct lineedit **out, const struct line_options *o, struct err *e)
{
    struct lineedit *l = *out = mem_calloc(1, sizeof *l);
    if (!l) return err_oom(e, "line editor", sizeof *l);
    l->o = *o;
    l->interactive = term_is_tty(o->in) && term_is_tty(o->out) && !term_dumb();
    status st = history_open(&l->history, o->history, e);
    if (st == OK && l->interactive) {
        struct sigaction sa = { .sa_handler = on_resize };
        sigaction(SIGWINCH, &sa, NULL);
    }
    if (st != OK) lineedit_close(l), *out = NULL;
    return st;
}

void lineedit_close(struct lineedit *l)
{
    if (!l) return;
    if (l->interactive) term_restore();
    history_close(&l->history);
    buffer_free(&l->buf), buffer_free(&l->draft), buffer_free(&l->kill), buffer_free(&l->screen);
    mem_free(l);
}

bool lineedit_interactive(const struct lineedit *l) { return l->interactive; }

enum line_result lineedit_read(struct lineedit *l, const char *prompt, const char **text, size_t *n)
{
    enum line_result result;
    *text = "", *n = 0;
    l->prompt = prompt;
    l->at = l->history.n;
    l->pos = 0;
    l->row = 0;
    if (!buffer_set(&l->buf, "", 0)) return LINE_ERROR;
    if (l->interactive && !term_raw(l->o.in)) return LINE_ERROR;
    result = l->interactive ? edit(l, n) : read_plain(l);
    term_busy();
    if (result != LINE_OK) return result;
    history_add(&l->history, l->buf.p, l->buf.n);
    strip_quotes(&l->buf, text, n);
    return LINE_OK;
}

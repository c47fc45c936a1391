/* base - status codes, error text, checked size arithmetic, and the three functions through which all memory comes.
 * Knows nothing else of the project. Everything here is safe from any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The values are the process exit codes, documented in README.md. */
typedef enum status {
    OK = 0,
    ERR_RUNTIME = 1,        /* a write failed, a limit was hit while working */
    ERR_USAGE = 2,          /* the caller's options or prompt are wrong */
    ERR_FILE = 3,           /* missing, unreadable, not a regular file */
    ERR_FORMAT = 4,         /* corrupt or unsupported file */
    ERR_MEMORY = 5,         /* does not fit in memory */
    ERR_GATE = 6,           /* a quality gate failed */
    ERR_VERIFY = 7,         /* verification failed */
    ERR_INTERRUPTED = 130,  /* SIGINT */
} status;

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Owned by the caller, may be NULL. Holds the first cause only: later calls leave it alone. Zero-initialise before use. */
struct err {
    status code;
    char text[240]; /* one line, no newline; names the object and both values; cut with "..." if longer */
};

/* err_set - records code and text unless e already holds a cause. Returns code, so that `return err_set(...)` reads well. */
status err_set(struct err *e, status code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* err_oom - err_set with ERR_MEMORY: "<what>: out of memory (N bytes)". */
status err_oom(struct err *e, const char *what, size_t bytes);

/* TRY - leave the function on the first failure. Only where nothing is owned yet. */
#define TRY(call)                      \
    do {                               \
        status try_ = (call);          \
        if (try_ != OK) return try_;   \
    } while (0)

/* Checked arithmetic for every number that a file or a user gave. False means overflow; *out is then untouched. */
bool mul_size(size_t a, size_t b, size_t *out) MUST_USE;
bool add_size(size_t a, size_t b, size_t *out) MUST_USE;
bool pad_size(size_t a, size_t align, size_t *out) MUST_USE; /* up to a multiple of align, a power of two */

double now_seconds(void);                    /* monotonic clock */
const char *path_base(const char *path);     /* behind the last slash */

/* hash64 - 64 bits of n bytes for tables over a file's texts. The seed should be something the file cannot know, such as an address. */
uint64_t hash64(uint64_t seed, const void *p, size_t n);

/* mix64 - the output function of splitmix64: of rising numbers a stream that passes for random. Steele et al. 2014 */
static inline uint64_t mix64(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
/* mix64_nth - number n of the stream of a seed. */
static inline uint64_t mix64_nth(uint64_t seed, uint64_t n) { return mix64(seed + n * 0x9e3779b97f4a7c15u); }

/* mem_alloc/mem_realloc/mem_free - malloc semantics; memory is NOT cleared. Size 0 gives a valid pointer.
 * mem_calloc clears and checks the product. All return NULL when memory is out. */
void *mem_alloc(size_t bytes) MUST_USE;
void *mem_calloc(size_t n, size_t bytes) MUST_USE;
void *mem_realloc(void *p, size_t bytes) MUST_USE;
void mem_free(void *p);

/* mem_admit - counts one allocation that does not come from malloc (mem_map); false when the test hook below makes it fail. */
bool mem_admit(void) MUST_USE;

/* Test hooks, the only mutable globals of the library. mem_fail_at(n): the n-th allocation from now fails (1 = next), and with
 * `sticky` all after it; 0 switches off. mem_count() = successful allocations so far in the process. */
void mem_fail_at(int64_t n, bool sticky);
int64_t mem_count(void);

static inline int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }
#define ARRAY_LEN(a) ((int)(sizeof(a) / sizeof((a)[0])))

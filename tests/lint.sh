#!/bin/sh
# The house rules that a machine can check: who may include whom, sizes, banned calls, where #if may stand. Prints one line per finding.
set -u
bad=$(mktemp)
trap 'rm -f "$bad"' EXIT
say() { printf '%s\n' "$1" >>"$bad"; }

# Include direction: "folder pattern" of the including file, then the allowed prefixes.
direction() { # FILES-REGEX ALLOWED-REGEX
    git ls-files '*.c' '*.h' | grep -E "$1" | while IFS= read -r f; do
        grep -nE '^#include "' "$f" | grep -vE "^[0-9]+:#include \"($2)" | sed "s|^|$f:|; s|\$|  is an include in the wrong direction|" >>"$bad"
    done
}
direction '^ggml-like/(base|arena)\.' 'ggml-like/(base|arena)\.h'
direction '^ggml-like/formats/' 'ggml-like/(base|dtype)\.h|ggml-like/formats/'
direction '^ggml-like/kernels/' 'ggml-like/(base|dtype)\.h|ggml-like/kernels/|ggml-like/formats/formats\.h'
direction '^ggml-like/[^/]*$' 'ggml-like/'
direction '^quant/' 'ggml-like/|quant/'
direction '^src/' 'ggml-like/|src/'
direction '^tools/' 'ggml-like/|src/(cuanto|convert|peft)\.h|quant/(quant|importance|solve|allocate|trial)\.h|tools/'
git grep -nE '^#include ".*\.c"' -- '*.c' '*.h' | sed 's/$/  includes a .c file/' >>"$bad"

# Sizes: files up to 1500 lines, functions up to 120; generated tables exempt.
git ls-files '*.c' '*.h' | grep -v '_tables\.c$' | while IFS= read -r f; do
    awk -v f="$f" '
        /^\{/ { start = NR; name = prev }
        /^\}/ { if (start && NR - start > 120) printf "%s:%d: function of %d lines (120): %s\n", f, start, NR - start, name; start = 0 }
        { if ($0 != "") prev = $0; if (length($0) > 160) printf "%s:%d: line of %d characters (160)\n", f, NR, length($0) }
        END { if (NR > 1500) printf "%s: %d lines (1500)\n", f, NR }' "$f" >>"$bad"
done

# Banned below tools/: ending the process, talking to the terminal, hidden knobs, unbounded or locale-dependent calls.
git grep -nE '(^|[^a-zA-Z_.>])(exit|_exit|abort|printf|fprintf|puts|putchar|perror|getenv|system|popen|sprintf|strcpy|strcat|gets|strtok|atoi|rand|srand)\(' \
    -- 'src/*.c' 'src/*.h' 'quant/*.c' 'ggml-like/*.c' 'ggml-like/*.h' | grep -vE ':\s*(/?\*|//)' | sed 's/$/  is banned below tools/' >>"$bad"
git grep -nE '(^|[^a-zA-Z_])(malloc|calloc|realloc|free)\(' -- 'src/*.c' 'quant/*.c' 'ggml-like/*.c' 'ggml-like/*.h' ':!ggml-like/base.c' |
    grep -vE ':\s*(/?\*|//)' | sed 's/$/  goes around mem_alloc/' >>"$bad"
git grep -nE '\b(TODO|FIXME|XXX|HACK)\b' -- '*.c' '*.h' '*.sh' Makefile ':!tests/lint.sh' | sed 's/$/  is left open/' >>"$bad"

# Conditional compilation has its places.
git grep -nE '^\s*#\s*(if|ifdef|ifndef|elif)\b' -- '*.c' '*.h' ':!ggml-like/base.h' ':!ggml-like/base.c' ':!ggml-like/arena.c' ':!ggml-like/cpu.c' ':!ggml-like/pool.c' ':!quant/quantizer.c' \
    ':!ggml-like/kernels' ':!tests' | sed 's/$/  is an #if outside its places/' >>"$bad"

# A format is a row: no switch over format numbers outside dtype.c.
git grep -nE 'case GGUF_' -- '*.c' ':!ggml-like/dtype.c' | sed 's/$/  is a switch over formats/' >>"$bad"

# Every folder is explained.
for d in src ggml-like quant tests tools models; do [ -f "$d/README.md" ] || say "$d/README.md is missing"; done

n=$(wc -l <"$bad")
cat "$bad"
if [ "$n" -eq 0 ]; then echo "lint: clean"; else echo "lint: $n findings"; exit 1; fi

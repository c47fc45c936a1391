#!/bin/sh
# Runs the command-line cases: NAME.sh must print exactly NAME.out. Needs sh and the binary only.
#   tests/cli/run.sh [-x NAME]... [NAME...]     all, those named; without those after -x. CUANTO = the command to test, may be several words: "qemu-aarch64 build/arm/cuanto"
# Cases model_*.sh use small models: $TINY_MODEL (with a chat template), $BARE_MODEL (without), $RECURRENT_MODEL (with layers that cannot go
# back), $MIXTURE_MODEL (with experts), $ADAPTER (of $TINY_MODEL). Where they are not set, $TEST_BIN writes
# them into $TMP; without that either, the cases are counted as skipped.
# A case runs in an empty folder, with `cuanto` first in PATH and no CUANTO_ variables. UPDATE=1 rewrites the .out files.
here=$(cd "$(dirname "$0")" && pwd)
[ -n "${CUANTO:-}" ] || { echo "usage: CUANTO=build/release/cuanto $0 [NAME...]" >&2; exit 2; }
without=
while [ "${1:-}" = -x ] && [ $# -gt 1 ]; do without="$without $2 "; shift 2; done
absolute() { case $1 in '' | /*) echo "$1" ;; */*) echo "$(pwd)/$1" ;; *) echo "$1" ;; esac; }
binary=
for word in $CUANTO; do binary="$binary $(absolute "$word")"; done
if [ -z "${TINY_MODEL:-}" ] && [ -n "${TEST_BIN:-}" ] && $TEST_BIN cli_models_are_written >/dev/null; then
    TINY_MODEL=$TMP/cli_tiny.gguf BARE_MODEL=$TMP/cli_bare.gguf RECURRENT_MODEL=$TMP/cli_recurrent.gguf MIXTURE_MODEL=$TMP/cli_mixture.gguf
    ADAPTER=$TMP/cli_adapter.gguf
fi
TINY_MODEL=$(absolute "${TINY_MODEL:-}") BARE_MODEL=$(absolute "${BARE_MODEL:-}") RECURRENT_MODEL=$(absolute "${RECURRENT_MODEL:-}")
MIXTURE_MODEL=$(absolute "${MIXTURE_MODEL:-}") ADAPTER=$(absolute "${ADAPTER:-}")

tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
mkdir "$tmp/bin" "$tmp/home"
printf '#!/bin/sh\nexec%s "$@"\n' "$binary" >"$tmp/bin/cuanto"
chmod +x "$tmp/bin/cuanto"

passed=0 failed=0 skipped=0
[ $# -gt 0 ] || set -- $(cd "$here" && ls *.sh | grep -v '^run\.sh$' | sed 's/\.sh$//')
for name; do
    case $without in *" $name "*) continue ;; esac
    case $name in
    model_*) [ -f "$TINY_MODEL" ] && [ -f "$BARE_MODEL" ] && [ -f "$RECURRENT_MODEL" ] && [ -f "$MIXTURE_MODEL" ] && [ -f "$ADAPTER" ] || { skipped=$((skipped + 1)); continue; } ;;
    esac
    rm -rf "$tmp/work"
    mkdir "$tmp/work"
    (cd "$tmp/work" && env -i PATH="$tmp/bin:$PATH" HOME="$tmp/home" TERM=dumb LC_ALL=C TINY_MODEL="$TINY_MODEL" BARE_MODEL="$BARE_MODEL" \
        RECURRENT_MODEL="$RECURRENT_MODEL" MIXTURE_MODEL="$MIXTURE_MODEL" ADAPTER="$ADAPTER" \
        sh "$here/$name.sh" </dev/null >"$tmp/out" 2>&1)
    [ -z "${UPDATE:-}" ] || cp "$tmp/out" "$here/$name.out"
    if cmp -s "$tmp/out" "$here/$name.out"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        diff "$here/$name.out" "$tmp/out" | sed 's/^/    /' | head -n 20
    fi
done
[ $skipped -eq 0 ] || echo "$skipped skipped: no TINY_MODEL and BARE_MODEL"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]

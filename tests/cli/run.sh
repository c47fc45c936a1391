#!/bin/sh
# Runs the command-line cases: NAME.sh must print exactly NAME.out. Needs sh and the binary only.
#   tests/cli/run.sh BINARY [NAME...]        BINARY may be several words, for example "qemu-aarch64 build/arm/cuanto"
# Cases model_*.sh use the model file in $TINY_MODEL (any model with a chat template or none); without it they are counted as skipped.
# A case runs in an empty folder, with `cuanto` first in PATH and no CUANTO_ variables. UPDATE=1 rewrites the .out files.
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { echo "usage: $0 BINARY [NAME...]" >&2; exit 2; }
binary=$1
shift
first=${binary%% *}
case $first in
/*) ;;
*/*) binary=$(pwd)/$binary ;;
esac
second=${binary#* }
[ "$second" = "$binary" ] || case $second in /*) ;; *) binary="${binary%% *} $(pwd)/$second" ;; esac
case ${TINY_MODEL:-} in '' | /*) ;; *) TINY_MODEL=$(pwd)/$TINY_MODEL ;; esac

tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
mkdir "$tmp/bin" "$tmp/home"
printf '#!/bin/sh\nexec %s "$@"\n' "$binary" >"$tmp/bin/cuanto"
chmod +x "$tmp/bin/cuanto"

passed=0 failed=0 skipped=0
[ $# -gt 0 ] || set -- $(cd "$here" && ls *.sh | grep -v '^run\.sh$' | sed 's/\.sh$//')
for name; do
    case $name in
    model_*) [ -n "${TINY_MODEL:-}" ] || { skipped=$((skipped + 1)); continue; } ;;
    esac
    rm -rf "$tmp/work"
    mkdir "$tmp/work"
    (cd "$tmp/work" && env -i PATH="$tmp/bin:$PATH" HOME="$tmp/home" TERM=dumb LC_ALL=C TINY_MODEL="${TINY_MODEL:-}" \
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
[ $skipped -eq 0 ] || echo "$skipped skipped: TINY_MODEL is not set"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]

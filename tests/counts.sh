#!/bin/sh
# Instructions of each hot kernel at the AVX2 level, counted by valgrind and compared with golden/counts.txt: more than 2 % away, either way, is a
# failure. The table has a part for each compiler; another compiler has nothing to be compared with. Needs valgrind (with its headers).
#   tests/counts.sh            compare; ends with "N passed, N failed". A compiler without a part fails; COUNTS_SKIP=1: is told and passes
#   tests/counts.sh --write    put this compiler's counts into the table, after a change that was meant: read the diff
set -eu
cd "$(dirname "$0")/.."
cc=${CC:-cc} build=${B:-build/release} table=tests/golden/counts.txt
case $($cc --version | head -n 1) in
*clang*) compiler="clang $($cc -dumpversion)" ;;
*) compiler="gcc $($cc -dumpfullversion)" ;;
esac
make -s CC="$cc" B="$build" "$build/counts"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
valgrind -q --tool=callgrind --instr-atstart=no --callgrind-out-file="$tmp/out" "$build/counts" avx2 >"$tmp/level" 2>"$tmp/err" || { cat "$tmp/err" >&2; exit 1; }
[ "$(cat "$tmp/level")" = avx2 ] || { echo "counts.sh: the CPU that valgrind shows has level $(cat "$tmp/level"), not avx2" >&2; exit 1; }
# One file a section, numbered in order: "desc: Trigger: Client Request: NAME" and "totals: N".
for f in $(ls "$tmp" | sed -n 's/^out\.\([0-9]*\)$/\1/p' | sort -n); do
    sed -n 's/^desc: Trigger: Client Request: //p; s/^totals: //p' "$tmp/out.$f" | paste -s -d ' ' -
done >"$tmp/now"
part() { awk -v c="[$compiler]" '/^\[/ { on = $0 == c; next } on && NF == 2' "$table"; }
if [ "${1:-}" = --write ]; then
    { sed '/^\[/,$d' "$table"; awk -v c="[$compiler]" '/^\[/ { seen = 1; on = $0 == c } seen && !on' "$table"; echo "[$compiler]"; cat "$tmp/now"; } >"$tmp/new"
    cp "$tmp/new" "$table"
    echo "$table: $(wc -l <"$tmp/now") counts of $compiler"
    exit
fi
part >"$tmp/old"
if [ ! -s "$tmp/old" ]; then
    echo "counts.sh: $table has no part for $compiler: $(wc -l <"$tmp/now") counts, not compared"
    [ "${COUNTS_SKIP:-}" != 1 ] || exit 0
    echo "counts.sh: give it one with tests/counts.sh --write, on the commit before the change, or skip with COUNTS_SKIP=1"
    echo "0 passed, 1 failed"
    exit 1
fi
awk '
    NR == FNR { old[$1] = $2; next }
    !($1 in old) { printf "FAIL %s: %d instructions, not in the table\n", $1, $2; failed++; next }
    { d = 100 * ($2 - old[$1]) / old[$1]; was = old[$1]; delete old[$1] }
    d > 2 || d < -2 { printf "FAIL %s: %d instructions, %d in the table: %+.1f %%\n", $1, $2, was, d; failed++; next }
    { passed++ }
    END {
        for (name in old) { printf "FAIL %s: in the table, not counted\n", name; failed++ }
        if (failed) print "counts.sh: if this was meant: tests/counts.sh --write"
        printf "%d passed, %d failed\n", passed, failed
        exit failed > 0
    }' "$tmp/old" "$tmp/now"

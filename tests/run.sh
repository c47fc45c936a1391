#!/bin/sh
# Runs every kind of check of one build and adds up their "N passed, N failed" lines.   run.sh BUILD_FOLDER   ($RUN: emulator)
set -u
build=$1
passed=0 failed=0
mkdir -p "$build/tmp"

check() { # NAME COMMAND... : prints its output but for the count, which is added
    name=$1
    shift
    log=$build/tmp/$name.log
    "$@" >"$log" 2>&1
    rc=$?
    count=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$log" | tail -n 1)
    grep -v '^[0-9]* passed, [0-9]* failed$' "$log"
    if [ -z "$count" ]; then
        echo "FAIL $name: ended with status $rc and no count"
        failed=$((failed + 1))
        return
    fi
    passed=$((passed + ${count% *})) failed=$((failed + ${count#* }))
    if [ "$rc" -ne 0 ] && [ "${count#* }" -eq 0 ]; then
        echo "FAIL $name: status $rc"
        failed=$((failed + 1))
    fi
}

check unit ${RUN:-} "$build/test"
for f in "$build"/fuzz_*; do
    case $f in *.[do]) continue ;; esac
    t=${f##*/fuzz_}
    check "fuzz_$t" ${RUN:-} "$f" -m "${MUTATIONS:-500}" tests/fuzz/corpus/"$t"/*
done
CUANTO="${RUN:+$RUN }$build/cuanto" TMP="$build/tmp" TEST_BIN="${RUN:+$RUN }$build/test" check cli sh tests/cli/run.sh
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

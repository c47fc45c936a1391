#!/bin/sh
# Runs every kind of check of one build and adds up their "N passed, N failed" lines.   run.sh BUILD_FOLDER   ($RUN: emulator, $WITHOUT: names of claims
# to leave out)
set -u
build=$1
passed=0 failed=0
mkdir -p "$build/tmp"

# start NAME COMMAND... : its output and status go to files. tell NAME : prints the output but for the count, which is added
start() {
    log=$build/tmp/$1.log
    shift
    "$@" >"$log" 2>&1
    echo $? >"$log.rc"
}
tell() {
    name=$1 log=$build/tmp/$1.log
    rc=$(cat "$log.rc")
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

# The models that the command line's cases use.
${RUN:-} "$build/test" cli_models_are_written >/dev/null 2>&1
rm -f "$build"/tmp/*.log.rc
# What an emulator leaves out (README.md says why). It takes 8 times as long for integers, 30 for floats; none of these multiplies in a way of its own.
walks='archs layers model_hostile grad_archs engine_precise_passes engine_threads_do_not_change_a_bit_of_a engine_scores_are
    engine_quantized_matmuls engine_bears_an_outlier attention_gradients_are losses_are_e_h_et solver_gives_the_same_bytes sampler_draws_the_exact
    compat_files_hold a_model_with_outlier_columns train_gradients train_all train_bits train_survives'
# Of the command line: whole solves and searches of budgets, four minutes each; the suites solve, solver and quantize do the same with one format.
cases='model_quantize model_allocate'
start unit ${RUN:-} "$build/test" -j "$(getconf _NPROCESSORS_ONLN)" ${RUN:+$(printf ' -x %s' $walks)} ${WITHOUT:+$(printf ' -x %s' $WITHOUT)} &
CUANTO="${RUN:+$RUN }$build/cuanto" TINY_MODEL="$build/tmp/cli_tiny.gguf" BARE_MODEL="$build/tmp/cli_bare.gguf" \
    RECURRENT_MODEL="$build/tmp/cli_recurrent.gguf" MIXTURE_MODEL="$build/tmp/cli_mixture.gguf" ADAPTER="$build/tmp/cli_adapter.gguf" \
    start cli sh tests/cli/run.sh ${RUN:+$(printf ' -x %s' $cases)}
mutations=${MUTATIONS:-500}
[ -z "${RUN:-}" ] || mutations=50 # what differs there is read by the corpus itself
for f in "$build"/fuzz_*; do
    case $f in *.[do]) continue ;; esac
    t=${f##*/fuzz_}
    start "fuzz_$t" ${RUN:-} "$f" -m "$mutations" tests/fuzz/corpus/"$t"/*
done
wait
for rc in "$build"/tmp/*.log.rc; do
    name=${rc##*/}
    tell "${name%.log.rc}"
done
[ -z "${RUN:-}" ] || echo "left out under $RUN:" $walks $cases
[ -z "${WITHOUT:-}" ] || echo "left out:" $WITHOUT
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

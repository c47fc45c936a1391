# a prompt that does not fit is refused with numbers; a context that fills up ends the answer loudly
m=$TINY_MODEL
seq 1 2000 | cuanto run $m --raw -c 64 -n 4 -q 2>err >out; echo "exit $?"
sed 's/has [0-9]* tokens/has N tokens/; s/-c [0-9]*/-c N/; s/^Shorten it.*/(advice)/' err
wc -c <out
cuanto run $m --raw 'a b c' -c 16 --ignore-eos --temp 0 -q --json 2>err | grep -o '"finish_reason":"[a-z]*"'; cat err
n=$(cuanto run $m --raw 'a b c' -c 16 -n 0 -q --json | sed 's/.*"prompt_tokens":\([0-9]*\).*/\1/')
t=$(cuanto run $m --raw 'a b c' -c 16 --ignore-eos --temp 0 -q --json 2>err | sed 's/.*"tokens":\([0-9]*\),"prompt.*/\1/')
echo "prompt + answer = $((n + t)) of 16, the last one not stored"
cuanto run $m --raw 'a b c' -c $n --ignore-eos -q --json 2>err | grep -o '"tokens":[0-9]*\|"finish_reason":"[a-z]*"'
cuanto run $m --raw 'a b c' -c 16 -n 2 --ignore-eos -q --json | grep -o '"tokens":[0-9]*\|"finish_reason":"[a-z]*"'
cuanto run $m --raw x -c 64 -n 1 --rope-scaling yarn --rope-scale 2 2>&1 >/dev/null | grep -o 'rope yarn x2'
cuanto run $m --raw x -c 64 -n 1 --rope-scaling longrope -q 2>&1 | grep -o 'longrope needs factors.*'

# run: stdout is the answer and nothing else; the same seed gives the same bytes
m=$TINY_MODEL
cuanto run $m --raw 'Once upon a time' -n 12 --ignore-eos --seed 7 -q >a 2>err; echo "exit $?"
wc -c <err
[ -s a ] && [ "$(tail -c 1 a | od -An -c | tr -d ' ')" = '\n' ] && echo 'ends with a newline'
cuanto run $m --raw 'Once upon a time' -n 12 --ignore-eos --seed 7 >b 2>err; cmp a b && echo 'same with status lines on stderr'
sed 's/[0-9.]* tok.s/R/g' err | tail -n 1 | sed 's/prompt [0-9]* tokens/prompt P tokens/'
cuanto run $m --raw 'Once upon a time' -n 12 --ignore-eos --seed 7 -q -t 1 >b; cmp a b && echo 'same with one thread'
cuanto run $m --raw 'Once upon a time' -n 12 --ignore-eos --seed 7 -q --no-stream --no-mmap -b 2 >b && echo 'runs with small batches'
printf 'Once upon a time\n' | cuanto run $m --raw -n 12 --ignore-eos --seed 7 -q >b; cmp a b && echo 'same from stdin'
printf 'Once upon a time' >f; cuanto run $m --raw -f f -n 12 --ignore-eos --seed 7 -q >b; cmp a b && echo 'same from a file'
printf 'a time' | cuanto run $m --raw Once upon - -n 0 -q --json | sed 's/"seed".*//' >b
printf 'Once upon\na time' | cuanto run $m --raw -n 0 -q --json | sed 's/"seed".*//' >c; cmp b c && cat c | sed 's/"prompt_tokens":[0-9]*/P/'
echo "- json"
cuanto run $m --raw 'Once upon a time' -n 3 --ignore-eos --temp 0 -q --json --top-logprobs 2 >j; echo "exit $?"
grep -o '"tokens":[0-9]*\|"finish_reason":"[a-z]*"\|"top":\|"seed":\|"load_ms":\|"prompt_ms":\|"prompt_per_second":\|"predicted_ms":\|"predicted_per_second":' j
grep -o '"logprob":[-0-9.e]*' j | wc -l
cuanto run $m --raw x -n 1 --ignore-eos -q --json --top-logprobs 1000 | grep -c '"id":-1\|null'
echo "- errors"
cuanto run $m --raw x -n 1 -q --logit-bias 5; echo "exit $?"
cuanto run $m --raw x -n 1 -q --logit-bias 999999999=1 2>&1 | sed 's/0\.\.[0-9]*/0..N/'
cuanto run $m hello --template nowhere 2>&1 | sed 's/one of .*/one of (names)/' | tail -n 1
cuanto run $m hello --template ./nowhere.jinja -q; echo "exit $?"
cuanto run $m --raw x -n 1 --isa mmx >out 2>&1; echo "exit $?"
echo "- no template"
cp $BARE_MODEL bare.gguf
cuanto run bare.gguf hello -q; echo "exit $?"
cuanto chat bare.gguf -q; echo "exit $?"
cuanto run $BARE_MODEL --raw hello -q -n 2 --ignore-eos >out; echo "exit $?"
cuanto run $BARE_MODEL hello --template chatml -q -n 2 --ignore-eos >out; echo "exit $?"
echo '[]' | cuanto template bare.gguf --messages -; echo "exit $?"
echo "- extract"
printf '{%% for m in messages %%}{{ m.content }}{%% endfor %%}' >t.jinja
cuanto run $m hello --template t.jinja -n 4 --ignore-eos --temp 0 -q >a; cuanto run $m hello --template t.jinja -n 4 --ignore-eos --temp 0 -x 2>err >b
cmp a b && grep fenced err

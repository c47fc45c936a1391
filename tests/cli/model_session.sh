# --session: what was read stays read, the answers stay the same
m="$TINY_MODEL -n 6 --ignore-eos --temp 0 -c 256"
c="$TINY_MODEL --template chatml -n 4 --ignore-eos --temp 0 -c 256"
kept() { sed -n 's/.*tokens (\([0-9]* of the session\)).*/\1/p' err; }
echo "- run"
cuanto run $m --raw 'Once upon a time' >a 2>err; echo "exit $?"
cuanto run $m --raw 'Once upon a time' --session s.kv >b 2>err; echo "exit $?"; cmp a b && echo 'same answer, now kept'; kept
cuanto run $m --raw 'Once upon a time' --prompt-cache s.kv >b 2>err; echo "exit $?"; cmp a b && echo 'same answer from the session'; kept
cuanto run $m --raw 'Once upon a hill' --session s.kv -q >b 2>err; cuanto run $m --raw 'Once upon a hill' -q >a; cmp a b && echo 'a common beginning'
cuanto run $m -c 64 --raw 'Once upon a hill' --session s.kv -q >b; cmp a b && echo 'another context'
echo "- chat"
printf 'Hello\nMore\n/regen\n' | cuanto chat $c -q >a
printf 'Hello\n' | cuanto chat $c -q --session c.kv >b
printf 'More\n/regen\n' | cuanto chat $c --session c.kv 2>err >>b; cmp a b && echo 'goes on where it ended'; grep -c '^session c.kv: [0-9]* tokens' err
printf '/undo\n/context\n/save\n' | cuanto chat $c -q --session c.kv 2>&1 | sed 's/KV cache .*/KV cache K/; s/context [0-9]*.256 tokens ([0-9 %]*)/context U/'
printf '/stats\nMore\n/stats\n' | cuanto chat $c -q --session c.kv 2>&1 >/dev/null | sed 's/read \([0-9]*\) tokens at [^,]*, [0-9]* more/read \1, N more/; s/| wrote.*//'
echo "- refusals"
cuanto run $BARE_MODEL --raw x -n 1 --session s.kv 2>&1 >/dev/null | grep -c 's.kv: a session of another model'
cuanto run $m --raw x --session s.kv --kv-type f32 2>&1 >/dev/null | tail -n 1
cuanto run $m -c 8 --raw x --session s.kv -q; echo "exit $?"
head -c 200 s.kv >cut.kv; cuanto run $m --raw x --session cut.kv -q 2>&1 | sed 's/expected [0-9]*/expected N/'
cp $TINY_MODEL x.gguf; cuanto run x.gguf --raw x --session x.gguf -q; echo "exit $?"
echo text >t.kv; cuanto run $m --raw x --session t.kv -q; echo "exit $?"; cat t.kv
cuanto run $m --raw x --session s.kv --rope-scaling linear --rope-scale 2 -q; echo "exit $?"

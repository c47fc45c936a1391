# chat over a pipe: answers on stdout, notes on stderr, /bye or the end of input ends with 0
m="$TINY_MODEL --template chatml -n 4 --ignore-eos --temp 0 -c 256"
printf 'Hello\n/bye\nnever read\n' | cuanto chat $m -q >a 2>err; echo "exit $?"; wc -c <err
printf 'Hello' | cuanto chat $m -q >b; echo "exit $?"; cmp a b && echo 'same without /bye'
printf '\n   \n' | cuanto chat $m -q; echo "exit $?"
printf 'Hello\n/undo\nHello\n/save s.json\n/regen\n/context\n' | cuanto chat $m >c 2>err; echo "exit $?"
sed 's/[0-9.]* tok.s/R/g; s/context [0-9]*\/256/context U\/256/; s/([0-9]* %)/(P)/; s/KV cache .*/KV cache K/; 1d' err
[ $(wc -c <c) -gt $(wc -c <a) ] && echo 'three answers'
tr -d ' \n' <s.json | grep -o '"role":"[a-z]*"'
printf '/load s.json\n/undo\n/context\n' | cuanto chat $m -q 2>&1 | sed 's/KV cache .*/KV cache K/'
printf 'Hello\n' | cuanto chat $m -q --load s.json >e; echo "exit $?"
printf '"""\nHello\n"""\n' | cuanto chat $m -q >b; cmp a b && echo 'quotes are not part of the message'
printf 'Hel\\\nlo\n' | cuanto chat $m -q >b; echo "exit $?"
used() { sed -n 's/^context \([0-9]*\)\/.*/\1/p' err | tr '\n' ' '; }
printf '/context\nHello\n/context\nMore\n/context\n/undo\n/context\n/undo\n/context\n' | cuanto chat $m -q >c 2>err; set -- $(used)
[ $1 -eq 0 ] && [ $2 -gt 0 ] && [ $3 -gt $2 ] && [ $4 -lt $3 ] && [ $5 -eq 0 ] && echo '/context counts what /undo left'
echo "- refusals"
printf '/udno\nnever read\n' | cuanto chat $m -q; echo "exit $?"
printf '/set temp 5000\n' | cuanto chat $m -q; echo "exit $?"
printf '/set hot 1\n' | cuanto chat $m -q; echo "exit $?"
printf '/load nowhere.json\n' | cuanto chat $m -q; echo "exit $?"
{ seq 1 400 | tr '\n' ' '; echo; } | cuanto chat $m -q 2>&1 | sed 's/has [0-9]* tokens/has N tokens/; s/^Shorten it.*\(\/undo.*\)/(advice) \1/'
echo "- settings"
printf '/set top-k\n/set top-k 5\n/set top-k\n/system\n/system Be brief.\n/system\n/system -\n/system\n/help\n' | cuanto chat $m -q
printf '/set --top_k 6\n/set n 9\n/set ignore_eos\n/set no-ignore-eos\n/set system x\n' | cuanto chat $m -q; echo "exit $?"
printf '/system Be brief.\nHello\n/clear\n/system\n/context\n/reset\n/?\n/quit\n' | cuanto chat $m -q 2>&1 >/dev/null | grep -a 'over\|brief\|messages\|/clear\|/bye' |
    sed 's/context [0-9]*.256 tokens ([0-9 %]*)/context U/; s/KV cache .*/KV cache K/'
printf 'Hello\n' | cuanto chat $m -q >a; printf 'Other words\n/new\nHello\n' | cuanto chat $m -q >b; tail -n 1 b | cmp - a && echo '/new forgets'

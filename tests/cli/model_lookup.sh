# --lookup: the same answers in fewer passes
m="$TINY_MODEL --raw -n 60 --ignore-eos"
for o in '--temp 0' '--temp 1.5 --seed 3' '--temp 0 --repeat-penalty 1.3' '--temp 0 -c 40' '--temp 0 -b 4' '--temp 0 -b 1'; do
    cuanto run $m abcabcabcabcabc $o >a 2>err; cuanto run $m abcabcabcabcabc $o --lookup -v >b 2>err
    cmp a b && echo "same: $o"
done
cuanto run $m abcabcabcabcabc --temp 0 --stop c --lookup=3 -q >b; cuanto run $m abcabcabcabcabc --temp 0 --stop c -q >a; cmp a b && echo 'same up to a stop text'
cuanto run $m abcabcabcabcabc --temp 0 --lookup -v 2>&1 >/dev/null | sed -n 's/[0-9][0-9]*/N/g; s/^lookup: /&/p'
cuanto run $m x --lookup=99; echo "exit $?"
c="$TINY_MODEL --template chatml -n 30 --ignore-eos --temp 0 -c 256 -q"
printf 'abcabc\nabcabc\n/regen\n' | cuanto chat $c >a; printf 'abcabc\nabcabc\n/regen\n' | cuanto chat $c --draft-ngram >b; cmp a b && echo 'same chat'

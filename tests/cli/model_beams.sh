# --beams: the likeliest answers; options that do not go together
m="$TINY_MODEL --raw Once -q"
cuanto run $m --beams 3 -n 5 --ignore-eos >a; echo "exit $?"; cuanto run $m --num-beams 3 -n 5 --ignore-eos -t 1 >b; cmp a b && echo 'same with one thread'
cuanto run $m --beams 3 -n 5 --ignore-eos --n-best 3 >c; grep -c '^# [123], score -' c
cuanto run $m --beams 3 -n 5 --ignore-eos --n-best 2 --json >j; echo "exit $?"; grep -o '"score"' j | wc -l; grep -o '"finish_reason":"[a-z]*"' j
cuanto run $m --beams 1 --early-stopping first -n 5 >a; cuanto run $m --temp 0 -n 5 >b; cmp a b && echo 'one beam is greedy'
cuanto run $m --beams 2 -n 30 --length-penalty 2 --early-stopping first >a; echo "exit $?"
cuanto run $m --n-best 2; echo "exit $?"
cuanto run $m --beams 2 --n-best 3; echo "exit $?"
cuanto run $m --beams 2 --lookup; echo "exit $?"
cuanto run $m --beams 2 --stop x; echo "exit $?"
cuanto run $m --beams 2 --json-mode; echo "exit $?"
cuanto run $m --beams 2 -n 0 | wc -c
cuanto run $TINY_MODEL --raw Once --beams 2 --ignore-eos -c 20 2>&1 >/dev/null | grep full
cuanto run $m --beams 99 | head -n 1
cuanto run $m --beams 3 -n 5 --ignore-eos --n-best 2 --json | sed -n 's/^{"text":"\(..*\)","answers":\[{"text":"\1","score".*/text is the best answer/p'
cuanto run $m --beams 2 -n 4 --early-stopping true >a; cuanto run $m --beams 2 -n 4 --early-stopping first >b; cmp a b && echo 'true is first'
cuanto run $TINY_MODEL --raw Once --beams 2 -n 2 --temp 1 --top-k 3 2>&1 >/dev/null | grep -a note

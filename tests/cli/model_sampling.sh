# sampling options: each reaches the sampler, errors name option, value and range
m=$TINY_MODEL
go() { cuanto run $m --raw 'Once upon a time' -n 8 --ignore-eos --seed 7 -q "$@"; }
go --temp 0 >greedy
go --temp 1.3 --top-k 0 --top-p 1 --min-p 0 >free
changes() { go --temp 1.3 --top-k 0 --top-p 1 --min-p 0 "$@" >out && if cmp -s out free; then echo "same   $*"; else echo "other  $*"; fi; }
changes --typical 1
changes --typical 0.2
changes --top-nsigma -1
changes --top-nsigma 0.3
changes --xtc-probability 1 --xtc-threshold 0.0001
changes --xtc-probability 1 --xtc-threshold 0.6
changes --dynatemp-range 1.2 --dynatemp-exp 0.5
changes --dry-multiplier 0
changes --mirostat 2 --mirostat-ent 1 --mirostat-lr 0.3
changes --mirostat 1 --mirostat-ent 1
go --temp 0 --typical-p 0.9 --top-n-sigma 2 --top-k 5 >out; cmp out greedy && echo 'greedy stays greedy'
go --temp 0 --repeat-penalty 1.0 --dry-multiplier 1e6 --dry-allowed-length 1 --dry-penalty-last-n -1 --dry-sequence-breaker none >out; echo "exit $?"
go --logit-bias 5+1000 --temp 0 >a; go --logit-bias 5=1000 --temp 0 >b; cmp a b && echo 'bias with + or ='
echo "- errors"
go --typical 2; echo "exit $?"
go --xtc-threshold -0.1; echo "exit $?"
go --dry-base 0.5; echo "exit $?"
go --dry-multiplier 1 --dry-sequence-breaker 'more than forty bytes are too much for this'; echo "exit $?"
go --mirostat 3; echo "exit $?"
go --logit-bias 5; echo "exit $?"
go --logit-bias 5-x; echo "exit $?"
echo "- set"
printf '/set typical 0.5\n/set typical\n/set dry-multiplier 0.8\n/set dry-sequence-breaker \\n\n/set mirostat 2\n/set mirostat\n/bye\n' | cuanto chat $m -q --template chatml; echo "exit $?"

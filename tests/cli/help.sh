# every command has help on stdout with exit code 0, in three spellings
cuanto help | head -n 3
cuanto --help >a && cuanto -h >b && cuanto help >c && cmp a b && cmp b c && echo same
for c in run chat perplexity compare bench inspect convert quantize recommend importance tokenize template doctor completion version help; do
    cuanto help $c >a 2>err || echo "$c: help failed"
    cuanto $c --help >b || echo "$c: --help failed"
    cmp a b
    grep -q "^Usage: cuanto $c" a || echo "$c: no usage line"
    [ -s err ] && echo "$c: text on stderr"
done
cuanto help all | grep -c '^Usage: cuanto'
cuanto
echo "exit $?"
cuanto help nothing
echo "exit $?"

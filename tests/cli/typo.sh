# the nearest command or option is suggested, exit code 2, nothing on stdout
t() { cuanto "$@" 2>&1 >out; echo "exit $?"; [ ! -s out ] || echo "stdout is not empty"; }
t rnu
t tokenise
t xyzzy
t run m --tmep 1
t run m --topk 1
t run m --max-tokens 5
t run m --seed
t run m --system --top-k 3
t run m --template --raw
t doctor extra
t tokenize

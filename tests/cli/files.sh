# how a model argument is found, and the exit codes of what is found
echo 'not a model' >junk.gguf
mkdir models one two three
cp junk.gguf models/small.gguf; cp junk.gguf one/a.gguf; cp junk.gguf two/b.gguf; cp junk.gguf two/c.gguf
t() { cuanto run "$@" --raw x 2>err >out; echo "exit $?"; head -n 1 err; [ ! -s out ] || echo "stdout is not empty"; }
t missing.gguf
t dir/missing.gguf
t three
t two 2>&1 | sed 's/b.gguf, c.gguf/B/; s/c.gguf, b.gguf/B/'
t '' 
echo "- these are found: the format is refused"
for m in junk.gguf ./junk small small.gguf one one/a; do cuanto run $m --raw x >out 2>&1; echo "exit $?"; done
CUANTO_MODELS=/nowhere:one:two cuanto run c --raw x >out 2>&1; echo "exit $?"
CUANTO_MODELS=/nowhere:one:two cuanto run d --raw x; echo "exit $?"
cuanto tokenize junk.gguf x >out 2>&1; echo "exit $?"
cuanto template small --messages none.json >out 2>&1; echo "exit $?"

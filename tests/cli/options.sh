# spellings, sources and ranges of options
show() { cuanto run --show-config m "$@" | grep -v "# default$"; }
echo "- spellings"
show --temp 0.5 -n 7 --top-k=3 -t 2 p1 --seed -1 p2 -- --min-p 4
show -n5 -c4096 --repeat-last-n -1 --presence-penalty=-1.5
show --no-mmap --raw --no-raw -q
show --mmap=off --stop a --stop b --stop=c
show --temperature 1 --ctx-size 9 --batch-size 8
echo "- environment"
CUANTO_TOP_K=9 CUANTO_NO_MMAP=enabled CUANTO_STOP=x CUANTO_SEED=-1 CUANTO_QUIET=0 show --top-k 8
CUANTO_STOP=x show --stop y
CUANTO_NO_MMAP=1 show --mmap
CUANTO_TEMP=hot cuanto run m p; echo "exit $?"
CUANTO_RAW=maybe cuanto run m p; echo "exit $?"
echo "- ranges"
for o in '--temp -1' '--temp nan' '--temp 1e9' '--top-p 1.5' '--min-p=-0.1' '--top-k x' '--top-k 1.5' '--top-k 99999999999999999999' '-c -5' '-t 5000' \
    '--kv-type q9' '--color blue' '--top-logprobs 1001' '-n -2' '--raw=maybe' '--logit-bias='; do
    cuanto run m p $o 2>&1 | head -n 1
done
cuanto run m p --stop 1 --stop 2 --stop 3 --stop 4 --stop 5 --stop 6 --stop 7 --stop 8 --stop 9 --stop 10 --stop 11 --stop 12 --stop 13 --stop 14 \
    --stop 15 --stop 16 --stop 17
echo "exit $?"
echo "- combinations"
cuanto run m p --raw -s x; echo "exit $?"
cuanto run m p --top-logprobs 2; echo "exit $?"
cuanto run m p --special; echo "exit $?"

# bench: which columns, members and rows come out, not how fast; old results beside new ones
m=$TINY_MODEL
keys() { tr ',{}' '\n\n\n' | sed -n 's/^ *"\([a-z0-9_]*\)":.*/\1/p' | tr '\n' ' '; echo; }
echo "- rows"
cuanto bench $m -p 8,0 -n 2 -pg 4,2 -d 0,3 -npl 1,3 -r 2 -t 1 --no-limits -q | sed 's/^|\([^|]*|\)\{4\}//; s/|[^|]*|$//'
echo "- formats"
cuanto bench $m -p 8 -n 0 -r 2 -t 1 --no-limits -q --format csv | head -n 1
cuanto bench $m -p 8 -n 0 -r 2 -t 1 -q --json --no-warmup | keys
cuanto bench $m -p 8 -n 2 -r 1 -t 1 -q --format jsonl --no-limits | grep -c '"samples_ns":\[[0-9]*\],"samples_ts":\[[0-9.e+]*\],"limits":null}$'
cuanto bench $m -p 8 -n 0 -r 1 -t 1 2>&1 >/dev/null | sed 's/[0-9][0-9.]*/N/g; s/  */ /g; s/^[^|]*| SIMD [a-zN]*/CPU | SIMD LEVEL/' | tail -n +2
echo "- sweep"
cuanto bench $m -p 4 -n 0 -r 1 -t 2 --threads-sweep -q --no-warmup | cut -d '|' -f 6-7,9-11 | sed '3,$s/[0-9.]* | *[0-9.]* % | *[0-9.]* % [a-z]*/V/'
echo "- ops"
cuanto bench $m -p 4 -n 0 -r 1 -t 1 --no-limits -q --ops | sed -n '4,5p;/matmul/s/[0-9.]* *| [0-9. ]*%/V/p'
cuanto bench $m -p 4 -n 0 -r 1 -t 1 --no-limits -q --ops --format csv | head -n 1 | grep -o 'us_embed\|us_matmul' | tr '\n' ' '
cuanto bench $m -p 4 -n 0 -r 1 -t 1 --no-limits -q --ops --json | grep -c '"matmul":'
echo "- kernels"
cuanto bench $m --kernels=q4_0,f32 -t 1 -q | sed 's/ *[0-9][0-9.]* %/ N/g; 3,$s/ *[0-9][0-9.]* |/ N |/g'
cuanto bench $m --kernels=q4_0 -t 1 -q --json | keys
cuanto bench $m --kernels=q4_9 -q; echo "exit $?"
echo "- compare"
row='"model_filename":"/a/m.gguf","n_threads":2'
echo "[{$row,\"n_prompt\":512,\"n_gen\":0,\"samples_ns\":[1e9,1.01e9,1.02e9,1.03e9,1.04e9]},{$row,\"n_prompt\":0,\"n_gen\":128,\"isa\":\"avx2\",\"samples_ns\":[1e9,1.01e9,1.02e9,1.03e9,1.04e9]},
  {$row,\"n_prompt\":8,\"n_gen\":0,\"samples_ns\":[1e7,2e7]}]" >old.json
for s in '"n_prompt":512,"n_gen":0,"samples_ns":[950000000,960000000,970000000,980000000,990000000]' '"n_prompt":0,"n_gen":128,"isa":"avx2","samples_ns":[1.00e9,1.02e9,1.03e9,1.04e9,1.06e9]' \
    '"n_prompt":0,"n_gen":128,"isa":"avx512","samples_ns":[5e8]' '"n_prompt":512,"n_gen":0,"n_depth":4,"samples_ns":[5e8]' '"n_prompt":8,"n_gen":0,"samples_ns":[3e7,4e7]'; do
    echo "{\"model_filename\":\"m\",\"n_threads\":2,$s}"
done >new.jsonl
cuanto bench new.jsonl --compare old.json; echo "exit $?"
cuanto bench new.jsonl --compare old.json --format csv
cuanto bench new.jsonl --compare old.json --json | head -n 15
cuanto bench new.jsonl --compare old.json --format jsonl | tail -n 1
cuanto bench new.jsonl --compare old.json --fail-if 'pp512<0.95' --fail-if 'tg128 > 1.5' >x; echo "exit $?"
cuanto bench new.jsonl --compare old.json --fail-if 'all<0.95' -q >x; echo "exit $?"
cuanto bench new.jsonl --compare old.json --fail-if 'pp512@d4<1' -q >x; echo "exit $?"
cuanto bench $m -p 4 -n 0 -r 5 -t 1 --no-limits -q --json >a.json; sed 's/"samples_ns":/"samples_ns": [1,2,3,4,5],"x":/; /"samples_ns": \[/!b' a.json >b.json
cuanto bench $m -p 4 -n 0 -r 5 -t 1 --no-limits -q --compare b.json | tail -n 1 | sed 's/|\([^|]*|\)\{2\}//; s/[0-9.]* | *[0-9.]* | *[0-9.]* |/V |/'
cuanto bench $m -p 4 -n 0 -r 1 -t 1 --no-limits -q --compare b.json --format jsonl | keys
echo "- errors"
cuanto bench $m --fail-if 'pp512<1'; echo "exit $?"
for g in pp512 '<1' 'pp512<' 'pp512<1x'; do cuanto bench $m --compare old.json --fail-if "$g"; done
for t in '' '{}' '[1]' '{"n_prompt":1}' '{"n_prompt":1,"samples_ns":[0]}' '{"n_prompt":-1,"samples_ns":[1]}' '[{'; do echo "$t" >bad.json; cuanto bench $m --compare bad.json; done
cuanto bench $m --compare nothing.json; echo "exit $?"
cuanto bench $m --threads-sweep -t 1,2; echo "exit $?"
cuanto bench $m -npl 0; echo "exit $?"

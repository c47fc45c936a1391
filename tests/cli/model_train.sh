say() { echo "- $*"; }
quiet() { "$@" >/dev/null 2>err.txt || { echo "exit $?"; cat err.txt; }; }
losses() { sed 's/,"seconds.*//' "$1"; }
falls() { sed 's/.*"loss":\([0-9.]*\).*/\1/' "$1" | awk 'NR == 1 { first = $1 } { last = $1 } END { print (last < 0.9 * first) ? "falls" : "does not fall: " first " " last }'; }

for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    echo '{"messages":[{"role":"user","content":"count to '$i'"},{"role":"assistant","content":"cabbage '$i' and lamp"}]}'
done >data.jsonl
for i in 1 2 3 4; do echo '{"prompt":"say '$i'","chosen":"lamp '$i'","rejected":"no, '$i'"}'; done >pairs.jsonl

say preview
cuanto train "$TINY_MODEL" data.jsonl --preview 1
say plan
cuanto train "$TINY_MODEL" data.jsonl --dry-run --target q_proj --target 'ffn_(up|down)' 2>&1 | grep -E '^(adapter|split|run|data|disk)'
cuanto train "$TINY_MODEL" data.jsonl --dry-run --optimizer-file o.bin -o a.gguf 2>&1 | grep -E '^(disk|memory)' | sed 's/ *[0-9.]* MiB beside.*kept)/ MEMORY/'
cuanto quantize "$TINY_MODEL" half.gguf BF16 -q >/dev/null 2>&1
cuanto train half.gguf data.jsonl --dry-run --full --valid-split 0 2>&1 | grep disk; rm -f half.gguf
cuanto train "$MIXTURE_MODEL" data.jsonl --template chatml --dry-run --target all-linear 2>&1 | grep -E '^(adapter|cuanto)'
say run
train="cuanto train $TINY_MODEL data.jsonl --steps 12 --lr 0.02 --batch 4 --dropout 0.1 --save-every 1 -q"
quiet $train -o a.gguf --log a.jsonl --plot a.svg
falls a.jsonl
grep -c polyline a.svg
ls
quiet cuanto run "$TINY_MODEL" 'count to 3' --lora a.gguf -n 4 --temp 0 -q
say killed, resumed: the same bytes
$train -o b.gguf --log b.jsonl >/dev/null 2>&1 &
n=0
while [ ! -f b.gguf.state ] && [ $n -lt 200 ]; do sleep 0.05; n=$((n + 1)); done
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
quiet $train -o b.gguf --log b.jsonl --resume
cmp a.gguf b.gguf && echo same adapter
losses a.jsonl >a.txt
losses b.jsonl | cmp - a.txt && echo same losses
say two at once
cuanto train $TINY_MODEL data.jsonl --steps 1000000 --save-every 1 --valid-split 0 -q -o two.gguf >/dev/null 2>&1 &
n=0
while [ ! -f two.gguf.state ] && [ $n -lt 200 ]; do sleep 0.05; n=$((n + 1)); done
cuanto train $TINY_MODEL data.jsonl --steps 2 -q -o two.gguf --overwrite; echo "exit $?"
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
quiet cuanto train $TINY_MODEL data.jsonl --steps 2 -q -o two.gguf --overwrite
ls two*
say one thread: the same bytes
quiet $train -o c.gguf -t 1
cmp a.gguf c.gguf && echo same adapter
say pairs
quiet cuanto train "$TINY_MODEL" pairs.jsonl --dpo --steps 8 --lr 0.02 --batch 4 --warmup 0 -q -o p.gguf --log p.csv
head -n 1 p.csv
tail -n +2 p.csv | cut -d, -f8 | sed -n '1p;$p'
say json
cuanto train "$TINY_MODEL" data.jsonl --steps 4 --lr 0.02 -q -o s.gguf --json | sed 's/\(loss\|valid\|best_step\)": [0-9.]*/\1": N/'
cuanto train "$TINY_MODEL" data.jsonl --preview 1 --json -q | cut -c 1-43
say what to type next
cuanto train "$TINY_MODEL" data.jsonl --steps 1 --template chatml -o s.gguf --overwrite 2>&1 | tail -n 1 | sed 's/chat .* --lora/chat MODEL --lora/'
say errors
cuanto train "$TINY_MODEL" data.jsonl; echo "exit $?"
$train -o a.gguf; echo "exit $?"
$train -o a.gguf --resume --lr 0.01; echo "exit $?"
cuanto train "$TINY_MODEL" pairs.jsonl -o x.gguf; echo "exit $?"
cuanto train "$TINY_MODEL" data.jsonl --dpo -o x.gguf; echo "exit $?"
cuanto train "$TINY_MODEL" data.jsonl --target nothing -o x.gguf; echo "exit $?"
cuanto train "$TINY_MODEL" data.jsonl --target '(' -o x.gguf 2>&1 | sed 's/: [^:]*$//'
cuanto train "$TINY_MODEL" data.jsonl --from-scratch -o x.gguf; echo "exit $?"
cuanto train "$TINY_MODEL" data.jsonl --full --dropout 0.1 -o x.gguf; echo "exit $?"
printf 'x' | dd of=a.gguf.state bs=1 seek=3000 conv=notrunc 2>/dev/null
$train -o a.gguf --resume 2>&1 | sed 's/is [0-9a-f]\{16\}, its bytes give [0-9a-f]*/is X, its bytes give Y/'
say numbers that are no numbers
cuanto train "$TINY_MODEL" data.jsonl --steps 1 --adam-eps 0 -q -o n.gguf; echo "exit $?"
cuanto train "$TINY_MODEL" data.jsonl --steps 4 --warmup 0 --schedule constant --weight-decay 10 --lr 10 -b 12 --clip 0 -q -o n.gguf 2>&1 | sed 's/.*loss of sample .* is -*nan; .*/the loss is nan/'
ls n.gguf 2>/dev/null
say steps and passes
for i in 1 2 3 4 5 6; do cat data.jsonl; done >more.jsonl
for n in 0.1 1.1 2; do cuanto train "$TINY_MODEL" more.jsonl --valid-split 0 --epochs $n --batch 9 --dry-run 2>&1 | grep -o 'run .* epochs'; done
echo '{"prompt":"say","chosen":"lamp lamp lamp lamp lamp lamp lamp","rejected":"no"}' >pair.jsonl
cuanto train "$TINY_MODEL" pair.jsonl --dpo --rows 60 --dry-run 2>&1 | grep rows
cuanto train "$TINY_MODEL" pair.jsonl --dpo --rows 90 --dry-run 2>&1 | grep -o 'passes of .*'
long=$(printf '%040000d' 0)
echo '{"prompt":"say","chosen":"1'$long'","rejected":"2'$long'"}' >pair.jsonl
cuanto train "$TINY_MODEL" pair.jsonl --dpo --ctx 65536 --dry-run
say the last adapters stay
$train -o k.gguf --save-every 5 --keep 1
ls k.step*
say a full disk: the adapter is written though the state is not
sh -c "trap '' XFSZ; ulimit -f 400; $train -o f.gguf --keep 2" 2>&1 | sed 's/: not saved: f.gguf.state: cannot write: .*; going on/: going on/' | uniq
ls f.gguf* f.step*; cmp a.gguf f.gguf
say the best is what could be written
mkdir y.best.gguf
cuanto train "$TINY_MODEL" data.jsonl --steps 2 --lr 0.02 --warmup 0 -q -o y.gguf --json 2>err.txt | grep best
sort -u err.txt; rm -r y.*
say nothing that is read is written over
cp "$TINY_MODEL" m.best.gguf
cp "$TINY_MODEL" m.step-3.gguf
cp data.jsonl d.jsonl
for o in '-o d.jsonl' '-o m.gguf --log d.jsonl' '-o m.gguf --plot d.jsonl' '-o m.gguf --plot m.gguf' '-o m.gguf --keep 2'; do
    cuanto train "$TINY_MODEL" d.jsonl --steps 1 -q $o; echo "exit $?"
done
cp data.jsonl other.gguf
for o in '' --resume; do cuanto train "$TINY_MODEL" d.jsonl --steps 1 -q -o other.gguf $o; echo "exit $?"; done
cuanto train m.best.gguf d.jsonl --steps 1 -q -o m.gguf; echo "exit $?"
cuanto train m.step-3.gguf d.jsonl --steps 1 -q -o m.gguf --keep 1 --save-every 1; echo "exit $?"
cp d.jsonl m.gguf.run.part
cuanto train "$TINY_MODEL" m.gguf.run.part --steps 1 -q -o m.gguf; echo "exit $?"
cp d.jsonl m.gguf.state
cuanto train "$TINY_MODEL" m.gguf.state --steps 1 -q -o m.gguf --overwrite; echo "exit $?"
mkdir r.gguf.state
cuanto train "$TINY_MODEL" d.jsonl --steps 1 -q -o r.gguf --overwrite; echo "exit $?"
cmp data.jsonl d.jsonl; cmp data.jsonl other.gguf; cmp data.jsonl m.gguf.state; cmp "$TINY_MODEL" m.best.gguf
say a model that was trained before
quiet cuanto train "$TINY_MODEL" data.jsonl --full --steps 2 -q -o w.gguf
quiet cuanto train w.gguf data.jsonl --full --steps 2 -q -o w2.gguf
echo '{"messages":[{"role":"user","content":"x"}' >bad.jsonl
cuanto train "$TINY_MODEL" bad.jsonl -o x.gguf; echo "exit $?"
ls x.gguf* 2>/dev/null
exit 0

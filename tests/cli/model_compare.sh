# compare and importance: a model equals itself, gates, formats, logits files, refusals before any work
m=$TINY_MODEL
for i in 1 2 3 4 5 6 7 8; do echo "the cat sat on the mat and ate the rat number $i at half past ten in the morning"; done >text
cut_() { sed 's/^cuanto: [^:]*: /cuanto: ...: /'; }
echo "- a model and itself"
cuanto compare $m $m $m -f text -c 64 --format json -q >x; echo "exit $?"
grep -c '"kld": 0,' x
grep -c '"top1": 1e+02,' x
grep -c '"ln_ratio": 0,' x
grep -c '"kld"' x
cuanto compare $m $m -f text -c 64 --format csv -q | cut -d, -f3,9-12 | head -n 1
cuanto compare $m $m -f text -c 64 -q -o x.html | grep -c '^KL divergence of a token'; grep -c '<svg' x.html >n; [ "$(cat n)" -gt 0 ] && echo drawn
for t in 1 3; do cuanto compare $m $m -f text -c 64 -t $t --format csv -q | cut -d, -f7- >t$t; done; cmp t1 t3 && echo 'same with three threads'
echo "- conditions"
cuanto compare $m $m -f text -c 64 -q --fail-if 'kld>0.5' --fail-if 'top1<99.9' >x; echo "exit $?"
cuanto compare $m $m -f text -c 64 -q --fail-if 'ppl>0.5' --fail-if 'kld<=0' >x 2>err; echo "exit $?"
sed -n 's/^gate: .*: \(ppl\|kld\) [0-9.]* /gate: ...: \1 N /p' err
cuanto compare $m $m -f text -c 64 --chunks 2 --fail-if 'kld>0.5' 2>&1 >x | sed -n 's/^gate: .*: kld /gate: ...: kld /p'
echo "- one chunk says nothing about others"
cuanto compare $m $m -f text -c 64 --chunks 1 -q | grep '^1 chunk' | sed 's/.*;/.../'
cuanto compare $m $m -f text -c 64 --chunks 1 -q --json | grep '"kld_error_chunks"'
cuanto compare $m $m -f text -c 64 -q --fail-if 'nothing>1'; echo "exit $?"
echo "- logits files"
cuanto compare $m $m -f text -c 64 -q --save-logits l.kld >x; cuanto compare --base-logits l.kld $m -q --fail-if 'kld>1e-6' --fail-if 'top1<100' >x; echo "exit $?"
cuanto perplexity $m --precise -f text -c 64 -q --save-logits p.kld >x; cmp p.kld l.kld && echo 'as perplexity writes it'
head -c 200 l.kld >short.kld; cuanto compare --base-logits short.kld $m -q >x 2>err; echo "exit $?"; grep -c 'short.kld: 200 bytes, but .*: the file was cut short' err
cuanto compare --base-logits l.kld $m -f text -q; echo "exit $?"
cuanto compare --base-logits l.kld $m --save-logits k.kld -q; echo "exit $?"
echo "- refused"
cuanto compare $m -f text 2>&1 >x | cut_; 
cuanto compare $m $m -q; echo "exit $?"
cuanto compare $m $m -f text -q 2>&1 | sed 's/[0-9][0-9]* tokens/N tokens/; s/-c [0-9]*/-c N/'
cuanto compare $m $m $m $m $m $m $m $m $m $m $m $m $m $m $m $m $m $m -f text -c 64 -q; echo "exit $?"
cuanto compare $m missing -f text -c 64 -q >x 2>err; echo "exit $?"
cp $m copy.gguf; cuanto compare $m copy.gguf -f text -c 64 -q -o copy.gguf; echo "exit $?"; cmp $m copy.gguf && echo untouched
cuanto compare $m $m -f text -c 64 -q --save-logits text; echo "exit $?"
cuanto compare $m $m -f text -c 64 -q --save-logits two -o ./two; echo "exit $?"
cuanto compare $m $m -f text -c 64 -q -o no/such/folder.html 2>&1 >x | cut_; ls | grep -c part
echo "- importance"
cuanto importance $m -f text -o i.gguf -c 64 -q >x; echo "exit $?"
cuanto importance $m -f text -o i.dat -c 64 -q --legacy >x; echo "exit $?"
[ -s i.gguf ] && [ -s i.dat ] && echo written
for t in 1 3; do cuanto importance $m -f text -o t$t.gguf -c 64 -t $t -b 64 -q >x; done; cmp t1.gguf t3.gguf && cmp t1.gguf i.gguf && echo 'same with any threads'
cuanto importance $m -f text -o a.gguf -c 64 --chunks 2 -q >x; cuanto importance $m -f text -o b.gguf -c 64 --from-chunk 2 --merge a.gguf -q | head -n 1
cuanto importance --merge i.dat -o c.gguf -q | head -n 1
cuanto importance --merge i.dat --merge i.gguf -o d.gguf -q >x; cuanto importance --merge i.gguf --merge i.dat -o e.gguf -q | head -n 1; cmp d.gguf e.gguf && echo 'in any order'
cp text t.partial; cuanto importance $m -f t.partial -o t -c 64 -q; echo "exit $?"; cmp text t.partial
cuanto importance $m -f missing -o j.gguf -q 2>err; echo "exit $?"; ls j.gguf 2>/dev/null
cuanto importance copy.gguf -f text -o copy.gguf -c 64 -q; echo "exit $?"
cuanto importance $m -f text -q; echo "exit $?"

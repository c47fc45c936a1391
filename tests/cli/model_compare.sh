# compare and importance: a model equals itself, gates, formats, refusals
m=$TINY_MODEL
for i in 1 2 3 4 5 6 7 8; do echo "the cat sat on the mat and ate the rat number $i at half past ten in the morning"; done >text
cuanto compare $m $m -f text -c 64 --csv >x 2>err || cuanto compare $m $m -f text -c 64 --format csv >x 2>err; echo "exit $?"
cuanto compare $m $m -f text -c 64 --format json -q | grep -c '"kld'
cuanto compare $m $m -f text -c 64 -q --fail-if 'kld>0.5' >x; echo "exit $?"
cuanto compare $m $m -f text -c 64 -q --fail-if 'ppl>0.5' >x 2>err; echo "exit $?"
grep -c "fails 'ppl>0.5'" err
cuanto compare $m $m -f text -c 64 -q --fail-if 'nothing>1' >x 2>err; echo "exit $?"
cuanto compare $m $m -f text -c 64 -q --format html -o x.html >x; grep -c '<svg' x.html >n; [ "$(cat n)" -gt 0 ] && echo drawn
cuanto compare $m $m -f text -c 64 -q --save-logits l.kld >x; cuanto compare --base-logits l.kld $m -q >x; echo "exit $?"
head -c 200 l.kld >short.kld; cuanto compare --base-logits short.kld $m -q >x 2>err; echo "exit $?"
echo "- importance"
cuanto importance $m -f text -o i.gguf -c 64 -q >x; echo "exit $?"
cuanto importance $m -f text -o i.dat -c 64 -q --legacy >x; echo "exit $?"
[ -s i.gguf ] && [ -s i.dat ] && echo written
cuanto importance $m -f missing -o j.gguf -q 2>err; echo "exit $?"; ls j.gguf 2>/dev/null

# a model with recurrent layers: what the conversation loses, the state must forget
m="$RECURRENT_MODEL -n 4 --ignore-eos --temp 0 -c 256 -q"
printf 'Hello\n/save h.json\nMore\n/undo\nThird\n/save a.json\n' | cuanto chat $m >a; echo "exit $?"
printf 'Third\n/save b.json\n' | cuanto chat $m --load h.json >b; echo "exit $?"
cmp a.json b.json && echo '/undo leaves no trace'
printf 'Hello\n/regen\n/save c.json\n' | cuanto chat $m >c; printf 'Hello\n/save d.json\n' | cuanto chat $m >d
cmp c.json d.json && echo '/regen answers the same'
[ $(wc -c <a) -gt $(wc -c <b) ] && [ $(wc -c <d) -gt 0 ] && echo 'there were answers'
seq 1 200 >text
cuanto perplexity $RECURRENT_MODEL -f text -c 64 --chunks 3 -q | sed -n 's/.*PPL = \([0-9.]*\) .*/\1/p' >one
cuanto perplexity $RECURRENT_MODEL -f text -c 64 --chunks 3 -b 16 -q | sed -n 's/.*PPL = \([0-9.]*\) .*/\1/p' >two
awk '{ a[NR] = $1 } END { d = a[1] - a[2]; print ((a[1] > 1 && d * d < 1e-4 * a[1] * a[1]) ? "windows begin anew" : "perplexities " a[1] " " a[2]) }' one two

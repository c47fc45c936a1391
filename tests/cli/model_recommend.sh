# recommend: sizes that quantize would reach, one row marked, a reason; figures that depend on the machine are left out
m=$TINY_MODEL
cp $m m-F32.gguf
row() { sed -n "/\"type\": \"$1\",/,/}/p" x | grep -E "\"($2)\"" | sed 's/^ *//; s/,$//' | tr '\n' ' '; echo; }
cuanto recommend m-F32.gguf --ram 8G --no-speed --json >x; echo "exit $?"
row F32 'this_file|file_bytes|kld|fits|recommended|tokens_per_s'
row Q8_0 'this_file|file_bytes|bits_per_weight|fits|tokens_per_s'
row Q2_K 'file_bytes|fallbacks'
grep -c '"recommended": true' x
grep -E '^  "(quantized|runs|context|recommended)": ' x | sed 's/^ *//; s/"[QI][^"]*",/T/'
tr -d ' \n' <x | grep -o '"contexts":[^]]*]'
echo "- the sizes are those of the files, up to the lines about their making"
for t in Q8_0 Q4_K_M Q5_1; do
    cuanto quantize m-F32.gguf $t.gguf $t -q && is=$(wc -c <$t.gguf) said=$(row $t file_bytes | grep -o '[0-9]*')
    [ $((is - said)) -lt 300 ] && [ $((said - is)) -lt 300 ] && echo "$t"
done
echo "- text"
cuanto recommend m-F32.gguf --ram 8G --no-speed | sed -n '1p; 3p; s/^> [^ ]*: \(.*\); takes.*/> T: \1/p' | sed 's/  */ /g'
cuanto recommend m-F32.gguf --ram 8G --no-speed | grep -c '^> '
cuanto recommend m-F32.gguf --ram 8G --no-speed | sed -n 's/^  next: \(cuanto quantize m-F32.gguf \).*/\1T/p'
cuanto recommend m-F32.gguf --ram 1M --no-speed 2>&1 | grep -E '^> [^ ]*: |nothing fits' | sed 's/smallest, [^ ]*, takes .* at/smallest, T, takes N at/; s/[0-9.]* KiB of/N of/'
cuanto recommend m-F32.gguf --ram 8G -c 1000 --no-speed | sed -n 3p | sed 's/  */ /g'
cuanto recommend m-F32.gguf --ram 1M --no-speed --json 2>/dev/null | grep '"recommended": null'; cuanto recommend m-F32.gguf --ram 1M --no-speed >x 2>&1; echo "exit $?"
cp m-F32.gguf "it's one.gguf"; cuanto recommend "it's one.gguf" --ram 8G --no-speed | grep -o "'it.*gguf'"; rm "it's one.gguf"
cuanto recommend m-F32.gguf --ram 8G | grep -c '^tok/s  one token at a time'
echo "- a quantized file stays, as long as it fits"
cuanto recommend Q8_0.gguf --ram 8G --no-speed | grep -E '^> Q8_0:|this file$|quantized already:' | sed 's/; takes.*//; s/[0-9.]* MiB/N MiB/g; s/  */ /g'
cuanto recommend Q8_0.gguf --ram 8G --no-speed | grep next:
cuanto recommend Q8_0.gguf --ram 8G --no-speed --json >x; row Q8_0 kld
echo "- refused"
cuanto recommend m-F32.gguf --ram much; echo "exit $?"
cuanto recommend m-F32.gguf --ram 8X; echo "exit $?"
cuanto recommend m-F32.gguf --ram -1G; echo "exit $?"
cuanto recommend m-F32.gguf --ctx 9000 --ram 8G; echo "exit $?"
cuanto recommend missing 2>/dev/null; echo "exit $?"
head -c 3000 m-F32.gguf >cut.gguf; cuanto recommend cut.gguf 2>/dev/null; echo "exit $?"
cuanto recommend; echo "exit $?"
ls

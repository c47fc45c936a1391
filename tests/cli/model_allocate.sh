# quantize with a budget: a type for each tensor, exact bytes, the measurement kept and used again, nothing measured for a look
cp $TINY_MODEL m-F32.gguf
for i in $(seq 60); do echo "Once upon a time $i there was a model that read line $i of its text, and then some."; done >t.txt
text="--calibration t.txt --calibration-tokens 4096"
quantize() { cuanto quantize m-F32.gguf "$@" -q; echo "exit $?"; }
bits() { cuanto inspect $1 | sed -n 's/^weights.*, \([0-9.]*\) bits.*/\1/p'; }
types() { cuanto inspect $1 --all | awk '/weight/ && /Q[0-9]_|IQ4/ { print $1, $0 }' | grep -o '^[^ ]*\|Q[0-9]_[0-9]\|IQ4_NL\|MXFP4' | sort | uniq -c | wc -l; }
echo "- a look"
cuanto quantize m-F32.gguf --bpw 6 --dry-run | sed -n 's/.*m-F32.gguf -> /out /p; s/^file.*, \(.*\) -> \([56]\.[0-9]*\) \(bits.*\)/\1 \3/p; s/about [0-9.]*/about N/; /^allocated/p'
ls
echo "- bits"
quantize a.gguf --bpw 5 $text --measure m.json
awk -v b=$(bits a.gguf) 'BEGIN { print (b <= 5 && b > 4.95 ? "within 1 % of the budget" : b) }'
cuanto inspect a.gguf --all | grep -o 'quantize.recipe .*'
quantize a1.gguf --bpw 5 $text -t 1; cmp a.gguf a1.gguf && echo 'the same with one thread, measured anew'; ls
cuanto quantize m-F32.gguf b.gguf --bpw 5 $text --measure m.json 2>&1 | grep -o 'by an earlier run'; cmp a.gguf b.gguf && echo 'the same from the file'
cuanto quantize m-F32.gguf b.gguf --bpw 6 $text --measure m.json --dry-run | grep -o 'by an earlier run'
cuanto quantize m-F32.gguf c.gguf --bpw 5 $text 2>&1 | awk '/^KL divergence/ { k = $6; p = $(NF - 1); print (p / k > 0.75 && p / k < 1.33 ? "predicted within a third" : $0) }'
echo "- better than one type"
quantize fixed.gguf Q4_1 $text; cuanto inspect fixed.gguf --json | grep -o '"file_bytes": *[0-9]*' >/dev/null
quantize same.gguf --size $(wc -c <fixed.gguf | awk '{ print $1 / 1000 "K" }') $text --measure m.json
awk -v a=$(wc -c <fixed.gguf) -v b=$(wc -c <same.gguf) 'BEGIN { print (b <= a && b > 0.99 * a ? "no larger" : a " " b) }'
cuanto compare m-F32.gguf fixed.gguf same.gguf -f t.txt -q --chunks 4 --format csv | cut -d, -f16 | awk 'NR == 3 { c = $1 } NR == 4 { print ($1 < 0.9 * c ? "nearer" : c " " $1) }'
echo "- memory, divergence"
quantize f.gguf --fit 5M --ctx 2048 $text --measure m.json; quantize g.gguf --max-kld 0.002 $text --measure m.json
cuanto compare m-F32.gguf g.gguf -f t.txt -q --chunks 4 --format csv | cut -d, -f16 | awk 'NR == 3 { print ($1 < 0.004 && $1 > 0.001 ? "about that" : $1) }'
echo "- with the solver, with rules, with fewer types"
quantize s.gguf --bpw 5 --method gptq $text --measure m.json; cuanto inspect s.gguf --all | grep -c 'quantize.solver'
quantize r.gguf --bpw 7.5 --type 'attn_v=keep' --allow-types q4_0,q8_0 $text
cuanto inspect r.gguf --all | grep -c 'attn_v.weight.*F32'; cuanto inspect r.gguf --all | grep -c 'weight.*Q5_\|weight.*Q4_1'
echo "- resumed"
(trap '' XFSZ; ulimit -f 60; cuanto quantize m-F32.gguf z.gguf --bpw 5 $text -q; echo "exit $?"); ls z.gguf*
cuanto quantize m-F32.gguf z.gguf --bpw 5 $text --resume 2>&1 | grep -o 'by an earlier run\|^continuing'; cmp a.gguf z.gguf && ls z.gguf*
echo "- refused"
quantize x.gguf Q4_0 --bpw 5; quantize x.gguf --bpw 5 --size 2G; quantize x.gguf --size 2Q; quantize x.gguf --size '1 '; quantize x.gguf --bpw 1 2>&1 | sed 's/^cuanto.*take/... take/'
quantize x.gguf --bpw 5 --allow-types q9; quantize x.gguf --bpw 5 --method absmax; quantize x.gguf --bpw 5 --pure; quantize x.gguf --fit 1M --ctx 8192
quantize x.gguf --max-kld 1e-9 --allow-types q4_0 2>&1 | sed 's/lose [0-9.]*/lose N/'
quantize x.gguf --bpw 5 --measure m.json 2>&1 | sed 's/: [0-9a-f]\{16\}/: HASH/'; echo '{' >n.json; quantize x.gguf --bpw 5 --measure n.json; echo '{}' >n.json; quantize x.gguf --bpw 5 --measure n.json
cuanto quantize $MIXTURE_MODEL x.gguf --bpw 5 $text --measure m.json -q 2>&1 | sed 's/[0-9a-f]\{16\}/HASH/g'; cuanto quantize $MIXTURE_MODEL x.gguf --bpw 5 $text -q; echo "exit $?"
ls x.*
echo "- options that go together"
quantize v.gguf Q4_0 --measure m.json; quantize v.gguf Q4_0 --allow-types q8_0; quantize v.gguf --bpw 5 --measure-tokens 512; quantize v.gguf --bpw 5 $text --plain-targets
quantize v.gguf --bpw 5 $text --measure m.json --report ./m.json; quantize v.gguf --bpw 5 $text --report t.txt; quantize v.gguf --bpw 5 $text --measure v.gguf
quantize v.gguf --bpw 5 $text --measure m.json --measure-tokens 300 2>&1 | sed 's/ on [0-9]* / on N /'
sed 's/\(.*"errors": *.\)/\1/; s/^\( *\)null,$/\10.0001,/' m.json >fits.json; quantize v.gguf --bpw 5 $text --measure fits.json
cuanto quantize m-F32.gguf y.gguf --max-kld 0.002 --method gptq $text --measure m.json -v 2>&1 | awk '/^allocated/ { sub(",.*", "", $0); } /^tried/ { k = $4; print (k > 0.0014 && k < 0.003 ? "tried at the limit" : $0) }'
(trap '' XFSZ; ulimit -f 60; cuanto quantize m-F32.gguf w.gguf --bpw 5 $text -q 2>/dev/null; echo "exit $?"); quantize w.gguf --bpw 5 $text; ls w.gguf*
ram() { cuanto quantize m-F32.gguf "$@" $text --dry-run --json 2>/dev/null | grep -o '"ram_bytes": *[0-9]*' | grep -o '[0-9]*$' | sort -n | tail -1; }
awk -v a=$(ram v.gguf Q4_0) -v b=$(ram v.gguf --bpw 5) 'BEGIN { print (b > a + 500000 ? "memory of the measurement counted" : a " " b) }'

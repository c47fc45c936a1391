# merge: the file answers as base and adapter do; formats, report, refusals
cp $TINY_MODEL base.gguf; cp $ADAPTER lora.gguf
r='--raw Once -n 8 --ignore-eos --temp 0 -q'
numbers() { sed 's/[0-9][0-9.e+-]*/N/g; s/  */ /g'; }
echo "- formats stay"
cuanto merge base.gguf lora.gguf -q | numbers; ls
cuanto run base.gguf $r --lora lora.gguf >a; cuanto run base-merged.gguf $r | cmp a - && echo 'same answer'
cuanto run base.gguf $r | cmp -s a - || echo 'not that of the base'
cuanto merge base.gguf lora.gguf:0.5 lora.gguf:0.25 --scale 2 -o more.gguf -q --measure-tokens 0 | head -1; cuanto run base.gguf $r --lora lora.gguf:1.5 >b; cuanto run more.gguf $r | cmp b - && echo 'same answer'
cuanto merge base-merged.gguf lora.gguf:-1 -o back.gguf -q --measure-tokens 0 >/dev/null; cuanto run base.gguf $r >c; cuanto run back.gguf $r | cmp c - && echo 'taken out again'
grep -ac 'lora.gguf x 1, lora.gguf x -1' back.gguf
echo "- one format"
cuanto merge base.gguf lora.gguf --type q8_0 --json -q | sed 's/[0-9][0-9.e+-]*/N/g' | head -12
cuanto merge base.gguf lora.gguf -o dry.gguf --dry-run 2>&1 | grep ^merge; ls *.gguf
cuanto merge base.gguf lora.gguf -o v.gguf --verify -v --measure-tokens 0 2>/dev/null | wc -l
echo "- refused"
cuanto merge base.gguf lora.gguf -q; echo "exit $?"
cuanto merge base.gguf lora.gguf -o base.gguf --overwrite -q; echo "exit $?"
cuanto merge base.gguf lora.gguf -o lora.gguf --overwrite -q; echo "exit $?"
cuanto merge base.gguf -q; echo "exit $?"
cuanto merge base.gguf base.gguf -o x.gguf -q; echo "exit $?"
cuanto merge $RECURRENT_MODEL lora.gguf -o x.gguf -q; echo "exit $?"
cuanto merge base.gguf lora.gguf --type Q9 -o x.gguf -q; echo "exit $?"
cuanto merge base.gguf lora.gguf:0 -o x.gguf -q; echo "exit $?"
cuanto merge base.gguf nowhere.gguf -o x.gguf -q; echo "exit $?"
cuanto merge base.gguf lora.gguf -o no/where/x.gguf -q; echo "exit $?"
at=$(grep -abo adapter.lora.alpha lora.gguf | head -1 | cut -d: -f1); cp lora.gguf huge.gguf
printf '\377\377\177\177' | dd of=huge.gguf bs=1 seek=$((at + 22)) conv=notrunc 2>/dev/null # the largest float
cuanto merge base.gguf huge.gguf:10 -o x.gguf -q; echo "exit $?"
head -c 3000 lora.gguf >cut.gguf; cuanto merge base.gguf cut.gguf -o x.gguf -q 2>&1 | cut -c1-20; ls

# rotate: the file answers as the model does and says what it is; what cannot be turned is refused, and nothing is left behind
cp $TINY_MODEL base.gguf; cp $RECURRENT_MODEL recurrent.gguf; cp $ADAPTER lora.gguf
r='--raw Once -n 8 --ignore-eos --temp 0 -q'
cuanto rotate base.gguf turned.gguf -t 1 2>&1 | grep -v '%'
cuanto run base.gguf $r >a; cuanto run turned.gguf $r | cmp a - && echo 'same answer'
cuanto inspect turned.gguf | grep '^rotated'
cuanto quantize turned.gguf small.gguf Q8_0 -q && cuanto inspect small.gguf | grep '^rotated\|^quantized'
cuanto rotate base.gguf values.gguf --no-r1 --seed 5 -q; cuanto run values.gguf $r | cmp a - && echo 'same answer'
cuanto inspect values.gguf | grep '^rotated'
cuanto rotate $MIXTURE_MODEL mixture.gguf -q --untie; cuanto run $MIXTURE_MODEL $r >a; cuanto run mixture.gguf $r | cmp a - && echo 'same answer'
echo "- refused"
cuanto rotate base.gguf turned.gguf -q; echo "exit $?"
cuanto rotate base.gguf base.gguf --overwrite -q; echo "exit $?"
cuanto rotate base.gguf -q; echo "exit $?"
cuanto rotate turned.gguf x.gguf -q; echo "exit $?"
cuanto rotate base.gguf x.gguf --no-r1 --no-r2 -q; echo "exit $?"
cuanto quantize base.gguf q8.gguf Q8_0 -q; cuanto rotate q8.gguf x.gguf -q; echo "exit $?"
cuanto rotate recurrent.gguf x.gguf -q; echo "exit $?"
cuanto quantize base.gguf apart.gguf Q8_0 --keep-outliers=1.01 -q; cuanto rotate apart.gguf x.gguf -q --allow-requantize; echo "exit $?"
cuanto rotate lora.gguf x.gguf -q; echo "exit $?"
head -c 3000 base.gguf >cut.gguf; cuanto rotate cut.gguf x.gguf -q 2>&1 | cut -c1-20
cuanto rotate base.gguf no/where/x.gguf -q; echo "exit $?"
cuanto rotate base.gguf x.gguf --type q8_0 -q; echo "exit $?"
ls

# --lora: refusals (a working adapter: tests/test_lora.c)
m="$TINY_MODEL --raw x -n 1 -q"
cuanto run $m --lora nowhere.gguf; echo "exit $?"
cp $TINY_MODEL base.gguf
cuanto run $m --lora base.gguf; echo "exit $?"
cuanto run $m --lora base.gguf:0.5; echo "exit $?"
cuanto run $m --lora base.gguf:9e9; echo "exit $?"
cuanto perplexity $TINY_MODEL -f base.gguf --lora no.gguf:2 -q; echo "exit $?"

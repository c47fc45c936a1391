# convert: adapters between GGUF and PEFT folders; --base is checked, nothing is replaced unasked
cp $TINY_MODEL base.gguf; cp $ADAPTER lora.gguf
r='run base.gguf --raw Once -n 8 --ignore-eos --temp 0 -q'
echo "- there and back"
cuanto convert lora.gguf --base base.gguf; echo "exit $?"; ls lora-peft
grep -v '^ *"[ab]' lora-peft/adapter_config.json
cuanto convert lora-peft --base base.gguf; echo "exit $?"
cuanto $r >plain; cuanto $r --lora lora.gguf >a; cuanto $r --lora lora-peft-F32.gguf >b; cmp a b && echo same; cmp -s a plain || echo 'the adapter changes the answer'
cuanto convert lora-peft --base base.gguf --json --dry-run --dtype f16
cuanto convert lora.gguf --base base.gguf -o named --name some/base -q; grep base_model named/adapter_config.json
echo "- refused"
cuanto convert lora-peft; echo "exit $?"
cuanto convert lora.gguf; echo "exit $?"
cuanto convert lora.gguf --base base.gguf; echo "exit $?"
cuanto convert lora-peft --base base.gguf; echo "exit $?"
cuanto convert lora-peft --base base.gguf -o base.gguf --overwrite; echo "exit $?"
cuanto convert lora-peft --base nosuch.gguf; echo "exit $?"
cuanto convert base.gguf --base base.gguf -o x; echo "exit $?"
cuanto convert lora-peft --base $RECURRENT_MODEL -o x.gguf; echo "exit $?"
cuanto convert lora.gguf --base $RECURRENT_MODEL -o x; echo "exit $?"
cuanto convert lora-peft --base base.gguf --dtype q8_0 -o x.gguf; echo "exit $?"
cuanto convert lora-peft --base base.gguf --vocab-only -o x.gguf; echo "exit $?"
sed -i 's/"use_dora": false/"use_dora": true/' lora-peft/adapter_config.json; cuanto convert lora-peft --base base.gguf -o x.gguf; echo "exit $?"
echo '{' >lora-peft/adapter_config.json; cuanto convert lora-peft --base base.gguf -o x.gguf; echo "exit $?"
rm named/adapter_model.safetensors; cuanto convert named --base base.gguf -o x.gguf; echo "exit $?"
ls

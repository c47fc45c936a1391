# convert: a GGUF file as a Hugging Face directory and back, refusals, nothing replaced unasked
cp $TINY_MODEL m.gguf
echo "- there and back"
cuanto convert m.gguf --dry-run; ls
cuanto convert m.gguf -q; echo "exit $?"; ls m-hf
cuanto convert m-hf -o again.gguf -q; echo "exit $?"
cuanto run m.gguf --raw 'Once upon' -n 8 --ignore-eos --temp 0 -q >a; cuanto run again.gguf --raw 'Once upon' -n 8 --ignore-eos --temp 0 -q | cmp - a && echo 'same answer'
cuanto convert again.gguf -o second -q; for f in m-hf/*; do cmp $f second/${f##*/}; done
cuanto convert m.gguf -o halves --dtype bf16 --json | grep -c '"hugging_face": "LlamaForCausalLM"'
cuanto convert halves -q; ls *.gguf
echo "- refused"
cuanto convert m.gguf -q; echo "exit $?"
cuanto convert m.gguf -q --overwrite; echo "exit $?"
cuanto convert m.gguf -o again.gguf -q; echo "exit $?"
cuanto convert m.gguf -o x --dtype q8_0 -q; echo "exit $?"
cuanto convert m-hf -o again.gguf -q; echo "exit $?"
cp m-hf/config.json kept; for f in config.json model.safetensors; do cuanto convert m-hf -o m-hf/$f --overwrite -q; echo "exit $?"; done
cmp m-hf/config.json kept; cuanto convert m-hf -o again.gguf --overwrite -q; echo "exit $?"
mkdir shards; cp kept shards/config.json; cuanto convert m.gguf -o shards -q; echo "exit $?"; ls shards
cuanto convert m-hf -o x.gguf --pre frobnicate -q 2>&1 | cut -c1-50
cuanto convert m.gguf -o x --vocab-only; echo "exit $?"
cuanto convert none.gguf -o x; echo "exit $?"
cuanto convert nosuch; cuanto convert Some/Model-1B; cuanto convert; echo "exit $?"
mkdir lora; echo '{}' >lora/adapter_config.json; cuanto convert lora; echo "exit $?"; rm -r lora
cuanto run m-hf -q hello; echo "exit $?"
echo "- names"
mkdir models; cp m.gguf models/named.gguf; cuanto convert named --dry-run
cuanto convert m-hf/model.safetensors -q; ls *F32*; (cd m-hf; cuanto convert model.safetensors -q; ls *F32*; rm *F32*); cuanto convert m-hf --dry-run --dtype q4_k; rm -r models m-hf-F32.gguf
mkdir empty; cuanto convert empty; echo "exit $?"
ls

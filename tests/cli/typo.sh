# the nearest command or option is suggested, exit code 2, nothing on stdout
t() { cuanto "$@" 2>&1 >out; echo "exit $?"; [ ! -s out ] || echo "stdout is not empty"; }
t rnu
t tokenise
t xyzzy
t run m --tmep 1
t run m --topk 1
t run m --max-tokens 5
t run m --seed
t run m --system --top-k 3
t run m --template --raw
t doctor extra
t tokenize
# what other programs call it
t run m 'a b c' --lookup 8
t run m --lora-scaled a.gguf 0.5
t run -m m -p text
t run m -ngl 99
t run m --rope-freq-scale 0.5
t run m --rope-scaling dynamic
t list
t pull m
t serve
mkdir models; : >models/SmolLM2-135M.gguf; : >models/other.gguf
t run smollm2 text
cuanto run --show-config m --kv-type F16 --early-stopping TRUE | grep -E '^(kv-type|early)'

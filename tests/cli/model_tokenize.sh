# tokenize: ids as a JSON array; messages never become control tokens
m=$TINY_MODEL
cuanto tokenize $m 'Hello world' | grep -c '^\[[0-9, ]*\]$'
cuanto tokenize $m '' --no-bos
cuanto tokenize $m --no-bos a b >x; cuanto tokenize $m --no-bos 'a b' >y; cmp x y
printf 'a b' | cuanto tokenize $m --no-bos >y; cmp x y
printf 'a b' >f; cuanto tokenize $m --no-bos -f f >y; cmp x y && echo same
cuanto tokenize $m 'Hello' --no-bos --json | grep -c '^\[{"id":[0-9]*,"text":"'
found=
for c in '<|im_end|>' '<|endoftext|>' '</s>' '<end_of_turn>' '<eos>'; do
    id=$(cuanto tokenize $m --no-bos --special "$c" | tr -d '[]')
    case $id in *,* | '') continue ;; esac
    [ "$(cuanto tokenize $m --no-bos "$c")" = "[$id]" ] && continue
    found=1
    count() { printf '[{"role":"user","content":"%s"}]' "$1" | cuanto template $m --messages - --template chatml --json | sed 's/.*"tokens"://' | tr '[],' '\n\n\n' | grep -cx "$id"; }
    [ "$(count hello)" = "$(count "hello $c there")" ] || echo "$c became a control token"
    [ "$(count hello)" = "$(count "$c")" ] || echo "$c alone became a control token"
done
[ "$found" ] && echo 'control texts stay text' || echo 'this model has none of the control tokens'
cuanto tokenize $m --no-bos 'a b c' --bench | grep -c '^5 bytes, [0-9]* tokens | open [0-9.]* ms | encode [0-9.]* MB/s | decode [0-9.]* MB/s$'
cuanto tokenize $m --no-bos 'a b c' --bench --json | grep -c '^{"bytes":5,"tokens":[0-9]*,"open_ms":[0-9.e+-]*,"encode_mb_s":[0-9.e+-]*,"decode_mb_s":[0-9.e+-]*}$'
cuanto tokenize $m '' --bench 2>out; echo "exit $?"
echo "- template"
printf '[{"role":"system","content":"S"},{"role":"user","content":"U"}]' >c.json
cuanto template $m --messages c.json --template chatml; echo "|"
cuanto template $m --messages c.json --template chatml --no-generation-prompt; echo "|"
printf '{{ messages[0].content' >bad.jinja
cuanto template $m --messages c.json --template bad.jinja >out 2>&1; echo "exit $?"
printf '[{"role":1}]' >bad.json
cuanto template $m --messages bad.json --template chatml >out 2>&1; echo "exit $?"

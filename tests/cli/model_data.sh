# data with a model: tokens, the preview with what is learnt in brackets, faults of the template
printf '%s\n' '{"messages":[{"role":"system","content":"S"},{"role":"user","content":"U"},{"role":"assistant","content":"one"},{"role":"user","content":"V"},{"role":"assistant","content":"two <|im_end|>"}],"id":1}' \
    '{"messages":[{"role":"user","content":"W"},{"role":"assistant","content":"a longer answer to this"}]}' >a.jsonl
cuanto data a.jsonl --model $TINY_MODEL; echo "exit $?"
cuanto data a.jsonl --model $TINY_MODEL --max-tokens 60 -q | tail -2
echo "- preview"
cuanto data a.jsonl --model $TINY_MODEL --preview 9; echo "exit $?"
cuanto data a.jsonl --model $TINY_MODEL --preview 1 --loss last -c 40 --too-long cut; echo "exit $?"
cuanto data a.jsonl --model $TINY_MODEL --preview 1 --color always -q | head -3 | od -An -c | head -4
cuanto data a.jsonl --model $TINY_MODEL --preview 1 -c 40 --too-long error; echo "exit $?"
cuanto data a.jsonl --model $TINY_MODEL --preview 1 --json -q --loss all -c 6 --too-long cut | sed 's/\[[0-9,]*\]/[...]/'
printf '%s\n' '{"text":"a\u009b31m\u001bb\u00e9"}' >c.jsonl
cuanto data c.jsonl --model $TINY_MODEL --preview 1 -q | tail -1 | od -An -c
echo "- no template"
cuanto data a.jsonl --model $BARE_MODEL --preview 1 2>&1 | sed 's|: [^ ]* has no|: MODEL has no|'
printf '{"prompt":"a","completion":" b"}\n' >p.jsonl
cuanto data p.jsonl --model $BARE_MODEL --preview 1; echo "exit $?"
printf "{%% if messages[0].role == 'system' %%}{{ raise_exception('no system') }}{%% endif %%}{%% for m in messages %%}{{ m.content }}<|im_end|>{%% endfor %%}" >picky.jinja
cuanto data a.jsonl --model $TINY_MODEL --template picky.jinja --preview 2; echo "exit $?"
cuanto data a.jsonl --model $TINY_MODEL --template picky.jinja -q; echo "exit $?"
echo "- nothing that is read is written over, nothing asked for is left out"
cp $TINY_MODEL m.gguf; cp picky.jinja p.jinja
cuanto data a.jsonl --model m.gguf -o m.gguf --overwrite; echo "exit $?"
cuanto data a.jsonl --model m.gguf --template p.jinja -o p.jinja --overwrite; echo "exit $?"
cmp $TINY_MODEL m.gguf; cmp picky.jinja p.jinja
cuanto data a.jsonl --model m.gguf --preview 1 -o b.jsonl; echo "exit $?"

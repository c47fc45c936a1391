# constrained answers: grammar, schema, JSON; where errors are
m=$TINY_MODEL
go() { cuanto run $m --raw 'Once upon a time' -n 200 --seed 7 --temp 1.5 --top-k 0 --min-p 0 --top-p 1 -q "$@"; }
go --grammar 'root ::= "exactly this"'; echo "exit $?"
printf 'root ::= word " " word  # two of them\nword ::= "red" | "green"\n' >g.gbnf
go --grammar-file g.gbnf >out; grep -cE '^(red|green) (red|green)$' out
go --grammar-file g.gbnf --ignore-eos >out2; cmp out out2 && echo 'the end of the grammar is the end'
go --grammar 'root ::= "a"+' --ignore-eos -n 5; echo "exit $?"
go --grammar 'root ::= "ä€😀"'; echo "exit $?"
go -j '{"type": "object", "properties": {"n": {"type": "integer", "minimum": 10, "maximum": 19}, "ok": {"const": true}}, "required": ["n", "ok"]}' >out
tr -d ' \n\t' <out | sed 's/1[0-9],/1N,/'; echo
printf '{"enum": ["left", "right"]}' >s.json
go --json-schema-file s.json | sed 's/left\|right/SIDE/'
go --json-mode -n 3 >out; echo "exit $?"
go --grammar 'root ::= "a"' --json | grep -o '"text":"a"\|"finish_reason":"[a-z]*"'
go --mirostat 2 --grammar 'root ::= "m2"'; go --temp 0 --grammar 'root ::= "t0"'
echo "- errors"
go --grammar 'root ::= "a'; echo "exit $?"
printf 'root ::= a\na ::= a "x"\n' >g.gbnf
go --grammar-file g.gbnf; echo "exit $?"
go --grammar-file nowhere.gbnf; echo "exit $?"
go -j '{"type": "object", "properties": {"a": {"not": {}}}}'; echo "exit $?"
go -j '{"type": '; echo "exit $?"
go -j '{}' --json-mode; echo "exit $?"
go --grammar 'root ::= <nowhere>'; echo "exit $?"
echo "- chat"
printf '/set grammar root ::= "only this"\nhello\nagain\n/set grammar root ::= (\n/set json-schema {"const": 1}\n/set grammar\n/bye\n' |
    cuanto chat $m -q --template chatml --temp 1; echo "exit $?"
printf '/set json-schema {"const": 17}\nhello\n/regen\n/bye\n' | cuanto chat $m -q --template chatml; echo "exit $?"
echo "- names of files"
go --json-schema s.json; echo "exit $?"
go --grammar g.gbnf; echo "exit $?"
go -j '{"enum": []}'; echo "exit $?"

# data: statistics, faults with file and line, duplicates, filters, split; the input stays as it is
row() { printf '{"prompt":"%s","completion":"%s"}\n' "$1" "$2"; }
{
    row 'what is the name of the first river' 'The name of the first river is Pishon and it flows round the land of Havilah where there is gold'
    row 'hello' 'hi'
    row 'what is the name of the first river' 'The name of the first river is Pishon and it flows round the land of Havilah, where there is GOLD!'
    row 'hello' 'hi'
    row 'a' 'a long answer that nobody asked for'
} >a.jsonl
printf '[\n  {"instruction": "say\\nso", "input": "",\n   "output": "so", "id": 7}\n]\n' >b.json
cp a.jsonl a.copy
cuanto data a.jsonl b.json; echo "exit $?"
echo "{messages: []}" >odd.json; echo '[]' >none.json; echo '[1, 2]' >numbers.ndjson
for f in odd.json none.json numbers.ndjson; do cuanto data $f 2>&1 | grep "^  $f"; rm $f; done
echo "- outputs"
cuanto data a.jsonl b.json -o out.jsonl --dedupe near -v; echo "exit $?"
cat out.jsonl
cuanto data a.jsonl -o half.jsonl --split 2 --dedupe none -q; echo "exit $?"
rm half.jsonl; cuanto data a.jsonl -o half.jsonl --split 2 -q; echo "exit $?"; cuanto data b.jsonl -o out.jsonl -q; echo "exit $?"; grep -c river out.jsonl
cuanto data a.jsonl -o half.jsonl --split 2 --dedupe none -q --overwrite; echo "exit $?"
cat half.jsonl half.valid.jsonl | sort >x; sort a.jsonl >y; cmp x y && echo 'all rows, once'
grep -l hello half.jsonl half.valid.jsonl | wc -l
cuanto data a.jsonl --min-chars 8 --max-chars 60 --match 'answer|river' --drop '^nothing' --json 2>/dev/null
cmp a.jsonl a.copy && echo unchanged
ls
echo "- faults"
printf '{"prompt":"a","completion":"b"}\n{"prompt":"a","completion":" "}\n{"prompt":"a"\n' >bad.jsonl
cuanto data bad.jsonl -o never.jsonl; echo "exit $?"
cuanto data bad.jsonl -o some.jsonl --skip-bad -q; echo "exit $?"
cat some.jsonl; ls never.jsonl 2>&1 | grep -c 'No such'
cuanto data bad.jsonl -o bad.jsonl; echo "exit $?"
cuanto data missing.jsonl; echo "exit $?"
printf 'just text\n' >t.txt
cuanto data t.txt; echo "exit $?"
cuanto data t.txt -o x.jsonl; echo "exit $?"
cuanto data a.jsonl --match '('; echo "exit $?"
cuanto data a.jsonl --max-tokens 5; echo "exit $?"
cuanto data a.jsonl --split 0.1; echo "exit $?"
cuanto data a.jsonl -o z.jsonl --split 9; echo "exit $?"
cuanto data a.jsonl -o z.jsonl --min-chars 999; echo "exit $?"
echo "- roles"
for role in user human tool; do echo '{"messages":[{"role":"'$role'","content":"a"},{"role":"assistant","content":"b"}]}'; done >roles.jsonl
cuanto data roles.jsonl 2>&1 | sed -n 2p

# quantize: a plan, a file, refusals with a way out, nothing lost
cp $TINY_MODEL m-F32.gguf
plan() { cuanto quantize m-F32.gguf "$@" --dry-run | sed -n '/->/p' | sed 's/ *[0-9.]* *[0-9.]*$//; s/   */ | /g'; }
echo "- plan"
plan Q8_0
plan x.gguf Q4_0 --type 'blk\.0\.ffn=keep' --output-type f16 | grep -v 'attn_[qk]'
cuanto quantize m-F32.gguf Q8_0 --dry-run | sed -n 's/^\(needs\|time\|to run\) .*/\1/p'
cuanto quantize m-F32.gguf Q8_0 --dry-run --json | grep -c '"seconds_predicted": *[0-9]'
ls
cuanto quantize m-F32.gguf x.gguf Q8_0 --dry-run | sed -n 's/^to run .*\(at 8k context\)$/\1/p'
cuanto quantize m-F32.gguf --method zero-point --dry-run | grep '^note'
cuanto quantize m-F32.gguf Q8_0 --split-size 10K --dry-run | grep '^note'
echo "- run"
cuanto quantize m-F32.gguf Q8_0 -q; echo "exit $?"
ls
cuanto quantize m-F32.gguf a.gguf Q8_0 -t 1 -q --verify --sha256 | grep -c '^[0-9a-f]\{64\}  a.gguf$'
cmp a.gguf m-Q8_0.gguf && echo 'same with one thread'
sha256sum a.gguf | cut -c1-64 >s; cuanto quantize m-F32.gguf a.gguf Q8_0 -q --overwrite --sha256 | cut -c1-64 | cmp - s && echo 'same sum'
cuanto run a.gguf --raw 'Once upon' -n 2 --ignore-eos -q >/dev/null; echo "exit $?"
cuanto quantize m-F32.gguf b.gguf q4_k_m -v 2>&1 | grep -c 'relative [0-9.]* %  cosine'
cuanto run b.gguf --raw 'Once upon' -n 2 --ignore-eos 2>&1 >/dev/null | sed -n '1s/^[^,]*, \([^,]*\),.*/\1/p'
cuanto quantize m-F32.gguf b.gguf --method absmax --bits 8 --granularity row -q --overwrite; echo "exit $?"
echo "- refused"
cuanto quantize m-F32.gguf a.gguf Q8_0 -q; echo "exit $?"
cuanto quantize m-F32.gguf m-F32.gguf Q8_0 -q --overwrite; echo "exit $?"
cuanto quantize m-F32.gguf a.gguf Q4_K_X; echo "exit $?"
cuanto quantize m-F32.gguf; echo "exit $?"
cuanto quantize m-F32.gguf x.gguf; cuanto quantize m-F32.gguf Q8_0 x.gguf; cuanto quantize m-F32.gguf Q8_0 --method absmax; echo "exit $?"
cuanto quantize m-F32.gguf a.gguf COPY; echo "exit $?"; cuanto help quantize | sed -n '/^Types:/,$p' | grep -c '^  I\?Q[1-8]'
cuanto quantize m-F32.gguf Q4_0 --granularity row --dry-run; cuanto quantize m-F32.gguf Q4_0 --bits 4 --dry-run; echo "exit $?"
cp a.gguf i.json; cuanto quantize m-F32.gguf i.json Q8_0 -q --imatrix i.json --overwrite; echo "exit $?"
cuanto quantize m-F32.gguf f.gguf Q8_0 -q --imatrix i.json --report ./i.json; echo "exit $?"; cmp a.gguf i.json && rm i.json
cuanto quantize m-F32.gguf c.gguf Q4_0 --type 'nothing=q8_0' -q; echo "exit $?"
cuanto quantize m-F32.gguf c.gguf Q4_0 --split-size 2Q -q; echo "exit $?"
cuanto quantize a.gguf c.gguf Q4_0 -q; echo "exit $?"
cuanto quantize a.gguf c.gguf Q4_0 -q --allow-requantize; echo "exit $?"
cuanto quantize m-F32.gguf no/where.gguf Q8_0 -q; echo "exit $?"
cuanto quantize m-F32.gguf d.gguf Q8_0 --method absmax -q; echo "exit $?"
cuanto quantize m-F32.gguf f.gguf Q8_0 -q --report r.txt; echo "exit $?"
cuanto quantize m-F32.gguf f.gguf Q8_0 -q --report no/where.html; echo "exit $?"
cuanto quantize m-F32.gguf f.gguf Q8_0 -q --keep-outliers=1; echo "exit $?"
cuanto quantize m-F32.gguf f.gguf F16 -q --keep-outliers; echo "exit $?"
cuanto quantize m-F32.gguf Q4_0 --explain attn_q; echo "exit $?"
cuanto quantize m-F32.gguf Q4_0 --explain=nothing; echo "exit $?"
echo "- explained"
cuanto quantize m-F32.gguf Q4_0 --explain='blk.0.attn_q' >x; echo "exit $?"
head -3 x; grep -c '^> search Q4_0' x; awk 'length($0) > 80' x; grep '^blk' x
cuanto quantize m-F32.gguf --explain | grep -c '^blk.1'
echo "- reported"
for end in html json csv md; do cuanto quantize m-F32.gguf f.gguf Q4_0 -q --overwrite --report r.$end; echo "exit $?"; done
cuanto quantize m-F32.gguf Q4_0 --dry-run --report d.md >/dev/null; grep -c '^| blk' d.md
sed -n 's/^- \(input\|output\|format\): /\1 /p' r.md; grep -c 'output <code>f.gguf</code>' r.html; grep '^  "output"' r.json
cuanto quantize m-F32.gguf Q8_0 --type 'ffn=q4_0' --dry-run --report t.md >/dev/null; grep -c "^- .*--type 'ffn\|^- .*--type 'blk.*ffn" t.md
grep -c '</html>' r.html; grep -ic 'http\|<script' r.html; head -1 r.csv; sed -n 's/^- \(No tensor stands out\|[0-9]* of\).*/\1/p' r.md | head -1
echo "- outlier columns"
cuanto quantize m-F32.gguf o.gguf Q8_0 --keep-outliers=1.0005 --dry-run | grep -c '^outliers .* stay F16; llama.cpp cannot read such a file'
cuanto quantize m-F32.gguf o.gguf Q8_0 --keep-outliers=1.0005 -q --verify; echo "exit $?"
cuanto run o.gguf --raw 'Once upon' -n 2 --ignore-eos -q >/dev/null; echo "exit $?"
cuanto quantize m-F32.gguf Q8_0 --keep-outliers --dry-run | grep '^outliers'
echo "- as llama-quantize"
cuanto quantize m-F32.gguf c1.gguf Q5_1 --compat -q --verify -t 1; echo "exit $?"
cuanto quantize m-F32.gguf c2.gguf Q5_1 --method compat -q --report c.md; echo "exit $?"; cmp c1.gguf c2.gguf && echo 'same as --method compat'
grep '^- format' c.md; cuanto inspect c1.gguf --all | grep -o "quantize.method .*"
cuanto quantize m-F32.gguf c3.gguf Q5_1 -q; cmp -s c1.gguf c3.gguf || echo 'not what the search makes'
cuanto quantize m-F32.gguf c4.gguf Q5_1 --compat --method absmax; cuanto quantize m-F32.gguf Q5_1 --compat --explain; echo "exit $?"
cuanto quantize m-F32.gguf c4.gguf --compat; cuanto quantize m-F32.gguf c4.gguf Q5_1 --compat --bits 4; echo "exit $?"
echo "- disk full, then resumed"
(trap '' XFSZ; ulimit -f 100; cuanto quantize m-F32.gguf e.gguf Q8_0 -q; echo "exit $?")
ls e.gguf*
cuanto quantize m-F32.gguf e.gguf Q8_0 -q; echo "exit $?"
cuanto quantize m-F32.gguf e.gguf Q8_0 -q --split-size 60K; echo "exit $?"
cuanto quantize m-F32.gguf e.gguf Q5_0 -q --resume; echo "exit $?"
cuanto quantize m-F32.gguf e.gguf Q8_0 --resume 2>x; echo "exit $?"
grep -c '^continuing: [0-9]* % was done' x; sed -n 's/.*\(weighted relative error about\) [0-9.]* %.*MiB.s$/\1 N %/p' x
cuanto quantize m-F32.gguf g.gguf Q8_0 --verify 2>&1 | sed -n 's/.*\(weighted relative error\) [0-9.]* %.*/\1 N %/p'
cmp e.gguf a.gguf && ls e.gguf*
echo "- split"
cuanto quantize m-F32.gguf s.gguf Q8_0 -q --split-size 60K --sha256 | wc -l
ls s-*
cuanto quantize m-F32.gguf p.gguf F32 -q --split-size 200K
first=$(ls p-00001-of-*.gguf); ls p-*
cuanto quantize $first Q8_0 -q; echo "exit $?"
ls p-Q*
cmp p-Q8_0.gguf a.gguf && echo 'same as from one file'
cuanto quantize $(ls p-00002-of-*.gguf) Q8_0 -q; echo "exit $?"
echo "- -o"
cuanto quantize m-F32.gguf -o from-o.gguf Q8_0 -q; echo "exit $?"; cmp from-o.gguf a.gguf && echo 'the same file'
cuanto quantize m-F32.gguf p.gguf Q8_0 -o from-o.gguf -q; echo "exit $?"
echo "- what is it?"
seq 1 100 | tr '\n' ' ' >text; cuanto importance $TINY_MODEL -f text -c 32 --chunks 2 --no-ppl -o i.gguf -q >/dev/null; cuanto inspect i.gguf | grep '^kind\|^runs'
cuanto inspect $MIXTURE_MODEL | grep "^experts"
echo "- calibrated"
for i in $(seq 60); do echo "Once upon a time $i there was a model that read line $i of its text, and then some."; done >t.txt
cuanto quantize m-F32.gguf Q4_0 --calibration t.txt --imatrix t.txt; cuanto quantize m-F32.gguf Q4_0 --method gptq --imatrix t.txt; echo "exit $?"
cuanto quantize m-F32.gguf Q4_0 --calibration-tokens 4096; cuanto quantize m-F32.gguf --method absmax --calibration t.txt; echo "exit $?"
printf '{"prompt": "Who?", "completion": "Me."}\n{"text": "no more"\n' >bad.jsonl
cuanto quantize m-F32.gguf k.gguf Q4_0 --calibration bad.jsonl -q; echo "exit $?"
cuanto quantize m-F32.gguf a.gguf Q4_0 --calibration t.txt -q; echo "exit $?"
cuanto quantize m-F32.gguf k.gguf IQ2_XXS --calibration default --dry-run | grep '^calibrate\|^ .*rows\|^importance'; ls k.gguf* 2>&1 | grep -c 'No such'
cuanto quantize m-F32.gguf k.gguf Q4_0 --method gptq --calibration-tokens 4096 --dry-run 2>&1 >x | sed -n 1p; grep '^calibrate' x
cuanto quantize $BARE_MODEL k.gguf Q4_0 --calibration default --calibration-tokens 4096 2>&1 | grep '^note'; cuanto inspect k.gguf --all | grep -o 'imatrix.dataset .*'
for i in $(seq 300); do echo "{\"prompt\": \"Tell me of line $i, please, once upon a time\", \"completion\": \"Line $i says what line $i says.\"}"; done >t.jsonl
cuanto quantize m-F32.gguf k.gguf Q4_0 --calibration t.jsonl -q --overwrite; echo "exit $?"
cuanto importance m-F32.gguf -f t.jsonl -c 512 --chunks 8 --no-ppl -o k.im.gguf -q >x; cuanto quantize m-F32.gguf k.gguf Q4_0 --imatrix k.im.gguf --overwrite 2>&1 | grep '^importance'
echo "- columns scaled"
cuanto quantize m-F32.gguf Q4_0 --method awq --calibration t.txt --keep-outliers -q; echo "exit $?"
cuanto quantize m-F32.gguf awq.gguf Q4_0 --method awq --calibration t.txt --calibration-tokens 4096 -v 2>x; grep -c 'error [01]\.[0-9]* of that without factors' x; sed -n 's/^scales  *//p; s/of [0-9] groups of \(.\), .*/of N groups of \1/p' x
cuanto quantize m-F32.gguf awq1.gguf Q4_0 --method awq --calibration t.txt --calibration-tokens 4096 -q -t 1 --verify; cmp awq.gguf awq1.gguf && echo 'same with one thread'
cuanto run awq.gguf --raw 'Once upon' -n 2 --ignore-eos -q >/dev/null; echo "exit $?"; cuanto inspect awq.gguf --all 2>/dev/null | grep -c 'quantize.scaled_tensors .*u32 *[0-9]'
cuanto quantize m-F32.gguf awq.gguf Q4_0 --method awq --imatrix k.im.gguf -q --overwrite; cmp -s awq.gguf awq1.gguf || echo 'another text, other scales'
echo "- solved"
head -5 t.txt >few.txt; cuanto quantize m-F32.gguf solved.gguf Q4_0 --method gptq --calibration few.txt -q; echo "exit $?"
cuanto quantize m-F32.gguf solved.gguf Q4_0 --method gptq --calibration t.txt --calibration-tokens 4096 -v 2>&1 | grep -c 'held-out error 0\.[0-9]* of the search'
cuanto quantize m-F32.gguf solved1.gguf Q4_0 --method gptq --calibration t.txt --calibration-tokens 4096 -q -t 1 --verify; cmp solved.gguf solved1.gguf && echo 'same with one thread'
cuanto quantize m-F32.gguf searched.gguf Q4_0 --calibration t.txt --calibration-tokens 4096 -q --overwrite
cuanto compare m-F32.gguf searched.gguf solved.gguf -f t.txt -q --chunks 4 --format csv | cut -d, -f16 | awk 'NR == 3 { c = $1 } NR == 4 && $1 < 0.6 * c { print "nearer than the search" }'
cuanto inspect solved.gguf | sed -n 's/^\(quantized .*\) by cuanto .*/\1/p; s/([0-9a-f]\{16\})/(HASH)/; s/ 0\.[0-9]* of the search/ LESS of the search/; /^importance\|^solved/p'
for end in html json csv md; do cuanto quantize m-F32.gguf r.gguf Q4_0 --method gptq --calibration t.txt --calibration-tokens 2048 -q --overwrite --report s.$end; done
grep -c '^| blk.*| Q4_0 | 0.[0-9]* | 0.[0-9]* | [01].[0-9]* |$' s.md; grep -c '"held_out": [0-9]' s.json; grep -c '<h2>Solved' s.html; grep -c '^.blk.*,0.[0-9]*,0.[0-9]*,[01].[0-9]*,.base.$' s.csv
cuanto quantize m-F32.gguf k.gguf Q4_0 --method gptq --calibration t.txt --calibration-tokens 4096 --dry-run --json | grep -c '"tokens": 4096\|"solve_seconds_predicted": [0-9]\|"ram_bytes": [1-9]'
(trap '' XFSZ; ulimit -f 60; cuanto quantize m-F32.gguf kept.gguf Q4_0 --method gptq --calibration t.txt --calibration-tokens 4096 -q; echo "exit $?"); ls kept.gguf*
cuanto quantize m-F32.gguf kept.gguf Q4_0 --method gptq --calibration t.txt --calibration-tokens 4096 -q --resume; cmp kept.gguf solved.gguf && echo 'same after a full disk'
hit="quantize m-F32.gguf hit.gguf Q4_0 --method gptq --calibration t.txt --calibration-tokens 4096 -q --resume"
for i in 1 2 3 4; do (cuanto $hit & sleep 0.0$((i * 2)); kill -9 $!; wait $!) >x 2>&1; done; [ -f hit.gguf ] || cuanto $hit; cmp hit.gguf solved.gguf && echo 'same after kills'
echo "- experts"
mix() { cuanto quantize $MIXTURE_MODEL $1.gguf Q4_0 --method $2 --calibration t.txt --calibration-tokens 4096 --allow-requantize -q -t $3; }
mix mix gptq 2; mix mix1 gptq 1; mix mixs search 1; cmp mix.gguf mix1.gguf && echo 'same with one thread'
cuanto compare $MIXTURE_MODEL mixs.gguf mix.gguf -f t.txt -q --chunks 4 --format csv | cut -d, -f16 | awk 'NR == 3 { c = $1 } NR == 4 && $1 < 0.5 * c { print "nearer than the search" }'
cuanto quantize solved.gguf x2.gguf Q4_1 --calibration t.txt -q; echo "exit $?"
echo "- quantized already"
for method in gptq awq; do cuanto quantize solved.gguf x3.gguf Q4_0 --method $method --calibration t.txt --allow-requantize -q; echo "exit $?"; done
cuanto quantize m-F32.gguf x3.gguf Q8_0 --method gptq --calibration t.txt -q; echo "exit $?"
cuanto quantize solved.gguf x3.gguf Q4_1 --method gptq --calibration t.txt --calibration-tokens 2048 --allow-requantize --type 'ffn=q4_0' --dry-run | grep '^note'
cuanto quantize solved.gguf x3.gguf Q4_1 --calibration t.txt --calibration-tokens 2048 --allow-requantize 2>&1 | grep '^note'
cuanto inspect searched.gguf | sed -n 's/([0-9a-f]\{16\})/(HASH)/; /^importance/p'
cuanto quantize m-F32.gguf Q4_0 --explain --calibration t.txt; echo "exit $?"

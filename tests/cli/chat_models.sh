# chat without a model says what there is and what to type
cuanto chat; echo "exit $?"
mkdir models more
echo x >models/a.gguf
echo x >more/b.gguf
echo x >more/readme.txt
cuanto chat; echo "exit $?"
CUANTO_MODELS=/nowhere:more cuanto chat; echo "exit $?"
cuanto chat --json; echo "exit $?"
cuanto chat a b; echo "exit $?"

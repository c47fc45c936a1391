# a reader that goes away ends run quietly; SIGTERM ends it with 143; a full disk is an error
m=$TINY_MODEL
{ cuanto run $m --raw x -c 8192 -n 8000 --ignore-eos -q 2>err; echo "exit $?" >rc; } | head -c 1 >out
cat rc err
cuanto run $m --raw x -n 4 --ignore-eos -q >/dev/full; echo "exit $?"
mkfifo fifo
cuanto run $m --raw -q <fifo >out 2>err &
pid=$!
exec 3>fifo
sleep 0.3
kill -TERM $pid
wait $pid; echo "exit $?"
cat out err
exec 3>&-
cuanto chat $m --template chatml -q <fifo >out 2>err &
pid=$!
exec 3>fifo
sleep 0.5
kill -TERM $pid
wait $pid; echo "exit $?"
cat out err

# writing to a full or closed stdout is an error, to a closed pipe a quiet end
cuanto version
cuanto --version
cuanto help >/dev/full; echo "exit $?"
cuanto help >&-; echo "exit $?"
{ sleep 0.2; cuanto help all 2>err; echo "exit $?" >rc; } | true
cat rc err
NO_COLOR=1 cuanto help | grep -c "$(printf '\033')"
cuanto help --color=always; echo "exit $?"

# a missing prompt is refused before a model is opened
cuanto run m; echo "exit $?"
printf '' | cuanto run m; echo "exit $?"
printf '\n' | cuanto run m; echo "exit $?"
cuanto run m -f missing.txt; echo "exit $?"
cuanto run m - -f -; echo "exit $?"
cuanto run m x <&-; echo "exit $?"
cuanto template m; echo "exit $?"

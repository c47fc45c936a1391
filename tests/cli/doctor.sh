# the facts are there, in both forms
cuanto doctor | sed 's/ .*//'| grep -v note
cuanto doctor --json | sed -n 's/^ *\("[a-z_]*"\):.*/\1/p'
cuanto doctor --json | grep -q '"scalar"' && echo the scalar level is listed

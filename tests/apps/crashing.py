"""Says why, and ends with the given status (1). `crashing.py [STATUS]`."""

import sys

print("reading settings")
print("there is no setting called FOO", file=sys.stderr)
sys.exit(int((sys.argv[1:2] or ["1"])[0]))

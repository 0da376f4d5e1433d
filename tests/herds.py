"""Many hooks that start at one moment."""

import ast
import subprocess
import sys
from collections import Counter

from conftest import HOOK

# The shell holds each hook at the gate: small, so that all that is left to do when the gate opens is the hook's own.
HERD = """
import os, sys
hook, total = sys.argv[1], int(sys.argv[2])
gate, opener = os.pipe()
os.set_inheritable(gate, True)
wait = f'read _ <&{gate}; exec "$@"'
children = []
for number in range(total):
    arguments = [a.replace("%", str(number)) for a in sys.argv[3:]]
    client = os.environ.get("FIXED_CLIENT", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    environment = {"FASTGREY_STORE": os.environ["FASTGREY_STORE"], "TCPREMOTEIP": client}
    children.append(os.posix_spawn("/bin/sh", ["sh", "-c", wait, "sh", hook, *arguments], environment))
os.close(gate)
os.close(opener)
status = {}
for child in children:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status[code] = status.get(code, 0) + 1
print(status)
"""


def herd(path, total, sender, recipient, log, **environment):
    """Start so many hooks, all waiting at one gate, and open it. Gives exit codes by number, and the log lines."""
    with open(log, "ab") as errors:
        done = subprocess.run([sys.executable, "-c", HERD, HOOK, str(total), sender, recipient], stderr=errors,
                              stdout=subprocess.PIPE, env={"FASTGREY_STORE": str(path), **environment}, timeout=300)
    assert done.returncode == 0
    return ast.literal_eval(done.stdout.decode()), log.read_text().splitlines()


def verdicts(lines):
    """Log lines counted by action and reason."""
    return Counter(" ".join(line.split()[1:3]) for line in lines)

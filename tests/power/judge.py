"""Looks at stores that a power cut left, one after the other, and says what they are: run as a process of its own.

    judge.py HOOK

Reads a line of JSON for each: {"store": path, "waiting": [client, sender, recipient], "full": bool}. Answers with one:
truth (of what the store holds, below; null where there is none), findings of `fastgrey verify` that are not good, said
(what the hook answered to who waited before the cut, then once more), and after a compaction, which names are there.
A damaged table may end it by a signal; then that is the answer.
"""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import lmdb
from lmdb import verify as structure

import aging
from fastgrey import compaction, directory, verification


UNREADABLE = (OSError, lmdb.Error, structure.VerifyError, ValueError, KeyError)


def truth(store):
    """What a store is for whoever asks it: the generation in force, settings, policy, windows and known records, as a
    text without what passes away by itself. None where there is no store; raises where it cannot be read."""
    if not os.path.lexists(store / "current"):
        return None
    name = os.readlink(store / "current")
    problems = structure.verify(str(store / name))
    if problems:
        raise ValueError(problems[0])
    tables = aging.records(store / name)
    head = tables["meta"].pop(b"head")
    del tables["touched"]
    # Whether it is superseded or noted passes away, and with them the sum at the end; the hook looks at that.
    digest = hashlib.sha256(repr((head[:24], head[40:-8], sorted((kind, sorted(table.items()))
                                                              for kind, table in tables.items()))).encode())
    sizes = ", ".join(f"{len(table)} {kind}" for kind, table in sorted(tables.items()))
    return f"{name}: {sizes}: {digest.hexdigest()[:16]}"


def ask(hook, store, waiting):
    """What the hook answers, the first words of its line."""
    client, sender, recipient = waiting
    done = subprocess.run([hook, sender, recipient], stderr=subprocess.PIPE, timeout=60,
                          env={"FASTGREY_STORE": str(store), "TCPREMOTEIP": client})
    return f"{done.returncode} {' '.join(done.stderr.decode('ascii', 'replace').split()[1:3])}"


def look(hook, order):
    store = Path(order["store"])
    found = {"truth": None, "findings": [], "said": [], "error": None}
    try:
        found["truth"] = truth(store)
    except UNREADABLE as error:
        found["error"] = f"{type(error).__name__}: {error}"
        return found
    if found["truth"] is None:
        # Whatever is there, a new store can be made.
        directory.create(store)
        return found
    if order["full"]:
        found["findings"] = [[finding.level, finding.what] for finding in verification.verify(str(store)).findings
                             if finding.level != "good"]
    found["said"] = [ask(hook, store, order["waiting"]) for _ in range(2)]
    if order["full"]:
        compaction.compact(str(store), verify="copy")
        found["names"] = sorted(entry.name for entry in store.iterdir())
        found["said"].append(ask(hook, store, order["waiting"]))
    return found


def main(hook):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.dup(1)
    os.dup2(2, 1)
    with open(answers, "w") as out:
        for line in sys.stdin:
            order = json.loads(line)
            try:
                found = look(hook, order)
            except Exception:
                found = {"error": traceback.format_exc().splitlines()[-1]}
            shutil.rmtree(order["place"])
            print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

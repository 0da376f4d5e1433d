"""Take what a long run of the fuzzer found into the corpora: python tests/fuzz/merge.py FOLDER [TARGET ...].

FOLDER/TARGET/ holds inputs, a file each. Of them, the seeds and the corpus as it is, what reaches most is kept in a few
small inputs. Lines above the last comment of a corpus are regressions, and stay.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fuzzing
from fuzz import seeds, whole_store

FOUND = "# Found by the fuzzer, or seeds of it; made few by tests/fuzz/merge.py."
MOST = 120
# Of these only what reaches other lines is kept, not what reaches them another number of times.
LARGE = ("envelope", "policy", "record", "table")


def regressions(target):
    """The lines of a corpus that stay."""
    file = fuzzing.FUZZ / "corpora" / f"{target}.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return lines[:lines.index(FOUND)] if FOUND in lines else lines


def main():
    found = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        fuzzer = fuzzing.build_fuzzer(work, fuzzing.cythonize(work))
        store = whole_store.make(work / "whole")
        for target in sys.argv[2:] or fuzzing.TARGETS:
            source, chosen = work / f"{target}.all", work / f"{target}.few"
            chosen.mkdir()
            fuzzing.unpack(target, source)
            for number, (of, content) in enumerate(seeds.seeds()):
                if of == target:
                    (source / f"seed-{number:04}").write_bytes(content)
            done = fuzzing.run(fuzzer, target, "-set_cover_merge=1", f"-use_counters={int(target not in LARGE)}", chosen, source, found / target,
                               env={"FUZZ_STORE": str(store)})
            assert done.returncode == 0, done.stdout[-2000:]
            kept = sorted({file.read_bytes() for file in chosen.iterdir()}, key=lambda content: (len(content), content))
            lines = [*regressions(target), FOUND, *map(repr, kept[:MOST])]
            (fuzzing.FUZZ / "corpora" / f"{target}.txt").write_text("\n".join(lines) + "\n")
            print(f"{target}: {len(kept[:MOST])} of {len(kept)} inputs, {sum(map(len, kept[:MOST]))} bytes")


if __name__ == "__main__":
    main()

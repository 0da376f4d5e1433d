"""What good is, in figures: the goals that the page sets beside what was measured."""

import re
from typing import Any, NamedTuple


class Goal(NamedTuple):
    """A bound for one figure or one number of a count."""

    text: str
    section: str
    # The whole name of the figure or count, a regular expression. Of several that match, the worst is meant.
    name: str
    bound: float
    # at most, or at least where the figure is how many times faster we are.
    least: bool = False
    # Of a count: which of its numbers.
    number: str = ""
    # It is a time.
    seconds: bool = False

    def value(self, sections: dict[str, dict[str, Any]]) -> float | None:
        """What was measured, None where it was not."""
        content = sections.get(self.section)
        if content is None:
            return None
        if self.number:
            found = [count.numbers[self.number] for count in content["counts"]
                     if re.fullmatch(self.name, count.name) and self.number in count.numbers]
        else:
            found = [figure.median for figure in content["figures"] if re.fullmatch(self.name, figure.name)]
        if not found:
            return None
        return float(min(found) if self.least else max(found))

    def met(self, value: float) -> bool:
        """Whether the bound is kept."""
        return value >= self.bound if self.least else value <= self.bound


GOALS = (
    Goal("known sender, 10^6 known triplets, by an empty static executable: at most 1.10", "hook",
         r"known sender, 10\^6 known, 0 rules, 1 at once", 1.10),
    Goal("stranger, 10^6 known triplets, by an empty static executable: at most 1.25", "hook",
         r"stranger, 10\^6 known, 0 rules, 1 at once", 1.25),
    Goal("the same checker as a Python script, by the hook: at least 20", "others", r"Python script, .*", 20,
         least=True),
    Goal("a shell script in the manner of 2003 that knows the sender, by the hook: at least 9", "others",
         r"shell script of 2003, known sender", 9, least=True),
    Goal("compaction, half of the entries expired, by `cat`: at most 3", "compaction", r"compaction, --verify copy", 3),
    Goal("promotions wait during a compaction: at most 50 ms", "blocked", r"seconds of \d+ promotions, during .*", 0.05,
         number="most", seconds=True),
    Goal("bytes on disk of a known triplet after compaction: at most 40", "compaction",
         r".* entries, half of them expired", 40, number="bytes an entry after"),
    Goal("decision of a known triplet in a process, by an mdb_get of a ready key: at most 2.0", "steps",
         r"decision, known triplet, .*", 2.0),
    Goal("decisions of two readers at once, by those of one: at least 1.9", "readers", r"one reader, by 2 at once", 1.9,
         least=True),
    Goal("system calls of a reader that wait for a lock: none", "readers", r"system calls of .*", 0, number="futex"),
    Goal("look-up at 10^7 known triplets, by one at 10^4: at most 2.5", "growth", r"look-up, 10\^7 known", 2.5),
    Goal("expiry of 10^7 strangers: at most 100 ms", "sizes", r"10\^7 known triplets, .*", 0.1,
         number="seconds to expire strangers", seconds=True),
    *(Goal(f"known senders over {over}, serve by an empty server in C: at most 2", "serve",
           rf"serve, known, {over}", 2) for over in ("TCP", "unix")),
    Goal("strangers, the best of the other greylisters by serve: at least 3", "serve", r"(?!serve).*, new, .*", 3,
         least=True),
    *(Goal(f"decisions on {engine}, by bare reads and writes through the same client: at most 2", "serve-engines",
           rf"decision, .*, {engine}, .*", 2) for engine in ("Valkey", "PostgreSQL")),
)

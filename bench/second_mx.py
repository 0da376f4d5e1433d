"""What a second MX costs that greylists on its own: recorded envelopes, sent again to one, two or four of them.

    python bench/second_mx.py FILE [--label ham]

FILE is one for `fastgrey replay`; a column `label` chooses which rows count. Every message is tried until it is accepted,
each sender by the schedule of one of three MTAs, at an MX by one of three habits. The stores are real ones, at the
times of the file.
"""

import argparse
import csv
import heapq
import statistics
import zlib
from contextlib import ExitStack
from itertools import accumulate, chain, repeat

from fastgrey import settings
from fastgrey.replay import replay_store

MINUTE = 60
# Minutes from one attempt to the next: the defaults of Postfix, Exim and Sendmail as Debian has them.
SCHEDULES = {
    "Postfix": (5, 10, 20, 40, *repeat(67, 100)),
    "Exim": (*repeat(15, 8), 23, 34, 51, 76, 114, *repeat(360, 20)),
    "Sendmail": (*repeat(10, 700),),
}
# Which MXs an attempt of this number asks, in order, until one accepts.
HABITS = {
    "the first, always": lambda mxs, seed, attempt: [0],
    "any one, by chance": lambda mxs, seed, attempt: [zlib.crc32(f"{seed} {attempt}".encode()) % mxs],
    "the next where one defers": lambda mxs, seed, attempt: list(range(mxs)),
}


def envelopes(name, label):
    """Time, client, sender and recipient of the rows that count."""
    with open(name, encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if label is None or row.get("label") == label:
                yield int(row["time"]), row["client_ip"], row["sender"], row["recipient"]


def simulate(rows, mxs, habit):
    """Seconds that each message waited."""
    waited = [0] * len(rows)
    with ExitStack() as stack:
        stores = [stack.enter_context(replay_store(None, settings.defaults())) for _ in range(mxs)]
        queue = [(row[0], number, 0) for number, row in enumerate(rows)]
        heapq.heapify(queue)
        while queue:
            now, number, attempt = heapq.heappop(queue)
            arrived, client, sender, recipient = rows[number]
            seed = zlib.crc32(client.encode())
            asked = HABITS[habit](mxs, number, attempt)
            if any(stores[mx].check(client=client, sender=sender, recipient=recipient, now=now).action == "accept"
                   for mx in asked):
                waited[number] = now - arrived
                continue
            steps = list(accumulate(chain([0], [*SCHEDULES.values()][seed % len(SCHEDULES)])))
            if attempt + 1 < len(steps):
                heapq.heappush(queue, (arrived + steps[attempt + 1] * MINUTE, number, attempt + 1))
    return waited


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--label")
    words = parser.parse_args()
    rows = list(envelopes(words.file, words.label))
    print(f"{len(rows)} messages; a store for each MX")
    print("MXs  habit                      delayed  share   their mean   median   90th percentile   in all")
    for mxs, habits in ((1, ["the first, always"]), (2, HABITS), (4, HABITS)):
        for habit in habits:
            waited = simulate(rows, mxs, habit)
            delayed = sorted(filter(None, waited))
            print(f"{mxs:<3}  {habit:<25}  {len(delayed):>7}  {len(delayed) / len(rows):.1%}  "
                  f"{statistics.mean(delayed) / MINUTE:>7.1f} min  {statistics.median(delayed) / MINUTE:>4.0f} min  "
                  f"{delayed[len(delayed) * 9 // 10] / MINUTE:>11.0f} min  {sum(delayed) / 3600:>6.0f} h")


if __name__ == "__main__":
    main()

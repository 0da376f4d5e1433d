"""The mail of a day at a big site, from a seed: who sends, to whom, and when they try again.

Of ten messages one comes from a friend, whom the days before have made known, and nine from strangers; of those one in
eighteen is mail that somebody wants, the rest is spam. A message has one recipient in four of five cases, else a few.
The hours have the shape of an office day.

What tries again does so as its software does by default. Where a schedule ends the message is given up.

- postfix: when the queue is run, every 5 minutes, once as long has passed as the message is old, 5 minutes at least and
  4,000 seconds at most (postconf(5): queue_run_delay, minimal_backoff_time, maximal_backoff_time).
- exim: every 15 minutes for 2 hours; until 16 hours after an hour, then half as long again each time; then every 6
  hours; when the queue is run, every 30 minutes (Debian's exim4: `* * F,2h,15m; G,16h,1h,1.5; F,4d,6h`, QUEUEINTERVAL).
- sendmail: whenever the queue is run, every 10 minutes (Debian's sendmail.conf: QUEUE_INTERVAL).
- qmail: 400 seconds after the first attempt, then 1,600, 3,600, 6,400, ... (qmail-send.c, remote deliveries).
- exchange: every 15 minutes (Set-TransportService: MessageRetryInterval).
- pool, as the big providers are: after 5 to 15 minutes, each time twice as long, from any of twelve networks. They
  publish no schedule.
- newsletter: as postfix, each message with a sender address of its own.
- forget: never, as most spam. hammer: three times within a minute. queue: spam through a real server, as postfix.

The shares of kinds are made up. What a greylist does with each of them is not.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

DAY = 86_400
# Messages an hour, by their share of the day.
HOURS = (2, 2, 2, 2, 2, 3, 4, 5, 7, 7, 7, 6, 5, 6, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2)
FRIENDS, WANTED = 10, 5
SOFTWARE = {"postfix": 40, "exim": 20, "sendmail": 5, "qmail": 3, "exchange": 12, "pool": 12, "newsletter": 8}
SPAM = {"forget": 85, "hammer": 10, "queue": 5}
RECIPIENTS = 20_000
# A friend writes so often in a day on average.
MESSAGES_OF_A_FRIEND = 4
NETWORKS_OF_A_POOL = 12


class Attempt(NamedTuple):
    """One recipient of one message, once."""

    # Seconds since the day began.
    when: int
    # Attempts of different families share no client, sender domain or sender.
    family: int
    client: bytes
    sender: bytes
    recipient: bytes


@dataclass
class Message:
    """A message that is not yet at all its recipients."""

    family: int
    kind: str
    sender: bytes
    networks: tuple[int, ...]
    recipients: list[bytes]
    # When it was first tried, and how often it was.
    born: float
    tried: int = 0


def postfix(message: Message, now: float, chance: random.Random) -> float | None:
    """When a message is tried after an attempt at now; None for never again."""
    due = now + min(4000.0, max(300.0, now - message.born))
    return _queue_run(due, 300, message.family)


def exim(message: Message, now: float, chance: random.Random) -> float | None:
    """The same, by Debian's retry rule."""
    age = now - message.born
    if age < 2 * 3600:
        due = now + 900
    elif age < 16 * 3600:
        # The intervals of a series that grows by half are half of what has passed since it began.
        due = now + max(3600.0, (age - 2 * 3600) * 0.5)
    else:
        due = now + 6 * 3600
    return _queue_run(due, 1800, message.family)


def sendmail(message: Message, now: float, chance: random.Random) -> float | None:
    """The same, of a queue that is run every ten minutes."""
    return _queue_run(now + 1, 600, message.family)


def qmail(message: Message, now: float, chance: random.Random) -> float | None:
    """The same, on a parabola."""
    return message.born + 400.0 * (message.tried * message.tried)


def exchange(message: Message, now: float, chance: random.Random) -> float | None:
    """The same, every quarter of an hour."""
    return now + 900


def pool(message: Message, now: float, chance: random.Random) -> float | None:
    """The same, later and later."""
    return now + chance.uniform(300, 900) * float(1 << min(message.tried - 1, 5))


def forget(message: Message, now: float, chance: random.Random) -> float | None:
    """Never."""
    return None


def hammer(message: Message, now: float, chance: random.Random) -> float | None:
    """Three times within a minute."""
    return now + chance.uniform(1, 20) if message.tried < 4 else None


SCHEDULES: dict[str, Callable[[Message, float, random.Random], float | None]] = {
    "postfix": postfix, "exim": exim, "sendmail": sendmail, "qmail": qmail, "exchange": exchange, "pool": pool,
    "newsletter": postfix, "forget": forget, "hammer": hammer, "queue": postfix}


def _queue_run(due: float, interval: int, phase: int) -> float:
    """The first run of a queue from due on; each server began to run its own at another moment."""
    offset = phase * 7919 % interval
    return due + (offset - due) % interval


class Traffic:
    """A day. The same seed and number give the same messages; which are tried again depends on the answers."""

    def __init__(self, messages: int, seed: int = 1) -> None:
        self.messages = messages
        self._chance = random.Random(seed)
        self.friends = max(1, messages * FRIENDS // 100 // MESSAGES_OF_A_FRIEND)

    def introductions(self) -> Iterator[Attempt]:
        """What made the friends known the day before, in the order of time: each is tried twice, 600 seconds apart."""
        for again in (0, 600):
            for friend in range(self.friends):
                yield Attempt(again - 7200, friend, _address(friend), _sender(friend, 0), _recipient(friend))

    def run(self, deferred: Callable[[Attempt], bool]) -> None:
        """Make all attempts of the day in the order of time; deferred is given each, and says whether it is."""
        waiting: list[tuple[float, int, Message]] = []
        for serial, message in enumerate(self._messages()):
            while waiting and waiting[0][0] <= message.born:
                self._try(heapq.heappop(waiting), waiting, deferred)
            self._try((message.born, serial, message), waiting, deferred)
        while waiting:
            self._try(heapq.heappop(waiting), waiting, deferred)

    def _try(self, event: tuple[float, int, Message], waiting: list[tuple[float, int, Message]],
             deferred: Callable[[Attempt], bool]) -> None:
        now, serial, message = event
        client = _address(message.networks[self._chance.randrange(len(message.networks))])
        message.tried += 1
        message.recipients = [recipient for recipient in message.recipients
                              if deferred(Attempt(int(now), message.family, client, message.sender, recipient))]
        if message.recipients:
            due = SCHEDULES[message.kind](message, now, self._chance)
            if due is not None and due < DAY:
                heapq.heappush(waiting, (due, serial, message))

    def _messages(self) -> Iterator[Message]:
        chance = self._chance
        total, born = sum(HOURS), []
        for hour, share in enumerate(HOURS):
            number = self.messages * share // total
            born += sorted(chance.uniform(3600 * hour, 3600 * (hour + 1)) for _ in range(number))
        kinds, weights = list(SOFTWARE), list(SOFTWARE.values())
        spam, spam_weights = list(SPAM), list(SPAM.values())
        family = self.friends
        for number, when in enumerate(born):
            which = chance.randrange(100)
            if which < FRIENDS:
                friend = chance.randrange(self.friends)
                sender = _sender(friend, chance.randrange(5))
                yield Message(friend, "postfix", sender, (friend,), self._recipients(), when)
                continue
            family += NETWORKS_OF_A_POOL
            wanted = which < FRIENDS + WANTED
            kind = chance.choices(*((kinds, weights) if wanted else (spam, spam_weights)))[0]
            networks = tuple(family + i for i in range(NETWORKS_OF_A_POOL)) if kind == "pool" else (family,)
            sender = _sender(family, 0)
            if kind == "newsletter":
                sender = b"bounce-%d-%s" % (number, sender)
            elif not wanted and chance.random() < 0.02:
                sender = b""
            yield Message(family, kind, sender, networks, self._recipients(), when)

    def _recipients(self) -> list[bytes]:
        chance = self._chance
        number = 1 if chance.random() < 0.8 else min(20, 2 + int(chance.expovariate(0.7)))
        return [_recipient(chance.randrange(RECIPIENTS)) for _ in range(number)]


def _address(network: int) -> bytes:
    """A client in that network; IPv6 for one in eight."""
    if network % 8 == 7:
        return b"2001:db8:%x:%x::19" % (network >> 16 & 0xFFFF, network & 0xFFFF)
    return b"%d.%d.%d.%d" % (1 + network // 65536 % 223, network >> 8 & 255, network & 255, 1 + network % 250)


def _sender(family: int, person: int) -> bytes:
    return b"%s.%s@mail.%s.example" % ((b"anna", b"bert", b"carla", b"dieter", b"emil")[person], _letters(family + 7),
                                      _letters(family))


def _recipient(number: int) -> bytes:
    return b"%s@big.example.net" % _letters(number + 10_000)


def _letters(number: int) -> bytes:
    """Digits would be folded away in a sender."""
    return number.to_bytes(4, "big").hex().translate(LETTERS).encode()


LETTERS = str.maketrans("0123456789abcdef", "bcdfghklmnprstvz")

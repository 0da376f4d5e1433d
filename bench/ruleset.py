"""Rules to measure with."""

import random

PATTERNS = {"allow_senders": [rf"/^mail[0-9]+\.pool-{number}\.example\.org$/" for number in range(30)]}


def rules(number: int) -> dict[str, list[str]]:
    """So many entries in all six lists, from a seed: a third each of addresses, domains and networks of ten lengths.

    None of them matches, which costs most.
    """
    chance = random.Random(1)
    lists: dict[str, list[str]] = {}
    for index in range(number):
        word = f"{chance.getrandbits(40):x}"
        kind = index % 3
        of = ("clients", "senders", "recipients")[kind if kind == 0 else 1 + index % 2]
        if kind == 0:
            entry = f"172.{16 + index % 16}.{index // 16 % 256}.{chance.randrange(256)}/{chance.randrange(23, 33)}"
        else:
            entry = f"{word}@{word}.example.com" if kind == 1 else f"{word}.example.com"
        lists.setdefault(f"{chance.choice(('deny', 'allow'))}_{of}", []).append(entry)
    return lists


def with_denied(sender: str, number: int) -> dict[str, list[str]]:
    """So many rules, one of which denies that sender."""
    lists = rules(number - 1)
    lists.setdefault("deny_senders", []).append(sender)
    return lists

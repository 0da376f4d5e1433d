"""Policy: settings and rules as one record that the hook reads where it lies. docs/format.md has the layout.

Applying checks everything first and then puts settings and rules in force in one transaction: a check sees the old
policy or the new one, never half of each.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from . import _core, directory, disk, inside, rules as rules_, settings as settings_
from .errors import StoreError
from .rules import LISTS, NUMBERS, Rule

MAGIC = b"fgpolicy"
VERSION = 2
HEAD = struct.Struct("=8sIIQqQ3QII6I")
SLOT = struct.Struct("=II")
ENTRY = struct.Struct("=IHBx4II")
ACTIONS = struct.Struct("=4I")
PATTERN = struct.Struct("=IIHHBBBxII")
RULE = struct.Struct("=IHBxII")
FILE = struct.Struct("=II")
HIT = struct.Struct("=Q")
HITS = re.compile(r"hits\.([0-9]{1,19})")
INLINE = "inline."
# What reading a damaged record may raise.
UNREADABLE = (ValueError, IndexError, OverflowError, struct.error)


@dataclass(frozen=True)
class Policy:
    """What is or shall be in force. settings: stored numbers by name, all of them. files: what it was read from, the
    main one first. number and applied (Unix seconds) are 0 where it was not applied yet."""

    settings: dict[str, int]
    rules: tuple[Rule, ...] = ()
    files: tuple[str, ...] = ()
    number: int = 0
    applied: int = 0
    # Of each rule, how often it decided.
    hits: tuple[int, ...] = field(default=(), compare=False)

    @cached_property
    def record(self) -> bytes:
        """The compiled rules; PolicyError at the first rule that means nothing. Number and time come with applying."""
        return compile(self.rules, self.files)

    def counted(self) -> list[tuple[Rule, int]]:
        """The rules with their hits, those that decided most first."""
        return sorted(zip(self.rules, self.hits, strict=True), key=lambda item: -item[1])

    def lines(self) -> list[str]:
        """The policy as lines, a setting or a rule each, for people and for comparing."""
        return [*(f"{name} = {value}" for name, value in settings_.show(self.settings).items()),
                *(f"{rule.list}: {rule.entry}" for rule in self.rules)]


class _Texts:
    """The texts at the end of the record, each with a NUL behind it, equal ones once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.places: dict[bytes, int] = {}

    def add(self, text: bytes) -> tuple[int, int]:
        """Place from the beginning of the texts, and size."""
        if text not in self.places:
            self.places[text] = len(self.data)
            self.data += text + b"\0"
        return self.places[text], len(text)


def action_and_subject(list_name: str) -> tuple[int, int]:
    """Numbers of what a list does (deny, allow, opt out, opt in) and of whom (client, sender, recipient)."""
    number = NUMBERS[list_name]
    return (number // 3, number % 3) if number < 6 else (number - 4, 2)


def compile(rules: Iterable[Rule], files: Iterable[str] = ()) -> bytes:
    """The record for these rules; PolicyError at the first that means nothing."""
    entries: dict[tuple[int, bytes], list[int]] = {}
    patterns: list[tuple[int, bool, int, bytes, bytes, int]] = []
    texts = _Texts()
    prefixes = {"ipv4": 0, "ipv6": 0}
    lists = kinds = 0
    rows = []
    names = list(dict.fromkeys([*files, *(rule.file for rule in rules)]))
    places = {name: place for place, name in enumerate(names)}
    for number, rule in enumerate(rules, 1):
        form = rules_.parse(rule)
        action, subject = action_and_subject(rule.list)
        lists |= 1 << NUMBERS[rule.list]
        rows.append((texts.add(rule.entry.encode("utf-8", "surrogateescape")), NUMBERS[rule.list],
                     places[rule.file], rule.line))
        if form.kind in ("glob", "regex"):
            # Globs cost less, so they are tried first.
            patterns.append((action, form.kind == "regex", subject, form.text, form.literal, number))
            continue
        kind = _core.entry_kind(form.kind, subject == 2)
        kinds |= 1 << kind
        if form.kind in prefixes:
            prefixes[form.kind] |= 1 << form.text[0]
        found = entries.setdefault((kind, form.text), [0, 0, 0, 0])
        found[action] = found[action] or number
    patterns.sort(key=lambda pattern: pattern[:2])
    return _assemble(entries, patterns, rows, [name.encode("utf-8", "surrogateescape") for name in names], texts,
                     kinds, lists, prefixes)


def _assemble(entries: dict[tuple[int, bytes], list[int]], patterns: list[tuple[int, bool, int, bytes, bytes, int]],
              rows: list[tuple[tuple[int, int], int, int, int]], names: list[bytes], texts: _Texts, kinds: int,
              lists: int, prefixes: dict[str, int]) -> bytes:
    slots = _slots(entries)
    counts = (len(slots), len(entries), len(patterns), len(rows), len(names))
    base = HEAD.size + sum(count * row.size for count, row in zip(counts, (SLOT, ENTRY, PATTERN, RULE, FILE),
                                                                     strict=True))
    parts = [SLOT.pack(*slot) for slot in slots]
    for (kind, text), found in entries.items():
        place, size = texts.add(text)
        parts.append(ENTRY.pack(base + place, size, kind, *found,
                                _core.sum_entry(kind, text, ACTIONS.pack(*found))))
    for action, is_regex, subject, text, literal, number in patterns:
        (place, size), (literal_place, literal_size) = texts.add(text), texts.add(literal)
        row = (base + place, base + literal_place, size, literal_size, subject, action, is_regex, number)
        parts.append(PATTERN.pack(*row, _core.sum_pattern(PATTERN.pack(*row, 0), text, literal)))
    parts += [RULE.pack(base + place, size, number, file, line) for (place, size), number, file, line in rows]
    for name in names:
        place, size = texts.add(name)
        parts.append(FILE.pack(base + place, size))
    words = [prefixes["ipv6"] >> 64 * word & (1 << 64) - 1 for word in range(3)]
    head = HEAD.pack(MAGIC, VERSION, base + len(texts.data), 0, 0, prefixes["ipv4"], *words, kinds, lists,
                     *counts, 0)
    return head + b"".join(parts) + bytes(texts.data)


def _slots(entries: dict[tuple[int, bytes], list[int]]) -> list[tuple[int, int]]:
    """Where each entry is looked for: open addressing, a third of the slots free at least, so that what is not there is
    known after a look or two."""
    if not entries:
        return []
    size = 1 << (len(entries) * 3 // 2).bit_length()
    slots = [(0, 0)] * size
    for index, (kind, text) in enumerate(entries, 1):
        value = _core.hash_entry(kind, text)
        place = value % size
        while slots[place][1]:
            place = (place + 1) % size
        slots[place] = (value >> 32, index)
    return slots


def decode(record: bytes) -> tuple[int, int, tuple[Rule, ...], tuple[str, ...]]:
    """Number, time of applying, rules and files of a compiled record; UNREADABLE where it is none."""
    if len(record) < HEAD.size or not record.startswith(MAGIC):
        raise ValueError("this is no policy")
    fields = HEAD.unpack_from(record)
    if fields[1] != VERSION or fields[2] != len(record):
        raise ValueError("the policy has another version or size")
    counts = fields[11:16]
    start = HEAD.size + sum(count * row.size for count, row in zip(counts[:3], (SLOT, ENTRY, PATTERN), strict=True))

    def text(place: int, size: int) -> str:
        return record[place:place + size].decode("utf-8", "surrogateescape")

    end = start + counts[3] * RULE.size
    files = tuple(text(*row) for row in FILE.iter_unpack(record[end:end + counts[4] * FILE.size]))
    names = list(LISTS)
    found = tuple(Rule(names[number], text(place, size), files[file], line)
                  for place, size, number, file, line in RULE.iter_unpack(record[start:end]))
    return fields[3], fields[4], found, files


def damaged(record: bytes) -> int:
    """How many entries and patterns of a compiled record, which decode can read, are not what was compiled: a check
    that meets one of them ends as error."""
    counts = HEAD.unpack_from(record)[11:14]
    start = HEAD.size + counts[0] * SLOT.size
    end = start + counts[1] * ENTRY.size
    entries = ENTRY.iter_unpack(record[start:end])
    places = range(end, end + counts[2] * PATTERN.size, PATTERN.size)
    number: int = sum(told != _core.sum_entry(kind, record[place:place + size], ACTIONS.pack(*found))
                 for place, size, kind, *found, told in entries)
    for row in (record[place:place + PATTERN.size] for place in places):
        place, literal, size, literal_size, *_, told = PATTERN.unpack(row)
        number += told != _core.sum_pattern(row, record[place:place + size], record[literal:literal + literal_size])
    return number


def in_force(store: _core.Store) -> Policy:
    """The policy of a store, with the hits of its rules."""
    record, slots = store.policy()
    values = settings_.by_name(slots)
    if record is None:
        return Policy(values)
    try:
        number, applied, found, files = decode(record)
    except UNREADABLE as error:
        raise StoreError(f"cannot read the policy of {store.path}: {error}; put one in force with: fastgrey apply"
                         ) from None
    return Policy(values, found, files, number, applied, read_hits(store.path, number, len(found)))


def in_force_or_damaged(store: _core.Store) -> tuple[Policy, bool]:
    """The policy of a store as far as it can be read, and whether it is damaged: then putting the same in force once
    more mends it."""
    record, slots = store.policy()
    try:
        return in_force(store), record is not None and damaged(record) > 0
    except StoreError:
        return Policy(settings_.by_name(slots), number=store.head()["policy"]), True


def change(store: _core.Store, what: str, assignment: str = "NAME=VALUE") -> str:
    """The remedy that is a change of a setting, where the settings of this store are kept."""
    files = in_force(store).files
    return f"{what} in {files[0]}, then: fastgrey apply" if files else f"{what} with: fastgrey init --set {assignment}"


def apply(store: _core.Store, policy: Policy) -> int:
    """Put a policy in force, durably and all at once; its number. Raises PolicyError, StoreError."""
    root = Path(store.path)
    kept = carried(in_force_or_damaged(store)[0], policy.rules)
    try:
        values = disk.settled(policy.settings, root)
        number = store.configure([values[name] for name in settings_.BY_NAME], policy.record,
                                 lambda number: write_hits(root, number, kept))
    except OSError as error:
        raise StoreError(f"cannot write {error.filename or root}: {error.strerror}; the policy in force stays"
                         ) from None
    remove_hits_before(root, number)
    return number


def carried(before: Policy, rules: Iterable[Rule]) -> list[int]:
    """The hits that rules of a policy to come bring along from one before."""
    counts: dict[tuple[str, str], int] = {}
    for rule, count in zip(before.rules, before.hits, strict=True):
        counts[rule.list, rule.entry] = counts.get((rule.list, rule.entry), 0) + count
    return [counts.pop((rule.list, rule.entry), 0) for rule in rules]


def write_hits(root: Path, number: int, hits: Iterable[int]) -> None:
    """Make the file of hits of the policy with this number, durably: what the hook finds cut short it does not count
    in. OSError."""
    directory.write_flushed(hits_path(root, number), b"".join(map(HIT.pack, hits)))
    directory.flush_directory(root)


def remove_hits_before(root: Path, number: int) -> None:
    """Only those of earlier policies: another process may be about to put the next one in force."""
    for path in root.glob("hits.*"):
        if (match := HITS.fullmatch(path.name)) and int(match[1]) < number:
            with suppress(FileNotFoundError):
                directory.remove(path)


def put(store: _core.Store, rules: Mapping[str, Iterable[str]], settings: Mapping[str, int] | None = None) -> int:
    """Put entries by list in force, with the settings of the store or, where given, those named and defaults."""
    values = in_force(store).settings if settings is None else settings_.defaults() | dict(settings)
    found = tuple(Rule(name, entry, INLINE + name, line) for name, entries in rules.items()
                  for line, entry in enumerate(entries, 1))
    return apply(store, Policy(values, found))


def hits_path(root: Path, number: int) -> Path:
    """The file of hits of the policy with this number."""
    return root / f"hits.{number}"


def read_hits(path: str, number: int, size: int) -> tuple[int, ...]:
    """Of so many rules of the policy with this number; 0 where none can be read."""
    try:
        content = inside.read(hits_path(Path(path), number), HIT.size * size)
    except OSError:
        content = b""
    found = [count for (count,) in HIT.iter_unpack(content[:len(content) // HIT.size * HIT.size])]
    return tuple((found + [0] * size)[:size])

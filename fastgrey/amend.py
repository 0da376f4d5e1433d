"""Records removed, and records made known, by hand: which ones the parts of a request determine, and what became of
them."""

import socket
from typing import NamedTuple

from . import _core, policy, records
from . import settings as settings_
from .errors import RecordError, RequestError
from .records import KEY_SIZE, SWITCHES, Record, View

NOT_GIVEN = "-"


class Parts(NamedTuple):
    """The parts of a request that were given. name is forward-confirmed."""

    client: str | None
    sender: str | None
    recipient: str | None
    name: str | None


class Target(NamedTuple):
    """A record to change, there or not. where, kind and stored are those of a Record; what says whose it is."""

    where: str
    kind: str
    stored: bytes
    what: str

    @property
    def key(self) -> bytes:
        """The key, of which a pending triplet has the first half."""
        return records.key_of(self.where, self.kind, self.stored)


class Forgotten(NamedTuple):
    """A record that was removed."""

    target: Target
    record: Record


class Made(NamedTuple):
    """A record made known: what it was (None: nothing) and what it is. waited: since when its triplet is pending."""

    target: Target
    before: Record | None
    record: Record
    waited: int | None


def parts(client: str, sender: str, recipient: str, name: str | None) -> Parts:
    """The parts from the arguments of a command; RequestError where they determine nothing together."""
    asked = Parts(_given(client), _given(sender), _given(recipient), name)
    if asked.recipient is not None and (asked.sender is None or _is_domain_alone(asked.sender)):
        raise RequestError("a recipient goes with a whole sender; give SENDER too, or leave RECIPIENT off")
    if asked.client is None and asked.recipient is None:
        raise RequestError("this determines no record; give CLIENT, CLIENT SENDER, CLIENT SENDER RECIPIENT, or "
                           "- SENDER RECIPIENT")
    if name is not None and asked.client is None:
        raise RequestError("--name goes with a client; give CLIENT too")
    return asked


def targets(view: View, asked: Parts) -> list[Target]:
    """Every record that the parts determine; RequestError for a part that cannot be used."""
    found = []
    for kind, place, key in view.records.keys(*asked):
        if kind == "waiting":
            found.append(Target("pending", "triplet", key, _what(view, asked, "triplet", place)))
            continue
        found.append(Target("known", kind, key, _what(view, asked, kind, place)))
        if kind == "pair":
            found.append(Target("pending", "pair", key, found[-1].what))
    return found


def matches(view: View, prefix: str) -> list[Target]:
    """The records that are there under a key."""
    return [Target(record.where, record.kind, record.stored, "") for record in view.find(prefix)]


def one_key(prefix: str, found: list[Target]) -> None:
    """RequestError where what begins with these digits is more than one thing. A triplet, or a pair, may be both known
    and pending; records of two kinds have the first digits in common by accident only."""
    keys = {(target.kind, target.key[:KEY_SIZE // 2]) for target in found}
    if len(keys) > 1:
        named = ", ".join(f"{target.where} {target.kind} {target.key.hex()}" for target in found[:6])
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""
        raise RequestError(f"{prefix} is ambiguous: {named}{more}; give more digits, or --only")


def forget(view: View, chosen: list[Target], dry_run: bool) -> list[Forgotten]:
    """Remove the records. What was there, the known ones first; dry_run: only look."""
    known = [target for target in chosen if target.where == "known"]
    pending = [target for target in chosen if target.where == "pending"]
    passed = view.passed([target.stored for target in pending])
    # Pending goes first: a retry between the two steps would else be promoted anew.
    waited = view.records.forget_pending([target.stored for target in pending], dry_run)
    earned = view.records.forget([(target.kind, target.stored) for target in known], dry_run)
    return [Forgotten(target, view.record(target.where, target.kind, target.stored, number, was_passed))
            for target, number, was_passed in zip(known + pending, earned + waited, [False] * len(known) + passed,
                                                  strict=True) if number is not None]


def make_known(view: View, asked: Parts, dry_run: bool) -> list[Made]:
    """Make known what the parts say most closely: the triplet, else the pair, the domain or the client.

    dry_run: only look. Raises RequestError where there is no such record, RecordError where it would not let mail pass.
    """
    if asked.recipient is not None:
        kind = "pair" if asked.client is None else "triplet"
    else:
        kind = "client" if asked.sender is None else "domain"
    determined = targets(view, asked)
    chosen = [target for target in determined if target.where == "known" and target.kind == kind]
    if not chosen:
        raise RequestError("the null sender makes no pairs; give CLIENT as well" if kind == "pair" else
                           "the sender has no domain; give RECIPIENT as well")
    switch = SWITCHES.get(kind)
    if switch and view.settings[switch] == 0:
        usual = f"{switch}={settings_.BY_NAME[switch].default}"
        raise RecordError(f"{switch} is 0, so no known {kind} lets mail pass; "
                          f"{policy.change(view.store, 'set it', usual)}")
    least = view.settings[switch] if switch and kind != "pair" else 0
    waited = _waited(view, [target for target in determined if target.where == "pending" and kind == "triplet"])
    made = view.records.make_known([(kind, target.stored, least) for target in chosen], view.now, dry_run)
    return [Made(target, None if before is None else view.record("known", kind, target.stored, before),
                 view.record("known", kind, target.stored, after), waited.get(target.stored[:KEY_SIZE // 2]))
            for target, (before, after) in zip(chosen, made, strict=True)]


def no_parent(asked: Parts) -> str | None:
    """One line where a name was given that makes no name parent; else None."""
    if asked.name is None or asked.client is None or _core.client_name_parent(asked.name, asked.client):
        return None
    return (f"the name {asked.name[:60]!r} has fewer than three labels or looks dynamic: nothing is recorded under it, "
            "only under the network")


def _waited(view: View, pending: list[Target]) -> dict[bytes, int]:
    """First-seen times of those that wait, by the first half of the triplet's key."""
    found = {}
    for target, number in zip(pending, view.records.forget_pending([t.stored for t in pending], True), strict=True):
        if number is not None:
            record = view.record(*target[:3], number)
            if view.alive(record):
                found[record.key] = record.time
    return found


def _given(part: str) -> str | None:
    return None if part == NOT_GIVEN else part


def _is_domain_alone(sender: str) -> bool:
    # With a colon it is a source route (RFC 5321 section 4.1.1.3) and an address.
    return sender.startswith("@") and ":" not in sender


def _what(view: View, asked: Parts, kind: str, place: int) -> str:
    """Whose record it is, in the form in which it is keyed."""
    said = []
    if asked.client is not None and kind != "pair":
        said.append(_place(view, asked, kind, place))
    if kind != "client":
        sender = _core.normalise_sender(asked.sender or "")
        said.append(_printable(sender.rpartition(b"@")[2]) if kind == "domain" else _printable(sender))
    if kind in ("triplet", "pair"):
        said.append(_printable(_core.normalise_recipient(asked.recipient or "")))
    return " ".join(said)


def _place(view: View, asked: Parts, kind: str, place: int) -> str:
    assert asked.client is not None
    if place == 1:
        return f"*.{_printable(_core.client_name_parent(asked.name or '', asked.client))}"
    prefixes = view.settings["ipv4_prefix"], view.settings["ipv6_prefix"]
    version, exact, network = _core.normalise_client(asked.client, *prefixes)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    if kind == "client":
        return socket.inet_ntop(family, exact) + ("" if version == 4 else "/64")
    return f"{socket.inet_ntop(family, network)}/{prefixes[0] if version == 4 else prefixes[1]}"


def _printable(text: bytes) -> str:
    return "".join(chr(byte) if 32 < byte < 127 else f"\\x{byte:02x}" for byte in text) or "<>"

"""An independent reference model of the greylisting decision.

The model is written from the contract of a decision alone (docs/decision.md) and favours literal reading over speed. It
shares no code with the program it is compared to. The rule lists are in tests/rules_model.py.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR

MAX_LENGTH = 1000
MAX_NOW = 2**40 - 1
WHITE_SPACE = b" \t\v\f"
SEPARATORS = b"=+-"

DEFAULTS: dict[str, int | bool | str] = {
    "delay": 5 * MINUTE,
    "retry_window": 2 * DAY,
    "lifetime": 36 * DAY,
    "refresh": 1 * DAY,
    "ipv4_prefix": 24,
    "ipv6_prefix": 64,
    "allow_client_after": 5,
    "allow_domain_after": 1,
    "pool_hops": 3,
    "pool_window": 4 * HOUR,
    "trust_client_name": False,
    "null_sender": "greylist",
    "mode": "enforce",
    "on_error": "accept",
}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Verdict = tuple[str, str, int]
# A key starts with the name of its kind, so that records of different kinds cannot meet in one dict.
Key = tuple[str | bytes | Network, ...]


@dataclass
class Known:
    """What is remembered of something that has been promoted."""

    last: int
    count: int


@dataclass
class PendingPair:
    """What is remembered of a sender and recipient that come from ever new networks."""

    first: int
    hops: int


class RuleLists(Protocol):
    """What the model asks of rule lists."""

    def ruling(
        self, *, client: bytes, client_name: bytes, trusted: bool, sender: bytes, recipient: bytes
    ) -> str | None:
        """Return 'denied', 'allowed', 'opted-out' or None."""


@dataclass(frozen=True)
class Window:
    """Mail that a recipient expects until a moment, from a domain or, where that is empty, from anybody."""

    recipient: bytes
    domain: bytes
    until: int

    def covers(self, now: int, recipient: bytes, domain: bytes) -> bool:
        """Tell whether mail for the recipient from the domain is expected; both as they stand in keys."""
        if now > self.until or recipient != self.recipient:
            return False
        return self.domain == b"" or domain == self.domain or domain.endswith(b"." + self.domain)


def elapsed(now: int, then: int) -> int:
    """Return the seconds from then to now, or zero when the clock has stepped back."""
    return max(0, now - then)


def split_address(raw: bytes) -> tuple[bytes, bytes | None]:
    """Clean an address and return its local part and its domain, which is None when there is no '@'."""
    # The limits hold for what was received, before anything is stripped from it.
    if len(raw) > MAX_LENGTH:
        raise ValueError("address is longer than 1,000 bytes")
    if any(forbidden in raw for forbidden in (b"\0", b"\r", b"\n")):
        raise ValueError("address contains NUL, CR or LF")

    address = raw.strip(WHITE_SPACE)
    if address.startswith(b"<") and address.endswith(b">"):
        address = address[1:-1]
    if address.startswith(b"@") and b":" in address:
        address = address.partition(b":")[2]
    address = address.lower()  # For bytes this changes ASCII letters only.

    local, at, domain = address.rpartition(b"@")
    if not at:
        return address, None
    return local, domain.rstrip(b".")


def join_address(local: bytes, domain: bytes | None) -> bytes:
    """Put an address together again, keeping the '@' even before an empty domain."""
    return local if domain is None else local + b"@" + domain


def strip_batv(local: bytes) -> bytes:
    """Drop the tag of a BATV-signed local part."""
    for prefix, separator in ((b"prvs=", b"="), (b"btv1==", b"==")):
        if local.startswith(prefix):
            tag, _, rest = local[len(prefix) :].partition(separator)
            if tag and rest:
                return rest
    return local


def srs_origin(text: bytes) -> tuple[bytes, bytes] | None:
    """Return the domain and local part out of HASH=TT=DOMAIN=LOCAL, or None for any other shape."""
    fields = text.split(b"=", 3)
    if len(fields) != 4 or not all(fields):
        return None
    return fields[2], fields[3]


def strip_srs(local: bytes) -> bytes:
    """Drop the hashes and time stamps of a local part rewritten by SRS."""
    if local[4:5] not in (b"=", b"+", b"-"):
        return local
    scheme, text = local[:4], local[5:]

    if scheme == b"srs0":
        origin = srs_origin(text)
        if origin:
            return b"srs0=" + b"=".join(origin)

    if scheme == b"srs1":
        fields = text.split(b"=", 2)
        if len(fields) == 3 and all(fields) and fields[2][0] in SEPARATORS:
            origin = srs_origin(fields[2][1:])
            if origin:
                return b"srs1=" + fields[1] + b"=" + b"=".join(origin)

    return local


def strip_extension(local: bytes) -> bytes:
    """Drop the first '+' that is not the first byte, and everything after it."""
    plus = local.find(b"+", 1)
    return local if plus < 0 else local[:plus]


def reduce_tokens(local: bytes) -> bytes:
    """Replace every run of digits and letters that contains a digit by a single '#'."""
    return re.sub(rb"[0-9a-z]+", lambda run: b"#" if re.search(rb"[0-9]", run[0]) else run[0], local)


def normalise_sender(raw: bytes) -> bytes:
    """Return the sender as it stands in keys, or raise ValueError."""
    local, domain = split_address(raw)
    for step in (strip_batv, strip_srs, strip_extension, reduce_tokens):
        local = step(local)
    return join_address(local, domain)


def normalise_recipient(raw: bytes) -> bytes:
    """Return the recipient as it stands in keys, or raise ValueError."""
    return join_address(*split_address(raw))


def parse_client(text: bytes) -> Address:
    """Return the address that inet_pton reads, with an IPv4 address mapped into IPv6 as IPv4."""
    name = text.partition(b"%")[0].decode("ascii")
    try:
        return ipaddress.IPv4Address(socket.inet_pton(socket.AF_INET, name))
    except OSError:
        pass
    try:
        address = ipaddress.IPv6Address(socket.inet_pton(socket.AF_INET6, name))
    except OSError as error:
        raise ValueError("client is not an address") from error
    return address.ipv4_mapped or address


def normalise_client(text: bytes, ipv4_prefix: int = 24, ipv6_prefix: int = 64) -> tuple[Network, Network]:
    """Return the exact client and its network, or raise ValueError."""
    address = parse_client(text)
    if address.version == 4:
        exact_prefix, network_prefix = 32, ipv4_prefix
    else:
        exact_prefix, network_prefix = 64, ipv6_prefix
    exact = ipaddress.ip_network((address, exact_prefix), strict=False)
    network = ipaddress.ip_network((address, network_prefix), strict=False)
    return exact, network


def looks_dynamic(name: bytes, client: Network) -> bool:
    """Tell whether the name of an IPv4 client spells out the last two octets of its address."""
    if client.version != 4:
        return False
    # A run of zeros is the number 0. Runs stay text because a run can be longer than int() accepts.
    numbers = {run.lstrip(b"0") or b"0" for run in re.findall(rb"[0-9]+", name)}
    return all(b"%d" % octet in numbers for octet in client.network_address.packed[-2:])


def name_parent(name: bytes, client: Network) -> bytes:
    """Return the parent of a trusted client name, or the empty string when it has none.

    The client is the exact client that normalise_client returns.
    """
    name = name.lower().removesuffix(b".")
    if len(name) > MAX_LENGTH:
        return b""
    labels = name.split(b".")
    if len(labels) < 3 or looks_dynamic(name, client):
        return b""
    return b".".join(labels[1:])


class Model:
    """A greylist that keeps its records in memory and never forgets one."""

    def __init__(
        self, *, rules: RuleLists | None = None, windows: Sequence[Window] = (), **settings: int | bool | str
    ) -> None:
        unknown = sorted(settings.keys() - DEFAULTS.keys())
        if unknown:
            raise TypeError(f"unknown settings: {', '.join(unknown)}")
        chosen = {**DEFAULTS, **settings}
        self.delay = int(chosen["delay"])
        self.retry_window = int(chosen["retry_window"])
        self.lifetime = int(chosen["lifetime"])
        self.refresh = int(chosen["refresh"])
        self.ipv4_prefix = int(chosen["ipv4_prefix"])
        self.ipv6_prefix = int(chosen["ipv6_prefix"])
        self.allow_client_after = int(chosen["allow_client_after"])
        self.allow_domain_after = int(chosen["allow_domain_after"])
        self.pool_hops = int(chosen["pool_hops"])
        self.pool_window = int(chosen["pool_window"])
        self.trust_client_name = bool(chosen["trust_client_name"])
        self.null_sender = str(chosen["null_sender"])
        self.mode = str(chosen["mode"])
        self.on_error = str(chosen["on_error"])

        self.rules = rules
        self.windows = windows
        self.known: dict[Key, Known] = {}
        self.pending: dict[Key, int] = {}  # The value is the time of the first attempt.
        self.pending_pairs: dict[Key, PendingPair] = {}

    def check(
        self,
        *,
        now: int,
        client: bytes,
        sender: bytes,
        recipient: bytes,
        client_name: bytes = b"",
        name_trusted: bool | None = None,
        relay: bool = False,
    ) -> Verdict:
        """Decide one request and return the action, the reason and the seconds to wait."""
        # A relay client passes whatever it sends, so this comes before anything can be found wrong.
        if relay:
            return "accept", "relay", 0

        try:
            if not 0 <= now <= MAX_NOW:
                raise ValueError("the clock is out of range")
            trusted = self.trust_client_name if name_trusted is None else name_trusted
            ruling = self.rules.ruling(
                client=client, client_name=client_name, trusted=trusted, sender=sender, recipient=recipient
            ) if self.rules else None
            exact, network = normalise_client(client, self.ipv4_prefix, self.ipv6_prefix)
            sender = normalise_sender(sender)
            recipient = normalise_recipient(recipient)
        except ValueError:
            verdict: Verdict = (self.on_error, "error", 0)
        else:
            parent = name_parent(client_name, exact) if trusted else b""
            verdict = self._decide(now, ruling, exact, network, parent, sender, recipient)

        # The learn mode accepts everything, so a deferral because of an error is no exception.
        if self.mode == "learn" and verdict[0] == "defer":
            return "accept", "learn", 0
        return verdict

    def _decide(
        self,
        now: int,
        ruling: str | None,
        exact: Network,
        network: Network,
        parent: bytes,
        sender: bytes,
        recipient: bytes,
    ) -> Verdict:
        """Go through steps 2 to 11 for a normalised request and what the rules say of it."""
        domain = sender.rpartition(b"@")[2] if b"@" in sender else b""

        if ruling == "denied":
            return "reject", "denied", 0
        if ruling == "allowed" or (sender == b"" and self.null_sender == "accept"):
            return "accept", "allowed", 0
        if ruling == "opted-out":
            return "accept", "opted-out", 0
        if any(window.covers(now, recipient, domain) for window in self.windows):
            return "accept", "expected", 0

        # The network comes before the parent, because the first record that matches is the one refreshed.
        origins: list[Network | bytes] = [network, parent] if parent else [network]

        client_key: Key = ("client", exact)
        domain_keys: list[Key] = [("domain", origin, domain) for origin in origins] if domain else []
        triplet_keys: list[Key] = [("triplet", origin, sender, recipient) for origin in origins]
        pair_key: Key = ("pair", sender, recipient)
        pools = self.pool_hops > 0 and sender != b""

        if self.allow_client_after > 0 and self._matches(now, [client_key], self.allow_client_after):
            return "accept", "known-client", 0
        if self.allow_domain_after > 0 and self._matches(now, domain_keys, self.allow_domain_after):
            return "accept", "known-domain", 0
        if self._matches(now, triplet_keys):
            return "accept", "known-triplet", 0
        if pools and self._matches(now, [pair_key]):
            return "accept", "known-pair", 0

        firsts = [self.pending[key] for key in triplet_keys if key in self.pending]
        firsts = [first for first in firsts if elapsed(now, first) <= self.retry_window]
        if firsts:
            age = elapsed(now, min(firsts))
            if age < self.delay:
                return "defer", "early", self.delay - age
            self._promote(now, triplet_keys, [client_key, *domain_keys])
            return "accept", "retry", 0

        if pools and self._hop_completes_pool(now, pair_key):
            self._promote(now, [*triplet_keys, pair_key], [client_key, *domain_keys])
            return "accept", "pool", 0

        # Whatever stands under these keys is past the retry window and so older than now.
        for key in triplet_keys:
            self.pending[key] = now
        return "defer", "new", self.delay

    def _alive(self, now: int, key: Key) -> Known | None:
        """Return a known record unless it is absent or dead."""
        record = self.known.get(key)
        if record is None or elapsed(now, record.last) > self.lifetime:
            return None
        return record

    def _matches(self, now: int, keys: list[Key], threshold: int = 0) -> bool:
        """Tell whether one of the keys is known with that count, and refresh the first that is."""
        for key in keys:
            record = self._alive(now, key)
            if record is not None and record.count >= threshold:
                if elapsed(now, record.last) >= self.refresh:
                    record.last = max(record.last, now)
                return True
        return False

    def _hop_completes_pool(self, now: int, key: Key) -> bool:
        """Count a hop of the pending pair and tell whether the pair now passes as a pool."""
        pair = self.pending_pairs.get(key)
        if pair is None or elapsed(now, pair.first) > self.pool_window:
            pair = self.pending_pairs[key] = PendingPair(first=now, hops=1)
        else:
            pair.hops += 1
        return pair.hops >= self.pool_hops and elapsed(now, pair.first) >= self.delay

    def _promote(self, now: int, plain_keys: list[Key], counted_keys: list[Key]) -> None:
        """Make all the keys known, and the counted ones once more than before."""
        for key in [*plain_keys, *counted_keys]:
            record = self._alive(now, key)
            if record is None:
                self.known[key] = Known(last=now, count=1)
            else:
                # The clock may have stepped back, and a record never goes back with it.
                record.last = max(record.last, now)
                if key in counted_keys:
                    record.count += 1

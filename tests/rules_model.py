"""An independent reference model of the rule lists.

Written from the description of a decision (docs/decision.md) like tests/model.py, and as literal: every entry of a list
is held against the request, one after the other. Entries are taken to be good; which are bad is not modelled.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from model import MAX_LENGTH, Address, normalise_recipient, parse_client, split_address

LISTS = (
    "deny_clients", "deny_senders", "deny_recipients",
    "allow_clients", "allow_senders", "allow_recipients",
    "opt_out", "opt_in",
)


class Client(NamedTuple):
    """A client as rules see it; the name is empty where there is none that is trusted."""

    address: Address
    name: bytes


class Mailbox(NamedTuple):
    """A sender or recipient as rules see it; the domain is None where there is no '@'."""

    whole: bytes
    local: bytes
    domain: bytes | None


ClientRule = Callable[[Client], bool]
MailboxRule = Callable[[Mailbox], bool]


def file_entries(text: bytes) -> list[str]:
    """Return the entries of a rule file: one a line, without comments and white space around it."""
    lines = [line.partition(b"#")[0].strip() for line in text.split(b"\n")]
    return [line.decode(errors="surrogateescape") for line in lines if line]


def read_client(text: bytes, name: bytes, trusted: bool) -> Client:
    """Return the client as rules see it, or raise ValueError."""
    name = name.lower().removesuffix(b".")
    return Client(parse_client(text), name if trusted and len(name) <= MAX_LENGTH else b"")


def read_mailbox(raw: bytes) -> Mailbox:
    """Return the sender or recipient as rules see it, or raise ValueError."""
    return Mailbox(normalise_recipient(raw), *split_address(raw))


def within(domain: bytes, parent: bytes) -> bool:
    """Tell whether a domain is that parent or one of its subdomains."""
    return domain == parent or domain.endswith(b"." + parent)


def regex(entry: bytes) -> re.Pattern[bytes]:
    """Compile a /regex/. What POSIX and Python read differently is not for this model."""
    return re.compile(entry[1:-1], re.IGNORECASE)


def glob(entry: bytes) -> re.Pattern[bytes]:
    """Compile a glob, in which '*' is any run of bytes and every other byte is itself."""
    return re.compile(b".*".join(re.escape(piece) for piece in entry.split(b"*")), re.DOTALL)


def network_of(entry: bytes) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the addresses that a client entry covers, or None for an entry on names."""
    if re.fullmatch(rb"[0-9.]+", entry):
        octets = entry.removesuffix(b".").split(b".")
        text = b".".join(octets + [b"0"] * (4 - len(octets)))
        return ipaddress.IPv4Network(f"{text.decode()}/{8 * len(octets)}")
    if b"/" not in entry and b":" not in entry:
        return None
    text, slash, length = entry.partition(b"/")
    address = parse_client(text)
    bits = address.max_prefixlen
    prefix = int(length) if slash else bits
    if address.version == 4 and b":" in text and slash:
        # An IPv4 address that was written as IPv6, its prefix counted from the start of the IPv6 address.
        prefix -= 128 - bits
    return ipaddress.ip_network((address, prefix), strict=False)


def client_rule(entry: bytes) -> ClientRule:
    """Read an entry of deny_clients or allow_clients."""
    if entry.startswith(b"/"):
        pattern = regex(entry)
        return lambda client: client.name != b"" and pattern.search(client.name) is not None
    network = network_of(entry)
    if network is None:
        host = entry.lower().removesuffix(b".")
        return lambda client: within(client.name, host)
    # The same as "client.address in network", some thousand entries a millisecond.
    version, first, last = network.version, int(network.network_address), int(network.broadcast_address)
    return lambda client: client.address.version == version and first <= int(client.address) <= last


def mailbox_rule(entry: bytes) -> MailboxRule:
    """Read an entry of any other list."""
    if entry.startswith(b"/"):
        pattern = regex(entry)
        return lambda mailbox: pattern.search(mailbox.whole) is not None
    entry = entry.lower()
    if b"*" in entry:
        pattern = glob(entry)
        return lambda mailbox: pattern.fullmatch(mailbox.whole) is not None
    user, _, domain = entry.rpartition(b"@")
    domain = domain.rstrip(b".")
    if not user:
        return lambda mailbox: mailbox.domain is not None and within(mailbox.domain, domain)
    extended = user + b"+"
    if not domain:
        return lambda mailbox: mailbox.local == user or mailbox.local.startswith(extended)
    return lambda mailbox: mailbox.domain == domain and (mailbox.local == user or mailbox.local.startswith(extended))


class Rules:
    """The eight lists."""

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        unknown = sorted(lists.keys() - set(LISTS))
        if unknown:
            raise TypeError(f"unknown lists: {', '.join(unknown)}")
        entries = {name: [entry.encode(errors="surrogateescape") for entry in lists.get(name, ())] for name in LISTS}
        self.deny_clients = [client_rule(entry) for entry in entries["deny_clients"]]
        self.deny_senders = [mailbox_rule(entry) for entry in entries["deny_senders"]]
        self.deny_recipients = [mailbox_rule(entry) for entry in entries["deny_recipients"]]
        self.allow_clients = [client_rule(entry) for entry in entries["allow_clients"]]
        self.allow_senders = [mailbox_rule(entry) for entry in entries["allow_senders"]]
        self.allow_recipients = [mailbox_rule(entry) for entry in entries["allow_recipients"]]
        self.opt_out = [mailbox_rule(entry) for entry in entries["opt_out"]]
        self.opt_in = [mailbox_rule(entry) for entry in entries["opt_in"]]

    def ruling(
        self, *, client: bytes, client_name: bytes, trusted: bool, sender: bytes, recipient: bytes
    ) -> str | None:
        """Return 'denied', 'allowed', 'opted-out' or None for a request as it was received, or raise ValueError."""
        host = read_client(client, client_name, trusted)
        origin = read_mailbox(sender)
        target = read_mailbox(recipient)

        if any(rule(host) for rule in self.deny_clients):
            return "denied"
        if any(rule(origin) for rule in self.deny_senders):
            return "denied"
        if any(rule(target) for rule in self.deny_recipients):
            return "denied"

        if any(rule(host) for rule in self.allow_clients):
            return "allowed"
        if any(rule(origin) for rule in self.allow_senders):
            return "allowed"
        if any(rule(target) for rule in self.allow_recipients):
            return "allowed"

        if any(rule(target) for rule in self.opt_out):
            return "opted-out"
        if self.opt_in and not any(rule(target) for rule in self.opt_in):
            return "opted-out"
        return None

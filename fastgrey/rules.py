"""Rules: the entries of the eight lists, what each means, and files of them."""

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import NamedTuple

from . import regex
from .errors import PolicyError

# The order is part of the compiled policy (docs/format.md): of deny and allow each clients, senders, recipients.
LISTS = {
    "deny_clients": "clients that are rejected",
    "deny_senders": "senders that are rejected",
    "deny_recipients": "recipients that are rejected",
    "allow_clients": "clients that are never greylisted",
    "allow_senders": "senders that are never greylisted",
    "allow_recipients": "recipients for whom nothing is greylisted",
    "opt_out": "recipients who do not want greylisting",
    "opt_in": "the only recipients who want greylisting; with none, all do",
}
NUMBERS = {name: number for number, name in enumerate(LISTS)}
LONGEST = 1000
LARGEST_FILE = 64 << 20

CLIENT_ENTRIES = "an IP address, a network such as 192.0.2.0/24 or 10.20, a host name, or /regex/"
ADDRESS_ENTRIES = "user@domain, user@, domain, @domain, a glob such as *%*, or /regex/"
HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
DOMAIN = re.compile(r"[^][\s@/*<>(),;:\"\\.]+(\.[^][\s@/*<>(),;:\"\\.]+)*|\[[0-9a-f.:]+\]")


@dataclass(frozen=True)
class Rule:
    """One entry of a list, and where it was written."""

    list: str
    entry: str
    file: str
    line: int

    @property
    def place(self) -> str:
        """FILE:LINE."""
        return f"{self.file}:{self.line}"

    def facts(self) -> dict[str, str]:
        """The rule for JSON."""
        return {"list": self.list, "entry": self.entry, "place": self.place}


class Form(NamedTuple):
    """What an entry is looked up by. kind: 'ipv4', 'ipv6' (text: one byte of prefix length, then the packed address),
    'name', 'address', 'user', 'domain', 'glob' or 'regex' (literal: what each match contains)."""

    kind: str
    text: bytes
    literal: bytes = b""


def parse(rule: Rule) -> Form:
    """What the entry means; PolicyError where it means nothing."""
    try:
        if len(rule.entry.encode("utf-8", "surrogateescape")) > LONGEST:
            raise ValueError(f"longer than {LONGEST} bytes")
        if any(character < " " or character == "\x7f" for character in rule.entry):
            raise ValueError("it holds a control character")
        return _parse_client(rule.entry) if rule.list.endswith("clients") else _parse_address(rule.entry)
    except ValueError as error:
        shown = rule.entry if len(rule.entry) <= 60 else rule.entry[:57] + "..."
        raise PolicyError(f"{rule.place}: {rule.list}: {shown!a}: {error}") from None


def read_file(list_name: str, path: str) -> list[Rule]:
    """The rules of a file: one entry a line, the rest of a line after # is comment. Raises PolicyError."""
    try:
        size = os.stat(path).st_size
        if size > LARGEST_FILE:
            raise PolicyError(f"{path}: {list_name}: larger than {LARGEST_FILE >> 20} MiB; is this a list of rules?")
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise PolicyError(f"{path}: {list_name}: {error.strerror}; name a file of rules that this user may read"
                          ) from None
    rules = []
    for number, line in enumerate(content.split(b"\n"), 1):
        entry = line.partition(b"#")[0].strip(b" \t\r\v\f").decode("utf-8", "surrogateescape")
        if entry:
            rules.append(Rule(list_name, entry, path, number))
    return rules


def _parse_regex(entry: str) -> Form | None:
    if not entry.startswith("/"):
        return None
    if len(entry) < 2 or not entry.endswith("/"):
        raise ValueError("a regular expression without its closing /; in a file, what follows # is comment")
    try:
        compiled = regex.compile(entry[1:-1])
    except ValueError as error:
        raise ValueError(f"bad regular expression: {error}") from None
    return Form("regex", compiled.pattern, compiled.literal)


def _lower(text: str) -> str:
    """ASCII letters in lower case, all else as it is, as addresses are normalised."""
    return text.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _parse_client(entry: str) -> Form:
    form = _parse_regex(entry)
    if form:
        return form
    if ":" in entry or re.fullmatch(r"[0-9./]+", entry):
        return _parse_network(entry)
    name = _lower(entry).removesuffix(".")
    if "*" in name:
        raise ValueError("clients have no globs; a host name covers its subdomains, or write a /regex/")
    if not HOST.fullmatch(name):
        raise ValueError(f"expected {CLIENT_ENTRIES}")
    return Form("name", _bytes(name))


def _parse_network(entry: str) -> Form:
    partial = re.fullmatch(r"([0-9]+(?:\.[0-9]+){0,2})\.?", entry)
    try:
        if partial:
            octets = partial[1].split(".")
            network: ipaddress.IPv4Network | ipaddress.IPv6Network = ipaddress.ip_network(
                f"{'.'.join(octets + ['0'] * (4 - len(octets)))}/{8 * len(octets)}", strict=False)
        elif re.search(r"/(?![0-9]{1,3}$)", entry):
            raise ValueError("expected a number of bits after the /")
        else:
            network = ipaddress.ip_network(entry, strict=False)
    except ValueError as error:
        raise ValueError(f"no IP address or network ({error}); expected {CLIENT_ENTRIES}") from None
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is None or network.prefixlen < 96:
            return Form("ipv6", bytes([network.prefixlen]) + network.network_address.packed)
        return Form("ipv4", bytes([network.prefixlen - 96]) + mapped.packed)
    return Form("ipv4", bytes([network.prefixlen]) + network.network_address.packed)


def _parse_address(entry: str) -> Form:
    form = _parse_regex(entry)
    if form:
        return form
    text = _lower(entry)
    if re.search(r"\s", text):
        raise ValueError(f"it holds white space; expected {ADDRESS_ENTRIES}")
    if text.startswith("<") and text.endswith(">"):
        raise ValueError("write addresses without < and >; for the null sender there is the setting null_sender")
    if "*" in text:
        return Form("glob", _bytes(text))
    user, at, domain = text.rpartition("@")
    domain = domain.rstrip(".")
    if (domain or not user) and not DOMAIN.fullmatch(domain):
        raise ValueError(f"expected {ADDRESS_ENTRIES}")
    if not domain:
        return Form("user", _bytes(user))
    return Form("address", _bytes(f"{user}@{domain}")) if user else Form("domain", _bytes(domain))

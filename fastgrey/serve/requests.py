"""Requests as they come and replies as they go: Postfix's policy protocol, the hook's exchange, the plain line."""

from typing import NamedTuple

from fastgrey.verdict import Verdict

from .options import Options

REQUEST_MAX = 65536


class Broken(Exception):
    """What came is no request; the text says what is wrong."""


class Asked(NamedTuple):
    """One request. kind: 'postfix', 'hook' or 'plain'."""

    kind: str
    attributes: dict[bytes, bytes]


def take(data: bytes) -> tuple[Asked | None, int]:
    """The first request in data and its size; None and 0 where it is not complete yet. Raises Broken."""
    if data.startswith(b"check\t"):
        end = data.find(b"\n")
        if end >= 0:
            return _plain(data[:end]), end + 1
    else:
        end = data.find(b"\n\n")
        if end >= 0:
            return _attributes(data[:end]), end + 2
        first = data.find(b"\n")
        if first >= 0 and b"=" not in data[:first]:
            raise Broken("a line without '='")
    if len(data) > REQUEST_MAX:
        raise Broken(f"longer than {REQUEST_MAX} bytes")
    return None, 0


def _plain(line: bytes) -> Asked:
    parts = line.rstrip(b"\r").split(b"\t")[1:]
    if not 3 <= len(parts) <= 4:
        raise Broken("not CLIENT, SENDER, RECIPIENT and a name at most")
    return Asked("plain", dict(zip((b"client_address", b"sender", b"recipient", b"client_name"), parts)))


def _attributes(text: bytes) -> Asked:
    found: dict[bytes, bytes] = {}
    for line in text.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if not equals:
            raise Broken("a line without '='")
        found.setdefault(name, value)
    kinds = {b"smtpd_access_policy": "postfix", b"fastgrey": "hook"}
    if found.get(b"request") not in kinds:
        raise Broken("no request=smtpd_access_policy")
    return Asked(kinds[found[b"request"]], found)


def reply(kind: str, verdict: Verdict, options: Options) -> bytes:
    """The verdict in the words of who asked."""
    if kind == "hook":
        return _hook_reply(verdict)
    if verdict.action == "reject":
        text = options.reject_text
    elif verdict.action == "defer" and verdict.cause:
        text = "greylisting is out of order, please try again later"
    else:
        text = options.defer_text.replace("{seconds}", str(verdict.wait))
    if kind == "plain":
        said = text if verdict.action != "accept" else ""
        return f"{verdict.action} {verdict.reason} {verdict.wait} {said}".rstrip().encode() + b"\n"
    action = {"accept": "DUNNO", "defer": f"DEFER_IF_PERMIT {text}", "reject": f"550 5.7.1 {text}"}[verdict.action]
    return f"action={action}\n\n".encode()


def _hook_reply(verdict: Verdict) -> bytes:
    lines = [f"verdict={verdict.action} {verdict.reason} {verdict.wait}"]
    lines += [f"{name}={value}" for name in ("key", "rule", "cause") if (value := getattr(verdict, name))]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")

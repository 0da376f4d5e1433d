"""What the server is told: the table [serve] of the configuration, described and checked like the settings.

Nothing of it is in the store: only fastgrey serve reads it, when it starts and at SIGHUP.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from fastgrey.errors import ServeError, SettingsError
from fastgrey.settings import OWN, YEAR, Setting
from fastgrey.shared.engine import NAMESPACE

from . import addresses

SOCKET = "serve.sock"
SECONDS = "{seconds}"
# As core/policy_reply.pxi and core/trace.pxi have room for.
TEXT_MAX = 400
HEADER_NAME_MAX = 60
WORKERS_MAX = 256


@dataclass(frozen=True)
class Option:
    """One option. kind is that of a setting, 'text' or 'list' (of texts). read gives the value from what TOML has;
    SettingsError says what is wrong with it."""

    name: str
    kind: str
    default: str
    allowed: str
    meaning: str
    source: str
    unit: str
    read: Callable[[Any], Any]


def _of_setting(setting: Setting) -> Option:
    def read(value: Any) -> Any:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        number = setting.parse(text)
        if setting.kind == "choice":
            return setting.choices[number]
        return bool(number) if setting.kind == "flag" else number

    return Option(setting.name, setting.kind, setting.default, setting.range(), setting.meaning, setting.source,
                  setting.unit, read)


def _text(name: str, default: str, meaning: str, source: str, allowed: str, check: Callable[[str], bool]) -> Option:
    def read(value: str) -> str:
        if not check(value):
            raise SettingsError(f"{name} = {value!r}: expected {allowed}")
        return value

    return Option(name, "text", default, allowed, meaning, source, "", read)


def _is_said(text: str) -> bool:
    """What may stand in a reply: RFC 5321 section 4.2."""
    return 0 < len(text) <= TEXT_MAX and text.isascii() and text.isprintable()


def _is_header(text: str) -> bool:
    """RFC 5322 section 3.6.8."""
    return not text or len(text) <= HEADER_NAME_MAX and re.fullmatch(r"[!-9;-~]+", text) is not None


def _is_place(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return not text or bool(host and colon and re.fullmatch("[0-9]{1,5}", port)) and int(port) < 65536


def _is_engine(text: str) -> bool:
    return not text or re.match(r"[a-z]+(\+[a-z]+)?://.", text) is not None


def _is_path(text: str) -> bool:
    return "\0" not in text


def _addresses(value: list[str]) -> tuple[str, ...]:
    for text in value:
        try:
            addresses.parse(text)
        except ServeError as error:
            raise SettingsError(f"listen: {error}") from None
    return tuple(value)


POSTFIX = "Postfix's SMTPD_POLICY_README"
SAID = f"1 to {TEXT_MAX} printable ASCII characters"
OPTIONS = (
    Option("listen", "list", "[]", "unix:PATH, tcp:HOST:PORT, udp:HOST:PORT",
           "where to listen, beside STORE/serve.sock for hooks: Postfix and Exim ask over unix or tcp, IndiMail over "
           "udp",
           OWN, "", _addresses),
    _of_setting(Setting("workers", "count", "0", "processes that answer, 0 for one a processor", OWN, 0, WORKERS_MAX,
                        unit="processes")),
    _of_setting(Setting("max_connections", "count", "10000",
                        "connections at once; further ones wait to be taken in", OWN, 1, 1_000_000,
                        unit="connections")),
    _of_setting(Setting("idle", "duration", "10m", "a connection over which nothing comes for so long is closed; "
                        "Postfix closes its own after 5m", POSTFIX, 1, YEAR)),
    _text("defer_text", "greylisted, please try again in {seconds} seconds",
          f"what a deferred client is told; {SECONDS} stands for what is left of the delay", "RFC 6647 section 5", SAID,
          _is_said),
    _text("reject_text", "sorry, your mail is not wanted here", "what a client is told that a deny rule matches",
          OWN, SAID, _is_said),
    _text("trace", "X-Greylist", "header that tells in a message that it was delayed; empty for none", "postgrey",
          "a header name, or empty", _is_header),
    _of_setting(Setting("first_recipient", "flag", "false", "decide only the first recipient of a message over "
                        "Postfix's protocol; the others get the same answer", "RFC 6647 section 2.4")),
    _of_setting(Setting("log", "choice", "text", "how decisions are logged", OWN, choices=("text", "json"))),
    _text("metrics", "", "where to answer what Prometheus asks; empty for nowhere", OWN, "HOST:PORT, or empty",
          _is_place),
    _text("engine", "", "what holds the records that machines share; empty: the store itself",
          "RFC 6647 section 5(4)", "valkey://…, valkey+cluster://…, valkey+sentinel://…, postgresql://…, or empty",
          _is_engine),
    _text("name", "fastgrey", "name space in the engine, so that several stores may share it", OWN,
          "1 to 40 of a-z, 0-9 and _, no digit first", lambda text: NAMESPACE.fullmatch(text) is not None),
    _text("password_file", "", "file with the password for the engine", OWN, "a path, or empty", _is_path),
    _of_setting(Setting("fallback", "choice", "local", "what decides while the engine is away: this machine's own "
                        "records, or on_error", OWN, choices=("local", "on_error"))),
    _of_setting(Setting("timeout", "duration", "1s", "how long to wait for the engine", OWN, 1, 60)),
)
BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True)
class Options:
    """The options as they are used, times in seconds."""

    listen: tuple[str, ...] = ()
    workers: int = 0
    max_connections: int = 10_000
    idle: int = 600
    defer_text: str = BY_NAME["defer_text"].default
    reject_text: str = BY_NAME["reject_text"].default
    trace: str = BY_NAME["trace"].default
    first_recipient: bool = False
    log: str = "text"
    metrics: str = ""
    engine: str = ""
    name: str = BY_NAME["name"].default
    password_file: str = ""
    fallback: str = "local"
    timeout: int = 1

    @property
    def processes(self) -> int:
        """Workers to run: one a processor where no number is given."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def share(self) -> int:
        """Connections that each worker may have."""
        return -(-self.max_connections // self.processes)

    def wording(self) -> dict[str, Any]:
        """Texts as Connections takes them."""
        before, seconds, after = self.defer_text.partition(SECONDS)
        return {"defer_text": (before.encode(), after.encode() if seconds else None),
                "reject_text": self.reject_text.encode(), "trace": self.trace.encode()}

    def shown(self) -> dict[str, str]:
        """The options as an administrator writes them."""
        return {field.name: _shown(field.name, getattr(self, field.name)) for field in fields(self)}


def _shown(name: str, value: Any) -> str:
    kind = BY_NAME[name].kind
    if kind == "duration":
        return Setting(name, kind, "", "", "").show(value)
    if kind == "flag":
        return "true" if value else "false"
    return ", ".join(value) if kind == "list" else str(value)

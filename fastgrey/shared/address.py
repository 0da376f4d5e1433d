"""Where an engine is, as a URL says it."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from fastgrey.errors import EngineError


@dataclass(frozen=True)
class Address:
    """The parts of a URL such as valkey+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/PATH?NAME=VALUE.

    hosts: names or addresses, an IPv6 address without its brackets, each with its port. path: without the slash before
    it. options: what stands behind the question mark.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    path: str
    user: str | None
    password: str | None
    options: dict[str, str]

    @property
    def name(self) -> str:
        """The URL for people: without the password, and without what leads to none."""
        user = f"{self.user}@" if self.user else ""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{user}{hosts}{'/' if self.path else ''}{self.path}"


def parse(url: str, port: int) -> Address:
    """The parts of a URL; port: of a host without one. Raises EngineError, which shows nothing of a password."""
    scheme, _, rest = url.partition("://")
    try:
        parts = urlsplit(f"//{rest}")
    except ValueError:
        # What it says may hold all of it.
        raise EngineError(f"the URL of the engine, {scheme}://…, cannot be read; write {scheme}://HOST:{port}") from None
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        # A password that ends the hosts too early; what is taken for a host or a path is a part of it.
        raise EngineError(f"the URL of the engine, {scheme}://…, has an @ behind its hosts; write / ? and # in a "
                          "password as %2F %3F and %23, or name a password_file")
    login, at, hosts = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    return Address(
        scheme, tuple(_host(scheme, host, port) for host in hosts.split(",")), unquote(parts.path.strip("/")),
        unquote(user) or None if at else None, unquote(password) if colon else None, dict(parse_qsl(parts.query)),
    )


def _host(scheme: str, text: str, port: int) -> tuple[str, int]:
    host, colon, digits = text.rpartition(":")
    # An IPv6 address has colons of its own.
    if not colon or digits.endswith("]"):
        host, digits = text, str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not digits.isdecimal() or not 0 < int(digits[:6]) < 65536:
        raise EngineError(f"the URL of the engine, {scheme}://…: {text!r} is no HOST:PORT; write {scheme}://HOST:{port}")
    return host, int(digits)


def read_password(file: str) -> str:
    """The password that a file holds, in one line. Raises EngineError."""
    try:
        text = Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise EngineError(f"cannot read the password of the engine in {file}: {why}; put it there, in one line, "
                          "readable for the user of fastgrey serve") from None
    lines = text.splitlines()
    if len(lines) != 1 or not lines[0]:
        raise EngineError(f"the password of the engine in {file} is {len(lines)} lines; it must be one")
    return lines[0]

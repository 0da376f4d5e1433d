"""Expectation windows: for a while, mail to one recipient is not greylisted, as for a login code that will not wait."""

import time
from typing import TypedDict

from . import _core, settings, times
from .errors import SettingsError


class Window(TypedDict):
    """A window. key: 32 hex digits; opened, until: Unix seconds; narrow: for one sender domain only."""

    key: str
    opened: int
    until: int
    narrow: bool


def open_window(store: _core.Store, recipient: str, domain: str | None, duration: str,
                dry_run: bool = False) -> Window:
    """Open a window from now on, or change when an open one closes.

    domain: sender domain, subdomains included; None for any sender. duration: such as '15m', at most the setting
    expect_max. Raises SettingsError.
    """
    longest = settings.by_name(store.head()["settings"])["expect_max"]
    span = settings.Setting("--for", "duration", "", "", "", 1, settings.YEAR).parse(duration)
    if span > longest:
        raise SettingsError(f"--for {duration}: a window may be open for {times.span(longest)} at most (expect_max); "
                            "choose a shorter one, or raise expect_max in the configuration, then: fastgrey apply")
    now = int(time.time())
    _check(recipient, domain)
    if dry_run:
        found = _core.find_window(store, recipient, domain)
        return Window(key=found["key"] if found else "", opened=now, until=now + span, narrow=domain is not None)
    return _core.open_window(store, recipient, domain, now, now + span)


def close_window(store: _core.Store, recipient: str, domain: str | None, dry_run: bool = False) -> Window:
    """Close a window before its time; what it was. Raises SettingsError where none is open."""
    _check(recipient, domain)
    found = _core.find_window(store, recipient, domain)
    if found is None or found["until"] < time.time():
        whom = f"{recipient} from {domain}" if domain else recipient
        raise SettingsError(f"no window is open for {whom}; they are listed by: fastgrey expect --list")
    if not dry_run:
        _core.close_window(store, found["key"])
    return found


def close_by_key(store: _core.Store, key: str, dry_run: bool = False) -> Window:
    """Close the open window whose key begins so; what it was. Raises SettingsError where there is not exactly one."""
    found = [window for window in listing(store) if window["key"].startswith(key.lower())]
    if len(found) != 1 or not key:
        raise SettingsError(f"--key {key}: {len(found)} open windows have such a key; they are listed by: "
                            "fastgrey expect --list")
    if not dry_run:
        _core.close_window(store, found[0]["key"])
    return found[0]


def listing(store: _core.Store) -> list[Window]:
    """The windows that are open, the next to close first."""
    now = time.time()
    return [window for window in _core.windows(store) if window["until"] >= now]


def facts(window: Window) -> dict[str, object]:
    """A window for JSON; times are UTC (RFC 3339)."""
    return {"key": window["key"], "opened": times.rfc3339(window["opened"]), "until": times.rfc3339(window["until"]),
            "one_domain": window["narrow"]}


def _check(recipient: str, domain: str | None) -> None:
    try:
        plain = _core.normalise_recipient(recipient)
        sender = _core.normalise_recipient("@" + domain.removeprefix("@")) if domain is not None else b"@x"
    except ValueError as error:
        raise SettingsError(f"{error}; write it as it comes in the envelope") from None
    if not plain:
        raise SettingsError("the recipient is empty; name the address that the mail is for")
    if len(sender) < 2 or sender.count(b"@") != 1:
        raise SettingsError(f"--from {domain!a}: expected a domain such as example.org")

"""The settings: names, units, ranges, defaults, meaning and source. All that is shown or checked comes from here."""

import re
from dataclasses import dataclass

from .errors import SettingsError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
SIZES = {"k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Python refuses to read a number of thousands of digits.
DIGITS = "[0-9]{1,20}"
DURATION = re.compile(rf"(?:{DIGITS}[smhdw])+|{DIGITS}")
YEAR = 365 * UNITS["d"]
# What a size that goes by the disk is until a store is named; fastgrey/disk.py says what it comes to there.
BY_DISK = 0


@dataclass(frozen=True)
class Setting:
    """One setting. kind is 'duration' (stored in seconds), 'count', 'size' (bytes), 'flag' or 'choice'."""

    name: str
    kind: str
    default: str
    meaning: str
    # Where the rule or the number comes from.
    source: str
    least: int = 0
    most: int = 0
    choices: tuple[str, ...] = ()
    unit: str = ""
    # May be 'disk', for BY_DISK.
    by_disk: bool = False

    def parse(self, text: str) -> int:
        """The stored number for text; SettingsError where it is none of this kind or out of range."""
        number: int | None = getattr(self, f"_parse_{self.kind}")(text)
        if number is None:
            raise SettingsError(f"{self.name} = {text!r}: expected {self.expected()}")
        if self.by_disk and text == "disk":
            return number
        if self.kind not in ("flag", "choice") and not self.least <= number <= self.most:
            raise SettingsError(
                f"{self.name} = {text!r}: out of range, expected {self.show(self.least)} to {self.show(self.most)}"
            )
        return number

    def show(self, number: int) -> str:
        """The stored number as an administrator writes it."""
        if self.kind == "duration":
            return _show_units(number, UNITS, "s")
        if self.kind == "size":
            return "disk" if self.by_disk and number == BY_DISK else _show_units(number, SIZES, "")
        if self.kind == "flag":
            return "true" if number else "false"
        return self.choices[number] if self.kind == "choice" else str(number)

    def range(self) -> str:
        """The values that are allowed, for people."""
        if self.kind == "choice":
            return " or ".join(self.choices)
        if self.kind == "flag":
            return "true or false"
        return f"{self.show(self.least)} to {self.show(self.most)}{', or disk' if self.by_disk else ''}"

    def expected(self) -> str:
        """What a value of this setting looks like."""
        return {
            "duration": "a duration such as 300 (seconds), 5m, 2d or 1h30m",
            "size": f"a size in bytes such as 64M or 1G{', or disk' if self.by_disk else ''}",
            "count": "a whole number",
            "flag": "true or false",
            "choice": " or ".join(self.choices),
        }[self.kind]

    def _parse_duration(self, text: str) -> int | None:
        if not DURATION.fullmatch(text):
            return None
        return sum(int(number) * UNITS.get(unit, 1) for number, unit in re.findall(r"([0-9]+)([smhdw]?)", text))

    def _parse_size(self, text: str) -> int | None:
        if self.by_disk and text == "disk":
            return BY_DISK
        match = re.fullmatch(rf"({DIGITS})([kMGT]?)", text)
        return int(match[1]) * SIZES.get(match[2], 1) if match else None

    def _parse_count(self, text: str) -> int | None:
        return int(text) if re.fullmatch(DIGITS, text) else None

    def _parse_flag(self, text: str) -> int | None:
        return {"true": 1, "false": 0}.get(text)

    def _parse_choice(self, text: str) -> int | None:
        return self.choices.index(text) if text in self.choices else None


def _show_units(number: int, units: dict[str, int], base: str) -> str:
    for unit, size in sorted(units.items(), key=lambda item: -item[1]):
        if number and number % size == 0:
            return f"{number // size}{unit}"
    return f"{number}{base}"


# The order is that of the stored record (docs/format.md). Ranges are wide on purpose: what is unwise is said by
# `fastgrey doctor`, only what cannot work is refused.
RFC = "RFC 6647 section "
OWN = "fastgrey"
SETTINGS = (
    Setting("delay", "duration", "5m", "a triplet younger than this is deferred", RFC + "5(2): 1 minute to 24 hours",
            0, YEAR),
    Setting("retry_window", "duration", "2d", "a retry later than this counts as new", RFC + "5(2)", 1, YEAR),
    Setting("lifetime", "duration", "36d", "how long an idle known record stays known", "Harris 2003: 36 days",
            1, 10 * YEAR),
    Setting("refresh", "duration", "1d", "a last-seen time is rewritten at most this often", OWN, 0, 10 * YEAR),
    Setting("ipv4_prefix", "count", "24", "bits of an IPv4 address that make a network", RFC + "5(5)", 0, 32,
            unit="bits"),
    Setting("ipv6_prefix", "count", "64", "bits of an IPv6 address that make a network", RFC + "7", 0, 128,
            unit="bits"),
    Setting("allow_client_after", "count", "5", "promotions after which all mail of a client passes, 0 for never",
            RFC + "5(1), which would say 1", 0, 1_000_000, unit="promotions"),
    Setting("allow_domain_after", "count", "1",
            "promotions after which all mail of a sender domain from a network passes, 0 for never", OWN, 0, 1_000_000,
            unit="promotions"),
    Setting("pool_hops", "count", "3", "a sender that retries from ever new networks passes at this one, 0 for never",
            OWN, 0, 1_000_000, unit="networks"),
    Setting("pool_window", "duration", "4h", "time within which those hops must fall", OWN, 0, YEAR),
    Setting("trust_client_name", "flag", "false", "the client name is forward-confirmed, as by tcpserver -p",
            RFC + "5(5)"),
    Setting("null_sender", "choice", "greylist", "what becomes of the null sender", "RFC 5321 section 4.5.5",
            choices=("greylist", "accept")),
    Setting("mode", "choice", "enforce", "learn records everything and accepts everything", OWN,
            choices=("enforce", "learn")),
    Setting("on_error", "choice", "accept", "the verdict when no decision can be made", OWN,
            choices=("accept", "defer")),
    Setting("pending_size", "size", "disk",
            "bytes that triplets waiting to pass may take on disk; disk: a 32nd of the store's file system, rounded "
            "down to a power of two, 16M to 4G", OWN, 4 << 20, 1 << 42, by_disk=True),
    Setting("expect_max", "duration", "1h", "the longest expectation window that may be opened", OWN, 1, YEAR),
    Setting("shared", "flag", "false", "records are shared with other machines: hooks ask fastgrey serve, which knows "
            "where they are", RFC + "5(4)"),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


def defaults() -> dict[str, int]:
    """The stored number of every setting as a new store has it, but for what goes by its disk."""
    return {setting.name: setting.parse(setting.default) for setting in SETTINGS}


def by_name(slots: list[int]) -> dict[str, int]:
    """The settings by name from their stored numbers by slot, as a store gives them."""
    return dict(zip(BY_NAME, slots, strict=True))


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, int]:
    """Read NAME=VALUE texts; SettingsError names the first that is wrong."""
    values = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(f"{assignment!r}: expected NAME=VALUE, such as delay=5m")
        if name.strip() not in BY_NAME:
            raise SettingsError(f"{name.strip()!r}: no such setting; there are {', '.join(BY_NAME)}")
        values[name.strip()] = BY_NAME[name.strip()].parse(text.strip())
    return values


def show(values: dict[str, int]) -> dict[str, str]:
    """The settings as an administrator writes them."""
    return {name: BY_NAME[name].show(number) for name, number in values.items()}


def doubts(values: dict[str, int]) -> list[str]:
    """Combinations that are allowed and hardly meant, a line each."""
    found = []
    if values["retry_window"] < values["delay"]:
        found.append("retry_window is shorter than delay: no retry can ever pass")
    if values["refresh"] >= values["lifetime"]:
        found.append("refresh is not shorter than lifetime: known senders expire however often they write")
    if values["delay"] > UNITS["d"]:
        found.append("delay is longer than the 24 hours of RFC 6647 section 5(2): many senders will have given up")
    return found

"""Configuration: fastgrey.toml and the files of conf.d beside it, read, checked, and refused whole where need be.

Every option is at the top level: the settings, and the rule lists as arrays of entries or of files of them:

    delay = "10m"
    deny_senders = ["*%*"]
    allow_clients = ["192.0.2.0/24", { file = "whitelist_clients" }]

What fastgrey serve is told beside stands in the table [serve] (fastgrey/serve/options.py).

conf.d is read in the order of its names. A setting given again replaces the one before, lists add up. Names of files
are relative to the file that names them.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from . import rules as rules_, settings as settings_
from .errors import FastgreyError, PolicyError
from .policy import Policy
from .rules import LISTS, Rule
from .serve import options as serve_
from .settings import Setting

DEFAULT = "/etc/fastgrey/fastgrey.toml"


class RuleFile(msgspec.Struct, forbid_unknown_fields=True):
    """A file of rules in the place of an entry."""

    file: str


def _kind(option: Setting | serve_.Option) -> Any:
    if isinstance(option, Setting) and option.kind == "choice":
        return Literal[option.choices]
    return {"duration": int | str, "size": int | str, "count": int, "flag": bool, "choice": str, "text": str,
            "list": list[str]}[option.kind]


# What a file may hold, from the same definitions that describe and validate it.
Serve = msgspec.defstruct(
    "Serve",
    [(option.name, _kind(option) | msgspec.UnsetType, msgspec.UNSET) for option in serve_.OPTIONS],
    forbid_unknown_fields=True,
)
Options = msgspec.defstruct(
    "Options",
    [*((setting.name, _kind(setting) | msgspec.UnsetType, msgspec.UNSET) for setting in settings_.SETTINGS),
     *((name, list[str | RuleFile], msgspec.field(default_factory=list)) for name in LISTS),
     ("serve", Serve, msgspec.field(default_factory=Serve))],
    forbid_unknown_fields=True,
)
EXPECTED = {setting.name: setting.expected() for setting in settings_.SETTINGS} | {
    name: 'an array of entries and of { file = "NAME" }' for name in LISTS} | {
    "serve": "a table, as in: [serve]"}
EXPECTED_SERVE = {option.name: "an array of texts" if option.kind == "list" else f"a {option.kind}: {option.allowed}"
                  for option in serve_.OPTIONS}


@dataclass(frozen=True)
class Configuration:
    """What the files say. origins: FILE:LINE of every setting that they name, and as serve.NAME of every option of
    [serve]."""

    policy: Policy
    origins: dict[str, str]
    serve: serve_.Options = serve_.Options()


def default_path() -> str:
    """The main file where none is named: FASTGREY_CONFIG, else /etc/fastgrey/fastgrey.toml."""
    return os.environ.get("FASTGREY_CONFIG") or DEFAULT


def load(path: str | None = None) -> Configuration:
    """Read and check the main file (default: FASTGREY_CONFIG, else /etc/fastgrey/fastgrey.toml) and its conf.d.

    Raises PolicyError, naming file, line and what was expected, at the first thing that is wrong.
    """
    sources = _sources(path)
    values = settings_.defaults()
    origins: dict[str, str] = {}
    found: list[Rule] = []
    for source in sources:
        for setting, number, place in source.settings():
            values[setting.name] = number
            origins[setting.name] = place
        found += source.rules()
    # In the order of the lists, whatever the order of the files.
    ordered = tuple(sorted(found, key=lambda rule: rules_.NUMBERS[rule.list]))
    files = dict.fromkeys([*(str(source.path) for source in sources), *(rule.file for rule in ordered)])
    policy = Policy(values, ordered, tuple(files))
    # Compiling is what checks the rules, and applying wants it done.
    _ = policy.record
    served, serve_origins = _serve(sources)
    return Configuration(policy, origins | serve_origins, served)


def load_serve(path: str | None = None) -> serve_.Options:
    """The table [serve] alone; rules and their files are not looked at. Raises PolicyError."""
    return _serve(_sources(path))[0]


def _sources(path: str | None) -> list["_Source"]:
    main = Path(path or default_path()).absolute()
    return [_Source(main), *(_Source(name) for name in _drop_ins(main.parent / "conf.d"))]


def _serve(sources: list["_Source"]) -> tuple[serve_.Options, dict[str, str]]:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source in sources:
        for option, value, place in source.serve():
            values[option.name] = (*values.get(option.name, ()), *value) if option.kind == "list" else value
            origins[f"serve.{option.name}"] = place
    return serve_.Options(**values), origins


def _drop_ins(folder: Path) -> list[Path]:
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(".toml"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PolicyError(f"{folder}: {error.strerror}; make it a directory that this user may read") from None


class _Source:
    """One TOML file."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.text = path.read_text(encoding="utf-8")
            self.table = tomllib.loads(self.text)
        except OSError as error:
            raise PolicyError(f"{path}: {error.strerror}; make one with: fastgrey config describe --toml, or name "
                              "another with --config or FASTGREY_CONFIG") from None
        except UnicodeDecodeError as error:
            line = path.read_bytes()[:error.start].count(b"\n") + 1
            raise PolicyError(f"{path}:{line}: not UTF-8; TOML is") from None
        except tomllib.TOMLDecodeError as error:
            match = re.fullmatch(r"(.*) \(at line ([0-9]+), column ([0-9]+)\)", str(error))
            line = int(match[2]) if match else self.text.rstrip("\n").count("\n") + 1
            what = f"{match[1]} (column {match[3]})" if match else str(error)
            raise PolicyError(f"{path}:{line}: no valid TOML: {what}") from None
        except RecursionError:
            raise PolicyError(f"{path}: no usable TOML: arrays or tables nested hundreds deep; no option has any"
                              ) from None
        except ValueError:
            # Not of TOML, but of Python: it reads no number of thousands of digits.
            raise PolicyError(f"{path}: no usable TOML: a number of thousands of digits; no option has so many"
                              ) from None
        self.lines = self.text.split("\n")
        try:
            self.options: Any = msgspec.convert(self.table, Options)
        except msgspec.ValidationError as error:
            raise self._refusal(str(error)) from None

    def _refusal(self, text: str) -> PolicyError:
        """What msgspec has against the table, in the words of an administrator."""
        served = self.table.get("serve")
        for prefix, table, known in (("", self.table, EXPECTED),
                                     ("serve.", served if isinstance(served, dict) else {}, EXPECTED_SERVE)):
            for name in table:
                if name not in known:
                    close = difflib.get_close_matches(name, known, 1)
                    hint = f"; did you mean {close[0]}?" if close else "; fastgrey config describe lists them"
                    return PolicyError(f"{self.path}:{self.line(name)}: {prefix}{name}: no such option{hint}")
        match = re.search(r"`\$\.(?:serve\.)?([a-z_0-9]+)((?:\[[0-9]+\])?)", text)
        name = match[1] if match else ""
        place = f"{name}{match[2]}" if match else "?"
        got = re.search(r"got `(\w+)`", text)
        what = f"got {got[1]}" if got else text[0].lower() + text[1:].partition(" - at")[0]
        expected = (EXPECTED | EXPECTED_SERVE).get(name, "another value")
        return PolicyError(f"{self.path}:{self.line(name)}: {place}: expected {expected}; {what.replace('`', '')}")

    def line(self, name: str) -> int:
        """The line on which an option is set; tomllib does not say."""
        pattern = re.compile(rf"\s*(?:{re.escape(name)}|[\"']{re.escape(name)}[\"'])\s*[=.]|\s*\[+\s*{re.escape(name)}")
        return next((number for number, line in enumerate(self.lines, 1) if pattern.match(line)), 1)

    def settings(self) -> Iterator[tuple[Setting, int, str]]:
        """Each setting of the file with its stored number and FILE:LINE."""
        for setting in settings_.SETTINGS:
            value = getattr(self.options, setting.name)
            if value is msgspec.UNSET:
                continue
            place = f"{self.path}:{self.line(setting.name)}"
            try:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                yield setting, setting.parse(text), place
            except FastgreyError as error:
                raise PolicyError(f"{place}: {error}") from None

    def serve(self) -> Iterator[tuple[serve_.Option, Any, str]]:
        """Each option of [serve] with its value and FILE:LINE."""
        for option in serve_.OPTIONS:
            value = getattr(self.options.serve, option.name)
            if value is msgspec.UNSET:
                continue
            place = f"{self.path}:{self.line(option.name)}"
            try:
                yield option, option.read(value), place
            except FastgreyError as error:
                raise PolicyError(f"{place}: serve.{error}") from None

    def rules(self) -> list[Rule]:
        """Every rule of the file and of those it names."""
        found = []
        for name in LISTS:
            line = self.line(name)
            for entry in getattr(self.options, name):
                if isinstance(entry, RuleFile):
                    found += self._rule_file(name, entry.file, line)
                else:
                    line = self._entry_line(entry, line)
                    found.append(Rule(name, entry.strip(), str(self.path), line))
        return found

    def _rule_file(self, name: str, file: str, line: int) -> list[Rule]:
        try:
            return rules_.read_file(name, str(self.path.parent / file))
        except (PolicyError, ValueError) as error:
            raise PolicyError(f"{self.path}:{line}: {error}") from None

    def _entry_line(self, entry: str, start: int) -> int:
        """Where an inline entry stands: the first line from start on that quotes it, else start."""
        escaped = entry.replace("\\", "\\\\").replace('"', '\\"')
        quoted = (f'"{escaped}"', f"'{entry}'")
        for number in range(start, len(self.lines) + 1):
            if any(text in self.lines[number - 1] for text in quoted):
                return number
        return start


def doubts(configuration: Configuration) -> list[str]:
    """What is allowed and hardly meant, a line each."""
    found = settings_.doubts(configuration.policy.settings)
    first: dict[tuple[str, str], Rule] = {}
    for rule in configuration.policy.rules:
        earlier = first.setdefault((rule.list, rule.entry.lower()), rule)
        if earlier is not rule:
            found.append(f"{rule.place}: {rule.list}: {rule.entry!a} stands in {earlier.place} already")
    return found


def describe() -> list[dict[str, str]]:
    """Every option: name, type, unit, default, allowed values, meaning, source."""
    rows = [{"name": setting.name, "type": setting.kind, "unit": _unit(setting), "default": setting.default,
             "allowed": setting.range(), "meaning": setting.meaning, "source": setting.source}
            for setting in settings_.SETTINGS]
    for name, meaning in LISTS.items():
        entries = rules_.CLIENT_ENTRIES if name.endswith("clients") else rules_.ADDRESS_ENTRIES
        rows.append({"name": name, "type": "list", "unit": "", "default": "[]", "allowed": entries, "meaning": meaning,
                     "source": "postgrey's lists" if name.startswith("allow") else settings_.OWN})
    return rows


def describe_serve() -> list[dict[str, str]]:
    """The same of every option of [serve]."""
    return [{"name": f"serve.{option.name}", "type": option.kind, "unit": _unit_of(option.kind, option.unit),
             "default": option.default, "allowed": option.allowed, "meaning": option.meaning, "source": option.source}
            for option in serve_.OPTIONS]


def _unit(setting: Setting) -> str:
    return _unit_of(setting.kind, setting.unit)


def _unit_of(kind: str, unit: str) -> str:
    return {"duration": "seconds, or with s m h d w", "size": "bytes, or with k M G T"}.get(kind, unit)

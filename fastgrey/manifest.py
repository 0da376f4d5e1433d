"""The manifest of a generation: what it held at one of its transactions, counted and with checksums.

docs/format.md has the format. A generation to which nothing was written since must be what its manifest says; one that
was superseded is never written to again, so its manifest holds for ever.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from . import _core, directory, inside
from .errors import ManifestError

NAME = "manifest"
TITLE = "fastgrey manifest 1"
PARTS = ("head", "policy", "window", "client", "domain", "triplet", "pair")
RECORDS = PARTS[3:]
# No manifest is as long as this.
SIZE_MAX = 65536

_LINE = re.compile(r"(part|file) ([a-z.0-9]+) ([0-9]+) ([0-9a-f]{32})")


@dataclass(frozen=True)
class Part:
    """number: the generation of the head, the number of the policy, of the others how many records, of a file its
    bytes. checksum: 32 hex digits."""

    number: int
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """transaction: LMDB's number of the last one that it covers. written: Unix seconds. parts: by PARTS, policy only
    where there is one. files: of a backup, what it consists of, by name and in order."""

    transaction: int
    written: int
    parts: dict[str, Part]
    files: dict[str, Part] = field(default_factory=dict)

    @property
    def generation(self) -> int:
        """Number of the generation."""
        return self.parts["head"].number

    @property
    def records(self) -> dict[str, int]:
        """Number of known records by kind."""
        return {kind: self.parts[kind].number for kind in RECORDS}

    def differences(self, other: "Manifest") -> list[str]:
        """Names of the parts that are not the same in the other."""
        return [name for name in PARTS if self.parts.get(name) != other.parts.get(name)]

    def text(self) -> str:
        """As it is stored."""
        lines = [TITLE, f"transaction {self.transaction}", f"written {self.written}"]
        for kind, entries in (("part", self.parts), ("file", self.files)):
            lines += [f"{kind} {name} {entry.number} {entry.checksum}" for name, entry in entries.items()]
        body = "".join(f"{line}\n" for line in lines)
        return f"{body}checksum {checksum(body.encode())}\n"


def checksum(data: bytes) -> str:
    """XXH3-128, 32 hex digits."""
    digest = _core.Checksum()
    digest.update(data)
    return digest.hexdigest()


def parse(data: bytes, place: str) -> Manifest:
    """The manifest with this text; ManifestError, which names place, where it is damaged or none."""
    body, _, last = data.rpartition(b"checksum ")
    if last != checksum(body).encode() + b"\n":
        raise ManifestError(f"{place} is damaged or no manifest")
    lines = body.decode("ascii", "replace").splitlines()
    numbers = re.fullmatch(r"transaction (\d+) written (\d+)", " ".join(lines[1:3]))
    entries = [_LINE.fullmatch(line) for line in lines[3:]]
    if lines[0] != TITLE or numbers is None or not all(entries):
        raise ManifestError(f"{place} is of another version; use the fastgrey that wrote it")
    found: dict[str, dict[str, Part]] = {"part": {}, "file": {}}
    for entry in entries:
        assert entry is not None
        found[entry[1]][entry[2]] = Part(int(entry[3]), entry[4])
    if set(PARTS) - {"policy"} - set(found["part"]):
        raise ManifestError(f"{place} is of another version; use the fastgrey that wrote it")
    return Manifest(int(numbers[1]), int(numbers[2]), found["part"], found["file"])


def read(generation: Path) -> Manifest | None:
    """The manifest in the directory of a generation, None where there is none. ManifestError, OSError."""
    path = generation / NAME
    try:
        data = inside.read(path, SIZE_MAX)
    except FileNotFoundError:
        return None
    return parse(data, str(path))


def write(generation: Path, manifest: Manifest) -> None:
    """Put the manifest into the directory of its generation, durably and in place of another. OSError."""
    directory.replace_text(generation / NAME, manifest.text())
    directory.flush_directory(generation)

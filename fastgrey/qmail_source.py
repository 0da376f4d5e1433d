"""The source of qmail-smtpd: which tree it is, and where the call of checkenv() goes.

A tree is known by its name and by the places: in each, what stands around the insertion is there exactly once. So a
tree that carries other patches is taken where these leave the places alone, and refused where they do not.
"""

import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import SourceError
from .file_set import Change
from .shipped import shipped

KNOWN = ("notqmail 1.09", "notqmail 1.08", "netqmail 1.06", "qmail 1.03")
SMTPD = "qmail-smtpd.c"
# Where somebody else's call is, this word is.
FOREIGN = re.compile(rb".*checkenv.*", re.IGNORECASE)
SEAL = b"/* Put here by fastgrey patch-qmail; sha256 of all above: %b */\n"


class Place(NamedTuple):
    """Where something is put in: it comes between two pieces that otherwise follow each other."""

    file: str
    name: str
    before: bytes
    inserted: bytes
    after: bytes

    def fits(self, content: bytes) -> bool:
        """Whether the insertion has its place here, taken or free."""
        return self.taken(content) or content.count(self.before + self.after) == 1

    def taken(self, content: bytes) -> bool:
        """Whether the insertion is there, just as it was put in."""
        return content.count(self.before + self.inserted + self.after) == 1

    def put_in(self, content: bytes) -> bytes:
        """The content with the insertion."""
        if self.taken(content):
            return content
        return content.replace(self.before + self.after, self.before + self.inserted + self.after)

    def take_out(self, content: bytes) -> bytes:
        """The content without the insertion."""
        return content.replace(self.before + self.inserted + self.after, self.before + self.after)


# In the order of writing: up to any of them the tree compiles, and with the last one it calls.
PLACES = (
    Place("TARGETS", "the object file", b"\nqmail-smtpd.o\n", b"checkenv.o\n", b"qmail-smtpd\n"),
    # The same list for git, in trees that have it.
    Place(".gitignore", "the object file", b"\nqmail-smtpd.o\n", b"checkenv.o\n", b"qmail-smtpd\n"),
    # Only older trees list what an archive of them holds.
    Place("FILES", "the source files", b"\nqmail-smtpd.c\n", b"checkenv.c\ncheckenv.h\n", b"qmail-start.c\n"),
    Place("Makefile", "the rule for checkenv.o", b"\n\t./compile chkspawn.c\n\n",
          b"checkenv.o: \\\ncompile checkenv.c checkenv.h\n\t./compile checkenv.c\n\n", b"clean: \\\nTARGETS\n"),
    Place("Makefile", "what qmail-smtpd is made of", b"\nqmail-smtpd: \\\nload qmail-smtpd.o ", b"checkenv.o ",
          b"rcpthosts.o "),
    Place("Makefile", "the link of qmail-smtpd", b"\n\t./load qmail-smtpd ", b"checkenv.o ", b"rcpthosts.o "),
    Place("Makefile", "what qmail-smtpd.o is made of", b"\nqmail-smtpd.o: \\\ncompile qmail-smtpd.c ", b"checkenv.h ",
          b"sig.h "),
    Place(SMTPD, "the include", b'\n#include "timeoutwrite.h"\n', b'#include "checkenv.h"\n',
          b'#include "commands.h"\n'),
    # After the decision whether this recipient is ours at all, before it is taken into the envelope.
    Place(SMTPD, "the call in smtp_rcpt()", b"    if (!addrallowed()) { err_nogateway(); return; }\n",
          b"  {\n    char *refused = checkenv(mailfrom.s,addr.s,relayclient);\n"
          b"    if (refused) { out(refused); return; }\n  }\n",
          b'  if (!stralloc_cats(&rcptto,"T")) die_nomem();\n'),
)
OPTIONAL = (".gitignore", "FILES")
COPIES = ("checkenv.h", "checkenv.c")


class Patch(NamedTuple):
    """What is to do in a tree. state: what was found, 'patched', 'not patched', or 'patched in part'."""

    tree: str
    state: str
    changes: list[Change]

    def diff(self) -> Iterator[bytes]:
        """The changes as a unified diff, as patch -p1 reads it; lines with their ends."""
        for path, before, after in self.changes:
            sides = [(side, b"/dev/null" if content is None else f"{side}/{path.name}".encode(), content or b"")
                     for side, content in (("a", before), ("b", after))]
            (_, old, was), (_, new, becomes) = sides
            for line in difflib.diff_bytes(difflib.unified_diff, was.splitlines(True), becomes.splitlines(True),
                                           old, new):
                yield line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"


def plan(directory: str, reverse: bool) -> Patch:
    """What puts the call into the source in the directory, or takes it out. Writes nothing. Raises SourceError."""
    root = Path(directory)
    if not (root / SMTPD).is_file():
        raise SourceError(f"{root}: no {SMTPD}; name the directory of an unpacked qmail source{_below(root)}")
    tree = _identify(root)
    names = [name for name in dict.fromkeys(place.file for place in PLACES)
             if name not in OPTIONAL or ((root / name).is_file() and not (root / name).is_symlink())]
    contents = {name: _read(root / name) for name in names}
    copies = {name: _read(root / name) if (root / name).exists() else None for name in COPIES}
    places = [place for place in PLACES if place.file in contents]
    taken = [place.taken(contents[place.file]) for place in places]
    _refuse_unfit(root, tree, [place for place in places if not place.fits(contents[place.file])], any(taken))
    _refuse_foreign(root, contents, places)
    _refuse_changed(root, copies)

    changed: dict[str, tuple[bytes | None, bytes | None]] = {}
    for name, copy in copies.items():
        changed[name] = copy, None if reverse else seal(shipped(f"qmail/{name}").read_bytes())
    for name, content in contents.items():
        after = content
        for place in places:
            if place.file == name:
                after = place.take_out(after) if reverse else place.put_in(after)
        changed[name] = content, after
    changes = [Change((root / name).resolve(), *sides) for name, sides in changed.items() if sides[0] != sides[1]]
    found = [*taken, *(copy is not None for copy in copies.values())]
    state = "patched" if all(found) else "patched in part" if any(found) else "not patched"
    return Patch(tree, state, changes[::-1] if reverse else changes)


def seal(content: bytes) -> bytes:
    """The content with a last line that tells whether it was changed since."""
    return content + SEAL % hashlib.sha256(content).hexdigest().encode()


def _below(root: Path) -> str:
    if not root.is_dir():
        return "; there is no such directory"
    found = sorted(path.parent for path in root.glob(f"*/{SMTPD}"))
    return f"; perhaps {' or '.join(map(str, found))}" if found else ""


def _identify(root: Path) -> str:
    """The name and version of the tree; notqmail has no file VERSION since 1.09."""
    version = root / "VERSION"
    release = re.search(rb"^RELEASE_VERSION=(.+)$", _read(root / "Makefile"), re.MULTILINE)
    if version.is_file():
        tree = _read(version).decode("ascii", "replace").strip()
    elif release:
        tree = f"notqmail {release[1].decode('ascii', 'replace').strip()}"
    else:
        tree = "a tree without VERSION"
    if tree not in KNOWN:
        raise SourceError(f"{root}: this is {tree}; patch-qmail knows {', '.join(KNOWN)}. Unpack one of these, or put "
                          "the call in by hand as --dry-run on one of these shows it")
    return tree


def _refuse_unfit(root: Path, tree: str, unfit: Iterable[Place], patched: bool) -> None:
    for place in unfit:
        around = (place.before + place.after).decode().strip()
        if patched:
            raise SourceError(f"{root / place.file}: {place.name} was changed since it was put in, between the pieces "
                              f"of {around!r}; undo that change")
        raise SourceError(f"{root / place.file}: no place for {place.name}: {around!r} is not there exactly once, as "
                          f"it is in {tree}; put this in before other patches, or by hand")


def _refuse_foreign(root: Path, contents: dict[str, bytes], places: Iterable[Place]) -> None:
    for name, content in contents.items():
        for place in places:
            if place.file == name:
                content = place.take_out(content)
        foreign = FOREIGN.search(content)
        if foreign:
            line = foreign[0].decode("ascii", "replace").strip()
            raise SourceError(f"{root / name}: {line!r} is not from patch-qmail; take that out first")


def _refuse_changed(root: Path, copies: dict[str, bytes | None]) -> None:
    """An older copy is replaced, and any is removed, but none that somebody changed or wrote, and none elsewhere."""
    for name, copy in copies.items():
        if (root / name).is_symlink():
            raise SourceError(f"{root / name}: a symbolic link, not as patch-qmail put it there; move it out of the "
                              "tree")
        if copy is None:
            continue
        above = copy[:copy.rstrip(b"\n").rfind(b"\n") + 1]
        if seal(above) != copy:
            raise SourceError(f"{root / name}: not as patch-qmail put it there; move it out of the tree")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None

"""Regular expressions of rules: POSIX extended as regcomp(3) has it, with the Perl notation that rule lists written for
postgrey use, and within bounds.

The C library matches without going back as long as nothing refers back, and compiles in reasonable time as long as
nothing is repeated that may be empty (measured: 24 seconds for 22 characters). What is left to bound is how many
states it makes. The size of an expression bounds them; so does an anchor in front of every one, by which a text is gone
through once and not from each of its bytes anew (measured: 46 against 7,000 milliseconds). docs/design.md has what that
comes to.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from . import _core

LONGEST = 1000
DEEPEST = 50
# Positions of the expression with its repetitions written out.
LARGEST = 250
HIGHEST_COUNT = 255

SPECIAL = set(".[]()*+?{}|^$\\")
CLASSES = {"d": "0-9", "w": "[:alnum:]_", "s": "[:space:]"}
INTERVAL = re.compile(r"\{([0-9]+)(,?)([0-9]*)\}")


class Regex(NamedTuple):
    """An expression for regcomp, and what every text that it matches contains, in lower case (may be empty)."""

    pattern: bytes
    literal: bytes


def compile(text: str) -> Regex:
    """Translate and check an expression; ValueError says what is wrong with it."""
    if not text:
        raise ValueError("it is empty")
    if len(text.encode("utf-8", "surrogateescape")) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} bytes")
    translator = _Translator(text)
    translated = translator.run()
    if not translator.anchored:
        translated = f"^.*({translated})"
    pattern = translated.encode("utf-8", "surrogateescape")
    fault = _core.regex_fault(pattern)
    if fault:
        raise ValueError(f"the C library says: {fault}")
    # Only ASCII has two cases here, as in addresses.
    return Regex(pattern, translator.literal.encode("utf-8", "surrogateescape").lower())


@dataclass
class _Group:
    """A group that is open, or the whole. Of its last atom it is known for sure only when the next one begins whether
    it may be empty: a repetition may follow."""

    size: int = 0
    last_size: int = 0
    last_may_be_empty: bool = True
    # Whether this alternative may be empty, up to the last atom, and whether one before it may.
    so_far_empty: bool = True
    earlier_empty: bool = False

    @property
    def may_be_empty(self) -> bool:
        """As far as it was read."""
        return self.earlier_empty or (self.so_far_empty and self.last_may_be_empty)

    def add(self, size: int, may_be_empty: bool) -> None:
        """An atom begins."""
        self.so_far_empty = self.so_far_empty and self.last_may_be_empty
        self.last_size, self.last_may_be_empty = size, may_be_empty

    def alternative(self) -> None:
        """Another alternative begins."""
        self.earlier_empty = self.may_be_empty
        self.last_size, self.last_may_be_empty, self.so_far_empty = 0, True, True


class _Translator:
    """One pass over an expression: writes it anew, adds up its size, and finds its longest literal."""

    def __init__(self, text: str):
        self.text = text
        self.place = 0
        self.out: list[str] = []
        # The whole, and every group that is open.
        self.groups = [_Group()]
        self.run_so_far = ""
        self.longest_run = ""
        self.alternatives = False

    @property
    def anchored(self) -> bool:
        """Whether it can match from the beginning of a text only."""
        return self.out[:1] == ["^"] and not self.alternatives

    @property
    def literal(self) -> str:
        """The longest run of characters that must occur."""
        return "" if self.alternatives else self.longest_run

    def run(self) -> str:
        """The expression as regcomp wants it."""
        while self.place < len(self.text):
            self._step()
        if len(self.groups) > 1:
            raise ValueError("a '(' is never closed")
        self._end_run()
        return "".join(self.out)

    def _step(self) -> None:
        character = self.text[self.place]
        self.place += 1
        if character == "\\":
            self._escape()
        elif character == "[":
            self._atom(self._bracket(), None)
        elif character == "(":
            self._open()
        elif character == ")":
            self._close()
        elif character == "|":
            self.alternatives |= len(self.groups) == 1
            self._end_run()
            self.groups[-1].alternative()
            self.out.append("|")
        elif character in "*+?" or (character == "{" and INTERVAL.match(self.text, self.place - 1)):
            self._repeat(character)
        elif character in "^$":
            self._end_run()
            self.out.append(character)
        elif character == ".":
            self._atom(".", None)
        else:
            self._atom("\\" + character if character in SPECIAL else character, character)

    def _atom(self, written: str, literal: str | None) -> None:
        self.out.append(written)
        self._piece(1, False)
        if literal is None or len(self.groups) > 1:
            self._end_run()
        else:
            self.run_so_far += literal

    def _piece(self, size: int, empty: bool) -> None:
        """Add an atom of this size, which may be empty or not, to the group."""
        self.groups[-1].add(size, empty)
        self._grow(size)

    def _grow(self, size: int) -> None:
        self.groups[-1].size += size
        if sum(group.size for group in self.groups) > LARGEST:
            raise ValueError(f"with its repetitions written out it is larger than {LARGEST} positions")

    def _end_run(self) -> None:
        if len(self.run_so_far) > len(self.longest_run):
            self.longest_run = self.run_so_far
        self.run_so_far = ""

    def _open(self) -> None:
        if self.text.startswith("?:", self.place):
            self.place += 2
        elif self.text.startswith("?", self.place):
            raise ValueError(f"'({self.text[self.place:self.place + 2]}' is not POSIX; of Perl's groups there is '(?:'")
        self._end_run()
        self.out.append("(")
        self.groups.append(_Group())
        if len(self.groups) > DEEPEST:
            raise ValueError(f"its groups are nested deeper than {DEEPEST}")

    def _close(self) -> None:
        if len(self.groups) == 1:
            raise ValueError("a ')' was never opened")
        self._end_run()
        group = self.groups.pop()
        self._piece(max(group.size, 1), group.may_be_empty)
        self.out.append(")")

    def _repeat(self, character: str) -> None:
        least, most, written = 0, 1, character
        if character == "{":
            match = INTERVAL.match(self.text, self.place - 1)
            assert match is not None
            written = match[0]
            self.place += len(written) - 1
            least = int(match[1])
            most = least if not match[2] else int(match[3]) if match[3] else least + 1
            if most > HIGHEST_COUNT or least > most:
                raise ValueError(f"'{written}': expected counts in order and of at most {HIGHEST_COUNT}")
        elif character == "+":
            least, most = 1, 2
        group = self.groups[-1]
        if not group.last_size:
            raise ValueError(f"there is nothing before '{written}' that it could repeat")
        if group.last_may_be_empty and character != "?":
            raise ValueError(f"'{written}' repeats what may be empty; leave that repetition out, or the one within")
        times = max(most, 1)
        self._grow(group.last_size * (times - 1))
        group.last_size *= times
        if least == 0:
            group.last_may_be_empty = True
            # The atom before may be missing.
            self.run_so_far = self.run_so_far[:-1]
        self._end_run()
        self.out.append(written)
        # Perl's lazy forms match the same texts.
        if self.text.startswith("?", self.place):
            self.place += 1

    def _escape(self) -> None:
        if self.place == len(self.text):
            raise ValueError("a backslash stands at its end")
        character = self.text[self.place]
        self.place += 1
        if character in CLASSES:
            self._atom(f"[{CLASSES[character]}]", None)
        elif character.lower() in CLASSES:
            self._atom(f"[^{CLASSES[character.lower()]}]", None)
        elif character in "bB":
            self._end_run()
            self.out.append("\\" + character)
        elif character.isascii() and character.isdigit():
            raise ValueError(f"'\\{character}' refers back to a group, which can take for ever; write it out")
        elif character.isascii() and character.isalpha():
            raise ValueError(f"'\\{character}' is not known; there are \\d \\w \\s \\D \\W \\S \\b \\B")
        else:
            self._atom("\\" + character if character in SPECIAL else character, character)

    def _bracket(self) -> str:
        """A bracket expression. In POSIX a backslash in it means itself; here it quotes, as rule lists expect."""
        text, inside, closing, dash = self.text, "", "", ""
        negated = text.startswith("^", self.place)
        self.place += negated
        first = self.place
        while self.place < len(text) and (text[self.place] != "]" or self.place == first):
            character = text[self.place]
            self.place += 1
            if character == "[" and text[self.place:self.place + 1] in (":", ".", "="):
                end = text.find(text[self.place] + "]", self.place + 1)
                if end < 0:
                    break
                inside += text[self.place - 1:end + 2]
                self.place = end + 2
                continue
            if character == "\\" and self.place < len(text):
                character = text[self.place]
                self.place += 1
                if character in CLASSES:
                    inside += CLASSES[character]
                    continue
                if character.isascii() and character.isalnum():
                    raise ValueError(f"'\\{character}' is not known in brackets; there are \\d \\w \\s")
                if character == "-":
                    dash = "-"
                    continue
            if character == "]":
                closing = "]"
            else:
                inside += character
        if self.place >= len(text):
            raise ValueError("a '[' is never closed")
        self.place += 1
        caret = ""
        if inside.startswith("^") and not negated and not closing:
            # In front it would negate.
            inside, caret = inside[1:], "^"
        if caret and not inside and not dash:
            return "\\^"
        return f"[{'^' if negated else ''}{closing}{inside}{caret}{dash}]"

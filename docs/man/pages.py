"""The manual pages that follow from the code: fastgrey(1) from the commands, fastgrey.toml(5) from the reference.

    make pages                           write both, beside this file
    python docs/man/pages.py DIRECTORY   write them there

The other pages are written by hand.
"""

import re
import sys
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from markdown_it import MarkdownIt
from markdown_it.token import Token

from fastgrey import configuration, reference
from fastgrey.cli.main import cli

HERE = Path(__file__).resolve().parent
VERSION = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]["version"]
DATE = "2026-11-24"
# What these look like depends on the device (groff_char(7)); in a page for commands they have to be themselves.
GLYPHS = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"})
# An option that this many commands have in the same words is told once.
COMMON = 3

COMMANDS_BEGIN = rf"""{{head}}
.SH NAME
fastgrey \- greylisting for qmail: the command line
.SH SYNOPSIS
.B fastgrey
.I command
[\fIoptions\fR] [\fIarguments\fR]
.SH DESCRIPTION
.B fastgrey
makes, configures and watches the store in which
.BR qmail\-checkenv (8)
looks up whether a mail has to wait.

Where a command reads,
.B \-\-json
prints what a program can read; where it writes,
.B \-\-dry\-run
shows what it would do.
An error is one line on standard error: what, where, why, what to do.
"""

COMMANDS_END = r""".SH "EXIT CODES"
0 is done, 1 could not be done, 2 is wrong usage or a value that cannot be, 130 is interrupted.

Of
.B doctor
and of
.BR "install\-hook \-\-check" ,
0 is all is well, 1 something is in doubt, 2 something is wrong.

.B check
exits 0 whatever the verdict; the verdict is in what it prints.
.SH "ENVIRONMENT VARIABLES"
.TP 5
.B FASTGREY_STORE
the store, where
.B \-\-store
does not name it
.TP 5
.B FASTGREY_CONFIG
the configuration, where
.B \-\-config
does not name it
.SH FILES
.TP 5
.I /etc/fastgrey/fastgrey.toml
the configuration;
.I conf.d/*.toml
beside it is read after it
.TP 5
.I /var/lib/fastgrey
the store
.TP 5
.I share/fastgrey
below the prefix of the installation: run scripts, systemd units, a cron line, sources for qmail
.SH "SEE ALSO"
fastgrey.toml(5),
qmail\-checkenv(8),
fastgrey\-patch\-qmail(8)
"""

CONFIGURATION_BEGIN = r"""{head}
.SH NAME
fastgrey.toml \- configuration of fastgrey
.SH DESCRIPTION
"""

CONFIGURATION_END = r""".SH "SEE ALSO"
fastgrey(1),
qmail\-checkenv(8)
"""


def head(name: str, section: int, source: str) -> str:
    """Title line, and where the page comes from."""
    return f'.\\" Written by make pages (docs/man/pages.py) from {source}.\n' \
           f'.TH {name} {section} {DATE} "fastgrey {VERSION}"'


def plain(text: str) -> str:
    """Text that is shown just as it is."""
    return text.translate(GLYPHS)


def filled(text: str) -> str:
    """A paragraph of roff in lines that are good to read and to compare, each sentence on a new one."""
    lines = [line for sentence in re.split(r"(?<=[.:]) (?=[A-Z\\])", " ".join(text.split()))
             for line in textwrap.wrap(sentence, 100, break_long_words=False, break_on_hyphens=False)]
    return "".join(f"{guarded(line)}\n" for line in lines)


def guarded(line: str) -> str:
    """A line of text that is not taken for a request."""
    return rf"\&{line}" if line.startswith((".", "'")) else line


def example(text: str) -> str:
    """Lines as they are, indented."""
    return ".PP\n.RS 5\n.nf\n" + "".join(f"{guarded(plain(line))}\n" for line in text.splitlines()) + ".fi\n.RE\n"


def item(tag: str, text: str) -> str:
    """A thing and what is said of it; both are roff already."""
    return f".TP 5\n{guarded(tag)}\n{filled(text)}"


def bold(text: str) -> str:
    return rf"\fB{plain(text)}\fR"


# fastgrey(1)

def commands() -> Iterator[tuple[click.Context, click.Command]]:
    """All commands, those of groups one by one, in the order of fastgrey --help."""
    above = click.Context(cli, info_name="fastgrey")
    for name in cli.list_commands(above):
        command = cli.get_command(above, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=above)
        if isinstance(command, click.Group):
            for part in command.list_commands(context):
                member = command.get_command(context, part)
                assert member is not None
                yield click.Context(member, info_name=part, parent=context), member
        else:
            yield context, command


def options(context: click.Context, command: click.Command) -> list[tuple[str, str]]:
    """Each option as --help shows it, and its help."""
    records = [parameter.get_help_record(context) for parameter in command.params
               if isinstance(parameter, click.Option)]
    return [record for record in records if record is not None]


def signature(names: str) -> str:
    """An option: its names bold, its value in italics."""
    words = re.split(r"(, | )", names)
    return "".join(bold(word) if word.startswith("-") else word if not word.strip(", ")
                   else rf"\fI{plain(word)}\fR" for word in words)


def commands_page() -> str:
    """fastgrey(1)."""
    every = list(commands())
    counts = Counter(record for context, command in every for record in options(context, command))
    common = [record for record, count in counts.items() if count >= COMMON]
    parts = [COMMANDS_BEGIN.format(head=head("fastgrey", 1, "the commands")), ".SH COMMANDS\n"]
    for context, command in every:
        parts += command_part(context, command, common)
    parts.append('.SH "COMMON OPTIONS"\nThese mean the same wherever a command has them.\n')
    parts += [item(signature(names), plain(text)) for names, text in common]
    parts += [item(signature("-h, --help"), "what the command does, its options, an example"), COMMANDS_END]
    return "".join(parts)


def command_part(context: click.Context, command: click.Command, common: list[tuple[str, str]]) -> Iterator[str]:
    """What there is to say of one command."""
    usage = context.command_path
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    yield f'.SS "{plain(usage)}"\n' + " ".join([bold(usage), r"[\fIoptions\fR]", *map(plain, pieces)]) + "\n"
    for paragraph in textwrap.dedent(f"    {command.help}").split("\n\n"):
        shown = paragraph.removeprefix("\b\n").strip()
        before, colon, line = shown.partition("Example: ")
        yield f"\n{filled(plain(shown))}" if not colon or before else f"\nExample:\n{example(line)}"
    here = options(context, command)
    yield from (item(signature(names), plain(text)) for names, text in here if (names, text) not in common)
    also = [signature(names) for names, text in here if (names, text) in common]
    yield f".PP\nAlso {'; '.join(also)}.\n" if also else ""


# fastgrey.toml(5)

def configuration_page() -> str:
    """fastgrey.toml(5): the page of the reference, its table of settings as a list."""
    tokens = MarkdownIt("commonmark").enable("table").parse(reference.page())
    title = next(at for at, token in enumerate(tokens) if token.type == "heading_close")
    begin = CONFIGURATION_BEGIN.format(head=head("fastgrey.toml", 5, "fastgrey config describe"))
    # What comes first in the reference tells by which command that was written.
    body = "".join(roff(tokens[title + 4:]))
    return begin + body.removeprefix(".PP\n") + CONFIGURATION_END


def roff(tokens: list[Token]) -> Iterator[str]:
    """Markdown as far as the reference uses it. Raises ValueError for anything else."""
    cells: list[str] = []
    heading = ""
    inside = ""
    after_heading = False
    for token in tokens:
        if token.type == "inline":
            if inside == "paragraph_open":
                yield ("" if after_heading else ".PP\n") + filled(inline(token))
                after_heading = False
            elif inside == "heading_open":
                heading, after_heading = token.content, True
                yield f'.SH "{plain(heading.upper())}"\n'
            else:
                cells.append(inline(token))
        elif token.type == "code_block":
            yield example(token.content)
        elif token.type == "tr_open":
            cells.clear()
        elif token.type == "td_close" and len(cells) == 2 and heading not in DESCRIBED:
            yield item(*cells)
        elif token.type == "thead_close" and cells[0].startswith("entry "):
            # Two tables follow each other, and the same form means another thing in the second.
            yield f".PP\n{cells[0].replace('entry', 'Entries')} cover:\n"
        elif token.type == "table_close" and heading in DESCRIBED:
            yield from described(DESCRIBED[heading]())
        elif token.type not in SILENT:
            raise ValueError(f"the reference has a {token.type} now; say here what that is in a manual page")
        inside = token.type


# What marks where something begins or ends, and has no form of its own here.
SILENT = {
    "paragraph_open", "paragraph_close", "heading_open", "heading_close", "table_open", "table_close", "thead_open",
    "thead_close", "tbody_open", "tbody_close", "tr_close", "th_open", "th_close", "td_open", "td_close",
}


# Tables that would be too wide, by heading.
DESCRIBED = {
    "Settings": lambda: [row for row in configuration.describe() if row["type"] != "list"],
    "The server": configuration.describe_serve,
}


def described(rows: list[dict[str, str]]) -> Iterator[str]:
    """Options: what each means, what is allowed and what is taken unasked, and who says so."""
    for row in rows:
        unit = f", in {row['unit']}" if row["unit"] else ""
        yield item(bold(row["name"].removeprefix("serve.")),
                   plain(f"{sentence(row['meaning'])} {sentence(row['type'])[:-1]}{unit}; {row['allowed']}. "
                         f"Default: {row['default'] or 'empty'}. Source: {row['source']}."))


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def inline(token: Token) -> str:
    """Text with what is quoted as code in bold."""
    forms = {"text": plain, "code_inline": bold, "softbreak": lambda _: " "}
    return "".join(forms[child.type](child.content) for child in token.children or [])


def write(directory: Path) -> None:
    """Write the pages that follow from the code."""
    (directory / "fastgrey.1").write_text(commands_page())
    (directory / "fastgrey.toml.5").write_text(configuration_page())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)

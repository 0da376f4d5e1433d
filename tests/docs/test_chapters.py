"""What the chapters on qmail have people type: commands that parse, configurations that apply, files that are there."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from conftest import HOOK
from fastgrey import installation
from fastgrey.cli.main import cli
from fastgrey.hooks import HOOKS
from fastgrey.installation.told import told
from fastgrey.shipped import shipped

DOCS = Path(__file__).resolve().parents[2] / "docs"
CHAPTERS = [DOCS / "qmail.md", DOCS / "other-hooks.md"]
BY_NAME = [pytest.param(page.read_text(), id=page.name) for page in CHAPTERS]
SERVERS = [pytest.param((DOCS / name).read_text(), id=name) for name in ("postfix.md", "exim.md", "indimail.md")]
CLIENT = "198.51.100.9"
# A stranger by each hook, as its chapter has it typed: what is printed, less the log line.
BY_HAND = {
    "envelope-scanner": "101\n",
    "rcptcheck": "0\n",
    "rcptcheck 4>&1": "450 4.7.1 greylisted, please try again later\n",
    "spp": "E451 4.7.1 greylisted, please try again later\n",
    "postgrey": "10\n",
}


def blocks(text):
    """The indented blocks of a page."""
    return [re.sub(r"^ {4}(?: {3})?", "", block, flags=re.MULTILINE) for block in
            re.findall(r"(?:^ {4}.*\n)(?:(?: {4}.*)?\n)*?(?=^\S|\Z|\n\S)", text, re.MULTILINE)]


def typed(text):
    """The fastgrey commands of a page, in its blocks and in its sentences."""
    lines = [line for block in blocks(text) for line in block.splitlines()]
    lines += re.findall(r"`(fastgrey [^`]*)`", text)
    parts = [part.partition(" | ")[0].strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part.startswith("fastgrey ")]


def anchors(text):
    """The headings of a page as links name them."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("text", BY_NAME)
def test_commands_parse(text):
    commands = typed(text)
    assert len(commands) > 10
    for line in commands:
        words = shlex.split(line.replace("HOOK", "checkenv"))[1:]
        if words == ["--version"]:
            continue
        command, path = cli, ["fastgrey"]
        while isinstance(command, click.Group):
            path.append(words.pop(0))
            command = command.get_command(click.Context(command), path[-1])
            assert command is not None, line
        bare = not words
        try:
            command.make_context(" ".join(path), words)
        except click.MissingParameter:
            # A sentence may name a command without its arguments.
            assert bare, line


@pytest.mark.parametrize("text", BY_NAME)
def test_configurations_can_be_applied(text, run_fastgrey, tmp_path, make_store):
    """As they follow one another; what a file was before, it is no more."""
    make_store()
    lists = tmp_path / "etc" / "lists"
    lists.mkdir(parents=True)
    for name in ("whitelist_clients", "whitelist_clients.local", "whitelist_recipients"):
        (lists / name).write_text("postmaster@\n" if "recipients" in name else "192.0.2.7\n10.20\nmail.example.org\n")
        shutil.copy(lists / name, tmp_path / "etc")
    # A block may hold commands after a configuration: what begins with fastgrey or mkdir is none of it.
    found = re.findall(r"^ {4}# ([\w./]+\.toml)\n((?: {4}[\w]+ = .*\n)+)", text, re.MULTILINE)
    assert found
    for name, body in found:
        file = tmp_path / "etc" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(re.sub("^ {4}", "", body, flags=re.MULTILINE).replace("/etc/postgrey", str(lists)))
        main = tmp_path / "etc" / "fastgrey.toml"
        main.touch()
        for words in (["config", "check"], ["apply", "--dry-run"], ["apply"]):
            done = run_fastgrey(*words)
            assert done.returncode == 0, (name, done.stderr)


@pytest.mark.parametrize("text", BY_NAME + SERVERS)
def test_files_and_links_are_there(text):
    for name in re.findall(r"share/fastgrey/([\w./-]+)", text):
        if (DOCS.parent / "contrib" / name).is_dir():
            assert shipped(f"{name.rstrip('/')}/run")
        else:
            assert shipped(name)
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text)
    assert links
    for name, anchor in links:
        target = DOCS / name
        assert target.is_file(), name
        assert not anchor or anchor in anchors(target.read_text()), (name, anchor)


@pytest.mark.parametrize("hook", [pytest.param(hook, id=name) for name, hook in HOOKS.items()])
def test_run_script_has_the_lines_that_install_hook_prints(hook):
    text = (DOCS / ("qmail.md" if hook.name == "checkenv" else "other-hooks.md")).read_text()
    lines = [line.strip() for line in text.splitlines()]
    job = installation.plan(hook, "/var/qmail", None, "0", "0", "/var/lib/fastgrey")
    exports = [line for line in told(job)[0].lines if line.startswith("export ")]
    assert exports
    assert [line for line in exports if line not in lines] == []
    assert f"fastgrey install-hook {hook.name} --create-group" in lines
    assert f"fastgrey install-hook {hook.name} --uninstall" in lines


@pytest.mark.parametrize("row", BY_HAND)
def test_hooks_by_hand(row, tmp_path, path, make_store):
    make_store()
    hook, _, redirect = row.partition(" ")
    program = HOOKS[hook].installed
    shutil.copy(HOOK, tmp_path / program)
    (line,) = [line.strip() for line in (DOCS / "other-hooks.md").read_text().splitlines()
               if re.search(rf"/{program}\b", line) and CLIENT in line and ("4>&1" in line) == bool(redirect)]
    done = subprocess.run(["bash", "-c", re.sub(rf"/var/qmail/\w+/{program}", str(tmp_path / program), line)],
                          env={"PATH": "/usr/bin:/bin", "FASTGREY_STORE": str(path)}, capture_output=True, text=True,
                          timeout=60)
    assert done.stdout == BY_HAND[row]
    assert done.stderr.startswith(f"fastgrey: defer new wait=300 client={CLIENT} sender=a@example.org ")

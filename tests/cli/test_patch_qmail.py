"""fastgrey patch-qmail, on trees of our own that have the shape of each qmail where the call goes in."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest
from machine import fill_up, needs_root, small_disk

from fastgrey import file_set, qmail_source
from fastgrey.shipped import shipped

SMTPD = """\
#include "timeoutread.h"
#include "timeoutwrite.h"
#include "commands.h"

void smtp_rcpt(arg) char *arg; {
  if (!addrparse(arg)) { err_syntax(); return; }
  if (relayclient) {
    --addr.len;
  }
  else
    if (!addrallowed()) { err_nogateway(); return; }
  if (!stralloc_cats(&rcptto,"T")) die_nomem();
  if (!stralloc_cats(&rcptto,addr.s)) die_nomem();
  out("250 ok\\r\\n");
}
"""

# What it makes are empty files; `compile` and `load` take the names that qmail's do.
MAKEFILE = """\
SHELL=/bin/sh
{release}
default: it

chkspawn.o: \\
compile chkspawn.c
\t./compile chkspawn.c

clean: \\
TARGETS
\trm -f `cat TARGETS`

it: \\
qmail-smtpd

qmail-smtpd: \\
load qmail-smtpd.o rcpthosts.o {more}\\
{library}
\t./load qmail-smtpd rcpthosts.o {more}\\
\t{library}

qmail-smtpd.o: \\
compile qmail-smtpd.c sig.h \\
commands.h
\t./compile qmail-smtpd.c

rcpthosts.o commands.o ipalloc.o str.a alloc.a: \\
compile
\ttouch $@

shar: \\
FILES
\tshar -m `cat FILES` > shar
"""

TARGETS = "load.o\nqmail-smtpd.o\nqmail-smtpd\nsendmail.o\n"
COMPILE = '#!/bin/sh\necho "compile $*" >> log\ntest -f "$1" && touch "${1%.c}.o"\n'
LOAD = ('#!/bin/sh\necho "load $*" >> log\n'
        'for file; do test "$file" = "$1" || test -f "$file" || exit 1; done; touch "$1"\n')

TREES = {
    "notqmail 1.09": {"release": "RELEASE_VERSION=1.09\n", "more": "", "library": "alloc.a"},
    "notqmail 1.08": {"version": "notqmail 1.08\n", "more": "commands.o ", "library": "alloc.a"},
    "netqmail 1.06": {"version": "netqmail 1.06\n", "files": True, "more": "commands.o ", "library": "str.a"},
    "qmail 1.03": {"version": "qmail 1.03\n", "files": True, "more": "ipalloc.o ", "library": "str.a"},
}


def make_tree(root, version=None, release="", files=False, more="", library="str.a"):
    """A tree of that shape below root."""
    root.mkdir(parents=True)
    content = {
        "qmail-smtpd.c": SMTPD, "TARGETS": TARGETS, "compile": COMPILE, "load": LOAD,
        "Makefile": MAKEFILE.format(release=release, more=more, library=library),
        "sig.h": "", "commands.h": "", "chkspawn.c": "",
    }
    if version:
        content["VERSION"] = version
    if files:
        content["FILES"] = "qmail-showctl.c\nqmail-smtpd.c\nqmail-start.c\n"
    for name, text in content.items():
        (root / name).write_text(text)
    for name in ("compile", "load"):
        (root / name).chmod(0o755)
    return root


@pytest.fixture(params=TREES)
def tree(request, tmp_path):
    """Every kind of tree; has .name as its kind."""
    return make_tree(tmp_path / "src" / request.param.replace(" ", "-"), **TREES[request.param])


@pytest.fixture
def qmail(tmp_path):
    """The tree of qmail 1.03."""
    return make_tree(tmp_path / "src" / "qmail-1.03", **TREES["qmail 1.03"])


def snapshot(root):
    """Every file of a tree with content, mode and owner."""
    return {path.name: (path.read_bytes(), path.stat().st_mode, path.stat().st_uid, path.stat().st_gid)
            for path in root.iterdir() if path.is_file()}


@pytest.fixture
def patch(run_fastgrey):
    """Run the command on a tree; asserts that it says nothing wrong."""

    def run(tree, *options):
        done = run_fastgrey("patch-qmail", *options, tree)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


@pytest.fixture
def refused(run_fastgrey):
    """Run the command on a tree that it must refuse, and leave as it was; gives the one line."""

    def run(tree, *options, **popen):
        before = snapshot(tree)
        done = run_fastgrey("patch-qmail", *options, tree, **popen)
        assert (done.returncode, done.stdout) == (1, "")
        assert snapshot(tree) == before
        line, = done.stderr.splitlines()
        assert line.startswith("fastgrey: ")
        return line

    return run


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def make(tree, *targets):
    (tree / "log").write_text("")
    subprocess.run(["make", "-s", "-C", tree, *targets], check=True, timeout=60)
    return (tree / "log").read_text().splitlines()


def test_the_call_and_its_place(tree, patch):
    """After the decision whether the recipient is ours, before it is in the envelope; and the session goes on."""
    assert f"{tree.name.replace('-', ' ')}, the call is in; it was not patched" in patch(tree)
    text = (tree / "qmail-smtpd.c").read_text()
    assert text.count('#include "checkenv.h"\n') == 1
    body = text[text.index("void smtp_rcpt"):]
    assert re.search(r"else\n    if \(!addrallowed\(\)\) \{ err_nogateway\(\); return; \}\n"
                     r"  \{\n    char \*refused = checkenv\(mailfrom\.s,addr\.s,relayclient\);\n"
                     r"    if \(refused\) \{ out\(refused\); return; \}\n  \}\n"
                     r'  if \(!stralloc_cats\(&rcptto,"T"\)\) die_nomem\(\);\n', body)
    assert (tree / "checkenv.c").read_bytes().startswith(shipped("qmail/checkenv.c").read_bytes())


def test_it_is_made_cleaned_and_made_again(tree, patch):
    make(tree)
    patch(tree)
    log = make(tree)
    # Because of the header, and of the object.
    assert "compile qmail-smtpd.c" in log
    assert "compile checkenv.c" in log
    link, = [line for line in log if line.startswith("load ")]
    assert link.startswith("load qmail-smtpd checkenv.o rcpthosts.o")
    make(tree, "clean")
    assert not (tree / "checkenv.o").exists()
    assert not (tree / "qmail-smtpd").exists()
    assert "compile checkenv.c" in make(tree)
    (tree / "checkenv.h").touch()
    os.utime(tree / "checkenv.h", (2**31, 2**31))
    assert {"compile checkenv.c", "compile qmail-smtpd.c"} <= set(make(tree))


def test_archive_lists_it(qmail, patch):
    patch(qmail)
    assert (qmail / "FILES").read_text().splitlines()[1:4] == ["qmail-smtpd.c", "checkenv.c", "checkenv.h"]


def test_reverse_leaves_every_byte(tree, patch):
    before = snapshot(tree)
    patch(tree)
    assert snapshot(tree) != before
    assert "the call is out; it was patched" in patch(tree, "--reverse")
    assert snapshot(tree) == before
    assert "not patched; nothing to change" in patch(tree, "--reverse")
    assert snapshot(tree) == before


def test_twice_is_once(tree, patch):
    patch(tree)
    before = snapshot(tree)
    assert "patched; nothing to change" in patch(tree)
    assert json.loads(patch(tree, "--json"))["changed"] == {}
    assert snapshot(tree) == before


@pytest.mark.parametrize("reverse", [(), ("--reverse",)])
def test_dry_run_is_the_diff(tree, patch, tmp_path, reverse):
    """patch(1) makes of it what the command does."""
    if reverse:
        patch(tree)
    other = shutil.copytree(tree, tmp_path / "other")
    before = snapshot(tree)
    diff = patch(tree, "--dry-run", *reverse)
    assert snapshot(tree) == before
    patch(tree, *reverse)
    subprocess.run(["patch", "-p1", "-s"], input=diff, text=True, cwd=other, check=True)
    assert {name: facts[0] for name, facts in snapshot(other).items()} == {
        name: facts[0] for name, facts in snapshot(tree).items()}


def test_dry_run_where_a_file_ends_without_a_line_end(qmail, patch, tmp_path):
    (qmail / "TARGETS").write_text(TARGETS.replace("sendmail.o\n", "sendmail.o"))
    other = shutil.copytree(qmail, tmp_path / "other")
    diff = patch(qmail, "-n")
    assert " sendmail.o\n\\ No newline at end of file\n" in diff
    subprocess.run(["patch", "-p1", "-s"], input=diff, text=True, cwd=other, check=True)
    patch(qmail)
    assert (other / "TARGETS").read_bytes() == (qmail / "TARGETS").read_bytes()


def test_json(qmail, patch):
    expected = {"checkenv.h": "new", "checkenv.c": "new", "TARGETS": "changed", "FILES": "changed",
                "Makefile": "changed", "qmail-smtpd.c": "changed"}
    facts = json.loads(patch(qmail, "--json", "--dry-run"))
    assert facts.pop("diff").startswith("--- /dev/null\n+++ b/checkenv.h\n")
    assert facts == {"directory": str(qmail), "tree": "qmail 1.03", "found": "not patched", "reverse": False,
                     "dry_run": True, "changed": expected}
    assert json.loads(patch(qmail, "--json")) == facts | {"dry_run": False}
    facts = json.loads(patch(qmail, "--json", "--reverse"))
    assert (facts["found"], facts["changed"]["checkenv.c"]) == ("patched", "removed")


def test_modes_and_owners_stay(qmail, patch):
    for name, mode in (("qmail-smtpd.c", 0o600), ("Makefile", 0o640), ("TARGETS", 0o444)):
        (qmail / name).chmod(mode)
        if os.geteuid() == 0:
            os.chown(qmail / name, 12_345, 23_456)
    before = snapshot(qmail)
    patch(qmail)
    after = snapshot(qmail)
    assert all(after[name][1:] == facts[1:] for name, facts in before.items())
    assert after["checkenv.c"][1] & 0o777 == 0o644
    patch(qmail, "--reverse")
    assert snapshot(qmail) == before


def test_no_special_bits(qmail, patch):
    (qmail / "Makefile").chmod(0o6755)
    patch(qmail)
    assert (qmail / "Makefile").stat().st_mode & 0o7777 == 0o755


@needs_root
def test_owner_of_the_tree_plays_with_links(tmp_path, monkeypatch):
    """Root gives him no file but that of the tree, though he swaps the new one for a link."""
    victim, file = tmp_path / "victim", tmp_path / "Makefile"
    victim.touch(0o600)
    file.write_bytes(b"old")
    file.chmod(0o666)
    os.chown(file, 12_345, 23_456)
    make = tempfile.mkstemp

    def swapped(**options):
        descriptor, name = make(**options)
        os.unlink(name)
        os.symlink(victim, name)
        return descriptor, name

    monkeypatch.setattr(tempfile, "mkstemp", swapped)
    before = victim.stat()
    file_set.carry_out([file_set.Change(file, b"old", b"new")])
    assert victim.stat() == before


def test_git_is_told_too(tmp_path, patch):
    """The list for git, but not where it is a link to TARGETS."""
    tree = make_tree(tmp_path / "git", **TREES["notqmail 1.09"])
    (tree / ".gitignore").write_text(TARGETS)
    patch(tree)
    assert (tree / ".gitignore").read_text() == (tree / "TARGETS").read_text() != TARGETS
    linked = make_tree(tmp_path / "linked", **TREES["notqmail 1.08"])
    (linked / ".gitignore").symlink_to("TARGETS")
    patch(linked)
    assert (linked / ".gitignore").is_symlink()
    assert (linked / "TARGETS").read_text().count("checkenv.o\n") == 1


def test_a_file_that_is_a_link_stays_one(qmail, patch):
    (qmail / "qmail-smtpd.c").rename(qmail.parent / "elsewhere.c")
    (qmail / "qmail-smtpd.c").symlink_to("../elsewhere.c")
    patch(qmail)
    assert (qmail / "qmail-smtpd.c").is_symlink()
    assert "checkenv(" in (qmail.parent / "elsewhere.c").read_text()


def test_other_patches_may_be_there(qmail, patch):
    """What leaves the places alone is no hindrance."""
    edit(qmail / "qmail-smtpd.c", '#include "commands.h"\n', '#include "commands.h"\n#include "tls.h"\n')
    edit(qmail / "Makefile", "\t./load qmail-smtpd rcpthosts.o", "\t./load qmail-smtpd rcpthosts.o tls.o")
    before = snapshot(qmail)
    patch(qmail)
    patch(qmail, "--reverse")
    assert snapshot(qmail) == before


def sealed_elsewhere(tree):
    """Our own copy, by a link out of the tree."""
    (tree.parent / "elsewhere.c").write_bytes(qmail_source.seal(shipped("qmail/checkenv.c").read_bytes()))
    (tree / "checkenv.c").symlink_to("../elsewhere.c")


@pytest.mark.parametrize(("change", "said"), [
    (lambda tree: (tree / "qmail-smtpd.c").unlink(), "no qmail-smtpd.c; name the directory of an unpacked"),
    (lambda tree: (tree / "VERSION").write_text("qmail 1.01\n"), "this is qmail 1.01; patch-qmail knows notqmail 1.09"),
    (lambda tree: (tree / "VERSION").unlink(), "this is a tree without VERSION; patch-qmail knows"),
    (lambda tree: (tree / "VERSION").write_bytes(b"\xff\x00\n"), "; patch-qmail knows"),
    (lambda tree: (tree / "Makefile").unlink(), "cannot read .*Makefile: No such file"),
    (lambda tree: (tree / "TARGETS").unlink(), "cannot read .*TARGETS: No such file"),
    (lambda tree: edit(tree / "qmail-smtpd.c", "if (!addrallowed())", "if (!addrallowed() && !spp())"),
     r"qmail-smtpd.c: no place for the call in smtp_rcpt\(\)"),
    (lambda tree: edit(tree / "qmail-smtpd.c", '#include "timeoutwrite.h"\n', ""), "no place for the include"),
    (lambda tree: edit(tree / "TARGETS", "qmail-smtpd.o\n", ""), "TARGETS: no place for the object file"),
    (lambda tree: edit(tree / "FILES", "qmail-start.c\n", ""), "FILES: no place for the source files"),
    (lambda tree: edit(tree / "Makefile", "./load qmail-smtpd rcpt", "./load qmail-smtpd tls.o rcpt"),
     "Makefile: no place for the link of qmail-smtpd"),
    (lambda tree: (tree / "Makefile").write_text((tree / "Makefile").read_text() * 2), "is not there exactly once"),
    (lambda tree: (tree / "qmail-smtpd.c").write_bytes((tree / "qmail-smtpd.c").read_bytes().replace(b"\n", b"\r\n")),
     "no place for"),
    (lambda tree: edit(tree / "qmail-smtpd.c", "void smtp_rcpt", "char *checkenv;\nvoid smtp_rcpt"),
     "'char \\*checkenv;' is not from patch-qmail; take that out first"),
    (lambda tree: edit(tree / "qmail-smtpd.c", "void smtp_rcpt", '/* env_get("CHECKENV") */\nvoid smtp_rcpt'),
     "is not from patch-qmail"),
    (lambda tree: (tree / "checkenv.c").write_text("int checkenv;\n"), "checkenv.c: not as patch-qmail put it there"),
    (lambda tree: (tree / "checkenv.h").write_text(""), "checkenv.h: not as patch-qmail put it there"),
    (lambda tree: shutil.copy(shipped("qmail/checkenv.c"), tree), "checkenv.c: not as patch-qmail put it there"),
    (lambda tree: (tree / "checkenv.h").symlink_to("../elsewhere.h"), "checkenv.h: a symbolic link, not as"),
    (sealed_elsewhere, "checkenv.c: a symbolic link, not as patch-qmail put it there; move it out"),
])
@pytest.mark.parametrize("options", [(), ("--reverse",)], ids=str)
def test_what_it_does_not_know(qmail, refused, change, said, options):
    change(qmail)
    line = refused(qmail, *options)
    assert re.search(said, line), line
    assert str(qmail) in line


@pytest.mark.parametrize("release", ["1.10", "1.0", ""])
def test_another_notqmail(tmp_path, refused, release):
    tree = make_tree(tmp_path / "tree", **TREES["notqmail 1.09"] | {"release": f"RELEASE_VERSION={release}\n"})
    assert "; patch-qmail knows notqmail 1.09, notqmail 1.08, netqmail 1.06, qmail 1.03" in refused(tree)


def test_a_directory_above_the_source(qmail, run_fastgrey):
    done = run_fastgrey("patch-qmail", qmail.parent)
    assert done.returncode == 1
    assert done.stderr == (f"fastgrey: {qmail.parent}: no qmail-smtpd.c; name the directory of an unpacked qmail "
                           f"source; perhaps {qmail}\n")
    done = run_fastgrey("patch-qmail", qmail / "missing")
    assert "there is no such directory" in done.stderr


@pytest.mark.parametrize(("file", "old", "new", "named"), [
    ("qmail-smtpd.c", "if (refused) { out(refused); return; }", "if (refused) { out(refused); flush(); return; }",
     r"qmail-smtpd.c: the call in smtp_rcpt\(\) was changed since it was put in"),
    ("qmail-smtpd.c", '#include "checkenv.h"\n', '#include "checkenv.h" /* ours */\n', "the include was changed"),
    ("Makefile", "./compile checkenv.c", "./compile -g checkenv.c", "Makefile: the rule for checkenv.o was changed"),
    ("Makefile", "load qmail-smtpd checkenv.o", "load qmail-smtpd -g checkenv.o", "link of qmail-smtpd was changed"),
    ("TARGETS", "checkenv.o\n", "checkenv.o\ncheckenv.o\n", "TARGETS: the object file was changed"),
    ("checkenv.c", "default 10", "default 20", "checkenv.c: not as patch-qmail put it there; move it out"),
    ("checkenv.h", "#endif", "# endif", "checkenv.h: not as patch-qmail put it there; move it out"),
])
@pytest.mark.parametrize("options", [(), ("--reverse",)], ids=str)
def test_what_was_changed_since(qmail, patch, refused, file, old, new, named, options):
    patch(qmail)
    text = (qmail / file).read_text()
    (qmail / file).write_text(text.replace(old, new, 1))
    assert (qmail / file).read_text() != text
    line = refused(qmail, *options)
    assert re.search(named, line), line


def test_the_rest_may_change_since(qmail, patch):
    patch(qmail)
    edit(qmail / "qmail-smtpd.c", "  if (!addrparse(arg))", "  /* mine */\n  if (!addrparse(arg))")
    patch(qmail, "--reverse")
    assert (qmail / "qmail-smtpd.c").read_text() == SMTPD.replace(
        "  if (!addrparse(arg))", "  /* mine */\n  if (!addrparse(arg))")


def test_an_older_copy_is_replaced(qmail, patch):
    patch(qmail)
    now = (qmail / "checkenv.c").read_bytes()
    (qmail / "checkenv.c").write_bytes(qmail_source.seal(b"/* an older one */\n"))
    assert json.loads(patch(qmail, "--json"))["changed"] == {"checkenv.c": "changed"}
    assert (qmail / "checkenv.c").read_bytes() == now
    (qmail / "checkenv.c").write_bytes(qmail_source.seal(b"/* an older one */\n"))
    patch(qmail, "--reverse")
    assert not (qmail / "checkenv.c").exists()


@pytest.mark.parametrize("missing", ["checkenv.c", "checkenv.h"])
def test_a_copy_that_was_removed_comes_back(qmail, patch, missing):
    before = snapshot(qmail)
    patch(qmail)
    after = snapshot(qmail)
    (qmail / missing).unlink()
    assert "it was patched in part" in patch(qmail)
    assert snapshot(qmail) == after
    (qmail / missing).unlink()
    patch(qmail, "--reverse")
    assert snapshot(qmail) == before


@pytest.mark.parametrize("options", [(), ("--reverse",)], ids=str)
def test_read_only_and_full_disk(qmail, patch, refused, tmp_path, options):
    with small_disk(tmp_path / "disk", "256k") as disk:
        tree = shutil.copytree(qmail, disk / "qmail")
        if options:
            patch(tree)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        line = refused(tree, *options)
        assert re.search(r"cannot write .*: Read-only file system; nothing was changed$", line), line
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        fill_up(disk / "filler")
        line = refused(tree, *options)
        assert re.search(r"cannot write .*: No space left on device; nothing was changed$", line), line
        (disk / "filler").unlink()
        patch(tree, *options)


# What happens just before the nth name of the tree changes.
STRUCK = """
import os, signal, sys
left = int(sys.argv.pop(1))
what = sys.argv.pop(1)
def strike(event, arguments):
    global left
    if event == "os.rename" or (event == "os.remove" and os.path.basename(arguments[0]).startswith("checkenv.")):
        left -= 1
        if left == 0 and what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if left == 0 and what == "interrupt":
            raise KeyboardInterrupt
        if left == 0:
            raise OSError(5, "Input/output error", str(arguments[0]))
sys.addaudithook(strike)
from fastgrey.cli.main import main
main()
"""


def strike(number, what, tree, *options):
    """Run the command on a tree until it is struck."""
    return subprocess.run([sys.executable, "-c", STRUCK, str(number), what, "patch-qmail", *options, tree],
                          capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("options", [(), ("--reverse",)], ids=str)
@pytest.mark.parametrize(("what", "status", "said"), [
    ("interrupt", 130, "interrupted; what is in place is whole"),
    ("error", 1, "Input/output error; nothing was changed"),
])
def test_struck_in_the_middle(qmail, patch, number, options, what, status, said):
    """All goes back, and nothing lies about."""
    if options:
        patch(qmail)
    before = snapshot(qmail)
    done = strike(number, what, qmail, *options)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert snapshot(qmail) == before


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("reverse", [False, True])
def test_killed_in_the_middle(qmail, patch, tmp_path, number, reverse):
    """Every file is whole, the tree compiles, and the next run brings it to either end."""
    plain = snapshot(qmail)
    patched_tree = shutil.copytree(qmail, tmp_path / "patched")
    patch(patched_tree)
    patched = snapshot(patched_tree)
    if reverse:
        patch(qmail)
    done = strike(number, "kill", qmail, *(["--reverse"] if reverse else []))
    assert done.returncode == -signal.SIGKILL
    for beside in qmail.glob(".*"):
        beside.unlink()
    found = snapshot(qmail)
    for name, facts in found.items():
        assert facts in (plain.get(name), patched.get(name)), name
    names = list(found)
    calls = b"checkenv(" in found["qmail-smtpd.c"][0]
    assert not calls or {"checkenv.c", "checkenv.h"} <= set(names)
    make(shutil.copytree(qmail, tmp_path / "made"))
    other = shutil.copytree(qmail, tmp_path / "other")
    patch(qmail)
    assert snapshot(qmail) == patched
    patch(other, "--reverse")
    assert snapshot(other) == plain

"""Looks at a hook that is installed: the program, the qmail-smtpd that runs it, the store that it works with."""

import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .. import directory, health
from ..health import layout, programs, sharing
from ..health.account import group_name
from ..health.finding import Finding, Place, Trouble, doubt, good, run, wrong
from ..health.sharing import ways_to
from . import files, told
from .job import Job


def examine(job: Job, source: Path | None) -> list[Finding]:
    """All findings. source: the executable that came with this fastgrey, None where there is none."""
    looks = [partial(_program, job, source), partial(_way, job), partial(_beside, job), partial(_server, job),
             *([partial(_listed, job)] if job.hook.name == "spp" else []), partial(_store, job)]
    return health.judge(Place(Path(job.store), job.account, str(job.target)), looks)


def after(job: Job) -> list[Finding]:
    """Findings about what was there before an install: who may write above the program, and the store."""
    return health.judge(Place(Path(job.store), job.account), [partial(_way, job), partial(_store, job)])


def _program(job: Job, source: Path | None, place: Place) -> Iterator[Finding]:
    target, again = job.target, run(*job.command())
    if not os.path.exists(target):
        raise Trouble(wrong(f"there is no {target}", again))
    if not files.is_ours(target.resolve()):
        raise Trouble(wrong(f"{target} is not fastgrey's", again))
    if target.is_symlink():
        yield doubt(f"{target} is a symbolic link to {target.resolve()}, not a program of its own", again)
    status = target.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != 0:
        raise Trouble(wrong(f"{target} belongs to {_user(status.st_uid)}, who may exchange it",
                            run("chown", "root", str(target))))
    if mode != files.MODE:
        # Others than its owner may write it, or are root while it runs, or its user may not execute it.
        judged = wrong if mode & 0o6022 or mode & 0o111 != 0o111 else doubt
        raise Trouble(judged(f"mode {mode:o} of {target} instead of 755", run("chmod", "755", str(target))))
    findings = list(programs.hook(place))
    yield from findings
    if source is None:
        yield doubt(f"no {programs.HOOK} came with this fastgrey to compare {target} with", "install fastgrey again")
    elif all(finding.level == "good" for finding in findings) and source.read_bytes() != target.read_bytes():
        yield doubt(f"{target} is of the same version as {source}, but another build", again)


def _way(job: Job, place: Place) -> Iterator[Finding]:
    """The directories above the program: who may write to one of them may exchange it."""
    for folder, _ in ways_to(job.target):
        # What is not there is told elsewhere.
        if not folder.is_dir():
            continue
        status = folder.stat()
        if status.st_uid != 0:
            who = _user(status.st_uid)
        elif status.st_mode & stat.S_ISVTX or not status.st_mode & 0o022:
            # In a directory like /tmp everybody has his own.
            continue
        elif status.st_mode & 0o002:
            who = "every user"
        elif status.st_gid != 0:
            who = f"the group {group_name(status.st_gid)}"
        else:
            continue
        yield wrong(f"{who} may write to {folder}, and so exchange the program that qmail-smtpd runs",
                    f"{run('chown', 'root', str(folder))} && chmod go-w {shlex.quote(str(folder))}")


def _beside(job: Job, place: Place) -> Iterator[Finding]:
    """What installs have left in the directory."""
    if os.path.lexists(job.new):
        yield doubt(f"{job.new} is left over of an install that was killed", run("rm", str(job.new)))
    if os.path.lexists(job.kept):
        yield good(f"{job.kept} is what was there before; --uninstall puts it back")


def _server(job: Job, place: Place) -> Iterator[Finding]:
    """Whether qmail-smtpd has the hook at all, as far as its text tells."""
    server = job.qmail / "bin" / "qmail-smtpd"
    hook = job.hook
    if not server.is_file():
        yield doubt(f"there is no {server} to look at", "name qmail's home with --qmail")
    elif hook.sign not in server.read_bytes():
        advice = ("patch its source, as told by: fastgrey patch-qmail --help" if hook.name == "checkenv"
                  else "build it with the patch that brings the hook")
        yield wrong(f"{server} does not know {hook.sign.decode()}, so it will never run {job.target}", advice)
    else:
        yield good(f"{server} knows {hook.sign.decode()}")


def _listed(job: Job, place: Place) -> Iterator[Finding]:
    """Whether qmail-spp's list has the program where recipients are."""
    if told.is_listed(job):
        yield good(f"{told.plugins(job)} has it under [rcpt]")
    else:
        yield wrong(f"{told.plugins(job)} does not name it under [rcpt]",
                    f"write the line {told.plugin(job)} there, below [rcpt]")


def _store(job: Job, place: Place) -> Iterator[Finding]:
    if job.account is None:
        raise Trouble(wrong(f"there is no group {job.group} to share the store", run(*job.command("--create-group"))))
    if not os.path.lexists(place.root / "current") and not (place.root.is_dir() and directory.generations(place.root)):
        raise Trouble(wrong(f"there is no store at {place.root}", run(*job.command())))
    yield from layout.store(place)
    yield from sharing.mode(place)
    yield from sharing.access(place)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"

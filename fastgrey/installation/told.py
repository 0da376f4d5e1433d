"""What a person has to write where, for each hook: the run script, tcpserver's rules, qmail-spp's list."""

import os
import shlex
from pathlib import Path
from typing import NamedTuple

from .. import configuration, directory
from ..health.account import account
from .job import Job

# The form in which s/qmail has the address of a greylister; fastgrey asks nobody.
POSTGREY = "127.0.0.1;10023"


class Told(NamedTuple):
    """Lines, and where they belong."""

    where: str
    lines: list[str]


def told(job: Job) -> list[Told]:
    """All that a hook needs."""
    name, value = _switch(job)
    variables = {name: value}
    if job.store != directory.DEFAULT_STORE:
        variables["FASTGREY_STORE"] = job.store
    script = [f"export {variable}={shlex.quote(text)}" for variable, text in variables.items()]
    found = [Told("in the run script of qmail-smtpd", [*script, _server(job)])]
    if job.hook.name == "spp":
        return [*found, Told(f"in {plugins(job)}", ["[rcpt]", plugin(job)])]
    return [*found, Told("or, to have it for some clients only, in place of the first line in the rules of tcpserver",
                         [f'192.0.2.:allow,{name}="{value}"'])]


def next_step(job: Job) -> str:
    """The commands that come after those lines."""
    configured = os.path.exists(configuration.default_path())
    apply = ["fastgrey", "apply", *(["--store", job.store] if job.store != directory.DEFAULT_STORE else [])]
    return " && ".join([*([shlex.join(apply)] if configured else []), shlex.join(job.command("--check"))])


def plugins(job: Job) -> Path:
    """The list of qmail-spp's plugins."""
    return job.qmail / "control" / "smtpplugins"


def plugin(job: Job) -> str:
    """The program as qmail-spp's list names it: from qmail's home, where it is below that."""
    return str(job.target.relative_to(job.qmail) if job.qmail in job.target.parents else job.target)


def is_listed(job: Job) -> bool:
    """Whether qmail-spp runs the program for recipients. It goes by the first letter of a section's name."""
    section = ""
    try:
        lines = plugins(job).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return False
    for line in (line.strip() for line in lines):
        if line.startswith("["):
            section = line[1:2]
        elif section == "r" and line in (plugin(job), str(job.target)):
            return True
    return False


def _switch(job: Job) -> tuple[str, str]:
    """The variable that makes qmail-smtpd run the hook."""
    program = str(job.target)
    return {
        "checkenv": ("CHECKENV", program),
        "envelope-scanner": ("ENVELOPE_SCANNER", program),
        "rcptcheck": ("RCPTCHECK", program),
        "spp": ("ENABLE_SPP", "1"),
        "postgrey": ("POSTGREY", POSTGREY),
    }[job.hook.name]


def _server(job: Job) -> str:
    """By numbers, because tcpserver takes no names."""
    group = job.account.groups[0] if job.account else "NUMBER"
    # With a group, a number needs no entry among the users.
    uid = account(f"{job.user}:0").uid
    return (f"tcpserver -u {uid} -g {group} ...    # {job.user}, and {job.group}: the group that "
            "shares the store")

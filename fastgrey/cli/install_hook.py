"""fastgrey install-hook."""

import os
import shlex
import sys
from pathlib import Path

import click

from fastgrey import directory, health, installation
from fastgrey.cli.common import dry_run_option, json_option, print_findings, print_json, say, store_option, store_path
from fastgrey.errors import InstallationError, SettingsError
from fastgrey.health.finding import Finding
from fastgrey.health.programs import find_hook
from fastgrey.hooks import HOOKS
from fastgrey.installation import Job, files, looks
from fastgrey.installation.job import GROUP, QMAIL, USER, make_group
from fastgrey.installation.told import is_listed, next_step, plugin, plugins, told


@click.command()
@click.argument("hook", type=click.Choice(tuple(HOOKS)), default="checkenv", metavar="[HOOK]")
@click.option("--qmail", metavar="DIR", default=QMAIL, show_default=True, help="The home of qmail.")
@click.option("--to", metavar="DIR", help="Where the program goes. Default: bin in qmail's home; for spp plugins, "
              "where that is there.")
@click.option("--user", metavar="NAME", default=USER, show_default=True, help="The user that runs qmail-smtpd.")
@click.option("--group", metavar="NAME", default=GROUP, show_default=True, help="The group that shares the store, and "
              "that tcpserver -g has to give.")
@click.option("--create-group", is_flag=True, help="Make that group where there is none.")
@store_option
@click.option("--check", is_flag=True, help="Change nothing; look whether what is installed fits.")
@click.option("--uninstall", is_flag=True, help="Remove the program and put back what was there before.")
@dry_run_option
@json_option
def install_hook(hook: str, qmail: str, to: str | None, user: str, group: str, create_group: bool, store: str | None,
                 check: bool, uninstall: bool, dry_run: bool, as_json: bool) -> None:
    """Put the hook in its place on a mail server, make its store, and tell what to write into the run script.

    HOOK is how qmail-smtpd asks: checkenv (the default), envelope-scanner, rcptcheck, spp or postgrey. A program of
    others that is in the place is kept as NAME.before-fastgrey. Run again, it brings the program up to date. Exit
    status: 0 done, 1 could not be done, or the store does not fit; of --check as of fastgrey doctor: 0 all is good, 1
    something is in doubt, 2 something is wrong.

    \b
    Example: fastgrey install-hook checkenv --create-group
    """
    if check + uninstall > 1:
        raise click.UsageError("--check and --uninstall exclude each other")
    job = installation.plan(HOOKS[hook], qmail, to, user, group, store_path(store))
    source = find_hook()
    if check:
        _check(job, Path(source) if source else None, as_json)
        return
    if os.geteuid() != 0 and not dry_run:
        raise InstallationError("only root may install a hook; run this as root, or look with --dry-run or --check")
    if uninstall:
        _uninstall(job, dry_run, as_json)
    else:
        _install(job, source, create_group, dry_run, as_json)


def _install(job: Job, source: str | None, create_group: bool, dry_run: bool, as_json: bool) -> None:
    if source is None:
        raise InstallationError("no qmail-checkenv is beside fastgrey, nor on the path; install fastgrey again")
    content = files.program(Path(source))
    makes_group = job.account is None
    if makes_group and not create_group:
        raise SettingsError(f"--group {job.group}: there is no such group; make it with: groupadd --system "
                            f"{job.group}, or add --create-group")
    makes_store = not os.path.lexists(os.path.join(job.store, "current"))
    if makes_store and os.path.isdir(job.store) and directory.generations(Path(job.store)):
        # A new store would begin with their removal.
        raise InstallationError(f"{job.store} has a store without its link {os.path.join(job.store, 'current')}; ask: "
                                f"{shlex.join(['fastgrey', 'doctor', '--store', job.store])}")
    # All that can be refused is refused before anything is written.
    files.put(job, content, dry_run=True)
    if makes_group and not dry_run:
        make_group(job.group)
        job = job.again()
    if makes_store and not dry_run:
        assert job.account is not None
        directory.create(job.store, group=job.account.groups[0])
    change = files.put(job, content, dry_run)
    findings = [] if makes_store and dry_run or makes_group and dry_run else looks.after(job)
    if as_json:
        print_json(_facts(job, change, dry_run) | {
            "store": job.store, "store_created": makes_store, "group_created": makes_group,
            "lines": [told._asdict() for told in told(job)], "next": next_step(job), "findings": _plain(findings)})
    else:
        _say_change(job, change, dry_run)
        would = "would be " if dry_run else ""
        if makes_group:
            say(f"group {job.group}: {would}created")
        say(f"{job.store}: " + (f"{would}created, shared with the group {job.group}" if makes_store
                                else "the store that is there"))
        for where, lines in told(job):
            say(f"\n{where}:")
            for line in lines:
                say(f"    {line}")
        say(f"\nthen: {next_step(job)}")
        print_findings([finding for finding in findings if finding.level != "good"], err=True)
    sys.exit(min(health.status(findings), 1))


def _check(job: Job, source: Path | None, as_json: bool) -> None:
    findings = looks.examine(job, source)
    status = health.status(findings)
    if as_json:
        print_json({"hook": job.hook.name, "program": str(job.target), "store": job.store, "status": status,
                    "findings": _plain(findings)})
    else:
        print_findings(findings)
    sys.exit(status)


def _uninstall(job: Job, dry_run: bool, as_json: bool) -> None:
    if job.hook.name == "spp" and is_listed(job):
        # qmail-spp answers every recipient with an error where a plugin that it lists is missing.
        raise InstallationError(f"{plugins(job)} still names the hook, and mail would stop; take out the line "
                                f"{plugin(job)} first, then run this again")
    change = files.take_away(job, dry_run)
    if as_json:
        print_json(_facts(job, change, dry_run) | {"store": job.store})
        return
    _say_change(job, change, dry_run)
    say(f"{job.store}: stays, with all that was learned")
    if change.action != "nothing":
        say(f"take out of the run script and of tcpserver's rules what names {job.target}")


def _facts(job: Job, change: files.Change, dry_run: bool) -> dict[str, object]:
    return {"hook": job.hook.name, "program": str(job.target), "action": change.action,
            "kept": str(change.kept) if change.kept else None, "dry_run": dry_run}


def _say_change(job: Job, change: files.Change, dry_run: bool) -> None:
    done = {"unchanged": "is in place, nothing to change", "nothing": "is not there, nothing to remove",
            "restored": "what was there before fastgrey {} put back", "removed": "{} removed",
            "replaced": "{} replaced", "installed": "{} installed"}[change.action]
    verb = "would be" if dry_run else "was"
    say(f"{job.target}: {done.format(verb)}")
    if change.kept:
        say(f"{change.kept}: {verb if change.action == 'replaced' else 'is'} what was there before")


def _plain(findings: list[Finding]) -> list[dict[str, str]]:
    return [finding._asdict() for finding in findings]

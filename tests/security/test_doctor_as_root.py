"""Doctor as root, with no user named, runs no program that others may exchange."""

import shutil

import pytest
from machine import NOBODY, needs_root

from conftest import HOOK
from fastgrey.health import programs
from fastgrey.health.finding import Place

pytestmark = needs_root

HARM = {
    "its owner": (lambda folder, hook: shutil.chown(hook, NOBODY), "qmail-checkenv can be changed"),
    "its group": (lambda folder, hook: (shutil.chown(hook, group=NOBODY), hook.chmod(0o775)), "qmail-checkenv can be"),
    "its directory": (lambda folder, hook: shutil.chown(folder, NOBODY), "bin can be changed"),
    "everybody": (lambda folder, hook: folder.chmod(0o777), "bin can be changed"),
}


@pytest.mark.parametrize("harm", HARM)
def test_not_run(make_store, run_fastgrey, tmp_path, harm):
    make_store()
    folder = tmp_path / "bin"
    folder.mkdir()
    hook = folder / "qmail-checkenv"
    # It would leave a trace.
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/run\necho 'qmail-checkenv 0.1.0, LMDB 0.9.24'\n")
    hook.chmod(0o755)
    run_fastgrey("doctor", "--hook", str(hook))
    assert (tmp_path / "run").exists()
    (tmp_path / "run").unlink()
    change, words = HARM[harm]
    change(folder, hook)
    said = run_fastgrey("doctor", "--hook", str(hook)).stdout
    assert words in said and "was not run as root" in said and "--user" in said
    assert not (tmp_path / "run").exists()


def test_the_one_that_is_installed_is_run(make_store, run_fastgrey, tmp_path):
    make_store()
    hook = shutil.copy(HOOK, tmp_path / "qmail-checkenv")
    assert "version" in run_fastgrey("doctor", "--hook", str(hook)).stdout


def test_a_link_on_the_way_is_led_elsewhere_meanwhile(make_store, tmp_path, monkeypatch):
    """Between the look and the run: what was looked at is run."""
    make_store()
    folder = tmp_path / "bin"
    folder.mkdir()
    hook, link, other = tmp_path / "qmail-checkenv", folder / "link", tmp_path / "other"
    other.write_text(f"#!/bin/sh\ntouch {tmp_path}/run\n")
    other.chmod(0o755)
    shutil.copy(HOOK, hook)
    link.symlink_to(hook)
    named = tmp_path / "named"
    named.symlink_to(link)
    looked = programs._not_writable

    def exchanging(*arguments):
        found = looked(*arguments)
        link.unlink()
        link.symlink_to(other)
        return found

    monkeypatch.setattr(programs, "_not_writable", exchanging)
    place = Place(tmp_path / "store", hook=str(named))
    assert not [finding for finding in programs.hook(place) if finding.level == "wrong"]
    assert not (tmp_path / "run").exists()

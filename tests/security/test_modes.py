"""Every file of a store is for its user and its group, whatever mask its maker came with, and nobody else's ever."""

import os
import stat
import subprocess

import pytest
from machine import NOBODY, needs_root, open_the_way
from planted import GROUP

import fastgrey
from conftest import FASTGREY, HOOK

pytestmark = needs_root


def modes(folder):
    """Mode by name of all there is, but of links."""
    return {str(entry.relative_to(folder)): stat.S_IMODE(entry.lstat().st_mode)
            for entry in [folder, *folder.rglob("*")] if not entry.is_symlink()}


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_whatever_mask(path, tmp_path, mask, config):
    """docs/format.md: directories 2770, files 0660."""
    open_the_way(tmp_path)
    config('delay = "1s"\nallow_clients = ["203.0.113.0/24"]\n')
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "FASTGREY_STORE": str(path),
                   "FASTGREY_CONFIG": str(tmp_path / "etc" / "fastgrey.toml"), "TCPREMOTEIP": "192.0.2.9"}
    saved = tmp_path / "saved"

    def run(*command, status=0, **options):
        done = subprocess.run(command, env=environment, capture_output=True, umask=mask, **options)
        assert done.returncode == status, done

    before = os.umask(mask)
    try:
        fastgrey.create(path, group=GROUP)
    finally:
        os.umask(before)
    for words in (["apply"], ["pass", "192.0.2.1", "known@example.org", "b@example.net"],
                  ["expect", "x@example.net", "--for", "5m"], ["compact"], ["backup", str(saved)], ["rollback"]):
        run(FASTGREY, *words)
    hook = tmp_path / "qmail-checkenv"
    hook.write_bytes(HOOK.read_bytes())
    hook.chmod(0o755)
    run(hook, "a@example.org", "b@example.net", status=111, user=NOBODY, group=GROUP, extra_groups=[])
    run(FASTGREY, "restore", str(saved))
    found = modes(path)
    assert {"stats", "compaction.lock", "compaction.status"} <= set(found)
    assert any(name.startswith("pending.") and name.endswith("lock.mdb") for name in found)
    for name, mode in found.items():
        folder = (path / name).is_dir()
        assert mode == (0o2770 if folder else 0o660), (name, oct(mode))
        assert (path / name).lstat().st_gid == GROUP, name
    # The secret of the keys is in it.
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600


def test_backup_in_place_of_a_public_file(make_store, run_fastgrey, tmp_path):
    make_store()
    saved = tmp_path / "saved"
    for name in (saved, tmp_path / "saved.new"):
        name.write_bytes(b"")
        name.chmod(0o666)
    with open(tmp_path / "saved.new", "rb") as held:
        assert run_fastgrey("backup", str(saved)).returncode == 0
        # Who had it open reads nothing of the secret.
        assert held.read() == b""
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600


def test_another_user_finds_no_store(shared_store, run_hook):
    """Who is not of the group may run the hook: with his rights."""
    before = modes(shared_store)
    answer = run_hook(user=NOBODY - 1, group=NOBODY - 1, extra_groups=[])
    assert answer.words == ["accept", "error"] and "Permission denied" in answer.line
    assert modes(shared_store) == before

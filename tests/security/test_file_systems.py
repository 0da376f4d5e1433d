"""Network file systems are refused by name, where a store is made."""

import re
from pathlib import Path

import pytest

import fastgrey
from fastgrey import disk
from fastgrey.errors import StoreError


@pytest.fixture
def mounted_as(tmp_path, monkeypatch):
    """Let the directory be told as mounted with a file system of this kind, as /proc/self/mounts would."""
    place = tmp_path / "with blank"

    def mount(kind):
        place.mkdir()
        table = tmp_path / "mounts"
        table.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {str(place).replace(' ', chr(92) + '040')} {kind} rw 0 0\n")
        monkeypatch.setattr(disk, "MOUNTS", table)
        return place

    return mount


PLATFORMS = Path(__file__).resolve().parents[2] / "docs" / "platforms.md"


def refused_by_the_manual():
    (names,) = re.findall(r"^\| (nfs, .+?) \| refused ", PLATFORMS.read_text(), re.MULTILINE)
    kernel, _, fuse = names.partition("; through fuse: ")
    return [*kernel.split(", "), *(f"fuse.{name}" for name in fuse.split(", "))]


@pytest.mark.parametrize("kind", refused_by_the_manual())
def test_refused(mounted_as, kind):
    place = mounted_as(kind)
    with pytest.raises(StoreError, match=f"is on {kind}, a network file system.*local"):
        fastgrey.create(place / "store")
    assert not list(place.iterdir())


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "xfs", "overlay", "fuse.mergerfs"])
def test_local(mounted_as, kind):
    place = mounted_as(kind)
    fastgrey.create(place / "store")
    assert (place / "store" / "current").is_symlink()


def test_what_the_machine_says(tmp_path):
    """With its own table, and a path that is not there yet."""
    mount, kind = disk.mounted(tmp_path / "not" / "yet")
    assert kind and str(tmp_path.resolve()).startswith(mount.rstrip("/"))


def test_all_that_are_refused_are_named():
    assert set(refused_by_the_manual()) == disk.NETWORK_FILE_SYSTEMS

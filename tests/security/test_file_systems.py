"""Network file systems are refused by name, where a store is made."""

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


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs"])
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

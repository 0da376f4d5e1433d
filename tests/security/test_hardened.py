"""The executable, as its file says: what the linker was told is in it. What the compiler was told cannot be seen in a
file without names, to which LMDB and the C library bring guards of their own: tests/native/test_executable.py."""

import re
import subprocess

import pytest

from conftest import HOOK


def readelf(*options):
    return subprocess.run(["readelf", "-W", *options, HOOK], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def segments():
    """Kind, address, size in memory and rights of each segment."""
    rows = re.findall(r"^  ([A-Z_]+) +0x\w+ 0x(\w+) 0x\w+ 0x\w+ 0x(\w+) ([R ][W ][E ]) ", readelf("-l"), re.MULTILINE)
    return [(kind, int(address, 16), int(size, 16), rights) for kind, address, size, rights in rows]


def test_nothing_is_both_written_and_executed(segments):
    assert not [row for row in segments if "W" in row[3] and "E" in row[3]]
    assert [rights for kind, _, _, rights in segments if kind == "GNU_STACK"] == ["RW "]
    assert len([row for row in segments if row[0] == "LOAD"]) >= 2


def test_addresses_of_functions_are_for_reading_only(segments):
    """Full RELRO: the table of addresses is filled at start, and lies in what is protected then."""
    ((_, start, size, _),) = [row for row in segments if row[0] == "GNU_RELRO"]
    sections = {name: (int(address, 16), int(length, 16)) for name, address, length in re.findall(
        r"\] (\.\S+) +\S+ +(\w{8,}) \w+ (\w+) ", readelf("-S"))}
    assert ".got" in sections
    for name in (".got", ".data.rel.ro", ".init_array"):
        address, length = sections[name]
        assert start <= address and address + length <= start + size, name
    if ".got.plt" in sections:
        address, length = sections[".got.plt"]
        assert start <= address and address + length <= start + size


def test_loaded_anywhere():
    """Where the C library has what that takes, as Debian's has."""
    assert "Type:                              DYN" in readelf("-h")
    assert "INTERP" not in readelf("-l")
    assert re.search(r"\(FLAGS_1\).*NOW.*PIE|\(FLAGS_1\).*PIE", readelf("-d"))

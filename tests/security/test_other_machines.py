"""A store of another byte order or word size is refused by name: by the hook, by commands, by doctor."""

import pytest

# How a table begins, as LMDB 0.9.24 writes it there: the head of a page, then its number and version.
BEGINNINGS = {
    "s390x": bytes.fromhex("0000000000000000 0000 0008 00000000 beefc0de 00000001"),
    "i386": bytes.fromhex("00000000 0000 0800 00000000 dec0efbe 01000000 00000000"),
    "ppc": bytes.fromhex("00000000 0000 0008 00000000 beefc0de 00000001 00000000"),
}
SAID = "another byte order or word size"


@pytest.mark.parametrize("machine", BEGINNINGS)
def test_refused_by_name(make_store, run_hook, run_fastgrey, path, machine):
    make_store()
    data = path / "passed.000001" / "data.mdb"
    content = data.read_bytes()
    beginning = BEGINNINGS[machine]
    # Both meta pages.
    data.write_bytes(beginning + content[len(beginning):4096] + beginning + content[4096 + len(beginning):])
    answer = run_hook()
    assert answer.words == ["accept", "error"] and SAID in answer.line and "fastgrey init" in answer.line
    done = run_fastgrey("stats")
    assert done.returncode == 1 and SAID in done.stderr and done.stderr.count("\n") == 1
    assert SAID in run_fastgrey("doctor").stdout


def test_damage_is_no_other_machine(make_store, run_hook, path):
    make_store()
    data = path / "passed.000001" / "data.mdb"
    content = bytearray(data.read_bytes())
    content[16:20] = content[4112:4116] = b"\0\0\0\0"
    data.write_bytes(content)
    assert SAID not in run_hook().line and "damaged" in run_hook().line

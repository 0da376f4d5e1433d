"""Engines and the packages that they need: what happens where those are not installed."""

import subprocess
import sys

import pytest

from shared import redis_server

WITHOUT = "import sys\nfor name in sys.argv[1].split(','):\n    sys.modules[name] = None\n"
OPEN = WITHOUT + """
from fastgrey.errors import EngineError
from fastgrey.shared.open import engine_from_url
try:
    engine_from_url(sys.argv[2])
except EngineError as error:
    print(error)
"""
USE = WITHOUT + """
import asyncio, os
from fastgrey.shared import valkey, valkey_link
from fastgrey.shared.engine import Write
assert valkey_link.pack_command is None and "Libvalkey" not in valkey._Parser.__mro__[1].__name__

async def run():
    engine = valkey.Valkey(sys.argv[2], timeout=60.0)
    await engine.open()
    slots = [("client", os.urandom(16)) for _ in range(3)]
    assert await engine.secret(b"x" * 192) == b"x" * 192
    assert await engine.swap(slots, [Write(0, 0, 5, 60), Write(2, 0, 1 << 63, 60)])
    assert not await engine.swap(slots, [Write(0, 6, 7, 60)])
    assert await asyncio.gather(*(engine.fetch(slots) for _ in range(50))) == [[5, 0, 1 << 63]] * 50
    try:
        await engine._ask(engine._line, b"NONSENSE")
    except Exception as error:
        assert "ERR unknown command" in str(error), error
    await engine.drop()
    await engine.close()

asyncio.run(run())
"""
# None of these needs an engine.
OTHERS = """
import sys
import fastgrey.cli.main, fastgrey.cli.replay, fastgrey.shared.open, fastgrey.shared.greylist
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("valkey", "libvalkey", "psycopg", "redis")))
"""


def run(script, *arguments):
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(("package", "url"), [("valkey", "valkey://host"), ("psycopg", "postgresql://host/db")])
def test_a_package_that_is_missing(package, url):
    line = run(OPEN, package, url)
    assert f"needs the package {package}" in line and "pip install 'fastgrey[server]'" in line
    assert line.count("\n") == 1


def test_without_the_reader_in_c():
    with redis_server.server() as server:
        run(USE, "libvalkey", server.url)


def test_nothing_is_imported_that_is_not_used():
    assert run(OTHERS) == "[]\n"

"""Servers that are asked over a socket of the file system and over a port of loopback: ours, and the limit."""

import json
import sys
from pathlib import Path

from daemons import Daemon, free_port
from figures import run
from peers.asking import Target

HERE = Path(__file__).parent
FASTGREY = Path(sys.executable).parent / "fastgrey"


class Server(Daemon):
    """Listens on both. Every peer has but one of them."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        super().__init__(directory)
        self._port = free_port()

    @property
    def where(self) -> str:
        return str(self.directory / "socket")

    @property
    def targets(self) -> dict[str, Target]:
        """By what it is asked over."""
        return {"unix": Target(self.way, self.where), "TCP": Target(self.way, str(self._port))}


class Empty(Server):
    """baselines/empty_server.c: it decides nothing."""

    def __init__(self, directory: Path, processes: int) -> None:
        super().__init__(directory)
        self.name = "empty server" if processes == 1 else f"empty server of {processes} processes"
        self._processes = processes

    def command(self) -> tuple[list[str], dict[str, str]]:
        program = self.directory / "empty_server"
        run(["cc", "-O2", HERE / "baselines" / "empty_server.c", "-o", program])
        return [str(program), str(self._processes), self.where, str(self._port)], {}


class Serve(Server):
    """`fastgrey serve`, with a worker for each processor."""

    name = "serve"

    def __init__(self, directory: Path, store: Path, **options: str | int) -> None:
        """options: of [serve], which has its defaults otherwise."""
        super().__init__(directory)
        self._store = store
        self._options = options

    def command(self) -> tuple[list[str], dict[str, str]]:
        configuration = self.directory / "fastgrey.toml"
        options = {"listen": [f"unix:{self.where}", f"tcp:127.0.0.1:{self._port}"], **self._options}
        # What JSON makes of texts and lists of them is TOML, too.
        lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
        configuration.write_text("\n".join(["[serve]", *lines, ""]))
        return [str(FASTGREY), "serve", "--store", str(self._store), "--config", str(configuration)], {}

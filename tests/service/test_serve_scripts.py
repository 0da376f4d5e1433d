"""The run scripts of fastgrey serve as they are, under the real supervisors."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import FASTGREY
from fastgrey.shipped import CHECKOUT
from machine import NOBODY, as_nobody, needs_root, open_the_way
from ports import free_port
from serving import Client, policy, until
from supervisors import DAEMONTOOLS, RESTART, RUNIT, S6, Supervised, see_shipped

SCRIPTS = CHECKOUT / "contrib" / "run" / "serve"
USER = "nobody"


def user_of_the_server():
    """Root only where another user has no way to this Python or into the directory of the checkout."""
    try:
        subprocess.run([FASTGREY, "--version"], **as_nobody(), cwd="/", check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "root"
    return USER


@pytest.fixture(params=[DAEMONTOOLS, RUNIT, S6])
def service(request, tmp_path, path, make_store):
    """The service directory as it is shipped, with the values that are the test's own."""
    kind, port = request.param, free_port()
    open_the_way(tmp_path)
    folder = tmp_path / "scan" / "greylist"
    shutil.copytree(SCRIPTS / kind, folder)
    (folder / "env" / "FASTGREY_STORE").write_text(f"{make_store('pending_size=16M', group=NOBODY)}\n")
    config = tmp_path / "serve.toml"
    config.write_text(f'[serve]\nlisten = ["tcp:127.0.0.1:{port}"]\nworkers = 1\n')
    (folder / "env" / "FASTGREY_CONFIG").write_text(f"{config}\n")
    log = tmp_path / "log"
    log.mkdir()
    os.chown(log, pwd.getpwnam(USER).pw_uid, -1)
    user = user_of_the_server()
    supervised = Supervised(kind, folder, {"FASTGREY": str(FASTGREY), "SERVE_USER": user, "LOG_USER": USER,
                                           "LOG_DIR": str(log)})

    def written():
        current = log / "current"
        return current.read_text() if current.exists() else ""

    def ask():
        with contextlib.closing(Client(("127.0.0.1", port))) as client:
            return client.ask(policy())

    yield SimpleNamespace(supervised=supervised, log=written, ask=ask, port=port, user=user)
    supervised.end()


@needs_root
def test_it_serves_under_supervision(service):
    """As the user of the script; restarted and stopped by the supervisor's own commands, and nothing is left."""
    service.supervised.start()
    until(lambda: "fastgrey: serving " in service.log(), "it serves")
    assert "DEFER_IF_PERMIT" in service.ask()
    until(lambda: "defer new" in service.log(), "the line of the decision")

    uid = pwd.getpwnam(service.user).pw_uid
    servers = [number for number in service.supervised.processes()
               if b"serve\0" in Path(f"/proc/{number}/cmdline").read_bytes()]
    assert servers
    assert {Path(f"/proc/{number}").stat().st_uid for number in servers} == {uid}
    service.supervised.call(RESTART[service.supervised.kind])
    until(lambda: service.log().count("fastgrey: serving ") == 2, "it serves again")
    assert "DEFER_IF_PERMIT" in service.ask()
    service.supervised.stop()
    until(lambda: not service.supervised.processes(), "no process left")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port), timeout=60)


@pytest.mark.parametrize("kind", [DAEMONTOOLS, RUNIT, S6])
def test_scripts_as_shipped(kind):
    see_shipped(SCRIPTS / kind, ("FASTGREY:-fastgrey", "SERVE_USER:-fastgrey"), "FASTGREY_STORE", "/var/lib/fastgrey")

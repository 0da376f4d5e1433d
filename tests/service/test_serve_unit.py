"""fastgrey-serve.service: the real server in the unit's sandbox (tests/sandbox.py), told to systemd as the unit says."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import sandbox
from conftest import FASTGREY
from fastgrey.shipped import CHECKOUT
from machine import lower, needs_root, open_the_way
from ports import free_port
from serving import Client, children, policy, until

UNITS = CHECKOUT / "contrib" / "systemd"
SERVE, SOCKET = UNITS / "fastgrey-serve.service", UNITS / "fastgrey-serve.socket"
GROUP = 12_345
SECONDS = 60


@pytest.fixture
def managed(make_store, path, tmp_path):
    """begin(*words) runs them in the sandbox; notices() gives what was told to the manager so far."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    if not all(Path(place).stat().st_mode & 0o001 for place in sandbox.NEEDED):
        pytest.skip("an ordinary user may not look into this Python or this checkout, wherever they are shown to him")
    open_the_way(tmp_path)
    make_store("pending_size=16M", group=GROUP)
    # An abstract address: the sandbox shows no other place that both can write to.
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(b"\0fastgrey-test-%d" % os.getpid())
    manager.settimeout(SECONDS)
    said = []
    running = []

    def begin(*words, **variables):
        variables = {"NOTIFY_SOCKET": f"@fastgrey-test-{os.getpid()}"} | variables
        log = open(tmp_path / "log", "wb")
        with log:
            running.append(subprocess.Popen(
                [sys.executable, sandbox.__file__, SERVE, path, "/usr/bin/env",
                 *(f"{name}={value}" for name, value in variables.items()), *words],
                env={**os.environ, "SANDBOX_GROUP": str(GROUP)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return running[-1]

    def told(text):
        while not any(text in one for one in said):
            said.append(manager.recv(4096).decode())
        return said

    yield begin, told, lambda: (tmp_path / "log").read_text()
    for process in running:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    manager.close()


@needs_root
def test_it_serves_in_its_sandbox(managed, path, tmp_path):
    """Ready, alive, counted, watched, reloaded, stopped; a hook's socket and one below /run, for the store's group."""
    begin, told, log = managed
    port, watched = free_port(), free_port()
    # The configuration is where the sandbox shows the store.
    config = path / "serve.toml"
    config.write_text(f'[serve]\nlisten = ["tcp:127.0.0.1:{port}", "unix:/run/fastgrey/policy"]\nworkers = 2\n'
                      f'metrics = "127.0.0.1:{watched}"\n')
    config.chmod(0o644)
    program, *words = sandbox.options(SERVE)["ExecStart"][0].split()
    assert program == "fastgrey"
    server = begin(FASTGREY, *words, FASTGREY_CONFIG=f"{sandbox.STORE}/serve.toml", WATCHDOG_USEC="3000000")
    told("READY=1")
    told("WATCHDOG=1")
    client = Client(("127.0.0.1", port))
    try:
        assert "DEFER_IF_PERMIT" in client.ask(policy())
    finally:
        client.close()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if ":\t" in line)
    assert status["CapEff"].strip() == status["CapBnd"].strip() == "0" * 16
    assert status["Gid"].split() == [str(GROUP)] * 4
    assert status["NoNewPrivs"].strip() == "1"
    assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0] == min(
        65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert ((path / "serve.sock").stat().st_gid, (path / "serve.sock").stat().st_mode & 0o777) == (GROUP, 0o660)

    def get(name):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{watched}{name}", timeout=SECONDS) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    until(lambda: get("/ready") == "ready\n", "ready")
    until(lambda: 'kind="postfix",result="defer"' in get("/metrics").replace(" ", ""), "metrics")
    # The one of its children that gives way to the others, by the system call that the unit lets through.
    assert lower(10) in [os.getpriority(os.PRIO_PROCESS, child) for child in children(server.pid)]
    server.send_signal(signal.SIGHUP)
    told("RELOADING=1")
    server.send_signal(signal.SIGTERM)
    told("STOPPING=1")
    assert server.wait(SECONDS) == 0
    assert "Traceback" not in log()


@needs_root
@pytest.mark.parametrize(("script", "said"), [
    ("import socket; socket.socket(socket.AF_INET); socket.socket(socket.AF_UNIX); print('may')", "may"),
    ("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "Address family not supported"),
    ("import os; os.setpriority(os.PRIO_PROCESS, 0, 10); print('may')", "may"),
    ("import os; os.sched_setaffinity(0, {0})", "not permitted"),
    ("open('/run/fastgrey/x', 'w'); print('may')", "may"),
    ("open('/run/x', 'w')", "Read-only file system"),
    ("open('/etc/fastgrey.test', 'w')", "Read-only file system"),
])
def test_what_its_sandbox_lets_through(managed, script, said):
    begin, _, log = managed
    begin(sys.executable, "-c", script).wait(SECONDS)
    assert said in log()


def test_the_socket_unit_is_what_the_service_takes():
    """On the address that the page on Postfix names; and started without the server being up."""
    socket_unit = SOCKET.read_text()
    assert "ListenStream=127.0.0.1:10045\n" in socket_unit
    assert "WantedBy=sockets.target" in socket_unit
    assert "Accept=" not in socket_unit


@needs_root
def test_activated_by_a_socket(make_store, path, tmp_path):
    """As systemd-socket-activate(1) hands one over, at the first connection."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("no systemd-socket-activate")
    make_store("pending_size=16M")
    (tmp_path / "serve.toml").write_text("[serve]\nworkers = 1\n")
    port = free_port()
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(
            [program, f"--listen=127.0.0.1:{port}", "-E", f"FASTGREY_STORE={path}",
             "-E", f"FASTGREY_CONFIG={tmp_path}/serve.toml", FASTGREY, "serve"], stdin=subprocess.DEVNULL, stderr=log)
    try:
        until(lambda: b"Listening on" in (tmp_path / "log").read_bytes(), "it listens")
        client = Client(("127.0.0.1", port))
        try:
            assert "DEFER_IF_PERMIT" in client.ask(policy())
        finally:
            client.close()
    finally:
        server.terminate()
        server.wait(SECONDS)

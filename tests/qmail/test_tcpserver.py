"""The executable under the real tcpserver, of both Debian packages, with a real name server on loopback."""

import contextlib
import os
import socket
import subprocess
from types import SimpleNamespace

import pytest

from conftest import HOOK
from machine import NOBODY, needs_root

PLAIN, IPV6 = "ucspi-tcp", "ucspi-tcp-ipv6"
# What the client is sent: the line and the exit status.
PROGRAM = ["sh", "-c", '"$@" 2>&1; echo "exit $?"', "sh", HOOK, "a@example.org", "b@example.net"]
NO_NAMES = ["-H", "-R", "-l", "localhost"]

ZONES = """\
.0.0.127.in-addr.arpa::ns.example:60
^5.0.0.127.in-addr.arpa:mail.confirmed.example:60
^6.0.0.127.in-addr.arpa:mail.forged.example:60
.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa::ns.example:60
^1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa:six.confirmed.example:60
.example::ns.example:60
+mail.confirmed.example:127.0.0.5:60
+mail.forged.example:192.0.2.66:60
:six.confirmed.example:28:{one}:60
""".format(one=r"\000" * 15 + r"\001")
NAMES = 'allow_clients = ["mail.confirmed.example", "mail.forged.example", "six.confirmed.example"]\n'


@pytest.fixture
def serve(debian_package, path):
    """Start a tcpserver of a package; gives the port. Everything is stopped at the end."""
    with contextlib.ExitStack() as stack:

        def start(package, options, address="127.0.0.1", env=None):
            binary = debian_package(package) / "usr" / "bin" / "tcpserver"
            environment = {"PATH": os.environ["PATH"], "FASTGREY_STORE": str(path)} | (env or {})
            server = stack.enter_context(subprocess.Popen([binary, "-1", *options, address, "0", *PROGRAM],
                                                          env=environment, stdout=subprocess.PIPE))
            stack.callback(server.terminate)
            return int(server.stdout.readline())

        yield start


def connect(port, address="127.0.0.1", source=None):
    """What a client of that source address is told; the client as shown, the first words, the exit status."""
    with socket.create_connection((address, port), timeout=60, source_address=(source or address, 0)) as connection:
        with connection.makefile("r") as stream:
            line, status = stream.read().splitlines()
    fields = dict(word.partition("=")[::2] for word in line.split())
    return SimpleNamespace(client=fields["client"], key=fields.get("key"), words=line.split()[1:3],
                           status=int(status.split()[1]))


def test_ipv4_is_one_client_under_every_server(make_store, serve):
    make_store()
    answers = []
    for package, options, address, shown in (
        (PLAIN, [], "127.0.0.1", "127.0.0.5"),
        (IPV6, [], "127.0.0.1", "127.0.0.5"),
        (IPV6, [], "::ffff:127.0.0.1", "127.0.0.5"),
        (IPV6, ["-6"], "::ffff:127.0.0.1", "::ffff:127.0.0.5"),
    ):
        answer = connect(serve(package, [*NO_NAMES, *options], address), source="127.0.0.5")
        assert (answer.client, answer.status) == (shown, 111), (package, options, address)
        answers.append(answer)
    assert [answer.words for answer in answers] == [["defer", "new"]] + [["defer", "early"]] * 3
    assert len({answer.key for answer in answers}) == 1


@pytest.mark.parametrize("options", [[], ["-6"]])
def test_ipv6(make_store, serve, options):
    make_store()
    port = serve(IPV6, [*NO_NAMES, *options], "::1")
    for words in (["defer", "new"], ["defer", "early"]):
        answer = connect(port, "::1")
        assert (answer.client, answer.words, answer.status) == ("::1", words, 111)


STALE = {"PROTO": "TCP6", "TCPREMOTEIP": "203.0.113.9", "TCP6REMOTEIP": "2001:db8::9",
         "TCPREMOTEHOST": "mx.stale.example", "TCP6REMOTEHOST": "mx.stale.example"}


@pytest.mark.parametrize(("package", "options", "address"), [
    (PLAIN, [], "127.0.0.1"), (IPV6, [], "127.0.0.1"), (IPV6, ["-6"], "::1"), (IPV6, [], "::1"),
])
def test_variables_from_further_up_do_not_count(make_store, config, run_fastgrey, serve, package, options, address):
    """A server without IPv6 leaves TCP6REMOTEIP as it finds it."""
    make_store()
    config('trust_client_name = true\nallow_clients = ["stale.example"]')
    assert run_fastgrey("apply").returncode == 0
    answer = connect(serve(package, [*NO_NAMES, *options], address, STALE), address)
    assert (answer.client, answer.words) == (address, ["defer", "new"])


@pytest.mark.parametrize("package", [PLAIN, IPV6])
def test_relay_client_by_tcprules(make_store, serve, debian_package, tmp_path, package):
    make_store()
    rules = debian_package(package) / "usr" / "bin" / "tcprules"
    subprocess.run([rules, tmp_path / "rules.cdb", tmp_path / "rules.tmp"], check=True,
                   input=b'127.0.0.5:allow,RELAYCLIENT=""\n:allow\n')
    port = serve(package, [*NO_NAMES, "-x", str(tmp_path / "rules.cdb")])
    assert connect(port, source="127.0.0.5").words == ["accept", "relay"]
    assert connect(port, source="127.0.0.6").words == ["defer", "new"]


@pytest.fixture
def name_server(debian_package, tmp_path):
    """Debian's tinydns with ZONES; gives its address, one of loopback that no other test has."""
    programs = debian_package("tinydns") / "usr" / "sbin"
    root = tmp_path / "dns"
    root.mkdir(mode=0o755)
    (root / "data").write_text(ZONES)
    subprocess.run([programs / "tinydns-data"], cwd=root, check=True)
    (root / "data.cdb").chmod(0o644)
    address = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    environment = {"ROOT": str(root), "IP": address, "UID": str(NOBODY), "GID": str(NOBODY)}
    server = subprocess.Popen([programs / "tinydns"], env=environment, stderr=subprocess.PIPE)
    try:
        assert server.stderr.readline() == b"starting tinydns\n"
        yield address
    finally:
        server.terminate()
        server.communicate()


@needs_root
@pytest.mark.parametrize(("package", "options", "address", "source", "trust", "allowed"), [
    (PLAIN, ["-p"], "127.0.0.1", "127.0.0.5", "true", True),
    (PLAIN, ["-p"], "127.0.0.1", "127.0.0.6", "true", False),
    (PLAIN, ["-p"], "127.0.0.1", "127.0.0.7", "true", False),
    (PLAIN, ["-p"], "127.0.0.1", "127.0.0.5", "false", False),
    (PLAIN, ["-h"], "127.0.0.1", "127.0.0.5", "true", True),
    # Without -p anybody may call himself anything: why trust_client_name is off unless set.
    (PLAIN, ["-h"], "127.0.0.1", "127.0.0.6", "true", True),
    (PLAIN, ["-h"], "127.0.0.1", "127.0.0.6", "false", False),
    (PLAIN, ["-H"], "127.0.0.1", "127.0.0.5", "true", False),
    (PLAIN, ["-p", "-l", "localhost"], "127.0.0.1", "127.0.0.5", "true", True),
    (IPV6, ["-p"], "127.0.0.1", "127.0.0.5", "true", True),
    (IPV6, ["-p"], "127.0.0.1", "127.0.0.6", "true", False),
    (IPV6, ["-p", "-6"], "::ffff:127.0.0.1", "127.0.0.5", "true", True),
    (IPV6, ["-p"], "::1", "::1", "true", True),
    (IPV6, ["-p", "-6"], "::1", "::1", "true", True),
    (IPV6, ["-h", "-l", "localhost"], "::1", "::1", "false", False),
    (IPV6, ["-H"], "::1", "::1", "true", False),
])
def test_names(make_store, config, run_fastgrey, serve, name_server, package, options, address, source, trust, allowed):
    make_store()
    config(f"trust_client_name = {trust}\n{NAMES}")
    assert run_fastgrey("apply").returncode == 0
    port = serve(package, ["-R", *options], address, {"DNSCACHEIP": name_server})
    answer = connect(port, "::1" if source == "::1" else "127.0.0.1", source)
    assert answer.words == (["accept", "allowed"] if allowed else ["defer", "new"])

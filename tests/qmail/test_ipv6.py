"""Clients over IPv6, in the same store as those over IPv4."""

import smtplib
import socket
import subprocess

import pytest

import aging
from machine import tool


@pytest.fixture(autouse=True)
def needs_ipv6():
    """Skip where there is none: tcpserver of plain ucspi-tcp, a machine without the address."""
    usage = subprocess.run([tool("tcpserver")], stderr=subprocess.PIPE, text=True).stderr
    if "6" not in usage.partition("]")[0]:
        pytest.skip("tcpserver of plain ucspi-tcp serves IPv4 alone; ucspi-tcp-ipv6 serves both")
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")


def test_deferred_and_taken_over_ipv6(make_store, store_group, serve, path, pending_path):
    make_store("pool_hops=0", group=store_group)
    server = serve(address="::1")
    with smtplib.SMTP("::1", server.port, timeout=60) as client, pytest.raises(smtplib.SMTPRecipientsRefused):
        client.sendmail("a@example.org", ["b@example.net"], "hello")
    aging.age(path, pending_path, 301)
    with smtplib.SMTP("::1", server.port, timeout=60) as client:
        assert client.sendmail("a@example.org", ["b@example.net"], "hello") == {}
    assert server.envelopes() == {("a@example.org", "b@example.net"): 1}
    assert [line.split()[1:5] for line in server.log()] == [
        ["defer", "new", "wait=300", "client=::1"], ["accept", "retry", "client=::1", "sender=a@example.org"]]


def test_relay_over_ipv6(make_store, store_group, serve):
    make_store(group=store_group)
    server = serve(address="::1", rules='::1:allow,RELAYCLIENT="@gate.example"\n:allow\n')
    assert server.session().mail("a@example.org", "b@example.net") == ["250"]
    assert server.envelopes() == {("a@example.org", "b@example.net@gate.example"): 1}
    assert server.log() == []


def test_ipv4_and_ipv6_are_two_clients(make_store, store_group, serve):
    """One server for both, one store; what the one waits for does not help the other."""
    make_store("pool_hops=0", group=store_group)
    server = serve(address="0")
    for address in ("127.0.0.1", "::1") * 2:
        server.address = address
        assert server.session().mail("a@example.org", "b@example.net") == ["451"]
    assert [(line.split()[2], line.split()[4]) for line in server.log()] == [
        ("new", "client=127.0.0.1"), ("new", "client=::1"), ("early", "client=127.0.0.1"), ("early", "client=::1")]

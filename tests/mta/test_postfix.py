"""A real Postfix, configured as docs/postfix.md has it, message by message."""

import base64
import socket
import threading

import pytest

from chapters import DOCS, snippet
from dovecot import Logins
from machine import needs_root
from mailing import attempt, codes, come_back, has_ipv6, send
from postfix import OWN

pytestmark = needs_root
MAIN = snippet("postfix.md", "main.cf")
WAITING = snippet("postfix.md", "main.cf: wait for the server")
DEFERRED = "450 4.7.1 <b@example.net>: Recipient address rejected: greylisted, please try again in 300 seconds"
DENIED = "550 5.7.1 <b@example.net>: Recipient address rejected: sorry, your mail is not wanted here"
TROUBLE = "451 4.3.5 <b@example.net>: Recipient address rejected: Server configuration problem"


def from_elsewhere(address, name="[UNAVAILABLE]"):
    """What makes Postfix believe that the session is another client's (XCLIENT)."""
    return [(f"XCLIENT ADDR={'IPV6:' if ':' in address else ''}{address} NAME={name}", "220"), ("EHLO client.example", "250")]


def test_replies_are_those_of_the_document():
    text = (DOCS / "postfix.md").read_text()
    assert [reply for reply in (DEFERRED, DENIED, TROUBLE) if f"`{reply}`" not in text] == []


def test_stranger_waits_and_is_told_how_long(server, postfix):
    greylister = server()
    mx = postfix(MAIN, greylister)
    assert attempt(mx, "a@example.org", "b@example.net") == [DEFERRED]
    assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["450"]
    assert greylister.verdicts() == ["defer new", "defer early"]
    mx.delivered(0)


def test_who_comes_back_is_taken_and_known(server, postfix):
    greylister = server("delay=1s")
    mx = postfix(MAIN, greylister)
    said = come_back(mx, "a@example.org", "b@example.net", "c@example.net")
    assert said[0] == ["450", "450"]
    assert codes(attempt(mx, "other@example.org", "d@example.net")) == ["250"]
    assert [message.recipient for message in mx.delivered(3)] == ["b@example.net", "c@example.net", "d@example.net"]
    assert greylister.verdicts()[:2] == ["defer new"] * 2
    assert greylister.verdicts()[-3:] in (["accept retry", "accept retry", "accept known-domain"],
                                          ["accept retry", "accept known-domain", "accept known-domain"])


@pytest.mark.parametrize("text", [
    pytest.param("Subject: hello\r\n\r\nhello\r\n", id="short"),
    pytest.param("Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n\r\n", id="dots"),
    pytest.param("Subject: \xfc\r\n\r\n" + "".join(map(chr, range(128, 256))) + "\r\n", id="8-bit"),
    pytest.param("Subject: large\r\n\r\n" + "0123456789 \t\r\n" * 20_000, id="large"),
])
def test_messages_arrive_as_they_were(server, postfix, text):
    mx = postfix(MAIN, server("delay=0s"))
    come_back(mx, "a@example.org", "b@example.net", text=text)
    (message,) = mx.delivered(1)
    header, _, body = text.partition("\r\n\r\n")
    assert message.body == body.replace("\r\n", "\n").encode()
    assert message.values("Subject") == [header.partition(": ")[2]]


def test_header_is_there_once(server, postfix):
    mx = postfix(MAIN, server("delay=0s"))
    come_back(mx, "a@example.org", "b@example.net", "c@example.net")
    come_back(mx, "a@example.org", "b@example.net")
    first, second, third = mx.delivered(3)
    assert first.values("X-Greylist") != second.values("X-Greylist")
    for message in (first, second, third):
        (value,) = message.values("X-Greylist")
        assert value.startswith(("delayed ", "passed by "))


def test_denied_for_good(server, postfix, run_fastgrey, config, make_store):
    make_store()
    config('deny_senders = ["bad.example"]\n')
    assert run_fastgrey("apply").returncode == 0
    mx = postfix(MAIN, server())
    assert attempt(mx, "a@bad.example", "b@example.net") == [DENIED]
    assert attempt(mx, "a@example.org", "b@example.net") == [DEFERRED]


def test_own_networks_are_not_asked_about(server, postfix):
    greylister = server()
    mx = postfix(MAIN, greylister)
    assert codes(attempt(mx, "a@example.org", "b@example.net", source=OWN)) == ["250"]
    mx.delivered(1)
    assert greylister.verdicts() == []


@pytest.mark.parametrize("order", ["documented", "asked before the login counts"])
def test_who_has_logged_in_does_not_wait(server, postfix, place, order):
    greylister = server()
    with Logins(place / "logins", {"user": "secret"}):
        snippet = MAIN
        if order != "documented":
            line = next(line for line in MAIN.splitlines(True) if "check_policy_service" in line)
            snippet = MAIN.replace(line, "").replace(
                "    permit_mynetworks,\n", f"{line.rstrip()},\n    permit_mynetworks,\n").replace(
                "reject_unauth_destination,", "reject_unauth_destination")
        mx = postfix(snippet + f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {place}/logins\n",
                     greylister)
        login = base64.b64encode(b"\0user\0secret").decode()
        assert codes(attempt(mx, "a@example.org", "b@example.net", before=[(f"AUTH PLAIN {login}", "235")])) == ["250"]
        assert attempt(mx, "a@example.org", "b@example.net") == [DEFERRED]
    mx.delivered(1)
    assert greylister.verdicts() == ["defer new"]


def test_mailbox_that_is_not_there_is_rejected_for_good(server, postfix):
    mx = postfix(MAIN, server())
    (missing, there) = attempt(mx, "a@example.org", "missing@example.net", "b@example.net")
    assert missing.startswith("550 5.1.1 <missing@example.net>")
    assert there == DEFERRED


def test_relaying_is_refused_and_not_recorded(server, postfix):
    greylister = server()
    mx = postfix(MAIN, greylister)
    assert codes(attempt(mx, "a@example.org", "b@elsewhere.example")) == ["554"]
    assert greylister.verdicts() == []


def test_null_sender(server, postfix):
    greylister = server("delay=1s")
    mx = postfix(MAIN, greylister)
    assert come_back(mx, "", "b@example.net")[0] == ["450"]
    mx.delivered(1)
    assert greylister.verdicts()[-1] == "accept retry"


def test_clients_of_ipv6_by_network(server, postfix):
    greylister = server("delay=1h")
    mx = postfix(MAIN, greylister)
    for address in ("2001:db8:1:2::3", "2001:db8:1:2:4::5", "2001:db8:1:3::3"):
        assert codes(attempt(mx, "a@example.org", "b@example.net", before=from_elsewhere(address))) == ["450"]
    assert greylister.verdicts() == ["defer new", "defer early", "defer new"]
    assert "client=2001:db8:1:2::3 " in greylister.log()


def test_ipv6_from_end_to_end(server, postfix):
    if not has_ipv6():
        pytest.skip("no IPv6 loopback here")
    greylister = server("delay=1s")
    mx = postfix(MAIN, greylister)
    mx.address = "::1"
    assert come_back(mx, "a@example.org", "b@example.net")[0] == ["450"]
    assert "client=::1 " in greylister.log()


def test_only_a_confirmed_name_counts(server, postfix, run_fastgrey, config, make_store):
    """Postfix's client_name is one; that of reverse_client_name is what the client's owner wrote."""
    make_store()
    config('allow_clients = ["friend.example"]\n')
    assert run_fastgrey("apply").returncode == 0
    mx = postfix(MAIN, server())
    ask = ("a@example.org", "b@example.net")
    assert codes(attempt(mx, *ask, before=from_elsewhere("192.0.2.1", "mail.friend.example"))) == ["250"]
    spoofed = [("XCLIENT ADDR=192.0.2.2 NAME=[UNAVAILABLE] REVERSE_NAME=mail.friend.example", "220"),
               ("EHLO client.example", "250")]
    assert codes(attempt(mx, *ask, before=spoofed)) == ["450"]


@pytest.mark.parametrize("sender, options", [
    pytest.param("\xfcmit@example.org", " SMTPUTF8", id="UTF-8"),
    pytest.param(f"{'a' * 900}@example.org", "", id="long"),
    pytest.param('"a b=c"@example.org', "", id="quoted"),
    pytest.param("a'%{}$`;|@example.org", "", id="strange"),
])
def test_unusual_senders(server, postfix, sender, options):
    greylister = server("delay=1s")
    mx = postfix(MAIN, greylister)
    assert come_back(mx, sender, "b@example.net", options=options)[0] == ["450"]
    mx.delivered(1)
    assert greylister.verdicts()[-1] == "accept retry"


def test_address_that_is_too_long_is_a_fault(server, postfix):
    greylister = server()
    mx = postfix(MAIN, greylister)
    assert codes(attempt(mx, f"{'a' * 1000}@example.org", "b@example.net")) == ["250"]
    assert greylister.verdicts() == ["accept error"]


def test_server_that_is_stopped(server, postfix):
    """As the documents have it, mail passes, and Postfix logs why."""
    greylister = server()
    mx = postfix(MAIN, greylister)
    assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["450"]
    greylister.stop()
    assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["250"]
    mx.delivered(1)
    assert f"warning: connect to {greylister.at}" in mx.log()
    greylister.start()
    assert codes(attempt(mx, "a@example.org", "c@example.net")) == ["450"]


def test_server_that_is_stopped_where_mail_shall_wait(server, postfix):
    greylister = server()
    mx = postfix(WAITING, greylister)
    greylister.stop()
    assert attempt(mx, "a@example.org", "b@example.net") == [TROUBLE]
    greylister.start()
    assert attempt(mx, "a@example.org", "b@example.net") == [DEFERRED]
    mx.delivered(0)


def test_server_that_hangs(server, postfix):
    """A listener that takes connections and says nothing costs its time-out, not the mail."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        greylister = server()
        greylister.at = f"127.0.0.1:{silent.getsockname()[1]}"
        mx = postfix(MAIN.replace("timeout=10s", "timeout=1s"), greylister)
        assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["250"]
        mx.delivered(1)


def test_restart_within_a_session(server, postfix):
    """The connection that Postfix kept is gone; it makes another one, and nobody sees anything."""
    greylister = server("delay=1h")
    mx = postfix(WAITING, greylister)
    with mx.session() as session:
        for number in range(4):
            (reply,) = send(session, "a@example.org", f"b{number}@example.net")
            assert reply.startswith("450 4.7.1 ")
            greylister.stop()
            greylister.start()
    assert greylister.verdicts() == ["defer new"] * 4
    mx.delivered(0)


def test_no_mail_is_lost_while_the_server_restarts(server, postfix):
    greylister = server("delay=0s")
    mx = postfix(WAITING, greylister)
    senders, messages = 4, 10
    come_back(mx, "a@example.org", "b@example.net")

    def client(number):
        for message in range(messages):
            come_back(mx, f"a@{'abcd'[number]}.example.org", f"b{message}@example.net")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(senders)]
    for thread in threads:
        thread.start()
    restarts = 0
    while any(thread.is_alive() for thread in threads):
        greylister.stop()
        greylister.start()
        restarts += 1
    for thread in threads:
        thread.join()
    assert restarts
    mx.delivered(1 + senders * messages)

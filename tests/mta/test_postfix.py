"""A real Postfix, configured as docs/postfix.md has it, message by message."""

import base64
import re
import shutil
import socket
import threading

import pytest

from chapters import DOCS, snippet
from dovecot import Logins
from machine import needs_root
from mailing import attempt, codes, come_back, has_ipv6, send
from sites import LISTENING, common_site
from postfix import OWN, Postfix

pytestmark = needs_root
MAIN = snippet("postfix.md", "main.cf")
WAITING = snippet("postfix.md", "main.cf: wait for the server")
UNIX = snippet("postfix.md", "main.cf: a unix socket")
REFUSED = "<b@example.net>: Recipient address rejected: "
DEFERRED = f"450 4.7.1 {REFUSED}greylisted, please try again in 300 seconds"
DENIED = f"550 5.7.1 {REFUSED}sorry, your mail is not wanted here"
TROUBLE = f"451 4.3.5 {REFUSED}Server configuration problem"


def from_elsewhere(address, name="[UNAVAILABLE]"):
    """What makes Postfix believe that the session is another client's (XCLIENT)."""
    address = f"IPV6:{address}" if ":" in address else address
    return [(f"XCLIENT ADDR={address} NAME={name}", "220"), ("EHLO client.example", "250")]


@pytest.fixture(scope="module")
def sites():
    """One Postfix and one server for all tests that need nothing else of them."""
    with common_site(Postfix, MAIN) as made:
        yield made


@pytest.fixture
def site(sites):
    """The same for one test, with a sender domain of its own."""
    return sites()


def test_replies_are_those_of_the_document():
    lines = (DOCS / "postfix.md").read_text().splitlines()
    assert [reply for reply in (DEFERRED, DENIED, TROUBLE) if f"    {reply}" not in lines] == []


def test_stranger_waits_and_is_told_how_long(server, postfix):
    greylister = server()
    mx = postfix(MAIN, greylister)
    assert attempt(mx, "a@example.org", "b@example.net") == [DEFERRED]
    assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["450"]
    assert greylister.verdicts(2) == ["defer new", "defer early"]
    mx.delivered(0)


def test_who_comes_back_is_taken_and_known(site):
    said = come_back(site.mx, f"a@{site.domain}", "b@example.net", "c@example.net")
    assert said[0] == ["450", "450"]
    assert codes(attempt(site.mx, f"other@{site.domain}", "d@example.net")) == ["250"]
    recipients = sorted(message.recipient for message in site.delivered(3))
    assert recipients == ["b@example.net", "c@example.net", "d@example.net"]
    assert site.greylister.logs(f"^fastgrey: accept retry client=127.0.0.1 sender=a@{site.domain} ")
    assert site.greylister.logs("^fastgrey: accept known-domain .* recipient=d@example.net ")


@pytest.mark.parametrize("text", [
    pytest.param("Subject: hello\r\n\r\nhello\r\n", id="short"),
    pytest.param("Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n\r\n", id="dots"),
    pytest.param("Subject: \xfc\r\n\r\n" + "".join(map(chr, range(128, 256))) + "\r\n", id="8-bit"),
    pytest.param("Subject: large\r\n\r\n" + "0123456789 \t\r\n" * 20_000, id="large"),
])
def test_messages_arrive_as_they_were(site, text):
    come_back(site.mx, f"a@{site.domain}", "b@example.net", text=text)
    (message,) = site.delivered(1)
    header, _, body = text.partition("\r\n\r\n")
    assert message.body == body.replace("\r\n", "\n").encode()
    assert message.values("Subject") == [header.partition(": ")[2]]


def test_message_that_waited_says_so_once(server, postfix):
    """Both of its recipients are retries; the header is of the first."""
    greylister = server("delay=0s", "allow_domain_after=0", "allow_client_after=0")
    mx = postfix(MAIN, greylister)
    said = come_back(mx, "a@example.org", "b@example.net", "c@example.net")
    assert said == [["450", "450"], ["250", "250"]]
    come_back(mx, "a@example.org", "b@example.net")
    assert greylister.verdicts(5) == ["defer new"] * 2 + ["accept retry"] * 2 + ["accept known-triplet"]
    values = [message.values("X-Greylist") for message in mx.delivered(3)]
    assert values.count([]) == 1
    for found in (found for found in values if found):
        assert re.fullmatch(r"delayed \d+ seconds by fastgrey-[\d.]+ \(retry\)", *found)


def test_first_recipient_speaks_for_all(server, postfix):
    greylister = server("delay=0s", config=f"{LISTENING}first_recipient = true\n")
    mx = postfix(MAIN, greylister)
    said = come_back(mx, "a@example.org", "b@example.net", "c@example.net")
    assert said == [["450", "450"], ["250", "250"]]
    assert codes(attempt(mx, "a@other.example", "b@example.net")) == ["450"]
    assert greylister.verdicts(3) == ["defer new", "accept retry", "defer new"]
    mx.delivered(2)


def test_denied_for_good(server, postfix, run_fastgrey, config, make_store):
    make_store()
    config('deny_senders = ["bad.example"]\nallow_clients = ["friend.example"]\n')
    assert run_fastgrey("apply").returncode == 0
    mx = postfix(MAIN, server())
    assert attempt(mx, "a@bad.example", "b@example.net") == [DENIED]
    assert attempt(mx, "a@example.org", "b@example.net") == [DEFERRED]
    # Postfix's client_name is confirmed; what reverse_client_name says, the client's owner wrote.
    ask = ("a@example.org", "b@example.net")
    assert codes(attempt(mx, *ask, before=from_elsewhere("192.0.2.1", "mail.friend.example"))) == ["250"]
    spoofed = [("XCLIENT ADDR=192.0.2.2 NAME=[UNAVAILABLE] REVERSE_NAME=mail.friend.example", "220"),
               ("EHLO client.example", "250")]
    assert codes(attempt(mx, *ask, before=spoofed)) == ["450"]


def test_own_networks_are_not_asked_about(site):
    assert codes(attempt(site.mx, f"a@{site.domain}", "b@example.net", source=OWN)) == ["250"]
    site.delivered(1)
    assert codes(attempt(site.mx, f"a@{site.domain}", "b@example.net")) == ["450"]
    assert site.verdicts(1) == ["defer new"]


@pytest.mark.parametrize("order", ["documented", "asked before the login counts"])
def test_who_has_logged_in_does_not_wait(server, postfix, order):
    greylister = server()
    settings = MAIN
    if order != "documented":
        (asking,) = [line.strip() for line in MAIN.splitlines() if "check_policy_service" in line]
        settings = f"smtpd_recipient_restrictions = {asking}, permit_sasl_authenticated, reject_unauth_destination\n"
    settings += "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = logins\n"
    mx = postfix(settings, greylister)
    with Logins(mx.queue / "logins", {"user": "secret"}):
        login = base64.b64encode(b"\0user\0secret").decode()
        assert codes(attempt(mx, "a@example.org", "b@example.net", before=[(f"AUTH PLAIN {login}", "235")])) == ["250"]
        assert attempt(mx, "a@example.org", "b@example.net") == [DEFERRED]
    mx.delivered(1)
    assert greylister.verdicts(1) == ["defer new"]


def test_mailbox_that_is_not_there_is_rejected_and_not_recorded(site):
    (missing, there) = attempt(site.mx, f"a@{site.domain}", "missing@example.net", "b@example.net")
    assert missing.startswith("550 5.1.1 <missing@example.net>")
    assert there.startswith("450 4.7.1 ")
    assert site.verdicts(1) == ["defer new"]


def test_later_rejection_for_good_wins(server, postfix):
    greylister = server()
    lines = MAIN.rstrip("\n").split("\n")
    (check,) = [line for line in lines if line.strip() == "reject_unlisted_recipient,"]
    lines.remove(check)
    mx = postfix("\n".join(lines) + f",\n{check.rstrip(',')}\n", greylister)
    assert codes(attempt(mx, "a@example.org", "missing@example.net", "b@example.net")) == ["550", "450"]
    assert greylister.verdicts(2) == ["defer new"] * 2


def test_recipients_elsewhere_are_not_recorded(site):
    (elsewhere, here) = attempt(site.mx, f"a@{site.domain}", "b@elsewhere.example", "b@example.net")
    assert elsewhere.endswith("Relay access denied")
    assert here.startswith("450 4.7.1 ")
    assert site.verdicts(1) == ["defer new"]


def test_null_sender(site):
    assert come_back(site.mx, "", "null@example.net")[0] == ["450"]
    assert site.greylister.logs("^fastgrey: accept retry .* sender= recipient=null@example.net ")


def test_clients_of_ipv6_by_network(server, postfix):
    greylister = server("delay=1h")
    mx = postfix(MAIN, greylister)
    for address in ("2001:db8:1:2::3", "2001:db8:1:2:4::5", "2001:db8:1:3::3"):
        assert codes(attempt(mx, "a@example.org", "b@example.net", before=from_elsewhere(address))) == ["450"]
    assert greylister.verdicts(3) == ["defer new", "defer early", "defer new"]
    assert greylister.logs("client=2001:db8:1:2::3 ")
    if not has_ipv6():
        pytest.skip("no IPv6 loopback here")
    mx.address = "::1"
    assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["450"]
    assert greylister.logs("client=::1 ")


@pytest.mark.parametrize("local, options", [
    pytest.param("\xfcmit", " SMTPUTF8", id="UTF-8"),
    pytest.param("a" * 900, "", id="long"),
    pytest.param('"a b=c"', "", id="quoted"),
    pytest.param("a'%{}$`|", "", id="strange"),
])
def test_unusual_senders(site, local, options):
    site.defers_and_takes(local, options=options)


def test_address_that_is_too_long_is_a_fault(site):
    assert codes(attempt(site.mx, f"{'a' * 1000}@{site.domain}", "b@example.net")) == ["250"]
    assert site.greylister.logs("^fastgrey: accept error ")


def test_server_that_is_stopped(server, postfix):
    """As the documents have it mail passes, and Postfix logs why."""
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


def test_unix_socket_in_the_chroot(server, postfix):
    """Where the documents have it, with the rights that they give it."""
    listening = snippet("postfix.md", "fastgrey.toml: a unix socket")
    (mode,) = re.findall(r"^    install -d -o fastgrey -g postfix -m (\d+) /var/spool/postfix/fastgrey$",
                         (DOCS / "postfix.md").read_text(), re.MULTILINE)
    assert "/var/spool/postfix/fastgrey/" in listening
    mx = postfix(UNIX, None)
    folder = mx.queue / "fastgrey"
    folder.mkdir()
    shutil.chown(folder, group="postfix")
    folder.chmod(int(mode, 8))
    server(config=listening.replace("/var/spool/postfix", str(mx.queue)))
    assert attempt(mx, "a@example.org", "b@example.net") == [DEFERRED]


def test_restart_and_reload_within_a_session(server, postfix):
    """The connection that Postfix kept is gone; it makes another one, and nobody sees anything."""
    greylister = server("delay=1h")
    mx = postfix(WAITING, greylister)
    with mx.session() as session:
        for number, change in enumerate((greylister.reload, greylister.restart)):
            assert codes(send(session, "a@example.org", f"b{number}@example.net")) == ["450"]
            change()
        assert codes(send(session, "a@example.org", "b@example.net")) == ["450"]
    assert greylister.verdicts(3) == ["defer new"] * 3
    mx.delivered(0)


def test_no_mail_is_lost_while_the_server_restarts(server, postfix):
    """Each message is delivered once, whatever happens to the server meanwhile."""
    greylister = server("delay=0s")
    mx = postfix(WAITING, greylister)
    changed, sent = threading.Event(), []

    def client(number):
        message = 0
        while message < 5 or not changed.is_set():
            come_back(mx, f"a@{'abc'[number]}.example.org", f"b{message}@example.net")
            message += 1
        sent.append(message)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for change in (greylister.reload, greylister.restart):
            change()
    finally:
        changed.set()
        for thread in threads:
            thread.join()
    assert len(sent) == len(threads)
    mx.delivered(sum(sent))

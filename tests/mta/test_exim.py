"""A real Exim, configured as docs/exim.md has it, message by message."""

import base64
import re
import threading
import time

import pytest

from chapters import DOCS, snippet
from exim import OWN, Exim
from machine import needs_root
from mailing import attempt, codes, come_back, has_ipv6, send
from sites import common_site
from tcpserver import wait_until

pytestmark = needs_root
LINE = snippet("exim.md", "ACL for RCPT")
NAMED = snippet("exim.md", "ACL for RCPT, with the host name")
POLICY = snippet("exim.md", "ACL for RCPT, as of postgrey")
DEFERRED = "450 4.7.1 greylisted, please try again in 300 seconds"
DENIED = "550 5.7.1 sorry, your mail is not wanted here"
by_either = pytest.mark.parametrize("acl", [pytest.param(LINE, id="line"), pytest.param(POLICY, id="policy")])


@pytest.fixture(scope="module", params=[pytest.param(LINE, id="line"), pytest.param(POLICY, id="policy")])
def sites(request):
    """One Exim and one server for all tests that need nothing else of them, for each way to ask."""
    with common_site(Exim, request.param) as made:
        yield made


@pytest.fixture
def site(sites):
    """The same for one test, with a sender domain of its own."""
    return sites()


def test_replies_are_those_of_the_document():
    text = (DOCS / "exim.md").read_text()
    assert [reply for reply in (DEFERRED, DENIED) if f"`{reply}`" not in text] == []
    assert snippet("exim.md", "fastgrey.toml") == snippet("postfix.md", "fastgrey.toml")


@by_either
def test_stranger_waits_and_is_told_how_long(server, exim, acl):
    greylister = server()
    mx = exim(acl, greylister)
    assert attempt(mx, "a@example.org", "b@example.net") == [DEFERRED]
    assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["450"]
    assert greylister.verdicts(2) == ["defer new", "defer early"]
    mx.delivered(0)


def test_who_comes_back_is_taken_and_known(site):
    letters = "".join(map(chr, range(160, 256)))
    text = f"Subject: \xfc\r\n\r\n.\r\n..a\r\n{letters}\r\n" + "0123456789\t \r\n" * 2_000
    said = come_back(site.mx, f"a@{site.domain}", "b@example.net", "c@example.net", text=text)
    assert said[0] == ["450", "450"]
    assert codes(attempt(site.mx, f"other@{site.domain}", "d@example.net", text=text)) == ["250"]
    messages = site.delivered(3)
    assert sorted(message.recipient for message in messages) == ["b@example.net", "c@example.net", "d@example.net"]
    assert {message.body for message in messages} == {text.partition("\r\n\r\n")[2].replace("\r\n", "\n").encode()}
    assert site.greylister.logs(f"^fastgrey: accept retry client=127.0.0.1 sender=a@{site.domain} ")
    assert site.greylister.logs(f"^fastgrey: accept known-domain .* sender=other@{site.domain} ")


@by_either
def test_message_that_waited_says_so_once(server, exim, acl):
    """Both of its recipients are retries, which asked over connections of their own."""
    greylister = server("delay=0s", "allow_domain_after=0", "allow_client_after=0")
    mx = exim(acl, greylister)
    assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["450"]
    # What the policy server says of the two is not the same.
    second = int(time.time()) + 1
    assert wait_until(lambda: time.time() > second)
    assert codes(attempt(mx, "a@example.org", "c@example.net")) == ["450"]
    assert codes(attempt(mx, "a@example.org", "b@example.net", "c@example.net")) == ["250", "250"]
    come_back(mx, "a@example.org", "b@example.net")
    assert greylister.verdicts(5) == ["defer new"] * 2 + ["accept retry"] * 2 + ["accept known-triplet"]
    values = [message.values("X-Greylist") for message in mx.delivered(3)]
    assert values.count([]) == 1
    for found in (found for found in values if found):
        assert re.fullmatch(r"delayed(?: \d+ seconds)? by fastgrey(?:-[\d.]+ \(retry\))?", *found)


@by_either
def test_denied_for_good(server, exim, acl, run_fastgrey, config, make_store):
    make_store()
    config('deny_senders = ["bad.example"]\n')
    assert run_fastgrey("apply").returncode == 0
    mx = exim(acl, server())
    assert attempt(mx, "a@bad.example", "b@example.net") == [DENIED]
    assert attempt(mx, "a@example.org", "b@example.net") == [DEFERRED]


def test_own_networks_and_users_are_not_asked_about(site):
    login = base64.b64encode(b"\0user\0secret").decode()
    message = (f"a@{site.domain}", "b@example.net")
    assert codes(attempt(site.mx, *message, source=OWN)) == ["250"]
    assert codes(attempt(site.mx, *message, before=[(f"AUTH PLAIN {login}", "235")])) == ["250"]
    site.delivered(2)
    assert codes(attempt(site.mx, *message)) == ["450"]
    assert site.verdicts(1) == ["defer new"]


def test_mailbox_that_is_not_there_is_rejected_and_not_recorded(site):
    assert codes(attempt(site.mx, f"a@{site.domain}", "missing@example.net", "b@example.net")) == ["550", "450"]
    assert site.verdicts(1) == ["defer new"]


@pytest.mark.parametrize("local, options", [
    pytest.param("\xfcmit", " SMTPUTF8", id="UTF-8"),
    pytest.param("a" * 200, "", id="long"),
    pytest.param('"a b\tc"', "", id="tab"),
    pytest.param("a'%{}$`/|", "", id="strange"),
])
def test_unusual_senders(site, local, options):
    """What an address holds is neither expanded by Exim nor another field of the line."""
    site.defers_and_takes(local, options=options)


def test_null_sender(site):
    assert come_back(site.mx, "", "null@example.net")[0] == ["450"]
    assert site.greylister.logs("^fastgrey: accept retry .* sender= recipient=null@example.net ")


def test_clients_of_ipv6(server, exim):
    if not has_ipv6():
        pytest.skip("no IPv6 loopback here")
    greylister = server()
    mx = exim(LINE, greylister)
    mx.address = "::1"
    assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["450"]
    assert greylister.logs("client=::1 ")


def test_only_a_confirmed_name_counts(server, exim, run_fastgrey, config, make_store):
    make_store()
    config('trust_client_name = true\nallow_clients = ["friend.example"]\n')
    assert run_fastgrey("apply").returncode == 0
    mx = exim(NAMED + LINE[LINE.index("  deny\n"):], server())
    lines = ("HELO mail.friend.example", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>")
    assert codes(mx.answers("192.0.2.1", "mail.friend.example", *lines)) == ["250", "250", "250"]
    assert codes(mx.answers("192.0.2.2", None, *lines)) == ["250", "250", "450"]


@by_either
def test_server_that_is_stopped(server, exim, acl):
    """As the documents have it, mail passes."""
    greylister = server()
    mx = exim(acl, greylister)
    assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["450"]
    greylister.stop()
    assert codes(attempt(mx, "a@example.org", "b@example.net")) == ["250"]
    mx.delivered(1)
    greylister.start()
    assert codes(attempt(mx, "a@example.org", "c@example.net")) == ["450"]


def test_server_that_is_stopped_where_mail_shall_wait(server, exim):
    text = (DOCS / "exim.md").read_text()
    told, kept = "`defer error 0 please try again later`", "`accept error 0`"
    assert told in text and kept in text
    greylister = server()
    mx = exim(LINE.replace(kept.strip("`"), told.strip("`")), greylister)
    greylister.stop()
    assert attempt(mx, "a@example.org", "b@example.net") == ["450 4.7.1 please try again later"]
    mx.delivered(0)


def test_by_hand(server, exim):
    """What the document has people type shows what the server says."""
    (line,) = [line.strip() for line in (DOCS / "exim.md").read_text().splitlines() if line.startswith("    exim -be ")]
    greylister = server()
    mx = exim(LINE, greylister)
    expression = line.partition("'")[2].rpartition("'")[0].replace("127.0.0.1:10045", greylister.at)
    assert mx.expanded(expression) == "defer new 300 greylisted, please try again in 300 seconds"


def test_restart_and_reload_within_a_session(server, exim):
    greylister = server("delay=1h")
    mx = exim(LINE, greylister)
    with mx.session() as session:
        for number, change in enumerate((greylister.restart, greylister.reload)):
            assert codes(send(session, "a@example.org", f"b{number}@example.net")) == ["450"]
            change()
        assert codes(send(session, "a@example.org", "b@example.net")) == ["450"]
    assert greylister.verdicts(3) == ["defer new"] * 3


def test_two_servers_share_what_they_learn(server, exim, postfix):
    """A stranger to one is early to the other; and who passed at one passes at the other."""
    greylister = server("delay=1s")
    first, second = exim(LINE, greylister), postfix(snippet("postfix.md", "main.cf"), greylister)
    message = ("a@example.org", "b@example.net")
    assert codes(attempt(first, *message)) == ["450"]
    come_back(second, *message)
    assert codes(attempt(first, *message)) == ["250"]
    first.delivered(1)
    second.delivered(1)


def test_two_servers_at_once(server, exim, postfix):
    """Each message is deferred once and delivered once, whoever else is served meanwhile."""
    greylister = server("delay=0s", "allow_client_after=0", "allow_domain_after=0", "pool_hops=0", workers=2)
    servers = [exim(LINE, greylister), postfix(snippet("postfix.md", "main.cf"), greylister)]
    messages = 5

    def client(number):
        for message in range(messages):
            recipient = f"b{number}.{message}@example.net"
            come_back(servers[number % 2], "a@example.org", recipient, source=f"127.0.{number}.1")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mx in servers:
        mx.delivered(3 * messages)
    verdicts = greylister.verdicts(12 * messages)
    assert (verdicts.count("defer new"), verdicts.count("accept retry")) == (6 * messages, 6 * messages)

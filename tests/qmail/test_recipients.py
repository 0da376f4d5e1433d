"""Each recipient is answered for itself, and the message reaches exactly those that were accepted."""

import smtplib

import pytest

import aging
from smtp import swaks

DEFERRED = "451 4.7.1 "
REFUSED = "553 5.7.1 "
TEXT = "Subject: hello\r\n\r\nhello\r\n"


@pytest.fixture
def served(make_store, store_group, config, run_fastgrey, serve):
    """Start a server for a store that refuses one recipient and knows a sender's mail to another."""

    def start(**options):
        make_store("pool_hops=0", group=store_group)
        config('deny_recipients = ["denied@example.net"]\npool_hops = 0\n')
        assert run_fastgrey("apply").returncode == 0
        done = run_fastgrey("pass", "127.0.0.1", "a@example.org", "known@example.net")
        assert done.returncode == 0, done.stderr
        return serve(**options)

    return start


MIXED = ["known@example.net", "new@example.net", "denied@example.net", "Other@example.net"]


def test_mixed_answers_by_raw_client(served):
    server = served()
    client = server.session()
    assert client.say("EHLO client.example", "MAIL FROM:<a@example.org>")[1] == "250 ok"
    replies = client.say(*[f"RCPT TO:<{recipient}>" for recipient in MIXED])
    assert [replies[0][:4], replies[1][:10], replies[2][:10], replies[3][:10]] == ["250 ", DEFERRED, REFUSED, DEFERRED]
    assert client.say("DATA") == ["354 go ahead"]
    client.send("hello", ".")
    assert client.reply() == "250 ok taken"
    assert server.envelopes() == {("a@example.org", "known@example.net"): 1}
    assert server.verdicts() == ["accept known-triplet", "defer new", "reject denied", "defer new"]


def test_mixed_answers_by_smtplib(served):
    server = served()
    with smtplib.SMTP(server.address, server.port, timeout=60) as client:
        refused = client.sendmail("a@example.org", MIXED, TEXT)
        assert {name: code for name, (code, _) in refused.items()} == dict(zip(MIXED[1:], (451, 553, 451), strict=True))
        with pytest.raises(smtplib.SMTPRecipientsRefused) as nobody:
            client.sendmail("a@example.org", MIXED[1:], TEXT)
        assert set(nobody.value.recipients) == set(MIXED[1:])
        # The session goes on.
        assert client.sendmail("a@example.org", MIXED[:1], TEXT) == {}
    assert server.envelopes() == {("a@example.org", "known@example.net"): 2}
    assert server.messages()[0].text == TEXT.replace("\r\n", "\n")


@pytest.mark.parametrize("options", [[], ["--pipeline"]])
def test_mixed_answers_by_swaks(served, options):
    server = served()
    done = swaks(server, "a@example.org", MIXED, *options)
    assert done.returncode == 0, done.stdout
    for code, times in (("451 4.7.1 ", 2), ("553 5.7.1 ", 1), ("354 ", 1)):
        assert done.stdout.count(f"** {code}" if code > "4" else f"  {code}") == times, done.stdout
    assert server.envelopes() == {("a@example.org", "known@example.net"): 1}


def test_retry_after_the_delay(served, path, pending_path, run_fastgrey):
    """Too early is still deferred; later passes, for all recipients of the domain by then known."""
    server = served()
    recipients = ["new@example.net", "second@example.net"]
    with smtplib.SMTP(server.address, server.port, timeout=60) as client:
        for _ in range(2):
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail("a@other.example", recipients, TEXT)
    assert server.messages() == []
    aging.age(path, pending_path, 301)
    with smtplib.SMTP(server.address, server.port, timeout=60) as client:
        assert client.sendmail("a@other.example", recipients, TEXT) == {}
    assert server.envelopes() == {("a@other.example", *recipients): 1}
    assert server.verdicts() == ["defer new"] * 2 + ["defer early"] * 2 + ["accept retry", "accept known-domain"]


def test_retry_by_swaks(served, path, pending_path):
    server = served()
    # 24 is what swaks says when no recipient was accepted.
    assert swaks(server, "a@other.example", ["new@example.net"]).returncode == 24
    aging.age(path, pending_path, 301)
    assert swaks(server, "a@other.example", ["new@example.net"]).returncode == 0
    assert server.envelopes() == {("a@other.example", "new@example.net"): 1}


def test_null_sender(served, path, pending_path):
    server = served()
    assert server.session().mail("", "b@example.net", "denied@example.net") == ["451", "553"]
    server.hang_up()
    aging.age(path, pending_path, 301)
    assert swaks(server, "", ["b@example.net", "c@example.net"]).returncode == 0
    assert server.envelopes() == {("", "b@example.net"): 1}
    assert server.verdicts() == ["defer new", "reject denied", "accept retry", "defer new"]
    assert " sender= " in server.log()[0], server.log()


def test_addresses_reach_the_checker_as_qmail_gives_them(served, checker):
    server = served(CHECKENV=checker('printf "%s|" "$#" "$0" "$@" >&2; echo >&2'))
    client = server.session()
    client.say('MAIL FROM:<@relay.example:"Joe Doe"@Example.ORG>', r"RCPT TO:<it's\$(id)@example.net>", "RCPT TO:<>")
    assert server.log() == [
        f"2|{server.home}/bin/checker|Joe Doe@Example.ORG|it's$(id)@example.net|",
        f"2|{server.home}/bin/checker|Joe Doe@Example.ORG||",
    ]


RULES = '127.0.0.2:allow,RELAYCLIENT=""\n127.0.0.3:allow,RELAYCLIENT="@gate.example"\n127.0.0.4:deny\n:allow\n'


def test_relays(served):
    """Their mail is not checked, whatever the recipient; others' still is."""
    server = served(rules=RULES)
    relayed = ["new@example.net", "denied@example.net"]
    assert server.session("127.0.0.2").mail("a@other.example", *relayed) == ["250"] * 2
    assert server.session("127.0.0.3").mail("a@other.example", *relayed) == ["250"] * 2
    assert server.log() == []
    assert server.session("127.0.0.1").mail("a@other.example", *relayed) == ["451", "553"]
    assert server.envelopes() == {
        ("a@other.example", *relayed): 1,
        ("a@other.example", *[recipient + "@gate.example" for recipient in relayed]): 1,
    }
    assert server.verdicts() == ["defer new", "reject denied"]


def test_relay_by_swaks(served):
    server = served(rules=RULES)
    assert swaks(server, "a@other.example", ["new@example.net"], "--local-interface", "127.0.0.3").returncode == 0
    assert swaks(server, "a@other.example", ["new@example.net"], "--local-interface", "127.0.0.1").returncode == 24
    assert server.envelopes() == {("a@other.example", "new@example.net@gate.example"): 1}


def test_no_checkenv_no_check(served):
    server = served(CHECKENV=None)
    assert server.session().mail("a@other.example", "new@example.net", "denied@example.net") == ["250"] * 2
    assert server.log() == []


def test_rules_may_turn_it_on_for_some(served, home):
    """tcprules sets the variable for a network, with another program for another."""
    program = home / "bin" / "qmail-checkenv"
    server = served(CHECKENV=None, rules=f'127.0.0.2:allow,CHECKENV=""\n127.0.0.3:allow,CHECKENV="{program}"\n:allow\n')
    assert [server.session(f"127.0.0.{host}").mail(f"a@{host}.example", "new@example.net") for host in (1, 2, 3)] == [
        ["250"], ["451"], ["451"]]


def test_configured_texts(served):
    server = served(CHECKENV_DEFER_TEXT="come back in a while (see http://mx.example/)", CHECKENV_REJECT_TEXT="no")
    client = server.session()
    client.say("MAIL FROM:<a@example.org>")
    assert client.say("RCPT TO:<new@example.net>", "RCPT TO:<denied@example.net>") == [
        "451 4.7.1 come back in a while (see http://mx.example/)", "553 5.7.1 no"]


@pytest.mark.parametrize("text", [
    "later\r\n250 ok", "later\n250 ok", "\x1b[2J", "später", "%s%n%d", "x" * 5000, "ends in a return\r"])
def test_no_text_is_more_than_one_reply(served, text):
    """RFC 5321: a reply line has 512 bytes at most, CR LF included, of printable ASCII."""
    server = served(CHECKENV_DEFER_TEXT=text, CHECKENV_REJECT_TEXT=text)
    client = server.session()
    client.say("MAIL FROM:<a@example.org>")
    replies = client.say("RCPT TO:<new@example.net>", "RCPT TO:<denied@example.net>", "NOOP", "QUIT")
    assert [reply[:10] for reply in replies] == [DEFERRED, REFUSED, "250 ok", "221 mx.exa"]
    assert client.reply() == ""
    for reply in replies[:2]:
        assert reply.isascii() and reply.isprintable() and len(reply) <= 510

"""Commands that come in one piece (RFC 2920): each has its reply, in its place, whatever the checker does meanwhile."""

import pytest


@pytest.fixture
def server(make_store, store_group, config, run_fastgrey, serve):
    """A server that defers whom it does not know."""
    make_store("pool_hops=0", group=store_group)
    config('deny_recipients = ["denied@example.net"]\nallow_recipients = ["wanted@", "postmaster@"]\n')
    assert run_fastgrey("apply").returncode == 0
    return serve()


def test_a_session_in_one_piece(server):
    client = server.session()
    client.send("EHLO client.example", "MAIL FROM:<a@example.org>", "RCPT TO:<wanted@example.net>",
                "RCPT TO:<new@example.net>", "RCPT TO:<denied@example.net>", "DATA")
    assert [client.reply()[:3] for _ in range(6)] == ["250", "250", "250", "451", "553", "354"]
    client.send("hello", ".", "MAIL FROM:<a@example.org>", "RCPT TO:<new@example.net>", "DATA", "QUIT")
    assert [client.reply()[:3] for _ in range(5)] == ["250", "250", "451", "503", "221"]
    assert client.reply() == ""
    assert server.envelopes() == {("a@example.org", "wanted@example.net"): 1}


def test_100_recipients_in_one_piece(server):
    """Far more than one read of the server takes; the answers alternate, so that one out of place shows."""
    kinds = ["new{}@example.net", "wanted@{}.example.net", "denied@example.net", "other{}@example.net"]
    recipients = [kinds[number % 7 % 4].format(number) for number in range(100)]
    codes = {"new": "451", "wan": "250", "den": "553", "oth": "451"}
    client = server.session()
    client.send("MAIL FROM:<a@example.org>", *[f"RCPT TO:<{recipient}>" for recipient in recipients], "DATA")
    assert [client.reply()[:3] for _ in range(102)] == [
        "250", *[codes[recipient[:3]] for recipient in recipients], "354"]
    client.send("hello", ".", "QUIT")
    assert client.reply() == "250 ok taken"
    (message,) = server.messages()
    assert message.recipients == [recipient for recipient in recipients if recipient.startswith("wanted")]


def test_byte_by_byte(server):
    client = server.session()
    for byte in b"MAIL FROM:<a@example.org>\r\nRCPT TO:<wanted@example.net>\r\nRCPT TO:<new@example.net>\r\nDATA\r\n":
        client.send_raw(bytes([byte]))
    assert [client.reply()[:3] for _ in range(4)] == ["250", "250", "451", "354"]
    client.send(".")
    assert client.reply() == "250 ok taken"


def test_a_checker_that_reads_gets_none_of_it(server, serve, checker):
    """Standard input is the client's connection in qmail-smtpd: what was sent ahead must not end in a checker."""
    client = serve(CHECKENV=checker("exec cat >&2")).session()
    client.send("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>")
    assert [client.reply() for _ in range(2)] == ["250 ok"] * 2
    slow = serve(CHECKENV=checker("cat >&2; sleep 0.2; cat >&2", name="slow"))
    client = slow.session()
    client.send("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>")
    client.send("NOOP", "NOOP", "QUIT")
    assert [client.reply()[:3] for _ in range(5)] == ["250"] * 4 + ["221"]
    assert slow.log() == []

"""The tests' own server keeps the rules that qmail-smtpd keeps, or the tests here would prove little about qmail."""

import pytest

FIRST = ("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>")


@pytest.fixture
def server(serve):
    """A server that asks no checker."""
    return serve(CHECKENV=None)


def test_replies_to_what_comes_out_of_order(server):
    client = server.session()
    assert client.say("RCPT TO:<b@example.net>") == ["503 MAIL first (#5.5.1)"]
    assert client.say("DATA") == ["503 MAIL first (#5.5.1)"]
    assert client.say("MAIL FROM:<a@example.org>", "DATA") == ["250 ok", "503 RCPT first (#5.5.1)"]
    assert client.say("VRFY b", "") == ["502 unimplemented (#5.5.1)"] * 2
    assert client.say("EHLO x", "DATA") == ["250 8BITMIME", "503 MAIL first (#5.5.1)"]
    assert client.say(*FIRST, "RSET", "DATA", "QUIT") == ["250 ok", "250 ok", "250 flushed", "503 MAIL first (#5.5.1)",
                                                          "221 mx.example"]
    assert client.reply() == ""
    assert server.messages() == []


def test_a_message_ends_the_transaction(server):
    client = server.session()
    for _ in range(2):
        assert client.mail("a@example.org", "b@example.net") == ["250"]
        assert client.say("RCPT TO:<c@example.net>") == ["503 MAIL first (#5.5.1)"]
    assert server.envelopes() == {("a@example.org", "b@example.net"): 2}


def test_second_mail_begins_again(server):
    client = server.session()
    client.say(*FIRST)
    client.mail("c@example.org", "d@example.net")
    assert server.envelopes() == {("c@example.org", "d@example.net"): 1}


def test_text_arrives_as_sent(server):
    """Dots at the start of a line are doubled under way; only CR LF ends a line, so nothing else ends the message."""
    server.session().mail("a@example.org", "b@example.net", text="one\r\n..two\r\n\r\n.\n\r\n\n.\r\n\r.\r\nend")
    (message,) = server.messages()
    assert message.text == "one\n.two\n\n\n\n\n.\n\r.\nend\n"


def test_a_message_of_nothing(server):
    client = server.session()
    client.say(*FIRST, "DATA")
    client.send(".")
    assert client.reply() == "250 ok taken"
    assert [message.text for message in server.messages()] == [""]


@pytest.mark.parametrize(("given", "read"), [
    ("<User@Example.NET>", "User@Example.NET"),
    ('<"joe user"@example.net>', "joe user@example.net"),
    (r"<joe\>@example.net>", "joe>@example.net"),
    (r'<"a\"b>"@example.net>', 'a"b>@example.net'),
    ("<@relay.example,@other.example:b@example.net>", "b@example.net"),
    ("b@example.net", "b@example.net"),
    ("  b@example.net SIZE=1", "b@example.net"),
    ("<b@example.net> SIZE=1", "b@example.net"),
    ("<b@example.net", "b@example.net"),
    ("<b@example.net\\", "b@example.net"),
    ("<>", ""),
    (f"<{'x' * 899}>", "x" * 899),
])
def test_addresses(server, given, read):
    client = server.session()
    assert client.say(f"MAIL FROM:{given}", f"RCPT TO:{given}", "DATA") == ["250 ok", "250 ok", "354 go ahead"]
    client.send(".")
    assert client.reply() == "250 ok taken"
    assert server.envelopes() == {(read, read): 1}


def test_what_is_too_long(server):
    client = server.session()
    long = f"<{'x' * 900}>"
    assert client.say(f"MAIL FROM:{long}", "RCPT TO:<b>") == ["555 syntax error (#5.5.4)", "503 MAIL first (#5.5.1)"]
    assert client.say("MAIL FROM:<>", f"RCPT TO:{long}", "DATA") == [
        "250 ok", "555 syntax error (#5.5.4)", "503 RCPT first (#5.5.1)"]
    assert client.say("NOOP " + "x" * 70_000, "NOOP") == ["500 line too long (#5.5.2)", "250 ok"]


def test_a_silent_client_is_left(serve, hasty_smtpd):
    """Nothing waits for ever; what was on the way is dropped."""
    server = serve(hasty_smtpd, CHECKENV=None)
    client = server.session()
    client.say(*FIRST, "DATA")
    client.send_raw(b"half a li")
    assert client.reply() == ""
    assert server.messages() == []


def test_a_spool_that_fails_takes_no_message(serve, home):
    client = serve(CHECKENV=None).session()
    (home / "spool").rmdir()
    client.say(*FIRST, "DATA")
    client.send(".")
    assert client.reply() == "451 cannot keep it (#4.3.0)"

"""What is answered, over the real sockets of the real command: Postfix's policy protocol, the hook's exchange, the
plain line."""

import pytest

import fastgrey
from aging import age
from serving import hook, policy

DEFER = "action=DEFER_IF_PERMIT greylisted, please try again in 300 seconds"


@pytest.mark.parametrize("place", ["unix", "tcp", "hooks"])
def test_a_stranger_waits_on_every_address(serve, place):
    server = serve()
    client = server.client({"unix": server.place, "tcp": "tcp", "hooks": server.hook_place}[place])
    assert client.ask(policy()) == DEFER
    assert client.ask(hook()).splitlines()[0] in ("verdict=defer early 300", "verdict=defer early 299")


def test_one_connection_asks_as_often_as_it_likes(serve):
    client = serve().client()
    for number in range(300):
        reply = client.ask(policy(sender=f"a{number}@example.org", recipient=f"b{number}x@example.net"))
        assert reply.startswith("action=")


def test_requests_sent_at_once_are_answered_in_their_order(serve):
    client = serve("delay=1h").client()
    client.send(policy(recipient="one@example.net") + hook(recipient="two@example.net")
                + b"check\t192.0.2.1\ta@example.org\tthree@example.net\n" + policy(recipient="one@example.net"))
    assert client.reply().startswith("action=DEFER_IF_PERMIT")
    assert client.reply().startswith("verdict=defer new 3600")
    assert client.reply(b"\n").startswith("defer new 3600 ")
    assert client.reply().startswith("action=DEFER_IF_PERMIT")


def test_many_more_than_one_buffer_of_requests_at_once(serve):
    """More replies than a socket takes while nobody reads them."""
    client = serve().client()
    number = 3000
    requests = b"".join(policy(sender=f"a@s{i}.example") for i in range(number))
    client.socket.settimeout(None)
    sent = 0
    client.socket.setblocking(False)
    got = b""
    while got.count(b"\n\n") < number:
        try:
            sent += client.socket.send(requests[sent:sent + 65536])
        except BlockingIOError:
            client.socket.setblocking(True)
            client.socket.settimeout(60)
            got += client.socket.recv(65536)
            client.socket.setblocking(False)
        if sent == len(requests):
            client.socket.settimeout(60)
            got += client.socket.recv(65536)
    assert got.count(b"\n\n") == number and got.count(b"DEFER_IF_PERMIT") == number


@pytest.mark.parametrize("step", [1, 7, 300])
def test_a_request_that_comes_in_pieces(serve, step):
    client = serve().client("tcp")
    request = policy()
    for start in range(0, len(request), step):
        client.send(request[start:start + step])
    assert client.reply() == DEFER


def test_what_is_no_recipient_is_not_decided(serve):
    server = serve()
    client = server.client()
    for state in ("CONNECT", "EHLO", "HELO", "MAIL", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN", ""):
        assert client.ask(policy(state=state)) == "action=DUNNO"
    assert client.ask(policy(sasl_username="me")) == "action=DUNNO"
    server.stop()
    assert server.said("client=") == []


def test_a_denied_client_is_refused_for_good(serve, make_store, config, run_fastgrey):
    make_store()
    done = run_fastgrey("apply", "--config", config('deny_senders = ["bad@example.org"]'))
    assert done.returncode == 0, done.stderr
    client = serve(config='reject_text = "go away"').client()
    assert client.ask(policy(sender="bad@example.org")) == "action=550 5.7.1 go away"
    assert client.line("192.0.2.1", "bad@example.org", "b@example.net") == "reject denied 0 go away"
    answer = dict(line.split("=", 1) for line in client.ask(hook(sender="bad@example.org")).splitlines())
    assert answer["verdict"] == "reject denied 0" and answer["rule"].endswith("fastgrey.toml:1")


def test_a_retry_passes_and_its_message_is_marked_once(serve, make_store, path, pending_path):
    with fastgrey.open(make_store()) as store:
        for recipient in ("b@example.net", "c@example.net"):
            store.check(client="192.0.2.1", sender="bounce", recipient=recipient)
    age(path, pending_path, 400)
    server = serve()
    client = server.client()
    marked = client.ask(policy(sender="bounce", instance="m.1"))
    assert marked.startswith("action=PREPEND X-Greylist: delayed 4") and marked.endswith(" (retry)")
    assert client.ask(policy(sender="bounce", recipient="c@example.net", instance="m.1")) == "action=DUNNO"
    assert client.ask(policy(sender="bounce", instance="m.2")) == "action=DUNNO"
    server.stop()
    assert [" ".join(line.split()[1:3]) for line in server.said("client=")] == [
        "accept retry", "accept retry", "accept known-triplet"]


def test_no_trace_where_none_is_wanted(serve, make_store, path, pending_path):
    with fastgrey.open(make_store()) as store:
        store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net")
    age(path, pending_path, 400)
    assert serve(config='trace = ""').client().ask(policy()) == "action=DUNNO"


def test_only_the_first_recipient_where_that_is_asked_for(serve):
    server = serve("delay=1h", config="first_recipient = true")
    client = server.client()
    first = client.ask(policy(instance="m.1"))
    assert first == "action=DEFER_IF_PERMIT greylisted, please try again in 3600 seconds"
    assert client.ask(policy(instance="m.1", recipient="c@example.net", sasl_username="")) == first
    assert client.ask(policy(instance="m.2", recipient="c@example.net")) == first
    server.stop()
    assert [line.split(" recipient=")[1].split()[0] for line in server.said("defer new")] == ["b@example.net",
                                                                                             "c@example.net"]


def test_the_text_of_a_deferral_is_the_administrators(serve):
    assert (serve("delay=7m", config='defer_text = "4.2.0 come back in {seconds}s, please"').client().ask(policy())
            == "action=DEFER_IF_PERMIT 4.2.0 come back in 420s, please")


def test_a_text_need_not_tell_the_seconds(serve):
    assert serve(config='defer_text = "later"').client().ask(policy()) == "action=DEFER_IF_PERMIT later"


def test_the_name_that_postfix_confirmed_is_trusted(serve, make_store, config, run_fastgrey):
    make_store()
    done = run_fastgrey("apply", "--config", config('allow_clients = ["example.org", "unknown"]'))
    assert done.returncode == 0, done.stderr
    client = serve().client()
    assert client.ask(policy(client_name="mail.example.org")) == "action=DUNNO"
    assert client.ask(policy(client_name="unknown", reverse_client_name="mail.example.org")).startswith("action=DEFER")
    # Who else asks has to say so, or the setting does.
    assert client.line("192.0.2.1", "a@example.org", "b@example.net", "mail.example.org").startswith("defer early")
    assert client.ask(hook(client_name="mail.example.org")).startswith("verdict=defer")
    assert client.ask(hook(client_name="mail.example.org", name_trusted="yes")).startswith("verdict=accept allowed 0")


@pytest.mark.parametrize(("setting", "answers"), [
    ("on_error=accept", ("action=DUNNO", "accept error 0", "verdict=accept error 0")),
    ("on_error=defer", ("action=DEFER_IF_PERMIT 4.3.0 greylisting is out of order here, please try again later",
                        "defer error 0 4.3.0 greylisting is out of order here, please try again later",
                        "verdict=defer error 0")),
])
def test_what_cannot_be_decided(serve, setting, answers):
    server = serve(setting)
    client = server.client()
    assert client.ask(policy(client="nowhere")) == answers[0]
    assert client.line("nowhere", "a@example.org", "b@example.net") == answers[1]
    said = client.ask(hook(client="nowhere")).splitlines()
    assert said[0] == answers[2] and said[-1].startswith("cause=the client address is no IP address; ")
    server.stop()
    assert len(server.said("the client address is no IP address")) == 3


def test_an_address_of_two_thousand_bytes_is_an_error_and_no_more(serve):
    client = serve("on_error=defer").client()
    assert client.ask(policy(sender="a" * 2000 + "@example.org")).startswith("action=DEFER_IF_PERMIT 4.3.0")
    assert client.ask(policy()) == DEFER


def test_a_question_of_a_hook_may_be_of_another_time_and_dry(serve):
    server = serve()
    client = server.client(server.hook_place)
    assert client.ask(hook(now="1000000000", dry_run="yes")).startswith("verdict=defer new 300")
    assert client.ask(hook(now="1000000000")).startswith("verdict=defer new 300")
    assert client.ask(hook(now="1000000400")).splitlines()[0] == "verdict=accept retry 0"
    assert client.ask(hook(now="1000000400", sender="a@example.com")).startswith("verdict=defer new 300")
    server.stop()
    assert len(server.said("client=")) == 3


def test_the_first_of_an_attribute_sent_twice_counts(serve):
    client = serve().client()
    assert client.ask(b"protocol_state=VRFY\n" + policy()) == "action=DUNNO"


def test_the_same_verdicts_as_the_hook(serve, run_hook):
    """One store, asked both ways."""
    # Lines of one worker are in their order.
    server = serve(workers=1)
    assert server.ask(policy()) == DEFER
    assert run_hook().words == ["defer", "early"]
    assert run_hook(sender="x@example.com").words == ["defer", "new"]
    assert server.ask(hook(sender="x@example.com")).startswith("verdict=defer early")
    server.stop()
    lines = server.said("client=")
    assert lines[0].startswith("fastgrey: defer new wait=300 client=192.0.2.1 sender=a@example.org "
                               "recipient=b@example.net key=")

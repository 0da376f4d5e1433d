"""Many recipients, many sessions at once: all answered, all counted, and each message reaches whom it should."""

import json
from collections import Counter

import pytest

import aging

MANY = 200


@pytest.fixture
def path(in_memory):
    """Where the store is: no disk may stretch many promotions to the end of the hook's patience."""
    in_memory.chmod(0o755)
    return in_memory / "store"


@pytest.fixture
def server(make_store, store_group, config, run_fastgrey, serve):
    """A server for that many sessions, which relays for a network."""
    make_store(group=store_group)
    config('deny_recipients = ["denied@"]\nallow_recipients = ["wanted@"]\npool_hops = 0\n')
    assert run_fastgrey("apply").returncode == 0
    return serve(limit=MANY, rules='127.200.:allow,RELAYCLIENT="@gate.example"\n:allow\n')


@pytest.fixture
def count(run_fastgrey):
    """The checks by verdict, as the statistics have them, since this was last asked."""
    before = Counter()

    def ask():
        verdicts = Counter(json.loads(run_fastgrey("stats", "--json").stdout)["verdicts"])
        news = verdicts - before
        before.update(news)
        return news

    return ask


def test_200_recipients_of_one_message(server, count, path, pending_path):
    kinds = ["wanted@{}.example", "new{}@example.net", "denied@{}.example", "Late{}@example.net"]
    recipients = [kinds[number % 4].format(number) for number in range(MANY)]
    with server.session() as client:
        assert client.mail("a@example.org", *recipients) == ["250", "451", "553", "451"] * 50
    wanted = recipients[::4]
    assert server.envelopes() == {("a@example.org", *wanted): 1}
    assert count() == {"accept allowed": 50, "defer new": 100, "reject denied": 50}
    aging.age(path, pending_path, 301)
    again = [recipient for recipient in recipients if recipient not in wanted]
    assert server.session().mail("a@example.org", *again) == ["250", "553", "250"] * 50
    assert server.envelopes() == {
        ("a@example.org", *wanted): 1,
        ("a@example.org", *[recipient for recipient in again if not recipient.startswith("denied")]): 1,
    }
    # The first to come back makes the sender's domain known, and that lets the others in.
    assert count() == {"accept retry": 1, "accept known-domain": 99, "reject denied": 50}


def all_say(sessions, *lines, replies=None):
    """Have all sessions send their lines before any reply is read; the codes of the replies by session."""
    for number, session in enumerate(sessions):
        session.send(*[line.format(number) for line in lines])
    return [[session.reply()[:3] for _ in range(replies or len(lines))] for session in sessions]


def test_200_sessions_at_once(server, count, path, pending_path):
    """Each a client from a network of its own. A quarter are relays; the others are deferred, and come back."""
    relays = set(range(0, MANY, 4))
    sources = [f"127.{200 if number in relays else 100}.{number}.1" for number in range(MANY)]
    for code, verdict in (("451", "defer new"), ("250", "accept retry")):
        sessions = [server.session(source) for source in sources]
        assert all_say(sessions, "EHLO client.example", "MAIL FROM:<a@{}.example>", "RCPT TO:<new@{}.example>",
                       "RCPT TO:<denied@{}.example>", "RCPT TO:<wanted@{}.example>", "DATA") == [
            ["250", "250", "250", "250", "250", "354"] if number in relays else
            ["250", "250", code, "553", "250", "354"] for number in range(MANY)]
        assert all_say(sessions, "message {}", ".", replies=1) == [["250"]] * MANY
        server.hang_up()
        assert count() == {verdict: 150, "reject denied": 150, "accept allowed": 150}
        aging.age(path, pending_path, 301)
    gate = {(f"a@{number}.example", *[f"{name}@{number}.example@gate.example" for name in ("new", "denied", "wanted")])
            for number in relays}
    direct = {(f"a@{number}.example", *[f"{name}@{number}.example" for name in names])
              for number in set(range(MANY)) - relays for names in (("wanted",), ("new", "wanted"))}
    assert server.envelopes() == Counter(gate) + Counter(gate) + Counter(direct)
    # No message got the text of another.
    assert {(message.sender, message.text) for message in server.messages()} == {
        (f"a@{number}.example", f"message {number}\n") for number in range(MANY)}


def test_200_sessions_of_one_client(server, count, path, pending_path):
    """All with the same envelope at the same moment: one of them is the first, and none is forgotten."""
    lines = ("MAIL FROM:<a@example.org>", "RCPT TO:<new@example.net>")
    sessions = [server.session() for _ in range(MANY)]
    assert all_say(sessions, *lines) == [["250", "451"]] * MANY
    server.hang_up()
    assert count() == {"defer new": 1, "defer early": MANY - 1}
    aging.age(path, pending_path, 301)
    sessions = [server.session() for _ in range(MANY)]
    assert all_say(sessions, *lines, "DATA") == [["250", "250", "354"]] * MANY
    assert all_say(sessions, "hello", ".", replies=1) == [["250"]] * MANY
    assert server.envelopes() == {("a@example.org", "new@example.net"): MANY}
    verdicts = count()
    assert verdicts.total() == MANY
    assert verdicts["accept retry"] >= 1
    assert set(verdicts) <= {"accept retry", "accept known-domain", "accept known-client"}

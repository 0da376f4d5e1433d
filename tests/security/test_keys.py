"""No two different triplets have one key: what a client can move from one part to the next makes another message."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import fastgrey
from fastgrey import _core

# A digit would be reduced in a sender; a byte of 1 could be a length.
PIECE = st.lists(st.sampled_from(b"ab@.+-=\xff\x01"), max_size=6).map(bytes)

CLIENT = st.sampled_from(["192.0.2.1", "192.0.3.1", "::c000:201", "2001:db8::1", "2001:db8:0:1::1"])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "store"
    fastgrey.create(path)
    with fastgrey.open(path) as opened:
        yield opened


def key_of(store, client, sender, recipient):
    """The whole key of a triplet, and the parts of which it is made."""
    facts = _core.explain(store, client=client, sender=sender, recipient=recipient, now=10**9)
    network = _core.normalise_client(client)[2]
    return facts["key"], (network, _core.normalise_sender(sender), _core.normalise_recipient(recipient))


@st.composite
def moved(draw):
    """Sender and recipient, and the same with some bytes on the other side of their border."""
    sender, recipient = draw(PIECE), draw(PIECE)
    whole, place = sender + recipient, draw(st.integers(0, 12))
    return (sender, recipient), (whole[:place], whole[place:])


@example((((b"a", b"b@c"), (b"ab", b"@c"))))
@example((((b"", b"ab"), (b"ab", b""))))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moved())
def test_a_byte_over_the_border(store, requests):
    (first, parts), (second, others) = (key_of(store, "192.0.2.1", *request) for request in requests)
    assert (first == second) == (parts == others)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CLIENT, PIECE, PIECE), min_size=2, max_size=6))
def test_one_key_one_triplet(store, requests):
    keys = {}
    for request in requests:
        key, parts = key_of(store, *request)
        assert keys.setdefault(key, parts) == parts
    assert len(keys) == len(set(keys.values()))


def test_kinds_and_places_do_not_meet(store):
    """A network that reads like a name, a sender that reads like a network: the kind and the form stand in front."""
    by_name = _core.explain(store, client="192.0.2.1", sender="a@b", recipient="c", client_name="x.b.example",
                            name_trusted=True, now=10**9)
    keys = [by_name["key"], key_of(store, "192.0.2.1", b"4\x18\xc0\0\2"[:2] + b"a@b", b"c")[0],
            key_of(store, "192.0.2.1", b"nb.example", b"a@bc")[0], key_of(store, "192.0.2.1", b"a@b", b"c\1")[0]]
    assert len(set(keys)) == len(keys)

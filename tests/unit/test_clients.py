"""Client addresses, networks and name parents."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

import model
from fastgrey._core import client_name_parent, normalise_client


def packed(text):
    return ipaddress.ip_address(text).packed


@pytest.mark.parametrize(("text", "family", "exact", "network"), [
    ("192.0.2.77", 4, "192.0.2.77", "192.0.2.0"),
    ("::ffff:192.0.2.77", 4, "192.0.2.77", "192.0.2.0"),
    ("::FFFF:c000:024d", 4, "192.0.2.77", "192.0.2.0"),
    ("0:0:0:0:0:ffff:192.0.2.77", 4, "192.0.2.77", "192.0.2.0"),
    ("2001:db8:1:2:3:4:5:6", 6, "2001:db8:1:2::", "2001:db8:1:2::"),
    ("2001:DB8:1:2::6%eth0", 6, "2001:db8:1:2::", "2001:db8:1:2::"),
    ("fe80::1%25", 6, "fe80::", "fe80::"),
    ("::1", 6, "::", "::"),
    ("::192.0.2.77", 6, "::", "::"),
])
def test_address(text, family, exact, network):
    assert normalise_client(text) == (family, packed(exact), packed(network))


@pytest.mark.parametrize(("text", "prefixes", "network"), [
    ("192.0.2.77", (32, 64), "192.0.2.77"),
    ("192.0.2.77", (27, 64), "192.0.2.64"),
    ("192.0.2.77", (16, 64), "192.0.0.0"),
    ("192.0.2.77", (0, 64), "0.0.0.0"),
    ("2001:db8:1:2:3::", (24, 128), "2001:db8:1:2:3::"),
    ("2001:db8:1:2ff::", (24, 56), "2001:db8:1:200::"),
    ("2001:db8:1:2ff::", (24, 0), "::"),
])
def test_network_masks(text, prefixes, network):
    assert normalise_client(text, *prefixes)[2] == packed(network)


@pytest.mark.parametrize("text", [
    "", "x", "192.0.2", "192.0.2.256", "192.0.2.1.", " 192.0.2.1", "192.0.2.01", "0x7f.1", "1", "%eth0", "::g", ":::",
    "1:2:3:4:5:6:7:8:9", "192.0.2.1/24", "[::1]", "unknown", b"\xff\xfe", b"192.0.2.1\x00", "1" * 200,
])
def test_no_address(text):
    with pytest.raises(ValueError, match="no IP address"):
        normalise_client(text)


@pytest.mark.parametrize(("name", "address", "parent"), [
    ("mail-wr1-f41.google.com", "209.85.221.41", "google.com"),
    ("MAIL.Example.Org.", "192.0.2.1", "example.org"),
    ("a.b.c.example.org", "192.0.2.1", "b.c.example.org"),
    ("mail.example.co.uk", "2001:db8::1", "example.co.uk"),
    # Two labels, one, none.
    ("example.org", "192.0.2.1", ""),
    ("localhost", "192.0.2.1", ""),
    ("", "192.0.2.1", ""),
    # The last two octets stand in the name: a dynamic line.
    ("ip-192-0-2-77.dsl.example.net", "192.0.2.77", ""),
    ("77.2.0.192.static.example.net", "192.0.2.77", ""),
    ("host002077.example.net.example", "192.0.2.77", "example.net.example"),
    ("host-002-077.dsl.example.net", "192.0.2.77", ""),
    ("p5.pool5.example.net", "192.0.5.5", ""),
    ("m5.pool.example.net", "192.0.5.5", ""),
    ("m277.pool.example.net", "192.0.2.77", "pool.example.net"),
    ("m0.x0.example.net", "10.1.0.0", ""),
    # Only IPv4 clients have octets to look for.
    ("ip-1-1.dsl.example.net", "2001:db8::101", "dsl.example.net"),
    # A run longer than any octet must not wrap round to one.
    ("m4294967373.x2.example.net", "192.0.2.77", "x2.example.net"),
])
def test_name_parent(name, address, parent):
    assert client_name_parent(name, address) == parent.encode()


@given(st.text("0123456789.-ab", max_size=40), st.tuples(*[st.integers(0, 255)] * 4))
def test_name_parent_is_the_model_s(name, octets):
    address = ".".join(map(str, octets)).encode()
    exact = model.normalise_client(address)[0]
    assert client_name_parent(name, address) == model.name_parent(name.encode(), exact)


# What an IPv4 address is made of, right and wrong.
NUMBERS = st.sampled_from(["0", "1", "9", "10", "99", "100", "255", "256", "260", "999", "00", "01", "001", "", "a"])
ADDRESSES = (st.ip_addresses().map(str) | st.text("0123456789abcdef:.%", max_size=30)
             | st.lists(NUMBERS, min_size=3, max_size=5).map(".".join)
             | st.lists(NUMBERS).map(".".join).map("::ffff:".__add__))


@given(ADDRESSES, st.integers(0, 32), st.integers(0, 128))
def test_address_is_the_model_s(text, ipv4_prefix, ipv6_prefix):
    try:
        exact, network = model.normalise_client(text.encode(), ipv4_prefix, ipv6_prefix)
    except ValueError:
        with pytest.raises(ValueError):
            normalise_client(text, ipv4_prefix, ipv6_prefix)
    else:
        _, ours_exact, ours_network = normalise_client(text, ipv4_prefix, ipv6_prefix)
        assert ours_exact == exact.network_address.packed
        assert ours_network == network.network_address.packed

"""Rule entries: what each form means, what is refused, and files of them."""

import ipaddress

import pytest

from fastgrey import rules
from fastgrey.errors import PolicyError
from fastgrey.rules import Rule


def parse(list_name, entry):
    return rules.parse(Rule(list_name, entry, "file", 7))


def network(text):
    found = ipaddress.ip_network(text)
    return bytes([found.prefixlen]) + found.network_address.packed


@pytest.mark.parametrize(("entry", "kind", "text"), [
    ("192.0.2.7", "ipv4", network("192.0.2.7/32")), ("192.0.2.7/24", "ipv4", network("192.0.2.0/24")),
    ("0.0.0.0/0", "ipv4", network("0.0.0.0/0")), ("10", "ipv4", network("10.0.0.0/8")),
    ("10.20", "ipv4", network("10.20.0.0/16")), ("10.20.", "ipv4", network("10.20.0.0/16")),
    ("10.20.30", "ipv4", network("10.20.30.0/24")), ("2001:DB8::7", "ipv6", network("2001:db8::7/128")),
    ("2001:db8::7/32", "ipv6", network("2001:db8::/32")), ("::/0", "ipv6", network("::/0")),
    ("::ffff:192.0.2.7", "ipv4", network("192.0.2.7/32")), ("::ffff:192.0.2.0/120", "ipv4", network("192.0.2.0/24")),
    ("::ffff:0:0/95", "ipv6", network("::fffe:0:0/95")), ("Mail.Example.ORG.", "name", b"mail.example.org"),
    ("4you.example", "name", b"4you.example"), ("/^a\\d/", "regex", b"^a[0-9]"),
])
def test_clients(entry, kind, text):
    assert parse("deny_clients", entry)[:2] == (kind, text)


@pytest.mark.parametrize(("entry", "kind", "text"), [
    ("User@Example.ORG.", "address", b"user@example.org"), ("user+ext@x.org", "address", b"user+ext@x.org"),
    ("a@b@c", "address", b"a@b@c"), ("User@", "user", b"user"), ("Example.org", "domain", b"example.org"),
    ("@example.org", "domain", b"example.org"), ("*%*", "glob", b"*%*"), ("*@Example.org", "glob", b"*@example.org"),
    ("/^$/", "regex", b"^$"), ("user@[192.0.2.1]", "address", b"user@[192.0.2.1]"),
    ("\u00e9@example.org", "address", "\u00e9@example.org".encode()),
])
@pytest.mark.parametrize("list_name", ["allow_senders", "deny_recipients", "opt_in", "opt_out"])
def test_addresses(list_name, entry, kind, text):
    assert parse(list_name, entry)[:2] == (kind, text)


@pytest.mark.parametrize(("list_name", "entry", "what"), [
    ("deny_clients", "10.20.300", "no IP address"), ("deny_clients", "1.2.3.4/33", "no IP address"),
    ("deny_clients", "1.2.3.4.5", "no IP address"), ("deny_clients", "::1/129", "no IP address"),
    ("deny_clients", "010.0.0.1", "no IP address"), ("deny_clients", "10.20/16", "no IP address"),
    ("deny_clients", "192.0.2.0/255.255.255.0", "number of bits"), ("deny_clients", "10..20", "no IP address"),
    ("deny_clients", "*.example.org", "no globs"), ("deny_clients", "user@example.org", "expected an IP address"),
    ("deny_clients", "a b", "expected an IP address"), ("deny_clients", ".example.org", "expected an IP address"),
    ("deny_clients", "a..b", "expected an IP address"), ("deny_clients", "/x", "closing /"),
    ("deny_senders", "user name@x", "white space"), ("deny_senders", "<a@b>", "without < and >"),
    ("deny_senders", "@", "expected user@domain"), ("deny_senders", "a@b/c", "expected user@domain"),
    ("deny_senders", "a@.b", "expected user@domain"), ("deny_senders", "/(/", "never closed"),
    ("deny_senders", "/", "closing /"), ("deny_senders", "//", "empty"), ("deny_senders", "a" * 1001, "longer than"),
    ("deny_senders", "a\tb@c", "control character"),
])
def test_refused(list_name, entry, what):
    with pytest.raises(PolicyError, match=what) as caught:
        parse(list_name, entry)
    text = str(caught.value)
    assert text.startswith(f"file:7: {list_name}: ")
    assert "\n" not in text
    assert len(text) < 400


def test_file(tmp_path):
    file = tmp_path / "list"
    file.write_bytes(b"# comment\n\n  a@b.example \t# more\r\nc.example#x\n\xe9@d.example\n*%*")
    assert [(rule.entry, rule.line) for rule in rules.read_file("opt_out", str(file))] == [
        ("a@b.example", 3), ("c.example", 4), ("\udce9@d.example", 5), ("*%*", 6)]


@pytest.mark.parametrize("make", [lambda file: None, lambda file: file.mkdir()])
def test_file_that_cannot_be_read(tmp_path, make):
    make(tmp_path / "list")
    with pytest.raises(PolicyError, match="list: opt_out: .*name a file"):
        rules.read_file("opt_out", str(tmp_path / "list"))

"""Rule entries and requests for hypothesis: few parts of each kind, so that entries and requests meet often.

What stands in a list more than once is for the same end: whoever is drawn often is met often.
Regular expressions are those that POSIX and Python's re understand alike, and groups that repeat without bound hold
nothing that matches long runs, because re takes exponential time over such.
"""

import ipaddress
import re
from re import _parser

from hypothesis import strategies as st

CASES = st.sampled_from([bytes.lower, bytes.lower, bytes.upper, bytes.title])

IPV4 = [int(ipaddress.IPv4Address(text)) for text in
        ("10.20.30.40", "10.20.30.0", "10.2.3.4", "0.0.0.0", "255.255.255.255")]
IPV6 = [int(ipaddress.IPv6Address(text)) for text in
        ("2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:0:ffff:ffff:ffff:ffff", "::", "::1", "fe80::1",
         "64:ff9b::10.20.30.40", "::10.20.30.40", *["::ffff:10.20.30.40"] * 2,
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
NAMES = [b"", b".", *[b"example.org"] * 3, b"example.org.", b"example.org..", b".example.org", b"mail.example.org",
         b"a.mail.example.org.", b"notexample.org", b"example.org.evil.net", b"org", b"xample.org", b"10.20.30.40",
         b"10.example.org", b"h-30-40.dsl.example.org", b"a_b.example.org", b"\xff.example.org",
         b"caf\xc3\xa9.example.org"]
HOSTS = [*[b"example.org"] * 4, b"mail.example.org", b"org", b"xample.org", b"example.org.evil.net", b"evil.net",
         b"10.example.org", b"dsl.example.org", b"a_b.example.org", b"abc", b"dead.beef"]

USERS = [*[b"a"] * 8, b"", b"b", b"ab", b"a.b", b"a b", b"a+b", b"a+b+c", b"a+", b"+", b"+a", b"+a+b", b"++", b"x@a",
         b"a@example.org", b'"a b"', b"a%b", b"a1", b"prvs=1=a", b"srs0=x=y=example.org=a", b"bounce-17",
         b"caf\xc3\xa9", b"CAF\xc3\x89", b"\xff", b"#a", b"/a/", b"[a]"]
DOMAINS = [*[b"example.org"] * 3, b"example.org.", b"example.org..", b".example.org", *[b"mail.example.org"] * 3,
           b"a.mail.example.org", b"mail.example.org.", b"notexample.org", b"example.org.evil.net", b"org",
           b"xample.org", b"example", b"", b".",
           b"caf\xc3\xa9.example.org", b"\xff.example.org", b"example..org", b"a b.org"]
WRAPPERS = [b"%s", b"%s", b"%s", b"<%s>", b" %s\t", b" <%s>\v", b"<<%s>>", b"< %s >", b"@relay.example,@b.example:%s",
            b"<@relay.example:%s>", b"@relay.example:<%s>"]

ENTRY_USERS = [*[b"a"] * 10, b"b", b"ab", b"a.b", b"a+b", b"a+b+c", b"a+", b"+", b"+a", b"x@a", b"a%b", b"a1",
               b"prvs=1=a", b"bounce-17", b"caf\xc3\xa9", b"CAF\xc3\x89", b"[a]"]
ENTRY_DOMAINS = [*[b"example.org"] * 10, b"mail.example.org", b"a.mail.example.org", b"notexample.org",
                 b"example.org.evil.net", b"evil.net", b"org", b"xample.org", b"example", b"caf\xc3\xa9.example.org"]
GLOB_PIECES = [b"*", b"*", b"*", b"a", b"b", b"@", b".", b"+", b"%", b"?", b"[a]", b"example", b"org", b"mail",
               b"caf\xc3\xa9"]

NARROW = ["a", "b", "A", "E", "x", r"\.", r"\+", "@", "-", "%", "[ab]", "[A-E]", r"\d", r"\s", "[]a]", "[0-9@]"]
WIDE = [".", "[^@]", "[^a-e]", r"\w", "[a-z.@+-]", "[^]a]", "example", "Org", "mail"]
FIXED = [r"(^|[.@])", r"([.@]|$)", "(caf\u00e9)", "caf\u00e9", "CAF\u00c9"]
HOLES = ["x?", ".*", ".+?", ".", "[^@]*", r"\w+", "(a|b|mail)?", "(?:[.]|@){0,2}", "(^|[@.])", ".*x?.*"]
BOUNDED = ["", "", "", "?", "??", "{0,2}", "{2}", "{1,3}"]
UNBOUNDED = [*BOUNDED, "*", "+", "*?", "+?", "{1,}"]


def near(numbers, bits):
    """The addresses, and those that differ from them in one bit."""
    bit = st.one_of(st.just(0), st.integers(0, bits))
    return st.builds(lambda number, bit: number ^ (1 << bit >> 1), st.sampled_from(numbers), bit)


ADDRESSES = st.one_of(near(IPV4, 32).map(ipaddress.IPv4Address), near(IPV6, 128).map(ipaddress.IPv6Address))


def spellings(address):
    """The ways to write an address of a client."""
    if address.version == 4:
        mapped = ipaddress.IPv6Address((0xFFFF << 32) + int(address))
        forms = [str(address), str(address), f"::ffff:{address}", str(mapped), mapped.exploded]
    else:
        forms = [str(address), address.exploded]
    return st.builds(lambda text, scope, case: case(text.encode()) + scope, st.sampled_from(forms),
                     st.sampled_from([b"", b"", b"", b"%eth0"]), CASES)


def empty_repeated(parsed):
    """Whether a part of the expression that may be empty is repeated, which is refused (docs/configuration.md)."""
    for operator, argument in parsed:
        if str(operator) in ("MAX_REPEAT", "MIN_REPEAT"):
            _, most, part = argument
            # An optional part within an optional one is no repetition.
            if (most > 1 and part.getwidth()[0] == 0) or empty_repeated(part):
                return True
        elif str(operator) == "SUBPATTERN" and empty_repeated(argument[-1]):
            return True
        elif str(operator) == "BRANCH" and any(empty_repeated(part) for part in argument[1]):
            return True
    return False


def repeated(items, repeats):
    return st.lists(st.builds(str.__add__, items, st.sampled_from(repeats)), min_size=1, max_size=3).map("".join)


def groups(items, repeats):
    alternatives = st.lists(repeated(items, repeats), min_size=1, max_size=3).map("|".join)
    return st.builds("{}{})".format, st.sampled_from(["(", "(?:"]), alternatives)


NARROW_ITEMS = st.recursive(st.sampled_from(NARROW), lambda items: groups(items, UNBOUNDED), max_leaves=5)
WIDE_ITEMS = st.sampled_from(WIDE)
SEQUENCES = st.lists(st.one_of(
    repeated(NARROW_ITEMS, UNBOUNDED), repeated(WIDE_ITEMS, UNBOUNDED),
    repeated(groups(WIDE_ITEMS | st.sampled_from(NARROW), BOUNDED), BOUNDED), st.sampled_from(FIXED),
), min_size=1, max_size=3).map("".join)
BRANCHES = st.builds("{}{}{}".format, st.sampled_from(["", "^"]), SEQUENCES, st.sampled_from(["", "$"]))
REGEXES = st.lists(BRANCHES, min_size=1, max_size=2).map("|".join).filter(
    lambda text: not empty_repeated(_parser.parse(text))).map("/{}/".format)


def expression(start, text, first, second, hole, end, case):
    """An expression of a literal text in which a hole takes the place of some."""
    text = case(text.encode()).decode()
    left, right = sorted((first % (len(text) + 1), second % (len(text) + 1)))
    quoted = [re.sub(r"([.[{()*+?^$|\\])", r"\\\1", part) for part in (text[:left], text[right:])]
    return f"/{start}{quoted[0]}{hole}{quoted[1]}{end}/"


def regexes_like(texts):
    """Expressions that look for one of these texts, or nearly."""
    return st.builds(expression, st.sampled_from(["", "^"]), texts, st.integers(0, 40), st.integers(0, 40),
                     st.sampled_from(HOLES), st.sampled_from(["", "$"]), CASES)


def joined(*parts):
    """Entries of these parts, one after the other, in some case."""
    return st.builds(lambda case, *drawn: case(b"".join(drawn)).decode(errors="surrogateescape"), CASES, *parts)


def cidr(address, prefix):
    """A network as an administrator writes it; of an IPv4 address in IPv6 form only what is a network of IPv4."""
    least = 96 if address.version == 6 and address.ipv4_mapped else 0
    return f"{address}/{max(least, prefix % (address.max_prefixlen + 1))}"


def holed(address, first, second, end):
    """An address of which some is left to a '*', and perhaps some cut off at its end."""
    left, right = sorted((first % (len(address) + 1), second % (len(address) + 1)))
    return address[:left] + b"*" + address[right:len(address) - end]


def partial(address, octets, dot):
    return ".".join(str(address).split(".")[:octets]) + dot


PLAIN_ADDRESSES = st.builds(lambda user, domain: user + b"@" + domain, st.sampled_from(ENTRY_USERS),
                            st.sampled_from([b"example.org", b"mail.example.org"]))
GLOBS = st.one_of(
    joined(st.lists(st.sampled_from(GLOB_PIECES), max_size=3).map(b"".join), st.just(b"*"),
           st.lists(st.sampled_from(GLOB_PIECES), max_size=4).map(b"".join)),
    joined(st.builds(holed, PLAIN_ADDRESSES, st.integers(0, 40), st.integers(0, 40), st.sampled_from([0, 0, 1, 3]))),
)
CLIENT_FORMS = st.one_of(
    ADDRESSES.flatmap(lambda address: st.sampled_from([str(address), address.exploded, str(address).upper()])),
    st.builds(cidr, ADDRESSES, st.integers(0, 128)),
    st.builds(partial, near(IPV4, 32).map(ipaddress.IPv4Address), st.integers(1, 3), st.sampled_from(["", "."])),
    joined(st.sampled_from(HOSTS)),
    REGEXES,
    regexes_like(st.sampled_from(HOSTS).map(bytes.decode)),
)
ADDRESS_FORMS = st.one_of(
    joined(st.sampled_from(ENTRY_USERS), st.just(b"@"), st.sampled_from(ENTRY_DOMAINS)),
    joined(st.sampled_from(ENTRY_USERS), st.just(b"@")),
    joined(st.sampled_from([b"", b"@"]), st.sampled_from(ENTRY_DOMAINS)),
    GLOBS,
    REGEXES,
    regexes_like(PLAIN_ADDRESSES.map(bytes.decode)),
)


@st.composite
def entries_of(draw, name):
    """Entries of the list of that name. A composite is shown by its name, and not with all that it may draw."""
    return draw(CLIENT_FORMS if name.endswith("_clients") else ADDRESS_FORMS)


ENVELOPE_ADDRESSES = st.one_of(
    st.builds(lambda wrapper, user, domain, case: case(wrapper % (user + b"@" + domain)), st.sampled_from(WRAPPERS),
              st.sampled_from(USERS), st.sampled_from(DOMAINS), CASES),
    st.builds(lambda wrapper, user, case: case(wrapper % user), st.sampled_from(WRAPPERS), st.sampled_from(USERS),
              CASES),
    st.sampled_from([b"", b"<>"]),
)


@st.composite
def requests(draw):
    """Requests as store.check takes them."""
    return {
        "client": draw(ADDRESSES.flatmap(spellings)),
        "client_name": draw(CASES)(draw(st.sampled_from(NAMES))),
        "name_trusted": draw(st.sampled_from([True, True, False, None])),
        "sender": draw(ENVELOPE_ADDRESSES),
        "recipient": draw(ENVELOPE_ADDRESSES),
    }

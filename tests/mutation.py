"""Texts of mail made up and mutated at random, rich in what normalising takes apart. All from one random.Random."""

import random
from collections.abc import Sequence

PARTS = [
    b"prvs=", b"prvs=0461e1a2b3=", b"btv1==", b"btv1==2=378==", b"srs0=", b"SRS0+HHH=TT=", b"srs1=KKK=first.example=",
    b"=hhh=tt=", b"SRS1-", b"==", b"=", b"+", b"+news", b"-4711-", b"0100018c1f2e-5f6a", b"#", b"@", b"@@", b"<", b">",
    b"<>", b"@relay.example,@b.example:", b":", b",", b" ", b"\t", b"\v", b"\f", b".", b"..", b"%", b"%eth0", b"!",
    b'"', b"\\", b"*", b"/", b"a", b"A", b"Z", b"user", b"User.Name", b"bounce", b"example.org", b"EXAMPLE.ORG.",
    b"sub.example.net", b"[192.0.2.7]", b"caf\xc3\xa9", b"\xff", b"\x80", b"\x7f", b"\x1b[2J", b"0", b"9", b"007",
]
# What ends a text for somebody: seldom, or nothing else would be tried.
ENDS = [b"\0", b"\r", b"\n", b"\r\n", b"x" * 990, b"x" * 1000]
LOCALS = [b"user", b"Anna", b"carl+news", b"bounce-%d-x", b"prvs=%d=user", b"SRS0=H%d=T=example.org=bert", b"%d", b"+x",
          b"btv1==%d==user", b"SRS1=K=f.example==H%d=T=d.example=u", b"msg%dz-%d", b'"a b"', b"a@b"]
DOMAINS = [b"example.org", b"Example.ORG.", b"list.example", b"mail.pool.example", b"pool.example", b"", b".", b"org",
           b"caf\xc3\xa9.example"]
WRAPPERS = [b"%s", b"%s", b"%s", b"<%s>", b" %s\t", b"<@relay.example,@b.example:%s>", b"@a.example:%s", b"<<%s>>"]


def mutated(pick: random.Random, text: bytes, tokens: Sequence[bytes] = PARTS) -> bytes:
    """The text after a few changes: bytes and tokens put in, taken out, doubled, turned round."""
    for _ in range(pick.choice((1, 1, 1, 2, 3, 6))):
        place = pick.randrange(len(text) + 1)
        end = min(len(text), place + pick.choice((1, 1, 2, 5, 20)))
        what = pick.randrange(7)
        if what == 0:
            text = text[:place] + pick.choice(tokens) + text[place:]
        elif what == 1:
            text = text[:place] + text[end:]
        elif what == 2:
            text = text[:end] + text[place:]
        elif what == 3:
            text = text[:place] + bytes([pick.randrange(256)]) + text[end:]
        elif what == 4:
            text = text[:place] + text[place:end].swapcase() + text[end:]
        elif what == 5:
            text = text[:place] + pick.choice(tokens) + text[end:]
        elif pick.random() < 0.1:
            text = text[:place] + pick.choice(ENDS) + text[place:]
    return text


def number(pick: random.Random, text: bytes) -> bytes:
    """The text with each %d filled in."""
    while b"%d" in text:
        text = text.replace(b"%d", b"%d" % pick.randrange(10 ** pick.choice((1, 3, 9))), 1)
    return text


def address(pick: random.Random) -> bytes:
    """An envelope address: as systems write it, of parts put together, or a mutation of either."""
    if pick.random() < 0.2:
        made = b"".join(pick.choices(PARTS, k=pick.randrange(1, 9)))
    else:
        made = pick.choice(WRAPPERS).replace(b"%s", number(pick, pick.choice(LOCALS)) + b"@" + pick.choice(DOMAINS))
    return mutated(pick, made) if pick.random() < 0.4 else made


def client(pick: random.Random) -> bytes:
    """An address of a client, in one of its spellings; sometimes none."""
    small, octet = pick.randrange(4), pick.choice((0, 1, 77, 255))
    made = pick.choice((
        b"192.0.%d.%d" % (small, octet), b"::ffff:192.0.%d.%d" % (small, octet), b"2001:db8:%d::%x" % (small, octet),
        b"2001:DB8:0:%d:0:0:0:%x%%eth0" % (small, octet), b"fe80::%x%%1" % octet, b"::", b"::%d" % small,
        b"::ffff:c000:%x" % (256 * small + octet), b"64:ff9b::192.0.%d.%d" % (small, octet)))
    tokens = (b":", b"::", b".", b"%", b"0", b"ffff:", b"1", b"g", b" ", b"/24", b"256", b"00")
    return mutated(pick, made, tokens) if pick.random() < 0.15 else made


def name(pick: random.Random) -> bytes:
    """A host name of a client; sometimes with the numbers of its address in it."""
    made = number(pick, pick.choice((b"", b"mx%d.pool.example.org", b"h-%d-77.dsl.example", b"Out1.Example.ORG.",
                                     b"example.org", b"a.b", b"192-0-%d-%d.x.example", b"0001.077.example.net")))
    return mutated(pick, made, (b".", b"..", b"-", b"0", b"77", b"A", b"\xff")) if pick.random() < 0.2 else made

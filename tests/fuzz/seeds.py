"""Inputs for the fuzzer to begin with: python tests/fuzz/seeds.py FOLDER makes FOLDER/TARGET/, a file an input."""

import random
import struct
import sys
from pathlib import Path

from fastgrey import policy
from fastgrey.rules import Rule

ADDRESSES = [
    b"", b"<>", b"User@Example.ORG", b" <user+news@example.org>\t", b"@relay.example,@b.example:user@example.org",
    b"<@relay.example:user@example.org>", b"user@example.org...", b"postmaster", b'"odd@local"@example.org',
    b"prvs=0461e1a2b3=user@example.org", b"btv1==2=378==user@example.org", b"btv1==2378a1b2c3d==user@example.org",
    b"SRS0=HHH=TT=example.org=alice@forwarder.example", b"SRS0+HHH=TT=example.org=alice+x@forwarder.example",
    b"SRS1=KKK=first.example==HHH=TT=example.org=alice@second.example",
    b"SRS1+KKK=first.example=-HHH=TT=example.org=a=b@second.example",
    b"bounce-4711-user=example.org@lists.example.net", b"0100018c1f2e-5f6a-000000@eu-west-1.amazonses.com",
    b"caf\xc3\xa9@m\xc3\xbcller.example", b"a@b@c.", b"x" * 1000, b"x" * 1001, b"a\nb@example.org",
]
CLIENTS = [b"192.0.2.7", b"::ffff:192.0.2.7", b"2001:db8::1", b"fe80::1%eth0", b"unknown", b"1.2.3.4.5",
           b"2001:0db8:0000:0000:0000:0000:0000:0001", b"::", b"255.255.255.255%"]
NAMES = [b"", b"mx1.pool.example.org", b"h-2-7.dsl.example.org.", b"example.org", b"A.B.C.", b"a..b", b"002.7.x"]
LISTS = {
    "deny_clients": ["192.0.2.0/24", "10.20", "2001:db8::/32", "evil.example.net", "/^dyn.*[0-9]+/"],
    "deny_senders": ["*%*", "a@example.org", "spam@", "example.com", "/^srs0=/"],
    "allow_clients": ["::1", "mail.example.org"],
    "allow_recipients": ["postmaster@", "*-owner@*"],
    "opt_in": ["example.net", "/@(a|b)\\.example$/"],
    "opt_out": ["u+x@example.net"],
}
VARIABLES = [b"TCPREMOTEIP=192.0.2.7", b"TCP6REMOTEIP=2001:db8::1", b"TCPREMOTEHOST=mx.example.org", b"PROTO=TCP6",
             b"RELAYCLIENT=", b"FASTGREY_STORE=/tmp/store", b"SENDER=a@example.org", b"RECIPIENT=b@example.net",
             b"SMTPMAILFROM=a@example.org", b"SMTPRCPTTO=b@example.net"]
ANSWERS = [
    b"verdict=accept known-domain 0\nkey=0123456789ab\n\n", b"verdict=defer new 300\nkey=0123456789ab\n\n",
    b"verdict=reject denied 0\nkey=0123456789ab\nrule=/etc/fastgrey/fastgrey.toml:3\n\n",
    b"verdict=accept retry 0\nwaited=4000\nnote=last-seen time not written: No space left on device\nnote=more\n\n",
    b"verdict=defer error 0\ncause=the engine that holds the shared records does not answer; see the log\n\n",
    b"verdict=defer early 4398046511104\nother=\n\n", b"action=DUNNO\n\n", b"verdict=accept new 0\n\n",
    b"verdict=accept learn 0\ncause=" + b"x" * 1100 + b"\nnote=" + b"y" * 600 + b"\n\n",
    b"verdict=reject denied 0\nrule=" + b"x" * 239 + b"\n\n", b"\n\n", b"verdict=accept pool 0\nkey=0123456789ag\n\n",
]
# A secret and the settings by default; the first is the delay.
HEAD = struct.pack("=8sIIQQQqQQq192s32q", b"fastgrey", 3, 0x01020304, 7, 0, 0, 1700000000, 1, 3, 0, bytes(range(192)),
                   300, 172800, 3110400, 86400, 24, 64, 5, 1, 3, 14400, 1, 0, 0, 0, 16 << 20, 3600, *[0] * 16)
NOW = struct.pack("=q", 1700000000)


def request(client=b"192.0.2.7", name=b"mx.example.org", sender=b"a@example.org", recipient=b"b@example.net"):
    """As the targets take it."""
    return b"\0".join((client, name, sender, recipient, b""))


def records():
    """Compiled policies: each list alone, all of them, and none."""
    chosen = [{name: entries} for name, entries in LISTS.items()] + [LISTS, {}]
    for lists in chosen:
        yield policy.compile(Rule(name, entry, "/etc/fastgrey/fastgrey.toml", line)
                             for name, entries in lists.items() for line, entry in enumerate(entries, 1))


def seeds():
    """Pairs of a target's name and an input."""
    for address in ADDRESSES:
        yield "address", b"s" + address
        yield "address", b"r" + address
        yield "envelope", b"\0" + request(sender=address) + request(recipient=address)
        yield "envelope", b"\3" + request(sender=address)
    for client in CLIENTS:
        for name in NAMES:
            yield "client", bytes([24, 64]) + client + b"\0" + name
        yield "envelope", b"\2" + request(client=client)
    for pattern in (b"*%*", b"*", b"a*b*c", b"**a", b"user@*.example.org", b""):
        for text in (b"", b"a", b"aXbYc", b"user@mail.example.org", b"a%b"):
            yield "pattern", pattern + b"\0" + text
    for record in records():
        for client, name in ((b"192.0.2.7", b"dyn7.evil.example.net"), (b"2001:db8::1", b"mail.example.org")):
            for sender in (b"a+b@example.org", b"x%y", b"spam@sub.example.com", b"srs0=a=b=c=d@e"):
                yield "policy", b"\3" + request(client, name, sender, b"u+x@example.net") + record
    yield "record", b"h" + NOW + HEAD
    for name in (b"2.1699833600000.172800", b"2.1699833600.172800.000001", b"2.1.2.3", b"1.2.3", b"2.x.y",
                 b"2.999999999999999.999999999999999.999999999999999"):
        yield "record", b"n" + NOW + NOW + name
    page = struct.pack("=8sII", b"fgstats", 2, 0) + bytes(456) + b"".join(
        struct.pack("=q16I", stamp, *range(16)) for stamp in (1700000000, -1700000000, 0, 1, -(1 << 63), (1 << 63) - 1))
    for way in range(16):
        yield "record", b"c" + NOW + NOW + bytes([way]) + page
    for known in (0, 1 << 40, (1 << 64) - 1, (5 << 40) + 1700000000):
        yield "record", b"r" + NOW + struct.pack("=Q", known)
    for program in (b"qmail-checkenv", b"/bin/fastgrey-spp", b"rcptcheck", b"qmail-postgrey", b"envelope-scanner"):
        for arguments in ([b"a@example.org", b"b@example.net"], [], [b"--hook", b"spp"], [b"--hook"],
                          [b"server", b"a@example.org", b"b@example.net", b"192.0.2.7", b"unknown"]):
            whole = [program, *arguments]
            yield "caller", bytes([len(whole)]) + b"\0".join([*whole, *VARIABLES, b""])
            yield "caller", bytes([len(whole)]) + b"\0".join([*whole, *reversed(VARIABLES[:6]), b""])
    for fault in range(21):
        first = bytes([fault % 3, 14 if fault % 2 else 12, fault]) + struct.pack("=q", 2) + bytes([1 << fault % 8])
        rest = request(sender=b"\x1b[2J\n" * fault) + b"/var/lib/fastgrey\0name\0/etc/rules\n"
        yield "log", first + struct.pack("=q", 300) + b"\1" + struct.pack("=q", 12) + rest
    for hook in range(3):
        for action in range(3):
            for text in (b"try later", b"\r\n250 ok", b"x" * 700):
                yield "reply", bytes([hook, action, 8]) + NOW + b"\0" + b"\0".join(
                    (b"FASTGREY_DEFER_TEXT=" + text, b"FASTGREY_REJECT_TEXT=" + text, b"FASTGREY_TRACE=" + text[:3],
                     b"SMTPRCPTCOUNT=0", b"SMTPRCPTCOUNTALL=1", b""))
    for how in range(6):
        yield "exchange", b"q" + bytes([how]) + request(name=NAMES[how % 3], sender=ADDRESSES[how])
    yield "exchange", b"q\2" + request(b"fe80::1%a\nb=c", b"mx\nb=c")
    for answer in ANSWERS:
        yield "exchange", answer
    postfix = (b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.7\nclient_name=unknown\n"
               b"sender=a@example.org\nrecipient=b@example.net\ninstance=1.2\nsasl_username=\n\n")
    hook = (b"request=fastgrey\nclient_address=192.0.2.7\nname_trusted=no\nsender=\nrecipient=b\nnow=12\n"
            b"dry_run=yes\n\n")
    for verdict in (b"\1\x0c\0", b"\2\x0e\0", b"\0\x08\0", b"\1\x0b\1"):
        for asked in (postfix, hook, b"check\t192.0.2.7\ta\tb\tmx.example.org\r\n", b"check\t1\t2\n", b"GET /\n",
                      b"\n\n", b"a=b\n" * 900):
            for piece in (b"\1", b"\xff"):
                yield "asked", verdict + piece + asked + asked
    for number in range(200):
        yield "table", damages(random.Random(number))


def damages(pick):
    """A request on the whole store, with numbers in the heads, the lists and the leaves of some pages changed."""
    made = bytes([pick.randrange(8), pick.random() < 0.3, pick.choice((0, 0, 0, 1, 24, 40, 255))])
    for _ in range(pick.choice((0, 1, 1, 2, 4))):
        place = pick.randrange(18) * 4096 + pick.choice((pick.randrange(16), pick.randrange(40), pick.randrange(4096)))
        changed = bytes(pick.choice((0, 255, pick.randrange(256))) for _ in range(pick.choice((1, 2, 4, 8))))
        made += bytes([pick.choice((0, 0, 1, 1, 2))]) + place.to_bytes(4, "big") + bytes([len(changed)]) + changed
    return made


def main():
    folder = Path(sys.argv[1])
    for number, (target, content) in enumerate(seeds()):
        (folder / target).mkdir(parents=True, exist_ok=True)
        (folder / target / f"seed-{number:04}").write_bytes(content)


if __name__ == "__main__":
    main()

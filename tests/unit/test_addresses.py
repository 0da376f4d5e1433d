"""Envelope addresses: every normalising rule, with addresses as real systems write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import model
from fastgrey._core import normalise_recipient, normalise_sender

SENDERS = {
    # Shape of every address.
    b"": b"",
    b"<>": b"",
    b"  <> ": b"",
    b"User@Example.ORG": b"user@example.org",
    b"<user@example.org>": b"user@example.org",
    b"\t<user@example.org>\x0b": b"user@example.org",
    b"<<user@example.org>>": b"<user@example.org>",
    b"@relay.example,@other.example:user@example.org": b"user@example.org",
    b"<@relay.example:user@example.org>": b"user@example.org",
    b"@example.org": b"@example.org",
    b"postmaster": b"postmaster",
    b"user@example.org.": b"user@example.org",
    b"user@example.org...": b"user@example.org",
    b"user@": b"user@",
    b"user@.": b"user@",
    b'"odd@local"@example.org': b'"odd@local"@example.org',
    "J\u00dcRGEN@M\u00dcLLER.example".encode(): "j\u00dcrgen@m\u00dcller.example".encode(),
    b"\xff\xfeUSER@EXAMPLE.ORG": b"\xff\xfeuser@example.org",
    # BATV: Exim, Postfix and Barracuda.
    b"prvs=0461e1a2b3=user@example.org": b"user@example.org",
    b"prvs=1234aabbcc=first.last@example.org": b"first.last@example.org",
    b"PRVS=0461E1A2B3=User@Example.org": b"user@example.org",
    b"btv1==2378a1b2c3d==user@example.org": b"user@example.org",
    b"btv1==2=378==user@example.org": b"user@example.org",
    b"prvs=user@example.org": b"prvs=user@example.org",
    b"prvs==user@example.org": b"prvs==user@example.org",
    b"btv1=23=user@example.org": b"#=#=user@example.org",
    # SRS as postsrsd, libsrs2 and Microsoft 365 write it.
    b"SRS0=HHH=TT=example.org=alice@forwarder.example": b"#=example.org=alice@forwarder.example",
    b"SRS0+HHH=TT=example.org=alice@forwarder.example": b"#=example.org=alice@forwarder.example",
    b"SRS0-xYz9=3G=example.org=alice@forwarder.example": b"#=example.org=alice@forwarder.example",
    b"srs0=opaque+=yy=example.org=alice+tag@forwarder.example": b"#=example.org=alice@forwarder.example",
    b"SRS1=KKK=first.example==HHH=TT=example.org=alice@second.example":
        b"#=first.example=example.org=alice@second.example",
    b"SRS1=KKK=first.example=+HHH=TT=example.org=alice@second.example":
        b"#=first.example=example.org=alice@second.example",
    b"SRS1+KKK=first.example=-HHH=TT=example.org=a=b@second.example":
        b"#=first.example=example.org=a=b@second.example",
    b"bounces+SRS=eFgHi=6K@example.onmicrosoft.com": b"bounces@example.onmicrosoft.com",
    b"srs0=hhh=tt=example.org@forwarder.example": b"#=hhh=tt=example.org@forwarder.example",
    b"srs0=hhh==example.org=alice@forwarder.example": b"#=hhh==example.org=alice@forwarder.example",
    b"srs1=kkk=first.example=hhh=tt=example.org=alice@second.example":
        b"#=kkk=first.example=hhh=tt=example.org=alice@second.example",
    b"srs0/hhh=tt=example.org=alice@forwarder.example": b"#/hhh=tt=example.org=alice@forwarder.example",
    # Extensions.
    b"user+news@example.org": b"user@example.org",
    b"user+a+b@example.org": b"user@example.org",
    b"+user+a@example.org": b"+user@example.org",
    b"+@example.org": b"+@example.org",
    # Machines: ezmlm, Mailman, Sympa, Amazon SES, SendGrid, Mailchimp, Google, Outlook, Facebook.
    b"list-return-4711-user=example.org@lists.example.net": b"list-return-#-user=example.org@lists.example.net",
    b"bounce-4711-user=example.org@lists.example.net": b"bounce-#-user=example.org@lists.example.net",
    b"qmail-return-108893-a1b2=example.org@list.cr.yp.to": b"qmail-return-#-#=example.org@list.cr.yp.to",
    b"list-bounces+user=example.org@python.example": b"list-bounces@python.example",
    b"0100018c1f2e-5f6a-000000@eu-west-1.amazonses.com": b"#-#-#@eu-west-1.amazonses.com",
    b"0100018c1f2e5f6a-11b7c3d2-6e1f-4a2b-9c3d-1f2e3d4c5b6a-000000@amazonses.com":
        b"#-#-#-#-#-#-#@amazonses.com",
    b"bounces+1234567-ab12-user=example.org@em1234.sendgrid.example": b"bounces@em1234.sendgrid.example",
    b"bounce-mc.us1_123456.654321-user=example.org@mail.mcsv.example":
        b"bounce-mc.#_#.#-user=example.org@mail.mcsv.example",
    b"3aBcDeFgHiJkLmNoP.QrS@scoutcamp.bounces.google.com": b"#.qrs@scoutcamp.bounces.google.com",
    b"user+caf_=other=example.org@gmail.com": b"user@gmail.com",
    b"msprvs1=19650abcdefgh=bounces-123-4@bounces.example.com": b"#=#=bounces-#-#@bounces.example.com",
    b"AM0PR04MB1234.eurprd04.prod.outlook.com-1@example.com": b"#.#.prod.outlook.com-#@example.com",
    b"notification+zj4oaz2y9@facebookmail.com": b"notification@facebookmail.com",
    b"no_digits-here@example.org": b"no_digits-here@example.org",
    b"2@example.org": b"#@example.org",
    b"caf\xc3\xa91x@example.org": b"caf\xc3\xa9#@example.org",
}


@pytest.mark.parametrize(("raw", "expected"), SENDERS.items(), ids=repr)
def test_sender(raw, expected):
    assert normalise_sender(raw) == expected


@pytest.mark.parametrize(("raw", "expected"), [
    (b"User+List-4711@Example.ORG.", b"user+list-4711@example.org"),
    (b"prvs=0461e1a2b3=user@example.org", b"prvs=0461e1a2b3=user@example.org"),
    (b"@a.example:<User@example.org>", b"<user@example.org>"),
    (b"<@a.example:User@example.org>", b"user@example.org"),
    (b"", b""),
])
def test_recipient_is_not_reduced(raw, expected):
    assert normalise_recipient(raw) == expected


@pytest.mark.parametrize("raw", [b"a" * 1001, b"a\0b@example.org", b"a@b\r", b"\na@b", b"a@b\n"])
@pytest.mark.parametrize("normalise", [normalise_sender, normalise_recipient])
def test_refused(normalise, raw):
    with pytest.raises(ValueError, match="longer than 1000 bytes or holds NUL, CR or LF"):
        normalise(raw)


def test_longest_address_is_taken_whole():
    raw = b"x" * 988 + b"@example.org"
    assert len(raw) == 1000
    assert normalise_recipient(raw) == raw


PIECES = st.sampled_from([
    b"prvs=", b"btv1==", b"srs0", b"srs1", b"SRS0=", b"=", b"==", b"+", b"-", b"@", b"<", b">", b":", b",", b".", b" ",
    b"\t", b"a1", b"ABC", b"99", b"example.org", b"tt", b"\xc3\xa9", b"\"",
])


def same_as_the_model(raw):
    for ours, theirs in ((normalise_sender, model.normalise_sender), (normalise_recipient, model.normalise_recipient)):
        try:
            expected = theirs(raw)
        except ValueError:
            with pytest.raises(ValueError):
                ours(raw)
        else:
            assert ours(raw) == expected


@given(st.lists(PIECES, max_size=14).map(b"".join) | st.binary(max_size=60))
def test_same_as_the_model(raw):
    same_as_the_model(raw)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 27])
def test_every_byte_at_every_place(size):
    """Eight bytes are read at once, and the last eight overlap those before."""
    for place in range(size):
        for byte in range(256):
            for filling in (b"Q", b"@"):
                same_as_the_model(filling * place + bytes([byte]) + b"Q" * (size - place - 1))

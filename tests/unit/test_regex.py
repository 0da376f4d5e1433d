"""Regular expressions of rules: what is translated, what is refused, and that no bound is wrong about a match."""

import re

import pytest
from hypothesis import given, settings, strategies as st

from fastgrey import regex


@pytest.mark.parametrize(("text", "pattern", "literal"), [
    (r"^mail\d+\.example\.org$", rb"^mail[0-9]+\.example\.org$", b".example.org"),
    (r"^(?:smtp\w*|postfix)[0-9]+\.free\.fr$", rb"^(smtp[[:alnum:]_]*|postfix)[0-9]+\.free\.fr$", b".free.fr"),
    (r"^.*?\.server\.example$", rb"^.*\.server\.example$", b".server.example"),
    (r"[\w.\-]+@x", rb"[[:alnum:]_.-]+@x", b"@x"),
    (r"[\]\\a]", rb"[]\a]", b""),
    (r"[\^a][^\^]", rb"[a^][^^]", b""),
    (r"[\^]", rb"\^", b""),
    (r"[]a][^]a]", rb"[]a][^]a]", b""),
    (r"[[:alpha:]_]x", rb"[[:alpha:]_]x", b"x"),
    (r"\@\-\/", rb"@-/", b"@-/"),
    (r"abc?de", rb"abc?de", b"ab"),
    (r"abc*", rb"abc*", b"ab"),
    (r"abc{0,3}d", rb"abc{0,3}d", b"ab"),
    (r"abc+de", rb"abc+de", b"abc"),
    (r"abcd|xy", rb"abcd|xy", b""),
    (r"(abcd)xy", rb"(abcd)xy", b"xy"),
    (r"ABC", rb"ABC", b"abc"),
    (r"a{b", rb"a\{b", b"a{b"),
    (r"\bab\b", rb"\bab\b", b"ab"),
    ("a\u00e9", "a\u00e9".encode(), "a\u00e9".encode()),
    ("A\u00c9", "A\u00c9".encode(), "a\u00c9".encode()),
])
def test_translated(text, pattern, literal):
    if not text.startswith("^"):
        # Gone through once, from the beginning.
        pattern = b"^.*(" + pattern + b")"
    assert regex.compile(text) == (pattern, literal)


@pytest.mark.parametrize(("text", "what"), [
    ("", "empty"), ("a" * 1001, "longer than 1000"), ("(", "never closed"), (")", "never opened"),
    ("[a", "never closed"), ("a\\", "backslash"), (r"(a)\1", "refers back"), ("(?=a)", "not POSIX"),
    ("(?i)a", "not POSIX"),
    (r"\x41", "not known"), (r"[\x41]", "not known"), ("a{1,256}", "at most 255"), ("a{3,2}", "in order"),
    ("*a", "nothing before"), ("a|*", "nothing before"), ("(a{100}){3}", "250 positions"),
    ("((((((((((((a+)+)+)+)+)+)+)+)+)+)+)+)", "250 positions"), ("(a*)*", "may be empty"),
    ("(a?b*){2}", "may be empty"), ("(ab|c?)+", "may be empty"), ("(|a)+", "may be empty"), ("a**", "may be empty"),
    ("((a?)){3}", "may be empty"), ("(" * 51 + "a" + ")" * 51, "deeper than 50"),
    ("[z-a]", "C library"), ("[[:nosuch:]]", "C library"),
])
def test_refused(text, what):
    with pytest.raises(ValueError, match=re.escape(what)):
        regex.compile(text)


ATOMS = st.sampled_from(["a", "b", "ab", r"\.", "[ab]", "[^a]", ".", "(a|b)", "(?:ab|ba)", r"\d", "(ab)"])
PIECES = st.tuples(ATOMS, st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,2}", "*?"])).map("".join)
PATTERNS = st.lists(st.lists(PIECES, max_size=5).map("".join), min_size=1, max_size=2).map("|".join)


@pytest.mark.parametrize("text", ["(a*)?", "(a*b)*", "(a|b?c)+", "(a?b?c){3}", "(ab?)+", "(a*)(b*)", "a*?b", "(^a|b)c"])
def test_what_is_not_empty_may_be_repeated(text):
    assert regex.compile(text)


@settings(max_examples=500, deadline=None)
@given(PATTERNS.filter(bool), st.text("ab.1", max_size=12))
def test_the_literal_is_in_every_text_that_matches(pattern, text):
    if re.search(pattern, text):
        assert regex.compile(pattern).literal.decode() in text

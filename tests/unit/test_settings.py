"""Settings: what is read, what is refused, what is shown."""

import pytest

from fastgrey import settings
from fastgrey.errors import SettingsError


@pytest.mark.parametrize(("text", "name", "number"), [
    ("delay=5m", "delay", 300), ("delay=300", "delay", 300), ("delay=0", "delay", 0), ("delay=1h30m", "delay", 5400),
    ("lifetime=36d", "lifetime", 3_110_400), ("retry_window=2w", "retry_window", 1_209_600),
    ("ipv4_prefix=24", "ipv4_prefix", 24), ("trust_client_name=true", "trust_client_name", 1),
    ("mode=learn", "mode", 1), ("null_sender=accept", "null_sender", 1), ("on_error=defer", "on_error", 1),
    ("pending_size=64M", "pending_size", 64 << 20), (" delay = 5m ", "delay", 300),
])
def test_read(text, name, number):
    assert settings.parse_assignments((text,)) == {name: number}


@pytest.mark.parametrize(("text", "what"), [
    ("delay", "NAME=VALUE"), ("dellay=5m", "no such setting"), ("=5", "no such setting"),
    ("delay=", "a duration"), ("delay=5 m", "a duration"), ("delay=-5m", "a duration"), ("delay=5y", "a duration"),
    ("delay=1.5h", "a duration"), ("delay=\u0665m", "a duration"), ("delay=99w", "out of range"),
    ("retry_window=0", "out of range"), ("ipv4_prefix=33", "out of range"), ("ipv6_prefix=129", "out of range"),
    ("ipv4_prefix=x", "a whole number"), ("trust_client_name=yes", "true or false"), ("mode=off", "enforce or learn"),
    ("on_error=reject", "accept or defer"), ("pending_size=1", "out of range"), ("pending_size=1Q", "a size"),
])
def test_refused(text, what):
    with pytest.raises(SettingsError, match=what) as caught:
        settings.parse_assignments((text,))
    assert "\n" not in str(caught.value)


def test_defaults_are_the_documented_ones():
    assert settings.show(settings.defaults()) == {
        "delay": "5m", "retry_window": "2d", "lifetime": "36d", "refresh": "1d", "ipv4_prefix": "24",
        "ipv6_prefix": "64", "allow_client_after": "5", "allow_domain_after": "1", "pool_hops": "3",
        "pool_window": "4h", "trust_client_name": "false", "null_sender": "greylist", "mode": "enforce",
        "on_error": "accept", "pending_size": "disk", "expect_max": "1h", "shared": "false",
    }


@pytest.mark.parametrize("setting", settings.SETTINGS, ids=lambda setting: setting.name)
def test_what_is_shown_reads_as_the_same(setting):
    for number in {setting.least, setting.most, setting.parse(setting.default)}:
        assert setting.parse(setting.show(number)) == number


def test_doubts():
    assert settings.doubts(settings.defaults()) == []
    for text, what in (("retry_window=1m", "no retry"), ("refresh=40d", "refresh"), ("delay=25h", "24 hours")):
        values = settings.defaults() | settings.parse_assignments((text,))
        assert any(what in doubt for doubt in settings.doubts(values))

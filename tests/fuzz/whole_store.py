"""A small store that is whole, for the fuzz target `table` to damage: always the same, with something of every kind."""

from pathlib import Path

import fastgrey
from fastgrey import _core, policy, settings

NOW = 1_700_000_000
SECRET = bytes(k * 7 % 256 for k in range(192))
RULES = {
    "deny_senders": ["denied.example", "*%*"], "deny_clients": ["192.0.9.0/24", "2001:db8:9::/48"],
    "allow_senders": ["/^news-[0-9]+@letters\\.example$/"], "allow_clients": ["mail.friend.example"],
    "opt_out": ["postmaster@"],
}
RECIPIENT = "b@example.net"


def make(path: Path) -> Path:
    """Make it at path, which must not exist; gives the path. targets/table.pxi has the requests that it knows."""
    values = settings.defaults() | {"trust_client_name": 1, "pending_size": 4 << 20, "allow_client_after": 1,
                                    "allow_domain_after": 1, "pool_hops": 2}
    fastgrey.create(path, values)
    first = path / "passed.000001"
    for file in first.iterdir():
        file.unlink()
    _core.create_generation(str(first), 1, SECRET, NOW, list(values.values()))
    with fastgrey.open(path) as store:
        policy.put(store, RULES, values)

        def attempt(now, client, sender):
            store.check(client=client, client_name="mx.pool.example", sender=sender, recipient=RECIPIENT, now=now)

        for number in range(30):
            attempt(NOW - 90_000, f"10.0.{number}.1", f"made{'abcdefghij'[number % 10]}@{number}.example")
            attempt(NOW - 80_000, f"10.0.{number}.1", f"made{'abcdefghij'[number % 10]}@{number}.example")
        for client, sender in (("192.0.2.8", "triplet@known.example"), ("198.51.100.5", "y@known.example"),
                               ("192.0.2.9", "mine@domain.example")):
            attempt(NOW - 90_000, client, sender)
            attempt(NOW - 80_000, client, sender)
        for client in ("203.0.112.1", "203.0.111.1", "203.0.110.1"):
            attempt(NOW - 70_000 + 1000 * int(client.split(".")[2]) - 110_000, client, "pair@pool.example")
        attempt(NOW - 100, "192.0.2.7", "waits@new.example")
        _core.open_window(store, "expects@example.net", None, NOW, NOW + 3600)
    return path



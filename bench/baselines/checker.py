"""The checker as a Python script: the same normalising, look-ups and records, with the PyPI packages lmdb and xxhash.

    python -I -S checker.py SITE-PACKAGES STORE SENDER RECIPIENT

What the hook has beyond that (rules, windows, counters, faults told from one another, a bound for strangers) is left
out, all in favour of the script. A store of its own in STORE, `passed` flushed and `pending` not; DELAY in the environment.
"""

import os
import sys
import time

sys.path.append(sys.argv[1])

import re  # noqa: E402
import socket  # noqa: E402
import struct  # noqa: E402

import lmdb  # noqa: E402
import xxhash  # noqa: E402

RETRY_WINDOW, LIFETIME, REFRESH = 172_800, 36 * 86_400, 86_400
CLIENT_AFTER, DOMAIN_AFTER = 5, 1
DELAY = int(os.environ.get("DELAY", "300"))
SEED = 0x5EED
RECORD = struct.Struct("<Q")


def key(kind, *parts):
    return xxhash.xxh3_128_digest(kind + b"".join(struct.pack("<I", len(part)) + part for part in parts), seed=SEED)


def address(text):
    text = text.strip().removeprefix("<").removesuffix(">")
    if text.startswith("@") and ":" in text:
        text = text.partition(":")[2]
    local, _, domain = text.lower().rpartition("@")
    return local, domain.rstrip(".")


def reduced(local):
    if batv := re.fullmatch(r"prvs=[^=]*=(.*)|btv1==[^=]*==(.*)", local):
        local = batv[1] or batv[2]
    if srs := re.fullmatch(r"srs0[=+-][^=]*=[^=]*=([^=]*=.*)", local):
        local = f"srs0={srs[1]}"
    if (plus := local.find("+", 1)) > 0:
        local = local[:plus]
    return re.sub(r"[0-9a-z]*[0-9][0-9a-z]*", "#", local)


def answer(status, words, client, sender, recipient):
    os.write(2, f"checker: {words} client={client} sender={sender} recipient={recipient}\n".encode())
    os._exit(status)


def main():
    place, sender, recipient = sys.argv[2:5]
    client = os.environ["TCPREMOTEIP"]
    said = (client, sender, recipient)
    packed = socket.inet_pton(socket.AF_INET, client)
    network = b"4\x18" + packed[:3] + b"\0"
    local, domain = address(sender)
    sent = f"{reduced(local)}@{domain}".encode()
    to = "@".join(address(recipient)).encode()
    keys = {b"client": key(b"c", packed), b"domain": key(b"d", network, domain.encode()),
            b"triplet": key(b"t", network, sent, to)}
    needed = {b"client": CLIENT_AFTER, b"domain": DOMAIN_AFTER, b"triplet": 1}
    now = int(time.time())

    passed = lmdb.open(f"{place}/passed", max_dbs=8, max_readers=8192, map_size=1 << 30)
    tables = {kind: passed.open_db(kind) for kind in keys}
    with passed.begin() as txn:
        for kind, wanted in keys.items():
            found = txn.get(wanted, db=tables[kind])
            if found is None:
                continue
            (record,) = RECORD.unpack(found)
            seen, count = record & (1 << 40) - 1, record >> 40
            if count >= needed[kind] and now - seen <= LIFETIME:
                if now - seen >= REFRESH:
                    with passed.begin(write=True) as writer:
                        writer.put(wanted, RECORD.pack(count << 40 | now), db=tables[kind])
                answer(0, f"accept known-{kind.decode()}", *said)

    pending = lmdb.open(f"{place}/pending", max_readers=8192, map_size=1 << 30, sync=False)
    with pending.begin() as txn:
        found = txn.get(keys[b"triplet"])
    first = RECORD.unpack(found)[0] if found else 0
    if not found or now - first > RETRY_WINDOW:
        with pending.begin(write=True) as txn:
            txn.put(keys[b"triplet"], RECORD.pack(now))
        answer(111, f"defer new wait={DELAY}", *said)
    if now - first < DELAY:
        answer(111, f"defer early wait={DELAY - now + first}", *said)
    with passed.begin(write=True) as txn:
        for kind, earned in keys.items():
            found = txn.get(earned, db=tables[kind])
            count = RECORD.unpack(found)[0] >> 40 if found else 0
            txn.put(earned, RECORD.pack(count + 1 << 40 | now), db=tables[kind])
    answer(0, "accept retry", *said)


main()

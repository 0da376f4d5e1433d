"""Explanation: every step of one decision, with the rule or record that decided, and what to do about it.

The verdict is the core's own; the steps tell what it found. Nothing is written.
"""

import ipaddress
import shlex
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from . import _core, policy as policy_, times
from .errors import StoreError
from .policy import Policy
from .records import KINDS, SWITCHES, short

if TYPE_CHECKING:
    from .shared.held import Held

# Reasons by the step that gives them, in the order of the decision (docs/decision.md).
STEPS = ("relay", "denied", "allowed", "opted-out", "expected", "known-client", "known-domain", "known-triplet",
         "known-pair", "pending")
TRIES = 5
PENDING = ("retry", "pool", "early", "new", "learn")
TITLES = ("relay", "deny rules", "allow rules", "opt-out", "expected", "known client", "known domain", "known triplet",
          "known pair", "pending")


@dataclass
class Step:
    """One step. decides: it ended the decision. facts: what was looked at, times in Unix seconds."""

    number: int
    title: str
    decides: bool
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Explanation:
    """What became, or would now become, of a request."""

    now: int
    client: str
    sender: str
    recipient: str
    name: str | None
    verdict: dict[str, Any]
    key: str | None
    normalised: dict[str, Any]
    steps: list[Step]
    passes_from: int | None
    passes_until: int | None
    summary: str
    remedies: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, with times as RFC 3339 beside Unix seconds."""
        dated: dict[str, Any] = _with_dates(asdict(self))
        return dated


def explain(store: _core.Store, client: str, sender: str, recipient: str, name: str | None = None,
            name_trusted: bool | None = None, now: int | None = None, held: "Held | None" = None) -> Explanation:
    """Explain what the store would answer at the Unix time now (None: the clock).

    client: IP address; sender, recipient: envelope addresses; name: host name of the client, name_trusted: whether it
    is forward-confirmed (None: as trust_client_name says). held: the records, where an engine holds them; EngineError
    where that does not answer.
    """
    request: dict[str, Any] = {"client": client, "sender": sender, "recipient": recipient, "client_name": name,
                               "name_trusted": name_trusted}
    # A policy may be put in force between the two looks; hardly twice.
    for _ in range(TRIES):
        policy = policy_.in_force(store)
        facts = _core.explain(store, now=now, **request)
        if held is not None and "normalised" in facts:
            held.decide(facts, now=facts["now"], **request)
        if facts["policy"] == policy.number:
            return _Teller(facts, policy, client, sender, recipient, name).tell()
    raise StoreError(f"the policy of {store.path} was changed again and again while this looked; ask once more")


class _Teller:
    def __init__(self, facts: dict[str, Any], policy: Policy, client: str, sender: str, recipient: str,
                 name: str | None):
        self.facts = facts
        self.policy = policy
        self.settings = policy.settings
        self.now: int = facts["now"]
        self.verdict: dict[str, Any] = facts["verdict"]
        self.client, self.sender, self.recipient, self.name = client, sender, recipient, name
        self.normalised = _shown(facts["normalised"]) if "normalised" in facts else {}

    def tell(self) -> Explanation:
        steps = self._steps() if self.normalised else []
        start, end = self._times()
        return Explanation(self.now, self.client, self.sender, self.recipient, self.name, self.verdict,
                           self.facts.get("key"), self.normalised, steps, start, end, self._summary(start, end),
                           self._remedies())

    def _decider(self) -> int:
        reason = self.verdict["reason"]
        return len(STEPS) - 1 if reason in PENDING else STEPS.index(reason)

    def _steps(self) -> list[Step]:
        tellers = (self._relay, self._rules, self._rules, self._rules, self._expected, self._known, self._known,
                   self._known, self._known, self._pending)
        last = self._decider()
        return [Step(number, TITLES[number - 1], number - 1 == last, *tellers[number - 1](number))
                for number in range(1, last + 2)]

    def _relay(self, number: int) -> tuple[str, dict[str, Any]]:
        return "not looked at; a client with RELAYCLIENT always passes", {}

    def _rules(self, number: int) -> tuple[str, dict[str, Any]]:
        decided = number - 1 == self._decider()
        if decided and self.facts["rule"]:
            rule = self.policy.rules[self.facts["rule"] - 1]
            return f"{rule.list}: {rule.entry} ({rule.place})", rule.facts()
        prefix = ("deny_", "allow_", "opt_")[number - 2]
        count = sum(rule.list.startswith(prefix) for rule in self.policy.rules)
        if decided and number == 3:
            return "the null sender, by null_sender = accept", {"setting": "null_sender"}
        if decided:
            count = sum(rule.list == "opt_in" for rule in self.policy.rules)
            return f"the recipient is in none of {count} opt_in rules", {"rules": count}
        none = f"none of {count} matches" if count else "there are no such rules"
        return none, {"rules": count}

    def _expected(self, number: int) -> tuple[str, dict[str, Any]]:
        window = self.facts["window"]
        if window is None:
            return "no window is open for this recipient", {}
        whom = "one sender domain" if window["narrow"] else "any sender"
        return (f"a window for {whom} is open since {times.date_and_distance(window['opened'], self.now)} until "
                f"{times.date_and_distance(window['until'], self.now)}, key {short(window['key'])}", window)

    def _needed(self, kind: str) -> int:
        return self.settings[SWITCHES[kind]] if kind in ("client", "domain") else 1

    def _known(self, number: int) -> tuple[str, dict[str, Any]]:
        kind = KINDS[number - 6]
        switch = SWITCHES.get(kind)
        if switch and not self.settings[switch]:
            return f"switched off ({switch} = 0)", {}
        records = [self._record(record) for record in self.facts["known"] if record["kind"] == kind]
        if not records:
            return f"the sender has no {'domain' if kind == 'domain' else 'address'}", {}
        return "; ".join(self._record_text(record, len(records) > 1) for record in records), {"records": records}

    def _record(self, record: dict[str, Any]) -> dict[str, Any]:
        if record["last"] is None:
            return record | {"alive": False, "expires": None, "needed": self._needed(record["kind"])}
        lifetime = self.settings["lifetime"]
        return record | {"alive": self.now - record["last"] <= lifetime, "expires": record["last"] + lifetime,
                         "needed": self._needed(record["kind"])}

    def _record_text(self, record: dict[str, Any], several: bool) -> str:
        where = f"by {record['place']}: " if several else ""
        key = f"key {short(record['key'])}"
        if record["last"] is None:
            return f"{where}no record ({key})"
        seen = f"last seen {times.date_and_distance(record['last'], self.now)}"
        counted = ""
        if record["kind"] in ("client", "domain"):
            counted = f"{record['count']} of {record['needed']} promotions, "
        state = "expires" if record["alive"] else "expired"
        return f"{where}{counted}{seen}, {state} {times.date_and_distance(record['expires'], self.now)} ({key})"

    def _waits(self) -> list[int]:
        return [seen["first"] for seen in self.facts["waiting"]["triplets"]
                if self.now - seen["first"] <= self.settings["retry_window"]]

    def _pending(self, number: int) -> tuple[str, dict[str, Any]]:
        waiting = self.facts["waiting"]
        parts = []
        firsts = self._waits()
        if firsts:
            parts.append(f"first seen {times.date_and_distance(min(firsts), self.now)}, must wait "
                         f"{times.span(self.settings['delay'])}")
        elif waiting["triplets"]:
            parts.append("seen longer ago than retry_window, which counts as new")
        else:
            parts.append("never seen, or forgotten")
        pair = waiting["pair"]
        if pair and self.settings["pool_hops"] and self.now - pair["first"] <= self.settings["pool_window"]:
            parts.append(f"this sender and recipient came from {pair['hops']} of {self.settings['pool_hops']} networks "
                         f"since {times.date_and_distance(pair['first'], self.now)}")
        return "; ".join(parts), waiting

    def _times(self) -> tuple[int | None, int | None]:
        """From when until when a retry passes, for what is deferred; until None, it has not been recorded yet."""
        if self.verdict["action"] != "defer" or self.verdict["reason"] == "error":
            return None, None
        start = self.now + self.verdict["wait"]
        return start, min(self._waits(), default=self.now) + self.settings["retry_window"]

    def _summary(self, start: int | None, end: int | None) -> str:
        action, reason = self.verdict["action"], self.verdict["reason"]
        if self.verdict["cause"]:
            return f"{action} {reason}: {self.verdict['cause']}"
        if start is None or end is None:
            return f"{action} {reason}" + (": it would have to wait, but mode = learn accepts all"
                                          if reason == "learn" else "")
        if reason == "new":
            return (f"defer new: if it came now, a retry from {times.date_and_distance(start, self.now)} until "
                    f"{times.date(end)} would pass")
        return (f"defer early: a retry from {times.date_and_distance(start, self.now)} until "
                f"{times.date_and_distance(end, self.now)} passes")

    def _remedies(self) -> list[str]:
        """Commands that would let it pass now."""
        if self.verdict["action"] == "accept":
            return []
        if self.verdict["reason"] == "denied":
            rule = self.policy.rules[self.facts["rule"] - 1]
            return [f"remove {rule.entry!a} at {rule.place}, then: fastgrey apply"]
        if self.verdict["reason"] == "error":
            return ["fastgrey doctor"]
        name = ["--name", self.name] if self.name and self.normalised["name_trusted"] else []
        passing = _command("pass", [self.client, self.sender, self.recipient], name)
        domain = ["--from", self.normalised["domain"]] if self.normalised["domain"] else []
        span = times.span(min(900, self.settings["expect_max"])).replace(" ", "")
        return [passing, _command("expect", [self.recipient], [*domain, "--for", span])]


def _command(name: str, addresses: list[str], options: list[str]) -> str:
    """A command to paste into a shell. Senders choose their address, and one that begins with a dash is no option."""
    if any(address.startswith("-") for address in addresses):
        return shlex.join(["fastgrey", name, *options, "--", *addresses])
    return shlex.join(["fastgrey", name, *addresses, *options])


def _shown(normalised: dict[str, Any]) -> dict[str, Any]:
    """Bytes as text, addresses as addresses."""
    version = ipaddress.IPv4Network if normalised["family"] == 4 else ipaddress.IPv6Network
    exact = version((normalised["exact"], 32 if normalised["family"] == 4 else 64))
    return {
        "client": str(exact.network_address) if normalised["family"] == 4 else str(exact),
        "network": str(version((normalised["network"], normalised["prefix"]))),
        "name_trusted": normalised["name_trusted"],
        "parent": _text(normalised["parent"]), "sender": _text(normalised["sender"]),
        "domain": _text(normalised["domain"]), "recipient": _text(normalised["recipient"]),
    }


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


DATES = ("now", "last", "expires", "first", "opened", "until", "passes_from", "passes_until")


def _with_dates(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_dates(item) for item in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for name, item in value.items():
        out[name] = _with_dates(item)
        if name in DATES and isinstance(item, int):
            out[f"{name}_date"] = times.rfc3339(item)
    return out

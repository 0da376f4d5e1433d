"""A state machine against the independent model: any order of checks, pauses and compactions, through both doors and
under any clock."""

import copy
import itertools
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import aging
import fastgrey
from conftest import HOOK
from fastgrey import _core, compaction, directory
from model import DEFAULTS, Model, Window, elapsed, name_parent, normalise_client, normalise_recipient, normalise_sender

CLIENTS = ["192.0.2.1", "192.0.2.200", "198.51.100.7", "203.0.113.9", "2001:db8:1::1", "2001:db8:1::2", "unknown"]
NAMES = ["", "mx1.pool.example", "mx2.pool.example", "h-2-200.dsl.example", "pool.example"]
SENDERS = ["", "anna@example.org", "bert@example.org", "bounce-1@list.example", "bounce-2@list.example", "postmaster"]
RECIPIENTS = ["info@example.net", "sales@example.net"]
CHOICES = {
    "delay": [0, 60, 300],
    "retry_window": [900, 172_800],
    "lifetime": [1800, 3_110_400],
    "refresh": [0, 600, 86_400],
    "allow_client_after": [0, 1, 3],
    "allow_domain_after": [0, 1, 2],
    "pool_hops": [0, 1, 2, 3],
    "pool_window": [300, 14_400],
    "trust_client_name": [0, 1],
    "null_sender": ["greylist", "accept"],
    "mode": ["enforce", "learn"],
    "on_error": ["accept", "defer"],
}
PAUSES = st.sampled_from([1, 59, 61, 240, 301, 899, 1000, 4000, 20_000, 100_000, 180_000, 4_000_000])
DAY = 86_400
LEAPS = st.sampled_from([1, 299, 301, 3599, 7200, DAY, 2 * DAY, 5 * DAY, 37 * DAY, 365 * DAY, 3650 * DAY])
# What may change on the way; prefixes would only change the keys.
CHANGES = {name: CHOICES[name] for name in ("delay", "lifetime", "refresh", "pool_hops", "allow_domain_after")} | {
    "retry_window": [900, 5000, 20_000, 2 * DAY, 9 * DAY], "pool_window": [300, 9000, 4 * DAY]}
EXIT = {"accept": 0, "reject": 100, "defer": 111}


class Machine(RuleBasedStateMachine):
    """What both doors share: the store, the model and the rules."""

    @initialize(chosen=st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in CHOICES.items()}))
    def make(self, chosen):
        self.parent = Path(tempfile.mkdtemp(prefix="fastgrey-machine-"))
        self.path = self.parent / "store"
        self.pending = self.path / f"pending.{directory.boot_id()}"
        numbers = {name: fastgrey.settings.BY_NAME[name].choices.index(value) if isinstance(value, str) else value
                   for name, value in chosen.items()}
        fastgrey.create(self.path, numbers)
        self.chosen = DEFAULTS | chosen
        self.model = Model(**chosen)
        self.begin()

    @rule(client=st.sampled_from(CLIENTS), name=st.sampled_from(NAMES), sender=st.sampled_from(SENDERS),
          recipient=st.sampled_from(RECIPIENTS), relay=st.sampled_from([False] * 9 + [True]))
    def check(self, **request):
        self.check_one(request)

    @rule(pause=PAUSES)
    def wait(self, pause):
        self.pass_time(pause)

    def teardown(self):
        if hasattr(self, "parent"):
            self.end()
            shutil.rmtree(self.parent)

    def ask_model(self, model, now, request):
        return model.check(now=now, client=request["client"].encode(), sender=request["sender"].encode(),
                           recipient=request["recipient"].encode(), client_name=request["name"].encode(),
                           relay=request["relay"])


class ByInterface(Machine):
    """Through the Python API, with the clock as an argument; it may step back."""

    def begin(self):
        self.now = self.earliest = 1_700_000_000
        self.store = fastgrey.open(self.path)

    def end(self):
        self.store.close()

    def pass_time(self, seconds):
        self.now += seconds
        # A horizon is 900 seconds at least; what a store has dropped must not come alive again in the model.
        self.earliest = max(self.earliest, self.now - 850)

    @rule(seconds=st.integers(1, 500))
    def step_back(self, seconds):
        self.now = max(self.earliest, self.now - seconds)

    @rule()
    def compact(self):
        compaction.compact(self.path, self.now)
        self.earliest = self.now

    @rule(request=st.fixed_dictionaries({"client": st.sampled_from(CLIENTS), "sender": st.sampled_from(SENDERS),
                                         "recipient": st.sampled_from(RECIPIENTS), "name": st.sampled_from(NAMES)}))
    def dry_run_says_the_same_and_changes_nothing(self, request):
        request["relay"] = False
        foretold = self.ask_store(request, dry_run=True)
        assert foretold == self.ask_model(copy.deepcopy(self.model), self.now, request)

    def ask_store(self, request, **options):
        verdict = self.store.check(client=request["client"], sender=request["sender"], recipient=request["recipient"],
                                   client_name=request["name"], relay=request["relay"], now=self.now, **options)
        assert (verdict.cause is not None) == (request["client"] == "unknown" and not request["relay"])
        return tuple(verdict[:3])

    def check_one(self, request):
        assert self.ask_store(request) == self.ask_model(self.model, self.now, request)


class ByExecutable(Machine):
    """Through the executable and the real clock; time passes by making the records older."""

    def begin(self):
        self.offset = 0

    def end(self):
        pass

    def pass_time(self, seconds):
        aging.age(self.path, self.pending, seconds)
        self.offset += seconds

    @rule()
    def compact(self):
        compaction.compact(self.path)

    def check_one(self, request):
        environment = {"FASTGREY_STORE": str(self.path), "TCPREMOTEIP": request["client"],
                       "TCPREMOTEHOST": request["name"]}
        if request["relay"]:
            environment["RELAYCLIENT"] = ""
        before = int(time.time())
        done = subprocess.run([HOOK, request["sender"], request["recipient"]], env=environment, capture_output=True,
                              timeout=60)
        after = int(time.time())
        possible = []
        for now in range(before, after + 1):
            model = copy.deepcopy(self.model)
            possible.append((self.ask_model(model, now + self.offset, request), model))
        words = done.stderr.decode().split()
        wait = int(words[3].removeprefix("wait=")) if words[1] == "defer" else 0
        answer = (words[1], words[2], wait)
        assert answer in [verdict for verdict, _ in possible]
        assert done.returncode == EXIT[answer[0]]
        self.model = next(model for verdict, model in possible if verdict == answer)


class UnderAnyClock(ByInterface):
    """The clock leaps years ahead and back, settings change, and compactions happen in between.

    A store may forget a stranger that counted as absent once, and the model does not. So there are worlds, models that
    differ in what was forgotten: an answer must be that of one of them, and only those that gave it go on.
    """

    @initialize(chosen=st.fixed_dictionaries({}, optional={name: st.sampled_from(CHOICES[name]) for name in CHOICES
                                                           if name not in ("mode", "null_sender", "on_error")}))
    def make(self, chosen):
        super().make(chosen)

    def begin(self):
        super().begin()
        self.worlds = [self.model]
        # Pending keys that counted as absent when something may have been dropped.
        self.doubtful = set()
        self.given_up = 0
        self.came = []

    def pass_time(self, seconds):
        self.now += seconds

    @rule(seconds=LEAPS)
    def leap_ahead(self, seconds):
        self.now += seconds

    @rule(seconds=LEAPS)
    def leap_back(self, seconds):
        self.now = max(0, self.now - seconds)

    @rule(client=st.sampled_from(CLIENTS[:3]), name=st.sampled_from(NAMES[:2]), sender=st.sampled_from(SENDERS[1:5]),
          recipient=st.sampled_from(RECIPIENTS))
    def check(self, **request):
        request["relay"] = False
        self.came.append(request)
        self.check_one(request)

    @precondition(lambda self: self.came)
    @rule(number=st.integers(0, 100), edge=st.sampled_from(["delay", "retry_window", "pool_window"]),
          beside=st.sampled_from([-1, 0, 1]), client=st.sampled_from([None, None, *CLIENTS[:4]]))
    def come_back_at_the_edge(self, number, edge, beside, client):
        """In the second in which what is pending of an earlier request changes its meaning, or the one before or
        after; perhaps from elsewhere."""
        request, world = self.came[number % len(self.came)], self.worlds[0]
        keys = self.pending_keys(request)
        moments = [*(world.pending[key] for key in keys if key in world.pending and edge != "pool_window"),
                   *(world.pending_pairs[key].first for key in keys if key in world.pending_pairs)]
        self.go_to_one(moments, getattr(world, edge) + beside, number)
        self.check_one(request | ({"client": client} if client else {}))

    @precondition(lambda self: self.worlds[0].known)
    @rule(number=st.integers(0, 100), edge=st.sampled_from(["lifetime", "refresh"]), beside=st.sampled_from([-1, 0, 1]))
    def known_at_the_edge(self, number, edge, beside):
        """The same of a known record."""
        world = self.worlds[0]
        self.go_to_one([record.last for record in world.known.values()], getattr(world, edge) + beside, number)
        self.check_one(self.came[number % len(self.came)])

    def go_to_one(self, moments, after, number):
        if moments:
            self.now = max(0, moments[number % len(moments)] + after)

    @rule(data=st.data(), name=st.sampled_from(sorted(CHANGES)))
    def change_a_setting(self, data, name):
        value = data.draw(st.sampled_from(CHANGES[name]))
        values = fastgrey.settings.by_name(self.store.head()["settings"])
        self.store.configure(list((values | {name: value}).values()))
        for world in self.worlds:
            setattr(world, name, value)

    @rule(recipient=st.sampled_from(RECIPIENTS), domain=st.sampled_from(["", "example.org", "example"]),
          length=st.sampled_from([1, 600, 3600]))
    def expect(self, recipient, domain, length):
        until = self.now + length
        _core.open_window(self.store, recipient, domain or None, self.now, until)
        window = Window(recipient.encode(), domain.encode(), until)
        for world in self.worlds:
            world.windows = [*(other for other in world.windows if (other.recipient, other.domain) !=
                               (window.recipient, window.domain)), window]

    @rule()
    def compact(self):
        compaction.compact(self.path, self.now)
        self.doubt()
        for world in self.worlds:
            world.known = {key: record for key, record in world.known.items()
                           if elapsed(self.now, record.last) <= world.lifetime}
            world.windows = [window for window in world.windows if self.now <= window.until]

    @rule(request=st.fixed_dictionaries({"client": st.sampled_from(CLIENTS), "sender": st.sampled_from(SENDERS),
                                         "recipient": st.sampled_from(RECIPIENTS), "name": st.sampled_from(NAMES)}))
    def dry_run_says_the_same_and_changes_nothing(self, request):
        request["relay"] = False
        foretold = self.ask_store(request, dry_run=True)
        assert foretold in [verdict for verdict, _ in self.outcomes(request)]

    def check_one(self, request):
        answer = self.ask_store(request)
        outcomes = self.outcomes(request)
        assert answer in [verdict for verdict, _ in outcomes]
        self.worlds = []
        for verdict, world in outcomes:
            if verdict == answer and all(vars(world) != vars(other) for other in self.worlds):
                self.worlds.append(world)
        # A run in which much was forgotten and little came back tells nothing more.
        assume(len(self.worlds) <= 64)
        if answer[1] in ("new", "learn", "pool"):
            self.doubt()
            if answer[1] != "pool":
                self.doubtful -= set(self.pending_keys(request))
        given_up = self.store.counters()["events"]["partitions given up"]
        if given_up != self.given_up:
            # More spans of time than a store keeps.
            self.given_up = given_up
            self.doubtful |= {key for world in self.worlds for key in (*world.pending, *world.pending_pairs)}

    def outcomes(self, request):
        """Verdicts with the world after each, for every world and all that may have been forgotten in it."""
        keys = [key for key in self.pending_keys(request) if key in self.doubtful]
        found = []
        for world in self.worlds:
            for number in range(len(keys) + 1):
                for gone in itertools.combinations(keys, number):
                    other = copy.deepcopy(world)
                    for key in gone:
                        other.pending.pop(key, None)
                        other.pending_pairs.pop(key, None)
                    found.append((self.ask_model(other, self.now, request), other))
        return found

    def pending_keys(self, request):
        """The keys under which the model has what is pending of a request."""
        if request["client"] == "unknown":
            return []
        exact, network = normalise_client(request["client"].encode())
        sender, recipient = (normalise_sender(request["sender"].encode()),
                             normalise_recipient(request["recipient"].encode()))
        parent = name_parent(request["name"].encode(), exact) if self.worlds[0].trust_client_name else b""
        return [("pair", sender, recipient),
                *(("triplet", origin, sender, recipient) for origin in (network, parent) if origin)]

    def doubt(self):
        """What counts as absent now may be forgotten from now on."""
        for world in self.worlds:
            self.doubtful |= {key for key, first in world.pending.items()
                              if elapsed(self.now, first) > world.retry_window}
            self.doubtful |= {key for key, pair in world.pending_pairs.items()
                              if elapsed(self.now, pair.first) > world.pool_window}


@pytest.mark.parametrize(("machine", "examples"), [(ByInterface, 150), (ByExecutable, 25), (UnderAnyClock, 400)])
def test_machine(machine, examples):
    run_state_machine_as_test(machine, settings=settings(
        max_examples=examples, stateful_step_count=40, deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], print_blob=True,
    ))

"""A state machine against the independent model: any order of checks, pauses and compactions, through both doors."""

import copy
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import aging
import fastgrey
from conftest import HOOK
from fastgrey import compaction, directory
from model import DEFAULTS, Model

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


@pytest.mark.parametrize(("machine", "examples"), [(ByInterface, 150), (ByExecutable, 25)])
def test_machine(machine, examples, monkeypatch):
    run_state_machine_as_test(machine, settings=settings(
        max_examples=examples, stateful_step_count=40, deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], print_blob=True,
    ))

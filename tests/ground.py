"""A store to take away from under the executable, the senders that tell how it stands, and their verdicts."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import fastgrey
from conftest import BIN, HOOK
from fastgrey import directory, policy, settings

# Of client, sender and recipient.
SENDERS = {
    "known": ("10.0.7.1", "a@x.example", "bh7@example.net"),
    # Known, due for a refresh, and its first attempt so long ago that it does not count any more.
    "due": ("10.1.7.1", "a@due.example", "b@example.net"),
    "stranger": ("198.51.100.9", "a@new.example", "b@example.net"),
    # Came once, and may pass.
    "waiting": ("192.0.2.200", "a@waiting.example", "b@example.net"),
    "denied": ("192.0.2.9", "a@bad.example", "b@example.net"),
    "allowed": ("192.0.2.9", "a@good.example", "b@example.net"),
}
TRUE = {"known": "accept known-domain", "due": "accept known-domain", "stranger": "defer new",
        "waiting": "accept retry", "denied": "reject denied", "allowed": "accept allowed"}
# All look at the generation in force, these at pending too.
WAIT = ("stranger", "waiting")
STATUS = {"accept": 0, "defer": 111, "reject": 100}
# Seconds after which the executable ends by itself, and what a loaded machine may add.
BOUND = 8 + 22


class Answer(NamedTuple):
    """status: of the process. verdict: action and reason. line: all of standard error."""

    status: int
    verdict: str
    line: str


def make(path, on_error="defer", records=60):
    """A store with all that SENDERS need, and so many other known records."""
    fastgrey.create(path, settings.parse_assignments(
        ("delay=0s", f"on_error={on_error}", "allow_client_after=0", "pool_hops=0", "pending_size=16M")))
    now = int(time.time())
    with fastgrey.open(path) as store:
        policy.put(store, {"deny_senders": ["bad.example", "*%*"], "allow_senders": ["good.example"]},
                   settings.by_name(store.head()["settings"]))
        others = [(f"10.0.{number}.1", "a@x.example", f"b{'abcdefghij'[number % 10]}{number}@example.net")
                  for number in range(records)]
        for (client, sender, recipient), when in [(other, now) for other in others] + [
                (SENDERS["known"], now), (SENDERS["due"], now - 3 * 86_400)]:
            for _ in range(2):
                store.check(client=client, sender=sender, recipient=recipient, now=when)
        client, sender, recipient = SENDERS["waiting"]
        assert store.check(client=client, sender=sender, recipient=recipient).reason == "new"
    return path


def start(store, who, *before, hook=HOOK, env=None, **options):
    """Run the executable for one of SENDERS, by way of the command `before` where there is one."""
    client, sender, recipient = SENDERS[who]
    return subprocess.Popen([*before, hook, sender, recipient], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            env={"FASTGREY_STORE": str(store), "TCPREMOTEIP": client} | (env or {}), **options)


def end(process):
    """Its answer; at least one line, within the bound, and no death by a signal."""
    try:
        _, said = process.communicate(timeout=BOUND)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError(f"no end within {BOUND} seconds: {process.args}") from None
    line = said.decode("ascii")
    assert process.returncode in STATUS.values(), (process.returncode, line)
    return Answer(process.returncode, " ".join(line.split()[1:3]), line)


def ask(store, who, *before, **options):
    """The answer for one of SENDERS, with all that holds whatever is wrong."""
    return judged(end(start(store, who, *before, **options)), who)


def judged(answer, who):
    """One line, which says what the status does; an error has cause and remedy; none but the denied is rejected."""
    assert answer.line.startswith("fastgrey: "), answer
    assert answer.line.endswith("\n"), answer
    assert answer.line.count("\n") == 1, answer
    action, _, reason = answer.verdict.partition(" ")
    assert STATUS[action] == answer.status, answer
    assert action != "reject" or who == "denied", answer
    assert reason != "error" or "; " in answer.line, answer
    return answer


def is_fault(answer, on_error="defer"):
    """Whether it is an error, and then as on_error says."""
    if not answer.verdict.endswith(" error"):
        return False
    assert answer.verdict == f"{on_error} error", answer
    return True


def goes_on(store, who="", answer=None, forgotten=False):
    """That healthy checks give the true verdicts, whatever earlier ones have recorded. answer: what one of SENDERS was
    told before; who was accepted then is known now. forgotten: pending was lost."""
    later = {"stranger": {"defer new", "accept retry", "accept known-domain"},
             "waiting": {"accept retry", "accept known-domain"} | ({"defer new"} if forgotten else set())}
    if answer is not None and answer.verdict == "accept retry":
        later[who] = {"accept known-domain"}
    for other in ("known", "stranger", "waiting", "denied"):
        told = ask(store, other)
        assert told.verdict in later.get(other, {TRUE[other]}), (told, answer)


def parts(store):
    """The files that checks work with, by what they are called here."""
    generation = store / os.readlink(store / "current")
    pending = store / f"pending.{directory.boot_id()}"
    return {"passed": generation / "data.mdb", "passed lock": generation / "lock.mdb",
            "pending": pending / "data.mdb", "pending lock": pending / "lock.mdb"}


def copy(template, place):
    """The template once more, at another place."""
    directory_ = Path(place)
    if directory_.exists():
        shutil.rmtree(directory_)
    shutil.copytree(template, directory_, symlinks=True)
    return directory_


def follow(remedy):
    """Do what a remedy says, as a person would at a shell."""
    subprocess.run(["sh", "-c", remedy.removeprefix("run: ")], check=True, timeout=60, stdout=subprocess.DEVNULL,
                   env={"PATH": f"{BIN}:{os.environ['PATH']}"})


def at_rest(store):
    """The names of all that is in a store, if it is there."""
    return [str(path.relative_to(store)) for path in store.rglob("*")] if store.is_dir() else []

"""The main job, shown: strangers, a patient sender, a crowd and a compaction, through real SMTP and the real hook."""

import json
import smtplib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent
DELAY = 2
CROWD = 300
CALLERS = 24


def say(text: str = "") -> None:
    """A line of the story."""
    print(text, flush=True)


@contextmanager
def listening(store: Path, log: Path):
    """The listener in a process of its own; gives its port."""
    with open(log, "wb") as errors:
        process = subprocess.Popen([sys.executable, HERE / "listener.py", BIN / "qmail-checkenv", store],
                                   stdout=subprocess.PIPE, stderr=errors)
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(10)
            process.stdout.close()


class Client:
    """A real SMTP client at an address of its own: all of 127.0.0.0/8 is this machine."""

    def __init__(self, port: int, address: str, domain: str):
        self.port = port
        self.address = address
        self.domain = domain

    def send(self, sender: str, recipient: str) -> tuple[int, str]:
        """Offer one message; the reply to RCPT TO."""
        with smtplib.SMTP("127.0.0.1", self.port, self.domain, timeout=30, source_address=(self.address, 0)) as smtp:
            smtp.ehlo()
            smtp.mail(sender)
            code, text = smtp.rcpt(recipient)
            if code == 250:
                smtp.data(b"Subject: demo\r\n\r\nHello.\r\n")
            return code, text.decode()

    def show(self, what: str, sender: str, recipient: str) -> None:
        """Offer one message and print the exchange."""
        code, text = self.send(sender, recipient)
        say(f"  {what}")
        say(f"    {self.address}  MAIL FROM:<{sender}> RCPT TO:<{recipient}>")
        say(f"    -> {code} {text}")


def fastgrey(store: Path, *arguments: str) -> str:
    """Run the command line, as an administrator does."""
    command = [BIN / "fastgrey", *arguments, "--store", store]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def indented(text: str) -> str:
    """Output of a command, set off from the story."""
    return "".join(f"    {line}\n" for line in text.splitlines())


def crowd(port: int) -> None:
    """Many strangers at once, each from a network of its own."""
    strangers = [Client(port, f"127.{1 + n // 200}.{n % 200}.7", f"host{n}.example") for n in range(CROWD)]

    def knock(number: int) -> int:
        return strangers[number].send(f"offer@shop{number}.example", "info@demo.example")[0]

    started = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as pool:
        replies = Counter(pool.map(knock, range(CROWD)))
    seconds = time.monotonic() - started
    answers = ", ".join(f"{number} times {code}" for code, number in sorted(replies.items()))
    say(f"  {CROWD} strangers, {CALLERS} at once: {answers}, in {seconds:.1f} s with connection, fork and exec")


def story(directory: Path) -> None:
    """Tell it from the making of the store to its counters."""
    store, log = directory / "store", directory / "log"
    say(f"1. A store with a delay of {DELAY} seconds")
    say(indented(fastgrey(store, "init", "--set", f"delay={DELAY}s")))
    with listening(store, log) as port:
        friend = Client(port, "127.99.1.1", "mail.friend.example")
        say("2. A stranger learns to wait")
        friend.show("first try: never seen, deferred", "anna@friend.example", "info@demo.example")
        friend.show("too early: still deferred", "anna@friend.example", "info@demo.example")
        time.sleep(DELAY + 0.2)
        friend.show("in time: accepted", "anna@friend.example", "info@demo.example")
        friend.show("a second message, of another sender to another recipient: passes at once",
                    "bert@friend.example", "sales@demo.example")
        say("\n3. A crowd of strangers")
        crowd(port)
        say("\n4. Compaction, while the listener is up")
        say(indented(fastgrey(store, "compact")).rstrip("\n"))
        friend.show("what was earned is still there", "anna@friend.example", "boss@demo.example")
    say("\n5. The log of the hook: first lines and last")
    lines = log.read_text().splitlines()
    say(indented("\n".join([*lines[:4], f"... {len(lines) - 6} more ...", *lines[-2:]])))
    say("6. The counters")
    say(indented(fastgrey(store, "stats")))
    verdicts = json.loads(fastgrey(store, "stats", "--json"))["verdicts"]
    expected = {"defer new": CROWD + 1, "defer early": 1, "accept retry": 1, "accept known-domain": 2}
    if verdicts != expected:
        raise SystemExit(f"demo: the counters are {verdicts}, expected {expected}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fastgrey-demo-") as name:
        story(Path(name))

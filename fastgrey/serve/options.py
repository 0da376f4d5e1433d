"""What the server is told: the options of [serve]."""

from dataclasses import dataclass

SOCKET = "serve.sock"


@dataclass(frozen=True)
class Options:
    """The options of [serve], times in seconds."""

    listen: tuple[str, ...] = ()
    workers: int = 1
    defer_text: str = "greylisted, please try again in {seconds} seconds"
    reject_text: str = "sorry, your mail is not wanted here"
    trace: str = "X-Greylist"

"""What the server is told: the table [serve] of the configuration."""

import os
from dataclasses import dataclass
from typing import Any

SOCKET = "serve.sock"
SECONDS = "{seconds}"


@dataclass(frozen=True)
class Options:
    """The options of [serve] as they are used, times in seconds; settings of fastgrey.serve_options describe them."""

    listen: tuple[str, ...] = ()
    workers: int = 0
    max_connections: int = 10_000
    idle: int = 600
    defer_text: str = "greylisted, please try again in {seconds} seconds"
    reject_text: str = "sorry, your mail is not wanted here"
    trace: str = "X-Greylist"
    first_recipient: bool = False
    log: str = "text"
    metrics: str = ""
    engine: str = ""
    name: str = "mail"
    password_file: str = ""
    fallback: str = "local"
    timeout: int = 1

    @property
    def processes(self) -> int:
        """Workers to run: one a processor where no number is given."""
        return self.workers or len(os.sched_getaffinity(0))

    def wording(self) -> dict[str, Any]:
        """Texts as Connections takes them."""
        before, seconds, after = self.defer_text.partition(SECONDS)
        return {"defer_text": (before.encode(), after.encode() if seconds else None),
                "reject_text": self.reject_text.encode(), "trace": self.trace.encode()}

"""What is told to the service manager: READY=1 and its kin (sd_notify(3)). Without one, nothing."""

import contextlib
import os
import socket
import time


def notify(*lines: str) -> None:
    """Send lines such as READY=1 to the manager that started this process, if it wants them."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place:
        return
    # An at sign stands for the NUL of an abstract address.
    address = "\0" + place[1:] if place.startswith("@") else place
    # A manager that is gone is no reason to stop.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
        end.setblocking(False)
        end.sendto("\n".join(lines).encode(), address)


def reloading() -> None:
    """What Type=notify-reload asks for at the begin of a reload."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog() -> float | None:
    """Seconds after which the manager takes silence for death (sd_watchdog_enabled(3)), None where it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() and int(microseconds) else None

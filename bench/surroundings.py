"""Where figures come from: the commit, the machine, the versions of what was measured."""

import importlib.metadata
import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commit() -> dict[str, str | bool]:
    """The commit and whether the working tree differs from it; empty where there is no git."""
    head = _said("git", "-C", str(ROOT), "rev-parse", "HEAD").strip()
    # Results are written while others are measured: what the suite itself makes is no difference.
    changed = _said("git", "-C", str(ROOT), "status", "--porcelain", "--", ".", ":!docs/benchmarks*")
    return {"commit": head, "dirty": bool(changed.strip())}


def machine() -> dict[str, str | int]:
    """Processor, cores, kernel, memory in bytes, and the file system that stores are made on."""
    processor = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", processor, re.M)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
    return {
        "processor": model[1].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "memory": int(memory[1]) << 10 if memory else 0,
        "file system": _said("stat", "-f", "-c", "%T", tempfile.gettempdir()).strip(),
        "hypervisor": "yes" if re.search(r"^flags\s*:.*\bhypervisor\b", processor, re.M) else "no",
    }


def versions() -> dict[str, str]:
    """Versions by name; those of Python packages and Debian packages that are missing are left out."""
    found = {"python": platform.python_version(), "libc": " ".join(platform.libc_ver()),
             "gcc": _said("cc", "-dumpfullversion").strip()}
    for package in ("fastgrey", "lmdb", "xxhash", "Cython", "pytest-benchmark", "uvloop", "valkey", "psycopg"):
        try:
            found[f"PyPI {package}" if package != "fastgrey" else package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for package in ("postgrey", "gross", "sqlgrey", "greylistd", "perl-base", "liblmdb-dev", "libxxhash-dev", "dash",
                    "redis-server", "postgresql"):
        version = _said("dpkg-query", "-W", "-f", "${Version}", package)
        if version:
            found[f"Debian {package}"] = version
    return found


def _said(*command: str) -> str:
    """What a command printed, nothing where it fails or is missing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""

"""Files that come with the program and are no Python: sources for qmail, service files, manual pages.

Installed they are below share/ of the environment (setup.py); in a checkout they are where they are written.
"""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from .errors import InstallationError

CHECKOUT = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """The file contrib/NAME, such as qmail/checkenv.c, wherever it was installed. Raises InstallationError."""
    beside = CHECKOUT / "contrib" / name
    if beside.is_file():
        return beside
    for path in _installed():
        if str(path).endswith(f"share/fastgrey/{name}") and path.is_file():
            return path
    raise InstallationError(f"{name} did not come with this fastgrey; install the package again")


def _installed() -> list[Path]:
    try:
        return [Path(str(file.locate())) for file in files("fastgrey") or []]
    except PackageNotFoundError:
        return []

"""The engine that the table [serve] of the configuration names."""

import tomllib
from pathlib import Path
from typing import Any

from fastgrey import configuration
from fastgrey.errors import PolicyError

from .engine import SharedEngine
from .open import NAME, TIMEOUT, engine_from_url


def engine_of(config: str | None) -> SharedEngine | None:
    """It, not yet open; None where there is none. config: the main file, None for the usual one. Raises PolicyError,
    EngineError."""
    options = _serve(Path(config or configuration.default_path()))
    if not options.get("engine"):
        return None
    return engine_from_url(options["engine"], name=options.get("name", NAME), timeout=options.get("timeout", TIMEOUT),
                           password_file=options.get("password_file"))


def _serve(main: Path) -> dict[str, Any]:
    """The table, as the files of the configuration add up to it."""
    found: dict[str, Any] = {}
    for path in [main, *sorted((main.parent / "conf.d").glob("*.toml"))]:
        try:
            found |= tomllib.loads(path.read_text()).get("serve", {})
        except (OSError, ValueError) as error:
            raise PolicyError(f"{path}: {error}; ask: fastgrey config check") from None
    return found

"""The engine that the table [serve] of the configuration names."""

from fastgrey import configuration
from fastgrey.serve.options import Options

from .engine import SharedEngine
from .open import engine_from_url


def engine_for(options: Options) -> SharedEngine:
    """The engine of these options, not yet open. EngineError."""
    return engine_from_url(options.engine, name=options.name, timeout=float(options.timeout),
                           password_file=options.password_file or None)


def engine_of(config: str | None) -> SharedEngine | None:
    """That of the configuration; None where it names none. config: the main file, None for the usual one. PolicyError,
    EngineError."""
    options = configuration.load_serve(config)
    return engine_for(options) if options.engine else None

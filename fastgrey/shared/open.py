"""The engine that a URL names."""

from fastgrey.errors import EngineError

from .engine import SharedEngine

NAME = "fastgrey"
TIMEOUT = 1.0
# Schemes of URLs, up to a plus sign.
VALKEY = ("valkey", "valkeys", "redis", "rediss")
POSTGRESQL = ("postgresql", "postgres")


def engine_from_url(url: str, *, name: str = NAME, timeout: float = TIMEOUT,
                    password_file: str | None = None) -> SharedEngine:
    """The engine at url, not yet open.

    name: the name space, so that several stores share an engine. timeout: seconds within which each call of it ends.
    password_file: holds the password, where the URL does not. Raises EngineError where the URL means no engine, or the
    packages for it are not installed.
    """
    scheme = url.partition("://")[0].lower()
    try:
        if scheme.partition("+")[0] in VALKEY:
            from .valkey import Valkey

            return Valkey(url, password_file=password_file, timeout=timeout, namespace=name)
        if scheme in POSTGRESQL:
            from .postgresql import Postgresql

            return Postgresql(url, password_file=password_file, timeout=timeout, namespace=name)
    except ModuleNotFoundError as error:
        raise EngineError(f"the engine {scheme}:// needs the package {error.name}, which is not installed; "
                          "run: pip install 'fastgrey[server]'") from None
    raise EngineError(f"no engine is called {scheme[:40]!r}; write valkey://HOST:6379/0, valkey+cluster://HOST:6379,…, "
                      "valkey+sentinel://HOST:26379,…/SERVICE or postgresql://…")

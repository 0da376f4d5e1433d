"""fastgrey: greylisting for qmail and for whoever asks.

    import fastgrey

    with fastgrey.open("/var/lib/fastgrey") as store:
        verdict = store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net")
        print(verdict.action, verdict.reason, verdict.wait)
"""

from ._core import Store
from .directory import create, open_store as open
from .errors import FastgreyError, ForkedError, SettingsError, StoreError
from .verdict import Verdict

__all__ = ["FastgreyError", "ForkedError", "SettingsError", "Store", "StoreError", "Verdict", "create", "open"]

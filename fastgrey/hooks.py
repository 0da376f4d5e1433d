"""The hooks of the qmails: what each is called, and under which name its program is installed."""

from typing import NamedTuple


class Hook(NamedTuple):
    """A hook. installed: the name of its program; sign: text in every qmail-smtpd that has the hook."""

    name: str
    installed: str
    sign: bytes


# s/qmail runs its greylister under that very name; the others are named by whoever sets them up.
HOOKS = {hook.name: hook for hook in (
    Hook("checkenv", "qmail-checkenv", b"CHECKENV"),
    Hook("envelope-scanner", "fastgrey-envelope-scanner", b"ENVELOPE_SCANNER"),
    Hook("rcptcheck", "fastgrey-rcptcheck", b"RCPTCHECK"),
    Hook("spp", "fastgrey-spp", b"smtpplugins"),
    Hook("postgrey", "qmail-postgrey", b"POSTGREY"),
)}
BY_PROGRAM = {hook.installed: hook for hook in HOOKS.values()}

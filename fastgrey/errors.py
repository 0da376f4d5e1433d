"""Everything that can go wrong, each as one class with the exit status of the command line."""


class FastgreyError(Exception):
    """Root of all errors of this package. Its text is one line: what, where, why, what to do."""

    exit_status = 1


class StoreError(FastgreyError):
    """The store cannot be opened, read or written."""


class ForkedError(FastgreyError):
    """A store object was carried over a fork; open the store anew in the child."""


class ClosedError(FastgreyError):
    """A store object was used after it was closed."""


class SettingsError(FastgreyError):
    """A setting has no such name or cannot have such a value."""

    exit_status = 2


class EnvelopeError(FastgreyError):
    """An envelope file for replay has a line that cannot be read."""


class OutputError(FastgreyError):
    """A file that was asked for cannot be written."""


class CompactionError(FastgreyError):
    """Compaction could not finish."""


class RunningError(CompactionError):
    """Another compaction of the store is running, or what also wants to be alone with it."""

    exit_status = 3


class VerificationError(CompactionError):
    """A new generation is not what it should be, so it does not come into force."""

    exit_status = 4


class ManifestError(FastgreyError):
    """The manifest of a generation or of a backup is damaged, or of another version."""


class RollbackError(FastgreyError):
    """There is no going back; the generation in force stays."""


class BackupError(FastgreyError):
    """A backup cannot be written, or a file is none that can be restored; the store is what it was."""


class PolicyError(FastgreyError):
    """The configuration or a rule cannot be used; the policy in force stays."""


class EngineError(FastgreyError):
    """The engine that holds shared records cannot be reached or does not answer."""


class ServeError(FastgreyError):
    """The server cannot run as it was told to."""


class SecretError(EngineError):
    """An engine holds records under another secret than the store: what either knows means nothing to the other."""


class RequestError(FastgreyError):
    """What was asked for cannot be meant: an address, a key, or which of them were given."""

    exit_status = 2


class RecordError(FastgreyError):
    """A record that was asked for is not there, or cannot be made under the settings in force."""


class InstallationError(FastgreyError):
    """A part of fastgrey itself is missing, or a place where it belongs cannot be used."""


class SourceError(FastgreyError):
    """The source of qmail is not what the call of checkenv() fits into, or was changed since it was put in."""

"""What goes wrong with PostgreSQL, each as one line with what to do about it."""

import psycopg

# By SQLSTATE or its class (PostgreSQL manual, appendix A). A {placeholder} is filled by told().
BY_STATE = {
    "25006": "the database is read-only; name all hosts in the URL, of which the primary is taken, or promote one",
    "3D000": "make it: createdb {database}",
    "3F000": "the schema {schema} is gone; restart fastgrey serve, which makes it anew, or restore it from a backup",
    "42P01": "a table of the schema {schema} is missing; restart fastgrey serve, which makes it anew, or restore it",
    "42883": "a function of the schema {schema} is missing; restart fastgrey serve, which makes it anew",
    "42501": "as the owner of the database run: python3 -m fastgrey.shared.postgresql_schema {schema} {role} | psql "
             "{database}",
    "53100": "the disk of the server is full; make room there",
    "53200": "the server is out of memory; raise max_locks_per_transaction or what it may use",
    "53300": "raise max_connections of the server, or serve with fewer workers: each keeps {connections}",
    "57014": "it took longer than the time-out; see what holds locks there: select * from pg_stat_activity",
    "57P03": "wait until the server has started",
}
# A server that refuses a connection says no SQLSTATE; these words are those of English messages.
BY_WORDS = (
    ("too many c", BY_STATE["53300"]),
    ("remaining connection slots", BY_STATE["53300"]),
    ("no password supplied", "put the password into the file that password_file names"),
    ("password authentication failed", "put the right password into the file that password_file names"),
    ("no pg_hba.conf entry", "let {role} in: add a line for this machine to pg_hba.conf of the server"),
    ("authentication failed", "name the role in the URL and let it in by pg_hba.conf of the server"),
    ("role \"", "make it: createuser {role}, or name another one in the URL"),
    ("is not permitted to log in", "let it: alter role {role} login"),
    ("permission denied for database", "grant connect on database {database} to {role}"),
    ("database \"", BY_STATE["3D000"]),
    ("read-only", BY_STATE["25006"]),
    ("in recovery mode", BY_STATE["57P03"]),
    ("hot standby mode", BY_STATE["25006"]),
    ("starting up", BY_STATE["57P03"]),
    ("shutting down", "start the server"),
    ("connection refused", "start the server there, or name where it listens (listen_addresses)"),
    ("no such file or directory", "start the server there, or name where it listens"),
    ("could not translate host", "name a host that there is"),
    ("failed to resolve host", "name a host that there is"),
    ("certificate", "see sslmode and sslrootcert in the URL"),
    ("timeout expired", "see whether the server is reachable from here"),
)
# The connection is of no more use: the server ends it, or is no primary any more.
LOST = ("08", "57P01", "57P02", "57P05", "25006")
# What another swap did at the same moment.
RACED = ("40001", "40P01")


def lost(error: psycopg.Error, broken: bool) -> bool:
    """Whether another connection may fare better with the same statement."""
    return broken or (error.sqlstate or "").startswith(LOST)


def raced(error: psycopg.Error) -> bool:
    """Whether the statement did nothing because of another one at the same moment."""
    return error.sqlstate in RACED


def told(error: psycopg.Error, **places: object) -> str:
    """The error as one line: what the server or the client library says, and what to do. places: database, schema,
    role and connections."""
    said = error.diag.message_primary or str(error).strip() or type(error).__name__
    # With several hosts libpq says several lines, with a hint in each of them.
    said = " ".join(said.split()).removesuffix(".")
    state = error.sqlstate or ""
    remedy = BY_STATE.get(state)
    if remedy is None and not state:
        words = said.lower()
        remedy = next((what for needle, what in BY_WORDS if needle in words), None)
    if remedy is None:
        remedy = "see the log of the server"
    return f"{said}; {remedy.format(**places)}"

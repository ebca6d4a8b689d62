"""What Postgres' errors mean for us: by SQLSTATE, or, when connecting, by the text of libpq.

Pure. Never a part of what the server said: its details quote rows, and of a mistyped URL libpq
quotes pieces of the password. Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.checkpoint.database import ConnectionLost, ReadOnly
from pipeline.errors import ConfigError, CredentialsError, PipelineError, StateError, UnusableState

_REFUSED = (
    CredentialsError,
    (
        "refuses this user: check user and password in `state` (with `%40` for `@` and the like "
        "in a password), or have the server let them in (role, pg_hba.conf)."
    ),
)
_NO_DATABASE = (UnusableState, "has no such database: create it, or correct `state`.")
_READ_ONLY = (
    ReadOnly,
    (
        "takes no writes: it is a replica, or set to read-only. Let `state` name the primary; with "
        "several hosts, `?target_session_attrs=read-write` finds it."
    ),
)
_FULL = (ConnectionLost, "has no connection left: raise max_connections, or run again later.")
_STARTING = (ConnectionLost, "is starting or shutting down: run again.")
_LOST = (ConnectionLost, "closed the connection: see whether the server is up, then run again.")
_UNDONE = (ConnectionLost, "undid a transaction in favour of another: run again.")
_FAULTY = (StateError, "can't read or write its files: see the server's log, then run again.")
_OTHER_TABLES = (
    UnusableState,
    (
        "lacks tables or columns: another schema is found first (search_path), or somebody changed "
        "them. Correct that, or restore a backup."
    ),
)
_DAMAGED = (UnusableState, "is damaged, says the server: restore it from a backup.")

# Prefixes of SQLSTATE, the first that fits.
_CODES: Sequence[tuple[tuple[str, ...], tuple[type[PipelineError], str]]] = (
    (("28",), _REFUSED),
    (("3D000",), _NO_DATABASE),
    (("25006",), _READ_ONLY),
    (("53300",), _FULL),
    (("57P03",), _STARTING),
    (("08", "57P", "25P03", "25P04"), _LOST),
    (("40001", "40P01"), _UNDONE),
    (("53100",), (StateError, "can't grow: the server's disk is full. Free space, run again.")),
    (("53", "58"), _FAULTY),
    (
        ("55P03",),
        (
            StateError,
            (
                "was locked by another writer for longer than {seconds:g} s: find what holds the "
                "lock (pg_stat_activity), then run again."
            ),
        ),
    ),
    (
        ("57014",),
        (StateError, "took too long over a statement: see what it is busy with, then run again."),
    ),
    (
        ("42501",),
        (
            UnusableState,
            (
                "does not let this user do what is needed: GRANT it CREATE on the schema, and "
                "SELECT, INSERT, UPDATE, DELETE on the tables, and USAGE on the sequences in it."
            ),
        ),
    ),
    (
        ("3F000",),
        (
            UnusableState,
            "has no schema to put tables into: CREATE SCHEMA, or correct search_path.",
        ),
    ),
    (("42P01", "42703"), _OTHER_TABLES),
    (("XX001", "XX002"), _DAMAGED),
)

# What libpq says of a connection that did not come about, where SQLSTATE is not told.
_TEXTS: Sequence[tuple[str, tuple[type[PipelineError], str]]] = (
    (r"FATAL: .*(password|authentication failed|pg_hba\.conf)|no password supplied", _REFUSED),
    (r"FATAL: .*(role .* does not exist|permission denied for database)", _REFUSED),
    (r"FATAL: .*database .* does not exist", _NO_DATABASE),
    (r"session is read-only|hot standby", _READ_ONLY),
    (r"too many (clients|connections)|connection slots", _FULL),
    (r"FATAL: .*the database system is", _STARTING),
    (
        r"(server|root|client) certificate|certificate verify|does not support SSL|SSL error",
        (
            UnusableState,
            "can't be trusted, or speaks no TLS: check sslmode and sslrootcert in `state`.",
        ),
    ),
    (
        r"invalid (\w+ value|port|connection|integer)|unrecognized configuration",
        (ConfigError, "is named with an option that libpq does not take: correct `state`."),
    ),
    (
        r"resolve host|translate host|not known",
        (ConnectionLost, "has a host whose name can't be resolved: check it, or DNS; run again."),
    ),
    (
        r"timeout|timed out",
        (ConnectionLost, "does not answer: check host, port and firewalls; run again."),
    ),
    (
        r"refused|No such file",
        (ConnectionLost, "can't be reached: nothing listens there. Start the server, run again."),
    ),
)


def explained(name: str, code: str | None, text: str, *, lost: bool, seconds: float) -> Exception:
    """The error to raise for one of the driver's.

    name: of the state. code: SQLSTATE. text: the driver's, looked at only. lost: the connection
    is gone. seconds: how long locks are waited for.
    """
    if code is None:
        for pattern, (kind, what) in _TEXTS:
            if re.search(pattern, text):
                return kind(f"{name} {what}")
        if lost or "connect" in text:
            return _LOST[0](f"{name} {_LOST[1]}")
        return PipelineError(
            f"{name}: a value can't be kept. This is our own fault: please report it."
        )
    if code.startswith("23"):
        return PipelineError(
            f"{name}: a write contradicts what is kept (SQLSTATE {code}). "
            "This is our own fault: please report it."
        )
    for prefixes, (kind, what) in _CODES:
        if code.startswith(prefixes):
            return kind(f"{name} {what.format(seconds=seconds)}")
    if lost:
        return _LOST[0](f"{name} {_LOST[1]}")
    return UnusableState(f"{name} can't be used (SQLSTATE {code}): see the server's log.")

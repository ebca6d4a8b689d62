"""Which database a URL of the state means."""

from __future__ import annotations

from contextlib import closing

from pipeline.checkpoint.database import Database
from pipeline.checkpoint.postgres import PostgresServer
from pipeline.checkpoint.sqlite import SqliteFile, path_of


def database_at(url: str, *, busy_seconds: float, patience: float) -> Database:
    """The database of a sqlite: or postgresql: URL.

    busy_seconds: how long to wait for another writer. patience: how long a lost connection is
    waited out. Raises ConfigError for a URL of another kind, and what SqliteFile raises.
    """
    if _is_postgres(url):
        return PostgresServer(url, busy_seconds=busy_seconds, patience=patience)
    return SqliteFile(url, busy_seconds=busy_seconds)


def is_made(url: str) -> bool:
    """Whether there is a state; looking makes none. Raises ConfigError, StateError."""
    if not _is_postgres(url):
        return path_of(url).exists()
    with closing(PostgresServer(url, busy_seconds=10, patience=0)) as server:
        return server.is_made()


def _is_postgres(url: str) -> bool:
    return url.partition(":")[0] in {"postgresql", "postgres"}

"""SQLite as the place of the state: its file, its settings, its errors.

All that is SQLite's own is in here. Whatever the file, its folder or its
disk refuses becomes a StateError that names the path and the remedy, without SQL or parameters.
It does not know the tables.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from pipeline.errors import ConfigError, PipelineError, StateError, UnusableState

_T = TypeVar("_T")

# Execution option of connections that will write.
WRITES = "retl_writes"

_OPENING = threading.Lock()


class SqliteFile:
    """One SQLite file, made if need be, for the owner only: dead letters hold row content.

    url: sqlite:///relative/path or sqlite:////absolute/path.
    busy_seconds: how long to wait for another writer.
    Raises ConfigError for any other URL, StateError when the file can't be written.
    """

    def __init__(self, url: str, *, busy_seconds: float) -> None:
        self.path = path_of(url)
        self.name = f"State {self.path}"
        self._busy_seconds = busy_seconds
        self.engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(self.path)),
            # Never row content in a message, whatever goes wrong.
            hide_parameters=True,
            connect_args={"timeout": busy_seconds},
            # A thread that finds no connection in the pool gets one of its own.
            max_overflow=-1,
        )
        sa.event.listen(self.engine, "connect", _settings)
        sa.event.listen(self.engine, "begin", _begin)
        self.writer = self.engine.execution_options(**{WRITES: True})
        try:
            with self.errors(), _OPENING:
                _prepare(self.path)
                self._use_wal()
        except BaseException:
            self.engine.dispose()
            raise

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """See `Database.read`."""
        with self.errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """See `Database.write`: no other writer is let in meanwhile."""
        with self.errors(), self.writer.begin() as connection:
            yield connection

    def now(self, connection: sa.Connection) -> float:  # noqa: ARG002 - other databases ask it
        """See `Database.now`: all who share a file share this machine's clock."""
        return time.time()

    def guard(self, connection: sa.Connection) -> None:
        """See `Database.guard`: a writer is alone already."""

    def check(self, connection: sa.Connection) -> None:
        """See `Database.check`: done when the file was opened."""

    def patiently(self, transaction: Callable[[], _T]) -> _T:
        """See `Database.patiently`: a file's connections are not lost."""
        return transaction()

    def close(self) -> None:
        """See `Database.close`."""
        self.engine.dispose()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate what SQLite and the file system raise within."""
        try:
            yield
        except StateError:
            raise
        except sa.exc.DBAPIError as error:
            # The driver's own error: SQLAlchemy's carries statement and parameters.
            cause = error.orig
            raise self._explain(getattr(cause, "sqlite_errorname", "")) from cause
        except sqlite3.Error as error:
            raise self._explain(getattr(error, "sqlite_errorname", "")) from error
        except OSError as error:
            kind = StateError if error.errno == errno.ENOSPC else UnusableState
            raise kind(
                f"{self.name} can't be written: {error.strerror or type(error).__name__}. "
                "Give `state` a path in a folder that this user may write."
            ) from error

    def _explain(self, name: str) -> PipelineError:
        """What one of SQLite's result codes (https://sqlite.org/rescode.html) means for us."""
        if name.startswith("SQLITE_CONSTRAINT"):
            return PipelineError(
                f"{self.name}: a write contradicts what is kept ({name}). "
                "This is our own fault: please report it."
            )
        for prefixes, (kind, text) in _MEANINGS.items():
            if name.startswith(prefixes):
                return kind(f"{self.name} {text.format(seconds=self._busy_seconds)}")
        return UnusableState(
            f"{self.name} can't be used ({name or 'no reason given'}): check the file, or "
            "move it away; without it the next run starts from the beginning."
        )

    def _use_wal(self) -> None:
        """Let readers and the writer work at the same time; the mode stays with the file.

        Two processes that open a new file at once: SQLite refuses one of them without waiting.
        """
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                # Raw: it can't be done within a transaction.
                with closing(self.engine.raw_connection()) as connection:
                    connection.cursor().execute("PRAGMA journal_mode = WAL").close()
            except sqlite3.Error as error:
                name = getattr(error, "sqlite_errorname", "")
                if not name.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


# Prefixes of result codes, and what is said of the state: by whether waiting may help.
_MEANINGS: Mapping[tuple[str, ...], tuple[type[StateError], str]] = {
    ("SQLITE_BUSY", "SQLITE_LOCKED"): (
        StateError,
        (
            "was locked by another writer for longer than {seconds:g} s: find what holds it open "
            "(a backup, a database browser, a stuck retl), then run again."
        ),
    ),
    ("SQLITE_FULL",): (
        StateError,
        "can't grow: the disk is full. Free space, then run again.",
    ),
    ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH"): (
        UnusableState,
        "can't be written: this user must be allowed to write the file and its folder.",
    ),
    ("SQLITE_CORRUPT", "SQLITE_NOTADB"): (
        UnusableState,
        (
            "is damaged, or no SQLite file: restore it from a backup, or move it away; without it "
            "the next run starts from the beginning."
        ),
    ),
    ("SQLITE_IOERR",): (
        StateError,
        "can't be read or written: the disk reports a fault. Check it, then run again.",
    ),
}


def path_of(url: str) -> Path:
    """The file that a URL names, absolute. Raises ConfigError."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() != "sqlite":
        raise ConfigError(
            "state: only sqlite:///PATH and postgresql://... are known. "
            "Write sqlite:///.retl/state.db."
        )
    database = parsed.database
    if not database or database.startswith((":", "file:")) or parsed.query:
        raise ConfigError(
            "state: it has to be a plain file, without options. Write sqlite:///.retl/state.db."
        )
    return Path(database).absolute()


def _prepare(path: Path) -> None:
    """Make folder and file, and find out now what would fail in the middle of a run.

    An existing file is never opened here: closing it again would release the locks that SQLite
    holds on it elsewhere in this process (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.touch(mode=0o600, exist_ok=False)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise UnusableState(f"State {path} is not a file: let `state` name a file, not a folder.")
    if mode & 0o077:
        with suppress(PermissionError):  # not ours, so not ours to close
            path.chmod(0o600)
    if not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
        raise UnusableState(
            f"State {path} can't be written: this user must be allowed to write the file and "
            "its folder."
        )


def _settings(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Of every new connection. The driver must not begin transactions by itself."""
    try:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = FULL")  # a commit survives a loss of power
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()
    except BaseException:
        connection.close()
        raise


def _begin(connection: sa.Connection) -> None:
    """A writer takes the write lock first: waiting for it later could not be waited out."""
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

"""Postgres (13 or later) as the place of the state: for several pods, or where there is no volume.

All that is Postgres' own is in here. Writers of one sync exclude each other by the row of its
lease. Time is the server's. A lost connection is waited out for a while; what became of a commit
that it cut off is asked of the server, so nothing is done twice. Settings are made anew in each
transaction: poolers that share connections among clients (PgBouncer) may stand between.
"""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa

from pipeline.checkpoint.database import ConnectionLost, ReadOnly
from pipeline.checkpoint.migrations import has_tables
from pipeline.checkpoint.postgres_errors import explained
from pipeline.checkpoint.schema import METADATA
from pipeline.errors import ConfigError, StateError, UnusableState

_T = TypeVar("_T")

# A peer that is gone without a word is noticed in about 20 s: libpq, "Connection parameters".
_OPTIONS: Mapping[str, str] = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",
    "fallback_application_name": "retl",
}
# Any number that no other program in the same database uses: "retl", in ASCII.
_GUARD = 0x7265746C
# In seconds, for the most rows that one statement of ours reads or deletes.
_STATEMENT = 60.0
# Between two tries of a transaction, in seconds; the first comes at once.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

_SETTINGS = """
    set_config('lock_timeout', :lock, true),
    set_config('idle_in_transaction_session_timeout', :idle, true),
    set_config('statement_timeout', :statement, true)
"""
# Not by the driver's options: those would make the next user's transaction READ WRITE, whatever the
# server says.
_READ = sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_BEGIN_READ = sa.text(f"SELECT {_SETTINGS}")
_BEGIN_WRITE = sa.text(f"SELECT pg_current_xact_id()::text, {_SETTINGS}")
_OUTCOME = sa.text("SELECT pg_xact_status(CAST(:transaction AS xid8))")
_CLOCK = sa.text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)")
_LOCK = sa.text("SELECT pg_advisory_xact_lock(:key)")
_TAKES_WRITES = sa.text(
    "SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'"
)
# Our tables, and the sequences that number their rows, which this user may not fully use.
_FORBIDDEN = sa.text("""
    SELECT relname FROM pg_class
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND (
      relkind IN ('r', 'p') AND relname = ANY(:tables) AND NOT (
        has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
        AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
      OR relkind = 'S' AND relname = ANY(:sequences) AND NOT has_sequence_privilege(oid, 'USAGE'))
    ORDER BY relname
""")


class PostgresServer:
    """A database of a Postgres server.

    url: postgresql://user:password@host:port/database?options, as libpq takes it.
    busy_seconds: how long to wait for another writer, even one that stopped while it wrote.
    patience: how long, in seconds, a lost connection is waited out.
    Raises ConfigError for a URL that is none, or when the driver is not installed. Connects later.
    """

    def __init__(
        self,
        url: str,
        *,
        busy_seconds: float,
        patience: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        given = _parsed(url)
        self.name = _name(given)
        self._busy_seconds, self._patience = busy_seconds, patience
        self._sleep, self._clock = sleep, clock
        self._limits = {
            "lock": _milliseconds(busy_seconds),
            # Or a stopped process would keep its lease's row locked until it wakes.
            "idle": _milliseconds(busy_seconds),
            "statement": _milliseconds(_STATEMENT + busy_seconds),
        }
        self.engine = sa.create_engine(
            "postgresql+psycopg://",
            # Without statements prepared on the server, which poolers lose.
            connect_args={**_OPTIONS, **given, "prepare_threshold": None},
            # Never row content in a message, whatever goes wrong.
            hide_parameters=True,
            pool_pre_ping=True,
            # A thread that finds no connection in the pool gets one of its own.
            max_overflow=-1,
        )

    # ---------------------------------------------------------------------- transactions

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """See `Database.read`."""
        with self.errors(), self.engine.connect() as connection:
            connection.execute(_READ)
            connection.execute(_BEGIN_READ, self._limits)
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """See `Database.write`."""
        with self.errors(), self.engine.connect() as connection:
            transaction = connection.execute(_BEGIN_WRITE, self._limits).scalar_one()
            yield connection
            try:
                connection.commit()
            except sa.exc.DBAPIError:
                # Cut off in this moment it may be durable or not, and only the server knows.
                if not connection.invalidated or not self._was_committed(transaction):
                    raise

    def _was_committed(self, transaction: str) -> bool:
        for _ in self._pauses():
            try:
                with self.engine.connect() as connection:
                    status = connection.scalar(_OUTCOME, {"transaction": transaction})
            except sa.exc.DBAPIError:
                continue
            if status != "in progress":
                return bool(status == "committed")
        raise StateError(
            f"{self.name} closed the connection during a commit, and can't be asked whether it is "
            "durable. See whether the server is up, then run again: nothing is lost."
        )

    def patiently(self, transaction: Callable[[], _T]) -> _T:
        """See `Database.patiently`."""
        lost: StateError | None = None
        for _ in self._pauses():
            try:
                return transaction()
            except (ConnectionLost, ReadOnly) as error:
                lost = error
        raise lost or AssertionError

    def _pauses(self) -> Iterator[None]:
        """Once, and then again and again after growing pauses, until patience ends."""
        end, pause = self._clock() + self._patience, _FIRST_PAUSE
        yield
        while (left := end - self._clock()) > 0:
            # Jitter keeps the pods from coming back all at once.
            self._sleep(min(left, pause * random.uniform(0.5, 1.0)))  # noqa: S311 - no secret
            pause = min(2 * pause, _LONGEST_PAUSE)
            yield

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate what the driver raises within."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            # Not chained: the server's details quote rows.
            raise explained(
                self.name,
                getattr(error.orig, "sqlstate", None),
                str(error.orig),
                lost=error.connection_invalidated,
                seconds=self._busy_seconds,
            ) from None

    # ---------------------------------------------------------------------- the dialect's own

    def now(self, connection: sa.Connection) -> float:
        """See `Database.now`: pods whose clocks differ agree on it."""
        return float(connection.execute(_CLOCK).scalar_one())

    def guard(self, connection: sa.Connection) -> None:
        """See `Database.guard`."""
        connection.execute(_LOCK, {"key": _GUARD})

    def check(self, connection: sa.Connection) -> None:
        """See `Database.check`."""
        if not connection.scalar(_TAKES_WRITES):
            raise explained(self.name, "25006", "", lost=False, seconds=0)
        numbered = [
            f"{table.name}_{column.name}_seq"
            for table in METADATA.sorted_tables
            if (column := table.autoincrement_column) is not None
        ]
        asked = {"tables": list(METADATA.tables), "sequences": numbered}
        forbidden = connection.scalars(_FORBIDDEN, asked).all()
        if forbidden:
            raise UnusableState(
                f"{self.name} does not let this user use {', '.join(forbidden)}: GRANT SELECT, "
                "INSERT, UPDATE, DELETE on the tables, and USAGE on the sequences."
            )

    def is_made(self) -> bool:
        """Whether there are tables of ours."""
        with self.read() as connection:
            return has_tables(connection)

    def close(self) -> None:
        """See `Database.close`."""
        self.engine.dispose()


def _parsed(url: str) -> dict[str, Any]:
    """The URL's parts by libpq's names."""
    try:
        driver = importlib.import_module("psycopg")
    except ImportError:
        raise ConfigError(
            "state: Postgres needs a driver that is not installed. "
            "pip install 'bigquery-reverse-etl[postgres]'."
        ) from None
    try:
        given: dict[str, Any] = driver.conninfo.conninfo_to_dict(url)
    except driver.Error:
        # Not chained: it quotes parts of the URL.
        raise ConfigError(
            "state: this is no URL that libpq takes. Write postgresql://USER:PASSWORD@HOST/DATABASE,"
            " with %XX for special characters in the password."
        ) from None
    return given


def _name(given: Mapping[str, Any]) -> str:
    """The URL without password and options."""
    user = f"{given['user']}@" if given.get("user") else ""
    hosts = str(given.get("host") or "")
    # A directory of sockets would read as part of the path.
    host = "" if hosts.startswith("/") else hosts
    port = f":{given['port']}" if given.get("port") and host and "," not in host else ""
    return f"State postgresql://{user}{host}{port}/{given.get('dbname') or ''}"


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1_000)))

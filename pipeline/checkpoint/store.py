"""The Store over SQL: windows, runs, Checkpoints, dead letters, durable when a method returns.

Every method is one transaction. What a run writes goes through its lease first (leases.py), so
one that lost it changes nothing. Statements are SQLAlchemy Core that SQLite and Postgres both
take; sqlite.py holds what is SQLite's own. It does not know what rows, queries or answers are.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import sqlalchemy as sa

from pipeline.checkpoint import dead_letters, leases, runs
from pipeline.checkpoint.dead_letters import ReasonCount
from pipeline.checkpoint.schema import is_current, migrate
from pipeline.checkpoint.sqlite import SqliteFile
from pipeline.errors import PipelineError
from pipeline.model import Counts, DeadLetter, Reading, Result, Window
from pipeline.ports import DeadLetterRecord, OpenRun, RunRecord


class SqlStore:
    """`pipeline.ports.Store` over SQL. Safe to use from several threads.

    url: sqlite:///PATH; the folder and the file are made.
    holder: names this process as a holder of leases, "host:pid:nonce".
    now: Unix seconds. token: a few random characters for run ids.
    lease_seconds: how long a lease lasts after the last write of its run.
    busy_seconds: how long to wait for another writer.

    Raises ConfigError for a URL of another kind, StateError when the state can't be written.
    """

    def __init__(
        self,
        url: str,
        *,
        holder: str,
        now: Callable[[], float] = time.time,
        lease_seconds: float = 60,
        busy_seconds: float = 10,
        token: Callable[[], str] = lambda: secrets.token_hex(2),
    ) -> None:
        self._holder = holder
        self._now = now
        self._lease_seconds = lease_seconds
        self._token = token
        self._closed = False
        self._database = SqliteFile(url, busy_seconds=busy_seconds)
        leases.register(holder)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Bring the tables up to date; when they are, readers need no write lock for it."""
        where = self._database.name
        with self._read() as connection:
            if is_current(connection, where):
                return
        with self._write() as connection:
            migrate(connection, where)

    # ---------------------------------------------------------------------- a run

    def begin(self, sync: str, fingerprint: str, *, full: bool = False) -> OpenRun:
        """See `Store.begin`. A full window is one that starts at 0, whatever it was begun as."""
        now = self._now()
        with self._write() as connection:
            epoch = leases.take(
                connection, sync, holder=self._holder, now=now, seconds=self._lease_seconds
            )
            last = runs.unfinished(connection, sync)
            window = runs.next_window(connection, sync, last)
            if full:
                window = Window(start=0, sequence=window.sequence)
            if last is not None:
                if last.fingerprint != fingerprint:
                    why = "given up: what the sync does was changed"
                elif last.window_start != window.start:
                    why = "given up: a full run was asked for"
                else:
                    return runs.reopen(connection, last, epoch)
                runs.fail(connection, last.id, now, why)
            return runs.new(
                connection, sync, window, fingerprint, epoch=epoch, now=now, token=self._token
            )

    def attach(self, run: OpenRun, reading: Reading) -> None:
        """See `Store.attach`."""
        with self._write_of(run) as (connection, _now):
            runs.set_reading(connection, run.id, reading)

    def restart(
        self, run: OpenRun, reason: str, *, same_query: bool = False, done: Collection[str] = ()
    ) -> OpenRun:
        """See `Store.restart`. LeaseError when the lease was lost."""
        with self._write_of(run) as (connection, now):
            runs.fail(connection, run.id, now, reason)
            following = runs.new(
                connection,
                run.sync,
                run.window,
                run.fingerprint,
                epoch=runs.epoch(run),
                now=now,
                token=self._token,
            )
            return runs.carry(connection, run, following, done) if same_query else following

    def add_dead_letters(
        self, run: OpenRun, destination: str, letters: Sequence[DeadLetter]
    ) -> None:
        """See `Store.add_dead_letters`. LeaseError when the lease was lost."""
        if not letters:
            return
        with self._write_of(run) as (connection, now):
            dead_letters.add(connection, run.id, destination, letters, now)

    def commit(
        self,
        run: OpenRun,
        checkpoints: Mapping[tuple[str, int], int],
        counts: Mapping[str, Counts],
    ) -> None:
        """See `Store.commit`.

        Streams and destinations that are left out stay as they are; with both empty it only
        renews the lease.
        """
        with self._write_of(run) as (connection, _now):
            runs.set_checkpoints(connection, run.id, checkpoints)
            runs.set_counts(connection, run.id, counts)

    def finish(
        self, run: OpenRun, result: Result, counts: Mapping[str, Counts], error: str = ""
    ) -> None:
        """See `Store.finish`. Destinations left out of `counts` stay as committed."""
        with self._write_of(run) as (connection, now):
            runs.set_counts(connection, run.id, counts)
            if result is Result.COMPLETE:
                runs.advance_window(connection, run)
            runs.end(connection, run.id, now, result, error)
            leases.release(connection, run.sync)

    # ---------------------------------------------------------------------- between runs

    def window(self, sync: str) -> Window:
        """See `Store.window`: an unfinished run's window, or the one after the last complete."""
        with self._read() as connection:
            return runs.next_window(connection, sync, runs.unfinished(connection, sync))

    def set_window(self, sync: str, start: int) -> None:
        """See `Store.set_window`. start: Unix seconds; 0 for everything."""
        now = self._now()
        with self._write() as connection:
            # Taken and given back: a holder that went silent is fenced off for good.
            leases.take(connection, sync, holder=self._holder, now=now, seconds=0)
            leases.release(connection, sync)
            last = runs.unfinished(connection, sync)
            if last is not None:
                runs.fail(connection, last.id, now, "given up: last_sync_time was set by hand")
            runs.set_last_sync_time(connection, sync, start)

    def runs(self, sync: str | None = None, limit: int = 20) -> Sequence[RunRecord]:
        """See `Store.runs`."""
        with self._read() as connection:
            return runs.newest(connection, sync, limit)

    def dead_letters(
        self, sync: str | None = None, run: str | None = None, limit: int = 50
    ) -> Sequence[DeadLetterRecord]:
        """See `Store.dead_letters`."""
        with self._read() as connection:
            return dead_letters.newest(connection, sync=sync, run=run, limit=limit)

    def dead_letter(self, number: int) -> DeadLetterRecord | None:
        """See `Store.dead_letter`."""
        with self._read() as connection:
            return dead_letters.one(connection, number)

    def dead_letter_summary(
        self, run: str | None = None, sync: str | None = None
    ) -> list[ReasonCount]:
        """(sync, destination, reason, letters) of one run or sync or of all, in this order."""
        with self._read() as connection:
            return dead_letters.summary(connection, run=run, sync=sync)

    def close(self) -> None:
        """See `Store.close`. Leases that are still held may be taken at once."""
        self._closed = True
        leases.unregister(self._holder)
        self._database.engine.dispose()

    # ---------------------------------------------------------------------- transactions

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        if self._closed:
            raise PipelineError("The state was closed already: this is our own fault.")
        with self._database.errors(), engine.begin() as connection:
            yield connection

    def _read(self) -> AbstractContextManager[sa.Connection]:
        return self._transaction(self._database.engine)

    def _write(self) -> AbstractContextManager[sa.Connection]:
        return self._transaction(self._database.writer)

    @contextmanager
    def _write_of(self, run: OpenRun) -> Iterator[tuple[sa.Connection, float]]:
        """A transaction that writes for `run`, under its lease, which is renewed."""
        now = self._now()
        with self._write() as connection:
            leases.keep(
                connection,
                run.sync,
                runs.epoch(run),
                holder=self._holder,
                now=now,
                seconds=self._lease_seconds,
            )
            runs.refuse_if_ended(connection, run)
            yield connection, now

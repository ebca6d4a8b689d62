"""The Store over SQL: windows, runs, Checkpoints, dead letters, durable when a method returns.

Every method is one transaction. What a run writes goes through its lease first (leases.py), so
one that lost it changes nothing. Statements are SQLAlchemy Core that SQLite and Postgres both
take; sqlite.py and postgres.py hold what is their own. It does not know what rows, queries or
answers are.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import sqlalchemy as sa

from pipeline.checkpoint import dead_letters, history, leases, runs, transfer
from pipeline.checkpoint.database import patiently
from pipeline.checkpoint.keeping import Keeper
from pipeline.checkpoint.letter_store import SqlLetters
from pipeline.checkpoint.places import database_at
from pipeline.checkpoint.schema import is_current, migrate
from pipeline.errors import PipelineError
from pipeline.model import Counts, DeadLetter, Reading, Result, Window
from pipeline.ports import Imported, OpenRun, Pruned, RunDetail, RunRecord, SyncState


class SqlStore(SqlLetters):
    """`pipeline.ports.Store` over SQL. Safe to use from several threads.

    url: sqlite:///PATH, whose folder and file are made, or postgresql://..., as libpq takes it.
    holder: names this process as a holder of leases, "host:pid:nonce".
    now: Unix seconds; None: the database's own clock, which all who share the state go by.
    token: a few random characters for run ids.
    lease_seconds: how long a lease lasts after the last write of its run, and how long a run
    waits for a lost connection to come back.
    busy_seconds: how long to wait for another writer.
    keeper: what is kept of dead letters.

    Raises ConfigError for a URL of another kind, CredentialsError when the server refuses the
    user, StateError when the state can't be written.
    """

    def __init__(
        self,
        url: str,
        *,
        holder: str,
        now: Callable[[], float] | None = None,
        lease_seconds: float = 60,
        busy_seconds: float = 10,
        token: Callable[[], str] = lambda: secrets.token_hex(2),
        keeper: Keeper | None = None,
    ) -> None:
        self._holder = holder
        self._now = now
        self._lease_seconds = lease_seconds
        self._token = token
        self._keeper = keeper or Keeper()
        self._closed = False
        self._database = database_at(url, busy_seconds=busy_seconds, patience=lease_seconds)
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
                self._database.check(connection)
                return
        with self._write() as connection:
            self._database.guard(connection)
            migrate(connection, where)

    # ---------------------------------------------------------------------- a run

    @patiently
    def begin(self, sync: str, fingerprint: str, *, full: bool = False) -> OpenRun:
        """See `Store.begin`. A full window is one that starts at 0, whatever it was begun as."""
        with self._write() as connection:
            now = self._time(connection)
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

    @patiently
    def attach(self, run: OpenRun, reading: Reading) -> None:
        """See `Store.attach`."""
        with self._write_of(run) as (connection, _now):
            runs.set_reading(connection, run.id, reading)

    @patiently
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

    @patiently
    def add_dead_letters(
        self, run: OpenRun, destination: str, letters: Sequence[DeadLetter]
    ) -> None:
        """See `Store.add_dead_letters`. LeaseError when the lease was lost."""
        if not letters:
            return
        with self._write_of(run) as (connection, now):
            dead_letters.add(connection, run.id, destination, letters, at=now, keeper=self._keeper)

    @patiently
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

    @patiently
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

    @patiently
    def set_window(self, sync: str, start: int) -> None:
        """See `Store.set_window`. start: Unix seconds; 0 for everything."""
        with self._write() as connection:
            now = self._time(connection)
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

    def run(self, run: str) -> RunDetail | None:
        """See `Store.run`."""
        with self._read() as connection:
            return history.detail(connection, run)

    def last_full_run(self, sync: str) -> RunRecord | None:
        """See `Store.last_full_run`."""
        with self._read() as connection:
            return history.last_full_run(connection, sync)

    def syncs(self) -> Sequence[SyncState]:
        """See `Store.syncs`."""
        with self._read() as connection:
            now = self._time(connection)
            return history.syncs(connection, holder=self._holder, now=now)

    @patiently
    def keep_report(self, run: str, report: Mapping[str, object]) -> None:
        """See `Store.keep_report`."""
        with self._write() as connection:
            history.keep_report(connection, run, report)

    @patiently
    def prune(self, *, runs: float, dead_letters: float) -> Pruned:
        """See `Store.prune`."""
        with self._write() as connection:
            now = self._time(connection)
            return history.prune(
                connection, runs_before=now - runs, letters_before=now - dead_letters
            )

    def export_state(self, *, history: bool = False) -> dict[str, object]:
        """See `Store.export_state`."""
        with self._read() as connection:
            now = self._time(connection)
            return transfer.export(connection, history=history, now=now)

    def import_state(self, document: Mapping[str, object], *, force: bool = False) -> Imported:
        """See `Store.import_state`."""
        checked = transfer.parse(document)
        with self._write() as connection:
            now = self._time(connection)
            return transfer.bring_in(connection, checked, holder=self._holder, now=now, force=force)

    def close(self) -> None:
        """See `Store.close`. Leases that are still held may be taken at once."""
        self._closed = True
        leases.unregister(self._holder)
        self._database.close()

    # ---------------------------------------------------------------------- transactions

    @contextmanager
    def _unless_closed(
        self, transaction: Callable[[], AbstractContextManager[sa.Connection]]
    ) -> Iterator[sa.Connection]:
        if self._closed:
            raise PipelineError("The state was closed already: this is our own fault.")
        with transaction() as connection:
            yield connection

    def _read(self) -> AbstractContextManager[sa.Connection]:
        return self._unless_closed(self._database.read)

    def _write(self) -> AbstractContextManager[sa.Connection]:
        return self._unless_closed(self._database.write)

    def _time(self, connection: sa.Connection) -> float:
        return self._database.now(connection) if self._now is None else self._now()

    @contextmanager
    def _write_of(self, run: OpenRun) -> Iterator[tuple[sa.Connection, float]]:
        """A transaction that writes for `run`, under its lease, which is renewed."""
        with self._write() as connection:
            now = self._time(connection)
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

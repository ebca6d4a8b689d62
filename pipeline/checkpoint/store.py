"""The Store over SQL: runs and their Checkpoints, durable when a method returns.

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

from pipeline.checkpoint import (
    dead_letters,
    leases,
    runs,
    shard_joining,
    shard_leases,
    shard_views,
    shards,
)
from pipeline.checkpoint.database import patiently
from pipeline.checkpoint.history_store import SqlHistory
from pipeline.checkpoint.keeping import Keeper
from pipeline.checkpoint.letter_store import SqlLetters
from pipeline.checkpoint.migrations import is_current, migrate
from pipeline.checkpoint.places import database_at
from pipeline.checkpoint.shard_leases import Member
from pipeline.errors import PipelineError
from pipeline.model import Counts, DeadLetter, Reading, Result
from pipeline.ports import ALONE, WHOLE, OpenRun, Shard, Standing

# How long a shard is kept for a process that is not heard of. Short, since the Job has another one
# waiting for it; none is harmed by being too short, which only lets rows be sent twice.
_SHARD_SECONDS = 15.0


class SqlStore(SqlLetters, SqlHistory):
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
        self._shard_seconds = min(lease_seconds, _SHARD_SECONDS)
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
    def begin(
        self, sync: str, fingerprint: str, *, full: bool = False, shard: Shard = WHOLE
    ) -> OpenRun:
        """See `Store.begin`. A full window is one that starts at 0, whatever it was begun as."""
        with self._write() as connection:
            now = self._time(connection)
            if shard.of > 1:
                me, token = self._member(now), self._token
                return shard_joining.join(
                    connection, sync, fingerprint, shard, me, full=full, token=token
                )
            epoch = leases.take(
                connection, sync, holder=self._holder, now=now, seconds=self._lease_seconds
            )
            window, last = shards.what_is_left(connection, sync, fingerprint, full=full, now=now)
            if last is not None:
                return runs.reopen(connection, last, epoch)
            return runs.new(
                connection, sync, window, fingerprint, epoch=epoch, now=now, token=self._token
            )

    @patiently
    def attach(self, run: OpenRun, reading: Reading) -> None:
        """See `Store.attach`."""
        with self._write_of(run, together=True) as (connection, _now):
            mine = runs.leased(run)
            if mine.shard is None:
                runs.set_reading(connection, run.id, reading)
            else:
                shards.attach(connection, mine, reading)

    @patiently
    def follow(self, run: OpenRun) -> OpenRun:
        """See `Store.follow`. LeaseError when the shard was lost."""
        mine = runs.leased(run)
        if mine.shard is None:
            return run
        with self._write() as connection:
            leases.lock(connection, run.sync)
            return shards.follow(connection, mine, self._member(self._time(connection)))

    @patiently
    def restart(
        self, run: OpenRun, reason: str, *, same_query: bool = False, done: Collection[str] = ()
    ) -> OpenRun:
        """See `Store.restart`. LeaseError when the lease was lost."""
        mine = runs.leased(run)
        with self._write_of(run, together=True) as (connection, now):
            if mine.shard is not None:
                me, token = self._member(now), self._token
                return shards.restart(
                    connection, mine, reason, me, same_query=same_query, token=token
                )
            runs.fail(connection, run.id, now, reason)
            following = runs.new(
                connection,
                run.sync,
                run.window,
                run.fingerprint,
                epoch=mine.epoch,
                now=now,
                token=self._token,
            )
            shards.lead_on(connection, run.id, following.id)
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
    ) -> Standing:
        """See `Store.commit`.

        Streams and destinations that are left out stay as they are; with both empty it only
        renews the lease.
        """
        with self._write_of(run) as (connection, _now):
            runs.set_checkpoints(connection, run.id, checkpoints)
            mine = runs.leased(run)
            if mine.shard is None:
                runs.set_counts(connection, run.id, counts)
                return ALONE
            shards.set_counts(connection, mine, counts)
            return shard_views.standing(connection, run.id, mine.shard)

    @patiently
    def finish(
        self, run: OpenRun, result: Result, counts: Mapping[str, Counts], error: str = ""
    ) -> OpenRun | None:
        """See `Store.finish`. Destinations left out of `counts` stay as committed."""
        mine = runs.leased(run)
        with self._write_of(run, together=True) as (connection, now):
            if mine.shard is not None:
                me = self._member(now)
                return shards.finish(connection, mine, result, counts, me, error=error)
            runs.set_counts(connection, run.id, counts)
            if result is Result.COMPLETE:
                runs.advance_window(connection, run)
            runs.end(connection, run.id, now, result, error)
            leases.release(connection, run.sync)
            return None

    # ---------------------------------------------------------------------- transactions

    def close(self) -> None:
        """See `Store.close`. Leases that are still held may be taken at once."""
        self._closed = True
        leases.unregister(self._holder)
        self._database.close()

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

    def _member(self, now: float) -> Member:
        return Member(holder=self._holder, now=now, seconds=self._shard_seconds)

    @contextmanager
    def _write_of(
        self, run: OpenRun, *, together: bool = False
    ) -> Iterator[tuple[sa.Connection, float]]:
        """A transaction that writes for `run`, under its lease, which is renewed.

        together: it concerns all processes that share the run, which are kept out meanwhile.
        """
        with self._write() as connection:
            now, mine = self._time(connection), runs.leased(run)
            if mine.shard is None:
                seconds = self._lease_seconds
                leases.keep(
                    connection, run.sync, mine.epoch, holder=self._holder, now=now, seconds=seconds
                )
            else:
                if together:
                    leases.lock(connection, run.sync)
                me = self._member(now)
                shard_leases.keep(connection, run.id, mine.shard, mine.epoch, me)
            runs.refuse_if_ended(connection, run)
            yield connection, now

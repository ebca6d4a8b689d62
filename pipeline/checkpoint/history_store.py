"""What is asked and set between runs: windows, the history, retention, moving to another state.

The half of the Store that runs don't need, over the transactions of a subclass; each method is one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import sqlalchemy as sa

from pipeline.checkpoint import history, leases, runs, shards, transfer
from pipeline.checkpoint.database import Database, patiently
from pipeline.model import Window
from pipeline.ports import Imported, Pruned, RunDetail, RunRecord, SyncState


class SqlHistory:
    """The part of `pipeline.ports.Store` that is neither a run's nor about dead letters."""

    _holder: str
    _database: Database
    _lease_seconds: float

    @abstractmethod
    def _read(self) -> AbstractContextManager[sa.Connection]: ...

    @abstractmethod
    def _write(self) -> AbstractContextManager[sa.Connection]: ...

    @abstractmethod
    def _time(self, connection: sa.Connection) -> float: ...

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
                shards.give_up(connection, last, now, "given up: last_sync_time was set by hand")
            runs.set_last_sync_time(connection, sync, start)

    def runs(self, sync: str | None = None, limit: int = 20) -> Sequence[RunRecord]:
        """See `Store.runs`."""
        with self._read() as connection:
            return history.newest(connection, sync, limit)

    def run(self, run: str) -> RunDetail | None:
        """See `Store.run`."""
        with self._read() as connection:
            return history.detail(connection, run, self._time(connection))

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

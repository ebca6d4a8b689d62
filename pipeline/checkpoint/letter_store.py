"""What is done with dead letters between runs: the half of the Store that only they need.

Every method is one transaction, but for `clear_dead_letters`. A replay holds the lease of its
sync, as a run does, so that what both send never meets.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager

import sqlalchemy as sa

from pipeline.checkpoint import dead_letters, leases
from pipeline.checkpoint.database import Database, patiently
from pipeline.checkpoint.keeping import Keeper
from pipeline.model import DeadLetter
from pipeline.ports import (
    EVERY_LETTER,
    DeadLetterRecord,
    LetterFilter,
    OpenReplay,
    ReasonCount,
    ReplayCount,
)

# Deleted in one transaction: other writers wait meanwhile.
_AT_ONCE = 1_000


class SqlLetters:
    """`pipeline.ports.LetterStore` over the transactions of a subclass."""

    _holder: str
    _keeper: Keeper
    _database: Database
    _lease_seconds: float

    @abstractmethod
    def _read(self) -> AbstractContextManager[sa.Connection]: ...

    @abstractmethod
    def _write(self) -> AbstractContextManager[sa.Connection]: ...

    @abstractmethod
    def _time(self, connection: sa.Connection) -> float: ...

    def dead_letters(
        self, which: LetterFilter = EVERY_LETTER, limit: int = 50
    ) -> list[DeadLetterRecord]:
        """See `LetterStore.dead_letters`."""
        with self._read() as connection:
            return dead_letters.newest(connection, which, limit, self._keeper)

    def dead_letter(self, number: int) -> DeadLetterRecord | None:
        """See `LetterStore.dead_letter`."""
        with self._read() as connection:
            return dead_letters.one(connection, number, self._keeper)

    def dead_letter_summary(self, which: LetterFilter = EVERY_LETTER) -> list[ReasonCount]:
        """See `LetterStore.dead_letter_summary`."""
        with self._read() as connection:
            return dead_letters.summary(connection, which)

    def dead_letter_page(
        self, which: LetterFilter, *, after: int, rows: int = 1_000, replayable: bool = False
    ) -> list[DeadLetterRecord]:
        """See `LetterStore.dead_letter_page`."""
        with self._read() as connection:
            return dead_letters.page(
                connection,
                which,
                after=after,
                rows=rows,
                replayable=replayable,
                keeper=self._keeper,
            )

    def clear_dead_letters(self, which: LetterFilter = EVERY_LETTER) -> int:
        """See `LetterStore.clear_dead_letters`."""
        cleared, some = 0, _AT_ONCE
        while some == _AT_ONCE:
            with self._write() as connection:
                some = dead_letters.clear(connection, which, _AT_ONCE)
            cleared += some
        return cleared

    def replay_counts(self, which: LetterFilter = EVERY_LETTER) -> list[ReplayCount]:
        """See `LetterStore.replay_counts`."""
        with self._read() as connection:
            return dead_letters.replay_counts(connection, which, self._keeper)

    @patiently
    def begin_replay(self, sync: str) -> OpenReplay:
        """See `LetterStore.begin_replay`."""
        with self._write() as connection:
            epoch = leases.take(
                connection,
                sync,
                holder=self._holder,
                now=self._time(connection),
                seconds=self._lease_seconds,
            )
        return OpenReplay(sync=sync, epoch=epoch)

    @patiently
    def settle_replay(
        self,
        replay: OpenReplay,
        delivered: Collection[int],
        rejected: Mapping[int, DeadLetter],
    ) -> None:
        """See `LetterStore.settle_replay`."""
        with self._write() as connection:
            self._keep_lease(connection, replay)
            dead_letters.forget(connection, delivered)
            dead_letters.reject_again(connection, rejected)

    @patiently
    def end_replay(self, replay: OpenReplay) -> None:
        """See `LetterStore.end_replay`. LeaseError when it was lost."""
        with self._write() as connection:
            self._keep_lease(connection, replay)
            leases.release(connection, replay.sync)

    def _keep_lease(self, connection: sa.Connection, replay: OpenReplay) -> None:
        leases.keep(
            connection,
            replay.sync,
            replay.epoch,
            holder=self._holder,
            now=self._time(connection),
            seconds=self._lease_seconds,
        )

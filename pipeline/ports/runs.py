"""What a run needs of a store: to be opened, gone on with, committed and finished."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.model import Counts, DeadLetter, Reading, Result, Span, Window
from pipeline.ports.shards import ALL, ALONE, WHOLE, Shard, Share, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A Run as the store knows it, new or to be gone on with.

    reading: None until the source has started.
    checkpoints: (destination, stream) -> rows settled from the stream's start.
    counts: per destination, as committed so far. Both of this process's streams only.
    attempt: 1 for a window's first run; a run that can't go on is followed by the next.
    query_key: the id of the earlier run whose query's result this one reads; None: its own.
    done: destinations that have settled every row of that result in earlier runs.
    streams: which of the reading's streams are this process's.
    starts: whether this process starts the source; if not, another one does.
    over: there is nothing left to do here: the run is complete, or this shard of it.
    """

    id: str
    sync: str
    window: Window
    fingerprint: str
    attempt: int
    reading: Reading | None
    checkpoints: Mapping[tuple[str, int], int]
    counts: Mapping[str, Counts]
    resumed: bool
    query_key: str | None = None
    done: frozenset[str] = frozenset()
    streams: Share = ALL
    standing: Standing = ALONE
    starts: bool = True
    over: bool = False

    @property
    def job_key(self) -> str:
        """What the query's job is named by."""
        return self.query_key or self.id


class Settlements(Protocol):
    """What the run needs of a Ledger: one destination's settled rows, per stream."""

    def settle(self, span: Span, dead: int = 0) -> None:
        """Count a span as settled, `dead` of its rows as dead letters; in any order, rows once."""

    def checkpoints(self) -> dict[int, int]:
        """Stream -> rows settled without a gap from its start."""

    def dead(self) -> int:
        """Dead letters below the checkpoints, but for those of the processes before."""


class RunStore(Protocol):
    """What the run needs of a Store. Blocking: call it in a thread.

    Every method is one transaction. Raises StateError; LeaseError from begin when another live
    process runs the sync, and from commit, attach and finish when the lease was lost meanwhile.
    Where several processes share a run, ShardHeld from begin while another has the same shard,
    and RunMoved from whatever writes when `follow` tells how the run goes on.
    """

    def begin(
        self, sync: str, fingerprint: str, *, full: bool = False, shard: Shard = WHOLE
    ) -> OpenRun:
        """Take the sync's lease, or the shard's, and open the sync's run.

        Goes on with an unfinished run of the same fingerprint (and, if full, of a full window);
        ends one with another fingerprint as failed and opens a new one on the same window.
        Dead letters beyond the Checkpoints of the run gone on with are forgotten: their rows are
        read again.
        full: the window starts at 0 instead of at last_sync_time.
        shard: the first shard of a job opens the run, the others join it.
        """

    def follow(self, run: OpenRun) -> OpenRun:
        """A shared run as it is now: read by then, or to be started here, or its next attempt."""

    def attach(self, run: OpenRun, reading: Reading) -> None:
        """Keep what the source started, before the first row is read."""

    def restart(
        self, run: OpenRun, reason: str, *, same_query: bool = False, done: Collection[str] = ()
    ) -> OpenRun:
        """End `run` as failed and open the next attempt on its window, under the same lease.

        same_query: it reads the result of the same query, and the destinations `done`, which
        have all of it, keep their counts and get nothing more.
        Of a shared run, its unfinished shards are those of the next attempt, whose streams they
        have among them; and the store knows by itself which destinations are done.
        """

    def add_dead_letters(
        self, run: OpenRun, destination: str, letters: Sequence[DeadLetter]
    ) -> None:
        """Durable on return. The same (run, destination, stream, row) again is ignored."""

    def commit(
        self,
        run: OpenRun,
        checkpoints: Mapping[tuple[str, int], int],
        counts: Mapping[str, Counts],
    ) -> Standing:
        """Make Checkpoints and counts (totals of the shard) durable and renew the lease."""

    def finish(
        self, run: OpenRun, result: Result, counts: Mapping[str, Counts], error: str = ""
    ) -> OpenRun | None:
        """Release the lease. COMPLETE moves last_sync_time to the reading's query_started.

        INTERRUPTED and FAILED leave the run open for the next begin, with its result noted.
        Of a shared run, COMPLETE says that this shard is, and the last of them closes the run. If
        rows are missing then, it gets the run back as its own alone, to look at every stream once
        more. A shard that ends without closing the run gets it back as over.
        None: the run has ended.
        """

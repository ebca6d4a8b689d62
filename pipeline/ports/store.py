"""A whole store: what a run and dead letters need of it, and the history beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.model import Counts, Reading, Result, Window
from pipeline.ports.letters import LetterStore
from pipeline.ports.runs import RunStore
from pipeline.ports.shards import ShardState


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A Run of the history. Times are Unix seconds. counts: over all its processes.

    restarts: how often these reported that they began to read anew.

    job, shards: whose processes share it, or did, and in how many parts; None, 1: a process alone.
    """

    id: str
    sync: str
    window: Window
    started: float
    finished: float | None
    result: Result | None
    error: str
    query_started: int | None
    rows: int | None
    bytes_billed: int
    counts: Mapping[str, Counts]
    restarts: int = 0
    job: str | None = None
    shards: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetail:
    """All that is kept of one Run, but for its dead letters themselves.

    unfinished: the next begin may go on with it. query_key: see OpenRun.
    settled: destination -> rows below its Checkpoints, over all streams.
    attempts: the runs on the same window in their order, this one among them.
    dead_letters: (destination, reason) -> how many are kept.
    reports: what each process that worked on it reported, JSON-ready, in their order.
    shards: of a shared run that has not ended.
    """

    record: RunRecord
    attempt: int
    unfinished: bool
    query_key: str | None
    reading: Reading | None
    settled: Mapping[str, int]
    attempts: tuple[RunRecord, ...]
    dead_letters: Mapping[tuple[str, str], int]
    reports: tuple[Mapping[str, object], ...]
    shards: tuple[ShardState, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncState:
    """A sync between and during runs. window: the next run's, or that of the unfinished one.

    unfinished: the id of the run that the next one goes on with.
    holder: "host:process" of a live lease; None when no run is under way, as far as is known.
    shards: of an unfinished run that is shared.
    """

    name: str
    window: Window
    unfinished: str | None = None
    holder: str | None = None
    shards: tuple[ShardState, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How much of the history was deleted."""

    runs: int = 0
    dead_letters: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(
            runs=self.runs + other.runs, dead_letters=self.dead_letters + other.dead_letters
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import brought. kept: syncs whose history was left as it was."""

    syncs: tuple[str, ...]
    runs: int
    kept: tuple[str, ...]


class Store(RunStore, LetterStore, Protocol):
    """Windows, runs, Checkpoints and dead letters, durably."""

    def window(self, sync: str) -> Window:
        """The window the next run would get."""

    def set_window(self, sync: str, start: int) -> None:
        """Set last_sync_time; abandons an unfinished run. Raises LeaseError while one is live."""

    def runs(self, sync: str | None = None, limit: int = 20) -> Sequence[RunRecord]:
        """Newest first."""

    def run(self, run: str) -> RunDetail | None:
        """One by its id; None when there is none."""

    def last_full_run(self, sync: str) -> RunRecord | None:
        """The newest complete run whose window started at 0."""

    def syncs(self) -> Sequence[SyncState]:
        """Every sync that ever ran or was set, by name."""

    def keep_report(self, run: str, report: Mapping[str, object]) -> None:
        """Add what a process reports of a run, JSON-ready. Needs no lease."""

    def prune(self, *, runs: float, dead_letters: float) -> Pruned:
        """Delete some of the history, in one short transaction; Pruned() when nothing is left to.

        runs, dead_letters: seconds that each is kept. Beside them the last 100 runs of each sync,
        its last complete one, unfinished ones and those with dead letters are kept.
        """

    def export_state(self, *, history: bool = False) -> dict[str, object]:
        """Windows, and the runs if asked for, JSON-ready; never a payload."""

    def import_state(self, document: Mapping[str, object], *, force: bool = False) -> Imported:
        """Set the windows, and add the runs, of what `export_state` returned, or nothing of it.

        Raises ConfigError when it is no such document; LeaseError while a run of one of its syncs
        is live; UnusableState, unless force, where a sync here is further or has an unfinished run.
        """

    def close(self) -> None:
        """Release connections; idempotent."""

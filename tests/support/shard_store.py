"""Processes of a Job that share a run, by what each tells the store."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from stores import READING, Stores

from pipeline.model import Counts, Reading, Result
from pipeline.ports import OpenRun, Shard

# Nine rows in three streams.
ROWS = (4, 3, 2)
THREE = replace(READING, streams=("a", "b", "c"), rows=sum(ROWS))
SHARD_LEASE = 15.0


class Process:
    """One process of a Job, by what it tells the store."""

    def __init__(
        self, stores: Stores, index: int, of: int = 3, job: str = "job", number: int = 0
    ) -> None:
        self.store = stores.open(f"pod-{index}:1:{job}{number}")
        self.shard = Shard(index=index, of=of, job=job)
        self.run: OpenRun

    def join(self, fingerprint: str = "f", *, full: bool = False) -> OpenRun:
        self.run = self.store.begin("users", fingerprint, full=full, shard=self.shard)
        return self.run

    def attach(self, reading: Reading = THREE) -> Process:
        self.store.attach(self.run, reading)
        return self

    def follow(self) -> OpenRun:
        self.run = self.store.follow(self.run)
        return self.run

    def commit(self, *, dead: int = 0, rows: dict[int, int] | None = None, to: str = "cio") -> None:
        """All rows of its streams, or so many of some; of them so many dead."""
        mine = filter(self.run.streams.has, range(len(ROWS)))
        settled = {stream: ROWS[stream] for stream in mine} if rows is None else rows
        counts = Counts(read=sum(settled.values()), dead_lettered=dead, requests=1)
        counts = replace(counts, delivered=counts.read - dead)
        checkpoints = {(to, stream): count for stream, count in settled.items()}
        self.standing = self.store.commit(self.run, checkpoints, {to: counts})
        self.counts = {to: counts}

    def finish(self, result: Result = Result.COMPLETE, error: str = "") -> OpenRun | None:
        return self.store.finish(self.run, result, getattr(self, "counts", {}), error)


@pytest.fixture
def join(stores: Stores) -> Callable[..., Process]:
    """`join(index, ...)`: a new process, with its shard."""
    numbers = itertools.count()

    def join(index: int, of: int = 3, job: str = "job", fingerprint: str = "f") -> Process:
        process = Process(stores, index, of, job, next(numbers))
        process.join(fingerprint)
        return process

    return join


@pytest.fixture
def three(join: Callable[..., Process]) -> list[Process]:
    """All shards of a run that is started."""
    processes = [join(0).attach(), join(1), join(2)]
    for process in processes[1:]:
        process.follow()
    return processes


def read(process: Process) -> dict[str, int]:
    return {name: counts.read for name, counts in process.store.runs()[0].counts.items()}

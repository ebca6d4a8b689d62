"""Processes that share a run, in one event loop of virtual time and on one real state.

Each has an engine, a store, a source and a deliverer of its own, as in a Job's pods. What would go
to threads is done at once, so that time passes only while every process waits.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from memory_run import MemoryDeliverer, MemorySource, run
from stores import START

from pipeline.checkpoint import SqlStore
from pipeline.events import Event
from pipeline.ports import WHOLE, Shard
from pipeline.run import engine
from pipeline.run.report import RunReport


class Inline(ThreadPoolExecutor):
    """No threads: what is asked for is done before it is asked for the next."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the caller's to raise
            future.set_exception(error)
        return future


class Pod:
    """A process, from its start on. api, source: what it sends by and reads from."""

    def __init__(
        self, job: Job, shard: Shard, source: MemorySource, api: MemoryDeliverer, **options: Any
    ) -> None:
        self.shard, self.source, self.api = shard, source, api
        self.stop, self.events = asyncio.Event(), list[Event]()
        self.shares: list[tuple[int, int]] = []
        self.store = job.store(f"pod-{shard.index}:1:{next(job.numbers)}")
        self.task = asyncio.create_task(
            run(
                source,
                self.store,
                {"api": api},
                stop=self.stop,
                events=self.events,
                shard=shard,
                shares=self.shares,
                **options,
            )
        )

    async def ended(self) -> RunReport:
        report = await self.task
        self.store.close()
        return report

    async def kill(self) -> None:
        """As by SIGKILL: from now on it writes nothing."""
        self.store.close()
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@dataclass
class Job:
    """rows: of each stream of the source."""

    folder: Path
    rows: Sequence[int]
    of: int = 3
    name: str = "job"
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def store(self, holder: str) -> SqlStore:
        loop = asyncio.get_running_loop()
        url = f"sqlite:///{self.folder}/state.db"
        return SqlStore(url, holder=holder, now=lambda: START + loop.time())

    def pod(
        self,
        index: int,
        *,
        source: MemorySource | None = None,
        api: MemoryDeliverer | None = None,
        **options: Any,
    ) -> Pod:
        shard = Shard(index=index, of=self.of, job=self.name)
        return Pod(
            self, shard, source or MemorySource(self.rows), api or MemoryDeliverer(), **options
        )

    def alone(self, source: MemorySource | None = None, **options: Any) -> Pod:
        """A process that has the whole run."""
        return Pod(self, WHOLE, source or MemorySource(self.rows), MemoryDeliverer(), **options)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """`job(rows, ...)`, inside a virtual loop."""
    monkeypatch.setattr(engine, "ThreadPoolExecutor", Inline)

    def make(rows: Sequence[int], **options: Any) -> Job:
        asyncio.get_running_loop().set_default_executor(Inline())
        return Job(tmp_path, rows, **options)

    return make

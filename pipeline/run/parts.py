"""What a Run is made of, as wired, and what is known of it so far."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.model import Counts, Reading, Window
from pipeline.ports import WHOLE, Encoder, Observer, OpenRun, RunStore, Settlements, Shard, Source
from pipeline.run.lane import Lane
from pipeline.run.route import LaneLimits, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """Everything a Run is made of, as wired.

    encoder: of a destination, once window and schema are known; raises ConfigError.
    ledger: from stream -> rows settled before.
    shard: which of the processes that share the run this one is.
    """

    sync: str
    fingerprint: str
    full: bool
    source: Source
    routes: Sequence[Route]
    encoder: Callable[[Route, Window, pa.Schema], Encoder]
    ledger: Callable[[dict[int, int]], Settlements]
    store: RunStore
    limits: LaneLimits
    threads: int
    observer: Observer
    clock: Callable[[], float] = time.time
    shard: Shard = WHOLE

    def lanes(self, run: OpenRun, reading: Reading, threads: Executor) -> list[Lane]:
        """One for each destination that has not had all of it. Raises ConfigError."""
        schema = schema_of(reading)
        return [
            Lane(
                sync=self.sync,
                route=route,
                source=self.source,
                reading=reading,
                encoder=self.encoder(route, run.window, schema),
                ledger=self.ledger(checkpoints_of(run, route.destination.name)),
                counts=run.counts.get(route.destination.name, Counts()),
                limits=self.limits,
                threads=threads,
                observer=self.observer,
                streams=run.streams,
                elsewhere=run.standing.elsewhere.get(route.destination.name, Counts()),
            )
            for route in self.routes
            if route.destination.name not in run.done
        ]


@dataclass(slots=True)
class RunState:
    """What is known of the Run so far.

    ended: there is nothing more to do for this process. closed: and not for any other either.
    """

    run: OpenRun | None = None
    reading: Reading | None = None
    billed: int = 0
    restarts: Counter[str] = field(default_factory=Counter)
    lanes: list[Lane] = field(default_factory=list)
    ended: bool = False
    closed: bool = False

    @property
    def counts(self) -> dict[str, Counts]:
        """Per destination, of all that this process knows."""
        before = dict(self.run.counts) if self.run else {}
        return before | {lane.name: lane.counts for lane in self.lanes}

    def go_on_with(self, run: OpenRun) -> None:
        """Begin to read as `run` says."""
        self.run, self.reading, self.lanes = run, None, []


def schema_of(reading: Reading) -> pa.Schema:
    """The columns of its rows, in the order in which they are encoded."""
    schema = pa.ipc.read_schema(pa.py_buffer(reading.schema))
    return (
        pa.schema([schema.field(name) for name in reading.columns]) if reading.columns else schema
    )


def checkpoints_of(run: OpenRun, destination: str) -> dict[int, int]:
    """Stream -> rows settled at a destination before."""
    return {stream: rows for (name, stream), rows in run.checkpoints.items() if name == destination}

"""Peak memory of reading: the engine's lane and byte budget before a destination that is slow.

Each point is a process of its own. The destination takes less than the source gives, so that
everything between them fills up and stays full. The run is stopped when the seconds are over and
the budget has been full.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import uvloop
from _harness import peak_rss_mb
from _read_source import SYNC, Canned, configured, opened

from pipeline.checkpoint.ledger import Ledger
from pipeline.destination.file import File
from pipeline.events import Buffered, Event
from pipeline.model import Batch, Counts, Delivery, Limits, Window
from pipeline.run.lane import Lane
from pipeline.run.route import LaneLimits, Route
from pipeline.wiring.encoders import make_encoder

# 16 requests at a time of 480 kB in 0.1 s each: 77 MB of JSON per second.
_REQUESTS, _SECONDS = 16, 0.1
_LIMITS = Limits(payload_bytes=32_000, batch_bytes=480_000, batch_rows=100_000)
_DRAIN = 5.0
# The budget counts as full at this share; a machine that is too slow to fill it is not waited for.
_FULL, _PATIENCE = 0.9, 4


class Slow:
    """A `Deliverer` that counts rows and takes its time."""

    def __init__(self) -> None:
        self.rows = 0
        self.sent = Counts()
        self._permits = asyncio.Semaphore(_REQUESTS)

    async def deliver(self, batch: Batch) -> Delivery:
        """All of it, after a while."""
        async with self._permits:
            await asyncio.sleep(_SECONDS)
        self.rows += batch.rows
        return Delivery(batch=batch)


@dataclass(frozen=True, slots=True)
class Point:
    """A run that reads `at_a_time` of so many streams, for so many seconds at least."""

    streams: int
    at_a_time: int
    messages: int
    seconds: float


def peak(target: str, shape: Canned, point: Point) -> dict[str, Any]:
    """The most memory of such a run, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(_run, target, shape, point).result()


def _run(target: str, shape: Canned, point: Point) -> dict[str, Any]:
    return uvloop.run(_read(target, shape, point))


async def _read(target: str, shape: Canned, point: Point) -> dict[str, Any]:
    config, stop = configured(target), asyncio.Event()
    async with opened(config) as source:
        with ThreadPoolExecutor(2) as threads:
            idle, slow, fullest = peak_rss_mb(), Slow(), 0
            started, budget = time.monotonic(), config.send.buffer_bytes

            def observe(event: Event) -> None:
                nonlocal fullest
                if isinstance(event, Buffered):
                    fullest = max(fullest, event.nbytes)
                    passed = time.monotonic() - started
                    full = fullest > _FULL * budget or passed > _PATIENCE * point.seconds
                    if full and passed > point.seconds:
                        stop.set()

            destination = File(name="out", limits=_LIMITS)
            reading = shape.reading(point.streams, point.messages)
            lane = Lane(
                sync=SYNC,
                route=Route(destination=destination, deliverer=slow),
                source=source,
                reading=reading,
                encoder=make_encoder(
                    config, SYNC, destination, Window(start=0, sequence=1), shape.schema
                ),
                ledger=Ledger(),
                counts=Counts(),
                limits=LaneLimits(
                    buffer_bytes=budget,
                    streams=point.at_a_time,
                    drain=_DRAIN,
                    tolerates=lambda _dead, _rows: True,
                ),
                threads=threads,
                observer=observe,
            )
            await lane.run(stop)
    return {
        "streams": point.streams,
        "at_a_time": point.at_a_time,
        "rows": slow.rows,
        "idle_rss_mb": idle,
        "peak_rss_mb": peak_rss_mb(),
        "peak_buffer_mb": fullest / 1e6,
    }

"""One destination's share of a Run: its own reads, encoder, budget, deliveries and ledger.

A lane depends on no other, so a destination that is slow or down neither holds back nor repeats
rows at another. Backpressure is the byte budget: readers wait for it, nothing else does.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, replace

from pipeline.encode.packer import Packer
from pipeline.errors import TooManyRejected
from pipeline.events import Buffered, Encoded, Event, Settled, Started
from pipeline.model import Batch, Counts, DeadLetter, Delivery, Payloads, Reading, Result, Span
from pipeline.ports import Deliverer, Destination, Encoder, Frame, Observer, Settlements, Source
from pipeline.run.budget import ByteBudget
from pipeline.run.stopping import until

# What a batch costs beside its bytes: a task, a few values. Keeps tiny batches bounded too.
_BATCH_COST = 4_096
# Frames are about a megabyte, but may be a hundred: encoding takes a few times what it encodes.
_PIECE_BYTES = 8_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A destination and the way to it, as wired."""

    destination: Destination
    deliverer: Deliverer


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """buffer_bytes: encoded and not settled. streams: read at a time. drain: seconds.

    tolerates: whether so many dead letters of so many rows are still all right.
    """

    buffer_bytes: int
    streams: int
    drain: float
    tolerates: Callable[[int, int], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a lane has to make durable: letters first, then checkpoints and counts."""

    destination: str
    letters: Sequence[DeadLetter]
    checkpoints: dict[int, int]
    counts: Counts


class Lane:
    """See the module. Runs once."""

    def __init__(
        self,
        *,
        sync: str,
        route: Route,
        source: Source,
        reading: Reading,
        encoder: Encoder,
        ledger: Settlements,
        counts: Counts,
        limits: LaneLimits,
        threads: Executor,
        observer: Observer,
    ) -> None:
        self._sync, self._route, self._source, self._reading = sync, route, source, reading
        self._encoder, self._ledger, self._limits = encoder, ledger, limits
        self._threads, self._observer = threads, observer
        self._budget = ByteBudget(limits.buffer_bytes)
        self._letters: list[DeadLetter] = []
        self._deliveries: set[asyncio.Task[None]] = set()
        self._failed = False
        # What is read and not settled when a process dies is read again by the next.
        self.counts = replace(counts, read=counts.delivered + counts.dead_lettered)

    @property
    def name(self) -> str:
        """The destination's."""
        return self._route.destination.name

    async def run(self, stop: asyncio.Event) -> Result:
        """Until every row is settled, or, after `stop`, until what was sent is.

        Raises what ends a run; what was settled until then stays settled.
        """
        settled = sum(self._ledger.checkpoints().values())
        self._tell(Started, rows=self._reading.rows, skipped=settled)
        async with asyncio.TaskGroup() as group:
            finished = await until(stop, self._read_all(group))
            if not finished:
                await self._drain()
                return Result.INTERRUPTED
        return Result.COMPLETE

    def progress(self) -> Progress:
        """Everything to make durable now; its letters are handed over."""
        letters, self._letters = self._letters, []
        return Progress(
            destination=self.name,
            letters=letters,
            checkpoints=self._ledger.checkpoints(),
            counts=self.counts,
        )

    def kept(self, letters: Sequence[DeadLetter]) -> None:
        """These letters are durable: their memory is free again."""
        self._budget.release(sum(len(letter.payload) for letter in letters))
        self._buffered()

    async def _read_all(self, deliveries: asyncio.TaskGroup) -> None:
        numbers = iter(range(len(self._reading.streams)))
        async with asyncio.TaskGroup() as readers:
            for _ in range(min(self._limits.streams, len(self._reading.streams))):
                readers.create_task(self._read_some(numbers, deliveries))

    async def _read_some(self, numbers: Iterator[int], deliveries: asyncio.TaskGroup) -> None:
        for number in numbers:  # shared by all readers
            await self._read_stream(number, deliveries)

    async def _read_stream(self, number: int, deliveries: asyncio.TaskGroup) -> None:
        first = self._ledger.checkpoints().get(number, 0)
        destination = self._route.destination
        packer = Packer(destination.limits, destination.envelope, stream=number, first=first)
        loop = asyncio.get_running_loop()
        asked = time.perf_counter()
        async with aclosing(self._source.read(self._reading, number, first)) as frames:
            async for frame in frames:
                came = time.perf_counter()
                pieces, seconds = await loop.run_in_executor(self._threads, self._encode, frame)
                self._encoded(frame, pieces, came - asked, seconds)
                for payloads in pieces:
                    await self._keep_invalid(payloads.invalid)
                    for batch in packer.add(payloads):
                        await self._dispatch(batch, deliveries)
                asked = time.perf_counter()
        for batch in packer.flush():
            await self._dispatch(batch, deliveries)

    def _encode(self, frame: Frame) -> tuple[list[Payloads], float]:
        """In a worker thread. A frame of an unusual size is encoded piece by piece."""
        started = time.perf_counter()
        batch, stream, first = frame.record_batch(), frame.span.stream, frame.span.first
        step = max(1, batch.num_rows * _PIECE_BYTES // max(batch.nbytes, _PIECE_BYTES))
        pieces = [
            self._encoder.encode(
                piece := batch.slice(start, step),
                Span(stream=stream, first=first + start, rows=piece.num_rows),
            )
            for start in range(0, batch.num_rows, step)
        ]
        return pieces, time.perf_counter() - started

    def _encoded(
        self, frame: Frame, pieces: Sequence[Payloads], read_seconds: float, encode_seconds: float
    ) -> None:
        reasons = Counter(letter.reason for payloads in pieces for letter in payloads.invalid)
        self._count(read=frame.span.rows, dead_lettered=reasons.total())
        self._tell(
            Encoded,
            rows=frame.span.rows,
            nbytes=frame.nbytes,
            read_seconds=read_seconds,
            encode_seconds=encode_seconds,
            invalid=reasons,
        )

    async def _keep_invalid(self, letters: Sequence[DeadLetter]) -> None:
        if letters:
            await self._budget.acquire(sum(len(letter.payload) for letter in letters))
            self._keep(letters)

    async def _dispatch(self, batch: Batch, deliveries: asyncio.TaskGroup) -> None:
        if not batch.slices:  # invalid rows only
            self._ledger.settle(batch.span)
            return
        await self._budget.acquire(batch.nbytes + _BATCH_COST)
        if self._failed:  # the group takes no more tasks, and is about to cancel this one
            return
        self._buffered()
        task = deliveries.create_task(self._deliver(batch))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, batch: Batch) -> None:
        try:
            self._settle(await self._route.deliverer.deliver(batch))
        except Exception:
            self._failed = True
            raise

    def _settle(self, delivery: Delivery) -> None:
        batch = delivery.batch
        rejections = delivery.rejections
        self._count(
            delivered=batch.rows - len(rejections),
            dead_lettered=len(rejections),
            requests=delivery.requests,
            retries=delivery.retries,
            bytes_sent=delivery.bytes_sent,
        )
        self._tell(
            Settled,
            delivered=batch.rows - len(rejections),
            rejected=Counter(letter.reason for letter in rejections),
        )
        # The room that rejected payloads need was the batch's until now.
        room = batch.nbytes + _BATCH_COST - sum(len(letter.payload) for letter in rejections)
        self._keep(rejections)
        self._ledger.settle(batch.span)
        self._budget.release(room)
        self._buffered()

    def _keep(self, letters: Sequence[DeadLetter]) -> None:
        self._letters.extend(letters)
        if letters and not self._limits.tolerates(
            self.counts.dead_lettered, self._reading.rows or self.counts.read
        ):
            raise TooManyRejected(
                f"sync {self._sync}: {self.counts.dead_lettered:,} rows are invalid or rejected at "
                f"{self.name}, more than `max_rejected` allows. "
                f"See `retl dead-letters list {self._sync}`; nothing was dropped."
            )

    async def _drain(self) -> None:
        """Let what is in flight end, but not for longer than the drain time."""
        if self._deliveries:
            _, late = await asyncio.wait(set(self._deliveries), timeout=self._limits.drain)
            for task in late:
                task.cancel()

    def _count(self, **more: int) -> None:
        self.counts += Counts(**more)

    def _buffered(self) -> None:
        in_flight = self.counts.read - self.counts.delivered - self.counts.dead_lettered
        self._tell(Buffered, nbytes=self._budget.used, rows=in_flight)

    def _tell(self, kind: Callable[..., Event], **fields: object) -> None:
        self._observer(kind(sync=self._sync, destination=self.name, **fields))

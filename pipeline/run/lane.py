"""One destination's share of a Run: its own reads, encoder, budget, deliveries and ledger.

A lane depends on no other, so a destination that is slow or down neither holds back nor repeats
rows at another. Backpressure is the byte budget: readers wait for it, nothing else does. What is
counted as settled for good is what the checkpoints cover; the rest is read again after a crash.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, replace

from pipeline.encode.packer import Packer
from pipeline.errors import PipelineError, SourceError, TooManyRejected
from pipeline.events import Buffered, Encoded, Event, Settled, Started
from pipeline.model import Batch, Counts, DeadLetter, Delivery, Payloads, Reading, Result
from pipeline.ports import ALL, Encoder, Observer, Settlements, Share, Source
from pipeline.run.budget import ByteBudget
from pipeline.run.encoding import Encoding, Piece
from pipeline.run.holding import Holding
from pipeline.run.route import LaneLimits, Route
from pipeline.run.stopping import until

# What a dead letter costs beside its payload.
_LETTER_COST = 300
_NOTHING = Counts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a lane has to make durable: letters first, then checkpoints and counts."""

    destination: str
    letters: Sequence[DeadLetter]
    checkpoints: dict[int, int]
    counts: Counts


class Lane:
    """See the module. Runs once.

    streams: which of the reading's streams are read. counts: of those streams, by earlier
    processes. elsewhere: what processes that have the others have committed.
    """

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
        streams: Share = ALL,
        elsewhere: Counts = _NOTHING,
    ) -> None:
        self._sync, self._route, self._reading = sync, route, reading
        self._ledger, self._limits, self._observer = ledger, limits, observer
        self._budget = ByteBudget(limits.buffer_bytes)
        self._holding = Holding(self._budget)
        self._letters: list[DeadLetter] = []
        self._deliveries: set[asyncio.Task[None]] = set()
        self._failed = False
        # Requests of this process that an earlier lane of it has counted.
        self._before, self._sent = counts, route.deliverer.sent
        self._share, self.elsewhere = streams, elsewhere
        room = limits.buffer_bytes // 2
        self._encoding = Encoding(source, reading, encoder, threads, room)
        self.complete = False
        self._rows = replace(counts, requests=0, retries=0, bytes_sent=0)

    @property
    def name(self) -> str:
        """The destination's."""
        return self._route.destination.name

    @property
    def counts(self) -> Counts:
        """What came of the rows read and the requests sent, earlier processes' included."""
        sent, counted, before = self._route.deliverer.sent, self._sent, self._before
        return replace(
            self._rows,
            requests=before.requests + sent.requests - counted.requests,
            retries=before.retries + sent.retries - counted.retries,
            bytes_sent=before.bytes_sent + sent.bytes_sent - counted.bytes_sent,
        )

    async def run(self, stop: asyncio.Event) -> Result:
        """Until every row is settled, or, after `stop`, until what was sent is.

        Raises what ends a run; what was settled until then stays settled.
        """
        rows = self._reading.rows if self._share.of == 1 else None
        self._tell(Started, rows=rows, skipped=self._settled)
        self.check_tolerance()  # gone on with, it may be over the limit before it sends anything
        async with asyncio.TaskGroup() as group:
            finished = await until(stop, self._work(group))
            if not finished:
                await self._drain()
                return Result.INTERRUPTED
        if stop.is_set() and (self._settled != self._rows.read or self._missing):
            return Result.INTERRUPTED
        self._check_complete()
        self.complete = True
        return Result.COMPLETE

    @property
    def _settled(self) -> int:
        return sum(self._ledger.checkpoints().values())

    @property
    def _missing(self) -> int | None:
        """Rows of the source that have not come; None when it can't tell exactly.

        How many rows a stream has, no source tells: only all of them together can be counted.
        """
        rows, read = self._reading.rows, self._rows.read
        known = rows is not None and self._reading.rows_exact and self._share.of == 1
        return rows - read if known and rows is not None else None

    def _check_complete(self) -> None:
        read, settled = self._rows.read, self._settled
        if settled != read:
            raise PipelineError(
                f"sync {self._sync}: {read:,} rows were read for {self.name} and {settled:,} are "
                "settled. Nothing is skipped: the next run goes on there. This is our own fault, "
                "please report it."
            )
        if self._missing:
            remedy = "run again, and it goes on at the end of each stream."
            raise SourceError(
                f"sync {self._sync}: the source has {self._reading.rows:,} rows, and {read:,} came "
                f"for {self.name}, though no stream reported an error. The window stays open: "
                + (remedy if self._missing > 0 else "please report it.")
            )

    def progress(self) -> Progress:
        """Everything to make durable now. The letters stay here until they are `kept`.

        The counts are of the rows that the checkpoints cover: those beyond are read, and counted,
        again by the process that goes on.
        """
        checkpoints = self._ledger.checkpoints()
        settled = sum(checkpoints.values())
        dead = self._before.dead_lettered + self._ledger.dead()
        return Progress(
            destination=self.name,
            letters=tuple(self._letters),
            checkpoints=checkpoints,
            counts=replace(
                self.counts,
                read=settled,
                delivered=settled - dead,
                dead_lettered=dead,
            ),
        )

    def kept(self, letters: Sequence[DeadLetter]) -> None:
        """The first letters of these are durable: their memory is free again."""
        del self._letters[: len(letters)]
        self._budget.release(_room(letters))
        self._buffered()

    async def _work(self, deliveries: asyncio.TaskGroup) -> None:
        """Every stream to its end, and again from there while rows are missing and more come."""
        came, missing = True, self._missing
        # Nothing to read is nothing to ask for: the streams may have expired meanwhile.
        while came and (missing is None or missing > 0) and self._settled == self._rows.read:
            before = self._rows.read
            await self._read_all(deliveries)
            while self._deliveries:
                await asyncio.wait(set(self._deliveries))
            missing = self._missing
            came = missing is not None and self._rows.read > before

    async def _read_all(self, deliveries: asyncio.TaskGroup) -> None:
        mine = [number for number in range(len(self._reading.streams)) if self._share.has(number)]
        numbers = iter(mine)
        async with asyncio.TaskGroup() as group:
            readers = [
                group.create_task(self._read_some(numbers, deliveries))
                for _ in range(min(self._limits.streams, len(mine)))
            ]
        if any(reader.cancelled() for reader in readers):  # by itself: this task goes on
            raise PipelineError(
                f"sync {self._sync}: a read for {self.name} was cancelled by nobody. Nothing is "
                "skipped: the next run goes on there. This is our own fault, please report it."
            )

    async def _read_some(self, numbers: Iterator[int], deliveries: asyncio.TaskGroup) -> None:
        for number in numbers:  # shared by all readers
            await self._read_stream(number, deliveries)

    async def _read_stream(self, number: int, deliveries: asyncio.TaskGroup) -> None:
        first = self._ledger.checkpoints().get(number, 0)
        destination = self._route.destination
        packer = Packer(destination.limits, destination.envelope, stream=number, first=first)
        async with aclosing(self._encoding.stream(number, first)) as encoded:
            async for piece in encoded:
                self._encoded(piece)
                await self._pack(piece.payloads, packer, deliveries)
        for batch in packer.flush():
            self._dispatch(batch, deliveries)

    def _encoded(self, piece: Piece) -> None:
        payloads = piece.payloads
        self._rows += Counts(read=payloads.span.rows, dead_lettered=len(payloads.invalid))
        self._tell(
            Encoded,
            rows=payloads.span.rows,
            nbytes=piece.nbytes,
            read_seconds=piece.read_seconds,
            encode_seconds=piece.encode_seconds,
            invalid=Counter(letter.reason for letter in payloads.invalid),
            nonfinite=payloads.nonfinite,
        )

    async def _pack(
        self, payloads: Payloads, packer: Packer, deliveries: asyncio.TaskGroup
    ) -> None:
        # All at once: whoever waited for more while holding some could wait for ever.
        await self._holding.hold(payloads, beside=_room(payloads.invalid))
        self._letters += payloads.invalid
        for batch in packer.add(payloads):
            self._dispatch(batch, deliveries)
        self._holding.packed(payloads, packer.waiting)
        self._buffered()
        self.check_tolerance()

    def _dispatch(self, batch: Batch, deliveries: asyncio.TaskGroup) -> None:
        if not batch.slices:  # invalid rows only
            self._ledger.settle(batch.span, dead=batch.span.rows)
            return
        if self._failed:  # the group takes no more tasks, and is about to cancel this one
            return
        self._holding.sent(batch)
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
        batch, rejections = delivery.batch, delivery.rejections
        delivered = batch.rows - len(rejections)
        self._rows += Counts(delivered=delivered, dead_lettered=len(rejections))
        self._tell(
            Settled,
            delivered=delivered,
            rejected=Counter(letter.reason for letter in rejections),
        )
        self._budget.take(_room(rejections))
        self._letters += rejections
        # Its invalid rows are part of the span.
        self._ledger.settle(batch.span, dead=batch.span.rows - delivered)
        self._holding.settled(batch)
        self._buffered()
        self.check_tolerance()

    def check_tolerance(self) -> None:
        """Raise TooManyRejected when it is so, with what is known of other processes' rows."""
        dead = self._rows.dead_lettered + self.elsewhere.dead_lettered
        rows = self._reading.rows or self._rows.read + self.elsewhere.read
        if dead and not self._limits.tolerates(dead, rows):
            raise TooManyRejected(
                f"sync {self._sync}: at {self.name}, {dead:,} rows are invalid or rejected, more "
                f"than `max_rejected` allows. See `retl dead-letters list {self._sync}`; nothing "
                "was dropped."
            )

    async def _drain(self) -> None:
        """Let what is in flight end, but not for longer than the drain time."""
        if self._deliveries:
            _, late = await asyncio.wait(set(self._deliveries), timeout=self._limits.drain)
            for task in late:
                task.cancel()

    def _buffered(self) -> None:
        in_flight = self._rows.read - self._rows.delivered - self._rows.dead_lettered
        self._tell(Buffered, nbytes=self._budget.used, rows=in_flight)

    def _tell(self, kind: Callable[..., Event], **fields: object) -> None:
        self._observer(kind(sync=self._sync, destination=self.name, **fields))


def _room(letters: Sequence[DeadLetter]) -> int:
    return sum(len(letter.payload) + _LETTER_COST for letter in letters)

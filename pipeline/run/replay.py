"""Dead letters sent again: page by page through the same Packer and Sender as a Run's rows.

What was delivered is forgotten in the store, once a second and at the end; what was rejected again
stays, with the new reason. So a process that is killed sends at most what was in flight again,
under the message ids that the payloads hold. It holds the lease of the sync: no Run of it
meanwhile. Here a letter's row number is its id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from pipeline.encode.packer import Packer
from pipeline.errors import LeaseError, PipelineError, TooManyRejected
from pipeline.model import Batch, DeadLetter, Payloads, Result, Span
from pipeline.ports import DeadLetterRecord, LetterFilter, LetterStore, Obstacle, OpenReplay
from pipeline.run.budget import ByteBudget
from pipeline.run.holding import Holding
from pipeline.run.replay_report import Replayed, ReplayReport
from pipeline.run.route import Route
from pipeline.run.stopping import first_error, until

_COMMIT_EVERY = 1.0
_PAGE_ROWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayParts:
    """Everything the replay of one sync is made of, as wired.

    which: its letters. routes: by the destination of the letters. tallies: likewise, to be filled.
    most: letters to try. one_by_one: each in a request of its own. drain: seconds.
    """

    sync: str
    which: LetterFilter
    routes: Mapping[str, Route]
    tallies: Mapping[str, Replayed]
    store: LetterStore
    buffer_bytes: int
    drain: float
    most: int | None = None
    one_by_one: bool = False


async def replay(parts: ReplayParts, stop: asyncio.Event) -> ReplayReport:
    """Replay once. What goes wrong is in the report; only our own faults are raised."""
    return await _Replay(parts, stop).execute()


class _Replay:
    def __init__(self, parts: ReplayParts, stop: asyncio.Event) -> None:
        self._parts, self._stop = parts, stop
        quota = _Quota(parts.most)
        self._lanes = [
            _Lane(parts, route, parts.tallies[name], name, quota)
            for name, route in parts.routes.items()
        ]

    async def execute(self) -> ReplayReport:
        started = time.perf_counter()
        result, error = Result.FAILED, None
        try:
            result = await self._under_lease()
        except* PipelineError as group:
            found = first_error(group)
            error = found if isinstance(found, PipelineError) else None
        return ReplayReport(
            sync=self._parts.sync,
            result=result,
            seconds=time.perf_counter() - started,
            destinations=self._parts.tallies,
            error=error,
        )

    async def _under_lease(self) -> Result:
        store = self._parts.store
        held = await asyncio.to_thread(store.begin_replay, self._parts.sync)
        try:
            result = await self._drive(held)
        except BaseException:
            with suppress(LeaseError):  # if it is lost, that is the error on its way, or worth less
                await self._end(held)
            raise
        await self._end(held)
        return result

    async def _end(self, held: OpenReplay) -> None:
        await self._commit(held)
        await asyncio.to_thread(self._parts.store.end_replay, held)

    async def _drive(self, held: OpenReplay) -> Result:
        """All lanes to their ends, whatever becomes of the others; commits meanwhile."""
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            # One that fails (a lost lease, a full disk) ends the lanes at once.
            group.create_task(self._commit_often(held, done))
            try:
                ended = await asyncio.gather(
                    *(lane.run(self._stop) for lane in self._lanes), return_exceptions=True
                )
            finally:
                done.set()
        errors = [one for one in ended if isinstance(one, BaseException)]
        if errors:
            raise first_error(BaseExceptionGroup("lanes", errors))
        return Result.COMPLETE if all(ended) else Result.INTERRUPTED

    async def _commit_often(self, held: OpenReplay, done: asyncio.Event) -> None:
        while not done.is_set():
            try:
                async with asyncio.timeout(_COMMIT_EVERY):
                    await done.wait()
            except TimeoutError:
                await self._commit(held)

    async def _commit(self, held: OpenReplay) -> None:
        for lane in self._lanes:
            delivered, rejected = tuple(lane.delivered), dict(lane.rejected)
            await asyncio.to_thread(self._parts.store.settle_replay, held, delivered, rejected)
            lane.kept(delivered, rejected)


class _Quota:
    """How many letters may still be taken, by all lanes together."""

    def __init__(self, most: int | None) -> None:
        self._left = most

    def take(self, wanted: int) -> int:
        if self._left is None:
            return wanted
        taken = min(wanted, self._left)
        self._left -= taken
        return taken

    def give_back(self, unused: int) -> None:
        if self._left is not None:
            self._left += unused


class _Lane:
    """The letters of one destination. delivered, rejected: what is not durable yet, by id."""

    def __init__(
        self, parts: ReplayParts, route: Route, tally: Replayed, name: str, quota: _Quota
    ) -> None:
        self._parts, self._route, self._tally, self._quota = parts, route, tally, quota
        self._which = replace(parts.which, sync=parts.sync, destination=name)
        self._name = name
        self._holding = Holding(ByteBudget(parts.buffer_bytes))
        self._deliveries: set[asyncio.Task[None]] = set()
        self.delivered: list[int] = []
        self.rejected: dict[int, DeadLetter] = {}

    def kept(self, delivered: Sequence[int], rejected: Mapping[int, DeadLetter]) -> None:
        """These are durable."""
        del self.delivered[: len(delivered)]
        for number in rejected:
            self.rejected.pop(number)

    async def run(self, stop: asyncio.Event) -> bool:
        """Until every letter is tried, or, after `stop`, what was sent is settled: then False."""
        try:
            async with asyncio.TaskGroup() as group:
                finished = await until(stop, self._feed(group))
                if not finished and self._deliveries:
                    _, late = await asyncio.wait(self._deliveries, timeout=self._parts.drain)
                    for task in late:
                        task.cancel()
        except* TooManyRejected as group:
            raise TooManyRejected(
                f"sync {self._parts.sync}: {self._name} still refuses every dead letter tried, and "
                "all of them are kept. See what it says of a few: `--limit 5`. If some may be "
                "accepted among many that are not: `--one-by-one`."
            ) from group
        return finished

    async def _feed(self, deliveries: asyncio.TaskGroup) -> None:
        destination = self._route.destination
        limits = destination.limits
        if self._parts.one_by_one:
            limits = replace(limits, batch_rows=1)
        packer = Packer(limits, destination.envelope, stream=0, first=0)
        after = 0
        while (rows := self._quota.take(_PAGE_ROWS)) > 0:
            page = await asyncio.to_thread(
                self._parts.store.dead_letter_page,
                self._which,
                after=after,
                rows=rows,
                replayable=True,
            )
            fit = [record for record in page if self._fits(record)]
            self._quota.give_back(rows - len(fit))
            if not page:
                break
            after = page[-1].id
            if fit:
                await self._send(_payloads(fit, destination.envelope.separator), packer, deliveries)
        for batch in packer.flush():
            self._dispatch(batch, deliveries)

    def _fits(self, record: DeadLetterRecord) -> bool:
        """Whether it can be sent; if not, that is noted."""
        obstacle = None
        if record.sealed:  # another key's
            obstacle = Obstacle.SEALED
        elif len(record.letter.payload) > self._route.destination.limits.payload_bytes:
            obstacle = Obstacle.TOO_LARGE
        if obstacle is not None:
            self._tally.letters -= 1
            self._tally.left[obstacle] += 1
        return obstacle is None

    async def _send(
        self, payloads: Payloads, packer: Packer, deliveries: asyncio.TaskGroup
    ) -> None:
        await self._holding.hold(payloads)
        for batch in packer.add(payloads):
            self._dispatch(batch, deliveries)
        self._holding.packed(payloads, packer.waiting)

    def _dispatch(self, batch: Batch, deliveries: asyncio.TaskGroup) -> None:
        if not batch.slices:
            return
        self._holding.sent(batch)
        task = deliveries.create_task(self._deliver(batch))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, batch: Batch) -> None:
        delivery = await self._route.deliverer.deliver(batch)
        rejected = {letter.row: letter for letter in delivery.rejections}
        numbers = [
            piece.payloads.row(index)
            for piece in batch.slices
            for index in range(piece.start, piece.stop)
        ]
        delivered = [number for number in numbers if number not in rejected]
        self.delivered += delivered
        self.rejected |= rejected
        self._tally.delivered += len(delivered)
        self._tally.rejected += len(rejected)
        self._holding.settled(batch)


def _payloads(page: Sequence[DeadLetterRecord], separator: bytes) -> Payloads:
    """The payloads of a page, as if they were rows that their ids number."""
    texts = [record.letter.payload for record in page]
    ids = np.array([record.id for record in page], np.int64)
    sizes = np.array([len(text) + len(separator) for text in texts], np.int64)
    first = int(ids[0])
    return Payloads(
        data=memoryview(separator.join([*texts, b""])),
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]),
        span=Span(stream=0, first=first, rows=int(ids[-1]) + 1 - first),
        rows=ids,
    )

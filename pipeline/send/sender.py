"""Delivers Batches: permit, pace, post, judge; then done, again, apart, or halt.

A permit is held for one post, never during a wait. Every attempt passes the limiter at the moment
it leaves: one request at a time is next, and nobody can overtake it or leave during a pause. What
is decided, and when, is in the pure rooms beside this one; here is the waiting for it.
A row ends delivered or rejected, or the run ends; nothing is given up in silence.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

from pipeline.events import Attempted, Event, Limited, Retried, Throttled
from pipeline.model import Action, Answer, Batch, Counts, DeadLetter, Delivery, Verdict
from pipeline.ports import Destination, Observer, Transport
from pipeline.send.allowance import RetryAllowance
from pipeline.send.circuit import Circuit
from pipeline.send.concurrency import Fixed, Outcome
from pipeline.send.cut import Part, halves, halves_by_bytes, probes, refuse, rows, stretches
from pipeline.send.endings import Endings
from pipeline.send.limiter import Limiter
from pipeline.send.line import Line, Place
from pipeline.send.retry import RetryPolicy
from pipeline.send.trouble import Tally, Trouble

# How many single rows must all be refused before a fault counts as systemic. With half of a
# batch's rows bad, five probes are all bad once in 32 times; a halt loses nothing.
PROBES = 5
_ANSWERS = frozenset({Action.DELIVERED, Action.SPLIT, Action.REJECT})
# What an overloaded destination answers; a 500 is more likely a fault of its own.
_OVERLOADED = frozenset({0, 408, 502, 503, 504})
# A wait that nobody would notice is not reported, and one that no clock can show not waited.
_NOTABLE, _INSTANT = 0.001, 1e-9


class Sender:
    """A `Deliverer` to one destination; its permits and pace are shared by all its deliveries.

    uniform: random numbers between two bounds, for the jitter of waits.
    """

    def __init__(
        self,
        *,
        sync: str,
        destination: Destination,
        transport: Transport,
        limiter: Limiter,
        retry: RetryPolicy,
        concurrency: Fixed,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._sync, self._destination, self._transport = sync, destination, transport
        self._name, self._envelope = destination.name, destination.envelope
        self._limiter, self._retry, self._concurrency = limiter, retry, concurrency
        self._circuit = Circuit(retry, uniform=uniform)
        self._allowance, self._tally = RetryAllowance(), Tally()
        self.endings = Endings(sync, destination.name, retry.deadline)
        self._line, self._retry_turn = Line(), asyncio.Lock()
        self._full_since = math.inf  # since when the first in line waits for a permit
        self._requests = self._retries = self._bytes = 0
        self._limit = 0  # as last reported
        self._observer = observer
        self._clock, self._wall_clock, self._sleep = clock, wall_clock, sleep
        self._uniform = uniform

    @property
    def sent(self) -> Counts:
        """See `pipeline.ports.Deliverer`."""
        return Counts(requests=self._requests, retries=self._retries, bytes_sent=self._bytes)

    def share(self, place: int, of: int) -> None:
        """Have one of `of` parts of the rate limit, from now on."""
        self._limiter.share(self._clock(), place, of)

    async def ready(self) -> None:
        """Until a request could leave at once, whatever is in it."""
        place = self._line.join()
        try:
            await self._clear(place, 1)
        finally:
            self._leave(place)

    def trouble(self, *, alone: bool = False) -> Trouble:
        """Of a part that is about to be sent."""
        return Trouble(self._tally, alone=alone)

    def stretches(self, part: Part) -> tuple[Part, ...]:
        """The part, in requests that are small enough for the rate limit."""
        return stretches(part, self._limiter.most_rows)

    async def deliver(self, batch: Batch) -> Delivery:
        """See `pipeline.ports.Deliverer`."""
        rejections: list[DeadLetter] = []
        for part in self.stretches(batch.slices):
            await self._settle(part, rejections)
        return Delivery(batch=batch, rejections=tuple(rejections))

    async def _settle(self, whole: Part, rejections: list[DeadLetter]) -> None:
        """Deliver or reject every row of it, part by part where it can't be done at once."""
        trouble, probed = self.trouble(), False
        todo, last = deque([whole]), deque[Part]()
        while todo or last:
            part, may_leave = (todo.popleft(), True) if todo else (last.popleft(), False)
            verdict = await self.decide(part, trouble, may_leave=may_leave)
            if verdict is None:  # 1. It fails where others get through.
                if rows(part) == 1:
                    last.append(part)
                else:
                    todo += halves(part)
            elif verdict.action is Action.DELIVERED:  # 2.
                continue
            elif verdict.action is Action.REJECT or rows(part) == 1:  # 3.
                rejections += refuse(part, verdict.reason, verdict.message)
            elif verdict.by_size:  # 4.
                todo += halves_by_bytes(part)
            elif probed or rows(part) <= PROBES:  # 5. Some of its rows are at fault.
                todo += halves(part)
            else:  # 6. All of them may be.
                todo += await self._probe(part, rejections, trouble)
                probed = True

    async def _probe(
        self, part: Part, rejections: list[DeadLetter], trouble: Trouble
    ) -> tuple[Part, ...]:
        """Send a few rows alone; what is left to do. Raises when all of them are refused."""
        singles, between = probes(part, PROBES)
        refused = []
        for single in singles:
            verdict = await self.decide(single, trouble, may_leave=False)
            if verdict is not None and verdict.action is not Action.DELIVERED:
                refused += refuse(single, verdict.reason, verdict.message)
        if len(refused) == len(singles):
            raise self.endings.refused_all(refused[0].reason)
        rejections += refused
        return between

    async def decide(self, part: Part, trouble: Trouble, *, may_leave: bool) -> Verdict | None:
        """Post until the verdict is final: delivered, reject or split.

        None, if it may leave it at that: it fails where others get through.
        """
        retries = 0
        trouble.begin()
        while True:
            verdict = await self._attempt(part, trouble)
            if verdict.action is Action.HALT:
                raise self.endings.refused(verdict)
            if verdict.action is not Action.RETRY:
                return verdict
            now = self._clock()
            self._check(part, verdict, trouble, now)
            if may_leave and trouble.stands_out():
                return None
            self._tell(Retried, reason=verdict.reason)
            self._retries += 1
            wait = self._retry.wait(retries, verdict, self._uniform)
            wait = min(wait, self._circuit.deadline - now)
            retries += 1
            if verdict.after is None:
                await self._sleep(wait)
            else:
                self._limiter.pause(now + wait)
            await self._allow_retry()

    def _check(self, part: Part, verdict: Verdict, trouble: Trouble, now: float) -> None:
        """End the run when an outage, or the failing of this part alone, has lasted too long."""
        deadline = self._circuit.deadline
        if now >= deadline or (verdict.after is not None and now + verdict.after > deadline):
            raise self.endings.outage(verdict)
        if trouble.is_over(now, self._retry.deadline):
            raise self.endings.stuck(part, verdict)

    async def _allow_retry(self) -> None:
        """Wait until retries are a small enough share of what is sent."""
        async with self._retry_turn:
            while (wait := self._allowance.wait(self._clock())) > _INSTANT:
                await self._sleep(wait)
                self._throttled("retry_budget", wait)
            self._allowance.retried(self._clock())

    async def _attempt(self, part: Part, trouble: Trouble) -> Verdict:
        count, flight = rows(part), self._concurrency
        place, in_line = self._line.join(), True
        try:
            await self._clear(place, count)
            # From here to the post nothing waits, so nothing can have changed.
            probing, now = self._circuit.is_open, self._clock()
            self._limiter.take(now, count)
            self._allowance.requested(now)
            number = flight.start(now)
            try:
                if not probing:  # else nobody leaves before its answer is there
                    self._leave(place)
                    in_line = False
                return await self._post(part, count, trouble, number, probing=probing)
            finally:
                self._line.call(flight.end())
        finally:
            if in_line:
                self._leave(place)

    async def _clear(self, place: Place, count: int) -> None:
        """Wait for the turn, a permit, the limiter, the end of a pause, and the next probe."""
        while True:
            if not self._line.is_first(place):
                await self._line.wait(place)
                continue
            now = self._clock()
            if self._concurrency.full:
                self._full_since = min(self._full_since, now)
                await self._line.wait(place)
                continue
            if self._concurrency.holds_back:
                self._throttled("adaptive", now - self._full_since)
            self._full_since = math.inf
            wait, cause = self._hold_up(now, count)
            if wait <= _INSTANT:
                return
            await self._sleep(wait)
            self._throttled(cause, wait)

    def _leave(self, place: Place) -> None:
        """Make room for the next in line; if it has to wait for a permit, it does so from now."""
        room = self._concurrency.room
        if not self._line.leave(place, room):
            self._full_since = math.inf
        elif room <= 0:
            self._full_since = min(self._full_since, self._clock())

    def _hold_up(self, now: float, count: int) -> tuple[float, str]:
        """Seconds to wait, and for what."""
        wait, cause = self._limiter.wait(now, count), "rate_limit"
        if wait > 0.0 and self._limiter.paused(now):
            cause = "retry_after"
        if (other := self._circuit.wait(now)) > wait:
            wait, cause = other, "circuit"
        if (other := self._concurrency.wait(now)) > wait:
            wait, cause = other, "adaptive"
        return wait, cause

    async def _post(
        self, part: Part, count: int, trouble: Trouble, number: int, *, probing: bool
    ) -> Verdict:
        body = self._envelope.pieces([piece.view for piece in part])
        request = self._destination.request(body)
        started = self._clock()
        answer = await self._transport.post(request)
        now = self._clock()
        nbytes = len(body)
        self._requests += 1
        self._bytes += nbytes
        self._observer(
            Attempted(
                sync=self._sync,
                destination=self._name,
                status=answer.status,
                error=answer.error or "",
                seconds=now - started,
                rows=count,
                nbytes=nbytes,
                encoding=request.encoding,
            )
        )
        verdict = self._destination.judge(answer, self._wall_clock())
        self._learn(verdict, trouble, now, probing=probing)
        if not probing:  # how many may fly, an outage can't tell
            self._concurrency.learn(number, now, now - started, _outcome(answer, verdict))
        if self._concurrency.limit != self._limit:
            self._limit = self._concurrency.limit
            self._tell(Limited, limit=self._limit)
        return verdict

    def _learn(self, verdict: Verdict, trouble: Trouble, now: float, *, probing: bool) -> None:
        """What the answer says of the destination's health and this part's."""
        if verdict.action in _ANSWERS:
            self._tally.answered += 1
            if self._circuit.answered():
                self._concurrency.restart()
        elif verdict.action is Action.RETRY:
            self._circuit.failed(now, probe=probing)
            # A wish to come later is no failure of these rows.
            if not verdict.throttled and verdict.after is None:
                self._tally.failed += 1
                trouble.failed(now)

    def _throttled(self, cause: str, seconds: float) -> None:
        if seconds >= _NOTABLE:
            self._tell(Throttled, cause=cause, seconds=seconds)

    def _tell(self, kind: Callable[..., Event], **fields: object) -> None:
        self._observer(kind(sync=self._sync, destination=self._name, **fields))


def _outcome(answer: Answer, verdict: Verdict) -> Outcome:
    if verdict.action is Action.DELIVERED:
        return Outcome.DELIVERED
    if verdict.throttled:
        return Outcome.THROTTLE
    overloaded = verdict.action is Action.RETRY and answer.status in _OVERLOADED
    return Outcome.FAULT if overloaded else Outcome.NEITHER

"""Delivers Batches: permit, pace, post, judge; then done, again, apart, or halt.

A permit is held for one post, never during a backoff. Every attempt passes the limiter at the
moment it leaves: one request at a time is next, and nobody can overtake it or leave during a pause.
A row ends delivered or rejected, or the run ends; nothing is given up in silence.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from pipeline.errors import CredentialsError, DestinationError, DestinationRefused, TooManyRejected
from pipeline.events import Attempted, Retried, Throttled
from pipeline.model import Action, Answer, Batch, Counts, DeadLetter, Delivery, Verdict
from pipeline.ports import Destination, Observer, Transport
from pipeline.send.cut import Part, halves, probes, refuse, rows
from pipeline.send.limiter import Limiter
from pipeline.send.retry import RetryPolicy

# How many single rows must all be refused before a fault counts as systemic. With half of a
# batch's rows bad, five probes are all bad once in 32 times; a halt loses nothing.
_PROBES = 5
_ANSWERS = frozenset({Action.DELIVERED, Action.SPLIT, Action.REJECT})
# A wait that nobody would notice is not reported.
_NOTABLE = 0.001


class Sender:
    """A `Deliverer` to one destination; its permits and pace are shared by all its deliveries."""

    def __init__(
        self,
        *,
        sync: str,
        destination: Destination,
        transport: Transport,
        limiter: Limiter,
        retry: RetryPolicy,
        concurrency: int,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sync, self._destination, self._transport = sync, destination, transport
        self._limiter, self._retry, self._observer = limiter, retry, observer
        self._permits = asyncio.Semaphore(concurrency)
        self._next = asyncio.Lock()
        self._sent = Counts()
        self._answered = -math.inf  # when it last took or refused rows, as opposed to failing
        self._clock, self._wall_clock, self._sleep = clock, wall_clock, sleep

    @property
    def sent(self) -> Counts:
        """See `pipeline.ports.Deliverer`."""
        return self._sent

    async def deliver(self, batch: Batch) -> Delivery:
        """See `pipeline.ports.Deliverer`."""
        rejections: list[DeadLetter] = []
        await self._settle(batch.slices, rejections, probe=True)
        return Delivery(batch=batch, rejections=tuple(rejections))

    async def _settle(self, part: Part, rejections: list[DeadLetter], *, probe: bool) -> None:
        """Deliver or reject every row of the part."""
        verdict = await self._decide(part)
        if verdict.action is Action.DELIVERED:
            return
        if verdict.action is Action.REJECT or rows(part) == 1:
            rejections += refuse(part, verdict.reason, verdict.message)
            return
        parts = halves(part)
        if probe and rows(part) > _PROBES and not verdict.by_size:
            parts = await self._probe(part, rejections)
        for piece in parts:
            await self._settle(piece, rejections, probe=False)

    async def _probe(self, part: Part, rejections: list[DeadLetter]) -> tuple[Part, ...]:
        """Send a few rows alone; what is left to do. Raises when all of them are refused."""
        singles, between = probes(part, _PROBES)
        refused = []
        for single in singles:
            verdict = await self._decide(single)
            if verdict.action is not Action.DELIVERED:
                refused += refuse(single, verdict.reason, verdict.message)
        if len(refused) == len(singles):
            raise TooManyRejected(
                f"sync {self._sync}: {self._destination.name} refuses every row tried "
                f"({refused[0].reason}), which is no single row's fault. Nothing was dropped. "
                f"See what it says with `retl preview {self._sync}` and one row sent by hand."
            )
        rejections += refused
        return between

    async def _decide(self, part: Part) -> Verdict:
        """Post until the verdict is final: delivered, reject or split."""
        retries, failing = 0, math.inf
        while True:
            verdict = await self._attempt(part)
            if verdict.action is Action.HALT:
                raise self._halt(verdict)
            if verdict.action is not Action.RETRY:
                return verdict
            now = self._clock()
            # Waiting for a turn is no failure, nor is one batch's bad luck an outage: time counts
            # from the batch's first failure, and only while nothing else gets through.
            failing = min(failing, now)
            deadline = max(failing, self._answered) + self._retry.deadline
            if now >= deadline or (verdict.after is not None and now + verdict.after > deadline):
                raise self._given_up(verdict)
            wait = min(self._retry.wait(retries, verdict), deadline - now)
            self._observer(
                Retried(sync=self._sync, destination=self._destination.name, reason=verdict.reason)
            )
            self._sent += Counts(retries=1)
            retries += 1
            if verdict.after is None:
                await self._sleep(wait)
            else:
                self._limiter.pause(now + wait)

    def _given_up(self, verdict: Verdict) -> DestinationError:
        asked = f", and asks for {verdict.after:g} s" if verdict.after else ""
        return DestinationError(
            f"sync {self._sync}: {self._destination.name} fails ({verdict.reason}{asked}), and "
            f"`retry_deadline` ({self._retry.deadline:g} s) is over. Nothing was lost: run again "
            "when it is back, and the run goes on where it stopped."
        )

    async def _attempt(self, part: Part) -> Verdict:
        count = rows(part)
        async with AsyncExitStack() as held:
            async with self._next:
                await held.enter_async_context(self._permits)
                await self._pace()
                self._limiter.take(self._clock(), count)
            body = self._destination.envelope.wrap([piece.view for piece in part])
            request = self._destination.request(body)
            started = self._clock()
            answer = await self._transport.post(request)
        self._sent += Counts(requests=1, bytes_sent=len(body))
        self._report(answer, self._clock() - started, count, len(body), request.encoding)
        verdict = self._destination.judge(answer, self._wall_clock())
        if verdict.action in _ANSWERS:
            self._answered = self._clock()
        return verdict

    async def _pace(self) -> None:
        """Wait for the limiter, and for the end of a pause the destination asked for.

        The permit held meanwhile is no loss: the others wait for the same limiter.
        """
        while (wait := self._limiter.wait(self._clock())) > 0:
            cause = "retry_after" if self._limiter.paused(self._clock()) else "rate_limit"
            await self._sleep(wait)
            self._throttled(cause, wait)

    def _throttled(self, cause: str, seconds: float) -> None:
        if seconds >= _NOTABLE:
            name = self._destination.name
            self._observer(
                Throttled(sync=self._sync, destination=name, cause=cause, seconds=seconds)
            )

    def _report(
        self, answer: Answer, seconds: float, count: int, nbytes: int, encoding: str
    ) -> None:
        self._observer(
            Attempted(
                sync=self._sync,
                destination=self._destination.name,
                status=answer.status,
                error=answer.error or "",
                seconds=seconds,
                rows=count,
                nbytes=nbytes,
                encoding=encoding,
            )
        )

    def _halt(self, verdict: Verdict) -> DestinationError | CredentialsError:
        where = f"sync {self._sync}: {self._destination.name}"
        if verdict.credentials:
            return CredentialsError(
                f"{where} refuses the credentials ({verdict.reason}). Check the key and the region "
                f"in destinations.{self._destination.name}. Nothing was dropped."
            )
        return DestinationRefused(
            f"{where} refuses the request as such ({verdict.reason}). Check the endpoint in "
            f"destinations.{self._destination.name}. Nothing was dropped."
        )

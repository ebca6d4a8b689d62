"""Delivers Batches: pace, permit, post, judge; then done, again, apart, or halt.

A permit is held for one post only, never while waiting. Every attempt passes the limiter. A row
ends delivered or rejected, or the run ends; nothing is given up in silence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from pipeline.errors import CredentialsError, DestinationError, DestinationRefused, TooManyRejected
from pipeline.events import Attempted, Retried, Throttled
from pipeline.model import Action, Answer, Batch, DeadLetter, Delivery, Verdict
from pipeline.ports import Destination, Observer, Transport
from pipeline.send.cut import Part, halves, probes, refuse, rows
from pipeline.send.limiter import Limiter
from pipeline.send.retry import RetryPolicy

# How many single rows must all be refused before a fault counts as systemic. With half of a
# batch's rows bad, five probes are all bad once in 32 times; a halt loses nothing.
_PROBES = 5
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
        self._clock, self._wall_clock, self._sleep = clock, wall_clock, sleep

    async def deliver(self, batch: Batch) -> Delivery:
        """See `pipeline.ports.Deliverer`."""
        work = _Work(deadline=self._clock() + self._retry.deadline)
        await self._settle(batch.slices, work, probe=True)
        return Delivery(
            batch=batch,
            rejections=tuple(work.rejections),
            requests=work.requests,
            retries=work.retries,
            bytes_sent=work.bytes_sent,
        )

    async def _settle(self, part: Part, work: _Work, *, probe: bool) -> None:
        """Deliver or reject every row of the part."""
        verdict = await self._decide(part, work)
        if verdict.action is Action.DELIVERED:
            return
        if verdict.action is Action.REJECT or rows(part) == 1:
            work.rejections += refuse(part, verdict.reason, verdict.message)
            return
        parts = halves(part)
        if probe and rows(part) > _PROBES and not verdict.by_size:
            parts = await self._probe(part, work)
        for piece in parts:
            await self._settle(piece, work, probe=False)

    async def _probe(self, part: Part, work: _Work) -> tuple[Part, ...]:
        """Send a few rows alone; what is left to do. Raises when all of them are refused."""
        singles, between = probes(part, _PROBES)
        refused = []
        for single in singles:
            verdict = await self._decide(single, work)
            if verdict.action is not Action.DELIVERED:
                refused += refuse(single, verdict.reason, verdict.message)
        if len(refused) == len(singles):
            raise TooManyRejected(
                f"sync {self._sync}: {self._destination.name} refuses every row tried "
                f"({refused[0].reason}), which is no single row's fault. Nothing was dropped. "
                f"See what it says with `retl preview {self._sync}` and one row sent by hand."
            )
        work.rejections += refused
        return between

    async def _decide(self, part: Part, work: _Work) -> Verdict:
        """Post until the verdict is final: delivered, reject or split."""
        retries = 0
        while True:
            verdict = await self._attempt(part, work)
            if verdict.action is Action.HALT:
                raise self._halt(verdict)
            if verdict.action is not Action.RETRY:
                return verdict
            wait = self._retry.wait(retries, verdict)
            if self._clock() + wait > work.deadline:
                raise DestinationError(
                    f"sync {self._sync}: {self._destination.name} could not be reached for "
                    f"{self._retry.deadline:g} s ({verdict.reason}). Nothing was lost: run again "
                    "when it is back, and the run goes on where it stopped."
                )
            self._observer(
                Retried(sync=self._sync, destination=self._destination.name, reason=verdict.reason)
            )
            work.retries += 1
            retries += 1
            if verdict.after is None:
                await self._sleep(wait)
            else:
                self._limiter.pause(self._clock() + wait)

    async def _attempt(self, part: Part, work: _Work) -> Verdict:
        count = rows(part)
        await self._pace(count)
        async with self._permits:
            body = self._destination.envelope.wrap([piece.view for piece in part])
            request = self._destination.request(body)
            started = self._clock()
            answer = await self._transport.post(request)
        work.requests += 1
        work.bytes_sent += len(body)
        self._report(answer, self._clock() - started, count, len(body), request.encoding)
        return self._destination.judge(answer, self._wall_clock())

    async def _pace(self, count: int) -> None:
        """Wait for the limiter, then for the end of a pause the destination asked for."""
        wait = self._limiter.reserve(self._clock(), count)
        if wait > 0:
            await self._sleep(wait)
            self._throttled("rate_limit", wait)
        while (wait := self._limiter.paused(self._clock())) > 0:
            await self._sleep(wait)
            self._throttled("retry_after", wait)

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


class _Work:
    """What one delivery has cost so far."""

    __slots__ = ("bytes_sent", "deadline", "rejections", "requests", "retries")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.rejections: list[DeadLetter] = []
        self.requests = 0
        self.retries = 0
        self.bytes_sent = 0

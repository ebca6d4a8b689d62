"""The real Sender against simulated servers, under virtual time: an hour passes in a second.

A server has a latency, perhaps a queue, a token bucket, a cliff, an outage, rows that break it;
`phases` change it on the way. A scenario is a mapping, as in tests/faults/send_scenarios.yml.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import re
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import count
from math import ceil
from typing import Any

import numpy as np
import virtual_time

from pipeline.destination.verdicts import judge
from pipeline.errors import PipelineError
from pipeline.events import Event, Limited, Retried, Throttled
from pipeline.model import Answer, Batch, Envelope, Limits, Payloads, Request, Slice, Span, Verdict
from pipeline.send.concurrency import Adaptive, Fixed
from pipeline.send.limiter import Limiter
from pipeline.send.retry import RetryPolicy
from pipeline.send.sender import Sender

# Unix time at the loop's 0: in the middle of a second, as it is.
EPOCH = 1_800_000_000.4


@dataclass(frozen=True, kw_only=True)
class Server:
    """How a server is at some time; seconds, and shares of 1.

    workers: requests it works on at a time; more queue. rate, burst: its token bucket, of
    requests. status: of refusals. cliff, cliff_latency: with more than that in flight, all that
    arrives takes so long. failing: share that fails at random. down: everything fails.
    """

    latency: float = 0.05
    jitter: float = 0.0
    workers: int | None = None
    rate: float | None = None
    burst: float = 1.0
    status: int = 429
    retry_after: str | None = None
    cliff: int | None = None
    cliff_latency: float = 0.5
    failing: float = 0.0
    down: bool = False
    poison: tuple[int, ...] = ()


class Link:
    """A Destination and its Transport."""

    name = "simulated"
    limits = Limits(payload_bytes=100, batch_bytes=100_000, batch_rows=2_000)
    envelope = Envelope(prefix=b"[", separator=b",", suffix=b"]")

    def __init__(self, phases: list[tuple[float, Server]], seed: int) -> None:
        self._phases, self._random = phases, random.Random(seed)
        self._flying = 0
        self._free: list[float] = []
        self._tokens, self._filled = 0.0, 0.0
        self.departures: list[tuple[float, int]] = []
        self.accepted: list[bytes] = []

    def request(self, body: bytes) -> Request:
        return Request(url="", headers={}, body=body)

    def judge(self, answer: Answer, now: float) -> Verdict:
        return judge(answer, now)

    def warnings(self, payload: bytes, now: float) -> tuple[str, ...]:
        return ()

    async def post(self, request: Request) -> Answer:
        now = asyncio.get_running_loop().time()
        server = [server for start, server in self._phases if start <= now][-1]
        body = bytes(request.body)
        self.departures.append((now, body.count(b",") + 1))
        self._flying += 1
        try:
            status, seconds = self._serve(server, body, now)
            await asyncio.sleep(seconds)
        finally:
            self._flying -= 1
        now += seconds
        if status == 200:
            self.accepted.append(body)
        wish = _wish(server.retry_after, now) if status == server.status else None
        return Answer(status=status, retry_after=wish)

    async def close(self) -> None: ...

    def _serve(self, server: Server, body: bytes, now: float) -> tuple[int, float]:
        """The status, and after how many seconds it comes."""
        latency = server.latency * (1 + server.jitter * self._random.uniform(-1, 1))
        refusal = min(latency, 0.01)  # saying no is quick
        if server.down:
            return server.status, refusal
        if server.rate is not None and not self._token(server.rate, server.burst, now):
            return server.status, refusal
        if server.failing and self._random.random() < server.failing:
            return server.status, latency
        if server.poison and any(int(row) in server.poison for row in re.findall(rb"\d+", body)):
            return 500, latency
        if server.cliff is not None and self._flying > server.cliff:
            latency = server.cliff_latency
        return 200, self._queued(server.workers, latency, now)

    def _token(self, rate: float, burst: float, now: float) -> bool:
        self._tokens = min(burst, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1 - 1e-9:
            return False
        self._tokens -= 1
        return True

    def _queued(self, workers: int | None, latency: float, now: float) -> float:
        if workers is None:
            return latency
        free = self._free
        while len(free) > workers or (free and free[0] <= now):
            heapq.heappop(free)
        start = now if len(free) < workers else heapq.heappop(free)
        heapq.heappush(free, start + latency)
        return start + latency - now


def _wish(form: str | None, now: float) -> str | None:
    """Retry-After: `seconds 2` or `date 2`."""
    if form is None:
        return None
    kind, seconds = form.split()
    if kind == "seconds":
        return seconds
    at = ceil(EPOCH + now + float(seconds))
    return format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True)


@dataclass(kw_only=True)
class Outcome:
    """What came of a scenario. Times are the loop's."""

    departures: list[tuple[float, int]]
    accepted: list[bytes]
    delivered: list[float] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    limits: list[tuple[float, int]] = field(default_factory=list)
    retried: list[tuple[float, str]] = field(default_factory=list)
    error: PipelineError | None = None
    ended: float = 0.0

    @property
    def wasted(self) -> float:
        """Share of the requests that achieved nothing."""
        return 1 - len(self.delivered) / len(self.departures)

    def throughput(self, start: float, stop: float) -> float:
        """Batches delivered per second."""
        return sum(start <= at < stop for at in self.delivered) / (stop - start)

    def requests(self, start: float, stop: float) -> int:
        return sum(start <= at < stop for at, _ in self.departures)

    def busiest_second(self, *, rows: bool = False) -> int:
        """The most requests, or rows, that left within any second."""
        times = [at for at, _ in self.departures]
        units = np.cumsum([0, *[number if rows else 1 for _, number in self.departures]])
        ends = [bisect_left(times, at + 1 - 1e-6) for at in times]
        return max(int(units[end] - units[start]) for start, end in enumerate(ends))

    def rows_accepted(self, first: int, stop: int) -> list[int]:
        """The rows of a range that arrived, each as often as it did; in order."""
        arrived = [int(row) for body in self.accepted for row in re.findall(rb"\d+", body)]
        return sorted(row for row in arrived if first <= row < stop)

    def throttled(self, cause: str) -> float:
        heard = (e for e in self.events if isinstance(e, Throttled) and e.cause == cause)
        return sum(event.seconds for event in heard)


def batch(first: int, rows: int) -> Batch:
    texts = [b"%d," % row for row in range(first, first + rows)]
    payloads = Payloads(
        data=memoryview(b"".join(texts)),
        offsets=np.cumsum([0, *map(len, texts)]).astype(np.int64),
        span=Span(stream=0, first=first, rows=rows),
    )
    return Batch(slices=(Slice(payloads, 0, rows),), span=payloads.span, nbytes=len(payloads.data))


def simulate(scenario: dict[str, Any], *, fixed: int | None = None, seed: int = 7) -> Outcome:
    """Run it. fixed: with so many requests in flight instead of its own setting."""
    return virtual_time.run(_simulate(scenario, fixed, seed))


async def _simulate(scenario: dict[str, Any], fixed: int | None, seed: int) -> Outcome:
    loop = asyncio.get_running_loop()
    first = Server(**scenario["server"])
    phases, server = [(0.0, first)], first
    for change in scenario.get("phases", []):
        server = replace(server, **{key: to for key, to in change.items() if key != "at"})
        phases.append((float(change["at"]), server))
    link = Link(phases, seed)
    outcome = Outcome(departures=link.departures, accepted=link.accepted)
    settings = scenario.get("send", {})

    def hear(event: Event) -> None:
        outcome.events.append(event)
        if isinstance(event, Retried):
            outcome.retried.append((loop.time(), event.reason))
        if isinstance(event, Limited):
            outcome.limits.append((loop.time(), event.limit))

    sender = Sender(
        sync="users",
        destination=link,
        transport=link,
        limiter=Limiter(
            requests=settings.get("requests_per_second"),
            rows=settings.get("rows_per_second"),
            burst=settings.get("burst", 1),
        ),
        retry=RetryPolicy(deadline=settings.get("retry_deadline", 900.0)),
        concurrency=Fixed(fixed) if fixed else Adaptive(settings.get("max_concurrency", 64)),
        observer=hear,
        clock=loop.time,
        wall_clock=lambda: EPOCH + loop.time(),
        uniform=random.Random(seed).uniform,
    )
    await _drive(sender, scenario, outcome)
    outcome.ended = loop.time()
    return outcome


async def _drive(sender: Sender, scenario: dict[str, Any], outcome: Outcome) -> None:
    """As many batches outstanding as a byte budget lets be, until the time is over."""
    loop = asyncio.get_running_loop()
    rows, room = scenario.get("rows", 1), asyncio.Semaphore(scenario.get("outstanding", 128))

    async def deliver(one: Batch) -> None:
        await sender.deliver(one)
        outcome.delivered.append(loop.time())
        room.release()

    try:
        async with asyncio.TaskGroup() as group:
            for number in count():
                await room.acquire()
                if loop.time() >= scenario["seconds"] or number >= scenario.get("batches", 10**9):
                    break
                group.create_task(deliver(batch(number * rows, rows)))
    except* PipelineError as errors:
        outcome.error = errors.exceptions[0]  # type: ignore[assignment]

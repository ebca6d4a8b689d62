"""A discrete-event model of shards: processes that deliver one Run together, some of which die.

What decides is the engine's own: `Share` says whose a stream is, `Limiter` when a request may go,
`Adaptive` how many are in flight, `Ledger` what a Checkpoint covers. What waits is modelled: reads,
encoding, answers, commits, leases, Kubernetes. Times are seconds of a virtual clock that begins
when the read session is there. It knows no asyncio, no store and no cluster.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count

from _shards_case import Case, Outcomes

from pipeline.checkpoint.ledger import Ledger
from pipeline.model import Span
from pipeline.ports import Share
from pipeline.send.concurrency import Adaptive, Outcome
from pipeline.send.limiter import Limiter

# The engine's: pipeline/run/engine.py, pipeline/checkpoint/store.py, pipeline/run/shards.py. A test
# holds them to it.
COMMIT_EVERY, LEASE, POLL = 1.0, 15.0, 1.0
# kubernetes/pkg/controller/job: DefaultJobPodFailureBackOff and MaxJobPodFailureBackOff. Failures
# that are ignored (a drained node) are waited for like the others.
_BACK_OFF, _MOST_BACK_OFF = 10.0, 600.0


def run(case: Case) -> Outcomes:
    """Play a case to its end."""
    return _World(case).play()


class _World:
    """The clock, what is durable, and Kubernetes."""

    def __init__(self, case: Case) -> None:
        self.case, self.now, self.out = case, 0.0, Outcomes()
        self.random = random.Random(case.seed)  # noqa: S311 - a model, no secret
        self.durable = [0] * len(case.sizes)
        self.unfinished = list(range(case.shards))
        self._expires = [-math.inf] * case.shards
        self._failures = [0] * case.shards
        self._pods: dict[int, _Process] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._lately: deque[float] = deque()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do something then."""
        heapq.heappush(self._events, (max(when, self.now), next(self._order), what))

    def play(self) -> Outcomes:
        """Until every shard is done."""
        for shard in range(self.case.shards):
            # They look once a second whether the session is there.
            self.at(self.random.uniform(0, POLL), partial(self._join, shard))
        for when, shard in self.case.deaths:
            self.at(when, partial(self._kill, shard))
        while self._events and self.unfinished:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.out.settled = sum(self.durable)
        return self.out

    def _join(self, shard: int) -> None:
        if self._expires[shard] > self.now:
            self.at(self.now + POLL, partial(self._join, shard))
            return
        self.out.joined.append(self.now)
        self._pods[shard] = _Process(self, shard)

    def _kill(self, shard: int) -> None:
        process = self._pods.get(shard)
        if process is None or not process.alive:
            return
        if self.case.drained:
            process.stop()
        else:
            process.die()

    def gone(self, shard: int) -> None:
        """Its process has ended before its part was over: Kubernetes makes another."""
        self._failures[shard] += 1
        back_off = min(_BACK_OFF * 2 ** (self._failures[shard] - 1), _MOST_BACK_OFF)
        self.at(self.now + back_off + self.case.start, partial(self._join, shard))

    def commit(self, shard: int, checkpoints: dict[int, int]) -> Share:
        """One transaction; the shard's share of the rate limit from now on."""
        for stream, rows in checkpoints.items():
            self.durable[stream] = rows
        self._expires[shard] = self.now + LEASE
        self.out.transactions += 1
        self.out.checkpoints += len(checkpoints)
        return Share(place=self.unfinished.index(shard), of=len(self.unfinished))

    def finish(self, shard: int, *, done: bool) -> None:
        """End the lease, and the shard's part if it is done."""
        self.out.transactions += 1
        self._expires[shard] = -math.inf
        if done:
            self.unfinished.remove(shard)
            self.out.ended[shard] = self.now

    def left(self, rows: int) -> None:
        """A request leaves."""
        self.out.sent += rows
        self.out.requests += 1
        self._lately.append(self.now)
        while self._lately[0] <= self.now - 1.0 + 1e-9:
            self._lately.popleft()
        self.out.widest = max(self.out.widest, len(self._lately))


@dataclass(slots=True)
class _Reader:
    """One of the streams that are read at a time."""

    stream: int = -1
    at: int = 0
    arrives: float = 0.0  # the frame that is on its way


class _Process:
    """A shard's process, from its join to its end: reads, encodes, sends, settles, commits."""

    def __init__(self, world: _World, shard: int) -> None:
        self.alive = True
        self._world, self._case, self._shard = world, world.case, shard
        case, mine = world.case, Share(place=shard, of=world.case.shards)
        streams = [number for number in range(len(case.sizes)) if mine.has(number)]
        self._ledger = Ledger({number: world.durable[number] for number in streams})
        self._streams: Iterator[int] = iter(streams)
        self._readers = min(case.reads, len(streams))
        self._limiter = Limiter(requests=case.rate, processes=case.shards)
        self._permits = Adaptive(case.permits)
        self._packed: deque[Span] = deque()
        self._blocked: deque[tuple[_Reader, int]] = deque()
        self._held = self._flying = 0
        self._encoder_free = world.now
        self._wakes = math.inf
        self._stopping = False
        self._commit_often()
        for _ in range(self._readers):
            self._next_stream(_Reader())
        self._end_if_over()

    # ------------------------------------------------------------------- reading, encoding

    def _next_stream(self, reader: _Reader) -> None:
        for number in self._streams:
            reader.stream, reader.at = number, self._world.durable[number]
            if reader.at < self._case.sizes[number]:
                reader.arrives = self._world.now + self._case.opening
                self._read(reader)
                return
        self._readers -= 1
        self._end_if_over()

    def _read(self, reader: _Reader) -> None:
        if self._stopping:
            self._readers -= 1
            self._end_if_over()
            return
        rows = min(self._case.request_rows, self._case.sizes[reader.stream] - reader.at)
        now = self._world.now
        # The next frame is on its way while this one is worked on.
        reader.arrives = max(now, reader.arrives + rows / self._case.stream)
        self._at(reader.arrives, partial(self._encode, reader, rows))

    def _encode(self, reader: _Reader, rows: int) -> None:
        if self._held + rows > self._case.buffer:
            self._blocked.append((reader, rows))
            return
        self._held += rows
        self._encoder_free = max(self._world.now, self._encoder_free) + rows / self._case.encode
        self._at(self._encoder_free, partial(self._encoded, reader, rows))

    def _encoded(self, reader: _Reader, rows: int) -> None:
        self._packed.append(Span(stream=reader.stream, first=reader.at, rows=rows))
        reader.at += rows
        self._send()
        if reader.at < self._case.sizes[reader.stream]:
            self._read(reader)
        else:
            self._next_stream(reader)

    # ------------------------------------------------------------------- sending, settling

    def _send(self) -> None:
        now = self._world.now
        while self._packed and not self._permits.full:
            rows = self._packed[0].rows
            wait = max(self._limiter.wait(now, rows), self._permits.wait(now))
            if wait > 0:
                if now + wait < self._wakes or self._wakes <= now:
                    self._wakes = now + wait
                    self._at(self._wakes, self._send)
                return
            span = self._packed.popleft()
            self._limiter.take(now, rows)
            number, latency = self._permits.start(now), self._latency()
            self._flying += 1
            self._world.left(rows)
            self._at(now + latency, partial(self._answered, span, number, latency))

    def _latency(self) -> float:
        return self._case.latency * self._world.random.uniform(0.7, 1.3)

    def _answered(self, span: Span, number: int, latency: float) -> None:
        self._permits.learn(number, self._world.now, latency, Outcome.DELIVERED)
        self._permits.end()
        self._flying -= 1
        self._held -= span.rows
        self._ledger.settle(span)
        self._send()
        if self._blocked:
            self._encode(*self._blocked.popleft())
        self._end_if_over()

    # ------------------------------------------------------------------- commits, ends

    def _commit(self) -> None:
        share = self._world.commit(self._shard, self._ledger.checkpoints())
        self._limiter.share(self._world.now, share.place, share.of)

    def _commit_often(self) -> None:
        self._commit()
        self._at(self._world.now + COMMIT_EVERY, self._commit_often)

    def _end_if_over(self) -> None:
        if self.alive and not (self._readers or self._packed or self._flying):
            self._end()

    def _end(self) -> None:
        """Commit the last of it; the shard is done, or waits for another process."""
        self._commit()
        self.alive = False
        self._world.finish(self._shard, done=not self._stopping)
        if self._stopping:
            self._world.gone(self._shard)

    def stop(self) -> None:
        """SIGTERM: no more reading; what is encoded is sent, as far as the time goes."""
        self._stopping = True
        self._readers -= len(self._blocked)
        self._blocked.clear()
        self._at(self._world.now + self._case.drain, self._end)
        self._end_if_over()

    def die(self) -> None:
        """SIGKILL: what was settled since the last commit, or was in flight, is sent again."""
        self.alive = False
        self._world.gone(self._shard)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._world.at(when, partial(self._if_alive, what))

    def _if_alive(self, what: Callable[[], None]) -> None:
        if self.alive:
            what()

"""The real Sender, kept in order by user, against a scripted destination under virtual time.

A row's payload is its number, and the script tells by the numbers of a request how it ends. What
was posted is checked against the promise of `ordering: per_user`.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.destination.verdicts import judge
from pipeline.encode.packer import Packer
from pipeline.errors import PipelineError
from pipeline.model import (
    Answer,
    Batch,
    Delivery,
    Envelope,
    Limits,
    Payloads,
    Request,
    Slice,
    Span,
    Verdict,
)
from pipeline.send.concurrency import Fixed
from pipeline.send.limiter import Limiter
from pipeline.send.ordered import Ordered
from pipeline.send.retry import RetryPolicy
from pipeline.send.sender import Sender


def text(row: int) -> bytes:
    """A row's payload: its number, and zeros of many or few."""
    return b"%0*d" % (4 + row * 7 % 23, row)


@dataclass
class Post:
    """One request: its rows, when it began and ended, and its status."""

    rows: list[int]
    began: float
    ended: float = float("inf")
    status: int = -1


Script = Callable[[float, list[int]], tuple[int, float]]
"""(time, rows) -> (status, seconds until it comes)."""


@dataclass
class Api:
    """A Destination and its Transport."""

    script: Script
    limits: Limits = field(
        default_factory=lambda: Limits(payload_bytes=100, batch_bytes=10_000, batch_rows=100)
    )
    name = "api"
    envelope = Envelope(prefix=b"[", separator=b",", suffix=b"]")
    posts: list[Post] = field(default_factory=list)
    pattern: bytes = rb"(\d+)"

    def request(self, body: bytes) -> Request:
        assert len(body) <= self.limits.batch_bytes
        return Request(url="", headers={}, body=body)

    def judge(self, answer: Answer, now: float) -> Verdict:
        return judge(answer, now, "because")

    def warnings(self, payload: bytes, now: float) -> tuple[str, ...]:
        return ()

    async def post(self, request: Request) -> Answer:
        loop = asyncio.get_running_loop()
        rows = [int(digits) for digits in re.findall(self.pattern, bytes(request.body))]
        assert len(rows) <= self.limits.batch_rows
        post = Post(rows, loop.time())
        self.posts.append(post)
        status, seconds = self.script(post.began, rows)
        await asyncio.sleep(seconds)
        post.ended, post.status = loop.time(), status
        return Answer(status=status)

    async def close(self) -> None: ...


def packed(users: Sequence[int], limits: Limits, *, frame: int = 7, odd: int = 0) -> list[Batch]:
    """The Batches of rows about these users, out of RecordBatches of `frame` rows.

    odd: every so manyth row is invalid, and has no payload; 0: none.
    """
    packer = Packer(limits, Api.envelope, stream=0, first=0)
    found: list[Batch] = []
    for first in range(0, len(users), frame):
        rows = range(first, min(first + frame, len(users)))
        valid = [row for row in rows if not odd or row % odd]
        texts = [text(row) + b"," for row in valid]
        found += packer.add(
            Payloads(
                data=memoryview(b"".join(texts)),
                offsets=np.cumsum([0, *map(len, texts)]).astype(np.int64),
                span=Span(stream=0, first=first, rows=len(rows)),
                rows=np.array(valid, np.int64) if len(valid) < len(rows) else None,
                users=np.array([users[row] for row in valid], np.uint64),
            )
        )
    return [batch for batch in (*found, *packer.flush()) if batch.slices]


def ordered(
    api: Api,
    *,
    concurrency: int = 4,
    deadline: float = 1e6,
    seed: int = 1,
    limiter: Limiter | None = None,
) -> Ordered:
    """Takes the time of the running loop."""
    loop = asyncio.get_running_loop()
    sender = Sender(
        sync="users",
        destination=api,
        transport=api,
        limiter=limiter or Limiter(),
        retry=RetryPolicy(deadline=deadline),
        concurrency=Fixed(concurrency),
        observer=lambda _event: None,
        clock=loop.time,
        wall_clock=loop.time,
        uniform=random.Random(seed).uniform,
    )
    return Ordered(sender, api)


@dataclass
class Outcome:
    """The deliveries in the order of their ends, and when each ended."""

    deliveries: list[Delivery] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    error: PipelineError | None = None


async def deliver_all(
    one: Ordered, batches: Sequence[Batch], *, outstanding: int = 10**6, gaps: Sequence[float] = ()
) -> Outcome:
    """As the run does: one task for each Batch, started in order; so many at a time."""
    outcome, room = Outcome(), asyncio.Semaphore(outstanding)

    async def deliver(batch: Batch) -> None:
        delivery = await one.deliver(batch)
        outcome.deliveries.append(delivery)
        outcome.times.append(asyncio.get_running_loop().time())
        room.release()

    try:
        async with asyncio.TaskGroup() as group:
            for index, batch in enumerate(batches):
                await room.acquire()
                group.create_task(deliver(batch))
                if gaps and gaps[index % len(gaps)]:
                    await asyncio.sleep(gaps[index % len(gaps)])
    except* PipelineError as errors:
        outcome.error = errors.exceptions[0]  # type: ignore[assignment]
    return outcome


def rows_of(batch: Batch) -> list[int]:
    return [_row(piece, index) for piece in batch.slices for index in range(piece.rows)]


def _row(piece: Slice, index: int) -> int:
    return piece.payloads.row(piece.start + index)


def check_order(posts: Sequence[Post], users: Sequence[int]) -> None:
    """No user's rows twice at once, and none of them before all earlier ones were answered for."""
    last_end: dict[int, float] = {}
    expected: dict[int, list[int]] = {}
    for row, user in enumerate(users):
        expected.setdefault(user, []).append(row)
    settled: dict[int, int] = dict.fromkeys(expected, 0)  # of each user's rows, as a count
    for post in sorted(posts, key=lambda post: (post.began, post.ended)):
        mine: dict[int, list[int]] = {}
        for row in post.rows:
            mine.setdefault(users[row], []).append(row)
        for user, rows in mine.items():
            assert post.began >= last_end.get(user, 0.0), f"user {user} is out twice at once"
            last_end[user] = post.ended
            start = settled[user]
            assert rows == expected[user][start : start + len(rows)], f"user {user} is overtaken"
            if post.status == 200 or (post.status == 400 and len(post.rows) == 1):
                settled[user] += len(rows)

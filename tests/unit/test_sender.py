from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import virtual_time

from pipeline.destination.verdicts import judge
from pipeline.errors import CredentialsError, DestinationError, DestinationRefused, TooManyRejected
from pipeline.events import Event, Throttled
from pipeline.model import (
    Answer,
    Batch,
    Counts,
    Envelope,
    Limits,
    Payloads,
    Request,
    Slice,
    Span,
    Verdict,
)
from pipeline.send.allowance import RetryAllowance
from pipeline.send.concurrency import Adaptive, Fixed
from pipeline.send.limiter import Limiter
from pipeline.send.retry import RetryPolicy
from pipeline.send.sender import Sender


class Api:
    """A destination and its transport in one: answers by a function of the rows posted."""

    name = "api"
    limits = Limits(payload_bytes=100, batch_bytes=10_000, batch_rows=1_000)
    envelope = Envelope(prefix=b"[", separator=b",", suffix=b"]")

    def __init__(self, answer: Callable[[list[int]], Answer]) -> None:
        self.answer = answer
        self.posts: list[list[int]] = []
        self.flying = self.most_flying = 0

    def request(self, body: bytes) -> Request:
        return Request(url="", headers={}, body=body)

    def judge(self, answer: Answer, now: float) -> Verdict:
        return judge(answer, now, "because")

    async def post(self, request: Request) -> Answer:
        rows = [int(digits) for digits in re.findall(rb"\d+", bytes(request.body))]
        self.posts.append(rows)
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await asyncio.sleep(0)
        finally:
            self.flying -= 1
        return self.answer(rows)

    async def close(self) -> None: ...


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def batch(rows: int) -> Batch:
    texts = [b"%d," % row for row in range(rows)]
    payloads = Payloads(
        data=memoryview(b"".join(texts)),
        offsets=np.cumsum([0, *map(len, texts)]).astype(np.int64),
        span=Span(stream=0, first=0, rows=rows),
    )
    half = rows // 2
    slices = (
        (Slice(payloads, 0, half), Slice(payloads, half, rows))
        if half
        else (Slice(payloads, 0, rows),)
    )
    return Batch(slices=slices, span=payloads.span, nbytes=len(payloads.data))


def sender(
    api: Api,
    clock: Clock,
    *,
    deadline: float = 60.0,
    concurrency: int = 4,
    limiter: Limiter | None = None,
    events: list[Event] | None = None,
) -> Sender:
    heard = [] if events is None else events
    return Sender(
        sync="users",
        destination=api,
        transport=api,
        limiter=limiter or Limiter(),
        retry=RetryPolicy(deadline=deadline),
        concurrency=Fixed(concurrency),
        observer=heard.append,
        clock=clock,
        wall_clock=clock,
        sleep=clock.sleep,
        uniform=Random(1).uniform,
    )


def refusing(bad: Iterable[int]) -> Callable[[list[int]], Answer]:
    refused = set(bad)
    return lambda rows: Answer(status=400 if refused.intersection(rows) else 200)


def scripted(*answers: Answer) -> Callable[[list[int]], Answer]:
    queue = list(answers)
    return lambda _rows: queue.pop(0) if len(queue) > 1 else queue[0]


async def test_a_batch_is_delivered_in_one_request() -> None:
    api = Api(lambda _rows: Answer(status=202))
    one = sender(api, Clock())
    delivery = await one.deliver(batch(5))
    assert api.posts == [[0, 1, 2, 3, 4]]
    assert delivery.rejections == ()
    assert one.sent == Counts(requests=1, bytes_sent=len("[0,1,2,3,4]"))


# What it costs to find the bad rows: the whole, five single rows, the four stretches between them,
# and two requests per level of each stretch that holds a bad row.
@pytest.mark.parametrize(
    ("rows", "bad", "requests"),
    [
        (1400, [], 1),
        (1400, [17], 28),
        (1400, [1399], 10),  # a probe finds it
        (1400, [0, 350, 700, 1100, 1399], 60),
        (1400, [3, 351, 701, 1101, 1390], 88),
        (1400, range(200, 220), 68),  # side by side
        (1400, range(40, 1400, 70), 278),  # 20, far apart
        (6, [2], 7),
        (2, [0, 1], 3),
        (1, [0], 1),
    ],
)
async def test_only_the_bad_rows_are_rejected_and_at_what_cost(
    rows: int, bad: Iterable[int], requests: int
) -> None:
    api = Api(refusing(bad))
    one = sender(api, Clock())
    delivery = await one.deliver(batch(rows))
    assert [letter.row for letter in sorted(delivery.rejections, key=lambda x: x.row)] == list(bad)
    assert {letter.reason for letter in delivery.rejections} <= {"rejected_400"}
    assert {letter.message for letter in delivery.rejections} <= {"because"}
    assert all(letter.payload == b"%d" % letter.row for letter in delivery.rejections)
    accepted = [row for post in api.posts if not set(post) & set(bad) for row in post]
    assert sorted(accepted) == [row for row in range(rows) if row not in set(bad)]
    assert one.sent.requests == len(api.posts) == requests
    # In general, of at most 2,500 rows: a stretch has 625, which are halved ten times.
    assert requests <= 10 + 2 * 10 * len(list(bad))


async def test_all_rows_bad_is_nobodys_fault_and_halts_soon() -> None:
    api = Api(lambda _rows: Answer(status=422))
    with pytest.raises(TooManyRejected, match="no single row's fault"):
        await sender(api, Clock()).deliver(batch(1400))
    assert len(api.posts) == 6


async def test_too_large_is_split_by_bytes_until_it_fits() -> None:
    api = Api(lambda rows: Answer(status=413 if len(rows) > 3 else 200))
    delivery = await sender(api, Clock()).deliver(batch(12))
    assert delivery.rejections == ()
    # 10 and 11 have two digits: half of the bytes are before 7.
    assert [len(post) for post in api.posts] == [12, 7, 5, 4, 3, 3, 2, 2, 2]
    alone = await sender(Api(lambda _r: Answer(status=413)), Clock()).deliver(batch(1))
    assert [letter.reason for letter in alone.rejections] == ["rejected_413"]


async def test_after_too_large_all_bad_still_halts() -> None:
    api = Api(lambda rows: Answer(status=413 if len(rows) > 10 else 400))
    with pytest.raises(TooManyRejected, match="no single row's fault"):
        await sender(api, Clock()).deliver(batch(20))
    assert [len(post) for post in api.posts] == [20, 12, 8, 1, 1, 1, 1, 1]


async def test_a_rows_limit_cuts_batches() -> None:
    clock, left = Clock(), []

    def answer(rows: list[int]) -> Answer:
        left.append((clock.now, len(rows)))
        return Answer(status=200)

    await sender(Api(answer), clock, limiter=Limiter(rows=1000.0)).deliver(batch(1400))
    assert [count for _, count in left] == [100] * 14
    assert [at for at, _ in left] == pytest.approx([i / 10 for i in range(14)])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 0])
async def test_passing_faults_are_tried_again(status: int) -> None:
    api = Api(scripted(*[Answer(status=status, error="reset")] * 3, Answer(status=200)))
    clock = Clock()
    one = sender(api, clock)
    await one.deliver(batch(3))
    assert (one.sent.requests, one.sent.retries) == (4, 3)
    assert len(clock.slept) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, CredentialsError),
        (403, CredentialsError),
        (404, DestinationRefused),
        (405, DestinationRefused),
        (501, DestinationRefused),
        (302, DestinationRefused),
    ],
)
async def test_refusals_of_the_request_halt_at_once(status: int, error: type[Exception]) -> None:
    api = Api(lambda _rows: Answer(status=status))
    with pytest.raises(error, match="Nothing was dropped"):
        await sender(api, Clock()).deliver(batch(3))
    assert len(api.posts) == 1


async def test_the_deadline_ends_the_run_and_names_the_remedy() -> None:
    clock = Clock()
    one = sender(Api(lambda _r: Answer(status=0, error="connect")), clock)
    with pytest.raises(DestinationError, match=r"\(connect\).*60 s.*run again"):
        await one.deliver(batch(3))
    assert clock.now == pytest.approx(60)  # to the end, and not beyond it
    assert one.sent.requests == one.sent.retries + 1


async def test_a_wish_beyond_the_deadline_is_not_waited_for() -> None:
    clock = Clock()
    api = Api(lambda _r: Answer(status=503, retry_after="90"))
    with pytest.raises(DestinationError, match="asks for 90 s"):
        await sender(api, clock).deliver(batch(3))
    assert (clock.now, len(api.posts)) == (0, 1)


async def test_a_wish_for_no_wait_does_not_become_a_storm() -> None:
    clock = Clock()
    api = Api(lambda _r: Answer(status=503, retry_after="0"))
    with pytest.raises(DestinationError):
        await sender(api, clock).deliver(batch(3))
    assert len(api.posts) < 60


async def test_two_failures_far_apart_are_no_outage() -> None:
    clock, seen = Clock(), [0]

    def answer(_rows: list[int]) -> Answer:
        seen[0] += 1
        return Answer(status=503 if seen[0] in {1, 31} else 200)

    # Thirty batches wait for a turn each ten seconds: the first one's second turn comes late.
    one = sender(Api(answer), clock, limiter=Limiter(requests=0.1), deadline=60.0)
    await asyncio.gather(*(one.deliver(batch(2)) for _ in range(30)))
    assert clock.now > 300
    assert one.sent.retries == 2


async def test_waiting_for_a_turn_is_no_failure() -> None:
    clock = Clock()
    one = sender(
        Api(scripted(Answer(status=503), Answer(status=200))), clock, limiter=Limiter(rows=0.01)
    )
    one._limiter.take(0.0, 10)  # the next one may go in 1,000 s
    await one.deliver(batch(1))
    assert clock.now > 1_000


async def test_nothing_leaves_during_a_pause_or_faster_than_the_rate_after_it() -> None:
    clock, left = Clock(), []

    def answer(_rows: list[int]) -> Answer:
        left.append(clock.now)
        return Answer(status=429, retry_after="5") if len(left) == 1 else Answer(status=200)

    one = sender(Api(answer), clock, limiter=Limiter(requests=10.0), concurrency=1)
    await asyncio.gather(*(one.deliver(batch(2)) for _ in range(30)))
    assert not [at for at in left[1:] if at < 5.0]
    assert all(b - a >= 0.0999 for a, b in pairwise(left))


async def test_retry_after_pauses_every_sender() -> None:
    events: list[Event] = []
    api = Api(scripted(Answer(status=429, retry_after="7"), Answer(status=200)))
    clock = Clock()
    one = sender(api, clock, events=events)
    await one.deliver(batch(2))
    assert 7.0 <= clock.now <= 7.7
    paused = [e for e in events if isinstance(e, Throttled)]
    assert [e.cause for e in paused] == ["retry_after"]
    limiter = Limiter()
    limiter.pause(20.0)
    clock = Clock()
    await sender(Api(lambda _r: Answer(status=200)), clock, limiter=limiter).deliver(batch(1))
    assert clock.now == 20.0


async def test_permits_bound_what_is_in_flight_and_are_not_held_while_waiting() -> None:
    failing = {0}
    api = Api(lambda rows: Answer(status=503) if rows[0] in failing else Answer(status=200))
    clock, gate, tried = Clock(), asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        failing.clear()
        tried.set()
        await gate.wait()

    one = sender(api, clock, concurrency=1)
    one._sleep = sleep
    waiting = asyncio.create_task(one.deliver(batch(2)))
    await tried.wait()
    await one.deliver(batch(2))  # gets the permit while the first one backs off
    gate.set()
    await waiting
    assert one.sent.retries == 1

    api = Api(lambda _rows: Answer(status=200))
    many = sender(api, clock, concurrency=3)
    await asyncio.gather(*(many.deliver(batch(2)) for _ in range(20)))
    assert api.most_flying == 3


async def test_every_attempt_passes_the_rate_limit() -> None:
    api = Api(scripted(Answer(status=500), Answer(status=500), Answer(status=200)))
    clock, limiter = Clock(), Limiter(requests=0.1)
    await sender(api, clock, limiter=limiter).deliver(batch(1))
    assert clock.now >= 20.0


# ------------------------------------------------------------------------------- outages


async def test_an_outage_lets_one_request_through_at_a_time() -> None:
    down = True
    api = Api(lambda _rows: Answer(status=503 if down else 200))
    clock, events = Clock(), list[Event]()
    one = sender(api, clock, concurrency=20, deadline=10_000.0, events=events)
    tasks = [asyncio.create_task(one.deliver(batch(2))) for _ in range(50)]
    while clock.now < 300.0:  # noqa: ASYNC110 - it is the clock's time, not an event
        await asyncio.sleep(0)
    # Twenty at once, and then pauses of half a second to half a minute.
    assert 20 <= len(api.posts) < 45
    api.most_flying = 0
    while clock.now < 600.0:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert api.most_flying == 1
    down = False
    await asyncio.gather(*tasks)
    assert "circuit" in {e.cause for e in events if isinstance(e, Throttled)}
    assert not one._circuit.is_open


@pytest.mark.parametrize("concurrency", [1, 2, 40])
async def test_an_outage_ends_the_run_by_its_own_start(concurrency: int) -> None:
    clock = Clock()
    one = sender(Api(lambda _r: Answer(status=503)), clock, concurrency=concurrency, deadline=100.0)
    tasks = [asyncio.create_task(one.deliver(batch(2))) for _ in range(40)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    assert isinstance(done.pop().exception(), DestinationError)
    assert clock.now == pytest.approx(100.0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# ------------------------------------------------------------------------------- poison


def poisoned(*rows: int) -> Callable[[list[int]], Answer]:
    return lambda posted: Answer(status=500 if set(rows).intersection(posted) else 200)


async def keep_busy(one: Sender, failing: asyncio.Task[object]) -> None:
    """Other batches get through all the while."""
    while not failing.done():
        await one.deliver(batch(1))
        await asyncio.sleep(0)


async def test_a_row_that_breaks_the_destination_is_cut_out_and_ends_the_run() -> None:
    clock = Clock()
    api = Api(poisoned(500, 900))
    one = sender(api, clock, deadline=60.0, limiter=Limiter(requests=10.0))
    failing = asyncio.create_task(one.deliver(batch(1000)))
    await keep_busy(one, failing)
    with pytest.raises(DestinationError, match=r"http_500.* on row 500 of stream 0.*Nothing was"):
        await failing
    assert 60.0 <= clock.now < 120.0
    arrived = {row for post in api.posts if not {500, 900} & set(post) for row in post}
    assert arrived == set(range(1000)) - {500, 900}


async def test_a_row_that_breaks_it_only_for_a_while_is_delivered() -> None:
    clock = Clock()
    api = Api(lambda rows: Answer(status=500 if 7 in rows and clock.now < 100.0 else 200))
    one = sender(api, clock, deadline=900.0, limiter=Limiter(requests=10.0))
    failing = asyncio.create_task(one.deliver(batch(16)))
    await keep_busy(one, failing)
    assert (await failing).rejections == ()
    assert any(post == [7] for post in api.posts)


async def test_bad_luck_is_not_poison() -> None:
    """Where half of all requests fail, batches are not cut to pieces for it."""
    clock, random = Clock(), Random(5)
    api = Api(lambda _rows: Answer(status=500 if random.random() < 0.6 else 200))
    one = sender(api, clock, deadline=900.0, concurrency=16)
    await asyncio.gather(*(one.deliver(batch(10)) for _ in range(300)))
    assert {len(post) for post in api.posts} == {10}


async def test_pauses_that_were_asked_for_make_no_row_suspect() -> None:
    clock = Clock()
    api = Api(
        lambda rows: (
            Answer(status=503, retry_after="1")
            if len(rows) == 8 and clock.now < 60.0
            else Answer(status=200)
        )
    )
    one = sender(api, clock, deadline=900.0, limiter=Limiter(requests=10.0))
    failing = asyncio.create_task(one.deliver(batch(8)))
    await keep_busy(one, failing)
    assert {len(post) for post in api.posts} == {1, 8}


# ------------------------------------------------------------------------------- cancellation

TROUBLES: dict[str, list[Answer]] = {
    "all well": [],
    "bad rows": [],
    "throttled": [Answer(status=429)] * 6,
    "asked to wait": [Answer(status=503, retry_after="2")] * 3,
    "down": [Answer(status=503)] * 30,
}


@pytest.mark.parametrize("everybody", [False, True], ids=["one of three", "everybody"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_cancellation_leaks_nothing_wherever_it_strikes(trouble: str, *, everybody: bool) -> None:
    """After every possible number of steps of the event loop: so at every await."""
    steps = 1
    while virtual_time.run(_cancelled_at(steps, trouble, everybody=everybody)):
        steps += 1  # until there is nothing left to cancel
    assert steps >= (3 if trouble == "all well" else 15)


async def _cancelled_at(steps: int, trouble: str, *, everybody: bool) -> bool:
    """Whether there was still something to cancel."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, virtual_time.VirtualLoop)
    well = refusing([3]) if trouble == "bad rows" else lambda _rows: Answer(status=200)
    troubles = list(TROUBLES[trouble])
    api = Api(lambda rows: troubles.pop() if troubles else well(rows))
    one = Sender(
        sync="users",
        destination=api,
        transport=api,
        limiter=Limiter(requests=10.0),
        retry=RetryPolicy(deadline=900.0),
        concurrency=Adaptive(2),
        observer=lambda _event: None,
        clock=loop.time,
        wall_clock=loop.time,
        uniform=Random(3).uniform,
    )
    one._allowance = RetryAllowance(floor=1.0, memory=2.0)  # so that it is waited for
    tasks = [asyncio.create_task(one.deliver(batch(8))) for _ in range(3)]
    doomed = tasks if everybody else tasks[:1]
    hit = []
    loop.interrupts[loop.steps + steps] = lambda: hit.extend(task.cancel() for task in doomed)
    await asyncio.gather(*tasks, return_exceptions=True)
    loop.interrupts.clear()
    assert not one._line
    assert not one._retry_turn.locked()
    assert one._concurrency.flying == api.flying == 0
    assert [task.cancelled() for task in tasks if task not in doomed] == [False] * (3 - len(doomed))
    troubles.clear()
    await one.deliver(batch(3))
    assert len(asyncio.all_tasks()) == 1
    return any(hit)

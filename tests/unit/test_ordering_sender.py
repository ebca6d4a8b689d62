"""`Ordered`: requests in order through the real Sender. Whatever the rows: see the properties."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import virtual_time
from ordering_run import Api, Outcome, check_order, deliver_all, ordered, packed, rows_of

from pipeline.errors import CredentialsError, DestinationError
from pipeline.model import Batch, Limits, Slice
from pipeline.send.limiter import Limiter

LIMITS = Limits(payload_bytes=30, batch_bytes=10_000, batch_rows=10)


def answering(status: Callable[[float, Sequence[int]], int], seconds: float = 0.1) -> Api:
    return Api(lambda now, rows: (status(now, rows), seconds), LIMITS)


def send(api: Api, users: Sequence[int], **settings: object) -> Outcome:
    async def drive() -> Outcome:
        one = ordered(api, **settings)  # type: ignore[arg-type]
        outcome = await deliver_all(one, packed(users, api.limits))
        assert not one._requests
        return outcome

    return virtual_time.run(drive())


def nobody_knows(batch: Batch) -> Batch:
    slices = tuple(
        Slice(replace(piece.payloads, users=None), piece.start, piece.stop)
        for piece in batch.slices
    )
    return replace(batch, slices=slices)


def test_different_users_fly_together_and_one_user_alone() -> None:
    apart, together = answering(lambda *_: 200), answering(lambda *_: 200)
    send(apart, range(40))
    assert [post.began for post in apart.posts] == [0.0] * 4
    send(together, [1] * 40)
    assert [post.rows for post in together.posts] == [
        list(range(first, first + 10)) for first in range(0, 40, 10)
    ]
    assert [round(post.began, 3) for post in together.posts] == [0.0, 0.1, 0.2, 0.3]


def test_rows_that_waited_leave_together() -> None:
    # User 0 has a row in each batch: the rows of all others don't wait, his go in one request.
    api = answering(lambda *_: 200)
    users = [0 if row % 10 == 0 else row for row in range(100)]
    send(api, users, concurrency=64)
    assert len(api.posts) == 11
    assert [row for post in api.posts for row in post.rows if users[row] == 0] == list(
        range(0, 100, 10)
    )
    check_order(api.posts, users)


def test_what_leaves_is_decided_when_it_can() -> None:
    # One request at a time: nothing is taken before, so all of them are full.
    api = answering(lambda *_: 200)
    send(api, [0 if row % 2 else row for row in range(100)], concurrency=1)
    assert [len(post.rows) for post in api.posts] == [10] * 10


def test_a_stuck_row_is_found_beside_a_refused_one() -> None:
    # The first five rows are tried alone, and the second of these is stuck: it tells nothing.
    def status(now: float, rows: Sequence[int]) -> int:
        if len(rows) > 5 and now < 1:
            return 400
        if 1 in rows and now < 5_000:
            return 500
        return 400 if 9 in rows else 200

    api = answering(status)
    users = [0, 1, 0, 1, 2, 0, 1, 2, 0, 2]
    outcome = send(api, users)
    check_order(api.posts, users)
    (delivery,) = outcome.deliveries
    assert [letter.row for letter in delivery.rejections] == [9]
    waited = {
        row for post in api.posts if post.status == 200 and post.ended > 5_000 for row in post.rows
    }
    assert waited == {1, 3, 6}


def test_a_user_with_a_row_that_may_be_refused_stays_closed() -> None:
    # Of the rows tried alone, the first is refused, which counts when the last has been tried.
    users = [1, 1, *[2] * 8, *[1] * 12]
    slow = range(10, 22)
    api = Api(lambda _now, rows: (400 if 0 in rows else 200, 5 * (rows[0] in slow) + 0.1), LIMITS)
    send(api, users)
    check_order(api.posts, users)
    assert [post.rows for post in api.posts[-2:]] == [list(range(10, 20)), [20, 21]]


def test_two_stuck_users_do_not_wait_for_each_other() -> None:
    # Others get through all the time, so that it is no outage.
    heals = {0: 3_000.0, 1: 90_000.0}
    users = [0, 1, *range(10, 18), 0, 1, *range(100, 4_000)]

    def status(now: float, rows: Sequence[int]) -> int:
        return 500 if any(now < heals.get(row, 0.0) for row in rows) else 200

    api = answering(status, seconds=3.0)
    send(api, users, concurrency=2)
    check_order(api.posts, users)
    ended = {row: post.ended for post in api.posts if post.status == 200 for row in post.rows}
    assert max(ended[row] for row in range(2, 10)) < 1_000
    assert 3_000 < ended[10] < 3_100
    assert 90_000 < ended[11] < 90_100


def test_requests_are_small_enough_for_the_rate_limit() -> None:
    api = answering(lambda *_: 200)
    send(api, [0] * 40, limiter=Limiter(rows=50.0))
    assert max(len(post.rows) for post in api.posts) == 5
    check_order(api.posts, [0] * 40)


def test_a_refusal_of_every_row_tried_ends_the_run() -> None:
    outcome = send(answering(lambda *_: 400), [1] * 10)
    assert "refuses every row tried" in str(outcome.error)


async def test_what_ends_the_run_ends_every_delivery() -> None:
    api = answering(lambda _now, rows: 401 if 0 in rows else 200, seconds=0.0)
    one = ordered(api, concurrency=1)
    tasks = [asyncio.create_task(one.deliver(batch)) for batch in packed([0] * 30, LIMITS)]
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in ended] == [CredentialsError] * 3
    assert not one._requests


def test_a_row_stuck_until_the_deadline_ends_the_run() -> None:
    outcome = send(
        answering(lambda _now, rows: 500 if 3 in rows else 200), range(400), deadline=500.0
    )
    assert isinstance(outcome.error, DestinationError)
    assert "row 3 of stream 0" in str(outcome.error)


def test_after_a_cancellation_it_begins_anew() -> None:
    # As when an expired read session ends a lane, and the next one sends by the same way.
    api = answering(lambda *_: 200, seconds=10.0)

    async def drive() -> tuple[Outcome, float]:
        one, loop = ordered(api, concurrency=1), asyncio.get_running_loop()
        first = asyncio.create_task(deliver_all(one, packed([0] * 30, LIMITS)))
        await asyncio.sleep(15)
        first.cancel()
        await asyncio.wait({first})
        assert not one._requests
        again = loop.time()
        return await deliver_all(one, packed([0] * 20, LIMITS)), loop.time() - again

    outcome, seconds = virtual_time.run(drive())
    assert [rows_of(done.batch)[0] for done in outcome.deliveries] == [0, 10]
    assert seconds == pytest.approx(20.0)


@pytest.mark.parametrize("step", range(1, 40))
def test_a_cancellation_at_any_step_leaves_nothing_behind(step: int) -> None:
    dice = iter([500, 200, 400, 200, 400, 200] * 100)
    api = answering(lambda *_: next(dice))

    async def drive() -> None:
        one, loop = ordered(api), asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualLoop)
        work = asyncio.create_task(deliver_all(one, packed([0, 1, 2] * 20, LIMITS)))
        loop.interrupts[loop.steps + step] = work.cancel  # type: ignore[assignment]
        await asyncio.wait({work})
        assert not one._requests
        assert not one._deliveries
        assert asyncio.all_tasks() == {asyncio.current_task()}
        # Nor is a permit or a place in the line taken.
        api.script = lambda *_: (200, 0.1)
        assert len((await deliver_all(one, packed([0] * 20, LIMITS))).deliveries) == 2

    virtual_time.run(drive())


def test_rows_of_nobody_go_one_batch_after_another() -> None:
    api = answering(lambda *_: 200)

    async def drive() -> Outcome:
        batches = [nobody_knows(batch) for batch in packed([0] * 25, LIMITS)]
        return await deliver_all(ordered(api), batches)

    assert len(virtual_time.run(drive()).deliveries) == 3
    assert [len(post.rows) for post in api.posts] == [10, 10, 5]
    assert [round(post.began, 3) for post in api.posts] == [0.0, 0.1, 0.2]

"""`ordering: per_user` whatever the users, latencies and faults: no overtaking, nothing lost."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import virtual_time
from arrow_strategies import examples
from hypothesis import given
from hypothesis import strategies as st
from ordering_run import Api, Outcome, Script, check_order, deliver_all, ordered, packed, rows_of

from pipeline.model import Limits

KINDS = ["few", "many", "zipf", "one", "blocks"]


def made_users(kind: str, rows: int, seed: int) -> list[int]:
    """Whom each row is about."""
    dice = random.Random(seed)
    if kind == "blocks":  # a user's rows side by side, as ORDER BY user gives them
        return [row // 9 for row in range(rows)]
    draw = {
        "few": lambda: dice.randrange(4),
        "many": lambda: dice.randrange(3 * rows),
        "zipf": lambda: int(200 / dice.randint(1, 200)),
        "one": lambda: 0,
    }[kind]
    return [draw() for _ in range(rows)]


def scripted(seed: int, faults: float, bad: frozenset[int], largest: int) -> Script:
    """Answers after a random time; a share of them faults; bad rows and large requests refused."""
    dice = random.Random(seed)

    def script(_now: float, rows: Sequence[int]) -> tuple[int, float]:
        seconds = dice.choice([0.0, 0.01, dice.random(), 5 * dice.random()])
        if dice.random() < faults:
            return dice.choice([500, 503, 429, 0]), seconds
        if len(rows) > largest:
            return 413, seconds
        return (400 if bad.intersection(rows) else 200), seconds

    return script


@pytest.mark.slow
@examples(400, least=200)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(30, 150),
    batch_rows=st.integers(4, 30),
    batch_bytes=st.sampled_from([80, 200, 10_000]),
    frame=st.integers(1, 40),
    odd=st.sampled_from([0, 0, 3]),
    concurrency=st.integers(1, 8),
    outstanding=st.integers(1, 12),
    gaps=st.lists(st.sampled_from([0.0, 0.0, 0.3, 10.0]), max_size=4),
    faults=st.sampled_from([0.0, 0.0, 0.1, 0.4]),
    bad=st.frozensets(st.integers(0, 80), max_size=8),
    largest=st.sampled_from([1000, 1000, 6]),
    seed=st.integers(0, 2**16),
)
def test_rows_of_a_user_never_overtake_each_other(
    *,
    kind: str,
    rows: int,
    batch_rows: int,
    batch_bytes: int,
    frame: int,
    odd: int,
    concurrency: int,
    outstanding: int,
    gaps: list[float],
    faults: float,
    bad: frozenset[int],
    largest: int,
    seed: int,
) -> None:
    users = made_users(kind, rows, seed)
    limits = Limits(payload_bytes=30, batch_bytes=batch_bytes, batch_rows=batch_rows)
    batches = packed(users, limits, frame=frame, odd=odd)
    api = Api(scripted(seed, faults, bad, largest), limits)

    async def drive() -> Outcome:
        one = ordered(api, concurrency=concurrency, seed=seed)
        return await deliver_all(one, batches, outstanding=outstanding, gaps=gaps)

    outcome = virtual_time.run(drive())
    valid = [user if not odd or row % odd else -1 - row for row, user in enumerate(users)]
    if outcome.error is None:
        # Every Batch as it was given, once, with its own rejections.
        ended = {id(delivery.batch): delivery for delivery in outcome.deliveries}
        assert ended.keys() == {id(batch) for batch in batches}
        assert len(outcome.deliveries) == len(batches)
        accepted = [row for post in api.posts if post.status == 200 for row in post.rows]
        refused = [letter.row for one in outcome.deliveries for letter in one.rejections]
        assert sorted(accepted + refused) == [row for batch in batches for row in rows_of(batch)]
        assert bad.issuperset(refused)
        for delivery in outcome.deliveries:
            assert set(rows_of(delivery.batch)).issuperset(x.row for x in delivery.rejections)
    else:  # the probes found nothing but bad rows
        assert bad
        assert "refuses every row tried" in str(outcome.error)
    check_order(api.posts, valid)


@pytest.mark.slow
@examples(100, least=60)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(5, 100),
    whose=st.integers(0, 99),
    also=st.booleans(),
    batch_rows=st.integers(1, 30),
    concurrency=st.integers(1, 8),
    seed=st.integers(0, 2**16),
)
def test_a_stuck_row_holds_back_its_user_and_nobody_else(
    *, kind: str, rows: int, whose: int, also: bool, batch_rows: int, concurrency: int, seed: int
) -> None:
    users = made_users(kind, rows, seed)
    limits = Limits(payload_bytes=30, batch_bytes=1_000, batch_rows=batch_rows)
    first = whose % rows
    user = users[first]
    his = [row for row in range(first, len(users)) if users[row] == user]
    stuck = {first, his[-1]} if also else {first}
    heals, dice = 10_000.0, random.Random(seed)

    def script(now: float, rows: Sequence[int]) -> tuple[int, float]:
        return (500 if now < heals and stuck.intersection(rows) else 200), dice.random()

    api = Api(script, limits)

    async def drive() -> Outcome:
        one = ordered(api, concurrency=concurrency, seed=seed)
        return await deliver_all(one, packed(users, limits))

    outcome = virtual_time.run(drive())
    assert outcome.error is None
    check_order(api.posts, users)
    accepted = [post for post in api.posts if post.status == 200]
    in_time = {row for post in accepted for row in post.rows if post.ended < heals}
    assert in_time == set(range(len(users))).difference(his)
    assert sorted(row for post in accepted for row in post.rows) == list(range(len(users)))

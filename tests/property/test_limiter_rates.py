from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.send.limiter import Limiter, Rate

STEPS = st.lists(st.floats(0, 3), min_size=1, max_size=60)
# A second ends this much early: times are sums of floats.
ABOUT = 1e-6


def most_in_a_second(sent: list[tuple[float, int]]) -> int:
    """The most units within any second; one that holds the most begins with a departure."""
    times = [at for at, _ in sent]
    units = [0, *accumulate(count for _, count in sent)]
    return max(
        units[bisect_left(times, at + 1 - ABOUT)] - units[start] for start, at in enumerate(times)
    )


@given(rate=st.floats(0.5, 50), burst=st.integers(1, 10), steps=STEPS)
def test_no_second_sees_more_requests_than_the_rate_and_the_burst(
    rate: float, burst: int, steps: list[float]
) -> None:
    limit, now, sent = Rate(rate, burst), 0.0, []
    for step in steps:
        now += step
        at = limit.due(now)
        limit.take(at, 1)
        sent.append((at, 1))
    assert most_in_a_second(sent) <= math.ceil(rate) + burst - 1


@given(rate=st.integers(1, 500), steps=st.lists(st.floats(0, 0.05), min_size=1, max_size=300))
def test_without_a_burst_no_second_sees_more_requests_than_the_rate(
    rate: int, steps: list[float]
) -> None:
    limiter, now, sent = Limiter(requests=rate), 0.0, []
    for step in steps:
        now += step
        now += limiter.wait(now)
        limiter.take(now, 7)
        sent.append((now, 1))
    assert most_in_a_second(sent) <= rate


@given(
    rate=st.floats(1, 2000),
    requests=st.none() | st.floats(0.5, 50),
    asked=st.lists(st.tuples(st.integers(1, 2500), st.floats(0, 0.5)), min_size=1, max_size=80),
)
def test_no_second_sees_more_rows_than_the_rate(
    rate: float, requests: float | None, asked: list[tuple[int, float]]
) -> None:
    limiter, now, sent = Limiter(rows=rate, requests=requests), 0.0, []
    assert limiter.most_rows is not None
    for rows, step in asked:
        rows = min(rows, limiter.most_rows)  # noqa: PLW2901
        now += step
        now += limiter.wait(now, rows)
        limiter.take(now, rows)
        sent.append((now, rows))
    assert most_in_a_second(sent) <= rate + ABOUT


@given(rate=st.floats(20, 5000), count=st.integers(50, 200))
def test_a_rows_limit_is_used(rate: float, count: int) -> None:
    limiter, now = Limiter(rows=rate), 0.0
    assert limiter.most_rows is not None
    for _ in range(count):
        now += limiter.wait(now, limiter.most_rows)
        limiter.take(now, limiter.most_rows)
    assert (count - 10) * limiter.most_rows <= rate * now * 1.001 + rate
    assert count * limiter.most_rows >= 0.9 * rate * now


@given(steps=STEPS)
def test_a_steady_user_below_the_rate_never_waits(steps: list[float]) -> None:
    limiter, now = Limiter(requests=10.0, rows=1000.0), 0.0
    for step in steps:
        now += 0.1 + 1e-9 + step
        assert limiter.wait(now, 100) == 0.0
        limiter.take(now, 100)


@pytest.mark.parametrize(
    ("requests", "rows", "most"),
    [
        (None, None, None),
        (10.0, None, None),
        (None, 5000.0, 500),
        (5.0, 5000.0, 1000),  # as many pieces as there may be requests
        (0.5, 5000.0, 5000),
        (None, 3.0, 1),
        (None, 0.1, 1),
    ],
)
def test_a_request_holds_a_tenth_of_a_seconds_rows(
    requests: float | None, rows: float | None, most: int | None
) -> None:
    assert Limiter(requests=requests, rows=rows).most_rows == most


def test_less_than_a_row_per_second() -> None:
    limiter = Limiter(rows=0.1)
    limiter.take(0.0, 1)
    assert limiter.wait(0.0) == pytest.approx(10.0)


def test_pauses_only_grow() -> None:
    limiter = Limiter()
    limiter.pause(10.0)
    limiter.pause(5.0)
    assert limiter.wait(4.0) == 6.0
    assert limiter.paused(4.0)
    assert limiter.wait(11.0) == 0.0
    assert not limiter.paused(11.0)

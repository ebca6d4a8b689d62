from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.send.limiter import Limiter, Rate, share_of

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


# ------------------------------------------------------------------------------- shares

LIMITS = st.integers(1, 2_000) | st.floats(0.5, 2_000)


@given(limit=LIMITS, of=st.integers(1, 70))
def test_all_shares_together_are_the_limit(limit: float, of: int) -> None:
    shares = [share_of(limit, place, of) for place in range(of)]
    assert sum(shares) == pytest.approx(limit)
    assert min(shares) > 0
    assert max(shares) - min(shares) < 2
    if limit >= of:
        # What a second sees at most of a rate is the next whole number.
        assert sum(map(math.ceil, shares)) == math.ceil(limit)


@given(limit=LIMITS, of=st.integers(2, 70), data=st.data())
def test_a_share_never_shrinks_when_another_process_ends(
    limit: float, of: int, data: st.DataObject
) -> None:
    ended = data.draw(st.integers(0, of - 1))
    for place in range(of):
        if place != ended:
            moved = place - (place > ended)
            assert share_of(limit, moved, of - 1) >= share_of(limit, place, of) - ABOUT


class Process:
    """A sender that always has more to send, and hears of its share now and then."""

    def __init__(self, limiter: Limiter, place: int, of: int) -> None:
        self.limiter, self.number = limiter, place
        self.sent: list[tuple[float, int]] = []
        limiter.share(0.0, place, of)

    def send(self, until: float, rows: int) -> None:
        now = self.sent[-1][0] if self.sent else 0.0
        now = max(now, self.heard)
        while (at := now + self.limiter.wait(now, rows)) < until:
            self.limiter.take(at, rows)
            self.sent.append((at, rows))
            now = at
        self.heard = until

    heard = 0.0


@given(
    rate=st.integers(1, 60),
    of=st.integers(2, 5),
    burst=st.integers(1, 6),
    ends=st.lists(st.floats(0.1, 2), min_size=4, max_size=4),
    late=st.lists(st.floats(0, 1), min_size=5, max_size=5),
)
def test_all_processes_together_never_exceed_the_limit_while_one_after_another_ends(
    rate: int, of: int, burst: int, ends: list[float], late: list[float]
) -> None:
    """Each hears of the end of another with a delay of its own."""
    rate *= of
    processes = [
        Process(Limiter(requests=rate, burst=burst, processes=of), place, of) for place in range(of)
    ]
    left, now = list(processes), 0.0
    for end in ends[: of - 1]:
        now += 1.1 + end
        for process in left:
            process.send(now, 1)
        left = left[1:]
        for place, process in enumerate(left):
            process.send(now + late[process.number], 1)
            process.limiter.share(now + late[process.number], place, len(left))
    for process in left:
        process.send(now + 3, 1)
    sent = sorted(each for process in processes for each in process.sent)
    assert most_in_a_second(sent) <= rate + burst - 1
    assert len(processes[-1].sent) > rate  # the last one had all of it in the end


@given(
    rates=st.lists(st.tuples(st.integers(1, 9), st.floats(0, 0.7)), min_size=2, max_size=12),
    rate=st.integers(10, 400),
)
def test_another_share_holds_at_once_and_over_any_second(
    rates: list[tuple[int, float]], rate: int
) -> None:
    limiter, now = Limiter(requests=rate, rows=rate * 10, processes=9), 0.0
    assert limiter.most_rows is not None
    sent: list[tuple[float, int]] = []
    had: list[tuple[float, int]] = []
    for of, seconds in rates:
        limiter.share(now, of - 1, of)
        had.append((now, of))
        until = now + seconds
        while (at := now + limiter.wait(now, limiter.most_rows)) < until:
            now = at
            limiter.take(now, limiter.most_rows)
            sent.append((now, limiter.most_rows))
            # Rows: the share of now, also counting what went under an earlier one.
            lately = sum(rows for gone, rows in sent if gone > now - 1 + ABOUT)
            assert lately <= share_of(rate * 10, of - 1, of) + ABOUT
            # Requests: no more than the largest share that was had within the second.
            most = max(
                share_of(rate, other - 1, other)
                for since, other, end in zip(
                    [at for at, _ in had],
                    [of for _, of in had],
                    [*[at for at, _ in had[1:]], math.inf],
                    strict=True,
                )
                if end > now - 1
            )
            assert sum(1 for gone, _ in sent if gone > now - 1 + ABOUT) <= math.ceil(most)
        now = until


def test_a_larger_share_shortens_the_wait_that_has_begun() -> None:
    limiter = Limiter(requests=4)
    limiter.share(0.0, 3, 4)
    limiter.take(0.0, 1)
    assert limiter.wait(0.5) == pytest.approx(0.5)
    limiter.share(0.5, 0, 1)
    assert limiter.wait(0.5) == pytest.approx(0.5)  # who ended may have sent just now
    limiter.take(1.0, 1)
    assert limiter.wait(1.25) == pytest.approx(0.75)
    assert limiter.wait(1.5) == pytest.approx(0.125)  # half of a request is left, at 4 in a second


def test_shares_that_grow_again_and_again_do_not_wait_for_each_other() -> None:
    limiter = Limiter(requests=4, processes=4)
    limiter.share(0.0, 3, 4)
    limiter.share(0.5, 1, 2)
    limiter.share(1.25, 0, 1)
    limiter.take(1.5, 1)  # the first of them counts by now
    assert limiter.wait(1.5) == pytest.approx(0.5)
    limiter.share(1.5, 3, 4)  # and less counts at once, whatever was to come
    assert limiter.wait(1.5) == pytest.approx(1.0)
    assert limiter.wait(2.3) == pytest.approx(0.2)


def test_a_smaller_share_lengthens_it_and_is_free_at_once_for_who_sent_nothing() -> None:
    limiter = Limiter(requests=4, rows=40, processes=4)
    limiter.take(0.0, 10)
    limiter.share(0.125, 0, 4)
    assert limiter.wait(0.125) == pytest.approx(0.875)  # the rows; the requests would be 0.5
    idle = Limiter(requests=4)
    idle.share(0.0, 0, 4)
    assert idle.wait(0.0) == 0.0


@pytest.mark.parametrize(
    ("requests", "rows", "processes", "most"),
    [(None, 5000.0, 5, 100), (5.0, 5000.0, 5, 1000), (None, 3.0, 4, 1), (20.0, 5000.0, 5, 250)],
)
def test_a_request_is_small_enough_for_the_smallest_share(
    requests: float | None, rows: float, processes: int, most: int
) -> None:
    assert Limiter(requests=requests, rows=rows, processes=processes).most_rows == most

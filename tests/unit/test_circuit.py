from __future__ import annotations

import math

import pytest

from pipeline.send.allowance import RetryAllowance
from pipeline.send.circuit import FAILURES, Circuit
from pipeline.send.retry import RetryPolicy
from pipeline.send.trouble import Tally, Trouble


def circuit(deadline: float = 900.0) -> Circuit:
    return Circuit(RetryPolicy(deadline=deadline), uniform=lambda _low, high: high)


def opened(one: Circuit, at: float = 0.0) -> Circuit:
    for _ in range(FAILURES):
        one.failed(at, probe=False)
    return one


def test_it_opens_after_failures_in_a_row_only() -> None:
    one = circuit()
    for _ in range(10):
        for _ in range(FAILURES - 1):
            one.failed(1.0, probe=False)
        assert not one.is_open
        assert one.wait(1.0) == 0
        assert not one.answered()
    assert opened(one).is_open


def test_pauses_grow_by_probe_and_not_by_what_left_before() -> None:
    one, now, pauses = opened(circuit()), 0.0, []
    for _ in range(9):
        one.failed(now, probe=False)
        one.failed(now, probe=False)
        pauses.append(one.wait(now))
        now += pauses[-1]
        assert one.wait(now) == 0
        one.failed(now, probe=True)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_an_answer_closes_it_and_the_next_outage_begins_anew() -> None:
    one = opened(circuit(), at=10.0)
    assert one.deadline == 910.0
    assert one.answered()
    assert not one.is_open
    assert one.wait(10.0) == 0
    assert one.deadline == math.inf
    one.failed(50.0, probe=False)
    assert one.deadline == 950.0


def test_the_last_try_is_at_the_deadline() -> None:
    one = opened(circuit(deadline=3.0))
    one.failed(0.5, probe=True)
    one.failed(1.5, probe=True)
    assert one.wait(1.5) == 1.5
    one.failed(3.1, probe=True)
    assert one.wait(3.1) == 0


# ------------------------------------------------------------------------------- retries


def spend(allowance: RetryAllowance, seconds: float, *, requests_per_second: int) -> int:
    """How many retries go in that time, if there are always some to go."""
    gone, steps = 0, 1000
    for step in range(int(seconds * steps)):
        now = step / steps
        if step % (steps // max(1, requests_per_second)) == 0 and requests_per_second:
            allowance.requested(now)
        if allowance.wait(now) == 0:
            allowance.retried(now)
            gone += 1
    return gone


def test_without_requests_ten_retries_a_second_and_a_reserve() -> None:
    assert spend(RetryAllowance(), 20, requests_per_second=0) == pytest.approx(100 + 200, rel=0.02)


def test_with_requests_a_fifth_of_them_more() -> None:
    gone = spend(RetryAllowance(), 50, requests_per_second=100)
    assert gone == pytest.approx(100 + 50 * (10 + 20), rel=0.12)


def test_the_wait_is_exact() -> None:
    allowance = RetryAllowance(share=0.2, floor=1.0, memory=10.0)
    for _ in range(10):
        assert allowance.wait(5.0) == 0
        allowance.retried(5.0)
    wait = allowance.wait(5.0)
    assert wait == pytest.approx(10 * math.log(10 / 9))
    assert allowance.wait(5.0 + wait - 0.01) > 0
    assert allowance.wait(5.0 + wait + 1e-9) == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------------------- one batch


def fail(trouble: Trouble, tally: Tally, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        tally.failed += 1
        trouble.failed(now)


def test_it_stands_out_where_the_others_get_through() -> None:
    tally = Tally(answered=100)
    trouble = Trouble(tally)
    tally.answered += 5
    fail(trouble, tally, 7)
    assert not trouble.stands_out()
    fail(trouble, tally, 1)
    assert trouble.stands_out()
    trouble.begin()
    fail(trouble, tally, 2)
    assert not trouble.stands_out()  # a part of it is suspected sooner
    fail(trouble, tally, 1)
    assert trouble.stands_out()


@pytest.mark.parametrize(
    ("answered", "failed", "stands_out"), [(0, 0, False), (1, 0, True), (8, 3, False), (9, 3, True)]
)
def test_only_what_happened_meanwhile_counts(
    answered: int, failed: int, *, stands_out: bool
) -> None:
    tally = Tally(answered=1000, failed=5)
    trouble = Trouble(tally)
    tally.answered += answered
    tally.failed += failed
    fail(trouble, tally, 8)
    assert trouble.stands_out() is stands_out


def test_it_is_over_after_the_deadline_and_enough_attempts() -> None:
    tally = Tally()
    trouble = Trouble(tally)
    fail(trouble, tally, 19, now=10.0)
    assert not trouble.is_over(1000.0, 60.0)
    fail(trouble, tally, 1, now=11.0)
    assert not trouble.is_over(69.0, 60.0)
    assert trouble.is_over(70.0, 60.0)
    trouble.begin()
    assert not trouble.is_over(1000.0, 60.0)


def test_of_a_batch_that_was_cut_the_deadline_counts_from_the_first_failure() -> None:
    tally = Tally()
    trouble = Trouble(tally)
    tally.answered += 1
    fail(trouble, tally, 8, now=10.0)
    assert trouble.stands_out()
    trouble.begin()
    fail(trouble, tally, 7, now=100.0)
    assert not trouble.is_over(100.0, 60.0)
    fail(trouble, tally, 1, now=101.0)
    assert trouble.is_over(101.0, 60.0)

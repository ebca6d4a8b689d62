from __future__ import annotations

import pytest

from pipeline.model import Action, Verdict
from pipeline.send.retry import RetryPolicy

POLICY = RetryPolicy(deadline=60, base=1, cap=10)
FAULT = Verdict(action=Action.RETRY)
THROTTLE = Verdict(action=Action.RETRY, throttled=True)


@pytest.mark.parametrize(
    ("retries", "verdict", "low", "high"),
    [
        (0, FAULT, 0, 1),
        (2, FAULT, 0, 4),
        (50, FAULT, 0, 10),
        (0, THROTTLE, 0.5, 1),
        (50, THROTTLE, 5, 10),
        (3, Verdict(action=Action.RETRY, after=20), 20, 22),
        (3, Verdict(action=Action.RETRY, after=0), 0, 8),
    ],
)
def test_waits_grow_within_their_bounds(
    retries: int, verdict: Verdict, low: float, high: float
) -> None:
    assert POLICY.wait(retries, verdict, lambda a, _b: a) == pytest.approx(low)
    assert POLICY.wait(retries, verdict, lambda _a, b: b) == pytest.approx(high)
    assert low <= POLICY.wait(retries, verdict) <= high

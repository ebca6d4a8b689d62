from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.send.limiter import Limiter, Rate

STEPS = st.lists(st.floats(0, 3), min_size=1, max_size=60)


@given(rate=st.floats(0.5, 50), burst=st.integers(1, 10), steps=STEPS)
def test_no_second_sees_more_than_rate_and_burst(
    rate: float, burst: int, steps: list[float]
) -> None:
    limit, now, sent = Rate(rate, burst), 0.0, []
    for step in steps:
        now += step
        at = limit.due(now)
        limit.take(at, 1)
        sent.append(at)
    for start in sent:
        within = sum(1 for at in sent if start <= at < start + 1 - 1e-6)
        assert within <= rate + burst + 1e-6
        if burst == 1:
            assert within <= max(1, rate + 1e-6) or within - 1 < rate


@given(rows=st.lists(st.integers(1, 500), min_size=2, max_size=40), rate=st.floats(10, 1000))
def test_rows_are_spaced_by_what_went_before(rows: list[int], rate: float) -> None:
    limiter = Limiter(rows=rate)
    now = 0.0
    for index, count in enumerate(rows):
        now += limiter.wait(now)
        assert abs(now - sum(rows[:index]) / rate) < 1e-6
        limiter.take(now, count)


@given(steps=STEPS)
def test_a_steady_user_below_the_rate_never_waits(steps: list[float]) -> None:
    limiter, now = Limiter(requests=10.0, rows=1000.0), 0.0
    for step in steps:
        now += 0.1 + 1e-9 + step
        assert limiter.wait(now) == 0.0
        limiter.take(now, 100)


def test_pauses_only_grow() -> None:
    limiter = Limiter()
    limiter.pause(10.0)
    limiter.pause(5.0)
    assert limiter.wait(4.0) == 6.0
    assert limiter.paused(4.0)
    assert limiter.wait(11.0) == 0.0
    assert not limiter.paused(11.0)

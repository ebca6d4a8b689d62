"""What a plan says follows from rows, a sample and the limits; what is unknown stays unknown."""

from __future__ import annotations

import pytest

from pipeline.cli.plan import _dollars, _duration
from pipeline.model import Call, DeadLetter, Window
from pipeline.run.plan import (
    SESSION_SECONDS,
    LanePlan,
    Plan,
    Sample,
    cost,
    lane_plan,
    outlasting,
    sampled,
)
from pipeline.run.report import PreviewRow
from pipeline.source.outlast import Pace

CIO = Pace(requests_per_second=1000.0, rows_per_second=None, batch_rows=2_500, batch_bytes=480_000)
TEN_OF_400 = Sample(rows=10, nbytes=4_000)


def planned(
    rows: int | None,
    sample: Sample = TEN_OF_400,
    pace: Pace = CIO,
    *,
    permits: int = 16,
    latency: float = 0.1,
) -> LanePlan:
    return lane_plan("cio", pace, sample, rows, permits=permits, latency=latency)


def invalid(reason: str, row: int) -> PreviewRow:
    letter = DeadLetter(stream=0, row=row, reason=reason, message="", payload=b"")
    return PreviewRow(payload=b"", invalid=letter)


def test_what_a_sample_counts() -> None:
    rows = (
        PreviewRow(payload=b"x" * 99, invalid=None),
        PreviewRow(payload=b"x" * 199, invalid=None, warnings=("too long", "too old")),
        invalid("missing_id", 2),
        PreviewRow(payload=b"x" * 299, invalid=None, warnings=("too old",)),
        invalid("missing_id", 4),
        invalid("payload_too_large", 5),
    )
    sample = sampled(rows, b",")
    assert sample.rows == 6
    assert sample.valid == 3
    assert sample.nbytes == 600
    assert sample.invalid == {"missing_id": 2, "payload_too_large": 1}
    assert sample.warnings == {"too long": 1, "too old": 2}
    assert sample.shown == rows[:3]


def test_nothing_is_guessed_of_rows_that_nobody_counted() -> None:
    lane = planned(None)
    assert (lane.calls, lane.requests, lane.seconds, lane.bound) == (None, None, None, "")
    unsampled = planned(1_000_000, Sample())
    assert (unsampled.calls, unsampled.requests, unsampled.seconds) == (None, None, None)


def test_no_rows_are_no_requests() -> None:
    lane = planned(0, Sample())
    assert (lane.calls, lane.requests, lane.seconds, lane.bound) == (0, 0, 0.0, "")


def test_rows_that_are_all_invalid_are_no_requests() -> None:
    lane = planned(1_000, Sample(rows=4, invalid={"missing_id": 4}))
    assert (lane.calls, lane.requests, lane.seconds, lane.bound) == (0, 0, 0.0, "")


def test_bytes_make_the_requests_and_the_slowest_limit_the_seconds() -> None:
    # 400 bytes each: 1,200 fit a request.
    lane = planned(12_000_000, latency=0.1, permits=16)
    assert lane.calls == 12_000_000
    assert lane.requests == 10_000
    assert lane.seconds == pytest.approx(10_000 * 0.1 / 16)
    assert lane.bound == "send.concurrency"
    fast = planned(12_000_000, latency=0.001, permits=16)
    assert fast.seconds == pytest.approx(10.0)
    assert fast.bound == "send.rate_limit.requests_per_second"


def test_a_limit_of_rows() -> None:
    slow = Pace(
        requests_per_second=1000.0, rows_per_second=100.0, batch_rows=10, batch_bytes=480_000
    )
    lane = planned(7_200, pace=slow)
    assert lane.requests == 720
    assert lane.seconds == pytest.approx(72.0)
    assert lane.bound == "send.rate_limit.rows_per_second"


def test_many_small_rows_are_limited_by_their_number() -> None:
    lane = planned(25_000, Sample(rows=10, nbytes=100))
    assert lane.requests == 10


def test_the_sample_s_share_of_invalid_rows_is_taken_off() -> None:
    sample = Sample(rows=10, nbytes=2_000, invalid={"missing_id": 5})
    lane = planned(1_000, sample)
    assert lane.calls == 500
    assert lane.requests == 1


def test_one_request_takes_one_answer_s_time_whatever_the_concurrency() -> None:
    lane = planned(10, latency=0.5, permits=64)
    assert lane.requests == 1
    assert lane.seconds == pytest.approx(0.5)


def test_without_limits_and_answers_at_once_it_takes_no_time() -> None:
    free = Pace(requests_per_second=None, rows_per_second=None, batch_rows=10, batch_bytes=1_000)
    assert planned(10, pace=free, latency=0.0).seconds == 0.0


@pytest.mark.parametrize(
    ("seconds", "late"), [(None, False), (3600.0, False), (SESSION_SECONDS, True)]
)
def test_what_outlasts_a_read_session_is_named(seconds: float | None, *, late: bool) -> None:
    lane = LanePlan(destination="cio", sample=Sample(), seconds=seconds)
    assert outlasting((lane,)) == (("cio",) if late else ())


def test_the_price_of_a_tebibyte() -> None:
    assert cost(2**40, 6.25) == 6.25
    assert cost(0, 6.25) == 0.0


@pytest.mark.parametrize(
    ("amount", "text"),
    [(None, "-"), (0.0, "$0.00"), (0.001, "<$0.01"), (0.005, "$0.01"), (1234.5, "$1,234.50")],
)
def test_dollars(amount: float | None, text: str) -> None:
    assert _dollars(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.2, "<1 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7199.0, "120 min"),
        (7200.0, "2.0 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_json_holds_no_payload_of_its_own() -> None:
    sample = sampled((PreviewRow(payload=b'{"userId":"secret"}', invalid=None),), b",")
    one = Plan(
        sync="users",
        call=Call.IDENTIFY,
        sql="SELECT 1",
        window=Window(start=0, sequence=1),
        bytes_processed=10,
        cost=None,
        rows=1,
        rows_known_by="sample",
        queries=1,
        lanes=(lane_plan("cio", CIO, sample, 1, permits=1, latency=0.1),),
    )
    shown = one.as_dict()
    assert "secret" not in str(shown)
    assert shown["destinations"]["cio"]["sample"]["valid"] == 1

"""Whether a destination takes longer than a read session lives."""

from __future__ import annotations

import pytest

from pipeline.model import Reading
from pipeline.source.outlast import Outlook, Pace, outlook, payload_bytes


def pace(requests: float | None = None, rows: float | None = None) -> Pace:
    return Pace(
        requests_per_second=requests, rows_per_second=rows, batch_rows=1_000, batch_bytes=500_000
    )


def reading(rows: int | None, *, expires: int | None, nbytes: int | None = None) -> Reading:
    return Reading(
        streams=("s",),
        schema=b"",
        query_started=0,
        rows=rows,
        expires=expires,
        estimated_bytes=nbytes,
    )


@pytest.mark.parametrize(
    ("rows", "nbytes", "requests"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (1_000, 500_000, 1),
        (1_001, 500_000, 2),  # by rows
        (1_000, 500_001, 2),  # by bytes
        (10_000, 50_000_000, 100),
    ],
)
def test_requests_are_bounded_by_rows_and_by_bytes(rows: int, nbytes: int, requests: int) -> None:
    assert pace().requests(rows, nbytes) == requests


@pytest.mark.parametrize(
    ("one", "seconds"),
    [
        (pace(), 0.0),
        (pace(requests=10), 10.0),
        (pace(rows=500), 20.0),
        (pace(requests=10, rows=500), 20.0),
        (pace(requests=1, rows=500), 100.0),
    ],
)
def test_the_slower_of_both_limits_counts(one: Pace, seconds: float) -> None:
    assert one.seconds(10_000, 50_000_000) == seconds


def test_bytes_are_guessed_from_those_at_the_source_or_from_rows() -> None:
    assert payload_bytes(10, None) == 5_000
    assert payload_bytes(10, 1_000) == 2_000 + 1_500


def test_the_slowest_destination_is_waited_for() -> None:
    found = outlook(reading(1_000, expires=1_100), [pace(), pace(rows=10), pace(rows=20)], 1_000)
    assert found == Outlook(needs=100.0, lasts=100.0)
    assert found.outlasts


def test_bytes_at_the_source_count_too() -> None:
    one = reading(1_000, expires=1_100, nbytes=50_000_000)  # 100 MB and more, 201 requests
    found = outlook(one, [pace(requests=2)], 1_000)
    assert found == Outlook(needs=100.5, lasts=100.0)


@pytest.mark.parametrize(("needs", "outlasts"), [(80.0, False), (80.1, True), (0.0, False)])
def test_a_fifth_of_the_session_is_kept_in_reserve(needs: float, *, outlasts: bool) -> None:
    assert Outlook(needs=needs, lasts=100.0).outlasts is outlasts


def test_what_is_over_leaves_no_time_and_what_needs_none_has_enough() -> None:
    found = outlook(reading(10, expires=900), [pace(rows=10)], 1_000)
    assert found is not None
    assert (found.lasts, found.outlasts) == (0.0, True)
    unlimited = outlook(reading(10, expires=900), [pace()], 1_000)
    assert unlimited is not None
    assert not unlimited.outlasts


@pytest.mark.parametrize(
    "one", [reading(None, expires=1_100), reading(10, expires=None)], ids=["rows", "expires"]
)
def test_nothing_is_said_of_what_is_not_known(one: Reading) -> None:
    assert outlook(one, [pace(rows=1)], 1_000) is None

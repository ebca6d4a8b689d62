"""The observer, event by event: what it counts, that the law holds, what it must not show."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY, generate_latest

from pipeline.events import (
    Attempted,
    Buffered,
    Committed,
    Encoded,
    Event,
    Finished,
    Limited,
    Restarted,
    Retried,
    Settled,
    Spooled,
    Started,
    Throttled,
)
from pipeline.metrics import METRICS, PrometheusObserver
from pipeline.metrics.document import describe, document
from pipeline.model import Reason, Result

ROOT = Path(__file__).parents[2]
ROUTE = {"sync": "users", "destination": "customerio"}


def started(skipped: int = 0) -> Started:
    return Started(sync="users", destination="customerio", rows=1000, skipped=skipped)


def encoded(rows: int, **invalid: int) -> Encoded:
    return Encoded(
        **ROUTE, rows=rows, nbytes=1, read_seconds=0.5, encode_seconds=0.25, invalid=invalid
    )


def settled(delivered: int, **rejected: int) -> Settled:
    return Settled(**ROUTE, delivered=delivered, rejected=rejected)


def attempted(status: int, error: str = "", **more: object) -> Attempted:
    fields: dict[str, object] = {"seconds": 0.2, "rows": 3, "nbytes": 600, "encoding": "identity"}
    return Attempted(**ROUTE, status=status, error=error, **(fields | more))  # type: ignore[arg-type]


def finished(result: Result, *, billed: int = 0, at: float = 1000.0) -> Finished:
    return Finished(
        sync="users", destination="", result=result, seconds=7.0, at=at, bytes_billed=billed
    )


def fed(*events: Event) -> PrometheusObserver:
    observer = PrometheusObserver("1.2.3")
    for event in events:
        observer(event)
    return observer


def value(observer: PrometheusObserver, name: str, **labels: str) -> float | None:
    return observer.registry.get_sample_value(name, labels)


def gap(observer: PrometheusObserver) -> float:
    """Rows read that are accounted for nowhere; None of one scrape may show any."""
    read = accounted = 0.0
    for metric in observer.registry.collect():
        for sample in metric.samples:
            if sample.name == "retl_rows_read_total":
                read += sample.value
            elif sample.name in {"retl_rows_total", "retl_rows_in_flight"}:
                accounted += sample.value
    return read - accounted


SPOOLED: list[Event] = [
    Spooled(sync="users", destination="", on_disk=50, written=50),
    Spooled(sync="users", destination="", on_disk=90, written=40),
    Spooled(sync="users", destination="", on_disk=30, written=0),
]

CASES: list[tuple[str, list[Event], dict[str, str], float]] = [
    (
        "retl_read_restarts_total",
        [Restarted(sync="users", destination="", reason="session_expired")] * 2,
        {"sync": "users", "reason": "session_expired"},
        2,
    ),
    ("retl_spool_bytes", SPOOLED, {"sync": "users"}, 30),
    ("retl_spooled_bytes_total", SPOOLED, {"sync": "users"}, 90),
    ("retl_rows_read_total", [encoded(10, missing_id=2)], ROUTE, 10),
    ("retl_rows_total", [encoded(10, missing_id=2)], ROUTE | {"outcome": "dead_lettered"}, 2),
    ("retl_rows_in_flight", [encoded(10, missing_id=2)], ROUTE, 8),
    ("retl_rows_in_flight", [encoded(10), settled(6, rejected_400=1)], ROUTE, 3),
    ("retl_rows_total", [encoded(9), settled(6)], ROUTE | {"outcome": "delivered"}, 6),
    ("retl_rows_total", [settled(6, rejected_400=1)], ROUTE | {"outcome": "dead_lettered"}, 1),
    ("retl_invalid_rows_total", [encoded(9, missing_id=2)], ROUTE | {"reason": "missing_id"}, 2),
    ("retl_nonfinite_values_total", [replace(encoded(3), nonfinite=2)], ROUTE, 2),
    (
        "retl_rejected_rows_total",
        [settled(0, rejected_422=4)],
        ROUTE | {"reason": "rejected_422"},
        4,
    ),
    ("retl_read_seconds_total", [encoded(1), encoded(1)], ROUTE, 1.0),
    ("retl_encode_seconds_total", [encoded(1), encoded(1)], ROUTE, 0.5),
    (
        "retl_http_requests_total",
        [attempted(200), attempted(204)],
        ROUTE | {"status_class": "2xx", "error_type": "none"},
        2,
    ),
    (
        "retl_http_requests_total",
        [attempted(503)],
        ROUTE | {"status_class": "5xx", "error_type": "http_503"},
        1,
    ),
    (
        "retl_http_requests_total",
        [attempted(302)],
        ROUTE | {"status_class": "3xx", "error_type": "http_302"},
        1,
    ),
    (
        "retl_http_requests_total",
        [attempted(0, "timeout")],
        ROUTE | {"status_class": "no_answer", "error_type": "timeout"},
        1,
    ),
    (
        "retl_http_requests_total",
        [attempted(0)],
        ROUTE | {"status_class": "no_answer", "error_type": "network"},
        1,
    ),
    ("retl_http_request_duration_seconds_sum", [attempted(200, seconds=0.2)], ROUTE, 0.2),
    ("retl_http_request_duration_seconds_sum", [attempted(200, seconds=-1.0)], ROUTE, 0),
    ("retl_http_request_duration_seconds_bucket", [attempted(200)], ROUTE | {"le": "0.1"}, 0),
    ("retl_http_request_duration_seconds_bucket", [attempted(200)], ROUTE | {"le": "0.25"}, 1),
    ("retl_batch_rows_sum", [attempted(200), attempted(500)], ROUTE, 6),
    ("retl_batch_bytes_sum", [attempted(200)], ROUTE, 600),
    (
        "retl_request_bytes_total",
        [attempted(200, encoding="gzip")],
        ROUTE | {"encoding": "gzip"},
        600,
    ),
    (
        "retl_retries_total",
        [Retried(**ROUTE, reason="http_429")],
        ROUTE | {"reason": "http_429"},
        1,
    ),
    ("retl_concurrency_limit", [Limited(**ROUTE, limit=9), Limited(**ROUTE, limit=7)], ROUTE, 7),
    (
        "retl_throttled_seconds_total",
        [Throttled(**ROUTE, cause="retry_after", seconds=1.5)],
        ROUTE | {"cause": "retry_after"},
        1.5,
    ),
    ("retl_buffer_bytes", [Buffered(**ROUTE, nbytes=5, rows=1)], ROUTE, 5),
    ("retl_checkpoint_timestamp_seconds", [Committed(**ROUTE, at=99.0)], ROUTE, 99),
    ("retl_last_success_timestamp_seconds", [finished(Result.COMPLETE)], {"sync": "users"}, 1000),
    (
        "retl_last_success_timestamp_seconds",
        [finished(Result.COMPLETE), finished(Result.FAILED, at=2000.0)],
        {"sync": "users"},
        1000,
    ),
    (
        "retl_runs_total",
        [finished(Result.FAILED)],
        {"sync": "users", "result": "failed"},
        1,
    ),
    (
        "retl_run_duration_seconds_sum",
        [finished(Result.INTERRUPTED)],
        {"sync": "users", "result": "interrupted"},
        7,
    ),
    (
        "retl_bigquery_bytes_billed_total",
        [finished(Result.COMPLETE, billed=10), finished(Result.COMPLETE, billed=5)],
        {"sync": "users"},
        15,
    ),
    ("retl_build_info", [], {"version": "1.2.3"}, 1),
]


@pytest.mark.parametrize(("name", "events", "labels", "expected"), CASES)
def test_an_event_counts(
    name: str, events: list[Event], labels: dict[str, str], expected: float
) -> None:
    assert value(fed(*events), name, **labels) == pytest.approx(expected)


def test_every_metric_has_a_case() -> None:
    named = {name for name, *_ in CASES}
    assert [each.name for each in METRICS if not any(n.startswith(each.name) for n in named)] == []


def test_all_series_of_a_route_appear_at_its_start_with_zero() -> None:
    observer = fed(started())
    for described in METRICS:
        suffix = "_count" if described.kind == "histogram" else ""
        for known in described.values or ("",):
            own = described.labels[-len(known.split()) :] if known else ()
            labels = {name: ROUTE[name] for name in described.labels if name in ROUTE}
            labels |= dict(zip(own, known.split(), strict=True))
            if described.name != "retl_build_info":
                assert value(observer, described.name + suffix, **labels) == 0, (described, labels)


def test_a_start_resets_nothing() -> None:
    events = [started(), encoded(5), settled(5), finished(Result.COMPLETE), started(skipped=5)]
    assert value(fed(*events), "retl_rows_read_total", **ROUTE) == 5


def test_an_event_of_another_kind_is_ignored() -> None:
    class Unheard(Event):
        pass

    fed(Unheard(**ROUTE))


# ------------------------------------------------------------------------------- the law


def test_an_interrupted_run_returns_what_is_not_settled() -> None:
    observer = fed(started(), encoded(10), settled(4), finished(Result.INTERRUPTED))
    assert value(observer, "retl_rows_total", **ROUTE, outcome="returned") == 6
    assert value(observer, "retl_rows_in_flight", **ROUTE) == 0
    assert gap(observer) == 0


def test_a_reading_begun_anew_without_an_end_returns_what_is_not_settled() -> None:
    observer = fed(started(), encoded(10), settled(4), started(skipped=4), encoded(6), settled(6))
    assert value(observer, "retl_rows_total", **ROUTE, outcome="returned") == 6
    assert value(observer, "retl_rows_in_flight", **ROUTE) == 0
    assert gap(observer) == 0


def test_a_run_that_lost_a_row_and_calls_itself_complete_breaks_the_law() -> None:
    observer = fed(started(), encoded(10), settled(9), finished(Result.COMPLETE))
    assert gap(observer) == 1


@pytest.mark.parametrize("result", list(Result))
def test_a_row_settled_twice_breaks_the_law(result: Result) -> None:
    assert gap(fed(started(), encoded(10), settled(11), finished(result))) == -1


def test_the_end_of_one_sync_leaves_another_in_flight() -> None:
    other = Finished(
        sync="events", destination="", result=Result.COMPLETE, seconds=1, at=1, bytes_billed=0
    )
    assert value(fed(encoded(3), other), "retl_rows_in_flight", **ROUTE) == 3


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """What an engine that loses nothing emits: runs and resumes, ending in any way."""
    events: list[Event] = []
    for _ in range(draw(st.integers(1, 4))):
        flying = 0
        events.append(started(skipped=draw(st.integers(0, 9))))
        for _ in range(draw(st.integers(0, 12))):
            if draw(st.booleans()):
                rows = draw(st.integers(0, 50))
                invalid = draw(st.integers(0, rows))
                flying += rows - invalid
                events.append(encoded(rows, missing_id=invalid))
            else:
                done = draw(st.integers(0, flying))
                rejected = draw(st.integers(0, done))
                flying -= done
                events.append(settled(done - rejected, rejected_400=rejected))
            events.append(Buffered(**ROUTE, nbytes=flying, rows=flying))
        ending = draw(st.sampled_from([*Result, None]))
        if ending is Result.COMPLETE:
            events.append(settled(flying))
        if ending is not None:
            events.append(finished(ending))
    return events


@settings(max_examples=30, deadline=None)
@given(histories())
def test_the_law_holds_after_every_event(history: list[Event]) -> None:
    observer = PrometheusObserver("test")
    for event in history:
        observer(event)
        assert gap(observer) == 0, event


def test_every_scrape_beside_a_busy_engine_is_consistent() -> None:
    observer = fed(started())

    def engine() -> None:
        for _ in range(2_000):
            observer(encoded(100, missing_id=1))
            observer(settled(98, rejected_400=1))

    thread = threading.Thread(target=engine)
    thread.start()
    gaps = {gap(observer) for _ in range(50)}
    thread.join()
    assert gaps == {0}


# ------------------------------------------------------------------------------- bounds


def test_labels_are_bounded_words() -> None:
    observer = fed(started())
    observer(encoded(1, **{"ann@example.org has no id": 1}))
    assert value(observer, "retl_invalid_rows_total", **ROUTE, reason="other") == 1
    assert b"ann@example.org" not in generate_latest(observer.registry)


def test_a_label_takes_no_more_than_so_many_values() -> None:
    observer = fed(*(Retried(**ROUTE, reason=f"reason_{number}") for number in range(500)))
    shown = [
        sample.labels["reason"]
        for metric in observer.registry.collect()
        for sample in metric.samples
        if sample.name == "retl_retries_total"
    ]
    assert len(shown) < 50
    assert value(observer, "retl_retries_total", **ROUTE, reason="other") > 400  # type: ignore[operator]


def test_what_was_known_before_is_never_other() -> None:
    observer = fed(*(Retried(**ROUTE, reason=f"reason_{number}") for number in range(500)))
    observer(Retried(**ROUTE, reason="http_503"))
    assert value(observer, "retl_retries_total", **ROUTE, reason="http_503") == 1


def test_the_reasons_for_invalid_rows_are_all_known() -> None:
    invalid = next(each for each in METRICS if each.name == "retl_invalid_rows_total")
    assert set(invalid.values) == set(Reason)


def test_a_shard_that_is_complete_is_no_complete_run() -> None:
    shard = dataclasses.replace(finished(Result.COMPLETE, billed=5), whole=False)
    observer = fed(started(), shard)
    assert value(observer, "retl_runs_total", sync="users", result="complete") == 0
    assert value(observer, "retl_last_success_timestamp_seconds", sync="users") == 0
    assert value(observer, "retl_bigquery_bytes_billed_total", sync="users") == 5
    observer(finished(Result.COMPLETE))
    assert value(observer, "retl_runs_total", sync="users", result="complete") == 1
    assert value(observer, "retl_last_success_timestamp_seconds", sync="users") == 1000


def test_the_registry_is_its_own() -> None:
    before = set(REGISTRY._names_to_collectors)
    fed(started())
    assert set(REGISTRY._names_to_collectors) == before


def test_no_created_series() -> None:
    assert b"_created" not in generate_latest(fed(started(), attempted(200)).registry)


def test_names_follow_the_conventions() -> None:
    for each in METRICS:
        assert each.name.startswith("retl_")
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert each.text.endswith(".")
        assert not {"run", "run_id", "user", "row"} & set(each.labels)


def test_the_version_is_the_distributions_or_unknown() -> None:
    names = [
        sample.labels["version"]
        for metric in PrometheusObserver().registry.collect()
        for sample in metric.samples
        if sample.name == "retl_build_info"
    ]
    assert len(names) == 1
    assert names[0]


def test_the_document_is_up_to_date() -> None:
    kept = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert kept == document(), "run: python -m pipeline.metrics > docs/metrics.md"


def test_the_document_has_a_row_for_each_metric() -> None:
    rows = list(describe())
    assert [row[0].strip("`") for row in rows] == [each.name for each in METRICS]
    assert all(len(row) == 4 and "|" not in "".join(row) for row in rows)

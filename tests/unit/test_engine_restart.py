"""A run whose reading is gone: on which query it goes on, who is sent what again, what is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from memory_run import MemoryDeliverer, MemorySource, MemoryStore, everything, run

from pipeline.errors import (
    CredentialsError,
    DestinationError,
    PipelineError,
    ReadingExpired,
    ResultExpired,
)
from pipeline.events import Event, Finished, Restarted, Settled, Warned
from pipeline.model import Batch, Reading, Result, Window


def raising(*errors: PipelineError, at: tuple[int, int] = (0, 10)) -> Callable[[int, int], None]:
    """A fault of a MemorySource: these errors, one each time that row or a later one is read."""
    left = list(errors)

    def fault(stream: int, row: int) -> None:
        if stream == at[0] and row >= at[1] and left:
            raise left.pop(0)

    return fault


async def test_an_expired_session_is_followed_by_another_on_the_same_query() -> None:
    source, store, api = MemorySource([20, 5]), MemoryStore(), MemoryDeliverer()
    source.fault = raising(ReadingExpired("session expired."))
    events: list[Event] = []
    report = await run(source, store, {"api": api}, events=events)
    assert (report.result, report.restarts) == (Result.COMPLETE, {"session_expired": 1})
    assert source.started == ["run-1", "run-1"]
    assert report.as_dict()["restarts"] == {"session_expired": 1}
    assert set(api.delivered) == set(everything([20, 5]))
    assert report.destinations["api"].delivered == 25
    assert [e.reason for e in events if isinstance(e, Restarted)] == ["session_expired"]
    (said,) = [e.text for e in events if isinstance(e, Warned)]
    assert "session expired. Reads the same result anew. Every row is sent again" in said


async def test_an_expired_result_is_followed_by_another_query() -> None:
    source, store, api = MemorySource([20]), MemoryStore(), MemoryDeliverer()
    source.fault = raising(ResultExpired("the result is gone."))
    events: list[Event] = []
    report = await run(source, store, {"api": api}, events=events)
    assert (report.result, report.restarts) == (Result.COMPLETE, {"result_expired": 1})
    assert source.started == ["run-1", "run-1'"]
    (said,) = [e.text for e in events if isinstance(e, Warned)]
    assert "The query runs again." in said


async def test_both_one_after_the_other() -> None:
    source, store, api = MemorySource([20]), MemoryStore(), MemoryDeliverer()
    source.fault = raising(ReadingExpired("session"), ResultExpired("result"))
    report = await run(source, store, {"api": api})
    assert report.restarts == {"session_expired": 1, "result_expired": 1}
    assert source.started == ["run-1", "run-1", "run-1''"]
    assert report.bytes_billed == 20  # of two queries; reading one again costs nothing


async def test_a_query_is_billed_once_however_often_it_is_read() -> None:
    source, store = MemorySource([20]), MemoryStore()
    source.fault = raising(ReadingExpired("session"), ReadingExpired("session"))
    events: list[Event] = []
    report = await run(source, store, {"api": MemoryDeliverer()}, events=events)
    assert (report.result, report.bytes_billed) == (Result.COMPLETE, 10)
    assert [e.bytes_billed for e in events if isinstance(e, Finished)] == [10]
    assert store.open is not None
    assert store.open.reading is not None
    assert store.open.reading.bytes_billed == 0  # the history's sum is the bill


async def test_a_third_expiry_ends_the_run_and_the_next_goes_on_with_the_same_query() -> None:
    source, store, api = MemorySource([20]), MemoryStore(), MemoryDeliverer()
    source.fault = raising(*[ReadingExpired("session")] * 4)
    report = await run(source, store, {"api": api})
    assert (report.exit_code, report.restarts) == (75, {"session_expired": 2})
    report = await run(source, store, {"api": api})
    assert (report.result, report.restarts) == (Result.COMPLETE, {"session_expired": 1})
    assert set(source.started) == {"run-1"}


async def test_a_destination_that_has_everything_is_sent_nothing_again() -> None:
    source, store = MemorySource([20]), MemoryStore()
    expired = [ReadingExpired("session")]
    read: list[int] = []

    def fault(_stream: int, row: int) -> None:
        if row == 15:
            read.append(row)
            if len(read) == 2 and expired:  # the second lane to get there
                raise expired.pop()

    source.fault = fault
    fast, slow = MemoryDeliverer(), MemoryDeliverer()
    events: list[Event] = []
    report = await run(source, store, {"a": fast, "b": slow}, events=events)
    assert report.restarts == {"session_expired": 1}
    twice = {"a": len(fast.delivered) > 20, "b": len(slow.delivered) > 20}
    assert sorted(twice.values()) == [False, True]
    counts = report.destinations
    assert [counts[name].delivered for name in ("a", "b")] == [20, 20]
    done = next(name for name, again in twice.items() if not again)
    assert store.open is not None
    assert store.open.done == {done}
    (said,) = [e.text for e in events if isinstance(e, Warned)]
    assert f"Every row is sent again, but not to {done}, under the message id it had." in said
    settled = sum(e.delivered for e in events if isinstance(e, Settled) and e.destination == done)
    assert settled == 20


async def test_who_had_everything_before_a_new_query_gets_its_rows_too() -> None:
    source, store = MemorySource([20]), MemoryStore()
    errors: list[PipelineError] = [ReadingExpired("session"), ResultExpired("result")]
    lanes = iter(range(100))

    def fault(_stream: int, row: int) -> None:
        if row == 15 and next(lanes) in {1, 2}:
            raise errors.pop(0)

    source.fault = fault
    one, two = MemoryDeliverer(), MemoryDeliverer()
    report = await run(source, store, {"a": one, "b": two})
    assert report.restarts == {"session_expired": 1, "result_expired": 1}
    assert [counts.delivered for counts in report.destinations.values()] == [20, 20]
    assert min(len(one.delivered), len(two.delivered)) == 40


async def test_what_ends_a_run_for_good_counts_before_what_expired() -> None:
    source, store = MemorySource([20]), MemoryStore()
    source.fault = raising(*[ReadingExpired("session")] * 9, at=(0, 15))

    def refuse(_batch: Batch) -> None:
        raise CredentialsError("the key is refused")

    report = await run(source, store, {"a": MemoryDeliverer(), "b": MemoryDeliverer(refuse)})
    assert isinstance(report.error, CredentialsError)
    assert report.restarts == {}
    assert len(source.started) == 1


async def test_everything_settled_before_a_crash_needs_no_session_any_more() -> None:
    source, store, api = MemorySource([20, 7]), MemoryStore(), MemoryDeliverer()

    def crash(batch: Batch) -> None:
        if other.delivered and batch.span.first == 0 and not crashed:
            crashed.append(True)
            raise DestinationError("down")

    crashed: list[bool] = []
    other = MemoryDeliverer(crash)
    other.delivered.append((9, 9))
    first = await run(source, store, {"a": api, "b": other})
    assert first.result is Result.FAILED
    assert first.destinations["a"].delivered == 27
    reads = len(source.read_from)
    await run(source, store, {"a": api, "b": other})
    assert sorted(api.delivered) == everything([20, 7])
    # Only the other destination's streams were opened again.
    assert len(source.read_from) - reads == 2


@pytest.mark.parametrize("expired", [ReadingExpired("session"), ResultExpired("result")])
async def test_a_reading_may_be_gone_before_it_is_read(expired: PipelineError) -> None:
    class Late(MemorySource):
        async def start(self, window: Window, job_key: str) -> Reading:
            reading = await super().start(window, job_key)
            if len(self.started) == 1:
                raise expired
            return replace(reading, bytes_billed=3)

    source, store, api = Late([20]), MemoryStore(), MemoryDeliverer()
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert sorted(api.delivered) == everything([20])

"""A stream that breaks in every way, read at the seam of the gRPC channel, in virtual time."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from typing import Any

import pytest
from fake_read_api import SCHEMA, FakeReadApi, Trouble

from pipeline.errors import (
    BrokenFrame,
    ConfigError,
    CredentialsError,
    PipelineError,
    ReadingExpired,
    SourceError,
)
from pipeline.source.idle import Idle
from pipeline.source.read import StreamReader

DOWN = Trouble("UNAVAILABLE", details="socket closed")


def api_of(*troubles: Trouble, rows: int = 23) -> FakeReadApi:
    return FakeReadApi([rows], troubles=deque(troubles))


def reader_of(api: FakeReadApi, **options: Any) -> StreamReader:
    settings: dict[str, Any] = {
        "where": "sync users",
        "sleep": api.sleep,
        "clock": api.clock,
        "uniform": lambda _low, high: high,
    }
    return StreamReader(api, SCHEMA, **(settings | options))


async def rows_of(api: FakeReadApi, first: int = 0, **options: Any) -> list[int]:
    found: list[int] = []
    async with aclosing(reader_of(api, **options).read(api.names()[0], 0, first)) as frames:
        async for frame in frames:
            assert (frame.span.stream, frame.span.first) == (0, first + len(found))
            found += frame.record_batch().column("x").to_pylist()
    assert api.open_calls == 0
    return found


async def test_a_stream_from_any_row_also_at_its_end() -> None:
    for first in (0, 1, 5, 22, 23):
        assert await rows_of(api_of(), first) == [*range(first, 23)]


@pytest.mark.parametrize("after", [0, 1, 4, 5])
@pytest.mark.parametrize(
    "trouble",
    [
        *("UNAVAILABLE", "UNKNOWN", "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED"),
        *("RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "silent"),
    ],
)
async def test_it_goes_on_at_the_next_row(trouble: str, after: int) -> None:
    api = api_of(Trouble(trouble, after))
    assert await rows_of(api) == [*range(23)]
    assert api.calls == [("s/1/0", 0), ("s/1/0", min(5 * after, 23))]
    assert len(api.waits) == 1


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("kind", ["truncated", "uncounted"])
async def test_a_message_that_can_not_be_is_asked_for_again(kind: str, after: int) -> None:
    api = api_of(Trouble(kind, after))
    assert await rows_of(api) == [*range(23)]
    assert api.calls == [("s/1/0", 0), ("s/1/0", 5 * after)]


async def test_an_outage_is_waited_out_and_tries_back_off() -> None:
    api = api_of(*[DOWN] * 36)
    assert await rows_of(api) == [*range(23)]
    assert api.waits == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, *[30.0] * 29]


async def test_an_outage_without_end_ends_the_read_at_the_deadline() -> None:
    api = api_of(*[DOWN] * 100)
    with pytest.raises(SourceError, match=r"UNAVAILABLE.*socket closed, for 921 s"):
        await rows_of(api)
    assert 900 <= api.clock() < 930
    api = api_of(*[DOWN] * 100)
    with pytest.raises(SourceError, match="UNAVAILABLE"):
        await rows_of(api, deadline=5.0)
    assert api.waits == [0.4, 0.8, 1.6, 3.2]


async def test_every_message_that_comes_gives_all_the_time_again() -> None:
    api = api_of(*[DOWN] * 4, Trouble("UNKNOWN", 1), *[DOWN] * 3)
    assert await rows_of(api, deadline=7.0) == [*range(23)]
    assert api.waits == [0.4, 0.8, 1.6, 3.2, 0.4, 0.8, 1.6, 3.2]


async def test_what_is_waited_out_is_told_until_rows_come_again() -> None:
    api = api_of(*[DOWN] * 3, Trouble("silent"), Trouble("truncated"))
    told: list[str] = []

    async def sleep(seconds: float) -> None:
        told.append(reader.trouble)
        await api.sleep(seconds)

    reader = reader_of(api, sleep=sleep)
    frames = reader.read("s/1/0", 0, 0)
    assert reader.trouble == ""
    await anext(frames)
    assert reader.trouble == ""
    assert told == [
        "reading again after UNAVAILABLE, for 0 s",
        "reading again after UNAVAILABLE, for 0 s",
        "reading again after UNAVAILABLE, for 1 s",
        "reading again after no message, for 120 s",
        "reading again after a broken message, for 123 s",
    ]
    await frames.aclose()


async def test_waits_are_jittered() -> None:
    api = api_of(*[DOWN] * 4)
    asked: list[tuple[float, float]] = []

    def lower_half(low: float, high: float) -> float:
        asked.append((low, high))
        return high / 4

    await rows_of(api, uniform=lower_half)
    assert asked == [(0.0, 0.4), (0.0, 0.8), (0.0, 1.6), (0.0, 3.2)]
    assert api.waits == [0.1, 0.2, 0.4, 0.8]


async def test_retry_info_is_obeyed() -> None:
    api = api_of(*[Trouble("RESOURCE_EXHAUSTED", retry_after=7.0)] * 40)
    assert await rows_of(api) == [*range(23)]
    assert api.waits == pytest.approx([7.7] * 40)  # never before it was asked for
    api = api_of(*[Trouble("RESOURCE_EXHAUSTED", retry_after=0.0)] * 40)
    assert await rows_of(api) == [*range(23)]
    assert min(api.waits) > 0


async def test_retry_info_beyond_patience_ends_the_read() -> None:
    api = api_of(Trouble("RESOURCE_EXHAUSTED", retry_after=3_600.0, details="quota exceeded"))
    with pytest.raises(SourceError, match=r"RESOURCE_EXHAUSTED.*quota exceeded"):
        await rows_of(api)
    assert api.waits == []
    api = api_of(*[Trouble("RESOURCE_EXHAUSTED", retry_after=100.0)] * 10)
    with pytest.raises(SourceError, match="RESOURCE_EXHAUSTED"):
        await rows_of(api)
    assert sum(api.waits) <= 900


async def test_without_retry_info_a_quota_is_tried_as_long_as_an_outage() -> None:
    api = api_of(*[Trouble("RESOURCE_EXHAUSTED")] * 100)
    with pytest.raises(SourceError, match="RESOURCE_EXHAUSTED"):
        await rows_of(api)
    assert 900 <= api.clock() < 930


async def test_a_refused_token_is_renewed_once() -> None:
    api = api_of(Trouble("UNAUTHENTICATED", 1), Trouble("UNAUTHENTICATED", 1))
    renewed: list[object] = []

    def renew(channel: object) -> object:
        renewed.append(channel)
        return channel

    assert await rows_of(api, renew=renew) == [*range(23)]
    assert renewed == [api, api]  # a message came between
    api = api_of(Trouble("UNAUTHENTICATED", 1), Trouble("UNAUTHENTICATED"))
    with pytest.raises(CredentialsError):
        await rows_of(api)


async def test_silence_gets_another_connection_more_patience_and_an_end() -> None:
    api, renewed = api_of(*[Trouble("silent")] * 3), []

    def renew(channel: Any) -> Any:
        renewed.append(channel)
        return channel

    assert await rows_of(api, renew=renew) == [*range(23)]
    assert len(renewed) == 3


@pytest.mark.parametrize(
    ("deadline", "silences"),
    [
        (30.0, [120]),  # never less than at first: a filter may find its first row late
        (900.0, [120, 240, 480, 120]),
        (5_000.0, [120, 240, 480, 960, 960, 960, 960, 320]),
    ],
)
async def test_silence_ends_the_read_at_the_deadline_too(
    monkeypatch: pytest.MonkeyPatch, deadline: float, silences: list[float]
) -> None:
    api, waited = api_of(), []

    async def silent(_idle: Idle, awaitable: Any, seconds: float) -> Any:
        awaitable.close()
        waited.append(seconds)
        await api.sleep(seconds)
        raise TimeoutError

    monkeypatch.setattr(Idle, "wait", silent)
    with pytest.raises(SourceError, match=f"no message for {sum(silences):,} s"):
        await rows_of(api, deadline=deadline, uniform=lambda low, _high: low)
    assert waited == silences


async def test_the_patience_with_silence_ends_with_the_next_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []
    real = Idle.wait

    async def noted(idle: Idle, awaitable: Any, seconds: float) -> Any:
        asked.append(seconds)
        return await real(idle, awaitable, 0.0 if len(asked) <= 2 else seconds)

    monkeypatch.setattr(Idle, "wait", noted)
    api = api_of(Trouble("silent"), Trouble("silent"), rows=10)
    assert await rows_of(api, idle=3.0) == [*range(10)]
    assert asked == [3.0, 6.0, 12.0, 3.0, 3.0]


async def test_a_message_that_stays_broken_ends_the_read_without_its_bytes() -> None:
    api = api_of(*[Trouble("truncated")] * 4)
    with pytest.raises(SourceError, match="broken, each time it is asked for") as caught:
        await rows_of(api)
    assert "0-" not in str(caught.value)
    assert len(api.calls) == 4


async def test_a_garbled_frame_says_so_where_it_is_decoded() -> None:
    api = api_of(Trouble("garbled", 1))
    frames = reader_of(api).read("s/1/0", 0, 0)
    async with aclosing(frames):
        assert (await anext(frames)).record_batch().num_rows == 5
        with pytest.raises(BrokenFrame, match="no Arrow record batch"):
            (await anext(frames)).record_batch()


@pytest.mark.parametrize(
    ("trouble", "error", "said"),
    [
        (Trouble("NOT_FOUND"), ReadingExpired, "session is gone"),
        (
            Trouble("FAILED_PRECONDITION", 1, "session expired at 12:00"),
            ReadingExpired,
            "session expired at 12:00.*6 hours",
        ),
        (
            Trouble("FAILED_PRECONDITION", 0, "offset 9 has not been allocated yet"),
            SourceError,
            "ends before the row up to which it was settled.*offset 9.*retl state set",
        ),
        (Trouble("FAILED_PRECONDITION", 0, "something else"), SourceError, "FAILED_PRECONDITION"),
        (Trouble("DATA_LOSS", 1), SourceError, "can't give some rows.*retl state set"),
        (Trouble("PERMISSION_DENIED"), CredentialsError, r"roles/bigquery\.readSessionUser"),
        (Trouble("INVALID_ARGUMENT"), ConfigError, "refuses the read"),
        (Trouble("INTERNAL", 0, "disk on fire"), SourceError, "INTERNAL.*disk on fire"),
        (Trouble("UNIMPLEMENTED"), SourceError, "UNIMPLEMENTED"),
        (Trouble("reordered"), ReadingExpired, "columns.*x, userId"),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
async def test_what_does_not_pass_is_typed_explained_and_not_tried_again(
    trouble: Trouble, error: type[PipelineError], said: str
) -> None:
    api = api_of(trouble)
    with pytest.raises(error, match=said) as caught:
        await rows_of(api)
    assert type(caught.value) is error
    assert len(api.calls) == 1
    assert api.waits == []


@pytest.mark.parametrize(
    "words",
    [
        "Received RST_STREAM with error code 2",
        "stream terminated by RST_STREAM",
        "Received unexpected EOS on DATA frame from server",
        "HTTP/2 error code: INTERNAL_ERROR\nReceived Rst Stream",
        "Connection closed with unknown cause",
    ],
)
async def test_internal_passes_where_it_speaks_of_the_connection(words: str) -> None:
    assert await rows_of(api_of(Trouble("INTERNAL", 1, words))) == [*range(23)]


async def test_a_session_known_to_be_over_is_not_asked() -> None:
    api = api_of()
    with pytest.raises(ReadingExpired, match="time is over"):
        await rows_of(api, expires=1_000, now=lambda: 1_301.0)
    assert api.calls == []
    # Also where it ends in an outage.
    api, times = api_of(*[DOWN] * 9), iter([1_299.0, 1_301.0])
    with pytest.raises(ReadingExpired, match="time is over"):
        await rows_of(api, expires=1_000, now=lambda: next(times))
    api = api_of()
    # Our clock may be a few minutes ahead of BigQuery's.
    assert await rows_of(api, expires=1_000, now=lambda: 1_299.0) == [*range(23)]


async def test_closing_the_iterator_cancels_the_call() -> None:
    api = api_of()
    frames = reader_of(api).read("s/1/0", 0, 0)
    await anext(frames)
    assert api.open_calls == 1
    await frames.aclose()
    assert api.open_calls == 0


async def test_metadata_of_a_call() -> None:
    api = api_of(DOWN)
    await rows_of(api, headers=(("x-goog-api-client", "retl/1"),))
    expected = (("x-goog-request-params", "read_stream=s/1/0"), ("x-goog-api-client", "retl/1"))
    assert api.metadata == [expected, expected]

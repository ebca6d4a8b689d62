"""Spooling as readers see it: every row once and in order, whatever becomes of disk and source."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from memory_spool import (
    FILE,
    SPOOLED,
    STREAM,
    NumberFrame,
    NumberSource,
    expired,
    files,
    in_order,
    numbers,
    rows_of,
    settle,
    spool,
)

from pipeline.errors import UnusableState
from pipeline.events import Event, Spooled, Warned
from pipeline.model import Span, Window
from pipeline.source.spool.source import place_of

WINDOW = Window(start=0, sequence=1)


@pytest.fixture(autouse=True)
def turns() -> Iterator[None]:
    with in_order(file_bytes=FILE):
        yield


async def test_rows_come_from_disk_and_the_source_is_read_once_for_all(tmp_path: Path) -> None:
    inner = NumberSource([95, 0, 31])
    one, reading = spool(inner, tmp_path), inner.reading()
    for _destination in range(3):
        for stream, rows in enumerate(inner.rows):
            assert await numbers(one, reading, stream) == rows_of(stream, 0, rows)
    await settle()
    assert sorted(inner.asked) == [(0, 0), (1, 0), (2, 0)]
    assert files(tmp_path, "end") == [
        "00000-000000000095.end",
        "00001-000000000000.end",
        "00002-000000000031.end",
    ]
    await one.close()
    assert inner.closed == 1
    assert len(files(tmp_path)) == 14


async def test_reading_begins_anywhere(tmp_path: Path) -> None:
    inner = NumberSource([95])
    one, reading = spool(inner, tmp_path), inner.reading()
    for first in (0, 1, 9, 10, 55, 94, 95):
        assert await numbers(one, reading, 0, first) == rows_of(0, first, 95)
    await one.close()


async def test_files_go_when_every_destination_has_settled_them(tmp_path: Path) -> None:
    inner = NumberSource([95])
    one, reading = spool(inner, tmp_path), inner.reading()
    events: list[Event] = []
    one._observer = events.append
    one.settled(reading, {0: 0})
    await numbers(one, reading, 0)
    one.settled(reading, {0: 39})
    await settle()
    assert files(tmp_path)[0] == "00000-000000000030-000000000040.arrow"
    assert await numbers(one, reading, 0, 39) == rows_of(0, 39, 95)
    one.settled(reading, {0: 95})
    await settle()
    assert files(tmp_path) == []
    spooled = [event for event in events if isinstance(event, Spooled)]
    assert spooled[-1].on_disk == 0
    assert sum(event.written for event in spooled) == max(event.on_disk for event in spooled)
    await one.discard()
    await one.close()
    assert files(tmp_path, "*") == []


async def test_a_restart_reads_nothing_that_is_on_disk(tmp_path: Path) -> None:
    inner = NumberSource([95, 20])
    reading = inner.reading()
    first = spool(inner, tmp_path)
    await numbers(first, reading, 0)
    await numbers(first, reading, 1)
    await settle()
    await first.close()

    gone = NumberSource([95, 20], fault=expired)
    again = spool(gone, tmp_path, always=False)  # what was begun is gone on with
    again.settled(reading, {0: 42, 1: 20})
    assert await numbers(again, reading, 0, 42) == rows_of(0, 42, 95)
    assert await numbers(again, reading, 0, 44) == rows_of(0, 44, 95)
    assert await numbers(again, reading, 1, 20) == []
    assert gone.asked == []
    await again.close()


async def test_a_restart_goes_on_with_the_source_where_the_disk_ends(tmp_path: Path) -> None:
    stop = asyncio.Event()

    def hang(_stream: int, row: int) -> None:
        if row == 60:
            stop.set()
            raise asyncio.CancelledError

    inner = NumberSource([95], fault=hang)
    reading = inner.reading()
    first = spool(inner, tmp_path)
    assert await numbers(first, reading, 0, until=60) == rows_of(0, 0, 60)
    await first.close()
    assert stop.is_set()

    inner = NumberSource([95])
    again = spool(inner, tmp_path)
    assert await numbers(again, reading, 0, 7) == rows_of(0, 7, 95)
    assert inner.asked == [(0, 60)]
    await again.close()


async def test_what_was_settled_before_is_not_spooled(tmp_path: Path) -> None:
    inner = NumberSource([95])
    one, reading = spool(inner, tmp_path), inner.reading()
    one.settled(reading, {0: 57})
    assert await numbers(one, reading, 0, 57) == rows_of(0, 57, 95)
    assert inner.asked == [(0, 57)]
    await one.close()


async def test_a_full_spool_stops_the_source_and_goes_on_as_files_go(tmp_path: Path) -> None:
    inner, events = NumberSource([95]), list[Event]()
    one = spool(inner, tmp_path, max_bytes=2 * SPOOLED, events=events)
    reading, got = inner.reading(), []
    async for frame in one.read(reading, 0, 0):
        got += frame.record_batch().column(0).to_pylist()
        await settle()
        assert len(inner.sent) <= len(got) // 10 + 3
        assert len(files(tmp_path)) <= 2
        one.settled(reading, {0: len(got)})
    assert got == rows_of(0, 0, 95)
    assert inner.asked == [(0, 0)]
    assert max(event.on_disk for event in events if isinstance(event, Spooled)) <= 2 * SPOOLED
    await one.close()


async def test_a_destination_that_stands_still_does_not_hold_back_another(tmp_path: Path) -> None:
    inner = NumberSource([95, 40])
    one, reading = spool(inner, tmp_path, max_bytes=2 * SPOOLED), inner.reading()
    slow = one.read(reading, 0, 0)
    await anext(slow)
    # Nothing is ever settled, so nothing is deleted: the fast one reads past the disk.
    assert await numbers(one, reading, 0) == rows_of(0, 0, 95)
    assert await numbers(one, reading, 1) == rows_of(1, 0, 40)
    assert len(files(tmp_path)) <= 2
    rest = [row async for frame in slow for row in frame.record_batch().column(0).to_pylist()]
    assert rest == rows_of(0, 10, 95)
    await one.close()


async def test_what_is_settled_before_it_comes_is_not_written(tmp_path: Path) -> None:
    inner = NumberSource([95])
    one, reading = spool(inner, tmp_path, max_bytes=2 * SPOOLED), inner.reading()
    assert await numbers(one, reading, 0) == rows_of(0, 0, 95)  # past the full disk
    one.settled(reading, {0: 90})
    await settle()
    assert files(tmp_path) == ["00000-000000000090-000000000095.arrow"]
    assert await numbers(one, reading, 0, 90) == rows_of(0, 90, 95)
    await one.close()


async def test_a_message_larger_than_the_spool_passes_by(tmp_path: Path) -> None:
    inner = NumberSource([30])
    one, reading = spool(inner, tmp_path, max_bytes=10), inner.reading()
    assert await numbers(one, reading, 0) == rows_of(0, 0, 30)
    assert files(tmp_path) == []
    await one.close()


async def test_a_stream_that_ends_early_is_asked_for_more_and_is_not_taken_for_whole(
    tmp_path: Path,
) -> None:
    inner = NumberSource([95, 20])
    reading = inner.reading()
    short = NumberSource([60, 20])
    one = spool(short, tmp_path)
    for stream, rows in enumerate(short.rows):
        assert await numbers(one, reading, stream) == rows_of(stream, 0, rows)
        assert await numbers(one, reading, stream, rows) == []  # asked again, it tells the same
    await settle()
    assert files(tmp_path, "end") == []
    short.rows = inner.rows  # and then there is more
    for _destination in range(2):
        assert await numbers(one, reading, 0, 60) == rows_of(0, 60, 95)
        assert await numbers(one, reading, 0, 0) == rows_of(0, 0, 95)
    await one.close()

    again = spool(inner, tmp_path)
    assert await numbers(again, reading, 0, 95) == []
    assert await numbers(again, reading, 0, 10) == rows_of(0, 10, 95)
    await settle()
    assert len(files(tmp_path, "end")) == 2
    assert inner.asked == [(0, 60), (1, 20)]
    await again.close()


async def test_where_rows_are_an_estimate_an_end_is_as_the_source_says(tmp_path: Path) -> None:
    inner = NumberSource([60])
    one, reading = spool(inner, tmp_path), replace(inner.reading(), rows=99, rows_exact=False)
    assert await numbers(one, reading, 0) == rows_of(0, 0, 60)
    await settle()
    assert len(files(tmp_path, "end")) == 1
    await one.close()


@pytest.mark.parametrize("always", [True, False])
async def test_a_folder_that_can_not_be_used_ends_the_run_before_its_query(
    tmp_path: Path, *, always: bool
) -> None:
    inner = NumberSource([95])
    one = spool(inner, Path(__file__), always=always)
    with pytest.raises(UnusableState, match="RETL_SPOOL_DIR"):
        await one.start(WINDOW, "key")
    assert inner.started == []
    await one.close()

    one = spool(inner, tmp_path / "new", always=always)
    await one.start(WINDOW, "key")
    assert inner.started == ["key"]
    assert list((tmp_path / "new").iterdir()) == []
    await one.close()


async def test_a_folder_that_can_not_be_used_any_more_ends_the_run_before_a_row(
    tmp_path: Path,
) -> None:
    inner = NumberSource([95])
    one = spool(inner, Path(__file__))
    with pytest.raises(UnusableState, match="RETL_SPOOL_DIR"):
        await numbers(one, inner.reading(), 0)
    assert inner.asked == []
    await one.close()


async def test_a_reading_tells_another_process_where_its_rows_are(tmp_path: Path) -> None:
    inner, events = NumberSource([95]), list[Event]()
    first = spool(inner, tmp_path / "old")
    reading = await first.start(WINDOW, "key")
    await numbers(first, reading, 0)
    await settle()
    await first.close()
    place = place_of(reading)
    assert place is not None
    assert len(files(place)) == 10

    for folder in (tmp_path / "new", None):
        later = spool(inner, folder, always=False, events=events)
        assert await numbers(later, reading, 0) == rows_of(0, 0, 95)
        await later.close()
        (warned,) = [event.text for event in events if isinstance(event, Warned)]
        assert str(place.parent) in warned
        assert "`spool.dir`" in warned
        events.clear()
    assert files(tmp_path / "new") == []

    back = spool(inner, tmp_path / "old", always=False, events=events)
    inner.fault = expired
    assert await numbers(back, reading, 0) == rows_of(0, 0, 95)
    assert not [event for event in events if isinstance(event, Warned)]
    await back.close()


async def test_a_reading_that_is_not_spooled_names_no_place(tmp_path: Path) -> None:
    for folder, always in ((tmp_path, False), (None, True)):
        one = spool(NumberSource([95]), folder, always=always)
        assert place_of(await one.start(WINDOW, "key")) is None
        await one.close()


async def test_a_new_session_begins_anew_and_what_is_left_of_the_old_goes(tmp_path: Path) -> None:
    inner = NumberSource([95])
    one, reading = spool(inner, tmp_path), inner.reading("a")
    one.settled(reading, {0: 0})
    await numbers(one, reading, 0)
    following = inner.reading("b")
    one.settled(following, {0: 0})
    assert await numbers(one, following, 0) == rows_of(0, 0, 95)
    assert inner.asked == [(0, 0), (0, 0)]
    assert len(files(tmp_path, "json")) == 1
    await one.close()

    later = spool(inner, tmp_path, always=False)  # and so it goes when nothing is spooled
    await numbers(later, inner.reading("c"), 0)
    assert files(tmp_path, "json") == []
    await later.close()


@pytest.mark.parametrize(
    ("rate", "spooled"),
    [(None, False), (9.6, True), (9.7, False)],  # 775 rows in 100 s, of which 80 may be planned
)
async def test_a_run_is_spooled_where_sending_would_outlast_the_session(
    tmp_path: Path, rate: float | None, *, spooled: bool
) -> None:
    inner = NumberSource([775])
    one = spool(inner, tmp_path, always=False, rows_per_second=rate, now=1000.0)
    assert await numbers(one, inner.reading(expires=1100), 0) == rows_of(0, 0, 775)
    assert bool(files(tmp_path)) is spooled
    await one.close()


async def test_without_a_folder_it_is_only_told(tmp_path: Path) -> None:
    inner, events = NumberSource([7200]), list[Event]()
    reading = inner.reading(expires=4600)
    for rate in (1.0, 10.0):
        one = spool(inner, None, rows_per_second=rate, events=events, now=1000.0)
        assert await numbers(one, reading, 0) == rows_of(0, 0, 7200)
        one.settled(reading, {0: 7200})
        await one.discard()
        await one.close()
    (text,) = [event.text for event in events if isinstance(event, Warned)]
    assert "takes 2.0 h or more" in text
    assert "lasts 1.0 h" in text
    assert "RETL_SPOOL_DIR" in text


async def test_it_is_the_source_that_it_wraps(tmp_path: Path) -> None:
    inner = NumberSource([1], activity="query running")
    one = spool(inner, tmp_path)
    assert one.sql(WINDOW) == "SELECT n"
    assert one.activity == "query running"
    assert (await one.dry_run(WINDOW)).statement_type == "SELECT"
    assert (await one.start(WINDOW, "k")).rows == 1
    with pytest.raises(AssertionError):
        await one.preview(WINDOW, 1, "k")


def test_numbers_are_told_apart() -> None:
    assert NumberFrame(Span(stream=2, first=5, rows=1)).batch.column(0).to_pylist() == [
        2 * STREAM + 5
    ]

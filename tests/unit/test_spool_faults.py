"""What a spool does when the disk or the source fails: no row is lost, and none comes twice."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import virtual_time
from memory_spool import (
    FILE,
    NumberFrame,
    NumberSource,
    expired,
    files,
    in_order,
    numbers,
    rows_of,
    settle,
    size_of,
    spool,
)

from pipeline.errors import BrokenFrame, ReadingExpired, ResultExpired, SourceError
from pipeline.events import Event, Warned
from pipeline.source.spool.folder import Folder, Stored


@pytest.fixture(autouse=True)
def turns() -> Iterator[None]:
    with in_order(file_bytes=FILE):
        yield


def damage(folder: Path, first: int, *, gone: bool = False) -> None:
    (path,) = folder.rglob(f"*-{first:012}-*.arrow")
    if gone:
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_a_damaged_file_is_read_from_the_source_again(tmp_path: Path) -> None:
    inner, events = NumberSource([95]), list[Event]()
    one, reading = spool(inner, tmp_path, events=events), inner.reading()
    await numbers(one, reading, 0)
    damage(tmp_path, 30)
    damage(tmp_path, 70, gone=True)
    for _destination in range(2):
        assert await numbers(one, reading, 0, 5) == rows_of(0, 5, 95)
    await settle()
    told = [event.text for event in events if isinstance(event, Warned)]
    assert [text.partition(":")[0] for text in told] == 2 * [
        "A file of the spool is damaged or gone"
    ]
    assert [at for at in inner.asked if at != (0, 0)] == 2 * [(0, 30), (0, 70)]
    await one.close()

    inner = NumberSource([95])
    again = spool(inner, tmp_path)  # the next process fills the gaps, and reads no more
    assert await numbers(again, reading, 0) == rows_of(0, 0, 95)
    assert sorted(set(inner.sent)) == [(0, 30), (0, 70)]
    assert len(files(tmp_path)) == 10
    await again.close()


@pytest.mark.parametrize("kind", [ReadingExpired, ResultExpired])
async def test_a_damaged_file_of_a_session_that_is_gone_ends_the_reading(
    tmp_path: Path, kind: type[ReadingExpired]
) -> None:
    inner = NumberSource([95])
    one, reading = spool(inner, tmp_path), inner.reading()
    await numbers(one, reading, 0)
    damage(tmp_path, 30)

    def gone(_stream: int, _row: int) -> None:
        raise kind("the read session is gone.")

    inner.fault = gone
    with pytest.raises(kind, match=r"sync users: a file of the spool was damaged \(.*check the"):
        await numbers(one, reading, 0)
    await one.close()


async def test_once_it_is_on_disk_an_expired_session_does_not_matter(tmp_path: Path) -> None:
    inner = NumberSource([95, 20])
    one, reading = spool(inner, tmp_path), inner.reading()
    frames = one.read(reading, 0, 0)
    await anext(frames)
    await settle()
    inner.fault = expired
    rest = [row async for frame in frames for row in frame.record_batch().column(0).to_pylist()]
    assert rest == rows_of(0, 10, 95)
    assert await numbers(one, reading, 1) == rows_of(1, 0, 20)
    await one.close()


async def test_a_session_that_expires_before_ends_the_reading_at_once(tmp_path: Path) -> None:
    def late(_stream: int, row: int) -> None:
        if row == 80:
            raise ReadingExpired("the read session is gone.")

    inner = NumberSource([95], fault=late)
    one, reading = spool(inner, tmp_path), inner.reading()
    frames = one.read(reading, 0, 0)
    await anext(frames)
    await settle()
    with pytest.raises(ReadingExpired):
        await anext(frames)  # what is on disk would be sent twice
    await one.close()


async def test_a_fault_of_the_source_is_met_where_the_disk_ends(tmp_path: Path) -> None:
    def fault(stream: int, row: int) -> None:
        if (stream, row) == (0, 50):
            raise SourceError("BigQuery is down.")

    inner = NumberSource([95, 10], fault=fault)
    one, reading = spool(inner, tmp_path), inner.reading()
    assert await numbers(one, reading, 0, until=50) == rows_of(0, 0, 50)
    with pytest.raises(SourceError, match="BigQuery is down"):
        await numbers(one, reading, 0, 45)
    await one.close()


@dataclass
class Outage:
    """Of the wrapped source, from a row on; met: how often."""

    row: int = 50
    over: bool = False
    met: int = 0

    def __call__(self, _stream: int, row: int) -> None:
        if row == self.row and not self.over:
            self.met += 1
            raise SourceError("BigQuery is down.")


async def test_after_a_fault_rows_go_on_from_disk_and_the_source_is_asked_again(
    tmp_path: Path,
) -> None:
    outage, events = Outage(), list[Event]()
    inner = NumberSource([95, 20], fault=outage)
    one, reading = spool(inner, tmp_path, events=events), inner.reading()
    frames = one.read(reading, 0, 0)
    assert (await anext(frames)).span.end == 10
    await settle()
    assert outage.met == 1
    got = [*range(10)]
    outage.over = True
    async for frame in frames:
        got += frame.record_batch().column(0).to_pylist()
    assert got == rows_of(0, 0, 95)
    assert await numbers(one, reading, 1) == rows_of(1, 0, 20)
    assert [at for at in inner.asked if at[0] == 0] == [(0, 0), (0, 50)]
    (warned,) = [event.text for event in events if isinstance(event, Warned)]
    assert warned.startswith("BigQuery is down. What is on disk is sent meanwhile")
    await settle()
    assert len(files(tmp_path, "end")) == 2
    await one.close()


async def test_a_fault_ends_the_reading_of_those_only_who_wait_for_rows(tmp_path: Path) -> None:
    outage = Outage()
    inner = NumberSource([95], fault=outage)
    one, reading = spool(inner, tmp_path), inner.reading()
    slow = one.read(reading, 0, 0)
    await anext(slow)
    with pytest.raises(SourceError, match="BigQuery is down"):
        await numbers(one, reading, 0)
    met = outage.met
    outage.over = True
    rest = [row async for frame in slow for row in frame.record_batch().column(0).to_pylist()]
    assert rest == rows_of(0, 10, 95)
    assert outage.met == met
    await one.close()


def test_while_nobody_waits_the_source_is_asked_once_a_minute(tmp_path: Path) -> None:
    outage, met = Outage(), list[int]()

    async def main() -> None:
        inner = NumberSource([95], fault=outage)
        one, reading = spool(inner, tmp_path), inner.reading()
        frames = one.read(reading, 0, 0)
        await anext(frames)
        for _ in range(4):
            await asyncio.sleep(59.9)
            met.append(outage.met)
        outage.over = True
        await asyncio.sleep(60)
        assert len(files(tmp_path)) == 10
        await frames.aclose()
        await one.close()

    virtual_time.run(main())
    assert met == [1, 2, 3, 4]


async def test_a_fault_that_is_our_own_is_not_tried_again(tmp_path: Path) -> None:
    def fault(_stream: int, row: int) -> None:
        if row == 50:
            raise ZeroDivisionError

    inner = NumberSource([95], fault=fault)
    one, reading = spool(inner, tmp_path), inner.reading()
    frames = one.read(reading, 0, 0)
    await anext(frames)
    await settle()
    with pytest.raises(ZeroDivisionError):
        [frame async for frame in frames]
    assert inner.asked == [(0, 0)]
    await one.close()


async def test_a_message_that_came_broken_is_asked_for_again(tmp_path: Path) -> None:
    class Broken(NumberFrame):
        @property
        def serialized(self) -> bytes:
            return super().serialized[:-64] if self.span.first == 30 else super().serialized

    inner = NumberSource([95], frame=Broken)
    one, reading = spool(inner, tmp_path), inner.reading()
    with pytest.raises(BrokenFrame):
        await numbers(one, reading, 0)
    assert await numbers(one, reading, 0, 30) == rows_of(0, 30, 95)
    assert inner.asked == [(0, 0), (0, 30)]
    await one.close()


@dataclass
class Writes:
    """error: what writes run into once so many were made."""

    after: int = 10**9
    error: OSError | None = None

    def fail(self, number: int, *, after: int) -> None:
        self.after, self.error = after, OSError(number, os.strerror(number))


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    ours, write = Writes(), Folder.write

    def failing(self: Folder, file: Stored, pieces: list[bytes]) -> None:
        if ours.error is not None and ours.after <= 0:
            raise ours.error
        ours.after -= 1
        write(self, file, pieces)

    monkeypatch.setattr(Folder, "write", failing)
    return ours


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_loses_nothing_and_is_tried_again_when_files_go(
    tmp_path: Path, writes: Writes, number: int
) -> None:
    writes.fail(number, after=3)
    inner, events = NumberSource([200]), list[Event]()
    one, reading = spool(inner, tmp_path, events=events), inner.reading()
    got: list[int] = []
    async for frame in one.read(reading, 0, 0):
        got += frame.record_batch().column(0).to_pylist()
        if len(got) == 100:
            assert len(files(tmp_path)) == 3
            writes.error = None
            one.settled(reading, {0: 100})
            await settle()
            assert files(tmp_path)[0] > "00000-000000000090"
    assert got == rows_of(0, 0, 200)
    assert inner.asked == [(0, 0), (0, 30)]  # the other is past the disk, while it was full
    assert one._spooled is not None
    assert one._spooled._stock.used == size_of(tmp_path)
    (warned,) = [event.text for event in events if isinstance(event, Warned)]
    assert f"is full ({os.strerror(number)})" in warned
    await one.close()


async def test_a_disk_that_is_full_from_the_beginning_is_done_without(
    tmp_path: Path, writes: Writes
) -> None:
    writes.fail(errno.ENOSPC, after=0)
    inner, events = NumberSource([95, 30]), list[Event]()
    one, reading = spool(inner, tmp_path, events=events), inner.reading()
    assert await numbers(one, reading, 0) == rows_of(0, 0, 95)
    assert await numbers(one, reading, 1) == rows_of(1, 0, 30)
    assert files(tmp_path) == []
    assert len([event for event in events if isinstance(event, Warned)]) == 1
    await one.close()


async def test_a_disk_too_full_for_a_folder_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    inner, events = NumberSource([95]), list[Event]()
    one, reading = spool(inner, tmp_path, events=events), inner.reading()
    monkeypatch.setattr(Path, "mkdir", full)
    assert await numbers(one, reading, 0) == rows_of(0, 0, 95)
    (warned,) = [event.text for event in events if isinstance(event, Warned)]
    assert "can't be used: no space left on device" in warned
    await one.close()


def test_a_full_disk_that_others_made_room_on_is_used_again(tmp_path: Path, writes: Writes) -> None:
    writes.fail(errno.ENOSPC, after=3)

    async def main() -> None:
        inner = NumberSource([95])
        one, reading = spool(inner, tmp_path), inner.reading()
        frames = one.read(reading, 0, 0)
        await anext(frames)
        await settle()
        assert len(files(tmp_path)) == 3
        writes.error = None
        await asyncio.sleep(61)
        assert len(files(tmp_path)) == 10
        await frames.aclose()
        await one.close()

    virtual_time.run(main())


async def test_a_disk_that_fails_is_not_used_any_more(tmp_path: Path, writes: Writes) -> None:
    writes.fail(errno.EIO, after=3)
    inner, events = NumberSource([95, 30]), list[Event]()
    one, reading = spool(inner, tmp_path, events=events), inner.reading()
    assert await numbers(one, reading, 0) == rows_of(0, 0, 95)
    assert await numbers(one, reading, 1) == rows_of(1, 0, 30)
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert "can't be written (Input/output error)" in warned.text
    assert len(files(tmp_path)) == 3
    await one.close()

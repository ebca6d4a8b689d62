"""What a run shows while its source gets ready: from the engine to the terminal and the log."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
import structlog
from memory_run import MemoryDeliverer, MemorySource, MemoryStore, run
from rich.console import Console
from structlog.testing import capture_logs

from pipeline.cli.progress import Bars, Board, Lines
from pipeline.cli.run import summary
from pipeline.events import Event, Finished, Restarted, Started, Waiting
from pipeline.model import Counts, Result, Window
from pipeline.ports import Standing
from pipeline.run.report import RunReport

SAID = "query running, 12 s, 1.2 GB processed"
WAITING = Waiting(sync="users", destination="", activity=SAID)
STARTED = Started(sync="users", destination="cio", rows=1)
END = Finished(sync="users", destination="", result=Result.FAILED, seconds=1, at=1, bytes_billed=0)


async def test_a_run_tells_what_its_source_is_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.run.engine._COMMIT_EVERY", 0.001)
    stop = asyncio.Event()
    events: list[Event] = []

    def hear(event: Event) -> None:
        events.append(event)
        if isinstance(event, Waiting):
            stop.set()

    source = MemorySource([5], activity=SAID, hang_start=lambda: None)
    report = await run(source, MemoryStore(), {"api": MemoryDeliverer()}, stop=stop, observer=hear)
    assert report.result is Result.INTERRUPTED
    assert events[0] == WAITING
    assert isinstance(events[-1], Finished)


async def test_a_source_with_nothing_to_say_is_not_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.run.engine._COMMIT_EVERY", 0.001)
    stop = asyncio.Event()
    events: list[Event] = []
    store = MemoryStore()
    kept, commit = [0], store.commit

    def counted(*args: Any) -> Standing:
        standing = commit(*args)
        kept[0] += 1
        if kept[0] == 3:
            loop.call_soon_threadsafe(stop.set)
        return standing

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(store, "commit", counted)
    source = MemorySource([5], hang_start=lambda: None)
    await run(source, store, {"api": MemoryDeliverer()}, stop=stop, events=events)
    assert [type(event) for event in events] == [Finished]


@pytest.mark.parametrize(
    "after", [STARTED, END, Restarted(sync="users", destination="", reason="x")]
)
def test_the_board_knows_what_is_waited_for_until_it_is_there(after: Event) -> None:
    board = Board()
    board(WAITING)
    assert (board.waiting, board.tallies) == ({"users": SAID}, {})
    board(after)
    assert board.waiting == {}


def test_a_bar_says_what_is_waited_for() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    bars = Bars(console)
    bars(WAITING)
    with console.capture() as capture:
        console.print(bars.grid())
    assert SAID in capture.get()
    assert "users" in capture.get()


async def test_lines_say_what_is_waited_for() -> None:
    structlog.reset_defaults()
    with capture_logs() as logs:
        lines = Lines(every=0)
        lines(WAITING)
        async with lines.showing():
            while not logs:  # noqa: ASYNC110 - the list is structlog's, it can't wake anyone
                await asyncio.sleep(0)
    assert logs[0] | {"event": "run waiting", "sync": "users", "activity": SAID} == logs[0]


@pytest.mark.parametrize(
    ("took", "shown"),
    [({"slot_ms": 12_345}, "12.3 s"), ({"cache_hit": True}, "cached"), ({}, "0.0 s")],
)
def test_the_summary_and_the_report_tell_what_the_query_took(
    took: dict[str, Any], shown: str
) -> None:
    report = RunReport(
        sync="users",
        run="1",
        result=Result.COMPLETE,
        window=Window(start=0, sequence=1),
        query_started=1,
        rows=1,
        bytes_processed=5,
        bytes_billed=10,
        seconds=1.0,
        destinations={"cio": Counts(read=1, delivered=1)},
        **took,
    )
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as capture:
        console.print(summary(console, [report]))
    assert capture.get().split("\n")[2].rstrip().endswith(shown)
    assert {"slot_ms": 0, "cache_hit": False} | took == {
        key: report.as_dict()[key] for key in ("slot_ms", "cache_hit")
    }

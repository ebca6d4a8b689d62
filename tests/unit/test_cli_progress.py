import asyncio
import dataclasses
import io
import json
from typing import Any

import pytest
import structlog
from rich.console import Console
from structlog.testing import capture_logs

from pipeline.cli import progress
from pipeline.cli.logs import configure
from pipeline.cli.progress import Bars, Board, Lines
from pipeline.config import LogConfig
from pipeline.events import (
    Buffered,
    Encoded,
    Finished,
    HistoryPruned,
    Retried,
    Settled,
    Spooled,
    Started,
    Throttled,
    Warned,
)
from pipeline.model import Result
from pipeline.ports import WHOLE, Shard

WHO = {"sync": "users", "destination": "cio"}
SPENT = {"nbytes": 10, "read_seconds": 0.1, "encode_seconds": 0.1}
STORY = [
    Started(**WHO, rows=1_000, skipped=100),
    Encoded(**WHO, rows=500, invalid={"missing_id": 2}, **SPENT),
    Buffered(**WHO, nbytes=4_000, rows=498),
    Retried(**WHO, reason="429"),
    Throttled(**WHO, cause="retry_after", seconds=1),
    Settled(**WHO, delivered=300, rejected={"rejected_400": 3}),
    Buffered(**WHO, nbytes=2_000, rows=195),
]
END = Finished(
    sync="users", destination="", result=Result.COMPLETE, seconds=1, at=1, bytes_billed=0
)


def drawn(bars: Bars, console: Console) -> str:
    with console.capture() as capture:
        console.print(bars.grid())
    return capture.get()


def test_the_board_counts() -> None:
    board = Board()
    for event in STORY:
        board(event)
    (tally,) = board.tallies.values()
    assert (tally.total, tally.read, tally.delivered, tally.dead_lettered) == (1_000, 500, 300, 5)
    assert (tally.in_flight, tally.retries, tally.done) == (195, 1, 405)
    board(END)
    assert (tally.in_flight, tally.result) == (0, Result.COMPLETE)


def test_a_second_run_of_a_sync_begins_anew() -> None:
    board = Board()
    for event in [*STORY, END, Started(**WHO, rows=7)]:
        board(event)
    (tally,) = board.tallies.values()
    assert (tally.total, tally.done, tally.ended) == (7, 0, None)


def test_the_rate_is_of_the_last_seconds_and_at_the_end_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    board = Board()
    board(Started(**WHO, rows=None))
    (tally,) = board.tallies.values()
    now = 110.0
    board(Settled(**WHO, delivered=1_000))
    assert tally.rows_per_second(now) == 100
    now = 114.0
    board(Settled(**WHO, delivered=1_000))
    assert tally.rows_per_second(now) == 250
    now = 120.0
    assert tally.rows_per_second(now) == 0
    board(END)
    assert tally.rows_per_second(now) == 100


@pytest.mark.parametrize("width", [80, 120])
def test_bars_show_what_matters_and_fit(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bars = Bars(console)
    for event in STORY:
        bars(event)
    text = drawn(bars, console)
    for part in ("users", "405/1,000", "rows/s", "5 dead", "1 retries (429)", "195"):
        assert part in text
    assert len(text.splitlines()) == 1
    bars(Started(sync="users", destination="file", rows=None))
    text = drawn(bars, console)
    assert "users > cio" in text
    assert "0/?" in text
    bars(END)
    assert "in flight" not in drawn(bars, console)


def test_a_run_that_failed_says_so() -> None:
    console = Console(file=io.StringIO(), width=100)
    bars = Bars(console)
    bars(Started(**WHO, rows=10))
    bars(
        Finished(
            sync="users", destination="", result=Result.FAILED, seconds=1, at=1, bytes_billed=0
        )
    )
    assert "failed" in drawn(bars, console)


async def test_bars_draw_while_they_are_shown() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    bars = Bars(console)
    async with bars.showing():
        bars(STORY[0])
    assert "users" in console.file.getvalue()


async def told_of_progress(logs: list[Any]) -> None:
    while len(logs) < 2:  # noqa: ASYNC110 - the list is structlog's, it can't wake anyone
        await asyncio.sleep(0)


async def test_lines_tell_of_start_progress_and_end() -> None:
    structlog.reset_defaults()
    with capture_logs() as logs:
        lines = Lines(every=0)
        async with lines.showing():
            for event in STORY:
                lines(event)
            await asyncio.wait_for(told_of_progress(logs), timeout=10)
            lines(END)
    assert [line["event"] for line in (logs[0], logs[1], logs[-1])] == [
        "run started",
        "run progress",
        "run finished",
    ]
    assert logs[0] | {"rows": 1_000, "skipped": 100, "sync": "users"} == logs[0]
    assert logs[1] | {"in_flight": 195, "retries": 1, "retried_for": "429", "read": 500} == logs[1]
    assert logs[-1] | {"result": "complete", "delivered": 300, "dead_lettered": 5} == logs[-1]


def test_lines_tell_of_a_shard_that_was_over_already() -> None:
    structlog.reset_defaults()
    with capture_logs() as logs:
        lines = Lines()
        lines(END)
        lines(dataclasses.replace(END, result=Result.FAILED))  # whose error is told elsewhere
    assert [(line["event"], line["result"]) for line in logs] == [("run finished", "complete")]


def test_each_line_names_the_shard(capsys: pytest.CaptureFixture[str]) -> None:
    for shard, said in ((Shard(index=1, of=3, job="j"), "1 of 3"), (WHOLE, None)):
        configure(LogConfig(format="json"), shard)
        structlog.get_logger().info("run started")
        assert json.loads(capsys.readouterr().err).get("shard") == said
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("env", "kind"),
    [
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, Bars),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, Lines),
        ({"TERM": "xterm"}, Lines),
    ],
)
def test_bars_only_where_they_can_be_drawn(
    env: dict[str, str], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), _environ=env)
    monkeypatch.setattr(progress, "stderr", lambda: console)
    assert isinstance(progress.progress(), kind)


def test_warnings_are_shown_once_and_the_spool_is_no_destination() -> None:
    console = Console(file=io.StringIO(), width=200)
    bars, lines = Bars(console), Lines()
    with capture_logs() as logs:
        for event in (
            Warned(sync="users", destination="", text="Sending takes 9 h."),
            Spooled(sync="users", destination="", on_disk=1, written=1),
        ):
            bars(event)
            lines(event)
    assert logs == [{"event": "Sending takes 9 h.", "sync": "users", "log_level": "warning"}]
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().strip() == "users: Sending takes 9 h."
    assert drawn(bars, console).strip() == ""


def test_what_was_deleted_by_age_is_told() -> None:
    console = Console(file=io.StringIO(), width=200)
    bars, lines = Bars(console), Lines()
    event = HistoryPruned(sync="users", destination="", runs=3, dead_letters=1_200)
    with capture_logs() as logs:
        bars(event)
        lines(event)
    (told,) = logs
    assert told == {
        "event": "history pruned",
        "log_level": "info",
        "sync": "users",
        "runs": 3,
        "dead_letters": 1_200,
    }
    assert isinstance(console.file, io.StringIO)
    assert "3 runs and 1,200 dead letters" in console.file.getvalue()
    assert drawn(bars, console).strip() == ""

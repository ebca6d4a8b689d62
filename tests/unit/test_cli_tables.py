"""The tables of runs in terminals of several widths: no word is broken, nothing is cut off."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from pipeline.cli import output
from pipeline.cli.history import _print_runs
from pipeline.cli.run import summary
from pipeline.model import Counts, Result, Window
from pipeline.ports import RunRecord
from pipeline.run.report import RunReport

COUNTS = Counts(read=8_234_567, delivered=8_234_000, dead_lettered=567, requests=5_882)
RECORD = RunRecord(
    id="20261128T221806Z-people_with_plans-35c8",
    sync="people_with_plans",
    window=Window(start=0, sequence=1),
    started=0.0,
    finished=12_345.6,
    result=Result.INTERRUPTED,
    error="",
    query_started=1,
    rows=8_234_567,
    bytes_billed=12_300_000_000,
    counts={"customerio": COUNTS},
)
REPORT = RunReport(
    sync="people_with_plans",
    run=RECORD.id,
    result=Result.INTERRUPTED,
    window=RECORD.window,
    query_started=1,
    rows=8_234_567,
    bytes_processed=5,
    bytes_billed=RECORD.bytes_billed,
    seconds=12_345.6,
    destinations={"customerio": COUNTS, "lake": COUNTS},
    restarts={"session_expired": 2, "result_expired": 1},
)


def printed(table: Table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def runs(
    records: list[RunRecord],
    width: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    _print_runs(records)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("destinations", [1, 2])
@pytest.mark.parametrize("restarts", [0, 3])
def test_the_history_fits(
    width: int,
    destinations: int,
    restarts: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = dict(list({"customerio": COUNTS, "lake": COUNTS}.items())[:destinations])
    record = replace(RECORD, counts=counts, restarts=restarts)
    lines = runs([record], width, capsys, monkeypatch)
    assert max(map(len, lines)) <= width
    heading = " ".join(lines[:-1]).split()
    assert ("restarts" in heading, "destination" in heading) == (restarts > 0, destinations > 1)
    words = " ".join(lines).split()
    for word in ("interrupted", "8,234,567", "8,234,000", "567"):
        assert word in words, "\n".join(lines)


def test_a_wide_terminal_shows_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = runs([replace(RECORD, restarts=3)], 120, capsys, monkeypatch)
    assert lines[0].split() == [
        *("run", "result", "read", "delivered", "dead", "seconds", "billed", "restarts"),
    ]
    assert lines[2].split() == [
        *(RECORD.id, "interrupted", "8,234,567", "8,234,000", "567", "12345.6", "12.3", "GB", "3"),
    ]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_summary_of_runs_fits(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    lines = printed(summary(console, [REPORT]), width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for word in ("interrupted", "restarts", "3", "8,234,567", "8,234,000", "567"):
        assert word in words, "\n".join(lines)


def test_restarts_are_shown_where_there_were_some() -> None:
    console = Console(file=io.StringIO(), width=200)
    assert "restarts" not in printed(summary(console, [replace(REPORT, restarts={})]), 200)[0]


def test_spare_columns_go_one_by_one() -> None:
    columns = {"name": "left", "more": "right", "most": "right"}
    rows = [["n" * 10, "m" * 10, "x" * 10]]

    def headings(width: int) -> list[str]:
        console = Console(file=io.StringIO(), width=width)
        return printed(output.fitted(console, columns, rows, spare=("most", "more")), width)[
            0
        ].split()

    assert headings(40) == ["name", "more", "most"]
    assert headings(30) == ["name", "more"]
    assert headings(15) == ["name"]
    assert headings(5) == ["name"]
    assert rows == [["n" * 10, "m" * 10, "x" * 10]], "left as they were"

"""Every fault of read_matrix.yml through the whole engine: each row in the settled set, once."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_system import Starter, System

from pipeline.events import Restarted
from pipeline.model import Result

ROWS = 12_000
CASES = yaml.safe_load(Path(__file__).with_name("read_matrix.yml").read_text(encoding="utf-8"))

# The same through files on disk: what the engine gets must not differ.
SPOOL = {"RETL_SPOOL_DIR": "spool", "RETL_SPOOL__WHEN": "always"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.source.patience._FIRST_WAIT", 0.01)
    monkeypatch.setattr("pipeline.source.patience._LAST_WAIT", 0.05)
    monkeypatch.setattr("pipeline.source.read._IDLE", 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("through", [{}, SPOOL], ids=["straight", "spooled"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_every_row_is_settled_once(
    case: dict[str, Any],
    through: dict[str, str],
    system: Starter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = case | (case.get("spooled", {}) if through else {})
    if "wait" in case:
        monkeypatch.setattr("pipeline.source.patience._FIRST_WAIT", case["wait"])
    streams = str(case.get("streams", 2))
    env = through | {"RETL_READ_STREAMS": streams}
    query = case.get("query", "SELECT id AS userId, name FROM app.users")
    if "deadline" in case:
        env["RETL_READ__RETRY_DEADLINE"] = case["deadline"]
    async with system(rows=ROWS, bigquery_faults=case["plan"]) as one:
        report = await one.run(query, **env)
        for _ in range(case.get("runs", 1) - 1):
            if through and report.result is Result.COMPLETE:
                break
            assert report.result is Result.FAILED
            assert report.exit_code == case["exit"]
            assert re.search(case["error"], str(report.error))
            if case.get("heals", False):
                for rule in one.plan._rules:
                    rule.times = 0
            report = await one.run(query, **env)
        stats = await one.stats()
    assert report.error is None
    assert report.result is Result.COMPLETE
    assert all(one.plan.fired()), "a rule of the plan met nothing"

    counts = report.destinations["cio"]
    assert (counts.read, counts.delivered, counts.dead_lettered) == (ROWS, ROWS, 0)
    arrived = one.received()
    assert {call["userId"] for call in arrived} == {str(row) for row in range(1, ROWS + 1)}
    assert {(call["userId"], call["traits"]["name"]) for call in arrived} == {
        (str(row), f"Name of {row}") for row in range(1, ROWS + 1)
    }
    # Whoever came twice came under one messageId: the destination can tell.
    assert len({(call["userId"], call["messageId"]) for call in arrived}) == ROWS
    assert stats["unique_message_ids"] == ROWS
    if case.get("repeats", "none") == "none":
        assert len(arrived) == ROWS

    assert report.restarts == case.get("restarts", {})
    assert queries(one) == case.get("queries", 1)
    told = [event.reason for event in one.events if isinstance(event, Restarted)]
    assert len(told) >= sum(report.restarts.values())
    assert {*report.restarts} <= {*told}


def queries(one: System) -> int:
    """How many query jobs the runs of the state read from, or tried to."""
    with closing(sqlite3.connect(one.folder / ".retl" / "state.db")) as state:
        keys = state.execute("SELECT COALESCE(query_key, id), reading FROM runs").fetchall()
    jobs = {json.loads(reading)["details"]["job"] for _, reading in keys if reading}
    assert len(jobs) <= len({key for key, _ in keys})
    return len({key for key, _ in keys})


async def test_a_result_without_rows_needs_no_stream(system: Starter) -> None:
    async with system(rows=1) as one:
        report = await one.run("SELECT id AS userId FROM app.users WHERE id > 1")
        assert (report.result, report.rows) == (Result.COMPLETE, 0)
        assert (await one.stats())["requests"] == 0

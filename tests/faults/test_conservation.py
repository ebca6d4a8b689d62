"""Every scenario of scenarios.yml through the whole engine: sent = delivered + dead-lettered."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_system import Starter

from pipeline.events import Encoded, Settled

ROWS = 12_000
SCENARIOS = yaml.safe_load(Path(__file__).with_name("scenarios.yml").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=[one["name"] for one in SCENARIOS])
async def test_no_row_is_lost(
    scenario: dict[str, Any], system: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.source.patience._FIRST_WAIT", 0.001)
    monkeypatch.setattr("pipeline.send.retry.RetryPolicy.wait", lambda *_: 0.001)
    async with system(
        rows=ROWS,
        bigquery_faults=scenario.get("bigquery", ""),
        customerio_faults=scenario.get("customerio", ""),
    ) as one:
        report = await one.run()
        stats = await one.stats()
    assert report.error is None
    counts = report.destinations["cio"]
    assert (counts.delivered, counts.dead_lettered) == (ROWS, 0)
    assert counts.retries >= scenario["seen"]
    read = sum(event.rows for event in one.events if isinstance(event, Encoded))
    settled = sum(event.delivered for event in one.events if isinstance(event, Settled))

    arrived = one.received()
    users = Counter(call["userId"] for call in arrived)
    assert users.keys() == {str(row) for row in range(1, ROWS + 1)}
    assert {call["userId"]: call["traits"]["name"] for call in arrived} == {
        str(row): f"Name of {row}" for row in range(1, ROWS + 1)
    }
    # A user who came twice came under one messageId: the destination can tell.
    assert len({(call["userId"], call["messageId"]) for call in arrived}) == ROWS
    assert stats["unique_message_ids"] == ROWS
    match scenario["repeats"]:
        case "none":
            assert len(arrived) == read == settled == ROWS
        case "some":
            assert len(arrived) > ROWS
        case "maybe":
            assert len(arrived) >= settled >= ROWS

"""Runs of a sync that reads a table, and of one with parameters, through the whole engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml
from local_system import KEY, Starter, System

from pipeline.config import load_config
from pipeline.model import Result
from pipeline.run.report import RunReport
from pipeline.wiring import preview_sync, run_sync

NONE: Mapping[str, str] = MappingProxyType({})
SPOOL = {"RETL_SPOOL_DIR": "spool", "RETL_SPOOL__WHEN": "always"}


def configured(one: System, **sync: object) -> Path:
    settings = {"source": "warehouse", "call": "identify", "destinations": ["cio"]}
    text = yaml.safe_dump(
        {
            "version": 1,
            "sources": {
                "warehouse": {
                    "type": "bigquery",
                    "project": "local",
                    "endpoint": one.address.rest,
                    "storage_endpoint": f"http://{one.address.storage}",
                }
            },
            "destinations": {
                "cio": {"type": "customerio", "api_key": KEY, "endpoint": f"{one.customerio}/v1"}
            },
            "syncs": {"users": settings | sync},
        }
    )
    path = one.folder / "retl.yml"
    path.write_text(text)
    return path


async def run(one: System, env: Mapping[str, str] = NONE, **sync: object) -> RunReport:
    config = load_config(await asyncio.to_thread(configured, one, **sync), env)
    return await run_sync(config, "users", observer=one.events.append)


TABLE = {
    "table": "app.people",
    "selected_fields": ["id", "name"],
    "row_restriction": "UNIX_SECONDS(updated_at) >= {{last_sync_time}}",
    "columns": {"id": "userId"},
}
PEOPLE = (
    "CREATE TABLE app.people AS SELECT id, name, TIMESTAMP '2020-01-01' AS updated_at "
    "FROM app.users"
)


async def test_a_table_is_synced_by_its_windows(system: Starter) -> None:
    async with system(rows=3_000) as one:
        await one.sql(PEOPLE)
        first = await run(one, **TABLE)
        assert (first.error, first.result) == (None, Result.COMPLETE)
        assert first.destinations["cio"].delivered == 3_000
        assert (first.bytes_billed, first.slot_ms) == (0, 0)
        assert first.query_started is not None
        await one.sql(
            "INSERT INTO app.people (id, name, updated_at) VALUES (9999, 'new', "
            "TIMESTAMP '2100-01-01')"
        )
        second = await run(one, **TABLE)
        assert (second.error, second.window.start) == (None, first.query_started)
        assert second.destinations["cio"].delivered == 1
    assert [row["userId"] for row in one.received()][-1] == "9999"
    assert one.received()[-1]["traits"] == {"name": "new"}


async def test_a_lost_session_reads_the_table_anew(system: Starter) -> None:
    plan = (
        "- {on: read_rows, after: 1, do: "
        "{error: FAILED_PRECONDITION, message: 'session expired', after_messages: 1}}"
    )
    async with system(rows=3_000, bigquery_faults=plan) as one:
        await one.sql(PEOPLE)
        report = await run(one, **TABLE)
        assert (report.error, dict(report.restarts)) == (None, {"result_expired": 1})
    assert {row["userId"] for row in one.received()} == {str(n) for n in range(1, 3_001)}


@pytest.mark.parametrize("env", [NONE, SPOOL], ids=["straight", "spooled"])
async def test_a_stream_that_ends_early_is_read_on_where_no_count_tells(
    system: Starter, env: Mapping[str, str]
) -> None:
    plan = """
    - {on: read_rows, after: 0, do: {wrong: ended}}
    - {on: read_rows, after: 1, do: {wrong: ended, after_messages: 2}}
    - {on: read_rows, after: 2, do: {wrong: ended, after_messages: 1}}
    """
    async with system(rows=3_000, bigquery_faults=plan) as one:
        await one.sql(PEOPLE)
        report = await run(one, {"RETL_READ_STREAMS": "1", **env}, **TABLE)
        assert (report.error, report.result) == (None, Result.COMPLETE)
        assert report.destinations["cio"].delivered == 3_000
        assert all(one.plan.fired())
        assert one.plan.seen()["read_rows"] == 5  # the last one brings nothing
    assert {row["userId"] for row in one.received()} == {str(n) for n in range(1, 3_001)}


async def test_a_table_is_previewed(system: Starter) -> None:
    async with system(rows=10) as one:
        await one.sql(PEOPLE)
        config = load_config(await asyncio.to_thread(configured, one, **TABLE), {})
        preview = await preview_sync(config, "users", rows=3)
    assert preview.table.num_rows == len(preview.rows) == 3
    assert preview.sql.startswith("SELECT id, name FROM `local.app.people` WHERE")


@pytest.mark.parametrize("compression", ["lz4", "none"])
async def test_parameters_and_compression_of_the_configuration_arrive(
    system: Starter, compression: str
) -> None:
    async with system(rows=50) as one:
        path = await asyncio.to_thread(
            configured,
            one,
            query="SELECT id AS userId FROM app.{{what}} WHERE id IN UNNEST(@ids)",
            parameters={"ids": [7, 9]},
            variables={"what": "users"},
        )
        config = load_config(path, {"RETL_READ__COMPRESSION": compression})
        report = await run_sync(config, "users")
        assert report.error is None
        assert report.slot_ms > 0
    assert sorted(row["userId"] for row in one.received()) == ["7", "9"]

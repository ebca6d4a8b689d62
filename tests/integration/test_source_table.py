"""A table read without a query, against the local BigQuery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from bigquery_source import WINDOW, Service, read, running

from pipeline.errors import ConfigError, PipelineError, ResultExpired, SourceError
from pipeline.source.query import JobSettings


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running() as one:
        yield one


async def ids(service: Service, table: str, **settings: Any) -> list[int]:
    source = service.table(table, **settings)
    reading = await source.start(WINDOW, "key")
    found = [
        row for stream in range(len(reading.streams)) for row in await read(source, reading, stream)
    ]
    await source.close()
    return sorted(found)


async def test_a_table_is_read_without_a_query_job(service: Service) -> None:
    before = await asyncio.to_thread(lambda: len(list(service.client.list_jobs())))
    source = service.table("app.users")
    reading = await source.start(WINDOW, "key")
    assert (reading.rows, reading.rows_exact) == (30_000, False)
    assert reading.bytes_billed == 0
    assert reading.bytes_processed > 0
    assert pa.ipc.read_schema(pa.py_buffer(reading.schema)).names == ["id", "seen", "created"]
    rows = [row for n in range(len(reading.streams)) for row in await read(source, reading, n)]
    assert sorted(rows) == list(range(1, 30_001))
    assert await read(source, reading, 0, 5) == (await read(source, reading, 0))[5:]
    await source.close()
    after = await asyncio.to_thread(lambda: len(list(service.client.list_jobs())))
    assert after == before


@pytest.mark.parametrize("name", ["app.users", "local.app.users"])
async def test_rows_and_columns_are_chosen(service: Service, name: str) -> None:
    source = service.table(
        name,
        row_restriction="UNIX_SECONDS(seen) > {{last_sync_time}} AND id <= {{top}}",
        variables={"top": "10010"},
        fields=("id",),
    )
    reading = await source.start(WINDOW, "key")
    assert pa.ipc.read_schema(pa.py_buffer(reading.schema)).names == ["id"]
    found = [row for n in range(len(reading.streams)) for row in await read(source, reading, n)]
    assert sorted(found) == list(range(10_001, 10_011))
    assert source.sql(WINDOW) == (
        "SELECT id FROM `local.app.users` WHERE\nUNIX_SECONDS(seen) > 1700000000 AND id <= 10010"
    )
    await source.close()


async def test_lookback_widens_the_window(service: Service) -> None:
    condition = "UNIX_SECONDS(seen) > {{last_sync_time}}"
    found = await ids(service, "app.users", row_restriction=condition, lookback=5)
    assert len(found) == 20_005


async def test_the_window_ends_before_the_snapshot_and_by_bigquerys_clock(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = service.table("app.users")
    checked: list[int] = []
    check = source._jobs.check

    def noted(*args: Any) -> Any:
        found = check(*args)
        checked.append(found.at or 0)
        return found

    monkeypatch.setattr(source._jobs, "check", noted)
    reading = await source.start(WINDOW, "key")
    await source.close()
    assert [reading.query_started] == checked
    assert reading.expires is not None
    assert reading.query_started <= reading.expires - 6 * 3600


async def test_a_moment_is_read_as_it_was_and_ends_the_window(service: Service) -> None:
    await service.run("CREATE TABLE app.once AS SELECT 1 AS id")
    moment = datetime.now(UTC)
    source = service.table("app.once", snapshot_time=moment)
    reading = await source.start(WINDOW, "key")
    assert reading.query_started == int(moment.timestamp())
    assert await read(source, reading, 0) == [1]
    await source.close()
    await service.run("INSERT INTO app.once VALUES (2)")
    with pytest.raises(SourceError, match="from before the last change"):
        await ids(service, "app.once", snapshot_time=moment)
    assert await ids(service, "app.once") == [1, 2]


async def test_a_preview_reads_a_few_rows(service: Service) -> None:
    source = service.table("app.users", fields=("created", "id"))
    table = await source.preview(WINDOW, 3, "p")
    assert table.num_rows == 3
    assert set(table.schema.names) == {"id", "created"}
    await source.close()
    empty = service.table("app.none")
    assert (await empty.preview(WINDOW, 3, "p")).num_rows == 0
    await empty.close()


@pytest.mark.parametrize(
    ("table", "settings", "error", "said"),
    [
        ("app.view", {}, ConfigError, r"names a view(.|\n)*`query`"),
        ("app.nope", {}, ConfigError, "Not found: Table local:app.nope"),
        ("app.users", {"fields": ("nope",)}, ConfigError, "Unrecognized name: nope"),
        ("app.users", {"row_restriction": "seen >= {{last_sync_time}}"}, ConfigError, "UNIX_SEC"),
        ("app.users", {"row_restriction": "{{nope}}"}, ConfigError, "not a variable"),
        ("app.users", {"row_restriction": "id = 1; SELECT 2"}, ConfigError, "SCRIPT"),
        (
            "app.users",
            {"snapshot_time": datetime.now(UTC) + timedelta(days=1)},
            ConfigError,
            "in the future",
        ),
        (
            "app.users",
            {"jobs": JobSettings(maximum_bytes_billed=10)},
            ConfigError,
            r"reading the table would scan [\d,]+ bytes, more than `maximum_bytes_billed`",
        ),
    ],
)
async def test_a_table_that_can_not_be_read_says_why(
    service: Service, table: str, settings: dict[str, Any], error: type[PipelineError], said: str
) -> None:
    await service.run("CREATE VIEW app.view AS SELECT 1 AS id")
    with pytest.raises(error, match=said):
        await ids(service, table, **settings)


async def test_a_lost_session_is_a_lost_result() -> None:
    plan = "- {on: read_rows, do: {error: FAILED_PRECONDITION, message: 'session expired'}}"
    async with running(plan) as service:
        with pytest.raises(ResultExpired, match="has to be read anew"):
            await ids(service, "app.users")

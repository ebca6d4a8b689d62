"""The BigQuery source with Google's real clients against the local BigQuery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pyarrow as pa
import pytest
from bigquery_source import WINDOW, Service, read, running
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import bigquery

from pipeline.checkpoint.schema import dump_reading, load_reading
from pipeline.errors import (
    ConfigError,
    CredentialsError,
    PipelineError,
    ReadingExpired,
    SourceError,
)
from pipeline.ports import Source
from pipeline.run.parts import schema_of
from pipeline.source.bigquery import BigQuery
from pipeline.source.client import Connection
from pipeline.source.query import JobSettings
from pipeline.source.read import StreamReader


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running() as one:
        yield one


async def test_a_query_becomes_streams_that_start_anywhere(service: Service) -> None:
    source = service.source(
        "SELECT id AS userId, created FROM app.users WHERE UNIX_SECONDS(seen) > {{last_sync_time}}"
    )
    reading = await source.start(WINDOW, "key")
    assert reading.rows == 20_000
    assert reading.query_started > 1_700_000_000
    assert reading.bytes_processed > 0
    assert reading.expires is not None
    assert reading.expires > reading.query_started
    schema = pa.ipc.read_schema(pa.py_buffer(reading.schema))
    assert schema.field("created").type == pa.timestamp("us")
    streams = [await read(source, reading, number) for number in range(len(reading.streams))]
    assert sorted(row for stream in streams for row in stream) == list(range(10_001, 30_001))
    for number, rows in enumerate(streams):
        for first in {0, 1, len(rows) // 2, len(rows) - 1, len(rows)}:
            assert await read(source, reading, number, first) == rows[first:]
    await source.close()


async def test_a_job_is_labelled_guarded_and_found_again(service: Service) -> None:
    source = service.source("SELECT id FROM app.users LIMIT 3")
    first = await source.start(WINDOW, "key")
    again = await source.start(WINDOW, "key")
    other = await source.start(WINDOW, "key2")
    await source.close()
    changed = await service.source("SELECT 1").start(WINDOW, "key")
    assert changed.details["job"] not in {first.details["job"], other.details["job"]}
    assert first.details["job"] == again.details["job"] != other.details["job"]
    assert first.query_started == again.query_started
    job = await asyncio.to_thread(service.client.get_job, first.details["job"].rpartition(".")[2])
    assert isinstance(job, bigquery.QueryJob)
    assert job.labels["team"] == "data"
    assert job.maximum_bytes_billed == 10**9
    assert job.query == "SELECT id FROM app.users LIMIT 3"


async def test_lookback_widens_the_window(service: Service) -> None:
    query = "SELECT {{last_sync_time}} AS a"
    assert await service.rows(query, lookback=60) == [WINDOW.start - 60]
    assert await service.rows(
        "SELECT COUNT(*) FROM app.users WHERE seen >= {{last_sync_timestamp}}"
    ) == [20_001]


async def test_no_rows_and_one_row(service: Service) -> None:
    source = service.source("SELECT id FROM app.none")
    reading = await source.start(WINDOW, "key")
    assert (reading.streams, reading.rows) == ((), 0)
    preview = await source.preview(WINDOW, 5, "p")
    assert (preview.num_rows, preview.schema.names) == (0, ["id"])
    await source.close()
    assert await service.rows("SELECT 7 AS id") == [7]


@pytest.mark.parametrize("end", [" -- all;", "; -- all", ";;\n# all", " /* all */ ; /* ; */"])
async def test_a_preview_is_a_few_rows_of_the_real_types(service: Service, end: str) -> None:
    query = "SELECT id, JSON '{\"a\":1}' AS j FROM app.users ORDER BY id"
    source = service.source(query + end)
    table = await source.preview(WINDOW, 3, "p")
    await source.close()
    assert table.column("id").to_pylist() == [1, 2, 3]
    assert table.schema.field("j").metadata == {b"ARROW:extension:name": b"google:sqlType:json"}


@pytest.mark.parametrize(
    ("query", "error", "said"),
    [
        ("DELETE FROM app.users WHERE TRUE", ConfigError, "a DELETE, and only a single SELECT"),
        ("SELECT 1; SELECT 2", ConfigError, "a SCRIPT"),
        ("SELECT FROM WHERE", ConfigError, "Syntax error"),
        ("SELECT id FROM app.nope", ConfigError, "Not found: Table local:app.nope"),
        ("SELECT nope FROM app.users", ConfigError, "Unrecognized name: nope"),
        (
            "SELECT id FROM forbidden.t",
            CredentialsError,
            "Access Denied.*roles/bigquery.dataViewer",
        ),
        (
            "SELECT id FROM app.users WHERE seen >= {{last_sync_time}}",
            ConfigError,
            r"TIMESTAMP, INT64(.|\n)*UNIX_SECONDS\(column\) >= \{\{last_sync_time\}\}",
        ),
        (
            "SELECT UNIX_SECONDS(created) AS created FROM app.users",
            ConfigError,
            r"UNIX_SECONDS(.|\n)*UNIX_SECONDS\(TIMESTAMP\(column\)\)",
        ),
        ("SELECT {{last_sync}} AS x", ConfigError, "not a variable"),
    ],
)
async def test_a_query_that_can_not_run_says_why(
    service: Service, query: str, error: type[PipelineError], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        await service.rows(query)
    assert "http://" not in str(raised.value)


async def test_bytes_are_guarded_before_anything_is_billed(service: Service) -> None:
    with pytest.raises(ConfigError, match=r"more than `maximum_bytes_billed` allows \(10\)"):
        await service.rows("SELECT id FROM app.users", maximum_bytes_billed=10)


async def test_nobody_there_is_said_soon_and_without_the_address() -> None:
    connection = Connection(
        project="p", endpoint="http://127.0.0.1:1", storage_endpoint="127.0.0.1:1"
    )
    source = BigQuery(
        connection,
        where="sync users",
        query="SELECT 1",
        lookback=0,
        jobs=JobSettings(maximum_bytes_billed=1),
        streams=1,
    )
    source._jobs._retry = source._jobs._retry.with_timeout(0.1)
    with pytest.raises(SourceError, match=r"can't be reached|does not answer") as raised:
        await source.start(WINDOW, "key")
    assert raised.value.exit_code == 75
    await source.close()


@pytest.mark.parametrize(
    "key", ["not json", "{}", '{"type": "service_account", "private_key": "s3cret"}']
)
async def test_bad_credentials_are_refused_without_being_shown(key: str) -> None:
    connection = Connection(project="p", endpoint="https://bigquery.example", credentials=key)
    with pytest.raises(CredentialsError, match="No usable Google credentials") as raised:
        connection.jobs()
    assert "s3cret" not in str(raised.value)


FAULTS = [
    "- {on: read_rows, times: 2, do: {error: UNAVAILABLE}}",
    "- {on: read_rows, times: 3, do: {error: UNAVAILABLE, after_messages: 1}}",
    "- {on: read_rows, do: {error: INTERNAL, message: 'got RST_STREAM', after_messages: 1}}",
    "- {on: read_rows, do: {error: RESOURCE_EXHAUSTED, retry_after: 0.01}}",
    "- {on: read_rows, do: {reset: true, after_messages: 1}}",
    "- {on: create_read_session, do: {error: UNAVAILABLE}}",
]


@pytest.mark.parametrize("plan", FAULTS)
async def test_passing_faults_neither_lose_nor_repeat_a_row(
    plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.source.patience._FIRST_WAIT", 0.001)
    async with running(plan) as service:
        rows = await service.rows("SELECT id FROM app.users")
    assert sorted(rows) == list(range(1, 30_001))


async def test_faults_that_stay_end_the_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.source.patience._FIRST_WAIT", 0.0001)
    async with running("- {on: read_rows, times: always, do: {error: UNAVAILABLE}}") as service:
        service.connection = replace(service.connection, read_deadline=0.05)
        with pytest.raises(SourceError, match="UNAVAILABLE"):
            await service.rows("SELECT id FROM app.users")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("{error: FAILED_PRECONDITION, message: 'the read session expired'}", ReadingExpired),
        ("{error: NOT_FOUND}", ReadingExpired),
        ("{error: PERMISSION_DENIED}", CredentialsError),
        ("{error: INTERNAL, message: 'disk on fire'}", SourceError),
        ("{error: INVALID_ARGUMENT}", ConfigError),
    ],
)
async def test_faults_that_do_not_pass_are_told_apart(
    fault: str, error: type[PipelineError]
) -> None:
    async with running(f"- {{on: read_rows, do: {fault}}}") as service:
        with pytest.raises(error):
            await service.rows("SELECT id FROM app.users")


async def test_a_stream_that_says_nothing_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.source.patience._FIRST_WAIT", 0.001)
    async with running("- {on: read_rows, do: {hang: true, after_messages: 1}}") as service:
        source = service.source("SELECT id FROM app.users")
        reading = await source.start(WINDOW, "key")
        schema = pa.ipc.read_schema(pa.py_buffer(reading.schema))
        reader = StreamReader(source._storage.channel(), schema, where="sync users", idle=0.2)
        found = []
        for number, name in enumerate(reading.streams):
            async for frame in reader.read(name, number, 0):
                found += frame.record_batch().column(0).to_pylist()
        await source.close()
    assert sorted(found) == list(range(1, 30_001))


async def test_a_table_that_is_gone_expires_the_reading(service: Service) -> None:
    source = service.source("SELECT id FROM app.users")
    reading = await source.start(WINDOW, "key")
    lost = replace(reading, streams=tuple(f"{name}x" for name in reading.streams))
    with pytest.raises(ReadingExpired):
        await read(source, lost, 0)
    await source.close()


async def test_jobs_that_failed_before_do_not_keep_the_next_from_running(service: Service) -> None:
    source = service.source("SELECT 1 AS userId")
    for number in range(6):
        config = bigquery.QueryJobConfig()
        with pytest.raises(GoogleAPICallError):
            await asyncio.to_thread(
                lambda n=number, c=config: service.client.query(
                    "SELECT 1 / 0 AS x", job_id=f"key_{n}", job_config=c, job_retry=None
                ).result(job_retry=None)
            )
    reading = await source.start(WINDOW, "key")
    await source.close()
    assert reading.details["job"].endswith("key_6")


async def test_a_result_that_is_gone_when_the_session_is_made_expires_the_reading() -> None:
    async with running("- {on: create_read_session, times: always, do: {error: NOT_FOUND}}") as one:
        source = one.source("SELECT 1 AS userId")
        with pytest.raises(ReadingExpired, match="result is gone"):
            await source.start(WINDOW, "key")
        await source.close()


async def test_a_missing_role_for_sessions_is_told_with_the_role() -> None:
    plan = "- {on: create_read_session, do: {error: PERMISSION_DENIED}}"
    async with running(plan) as one:
        source = one.source("SELECT 1 AS userId")
        with pytest.raises(CredentialsError, match=r"roles/bigquery\.readSessionUser"):
            await source.start(WINDOW, "key")
        await source.close()


async def test_columns_keep_the_order_of_the_query_whatever_a_session_gives() -> None:
    async with running("- {on: create_read_session, do: {wrong: reordered}}") as service:
        source = service.source("SELECT id, seen FROM app.users")
        odd, usual = await source.start(WINDOW, "key"), await source.start(WINDOW, "key")
        await source.close()
    given = pa.ipc.read_schema(pa.py_buffer(odd.schema)).names
    assert (given, odd.columns) == (["seen", "id"], ("id", "seen"))
    assert schema_of(odd).equals(schema_of(usual))
    assert usual.columns == ()
    assert load_reading(dump_reading(odd)) == odd  # for the process that goes on


async def test_a_preview_gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.source.storage._HURRY", 0.05)
    monkeypatch.setattr("pipeline.source.patience._FIRST_WAIT", 0.001)
    fault = "- {on: create_read_session, times: always, do: {error: UNAVAILABLE}}"
    async with running(fault) as service:
        for source in (service.source("SELECT id FROM app.users"), service.table("app.users")):
            with pytest.raises(SourceError, match="UNAVAILABLE"):
                await source.preview(WINDOW, 1, "key")
            await source.close()


async def test_what_a_read_waits_out_is_its_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr("pipeline.source.patience._FIRST_WAIT", 0.001)
    plan = """
    - {on: read_rows, after: 0, do: {error: UNAVAILABLE}}
    - {on: read_rows, after: 2, do: {error: UNAVAILABLE}}
    """
    async with running(plan) as service:
        for source in (service.source("SELECT id FROM app.users"), service.table("app.users")):
            reading = await source.start(WINDOW, "key")
            reader = source._storage.reader(reading)

            async def noted(seconds: float, *, source: Source = source) -> None:
                waits.append(source.activity)

            reader._sleep = noted
            monkeypatch.setattr(source._storage, "reader", lambda _reading, one=reader: one)
            async with aclosing(source.read(reading, 0, 0)) as frames:
                await anext(frames)
                assert source.activity == ""
            await source.close()
    assert waits == ["reading again after UNAVAILABLE, for 0 s"] * 2

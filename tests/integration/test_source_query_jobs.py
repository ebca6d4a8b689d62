"""Query jobs of the BigQuery source: time limits, stops, progress, parameters, kinds of tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bigquery_source import WINDOW, Service, running
from google.cloud import bigquery

from pipeline.errors import ConfigError, SourceError
from pipeline.source.bigquery import BigQuery
from pipeline.source.parameters import parameter

# Ends when it is cancelled: a million million pairs.
ENDLESS = (
    "SELECT COUNT(*) AS n FROM UNNEST(GENERATE_ARRAY(1, 1000000)) AS a "
    "CROSS JOIN UNNEST(GENERATE_ARRAY(1, 1000000)) AS b CROSS JOIN (SELECT MIN(id) FROM app.users)"
    " WHERE MOD(a * b, 7) = 3"
)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running() as one:
        yield one


async def waiting(source: BigQuery, ran: asyncio.Task[Any], said: str = "query running") -> str:
    """What the source is at, once it says so."""
    while said not in (activity := source.activity):
        assert not ran.done(), await ran
        await asyncio.to_thread(lambda: None)  # a turn of other threads
    return activity


async def ended(service: Service, job_id: str) -> bigquery.QueryJob:
    job = await service.job(job_id)
    while job.state != "DONE":
        await asyncio.to_thread(job.reload)
    return job


async def test_priority_and_time_limit_are_the_jobs(service: Service) -> None:
    source = service.source("SELECT 1 AS id", priority="batch", timeout=90.0)
    reading = await source.start(WINDOW, "key")
    await source.close()
    job = await service.job("key_0")
    assert reading.details["job"].endswith("key_0")
    assert job.priority == "BATCH"
    assert int(job.configuration.job_timeout_ms or 0) == 90_000


async def test_the_reading_tells_what_the_query_took(service: Service) -> None:
    source = service.source("SELECT id FROM app.users")
    reading = await source.start(WINDOW, "key")
    await source.close()
    job = await service.job("key_0")
    assert (reading.slot_ms, reading.cache_hit) == (job.slot_millis, False)
    assert reading.slot_ms > 0
    assert reading.bytes_billed == job.total_bytes_billed > 0


@pytest.mark.slow
async def test_a_query_that_takes_too_long_is_cancelled_and_explained(service: Service) -> None:
    source = service.source(ENDLESS, timeout=0.2)
    with pytest.raises(ConfigError, match=r"longer than `query_timeout` allows \(0.2 s\)"):
        await source.start(WINDOW, "key")
    await source.close()
    job = await service.job("key_0")
    assert job.error_result["reason"] == "stopped"
    assert "timed out" in job.error_result["message"]


@pytest.mark.slow
async def test_a_time_limit_that_bigquery_lets_pass_is_kept_here(service: Service) -> None:
    # The job that is found has no limit of its own.
    await asyncio.to_thread(service.client.query, ENDLESS, job_id="key_0", job_retry=None)
    source = service.source(ENDLESS, timeout=0.2)
    with pytest.raises(ConfigError, match=r"longer than `query_timeout` allows \(0.2 s\)"):
        await source.start(WINDOW, "key")
    await source.close()
    job = await service.job("key_0")
    assert "User requested" in job.error_result["message"]


async def test_progress_is_told_while_the_query_runs(service: Service) -> None:
    source = service.source(ENDLESS, kept=False)
    assert source.activity == ""
    ran = asyncio.create_task(source.start(WINDOW, "key"))
    assert (await waiting(source, ran)).startswith("query running, 0 s")
    assert (await waiting(source, ran, "to scan")).endswith(", 240.0 kB to scan")
    ran.cancel()
    await asyncio.gather(ran, return_exceptions=True)
    assert source.activity == ""
    await source.close()


@pytest.mark.slow
async def test_a_run_that_is_gone_on_with_leaves_its_query_running(service: Service) -> None:
    source = service.source(ENDLESS)
    ran = asyncio.create_task(source.start(WINDOW, "key"))
    await waiting(source, ran)
    ran.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ran
    await source.close()
    job = await service.job("key_0")
    assert job.state == "RUNNING"
    await asyncio.to_thread(job.cancel)
    assert (await ended(service, "key_0")).error_result["reason"] == "stopped"


@pytest.mark.slow
@pytest.mark.parametrize("preview", [True, False])
async def test_a_query_that_nobody_comes_back_for_is_cancelled(
    service: Service, *, preview: bool
) -> None:
    source = service.source(ENDLESS, kept=preview)
    work: Any = source.preview(WINDOW, 3, "key") if preview else source.start(WINDOW, "key")
    ran = asyncio.create_task(work)
    await waiting(source, ran)
    ran.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ran
    await source.close()
    assert (await ended(service, "key_0")).error_result["reason"] == "stopped"


@pytest.mark.slow
async def test_a_query_that_somebody_cancels_can_run_again(service: Service) -> None:
    source = service.source(ENDLESS)
    ran = asyncio.create_task(source.start(WINDOW, "key"))
    await waiting(source, ran)
    await asyncio.to_thread((await service.job("key_0")).cancel)
    with pytest.raises(SourceError, match=r"failed while it ran \(stopped\)"):
        await ran
    await source.close()


PARAMETERS = [
    parameter("Plan", "o'neil"),
    parameter("n", 7),
    parameter("x", 1.5),
    parameter("yes", given=True),
    parameter("day", "2026-01-02", "DATE"),
    parameter("local", "2026-01-02T03:04:05", "DATETIME"),
    parameter("at", "2026-01-02T03:04:05+01:00", "TIMESTAMP"),
    parameter("price", "12.50", "NUMERIC"),
    parameter("raw", "AQI=", "BYTES"),
    parameter("ids", [1, 3]),
    parameter("days", ["2026-01-02"], "DATE"),
    parameter("no_days", [], "DATE"),
    parameter("nothing", None, "DATE"),
    parameter("clock", "06:30", "TIME"),
    parameter("big", "0.12345678901234567890123456789012345678", "BIGNUMERIC"),
    parameter("tiny", "0." + "0" * 37 + "1", "BIGNUMERIC"),  # which travels as 1E-38
    parameter("span", "1-2 3 4:5:6.5", "INTERVAL"),
    parameter("doc", '{"a": [1, "x"]}', "JSON"),
    parameter("docs", [{"a": 1}], "JSON"),
    parameter("year", {"start": "2026-01-01", "end": "2027-01-01"}, "RANGE<DATE>"),
    parameter("since", {"start": "2026-01-02T00:00:00Z", "end": None}, "RANGE<TIMESTAMP>"),
    parameter("who", {"id": 3, "day": {"type": "DATE", "value": "2026-01-02"}}, "STRUCT"),
    parameter("pairs", [{"id": 3, "plan": "pro"}, {"id": 4, "plan": "free"}], "STRUCT"),
]
TRUE = """
SELECT COUNT(*) AS n FROM app.users WHERE @plan = "o'neil" AND @n = 7 AND @x = 1.5 AND @yes
  AND @day = DATE '2026-01-02' AND @local = DATETIME '2026-01-02 03:04:05'
  AND @at = TIMESTAMP '2026-01-02 02:04:05+00' AND @price = NUMERIC '12.5' AND @raw = b'\\x01\\x02'
  AND id IN UNNEST(@ids) AND @day IN UNNEST(@days) AND ARRAY_LENGTH(@no_days) = 0
  AND @nothing IS NULL AND @clock = TIME '06:30:00'
  AND @big = BIGNUMERIC '0.12345678901234567890123456789012345678'
  AND @tiny = BIGNUMERIC '0.00000000000000000000000000000000000001'
  AND @span = INTERVAL '1-2 3 4:5:6.5' YEAR TO SECOND
  AND JSON_VALUE(@doc, '$.a[1]') = 'x' AND JSON_VALUE(@docs[OFFSET(0)], '$.a') = '1'
  AND RANGE_START(@year) = DATE '2026-01-01' AND RANGE_END(@year) = DATE '2027-01-01'
  AND RANGE_START(@since) = TIMESTAMP '2026-01-02 00:00:00+00' AND RANGE_END(@since) IS NULL
  AND @who.id = 3 AND @who.day = @day
  AND @pairs[OFFSET(1)].plan = 'free' AND ARRAY_LENGTH(@pairs) = 2
  AND id IN (SELECT p.id - 2 FROM UNNEST(@pairs) AS p UNION ALL SELECT id - 1 FROM UNNEST(@pairs))
"""


async def test_parameters_reach_the_query_with_their_types(service: Service) -> None:
    assert await service.rows(TRUE, parameters=PARAMETERS) == [2]


async def test_parameters_work_in_a_preview(service: Service) -> None:
    source = service.source(
        "SELECT id FROM app.users WHERE id < @n ORDER BY id", parameters=[parameter("n", 3)]
    )
    table = await source.preview(WINDOW, 10, "p")
    await source.close()
    assert table.column("id").to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT @nope AS x", "Query parameter 'nope' not found"),
        ("SELECT id FROM app.users WHERE seen >= @n", r"TIMESTAMP, INT64"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_told(
    service: Service, query: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        await service.rows(query, parameters=[parameter("n", 7)])


async def test_own_variables_name_tables(service: Service) -> None:
    query = "SELECT COUNT(*) AS n FROM app.{{what}}"
    assert await service.rows(query, variables={"what": "users"}) == [30_000]


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("SELECT 1; SELECT 2", "SCRIPT"),
        ("CREATE TABLE app.made AS SELECT 1 AS id", "CREATE_TABLE_AS_SELECT"),
        ("CREATE VIEW app.seen AS SELECT 1 AS id", "CREATE_VIEW"),
        ("CREATE SCHEMA other", "CREATE_SCHEMA"),
        ("DROP TABLE app.users", "DROP_TABLE"),
        ("INSERT INTO app.none VALUES (1)", "INSERT"),
        ("UPDATE app.users SET id = 1 WHERE TRUE", "UPDATE"),
        ("DELETE FROM app.users WHERE TRUE", "DELETE"),
        ("TRUNCATE TABLE app.users", "TRUNCATE_TABLE"),
        ("MERGE app.none t USING app.users u ON t.id = u.id WHEN MATCHED THEN DELETE", "MERGE"),
    ],
)
async def test_only_a_single_select_runs(service: Service, statement: str, kind: str) -> None:
    source = service.source(statement)
    with pytest.raises(ConfigError, match=f"is a {kind}, and only a single SELECT"):
        await source.start(WINDOW, "key")
    await source.close()
    jobs = await asyncio.to_thread(lambda: list(service.client.list_jobs()))
    assert all(not str(job.job_id).startswith("key") for job in jobs)


async def test_views_wildcards_and_partitions_are_read(service: Service) -> None:
    for statement in (
        "CREATE TABLE app.events_0101 AS SELECT 1 AS id",
        "CREATE TABLE app.events_0102 AS SELECT 2 AS id, 'x' AS added",
        "CREATE VIEW app.recent AS SELECT id FROM `app.events_*` WHERE _TABLE_SUFFIX > '0101'",
        "CREATE TABLE app.daily (id INT64) PARTITION BY _PARTITIONDATE",
        "INSERT INTO app.daily (_PARTITIONTIME, id) VALUES (TIMESTAMP '2026-01-01', 1)",
        "INSERT INTO app.daily (_PARTITIONTIME, id) VALUES (TIMESTAMP '2026-01-02', 2)",
    ):
        await service.run(statement)
    assert sorted(await service.rows("SELECT id FROM `app.events_*`")) == [1, 2]
    assert await service.rows("SELECT id FROM app.recent") == [2]
    partition = "SELECT id FROM app.daily WHERE _PARTITIONDATE = '2026-01-02'"
    assert await service.rows(partition) == [2]
    since = "SELECT id FROM app.daily WHERE _PARTITIONTIME >= TIMESTAMP_SECONDS(1767312000)"
    assert await service.rows(since) == [2]
    source = service.source("SELECT * FROM app.daily")
    assert (await source.preview(WINDOW, 5, "p")).schema.names == ["id"]
    await source.close()
